//! When a project is to be synchronised: cron fields, an interval or by hand, in a named time zone, between a start and
//! an end.
//!
//! Pure: everything is computed from the instants handed in. Knows nothing of runs, of the jitter drawn for a fire (the
//! engine draws and stores it); and of missed fires only how long they may be caught up.
//!
//! ```
//! use chrono::{DateTime, Utc};
//! use fleet::schedule::{Cron, CronFields, Schedule};
//!
//! let fields: CronFields = "hour=*/6 minute=10".parse().unwrap();
//! let schedule = Schedule::cron(Cron::parse(fields).unwrap(), chrono_tz::UTC);
//! let now: DateTime<Utc> = "2026-11-20T07:42:00Z".parse().unwrap();
//! let fire = schedule.first_at_or_after(now).unwrap();
//! assert_eq!(fire.to_rfc3339(), "2026-11-20T12:10:00+00:00");
//! ```

mod bits;
mod cron;
mod crontab;
mod dates;
mod expression;
mod named;
mod preview;
mod search;
mod span;
mod spread;
mod tzdata;
mod windows;
mod zones;

use chrono::{DateTime, Duration, SubsecRound, TimeDelta, Utc};
use chrono_tz::Tz;

pub use cron::{
    Cron, CronFields, FIELD_BYTES_MAX, FieldFault, FieldNameFault, YEAR_LAST, YEAR_MAX, YEAR_MIN,
};
pub use crontab::{CRONTAB_BYTES_MAX, parse_crontab};
pub use dates::{DATE_BYTES_MAX, DateFault, ParsedDate, parse_date};
pub use named::{Named, NamedFault};
pub use preview::Fire;
pub use span::{SPAN_SECONDS_MAX, SpanFault, parse_span};
pub use spread::{SPREAD_SECONDS_MAX, phase_seconds};
pub use tzdata::in_zone;
pub use windows::{BadWindow, WINDOWS_MAX, Window};
pub use zones::parse_zone;

/// Shortest period of an interval, in seconds.
pub const EVERY_SECONDS_MIN: u64 = 60;
/// Longest period of an interval, in seconds: 366 days.
pub const EVERY_SECONDS_MAX: u64 = SPAN_SECONDS_MAX;
/// Largest jitter, in seconds: one day.
pub const JITTER_SECONDS_MAX: u32 = 86_400;
/// Longest catch-up window that may be asked for, in seconds: 366 days.
pub const CATCH_UP_SECONDS_MAX: u64 = SPAN_SECONDS_MAX;
/// Bounds of the default catch-up window, which is one period of the schedule.
const CATCH_UP_DEFAULT_MIN: TimeDelta = TimeDelta::hours(6);
const CATCH_UP_DEFAULT_MAX: TimeDelta = TimeDelta::days(7);

/// What makes a project due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cadence {
    /// At the wall-clock times that match all cron fields.
    Cron(Box<Cron>),
    /// A fixed time after the last run.
    Interval {
        /// The period in seconds, [`EVERY_SECONDS_MIN`] to [`EVERY_SECONDS_MAX`].
        every_seconds: u64,
        /// The moment of the last run that the period counts from.
        from: IntervalFrom,
    },
    /// Never by itself.
    Manual,
}

/// The moment of a run that an interval counts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IntervalFrom {
    /// The end of the last run: the upstream always gets the pause.
    #[default]
    End,
    /// The start of the last run: the rate stays the same, however long runs take.
    Start,
}

/// What a cron schedule does with the second reading of a repeated hour, when clocks are set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DstOverlap {
    /// Fires at the first reading only.
    Once,
    /// Fires at both readings.
    Both,
}

/// What a schedule's fire does while a run of the project is going.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverlapPolicy {
    /// Queues one run.
    #[default]
    BufferOne,
    /// Is dropped.
    Skip,
}

