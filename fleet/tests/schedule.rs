//! Schedules against the vectors of the seed's scheduler and date parser, and against the rules where we differ.
//!
//! `vectors/cron.jsonl` and `vectors/dates.jsonl` hold one case a line; the keys are explained at the readers below.

#![allow(clippy::unwrap_used, reason = "a test helper that fails is a test that fails")]

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use fleet::schedule::{
    Cadence, Cron, CronFields, DstOverlap, IntervalFrom, Schedule, parse_date, parse_zone,
};
use serde_json::Value;

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn cron(fields: &str) -> Cron {
    Cron::parse(fields.parse().unwrap()).unwrap()
}

fn schedule(fields: &str, zone: Tz) -> Schedule {
    Schedule::cron(cron(fields), zone)
}

/// The faults of cron fields, as they print.
fn faults(fields: &str) -> Vec<String> {
    let faults = Cron::parse(fields.parse().unwrap()).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

/// The next fires in the schedule's own zone, as `MM-DD HH:MM +OO:OO`.
fn fires(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
    let local =
        |fire: DateTime<Utc>| fire.with_timezone(&schedule.time_zone).format("%m-%d %H:%M %:z").to_string();
    schedule.fires(at(from)).take(count).map(local).collect()
}

mod vectors {
    use super::*;

    fn lines(text: &str) -> impl Iterator<Item = Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap())
    }

    /// The schedule of a line, or what refuses it: the kind of error, as the vectors name it.
    fn read(line: &Value) -> Result<Schedule, &'static str> {
        let mut fields = CronFields::default();
        for (name, text) in line["fields"].as_object().unwrap() {
            fields.set(name, text.as_str().unwrap()).map_err(|_| "unknown_field")?;
        }
        let zone = parse_zone(line["timezone"].as_str().unwrap()).map_err(|_| "timezone")?;
        let date = |key: &'static str| match line[key].as_str() {
            None => Ok(None),
            Some(text) => parse_date(text, Some(zone)).map(|date| Some(date.time)).map_err(|_| key),
        };
        let cron = Cron::parse(fields).map_err(|_| "field")?;
        Ok(Schedule {
            start: date("start_date")?,
            end: date("end_date")?,
            dst_overlap: Some(DstOverlap::Both),
            ..Schedule::cron(cron, zone)
        })
    }

    fn has_tag(line: &Value, tag: &str) -> bool {
        line["tags"].as_array().unwrap().iter().any(|known| known == tag)
    }

    /// `expect` (or `clean`) are the first instants at or after `now`; `exhausted`: none follow; `capped`: none follow
    /// before 2100. Lines with `error` must be refused for what `error_kind` names, and lines tagged `quirk` for a field;
    /// of the errors in start and end only those that our wider grammar of times does not accept.
    #[test]
    fn cron() {
        let year_2100 = at("2100-01-01T00:00:00Z");
        let (mut fired, mut refused) = (0, 0);
        for line in lines(include_str!("vectors/cron.jsonl")) {
            let text = line.to_string();
            let schedule = match read(&line) {
                Err(kind) if line["error"] == true || has_tag(&line, "quirk") => {
                    assert_eq!(kind, line["error_kind"].as_str().unwrap_or("field"), "{text}");
                    refused += 1;
                    continue;
                }
                Err(fault) => panic!("refused: {fault}\n{text}"),
                Ok(_) if text.contains("18:00:00 IST") => {
                    assert!(line["error_kind"] == "start_date" || line["error_kind"] == "end_date", "{text}");
                    continue;
                }
                Ok(schedule) => schedule,
            };
            assert!(line["error"] != true && !has_tag(&line, "quirk"), "accepted: {text}");
            let expect = line.get("clean").unwrap_or_else(|| &line["expect"]).as_array().unwrap();
            let expect: Vec<_> = expect.iter().map(|time| at(time.as_str().unwrap())).collect();
            let mut fires = schedule.fires(at(line["now"].as_str().unwrap()));
            let got: Vec<_> = fires.by_ref().take(expect.len()).collect();
            assert_eq!(got, expect, "{text}");
            if line["exhausted"] == true {
                assert_eq!(fires.next(), None, "{text}");
            }
            if line["capped"] == true {
                assert!(fires.next().is_none_or(|fire| fire >= year_2100), "{text}");
            }
            fired += 1;
        }
        assert!(fired > 1_000 && refused > 200, "{fired} fired, {refused} refused");
    }

    /// Whether our grammar promises to read a line: only then may it not be refused.
    fn promised(line: &Value) -> bool {
        let input = line["input"].as_str().unwrap();
        let other_zone = line.get("dropped_tz").is_some_and(|zone| zone != "IST");
        let posix_sign = ["UTC+", "UTC-", "GMT+", "GMT-"].iter().any(|zone| input.contains(zone));
        let year_first = input.trim().split('-').next().is_some_and(|year| year.len() == 4);
        let form = ["iso", "plain", "ctime", "unix-date", "rfc2822"].iter().any(|tag| has_tag(line, tag))
            || has_tag(line, "date-only") && year_first;
        form && !other_zone && !posix_sign
    }

    /// `expect` is the instant, UTC where the text has no offset; `error`: to be refused; `dropped_tz`: a zone word
    /// that the seed ignored, of which we read IST as +05:30 and refuse the rest.
    #[test]
    fn dates() {
        let mut read = 0;
        for line in lines(include_str!("vectors/dates.jsonl")) {
            let input = line["input"].as_str().unwrap();
            match parse_date(input, None) {
                Ok(date) => {
                    let as_utc = at(line["expect"].as_str().unwrap_or_else(|| panic!("accepted: {line}")));
                    let indian = line["dropped_tz"] == "IST";
                    assert!(indian || line.get("dropped_tz").is_none(), "a zone word was dropped: {line}");
                    let expect = if indian { as_utc - TimeDelta::minutes(330) } else { as_utc };
                    assert_eq!(date.time, expect, "{line}");
                    assert_eq!(date.notes.is_empty(), !indian, "{line}");
                    read += 1;
                }
                Err(fault) => assert!(!promised(&line), "refused: {fault}\n{line}"),
            }
        }
        assert!(read > 100, "only {read} lines were read");
    }
}

