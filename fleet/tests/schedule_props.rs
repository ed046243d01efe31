//! Schedules against a second, slow implementation of the same rules: a clock that is stepped second by second.
//!
//! The oracle shares nothing with the search but the zone database: it walks through hours around a change of offset,
//! and asks each value of each field anew. Fields are generated as values first and written as text afterwards, so the
//! parser is tested on the way.

#![allow(clippy::unwrap_used, reason = "a test helper that fails is a test that fails")]

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use fleet::schedule::{Cron, CronFields, DstOverlap, Schedule, in_zone};
use proptest::prelude::*;

/// Hours stepped through before and after the change.
const HOURS: i64 = 5;

/// Zones with a change of their offset: ordinary, of 30 minutes, at midnight, off the full hour, of two and three
/// hours, of the standard time, of the rules of 2026, and two that skip a whole day.
const CHANGES: [(Tz, &str); 24] = [
    (Tz::Europe__Berlin, "2027-03-28T01:00:00Z"),
    (Tz::Europe__Berlin, "2026-10-25T01:00:00Z"),
    (Tz::Europe__London, "2026-03-29T01:00:00Z"),
    (Tz::Europe__Dublin, "2026-10-25T01:00:00Z"),
    (Tz::America__New_York, "2026-03-08T07:00:00Z"),
    (Tz::America__New_York, "2026-11-01T06:00:00Z"),
    (Tz::America__Havana, "2026-03-08T05:00:00Z"),
    (Tz::America__Havana, "2025-11-02T05:00:00Z"),
    (Tz::America__Sao_Paulo, "2018-11-04T03:00:00Z"),
    (Tz::America__Sao_Paulo, "2018-02-18T02:00:00Z"),
    (Tz::Atlantic__Azores, "2026-03-29T01:00:00Z"),
    (Tz::Atlantic__Azores, "2026-10-25T01:00:00Z"),
    (Tz::Australia__Lord_Howe, "2026-10-03T15:30:00Z"),
    (Tz::Australia__Lord_Howe, "2026-04-04T15:00:00Z"),
    (Tz::Pacific__Chatham, "2026-09-26T14:00:00Z"),
    (Tz::Pacific__Chatham, "2026-04-04T14:00:00Z"),
    (Tz::Antarctica__Troll, "2026-03-29T01:00:00Z"),
    (Tz::Antarctica__Troll, "2026-10-25T01:00:00Z"),
    (Tz::Antarctica__Casey, "2020-10-03T16:01:00Z"),
    (Tz::Antarctica__Casey, "2020-03-07T16:00:00Z"),
    (Tz::Africa__Casablanca, "2026-09-20T01:00:00Z"),
    (Tz::Europe__Chisinau, "2026-10-25T01:00:00Z"),
    (Tz::Pacific__Apia, "2011-12-30T10:00:00Z"),
    (Tz::Asia__Kathmandu, "1985-12-31T18:30:00Z"),
];

/// A field as the values that match and a text that says so.
#[derive(Clone, Debug)]
struct Field {
    values: BTreeSet<u32>,
    text: String,
}

impl Field {
    fn new(values: impl IntoIterator<Item = u32>, text: String) -> Self {
        Self { values: values.into_iter().collect(), text }
    }

    fn matches(&self, value: u32) -> bool {
        self.values.contains(&value)
    }
}

