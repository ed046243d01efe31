//! The coordinator's shell: one writer that drains what waits, decides on a working copy, commits in groups,
//! and only then answers and speaks. A crash loses what was not flushed.

use std::{collections::VecDeque, time::Duration};

use fleet::{
    Engine,
    attempt::Role,
    id::AgentUid,
    input::{AgentInput, Ask, Decision, Held, Input, Person, Reply, Send},
    placement::PlacementRecord,
    record::{Change, Key, Record, Volatile},
    time::{Mono, Now, Wall},
};

use crate::{
    checks::{self, Checks},
    cover::Fault,
    net::StreamId,
    people::{People, Promise},
    planted::Planted,
    store::{Source, Store, Unit},
    world::{Event, World},
};

/// Ticks in a row without a pause that cannot be honest work.
const TICKS_IN_A_ROW_MAX: u32 = 2_000;
/// All records are compared with the disk after each of so many commits, and before every restart.
const COMPARE_EVERY: u64 = 3;
/// The whole engine is rebuilt from the disk after each of so many commits, and at every restart.
const REBUILD_EVERY: u64 = 12;

/// A restore raises the term by far: to the time in seconds, in earnest.
const RESTORE_TERMS: u64 = 1_000_000;

/// Who waits for an answer.
#[derive(Debug, Clone)]
pub(crate) enum Tag {
    Nothing,
    Hello(StreamId),
    Deed(u64),
    Token(usize, String),
    Enroll(usize, String),
    SpentToken,
}

/// What waits for one commit.
#[derive(Debug)]
struct Batch {
    now: Now,
    units: Vec<Unit>,
    sends: Vec<Send>,
    replies: Vec<(Tag, Reply, Promise)>,
}

/// What an older backup holds.
#[derive(Debug, Clone)]
struct Backup {
    store: Store,
    checks: Checks,
    people: People,
}

/// The coordinator.
#[derive(Debug, Default)]
pub(crate) struct Coordinator {
    /// `None`: it is down.
    pub(crate) engine: Option<Engine>,
    pub(crate) store: Store,
    pub(crate) wall_shift: i64,
    pub(crate) commit_fails: bool,
    inbox: VecDeque<(Input, Tag)>,
    flight: Option<Batch>,
    /// When a coordinator that is down starts again.
    pub(crate) away_until: u64,
    boot: u64,
    boot_time: u64,
    ticks_in_a_row: u32,
    backup: Option<Box<Backup>>,
    least_term: u64,
}

impl World {
    pub(crate) fn now(&mut self) -> Now {
        let entropy = self.rng.next();
        Now { entropy, ..self.still() }
    }

    /// The clocks, without fresh chance.
    pub(crate) fn still(&self) -> Now {
        let elapsed = i64::try_from(self.time).expect("a simulation is short");
        Now {
            wall: Wall(self.config.wall_start + elapsed + self.coordinator.wall_shift),
            mono: Mono(1_000 + self.time - self.coordinator.boot_time),
            entropy: 0,
        }
    }

    pub(crate) fn submit(&mut self, input: Input, tag: Tag) {
        if self.coordinator.engine.is_none() {
            return self.unanswered(tag);
        }
        self.coordinator.inbox.push_back((input, tag));
        self.wake_driver(0);
    }

    /// The driver looks again in so many ms; earlier plans are void.
    pub(crate) fn wake_driver(&mut self, delay: u64) {
        self.plan_drive(self.time + delay);
    }

    pub(crate) fn drive(&mut self) {
        if self.coordinator.flight.is_some() || self.coordinator.engine.is_none() {
            return;
        }
        let now = self.now();
        let mut batch = Batch { now, units: Vec::new(), sends: Vec::new(), replies: Vec::new() };
        for _ in 0..self.rng.between(1, 8) {
            let Some((input, tag)) = self.coordinator.inbox.pop_front() else { break };
            self.coordinator.ticks_in_a_row = 0;
            self.step(&mut batch, input, tag);
        }
        // Between the steps of a plan comes whatever else there is.
        let planned = self.coordinator.engine.as_ref().is_some_and(|engine| engine.open_plan().is_some());
        let most = if planned && self.rng.chance(600) { 1 } else { 24 };
        for _ in 0..self.rng.between(1, most) {
            let due = self.coordinator.engine.as_ref().and_then(|engine| engine.next_deadline(now));
            if due != Some(Duration::ZERO) || self.failure.is_some() {
                break;
            }
            self.coordinator.ticks_in_a_row += 1;
            self.step(&mut batch, Input::Tick, Tag::Nothing);
        }
        if self.coordinator.ticks_in_a_row > TICKS_IN_A_ROW_MAX {
            return self.fail("Tick after Tick is due, and none ever is the last".to_owned());
        }
        if self.planted == Some(Planted::SendBeforeCommit) {
            for send in std::mem::take(&mut batch.sends) {
                self.say(send.session, send.message);
            }
        }
        if self.planted == Some(Planted::AnswerBeforeCommit) {
            self.answer(std::mem::take(&mut batch.replies));
        }
        if batch.units.is_empty() {
            return self.release(batch);
        }
        let delay = self.rng.between(0, self.config.commit);
        self.coordinator.flight = Some(batch);
        self.after(delay, Event::Committed(self.coordinator.boot));
    }

