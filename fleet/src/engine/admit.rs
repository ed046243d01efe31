//! Admission: one function over all limits says who may start, or what it waits for. The same function
//! answers `mirrorctl why`, so what is shown is what is done; a reason is computed when it is asked for and
//! can therefore never be stale.

use std::{collections::BTreeSet, time::Duration};

use super::{
    effects::Effects,
    exports::Source,
    hosts::host_of,
    state::{Engine, Project},
    usage::count,
};
use crate::{
    attempt::{AttemptEvent, AttemptRecord, Role},
    defaults,
    id::{AgentUid, AttemptId, ProjectUid},
    input::{Decision, Message, Offer, Send},
    outcome::{ExitClass, Outcome},
    placement::PlacementRecord,
    record::{Change, Key, Record, Volatile},
    run::{RunRecord, RunState},
    standing::OPENING_LOOK,
    time::{Mono, Now, Wall},
};

/// Most attempts looked at in one decision; the look goes on in the next.
const SCAN_STEPS_MAX: usize = 1_024;

/// What kind of limit holds an attempt back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the wire's Wait.Reason documents each")]
pub enum WaitReason {
    Paused,
    Frozen,
    RunActive,
    AgentAway,
    AgentDraining,
    AgentSlots,
    VolumeSlots,
    FirstSync,
    UpstreamSlots,
    UpstreamSpacing,
    Backoff,
    DestinationBusy,
    OriginUplink,
    OriginAway,
    OriginNotServing,
    ReplicasPulling,
    MaxParallel,
    NoSuchRoot,
    UpstreamBreaker,
    OutsideWindow,
    DiskSpace,
    Archived,
}

/// What is in the way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blocker {
    /// An agent.
    Agent(AgentUid),
    /// Another project, and where it runs.
    Project(ProjectUid, AgentUid),
    /// An upstream host.
    Host(String),
    /// A root of an agent.
    Volume(AgentUid, String),
}

/// One reason of waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// What kind of limit.
    pub reason: WaitReason,
    /// When it clears by itself, by the monotonic clock, where that is known.
    pub until: Option<Mono>,
    /// What is in the way; at most [`BLOCKERS_MAX`].
    pub blockers: Vec<Blocker>,
}

/// Most blockers named for one wait.
pub const BLOCKERS_MAX: usize = 8;

impl Wait {
    pub(super) fn new(reason: WaitReason) -> Self {
        Self { reason, until: None, blockers: Vec::new() }
    }

    pub(super) fn by(reason: WaitReason, blocker: Blocker) -> Self {
        Self { reason, until: None, blockers: vec![blocker] }
    }

    fn at_host(reason: WaitReason, until: Mono, host: &str) -> Self {
        Self { reason, until: Some(until), blockers: vec![Blocker::Host(host.to_owned())] }
    }

    fn until(reason: WaitReason, until: Mono) -> Self {
        Self { reason, until: Some(until), blockers: Vec::new() }
    }
}

/// What an attempt hangs on, looked up once.
struct Case<'a> {
    attempt: &'a AttemptRecord,
    run: &'a RunRecord,
    project: &'a Project,
}

impl Case<'_> {
    /// Whether the run's tree is there already: people put it on the origin themselves.
    fn is_local(&self) -> bool {
        self.attempt.role == Role::Origin && self.project.is_local() && !self.run.wish.is_aside()
    }
}

impl Engine {
    /// Why this waiting attempt may not start now; empty: it may.
    pub(super) fn waits(&self, now: Now, attempt: &AttemptRecord) -> Vec<Wait> {
        let Some(case) = self.case(attempt) else { return vec![Wait::new(WaitReason::DestinationBusy)] };
        if self.is_hopeless_reseed(attempt) {
            // It starts only to end.
            return Vec::new();
        }
        let mut waits = Vec::new();
        self.wait_for_people(&case, &mut waits);
        self.wait_for_time(now, &case, &mut waits);
        self.wait_for_placement(attempt, &mut waits);
        // What people put on the origin themselves needs nothing of its agent.
        if !case.is_local() {
            self.wait_for_agent(&case, &mut waits);
        }
        match (attempt.role, case.run.wish.reseed_from) {
            // It needs nothing beyond its agent.
            (Role::Origin | Role::Replica, _) if case.run.wish.moves.is_some() => {}
            (Role::Origin | Role::Replica, Some(donor)) => {
                self.wait_for_source(self.donor_source(now, attempt, donor), &mut waits);
            }
            (Role::Origin, None) => self.wait_as_origin(now, &case, &mut waits),
            (Role::Replica, None) => self.wait_as_replica(now, &case, &mut waits),
        }
        waits
    }

