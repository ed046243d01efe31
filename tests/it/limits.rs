//! What runs out: descriptors, places in the accept loop, the store's disk, the room for logs. It is said, nothing
//! spins, nothing that was acknowledged is lost, and when there is room again all goes on.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use fleet_tests::{Finished, Fleet, FleetOptions, Process, eventually, eventually_within, tree};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// Connections that say nothing.
const IDLE: usize = 500;
/// How long an agent may take to get in beside them: its own pauses included.
const WITHIN: Duration = Duration::from_secs(10);
/// For this long the processor time of a coordinator without descriptors is measured.
const MEASURED: Duration = Duration::from_secs(4);

fn idle(fleet: &Fleet, count: usize) -> Vec<TcpStream> {
    // This process needs descriptors, too.
    let own = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: own.maximum, ..own }).expect("the hard limit can be had");
    let server = fleet.server().parse().expect("an address");
    // In a backlog that is full the system itself makes people wait; those count as well.
    let dial = || TcpStream::connect_timeout(&server, Duration::from_millis(200)).ok();
    (0..count).filter_map(|_| dial()).collect()
}

fn pid(fleet: &Fleet) -> u32 {
    fleet.coordinator.as_ref().map(Process::pid).expect("it runs")
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Processor time of a process so far: fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|field| fields[*field].parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn a_coordinator_without_descriptors_waits_and_does_not_spin() {
    let mut fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    fleet.add_project("debian", &[]).ok();
    let coordinator = pid(&fleet);
    let few = Rlimit { current: Some(descriptors(coordinator) as u64 + 20), maximum: Some(4_096) };
    let process = i32::try_from(coordinator).ok().and_then(Pid::from_raw);
    prlimit(process, Resource::Nofile, few).expect("its limit can be lowered");

    let crowd = idle(&fleet, 100);
    assert!(crowd.len() > 30, "only {} connections", crowd.len());
    eventually("it says what it lacks", || {
        let output = fleet.coordinator.as_ref().map(Process::output).unwrap_or_default();
        output.contains("cannot accept connections").then_some(())
    });
    let before = processor_time(coordinator);
    thread::sleep(MEASURED);
    let used = processor_time(coordinator) - before;
    assert!(used < MEASURED / 10, "{used:?} of processor time in {MEASURED:?}");
    let output = fleet.coordinator.as_ref().map(Process::output).unwrap_or_default();
    let lines = output.matches("cannot accept connections").count();
    assert_eq!(lines, 1, "it says so once in a while: {output}");

    drop(crowd);
    fleet.kill_agent(0);
    fleet.start_agent(0).expect("the agent starts");
    fleet.await_connected("edge1");
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    assert!(fleet.coordinator.as_mut().expect("it was started").exited().is_none(), "it is the same process");
}

#[test]
fn idle_connections_do_not_keep_an_agent_out() {
    let mut fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    fleet.kill_agent(0);
    let crowd = idle(&fleet, IDLE);
    assert!(crowd.len() > IDLE / 2, "only {} connections", crowd.len());
    fleet.start_agent(0).expect("the agent starts");
    let started = Instant::now();
    eventually_within(WITHIN, "the agent is in", || {
        let output = fleet.agents[0].as_ref().map(Process::output).unwrap_or_default();
        (output.matches("connected coordinator=").count() >= 2).then_some(())
    });
    println!("an agent beside {} idle connections is in after {:?}", crowd.len(), started.elapsed());
    drop(crowd);
}

/// A small file system of its own over a directory; unmounted when dropped.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// Puts one over a directory, with the content of it.
    pub(crate) fn over(dir: &Path, size: &str) -> Result<Self, String> {
        if !rustix::process::getuid().is_root() {
            return Err("mounting needs root".to_owned());
        }
        let aside = dir.with_extension("aside");
        fs::rename(dir, &aside).and_then(|()| fs::create_dir(dir)).map_err(|error| error.to_string())?;
        let options = format!("mode=700,size={size}");
        let mut mount = Command::new("mount");
        let done = Finished::run(mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir));
        if done.code != 0 {
            return Err(format!("no tmpfs here: {}", done.stderr));
        }
        let mounted = Self(dir.to_owned());
        // Set aside for a disk that is larger than this one.
        drop(fs::remove_file(aside.join("store/ballast")));
        Finished::run(Command::new("cp").arg("-a").arg(aside.join(".")).arg(dir)).ok();
        Ok(mounted)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _unmounted = Finished::run(Command::new("umount").arg("-l").arg(&self.0));
    }
}

/// Takes all that is left of a file system.
pub(crate) fn fill_up(path: &Path) {
    let mut file = fs::File::create(path).expect("a file");
    for bytes in [1 << 20, 4_096] {
        while std::io::Write::write_all(&mut file, &vec![1; bytes]).is_ok() {}
    }
}

/// How many events of this kind are in the audit log.
fn recorded(fleet: &Fleet, action: &str) -> usize {
    let found = fleet.mirrorctl(&["audit", "--action", action, "-o", "json"]).ok().stdout;
    found.lines().filter(|line| line.contains(action)).count()
}

