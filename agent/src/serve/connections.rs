//! The daemon's processes, one for each connection: what each of them serves and to whom, and how they are ended.
//!
//! A process tells neither: the tree is where it has gone (its root or its working directory in `/proc`, both only
//! after the client proved its secret), the user stands in rsync's log. Both are true for processes of an earlier
//! agent too, which are found by their command line.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fleet::id::ProjectUid;
use rustix::process::Signal;

use super::Inner;
use super::files::Module;
use super::log::Log;
use crate::rundir::procfs::{self, Stat};

/// A process that has sent this much is past its handshake, whatever the log says: greeting, challenge and messages
/// are a few hundred bytes.
const HANDSHAKE_BYTES_MAX: u64 = 4 << 10;
/// Connections of one peer that may be in their handshake at once; it takes milliseconds.
const PEER_HANDSHAKES_MAX: usize = 4;

#[derive(Debug)]
struct Connection {
    process: Stat,
    /// None of one that an earlier agent accepted.
    peer: Option<IpAddr>,
    since: Instant,
    /// Once the client has proved its secret.
    project: Option<ProjectUid>,
    /// Once the transfer was asked for.
    user: Option<String>,
}

impl Connection {
    fn in_handshake(&self) -> bool {
        let sent = || procfs::written_bytes(self.process.pid).unwrap_or(0);
        self.project.is_none() || (self.user.is_none() && sent() < HANDSHAKE_BYTES_MAX)
    }

    /// It has nothing to save, so it is killed. One that is gone meanwhile is no error.
    fn end(&self, why: &str) {
        let project = self.project.map(|project| project.0);
        tracing::info!(
            pid = self.process.pid,
            project,
            user = self.user,
            why,
            "connection of a replica ended"
        );
        if let Err(error) = procfs::signal(&self.process, Signal::KILL) {
            tracing::error!(pid = self.process.pid, %error, "a connection of a replica cannot be ended");
        }
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Connections {
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    list: Vec<Connection>,
    log: Log,
}

impl Connections {
    /// Finds the processes of an earlier agent: those that have this configuration on their command line.
    pub(super) fn adopt(config: &Path, log: PathBuf) -> Self {
        let argument = Inner::argument(config);
        let ours = |stat: &Stat| {
            let line = fs::read(format!("/proc/{}/cmdline", stat.pid)).unwrap_or_default();
            stat.is_alive() && line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
        };
        let adopted =
            |process| Connection { process, peer: None, since: Instant::now(), project: None, user: None };
        let list = procfs::all().filter(ours).map(adopted).collect();
        Self { table: Mutex::new(Table { list, log: Log::open(log) }) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        let mut table = self.table();
        table.forget_ended();
        table.list.len()
    }

    /// Whether a process has gone into this directory and lives.
    pub(super) fn is_in(&self, path: &Path) -> bool {
        let mut table = self.table();
        table.forget_ended();
        table.list.iter().any(|connection| is_in(connection.process.pid, path))
    }

    /// Whether one more may be begun, from this peer.
    pub(super) fn admits(&self, peer: IpAddr, max: usize) -> bool {
        let mut table = self.table();
        table.forget_ended();
        let handshakes = table.list.iter().filter(|c| c.peer == Some(peer) && c.in_handshake()).count();
        table.list.len() < max && handshakes < PEER_HANDSHAKES_MAX
    }

    /// Notes a process that was started.
    pub(super) fn add(&self, pid: u32, peer: IpAddr) {
        // It is gone already where it cannot be found.
        if let Some(process) = procfs::stat(pid) {
            let since = Instant::now();
            self.table().list.push(Connection {
                process,
                peer: Some(peer),
                since,
                project: None,
                user: None,
            });
        }
    }

    /// Learns what each connection serves now.
    pub(super) fn refresh(&self, modules: &BTreeMap<ProjectUid, Module>) {
        let mut table = self.table();
        table.forget_ended();
        if table.list.is_empty() {
            return;
        }
        let users = table.log.users().unwrap_or_else(|error| {
            tracing::error!(%error, "the log of the daemon for replicas cannot be read");
            BTreeMap::new()
        });
        for connection in &mut table.list {
            if connection.project.is_none() {
                connection.project = project_of(connection.process.pid, modules);
            }
            if let Some(user) = users.get(&connection.process.pid) {
                connection.user.clone_from(user);
            }
        }
    }

    /// Ends what should not be: handshakes that take too long, and transfers whose project or user went while the
    /// process was between its start and its transfer.
    pub(super) fn sweep(&self, modules: &BTreeMap<ProjectUid, Module>, handshake_max: Duration) {
        self.refresh(modules);
        for connection in &self.table().list {
            let module = connection.project.map(|project| modules.get(&project));
            let barred = match (module, &connection.user) {
                (Some(None), _) => true,
                (Some(Some(module)), Some(user)) => !module.is_read_by(user),
                _ => false,
            };
            if barred {
                connection.end("what it serves, or to whom, is no longer exported");
            } else if connection.since.elapsed() >= handshake_max && connection.in_handshake() {
                connection.end("the handshake takes too long");
            }
        }
    }

    /// Ends every connection: there is nothing to serve.
    pub(super) fn end_all(&self) {
        self.table().list.iter().for_each(|connection| connection.end("nothing is exported"));
    }

    /// Ends the transfers of a project by others than those who may read `module`. Who cannot be told is another.
    pub(super) fn end_others(&self, project: ProjectUid, module: Option<&Module>) {
        let may = |user: &String| module.is_some_and(|module| module.is_read_by(user));
        let other = |c: &&Connection| c.project == Some(project) && !c.user.as_ref().is_some_and(may);
        self.table()
            .list
            .iter()
            .filter(other)
            .for_each(|connection| connection.end("it is no longer exported"));
    }
}

impl Table {
    fn forget_ended(&mut self) {
        self.list.retain(|connection| {
            // What cannot be looked at still counts.
            procfs::look(connection.process.pid).map_or(true, |now| {
                now.is_some_and(|now| now.start_ticks == connection.process.start_ticks && now.is_alive())
            })
        });
    }
}

/// The project whose tree a process has gone into. No tree lies in another one.
fn project_of(pid: u32, modules: &BTreeMap<ProjectUid, Module>) -> Option<ProjectUid> {
    let found = modules.values().find(|module| is_in(pid, &module.path));
    found.map(|module| module.project)
}

fn is_in(pid: u32, path: &Path) -> bool {
    let link = |name| fs::read_link(format!("/proc/{pid}/{name}"));
    let (Ok(root), Ok(dir)) = (link("root"), link("cwd")) else { return false };
    root == path || dir.starts_with(path)
}
