//! One agent takes another's place: a disk array died, or a new machine takes over. Every declaration that names the
//! old agent names the new one, the old one's labels go over, and the old one is drained or revoked: all of it in one
//! commit, or nothing.
//!
//! ```text
//!   declarations, labels, the origins' placements ──▶ this commit     the other placements ──▶ homes.rs, by ticks
//!   a new origin's tree ──▶ reseed.rs, from an agent that has it      else ──▶ the upstream, by the next run
//! ```
//!
//! The old agent's caps go over as well, where the new one has none of its own: a thin line is no wider for another host, and
//! never busier than when its trees are filled again.
//!
//! The new agent begins without trees, and what a project serves stays what it is: nobody pulls from a placement that
//! lacks the version. The old agent's trees stay on its disk. Knows no host: that both are reachable, or that a disk is
//! dead, is for people to say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    CHANGES_MAX,
    effects::Effects,
    guard::short,
    homes::{home_as, placement},
    people::{Outcome, reason_fault},
    reseed::Copy,
    state::{Engine, Project},
};
use crate::{
    agent::{AgentRecord, labels_fault},
    attempt::{AttemptEvent, AttemptRecord, Role},
    id::{AgentUid, ProjectUid, RunId},
    input::{AgentReplacement, Decision, Refill, Replaced, ReplacedPlacement, Reply},
    placement::PlacementRecord,
    project::{Pick, ProjectRecord, ProjectSpec},
    record::{Key, Record},
    refusal::{Refusal, RefusalCode, Violation},
    time::Now,
};

/// Most faults of a replacement that are told.
const FAULTS_MAX: usize = 100;

/// One placement that goes over.
struct Move<'a> {
    project: &'a Project,
    /// The declaration that names the new agent; `None`: the placement follows the labels.
    spec: Option<ProjectSpec>,
    /// What the new agent is to hold.
    placement: PlacementRecord,
    /// From whom a new origin copies the tree.
    donor: Option<AgentUid>,
}

impl Move<'_> {
    fn uid(&self) -> ProjectUid {
        self.project.record.uid
    }

    fn is_origin(&self) -> bool {
        self.placement.role == Role::Origin
    }

    fn fault(&self, text: impl Into<String>) -> Violation {
        of_project(self.project, text)
    }

    fn refill(&self, run: Option<RunId>) -> Refill {
        match self.donor {
            _ if !self.is_origin() => Refill::FromOrigin,
            Some(from) => Refill::Copied { from, run },
            None if self.project.is_local() => Refill::ByPeople,
            None => Refill::FromUpstream,
        }
    }

    fn told(&self, run: Option<RunId>) -> ReplacedPlacement {
        ReplacedPlacement {
            project: self.uid(),
            role: self.placement.role,
            standby: self.placement.standby,
            destination: self.placement.destination.clone(),
            refill: self.refill(run),
        }
    }
}

impl Engine {
    /// Puts an agent in another's place, or says all that speaks against it.
    pub(super) fn replace_agent(
        &self,
        now: Now,
        by: &str,
        ask: &AgentReplacement,
        traceparent: &str,
    ) -> Outcome {
        let old = self.find_agent(ask.old)?;
        let new = self.find_agent(ask.new)?;
        let mut labels = new.labels.clone();
        labels.extend(old.labels.clone());
        let last_known = new.last_known.beside(&labels);
        let caps = new.caps.or(old.caps);
        let heir = AgentRecord { labels, caps, last_known, revision: new.revision + 1, ..new.clone() };
        let moves = self.moves(old, new, &heir, ask.reseed);
        let mut faults = self.agent_faults(old, &heir, ask);
        if old.uid != new.uid {
            faults.extend(self.busy_faults(old));
            faults.extend(moves.iter().flat_map(|one| self.move_faults(one, old, new, ask.reseed)));
        }
        if !faults.is_empty() {
            return Err(not_replaced(old, faults));
        }
        let mut decision = self.carry_out(now, by, ask, old, heir, moves, traceparent);
        if decision.changes.len() > CHANGES_MAX {
            let text = format!(
                "agent \"{}\" not replaced: {} records would change at once, at most {CHANGES_MAX} can; give some of \
                 its projects another origin first (mirrorctl project promote), or leave out the copies (--no-reseed)",
                old.name,
                decision.changes.len()
            );
            return Err(Refusal::precondition("TOO_MANY_CHANGES", text));
        }
        if ask.validate_only {
            decision = Decision { reply: decision.reply, ..Decision::nothing() };
        }
        Ok(decision)
    }

