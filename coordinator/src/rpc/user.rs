//! Users: their roles, passwords, tokens and certificates (`user/login.rs`: how one logs in). Passwords and tokens pass
//! through here and stay nowhere: what is stored are their hashes.

mod login;
mod push_tokens;

use std::{collections::HashMap, net::IpAddr};

use ::fleet::{
    Engine,
    agent::UserRecord,
    id::Name,
    input::{Ask, UserAsk},
    refusal::{Refusal, RefusalCode, Violation},
    time::Wall,
};
use mirror_certs::{CertificateRequest, Identity, USER_LIFE};
use mirror_proto::{
    convert::{self, USER_PROJECTS_MAX, UserView},
    status, v1,
};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::{
    By, Caller, Proof,
    access::{on_user, own_projects},
    ask, broken, caller,
    enrollment::address_of,
    invalid, page, refused, user,
};
use crate::{
    Services,
    audit::{self, origin},
    passwords::{self, BUSY_RETRY, PasswordError},
};

/// Users on a page when the caller names no number.
const PAGE_SIZE: usize = 100;

/// `mirror.v1.UserService`.
#[derive(Debug)]
pub struct Users {
    services: Services,
}

/// A password that cannot be hashed or compared now, on its way out.
fn not_hashed(error: &PasswordError) -> Status {
    match error {
        PasswordError::Busy => status::exhausted("PASSWORDS_BUSY", &error.to_string(), BUSY_RETRY),
        PasswordError::Broken(_) => broken("comparing a password", error),
    }
}

impl Users {
    /// The service.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self { services }
    }

    #[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
    fn find(&self, name: &Name) -> Result<UserRecord, Status> {
        let view = self.services.driver.view();
        view.user(name).cloned().ok_or_else(|| refused(&Refusal::not_found("user", name)))
    }

    #[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
    fn shown(&self, name: &Name) -> Result<Response<v1::User>, Status> {
        let record = self.find(name)?;
        let view = self.services.driver.view();
        let now = self.services.driver.now().wall;
        let alive = view.tokens_of(&record.name).into_iter().filter(|token| token.expires > now).count();
        let known = UserView {
            tokens: u32::try_from(alive).unwrap_or(u32::MAX),
            projects: own_projects(&view, &By::from(&record.name), USER_PROJECTS_MAX),
        };
        Ok(Response::new(convert::user_to_wire(&record, &known)))
    }

    async fn change(&self, by: &By, wish: UserAsk) -> Result<(), Status> {
        ask(&self.services, by, Ask::User(wish)).await.map(drop)
    }

    /// Reads the certificate request and signs it; nothing is stored, and nothing of it but the key is used.
    #[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
    fn issue(&self, name: &Name, request: &str) -> Result<v1::IssueCertificateResponse, Status> {
        const WHAT: &str = "no certificate issued";
        let user = self.find(name)?;
        if user.disabled {
            let text = format!("{WHAT}: users/{name} is disabled (mirrorctl user enable {name})");
            return Err(refused(&Refusal::precondition("USER_DISABLED", text)));
        }
        let fault = |text: String| invalid(WHAT, vec![Violation::new("certificate_request", text)]);
        let request = CertificateRequest::from_pem(request).map_err(|error| fault(error.to_string()))?;
        if self.services.deny.is_key_denied(&request.spki_hash()) {
            return Err(fault("its key is on the deny list; make a new one".to_owned()));
        }
        let identity = user.name.as_str().parse().map(Identity::User);
        let identity = identity.map_err(|error| broken("naming a user in a certificate", &error))?;
        if self.services.deny.is_identity_denied(&identity) {
            let text = format!("{WHAT}: users/{name} is on the deny list; a certificate would be refused");
            return Err(refused(&Refusal::precondition("USER_DENIED", text)));
        }
        let now = self.services.driver.now().wall.to_utc();
        let issued = self.services.ca.issue(&request, &identity, now, USER_LIFE);
        let issued = issued.map_err(|error| broken("issuing a certificate", &error))?;
        Ok(v1::IssueCertificateResponse {
            certificate: issued.cert_pem,
            ca_certificates: self.services.bundle_pem.load().as_str().to_owned(),
            expire_time: Some(convert::wall_to_wire(issued.not_after.into())),
            name: convert::user_name(user.name.as_str()),
        })
    }

    /// What is stored of a new password.
    async fn hash(&self, password: Zeroizing<String>) -> Result<::fleet::agent::PasswordHash, Status> {
        self.services.passwords.hash(password).await.map_err(|error| not_hashed(&error))
    }

    /// The old password is asked for where one changes one's own: a stolen token alone takes no account over.
    async fn check_old(&self, user: &UserRecord, old: String, address: IpAddr) -> Result<(), Status> {
        let Some(hash) = user.password.clone() else {
            // The first one: whoever has a certificate could not have given an old one.
            return Ok(());
        };
        let old = Zeroizing::new(old);
        if login::throttled(&self.services, &user.name, address, old, Some(hash)).await? {
            return Ok(());
        }
        let fault = Violation::new("old_password", "is not the present one");
        Err(invalid("password not changed", vec![fault]))
    }
}

