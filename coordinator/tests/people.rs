//! People against a real coordinator: logging in, what ends a token, whose certificate is good, and the way back in.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod wire_common;

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use fleet::agent::{UserRecord, UserRole};
use fleet::input::{Reply, UserAsk};
use fleet::record::{Change, Record};
use fleet::time::Wall;
use mirror_certs::KeyPair;
use mirror_coordinator::{
    STORE,
    config::Config,
    logins::USER_TRIES_FREE,
    store::{Store, StoreOptions, Unit},
};
use mirror_proto::{
    status::Fault,
    v1::{self, run_service_client::RunServiceClient, user_service_client::UserServiceClient},
};
use tonic::{Code, Status, transport::Channel};
use wire_common::{Fleet, PATIENCE, Papers, bearing, dial_socket};

const PASSWORD: &str = "correct horse battery";
const HOUR: Duration = Duration::from_secs(3_600);

async fn users(fleet: &Fleet, papers: Option<&Papers>) -> UserServiceClient<Channel> {
    UserServiceClient::new(fleet.dial(papers).await)
}

fn reason(status: &Status) -> String {
    Fault::from(status).reason
}

fn fields(status: &Status) -> Vec<String> {
    Fault::from(status).violations.into_iter().map(|violation| violation.field).collect()
}

fn create(name: &str, role: v1::UserRole, password: &str) -> v1::CreateUserRequest {
    let user = v1::User { name: format!("users/{name}"), role: role.into(), ..Default::default() };
    v1::CreateUserRequest { user: Some(user), password: password.to_owned() }
}

fn login(user: &str, password: &str) -> v1::LoginRequest {
    v1::LoginRequest { user: user.to_owned(), password: password.to_owned(), ttl: None }
}

fn disabled(name: &str, disabled: bool) -> v1::UpdateUserRequest {
    let user = v1::User { name: format!("users/{name}"), disabled, ..Default::default() };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["disabled".to_owned()] });
    v1::UpdateUserRequest { user: Some(user), update_mask }
}

fn set_password(name: &str, old_password: &str, password: &str) -> v1::SetPasswordRequest {
    let name = if name.is_empty() { String::new() } else { format!("users/{name}") };
    v1::SetPasswordRequest { name, old_password: old_password.to_owned(), password: password.to_owned() }
}

/// A fleet with the operator maria, who has a password; and the admin's client.
async fn with_maria() -> (Fleet, UserServiceClient<Channel>) {
    let fleet = Fleet::start().await;
    let mut admin = users(&fleet, Some(&fleet.root())).await;
    let maria = admin.create_user(create("maria", v1::UserRole::Operator, PASSWORD)).await.unwrap();
    assert_eq!(maria.into_inner().ca_hash, fleet.handle.services().ca.ca_hash().to_string());
    (fleet, admin)
}

async fn who(client: &mut UserServiceClient<Channel>, token: &str) -> Result<v1::WhoAmIResponse, Status> {
    client.who_am_i(bearing(token, v1::WhoAmIRequest {})).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_password_gets_a_token_and_the_token_is_its_user() {
    let (fleet, _) = with_maria().await;
    let mut client = users(&fleet, None).await;
    let made = client.login(login("Maria", PASSWORD)).await.unwrap().into_inner();
    assert!(made.token.starts_with("mut_") && made.ca_certificates.contains("BEGIN CERTIFICATE"), "{made:?}");
    assert!(!format!("{made:?}").contains(&made.token));
    let me = who(&mut client, &made.token).await.unwrap();
    assert_eq!((me.name.as_str(), me.role()), ("users/maria", v1::UserRole::Operator));
    assert_eq!(me.proof(), v1::who_am_i_response::Proof::Token);
    assert_eq!(me.expire_time, made.expire_time);
    let listed = client
        .list_tokens(bearing(&made.token, v1::ListTokensRequest::default()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.tokens.len(), 1);
    assert_eq!((listed.tokens[0].name.as_str(), listed.tokens[0].current), (made.name.as_str(), true));
    // What is stored is a hash, and the engine's records show neither it nor the password's.
    let view = format!("{:?}", fleet.handle.services().driver.view().records().collect::<Vec<_>>());
    assert!(!view.contains(&made.token[4..]) && !view.contains("argon2id"));
    client.logout(bearing(&made.token, v1::LogoutRequest {})).await.unwrap();
    let refused = who(&mut client, &made.token).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "TOKEN_NOT_GOOD"));
    fleet.end().await;
}

