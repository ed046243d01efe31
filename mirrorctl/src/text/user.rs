//! Users, tokens, and who one is.

use mirror_proto::v1;
use mirror_proto::v1::who_am_i_response::Proof;

use crate::table::{Cell, Table};
use crate::term::{Color, View};
use crate::text::{ahead, block, since, time};
use crate::{names, units};

/// A role as it is typed.
#[must_use]
pub const fn role_word(role: v1::UserRole) -> &'static str {
    match role {
        v1::UserRole::Unspecified => "?",
        v1::UserRole::Viewer => "viewer",
        v1::UserRole::Owner => "owner",
        v1::UserRole::Operator => "operator",
        v1::UserRole::Admin => "admin",
    }
}

/// `mirrorctl user list`.
#[must_use]
pub fn list(view: &View, users: &[v1::User]) -> String {
    if users.is_empty() {
        return "No users. Next: mirrorctl user create --help\n".to_owned();
    }
    let mut table = Table::new(["NAME", "ROLE", "STATE", "PASSWORD", "TOKENS", "OWNS", "CREATED"]);
    for user in users {
        let owns: Vec<&str> = user.projects.iter().map(|project| names::last(project)).collect();
        let state = if user.disabled {
            Cell::colored("disabled", Some(Color::Yellow))
        } else {
            Cell::from("enabled")
        };
        table.row([
            names::last(&user.name).into(),
            role_word(user.role()).into(),
            state,
            if user.has_password { "yes" } else { "no" }.into(),
            user.tokens.to_string().into(),
            if owns.is_empty() { "-".to_owned() } else { owns.join(",") }.into(),
            since(view, user.create_time).into(),
        ]);
    }
    table.render(view)
}

/// `mirrorctl user show`.
#[must_use]
pub fn show(view: &View, user: &v1::User) -> String {
    let mut lines = vec![
        ("role", role_word(user.role()).to_owned()),
        ("state", if user.disabled { "disabled: nothing is let through" } else { "enabled" }.to_owned()),
        ("password", if user.has_password { "yes" } else { "none: known by certificates alone" }.to_owned()),
        ("tokens", user.tokens.to_string()),
    ];
    lines.extend(owns(&user.projects));
    lines.extend(time(user.create_time).map(|at| ("created", units::moment(at, view.now))));
    lines.extend(time(user.update_time).map(|at| ("changed", units::moment(at, view.now))));
    format!("{}\n{}", names::last(&user.name), block(view, &lines))
}

/// `mirrorctl token list`.
#[must_use]
pub fn tokens(view: &View, tokens: &[v1::UserToken]) -> String {
    if tokens.is_empty() {
        return "No tokens. Next: mirrorctl login USER\n".to_owned();
    }
    let mut table = Table::new(["ID", "MADE", "ENDS", "FROM", ""]);
    for token in tokens {
        table.row([
            names::last(&token.name).into(),
            since(view, token.create_time).into(),
            ahead(view, token.expire_time).into(),
            units::clean(&token.address).into(),
            if token.current { "this one" } else { "" }.into(),
        ]);
    }
    table.render(view)
}

/// `mirrorctl push-token list`.
#[must_use]
pub fn push_tokens(view: &View, tokens: &[v1::PushToken]) -> String {
    if tokens.is_empty() {
        return "No push tokens. Next: mirrorctl push-token create PROJECT\n".to_owned();
    }
    let mut table = Table::new(["ID", "PROJECT", "USED", "ENDS", "BY", "NOTE"]);
    for token in tokens {
        let used = token.last_use_time.map_or_else(|| "never".to_owned(), |used| since(view, Some(used)));
        table.row([
            names::last(&token.name).into(),
            names::last(&token.project).into(),
            used.into(),
            ahead(view, token.expire_time).into(),
            names::last(&token.by).into(),
            units::clean(&token.note).into(),
        ]);
    }
    table.render(view)
}

/// `mirrorctl whoami`.
#[must_use]
pub fn me(view: &View, me: &v1::WhoAmIResponse) -> String {
    let proof = match me.proof() {
        Proof::Certificate => "a client certificate",
        Proof::Token => "a token",
        Proof::Socket => "the coordinator's own socket",
        Proof::Unspecified => "?",
    };
    let until = time(me.expire_time).map(|until| units::moment_and_distance(until, view.now));
    let by = until.map_or_else(|| proof.to_owned(), |until| format!("{proof}, until {until}"));
    let mut lines = vec![("role", role_word(me.role()).to_owned()), ("by", by)];
    lines.extend(owns(&me.projects));
    format!("{}\n{}", names::last(&me.name), block(view, &lines))
}

fn owns(projects: &[String]) -> Option<(&'static str, String)> {
    let owned: Vec<&str> = projects.iter().map(|project| names::last(project)).collect();
    (!owned.is_empty()).then(|| ("owns", owned.join(", ")))
}
