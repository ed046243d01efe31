//! A look at what a project needs on this host, for `mirrorctl project check`: its path, its options, its upstream and
//! the room for it, judged by this host's own file. Keeps nothing and changes nothing but the agent's own lock file of
//! probes. Does NOT know attempts: a probe takes no slot and no project's lock, so it holds up no run.

mod explain;
mod marker;
mod program;
mod space;
mod upstream;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleet::id::ProjectUid;
use fleet::project::Destination;
use mirror_proto::v1;
use mirror_proto::v1::finding::{Kind, Severity};
use rsync::options::DeleteMode;
use rsync::{Deletion, Options, Plan, Publish, Purpose, RsyncUri};
use rustix::fs::{Access, AtFlags, CWD};
use tokio::sync::Semaphore;

use self::upstream::Upstream;
use crate::executor::Live;
use crate::guard::LinkState;
use crate::{order, outcome};

/// Probes at once on this host; further ones are told so.
const PROBES_MAX: usize = 4;
/// Longest look at the destination's file system; beyond it its disk hangs.
const DISK_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest sentence, bytes, as the contract has it.
const SENTENCE_BYTES_MAX: usize = 1024;
/// Stands for the origin's daemon where only the options are judged: nothing connects to it.
const ANY_SOURCE: &str = "rsync://origin.invalid/module/";

/// Looks, at a bounded number of projects at once.
#[derive(Debug, Clone)]
pub struct Prober {
    free: Arc<Semaphore>,
}

impl Default for Prober {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(PROBES_MAX)) }
    }
}

impl Prober {
    /// Looks at what the probe names. Takes at most a minute and a half; whoever no longer waits for it leaves nothing
    /// running for longer than that. A look that finds too many others going on says so at once.
    pub async fn look(&self, live: Arc<Live>, probe: v1::Probe) -> v1::ProbeResult {
        let id = probe.id;
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else {
            let text =
                format!("{} looks at {PROBES_MAX} projects already; check again later", live.config.name);
            let findings = vec![finding(Kind::Agent, Severity::Warning, text)];
            return v1::ProbeResult { id, findings, command_line: None };
        };
        if let Some(assignment) = &probe.explain {
            let line = explain::line(Arc::clone(&live), assignment.clone(), probe.explain_password).await;
            drop(permit);
            return v1::ProbeResult { id, findings: Vec::new(), command_line: Some(line) };
        }
        // A task of its own: what it started is ended and removed even if the link breaks meanwhile.
        let looking = tokio::spawn(async move {
            let findings = Look { live: &live, probe: &probe }.all().await;
            drop(permit);
            findings
        });
        let findings = looking.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a probe failed");
            let text = "the agent failed while it looked; its own messages say more".to_owned();
            vec![finding(Kind::Agent, Severity::Fault, text)]
        });
        v1::ProbeResult { id, findings, command_line: None }
    }
}

/// One thing that was looked at.
fn finding(kind: Kind, severity: Severity, sentence: impl Into<String>) -> v1::Finding {
    let mut sentence = sentence.into();
    crate::text::cut(&mut sentence, SENTENCE_BYTES_MAX);
    v1::Finding { kind: kind.into(), severity: severity.into(), sentence, ..v1::Finding::default() }
}

/// One look.
struct Look<'a> {
    live: &'a Arc<Live>,
    probe: &'a v1::Probe,
}

