//! Windows against a second, slow implementation of the same rules: a clock that is walked minute by minute, and the
//! minutes of a week that are inside.

#![allow(clippy::unwrap_used, reason = "a test helper that fails is a test that fails")]

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike as _, NaiveDateTime, TimeDelta, Timelike as _, Utc, Weekday};
use chrono_tz::Tz;
use fleet::schedule::{BadWindow, Cadence, Schedule, Window, in_zone};
use proptest::prelude::*;

const DAY_MINUTES: u32 = 24 * 60;
const WEEK_MINUTES: u32 = 7 * DAY_MINUTES;
/// The walk ends here: an opening is at most a week ahead, two where a day is left out.
const WALK_MINUTES: i64 = 16 * 1_440;
const WEEK: [Weekday; 7] =
    [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun];

/// Changes of offset: forward and back, of 30 minutes, at midnight, and one that leaves out a day.
const CHANGES: [(Tz, &str); 8] = [
    (Tz::Europe__Berlin, "2027-03-28T01:00:00Z"),
    (Tz::Europe__Berlin, "2026-10-25T01:00:00Z"),
    (Tz::America__New_York, "2026-03-08T07:00:00Z"),
    (Tz::America__New_York, "2026-11-01T06:00:00Z"),
    (Tz::Australia__Lord_Howe, "2026-04-04T15:00:00Z"),
    (Tz::Australia__Lord_Howe, "2026-10-03T15:30:00Z"),
    (Tz::America__Sao_Paulo, "2018-11-04T03:00:00Z"),
    (Tz::Pacific__Apia, "2011-12-30T10:00:00Z"),
];

fn text(minute: u32) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// A window and the minutes of the week, from Monday, that it holds.
fn window() -> impl Strategy<Value = (Window, BTreeSet<u32>)> {
    let minute = prop_oneof![0..DAY_MINUTES, (0..5_u32 * 4).prop_map(|quarter| quarter * 15)];
    let days = prop::collection::btree_set(0..7_u32, 0..4);
    (minute.clone(), minute, days).prop_filter("it would be empty", |(start, end, _)| start != end).prop_map(
        |(start, end, days)| {
            let names: Vec<Weekday> = days.iter().map(|day| WEEK[*day as usize]).collect();
            let length = (end + DAY_MINUTES - start) % DAY_MINUTES;
            let opening = if days.is_empty() { (0..7).collect() } else { days };
            let inside = opening.into_iter().flat_map(|day| {
                (0..length).map(move |minute| (day * DAY_MINUTES + start + minute) % WEEK_MINUTES)
            });
            (Window::new(&text(start), &text(end), &names).unwrap(), inside.collect())
        },
    )
}

fn minute_of_week(wall: NaiveDateTime) -> u32 {
    wall.weekday().num_days_from_monday() * DAY_MINUTES + wall.hour() * 60 + wall.minute()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn windows_are_what_a_walking_clock_says(
        (zone, change) in prop::sample::select(&CHANGES[..]),
        windows in prop::collection::vec(window(), 1..4),
        from in -3 * 86_400_i64..2 * 86_400,
    ) {
        let at: DateTime<Utc> = change.parse::<DateTime<Utc>>().unwrap() + TimeDelta::seconds(from);
        let inside: BTreeSet<u32> = windows.iter().flat_map(|(_, minutes)| minutes.iter().copied()).collect();
        let reads_inside = |at: DateTime<Utc>| inside.contains(&minute_of_week(in_zone(zone, at).naive_local()));
        let windows = windows.into_iter().map(|(window, _)| window).collect();
        let schedule = Schedule { windows, ..Schedule::new(Cadence::Manual, zone) };
        prop_assert_eq!(schedule.is_open(at), reads_inside(at));
        let next_minute = at.with_second(0).unwrap() + TimeDelta::minutes(1);
        let mut walk = (0..WALK_MINUTES).map(|minute| next_minute + TimeDelta::minutes(minute));
        let expected = if reads_inside(at) { Some(at) } else { walk.find(|at| reads_inside(*at)) };
        prop_assert_eq!(schedule.next_opening(at), expected);
    }

    #[test]
    fn what_is_displayed_is_read((window, _) in window()) {
        prop_assert_eq!(window.to_string().parse(), Ok(window));
    }
}

#[test]
fn a_schedule_without_windows_is_always_open() {
    let schedule = Schedule::new(Cadence::Manual, Tz::UTC);
    let at = "2026-11-20T07:42:00Z".parse().unwrap();
    assert!(schedule.is_open(at) && schedule.next_opening(at) == Some(at));
}

#[test]
fn a_night_window_opens_at_ten_and_closes_at_six_by_the_wall_clock() {
    let windows = vec!["22:00-06:00".parse().unwrap()];
    let schedule = Schedule { windows, ..Schedule::new(Cadence::Manual, Tz::Europe__Berlin) };
    let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    assert_eq!(schedule.next_opening(at("2026-11-20T07:42:00Z")), Some(at("2026-11-20T21:00:00Z")));
    assert!(schedule.is_open(at("2027-03-28T03:59:59Z")) && !schedule.is_open(at("2027-03-28T04:00:00Z")));
}

#[test]
fn other_texts_make_no_window() {
    for bad in [
        "",
        "22:00",
        "22:00-",
        "24:00-06:00",
        "22:60-06:00",
        "2:00-06:00",
        "22:00-06:00 funday",
        "a:bc-06:00",
    ] {
        assert_eq!(bad.parse::<Window>(), Err(BadWindow::Times), "{bad}");
    }
    assert_eq!("06:00-06:00".parse::<Window>(), Err(BadWindow::Empty));
}
