//! The one writer. Its own thread drains what waits, decides each input on a working copy of the engine,
//! merges all that follows into one store commit with one flush, and only then makes it visible, answers, and
//! speaks to agents. Commit, then send.
//!
//! Two engines: the working one runs ahead by what is being committed; the view is what is on disk, and all
//! that readers ever see. A commit that fails costs the working one: both are rebuilt from the store under a
//! new term, whatever was waiting is answered UNAVAILABLE, and readers keep the last committed view meanwhile.

mod recovery;

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use fleet::{
    Engine,
    defaults::Limits,
    input::{Decision, Input, Reply, Send},
    record::Change,
    refusal::{Refusal, RefusalCode},
    time::Now,
};
use tokio::sync::{mpsc, oneshot, watch};

use mirror_proto::v1::AuditEvent;

pub use self::recovery::Begin;
pub(crate) use self::recovery::add_event;
use self::recovery::recover;
use crate::{
    Chain,
    audit::{self, notes::Notes, origin::Origin},
    clock::Clock,
    store::{AuditId, Store, StoreError, Unit},
};

/// Inputs that may wait for the writer; beyond it, askers wait too (back-pressure).
pub const QUEUE_LEN: usize = 512;
/// Units merged into one commit.
pub const BATCH_UNITS_MAX: usize = 512;
/// Inputs of others among them: the rest is for what is due, so that a full queue does not starve the schedule.
const BATCH_INPUTS_MAX: usize = BATCH_UNITS_MAX / 2;
/// Commits whose time is remembered.
pub const COMMIT_TIMES: usize = 1_024;
/// Commits that take what is still counted when the writer ends: the first one has it, the second the number of what
/// had no room in it, and no more are needed.
const LAST_NOTES_COMMITS: usize = 3;
/// First pause before the store is opened again after a failed commit.
const REOPEN_INITIAL: Duration = Duration::from_millis(200);
/// Longest pause between tries to open the store again.
const REOPEN_CAP: Duration = Duration::from_secs(10);
/// Exit code of a coordinator whose engine panicked: a bug of ours (`EX_SOFTWARE` of sysexits.h).
pub const EXIT_BUG: i32 = 70;

/// The writer cannot answer now: it is stopping, or its store does not take writes. Nothing is known to have
/// changed; the same request id finds out.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(String);

/// Takes what is to be said to agents. Called after the commit, from the writer's thread: must not block.
pub trait Outlet: std::marker::Send + Sync {
    /// Says it, or drops the session: the agent's next hello repairs everything.
    fn send(&self, send: Send);

    /// Every session is void: the writer has begun a new term, and agents must say hello again.
    fn reset(&self);
}

/// The committed state. Hold it briefly and never across an await: the writer waits for readers to publish.
pub type ViewGuard<'a> = RwLockReadGuard<'a, Engine>;

type Answer = oneshot::Sender<Result<Reply, Unavailable>>;

#[derive(Debug)]
struct Asked {
    input: Input,
    /// Whose request it is; `None`: nobody's, so nothing of it is audited.
    origin: Option<Arc<Origin>>,
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Shared {
    view: RwLock<Engine>,
    clock: Clock,
    commits: watch::Sender<u64>,
    /// The newest event of the audit log that is on disk.
    audited: watch::Sender<AuditId>,
    notes: Notes,
    writable: AtomicBool,
    /// How long the newest commits took.
    commit_times: Mutex<VecDeque<Duration>>,
}

impl Shared {
    fn publish(&self, change: impl FnOnce(&mut Engine)) {
        change(&mut self.view.write().unwrap_or_else(PoisonError::into_inner));
        self.commits.send_modify(|count| *count += 1);
    }
}

/// The way to the writer. Cheap to clone; the writer ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Driver {
    queue: mpsc::Sender<Asked>,
    shared: Arc<Shared>,
    store: Store,
}

