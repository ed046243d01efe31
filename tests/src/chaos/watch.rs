//! What is looked at all the time: which rsync processes write where, what readers of the mirrors see, and the states
//! that runs and attempts are shown in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

use crate::{AGENTS, DELETES_MAX, FILES, PACKAGE, PROJECTS, World};

/// Pause between two looks at the processes.
const PROCESS_PAUSE: Duration = Duration::from_millis(40);
/// Pause between two looks at the trees.
const TREE_PAUSE: Duration = Duration::from_millis(150);
/// Pause between two looks at the runs.
const RUN_PAUSE: Duration = Duration::from_millis(500);
/// States in which a run or an attempt stays.
pub(crate) const FINAL: [&str; 5] = ["SUCCEEDED", "FAILED", "CANCELLED", "LOST", "HELD"];

/// What was seen.
#[derive(Default)]
pub(crate) struct Watched {
    /// Broken invariants, as they were seen.
    pub(crate) broken: BTreeSet<String>,
    /// Final states of attempts, as first shown.
    pub(crate) ends: BTreeMap<String, Value>,
    /// Attempts that ended while the coordinator was down.
    pub(crate) ended_alone: BTreeSet<String>,
    /// When the coordinator was down or stopped, in milliseconds of the wall clock.
    pub(crate) absences: Vec<(i64, i64)>,
    process_looks: u64,
    pulls: BTreeSet<(PathBuf, u32)>,
    tree_looks: u64,
    /// Times that a package was read in a tree that was complete once.
    package_looks: u64,
    run_looks: u64,
    /// Times that an attempt was shown that had been seen to end before.
    end_looks: u64,
}

impl Watched {
    /// The invariants that hold because nothing was seen that could have broken them.
    pub(crate) fn untried(&self) -> impl Iterator<Item = String> {
        let seen = [
            ("I1", "no pull was seen", self.pulls.is_empty()),
            ("I4", "no attempt was shown again after its end", self.end_looks == 0),
            ("I10", "no package of a complete tree was read", self.package_looks == 0),
            ("I11", "no tree was seen after it was complete", self.tree_looks == 0),
        ];
        let untried = seen.into_iter().filter(|(_, _, nothing)| *nothing);
        untried.map(|(invariant, what, _)| format!("{invariant}: {what}: nothing was tried"))
    }

    pub(crate) fn print_counts(&self) {
        println!("{:6}  looks at processes, {} pulls seen", self.process_looks, self.pulls.len());
        println!(
            "{:6}  looks at trees that were complete once, {} packages read there",
            self.tree_looks, self.package_looks
        );
        println!(
            "{:6}  looks at runs, {} attempts seen to end, {} of them while the coordinator was away; {} looks at ends",
            self.run_looks,
            self.ends.len(),
            self.ended_alone.len(),
            self.end_looks
        );
    }
}

/// Starts the watchers.
pub(crate) fn start(world: &Arc<World>) -> Vec<JoinHandle<()>> {
    let watchers: [fn(&World); 3] = [processes, trees, runs];
    watchers
        .map(|watcher| {
            let world = Arc::clone(world);
            thread::spawn(move || watcher(&world))
        })
        .into()
}

/// I1: never two pulls at once into one destination.
fn processes(world: &World) {
    let roots: Vec<PathBuf> = (0..AGENTS.len()).map(|index| world.fleet().root(index)).collect();
    while !world.is_over() {
        let mut groups: BTreeMap<PathBuf, BTreeSet<u32>> = BTreeMap::new();
        for (destination, group) in receivers(&roots) {
            groups.entry(destination).or_default().insert(group);
        }
        let mut watched = world.watched();
        watched.process_looks += 1;
        for (destination, groups) in groups {
            if groups.len() > 1 {
                watched.broken.insert(format!(
                    "I1: {} pulls at once into {}",
                    groups.len(),
                    destination.display()
                ));
            }
            watched.pulls.extend(groups.into_iter().map(|group| (destination.clone(), group)));
        }
        drop(watched);
        thread::sleep(PROCESS_PAUSE);
    }
}

/// Living rsync processes that write below these roots: where, and their process group.
pub(crate) fn receivers(roots: &[PathBuf]) -> Vec<(PathBuf, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| receiver(pid, roots)).collect()
}

