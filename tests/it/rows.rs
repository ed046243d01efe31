//! The rows A1 to A22 of the mission (document 1): where each is proved through the real programs, and those that no other
//! file proves.

use std::{fs, time::Duration};

use chrono::{DateTime, Utc};
use fleet_tests::{Fleet, FleetOptions, eventually_within, tree};
use serde_json::Value;

use crate::tidy::root;

/// Room for a busy machine.
const SOON: Duration = Duration::from_secs(60);
const NOT_FOUND: i32 = 3;
const CONFLICT: i32 = 5;

/// Each row and a test that proves it, whose comment names the row.
const ROWS: [(&str, &str, &str); 30] = [
    ("A1", "tests/it/day_one.rs", "a1_the_ten_commands_of_day_one_in_one_sitting"),
    (
        "A1",
        "tests/it/agents.rs",
        "a1_a_declared_agent_is_waited_for_and_joins_by_the_token_of_its_name_from_its_network",
    ),
    ("A2", "tests/it/agents.rs", "a2_the_list_says_all_of_every_agent_the_ones_that_are_away_included"),
    ("A3", "tests/it/agents.rs", "a3_agents_are_drained_revoked_and_deleted"),
    ("A4", "tests/it/accounts.rs", "several_projects_pull_from_one_account_and_others_from_none"),
    ("A4", "tests/it/imports.rs", "the_old_apis_projects_run_here"),
    ("A5", "tests/it/accounts.rs", "options_in_three_parts_reach_rsync_as_they_were_given"),
    ("A5", "tests/it/accounts.rs", "no_defaults_can_be_said_on_creation_and_update_and_no_option_twice"),
    ("A6", "mirrorctl/tests/cli.rs", "schedule_next_agrees_with_the_vectors"),
    ("A6", "tests/it/schedules.rs", "named_cadences_are_spread_and_every_project_keeps_its_moment"),
    ("A7", "mirrorctl/tests/cli.rs", "parse_date"),
    ("A7", "tests/it/imports.rs", "the_old_apis_projects_run_here"),
    ("A8", "tests/it/project_life.rs", "an_archived_project_is_left_alone_and_lists_tell_it_apart"),
    ("A9", "tests/it/rows.rs", "a_pause_has_a_reason_and_an_end_and_is_taken_back"),
    ("A10", "tests/it/rows.rs", "a_deleted_project_leaves_its_tree"),
    ("A10", "tests/it/trash.rs", "a_deleted_projects_trees_go_to_the_trash_where_their_agents_allow_it"),
    ("A11", "tests/it/project_life.rs", "a_rename_during_a_run_loses_and_doubles_nothing"),
    ("A12", "tests/it/rows.rs", "an_edit_of_the_schedule_leaves_the_rest"),
    ("A13", "tests/it/people.rs", "each_does_what_the_role_may_and_is_refused_the_rest"),
    ("A13", "tests/it/people.rs", "a_disabled_user_loses_what_he_watches_within_a_second"),
    ("A14", "tests/it/people.rs", "a_wrong_hash_and_a_wrong_password_send_nothing_and_say_nothing"),
    ("A14", "tests/it/people.rs", "certificates_are_made_here_and_a_reset_ends_them"),
    ("A15", "tests/it/road.rs", "a_run_asked_for_copies_the_tree_and_its_exit_status_is_stored"),
    ("A16", "tests/it/replicas.rs", "one_copy_is_fetched_and_every_replica_has_it"),
    ("A17", "tests/it/replicas.rs", "an_absent_replica_is_missed_and_catches_up_by_itself"),
    ("A18", "tests/it/guards.rs", "a_module_that_is_gone_is_told_and_asked_for_at_the_next_fire_only"),
    ("A19", "tests/it/road.rs", "whoever_watches_sees_how_far_a_run_is"),
    (
        "A20",
        "tests/it/schedules.rs",
        "a_coordinator_that_was_killed_over_fires_runs_the_project_exactly_once",
    ),
    ("A21", "tests/it/apply.rs", "a_file_is_planned_applied_and_exported"),
    ("A22", "tests/it/people.rs", "each_does_what_the_role_may_and_is_refused_the_rest"),
];

