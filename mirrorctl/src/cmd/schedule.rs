//! `mirrorctl schedule`: the same schedules that the coordinator has, computed here. Needs no coordinator.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use fleet::schedule::{
    Cadence, Cron, CronFields, DstOverlap, FieldFault, Fire, IntervalFrom, Named, Schedule, parse_crontab,
    parse_date, parse_span, parse_zone,
};
use serde_json::json;

use crate::app::App;
use crate::cli::{DstOverlapArg, Format, NextArgs, ScheduleCommand};
use crate::exit::Exit;
use crate::fault::{Faults, Outcome};
use crate::text::project::fire_line;
use crate::{clock, units};

/// What `schedule next` answers.
#[derive(Debug)]
pub struct Answer {
    /// The fires, at most as many as asked for.
    pub fires: Vec<Fire>,
    /// None follow after the last.
    pub exhausted: bool,
    /// What was understood in a way worth saying.
    pub notes: Vec<String>,
}

pub(super) fn run(app: &App, command: &ScheduleCommand) -> Outcome<Exit> {
    match command {
        ScheduleCommand::Next(args) => {
            let present = clock::now();
            print(app, &next(args, present)?, present)
        }
        ScheduleCommand::ParseDate { text, time_zone } => read_date(app, text, time_zone.as_deref()),
    }
}

/// The next fires of a definition; `present` is used when no `--now` is given.
///
/// # Errors
/// All faults of the definition. One that never fires is none: its answer is empty and exhausted.
pub fn next(args: &NextArgs, present: DateTime<Utc>) -> Outcome<Answer> {
    let mut faults = Faults::default();
    let mut notes = Vec::new();
    let zone = args.time_zone.as_deref().map(parse_zone).transpose();
    let zone = faults.check("--time-zone", zone.map_err(said)).flatten();
    let cadence = cadence(args, &mut faults, &mut notes);
    let mut date = |flag: &str, text: Option<&String>| {
        let parsed = faults.check(flag, text.map(|text| parse_date(text, zone)).transpose());
        let parsed = parsed.flatten()?;
        notes.extend(parsed.notes.into_iter().map(|note| format!("{flag}: {note}")));
        Some(parsed.time)
    };
    let start = date("--start", args.start.as_ref());
    let end = date("--end", args.end.as_ref());
    let now = date("--now", args.now.as_ref()).unwrap_or(present);
    let mut schedule = Schedule::new(cadence.unwrap_or(Cadence::Manual), zone.unwrap_or_default());
    schedule.start = start;
    schedule.end = end;
    schedule.dst_overlap = args.dst_overlap.map(|overlap| match overlap {
        DstOverlapArg::Once => DstOverlap::Once,
        DstOverlapArg::Both => DstOverlap::Both,
    });
    for fault in schedule.faults() {
        // These two mean that it never fires, which is an answer here and a fault only where it would be stored.
        if !["cron", "end_time"].contains(&fault.field) {
            faults.add(flag_of(fault.field), said(fault));
        }
    }
    faults.finish("no fires computed", "mirrorctl schedule next --help")?;
    let mut fires = schedule.fires(now);
    let shown: Vec<Fire> =
        fires.by_ref().take(usize::from(args.count)).map(|fire| schedule.describe(fire)).collect();
    let exhausted = fires.next().is_none();
    if schedule.never_matches() {
        notes.push("it never fires: no time matches all fields between start and end".to_owned());
    } else if shown.is_empty() {
        notes.push("it never fires again".to_owned());
    }
    Ok(Answer { fires: shown, exhausted, notes })
}

