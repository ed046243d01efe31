//! Links that are cut while a sync runs heal without a double: the sync goes on, and is reported once.

use std::time::Duration;

use fleet_tests::{
    Fleet, FleetOptions, eventually, eventually_within,
    netns::{Cut, Netns},
    tree,
};

/// Keepalive finds a dead link within 20 s + 10 s; the rest is room for a busy machine.
pub(crate) const NOTICED: Duration = Duration::from_secs(90);

fn cut_and_heal(cut: Cut) {
    let hosts = match Netns::new() {
        Ok(hosts) => hosts,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let options = FleetOptions { files: 400, file_bytes: 16_384, ..FleetOptions::default() };
    let fleet = Fleet::start_on(hosts, options).expect("a fleet starts on two hosts");
    let hosts = fleet.hosts().expect("it has two hosts");
    fleet.add_project("debian", &["--rsync-option=--bwlimit=1500"]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    fleet.await_run("debian", "RUNNING");

    hosts.cut(cut).expect("the cable can be cut");
    eventually_within(NOTICED, "the coordinator notices", || {
        (fleet.json(&["agent", "show", "edge1"])["connected"] != true).then_some(())
    });
    let during = fleet.newest_run("debian");
    assert_eq!(during["state"], "RUNNING", "an agent that is away has lost nothing yet: {during}");

    hosts.heal().expect("the cable can be mended");
    let run = eventually_within(NOTICED, "the run is reported", || {
        let run = fleet.newest_run("debian");
        (run["state"] == "SUCCEEDED").then_some(run)
    });
    assert_eq!(run["attempt_count"], 1, "one try did it: {run}");
    assert_eq!(fleet.runs("debian").len(), 1);
    eventually("the trees are equal", || {
        let upstream = tree::hash(&fleet.upstream_tree()).ok()?;
        (tree::hash(&fleet.root(0).join("debian")).ok()? == upstream).then_some(())
    });
}

#[test]
fn a_link_cut_both_ways_heals_without_a_double() {
    cut_and_heal(Cut::Both);
}

#[test]
fn a_link_cut_one_way_heals_without_a_double() {
    cut_and_heal(Cut::ToAgent);
}
