//! Schedules: all faults at once, in the words of the schedule's own parsers. Does not know what is due.

use chrono::{DateTime, Datelike as _, SecondsFormat, Utc};
use chrono_tz::Tz;
use fleet::{
    refusal::Violation,
    schedule::{
        CATCH_UP_SECONDS_MAX, Cadence, Cron, CronFields, EVERY_SECONDS_MAX, EVERY_SECONDS_MIN, FieldFault,
        Fire, JITTER_SECONDS_MAX, OverlapPolicy, SPREAD_SECONDS_MAX, Schedule, WINDOWS_MAX, Window, YEAR_MAX,
        YEAR_MIN, parse_crontab, parse_date, parse_zone,
    },
};

use super::{
    OrNote as _,
    enums::wire,
    fault,
    time::{Seconds, duration_to_wire, utc_to_wire},
};
use crate::v1::{self, schedule::Cadence as WireCadence};

const EVERY: Seconds = Seconds { min: EVERY_SECONDS_MIN, max: EVERY_SECONDS_MAX };
const JITTER: Seconds = Seconds { min: 0, max: JITTER_SECONDS_MAX as u64 };
const SPREAD: Seconds = Seconds { min: 0, max: SPREAD_SECONDS_MAX };
const WEEK: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const CATCH_UP: Seconds = Seconds { min: 0, max: CATCH_UP_SECONDS_MAX };

/// A schedule, and what was understood in a way worth saying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadSchedule {
    /// The schedule.
    pub schedule: Schedule,
    /// Notes for the user, such as `IST is read as +05:30`.
    pub notes: Vec<String>,
}

