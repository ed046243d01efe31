//! Housekeeping by the clock, with tokio-cron-scheduler: pruning, backups, expiry, the server's certificate, and the
//! schedule watchdog, which starts syncs should the clock's own task be dead.
//!
//! Its rules, each from a measured fault of that library: cron jobs only, in UTC, added one after another, a wide
//! channel, every job single-flight and harmless when it fires twice, and a stop of our own. The projects' schedules
//! are the engine's; each job here only calls what exists without it.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use fleet::time::Now;
use tokio::{
    sync::{OwnedRwLockReadGuard, RwLock, watch},
    task::JoinHandle,
};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use uuid::Uuid;

use crate::{Services, chores, rpc::Caught};

/// Slots of the library's channels: far above our handful of jobs, below which it loses fires.
const CHANNEL_LEN: usize = 1_024;
/// How long running jobs may take to end when the coordinator stops.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// The scheduler does not take a job.
#[derive(Debug, thiserror::Error)]
#[error("the scheduler of housekeeping refuses the job {job}")]
pub struct TickerError {
    job: &'static str,
    source: JobSchedulerError,
}

/// What is told of a job that panicked: a bug of ours.
const PANICKED: &str =
    "it panicked in the middle of its work, which is a bug; the coordinator's log has where";

/// What a job is called with.
type Chore = fn(Services) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// When a job ended, and how: a sentence, or what failed.
type Ended = (DateTime<Utc>, Result<String, String>);

/// One job, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobReport {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub description: &'static str,
    /// When it runs.
    pub cron: String,
    /// It runs now.
    pub running: bool,
    /// When it last began.
    pub started: Option<DateTime<Utc>>,
    /// When it last ended, and how: a sentence, or what failed.
    pub last: Option<Ended>,
    /// How long it took then.
    pub took: Option<Duration>,
    /// When it runs next.
    pub next: Option<DateTime<Utc>>,
}

/// Why a job does not run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRun {
    /// There is none of that name.
    Unknown,
    /// It runs already.
    Running,
    /// The coordinator stops.
    Stopping,
}

/// A job that was begun. It goes on when nobody waits for it any more.
#[derive(Debug)]
pub struct Begun(JoinHandle<()>);

impl Begun {
    /// Waits for its end for at most `patience`; how it went, the report tells.
    pub async fn ended(self, patience: Duration) {
        // What a job returns, and that it panicked, is in its state before this ends.
        drop(tokio::time::timeout(patience, self.0).await);
    }
}

#[derive(Debug, Clone)]
struct Kept {
    name: &'static str,
    description: &'static str,
    chore: Chore,
    cron: String,
    id: Uuid,
    state: Arc<State>,
}

/// What is known of a job's runs.
#[derive(Debug)]
struct State {
    told: Mutex<Told>,
    /// Grows with each job that ended, this one or another.
    ended: watch::Sender<u64>,
}

/// How a job's runs went since the coordinator's start.
#[derive(Debug, Clone, Default)]
struct Told {
    /// It runs: never twice at once, whoever starts it.
    running: bool,
    started: Option<DateTime<Utc>>,
    last: Option<Ended>,
    took: Option<Duration>,
}

impl State {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the job for one run.
    fn take_off(self: &Arc<Self>) -> Result<Flight, NotRun> {
        let mut told = self.told();
        if std::mem::replace(&mut told.running, true) {
            return Err(NotRun::Running);
        }
        Ok(Flight(Arc::clone(self)))
    }
}

/// One run of a job. While it is there, the job runs.
#[derive(Debug)]
struct Flight(Arc<State>);

