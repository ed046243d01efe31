//! `make chaos`: a whole fleet of the real programs under clients and faults, whose every call and answer is recorded
//! and judged at the end. The faults, their order and their times follow from the seed, which is printed.
//!
//! | file | what it knows |
//! |---|---|
//! | `faults` | what is broken and mended again |
//! | `clients` | who calls what, and what they were told |
//! | `watch` | what is looked at all the time: rsync processes, trees, states of runs |
//! | `judge` | what must hold of all that: I1-I5, I10, I11 |

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it starts programs, reads the clock and prints"
)]

mod clients;
mod faults;
mod judge;
mod watch;

use std::{
    fs, mem,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use fleet_tests::{Fleet, FleetOptions, netns::Netns};

use crate::{
    clients::{Ctl, History},
    watch::Watched,
};

/// How long it goes on where nothing else is said, in seconds.
const DURATION_S: u64 = 60;
/// Agents: one origin, the others replicas.
pub(crate) const AGENTS: [&str; 3] = ["ftp1", "edge1", "edge2"];
/// Projects that are synced; those that the writers make are never run.
pub(crate) const PROJECTS: [&str; 3] = ["debian", "gnu", "kernel"];
/// Files in the upstream's tree that are always there.
pub(crate) const FILES: usize = 120;
const FILE_BYTES: usize = 16_384;
/// One of them.
pub(crate) const PACKAGE: &str = "pool/000/package-00000.deb";

/// Deletes that the projects allow: an emptied upstream takes no more than these.
pub(crate) const DELETES_MAX: usize = 20;

/// What all threads share.
pub(crate) struct World {
    pub(crate) fleet: RwLock<Fleet>,
    pub(crate) ctl: Ctl,
    pub(crate) history: History,
    pub(crate) watched: Mutex<Watched>,
    /// Clients and watchers go on until then.
    pub(crate) over: AtomicBool,
    pub(crate) begun: Instant,
    /// What [`PACKAGE`] holds, always.
    pub(crate) package: Vec<u8>,
}

impl World {
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(crate) fn fleet(&self) -> std::sync::RwLockReadGuard<'_, Fleet> {
        self.fleet.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fleet_mut(&self) -> std::sync::RwLockWriteGuard<'_, Fleet> {
        self.fleet.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn watched(&self) -> std::sync::MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Asked {
    duration: Duration,
    seed: u64,
}

fn main() -> ExitCode {
    let Some(asked) = read_args() else {
        println!(
            "usage: make chaos [DURATION=SECONDS] [SEED=NUMBER]   (fleet-chaos [--duration SECONDS] [--seed NUMBER])"
        );
        return ExitCode::from(2);
    };
    println!("SEED={}", asked.seed);
    match run(&asked) {
        Ok(faults) if faults.is_empty() => {
            println!("good: every invariant held");
            ExitCode::SUCCESS
        }
        Ok(faults) => {
            for fault in &faults {
                println!("BROKEN {fault}");
            }
            println!("again: make chaos DURATION={} SEED={}", asked.duration.as_secs(), asked.seed);
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("it did not come to an end: {error:#}; SEED={}", asked.seed);
            ExitCode::FAILURE
        }
    }
}

fn read_args() -> Option<Asked> {
    let mut asked = Asked { duration: Duration::from_secs(DURATION_S), seed: rand::random::<u32>().into() };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let number = args.next()?.parse().ok()?;
        match flag.as_str() {
            "--duration" => asked.duration = Duration::from_secs(number),
            "--seed" => asked.seed = number,
            _ => return None,
        }
    }
    Some(asked)
}

fn run(asked: &Asked) -> Result<Vec<String>> {
    let fleet = start_fleet()?;
    let ctl = Ctl::of(&fleet);
    let package = fs::read(fleet.upstream_tree().join(PACKAGE))?;
    let world = Arc::new(World {
        ctl,
        history: History::default(),
        watched: Mutex::default(),
        over: AtomicBool::new(false),
        begun: Instant::now(),
        package,
        fleet: RwLock::new(fleet),
    });
    declare(&world)?;
    let disk = faults::StoreDisk::put_below(&world)?;
    let threads = clients::start(&world).into_iter().chain(watch::start(&world)).collect();
    let mut going = Going { world: Arc::clone(&world), threads, disk };
    let raged = faults::rage(&world, going.disk.as_ref(), asked.seed, asked.duration);
    // The clients stop first: from here on the fleet has only to finish what it promised.
    let stopped = going.stop_clients();
    raged.and(stopped)?;
    let broken = judge::judge(&world);
    world.history.print_counts();
    world.watched().print_counts();
    if !broken.is_empty() {
        let file = std::env::temp_dir().join(format!("chaos-{}.jsonl", asked.seed));
        world.history.save(&file).context("saving the history")?;
        println!("every call and answer: {}", file.display());
        let logs = std::env::temp_dir().join(format!("chaos-{}-coordinator.log", asked.seed));
        fs::copy(world.fleet().path().join("coordinator.log"), &logs)
            .context("keeping the coordinator's log")?;
        println!("the coordinator's log: {}", logs.display());
    }
    Ok(broken)
}

/// All that goes on. Dropping it ends it, however this program ends: the clients, then the fleet, and only then the disk
/// of its store.
struct Going {
    world: Arc<World>,
    threads: Vec<JoinHandle<()>>,
    disk: Option<faults::StoreDisk>,
}

impl Going {
    /// Stops clients and watchers and waits for every one of them.
    fn stop_clients(&mut self) -> Result<()> {
        self.world.over.store(true, Ordering::Relaxed);
        let ends: Vec<_> = mem::take(&mut self.threads).into_iter().map(JoinHandle::join).collect();
        let panicked = ends.iter().filter(|end| end.is_err()).count();
        if panicked > 0 { Err(anyhow!("{panicked} clients or watchers panicked")) } else { Ok(()) }
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        if let Err(error) = self.stop_clients() {
            println!("{error}");
        }
        self.world.fleet_mut().kill_all();
        self.disk = None;
    }
}

fn start_fleet() -> Result<Fleet> {
    let options = FleetOptions {
        agents: AGENTS.map(str::to_owned).to_vec(),
        files: FILES,
        file_bytes: FILE_BYTES,
        ..FleetOptions::default()
    };
    match Netns::laboratory(AGENTS.len()) {
        Ok(hosts) => Fleet::start_on(hosts, options),
        Err(why) => {
            println!("no partitions: {why}");
            Fleet::start(options)
        }
    }
}

fn declare(world: &World) -> Result<()> {
    let fleet = world.fleet();
    let deletes = DELETES_MAX.to_string();
    for project in PROJECTS {
        let mut args =
            vec!["--rsync-option=--bwlimit=1500", "--retry-attempts", "1", "--max-delete", &deletes];
        args.extend(AGENTS[1..].iter().flat_map(|agent| ["--replicas", agent]));
        let done = fleet.add_project(project, &args);
        anyhow::ensure!(done.code == 0, "{}{}", done.stdout, done.stderr);
    }
    Ok(())
}
