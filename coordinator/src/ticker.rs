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
use tokio::sync::{OwnedMutexGuard, RwLock, watch};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use uuid::Uuid;

use crate::{Services, chores};

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

#[derive(Debug, Default)]
struct State {
    /// Held while the job runs: it never runs twice at once, whoever starts it.
    flight: Arc<tokio::sync::Mutex<()>>,
    told: Mutex<Told>,
}

/// How a job's runs went since the coordinator's start.
#[derive(Debug, Clone, Default)]
struct Told {
    started: Option<DateTime<Utc>>,
    last: Option<Ended>,
    took: Option<Duration>,
}

impl State {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The jobs and their scheduler.
pub struct Ticker {
    scheduler: JobScheduler,
    jobs: Vec<Kept>,
    /// Grows with each job that ended.
    ended: watch::Sender<u64>,
    /// Emptied at the end, so that what the library keeps alive holds nothing of ours.
    services: Arc<RwLock<Option<Services>>>,
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
            let state = Arc::new(State::default());
            let (shared, kept, told) = (Arc::clone(&services), Arc::clone(&state), ended.clone());
            let job = Job::new_async_tz(cron.as_str(), Utc, move |_, _| {
                let (shared, kept, told) = (Arc::clone(&shared), Arc::clone(&kept), told.clone());
                Box::pin(async move {
                    let Ok(flight) = Arc::clone(&kept.flight).try_lock_owned() else {
                        tracing::debug!(job = name, "still running; this fire is left out");
                        return;
                    };
                    run(name, chore, &shared, &kept, flight).await;
                    told.send_modify(|count| *count += 1);
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
            let Told { started, last, took } = job.state.told().clone();
            let running = job.state.flight.try_lock().is_err();
            let next = self.scheduler.clone().next_tick_for_job(job.id).await.ok().flatten();
            let (name, description, cron) = (job.name, job.description, job.cron.clone());
            reports.push(JobReport { name, description, cron, running, started, last, took, next });
        }
        reports
    }

    /// Begins a job beside its schedule, and waits for its end for at most `patience`. It goes on when nobody waits any
    /// more.
    ///
    /// # Errors
    /// [`NotRun`]; nothing was begun.
    pub async fn run_now(&self, name: &str, patience: Duration) -> Result<(), NotRun> {
        let job = self.jobs.iter().find(|job| job.name == name).ok_or(NotRun::Unknown)?.clone();
        let flight = Arc::clone(&job.state.flight).try_lock_owned().map_err(|_| NotRun::Running)?;
        let (shared, ended) = (Arc::clone(&self.services), self.ended.clone());
        let going = tokio::spawn(async move {
            run(job.name, job.chore, &shared, &job.state, flight).await;
            ended.send_modify(|count| *count += 1);
        });
        // Its end is told by its state; a job that panicked has told so in the log.
        drop(tokio::time::timeout(patience, going).await);
        Ok(())
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

/// Runs a job unless the coordinator stops; the flight ends with it.
async fn run(
    name: &'static str,
    chore: Chore,
    services: &RwLock<Option<Services>>,
    state: &State,
    flight: OwnedMutexGuard<()>,
) {
    let services = services.read().await;
    let Some(services) = services.as_ref() else { return };
    let begun = services.driver.now();
    state.told().started = Some(begun.wall.to_utc());
    let result = chore(services.clone()).await;
    match &result {
        Ok(done) => tracing::debug!(job = name, done, "housekeeping"),
        Err(error) => {
            tracing::error!(job = name, error, "housekeeping failed; it is tried again at its next time")
        }
    }
    let now = services.driver.now();
    let mut told = state.told();
    told.last = Some((now.wall.to_utc(), result));
    told.took = Some(now.mono.since(begun.mono));
    drop((told, flight));
}
