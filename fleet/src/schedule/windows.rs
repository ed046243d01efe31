//! Windows: the times of day and week in which runs that nobody asked for may begin, by what the wall clock of the
//! schedule's zone reads. A change of the clock can therefore open or close a window, as people who look at a clock
//! expect; a window that lies wholly in an hour that a clock change skips does not open that day.
//!
//! Knows nothing of runs.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Datelike as _, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc, Weekday};
use chrono_tz::Tz;

use super::{
    Schedule,
    tzdata::{Read, change_near, in_zone, read_at, reading, seconds},
};

/// Most windows of a schedule.
pub const WINDOWS_MAX: usize = 16;
/// Minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;
/// How far ahead an opening is looked for, in days: two weeks, because a zone that crosses the date line can skip the
/// only day of a week.
const SEARCH_DAYS: u64 = 16;

/// One window: from `start` to `end`, on some days of the week. The end may lie on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    start: u16,
    end: u16,
    days: u8,
}

/// Why two times make no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWindow {
    /// No two times of day.
    #[error("write START-END as in 22:00-06:00, each 00:00 to 23:59")]
    Times,
    /// It would be all day or never.
    #[error("begins when it ends; leave it out to allow the whole day")]
    Empty,
}

/// A time of day in minutes, `HH:MM`.
fn minute_of(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

impl Window {
    /// A window from one time of day to another, each `HH:MM`, opening on `days`; none stand for all.
    ///
    /// # Errors
    /// [`BadWindow`].
    pub fn new(start: &str, end: &str, days: &[Weekday]) -> Result<Self, BadWindow> {
        let (start, end) = minute_of(start).zip(minute_of(end)).ok_or(BadWindow::Times)?;
        if start == end {
            return Err(BadWindow::Empty);
        }
        let bits = days.iter().fold(0, |bits, day| bits | bit(*day));
        Ok(Self { start, end, days: bits })
    }

    /// When it opens, `HH:MM`.
    #[must_use]
    pub fn start(&self) -> String {
        clock(self.start)
    }

    /// When it closes, `HH:MM`; on the next day when that is not after its start.
    #[must_use]
    pub fn end(&self) -> String {
        clock(self.end)
    }

    /// The days on which it opens, Monday first; none stand for all.
    #[must_use]
    pub fn days(&self) -> Vec<Weekday> {
        WEEK.into_iter().filter(|day| self.days & bit(*day) != 0).collect()
    }

    fn opens_on(&self, day: Weekday) -> bool {
        self.days == 0 || self.days & bit(day) != 0
    }

    /// Whether a wall clock that reads this is inside.
    fn holds(&self, wall: NaiveDateTime) -> bool {
        let since_midnight = wall.time().signed_duration_since(NaiveTime::MIN).num_minutes();
        let minute = u16::try_from(since_midnight).unwrap_or(DAY_MINUTES);
        let today = wall.date().weekday();
        if self.start < self.end {
            return self.opens_on(today) && (self.start..self.end).contains(&minute);
        }
        (self.opens_on(today) && minute >= self.start) || (self.opens_on(today.pred()) && minute < self.end)
    }
}

const WEEK: [Weekday; 7] =
    [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun];

fn bit(day: Weekday) -> u8 {
    1 << day.num_days_from_monday()
}

fn clock(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

impl fmt::Display for Window {
    /// `22:00-06:00`, or `22:00-06:00 sat,sun`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start(), self.end())?;
        let names: Vec<String> = self.days().iter().map(|day| day.to_string().to_lowercase()).collect();
        if names.is_empty() { Ok(()) } else { write!(f, " {}", names.join(",")) }
    }
}

impl FromStr for Window {
    type Err = BadWindow;

    /// Reads what is displayed.
    fn from_str(text: &str) -> Result<Self, BadWindow> {
        let text = text.trim();
        let (times, days) = text.split_once(' ').unwrap_or((text, ""));
        let (start, end) = times.split_once('-').ok_or(BadWindow::Times)?;
        let days = days.trim().split(',').filter(|day| !day.is_empty());
        let days: Result<Vec<Weekday>, _> = days.map(str::parse).collect();
        Self::new(start, end, &days.map_err(|_| BadWindow::Times)?)
    }
}

impl Schedule {
    /// Whether a run that nobody asked for may begin at `at`. Without windows: always.
    #[must_use]
    pub fn is_open(&self, at: DateTime<Utc>) -> bool {
        self.windows.is_empty() || self.reads_inside(in_zone(self.time_zone, at).naive_local())
    }

    fn reads_inside(&self, wall: NaiveDateTime) -> bool {
        self.windows.iter().any(|window| window.holds(wall))
    }

    /// The first instant at or after `at` that is inside a window; `None`: none opens within two weeks, which only a
    /// day that a zone leaves out can bring about.
    #[must_use]
    pub fn next_opening(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.is_open(at) {
            return Some(at);
        }
        let today = in_zone(self.time_zone, at).date_naive();
        let first = today.checked_sub_days(Days::new(1))?;
        let mut found: Option<i64> = None;
        for offset in 0..SEARCH_DAYS {
            let day = first.checked_add_days(Days::new(offset))?;
            let had = found.is_some();
            for opening in self.openings_on(day) {
                if opening > at.timestamp() && self.is_open(DateTime::from_timestamp(opening, 0)?) {
                    found = Some(found.map_or(opening, |best| best.min(opening)));
                }
            }
            // A change of the clock can swap the order of two days' openings, of more it cannot.
            if had {
                break;
            }
        }
        DateTime::from_timestamp(found?, 0)
    }

    /// The instants at which the wall clock may begin to read the inside of a window on this day: when it reads a
    /// start, and when it is changed.
    fn openings_on(&self, day: NaiveDate) -> Vec<i64> {
        let zone: Tz = self.time_zone;
        let midnight = day.and_time(NaiveTime::MIN);
        let mut openings: Vec<i64> = Vec::with_capacity(self.windows.len() + 1);
        openings.extend(change_near(zone, seconds(midnight)).map(|change| change.at));
        for window in &self.windows {
            let wall = midnight + TimeDelta::minutes(window.start.into());
            match read_at(zone, wall) {
                Read::Once(at) => openings.push(at),
                Read::Twice(first) => {
                    openings.push(first);
                    let second = change_near(zone, seconds(wall)).map(|change| seconds(wall) - change.after);
                    openings.extend(second.filter(|at| reading(*at).is_some()));
                }
                Read::Never(change) => openings.push(change.at),
            }
        }
        openings
    }
}