/// A project's schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What makes the project due.
    pub cadence: Cadence,
    /// The zone whose wall clock cron fields are read on.
    pub time_zone: Tz,
    /// No fire before this instant; a fire at it counts.
    pub start: Option<DateTime<Utc>>,
    /// No fire after this instant; a fire at it counts.
    pub end: Option<DateTime<Utc>>,
    /// Most seconds that a fire is delayed by at random, up to [`JITTER_SECONDS_MAX`]. Drawn by the engine, not here.
    pub jitter_seconds: u32,
    /// The rule for a repeated hour; `None` is [`Schedule::dst_overlap_in_force`]'s default.
    pub dst_overlap: Option<DstOverlap>,
    /// What a fire does while a run is going.
    pub overlap_policy: OverlapPolicy,
    /// How long after its time a missed fire is still caught up, in seconds, up to [`CATCH_UP_SECONDS_MAX`]; `None` is
    /// [`Schedule::catch_up_window`]'s default.
    pub catch_up_window_seconds: Option<u64>,
    /// When runs that nobody asked for may begin, at most [`WINDOWS_MAX`]; none: always.
    pub windows: Vec<Window>,
    /// Width in seconds of the time after each fire in which projects are spread, up to [`SPREAD_SECONDS_MAX`]; `None` is
    /// [`Schedule::spread_in_force`]'s default.
    pub spread_seconds: Option<u64>,
    /// How far each fire lies behind what the cadence says, in seconds: this project's place in the spread. Set by
    /// [`Schedule::of_project`], 0 in a schedule that belongs to no project.
    pub phase_seconds: u64,
}

impl Schedule {
    /// A schedule of this cadence with every other setting at its default.
    pub const fn new(cadence: Cadence, time_zone: Tz) -> Self {
        Self {
            cadence,
            time_zone,
            start: None,
            end: None,
            jitter_seconds: 0,
            dst_overlap: None,
            overlap_policy: OverlapPolicy::BufferOne,
            catch_up_window_seconds: None,
            windows: Vec::new(),
            spread_seconds: None,
            phase_seconds: 0,
        }
    }

    /// A cron schedule with every other setting at its default.
    pub fn cron(cron: Cron, time_zone: Tz) -> Self {
        Self::new(Cadence::Cron(Box::new(cron)), time_zone)
    }

