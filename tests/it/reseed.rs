//! A disk was replaced: the origin's tree comes back from a replica, and the upstream is not asked.

use std::{
    fs, io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use fleet_tests::{Fleet, FleetOptions, eventually, tree};

const ORIGIN: usize = 0;
const EDGE1: usize = 1;
const EDGE2: usize = 2;
const EDGE3: usize = 3;
const AGENTS: [&str; 3] = ["ftp1", "edge1", "edge2"];

/// An origin and two replicas on one host, with the same tree on all.
fn fleet_with_trees() -> Fleet {
    let options = FleetOptions { agents: AGENTS.map(str::to_owned).to_vec(), ..FleetOptions::default() };
    synced(options, &[])
}

/// The same of these agents, of which the first three are of the project.
fn synced(options: FleetOptions, more: &[&str]) -> Fleet {
    let fleet = Fleet::start(options).expect("a fleet starts");
    let args = [&["--replicas", "edge1", "--replicas", "edge2"], more].concat();
    fleet.add_project("debian", &args).ok();
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

/// How many modules the agent's own daemon has.
fn modules(fleet: &Fleet, index: usize) -> usize {
    fs::read_dir(fleet.agent_dir(index).join("serve/modules")).map_or(0, Iterator::count)
}

/// Reads the whole tree again and again until `done`; how often, or what it saw when that was not `whole`.
fn read_until(done: &AtomicBool, dir: &Path, whole: &str) -> Result<usize, io::Result<String>> {
    let mut times = 0;
    while !done.load(Ordering::Relaxed) {
        match tree::hash(dir) {
            Ok(seen) if seen == whole => times += 1,
            other => return Err(other),
        }
    }
    Ok(times)
}

/// Ends a reader, also when its test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn readers_of_the_donor_see_no_change_and_nobody_is_served_the_copy_before_it_is_whole() {
    let agents = ["ftp1", "edge1", "edge2", "edge3"].map(str::to_owned).to_vec();
    // A copy of it takes some seconds.
    let options = FleetOptions { agents, files: 150, file_bytes: 16_384, ..FleetOptions::default() };
    let fleet = synced(options, &["--rsync-option=--bwlimit=500"]);
    let whole = hash(&fleet, EDGE1).expect("the donor has a tree");
    eventually("ftp1 serves the tree, and edge1 does not", || {
        (modules(&fleet, ORIGIN) == 1 && modules(&fleet, EDGE1) == 0).then_some(())
    });
    let place = fleet.root(ORIGIN).join("debian");
    fs::remove_dir_all(&place).expect("the tree is lost");
    fs::create_dir_all(place.join("pool/own")).expect("a new disk");
    let own = ["own", "pool/own/file"];
    for path in own {
        fs::write(place.join(path), "not of the mirror").expect("somebody put a file there");
    }

    let (done, donor) = (AtomicBool::new(false), fleet.root(EDGE1).join("debian"));
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(&done, &donor, &whole));
        let ending = Ending(&done);
        fleet.mirrorctl(&["project", "reseed", "debian", "--agent", "ftp1", "--from", "edge1"]).ok();
        // Whoever comes now has nothing but the origin to pull from.
        let replicas = ["edge1", "edge2", "edge3"].map(|agent| ["--replicas", agent]).concat();
        fleet.mirrorctl(&[&["project", "edit", "debian"], &replicas[..]].concat()).ok();
        eventually("the tree is being copied, ftp1 serves nobody, and edge3 waits for it", || {
            let why = fleet.mirrorctl(&["why", "debian"]).ok().stdout;
            let waits = why.contains("debian on edge3 waits: ftp1's tree is being copied from edge1");
            let withheld = modules(&fleet, ORIGIN) == 0;
            let copies = fleet.newest_run("debian")["attempts"][0]["state"] == "RUNNING";
            (waits && withheld && copies).then_some(())
        });
        eventually("ftp1 has the whole tree again", || {
            let began = fleet.root(EDGE3).join("debian").exists();
            let run = fleet.newest_run("debian");
            let closed = run["state"] == "SUCCEEDED";
            assert!(closed || !began, "edge3 pulled from half a tree: {run}");
            closed.then_some(())
        });
        drop(ending);
        let times = reader.join().expect("the reader ends");
        assert!(times.as_ref().is_ok_and(|times| *times > 0), "a reader of the donor saw {times:?}");
    });

    for path in own {
        let text = fs::read_to_string(place.join(path)).expect("nothing was deleted");
        assert_eq!(text, "not of the mirror");
    }
    let run = fleet.newest_run("debian");
    let deleted = run.pointer("/attempts/0/outcome/stats/deleted").and_then(serde_json::Value::as_u64);
    assert_eq!(deleted.unwrap_or(0), 0, "{run}");
    eventually("edge3 has what ftp1 serves", || {
        (hash(&fleet, EDGE3).is_some() && hash(&fleet, EDGE3) == hash(&fleet, ORIGIN)).then_some(())
    });
    for index in [EDGE1, EDGE2] {
        assert_eq!(hash(&fleet, index).as_ref(), Some(&whole), "it did not pull");
    }
}