    fn step(&mut self, batch: &mut Batch, mut input: Input, tag: Tag) {
        let now = Now { entropy: self.rng.next(), ..batch.now };
        if let Input::Agent(AgentInput::Hello { attempts, .. }) = &mut input {
            self.look_up(attempts);
        }
        if let Input::Agent(AgentInput::EndedAlone { held, .. }) = &mut input {
            self.look_up(std::slice::from_mut(held));
        }
        self.checks.exporting(&input);
        let ask = checked_ask(&input);
        if let Some(planted) = self.planted {
            planted.bend_input(&self.coordinator, &mut input);
        }
        self.count_meetings(&input);
        let source = match &input {
            Input::Tick => Source::Tick,
            Input::Sweep => Source::Sweep,
            Input::Start { .. } => Source::Start,
            Input::Person(_) => Source::Person,
            Input::Agent(AgentInput::Hello { .. }) => Source::Hello,
            Input::Agent(_) => Source::Report,
        };
        let promised = matches!(&input, Input::Person(_) | Input::Agent(AgentInput::Enroll { .. }));
        self.note(|| format!("decides {input:?}"));
        let Some(engine) = &mut self.coordinator.engine else { return };
        let mut decision = engine.decide(now, input);
        if let Err(text) = self.checks.decided(engine, now, &decision.changes) {
            self.failure.get_or_insert(text);
        }
        if source == Source::Tick && decision.changes.is_empty() {
            return self.fail("next_deadline said zero, and Tick had nothing to do".to_owned());
        }
        let mut on_disk = None;
        if let Some(planted) = self.planted {
            on_disk = planted.bend_decision(engine, source, &mut decision);
        }
        if let Some(Err(text)) = ask.map(|ask| checks::check_answer(engine, now, &ask, &decision)) {
            self.failure.get_or_insert(text);
        }
        if let Err(text) = self.checks.plans.decided(source, &decision) {
            self.failure.get_or_insert(text);
        }
        let source = if checks::is_step(&decision.changes) { Source::Person } else { source };
        engine.apply(now, &decision.changes);
        self.checks.heard(now.mono, &decision.changes);
        self.checks.entered(engine, now.mono, &decision.changes);
        let sent = self.checks.sent(engine, &decision.sends);
        self.count_decided(&decision.changes);
        if let Err(text) = sent {
            self.fail(text);
        }
        self.count_plan(&decision.changes);
        let promise = if promised { Promise::of(&decision) } else { Promise::default() };
        let Decision { changes, sends, reply } = decision;
        self.trace_decision(&changes, &sends, &reply);
        if changes.iter().any(|change| !matches!(change, Change::Volatile(_))) {
            batch.units.push(Unit { now, source, changes: on_disk.unwrap_or(changes) });
        }
        batch.sends.extend(sends);
        batch.replies.push((tag, reply, promise));
    }

    fn trace_decision(&mut self, changes: &[Change], sends: &[Send], reply: &Reply) {
        self.note(|| {
            let lines: Vec<String> = changes.iter().map(|change| format!("\n      {change:?}")).collect();
            let sends: Vec<String> = sends.iter().map(|send| format!("\n      says {send:?}")).collect();
            format!("  follows: {reply:?}{}{}", lines.concat(), sends.concat())
        });
    }

    /// The shell looks in the history for what the hello names: the engine has only what is live.
    fn look_up(&mut self, held: &mut [Held]) {
        for one in held {
            let history = &self.coordinator.store.history;
            let attempt = Key::Attempt(one.project, one.attempt);
            let run = Key::Run(one.project, one.attempt.run);
            one.recorded = history.contains_key(&attempt) || history.contains_key(&run);
        }
    }

    /// Whether the disk has all that was decided.
    pub(crate) fn all_committed(&self) -> bool {
        self.coordinator.flight.is_none() && self.coordinator.inbox.is_empty()
    }