    /// The first fire at or after `at`, in whole seconds; `None` when there is none up to the end of [`YEAR_LAST`].
    ///
    /// An interval is due at once; where it is its start that is waited for, and no run, after its phase.
    pub fn first_at_or_after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let not_begun = self.start.filter(|start| at < *start);
        let at = whole_seconds_up(not_begun.unwrap_or(at))?;
        let fire = match &self.cadence {
            Cadence::Manual => return None,
            Cadence::Interval { .. } if not_begun.is_some() => self.after_its_phase(at)?,
            Cadence::Interval { .. } => at,
            Cadence::Cron(cron) => {
                let both = self.dst_overlap_in_force() == DstOverlap::Both;
                let phase = self.phase();
                let from = at.timestamp() - phase.num_seconds();
                let fire =
                    DateTime::from_timestamp(search::first_fire(cron, self.time_zone, both, from)?, 0)?;
                self.cut_at_end(at, fire, fire.checked_add_signed(phase)?)
            }
        };
        self.end.is_none_or(|end| fire <= end).then_some(fire)
    }

    /// The first fire strictly after `after`; `None` when there is none up to the end of [`YEAR_LAST`].
    ///
    /// For an interval `after` is the start or the end of the last run, as [`IntervalFrom`] says, and the fire is one
    /// period later.
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let wait = match self.cadence {
            Cadence::Interval { every_seconds, .. } => Duration::try_seconds(every_seconds.try_into().ok()?)?,
            Cadence::Cron(_) | Cadence::Manual => Duration::seconds(1),
        };
        let after = if matches!(self.cadence, Cadence::Cron(_)) { after.trunc_subsecs(0) } else { after };
        self.first_at_or_after(after.checked_add_signed(wait)?)
    }

    /// The fires from `at` on, in order. For an interval: as if every run took no time.
    pub fn fires(&self, at: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        self.fires_from(self.first_at_or_after(at))
    }

    /// As [`Schedule::fires`], with a first one that is known.
    pub fn fires_from(&self, first: Option<DateTime<Utc>>) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        std::iter::successors(first, |last| self.next_after(*last))
    }

    /// How long after its time `at` a missed fire is still caught up: the setting, or one period of the schedule, at
    /// least 6 hours and at most 7 days.
    pub fn catch_up_window(&self, at: DateTime<Utc>) -> TimeDelta {
        if let Some(window) = self.catch_up_window_seconds {
            let seconds = i64::try_from(window.min(CATCH_UP_SECONDS_MAX)).unwrap_or(i64::MAX);
            return TimeDelta::try_seconds(seconds).unwrap_or(TimeDelta::MAX);
        }
        let period = self.first_at_or_after(at).and_then(|fire| Some(self.next_after(fire)? - fire));
        period.unwrap_or(CATCH_UP_DEFAULT_MAX).clamp(CATCH_UP_DEFAULT_MIN, CATCH_UP_DEFAULT_MAX)
    }

    /// The rule for a repeated hour: the setting; without one, `Once` when the hours are plain numbers (a mirror need
    /// not synchronise twice), otherwise `Both` (an hourly schedule must not pause for an hour).
    pub fn dst_overlap_in_force(&self) -> DstOverlap {
        let fixed = matches!(&self.cadence, Cadence::Cron(cron) if cron.hour_is_fixed());
        self.dst_overlap.unwrap_or(if fixed { DstOverlap::Once } else { DstOverlap::Both })
    }

    /// Whether the definition has no fire at all between its start (or 1970) and its end (or [`YEAR_LAST`]). A manual
    /// schedule has none on purpose and is not meant.
    ///
    /// A definition may have fired in the past and be exhausted now: ask [`Schedule::first_at_or_after`] for that.
    pub fn never_matches(&self) -> bool {
        self.cadence != Cadence::Manual && self.first_at_or_after(DateTime::UNIX_EPOCH).is_none()
    }

    /// Everything in this schedule that may not be stored, all at once; empty when it may.
    pub fn faults(&self) -> Vec<FieldFault> {
        let mut faults = Vec::new();
        let mut check = |wrong: bool, field: &'static str, value: String, rule: &str| {
            if wrong {
                faults.push(FieldFault::new(field, &value, rule));
            }
        };
        let seconds = |seconds: u64| format!("{seconds}s");
        if let Cadence::Interval { every_seconds: every, .. } = self.cadence {
            let wrong = !(EVERY_SECONDS_MIN..=EVERY_SECONDS_MAX).contains(&every);
            check(wrong, "interval", seconds(every), "the period must be 1m to 366d");
        }
        let jitter = self.jitter_seconds;
        check(jitter > JITTER_SECONDS_MAX, "jitter", seconds(jitter.into()), "must be 24h at most");
        let window = self.catch_up_window_seconds.unwrap_or(0);
        check(window > CATCH_UP_SECONDS_MAX, "catch_up_window", seconds(window), "must be 366d at most");
        let spread = self.spread_seconds.unwrap_or(0);
        check(spread > SPREAD_SECONDS_MAX, "spread", seconds(spread), "must be 366d at most");
        let windows = self.windows.len();
        let rule = format!("at most {WINDOWS_MAX} are accepted");
        check(windows > WINDOWS_MAX, "windows", format!("{windows} given"), &rule);
        let backwards = matches!((self.start, self.end), (Some(start), Some(end)) if end < start);
        let end = self.end.map(|end| end.to_rfc3339()).unwrap_or_default();
        check(backwards, "end_time", end, "must not be before start_time");
        if let (Cadence::Cron(cron), false) = (&self.cadence, backwards) {
            let rule = format!("never matches from start_time on, up to end_time or the year {YEAR_LAST}");
            check(self.never_matches(), "cron", cron.fields().to_string(), &rule);
        }
        faults
    }
}

/// The first whole second at or after `time`.
fn whole_seconds_up(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let whole = time.trunc_subsecs(0);
    if whole == time { Some(time) } else { whole.checked_add_signed(TimeDelta::seconds(1)) }
}
