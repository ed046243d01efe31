//! The fleet's CA is replaced by the commands that the guide names, with the real programs, while syncs run; and one
//! agent's certificate is on two hosts.

use std::{fs, path::Path, process::Command};

use fleet_tests::{Finished, Fleet, FleetOptions, Process, eventually, tree};
use rustix::process::Signal;

/// `mirror-coordinator ca …` on the coordinator's host.
fn ca(fleet: &Fleet, words: &[&str]) -> Finished {
    let mut command = fleet.command("mirror-coordinator", &["ca"]);
    command.args(words).arg("--config").arg(fleet.coordinator_dir().join("coordinator.toml"));
    Finished::run(&mut command)
}

fn shown(fleet: &Fleet) -> String {
    ca(fleet, &["show"]).ok().stdout
}

/// `systemctl reload mirror-coordinator`, and waits until it is done.
fn reload(fleet: &Fleet) {
    let coordinator = fleet.coordinator.as_ref().expect("it runs");
    let done = |output: &str| output.matches("certificates are read anew").count();
    let before = done(&coordinator.output());
    coordinator.signal(Signal::HUP);
    eventually("the coordinator has reloaded", || (done(&coordinator.output()) > before).then_some(()));
}

fn said(fleet: &Fleet, index: usize) -> String {
    fleet.agents[index].as_ref().map(Process::output).unwrap_or_default()
}

/// A new certificate for the first admin, on the coordinator's host while it does not run.
fn new_context(fleet: &mut Fleet) {
    fleet.kill_coordinator();
    let fresh = fleet.path().join("fresh");
    let mut glass = fleet.command("mirror-coordinator", &["user-certificate", "--user", "admin"]);
    glass.arg("--config").arg(fleet.coordinator_dir().join("coordinator.toml")).arg("--out").arg(&fresh);
    Finished::run(&mut glass).ok();
    fs::remove_dir_all(fleet.admin_dir()).expect("the old context goes");
    fs::rename(fresh, fleet.admin_dir()).expect("the new one takes its place");
    fleet.start_coordinator().expect("the coordinator starts");
}