/// Reads a schedule; absent is manual. Fields are named from `schedule` on.
///
/// # Errors
/// Every fault of every field.
pub fn schedule_from_wire(wire: Option<&v1::Schedule>) -> Result<ReadSchedule, Vec<Violation>> {
    let Some(wire) = wire else {
        let schedule = Schedule::new(Cadence::Manual, Tz::UTC);
        return Ok(ReadSchedule { schedule, notes: Vec::new() });
    };
    let mut faults = Vec::new();
    let mut notes = Vec::new();
    let zone = read_zone(&wire.time_zone).or_note(&mut faults).unwrap_or(Tz::UTC);
    let cadence = read_cadence(wire.cadence.as_ref(), &mut notes).or_note(&mut faults);
    let mut schedule = Schedule::new(cadence.unwrap_or(Cadence::Manual), zone);
    let mut instant =
        |field, text| read_instant(field, text, zone, &mut notes).or_note(&mut faults).flatten();
    schedule.start = instant("schedule.start_time", &wire.start_time);
    schedule.end = instant("schedule.end_time", &wire.end_time);
    let jitter = JITTER.read("schedule.jitter", wire.jitter.as_ref()).or_note(&mut faults).flatten();
    schedule.jitter_seconds = jitter.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(0);
    let window = CATCH_UP.read("schedule.catch_up_window", wire.catch_up_window.as_ref());
    schedule.catch_up_window_seconds = window.or_note(&mut faults).flatten();
    let overlap = read_enum("schedule.overlap_policy", wire.overlap_policy, wire::overlap_policy::read);
    schedule.overlap_policy = overlap.or_note(&mut faults).flatten().unwrap_or(OverlapPolicy::BufferOne);
    let dst = read_enum("schedule.dst_overlap", wire.dst_overlap, wire::dst_overlap::read);
    schedule.dst_overlap = dst.or_note(&mut faults).flatten();
    schedule.spread_seconds =
        SPREAD.read("schedule.spread", wire.spread.as_ref()).or_note(&mut faults).flatten();
    schedule.phase_seconds =
        SPREAD.read("schedule.phase", wire.phase.as_ref()).or_note(&mut faults).flatten().unwrap_or(0);
    schedule.windows = read_windows(&wire.windows).or_note(&mut faults).unwrap_or_default();
    // What the parts mean together is judged only when each is right.
    if faults.is_empty() {
        faults.extend(schedule.faults().iter().map(|fault| field_fault("schedule", fault)));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let (schedule, cut) = schedule.with_spread_inside_the_period();
    if cut {
        notes.push("the spread is one period of the schedule at most, and was made that".to_owned());
    }
    Ok(ReadSchedule { schedule, notes })
}

/// The wire's form of a schedule; a crontab line comes out as the cron fields it meant.
#[must_use]
pub fn schedule_to_wire(schedule: &Schedule, notes: Vec<String>) -> v1::Schedule {
    let Schedule {
        cadence,
        time_zone,
        start,
        end,
        jitter_seconds,
        dst_overlap,
        overlap_policy,
        catch_up_window_seconds,
        windows,
        spread_seconds,
        phase_seconds,
    } = schedule;
    let seconds = |seconds| duration_to_wire(std::time::Duration::from_secs(seconds));
    v1::Schedule {
        cadence: Some(cadence_to_wire(cadence)),
        time_zone: time_zone.name().to_owned(),
        start_time: start.map(rfc3339).unwrap_or_default(),
        end_time: end.map(rfc3339).unwrap_or_default(),
        jitter: (*jitter_seconds > 0).then(|| seconds((*jitter_seconds).into())),
        overlap_policy: wire::overlap_policy::number(*overlap_policy),
        catch_up_window: catch_up_window_seconds.map(seconds),
        dst_overlap: dst_overlap.map_or(0, wire::dst_overlap::number),
        notes,
        windows: windows.iter().map(window_to_wire).collect(),
        spread: spread_seconds.map(seconds),
        phase: (*phase_seconds > 0).then(|| seconds(*phase_seconds)),
    }
}

/// The wire's form of one fire.
#[must_use]
pub fn fire_to_wire(fire: &Fire) -> v1::Fire {
    v1::Fire {
        time: Some(utc_to_wire(fire.time.with_timezone(&Utc))),
        local_time: fire.time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        remark: fire.remark.clone().unwrap_or_default(),
    }
}

fn window_to_wire(window: &Window) -> v1::Window {
    let days = window.days().into_iter().map(|day| day.to_string().to_lowercase());
    v1::Window { start: window.start(), end: window.end(), days_of_week: days.collect() }
}

fn read_windows(wire: &[v1::Window]) -> Result<Vec<Window>, Vec<Violation>> {
    if wire.len() > WINDOWS_MAX {
        let text = format!("{} given; at most {WINDOWS_MAX} are accepted", wire.len());
        return Err(vec![Violation::new("schedule.windows", text)]);
    }
    let mut faults = Vec::new();
    let windows = wire.iter().enumerate().filter_map(|(index, wire)| {
        let at = format!("schedule.windows[{index}]");
        read_window(&at, wire).or_note(&mut faults)
    });
    let windows: Vec<Window> = windows.collect();
    if faults.is_empty() { Ok(windows) } else { Err(faults) }
}

fn read_window(at: &str, wire: &v1::Window) -> Result<Window, Vec<Violation>> {
    let v1::Window { start, end, days_of_week } = wire;
    let mut faults = Vec::new();
    let known = |day: &&String| WEEK.contains(&day.as_str());
    let days = days_of_week.iter().take(WEEK.len() + 1);
    if let Some(bad) = days.clone().find(|day| !known(day)) {
        let rule = "must be mon, tue, wed, thu, fri, sat or sun";
        faults.push(fault(format!("{at}.days_of_week"), bad, rule));
    } else if days_of_week.len() > WEEK.len() {
        faults.push(Violation::new(format!("{at}.days_of_week"), "a week has 7 days"));
    }
    let days: Vec<_> = days.filter_map(|day| day.parse().ok()).collect();
    let window = Window::new(start, end, &days).map_err(|bad| fault(at, &format!("{start}-{end}"), bad));
    let window = window.or_note(&mut faults);
    window.filter(|_| faults.is_empty()).ok_or(faults)
}

fn read_zone(name: &str) -> Result<Tz, Violation> {
    if name.is_empty() {
        return Ok(Tz::UTC);
    }
    parse_zone(name).map_err(|bad| field_fault("schedule", &bad))
}

fn read_cadence(wire: Option<&WireCadence>, notes: &mut Vec<String>) -> Result<Cadence, Vec<Violation>> {
    match wire {
        None | Some(WireCadence::Manual(())) => Ok(Cadence::Manual),
        Some(WireCadence::Cron(cron)) => {
            let parsed = Cron::parse(cron_fields(cron)).map_err(|bad| field_faults("schedule.cron", &bad))?;
            Ok(Cadence::Cron(Box::new(parsed)))
        }
        Some(WireCadence::Crontab(line)) => {
            let (fields, said) = parse_crontab(line).map_err(|bad| crontab_faults(&bad))?;
            notes.extend(said);
            let parsed = Cron::parse(fields).map_err(|bad| crontab_faults(&bad))?;
            Ok(Cadence::Cron(Box::new(parsed)))
        }
        Some(WireCadence::Named(number)) => {
            let named =
                read_enum("schedule.named", *number, wire::named_cadence::read).map_err(|bad| vec![bad])?;
            let named = named.ok_or_else(|| {
                vec![Violation::new("schedule.named", "must be HOURLY, DAILY, WEEKLY, MONTHLY or YEARLY")]
            })?;
            Ok(Cadence::Cron(Box::new(named.cron())))
        }
        Some(WireCadence::Interval(interval)) => {
            let mut faults = Vec::new();
            let every = EVERY
                .read("schedule.interval.every", interval.every.as_ref())
                .and_then(|every| {
                    every.ok_or_else(|| Violation::new("schedule.interval.every", "is required: 1m to 366d"))
                })
                .or_note(&mut faults);
            let from = read_enum("schedule.interval.from", interval.from, wire::interval_from::read)
                .or_note(&mut faults)
                .flatten()
                .unwrap_or_default();
            let interval = every.filter(|_| faults.is_empty());
            interval.map(|every_seconds| Cadence::Interval { every_seconds, from }).ok_or(faults)
        }
    }
}

fn cadence_to_wire(cadence: &Cadence) -> WireCadence {
    match cadence {
        Cadence::Manual => WireCadence::Manual(()),
        Cadence::Interval { every_seconds, from } => WireCadence::Interval(v1::Interval {
            every: Some(duration_to_wire(std::time::Duration::from_secs(*every_seconds))),
            from: wire::interval_from::number(*from),
        }),
        Cadence::Cron(cron) => {
            if let Some(named) = cron.named() {
                return WireCadence::Named(wire::named_cadence::number(named));
            }
            let CronFields { year, month, day, week, day_of_week, hour, minute, second } =
                cron.fields().clone();
            let text = Option::unwrap_or_default;
            WireCadence::Cron(v1::Cron {
                year: text(year),
                month: text(month),
                day: text(day),
                week: text(week),
                day_of_week: text(day_of_week),
                hour: text(hour),
                minute: text(minute),
                second: text(second),
            })
        }
    }
}

/// On the wire an empty text is a field that was not given.
fn cron_fields(cron: &v1::Cron) -> CronFields {
    let v1::Cron { year, month, day, week, day_of_week, hour, minute, second } = cron;
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    CronFields {
        year: given(year),
        month: given(month),
        day: given(day),
        week: given(week),
        day_of_week: given(day_of_week),
        hour: given(hour),
        minute: given(minute),
        second: given(second),
    }
}

fn read_instant(
    field: &str,
    text: &str,
    zone: Tz,
    notes: &mut Vec<String>,
) -> Result<Option<DateTime<Utc>>, Violation> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = parse_date(text, Some(zone)).map_err(|bad| fault(field, &bad.value, bad.rule))?;
    // An offset may carry the last hours of the year 9999 over its end, where RFC 3339 has no words.
    let in_range = u32::try_from(parsed.time.year()).is_ok_and(|year| (YEAR_MIN..=YEAR_MAX).contains(&year));
    if !in_range {
        return Err(fault(field, text, format!("must lie in the years {YEAR_MIN} to {YEAR_MAX} (UTC)")));
    }
    notes.extend(parsed.notes);
    Ok(Some(parsed.time))
}

