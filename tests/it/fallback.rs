//! Several upstreams of one project: the first one is pulled from, and when it is gone a person switches. Nothing else
//! does, and the guards judge what the other one has.

use std::fs;

use fleet_tests::{Fleet, FleetOptions, Rsyncd, address, tree};

/// A fleet, and another upstream with a tree of its own in `fallback`.
fn fleet() -> (Fleet, Rsyncd) {
    let fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    let dir = fleet.path().join("fallback");
    tree::fill(&dir, 300, 1_024, 7).expect("a tree");
    let fallback = Rsyncd::start(None, &fleet.path().join("rsyncd-fallback"), address::unique(), &dir)
        .expect("it starts");
    (fleet, fallback)
}

/// Where the project is pulled from, as people are told.
fn in_use(fleet: &Fleet) -> String {
    let shown = fleet.json(&["project", "show", "debian"]);
    shown["status"]["upstream"].as_str().expect("an upstream").to_owned()
}

#[test]
fn a_person_switches_when_the_first_upstream_is_gone() {
    let (mut fleet, fallback) = fleet();
    let (first, second) = (fleet.upstream.uri(), fallback.uri());
    fleet.add_project("debian", &["--fallback", &second, "--retry-attempts", "1"]).ok();
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    let served = tree::hash(&fleet.root(0).join("debian")).expect("a tree");
    assert_eq!(served, tree::hash(&fleet.upstream_tree()).expect("a tree"));

    fleet.upstream.kill();
    let failed = fleet.mirrorctl(&["project", "run", "debian", "--watch"]);
    assert_ne!(failed.code, 0, "{failed:?}");
    fleet.await_run("debian", "FAILED");
    assert_eq!(tree::hash(&fleet.root(0).join("debian")).expect("a tree"), served);
    assert_eq!(in_use(&fleet), first, "nothing switches by itself");

    let wrong = fleet.mirrorctl(&["project", "switch", "debian", "--to", "3"]);
    assert!(wrong.code != 0 && wrong.stderr.contains(&format!("2: {second}")), "{}", wrong.stderr);
    let switched = fleet.mirrorctl(&["project", "switch", "debian", "--to", "2"]).ok();
    assert!(switched.stdout.contains(&format!("pulls from {second}")), "{switched:?}");
    assert_eq!(in_use(&fleet), second);
    let shown = fleet.mirrorctl(&["project", "show", "debian"]).ok().stdout;
    assert!(shown.contains(&format!("{first} (1 of 2)")), "{shown}");
    assert!(shown.contains(&format!("{second} (2 of 2, in use)")), "{shown}");
    let checked = fleet.mirrorctl(&["project", "check", "debian"]).stdout;
    assert!(checked.contains(&format!("reaches {second}")), "{checked}");

    // The choice outlives the coordinator.
    fleet.kill_coordinator();
    fleet.start_coordinator().expect("it starts");
    fleet.await_connected("edge1");
    assert_eq!(in_use(&fleet), second);
    // The other one's tree lacks all that was here: more than may be deleted without a person's word.
    let deletes = ["project", "run", "debian", "--watch", "--allow-deletes", "1000"];
    fleet.mirrorctl(&deletes).ok();
    let other = tree::hash(&fleet.path().join("fallback")).expect("a tree");
    assert_eq!(tree::hash(&fleet.root(0).join("debian")).expect("a tree"), other);

    // Back by its URI, once it is there again.
    fleet.upstream.restart().expect("it starts again");
    fleet.mirrorctl(&["project", "switch", "debian", "--to", &first]).ok();
    fleet.mirrorctl(&deletes).ok();
    assert_eq!(tree::hash(&fleet.root(0).join("debian")).expect("a tree"), served);
}

#[test]
fn guards_judge_what_the_other_upstream_has() {
    let (fleet, fallback) = fleet();
    fs::create_dir_all(fleet.upstream_tree().join("dists")).expect("a directory");
    fs::write(fleet.upstream_tree().join("dists/Release"), "1").expect("a file");
    let second = fallback.uri();
    fleet.add_project("debian", &["--fallback", &second, "--sentinel", "dists/Release"]).ok();
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    let served = tree::hash(&fleet.root(0).join("debian")).expect("a tree");

    fleet.mirrorctl(&["project", "switch", "debian", "--to", "2"]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    fleet.await_run("debian", "HELD");
    assert_eq!(tree::hash(&fleet.root(0).join("debian")).expect("a tree"), served, "nothing was copied");

    // The hold closes by itself with the upstream that it was not about.
    fleet.mirrorctl(&["project", "switch", "debian", "--to", "1"]).ok();
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    assert_eq!(tree::hash(&fleet.root(0).join("debian")).expect("a tree"), served);
}
