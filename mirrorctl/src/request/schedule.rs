//! Flags of the schedule as the API's `Schedule`.

use fleet::schedule::{CronFields, Named, SPREAD_SECONDS_MAX, Window, parse_span};
use mirror_proto::v1::{self, schedule::Cadence};
use prost_types::Duration;

use super::span;
use crate::cli::{DstOverlapArg, OverlapArg, ProjectFlags};
use crate::fault::Faults;

/// Whether any flag of the schedule was given.
pub(super) fn flags(flags: &ProjectFlags, project: &mut v1::Project, faults: &mut Faults) -> bool {
    let mut schedule = project.schedule.take().unwrap_or_default();
    let before = schedule.clone();
    let mut given = false;
    if let Some(cadence) = cadence(flags, faults) {
        given = true;
        schedule.cadence = cadence;
    }
    let texts = [
        (&flags.start, &mut schedule.start_time),
        (&flags.end, &mut schedule.end_time),
        (&flags.time_zone, &mut schedule.time_zone),
    ];
    for (text, field) in texts {
        if let Some(text) = text {
            given = true;
            field.clone_from(text);
        }
    }
    for (text, flag, field) in [
        (&flags.jitter, "--jitter", &mut schedule.jitter),
        (&flags.catch_up, "--catch-up", &mut schedule.catch_up_window),
    ] {
        if let Some(text) = text {
            given = true;
            *field = span(text, flag, faults);
        }
    }
    if let Some(text) = &flags.spread {
        given = true;
        schedule.spread = spread(text, faults);
    }
    if !flags.windows.is_empty() {
        given = true;
        schedule.windows = windows(&flags.windows, faults);
    }
    if let Some(overlap) = flags.overlap {
        given = true;
        schedule.overlap_policy = match overlap {
            OverlapArg::BufferOne => v1::OverlapPolicy::BufferOne,
            OverlapArg::Skip => v1::OverlapPolicy::Skip,
        }
        .into();
    }
    if let Some(overlap) = flags.dst_overlap {
        given = true;
        schedule.dst_overlap = match overlap {
            DstOverlapArg::Once => v1::DstOverlap::Once,
            DstOverlapArg::Both => v1::DstOverlap::Both,
        }
        .into();
    }
    // A project that has no schedule keeps having none.
    project.schedule = (given || before != v1::Schedule::default()).then_some(schedule);
    given
}

/// The cadence that was asked for. The outer `None`: no flag speaks of it; the inner: a flag does, and is faulty.
#[allow(clippy::option_option, reason = "not given and given wrongly are different things here")]
fn cadence(flags: &ProjectFlags, faults: &mut Faults) -> Option<Option<Cadence>> {
    if let Some(text) = &flags.cron {
        let fields = faults.check("--cron", text.parse::<CronFields>());
        return Some(fields.map(|fields| Cadence::Cron(cron(fields))));
    }
    if let Some(line) = &flags.crontab {
        return Some(Some(Cadence::Crontab(line.clone())));
    }
    if let Some(text) = &flags.every {
        if let Ok(named) = text.parse::<Named>() {
            return Some(Some(Cadence::Named(named_cadence(named).into())));
        }
        let every = span(text, "--every", faults);
        return Some(every.map(|every| Cadence::Interval(v1::Interval { every: Some(every), from: 0 })));
    }
    flags.manual.then_some(Some(Cadence::Manual(())))
}

/// How often, by name, on the wire.
fn named_cadence(named: Named) -> v1::NamedCadence {
    match named {
        Named::Hourly => v1::NamedCadence::Hourly,
        Named::Daily => v1::NamedCadence::Daily,
        Named::Weekly => v1::NamedCadence::Weekly,
        Named::Monthly => v1::NamedCadence::Monthly,
        Named::Yearly => v1::NamedCadence::Yearly,
    }
}

/// A spread: a span, `period`, or `none`. The coordinator cuts what is wider than the period.
fn spread(text: &str, faults: &mut Faults) -> Option<Duration> {
    let seconds = match text {
        "none" => Some(0),
        "period" => Some(SPREAD_SECONDS_MAX),
        text => {
            let read =
                parse_span(text).map_err(|_| format!("{text:?}: a span as in 20m, or period, or none"));
            faults.check("--spread", read)
        }
    };
    Some(Duration { seconds: i64::try_from(seconds?).unwrap_or(i64::MAX), nanos: 0 })
}

/// The windows that were typed; a single empty one stands for none.
fn windows(typed: &[String], faults: &mut Faults) -> Vec<v1::Window> {
    if typed == [""] {
        return Vec::new();
    }
    let read = |text: &String| {
        let window = text.parse::<Window>().map_err(|bad| format!("{text:?}: {bad}"));
        let window = faults.check("--window", window)?;
        let days = window.days().into_iter().map(|day| day.to_string().to_lowercase());
        Some(v1::Window { start: window.start(), end: window.end(), days_of_week: days.collect() })
    };
    typed.iter().filter_map(read).collect()
}

fn cron(fields: CronFields) -> v1::Cron {
    v1::Cron {
        year: fields.year.unwrap_or_default(),
        month: fields.month.unwrap_or_default(),
        day: fields.day.unwrap_or_default(),
        week: fields.week.unwrap_or_default(),
        day_of_week: fields.day_of_week.unwrap_or_default(),
        hour: fields.hour.unwrap_or_default(),
        minute: fields.minute.unwrap_or_default(),
        second: fields.second.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::flags;
    use super::*;

    #[test]
    fn a_cadence_has_a_name_and_a_spread_a_width() {
        let read = |words: &str| {
            let mut faults = Faults::default();
            let mut project = v1::Project::default();
            super::flags(&flags(words), &mut project, &mut faults);
            project.schedule.filter(|_| faults.is_empty())
        };
        let daily = read("--every|daily").unwrap();
        assert_eq!(daily.cadence, Some(Cadence::Named(v1::NamedCadence::Daily.into())));
        assert_eq!(daily.spread, None);
        for (text, seconds) in [("none", 0), ("20m", 1_200), ("period", 366 * 86_400)] {
            let read = read(&format!("--cron|minute=0|--spread|{text}")).unwrap();
            assert_eq!(read.spread.map(|spread| spread.seconds), Some(seconds), "{text}");
        }
        assert_eq!(read("--every|6h|--spread|soon"), None);
    }
}
