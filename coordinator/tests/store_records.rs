//! What goes into the store comes out of it: live records, pages of history, pruning, limits, versions.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "it says what it skips")]

mod store_common;

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, time::Duration};

use fleet::{
    agent::{AgentCaps, AgentFacts, AgentRecord, LastKnown, Root, labels_fault},
    defaults::{LABELS_BYTES_MAX, LABELS_MAX, REASON_CHARS_MAX},
    engine::REPLICAS_MAX,
    id::{AgentUid, AttemptId, NAME_BYTES_MAX, ProjectUid},
    outcome::GuardKind,
    record::{Change, Key, Record},
    run::{Missed, RunRecord, RunState, Wish},
    time::Wall,
};
use mirror_coordinator::store::{
    OpenError, PRUNE_DELETES_MAX, Pruned, SCHEMA, Store, StoreError, StoreOptions, Unit, VALUE_BYTES_MAX,
};
use store_common::{
    P, assert_whole, attempt, changes, disk::Disk, fill, open, options, request, run, run_id, temp_dir,
};

/// Bytes of a disk of its own.
const DISK_BYTES: u64 = 48 << 20;

fn put(store: &Store, records: impl IntoIterator<Item = Record>) {
    let changes: Vec<_> = records.into_iter().map(Change::Put).collect();
    store.commit(&[Unit::of(&changes).unwrap()]).unwrap();
}

#[test]
fn a_store_that_was_closed_comes_back_clean_and_whole() {
    let dir = temp_dir();
    let opened = open(dir.path());
    assert!(opened.created && !opened.clean && !opened.rewound && opened.report.is_empty());
    fill(&opened.store, 120);
    assert_whole(&opened.store);
    opened.store.close().unwrap();
    assert!(matches!(opened.store.live(), Err(StoreError::Failed | StoreError::Closed)));
    assert!(matches!(opened.store.commit(&[Unit::of(&changes(121)).unwrap()]), Err(StoreError::Closed)));

    let again = open(dir.path());
    assert!(again.clean && !again.created && !again.rewound && again.report.is_empty(), "{:?}", again.report);
    assert_eq!(again.store.revision(), 120);
    assert_whole(&again.store);
    drop(again);
    let third = open(dir.path());
    assert!(!third.clean && !third.rewound, "dropped without close");
    assert!(third.report[0].contains("not closed in order"), "{:?}", third.report);
    assert_whole(&third.store);
}

#[test]
fn many_units_are_one_revision_and_later_ones_win() {
    let dir = temp_dir();
    let store = open(dir.path()).store;
    let unit = |payload: &str| Unit::of(&[Change::Put(request("same", payload))]).unwrap();
    let units: Vec<_> = (0..512).map(|n| unit(&n.to_string())).collect();
    assert_eq!(store.commit(&units).unwrap(), 1);
    assert_eq!(store.live().unwrap(), [request("same", "511")]);
    assert_eq!(store.commit(&[]).unwrap(), 1, "nothing to store is no commit");
    let too_many = vec![unit("x"); 513];
    assert!(matches!(store.commit(&too_many), Err(StoreError::TooManyUnits { units: 513, limit: 512 })));
    store.reopen().unwrap();
    assert_eq!(store.commit(&[unit("after")]).unwrap(), 2);
}