    fn case<'a>(&'a self, attempt: &'a AttemptRecord) -> Option<Case<'a>> {
        let run = self.runs.get(&attempt.id.run)?;
        let project = self.projects.get(&attempt.project)?;
        Some(Case { attempt, run, project })
    }

    fn wait_for_people(&self, case: &Case<'_>, waits: &mut Vec<Wait>) {
        if self.fleet.frozen.is_some() {
            waits.push(Wait::new(WaitReason::Frozen));
        }
        // A pause stops the schedule, not people; and what has begun goes on.
        let begun = case.run.state != RunState::Queued;
        if case.project.record.paused.is_some() && !case.run.by_person && !begun {
            waits.push(Wait::new(WaitReason::Paused));
        }
        if case.project.record.archived.is_some() && !case.run.by_person && !begun {
            waits.push(Wait::new(WaitReason::Archived));
        }
    }

    fn wait_for_time(&self, now: Now, case: &Case<'_>, waits: &mut Vec<Wait>) {
        if let Some(at) = self.ready_at.get(&case.attempt.id).filter(|at| **at > now.mono) {
            waits.push(Wait::until(WaitReason::Backoff, *at));
        }
    }

    fn wait_for_agent(&self, case: &Case<'_>, waits: &mut Vec<Wait>) {
        let agent = case.attempt.agent;
        let Some(session) = self.sessions.get(&agent) else {
            waits.push(Wait::by(WaitReason::AgentAway, Blocker::Agent(agent)));
            return;
        };
        if self.agents.get(&agent).is_some_and(|record| record.draining) {
            waits.push(Wait::by(WaitReason::AgentDraining, Blocker::Agent(agent)));
        }
        let root = case.attempt.destination.root();
        let known = session.facts.roots.iter().find(|known| known.name == root);
        if known.is_none() {
            waits.push(Wait::by(WaitReason::NoSuchRoot, Blocker::Volume(agent, root.to_owned())));
        }
        // What only looks, and what first makes room, need not wait for room.
        let grows = !case.run.wish.dry_run && !case.run.wish.reclaim;
        if grows && known.is_some_and(|known| known.is_short(&self.limits)) {
            waits.push(Wait::by(WaitReason::DiskSpace, Blocker::Volume(agent, root.to_owned())));
        }
        if count(&self.usage.agents, &agent) >= self.running_max(agent) {
            waits.push(self.slots_wait(WaitReason::AgentSlots, self.usage.agents.get(&agent)));
        }
        let volume = (agent, root.to_owned());
        if count(&self.usage.volumes, &volume) >= self.limits.volume_slots {
            waits.push(self.slots_wait(WaitReason::VolumeSlots, self.usage.volumes.get(&volume)));
        }
        if case.attempt.first_sync && count(&self.usage.first_syncs, &volume) >= self.limits.first_syncs {
            waits.push(self.slots_wait(WaitReason::FirstSync, self.usage.first_syncs.get(&volume)));
        }
    }

    fn wait_as_origin(&self, now: Now, case: &Case<'_>, waits: &mut Vec<Wait>) {
        if case.run.state == RunState::Queued {
            self.wait_for_active_run(now, case, waits);
        } else if self.is_worked_on(case.attempt.project, case.attempt.agent) {
            // Between two tries, with no coordinator, the agent began a run by itself.
            waits.push(Wait::new(WaitReason::RunActive));
        }
        if !case.run.by_person {
            self.wait_for_window(now, case, waits);
        }
        if let Some(host) = host_of(case.attempt) {
            self.wait_for_host(now, host, waits);
        }
    }