impl Flight {
    /// Does the work, and tells how it went, whatever happens.
    async fn run(
        self,
        name: &'static str,
        now: impl Fn() -> Now,
        work: impl Future<Output = Result<String, String>>,
    ) {
        let begun = now();
        self.0.told().started = Some(begun.wall.to_utc());
        let result = Caught(Box::pin(work)).await;
        let result = result.unwrap_or_else(|_| Err(PANICKED.to_owned()));
        match &result {
            Ok(done) => tracing::debug!(job = name, done, "housekeeping"),
            Err(error) => {
                tracing::error!(job = name, error, "housekeeping failed; it is tried again at its next time")
            }
        }
        let now = now();
        let mut told = self.0.told();
        told.last = Some((now.wall.to_utc(), result));
        told.took = Some(now.mono.since(begun.mono));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.told().running = false;
        self.0.ended.send_modify(|count| *count += 1);
    }
}

/// What jobs work with; empty when the coordinator stops, so that what the library keeps alive holds nothing of ours.
type Shared = Arc<RwLock<Option<Services>>>;

/// The jobs and their scheduler.
pub struct Ticker {
    scheduler: JobScheduler,
    jobs: Vec<Kept>,
    /// Grows with each job that ended.
    ended: watch::Sender<u64>,
    services: Shared,
}

impl std::fmt::Debug for Ticker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticker").field("jobs", &self.jobs).finish_non_exhaustive()
    }
}

/// What the watchdog found since the start.
#[derive(Debug, Default)]
pub struct Watchdog {
    overdue: AtomicU64,
}

impl Watchdog {
    /// Looks at which a fire was overdue although the clock's task should have seen it.
    #[must_use]
    pub fn overdue(&self) -> u64 {
        self.overdue.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self) {
        self.overdue.fetch_add(1, Ordering::Relaxed);
    }
}

/// Checks a cron text as the scheduler reads it.
///
/// # Errors
/// The rule that it breaks.
pub fn check_cron(text: &str) -> Result<(), String> {
    Job::new_tz(text, Utc, |_, _| {}).map(drop).map_err(|_| {
        "wanted are six fields: second minute hour day month weekday, as in 0 17 3 * * *".to_owned()
    })
}

impl Ticker {
    /// Starts every job.
    ///
    /// # Errors
    /// When the scheduler does not take one.
    pub async fn start(services: Services) -> Result<Self, TickerError> {
        let at = services.config.housekeeping.clone();
        let plan: [(&'static str, &'static str, String, Chore); 5] = [
            ("watchdog", "start what the clock missed, and look after the store", at.watchdog, |s| {
                Box::pin(chores::watchdog(s))
            }),
            ("sweep", "forget answers and tokens that have expired", at.sweep, |s| {
                Box::pin(chores::sweep(s))
            }),
            ("backup", "back the store up, and remove old backups", at.backup, |s| {
                Box::pin(chores::backup(s))
            }),
            ("prune", "remove old history, audit events and logs; check all past records", at.prune, |s| {
                Box::pin(chores::prune(s))
            }),
            ("certificate", "renew the server's certificate; tell of a CA that ends", at.certificate, |s| {
                Box::pin(chores::certificate(s))
            }),
        ];
        let scheduler = JobScheduler::new_with_channel_size(CHANNEL_LEN).await;
        let scheduler = scheduler.map_err(refuses("all"))?;
        let services = Arc::new(RwLock::new(Some(services)));
        let ended = watch::Sender::new(0);
        let mut jobs = Vec::with_capacity(plan.len());
        for (name, description, cron, chore) in plan {
            let state = Arc::new(State { told: Mutex::default(), ended: ended.clone() });
            let (shared, kept) = (Arc::clone(&services), Arc::clone(&state));
            let job = Job::new_async_tz(cron.as_str(), Utc, move |_, _| {
                let flight = take_off(name, chore, &shared, &kept);
                Box::pin(async move {
                    match flight {
                        Ok(flight) => flight.await,
                        Err(why) => tracing::debug!(job = name, ?why, "this fire is left out"),
                    }
                })
            });
            let id = scheduler.add(job.map_err(refuses(name))?).await.map_err(refuses(name))?;
            jobs.push(Kept { name, description, chore, cron, id, state });
        }
        scheduler.start().await.map_err(refuses("all"))?;
        Ok(Self { scheduler, jobs, ended, services })
    }

