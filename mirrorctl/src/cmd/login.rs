//! `mirrorctl login`, `logout` and `whoami`.

use std::path::Path;

use mirror_certs::{Existing, PinnedBootstrap, SpkiHash, write_public};
use mirror_proto::v1;
use prost_types::Duration;

use super::password;
use crate::app::{App, quoted};
use crate::cli::LoginArgs;
use crate::client::{Client, own_certificate};
use crate::config::{self, Context, Edit, Secret};
use crate::exit::Exit;
use crate::fault::{Fault, Faults, Outcome};
use crate::text::time;
use crate::{clock, names, renewal, request, text, units};

const FAILED: &str = "not logged in";
/// The name of a first context.
const FIRST_CONTEXT: &str = "default";

pub(super) async fn login(app: &App, args: LoginArgs) -> Outcome<Exit> {
    let mut faults = Faults::default();
    let ttl = args.ttl.as_deref().and_then(|text| request::span(text, "--ttl", &mut faults));
    names::check_name("USER", args.user.strip_prefix("users/").unwrap_or(&args.user), &mut faults);
    let pin = args.ca_hash.as_deref().map(|hash| hash.parse::<SpkiHash>().map_err(|bad| bad.to_string()));
    let pin = pin.and_then(|pin| faults.check("--ca-hash", pin));
    if args.ca_hash.is_some() && app.global.server.is_none() {
        faults.add("--server", "is needed with --ca-hash: where the coordinator is");
    }
    faults.finish(FAILED, "mirrorctl login --help")?;
    let (name, answer) = match pin {
        Some(pin) => first(app, &args, ttl, pin).await?,
        None => again(app, &args, ttl).await?,
    };
    let until = time(answer.expire_time).map(|until| units::moment_and_distance(until, clock::now()));
    let next = match config::load(&app.overrides())?.current {
        Some(current) if current != name => format!("mirrorctl context use {}", quoted(&name)),
        _ => "mirrorctl status".to_owned(),
    };
    app.said(
        &format!(
            "Logged in as {} ({}) in context {name}, until {}.",
            names::last(answer.name.split("/tokens/").next().unwrap_or_default()),
            text::user::role_word(answer.role()),
            until.unwrap_or_default()
        ),
        &next,
    )?;
    Ok(Exit::Done)
}

/// With a context that knows the coordinator.
async fn again(app: &App, args: &LoginArgs, ttl: Option<Duration>) -> Outcome<(String, v1::LoginResponse)> {
    let overrides = app.overrides();
    let (name, context) = config::choose(&config::load(&overrides)?, &overrides)?;
    check_own(&name, &context, args)?;
    let password = ask_password(args)?;
    let client = app.connect_as_nobody(&context).await?;
    let answer = ask(&client, args, ttl, &password).await?;
    if let Err(error) = renewal::keep_cas(&context.ca, &answer.ca_certificates) {
        app.hint(&format!("Note: the fleet's CAs are not written: {}", crate::client::chain(&error)));
    }
    let token = Some(Some(Secret(answer.token.clone())));
    // What flags and variables said is kept with the token: without a file, the next command would not know it.
    let known = config::load(&overrides)?.contexts.contains_key(&name);
    let edit = if known {
        Edit { token, ..Edit::default() }
    } else {
        let ca = std::path::absolute(&context.ca).unwrap_or_else(|_| context.ca.clone());
        Edit {
            server: Some(context.server.clone()),
            ca: Some(ca.display().to_string()),
            token,
            ..Edit::default()
        }
    };
    let name =
        if known { name } else { overrides.context.clone().unwrap_or_else(|| FIRST_CONTEXT.to_owned()) };
    config::edit(&overrides, &name, &edit)?;
    Ok((name, answer))
}

