//! `mirrorctl user`.

use std::path::Path;

use mirror_proto::v1;
use prost_types::FieldMask;
use tonic::{Code, Status};

use super::{PAGE_SIZE_MAX, no_such, password};
use crate::app::App;
use crate::cli::{RoleArg, UserCommand};
use crate::client::Client;
use crate::confirm::{Wanted, confirm};
use crate::exit::Exit;
use crate::fault::{Fault, Faults, Outcome};
use crate::{config, names, text};

pub(super) async fn run(app: &App, command: UserCommand) -> Outcome<Exit> {
    match command {
        UserCommand::Create { user, role, password_file, no_password } => {
            create(app, &user, role, password_file.as_deref(), no_password).await
        }
        UserCommand::List => list(app).await,
        UserCommand::Show { user } => show(app, &user).await,
        UserCommand::SetRole { user, role } => {
            let change = v1::User { role: role.wire().into(), ..v1::User::default() };
            let word = text::user::role_word(role.wire());
            update(app, &user, change, "role", &format!("has the role {word} now.")).await
        }
        UserCommand::ResetPassword { user, password_file } => {
            reset(app, &user, password_file.as_deref()).await
        }
        UserCommand::Password { old_password_file, password_file } => {
            own_password(app, old_password_file.as_deref(), password_file.as_deref()).await
        }
        UserCommand::Disable { user } => {
            let change = v1::User { disabled: true, ..v1::User::default() };
            update(app, &user, change, "disabled", "is shut out: tokens are useless, streams are cut.").await
        }
        UserCommand::Enable { user } => {
            update(app, &user, v1::User::default(), "disabled", "is let in again; tokens must be had anew.")
                .await
        }
        UserCommand::Delete { user } => delete(app, &user).await,
    }
}

impl RoleArg {
    fn wire(self) -> v1::UserRole {
        match self {
            Self::Viewer => v1::UserRole::Viewer,
            Self::Owner => v1::UserRole::Owner,
            Self::Operator => v1::UserRole::Operator,
            Self::Admin => v1::UserRole::Admin,
        }
    }
}

async fn create(
    app: &App,
    typed: &str,
    role: RoleArg,
    file: Option<&Path>,
    no_password: bool,
) -> Outcome<Exit> {
    const FAILED: &str = "user not created";
    let bare = names::last(typed);
    let mut faults = Faults::default();
    let name = names::noted_user("USER", typed, &mut faults);
    let prompt = format!("First password of {bare}, 12 characters or more:");
    let password = match file {
        _ if no_password => String::new(),
        // Nobody is asked for the password of somebody who cannot be.
        None if !faults.is_empty() => String::new(),
        file => match password::new(&prompt, "--password-file", file) {
            Ok(password) => password.to_string(),
            Err(fault) if file.is_some() => {
                fault.details.into_iter().for_each(|(flag, text)| faults.add(flag, text));
                String::new()
            }
            Err(fault) => return Err(fault),
        },
    };
    faults.finish(FAILED, "mirrorctl user create --help")?;
    let user = v1::User { name, role: role.wire().into(), ..v1::User::default() };
    let client = app.connect().await?;
    let request = v1::CreateUserRequest { user: Some(user), password };
    let made = client.users().create_user(request).await.map_err(|status| {
        let fault = Fault::from_status(FAILED, &status);
        match status.code() {
            Code::AlreadyExists => fault.next(format!("mirrorctl user show {bare}")),
            Code::InvalidArgument => fault.next("mirrorctl user create --help"),
            _ => fault,
        }
    })?;
    let made = made.into_inner();
    let word = text::user::role_word(made.role());
    let next = match (made.has_password, way_in(app, &made.ca_hash)) {
        (true, Some(way)) => format!("mirrorctl login {bare} {way}  (on {bare}'s own machine)"),
        (true, None) => format!("mirrorctl login {bare}"),
        (false, _) => format!("mirrorctl user reset-password {bare}"),
    };
    app.changed(&made, "User", &[bare], &format!("{bare} entered with the role {word}."), &next)?;
    Ok(Exit::Done)
}

/// What a first login needs besides the user; `None`: this call has no context that knows the server. The hash is the
/// coordinator's word: the context's own file may begin with a CA that has been replaced.
fn way_in(app: &App, ca_hash: &str) -> Option<String> {
    let overrides = app.overrides();
    if overrides.socket.is_some() {
        return None;
    }
    let (_, context) = config::choose(&config::load(&overrides).ok()?, &overrides).ok()?;
    Some(format!("--server {} --ca-hash {ca_hash}", context.server))
}

async fn list(app: &App) -> Outcome<Exit> {
    let client = app.connect().await?;
    let users = all(&client).await.map_err(|status| Fault::from_status("nothing listed", &status))?;
    let response = v1::ListUsersResponse { users, next_page_token: String::new() };
    let names: Vec<&str> = response.users.iter().map(|user| names::last(&user.name)).collect();
    app.answer(&response, "ListUsersResponse", &names, |view| text::user::list(view, &response.users))?;
    Ok(Exit::Done)
}

