//! What is to be said of the store: how old its newest backup is, and what needs a person. Each cause is logged once
//! when it comes and once when it goes, and shown in the fleet's status for as long as it holds. Changes nothing.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fleet::time::{Mono, Now, Wall};
use mirror_proto::{convert, v1};

use crate::{Services, chores};

/// A newest backup that is older needs a person: one daily backup may fail and the next one is in time.
pub const BACKUP_AGE_MAX: Duration = Duration::from_secs(36 * 3_600);
/// A store this many times as large as what is in it (its newest backup) is worth compacting.
pub const WASTE_MAX: u64 = 6;
/// Below this size, in bytes, waste is not worth a word.
const WASTE_BYTES_MIN: u64 = 256 << 20;
/// A larger store, in bytes, takes long to open.
pub const BYTES_MAX: u64 = 4 << 30;
/// Opening should not take longer.
pub const OPEN_TIME_MAX: Duration = Duration::from_secs(30);
/// 99 of 100 commits should not take longer.
pub const COMMIT_TIME_MAX: Duration = Duration::from_millis(250);
/// Damaged past records that are named.
const DAMAGED_NAMED_MAX: usize = 3;

/// What is known of the store.
#[derive(Debug)]
pub struct StoreWatch {
    /// How long opening took.
    opened_in: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    backup_time: Option<Wall>,
    bytes: u64,
    /// Why the last backup failed.
    backup_failed: Option<String>,
    /// Past records that cannot be read: how many, and the first of them.
    damaged: (usize, Vec<String>),
    warnings: BTreeMap<&'static str, String>,
}

/// One look at the store.
struct Look {
    backup: Option<(Wall, u64)>,
    bytes: u64,
    commit_time: Duration,
    writable: bool,
    backups_wanted: bool,
}

