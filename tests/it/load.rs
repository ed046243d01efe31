//! The load generator runs, and measures everything it names. No figure is judged here: times belong to a
//! machine, and a test must hold on every one.

use std::process::Command;

use fleet_tests::{Finished, program};

/// Beginnings of the rows, in their order.
const ROWS: [&str; 27] = [
    "trigger → rsync exists, API",
    "of the floor: one unary call",
    "of the floor: two records",
    "of the floor: two processes",
    "trigger → rsync exists, mirrorctl",
    "origin's rsync → last replica's, of 1",
    "origin's rsync → last replica's, of 3",
    "100 projects due in one second",
    "durable CreateProject/s through the driver",
    "apply of 100 new projects",
    "– the same again, nothing to change",
    "fire error, 600 projects",
    "long sync, wall",
    "long sync, CPU",
    "of it: coordinator and agent",
    "supervisor of one sync",
    "sync with nothing to do",
    "fixed cost",
    "start of an empty coordinator",
    "durable CreateProject/s over gRPC",
    "coordinator, idle, no project",
    "coordinator, idle, 100 projects",
    "agent, idle",
    "mirror-coordinator, stripped",
    "ListProjects at 300 projects, first page",
    "ListProjects at 300 projects, next page",
    "ListProjects at 300 projects, all with a rare label",
];

#[test]
fn every_row_is_measured() {
    let printed = Finished::run(Command::new(program("fleet-load")).arg("--quick")).ok().stdout;
    let mut rest = printed.as_str();
    for row in ROWS {
        let at =
            rest.find(row).unwrap_or_else(|| panic!("no row \"{row}\" after the one before:\n{printed}"));
        rest = &rest[at..];
        let line = rest.lines().next().unwrap_or_default();
        let ours = line.split('|').nth(1).unwrap_or_default();
        assert!(ours.contains(|c: char| c.is_ascii_digit()), "no figure: {line}");
    }
}

#[test]
fn an_unknown_part_is_refused_with_the_known_ones() {
    let refused = Finished::run(Command::new(program("fleet-load")).arg("nonsense"));
    assert_eq!(refused.code, 2);
    assert!(
        refused.stdout.contains("trigger, propagation, burst, commits, apply, fires, overhead, fixed, idle, list"),
        "{}",
        refused.stdout
    );
}
