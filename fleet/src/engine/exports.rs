//! Which trees an agent serves to which replicas, and what it was told of that in its session. After a hello the
//! whole list is told, then each change; a replica is sent to an agent only when the agent has said that an
//! export which names the replica is in place.
//!
//! ```text
//!   placements, agents, the day ──▶ what should be served ──▶ Message::Exports { serial } ──▶ agent
//!   source(..) ◀── told[project].serial <= acknowledged ◀──── Exporting { serial, serve_uri, not_served } ──┘
//! ```
//!
//! Secrets are made by the shell, from the pairs that are named here. Knows no rsync.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    admit::{Blocker, Wait, WaitReason},
    effects::Effects,
    state::{Engine, Project},
};
use crate::{
    attempt::{AttemptRecord, Role},
    id::{AgentUid, ProjectUid},
    input::{Decision, Export, Message, Pair, Send},
    placement::PlacementRecord,
    record::{Change, Volatile},
    time::{DAY_MS, Now, Wall},
};

/// What agents serve, as far as they were told in their sessions.
#[derive(Debug, Clone, Default)]
pub(super) struct Exports {
    /// One for each session.
    exporters: BTreeMap<AgentUid, Exporter>,
    /// Sessions that were told nothing yet.
    untold: BTreeSet<AgentUid>,
    /// Exports that may be others than was told.
    changed: BTreeSet<(AgentUid, ProjectUid)>,
    /// The day by which each export was told.
    days: BTreeSet<(u64, AgentUid, ProjectUid)>,
}

#[derive(Debug, Clone, Default)]
struct Exporter {
    /// Of the newest message.
    serial: u64,
    /// Up to which the exports are in place.
    acknowledged: u64,
    /// Why it cannot serve; empty: it can, as far as it said.
    fault: String,
    /// What of that is not in place, as it said.
    not_served: BTreeSet<ProjectUid>,
    told: BTreeMap<ProjectUid, Told>,
}

#[derive(Debug, Clone)]
struct Told {
    /// The message that told it.
    serial: u64,
    day: u64,
    export: Export,
}

/// Where a replica pulls from.
pub(super) struct Source {
    pub(super) agent: AgentUid,
    pub(super) uri: String,
    pub(super) pair: Option<Pair>,
}

impl Exports {
    pub(super) fn opened(&mut self, agent: AgentUid) {
        self.closed(agent);
        self.exporters.insert(agent, Exporter::default());
        self.untold.insert(agent);
    }

    pub(super) fn closed(&mut self, agent: AgentUid) {
        let Some(exporter) = self.exporters.remove(&agent) else { return };
        self.untold.remove(&agent);
        for (project, told) in exporter.told {
            self.days.remove(&(told.day, agent, project));
        }
        self.settle_all(agent);
    }

    fn settle_all(&mut self, agent: AgentUid) {
        let all = (agent, ProjectUid(0))..=(agent, ProjectUid(u64::MAX));
        let changed: Vec<_> = self.changed.range(all).copied().collect();
        for pair in changed {
            self.changed.remove(&pair);
        }
    }

    /// What this agent serves of the project may be something else now.
    pub(super) fn touch(&mut self, agent: AgentUid, project: ProjectUid) {
        // Who was told nothing yet is going to be told all.
        if self.exporters.contains_key(&agent) && !self.untold.contains(&agent) {
            self.changed.insert((agent, project));
        }
    }

    /// The agent is told this, by the message with that serial; or knew it by an earlier one.
    pub(super) fn told(
        &mut self,
        agent: AgentUid,
        serial: u64,
        day: u64,
        complete: bool,
        told: &[(ProjectUid, Option<Export>)],
    ) {
        let Some(exporter) = self.exporters.get_mut(&agent) else { return };
        exporter.serial = exporter.serial.max(serial);
        for (project, export) in told {
            if let Some(old) = exporter.told.remove(project) {
                self.days.remove(&(old.day, agent, *project));
            }
            self.changed.remove(&(agent, *project));
            if let Some(export) = export {
                exporter.told.insert(*project, Told { serial, day, export: export.clone() });
                self.days.insert((day, agent, *project));
            }
        }
        if complete {
            self.untold.remove(&agent);
        }
    }

    pub(super) fn acknowledged(
        &mut self,
        agent: AgentUid,
        serial: u64,
        fault: &str,
        not_served: &[ProjectUid],
    ) {
        if let Some(exporter) = self.exporters.get_mut(&agent) {
            exporter.acknowledged = serial.min(exporter.serial);
            fault.clone_into(&mut exporter.fault);
            exporter.not_served = not_served.iter().copied().collect();
        }
    }

