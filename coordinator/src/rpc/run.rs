//! Runs and attempts, as people see, follow and end them. Live ones and those of the history read alike: records
//! come from the store, which is never behind the view, and what is not stored comes from the view.

pub(crate) mod history;
mod tail;
mod watch;

use std::{cmp::Reverse, collections::BTreeMap};

use ::fleet::{
    Engine,
    attempt::AttemptRecord,
    id::{AttemptId, Name, ProjectUid, RunId},
    input::Ask,
    refusal::{Refusal, Violation},
    run::RunRecord,
    time::Now,
};
use mirror_proto::{
    convert::{self, AttemptView, RunRef},
    status, v1,
};
use tonic::{Request, Response, Status};

use super::{RETRY_UNAVAILABLE, ask, invalid, page, refused, user};
use crate::{Services, outbox::line::Line, store::PAGE_MAX as HISTORY_PAGE_MAX, watch::Progress};

/// Runs on a page when the caller names no number.
const PAGE_SIZE: usize = 20;

/// `mirror.v1.RunService`.
#[derive(Debug)]
pub struct Runs {
    services: Services,
}

/// A run and its attempts, as stored.
#[derive(Debug, Clone)]
struct Stored {
    run: RunRecord,
    /// All of them, in order.
    attempts: Vec<AttemptRecord>,
}

/// Which run of which project is meant.
#[derive(Debug, Clone)]
struct Meant {
    project: ProjectUid,
    name: Name,
    run: RunId,
}

/// The wire's form of an attempt, with what only the view knows.
#[must_use]
pub fn show_attempt(
    view: &Engine,
    now: Now,
    progress: &Progress,
    project: &Name,
    attempt: &AttemptRecord,
) -> v1::Attempt {
    let known = AttemptView {
        progress: progress.get(attempt.id).filter(|_| attempt.state.is_out()),
        retry_time: view.retry_time(now, attempt.id),
    };
    convert::attempt_to_wire(attempt, project, known, view)
}

/// The wire's form of a run that is known to exist.
pub(super) async fn shown(services: &Services, project: ProjectUid, run: RunId) -> Result<v1::Run, Status> {
    let found = history::read(&services.driver, move |store| {
        let run = store.run(project, run)?;
        let origin = match &run {
            Some(run) => store.attempt(project, AttemptId { run: run.id, number: run.origin_attempt })?,
            None => None,
        };
        Ok(run.map(|run| (run, origin)))
    });
    let (record, origin) = found.await?.ok_or_else(|| refused(&Refusal::not_found("run", run)))?;
    let now = services.driver.now();
    let view = services.driver.view();
    let name = convert::Names::project(&*view, project);
    let name = name.ok_or_else(|| refused(&Refusal::not_found("project of run", run)))?;
    Ok(show_run(&view, now, &services.progress, &name, &record, origin.as_ref()))
}

fn show_run(
    view: &Engine,
    now: Now,
    progress: &Progress,
    project: &Name,
    run: &RunRecord,
    origin: Option<&AttemptRecord>,
) -> v1::Run {
    let origin = origin.map(|attempt| show_attempt(view, now, progress, project, attempt));
    convert::run_to_wire(run, project, origin, view)
}

/// The run with this id and all its attempts; `None`: there is none, or it was pruned.
async fn stored(services: &Services, project: ProjectUid, run: RunId) -> Result<Option<Stored>, Status> {
    history::read(&services.driver, move |store| {
        let Some(run) = store.run(project, run)? else { return Ok(None) };
        let attempts = store.attempts(project, run.id)?;
        Ok(Some(Stored { run, attempts }))
    })
    .await
}

fn no_such_run(meant: &Meant) -> Status {
    refused(&Refusal::not_found("run", convert::run_name(&meant.name, meant.run)))
}

/// A stream ends because the coordinator does.
fn stopping() -> Status {
    status::unavailable("STOPPING", "the coordinator is stopping; ask again in a moment", RETRY_UNAVAILABLE)
}

impl Runs {
    /// The service.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self { services }
    }

    /// Finds the project, and the newest run where that is meant.
    async fn find(&self, name: Name, run: RunRef) -> Result<Meant, Status> {
        let (project, name, newest_live) = {
            let view = self.services.driver.view();
            let project =
                view.project_named(&name).ok_or_else(|| refused(&Refusal::not_found("project", &name)))?;
            (project.record.uid, project.record.name.clone(), project.runs.last().copied())
        };
        let run = match run {
            RunRef::Id(run) => run,
            RunRef::Newest => {
                let past = history::read(&self.services.driver, move |store| store.runs(project, None, 1));
                let newest = newest_live.max(past.await?.first().map(|run| run.id));
                newest.ok_or_else(|| refused(&Refusal::not_found("run yet of project", &name)))?
            }
        };
        Ok(Meant { project, name, run })
    }

    async fn find_run(&self, what: &str, field: &str, text: &str) -> Result<Meant, Status> {
        let (name, run) = convert::parse_run(field, text).map_err(|fault| invalid(what, vec![fault]))?;
        self.find(name, run).await
    }

    async fn stored(&self, meant: &Meant) -> Result<Stored, Status> {
        stored(&self.services, meant.project, meant.run).await?.ok_or_else(|| no_such_run(meant))
    }
}

