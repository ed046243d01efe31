//! Counts which attempt states meet which inputs.

use fleet::{
    Engine,
    attempt::AttemptRecord,
    engine::Timer,
    id::{AgentUid, AttemptId},
    input::{AgentInput, Ask, Held, Input, NotTaken},
    outcome::{ExitClass, GuardKind},
    record::{Change, Record, Volatile},
    run::{RunRecord, RunState, TriggerKind},
    schedule::Cadence,
};

use crate::{
    checks,
    cover::{At, Fault, Meets},
    world::{Event, World},
};

/// Within so many of the longest commits a plan is cut, where it is.
const PLAN_COMMITS: u64 = 3;

impl World {
    pub(crate) fn count_meetings(&mut self, input: &Input) {
        match input {
            Input::Agent(input) => self.count_agent(input),
            Input::Person(person) => self.count_person(&person.ask),
            Input::Tick | Input::Sweep | Input::Start { .. } => {}
        }
    }

    pub(crate) fn count_restart(&mut self, engine: &Engine) {
        if self.checks.plans.is_cut() {
            self.cover.fault(Fault::PlanCut);
        }
        for attempt in engine.attempts() {
            self.cover.pair(Meets::Restart, At::from(&attempt.state));
        }
    }

    fn count_agent(&mut self, input: &AgentInput) {
        let (attempt, meets) = match input {
            AgentInput::Accepted { attempt, .. } => (attempt, Meets::Accepted),
            AgentInput::Refused { attempt, why: NotTaken::Busy, .. } => (attempt, Meets::RefusedBusy),
            AgentInput::Refused { attempt, why: NotTaken::Forbidden, .. } => (attempt, Meets::RefusedForGood),
            AgentInput::Refused { attempt, why: NotTaken::Stopping, .. } => (attempt, Meets::RefusedStopping),
            AgentInput::Ended { attempt, outcome, .. } => (attempt, ended_as(outcome.class)),
            AgentInput::EndedAlone { held, outcome, .. } => (&held.attempt, ended_as(outcome.class)),
            AgentInput::Hello { agent, state_id, attempts, .. } => {
                return self.count_hello(*agent, state_id, attempts);
            }
            AgentInput::Enroll { .. }
            | AgentInput::Renew { .. }
            | AgentInput::Gone { .. }
            | AgentInput::Exporting { .. }
            | AgentInput::Trash { .. }
            | AgentInput::Inventory { .. } => return,
        };
        if let Some(at) = self.where_is(*attempt) {
            self.cover.pair(meets, at);
        }
    }

    /// Where an attempt stands; what the engine does not know has ended.
    fn where_is(&self, attempt: AttemptId) -> Option<At> {
        let engine = self.coordinator.engine.as_ref()?;
        Some(engine.attempt(attempt).map_or(At::Ended, |attempt| At::from(&attempt.state)))
    }

    fn count_hello(&mut self, agent: AgentUid, state_id: &str, held: &[Held]) {
        for one in held {
            let meets = if one.ended { Meets::HelloEnded } else { Meets::HelloHolds };
            if let Some(at) = self.where_is(one.attempt) {
                self.cover.pair(meets, at);
            }
        }
        let Some(engine) = &self.coordinator.engine else { return };
        let Some(record) = engine.agent(agent) else { return };
        let same = record.state_id.is_empty() || record.state_id == state_id;
        let meets = if same { Meets::HelloLacks } else { Meets::HelloOtherState };
        let lacks = |attempt: &&AttemptRecord| {
            attempt.agent == agent && !held.iter().any(|one| one.attempt == attempt.id)
        };
        let lacking: Vec<At> =
            engine.attempts().filter(lacks).map(|attempt| At::from(&attempt.state)).collect();
        for at in lacking {
            self.cover.pair(meets, at);
        }
    }

    fn count_person(&mut self, ask: &Ask) {
        let (project, agent, run, meets) = match ask {
            Ask::CancelRun { project, run } => (Some(*project), None, Some(*run), Meets::Cancel),
            Ask::DeleteProject { project, .. } => (Some(*project), None, None, Meets::Delete),
            Ask::UpdateProject { project, .. } => (Some(*project), None, None, Meets::Update),
            Ask::RevokeAgent { agent, .. } => (None, Some(*agent), None, Meets::Revoke),
            _ => return,
        };
        let Some(engine) = &self.coordinator.engine else { return };
        let concerned = engine.attempts().filter(|attempt| {
            project.is_none_or(|project| attempt.project == project)
                && agent.is_none_or(|agent| attempt.agent == agent)
                && run.is_none_or(|run| attempt.id.run == run)
        });
        let states: Vec<At> = concerned.map(|attempt| At::from(&attempt.state)).collect();
        for at in states {
            self.cover.pair(meets, at);
        }
    }

