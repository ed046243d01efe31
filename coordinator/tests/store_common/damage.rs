//! Stores to damage, the ways to damage them, and the one rule for whatever comes of it: whole, or repaired or older
//! and said so, or refused with the way back.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use mirror_coordinator::store::{OpenError, Opened, Store};

use super::{assert_past_is_true, assert_whole, copy_dir, fill, live_at, open, options, temp_dir};

/// Stores of a known world: one as a crash leaves it and one that was closed, each with a backup in `backups`.
pub struct Originals {
    dir: tempfile::TempDir,
    /// The revision that they had got to.
    pub newest: u64,
    /// The revision of their backup.
    pub backup: u64,
}

impl Originals {
    pub fn make(backup: u64, newest: u64) -> Self {
        let dir = temp_dir();
        let store = open(&dir.path().join("closed")).store;
        fill(&store, backup);
        store.backup_to(&dir.path().join("closed/backups/daily.backup")).unwrap();
        fill(&store, newest);
        copy_dir(&dir.path().join("closed"), &dir.path().join("crashed"));
        store.close().unwrap();
        // sled writes its snapshot as it opens.
        open(&dir.path().join("closed")).store.close().unwrap();
        Self { dir, newest, backup }
    }

    pub fn path(&self, which: &str) -> PathBuf {
        self.dir.path().join(which)
    }

    /// A copy to damage.
    pub fn copy(&self, which: &str, backup: bool) -> tempfile::TempDir {
        let copy = temp_dir();
        copy_dir(&self.path(which), copy.path());
        if !backup {
            fs::remove_dir_all(copy.path().join("backups")).unwrap();
        }
        copy
    }

    /// Whatever was done to it: the rule that holds for every damage.
    #[track_caller]
    pub fn judge(&self, what: &str, dir: &Path, has_backup: bool) -> Verdict {
        let Opened { store, report, rewound, .. } = match Store::open(dir, &options()) {
            Ok(opened) => opened,
            Err(error @ OpenError::Damaged { .. }) => {
                assert!(!has_backup, "{what}: there was a good backup: {error}");
                assert!(error.to_string().contains("mirror-coordinator restore"), "{error}");
                return Verdict::Refused;
            }
            Err(error @ OpenError::Foreign(_)) => {
                assert!(error.to_string().contains("next: mv "), "{error}");
                return Verdict::Refused;
            }
            Err(error) => panic!("{what}: {error:?}"),
        };
        let revision = store.revision();
        let live = store.live().unwrap();
        assert_eq!(live.len(), live_at(revision).len(), "{what}: live records at {revision}");
        if rewound {
            assert!(!report.is_empty(), "{what}: went back without a word");
            assert!(revision > 0, "{what}: silently empty");
            assert!(!has_backup || revision >= self.backup, "{what}: the backup has more than {revision}");
        } else {
            assert_eq!(revision, self.newest, "{what}: went back and does not say so: {report:?}");
        }
        // A damaged past record may be an error when it is read, but never a wrong one, nor a missing one that is not told.
        let told = report.iter().any(|line| line.contains("these of the past are"));
        let history = every_past_record_reads(&store) && !told;
        if history {
            assert_whole(&store);
        } else if told {
            assert_past_is_true(&store);
        }
        // What was repaired is a store like any other: it takes writes, and they stay.
        fill(&store, revision + 1);
        store.close().unwrap_or_else(|error| panic!("{what}: {error}"));
        drop(store);
        let again = Store::open(dir, &options()).unwrap_or_else(|error| panic!("{what}, again: {error}"));
        assert!(!again.rewound, "{what}, again: {:?}", again.report);
        assert_eq!(again.store.revision(), revision + 1, "{what}, again");
        if history {
            assert_whole(&again.store);
        }
        match (rewound, history) {
            (true, _) => Verdict::Rewound(revision),
            (false, true) => Verdict::Whole,
            (false, false) => Verdict::HistoryDamaged,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Whole,
    /// Nothing live is hit; some past records are told as damaged when they are read.
    HistoryDamaged,
    Rewound(u64),
    Refused,
}

/// Whether the slow check finds nothing.
pub fn every_past_record_reads(store: &Store) -> bool {
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

pub fn file(path: &Path) -> (fs::File, u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    (file, length)
}

pub fn flip(path: &Path, at: u64) {
    flip_bit(path, at, 4);
}

pub fn flip_bit(path: &Path, at: u64, bit: u8) {
    let (file, _) = file(path);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
}

/// Overwrites, never past the end.
pub fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let (file, length) = file(path);
    let room = usize::try_from(length.saturating_sub(at)).unwrap();
    file.write_all_at(&bytes[..bytes.len().min(room)], at).unwrap();
}

pub fn zero(path: &Path, at: u64, bytes: usize) {
    overwrite(path, at, &vec![0; bytes]);
}

pub fn cut(path: &Path, bytes: u64) {
    let (file, length) = file(path);
    file.set_len(length.saturating_sub(bytes)).unwrap();
}

/// Every file below a directory, by its name in it.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    fn collect(root: &Path, below: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(root.join(below)).unwrap() {
            let entry = entry.unwrap();
            let name = below.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                collect(root, &name, found);
            } else {
                found.push(name);
            }
        }
    }
    let mut found = Vec::new();
    collect(dir, Path::new(""), &mut found);
    found.sort();
    found
}
