//! A host is gone, and another one takes its place: its projects go over as one, the tree comes from a replica, and
//! what is served stays.

use std::{fs, path::Path};

use fleet_tests::{Fleet, FleetOptions, eventually, tree};
use serde_json::Value;

const OLD: usize = 0;
const EDGE1: usize = 1;
const EDGE2: usize = 2;
const NEW: usize = 3;
const AGENTS: [&str; 4] = ["ftp1", "edge1", "edge2", "ftp2"];

/// `ftp1` is the origin, `edge1` and `edge2` are its replicas, all with the same tree; `ftp2` holds nothing.
fn fleet_with_trees() -> Fleet {
    let options = FleetOptions { agents: AGENTS.map(str::to_owned).to_vec(), ..FleetOptions::default() };
    let fleet = Fleet::start(options).expect("a fleet starts");
    fleet.add_project("debian", &["--replicas", "edge1", "--replicas", "edge2"]).ok();
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    fleet.await_run("debian", "SUCCEEDED");
    for index in [OLD, EDGE1, EDGE2] {
        has_upstreams_tree(&fleet, index);
    }
    fleet
}

fn has_upstreams_tree(fleet: &Fleet, index: usize) {
    eventually(&format!("{} has the upstream's tree", AGENTS[index]), || {
        (hash(fleet, index).is_some() && hash(fleet, index) == tree::hash(&fleet.upstream_tree()).ok())
            .then_some(())
    });
}

fn hash(fleet: &Fleet, index: usize) -> Option<String> {
    tree::hash(&fleet.root(index).join("debian")).ok()
}

/// The connections that the upstream's daemon has seen.
fn connections(fleet: &Fleet) -> usize {
    let log = fs::read_to_string(fleet.path().join("rsyncd/log")).expect("the upstream's daemon has a log");
    log.lines().filter(|line| line.contains("connect from")).count()
}

fn project(fleet: &Fleet) -> Value {
    fleet.json(&["project", "show", "debian"])
}

/// The agents of the project, each with its role, in order.
fn placed(fleet: &Fleet) -> Vec<(String, String)> {
    let project = project(fleet);
    let placements = project["status"]["placements"].as_array().expect("placements");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut placed: Vec<_> = placements.iter().map(|one| (text(&one["agent"]), text(&one["role"]))).collect();
    placed.sort();
    placed
}