#[tokio::test]
async fn a_wrong_user_and_a_wrong_password_get_the_same_answer() {
    let (fleet, mut admin) = with_maria().await;
    admin.create_user(create("nils", v1::UserRole::Viewer, "")).await.unwrap();
    admin.create_user(create("dora", v1::UserRole::Viewer, PASSWORD)).await.unwrap();
    admin.update_user(disabled("dora", true)).await.unwrap();
    let mut client = users(&fleet, None).await;
    let mut answers = Vec::new();
    for (user, password) in [
        ("maria", "correct horse batterx"),
        ("nobody", PASSWORD),
        ("nils", PASSWORD),
        ("dora", PASSWORD),
        ("maria", ""),
    ] {
        let refused = client.login(login(user, password)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "LOGIN_FAILED"));
        answers.push((refused.message().to_owned(), refused.details().to_vec()));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let long = "x".repeat(257);
    let faults = client.login(login("a b", &long)).await.unwrap_err();
    assert_eq!(fields(&faults), ["user", "password"]);
    assert!(!faults.message().contains(&long));
    fleet.end().await;
}

#[tokio::test]
async fn failures_are_slowed_and_a_certificate_is_not() {
    let (fleet, mut admin) = with_maria().await;
    let mut client = users(&fleet, None).await;
    for user in ["maria", "nobody"] {
        for _ in 0..USER_TRIES_FREE {
            let refused = client.login(login(user, "wrong wrong wrong")).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated);
        }
        // Also the right one: else its answer would tell it from the wrong ones.
        let refused = client.login(login(user, PASSWORD)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "TOO_MANY_LOGINS"));
        assert!(Fault::from(&refused).retry.is_some_and(|wait| wait > Duration::ZERO));
    }
    assert!(admin.list_users(v1::ListUsersRequest::default()).await.is_ok());
    fleet.end().await;
}

#[tokio::test]
async fn a_flood_of_logins_is_told_to_come_back_and_the_coordinator_goes_on() {
    let (fleet, mut admin) = with_maria().await;
    let mut flood = tokio::task::JoinSet::new();
    for n in 0..80 {
        let mut client = users(&fleet, None).await;
        flood.spawn(async move { client.login(login(&format!("u{n}"), PASSWORD)).await.unwrap_err().code() });
    }
    admin.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    let codes = flood.join_all().await;
    assert!(
        codes.iter().all(|code| [Code::Unauthenticated, Code::ResourceExhausted].contains(code)),
        "{codes:?}"
    );
    assert!(codes.contains(&Code::ResourceExhausted));
    fleet.end().await;
}

#[tokio::test]
async fn tokens_end_with_a_new_password_a_disabled_and_a_deleted_user() {
    let (fleet, mut admin) = with_maria().await;
    let mut client = users(&fleet, None).await;
    for ending in ["own", "reset", "disable", "delete"] {
        let password = if ending == "own" { PASSWORD } else { "another horse battery" };
        let token = client.login(login("maria", password)).await.unwrap().into_inner().token;
        assert!(who(&mut client, &token).await.is_ok());
        match ending {
            "own" => {
                let wrong = set_password("", "not the old one", "another horse battery");
                let refused = client.set_password(bearing(&token, wrong)).await.unwrap_err();
                assert_eq!(fields(&refused), ["old_password"]);
                let change = set_password("", PASSWORD, "another horse battery");
                client.set_password(bearing(&token, change)).await.unwrap();
            }
            "reset" => {
                let change = set_password("maria", "", "another horse battery");
                admin.set_password(change).await.unwrap();
            }
            "disable" => {
                admin.update_user(disabled("maria", true)).await.unwrap();
                let refused = who(&mut client, &token).await.unwrap_err();
                assert_eq!(refused.code(), Code::Unauthenticated);
                admin.update_user(disabled("maria", false)).await.unwrap();
            }
            _ => {
                admin
                    .delete_user(v1::DeleteUserRequest {
                        name: "users/maria".to_owned(),
                        etag: String::new(),
                    })
                    .await
                    .unwrap();
            }
        }
        let refused = who(&mut client, &token).await.unwrap_err();
        assert_eq!(reason(&refused), "TOKEN_NOT_GOOD", "{ending}");
    }
    fleet.end().await;
}

