//! Import of crontab lines: five fields or `@daily` and its like, translated to cron fields of our own.
//!
//! What crontab means differently is translated, not copied: weekday 0 and 7 are Sunday there, leading zeros are
//! allowed, a step may be larger than its range, and a day of month and a day of week given together mean "either". The
//! grammar is Vixie cron's. Knows nothing of the commands, users and variables that crontabs hold besides.

use super::bits::Bits;
use super::cron::{CronFields, FieldFault};
use super::expression::{MONTHS, WEEKDAYS};

/// Longest crontab line, in bytes.
pub const CRONTAB_BYTES_MAX: usize = 512;

/// Weekday names as crontab counts them, from Sunday.
const CRON_WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A field of the line: our name for it, its range, and names for its numbers.
struct Column {
    name: &'static str,
    min: u32,
    max: u32,
    /// Highest value of `*`; differs from `max` where 7 is a second name of Sunday.
    star_max: u32,
    names: &'static [&'static str],
}

const fn column(name: &'static str, min: u32, max: u32, names: &'static [&'static str]) -> Column {
    Column { name, min, max, star_max: max, names }
}

const COLUMNS: [Column; 5] = [
    column("minute", 0, 59, &[]),
    column("hour", 0, 23, &[]),
    column("day", 1, 31, &[]),
    column("month", 1, 12, &MONTHS),
    Column { star_max: 6, ..column("day_of_week", 0, 7, &CRON_WEEKDAYS) },
];

/// What one field of the line matches.
#[derive(Clone, Copy, Default)]
struct Set {
    numbers: Bits,
    /// The field begins with `*`: cron's own test for "not restricted" in the either-or rule.
    starred: bool,
    /// A single `*`.
    any: bool,
    /// A step from the minimum on, kept as a step in the translation.
    step: Option<u32>,
}

/// Translates the five fields of a crontab line, or a name like `@daily`.
///
/// The second part of the answer are notes for the user on everything that had to be translated.
///
/// # Errors
/// Every fault of every field, or one fault of the line.
pub fn parse_crontab(line: &str) -> Result<(CronFields, Vec<String>), Vec<FieldFault>> {
    let fault = |rule: String| vec![FieldFault::new("crontab", line, rule)];
    if line.len() > CRONTAB_BYTES_MAX {
        return Err(fault(format!("must not be longer than {CRONTAB_BYTES_MAX} bytes")));
    }
    let line_text = line.trim();
    if line_text.starts_with('@') {
        let meant = named(line_text).map_err(fault)?;
        let (fields, _) = parse_crontab(meant)?;
        return Ok((fields, vec![format!("{line_text} is {meant}")]));
    }
    let words: Vec<&str> = line_text.split_whitespace().collect();
    let Ok(words) = <[&str; 5]>::try_from(words.as_slice()) else {
        return Err(fault(format!(
            "{} fields, where five are wanted: minute hour day month weekday, without user or command",
            words.len()
        )));
    };
    let mut faults = Vec::new();
    let mut sets = [Set::default(); 5];
    for ((column, word), set) in COLUMNS.iter().zip(words).zip(&mut sets) {
        match parse_column(column, word) {
            Ok(parsed) => *set = parsed,
            Err(more) => faults.extend(more),
        }
    }
    if faults.is_empty() { Ok(translate(words, &sets)) } else { Err(faults) }
}

/// The five fields that a name like `@daily` stands for.
fn named(name: &str) -> Result<&'static str, String> {
    match name.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => Ok("0 0 1 1 *"),
        "@monthly" => Ok("0 0 1 * *"),
        "@weekly" => Ok("0 0 * * 0"),
        "@daily" | "@midnight" => Ok("0 0 * * *"),
        "@hourly" => Ok("0 * * * *"),
        "@reboot" => Err("a fleet does not reboot; use a manual schedule or a push".to_owned()),
        other if other.starts_with("@every") => Err("use an interval, as in every 6h".to_owned()),
        _ => Err("use @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually".to_owned()),
    }
}

fn parse_column(column: &Column, word: &str) -> Result<Set, Vec<FieldFault>> {
    let mut set = Set { starred: word.starts_with('*'), any: word == "*", ..Set::default() };
    let mut faults = Vec::new();
    for part in word.split(',') {
        match parse_part(column, part) {
            Ok((first, last, step)) => {
                for value in (first..=last).step_by(step as usize) {
                    // 7 is Sunday again.
                    set.numbers.insert(if column.star_max == 6 { value % 7 } else { value });
                }
                let from_star = word.starts_with("*/") && part == word && step <= last - first;
                set.step = from_star.then_some(step);
            }
            Err(rule) => faults.push(FieldFault::new(column.name, part, rule)),
        }
    }
    if faults.is_empty() { Ok(set) } else { Err(faults) }
}

