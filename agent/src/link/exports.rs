//! What the coordinator wants served to replicas, brought to the rsync daemon in the order it was said, and what is said
//! back. Knows nothing of sockets and files: those are `serve`'s.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use fleet::id::ProjectUid;
use mirror_proto::v1;
use rsync::{Host, Password};

use crate::executor::{Executor, Live};
use crate::outcome;
use crate::serve::{Export, Serve, ServeError, Settings};

/// Exports of one complete list, over all its messages.
const LIST_MAX: usize = 100_000;
/// Longest fault that is told, bytes.
const FAULT_BYTES_MAX: usize = 1024;

/// The agent's side of its exports.
#[derive(Debug, Clone)]
pub struct Exporter {
    executor: Executor,
    serve: Option<Serve>,
    /// Why nothing is served, whatever is asked for.
    unable: String,
    /// The part of a complete list that has been heard so far.
    list: Arc<Mutex<Vec<v1::Export>>>,
}

impl Exporter {
    /// Takes up what was served before. A daemon that cannot be had is no reason not to run: it is told to whoever asks
    /// for it.
    #[must_use]
    pub fn start(executor: Executor) -> Self {
        let live = executor.live();
        let started = if live.config.serve.enabled {
            Serve::start(Settings::of(&live.config), &live.guard).map_err(|error| outcome::chain(&error))
        } else {
            Err("serve.enabled is false in the agent's own file".to_owned())
        };
        let (serve, unable) = match started {
            Ok(serve) => (Some(serve), String::new()),
            Err(why) => {
                if live.config.serve.enabled {
                    tracing::error!(why, "no replica is served");
                }
                (None, why)
            }
        };
        Self { executor, serve, unable, list: Arc::default() }
    }

    /// Where replicas connect to; empty while nothing is served. `local` is this host's address as the coordinator
    /// sees it.
    #[must_use]
    pub fn uri(&self, local: IpAddr) -> String {
        let Some(port) = self.serve.as_ref().and_then(Serve::port) else { return String::new() };
        let told = self.executor.live().config.serve.address.clone().map(|told| told.0);
        let host = told.unwrap_or(match local {
            IpAddr::V4(address) => Host::V4(address),
            IpAddr::V6(address) => Host::V6(address),
        });
        format!("rsync://{host}:{port}")
    }

    /// Does what a message says, on disk when this returns. The answer, unless the list goes on.
    pub async fn obey(&self, message: v1::Exports, local: IpAddr) -> Option<v1::Exporting> {
        let serial = message.serial;
        let work = self.gather(message)?;
        let exporter = self.clone();
        let done = tokio::task::spawn_blocking(move || exporter.apply(work)).await;
        let fault = done.unwrap_or_else(|error| format!("the agent failed at it: {error}"));
        if !fault.is_empty() {
            tracing::error!(serial, fault, "not all is served to replicas as it should be");
        }
        Some(v1::Exporting { serial, serve_uri: self.uri(local), fault })
    }

    /// A complete list is taken up only when all of it was heard.
    fn gather(&self, message: v1::Exports) -> Option<Work> {
        let v1::Exports { serial: _, complete, more, exports, withdrawn } = message;
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if complete {
            list.clear();
        }
        if complete || !list.is_empty() || more {
            let room = LIST_MAX.saturating_sub(list.len());
            list.extend(exports.into_iter().take(room));
            return (!more).then(|| Work::All(std::mem::take(&mut *list)));
        }
        Some(Work::Some(exports, withdrawn))
    }

    /// What went wrong, in words; empty: nothing.
    fn apply(&self, work: Work) -> String {
        let live = self.executor.live();
        let Some(serve) = &self.serve else {
            // Nobody is served from here, and nobody is to be: that is no fault.
            return if work.is_empty() { String::new() } else { self.unable.clone() };
        };
        let mut faults = Vec::new();
        let read = |export: v1::Export, faults: &mut Vec<String>| match read(export, &live) {
            Ok(export) => export,
            Err(fault) => {
                faults.push(fault);
                None
            }
        };
        match work {
            Work::All(exports) => {
                let exports = exports.into_iter().filter_map(|export| read(export, &mut faults)).collect();
                let told = serve.set_all(&live.guard, exports);
                faults.extend(told.into_iter().map(|(_, error)| outcome::chain(&error)));
            }
            Work::Some(exports, withdrawn) => {
                let mut note = |result: Result<(), ServeError>| {
                    faults.extend(result.err().map(|error| outcome::chain(&error)));
                };
                withdrawn.into_iter().for_each(|uid| note(serve.remove(ProjectUid(uid))));
                let exports: Vec<Export> =
                    exports.into_iter().filter_map(|export| read(export, &mut faults)).collect();
                for export in &exports {
                    faults.extend(serve.put(&live.guard, export).err().map(|error| outcome::chain(&error)));
                }
            }
        }
        let mut fault = faults.join("; ");
        crate::text::cut(&mut fault, FAULT_BYTES_MAX);
        fault
    }

    /// Closes the socket; running transfers go on.
    pub fn stop(&self) {
        self.serve.iter().for_each(Serve::stop);
    }
}

enum Work {
    /// All there is to be.
    All(Vec<v1::Export>),
    /// What is to be added or changed, and what is to go.
    Some(Vec<v1::Export>, Vec<u64>),
}

impl Work {
    fn is_empty(&self) -> bool {
        match self {
            Self::All(exports) | Self::Some(exports, _) => exports.is_empty(),
        }
    }
}

/// An export as the daemon has it; `None`: a daemon of the administrator's own serves that root.
fn read(wire: v1::Export, live: &Live) -> Result<Option<Export>, String> {
    let v1::Export { project_uid, project, destination, users } = wire;
    let destination = destination.parse().map_err(|bad| format!("an export of {project}: {bad}"))?;
    if live.config.serve.external(&destination).is_some() {
        return Ok(None);
    }
    let user = |user: v1::ExportUser| {
        let secret = Password::new(user.secret.into_bytes());
        secret.map(|secret| (user.user, secret)).map_err(|_| format!("an export of {project}: a bad secret"))
    };
    let users = users.into_iter().map(user).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(Export { project: ProjectUid(project_uid), name: project.clone(), destination, users }))
}
