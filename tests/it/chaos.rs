//! A minute of `make chaos`.

use std::process::Command;

use fleet_tests::{Finished, program};

/// How long it rages; what the fleet then still has to finish comes on top.
const SECONDS: &str = "60";
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

#[test]
fn a_flag_that_is_none_is_refused() {
    let refused = Finished::run(Command::new(program("fleet-chaos")).args(["--nonsense", "1"]));
    assert_eq!(refused.code, 2);
    assert!(refused.stdout.contains("make chaos [DURATION=SECONDS] [SEED=NUMBER]"), "{}", refused.stdout);
}