#[tonic::async_trait]
impl v1::user_service_server::UserService for Users {
    async fn create_user(
        &self,
        request: Request<v1::CreateUserRequest>,
    ) -> Result<Response<v1::User>, Status> {
        const WHAT: &str = "user not created";
        let by = user(&request)?;
        let v1::CreateUserRequest { user: wire, password } = request.into_inner();
        let password = Some(Zeroizing::new(password)).filter(|password| !password.is_empty());
        let wire = wire.ok_or_else(|| invalid(WHAT, vec![Violation::new("user", "is required")]))?;
        let read = convert::user_from_wire(&wire);
        let fault = password.as_ref().and_then(|password| passwords::fault_of(password));
        let (name, role) = match (read, fault) {
            (Ok(read), None) => read,
            (read, fault) => {
                let fault = fault.map(|fault| Violation::new("password", fault));
                return Err(invalid(WHAT, read.err().into_iter().flatten().chain(fault).collect()));
            }
        };
        origin::concerns(convert::user_name(name.as_str()));
        let password = match password {
            Some(password) => Some(self.hash(password).await?),
            None => None,
        };
        self.change(&by, UserAsk::Create { name: name.clone(), role, password }).await?;
        tracing::info!(target: "audit", %by, user = %name, role = super::policy::role_name(role), "user created");
        let mut created = self.shown(&name)?;
        created.get_mut().ca_hash = self.services.ca.ca_hash().to_string();
        Ok(created)
    }

    async fn get_user(&self, request: Request<v1::GetUserRequest>) -> Result<Response<v1::User>, Status> {
        let named = convert::parse_user("name", &request.get_ref().name);
        let (_, name) = on_user(&request, "see the record", Some(named))?;
        self.shown(&name)
    }

    async fn list_users(
        &self,
        request: Request<v1::ListUsersRequest>,
    ) -> Result<Response<v1::ListUsersResponse>, Status> {
        let v1::ListUsersRequest { page_size, page_token } = request.get_ref();
        let page = page::read("users", *page_size, page_token, PAGE_SIZE)
            .map_err(|faults| invalid("users not listed", faults))?;
        let view = self.services.driver.view();
        let after: Option<Name> = page.after.as_deref().and_then(|after| after.parse().ok());
        let rows = view.users_by_name().filter(|user| after.as_ref().is_none_or(|after| user.name > *after));
        let (users, next_page_token) = page::cut("users", &page, rows, |user| user.name.to_string());
        let mut known = known_of_all(&view, self.services.driver.now().wall);
        let shown = |user: &UserRecord| {
            convert::user_to_wire(user, &known.remove(&user.name.folded()).unwrap_or_default())
        };
        let users = users.into_iter().map(shown).collect();
        Ok(Response::new(v1::ListUsersResponse { users, next_page_token }))
    }

    async fn update_user(
        &self,
        request: Request<v1::UpdateUserRequest>,
    ) -> Result<Response<v1::User>, Status> {
        const WHAT: &str = "user not changed";
        let by = user(&request)?;
        let v1::UpdateUserRequest { user: wire, update_mask } = request.into_inner();
        let wire = wire.ok_or_else(|| invalid(WHAT, vec![Violation::new("user", "is required")]))?;
        let paths = update_mask.map(|mask| mask.paths).unwrap_or_default();
        let name = convert::parse_user("user.name", &wire.name);
        let revision = convert::parse_etag("user.etag", &wire.etag);
        let change = convert::user_change_from_wire(&wire, &paths);
        let (name, revision, change) = match (name, revision, change) {
            (Ok(name), Ok(revision), Ok(change)) => (name, revision, change),
            (name, revision, change) => {
                let faults = name.err().into_iter().chain(revision.err());
                return Err(invalid(WHAT, faults.chain(change.err().into_iter().flatten()).collect()));
            }
        };
        origin::concerns(convert::user_name(name.as_str()));
        let convert::UserChange { role, disabled } = change;
        let update = UserAsk::Update { user: name.clone(), role, disabled, revision };
        self.change(&by, update).await?;
        if role.is_some() || disabled == Some(true) {
            // What is open was let through by what the user was before.
            self.services.streams.end_user(&name);
        }
        let role = role.map(super::policy::role_name);
        tracing::info!(target: "audit", %by, user = %name, role, disabled, "user changed");
        self.shown(&name)
    }