#[test]
fn what_is_no_longer_live_is_found_in_the_history_and_only_there() {
    let dir = temp_dir();
    let store = open(dir.path()).store;
    put(
        &store,
        [
            Record::Run(run(P, 9, RunState::Running)),
            Record::Attempt(attempt(P, 9, 1, false)),
            Record::Attempt(attempt(P, 9, 2, false)),
            Record::Attempt(attempt(P, 9, 300, false)),
        ],
    );
    assert_eq!(store.live().unwrap().len(), 4);
    assert_eq!(store.run(P, run_id(9)).unwrap(), Some(run(P, 9, RunState::Running)));
    assert_eq!(store.runs(P, None, 10).unwrap(), []);

    put(&store, [Record::Attempt(attempt(P, 9, 2, true))]);
    let all = [attempt(P, 9, 1, false), attempt(P, 9, 2, true), attempt(P, 9, 300, false)];
    assert_eq!(store.attempts(P, run_id(9)).unwrap(), all, "in order, live and past");
    let second = AttemptId { run: run_id(9), number: 2 };
    assert_eq!(store.attempt(P, second).unwrap(), Some(attempt(P, 9, 2, true)));

    put(&store, [Record::Run(run(P, 9, RunState::Succeeded))]);
    assert_eq!(store.live().unwrap().len(), 2);
    assert_eq!(store.runs(P, None, 10).unwrap(), [run(P, 9, RunState::Succeeded)]);
    assert_eq!(store.run(P, run_id(9)).unwrap(), Some(run(P, 9, RunState::Succeeded)));
    assert_eq!(store.run(ProjectUid(2), run_id(9)).unwrap(), None);

    let delete = [Change::Delete(Key::Run(P, run_id(9))), Change::Delete(Key::Attempt(P, second))];
    store.commit(&[Unit::of(&delete).unwrap()]).unwrap();
    assert_eq!(store.run(P, run_id(9)).unwrap(), None);
    assert_eq!(store.attempt(P, second).unwrap(), None);
}

#[test]
fn pages_go_from_the_newest_run_to_the_oldest_within_one_project() {
    let dir = temp_dir();
    let store = open(dir.path()).store;
    for project in [P, ProjectUid(2)] {
        put(&store, (1..=25).map(|n| Record::Run(run(project, n, RunState::Failed))));
    }
    let ids = |before, limit| -> Vec<u64> {
        store.runs(P, before, limit).unwrap().iter().map(|run| run.generation).collect()
    };
    assert_eq!(ids(None, 3), [25, 24, 23]);
    assert_eq!(ids(Some(run_id(23)), 3), [22, 21, 20]);
    assert_eq!(ids(Some(run_id(2)), 10), [1]);
    assert_eq!(ids(Some(run_id(1)), 10), [0_u64; 0]);
    assert_eq!(ids(None, usize::MAX).len(), 25);
}

#[test]
fn projects_with_a_history_are_found_one_after_the_other() {
    let dir = temp_dir();
    let store = open(dir.path()).store;
    assert_eq!(store.next_with_history(None).unwrap(), None);
    let uids = [1, 2, 1_900_000_000, u64::MAX].map(ProjectUid);
    for uid in uids {
        put(&store, (1..=3).map(|n| Record::Run(run(uid, n, RunState::Failed))));
    }
    put(&store, [Record::Run(run(ProjectUid(7), 1, RunState::Queued))]);
    let first = store.next_with_history(None).unwrap();
    let found = std::iter::successors(first, |uid| store.next_with_history(Some(*uid)).unwrap());
    assert_eq!(found.collect::<Vec<_>>(), uids, "one whose only run is live has no history");
}

