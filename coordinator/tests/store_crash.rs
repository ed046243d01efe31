//! kill -9 at any moment: what was acknowledged is there, and no unit is there by half.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod store_common;

use std::{
    env,
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use fleet::{
    attempt::Role,
    id::{AgentUid, ProjectUid},
    placement::PlacementRecord,
    record::{Change, Key, Record},
    run::RunState,
};
use mirror_coordinator::store::{COMMIT_UNITS_MAX, Store, Unit};
use rand::Rng as _;
use store_common::{open, request, run, run_id, temp_dir};

const CHILD_DIR: &str = "STORE_CRASH_CHILD_DIR";
const WRITERS: u64 = 8;
const ROUNDS: u32 = 20;
/// A past run comes with each of these units.
const RUN_EVERY: u64 = 16;

fn placement(writer: u64, n: u64) -> PlacementRecord {
    PlacementRecord {
        project: ProjectUid(writer),
        agent: AgentUid(writer),
        role: Role::Replica,
        destination: "a1:debian".parse().unwrap(),
        have_tree: None,
        have_time: None,
        gave_up_on: None,
        standby: false,
        files: n,
        size_bytes: 0,
        half_changed: false,
        half_moved: None,
        hold: None,
        marker: None,
        behind: None,
    }
}

/// The n-th unit of a writer: three records that must never differ, of changing size, and a new past run now
/// and then.
fn unit(writer: u64, n: u64) -> Unit {
    let padding = "x".repeat(usize::try_from(n * 37 % 5_000).unwrap());
    let mut changes = vec![
        Change::Put(request(&format!("first {writer}"), &format!("{n} {padding}"))),
        Change::Put(Record::Placement(placement(writer, n))),
        Change::Put(request(&format!("last {writer}"), &format!("{n} "))),
    ];
    if n.is_multiple_of(RUN_EVERY) {
        changes.push(Change::Put(Record::Run(run(ProjectUid(writer), n, RunState::Succeeded))));
    }
    Unit::of(&changes).unwrap()
}

/// The child: commits until it is killed, and appends "writer n" to a file for each acknowledged unit.
#[test]
fn child_writes_until_it_is_killed() {
    let Some(dir) = env::var_os(CHILD_DIR) else { return };
    let dir = Path::new(&dir);
    let store = open(&dir.join("store")).store;
    let (queue, inbox) = mpsc::sync_channel::<(Unit, mpsc::SyncSender<()>)>(COMMIT_UNITS_MAX);
    let begun = held(&store);
    for writer in 0..WRITERS {
        let queue = queue.clone();
        let mut n = begun[usize::try_from(writer).unwrap()];
        let mut acknowledged =
            OpenOptions::new().append(true).create(true).open(dir.join("acknowledged")).unwrap();
        thread::spawn(move || {
            let (done, answer) = mpsc::sync_channel(1);
            loop {
                n += 1;
                queue.send((unit(writer, n), done.clone())).unwrap();
                answer.recv().unwrap();
                acknowledged.write_all(format!("{writer} {n}\n").as_bytes()).unwrap();
            }
        });
    }
    println!("\nready");
    std::io::stdout().flush().unwrap();
    loop {
        let (first, answer) = inbox.recv().unwrap();
        let (mut units, mut answers) = (vec![first], vec![answer]);
        while let Ok((unit, answer)) = inbox.try_recv() {
            units.push(unit);
            answers.push(answer);
        }
        store.commit(&units).unwrap();
        answers.iter().for_each(|answer| answer.send(()).unwrap());
    }
}

/// How far each writer got, by the store; panics at a torn unit.
fn held(store: &Store) -> Vec<u64> {
    let live = store.live().unwrap();
    let number = |key: &str| {
        let key = Key::Request(key.to_owned());
        live.iter().find(|record| record.key() == key).map_or(0, |record| {
            let Record::Request(request) = record else { unreachable!() };
            request.payload.split(' ').next().unwrap().parse::<u64>().unwrap()
        })
    };
    (0..WRITERS)
        .map(|writer| {
            let n = number(&format!("first {writer}"));
            let files = live.iter().find_map(|record| match record {
                Record::Placement(placement) if placement.agent.0 == writer => Some(placement.files),
                _ => None,
            });
            assert_eq!(files.unwrap_or(0), n, "a torn unit of writer {writer}");
            assert_eq!(number(&format!("last {writer}")), n, "a torn unit of writer {writer}");
            let runs = store.runs(ProjectUid(writer), None, 1_000).unwrap();
            let whole = n / RUN_EVERY;
            let shown = whole.min(1_000);
            let expected: Vec<_> = (whole - shown + 1..=whole).rev().map(|k| run_id(k * RUN_EVERY)).collect();
            assert_eq!(runs.iter().map(|run| run.id).collect::<Vec<_>>(), expected, "writer {writer}");
            n
        })
        .collect()
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test runs itself again as the process to be killed")]
fn no_acknowledged_write_is_lost_and_no_unit_is_torn_by_kill_9() {
    let dir = temp_dir();
    let mut total = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"), "round {round}: the child ended early");
        // The moment of the kill is the fault that is tried, not a wait for anything.
        thread::sleep(Duration::from_millis(rand::rng().random_range(5..250)));
        child.kill().unwrap();
        child.wait().unwrap();

        let mut acknowledged = vec![0; usize::try_from(WRITERS).unwrap()];
        let lines = fs::read_to_string(dir.path().join("acknowledged")).unwrap_or_default();
        for line in lines.lines() {
            let (writer, n) = line.split_once(' ').unwrap();
            acknowledged[writer.parse::<usize>().unwrap()] = n.parse::<u64>().unwrap();
        }
        let opened = open(&dir.path().join("store"));
        assert!(!opened.rewound, "round {round}: {:?}", opened.report);
        let held = held(&opened.store);
        for (writer, (held, acknowledged)) in held.iter().zip(&acknowledged).enumerate() {
            // At most the one unit that was under way may be there without having been acknowledged.
            let lag = held.checked_sub(*acknowledged);
            assert!(
                lag.is_some_and(|lag| lag <= 1 || *acknowledged == 0),
                "round {round}: writer {writer} was told {acknowledged}, the store has {held}"
            );
        }
        total = acknowledged.iter().sum();
        if round % 2 == 0 {
            opened.store.close().unwrap();
        }
    }
    assert!(total > 1_000, "only {total} units were acknowledged in all rounds: nothing was tried");
    println!("{total} units acknowledged over {ROUNDS} kills");
}
