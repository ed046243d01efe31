//! What housekeeping does, job by job. Each may be called at any time and twice: it looks at what is there and does
//! what is left to do. Knows no timetable: that is `ticker.rs`'s.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::TimeDelta;
use fleet::{
    input::Input,
    time::{Now, Wall},
};

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

type Done = Result<String, String>;

/// Wakes the writer when a fire is overdue. Then the clock's task is dead or stuck, and syncs start all the same.
pub(crate) async fn watchdog(services: Services) -> Done {
    let now = services.driver.now();
    let late = overdue(&services, now);
    services.driver.wake();
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

/// Backs the store up and removes the oldest backups beyond the number kept.
pub(crate) async fn backup(services: Services) -> Done {
    let keep = usize::try_from(services.config.backups).unwrap_or(usize::MAX);
    if keep == 0 {
        return Ok("switched off".to_owned());
    }
    blocking(move || {
        let folder = services.config.file(BACKUPS);
        let time = services.driver.now().wall.to_utc().format("%Y%m%dT%H%M%SZ");
        let path = folder.join(format!("{BACKUP_PREFIX}{time}.{BACKUP_EXTENSION}"));
        let made = services.driver.store().backup_to(&path).map_err(|error| Chain(&error).to_string())?;
        let removed = keep_newest(&folder, keep).map_err(|error| format!("removing old backups: {error}"))?;
        Ok(format!(
            "{} bytes, {} entries to {}; {removed} old ones removed",
            made.bytes,
            made.entries,
            path.display()
        ))
    })
    .await
}

fn keep_newest(folder: &Path, keep: usize) -> std::io::Result<usize> {
    let mut ours: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(BACKUP_PREFIX) && path.extension().is_some_and(|end| end == BACKUP_EXTENSION) {
            ours.push(path);
        }
    }
    // The time stands in the name, so the order of names is the order of age.
    ours.sort();
    let doomed = ours.len().saturating_sub(keep);
    for path in &ours[..doomed] {
        std::fs::remove_file(path)?;
    }
    Ok(doomed)
}

/// Removes history and audit log beyond their limits, logs whose runs are gone, and sets the ballast aside again.
pub(crate) async fn prune(services: Services) -> Done {
    blocking(move || {
        let removed = prune_history(&services).map_err(|error| Chain(&error).to_string())?;
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

    #[test]
    fn the_newest_backups_stay_and_strangers_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| std::fs::write(folder.path().join(name), "x").unwrap();
        for day in 10..15 {
            make(&format!("coordinator-202611{day}T031700Z.backup"));
        }
        make("coordinator-20260101T000000Z.txt");
        make("before-upgrade.backup");
        assert_eq!(keep_newest(folder.path(), 2).unwrap(), 3);
        let mut left: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "before-upgrade.backup",
                "coordinator-20260101T000000Z.txt",
                "coordinator-20261113T031700Z.backup",
                "coordinator-20261114T031700Z.backup",
            ]
        );
        assert_eq!(keep_newest(folder.path(), 2).unwrap(), 0);
    }
}
