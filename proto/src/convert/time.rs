//! Instants and spans. The wire's may be anything, so each is checked; the model's always fit.

use std::time::Duration;

use chrono::{DateTime, Utc};
use fleet::{refusal::Violation, time::Wall};

use super::fault;

/// First instant that a `Timestamp` may name: the year 1 (by its own definition).
const TIMESTAMP_SECONDS_MIN: i64 = -62_135_596_800;
/// Last second that a `Timestamp` may name: in the year 9999.
const TIMESTAMP_SECONDS_MAX: i64 = 253_402_300_799;
/// Longest `Duration`, in seconds: some 10,000 years (by its own definition).
const DURATION_SECONDS_MAX: i64 = 315_576_000_000;
const NANOS_MAX: i32 = 999_999_999;

/// The wire's form of a wall-clock time.
#[must_use]
pub fn wall_to_wire(wall: Wall) -> prost_types::Timestamp {
    let nanos = i32::try_from(wall.0.rem_euclid(1_000) * 1_000_000).unwrap_or(0);
    prost_types::Timestamp { seconds: wall.0.div_euclid(1_000), nanos }
}

/// A wall-clock time, to the millisecond; what is finer is dropped.
///
/// # Errors
/// Outside of the years 1 to 9999, or malformed.
pub fn wall_from_wire(field: &str, time: &prost_types::Timestamp) -> Result<Wall, Violation> {
    let seconds_ok = (TIMESTAMP_SECONDS_MIN..=TIMESTAMP_SECONDS_MAX).contains(&time.seconds);
    if !seconds_ok || !(0..=NANOS_MAX).contains(&time.nanos) {
        return Err(Violation::new(field, "is no instant in the years 1 to 9999"));
    }
    Ok(Wall(time.seconds * 1_000 + i64::from(time.nanos / 1_000_000)))
}

/// A wall-clock time that must be given.
///
/// # Errors
/// Missing, or as [`wall_from_wire`].
pub fn required_wall(field: &str, time: Option<&prost_types::Timestamp>) -> Result<Wall, Violation> {
    time.ok_or_else(|| Violation::new(field, "is required")).and_then(|time| wall_from_wire(field, time))
}

/// The wire's form of an instant of the calendar.
#[must_use]
pub fn utc_to_wire(time: DateTime<Utc>) -> prost_types::Timestamp {
    // A leap second counts up to two seconds of nanoseconds in chrono; the wire has none.
    let nanos = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(NANOS_MAX).min(NANOS_MAX);
    prost_types::Timestamp { seconds: time.timestamp(), nanos }
}

/// The wire's form of a span; one longer than the wire can say is the longest.
#[must_use]
pub fn duration_to_wire(span: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX).min(DURATION_SECONDS_MAX);
    prost_types::Duration { seconds, nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0) }
}

/// A span.
///
/// # Errors
/// Negative, malformed or longer than some 10,000 years.
pub fn duration_from_wire(field: &str, span: &prost_types::Duration) -> Result<Duration, Violation> {
    match (u64::try_from(span.seconds), u32::try_from(span.nanos)) {
        (Ok(seconds), Ok(nanos)) if span.seconds <= DURATION_SECONDS_MAX && span.nanos <= NANOS_MAX => {
            Ok(Duration::new(seconds, nanos))
        }
        _ => Err(Violation::new(field, "is no span of time: it must be 0s or more")),
    }
}

/// Bounds of a span in whole seconds, both allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seconds {
    pub(crate) min: u64,
    pub(crate) max: u64,
}

impl Seconds {
    /// Reads a span of whole seconds within the bounds; absent is none.
    pub(crate) fn read(
        self,
        field: &str,
        span: Option<&prost_types::Duration>,
    ) -> Result<Option<u64>, Violation> {
        let Some(span) = span else { return Ok(None) };
        let span = duration_from_wire(field, span)?;
        if span.subsec_nanos() != 0 {
            let shown = format!("{}s", span.as_secs_f64());
            return Err(fault(field, &shown, "must be whole seconds"));
        }
        if !(self.min..=self.max).contains(&span.as_secs()) {
            let rule = format!("must be {} to {}", spell(self.min), spell(self.max));
            return Err(fault(field, &spell(span.as_secs()), rule));
        }
        Ok(Some(span.as_secs()))
    }
}

