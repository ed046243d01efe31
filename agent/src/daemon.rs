//! `mirror-agent run`: brings the parts together, reloads them on SIGHUP and ends on SIGTERM. An end leaves running
//! programs to their supervisors: the next start adopts them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mirror_certs::{ClientFiles, ClientTls, IdentityFiles};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::autonomy::Autonomy;
use crate::config::{Config, Fault, Faults, Overrides};
use crate::executor::{Executor, Live};
use crate::guard::Guard;
use crate::journal::{Journal, JournalError};
use crate::link::{Exporter, Link};
use crate::probe::Prober;
use crate::renewal::Renewal;
use crate::rundir::{PROGRAM_NAME, SuperviseProgram};
use crate::state::{State, StateError};
use crate::trash::Trash;
use crate::{identity, outcome};

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration, or what it names.
    #[error(transparent)]
    Faults(#[from] Faults),
    /// The state directory.
    #[error("not started: the data directory cannot be used")]
    State(#[from] StateError),
    /// The journal.
    #[error("not started: what this agent runs cannot be known")]
    Journal(#[from] JournalError),
    /// Signals.
    #[error("not started: signals cannot be caught")]
    Signals(#[from] std::io::Error),
}

/// Looks at everything a configuration names: roots, rsync, certificates; and at the program behind every run, unless
/// one is `held`: as long as an agent runs it has the one that it began with, whatever an upgrade put in its place.
///
/// # Errors
/// Everything that is wrong.
pub fn examine(config: Config, held: Option<SuperviseProgram>) -> Result<(Live, ClientTls), Vec<Fault>> {
    let mut faults = Vec::new();
    let mut note = |key: &str, error: &(dyn std::error::Error + 'static)| {
        faults.push(Fault::new(key, outcome::chain(error)));
    };
    let version = rsync::process::probe_version(&config.rsync).map_err(|error| note("rsync", &error)).ok();
    let program = held.map_or_else(SuperviseProgram::beside_own, Ok);
    let program = program.map_err(|error| note(PROGRAM_NAME, &error)).ok();
    let tls = ClientTls::load(ClientFiles {
        identity: Some(IdentityFiles { certificate: config.identity.clone(), key: config.identity.clone() }),
        ca: config.ca.clone(),
    });
    let tls = tls.map_err(|error| note("identity", &error)).ok();
    if let (Some(domain), Some(_)) = (&config.trust_domain, &tls) {
        match identity::read(&config.identity, domain) {
            Ok(own) if !config.name.is_empty() && own.name != config.name => {
                let text = format!("\"{}\": the certificate is {}'s", config.name, own.name);
                faults.push(Fault::new("name", text));
            }
            Ok(_) => {}
            Err(error) => faults.push(Fault::new("identity", outcome::chain(&error))),
        }
    }
    let guard = Guard::open(&config.roots).map_err(|bad| {
        let described = bad.iter().map(|(name, fault)| {
            let path = config.roots.get(name).map(|path| path.display().to_string()).unwrap_or_default();
            Fault::new(format!("roots.{name}"), format!("\"{path}\": {}", outcome::chain(fault)))
        });
        faults.extend(described);
    });
    match (version, program, tls, guard) {
        (Some(version), Some(program), Some(tls), Ok(guard)) if faults.is_empty() => {
            Ok((Live { config, guard, version, program }, tls))
        }
        _ => Err(faults),
    }
}

/// Reads and examines a configuration file; `held` as for [`examine`].
///
/// # Errors
/// [`Faults`].
pub fn load(
    path: &Path,
    overrides: Overrides,
    held: Option<SuperviseProgram>,
) -> Result<(Live, ClientTls), Faults> {
    let config = Config::load(path, overrides)?;
    examine(config, held).map_err(|list| Faults::new("not started", path.display(), list))
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`], only before anything was begun.
pub async fn run(path: PathBuf, overrides: Overrides, live: Live, tls: ClientTls) -> Result<(), RunError> {
    let mut signals = Signals::catch()?;
    let data_dir = live.config.data_dir.clone();
    let mut state = State::open(&data_dir)?;
    let (journal, opened) = Journal::open(&data_dir)?;
    if let Some(torn) = opened.torn {
        tracing::warn!(at = torn.at, bytes = torn.bytes, "the end of the journal was torn and is cut off");
    }
    if opened.fresh {
        // Nothing is held from now on. Under the old id the coordinator would take that for the end of everything.
        state.renew_id()?;
    }
    let held = journal.book().entries().count();
    let (identity, ca) = (live.config.identity.clone(), live.config.ca.clone());
    let trust_domain = live.config.trust_domain.clone().or_else(|| identity::trust_domain_of(&ca));
    let coordinators = live.config.coordinators.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let version = live.version.to_string();
    let executor = Executor::start(live, journal);
    let wake = Arc::new(Notify::new());
    let exporter = Exporter::start(executor.clone());
    let trash = Trash::new(executor.clone(), exporter.clone());
    let link = Arc::new(Link {
        executor: executor.clone(),
        exporter: exporter.clone(),
        trash: trash.clone(),
        state: Mutex::new(state),
        tls: Arc::new(tls),
        trust_domain: trust_domain.clone(),
        instance: Uuid::new_v4(),
        autonomy: Arc::new(Autonomy::open(&data_dir)),
        wake: wake.clone(),
        prober: Prober::default(),
        renewals: watch::Sender::new(0),
        trust: watch::Sender::new(None),
    });
    let stop = CancellationToken::new();
    match trust_domain {
        Some(trust_domain) => {
            let renewal = Renewal { identity, ca, trust_domain };
            tokio::spawn(renewal.run(link.clone(), stop.clone()));
        }
        None => {
            tracing::error!("the certificate is not renewed: neither trust_domain nor the CA names the fleet")
        }
    }
    let tidying = tokio::spawn(trash.run(stop.clone()));
    let alone = tokio::spawn(link.autonomy.clone().run(link.clone(), stop.clone()));
    let running = {
        let (link, stop) = (link.clone(), stop.clone());
        tokio::spawn(async move { link.run(stop).await })
    };
    // Ready without a coordinator too: what was begun goes on, and the link keeps dialling.
    notify(&[NotifyState::Ready]);
    tracing::info!(%coordinators, rsync = version, held, "agent started");
    while let Wish::Reload = signals.next().await {
        reload(&path, &overrides, &link);
    }
    notify(&[NotifyState::Stopping]);
    tracing::info!("stopping; what runs goes on under its supervisors and is adopted at the next start");
    executor.stop_taking();
    exporter.stop();
    stop.cancel();
    // It ends at its next wait; a panic in it was told by the runtime.
    let _ = running.await;
    let _ = alone.await;
    let _ = tidying.await;
    Ok(())
}

/// All or nothing: a faulty file changes nothing.
fn reload(path: &Path, overrides: &Overrides, link: &Link) {
    let held = link.executor.live().program.clone();
    let result = load(path, overrides.clone(), Some(held));
    match result {
        Ok((live, _)) => match link.tls.reload() {
            Ok(()) => {
                let moved = live.config.data_dir != link.executor.live().config.data_dir;
                if moved {
                    tracing::error!("reload refused: data_dir cannot change while the agent runs");
                    return;
                }
                link.executor.reload(live);
                link.wake.notify_one();
                tracing::info!(
                    "reloaded: roots, limits and upstreams hold now, certificates from the next dial on, serve.* from the next start on"
                );
            }
            Err(error) => {
                tracing::error!(error = outcome::chain(&error), "reload refused; the old settings stay")
            }
        },
        Err(faults) => {
            let list: Vec<String> =
                faults.list.iter().map(|fault| format!("{} {}", fault.key, fault.text)).collect();
            tracing::error!(faults = list.join("; "), "reload refused, the old settings stay");
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

enum Wish {
    End,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
            _ = self.hang_up.recv() => Wish::Reload,
        }
    }
}
