//! Upstream hosts through real gRPC: limits set at run time, and one upstream in the place of another.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fleet_common;

use fleet_common::Fleet;
use mirror_proto::{
    status::Fault,
    v1::{self, outcome::Class, upstream_host::Breaker, wait::Reason},
};
use prost_types::FieldMask;
use tonic::{Code, Status};

fn fields(status: &Status) -> Vec<String> {
    Fault::from(status).violations.into_iter().map(|violation| violation.field).collect()
}

fn set(host: &str, slots: u32, paths: &[&str], etag: &str) -> v1::UpdateUpstreamRequest {
    v1::UpdateUpstreamRequest {
        upstream: Some(v1::UpstreamHost {
            name: format!("upstreams/{host}"),
            slots,
            etag: etag.to_owned(),
            ..Default::default()
        }),
        update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
    }
}

async fn listed(fleet: &Fleet) -> Vec<v1::UpstreamHost> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListUpstreamsRequest { page_size: 1, page_token };
        let page = fleet.upstreams().list_upstreams(request).await.unwrap().into_inner();
        all.extend(page.upstreams);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

#[tokio::test]
async fn limits_set_while_attempts_wait_let_them_through() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    fleet.declare("debian", "ftp1").await;
    fleet.declare("gnu", "ftp1").await;
    let request = v1::ReplaceUpstreamRequest {
        from: "gnu.example.net".to_owned(),
        to: "debian.example.net".to_owned(),
        drop_passwords: true,
        ..Default::default()
    };
    fleet.upstreams().replace_upstream(request).await.unwrap();
    let host = "debian.example.net";
    let made = fleet.upstreams().update_upstream(set(host, 1, &["slots"], "")).await.unwrap().into_inner();
    assert_eq!((made.slots, made.slots_in_force, made.etag.as_str()), (1, 1, "1"));

    let mut talk = fleet.connect("ftp1").await;
    // Its first copy is made, so that what is tested is the host alone.
    fleet.run("debian").await;
    let copy = talk.assignment().await;
    talk.accept(&copy).await;
    talk.finish(copy.key.as_ref().unwrap(), Class::Ok, b"").await;
    assert!(!talk.acknowledged().await);
    fleet.run("debian").await;
    let first = talk.assignment().await;
    talk.accept(&first).await;
    fleet.run("gnu").await;
    let why = v1::WhyProjectRequest { name: "projects/gnu".to_owned() };
    let told = fleet.projects().why_project(why).await.unwrap().into_inner();
    assert!(
        told.waits.iter().any(|wait| wait.reason() == Reason::UpstreamSlots && wait.line == 1),
        "{told:?}"
    );
    let seen = listed(&fleet).await;
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].in_use, seen[0].waiting, seen[0].projects), (1, 1, 2));
    assert_eq!(seen[0].breaker(), Breaker::Closed);

    fleet.upstreams().update_upstream(set(host, 2, &["slots"], "1")).await.unwrap();
    let second = talk.assignment().await;
    assert_ne!(first.key, second.key);
    talk.accept(&second).await;
    talk.finish(second.key.as_ref().unwrap(), Class::Ok, b"").await;
    assert!(!talk.acknowledged().await);

    let stale = fleet.upstreams().update_upstream(set(host, 3, &["slots"], "1")).await.unwrap_err();
    assert_eq!(stale.code(), Code::Aborted);
    let bad = fleet.upstreams().update_upstream(set(host, 101, &["slots", "name"], "")).await.unwrap_err();
    assert_eq!(fields(&bad), ["update_mask", "upstream.slots"]);
    let bad = fleet.upstreams().update_upstream(set("a b", 1, &["slots"], "")).await.unwrap_err();
    assert_eq!(fields(&bad), ["upstream.name"]);
    let back = fleet.upstreams().update_upstream(set(host, 0, &["slots"], "")).await.unwrap().into_inner();
    assert_eq!((back.slots, back.slots_in_force, back.etag.as_str()), (0, 2, "0"));
    let other = fleet.upstreams().update_upstream(set("[2001:db8::1]", 5, &["slots"], "")).await.unwrap();
    assert_eq!(other.into_inner().name, "upstreams/[2001:db8::1]");
    let names: Vec<String> = listed(&fleet).await.into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["upstreams/[2001:db8::1]", "upstreams/debian.example.net"]);
    fleet.end().await;
}

#[tokio::test]
async fn a_replacement_is_refused_whole_and_takes_no_password_along() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    fleet.declare("debian", "ftp1").await;
    fleet.declare("gnu", "ftp1").await;
    let uri = |fleet: &Fleet, name: &str| {
        let view = fleet.handle.services().driver.view();
        let upstream = view.project_named(&name.parse().unwrap()).unwrap().record.spec.upstreams[0].clone();
        (upstream.uri, upstream.sealed_password.is_empty())
    };
    let before = uri(&fleet, "debian");
    let replace = |from: &str, to: &str, validate_only, drop_passwords| v1::ReplaceUpstreamRequest {
        from: from.to_owned(),
        to: to.to_owned(),
        validate_only,
        drop_passwords,
    };
    let (old, new) = ("debian.example.net", "rsync://new.example.net/pub");
    let refused = fleet.upstreams().replace_upstream(replace(old, new, false, false)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(fields(&refused), ["projects/debian.upstreams[0].password"]);
    let refused =
        fleet.upstreams().replace_upstream(replace("u@h", "ftp://x", false, true)).await.unwrap_err();
    assert_eq!(fields(&refused), ["from", "to"]);
    let looked =
        fleet.upstreams().replace_upstream(replace(old, new, true, true)).await.unwrap().into_inner();
    assert_eq!(uri(&fleet, "debian"), before);
    let expected = v1::ReplacedUpstream {
        project: "projects/debian".to_owned(),
        from_uri: "rsync://debian.example.net/debian/".to_owned(),
        to_uri: "rsync://new.example.net/pub/debian/".to_owned(),
        password_dropped: true,
    };
    assert_eq!(looked.projects, std::slice::from_ref(&expected));
    let done = fleet.upstreams().replace_upstream(replace(old, new, false, true)).await.unwrap().into_inner();
    assert_eq!(done.projects, [expected]);
    assert_eq!(uri(&fleet, "debian"), ("rsync://new.example.net/pub/debian/".to_owned(), true));
    assert!(!uri(&fleet, "gnu").1, "others keep theirs");
    let again =
        fleet.upstreams().replace_upstream(replace(old, new, false, true)).await.unwrap().into_inner();
    assert_eq!(again.projects, []);
    // On the same server the password stays.
    let path = replace("rsync://gnu.example.net/gnu", "rsync://gnu.example.net/all", false, false);
    fleet.upstreams().replace_upstream(path).await.unwrap();
    assert_eq!(uri(&fleet, "gnu"), ("rsync://gnu.example.net/all/".to_owned(), false));
    fleet.end().await;
}
