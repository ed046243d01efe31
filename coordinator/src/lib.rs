//! The coordinator of a mirror fleet: holds the schedule, decides through `fleet::Engine`, remembers in sled, and
//! sends assignments to agents over one mutual-TLS gRPC port.
//!
//! ```text
//!  people ─▶ listener ─▶ rpc::layer (who, may he) ─▶ rpc/* ─┐
//!  agents ─▶ listener ─▶ rpc::layer ─▶ session ─────────────┤ Input
//!  clock, ticker ───────────────────────────────────────────┤
//!                                                           ▼
//!                  outbox ◀── after the commit ── driver: Engine::decide ─▶ store ─▶ Engine::apply
//! ```
//!
//! [`Coordinator::start`] is the entry point; the binary adds a command line around it. What this crate does **not**
//! know: how rsync is called (the agents' matter), what a schedule or a retry means (the engine's), how messages map
//! to the model (`mirror-proto`'s).

pub mod attempt_logs;
pub mod audit;
pub mod authority;
mod chores;
pub mod clock;
pub mod config;
pub mod connections;
pub mod context;
pub mod crowd;
pub mod driver;
pub mod http;
pub mod https;
pub mod identity;
pub mod init;
pub mod listener;
pub mod local;
pub mod logins;
pub mod offline;
pub mod open_streams;
pub mod outbox;
pub mod passwords;
pub mod probes;
pub mod pushes;
pub mod rpc;
pub mod seal;
pub mod seal_key;
pub mod session;
pub mod store;
pub mod store_watch;
pub mod telemetry;
pub mod ticker;
pub mod twins;
pub mod user_certificate;
pub mod watch;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use fleet::{agent::AgentRecord, time::Wall};
use mirror_certs::{Denial, DenyList, Identity};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    attempt_logs::{AttemptLogs, LogError},
    authority::{Authority, Change, ledger::Entry},
    chores::{BACKUPS, BEFORE_UPGRADE_PREFIX},
    config::Config,
    connections::Connections,
    driver::{Begin, Driver, DriverThread},
    identity::{Who, WhoError},
    listener::{Acceptor, Bounds, Conn},
    local::LocalSocket,
    logins::Logins,
    open_streams::OpenStreams,
    outbox::Outbox,
    passwords::Passwords,
    probes::Probes,
    pushes::Pushes,
    seal::Sealer,
    store::{BACKUP_EXTENSION, OpenError, Opened, Store, StoreError, StoreOptions},
    store_watch::StoreWatch,
    ticker::{JobReport, Ticker, Watchdog},
    twins::Twins,
    watch::Progress,
};

/// Folder of the store, in `data_dir`.
pub const STORE: &str = "store";
/// How long requests may take to end when the coordinator stops.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the writer may take to commit all it took when the coordinator stops.
pub const WRITER_TIME_MAX: Duration = Duration::from_secs(10);

/// What every service needs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Services {
    /// The way to the writer, and its committed view.
    pub driver: Driver,
    /// The newest progress of each attempt.
    pub progress: Arc<Progress>,
    /// The last lines of each attempt, and the live ones.
    pub logs: Arc<AttemptLogs>,
    /// The ways to the agents.
    pub outbox: Arc<Outbox>,
    /// What agents were asked to look at.
    pub probes: Arc<Probes>,
    /// Bounds how many projects are looked at at once.
    pub checks: Arc<Semaphore>,
    /// Places for previews of schedules that are being made.
    pub previews: Arc<Semaphore>,
    /// Bounds how many of them are explained at once, which viewers may ask for.
    pub explains: Arc<Semaphore>,
    /// Bounds how many plans are made at once to be looked at.
    pub plans: Arc<Semaphore>,
    /// Bounds how many plans are made at once to be applied.
    pub applies: Arc<Semaphore>,
    /// Signs certificates.
    pub ca: Arc<Authority>,
    /// The CAs that are handed to those who enrol, PEM.
    pub bundle_pem: Arc<ArcSwap<String>>,
    /// Who is refused for ever.
    pub deny: Arc<DenyList>,
    /// Seals and unseals passwords.
    pub sealer: Arc<Sealer>,
    /// The coordinator's own files.
    pub who: Arc<Who>,
    /// Open connections, to cut those of one identity.
    pub connections: Arc<Connections>,
    /// Open streams of users, to end those of one user or token.
    pub streams: Arc<OpenStreams>,
    /// Failed logins.
    pub logins: Arc<Logins>,
    /// How fast who pushes.
    pub pushes: Arc<Pushes>,
    /// Hashes and compares passwords, a few at once.
    pub passwords: Passwords,
    /// Agents' certificates that are on two hosts.
    pub twins: Arc<Twins>,
    /// Housekeeping, as soon as it has begun.
    pub housekeeping: Arc<OnceLock<Arc<Ticker>>>,
    /// What the schedule watchdog found.
    pub watchdog: Arc<Watchdog>,
    /// What is to be said of the store.
    pub store_watch: Arc<StoreWatch>,
    /// Cancelled when the coordinator stops: what could go on for ever ends.
    pub stopping: CancellationToken,
    /// What `grpc.health.v1` says.
    pub health: HealthReporter,
    /// The configuration.
    pub config: Arc<Config>,
}