impl StoreWatch {
    /// Nothing is known yet but how long opening took.
    #[must_use]
    pub fn new(opened_in: Duration) -> Self {
        Self { opened_in, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As the status shows it.
    #[must_use]
    pub fn show(&self) -> v1::StoreStatus {
        let state = self.state();
        v1::StoreStatus {
            backup_time: state.backup_time.map(convert::wall_to_wire),
            bytes: state.bytes,
            warnings: state.warnings.values().cloned().collect(),
        }
    }

    /// What became of the last backup.
    pub(crate) fn note_backup(&self, failed: Option<String>) {
        self.state().backup_failed = failed;
    }

    /// What the slow check of the history found.
    pub(crate) fn note_damaged(&self, count: usize, first: Vec<String>) {
        self.state().damaged = (count, first.into_iter().take(DAMAGED_NAMED_MAX).collect());
    }

    /// Looks again. Reads a folder: not for the tasks of requests.
    pub(crate) fn look(&self, services: &Services) {
        let driver = &services.driver;
        let look = Look {
            backup: newest_backup(&services.config.file(chores::BACKUPS)),
            bytes: driver.store().disk_bytes().unwrap_or_default(),
            commit_time: driver.commit_time(),
            writable: driver.is_writable(),
            backups_wanted: services.config.backups > 0,
        };
        self.judge(driver.now(), &look);
    }

    fn judge(&self, now: Now, look: &Look) {
        let mut state = self.state();
        let mut warnings = BTreeMap::new();
        if !look.writable {
            let text = "the store takes no writes; the log says why; it is tried again all the time";
            warnings.insert("writes", text.to_owned());
        }
        let age = look.backup.map_or_else(|| now.mono.since(Mono(0)), |(made, _)| now.wall.since(made));
        if look.backups_wanted && age > BACKUP_AGE_MAX {
            let hours = age.as_secs() / 3_600;
            warnings.insert(
                "backup",
                match look.backup {
                    Some(_) => format!("the newest backup is {hours}h old"),
                    None => format!("there is no backup, after {hours}h"),
                },
            );
        }
        if let Some(why) = &state.backup_failed {
            warnings.insert("backup failed", format!("the last backup failed: {why}"));
        }
        if let Some((_, raw)) = look.backup
            && look.bytes > WASTE_BYTES_MIN
            && look.bytes / raw.max(1) > WASTE_MAX
        {
            let times = look.bytes / raw.max(1);
            let text = format!(
                "the store's file is {times} times what is in it: stop it, then mirror-coordinator compact"
            );
            warnings.insert("waste", text);
        }
        if look.bytes > BYTES_MAX {
            let gib = look.bytes >> 30;
            let text = format!(
                "the store's file has {gib} GiB and takes long to open: keep less history, then compact"
            );
            warnings.insert("size", text);
        }
        if self.opened_in > OPEN_TIME_MAX {
            warnings.insert("open", format!("opening the store took {} s", self.opened_in.as_secs()));
        }
        if look.commit_time > COMMIT_TIME_MAX {
            let text =
                format!("1 of 100 commits takes {} ms or more: a slow disk", look.commit_time.as_millis());
            warnings.insert("commits", text);
        }
        if let (count @ 1.., first) = &state.damaged {
            let text = format!("{count} past records are damaged, the first: {}", first.join("; "));
            warnings.insert("history", text);
        }
        for (cause, text) in warnings.iter().filter(|(cause, _)| !state.warnings.contains_key(*cause)) {
            tracing::warn!(cause, "{text}");
        }
        for cause in state.warnings.keys().filter(|cause| !warnings.contains_key(*cause)) {
            tracing::info!(cause, "mended");
        }
        state.backup_time = look.backup.map(|(made, _)| made);
        state.bytes = look.bytes;
        state.warnings = warnings;
    }
}

/// When the newest daily backup was made, and its bytes.
fn newest_backup(folder: &Path) -> Option<(Wall, u64)> {
    let path = chores::daily_backups(folder).ok()?.pop()?;
    let found = fs::metadata(path).ok()?;
    let made = found.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some((Wall(i64::try_from(made.as_millis()).ok()?), found.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn now() -> Now {
        crate::clock::Clock::start().now()
    }

    fn good() -> Look {
        Look {
            backup: Some((now().wall, 1 << 20)),
            bytes: 5 << 20,
            commit_time: Duration::from_millis(2),
            writable: true,
            backups_wanted: true,
        }
    }

    fn causes(watch: &StoreWatch, look: &Look) -> Vec<&'static str> {
        watch.judge(now(), look);
        watch.state().warnings.keys().copied().collect()
    }

    #[test]
    fn each_cause_is_told_and_goes_when_it_is_mended() {
        let watch = StoreWatch::new(Duration::from_secs(1));
        assert!(causes(&watch, &good()).is_empty());
        let old = Look { backup: Some((now().wall.minus(37 * HOUR), 1 << 20)), ..good() };
        assert_eq!(causes(&watch, &old), ["backup"]);
        assert_eq!(watch.show().warnings, ["the newest backup is 37h old"]);
        let unwanted = Look { backups_wanted: false, ..old };
        assert!(causes(&watch, &unwanted).is_empty());
        let large = Look { bytes: 5 << 30, ..good() };
        assert_eq!(causes(&watch, &large), ["size", "waste"]);
        let slow = Look { commit_time: Duration::from_millis(251), writable: false, ..good() };
        assert_eq!(causes(&watch, &slow), ["commits", "writes"]);
        watch.note_backup(Some("no room".to_owned()));
        watch.note_damaged(4, vec!["past run".to_owned(); 9]);
        assert_eq!(causes(&watch, &good()), ["backup failed", "history"]);
        let shown = watch.show().warnings;
        assert_eq!(shown[1], "4 past records are damaged, the first: past run; past run; past run");
        watch.note_backup(None);
        watch.note_damaged(0, Vec::new());
        assert!(causes(&watch, &good()).is_empty());
        assert_eq!(causes(&StoreWatch::new(31 * HOUR / 3_600), &good()), ["open"]);
    }

    #[test]
    fn without_a_backup_the_time_since_the_start_counts() {
        let none = Look { backup: None, ..good() };
        let watch = StoreWatch::new(Duration::ZERO);
        assert!(causes(&watch, &none).is_empty());
        let mut later = now();
        later.mono = Mono(later.mono.0 + 37 * 3_600_000);
        watch.judge(later, &none);
        assert_eq!(watch.show().warnings, ["there is no backup, after 37h"]);
    }
}
