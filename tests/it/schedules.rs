//! Schedules, end to end: what is missed is run once (A20), overlapping fires follow the policy, projects are spread and
//! keep their moment, and a preview tells who falls together (A6).

use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use fleet_tests::{Fleet, FleetOptions, eventually, eventually_within};
use serde_json::Value;

/// An instant as `--start` and `--end` take it.
fn typed(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn await_clock(time: DateTime<Utc>) {
    eventually("the time has come", || (Utc::now() > time).then_some(()));
}

/// Declares projects that run when asked only, and says when schedules for all of them may begin: as much later as the
/// commands that set them may take on this machine, by what these took.
fn declared(fleet: &Fleet, projects: &[(&str, &[&str])]) -> DateTime<Utc> {
    let began = Utc::now();
    for (name, flags) in projects {
        fleet.add_project(name, &[*flags, &["--manual"]].concat()).ok();
    }
    let took = Utc::now() - began;
    (Utc::now() + TimeDelta::seconds(3) + took * 4).trunc_subsecs(0)
}

fn state<'a>(project: &'a Value, field: &str) -> &'a Value {
    &project["status"][field]
}

/// Three fires while the coordinator was dead: one run, and after another kill still one (A20, decision 5).
#[test]
fn a_coordinator_that_was_killed_over_fires_runs_the_project_exactly_once() {
    let mut fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    let first = declared(&fleet, &[("debian", &[]), ("fedora", &[])]);
    let last = first + TimeDelta::seconds(4);
    let (start, end) = (typed(first), typed(last));
    for project in ["debian", "fedora"] {
        let cadence = ["--cron", "second=*", "--start", &start, "--end", &end];
        fleet.mirrorctl(&[&["project", "edit", project][..], &cadence].concat()).ok();
    }
    fleet.kill_coordinator();
    assert!(Utc::now() < first, "it was killed before the first fire");
    await_clock(last + TimeDelta::seconds(1));
    fleet.start_coordinator().expect("it starts");
    for project in ["debian", "fedora"] {
        fleet.await_run(project, "SUCCEEDED");
    }
    fleet.kill_coordinator();
    fleet.start_coordinator().expect("it starts");
    for project in ["debian", "fedora"] {
        let runs = fleet.runs(project);
        assert_eq!(runs.len(), 1, "{runs:?}");
        assert_eq!(
            (&runs[0]["trigger"]["kind"], &runs[0]["state"]),
            (&"SCHEDULE".into(), &"SUCCEEDED".into())
        );
        let shown = fleet.json(&["project", "show", project]);
        assert!(state(&shown, "next_fire_times").as_array().is_none_or(Vec::is_empty), "{shown}");
    }
}

/// Fires every second during a run of several seconds: with `buffer-one` one more run follows, with `skip` none.
#[test]
fn fires_during_a_run_become_one_more_run_or_none() {
    let fleet = Fleet::start(FleetOptions { files: 300, file_bytes: 16_384, ..FleetOptions::default() })
        .expect("a fleet starts");
    let slow = ["--rsync-option=--bwlimit=600"];
    let first = declared(&fleet, &[("buffer-one", &slow), ("skip", &slow)]);
    let (start, end) = (typed(first), typed(first + TimeDelta::seconds(3)));
    let schedule = ["--cron", "second=*", "--start", &start, "--end", &end];
    for policy in ["buffer-one", "skip"] {
        let edit = ["project", "edit", policy, "--overlap", policy];
        fleet.mirrorctl(&[&edit[..], &schedule].concat()).ok();
    }
    let ended = |project: &str| {
        eventually_within(Duration::from_secs(120), "all runs have ended", || {
            let runs = fleet.runs(project);
            let done = !runs.is_empty() && runs.iter().all(|run| run["state"] == "SUCCEEDED");
            (done && Utc::now() > first + TimeDelta::seconds(4)).then_some(runs.len())
        })
    };
    assert_eq!(ended("skip"), 1);
    assert_eq!(ended("buffer-one"), 2);
}

