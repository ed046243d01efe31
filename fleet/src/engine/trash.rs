//! Trees of deleted projects on their way into the trash. What people asked for is stored with the deletion and told to
//! each agent when it is here and serves the tree to nobody any more; what it says of it is stored and shown.
//!
//! ```text
//!   delete ──▶ Waiting ──(agent here, export gone)──▶ told: nobody is placed there ──▶ Trashed ──▶ gone
//!                 │                                        │ session ends: Waiting again
//!                 └──(somebody else has the place)─────────┴──(agent refuses)──▶ Stays, for some days
//! ```
//!
//! A project that has the place goes before the trash: until the agent is told, a new declaration wins; from then on, until
//! the agent has answered or its session is over, none is placed there. Moves no files.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    effects::Effects,
    state::{Engine, Project},
};
use crate::{
    defaults,
    id::{AgentUid, Epoch, ProjectUid},
    input::{Decision, Message, Send},
    record::{Change, Key, Record, Volatile},
    refusal::{Refusal, RefusalCode},
    time::{Now, Wall},
    trash::{Fate, InTrash, TrashRecord, TrashReport},
};

/// Figures of one tree in the trash differ by less than this because its agent was restarted; they are not stored anew.
const UNTIL_SLACK_MS: u64 = 60_000;

/// What is wanted in the trash, and how far that is.
#[derive(Debug, Clone, Default)]
pub(super) struct Trash {
    records: BTreeMap<(AgentUid, ProjectUid), TrashRecord>,
    /// Waiting ones that are to be looked at.
    due: BTreeSet<(AgentUid, ProjectUid)>,
    /// Places that agents were told of over the sessions that last, and have not answered for: agent, root, path.
    out: BTreeSet<(AgentUid, String, String, ProjectUid)>,
}

impl Trash {
    pub(super) fn records(&self) -> impl Iterator<Item = &TrashRecord> {
        self.records.values()
    }

    fn on(&self, agent: AgentUid) -> impl Iterator<Item = &TrashRecord> {
        let all = (agent, ProjectUid(0))..=(agent, ProjectUid(u64::MAX));
        self.records.range(all).map(|(_, record)| record)
    }

    /// What waits on this agent is to be looked at: something of the agent has changed.
    pub(super) fn touch(&mut self, agent: AgentUid) {
        let waiting: Vec<_> = self.on(agent).filter(|one| one.is_waiting()).map(key_of).collect();
        self.due.extend(waiting);
    }

    pub(super) fn due(&self) -> Option<(AgentUid, ProjectUid)> {
        self.due.first().copied()
    }

    pub(super) fn looked_at(&mut self, agent: AgentUid, project: ProjectUid) {
        self.due.remove(&(agent, project));
    }

    pub(super) fn told(&mut self, agent: AgentUid, project: ProjectUid) {
        self.due.remove(&(agent, project));
        self.out.extend(self.records.get(&(agent, project)).map(place_of));
    }

    /// The places that nobody may get now.
    pub(super) fn places(&self) -> &BTreeSet<(AgentUid, String, String, ProjectUid)> {
        &self.out
    }
}

fn key_of(record: &TrashRecord) -> (AgentUid, ProjectUid) {
    (record.agent, record.project)
}

fn place_of(record: &TrashRecord) -> (AgentUid, String, String, ProjectUid) {
    let (root, path) = (record.destination.root(), record.destination.path());
    (record.agent, root.to_owned(), path.to_owned(), record.project)
}

/// The records, and what is derived from them.
impl Engine {
    pub(super) fn put_trash(&mut self, record: &TrashRecord) {
        if record.is_waiting() {
            self.trash.due.insert(key_of(record));
        }
        self.forget_trash(record.agent, record.project, record.is_waiting());
        self.trash.records.insert(key_of(record), record.clone());
    }

    pub(super) fn delete_trash(&mut self, agent: AgentUid, project: ProjectUid) {
        self.forget_trash(agent, project, false);
        self.trash.records.remove(&(agent, project));
    }