#[test]
fn fields_are_anded_and_finer_ones_take_their_minimum() {
    let friday_13th = schedule("day=13 day_of_week=fri", Tz::UTC);
    assert_eq!(fires(&friday_13th, "2026-01-01T00:00:00Z", 2), ["02-13 00:00 +00:00", "03-13 00:00 +00:00"]);
    let second_friday = schedule("day=2nd fri hour=6", Tz::UTC);
    assert_eq!(fires(&second_friday, "2026-11-01T00:00:00Z", 1), ["11-13 06:00 +00:00"]);
    let ends = schedule("day=last,last sat", Tz::UTC);
    assert_eq!(
        fires(&ends, "2026-02-01T00:00:00Z", 3),
        ["02-28 00:00 +00:00", "03-28 00:00 +00:00", "03-31 00:00 +00:00"]
    );
    let leap = schedule("month=2 day=29", Tz::UTC);
    assert_eq!(leap.first_at_or_after(at("2096-03-01T00:00:00Z")), Some(at("2104-02-29T00:00:00Z")));
    let week_53 = schedule("week=53 day_of_week=sun", Tz::UTC);
    assert_eq!(week_53.first_at_or_after(at("2021-02-01T00:00:00Z")), Some(at("2027-01-03T00:00:00Z")));
}

