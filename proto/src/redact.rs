//! `Debug` for the messages that carry secrets: a stray `{:?}` in a log shows that there is a secret, never
//! which. `build.rs` keeps the derived `Debug` away from these. Knows nothing of where messages are printed.

use std::fmt;

use crate::{store, v1};

/// What stands in the place of a secret.
const HIDDEN: &str = "(hidden)";

/// The placeholder of a secret, or nothing where there is none.
fn hide(secret: &str) -> &'static str {
    if secret.is_empty() { "" } else { HIDDEN }
}

impl fmt::Debug for v1::Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { password } = self;
        f.debug_struct("Secrets").field("password", &hide(password)).finish()
    }
}

impl fmt::Debug for v1::ExportUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, secret } = self;
        f.debug_struct("ExportUser").field("user", user).field("secret", &hide(secret)).finish()
    }
}

impl fmt::Debug for v1::Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uri, user, password, has_password } = self;
        f.debug_struct("Upstream")
            .field("uri", &without_user_info(uri))
            .field("user", user)
            .field("password", &password.as_deref().map(hide))
            .field("has_password", has_password)
            .finish()
    }
}

impl fmt::Debug for store::Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uri, host, user, sealed_password } = self;
        let sealed = sealed_password.as_ref().map(|bytes| if bytes.is_empty() { "" } else { HIDDEN });
        f.debug_struct("Upstream")
            .field("uri", uri)
            .field("host", host)
            .field("user", user)
            .field("sealed_password", &sealed)
            .finish()
    }
}

impl fmt::Debug for v1::EnrollRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { join_token, agent, certificate_request, labels } = self;
        f.debug_struct("EnrollRequest")
            .field("join_token", &hide(join_token))
            .field("agent", agent)
            .field("certificate_request", &hide(certificate_request))
            .field("labels", labels)
            .finish()
    }
}

impl fmt::Debug for v1::JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, token, agent, pattern, uses_left, expire_time, by, ca_hash, cidrs } = self;
        f.debug_struct("JoinToken")
            .field("name", name)
            .field("token", &hide(token))
            .field("agent", agent)
            .field("pattern", pattern)
            .field("uses_left", uses_left)
            .field("expire_time", expire_time)
            .field("by", by)
            .field("ca_hash", ca_hash)
            .field("cidrs", cidrs)
            .finish()
    }
}

impl fmt::Debug for v1::PushToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, token, project, note, create_time, expire_time, by, last_use_time } = self;
        f.debug_struct("PushToken")
            .field("name", name)
            .field("token", &hide(token))
            .field("project", project)
            .field("note", note)
            .field("create_time", create_time)
            .field("expire_time", expire_time)
            .field("by", by)
            .field("last_use_time", last_use_time)
            .finish()
    }
}

impl fmt::Debug for v1::CreateUserRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, password } = self;
        f.debug_struct("CreateUserRequest").field("user", user).field("password", &hide(password)).finish()
    }
}

impl fmt::Debug for v1::SetPasswordRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, old_password, password } = self;
        f.debug_struct("SetPasswordRequest")
            .field("name", name)
            .field("old_password", &hide(old_password))
            .field("password", &hide(password))
            .finish()
    }
}

impl fmt::Debug for v1::LoginRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, password, ttl } = self;
        f.debug_struct("LoginRequest")
            .field("user", user)
            .field("password", &hide(password))
            .field("ttl", ttl)
            .finish()
    }
}

impl fmt::Debug for v1::LoginResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, name, expire_time, role, ca_certificates } = self;
        f.debug_struct("LoginResponse")
            .field("token", &hide(token))
            .field("name", name)
            .field("expire_time", expire_time)
            .field("role", role)
            .field("ca_certificates", ca_certificates)
            .finish()
    }
}

impl fmt::Debug for store::UserRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, role, disabled, password_hash, .. } = self;
        f.debug_struct("UserRecord")
            .field("name", name)
            .field("role", role)
            .field("disabled", disabled)
            .field("password_hash", &password_hash.as_deref().map(hide))
            .finish_non_exhaustive()
    }
}

/// A URI that people typed may hold a password although none is allowed there: what stands before the last
/// `@` is cut out.
pub(crate) fn without_user_info(uri: &str) -> String {
    match (uri.split_once("://"), uri.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{HIDDEN}@{rest}"),
        (None, Some((_, rest))) => format!("{HIDDEN}@{rest}"),
        (_, None) => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "hunter2";

    #[test]
    fn no_debug_output_shows_a_secret() {
        let secret = || SECRET.to_owned();
        let secrets = v1::Secrets { password: secret() };
        let upstream = v1::Upstream {
            uri: format!("rsync://me:{SECRET}@host/module"),
            password: Some(secret()),
            ..v1::Upstream::default()
        };
        let enroll = v1::EnrollRequest {
            join_token: secret(),
            certificate_request: secret(),
            ..v1::EnrollRequest::default()
        };
        let token = v1::JoinToken { token: secret(), ..v1::JoinToken::default() };
        let stored = store::Upstream { sealed_password: Some(SECRET.into()), ..store::Upstream::default() };
        let project = v1::Project { upstreams: vec![upstream.clone()], ..v1::Project::default() };
        let reader = v1::ExportUser { user: "a3-20000".to_owned(), secret: secret() };
        let export = v1::Export { users: vec![reader], ..v1::Export::default() };
        let assignment = v1::Assignment { secrets: Some(secrets.clone()), ..v1::Assignment::default() };
        let create = v1::CreateUserRequest { password: secret(), ..v1::CreateUserRequest::default() };
        let change = v1::SetPasswordRequest {
            old_password: secret(),
            password: secret(),
            ..v1::SetPasswordRequest::default()
        };
        let login = v1::LoginRequest { password: secret(), ..v1::LoginRequest::default() };
        let answer = v1::LoginResponse { token: secret(), ..v1::LoginResponse::default() };
        let user = store::UserRecord { password_hash: Some(secret()), ..store::UserRecord::default() };
        for text in [
            format!("{create:?}"),
            format!("{change:?}"),
            format!("{login:?}"),
            format!("{answer:?}"),
            format!("{user:?}"),
            format!("{secrets:?}"),
            format!("{upstream:?}"),
            format!("{enroll:?}"),
            format!("{token:?}"),
            format!("{stored:?}"),
            format!("{project:?}"),
            format!("{assignment:?}"),
            format!("{export:?}"),
        ] {
            assert!(text.contains(HIDDEN) && !text.contains(SECRET) && !text.contains("104, 117"), "{text}");
        }
    }

    #[test]
    fn an_absent_secret_is_told_from_a_hidden_one() {
        assert_eq!(format!("{:?}", v1::Secrets::default()), r#"Secrets { password: "" }"#);
        let text = format!("{:?}", v1::Upstream { uri: "rsync://h/m".to_owned(), ..v1::Upstream::default() });
        assert!(text.contains("rsync://h/m") && text.contains("password: None"), "{text}");
    }
}
