//! One attempt: what its programs need before they can start, and each of them followed to its end. Which ones there
//! are is in [`super::passes`]. Steps are journaled before they begin and may be begun again, so an agent that was
//! killed goes on. Secrets come over the link and stay in memory.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fleet::project::Destination;
use fleet::words::instant;
use mirror_proto::v1;
use mirror_proto::v1::outcome::Class;
use rsync::{Fault, Password};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tracing::Instrument as _;

use super::Shared;
use super::guards::{Brake, Ended, Pass, of_stop};
use super::ledger::blocking;
use super::marker;
use super::passes::{findings, lack_of_space};
use super::reading::Reading;
use crate::guard::upstream::resolve;
use crate::guard::{DestinationFault, LockFault, ProjectLock};
use crate::journal::Step;
use crate::logs::AttemptLog;
use crate::order::Order;
use crate::outcome::{self, Evidence, cancelled, interrupted, of_class, of_local_error};
use crate::progress::{self, Tracker};
use crate::rundir::{EndedBy, ProgramExit, ProgramStatus, RunDir, RunDirError, Secret};
use crate::{clock, telemetry};

/// Longest wait for a lock that an earlier program of the same project may still hold.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(30);
/// Pause between two tries.
pub(super) const LOCK_PACE: Duration = Duration::from_millis(250);
/// Shortest and longest pause between two looks at a run: the longest where the kernel tells of its end, else by its
/// age, so that short runs are seen to end at once and long ones cost nothing.
const LOOK_PACE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// A comparison reads both trees.
const TREES_READ: u64 = 2;
/// A run that cannot be looked at this many times in a row is told of; given up only if that cannot pass, or if it
/// shall end anyway.
const LOOKS_FAILED_MAX: u32 = 20;

/// An attempt that is going on.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) order: Order,
    pub(super) log: Mutex<AttemptLog>,
    pub(super) progress: watch::Sender<v1::Progress>,
    /// Why it shall end, once it shall.
    pub(super) stop: watch::Sender<Option<String>>,
    /// Its password, once it is there.
    pub(super) password: watch::Sender<Option<Password>>,
}

impl Attempt {
    pub(super) fn new(order: Order, log: AttemptLog, password: Option<Password>) -> Self {
        Self {
            order,
            log: Mutex::new(log),
            progress: watch::Sender::new(progress::preflight(clock::wire_now())),
            stop: watch::Sender::new(None),
            password: watch::Sender::new(password),
        }
    }

    /// Whether a restart lost its password. While its pull runs it may need it again too: what a delete limit stopped
    /// is counted by another program, and a full upstream is asked once more.
    pub(super) fn lost_password(&self) -> bool {
        self.order.needs_password() && self.password.borrow().is_none()
    }

    pub(super) fn line(&self, text: &str) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).line(text);
    }
}

/// The end of an attempt before its program's own; the outcome says why.
pub(super) type Early<T> = Result<T, Box<v1::Outcome>>;

pub(super) fn early<T>(outcome: v1::Outcome) -> Early<T> {
    Err(Box::new(outcome))
}

/// Takes an attempt from a step to its outcome.
pub(super) async fn run(
    shared: &Arc<Shared>,
    attempt: &Arc<Attempt>,
    begun: Step,
    lock: Option<ProjectLock>,
) -> v1::Outcome {
    let machine = Machine { shared, attempt };
    let order = &attempt.order;
    let (time, project) = (instant(clock::now().into()), &order.project_name);
    attempt.line(&format!("{time} {project}: {} -> {}", order.source, order.destination));
    let ended = match order.moves_from() {
        Some(from) => machine.moves(begun, lock, from).await,
        None => machine.pulls(begun, lock).await,
    };
    let outcome = ended.unwrap_or_else(|outcome| *outcome);
    attempt.line(&closing_line(&outcome));
    outcome
}

/// The outcome of an attempt that panicked. Nobody reads its program's output any more, so it is ended.
pub(super) async fn after_panic(shared: &Shared, attempt: &Attempt) -> v1::Outcome {
    let dir = shared.runs_dir().join(attempt.order.key.slug());
    blocking(move || {
        let runs = std::fs::read_dir(dir).into_iter().flatten().flatten();
        for run in runs.filter_map(|entry| RunDir::open(&entry.path()).ok()) {
            if let Err(error) = run.stop("a bug of the agent") {
                tracing::error!(error = outcome::chain(&error), "its program could not be asked to end");
            }
        }
    })
    .await;
    of_class(Class::Internal, "the agent panicked; its log says where", Fault::Fleet, "report it: a bug")
}

/// The end of a supervisor, as the kernel tells it.
#[derive(Debug, Default)]
enum End {
    /// There is none yet, or it cannot be watched: looks have to do.
    #[default]
    Unwatched,
    Watched(AsyncFd<OwnedFd>),
    Reached,
}

