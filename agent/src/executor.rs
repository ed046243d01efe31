//! The attempts of this agent: takes offers, or says why not; runs what it took; keeps what ended until it is
//! acknowledged. Whatever is answered was journaled first. Knows messages, not the link they come over: it works
//! the same while there is none.

mod alone;
mod attempt;
mod findings;
mod guards;
mod ledger;
mod marker;
mod moving;
mod passes;
mod reading;
mod reports;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use fleet::id::{AttemptId, ProjectUid};
use fleet::project::Destination;
use mirror_proto::v1;
use mirror_proto::v1::refused::Reason;
use rsync::{Password, Version};
use tokio::sync::Notify;
use tracing::Instrument as _;

pub use self::alone::Alone;
use self::attempt::Attempt;
use self::ledger::{Ledger, blocking};
use crate::config::Config;
use crate::guard::upstream::resolve;
use crate::guard::{DestinationFault, Guard, LockFault, ProjectLock};
use crate::journal::{Book, Entry, Journal, JournalError, Step};
use crate::key::{BadKey, Key};
use crate::logs::Logs;
use crate::order::Order;
use crate::rundir::{RunDir, SuperviseProgram};
use crate::slots::{Open, Slots, Verdict};
use crate::{outcome, telemetry};

/// Longest detail of a refusal, bytes.
const DETAIL_BYTES_MAX: usize = 1024;
/// Pause before an outcome that could not be journaled is tried again.
const JOURNAL_PAUSE: Duration = Duration::from_secs(5);
/// Refused offers that are remembered.
const REFUSED_MAX: usize = 256;

/// What the agent's own file and host give, as read at the start or at the last reload.
#[derive(Debug)]
pub struct Live {
    /// The file.
    pub config: Config,
    /// Its roots, opened.
    pub guard: Guard,
    /// The rsync program's version.
    pub version: Version,
    /// What owns every program run.
    pub program: SuperviseProgram,
}

/// What is said to an offer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Taken.
    Accepted(Key),
    /// Not taken, and nothing of it happened.
    Refused(Key, Reason, String),
}

impl Answer {
    /// As the wire has it.
    #[must_use]
    pub fn to_wire(&self) -> v1::OpenSessionRequest {
        use v1::open_session_request::Message;
        let message = match self {
            Self::Accepted(key) => Message::Accepted(v1::Accepted { key: Some(key.to_wire()) }),
            Self::Refused(key, reason, detail) => {
                let mut detail = detail.clone();
                crate::text::cut(&mut detail, DETAIL_BYTES_MAX);
                Message::Refused(v1::Refused { key: Some(key.to_wire()), reason: (*reason).into(), detail })
            }
        };
        v1::OpenSessionRequest { message: Some(message) }
    }
}

/// Offers that were refused, and how: the same offer gets the same answer.
type Refusals = BTreeMap<Key, (Reason, String)>;

fn remember(refused: &mut Refusals, key: Key, reason: Reason, detail: &str) {
    // The oldest run goes first.
    if refused.len() >= REFUSED_MAX {
        refused.pop_first();
    }
    refused.insert(key, (reason, detail.to_owned()));
}

/// What offers, attempts and the link share. Locks are taken in the order `refused`, then the others one at a time.
/// `refused` alone is held over waits: whoever takes an offer has it until the journal is synced.
#[derive(Debug)]
struct Shared {
    live: ArcSwap<Live>,
    journal: Ledger,
    slots: Mutex<Slots>,
    attempts: Mutex<BTreeMap<AttemptId, Arc<Attempt>>>,
    refused: Arc<tokio::sync::Mutex<Refusals>>,
    logs: Logs,
    ended: Notify,
    stopping: AtomicBool,
}

impl Shared {
    fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// What the journal says.
    fn book(&self) -> Arc<Book> {
        self.journal.book()
    }

    fn runs_dir(&self) -> PathBuf {
        self.live().config.data_dir.join("runs")
    }
}

/// A panic elsewhere is no reason to stop: each change under these locks is whole by itself.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The attempts.
#[derive(Debug, Clone)]
pub struct Executor {
    shared: Arc<Shared>,
}

impl Executor {
    /// Goes on with everything the journal holds. Needs a tokio runtime.
    #[must_use]
    pub fn start(live: Live, journal: Journal) -> Self {
        let logs = Logs::new(&live.config.data_dir);
        let unfinished: Vec<Entry> =
            journal.book().entries().filter(|entry| entry.ended.is_none()).cloned().collect();
        let shared = Arc::new(Shared {
            live: ArcSwap::from_pointee(live),
            journal: Ledger::new(journal),
            slots: Mutex::default(),
            attempts: Mutex::default(),
            refused: Arc::default(),
            logs,
            ended: Notify::new(),
            stopping: AtomicBool::new(false),
        });
        let executor = Self { shared };
        executor.forget_strangers();
        for entry in unfinished {
            executor.go_on(&entry);
        }
        executor
    }

