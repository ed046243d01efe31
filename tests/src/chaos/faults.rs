//! The faults. Which, whom, when and for how long follows from the seed alone; each is mended before the next begins,
//! and all are mended at the end.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use fleet_tests::{
    Finished,
    process::{living_with, send_signal},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use rustix::process::Signal;

use crate::{AGENTS, World, watch};

/// The small disk that the store is put on, where this may be done: room for its ballast, which wants twice its size.
const STORE_DISK: &str = "size=160m,nr_inodes=400,mode=0700";
/// Longest time that a fault lasts, in milliseconds.
const LASTS_MAX_MS: u64 = 4_000;
/// Pause between two looks whether there is room again to be taken.
const FILL_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two faults, in milliseconds.
const PAUSE_MAX_MS: u64 = 1_500;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillCoordinator,
    StopCoordinator,
    KillAgent,
    StopAgent,
    KillSupervisor,
    KillRsync,
    StopRsync,
    KillUpstream,
    EmptyUpstream,
    FullStore,
    NoInodes,
    Partition,
}

const FAULTS: [Fault; 12] = [
    Fault::KillCoordinator,
    Fault::StopCoordinator,
    Fault::KillAgent,
    Fault::StopAgent,
    Fault::KillSupervisor,
    Fault::KillRsync,
    Fault::StopRsync,
    Fault::KillUpstream,
    Fault::EmptyUpstream,
    Fault::FullStore,
    Fault::NoInodes,
    Fault::Partition,
];

/// Breaks and mends until the time is over.
///
/// # Errors
/// When something cannot be mended.
pub(crate) fn rage(world: &World, disk: Option<&StoreDisk>, seed: u64, duration: Duration) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut met: BTreeMap<Fault, (u32, u32)> = BTreeMap::new();
    let mut deck: Vec<Fault> = Vec::new();
    let until = Instant::now() + duration;
    while Instant::now() < until {
        // Each comes once before any comes again, so that a short time meets all of them.
        if deck.is_empty() {
            deck.extend(FAULTS);
            deck.shuffle(&mut random);
        }
        let fault = deck.pop().context("there are faults")?;
        let whom = random.random_range(0..AGENTS.len());
        let lasts = Duration::from_millis(random.random_range(100..LASTS_MAX_MS));
        let pause = Duration::from_millis(random.random_range(100..PAUSE_MAX_MS));
        let hit = break_and_mend(world, disk, fault, whom, lasts).with_context(|| format!("{fault:?}"))?;
        let count = met.entry(fault).or_default();
        count.0 += 1;
        count.1 += u32::from(hit);
        thread::sleep(pause);
    }
    println!("faults, and how many of them met something:");
    for fault in FAULTS {
        let (tried, hit) = met.get(&fault).copied().unwrap_or_default();
        println!("{hit:6} of {tried:4}  {fault:?}");
    }
    Ok(())
}

