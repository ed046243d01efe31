//! kill -9 at any moment: what was acknowledged is there, and no unit is there by half. `STORE_KILL_ROUNDS=n` goes on
//! for that many rounds.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod store_common;

use std::{env, thread, time::Duration};

use rand::Rng as _;
use store_common::{
    open, temp_dir,
    writers::{acknowledged, assert_holds, start, write_until_ended},
};

/// Rounds, where no number is told.
const ROUNDS: u32 = 20;

#[test]
fn child_writes_until_it_is_killed() {
    write_until_ended();
}

#[test]
fn no_acknowledged_write_is_lost_and_no_unit_is_torn_by_kill_9() {
    let rounds = env::var("STORE_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let dir = temp_dir();
    let (store, notes) = (dir.path().join("store"), dir.path().join("acknowledged"));
    let mut total = 0;
    for round in 0..rounds {
        let mut child = start("child_writes_until_it_is_killed", &store, &notes);
        // The moment of the kill is the fault that is tried, not a wait for anything.
        thread::sleep(Duration::from_millis(rand::rng().random_range(5..250)));
        child.kill().unwrap();
        child.wait().unwrap();

        let opened = open(&store);
        assert!(!opened.rewound, "round {round}: {:?}", opened.report);
        let acknowledged = acknowledged(&notes);
        // The units under way at the end of each round may be there without having been acknowledged.
        let ahead = u64::from(round) + 1;
        assert_holds(&opened.store, &acknowledged, ahead, &format!("round {round}"));
        total = acknowledged.iter().sum();
        if round % 2 == 0 {
            opened.store.close().unwrap();
        }
    }
    assert!(total > 1_000, "only {total} units were acknowledged in all rounds: nothing was tried");
    println!("{total} units acknowledged over {rounds} kills");
}