impl Services {
    /// Takes over what the files of CA and certificate say now: the next connection gets it, agents that are connected
    /// are told, and what was begun under a CA that is trusted no more is cut.
    ///
    /// # Errors
    /// [`WhoError`]; nobody was told and nothing cut, which the next call does.
    pub fn adopt(&self) -> Result<(), WhoError> {
        let mut adopted = self.ca.adopting();
        let change = self.who.reload(&adopted, self.driver.now().wall.to_utc())?;
        if change == Change::Removed {
            let cut = self.connections.kill_foreign(&self.ca.bundle());
            tracing::info!(target: "audit", cut, "connections begun under a CA that is trusted no more are cut");
        }
        if change != Change::None {
            self.outbox.tell_trust(&self.ca.trust());
        }
        *adopted = self.ca.trust().hashes;
        Ok(())
    }
}

impl Services {
    /// Refuses an agent or a user for ever, with every certificate and after every restore, and cuts what it has open.
    /// Says how many connections those were.
    ///
    /// # Errors
    /// INTERNAL where the denial cannot be written; then nobody is refused, and nothing is cut.
    pub async fn shut_out(&self, identity: &Identity) -> Result<usize, Status> {
        let denial = match identity {
            Identity::Agent(name) => Denial::Agent(name.clone()),
            Identity::User(name) => Denial::User(name.clone()),
            Identity::Server => return Ok(0),
        };
        rpc::deny(self, denial).await?;
        let cut = self.connections.kill(identity);
        tracing::info!(target: "audit", %identity, cut, "shut out for ever");
        Ok(cut)
    }
}

