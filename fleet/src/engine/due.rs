//! What time brings: fires, ends of pauses, timers; and what is left to do by the state alone: replicas with
//! work, runs that can close, attempts that may start. Each `Tick` does one of these, so that each is a
//! commit unit of its own and small; the driver repeats it until nothing is due.

use std::{sync::Arc, time::Duration};

use super::{
    effects::Effects,
    state::{Engine, LINE_START, Project},
    timers::Timer,
};
use crate::{
    attempt::{AttemptRecord, AttemptState, Role},
    defaults,
    id::{AgentUid, AttemptId, ProjectUid, RunId},
    input::{CloseReason, Decision, Message, Send},
    project::{LastRun, NextFire, ProjectRecord, ProjectState},
    record::{Change, Record, Volatile},
    run::{Missed, RunRecord, RunState, Trigger, TriggerKind, Wish},
    schedule::{Cadence, IntervalFrom, OverlapPolicy},
    standing::{catch_up_window, fire_after, fire_to_catch_up, jittered},
    time::{Now, Wall},
};

/// Steps of a plan between two looks at the attempts that wait.
const LOOK_STEPS: u32 = 64;

impl Engine {
    /// While a plan is carried out, what is due takes turns with its steps.
    pub(super) fn tick(&self, now: Now) -> Decision {
        let Some(step) = self.step_due() else {
            return self.due(now).or_else(|| self.look(now)).unwrap_or_else(Decision::nothing);
        };
        if self.plans.is_others_turn() {
            if let Some(mut due) = self.due(now) {
                due.changes.push(Change::Volatile(Volatile::TookTurn));
                return due;
            }
            // Each step has the line looked through anew. A look that was begun goes on to the end of the line.
            let look = step.number.is_multiple_of(LOOK_STEPS).then(|| self.look(now)).flatten();
            if let Some(look) = look {
                return look;
            }
        }
        self.plan_step(now, step)
    }

    /// The first thing that is due, apart from the attempts that wait.
    fn due(&self, now: Now) -> Option<Decision> {
        if let Some(&(_, project)) = self.fires.first().filter(|(at, _)| *at <= now.wall) {
            return Some(self.fire(now, project));
        }
        if let Some(&(_, project)) = self.pause_ends.first().filter(|(at, _)| *at <= now.wall) {
            return Some(self.end_pause(now, project));
        }
        if let Some((_, timer)) = self.timers.first().filter(|(at, _)| *at <= now.mono) {
            return Some(self.timer(now, timer));
        }
        if let Some(&run) = self.close_checks.first() {
            return Some(self.check_close(now, run));
        }
        if let Some(&(project, agent)) = self.homes_due.first() {
            return Some(self.place(project, agent));
        }
        if let Some((agent, project)) = self.exports.due(now.wall.day()) {
            return Some(self.tell_exports(now, agent, project));
        }
        if let Some(&(project, _, agent)) = self.idle_replicas.first() {
            return Some(self.start_replica(project, agent));
        }
        if let Some((agent, only)) = self.autonomy.due() {
            return Some(self.tell_standing_orders(agent, only));
        }
        // After the exports and the placements: what they say of the tree's place is known then.
        self.trash.due().map(|(agent, project)| self.look_at_trash(now, agent, project))
    }

    /// A look at the attempts that wait, where one of them may start.
    fn look(&self, now: Now) -> Option<Decision> {
        if self.pending.is_empty() {
            return None;
        }
        if let Some(from) = self.scan_from {
            return Some(self.scan(now, from));
        }
        let opens = self.openings.is_some_and(|(looked, at)| now.wall < looked || at <= now.wall);
        let wakes = self.scan_wake.is_some_and(|wake| wake <= now.mono);
        (wakes || opens).then(|| self.scan(now, LINE_START))
    }

