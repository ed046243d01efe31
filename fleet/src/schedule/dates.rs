//! Start and end times as people write them: RFC 3339, `2026-11-20 18:00`, what `date` prints, and RFC 2822.
//!
//! Nothing is guessed: prose, two-digit years, `05/07/2014` and ambiguous zone words are refused with what to write
//! instead. Without an offset the text is a wall-clock time in the zone handed in, UTC when there is none, never the
//! host's. Knows nothing of the present, so there is no "tomorrow".

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;

use super::cron::{YEAR_MAX, YEAR_MIN};
use super::expression::{MONTHS, WEEKDAYS};
use super::preview::clock;
use super::tzdata::{Read, read_at, seconds};
use super::zones::meant_by;

/// Longest text of a time, in bytes.
pub const DATE_BYTES_MAX: usize = 64;
/// What IST is read as, in seconds east of UTC: Indian time, +05:30.
const IST_SECONDS: i32 = 19_800;
const FORMS: &str = "not a time; write 2026-11-20, 2026-11-20 18:00, RFC 3339 (2026-11-20T18:00:00Z), RFC 2822, or \
                     what date -u prints";

/// A time that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedDate {
    /// The instant.
    pub time: DateTime<Utc>,
    /// What the user should know about how it was read.
    pub notes: Vec<String>,
}

/// A text that is no time in the accepted forms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?}: {rule}")]
pub struct DateFault {
    /// The text as typed, cut to [`DATE_BYTES_MAX`] characters.
    pub value: String,
    /// The rule that it breaks, and what to write instead.
    pub rule: String,
}

/// A text taken apart.
struct Stamp {
    wall: NaiveDateTime,
    offset: Option<ZoneWord>,
}

/// An offset from UTC, in seconds, and what to say about it.
struct ZoneWord {
    seconds: i32,
    note: Option<String>,
}

/// Reads a time; without an offset in the text it is wall time in `zone`, UTC when `zone` is `None`.
///
/// # Errors
/// A text outside of the accepted forms, a date or time of day that does not exist, or a zone word other than UTC, GMT,
/// Z and IST.
pub fn parse_date(text: &str, zone: Option<Tz>) -> Result<ParsedDate, DateFault> {
    let fault = |rule| DateFault { value: text.chars().take(DATE_BYTES_MAX).collect(), rule };
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed.len() > DATE_BYTES_MAX || !trimmed.is_ascii() {
        return Err(fault(FORMS.to_owned()));
    }
    let stamp = if trimmed.starts_with(|first: char| first.is_ascii_digit()) && trimmed.contains('-') {
        numeric(trimmed).or_else(|rule| worded(trimmed).map_err(|_| rule))
    } else {
        worded(trimmed)
    };
    let Stamp { wall, offset } = stamp.map_err(fault)?;
    match offset {
        Some(ZoneWord { seconds: east, note }) => {
            let time = wall.and_utc() - TimeDelta::seconds(east.into());
            Ok(ParsedDate { time, notes: note.into_iter().collect() })
        }
        None => on_the_wall(wall, zone.unwrap_or(Tz::UTC)).ok_or_else(|| fault(FORMS.to_owned())),
    }
}

/// A wall-clock time in a zone: one that clocks skip moves forward by the jump, one that comes twice is the first.
fn on_the_wall(wall: NaiveDateTime, zone: Tz) -> Option<ParsedDate> {
    let (date, time, name) = (wall.date(), clock(wall), zone.name());
    let (instant, note) = match read_at(zone, wall) {
        Read::Once(instant) => (instant, None),
        Read::Twice(first) => {
            let note = "the first is meant; add an offset for the other";
            (first, Some(format!("{time} comes twice on {date} in {name}: {note}")))
        }
        Read::Never(change) => {
            let moved = clock(wall + TimeDelta::seconds(change.after - change.before));
            let note = format!("{time} does not exist on {date} in {name}: moved to {moved}");
            (seconds(wall) - change.before, Some(note))
        }
    };
    let time = DateTime::from_timestamp(instant, wall.nanosecond())?;
    Some(ParsedDate { time, notes: note.into_iter().collect() })
}

