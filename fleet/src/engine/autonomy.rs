//! What agents do by themselves while they have no coordinator: each is told its standing orders after its hello and
//! as they change, and what it ran meanwhile is taken over, so that no fire is run twice and no outcome is lost.
//!
//! ```text
//!   project, placement, next fire ──▶ standing order ──▶ Message::Autonomy ──▶ agent keeps it
//!   hello: it runs ─────────▶ run and attempt, Running ──▶ ends as any other
//!   EndedAlone: it has run ─▶ run and attempt, Ended; the fire is consumed either way
//! ```
//!
//! Only origins run alone: a replica has nothing to pull from but what a coordinator names.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    admit::allowed_deletes,
    effects::Effects,
    state::{Engine, Project},
};
use crate::{
    agent::AgentRecord,
    attempt::{AttemptEvent, AttemptRecord, AttemptState, End, Role},
    defaults,
    engine::HELLO_ATTEMPTS_MAX,
    id::{AgentUid, AttemptId, Epoch, ProjectUid, RunId},
    input::{Decision, Held, Message, Send},
    outcome::{ExitClass, Outcome},
    placement::PlacementRecord,
    record::{Change, Record, Volatile},
    run::{RunRecord, RunState, Trigger, TriggerKind},
    schedule::Cadence,
    standing::{AutonomousFire, StandingOrder, fire_after},
    time::{Now, Wall},
};

/// Why an attempt that waited was never offered.
pub const GAVE_WAY: &str = "the agent ran this fire by itself, having had no coordinator";

/// What agents were told to do by themselves, as far as their sessions go.
#[derive(Debug, Clone, Default)]
pub(super) struct Autonomy {
    /// One for each session.
    told: BTreeMap<AgentUid, Told>,
    /// Sessions that are to be told the whole list.
    untold: BTreeSet<AgentUid>,
    /// Orders that may be others than was told.
    changed: BTreeSet<(AgentUid, ProjectUid)>,
    /// Attempts of agents alone that have ended, the newest of each agent: one of them may be told once more before
    /// the history has it.
    settled: BTreeSet<(AgentUid, AttemptId)>,
}

#[derive(Debug, Clone, Default)]
struct Told {
    /// Of the newest message.
    serial: u64,
    orders: BTreeMap<ProjectUid, StandingOrder>,
}

impl Autonomy {
    pub(super) fn opened(&mut self, agent: AgentUid) {
        self.closed(agent);
        self.told.insert(agent, Told::default());
        self.untold.insert(agent);
    }

    pub(super) fn closed(&mut self, agent: AgentUid) {
        self.told.remove(&agent);
        self.untold.remove(&agent);
        self.changed.retain(|(other, _)| *other != agent);
    }

    /// All that this agent is to do alone may be something else now.
    pub(super) fn touch_agent(&mut self, agent: AgentUid) {
        if self.told.contains_key(&agent) {
            self.untold.insert(agent);
        }
    }

    /// All of them.
    pub(super) fn touch_all(&mut self) {
        self.untold.extend(self.told.keys());
    }

    pub(super) fn touch(&mut self, agent: AgentUid, project: ProjectUid) {
        if self.told.contains_key(&agent) {
            self.changed.insert((agent, project));
        }
    }

    /// Which agent is to be told something: of one project, or all.
    pub(super) fn due(&self) -> Option<(AgentUid, Option<ProjectUid>)> {
        let all = self.untold.first().map(|agent| (*agent, None));
        all.or_else(|| self.changed.first().map(|(agent, project)| (*agent, Some(*project))))
    }

    pub(super) fn now_told(
        &mut self,
        agent: AgentUid,
        serial: u64,
        complete: bool,
        orders: &[(ProjectUid, Option<StandingOrder>)],
    ) {
        let Some(told) = self.told.get_mut(&agent) else { return };
        told.serial = serial;
        if complete {
            told.orders.clear();
            self.untold.remove(&agent);
            self.changed.retain(|(other, _)| *other != agent);
        }
        for (project, order) in orders {
            self.changed.remove(&(agent, *project));
            match order {
                Some(order) => drop(told.orders.insert(*project, order.clone())),
                None => drop(told.orders.remove(project)),
            }
        }
    }

