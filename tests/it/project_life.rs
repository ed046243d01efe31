//! A project's life through the real programs: renamed while it runs and while its replica waits, archived, run after
//! another project, found in lists. Rows A8 and A11 of the mission, and "project after project".

use std::{fs, time::Duration};

use fleet_tests::{Fleet, FleetOptions, eventually_within, process, tree};
use serde_json::Value;

/// Room for a busy machine.
const SOON: Duration = Duration::from_secs(60);
const CONFLICT: i32 = 5;
const NOT_FOUND: i32 = 3;

fn with_replica() -> Fleet {
    let agents = vec!["edge1".to_owned(), "edge2".to_owned()];
    Fleet::start(FleetOptions { agents, ..FleetOptions::default() }).expect("a fleet starts")
}

/// All runs of the project, once the newest is in this state.
fn newest_is(fleet: &Fleet, project: &str, state: &str, least: usize) -> Vec<Value> {
    eventually_within(SOON, &format!("{project} has {least} runs, the newest {state}"), || {
        let runs = fleet.runs(project);
        (runs.len() >= least && runs[0]["state"] == state).then_some(runs)
    })
}

fn same_trees(fleet: &Fleet, agent: usize, path: &str) {
    eventually_within(SOON, &format!("{path} on agent {agent} is as the upstream"), || {
        let copy = tree::hash(&fleet.root(agent).join(path)).ok()?;
        (copy == tree::hash(&fleet.upstream_tree()).ok()?).then_some(())
    });
}

fn names(fleet: &Fleet, args: &[&str]) -> Vec<String> {
    let words = [&["project", "list", "-o", "name"], args].concat();
    let listed = fleet.mirrorctl(&words).ok().stdout;
    listed.lines().map(|line| line.trim_start_matches("projects/").to_owned()).collect()
}

/// A11: a new name takes schedule, history and trees along; a run that is on an agent and the replica that is to copy its
/// tree go on, over a kill of the coordinator, and nothing runs twice.
#[test]
fn a_rename_during_a_run_loses_and_doubles_nothing() {
    let mut fleet = with_replica();
    fleet.add_project("debian", &["--replicas", "edge2", "--crontab", "0 0 1 1 *", "-l", "tier=1"]).ok();
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    let before = newest_is(&fleet, "debian", "SUCCEEDED", 1);
    // Some seconds at that rate.
    fs::write(fleet.upstream_tree().join("big"), vec![7_u8; 3 << 20]).expect("the upstream can be written");
    fleet.mirrorctl(&["project", "edit", "debian", "--bandwidth", "500"]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    newest_is(&fleet, "debian", "RUNNING", 2);
    fleet.mirrorctl(&["project", "rename", "debian", "Debian-main"]).ok();
    fleet.kill_coordinator();
    fleet.start_coordinator().expect("it starts again");
    fleet.await_connected("edge1");
    fleet.await_connected("edge2");
    let runs = newest_is(&fleet, "Debian-main", "SUCCEEDED", 2);
    assert_eq!(runs.len(), 2, "{runs:#?}");
    assert!(
        runs.iter()
            .all(|run| run["name"].as_str().is_some_and(|name| name.starts_with("projects/Debian-main/")))
    );
    assert_eq!(runs[0]["attempt_count"], 2, "one pull of the origin, one of the replica: {:#}", runs[0]);
    let id = |run: &Value| run["name"].as_str().and_then(|name| name.rsplit('/').next().map(str::to_owned));
    assert_eq!(id(&runs[1]), id(&before[0]), "the run of before is there");
    same_trees(&fleet, 0, "debian");
    same_trees(&fleet, 1, "debian");
    let project = fleet.json(&["project", "show", "debian-MAIN"]);
    assert_eq!(
        (project["labels"]["tier"].as_str(), project["destination"].as_str()),
        (Some("1"), Some("a1:debian"))
    );
    assert_eq!(project["schedule"]["cron"]["month"], "1", "{project:#}");
    assert_eq!(fleet.mirrorctl(&["project", "show", "debian"]).code, NOT_FOUND);
    let log =
        fleet.mirrorctl(&["run", "log", &format!("Debian-main/{}", id(&before[0]).expect("an id"))]).ok();
    assert!(!log.stdout.is_empty(), "the old run's log is found below the new name");
    let taken = fleet.mirrorctl(&["project", "rename", "Debian-main", "debian-main"]);
    assert_eq!(taken.code, 0, "another case of its own name: {}", taken.stderr);
    // And the next run of both goes as ever.
    fs::write(fleet.upstream_tree().join("next"), "next").expect("the upstream can be written");
    fleet.mirrorctl(&["project", "run", "debian-main", "--watch"]).ok();
    same_trees(&fleet, 1, "debian");
}

/// Project after project: the second one runs after the first one's success, once more for however many there were while
/// it was going, over a kill of the coordinator; and a circle and a deletion are refused.
#[test]
fn a_project_runs_after_another_ones_success() {
    let mut fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    fleet.add_project("base", &[]).ok();
    fleet.add_project("security", &["--after", "base", "--bandwidth", "500"]).ok();
    let why = fleet.mirrorctl(&["why", "security"]).ok().stdout;
    assert!(why.contains("it runs after base"), "{why}");
    fs::write(fleet.upstream_tree().join("big"), vec![7_u8; 2 << 20]).expect("the upstream can be written");
    fleet.mirrorctl(&["project", "run", "base", "--watch"]).ok();
    let runs = newest_is(&fleet, "security", "RUNNING", 1);
    assert_eq!(
        (runs[0]["trigger"]["kind"].as_str(), runs[0]["trigger"]["by"].as_str()),
        (Some("PROJECT"), Some("projects/base"))
    );
    // Two more versions while it runs are one more run.
    for _ in 0..2 {
        fleet.mirrorctl(&["project", "run", "base", "--watch"]).ok();
    }
    fleet.kill_coordinator();
    fleet.start_coordinator().expect("it starts again");
    let runs = newest_is(&fleet, "security", "SUCCEEDED", 2);
    assert_eq!(runs.len(), 2, "{runs:#?}");
    same_trees(&fleet, 0, "security");
    let listed = fleet.mirrorctl(&["run", "list", "security"]).ok().stdout;
    assert!(listed.contains("after base"), "{listed}");
    let circle = fleet.mirrorctl(&["project", "edit", "base", "--after", "security"]);
    assert!(circle.code == 2 && circle.stderr.contains("--after"), "{}", circle.stderr);
    assert!(circle.stderr.contains("a circle, base after security after base"), "{}", circle.stderr);
    let followed = fleet.mirrorctl(&["project", "delete", "base", "--yes"]);
    assert!(
        followed.code == CONFLICT && followed.stderr.contains("security would never run again"),
        "{}",
        followed.stderr
    );
    fleet.mirrorctl(&["project", "edit", "security", "--after", ""]).ok();
    fleet.mirrorctl(&["project", "delete", "base", "--yes"]).ok();
}

/// Where the first argument that begins so comes from, as it is told.
fn from<'a>(line: &'a Value, text: &str) -> (&'a str, &'a str) {
    let all = line["arguments"].as_array().expect("a list");
    let one = all.iter().find(|one| one["text"].as_str().is_some_and(|word| word.starts_with(text)));
    let one = one.unwrap_or_else(|| panic!("no {text} in {line:#}"));
    (one["origin"].as_str().unwrap_or_default(), one["source"].as_str().unwrap_or_default())
}

