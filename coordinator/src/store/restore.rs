//! What is done while no coordinator runs: restoring a backup into a new directory, and compacting (sled's file
//! never shrinks, so a store that has pruned much is written anew). Both go through a backup's format.

use std::{fs, io, path::Path};

use super::{
    Store, StoreOptions,
    backup::{self, BackupReport},
    engine::{self, Engine as _, Sled},
    error::{OpenError, StoreError},
    files::{self, Layout},
    key,
    marker::Marker,
    open::SCAN_PAGE,
};

/// Entries that are put into the engine at once.
const IMPORT_BATCH: usize = 512;

/// What a compaction gained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of the engine's file before.
    pub before: u64,
    /// Bytes of the engine's file after.
    pub after: u64,
}

/// Restores a backup into a new or empty directory, offline. [`Store::open`] then says that the store is
/// rewound, until the first commit.
///
/// # Errors
/// When the backup is not good, the directory is not empty, or the disk refuses.
pub fn restore_from(backup: &Path, dir: &Path) -> Result<BackupReport, StoreError> {
    restore_as(backup, dir, true)
}

/// As [`restore_from`], where the backup is known to be the newest state that there ever was: then nothing is rewound,
/// and terms go on as if nothing had been.
///
/// # Errors
/// As [`restore_from`].
pub fn restore_newest(backup: &Path, dir: &Path) -> Result<BackupReport, StoreError> {
    restore_as(backup, dir, false)
}

fn restore_as(backup: &Path, dir: &Path, rewound: bool) -> Result<BackupReport, StoreError> {
    let io = |error| StoreError::io("restoring a backup", error);
    let parent =
        dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    files::make_dir(dir).map_err(io)?;
    if fs::read_dir(dir).map_err(io)?.next().is_some() {
        return Err(StoreError::NotEmpty(dir.to_owned()));
    }
    let layout = Layout::new(dir);
    let report = import(backup, &layout.fresh())?;
    fs::rename(layout.fresh(), layout.engine()).map_err(io)?;
    let marker = Marker { revision: report.revision, clean: true, rewound };
    marker.write(&layout.marker()).map_err(io)?;
    files::sync_dir(parent).map_err(io)?;
    Ok(report)
}

impl Store {
    /// Whether the store holds what this backup holds, to the last byte: then the backup is the newest state there is.
    ///
    /// # Errors
    /// When the backup is not good, or the store cannot be read.
    pub fn is_as_in(&self, backup: &Path) -> Result<bool, StoreError> {
        let (mut same, mut entries) = (true, 0_u64);
        let report = backup::read(backup, |key, value| {
            entries += 1;
            same = same && value.is_some() && self.get(key)?.as_deref() == value;
            Ok(())
        })?;
        if !same || report.revision != self.revision() {
            return Ok(false);
        }
        // Each of its entries is in the store. The last one names the revision once more.
        let mut from = key::FIRST.to_vec();
        let mut records = 0_u64;
        loop {
            let page = self.page(&from, key::LAST, SCAN_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(records + 1 == entries) };
            from = key::after(last);
            records += page.len() as u64;
        }
    }
}

/// Writes the store's file anew without what is no longer in it, offline.
///
/// # Errors
/// When the store cannot be opened in order, or the disk refuses; the store is then as it was.
pub fn compact(dir: &Path) -> Result<Compacted, OpenError> {
    let failed = |source| OpenError::Store { dir: dir.to_owned(), source };
    // The new file and the copy between need the room, so no ballast is made; one that is there stays.
    let options = StoreOptions { create: false, ballast_bytes: 0, ..StoreOptions::default() };
    let store = Store::open(dir, &options)?.store;
    let done = swap(&store, &Layout::new(dir)).map_err(failed);
    store.close().map_err(failed)?;
    done
}

fn swap(store: &Store, layout: &Layout) -> Result<Compacted, StoreError> {
    let io = |error| StoreError::io("compacting the store", error);
    let size = || fs::metadata(engine::data_file(&layout.engine())).map(|data| data.len());
    let before = size().map_err(io)?;
    let copy = layout.copy();
    store.backup_to(&copy)?;
    let imported = import(&copy, &layout.fresh());
    files::remove_file(&copy).map_err(io)?;
    imported?;
    store.replace_engine(|| {
        // A crash between these two is put right by the next open.
        fs::rename(layout.engine(), layout.old())?;
        fs::rename(layout.fresh(), layout.engine())?;
        files::sync_dir(&layout.dir)
    })?;
    files::remove_dir(&layout.old()).map_err(io)?;
    Ok(Compacted { before, after: size().map_err(io)? })
}

/// Writes all that an engine holds into a new engine's directory, durably, and checks that all of it is there.
pub(crate) fn rewrite(engine: &Sled, dir: &Path) -> Result<(), StoreError> {
    let io = |error: io::Error| StoreError::io("writing the store's file anew", error);
    files::make_dir(dir).map_err(io)?;
    let fresh = Sled::open(dir)?;
    let mut from = key::FIRST.to_vec();
    loop {
        let page = engine.page(&from, key::LAST, IMPORT_BATCH)?;
        let Some((last, _)) = page.last() else { break };
        from = key::after(last);
        fresh.import(page.into_iter().map(|(key, value)| (key, Some(value))).collect())?;
    }
    settle(fresh, dir, engine.revision()?)
}

/// Puts a backup into a new engine's directory, durably, and checks that all of it is there.
pub(crate) fn import(backup: &Path, dir: &Path) -> Result<BackupReport, StoreError> {
    let io = |error: io::Error| StoreError::io("restoring a backup", error);
    // Before anything is made: a bad backup leaves no trace.
    backup::verify_backup(backup)?;
    files::make_dir(dir).map_err(io)?;
    let engine = Sled::open(dir)?;
    let mut batch = Vec::with_capacity(IMPORT_BATCH);
    let report = backup::read(backup, |key, value| {
        batch.push((key.to_vec(), value.map(<[u8]>::to_vec)));
        if batch.len() == IMPORT_BATCH {
            return engine.import(std::mem::take(&mut batch));
        }
        Ok(())
    })?;
    engine.import(batch)?;
    settle(engine, dir, report.revision)?;
    Ok(report)
}

/// Makes a new engine's directory durable, that must be at this revision.
fn settle(engine: Sled, dir: &Path, revision: u64) -> Result<(), StoreError> {
    engine.sync()?;
    let found = engine.revision()?;
    if found != revision {
        return Err(StoreError::WentBack { found, acknowledged: revision });
    }
    drop(engine);
    files::tighten(dir)
        .and_then(|()| files::sync_dir(dir))
        .map_err(|error| StoreError::io("making a new store durable", error))
}