/// The comment above a test; `None`: there is no such test.
fn comment_of(text: &str, test: &str) -> Option<String> {
    let above = text.split(&format!("fn {test}()")).next().filter(|above| above.len() < text.len())?;
    let lines =
        above.lines().rev().skip_while(|line| matches!(line.trim(), "" | "async")).take_while(|line| {
            let line = line.trim();
            line.starts_with("///") || line.starts_with("#[") || line == "async"
        });
    let lines: Vec<&str> = lines.collect();
    lines.iter().any(|line| line.contains("test]")).then(|| lines.concat())
}

/// Whether the text has the row's name as a word: A1 is not in A12.
fn names(text: &str, row: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == row)
}

#[test]
fn every_row_is_named_by_the_test_that_proves_it() {
    for (row, file, test) in ROWS {
        let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let comment = comment_of(&text, test).unwrap_or_else(|| panic!("{file} has no test {test}"));
        assert!(names(&comment, row), "the comment of {file} {test} does not name {row}");
    }
    for number in 1..=22 {
        let row = format!("A{number}");
        assert!(ROWS.iter().any(|(known, ..)| *known == row), "no test proves {row}");
    }
}

fn fleet() -> Fleet {
    Fleet::start(FleetOptions::default()).expect("a fleet starts")
}

/// All runs of the project, once there are so many and all of them have succeeded.
fn succeeded(fleet: &Fleet, project: &str, least: usize) -> usize {
    eventually_within(SOON, &format!("{project} has {least} runs that succeeded"), || {
        let runs = fleet.runs(project);
        let done = runs.iter().all(|run| run["state"] == "SUCCEEDED");
        (done && runs.len() >= least).then_some(runs.len())
    })
}

/// Waits until a schedule that fires every other second has fired five times since.
fn let_fires_pass(fleet: &Fleet, clock: &str) {
    fleet.add_project(clock, &["--cron", "second=*/2"]).ok();
    succeeded(fleet, clock, 5);
    fleet.mirrorctl(&["project", "delete", clock, "--cancel-running", "--yes"]).ok();
}

/// A9: a pause has a reason and an end; it stops the schedule, whose fires wait as one run, outlives the coordinator, and
/// ends by itself or by a word. `disable` and `enable` are its other names.
#[test]
fn a_pause_has_a_reason_and_an_end_and_is_taken_back() {
    let mut fleet = fleet();
    fleet.add_project("debian", &["--cron", "second=*/2"]).ok();
    succeeded(&fleet, "debian", 1);
    let paused = ["project", "pause", "debian", "--until", "2h", "--reason", "array swap"];
    let said = fleet.mirrorctl(&paused).ok().stdout;
    assert!(said.starts_with("debian paused until ") && said.contains("what runs goes on"), "{said}");
    let done = succeeded(&fleet, "debian", 1);
    fleet.kill_coordinator();
    fleet.start_coordinator().expect("it starts again");
    fleet.await_connected("edge1");
    let pause = fleet.json(&["project", "show", "debian"])["paused"].clone();
    assert_eq!(
        (pause["reason"].as_str(), pause["by"].as_str()),
        (Some("array swap"), Some("users/admin")),
        "{pause}"
    );
    let until: DateTime<Utc> = pause["until"].as_str().and_then(|text| text.parse().ok()).expect("an end");
    let left = until - Utc::now();
    assert!((100..=120).contains(&left.num_minutes()), "{until}");
    let_fires_pass(&fleet, "clock");
    let runs = fleet.runs("debian");
    assert_eq!(
        (runs.len(), &runs[0]["state"]),
        (done + 1, &"QUEUED".into()),
        "its fires wait as one run: {runs:?}"
    );
    let why = fleet.mirrorctl(&["why", "debian"]).ok().stdout;
    assert!(why.contains("array swap"), "{why}");
    let listed =
        |flags: &[&str]| fleet.mirrorctl(&[&["project", "list", "-o", "name"], flags].concat()).ok().stdout;
    assert_eq!(listed(&["--paused"]), "debian\n");

    fleet.mirrorctl(&["project", "resume", "debian"]).ok();
    let done = succeeded(&fleet, "debian", done + 1);
    // It ends by itself.
    fleet.mirrorctl(&["project", "pause", "debian", "--until", "3s"]).ok();
    eventually_within(SOON, "the pause has ended", || listed(&["--paused"]).is_empty().then_some(()));
    let done = succeeded(&fleet, "debian", done + 1);

    fleet.mirrorctl(&["project", "disable", "debian"]).ok();
    let pause = fleet.json(&["project", "show", "debian"])["paused"].clone();
    assert!(pause["by"] == "users/admin" && pause["until"].is_null(), "{pause}");
    fleet.mirrorctl(&["project", "enable", "debian"]).ok();
    succeeded(&fleet, "debian", done + 1);
    assert_eq!(fleet.mirrorctl(&["project", "pause", "fedora"]).code, NOT_FOUND);
}