#[test]
fn the_ca_is_replaced_under_a_running_sync_and_an_agent_that_was_away_follows_by_itself() {
    let agents = vec!["edge1".to_owned(), "edge2".to_owned()];
    let options = FleetOptions { agents, files: 600, file_bytes: 16_384, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options).expect("a fleet starts");
    fleet.kill_agent(1);
    fleet.add_project("debian", &["--rsync-option=--bwlimit=500"]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    fleet.await_run("debian", "RUNNING");

    // The server's own certificate is made anew as well: that it is gone is the most that can be due.
    let server = fleet.coordinator_dir().join("server.pem");
    let before = fs::read(&server).expect("a certificate");
    fs::remove_file(&server).expect("it goes");
    let rotated = ca(&fleet, &["rotate"]).ok();
    assert!(
        rotated.stdout.contains("new CA sha256:") && rotated.stdout.contains("systemctl reload"),
        "{}",
        rotated.stdout
    );
    assert!(shown(&fleet).contains("has not taken that over yet"), "{}", shown(&fleet));
    assert_eq!(ca(&fleet, &["rotate"]).code, 5, "one at a time");
    reload(&fleet);
    assert_ne!(fs::read(&server).expect("a certificate"), before);

    // Nobody visits the agent: it hears of it, and moves over with its sync running.
    eventually("edge1 has moved", || {
        let shown = shown(&fleet);
        (!shown.contains("agents/edge1") && shown.contains("agents/edge2")).then_some(())
    });
    assert_eq!(fleet.runs("debian")[0]["state"], "RUNNING", "the sync goes on meanwhile");
    assert!(
        said(&fleet, 0).contains("the session goes on with the renewed certificate"),
        "{}",
        said(&fleet, 0)
    );
    assert!(
        !said(&fleet, 0).contains("took over") && !said(&fleet, 0).contains("connection lost"),
        "{}",
        said(&fleet, 0)
    );
    let run = fleet.await_run("debian", "SUCCEEDED");
    assert_eq!(run["attempt_count"], 1, "one try did it: {run}");
    assert_eq!(
        tree::hash(&fleet.root(0).join("debian")).expect("a tree"),
        tree::hash(&fleet.upstream_tree()).expect("a tree")
    );

    // Whoever is left keeps the old one alive, and is named with what helps.
    let refused = ca(&fleet, &["retire"]);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    for part in [
        "2 holders of certificates would be cut off",
        "agents/edge2",
        "users/admin",
        "mirrorctl cert issue, as admin",
    ] {
        assert!(refused.stderr.contains(part), "{part} is missing:\n{}", refused.stderr);
    }
    // The one that was away comes back knowing the old CA alone.
    fleet.start_agent(1).expect("the agent starts");
    eventually("edge2 has moved by itself", || (!shown(&fleet).contains("agents/edge2")).then_some(()));
    new_context(&mut fleet);
    fleet.mirrorctl(&["status"]).ok();
    assert!(shown(&fleet).contains("Nobody is left on the old CA."), "{}", shown(&fleet));
    let old_hash = fleet.ca_hash().to_owned();
    let retired = ca(&fleet, &["retire"]).ok();
    assert!(!retired.stdout.contains(&old_hash), "{}", retired.stdout);
    reload(&fleet);
    assert!(shown(&fleet).contains("No rotation is under way"), "{}", shown(&fleet));

    assert_on_the_new_ca_alone(&fleet, &old_hash);
}

/// The old hash is no way in any more, and the fleet works.
fn assert_on_the_new_ca_alone(fleet: &Fleet, old_hash: &str) {
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    for name in ["edge1", "edge2"] {
        fleet.await_connected(name);
    }
    for index in [0, 1] {
        eventually("the agent has let go of the old CA", || {
            let bundle = fs::read_to_string(fleet.agent_dir(index).join("ca.pem")).ok()?;
            (bundle.matches("BEGIN CERTIFICATE").count() == 1).then_some(())
        });
    }
    let token = fleet.json(&["join-token", "create", "--name", "edge3"]);
    assert_ne!(token["ca_hash"], old_hash);
    // The admin's own file may know the old CA still: a first login goes by what the coordinator says.
    let user = fleet.json(&["user", "create", "vera", "--role", "viewer", "--no-password"]);
    assert_eq!(user["ca_hash"], token["ca_hash"]);
}

fn copy(from: &Path, to: &Path) {
    let done = Finished::run(Command::new("cp").arg("-a").arg(from).arg(to));
    assert_eq!(done.code, 0, "{}", done.stderr);
}

#[test]
fn a_copied_host_is_kept_out_and_shown_and_doubles_nothing() {
    let fleet = Fleet::start(FleetOptions { files: 20, ..FleetOptions::default() }).expect("a fleet starts");
    fleet.add_project("debian", &[]).ok();
    let clone = fleet.path().join("clone");
    copy(&fleet.agent_dir(0), &clone);
    let mut command = fleet.agent_command(0, &["run", "--config"]);
    command.arg(clone.join("agent.toml"));
    let copied =
        Process::start("the copy", &mut command, &fleet.path().join("clone.log")).expect("it starts");
    eventually("the copy is told why", || {
        copied.output().contains("is connected already, by another program").then_some(())
    });
    let list = fleet.mirrorctl(&["agent", "list"]).ok();
    assert!(list.stdout.contains("edge1: two hosts have its certificate"), "{}", list.stdout);
    let show = fleet.mirrorctl(&["agent", "show", "edge1"]).ok();
    for part in ["CONNECTED since", "duplicate", "is refused"] {
        assert!(show.stdout.contains(part), "{part} is missing:\n{}", show.stdout);
    }
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    assert_eq!(fleet.runs("debian").len(), 1);
    assert!(
        !copied.output().contains("accepted") && !copied.output().contains(" connected coordinator="),
        "{}",
        copied.output()
    );
    assert!(!said(&fleet, 0).contains("took over"), "the original is left in peace: {}", said(&fleet, 0));
}
