//! `mirrorctl push-token`.

use std::error::Error as _;

use mirror_proto::v1;
use tonic::{Code, Status};

use crate::app::App;
use crate::cli::PushTokenCommand;
use crate::client::Client;
use crate::confirm::{Wanted, confirm};
use crate::exit::Exit;
use crate::fault::{Fault, Faults, Outcome};
use crate::text::time;
use crate::{clock, names, request, text, units};

/// Tokens of one page: the API's most.
const PAGE_SIZE_MAX: i32 = 1_000;

pub(super) async fn run(app: &App, command: PushTokenCommand) -> Outcome<Exit> {
    match command {
        PushTokenCommand::Create { project, ttl, note } => create(app, &project, ttl.as_deref(), note).await,
        PushTokenCommand::List { project } => list(app, project.as_deref()).await,
        PushTokenCommand::Delete { token } => delete(app, &token).await,
    }
}

async fn create(app: &App, project: &str, ttl: Option<&str>, note: String) -> Outcome<Exit> {
    const FAILED: &str = "push token not created";
    const NEXT: &str = "mirrorctl push-token create --help";
    let mut faults = Faults::default();
    let project = names::noted_project("PROJECT", project, &mut faults);
    let ttl = ttl.and_then(|text| request::span(text, "--ttl", &mut faults));
    faults.finish(FAILED, NEXT)?;
    let client = app.connect().await?;
    let request_id = uuid::Uuid::new_v4().to_string();
    let request = v1::CreatePushTokenRequest { project, note, ttl, request_id, validate_only: false };
    let token = made(&client, &request).await.map_err(|status| {
        let fault = Fault::from_status(FAILED, &status);
        if fault.exit == Exit::BadInput {
            fault.next(NEXT)
        } else if is_lost(&status) {
            // One that was made, and that nobody has the secret of, is to be seen there.
            fault.next("mirrorctl push-token list")
        } else {
            fault
        }
    })?;
    // The token alone on standard output, so that it can be captured; all about it on standard error.
    // Of the token's name alone nothing would come: the secret is shown this once.
    app.answer(&token, "PushToken", &[&token.token], |_| format!("{}\n", token.token))?;
    if !app.is_json() {
        let until = time(token.expire_time).map(|time| units::moment_and_distance(time, clock::now()));
        let until = until.unwrap_or_else(|| "it is deleted".to_owned());
        let project = names::last(&token.project);
        app.hint(&format!(
            "Good for pushes of {project} and nothing else, until {until}; it is not shown again."
        ));
        // On a command line other users of the host would read it.
        app.hint(&format!(
            "Next, with the token in FILE (docs/pushes.md):\n  \
             (umask 077; printf 'Authorization: Bearer %s\\n' \"$(cat FILE)\" > push-header)\n  \
             curl -fsS --retry 5 --cacert ca.pem -H @push-header -X POST \
             https://COORDINATOR:PORT/v1/projects/{project}/push"
        ));
    }
    Ok(Exit::Done)
}

/// Asks for a token; where the answer is lost, once more under the same id, which makes no second one. A token whose
/// secret was lost with its answer is deleted.
async fn made(client: &Client, request: &v1::CreatePushTokenRequest) -> Result<v1::PushToken, Status> {
    let mut token = client.users().create_push_token(request.clone()).await;
    if token.as_ref().is_err_and(is_lost) {
        token = client.users().create_push_token(request.clone()).await;
    }
    let token = token?.into_inner();
    if token.token.is_empty() {
        let lost = v1::DeletePushTokenRequest { name: token.name };
        client.users().delete_push_token(lost).await?;
        let text = "push token not created: the answer with it was lost on its way, so it is deleted again; try again";
        return Err(Status::unavailable(text));
    }
    Ok(token)
}

/// Whether it is not known what became of the request.
fn is_lost(status: &Status) -> bool {
    let unanswered = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled);
    unanswered || status.source().is_some()
}

async fn list(app: &App, project: Option<&str>) -> Outcome<Exit> {
    let project = project.map(names::checked_project).transpose()?.unwrap_or_default();
    let client = app.connect().await?;
    let mut all = v1::ListPushTokensResponse::default();
    loop {
        let page_token = std::mem::take(&mut all.next_page_token);
        let page_size = PAGE_SIZE_MAX;
        let request = v1::ListPushTokensRequest { project: project.clone(), page_size, page_token };
        let page = client.users().list_push_tokens(request).await;
        let page = page.map_err(|status| Fault::from_status("nothing listed", &status))?.into_inner();
        all.push_tokens.extend(page.push_tokens);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() {
            break;
        }
    }
    let ids: Vec<&str> = all.push_tokens.iter().map(|token| names::last(&token.name)).collect();
    app.answer(&all, "ListPushTokensResponse", &ids, |view| text::user::push_tokens(view, &all.push_tokens))?;
    Ok(Exit::Done)
}

async fn delete(app: &App, typed: &str) -> Outcome<Exit> {
    const NEXT: &str = "mirrorctl push-token list";
    let client = app.connect().await?;
    let id = names::last(typed);
    confirm(&format!("Make push token {id} useless?"), Wanted::Yes, app.global.yes)?;
    let request = v1::DeletePushTokenRequest { name: names::push_token(typed) };
    let deleted = client.users().delete_push_token(request).await;
    deleted.map_err(|status| Fault::from_status("push token not deleted", &status).next(NEXT))?;
    let token = v1::PushToken { name: names::push_token(typed), ..v1::PushToken::default() };
    app.changed(&token, "PushToken", &[id], &format!("Push token {id} is useless now."), NEXT)?;
    Ok(Exit::Done)
}