/// True when there was something to break.
fn break_and_mend(
    world: &World,
    disk: Option<&StoreDisk>,
    fault: Fault,
    whom: usize,
    lasts: Duration,
) -> Result<bool> {
    match fault {
        Fault::KillCoordinator => {
            let from = now_ms();
            world.fleet_mut().kill_coordinator();
            thread::sleep(lasts);
            world.fleet_mut().start_coordinator()?;
            world.watched().absences.push((from, now_ms()));
        }
        Fault::StopCoordinator => {
            let from = now_ms();
            let pid = world.fleet().coordinator.as_ref().context("the coordinator runs")?.pid();
            stop(&[pid], lasts);
            world.watched().absences.push((from, now_ms()));
        }
        Fault::KillAgent => {
            world.fleet_mut().kill_agent(whom);
            thread::sleep(lasts);
            world.fleet_mut().start_agent(whom)?;
        }
        Fault::StopAgent => {
            let pid = world.fleet().agents[whom].as_ref().context("the agent runs")?.pid();
            stop(&[pid], lasts);
        }
        Fault::KillSupervisor => return Ok(kill(&supervisors(world))),
        Fault::KillRsync => return Ok(kill(&pulls(world))),
        Fault::StopRsync => return Ok(stop(&pulls(world), lasts)),
        Fault::KillUpstream => {
            // In a laboratory the daemon cannot be started again where it was: it is stopped there.
            let pid = world.fleet().upstream.pid();
            stop(&[pid], lasts);
        }
        Fault::EmptyUpstream => {
            let tree = world.fleet().upstream_tree();
            let away = tree.with_extension("away");
            fs::rename(tree.join("pool"), &away)?;
            thread::sleep(lasts);
            fs::rename(&away, tree.join("pool"))?;
        }
        Fault::FullStore | Fault::NoInodes => {
            let Some(disk) = disk else { return Ok(false) };
            // Again and again: the store gives its ballast up, and that room goes too.
            let until = Instant::now() + lasts;
            while Instant::now() < until {
                if fault == Fault::FullStore {
                    disk.fill();
                } else {
                    disk.use_up_inodes();
                }
                thread::sleep(FILL_PAUSE);
            }
            disk.clear()?;
        }
        Fault::Partition => {
            let fleet = world.fleet();
            let Some(hosts) = fleet.hosts() else { return Ok(false) };
            hosts.isolate(whom)?;
            thread::sleep(lasts);
            hosts.heal()?;
        }
    }
    Ok(true)
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

fn kill(pids: &[u32]) -> bool {
    pids.iter().for_each(|pid| send_signal(*pid, Signal::KILL));
    !pids.is_empty()
}

fn stop(pids: &[u32], lasts: Duration) -> bool {
    pids.iter().for_each(|pid| send_signal(*pid, Signal::STOP));
    thread::sleep(lasts);
    pids.iter().for_each(|pid| send_signal(*pid, Signal::CONT));
    !pids.is_empty()
}

fn pulls(world: &World) -> Vec<u32> {
    let roots: Vec<PathBuf> = (0..AGENTS.len()).map(|index| world.fleet().root(index)).collect();
    // Each pull leads a process group of its own.
    watch::receivers(&roots).into_iter().map(|(_, group)| group).collect()
}

fn supervisors(world: &World) -> Vec<u32> {
    let own = world.fleet().path().display().to_string();
    let ours = living_with(&own).into_iter();
    ours.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(" supervise ")
    })
    .collect()
}

/// A small disk below the store, to be dropped when its coordinator has ended.
pub(crate) struct StoreDisk(PathBuf);

impl StoreDisk {
    /// Moves the store to a disk of its own; `None`, with the reason told, where this process may not mount.
    pub(crate) fn put_below(world: &World) -> Result<Option<Self>> {
        let store = world.fleet().coordinator_dir().join("store");
        world.fleet_mut().kill_coordinator();
        let aside = store.with_extension("aside");
        fs::rename(&store, &aside)?;
        fs::create_dir(&store)?;
        let mut mount = Command::new("mount");
        let mounted = Finished::run(mount.args(["-t", "tmpfs", "-o", STORE_DISK, "chaos"]).arg(&store));
        if mounted.code != 0 {
            println!("no full disks: {}", mounted.stderr.trim());
            fs::remove_dir(&store)?;
            fs::rename(&aside, &store)?;
            world.fleet_mut().start_coordinator()?;
            return Ok(None);
        }
        let disk = Self(store.clone());
        let copied = Finished::run(Command::new("cp").arg("-a").arg(aside.join(".")).arg(&store));
        ensure!(copied.code == 0, "{}{}", copied.line, copied.stderr);
        world.fleet_mut().start_coordinator()?;
        Ok(Some(disk))
    }

    fn fill(&self) {
        let file = fs::File::options().create(true).append(true).open(self.0.join("filler"));
        // Where not even the file can be made, the disk is full already.
        if let Ok(mut file) = file {
            while std::io::Write::write_all(&mut file, &[1; 65_536]).is_ok() {}
        }
    }

    fn use_up_inodes(&self) {
        let folder = self.0.join("fillers");
        if fs::create_dir_all(&folder).is_err() {
            return;
        }
        let used = fs::read_dir(&folder).map_or(0, Iterator::count);
        for number in used.. {
            if fs::File::create(folder.join(number.to_string())).is_err() {
                return;
            }
        }
    }

    fn clear(&self) -> Result<()> {
        let gone = |path: &Path| if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        for name in ["filler", "fillers"] {
            let path = self.0.join(name);
            if path.exists() && gone(&path).is_err() {
                bail!("{} cannot be removed", path.display());
            }
        }
        Ok(())
    }
}

impl Drop for StoreDisk {
    fn drop(&mut self) {
        drop(Finished::run(Command::new("umount").arg("--lazy").arg(&self.0)));
    }
}
