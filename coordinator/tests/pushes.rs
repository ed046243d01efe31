//! Pushes and push tokens against a real coordinator, by gRPC: what a token can do, what ends it, and how fast it may be
//! used.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod wire_common;

use fleet::{agent::UserRole, defaults::PUSH_INTERVAL};
use mirror_proto::{
    status::Fault,
    v1::{
        self, project_service_client::ProjectServiceClient, run_service_client::RunServiceClient,
        user_service_client::UserServiceClient,
    },
};
use tonic::{Code, Status, transport::Channel};
use wire_common::{AHEAD, Fleet, PATIENCE, bearing};

/// An agent that never comes, so that what is pushed waits; and two projects.
async fn fleet() -> (Fleet, UserServiceClient<Channel>, ProjectServiceClient<Channel>) {
    let fleet = Fleet::start().await;
    fleet.enroll("ftp1").await;
    let root = fleet.root();
    let mut projects = ProjectServiceClient::new(fleet.dial(Some(&root)).await);
    for name in ["debian", "fedora"] {
        let target = v1::PlacementTarget { agent: "agents/ftp1".to_owned(), ..Default::default() };
        let project = v1::Project {
            name: format!("projects/{name}"),
            destination: format!("a1:{name}"),
            upstreams: vec![v1::Upstream {
                uri: format!("rsync://ftp.example.org/{name}/"),
                ..Default::default()
            }],
            placement: Some(v1::PlacementSettings { origins: vec![target], ..Default::default() }),
            ..Default::default()
        };
        let request = v1::CreateProjectRequest { project: Some(project), ..Default::default() };
        projects.create_project(request).await.unwrap();
    }
    let admin = UserServiceClient::new(fleet.dial(Some(&root)).await);
    (fleet, admin, projects)
}

fn token_of(project: &str) -> v1::CreatePushTokenRequest {
    v1::CreatePushTokenRequest { project: format!("projects/{project}"), ..Default::default() }
}

fn push_of(project: &str) -> v1::PushProjectRequest {
    v1::PushProjectRequest { name: format!("projects/{project}"), ..Default::default() }
}

fn told(status: &Status) -> (Code, String) {
    (status.code(), Fault::from(status).reason)
}

fn is_not_good(status: &Status) -> bool {
    told(status) == (Code::Unauthenticated, "TOKEN_NOT_GOOD".to_owned())
}

#[tokio::test]
async fn a_token_pushes_its_project_and_learns_of_no_other() {
    let (fleet, mut admin, _) = fleet().await;
    let request = v1::CreatePushTokenRequest { note: "build1".to_owned(), ..token_of("debian") };
    let made = admin.create_push_token(request).await.unwrap().into_inner();
    assert!(made.token.starts_with("mpt_") && !format!("{made:?}").contains(&made.token));
    assert_eq!((made.project.as_str(), made.by.as_str()), ("projects/debian", "users/root"));
    assert_eq!((&made.expire_time, &made.last_use_time), (&None, &None));
    let mut pusher = ProjectServiceClient::new(fleet.dial(None).await);
    let pushed = pusher.push_project(bearing(&made.token, push_of("debian"))).await.unwrap().into_inner();
    assert!(!pushed.coalesced);
    let again = pusher.push_project(bearing(&made.token, push_of("DEBIAN"))).await.unwrap().into_inner();
    assert!(again.coalesced && again.run == pushed.run, "{again:?}");
    let mut runs = RunServiceClient::new(fleet.dial(Some(&fleet.root())).await);
    let run = runs.get_run(v1::GetRunRequest { name: pushed.run }).await.unwrap().into_inner();
    let trigger = run.trigger.unwrap();
    assert_eq!((trigger.kind(), trigger.by), (v1::trigger::Kind::Push, made.name.clone()));
    let answer = admin.list_push_tokens(v1::ListPushTokensRequest::default()).await.unwrap().into_inner();
    let listed = &answer.push_tokens[0];
    assert!(listed.token.is_empty() && listed.last_use_time.is_some() && listed.note == "build1");

    // There or not, named well or not: the same words.
    let mut refusals = Vec::new();
    for other in ["fedora", "no-such", "bad name", ""] {
        let status = pusher.push_project(bearing(&made.token, push_of(other))).await.unwrap_err();
        refusals.push((told(&status), status.message().to_owned()));
    }
    assert!(refusals.iter().all(|refusal| *refusal == refusals[0]), "{refusals:?}");
    assert_eq!(refusals[0].0, (Code::PermissionDenied, "NOT_ITS_PROJECT".to_owned()));
    let mut user = UserServiceClient::new(fleet.dial(None).await);
    let status = user.who_am_i(bearing(&made.token, v1::WhoAmIRequest {})).await.unwrap_err();
    assert_eq!(told(&status), (Code::PermissionDenied, "NOT_ALLOWED".to_owned()));
    assert!(status.message().contains("pushes its one project"), "{}", status.message());
    // Who tries names leaves them in the audit log.
    let mut audited = fleet.handle.services().driver.audited();
    let mut log = fleet.fleet(Some(&fleet.root())).await;
    let filter = "action=ProjectService.PushProject".to_owned();
    let request = v1::ListAuditEventsRequest { filter, ..Default::default() };
    let tried = async {
        loop {
            audited.mark_unchanged();
            let events = log.list_audit_events(request.clone()).await.unwrap().into_inner().events;
            if let Some(event) = events.into_iter().find(|event| event.reason == "NOT_ITS_PROJECT") {
                return event;
            }
            audited.changed().await.unwrap();
        }
    };
    let tried = tokio::time::timeout(PATIENCE, tried).await.expect("an event of it");
    assert_eq!((tried.who, tried.resource.as_str()), (made.name, "projects/fedora"));
    fleet.end().await;
}