    /// What the agent's file now says; running attempts are not touched.
    pub fn reload(&self, live: Live) {
        self.shared.live.store(Arc::new(live));
    }

    /// What the agent's file says.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        self.shared.live()
    }

    /// From now on every offer is refused; what runs goes on.
    pub fn stop_taking(&self) {
        self.shared.stopping.store(true, Ordering::Release);
    }

    /// Takes an offer or refuses it. The same offer gets the same answer.
    ///
    /// # Errors
    /// [`BadKey`]: there is nobody to answer to.
    pub async fn offer(&self, assignment: v1::Assignment, highest_term: u64) -> Result<Answer, BadKey> {
        let key = Key::from_wire(assignment.key.as_ref())?;
        let answer = match self.take(key, assignment, highest_term).await {
            Ok(()) => Answer::Accepted(key),
            Err((reason, detail)) => {
                remember(&mut *self.shared.refused.lock().await, key, reason, &detail);
                Answer::Refused(key, reason, detail)
            }
        };
        match &answer {
            Answer::Accepted(_) => tracing::info!(%key, "offer accepted"),
            Answer::Refused(_, reason, why) => {
                tracing::warn!(%key, reason = reason.as_str_name(), why, "offer refused");
            }
        }
        Ok(answer)
    }

    async fn take(
        &self,
        key: Key,
        mut assignment: v1::Assignment,
        highest_term: u64,
    ) -> Result<(), (Reason, String)> {
        refused_before(key, &*self.shared.refused.lock().await)?;
        if self.shared.stopping.load(Ordering::Acquire) {
            return Err((Reason::Stopping, "the agent is being stopped".to_owned()));
        }
        let password = assignment.secrets.take().map(|secrets| secrets.password).unwrap_or_default();
        let password = read_password(password).map_err(not_allowed)?;
        let order = Order::read(key, &assignment, password.is_some())
            .map_err(|faults| not_allowed(faults.join("; ")))?;
        if self.judge(&order, highest_term)? {
            return Ok(());
        }
        let executor = self.clone();
        let order = blocking(move || executor.check(&order).map(|()| order)).await?;
        self.check_upstream(&order).await?;
        // From here on it is done although nobody may wait for it any more: an offer whose link breaks is taken whole
        // or not at all, and the next hello waits for that.
        let refused = self.shared.refused.clone().lock_owned().await;
        let executor = self.clone();
        blocking(move || executor.take_checked(&refused, order, assignment, password, highest_term)).await
    }

    /// Others were taken, and this one may have been cancelled, while it was checked; so it is judged once more.
    fn take_checked(
        &self,
        refused: &Refusals,
        order: Order,
        assignment: v1::Assignment,
        password: Option<Password>,
        highest_term: u64,
    ) -> Result<(), (Reason, String)> {
        refused_before(order.key, refused)?;
        if self.judge(&order, highest_term)? {
            return Ok(());
        }
        let lock = self.lock(&order)?;
        self.accept(order, assignment, password, lock)
    }

    /// True: it was taken before.
    fn judge(&self, order: &Order, highest_term: u64) -> Result<bool, (Reason, String)> {
        let book = self.shared.book();
        let settled = book.settled_epoch(order.key.id);
        let limit = self.shared.live().config.slots as usize;
        let slots = held(&self.shared.slots);
        let verdict = slots.judge(order.key, order.project, &order.destination, limit, highest_term, settled);
        drop(slots);
        let ended = book.get(order.key.id).map(|entry| entry.key);
        match (verdict, ended) {
            (Verdict::Again, _) => Ok(true),
            (Verdict::Free, Some(known)) if known == order.key => Ok(true),
            (Verdict::Free, Some(known)) => {
                Err((Reason::Stale, format!("{known} has ended and waits for its acknowledgement")))
            }
            (Verdict::Free, None) => Ok(false),
            (Verdict::Busy(why), _) => Err((Reason::Busy, why)),
            (Verdict::Stale(why), _) => Err((Reason::Stale, why)),
        }
    }

    /// Destination, options and limits against the agent's own file.
    fn check(&self, order: &Order) -> Result<(), (Reason, String)> {
        let live = self.shared.live();
        let mut faults = moving::place_faults(&live.guard, order);
        faults.extend(moving::link_fault(&live.guard, order));
        if !faults.is_empty() {
            return Err(not_allowed(faults.join("; ")));
        }
        if order.moves_from().is_some() {
            return Ok(());
        }
        let root = live.guard.root_of(&order.destination).map_err(|fault| not_allowed(fault.to_string()))?;
        let path = match live.guard.look_at(&order.destination) {
            Ok(path) => path,
            // A disk that fails now is told as the outcome of the attempt.
            Err(DestinationFault::Io { .. }) => return Ok(()),
            Err(fault) => return Err(not_allowed(fault.to_string())),
        };
        let command =
            order.program(order.purpose(), &live.config, &live.version, root.path(), &path, root.path());
        command.map(|_| ()).map_err(|faults| not_allowed(faults.join("; ")))
    }

    /// A name without an address is no refusal: the attempt will tell, and is tried again.
    async fn check_upstream(&self, order: &Order) -> Result<(), (Reason, String)> {
        let Some(source) = order.upstream() else { return Ok(()) };
        let (host, port) = (source.host(), source.port());
        let Ok(addresses) = resolve(host, port).await else { return Ok(()) };
        let judged = self.shared.live().config.upstreams.judge(host, &addresses);
        judged.map_err(|refusal| not_allowed(refusal.to_string()))
    }

    /// Takes no attempt at this place of the project's tree as long as the answer lives.
    ///
    /// # Errors
    /// [`Open`]: an attempt is on it, or is the project's.
    pub(crate) fn close_place(
        &self,
        project: ProjectUid,
        destination: &Destination,
    ) -> Result<ClosedPlace, Open> {
        held(&self.shared.slots).close(project, destination)?;
        Ok(ClosedPlace { shared: self.shared.clone(), destination: destination.clone() })
    }

    fn lock(&self, order: &Order) -> Result<Option<ProjectLock>, (Reason, String)> {
        let live = self.shared.live();
        let root = live.guard.root_of(&order.destination).map_err(|fault| not_allowed(fault.to_string()))?;
        match live.guard.lock(root, order.project) {
            Ok(lock) => Ok(Some(lock)),
            Err(fault @ LockFault::Held(_)) => Err((Reason::Busy, fault.to_string())),
            Err(LockFault::Io { .. }) => Ok(None),
        }
    }

    fn accept(
        &self,
        order: Order,
        assignment: v1::Assignment,
        password: Option<Password>,
        lock: Option<ProjectLock>,
    ) -> Result<(), (Reason, String)> {
        let key = order.key;
        let needs_password = password.is_some();
        let accepted =
            self.shared.journal.write_here(|journal| journal.accept(key, assignment, needs_password));
        accepted.map_err(|error| match error {
            JournalError::TooLarge(_) => not_allowed(error.to_string()),
            _ => (Reason::JournalFull, outcome::chain(&error)),
        })?;
        self.spawn(order, Step::Accepted, password, lock);
        Ok(())
    }

    /// Goes on with an attempt of the journal.
    fn go_on(&self, entry: &Entry) {
        match Order::read(entry.key, &entry.assignment, entry.needs_password) {
            Ok(order) => self.spawn(order, entry.step, None, None),
            // It was read when it was taken: this agent is a later version with narrower rules.
            Err(faults) => {
                let outcome = outcome::of_class(
                    v1::outcome::Class::RejectedByAgent,
                    &faults.join("; "),
                    rsync::Fault::Yours,
                    "change the project",
                );
                let end = |journal: &mut Journal| journal.end(entry.key, outcome, String::new());
                let journaled = self.shared.journal.write_here(end);
                if let Err(error) = journaled {
                    tracing::error!(key = %entry.key, error = outcome::chain(&error), "cannot end the attempt");
                }
            }
        }
    }

    fn spawn(&self, order: Order, begun: Step, password: Option<Password>, lock: Option<ProjectLock>) {
        let shared = self.shared.clone();
        let live = shared.live();
        let key = order.key;
        held(&shared.slots).take(key, order.project, order.destination.clone());
        let log = shared.logs.begin(order.project, key, &live.config.logs);
        let span = attempt::span(&order, &live.config.name);
        let attempt = Arc::new(Attempt::new(order, log, password));
        held(&shared.attempts).insert(key.id, attempt.clone());
        let work = async move {
            let going = {
                let (shared, attempt) = (shared.clone(), attempt.clone());
                async move { attempt::run(&shared, &attempt, begun, lock).await }
            };
            // A task of its own, so that a panic in it ends the attempt and does not leave it running for ever.
            let outcome = match tokio::spawn(going.in_current_span()).await {
                Ok(outcome) => outcome,
                Err(error) if error.is_panic() => attempt::after_panic(&shared, &attempt).await,
                // The runtime is being shut down: the next start goes on.
                Err(_) => return,
            };
            finish(&shared, &attempt, outcome).await;
        };
        tokio::spawn(work.instrument(span));
    }

    /// Removes run directories that are not whole, and those of attempts that the journal does not know any more.
    fn forget_strangers(&self) {
        let dir = self.shared.runs_dir();
        if let Err(error) = RunDir::sweep(&dir) {
            tracing::warn!(error = outcome::chain(&error), "cannot remove what was left unfinished");
        }
        // What has ended is told by the journal alone; its directory is a leftover too.
        let book = self.shared.book();
        let going = book.entries().filter(|entry| entry.ended.is_none());
        let known: Vec<String> = going.map(|entry| entry.key.slug()).collect();
        let runs = RunDir::list(&dir).unwrap_or_else(|error| {
            tracing::warn!(error = outcome::chain(&error), "cannot list earlier runs");
            Vec::new()
        });
        for run in runs.into_iter().flatten() {
            let slug = run.path().parent().and_then(|path| path.file_name()).and_then(|name| name.to_str());
            if slug.is_some_and(|slug| known.iter().any(|one| one == slug)) {
                continue;
            }
            // Its outcome is journaled, or the journal was lost: whatever still runs has no owner.
            tracing::warn!(path = %run.path().display(), "a run that belongs to no attempt is ended and removed");
            let removed = run.stop("no attempt of this agent").and_then(|()| run.remove());
            if let Err(error) = removed {
                tracing::warn!(error = outcome::chain(&error), "it is left as it is");
            }
        }
    }
}

