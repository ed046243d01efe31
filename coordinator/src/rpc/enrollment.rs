//! How a host gets its first certificate (`renewal.rs`: all later ones). Open to everybody who reaches the port, so
//! everything here is bounded by address, and nothing tells a bad token from a used one.
//!
//! The certificate is signed first and handed out only after the commit that burns the token: a crash in between
//! costs a token, never a certificate too many.

mod renewal;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ::fleet::{
    agent::TokenNames,
    id::Name,
    input::{AgentInput, Input, Reply},
    refusal::{Refusal, RefusalCode, Violation},
    time::{Mono, Now, Wall},
};
use mirror_certs::{AGENT_LIFE, CertificateRequest, Denial, Identity, JoinToken, SpkiHash};
use mirror_proto::{convert, status, v1};
use tonic::{Code, Request, Response, Status};

use super::{broken, deny, deny_key, invalid, refused, unavailable};
use crate::{Services, audit::origin, connections::PeerInfo};

/// Refused enrolments, and again refused renewals, from one address within [`TRIES_SPAN`].
pub const TRIES_MAX: u32 = 10;
/// The time within which they count.
pub const TRIES_SPAN: Duration = Duration::from_secs(60);
/// Addresses whose tries are remembered; when there are more, new ones wait.
pub const ADDRESSES_MAX: usize = 4_096;

/// The hash of a public key as records hold it: 64 hex digits.
#[must_use]
pub fn key_hash(hash: &SpkiHash) -> String {
    hash.to_string().trim_start_matches("sha256:").to_owned()
}

/// Refused tries by address.
#[derive(Debug, Default)]
struct Tries(Mutex<HashMap<IpAddr, (Mono, u32)>>);

impl Tries {
    /// How long this address must wait; `None`: it may try.
    fn wait(&self, now: Mono, address: IpAddr) -> Option<Duration> {
        let mut tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tries.retain(|_, (since, _)| now.since(*since) < TRIES_SPAN);
        match tries.get(&network(address)) {
            Some((since, count)) if *count >= TRIES_MAX => Some(TRIES_SPAN.saturating_sub(now.since(*since))),
            None if tries.len() >= ADDRESSES_MAX => Some(TRIES_SPAN),
            Some(_) | None => None,
        }
    }

    /// Refuses an address that must wait; `what` was refused too often.
    #[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
    fn check(&self, now: Mono, address: IpAddr, what: &str) -> Result<(), Status> {
        let Some(wait) = self.wait(now, address) else { return Ok(()) };
        let text = format!("too many refused {what} from {address}; try again in {}s", wait.as_secs().max(1));
        Err(status::exhausted("TOO_MANY_TRIES", &text, wait))
    }

    fn failed(&self, now: Mono, address: IpAddr) {
        let mut tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tries.len() < ADDRESSES_MAX || tries.contains_key(&network(address)) {
            tries.entry(network(address)).or_insert((now, 0)).1 += 1;
        }
    }
}

/// What counts as one address: whoever has an IPv6 host has a /64.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => std::net::Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        },
    }
}

/// `mirror.v1.EnrollmentService`.
#[derive(Debug)]
pub struct Enrollment {
    services: Services,
    tries: Tries,
    /// Apart, so that a host that may not renew does not keep its neighbours behind one address from enrolling.
    renewals: Tries,
}

/// An enrolment that was read.
struct Wish {
    name: Name,
    identity: Identity,
    token_hash: String,
    from: IpAddr,
    labels: std::collections::BTreeMap<String, String>,
    request: CertificateRequest,
}

