//! From wall-clock matches to instants: the first fire of a trigger in a named zone.
//!
//! The rule around changes of the offset ("clean": nothing lost, nothing doubled): a trigger fires at every instant
//! whose wall clock matches. When the clock jumps forward over matching times, the first of them fires once, shifted by
//! the jump, unless the time one hour before it matches too. When the clock jumps back, the second reading of an hour
//! fires only if asked. Knows nothing of start, end, jitter or missed fires.

use chrono::{NaiveDateTime, TimeDelta};
use chrono_tz::Tz;

use super::cron::Cron;
use super::tzdata::{Change, NEAR_SECONDS, Read, change_near, offset_at, read_at, reading, seconds};

/// The hour whose match takes the place of a fire inside a forward jump.
const HOUR: TimeDelta = TimeDelta::hours(1);
/// No zone's wall clock reads 1970 before this instant, in seconds since 1970.
const EARLIEST: i64 = -NEAR_SECONDS;
/// 2200-01-02, in seconds since 1970: no zone's wall clock still reads the year [`super::cron::YEAR_LAST`].
const LATEST: i64 = 7_258_204_800;

/// Where the search goes on after the neighbourhood of a change.
enum Step {
    Fire(i64),
    /// No fire near the change; this is the next matching wall-clock time.
    Wall(NaiveDateTime),
}

/// The first fire at or after `at` (seconds since 1970); `both` also fires at the second reading of a repeated hour.
/// `None` when nothing matches until the last year searched.
pub(super) fn first_fire(cron: &Cron, zone: Tz, both: bool, at: i64) -> Option<i64> {
    let mut at = at.max(EARLIEST);
    loop {
        if at > LATEST {
            return None;
        }
        let wall = match change_near(zone, at) {
            None => cron.next_wall(reading(at + offset_at(zone, at))?)?,
            Some(change) => match around(cron, change, both, at)? {
                Step::Fire(fire) => return Some(fire),
                Step::Wall(wall) => wall,
            },
        };
        match read_at(zone, wall) {
            Read::Once(fire) | Read::Twice(fire) => return Some(fire),
            // Inside a forward jump still ahead: decide there. Each round reaches a later change, so this ends.
            Read::Never(change) => at = change.at,
        }
    }
}

/// The search on the two sides of a change: before it, in the jump itself, after it.
fn around(cron: &Cron, change: Change, both: bool, at: i64) -> Option<Step> {
    let Change { at: changed, before, after } = change;
    if at < changed
        && let Some(wall) = cron.next_wall(reading(at + before)?)
        && seconds(wall) < changed + before
    {
        return Some(Step::Fire(seconds(wall) - before));
    }
    let shifted = shifted_fire(cron, change).filter(|fire| *fire >= at);
    let mut from = at.max(changed) + after;
    if !both {
        // Up to here the wall clock reads times it has read before.
        from = from.max(changed + before);
    }
    let next = cron.next_wall(reading(from)?);
    match (shifted, next) {
        (Some(shifted), Some(wall)) => Some(Step::Fire(shifted.min(seconds(wall) - after))),
        (Some(shifted), None) => Some(Step::Fire(shifted)),
        (None, Some(wall)) if seconds(wall) < changed + before => Some(Step::Fire(seconds(wall) - after)),
        (None, Some(wall)) => Some(Step::Wall(wall)),
        (None, None) => None,
    }
}

/// The one fire of a forward jump: its first matching time, shifted by the jump, unless the hour before matches.
fn shifted_fire(cron: &Cron, change: Change) -> Option<i64> {
    let wall = cron.next_wall(reading(change.at + change.before)?)?;
    let inside = seconds(wall) < change.at + change.after;
    (inside && !cron.matches(wall - HOUR)).then(|| seconds(wall) - change.before)
}

/// What the clock on the wall said to a fire that no field matches: the time inside a forward jump that was shifted.
pub(super) fn skipped_reading(zone: Tz, fire: i64) -> Option<NaiveDateTime> {
    let change = change_near(zone, fire).filter(|change| change.at <= fire)?;
    reading(fire + change.before)
}
