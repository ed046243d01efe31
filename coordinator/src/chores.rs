//! What housekeeping does, job by job. Each may be called at any time and twice: it looks at what is there and does
//! what is left to do. Knows no timetable: that is `ticker.rs`'s.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{Datelike as _, TimeDelta};
use fleet::{
    input::Input,
    time::{Now, Wall},
};
use uuid::Uuid;

use crate::{
    Chain, Services,
    store::{BACKUP_EXTENSION, PRUNE_DELETES_MAX, StoreError},
};

/// A fire that is later than this should have been seen by the clock's task.
pub(crate) const OVERDUE_AFTER: Duration = Duration::from_secs(2);
/// Sweeps in one run; each forgets a bounded number of things.
const SWEEPS_MAX: u32 = 1_000;
/// A CA that ends within this time is to be replaced: a year, in which every certificate of it ends by itself.
const CA_ENDS_SOON: TimeDelta = TimeDelta::days(365);
/// Most commits by which one run of the job removes audit events.
const AUDIT_PRUNES_MAX: u32 = 100;
/// Folder of the backups, in `data_dir`.
pub(crate) const BACKUPS: &str = "backups";
/// What our own backups' names begin with; others in the folder are left alone.
const BACKUP_PREFIX: &str = "coordinator-";
/// What the names of those before an upgrade begin with.
pub(crate) const BEFORE_UPGRADE_PREFIX: &str = "before-upgrade-from-";
/// What the names of those that are made to be sent end in, after a UUID.
pub(crate) const SENDING_EXTENSION: &str = "sending";
/// The time in their names, UTC.
const BACKUP_TIME: &str = "%Y%m%dT%H%M%SZ";
/// Past records that are checked at once.
const SCRUB_PAGE: usize = 500;

type Done = Result<String, String>;

/// Wakes the writer when a fire is overdue. Then the clock's task is dead or stuck, and syncs start all the same.
pub(crate) async fn watchdog(services: Services) -> Done {
    let now = services.driver.now();
    let late = overdue(&services, now);
    services.driver.wake();
    let watch = services.clone();
    blocking(move || {
        watch.store_watch.look(&watch);
        Ok(String::new())
    })
    .await?;
    if late <= OVERDUE_AFTER {
        return Ok("nothing is overdue".to_owned());
    }
    services.watchdog.count();
    tracing::warn!(late_seconds = late.as_secs(), "a fire was overdue: the clock's task did not see it");
    Ok(format!("a fire was {} s overdue", late.as_secs()))
}

/// How late the latest fire is that has not been dealt with.
fn overdue(services: &Services, now: Now) -> Duration {
    let view = services.driver.view();
    let fires = view.projects_by_name().filter_map(|project| project.state.next_fire);
    fires.map(|fire| now.wall.since(fire.at)).max().unwrap_or_default()
}

/// Forgets expired answers and join tokens.
pub(crate) async fn sweep(services: Services) -> Done {
    for round in 0..SWEEPS_MAX {
        let now = services.driver.now();
        if services.driver.view().decide(now, Input::Sweep).changes.is_empty() {
            return Ok(format!("{round} sweeps"));
        }
        services.driver.ask(Input::Sweep).await.map_err(|error| error.to_string())?;
    }
    Ok(format!("{SWEEPS_MAX} sweeps, more is left"))
}

/// Backs the store up and removes the backups that are kept no longer.
pub(crate) async fn backup(services: Services) -> Done {
    let daily = usize::try_from(services.config.backups).unwrap_or(usize::MAX);
    if daily == 0 {
        return Ok("switched off".to_owned());
    }
    let watch = std::sync::Arc::clone(&services.store_watch);
    let done = blocking(move || {
        let folder = services.config.file(BACKUPS);
        let time = services.driver.now().wall.to_utc().format(BACKUP_TIME);
        let path = folder.join(format!("{BACKUP_PREFIX}{time}.{BACKUP_EXTENSION}"));
        let made = services.driver.store().backup_to(&path).map_err(|error| Chain(&error).to_string())?;
        let weekly = usize::try_from(services.config.weekly_backups).unwrap_or(usize::MAX);
        let removed =
            keep_backups(&folder, daily, weekly).map_err(|error| format!("removing old backups: {error}"))?;
        Ok(format!(
            "{} bytes, {} entries to {}; {removed} old ones removed",
            made.bytes,
            made.entries,
            path.display()
        ))
    })
    .await;
    watch.note_backup(done.as_ref().err().cloned());
    done
}