impl Enrollment {
    /// The service.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self { services, tries: Tries::default(), renewals: Tries::default() }
    }

    /// Reads the request. The token is judged first: who has none learns nothing about the rest.
    #[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
    fn read(&self, now: Now, wire: &v1::EnrollRequest, from: IpAddr) -> Result<Wish, Status> {
        // What is no token at all has a hash that no token has.
        let token_hash =
            wire.join_token.parse().map_or_else(|_| String::new(), |token: JoinToken| token.hash());
        let mut faults = Vec::new();
        let asked = convert::enrol_name_from_wire(&wire.agent).unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
        let name = asked.or_else(|| self.bound_name(&token_hash));
        if let Some(name) = &name {
            origin::concerns(convert::agent_name(name));
        }
        self.check_token(now, &token_hash, name.as_ref(), from)?;
        if name.is_none() && faults.is_empty() {
            faults.push(Violation::new("agent", "is required: the token is good for more than one name"));
        }
        let labels = convert::labels_from_wire("labels", &wire.labels).unwrap_or_else(|found| {
            faults.extend(found);
            std::collections::BTreeMap::new()
        });
        let request = CertificateRequest::from_pem(&wire.certificate_request)
            .map_err(|error| faults.push(Violation::new("certificate_request", error.to_string())));
        let identity = name.as_ref().and_then(|name| name.as_str().parse().ok()).map(Identity::Agent);
        match (name, identity, request) {
            (Some(name), Some(identity), Ok(request)) if faults.is_empty() => {
                Ok(Wish { name, identity, token_hash, from, labels, request })
            }
            _ => Err(invalid("not enrolled", faults)),
        }
    }

    /// The one name that the token is bound to.
    fn bound_name(&self, token_hash: &str) -> Option<Name> {
        let view = self.services.driver.view();
        let token = view.join_tokens().find(|token| token.hash == token_hash)?;
        match &token.names {
            TokenNames::One(name) => Some(name.clone()),
            TokenNames::Pattern(_) => None,
        }
    }

    /// Asks the engine, without changing anything, whether the token is good for this name (for any, where no name is
    /// known yet).
    #[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
    fn check_token(
        &self,
        now: Now,
        token_hash: &str,
        name: Option<&Name>,
        from: IpAddr,
    ) -> Result<(), Status> {
        let view = self.services.driver.view();
        let token = view.join_tokens().find(|token| token.hash == token_hash);
        if let Some(token) = token.filter(|token| !token.admits(Some(from))) {
            // Whoever has a token that was stolen is not told what it lacks.
            let from = from.to_canonical();
            origin::because(format!("join token {} is not good from {from}", token.id));
        }
        if name.is_none() && token.is_some_and(|token| token.expires > now.wall && token.admits(Some(from))) {
            return Ok(());
        }
        let stand_in = || "x".parse().expect("a letter is a name");
        let dry = AgentInput::Enroll {
            token_hash: token_hash.to_owned(),
            name: name.cloned().unwrap_or_else(stand_in),
            from: Some(from),
            labels: std::collections::BTreeMap::new(),
            key_hash: String::new(),
            serial: String::new(),
            expires: now.wall,
        };
        match view.decide(now, Input::Agent(dry)).reply {
            Reply::Refused(refusal) => Err(refused(&refusal)),
            _ => Ok(()),
        }
    }

    async fn join(&self, wish: Wish, now: Now) -> Result<v1::EnrollResponse, Status> {
        if self.services.deny.is_identity_denied(&wish.identity) {
            let text = format!("agents/{} is on the deny list; enrol its host under another name", wish.name);
            return Err(refused(&Refusal::new(RefusalCode::PermissionDenied, "AGENT_REVOKED", text)));
        }
        if self.services.deny.is_key_denied(&wish.request.spki_hash()) {
            let text = "the key of the request was another agent's and is on the deny list; make a new key";
            return Err(refused(&Refusal::new(RefusalCode::PermissionDenied, "KEY_REVOKED", text)));
        }
        let ca = &self.services.ca;
        let issued = ca
            .issue(&wish.request, &wish.identity, now.wall.to_utc(), AGENT_LIFE)
            .map_err(|error| broken("issuing a certificate", &error))?;
        let expires = Wall::from(issued.not_after);
        let new_key = key_hash(&issued.spki_hash);
        let input = AgentInput::Enroll {
            token_hash: wish.token_hash,
            name: wish.name.clone(),
            from: Some(wish.from),
            labels: wish.labels,
            key_hash: new_key.clone(),
            serial: issued.serial.to_string(),
            expires,
        };
        let before = self.services.driver.view().agent_named(&wish.name).cloned();
        match self.services.driver.ask(Input::Agent(input)).await {
            Ok(Reply::Refused(refusal)) => return Err(refused(&refusal)),
            Ok(_) => {}
            Err(error) => return Err(unavailable(&error)),
        }
        // A host that had this name before is another host now, also after a restore. The gate refuses it by its key
        // at once; where the denial cannot be written, that is all, and the log says so.
        let denied = match before {
            Some(old) if old.key_hash != new_key => deny_key(&self.services, &old.key_hash).await,
            Some(old) => match old.certificate_serial.parse() {
                Ok(serial) => deny(&self.services, Denial::Serial(serial)).await,
                Err(_) => Ok(()),
            },
            None => Ok(()),
        };
        if denied.is_err() {
            tracing::warn!(agent = %wish.name, "the certificate that this enrolment replaces is not on the deny list");
        }
        self.services.connections.kill(&wish.identity);
        Ok(v1::EnrollResponse {
            agent: convert::agent_name(&wish.name),
            certificate: issued.cert_pem,
            ca_certificates: self.services.bundle_pem.load().as_str().to_owned(),
            trust_domain: ca.trust_domain().to_string(),
            expire_time: Some(convert::wall_to_wire(expires)),
        })
    }
}