    /// An attempt has ended.
    pub(super) fn ended(&mut self, attempt: &AttemptRecord) {
        if !attempt.state.epoch().is_some_and(Epoch::is_autonomous) {
            return;
        }
        self.settled.insert((attempt.agent, attempt.id));
        let first = AttemptId { run: RunId::NIL, number: 0 };
        let of_agent = self.settled.range((attempt.agent, first)..);
        let of_agent: Vec<_> = of_agent.take_while(|(agent, _)| *agent == attempt.agent).copied().collect();
        if of_agent.len() > HELLO_ATTEMPTS_MAX {
            self.settled.remove(&of_agent[0]);
        }
    }
}

impl Engine {
    /// What the agent of an origin may do by itself; `None`: nothing. Passwords are never on an agent's disk, so a
    /// project that has one waits for its coordinator; and so does a tree that is to be copied from another agent, or moved.
    pub(super) fn standing_order(&self, agent: AgentUid, uid: ProjectUid) -> Option<StandingOrder> {
        let project = self.projects.get(&uid)?;
        let spec = &project.record.spec;
        let placement = project.origin().filter(|origin| origin.agent == agent)?;
        let upstream = project.upstream()?;
        let kept_back = self.fleet.frozen.is_some()
            || project.record.paused.is_some()
            || project.record.archived.is_some()
            || self.agents.get(&agent)?.draining
            || !upstream.sealed_password.is_empty()
            || spec.schedule.cadence == Cadence::Manual
            || self.donor_of(uid, agent).is_some()
            || self.moving_to(uid, agent).is_some();
        if kept_back {
            return None;
        }
        let nil = RunId::NIL;
        // While a hold is open nobody has looked at what a guard found.
        let max_delete = if placement.hold.is_some() { 0 } else { allowed_deletes(project, placement) };
        let attempt =
            AttemptRecord { max_delete, ..self.new_attempt(project, agent, nil, 1, nil, 1, Duration::ZERO) };
        let run = run_of(uid, nil, Wall(0), Wall(0), 0);
        let template = self.assignment(&attempt, Epoch::default(), &run, project, placement, None);
        let (schedule, next_fire) = (spec.schedule.clone(), project.state.next_fire);
        Some(StandingOrder { template, schedule, next_fire })
    }

    /// What is to be done about this project alone may be something else now.
    pub(super) fn touch_standing_order(&mut self, uid: ProjectUid) {
        let Some(project) = self.projects.get(&uid) else { return };
        let agents: Vec<AgentUid> = project.placements.keys().copied().collect();
        for agent in agents {
            self.autonomy.touch(agent, uid);
        }
    }

    /// Tells one agent what to do by itself: all of it, or one project.
    pub(super) fn tell_standing_orders(&self, agent: AgentUid, only: Option<ProjectUid>) -> Decision {
        let mut effects = Effects::of(self);
        let Some(known) = self.autonomy.told.get(&agent) else { return effects.decision() };
        let complete = only.is_none();
        let told: Vec<(ProjectUid, Option<StandingOrder>)> = match only {
            Some(project) => vec![(project, self.standing_order(agent, project))],
            None => {
                let all = self.placements_on(agent).map(|uid| (uid, self.standing_order(agent, uid)));
                all.filter(|(_, order)| order.is_some()).collect()
            }
        };
        let same = |old: Option<&StandingOrder>, new: Option<&StandingOrder>| {
            // Names are equal ignoring case, and the agent is to write the project's as people do.
            let name = |order: &StandingOrder| order.template.project_name.as_str().to_owned();
            old == new && old.map(name) == new.map(name)
        };
        let unchanged = told.iter().all(|(project, order)| same(known.orders.get(project), order.as_ref()));
        let serial = if unchanged && !complete { known.serial } else { known.serial + 1 };
        if let Some(session) = self.sessions.get(&agent).filter(|_| serial != known.serial) {
            let withdrawn = told.iter().filter(|(_, order)| order.is_none()).map(|(uid, _)| *uid).collect();
            let orders = told.iter().filter_map(|(_, order)| order.clone()).collect();
            let message = Message::Autonomy { serial, complete, orders, withdrawn };
            effects.send(Send { agent, session: session.epoch, message });
        }
        effects.change(Change::Volatile(Volatile::ToldAutonomy { agent, serial, complete, orders: told }));
        effects.decision()
    }