#[test]
fn pruning_keeps_the_newest_and_the_young_and_is_bounded() {
    let dir = temp_dir();
    let store = open(dir.path()).store;
    for n in 1..=50 {
        put(&store, [Record::Run(run(P, n, RunState::Failed)), Record::Attempt(attempt(P, n, 1, true))]);
    }
    put(&store, [Record::Run(run(ProjectUid(2), 1, RunState::Failed))]);
    let left = || store.runs(P, None, 100).unwrap().len();

    assert_eq!(store.prune(P, 50, Wall(i64::MAX)).unwrap(), Pruned::default());
    assert_eq!(store.prune(P, 10, Wall(1)).unwrap(), Pruned::default(), "none ended before that");
    // Run n ended at n + 1.
    let pruned = store.prune(P, 10, Wall(21)).unwrap();
    assert_eq!(pruned, Pruned { runs: 19, attempts: 19, more: false });
    assert_eq!(left(), 31);
    assert_eq!(store.attempts(P, run_id(19)).unwrap(), []);
    assert_eq!(store.attempts(P, run_id(20)).unwrap().len(), 1);
    assert_eq!(store.prune(P, 10, Wall(i64::MAX)).unwrap().runs, 21);
    assert_eq!(left(), 10);

    put(&store, [Record::Attempt(attempt(P, 50, 2, false))]);
    let more = u32::try_from(PRUNE_DELETES_MAX).unwrap() + 5;
    put(&store, (2..=more).map(|number| Record::Attempt(attempt(P, 49, number, true))));
    let first = store.prune(P, 0, Wall(i64::MAX)).unwrap();
    assert!(first.more && first.runs == 0 && first.attempts == PRUNE_DELETES_MAX, "{first:?}");
    let second = store.prune(P, 0, Wall(i64::MAX)).unwrap();
    assert!(!second.more && second.runs == 9, "{second:?}");
    assert_eq!(left(), 1, "a run with a live attempt stays");
    assert_eq!(store.runs(ProjectUid(2), None, 10).unwrap().len(), 1);
}

#[test]
fn a_record_above_the_limit_is_refused_by_name_and_size() {
    let fits = request("r", &"x".repeat(VALUE_BYTES_MAX - 100));
    Unit::of(&[Change::Put(fits)]).unwrap();
    let large = request("r", &"x".repeat(VALUE_BYTES_MAX));
    let error = Unit::of(&[Change::Put(large)]).unwrap_err();
    assert!(
        matches!(error, StoreError::TooLarge { bytes, limit: VALUE_BYTES_MAX, .. } if bytes > VALUE_BYTES_MAX)
    );
    let told = error.to_string();
    assert!(told.starts_with("the request \"r\" has ") && told.contains("at most 7168"), "{told}");
    let long_key = request(&"k".repeat(2_000), "");
    assert!(matches!(Unit::of(&[Change::Put(long_key)]), Err(StoreError::TooLarge { bytes: 2_001, .. })));
}

#[test]
fn a_run_that_every_replica_missed_fits_into_a_record() {
    let missed = |n: usize| Missed {
        agent: AgentUid(u64::MAX - u64::try_from(n).unwrap()),
        caught_up: Some(Wall(i64::MAX)),
    };
    let largest = RunRecord {
        missed: (0..REPLICAS_MAX).map(missed).collect(),
        generation: u64::MAX,
        coalesced: u64::MAX,
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        wish: Wish {
            allow_deletes: Some(u64::MAX),
            waived: GuardKind::ALL.to_vec(),
            waiver_expires: Some(Wall(i64::MAX)),
            ..Wish::default()
        },
        ..run(P, 1, RunState::Failed)
    };
    let bytes = mirror_proto::stored::encode(&Record::Run(largest.clone())).len();
    assert!(bytes <= VALUE_BYTES_MAX, "{bytes} bytes");
    assert!(Unit::of(&[Change::Put(Record::Run(largest))]).is_ok());
}

