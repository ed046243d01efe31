//! Fires as people read them: local time, offset, and a remark where a change of offset moved or doubled them.
//!
//! Knows nothing of the present, so nothing here says "in 4h".

use std::fmt;

use chrono::{DateTime, FixedOffset, NaiveDateTime, Timelike, Utc};

use super::tzdata::{Read, in_zone, read_at};
use super::{Cadence, DstOverlap, Schedule, search};

/// One fire with its reading on the schedule's wall clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fire {
    /// The instant, with the offset that the schedule's zone has then.
    pub time: DateTime<FixedOffset>,
    /// What a change of offset did to it, as in `02:30 does not exist that day: shifted`.
    pub remark: Option<String>,
}

impl fmt::Display for Fire {
    /// `2027-03-28 03:30:00 +02:00`, without the remark.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.time.format("%Y-%m-%d %H:%M:%S %:z"))
    }
}

impl Schedule {
    /// How one of this schedule's fires reads on its own wall clock.
    pub fn describe(&self, fire: DateTime<Utc>) -> Fire {
        let remarks = [self.remark(fire), self.window_remark(fire)];
        let remarks: Vec<String> = remarks.into_iter().flatten().collect();
        Fire {
            time: in_zone(self.time_zone, fire),
            remark: (!remarks.is_empty()).then(|| remarks.join("; ")),
        }
    }

    /// Where the fire lies outside of all windows: when its run may begin.
    fn window_remark(&self, fire: DateTime<Utc>) -> Option<String> {
        let opening = self.next_opening(fire).filter(|opening| *opening != fire)?;
        let opening = in_zone(self.time_zone, opening);
        Some(format!("waits for the window at {}", opening.format("%Y-%m-%d %H:%M %:z")))
    }

    fn remark(&self, fire: DateTime<Utc>) -> Option<String> {
        let Cadence::Cron(cron) = &self.cadence else { return None };
        // What a change of the clock does, it does to the time by the fields.
        let fire = fire.checked_sub_signed(self.phase())?;
        let wall = in_zone(self.time_zone, fire).naive_local();
        if !cron.matches(wall) {
            let skipped = search::skipped_reading(self.time_zone, fire.timestamp())?;
            // Of a fire that its phase would have taken over the end, nothing is to be said.
            return cron
                .matches(skipped)
                .then(|| format!("{} does not exist that day: shifted", clock(skipped)));
        }
        let Read::Twice(first) = read_at(self.time_zone, wall) else { return None };
        let which = match self.dst_overlap_in_force() {
            DstOverlap::Once => "fires the first time only",
            DstOverlap::Both if fire.timestamp() == first => "the first time",
            DstOverlap::Both => "the second time",
        };
        Some(format!("{} comes twice that day: {which}", clock(wall)))
    }
}

/// A time of day, with seconds only where there are any.
pub(super) fn clock(wall: NaiveDateTime) -> String {
    let format = if wall.second() == 0 { "%H:%M" } else { "%H:%M:%S" };
    wall.format(format).to_string()
}
