//! A lost tree is copied from another placement of its project: an agent got a new disk, and the upstream need not be
//! asked for all of it again. Such a run is a person's wish for one placement. It deletes nothing, makes no version and
//! propagates nothing; while it is open no other attempt begins on that placement, and nobody pulls from it.
//!
//! ```text
//!   Ask::Reseed ──▶ run { wish.reseed_from } + its first attempt     the target counts as having no tree
//!   admission   ──▶ the donor must serve the target (exports.rs) and not be changing
//!   the end     ──▶ success: the target has the donor's version      else: as before, without a tree
//! ```
//!
//! Knows no rsync: that nothing is deleted is `Offer::keep_extra`, and a limit of 0 for agents that do not know it.

use std::time::Duration;

use super::{
    admit::{Blocker, Wait, WaitReason},
    effects::Effects,
    exports::Source,
    people::{Outcome, check_revision},
    state::{Engine, Project},
};
use crate::{
    attempt::{AttemptEvent, AttemptRecord, End, Role},
    id::{AgentUid, ProjectUid, RunId},
    input::Reply,
    outcome::{ExitClass, GuardKind, Outcome as Report},
    placement::{Hold, PlacementRecord},
    record::Record,
    refusal::Refusal,
    retry::Verdict,
    run::{RunRecord, RunState, Trigger, TriggerKind, Wish},
    time::Now,
};

/// What is copied to a placement that lacks its tree.
pub(super) struct Copy {
    /// The run that does it.
    pub(super) id: RunId,
    pub(super) from: AgentUid,
    pub(super) tree: RunId,
    /// W3C trace context of the request; empty: none.
    pub(super) traceparent: String,
}

impl Engine {
    /// The agent from which this attempt copies a lost tree; `None`: it is an ordinary one.
    pub(super) fn reseed_from(&self, attempt: &AttemptRecord) -> Option<AgentUid> {
        self.runs.get(&attempt.id.run)?.wish.reseed_from
    }

    pub(super) fn is_reseed(&self, attempt: &AttemptRecord) -> bool {
        self.reseed_from(attempt).is_some()
    }

    /// The agent from which a placement's lost tree is to be copied, while a person's wish for that is open.
    #[must_use]
    pub fn donor_of(&self, project: ProjectUid, agent: AgentUid) -> Option<AgentUid> {
        self.attempts_on(project, agent).find_map(|attempt| self.reseed_from(attempt))
    }

    /// The agents from which trees of the project are to be copied.
    pub(super) fn donors(&self, project: ProjectUid) -> impl Iterator<Item = AgentUid> {
        self.attempts_of_project(project).filter_map(|attempt| self.reseed_from(attempt))
    }

    /// Whether the placement must stay where and what it is: an attempt may be on its agent, or a person waits for its
    /// tree to be copied there, or moved.
    pub(super) fn is_worked_on(&self, project: ProjectUid, agent: AgentUid) -> bool {
        self.attempts_on(project, agent).any(|attempt| attempt.state.is_out() || self.is_aside(attempt))
    }

    /// Begins to copy a lost tree. What the fleet believed to be on the target's disk is forgotten first: nobody is to
    /// pull from an empty disk.
    #[expect(clippy::too_many_arguments, reason = "they are the fields of one request")]
    pub(super) fn reseed(
        &self,
        now: Now,
        by: String,
        uid: ProjectUid,
        agent: AgentUid,
        from: AgentUid,
        revision: Option<u64>,
        traceparent: String,
    ) -> Outcome {
        let project = self.find_project(uid)?;
        check_revision(project, revision)?;
        let (placement, tree) = self.check_reseed(project, agent, from)?;
        let mut effects = Effects::of(self);
        for waiting in self.attempts_on(uid, agent) {
            match waiting.role {
                // Whatever it was to fetch is asked for anew when the tree is there, or was not to be had.
                Role::Replica => {
                    if let Ok(state) = waiting.state.on(AttemptEvent::Cancel, now.wall) {
                        effects.put(Record::Attempt(AttemptRecord { state, ..waiting.clone() }));
                    }
                }
                Role::Origin => {
                    effects.put(Record::Attempt(AttemptRecord { first_sync: true, ..waiting.clone() }));
                }
            }
        }
        // Who pulls from it now copies what is left of the tree.
        self.mix_replicas(project, agent, &mut effects);
        let id = RunId::mint(now.wall.0, now.entropy, self.last_run.unwrap_or(RunId::NIL));
        let lost = PlacementRecord {
            have_tree: None,
            have_time: None,
            gave_up_on: None,
            half_changed: true,
            ..placement.clone()
        };
        self.begin_reseed(now, by, project, &lost, Copy { id, from, tree, traceparent }, &mut effects);
        effects.put(Record::Placement(lost));
        effects.reply(Reply::Run { project: uid, run: id, coalesced: false, notes: Vec::new() });
        Ok(effects.decision())
    }

