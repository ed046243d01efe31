//! Projects, as people declare and steer them: the request is read, one input is put to the driver, and what came
//! of it is shown from the view. Look-ups never wait for the driver.

mod apply;
mod cause;
mod check;
mod explain;
mod export;
mod filter;
mod order;
mod plan;
mod preview;
mod push;
mod show;
mod standing;
mod switch;
mod why;
mod words;

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use ::fleet::{
    Engine,
    attempt::AttemptRecord,
    engine::{Project, WaitReason},
    id::{AgentUid, Name, ProjectUid},
    input::{Ask, Reply},
    project::{Destination, ProjectRecord},
    record::Record,
    refusal::{Refusal, RefusalCode, Violation},
    run::{TriggerKind, Wish},
};
use mirror_proto::{convert, status::internal, v1};
use tonic::{Code, Request, Response, Status};

use self::filter::{Filter, Order};
pub(crate) use self::push::push;
pub use self::{
    check::CHECKS_MAX,
    explain::EXPLAINS_MAX,
    plan::{APPLIES_AT_ONCE, PLANS_AT_ONCE},
    preview::PREVIEWS_MAX,
    show::{show, show_all},
};
use super::{By, acting_on, ask, broken, invalid, page, refused, request::key, run, run::history, user};
use crate::{Services, audit::origin, session::trace, store::VALUE_BYTES_MAX};

/// Projects on a page when the caller names no number.
const PAGE_SIZE: usize = 100;
/// Tries of an update without an etag, when others change the project at the same time.
const UPDATE_TRIES: usize = 5;

/// `mirror.v1.ProjectService`.
#[derive(Debug, Clone)]
pub struct Projects {
    services: Services,
}

/// Reads `projects/{project}` and finds it.
pub(super) fn find<'a>(view: &'a Engine, what: &str, field: &str, text: &str) -> Result<&'a Project, Status> {
    let name = convert::parse_project(field, text).map_err(|fault| invalid(what, vec![fault]))?;
    origin::concerns(convert::project_name(&name));
    view.project_named(&name).ok_or_else(|| refused(&Refusal::not_found("project", &name)))
}

/// An update, ready for the driver.
struct Update {
    ask: Ask,
    notes: Vec<String>,
    shown: v1::Project,
}

