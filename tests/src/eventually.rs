//! Waiting for a condition with a deadline: the only way a test waits.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long a test waits for what must happen. Generous: a shared machine may be three times slower.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `look` finds something, and returns it.
///
/// # Panics
/// When [`DEADLINE`] passes first: the test has failed, and `what` says why.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, look)
}

/// As [`eventually`], with a deadline of its own.
///
/// # Panics
/// When `deadline` passes first.
pub fn eventually_within<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}");
        thread::sleep(POLL);
    }
}
