//! Damaged, cut, emptied and missing files: the store comes back whole, or from a backup and says so, or is
//! refused. Never silently empty or older, and never with a wrong value.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod store_common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use mirror_coordinator::store::{Store, StoreOptions};
use store_common::{
    assert_whole,
    damage::{Originals, Verdict, cut, file, flip, zero},
    fill, open, options, snapshots,
};

/// The revision that the damaged stores had got to.
const NEWEST: u64 = 1_200;
/// The revision of their backup, where they have one.
const BACKUP: u64 = 1_000;

/// Bytes of one segment of sled's file, each with a header of its own.
const SEGMENT_BYTES: u64 = 512 << 10;

/// What is done to a file.
type Harm = fn(&PathBuf);

#[test]
fn a_damaged_log_is_repaired_restored_or_refused() {
    let originals = Originals::make(BACKUP, NEWEST);
    let mut verdicts = Vec::new();
    for which in ["crashed", "closed"] {
        for has_backup in [true, false] {
            let mut damage = |name: String, harm: &dyn Fn(&Path, u64)| {
                let copy = originals.copy(which, has_backup);
                let db = copy.path().join("sled/db");
                harm(&db, fs::metadata(&db).unwrap().len());
                verdicts.push(originals.judge(
                    &format!("{which}, backup {has_backup}: {name}"),
                    copy.path(),
                    has_backup,
                ));
            };
            for bytes in [1, 4_096, 65_536, 600_000] {
                damage(format!("cut {bytes}"), &|db, _| cut(db, bytes));
            }
            for percent in [5, 25, 50, 75, 95] {
                damage(format!("flip at {percent} %"), &|db, length| flip(db, length * percent / 100));
                damage(format!("zero page at {percent} %"), &|db, length| {
                    zero(db, length * percent / 100 / 4_096 * 4_096, 4_096);
                });
            }
            for segment in
                0..fs::metadata(originals.path(which).join("sled/db")).unwrap().len() / SEGMENT_BYTES
            {
                let at = segment * SEGMENT_BYTES;
                damage(format!("header of segment {segment} flipped"), &|db, _| flip(db, at + 7));
                damage(format!("header of segment {segment} zeroed"), &|db, _| zero(db, at, 20));
            }
            damage("first page zeroed".to_owned(), &|db, _| zero(db, 0, 4_096));
            damage("emptied".to_owned(), &|db, length| cut(db, length));
            damage("removed".to_owned(), &|db, _| fs::remove_file(db).unwrap());
            damage("its directory removed".to_owned(), &|db, _| {
                fs::remove_dir_all(db.parent().unwrap()).unwrap();
            });
            damage("conf flipped".to_owned(), &|db, _| flip(&db.with_file_name("conf"), 3));
        }
    }
    let count = |wanted: fn(&Verdict) -> bool| verdicts.iter().filter(|v| wanted(v)).count();
    let whole = count(|v| *v == Verdict::Whole);
    let rewound = count(|v| matches!(v, Verdict::Rewound(_)));
    let refused = count(|v| *v == Verdict::Refused);
    println!("{whole} whole, {rewound} rewound and said so, {refused} refused");
    assert!(rewound > 10 && refused > 5, "the damage did no harm: {verdicts:?}");
}