/// Reads a value of a closed set; unspecified is none.
fn read_enum<T>(field: &str, number: i32, read: fn(i32) -> Option<T>) -> Result<Option<T>, Violation> {
    match (number, read(number)) {
        (0, _) => Ok(None),
        (_, Some(value)) => Ok(Some(value)),
        (_, None) => Err(Violation::new(field, format!("{number}: there is no such value"))),
    }
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn field_fault(parent: &str, bad: &FieldFault) -> Violation {
    fault(format!("{parent}.{}", bad.field), &bad.value, &bad.rule)
}

fn field_faults(parent: &str, bad: &[FieldFault]) -> Vec<Violation> {
    bad.iter().map(|bad| field_fault(parent, bad)).collect()
}

/// A crontab line is one field of the API; which column of it is meant stands in front.
fn crontab_faults(bad: &[FieldFault]) -> Vec<Violation> {
    let one = |bad: &FieldFault| match bad.field {
        "crontab" => fault("schedule.crontab", &bad.value, &bad.rule),
        column => {
            let text = fault("schedule.crontab", &bad.value, &bad.rule).description;
            Violation::new("schedule.crontab", format!("{column} {text}"))
        }
    };
    bad.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(wire: v1::Schedule) -> Vec<(String, String)> {
        let faults = schedule_from_wire(Some(&wire)).expect_err("a faulty schedule");
        faults.into_iter().map(|fault| (fault.field, fault.description)).collect()
    }

    fn cron(minute: &str, hour: &str) -> Option<WireCadence> {
        Some(WireCadence::Cron(v1::Cron {
            minute: minute.to_owned(),
            hour: hour.to_owned(),
            ..v1::Cron::default()
        }))
    }

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    fn window(start: &str, end: &str, days: &[&str]) -> v1::Window {
        let days_of_week = days.iter().map(|day| (*day).to_owned()).collect();
        v1::Window { start: start.to_owned(), end: end.to_owned(), days_of_week }
    }

    #[test]
    fn every_bad_window_is_told_by_its_place() {
        let windows = vec![
            window("22:00", "22:00", &[]),
            window("24:00", "6:00", &["mon"]),
            window("01:00", "02:00", &["monday"]),
            window("01:00", "02:00", &["mon"; 9]),
            window("01:00", "02:00", &[]),
        ];
        let found = faults(v1::Schedule { windows, ..v1::Schedule::default() });
        let fields: Vec<&str> = found.iter().map(|(field, _)| field.as_str()).collect();
        let at =
            ["[0]", "[1]", "[2].days_of_week", "[3].days_of_week"].map(|at| format!("schedule.windows{at}"));
        assert_eq!(fields, at);
        assert!(found[0].1.starts_with("\"22:00-22:00\": begins when it ends"), "{found:?}");
        let many = vec![window("01:00", "02:00", &[]); 17];
        let found = faults(v1::Schedule { windows: many, ..v1::Schedule::default() });
        assert_eq!(found, [("schedule.windows".to_owned(), "17 given; at most 16 are accepted".to_owned())]);
    }

    #[test]
    fn nothing_is_manual_in_utc() {
        let manual = Schedule::new(Cadence::Manual, Tz::UTC);
        assert_eq!(schedule_from_wire(None).unwrap().schedule, manual);
        assert_eq!(schedule_from_wire(Some(&v1::Schedule::default())).unwrap().schedule, manual);
    }

    #[test]
    fn all_faults_come_at_once_and_name_their_fields() {
        let wire = v1::Schedule {
            cadence: cron("*/70", "25"),
            time_zone: "CEST".to_owned(),
            start_time: "friday".to_owned(),
            jitter: seconds(90_000),
            catch_up_window: seconds(-1),
            overlap_policy: 7,
            ..v1::Schedule::default()
        };
        let found = faults(wire);
        let fields: Vec<&str> = found.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "schedule.time_zone",
                "schedule.cron.hour",
                "schedule.cron.minute",
                "schedule.start_time",
                "schedule.jitter",
                "schedule.catch_up_window",
                "schedule.overlap_policy"
            ],
            "{found:?}"
        );
        assert_eq!(found[2].1, "\"*/70\": the step must be 1 to 59");
    }

    #[test]
    fn a_crontab_is_one_field_and_comes_back_as_cron_with_notes() {
        let crontab = |line: &str| v1::Schedule {
            cadence: Some(WireCadence::Crontab(line.to_owned())),
            ..v1::Schedule::default()
        };
        let found = faults(crontab("61 * * * 9"));
        assert!(found.iter().all(|(field, _)| field == "schedule.crontab"));
        assert!(found[0].1.starts_with("minute \"61\": must be 0 to 59"), "{found:?}");
        assert_eq!(faults(crontab("* *")).len(), 1);
        let read = schedule_from_wire(Some(&crontab("30 4 * * 0"))).unwrap();
        assert!(read.notes[0].contains("crontab counts from Sunday"), "{:?}", read.notes);
        let echo = schedule_to_wire(&read.schedule, read.notes.clone());
        assert!(matches!(&echo.cadence, Some(WireCadence::Cron(cron)) if cron.day_of_week == "sun"));
        assert_eq!(echo.notes, read.notes);
        assert_eq!(schedule_from_wire(Some(&echo)).unwrap().schedule, read.schedule);
    }

    #[test]
    fn parts_that_do_not_fit_together_are_faults() {
        let wire = v1::Schedule {
            cadence: cron("0", "1"),
            start_time: "2026-11-20".to_owned(),
            end_time: "2026-11-19".to_owned(),
            ..v1::Schedule::default()
        };
        assert_eq!(faults(wire)[0].0, "schedule.end_time");
        let never = v1::Cron { month: "2".to_owned(), day: "30".to_owned(), ..v1::Cron::default() };
        let wire = v1::Schedule { cadence: Some(WireCadence::Cron(never)), ..v1::Schedule::default() };
        let found = faults(wire);
        assert!(found[0].0 == "schedule.cron" && found[0].1.contains("never matches"), "{found:?}");
        let wire =
            v1::Schedule { end_time: "9999-12-31T23:59:59-01:00".to_owned(), ..v1::Schedule::default() };
        assert_eq!(faults(wire)[0].0, "schedule.end_time");
    }

    #[test]
    fn an_interval_needs_its_distance() {
        let interval = |every| v1::Schedule {
            cadence: Some(WireCadence::Interval(v1::Interval { every, from: 1 })),
            ..v1::Schedule::default()
        };
        assert_eq!(faults(interval(None))[0].0, "schedule.interval.every");
        assert_eq!(faults(interval(seconds(59)))[0].1, "\"59s\": must be 1m to 366d");
        let read = schedule_from_wire(Some(&interval(seconds(14_400)))).unwrap().schedule;
        assert_eq!(schedule_from_wire(Some(&schedule_to_wire(&read, Vec::new()))).unwrap().schedule, read);
    }

    #[test]
    fn all_settings_survive_the_way_out_and_back() {
        let wire = v1::Schedule {
            cadence: cron("*/10", "2"),
            time_zone: "Europe/Berlin".to_owned(),
            start_time: "2026-11-20 18:00:00.5".to_owned(),
            end_time: "Fri, 20 Nov 2027 18:00:00 IST".replace("Fri, ", ""),
            jitter: seconds(300),
            overlap_policy: v1::OverlapPolicy::Skip.into(),
            catch_up_window: seconds(0),
            dst_overlap: v1::DstOverlap::Both.into(),
            notes: vec!["ignored".to_owned()],
            windows: vec![window("22:00", "06:00", &[]), window("00:00", "12:30", &["sat", "sun"])],
            spread: seconds(300),
            phase: seconds(77),
        };
        let read = schedule_from_wire(Some(&wire)).unwrap();
        assert!(read.notes.len() == 1 && read.notes[0].contains("IST is read as +05:30"), "{:?}", read.notes);
        let echo = schedule_to_wire(&read.schedule, Vec::new());
        assert_eq!(echo.start_time, "2026-11-20T17:00:00.500Z");
        assert_eq!(echo.end_time, "2027-11-20T12:30:00Z");
        assert_eq!(echo.windows, wire.windows);
        assert_eq!(schedule_from_wire(Some(&echo)).unwrap().schedule, read.schedule);
    }

    #[test]
    fn a_named_cadence_comes_back_by_its_name() {
        let named =
            |number| v1::Schedule { cadence: Some(WireCadence::Named(number)), ..v1::Schedule::default() };
        let wire = named(v1::NamedCadence::Daily.into());
        let read = schedule_from_wire(Some(&wire)).unwrap().schedule;
        assert_eq!((read.spread_in_force(), read.spread_seconds), (86_400, None));
        let echo = schedule_to_wire(&read, Vec::new());
        assert_eq!((echo.cadence, echo.spread, echo.phase), (wire.cadence, None, None));
        for number in [0, 6, -1] {
            assert_eq!(faults(named(number))[0].0, "schedule.named");
        }
    }

    #[test]
    fn a_spread_stays_inside_the_period_and_says_so() {
        let spread =
            |span| v1::Schedule { spread: span, cadence: cron("0", "*/6"), ..v1::Schedule::default() };
        let read = schedule_from_wire(Some(&spread(seconds(366 * 86_400)))).unwrap();
        assert_eq!(read.schedule.spread_seconds, Some(6 * 3_600));
        assert!(read.notes[0].contains("one period of the schedule at most"), "{:?}", read.notes);
        let read = schedule_from_wire(Some(&spread(seconds(600)))).unwrap();
        assert_eq!((read.schedule.spread_seconds, read.notes.len()), (Some(600), 0));
        assert_eq!(faults(spread(seconds(367 * 86_400)))[0].0, "schedule.spread");
    }

    #[test]
    fn fires_show_local_time_and_remark() {
        let read = schedule_from_wire(Some(&v1::Schedule {
            cadence: cron("30", "2"),
            time_zone: "Europe/Berlin".to_owned(),
            ..v1::Schedule::default()
        }));
        let schedule = read.unwrap().schedule;
        let fire = schedule.first_at_or_after("2027-03-27T12:00:00Z".parse().unwrap()).unwrap();
        let wire = fire_to_wire(&schedule.describe(fire));
        assert_eq!(wire.local_time, "2027-03-28T03:30:00+02:00");
        assert_eq!(wire.remark, "02:30 does not exist that day: shifted");
        assert_eq!(wire.time, Some(utc_to_wire(fire)));
    }
}