impl End {
    fn is_unwatched(&self) -> bool {
        matches!(self, Self::Unwatched)
    }

    #[allow(
        deprecated,
        reason = "its successor is unsafe code; what that is for, a descriptor that changes, no OwnedFd does"
    )]
    fn watch(&mut self, pidfd: Option<OwnedFd>) {
        if let Some(Ok(pidfd)) = pidfd.map(|fd| AsyncFd::with_interest(fd, Interest::READABLE)) {
            *self = Self::Watched(pidfd);
        }
    }

    /// Comes back once, when the supervisor is gone.
    async fn reached(&mut self) {
        match self {
            Self::Watched(pidfd) => match pidfd.readable().await {
                Ok(_) => *self = Self::Reached,
                // The runtime is being shut down; the looks go on to its end.
                Err(_) => *self = Self::Unwatched,
            },
            Self::Unwatched | Self::Reached => std::future::pending().await,
        }
    }

    /// Pause before the next look at a run of this age.
    fn pace(&self, age: Duration) -> Duration {
        match self {
            Self::Watched(_) => LOOK_PACE.1,
            Self::Unwatched | Self::Reached => (age / 8).clamp(LOOK_PACE.0, LOOK_PACE.1),
        }
    }
}

/// What tells the end of a run's supervisor; none where it cannot be had.
fn watched(run: &RunDir) -> Option<OwnedFd> {
    run.supervisor_end().unwrap_or_else(|error| {
        tracing::debug!(error = outcome::chain(&error), "its supervisor is looked at, not waited for");
        None
    })
}

pub(super) struct Machine<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) attempt: &'a Arc<Attempt>,
}

