//! A cron trigger: eight fields, all of which must match, and the walk to the next matching wall-clock time.
//!
//! The semantics are those of APScheduler's `CronTrigger`, without its sloppy parses: weekday 0 is Monday, weeks are
//! ISO weeks, and fields finer than the finest given one take their minimum. Knows no zone and no clock: what walks
//! here is the reading on a wall clock; [`super::search`] turns it into instants.

use std::fmt;
use std::str::FromStr;

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use super::Named;
use super::bits::{Bits, Years};
use super::expression::{self, FIELDS, Spec};

/// First year of the `year` field.
pub const YEAR_MIN: u32 = 1970;
/// Last year the `year` field accepts.
pub const YEAR_MAX: u32 = 9999;
/// Last year the search looks at. A definition that only matches later counts as one that never matches.
pub const YEAR_LAST: u32 = 2199;
/// Longest text of one field, in bytes.
pub const FIELD_BYTES_MAX: usize = 512;
/// How much of a faulty value an error shows, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// One thing wrong in one field of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?}: {rule}")]
pub struct FieldFault {
    /// The field, as the API names it (`minute`, `time_zone`, `crontab`).
    pub field: &'static str,
    /// The faulty part as typed, cut to a length fit for a terminal.
    pub value: String,
    /// The rule that it breaks, with the allowed range.
    pub rule: String,
}

impl FieldFault {
    pub(super) fn new(field: &'static str, value: &str, rule: impl Into<String>) -> Self {
        let mut value: String = value.chars().take(SHOWN_CHARS_MAX + 1).collect();
        if value.chars().count() > SHOWN_CHARS_MAX {
            value.pop();
            value.push('…');
        }
        Self { field, value, rule: rule.into() }
    }
}

/// A field name that does not exist, or that was given twice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldNameFault {
    /// There is no such field.
    #[error("{0:?}: no such field; use year, month, day, week, day_of_week, hour, minute or second")]
    Unknown(String),
    /// The same field twice.
    #[error("{0}: given twice")]
    Twice(&'static str),
    /// Text without a field name before it.
    #[error("{0:?}: write each field as name=value, as in minute=10 hour=*/6")]
    Nameless(String),
}

/// The eight fields as the user gave them; `None` is a field not given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the fields are the names of the calendar's units")]
pub struct CronFields {
    pub year: Option<String>,
    pub month: Option<String>,
    pub day: Option<String>,
    pub week: Option<String>,
    pub day_of_week: Option<String>,
    pub hour: Option<String>,
    pub minute: Option<String>,
    pub second: Option<String>,
}

impl CronFields {
    /// The texts from the coarsest field to the finest, in the order of [`FIELDS`].
    fn texts(&self) -> [Option<&str>; 8] {
        [
            &self.year,
            &self.month,
            &self.day,
            &self.week,
            &self.day_of_week,
            &self.hour,
            &self.minute,
            &self.second,
        ]
        .map(|text| text.as_deref())
    }

    /// Sets a field by its name, once.
    ///
    /// # Errors
    /// An unknown name, or a field that is set already. The text itself is judged by [`Cron::parse`].
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), FieldNameFault> {
        let (slot, name) = match name {
            "year" => (&mut self.year, "year"),
            "month" => (&mut self.month, "month"),
            "day" => (&mut self.day, "day"),
            "week" => (&mut self.week, "week"),
            "day_of_week" => (&mut self.day_of_week, "day_of_week"),
            "hour" => (&mut self.hour, "hour"),
            "minute" => (&mut self.minute, "minute"),
            "second" => (&mut self.second, "second"),
            _ => return Err(FieldNameFault::Unknown(name.to_owned())),
        };
        if slot.is_some() {
            return Err(FieldNameFault::Twice(name));
        }
        *slot = Some(text.to_owned());
        Ok(())
    }
}

impl fmt::Display for CronFields {
    /// The given fields, finest first, as `minute=10 hour=*/6`; `every second` when none is given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (spec, text) in FIELDS.iter().zip(self.texts()).rev() {
            if let Some(text) = text {
                write!(f, "{separator}{}={text}", spec.name)?;
                separator = " ";
            }
        }
        if separator.is_empty() { f.write_str("every second") } else { Ok(()) }
    }
}

