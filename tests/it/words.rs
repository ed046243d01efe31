//! `mirrorctl` as people use it every day: one command on many projects and agents, answers in YAML for other tools, and the
//! fleet's names at the Tab key.

use std::process::Command;

use fleet_tests::{Finished, Fleet, FleetOptions, program};
use serde_json::{Value, json};

use crate::clients::tool;

/// A question that nobody could be asked.
const UNCONFIRMED: i32 = 7;
const NOT_FOUND: i32 = 3;

/// Three projects of two tiers on two agents.
fn fleet() -> Fleet {
    let agents = vec!["ftp1".to_owned(), "edge1".to_owned()];
    let fleet = Fleet::start(FleetOptions { agents, ..FleetOptions::default() }).expect("a fleet starts");
    for (name, tier) in [("alpine", "tier=2"), ("debian", "tier=1"), ("epel", "tier=1")] {
        fleet.add_project(name, &["-l", tier, "-l", "site=a b"]).ok();
    }
    fleet
}

fn paused(fleet: &Fleet) -> Vec<String> {
    let listed = fleet.mirrorctl(&["project", "list", "--paused", "-o", "name"]).ok().stdout;
    listed.lines().map(str::to_owned).collect()
}

/// Row A21: selectors, wherever several are meant; what is done to more than one asks, tells each outcome, and stops at none.
#[test]
fn a21_one_command_acts_on_all_that_a_selector_finds() {
    let fleet = fleet();
    let names = |args: &[&str]| fleet.mirrorctl(&[args, &["-o", "name"]].concat()).ok().stdout;
    assert_eq!(names(&["project", "list", "-l", "tier!=1"]), "alpine\n");
    assert_eq!(names(&["project", "list", "-l", "tier in (1,2),site=a b", "-l", "tier=1"]), "debian\nepel\n");
    assert_eq!(names(&["status", "-l", "tier=2"]), "alpine\n");
    let exported = fleet.json(&["export", "-l", "tier notin (2)"]);
    let exported: Vec<&Value> =
        exported["projects"].as_array().expect("projects").iter().map(|one| &one["name"]).collect();
    assert_eq!(exported, [&json!("debian"), &json!("epel")]);
    assert_eq!(
        fleet.mirrorctl(&["export", "-l", "tier=3"]).code,
        NOT_FOUND,
        "an empty manifest would prune all"
    );

    let asked = fleet.mirrorctl(&["project", "pause", "-l", "tier=1"]);
    assert!(
        asked.code == UNCONFIRMED && asked.stderr.contains("pauses 2 projects: debian, epel."),
        "{}",
        asked.stderr
    );
    assert!(paused(&fleet).is_empty());
    let done = fleet.mirrorctl(&["project", "pause", "-l", "tier=1", "--reason", "array swap", "--yes"]).ok();
    assert_eq!(done.stdout, "debian paused; what runs goes on.\nepel paused; what runs goes on.\n");
    assert_eq!(paused(&fleet), ["debian", "epel"]);
    assert_eq!(fleet.mirrorctl(&["project", "resume", "-l", "tier=9", "--yes"]).code, NOT_FOUND);
    fleet.mirrorctl(&["project", "resume", "epel", "debian", "--yes"]).ok();
    assert!(paused(&fleet).is_empty());

    let started = fleet.mirrorctl(&["project", "run", "-l", "site=a b", "--yes", "-o", "json"]).ok().json();
    let outcomes = started["outcomes"].as_array().expect("outcomes");
    assert!(
        outcomes.iter().map(|one| &one["name"]).eq(&[json!("alpine"), json!("debian"), json!("epel")]),
        "{started}"
    );
    assert!(outcomes.iter().all(|one| one["exit"] == 0 && one["answer"]["run"].is_object()), "{started}");
    for project in ["alpine", "debian", "epel"] {
        fleet.await_run(project, "SUCCEEDED");
    }
    let runs = fleet.mirrorctl(&["run", "list", "-l", "tier=1"]).ok().stdout;
    assert!(
        runs.starts_with("PROJECT  RUN ") && runs.contains("\ndebian ") && !runs.contains("alpine"),
        "{runs}"
    );

    let drained = fleet.mirrorctl(&["agent", "drain", "ftp1", "edge1", "--yes"]).ok().stdout;
    assert!(
        drained.contains("ftp1 takes no new attempts") && drained.contains("edge1 takes no new"),
        "{drained}"
    );
    assert_eq!(names(&["agent", "list", "--draining", "-r"]), "ftp1\nedge1\n");
    fleet.mirrorctl(&["agent", "set", "edge1", "--label", "site=north"]).ok();
    fleet.mirrorctl(&["agent", "undrain", "-l", "site in (north,south)"]).ok();
    assert_eq!(names(&["agent", "list", "--draining=false", "--connected"]), "edge1\n");
}