    /// A project's schedule fires: at most once for each scheduled time, because the next time is stored in
    /// the same commit as the run.
    fn fire(&self, now: Now, uid: ProjectUid) -> Decision {
        let mut effects = Effects::of(self);
        let Some(project) = self.projects.get(&uid) else { return Decision::nothing() };
        let Some(fire) = project.state.next_fire else { return Decision::nothing() };
        let schedule = &project.record.spec.schedule;
        let mut state = project.state.clone();
        let late = now.wall.since(fire.at);
        if late > defaults::FIRE_LATE && !fire.spread && !self.limits.catch_up_spread.is_zero() {
            // The coordinator was away. What was missed starts once, and not all projects at the same time.
            let spread = u64::try_from(self.limits.catch_up_spread.as_millis()).unwrap_or(u64::MAX);
            let at = now.wall.plus(Duration::from_millis(now.below(spread)));
            state.next_fire = Some(NextFire { at, spread: true, ..fire });
            effects.put(Record::ProjectState(state));
            return effects.decision();
        }
        let window = catch_up_window(schedule, fire.scheduled);
        let caught = fire_to_catch_up(schedule, fire.scheduled, now.wall);
        let goes = |run: &RunRecord| !run.state.is_closed() && run.wish.makes_tree();
        let busy = project.runs.iter().any(|run| self.runs.get(run).is_some_and(goes));
        if now.wall.since(caught) > window.saturating_add(self.limits.catch_up_spread) {
            state.missed_fires += 1;
        } else if busy && schedule.overlap_policy == OverlapPolicy::Skip {
            state.skipped_fires += 1;
        } else {
            let trigger = Trigger::schedule(caught);
            effects.put(Record::ProjectState(state));
            self.trigger(now, project, trigger, Wish::default(), String::new(), &mut effects);
            let Some(triggered) = effects.project_state(uid) else { return Decision::nothing() };
            state = triggered;
        }
        state.next_fire = following_fire(&project.record, now);
        effects.put(Record::ProjectState(state));
        effects.decision()
    }

    /// One more run is wanted: a new one, or the one that is already waiting. Returns it and whether it was
    /// waiting. Nothing is ever dropped here: this is the only place where triggers become runs. A dry run is
    /// asked for beside them: it counts as no trigger, and no trigger joins it.
    pub(super) fn trigger(
        &self,
        now: Now,
        project: &Project,
        trigger: Trigger,
        wish: Wish,
        traceparent: String,
        effects: &mut Effects<'_>,
    ) -> Option<(RunId, bool)> {
        let uid = project.record.uid;
        let by_person = trigger.kind == TriggerKind::User;
        if !wish.dry_run {
            let mut state = effects.project_state(uid)?;
            state.wanted += 1;
            effects.put(Record::ProjectState(state));
        }
        if let Some(run) = self.waiting_run(project).filter(|_| wish.makes_tree()) {
            // Only runs that nothing but the schedule wanted are called the schedule's.
            let first = run.trigger.kind != TriggerKind::Schedule
                || matches!(trigger.kind, TriggerKind::Schedule | TriggerKind::User);
            let joined = RunRecord {
                trigger: if first { run.trigger.clone() } else { trigger },
                coalesced: run.coalesced + 1,
                by_person: run.by_person || by_person,
                wish: run.wish.clone().joined_by(wish, now.wall),
                ..run.clone()
            };
            let freed = (by_person && !run.by_person) || joined.wish.reclaim != run.wish.reclaim;
            effects.put(Record::Run(joined));
            if freed {
                // What waited for the end of a pause, or for room, may start now: its attempt is put again so that it
                // is asked.
                let id = AttemptId { run: run.id, number: run.origin_attempt };
                if let Some(attempt) = self.attempts.get(&id) {
                    effects.put(Record::Attempt(attempt.clone()));
                }
            }
            return Some((run.id, true));
        }
        let id = RunId::mint(now.wall.0, now.entropy, effects.newest_run());
        let origin = project.origin()?;
        let run = RunRecord::queued(id, uid, trigger, now.wall);
        effects.put(Record::Run(RunRecord { by_person, traceparent, wish, ..run }));
        effects.put(Record::Attempt(self.new_attempt(project, origin.agent, id, 1, id, 1, Duration::ZERO)));
        Some((id, false))
    }

    /// The run that triggers join: it makes a tree, and has not begun.
    pub(super) fn waiting_run(&self, project: &Project) -> Option<&RunRecord> {
        let runs = project.runs.iter().filter_map(|id| self.runs.get(id));
        runs.into_iter().find(|run| run.state == RunState::Queued && run.wish.makes_tree())
    }

