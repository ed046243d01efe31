//! Pushes, whether they come by gRPC or over HTTPS: who pushes, at what pace, and what came of it. What a push joins is the
//! engine's matter.

use ::fleet::{
    engine::PUSHED_TOO_OFTEN,
    id::{Name, ProjectUid},
    input::{Ask, Input, Person, Push, Reply},
    refusal::Refusal,
};
use mirror_proto::{convert, status, v1};
use tonic::{Request, Status};

use super::super::{access::pushing, invalid, refused, request::key, unavailable};
use crate::{Services, session::trace};

/// The project with this name, and how it is written.
#[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
fn find(services: &Services, named: &Name) -> Result<(ProjectUid, Name), Status> {
    let view = services.driver.view();
    let found = view.project_named(named).map(|project| (project.record.uid, project.record.name.clone()));
    found.ok_or_else(|| refused(&Refusal::not_found("project", named)))
}

/// Pushes the project that the request names. Beyond their pace pushes are answered with the run that waits, and only
/// where none does they are refused.
///
/// # Errors
/// As the contract says of `PushProject`.
pub(crate) async fn push(
    services: &Services,
    request: Request<v1::PushProjectRequest>,
) -> Result<v1::PushProjectResponse, Status> {
    const WHAT: &str = "project not pushed";
    let named = convert::parse_project("name", &request.get_ref().name);
    let (by, token) = pushing(services, &request, named.clone())?;
    let traceparent = trace::current(request.metadata());
    let request = request.into_inner();
    let id = key(&by, "PushProject", &request.request_id, &request);
    let (named, id) = match (named, id) {
        (Ok(named), Ok(id)) => (named, id),
        (named, id) => return Err(invalid(WHAT, named.err().into_iter().chain(id.err()).collect())),
    };
    let (project, name) = find(services, &named)?;
    let wait = services.pushes.take(services.driver.now().mono, project, &by).err();
    let push = Push { project, token, over_limit: wait.is_some(), request: id, traceparent };
    let input = Input::Person(Person { by: by.to_string(), ask: Ask::Push(push) });
    match services.driver.ask(input).await {
        Ok(Reply::Run { run, coalesced, notes, .. }) => {
            let over_limit = wait.is_some();
            tracing::info!(target: "audit", %by, project = %name, %run, coalesced, over_limit, "pushed");
            Ok(v1::PushProjectResponse { run: convert::run_name(&name, run), coalesced, notes })
        }
        Ok(Reply::Refused(refusal)) => Err(match wait {
            Some(wait) if refusal.reason == PUSHED_TOO_OFTEN => {
                status::exhausted(PUSHED_TOO_OFTEN, &refusal.message, wait)
            }
            Some(_) | None => refused(&refusal),
        }),
        Ok(other) => Err(super::unexpected(&other)),
        Err(error) => Err(unavailable(&error)),
    }
}
