//! Other people's clients: grpcurl, buf curl and Python's grpcio, with reflection, over mutual TLS.

use std::{path::PathBuf, process::Command};

use fleet_tests::{Finished, Fleet, FleetOptions, program};

/// A tool that `make test` installed.
pub(crate) fn tool(name: &str) -> PathBuf {
    let installed = program("mirrorctl")
        .ancestors()
        .map(|dir| dir.join("tools/bin").join(name))
        .find(|path| path.is_file());
    installed.unwrap_or_else(|| PathBuf::from(name))
}

fn fleet() -> Fleet {
    let fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    fleet.add_project("debian", &[]).ok();
    fleet
}

fn grpcurl(fleet: &Fleet, data: Option<&str>, args: &[&str]) -> Finished {
    let admin = fleet.admin_dir();
    let mut command = Command::new(tool("grpcurl"));
    command.arg("-cacert").arg(admin.join("ca.pem"));
    command.arg("-cert").arg(admin.join("admin.pem")).arg("-key").arg(admin.join("admin.key"));
    command.arg("-format-error");
    if let Some(data) = data {
        command.args(["-d", data]);
    }
    command.arg(fleet.server()).args(args);
    Finished::run(&mut command)
}

#[test]
fn grpcurl_lists_describes_creates_runs_and_watches() {
    let fleet = fleet();
    let services = grpcurl(&fleet, None, &["list"]).ok().stdout;
    for service in [
        "ProjectService",
        "RunService",
        "AgentService",
        "EnrollmentService",
        "SessionService",
        "FleetService",
    ] {
        assert!(services.contains(&format!("mirror.v1.{service}")), "{service} is not listed:\n{services}");
    }
    assert!(services.contains("grpc.health.v1.Health"));
    let described = grpcurl(&fleet, None, &["describe", "mirror.v1.Project"]).ok().stdout;
    assert!(described.contains("unique ignoring case"), "comments survive into reflection:\n{described}");
    let project = format!(
        r#"{{"project": {{"name": "projects/ubuntu", "upstreams": [{{"uri": "{}"}}], "destination": "a1:ubuntu",
            "placement": {{"origins": [{{"agent": "agents/edge1"}}]}}}}, "request_id": "r1"}}"#,
        fleet.upstream.uri()
    );
    let create = ["mirror.v1.ProjectService/CreateProject"];
    let first = grpcurl(&fleet, Some(&project), &create).ok().json();
    let second = grpcurl(&fleet, Some(&project), &create).ok().json();
    assert_eq!(first["name"], "projects/ubuntu");
    assert_eq!(first["createTime"], second["createTime"], "the same request id gets the same answer");
    let run =
        grpcurl(&fleet, Some(r#"{"name": "projects/ubuntu"}"#), &["mirror.v1.ProjectService/RunProject"])
            .ok()
            .json();
    let name = run["run"]["name"].as_str().expect("a run");
    let watched =
        grpcurl(&fleet, Some(&format!(r#"{{"name": "{name}"}}"#)), &["mirror.v1.RunService/WatchRun"]).ok();
    assert!(watched.stdout.contains("STATE_SUCCEEDED"), "{}", watched.stdout);
}

#[test]
fn errors_carry_reason_and_every_field() {
    let fleet = fleet();
    let project =
        r#"{"project": {"name": "projects/-x", "upstreams": [{"uri": "rsnc://h/m"}], "destination": "x"}}"#;
    let refused = grpcurl(&fleet, Some(project), &["mirror.v1.ProjectService/CreateProject"]);
    assert_ne!(refused.code, 0);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    for part in ["upstreams[0].uri", "destination", "name", "placement.origins", "mirror.v1"] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
}

#[test]
fn nobody_without_a_certificate_gets_past_the_door() {
    let fleet = fleet();
    let mut command = Command::new(tool("grpcurl"));
    command.arg("-cacert").arg(fleet.admin_dir().join("ca.pem"));
    command
        .arg("-import-path")
        .arg(crate::tidy::root().join("proto"))
        .args(["-proto", "mirror/v1/fleet.proto"]);
    command.arg(fleet.server()).arg("mirror.v1.FleetService/GetStatus");
    let refused = Finished::run(&mut command);
    assert!(
        format!("{}{}", refused.stdout, refused.stderr).contains("Unauthenticated"),
        "{}",
        refused.stderr
    );
}

#[test]
fn buf_curl_lists_and_calls() {
    let fleet = fleet();
    let admin = fleet.admin_dir();
    let buf = |args: &[&str], path: &str| {
        let mut command = Command::new(tool("buf"));
        command.args(["curl", "--protocol", "grpc"]).arg("--cacert").arg(admin.join("ca.pem"));
        command.arg("--cert").arg(admin.join("admin.pem")).arg("--key").arg(admin.join("admin.key"));
        command.env("HOME", fleet.path()).args(args).arg(format!("https://{}{path}", fleet.server()));
        Finished::run(&mut command)
    };
    let methods = buf(&["--list-methods"], "").ok().stdout;
    assert!(methods.contains("mirror.v1.ProjectService/RunProject"), "{methods}");
    let status = buf(&["--data", "{}"], "/mirror.v1.FleetService/GetStatus").ok().json();
    assert_eq!(status["projects"][0]["name"], "projects/debian", "{status}");
}

#[test]
fn python_reads_the_contract_by_reflection_and_calls_it() {
    let fleet = fleet();
    let script = crate::tidy::root().join("tests/it/clients/grpc_client.py");
    let mut command = Command::new(tool("python"));
    command.arg(script).arg(fleet.server()).arg(fleet.admin_dir());
    let done = Finished::run(&mut command).ok().json();
    assert_eq!(done["projects"][0], "projects/debian", "{done}");
    assert_eq!(done["state"], "STATE_SUCCEEDED", "{done}");
    assert_eq!(done["health"], "SERVING", "{done}");
}