    pub(crate) fn committed(&mut self, boot: u64) {
        if boot != self.coordinator.boot {
            return;
        }
        let Some(batch) = self.coordinator.flight.take() else { return };
        if std::mem::take(&mut self.coordinator.commit_fails) {
            self.cover.fault(Fault::CommitError);
            self.coordinator.flight = Some(batch);
            return self.coordinator_stops(false, 200, 10_000);
        }
        for unit in &batch.units {
            self.persist(unit);
        }
        self.compare();
        self.release(batch);
    }

    fn persist(&mut self, unit: &Unit) {
        if let Err(text) = self.checks.unit(&self.coordinator.store, unit) {
            self.fail(text);
        }
        self.check_lost(unit);
        self.uploads(unit);
        self.lose_trees(unit);
        self.coordinator.store.commit(unit);
        if let Err(text) = self.checks.after(&self.coordinator.store, unit) {
            self.fail(text);
        }
    }

    /// Whose tree is to be copied from elsewhere has a new, empty disk.
    fn lose_trees(&mut self, unit: &Unit) {
        let store = &self.coordinator.store;
        let asked = unit.runs().filter(|run| run.wish.reseed_from.is_some());
        let new = asked.filter(|run| store.run(run.project, run.id).is_none());
        let lost: Vec<_> = new
            .filter_map(|run| unit.attempts().find(|one| one.id.run == run.id))
            .map(|attempt| (attempt.agent, attempt.destination.clone()))
            .collect();
        for (agent, destination) in lost {
            self.wipe(agent, &destination);
        }
    }

    /// A version that nobody pulled is what people had put on the origin when it was made.
    fn uploads(&mut self, unit: &Unit) {
        let store = &self.coordinator.store;
        let local = |home: &&PlacementRecord| {
            let old = store.placement(home.project, home.agent).and_then(|old| old.have_tree);
            let project = store.project(home.project);
            home.role == Role::Origin
                && home.have_tree != old
                && project.is_some_and(|project| project.spec.upstreams.is_empty())
        };
        // One that a pull made ends with that pull.
        let pulled = unit.attempts().any(|one| one.role == Role::Origin && one.state.end().is_some());
        let made: Vec<PlacementRecord> =
            unit.placements().filter(local).filter(|_| !pulled).cloned().collect();
        for home in made {
            if let Some(tree) = home.have_tree {
                self.upload(home.agent, &home.destination, tree);
            }
        }
    }

    /// What is on disk is what the engine works with.
    fn compare(&mut self) {
        self.cover.commits += 1;
        if !self.cover.commits.is_multiple_of(COMPARE_EVERY) {
            return;
        }
        let Some(engine) = &self.coordinator.engine else { return };
        if let Some(text) = self.coordinator.store.differs_from(engine) {
            return self.fail(format!("the engine is not what is on disk: {text}"));
        }
        if self.cover.commits.is_multiple_of(REBUILD_EVERY) {
            let records = self.coordinator.store.live.values().cloned();
            let rebuilt = Engine::recover(self.config.limits.clone(), self.still(), records);
            if let Some(text) = self.coordinator.store.differs_from(&rebuilt) {
                self.fail(format!("the engine rebuilt from the disk is not what is on disk: {text}"));
            }
        }
    }

    fn release(&mut self, batch: Batch) {
        // A hello's answer gives its connection the session over which things are then said.
        self.answer(batch.replies);
        for send in batch.sends {
            self.check_said(&send);
            self.say(send.session, send.message);
        }
        let now = Now { entropy: 0, ..self.still() };
        let Some(engine) = &self.coordinator.engine else { return };
        let deadline = engine.next_deadline(now);
        if !self.coordinator.inbox.is_empty() || deadline == Some(Duration::ZERO) {
            return self.wake_driver(0);
        }
        self.check_rest(now, deadline);
        if let Some(deadline) = deadline {
            let millis = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
            self.wake_driver(millis.min(1 << 40));
        }
    }

    fn answer(&mut self, replies: Vec<(Tag, Reply, Promise)>) {
        for (tag, reply, promise) in replies {
            self.answered(tag, reply, promise);
        }
    }