fn receiver(pid: u32, roots: &[PathBuf]) -> Option<(PathBuf, u32)> {
    let proc = Path::new("/proc").join(pid.to_string());
    if !fs::read_link(proc.join("exe")).ok()?.ends_with("rsync") {
        return None;
    }
    let line = fs::read(proc.join("cmdline")).ok()?;
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    if words.iter().any(|word| word == "--daemon") {
        return None;
    }
    let destination = PathBuf::from(words.iter().rev().find(|word| !word.is_empty())?.as_ref());
    if !roots.iter().any(|root| destination.starts_with(root)) {
        return None;
    }
    let stat = fs::read_to_string(proc.join("stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some((destination, group))
}

/// I10 and I11: what a mirror has shown whole it goes on showing, but for the deletes that its project allows, whatever
/// becomes of the upstream; and each file is whole.
fn trees(world: &World) {
    let mut complete: BTreeSet<PathBuf> = BTreeSet::new();
    let places: Vec<PathBuf> = (0..AGENTS.len())
        .flat_map(|index| PROJECTS.map(|project| world.fleet().root(index).join(project)))
        .collect();
    while !world.is_over() {
        for place in &places {
            let count = packages(place);
            let mut watched = world.watched();
            if complete.contains(place) {
                watched.tree_looks += 1;
                if count + DELETES_MAX < FILES {
                    let text = format!("I11: {} had {FILES} packages and has {count}", place.display());
                    watched.broken.insert(text);
                }
                // One that was deleted, within the limit, is not half there.
                if let Ok(found) = fs::read(place.join(PACKAGE)) {
                    watched.package_looks += 1;
                    if found != world.package {
                        watched.broken.insert(format!("I10: half a file is served in {}", place.display()));
                    }
                }
            } else if count == FILES {
                complete.insert(place.clone());
            }
        }
        thread::sleep(TREE_PAUSE);
    }
}

fn packages(place: &Path) -> usize {
    let folders = fs::read_dir(place.join("pool")).into_iter().flatten().flatten();
    let files = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten());
    files.filter(|file| file.file_name().to_string_lossy().starts_with("package-")).count()
}

/// I4: what an attempt ended as, it ended as for ever.
fn runs(world: &World) {
    while !world.is_over() {
        for project in PROJECTS {
            look_at_runs(world, project);
        }
        thread::sleep(RUN_PAUSE);
    }
}

/// Looks at the newest runs of a project and says them; nothing where nobody answers.
pub(crate) fn look_at_runs(world: &World, project: &str) -> Option<Vec<Value>> {
    let list = world.ctl.json(&["run", "list", project])?;
    let runs = list["runs"].as_array()?.clone();
    note_ends(world, runs.iter().map(|run| &run["origin_attempt"]));
    if let Some(newest) = world.ctl.json(&["run", "show", project]) {
        note_ends(world, newest["attempts"].as_array().into_iter().flatten());
    }
    Some(runs)
}

/// Each answer by itself: they are of different moments.
fn note_ends<'a>(world: &World, attempts: impl Iterator<Item = &'a Value>) {
    let mut watched = world.watched();
    watched.run_looks += 1;
    for attempt in attempts {
        note_end(&mut watched, attempt);
    }
}

fn note_end(watched: &mut Watched, attempt: &Value) {
    let (Some(name), Some(state)) = (attempt["name"].as_str(), attempt["state"].as_str()) else { return };
    watched.end_looks += u64::from(watched.ends.contains_key(name));
    if !FINAL.contains(&state) {
        if let Some(end) = watched.ends.get(name) {
            let text = format!("I4: {name} had ended as {end} and is shown as {state}");
            watched.broken.insert(text);
        }
        return;
    }
    let end = serde_json::json!({ "state": state, "class": attempt["outcome"]["class"], "end": attempt["end_time"] });
    match watched.ends.get(name) {
        Some(first) if *first != end => {
            let text = format!("I4: {name} had ended as {first} and then as {end}");
            watched.broken.insert(text);
        }
        Some(_) => {}
        None => {
            let ended = attempt["outcome"]["end_time"]
                .as_str()
                .and_then(|time| time.parse::<chrono::DateTime<chrono::Utc>>().ok());
            let alone = ended.is_some_and(|at| {
                let at = at.timestamp_millis();
                watched.absences.iter().any(|(from, to)| *from < at && at < *to)
            });
            if alone {
                watched.ended_alone.insert(name.to_owned());
            }
            watched.ends.insert(name.to_owned(), end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invariant_for_which_nothing_was_seen_is_broken() {
        let mut watched = Watched::default();
        assert_eq!(watched.untried().count(), 4);
        let attempt =
            serde_json::json!({ "name": "projects/debian/runs/1/attempts/1", "state": "SUCCEEDED" });
        note_end(&mut watched, &attempt);
        assert!(watched.untried().any(|fault| fault.starts_with("I4: ")), "its end was seen once only");
        note_end(&mut watched, &attempt);
        assert!(!watched.untried().any(|fault| fault.starts_with("I4: ")));
        assert!(watched.broken.is_empty());
    }
}