/// Why a coordinator does not start. Each names what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its own files.
    #[error("the coordinator does not know who it is; `mirror-coordinator init` makes a new fleet")]
    Who(#[from] WhoError),
    /// The store.
    #[error("the coordinator's store is not open")]
    Open(#[from] OpenError),
    /// The records in the store.
    #[error("the fleet could not be recovered from the store")]
    Recover(#[from] StoreError),
    /// The logs of attempts.
    #[error("the folder of attempt logs is not usable")]
    Logs(#[from] LogError),
    /// A port.
    #[error("could not listen on {address} ({key}){}", why_not_listening(source))]
    Listen {
        /// The configuration's key.
        key: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The contract's own description.
    #[error("could not read the contract's own description; a bug of ours")]
    Describe(#[from] tonic_reflection::server::Error),
    /// Housekeeping.
    #[error("could not start housekeeping; a bug of ours")]
    Housekeeping(#[from] ticker::TickerError),
}

/// How a coordinator is started besides its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartOptions {
    /// Run the clock's own task. Off only to see that the watchdog starts syncs without it.
    pub clock: bool,
}

impl Default for StartOptions {
    fn default() -> Self {
        Self { clock: true }
    }
}

/// A coordinator that can be started.
#[derive(Debug)]
pub struct Coordinator;

impl Coordinator {
    /// Starts a coordinator: identity, store, engine, listeners, in this order. Nothing is heard before everything
    /// that was promised is known again.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(config: Config) -> Result<Handle, StartError> {
        Self::start_with(config, StartOptions::default()).await
    }

    /// [`Coordinator::start`] with options.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start_with(config: Config, options: StartOptions) -> Result<Handle, StartError> {
        let now = clock::Clock::start().now().wall;
        let who = Arc::new(Who::load(&config, now.to_utc())?);
        let clock = clock::Clock::start();
        let opened = open_store(&config)?;
        let opened_in = clock.now().mono.since(fleet::time::Mono(0));
        let store_watch = Arc::new(StoreWatch::new(opened_in));
        let store = opened.store.clone();
        let (services, thread) = match begin(config, who, opened, store_watch, now) {
            Ok(begun) => begun,
            Err(error) => {
                close_store(store).await;
                return Err(error);
            }
        };
        tell_unreadable(&services);
        match Running::start(&services, options).await {
            Ok(running) => Ok(Handle { services, thread, running }),
            Err(error) => {
                drop(services);
                close(thread, store).await;
                Err(error)
            }
        }
    }
}

fn open_store(config: &Config) -> Result<Opened, OpenError> {
    let options =
        StoreOptions { create: false, backups: Some(config.file(BACKUPS)), ..StoreOptions::default() };
    let opened = Store::open(&config.file(STORE), &options)?;
    // Nobody else has the store now, and nothing makes backups of it yet.
    chores::remove_partial(&config.file(BACKUPS));
    for line in &opened.report {
        tracing::warn!("{line}");
    }
    if !opened.clean {
        tracing::info!("the last stop was not an orderly one; every live record was checked");
    }
    if let Some(last) = &opened.last_used_by {
        back_up_before_upgrade(config, &opened.store, last)
            .map_err(|source| OpenError::Store { dir: config.file(STORE), source })?;
    }
    Ok(opened)
}

/// Attempts of these projects go out without their passwords, and their upstreams refuse them.
fn tell_unreadable(services: &Services) {
    let view = services.driver.view();
    let seals = seal_key::survey(&services.sealer, view.projects_by_name().map(|project| &*project.record));
    for lost in seals.unreadable {
        let seal_key::Unreadable { project, host, first: _ } = lost;
        tracing::error!(%project, %host, "a stored password does not open with the key file; set it again");
    }
}

/// What this version writes the last one may not be able to read: that needs a backup to go back to. Where there is none,
/// the store stays the last one's by name, and the next start tries again.
fn back_up_before_upgrade(config: &Config, store: &Store, last: &str) -> Result<(), StoreError> {
    let name = format!("{BEFORE_UPGRADE_PREFIX}{}.{BACKUP_EXTENSION}", last.replace(' ', "-"));
    let path = config.file(BACKUPS).join(name);
    match store.backup_to(&path) {
        Ok(made) => {
            tracing::info!(last, entries = made.entries, path = %path.display(), "backed up before the upgrade");
            store.sign()
        }
        Err(error) => {
            tracing::warn!(
                last, error = %Chain(&error),
                "there is no backup from before this upgrade: make one when you can; the next start tries it too"
            );
            Ok(())
        }
    }
}

/// Recovers the engine and puts together what the services need.
fn begin(
    config: Config,
    who: Arc<Who>,
    opened: Opened,
    store_watch: Arc<StoreWatch>,
    now: Wall,
) -> Result<(Services, DriverThread), StartError> {
    let logs = Arc::new(AttemptLogs::open(&config.data_dir)?);
    let why = if opened.rewound { Begin::Rewound } else { Begin::Started };
    let outbox = Arc::new(Outbox::new(Arc::clone(&who.sealer)));
    let outlet = Arc::clone(&outbox);
    let (driver, thread) = Driver::start(opened.store, config.limits.clone(), why, outlet)?;
    outbox.tell_trust(&who.ca.trust());
    who.ca.complete(driver.view().agents_by_name().filter_map(|agent| certificate_of(agent, &who.ca, now)));
    who.ca.note_in_force(now.to_utc());
    let services = Services {
        driver,
        progress: Arc::default(),
        logs,
        outbox,
        probes: Arc::default(),
        checks: Arc::new(Semaphore::new(rpc::project::CHECKS_MAX)),
        previews: Arc::new(Semaphore::new(rpc::project::PREVIEWS_MAX)),
        explains: Arc::new(Semaphore::new(rpc::project::EXPLAINS_MAX)),
        plans: Arc::new(Semaphore::new(rpc::project::PLANS_AT_ONCE)),
        applies: Arc::new(Semaphore::new(rpc::project::APPLIES_AT_ONCE)),
        ca: Arc::clone(&who.ca),
        bundle_pem: Arc::clone(&who.bundle_pem),
        deny: Arc::clone(&who.deny),
        sealer: Arc::clone(&who.sealer),
        who,
        connections: Arc::default(),
        streams: Arc::default(),
        logins: Arc::default(),
        pushes: Arc::default(),
        passwords: Passwords::default(),
        twins: Arc::default(),
        housekeeping: Arc::default(),
        watchdog: Arc::default(),
        store_watch,
        stopping: CancellationToken::new(),
        health: HealthReporter::new(),
        config: Arc::new(config),
    };
    Ok((services, thread))
}

/// An agent's newest certificate, as its record has it; `None`: it is refused for ever. By which CA it was issued is not
/// recorded: the one that hosts know as the fleet's, until it is seen.
fn certificate_of(agent: &AgentRecord, ca: &Authority, now: Wall) -> Option<Entry> {
    agent.revoked.is_none().then_some(())?;
    Some(Entry {
        time: now.to_utc(),
        used: false,
        issuer: ca.ca_hash(),
        serial: agent.certificate_serial.parse().ok()?,
        key: format!("sha256:{}", agent.key_hash).parse().ok()?,
        identity: Identity::Agent(agent.name.as_str().parse().ok()?),
        until: agent.certificate_expires.to_utc(),
    })
}

/// What the system's reason means here, where it is one of the frequent ones.
fn why_not_listening(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has it",
        io::ErrorKind::AddrNotAvailable => "; it is no address of this host",
        io::ErrorKind::PermissionDenied => "; ports below 1024 are root's",
        _ => "",
    }
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { key, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// The listeners and tasks of a coordinator.
#[derive(Debug)]
struct Running {
    ticker: Arc<Ticker>,
    grpc_address: SocketAddr,
    http_address: SocketAddr,
    https_address: Option<SocketAddr>,
    tasks: JoinSet<()>,
}

impl Running {
    async fn start(services: &Services, options: StartOptions) -> Result<Self, StartError> {
        let (grpc, grpc_address) = bind("grpc_listen", services.config.grpc_listen).await?;
        let (http, http_address) = bind("http_listen", services.config.http_listen).await?;
        let https = match services.config.https_listen.zip(services.who.web.clone()) {
            Some((address, tls)) => Some((bind("https_listen", address).await?, tls)),
            None => None,
        };
        let https_address = https.as_ref().map(|((_, address), _)| *address);
        let router = rpc::server(services)?;
        let ticker = Arc::new(Ticker::start(services.clone()).await?);
        let ticker = Arc::clone(services.housekeeping.get_or_init(|| ticker));
        let (stop, mut tasks) = (services.stopping.clone(), JoinSet::new());
        let acceptor = Acceptor {
            bounds: Bounds::default(),
            tls: Arc::clone(&services.who.tls),
            trust_domain: services.ca.trust_domain().clone(),
            connections: Arc::clone(&services.connections),
        };
        let incoming = acceptor.start(grpc, stop.clone(), &mut tasks);
        let local = local_socket(&services.config);
        let local =
            local.map(|socket| socket.start(Arc::clone(&services.connections), stop.clone(), &mut tasks));
        tasks.spawn(serve(router, incoming, local, stop.clone()));
        let (probes, end) = (services.driver.clone(), stop.clone());
        tasks.spawn(async move {
            if let Err(error) = http::serve(http, probes, end).await {
                tracing::error!(%error, "the port for probes is gone");
            }
        });
        if let Some(((listener, _), tls)) = https {
            tasks.spawn(https::serve(listener, tls, services.clone(), stop.clone()));
        }
        tasks.spawn(audit::notes::run(services.driver.clone(), stop.clone()));
        if options.clock {
            tasks.spawn(clock::run(services.driver.clone(), stop.clone()));
        }
        let https = https_address.map(tracing::field::display);
        tracing::info!(
            grpc = %grpc_address, http = %http_address, https, ca_hash = %services.ca.ca_hash(), "ready"
        );
        Ok(Self { ticker, grpc_address, http_address, https_address, tasks })
    }
}

/// A coordinator that runs.
#[derive(Debug)]
pub struct Handle {
    services: Services,
    thread: DriverThread,
    running: Running,
}

impl Handle {
    /// Where agents and users dial.
    #[must_use]
    pub fn grpc_address(&self) -> SocketAddr {
        self.running.grpc_address
    }

    /// Where probes ask.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.running.http_address
    }

    /// Where release scripts and webhooks push; `None`: nowhere.
    #[must_use]
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.running.https_address
    }

    /// What the services use.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Housekeeping: every job with its last result and next time.
    pub async fn jobs(&self) -> Vec<JobReport> {
        self.running.ticker.report().await
    }

    /// Grows with each housekeeping job that ended.
    #[must_use]
    pub fn jobs_ended(&self) -> tokio::sync::watch::Receiver<u64> {
        self.running.ticker.ended()
    }

    /// Reads the server's certificate and the CA bundle anew, and says which keys of `fresh`, the configuration as
    /// it is now on disk, wait for a restart.
    ///
    /// # Errors
    /// [`WhoError`]; what was in force stays.
    pub fn reload(&self, fresh: &Config) -> Result<Vec<&'static str>, WhoError> {
        self.services.adopt()?;
        Ok(self.services.config.differing(fresh))
    }

    /// Stops in order: accepts nothing more, lets requests end for [`DRAIN_TIME_MAX`], ends sessions, joins the
    /// writer, and marks the stop as clean. Agents' work goes on.
    pub async fn drain(self) {
        let Self { services, thread, running } = self;
        let Running { ticker, mut tasks, .. } = running;
        tracing::info!("stopping: running syncs go on without the coordinator");
        services.health.set_service_status("", ServingStatus::NotServing).await;
        services.stopping.cancel();
        services.outbox.end_all("the coordinator is stopping; say hello again in a moment");
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIME_MAX, ended).await.is_err() {
            let cut = services.connections.kill_all();
            tracing::info!(cut, "requests that went on for too long are cut");
            tasks.shutdown().await;
        }
        ticker.stop().await;
        let store = services.driver.store().clone();
        drop(services);
        close(thread, store).await;
    }
}

