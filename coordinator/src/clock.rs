//! The clocks, and the task that sends `Tick` at the engine's next deadline. It sleeps at most one second and
//! reads the wall clock anew at each wake, so that suspends and clock steps are seen. Whoever else sends a
//! `Tick` (the watchdog in `ticker.rs` does) does no harm: a tick carries no data and finds nothing due.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use fleet::time::{Mono, Now, Wall};
use tokio_util::sync::CancellationToken;

use crate::driver::Driver;

/// Longest sleep between two looks at the wall clock.
pub const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Shortest sleep, so that a deadline that the writer has not got to yet does not become a busy loop.
const SLEEP_MIN: Duration = Duration::from_millis(1);

/// Both clocks and the source of randomness. The only place of the coordinator that reads them for the model.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    entropy: AtomicU64,
}

impl Clock {
    /// A clock that starts now, seeded by the system's random numbers.
    #[must_use]
    pub fn start() -> Self {
        let seed = uuid::Uuid::new_v4().as_u64_pair();
        Self { started: Instant::now(), entropy: AtomicU64::new(seed.0 ^ seed.1) }
    }

    /// Both clocks now, with random bits that no other call gets.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the clock that the model is handed")]
    pub fn now(&self) -> Now {
        let wall = Wall::from(chrono::Utc::now());
        let mono = Mono(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX));
        // Weyl sequence: the engine mixes the bits itself (`Now::below`), and ids take them as they are.
        let weyl = self.entropy.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        Now { wall, mono, entropy: (weyl ^ (weyl >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93) }
    }
}

/// Wakes the writer whenever something is due, until `stop`.
pub async fn run(driver: Driver, stop: CancellationToken) {
    let mut changes = driver.changes();
    loop {
        let now = driver.now();
        let due_in = driver.view().next_deadline(now);
        if due_in == Some(Duration::ZERO) {
            driver.wake();
        }
        let sleep = due_in.unwrap_or(SLEEP_MAX).clamp(SLEEP_MIN, SLEEP_MAX);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(sleep) => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}