async fn all(client: &Client) -> Result<Vec<v1::User>, Status> {
    let (mut users, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListUsersRequest { page_size: PAGE_SIZE_MAX, page_token };
        let page = client.users().list_users(request).await?.into_inner();
        users.extend(page.users);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(users);
        }
    }
}

async fn show(app: &App, typed: &str) -> Outcome<Exit> {
    let client = app.connect().await?;
    let found = client.users().get_user(v1::GetUserRequest { name: names::checked_user(typed)? }).await;
    let user = match found {
        Ok(user) => user.into_inner(),
        Err(status) => return Err(of_user(app, &client, typed, "nothing shown", &status).await),
    };
    app.answer(&user, "User", &[names::last(&user.name)], |view| text::user::show(view, &user))?;
    Ok(Exit::Done)
}

async fn update(app: &App, typed: &str, change: v1::User, path: &str, what: &str) -> Outcome<Exit> {
    let client = app.connect().await?;
    let user = v1::User { name: names::checked_user(typed)?, ..change };
    let update_mask = Some(FieldMask { paths: vec![path.to_owned()] });
    let changed = client.users().update_user(v1::UpdateUserRequest { user: Some(user), update_mask }).await;
    let user = match changed {
        Ok(user) => user.into_inner(),
        Err(status) => return Err(of_user(app, &client, typed, "user not changed", &status).await),
    };
    let bare = names::last(&user.name);
    let next = format!("mirrorctl user show {bare}");
    app.changed(&user, "User", &[bare], &format!("{bare} {what}"), &next)?;
    Ok(Exit::Done)
}

async fn reset(app: &App, typed: &str, file: Option<&Path>) -> Outcome<Exit> {
    let (name, bare) = (names::checked_user(typed)?, names::last(typed));
    let prompt = format!("New password of {bare}, 12 characters or more:");
    let password = password::new(&prompt, "--password-file", file)?.to_string();
    let client = app.connect().await?;
    let request = v1::SetPasswordRequest { name, old_password: String::new(), password };
    let user = match client.users().set_password(request).await {
        Ok(user) => user.into_inner(),
        Err(status) if is_own(&status) => {
            return Err(Fault::new(Exit::BadInput, "password not changed: it is your own")
                .next("mirrorctl user password"));
        }
        Err(status) => return Err(of_user(app, &client, typed, "password not changed", &status).await),
    };
    let said = format!("{bare} has a new password; tokens and certificates of before are useless.");
    app.changed(&user, "User", &[bare], &said, &format!("mirrorctl login {bare}  (on {bare}'s host)"))?;
    Ok(Exit::Done)
}

/// A reset asks for no old password; where one is wanted all the same, it is one's own.
fn is_own(status: &Status) -> bool {
    let answer = mirror_proto::status::Fault::from(status);
    answer.violations.iter().any(|violation| violation.field == "old_password")
}

async fn own_password(app: &App, old: Option<&Path>, file: Option<&Path>) -> Outcome<Exit> {
    const FAILED: &str = "password not changed";
    let client = app.connect().await?;
    let me = client.users().who_am_i(v1::WhoAmIRequest {}).await;
    let me = me.map_err(|status| Fault::from_status(FAILED, &status))?.into_inner();
    let old_password = match me.has_password {
        Some(true) => password::present("Present password:", "--old-password-file", old)?.to_string(),
        Some(false) | None => String::new(),
    };
    let password = password::new("New password, 12 characters or more:", "--password-file", file)?;
    let request =
        v1::SetPasswordRequest { name: String::new(), old_password, password: password.to_string() };
    let user = client.users().set_password(request).await;
    let user = user.map_err(|status| Fault::from_status(FAILED, &status))?.into_inner();
    let bare = names::last(&user.name);
    let said = format!("{bare} has a new password; all tokens are useless, this context's too.");
    app.changed(&user, "User", &[bare], &said, &format!("mirrorctl login {bare}"))?;
    Ok(Exit::Done)
}

async fn delete(app: &App, typed: &str) -> Outcome<Exit> {
    let (name, bare) = (names::checked_user(typed)?, names::last(typed));
    confirm(&format!("Remove user {bare}?"), Wanted::Name(bare), app.global.yes)?;
    let client = app.connect().await?;
    let request = v1::DeleteUserRequest { name: name.clone(), etag: String::new() };
    if let Err(status) = client.users().delete_user(request).await {
        return Err(of_user(app, &client, typed, "user not deleted", &status).await);
    }
    let user = v1::User { name, ..v1::User::default() };
    let said = format!("{bare} is removed; tokens and certificates are useless.");
    app.changed(&user, "User", &[bare], &said, "mirrorctl user list")?;
    Ok(Exit::Done)
}

/// An answer's fault, with the nearest name when there is no such user.
async fn of_user(app: &App, client: &Client, typed: &str, failed: &str, status: &Status) -> Fault {
    if status.code() != Code::NotFound {
        return Fault::from_status(failed, status);
    }
    let known = all(client).await.unwrap_or_default();
    let known: Vec<&str> = known.iter().map(|user| names::last(&user.name)).collect();
    no_such(app, "user", typed, &known, "mirrorctl user list")
}