impl Projects {
    /// The service.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self { services }
    }

    fn shown(&self, uid: ProjectUid, notes: Vec<String>) -> Result<Response<v1::Project>, Status> {
        let now = self.services.driver.now();
        let view = self.services.driver.view();
        let project = view.project(uid).ok_or_else(|| {
            refused(&Refusal::new(RefusalCode::NotFound, "NOT_FOUND", "the project has been deleted since"))
        })?;
        let mut shown = show(&view, now, &self.services.progress, project);
        if let Some(schedule) = &mut shown.schedule {
            schedule.notes = notes;
        }
        Ok(Response::new(shown))
    }

    /// Reads a declaration: agents by the view, passwords sealed at once.
    fn read<T>(
        &self,
        view: &Engine,
        current: Option<&::fleet::project::ProjectSpec>,
        read: impl FnOnce(convert::Context<'_>) -> Result<T, Vec<Violation>>,
    ) -> Result<Result<T, Vec<Violation>>, Status> {
        let unsealed = Cell::new(None);
        let seal = |password: &str| {
            self.services.sealer.seal(password).unwrap_or_else(|error| {
                unsealed.set(Some(error));
                Vec::new()
            })
        };
        let agent = |name: &Name| view.agent_named(name).map(|agent| agent.uid);
        let project = |name: &Name| view.project_named(name).map(|project| project.record.uid);
        let outcome = read(convert::Context { agent: &agent, project: &project, seal: &seal, current });
        match unsealed.take() {
            Some(error) => Err(broken("sealing the password", &error)),
            None => Ok(outcome),
        }
    }

    /// What a declaration would become, without anything that only a stored one has.
    fn imagined(&self, view: &Engine, name: Name, declared: convert::Declaration) -> v1::Project {
        let now = self.services.driver.now().wall;
        let record = ProjectRecord {
            uid: ProjectUid(0),
            name,
            spec: declared.spec,
            paused: None,
            archived: None,
            revision: 0,
            create_time: now,
            update_time: now,
        };
        let shown = convert::project_to_wire(&record, view, declared.notes);
        v1::Project { etag: String::new(), create_time: None, update_time: None, ..shown }
    }

    fn read_update(&self, request: &v1::UpdateProjectRequest) -> Result<Update, Status> {
        const WHAT: &str = "project not changed";
        let wanted = request.project.as_ref().ok_or_else(|| invalid(WHAT, vec![missing("project")]))?;
        let view = self.services.driver.view();
        let project = find(&view, WHAT, "project.name", &wanted.name)?;
        let record = &project.record;
        let paths = request.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
        let current = convert::project_to_wire(record, &*view, Vec::new());
        let etag = convert::parse_etag("project.etag", &wanted.etag);
        let declared = match convert::apply_mask(&current, wanted, paths) {
            Ok(merged) => {
                self.read(&view, Some(&record.spec), |context| convert::spec_from_wire(&merged, context))?
            }
            Err(faults) => Err(faults),
        };
        let (etag, declared) = match (etag, declared) {
            (Ok(etag), Ok(declared)) => (etag, declared),
            (etag, declared) => {
                let faults = etag.err().into_iter().chain(declared.err().into_iter().flatten());
                return Err(invalid(WHAT, faults.collect()));
            }
        };
        let notes = declared.notes.clone();
        let shown = self.imagined(&view, record.name.clone(), declared.clone());
        let ask = Ask::UpdateProject {
            project: record.uid,
            spec: Box::new(declared.spec),
            revision: etag.unwrap_or(record.revision),
            validate_only: request.validate_only,
        };
        Ok(Update { ask, notes, shown })
    }

    /// Finds the project of a request with an etag.
    fn find_at(&self, what: &str, name: &str, etag: &str) -> Result<(ProjectUid, Name, Option<u64>), Status> {
        let revision = convert::parse_etag("etag", etag);
        let named = convert::parse_project("name", name);
        let (named, revision) = match (named, revision) {
            (Ok(named), Ok(revision)) => (named, revision),
            (named, revision) => {
                return Err(invalid(what, named.err().into_iter().chain(revision.err()).collect()));
            }
        };
        origin::concerns(convert::project_name(&named));
        let view = self.services.driver.view();
        let project =
            view.project_named(&named).ok_or_else(|| refused(&Refusal::not_found("project", &named)))?;
        Ok((project.record.uid, project.record.name.clone(), revision))
    }

    /// Who acts on the project of a request.
    fn owner<T>(&self, request: &Request<T>, verb: &str, project: &str) -> Result<By, Status> {
        acting_on(&self.services, request, verb, convert::parse_project("name", project))
    }

    /// Finds an agent that a request names.
    fn agent(&self, name: &Name) -> Result<AgentUid, Status> {
        let known = self.services.driver.view().agent_named(name).map(|agent| agent.uid);
        known.ok_or_else(|| refused(&Refusal::not_found("agent", name)))
    }

    /// A declaration that is too large with the new place in it is told before the tree is copied, not after.
    fn fits_after_move(&self, uid: ProjectUid, agent: AgentUid, to: &Destination) -> Result<(), Violation> {
        let view = self.services.driver.view();
        let project = view.project(uid);
        let moved = project
            .and_then(|project| view.record_after_move(self.services.driver.now(), project, agent, to));
        let Some(record) = moved else { return Ok(()) };
        let bytes = mirror_proto::stored::encode(&Record::Project(Arc::new(record))).len();
        if bytes <= VALUE_BYTES_MAX {
            return Ok(());
        }
        let text = format!(
            "the project's declaration would have {bytes} bytes with it, at most {VALUE_BYTES_MAX}; make it smaller first"
        );
        Err(Violation::new("destination", text))
    }

    /// What only the history knows about the reasons of waiting.
    async fn past(&self, uid: ProjectUid) -> Result<why::Past, Status> {
        let now = self.services.driver.now();
        let waiting: Vec<AttemptRecord> = {
            let view = self.services.driver.view();
            let waits = view.why(now, uid);
            let backoffs = waits.iter().filter(|why| why.wait.reason == WaitReason::Backoff);
            backoffs.filter_map(|why| view.attempt(why.attempt).cloned()).collect()
        };
        if waiting.is_empty() {
            return Ok(why::Past::default());
        }
        history::read(&self.services.driver, move |store| {
            let mut failed = BTreeMap::new();
            for one in waiting {
                let attempts = store.attempts(uid, one.id.run)?;
                let before = attempts.into_iter().rev().find(|other| is_before(other, &one));
                failed.extend(before.map(|before| (one.id, before)));
            }
            Ok(why::Past { failed })
        })
        .await
    }
}

