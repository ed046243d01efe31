//! The calm end of a simulation.

use std::collections::BTreeSet;

use fleet::{
    attempt::{AttemptState, Role},
    engine::{WaitReason, Why},
    id::{AgentUid, ProjectUid},
    input::Ask,
    project::{Pick, Replicas},
    record::{Key, Record},
    run::{TriggerKind, Wish},
    schedule::{Cadence, Schedule},
};

use crate::{
    planted::Planted,
    world::{Event, World},
};

/// The agent that replicas are named by, where they are.
fn named(replicas: &Replicas) -> Option<AgentUid> {
    match &replicas.pick {
        Pick::Agent(agent) => Some(*agent),
        Pick::Labels(_) => None,
    }
}

/// How often the operator looks in the calm end, in ms.
const OPERATOR_MS: u64 = 300_000;

/// The calm end: an operator puts everything right, waits, asks for one last run of each project, and waits.
impl World {
    pub(crate) fn operator_looks(&mut self) {
        if self.people.settled {
            return;
        }
        self.after(OPERATOR_MS, Event::Operator);
        if self.coordinator.engine.is_none() || self.put_right() || !self.at_rest() {
            return;
        }
        if !self.people.last_asked {
            self.people.last_asked = true;
            for project in self.projects() {
                let kind = TriggerKind::User;
                self.ask(Ask::Run {
                    project,
                    kind,
                    wish: Wish::default(),
                    request: None,
                    traceparent: String::new(),
                });
            }
            return;
        }
        // A planted fault may swallow the answer; the end is then judged without it.
        let asked = self.projects().len() == self.people.last_runs.len() || !self.people.deeds.is_empty();
        if asked || self.planted == Some(Planted::AnswerBeforeCommit) {
            self.people.settled = self.people.deeds.is_empty();
        }
    }

    /// Whether no run and no attempt is open.
    fn at_rest(&self) -> bool {
        let now = self.still();
        let idle = self.coordinator.engine.as_ref().is_some_and(|engine| {
            // A replica may wait for the tree that the last run will make: no source has the one of before.
            engine.attempts().all(|attempt| {
                let why = engine.why(now, attempt.project);
                let of_it =
                    |why: &Why| why.attempt == attempt.id && why.wait.reason == WaitReason::OriginNotServing;
                !self.people.last_asked && attempt.role == Role::Replica && why.iter().any(of_it)
            })
        });
        let closed = self
            .projects()
            .into_iter()
            .all(|project| self.coordinator.store.live_runs(project).all(|run| run.state.is_closed()));
        let engine = self.coordinator.engine.as_ref();
        let planned = engine.is_some_and(|engine| engine.open_plan().is_some());
        idle && closed && !planned && self.all_committed() && self.people.deeds.is_empty()
    }

    /// Asks for what is not as it should be; false: nothing was left to do.
    fn put_right(&mut self) -> bool {
        let mut asks = Vec::new();
        let store = &self.coordinator.store;
        let mut revoked = BTreeSet::new();
        for record in store.live.values() {
            match record {
                Record::Fleet(fleet) if fleet.frozen.is_some() => asks.push(Ask::Thaw),
                Record::Agent(agent) if agent.revoked.is_some() => {
                    revoked.insert(agent.uid);
                }
                Record::Agent(agent)
                    if self.host_of(agent.uid).is_none_or(|host| self.hosts[host].retired) =>
                {
                    asks.push(Ask::RevokeAgent { agent: agent.uid, reason: "gone".to_owned() });
                }
                Record::Agent(agent) if agent.draining => {
                    asks.push(Ask::Drain { agent: agent.uid, draining: false });
                }
                _ => {}
            }
        }
        for project in self.projects() {
            asks.extend(self.put_project_right(project, &revoked));
        }
        // Before the last runs all was at rest; an offer that is on its way now only looks stuck.
        if !self.people.last_asked {
            asks.extend(self.cancel_the_stuck());
        }
        let any = !asks.is_empty();
        for ask in asks {
            self.ask(ask);
        }
        any
    }

