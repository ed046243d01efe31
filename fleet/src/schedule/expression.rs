//! The grammar of one cron field: `*`, `*/2`, `5`, `1-4`, `1-9/2`, `10/20`, names, and in `day` also `last`,
//! `2nd fri` and `last fri`, in lists.
//!
//! The forms and ranges are APScheduler's. What its unanchored patterns let through (`mon-fri/2`, `last-3`, `0-0/5`,
//! `007`, digits of other scripts) is refused, because the user would get something else than he wrote. Knows one field
//! at a time and nothing of what the fields mean together.

use super::bits::{Bits, Years};
use super::cron::{Days, FIELD_BYTES_MAX, FieldFault, YEAR_MAX, YEAR_MIN};

/// The `week` field when it does not restrict.
pub(super) const ALL_WEEKS: Bits = Bits::span(1, 53);

/// Month names, January first.
pub(super) const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
/// Weekday names, Monday first.
pub(super) const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const POSITIONS: [&str; 5] = ["1st", "2nd", "3rd", "4th", "5th"];

/// What a field may hold.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    min: u32,
    max: u32,
    /// Names for the numbers from `min` on.
    names: &'static [&'static str],
    /// The text of a field that is finer than all given ones.
    pub(super) default: &'static str,
}

const fn spec(name: &'static str, min: u32, max: u32, default: &'static str) -> Spec {
    Spec { name, min, max, names: &[], default }
}

/// The fields from the coarsest to the finest.
pub(super) const FIELDS: [Spec; 8] = [
    spec("year", YEAR_MIN, YEAR_MAX, "*"),
    Spec { names: &MONTHS, ..spec("month", 1, 12, "1") },
    spec("day", 1, 31, "1"),
    spec("week", 1, 53, "*"),
    Spec { names: &WEEKDAYS, ..spec("day_of_week", 0, 6, "*") },
    spec("hour", 0, 23, "0"),
    spec("minute", 0, 59, "0"),
    spec("second", 0, 59, "0"),
];

/// What the text of a field matches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Values {
    /// The numbers, for every field but `year`.
    pub(super) numbers: Bits,
    /// The numbers of the field `year`.
    pub(super) years: Years,
    /// The forms that only `day` has; its `numbers` stay empty.
    pub(super) days: Days,
    /// Every part is one number or name.
    pub(super) only_plain_numbers: bool,
}

/// One part of a list.
enum Part {
    One(u32),
    Stepped { first: u32, last: u32, step: u32 },
    LastDay,
    Nth { position: usize, weekday: u32 },
    LastWeekday(u32),
}

/// Parses the whole text of a field.
///
/// # Errors
/// One fault per faulty part of the list.
pub(super) fn parse(spec: &Spec, text: &str) -> Result<Values, Vec<FieldFault>> {
    if text.len() > FIELD_BYTES_MAX {
        let rule = format!("must not be longer than {FIELD_BYTES_MAX} bytes");
        return Err(vec![FieldFault::new(spec.name, text, rule)]);
    }
    let text = text.trim();
    let mut values = Values { only_plain_numbers: true, ..Values::default() };
    let mut faults = Vec::new();
    for part in text.split(',').map(|part| part.trim_matches(' ')) {
        match parse_part(spec, part) {
            Ok(parsed) => values.add(spec, &parsed),
            Err(rule) => {
                let shown = if part.is_empty() { text } else { part };
                faults.push(FieldFault::new(spec.name, shown, rule));
            }
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}

impl Values {
    fn add(&mut self, spec: &Spec, part: &Part) {
        self.only_plain_numbers &= matches!(part, Part::One(_));
        let (first, last, step) = match *part {
            Part::One(value) => (value, value, 1),
            Part::Stepped { first, last, step } => (first, last, step),
            Part::LastDay => return self.days.last = true,
            Part::Nth { position, weekday } => return self.days.nth[position].insert(weekday),
            Part::LastWeekday(weekday) => return self.days.last_weekdays.insert(weekday),
        };
        for value in (first..=last).step_by(step as usize) {
            if spec.max > 63 {
                self.years.insert(value);
            } else {
                self.numbers.insert(value);
            }
        }
    }
}

fn parse_part(spec: &Spec, part: &str) -> Result<Part, String> {
    if part.is_empty() {
        return Err("a value is missing; leave the field out for its default".to_owned());
    }
    let lower = part.to_ascii_lowercase();
    if spec.name == "day"
        && let Some(part) = parse_day_form(&lower)
    {
        return Ok(part);
    }
    if !spec.names.is_empty() && lower.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return parse_names(spec, &lower);
    }
    let (range, step) = match lower.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (lower.as_str(), None),
    };
    let (first, last) = parse_range(spec, range, step.is_some())?;
    let Some(step) = step else {
        return Ok(match last {
            Some(last) => Part::Stepped { first, last, step: 1 },
            None => Part::One(first),
        });
    };
    let last = last.unwrap_or(spec.max);
    Ok(Part::Stepped { first, last, step: parse_step(spec, step, last - first)? })
}