    /// Takes over what the agent of a hello runs by itself. `None`: it must not go on.
    pub(super) fn take_over(
        &self,
        now: Now,
        agent: AgentUid,
        held: &Held,
        effects: &mut Effects<'_>,
    ) -> Option<AttemptRecord> {
        let (project, fire) = self.may_take_over(agent, held)?;
        Some(self.enter_alone(now, project, agent, held, fire, effects))
    }

    /// The fires that agents ran alone are not run again, whenever their outcomes come.
    pub(super) fn consume_fires(&self, now: Now, agent: AgentUid, held: &[Held], effects: &mut Effects<'_>) {
        for one in held {
            let project = self.origin_home(agent, one);
            if let Some((project, fire)) = project.zip(one.autonomous) {
                self.consume_fire(now, project, fire, effects);
            }
        }
    }

    /// What an agent ran by itself has ended. It is entered whole, unless it is known already: then this is a report
    /// as any other.
    pub(super) fn ended_alone(&self, now: Now, agent: AgentUid, held: &Held, outcome: Outcome) -> Decision {
        if self.attempts.contains_key(&held.attempt) {
            return self.ended(now, agent, held.attempt, held.epoch, outcome);
        }
        let entered = self.may_take_over(agent, held);
        // Another run that is open tries again anyway.
        let alone = self.projects.get(&held.project).is_some_and(|project| {
            let mut others = project.runs.iter().filter_map(|run| self.runs.get(run));
            others.all(|run| run.state.is_closed() || run.trigger.autonomous || !run.wish.makes_tree())
        });
        let effects = Effects::of(self);
        let mut effects = if alone { effects } else { effects.without_retries() };
        if let Some((project, fire)) = entered {
            let attempt = self.enter_alone(now, project, agent, held, fire, &mut effects);
            let run = effects.run(held.project, held.attempt.run);
            let outcome = self.judged(now, run.as_ref(), &attempt, outcome);
            let event = AttemptEvent::End(held.epoch, outcome);
            self.move_attempt(now, &attempt, event, &mut effects);
            // Another run may be active by now, so this one does not wait for replicas: they catch up.
            let run = effects.run(held.project, held.attempt.run);
            if let Some(run) = run.filter(|run| run.state == RunState::Propagating) {
                self.close_propagation(now, &run, &mut effects);
            }
        }
        if entered.is_none() {
            self.distrust(agent, held, &mut effects);
        }
        if let Some(session) = self.sessions.get(&agent) {
            let fenced = entered.is_none();
            let message = Message::Acknowledge { attempt: held.attempt, epoch: held.epoch, fenced };
            effects.send(Send { agent, session: session.epoch, message });
        }
        effects.decision()
    }

    /// Another agent was made the origin while this one ran its fires: which files its copy has by now nobody knows, so
    /// it fetches the tree again.
    pub(super) fn distrust(&self, agent: AgentUid, held: &Held, effects: &mut Effects<'_>) {
        let Some(project) = self.projects.get(&held.project) else { return };
        let Some(placement) = effects.placement(held.project, agent) else { return };
        let written = held.autonomous.is_some() && !self.is_entered(agent, held);
        if !written || placement.destination != held.destination || placement.role != Role::Replica {
            return;
        }
        self.mix_replicas(project, agent, effects);
        if placement.have_tree.is_some() {
            effects.put(Record::Placement(PlacementRecord { have_tree: None, ..placement }));
        }
    }

    /// What was copied from an agent after it was last seen may have changed meanwhile, by what it ran alone: nobody is
    /// to copy it any further, and whoever has it fetches the tree again.
    pub(super) fn distrust_copies(
        &self,
        agent: AgentUid,
        held: &Held,
        last_seen: Option<Wall>,
        effects: &mut Effects<'_>,
    ) {
        let Some(fire) = held.autonomous.filter(|_| !self.is_entered(agent, held)) else { return };
        let Some(project) = self.projects.get(&held.project) else { return };
        // A link can be cut long before that is noticed here.
        let since = last_seen.map(|seen| seen.min(fire.started));
        self.doubt_copies(project, agent, since, effects);
    }

