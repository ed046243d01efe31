//! How an agent gets its next certificate. The proof is the request itself: it must be made with the key of the
//! enrolment, so what a replayed request yields is of use to that key's owner alone. The certificate before is shown in
//! the request, valid or expired: no handshake anywhere accepts an expired one.
//!
//! Who may not renew learns nothing of why; the audit log does.

use ::fleet::{
    agent::AgentRecord,
    id::Name,
    input::{AgentInput, Input, Reply},
    refusal::{Refusal, RefusalCode, Violation},
    time::{Now, Wall},
};
use mirror_certs::{AGENT_LIFE, CaBundle, CertificateRequest, Identity, Peer, RENEW_GRACE};
use mirror_proto::{convert, v1};
use tonic::Status;

use super::key_hash;
use crate::{
    Services,
    audit::{self, origin},
    rpc::{broken, invalid, refused, unavailable},
};

/// Largest certificate that is read, in bytes of PEM text; ours are under 2 KiB.
const CERTIFICATE_BYTES_MAX: usize = 8 * 1_024;

/// Why there is no renewal.
pub(super) enum NotRenewed {
    /// What the caller may know.
    Told(Status),
    /// What the audit log alone says; the caller gets [`NotRenewed::status`].
    Kept(String),
}

impl NotRenewed {
    /// The reason, for the audit log.
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Told(status) => status.message(),
            Self::Kept(why) => why,
        }
    }

    /// What the caller is told: of everything that the fleet knows, one and the same.
    pub(super) fn status(self) -> Status {
        match self {
            Self::Told(status) => status,
            Self::Kept(_) => refused(&Refusal::new(
                RefusalCode::Unauthenticated,
                "NOT_RENEWED",
                format!(
                    "the certificate is not renewed: its agent is not of this fleet or is revoked, the request is not made \
                     with the key of its enrolment, or it expired more than {} days ago; enrol the host again with a new \
                     token: mirrorctl join-token create",
                    RENEW_GRACE.num_days()
                ),
            )),
        }
    }
}

impl From<Status> for NotRenewed {
    fn from(status: Status) -> Self {
        Self::Told(status)
    }
}

/// A renewal that was read: the request, and the certificate to be replaced.
struct Wish {
    request: CertificateRequest,
    old: Peer,
}

/// Issues the next certificate, enters it, and only then gives it out.
pub(super) async fn renew(
    services: &Services,
    now: Now,
    wire: &v1::RenewRequest,
) -> Result<(Name, v1::RenewResponse), NotRenewed> {
    let wish = read(services, wire)?;
    origin::concerns(audit::name_of(&wish.old.identity));
    let kept = |why: String| NotRenewed::Kept(format!("{}: {why}", wish.old.identity));
    let agent = check(services, now, &wish, &wire.certificate).map_err(kept)?;
    let issued = services
        .ca
        .issue(&wish.request, &wish.old.identity, now.wall.to_utc(), AGENT_LIFE)
        .map_err(|error| broken("issuing a certificate", &error))?;
    let expires = Wall::from(issued.not_after);
    let input = AgentInput::Renew {
        agent: agent.uid,
        key_hash: key_hash(&issued.spki_hash),
        serial: issued.serial.to_string(),
        expires,
    };
    match services.driver.ask(Input::Agent(input)).await {
        // Revoked, or enrolled anew, since it was looked at.
        Ok(Reply::Refused(refusal)) => return Err(kept(refusal.message)),
        Ok(_) => {}
        Err(error) => return Err(unavailable(&error).into()),
    }
    let answer = v1::RenewResponse {
        certificate: issued.cert_pem,
        ca_certificates: services.bundle_pem.load().as_str().to_owned(),
        expire_time: Some(convert::wall_to_wire(expires)),
    };
    Ok((agent.name, answer))
}

/// Reads the request. What it says wrongly of itself tells nobody anything of the fleet.
#[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
fn read(services: &Services, wire: &v1::RenewRequest) -> Result<Wish, Status> {
    let request = CertificateRequest::from_pem(&wire.certificate_request)
        .map_err(|error| Violation::new("certificate_request", error.to_string()));
    let old = if wire.certificate.len() > CERTIFICATE_BYTES_MAX {
        let rule = format!("has {} bytes, at most {CERTIFICATE_BYTES_MAX} are read", wire.certificate.len());
        Err(Violation::new("certificate", rule))
    } else {
        Identity::from_pem(&wire.certificate, services.ca.trust_domain())
            .map_err(|error| Violation::new("certificate", error.to_string()))
    };
    match (request, old) {
        (Ok(request), Ok(old)) => Ok(Wish { request, old }),
        (request, old) => Err(invalid("not renewed", request.err().into_iter().chain(old.err()).collect())),
    }
}

/// Whether this fleet renews this certificate for this request; why not, for the audit log.
fn check(services: &Services, now: Now, wish: &Wish, certificate: &str) -> Result<AgentRecord, String> {
    let Wish { request, old } = wish;
    let Identity::Agent(name) = &old.identity else {
        return Err("only agents renew here".to_owned());
    };
    let bundle = CaBundle::from_pem(&services.bundle_pem.load()).map_err(|error| error.to_string())?;
    if !bundle.signed(certificate) {
        return Err("the certificate was not signed by a CA of this fleet".to_owned());
    }
    if request.spki_hash() != old.spki_hash {
        return Err("the request is not made with the key of the certificate".to_owned());
    }
    if services.deny.is_denied(old) {
        return Err("the certificate, its key or its agent is on the deny list".to_owned());
    }
    if now.wall.to_utc() > old.not_after + RENEW_GRACE {
        let days = RENEW_GRACE.num_days();
        return Err(format!("the certificate expired at {}, more than {days} days ago", old.not_after));
    }
    let view = services.driver.view();
    let name: Option<Name> = name.as_str().parse().ok();
    let record = name.and_then(|name| view.agent_named(&name).cloned());
    let Some(record) = record else { return Err("there is no such agent".to_owned()) };
    if record.revoked.is_some() {
        return Err("the agent is revoked".to_owned());
    }
    if record.key_hash != key_hash(&request.spki_hash()) {
        return Err("the agent was enrolled anew, with another key".to_owned());
    }
    Ok(record)
}
