//! An agent's rsync daemon: it takes what it is told to serve in order and in its own time, says so or forgets to,
//! and knows nothing more when its agent begins anew.

use std::collections::{BTreeMap, VecDeque};

use fleet::{
    id::ProjectUid,
    input::{AgentInput, Export, Offer},
    project::Destination,
};

use super::Tree;
use crate::{
    cover::Fault,
    net::StreamId,
    world::{Event, World},
};

/// Answers that are never given, in 1,000.
const SILENT: u64 = 60;
/// Exports that a daemon cannot serve at first, in 1,000.
const REFUSED: u64 = 40;

/// What one message changes.
#[derive(Debug)]
struct Change {
    stream: StreamId,
    serial: u64,
    complete: bool,
    exports: Vec<Export>,
    withdrawn: Vec<ProjectUid>,
}

/// The daemon.
#[derive(Debug, Default)]
pub(crate) struct Daemon {
    waiting: VecDeque<Change>,
    pub(crate) exports: BTreeMap<ProjectUid, Export>,
    /// What it was told to serve, and cannot: a disk was full when it was told.
    refused: BTreeMap<ProjectUid, Export>,
}

impl World {
    pub(super) fn hear_exports(
        &mut self,
        host: usize,
        stream: StreamId,
        serial: u64,
        complete: bool,
        (exports, withdrawn): (Vec<Export>, Vec<ProjectUid>),
    ) {
        let change = Change { stream, serial, complete, exports, withdrawn };
        self.hosts[host].daemon.waiting.push_back(change);
        let longest = *self.rng.pick(&[10, 10, 1_000, 40_000]).expect("not empty");
        let delay = self.rng.between(0, longest);
        let boot = self.hosts[host].boot;
        self.after(delay, Event::Serves(host, boot));
    }

    /// The daemon has taken the oldest change.
    pub(crate) fn serves(&mut self, host: usize, boot: u64) {
        if !self.hosts[host].up || self.hosts[host].boot != boot {
            return;
        }
        let daemon = &mut self.hosts[host].daemon;
        let Some(Change { stream, serial, complete, exports, withdrawn }) = daemon.waiting.pop_front() else {
            return;
        };
        if complete {
            daemon.exports.clear();
            daemon.refused.clear();
        }
        daemon.refused.retain(|project, _| !withdrawn.contains(project));
        daemon.exports.retain(|project, _| !withdrawn.contains(project));
        for export in exports {
            daemon.exports.remove(&export.project);
            daemon.refused.remove(&export.project);
            if !self.calm && self.rng.chance(REFUSED) {
                self.cover.fault(Fault::ExportRefused);
                daemon.refused.insert(export.project, export);
            } else {
                daemon.exports.insert(export.project, export);
            }
        }
        // What was told in an earlier session says nothing of what was heard in this one.
        let current = self.hosts[host].stream == Some(stream);
        if current {
            self.hosts[host].serial = serial;
        }
        if !self.calm && self.rng.chance(SILENT) {
            self.cover.fault(Fault::DaemonSilent);
        } else if current {
            self.say_exporting(host);
        }
    }

    /// The daemon tries again what it could not serve.
    pub(crate) fn serve_again(&mut self, host: usize) {
        let daemon = &mut self.hosts[host].daemon;
        if !daemon.refused.is_empty() {
            let again = std::mem::take(&mut daemon.refused);
            daemon.exports.extend(again);
            self.say_exporting(host);
        }
    }

    pub(crate) fn say_exporting(&mut self, host: usize) {
        let one = &self.hosts[host];
        let session = one.stream.and_then(|id| self.streams.get(&id)).and_then(|stream| stream.session);
        if let (Some(agent), Some(session)) = (one.uid, session) {
            let serve_uri = if one.serves { format!("rsync://h{host}") } else { String::new() };
            let (serial, fault) = (one.serial, String::new());
            let not_served = one.daemon.refused.keys().copied().collect();
            self.report(host, AgentInput::Exporting { agent, session, serial, serve_uri, fault, not_served });
        }
    }

    /// What a replica finds where it is sent: nothing, unless the daemon serves it to this replica now.
    pub(super) fn find_source(&self, offer: &Offer) -> Option<(usize, Destination, Tree)> {
        let rest = offer.source_uri.strip_prefix("rsync://h")?;
        let (host, path) = rest.split_once('/')?;
        let host: usize = host.parse().ok()?;
        let from = self.hosts.get(host)?;
        let destination = match path.strip_prefix("ext/") {
            Some(path) => format!("a2:{}", path.trim_end_matches('/')).parse().ok()?,
            None => {
                let export = from.daemon.exports.get(&offer.project)?;
                if !export.pairs.contains(&offer.pair?) || path != format!("{}/", offer.project.0) {
                    return None;
                }
                export.destination.clone()
            }
        };
        let tree = from.trees.get(&destination)?.clone();
        Some((host, destination, tree))
    }
}