    /// An agent has lost its state, and with it all that it could tell of what it ran alone: none of the trees that it
    /// had to fetch is served to anybody before it was fetched anew.
    pub(super) fn distrust_all(&self, agent: &AgentRecord, effects: &mut Effects<'_>) {
        let projects = self.placements_on(agent.uid).filter_map(|uid| self.projects.get(&uid));
        // Nothing else is run alone, and a schedule is what mends it.
        let alone = |project: &&Project| {
            !project.is_local() && project.record.spec.schedule.cadence != Cadence::Manual
        };
        for project in projects.filter(alone) {
            let uid = project.record.uid;
            let origin = effects.placement(uid, agent.uid).filter(|own| own.role == Role::Origin);
            let Some(own) = origin.filter(|own| own.have_tree.is_some()) else { continue };
            effects.put(Record::Placement(PlacementRecord { half_changed: true, ..own }));
            self.doubt_copies(project, agent.uid, agent.last_seen, effects);
        }
    }

    /// What was copied from the agent since then counts as no tree; nor does what is being copied from it, or from such a
    /// copy, when that ends. Where such a copy was made the origin, nobody copies it before its next run has mended it.
    fn doubt_copies(
        &self,
        project: &Project,
        agent: AgentUid,
        since: Option<Wall>,
        effects: &mut Effects<'_>,
    ) {
        self.mix_replicas(project, agent, effects);
        let others = project.placements.values().filter(|one| one.agent != agent && !project.made(one));
        for copy in others.filter(|one| one.have_tree.is_some() && one.have_time > since) {
            self.mix_replicas(project, copy.agent, effects);
            if let Some(copy) = effects.placement(copy.project, copy.agent) {
                effects.put(Record::Placement(match copy.role {
                    Role::Replica => PlacementRecord { have_tree: None, ..copy },
                    Role::Origin => PlacementRecord { half_changed: true, ..copy },
                }));
            }
        }
    }

    /// Whether the attempt of an agent alone was taken over before.
    fn is_entered(&self, agent: AgentUid, held: &Held) -> bool {
        held.recorded
            || self.runs.contains_key(&held.attempt.run)
            || self.autonomy.settled.contains(&(agent, held.attempt))
    }

    /// The project, if the agent holds its origin there.
    fn origin_home(&self, agent: AgentUid, held: &Held) -> Option<&Project> {
        let project = self.projects.get(&held.project)?;
        let placement = project.placements.get(&agent)?;
        let same = placement.destination == held.destination && placement.role == Role::Origin;
        (same && held.role == Role::Origin).then_some(project)
    }

    fn may_take_over(&self, agent: AgentUid, held: &Held) -> Option<(&Project, AutonomousFire)> {
        let fire = held.autonomous?;
        let own = held.epoch.is_autonomous() && held.epoch.term <= self.fleet.term;
        // What people put there since then is not what it pulled.
        let project = self.origin_home(agent, held).filter(|project| !project.is_local())?;
        (own && !self.is_entered(agent, held) && held.attempt.number == 1).then_some((project, fire))
    }

    /// Enters a run that the schedule wanted, and its attempt as running. Where the tree was lost, nobody knows whether
    /// this one pulled before or after that: what it made is no version.
    fn enter_alone(
        &self,
        now: Now,
        project: &Project,
        agent: AgentUid,
        held: &Held,
        fire: AutonomousFire,
        effects: &mut Effects<'_>,
    ) -> AttemptRecord {
        let (uid, id) = (held.project, held.attempt.run);
        self.consume_fire(now, project, fire, effects);
        let started = fire.started.min(now.wall);
        if let Some(mut state) = effects.project_state(uid) {
            state.wanted += 1;
            state.taken = state.wanted;
            effects.put(Record::Run(run_of(uid, id, fire.scheduled, started, state.wanted)));
            effects.put(Record::ProjectState(state));
        }
        for old in project.runs.iter().filter_map(|run| self.runs.get(run)) {
            let waiting = self.attempts.get(&AttemptId { run: old.id, number: old.origin_attempt });
            let waiting = waiting.filter(|attempt| attempt.state.is_pending());
            match old.state {
                RunState::Propagating => self.close_propagation(now, old, effects),
                // Its next try is this one.
                RunState::Running if old.trigger.autonomous && waiting.is_some() => {
                    self.give_way(now, old, RunState::Failed, effects);
                }
                RunState::Queued
                | RunState::Running
                | RunState::Succeeded
                | RunState::Failed
                | RunState::Held
                | RunState::Cancelled => {}
            }
        }
        self.mix_replicas(project, agent, effects);
        let attempt = AttemptRecord {
            state: AttemptState::Running { epoch: held.epoch, offered: started, started },
            spec_hash: held.spec_hash.clone(),
            max_delete: fire.max_delete,
            mixed: project.placements.get(&agent).is_some_and(PlacementRecord::may_be_lost),
            ..self.new_attempt(project, agent, id, 1, id, 1, Duration::ZERO)
        };
        effects.put(Record::Attempt(attempt.clone()));
        attempt
    }

