//! How late schedules fire: many projects through the driver, each at its own second of the hour, while the clock goes.
//! A fire's error is the time from the moment that the schedule says to the moment at which its run was decided.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use fleet::{
    schedule::{Cron, CronFields, Schedule},
    time::Wall,
};
use mirror_coordinator::clock;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::{
    Size,
    commits::{ask, enrol, open, private_dir},
    table::{Row, Samples},
};

/// Target of document 7.
const TARGET: Duration = Duration::from_millis(50);
/// Seconds.
const HOUR: i64 = 3_600;
/// What is due at the end of the window has this long to be decided.
const GRACE: Duration = Duration::from_secs(2);

/// The row.
pub(crate) fn rows(runtime: &Runtime, size: Size) -> Result<Vec<Row>> {
    let (count, period) = size.pick((600, 60), (100_000, HOUR));
    let window = Duration::from_secs(size.pick(5, 120));
    let dir = private_dir()?;
    let (driver, thread) = open(dir.path())?;
    let stop = CancellationToken::new();
    let clock = runtime.spawn(clock::run(driver.clone(), stop.clone()));
    runtime.block_on(enrol(&driver, count))?;
    runtime.block_on(ask(&driver, 0..count, None, size.pick(once_a_minute, once_an_hour)))?;
    let from = second_now()? + 1;
    std::thread::sleep(window + GRACE);
    let until = from + i64::try_from(window.as_secs())?;
    let mut runs = BTreeMap::<_, Vec<Duration>>::new();
    let view = driver.view();
    for attempt in view.attempts() {
        let Some(run) = view.run(attempt.id.run) else { continue };
        if (from * 1_000..until * 1_000).contains(&run.trigger.time.0) {
            runs.entry((run.project, run.trigger.time))
                .or_default()
                .push(error(run.create_time, run.trigger.time)?);
        }
    }
    drop(view);
    stop.cancel();
    runtime.block_on(clock)?;
    drop(driver);
    thread.join();
    let due = |second: i64| {
        (0..count).filter(|number| second_of(period, *number) == second.rem_euclid(period)).count()
    };
    let wanted: usize = (from..until).map(due).sum();
    ensure!(runs.values().all(|runs| runs.len() == 1), "a fire was doubled");
    ensure!(runs.len() == wanted, "{} of {wanted} fires came", runs.len());
    let mut samples = Samples::default();
    samples.extend(runs.into_values().flatten());
    let spread = if period == HOUR { "an hour" } else { "a minute" };
    Ok(vec![
        Row::new(
            format!("fire error, {count} projects spread over {spread}, {wanted} fires, p50 / p99"),
            samples.show(),
        )
        .peer("p99 498 ms (a cron library, 10,000 projects)")
        .target("p99 ≤ 50 ms, none lost or doubled", samples.percentile(99) <= TARGET),
    ])
}

/// The second of the period, in seconds, at which this project is due.
fn second_of(period: i64, number: usize) -> i64 {
    i64::try_from(number).expect("few projects") % period
}

fn once_a_minute(number: usize) -> Schedule {
    at(CronFields { second: Some(second_of(60, number).to_string()), ..CronFields::default() })
}

fn once_an_hour(number: usize) -> Schedule {
    let second = second_of(HOUR, number);
    at(CronFields {
        minute: Some((second / 60).to_string()),
        second: Some((second % 60).to_string()),
        ..CronFields::default()
    })
}

fn at(fields: CronFields) -> Schedule {
    Schedule::cron(Cron::parse(fields).expect("a schedule"), chrono_tz::UTC)
}

fn second_now() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?)
}

fn error(decided: Wall, due: Wall) -> Result<Duration> {
    Ok(Duration::from_millis(u64::try_from(decided.0 - due.0)?))
}
