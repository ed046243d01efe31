//! Spread: the same moment for ever, even over the fleet, inside the period, and no fire lost by it (A6 of the
//! mission, decision 4 of the schedules' design).

#![allow(clippy::unwrap_used, reason = "a test helper that fails is a test that fails")]

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use fleet::schedule::{
    Cadence, Cron, DstOverlap, IntervalFrom, Named, SPREAD_SECONDS_MAX, Schedule, phase_seconds,
};
use proptest::prelude::*;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn cron(fields: &str, zone: Tz) -> Schedule {
    Schedule::cron(Cron::parse(fields.parse().unwrap()).unwrap(), zone)
}

fn spread(seconds: u64, schedule: Schedule) -> Schedule {
    Schedule { spread_seconds: Some(seconds), ..schedule }
}

fn texts(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
    schedule.fires(at(from)).take(count).map(|fire| fire.format("%d %H:%M:%S").to_string()).collect()
}

#[test]
fn a_thousand_hourly_projects_leave_no_spike() {
    let hourly = Schedule::cron(Named::Hourly.cron(), Tz::UTC);
    let mut minutes = [0_u32; 60];
    for project in 1..=1_000 {
        let own = hourly.clone().of_project(project, 7, None);
        let fire = own.first_at_or_after(at("2026-11-20T07:00:00Z")).unwrap();
        minutes[usize::try_from((fire - at("2026-11-20T07:00:00Z")).num_minutes()).unwrap()] += 1;
    }
    // Evenly drawn, 16.7 fall into a minute, more than 40 in one case of a million.
    assert!(minutes.iter().all(|count| (1..=40).contains(count)), "{minutes:?}");
}

#[test]
fn a_phase_depends_on_the_uids_alone_and_keeps_its_place_in_a_wider_spread() {
    // These are promises to every fleet that runs: another hash would move all of its projects.
    assert_eq!([1, 2, 3].map(|project| phase_seconds(project, 7, 3_600)), PHASES);
    assert_eq!(phase_seconds(1, 7, 0), 0);
    for project in 1..200 {
        let (narrow, wide) = (phase_seconds(project, 1, 3_600), phase_seconds(project, 1, 7_200));
        assert!(wide / 2 == narrow && narrow < 3_600, "{project}: {narrow} and {wide}");
    }
    let phases: BTreeSet<u64> = (1..50).map(|agent| phase_seconds(9, agent, 86_400)).collect();
    assert!(phases.len() > 45, "another origin is another moment");
}

const PHASES: [u64; 3] = [718, 108, 2_764];

#[test]
fn only_a_change_of_the_schedule_moves_the_phase() {
    let daily = Schedule::cron(Named::Daily.cron(), Tz::Europe__Berlin).of_project(5, 7, None);
    assert!(daily.phase_seconds > 0);
    let asked_again = Schedule { phase_seconds: 0, ..daily.clone() };
    assert_eq!(asked_again.clone().of_project(5, 8, Some(&daily)), daily, "the same, with another origin");
    let changed = Schedule { jitter_seconds: 5, ..asked_again };
    assert_ne!(changed.of_project(5, 8, Some(&daily)).phase_seconds, daily.phase_seconds);
    let exact = spread(0, Schedule::cron(Named::Daily.cron(), Tz::UTC)).of_project(5, 7, None);
    assert_eq!(texts(&exact, "2026-11-20T07:00:00Z", 2), ["21 00:00:00", "22 00:00:00"]);
    let plain = cron("hour=3", Tz::UTC).of_project(5, 7, None);
    assert_eq!(plain.phase_seconds, 0, "fields mean what they say");
}

#[test]
fn start_and_end_hold_and_the_last_fire_is_not_lost() {
    let hourly = Schedule { phase_seconds: 1_200, ..cron("minute=0", Tz::UTC) };
    assert_eq!(texts(&hourly, "2026-11-20T07:19:59.5Z", 2), ["20 07:20:00", "20 08:20:00"]);
    assert_eq!(hourly.next_after(at("2026-11-20T07:20:00Z")), Some(at("2026-11-20T08:20:00Z")));
    let begun = Schedule { start: Some(at("2026-11-20T07:10:00Z")), ..hourly.clone() };
    assert_eq!(texts(&begun, "2026-11-20T00:00:00Z", 1), ["20 07:20:00"]);
    let ended = Schedule { end: Some(at("2026-11-20T09:05:00.7Z")), ..hourly.clone() };
    assert_eq!(texts(&ended, "2026-11-20T07:30:00Z", 5), ["20 08:20:00", "20 09:05:00"]);
    assert_eq!(ended.first_at_or_after(at("2026-11-20T09:05:01Z")), None);
    let one = at("2026-11-20T09:00:00Z");
    let once = Schedule { start: Some(one), end: Some(one), ..hourly };
    assert_eq!(once.fires(at("2026-01-01T00:00:00Z")).collect::<Vec<_>>(), [one]);
}