    /// Every job with its last result and next time.
    pub async fn report(&self) -> Vec<JobReport> {
        let mut reports = Vec::with_capacity(self.jobs.len());
        for job in &self.jobs {
            let Told { running, started, last, took } = job.state.told().clone();
            let next = self.scheduler.clone().next_tick_for_job(job.id).await.ok().flatten();
            let (name, description, cron) = (job.name, job.description, job.cron.clone());
            reports.push(JobReport { name, description, cron, running, started, last, took, next });
        }
        reports
    }

    /// Begins a job beside its schedule.
    ///
    /// # Errors
    /// [`NotRun`]; nothing was begun.
    pub fn begin(&self, name: &str) -> Result<Begun, NotRun> {
        let job = self.jobs.iter().find(|job| job.name == name).ok_or(NotRun::Unknown)?;
        let flight = take_off(job.name, job.chore, &self.services, &job.state)?;
        Ok(Begun(tokio::spawn(flight)))
    }

    /// Grows with each job that ended: look at the report again.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// Lets running jobs end, for a bounded time, and starts none any more.
    pub async fn stop(&self) {
        if let Err(error) = self.scheduler.clone().shutdown().await {
            tracing::debug!(%error, "the scheduler did not stop in order");
        }
        let emptied = tokio::time::timeout(STOP_TIME_MAX, self.services.write()).await;
        match emptied {
            Ok(mut services) => *services = None,
            Err(_) => tracing::warn!("a housekeeping job did not end in time"),
        }
    }
}

fn refuses(job: &'static str) -> impl FnOnce(JobSchedulerError) -> TickerError {
    move |source| TickerError { job, source }
}

/// One run of a job, unless it runs already or the coordinator stops, which waits for it.
fn take_off(
    name: &'static str,
    chore: Chore,
    shared: &Shared,
    state: &Arc<State>,
) -> Result<impl Future<Output = ()> + Send + use<>, NotRun> {
    // Only a stop takes them for itself.
    let services = Arc::clone(shared).try_read_owned().map_err(|_| NotRun::Stopping)?;
    let services = OwnedRwLockReadGuard::try_map(services, Option::as_ref).map_err(|_| NotRun::Stopping)?;
    let flight = state.take_off()?;
    Ok(async move {
        let work = chore(Services::clone(&services));
        flight.run(name, || services.driver.now(), work).await;
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn state() -> Arc<State> {
        Arc::new(State { told: Mutex::default(), ended: watch::Sender::new(0) })
    }

    #[tokio::test]
    async fn a_job_that_panics_has_failed_and_can_be_run_again() {
        let (state, clock) = (state(), Clock::start());
        let now = || clock.now();
        state.take_off().unwrap().run("backup", now, async { Ok("all of it".to_owned()) }).await;
        assert_eq!(state.told().last.clone().unwrap().1, Ok("all of it".to_owned()));
        let panics = async { panic!("in a test") };
        state.take_off().unwrap().run("backup", now, panics).await;
        let told = state.told().clone();
        assert_eq!(told.last.unwrap().1, Err(PANICKED.to_owned()), "not how the run before it went");
        assert!(!told.running && told.took.is_some());
        assert_eq!(*state.ended.borrow(), 2);
    }

    #[test]
    fn a_job_runs_once_at_a_time_and_one_that_was_dropped_runs_no_more() {
        let state = state();
        let flight = state.take_off().unwrap();
        assert_eq!(state.take_off().unwrap_err(), NotRun::Running);
        assert!(state.told().running);
        drop(flight);
        assert!(!state.told().running && state.take_off().is_ok());
    }

    #[test]
    fn while_somebody_looks_a_job_can_begin() {
        let state = state();
        // What a look has: a copy, and no lock for longer than that takes.
        let look = state.told().clone();
        assert!(state.take_off().is_ok() && !look.running);
    }
}