#[test]
fn damaged_snapshots_cost_nothing_but_time() {
    let originals = Originals::make(BACKUP, NEWEST);
    assert!(!snapshots(&originals.path("closed")).is_empty(), "sled writes none any more");
    let harms: [(&str, Harm); 4] = [
        ("flipped", |snap| flip(snap, file(snap).1 / 2)),
        ("cut in half", |snap| cut(snap, file(snap).1 / 2)),
        ("emptied", |snap| cut(snap, u64::MAX)),
        ("zeroed", |snap| zero(snap, 0, usize::try_from(file(snap).1).unwrap())),
    ];
    let copy = originals.copy("closed", false);
    fs::write(copy.path().join("sled/snap.FFFFFFFFFFFFFFFF.generating"), "half").unwrap();
    let opened = open(copy.path());
    assert!(opened.report.is_empty(), "one that sled never finished is no damage: {:?}", opened.report);
    assert_whole(&opened.store);
    for (name, harm) in harms {
        let copy = originals.copy("closed", false);
        snapshots(copy.path()).iter().for_each(harm);
        let opened = open(copy.path());
        assert!(!opened.rewound, "{name}: {:?}", opened.report);
        assert_eq!(opened.store.revision(), NEWEST, "{name}");
        assert_whole(&opened.store);
        let told = opened.report.join("; ");
        assert!(told.contains("quarantine/1"), "{name}: {told}");
        assert!(fs::read_dir(copy.path().join("quarantine/1")).unwrap().count() > 0);
        opened.store.close().unwrap();
        assert!(open(copy.path()).report.is_empty(), "{name}: once is enough");
    }
}

#[test]
fn a_damaged_or_missing_marker_is_no_loss_but_an_emptied_store_is() {
    let originals = Originals::make(BACKUP, NEWEST);
    for (which, backup) in [("closed", true), ("crashed", false)] {
        let copy = originals.copy(which, backup);
        flip(&copy.path().join("marker"), 30);
        let opened = open(copy.path());
        assert!(!opened.clean && !opened.rewound && opened.report[0].contains("marker is damaged"));
        assert_whole(&opened.store);
        drop(opened);

        fs::remove_file(copy.path().join("marker")).unwrap();
        let opened = open(copy.path());
        assert!(!opened.clean && !opened.rewound && !opened.created);
        assert_whole(&opened.store);
        drop(opened);

        // Without the engine's files, a damaged marker still says that there was a store.
        flip(&copy.path().join("marker"), 30);
        fs::remove_dir_all(copy.path().join("sled")).unwrap();
        let verdict = originals.judge("marker damaged, engine gone", copy.path(), backup);
        assert_eq!(verdict, if backup { Verdict::Rewound(BACKUP) } else { Verdict::Refused });
    }
    // And so does a backup alone.
    let copy = originals.copy("closed", true);
    fs::remove_file(copy.path().join("marker")).unwrap();
    fs::remove_dir_all(copy.path().join("sled")).unwrap();
    let none = StoreOptions { create: false, ..options() };
    let opened = Store::open(copy.path(), &none).unwrap();
    assert!(opened.rewound && !opened.created);
    assert_eq!(opened.store.revision(), BACKUP);
}

#[test]
fn a_damaged_live_record_is_found_at_open_and_restored_from_the_newest_good_backup() {
    let originals = Originals::make(BACKUP, NEWEST);
    let copy = originals.copy("closed", true);
    let backups = copy.path().join("backups");
    // A newer backup that is damaged, and a file that is none.
    let newer = backups.join("newer.backup");
    fs::copy(backups.join("daily.backup"), &newer).unwrap();
    flip(&newer, 5_000);
    fs::write(backups.join("nonsense.backup"), "not a backup").unwrap();
    let db = sled::open(copy.path().join("sled")).unwrap();
    let mut value = db.get(b"f").unwrap().unwrap().to_vec();
    *value.last_mut().unwrap() ^= 1;
    db.insert(b"f", value).unwrap();
    drop(db);

    let opened = open(copy.path());
    let told = opened.report.join("\n");
    assert!(opened.rewound && told.contains("fleet record: its checksum does not fit"), "{told}");
    assert!(told.contains("newer.backup") && told.contains("restored from"), "{told}");
    assert_eq!(opened.store.revision(), BACKUP);
    assert_whole(&opened.store);
    assert!(copy.path().join("quarantine").read_dir().unwrap().count() > 0, "the damaged one is kept");
    drop(opened);

    // Still rewound until the first commit, so that the term cannot be forgotten; then no more.
    let again = open(copy.path());
    assert!(again.rewound);
    fill(&again.store, BACKUP + 1);
    drop(again);
    assert!(!open(copy.path()).rewound);
}
