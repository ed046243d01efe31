//! The two clocks that every decision is handed. Schedules, catch-up and TTLs use the wall clock; leases,
//! backoff, timeouts and spacing use the monotonic one, so that a clock step expires nothing.

use std::time::Duration;

use chrono::{DateTime, TimeZone as _, Utc};

/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

/// Milliseconds since 1970-01-01T00:00:00Z by the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(pub i64);

impl Wall {
    /// Seconds since 1970, as files and markers have them.
    #[must_use]
    pub fn of_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }

    /// The instant for the calendar. Out of chrono's range: its ends.
    #[must_use]
    pub fn to_utc(self) -> DateTime<Utc> {
        Utc.timestamp_millis_opt(self.0).single().unwrap_or(if self.0 < 0 {
            DateTime::<Utc>::MIN_UTC
        } else {
            DateTime::<Utc>::MAX_UTC
        })
    }

    /// This much later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This much earlier.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Days since 1970 (UTC); 0 before.
    #[must_use]
    pub fn day(self) -> u64 {
        u64::try_from(self.0.div_euclid(DAY_MS)).unwrap_or(0)
    }

    /// How long after `earlier`; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl From<DateTime<Utc>> for Wall {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_millis())
    }
}

/// Milliseconds by the monotonic clock, from an unspecified start; never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// This much later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier`; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// What a decision is handed: both clocks, and randomness for jitter and ids.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The wall clock.
    pub wall: Wall,
    /// The monotonic clock.
    pub mono: Mono,
    /// Fresh random bits; the engine has none of its own.
    pub entropy: u64,
}

impl Now {
    /// A number below `bound` from this decision's random bits; 0 when `bound` is 0.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        // splitmix64, so that the low bits are as good as the high ones.
        let mut z = self.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if bound == 0 { 0 } else { (z ^ (z >> 31)) % bound }
    }
}