#[tonic::async_trait]
impl v1::run_service_server::RunService for Runs {
    type WatchRunStream = Line<v1::WatchRunResponse>;
    type TailRunLogStream = Line<v1::TailRunLogResponse>;

    async fn get_run(&self, request: Request<v1::GetRunRequest>) -> Result<Response<v1::Run>, Status> {
        let meant = self.find_run("run not shown", "name", &request.get_ref().name).await?;
        shown(&self.services, meant.project, meant.run).await.map(Response::new)
    }

    async fn list_runs(
        &self,
        request: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        const WHAT: &str = "runs not listed";
        let v1::ListRunsRequest { parent, page_size, page_token } = request.into_inner();
        let list = format!("runs {parent}");
        let mut page =
            page::read(&list, page_size, &page_token, PAGE_SIZE).map_err(|faults| invalid(WHAT, faults))?;
        // One more than the page tells whether there is a next one.
        page.size = page.size.min(HISTORY_PAGE_MAX - 1);
        let before = page.after.as_deref().map(str::parse::<RunId>).transpose().map_err(|_| {
            invalid(WHAT, vec![Violation::new("page_token", "names no run; send the one of the last answer")])
        })?;
        let (project, name, live) = {
            let view = self.services.driver.view();
            let project = super::project::find(&view, WHAT, "parent", &parent)?;
            let older = project.runs.iter().filter(|run| before.is_none_or(|before| **run < before));
            let live: Vec<RunRecord> = older.filter_map(|run| view.run(*run).cloned()).collect();
            (project.record.uid, project.record.name.clone(), live)
        };
        let (runs, next_page_token) = history::read(&self.services.driver, move |store| {
            let mut runs: BTreeMap<Reverse<RunId>, RunRecord> =
                live.into_iter().map(|run| (Reverse(run.id), run)).collect();
            // One that closed meanwhile is in both: the past one is the newer.
            let past = store.runs(project, before, page.size + 1)?;
            runs.extend(past.into_iter().map(|run| (Reverse(run.id), run)));
            let (runs, next) = page::cut(&list, &page, runs.into_values(), |run| run.id.to_string());
            let with_origin = runs.into_iter().map(|run| {
                let id = AttemptId { run: run.id, number: run.origin_attempt };
                store.attempt(project, id).map(|origin| (run, origin))
            });
            Ok((with_origin.collect::<Result<Vec<_>, _>>()?, next))
        })
        .await?;
        let now = self.services.driver.now();
        let view = self.services.driver.view();
        let progress = &self.services.progress;
        let show = |(run, origin): (RunRecord, Option<AttemptRecord>)| {
            show_run(&view, now, progress, &name, &run, origin.as_ref())
        };
        Ok(Response::new(v1::ListRunsResponse { runs: runs.into_iter().map(show).collect(), next_page_token }))
    }

    async fn list_attempts(
        &self,
        request: Request<v1::ListAttemptsRequest>,
    ) -> Result<Response<v1::ListAttemptsResponse>, Status> {
        let meant = self.find_run("attempts not listed", "parent", &request.get_ref().parent).await?;
        let stored = self.stored(&meant).await?;
        let now = self.services.driver.now();
        let view = self.services.driver.view();
        let show = |attempt| show_attempt(&view, now, &self.services.progress, &meant.name, attempt);
        let attempts = stored.attempts.iter().map(show).collect();
        Ok(Response::new(v1::ListAttemptsResponse { attempts }))
    }

    async fn watch_run(
        &self,
        request: Request<v1::WatchRunRequest>,
    ) -> Result<Response<Line<v1::WatchRunResponse>>, Status> {
        let meant = self.find_run("run not watched", "name", &request.get_ref().name).await?;
        let stored = self.stored(&meant).await?;
        Ok(Response::new(watch::start(self.services.clone(), meant, stored)))
    }

    async fn tail_run_log(
        &self,
        request: Request<v1::TailRunLogRequest>,
    ) -> Result<Response<Line<v1::TailRunLogResponse>>, Status> {
        const WHAT: &str = "log not shown";
        let v1::TailRunLogRequest { name, follow } = request.into_inner();
        let (project, run, number) =
            convert::parse_run_or_attempt("name", &name).map_err(|fault| invalid(WHAT, vec![fault]))?;
        let meant = self.find(project, run).await?;
        let stored = self.stored(&meant).await?;
        let attempt = match number {
            Some(number) => stored.attempts.into_iter().find(|attempt| attempt.id.number == number),
            None => stored.attempts.into_iter().next_back(),
        };
        let attempt = attempt.ok_or_else(|| refused(&Refusal::not_found("attempt", &name)))?;
        Ok(Response::new(tail::start(self.services.clone(), attempt, follow)))
    }

    async fn cancel_run(&self, request: Request<v1::CancelRunRequest>) -> Result<Response<v1::Run>, Status> {
        let by = user(&request)?;
        let meant = self.find_run("run not cancelled", "name", &request.get_ref().name).await?;
        let Meant { project, run, .. } = meant;
        ask(&self.services, &by, Ask::CancelRun { project, run }).await?;
        tracing::info!(target: "audit", %by, project = %meant.name, %run, "run cancelled");
        shown(&self.services, project, run).await.map(Response::new)
    }
}