impl FromStr for CronFields {
    type Err = FieldNameFault;

    /// Reads `minute=10 hour=*/6 day=2nd fri`: a word without `=` belongs to the field before it.
    fn from_str(text: &str) -> Result<Self, FieldNameFault> {
        let mut given: Vec<(&str, String)> = Vec::new();
        for word in text.split_whitespace() {
            match (word.split_once('='), given.last_mut()) {
                (Some((name, value)), _) => given.push((name, value.to_owned())),
                (None, Some((_, value))) => {
                    value.push(' ');
                    value.push_str(word);
                }
                (None, None) => return Err(FieldNameFault::Nameless(word.to_owned())),
            }
        }
        let mut fields = Self::default();
        for (name, value) in given {
            fields.set(name, &value)?;
        }
        Ok(fields)
    }
}

/// The days of a month that the `day` field allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Days {
    /// Days by number, 1 to 31.
    pub(super) numbers: Bits,
    /// The last day of the month.
    pub(super) last: bool,
    /// Per position (first to fifth), the weekdays it is asked for.
    pub(super) nth: [Bits; 5],
    /// The weekdays whose last occurrence is asked for.
    pub(super) last_weekdays: Bits,
}

impl Days {
    /// The matching days of a month of `length` days whose day 1 falls on `first_weekday` (0 = Monday).
    const fn in_month(&self, length: u32, first_weekday: u32) -> Bits {
        let mut days = self.numbers;
        let mut position = 0;
        while position < 5 {
            let week = Bits::span(7 * position + 1, 7 * position + 7);
            let on_weekday = self.nth[position as usize].weekdays_as_days(first_weekday);
            days = days.or(on_weekday.and(week));
            position += 1;
        }
        let final_week = Bits::span(length - 6, length);
        days = days.or(self.last_weekdays.weekdays_as_days(first_weekday).and(final_week));
        if self.last {
            days.insert(length);
        }
        days.and(Bits::span(1, length))
    }
}

/// A parsed cron trigger: the texts as given, and what they match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    fields: CronFields,
    years: Years,
    months: Bits,
    days: Days,
    weeks: Bits,
    weekdays: Bits,
    hours: Bits,
    minutes: Bits,
    seconds: Bits,
    hour_is_fixed: bool,
    named: Option<Named>,
}

