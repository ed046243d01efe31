//! What is refused, is refused whole: with its reason, a documented exit code, and nothing changed.

use std::fs;

use fleet_tests::{Finished, Fleet, FleetOptions};

fn fleet() -> Fleet {
    Fleet::start(FleetOptions::default()).expect("a fleet starts")
}

#[test]
fn hostile_options_destinations_and_hosts_are_refused_by_the_coordinator() {
    let fleet = fleet();
    let cases: [(&[&str], &str); 9] = [
        (&["--rsync-option=-e"], "-e"),
        (&["--rsync-option=--rsh=sh"], "--rsh"),
        (&["--rsync-option=-avHesh"], "-avHesh"),
        (&["--rsync-option=--files-from=/etc/shadow"], "--files-from"),
        (&["--to", "a1:../etc"], "--to"),
        (&["--to", "a1:/etc"], "--to"),
        (&["--to", "/etc"], "--to"),
        (&["--from", "rsync://-e/mod/"], "--from"),
        (&["--from", "rsync://h:abc/mod/"], "--from"),
    ];
    for (more, named) in cases {
        let mut args = vec!["project", "add", "evil", "--origin", "edge1"];
        let uri = fleet.upstream.uri();
        if !more.contains(&"--from") {
            args.extend(["--from", uri.as_str()]);
        }
        if !more.contains(&"--to") {
            args.extend(["--to", "a1:evil"]);
        }
        args.extend(more);
        let refused = fleet.mirrorctl(&args);
        assert_eq!(refused.code, 2, "{}: {}{}", refused.line, refused.stdout, refused.stderr);
        assert!(refused.stderr.contains(named), "{} does not name {named}: {}", refused.line, refused.stderr);
    }
    let list = fleet.json(&["project", "list"]);
    assert_eq!(list["projects"].as_array().map_or(0, Vec::len), 0, "nothing was created: {list}");
}

#[test]
fn all_faults_of_one_input_are_told_at_once() {
    let fleet = fleet();
    let refused = fleet.mirrorctl(&[
        "project",
        "add",
        "deb/ian",
        "--from",
        "rsnc://h/debian",
        "--to",
        "debian",
        "--origin",
        "edge1",
        "--cron",
        "minute=*/70 hour=*",
        "--rsync-option=-e",
    ]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    for named in ["NAME", "--from", "--to", "--cron minute", "--rsync-option", "5 faults"] {
        assert!(refused.stderr.contains(named), "{named} is missing:\n{}", refused.stderr);
    }
}

#[test]
fn a_join_token_is_good_once() {
    let fleet =
        Fleet::start(FleetOptions { agents: Vec::new(), ..FleetOptions::default() }).expect("a fleet starts");
    let token = fleet.json(&["join-token", "create", "--name", "edge9"])["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let enroll = |dir: &str| {
        let root = fleet.path().join(format!("root-{dir}"));
        fs::create_dir_all(&root).expect("a directory");
        let server = fleet.server();
        let root = format!("a1={}", root.display());
        let mut command =
            fleet.command("mirror-agent", &["enroll", &server, "--token", &token, "--root", &root]);
        command.args(["--ca-hash", fleet.ca_hash()]).arg("--data-dir").arg(fleet.path().join(dir));
        Finished::run(&mut command)
    };
    enroll("first").ok();
    let second = enroll("second");
    assert_eq!(second.code, 4, "{}{}", second.stdout, second.stderr);
    assert!(!fleet.path().join("second/agent.toml").exists(), "a refused enrolment leaves no configuration");
    let agents = fleet.json(&["agent", "list"]);
    assert_eq!(agents["agents"].as_array().map_or(0, Vec::len), 1, "{agents}");
}

#[test]
fn a_wrong_ca_hash_is_noticed_before_anything_is_sent() {
    let fleet =
        Fleet::start(FleetOptions { agents: Vec::new(), ..FleetOptions::default() }).expect("a fleet starts");
    let token = fleet.json(&["join-token", "create", "--name", "edge9"])["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let root = fleet.path().join("root-x");
    fs::create_dir_all(&root).expect("a directory");
    let (server, root) = (fleet.server(), format!("a1={}", root.display()));
    let wrong = format!("sha256:{}", "77".repeat(32));
    let mut command = fleet.command("mirror-agent", &["enroll", &server, "--token", &token, "--root", &root]);
    command.args(["--ca-hash", &wrong]).arg("--data-dir").arg(fleet.path().join("x"));
    let refused = Finished::run(&mut command);
    assert_ne!(refused.code, 0);
    for part in ["nothing was sent", fleet.ca_hash(), &wrong] {
        assert!(refused.stderr.contains(part), "{part} is missing:\n{}", refused.stderr);
    }
    let tokens = fleet.json(&["join-token", "list"]);
    assert_eq!(tokens["join_tokens"].as_array().map_or(0, Vec::len), 1, "the token is still good: {tokens}");
}

#[test]
fn a_revoked_agent_is_cut_off_and_stays_out() {
    let mut fleet = fleet();
    fleet.mirrorctl(&["agent", "revoke", "edge1", "--reason", "stolen", "--yes"]).ok();
    fleet_tests::eventually("it is shown as not connected", || {
        let agent = fleet.json(&["agent", "show", "edge1"]);
        (agent["revoked"] == true && agent["connected"] != true).then_some(())
    });
    fleet.kill_agent(0);
    fleet.start_agent(0).expect("the agent starts");
    fleet_tests::eventually("the agent is told", || {
        let output = fleet.agents[0].as_ref().map(fleet_tests::Process::output).unwrap_or_default();
        output.contains("revoked").then_some(())
    });
    assert_ne!(fleet.json(&["agent", "show", "edge1"])["connected"], true);
}

#[test]
fn unknown_things_are_not_found_and_near_names_are_offered() {
    let fleet = fleet();
    fleet.add_project("debian", &[]).ok();
    let missing = fleet.mirrorctl(&["project", "show", "debain"]);
    assert_eq!(missing.code, 3, "{}", missing.stderr);
    assert!(missing.stderr.contains("debian"), "{}", missing.stderr);
    let twice = fleet.add_project("Debian", &[]);
    assert_eq!(twice.code, 5, "names are unique ignoring case: {}", twice.stderr);
}