#[test]
fn a_full_store_refuses_writes_serves_reads_and_loses_nothing() {
    let mut fleet = Fleet::prepare(FleetOptions::default()).expect("a fleet");
    let mount = match Mount::over(&fleet.coordinator_dir(), "40m") {
        Ok(mount) => mount,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    fleet.start_coordinator().expect("the coordinator starts");
    fleet.enroll(0).expect("the agent enrols");
    fleet.start_agent(0).expect("the agent starts");
    fleet.await_connected("edge1");
    // Large, so that the room that the store has still inside its file is soon used.
    let words: Vec<String> =
        (0..25).map(|number| format!("--rsync-option=--exclude=/{number}{}/", "x".repeat(200))).collect();
    let mut more: Vec<&str> = words.iter().map(String::as_str).collect();
    more.extend(["--paused", "-q"]);
    let mut acknowledged = Vec::new();
    let mut add = |fleet: &Fleet, name: &str| {
        let added = fleet.add_project(name, &more);
        if added.code == 0 {
            acknowledged.push(name.to_owned());
        }
        added
    };
    for number in 0..5 {
        add(&fleet, &format!("before-{number}")).ok();
    }

    let starts = recorded(&fleet, "Coordinator.Start");
    fill_up(&fleet.coordinator_dir().join("filler"));
    let refused =
        (0..400).map(|number| add(&fleet, &format!("while-{number}"))).find(|added| added.code != 0);
    let refused = refused.expect("a full disk takes no more");
    assert_eq!(refused.code, 6, "{}", refused.stderr);
    for part in ["store does not take writes", "make room"] {
        assert!(refused.stderr.contains(part), "{part} is missing: {}", refused.stderr);
    }
    for read in [&["project", "list"][..], &["project", "show", "before-0"], &["status"], &["agent", "list"]]
    {
        fleet.mirrorctl(read).ok();
    }

    fs::remove_file(fleet.coordinator_dir().join("filler")).expect("room again");
    eventually("writes are taken again", || (add(&fleet, "after").code == 0).then_some(()));
    fleet.await_connected("edge1");
    // The audit log tells what it was: no restart, and no state of an earlier time.
    assert!(recorded(&fleet, "Coordinator.Reopen") > 0);
    assert_eq!((recorded(&fleet, "Coordinator.Start"), recorded(&fleet, "Coordinator.Restore")), (starts, 0));
    for again in [false, true] {
        if again {
            fleet.kill_coordinator();
            fleet.start_coordinator().expect("it starts again");
        }
        let list = fleet.json(&["project", "list"]);
        let present: Vec<&str> = list["projects"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|one| one["name"].as_str())
            .collect();
        for name in &acknowledged {
            assert!(
                present.contains(&format!("projects/{name}").as_str()),
                "{name} was acknowledged and is lost"
            );
        }
    }
    drop(fleet);
    drop(mount);
}

/// Bytes of all logs, and of each attempt's: its halves together.
fn logs(fleet: &Fleet) -> Vec<(String, u64)> {
    let mut found: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
    for project in fs::read_dir(fleet.agent_dir(0).join("logs")).into_iter().flatten().flatten() {
        for file in fs::read_dir(project.path()).into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().trim_end_matches(".1").to_owned();
            *found.entry(name).or_default() += file.metadata().map_or(0, |data| data.len());
        }
    }
    found.into_iter().collect()
}

#[test]
fn an_agents_logs_keep_to_their_limits() {
    const MIB: u64 = 1_048_576;
    let limits = [("LOG_ATTEMPTS", "3"), ("LOG_FILE_MIB", "1")];
    let environment = limits.map(|(key, value)| (format!("MIRROR_AGENT_{key}"), value.to_owned())).to_vec();
    let fleet = Fleet::start(FleetOptions { files: 8, environment, ..FleetOptions::default() });
    let fleet = fleet.expect("a fleet starts");
    fleet.add_project("debian", &[]).ok();
    for round in 0..6 {
        // About 1.2 MiB of names, each of which rsync says once.
        let fresh = fleet.upstream_tree().join(format!("{round}-{}", "d".repeat(200)));
        fs::create_dir(&fresh).expect("a directory");
        for file in 0..2_600 {
            fs::write(fresh.join(format!("{file}-{}", "f".repeat(230))), "x").expect("a file");
        }
        fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
        let largest = logs(&fleet).iter().map(|(_, bytes)| *bytes).max().unwrap_or_default();
        assert!((MIB / 4..=MIB).contains(&largest), "round {round}: a log of {largest} bytes");
        // What is beyond the limits goes soon after the end.
        eventually(&format!("round {round}: logs within their limits"), || {
            (logs(&fleet).len() <= 3).then_some(())
        });
    }
    let kept = logs(&fleet);
    assert!(kept.iter().all(|(name, _)| name.ends_with(".good.log")), "{kept:?}");
    let newest =
        fleet.newest_run("debian")["name"].as_str().expect("a name").rsplit('/').next().map(str::to_owned);
    let newest = newest.expect("a run");
    assert!(kept.iter().any(|(name, _)| name.starts_with(&newest)), "the newest is kept: {kept:?}");
    assert!(!fleet.mirrorctl(&["run", "log", "debian"]).ok().stdout.is_empty());
    let upstream = tree::hash(&fleet.upstream_tree()).expect("a tree");
    assert_eq!(tree::hash(&fleet.root(0).join("debian")).expect("a tree"), upstream);
}
