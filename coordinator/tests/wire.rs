//! Who gets in over the wire, as what, and how one is put out again: through the real port, over mutual TLS.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod wire_common;

use std::time::{Duration, Instant};

use fleet::agent::UserRole;
use mirror_certs::{CertificateAuthority, Identity, USER_LIFE};
use mirror_coordinator::{config::Reflection, offline, rpc::enrollment::TRIES_MAX};
use mirror_proto::{status::Fault, v1};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::{v1 as reflection_v1, v1alpha as reflection_v1alpha};
use v1::{enrollment_service_client::EnrollmentServiceClient, session_service_client::SessionServiceClient};
use wire_common::{Fleet, PATIENCE, Papers, dial};

async fn status_of(fleet: &Fleet, papers: Option<&Papers>) -> Result<v1::FleetStatus, Status> {
    fleet.fleet(papers).await.get_status(v1::GetStatusRequest {}).await.map(tonic::Response::into_inner)
}

fn reason(status: &Status) -> String {
    Fault::from(status).reason
}

type Said = mpsc::Sender<v1::OpenSessionRequest>;

/// Opens a session and says hello.
async fn session(channel: Channel) -> Result<(Said, Streaming<v1::OpenSessionResponse>), Status> {
    let (say, said) = mpsc::channel(8);
    let hello = v1::Hello {
        instance_id: uuid::Uuid::new_v4().to_string(),
        state_id: uuid::Uuid::new_v4().to_string(),
        version: "0.1.0".to_owned(),
        rsync_version: "3.5.0".to_owned(),
        inventory: Some(v1::Inventory::default()),
        ..Default::default()
    };
    let message = Some(v1::open_session_request::Message::Hello(hello));
    say.send(v1::OpenSessionRequest { message }).await.unwrap();
    let answer = SessionServiceClient::new(channel).open_session(ReceiverStream::new(said)).await?;
    Ok((say, answer.into_inner()))
}

#[tokio::test]
async fn nobody_gets_health_and_enrolment_and_nothing_else() {
    let fleet = Fleet::start().await;
    let refused = status_of(&fleet, None).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "NO_IDENTITY"));
    assert!(refused.message().contains("FleetService.GetStatus needs a client certificate"), "{refused:?}");
    let mut health = HealthClient::new(fleet.dial(None).await);
    let healthy = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(healthy.status, 1, "SERVING");
    let mut described =
        reflection_v1::server_reflection_client::ServerReflectionClient::new(fleet.dial(None).await);
    let refused = described.server_reflection_info(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = fleet.try_enroll("not a token", "edge1").await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "BAD_JOIN_TOKEN"));
    fleet.end().await;
}

#[tokio::test]
async fn an_unknown_method_is_refused_to_everybody() {
    let fleet = Fleet::start().await;
    for papers in [None, Some(fleet.root())] {
        let mut client = tonic::client::Grpc::new(fleet.dial(papers.as_ref()).await);
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/mirror.v1.FleetService/Explode");
        let codec = tonic_prost::ProstCodec::<v1::ThawRequest, v1::FleetStatus>::default();
        let refused = client.unary(Request::new(v1::ThawRequest {}), path, codec).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    }
    fleet.end().await;
}

#[tokio::test]
async fn users_may_what_their_role_may() {
    let fleet = Fleet::start().await;
    let viewer = fleet.user("vera", UserRole::Viewer).await;
    let operator = fleet.user("olga", UserRole::Operator).await;
    let freeze = || v1::FreezeRequest { reason: "array swap".to_owned() };
    assert_eq!(status_of(&fleet, Some(&viewer)).await.unwrap().term, 2);
    let refused = fleet.fleet(Some(&viewer)).await.freeze(freeze()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
    assert_eq!(
        refused.message(),
        "users/vera with the role viewer may not call FleetService.Freeze: it needs the role operator or admin"
    );
    assert!(status_of(&fleet, Some(&viewer)).await.unwrap().frozen.is_none());
    let frozen =
        fleet.fleet(Some(&operator)).await.freeze(freeze()).await.unwrap().into_inner().frozen.unwrap();
    assert_eq!((frozen.by.as_str(), frozen.reason.as_str()), ("users/olga", "array swap"));
    let refused =
        fleet.agents(Some(&operator)).await.list_join_tokens(v1::ListJoinTokensRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // The freeze outlives a restart; the thaw ends it.
    let fleet = fleet.restart(|_| {}).await;
    assert!(status_of(&fleet, Some(&viewer)).await.unwrap().frozen.is_some());
    let thawed = fleet.fleet(Some(&operator)).await.thaw(v1::ThawRequest {}).await.unwrap().into_inner();
    assert!(thawed.frozen.is_none());
    fleet.end().await;
}

#[tokio::test]
async fn strangers_with_our_cas_certificates_are_not_let_in() {
    let fleet = Fleet::start().await;
    let unknown = fleet.papers(&Identity::User("mallory".parse().unwrap()));
    let refused = status_of(&fleet, Some(&unknown)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "UNKNOWN_USER"));
    let unknown = fleet.papers(&Identity::Agent("edge9".parse().unwrap()));
    let refused = session(fleet.dial(Some(&unknown)).await).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "UNKNOWN_AGENT"));
    fleet.end().await;
}

