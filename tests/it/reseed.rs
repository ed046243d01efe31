//! A disk was replaced: the origin's tree comes back from a replica, and the upstream is not asked.

use std::fs;

use fleet_tests::{Fleet, FleetOptions, eventually, tree};

const ORIGIN: usize = 0;
const EDGE1: usize = 1;
const AGENTS: [&str; 3] = ["ftp1", "edge1", "edge2"];

/// An origin and two replicas on one host, with the same tree on all.
fn fleet_with_trees() -> Fleet {
    let options = FleetOptions { agents: AGENTS.map(str::to_owned).to_vec(), ..FleetOptions::default() };
    let fleet = Fleet::start(options).expect("a fleet starts");
    fleet.add_project("debian", &["--replicas", "edge1", "--replicas", "edge2"]).ok();
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    fleet.await_run("debian", "SUCCEEDED");
    for (index, agent) in AGENTS.iter().enumerate() {
        eventually(&format!("{agent} has the upstream's tree"), || {
            (hash(&fleet, index) == tree::hash(&fleet.upstream_tree()).ok()).then_some(())
        });
    }
    fleet
}

fn hash(fleet: &Fleet, index: usize) -> Option<String> {
    tree::hash(&fleet.root(index).join("debian")).ok()
}

/// The connections that the upstream's daemon has seen.
fn connections(fleet: &Fleet) -> usize {
    let log = fs::read_to_string(fleet.path().join("rsyncd/log")).expect("the upstream's daemon has a log");
    log.lines().filter(|line| line.contains("connect from")).count()
}

#[test]
fn a_lost_tree_comes_back_from_a_replica_and_not_from_the_upstream() {
    let fleet = fleet_with_trees();
    let whole = hash(&fleet, EDGE1);
    let before = (connections(&fleet), fleet.runs("debian").len());
    assert!(before.0 > 0, "the log tells of connections");
    let place = fleet.root(ORIGIN).join("debian");
    fs::remove_dir_all(&place).expect("the tree is lost");
    fs::create_dir(&place).expect("a new disk");
    fs::write(place.join("own"), "not of the mirror").expect("somebody put a file there");

    let args = ["project", "reseed", "debian", "--agent", "ftp1", "--from", "edge1", "--watch"];
    let told = fleet.mirrorctl(&args).ok();
    assert!(told.stdout.contains("ftp1 has the tree of edge1"), "{}{}", told.stdout, told.stderr);
    assert_eq!(fs::read_to_string(place.join("own")).expect("it is there"), "not of the mirror");
    fs::remove_file(place.join("own")).expect("it can go");
    assert_eq!(hash(&fleet, ORIGIN), whole);
    assert_eq!(connections(&fleet), before.0, "the upstream was asked");

    let run = fleet.newest_run("debian");
    assert_eq!(run["reseed_from"], "agents/edge1", "{run}");
    assert_eq!(run["attempts"].as_array().map(Vec::len), Some(1), "nothing propagates: {run}");
    assert_eq!(run["attempts"][0]["source_agent"], "agents/edge1", "{run}");
    assert_eq!(fleet.runs("debian").len(), before.1 + 1);

    // The origin serves it again, and an ordinary run goes on from there.
    fs::write(fleet.upstream_tree().join("news"), "news").expect("a file comes");
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    eventually("edge1 has the news", || fleet.root(EDGE1).join("debian/news").exists().then_some(()));
}

#[test]
fn what_has_no_tree_is_no_donor() {
    let fleet = fleet_with_trees();
    let args = ["project", "reseed", "debian", "--agent", "ftp1", "--from", "ftp1"];
    let told = fleet.mirrorctl(&args);
    assert_ne!(told.code, 0, "{}", told.stdout);
    assert!(told.stderr.contains("name another agent"), "{}", told.stderr);

    // The donor's own disk is empty as well, which only its host can tell.
    let donor = fleet.root(EDGE1).join("debian");
    fs::remove_dir_all(&donor).expect("the donor's tree is lost too");
    fs::create_dir(&donor).expect("its directory is there");
    let whole = hash(&fleet, ORIGIN);
    let args = ["project", "reseed", "debian", "--agent", "ftp1", "--from", "edge1", "--watch"];
    let told = fleet.mirrorctl(&args);
    assert_ne!(told.code, 0, "{}", told.stdout);
    assert!(told.stdout.contains("there is no tree to copy"), "{}{}", told.stdout, told.stderr);
    assert_eq!(hash(&fleet, ORIGIN), whole, "what was there stays");
}