    fn wait_for_host(&self, now: Now, host: &str, waits: &mut Vec<Wait>) {
        let taken = self.usage.hosts.get(host);
        if taken.map_or(0, BTreeSet::len) >= usize::try_from(self.upstream_slots(host)).unwrap_or(usize::MAX)
        {
            let mut wait = self.slots_wait(WaitReason::UpstreamSlots, taken);
            wait.blockers.insert(0, Blocker::Host(host.to_owned()));
            wait.blockers.truncate(BLOCKERS_MAX);
            waits.push(wait);
        }
        let Some(state) = self.hosts.get(host) else { return };
        let next = state.last_start.map(|last| last.plus(self.upstream_spacing(host)));
        if let Some(next) = next.filter(|next| *next > now.mono) {
            waits.push(Wait::at_host(WaitReason::UpstreamSpacing, next, host));
        }
        if let Some(breaker) = state.breaker.as_ref().filter(|breaker| breaker.until > now.mono) {
            let mut wait = Wait::at_host(WaitReason::UpstreamBreaker, breaker.until, host);
            let probe = breaker.probe.and_then(|probe| self.attempts.get(&probe));
            wait.blockers.extend(probe.map(|probe| Blocker::Project(probe.project, probe.agent)));
            waits.push(wait);
        }
    }

    /// The schedule's windows hold for what nobody asked for; what runs when one closes goes on.
    fn wait_for_window(&self, now: Now, case: &Case<'_>, waits: &mut Vec<Wait>) {
        if let Some(opening) = opening(now, case) {
            waits.push(Wait::until(WaitReason::OutsideWindow, now.mono.plus(opening.since(now.wall))));
        }
    }

    /// One run of a project after the other. A run that only propagates holds up the next one for at most
    /// the drain timeout.
    fn wait_for_active_run(&self, now: Now, case: &Case<'_>, waits: &mut Vec<Wait>) {
        // What agents began alone has ids by their own clocks; so what has begun counts, whichever is older.
        let before = |run: &&RunRecord| run.id < case.run.id || run.state != RunState::Queued;
        let others = case.project.runs.iter().filter(|run| **run != case.run.id);
        let others = others.filter_map(|run| self.runs.get(run)).filter(before);
        for run in others.filter(|run| !run.state.is_closed() && !run.wish.is_aside()) {
            let Some(since) = self.propagating_since.get(&run.id) else {
                waits.push(Wait::new(WaitReason::RunActive));
                return;
            };
            if case.run.wish.dry_run {
                // It changes nothing that replicas could be pulling.
                continue;
            }
            let timeout = case.project.record.spec.placement.drain_timeout.unwrap_or(defaults::DRAIN_TIMEOUT);
            let until = since.plus(timeout);
            if until > now.mono && self.usage.replicas.contains_key(&case.attempt.project) {
                waits.push(Wait::until(WaitReason::ReplicasPulling, until));
            } else if until > now.mono {
                waits.push(Wait::until(WaitReason::RunActive, until));
            }
        }
    }

    fn wait_as_replica(&self, now: Now, case: &Case<'_>, waits: &mut Vec<Wait>) {
        self.wait_for_source(self.source(now, case.project, case.attempt), waits);
        let max = case.project.record.spec.placement.max_parallel;
        if max > 0 && count(&self.usage.replicas, &case.attempt.project) >= max {
            waits.push(
                self.slots_wait(WaitReason::MaxParallel, self.usage.replicas.get(&case.attempt.project)),
            );
        }
    }

    /// For the agent to pull from, and for room at it.
    fn wait_for_source(&self, source: Result<Source, Wait>, waits: &mut Vec<Wait>) {
        match source {
            Ok(source) if count(&self.usage.sources, &source.agent) >= self.serving_max(source.agent) => {
                waits.push(Wait::by(WaitReason::OriginUplink, Blocker::Agent(source.agent)));
            }
            Ok(_) => {}
            Err(wait) => waits.push(wait),
        }
    }

    fn slots_wait(&self, reason: WaitReason, taken: Option<&BTreeSet<AttemptId>>) -> Wait {
        let attempts = taken.into_iter().flatten().filter_map(|id| self.attempts.get(id));
        let blockers = attempts.map(|attempt| Blocker::Project(attempt.project, attempt.agent));
        Wait { reason, until: None, blockers: blockers.take(BLOCKERS_MAX).collect() }
    }

