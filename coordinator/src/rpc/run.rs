//! Runs and attempts, as people see, follow and end them. What the view has is shown as the view has it: the store
//! may be ahead of it by what is not yet on disk. Ended ones, which the view has forgotten, come from the history.

pub(crate) mod history;
mod tail;
mod watch;

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use ::fleet::{
    Engine,
    attempt::{AttemptRecord, End, Role},
    id::{AttemptId, Name, ProjectUid, RunId},
    input::{Ask, Reply},
    outcome::Evidence,
    placement::PlacementRecord,
    refusal::{Refusal, Violation},
    run::RunRecord,
    time::Now,
};
use mirror_proto::{
    convert::{self, AttemptView, RunRef},
    status, v1,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

use super::{By, RETRY_UNAVAILABLE, acting_on, ask, invalid, page, refused};
use crate::{
    Services,
    audit::origin,
    outbox::line::Line,
    session::trace,
    store::{PAGE_MAX as HISTORY_PAGE_MAX, StoreError},
    watch::Progress,
};

/// Runs on a page when the caller names no number.
const PAGE_SIZE: usize = 20;
/// Watches and logs that are followed at once, all callers together.
const STREAMS_MAX: usize = 1_024;

/// `mirror.v1.RunService`.
#[derive(Debug)]
pub struct Runs {
    services: Services,
    streams: Arc<Semaphore>,
}

/// One of the [`STREAMS_MAX`].
type Place = OwnedSemaphorePermit;

/// What the view has of a run at one moment.
#[derive(Debug, Clone, PartialEq)]
struct Live {
    /// `None`: it is in the history, or never was.
    run: Option<RunRecord>,
    /// Those that have not ended, in order.
    attempts: Vec<AttemptRecord>,
}

impl Live {
    fn of(view: &Engine, run: RunId) -> Self {
        Self { run: view.run(run).cloned(), attempts: view.attempts_of(run).cloned().collect() }
    }
}

/// A run with all its attempts.
#[derive(Debug, Clone)]
struct Whole {
    run: RunRecord,
    /// All of them, in order.
    attempts: Vec<AttemptRecord>,
}

impl Whole {
    fn origin(&self) -> Option<&AttemptRecord> {
        self.attempts.iter().find(|attempt| attempt.id.number == self.run.origin_attempt)
    }
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
    let live = Live::of(&services.driver.view(), run);
    let whole = whole(services, project, run, live).await?;
    let whole = whole.ok_or_else(|| refused(&Refusal::not_found("run", run)))?;
    let now = services.driver.now();
    let view = services.driver.view();
    let name = convert::Names::project(&*view, project);
    let name = name.ok_or_else(|| refused(&Refusal::not_found("project of run", run)))?;
    Ok(show_run(&view, now, &services.progress, &name, &whole.run, whole.origin()))
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

/// The run with all its attempts as they were when the view showed `live`; `None`: there is none, or it was
/// pruned.
async fn whole(
    services: &Services,
    project: ProjectUid,
    run: RunId,
    live: Live,
) -> Result<Option<Whole>, Status> {
    history::read(&services.driver, move |store| {
        let record = match live.run {
            Some(record) => Some(record),
            None => store.run(project, run)?,
        };
        let Some(run) = record else { return Ok(None) };
        let mut attempts = store.attempts(project, run.id)?;
        // Made after the look.
        attempts.retain(|attempt| attempt.id.number <= run.attempts);
        for seen in live.attempts {
            match attempts.iter_mut().find(|attempt| attempt.id == seen.id) {
                Some(attempt) => *attempt = seen,
                None => attempts.push(seen),
            }
        }
        attempts.sort_by_key(|attempt| attempt.id);
        Ok(Some(Whole { run, attempts }))
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
        Self { services, streams: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }

    fn place(&self) -> Result<Place, Status> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let text = format!("{STREAMS_MAX} watches and logs are followed now; try again in a moment");
            status::exhausted("TOO_MANY_STREAMS", &text, RETRY_UNAVAILABLE)
        })
    }

    /// Finds the project, and the newest run where that is meant.
    async fn find(&self, name: Name, run: RunRef) -> Result<Meant, Status> {
        origin::concerns(match run {
            RunRef::Id(run) => convert::run_name(&name, run),
            RunRef::Newest => convert::project_name(&name),
        });
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
        origin::concerns(convert::run_name(&name, run));
        Ok(Meant { project, name, run })
    }

    /// Who acts on the project of the run that a request names.
    #[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
    fn owner<T>(&self, request: &Request<T>, verb: &str, run: &str) -> Result<By, Status> {
        acting_on(&self.services, request, verb, convert::parse_run("name", run).map(|(project, _)| project))
    }

    async fn find_run(&self, what: &str, field: &str, text: &str) -> Result<Meant, Status> {
        let (name, run) = convert::parse_run(field, text).map_err(|fault| invalid(what, vec![fault]))?;
        self.find(name, run).await
    }

    /// The run that is to be approved; for "-" that of the newest hold. Whether it may be is the engine's to say.
    async fn find_held(&self, what: &str, text: &str) -> Result<Meant, Status> {
        let (name, run) = convert::parse_run("name", text).map_err(|fault| invalid(what, vec![fault]))?;
        let newest = {
            let view = self.services.driver.view();
            let project = view.project_named(&name);
            let holds = project.into_iter().flat_map(|project| project.placements.values());
            let origin_first = |one: &&PlacementRecord| (one.role == Role::Replica, one.agent);
            let mut held: Vec<&PlacementRecord> = holds.filter(|one| one.hold.is_some()).collect();
            held.sort_by_key(origin_first);
            held.first().and_then(|one| one.hold.as_ref()).map(|hold| hold.newest.run)
        };
        let run = match (run, newest) {
            (RunRef::Newest, Some(run)) => RunRef::Id(run),
            (run, _) => run,
        };
        self.find(name, run).await
    }

    /// What a run's guard found, as far as the history has it.
    async fn evidence_of(&self, project: ProjectUid, run: RunId) -> Result<Option<Evidence>, Status> {
        history::read(&self.services.driver, move |store| {
            let attempts = store.attempts(project, run)?;
            let held = attempts.iter().rev().find_map(|attempt| match attempt.state.end() {
                Some(End::Held(outcome)) => outcome.evidence.clone(),
                _ => None,
            });
            Ok(held)
        })
        .await
    }

    async fn whole(&self, meant: &Meant) -> Result<Whole, Status> {
        let live = Live::of(&self.services.driver.view(), meant.run);
        let whole = whole(&self.services, meant.project, meant.run, live).await?;
        whole.ok_or_else(|| no_such_run(meant))
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
            let live: Vec<Live> = older.map(|run| Live::of(&view, *run)).collect();
            (project.record.uid, project.record.name.clone(), live)
        };
        let (runs, next_page_token) = history::read(&self.services.driver, move |store| {
            let past = store.runs(project, before, page.size + 1)?;
            let mut runs: BTreeMap<Reverse<RunId>, (RunRecord, Vec<AttemptRecord>)> =
                past.into_iter().map(|run| (Reverse(run.id), (run, Vec::new()))).collect();
            // One that is closed but not yet on disk is in both.
            let live = live.into_iter().filter_map(|live| Some((live.run?, live.attempts)));
            runs.extend(live.map(|(run, attempts)| (Reverse(run.id), (run, attempts))));
            let (runs, next) = page::cut(&list, &page, runs.into_values(), |(run, _)| run.id.to_string());
            let with_origin = runs.into_iter().map(|(run, live)| {
                let id = AttemptId { run: run.id, number: run.origin_attempt };
                let seen = live.into_iter().find(|attempt| attempt.id == id);
                let origin = match seen {
                    Some(seen) => Some(seen),
                    None => store.attempt(project, id)?,
                };
                Ok((run, origin))
            });
            Ok((with_origin.collect::<Result<Vec<_>, StoreError>>()?, next))
        })
        .await?;
        let now = self.services.driver.now();
        let view = self.services.driver.view();
        let progress = &self.services.progress;
        let show = |(run, origin): (RunRecord, Option<AttemptRecord>)| {
            show_run(&view, now, progress, &name, &run, origin.as_ref())
        };
        Ok(Response::new(v1::ListRunsResponse {
            runs: runs.into_iter().map(show).collect(),
            next_page_token,
        }))
    }

    async fn list_attempts(
        &self,
        request: Request<v1::ListAttemptsRequest>,
    ) -> Result<Response<v1::ListAttemptsResponse>, Status> {
        let meant = self.find_run("attempts not listed", "parent", &request.get_ref().parent).await?;
        let whole = self.whole(&meant).await?;
        let now = self.services.driver.now();
        let view = self.services.driver.view();
        let show = |attempt| show_attempt(&view, now, &self.services.progress, &meant.name, attempt);
        let attempts = whole.attempts.iter().map(show).collect();
        Ok(Response::new(v1::ListAttemptsResponse { attempts }))
    }

    async fn watch_run(
        &self,
        request: Request<v1::WatchRunRequest>,
    ) -> Result<Response<Line<v1::WatchRunResponse>>, Status> {
        let meant = self.find_run("run not watched", "name", &request.get_ref().name).await?;
        let whole = self.whole(&meant).await?;
        Ok(Response::new(watch::start(self.services.clone(), meant, whole, self.place()?)))
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
        let whole = self.whole(&meant).await?;
        let attempt = match number {
            Some(number) => whole.attempts.into_iter().find(|attempt| attempt.id.number == number),
            None => whole.attempts.into_iter().next_back(),
        };
        let attempt = attempt.ok_or_else(|| refused(&Refusal::not_found("attempt", &name)))?;
        Ok(Response::new(tail::start(self.services.clone(), attempt, follow, self.place()?)))
    }

    async fn cancel_run(&self, request: Request<v1::CancelRunRequest>) -> Result<Response<v1::Run>, Status> {
        let by = self.owner(&request, "cancel runs of", &request.get_ref().name)?;
        let meant = self.find_run("run not cancelled", "name", &request.get_ref().name).await?;
        let Meant { project, run, .. } = meant;
        ask(&self.services, &by, Ask::CancelRun { project, run }).await?;
        tracing::info!(target: "audit", %by, project = %meant.name, %run, "run cancelled");
        shown(&self.services, project, run).await.map(Response::new)
    }

    async fn approve_run(
        &self,
        request: Request<v1::ApproveRunRequest>,
    ) -> Result<Response<v1::Run>, Status> {
        let by = self.owner(&request, "approve runs of", &request.get_ref().name)?;
        let traceparent = trace::current(request.metadata());
        let v1::ApproveRunRequest { name, reason } = request.into_inner();
        let Meant { project, name, run } = self.find_held("run not approved", &name).await?;
        let saw = self.evidence_of(project, run).await?;
        let approve = Ask::Approve { project, run, reason: reason.clone(), saw, traceparent };
        match ask(&self.services, &by, approve).await? {
            Reply::Run { run: made, .. } => {
                tracing::info!(target: "audit", %by, project = %name, held = %run, run = %made, reason, "run approved");
                shown(&self.services, project, made).await.map(Response::new)
            }
            other => Err(super::project::unexpected(&other)),
        }
    }
}