    /// Arms the first fire after those that were run with this one.
    fn consume_fire(&self, now: Now, project: &Project, fire: AutonomousFire, effects: &mut Effects<'_>) {
        let Some(mut state) = effects.project_state(project.record.uid) else { return };
        // An agent's clock that is far ahead must not stop the schedule.
        let ahead = now.wall.plus(defaults::FIRE_STRAYED);
        let covered = fire.scheduled.min(ahead).max(fire.started.min(now.wall));
        if state.next_fire.is_some_and(|next| next.scheduled <= covered) {
            state.next_fire = fire_after(&project.record.spec.schedule, covered, now);
            effects.put(Record::ProjectState(state));
        }
        self.settle_queued(now, project, covered, effects);
    }

    /// Of fires that the agent has run by itself the coordinator may have made a run, which could not reach it: that
    /// one is for the fires since then, or for nothing.
    fn settle_queued(&self, now: Now, project: &Project, covered: Wall, effects: &mut Effects<'_>) {
        let same = |run: &RunRecord| {
            run.state == RunState::Queued
                && run.trigger.kind == TriggerKind::Schedule
                && !run.by_person
                && run.trigger.time <= covered
        };
        let uid = project.record.uid;
        let Some(run) = project.runs.iter().filter_map(|id| effects.run(uid, *id)).find(same) else { return };
        let rest = project.record.spec.schedule.next_after(covered.to_utc()).map(Wall::from);
        match rest.filter(|fire| *fire <= now.wall && run.coalesced > 0) {
            Some(time) => {
                let trigger = Trigger { time, ..run.trigger.clone() };
                effects.put(Record::Run(RunRecord { trigger, ..run }));
            }
            None => self.give_way(now, &run, RunState::Cancelled, effects),
        }
    }

    /// Closes a run whose attempt waits, because the agent has run its fire by itself.
    fn give_way(&self, now: Now, run: &RunRecord, state: RunState, effects: &mut Effects<'_>) {
        let id = AttemptId { run: run.id, number: run.origin_attempt };
        let Some(attempt) = self.attempts.get(&id).filter(|attempt| attempt.state.is_pending()) else {
            return;
        };
        let outcome = Outcome {
            cause: GAVE_WAY.to_owned(),
            fault: "open".to_owned(),
            time: now.wall,
            ..Outcome::of_class(ExitClass::Cancelled)
        };
        let end = End::Cancelled(Some(outcome));
        let ended =
            AttemptState::Ended { epoch: Epoch::default(), offered: None, started: None, at: now.wall, end };
        effects.put(Record::Attempt(AttemptRecord { state: ended, ..attempt.clone() }));
        self.close_run(now, run.clone(), state, effects);
    }
}

impl Project {
    /// Whether the placement made the version that is served, and did not copy it: both got that time at once.
    fn made(&self, placement: &PlacementRecord) -> bool {
        placement.have_tree == self.state.tree && placement.have_time == self.state.last_success
    }
}

/// A run that an agent began by itself.
fn run_of(project: ProjectUid, id: RunId, scheduled: Wall, started: Wall, generation: u64) -> RunRecord {
    let (kind, by) = (TriggerKind::Schedule, String::new());
    let trigger = Trigger { kind, by, time: scheduled, autonomous: true };
    let queued = RunRecord::queued(id, project, trigger, started);
    RunRecord { state: RunState::Running, generation, start_time: Some(started), ..queued }
}