#[test]
fn start_and_end_are_inclusive_and_fractions_round_up() {
    let noon = at("2026-06-01T12:00:00Z");
    let daily = Schedule { start: Some(noon), end: Some(noon), ..schedule("hour=12", Tz::UTC) };
    assert_eq!(daily.first_at_or_after(DateTime::<Utc>::MIN_UTC), Some(noon));
    assert_eq!(daily.next_after(noon), None);
    assert_eq!(daily.next_after(noon - TimeDelta::nanoseconds(1)), Some(noon));
    assert_eq!(daily.first_at_or_after(noon + TimeDelta::nanoseconds(1)), None);
    assert_eq!(daily.first_at_or_after(DateTime::<Utc>::MAX_UTC), None);
    assert_eq!(schedule("second=*", Tz::UTC).next_after(DateTime::<Utc>::MAX_UTC), None);
}

#[test]
fn never_matching_definitions_end() {
    for fields in
        ["month=2 day=30", "month=4,6,9,11 day=31", "month=feb day=5th mon year=2021-2022", "year=5653"]
    {
        let schedule = schedule(fields, Tz::Europe__Berlin);
        assert!(schedule.never_matches(), "{fields}");
        let fault = schedule.faults().remove(0).to_string();
        assert!(fault.starts_with("cron \"") && fault.contains("never matches"), "{fault}");
    }
    let past = schedule("year=2007", Tz::UTC);
    assert!(!past.never_matches());
    assert_eq!(past.first_at_or_after(at("2026-01-01T00:00:00Z")), None);
    let hourly_week_53_of_a_short_year = schedule("year=2025 week=53 hour=* minute=* second=*", Tz::UTC);
    assert!(hourly_week_53_of_a_short_year.never_matches());
}

#[test]
fn a_skipped_time_fires_once_shifted() {
    let night = schedule("hour=2 minute=30", Tz::Europe__Berlin);
    let shown: Vec<_> =
        night.fires(at("2027-03-26T23:00:00Z")).take(3).map(|fire| night.describe(fire)).collect();
    assert_eq!(shown[0].to_string(), "2027-03-27 02:30:00 +01:00");
    assert_eq!(shown[0].remark, None);
    assert_eq!(shown[1].to_string(), "2027-03-28 03:30:00 +02:00");
    assert_eq!(shown[1].remark.as_deref(), Some("02:30 does not exist that day: shifted"));
    assert_eq!(shown[2].to_string(), "2027-03-29 02:30:00 +02:00");

    let covered = schedule("hour=1-2 minute=30", Tz::Europe__Berlin);
    assert_eq!(
        fires(&covered, "2027-03-27T23:00:00Z", 2),
        ["03-28 01:30 +01:00", "03-29 01:30 +02:00"],
        "the hour before takes the place of the skipped one"
    );
    let twice = schedule("hour=2,3 minute=30", Tz::Europe__Berlin);
    assert_eq!(
        fires(&twice, "2027-03-27T23:00:00Z", 2),
        ["03-28 03:30 +02:00", "03-29 02:30 +02:00"],
        "one instant"
    );
    let half = schedule("hour=2 minute=15", Tz::Australia__Lord_Howe);
    assert_eq!(fires(&half, "2026-10-03T14:00:00Z", 2), ["10-04 02:45 +11:00", "10-05 02:15 +11:00"]);
    let midnight = schedule("day_of_week=sun hour=0", Tz::America__Havana);
    assert_eq!(fires(&midnight, "2026-03-07T12:00:00Z", 2), ["03-08 01:00 -04:00", "03-15 00:00 -04:00"]);
    let lost_day = schedule("day=30 hour=12", Tz::Pacific__Apia);
    assert_eq!(fires(&lost_day, "2011-12-20T00:00:00Z", 2), ["12-31 12:00 +14:00", "01-30 12:00 +14:00"]);
}

#[test]
fn after_a_skipped_hour_midnight_is_not_lost() {
    let first = schedule("day=1", Tz::America__New_York);
    assert_eq!(fires(&first, "2023-03-05T00:00:00Z", 1), ["04-01 00:00 -04:00"]);
    let monday = schedule("day_of_week=mon", Tz::America__New_York);
    assert_eq!(fires(&monday, "2023-03-10T00:00:00Z", 1), ["03-13 00:00 -04:00"]);
    let spring = schedule("month=mar-jun", Tz::Europe__Paris);
    let starts = fires(&spring, "2025-12-01T00:00:00Z", 2);
    assert_eq!(starts, ["03-01 00:00 +01:00", "04-01 00:00 +02:00"]);
}