    async fn set_password(
        &self,
        request: Request<v1::SetPasswordRequest>,
    ) -> Result<Response<v1::User>, Status> {
        const WHAT: &str = "password not changed";
        let named = Some(&request.get_ref().name).filter(|name| !name.is_empty());
        let named = named.map(|name| convert::parse_user("name", name));
        let (by, name) = on_user(&request, "change the password", named)?;
        let own = matches!(caller(&request)?, Caller::User { name: own, .. } if *own == name);
        let address = address_of(&request);
        let v1::SetPasswordRequest { old_password, password, .. } = request.into_inner();
        let password = Zeroizing::new(password);
        if let Some(fault) = passwords::fault_of(&password) {
            return Err(invalid(WHAT, vec![Violation::new("password", fault)]));
        }
        let user = self.find(&name)?;
        if own {
            self.check_old(&user, old_password, address).await?;
        }
        let password = self.hash(password).await?;
        let wish = UserAsk::SetPassword { user: name.clone(), password, old: user.password, reset: !own };
        self.change(&by, wish).await?;
        self.services.streams.end_user(&name);
        tracing::info!(target: "audit", %by, user = %name, reset = !own, "password changed");
        self.shown(&name)
    }

    async fn delete_user(&self, request: Request<v1::DeleteUserRequest>) -> Result<Response<()>, Status> {
        const WHAT: &str = "user not deleted";
        let by = user(&request)?;
        let v1::DeleteUserRequest { name, etag } = request.get_ref();
        let (name, revision) = match (convert::parse_user("name", name), convert::parse_etag("etag", etag)) {
            (Ok(name), Ok(revision)) => (name, revision),
            (name, revision) => {
                return Err(invalid(WHAT, name.err().into_iter().chain(revision.err()).collect()));
            }
        };
        origin::concerns(convert::user_name(name.as_str()));
        self.change(&by, UserAsk::Delete { user: name.clone(), revision }).await?;
        self.services.streams.end_user(&name);
        tracing::info!(target: "audit", %by, user = %name, "user deleted");
        Ok(Response::new(()))
    }

    async fn login(&self, request: Request<v1::LoginRequest>) -> Result<Response<v1::LoginResponse>, Status> {
        login::login(&self.services, request).await.map(Response::new)
    }

    async fn logout(&self, request: Request<v1::LogoutRequest>) -> Result<Response<()>, Status> {
        let by = user(&request)?;
        let Caller::User { name, proof: Proof::Token { id, .. }, .. } = caller(&request)? else {
            let text = "not logged out: the request carries no token; a certificate is good until it ends";
            return Err(refused(&Refusal::precondition("NO_TOKEN", text)));
        };
        self.change(&by, UserAsk::RevokeToken { user: name.clone(), id: id.clone() }).await?;
        self.services.streams.end_token(id);
        tracing::info!(target: "audit", %by, token = id, "logged out");
        Ok(Response::new(()))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let named = Some(&request.get_ref().parent).filter(|name| !name.is_empty());
        let named = named.map(|name| convert::parse_user("parent", name));
        let (_, name) = on_user(&request, "see the tokens", named)?;
        self.find(&name)?;
        let current = match caller(&request)? {
            Caller::User { proof, .. } => proof.token(),
            Caller::Agent(..) | Caller::PushToken { .. } | Caller::LocalRoot => None,
        };
        let now = self.services.driver.now().wall;
        let view = self.services.driver.view();
        let alive = view.tokens_of(&name).into_iter().filter(|token| token.expires > now);
        let tokens =
            alive.map(|token| convert::user_token_to_wire(token, current == Some(token.id.as_str())));
        Ok(Response::new(v1::ListTokensResponse { tokens: tokens.collect() }))
    }

