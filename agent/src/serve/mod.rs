//! The origin's own rsync daemon: gives the trees of this host to the replicas of their projects, and to nobody else.
//!
//! ```text
//! replica ── TCP ──▶ agent: accept, caps ── the socket as stdin ──▶ jail ── exec ──▶ rsync --daemon (one connection)
//! coordinator ─▶ put, remove ─▶ modules/UID.conf, secrets/UID ◀── read at the start of each ──┘
//! ```
//!
//! The agent owns the listening socket, and each connection gets a process of its own, as from inetd. So a change of
//! exports touches no running transfer, the cap is the agent's, and transfers outlive the agent. The socket is open
//! only while there is something to serve. Exports stay on disk: they are served while the coordinator is away.
//!
//! Does NOT know who may read what: users and secrets are the caller's. Does NOT choose the address that replicas
//! are told.

mod connections;
mod files;
mod listener;
mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet::id::ProjectUid;
use fleet::project::Destination;
use rsync::uri::Password;
use tokio_util::sync::CancellationToken;

use self::connections::Connections;
use self::files::{Files, Module};
pub use self::files::{SECRET_BYTES_MIN, USERS_MAX};
use crate::config::Config;
use crate::guard::{DestinationFault, Guard};
use crate::rundir::SuperviseProgram;

/// The daemon's directory below the agent's data directory.
const DIR: &str = "serve";
/// A connection that does not transfer after this long is ended: a stalled handshake would hold its place for ever
/// (CVE-2026-70464).
const HANDSHAKE_MAX: Duration = Duration::from_secs(60);

/// One tree, and who may read it.
#[derive(Debug, Clone)]
pub struct Export {
    /// The project: its number is the module's name.
    pub project: ProjectUid,
    /// The project's name, for people who read the files.
    pub name: String,
    /// Where the tree is.
    pub destination: Destination,
    /// rsync's user names (letters, digits and `. _ -`), each with its secret of at least [`SECRET_BYTES_MIN`] bytes.
    /// What stands after the last `-` is the day of the secret: users that differ in it only are one reader. With none,
    /// nobody may read and nothing is served.
    pub users: Vec<(String, Password)>,
}

/// What of the agent's own file matters here.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The daemon's own directory, private to the agent.
    pub dir: PathBuf,
    /// The rsync program.
    pub rsync: PathBuf,
    /// What confines rsync.
    pub program: SuperviseProgram,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Take another port, or IPv4 only, where [`Settings::listen`] cannot be had.
    pub listen_elsewhere: bool,
    /// Connections at once.
    pub connections: usize,
    /// The agent is root: rsync gives up its rights for those of each tree's owner, inside a chroot.
    pub privileged: bool,
    /// Replicas may ask for `--acls` and `--xattrs`.
    pub acls_and_xattrs: bool,
    /// Processes run confined.
    pub jail: bool,
    /// Longest time from a connection to its transfer.
    pub handshake_max: Duration,
}

impl Settings {
    /// Those of a configuration.
    #[must_use]
    pub fn of(config: &Config, program: SuperviseProgram) -> Self {
        Self {
            dir: config.data_dir.join(DIR),
            rsync: config.rsync.clone(),
            program,
            listen: config.serve.listen,
            listen_elsewhere: config.serve.listen_elsewhere(),
            connections: config.serve.connections,
            privileged: rustix::process::geteuid().is_root(),
            acls_and_xattrs: config.acls_and_xattrs,
            jail: config.jail,
            handshake_max: HANDSHAKE_MAX,
        }
    }
}