#[test]
fn an_agent_with_all_the_labels_and_roots_that_are_possible_fits_into_a_record() {
    let root = |n: usize| Root {
        name: format!("a{n}"),
        path: format!("/srv/{n}"),
        total_bytes: u64::MAX,
        free_bytes: u64::MAX,
        total_inodes: u64::MAX,
        free_inodes: u64::MAX,
    };
    let facts = AgentFacts { roots: (0..64).map(root).collect(), ..AgentFacts::default() };
    for bytes in [0, LABELS_BYTES_MAX / 4, LABELS_BYTES_MAX / 2, LABELS_BYTES_MAX] {
        let value = "v".repeat((bytes / LABELS_MAX).saturating_sub(3));
        let labels: BTreeMap<String, String> =
            (0..LABELS_MAX).map(|n| (format!("k{n:02}"), value.clone())).collect();
        assert!(labels_fault(&labels).is_none());
        let largest = AgentRecord {
            uid: AgentUid(u64::MAX),
            name: "n".repeat(NAME_BYTES_MAX).parse().unwrap(),
            caps: AgentCaps {
                max_running: Some(u32::MAX),
                max_serving: Some(u32::MAX),
                bandwidth_limit_kib: Some(u64::MAX),
            },
            draining: true,
            revoked: Some("\u{1d11e}".repeat(REASON_CHARS_MAX)),
            key_hash: "f".repeat(64),
            certificate_serial: "f".repeat(40),
            certificate_expires: Wall(i64::MAX),
            state_id: "f".repeat(36),
            last_seen: Some(Wall(i64::MAX)),
            last_known: LastKnown::of(&facts, &labels),
            labels,
            revision: u64::MAX,
            create_time: Wall(i64::MAX),
        };
        let size = mirror_proto::stored::encode(&Record::Agent(largest.clone())).len();
        assert!(size <= VALUE_BYTES_MAX, "{size} bytes with {bytes} bytes of labels");
        assert!(Unit::of(&[Change::Put(Record::Agent(largest))]).is_ok());
    }
}

#[test]
fn the_largest_values_never_become_blob_files() {
    let dir = temp_dir();
    let store = open(dir.path()).store;
    for round in 0..40 {
        let payload = char::from(b'a' + round % 26).to_string().repeat(VALUE_BYTES_MAX - 100);
        put(&store, (0..100).map(|n| request(&format!("r{n}"), &payload)));
    }
    assert_eq!(fs::read_dir(dir.path().join("sled/blobs")).unwrap().count(), 0);
}

#[test]
fn a_second_open_is_told_that_another_coordinator_runs() {
    let dir = temp_dir();
    let first = open(dir.path());
    let error = Store::open(dir.path(), &options()).unwrap_err();
    assert!(matches!(error, OpenError::Running(_)), "{error}");
    assert!(error.to_string().starts_with("another coordinator is running"));
    first.store.close().unwrap();
    drop(open(dir.path()));
    // Somebody who goes past our lock, straight to sled's.
    let _bare = sled::open(dir.path().join("sled")).unwrap();
    let error = Store::open(dir.path(), &options()).unwrap_err();
    assert!(matches!(error, OpenError::Running(_)), "{error}");
}