impl Cron {
    /// Parses the fields.
    ///
    /// A field not given is `*` when a finer one is given, else its default: month 1, day 1, hour, minute and second
    /// 0, year, week and day_of_week `*`. No field at all fires every second.
    ///
    /// # Errors
    /// Every fault of every field.
    pub fn parse(fields: CronFields) -> Result<Self, Vec<FieldFault>> {
        let texts = fields.texts();
        let finest = texts.iter().rposition(Option::is_some);
        let effective: [&str; 8] = std::array::from_fn(|index| match (texts[index], finest) {
            (Some(text), _) => text,
            (None, Some(finest)) if index > finest => FIELDS[index].default,
            (None, _) => "*",
        });
        let mut faults = Vec::new();
        let mut read = |index: usize| {
            let spec: &Spec = &FIELDS[index];
            expression::parse(spec, effective[index]).unwrap_or_else(|more| {
                faults.extend(more);
                expression::Values::default()
            })
        };
        let [year, month, day, week, weekday, hour, minute, second] = std::array::from_fn(&mut read);
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            years: year.years,
            months: month.numbers,
            days: Days { numbers: day.numbers, ..day.days },
            weeks: week.numbers,
            weekdays: weekday.numbers,
            hours: hour.numbers,
            minutes: minute.numbers,
            seconds: second.numbers,
            hour_is_fixed: hour.only_plain_numbers,
            named: None,
            fields,
        })
    }

    /// This trigger, as the one that a name stands for.
    pub(super) fn called(self, named: Named) -> Self {
        Self { named: Some(named), ..self }
    }

    /// The name it was given by; `None`: by its fields.
    pub const fn named(&self) -> Option<Named> {
        self.named
    }

    /// The fields as given, for echo and store.
    pub const fn fields(&self) -> &CronFields {
        &self.fields
    }

    /// Whether the hours are plain numbers (`2`, `1,13`, or the default 0) rather than `*`, a range or a step.
    pub const fn hour_is_fixed(&self) -> bool {
        self.hour_is_fixed
    }

    /// Whether a wall-clock time matches all fields.
    pub(super) fn matches(&self, wall: NaiveDateTime) -> bool {
        self.hours.contains(wall.hour())
            && self.minutes.contains(wall.minute())
            && self.seconds.contains(wall.second())
            && self.matches_date(wall.date())
    }

    /// The first matching wall-clock time at or after `from`, up to the end of [`YEAR_LAST`].
    pub(super) fn next_wall(&self, from: NaiveDateTime) -> Option<NaiveDateTime> {
        let date = from.date();
        if self.matches_date(date)
            && let Some(time) = self.next_time(from.time())
        {
            return Some(date.and_time(time));
        }
        Some(self.next_date(date.succ_opt()?)?.and_time(self.next_time(NaiveTime::MIN)?))
    }

    fn matches_date(&self, date: NaiveDate) -> bool {
        self.years.contains(date.year_ce().1)
            && self.months.contains(date.month())
            && self.days_in(date).contains(date.day())
    }

    /// The first matching time of day at or after `from`.
    fn next_time(&self, from: NaiveTime) -> Option<NaiveTime> {
        let (hour, minute) = (from.hour(), from.minute());
        if self.hours.contains(hour) {
            if self.minutes.contains(minute)
                && let Some(second) = self.seconds.next(from.second())
            {
                return NaiveTime::from_hms_opt(hour, minute, second);
            }
            if let Some(minute) = self.minutes.next(minute + 1) {
                return NaiveTime::from_hms_opt(hour, minute, self.seconds.next(0)?);
            }
        }
        NaiveTime::from_hms_opt(self.hours.next(hour + 1)?, self.minutes.next(0)?, self.seconds.next(0)?)
    }

    /// The first matching date at or after `from`: skips by year, then by month, then by day.
    fn next_date(&self, from: NaiveDate) -> Option<NaiveDate> {
        let start_year = from.year_ce().1.max(YEAR_MIN);
        for year in (start_year..=YEAR_LAST).filter(|year| self.years.contains(*year)) {
            let year = i32::try_from(year).ok()?;
            let mut next_month = if year == from.year() { from.month() } else { 1 };
            while let Some(month) = self.months.next(next_month) {
                let first = NaiveDate::from_ymd_opt(year, month, 1)?;
                let from_day =
                    if first.year() == from.year() && month == from.month() { from.day() } else { 1 };
                if let Some(day) = self.days_in(first).next(from_day) {
                    return first.with_day(day);
                }
                next_month = month + 1;
            }
        }
        None
    }

    /// The matching days of the month that holds `date`: `day`, `week` and `day_of_week` together.
    fn days_in(&self, date: NaiveDate) -> Bits {
        let length = u32::from(date.num_days_in_month());
        let first_weekday = (date.weekday().num_days_from_monday() + 35 - (date.day() - 1)) % 7;
        let days =
            self.days.in_month(length, first_weekday).and(self.weekdays.weekdays_as_days(first_weekday));
        if days.is_empty() || self.weeks == expression::ALL_WEEKS {
            return days;
        }
        days.and(self.days_in_weeks(date, length, first_weekday))
    }

    /// The days of the month that lie in one of the asked ISO weeks.
    fn days_in_weeks(&self, date: NaiveDate, length: u32, first_weekday: u32) -> Bits {
        let mut days = Bits::default();
        let mut monday_or_first = 1;
        let mut sunday = 7 - first_weekday;
        while monday_or_first <= length {
            let week = date.with_day(monday_or_first).map_or(0, |day| day.iso_week().week());
            if self.weeks.contains(week) {
                days = days.or(Bits::span(monday_or_first, sunday));
            }
            monday_or_first = sunday + 1;
            sunday += 7;
        }
        days
    }
}