#[test]
fn a_repeated_hour_follows_dst_overlap() {
    let from = "2026-10-24T12:00:00Z";
    let once = ["10-25 02:30 +02:00", "10-26 02:30 +01:00"];
    let both = ["10-25 02:30 +02:00", "10-25 02:30 +01:00"];
    let night = schedule("hour=2 minute=30", Tz::Europe__Berlin);
    assert_eq!(night.dst_overlap_in_force(), DstOverlap::Once);
    assert_eq!(fires(&night, from, 2), once);
    let asked = Schedule { dst_overlap: Some(DstOverlap::Both), ..night.clone() };
    assert_eq!(fires(&asked, from, 2), both);

    for fields in ["hour=2,14 minute=30", "day=25-26", "hour=0"] {
        assert_eq!(schedule(fields, Tz::UTC).dst_overlap_in_force(), DstOverlap::Once, "{fields}");
    }
    for fields in ["minute=30", "hour=*", "hour=2-4", "hour=*/2", "hour=2,3-4", "second=*"] {
        assert_eq!(schedule(fields, Tz::UTC).dst_overlap_in_force(), DstOverlap::Both, "{fields}");
    }
    let remarks = |schedule: &Schedule| -> Vec<_> {
        schedule.fires(at(from)).take(2).filter_map(|fire| schedule.describe(fire).remark).collect()
    };
    assert_eq!(remarks(&night), ["02:30 comes twice that day: fires the first time only"]);
    assert_eq!(
        remarks(&asked),
        ["02:30 comes twice that day: the first time", "02:30 comes twice that day: the second time"]
    );
}

#[test]
fn once_skips_the_second_reading_wherever_the_search_starts() {
    let hourly =
        Schedule { dst_overlap: Some(DstOverlap::Once), ..schedule("minute=*/20", Tz::Europe__Berlin) };
    assert_eq!(fires(&hourly, "2026-10-25T01:10:00Z", 2), ["10-25 03:00 +01:00", "10-25 03:20 +01:00"]);
    let both = schedule("minute=*/20", Tz::Europe__Berlin);
    assert_eq!(fires(&both, "2026-10-25T00:50:00Z", 2), ["10-25 02:00 +01:00", "10-25 02:20 +01:00"]);
}

#[test]
fn intervals_count_from_the_last_run() {
    let interval = Cadence::Interval { every_seconds: 6 * 3_600, from: IntervalFrom::End };
    let schedule = Schedule::new(interval, Tz::UTC);
    let now = at("2026-11-20T07:42:10.5Z");
    assert_eq!(schedule.first_at_or_after(now), Some(at("2026-11-20T07:42:11Z")), "never run: due at once");
    assert_eq!(schedule.next_after(now), Some(at("2026-11-20T13:42:11Z")));
    let later = Schedule { start: Some(at("2027-01-01T00:00:00Z")), ..schedule.clone() };
    assert_eq!(later.next_after(now), later.start);
    let ended = Schedule { end: Some(at("2026-11-20T13:00:00Z")), ..schedule };
    assert_eq!(ended.next_after(now), None);
    let manual = Schedule::new(Cadence::Manual, Tz::UTC);
    assert_eq!((manual.first_at_or_after(now), manual.next_after(now)), (None, None));
    assert!(!manual.never_matches() && manual.faults().is_empty());
}

