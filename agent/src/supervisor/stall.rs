//! The stall rule of design 5.4, as a pure function of samples and times.

use std::time::{Duration, Instant};

use crate::rundir::procfs::USER_HZ;

/// Growth of `rchar` that is noise: keep-alives and bookkeeping, not data (measured on stopped upstreams).
const RECEIVED_NOISE_BYTES: u64 = 4 * 1024;
/// CPU time that shows work (cold stat walks, deletes), in ticks: one second.
const CPU_SIGN_TICKS: u64 = USER_HZ;

/// What a process group has used since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Bytes returned by read calls, sockets included.
    pub(super) received: u64,
    /// CPU time in 1/[`USER_HZ`] s.
    pub(super) cpu_ticks: u64,
    /// Block I/O in bytes, both directions.
    pub(super) disk: u64,
}

/// Measures the time without a sign of life.
#[derive(Debug)]
pub(super) struct StallClock {
    /// The usage at the last sign of life.
    base: Usage,
    since: Instant,
}

impl StallClock {
    pub(super) fn new(now: Instant) -> StallClock {
        StallClock { base: Usage::default(), since: now }
    }

    /// Takes a sample; returns for how long there has been no sign of life. The bounds (4 KiB received, one
    /// second of CPU, any block I/O) are measured from the last sign, not from the last sample, so the result
    /// does not depend on how often it is sampled.
    pub(super) fn observe(&mut self, usage: Usage, now: Instant) -> Duration {
        let base = &mut self.base;
        // A process that ends unwaited takes its counters along: lower sums start anew and are no sign of
        // life.
        base.received = base.received.min(usage.received);
        base.cpu_ticks = base.cpu_ticks.min(usage.cpu_ticks);
        base.disk = base.disk.min(usage.disk);
        let alive = usage.received - base.received > RECEIVED_NOISE_BYTES
            || usage.cpu_ticks - base.cpu_ticks >= CPU_SIGN_TICKS
            || usage.disk > base.disk;
        if alive {
            *base = usage;
            self.since = now;
        }
        now.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> impl Fn(Instant) -> Instant {
        move |start| start + Duration::from_secs(seconds)
    }

    fn idle_after(usages: &[Usage]) -> u64 {
        let start = Instant::now();
        let mut clock = StallClock::new(start);
        let samples = (1..).zip(usages);
        samples.map(|(second, usage)| clock.observe(*usage, at(second)(start))).last().unwrap().as_secs()
    }

    const NONE: Usage = Usage { received: 0, cpu_ticks: 0, disk: 0 };

    #[test]
    fn nothing_and_noise_are_no_life() {
        assert_eq!(idle_after(&[NONE; 5]), 5);
        let noise = |n: u64| Usage { received: n * 800, cpu_ticks: n * 19, disk: 0 };
        assert_eq!(idle_after(&[noise(1), noise(2), noise(3), noise(4), noise(5)]), 5);
    }

    #[test]
    fn each_sign_resets_the_clock() {
        for sign in [
            Usage { received: RECEIVED_NOISE_BYTES + 1, ..NONE },
            Usage { cpu_ticks: CPU_SIGN_TICKS, ..NONE },
            Usage { disk: 1, ..NONE },
        ] {
            assert_eq!(idle_after(&[NONE, NONE, sign, sign, sign]), 2, "{sign:?}");
        }
    }

    #[test]
    fn a_slow_trickle_counts_when_it_reaches_the_bound() {
        let trickle = |n: u64| Usage { received: n * 1500, ..NONE };
        assert_eq!(idle_after(&[trickle(1), trickle(2), trickle(3)]), 0);
    }

    #[test]
    fn a_process_that_ends_is_no_life_and_hides_none() {
        let two = Usage { received: 100_000, cpu_ticks: 500, disk: 9 };
        let one = Usage { received: 60_000, cpu_ticks: 300, disk: 3 };
        assert_eq!(idle_after(&[two, one, one]), 2);
        let more = Usage { received: 70_000, ..one };
        assert_eq!(idle_after(&[two, one, more]), 0);
    }
}