    /// Whether the agent has said that it serves the project to nobody, and that all it was told is in place.
    pub(super) fn is_quiet(&self, agent: AgentUid, project: ProjectUid) -> bool {
        self.exporters.get(&agent).is_some_and(|exporter| {
            exporter.acknowledged == exporter.serial
                && !exporter.told.contains_key(&project)
                && !self.untold.contains(&agent)
                && !self.changed.contains(&(agent, project))
        })
    }

    /// Which agent is to be told something: of one project, or all.
    pub(super) fn due(&self, today: u64) -> Option<(AgentUid, Option<ProjectUid>)> {
        if let Some(agent) = self.untold.first() {
            return Some((*agent, None));
        }
        if let Some((agent, project)) = self.changed.first() {
            return Some((*agent, Some(*project)));
        }
        let past = self.days.first().filter(|(day, ..)| *day < today);
        // A day that has not come yet was told by a wrong clock.
        let ahead = || self.days.last().filter(|(day, ..)| *day > today);
        past.or_else(ahead).map(|(_, agent, project)| (*agent, Some(*project)))
    }

    /// When the secrets change; `None`: there are none.
    pub(super) fn next_day(&self, now: Wall) -> Option<Wall> {
        self.days.first().map(|_| Wall((now.0.div_euclid(DAY_MS) + 1) * DAY_MS))
    }
}

impl Project {
    /// The placements that replicas pull from, in order of preference.
    pub(super) fn sources(&self) -> impl Iterator<Item = &PlacementRecord> {
        let origins = self.record.spec.placement.origins.iter();
        let placed = origins.filter_map(|target| self.placements.get(&target.agent));
        placed.filter(|placement| placement.is_source())
    }

    /// Whether this agent is a source, and not the only one.
    pub(super) fn has_other_source(&self, agent: AgentUid) -> bool {
        let mut sources = self.sources();
        self.record.spec.placement.origins.len() > 1
            && self.placements.get(&agent).is_some_and(PlacementRecord::is_source)
            && sources.any(|source| source.agent != agent)
    }

    /// Whether people put the tree on the origin themselves: its runs begin at the replicas.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.record.spec.upstreams.is_empty()
    }
}

impl PlacementRecord {
    fn is_source(&self) -> bool {
        self.role == Role::Origin || self.standby
    }
}

impl Engine {
    /// Who serves this project may have something else to serve now.
    pub(super) fn touch_exports(&mut self, uid: ProjectUid) {
        let Some(project) = self.projects.get(&uid) else { return };
        let sources = project.placements.values().filter(|placement| placement.is_source());
        let sources = sources.map(|placement| placement.agent).chain(self.donors(uid));
        let sources: Vec<AgentUid> = sources.collect();
        for agent in sources {
            self.exports.touch(agent, uid);
        }
    }

    /// What the agent should serve of the project through its own daemon, with the secrets of that day and the
    /// one before: who was sent on his way before midnight arrives after it. A lost tree is served to nobody until it is
    /// whole again.
    fn export(&self, day: u64, agent: AgentUid, uid: ProjectUid) -> Option<Export> {
        let project = self.projects.get(&uid)?;
        let own = project.placements.get(&agent)?;
        let session = self.sessions.get(&agent)?;
        let external = session.facts.external_roots.contains_key(own.destination.root());
        if external || self.donor_of(uid, agent).is_some() {
            return None;
        }
        let pulls = |other: &&PlacementRecord| {
            let follows = own.is_source() && other.role == Role::Replica;
            (follows || self.donor_of(uid, other.agent) == Some(agent))
                && other.agent != agent
                && self.agents.get(&other.agent).is_some_and(|agent| agent.revoked.is_none())
        };
        let pairs = project.placements.values().filter(pulls).flat_map(|other| {
            let pair = move |day| Pair { project: uid, origin: agent, replica: other.agent, day };
            [pair(day), pair(day.saturating_sub(1))]
        });
        let pairs: Vec<Pair> = pairs.collect();
        let (name, destination) = (project.record.name.clone(), own.destination.clone());
        (!pairs.is_empty()).then_some(Export { project: uid, name, destination, pairs })
    }