/// Our own backups, the oldest first: the time stands in the name.
pub(crate) fn daily_backups(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut ours: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(BACKUP_PREFIX) && path.extension().is_some_and(|end| end == BACKUP_EXTENSION) {
            ours.push(path);
        }
    }
    ours.sort();
    Ok(ours)
}

/// Keeps the newest `daily` ones, and of the weeks before those the newest one each, for `weekly` weeks.
fn keep_backups(folder: &Path, daily: usize, weekly: usize) -> std::io::Result<usize> {
    let mut ours = daily_backups(folder)?;
    ours.truncate(ours.len().saturating_sub(daily));
    let (mut weeks, mut removed) = (Vec::new(), 0);
    for path in ours.iter().rev() {
        // One whose name holds no time is nobody's week.
        let week = week_of(path);
        if let Some(week) = week.filter(|week| !weeks.contains(week) && weeks.len() < weekly) {
            weeks.push(week);
            continue;
        }
        std::fs::remove_file(path)?;
        removed += 1;
    }
    Ok(removed)
}

fn week_of(path: &Path) -> Option<chrono::IsoWeek> {
    let time = path.file_stem()?.to_str()?.strip_prefix(BACKUP_PREFIX)?;
    chrono::NaiveDateTime::parse_from_str(time, BACKUP_TIME).ok().map(|time| time.iso_week())
}

/// Removes what a coordinator that was killed left of backups. To be called while none can run: theirs look the same.
pub(crate) fn remove_partial(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok).filter(|entry| is_left_over(&entry.file_name())) {
        let path = entry.path();
        match std::fs::remove_file(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what was left of a backup"),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "what is left of a backup cannot be removed");
            }
        }
    }
}

fn is_left_over(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let partial = name.strip_prefix('.').and_then(|name| name.strip_suffix(".partial"));
    let sending = partial.unwrap_or(name).strip_suffix(SENDING_EXTENSION).and_then(|id| id.strip_suffix('.'));
    partial.is_some_and(|name| name.starts_with(BACKUP_PREFIX) || name.starts_with(BEFORE_UPGRADE_PREFIX))
        || sending.is_some_and(|id| Uuid::try_parse(id).is_ok())
}

/// Removes history and audit log beyond their limits, logs whose runs are gone, and sets the ballast aside again.
pub(crate) async fn prune(services: Services) -> Done {
    blocking(move || {
        let removed = prune_history(&services).map_err(|error| Chain(&error).to_string());
        // What is damaged may be what cannot be pruned: it is looked for in any case.
        scrub(&services);
        let removed = removed?;
        let events = prune_audit(&services).map_err(|error| Chain(&error).to_string())?;
        let store = services.driver.store();
        let known = |project, run| store.run(project, run).map_or(true, |found| found.is_some());
        let logs = services.logs.prune(known).map_err(|error| Chain(&error).to_string())?;
        let ballast = store.restore_ballast().map_err(|error| Chain(&error).to_string())?;
        Ok(format!(
            "{removed} runs, the logs of {logs} and {events} audit events removed; ballast: {ballast:?}"
        ))
    })
    .await
}

/// Checks all past records; those that are live are checked at each start.
fn scrub(services: &Services) {
    let (mut from, mut count, mut first) = (None, 0, Vec::new());
    while !services.stopping.is_cancelled() {
        match services.driver.store().scrub(from.as_deref(), SCRUB_PAGE) {
            Ok(part) => {
                count += part.faults.len();
                if first.is_empty() {
                    first = part.faults;
                }
                if part.next.is_none() {
                    break;
                }
                from = part.next;
            }
            Err(error) => {
                // The engine reads no further: how much is behind it is not known.
                count += 1;
                first.push(Chain(&error).to_string());
                break;
            }
        }
    }
    services.store_watch.note_damaged(count, first);
}

fn prune_history(services: &Services) -> Result<usize, StoreError> {
    let days = Duration::from_secs(u64::from(services.config.history_days) * 24 * 3_600);
    let before = services.driver.now().wall.minus(days);
    let keep_runs = usize::try_from(services.config.history_runs).unwrap_or(usize::MAX);
    let store = services.driver.store();
    let mut removed = 0;
    let mut next = store.next_with_history(None)?;
    while let Some(uid) = next {
        let there = services.driver.view().project(uid).is_some();
        let (keep_runs, before) = if there { (keep_runs, before) } else { (0, Wall(i64::MAX)) };
        loop {
            let pruned = store.prune(uid, keep_runs, before)?;
            removed += pruned.runs;
            if !pruned.more {
                break;
            }
        }
        next = store.next_with_history(Some(uid))?;
    }
    Ok(removed)
}