    /// A try that waits for admission.
    #[expect(clippy::too_many_arguments, reason = "each is a different fact of one new record")]
    pub(super) fn new_attempt(
        &self,
        project: &Project,
        agent: AgentUid,
        run: RunId,
        number: u32,
        tree: RunId,
        attempt_try: u32,
        delay: Duration,
    ) -> AttemptRecord {
        let placement = project.placements.get(&agent);
        let role = placement.map_or(Role::Origin, |placement| placement.role);
        let upstream = project.upstream().filter(|_| role == Role::Origin);
        AttemptRecord {
            id: AttemptId { run, number },
            project: project.record.uid,
            agent,
            role,
            destination: placement.map_or_else(
                || project.record.spec.destination.clone(),
                |placement| placement.destination.clone(),
            ),
            upstream_host: upstream.map_or_else(String::new, |upstream| upstream.host.clone()),
            upstream_uri: upstream.map_or_else(String::new, |upstream| upstream.uri.clone()),
            fell_back: String::new(),
            tree,
            attempt_try,
            first_sync: placement.is_none_or(|placement| placement.have_tree.is_none()),
            mixed: false,
            max_delete: 0,
            source: None,
            spec_hash: String::new(),
            state: AttemptState::Pending { delay },
        }
    }

    fn end_pause(&self, now: Now, uid: ProjectUid) -> Decision {
        let Some(project) = self.projects.get(&uid) else { return Decision::nothing() };
        let mut effects = Effects::of(self);
        self.resume_project(now, project, &mut effects);
        effects.decision()
    }

    /// Ends a pause; the schedule goes on from now.
    pub(super) fn resume_project(&self, now: Now, project: &Project, effects: &mut Effects<'_>) {
        let record = ProjectRecord {
            paused: None,
            revision: project.record.revision + 1,
            update_time: now.wall,
            ..(*project.record).clone()
        };
        effects.put(Record::Project(Arc::new(record)));
    }

    fn timer(&self, now: Now, timer: Timer) -> Decision {
        let mut effects = Effects::of(self);
        effects.change(Change::Volatile(Volatile::TimerDone(timer)));
        match timer {
            Timer::Offer(attempt, epoch) => {
                let unanswered = self.attempts.get(&attempt).filter(|attempt| {
                    matches!(attempt.state, AttemptState::Offered { epoch: current, .. } if current == epoch)
                });
                let session = unanswered.and_then(|attempt| self.sessions.get_key_value(&attempt.agent));
                if let Some((&agent, session)) = session {
                    effects.change(Change::Volatile(Volatile::SessionClosed(agent, session.epoch)));
                    let message = Message::Close(CloseReason::OfferUnanswered);
                    effects.send(Send { agent, session: session.epoch, message });
                }
            }
            Timer::Away(agent) => effects.change(Change::Volatile(Volatile::GivenUp(agent))),
            Timer::Propagation(run) => {
                if let Some(run) = self.runs.get(&run).filter(|run| run.state == RunState::Propagating) {
                    self.close_propagation(now, run, &mut effects);
                }
            }
        }
        effects.decision()
    }

    /// A replica that has work, is here, and does nothing: it gets an attempt, in the run that made the tree.
    fn start_replica(&self, uid: ProjectUid, agent: AgentUid) -> Decision {
        let mut effects = Effects::of(self);
        let Some(project) = self.projects.get(&uid) else { return Decision::nothing() };
        let Some(run) = project.state.tree.and_then(|tree| self.runs.get(&tree)) else {
            return Decision::nothing();
        };
        let number = run.attempts + 1;
        let attempt = self.new_attempt(project, agent, run.id, number, run.id, 1, Duration::ZERO);
        effects.put(Record::Run(RunRecord { attempts: number, ..run.clone() }));
        effects.put(Record::Attempt(attempt));
        effects.decision()
    }

    /// Closes a propagating run once nothing connected is left to do for it.
    fn check_close(&self, now: Now, id: RunId) -> Decision {
        let mut effects = Effects::of(self);
        effects.change(Change::Volatile(Volatile::CloseChecked(id)));
        if let Some(run) = self.runs.get(&id).filter(|run| run.state == RunState::Propagating) {
            let project = self.projects.get(&run.project);
            let waits = project.is_some_and(|project| {
                project.placements.keys().any(|agent| self.run_waits_for(project, run, *agent))
            });
            if !waits {
                self.close_propagation(now, run, &mut effects);
            }
        }
        effects.decision()
    }

