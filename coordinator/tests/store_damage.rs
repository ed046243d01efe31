//! Damaged, cut, emptied and missing files: the store comes back whole, or from a backup and says so, or is
//! refused. Never silently empty or older, and never with a wrong value.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod store_common;

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use mirror_coordinator::store::{OpenError, Opened, Store, StoreOptions};
use store_common::{assert_whole, copy_dir, fill, live_at, open, options, snapshots, temp_dir};

/// The revision that the damaged stores had got to.
const NEWEST: u64 = 1_200;
/// The revision of their backup, where they have one.
const BACKUP: u64 = 1_000;

/// Stores to damage: one as a crash leaves it and one that was closed, each with a backup in `backups`.
struct Originals {
    dir: tempfile::TempDir,
}

impl Originals {
    fn make() -> Self {
        let dir = temp_dir();
        let store = open(&dir.path().join("closed")).store;
        fill(&store, BACKUP);
        store.backup_to(&dir.path().join("closed/backups/daily.backup")).unwrap();
        fill(&store, NEWEST);
        copy_dir(&dir.path().join("closed"), &dir.path().join("crashed"));
        store.close().unwrap();
        // sled writes its snapshot as it opens.
        open(&dir.path().join("closed")).store.close().unwrap();
        Self { dir }
    }

    /// A copy to damage.
    fn copy(&self, which: &str, backup: bool) -> tempfile::TempDir {
        let copy = temp_dir();
        copy_dir(&self.dir.path().join(which), copy.path());
        if !backup {
            fs::remove_dir_all(copy.path().join("backups")).unwrap();
        }
        copy
    }
}

fn file(path: &Path) -> (fs::File, u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    (file, length)
}

fn flip(path: &Path, at: u64) {
    let (file, _) = file(path);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

fn zero(path: &Path, at: u64, bytes: usize) {
    file(path).0.write_all_at(&vec![0; bytes], at).unwrap();
}

fn cut(path: &Path, bytes: u64) {
    let (file, length) = file(path);
    file.set_len(length.saturating_sub(bytes)).unwrap();
}

/// What is done to a file.
type Harm = fn(&PathBuf);

/// Whatever was done to it: the rule that holds for every damage.
#[track_caller]
fn judge(what: &str, dir: &Path, has_backup: bool) -> Verdict {
    match Store::open(dir, &options()) {
        Ok(Opened { store, report, rewound, .. }) => {
            let revision = store.revision();
            let live = store.live().unwrap();
            assert_eq!(live.len(), live_at(revision).len(), "{what}: live records at {revision}");
            if rewound {
                assert!(!report.is_empty(), "{what}: went back without a word");
                assert!(revision > 0, "{what}: silently empty");
                assert!(!has_backup || revision >= BACKUP, "{what}: the backup has more than {revision}");
            } else {
                assert_eq!(revision, NEWEST, "{what}: went back and does not say so: {report:?}");
            }
            // A damaged past record may be an error when it is read, but never a wrong or a missing one.
            if store.scrub(None, 1).is_ok() && every_past_record_reads(&store) {
                assert_whole(&store);
            }
            if rewound { Verdict::Rewound(revision) } else { Verdict::Whole }
        }
        Err(error @ OpenError::Damaged { .. }) => {
            assert!(!has_backup, "{what}: there was a good backup: {error}");
            assert!(error.to_string().contains("mirror-coordinator restore"), "{error}");
            Verdict::Refused
        }
        Err(error) => panic!("{what}: {error:?}"),
    }
}

fn every_past_record_reads(store: &Store) -> bool {
    let mut from = None;
    loop {
        match store.scrub(from.as_deref(), 500) {
            Ok(part) if !part.faults.is_empty() => return false,
            Ok(part) if part.next.is_none() => return true,
            Ok(part) => from = part.next,
            Err(_) => return false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Whole,
    Rewound(u64),
    Refused,
}

#[test]
fn a_damaged_log_is_repaired_restored_or_refused() {
    let originals = Originals::make();
    let mut verdicts = Vec::new();
    for which in ["crashed", "closed"] {
        for has_backup in [true, false] {
            let mut damage = |name: String, harm: &dyn Fn(&Path, u64)| {
                let copy = originals.copy(which, has_backup);
                let db = copy.path().join("sled/db");
                harm(&db, fs::metadata(&db).unwrap().len());
                verdicts.push(judge(
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
    let originals = Originals::make();
    assert!(!snapshots(&originals.dir.path().join("closed")).is_empty(), "sled writes none any more");
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
    let originals = Originals::make();
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
        let verdict = judge("marker damaged, engine gone", copy.path(), backup);
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
    let originals = Originals::make();
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
