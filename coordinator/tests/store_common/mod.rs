//! A world whose whole content at each revision is known, so that what a store holds can be compared with what
//! it must hold, whatever was done to it.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "shared by several test programs")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub mod damage;
#[allow(clippy::disallowed_methods, reason = "a test mounts disks for itself")]
pub mod disk;
pub mod writers;

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path};

use fleet::{
    attempt::{AttemptRecord, AttemptState, End, Role},
    id::{AgentUid, AttemptId, Epoch, ProjectUid, RunId},
    outcome::{ExitClass, Outcome},
    record::{Answer, Change, FleetRecord, Key, Record, RequestRecord},
    run::{RunRecord, RunState, Trigger, TriggerKind},
    time::Wall,
};
use mirror_coordinator::store::{Opened, Store, StoreOptions, Unit};
use uuid::Uuid;

pub const P: ProjectUid = ProjectUid(1);
/// Runs that are live at a time.
const LIVE_RUNS: u64 = 3;

/// Without ballast: the tests' disks are small.
pub fn options() -> StoreOptions {
    StoreOptions { create: true, backups: None, ballast_bytes: 0 }
}

/// A temporary directory that is ours alone, whatever the process's mask.
pub fn temp_dir() -> tempfile::TempDir {
    let private = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(private).tempdir().unwrap()
}

pub fn open(dir: &Path) -> Opened {
    Store::open(dir, &options()).unwrap()
}

pub fn run_id(n: u64) -> RunId {
    // As a UUIDv7 has it: the time in milliseconds in front.
    RunId(Uuid::from_u128(u128::from(n) << 80))
}

pub fn run(project: ProjectUid, n: u64, state: RunState) -> RunRecord {
    RunRecord {
        id: run_id(n),
        project,
        trigger: Trigger { kind: TriggerKind::User, by: "ana".to_owned(), time: Wall(5), autonomous: false },
        coalesced: 0,
        by_person: true,
        generation: n,
        state,
        attempts: 1,
        origin_attempt: 1,
        replica_failed: false,
        missed: Vec::new(),
        create_time: Wall(i64::try_from(n).unwrap()),
        start_time: None,
        propagate_time: None,
        end_time: state.is_closed().then(|| Wall(i64::try_from(n).unwrap() + 1)),
        current_tree: false,
        traceparent: String::new(),
        wish: fleet::run::Wish::default(),
    }
}

pub fn attempt(project: ProjectUid, n: u64, number: u32, ended: bool) -> AttemptRecord {
    let epoch = Epoch { term: 1, counter: n };
    let state = if ended {
        let end = End::Succeeded(Outcome::of_class(ExitClass::Ok));
        AttemptState::Ended { epoch, offered: Some(Wall(1)), started: Some(Wall(2)), at: Wall(3), end }
    } else {
        AttemptState::Offered { epoch, at: Wall(1) }
    };
    AttemptRecord {
        id: AttemptId { run: run_id(n), number },
        project,
        agent: AgentUid(4),
        role: Role::Origin,
        destination: "a1:debian".parse().unwrap(),
        upstream_host: "mirror.example".to_owned(),
        upstream_uri: String::new(),
        fell_back: String::new(),
        tree: run_id(n),
        attempt_try: 1,
        first_sync: false,
        mixed: false,
        max_delete: 500,
        source: None,
        spec_hash: String::new(),
        state,
    }
}

pub fn request(key: &str, payload: &str) -> Record {
    Record::Request(RequestRecord {
        key: key.to_owned(),
        payload: payload.to_owned(),
        answer: Answer::Project(P),
        expires: Wall(9),
    })
}

/// What the commit that makes this revision changes.
pub fn changes(revision: u64) -> Vec<Change> {
    let fleet = FleetRecord { term: revision, next_uid: revision, ..FleetRecord::default() };
    let mut changes = vec![
        Change::Put(Record::Fleet(fleet)),
        Change::Put(Record::Run(run(P, revision, RunState::Queued))),
        Change::Put(Record::Attempt(attempt(P, revision, 1, false))),
        Change::Put(request(&format!("slot {}", revision % 7), &"x".repeat(300))),
    ];
    if let Some(old) = revision.checked_sub(LIVE_RUNS).filter(|old| *old > 0) {
        changes.push(Change::Put(Record::Attempt(attempt(P, old, 1, true))));
        changes.push(Change::Put(Record::Run(run(P, old, RunState::Succeeded))));
    }
    if revision.is_multiple_of(5) {
        changes.push(Change::Delete(Key::Request(format!("slot {}", (revision / 5) % 7))));
    }
    changes
}

/// The live records at this revision.
pub fn live_at(revision: u64) -> BTreeMap<Key, Record> {
    let mut live = BTreeMap::new();
    for change in (1..=revision).flat_map(changes) {
        match change {
            Change::Put(record) if record.is_live() => drop(live.insert(record.key(), record)),
            Change::Put(record) => drop(live.remove(&record.key())),
            Change::Delete(key) => drop(live.remove(&key)),
            Change::Volatile(_) => {}
        }
    }
    live
}

/// Commits what leads from the store's revision to this one.
pub fn fill(store: &Store, to: u64) {
    for revision in store.revision() + 1..=to {
        assert_eq!(store.commit(&[Unit::of(&changes(revision)).unwrap()]).unwrap(), revision);
    }
}

/// The store holds what it must at its revision, all of it and nothing else.
#[track_caller]
pub fn assert_whole(store: &Store) {
    let revision = store.revision();
    let live: BTreeMap<_, _> =
        store.live().unwrap().into_iter().map(|record| (record.key(), record)).collect();
    assert_eq!(live, live_at(revision), "live records at revision {revision}");
    let past = past_runs(store);
    let expected: Vec<_> =
        (1..=revision.saturating_sub(LIVE_RUNS)).rev().map(|n| run(P, n, RunState::Succeeded)).collect();
    assert_eq!(past, expected, "past runs at revision {revision}");
    for run in past.iter().take(20) {
        let n = run.generation;
        assert_eq!(store.attempts(P, run.id).unwrap(), [attempt(P, n, 1, true)]);
    }
}

/// Asserts that each past run that is still there is as it was.
#[track_caller]
pub fn assert_past_is_true(store: &Store) {
    for found in past_runs(store) {
        assert_eq!(found, run(P, found.generation, RunState::Succeeded));
    }
}

fn past_runs(store: &Store) -> Vec<RunRecord> {
    let mut past = Vec::new();
    loop {
        let before = past.last().map(|run: &RunRecord| run.id);
        let page = store.runs(P, before, 100).unwrap();
        if page.is_empty() {
            return past;
        }
        past.extend(page);
    }
}

/// Copies a directory: of an open, idle store that is what a crash leaves.
pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else if entry.path().exists() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// sled's snapshots in a store's directory.
pub fn snapshots(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir.join("sled")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap.")).collect()
}