/// The writer's thread, to be joined at the end.
#[derive(Debug)]
pub struct DriverThread(thread::JoinHandle<()>);

impl DriverThread {
    /// Waits until the writer has committed all it took. Every [`Driver`] must have been dropped.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the writer's thread ended by a panic");
        }
    }
}

impl Driver {
    /// Recovers the engine from the store, begins a new term, and starts the writer.
    ///
    /// # Errors
    /// When the store cannot be read, or does not take the new term.
    pub fn start(
        store: Store,
        limits: Limits,
        begin: Begin,
        outlet: Arc<dyn Outlet>,
    ) -> Result<(Self, DriverThread), StoreError> {
        let clock = Clock::start();
        let (engine, audited) = recover(&store, limits, clock.now(), begin)?;
        let (queue, inbox) = mpsc::channel(QUEUE_LEN);
        let shared = Arc::new(Shared {
            view: RwLock::new(engine.clone()),
            clock,
            commits: watch::Sender::new(0),
            audited: watch::Sender::new(audited),
            notes: Notes::default(),
            writable: AtomicBool::new(true),
            commit_times: Mutex::default(),
        });
        let driver = Self { queue, shared: Arc::clone(&shared), store: store.clone() };
        let writer = Writer { shared, store, working: engine, audited, outlet, inbox };
        let thread = thread::Builder::new()
            .name("driver".to_owned())
            .spawn(move || {
                if catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                    // Without a writer nothing starts and nothing is recorded: a restart, not a quiet half-life.
                    tracing::error!("the writer panicked; what it had not committed did not happen");
                    std::process::exit(EXIT_BUG)
                }
            })
            .map_err(|error| StoreError::io("starting the writer's thread", error))?;
        Ok((driver, DriverThread(thread)))
    }

    /// Puts an input to the writer and waits until what follows is committed. A refusal is a [`Reply`]. Within the
    /// request of somebody what changes is audited in the same commit, see [`audit::origin`].
    ///
    /// # Errors
    /// [`Unavailable`] when the store does not take writes, or the coordinator stops.
    pub async fn ask(&self, input: Input) -> Result<Reply, Unavailable> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked { input, origin: audit::origin::current(), answer: Some(answer) };
        self.queue.send(asked).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    /// Puts an input to the writer without waiting for what follows; waits for room in the queue only.
    ///
    /// # Errors
    /// [`Unavailable`] when the coordinator stops.
    pub async fn tell(&self, input: Input) -> Result<(), Unavailable> {
        self.queue.send(Asked { input, origin: None, answer: None }).await.map_err(|_| stopping())
    }

    /// Wakes the writer to look what is due. Does nothing when its queue is full: then it is awake.
    pub fn wake(&self) {
        if self.queue.try_send(Asked { input: Input::Tick, origin: None, answer: None }).is_err() {
            tracing::debug!("the writer is busy or stopping");
        }
    }

    /// Records something in the audit log that changes nothing, soon; never waits. [`audit::happened`] makes such an
    /// event. What is too much is counted, and the count recorded.
    pub fn record(&self, event: AuditEvent) {
        self.shared.notes.put(event);
        self.wake();
    }

    /// Records a refusal or a failure, soon; never waits. Equal ones are counted in one event.
    pub fn record_refusal(&self, event: AuditEvent) {
        if self.shared.notes.refused(self.now().mono, event) {
            self.wake();
        }
    }

    /// Has counts recorded whose time is over; `all`: all of them.
    pub fn flush_notes(&self, all: bool) {
        if self.shared.notes.flush(self.now().mono, all) {
            self.wake();
        }
    }

    /// The newest event of the audit log, as events come.
    #[must_use]
    pub fn audited(&self) -> watch::Receiver<AuditId> {
        self.shared.audited.subscribe()
    }

    /// The committed state.
    pub fn view(&self) -> ViewGuard<'_> {
        self.shared.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both clocks, and fresh randomness.
    #[must_use]
    pub fn now(&self) -> Now {
        self.shared.clock.now()
    }

    /// The store, for pages of history.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Grows after every commit that changed anything: watchers look at the view again.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.commits.subscribe()
    }

    /// What 99 of 100 of the newest [`COMMIT_TIMES`] commits did not take longer than.
    #[must_use]
    pub fn commit_time(&self) -> Duration {
        let times = self.shared.commit_times.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sorted: Vec<Duration> = times.iter().copied().collect();
        drop(times);
        sorted.sort_unstable();
        sorted.get((sorted.len() * 99 / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// Whether the store took the last commit.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.shared.writable.load(Ordering::Relaxed)
    }
}

fn stopping() -> Unavailable {
    Unavailable("the coordinator is stopping; syncs go on without it; try again in a moment".to_owned())
}

fn too_large(error: &StoreError) -> Refusal {
    let text = format!("{error}; fault: yours; next: make the declaration smaller");
    Refusal::new(RefusalCode::InvalidArgument, "RECORD_TOO_LARGE", text)
}

struct Writer {
    shared: Arc<Shared>,
    store: Store,
    working: Engine,
    /// The newest event of the audit log, runs ahead as the working engine does.
    audited: AuditId,
    outlet: Arc<dyn Outlet>,
    inbox: mpsc::Receiver<Asked>,
}

/// What waits for one commit.
#[derive(Default)]
struct Batch {
    units: Vec<Unit>,
    changes: Vec<Change>,
    sends: Vec<Send>,
    answers: Vec<(Answer, Reply)>,
    /// What the events among the units that nothing else tells of count, all together.
    noted: u64,
    steps: usize,
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.inbox.blocking_recv() {
            let mut batch = Batch::default();
            let now = self.fill(first, &mut batch);
            match self.commit(&batch) {
                Ok(()) => self.release(now, batch),
                Err(error) => self.start_over(batch, &error),
            }
        }
        self.record_the_rest();
        tracing::info!("the writer has committed everything and ends");
    }

    /// Records what waits and what is still counted. Nobody is left who could note any more.
    fn record_the_rest(&mut self) {
        for _ in 0..LAST_NOTES_COMMITS {
            let now = self.shared.clock.now();
            if !self.shared.notes.flush(now.mono, true) {
                return;
            }
            let mut batch = Batch::default();
            self.take_notes(now, &mut batch);
            match self.commit(&batch) {
                Ok(()) => self.release(now, batch),
                Err(error) => {
                    tracing::error!(error = %Chain(&error), events = batch.noted, "the last events are not recorded");
                    return;
                }
            }
        }
    }

    /// Decides the first input, whatever else waits, and whatever is due then.
    fn fill(&mut self, first: Asked, batch: &mut Batch) -> Now {
        // One `now` for the whole batch: its commit is one moment, and the view is moved by the same clock.
        let mut now = self.shared.clock.now();
        self.take_notes(now, batch);
        let mut next = Some(first);
        while let Some(asked) = next {
            now.entropy = self.shared.clock.now().entropy;
            self.step(now, asked, batch);
            next = if batch.steps < BATCH_INPUTS_MAX { self.inbox.try_recv().ok() } else { None };
        }
        while batch.steps < BATCH_UNITS_MAX && self.working.next_deadline(now) == Some(Duration::ZERO) {
            now.entropy = self.shared.clock.now().entropy;
            self.step(now, Asked { input: Input::Tick, origin: None, answer: None }, batch);
        }
        now
    }

    /// What is recorded without a change: all that waits, in one unit.
    fn take_notes(&mut self, now: Now, batch: &mut Batch) {
        let mut unit = Unit::default();
        for event in self.shared.notes.take() {
            let (id, count) = (self.audited.next(now.wall), event.count);
            match add_event(&mut unit, id, now, event) {
                Ok(()) => (self.audited, batch.noted) = (id, batch.noted.saturating_add(count)),
                Err(error) => {
                    tracing::error!(error = %Chain(&error), count, "an event cannot be stored");
                    self.shared.notes.lost(count);
                }
            }
        }
        if !unit.ops().is_empty() {
            batch.steps += 1;
            batch.units.push(unit);
        }
    }

    /// The unit of a decision; what it changes for somebody's request is audited in it.
    fn unit(&mut self, now: Now, decision: &Decision, origin: Option<&Origin>) -> Result<Unit, StoreError> {
        let mut unit = Unit::of(&decision.changes)?;
        if let Some(event) = audit::plans::event(&self.working, decision, origin) {
            let id = self.audited.next(now.wall);
            add_event(&mut unit, id, now, event)?;
            self.audited = id;
        }
        Ok(unit)
    }

    fn step(&mut self, now: Now, asked: Asked, batch: &mut Batch) {
        batch.steps += 1;
        let mut decision = self.decide(now, asked.input);
        if decision.is_durable() {
            match self.unit(now, &decision, asked.origin.as_deref()) {
                Ok(unit) => batch.units.push(unit),
                // One record that no store takes is one refused request, not a store that takes nothing.
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "a decision cannot be stored; nothing of it happens");
                    let refusal = too_large(&error);
                    // A step of a plan that stayed would be tried for ever.
                    decision = match audit::plans::step_of(&self.working, &decision) {
                        Some(step) => self.working.leave_out(step, refusal),
                        None => Decision::refused(refusal),
                    };
                    if decision.is_durable() {
                        batch.units.extend(self.unit(now, &decision, None));
                    }
                }
            }
        }
        self.working.apply(now, &decision.changes);
        batch.changes.extend(decision.changes);
        batch.sends.extend(decision.sends);
        if let Some(answer) = asked.answer {
            batch.answers.push((answer, decision.reply));
        }
    }

    /// A panic in the engine is a bug of ours: nothing of the batch is committed, and going on with a state
    /// that made no sense would be worse than a restart, which recovers what is on disk.
    fn decide(&self, now: Now, input: Input) -> Decision {
        let kept = input.clone();
        catch_unwind(AssertUnwindSafe(|| self.working.decide(now, input))).unwrap_or_else(|_| {
            let shown: String = format!("{kept:?}").chars().take(2_000).collect();
            tracing::error!(input = shown, "the engine panicked on this input; nothing of it was committed");
            std::process::exit(EXIT_BUG)
        })
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        if batch.units.is_empty() {
            return Ok(());
        }
        let begun = self.shared.clock.now().mono;
        let committed = self.store.commit(&batch.units).map(|_revision| ());
        let mut times = self.shared.commit_times.lock().unwrap_or_else(PoisonError::into_inner);
        if times.len() == COMMIT_TIMES {
            times.pop_front();
        }
        times.push_back(self.shared.clock.now().mono.since(begun));
        committed
    }

    /// The commit is on disk: show it, say it, answer.
    fn release(&self, now: Now, batch: Batch) {
        if !batch.changes.is_empty() {
            self.shared.publish(|view| view.apply(now, &batch.changes));
        }
        let newest = self.audited;
        self.shared.audited.send_if_modified(|told| std::mem::replace(told, newest) != newest);
        for send in batch.sends {
            self.outlet.send(send);
        }
        for (answer, reply) in batch.answers {
            // An asker that went away has no use for the answer.
            drop(answer.send(Ok(reply)));
        }
    }

    /// The store did not take a commit: whether any of it is on disk is not known, so what is on disk is read
    /// again, under a new term. Readers keep the last view until that has worked.
    fn start_over(&mut self, batch: Batch, error: &StoreError) {
        tracing::error!(error = %Chain(error), "the store did not take a commit; no write is accepted until it does");
        self.shared.writable.store(false, Ordering::Relaxed);
        self.shared.notes.lost(batch.noted);
        let refused = Unavailable(format!(
            "the coordinator's store does not take writes ({error}); nothing is known to have changed; syncs that run go \
             on; fault: the coordinator's disk; next: make room on it, then try again"
        ));
        for (answer, _) in batch.answers {
            drop(answer.send(Err(refused.clone())));
        }
        let mut pause = REOPEN_INITIAL;
        loop {
            if self.refuse_waiting(&refused) {
                return;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(REOPEN_CAP);
            match self.reopen() {
                Ok((engine, audited)) => {
                    self.working = engine.clone();
                    self.audited = audited;
                    self.shared.audited.send_replace(audited);
                    self.shared.publish(|view| *view = engine);
                    self.outlet.reset();
                    self.shared.writable.store(true, Ordering::Relaxed);
                    tracing::info!("the store takes writes again");
                    return;
                }
                Err(error) => tracing::warn!(error = %Chain(&error), "the store still does not take writes"),
            }
        }
    }

    fn reopen(&self) -> Result<(Engine, AuditId), StoreError> {
        self.store.reopen()?;
        let begin = Begin::Reopened { term_at_least: self.working.fleet().term + 1 };
        recover(&self.store, self.working.limits().clone(), self.shared.clock.now(), begin)
    }

    /// Answers all that waits; true when the coordinator stops meanwhile.
    fn refuse_waiting(&mut self, refused: &Unavailable) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Asked { answer: Some(answer), .. }) => drop(answer.send(Err(refused.clone()))),
                Ok(Asked { answer: None, .. }) => {}
                Err(mpsc::error::TryRecvError::Empty) => return false,
                Err(mpsc::error::TryRecvError::Disconnected) => return true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::Path};

    use fleet::{
        agent::TokenNames,
        input::{AgentInput, Ask, Person},
        record::Volatile,
    };

    use super::*;
    use crate::audit::notes::WAITING_MAX;
    use crate::store::{Direction, PAGE_MAX, StoreOptions};

    struct Nobody;

    impl Outlet for Nobody {
        fn send(&self, _: Send) {}

        fn reset(&self) {}
    }

    fn person(ask: Ask) -> Input {
        Input::Person(Person { by: "maria".to_owned(), ask })
    }

    /// A writer on a new store that nobody runs, and the way to it.
    fn writer(dir: &Path, limits: Limits) -> (Writer, mpsc::Sender<Asked>) {
        let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::default() };
        let store = Store::open(dir, &options).unwrap().store;
        let clock = Clock::start();
        let (working, audited) = recover(&store, limits, clock.now(), Begin::Started).unwrap();
        let view = RwLock::new(working.clone());
        let (commits, writable) = (watch::Sender::new(0), AtomicBool::new(true));
        let (told, notes) = (watch::Sender::new(audited), Notes::default());
        let (queue, inbox) = mpsc::channel(2 * BATCH_UNITS_MAX);
        let commit_times = Mutex::default();
        let shared = Arc::new(Shared { view, clock, commits, audited: told, notes, writable, commit_times });
        (Writer { shared, store, working, audited, outlet: Arc::new(Nobody), inbox }, queue)
    }

    fn private_dir() -> tempfile::TempDir {
        let private = std::fs::Permissions::from_mode(0o700);
        tempfile::Builder::new().permissions(private).tempdir().unwrap()
    }

    fn recorded(store: &Store) -> Vec<(String, u64)> {
        let events = store.audit_events(Direction::After(None), PAGE_MAX).unwrap();
        events.into_iter().map(|event| (event.action, event.count)).collect()
    }

    fn failed() -> StoreError {
        StoreError::io("writing", std::io::Error::from(std::io::ErrorKind::StorageFull))
    }

    #[test]
    fn a_commit_that_failed_is_neither_a_start_nor_a_restore() {
        let dir = private_dir();
        let (mut writer, _queue) = writer(dir.path(), Limits::default());
        let term = writer.working.fleet().term;
        writer.start_over(Batch::default(), &failed());
        assert!(writer.working.fleet().term > term);
        assert_eq!(
            recorded(&writer.store),
            [(audit::STARTED.to_owned(), 1), (audit::REOPENED.to_owned(), 1)]
        );
    }

    fn refusal(reason: &str) -> AuditEvent {
        let event = audit::happened("X.Y", "users/maria", "192.0.2.1:1", "", String::new());
        AuditEvent { reason: reason.to_owned(), ..event }
    }

    #[test]
    fn what_a_failed_commit_had_counted_is_counted_as_lost() {
        let dir = private_dir();
        let (mut writer, _queue) = writer(dir.path(), Limits::default());
        let shared = Arc::clone(&writer.shared);
        shared.notes.put(AuditEvent { count: 5, ..refusal("a") });
        shared.notes.put(refusal("b"));
        let mut batch = Batch::default();
        writer.take_notes(shared.clock.now(), &mut batch);
        writer.start_over(batch, &failed());
        assert!(shared.notes.flush(shared.clock.now().mono, false));
        let told: Vec<_> = shared.notes.take().into_iter().map(|event| (event.action, event.count)).collect();
        assert_eq!(told, [(audit::DROPPED.to_owned(), 6)]);
    }

    #[test]
    fn what_is_counted_to_the_last_moment_is_recorded_as_the_writer_ends() {
        const KINDS: usize = WAITING_MAX + 50;
        let dir = private_dir();
        let (writer, queue) = writer(dir.path(), Limits::default());
        let (shared, store) = (Arc::clone(&writer.shared), writer.store.clone());
        let now = shared.clock.now().mono;
        for kind in 0..KINDS {
            // The first one is taken at once, as the writer does; two more are counted.
            assert!(shared.notes.refused(now, refusal(&kind.to_string())));
            assert_eq!(shared.notes.take().len(), 1);
            assert!(!shared.notes.refused(now, refusal(&kind.to_string())));
            assert!(!shared.notes.refused(now, refusal(&kind.to_string())));
        }
        drop(queue);
        writer.run();
        let counted = recorded(&store).into_iter().filter(|(action, _)| action != audit::STARTED);
        assert_eq!(counted.map(|(_, count)| count).sum::<u64>(), 2 * KINDS as u64);
    }

    #[test]
    fn what_is_due_is_done_however_many_ask() {
        let dir = private_dir();
        // Agents that are not here are given up at once: something to be done without anybody's asking.
        let limits = Limits { lost_after: Duration::ZERO, ..Limits::default() };
        let (mut writer, queue) = writer(dir.path(), limits);
        let names = TokenNames::One("ftp1".parse().unwrap());
        let (id, ttl) = ("t".to_owned(), Duration::from_secs(600));
        let token =
            Ask::CreateJoinToken { id, hash: "h".to_owned(), names, uses: 1, ttl, networks: Vec::new() };
        let enroll = AgentInput::Enroll {
            token_hash: "h".to_owned(),
            name: "ftp1".parse().unwrap(),
            labels: BTreeMap::new(),
            key_hash: String::new(),
            serial: String::new(),
            expires: writer.shared.clock.now().wall,
            from: None,
        };
        let many = std::iter::repeat_with(|| person(Ask::Thaw)).take(BATCH_UNITS_MAX);
        for input in [person(token), Input::Agent(enroll)].into_iter().chain(many) {
            queue.try_send(Asked { input, origin: None, answer: None }).unwrap();
        }
        let first = writer.inbox.try_recv().unwrap();
        let mut batch = Batch::default();
        writer.fill(first, &mut batch);
        let given_up = |change: &Change| matches!(change, Change::Volatile(Volatile::GivenUp(_)));
        assert!(batch.changes.iter().any(given_up), "{} steps and none for what was due", batch.steps);
        assert!(batch.steps <= BATCH_UNITS_MAX && !writer.inbox.is_empty());
    }
}
