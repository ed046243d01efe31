//! A full disk: commits fail, nothing acknowledged is lost, and with room again the store goes on.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod store_common;

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use fleet::record::Change;
use mirror_coordinator::store::{Ballast, Store, StoreError, StoreOptions, Unit};
use store_common::{assert_whole, changes, disk::Disk, fill, options, request, temp_dir};

const DISK_BYTES: u64 = 48 << 20;
const BALLAST: u64 = 8 << 20;

/// A small disk, after the directory that it is mounted at, so that it goes first; `None`, with the reason told, where
/// this process may not mount.
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
fn small_disk() -> Option<(tempfile::TempDir, Disk)> {
    let dir = temp_dir();
    match Disk::memory(dir.path(), DISK_BYTES) {
        Ok(disk) => Some((dir, disk)),
        Err(why) => {
            println!("skipped: a tmpfs cannot be mounted here: {why}");
            None
        }
    }
}

/// Fills the rest of the disk.
fn fill_up(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [1 << 20, 4_096] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

/// Commits the world's next revisions until one fails.
fn commit_until_full(store: &Store) -> StoreError {
    loop {
        let next = store.revision() + 1;
        let bulk = (0..40).map(|n| Change::Put(request(&format!("bulk {n}"), &next.to_string().repeat(800))));
        let clear = (0..40).map(|n| Change::Delete(request(&format!("bulk {n}"), "").key()));
        let unit = Unit::of(&changes(next).into_iter().chain(bulk).collect::<Vec<_>>()).unwrap();
        // The bulk is gone again within the same commit as far as anybody can see, but the log grows.
        let clear = Unit::of(&clear.collect::<Vec<_>>()).unwrap();
        let bulky = unit;
        match store.commit(&[bulky, clear]) {
            Ok(revision) => assert_eq!(revision, next),
            Err(error) => return error,
        }
    }
}

#[test]
fn a_full_disk_fails_commits_loses_nothing_and_ends_when_there_is_room() {
    let Some((_dir, disk)) = small_disk() else { return };
    let dir = disk.path().join("store");
    let with_ballast = StoreOptions { ballast_bytes: BALLAST, ..options() };
    let store = Store::open(&dir, &with_ballast).unwrap().store;
    fill(&store, 50);
    fill_up(&disk.path().join("filler"));

    let error = commit_until_full(&store);
    assert!(error.is_full(), "{error:?}");
    let acknowledged = store.revision();
    let next = Unit::of(&changes(acknowledged + 1)).unwrap();
    assert!(
        matches!(store.commit(std::slice::from_ref(&next)), Err(StoreError::Failed)),
        "until it is opened again"
    );

    // The ballast lets an administrator through while the disk is still full.
    store.reopen().unwrap();
    assert!(!dir.join("ballast").exists());
    assert!(store.revision() == acknowledged || store.revision() == acknowledged + 1);
    assert_whole(&store);
    fill(&store, store.revision() + 20);
    assert_whole(&store);
    assert_eq!(store.restore_ballast().unwrap(), Ballast::NoRoom);

    // Full once more, with nothing left to give up: it fails as often as it is tried, and recovers with room.
    fill_up(&disk.path().join("filler too"));
    assert!(commit_until_full(&store).is_full());
    let acknowledged = store.revision();
    for _ in 0..3 {
        if store.reopen().is_ok() {
            assert!(store.revision() >= acknowledged);
            assert!(commit_until_full(&store).is_full());
        }
    }
    let acknowledged = acknowledged.max(store.revision());
    fs::remove_file(disk.path().join("filler")).unwrap();
    store.reopen().unwrap();
    assert!(store.revision() >= acknowledged);
    assert_whole(&store);
    fill(&store, store.revision() + 20);
    assert_eq!(store.restore_ballast().unwrap(), Ballast::Kept);
    store.close().unwrap();

    let again = Store::open(&dir, &with_ballast).unwrap();
    assert!(again.clean && !again.rewound, "{:?}", again.report);
    assert_whole(&again.store);
}

#[test]
fn a_store_on_a_full_disk_opens_by_giving_up_its_ballast() {
    let Some((_dir, disk)) = small_disk() else { return };
    let dir = disk.path().join("store");
    let with_ballast = StoreOptions { ballast_bytes: BALLAST, ..options() };
    let store = Store::open(&dir, &with_ballast).unwrap().store;
    fill(&store, 200);
    store.close().unwrap();
    drop(store);
    fill_up(&disk.path().join("filler"));
    let opened = Store::open(&dir, &with_ballast).unwrap();
    assert!(!opened.rewound);
    assert_whole(&opened.store);
    let told = opened.report.join("; ");
    assert!(told.contains("ballast") || dir.join("ballast").exists(), "{told}");
}

#[test]
fn a_backup_never_fills_the_disk_of_the_store() {
    let Some((_dir, disk)) = small_disk() else { return };
    let store = Store::open(&disk.path().join("store"), &options()).unwrap().store;
    fill(&store, 200);
    let filler = disk.path().join("filler");
    fill_up(&filler);
    // Room for some of the backup, not for all.
    let length = fs::metadata(&filler).unwrap().len();
    File::options().write(true).open(&filler).unwrap().set_len(length - (256 << 10)).unwrap();
    let path = disk.path().join("backups/daily.backup");
    let error = store.backup_to(&path).unwrap_err();
    assert!(matches!(error, StoreError::NoRoom { .. }) && error.to_string().contains("make room"), "{error}");
    assert_eq!(fs::read_dir(disk.path().join("backups")).unwrap().count(), 0);
    fill(&store, 220);
    fs::remove_file(&filler).unwrap();
    assert_eq!(store.backup_to(&path).unwrap().revision, 220);

    // On a full disk of its own it fails, and the store does not even notice.
    let elsewhere = temp_dir();
    let apart = Store::open(&elsewhere.path().join("store"), &options()).unwrap().store;
    fill(&apart, 200);
    fill_up(&filler);
    let error = apart.backup_to(&disk.path().join("backups/apart.backup")).unwrap_err();
    assert!(error.is_full(), "{error:?}");
    let left = fs::read_dir(disk.path().join("backups")).unwrap();
    assert_eq!(left.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), ["daily.backup"]);
    fill(&apart, 210);
    assert_whole(&apart);
}
