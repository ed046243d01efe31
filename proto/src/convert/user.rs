//! Users and their tokens, as people see them. Knows no password and no secret.

use std::time::Duration;

use fleet::{
    agent::{PushToken, UserRecord, UserRole, UserToken},
    defaults::USER_TOKEN_TTL,
    id::Name,
    refusal::Violation,
};

use super::{
    OrNote as _,
    enums::wire,
    fault,
    names::{
        Names, etag_of, parse_name, parse_user, project_name, project_name_of, push_token_name, user_name,
        user_token_name,
    },
    time::{duration_from_wire, wall_to_wire},
};
use crate::v1;

/// Projects of one user that are told.
pub const USER_PROJECTS_MAX: usize = 100;

/// What a record of a user does not know.
#[derive(Debug, Clone, Default)]
pub struct UserView {
    /// Tokens that are still good.
    pub tokens: u32,
    /// The first [`USER_PROJECTS_MAX`] projects that name the user as owner.
    pub projects: Vec<Name>,
}

/// What an update of a user changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserChange {
    /// The new role; `None`: as it is.
    pub role: Option<UserRole>,
    /// Shut out, or let in again; `None`: as it is.
    pub disabled: Option<bool>,
}

/// The wire's form of a user, without `ca_hash`, which only the answer to `CreateUser` has.
#[must_use]
pub fn user_to_wire(record: &UserRecord, view: &UserView) -> v1::User {
    let UserRecord { name, role, disabled, password, revision, create_time, update_time, .. } = record;
    v1::User {
        name: user_name(name.as_str()),
        role: user_role_to_wire(*role).into(),
        disabled: *disabled,
        has_password: password.is_some(),
        tokens: view.tokens,
        projects: view.projects.iter().map(project_name).collect(),
        etag: etag_of(*revision),
        create_time: Some(wall_to_wire(*create_time)),
        update_time: Some(wall_to_wire(*update_time)),
        ca_hash: String::new(),
    }
}

/// The wire's form of a role.
#[must_use]
pub fn user_role_to_wire(role: UserRole) -> v1::UserRole {
    v1::UserRole::try_from(wire::user_role::number(role)).unwrap_or_default()
}

/// The wire's form of a token, without the secret: nobody knows it any more. `current`: the request carries it.
#[must_use]
pub fn user_token_to_wire(token: &UserToken, current: bool) -> v1::UserToken {
    let UserToken { id, user, hash: _, create_time, expires, from } = token;
    v1::UserToken {
        name: user_token_name(user, id),
        create_time: Some(wall_to_wire(*create_time)),
        expire_time: Some(wall_to_wire(*expires)),
        address: from.clone(),
        current,
    }
}

/// The wire's form of a push token, without the secret: nobody knows it any more.
#[must_use]
pub fn push_token_to_wire(token: &PushToken, names: &dyn Names) -> v1::PushToken {
    let PushToken { id, project, hash: _, note, create_time, expires, by, last_used } = token;
    v1::PushToken {
        name: push_token_name(id),
        token: String::new(),
        project: project_name_of(names, *project),
        note: note.clone(),
        create_time: Some(wall_to_wire(*create_time)),
        expire_time: expires.map(wall_to_wire),
        by: user_name(by),
        last_use_time: last_used.map(wall_to_wire),
    }
}

/// Reads who a new user is.
///
/// # Errors
/// No name, or no role.
pub fn user_from_wire(wire: &v1::User) -> Result<(Name, UserRole), Vec<Violation>> {
    let mut faults = Vec::new();
    let name = parse_user("user.name", &wire.name).or_note(&mut faults);
    let role = read_role(wire.role).or_note(&mut faults);
    name.zip(role).ok_or(faults)
}

/// Reads what an update changes.
///
/// # Errors
/// Every path that names no field that may be changed; an empty mask; no role where one is to be changed.
pub fn user_change_from_wire(wire: &v1::User, paths: &[String]) -> Result<UserChange, Vec<Violation>> {
    if paths.is_empty() {
        return Err(vec![Violation::new("update_mask", "is required: name the fields to change")]);
    }
    let (mut change, mut faults) = (UserChange::default(), Vec::new());
    for path in paths {
        match path.as_str() {
            "role" => change.role = read_role(wire.role).or_note(&mut faults),
            "disabled" => change.disabled = Some(wire.disabled),
            other => {
                faults.push(fault("update_mask", other, "role and disabled can be changed, nothing else"))
            }
        }
    }
    if faults.is_empty() { Ok(change) } else { Err(faults) }
}

/// Reads who logs in: `users/{user}` or the bare name.
///
/// # Errors
/// No name.
pub fn login_user_from_wire(text: &str) -> Result<Name, Violation> {
    parse_name("user", text.strip_prefix("users/").unwrap_or(text))
}

/// Reads how long a token is to be good for.
///
/// # Errors
/// No duration; whether it is within bounds is the engine's to say.
pub fn user_ttl_from_wire(ttl: Option<&prost_types::Duration>) -> Result<Duration, Violation> {
    ttl.map_or(Ok(USER_TOKEN_TTL), |ttl| duration_from_wire("ttl", ttl))
}

fn read_role(number: i32) -> Result<UserRole, Violation> {
    let rule = "is required: viewer, owner, operator or admin";
    wire::user_role::read(number).ok_or_else(|| Violation::new("user.role", rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_update_changes_what_its_mask_names() {
        let wire = v1::User { role: v1::UserRole::Owner.into(), disabled: true, ..v1::User::default() };
        let read = |paths: &[&str]| user_change_from_wire(&wire, &words(paths));
        assert_eq!(read(&["role"]), Ok(UserChange { role: Some(UserRole::Owner), disabled: None }));
        assert_eq!(read(&["disabled"]), Ok(UserChange { role: None, disabled: Some(true) }));
        assert_eq!(read(&[]).unwrap_err()[0].field, "update_mask");
        assert_eq!(read(&["name", "password", "role"]).unwrap_err().len(), 2);
        let none = user_change_from_wire(&v1::User::default(), &words(&["role"])).unwrap_err();
        assert_eq!(none[0].field, "user.role");
    }

    #[test]
    fn a_new_user_has_a_name_and_a_role() {
        let wire = |name: &str, role: v1::UserRole| v1::User {
            name: name.to_owned(),
            role: role.into(),
            ..v1::User::default()
        };
        let (name, role) = user_from_wire(&wire("users/maria", v1::UserRole::Admin)).unwrap();
        assert_eq!((name.as_str(), role), ("maria", UserRole::Admin));
        assert_eq!(user_from_wire(&wire("maria", v1::UserRole::Unspecified)).unwrap_err().len(), 2);
        assert_eq!(login_user_from_wire("users/maria"), login_user_from_wire("maria"));
        assert!(login_user_from_wire("local root").is_err());
    }
}