/// `*`, `5` or `1-4`; the end is `None` for a single number. Before a step, a single number is open-ended.
fn parse_range(spec: &Spec, range: &str, stepped: bool) -> Result<(u32, Option<u32>), String> {
    if range == "*" {
        return Ok((spec.min, Some(spec.max)));
    }
    let Some((first, last)) = range.split_once('-') else {
        return Ok((parse_number(spec, range)?, None));
    };
    if first == "0" && last == "0" {
        return Err("a range from 0 to 0 is read in two ways; write 0".to_owned());
    }
    let (first, last) = (parse_number(spec, first)?, parse_number(spec, last)?);
    if first > last {
        return Err(backwards(spec, &first.to_string(), &last.to_string()));
    }
    if stepped && first == last {
        return Err(format!("a range of one value takes no step; write {first}"));
    }
    Ok((first, Some(last)))
}

fn parse_number(spec: &Spec, text: &str) -> Result<u32, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(spec.not_understood());
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err("numbers are written without leading zeros".to_owned());
    }
    match text.parse() {
        Ok(value) if (spec.min..=spec.max).contains(&value) => Ok(value),
        _ => Err(format!("must be {}", spec.range())),
    }
}

fn parse_step(spec: &Spec, text: &str, width: u32) -> Result<u32, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(spec.not_understood());
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err("numbers are written without leading zeros".to_owned());
    }
    match text.parse() {
        Ok(step) if (1..=width).contains(&step) => Ok(step),
        _ if width == 0 => Err(format!("no step fits after {}, the highest value", spec.max)),
        _ => Err(format!("the step must be 1 to {width}")),
    }
}

/// `fri` or `mon-fri`, `jan` or `jan-mar`.
fn parse_names(spec: &Spec, text: &str) -> Result<Part, String> {
    let number = |name: &str| {
        let index = (spec.min..).zip(spec.names).find(|(_, known)| **known == name);
        index.map(|(number, _)| number).ok_or_else(|| spec.not_understood())
    };
    if text.contains('/') {
        return Err("names take no step; list them, or use numbers".to_owned());
    }
    let Some((first, last)) = text.split_once('-') else { return Ok(Part::One(number(text)?)) };
    let (from, to) = (number(first)?, number(last)?);
    if from > to {
        return Err(backwards(spec, first, last));
    }
    Ok(Part::Stepped { first: from, last: to, step: 1 })
}

/// The forms that only `day` has: `last`, `2nd fri`, `last fri`.
fn parse_day_form(text: &str) -> Option<Part> {
    if text == "last" {
        return Some(Part::LastDay);
    }
    let (position, weekday) = text.split_once(' ')?;
    let weekday = (0..).zip(WEEKDAYS).find(|(_, name)| *name == weekday.trim_start_matches(' '))?.0;
    if position == "last" {
        return Some(Part::LastWeekday(weekday));
    }
    let position = POSITIONS.iter().position(|known| *known == position)?;
    Some(Part::Nth { position, weekday })
}

/// The rule for a range that would wrap round, with the two ranges that say the same.
fn backwards(spec: &Spec, first: &str, last: &str) -> String {
    let name = |number: u32| {
        let index = (number - spec.min) as usize;
        spec.names.get(index).map_or_else(|| number.to_string(), |name| (*name).to_owned())
    };
    let named = first.starts_with(|start: char| start.is_ascii_alphabetic());
    let (low, high) =
        if named { (name(spec.min), name(spec.max)) } else { (spec.min.to_string(), spec.max.to_string()) };
    let end = |from: &str, to: &str| if from == to { from.to_owned() } else { format!("{from}-{to}") };
    format!("a range goes from low to high; write {},{}", end(first, &high), end(&low, last))
}

impl Spec {
    /// The allowed values in words.
    fn range(&self) -> String {
        match self.name {
            "month" => "1 to 12, or jan to dec".to_owned(),
            "day" => "1 to 31, last, or as in 2nd fri and last fri".to_owned(),
            "day_of_week" => "0 (Monday) to 6 (Sunday), or mon to sun".to_owned(),
            _ => format!("{} to {}", self.min, self.max),
        }
    }

    fn not_understood(&self) -> String {
        format!(
            "not understood; values are {}, alone, as a-b, a-b/step, */step, *, or in a list",
            self.range()
        )
    }
}