    /// What a run that begins is beyond an ordinary one.
    fn count_wish(&mut self, attempt: &AttemptRecord) {
        let engine = self.coordinator.engine.as_ref();
        let cap = engine.and_then(|engine| engine.agent(attempt.agent)?.caps.bandwidth_limit_kib);
        let own = engine.and_then(|engine| engine.project(attempt.project));
        let own = own.map_or(0, |project| project.record.spec.rsync.bandwidth_limit_kib);
        if cap.is_some_and(|cap| own == 0 || cap < own) {
            self.cover.fault(Fault::Capped);
        }
        let engine = self.coordinator.engine.as_ref();
        let Some(wish) = engine.and_then(|engine| engine.run(attempt.id.run)).map(|run| run.wish.clone())
        else {
            return;
        };
        if wish.dry_run {
            self.cover.fault(Fault::DryRun);
        }
        if wish.reseed_from.is_some() {
            self.cover.fault(Fault::Reseed);
        }
        if wish.moves.is_some() {
            self.cover.fault(Fault::Move);
        }
        if !wish.waived.is_empty() {
            self.cover.fault(Fault::Approved);
        }
    }

    /// A plan that is recorded may be cut by the coordinator's death, before its steps are on disk or after some of them.
    pub(crate) fn count_plan(&mut self, changes: &[Change]) {
        if checks::is_left_out(changes) {
            self.cover.fault(Fault::StepLeftOut);
        }
        if checks::steps_recorded(changes) > 1 && !self.calm && self.rng.chance(self.config.meddling) {
            let soon = self.rng.between(0, PLAN_COMMITS * self.config.commit);
            self.after(soon, Event::PlanCut);
        }
    }

    /// A fire has made a run.
    fn count_fire(&mut self, run: &RunRecord) {
        let known = self.coordinator.store.run(run.project, run.id).is_some();
        let engine = self.coordinator.engine.as_ref();
        let Some(project) = engine.and_then(|engine| engine.project(run.project)).filter(|_| !known) else {
            return;
        };
        let schedule = &project.record.spec.schedule;
        let named = matches!(&schedule.cadence, Cadence::Cron(cron) if cron.named().is_some());
        let spread = schedule.phase_seconds > 0;
        if named {
            self.cover.fault(Fault::Named);
        }
        if spread {
            self.cover.fault(Fault::Spread);
        }
    }

    /// Meetings that only the decision tells of.
    pub(crate) fn count_decided(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(Record::Attempt(attempt))
                    if At::from(&attempt.state) == At::Offered && !attempt.mixed =>
                {
                    self.cover.pair(Meets::Offer, At::Pending);
                    self.count_wish(attempt);
                }
                Change::Put(Record::Run(run))
                    if run.trigger.kind == TriggerKind::Project && run.start_time.is_some() =>
                {
                    self.cover.fault(Fault::Followed);
                }
                Change::Put(Record::Run(run)) if run.trigger.kind == TriggerKind::Schedule => {
                    self.count_fire(run);
                }
                Change::Put(Record::Run(run))
                    if run.wish.moves.is_some() && run.state == RunState::Succeeded =>
                {
                    self.cover.fault(Fault::Moved);
                }
                Change::Put(Record::Attempt(attempt)) if has_shrunk(attempt) => {
                    self.cover.fault(Fault::ShrunkTree);
                }
                Change::Volatile(Volatile::TimerDone(Timer::Offer(attempt, _))) => {
                    if let Some(at) = self.where_is(*attempt) {
                        self.cover.pair(Meets::OfferTimeout, at);
                    }
                }
                Change::Volatile(Volatile::GivenUp(agent)) => {
                    let Some(engine) = &self.coordinator.engine else { return };
                    let on_it = engine.attempts().filter(|attempt| attempt.agent == *agent);
                    let states: Vec<At> = on_it.map(|attempt| At::from(&attempt.state)).collect();
                    for at in states {
                        self.cover.pair(Meets::GivenUp, at);
                    }
                }
                _ => {}
            }
        }
    }
}

fn has_shrunk(attempt: &AttemptRecord) -> bool {
    let evidence = attempt.state.end().and_then(|end| end.outcome()?.evidence.as_ref());
    evidence.is_some_and(|evidence| evidence.kind == GuardKind::Shrink)
}

fn ended_as(class: ExitClass) -> Meets {
    match class {
        ExitClass::Ok => Meets::EndedOk,
        ExitClass::MaxDelete | ExitClass::Guard => Meets::EndedHeld,
        ExitClass::Cancelled => Meets::EndedCancelled,
        _ => Meets::EndedFailed,
    }
}
