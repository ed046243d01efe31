//! `mirror-agent enroll` as people type it.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy knows only functions marked #[test]"
)]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use support::{Coordinator, Host, output};

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn a_host_joins_once() {
    let coordinator = Coordinator::start().await;
    let host = Host::new();
    let first = output(host.enroll_command(&coordinator)).await;
    let (stdout, stderr) = texts(&first);
    assert!(first.status.success(), "{stderr}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(
        lines[0].starts_with("✓ CA matches the hash; key made here, stays here; certificate until 20"),
        "{stdout}"
    );
    assert!(lines[1].starts_with("✓ rsync 3.") && lines[1].contains("; root a1: "), "{stdout}");
    assert!(lines[1].ends_with(", writable, locks work"), "{stdout}");
    let config = host.data().join("agent.toml");
    assert_eq!(lines[2], format!("Enrolled as edge1. Next: mirror-agent run --config {}", config.display()));
    assert_eq!(coordinator.enrolled.lock().unwrap()["edge1"]["role"], "edge");
    for file in ["identity.pem", "agent.toml"] {
        let mode = std::fs::metadata(host.data().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let mut check = support::agent_command();
    check.arg("run").arg("--config").arg(&config).arg("--check-config");
    let checked = output(check).await;
    assert!(checked.status.success(), "{}", texts(&checked).1);

    let key = std::fs::read(host.data().join("identity.pem")).unwrap();
    let again = output(host.enroll_command(&coordinator)).await;
    assert_eq!(again.status.code(), Some(5));
    assert!(texts(&again).1.contains("this host is enrolled; --force replaces its identity"));
    assert_eq!(std::fs::read(host.data().join("identity.pem")).unwrap(), key);
    let mut forced = host.enroll_command(&coordinator);
    forced.arg("--force");
    assert!(output(forced).await.status.success());
    assert_ne!(std::fs::read(host.data().join("identity.pem")).unwrap(), key);
}

#[tokio::test]
async fn the_current_directory_is_a_data_directory_too() {
    let coordinator = Coordinator::start().await;
    let host = Host::new();
    let enroll = |words: &[&str]| {
        let mut command = support::agent_command();
        command.current_dir(host.dir.path()).args(["enroll", &coordinator.address]).args(words);
        command.args(["--name", "edge1", "--ca-hash", &coordinator.ca_hash, "--token", &coordinator.token]);
        command.arg("--root").arg(format!("a1={}", host.root().display()));
        command
    };
    let joined = output(enroll(&[])).await;
    let (stdout, stderr) = texts(&joined);
    assert!(
        stdout.ends_with("Enrolled as edge1. Next: mirror-agent run --config agent.toml\n"),
        "{stdout}{stderr}"
    );
    let mut check = support::agent_command();
    check.current_dir(host.dir.path()).args(["run", "--config", "agent.toml", "--check-config"]);
    let checked = output(check).await;
    assert!(checked.status.success(), "{}", texts(&checked).1);
}

#[tokio::test]
async fn another_ca_gets_nothing() {
    let mut typed = Coordinator::start().await;
    let other = Coordinator::start().await;
    let host = Host::new();
    typed.ca_hash.clone_from(&other.ca_hash);
    let refused = output(host.enroll_command(&typed)).await;
    assert_eq!(refused.status.code(), Some(4));
    let stderr = texts(&refused).1;
    let wanted = format!(
        ", you typed {}; nothing was sent; fault: a mistyped hash, or somebody in between",
        other.ca_hash
    );
    assert!(stderr.starts_with("error: the server shows sha256:") && stderr.contains(&wanted), "{stderr}");
    assert!(typed.enrolled.lock().unwrap().is_empty());
    assert!(!host.data().join("identity.pem").exists());
}

#[tokio::test]
async fn a_bad_token_is_refused_and_nothing_is_kept() {
    let mut typed = Coordinator::start().await;
    let host = Host::new();
    let token = mirror_certs::JoinToken::generate().unwrap().reveal().to_owned();
    typed.token.clone_from(&token);
    let refused = output(host.enroll_command(&typed)).await;
    assert_eq!(refused.status.code(), Some(4));
    let stderr = texts(&refused).1;
    assert!(stderr.contains("the coordinator refuses: the join token is unknown"), "{stderr}");
    assert!(
        stderr.contains("\nnext: mirrorctl join-token create --name ") && !stderr.contains(&token),
        "{stderr}"
    );
    assert!(!host.data().join("identity.pem").exists() && !host.data().join("agent.toml").exists());
}

#[tokio::test]
async fn a_host_that_cannot_be_an_agent_spends_no_token() {
    let coordinator = Coordinator::start().await;
    let host = Host::new();
    std::fs::set_permissions(host.root(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = host.enroll_command(&coordinator);
    command.args(["--rsync", "/bin/false", "--root", "a2=/nonexistent/mirror"]);
    let refused = output(command).await;
    assert_eq!(refused.status.code(), Some(2));
    let stderr = texts(&refused).1;
    assert!(stderr.starts_with("error: not enrolled: 3 faults in this host\n"), "{stderr}");
    assert!(stderr.contains("its mode 0777 lets other users write to it"), "{stderr}");
    assert!(coordinator.enrolled.lock().unwrap().is_empty());
}

#[tokio::test]
async fn nobody_there() {
    let mut away = Coordinator::start().await;
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    away.address = format!("127.0.0.1:{port}");
    let host = Host::new();
    let failed = output(host.enroll_command(&away)).await;
    assert_eq!(failed.status.code(), Some(6));
    let stderr = texts(&failed).1;
    assert!(stderr.contains(&format!("127.0.0.1:{port} does not answer (connection refused)")), "{stderr}");
}

#[tokio::test]
async fn without_a_name_the_hosts_own_is_offered() {
    let coordinator = Coordinator::start().await;
    let host = Host::new();
    let mut command = support::agent_command();
    command.args(["enroll", &coordinator.address, "--ca-hash", &coordinator.ca_hash]);
    command.env("MIRROR_AGENT_TOKEN", &coordinator.token);
    command.arg("--root").arg(format!("a1={}", host.root().display()));
    command.arg("--data-dir").arg(host.data());
    let joined = output(command).await;
    assert!(joined.status.success(), "{}", texts(&joined).1);
    assert_eq!(coordinator.enrolled.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn faults_of_a_configuration_come_all_at_once() {
    let coordinator = Coordinator::start().await;
    let host = Host::enrolled(&coordinator, &[]).await;
    let config = host.data().join("agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("slotz = 3\n{text}")).unwrap();
    let mut check = support::agent_command();
    check.arg("run").arg("--config").arg(&config).args(["--check-config", "--slots", "many"]);
    check.env("MIRROR_AGENT_LOG_FORMAT", "xml");
    let checked = output(check).await;
    assert_eq!(checked.status.code(), Some(2));
    let stderr = texts(&checked).1;
    assert!(stderr.starts_with("error: not started: 3 faults in "), "{stderr}");
    for part in ["no such key; did you mean slots?", "\"many\": ", "\"xml\": must be text or json"] {
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
}
