//! Admission: one function over all limits says who may start, or what it waits for. The same function
//! answers `mirrorctl why`, so what is shown is what is done; a reason is computed when it is asked for and
//! can therefore never be stale.

use std::time::Duration;

use super::{
    effects::Effects,
    state::{Engine, Project},
    usage::count,
};
use crate::{
    attempt::{AttemptEvent, AttemptRecord, Role},
    defaults,
    id::{AgentUid, AttemptId, ProjectUid},
    input::{Decision, Message, Offer, Send},
    placement::PlacementRecord,
    record::{Change, Record, Volatile},
    run::{RunRecord, RunState},
    time::{Mono, Now},
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
    fn new(reason: WaitReason) -> Self {
        Self { reason, until: None, blockers: Vec::new() }
    }

    fn by(reason: WaitReason, blocker: Blocker) -> Self {
        Self { reason, until: None, blockers: vec![blocker] }
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

impl Engine {
    /// Why this waiting attempt may not start now; empty: it may.
    pub(super) fn waits(&self, now: Now, attempt: &AttemptRecord) -> Vec<Wait> {
        let Some(case) = self.case(attempt) else { return vec![Wait::new(WaitReason::DestinationBusy)] };
        let mut waits = Vec::new();
        self.wait_for_people(&case, &mut waits);
        self.wait_for_time(now, &case, &mut waits);
        self.wait_for_agent(&case, &mut waits);
        match attempt.role {
            Role::Origin => self.wait_as_origin(now, &case, &mut waits),
            Role::Replica => self.wait_as_replica(&case, &mut waits),
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
        if !session.facts.roots.iter().any(|known| known.name == root) {
            waits.push(Wait::by(WaitReason::NoSuchRoot, Blocker::Volume(agent, root.to_owned())));
        }
        let own = if session.facts.slots == 0 { u32::MAX } else { session.facts.slots };
        if count(&self.usage.agents, &agent) >= own.min(self.limits.agent_slots) {
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
        let host = &case.attempt.upstream_host;
        if host.is_empty() {
            return;
        }
        if count(&self.usage.hosts, host) >= self.limits.upstream_slots {
            let mut wait = self.slots_wait(WaitReason::UpstreamSlots, self.usage.hosts.get(host));
            wait.blockers.insert(0, Blocker::Host(host.clone()));
            wait.blockers.truncate(BLOCKERS_MAX);
            waits.push(wait);
        }
        if let Some(last) = self.host_starts.get(host) {
            let next = last.plus(self.limits.upstream_spacing);
            if next > now.mono {
                waits.push(Wait {
                    reason: WaitReason::UpstreamSpacing,
                    until: Some(next),
                    blockers: vec![Blocker::Host(host.clone())],
                });
            }
        }
    }

    /// One run of a project after the other. A run that only propagates holds up the next one for at most
    /// the drain timeout.
    fn wait_for_active_run(&self, now: Now, case: &Case<'_>, waits: &mut Vec<Wait>) {
        let others = case.project.runs.iter().filter(|run| **run != case.run.id);
        for run in others.filter_map(|run| self.runs.get(run)).filter(|run| !run.state.is_closed()) {
            let Some(since) = self.propagating_since.get(&run.id) else {
                waits.push(Wait::new(WaitReason::RunActive));
                return;
            };
            let timeout = case.project.record.spec.placement.drain_timeout.unwrap_or(defaults::DRAIN_TIMEOUT);
            let until = since.plus(timeout);
            if until > now.mono && self.usage.replicas.contains_key(&case.attempt.project) {
                waits.push(Wait::until(WaitReason::ReplicasPulling, until));
            } else if until > now.mono {
                waits.push(Wait::until(WaitReason::RunActive, until));
            }
        }
    }

    fn wait_as_replica(&self, case: &Case<'_>, waits: &mut Vec<Wait>) {
        let Some(origin) = case.project.origin() else {
            waits.push(Wait::new(WaitReason::OriginAway));
            return;
        };
        // A new origin serves nothing yet: pulling from it would empty the replica.
        let has_it = origin.have_tree == Some(case.attempt.tree);
        match self.sessions.get(&origin.agent) {
            None => waits.push(Wait::by(WaitReason::OriginAway, Blocker::Agent(origin.agent))),
            Some(session) if session.facts.serve_uri.is_empty() || !has_it => {
                waits.push(Wait::by(WaitReason::OriginNotServing, Blocker::Agent(origin.agent)));
            }
            Some(_) => {}
        }
        // While the origin changes its tree, what a replica pulls would be mixed.
        let of_origin = self.attempt_on(case.attempt.project, origin.agent);
        if of_origin.is_some_and(|attempt| attempt.state.is_out()) {
            waits.push(Wait::new(WaitReason::RunActive));
        }
        if self.pulling_from(origin.agent) >= self.limits.origin_uplink {
            waits.push(Wait::by(WaitReason::OriginUplink, Blocker::Agent(origin.agent)));
        }
        let max = case.project.record.spec.placement.max_parallel;
        if max > 0 && count(&self.usage.replicas, &case.attempt.project) >= max {
            waits.push(
                self.slots_wait(WaitReason::MaxParallel, self.usage.replicas.get(&case.attempt.project)),
            );
        }
    }

    /// Replicas that pull from this agent's daemon now, over all projects.
    fn pulling_from(&self, origin: AgentUid) -> u32 {
        let of_origin = |project: &ProjectUid| {
            self.projects.get(project).and_then(Project::origin).is_some_and(|o| o.agent == origin)
        };
        let pulling = self.usage.replicas.iter().filter(|(project, _)| of_origin(project));
        u32::try_from(pulling.map(|(_, set)| set.len()).sum::<usize>()).unwrap_or(u32::MAX)
    }

    fn slots_wait(&self, reason: WaitReason, taken: Option<&std::collections::BTreeSet<AttemptId>>) -> Wait {
        let attempts = taken.into_iter().flatten().filter_map(|id| self.attempts.get(id));
        let blockers = attempts.map(|attempt| Blocker::Project(attempt.project, attempt.agent));
        Wait { reason, until: None, blockers: blockers.take(BLOCKERS_MAX).collect() }
    }

    /// Looks on through the line and offers the first attempt that may start.
    pub(super) fn scan(&self, now: Now, from: AttemptId) -> Decision {
        let mut wake: Option<Mono> = None;
        let mut line = self.pending.range(from..);
        for _ in 0..SCAN_STEPS_MAX {
            let Some(id) = line.next() else {
                return scanned(None, wake);
            };
            let Some(attempt) = self.attempts.get(id) else { continue };
            let waits = self.waits(now, attempt);
            if waits.is_empty() {
                let mut effects = Effects::of(self);
                // Before the offer: what that frees asks for a look through the whole line again.
                effects.change(Change::Volatile(Volatile::Scanned { next: line.next().copied(), wake }));
                self.offer(now, attempt, &mut effects);
                return effects.decision();
            }
            let clears = waits.iter().filter_map(|wait| wait.until).max();
            wake = [wake, clears].into_iter().flatten().min();
        }
        scanned(line.next().copied(), wake)
    }

    fn offer(&self, now: Now, attempt: &AttemptRecord, effects: &mut Effects<'_>) {
        let Some(Case { run, project, .. }) = self.case(attempt) else { return };
        let Some(session) = self.sessions.get(&attempt.agent) else { return };
        let Some(placement) = project.placements.get(&attempt.agent) else { return };
        let epoch = self.next_epoch();
        let Ok(state) = attempt.state.on(AttemptEvent::Offer(epoch), now.wall) else { return };
        let max_delete = max_delete(project, placement);
        let mut offered = AttemptRecord { state, max_delete, ..attempt.clone() };
        let offer = self.assignment(&offered, epoch, run, project, placement);
        offered.spec_hash = offer.spec_hash();
        effects.put(Record::Attempt(offered));
        if attempt.role == Role::Origin {
            self.mix_replicas(project, effects);
        }
        if run.state == RunState::Queued {
            self.begin_run(now, run, project, effects);
        }
        let message = Message::Offer(Box::new(offer));
        effects.send(Send { agent: attempt.agent, session: session.epoch, message });
    }

    /// The origin begins to change its tree: what replicas are pulling meanwhile is no version.
    pub(super) fn mix_replicas(&self, project: &Project, effects: &mut Effects<'_>) {
        for agent in project.placements.keys() {
            let on_it = self.attempt_on(project.record.uid, *agent);
            if let Some(pulling) = on_it.filter(|other| other.role == Role::Replica && other.state.is_out()) {
                effects.put(Record::Attempt(AttemptRecord { mixed: true, ..pulling.clone() }));
            }
        }
    }

    /// A queued run becomes the active one: it takes all triggers so far, and what still propagated closes.
    fn begin_run(&self, now: Now, run: &RunRecord, project: &Project, effects: &mut Effects<'_>) {
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
    ) -> Offer {
        let spec = &project.record.spec;
        let upstream = spec.upstreams.first();
        let (source_uri, user, sealed_password) = match attempt.role {
            Role::Origin => upstream.map_or_else(Default::default, |upstream| {
                (upstream.uri.clone(), upstream.user.clone(), upstream.sealed_password.clone())
            }),
            Role::Replica => (self.replica_source(project), String::new(), Vec::new()),
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
            options: spec.rsync.options.clone(),
            no_defaults: spec.rsync.no_defaults,
            max_delete: attempt.max_delete,
            connect_timeout: spec.rsync.connect_timeout.unwrap_or(defaults::CONNECT_TIMEOUT),
            io_timeout: spec.rsync.io_timeout.unwrap_or(defaults::IO_TIMEOUT),
            stall_timeout: spec.rsync.stall_timeout.unwrap_or(defaults::STALL_TIMEOUT),
            run_timeout: spec.rsync.run_timeout.or(default_limit),
            bandwidth_limit_kib: spec.rsync.bandwidth_limit_kib,
            tree: attempt.tree,
            dry_run: run.wish.dry_run,
            reclaim: run.wish.reclaim,
            sentinels: spec.guard.sentinels.clone(),
            first_sync: attempt.first_sync,
            waived: run.wish.waived.clone(),
            quota_bytes: spec.guard.quota_bytes,
            known_files: placement.files,
            known_bytes: placement.size_bytes,
            pair: None,
            traceparent: run.traceparent.clone(),
        }
    }

    /// Where a replica finds its project on the origin's daemon: one module per project, named by its uid.
    fn replica_source(&self, project: &Project) -> String {
        let session = project.origin().and_then(|origin| self.sessions.get(&origin.agent));
        session.map_or_else(String::new, |session| {
            format!("{}/{}", session.facts.serve_uri.trim_end_matches('/'), project.record.uid.0)
        })
    }
}

fn scanned(next: Option<AttemptId>, wake: Option<Mono>) -> Decision {
    Decision { changes: vec![Change::Volatile(Volatile::Scanned { next, wake })], ..Decision::nothing() }
}

/// The most files the next attempt may delete. While a hold is open: none, or each fire would delete up to
/// the limit again.
pub(super) fn max_delete(project: &Project, placement: &PlacementRecord) -> u64 {
    if placement.hold.is_some() { 0 } else { allowed_deletes(project, placement) }
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
                (self.quota_bytes, self.known_files, self.known_bytes),
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