#[tokio::test]
async fn a_token_ends_when_it_is_deleted_when_its_time_is_over_and_with_its_project() {
    let (fleet, mut admin, mut projects) = fleet().await;
    let mut pusher = ProjectServiceClient::new(fleet.dial(None).await);
    let deleted = admin.create_push_token(token_of("debian")).await.unwrap().into_inner();
    let delete = || v1::DeletePushTokenRequest { name: deleted.name.clone() };
    admin.delete_push_token(delete()).await.unwrap();
    assert!(is_not_good(&pusher.push_project(bearing(&deleted.token, push_of("debian"))).await.unwrap_err()));
    assert_eq!(admin.delete_push_token(delete()).await.unwrap_err().code(), Code::NotFound);
    let orphan = admin.create_push_token(token_of("fedora")).await.unwrap().into_inner();
    let gone = v1::DeleteProjectRequest { name: "projects/fedora".to_owned(), ..Default::default() };
    projects.delete_project(gone).await.unwrap();
    assert!(is_not_good(&pusher.push_project(bearing(&orphan.token, push_of("fedora"))).await.unwrap_err()));
    for nobodys in ["mpt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "mpt_", "mut_x"] {
        assert!(is_not_good(&pusher.push_project(bearing(nobodys, push_of("debian"))).await.unwrap_err()));
    }
    let faulty = v1::CreatePushTokenRequest {
        ttl: Some(prost_types::Duration { seconds: 59, nanos: 0 }),
        note: "a\nb".to_owned(),
        ..token_of("debian")
    };
    let status = admin.create_push_token(faulty).await.unwrap_err();
    assert_eq!(Fault::from(&status).violations.len(), 2, "{status:?}");
    assert_eq!(admin.create_push_token(token_of("none")).await.unwrap_err().code(), Code::NotFound);
    let kept = admin.create_push_token(token_of("debian")).await.unwrap().into_inner();
    let fleet = fleet.restart(|_| ()).await;
    let mut pusher = ProjectServiceClient::new(fleet.dial(None).await);
    pusher.push_project(bearing(&kept.token, push_of("debian"))).await.unwrap();
    fleet.end().await;
}

#[tokio::test]
async fn a_request_id_makes_one_token_and_tells_its_secret_once() {
    let (fleet, mut admin, _) = fleet().await;
    let trial = v1::CreatePushTokenRequest { validate_only: true, ..token_of("debian") };
    let shown = admin.create_push_token(trial).await.unwrap().into_inner();
    assert_eq!(
        (shown.name.as_str(), shown.token.as_str(), shown.project.as_str()),
        ("", "", "projects/debian")
    );
    let request = v1::CreatePushTokenRequest { request_id: "release-1".to_owned(), ..token_of("debian") };
    let made = admin.create_push_token(request.clone()).await.unwrap().into_inner();
    let again = admin.create_push_token(request.clone()).await.unwrap().into_inner();
    assert_eq!(
        (&again.name, again.token.as_str()),
        (&made.name, ""),
        "its secret was in the first answer only"
    );
    let other = v1::CreatePushTokenRequest { note: "other".to_owned(), ..request };
    assert_eq!(admin.create_push_token(other).await.unwrap_err().code(), Code::InvalidArgument);
    let listed = admin.list_push_tokens(v1::ListPushTokensRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.push_tokens.len(), 1);
    let mut pusher = ProjectServiceClient::new(fleet.dial(None).await);
    pusher.push_project(bearing(&made.token, push_of("debian"))).await.unwrap();
    fleet.end().await;
}

#[tokio::test]
async fn beyond_the_pace_a_push_joins_what_waits_or_is_told_when_to_come_again() {
    let (fleet, mut admin, _) = fleet().await;
    let made = admin.create_push_token(token_of("debian")).await.unwrap().into_inner();
    let token = made.token.clone();
    let mut pusher = ProjectServiceClient::new(fleet.dial(None).await);
    let first = pusher.push_project(bearing(&token, push_of("debian"))).await.unwrap().into_inner().run;
    fleet.exhaust("debian", &made.name);
    for _ in 0..3 {
        let pushed = pusher.push_project(bearing(&token, push_of("debian"))).await.unwrap().into_inner();
        assert_eq!(
            (&pushed.run, pushed.coalesced),
            (&first, true),
            "the run that waits does for all of them"
        );
    }
    let mut runs = RunServiceClient::new(fleet.dial(Some(&fleet.root())).await);
    runs.cancel_run(v1::CancelRunRequest { name: first.clone() }).await.unwrap();
    let status = pusher.push_project(bearing(&token, push_of("debian"))).await.unwrap_err();
    let fault = Fault::from(&status);
    assert_eq!(told(&status), (Code::ResourceExhausted, "PUSHED_TOO_OFTEN".to_owned()));
    assert!(fault.retry.is_some_and(|wait| wait <= AHEAD + PUSH_INTERVAL), "{fault:?}");
    assert!(status.message().contains("nothing is recorded"), "{}", status.message());
    let olga = fleet.user("olga", UserRole::Operator).await;
    let mut other = ProjectServiceClient::new(fleet.dial(Some(&olga)).await);
    let pushed = other.push_project(push_of("debian")).await.unwrap().into_inner();
    assert!(!pushed.coalesced && pushed.run != first, "who else pushes has a pace of his own");
    let joined = pusher.push_project(bearing(&token, push_of("debian"))).await.unwrap().into_inner();
    assert_eq!((joined.run, joined.coalesced), (pushed.run, true));
    fleet.end().await;
}
