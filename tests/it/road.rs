//! The main road: enrol, declare, fire, run, report, show. And what must hold on it whatever happens.

use fleet_tests::{Fleet, FleetOptions, Process, eventually, tree};
use serde_json::Value;

fn fleet() -> Fleet {
    Fleet::start(FleetOptions::default()).expect("a fleet starts")
}

/// A15: an explicit run starts now, is followed to its end, and its end is kept.
#[test]
fn a_run_asked_for_copies_the_tree_and_its_exit_status_is_stored() {
    let mut fleet = fleet();
    fleet.add_project("debian", &[]).ok();
    let watched = fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    assert!(watched.stdout.contains("succeeded"), "{}", watched.stdout);
    let run = fleet.await_run("debian", "SUCCEEDED");
    let outcome = &run["origin_attempt"]["outcome"];
    assert_eq!(outcome["exit_code"], 0, "{run}");
    assert_eq!(outcome["class"], "OK", "{run}");
    assert_eq!(run["trigger"]["kind"], "USER");
    let upstream = tree::hash(&fleet.upstream_tree()).expect("a tree");
    assert_eq!(tree::hash(&fleet.root(0).join("debian")).expect("a tree"), upstream);

    // The exit status is in the store: a coordinator that was killed shows it again.
    fleet.kill_coordinator();
    fleet.start_coordinator().expect("it starts again");
    let again = fleet.await_run("debian", "SUCCEEDED");
    assert_eq!(again["name"], run["name"]);
    assert_eq!(again["origin_attempt"]["outcome"], *outcome);
}

/// A19: whoever watches sees how far a run is while it goes on: its phase, files, bytes, percent and rate.
#[test]
fn whoever_watches_sees_how_far_a_run_is() {
    let options = FleetOptions { files: 400, file_bytes: 16_384, ..FleetOptions::default() };
    let fleet = Fleet::start(options).expect("a fleet starts");
    fleet.add_project("debian", &["--rsync-option=--bwlimit=1500"]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    let watches = ["one", "two"].map(|name| {
        let mut command = fleet.command("mirrorctl", &["run", "watch", "debian", "-o", "json"]);
        Process::start(name, &mut command, &fleet.path().join(name)).expect("a watch starts")
    });
    for mut watch in watches {
        let ended = eventually("the watch ends with the run", || watch.exited());
        let output = watch.output();
        assert_eq!(ended.code(), Some(0), "{output}");
        let told = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let progress: Vec<Value> = told.map(|told| told["attempts"][0]["progress"].clone()).collect();
        let figures = |field: &str| -> Vec<u64> {
            progress.iter().filter_map(|one| one[field].as_u64()).filter(|figure| *figure > 0).collect()
        };
        let bytes = figures("bytes_done");
        assert!(bytes.is_sorted() && bytes.first() < bytes.last(), "{progress:?}");
        for field in ["files_done", "files_total", "percent", "rate_bytes"] {
            assert!(!figures(field).is_empty(), "{field}: {progress:?}");
        }
        assert!(figures("percent").iter().all(|percent| *percent <= 100));
        assert!(
            progress.iter().any(|one| one["phase"] == "TRANSFER" && one["eta"].is_number()),
            "{progress:?}"
        );
    }
}

#[test]
fn the_schedule_fires_by_itself() {
    let fleet = fleet();
    fleet.add_project("debian", &["--cron", "second=*/2"]).ok();
    let run = eventually("a run of the schedule succeeds", || {
        fleet.runs("debian").into_iter().find(|run| run["state"] == "SUCCEEDED")
    });
    assert_eq!(run["trigger"]["kind"], "SCHEDULE");
    assert_eq!(
        tree::hash(&fleet.root(0).join("debian")).expect("a tree"),
        tree::hash(&fleet.upstream_tree()).expect("a tree")
    );
}

#[test]
fn triggers_during_a_run_give_exactly_one_more() {
    let fleet = Fleet::start(FleetOptions { files: 400, file_bytes: 16_384, ..FleetOptions::default() });
    let fleet = fleet.expect("a fleet starts");
    fleet.add_project("debian", &["--rsync-option=--bwlimit=2000"]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    let first = fleet.await_run("debian", "RUNNING");
    for _ in 0..5 {
        fleet.mirrorctl(&["project", "run", "debian"]).ok();
    }
    let during = fleet.runs("debian");
    assert_eq!(during.len(), 2, "{during:?}");
    eventually("both runs end", || {
        fleet.runs("debian").iter().all(|run| run["state"] == "SUCCEEDED").then_some(())
    });
    let runs = fleet.runs("debian");
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert_eq!(runs[1]["name"], first["name"]);
    assert_eq!(runs[0]["coalesced_triggers"], 4, "{runs:?}");
}