#[test]
fn a_store_that_others_can_read_or_that_is_missing_is_refused() {
    let dir = temp_dir();
    let none = StoreOptions { create: false, ..options() };
    let absent = dir.path().join("absent");
    assert!(matches!(Store::open(&absent, &none), Err(OpenError::Missing(_))));
    assert!(matches!(Store::open(dir.path(), &none), Err(OpenError::Missing(_))), "not mounted, perhaps");

    open(dir.path()).store.close().unwrap();
    Store::open(dir.path(), &none).unwrap().store.close().unwrap();
    for entry in ["marker", "lock", "sled/db", "sled/conf"] {
        let mode = fs::metadata(dir.path().join(entry)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{entry}");
    }
    for (path, mode) in [("", 0o755), ("marker", 0o640), ("lock", 0o604)] {
        let path = dir.path().join(path);
        let good = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Store::open(dir.path(), &none).unwrap_err();
        assert!(matches!(error, OpenError::Exposed { .. }), "{error}");
        assert!(error.to_string().contains(&format!("has mode {mode:04o}")), "{error}");
        fs::set_permissions(&path, good).unwrap();
    }
    Store::open(dir.path(), &none).unwrap();
}

/// The envelope, written here once more by its description, so that a change of it fails.
fn envelope(key: &[u8], schema: u16, revision: u64, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![1];
    header.extend(schema.to_be_bytes());
    header.extend(revision.to_be_bytes());
    let crc = crc32c::crc32c(&[key, &header, payload].concat());
    [&header[..], &crc.to_be_bytes(), payload].concat()
}

#[test]
fn a_store_of_a_newer_coordinator_is_refused_and_left_as_it_is() {
    let dir = temp_dir();
    let store = open(dir.path()).store;
    fill(&store, 30);
    store.close().unwrap();
    let bare = || sled::open(dir.path().join("sled")).unwrap();
    let db = bare();
    let old = db.get(b"mrevision").unwrap().unwrap();
    assert_eq!(old, envelope(b"mrevision", SCHEMA, 30, &[]));
    db.insert(b"mrevision", envelope(b"mrevision", SCHEMA + 1, 30, &[])).unwrap();
    drop(db);

    let error = Store::open(dir.path(), &options()).unwrap_err();
    let OpenError::Newer { source: StoreError::Newer { found, known, .. }, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((*found, *known), (SCHEMA + 1, SCHEMA));
    assert!(error.to_string().contains("install a newer mirror-coordinator"), "{error}");
    fs::write(dir.path().join("version"), "mirror-coordinator 97.3.1\n").unwrap();
    let error = Store::open(dir.path(), &options()).unwrap_err().to_string();
    assert!(error.contains("install mirror-coordinator 97.3.1 (or a newer one)"), "{error}");
    assert!(!dir.path().join("quarantine").exists(), "newer is not damaged");

    let db = bare();
    db.insert(b"mrevision", old).unwrap();
    drop(db);
    assert_whole(&open(dir.path()).store);
}

#[test]
fn a_store_of_an_older_coordinator_is_read_and_named_so_that_it_is_backed_up_first() {
    let dir = temp_dir();
    let opened = open(dir.path());
    assert_eq!(opened.last_used_by, None, "a new one");
    fill(&opened.store, 30);
    opened.store.close().unwrap();
    let db = sled::open(dir.path().join("sled")).unwrap();
    for (key, value) in db.iter().map(Result::unwrap) {
        let revision = u64::from_be_bytes(value[3..11].try_into().unwrap());
        db.insert(&key, envelope(&key, SCHEMA - 1, revision, &value[15..])).unwrap();
    }
    drop(db);
    fs::write(dir.path().join("version"), "mirror-coordinator 0.0.9\n").unwrap();

    let opened = open(dir.path());
    assert_eq!(opened.last_used_by.as_deref(), Some("mirror-coordinator 0.0.9"));
    assert!(opened.report.is_empty() && !opened.rewound);
    assert_whole(&opened.store);
    fill(&opened.store, 31);
    opened.store.close().unwrap();
    assert!(matches!(opened.store.sign(), Err(StoreError::Closed)));
    let opened = open(dir.path());
    assert_eq!(opened.last_used_by.as_deref(), Some("mirror-coordinator 0.0.9"), "until it is signed");
    opened.store.sign().unwrap();
    opened.store.close().unwrap();
    assert_eq!(open(dir.path()).last_used_by, None, "once");
}

#[test]
fn a_store_of_another_user_is_refused_before_anything_is_written() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: files can be given away by root only");
    }
    let dir = temp_dir();
    open(dir.path()).store.close().unwrap();
    for path in ["", "lock", "marker", "version", "sled", "sled/db"] {
        let path = dir.path().join(path);
        std::os::unix::fs::chown(&path, Some(4_711), None).unwrap();
        let before = fs::read(dir.path().join("marker")).unwrap();
        let error = Store::open(dir.path(), &options()).unwrap_err();
        assert!(matches!(error, OpenError::Owner { owner: 4_711, we: 0, .. }), "{error}");
        assert!(error.to_string().contains("sudo -u \\#4711"), "{error}");
        assert_eq!(fs::read(dir.path().join("marker")).unwrap(), before);
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    }
    open(dir.path());
}

