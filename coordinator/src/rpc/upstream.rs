//! Upstream hosts, as people see and steer them: how each one stands, its limits, and one upstream in the place of
//! another in all projects. Decides nothing: limits and changed projects are the engine's to judge.

use ::fleet::{
    Engine,
    engine::Project,
    id::{Name, ProjectUid},
    input::{Ask, Input, Person, Reply},
    project::ProjectSpec,
    refusal::Violation,
    time::Now,
};
use mirror_proto::{
    convert::{self, UriPrefix},
    v1,
};
use tonic::{Code, Request, Response, Status};

use super::{By, ask, invalid, page, user};
use crate::{Services, audit::origin};

/// Hosts on a page when the caller names no number.
const PAGE_SIZE: usize = 100;
/// Tries of one change, when others change the same thing at the same time.
const TRIES: usize = 5;
/// Most faults of a replacement that are told.
const FAULTS_MAX: usize = 100;

/// `mirror.v1.UpstreamService`.
#[derive(Debug)]
pub struct Upstreams {
    services: Services,
}

/// What is put in the place of what.
struct Replacement {
    from: UriPrefix,
    to: UriPrefix,
    drop_passwords: bool,
}

/// One project, as it will be.
struct Planned {
    uid: ProjectUid,
    revision: u64,
    spec: ProjectSpec,
    shown: Vec<v1::ReplacedUpstream>,
}

impl Planned {
    fn ask(self, validate_only: bool) -> Ask {
        let Self { uid, revision, spec, .. } = self;
        Ask::UpdateProject { project: uid, spec: Box::new(spec), revision, validate_only }
    }
}

impl Replacement {
    fn read(request: &v1::ReplaceUpstreamRequest) -> Result<Self, Vec<Violation>> {
        let from = convert::parse_uri_prefix("from", &request.from);
        let to = convert::parse_uri_prefix("to", &request.to);
        match (from, to) {
            (Ok(from), Ok(to)) if from == to => {
                Err(vec![Violation::new("to", "is what is to be replaced; nothing would change")])
            }
            (Ok(from), Ok(to)) => Ok(Self { from, to, drop_passwords: request.drop_passwords }),
            (from, to) => Err(from.err().into_iter().chain(to.err()).collect()),
        }
    }

    /// The project with its new upstreams; `None`: it has none that is meant.
    fn plan(&self, view: &Engine, project: &Project) -> Result<Option<Planned>, Vec<Violation>> {
        let record = &project.record;
        let mut wire = convert::project_to_wire(record, view, Vec::new());
        let mut shown = Vec::new();
        for (upstream, known) in wire.upstreams.iter_mut().zip(&record.spec.upstreams) {
            let Some(uri) = self.to.in_place_of(&self.from, &upstream.uri) else { continue };
            let from_uri = std::mem::replace(&mut upstream.uri, uri.clone());
            let moves = !self.from.is_same_server(&self.to);
            let password_dropped = self.drop_passwords && moves && !known.sealed_password.is_empty();
            if password_dropped {
                upstream.password = Some(String::new());
            }
            let project = wire.name.clone();
            shown.push(v1::ReplacedUpstream { project, from_uri, to_uri: uri, password_dropped });
        }
        if shown.is_empty() {
            return Ok(None);
        }
        let agent = |name: &Name| view.agent_named(name).map(|agent| agent.uid);
        // No password is given here, so none is sealed.
        let project = |name: &Name| view.project_named(name).map(|project| project.record.uid);
        let context = convert::Context {
            agent: &agent,
            project: &project,
            seal: &|_| Vec::new(),
            current: Some(&record.spec),
        };
        let of_project =
            |fault: Violation| Violation::new(format!("{}.{}", wire.name, fault.field), fault.description);
        let read = convert::spec_from_wire(&wire, context);
        let declared = read.map_err(|faults| faults.into_iter().map(of_project).collect::<Vec<_>>())?;
        Ok(Some(Planned { uid: record.uid, revision: record.revision, spec: declared.spec, shown }))
    }