#[tokio::test]
async fn tokens_are_bounded_listed_and_revoked_one_by_one() {
    let (fleet, mut admin) = with_maria().await;
    let mut tokens = Vec::new();
    for _ in 0..=fleet::defaults::USER_TOKENS_MAX {
        tokens.push(fleet.user_token("maria", HOUR).await);
    }
    let mut client = users(&fleet, None).await;
    assert!(who(&mut client, &tokens[0]).await.is_err(), "the oldest made room");
    assert!(who(&mut client, &tokens[1]).await.is_ok());
    let list = || v1::ListTokensRequest { parent: "users/maria".to_owned() };
    let listed = admin.list_tokens(list()).await.unwrap().into_inner().tokens;
    assert_eq!(listed.len(), fleet::defaults::USER_TOKENS_MAX);
    let me = who(&mut client, &tokens[2]).await.unwrap();
    assert_eq!(me.name, "users/maria");
    let own = client.list_tokens(bearing(&tokens[2], v1::ListTokensRequest::default())).await.unwrap();
    let current = own.into_inner().tokens.into_iter().find(|token| token.current).unwrap();
    admin.revoke_token(v1::RevokeTokenRequest { name: current.name }).await.unwrap();
    assert!(who(&mut client, &tokens[2]).await.is_err());
    assert!(who(&mut client, &tokens[3]).await.is_ok());
    for ttl in [1, 31 * 24 * 3_600] {
        let ttl = Some(prost_types::Duration { seconds: ttl, nanos: 0 });
        let refused =
            client.login(v1::LoginRequest { ttl, ..login("maria", "$argon2id$test") }).await.unwrap_err();
        assert!([Code::InvalidArgument, Code::Unauthenticated].contains(&refused.code()));
    }
    fleet.end().await;
}

#[tokio::test]
async fn the_last_admin_stays() {
    let fleet = Fleet::start().await;
    let mut admin = users(&fleet, Some(&fleet.root())).await;
    let demote = |name: &str| {
        let user = v1::User {
            name: format!("users/{name}"),
            role: v1::UserRole::Viewer.into(),
            ..Default::default()
        };
        let update_mask = Some(prost_types::FieldMask { paths: vec!["role".to_owned()] });
        v1::UpdateUserRequest { user: Some(user), update_mask }
    };
    let delete = |name: &str| v1::DeleteUserRequest { name: format!("users/{name}"), etag: String::new() };
    // A disabled admin is none.
    admin.create_user(create("dora", v1::UserRole::Admin, "")).await.unwrap();
    admin.update_user(disabled("dora", true)).await.unwrap();
    for refused in [
        admin.update_user(demote("root")).await.unwrap_err(),
        admin.update_user(disabled("root", true)).await.unwrap_err(),
        admin.delete_user(delete("root")).await.unwrap_err(),
    ] {
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "LAST_ADMIN"));
    }
    admin.update_user(disabled("dora", false)).await.unwrap();
    admin.delete_user(delete("root")).await.unwrap();
    let refused = admin.who_am_i(v1::WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(reason(&refused), "UNKNOWN_USER");
    fleet.end().await;
}