    /// What goes over, by the names of the projects.
    fn moves<'a>(
        &'a self,
        old: &AgentRecord,
        new: &AgentRecord,
        heir: &AgentRecord,
        reseed: bool,
    ) -> Vec<Move<'a>> {
        // What a revoked agent's labels selected goes over as well.
        let member = AgentRecord { revoked: None, ..old.clone() };
        let move_of = |project: &'a Project| {
            let before = &project.record.spec;
            home_as(before, &member)?;
            let spec = renamed(before, old.uid, new.uid);
            let home = home_as(spec.as_ref().unwrap_or(before), heir)?;
            let stays = home_as(before, new).is_some_and(|own| own.destination == home.destination);
            if spec.is_none() && stays {
                // The labels of both select them: the new one has its own tree there already.
                return None;
            }
            let placement = placement(project.record.uid, new.uid, &home, None);
            let donor =
                (reseed && placement.role == Role::Origin).then(|| self.donor_instead(project, old.uid));
            Some(Move { project, spec, placement, donor: donor.flatten() })
        };
        self.projects_by_name().filter_map(move_of).collect()
    }

    /// An agent that has the tree which is served and can be copied from now: first those that others pull from anyway.
    fn donor_instead(&self, project: &Project, old: AgentUid) -> Option<AgentUid> {
        let tree = project.state.tree?;
        let spec = &project.record.spec;
        let fits = |one: &&PlacementRecord| {
            one.agent != old
                && one.offers(tree)
                && self.sessions.contains_key(&one.agent)
                && self.export_fault(one.agent).is_empty()
                && self.home_of(spec, one.agent).is_some_and(|home| *home.destination == one.destination)
        };
        project.sources().chain(project.placements.values()).find(fits).map(|one| one.agent)
    }

    /// What speaks against the two agents.
    fn agent_faults(&self, old: &AgentRecord, heir: &AgentRecord, ask: &AgentReplacement) -> Vec<Violation> {
        let name = &heir.name;
        if old.uid == heir.uid {
            return vec![Violation::new(
                "replacement",
                format!("agent \"{name}\" cannot take its own place"),
            )];
        }
        let mut faults = Vec::new();
        let mut fault = |text: String| faults.push(Violation::new("replacement", text));
        if heir.revoked.is_some() {
            fault(format!("agent \"{name}\" is revoked; enrol its host under another name"));
        } else if heir.draining {
            fault(format!("agent \"{name}\" is being drained: mirrorctl agent undrain {name}"));
        } else if !self.sessions.contains_key(&heir.uid) {
            fault(format!("agent \"{name}\" has no session, so its roots are not known; start its agent"));
        }
        let labels = labels_fault(&heir.labels);
        if let Some(labels) =
            labels.filter(|_| self.agents.get(&heir.uid).is_none_or(|new| new.labels != heir.labels))
        {
            fault(format!(
                "agent \"{name}\" cannot have the labels of \"{}\" beside its own: {}; take some of either away first \
                 (mirrorctl agent set {name} --label KEY-)",
                old.name, labels.description
            ));
        }
        faults.extend(ask.revoke.as_deref().and_then(reason_fault));
        faults
    }

    /// What the old agent may be doing while it is here: people end it, or wait.
    fn busy_faults(&self, old: &AgentRecord) -> Vec<Violation> {
        if !self.sessions.contains_key(&old.uid) {
            return Vec::new();
        }
        let busy = self.may_be_doing(old.uid).filter_map(|attempt| {
            let project = self.projects.get(&attempt.project)?;
            let text = format!(
                "an attempt may be on agent \"{0}\"; wait for it (mirrorctl agent drain {0} keeps others away) or \
                 cancel it: mirrorctl run cancel {1}/{2}",
                old.name,
                project.record.name,
                short(attempt.id.run)
            );
            Some(of_project(project, text))
        });
        busy.collect()
    }

    /// Attempts that may be on the agent, and copies of lost trees and moves that wait for it.
    fn may_be_doing(&self, agent: AgentUid) -> impl Iterator<Item = &AttemptRecord> {
        let of_agent = self.attempts.values().filter(move |attempt| attempt.agent == agent);
        of_agent.filter(|attempt| attempt.state.is_out() || self.is_aside(attempt))
    }

    /// What speaks against one placement on the new agent.
    fn move_faults(
        &self,
        one: &Move<'_>,
        old: &AgentRecord,
        new: &AgentRecord,
        reseed: bool,
    ) -> Vec<Violation> {
        let Move { project, placement, .. } = one;
        let (name, record) = (&new.name, &project.record);
        let mut faults = Vec::new();
        if project.placements.contains_key(&new.uid) || home_as(&record.spec, new).is_some() {
            let was_origin =
                record.spec.placement.origins.first().is_some_and(|target| target.agent == old.uid);
            let next = if was_origin {
                format!("make it the origin: mirrorctl project promote {} --to {name}", record.name)
            } else {
                format!(
                    "take \"{}\" out of the project: mirrorctl project edit {} --help",
                    old.name, record.name
                )
            };
            faults.push(one.fault(format!("agent \"{name}\" is of the project already; {next}")));
        } else if let Some(other) = self.overlapping(Some(one.uid()), new.uid, &placement.destination) {
            faults.push(one.fault(self.overlap_text(new.uid, &placement.destination, other)));
        }
        let link = record.spec.link.as_ref();
        let link =
            link.and_then(|link| self.link_fault(Some(one.uid()), new.uid, link, &placement.destination));
        faults.extend(link.map(|fault| one.fault(fault.description)));
        let root = placement.destination.root();
        let session = self.sessions.get(&new.uid);
        if session.is_some_and(|session| session.facts.roots.iter().all(|known| known.name != root)) {
            let text = format!(
                "agent \"{name}\" has no root \"{root}\" for {}; add it to its own file and restart it",
                placement.destination
            );
            faults.push(one.fault(text));
        }
        let must_be_put_there = one.refill(None) == Refill::ByPeople && project.state.tree.is_some();
        if must_be_put_there && reseed {
            let text = format!(
                "people put its tree on agent \"{}\", and no other agent that is here has it; start one that has, or \
                 take --no-reseed and put the tree on \"{name}\" before its next run",
                old.name
            );
            faults.push(one.fault(text));
        }
        faults
    }

    #[expect(clippy::too_many_arguments, reason = "they are the parts of one replacement")]
    fn carry_out(
        &self,
        now: Now,
        by: &str,
        ask: &AgentReplacement,
        old: &AgentRecord,
        heir: AgentRecord,
        moves: Vec<Move<'_>>,
        traceparent: &str,
    ) -> Decision {
        let mut effects = Effects::of(self).without_retries();
        for one in moves.iter().filter(|one| one.is_origin()) {
            if one.project.placements.contains_key(&old.uid) {
                effects.delete(Key::Placement(one.uid(), old.uid));
            }
        }
        self.fence(now, old.uid, &mut effects);
        effects.put(Record::Agent(AgentRecord {
            labels: BTreeMap::new(),
            draining: old.draining || ask.revoke.is_none(),
            revoked: ask.revoke.clone().or_else(|| old.revoked.clone()),
            revision: old.revision + 1,
            ..old.clone()
        }));
        let own_caps = self.agents.get(&heir.uid).map(|new| new.caps).unwrap_or_default();
        effects.put(Record::Agent(heir));
        let mut last = self.last_run.unwrap_or(RunId::NIL);
        let mut placements = Vec::new();
        for mut one in moves {
            let mut run = None;
            if let Some((from, tree)) = one.donor.zip(one.project.state.tree) {
                last = RunId::mint(now.wall.0, now.entropy, last);
                run = Some(last);
                let copy = Copy { id: last, from, tree, traceparent: traceparent.to_owned() };
                self.begin_reseed(now, by.to_owned(), one.project, &one.placement, copy, &mut effects);
            }
            placements.push(one.told(run.filter(|_| !ask.validate_only)));
            if let Some(spec) = one.spec.take() {
                self.rename(now, one, spec, &mut effects);
            }
        }
        if ask.revoke.is_some() {
            self.close_revoked(old.uid, &mut effects);
        }
        let caps = old.caps.where_none_in(own_caps);
        effects.reply(Reply::Replaced(Replaced { labels: old.labels.clone(), caps, placements }));
        effects.decision()
    }

    /// What an agent that is away may be doing counts no more, whatever it reports later; it is never tried again there.
    fn fence(&self, now: Now, old: AgentUid, effects: &mut Effects<'_>) {
        for attempt in self.may_be_doing(old) {
            let event = if attempt.state.is_out() { AttemptEvent::Forget } else { AttemptEvent::Cancel };
            self.move_attempt(now, attempt, event, effects);
        }
    }

    /// The declaration names the new agent. An origin goes over at once, and what waits to pull with it.
    fn rename(&self, now: Now, one: Move<'_>, spec: ProjectSpec, effects: &mut Effects<'_>) {
        let Move { project, placement, .. } = one;
        let record = ProjectRecord {
            spec,
            revision: project.record.revision + 1,
            update_time: now.wall,
            ..(*project.record).clone()
        };
        if placement.role == Role::Origin {
            self.readdress(project, &record, &placement, effects);
            effects.put(Record::Placement(placement));
        }
        effects.put(Record::Project(Arc::new(record)));
    }
}