    async fn revoke_token(&self, request: Request<v1::RevokeTokenRequest>) -> Result<Response<()>, Status> {
        let read = convert::parse_user_token("name", &request.get_ref().name);
        let (named, id) = match read {
            Ok((user, id)) => (Ok(user), id),
            Err(fault) => (Err(fault), String::new()),
        };
        let (by, name) = on_user(&request, "revoke tokens", Some(named))?;
        self.change(&by, UserAsk::RevokeToken { user: name.clone(), id: id.clone() }).await?;
        self.services.streams.end_token(&id);
        tracing::info!(target: "audit", %by, user = %name, token = id, "token revoked");
        Ok(Response::new(()))
    }

    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        use v1::who_am_i_response::Proof as Wire;
        let by = user(&request)?;
        let view = self.services.driver.view();
        let projects = own_projects(&view, &by, USER_PROJECTS_MAX);
        let shown = v1::WhoAmIResponse {
            projects: projects.iter().map(convert::project_name).collect(),
            ..v1::WhoAmIResponse::default()
        };
        let shown = match caller(&request)? {
            Caller::User { name, role, proof, .. } => v1::WhoAmIResponse {
                name: convert::user_name(name.as_str()),
                role: convert::user_role_to_wire(*role).into(),
                proof: if proof.token().is_some() { Wire::Token } else { Wire::Certificate }.into(),
                expire_time: Some(convert::wall_to_wire(proof.expires().into())),
                has_password: view.user(name).map(|user| user.password.is_some()),
                ..shown
            },
            Caller::LocalRoot | Caller::Agent(..) | Caller::PushToken { .. } => v1::WhoAmIResponse {
                name: by.to_string(),
                role: v1::UserRole::Admin.into(),
                proof: Wire::Socket.into(),
                ..shown
            },
        };
        Ok(Response::new(shown))
    }

    async fn issue_certificate(
        &self,
        request: Request<v1::IssueCertificateRequest>,
    ) -> Result<Response<v1::IssueCertificateResponse>, Status> {
        let named = Some(&request.get_ref().name).filter(|name| !name.is_empty());
        let named = named.map(|name| convert::parse_user("name", name));
        let (by, name) = on_user(&request, "get a certificate", named)?;
        let issued = self.issue(&name, &request.get_ref().certificate_request)?;
        if let Some(origin) = origin::current() {
            // No record of the fleet's changes by it.
            self.services.driver.record(audit::noted(&origin, "a certificate was issued".to_owned()));
        }
        tracing::info!(target: "audit", %by, user = %name, "certificate issued");
        Ok(Response::new(issued))
    }

    async fn create_push_token(
        &self,
        request: Request<v1::CreatePushTokenRequest>,
    ) -> Result<Response<v1::PushToken>, Status> {
        push_tokens::create(&self.services, request).await.map(Response::new)
    }

    async fn list_push_tokens(
        &self,
        request: Request<v1::ListPushTokensRequest>,
    ) -> Result<Response<v1::ListPushTokensResponse>, Status> {
        push_tokens::list(&self.services, request.get_ref()).map(Response::new)
    }

    async fn delete_push_token(
        &self,
        request: Request<v1::DeletePushTokenRequest>,
    ) -> Result<Response<()>, Status> {
        push_tokens::delete(&self.services, request).await.map(Response::new)
    }
}

/// What is shown beside the records of users, of all in one pass, by folded names.
fn known_of_all(view: &Engine, now: Wall) -> HashMap<String, UserView> {
    let mut known: HashMap<String, UserView> = HashMap::new();
    for project in view.projects_by_name() {
        let Some(owner) = &project.record.spec.owner else { continue };
        let projects = &mut known.entry(owner.folded()).or_default().projects;
        if projects.len() < USER_PROJECTS_MAX {
            projects.push(project.record.name.clone());
        }
    }
    for token in view.user_tokens().filter(|token| token.expires > now) {
        let tokens = &mut known.entry(token.user.folded()).or_default().tokens;
        *tokens = tokens.saturating_add(1);
    }
    known
}

/// Who logs in learns of no difference between a wrong user and a wrong password.
pub(super) fn wrong() -> Status {
    let text = "wrong user or password; an admin can give a new one (mirrorctl user reset-password NAME)";
    refused(&Refusal::new(RefusalCode::Unauthenticated, "LOGIN_FAILED", text))
}