/// In the store of a coordinator that is stopped: this user was entered so much earlier.
fn entered_earlier(config: &Config, user: &str, age: Duration) {
    let options = StoreOptions { create: false, backups: None, ballast_bytes: 0 };
    let store = Store::open(&config.file(STORE), &options).unwrap().store;
    let live = store.live().unwrap().into_iter();
    let earlier = live.filter_map(|record| match record {
        Record::User(record) if record.name.as_str() == user => {
            let since = Wall::from(record.certificates_since.to_utc() - age);
            Some(Change::Put(Record::User(UserRecord { certificates_since: since, ..record })))
        }
        _ => None,
    });
    store.commit(&[Unit::of(&earlier.collect::<Vec<_>>()).unwrap()]).unwrap();
    store.close().unwrap();
}

#[tokio::test]
async fn an_earlier_users_certificate_and_one_from_before_a_reset_are_refused() {
    /// Certificates count in whole seconds: one of the same second as a reset is taken for one from after it.
    const AGE: Duration = Duration::from_secs(60);
    let (fleet, _) = with_maria().await;
    let old = fleet.earlier_papers(&mirror_certs::Identity::User("maria".parse().unwrap()), AGE);
    let refused = users(&fleet, Some(&old)).await.who_am_i(v1::WhoAmIRequest {}).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "CERTIFICATE_OUTDATED"));
    let fleet = fleet.restart(|config| entered_earlier(config, "maria", 2 * AGE)).await;
    let mut admin = users(&fleet, Some(&fleet.root())).await;
    let mut client = users(&fleet, Some(&old)).await;
    assert!(client.who_am_i(v1::WhoAmIRequest {}).await.is_ok());
    admin.set_password(set_password("maria", "", "another horse battery")).await.unwrap();
    let refused = client.who_am_i(v1::WhoAmIRequest {}).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "CERTIFICATE_OUTDATED"));
    // A token stands in for it, and gets a new one.
    let token = client.login(login("maria", "another horse battery")).await.unwrap().into_inner().token;
    let key = KeyPair::generate().unwrap();
    let request = v1::IssueCertificateRequest {
        certificate_request: key.csr_pem().unwrap(),
        ..v1::IssueCertificateRequest::default()
    };
    let issued = client.issue_certificate(bearing(&token, request)).await.unwrap().into_inner();
    assert_eq!(issued.name, "users/maria");
    let fresh = Papers { certificate: issued.certificate, key: key.pem().to_string() };
    let me = users(&fleet, Some(&fresh)).await.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(me.proof(), v1::who_am_i_response::Proof::Certificate);
    fleet.end().await;
}

/// A call whose head was let in, and whose message comes when its caller is shut out, does nothing.
#[tokio::test]
async fn a_message_that_comes_after_its_caller_was_shut_out_is_refused() {
    let (fleet, mut admin) = with_maria().await;
    let token = fleet.user_token("maria", HOUR).await;
    let channel = fleet.dial(None).await;
    let (say, said) = tokio::sync::mpsc::channel(1);
    let calling = tokio::spawn({
        let (channel, token) = (channel.clone(), token.clone());
        async move {
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.unwrap();
            let message = bearing(&token, tokio_stream::wrappers::ReceiverStream::new(said));
            let codec =
                tonic_prost::ProstCodec::<v1::IssueCertificateRequest, v1::IssueCertificateResponse>::default(
                );
            let method = "/mirror.v1.UserService/IssueCertificate".parse().unwrap();
            client.client_streaming(message, method, codec).await
        }
    });
    // What is asked later on the same connection is answered: its head was there before.
    let mut client = UserServiceClient::new(channel);
    for _ in 0..3 {
        assert!(who(&mut client, &token).await.is_ok());
    }
    admin.set_password(set_password("maria", "", "another horse battery")).await.unwrap();
    let certificate_request = KeyPair::generate().unwrap().csr_pem().unwrap();
    say.send(v1::IssueCertificateRequest { certificate_request, ..Default::default() }).await.unwrap();
    drop(say);
    let refused = tokio::time::timeout(PATIENCE, calling).await.unwrap().unwrap().unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "TOKEN_NOT_GOOD"));
    fleet.end().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_role_that_it_was_allowed_by() {
    let (fleet, mut admin) = with_maria().await;
    let update = |role: v1::UserRole| {
        let user = v1::User { name: "users/maria".to_owned(), role: role.into(), ..Default::default() };
        let update_mask = Some(prost_types::FieldMask { paths: vec!["role".to_owned()] });
        v1::UpdateUserRequest { user: Some(user), update_mask }
    };
    admin.update_user(update(v1::UserRole::Admin)).await.unwrap();
    let token = fleet.user_token("maria", HOUR).await;
    let mut follower = v1::fleet_service_client::FleetServiceClient::new(fleet.dial(None).await);
    let watch = bearing(&token, v1::WatchAuditEventsRequest::default());
    let mut events = follower.watch_audit_events(watch).await.unwrap().into_inner();
    admin.update_user(update(v1::UserRole::Viewer)).await.unwrap();
    let end = async {
        loop {
            if let Err(end) =
                events.message().await.map(|event| event.expect("it is not over without a word"))
            {
                return end;
            }
        }
    };
    let end = tokio::time::timeout(PATIENCE, end).await.expect("an end in time");
    assert_eq!(reason(&end), "SHUT_OUT", "{end}");
    fleet.end().await;
}

