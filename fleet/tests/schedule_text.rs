//! What people type: field lists, crontab lines, times, spans and names of zones.

#![allow(clippy::unwrap_used, reason = "a test helper that fails is a test that fails")]

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use fleet::schedule::{Cron, CronFields, Schedule, parse_crontab, parse_date, parse_span, parse_zone};

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// The next fires in UTC, as `MM-DD HH:MM +OO:OO`.
fn fires(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
    schedule.fires(at(from)).take(count).map(|fire| fire.format("%m-%d %H:%M %:z").to_string()).collect()
}

#[test]
fn field_lists_read_and_print() {
    let fields: CronFields = "hour=*/6  minute=10 day=2nd fri, 1".parse().unwrap();
    assert_eq!(fields.day.as_deref(), Some("2nd fri, 1"));
    assert_eq!(fields.to_string(), "minute=10 hour=*/6 day=2nd fri, 1");
    assert_eq!(CronFields::default().to_string(), "every second");
    let fault = |text: &str| text.parse::<CronFields>().unwrap_err().to_string();
    assert!(fault("minut=1").starts_with("\"minut\": no such field"));
    assert_eq!(fault("hour=1 hour=2"), "hour: given twice");
    assert!(fault("*/5 hour=2").contains("name=value"));
}

mod crontab {
    use super::*;

    fn imported(line: &str) -> String {
        let (fields, _) = parse_crontab(line).unwrap();
        Cron::parse(fields.clone()).unwrap();
        fields.to_string()
    }

    #[test]
    fn fields_are_translated() {
        assert_eq!(imported("10 */6 * * *"), "minute=10 hour=*/6");
        assert_eq!(imported("05 04 * * 0"), "minute=5 hour=4 day_of_week=sun");
        assert_eq!(imported("0 4 * * 7"), "minute=0 hour=4 day_of_week=sun");
        assert_eq!(imported("0 4 * * 1-5"), "minute=0 hour=4 day_of_week=mon-fri");
        assert_eq!(imported("0 4 * * 5-7"), "minute=0 hour=4 day_of_week=fri-sun");
        assert_eq!(imported("0 4 * * sat-sun"), "minute=0 hour=4 day_of_week=sat,sun");
        assert_eq!(imported("0 4 * * */2"), "minute=0 hour=4 day_of_week=tue,thu,sat,sun");
        assert_eq!(
            imported("*/60 0-23/2 1,15 jan-MAR *"),
            "minute=0 hour=0,2,4,6,8,10,12,14,16,18,20,22 day=1,15 month=1-3"
        );
        assert_eq!(imported("* * * * *"), "minute=*");
        assert_eq!(imported("@hourly"), "minute=0");
        assert_eq!(imported("@weekly"), "minute=0 hour=0 day_of_week=sun");
        assert_eq!(imported("@Annually"), "minute=0 hour=0 day=1 month=1");
    }

    #[test]
    fn day_and_weekday_keep_crons_meaning() {
        let (fields, notes) = parse_crontab("30 5 1 * mon").unwrap();
        assert!(notes.iter().any(|note| note.contains("day 1 OR mon")), "{notes:?}");
        let either = Schedule::cron(Cron::parse(fields).unwrap(), Tz::UTC);
        assert_eq!(
            fires(&either, "2026-09-28T00:00:00Z", 4),
            ["09-28 05:30 +00:00", "10-01 05:30 +00:00", "10-05 05:30 +00:00", "10-12 05:30 +00:00"]
        );
        let (fields, notes) = parse_crontab("0 0 */2 * mon").unwrap();
        assert!(notes.iter().any(|note| note.contains("AND")), "{notes:?}");
        assert_eq!(fields.to_string(), "minute=0 hour=0 day_of_week=mon day=*/2");
        assert_eq!(parse_crontab("0 0 * * *").unwrap().1, Vec::<String>::new());
        let widest = parse_crontab("0 0 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31 * 1-6").unwrap().0;
        Cron::parse(widest).unwrap();
    }