    /// Tells one agent what it serves: all of it, or one project.
    pub(super) fn tell_exports(&self, now: Now, agent: AgentUid, only: Option<ProjectUid>) -> Decision {
        let day = now.wall.day();
        let mut effects = Effects::of(self);
        let Some(exporter) = self.exports.exporters.get(&agent) else { return effects.decision() };
        let complete = only.is_none();
        let told: Vec<(ProjectUid, Option<Export>)> = match only {
            Some(project) => vec![(project, self.export(day, agent, project))],
            None => {
                let all =
                    self.placements_on(agent).map(|project| (project, self.export(day, agent, project)));
                all.filter(|(_, export)| export.is_some()).collect()
            }
        };
        let known = |project: ProjectUid| exporter.told.get(&project);
        // What it could not serve it is told again, or it never tries again.
        let unchanged = told.iter().all(|(project, export)| {
            let old = known(*project).map(|told| &told.export);
            // Names are equal ignoring case, and the agent is to write the project's as people do.
            let name = |export: &Export| export.name.as_str().to_owned();
            old == export.as_ref()
                && old.map(name) == export.as_ref().map(name)
                && !exporter.not_served.contains(project)
        });
        if unchanged && !complete {
            let serial = only.and_then(known).map_or(exporter.serial, |told| told.serial);
            effects.change(Change::Volatile(Volatile::Told { agent, serial, day, complete, told }));
            return effects.decision();
        }
        let serial = exporter.serial + 1;
        if let Some(session) = self.sessions.get(&agent) {
            let withdrawn = told.iter().filter(|(_, export)| export.is_none());
            let withdrawn = withdrawn.map(|(project, _)| *project).collect();
            let exports = told.iter().filter_map(|(_, export)| export.clone()).collect();
            let message = Message::Exports { serial, complete, exports, withdrawn };
            effects.send(Send { agent, session: session.epoch, message });
        }
        effects.change(Change::Volatile(Volatile::Told { agent, serial, day, complete, told }));
        effects.decision()
    }

    /// Where a replica's attempt can pull its tree from now: the first of the sources that has the tree, says that
    /// it serves it to this replica, and is not changing it. Else why the first of them cannot be used.
    pub(super) fn source(
        &self,
        now: Now,
        project: &Project,
        attempt: &AttemptRecord,
    ) -> Result<Source, Wait> {
        let mut first = None;
        for from in project.sources().filter(|from| from.agent != attempt.agent) {
            let blocker = Blocker::Agent(from.agent);
            let wait = match self.served(now, from, attempt.agent) {
                _ if !self.sessions.contains_key(&from.agent) => Wait::by(WaitReason::OriginAway, blocker),
                // A new origin serves nothing yet: pulling from it would empty the replica.
                // Nor is one that has shrunk, or was left half changed, to be pulled under the name of the tree before:
                // IN_PLACE, it is there already.
                Some(source) if from.offers(attempt.tree) => {
                    if !self.is_changed(from.project, from.agent) {
                        return Ok(source);
                    }
                    // While the source changes its tree, what a replica pulls would be mixed.
                    Wait::new(WaitReason::RunActive)
                }
                Some(_) | None => Wait::by(WaitReason::OriginNotServing, blocker),
            };
            first.get_or_insert(wait);
        }
        Err(first.unwrap_or_else(|| Wait::new(WaitReason::OriginAway)))
    }

    /// How this replica gets at that tree, if its agent serves it by what it said in this session.
    pub(super) fn served(&self, now: Now, from: &PlacementRecord, replica: AgentUid) -> Option<Source> {
        let session = self.sessions.get(&from.agent)?;
        if let Some(uri) = session.facts.external_roots.get(from.destination.root()) {
            let uri = format!("{}/{}/", uri.trim_end_matches('/'), from.destination.path());
            return Some(Source { agent: from.agent, uri, pair: None });
        }
        let pair = Pair { project: from.project, origin: from.agent, replica, day: now.wall.day() };
        let exporter = self.exports.exporters.get(&from.agent)?;
        let told = exporter.told.get(&from.project)?;
        let in_place = told.serial <= exporter.acknowledged
            && !exporter.not_served.contains(&from.project)
            && told.export.destination == from.destination
            && told.export.pairs.contains(&pair)
            && !session.facts.serve_uri.is_empty();
        let uri = format!("{}/{}/", session.facts.serve_uri.trim_end_matches('/'), from.project.0);
        in_place.then_some(Source { agent: from.agent, uri, pair: Some(pair) })
    }

    /// The secret that a replica's attempt was offered with; `None`: it needs none.
    pub(super) fn pair_of(&self, attempt: &AttemptRecord) -> Option<Pair> {
        let origin = attempt.source?;
        let project = self.projects.get(&attempt.project)?;
        let from = project.placements.get(&origin);
        let session = self.sessions.get(&origin);
        let external = from.zip(session).is_some_and(|(from, session)| {
            session.facts.external_roots.contains_key(from.destination.root())
        });
        let day = attempt.state.offered()?.day();
        (!external).then_some(Pair { project: attempt.project, origin, replica: attempt.agent, day })
    }

    /// Why an agent says that it cannot serve replicas; empty: it says nothing of the kind.
    #[must_use]
    pub fn export_fault(&self, agent: AgentUid) -> &str {
        self.exports.exporters.get(&agent).map_or("", |exporter| &exporter.fault)
    }
}