#[tokio::test]
async fn certificate_and_token_must_be_of_one_user() {
    let (fleet, _) = with_maria().await;
    let token = fleet.user_token("maria", HOUR).await;
    let own = fleet.papers(&mirror_certs::Identity::User("Maria".parse().unwrap()));
    assert_eq!(who(&mut users(&fleet, Some(&own)).await, &token).await.unwrap().name, "users/maria");
    let agent = fleet.enroll("ftp1").await;
    for papers in [fleet.root(), agent] {
        let refused = who(&mut users(&fleet, Some(&papers)).await, &token).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "TWO_IDENTITIES"));
    }
    let mut client = users(&fleet, None).await;
    for header in ["Basic bWFyaWE6eA==", "Bearer", "Bearer x", "bearer mut_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
    {
        let mut request = tonic::Request::new(v1::WhoAmIRequest {});
        request.metadata_mut().insert("authorization", header.parse().unwrap());
        let refused = client.who_am_i(request).await.unwrap_err();
        assert_eq!(reason(&refused), "TOKEN_NOT_GOOD", "{header}");
    }
    fleet.end().await;
}

#[tokio::test]
async fn an_open_stream_ends_when_its_user_is_disabled() {
    let (fleet, mut admin) = with_maria().await;
    let agent = fleet.enroll("ftp1").await;
    drop(agent);
    let root = fleet.dial(Some(&fleet.root())).await;
    let mut projects = v1::project_service_client::ProjectServiceClient::new(root);
    let target = v1::PlacementTarget { agent: "agents/ftp1".to_owned(), ..Default::default() };
    let project = v1::Project {
        name: "projects/debian".to_owned(),
        destination: "a1:debian".to_owned(),
        placement: Some(v1::PlacementSettings { origins: vec![target], ..Default::default() }),
        upstreams: vec![v1::Upstream { uri: "rsync://h/debian".to_owned(), ..Default::default() }],
        ..Default::default()
    };
    let request = v1::CreateProjectRequest { project: Some(project), ..Default::default() };
    projects.create_project(request).await.unwrap();
    let run = v1::RunProjectRequest { name: "projects/debian".to_owned(), ..Default::default() };
    let run = projects.run_project(run).await.unwrap().into_inner().run.unwrap().name;
    let token = fleet.user_token("maria", HOUR).await;
    let mut watcher = RunServiceClient::new(fleet.dial(None).await);
    let watch = v1::WatchRunRequest { name: run };
    let mut stream = watcher.watch_run(bearing(&token, watch)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    admin.update_user(disabled("maria", true)).await.unwrap();
    let cut = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                other => return other,
            }
        }
    };
    let end = tokio::time::timeout(PATIENCE, cut).await.unwrap().unwrap_err();
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Unauthenticated, "SHUT_OUT"));
    fleet.end().await;
}

