//! What lies, and what fills up, is contained: named for what it is, bounded, with the old tree intact.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use fleet_tests::{
    Finished, Fleet, FleetOptions, address, eventually_within,
    liar::{Liar, Lie},
    tree,
};
use serde_json::Value;

fn fleet() -> Fleet {
    Fleet::start(FleetOptions::default()).expect("a fleet starts")
}

/// Runs a project against a liar and returns how the try ended.
fn outcome_of(lie: Lie, more: &[&str], within: Duration) -> Value {
    let fleet = fleet();
    let liar = Liar::start(address::unique(), lie).expect("a liar");
    let uri = liar.uri();
    let mut args = vec!["project", "add", "lied", "--from", &uri, "--to", "a1:lied", "--origin", "edge1"];
    args.extend(["--retry-attempts", "1"]);
    args.extend(more);
    fleet.mirrorctl(&args).ok();
    fleet.mirrorctl(&["project", "run", "lied"]).ok();
    let run = eventually_within(within, &format!("the run against {lie:?} ends"), || {
        let run = fleet.newest_run("lied");
        (run["state"] == "FAILED").then_some(run)
    });
    let log = fs::read_dir(fleet.agent_dir(0)).expect("the agent's directory").flatten();
    let kept: u64 = log.map(|entry| size_below(&entry.path())).sum();
    assert!(kept < 64 * 1_048_576, "{kept} bytes were kept of what {lie:?} said");
    let shown = fleet.mirrorctl(&["run", "show", "lied"]);
    assert!(shown.stdout.contains("fault"), "a failure says whose fault it is:\n{}", shown.stdout);
    run["origin_attempt"]["outcome"].clone()
}

fn size_below(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return fs::metadata(path).map_or(0, |data| data.len()) };
    entries.flatten().map(|entry| size_below(&entry.path())).sum()
}

#[test]
fn a_silent_upstream_times_out() {
    let outcome =
        outcome_of(Lie::Silent, &["--io-timeout", "10s", "--stall-timeout", "15s"], Duration::from_secs(90));
    let class = &outcome["class"];
    assert!(class == "TIMEOUT" || class == "STALLED", "{outcome}");
}

#[test]
fn an_upstream_that_talks_garbage_is_a_protocol_fault() {
    let outcome = outcome_of(Lie::Garbage, &[], Duration::from_secs(60));
    assert_eq!(outcome["class"], "PROTOCOL", "{outcome}");
    let cause = outcome["cause"].as_str().expect("a cause");
    assert!(!cause.contains('\u{1b}'), "control bytes are escaped: {cause:?}");
}

#[test]
fn an_upstream_that_closes_is_a_fault_of_network_or_protocol() {
    let outcome = outcome_of(Lie::Closing, &[], Duration::from_secs(60));
    let class = &outcome["class"];
    assert!(class == "NETWORK" || class == "PROTOCOL", "{outcome}");
}

#[test]
fn an_endless_message_of_the_day_ends_at_the_wall_clock() {
    let outcome = outcome_of(Lie::EndlessMotd, &["--run-timeout", "60s"], Duration::from_secs(150));
    assert_eq!(outcome["class"], "WALL_CLOCK", "{outcome}");
}

/// A small file system of its own at a path; unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(path: &Path, options: &str) -> Result<Self, String> {
        if !rustix::process::getuid().is_root() {
            return Err("mounting needs root".to_owned());
        }
        fs::create_dir_all(path).map_err(|error| error.to_string())?;
        let done =
            Finished::run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path));
        if done.code == 0 {
            Ok(Self(path.to_owned()))
        } else {
            Err(format!("no tmpfs here: {}", done.stderr))
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _unmounted = Finished::run(Command::new("umount").arg("-l").arg(&self.0));
    }
}

/// A tree that fits is copied; then the upstream grows beyond what the disk holds.
fn fills_up(options: &str, grow: impl Fn(&Path)) {
    let fleet = Fleet::prepare(FleetOptions { files: 64, file_bytes: 4_096, ..FleetOptions::default() });
    let mut fleet = fleet.expect("a fleet");
    let mount = match Mount::new(&fleet.root(0), options) {
        Ok(mount) => mount,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    fleet.start_coordinator().expect("the coordinator starts");
    fleet.enroll(0).expect("the agent enrols");
    fleet.start_agent(0).expect("the agent starts");
    fleet.await_connected("edge1");
    fleet.add_project("debian", &["--retry-attempts", "1"]).ok();
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    let copy = fleet.root(0).join("debian");
    let before = tree::files(&copy).expect("the first copy");

    grow(&fleet.upstream_tree());
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    let run = fleet.await_run("debian", "FAILED");
    assert_eq!(run["origin_attempt"]["outcome"]["class"], "DISK_FULL", "{run}");
    // What a broken-off run leaves aside is its own; the files that were there are as they were.
    for leftover in [".~tmp~", ".rsync-partial"] {
        remove_all(&copy, leftover);
    }
    // What fitted may be there already; every file that was there is there, and is what it was.
    let after = tree::files(&copy).expect("the old copy");
    for (name, content) in &before {
        assert_eq!(after.get(name), Some(content), "{} was there before", name.display());
    }
    drop(fleet);
    drop(mount);
}

fn remove_all(below: &Path, name: &str) {
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        if entry.file_name() == name {
            fs::remove_dir_all(entry.path()).expect("a leftover can be removed");
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_all(&entry.path(), name);
        }
    }
}

#[test]
fn a_disk_without_bytes_is_disk_full_and_the_old_tree_stays() {
    fills_up("mode=755,size=4m", |upstream| {
        fs::remove_file(upstream.join("pool/000/package-00000.deb")).expect("an old file goes");
        tree::fill(&upstream.join("new"), 64, 131_072, 7).expect("the upstream grows");
    });
}

#[test]
fn a_disk_without_inodes_is_disk_full_and_the_old_tree_stays() {
    fills_up("mode=755,size=64m,nr_inodes=160", |upstream| {
        for index in 0..400 {
            fs::write(upstream.join(format!("pool/small-{index}")), "x").expect("the upstream grows");
        }
    });
}