/// A place at which no attempt is taken.
#[derive(Debug)]
pub(crate) struct ClosedPlace {
    shared: Arc<Shared>,
    destination: Destination,
}

impl Drop for ClosedPlace {
    fn drop(&mut self) {
        held(&self.shared.slots).open(&self.destination);
    }
}

fn refused_before(key: Key, refused: &Refusals) -> Result<(), (Reason, String)> {
    refused.get(&key).map_or(Ok(()), |answer| Err(answer.clone()))
}

fn not_allowed(detail: impl Into<String>) -> (Reason, String) {
    (Reason::NotAllowed, detail.into())
}

fn read_password(text: String) -> Result<Option<Password>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    Password::new(text.into_bytes()).map(Some).map_err(|bad| bad.to_string())
}

/// Journals an outcome and gives everything back. The slot is held until the outcome is on disk: it must not be lost.
async fn finish(shared: &Arc<Shared>, attempt: &Arc<Attempt>, outcome: v1::Outcome) {
    let key = attempt.order.key;
    let good = outcome.class() == v1::outcome::Class::Ok;
    let traceparent = telemetry::traceparent(&tracing::Span::current())
        .unwrap_or_else(|| attempt.order.traceparent.clone());
    let ending = attempt.clone();
    blocking(move || held(&ending.log).finish(good)).await;
    tracing::info!(class = outcome.class().as_str_name(), cause = %outcome.cause, "attempt ended");
    loop {
        let (outcome, traceparent) = (outcome.clone(), traceparent.clone());
        match shared.journal.write(move |journal| journal.end(key, outcome, traceparent)).await {
            Ok(()) => break,
            Err(error) => {
                tracing::error!(
                    error = outcome::chain(&error),
                    "the outcome cannot be journaled; trying again"
                );
                tokio::time::sleep(JOURNAL_PAUSE).await;
            }
        }
    }
    held(&shared.attempts).remove(&key.id);
    held(&shared.slots).give_back(key);
    shared.ended.notify_one();
    let (shared, key) = (shared.clone(), key);
    tokio::task::spawn_blocking(move || tidy(&shared, key));
}

/// Removes what the program left, and logs beyond their limits.
fn tidy(shared: &Shared, key: Key) {
    let dir = shared.runs_dir().join(key.slug());
    let runs = std::fs::read_dir(&dir).into_iter().flatten().flatten();
    for run in runs.filter_map(|entry| RunDir::open(&entry.path()).ok()) {
        if let Err(error) = run.remove() {
            tracing::warn!(error = outcome::chain(&error), "cannot remove a run's directory");
        }
    }
    if let Err(error) = shared.logs.prune(&shared.live().config.logs) {
        tracing::warn!(%error, "cannot remove old logs");
    }
}