/// Row A21: `-o yaml` is what `-o json` is, to a reader of YAML that is not ours.
#[test]
fn a21_yaml_is_read_by_others_as_the_json_of_the_same_command() {
    const READER: &str =
        "import json, sys, yaml\nfor one in yaml.safe_load_all(open(sys.argv[1])): print(json.dumps(one))";
    let fleet = fleet();
    // Texts that YAML would take for something else, and one that would turn a terminal's writing.
    fleet.add_project("no", &["-l", "on=12:30", "-l", "off=1_000", "--display-name", "\u{202e}yes: no"]).ok();
    fleet.mirrorctl(&["project", "pause", "no", "--reason", "2026-11-20"]).ok();
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    for words in [
        &["project", "list"][..],
        &["project", "show", "no"],
        &["run", "list", "debian"],
        &["run", "show", "debian"],
        &["agent", "show", "ftp1"],
        &["why", "no"],
        &["upstream", "list"],
        &["user", "list"],
        &["join-token", "list"],
        &["export"],
        &["context", "show"],
        &["schedule", "next", "--every", "6h", "--now", "2026-11-20"],
    ] {
        // What is told of the present may differ between the two.
        let same = fleet_tests::eventually(&format!("{words:?} is the same twice"), || {
            let json = fleet.mirrorctl(&[words, &["-o", "json"]].concat()).ok().json();
            let yaml = fleet.mirrorctl(&[words, &["-o", "yaml"]].concat()).ok().stdout;
            assert!(!yaml.contains('\u{202e}'), "{yaml}");
            let file = fleet.path().join("answer.yaml");
            std::fs::write(&file, &yaml).expect("it is written");
            let mut reader = Command::new(tool("python"));
            reader.args(["-c", READER]).arg(&file);
            (Finished::run(&mut reader).ok().json() == json).then_some(json)
        });
        assert!(same.is_object(), "{same}");
    }
}

/// Row A21: completion with names from the fleet, in a shell as people have it.
#[test]
fn a21_a_shell_completes_the_fleets_names() {
    const ASK: &str = "source <(mirrorctl completion bash)\nCOMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9\n\
        _clap_complete_mirrorctl mirrorctl \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"\n\
        for one in \"${COMPREPLY[@]}\"; do printf '%s\\n' \"$one\"; done";
    let mut fleet = fleet();
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    let run = fleet.newest_run("debian")["name"].as_str().expect("a run").to_owned();
    let run = format!("debian/{}", &run["projects/debian/runs/".len()..][..13]);
    let completed = |fleet: &Fleet, words: &[&str]| -> Vec<String> {
        let own = fleet.command("mirrorctl", &[]);
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", ASK, "bash", "mirrorctl"]).args(words).env_clear();
        bash.envs(own.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let bin = program("mirrorctl").parent().map(std::path::Path::to_owned).expect("it is in a directory");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(bin).chain(std::env::split_paths(&path));
        bash.env("PATH", std::env::join_paths(path).expect("paths without colons"));
        let done = Finished::run(&mut bash).ok();
        assert_eq!(done.stderr, "");
        done.stdout.lines().map(str::to_owned).collect()
    };
    for (words, names) in [
        (&["project", "pause", "e"][..], "epel"),
        (&["project", "pause", "epel", "debian", "al"], "alpine"),
        (&["agent", "drain", "f"], "ftp1"),
        (&["project", "edit", "debian", "--standby", "ed"], "edge1"),
        (&["user", "show", "a"], "admin"),
        (&["run", "log", "debian/"], &run),
        (&["housekeeping", "run", "backu"], "backup"),
        (&["context", "use", ""], "default"),
    ] {
        assert_eq!(completed(&fleet, words), [names], "{words:?}");
    }
    fleet.kill_coordinator();
    assert!(completed(&fleet, &["project", "pause", "e"]).is_empty());
    assert_eq!(completed(&fleet, &["project", "unar"]), ["unarchive"]);
}