    /// The run that copies a tree to a placement that lacks it, and its first attempt.
    pub(super) fn begin_reseed(
        &self,
        now: Now,
        by: String,
        project: &Project,
        to: &PlacementRecord,
        copy: Copy,
        effects: &mut Effects<'_>,
    ) {
        let Copy { id, from, tree, traceparent } = copy;
        let trigger = Trigger { kind: TriggerKind::User, by, time: now.wall, autonomous: false };
        effects.put(Record::Run(RunRecord {
            by_person: true,
            traceparent,
            wish: Wish { reseed_from: Some(from), ..Wish::default() },
            ..RunRecord::queued(id, to.project, trigger, now.wall)
        }));
        let attempt = self.new_attempt(project, to.agent, id, 1, tree, 1, Duration::ZERO);
        effects.put(Record::Attempt(AttemptRecord {
            role: to.role,
            destination: to.destination.clone(),
            first_sync: true,
            upstream_host: String::new(),
            upstream_uri: String::new(),
            ..attempt
        }));
    }

    /// All that speaks against it, with what to do about it.
    fn check_reseed<'a>(
        &self,
        project: &'a Project,
        agent: AgentUid,
        from: AgentUid,
    ) -> Result<(&'a PlacementRecord, RunId), Refusal> {
        let name = &project.record.name;
        let lost = self.find_agent(agent)?;
        let target = &lost.name;
        let donor = &self.find_agent(from)?.name;
        let placed = |agent: AgentUid| project.placements.get(&agent);
        let mut faults: Vec<(&'static str, String)> = Vec::new();
        if lost.revoked.is_some() {
            faults.push(("AGENT_REVOKED", "it is revoked; enrol its host under another name".to_owned()));
        }
        if agent == from {
            faults.push(("SAME_AGENT", "it cannot copy from itself; name another agent".to_owned()));
        }
        for (agent, who) in [(agent, target), (from, donor)] {
            if placed(agent).is_none() {
                let text = format!("\"{who}\" is not of the project; see mirrorctl project show {name}");
                faults.push(("NOT_PLACED", text));
            }
        }
        if let Some(one) = placed(from).filter(|_| agent != from) {
            if !project.state.tree.is_some_and(|tree| one.offers(tree)) {
                let text = format!(
                    "\"{donor}\" lacks the tree that is served now; name another agent (mirrorctl project show {name}), \
                     or let a run pull it (mirrorctl project run {name})"
                );
                faults.push(("BEHIND", text));
            }
            if !self.sessions.contains_key(&from) {
                let text = format!("\"{donor}\" has no session; start its agent, or name another one");
                faults.push(("AGENT_AWAY", text));
            }
        }
        if self.donor_of(project.record.uid, agent).is_some() {
            let text = format!(
                "it is being reseeded already; follow it with mirrorctl why {name}, or cancel that run"
            );
            faults.push(("RESEED_OPEN", text));
        } else if self.is_worked_on(project.record.uid, agent) {
            let text = "an attempt of the project may be on it; cancel the run or wait".to_owned();
            faults.push(("ATTEMPT_RUNNING", text));
        }
        match (placed(agent), project.state.tree, faults.first()) {
            (Some(placement), Some(tree), None) => Ok((placement, tree)),
            (_, _, first) => {
                let reason = first.map_or("BEHIND", |(reason, _)| *reason);
                let whys: Vec<&str> = faults.iter().map(|(_, why)| why.as_str()).collect();
                let text = format!("\"{target}\" not reseeded with \"{name}\": {}", whys.join("; "));
                Err(Refusal::precondition(reason, text))
            }
        }
    }

    /// One attempt at a time on a placement: while a lost tree is to be copied, or a tree to be moved, that one.
    pub(super) fn wait_for_placement(&self, attempt: &AttemptRecord, waits: &mut Vec<Wait>) {
        let aside = self.is_aside(attempt);
        let mut others =
            self.attempts_on(attempt.project, attempt.agent).filter(|other| other.id != attempt.id);
        let before = |other: &AttemptRecord| if aside { other.state.is_out() } else { self.is_aside(other) };
        if others.any(before) {
            let blocker = Blocker::Project(attempt.project, attempt.agent);
            waits.push(Wait::by(WaitReason::DestinationBusy, blocker));
        }
    }

    /// Whether the tree that this attempt was to copy is not to be had any more: its donor left the project or the
    /// fleet, or lost its tree as well.
    pub(super) fn is_hopeless_reseed(&self, attempt: &AttemptRecord) -> bool {
        let Some(donor) = self.reseed_from(attempt) else { return false };
        let placement = self.projects.get(&attempt.project).and_then(|one| one.placements.get(&donor));
        let of_fleet = self.agents.get(&donor).is_some_and(|agent| agent.revoked.is_none());
        let has_tree = |from: &PlacementRecord| from.have_tree.is_some_and(|tree| from.offers(tree));
        !of_fleet || !placement.is_some_and(has_tree)
    }

    /// How the attempt gets at the donor's tree now, or what keeps it from that.
    pub(super) fn donor_source(
        &self,
        now: Now,
        attempt: &AttemptRecord,
        donor: AgentUid,
    ) -> Result<Source, Wait> {
        let blocker = Blocker::Agent(donor);
        let project = self.projects.get(&attempt.project);
        let from = project.and_then(|project| project.placements.get(&donor));
        let served = from.and_then(|from| self.served(now, from, attempt.agent));
        match served {
            _ if !self.sessions.contains_key(&donor) => Err(Wait::by(WaitReason::OriginAway, blocker)),
            None => Err(Wait::by(WaitReason::OriginNotServing, blocker)),
            // While the donor changes its tree, what is copied would be mixed.
            Some(_) if self.is_changed(attempt.project, donor) => Err(Wait::new(WaitReason::RunActive)),
            Some(source) => Ok(source),
        }
    }

    /// The version that an attempt makes or fetches, offered now: of a reseed whichever its donor has, of a move the one
    /// that is there.
    pub(super) fn tree_offered(&self, project: &Project, attempt: &AttemptRecord) -> RunId {
        let own = self.is_move(attempt).then_some(attempt.agent);
        let donor =
            own.or_else(|| self.reseed_from(attempt)).and_then(|donor| project.placements.get(&donor));
        donor.and_then(|donor| donor.have_tree).unwrap_or(attempt.tree)
    }

    /// What follows from the end of a reseed's attempt: the wish ends with its run, however that ends.
    pub(super) fn after_reseed(
        &self,
        now: Now,
        project: &Project,
        run: RunRecord,
        attempt: &AttemptRecord,
        end: &End,
        effects: &mut Effects<'_>,
    ) {
        let class = match end {
            // What was copied while the donor changed is no version: once more, for what differs.
            End::Succeeded(_) if attempt.mixed => {
                return self.reseed_again(project, run, attempt, Duration::ZERO, effects);
            }
            End::Succeeded(outcome) => {
                self.reseeded(now, project, attempt, outcome, effects);
                return self.close_run(now, run, RunState::Succeeded, effects);
            }
            End::Cancelled(_) => return self.close_run(now, run, RunState::Cancelled, effects),
            // The guard's evidence is the attempt's; there is nothing to approve of a donor without a tree.
            End::Held(_) => return self.close_run(now, run, RunState::Failed, effects),
            End::Failed(outcome) => outcome.class,
            End::Lost => ExitClass::Interrupted,
        };
        match self.verdict(now, project, attempt, class) {
            Verdict::Again(delay) if effects.retries() => {
                self.reseed_again(project, run, attempt, delay, effects);
            }
            Verdict::Again(_) | Verdict::GiveUp => self.close_run(now, run, RunState::Failed, effects),
        }
    }

    fn reseed_again(
        &self,
        project: &Project,
        run: RunRecord,
        before: &AttemptRecord,
        delay: Duration,
        effects: &mut Effects<'_>,
    ) {
        let number = run.attempts + 1;
        let tries = before.attempt_try + u32::from(!before.mixed);
        let next = self.new_attempt(project, before.agent, run.id, number, before.tree, tries, delay);
        effects.put(Record::Run(RunRecord { attempts: number, origin_attempt: number, ..run }));
        effects.put(Record::Attempt(AttemptRecord {
            upstream_host: String::new(),
            upstream_uri: String::new(),
            ..next
        }));
    }

    /// The placement has its donor's version.
    fn reseeded(
        &self,
        now: Now,
        project: &Project,
        attempt: &AttemptRecord,
        outcome: &Report,
        effects: &mut Effects<'_>,
    ) {
        let Some(placement) = project.placements.get(&attempt.agent) else { return };
        let hold = placement.hold.clone().and_then(without_shrink);
        let marker = project.marker_of(attempt.tree);
        let whole = placement.clone().with_tree(now, attempt.tree, outcome, marker);
        effects.put(Record::Placement(PlacementRecord { hold, ..whole }));
        // What waits for its turn on the origin is no first copy any more.
        for waiting in self.attempts_on(attempt.project, attempt.agent).filter(|one| one.state.is_pending()) {
            effects.put(Record::Attempt(AttemptRecord { first_sync: false, ..waiting.clone() }));
        }
        if let Some(made) = effects.run(attempt.project, attempt.tree) {
            self.caught_up(now, &made, attempt, effects);
        }
    }
}

/// What is left of a hold when the whole tree is on the disk again. What another guard saw of the upstream need not be
/// over.
fn without_shrink(hold: Hold) -> Option<Hold> {
    let met: Vec<GuardKind> = hold.met.into_iter().filter(|kind| *kind != GuardKind::Shrink).collect();
    (!met.is_empty()).then_some(Hold { met, ..hold })
}

impl PlacementRecord {
    /// Whether nobody knows what is in its directory: its tree was lost, or its first copy ended in the middle. What an
    /// agent says to have pulled there alone may be gone again.
    pub(super) fn may_be_lost(&self) -> bool {
        self.have_tree.is_none() && self.half_changed
    }
}