/// A10: what is gone is the record and the schedule; the tree stays on the disk, what runs is cancelled only on request, and
/// a project that is not there is not found.
#[test]
fn a_deleted_project_leaves_its_tree() {
    let fleet = fleet();
    fleet.add_project("debian", &[]).ok();
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    let before = tree::files(&fleet.root(0).join("debian")).expect("a tree");
    fs::write(fleet.upstream_tree().join("big"), vec![7_u8; 4 << 20]).expect("the upstream can be written");
    fleet.mirrorctl(&["project", "edit", "debian", "--bandwidth", "500"]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    fleet.await_run("debian", "RUNNING");
    let running = fleet.mirrorctl(&["project", "delete", "debian", "--yes"]);
    assert_eq!(running.code, CONFLICT, "{}", running.stderr);
    assert!(running.stderr.contains("--cancel-running"), "{}", running.stderr);
    fleet.mirrorctl(&["project", "delete", "debian", "--cancel-running", "--yes"]).ok();
    for words in [&["project", "show", "debian"][..], &["project", "delete", "debian", "--yes"]] {
        let gone = fleet.mirrorctl(words);
        assert_eq!(gone.code, NOT_FOUND, "{}", gone.stderr);
    }
    let after = tree::files(&fleet.root(0).join("debian")).expect("a tree");
    assert!(before.iter().all(|(name, content)| after.get(name) == Some(content)), "the tree stays");
}

/// A12: an edit of the schedule takes the place of what was there, cadence and all that is named, and leaves everything
/// else, over a restart too.
#[test]
fn an_edit_of_the_schedule_leaves_the_rest() {
    let mut fleet = fleet();
    let flags = [
        "--crontab",
        "10 * * * *",
        "--jitter",
        "1m",
        "--window",
        "22:00-06:00",
        "-l",
        "tier=1",
        "--max-delete",
        "7",
        "--rsync-option=--exclude=/iso/",
        "--display-name",
        "Debian GNU",
        "--retry-attempts",
        "2",
    ];
    fleet.add_project("debian", &flags).ok();
    let show = |fleet: &Fleet| fleet.json(&["project", "show", "debian"]);
    let before = show(&fleet);
    let edit = ["project", "edit", "debian", "--cron", "hour=4 minute=5", "--jitter", "0s", "--window", ""];
    let refused = fleet.mirrorctl(&[&edit[..], &["--end", "tomorrow"]].concat());
    assert!(refused.code == 2 && refused.stderr.contains("--end"), "{}", refused.stderr);
    assert_eq!(show(&fleet)["etag"], before["etag"], "nothing was changed");

    let edit =
        ["project", "edit", "debian", "--cron", "hour=4 minute=5", "--window=", "--time-zone", "Asia/Tokyo"];
    fleet.mirrorctl(&edit).ok();
    fleet.kill_coordinator();
    fleet.start_coordinator().expect("it starts again");
    let after = show(&fleet);
    let schedule = &after["schedule"];
    assert_eq!(
        (&schedule["cron"]["hour"], &schedule["cron"]["minute"]),
        (&"4".into(), &"5".into()),
        "{schedule}"
    );
    assert!(
        schedule["windows"].as_array().is_none_or(Vec::is_empty) && schedule["crontab"].is_null(),
        "{schedule}"
    );
    let fires = after["status"]["next_fire_times"].as_array().expect("fires");
    let at_five_past_four = |fire: &Value| fire.as_str().is_some_and(|fire| fire.contains("T19:0"));
    assert!(fires.iter().all(at_five_past_four), "04:05 in Tokyo, and a minute of jitter: {fires:?}");
    let rest = |project: &Value| {
        let mut fields = project.as_object().expect("a project").clone();
        for field in ["schedule", "status", "etag", "update_time"] {
            fields.remove(field);
        }
        fields
    };
    assert_eq!(rest(&after), rest(&before));
}
