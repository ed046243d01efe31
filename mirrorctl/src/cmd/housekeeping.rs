//! `mirrorctl housekeeping`.

use mirror_proto::v1;

use crate::app::App;
use crate::cli::HousekeepingCommand;
use crate::exit::Exit;
use crate::fault::{Fault, Outcome};
use crate::{names, text};

pub(super) async fn run(app: &App, command: HousekeepingCommand) -> Outcome<Exit> {
    match command {
        HousekeepingCommand::List => list(app).await,
        HousekeepingCommand::Run { job } => run_now(app, &job).await,
    }
}

async fn list(app: &App) -> Outcome<Exit> {
    let client = app.connect().await?;
    let answer = client.fleet().list_housekeeping_jobs(v1::ListHousekeepingJobsRequest {}).await;
    let response = answer.map_err(|status| Fault::from_status("nothing listed", &status))?.into_inner();
    let names: Vec<&str> = response.housekeeping_jobs.iter().map(|job| names::last(&job.name)).collect();
    app.answer(&response, "ListHousekeepingJobsResponse", &names, |view| {
        text::housekeeping::list(view, &response.housekeeping_jobs)
    })?;
    Ok(Exit::Done)
}

async fn run_now(app: &App, typed: &str) -> Outcome<Exit> {
    let client = app.connect().await?;
    let request = v1::RunHousekeepingJobRequest { name: names::housekeeping_job(typed) };
    let run = client.fleet().run_housekeeping_job(request).await;
    let job = run
        .map_err(|status| {
            Fault::from_status("housekeeping not run", &status).next("mirrorctl housekeeping list")
        })?
        .into_inner();
    let name = names::last(&job.name);
    let what = text::housekeeping::told(&job);
    app.changed(&job, "HousekeepingJob", &[name], &what, "mirrorctl housekeeping list")?;
    Ok(if job.last_failed && !job.running { Exit::BadAnswer } else { Exit::Done })
}
