//! Backups while commits go on, restoring, compacting.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod store_common;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use fleet::{record::Change, time::Wall};
use mirror_coordinator::store::{StoreError, Unit, compact, restore_from, verify_backup};
use store_common::{
    P, assert_whole, fill, open, request, temp_dir,
    writers::{acknowledged, assert_holds, write},
};

#[test]
fn a_backup_under_commits_is_complete_to_its_revision() {
    let dir = temp_dir();
    let store = open(&dir.path().join("store")).store;
    fill(&store, 500);
    let stop = AtomicBool::new(false);
    let (mut newest, mut while_writing) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fill(&store, store.revision() + 1);
            }
        });
        for round in 0..6 {
            let path = dir.path().join(format!("{round}.backup"));
            let before = store.revision();
            let report = store.backup_to(&path).unwrap();
            assert!(report.revision >= before && report.revision > newest);
            while_writing += report.revision - before;
            newest = report.revision;
            assert_eq!(verify_backup(&path).unwrap(), report);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

            let restored = dir.path().join(format!("restored {round}"));
            assert_eq!(restore_from(&path, &restored).unwrap(), report);
            let opened = open(&restored);
            assert!(opened.clean && opened.rewound && !opened.created);
            assert_eq!(opened.store.revision(), report.revision);
            assert_whole(&opened.store);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(while_writing > 0, "no commit fell into a backup: nothing was tried");
    let left = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.filter(|name| name.to_string_lossy().contains("partial")).count(), 0);
}

#[test]
fn any_damage_to_a_backup_is_found_and_restores_nothing() {
    let dir = temp_dir();
    let store = open(&dir.path().join("store")).store;
    fill(&store, 20);
    let path = dir.path().join("good.backup");
    store.backup_to(&path).unwrap();
    let good = fs::read(&path).unwrap();
    let bad = dir.path().join("bad.backup");
    let target = dir.path().join("target");
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&bad, bytes).unwrap();
        let error = verify_backup(&bad).expect_err(what);
        assert!(matches!(error, StoreError::BadBackup { .. }), "{what}: {error}");
    };
    for at in (0..good.len()).step_by(29) {
        let mut flipped = good.clone();
        flipped[at] ^= 0x40;
        refused(&flipped, &format!("flipped at {at}"));
        refused(&good[..at], &format!("cut at {at}"));
    }
    refused(&[&good[..], b"x"].concat(), "something appended");
    assert!(restore_from(&bad, &target).is_err());
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    restore_from(&path, &target).unwrap();
    assert!(matches!(restore_from(&path, &target), Err(StoreError::NotEmpty(_))), "never over a store");
}

#[test]
fn compacting_shrinks_the_file_and_keeps_all_records() {
    let dir = temp_dir();
    let store = open(dir.path()).store;
    // Much is written and removed again, then the known world comes.
    let large = "x".repeat(5_000);
    for round in 0..10 {
        let put: Vec<_> = (0..200).map(|n| Change::Put(request(&format!("{round} {n}"), &large))).collect();
        let keys: Vec<_> = put
            .iter()
            .map(|change| {
                let Change::Put(record) = change else { unreachable!() };
                Change::Delete(record.key())
            })
            .collect();
        store.commit(&[Unit::of(&put).unwrap()]).unwrap();
        store.commit(&[Unit::of(&keys).unwrap()]).unwrap();
    }
    let live_before = store.live().unwrap();
    assert_eq!(live_before, []);
    store.commit(&[Unit::of(&store_common::changes(500)).unwrap()]).unwrap();
    let revision = store.revision();
    let (live, runs) = (store.live().unwrap(), store.runs(P, None, 10).unwrap());
    assert!(matches!(compact(dir.path()), Err(error) if error.to_string().contains("another coordinator")));
    store.close().unwrap();

    let gained = compact(dir.path()).unwrap();
    assert!(gained.after * 2 < gained.before, "{gained:?}");
    let opened = open(dir.path());
    assert!(opened.clean && !opened.rewound && opened.report.is_empty(), "{:?}", opened.report);
    assert_eq!(opened.store.revision(), revision);
    assert_eq!((opened.store.live().unwrap(), opened.store.runs(P, None, 10).unwrap()), (live, runs));
    opened.store.close().unwrap();

    // Cut short between its two renames.
    fs::rename(dir.path().join("sled"), dir.path().join("sled.old")).unwrap();
    let opened = open(dir.path());
    assert!(!opened.rewound && opened.report[0].contains("cut short"), "{:?}", opened.report);
    assert_eq!(opened.store.revision(), revision);
}

#[test]
fn a_backup_ends_with_an_error_when_the_store_is_opened_again_under_it() {
    let dir = temp_dir();
    let store = open(&dir.path().join("store")).store;
    fill(&store, 600);
    let stop = AtomicBool::new(false);
    let why = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                store.reopen().unwrap();
            }
        });
        let why = (0..200).find_map(|round| {
            match store.backup_to(&dir.path().join(format!("{round}.backup"))) {
                // One that fell between two reopens is good, and says how far it goes.
                Ok(report) => {
                    assert_eq!(report.revision, 600);
                    None
                }
                Err(error) => Some(error.to_string()),
            }
        });
        stop.store(true, Ordering::Relaxed);
        why
    });
    assert_eq!(why.unwrap(), "no backup was made: the store was opened again meanwhile; next: try again");
    // And the next one works, pruning included.
    store.prune(P, 10, Wall(i64::MAX)).unwrap();
    store.backup_to(&dir.path().join("after.backup")).unwrap();
}

#[test]
fn a_backup_under_eight_writers_holds_all_that_was_acknowledged_before_it_began() {
    let dir = temp_dir();
    let notes = dir.path().join("acknowledged");
    let store = open(&dir.path().join("store")).store;
    thread::scope(|scope| {
        // Ends when the store is closed.
        scope.spawn(|| write(&store, &notes));
        let mut last = 0;
        for round in 0..5 {
            let told = acknowledged(&notes);
            let path = dir.path().join(format!("{round}.backup"));
            store.backup_to(&path).unwrap();
            let restored = dir.path().join(format!("restored {round}"));
            restore_from(&path, &restored).unwrap();
            assert_holds(&open(&restored).store, &told, u64::MAX, &format!("backup {round}"));
            let total: u64 = told.iter().sum();
            assert!(round == 0 || total > last, "nothing was written meanwhile");
            last = total;
        }
        store.close().unwrap();
    });
}