    /// Looks on through the line and offers the first attempt that may start.
    pub(super) fn scan(&self, now: Now, from: AttemptId) -> Decision {
        let mut wake: Option<Mono> = None;
        let mut first_opening: Option<Wall> = None;
        let mut line = self.pending.range(from..);
        for _ in 0..SCAN_STEPS_MAX {
            let Some(id) = line.next() else {
                return scanned(None, wake, first_opening);
            };
            let Some(attempt) = self.attempts.get(id) else { continue };
            let waits = self.waits(now, attempt);
            if waits.is_empty() {
                let mut effects = Effects::of(self);
                // Before the offer: what that frees asks for a look through the whole line again.
                effects.change(Change::Volatile(Volatile::Scanned {
                    next: line.next().copied(),
                    wake,
                    opening: first_opening,
                }));
                self.offer(now, attempt, &mut effects);
                return effects.decision();
            }
            if let Some(moved) = self.passes_by(now, attempt, &waits) {
                let mut effects = Effects::of(self);
                effects.change(Change::Volatile(Volatile::Scanned {
                    next: Some(*id),
                    wake,
                    opening: first_opening,
                }));
                effects.put(Record::Attempt(moved));
                return effects.decision();
            }
            let clears = waits.iter().filter_map(|wait| wait.until).max();
            wake = [wake, clears].into_iter().flatten().min();
            if waits.iter().any(|wait| wait.reason == WaitReason::OutsideWindow) {
                let opening = self.case(attempt).and_then(|case| opening(now, &case));
                first_opening = [first_opening, opening].into_iter().flatten().min();
            }
        }
        scanned(line.next().copied(), wake, first_opening)
    }

    fn offer(&self, now: Now, attempt: &AttemptRecord, effects: &mut Effects<'_>) {
        let Some(case) = self.case(attempt) else { return };
        if case.is_local() {
            return self.take_local(now, &case, effects);
        }
        if self.is_hopeless_reseed(attempt) {
            self.move_attempt(now, attempt, AttemptEvent::Cancel, effects);
            return;
        }
        let Case { run, project, .. } = case;
        let Some(session) = self.sessions.get(&attempt.agent) else { return };
        let Some(placement) = project.placements.get(&attempt.agent) else { return };
        let epoch = self.next_epoch();
        let Ok(state) = attempt.state.on(AttemptEvent::Offer(epoch), now.wall) else { return };
        // A run that has begun keeps what it was allowed.
        let queued = run.state == RunState::Queued;
        let wish = if queued { run.wish.clone().valid_at(now.wall) } else { run.wish.clone() };
        let run = &RunRecord { wish, ..run.clone() };
        let max_delete = Self::max_delete(now, run, project, placement);
        let Ok(source) = self.source_of(now, &case) else { return };
        let from = source.as_ref().map(|source| source.agent);
        let tree = self.tree_offered(project, attempt);
        let mut offered = AttemptRecord { state, max_delete, source: from, tree, ..attempt.clone() };
        let offer = Offer {
            waived: Self::waived(now, run, placement),
            ..self.assignment(&offered, epoch, run, project, placement, source)
        };
        offered.spec_hash = offer.spec_hash();
        effects.put(Record::Attempt(offered));
        match &run.wish.moves {
            Some(way) => self.begin_move(placement, way, effects),
            None if run.wish.dry_run => {}
            None => self.mix_replicas(project, attempt.agent, effects),
        }
        if run.state == RunState::Queued {
            self.begin_run(now, run, project, effects);
        }
        let message = Message::Offer(Box::new(offer));
        effects.send(Send { agent: attempt.agent, session: session.epoch, message });
    }

