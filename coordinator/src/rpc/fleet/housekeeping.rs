//! Housekeeping as people see it: what the coordinator does by the clock for itself, how it went, and once more now. What a
//! job does is `chores.rs`'s, when it runs is `ticker.rs`'s.

use std::{sync::Arc, time::Duration};

use ::fleet::refusal::Refusal;
use chrono::{DateTime, Utc};
use mirror_proto::{convert, status, v1};
use tonic::Status;

use crate::{
    Services,
    audit::{self, origin},
    rpc::{By, RETRY_UNAVAILABLE, invalid, refused},
    ticker::{JobReport, NotRun, Ticker},
};

/// How long a call waits for a job that it began; a longer one goes on without it.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn list(services: &Services) -> Result<v1::ListHousekeepingJobsResponse, Status> {
    let jobs = ticker(services)?.report().await;
    Ok(v1::ListHousekeepingJobsResponse { housekeeping_jobs: jobs.into_iter().map(show).collect() })
}

pub(super) async fn run(services: &Services, by: &By, text: &str) -> Result<v1::HousekeepingJob, Status> {
    let name = convert::parse_housekeeping_job("name", text)
        .map_err(|fault| invalid("housekeeping not run", vec![fault]))?;
    origin::concerns(convert::housekeeping_job_name(&name));
    let ticker = ticker(services)?;
    let begun = ticker.begin(&name).map_err(|why| not_run(why, &name))?;
    tracing::info!(target: "audit", %by, job = name, "housekeeping begun");
    if let Some(origin) = origin::current() {
        // It may change nothing of the fleet's, and people should find who asked for it all the same: before the wait,
        // which ends with the caller's patience, while the job does not.
        services.driver.record(audit::noted(&origin, format!("housekeeping job {name} was begun")));
    }
    begun.ended(PATIENCE).await;
    let report = ticker.report().await.into_iter().find(|job| job.name == name);
    report.map(show).ok_or_else(|| refused(&Refusal::not_found("housekeeping job", &name)))
}

fn not_run(why: NotRun, name: &str) -> Status {
    match why {
        NotRun::Unknown => refused(&Refusal::not_found("housekeeping job", name)),
        NotRun::Running => refused(&Refusal::precondition(
            "HOUSEKEEPING_RUNNING",
            format!("housekeeping job \"{name}\" runs already; see mirrorctl housekeeping list"),
        )),
        NotRun::Stopping => {
            let text = format!("housekeeping job \"{name}\" not begun: the coordinator is stopping");
            status::unavailable("STOPPING", &text, RETRY_UNAVAILABLE)
        }
    }
}

#[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
fn ticker(services: &Services) -> Result<Arc<Ticker>, Status> {
    let begun = services.housekeeping.get().map(Arc::clone);
    begun.ok_or_else(|| status::unavailable("STARTING", "housekeeping has not begun yet", RETRY_UNAVAILABLE))
}

fn show(job: JobReport) -> v1::HousekeepingJob {
    let time = |time: DateTime<Utc>| convert::wall_to_wire(time.into());
    let JobReport { name, description, cron, running, started, last, took, next } = job;
    let (last_failed, last_outcome) = match last {
        Some((_, Ok(done))) => (false, done),
        Some((_, Err(error))) => (true, error),
        None => (false, String::new()),
    };
    v1::HousekeepingJob {
        name: convert::housekeeping_job_name(name),
        description: description.to_owned(),
        schedule: cron,
        next_time: next.map(time),
        running,
        last_start_time: started.map(time),
        last_duration: took.map(convert::duration_to_wire),
        last_failed,
        last_outcome,
    }
}