/// A field of the values `min` to `max` in any of its numeric forms.
fn field(min: u32, max: u32) -> BoxedStrategy<Field> {
    let number = min..=max;
    let pair = (number.clone(), number.clone()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![
        2 => Just(Field::new(min..=max, "*".to_owned())),
        3 => number.prop_map(|a| Field::new([a], a.to_string())),
        2 => prop::collection::vec(min..=max, 1..5).prop_map(|all| {
            let text: Vec<String> = all.iter().map(u32::to_string).collect();
            Field::new(all, text.join(" , "))
        }),
        1 => (1..=max - min).prop_map(move |step| {
            Field::new((min..=max).step_by(step as usize), format!("*/{step}"))
        }),
        1 => pair.clone().prop_filter("0-0 is refused", |(_, b)| *b > 0)
            .prop_map(|(a, b)| Field::new(a..=b, format!("{a}-{b}"))),
        1 => (pair, 1..=max).prop_filter("the step must fit", |((a, b), step)| *step <= b - a)
            .prop_map(|((a, b), step)| Field::new((a..=b).step_by(step as usize), format!("{a}-{b}/{step}"))),
        1 => (min..=max, 1..=max).prop_filter("the step must fit", move |(a, step)| *step <= max - a)
            .prop_map(move |(a, step)| Field::new((a..=max).step_by(step as usize), format!("{a}/{step}"))),
    ]
    .boxed()
}

/// The time of day and, now and then, the weekday; the hours keep to the night, where clocks change.
#[derive(Clone, Debug)]
struct Trigger {
    weekday: Field,
    hour: Field,
    minute: Field,
    second: Field,
}

prop_compose! {
    fn trigger()(
        weekday in prop_oneof![4 => Just(Field::new(0..=6, "*".to_owned())), 1 => field(0, 6)],
        hour in prop_oneof![2 => field(0, 23), 3 => field(0, 4), 1 => Just(Field::new([23, 0], "23,0".to_owned()))],
        minute in field(0, 59),
        second in prop_oneof![3 => Just(Field::new([0], "0".to_owned())), 1 => field(0, 59)],
    ) -> Trigger {
        Trigger { weekday, hour, minute, second }
    }
}

impl Trigger {
    fn matches(&self, wall: NaiveDateTime) -> bool {
        self.weekday.matches(wall.weekday().num_days_from_monday())
            && self.hour.matches(wall.hour())
            && self.minute.matches(wall.minute())
            && self.second.matches(wall.second())
    }

    fn schedule(&self, zone: Tz, overlap: DstOverlap) -> Schedule {
        // `field(0, 4)` writes its open ends as `*` and `a/step`, which mean 23 here: say the values instead.
        let hours: Vec<String> = self.hour.values.iter().map(u32::to_string).collect();
        let fields = CronFields {
            day_of_week: Some(self.weekday.text.clone()),
            hour: Some(hours.join(",")),
            minute: Some(self.minute.text.clone()),
            second: Some(self.second.text.clone()),
            ..CronFields::default()
        };
        Schedule { dst_overlap: Some(overlap), ..Schedule::cron(Cron::parse(fields).unwrap(), zone) }
    }
}

/// All fires from `start` until before `end`, by stepping through the seconds on the wall. The change lies far enough
/// after `start` that every time read twice is read twice in between.
fn oracle(
    trigger: &Trigger,
    zone: Tz,
    overlap: DstOverlap,
    start: DateTime<Utc>,
    end: DateTime<Utc>,
) -> BTreeSet<i64> {
    let second = TimeDelta::seconds(1);
    let mut fires = BTreeSet::new();
    let mut highest = NaiveDateTime::MIN;
    let mut now = start;
    while now < end {
        let wall = in_zone(zone, now).naive_local();
        let repeated = wall <= highest;
        if trigger.matches(wall) && (overlap == DstOverlap::Both || !repeated) {
            fires.insert(now.timestamp());
        }
        if highest != NaiveDateTime::MIN && wall > highest + second {
            let mut skipped = highest + second;
            while skipped < wall && !trigger.matches(skipped) {
                skipped += second;
            }
            if skipped < wall && !trigger.matches(skipped - TimeDelta::hours(1)) {
                fires.insert((now + (skipped - highest - second)).timestamp());
            }
        }
        highest = highest.max(wall);
        now += second;
    }
    fires
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]

    /// Around a change of offset nothing is lost, nothing doubled, nothing added.
    #[test]
    fn fires_are_those_of_the_stepped_clock(trigger in trigger(), change in 0..CHANGES.len(), both in any::<bool>()) {
        let (zone, changed) = CHANGES[change];
        let changed: DateTime<Utc> = changed.parse().unwrap();
        let (start, end) = (changed - TimeDelta::hours(HOURS), changed + TimeDelta::hours(HOURS));
        let overlap = if both { DstOverlap::Both } else { DstOverlap::Once };
        let schedule = trigger.schedule(zone, overlap);
        let expect = oracle(&trigger, zone, overlap, start, end);
        let got: Vec<i64> = schedule.fires(start).take_while(|fire| *fire < end).map(|fire| fire.timestamp()).collect();
        let expect: Vec<i64> = expect.into_iter().filter(|fire| *fire < end.timestamp()).collect();
        prop_assert_eq!(got, expect, "{:?} in {}", schedule.cadence, zone);
    }

    /// Where the search begins does not matter: every later start finds the rest of the same fires.
    #[test]
    fn the_start_of_the_search_does_not_matter(
        trigger in trigger(), change in 0..CHANGES.len(), both in any::<bool>(), offset in 0..HOURS * 7_200,
    ) {
        let (zone, changed) = CHANGES[change];
        let changed: DateTime<Utc> = changed.parse().unwrap();
        let start = changed - TimeDelta::hours(HOURS);
        let schedule = trigger.schedule(zone, if both { DstOverlap::Both } else { DstOverlap::Once });
        let from = start + TimeDelta::seconds(offset);
        let in_sequence = schedule.fires(start).find(|fire| *fire >= from);
        prop_assert_eq!(schedule.first_at_or_after(from), in_sequence);
        prop_assert_eq!(schedule.next_after(from - TimeDelta::milliseconds(1)), in_sequence);
    }

    /// `Once` is `Both` without the second reading of repeated times, and nothing else.
    #[test]
    fn once_drops_exactly_the_second_reading(trigger in trigger(), change in 0..CHANGES.len()) {
        let (zone, changed) = CHANGES[change];
        let changed: DateTime<Utc> = changed.parse().unwrap();
        let (start, end) = (changed - TimeDelta::hours(HOURS), changed + TimeDelta::hours(HOURS));
        let all = |overlap| -> Vec<_> {
            let schedule = trigger.schedule(zone, overlap);
            schedule.fires(start).take_while(|fire| *fire < end).collect()
        };
        let mut read = BTreeSet::new();
        let (both, once) = (all(DstOverlap::Both), all(DstOverlap::Once));
        let firsts: Vec<_> = both.into_iter().filter(|fire| read.insert(in_zone(zone, *fire).naive_local())).collect();
        prop_assert_eq!(once, firsts);
    }

    /// Dates: each day is asked by itself whether `month`, `day`, `week` and `day_of_week` all hold.
    #[test]
    fn dates_are_those_of_the_stepped_calendar(
        year in 1970..2190_i32, month in field(1, 12), day in field(1, 31), week in field(1, 53), weekday in field(0, 6),
        nth in prop::option::of((0..6_u32, 0..7_u32)), last in any::<bool>(),
    ) {
        let (names, places) = (["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ["1st", "2nd", "3rd", "4th", "5th", "last"]);
        let mut day_text = day.text.clone();
        if last {
            day_text.push_str(",last");
        }
        if let Some((place, weekday)) = nth {
            day_text.push_str(&format!(", {} {}", places[place as usize], names[weekday as usize]));
        }
        let fields = CronFields {
            month: Some(month.text.clone()),
            day: Some(day_text),
            week: Some(week.text.clone()),
            day_of_week: Some(weekday.text.clone()),
            ..CronFields::default()
        };
        let schedule = Schedule::cron(Cron::parse(fields).unwrap(), Tz::UTC);
        let start: DateTime<Utc> = format!("{year}-01-01T00:00:00Z").parse().unwrap();
        let end = start + TimeDelta::days(3 * 365);
        let mut expect = Vec::new();
        let mut today = start;
        while today < end {
            let on_weekday = today.weekday().num_days_from_monday();
            let is_last = |later: i64| (today + TimeDelta::days(later)).month() != today.month();
            let by_place = nth.is_some_and(|(place, weekday)| {
                on_weekday == weekday && if place == 5 { is_last(7) } else { (today.day() - 1) / 7 == place }
            });
            if month.matches(today.month())
                && week.matches(today.iso_week().week())
                && weekday.matches(on_weekday)
                && (day.matches(today.day()) || by_place || last && is_last(1))
            {
                expect.push(today);
            }
            today += TimeDelta::days(1);
        }
        let got: Vec<_> = schedule.fires(start).take_while(|fire| *fire < end).collect();
        prop_assert_eq!(got, expect);
    }

    /// No text makes a parser panic.
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}|[0-9a-z*,/ +:.TZ-]{0,30}") {
        let _ = fleet::schedule::parse_date(&text, Some(Tz::Europe__Berlin));
        let _ = fleet::schedule::parse_span(&text);
        let _ = fleet::schedule::parse_zone(&text);
        if let Ok((fields, _)) = fleet::schedule::parse_crontab(&text) {
            prop_assert!(Cron::parse(fields).is_ok());
        }
        let same = Some(text.clone());
        let fields = CronFields { day: same.clone(), month: same.clone(), hour: same, ..CronFields::default() };
        if let Err(faults) = Cron::parse(fields) {
            prop_assert!(!faults.is_empty());
        }
    }
}