    /// Where an attempt pulls from now, if it is from another agent.
    fn source_of(&self, now: Now, case: &Case<'_>) -> Result<Option<Source>, Wait> {
        match (case.attempt.role, case.run.wish.reseed_from) {
            (Role::Origin | Role::Replica, _) if case.run.wish.moves.is_some() => Ok(None),
            (Role::Origin | Role::Replica, Some(donor)) => {
                self.donor_source(now, case.attempt, donor).map(Some)
            }
            (Role::Origin, None) => Ok(None),
            (Role::Replica, None) => self.source(now, case.project, case.attempt).map(Some),
        }
    }

    /// The tree on this agent begins to change: what replicas are pulling from it meanwhile is no version. What this
    /// decision has ended already stays ended.
    pub(super) fn mix_replicas(&self, project: &Project, source: AgentUid, effects: &mut Effects<'_>) {
        let uid = project.record.uid;
        for pulling in self.attempts_of_project(uid).filter(|one| one.source == Some(source)) {
            let left = effects.attempt(uid, pulling.id).filter(|one| one.state.is_out());
            if let Some(pulling) = left {
                effects.put(Record::Attempt(AttemptRecord { mixed: true, ..pulling }));
            }
        }
    }

    /// The tree that people put on the origin becomes the run's version as it is: there is nothing to pull, so the
    /// attempt that stood in line for it goes without a trace, and the replicas begin.
    fn take_local(&self, now: Now, case: &Case<'_>, effects: &mut Effects<'_>) {
        let Case { attempt, run, project } = case;
        effects.delete(Key::Attempt(attempt.project, attempt.id));
        if run.wish.dry_run {
            // Nothing would be pulled, so nothing would change.
            let begun = RunRecord { start_time: Some(now.wall), ..RunRecord::clone(run) };
            return self.close_run(now, begun, RunState::Succeeded, effects);
        }
        self.mix_replicas(project, attempt.agent, effects);
        if run.state == RunState::Queued {
            let wish = run.wish.clone().valid_at(now.wall);
            self.begin_run(now, &RunRecord { wish, ..RunRecord::clone(run) }, project, effects);
        }
        if let Some(begun) = effects.run(run.project, run.id) {
            let outcome = Outcome { time: now.wall, ..Outcome::of_class(ExitClass::Ok) };
            self.new_tree(now, project, begun, attempt, &outcome, effects);
        }
    }

    /// A queued run becomes the active one: it takes all triggers so far, and what still propagated closes. What makes
    /// no tree does neither. What a person allowed it too long ago is allowed no more.
    fn begin_run(&self, now: Now, run: &RunRecord, project: &Project, effects: &mut Effects<'_>) {
        let run = &RunRecord { wish: run.wish.clone().valid_at(now.wall), ..run.clone() };
        if !run.wish.makes_tree() {
            let begun = RunRecord { state: RunState::Running, start_time: Some(now.wall), ..run.clone() };
            return effects.put(Record::Run(begun));
        }
        let mut state = project.state.clone();
        state.taken = state.wanted;
        let begun = RunRecord {
            state: RunState::Running,
            generation: state.wanted,
            start_time: Some(now.wall),
            ..run.clone()
        };
        effects.put(Record::ProjectState(state));
        effects.put(Record::Run(begun));
        let others = project.runs.iter().filter(|other| **other != run.id);
        for still in others
            .filter_map(|other| self.runs.get(other))
            .filter(|other| other.state == RunState::Propagating)
        {
            self.close_propagation(now, still, effects);
        }
    }