/// The cadence of the one form that was given; fields when none was, as all-default cron fields are a definition, too.
fn cadence(args: &NextArgs, faults: &mut Faults, notes: &mut Vec<String>) -> Option<Cadence> {
    if let Some(text) = &args.every {
        if let Ok(named) = text.parse::<Named>() {
            notes.push(format!(
                "in a fleet each project fires at its own moment within its period after these times; {named} with \
                 --spread none fires at them"
            ));
            return Some(Cadence::Cron(Box::new(named.cron())));
        }
        let every_seconds = faults.check("--every", parse_span(text))?;
        notes.push(
            "an interval counts from the end of the last run; shown as if runs took no time".to_owned(),
        );
        return Some(Cadence::Interval { every_seconds, from: IntervalFrom::End });
    }
    if args.crontab.is_none() && args.cron.is_none() && args.fields.is_empty() {
        notes.push("no field was given: that is every second; see mirrorctl schedule next --help".to_owned());
    }
    let fields = if let Some(line) = &args.crontab {
        match parse_crontab(line) {
            Ok((fields, more)) => {
                notes.push(format!("read as {fields}"));
                notes.extend(more);
                fields
            }
            Err(found) => {
                found.into_iter().for_each(|fault| add_field_fault(faults, "--crontab", fault));
                return None;
            }
        }
    } else if let Some(text) = &args.cron {
        faults.check("--cron", text.parse::<CronFields>())?
    } else {
        from_fields(&args.fields, faults)
    };
    let flag = if args.cron.is_some() { "--cron" } else { "--field" };
    match Cron::parse(fields) {
        Ok(cron) => Some(Cadence::Cron(Box::new(cron))),
        Err(found) => {
            found.into_iter().for_each(|fault| add_field_fault(faults, flag, fault));
            None
        }
    }
}

fn from_fields(given: &[String], faults: &mut Faults) -> CronFields {
    let mut fields = CronFields::default();
    for field in given {
        match field.split_once('=') {
            Some((name, expression)) => {
                faults.check("--field", fields.set(name.trim(), expression));
            }
            None => {
                faults.add("--field", format_args!("{field:?}: write NAME=EXPRESSION, as in minute='*/5'"))
            }
        }
    }
    fields
}

/// A fault of a cron field: `--field minute`; of the whole line: `--crontab`.
fn add_field_fault(faults: &mut Faults, flag: &str, fault: FieldFault) {
    let label = if fault.field == "crontab" { flag.to_owned() } else { format!("{flag} {}", fault.field) };
    faults.add(label, said(fault));
}

fn said(fault: FieldFault) -> String {
    format!("{:?}: {}", fault.value, fault.rule)
}

fn flag_of(field: &str) -> &str {
    match field {
        "interval" => "--every",
        other => other,
    }
}

fn print(app: &App, answer: &Answer, present: DateTime<Utc>) -> Outcome<Exit> {
    let local = |fire: &Fire| fire.time.to_rfc3339();
    match app.global.output {
        Format::Json | Format::Yaml => {
            let fires: Vec<String> = answer.fires.iter().map(local).collect();
            app.answer_json(&json!({"fires": fires, "exhausted": answer.exhausted, "notes": answer.notes}))?;
        }
        Format::Name => app.print(&answer.fires.iter().map(|fire| local(fire) + "\n").collect::<String>())?,
        Format::Table | Format::Wide => {
            app.print(&text(answer, present))?;
            for note in &answer.notes {
                app.hint(&format!("Note: {note}"));
            }
        }
    }
    Ok(Exit::Done)
}

/// The fires for people, one a line.
#[must_use]
pub fn text(answer: &Answer, present: DateTime<Utc>) -> String {
    let mut text = String::new();
    for fire in &answer.fires {
        let ahead = fire.time.to_utc() - present;
        let remark = fire.remark.as_deref().unwrap_or_default();
        if ahead < TimeDelta::zero() {
            text.push_str(
                format!("{fire}   {:9} {remark}", format!("{} ago", units::age(-ahead))).trim_end(),
            );
            text.push('\n');
        } else {
            text.push_str(&fire_line(&fire.to_string(), &units::ahead(ahead), remark));
        }
    }
    if answer.exhausted {
        text.push_str(if answer.fires.is_empty() { "No fires.\n" } else { "No more fires after that.\n" });
    }
    text
}

fn read_date(app: &App, text: &str, time_zone: Option<&str>) -> Outcome<Exit> {
    const FAILED: &str = "no time read";
    let mut faults = Faults::default();
    let zone = faults.check("--time-zone", time_zone.map(parse_zone).transpose().map_err(said)).flatten();
    let parsed = faults.check("TEXT", parse_date(text, zone));
    let Some(parsed) = parsed.filter(|_| faults.is_empty()) else {
        return Err(faults.into_fault(FAILED).next("mirrorctl schedule parse-date --help"));
    };
    let time = parsed.time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    if app.is_json() {
        app.answer_json(&json!({"time": time, "notes": parsed.notes}))?;
    } else {
        app.print(&format!("{time}\n"))?;
        for note in &parsed.notes {
            app.hint(&format!("Note: {note}"));
        }
    }
    Ok(Exit::Done)
}