/// Seconds as people type them: `90s`, `10m`, `24h`, `30d`; days only above 48 hours.
pub(crate) fn spell(seconds: u64) -> String {
    const UNITS: [(u64, u64, &str); 3] = [(86_400, 172_801, "d"), (3_600, 3_600, "h"), (60, 60, "m")];
    let unit = UNITS.iter().find(|(size, from, _)| seconds >= *from && seconds.is_multiple_of(*size));
    unit.map_or_else(|| format!("{seconds}s"), |(size, _, name)| format!("{}{name}", seconds / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_times_go_out_and_come_back() {
        for ms in [0, 1, -1, 1_763_624_530_123, -62_135_596_800_000, 253_402_300_799_999] {
            assert_eq!(wall_from_wire("t", &wall_to_wire(Wall(ms))), Ok(Wall(ms)));
        }
        for (seconds, nanos) in [(0, -1), (0, 1_000_000_000), (i64::MAX, 0), (i64::MIN, 0)] {
            let fault = wall_from_wire("t", &prost_types::Timestamp { seconds, nanos }).unwrap_err();
            assert_eq!(fault.field, "t");
        }
        assert_eq!(required_wall("t", None).unwrap_err().description, "is required");
    }

    #[test]
    fn instants_keep_their_nanoseconds() {
        let time: DateTime<Utc> = "2026-11-20T07:42:10.123456789Z".parse().unwrap();
        assert_eq!(utc_to_wire(time), prost_types::Timestamp { seconds: 1_795_160_530, nanos: 123_456_789 });
        let leap: DateTime<Utc> = "2016-12-31T23:59:60.5Z".parse().unwrap();
        assert_eq!(utc_to_wire(leap).nanos, NANOS_MAX);
    }

    #[test]
    fn spans_go_out_and_come_back() {
        for span in [Duration::ZERO, Duration::from_millis(1_500), Duration::from_secs(86_400)] {
            assert_eq!(duration_from_wire("d", &duration_to_wire(span)), Ok(span));
        }
        assert!(duration_from_wire("d", &duration_to_wire(Duration::MAX)).is_ok());
        for (seconds, nanos) in [(-1, 0), (0, -1), (1, 1_000_000_000), (i64::MAX, 0), (-1, -1)] {
            assert!(duration_from_wire("d", &prost_types::Duration { seconds, nanos }).is_err());
        }
    }

    #[test]
    fn bounded_spans_say_what_was_typed_and_what_is_allowed() {
        let bounds = Seconds { min: 60, max: 86_400 };
        let read = |seconds, nanos| bounds.read("d", Some(&prost_types::Duration { seconds, nanos }));
        assert_eq!(read(60, 0), Ok(Some(60)));
        assert_eq!(read(86_400, 0), Ok(Some(86_400)));
        assert_eq!(bounds.read("d", None), Ok(None));
        assert_eq!(read(5, 0).unwrap_err().description, "\"5s\": must be 1m to 24h");
        assert_eq!(read(90_000, 0).unwrap_err().description, "\"25h\": must be 1m to 24h");
        assert_eq!(read(90, 500_000_000).unwrap_err().description, "\"90.5s\": must be whole seconds");
    }

    #[test]
    fn spans_are_spelled_in_the_largest_unit_that_fits() {
        for (seconds, text) in
            [(0, "0s"), (60, "1m"), (90, "90s"), (600, "10m"), (3_600, "1h"), (172_800, "48h")]
        {
            assert_eq!(spell(seconds), text);
        }
        assert_eq!(spell(30 * 86_400), "30d");
        assert_eq!(spell(5_400), "90m");
    }
}