    /// All projects that change, in name order; or everything that speaks against it.
    fn plan_all(&self, view: &Engine, now: Now, by: &By) -> Result<Vec<Planned>, Vec<Violation>> {
        let mut planned = Vec::new();
        let mut faults = Vec::new();
        for project in view.projects_by_name() {
            match self.plan(view, project) {
                Ok(Some(one)) => {
                    faults.extend(refusal_of(view, now, by, project, &one));
                    planned.push(one);
                }
                Ok(None) => {}
                Err(more) => faults.extend(more),
            }
        }
        faults.truncate(FAULTS_MAX);
        if faults.is_empty() { Ok(planned) } else { Err(faults) }
    }
}

/// What the engine would say against this change.
fn refusal_of(view: &Engine, now: Now, by: &By, project: &Project, planned: &Planned) -> Option<Violation> {
    let check = Ask::UpdateProject {
        project: planned.uid,
        spec: Box::new(planned.spec.clone()),
        revision: planned.revision,
        validate_only: true,
    };
    match view.decide(now, Input::Person(Person { by: by.to_string(), ask: check })).reply {
        Reply::Refused(refusal) => {
            Some(Violation::new(convert::project_name(&project.record.name), refusal.message))
        }
        _ => None,
    }
}

impl Upstreams {
    /// The service.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self { services }
    }

    fn shown(&self, host: &str) -> Result<Response<v1::UpstreamHost>, Status> {
        let now = self.services.driver.now();
        let view = self.services.driver.view();
        Ok(Response::new(convert::upstream_to_wire(&view.upstream_view(host), &view, now)))
    }

    fn read_update(&self, host: &str, request: &v1::UpdateUpstreamRequest) -> Result<Ask, Vec<Violation>> {
        let wanted = request.upstream.clone().unwrap_or_default();
        let paths = request.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
        let view = self.services.driver.view();
        let known = view.upstream(host);
        let etag = convert::parse_etag("upstream.etag", &wanted.etag);
        let limits = convert::upstream_limits_from_wire(known, &wanted, paths);
        match (etag, limits) {
            (Ok(etag), Ok((slots, spacing))) => {
                // Who names one of the two means the other one as it is now.
                let revision = Some(etag.unwrap_or_else(|| known.map_or(0, |known| known.revision)));
                Ok(Ask::SetUpstream { host: host.to_owned(), slots, spacing, revision })
            }
            (etag, limits) => Err(etag.err().into_iter().chain(limits.err().into_iter().flatten()).collect()),
        }
    }

    /// Changes one project; when somebody else was faster, as it is then.
    async fn replace_one(
        &self,
        by: &By,
        replacement: &Replacement,
        mut planned: Planned,
    ) -> Result<Vec<v1::ReplacedUpstream>, Status> {
        let mut tries = TRIES;
        loop {
            tries -= 1;
            let (uid, shown) = (planned.uid, planned.shown.clone());
            match ask(&self.services, by, planned.ask(false)).await {
                Ok(_) => return Ok(shown),
                Err(status) if status.code() == Code::Aborted && tries > 0 => {}
                Err(status) => return Err(status),
            }
            let view = self.services.driver.view();
            let Some(project) = view.project(uid) else { return Ok(Vec::new()) };
            match replacement
                .plan(&view, project)
                .map_err(|faults| invalid("upstream not replaced", faults))?
            {
                Some(again) => planned = again,
                None => return Ok(Vec::new()),
            }
        }
    }
}