    /// Whether a propagating run is not to close before this replica is done: it works, or is here and will.
    fn run_waits_for(&self, project: &Project, run: &RunRecord, agent: AgentUid) -> bool {
        let Some(placement) = project.placements.get(&agent) else { return false };
        if placement.role == Role::Origin || project.state.tree != Some(run.id) {
            return false;
        }
        let here = self.sessions.contains_key(&agent);
        match self.attempt_on(run.project, agent) {
            Some(attempt) if attempt.state.is_out() => !self.given_up.contains(&agent),
            Some(_) => here,
            None => here && placement.has_work(project.state.tree),
        }
    }

    /// Closes a run whose origin is done. Replicas that do not have its tree are `missed`, and catch up.
    pub(super) fn close_propagation(&self, now: Now, run: &RunRecord, effects: &mut Effects<'_>) {
        let Some(project) = self.projects.get(&run.project) else { return };
        let mut closed = effects.run(run.project, run.id).unwrap_or_else(|| run.clone());
        let lacking = project.placements.values().filter(|placement| {
            placement.role == Role::Replica
                && placement.have_tree != Some(run.id)
                && placement.gave_up_on != Some(run.id)
        });
        closed.missed = lacking.map(|placement| Missed { agent: placement.agent, caught_up: None }).collect();
        let state = if closed.replica_failed { RunState::Failed } else { RunState::Succeeded };
        self.close_run(now, closed, state, effects);
    }

    /// The one place where runs close.
    pub(super) fn close_run(&self, now: Now, run: RunRecord, state: RunState, effects: &mut Effects<'_>) {
        let (project, id, makes_tree) = (run.project, run.id, run.wish.makes_tree());
        effects.put(Record::Run(RunRecord { state, end_time: Some(now.wall), ..run }));
        // What makes no tree says nothing of it, and no interval counts from it.
        let Some(mut counters) = effects.project_state(project).filter(|_| makes_tree) else { return };
        counters.last_run = Some(LastRun { run: id, state, end: now.wall });
        let owner = self.projects.get(&project);
        if let Some(at) = owner.and_then(|owner| fire_after_end(&owner.record, now.wall)) {
            counters.next_fire = Some(NextFire { scheduled: at, at, spread: false });
        }
        effects.put(Record::ProjectState(counters));
    }
}

/// The fire after the one that happens now, with its jitter drawn.
pub(super) fn following_fire(record: &ProjectRecord, now: Now) -> Option<NextFire> {
    let schedule = &record.spec.schedule;
    match &schedule.cadence {
        Cadence::Interval { from: IntervalFrom::End, .. } => None,
        Cadence::Interval { from: IntervalFrom::Start, .. } | Cadence::Cron(_) | Cadence::Manual => {
            next_fire(record, now)
        }
    }
}

/// The fire after now, whatever the cadence counts from; `None`: manual, exhausted or archived.
pub(super) fn next_fire(record: &ProjectRecord, now: Now) -> Option<NextFire> {
    if record.archived.is_some() {
        return None;
    }
    fire_after(&record.spec.schedule, now.wall, now)
}

/// The first fire of a schedule that is new or was changed; `None`: as of [`next_fire`].
pub(super) fn first_fire(record: &ProjectRecord, now: Now) -> Option<NextFire> {
    let schedule = &record.spec.schedule;
    if record.archived.is_some() {
        return None;
    }
    jittered(schedule, schedule.first_of_all(now.wall.to_utc())?.into(), now)
}

/// When an interval that counts from the end of a run fires next, now that one has ended.
fn fire_after_end(record: &ProjectRecord, now: Wall) -> Option<Wall> {
    let schedule = &record.spec.schedule;
    match &schedule.cadence {
        Cadence::Interval { from: IntervalFrom::End, .. } if record.archived.is_none() => {
            schedule.next_after(now.to_utc()).map(Wall::from)
        }
        Cadence::Interval { .. } | Cadence::Cron(_) | Cadence::Manual => None,
    }
}

impl ProjectState {
    /// This state with a new next fire.
    #[must_use]
    pub fn with_fire(self, next_fire: Option<NextFire>) -> Self {
        Self { next_fire, ..self }
    }
}
