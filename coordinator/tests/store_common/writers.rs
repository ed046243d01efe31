//! Eight writers in a process of their own, told to be killed, stopped or cut from power: each acknowledged unit is
//! noted outside the store, and what a store holds can be compared with that.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use fleet::{
    attempt::Role,
    id::{AgentUid, ProjectUid},
    placement::PlacementRecord,
    record::{Change, Key, Record},
    run::RunState,
};
use mirror_coordinator::store::{COMMIT_UNITS_MAX, Store, Unit};

use super::{open, request, run, run_id};

const CHILD_STORE: &str = "STORE_WRITERS_STORE";
const CHILD_NOTES: &str = "STORE_WRITERS_NOTES";
pub const WRITERS: u64 = 8;
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
pub fn unit(writer: u64, n: u64) -> Unit {
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

/// The child: commits until it is ended, and appends "writer n" to a file for each acknowledged unit. Does nothing
/// where the test was not started by [`start`].
pub fn write_until_ended() {
    let (Some(store), Some(notes)) = (env::var_os(CHILD_STORE), env::var_os(CHILD_NOTES)) else { return };
    let store = open(Path::new(&store)).store;
    #[allow(clippy::print_stdout, reason = "the parent waits for it")]
    {
        println!("\nready");
    }
    std::io::stdout().flush().unwrap();
    write(&store, Path::new(&notes));
}

/// Commits the units of [`WRITERS`] writers, and notes each one that was acknowledged. Ends with the first commit that
/// fails.
pub fn write(store: &Store, notes: &Path) {
    let (queue, inbox) = mpsc::sync_channel::<(Unit, mpsc::SyncSender<()>)>(COMMIT_UNITS_MAX);
    let begun = held(store);
    for writer in 0..WRITERS {
        let queue = queue.clone();
        let mut n = begun[usize::try_from(writer).unwrap()];
        let mut acknowledged = OpenOptions::new().append(true).create(true).open(notes).unwrap();
        thread::spawn(move || {
            let (done, answer) = mpsc::sync_channel(1);
            loop {
                n += 1;
                if queue.send((unit(writer, n), done.clone())).is_err() || answer.recv().is_err() {
                    return;
                }
                acknowledged.write_all(format!("{writer} {n}\n").as_bytes()).unwrap();
            }
        });
    }
    drop(queue);
    loop {
        let (first, answer) = inbox.recv().unwrap();
        let (mut units, mut answers) = (vec![first], vec![answer]);
        while let Ok((unit, answer)) = inbox.try_recv() {
            units.push(unit);
            answers.push(answer);
        }
        if store.commit(&units).is_err() {
            return;
        }
        answers.iter().for_each(|answer| answer.send(()).unwrap());
    }
}

/// Starts `test`, which calls [`write_until_ended`], as a process of its own on this store.
#[allow(clippy::disallowed_methods, reason = "the test runs itself again as the process to be ended")]
pub fn start(test: &str, store: &Path, notes: &Path) -> Child {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD_STORE, store)
        .env(CHILD_NOTES, notes)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"), "the child ended early");
    child
}

/// The newest acknowledged unit of each writer.
pub fn acknowledged(notes: &Path) -> Vec<u64> {
    let mut acknowledged = vec![0; usize::try_from(WRITERS).unwrap()];
    // A note that is being written is no note yet.
    let text = fs::read_to_string(notes).unwrap_or_default();
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let (writer, n) = line.split_once(' ').unwrap();
        acknowledged[writer.parse::<usize>().unwrap()] = n.parse::<u64>().unwrap();
    }
    acknowledged
}

/// The store has all that was acknowledged, and of each writer at most `ahead` units more: those under way.
#[track_caller]
pub fn assert_holds(store: &Store, acknowledged: &[u64], ahead: u64, what: &str) {
    for (writer, (held, acknowledged)) in held(store).iter().zip(acknowledged).enumerate() {
        let lag = held.checked_sub(*acknowledged);
        assert!(
            lag.is_some_and(|lag| lag <= ahead),
            "{what}: writer {writer} was told {acknowledged}, the store has {held}"
        );
    }
}

/// How far each writer got, by the store; panics at a torn unit.
pub fn held(store: &Store) -> Vec<u64> {
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
