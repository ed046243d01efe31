//! With no coordinator for long, an agent runs its last known schedule by itself; what it ran is shown afterwards as
//! runs of the schedule, one for each fire.

use std::{collections::BTreeSet, fs, time::Duration};

use fleet_tests::{Fleet, FleetOptions, eventually, eventually_within, tree};
use serde_json::Value;

/// A fire each so many seconds.
const EVERY_4_S: &str = "second=*/4";
/// Room for a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A fleet whose agent does without its coordinator after a second.
fn impatient(options: FleetOptions) -> Fleet {
    let environment = vec![("MIRROR_AGENT_AUTONOMY_AFTER_SECONDS".to_owned(), "1".to_owned())];
    Fleet::start(FleetOptions { environment, ..options }).expect("a fleet starts")
}

/// Declares a project and waits until its agent has run it once and has its standing order on disk, as its newest
/// state.
fn with_standing_order(fleet: &Fleet, more: &[&str]) {
    let options = [&["--cron", EVERY_4_S], more].concat();
    fleet.add_project("debian", &options).ok();
    eventually("a fire is run", || fleet.runs("debian").iter().any(succeeded).then_some(()));
    let orders = fleet.agent_dir(0).join("standing-orders");
    eventually("the standing order is on disk", || {
        let text = String::from_utf8_lossy(&fs::read(&orders).ok()?).into_owned();
        text.contains("debian").then_some(())
    });
}

fn succeeded(run: &Value) -> bool {
    run["state"] == "SUCCEEDED"
}

fn is_autonomous(run: &&Value) -> bool {
    run["trigger"]["autonomous"] == true
}

/// Puts a file into the upstream's tree and waits until the agent has it.
fn arrives(fleet: &Fleet, name: &str) {
    fs::write(fleet.upstream_tree().join(name), name).expect("the upstream can be written");
    let copy = fleet.root(0).join("debian").join(name);
    eventually_within(SOON, &format!("{name} arrives without a coordinator"), || copy.exists().then_some(()));
}

/// All runs, once at least so many are shown as run by the agent alone and all of those are good.
fn taken_over(fleet: &Fleet, least: usize) -> Vec<Value> {
    eventually_within(SOON, "what the agent ran alone is shown", || {
        let runs = fleet.runs("debian");
        let alone: Vec<&Value> = runs.iter().filter(is_autonomous).collect();
        (alone.len() >= least && alone.iter().all(|run| succeeded(run))).then(|| runs.clone())
    })
}

fn assert_each_fire_once(runs: &[Value]) {
    let ran = runs.iter().filter(|run| run["state"] != "CANCELLED");
    let mut times = BTreeSet::new();
    for run in ran {
        assert_eq!(run["trigger"]["kind"], "SCHEDULE", "{run}");
        assert!(times.insert(run["trigger"]["time"].to_string()), "a fire was run twice: {run} of {runs:#?}");
    }
}

#[test]
fn an_agent_without_a_coordinator_runs_its_schedule_and_each_fire_is_shown_once() {
    let mut fleet = impatient(FleetOptions::default());
    with_standing_order(&fleet, &[]);
    fleet.kill_coordinator();
    arrives(&fleet, "first");
    arrives(&fleet, "second");
    // Its journal and its orders survive it.
    fleet.kill_agent(0);
    fleet.start_agent(0).expect("it starts again");
    arrives(&fleet, "third");
    fleet.start_coordinator().expect("it starts again");
    let runs = taken_over(&fleet, 3);
    assert_each_fire_once(&runs);

    let listed = fleet.mirrorctl(&["run", "list", "debian"]).ok().stdout;
    assert!(listed.contains("agent alone"), "{listed}");
    // The coordinator goes on with the schedule, and nothing is taken over twice.
    let before = runs.len();
    let later = eventually_within(SOON, "the coordinator fires again", || {
        let runs = fleet.runs("debian");
        let newest = runs.first().filter(|run| succeeded(run) && !is_autonomous(run)).is_some();
        (runs.len() > before && newest).then_some(runs)
    });
    assert_each_fire_once(&later);
    assert_eq!(later.iter().filter(is_autonomous).count(), runs.iter().filter(is_autonomous).count());
    eventually("the trees are equal", || {
        (tree::hash(&fleet.root(0).join("debian")).ok()? == tree::hash(&fleet.upstream_tree()).ok()?)
            .then_some(())
    });
}

#[test]
fn what_an_agent_runs_alone_is_taken_over_while_it_runs() {
    let mut fleet = impatient(FleetOptions::default());
    with_standing_order(&fleet, &["--rsync-option=--bwlimit=500"]);
    fleet.kill_coordinator();
    // Some seconds at that rate.
    let big = fleet.upstream_tree().join("big");
    fs::write(&big, vec![7_u8; 5 << 20]).expect("the upstream can be written");
    let partly = fleet.root(0).join("debian");
    eventually_within(SOON, "the agent begins to copy it alone", || {
        let entries = fs::read_dir(&partly).ok()?.flatten();
        let of_it = |name: String| name.starts_with(".big.") || name == ".~tmp~";
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).any(of_it).then_some(())
    });
    fleet.kill_agent(0);
    fleet.start_agent(0).expect("it starts again");
    fleet.start_coordinator().expect("it starts again");
    eventually_within(SOON, "a run that the agent began alone is running", || {
        let runs = fleet.runs("debian");
        runs.iter().filter(is_autonomous).any(|run| run["state"] == "RUNNING").then_some(())
    });
    let runs = taken_over(&fleet, 1);
    assert_each_fire_once(&runs);
    for run in runs.iter().filter(is_autonomous) {
        assert_eq!(run["attempt_count"], 1, "one try did it: {run}");
    }
    assert!(partly.join("big").exists());
}

#[test]
fn an_agent_that_may_not_does_nothing_alone() {
    let environment = [("AUTONOMY_AFTER_SECONDS", "1"), ("AUTONOMY_VALID_SECONDS", "1")];
    let environment =
        environment.map(|(key, value)| (format!("MIRROR_AGENT_{key}"), value.to_owned())).to_vec();
    let options = FleetOptions { environment, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options).expect("a fleet starts");
    with_standing_order(&fleet, &[]);
    fleet.kill_coordinator();
    fs::write(fleet.upstream_tree().join("late"), "late").expect("the upstream can be written");
    // A schedule of a second ago is too old once the agent may begin.
    let log = fleet.path().join("agent-edge1.log");
    let log = || fs::read_to_string(&log).unwrap_or_default();
    eventually_within(SOON, "the agent finds its schedule too old", || {
        log().contains("too old to be run").then_some(())
    });
    fleet.start_coordinator().expect("it starts again");
    eventually_within(SOON, "the coordinator's next fire brings it", || {
        fleet.root(0).join("debian/late").exists().then_some(())
    });
    assert!(!log().contains("begun without a coordinator"), "{}", log());
    assert!(!fleet.runs("debian").iter().any(|run| is_autonomous(&run)));
}