#[tokio::test]
async fn the_socket_is_admin_and_no_user() {
    let (fleet, _) = with_maria().await;
    let path = fleet.file("admin.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let channel = dial_socket(path.clone()).await.unwrap();
    let mut client = UserServiceClient::new(channel.clone());
    let me = client.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!((me.name.as_str(), me.role()), ("local root", v1::UserRole::Admin));
    client.set_password(set_password("root", "", PASSWORD)).await.unwrap();
    let refused = client.set_password(set_password("", "", PASSWORD)).await.unwrap_err();
    assert_eq!(fields(&refused), ["name"]);
    let mut status = v1::fleet_service_client::FleetServiceClient::new(channel);
    let frozen = status.freeze(v1::FreezeRequest { reason: "lost keys".to_owned() }).await.unwrap();
    assert_eq!(frozen.into_inner().frozen.unwrap().by, "local root");
    fleet.end().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn the_socket_can_be_turned_off() {
    let fleet = Fleet::start_with(mirror_coordinator::StartOptions::default(), |config| {
        config.admin_socket = None;
    })
    .await;
    assert!(!fleet.file("admin.sock").exists());
    fleet.end().await;
}

#[tokio::test]
async fn users_and_tokens_survive_a_restart_and_a_token_that_ended_is_swept() {
    let (fleet, _) = with_maria().await;
    let token = fleet.user_token("maria", HOUR).await;
    let fleet = fleet.restart(|_| {}).await;
    let mut client = users(&fleet, None).await;
    assert_eq!(who(&mut client, &token).await.unwrap().name, "users/maria");
    assert!(client.login(login("maria", PASSWORD)).await.is_ok());
    let services = fleet.handle.services();
    let mut later = services.driver.now();
    later.wall = later.wall.plus(fleet::defaults::USER_TOKEN_TTL * 2);
    let swept = services.driver.view().decide(later, fleet::input::Input::Sweep);
    assert_eq!(swept.changes.len(), 2, "{:?}", swept.changes);
    fleet.end().await;
}

#[tokio::test]
async fn a_user_who_owns_projects_is_not_deleted_and_faults_are_told_at_once() {
    let (fleet, mut admin) = with_maria().await;
    let refused = admin.create_user(create("a b", v1::UserRole::Unspecified, "short")).await.unwrap_err();
    assert_eq!(fields(&refused), ["user.name", "user.role", "password"]);
    let refused = admin.create_user(create("MARIA", v1::UserRole::Viewer, "")).await.unwrap_err();
    assert_eq!(reason(&refused), "USER_EXISTS");
    fleet.enroll("ftp1").await;
    let mut projects =
        v1::project_service_client::ProjectServiceClient::new(fleet.dial(Some(&fleet.root())).await);
    let target = v1::PlacementTarget { agent: "agents/ftp1".to_owned(), ..Default::default() };
    let project = v1::Project {
        name: "projects/debian".to_owned(),
        owner: "users/maria".to_owned(),
        destination: "a1:debian".to_owned(),
        placement: Some(v1::PlacementSettings { origins: vec![target], ..Default::default() }),
        ..Default::default()
    };
    let strange = v1::Project { owner: "users/nobody".to_owned(), ..project.clone() };
    let request = v1::CreateProjectRequest { project: Some(strange), ..Default::default() };
    assert_eq!(fields(&projects.create_project(request).await.unwrap_err()), ["owner"]);
    let request = v1::CreateProjectRequest { project: Some(project), ..Default::default() };
    assert_eq!(projects.create_project(request).await.unwrap().into_inner().owner, "users/maria");
    let delete = v1::DeleteUserRequest { name: "users/maria".to_owned(), etag: String::new() };
    let refused = admin.delete_user(delete).await.unwrap_err();
    assert_eq!(reason(&refused), "USER_OWNS_PROJECTS");
    let shown = admin.get_user(v1::GetUserRequest { name: "users/maria".to_owned() }).await.unwrap();
    assert_eq!(shown.into_inner().projects, ["projects/debian"]);
    let stale = UserAsk::Delete { user: "maria".parse().unwrap(), revision: Some(7) };
    assert!(matches!(fleet.ask_user(stale).await, Reply::Refused(refusal) if refusal.reason == "STALE_ETAG"));
    let _ = fleet.user("vera", UserRole::Viewer).await;
    fleet.end().await;
}
