//! From the origin to every replica, over hosts of their own: one upstream, one origin, three replicas.

use std::{fs, path::Path};

use fleet_tests::netns::Netns;
use fleet_tests::{Finished, Fleet, FleetOptions, eventually, eventually_within, tree};
use serde_json::Value;

use crate::partition::NOTICED;

const ORIGIN: usize = 0;
const FILES: usize = 300;
const FILE_BYTES: usize = 8_192;

/// `ftp1` and three edges, each on a host of its own; `None` where there can be no such hosts.
fn laboratory() -> Option<Fleet> {
    let agents = ["ftp1", "edge1", "edge2", "edge3"];
    let hosts = match Netns::laboratory(agents.len()) {
        Ok(hosts) => hosts,
        Err(why) => {
            println!("skipped: {why}");
            return None;
        }
    };
    let options = FleetOptions {
        agents: agents.map(str::to_owned).to_vec(),
        files: FILES,
        file_bytes: FILE_BYTES,
        ..FleetOptions::default()
    };
    Some(Fleet::start_on(hosts, options).expect("a fleet starts on five hosts"))
}

fn add(fleet: &Fleet, more: &[&str]) {
    let mut args = vec!["--replicas", "role=edge"];
    args.extend(more);
    fleet.add_project("debian", &args).ok();
}

fn await_same_tree(fleet: &Fleet, index: usize) {
    let wanted = tree::hash(&fleet.upstream_tree()).expect("the upstream's tree can be read");
    eventually(&format!("agent {index} has the upstream's tree"), || {
        (tree::hash(&fleet.root(index).join("debian")).ok()? == wanted).then_some(())
    });
}

fn attempts(fleet: &Fleet, role: &str) -> Vec<Value> {
    let shown = fleet.newest_run("debian");
    let attempts = shown["attempts"].as_array().cloned().unwrap_or_default();
    attempts.into_iter().filter(|attempt| attempt["role"] == role).collect()
}

/// A16: after the origin's run every replica copies from the origin, by itself, and the upstream is asked once.
#[test]
fn one_copy_is_fetched_and_every_replica_has_it() {
    let Some(fleet) = laboratory() else { return };
    add(&fleet, &[]);
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    let run = fleet.await_run("debian", "SUCCEEDED");
    assert_eq!(run["missed"].as_array().map_or(0, Vec::len), 0, "{run}");
    for index in 0..4 {
        await_same_tree(&fleet, index);
    }
    let origin = attempts(&fleet, "ORIGIN");
    let replicas = attempts(&fleet, "REPLICA");
    assert_eq!((origin.len(), replicas.len()), (1, 3), "{origin:?} {replicas:?}");
    let received = origin[0].pointer("/outcome/stats/received_bytes").and_then(Value::as_u64);
    let tree_bytes = (FILES * FILE_BYTES) as u64;
    let received = received.expect("the origin counted");
    assert!(received >= tree_bytes && received < tree_bytes * 11 / 10, "{received} of {tree_bytes}");
    for replica in &replicas {
        assert_eq!(replica["source_agent"], "agents/ftp1", "{replica}");
        assert_eq!(replica["state"], "SUCCEEDED", "{replica}");
    }
    let log = fs::read_to_string(fleet.path().join("rsyncd/log")).expect("the upstream's daemon has a log");
    let edge = fleet.hosts().expect("it has hosts").agent_address(1).to_string();
    assert!(!log.contains(&edge), "a replica spoke to the upstream");

    // What changes and goes reaches all of them too.
    fs::remove_dir_all(fleet.upstream_tree().join("pool/000")).expect("a directory goes");
    fs::write(fleet.upstream_tree().join("news"), "news").expect("a file comes");
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    for index in 0..4 {
        await_same_tree(&fleet, index);
    }
}

/// A17: what each replica really did is recorded; one that was away is missed, and catches up.
#[test]
fn an_absent_replica_is_missed_and_catches_up_by_itself() {
    let Some(mut fleet) = laboratory() else { return };
    add(&fleet, &[]);
    fleet.kill_agent(2);
    eventually_within(NOTICED, "edge2 is away", || {
        (fleet.json(&["agent", "show", "edge2"])["connected"] != true).then_some(())
    });
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    let run = fleet.await_run("debian", "SUCCEEDED");
    assert_eq!(run["missed"], serde_json::json!(["agents/edge2"]), "{run}");
    for index in [ORIGIN, 1, 3] {
        await_same_tree(&fleet, index);
    }
    fleet.start_agent(2).expect("edge2 starts");
    await_same_tree(&fleet, 2);
    eventually("the run says that it caught up", || {
        let run = fleet.newest_run("debian");
        let caught = run["caught_up"].as_array()?.iter().any(|one| one["agent"] == "agents/edge2");
        (caught && run["missed"].as_array().is_none_or(Vec::is_empty)).then_some(())
    });
    assert_eq!(fleet.runs("debian").len(), 1, "catching up is no run of its own");
}

