//! The HTTPS port against a real coordinator: what it answers to pushes and to everything else, whom it lets in by which
//! certificate, and what strangers cost.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod wire_common;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use fleet::{agent::UserRole, defaults::PUSH_INTERVAL};
use mirror_certs::{CertificateAuthority, TrustDomain};
use mirror_coordinator::{StartOptions, clock::Clock, https::CONNECTIONS_MAX};
use mirror_proto::v1::{
    self, project_service_client::ProjectServiceClient, run_service_client::RunServiceClient,
    user_service_client::UserServiceClient,
};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use wire_common::{AHEAD, Fleet, PATIENCE};

const HOUR: Duration = Duration::from_secs(3_600);

/// A fleet with the HTTPS port, whose project debian waits for an agent that never comes.
async fn fleet() -> Fleet {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let fleet = Fleet::start_with(StartOptions::default(), |config| config.https_listen = Some(any)).await;
    fleet.enroll("ftp1").await;
    let mut projects = ProjectServiceClient::new(fleet.dial(Some(&fleet.root())).await);
    for name in ["debian", "fedora"] {
        let target = v1::PlacementTarget { agent: "agents/ftp1".to_owned(), ..Default::default() };
        let upstream = v1::Upstream { uri: format!("rsync://ftp.example.org/{name}/"), ..Default::default() };
        let project = v1::Project {
            name: format!("projects/{name}"),
            destination: format!("a1:{name}"),
            upstreams: vec![upstream],
            placement: Some(v1::PlacementSettings { origins: vec![target], ..Default::default() }),
            ..Default::default()
        };
        let request = v1::CreateProjectRequest { project: Some(project), ..Default::default() };
        projects.create_project(request).await.unwrap();
    }
    fleet
}

async fn token(fleet: &Fleet) -> String {
    let mut admin = UserServiceClient::new(fleet.dial(Some(&fleet.root())).await);
    let request = v1::CreatePushTokenRequest { project: "projects/debian".to_owned(), ..Default::default() };
    admin.create_push_token(request).await.unwrap().into_inner().token
}

/// An answer: its code, its headers in small letters, what it says.
struct Answer {
    code: u16,
    head: String,
    body: Value,
}

