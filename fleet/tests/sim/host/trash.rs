//! A host's trash: a tree that its coordinator wants there goes at once, or stays where work is on it. What is there
//! survives everything, and each hello tells it. A tree that is served, or that a project has, is never wanted there.

use fleet::{
    id::ProjectUid,
    input::AgentInput,
    project::Destination,
    time::Wall,
    trash::{InTrash, NotTrashed, TrashOrder, TrashReport},
};

use super::{Host, places};
use crate::{net::StreamId, world::World};

impl Host {
    /// All that is in the trash.
    pub(super) fn trash_report(&self) -> TrashReport {
        let tree = |(project, asked): &(ProjectUid, Wall)| InTrash {
            project: *project,
            asked: *asked,
            place: format!("a1:.mirror-trash/{}", project.0),
            until: *asked,
        };
        TrashReport { trees: self.trash.iter().map(tree).collect(), refused: Vec::new() }
    }
}

impl World {
    pub(super) fn hear_trash(&mut self, host: usize, stream: StreamId, order: TrashOrder) {
        let one = &self.hosts[host];
        let there = |place: &Destination| place.overlaps(&order.destination);
        let Some(agent) = one.uid else { return };
        let Some(session) = self.streams.get(&stream).and_then(|stream| stream.session) else { return };
        if one.daemon.exports.values().any(|export| there(&export.destination)) {
            return self.fail(format!("host {host} is told to move {}, which it serves", order.destination));
        }
        let current = self.coordinator.engine.as_ref();
        let current =
            current.filter(|engine| engine.session(agent).is_some_and(|open| open.epoch == session));
        let placed = current.and_then(|engine| {
            engine.projects_by_name().find(|project| {
                project.placements.get(&agent).is_some_and(|placement| there(&placement.destination))
            })
        });
        if let Some(other) = placed {
            let (name, at) = (&other.record.name, &order.destination);
            return self.fail(format!("host {host} is told to move {at}, which project {name} has"));
        }
        let key = (order.project, order.asked);
        let mut refused = Vec::new();
        if !one.trash.contains(&key) {
            let held = one.journal.values().filter(|entry| entry.ended.is_none());
            let works = held.flat_map(|entry| places(&entry.offer)).any(there)
                || one.pulls.iter().any(|pull| there(&pull.destination));
            if works {
                let why = "something is at work on it".to_owned();
                refused.push(NotTrashed { project: order.project, asked: order.asked, why });
            } else {
                let one = &mut self.hosts[host];
                one.trees.remove(&order.destination);
                one.trash.insert(key);
            }
        }
        let report = TrashReport { refused, ..self.hosts[host].trash_report() };
        self.report(host, AgentInput::Trash { agent, session, report });
    }
}
