//! Offsets of time zones, and what they make of a wall-clock time: read once, twice or never.
//!
//! Every look into the zone database goes through [`offset_at`]: it is chrono-tz's data, plus the changes of rules that
//! became law after that data was compiled. Knows nothing of schedules.

use chrono::{DateTime, FixedOffset, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;

/// How far around an instant a change of offset matters, in seconds. The largest change of any zone since 1970 is
/// one day (islands that crossed the date line), and no zone has two changes within four days.
pub(super) const NEAR_SECONDS: i64 = 86_400;

/// A change of rules that the compiled data does not have.
enum Amendment {
    /// This offset from UTC, in seconds, from the first instant until before the second, in seconds since 1970.
    Fixed { offset: i64, from: i64, until: i64 },
    /// From this instant on, clocks change this many seconds later than the compiled data says.
    Later { seconds: i64, from: i64 },
}

/// What the zone database 2026f says that chrono-tz 0.10.4 (2025b) does not; a test fails when chrono-tz moves on.
#[allow(clippy::wildcard_enum_match_arm, reason = "every other one of 600 zones is up to date")]
const fn amendment(zone: Tz) -> Option<Amendment> {
    use Amendment::{Fixed, Later};
    const NOVEMBER_2026: i64 = 1_793_491_200;
    const HOUR: i64 = 3_600;
    Some(match zone {
        // Summer time all year, since the autumn of 2026.
        Tz::America__Vancouver | Tz::Canada__Pacific => {
            Fixed { offset: -7 * HOUR, from: NOVEMBER_2026 + 9 * HOUR, until: i64::MAX }
        }
        Tz::America__Edmonton | Tz::America__Inuvik | Tz::America__Yellowknife | Tz::Canada__Mountain => {
            Fixed { offset: -6 * HOUR, from: NOVEMBER_2026 + 8 * HOUR, until: i64::MAX }
        }
        Tz::America__Winnipeg | Tz::America__Rainy_River | Tz::Canada__Central => {
            Fixed { offset: -5 * HOUR, from: NOVEMBER_2026 + 7 * HOUR, until: i64::MAX }
        }
        // Summer time through one winter.
        Tz::America__Havana | Tz::Cuba => {
            Fixed { offset: -4 * HOUR, from: NOVEMBER_2026 + 5 * HOUR, until: 1_805_000_400 }
        }
        // Back to UTC for good.
        Tz::Africa__Casablanca | Tz::Africa__El_Aaiun => {
            Fixed { offset: 0, from: 1_789_866_000, until: i64::MAX }
        }
        // Changes at the same instant as the European Union, an hour later than compiled.
        Tz::Europe__Chisinau | Tz::Europe__Tiraspol => Later { seconds: HOUR, from: 1_640_995_200 },
        _ => return None,
    })
}

/// A zone's offset from UTC at an instant (seconds since 1970), in seconds.
pub(super) fn offset_at(zone: Tz, at: i64) -> i64 {
    let at = match amendment(zone) {
        Some(Amendment::Fixed { offset, from, until }) if at >= from && at < until => return offset,
        Some(Amendment::Later { seconds, from }) if at >= from => at - seconds,
        _ => at,
    };
    let compiled = |utc: NaiveDateTime| zone.offset_from_utc_datetime(&utc).fix().local_minus_utc();
    reading(at).map_or(0, |utc| i64::from(compiled(utc)))
}

/// An instant with the offset that a zone has then: what its wall clock reads.
pub fn in_zone(zone: Tz, instant: DateTime<Utc>) -> DateTime<FixedOffset> {
    let offset = i32::try_from(offset_at(zone, instant.timestamp())).ok().and_then(FixedOffset::east_opt);
    // Offsets come from the database, all within a day of UTC.
    instant.with_timezone(&offset.unwrap_or_else(|| Utc.fix()))
}

/// One change of a zone's offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// The first instant of the new offset, in seconds since 1970.
    pub(super) at: i64,
    /// The offset from UTC before it, in seconds.
    pub(super) before: i64,
    /// The offset from UTC from it on, in seconds.
    pub(super) after: i64,
}

/// The change of offset within a day of `at`, if there is one.
pub(super) fn change_near(zone: Tz, at: i64) -> Option<Change> {
    let (mut low, mut high) = (at - NEAR_SECONDS, at + NEAR_SECONDS);
    let (before, after) = (offset_at(zone, low), offset_at(zone, high));
    if before == after {
        return None;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if offset_at(zone, middle) == before { low = middle } else { high = middle }
    }
    Some(Change { at: high, before, after })
}

/// When a wall clock reads a given time, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) enum Read {
    /// At one instant.
    Once(i64),
    /// At two, because the clock was set back in between; this is the first.
    Twice(i64),
    /// Never: this change skips it.
    Never(Change),
}

/// When the wall clock of a zone reads `wall`.
pub(super) fn read_at(zone: Tz, wall: NaiveDateTime) -> Read {
    let wall = seconds(wall);
    // Offsets stay within a day of UTC, so the change that matters to a reading is as near to it as to the instant.
    let Some(change) = change_near(zone, wall) else { return Read::Once(wall - offset_at(zone, wall)) };
    let (first, second) = (wall - change.before, wall - change.after);
    match (first < change.at, second >= change.at) {
        (true, true) => Read::Twice(first),
        (true, false) => Read::Once(first),
        (false, true) => Read::Once(second),
        (false, false) => Read::Never(change),
    }
}

/// Seconds since 1970 as a calendar reading; `None` only far outside of the years searched.
pub(super) fn reading(seconds: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp(seconds, 0).map(|time| time.naive_utc())
}

/// The inverse of [`reading`].
pub(super) const fn seconds(reading: NaiveDateTime) -> i64 {
    reading.and_utc().timestamp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amendments_belong_to_this_release_of_the_compiled_data() {
        assert_eq!(chrono_tz::IANA_TZDB_VERSION, "2025b", "drop the amendments that the new data has");
    }

    #[test]
    fn amended_zones_follow_the_newer_rules() {
        let offset = |zone, time: &str| {
            let at = DateTime::parse_from_rfc3339(time).unwrap().timestamp();
            offset_at(zone, at) / 60
        };
        assert_eq!(offset(Tz::America__Vancouver, "2026-01-15T00:00:00Z"), -480);
        assert_eq!(offset(Tz::America__Vancouver, "2027-01-15T00:00:00Z"), -420);
        assert_eq!(offset(Tz::America__Edmonton, "2040-01-15T00:00:00Z"), -360);
        assert_eq!(offset(Tz::Canada__Central, "2026-12-15T00:00:00Z"), -300);
        assert_eq!(offset(Tz::America__Havana, "2027-03-14T04:59:59Z"), -240);
        assert_eq!(offset(Tz::America__Havana, "2027-12-01T00:00:00Z"), -300);
        assert_eq!(offset(Tz::Africa__Casablanca, "2026-12-01T00:00:00Z"), 0);
        assert_eq!(offset(Tz::Europe__Chisinau, "2026-03-29T00:59:59Z"), 120);
        assert_eq!(offset(Tz::Europe__Chisinau, "2026-03-29T01:00:00Z"), 180);
    }
}