#[test]
fn a_replica_cut_off_while_it_pulls_goes_on_and_is_recorded_once() {
    let Some(fleet) = laboratory() else { return };
    add(&fleet, &["--rsync-option=--bwlimit=600"]);
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    eventually("edge1 pulls", || {
        let pulls = attempts(&fleet, "REPLICA");
        pulls.iter().any(|one| one["agent"] == "agents/edge1" && one["state"] == "RUNNING").then_some(())
    });
    let hosts = fleet.hosts().expect("it has hosts");
    hosts.isolate(1).expect("the cable can be cut");
    eventually_within(NOTICED, "edge1 is away", || {
        (fleet.json(&["agent", "show", "edge1"])["connected"] != true).then_some(())
    });
    hosts.heal().expect("the cable can be mended");
    eventually_within(NOTICED * 2, "edge1 has the tree", || {
        let wanted = tree::hash(&fleet.upstream_tree()).ok()?;
        (tree::hash(&fleet.root(1).join("debian")).ok()? == wanted).then_some(())
    });
    eventually_within(NOTICED, "all is recorded", || {
        let of_edge1: Vec<Value> =
            attempts(&fleet, "REPLICA").into_iter().filter(|one| one["agent"] == "agents/edge1").collect();
        let good = of_edge1.iter().filter(|one| one["state"] == "SUCCEEDED").count();
        let going = of_edge1.iter().any(|one| one["outcome"].is_null());
        (good == 1 && !going).then_some(())
    });
}

#[test]
fn an_origin_killed_in_the_middle_goes_on_and_propagates() {
    let Some(mut fleet) = laboratory() else { return };
    add(&fleet, &["--rsync-option=--bwlimit=1500"]);
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    fleet.await_run("debian", "RUNNING");
    eventually("rsync has begun", || {
        (tree::count(&fleet.root(ORIGIN).join("debian")) > 0 || fleet.upstream.children().len() > 1)
            .then_some(())
    });
    fleet.kill_agent(ORIGIN);
    fleet.start_agent(ORIGIN).expect("ftp1 starts again");
    fleet.await_run("debian", "SUCCEEDED");
    for index in 0..4 {
        await_same_tree(&fleet, index);
    }
    assert_eq!(attempts(&fleet, "ORIGIN").len(), 1, "its sync went on without it");
}

#[test]
fn an_agent_that_joins_later_is_filled_and_a_stranger_gets_nothing() {
    let agents = ["ftp1", "edge1", "late"];
    let options = FleetOptions { agents: agents.map(str::to_owned).to_vec(), ..FleetOptions::default() };
    let mut fleet = Fleet::prepare(options).expect("a fleet is prepared");
    fleet.start_coordinator().expect("the coordinator starts");
    for (index, name) in agents.iter().enumerate().take(2) {
        fleet.enroll(index).expect("it enrols");
        fleet.start_agent(index).expect("it starts");
        fleet.await_connected(name);
    }
    add(&fleet, &[]);
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    await_same_tree(&fleet, 1);

    fleet.enroll(2).expect("late enrols");
    fleet.start_agent(2).expect("late starts");
    await_same_tree(&fleet, 2);

    let serving = fleet.path().join("agent-ftp1.log");
    let port = served_port(&serving).expect("the origin's log names where it serves");
    let uid = served_module(&fleet.agent_dir(ORIGIN)).expect("the origin serves one module");
    for target in
        [format!("rsync://{}:{port}/", fleet.address()), format!("rsync://{}:{port}/{uid}/", fleet.address())]
    {
        let mut rsync = std::process::Command::new("rsync");
        let stolen = fleet.path().join("stolen");
        let got = Finished::run(rsync.args(["-a", "--password-file=/dev/null", &target]).arg(&stolen));
        let files = tree::count(&stolen);
        assert_eq!(files, 0, "a stranger got {files} files: {}{}", got.stdout, got.stderr);
        assert!(!got.stdout.contains(&uid), "a stranger learns what there is: {}", got.stdout);
    }
}

/// The port at which an agent serves replicas, by its own log.
fn served_port(log: &Path) -> Option<u16> {
    let text = fs::read_to_string(log).ok()?;
    let (_, serving) = text.rsplit_once("serving replicas address=")?;
    let (_, port) = serving.lines().next()?.rsplit_once(':')?;
    port.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

/// The one module that an agent serves.
fn served_module(agent: &Path) -> Option<String> {
    let mut found = Vec::new();
    for entry in walk(&agent.join("serve")) {
        let name = entry.file_name()?.to_str()?.to_owned();
        found
            .extend(name.strip_suffix(".conf").filter(|stem| stem.parse::<u64>().is_ok()).map(str::to_owned));
    }
    found.pop()
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { vec![entry.path()] })
        .collect()
}