/// The declaration with one agent in the other's place; `None`: it does not name it.
fn renamed(spec: &ProjectSpec, old: AgentUid, new: AgentUid) -> Option<ProjectSpec> {
    let mut spec = spec.clone();
    let origins = spec.placement.origins.iter_mut().map(|target| &mut target.agent);
    let replicas = spec.placement.replicas.iter_mut().filter_map(|replicas| match &mut replicas.pick {
        Pick::Agent(agent) => Some(agent),
        Pick::Labels(_) => None,
    });
    let mut named = origins.chain(replicas).filter(|agent| **agent == old).peekable();
    named.peek()?;
    named.for_each(|agent| *agent = new);
    Some(spec)
}

/// A fault of one project, by its name in the API.
fn of_project(project: &Project, text: impl Into<String>) -> Violation {
    Violation::new(format!("projects/{}", project.record.name), text)
}

fn not_replaced(old: &AgentRecord, mut faults: Vec<Violation>) -> Refusal {
    let mut seen = BTreeSet::new();
    faults.retain(|fault| seen.insert((fault.field.clone(), fault.description.clone())));
    let count = faults.len();
    faults.truncate(FAULTS_MAX);
    let text = match count {
        1 => format!("agent \"{}\" not replaced: one thing is in the way", old.name),
        count => format!("agent \"{}\" not replaced: {count} things are in the way", old.name),
    };
    Refusal { violations: faults, ..Refusal::new(RefusalCode::FailedPrecondition, "NOT_REPLACEABLE", text) }
}