/// Daily projects have moments of their own, which no restart and no edit of something else moves (A6, decision 4).
#[test]
fn named_cadences_are_spread_and_every_project_keeps_its_moment() {
    let mut fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    let names = ["debian", "fedora", "arch", "gentoo"];
    for name in names {
        fleet.add_project(name, &["--every", "daily", "--time-zone", "Europe/Berlin"]).ok();
    }
    let next = |fleet: &Fleet, name: &str| {
        let shown = fleet.json(&["project", "show", name]);
        state(&shown, "next_fire_times")[0].as_str().expect("a fire").to_owned()
    };
    let fires: Vec<String> = names.iter().map(|name| next(&fleet, name)).collect();
    let mut distinct = fires.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), names.len(), "{fires:?}");

    fleet.kill_coordinator();
    fleet.start_coordinator().expect("it starts");
    fleet.mirrorctl(&["project", "edit", "debian", "--display-name", "Debian"]).ok();
    assert_eq!(next(&fleet, "debian"), fires[0]);
    let shown = fleet.mirrorctl(&["project", "show", "debian"]).ok().stdout;
    assert!(shown.contains("daily, Europe/Berlin, ") && shown.contains(" into its period"), "{shown}");
    let why = fleet.mirrorctl(&["why", "debian"]).ok().stdout;
    assert!(why.contains(" into its spread of 1d"), "{why}");

    // At the times themselves, and over twenty minutes of them.
    fleet.mirrorctl(&["project", "edit", "debian", "--spread", "none"]).ok();
    assert!(
        next(&fleet, "debian").ends_with("T23:00:00Z"),
        "midnight in Berlin, in winter: {}",
        next(&fleet, "debian")
    );
    let wide = ["project", "edit", "debian", "--cron", "minute=*/30", "--spread", "6h"];
    let said = fleet.mirrorctl(&wide).ok();
    assert!(said.stderr.contains("one period of the schedule at most"), "{said:?}");
}

/// Who pulls by the same agent or from the same host within five minutes (A6, decision 8).
#[test]
fn a_preview_tells_which_projects_fall_together() {
    let fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    for (name, hour) in [("debian", "3"), ("fedora", "3"), ("arch", "4")] {
        fleet
            .add_project(name, &["--cron", &format!("hour={hour} minute=10"), "--time-zone", "Asia/Tokyo"])
            .ok();
    }
    fleet.add_project("often", &["--cron", "minute=*/20"]).ok();
    fleet.add_project("paused", &["--cron", "minute=10", "--paused"]).ok();
    let seen = fleet.json(&["project", "preview", "debian", "-n", "2"]);
    assert_eq!(seen["fires"].as_array().map(Vec::len), Some(2), "{seen}");
    assert!(
        seen["fires"][0]["local_time"].as_str().is_some_and(|local| local.ends_with("T03:10:00+09:00")),
        "{seen}"
    );
    let collisions = seen["collisions"].as_array().expect("collisions");
    let names: Vec<&str> = collisions.iter().filter_map(|collision| collision["project"].as_str()).collect();
    assert_eq!(
        names,
        ["projects/fedora"],
        "ten minutes are not together, and who is paused fires not: {seen}"
    );
    let shared: Vec<&str> =
        collisions[0]["shared"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(shared[0] == "agents/edge1" && shared[1].starts_with("upstreams/"), "{shared:?}");
    assert_eq!(collisions[0]["fires"], 1);
    let text = fleet.mirrorctl(&["project", "preview", "debian"]).ok().stdout;
    assert!(text.contains("1 other project falls within 5m of it in the next 24h:\nPROJECT"), "{text}");
    let alone = fleet.mirrorctl(&["project", "preview", "arch"]).ok().stdout;
    assert!(!alone.contains("PROJECT"), "{alone}");
}