    fn forget_trash(&mut self, agent: AgentUid, project: ProjectUid, waits: bool) {
        if !waits {
            self.trash.due.remove(&(agent, project));
        }
        let Some(old) = self.trash.records.get(&(agent, project)) else { return };
        if self.trash.out.remove(&place_of(old)) {
            self.trash.touch(agent);
            self.reindex_blocked_on(agent);
        }
    }

    /// A session begins or ends: what was told over the one before is told again, if it still waits.
    pub(super) fn trash_untold(&mut self, agent: AgentUid) {
        let before = self.trash.out.len();
        self.trash.out.retain(|(other, ..)| *other != agent);
        self.trash.touch(agent);
        if self.trash.out.len() != before {
            self.reindex_blocked_on(agent);
        }
    }
}

/// What follows from them.
impl Engine {
    /// What is wanted in the trash of an agent, is there, or had to stay; by the projects' uids.
    pub fn trash_of(&self, agent: AgentUid) -> impl Iterator<Item = &TrashRecord> {
        self.trash.on(agent)
    }

    /// One of them.
    #[must_use]
    pub fn trash_record(&self, agent: AgentUid, project: ProjectUid) -> Option<&TrashRecord> {
        self.trash.records.get(&(agent, project))
    }

    /// The project is deleted by this decision, and its trees are wanted in the trash.
    pub(super) fn want_in_trash(
        &self,
        now: Now,
        by: &str,
        project: &Project,
        effects: &mut Effects<'_>,
    ) -> Result<(), Refusal> {
        if self.trash.records.len() + project.placements.len() > defaults::TRASH_RECORDS_MAX {
            let text = format!(
                "project \"{}\" not deleted: {} trees are in the trash or on their way already; delete it without",
                project.record.name,
                self.trash.records.len()
            );
            return Err(Refusal::new(RefusalCode::ResourceExhausted, "TRASH_FULL", text));
        }
        for placement in project.placements.values() {
            effects.put(Record::Trash(TrashRecord {
                agent: placement.agent,
                project: placement.project,
                name: project.record.name.clone(),
                destination: placement.destination.clone(),
                by: by.to_owned(),
                asked: now.wall,
                fate: Fate::Waiting,
            }));
        }
        Ok(())
    }

    /// One tree that waits: it is told to its agent, or stays, or waits on.
    pub(super) fn look_at_trash(&self, now: Now, agent: AgentUid, project: ProjectUid) -> Decision {
        let mut effects = Effects::of(self);
        let looked = Change::Volatile(Volatile::TrashLooked(agent, project));
        let record = self.trash.records.get(&(agent, project)).filter(|record| record.is_waiting());
        let Some(record) = record else {
            effects.change(looked);
            return effects.decision();
        };
        if let Some(why) = self.keeps_tree(record) {
            effects.put(stays(record, why, now.wall));
            return effects.decision();
        }
        let told = self.trash.out.contains(&place_of(record));
        // Another deleted project's tree at this place is being moved: that comes first.
        let waits = told || self.overlapping(Some(project), agent, &record.destination).is_some();
        match self.sessions.get(&agent).filter(|_| !waits && self.exports.is_quiet(agent, project)) {
            Some(session) if session.facts.trash.is_none() => {
                effects.put(stays(
                    record,
                    "its agent's program has no trash: upgrade it".to_owned(),
                    now.wall,
                ));
            }
            Some(session) => {
                effects.send(Send { agent, session: session.epoch, message: Message::Trash(record.order()) });
                effects.change(Change::Volatile(Volatile::TrashTold(agent, project)));
            }
            None => effects.change(looked),
        }
        effects.decision()
    }