impl Machine<'_> {
    pub(super) async fn step(&self, step: Step) -> Early<()> {
        let key = self.attempt.order.key;
        let journaled = self.shared.journal.write(move |journal| journal.step(key, step)).await;
        journaled.or_else(|error| early(of_local_error("cannot begin a step", &error)))
    }

    /// The password, waited for where a restart lost it.
    pub(super) async fn secret(&self) -> Early<Option<Secret>> {
        if !self.attempt.order.needs_password() {
            return Ok(None);
        }
        let mut password = self.attempt.password.subscribe();
        if password.borrow().is_none() {
            self.attempt.line("waits for its password from the coordinator");
        }
        let line = tokio::select! {
            password = password.wait_for(Option::is_some) => password.ok().and_then(|password| {
                let password = password.as_ref()?.expose();
                // Whole at once: a buffer that grows would leave a copy behind.
                Some([password, b"\n"].concat())
            }),
            outcome = self.stopped() => return early(outcome),
        };
        match line.and_then(Secret::new) {
            Some(secret) => Ok(Some(secret)),
            None => early(of_class(Class::Auth, "the password cannot be used", Fault::Yours, "set it again")),
        }
    }

    /// Whether another program could start without waiting for a password.
    pub(super) fn has_secret(&self) -> bool {
        !self.attempt.order.needs_password() || self.attempt.password.borrow().is_some()
    }

    /// Comes back with the reason when somebody wants the attempt's end.
    async fn wish(&self) -> String {
        let mut stop = self.attempt.stop.subscribe();
        // The sender lives as long as the attempt: this cannot fail while it runs.
        let reason = stop.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_default()
    }

    /// The outcome when somebody wants the attempt's end before its program runs.
    pub(super) async fn stopped(&self) -> v1::Outcome {
        cancelled(&self.wish().await)
    }

    pub(super) async fn try_lock(&self) -> Result<Result<ProjectLock, LockFault>, DestinationFault> {
        self.try_lock_at(&self.attempt.order.destination).await
    }

    async fn try_lock_at(
        &self,
        place: &Destination,
    ) -> Result<Result<ProjectLock, LockFault>, DestinationFault> {
        let (live, project, place) = (self.shared.live(), self.attempt.order.project, place.clone());
        blocking(move || {
            let root = live.guard.root_of(&place)?;
            Ok(live.guard.lock(root, project))
        })
        .await
    }

    pub(super) async fn lock(&self) -> Early<ProjectLock> {
        self.lock_at(&self.attempt.order.destination).await
    }

    /// The project's lock on the root of a place.
    pub(super) async fn lock_at(&self, place: &Destination) -> Early<ProjectLock> {
        let deadline = Instant::now() + LOCK_WAIT_MAX;
        loop {
            match self.try_lock_at(place).await.or_else(|fault| early(rejected(&fault)))? {
                Ok(lock) => return Ok(lock),
                Err(fault @ LockFault::Held(_)) if Instant::now() >= deadline => {
                    return early(interrupted(&fault.to_string()));
                }
                Err(LockFault::Held(_)) => {}
                Err(fault @ LockFault::Io { .. }) => return early(of_local_error("cannot begin", &fault)),
            }
            tokio::select! {
                () = tokio::time::sleep(LOCK_PACE) => {}
                outcome = self.stopped() => return early(outcome),
            }
        }
    }

    /// Asked again although it was asked before the attempt was taken: names may have got other addresses, and
    /// what is adopted may be days old.
    pub(super) async fn check_upstream(&self) -> Early<()> {
        let Some(source) = self.attempt.order.upstream() else { return Ok(()) };
        let resolved = tokio::select! {
            resolved = resolve(source.host(), source.port()) => resolved,
            outcome = self.stopped() => return early(outcome),
        };
        let addresses = resolved.or_else(|error| {
            let cause = format!("the address of {} cannot be found: {error}", source.host());
            let advice = "check the upstream's host name and this host's name servers";
            early(of_class(Class::Network, &cause, Fault::Open, advice))
        })?;
        let live = self.shared.live();
        live.config.upstreams.judge(source.host(), &addresses).or_else(|refusal| early(rejected(&refusal)))
    }

    /// Reads a program's output until it has ended.
    pub(super) async fn follow(&self, run: RunDir, pass: Pass) -> Ended {
        let span = tracing::info_span!("rsync", pass = pass.name(), exit_code = tracing::field::Empty);
        let ended = self.follow_to_end(run, pass).instrument(span.clone()).await;
        if let Some(code) = ended.outcome.exit_code {
            span.record("exit_code", code);
        }
        ended
    }

    async fn follow_to_end(&self, run: RunDir, pass: Pass) -> Ended {
        let order = &self.attempt.order;
        let mut reading = Reading::new(run, findings(pass, order));
        let mut tracker = Tracker::default();
        let mut brake = Brake::of(pass, order, Instant::now());
        let mut asked_to_end = false;
        let mut failed = 0;
        let mut end = End::default();
        loop {
            let (look, pidfd);
            (reading, look, pidfd) =
                self.look(reading, end.is_unwatched(), brake.is_due(Instant::now())).await;
            end.watch(pidfd);
            let elapsed = reading.since.elapsed();
            let progress = reading.parser.progress();
            match (pass, &look.status) {
                (Pass::Reclaim | Pass::Pull | Pass::Copy, _) => {
                    self.report(tracker.report(&progress, elapsed, clock::wire_now()));
                }
                (Pass::Verify, Ok(ProgramStatus::Running { received, .. })) => {
                    let all = order.known_bytes.unwrap_or(0).saturating_mul(TREES_READ);
                    self.report(tracker.report_compared(*received, all, elapsed, clock::wire_now()));
                }
                (Pass::Verify | Pass::Marker | Pass::Probe | Pass::Adoption | Pass::Count, _) => {}
            }
            match look.status {
                Ok(ProgramStatus::Exited(exit)) => return self.read_end(reading, &exit, pass).await,
                Ok(ProgramStatus::Vanished) => return self.bury(reading).await,
                Ok(ProgramStatus::Starting | ProgramStatus::Running { .. }) => failed = 0,
                Err(error) => {
                    failed += 1;
                    let for_good = asked_to_end || matches!(error, RunDirError::Damaged { .. });
                    if failed >= LOOKS_FAILED_MAX && for_good {
                        tracing::error!(error = outcome::chain(&error), "its run directory cannot be read");
                        return self.bury(reading).await;
                    }
                    if failed == LOOKS_FAILED_MAX {
                        // No descriptors left, say: its program goes on, and so does its outcome.
                        let error = outcome::chain(&error);
                        tracing::warn!(error, "its run cannot be looked at; trying again until it can");
                    }
                }
            }
            if let Some(reason) = brake.judge(look.lack.as_deref(), progress.bytes).filter(|_| !asked_to_end)
            {
                asked_to_end = true;
                reading = self.ask_to_end(reading, reason).await;
            }
            tokio::select! {
                () = tokio::time::sleep(end.pace(elapsed)) => {}
                () = end.reached() => {}
                reason = self.wish(), if !asked_to_end => {
                    asked_to_end = true;
                    reading = self.ask_to_end(reading, reason).await;
                }
            }
        }
    }

    /// Takes what is new, where waiting for disks holds up nobody.
    async fn look(&self, mut reading: Reading, watch: bool, space: bool) -> (Reading, Look, Option<OwnedFd>) {
        let (shared, attempt) = (self.shared.clone(), self.attempt.clone());
        blocking(move || {
            // Before the look: an end in between is seen by the look.
            let pidfd = watch.then(|| watched(&reading.run)).flatten();
            let status = reading.step(&mut attempt.log.lock().unwrap_or_else(PoisonError::into_inner));
            let lack = space.then(|| lack_of_space(&shared, &attempt.order)).flatten();
            (reading, Look { status, lack }, pidfd)
        })
        .await
    }

    fn report(&self, report: v1::Progress) {
        self.attempt.progress.send_if_modified(|old| differs(old, &report).then(|| *old = report).is_some());
    }

    /// What the end of a program is, by what it left.
    async fn read_end(&self, reading: Reading, exit: &ProgramExit, pass: Pass) -> Ended {
        let order = &self.attempt.order;
        let stats = *reading.parser.stats();
        let mut outcome = outcome::of_exit(exit, Evidence { stderr: &reading.stderr_end, stats: &stats });
        if let EndedBy::Stop(reason) = &exit.ended_by
            && outcome.class() == Class::Cancelled
        {
            outcome = of_stop(outcome, reason, pass, order);
        }
        if pass == Pass::Pull
            && let Err(failed) = self.step(Step::Finish).await
        {
            outcome = *failed;
        }
        let fetched = match pass {
            Pass::Marker => marker::fetched(&reading.run, order).await,
            _ => None,
        };
        Ended { outcome, stats, findings: reading.findings, fetched }
    }

    async fn ask_to_end(&self, reading: Reading, reason: String) -> Reading {
        self.attempt.line(&format!("asked to end: {reason}"));
        let (reading, result) = blocking(move || {
            let result = reading.run.stop(&reason);
            (reading, result)
        })
        .await;
        if let Err(error) = result {
            tracing::error!(error = outcome::chain(&error), "the program could not be asked to end");
        }
        reading
    }

    /// The supervisor is gone and left no end: what it left behind is ended, and that is all that is known.
    async fn bury(&self, reading: Reading) -> Ended {
        let wish = self.attempt.stop.borrow().clone();
        let (stats, run, findings) = (*reading.parser.stats(), reading.run, reading.findings);
        let result = blocking(move || run.stop("its supervisor is gone")).await;
        let outcome = match (result, wish) {
            (Ok(()), Some(reason)) => cancelled(&reason),
            (Ok(()), None) => interrupted("the program's supervisor or this host stopped in the middle"),
            (Err(error), _) => interrupted(&outcome::chain(&error)),
        };
        Ended { outcome, stats, findings, fetched: None }
    }
}

