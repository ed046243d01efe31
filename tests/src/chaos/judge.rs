//! The end: everything is mended, the fleet finishes what it promised, and what it has is compared with what it said.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use fleet_tests::tree;

use crate::{
    AGENTS, PROJECTS, World,
    watch::{FINAL, look_at_runs},
};

/// How long the fleet may take to finish what it promised.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(180);
/// Pause between two looks meanwhile.
const SETTLE_PAUSE: Duration = Duration::from_millis(500);

/// What is broken.
pub(crate) fn judge(world: &World) -> Vec<String> {
    let mut broken: Vec<String> = Vec::new();
    for name in AGENTS {
        if !within(|| {
            world.ctl.json(&["agent", "show", name]).is_some_and(|agent| agent["connected"] == true)
        }) {
            broken.push(format!("I6: {name} did not come back"));
        }
    }
    broken.extend(lost_writes(world));
    broken.extend(lost_runs(world));
    broken.extend(unequal_trees(world));
    let watched = world.watched();
    broken.extend(watched.broken.iter().cloned());
    broken.extend(watched.untried());
    broken
}

fn within(mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + SETTLE_TIME_MAX;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        thread::sleep(SETTLE_PAUSE);
    }
}

/// I3: every project that was acknowledged is there.
fn lost_writes(world: &World) -> Vec<String> {
    let mut present = None;
    within(|| {
        let list = world.ctl.json(&["project", "list"]);
        present = list.and_then(|list| list["projects"].as_array().cloned());
        present.is_some()
    });
    let present = present.unwrap_or_default();
    let names: BTreeSet<&str> =
        present.iter().filter_map(|project| project["name"].as_str()?.strip_prefix("projects/")).collect();
    let acknowledged = world.history.acknowledged("declare");
    println!("{:6}  projects acknowledged, {} there", acknowledged.len(), names.len());
    let lost = acknowledged.iter().filter(|call| !names.contains(call.name.as_str()));
    let mut broken: Vec<_> = lost
        .map(|call| format!("I3: {} was acknowledged at {} ms and is lost", call.name, call.answered_ms))
        .collect();
    if acknowledged.is_empty() {
        broken.push("I3: nothing was acknowledged at all: nothing was tried".to_owned());
    }
    broken
}

/// I2, I4: every run that was acknowledged is there and ends.
fn lost_runs(world: &World) -> Vec<String> {
    let mut broken = Vec::new();
    let mut states: BTreeMap<String, String> = BTreeMap::new();
    for project in PROJECTS {
        let ended = within(|| {
            let Some(runs) = look_at_runs(world, project) else { return false };
            for run in &runs {
                let name = run["name"].as_str().unwrap_or_default().to_owned();
                states.insert(name, run["state"].as_str().unwrap_or_default().to_owned());
            }
            runs.iter().all(|run| run["state"].as_str().is_some_and(|state| FINAL.contains(&state)))
        });
        if !ended {
            broken.push(format!("I2: {project} has runs that do not end: {states:?}"));
        }
    }
    let acknowledged = world.history.acknowledged("trigger");
    let names: BTreeSet<&str> = acknowledged.iter().map(|call| call.name.as_str()).collect();
    for name in &names {
        if states.contains_key(*name) {
            continue;
        }
        // The list has one page; what is older is asked for by name.
        let short = name.trim_start_matches("projects/").replace("/runs/", "/");
        match world.ctl.json(&["run", "show", &short]) {
            Some(run) if run["state"].as_str().is_some_and(|state| FINAL.contains(&state)) => {}
            shown => broken.push(format!(
                "I2: the run {name} was acknowledged and is not there or does not end: {shown:?}"
            )),
        }
    }
    println!("{:6}  triggers acknowledged, of {} runs", acknowledged.len(), names.len());
    if acknowledged.is_empty() {
        broken.push("I2: no run was acknowledged at all: nothing was tried".to_owned());
    }
    broken
}

/// With everything mended, one more run makes every copy what the upstream is.
fn unequal_trees(world: &World) -> Vec<String> {
    let mut broken = Vec::new();
    let Ok(wanted) = tree::hash(&world.fleet().upstream_tree()) else {
        return vec!["the upstream's own tree cannot be read".to_owned()];
    };
    for project in PROJECTS {
        let mut asked = false;
        let equal = within(|| {
            asked = asked || world.ctl.run(&["project", "run", project]).code == 0;
            asked
                && (0..AGENTS.len()).all(|index| {
                    tree::hash(&world.fleet().root(index).join(project)).is_ok_and(|found| found == wanted)
                })
        });
        if !equal {
            let shown = world.ctl.run(&["project", "show", project]);
            broken.push(format!("{project} is not equal everywhere after all was mended:\n{}", shown.stdout));
        }
    }
    broken
}