/// `2026-11-20`, `2026-11-20 18:00[:00[.5]]`, the same with `T`, with or without an offset.
fn numeric(text: &str) -> Result<Stamp, String> {
    let Some((date, rest)) = text.split_once([' ', 'T', 't']) else {
        return Ok(Stamp { wall: calendar_date(text)?.and_time(NaiveTime::MIN), offset: None });
    };
    let date = calendar_date(date)?;
    let rest = rest.trim_start_matches(' ');
    let end = rest.find(|c: char| !c.is_ascii_digit() && !":.,".contains(c)).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(end);
    let zone: Vec<&str> = zone.split_whitespace().collect();
    Ok(Stamp { wall: date.and_time(time_of_day(time, None)?), offset: zone_words(&zone)? })
}

fn calendar_date(text: &str) -> Result<NaiveDate, String> {
    let mut parts = text.split('-');
    let (Some(year), Some(month), Some(day), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(FORMS.to_owned());
    };
    let month = number(month, 1, 2).ok_or(FORMS)?;
    date_of(year, month, number(day, 1, 2).ok_or(FORMS)?)
}

/// What `date` prints (`Fri Jul 11 03:08:57 UTC 2014`, `Fri 11 Jul 2014 03:08:57 AM UTC`), the same without a zone, and
/// RFC 2822 (`Fri, 11 Jul 2014 03:08:57 +0530`).
fn worded(text: &str) -> Result<Stamp, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let weekday = words.first().and_then(|word| position(&WEEKDAYS, word.strip_suffix(',').unwrap_or(word)));
    let rest = if weekday.is_some() { &words[1..] } else { &words[..] };
    let (year, month, day, time, rest) = match rest {
        [day, month, year, time, rest @ ..] if number(year, 4, 4).is_some() => (year, month, day, time, rest),
        [month, day, time, rest @ .., year] if position(&MONTHS, month).is_some() => {
            (year, month, day, time, rest)
        }
        [day, month, time, rest @ .., year] => (year, month, day, time, rest),
        _ => return Err(FORMS.to_owned()),
    };
    let month = position(&MONTHS, month).ok_or(FORMS)? + 1;
    let date = date_of(year, month, number(day, 1, 2).ok_or(FORMS)?)?;
    if let Some(weekday) = weekday.filter(|weekday| *weekday != date.weekday().num_days_from_monday()) {
        let right = date.weekday();
        return Err(format!(
            "{date} is a {right}, not a {}; correct one of them",
            WEEKDAYS[weekday as usize]
        ));
    }
    let (afternoon, zone) = match rest {
        [half, zone @ ..] if half.eq_ignore_ascii_case("am") => (Some(false), zone),
        [half, zone @ ..] if half.eq_ignore_ascii_case("pm") => (Some(true), zone),
        zone => (None, zone),
    };
    Ok(Stamp { wall: date.and_time(time_of_day(time, afternoon)?), offset: zone_words(zone)? })
}

/// The place of a name in a list, ignoring case.
fn position(names: &[&str], word: &str) -> Option<u32> {
    (0..).zip(names).find(|(_, name)| name.eq_ignore_ascii_case(word)).map(|(index, _)| index)
}