/// Whether `other` is an ended try of the same placement before `waiting`.
fn is_before(other: &AttemptRecord, waiting: &AttemptRecord) -> bool {
    other.agent == waiting.agent && other.id.number < waiting.id.number && other.state.end().is_some()
}

/// The request as it is remembered: the hash of a password that people chose would help to guess it.
fn without_passwords(request: &v1::CreateProjectRequest) -> v1::CreateProjectRequest {
    let mut request = request.clone();
    for upstream in request.project.iter_mut().flat_map(|project| &mut project.upstreams) {
        upstream.password = upstream.password.as_ref().map(|_| String::new());
    }
    request
}

fn missing(field: &str) -> Violation {
    Violation::new(field, "is required")
}

pub(super) fn unexpected(reply: &Reply) -> Status {
    tracing::error!(?reply, "the engine gave an answer of another kind; this is a bug");
    internal("INTERNAL", "the coordinator gave itself an answer of another kind; please report it")
}

#[tonic::async_trait]
impl v1::project_service_server::ProjectService for Projects {
    async fn create_project(
        &self,
        request: Request<v1::CreateProjectRequest>,
    ) -> Result<Response<v1::Project>, Status> {
        const WHAT: &str = "project not created";
        let by = user(&request)?;
        let request = request.into_inner();
        let id = key(&by, "CreateProject", &request.request_id, &without_passwords(&request));
        let wire = request.project.as_ref().ok_or_else(|| invalid(WHAT, vec![missing("project")]))?;
        if let Ok(name) = convert::parse_project("project.name", &wire.name) {
            origin::concerns(convert::project_name(&name));
        }
        let (ask_for, name, declared) = {
            let view = self.services.driver.view();
            let declared = self.read(&view, None, |context| convert::project_from_wire(wire, context))?;
            let (id, (name, declared)) = match (id, declared) {
                (Ok(id), Ok(declared)) => (id, declared),
                (id, declared) => {
                    let faults = declared.err().into_iter().flatten().chain(id.err());
                    return Err(invalid(WHAT, faults.collect()));
                }
            };
            let ask_for = Ask::CreateProject {
                name: name.clone(),
                spec: Box::new(declared.spec.clone()),
                paused: request.paused,
                request: id,
                validate_only: request.validate_only,
            };
            (ask_for, name, declared)
        };
        match ask(&self.services, &by, ask_for).await? {
            Reply::Project(uid) => {
                tracing::info!(target: "audit", %by, project = %name, "project created");
                self.shown(uid, declared.notes)
            }
            Reply::Done => Ok(Response::new(self.imagined(&self.services.driver.view(), name, declared))),
            other => Err(unexpected(&other)),
        }
    }

    async fn get_project(
        &self,
        request: Request<v1::GetProjectRequest>,
    ) -> Result<Response<v1::Project>, Status> {
        let now = self.services.driver.now();
        let view = self.services.driver.view();
        let project = find(&view, "project not shown", "name", &request.get_ref().name)?;
        Ok(Response::new(show(&view, now, &self.services.progress, project)))
    }

    async fn list_projects(
        &self,
        request: Request<v1::ListProjectsRequest>,
    ) -> Result<Response<v1::ListProjectsResponse>, Status> {
        let v1::ListProjectsRequest { page_size, page_token, filter, order_by } = request.get_ref();
        let order = Order::read(order_by);
        let list = format!("projects {order:?} {filter}");
        let page = page::read(&list, *page_size, page_token, PAGE_SIZE);
        let (page, filter, order) = match (page, Filter::read(filter), order) {
            (Ok(page), Ok(filter), Ok(order)) => (page, filter, order),
            (page, filter, order) => {
                let faults = page.err().into_iter().flatten();
                let faults = faults.chain(filter.err().into_iter().flatten()).chain(order.err());
                return Err(invalid("projects not listed", faults.collect()));
            }
        };
        let now = self.services.driver.now();
        let view = self.services.driver.view();
        let after: Option<Name> = page.after.as_deref().and_then(|after| after.parse().ok());
        let filter = filter.on(&view);
        let rows = order.rows(&view, after.as_ref()).filter(|project| filter.fits(project));
        let (projects, next_page_token) =
            page::cut(&list, &page, rows, |project| project.record.name.to_string());
        let projects = show_all(&view, now, &self.services.progress, projects);
        Ok(Response::new(v1::ListProjectsResponse { projects, next_page_token }))
    }