#[tonic::async_trait]
impl v1::upstream_service_server::UpstreamService for Upstreams {
    async fn list_upstreams(
        &self,
        request: Request<v1::ListUpstreamsRequest>,
    ) -> Result<Response<v1::ListUpstreamsResponse>, Status> {
        const LIST: &str = "upstreams";
        let v1::ListUpstreamsRequest { page_size, page_token } = request.get_ref();
        let page = page::read(LIST, *page_size, page_token, PAGE_SIZE)
            .map_err(|faults| invalid("upstreams not listed", faults))?;
        let now = self.services.driver.now();
        let view = self.services.driver.view();
        let rows = view.upstream_views().into_iter();
        let rows = rows.filter(|row| page.after.as_deref().is_none_or(|after| row.host > after));
        let (rows, next_page_token) = page::cut(LIST, &page, rows, |row| row.host.to_owned());
        let upstreams = rows.iter().map(|row| convert::upstream_to_wire(row, &view, now)).collect();
        Ok(Response::new(v1::ListUpstreamsResponse { upstreams, next_page_token }))
    }

    async fn update_upstream(
        &self,
        request: Request<v1::UpdateUpstreamRequest>,
    ) -> Result<Response<v1::UpstreamHost>, Status> {
        const WHAT: &str = "upstream not changed";
        let by = user(&request)?;
        let request = request.into_inner();
        let wanted = request.upstream.clone().unwrap_or_default();
        let host = convert::parse_upstream("upstream.name", &wanted.name)
            .map_err(|fault| invalid(WHAT, vec![fault]))?;
        origin::concerns(convert::upstream_name(&host));
        let mut tries = TRIES;
        loop {
            tries -= 1;
            let update = self.read_update(&host, &request).map_err(|faults| invalid(WHAT, faults))?;
            match ask(&self.services, &by, update).await {
                Ok(_) => {
                    tracing::info!(target: "audit", %by, host, slots = wanted.slots, spacing = ?wanted.spacing, "upstream set");
                    return self.shown(&host);
                }
                Err(status) if status.code() == Code::Aborted && wanted.etag.is_empty() && tries > 0 => {}
                Err(status) => return Err(status),
            }
        }
    }

    async fn replace_upstream(
        &self,
        request: Request<v1::ReplaceUpstreamRequest>,
    ) -> Result<Response<v1::ReplaceUpstreamResponse>, Status> {
        const WHAT: &str = "upstream not replaced";
        let by = user(&request)?;
        let request = request.into_inner();
        let replacement = Replacement::read(&request).map_err(|faults| invalid(WHAT, faults))?;
        let planned = {
            let now = self.services.driver.now();
            let view = self.services.driver.view();
            replacement.plan_all(&view, now, &by).map_err(|faults| invalid(WHAT, faults))?
        };
        if request.validate_only {
            let projects = planned.into_iter().flat_map(|one| one.shown).collect();
            return Ok(Response::new(v1::ReplaceUpstreamResponse { projects }));
        }
        let mut projects: Vec<v1::ReplacedUpstream> = Vec::new();
        for one in planned {
            match self.replace_one(&by, &replacement, one).await {
                Ok(changed) => projects.extend(changed),
                Err(status) => return Err(halfway(&status, &projects)),
            }
        }
        let count = projects.len();
        tracing::info!(target: "audit", %by, from = request.from, to = request.to, count, "upstream replaced");
        Ok(Response::new(v1::ReplaceUpstreamResponse { projects }))
    }
}

/// A replacement that stopped midway: what is done stays done and is named.
fn halfway(status: &Status, done: &[v1::ReplacedUpstream]) -> Status {
    if done.is_empty() {
        return status.clone();
    }
    let names: Vec<&str> = done.iter().map(|one| one.project.as_str()).collect();
    let text =
        format!("{}; changed already: {}; ask again for the others", status.message(), names.join(", "));
    Status::with_details(status.code(), text, status.details().to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_before_a_failure_is_named() {
        let failed = Status::not_found("no project x");
        assert_eq!(halfway(&failed, &[]).message(), failed.message());
        let done = [v1::ReplacedUpstream { project: "projects/a".to_owned(), ..Default::default() }];
        let told = halfway(&failed, &done);
        assert!(
            told.code() == failed.code() && told.message().contains("changed already: projects/a;"),
            "{told}"
        );
    }
}