    /// The coordinator's program or machine dies, or its store does. Of what was being committed any part may
    /// be on disk; whatever waited is not answered.
    pub(crate) fn coordinator_stops(&mut self, silently: bool, least_ms: u64, most_ms: u64) {
        if self.coordinator.engine.take().is_none() {
            return;
        }
        let mut lost = 0;
        if let Some(batch) = self.coordinator.flight.take() {
            let kept = self.rng.index(batch.units.len() + 1);
            for unit in &batch.units[..kept] {
                self.persist(unit);
            }
            lost = batch.units.len() - kept;
            for (tag, ..) in batch.replies {
                self.unanswered(tag);
            }
        }
        if lost > 0 {
            self.cover.fault(Fault::LostUnits);
        }
        for (_, tag) in std::mem::take(&mut self.coordinator.inbox) {
            self.unanswered(tag);
        }
        self.coordinator.boot += 1;
        self.hang_up_all(silently);
        let pause = self.rng.between(least_ms, most_ms);
        self.note(|| format!("the coordinator stops for {pause} ms, {lost} units lost"));
        self.coordinator.away_until = self.time + pause;
        self.after(pause, Event::CoordinatorStarts);
    }

    pub(crate) fn coordinator_starts(&mut self) {
        if self.coordinator.engine.is_some() {
            return;
        }
        self.coordinator.boot_time = self.time;
        self.coordinator.ticks_in_a_row = 0;
        let now = self.now();
        let records = self.coordinator.store.live.values().cloned();
        let mut engine = Engine::recover(self.config.limits.clone(), now, records);
        if let Some(text) = self.coordinator.store.differs_from(&engine) {
            return self.fail(format!("the engine rebuilt from the disk is not what is on disk: {text}"));
        }
        let store = &self.coordinator.store;
        let kept = self.people.check_promises(store);
        let kept = kept.and_then(|()| self.checks.check_plans_kept(store, &self.people.plans, false));
        if let Err(text) = kept {
            return self.fail(text);
        }
        self.count_restart(&engine);
        let decision = engine.decide(now, Input::Start { at_least: self.coordinator.least_term });
        if self.planted != Some(Planted::TermNotRaised) {
            engine.apply(now, &decision.changes);
            self.persist(&Unit { now, source: Source::Start, changes: decision.changes });
        }
        self.checks.restarted(now.mono, &engine);
        self.coordinator.engine = Some(engine);
        self.note(|| "the coordinator starts".to_owned());
        for host in 0..self.hosts.len() {
            self.dial_soon(host);
        }
        self.wake_driver(0);
    }

    /// Remembers the store as a backup would.
    pub(crate) fn back_up(&mut self) {
        let backup = Backup {
            store: self.coordinator.store.clone(),
            checks: self.checks.clone(),
            people: self.people.clone(),
        };
        self.coordinator.backup = Some(Box::new(backup));
    }

    /// Puts the backup back: all that was said since then is forgotten, and the term passes all that was.
    pub(crate) fn restore(&mut self) -> bool {
        if self.coordinator.backup.is_none() {
            return false;
        }
        let term = self.coordinator.engine.as_ref().map_or(0, |engine| engine.fleet().term);
        self.coordinator_stops(false, 1_000, 60_000);
        let Some(backup) = self.coordinator.backup.take() else { return false };
        self.coordinator.least_term = self.coordinator.least_term.max(term) + RESTORE_TERMS;
        self.coordinator.store = backup.store;
        self.checks.put_back(backup.checks);
        self.people.put_back(&backup.people);
        true
    }
}

/// What somebody asks for, where what follows from it is looked at.
fn checked_ask(input: &Input) -> Option<Ask> {
    match input {
        Input::Person(Person { ask, .. }) => {
            let checked = matches!(ask, Ask::ReplaceAgent { .. } | Ask::Push(_) | Ask::Apply(_));
            checked.then(|| ask.clone())
        }
        _ => None,
    }
}

/// The agents that a volatile change concerns.
pub(crate) fn session_change(change: &Change) -> Option<(AgentUid, bool)> {
    match change {
        Change::Volatile(Volatile::SessionOpened(agent, _)) => Some((*agent, true)),
        Change::Volatile(Volatile::SessionClosed(agent, _)) => Some((*agent, false)),
        Change::Volatile(
            Volatile::Inventory(..)
            | Volatile::Exporting { .. }
            | Volatile::Told { .. }
            | Volatile::HomeChecked(..)
            | Volatile::GivenUp(_)
            | Volatile::TookTurn
            | Volatile::TrashLooked(..)
            | Volatile::TrashTold(..)
            | Volatile::TimerDone(..)
            | Volatile::Scanned { .. }
            | Volatile::ToldAutonomy { .. }
            | Volatile::CloseChecked(_),
        )
        | Change::Put(_)
        | Change::Delete(_) => None,
    }
}

/// The record of an agent that a change enters.
pub(crate) fn agent_put(change: &Change) -> Option<AgentUid> {
    match change {
        Change::Put(Record::Agent(agent)) => Some(agent.uid),
        _ => None,
    }
}