    fn put_project_right(&self, uid: ProjectUid, revoked: &BTreeSet<AgentUid>) -> Option<Ask> {
        let record = self.coordinator.store.project(uid)?;
        if record.paused.is_some() {
            return Some(Ask::Resume { project: uid, revision: None });
        }
        if record.archived.is_some() {
            return Some(Ask::Unarchive { project: uid, revision: None });
        }
        let mut spec = record.spec.clone();
        spec.schedule = Schedule::new(Cadence::Manual, spec.schedule.time_zone);
        let busy = self.coordinator.store.live_attempts(uid).any(|attempt| attempt.state.is_out());
        // It cannot move before its work ends, and that may go on for as long as it fires.
        let moves = !busy || spec.schedule == record.spec.schedule;
        spec.placement
            .replicas
            .retain(|replicas| named(replicas).is_none_or(|agent| !revoked.contains(&agent)));
        for replicas in spec.placement.replicas.iter_mut() {
            // What labels select may lie where another tree is, and then no other edit is taken.
            let selected = named(replicas).is_none();
            if moves || selected {
                replicas.destination = None;
            }
        }
        for origin in spec.placement.origins.iter_mut().filter(|_| moves) {
            origin.destination = None;
        }
        let origin = spec.placement.origins[0].clone();
        spec.placement.origins.retain(|origin| !revoked.contains(&origin.agent));
        if spec.placement.origins.is_empty() {
            spec.placement.origins.push(origin);
            let present = self.hosts.iter().filter(|host| !host.retired).filter_map(|host| host.uid);
            let taken =
                |agent: &AgentUid| spec.placement.replicas.iter().any(|one| named(one) == Some(*agent));
            let free = present.into_iter().find(|agent| !revoked.contains(agent) && !taken(agent));
            match free {
                Some(agent) => spec.placement.origins[0].agent = agent,
                None => {
                    let index = spec.placement.replicas.iter().position(|one| named(one).is_some())?;
                    spec.placement.origins[0].agent = named(&spec.placement.replicas.remove(index))?;
                }
            }
        }
        (spec != record.spec).then(|| Ask::UpdateProject {
            project: uid,
            spec: Box::new(spec),
            revision: record.revision,
            validate_only: false,
        })
    }

    /// What an agent took before it lost its state directory ends only when a person says so: the engine
    /// cannot know whether it still goes on.
    fn cancel_the_stuck(&self) -> Vec<Ask> {
        let live = self.coordinator.store.live.values();
        let attempts =
            live.filter_map(|record| if let Record::Attempt(one) = record { Some(one) } else { None });
        let mut asks = Vec::new();
        for attempt in attempts {
            let (AttemptState::Offered { epoch, .. } | AttemptState::Running { epoch, .. }) = attempt.state
            else {
                continue;
            };
            let stored = self.coordinator.store.live.get(&Key::Agent(attempt.agent));
            let host = self.host_of(attempt.agent);
            let other_state = match (stored, host) {
                (Some(Record::Agent(agent)), Some(host)) => {
                    self.hosts[host].welcomed
                        && agent.state_id != self.hosts[host].state_id
                        && !self.hosts[host].holds((attempt.id, epoch))
                }
                _ => false,
            };
            // What was offered in this very session is on its way, not stuck.
            let engine = self.coordinator.engine.as_ref();
            let session = engine.and_then(|engine| engine.session(attempt.agent));
            let on_its_way = session.is_some_and(|session| !epoch.is_autonomous() && epoch > session.epoch);
            if other_state && !on_its_way {
                asks.push(Ask::CancelRun { project: attempt.project, run: attempt.id.run });
            }
        }
        asks
    }

    /// What still is not done, in words.
    pub(crate) fn unsettled(&mut self) -> String {
        let now = self.still();
        let mut text = format!("people wait for {} answers", self.people.deeds.len());
        let Some(engine) = &self.coordinator.engine else { return text };
        for project in engine.projects_by_name() {
            let uid = project.record.uid;
            for run in self.coordinator.store.live_runs(uid).filter(|run| !run.state.is_closed()) {
                text += &format!("\n  run {run:?}");
            }
            for why in engine.why(now, uid) {
                text += &format!("\n  waits {why:?}");
            }
        }
        for attempt in engine.attempts() {
            text += &format!("\n  {attempt:?}");
        }
        text
    }
}