/// Why something is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file.
    #[error("cannot read or write {path}; fault: this host's disk, or permissions")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The tree.
    #[error(transparent)]
    Destination(#[from] DestinationFault),
    /// A path that rsync would read as another one.
    #[error(
        "{0} cannot be served: rsync's configuration gives a meaning to %, \\, /./ and blanks at the ends"
    )]
    Path(PathBuf),
    /// A user's name.
    #[error("\"{0}\" is no name for a user of a module: letters, digits and . _ - are")]
    User(String),
    /// The project's name.
    #[error("the project's name {0:?} holds a control character")]
    Name(String),
    /// The users.
    #[error("a module has 1 to {USERS_MAX} users with different names, not {count}")]
    Users {
        /// How many there are.
        count: usize,
    },
    /// A secret.
    #[error("a secret of a module has at least {SECRET_BYTES_MIN} bytes")]
    ShortSecret,
    /// Somebody wrote to the daemon's files.
    #[error(
        "{0} is not as the agent wrote it, so no connection is served; next: remove it and reload the agent"
    )]
    Foreign(PathBuf),
    /// The socket.
    #[error(
        "cannot listen on {address} for replicas; next: free it, or set serve.listen in the agent's file"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Why something is not done to a tree: who reads it, or may.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StillServed {
    /// Replicas may come for it at any moment.
    #[error("project {} is served to replicas from there", .0.0)]
    Exported(ProjectUid),
    /// One that is not served any more has not gone yet.
    #[error("a replica's transfer from there has not ended yet")]
    Read,
}

/// The daemon. Clones are the same one. Its methods write to disk before they return.
#[derive(Debug, Clone)]
pub struct Serve {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    files: Files,
    state: Mutex<State>,
    connections: Connections,
}

#[derive(Debug, Default)]
struct State {
    modules: BTreeMap<ProjectUid, Module>,
    open: Option<Open>,
    stopped: bool,
}

/// The socket that is listened on.
#[derive(Debug)]
struct Open {
    address: SocketAddr,
    close: CancellationToken,
}

impl Serve {
    /// Takes up what is on disk: exports are served again, running transfers counted. Inside a runtime.
    ///
    /// # Errors
    /// [`ServeError`]: nothing is served. A socket that cannot be had is one only where there are exports.
    pub fn start(settings: Settings, guard: &Guard) -> Result<Self, ServeError> {
        let files = Files::open(&settings.dir, settings.privileged, settings.acls_and_xattrs)?;
        files.write_jail(guard, settings.jail)?;
        let (modules, foreign) = files.modules()?;
        for path in foreign {
            tracing::error!(path = %path.display(), "not as the agent wrote it: no replica is served");
        }
        let connections = Connections::adopt(&files.main(), files.log());
        let state = Mutex::new(State { modules, ..State::default() });
        let serve = Self { inner: Arc::new(Inner { settings, files, state, connections }) };
        serve.follow_exports(&mut serve.inner.state())?;
        Ok(serve)
    }

    /// Makes these exports all there are. Those that are as they were are not touched.
    ///
    /// # Errors
    /// Each export that is not served as it should be, with the reason; the others are. Reasons of no export in
    /// particular come without one.
    pub fn set_all(&self, guard: &Guard, exports: Vec<Export>) -> Vec<(Option<ProjectUid>, ServeError)> {
        let mut state = self.inner.state();
        let mut faults = Vec::new();
        let mut note = |project: Option<ProjectUid>, result: Result<(), ServeError>| {
            faults.extend(result.err().map(|error| (project, error)));
        };
        note(None, self.inner.files.write_jail(guard, self.inner.settings.jail));
        note(None, self.inner.files.remove_foreign());
        let wanted: BTreeSet<ProjectUid> = exports.iter().map(|export| export.project).collect();
        let gone: Vec<ProjectUid> =
            state.modules.keys().filter(|have| !wanted.contains(have)).copied().collect();
        for project in gone {
            note(Some(project), self.inner.remove(&mut state, project));
        }
        for export in exports {
            note(Some(export.project), self.inner.put(&mut state, guard, &export));
        }
        note(None, self.follow_exports(&mut state));
        faults
    }

    /// Adds or changes an export. When this returns, the next connection sees it: a new user may read, an old secret
    /// is refused. Running transfers go on, but for those of readers that are no longer named.
    ///
    /// # Errors
    /// [`ServeError`]. An export that cannot be put is not served at all, also not as it was before.
    pub fn put(&self, guard: &Guard, export: &Export) -> Result<(), ServeError> {
        let mut state = self.inner.state();
        self.inner.files.write_jail(guard, self.inner.settings.jail)?;
        let put = self.inner.put(&mut state, guard, export);
        self.follow_exports(&mut state).and(put)
    }