#[test]
fn the_spread_is_cut_to_the_shortest_period() {
    let cut = |schedule: Schedule| {
        spread(SPREAD_SECONDS_MAX, schedule).with_spread_inside_the_period().0.spread_seconds
    };
    assert_eq!(cut(cron("hour=*/6", Tz::UTC)), Some(6 * 3_600));
    assert_eq!(cut(cron("hour=2,3,14", Tz::UTC)), Some(3_600));
    assert_eq!(cut(cron("minute=*/15", Tz::Europe__Berlin)), Some(900));
    assert_eq!(cut(cron("hour=3", Tz::Europe__Berlin)), Some(24 * 3_600), "an ordinary day");
    assert_eq!(cut(Schedule::cron(Named::Monthly.cron(), Tz::UTC)), Some(28 * 86_400));
    assert_eq!(cut(cron("year=2031", Tz::UTC)), Some(SPREAD_SECONDS_MAX), "one fire has no period");
    let interval = Cadence::Interval { every_seconds: 7_200, from: IntervalFrom::End };
    assert_eq!(cut(Schedule::new(interval, Tz::UTC)), Some(7_200));
}

#[test]
fn an_intervals_first_run_alone_is_moved() {
    let interval = Cadence::Interval { every_seconds: 7_200, from: IntervalFrom::End };
    let schedule = Schedule { phase_seconds: 600, ..Schedule::new(interval, Tz::UTC) };
    let now = at("2026-11-20T07:00:00Z");
    assert_eq!(schedule.first_of_all(now), Some(now + TimeDelta::seconds(600)));
    assert_eq!(schedule.next_after(now), Some(now + TimeDelta::hours(2)));
    // What waits for its start has not run either: else all begin together then.
    let start = now + TimeDelta::hours(5);
    let later = Schedule { start: Some(start), ..schedule.clone() };
    let first = Some(start + TimeDelta::seconds(600));
    assert_eq!((later.first_of_all(now), later.first_of_all(start)), (first, first));
    assert_eq!(later.next_after(now), first, "a person ran it two hours before it begins");
    assert_eq!(later.next_after(start), Some(start + TimeDelta::hours(2)));
    // The phase takes no fire over the end.
    let end = now + TimeDelta::seconds(300);
    let ended = Schedule { end: Some(end), ..schedule };
    assert_eq!((ended.first_of_all(now), ended.first_of_all(end)), (Some(end), Some(end)));
    assert_eq!(ended.first_of_all(end + TimeDelta::seconds(1)), None);
    let both = Schedule { end: Some(start + TimeDelta::seconds(300)), ..later };
    assert_eq!(both.first_of_all(now), both.end);
}

#[test]
fn a_fire_that_clocks_skip_is_told_by_its_own_time() {
    let night = Schedule { phase_seconds: 1_800, ..cron("hour=2 minute=30", Tz::Europe__Berlin) };
    let fires: Vec<_> =
        night.fires(at("2027-03-26T23:00:00Z")).take(2).map(|fire| night.describe(fire)).collect();
    assert_eq!(fires[0].to_string(), "2027-03-27 03:00:00 +01:00");
    assert_eq!(fires[0].remark, None);
    assert_eq!(fires[1].to_string(), "2027-03-28 04:00:00 +02:00");
    assert_eq!(fires[1].remark.as_deref(), Some("02:30 does not exist that day: shifted"));
}

#[test]
fn a_fire_outside_of_the_windows_says_when_it_may_begin() {
    let windows = vec!["22:00-06:00".parse().unwrap()];
    let daily = Schedule { phase_seconds: 50_000, windows, ..Schedule::cron(Named::Daily.cron(), Tz::UTC) };
    let fire = daily.first_at_or_after(at("2026-11-20T07:00:00Z")).unwrap();
    assert_eq!(fire, at("2026-11-20T13:53:20Z"));
    let remark = daily.describe(fire).remark.unwrap();
    assert_eq!(remark, "waits for the window at 2026-11-20 22:00 +00:00");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Spread fires are the plain ones, each later by the phase: none lost, none twice, wherever the search starts.
    #[test]
    fn every_fire_is_moved_and_none_is_lost(
        fields in prop::sample::select(vec!["minute=0", "hour=*/6 minute=10", "hour=2 minute=30", "day_of_week=sun", "minute=*/7"]),
        zone in prop::sample::select(vec![Tz::UTC, Tz::Europe__Berlin, Tz::Australia__Lord_Howe, Tz::America__Havana]),
        both in any::<bool>(), phase in 0..90_000_u64, from in 1_700_000_000..1_900_000_000_i64,
    ) {
        let overlap = if both { DstOverlap::Both } else { DstOverlap::Once };
        let plain = Schedule { dst_overlap: Some(overlap), ..cron(fields, zone) };
        let moved = Schedule { phase_seconds: phase, ..plain.clone() };
        let from = DateTime::from_timestamp(from, 0).unwrap();
        let phase = TimeDelta::seconds(i64::try_from(phase).unwrap());
        let expect: Vec<_> = plain.fires(from - phase).take(40).map(|fire| fire + phase).collect();
        let got: Vec<_> = moved.fires(from).take(40).collect();
        prop_assert_eq!(&got, &expect);
        prop_assert!(got.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
