//! `mirrorctl token`.

use mirror_proto::v1;

use crate::app::App;
use crate::cli::TokenCommand;
use crate::exit::Exit;
use crate::fault::{Fault, Outcome};
use crate::{names, text};

pub(super) async fn run(app: &App, command: TokenCommand) -> Outcome<Exit> {
    match command {
        TokenCommand::List { user } => list(app, user.as_deref()).await,
        TokenCommand::Revoke { token, user } => revoke(app, &token, user.as_deref()).await,
    }
}

async fn list(app: &App, user: Option<&str>) -> Outcome<Exit> {
    let parent = user.map(names::checked_user).transpose()?.unwrap_or_default();
    let client = app.connect().await?;
    let answer = client.users().list_tokens(v1::ListTokensRequest { parent }).await;
    let response = answer.map_err(|status| Fault::from_status("nothing listed", &status))?.into_inner();
    let ids: Vec<&str> = response.tokens.iter().map(|token| names::last(&token.name)).collect();
    app.answer(&response, "ListTokensResponse", &ids, |view| text::user::tokens(view, &response.tokens))?;
    Ok(Exit::Done)
}

async fn revoke(app: &App, typed: &str, user: Option<&str>) -> Outcome<Exit> {
    const FAILED: &str = "token not revoked";
    let client = app.connect().await?;
    let owner = match user {
        Some(user) => names::checked_user(user)?,
        None => {
            let me = client.users().who_am_i(v1::WhoAmIRequest {}).await;
            me.map_err(|status| Fault::from_status(FAILED, &status))?.into_inner().name
        }
    };
    let id = names::last(typed);
    let name = format!("{owner}/tokens/{id}");
    let revoked = client.users().revoke_token(v1::RevokeTokenRequest { name: name.clone() }).await;
    revoked.map_err(|status| Fault::from_status(FAILED, &status).next("mirrorctl token list"))?;
    let token = v1::UserToken { name, ..v1::UserToken::default() };
    app.changed(&token, "UserToken", &[id], &format!("Token {id} is useless now."), "mirrorctl token list")?;
    Ok(Exit::Done)
}