/// A number of `least` to `most` ASCII digits.
fn number(text: &str, least: usize, most: usize) -> Option<u32> {
    let fits = (least..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

fn date_of(year: &str, month: u32, day: u32) -> Result<NaiveDate, String> {
    let year = number(year, 4, 4).ok_or("the year is written with four digits, as in 2026-11-20")?;
    if !(YEAR_MIN..=YEAR_MAX).contains(&year) {
        return Err(format!("the year must be {YEAR_MIN} to {YEAR_MAX}"));
    }
    let date = i32::try_from(year).ok().and_then(|year| NaiveDate::from_ymd_opt(year, month, day));
    date.ok_or_else(|| format!("there is no day {day} in month {month} of {year}"))
}

/// `H:MM[:SS[.fraction]]`; with `AM` or `PM` on a clock of twelve hours.
fn time_of_day(text: &str, afternoon: Option<bool>) -> Result<NaiveTime, String> {
    let (whole, fraction) = match text.split_once(['.', ',']) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let parts: Vec<&str> = whole.split(':').collect();
    let (hour, minute, second) = match (parts.as_slice(), fraction) {
        ([hour, minute], None) => (hour, minute, "0"),
        ([hour, minute, second], _) if second.len() == 2 => (hour, minute, *second),
        _ => return Err(FORMS.to_owned()),
    };
    let nanosecond = match fraction {
        None => 0,
        Some(digits) => number(digits, 1, 9)
            .map(|_| format!("{digits:0<9}"))
            .and_then(|n| number(&n, 9, 9))
            .ok_or(FORMS)?,
    };
    let hour = number(hour, 1, 2).ok_or(FORMS)?;
    let hour = match afternoon {
        None => hour,
        Some(afternoon) if (1..=12).contains(&hour) => hour % 12 + if afternoon { 12 } else { 0 },
        Some(_) => return Err("with AM or PM the hour must be 1 to 12".to_owned()),
    };
    let (minute, second) = (number(minute, 2, 2).ok_or(FORMS)?, number(second, 1, 2).ok_or(FORMS)?);
    NaiveTime::from_hms_nano_opt(hour, minute, second, nanosecond)
        .ok_or_else(|| "the hour must be 0 to 23, minute and second 0 to 59".to_owned())
}

/// What stands after the time of day: nothing, a zone word, or an offset with a comment as mails have it.
fn zone_words(words: &[&str]) -> Result<Option<ZoneWord>, String> {
    match words {
        [] => Ok(None),
        [word] => zone_word(word).map(Some),
        [offset, comment]
            if offset.starts_with(['+', '-']) && comment.starts_with('(') && comment.ends_with(')') =>
        {
            zone_word(offset).map(Some)
        }
        _ => Err(FORMS.to_owned()),
    }
}

fn zone_word(word: &str) -> Result<ZoneWord, String> {
    let upper = word.to_ascii_uppercase();
    let plain = |seconds| Ok(ZoneWord { seconds, note: None });
    match upper.as_str() {
        "UTC" | "GMT" | "Z" => plain(0),
        "IST" => {
            let note = "IST is read as +05:30 (India, Asia/Kolkata); for Ireland or Israel write the offset";
            Ok(ZoneWord { seconds: IST_SECONDS, note: Some(note.to_owned()) })
        }
        _ if upper.starts_with(['+', '-']) => plain(offset_seconds(&upper)?),
        _ if upper.starts_with("UTC") || upper.starts_with("GMT") => {
            Err(format!("{word} is read with either sign; write the offset alone, as in +03:00"))
        }
        _ => Err(match (meant_by(word), word.parse::<Tz>()) {
            (Some(zones), _) => {
                format!("{word} is no time zone; write an offset, or give the time zone {zones}")
            }
            (None, Ok(zone)) => format!("give {zone} as the time zone, and the time without it"),
            (None, Err(_)) => FORMS.to_owned(),
        }),
    }
}

/// `+HH`, `+HHMM` or `+HH:MM`, in seconds.
fn offset_seconds(text: &str) -> Result<i32, String> {
    const RULE: &str = "an offset is written as in +05:30, up to 23:59";
    let (sign, digits) = text.split_at(1);
    let (hours, minutes) = match digits.split_once(':') {
        Some(parts) => parts,
        None if digits.len() == 4 => digits.split_at(2),
        None => (digits, "00"),
    };
    let (hours, minutes) = (number(hours, 2, 2).ok_or(RULE)?, number(minutes, 2, 2).ok_or(RULE)?);
    if hours > 23 || minutes > 59 {
        return Err(RULE.to_owned());
    }
    let seconds = i32::try_from(hours * 3_600 + minutes * 60).map_err(|_| RULE)?;
    Ok(if sign == "-" { -seconds } else { seconds })
}