/// Without one: the coordinator is known by the hash of its CA, and the context is made.
async fn first(
    app: &App,
    args: &LoginArgs,
    ttl: Option<Duration>,
    pin: SpkiHash,
) -> Outcome<(String, v1::LoginResponse)> {
    let overrides = app.overrides();
    let name = overrides.context.clone().unwrap_or_else(|| FIRST_CONTEXT.to_owned());
    let typed = overrides.server.as_deref().unwrap_or_default();
    let contexts = config::load_if_there(&overrides)?.contexts;
    if contexts.contains_key(&name) {
        let fault = format!("{FAILED}: context {name} is there already, and --ca-hash makes a new one");
        // Beside it, because its own CA may be one that the fleet trusts no more: with it there is no way back.
        let mut others = (2_usize..).map(|number| format!("{name}-{number}"));
        let other = others.find(|other| !contexts.contains_key(other)).unwrap_or_default();
        return Err(Fault::new(Exit::Conflict, fault).next(format!(
            "mirrorctl --context {} --server {} login {} --ca-hash {pin}",
            quoted(&other),
            quoted(typed),
            quoted(&args.user),
        )));
    }
    let server = config::with_port(typed)?;
    let pinned = PinnedBootstrap::new(&[pin])
        .map_err(|error| Fault::new(Exit::Bug, format!("{FAILED}: {}", crate::client::chain(&error))))?;
    let password = ask_password(args)?;
    let client = Client::connect_pinned(&server, &pinned, app.timeout()?).await?;
    let answer = ask(&client, args, ttl, &password).await?;
    let folder = config::path(&overrides);
    let folder = folder.parent().unwrap_or_else(|| Path::new("."));
    let file = format!("{name}-ca.pem");
    let unwritten =
        |error: String| Fault::new(Exit::BadInput, format!("{FAILED}: {error}")).fault("this host's");
    std::fs::create_dir_all(folder).map_err(|error| unwritten(error.to_string()))?;
    write_public(&folder.join(&file), &answer.ca_certificates, Existing::Replace)
        .map_err(|error| unwritten(crate::client::chain(&error)))?;
    let token = Some(Some(Secret(answer.token.clone())));
    let edit = Edit { server: Some(server), ca: Some(file), token, ..Edit::default() };
    config::edit(&overrides, &name, &edit)?;
    Ok((name, answer))
}

/// A certificate and a token of two users would both be refused.
fn check_own(name: &str, context: &Context, args: &LoginArgs) -> Outcome<()> {
    let bare = names::last(&args.user);
    let Some(own) = own_certificate(context) else { return Ok(()) };
    let whose = own.identity.to_string();
    let whose = names::last(&whose);
    if whose.eq_ignore_ascii_case(bare) {
        return Ok(());
    }
    let text = format!(
        "{FAILED}: context {name} has the certificate of {whose}, and a token of {bare} does not go with it"
    );
    Err(Fault::new(Exit::BadInput, text).fault("yours: make another context").next(format!(
        "mirrorctl --context {bare} --server {} --ca {} login {bare}",
        context.server,
        context.ca.display()
    )))
}

fn ask_password(args: &LoginArgs) -> Outcome<zeroize::Zeroizing<String>> {
    let prompt = format!("Password of {}:", names::last(&args.user));
    password::present(&prompt, "--password-file", args.password_file.as_deref())
}

async fn ask(
    client: &Client,
    args: &LoginArgs,
    ttl: Option<Duration>,
    password: &str,
) -> Outcome<v1::LoginResponse> {
    let request = v1::LoginRequest { user: names::user(&args.user), password: password.to_owned(), ttl };
    let answer = client.users().login(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| {
        let fault = Fault::from_status(FAILED, &status);
        if fault.exit == Exit::NotAllowed { fault.fault("yours: user or password") } else { fault }
    })
}

pub(super) async fn logout(app: &App) -> Outcome<Exit> {
    let overrides = app.overrides();
    let (name, context) = config::choose(&config::load(&overrides)?, &overrides)?;
    if context.token.is_none() {
        app.said(&format!("Context {name} has no token; nothing to do."), "")?;
        return Ok(Exit::Done);
    }
    let ended = app.connect().await?.users().logout(v1::LogoutRequest {}).await;
    if let Err(status) = ended {
        // One that is not good any more is as well forgotten; anything else leaves a good token behind.
        if status.code() != tonic::Code::Unauthenticated {
            return Err(Fault::from_status("not logged out", &status));
        }
    }
    config::edit(&overrides, &name, &Edit { token: Some(None), ..Edit::default() })?;
    app.said(&format!("Logged out of context {name}; its token is useless now."), "")?;
    Ok(Exit::Done)
}

pub(super) async fn whoami(app: &App) -> Outcome<Exit> {
    let client = app.connect().await?;
    let answer = client.users().who_am_i(v1::WhoAmIRequest {}).await;
    let me = answer.map_err(|status| Fault::from_status("nothing shown", &status))?.into_inner();
    app.answer(&me, "WhoAmIResponse", &[names::last(&me.name)], |view| text::user::me(view, &me))?;
    Ok(Exit::Done)
}
