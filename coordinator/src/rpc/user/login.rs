//! From a password to a token. Open to everybody who reaches the port, so a try is slowed by user and by address, the
//! work is the same whether or not there is such a user, and only a few passwords are compared at once.

use std::net::IpAddr;

use ::fleet::{
    agent::{PasswordHash, UserRecord},
    defaults::PASSWORD_BYTES_MAX,
    id::Name,
    input::{Ask, UserAsk},
    refusal::Violation,
};
use mirror_certs::UserToken;
use mirror_proto::{convert, status, v1};
use tonic::{Code, Request, Status};
use zeroize::Zeroizing;

use super::{not_hashed, wrong};
use crate::{
    Services,
    audit::origin,
    connections::PeerInfo,
    rpc::{By, ask, broken, enrollment::address_of, gate::token_id, invalid},
};

const WHAT: &str = "not logged in";

/// Compares a password, or answers why that must wait. A try that was wrong counts, for the user and for the address.
pub(super) async fn throttled(
    services: &Services,
    user: &Name,
    address: IpAddr,
    password: Zeroizing<String>,
    hash: Option<PasswordHash>,
) -> Result<bool, Status> {
    let logins = &services.logins;
    if let Err(wait) = logins.begin(services.driver.now().mono, user, address) {
        let seconds = wait.as_secs() + 1;
        let text = format!(
            "too many wrong passwords for {user} or from {address}; try again in {seconds}s. A client certificate needs no \
             password, nor does the coordinator's own socket (mirrorctl --socket)"
        );
        return Err(status::exhausted("TOO_MANY_LOGINS", &text, wait));
    }
    match services.passwords.is(password, hash).await {
        Ok(true) => {
            logins.succeeded(user, address);
            Ok(true)
        }
        Ok(false) => Ok(false),
        Err(error) => {
            logins.undone(user, address);
            Err(not_hashed(&error))
        }
    }
}

/// `UserService.Login`.
pub(super) async fn login(
    services: &Services,
    request: Request<v1::LoginRequest>,
) -> Result<v1::LoginResponse, Status> {
    let address = address_of(&request);
    let from = request.extensions().get::<PeerInfo>().map(PeerInfo::from).unwrap_or_default();
    let v1::LoginRequest { user, password, ttl } = request.into_inner();
    let password = Zeroizing::new(password);
    let name = convert::login_user_from_wire(&user);
    let ttl = convert::user_ttl_from_wire(ttl.as_ref());
    let long = password.len() > PASSWORD_BYTES_MAX;
    let long = long
        .then(|| Violation::new("password", format!("must not be longer than {PASSWORD_BYTES_MAX} bytes")));
    let (name, ttl) = match (name, ttl, long) {
        (Ok(name), Ok(ttl), None) => (name, ttl),
        (name, ttl, long) => {
            let faults = name.err().into_iter().chain(ttl.err()).chain(long);
            return Err(invalid(WHAT, faults.collect()));
        }
    };
    let known = services.driver.view().user(&name).filter(|user| !user.disabled).cloned();
    if let Some(user) = &known {
        // Of the others only those who typed them know whether they are names.
        origin::concerns(convert::user_name(user.name.as_str()));
    }
    let hash = known.as_ref().and_then(|user| user.password.clone());
    let right = throttled(services, &name, address, password, hash).await;
    let made = match (right, known) {
        (Ok(true), Some(user)) => enter(services, &user, ttl, from.clone()).await,
        (Ok(_), _) => Err(wrong()),
        (Err(status), _) => Err(status),
    };
    match &made {
        Ok(made) => tracing::info!(target: "audit", user = %name, from, token = made.name, "logged in"),
        Err(status) => {
            let code = status.code();
            tracing::warn!(target: "audit", user = %name, from, ?code, "not logged in");
        }
    }
    made
}

/// Makes a token and hands it out after the commit that enters it.
async fn enter(
    services: &Services,
    user: &UserRecord,
    ttl: std::time::Duration,
    from: String,
) -> Result<v1::LoginResponse, Status> {
    let token = UserToken::generate().map_err(|error| broken("making a token", &error))?;
    let hash = token.hash();
    let id = token_id(&hash).to_owned();
    let password = user.password.clone().ok_or_else(wrong)?;
    let wish = UserAsk::LogIn { user: user.name.clone(), password, id: id.clone(), hash, ttl, from };
    ask(services, &By::from(&user.name), Ask::User(wish)).await.map_err(|status| match status.code() {
        // Disabled, deleted, or given another password meanwhile.
        Code::Aborted | Code::NotFound => wrong(),
        _ => status,
    })?;
    let view = services.driver.view();
    let entered = view.user_token(&id).ok_or_else(wrong)?;
    Ok(v1::LoginResponse {
        token: token.reveal().to_owned(),
        name: convert::user_token_name(&entered.user, &entered.id),
        expire_time: Some(convert::wall_to_wire(entered.expires)),
        role: convert::user_role_to_wire(user.role).into(),
        ca_certificates: services.bundle_pem.load().as_str().to_owned(),
    })
}