async fn close(thread: DriverThread, store: Store) {
    let joined = tokio::task::spawn_blocking(move || thread.join());
    if tokio::time::timeout(WRITER_TIME_MAX, joined).await.is_err() {
        tracing::error!("the writer did not end in time; the stop is not marked as a clean one");
        return;
    }
    close_store(store).await;
}

async fn close_store(store: Store) {
    match tokio::task::spawn_blocking(move || store.close()).await {
        Ok(Ok(())) => tracing::info!("stopped in order"),
        Ok(Err(error)) => tracing::error!(error = %Chain(&error), "the store was not closed in order"),
        Err(error) => tracing::error!(%error, "the store was not closed in order"),
    }
}

/// The coordinator's own socket; `None`: it is off, or cannot be made. A way back in that is missing is no reason to
/// leave the fleet without its coordinator.
fn local_socket(config: &Config) -> Option<LocalSocket> {
    let path = config.admin_socket_path()?;
    LocalSocket::bind(&path)
        .inspect_err(|error| {
            tracing::warn!(
                %error, path = %path.display(),
                "there is no socket to get back in by (admin_socket); name another path, or \"off\" to go without"
            );
        })
        .ok()
}

async fn serve(
    router: rpc::Served,
    incoming: mpsc::Receiver<io::Result<Conn>>,
    local: Option<mpsc::Receiver<io::Result<Conn>>>,
    stop: CancellationToken,
) {
    // A channel that nobody sends into ends at once, and the other one goes on.
    let local = local.unwrap_or_else(|| mpsc::channel(1).1);
    let incoming = ReceiverStream::new(incoming).merge(ReceiverStream::new(local));
    let served = router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(error = %Chain(&error), "the gRPC server ended");
    }
}

/// An error with all its causes, for one line.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