#[test]
fn a_store_that_may_not_be_written_to_is_refused_and_left_as_it_is() {
    let dir = temp_dir();
    let disk = match Disk::memory(dir.path(), DISK_BYTES) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: a tmpfs cannot be mounted here: {why}"),
    };
    let store = open(dir.path()).store;
    fill(&store, 20);
    store.close().unwrap();
    drop(store);
    disk.remount("ro").unwrap();
    let error = Store::open(dir.path(), &options()).unwrap_err();
    let cause = std::error::Error::source(&error).and_then(std::error::Error::source).unwrap().to_string();
    assert!(cause.contains("Read-only file system"), "{error:?}");
    disk.remount("rw").unwrap();
    let again = open(dir.path());
    assert!(again.clean && !again.rewound, "{:?}", again.report);
    assert_whole(&again.store);
}

#[test]
fn a_second_process_is_kept_out_even_without_the_lock_file() {
    let dir = temp_dir();
    let store = open(dir.path()).store;
    fill(&store, 5);
    assert!(matches!(Store::open(dir.path(), &options()), Err(OpenError::Running(_))));
    fs::remove_file(dir.path().join("lock")).unwrap();
    let error = Store::open(dir.path(), &options()).unwrap_err();
    assert!(matches!(error, OpenError::Running(_)), "{error:?}");
    fill(&store, 10);
    assert_whole(&store);
}

#[test]
fn a_store_that_got_further_than_its_marker_goes_on_from_there() {
    let dir = temp_dir();
    let store = open(dir.path()).store;
    fill(&store, 3);
    store.close().unwrap();
    let db = sled::open(dir.path().join("sled")).unwrap();
    // As after a kill between the commit and the marker.
    db.insert(b"mrevision", envelope(b"mrevision", SCHEMA, 4, &[])).unwrap();
    drop(db);
    let store = open(dir.path()).store;
    assert_eq!(store.revision(), 4);
    assert_eq!(store.commit(&[Unit::of(&changes(5)).unwrap()]).unwrap(), 5);
}

#[test]
fn the_ballast_is_set_aside_where_there_is_room() {
    let dir = temp_dir();
    let with = StoreOptions { ballast_bytes: 1 << 20, ..options() };
    let store = Store::open(dir.path(), &with).unwrap().store;
    assert_eq!(fs::metadata(dir.path().join("ballast")).unwrap().len(), 1 << 20);
    store.close().unwrap();
    // More than any disk: told, and no reason not to serve.
    let huge = StoreOptions { ballast_bytes: 1 << 60, ..options() };
    let opened = Store::open(dir.path(), &huge).unwrap();
    assert!(opened.report[0].contains("too little room"), "{:?}", opened.report);
}

#[test]
fn scrubbing_walks_the_whole_history_and_names_what_is_damaged() {
    let dir = temp_dir();
    let store = open(dir.path()).store;
    fill(&store, 200);
    let walk = |store: &Store| {
        let (mut checked, mut faults, mut from) = (0, Vec::new(), None);
        loop {
            let part = store.scrub(from.as_deref(), 64).unwrap();
            checked += part.checked;
            faults.extend(part.faults);
            from = part.next;
            if from.is_none() {
                return (checked, faults);
            }
        }
    };
    assert_eq!(walk(&store), (2 * 197, Vec::new()));
    store.close().unwrap();

    let db = sled::open(dir.path().join("sled")).unwrap();
    let (key, value) = db.scan_prefix(b"R").nth(10).unwrap().unwrap();
    let mut value = value.to_vec();
    *value.last_mut().unwrap() ^= 1;
    db.insert(key, value).unwrap();
    drop(db);
    let opened = open(dir.path());
    assert!(opened.report.is_empty(), "a damaged past record does not stop the fleet");
    let (_, faults) = walk(&opened.store);
    assert_eq!(faults.len(), 1);
    assert!(faults[0].contains("past run") && faults[0].contains("checksum"), "{faults:?}");
    assert!(matches!(opened.store.runs(P, None, 50), Err(StoreError::Damaged { .. })), "never a wrong value");
    assert!(opened.store.disk_bytes().unwrap() > 0);
    let started = std::time::Instant::now();
    opened.store.close().unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
}