impl Look<'_> {
    async fn all(&self) -> Vec<v1::Finding> {
        let (place, path) = self.path().await;
        let mut findings = vec![path];
        let source = self.source();
        let options = self.options();
        findings.push(self.judge_options(source.as_ref(), options.as_ref()));
        let mut growth = Some(self.probe.growth_bytes).filter(|bytes| *bytes > 0);
        match (source, options) {
            (Some(Err(why)), _) => {
                findings.push(finding(Kind::Reachability, Severity::Fault, self.say(&why)));
            }
            (Some(Ok(source)), options) => {
                let upstream = Upstream { look: self, source, options: options.ok(), place: place.as_ref() };
                let seen = upstream.look().await;
                findings.extend(seen.findings);
                growth = seen.growth_bytes.or(growth);
            }
            (None, _) => {}
        }
        findings.extend(marker::look(self).await);
        findings.extend(self.link().await);
        if let Some(place) = &place {
            findings.push(space::judge(self, place, growth).await);
        }
        findings
    }

    /// A sentence that begins with the agent's name.
    fn say(&self, text: &str) -> String {
        format!("{} {text}", self.live.config.name)
    }

    /// Where the tree is, or would be, if it can be there.
    async fn path(&self) -> (Option<Place>, v1::Finding) {
        let looked = match self.probe.destination.parse::<Destination>() {
            Ok(destination) => {
                let live = Arc::clone(self.live);
                on_disk(move || Place::find(&live, destination)).await
            }
            Err(bad) => Err(bad.to_string()),
        };
        let destination = rsync::text::printable(self.probe.destination.as_bytes(), SENTENCE_BYTES_MAX);
        match looked {
            Ok(place) => {
                let text = format!("{destination} is below a root of the agent's own file, writable");
                (Some(place), finding(Kind::Path, Severity::Ok, self.say(&text)))
            }
            Err(why) => {
                (None, finding(Kind::Path, Severity::Fault, self.say(&format!("{destination}: {why}"))))
            }
        }
    }

    /// Whether the public link can be where it is declared; nothing where there is none.
    async fn link(&self) -> Option<v1::Finding> {
        let (link, destination) = (&self.probe.link, self.probe.destination.parse::<Destination>().ok()?);
        if link.is_empty() {
            return None;
        }
        let shown = rsync::text::printable(link.as_bytes(), SENTENCE_BYTES_MAX);
        let looked = match link.parse::<Destination>() {
            Ok(link) if link.overlaps(&destination) => {
                Err(format!("{shown} lies inside, around or at the tree {destination}"))
            }
            Ok(link) => {
                let (live, project) = (Arc::clone(self.live), ProjectUid(self.probe.project_uid));
                on_disk(move || {
                    let state = live.guard.look_at_link(project, &link, &[&destination]);
                    state.map_err(|fault| outcome::chain(&fault))
                })
                .await
            }
            Err(bad) => Err(format!("{shown}: {bad}")),
        };
        Some(match looked {
            Ok(LinkState::Absent) => {
                let text = format!("{shown} is free for the public link; the first run makes it");
                finding(Kind::Link, Severity::Ok, self.say(&text))
            }
            Ok(LinkState::Own(target)) => {
                let target =
                    rsync::text::printable(target.as_os_str().as_encoded_bytes(), SENTENCE_BYTES_MAX);
                let text = format!("{shown} is the public link, to {target}");
                finding(Kind::Link, Severity::Ok, self.say(&text))
            }
            Err(why) => finding(Kind::Link, Severity::Fault, self.say(&why)),
        })
    }

    /// The upstream with the user in it; none where nothing is pulled from one.
    fn source(&self) -> Option<Result<RsyncUri, String>> {
        let probe = self.probe;
        (!probe.source_uri.is_empty()).then(|| read_source(&probe.source_uri, &probe.user))
    }

    fn options(&self) -> Result<Options, String> {
        order::read_options(&self.probe.options, self.probe.no_defaults).map_err(|faults| faults.join("; "))
    }

    /// The allow list, this host's own file, and what this host's rsync can do.
    fn judge_options(
        &self,
        source: Option<&Result<RsyncUri, String>>,
        options: Result<&Options, &String>,
    ) -> v1::Finding {
        let source = match source {
            Some(Ok(source)) => source.clone(),
            Some(Err(_)) | None => RsyncUri::parse(ANY_SOURCE).expect("the constant is a valid URI"),
        };
        let built = options.map_err(Clone::clone).and_then(|options| {
            let plan = Plan { password: false, ..self.plan(source, options.clone(), Purpose::Pull) };
            plan.build()
                .map(drop)
                .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        });
        match built {
            Ok(()) => {
                let given = self.probe.options.len();
                let text = match given {
                    0 => format!("rsync {} takes the default flags", self.live.version),
                    1 => format!("rsync {} takes the option", self.live.version),
                    _ => format!("rsync {} takes all {given} options", self.live.version),
                };
                finding(Kind::Options, Severity::Ok, self.say(&text))
            }
            Err(why) => {
                finding(Kind::Options, Severity::Fault, self.say(&format!("refuses the options: {why}")))
            }
        }
    }

    /// A run of rsync with this host's settings, into no directory.
    fn plan(&self, source: RsyncUri, options: Options, purpose: Purpose) -> Plan {
        let config = &self.live.config;
        let usual = (!self.probe.no_defaults).then_some(DeleteMode::Delay);
        let mode = options.delete_mode().or(usual);
        let connect = self.probe.connect_timeout.and_then(|span| Duration::try_from(span).ok());
        Plan {
            program: config.rsync.clone(),
            features: self.live.version.features,
            password: self.probe.secrets.as_ref().is_some_and(|secrets| !secrets.password.is_empty()),
            source,
            destination: PathBuf::from("/nonexistent"),
            confine_root: None,
            publish: Publish::InPlace,
            delete: mode.map(|mode| Deletion { mode, limit: 0 }),
            options,
            io_timeout: upstream::IO_TIMEOUT,
            connect_timeout: connect.map_or(upstream::CONNECT_TIMEOUT_MAX, |span| {
                span.clamp(Duration::from_secs(1), upstream::CONNECT_TIMEOUT_MAX)
            }),
            bwlimit_kib: config.bandwidth_limit_kib,
            max_alloc: rsync::argv::MAX_ALLOC_DEFAULT,
            source_address: None,
            purpose,
            privileged: rustix::process::geteuid().is_root(),
            acls_and_xattrs: config.acls_and_xattrs,
        }
    }
}

fn read_source(uri: &str, user: &str) -> Result<RsyncUri, String> {
    let (source_uri, user) = (uri.to_owned(), user.to_owned());
    order::read_source(&v1::Assignment { source_uri, user, ..v1::Assignment::default() })
}

/// A destination that can be used.
#[derive(Debug)]
struct Place {
    destination: Destination,
    path: PathBuf,
    /// Something is there already.
    exists: bool,
}

impl Place {
    fn find(live: &Live, destination: Destination) -> Result<Self, String> {
        let root = live.guard.root_of(&destination).map_err(|fault| fault.to_string())?;
        root.locks_work()
            .map_err(|error| format!("cannot lock a file below {}: {error}", root.path().display()))?;
        let path = live.guard.look_at(&destination).map_err(|fault| outcome::chain(&fault))?;
        let exists = path.exists();
        let there = path.ancestors().find(|path| path.exists()).unwrap_or_else(|| Path::new("/"));
        // By the effective user, which rsync runs as; also tells a file system that is mounted read-only.
        rustix::fs::accessat(CWD, there, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).map_err(
            |error| format!("the agent cannot write to {}: {}", there.display(), std::io::Error::from(error)),
        )?;
        Ok(Self { destination, path, exists })
    }
}

/// Runs what waits for a disk where it holds up nothing else, and gives up on one that hangs.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    match tokio::time::timeout(DISK_WAIT_MAX, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(format!("the agent failed while it looked: {error}")),
        Err(_) => Err(format!("its disk has not answered for {} s", DISK_WAIT_MAX.as_secs())),
    }
}