    /// Why this tree is not for the trash any more.
    fn keeps_tree(&self, record: &TrashRecord) -> Option<String> {
        let revoked = self.agents.get(&record.agent).is_none_or(|agent| agent.revoked.is_some());
        if revoked {
            return Some("its agent is revoked".to_owned());
        }
        let has_it = |project: ProjectUid| {
            let name = &self.projects.get(&project)?.record.name;
            Some(format!("project \"{name}\" has this place now"))
        };
        let placed = self.overlapping(Some(record.project), record.agent, &record.destination);
        placed.and_then(has_it).or_else(|| {
            // What is declared to live there, and is not placed yet.
            let all = (record.agent, ProjectUid(0))..=(record.agent, ProjectUid(u64::MAX));
            let declared = |project: &ProjectUid| {
                let spec = &self.projects.get(project)?.record.spec;
                let home = self.home_of(spec, record.agent)?;
                home.destination.overlaps(&record.destination).then_some(*project)
            };
            let blocked = self.homes_blocked_on.range(all).map(|(_, project)| project);
            blocked.filter_map(declared).next().and_then(has_it)
        })
    }

    /// What an agent says of its trash over the session that it has.
    pub(super) fn trash_told(
        &self,
        now: Now,
        agent: AgentUid,
        session: Epoch,
        report: &TrashReport,
    ) -> Decision {
        let mut effects = Effects::of(self);
        if self.sessions.get(&agent).is_some_and(|current| current.epoch == session) {
            self.settle_trash(now, agent, report, &mut effects);
        }
        effects.decision()
    }

    /// Brings what is remembered of an agent's trash in line with what the agent says.
    pub(super) fn settle_trash(
        &self,
        now: Now,
        agent: AgentUid,
        report: &TrashReport,
        effects: &mut Effects<'_>,
    ) {
        for record in self.trash.on(agent) {
            let of_order =
                |project: ProjectUid, asked: Wall| (project, asked) == (record.project, record.asked);
            if let Some(tree) = report.trees.iter().find(|tree| of_order(tree.project, tree.asked)) {
                if !tells(record, tree) {
                    let InTrash { place, until, .. } = tree.clone();
                    let fate = Fate::Trashed { place, until };
                    effects.put(Record::Trash(TrashRecord { fate, ..record.clone() }));
                }
                continue;
            }
            let refused = report.refused.iter().find(|one| of_order(one.project, one.asked));
            match (&record.fate, refused) {
                (Fate::Waiting, Some(refused)) => effects.put(stays(record, refused.why.clone(), now.wall)),
                // Its time has come, or somebody took it back.
                (Fate::Trashed { .. }, _) => effects.delete(Key::Trash(agent, record.project)),
                (Fate::Waiting | Fate::Stays { .. }, _) => {}
            }
        }
    }

    /// What is told no longer, and what has waited for its agent too long.
    pub(super) fn stale_trash(&self, now: Now) -> impl Iterator<Item = Change> + '_ {
        self.trash.records().filter_map(move |record| match &record.fate {
            Fate::Stays { at, .. } => {
                let over = now.wall.since(*at) > defaults::TRASH_TOLD_FOR;
                over.then_some(Change::Delete(Key::Trash(record.agent, record.project)))
            }
            Fate::Waiting => {
                let days = defaults::TRASH_WAIT_MAX.as_secs() / 86_400;
                let over = now.wall.since(record.asked) > defaults::TRASH_WAIT_MAX;
                let why = format!("its agent did not come for {days} days");
                (over && !self.trash.out.contains(&place_of(record)))
                    .then(|| Change::Put(stays(record, why, now.wall)))
            }
            Fate::Trashed { .. } => None,
        })
    }
}

fn stays(record: &TrashRecord, why: String, at: Wall) -> Record {
    Record::Trash(TrashRecord { fate: Fate::Stays { why, at }, ..record.clone() })
}

/// Whether a record says what the agent says.
fn tells(record: &TrashRecord, tree: &InTrash) -> bool {
    match &record.fate {
        Fate::Trashed { place, until } => {
            *place == tree.place && until.0.abs_diff(tree.until.0) <= UNTIL_SLACK_MS
        }
        Fate::Waiting | Fate::Stays { .. } => false,
    }
}