    #[test]
    fn faults_say_what_to_write() {
        let faults = |line: &str| -> Vec<String> {
            parse_crontab(line).unwrap_err().iter().map(ToString::to_string).collect()
        };
        assert_eq!(faults("60 24 0 13 8").len(), 5, "all at once");
        assert_eq!(faults("60 * * * *"), ["minute \"60\": must be 0 to 59"]);
        assert_eq!(
            faults("0 0 L * *"),
            ["day \"L\": must be 1 to 31; for others use the field day: last, 2nd fri, last fri"]
        );
        assert_eq!(
            faults("0 22-6 * * *"),
            ["hour \"22-6\": a range goes from low to high; write two ranges, as in 22-23,0-6"]
        );
        assert_eq!(faults("5/10 * * * *"), ["minute \"5/10\": a step needs a range, as in */10 or 5-59/10"]);
        assert_eq!(faults("*/0 * * * *"), ["minute \"*/0\": the step must be a number from 1 on"]);
        assert!(faults("0 0 * * * sync.sh")[0].contains("6 fields, where five are wanted"));
        assert!(faults("@reboot")[0].contains("does not reboot"));
        assert!(faults("@every 6h")[0].contains("interval"));
        assert!(faults("")[0].contains("0 fields"));
        assert!(faults(&"*".repeat(600))[0].contains("512 bytes"));
        assert_eq!(faults(",1 * * * *"), ["minute \"\": must be 0 to 59"]);
    }
}

mod dates {
    use super::*;

    fn read(text: &str, zone: Tz) -> (String, Vec<String>) {
        let date = parse_date(text, Some(zone)).unwrap();
        (date.time.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string(), date.notes)
    }

    fn refused(text: &str) -> String {
        parse_date(text, None).unwrap_err().to_string()
    }

    #[test]
    fn forms_without_offset_are_wall_time_in_the_zone() {
        for text in
            ["2014-05-7 18:00", "2014-05-07T18:00:00", " 2014-5-07  18:00 ", "Wed May  7 18:00:00 2014"]
        {
            assert_eq!(read(text, Tz::Asia__Kolkata).0, "2014-05-07T12:30:00Z", "{text}");
            assert_eq!(parse_date(text, None).unwrap().time, at("2014-05-07T18:00:00Z"), "{text}");
        }
        assert_eq!(read("2014-5-7", Tz::Europe__Berlin).0, "2014-05-06T22:00:00Z");
    }

    #[test]
    fn an_offset_in_the_text_wins() {
        for text in [
            "2014-07-11T03:08:57+05:30",
            "2014-07-11 03:08:57 +0530 (IST)",
            "Fri, 11 Jul 2014 03:08:57 +0530",
            "11 Jul 2014 03:08:57 +05:30",
            "Fri Jul 11 03:08:57 +0530 2014",
            "Fri Jul 11 03:08:57 AM +0530 2014",
            "Thu Jul 10 21:38:57 UTC 2014",
            "Thu 10 Jul 2014 09:38:57 PM UTC",
            "Thu 10 Jul 21:38:57 GMT 2014",
            "2014-07-10t21:38:57z",
        ] {
            let (time, notes) = read(text, Tz::America__New_York);
            assert_eq!((time.as_str(), notes.len()), ("2014-07-10T21:38:57Z", 0), "{text}");
        }
        assert_eq!(read("2026-11-28T16:30:56,25Z", Tz::UTC).0, "2026-11-28T16:30:56.250Z");
    }

    #[test]
    fn ist_is_indian_time_with_a_warning() {
        let (time, notes) = read("Fri Jul 11 03:08:57 IST 2014", Tz::Europe__Dublin);
        assert_eq!(time, "2014-07-10T21:38:57Z");
        assert_eq!(
            notes,
            ["IST is read as +05:30 (India, Asia/Kolkata); for Ireland or Israel write the offset"]
        );
    }