/// Explained: the arguments are those of the run, word for word, with where they come from.
#[test]
fn what_is_explained_is_what_runs() {
    let fleet = with_replica();
    let more = [
        "--replicas",
        "edge2",
        "--max-delete",
        "4000",
        "--io-timeout",
        "5m",
        "--rsync-option=--exclude=/iso/",
    ];
    fleet.add_project("debian", &more).ok();
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    let told = fleet.json(&["project", "explain", "debian"]);
    let lines = told["command_lines"].as_array().expect("a list");
    assert_eq!(lines.len(), 2, "{told:#}");
    let origin = &lines[0];
    assert_eq!(from(origin, "--recursive"), ("DEFAULT", ""));
    assert_eq!(from(origin, "--filter=- /iso/"), ("PROJECT", "rsync.options"));
    assert_eq!(from(origin, "--max-delete=4000"), ("PROJECT", "guard.max_delete"));
    assert_eq!(from(origin, "--timeout=300"), ("PROJECT", "rsync.io_timeout"));
    assert_eq!(from(origin, "--contimeout="), ("DEFAULT", ""));
    assert_eq!(from(origin, "--safe-links"), ("ALWAYS", ""));
    assert_eq!(from(origin, "rsync://"), ("PROJECT", "upstreams[0]"));
    assert_eq!(from(&lines[1], "rsync://"), ("FLEET", "agents/edge1"));
    assert_eq!(from(&lines[1], "--password-file=-"), ("SECRET", ""));
    // The run's own command line, as its agent has it on disk while it runs.
    fs::write(fleet.upstream_tree().join("big"), vec![7_u8; 3 << 20]).expect("the upstream can be written");
    fleet.mirrorctl(&["project", "edit", "debian", "--bandwidth", "500"]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    let told = fleet.json(&["project", "explain", "debian"]);
    assert_eq!(from(&told["command_lines"][0], "--bwlimit=500"), ("PROJECT", "rsync.bandwidth_limit_kib"));
    let all = told["command_lines"][0]["arguments"].as_array().expect("a list");
    let words: Vec<&str> = all.iter().filter_map(|one| one["text"].as_str()).collect();
    let own = fleet.path().display().to_string();
    eventually_within(SOON, "the pull runs with these words", || {
        process::living_with(&own).into_iter().find_map(|pid| {
            let text = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let argv: Vec<String> = text
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            (argv.get(1..argv.len() - 1)? == words).then_some(())
        })
    });
    let shown = fleet.mirrorctl(&["project", "explain", "debian"]).ok().stdout;
    assert!(shown.contains("fleet: edge1 serves it") && shown.contains("where it comes from"), "{shown}");
    caps_and_parts_are_told_apart(&fleet);
}

/// Of whom a limit is, and in which part of the options a word stands.
fn caps_and_parts_are_told_apart(fleet: &Fleet) {
    // A cap that people set for the agent, where it is the stricter one.
    fleet.mirrorctl(&["agent", "set", "edge1", "--bandwidth", "400"]).ok();
    let told = fleet.json(&["project", "explain", "debian"]);
    let cap = ("FLEET", "agents/edge1 bandwidth_limit_kib");
    assert_eq!(from(&told["command_lines"][0], "--bwlimit=400"), cap);
    let shown = fleet.mirrorctl(&["project", "explain", "debian"]).ok().stdout;
    assert!(shown.contains("fleet: cap of edge1"), "{shown}");
    // Each of the three parts of the options, and what nobody said.
    let parts = ["--rsync-default=-aH", "--rsync-option=--exclude=/iso/", "--rsync-delete=after"];
    fleet.add_project("gnu", &parts).ok();
    fleet.add_project("cpan", &parts[..2]).ok();
    let told = fleet.json(&["project", "explain", "gnu"]);
    let gnu = &told["command_lines"][0];
    assert_eq!(from(gnu, "--recursive"), ("PROJECT", "rsync.defaults"));
    assert_eq!(from(gnu, "--hard-links"), ("PROJECT", "rsync.defaults"));
    assert_eq!(from(gnu, "--filter=- /iso/"), ("PROJECT", "rsync.options"));
    assert_eq!(from(gnu, "--delete-after"), ("PROJECT", "rsync.delete"));
    let told = fleet.json(&["project", "explain", "cpan"]);
    assert_eq!(from(&told["command_lines"][0], "--delete-delay"), ("DEFAULT", ""));
}

/// Archived: no fire, no alarm, still served; a person's run is run. A8: the list, filtered and turned round.
#[test]
fn an_archived_project_is_left_alone_and_lists_tell_it_apart() {
    let fleet = with_replica();
    fleet.add_project("vault", &["--cron", "second=*/2", "-l", "tier=1"]).ok();
    fleet.add_project("Debian", &["-l", "tier=1", "-l", "site=north wing"]).ok();
    fleet.add_project("gnu", &["--after", "debian"]).ok();
    newest_is(&fleet, "vault", "SUCCEEDED", 1);
    fleet.mirrorctl(&["project", "archive", "vault", "--reason", "upstream is gone"]).ok();
    let settled = eventually_within(SOON, "what ran has ended", || {
        let runs = fleet.runs("vault");
        runs.iter().all(|run| run["end_time"].is_string()).then_some(runs)
    });
    // Five fires later there is no other run: a schedule that fires at the same times tells when they have passed.
    fleet.add_project("clock", &["--cron", "second=*/2"]).ok();
    newest_is(&fleet, "clock", "SUCCEEDED", 5);
    assert_eq!(fleet.runs("vault").len(), settled.len());
    let status = fleet.json(&["status"]);
    assert_eq!(status["summary"]["archived"], 1, "{status:#}");
    let told = fleet.mirrorctl(&["why", "vault"]).ok().stdout;
    assert!(
        told.contains("\"upstream is gone\"") && told.contains("mirrorctl project unarchive vault"),
        "{told}"
    );
    // A replica that comes later gets it all the same.
    fleet.mirrorctl(&["project", "edit", "vault", "--replicas", "edge2"]).ok();
    same_trees(&fleet, 1, "vault");
    fleet.mirrorctl(&["project", "run", "vault", "--watch"]).ok();
    assert_eq!(fleet.runs("vault").len(), settled.len() + 1);

    assert_eq!(names(&fleet, &[]), ["clock", "Debian", "gnu", "vault"]);
    assert_eq!(names(&fleet, &["--reverse"]), ["vault", "gnu", "Debian", "clock"]);
    assert_eq!(names(&fleet, &["-l", "tier=1"]), ["Debian", "vault"]);
    assert_eq!(names(&fleet, &["-l", "tier=1", "-l", "site=north wing"]), ["Debian"]);
    assert_eq!(names(&fleet, &["-l", "tier=1", "--archived"]), ["vault"]);
    assert_eq!(names(&fleet, &["--after", "debian"]), ["gnu"]);
    assert_eq!(names(&fleet, &["--agent", "edge2"]), ["vault"]);
    assert_eq!(names(&fleet, &["--owner", ""]).len(), 4);
    fleet.mirrorctl(&["project", "unarchive", "vault"]).ok();
    newest_is(&fleet, "vault", "SUCCEEDED", settled.len() + 2);
}