    pub(super) fn assignment(
        &self,
        attempt: &AttemptRecord,
        epoch: crate::id::Epoch,
        run: &RunRecord,
        project: &Project,
        placement: &PlacementRecord,
        source: Option<Source>,
    ) -> Offer {
        let spec = &project.record.spec;
        let upstream = project.asked(attempt).filter(|_| run.wish.moves.is_none());
        let marker = self.marker_check(project, attempt, run).filter(|_| source.is_none());
        let (source_uri, user, sealed_password, pair) = match source {
            Some(source) => (source.uri, String::new(), Vec::new(), source.pair),
            None => upstream.map_or_else(Default::default, |upstream| {
                (upstream.uri.clone(), upstream.user.clone(), upstream.sealed_password.clone(), None)
            }),
        };
        // A tree's first copy may take days; a limit that a person set holds for it all the same.
        let default_limit = (!attempt.first_sync).then_some(defaults::RUN_TIMEOUT);
        Offer {
            attempt: attempt.id,
            epoch,
            project: attempt.project,
            project_name: project.record.name.clone(),
            role: attempt.role,
            source_uri,
            user,
            sealed_password,
            destination: attempt.destination.clone(),
            options: spec.rsync.words(),
            no_defaults: spec.rsync.replaces_defaults(),
            max_delete: attempt.max_delete,
            connect_timeout: spec.rsync.connect_timeout.unwrap_or(defaults::CONNECT_TIMEOUT),
            io_timeout: spec.rsync.io_timeout.unwrap_or(defaults::IO_TIMEOUT),
            stall_timeout: spec.rsync.stall_timeout.unwrap_or(defaults::STALL_TIMEOUT),
            run_timeout: spec.rsync.run_timeout.or(default_limit),
            bandwidth_limit_kib: self.bandwidth_on(attempt.agent, spec.rsync.bandwidth_limit_kib),
            tree: attempt.tree,
            dry_run: run.wish.dry_run,
            reclaim: run.wish.reclaim,
            sentinels: spec.guard.sentinels.clone(),
            first_sync: attempt.first_sync,
            waived: Vec::new(),
            marker,
            quota_bytes: spec.guard.quota_bytes,
            known_files: placement.files,
            known_bytes: placement.size_bytes,
            keep_extra: run.wish.is_aside(),
            move_from: run.wish.moves.as_ref().map(|_| placement.destination.clone()),
            link: spec.link.clone(),
            pair,
            traceparent: run.traceparent.clone(),
        }
    }
}

fn scanned(next: Option<AttemptId>, wake: Option<Mono>, opening: Option<Wall>) -> Decision {
    let changes = vec![Change::Volatile(Volatile::Scanned { next, wake, opening })];
    Decision { changes, ..Decision::nothing() }
}

/// When the next window opens for an attempt that is outside of all; `None`: it is inside, or there are none.
fn opening(now: Now, case: &Case<'_>) -> Option<Wall> {
    let schedule = &case.project.record.spec.schedule;
    let at = now.wall.to_utc();
    if schedule.is_open(at) {
        return None;
    }
    // None within two weeks: it is looked for again after a day.
    let next = schedule.next_opening(at).map_or_else(|| now.wall.plus(OPENING_LOOK), Wall::from);
    Some(next.max(now.wall.plus(Duration::from_millis(1))))
}

/// The delete limit by what was declared, or by the size of the tree.
pub(super) fn allowed_deletes(project: &Project, placement: &PlacementRecord) -> u64 {
    let files = placement.files;
    let by_size = if files == 0 {
        defaults::MAX_DELETE_FLOOR
    } else {
        (files / 10).max(defaults::MAX_DELETE_FLOOR).min(files / 2)
    };
    project.record.spec.guard.max_delete.unwrap_or(by_size)
}

impl Project {
    /// The placement that pulls from the upstream.
    #[must_use]
    pub fn origin(&self) -> Option<&PlacementRecord> {
        self.placements.values().find(|placement| placement.role == Role::Origin)
    }
}

impl Offer {
    /// Identifies what is asked, apart from key and secrets: FNV-1a over every field, 16 hex digits. Agents
    /// echo it, so that an adopted attempt can be told from one of another project definition. Not a
    /// defence: it meets no adversary.
    #[must_use]
    pub fn spec_hash(&self) -> String {
        let text = format!(
            "{:?}",
            (
                (self.project, self.role, &self.source_uri, &self.user, &self.destination, &self.options),
                (self.no_defaults, self.max_delete, self.connect_timeout, self.io_timeout),
                (self.stall_timeout, self.run_timeout, self.bandwidth_limit_kib, self.tree),
                (self.dry_run, self.reclaim, &self.sentinels, self.first_sync, &self.waived),
                (self.quota_bytes, self.known_files, self.known_bytes, self.keep_extra),
                (&self.move_from, &self.link, &self.marker),
            )
        );
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }
}

/// How long from `now` until `at`; zero when it has passed.
pub(super) fn remaining(now: Now, at: Mono) -> Duration {
    at.since(now.mono)
}