    #[test]
    fn skipped_and_repeated_times_are_said() {
        let (time, notes) = read("2027-03-28 02:30", Tz::Europe__Berlin);
        assert_eq!(time, "2027-03-28T01:30:00Z");
        assert_eq!(notes, ["02:30 does not exist on 2027-03-28 in Europe/Berlin: moved to 03:30"]);
        let (time, notes) = read("2026-10-25 02:30", Tz::Europe__Berlin);
        assert_eq!(time, "2026-10-25T00:30:00Z");
        assert!(notes[0].starts_with("02:30 comes twice on 2026-10-25 in Europe/Berlin"), "{notes:?}");
    }

    #[test]
    fn everything_else_is_refused_with_a_hint() {
        for text in [
            "",
            "  ",
            "tomorrow",
            "tomorrow 6pm",
            "in 2 hours",
            "friday",
            "now",
            "05/07/2014",
            "7.5.2014",
            "20140507",
            "1400000000",
            "14-05-07",
            "2014",
            "10am",
            "2014-05-07 UTC",
            "2014-05-07 6pm",
            "May 7 2014",
            "2014-05-07 18",
            "2014-05-07 18:0",
            "2014-05-07 18:00 Z Z",
            "2014-05-07T",
            "-2014-05-07",
            "２０１４-05-07",
            "2014-05-07 18:00:",
            "2014-05-07 18:00:00.",
            "+2014-05-07",
            "2014-05-07-08",
            "2014-05-07 18:00:00 (IST)",
        ] {
            assert!(
                refused(text).contains("not a time; write") || refused(text).contains("four digits"),
                "{text}"
            );
        }
        assert!(refused("2014-02-30").contains("there is no day 30 in month 2 of 2014"));
        assert!(refused("2014-05-07 24:00").contains("hour must be 0 to 23"));
        assert!(refused("1969-12-31").contains("1970 to 9999"));
        assert!(refused("Mon Jul 11 03:08:57 UTC 2014").contains("2014-07-11 is a Fri, not a mon"));
        assert!(refused("Fri Jul 11 03:08:57 EST 2014").contains("America/New_York"));
        assert!(refused("2014-07-11 03:08 CST").contains("America/Chicago, Asia/Shanghai"));
        assert!(refused("2014-07-11 03:08 Asia/Kolkata").contains("give Asia/Kolkata as the time zone"));
        assert!(refused("2014-07-11 03:08 UTC+3").contains("either sign"));
        assert!(refused("2014-07-11 03:08 +24:00").contains("up to 23:59"));
        assert!(refused("2014-07-11 03:08 +0560").contains("an offset"));
        assert!(refused("Fri 11 Jul 2014 13:08:57 PM UTC").contains("1 to 12"));
        assert!(refused(&"9".repeat(500)).len() < 250);
    }
}

#[test]
fn spans_are_numbers_with_units() {
    for (text, seconds) in [
        ("45s", 45),
        ("90m", 5_400),
        ("6h", 21_600),
        ("3d", 259_200),
        ("2W", 1_209_600),
        (" 1d12h ", 129_600),
    ] {
        assert_eq!(parse_span(text), Ok(seconds), "{text}");
    }
    for text in [
        "",
        "3",
        "d",
        "3x",
        "3 d",
        "1h1d",
        "1h1h",
        "-3d",
        "1.5h",
        "３d",
        "366d1s",
        "0s",
        "99999999999999999999s",
    ] {
        assert!(parse_span(text).is_err(), "{text}");
    }
    assert_eq!(
        parse_span("friday").unwrap_err().to_string(),
        "\"friday\": a span is a number with a unit, as in 45s, 90m, 6h, 3d, 2w or 1d12h"
    );
}

#[test]
fn zones_are_named() {
    assert_eq!(parse_zone("Europe/Berlin"), Ok(Tz::Europe__Berlin));
    let fault = |name: &str| parse_zone(name).unwrap_err().to_string();
    assert_eq!(
        fault("europe/berlin"),
        "time_zone \"europe/berlin\": no such time zone; did you mean Europe/Berlin?"
    );
    assert!(fault("PDT").contains("America/Los_Angeles"));
    assert!(fault("Mars/Phobos").contains("as in Europe/Berlin"));
    assert!(parse_zone("+05:30").is_err());
}