#[test]
fn the_catch_up_window_is_one_period_within_bounds() {
    let now = at("2026-11-20T07:42:00Z");
    let window = |fields: &str| schedule(fields, Tz::UTC).catch_up_window(now);
    assert_eq!(window("minute=0"), TimeDelta::hours(6));
    assert_eq!(window("hour=3"), TimeDelta::days(1));
    assert_eq!(window("day_of_week=mon"), TimeDelta::days(7));
    assert_eq!(window("day=1"), TimeDelta::days(7));
    assert_eq!(window("year=2027"), TimeDelta::days(7), "one fire only");
    let asked = Schedule { catch_up_window_seconds: Some(60), ..schedule("hour=3", Tz::UTC) };
    assert_eq!(asked.catch_up_window(now), TimeDelta::minutes(1));
    let interval = Cadence::Interval { every_seconds: 12 * 3_600, from: IntervalFrom::Start };
    assert_eq!(Schedule::new(interval, Tz::UTC).catch_up_window(now), TimeDelta::hours(12));
}

#[test]
fn faults_name_the_field_the_value_and_the_range() {
    assert_eq!(faults("minute=*/70"), ["minute \"*/70\": the step must be 1 to 59"]);
    assert_eq!(faults("minute=0,60"), ["minute \"60\": must be 0 to 59"]);
    assert_eq!(faults("hour=22-6"), ["hour \"22-6\": a range goes from low to high; write 22-23,0-6"]);
    assert_eq!(
        faults("day_of_week=sat-mon"),
        ["day_of_week \"sat-mon\": a range goes from low to high; write sat-sun,mon"]
    );
    assert_eq!(
        faults("day_of_week=7"),
        ["day_of_week \"7\": must be 0 (Monday) to 6 (Sunday), or mon to sun"]
    );
    assert_eq!(faults("second=59/1"), ["second \"59/1\": no step fits after 59, the highest value"]);
    assert_eq!(faults("hour=007"), ["hour \"007\": numbers are written without leading zeros"]);
    assert_eq!(
        faults("day_of_week=mon-fri/2"),
        ["day_of_week \"mon-fri/2\": names take no step; list them, or use numbers"]
    );
    assert_eq!(
        faults("minute=0-0/5"),
        ["minute \"0-0/5\": a range from 0 to 0 is read in two ways; write 0"]
    );
    assert_eq!(faults("year=99999999999"), ["year \"99999999999\": must be 1970 to 9999"]);
    assert_eq!(
        faults("minute=５"),
        [
            "minute \"５\": not understood; values are 0 to 59, alone, as a-b, a-b/step, */step, *, or in a list"
        ]
    );
    assert_eq!(faults("minute=99,*/0 hour=24 day=last-3").len(), 4, "all at once");
    let long = format!("minute={}1", "1,".repeat(300));
    assert_eq!(faults(&long).len(), 1);
    assert!(faults(&long)[0].len() < 130 && faults(&long)[0].contains("512 bytes"));
}

#[test]
fn schedules_have_bounds() {
    let bad = Schedule {
        start: Some(at("2027-01-01T00:00:00Z")),
        end: Some(at("2026-01-01T00:00:00Z")),
        jitter_seconds: 86_401,
        catch_up_window_seconds: Some(u64::MAX),
        ..Schedule::new(Cadence::Interval { every_seconds: 59, from: IntervalFrom::End }, Tz::UTC)
    };
    let fields: Vec<_> = bad.faults().iter().map(|fault| fault.field).collect();
    assert_eq!(fields, ["interval", "jitter", "catch_up_window", "end_time"]);
    assert!(bad.catch_up_window(at("2026-01-01T00:00:00Z")) <= TimeDelta::days(366));
    assert!(schedule("hour=*/6 minute=10", Tz::UTC).faults().is_empty());
}

#[test]
fn daily_fires_follow_the_wall_clock_of_their_zone() {
    let nine = schedule("hour=9", Tz::Europe__Paris);
    let fires: Vec<_> = nine.fires(at("2026-01-01T00:00:00Z")).take(365).collect();
    for (day, fire) in (0..).zip(fires) {
        let expect = Tz::Europe__Paris.with_ymd_and_hms(2026, 1, 1, 9, 0, 0).unwrap().naive_local()
            + TimeDelta::days(day);
        assert_eq!(fire.with_timezone(&Tz::Europe__Paris).naive_local(), expect);
    }
}
