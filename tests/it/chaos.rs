//! A minute of `make chaos`, and one that cannot come to its end.

use std::{fs, process::Command, time::Duration};

use fleet_tests::{Finished, Process, eventually, eventually_within, process::living_with, program};

/// How long it rages; what the fleet then still has to finish comes on top.
const SECONDS: &str = "60";
/// With this seed the upstream is emptied as the third fault; another one is as good, and takes longer.
const EMPTIED_THIRD: &str = "6";
/// How long it may take to fail, what it has to end included.
const FAILS_WITHIN: Duration = Duration::from_secs(120);
/// Each must have met something within that time, whoever runs the test.
const FAULTS: [&str; 5] = ["KillCoordinator", "StopCoordinator", "KillAgent", "StopAgent", "EmptyUpstream"];

#[test]
fn a_fleet_under_all_faults_keeps_every_promise() {
    let done = Finished::run(Command::new(program("fleet-chaos")).args(["--duration", SECONDS]));
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    println!("{}", done.stdout);
    assert!(done.stdout.starts_with("SEED="), "{}", done.stdout);
    assert!(done.stdout.contains("good: every invariant held"), "{}", done.stdout);
    for fault in FAULTS {
        let line = done.stdout.lines().find(|line| line.ends_with(fault));
        let met = line.and_then(|line| line.split_whitespace().next()?.parse::<u32>().ok());
        assert!(met.is_some_and(|met| met > 0), "{fault} never met anything:\n{}", done.stdout);
    }
}

/// An upstream that cannot be emptied: the rage fails while clients, watchers and faults go on.
#[test]
fn a_fleet_whose_faults_fail_is_ended_with_all_that_belongs_to_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(program("fleet-chaos"));
    command.args(["--duration", SECONDS, "--seed", EMPTIED_THIRD]).env("TMPDIR", dir.path());
    let mut chaos = Process::start("chaos", &mut command, &dir.path().join("chaos.log")).expect("it starts");
    let fleets = || fs::read_dir(dir.path()).into_iter().flatten().flatten().map(|entry| entry.path());
    let upstream = eventually("clients change the upstream", || {
        fleets().map(|fleet| fleet.join("upstream")).find(|upstream| upstream.join("news").exists())
    });
    let ours = || living_with(&dir.path().display().to_string());
    assert!(!ours().is_empty());
    // Where the packages would be moved to is something already.
    let filled = upstream.with_extension("in-the-way");
    fs::create_dir_all(filled.join("something")).expect("a directory");
    eventually("it is in the way", || fs::rename(&filled, upstream.with_extension("away")).ok());
    let ended = eventually_within(FAILS_WITHIN, "it fails", || chaos.exited());
    let said = chaos.output();
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("it did not come to an end: EmptyUpstream"), "{said}");
    assert_eq!(ours(), Vec::<u32>::new(), "{said}");
    let left: Vec<_> = fleets().filter(|path| path.is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("the mounts");
    assert!(!mounts.contains(&dir.path().display().to_string()), "{mounts}");
}

#[test]
fn a_flag_that_is_none_is_refused() {
    let refused = Finished::run(Command::new(program("fleet-chaos")).args(["--nonsense", "1"]));
    assert_eq!(refused.code, 2);
    assert!(refused.stdout.contains("make chaos [DURATION=SECONDS] [SEED=NUMBER]"), "{}", refused.stdout);
}