fn client(ca: &str, versions: &[&'static rustls::SupportedProtocolVersion]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn connect(fleet: &Fleet, config: rustls::ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let address = fleet.handle.https_address().unwrap();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::IpAddress(address.ip().into()), stream).await
}

/// One request by a program that trusts this CA.
async fn send_by(fleet: &Fleet, config: rustls::ClientConfig, method_and_path: &str, rest: &str) -> Answer {
    let mut stream = connect(fleet, config).await.unwrap();
    let text = format!("{method_and_path} HTTP/1.1\r\nhost: coordinator\r\nconnection: close\r\n{rest}");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    // Whoever is refused may find the connection closed before his body is read.
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("an answer");
    drop(read);
    let all = String::from_utf8(all).unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    Answer { code, head: head.to_ascii_lowercase(), body }
}

async fn send(fleet: &Fleet, method_and_path: &str, rest: &str) -> Answer {
    send_by(fleet, client(&fleet.read("ca.pem"), &[&rustls::version::TLS13]), method_and_path, rest).await
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\ncontent-length: 0\r\n\r\n")
}

const PUSH: &str = "POST /v1/projects/debian/push";

#[tokio::test]
async fn a_push_is_answered_with_its_run_and_the_next_one_joins_it() {
    let fleet = fleet().await;
    let token = token(&fleet).await;
    let first = send(&fleet, PUSH, &bearer(&token)).await;
    assert_eq!((first.code, &first.body["coalesced"]), (202, &Value::Bool(false)), "{}", first.body);
    let run = first.body["run"].as_str().unwrap().to_owned();
    let mut runs = RunServiceClient::new(fleet.dial(Some(&fleet.root())).await);
    let seen = runs.get_run(v1::GetRunRequest { name: run.clone() }).await.unwrap().into_inner();
    assert_eq!(seen.trigger.unwrap().kind(), v1::trigger::Kind::Push);
    let body = "{\"ref\": \"refs/heads/main\"}";
    let hook = format!("x-gitlab-token: {token}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let joined = send(&fleet, PUSH, &hook).await;
    assert_eq!((joined.code, &joined.body["run"]), (200, &first.body["run"]), "{}", joined.body);
    assert_eq!(joined.body["coalesced"], true);
    let old = client(&fleet.read("ca.pem"), &[&rustls::version::TLS12]);
    assert_eq!(send_by(&fleet, old, PUSH, &bearer(&token)).await.code, 200, "by TLS 1.2 as well");
    fleet.user("olga", UserRole::Operator).await;
    let login = fleet.user_token("olga", HOUR).await;
    assert_eq!(send(&fleet, PUSH, &bearer(&login)).await.code, 200, "a user's own token is as good");
    let gone = send(&fleet, "POST /v1/projects/no-such/push", &bearer(&login)).await;
    assert_eq!((gone.code, &gone.body["reason"]), (404, &"NOT_FOUND".into()));
    let bad = send(&fleet, "POST /v1/projects/-x/push", &bearer(&login)).await;
    assert_eq!((bad.code, &bad.body["reason"]), (400, &"INVALID_FIELDS".into()), "{}", bad.body);
    fleet.end().await;
}

#[tokio::test]
async fn everything_else_is_refused_as_a_problem_and_tells_no_names() {
    let fleet = fleet().await;
    let token = token(&fleet).await;
    let is = |answer: &Answer, code: u16, reason: &str| {
        assert_eq!((answer.code, &answer.body["reason"]), (code, &reason.into()), "{}", answer.body);
        assert_eq!(answer.body["status"], code);
        assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
    };
    let nobody = "content-length: 0\r\n\r\n";
    for path in [PUSH, "POST /v1/projects/no-such/push", "POST /v1/projects/%ff/push"] {
        let answer = send(&fleet, path, nobody).await;
        is(&answer, 401, "NO_IDENTITY");
        assert!(answer.head.contains("www-authenticate: bearer"), "{}", answer.head);
        let wrong = send(&fleet, path, &bearer("mpt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")).await;
        is(&wrong, 401, "TOKEN_NOT_GOOD");
    }
    let mut words = Vec::new();
    for other in ["fedora", "no-such", "%ff", "a%20b"] {
        let answer = send(&fleet, &format!("POST /v1/projects/{other}/push"), &bearer(&token)).await;
        is(&answer, 403, "NOT_ITS_PROJECT");
        words.push(answer.body);
    }
    assert!(words.iter().all(|body| *body == words[0]), "{words:?}");
    let get = send(&fleet, "GET /v1/projects/debian/push", &bearer(&token)).await;
    is(&get, 405, "NOT_A_POST");
    assert!(get.head.contains("allow: post"), "{}", get.head);
    for path in ["GET /", "POST /v1/projects/debian", "GET /healthz", "POST /v1/projects/a/b/push"] {
        is(&send(&fleet, path, &bearer(&token)).await, 404, "NO_SUCH_PATH");
    }
    let large = format!("authorization: Bearer {token}\r\ncontent-length: 26214401\r\n\r\n");
    is(&send(&fleet, PUSH, &large).await, 413, "BAD_BODY");
    let mut runs = RunServiceClient::new(fleet.dial(Some(&fleet.root())).await);
    let all = v1::ListRunsRequest { parent: "projects/debian".to_owned(), ..Default::default() };
    assert!(runs.list_runs(all).await.unwrap().into_inner().runs.is_empty(), "none of it did anything");
    fleet.end().await;
}

#[tokio::test]
async fn beyond_the_pace_one_is_told_when_to_come_again() {
    let fleet = fleet().await;
    let token = token(&fleet).await;
    let mut admin = UserServiceClient::new(fleet.dial(Some(&fleet.root())).await);
    let made = admin.list_push_tokens(v1::ListPushTokensRequest::default()).await.unwrap().into_inner();
    assert_eq!(send(&fleet, PUSH, &bearer(&token)).await.code, 202);
    fleet.exhaust("debian", &made.push_tokens[0].name);
    let run = send(&fleet, PUSH, &bearer(&token)).await.body["run"].as_str().unwrap().to_owned();
    let mut runs = RunServiceClient::new(fleet.dial(Some(&fleet.root())).await);
    runs.cancel_run(v1::CancelRunRequest { name: run }).await.unwrap();
    let answer = send(&fleet, PUSH, &bearer(&token)).await;
    assert_eq!((answer.code, &answer.body["reason"]), (429, &"PUSHED_TOO_OFTEN".into()));
    let wait = answer.head.split("retry-after: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let most = (AHEAD + PUSH_INTERVAL).as_secs();
    assert!((1..=most).contains(&wait.parse::<u64>().unwrap()), "{wait}");
    fleet.end().await;
}

#[tokio::test]
async fn strangers_who_say_nothing_keep_nobody_out() {
    let fleet = fleet().await;
    let token = token(&fleet).await;
    let address = fleet.handle.https_address().unwrap();
    let mut strangers = Vec::new();
    for _ in 0..CONNECTIONS_MAX + 10 {
        strangers.push(TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(send(&fleet, PUSH, &bearer(&token)).await.code, 202);
    // The first of them had to go for others; it is told so by the end of its connection.
    let ended = tokio::time::timeout(PATIENCE, strangers[0].read_u8()).await.expect("its end");
    assert!(ended.is_err());
    let long = format!("x: {}\r\n{}", "y".repeat(64 * 1_024), bearer(&token));
    let mut stream =
        connect(&fleet, client(&fleet.read("ca.pem"), &[&rustls::version::TLS13])).await.unwrap();
    let sent = stream.write_all(format!("{PUSH} HTTP/1.1\r\nhost: c\r\n{long}").as_bytes()).await;
    drop(sent);
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
    drop(read);
    // It may find the connection closed before it has said all.
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    fleet.end().await;
}

fn now() -> chrono::DateTime<chrono::Utc> {
    Clock::start().now().wall.to_utc()
}

/// Writes a certificate of another CA for the port, with its key, and says how that CA is known.
fn other_certificate(certificate: &Path, key: &Path) -> String {
    let domain: TrustDomain = "other.example.org".parse().unwrap();
    let ca = CertificateAuthority::create(domain, now()).unwrap();
    let server = ca.issue_server(&["127.0.0.1"], now()).unwrap();
    std::fs::write(certificate, &server.issued.cert_pem).unwrap();
    mirror_certs::write_private(key, &server.key.pem(), mirror_certs::Existing::Replace).unwrap();
    ca.bundle().to_pem()
}

#[tokio::test]
async fn the_port_shows_files_of_its_own_and_takes_new_ones_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("web.pem"), dir.path().join("web.key"));
    let first = other_certificate(&certificate, &key);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let fleet = Fleet::start_with(StartOptions::default(), |config| {
        config.https_listen = Some(any);
        config.https_certificate = Some(certificate.clone());
        config.https_key = Some(key.clone());
    })
    .await;
    let knows = async |ca: &str| connect(&fleet, client(ca, &[&rustls::version::TLS13])).await.is_ok();
    assert!(knows(&first).await && !knows(&fleet.read("ca.pem")).await);
    let second = other_certificate(&certificate, &key);
    fleet.handle.reload(&fleet.config).unwrap();
    assert!(knows(&second).await && !knows(&first).await);
    std::fs::write(&certificate, "half a fi").unwrap();
    fleet.handle.reload(&fleet.config).unwrap();
    assert!(knows(&second).await, "it goes on with what it has");
    let third = other_certificate(&certificate, &key);
    fleet.handle.services().who.renew_server(now()).unwrap();
    assert!(knows(&third).await, "housekeeping looks as well");
    fleet.end().await;
}