/// First, last and step of one part of a list.
fn parse_part(column: &Column, part: &str) -> Result<(u32, u32, u32), String> {
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (part, None),
    };
    let (first, last) = match range.split_once('-') {
        _ if range == "*" => (column.min, column.star_max),
        Some((first, last)) => (column.number(first)?, column.end_of_range(last)?),
        None if step.is_some() => return Err("a step needs a range, as in */10 or 5-59/10".to_owned()),
        None => (column.number(range)?, column.number(range)?),
    };
    if first > last {
        return Err("a range goes from low to high; write two ranges, as in 22-23,0-6".to_owned());
    }
    let step = match step.map(digits) {
        None => 1,
        Some(Some(step)) if step > 0 => step,
        Some(_) => return Err("the step must be a number from 1 on".to_owned()),
    };
    Ok((first, last, step))
}

impl Column {
    fn number(&self, text: &str) -> Result<u32, String> {
        let named = (self.min..).zip(self.names).find(|(_, name)| name.eq_ignore_ascii_case(text));
        let number = named.map(|(number, _)| number).or_else(|| digits(text));
        number.filter(|number| (self.min..=self.max).contains(number)).ok_or_else(|| self.rule())
    }

    /// The end of a range, where `sun` is the day after Saturday.
    fn end_of_range(&self, text: &str) -> Result<u32, String> {
        let number = self.number(text)?;
        Ok(if self.star_max == 6 && number == 0 && text != "0" { 7 } else { number })
    }

    fn rule(&self) -> String {
        let Self { min, max, .. } = self;
        match self.name {
            "day" => format!("must be {min} to {max}; for others use the field day: last, 2nd fri, last fri"),
            "month" => format!("must be {min} to {max}, or jan to dec"),
            "day_of_week" => format!("must be {min} to {max} (0 and 7 are Sunday), or sun to sat"),
            _ => format!("must be {min} to {max}"),
        }
    }
}

/// A number of ASCII digits; crontab allows leading zeros.
fn digits(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn translate(words: [&str; 5], sets: &[Set; 5]) -> (CronFields, Vec<String>) {
    let [minute, hour, day, month, weekday] = sets;
    let mut notes = Vec::new();
    let numbers = |set: &Set, max: u32| match (set.any, set.step) {
        (true, _) => None,
        (false, Some(step)) => Some(format!("*/{step}")),
        (false, None) => Some(runs(set.numbers, max, |number| number.to_string())),
    };
    // Our weeks begin on Monday, crontab's on Sunday.
    let mut monday_first = Bits::default();
    (0..7).filter(|day| weekday.numbers.contains(*day)).for_each(|day| monday_first.insert((day + 6) % 7));
    let names = runs(monday_first, 6, |day| WEEKDAYS[day as usize].to_owned());
    let mut fields = CronFields {
        month: numbers(month, 12),
        day: numbers(day, 31),
        hour: numbers(hour, 23),
        // Given in any case: it makes all coarser fields that are not given match anything.
        minute: Some(numbers(minute, 59).unwrap_or_else(|| "*".to_owned())),
        ..CronFields::default()
    };
    if !weekday.any {
        notes.push(format!("weekday {} is {names}: crontab counts from Sunday", words[4]));
    }
    if !day.starred && !weekday.starred {
        let either = either_day(day.numbers, monday_first);
        notes.push(format!(
            "day {} OR {names}: in a crontab either is enough; kept, in the field day",
            words[2]
        ));
        fields.day = Some(either);
    } else if !weekday.any {
        fields.day_of_week = Some(names.clone());
        if !day.any {
            notes.push(format!("day {} AND {names}: both must match, as in a crontab with a *", words[2]));
        }
    }
    (fields, notes)
}

/// The `day` field for "one of these days of the month or one of these weekdays": every position of the weekday.
fn either_day(days: Bits, weekdays: Bits) -> String {
    let mut text = runs(days, 31, |number| number.to_string());
    for day in (0..7).filter(|day| weekdays.contains(*day)) {
        for position in ["1st", "2nd", "3rd", "4th", "5th"] {
            text.push_str(&format!(",{position} {}", WEEKDAYS[day as usize]));
        }
    }
    text
}

/// A set as a list, with three and more in a row as a range.
fn runs(numbers: Bits, max: u32, name: impl Fn(u32) -> String) -> String {
    let mut parts = Vec::new();
    let mut next = numbers.next(0);
    while let Some(first) = next {
        let mut last = first;
        while last < max && numbers.contains(last + 1) {
            last += 1;
        }
        if last >= first + 2 {
            parts.push(format!("{}-{}", name(first), name(last)));
        } else {
            parts.extend((first..=last).map(&name));
        }
        next = numbers.next(last + 1);
    }
    parts.join(",")
}
