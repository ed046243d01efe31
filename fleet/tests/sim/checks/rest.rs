//! Rules for the moments when the engine says that it has nothing to do now: whatever waits has a reason, the
//! reasons are those that a recount gives, and time alone never frees anything without the engine's knowing.

use std::{collections::BTreeSet, time::Duration};

use fleet::{
    Engine,
    attempt::{AttemptRecord, Role},
    engine::{Blocker, WaitReason, Why},
    run::RunState,
    time::{Mono, Now},
};

use super::Checks;
use crate::world::World;

impl World {
    pub(crate) fn check_rest(&mut self, now: Now, deadline: Option<Duration>) {
        let Some(engine) = &self.coordinator.engine else { return };
        let wrong = self.checks.at_rest(engine, now, deadline);
        if let Err(text) = wrong {
            self.fail(text);
        }
    }
}

impl Checks {
    fn at_rest(&mut self, engine: &Engine, now: Now, deadline: Option<Duration>) -> Result<(), String> {
        // A frozen fleet may keep what it has.
        let open = engine.open_plan().filter(|_| engine.fleet().frozen.is_none());
        if let Some((plan, left)) = open {
            return Err(format!("{left} steps of plan {plan} are left"));
        }
        for project in engine.projects_by_name() {
            if project.state.next_fire.is_some_and(|fire| fire.at <= now.wall) {
                return Err(format!(
                    "project {} should have fired: {:?}",
                    project.record.name, project.state
                ));
            }
        }
        self.check_lost_trees(engine)?;
        self.check_told_exports(engine)?;
        for agent in engine.agents_by_name() {
            let out = engine.attempts().filter(|a| a.agent == agent.uid && a.state.is_out()).count();
            if usize::try_from(engine.running_on(agent.uid)) != Ok(out) {
                return Err(format!(
                    "agent {}: {out} attempts are out, {} counted",
                    agent.name,
                    engine.running_on(agent.uid)
                ));
            }
        }
        for project in engine.projects_by_name() {
            let uid = project.record.uid;
            let pending = engine.attempts().filter(|a| a.project == uid && a.state.is_pending());
            let pending: Vec<&AttemptRecord> = pending.collect();
            if pending.is_empty() {
                continue;
            }
            let why = engine.why(now, uid);
            for attempt in pending {
                let waits = || why.iter().filter(|why| why.attempt == attempt.id);
                if waits().next().is_none() {
                    return Err(format!("nothing holds {attempt:?} back, and it is not offered"));
                }
                let clears = waits().map(|why| why.wait.until).collect::<Option<Vec<Mono>>>();
                let clears = clears.and_then(|all| all.into_iter().max()).map(|at| at.since(now.mono));
                if clears.is_some_and(|clears| deadline.is_none_or(|deadline| deadline > clears)) {
                    return Err(format!(
                        "{attempt:?} may start in {clears:?}, and the engine wakes in {deadline:?}"
                    ));
                }
                for why in waits().filter(|why| why.wait.reason == WaitReason::OriginUplink) {
                    self.check_uplink(engine, now, why)?;
                }
                let found: BTreeSet<WaitReason> = waits().map(|why| why.wait.reason).collect();
                self.compare_reasons(engine, now, attempt, &found)?;
                for reason in found {
                    *self.waited.entry(reason).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    /// Who waits for an agent's uplink waits for one that is taken.
    fn check_uplink(&self, engine: &Engine, now: Now, why: &Why) -> Result<(), String> {
        let Some(Blocker::Agent(source)) = why.wait.blockers.first() else {
            return Err(format!("{why:?} names no agent"));
        };
        let pulls =
            |other: &AttemptRecord| other.source == Some(*source) && !self.given_up(other.agent, now.mono);
        let taken = count(engine, pulls);
        let cap = engine.agent(*source).and_then(|agent| agent.caps.max_serving);
        if taken >= cap.unwrap_or(self.limits.origin_uplink) {
            return Ok(());
        }
        Err(format!("{why:?}, and {taken} pull from it"))
    }

    /// Every limit, counted again from the attempts alone.
    fn compare_reasons(
        &self,
        engine: &Engine,
        now: Now,
        attempt: &AttemptRecord,
        found: &BTreeSet<WaitReason>,
    ) -> Result<(), String> {
        let Some(project) = engine.project(attempt.project) else { return Ok(()) };
        let run_state = engine.run(attempt.id.run).map(|run| (run.state, run.by_person));
        let paused = project.record.paused.is_some() && run_state == Some((RunState::Queued, false));
        let aside = engine.run(attempt.id.run).is_some_and(|run| run.wish.is_aside());
        let local = attempt.role == Role::Origin && project.is_local() && !aside;
        let mut expected = vec![
            (WaitReason::Frozen, engine.fleet().frozen.is_some()),
            (WaitReason::Paused, paused),
            (WaitReason::AgentAway, !local && engine.session(attempt.agent).is_none()),
        ];
        if let Some(session) = engine.session(attempt.agent).filter(|_| !local) {
            let out = |filter: &dyn Fn(&AttemptRecord) -> bool| {
                count(engine, |other| other.agent == attempt.agent && filter(other))
            };
            let root = attempt.destination.root();
            let on_volume = |other: &AttemptRecord| other.destination.root() == root;
            let own = if session.facts.slots == 0 { u32::MAX } else { session.facts.slots };
            let cap = engine.agent(attempt.agent).and_then(|agent| agent.caps.max_running);
            let most = own.min(cap.unwrap_or(self.limits.agent_slots));
            let first = |other: &AttemptRecord| other.first_sync && on_volume(other);
            expected.extend([
                (WaitReason::AgentSlots, out(&|_| true) >= most),
                (WaitReason::VolumeSlots, out(&on_volume) >= self.limits.volume_slots),
                (WaitReason::FirstSync, attempt.first_sync && out(&first) >= self.limits.first_syncs),
            ]);
        }
        expected.extend(self.remote_reasons(engine, now, attempt));
        expected.extend(self.start_reasons(engine, now, attempt));
        for (reason, holds) in expected {
            if found.contains(&reason) != holds {
                return Err(format!("{attempt:?} waits for {found:?}; a recount says {reason:?}: {holds}"));
            }
        }
        Ok(())
    }

    fn remote_reasons(&self, engine: &Engine, now: Now, attempt: &AttemptRecord) -> Vec<(WaitReason, bool)> {
        let counts = |other: &AttemptRecord| !self.given_up(other.agent, now.mono);
        let aside = engine.run(attempt.id.run).is_some_and(|run| run.wish.is_aside());
        match attempt.role {
            // It takes nothing but its donor's uplink, if it has one.
            Role::Origin | Role::Replica if aside => Vec::new(),
            Role::Origin if attempt.upstream_host.is_empty() => Vec::new(),
            Role::Origin => {
                let same = |other: &AttemptRecord| {
                    other.role == Role::Origin
                        && other.upstream_host == attempt.upstream_host
                        && counts(other)
                };
                vec![(
                    WaitReason::UpstreamSlots,
                    count(engine, same) >= self.slots_of(&attempt.upstream_host),
                )]
            }
            Role::Replica => {
                let pulls = |other: &AttemptRecord| {
                    other.role == Role::Replica && other.source.is_some() && counts(other)
                };
                let of_project = count(engine, |other| pulls(other) && other.project == attempt.project);
                let max = engine
                    .project(attempt.project)
                    .map_or(0, |project| project.record.spec.placement.max_parallel);
                vec![(WaitReason::MaxParallel, max > 0 && of_project >= max)]
            }
        }
    }
}

fn count(engine: &Engine, filter: impl Fn(&AttemptRecord) -> bool) -> u32 {
    let out = engine.attempts().filter(|other| other.state.is_out() && filter(other)).count();
    u32::try_from(out).unwrap_or(u32::MAX)
}