/// What a look at a program found.
struct Look {
    status: Result<ProgramStatus, RunDirError>,
    /// What the volume lacks, where that was looked at.
    lack: Option<String>,
}

/// Whether watchers should hear of it; the time alone is no news.
fn differs(old: &v1::Progress, new: &v1::Progress) -> bool {
    v1::Progress { time: old.time, ..*new } != *old
}

pub(super) fn rejected(why: &dyn std::fmt::Display) -> v1::Outcome {
    let advice = "change the project, or the agent's own file on its host";
    of_class(Class::RejectedByAgent, &why.to_string(), Fault::Yours, advice)
}

pub(super) fn not_started(error: &RunDirError) -> v1::Outcome {
    match error {
        RunDirError::Spec(_) => of_class(Class::Config, &error.to_string(), Fault::Fleet, "report it: a bug"),
        RunDirError::NotStarted { .. } => {
            let advice = "look at the agent's own messages on its host";
            of_class(Class::Internal, &error.to_string(), Fault::Fleet, advice)
        }
        _ => of_local_error("the program was not started", error),
    }
}

fn closing_line(outcome: &v1::Outcome) -> String {
    let class = outcome.class().as_str_name().trim_start_matches("CLASS_").to_lowercase().replace('_', " ");
    let code = outcome.exit_code.map_or_else(String::new, |code| format!(", rsync exit {code}"));
    let stats = outcome.stats.as_ref().map_or_else(String::new, |stats| {
        format!(
            "; {} files, {}; {} transferred, {} deleted, {} received",
            fleet::words::commas(stats.files),
            fleet::words::bytes(stats.total_bytes),
            fleet::words::commas(stats.transferred),
            fleet::words::commas(stats.deleted),
            fleet::words::bytes(stats.received_bytes)
        )
    });
    let cause = if outcome.cause.is_empty() { String::new() } else { format!("; {}", outcome.cause) };
    format!("{} {class}{code}{stats}{cause}", instant(clock::now().into()))
}

/// The span of an attempt, a child of what asked for it.
pub(super) fn span(order: &Order, agent: &str) -> tracing::Span {
    let span = tracing::info_span!(
        "attempt",
        project = %order.project_name,
        run = %order.key.id.run,
        attempt = order.key.id.number,
        epoch = %order.key.epoch,
        agent = %agent,
    );
    telemetry::set_parent(&span, &order.traceparent);
    span
}
