//! An agent's next certificate, over the wire: who gets one, who does not, and what the one before is good for then.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod wire_common;

use chrono::TimeDelta;
use fleet::agent::AgentRecord;
use mirror_certs::{
    AGENT_LIFE, CertificateAuthority, Existing, Identity, KeyPair, Peer, RENEW_GRACE, USER_LIFE,
    write_private, write_public,
};
use mirror_coordinator::{offline, rpc::enrollment::TRIES_MAX};
use mirror_proto::{status::Fault, v1};
use tonic::{Code, Status};
use wire_common::{Fleet, Papers};

/// Everybody is told the same who may not renew.
const REFUSAL: &str = "the certificate is not renewed: its agent is not of this fleet or is revoked, the request is \
                       not made with the key of its enrolment, or it expired more than 90 days ago; enrol the host \
                       again with a new token: mirrorctl join-token create";
/// How old the fleet's CA is: older than any certificate here.
const CA_AGE: TimeDelta = TimeDelta::days(300);

/// A fleet that is old enough to have issued certificates which have expired.
async fn old_fleet() -> Fleet {
    let fleet = Fleet::start().await;
    let now = fleet.handle.services().driver.now().wall.to_utc();
    let ca = CertificateAuthority::create("mirror.test".parse().unwrap(), now - CA_AGE).unwrap();
    let key = KeyPair::generate().unwrap();
    let root = Identity::User("root".parse().unwrap());
    let issued = ca.issue_from_csr(&key.csr_pem().unwrap(), &root, now, USER_LIFE).unwrap();
    let change = |config: &mirror_coordinator::config::Config| {
        write_private(&config.file("ca.key"), &ca.key_pem(), Existing::Replace).unwrap();
        write_public(&config.file("ca.pem"), &ca.cert_pem(), Existing::Replace).unwrap();
        key.write_private(&config.file("admin/admin.key"), Existing::Replace).unwrap();
        write_public(&config.file("admin/admin.pem"), &issued.cert_pem, Existing::Replace).unwrap();
        // It is of the other CA; a new one is made.
        std::fs::remove_file(config.file("server.pem")).unwrap();
    };
    fleet.restart(change).await
}

/// A certificate of the fleet for the key of these papers, which expired so long ago.
fn expired(fleet: &Fleet, papers: &Papers, agent: &str, ago: TimeDelta) -> String {
    let services = fleet.handle.services();
    let request = KeyPair::from_pem(&papers.key).unwrap().csr_pem().unwrap();
    let begin = services.driver.now().wall.to_utc() - ago - AGENT_LIFE;
    let agent = Identity::Agent(agent.parse().unwrap());
    services.ca.issue_from_csr(&request, &agent, begin, AGENT_LIFE).unwrap().cert_pem
}

fn record(fleet: &Fleet, agent: &str) -> AgentRecord {
    fleet.handle.services().driver.view().agent_named(&agent.parse().unwrap()).unwrap().clone()
}

fn read(fleet: &Fleet, certificate: &str) -> Peer {
    Identity::from_pem(certificate, fleet.handle.services().ca.trust_domain()).unwrap()
}

fn assert_refused(what: &str, answer: Result<v1::RenewResponse, Status>) {
    let status = answer.err().unwrap_or_else(|| panic!("renewed: {what}"));
    let fault = Fault::from(&status);
    assert_eq!((fault.code, fault.reason.as_str()), (Code::Unauthenticated, "NOT_RENEWED"), "{what}");
    assert_eq!(status.message(), REFUSAL, "{what}");
}

/// What an agent's certificate is answered with at the gate: it may call nothing of users.
async fn is_let_in(fleet: &Fleet, papers: &Papers) -> bool {
    let answer = fleet.fleet(Some(papers)).await.get_status(v1::GetStatusRequest {}).await;
    Fault::from(&answer.unwrap_err()).reason == "NOT_ALLOWED"
}

async fn revoke(fleet: &Fleet, agent: &str) {
    let request = v1::RevokeAgentRequest { name: format!("agents/{agent}"), reason: "stolen".to_owned() };
    fleet.agents(Some(&fleet.root())).await.revoke_agent(request).await.unwrap();
}

#[tokio::test]
async fn the_next_certificate_is_for_the_same_key_and_the_one_before_stays_good() {
    let fleet = Fleet::start().await;
    let old = fleet.enroll("edge1").await;
    let before = record(&fleet, "edge1");
    let answer = fleet.renew(&old.key, &old.certificate).await.unwrap();
    assert_eq!(answer.ca_certificates, fleet.read("ca.pem"));
    let (was, is) = (read(&fleet, &old.certificate), read(&fleet, &answer.certificate));
    assert_eq!((&is.identity, is.spki_hash), (&was.identity, was.spki_hash));
    assert_ne!(is.serial, was.serial);
    let after = record(&fleet, "edge1");
    assert_eq!(after.certificate_serial, is.serial.to_string());
    assert_eq!(after.certificate_expires.to_utc(), is.not_after);
    assert_eq!(
        (after.revision, &after.key_hash),
        (before.revision, &before.key_hash),
        "no person changed it"
    );
    let new = Papers { certificate: answer.certificate, key: old.key.clone() };
    assert!(is_let_in(&fleet, &old).await && is_let_in(&fleet, &new).await);

    // An answer that was lost: the same question is answered again.
    let again = fleet.renew(&old.key, &old.certificate).await.unwrap();
    assert_eq!(
        record(&fleet, "edge1").certificate_serial,
        read(&fleet, &again.certificate).serial.to_string()
    );
    let request = v1::GetAgentRequest { name: "agents/edge1".to_owned() };
    let shown = fleet.agents(Some(&fleet.root())).await.get_agent(request).await.unwrap().into_inner();
    assert_eq!(shown.certificate_expire_time, again.expire_time);
    fleet.end().await;
}

