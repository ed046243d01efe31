//! What a caller may touch, where the table alone cannot say: it knows methods, not what a request names. The layer
//! marks the caller with a [`Scope`], and every method gets who acts from one of three functions here. [`user`] refuses
//! callers with a narrower scope, so a method that forgets to look is closed to them, never open.

use std::fmt;

use fleet::{
    Engine,
    agent::LOCAL_ROOT,
    engine::Project,
    id::Name,
    refusal::{Refusal, RefusalCode, Violation},
};
use mirror_proto::convert;
use tonic::{Request, Status};

use super::{Caller, gate::Admitted, invalid, refused};
use crate::{Services, audit::origin};

/// What a push token is told that asks for anything else.
const PUSHES_ONLY: &str = "a push token pushes its one project, and does nothing else";

/// Own projects that a refusal names.
const SHOWN_MAX: usize = 5;

/// What the caller may touch by the method that was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All that the method can.
    Whole,
    /// Projects that name the caller as owner.
    OwnProjects,
    /// What is the caller's own as a user: password, tokens, certificates.
    Oneself,
}

/// Who acts, as records and logs have it: a user's name, or [`LOCAL_ROOT`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By(String);

impl By {
    /// What tells two of them apart; names are unique ignoring case.
    #[must_use]
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl By {
    /// The program that has the push token with this id.
    #[must_use]
    pub fn push_token(id: &str) -> Self {
        Self(convert::push_token_name(id))
    }
}

impl From<&Name> for By {
    fn from(name: &Name) -> Self {
        Self(name.to_string())
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who calls, judged once more now that the message is there. Only for methods whose row in the table is not open.
///
/// # Errors
/// UNAUTHENTICATED when the layer let through a request without a caller; what the gate says of one who was shut out since.
#[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
pub fn caller<T>(request: &Request<T>) -> Result<&Caller, Status> {
    if let Some(admitted) = request.extensions().get::<Admitted>() {
        admitted.still().map_err(|refusal| refused(&refusal))?;
    }
    request.extensions().get::<Caller>().ok_or_else(|| {
        refused(&Refusal::new(
            RefusalCode::Unauthenticated,
            "NO_IDENTITY",
            "this method needs a client certificate or a token",
        ))
    })
}

/// Who acts by a method that touches whatever its request names.
///
/// # Errors
/// PERMISSION_DENIED for an agent, and for who may only touch what is his own.
#[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
pub fn user<T>(request: &Request<T>) -> Result<By, Status> {
    match known(caller(request)?)? {
        (by, Scope::Whole) => Ok(by),
        (_, Scope::OwnProjects | Scope::Oneself) => {
            let text = "you may touch only what is your own, and this method does not look whose it is";
            Err(denied("NOT_ALLOWED", text.to_owned()))
        }
    }
}

/// Who acts on this project; `verb` is what he wants to do with it, as in "pause". Who may act on all is let through
/// whatever the name is: the method itself tells all faults at once.
///
/// # Errors
/// PERMISSION_DENIED for an agent, and for owners of other projects; no such project, no such name.
#[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
pub fn acting_on<T>(
    services: &Services,
    request: &Request<T>,
    verb: &str,
    project: Result<Name, Violation>,
) -> Result<By, Status> {
    let (by, scope) = known(caller(request)?)?;
    about(&project);
    match scope {
        Scope::Whole => return Ok(by),
        Scope::Oneself => return user(request),
        Scope::OwnProjects => {}
    }
    let project =
        project.map_err(|fault| invalid(&format!("nothing done: could not {verb} it"), vec![fault]))?;
    let view = services.driver.view();
    let found = view.project_named(&project);
    let found = found.ok_or_else(|| refused(&Refusal::not_found("project", &project)))?;
    if found.record.spec.owner.as_ref().is_some_and(|owner| owner.folded() == by.folded()) {
        return Ok(by);
    }
    let own = own_projects(&view, &by, SHOWN_MAX + 1);
    let own = match own.len() {
        0 => "you own no project".to_owned(),
        more if more > SHOWN_MAX => format!("you own {} and others", words(&own[..SHOWN_MAX])),
        _ => format!("you own {}", words(&own)),
    };
    Err(denied("NOT_OWNER", format!("you may not {verb} {}: {own}", found.record.name)))
}

/// Who pushes this project, and the id of the push token that it is done by. A push token learns of no other project
/// whether it exists.
///
/// # Errors
/// As [`acting_on`]; PERMISSION_DENIED for a push token of another project.
#[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
pub fn pushing<T>(
    services: &Services,
    request: &Request<T>,
    project: Result<Name, Violation>,
) -> Result<(By, Option<String>), Status> {
    let Caller::PushToken { id, project: own } = caller(request)? else {
        return acting_on(services, request, "push", project).map(|by| (by, None));
    };
    about(&project);
    let view = services.driver.view();
    let named = project.ok().and_then(|name| view.project_named(&name)).map(|project| project.record.uid);
    if named == Some(*own) {
        return Ok((By::push_token(id), Some(id.clone())));
    }
    let own = convert::project_name_of(&*view, *own);
    Err(denied("NOT_ITS_PROJECT", format!("{PUSHES_ONLY}; this one's is {own}")))
}

/// Who acts, and on which user: the one that is named, oneself where none is. `named` is the field's name and text.
///
/// # Errors
/// PERMISSION_DENIED for an agent, and for others than admins where another user is named; no name.
#[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
pub fn on_user<T>(
    request: &Request<T>,
    verb: &str,
    named: Option<Result<Name, Violation>>,
) -> Result<(By, Name), Status> {
    let caller = caller(request)?;
    let (by, scope) = known(caller)?;
    let own = match caller {
        Caller::User { name, .. } => Some(name.clone()),
        Caller::LocalRoot | Caller::Agent(..) | Caller::PushToken { .. } => None,
    };
    let named = named.transpose().map_err(|fault| invalid(&format!("could not {verb}"), vec![fault]))?;
    if let Some(user) = named.as_ref().or(own.as_ref()) {
        origin::concerns(convert::user_name(user.as_str()));
    }
    match (named, own, scope) {
        (Some(other), _, Scope::Whole) => Ok((by, other)),
        (Some(other), Some(own), Scope::Oneself) if other == own => Ok((by, own)),
        (Some(other), _, Scope::Oneself | Scope::OwnProjects) => Err(denied(
            "NOT_ALLOWED",
            format!("you may not {verb} of users/{other}: it needs the role admin"),
        )),
        (None, Some(own), _) => Ok((by, own)),
        (None, None, _) => {
            let fault = Violation::new("name", format!("is required: {LOCAL_ROOT} is no user"));
            Err(invalid(&format!("could not {verb}"), vec![fault]))
        }
    }
}

/// The projects that name this user as owner, in order, at most `max`.
pub(super) fn own_projects(view: &Engine, by: &By, max: usize) -> Vec<Name> {
    let by = by.folded();
    let owner = |project: &Project| project.record.spec.owner.as_ref().map(Name::folded);
    let owned = view.projects_by_name().filter(|project| owner(project).is_some_and(|owner| owner == by));
    owned.map(|project| project.record.name.clone()).take(max).collect()
}

#[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
fn known(caller: &Caller) -> Result<(By, Scope), Status> {
    match caller {
        Caller::User { name, scope, .. } => Ok((By::from(name), *scope)),
        Caller::LocalRoot => Ok((By(LOCAL_ROOT.to_owned()), Scope::Whole)),
        Caller::PushToken { .. } => Err(denied("NOT_ALLOWED", PUSHES_ONLY.to_owned())),
        Caller::Agent(..) => Err(denied("NOT_FOR_AGENTS", "agents may not; it is for users".to_owned())),
    }
}

/// Says what the request is about, also where it is refused: who tries names leaves them in the audit log.
fn about(project: &Result<Name, Violation>) {
    if let Ok(name) = project {
        origin::concerns(convert::project_name(name));
    }
}

fn words(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

fn denied(reason: &'static str, text: String) -> Status {
    refused(&Refusal::new(RefusalCode::PermissionDenied, reason, text))
}