fn files(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// The old host dies with its disk.
fn lose_the_old_host(fleet: &mut Fleet) {
    fleet.kill_agent(OLD);
    fs::remove_dir_all(fleet.root(OLD).join("debian")).expect("its disk is lost");
    eventually("ftp1 is away", || {
        (fleet.json(&["agent", "show", "ftp1"])["connected"] == false).then_some(())
    });
}

#[test]
fn an_origin_whose_disk_was_lost_is_replaced_and_the_upstream_is_not_asked() {
    let mut fleet = fleet_with_trees();
    lose_the_old_host(&mut fleet);
    let before = (connections(&fleet), hash(&fleet, EDGE1), project(&fleet));
    assert!(before.0 > 0, "the log tells of connections");

    let told = fleet.mirrorctl(&["agent", "replace", "ftp1", "ftp2", "--dry-run"]).ok();
    assert!(told.stdout.contains("ftp2 would take the place of ftp1 in 1 project"), "{}", told.stdout);
    assert!(told.stdout.contains("copied from edge1"), "{}", told.stdout);
    assert_eq!(project(&fleet), before.2, "a dry run changed something");

    let told = fleet.json(&["agent", "replace", "ftp1", "ftp2"]);
    let one = &told["placements"][0];
    assert_eq!((&one["refill"], &one["copied_from"]), (&"COPIED".into(), &"agents/edge1".into()), "{told}");
    has_upstreams_tree(&fleet, NEW);
    let run = fleet.await_run("debian", "SUCCEEDED");
    assert_eq!((&run["name"], &run["reseed_from"]), (&one["run"], &"agents/edge1".into()), "{run}");
    assert_eq!(connections(&fleet), before.0, "the upstream was asked for a second copy");
    for edge in [EDGE1, EDGE2] {
        assert_eq!(hash(&fleet, edge), before.1, "the tree of {} changed", AGENTS[edge]);
    }
    let roles = [("agents/edge1", "REPLICA"), ("agents/edge2", "REPLICA"), ("agents/ftp2", "ORIGIN")];
    assert_eq!(placed(&fleet), roles.map(|(agent, role)| (agent.to_owned(), role.to_owned())));
    assert_eq!(project(&fleet)["status"]["tree_version"], before.2["status"]["tree_version"]);
    let old = fleet.json(&["agent", "show", "ftp1"]);
    assert_eq!((&old["draining"], &old["revoked"]), (&true.into(), &false.into()), "{old}");
    let log = fs::read_to_string(fleet.path().join("coordinator.log")).expect("a log");
    assert!(log.lines().any(|line| line.contains("agent replaced") && line.contains("ftp2")), "{log}");

    // The old host is back, with an empty disk: it is given nothing, and nobody follows it.
    fleet.start_agent(OLD).expect("its agent starts");
    fleet.await_connected("ftp1");
    fs::write(fleet.upstream_tree().join("news"), "news").expect("a file comes");
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    for index in [NEW, EDGE1, EDGE2] {
        has_upstreams_tree(&fleet, index);
    }
    assert_eq!(files(&fleet.root(OLD).join("debian")), 0, "something was pulled to the old host");
}

#[test]
fn an_emptied_upstream_reaches_no_replica_through_a_new_origin() {
    let mut fleet = fleet_with_trees();
    lose_the_old_host(&mut fleet);
    let before = hash(&fleet, EDGE1);
    let args = ["agent", "replace", "ftp1", "ftp2", "--no-reseed", "--revoke", "--reason", "dead", "--yes"];
    let told = fleet.mirrorctl(&args).ok();
    assert!(told.stdout.contains("from the upstream, by its next run"), "{}", told.stdout);
    assert!(told.stdout.contains("ftp1 is revoked"), "{}", told.stdout);
    assert_eq!(fleet.json(&["agent", "show", "ftp1"])["revoked"], true);
    assert_eq!(files(&fleet.root(NEW).join("debian")), 0, "nothing is copied");

    // Of the upstream nothing is left: what the new origin pulls is no tree for those that have one.
    let whole = fleet.path().join("whole");
    fs::rename(fleet.upstream_tree(), &whole).expect("the upstream is emptied");
    fs::create_dir(fleet.upstream_tree()).expect("its directory is there");
    let done = fleet.mirrorctl(&["project", "run", "debian", "--watch"]);
    assert_ne!(done.code, 0, "{}{}", done.stdout, done.stderr);
    for edge in [EDGE1, EDGE2] {
        assert_eq!(hash(&fleet, edge), before, "the tree of {} changed", AGENTS[edge]);
    }

    // It is whole again, and all goes on from there.
    fs::remove_dir(fleet.upstream_tree()).expect("the empty one goes");
    fs::rename(whole, fleet.upstream_tree()).expect("the tree is back");
    fs::write(fleet.upstream_tree().join("news"), "news").expect("a file comes");
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    for index in [NEW, EDGE1, EDGE2] {
        has_upstreams_tree(&fleet, index);
    }
}

#[test]
fn a_replacement_that_cannot_be_is_refused_whole() {
    let mut fleet = fleet_with_trees();
    let before = project(&fleet);
    let told = fleet.mirrorctl(&["agent", "replace", "ftp7", "ftp8"]);
    assert_eq!(told.code, 2, "{}", told.stderr);
    for words in ["OLD  there is no agent \"ftp7\"", "NEW  there is no agent \"ftp8\""] {
        assert!(told.stderr.contains(words), "{}", told.stderr);
    }
    fleet.kill_agent(EDGE1);
    eventually("edge1 is away", || {
        (fleet.json(&["agent", "show", "edge1"])["connected"] == false).then_some(())
    });
    let told = fleet.mirrorctl(&["agent", "replace", "ftp1", "edge1"]);
    assert_ne!(told.code, 0, "{}", told.stdout);
    for words in [
        "agent \"ftp1\" not replaced: 2 things are in the way",
        "has no session",
        "is of the project already; make it the origin: mirrorctl project promote debian --to edge1",
    ] {
        assert!(told.stderr.contains(words), "{words}: {}", told.stderr);
    }
    assert_eq!(project(&fleet)["etag"], before["etag"]);
    let old = fleet.json(&["agent", "show", "ftp1"]);
    assert_eq!(old["draining"], false, "{old}");
}
