//! Counts which attempt states meet which inputs.

use fleet::{
    Engine,
    attempt::AttemptRecord,
    engine::Timer,
    id::{AgentUid, AttemptId},
    input::{AgentInput, Ask, Held, Input},
    outcome::ExitClass,
    record::{Change, Record, Volatile},
};

use crate::{
    cover::{At, Meets},
    world::World,
};

impl World {
    pub(crate) fn count_meetings(&mut self, input: &Input) {
        match input {
            Input::Agent(input) => self.count_agent(input),
            Input::Person(person) => self.count_person(&person.ask),
            Input::Tick | Input::Sweep | Input::Start { .. } => {}
        }
    }

    pub(crate) fn count_restart(&mut self, engine: &Engine) {
        for attempt in engine.attempts() {
            self.cover.pair(Meets::Restart, At::from(&attempt.state));
        }
    }

    fn count_agent(&mut self, input: &AgentInput) {
        let (attempt, meets) = match input {
            AgentInput::Accepted { attempt, .. } => (attempt, Meets::Accepted),
            AgentInput::Refused { attempt, for_good: false, .. } => (attempt, Meets::RefusedBusy),
            AgentInput::Refused { attempt, for_good: true, .. } => (attempt, Meets::RefusedForGood),
            AgentInput::Ended { attempt, outcome, .. } => (attempt, ended_as(outcome.class)),
            AgentInput::EndedAlone { held, outcome, .. } => (&held.attempt, ended_as(outcome.class)),
            AgentInput::Hello { agent, state_id, attempts, .. } => {
                return self.count_hello(*agent, state_id, attempts);
            }
            AgentInput::Enroll { .. }
            | AgentInput::Renew { .. }
            | AgentInput::Gone { .. }
            | AgentInput::Exporting { .. }
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

    /// Meetings that only the decision tells of.
    pub(crate) fn count_decided(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(Record::Attempt(attempt))
                    if At::from(&attempt.state) == At::Offered && !attempt.mixed =>
                {
                    self.cover.pair(Meets::Offer, At::Pending);
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

fn ended_as(class: ExitClass) -> Meets {
    match class {
        ExitClass::Ok => Meets::EndedOk,
        ExitClass::MaxDelete => Meets::EndedHeld,
        ExitClass::Cancelled => Meets::EndedCancelled,
        _ => Meets::EndedFailed,
    }
}
