//! Schedules, by the texts they were given in: what these mean is found again by the schedule's own parsers.

use chrono::{DateTime, Utc};
use fleet::schedule::{Cadence, Cron, CronFields, Schedule, Window};

use super::{At as _, Bad, Read, choice, list, maybe, need, part};
use crate::{
    convert::enums::stored,
    store::{self, schedule::Cadence as StoredCadence},
};

pub(super) fn schedule(schedule: &Schedule) -> store::Schedule {
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
    store::Schedule {
        cadence: Some(write_cadence(cadence)),
        time_zone: Some(time_zone.name().to_owned()),
        start: start.map(instant),
        end: end.map(instant),
        jitter_seconds: Some(*jitter_seconds),
        dst_overlap: dst_overlap.map(stored::dst_overlap::number),
        overlap_policy: Some(stored::overlap_policy::number(*overlap_policy)),
        catch_up_window_seconds: *catch_up_window_seconds,
        windows: windows.iter().map(ToString::to_string).collect(),
        spread_seconds: *spread_seconds,
        phase_seconds: (*phase_seconds > 0).then_some(*phase_seconds),
    }
}

pub(super) fn read_schedule(message: store::Schedule) -> Read<Schedule> {
    let zone = need("time_zone", message.time_zone)?;
    let dst_overlap =
        message.dst_overlap.map(|number| choice("dst_overlap", Some(number), stored::dst_overlap::read));
    Ok(Schedule {
        cadence: part("cadence", message.cadence, read_cadence)?,
        time_zone: zone.parse().map_err(|_| Bad::new("time_zone", format!("{zone:?}: no such time zone")))?,
        start: maybe("start", message.start, read_instant)?,
        end: maybe("end", message.end, read_instant)?,
        jitter_seconds: need("jitter_seconds", message.jitter_seconds)?,
        dst_overlap: dst_overlap.transpose()?,
        overlap_policy: choice("overlap_policy", message.overlap_policy, stored::overlap_policy::read)?,
        catch_up_window_seconds: message.catch_up_window_seconds,
        windows: list("windows", message.windows, read_window)?,
        spread_seconds: message.spread_seconds,
        phase_seconds: message.phase_seconds.unwrap_or(0),
    })
}

fn read_window(text: String) -> Read<Window> {
    text.parse().map_err(|bad| Bad::new("window", format!("{text:?}: {bad}")))
}

fn write_cadence(cadence: &Cadence) -> StoredCadence {
    match cadence {
        Cadence::Manual => StoredCadence::Manual(store::Manual {}),
        Cadence::Interval { every_seconds, from } => StoredCadence::Interval(store::Interval {
            every_seconds: Some(*every_seconds),
            from: Some(stored::interval_from::number(*from)),
        }),
        Cadence::Cron(cron) => {
            if let Some(named) = cron.named() {
                return StoredCadence::Named(stored::named_cadence::number(named));
            }
            let CronFields { year, month, day, week, day_of_week, hour, minute, second } =
                cron.fields().clone();
            StoredCadence::Cron(store::Cron { year, month, day, week, day_of_week, hour, minute, second })
        }
    }
}

fn read_cadence(message: StoredCadence) -> Read<Cadence> {
    match message {
        StoredCadence::Manual(store::Manual {}) => Ok(Cadence::Manual),
        StoredCadence::Interval(interval) => Ok(Cadence::Interval {
            every_seconds: need("every_seconds", interval.every_seconds).at("interval")?,
            from: choice("from", interval.from, stored::interval_from::read).at("interval")?,
        }),
        StoredCadence::Named(number) => {
            let named = choice("named", Some(number), stored::named_cadence::read)?;
            Ok(Cadence::Cron(Box::new(named.cron())))
        }
        StoredCadence::Cron(cron) => {
            let store::Cron { year, month, day, week, day_of_week, hour, minute, second } = cron;
            let fields = CronFields { year, month, day, week, day_of_week, hour, minute, second };
            let parsed = Cron::parse(fields).map_err(|faults| {
                let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
                Bad::new("cron", texts.join("; "))
            })?;
            Ok(Cadence::Cron(Box::new(parsed)))
        }
    }
}

fn instant(time: DateTime<Utc>) -> store::Instant {
    store::Instant { seconds: Some(time.timestamp()), nanos: Some(time.timestamp_subsec_nanos()) }
}

fn read_instant(message: store::Instant) -> Read<DateTime<Utc>> {
    let (seconds, nanos) = (need("seconds", message.seconds)?, need("nanos", message.nanos)?);
    DateTime::from_timestamp(seconds, nanos)
        .ok_or_else(|| Bad::new("seconds", format!("{seconds}.{nanos:09}: no such instant")))
}
