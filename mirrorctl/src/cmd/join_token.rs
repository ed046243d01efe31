//! `mirrorctl join-token`.

use mirror_proto::v1;

use crate::app::App;
use crate::cli::JoinTokenCommand;
use crate::confirm::{Wanted, confirm};
use crate::exit::Exit;
use crate::fault::{Fault, Faults, Outcome};
use crate::text::time;
use crate::{clock, names, request, text, units};

pub(super) async fn run(app: &App, command: JoinTokenCommand) -> Outcome<Exit> {
    match command {
        JoinTokenCommand::Create { name, pattern, uses, ttl, cidrs } => {
            let request = v1::CreateJoinTokenRequest { agent: name, pattern, uses, ttl: None, cidrs };
            create(app, request, ttl.as_deref()).await
        }
        JoinTokenCommand::List => list(app).await,
        JoinTokenCommand::Delete { token } => delete(app, &token).await,
    }
}

async fn create(app: &App, request: v1::CreateJoinTokenRequest, ttl: Option<&str>) -> Outcome<Exit> {
    const FAILED: &str = "join token not created";
    const NEXT: &str = "mirrorctl join-token create --help";
    let mut faults = Faults::default();
    if !request.agent.is_empty() {
        names::noted_agent("--name", &request.agent, &mut faults);
    }
    let ttl = ttl.and_then(|text| request::span(text, "--ttl", &mut faults));
    faults.finish(FAILED, NEXT)?;
    let client = app.connect().await?;
    let request = v1::CreateJoinTokenRequest { ttl, ..request };
    let token = match client.agents().create_join_token(request).await {
        Ok(token) => token.into_inner(),
        Err(status) => {
            let fault = Fault::from_status(FAILED, &status);
            return Err(if fault.exit == Exit::BadInput { fault.next(NEXT) } else { fault });
        }
    };
    // The token alone on standard output, so that it can be captured; all about it on standard error.
    // Of the token's name alone nothing would come: the secret is shown this once.
    app.answer(&token, "JoinToken", &[&token.token], |_| format!("{}\n", token.token))?;
    if !app.is_json() {
        let until = time(token.expire_time).map(|time| units::moment_and_distance(time, clock::now()));
        let uses =
            if token.uses_left == 1 { "once".to_owned() } else { format!("{} times", token.uses_left) };
        let good_for = text::agent::good_for(&token);
        let until = until.unwrap_or_default();
        let from = match token.cidrs.as_slice() {
            [] => String::new(),
            networks => format!(" from {}", networks.join(", ")),
        };
        app.hint(&format!(
            "Good for {good_for}{from}, {uses}, until {until}; it is not shown again. On the new host:"
        ));
        app.hint(&format!(
            "Next: mirror-agent enroll {} --token {} --ca-hash {} --root a1=/srv/mirror --data-dir /var/lib/mirror-agent",
            app.server()?,
            token.token,
            token.ca_hash
        ));
    }
    Ok(Exit::Done)
}

async fn list(app: &App) -> Outcome<Exit> {
    let client = app.connect().await?;
    let answer = client.agents().list_join_tokens(v1::ListJoinTokensRequest {}).await;
    let response = answer.map_err(|status| Fault::from_status("nothing listed", &status))?.into_inner();
    let ids: Vec<&str> = response.join_tokens.iter().map(|token| names::last(&token.name)).collect();
    app.answer(&response, "ListJoinTokensResponse", &ids, |view| {
        text::agent::join_tokens(view, &response.join_tokens)
    })?;
    Ok(Exit::Done)
}

async fn delete(app: &App, typed: &str) -> Outcome<Exit> {
    let client = app.connect().await?;
    let id = names::last(typed);
    confirm(&format!("Make join token {id} useless?"), Wanted::Yes, app.global.yes)?;
    let request = v1::DeleteJoinTokenRequest { name: names::join_token(typed) };
    let deleted = client.agents().delete_join_token(request).await;
    deleted.map_err(|status| {
        Fault::from_status("join token not deleted", &status).next("mirrorctl join-token list")
    })?;
    let token = v1::JoinToken { name: names::join_token(typed), ..v1::JoinToken::default() };
    app.changed(
        &token,
        "JoinToken",
        &[id],
        &format!("Join token {id} is useless now."),
        "mirrorctl join-token list",
    )?;
    Ok(Exit::Done)
}
