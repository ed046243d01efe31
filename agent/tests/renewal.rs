//! The agent's next certificate: asked for in time, put in place, and taken over by a session without a gap.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy knows only functions marked #[test]"
)]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use chrono::TimeDelta;
use mirror_certs::KeyPair;
use mirror_proto::v1::outcome::Class;
use support::upstream::{Upstream, tree_of};
use support::{Coordinator, Host, assignment, eventually, key};
use tonic::Status;

/// A host whose certificate was issued so many days ago.
async fn host(days_ago: i64) -> (Coordinator, Host) {
    let coordinator = Coordinator::start().await;
    *coordinator.issued_ago.lock().unwrap() = TimeDelta::days(days_ago);
    let host = Host::enrolled(&coordinator, &["127.0.0.0/8"]).await;
    (coordinator, host)
}

fn identity(host: &Host) -> String {
    std::fs::read_to_string(host.data().join("identity.pem")).unwrap()
}

#[tokio::test]
async fn a_session_moves_over_to_the_new_certificate_while_a_sync_goes_on() {
    let (mut coordinator, mut host) = host(11).await;
    let upstream = Upstream::start();
    upstream.close();
    let before = identity(&host);
    host.start();
    let mut old = coordinator.welcomed().await;
    old.assign(&assignment(1, 1, &upstream.uri("m"))).await;
    assert_eq!(old.answer().await.unwrap(), key(1, 1));
    eventually("rsync is at the upstream", || upstream.connections() == 1).await;

    coordinator.renewals.add_permits(1);
    let mut new = coordinator.session().await;
    assert!(!old.is_given_up(), "the new session is there before the old one is gone");
    assert_eq!(new.hello.instance_id, old.hello.instance_id);
    assert_eq!(new.hello.attempts[0].key, Some(key(1, 1)), "the hello is complete");
    let expiry = |hello: &mirror_proto::v1::Hello| {
        hello.inventory.as_ref().unwrap().certificate_expire_time.unwrap().seconds
    };
    assert_eq!((expiry(&new.hello) - expiry(&old.hello)) / 86_400, 11);
    // As the coordinator does when the newer session begins.
    old.fail(Status::aborted("superseded by a newer session of this agent")).await;
    new.welcome(5).await;
    upstream.open();
    let ended = new.ended().await;
    assert_eq!(ended.outcome.unwrap().class(), Class::Ok);
    assert_eq!(upstream.connections(), 1, "it ran once, through");
    assert_eq!(tree_of(&host.root().join("debian")), tree_of(&upstream.tree()));

    let after = identity(&host);
    let same = |text: &str| KeyPair::from_pem(text).unwrap().spki_hash();
    assert_ne!(after, before);
    assert_eq!(same(&after), same(&before));
    let mode = std::fs::metadata(host.data().join("identity.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let said = host.said();
    assert!(said.contains("the certificate is renewed"), "{said}");
    assert!(said.contains("the session goes on with the renewed certificate"), "{said}");
    assert!(!said.contains("took over") && !said.contains("ALARM"), "{said}");
}

#[tokio::test]
async fn a_host_that_comes_back_with_an_expired_certificate_heals_by_itself() {
    let (mut coordinator, mut host) = host(60).await;
    host.start();
    let certificate = "this host's certificate expired on ";
    eventually("it says why there is no session", || host.said().contains(certificate)).await;
    coordinator.renewals.add_permits(1);
    let session = coordinator.welcomed().await;
    assert!(session.hello.inventory.as_ref().unwrap().certificate_expire_time.is_some());
    // What it has now lasts: a restart asks for nothing.
    host.kill();
    host.start();
    coordinator.welcomed().await;
    assert_eq!(coordinator.renewals.available_permits(), 0);
}