#[tokio::test]
async fn a_replayed_request_yields_a_certificate_that_only_the_keys_owner_can_use() {
    let fleet = Fleet::start().await;
    let papers = fleet.enroll("edge1").await;
    let answer = fleet.renew(&papers.key, &papers.certificate).await.unwrap();
    let thief = KeyPair::generate().unwrap();
    let stolen = mirror_certs::client_config(
        &mirror_certs::CaBundle::from_pem(&fleet.read("ca.pem")).unwrap(),
        Some((&answer.certificate, &thief.pem())),
    );
    assert!(stolen.is_err(), "TLS takes no certificate without its key");
    fleet.end().await;
}

#[tokio::test]
async fn an_expired_certificate_is_renewed_for_ninety_days() {
    let fleet = old_fleet().await;
    let papers = fleet.enroll("edge1").await;
    let hour = TimeDelta::hours(1);
    for ago in [hour, TimeDelta::days(60), RENEW_GRACE - hour] {
        let answer = fleet.renew(&papers.key, &expired(&fleet, &papers, "edge1", ago)).await;
        let new = Papers { certificate: answer.unwrap().certificate, key: papers.key.clone() };
        assert!(is_let_in(&fleet, &new).await, "{ago}");
    }
    let too_old = expired(&fleet, &papers, "edge1", RENEW_GRACE + hour);
    assert_refused("too old", fleet.renew(&papers.key, &too_old).await);
    fleet.end().await;
}

#[tokio::test]
async fn another_key_and_unknown_agents_are_refused_alike() {
    let fleet = old_fleet().await;
    let papers = fleet.enroll("edge1").await;
    let other = fleet.papers(&Identity::Agent("edge1".parse().unwrap()));
    assert_refused("a request of another key", fleet.renew(&other.key, &papers.certificate).await);
    assert_refused("another key, certified", fleet.renew(&other.key, &other.certificate).await);
    let unknown = fleet.papers(&Identity::Agent("edge9".parse().unwrap()));
    assert_refused("unknown agent", fleet.renew(&unknown.key, &unknown.certificate).await);
    let user = fleet.root();
    assert_refused("a user", fleet.renew(&user.key, &user.certificate).await);
    let now = fleet.handle.services().driver.now().wall.to_utc();
    let foreign = CertificateAuthority::create("mirror.test".parse().unwrap(), now).unwrap();
    let request = KeyPair::from_pem(&papers.key).unwrap().csr_pem().unwrap();
    let agent = Identity::Agent("edge1".parse().unwrap());
    let forged = foreign.issue_from_csr(&request, &agent, now, AGENT_LIFE).unwrap().cert_pem;
    assert_refused("a certificate of another CA", fleet.renew(&papers.key, &forged).await);
    let old = expired(&fleet, &papers, "edge1", TimeDelta::days(1));
    let replaced = papers;
    fleet.enroll("edge1").await;
    assert_refused("a host that was replaced", fleet.renew(&replaced.key, &old).await);
    fleet.end().await;
}

#[tokio::test]
async fn a_revoked_agent_is_out_with_every_certificate_of_its_key_after_a_restore_too() {
    let fleet = old_fleet().await;
    let first = fleet.enroll("edge1").await;
    let backup = fleet.dir.path().join("before.backup");
    fleet.handle.services().driver.store().backup_to(&backup).unwrap();
    let answer = fleet.renew(&first.key, &first.certificate).await.unwrap();
    let second = Papers { certificate: answer.certificate, key: first.key.clone() };
    revoke(&fleet, "edge1").await;
    let old = expired(&fleet, &first, "edge1", TimeDelta::days(1));
    let fleet_is_rid_of_it = async |fleet: &Fleet| {
        assert!(!is_let_in(fleet, &first).await && !is_let_in(fleet, &second).await);
        for certificate in [&first.certificate, &second.certificate, &old] {
            assert_refused("revoked", fleet.renew(&first.key, certificate).await);
        }
    };
    fleet_is_rid_of_it(&fleet).await;
    let fleet = fleet.restart(|config| drop(offline::restore(config, &backup).unwrap())).await;
    assert_eq!(record(&fleet, "edge1").revoked, None, "the backup is from before the revocation");
    fleet_is_rid_of_it(&fleet).await;
    fleet.end().await;
}

#[tokio::test]
async fn what_is_no_request_is_told_and_refusals_are_limited_by_address() {
    let fleet = Fleet::start().await;
    let papers = fleet.enroll("edge1").await;
    let mut client = v1::enrollment_service_client::EnrollmentServiceClient::new(fleet.dial(None).await);
    let bad = v1::RenewRequest { certificate_request: "x".to_owned(), certificate: "y".to_owned() };
    let refused = client.renew(bad).await.unwrap_err();
    let fields: Vec<_> = Fault::from(&refused).violations.into_iter().map(|fault| fault.field).collect();
    assert_eq!(fields, ["certificate_request", "certificate"]);
    let stranger = KeyPair::generate().unwrap().pem().to_string();
    for _ in 1..TRIES_MAX {
        assert_refused("another key", fleet.renew(&stranger, &papers.certificate).await);
    }
    let refused = fleet.renew(&stranger, &papers.certificate).await.unwrap_err();
    let fault = Fault::from(&refused);
    assert_eq!((fault.code, fault.reason.as_str()), (Code::ResourceExhausted, "TOO_MANY_TRIES"));
    // Enrolments from the same address go on.
    fleet.enroll("edge2").await;
    fleet.end().await;
}