    /// Takes an export away, if there is one: new connections are refused, running ones are ended.
    ///
    /// # Errors
    /// [`ServeError::Io`].
    pub fn remove(&self, project: ProjectUid) -> Result<(), ServeError> {
        let mut state = self.inner.state();
        self.inner.remove(&mut state, project)?;
        self.follow_exports(&mut state)
    }

    /// Does something to this path while nothing that is at, in or around it is served to anybody. No export begins before
    /// that is done, so it should take no longer than an export does.
    ///
    /// # Errors
    /// [`StillServed`]: nothing was done.
    pub fn while_unserved<T>(&self, path: &Path, work: impl FnOnce() -> T) -> Result<T, StillServed> {
        let state = self.inner.state();
        let there = |module: &&Module| module.path.starts_with(path) || path.starts_with(&module.path);
        if let Some(module) = state.modules.values().find(there) {
            return Err(StillServed::Exported(module.project));
        }
        if self.inner.connections.is_in(path) {
            return Err(StillServed::Read);
        }
        Ok(work())
    }

    /// What is served.
    #[must_use]
    pub fn exports(&self) -> Vec<ProjectUid> {
        self.inner.state().modules.keys().copied().collect()
    }

    /// The port, while there is something to serve.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.inner.state().open.as_ref().map(|open| open.address.port())
    }

    /// Connections that are served now, those begun under an earlier agent included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.connections.count()
    }

    /// Closes the socket, for the agent's end. Exports stay on disk, running transfers go on.
    pub fn stop(&self) {
        let mut state = self.inner.state();
        state.stopped = true;
        if let Some(open) = state.open.take() {
            open.close.cancel();
        }
    }

    /// Listens while there is something to serve.
    fn follow_exports(&self, state: &mut State) -> Result<(), ServeError> {
        let wanted = !state.modules.is_empty() && !state.stopped;
        if !wanted {
            if let Some(open) = state.open.take() {
                open.close.cancel();
                // Handshakes are left at most, and nobody looks after them any more.
                self.inner.connections.end_all();
            }
        } else if state.open.is_none() {
            let settings = &self.inner.settings;
            let (socket, address) = listener::bind(settings.listen, settings.listen_elsewhere)?;
            let close = CancellationToken::new();
            tokio::spawn(listener::accept(self.inner.clone(), socket, close.clone()));
            tracing::info!(%address, "serving replicas");
            state.open = Some(Open { address, close });
        }
        Ok(())
    }
}

impl Inner {
    /// A poisoned lock holds what was true before the panic; the files are what counts.
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, state: &mut State, guard: &Guard, export: &Export) -> Result<(), ServeError> {
        if export.users.is_empty() {
            return self.remove(state, export.project);
        }
        let put = Module::of(export, guard, self.settings.privileged)
            .and_then(|module| self.files.put(&module, &export.users).map(|()| module));
        let module = match put {
            Ok(module) => module,
            Err(error) => {
                // Neither are its old users served: who was taken off may be among them.
                self.remove(state, export.project)?;
                return Err(error);
            }
        };
        let before = state.modules.insert(export.project, module);
        let after = &state.modules[&export.project];
        if before.is_some_and(|before| before.users.iter().any(|user| !after.is_read_by(user))) {
            self.connections.refresh(&state.modules);
            self.connections.end_others(export.project, Some(after));
        }
        Ok(())
    }

    fn remove(&self, state: &mut State, project: ProjectUid) -> Result<(), ServeError> {
        self.files.remove(project)?;
        self.connections.refresh(&state.modules);
        self.connections.end_others(project, None);
        state.modules.remove(&project);
        Ok(())
    }

    fn argument(path: &Path) -> std::ffi::OsString {
        let mut argument = std::ffi::OsString::from("--config=");
        argument.push(path);
        argument
    }
}