/// A bounded number of rounds: what is left then goes at the job's next time.
fn prune_audit(services: &Services) -> Result<usize, StoreError> {
    let days = Duration::from_secs(u64::from(services.config.audit_days) * 24 * 3_600);
    let before = services.driver.now().wall.minus(days);
    let mut removed = 0;
    for _ in 0..AUDIT_PRUNES_MAX {
        let count = services.driver.store().prune_audit(before)?;
        removed += count;
        if count < PRUNE_DELETES_MAX {
            break;
        }
    }
    Ok(removed)
}

/// Renews the server's own certificate when it is due, takes over a change of the CA that nobody told of by SIGHUP, and
/// tidies up the list of what was issued.
pub(crate) async fn certificate(services: Services) -> Done {
    blocking(move || {
        let now = services.driver.now().wall.to_utc();
        services.adopt().map_err(|error| Chain(&error).to_string())?;
        let ends = services.ca.not_after();
        if ends - now < CA_ENDS_SOON {
            tracing::warn!(%ends, "the fleet's CA ends; next: mirror-coordinator ca rotate");
        }
        services.ca.tidy(now).map_err(|error| format!("tidying up the list of certificates: {error}"))?;
        let renewed = services.who.renew_server(now).map_err(|error| Chain(&error).to_string())?;
        Ok(if renewed { "renewed" } else { "not due" }.to_owned())
    })
    .await
}

async fn blocking(work: impl FnOnce() -> Done + Send + 'static) -> Done {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut left: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        left
    }

    #[test]
    fn the_newest_backups_stay_and_strangers_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| std::fs::write(folder.path().join(name), "x").unwrap();
        for day in 10..15 {
            make(&format!("coordinator-202611{day}T031700Z.backup"));
        }
        make("coordinator-20260101T000000Z.txt");
        make("before-upgrade.backup");
        assert_eq!(keep_backups(folder.path(), 2, 0).unwrap(), 3);
        let left = [
            "before-upgrade.backup",
            "coordinator-20260101T000000Z.txt",
            "coordinator-20261113T031700Z.backup",
            "coordinator-20261114T031700Z.backup",
        ];
        assert_eq!(names(folder.path()), left);
        assert_eq!(keep_backups(folder.path(), 2, 4).unwrap(), 0);
    }

    #[test]
    fn what_is_left_of_backups_is_removed_and_strangers_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| std::fs::write(folder.path().join(name), "x").unwrap();
        let left = [
            ".mine.backup.partial",
            ".mine.sending.partial",
            "before-upgrade-from-mirror-coordinator-0.0.9.backup",
            "coordinator-20261114T031700Z.backup",
            "mine.sending",
        ];
        left.iter().copied().for_each(make);
        make(".before-upgrade-from-mirror-coordinator-0.0.9.backup.partial");
        make(".coordinator-20261115T031700Z.backup.partial");
        make(".0190c0de-0000-7000-8000-000000000001.sending.partial");
        make("0190c0de-0000-7000-8000-000000000002.sending");
        // One that cannot be removed keeps none of the others.
        let stuck = folder.path().join("0190c0de-0000-7000-8000-000000000003.sending");
        std::fs::create_dir(&stuck).unwrap();
        remove_partial(folder.path());
        std::fs::remove_dir(&stuck).unwrap();
        assert_eq!(names(folder.path()), left);
    }

    #[test]
    fn a_year_of_backups_leaves_seven_days_and_four_weeks() {
        let folder = tempfile::tempdir().unwrap();
        let first = chrono::NaiveDate::from_ymd_opt(2026, 1, 1).unwrap();
        for day in first.iter_days().take(364) {
            let name = format!("coordinator-{}T031700Z.backup", day.format("%Y%m%d"));
            std::fs::write(folder.path().join(name), "x").unwrap();
            keep_backups(folder.path(), 7, 4).unwrap();
        }
        let left: Vec<_> = names(folder.path()).iter().map(|name| name[12..20].to_owned()).collect();
        // The last day is Wednesday, 30 December: seven days, and of each week before them the last
        // day that is left, the week that they begin in included.
        let days = ["1229", "1228", "1227", "1226", "1225", "1224"];
        assert_eq!(
            left[left.len() - 7..].iter().rev().skip(1).map(|day| &day[4..]).collect::<Vec<_>>(),
            days
        );
        assert_eq!(
            left[..left.len() - 7],
            ["20261206", "20261213", "20261220", "20261223"].map(str::to_owned)[..]
        );
    }
}