    async fn update_project(
        &self,
        request: Request<v1::UpdateProjectRequest>,
    ) -> Result<Response<v1::Project>, Status> {
        let by = user(&request)?;
        let request = request.into_inner();
        let any_etag = request.project.as_ref().is_some_and(|project| project.etag.is_empty());
        let mut tries = UPDATE_TRIES;
        loop {
            tries -= 1;
            let Update { ask: update, notes, shown } = self.read_update(&request)?;
            match ask(&self.services, &by, update).await {
                Ok(Reply::Project(uid)) => {
                    tracing::info!(target: "audit", %by, project = shown.name, "project changed");
                    return self.shown(uid, notes);
                }
                Ok(Reply::Done) => return Ok(Response::new(shown)),
                Ok(other) => return Err(unexpected(&other)),
                // Somebody else was faster; who sent no etag means whatever is there.
                Err(status) if status.code() == Code::Aborted && any_etag && tries > 0 => {}
                Err(status) => return Err(status),
            }
        }
    }

    async fn delete_project(
        &self,
        request: Request<v1::DeleteProjectRequest>,
    ) -> Result<Response<()>, Status> {
        let by = user(&request)?;
        let v1::DeleteProjectRequest { name, etag, cancel_running, tree_to_trash } = request.into_inner();
        let (project, name, revision) = self.find_at("project not deleted", &name, &etag)?;
        let delete = Ask::DeleteProject { project, revision, cancel_running, tree_to_trash };
        ask(&self.services, &by, delete).await?;
        tracing::info!(target: "audit", %by, project = %name, cancel_running, tree_to_trash, "project deleted");
        Ok(Response::new(()))
    }

    async fn rename_project(
        &self,
        request: Request<v1::RenameProjectRequest>,
    ) -> Result<Response<v1::Project>, Status> {
        const WHAT: &str = "project not renamed";
        let by = user(&request)?;
        let v1::RenameProjectRequest { name, new_name, etag } = request.into_inner();
        let new = convert::parse_project("new_name", &new_name).map_err(|fault| {
            let others =
                [convert::parse_project("name", &name).err(), convert::parse_etag("etag", &etag).err()];
            invalid(WHAT, others.into_iter().flatten().chain([fault]).collect())
        })?;
        let (project, old, revision) = self.find_at(WHAT, &name, &etag)?;
        ask(&self.services, &by, Ask::Rename { project, name: new.clone(), revision }).await?;
        tracing::info!(target: "audit", %by, project = %old, %new, "project renamed");
        self.shown(project, Vec::new())
    }

    async fn archive_project(
        &self,
        request: Request<v1::ArchiveProjectRequest>,
    ) -> Result<Response<v1::Project>, Status> {
        let by = user(&request)?;
        let v1::ArchiveProjectRequest { name, reason, etag } = request.into_inner();
        let (project, name, revision) = self.find_at("project not archived", &name, &etag)?;
        ask(&self.services, &by, Ask::Archive { project, reason: reason.clone(), revision }).await?;
        tracing::info!(target: "audit", %by, project = %name, reason, "project archived");
        self.shown(project, Vec::new())
    }

    async fn unarchive_project(
        &self,
        request: Request<v1::UnarchiveProjectRequest>,
    ) -> Result<Response<v1::Project>, Status> {
        let by = user(&request)?;
        let v1::UnarchiveProjectRequest { name, etag } = request.into_inner();
        let (project, name, revision) = self.find_at("project not unarchived", &name, &etag)?;
        ask(&self.services, &by, Ask::Unarchive { project, revision }).await?;
        tracing::info!(target: "audit", %by, project = %name, "project unarchived");
        self.shown(project, Vec::new())
    }

    async fn pause_project(
        &self,
        request: Request<v1::PauseProjectRequest>,
    ) -> Result<Response<v1::Project>, Status> {
        const WHAT: &str = "project not paused";
        let by = self.owner(&request, "pause", &request.get_ref().name)?;
        let v1::PauseProjectRequest { name, reason, until, etag } = request.into_inner();
        let (project, name, revision) = self.find_at(WHAT, &name, &etag)?;
        let until = until.map(|until| convert::wall_from_wire("until", &until)).transpose();
        let until = until.map_err(|fault| invalid(WHAT, vec![fault]))?;
        ask(&self.services, &by, Ask::Pause { project, reason: reason.clone(), until, revision }).await?;
        tracing::info!(target: "audit", %by, project = %name, reason, "project paused");
        self.shown(project, Vec::new())
    }

