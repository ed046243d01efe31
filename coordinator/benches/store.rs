//! Durable commits through the store, beside bare sled with an fdatasync and the same bytes, in turns within
//! one run. The figure to look at is the ratio, which should not be below 0.8: sled's own speed is the floor.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use fleet::{
    attempt::{AttemptRecord, AttemptState, Role},
    id::{AgentUid, AttemptId, Epoch, ProjectUid, RunId},
    project::ProjectState,
    record::{Change, Record},
    run::{RunRecord, RunState, Trigger},
    time::Wall,
};
use mirror_coordinator::store::{Store, StoreOptions, Unit};
use uuid::Uuid;

/// Units that one commit merges.
const UNITS: u64 = 64;
/// Projects that they are of.
const PROJECTS: u64 = 1_000;
/// Commits of each kind for the ratio, in turns of [`TURN`].
const COMMITS: u64 = 1_024;
/// Commits of one kind before the other kind's turn: the disk's mood hits both.
const TURN: u64 = 32;

/// What an offer changes: the run, the attempt and the project's state.
fn changes(n: u64) -> [Change; 3] {
    let project = ProjectUid(n % PROJECTS);
    let id = RunId(Uuid::from_u128(u128::from(n / PROJECTS) << 80));
    let run = RunRecord {
        id,
        project,
        trigger: Trigger::schedule(Wall(1_700_000_000_000)),
        coalesced: 0,
        by_person: false,
        generation: n,
        state: RunState::Running,
        attempts: 1,
        origin_attempt: 1,
        replica_failed: false,
        missed: Vec::new(),
        create_time: Wall(1_700_000_000_000),
        start_time: Some(Wall(1_700_000_000_000)),
        propagate_time: None,
        end_time: None,
        current_tree: false,
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        wish: fleet::run::Wish::default(),
    };
    let attempt = AttemptRecord {
        id: AttemptId { run: id, number: 1 },
        project,
        agent: AgentUid(4),
        role: Role::Origin,
        destination: "a1:pub/debian".parse().expect("a good destination"),
        upstream_host: "mirror.example.org".to_owned(),
        upstream_uri: String::new(),
        fell_back: String::new(),
        tree: id,
        attempt_try: 1,
        first_sync: false,
        mixed: false,
        max_delete: 500,
        source: None,
        spec_hash: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
        state: AttemptState::Offered { epoch: Epoch { term: 1, counter: n }, at: Wall(1_700_000_000_000) },
    };
    let state = ProjectState {
        uid: project,
        wanted: n,
        taken: n,
        next_fire: None,
        missed_fires: 0,
        skipped_fires: 0,
        last_run: None,
        tree: None,
        last_success: Some(Wall(1_700_000_000_000)),
        upstream: 0,
        marker: None,
    };
    [Record::Run(run), Record::Attempt(attempt), Record::ProjectState(state)].map(Change::Put)
}

/// The store, and the number of its next unit.
struct Ours {
    store: Store,
    next: u64,
}

impl Ours {
    fn open(dir: &std::path::Path) -> Self {
        let options = StoreOptions { create: true, backups: None, ballast_bytes: 0 };
        Self { store: Store::open(&dir.join("store"), &options).expect("a new store").store, next: 0 }
    }

    /// One commit, from the decisions' changes to the disk.
    fn commit(&mut self) -> Duration {
        let decided: Vec<_> = (self.next..self.next + UNITS).map(changes).collect();
        self.next += UNITS;
        let started = Instant::now();
        let units: Vec<_> = decided.iter().map(|c| Unit::of(c).expect("small records")).collect();
        self.store.commit(&units).expect("a commit");
        started.elapsed()
    }
}

/// sled as its documentation has it used, made durable as ours is, with keys and values of the same lengths in
/// the same order, ready-made.
struct Bare {
    db: sled::Db,
    disk: File,
    next: u64,
}

impl Bare {
    fn open(dir: &std::path::Path) -> Self {
        let dir = dir.join("bare");
        let config = sled::Config::new().path(&dir).cache_capacity(16 << 20);
        let db = config.open().expect("sled opens");
        let disk = File::open(dir.join("db")).expect("sled's file is there");
        Self { db, disk, next: 0 }
    }

    fn commit(&mut self) -> Duration {
        let pairs: Vec<_> = (self.next..self.next + UNITS).flat_map(changes).map(|c| pair(&c)).collect();
        self.next += UNITS;
        let started = Instant::now();
        let mut batch = sled::Batch::default();
        for (key, value) in pairs {
            batch.insert(key, value);
        }
        self.db.apply_batch(batch).expect("sled takes the batch");
        self.db.flush().expect("sled flushes");
        self.disk.sync_data().expect("the disk syncs");
        started.elapsed()
    }
}

/// A key and a value as long as the store's.
fn pair(change: &Change) -> (Vec<u8>, Vec<u8>) {
    let Change::Put(record) = change else { unreachable!("only such changes are made here") };
    let mut key = vec![0];
    match record {
        Record::Run(run) => {
            key.extend(run.project.0.to_be_bytes());
            key.extend((!run.id.0.as_u128()).to_be_bytes());
        }
        Record::Attempt(attempt) => {
            key[0] = 1;
            key.extend(attempt.project.0.to_be_bytes());
            key.extend((!attempt.id.run.0.as_u128()).to_be_bytes());
            key.extend(attempt.id.number.to_be_bytes());
        }
        Record::ProjectState(state) => {
            key[0] = 2;
            key.extend(state.uid.0.to_be_bytes());
        }
        other => unreachable!("no such record is made here: {other:?}"),
    }
    let value = [&[0; 15], mirror_proto::stored::encode(record).as_slice()].concat();
    (key, value)
}

fn private_dir() -> tempfile::TempDir {
    let private = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(private).tempdir().expect("a directory")
}

#[allow(clippy::print_stdout, reason = "a benchmark tells its figures")]
fn commits(criterion: &mut Criterion) {
    let dir = private_dir();
    let (mut ours, mut bare) = (Ours::open(dir.path()), Bare::open(dir.path()));
    let (mut ours_took, mut bare_took) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..COMMITS / TURN {
        ours_took += (0..TURN).map(|_| ours.commit()).sum::<Duration>();
        bare_took += (0..TURN).map(|_| bare.commit()).sum::<Duration>();
    }
    let rate =
        |took: Duration| f64::from(u32::try_from(COMMITS * UNITS).expect("small")) / took.as_secs_f64();
    println!(
        "durable units/s in commits of {UNITS}: store {:.0}, bare sled + fdatasync {:.0}, ratio {:.2}",
        rate(ours_took),
        rate(bare_took),
        rate(ours_took) / rate(bare_took)
    );
    let mut group = criterion.benchmark_group("durable commit of 64 units");
    group.sample_size(20);
    group.bench_function("store", |b| b.iter_custom(|n| (0..n).map(|_| ours.commit()).sum()));
    group.bench_function("bare sled + fdatasync", |b| b.iter_custom(|n| (0..n).map(|_| bare.commit()).sum()));
    group.finish();
}

criterion_group!(benches, commits);
criterion_main!(benches);