#[tonic::async_trait]
impl v1::enrollment_service_server::EnrollmentService for Enrollment {
    async fn enroll(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Result<Response<v1::EnrollResponse>, Status> {
        let now = self.services.driver.now();
        let address = address_of(&request);
        self.tries.check(now.mono, address, "enrolments")?;
        let joined = match self.read(now, request.get_ref(), address) {
            Ok(wish) => self.join(wish, now).await,
            Err(refused) => Err(refused),
        };
        match &joined {
            Ok(answer) => tracing::info!(target: "audit", agent = answer.agent, %address, "enrolled"),
            Err(refused) => {
                if !matches!(refused.code(), Code::Unavailable | Code::Internal) {
                    self.tries.failed(now.mono, address);
                }
                let (code, why) = (refused.code(), refused.message());
                tracing::warn!(target: "audit", agent = request.get_ref().agent, %address, ?code, why, "not enrolled");
            }
        }
        joined.map(Response::new)
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let now = self.services.driver.now();
        let address = address_of(&request);
        self.renewals.check(now.mono, address, "renewals")?;
        match renewal::renew(&self.services, now, request.get_ref()).await {
            Ok((agent, answer)) => {
                let expires = answer.expire_time.map(|time| time.to_string());
                tracing::info!(target: "audit", %agent, %address, expires, "certificate renewed");
                Ok(Response::new(answer))
            }
            Err(failed) => {
                let why = failed.why().to_owned();
                origin::because(why.as_str());
                let status = failed.status();
                if !matches!(status.code(), Code::Unavailable | Code::Internal) {
                    self.renewals.failed(now.mono, address);
                }
                let code = status.code();
                tracing::warn!(target: "audit", %address, ?code, why, "certificate not renewed");
                Err(status)
            }
        }
    }
}

/// Where a request comes from.
pub(super) fn address_of<T>(request: &Request<T>) -> IpAddr {
    let address = request.extensions().get::<PeerInfo>().map(|info| info.address.ip());
    address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn refused_tries_are_bounded_by_address_and_time() {
        let tries = Tries::default();
        let start = Mono(1_000_000);
        for _ in 0..TRIES_MAX {
            assert_eq!(tries.wait(start, ip("192.0.2.1")), None);
            tries.failed(start, ip("192.0.2.1"));
        }
        let later = start.plus(Duration::from_secs(20));
        assert_eq!(tries.wait(later, ip("192.0.2.1")), Some(Duration::from_secs(40)));
        assert_eq!(tries.wait(later, ip("::ffff:192.0.2.1")), Some(Duration::from_secs(40)));
        assert_eq!(tries.wait(later, ip("192.0.2.2")), None);
        assert_eq!(tries.wait(start.plus(TRIES_SPAN), ip("192.0.2.1")), None);
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        assert_eq!(network(ip("2001:db8:1:2:3::4")), network(ip("2001:db8:1:2:ffff::")));
        assert_ne!(network(ip("2001:db8:1:2::")), network(ip("2001:db8:1:3::")));
    }

    #[test]
    fn the_table_of_addresses_is_bounded() {
        let tries = Tries::default();
        for n in 0..u32::try_from(ADDRESSES_MAX).unwrap() + 10 {
            tries.failed(Mono(1), IpAddr::V4(n.into()));
        }
        assert_eq!(tries.0.lock().unwrap().len(), ADDRESSES_MAX);
        assert_eq!(tries.wait(Mono(2), ip("203.0.113.1")), Some(TRIES_SPAN), "a new address waits");
        assert_eq!(tries.wait(Mono(2), IpAddr::V4(5.into())), None, "a known one does not");
    }
}