#[tokio::test]
async fn another_fleets_certificate_ends_the_connection() {
    let fleet = Fleet::start().await;
    let now = fleet.handle.services().driver.now().wall.to_utc();
    let other = CertificateAuthority::create("other.test".parse().unwrap(), now).unwrap();
    let key = mirror_certs::KeyPair::generate().unwrap();
    let root = Identity::User("root".parse().unwrap());
    let issued = other.issue_from_csr(&key.csr_pem().unwrap(), &root, now, USER_LIFE).unwrap();
    let papers = Papers { certificate: issued.cert_pem, key: key.pem().to_string() };
    // In TLS 1.3 a client learns of the refusal with its first request.
    let dialled = dial(fleet.handle.grpc_address(), &fleet.read("ca.pem"), Some(&papers)).await;
    if let Ok(channel) = dialled {
        let mut client = v1::fleet_service_client::FleetServiceClient::new(channel);
        assert!(client.get_status(v1::GetStatusRequest {}).await.is_err());
    }
    assert!(
        dial(fleet.handle.grpc_address(), &other.cert_pem(), None).await.is_err(),
        "the client checks us too"
    );
    fleet.end().await;
}

#[tokio::test]
async fn a_host_enrols_once_with_a_token_and_says_hello() {
    let fleet = Fleet::start().await;
    let token = fleet.token("edge1").await;
    let (answer, papers) = fleet.try_enroll(&token, "").await.unwrap();
    assert_eq!((answer.agent.as_str(), answer.trust_domain.as_str()), ("agents/edge1", "mirror.test"));
    assert_eq!(answer.ca_certificates, fleet.read("ca.pem"));
    let domain = answer.trust_domain.parse().unwrap();
    let peer = Identity::from_pem(&answer.certificate, &domain).unwrap();
    assert_eq!(peer.identity.to_string(), "agent/edge1");

    let channel = fleet.dial(Some(&papers)).await;
    let (_say, mut heard) = session(channel.clone()).await.unwrap();
    let welcome = heard.message().await.unwrap().unwrap().message.unwrap();
    assert!(matches!(welcome, v1::open_session_response::Message::Welcome(w) if w.agent == "agents/edge1"));
    let mut client = v1::fleet_service_client::FleetServiceClient::new(channel);
    let refused = client.get_status(v1::GetStatusRequest {}).await.unwrap_err();
    assert_eq!(
        refused.message(),
        "agents/edge1 may not call FleetService.GetStatus: agents may not; it is for users"
    );

    let again = fleet.try_enroll(&token, "edge1").await.unwrap_err();
    let unknown = fleet.try_enroll("mjt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "edge1").await.unwrap_err();
    assert_eq!(again.message(), unknown.message(), "a used token and one that never was are told alike");
    let left =
        fleet.agents(Some(&fleet.root())).await.list_join_tokens(v1::ListJoinTokensRequest {}).await.unwrap();
    assert!(left.into_inner().join_tokens.is_empty());
    fleet.end().await;
}

#[tokio::test]
async fn a_token_is_good_for_its_names_only_and_faults_are_told_to_its_holder_alone() {
    let fleet = Fleet::start().await;
    let token = fleet.token("edge1").await;
    let refused = fleet.try_enroll(&token, "ftp1").await.unwrap_err();
    assert_eq!(reason(&refused), "BAD_JOIN_TOKEN");
    let bad = |token: &str| v1::EnrollRequest {
        join_token: token.to_owned(),
        agent: "edge1".to_owned(),
        certificate_request: "nonsense".to_owned(),
        labels: [("-".to_owned(), "x".to_owned())].into(),
    };
    let mut client = EnrollmentServiceClient::new(fleet.dial(None).await);
    let refused = client.enroll(bad("mjt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = client.enroll(bad(&token)).await.unwrap_err();
    let fields: Vec<_> = Fault::from(&refused).violations.into_iter().map(|fault| fault.field).collect();
    assert_eq!(
        (refused.code(), fields),
        (Code::InvalidArgument, vec!["labels".to_owned(), "certificate_request".to_owned()])
    );

    let request = v1::CreateJoinTokenRequest { pattern: "mirror*".to_owned(), uses: 2, ..Default::default() };
    let made = fleet.agents(Some(&fleet.root())).await.create_join_token(request).await.unwrap().into_inner();
    let refused = fleet.try_enroll(&made.token, "").await.unwrap_err();
    assert_eq!(Fault::from(&refused).violations[0].field, "agent");
    fleet.try_enroll(&made.token, "mirror1").await.unwrap();
    fleet.try_enroll(&made.token, "mirror2").await.unwrap();
    assert_eq!(reason(&fleet.try_enroll(&made.token, "mirror3").await.unwrap_err()), "BAD_JOIN_TOKEN");
    // Nothing of all that has used the first token up.
    fleet.try_enroll(&token, "edge1").await.unwrap();
    fleet.end().await;
}

#[tokio::test]
async fn refused_enrolments_are_limited_by_address() {
    let fleet = Fleet::start().await;
    for _ in 0..TRIES_MAX {
        assert_eq!(fleet.try_enroll("mjt_", "edge1").await.unwrap_err().code(), Code::Unauthenticated);
    }
    let refused = fleet.try_enroll("mjt_", "edge1").await.unwrap_err();
    let fault = Fault::from(&refused);
    assert_eq!((fault.code, fault.reason.as_str()), (Code::ResourceExhausted, "TOO_MANY_TRIES"));
    assert!(fault.retry.is_some());
    fleet.end().await;
}

#[tokio::test]
async fn a_host_that_takes_a_name_over_puts_the_old_one_out() {
    let fleet = Fleet::start().await;
    let old = fleet.enroll("edge1").await;
    let (_say, mut heard) = session(fleet.dial(Some(&old)).await).await.unwrap();
    let new = fleet.enroll("edge1").await;
    let cut = async { while let Ok(Some(_)) = heard.message().await {} };
    timeout(PATIENCE, cut).await.expect("the old host's connection is cut");
    let refused = session(fleet.dial(Some(&old)).await).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "CERTIFICATE_REVOKED"));
    session(fleet.dial(Some(&new)).await).await.unwrap();
    fleet.end().await;
}

#[tokio::test]
async fn a_revoked_agent_is_out_within_a_second_and_a_restored_store_does_not_bring_it_back() {
    let fleet = Fleet::start().await;
    let papers = fleet.enroll("edge1").await;
    let backup = fleet.dir.path().join("before.backup");
    fleet.handle.services().driver.store().backup_to(&backup).unwrap();

    let channel = fleet.dial(Some(&papers)).await;
    let (_say, mut heard) = session(channel.clone()).await.unwrap();
    // The welcome, what it serves, and what it may do alone.
    for _ in 0..3 {
        heard.message().await.unwrap().unwrap();
    }
    let request = v1::RevokeAgentRequest { name: "agents/EDGE1".to_owned(), reason: "stolen".to_owned() };
    let began = Instant::now();
    let revoked = fleet.agents(Some(&fleet.root())).await.revoke_agent(request).await.unwrap().into_inner();
    assert!(revoked.revoked && !revoked.connected);
    let ended = timeout(PATIENCE, heard.message()).await.unwrap().unwrap_err();
    println!("cut {:?} after the revocation was asked for", began.elapsed());
    assert_eq!(ended.code(), Code::PermissionDenied, "the session hears why: {ended:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let connections = fleet.handle.services().connections.clone();
    let agent = Identity::Agent("edge1".parse().unwrap());
    let mut ended = connections.ended();
    let gone = async {
        while connections.count_of(&agent) > 0 {
            ended.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, gone).await.expect("the connection is cut, not only its session");
    let refused = session(fleet.dial(Some(&papers)).await).await.unwrap_err();
    assert_eq!(reason(&refused), "CERTIFICATE_REVOKED");
    assert!(fleet.read("denied.txt").contains("key sha256:"));

    let fleet = fleet.restart(|config| drop(offline::restore(config, &backup).unwrap())).await;
    let view_has_it_unrevoked = {
        let view = fleet.handle.services().driver.view();
        view.agent_named(&"edge1".parse().unwrap()).is_some_and(|agent| agent.revoked.is_none())
    };
    assert!(view_has_it_unrevoked, "the backup is from before the revocation");
    let refused = session(fleet.dial(Some(&papers)).await).await.unwrap_err();
    assert_eq!(reason(&refused), "CERTIFICATE_REVOKED");
    let services = fleet.handle.services();
    let seconds = u64::try_from(services.driver.now().wall.0 / 1_000).unwrap();
    let term = services.driver.view().fleet().term;
    assert!(
        term.abs_diff(seconds) < 600,
        "a restored store begins a term above all that can be lost: {term}"
    );
    fleet.end().await;
}

#[tokio::test]
async fn a_revocation_that_is_refused_denies_nobody() {
    let fleet = Fleet::start().await;
    let papers = fleet.enroll("edge1").await;
    let request = v1::RevokeAgentRequest { name: "agents/edge1".to_owned(), reason: "x".repeat(501) };
    let refused = fleet.agents(Some(&fleet.root())).await.revoke_agent(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(fleet.read("denied.txt"), "");
    session(fleet.dial(Some(&papers)).await).await.unwrap();
    fleet.end().await;
}

#[tokio::test]
async fn to_replace_takes_an_operator_and_to_revoke_by_the_way_an_admin() {
    let fleet = Fleet::start().await;
    let old = fleet.enroll("ftp1").await;
    let new = fleet.enroll("ftp2").await;
    let operator = fleet.user("olga", UserRole::Operator).await;
    let (_say, mut heard) = session(fleet.dial(Some(&new)).await).await.unwrap();
    heard.message().await.unwrap().unwrap();
    let replace = |revoke, validate_only| v1::ReplaceAgentRequest {
        name: "agents/ftp1".to_owned(),
        replacement: "agents/ftp2".to_owned(),
        revoke,
        validate_only,
        ..Default::default()
    };
    let mut agents = fleet.agents(Some(&operator)).await;
    for validate_only in [true, false] {
        let refused = agents.replace_agent(replace(true, validate_only)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        assert!(refused.message().contains("an admin can revoke it later"), "{refused:?}");
    }
    agents.replace_agent(replace(false, true)).await.unwrap();
    let show = || v1::GetAgentRequest { name: "agents/ftp1".to_owned() };
    assert!(!agents.get_agent(show()).await.unwrap().into_inner().draining, "only asked what would change");
    agents.replace_agent(replace(false, false)).await.unwrap();
    assert!(agents.get_agent(show()).await.unwrap().into_inner().draining);
    assert_eq!(fleet.read("denied.txt"), "");

    // What is refused denies nobody.
    let mut admins = fleet.agents(Some(&fleet.root())).await;
    let long = v1::ReplaceAgentRequest { reason: "x".repeat(501), ..replace(true, false) };
    assert_eq!(admins.replace_agent(long).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(fleet.read("denied.txt"), "");
    admins.replace_agent(replace(true, false)).await.unwrap();
    assert!(admins.get_agent(show()).await.unwrap().into_inner().revoked);
    let refused = session(fleet.dial(Some(&old)).await).await.unwrap_err();
    assert_eq!(reason(&refused), "CERTIFICATE_REVOKED");
    fleet.end().await;
}

#[tokio::test]
async fn all_faults_of_a_replacement_are_told_at_once() {
    let fleet = Fleet::start().await;
    fleet.enroll("ftp1").await;
    fleet.enroll("ftp2").await;
    let mut agents = fleet.agents(Some(&fleet.root())).await;
    let mut faults = async |old: &str, new: &str| {
        let request = v1::ReplaceAgentRequest {
            name: old.to_owned(),
            replacement: new.to_owned(),
            ..Default::default()
        };
        let refused = agents.replace_agent(request).await.unwrap_err();
        let fault = mirror_proto::status::Fault::from(&refused);
        let fields: Vec<String> = fault.violations.into_iter().map(|one| one.field).collect();
        (fault.code, fields)
    };
    let both = vec!["name".to_owned(), "replacement".to_owned()];
    assert_eq!(faults("", "agents/a b").await, (Code::InvalidArgument, both.clone()));
    assert_eq!(faults("agents/ftp8", "agents/ftp9").await, (Code::InvalidArgument, both));
    let new = || vec!["replacement".to_owned()];
    assert_eq!(faults("agents/ftp1", "agents/ftp2").await, (Code::FailedPrecondition, new()), "it is away");
    assert_eq!(
        faults("agents/ftp1", "agents/FTP1").await,
        (Code::FailedPrecondition, new()),
        "it is the same"
    );
    fleet.end().await;
}

#[tokio::test]
async fn both_reflections_describe_every_service_to_users() {
    let fleet = Fleet::start_with(Default::default(), |config| config.reflection = Reflection::Users).await;
    let channel = fleet.dial(Some(&fleet.root())).await;
    let wanted = [
        "grpc.health.v1.Health",
        "mirror.v1.AgentService",
        "mirror.v1.EnrollmentService",
        "mirror.v1.FleetService",
        "mirror.v1.ProjectService",
        "mirror.v1.RunService",
        "mirror.v1.SessionService",
    ];
    let ask = || {
        use reflection_v1::{ServerReflectionRequest, server_reflection_request::MessageRequest};
        let message_request = Some(MessageRequest::ListServices(String::new()));
        tokio_stream::once(ServerReflectionRequest { host: String::new(), message_request })
    };
    let mut client = reflection_v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut answers = client.server_reflection_info(ask()).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let reflection_v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer
    else {
        panic!("no list")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in wanted {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
    let ask = {
        use reflection_v1alpha::{ServerReflectionRequest, server_reflection_request::MessageRequest};
        let symbol = MessageRequest::FileContainingSymbol("mirror.v1.FleetService".to_owned());
        tokio_stream::once(ServerReflectionRequest { host: String::new(), message_request: Some(symbol) })
    };
    let mut client = reflection_v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(ask).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    use reflection_v1alpha::server_reflection_response::MessageResponse;
    assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{answer:?}");
    fleet.end().await;
}

#[tokio::test]
async fn a_request_that_is_far_too_large_is_refused() {
    let fleet = Fleet::start().await;
    let request = v1::FreezeRequest { reason: "x".repeat(300 * 1_024) };
    let refused = fleet.fleet(Some(&fleet.root())).await.freeze(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    fleet.end().await;
}

#[tokio::test]
async fn agents_are_listed_in_pages_by_filter_drained_and_deleted() {
    let fleet = Fleet::start().await;
    for name in ["edge1", "edge2", "edge3", "ftp1"] {
        fleet.enroll(name).await;
    }
    let mut agents = fleet.agents(Some(&fleet.root())).await;
    let drained =
        agents.drain_agent(v1::DrainAgentRequest { name: "agents/edge2".to_owned() }).await.unwrap();
    assert!(drained.into_inner().draining);
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let filter = "draining=false".to_owned();
        let page = agents
            .list_agents(v1::ListAgentsRequest { page_size: 2, page_token, filter, ..Default::default() })
            .await
            .unwrap();
        let page = page.into_inner();
        names.extend(page.agents.into_iter().map(|agent| agent.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["agents/edge1", "agents/edge3", "agents/ftp1"]);
    let back =
        agents.undrain_agent(v1::UndrainAgentRequest { name: "agents/edge2".to_owned() }).await.unwrap();
    assert!(!back.into_inner().draining);
    let delete = || v1::DeleteAgentRequest { name: "agents/ftp1".to_owned() };
    assert_eq!(agents.delete_agent(delete()).await.unwrap_err().code(), Code::FailedPrecondition);
    let revoke = v1::RevokeAgentRequest { name: "agents/ftp1".to_owned(), reason: String::new() };
    agents.revoke_agent(revoke).await.unwrap();
    agents.delete_agent(delete()).await.unwrap();
    let gone = agents.get_agent(v1::GetAgentRequest { name: "agents/ftp1".to_owned() }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    // The name is free again for another host with another certificate.
    fleet.enroll("ftp1").await;
    fleet.end().await;
}

#[tokio::test]
async fn an_agent_is_declared_set_and_listed_backwards() {
    let fleet = Fleet::start().await;
    let mut agents = fleet.agents(Some(&fleet.root())).await;
    let agent = |name: &str| v1::Agent { name: format!("agents/{name}"), ..Default::default() };
    for name in ["edge1", "edge2", "edge3"] {
        let request = v1::CreateAgentRequest { agent: Some(agent(name)), ..Default::default() };
        assert!(agents.create_agent(request).await.unwrap().into_inner().declared_only);
    }
    // The same request again has the same answer, another one of the name has not.
    let request_id = "again".to_owned();
    let request = v1::CreateAgentRequest { agent: Some(agent("edge4")), request_id, validate_only: false };
    let made = agents.create_agent(request.clone()).await.unwrap().into_inner();
    assert_eq!(agents.create_agent(request).await.unwrap().into_inner(), made);
    let request = v1::CreateAgentRequest { agent: Some(agent("edge4")), ..Default::default() };
    assert_eq!(agents.create_agent(request).await.unwrap_err().code(), Code::AlreadyExists);

    let mut seen = Vec::new();
    let (mut page_token, order_by) = (String::new(), "name desc".to_owned());
    loop {
        let order_by = order_by.clone();
        let request = v1::ListAgentsRequest { page_size: 3, page_token, order_by, ..Default::default() };
        let page = agents.list_agents(request).await.unwrap().into_inner();
        seen.extend(page.agents.into_iter().map(|agent| agent.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["agents/edge4", "agents/edge3", "agents/edge2", "agents/edge1"]);

    let update = |etag: &str, paths: &[&str], validate_only| v1::UpdateAgentRequest {
        agent: Some(v1::Agent {
            labels: [("role".to_owned(), "edge".to_owned())].into(),
            max_running: 2,
            etag: etag.to_owned(),
            ..agent("edge1")
        }),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() }),
        validate_only,
    };
    let would = agents.update_agent(update("", &["labels.role"], true)).await.unwrap().into_inner();
    assert_eq!((would.labels.len(), would.etag.as_str()), (1, "1"));
    let set = agents.update_agent(update("1", &["max_running"], false)).await.unwrap().into_inner();
    assert_eq!((set.labels.len(), set.max_running, set.max_running_in_force), (0, 2, 2));
    let stale = agents.update_agent(update("1", &["labels"], false)).await.unwrap_err();
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::Aborted, "STALE_ETAG"));
    let wrong = agents.update_agent(update("", &["name", "colour"], false)).await.unwrap_err();
    assert_eq!(Fault::from(&wrong).violations.len(), 2, "{wrong:?}");
    let unknown = v1::UpdateAgentRequest { agent: Some(agent("edge9")), ..update("", &["labels"], false) };
    assert_eq!(agents.update_agent(unknown).await.unwrap_err().code(), Code::NotFound);
    fleet.end().await;
}

#[tokio::test]
async fn a_token_is_good_from_its_networks_only() {
    let fleet = Fleet::start().await;
    let mut agents = fleet.agents(Some(&fleet.root())).await;
    let mut token = async |cidrs: &[&str]| {
        let cidrs = cidrs.iter().map(ToString::to_string).collect();
        let request = v1::CreateJoinTokenRequest { agent: "edge1".to_owned(), cidrs, ..Default::default() };
        agents.create_join_token(request).await.map(|made| made.into_inner().token)
    };
    let elsewhere = token(&["192.0.2.0/24", "2001:db8::/32"]).await.unwrap();
    assert_eq!(reason(&fleet.try_enroll(&elsewhere, "edge1").await.unwrap_err()), "BAD_JOIN_TOKEN");
    let wrong = token(&["192.0.2.1/24", "here", "::ffff:10.0.0.0/104"]).await.unwrap_err();
    assert_eq!(Fault::from(&wrong).violations.len(), 3, "{wrong:?}");
    let here = token(&["192.0.2.0/24", "127.0.0.0/8"]).await.unwrap();
    fleet.try_enroll(&here, "edge1").await.unwrap();
    fleet.end().await;
}
