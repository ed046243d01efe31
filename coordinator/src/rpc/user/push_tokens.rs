//! Push tokens, as admins make, see and end them. The secret passes through here once and stays nowhere.

use ::fleet::{
    agent::PushToken as Record,
    input::{Ask, NewPushToken, Reply},
    refusal::{Refusal, Violation},
};
use mirror_certs::PushToken;
use mirror_proto::{convert, v1};
use tonic::{Request, Status};

use super::super::{ask, broken, gate::token_id, invalid, page, project, refused, request::key, user};
use crate::{Services, audit::origin};

/// Push tokens on a page when the caller names no number.
const PAGE_SIZE: usize = 100;

pub(super) async fn create(
    services: &Services,
    request: Request<v1::CreatePushTokenRequest>,
) -> Result<v1::PushToken, Status> {
    const WHAT: &str = "no push token made";
    let by = user(&request)?;
    let request = request.into_inner();
    let named = convert::parse_project("project", &request.project);
    let ttl = request.ttl.as_ref().map(|ttl| convert::duration_from_wire("ttl", ttl)).transpose();
    let id = key(&by, "CreatePushToken", &request.request_id, &request);
    let (named, ttl, id) = match (named, ttl, id) {
        (Ok(named), Ok(ttl), Ok(id)) => (named, ttl, id),
        (named, ttl, id) => {
            return Err(invalid(WHAT, named.err().into_iter().chain(ttl.err()).chain(id.err()).collect()));
        }
    };
    let v1::CreatePushTokenRequest { note, validate_only, .. } = request;
    origin::concerns(convert::project_name(&named));
    let found = services.driver.view().project_named(&named).map(|project| project.record.uid);
    let project = found.ok_or_else(|| refused(&Refusal::not_found("project", &named)))?;
    let token = PushToken::generate().map_err(|error| broken("making a push token", &error))?;
    let (hash, own) = (token.hash(), token_id(&token.hash()).to_owned());
    let shown = v1::PushToken {
        project: convert::project_name(&named),
        note: note.clone(),
        ..v1::PushToken::default()
    };
    let new = NewPushToken { id: own.clone(), hash, project, note, ttl, request: id, validate_only };
    let id = match ask(services, &by, Ask::CreatePushToken(new)).await? {
        Reply::PushToken(id) => id,
        // Only tried.
        Reply::Done => return Ok(shown),
        other => return Err(project::unexpected(&other)),
    };
    // Who asks again is told which token it is; of its secret there is only the hash.
    let secret = if id == own { token.reveal().to_owned() } else { String::new() };
    tracing::info!(target: "audit", %by, project = %named, token = id, again = secret.is_empty(), "push token made");
    let view = services.driver.view();
    let made = view.push_token(&id).ok_or_else(|| refused(&Refusal::not_found("push token", &id)))?;
    Ok(v1::PushToken { token: secret, ..convert::push_token_to_wire(made, &*view) })
}

#[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
pub(super) fn list(
    services: &Services,
    request: &v1::ListPushTokensRequest,
) -> Result<v1::ListPushTokensResponse, Status> {
    const WHAT: &str = "push tokens not listed";
    let v1::ListPushTokensRequest { project, page_size, page_token } = request;
    let list = format!("push tokens {project}");
    let page = page::read(&list, *page_size, page_token, PAGE_SIZE);
    let page = page.map_err(|faults: Vec<Violation>| invalid(WHAT, faults))?;
    let view = services.driver.view();
    let of = match project.as_str() {
        "" => None,
        named => Some(project::find(&view, WHAT, "project", named)?.record.uid),
    };
    let now = services.driver.now().wall;
    let rows = view.push_tokens().filter(|token| {
        token.is_good(now)
            && of.is_none_or(|project| token.project == project)
            && page.after.as_ref().is_none_or(|after| token.id > *after)
    });
    let (tokens, next_page_token) = page::cut(&list, &page, rows, |token| token.id.clone());
    let shown = |token: &Record| convert::push_token_to_wire(token, &*view);
    Ok(v1::ListPushTokensResponse { push_tokens: tokens.into_iter().map(shown).collect(), next_page_token })
}

pub(super) async fn delete(
    services: &Services,
    request: Request<v1::DeletePushTokenRequest>,
) -> Result<(), Status> {
    let by = user(&request)?;
    let id = convert::parse_push_token("name", &request.get_ref().name);
    let id = id.map_err(|fault| invalid("push token not deleted", vec![fault]))?;
    origin::concerns(convert::push_token_name(&id));
    ask(services, &by, Ask::DeletePushToken { id: id.clone() }).await?;
    tracing::info!(target: "audit", %by, token = id, "push token deleted");
    Ok(())
}