    async fn resume_project(
        &self,
        request: Request<v1::ResumeProjectRequest>,
    ) -> Result<Response<v1::Project>, Status> {
        let by = self.owner(&request, "resume", &request.get_ref().name)?;
        let v1::ResumeProjectRequest { name, etag } = request.into_inner();
        let (project, name, revision) = self.find_at("project not resumed", &name, &etag)?;
        ask(&self.services, &by, Ask::Resume { project, revision }).await?;
        tracing::info!(target: "audit", %by, project = %name, "project resumed");
        self.shown(project, Vec::new())
    }

    async fn run_project(
        &self,
        request: Request<v1::RunProjectRequest>,
    ) -> Result<Response<v1::RunProjectResponse>, Status> {
        const WHAT: &str = "run not started";
        let by = self.owner(&request, "run", &request.get_ref().name)?;
        let traceparent = trace::current(request.metadata());
        let request = request.into_inner();
        let id = key(&by, "RunProject", &request.request_id, &request);
        let id = id.map_err(|fault| invalid(WHAT, vec![fault]))?;
        let project = find(&self.services.driver.view(), WHAT, "name", &request.name)?.record.uid;
        let v1::RunProjectRequest { name, dry_run, reclaim, allow_deletes, .. } = request;
        let wish = Wish { dry_run, reclaim, allow_deletes, ..Wish::default() };
        let run = Ask::Run { project, kind: TriggerKind::User, wish, request: id, traceparent };
        match ask(&self.services, &by, run).await? {
            Reply::Run { project, run, coalesced, notes } => {
                tracing::info!(
                    target: "audit", %by, project = name, %run, coalesced, dry_run, reclaim, allow_deletes,
                    "run asked for"
                );
                let run = run::shown(&self.services, project, run).await?;
                Ok(Response::new(v1::RunProjectResponse { run: Some(run), coalesced, notes }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn push_project(
        &self,
        request: Request<v1::PushProjectRequest>,
    ) -> Result<Response<v1::PushProjectResponse>, Status> {
        push(&self.services, request).await.map(Response::new)
    }

    async fn promote_origin(
        &self,
        request: Request<v1::PromoteOriginRequest>,
    ) -> Result<Response<v1::Project>, Status> {
        const WHAT: &str = "origin not changed";
        let by = user(&request)?;
        let v1::PromoteOriginRequest { name, agent, etag, force } = request.into_inner();
        let wanted = convert::parse_agent("agent", &agent).map_err(|fault| invalid(WHAT, vec![fault]))?;
        let (project, name, revision) = self.find_at(WHAT, &name, &etag)?;
        let agent = self.agent(&wanted)?;
        ask(&self.services, &by, Ask::Promote { project, agent, revision, force }).await?;
        tracing::info!(target: "audit", %by, project = %name, agent = %wanted, force, "origin changed");
        self.shown(project, Vec::new())
    }

    async fn reseed_placement(
        &self,
        request: Request<v1::ReseedPlacementRequest>,
    ) -> Result<Response<v1::Run>, Status> {
        const WHAT: &str = "placement not reseeded";
        let by = user(&request)?;
        let traceparent = trace::current(request.metadata());
        let v1::ReseedPlacementRequest { name, agent, from, etag } = request.into_inner();
        let (mut faults, mut read) = (Vec::new(), Vec::new());
        for (field, text) in [("agent", &agent), ("from", &from)] {
            match convert::parse_agent(field, text) {
                Ok(name) => read.push(name),
                Err(fault) => faults.push(fault),
            }
        }
        let [target, donor] = &read[..] else { return Err(invalid(WHAT, faults)) };
        let (project, name, revision) = self.find_at(WHAT, &name, &etag)?;
        let (agent, from) = (self.agent(target)?, self.agent(donor)?);
        match ask(&self.services, &by, Ask::Reseed { project, agent, from, revision, traceparent }).await? {
            Reply::Run { run, .. } => {
                tracing::info!(
                    target: "audit", %by, project = %name, agent = %target, from = %donor, %run, "placement reseeded"
                );
                run::shown(&self.services, project, run).await.map(Response::new)
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn move_placement(
        &self,
        request: Request<v1::MovePlacementRequest>,
    ) -> Result<Response<v1::Run>, Status> {
        const WHAT: &str = "placement not moved";
        let by = user(&request)?;
        let traceparent = trace::current(request.metadata());
        let v1::MovePlacementRequest { name, agent, destination, etag } = request.into_inner();
        let read =
            (convert::parse_agent("agent", &agent), convert::read_destination("destination", &destination));
        let (target, to) = match read {
            (Ok(target), Ok(to)) => (target, to),
            (target, to) => return Err(invalid(WHAT, target.err().into_iter().chain(to.err()).collect())),
        };
        let (project, name, revision) = self.find_at(WHAT, &name, &etag)?;
        let agent = self.agent(&target)?;
        self.fits_after_move(project, agent, &to).map_err(|fault| invalid(WHAT, vec![fault]))?;
        let place = to.clone();
        match ask(&self.services, &by, Ask::Move { project, agent, to, revision, traceparent }).await? {
            Reply::Run { run, .. } => {
                tracing::info!(
                    target: "audit", %by, project = %name, agent = %target, to = %place, %run, "placement is moved"
                );
                run::shown(&self.services, project, run).await.map(Response::new)
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn switch_upstream(
        &self,
        request: Request<v1::SwitchUpstreamRequest>,
    ) -> Result<Response<v1::Project>, Status> {
        const WHAT: &str = "upstream not switched";
        let by = user(&request)?;
        let v1::SwitchUpstreamRequest { name, upstream, etag } = request.into_inner();
        let (project, name, revision) = self.find_at(WHAT, &name, &etag)?;
        let uri = switch::meant(&self.services.driver.view(), project, &upstream)
            .map_err(|fault| invalid(WHAT, vec![fault]))?;
        ask(&self.services, &by, Ask::SwitchUpstream { project, uri: uri.clone(), revision }).await?;
        tracing::info!(target: "audit", %by, project = %name, upstream = uri, "upstream switched");
        self.shown(project, Vec::new())
    }

    async fn why_project(
        &self,
        request: Request<v1::WhyProjectRequest>,
    ) -> Result<Response<v1::WhyProjectResponse>, Status> {
        const WHAT: &str = "project not explained";
        let name = request.into_inner().name;
        let uid = find(&self.services.driver.view(), WHAT, "name", &name)?.record.uid;
        let past = self.past(uid).await?;
        let now = self.services.driver.now();
        let view = self.services.driver.view();
        let project = find(&view, WHAT, "name", &name)?;
        let (reasons, sentences) = why::explain(&view, now, project, &past);
        let waits = reasons.iter().map(|why| convert::wait_to_wire(why, &*view)).collect();
        Ok(Response::new(v1::WhyProjectResponse { waits, sentences }))
    }

    async fn preview_schedule(
        &self,
        request: Request<v1::PreviewScheduleRequest>,
    ) -> Result<Response<v1::PreviewScheduleResponse>, Status> {
        self.preview(request.into_inner()).await.map(Response::new)
    }

    async fn explain_project(
        &self,
        request: Request<v1::ExplainProjectRequest>,
    ) -> Result<Response<v1::ExplainProjectResponse>, Status> {
        self.explain(&request.get_ref().name).await.map(Response::new)
    }

    async fn check_project(
        &self,
        request: Request<v1::CheckProjectRequest>,
    ) -> Result<Response<v1::CheckProjectResponse>, Status> {
        let by = user(&request)?;
        self.look(&by, request.into_inner()).await.map(Response::new)
    }

    async fn plan_projects(
        &self,
        request: Request<v1::PlanProjectsRequest>,
    ) -> Result<Response<v1::PlanProjectsResponse>, Status> {
        let by = user(&request)?;
        let compares = plan::may_compare_passwords(&request);
        self.show_plan(by, compares, request.into_inner()).await.map(Response::new)
    }

    async fn apply_projects(
        &self,
        request: Request<v1::ApplyProjectsRequest>,
    ) -> Result<Response<v1::ApplyProjectsResponse>, Status> {
        let by = user(&request)?;
        self.apply_declared(by, request.into_inner()).await.map(Response::new)
    }

    async fn export_projects(
        &self,
        request: Request<v1::ExportProjectsRequest>,
    ) -> Result<Response<v1::ExportProjectsResponse>, Status> {
        self.exported(request.get_ref()).map(Response::new)
    }
}
