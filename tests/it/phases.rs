//! Kill and stop, at every phase of a run, each of the four programs and some of them together. Phases that can be
//! seen (the run directory, rsync itself) are waited for; within them a blow falls at a moment by lot. After each
//! round everything is brought up again, and one run has one end, one tree and no double. The lots come from a seed
//! that is printed; SEED=n replays it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fleet_tests::{
    Fleet, FleetOptions, eventually,
    process::{living_with, send_signal},
    sentinel::{Sentinel, supervisors, writers},
    tree,
};
use rustix::{
    fs::{FlockOperation, flock},
    process::Signal,
};
use serde_json::Value;

/// New files of one round, and the bytes of each: 640 KiB, half a second at [`SLOW`].
const FILES: usize = 20;
const FILE_BYTES: usize = 32 * 1_024;
/// rsync's own limit, KiB/s.
const SLOW: &str = "--rsync-option=--bwlimit=1200";
/// Longest moment, by lot, between a phase that was seen and the blow, milliseconds.
const LOT_MS: u64 = 60;
/// Longest time, by lot, for which something is dead or stopped, milliseconds.
const AWAY_MS: u64 = 700;

/// What is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Coordinator,
    Agent,
    AgentTwice,
    Supervisor,
    Rsync,
    /// rsync that only lists the upstream: it writes to no tree.
    Listing,
    CoordinatorAndAgent,
    AgentAndSupervisor,
}

impl Victim {
    /// How a try may end that did not succeed.
    fn classes(self) -> &'static [&'static str] {
        match self {
            Self::Coordinator | Self::Agent | Self::AgentTwice | Self::CoordinatorAndAgent => &[],
            // Internal: it was killed before it could say that it is there, so that nothing was started.
            Self::Supervisor | Self::AgentAndSupervisor => &["INTERRUPTED", "INTERNAL"],
            // By a signal, or the receiver was hit and its other half says that it is gone.
            Self::Rsync | Self::Listing => &["INTERNAL", "NETWORK", "INTERRUPTED"],
        }
    }
}

/// When it is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The agent is not there yet; it comes while the blow falls.
    BeforeOffer,
    /// Right after the trigger: offered, looked at, accepted.
    Offer,
    /// The run directory is being made.
    Preparing,
    /// Its specification is there, its supervisor being started.
    Starting,
    /// The supervisor of the look at the upstream is there, or that look is just over.
    Probing,
    /// The supervisor is there, its program being started.
    Spawning,
    /// rsync is there.
    Early,
    /// Half of it has come.
    Middle,
    /// rsync is over, its end being told.
    End,
    /// The same, with a coordinator that does not answer yet.
    Unacknowledged,
}

/// Numbers from a seed: splitmix64.
struct Lots(u64);

impl Lots {
    fn new(test: &str) -> Self {
        let fresh = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::from(since.subsec_nanos()) % 1_000_000
        };
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(fresh);
        println!("{test}: SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }

    /// A pause by lot: the fault's own moment, not a wait for anything.
    fn pause(&mut self, limit_ms: u64) {
        thread::sleep(Duration::from_millis(self.below(limit_ms)));
    }
}

/// A fleet of one agent and one project, hit again and again.
struct Chaos {
    fleet: Fleet,
    lots: Lots,
    round: u64,
    /// Every attempt that was seen as ended, as it was first seen.
    ends: BTreeMap<String, Value>,
    /// Runs that a trigger was answered with.
    promised: BTreeSet<String>,
}

impl Chaos {
    fn start(test: &str) -> Self {
        let lots = Lots::new(test);
        let options = FleetOptions { files: 4, file_bytes: 1_024, ..FleetOptions::default() };
        let fleet = Fleet::start(options).expect("a fleet starts");
        let retries = ["--retry-attempts", "3", "--retry-backoff", "1s"];
        fleet.add_project("debian", &[&[SLOW][..], &retries].concat()).ok();
        Self { fleet, lots, round: 0, ends: BTreeMap::new(), promised: BTreeSet::new() }
    }

    /// One round: a trigger, a blow in a phase, everything up again, and a look at what became of it.
    fn kill(&mut self, phase: Phase, victim: Victim) {
        self.play(phase, victim, &|chaos| {
            chaos.fell(victim);
            chaos.maybe_trigger();
            chaos.lots.pause(AWAY_MS);
            chaos.bring_up();
            if victim == Victim::AgentTwice {
                chaos.lots.pause(LOT_MS * 4);
                chaos.fell(Victim::Agent);
                chaos.bring_up();
            }
        });
    }

    /// The same with SIGSTOP, and SIGCONT some time later.
    fn stop(&mut self, phase: Phase, victim: Victim) {
        self.play(phase, victim, &|chaos| {
            let pids = chaos.pids(victim);
            pids.iter().for_each(|pid| send_signal(*pid, Signal::STOP));
            chaos.lots.pause(AWAY_MS * 2);
            pids.iter().for_each(|pid| send_signal(*pid, Signal::CONT));
            chaos.maybe_trigger();
        });
    }

    fn play(&mut self, phase: Phase, victim: Victim, blow: &dyn Fn(&mut Self)) {
        self.round += 1;
        let started = Instant::now();
        let fresh = self.fleet.upstream_tree().join(format!("round-{}", self.round));
        tree::fill(&fresh, FILES, FILE_BYTES, self.round * 77 + 1).expect("the upstream grows");
        let sentinel = Sentinel::watch(&self.fleet.root(0));
        if phase == Phase::BeforeOffer {
            self.fleet.kill_agent(0);
        }
        assert!(self.trigger(), "a trigger of a healthy coordinator is taken");
        if phase == Phase::BeforeOffer {
            self.fleet.start_agent(0).expect("the agent starts");
        }
        self.await_phase(phase);
        self.lots.pause(LOT_MS);
        blow(self);
        self.bring_up();
        self.settle(&format!("round {}: {phase:?}, {victim:?}", self.round), victim.classes());
        let seen = sentinel.end();
        assert!(seen.faults.is_empty(), "{phase:?}, {victim:?}: {:#?}", seen.faults);
        assert!(seen.looks > 0);
        println!("{phase:?} {victim:?} {} ms", started.elapsed().as_millis());
    }

    fn pids(&self, victim: Victim) -> Vec<u32> {
        let coordinator = self.fleet.coordinator.iter();
        let agent = self.fleet.agents[0].iter();
        match victim {
            Victim::Coordinator => coordinator.map(fleet_tests::Process::pid).collect(),
            Victim::Agent | Victim::AgentTwice => agent.map(fleet_tests::Process::pid).collect(),
            Victim::CoordinatorAndAgent => coordinator.chain(agent).map(fleet_tests::Process::pid).collect(),
            Victim::Supervisor => supervisors(&self.fleet.agent_dir(0)),
            Victim::AgentAndSupervisor => [self.pids(Victim::Agent), self.pids(Victim::Supervisor)].concat(),
            // Its last words but one are the upstream, which no other fleet has, and what nothing is written to.
            Victim::Listing => living_with(&format!("{} /nonexistent/", self.fleet.upstream.uri())),
            Victim::Rsync => writers(&self.fleet.root(0)).iter().map(|writer| writer.pid).collect(),
        }
    }

    fn fell(&mut self, victim: Victim) {
        self.pids(victim).iter().for_each(|pid| send_signal(*pid, Signal::KILL));
        if matches!(victim, Victim::Coordinator | Victim::CoordinatorAndAgent) {
            self.fleet.kill_coordinator();
        }
        if !matches!(victim, Victim::Coordinator | Victim::Supervisor | Victim::Rsync | Victim::Listing) {
            self.fleet.kill_agent(0);
        }
    }

    /// What is stopped goes on, and what is dead is started, in an order by lot.
    fn bring_up(&mut self) {
        self.pids(Victim::Coordinator).iter().for_each(|pid| send_signal(*pid, Signal::CONT));
        let agent_first = self.lots.below(2) == 0;
        for agent in [agent_first, !agent_first] {
            if agent && self.fleet.agents[0].is_none() {
                self.fleet.start_agent(0).expect("the agent starts again");
            } else if !agent && self.fleet.coordinator.is_none() {
                self.fleet.start_coordinator().expect("the coordinator starts again");
            }
        }
    }

    /// Asks for a run. What is answered is promised.
    fn trigger(&mut self) -> bool {
        let asked = self.fleet.mirrorctl(&["project", "run", "debian", "--timeout", "2s", "-o", "json"]);
        if asked.code == 0 {
            let name = asked.json()["run"]["name"].as_str().expect("a run's name").to_owned();
            self.promised.insert(name);
        }
        asked.code == 0
    }

    /// One more trigger in the middle of it, in a third of the rounds.
    fn maybe_trigger(&mut self) {
        if self.lots.below(3) == 0 && self.fleet.coordinator.is_some() {
            self.trigger();
        }
    }

    fn run_dir(&self) -> Option<PathBuf> {
        let runs = subdirectories(&self.fleet.agent_dir(0).join("runs"));
        runs.first().cloned()
    }

    fn await_phase(&self, phase: Phase) {
        let (root, agent) = (self.fleet.root(0), self.fleet.agent_dir(0));
        let pass = |name: &str| self.run_dir().is_some_and(|dir| dir.join("pull-1").join(name).exists());
        match phase {
            Phase::BeforeOffer | Phase::Offer => {}
            Phase::Preparing => soon("a run directory", || self.run_dir().is_some()),
            Phase::Starting => soon("a specification", || pass("spec.json")),
            Phase::Probing => soon("a probe", || {
                self.run_dir().is_some_and(|dir| dir.join("probe-1/supervisor.json").exists())
            }),
            Phase::Spawning => soon("a supervisor", || !supervisors(&agent).is_empty()),
            Phase::Early => soon("rsync", || !writers(&root).is_empty()),
            Phase::Middle => {
                let fresh = root.join(format!("debian/round-{}", self.round));
                soon("half of it", || bytes_below(&fresh) >= (FILES * FILE_BYTES / 2) as u64);
            }
            Phase::End => {
                soon("a run directory", || self.run_dir().is_some());
                // Soon after its end it is gone.
                soon("the end", || pass("exit.json") || self.run_dir().is_none());
            }
            Phase::Unacknowledged => {
                soon("rsync", || !writers(&root).is_empty());
                let coordinator = self.pids(Victim::Coordinator);
                coordinator.iter().for_each(|pid| send_signal(*pid, Signal::STOP));
                soon("the end is journaled", || self.run_dir().is_none());
            }
        }
    }

    /// Waits for the end of every run and looks at what there is.
    fn settle(&mut self, round: &str, classes: &[&str]) {
        let runs = eventually(&format!("{round}: every run is over"), || {
            let list = self.fleet.mirrorctl(&["run", "list", "debian", "--page-size", "100", "-o", "json"]);
            let runs =
                (list.code == 0).then(|| list.json()["runs"].as_array().cloned().unwrap_or_default())?;
            runs.iter().all(|run| run["end_time"].is_string()).then_some(runs)
        });
        let names: BTreeSet<&str> = runs.iter().filter_map(|run| run["name"].as_str()).collect();
        for promised in &self.promised {
            assert!(names.contains(promised.as_str()), "{round}: {promised} was promised and is not there");
        }
        for run in &runs {
            let name = run["name"].as_str().expect("a name");
            assert_eq!(run["state"], "SUCCEEDED", "{round}: {run}");
            if !self.ends.contains_key(&format!("{name}/attempts/1")) {
                self.note_ends(round, name, classes);
            }
        }
        let (root, agent) = (self.fleet.root(0), self.fleet.agent_dir(0));
        eventually(&format!("{round}: no program of it is left"), || {
            (writers(&root).is_empty() && supervisors(&agent).is_empty()).then_some(())
        });
        eventually(&format!("{round}: no run directory is left"), || self.run_dir().is_none().then_some(()));
        let upstream = tree::hash(&self.fleet.upstream_tree()).expect("a tree");
        assert_eq!(tree::hash(&root.join("debian")).expect("a tree"), upstream, "{round}: the trees differ");
        for lock in fs::read_dir(root.join(".mirror/locks")).expect("locks").flatten() {
            let file = fs::File::open(lock.path()).expect("a lock file");
            let free = flock(&file, FlockOperation::NonBlockingLockExclusive);
            assert!(free.is_ok(), "{round}: {} is still held", lock.path().display());
        }
    }

    /// Every try of a run has ended; the last one well, the others as they may.
    fn note_ends(&mut self, round: &str, run: &str, classes: &[&str]) {
        let attempts = attempts_of(&self.fleet, run);
        let (last, before) = attempts.split_last().expect("a run has an attempt");
        assert_eq!(last["state"], "SUCCEEDED", "{round}: {last}");
        for attempt in before {
            assert_eq!(attempt["state"], "FAILED", "{round}: {attempt}");
            let class = attempt["outcome"]["class"].as_str().unwrap_or_default();
            assert!(classes.contains(&class), "{round}: {attempt}");
        }
        for attempt in attempts {
            self.ends.insert(attempt["name"].as_str().expect("a name").to_owned(), attempt);
        }
    }

    /// After all rounds: no end has changed since, not even by a restart.
    fn finish(mut self) {
        self.fleet.kill_coordinator();
        self.bring_up();
        let runs: BTreeSet<&str> =
            self.ends.keys().filter_map(|name| name.split("/attempts/").next()).collect();
        for run in runs {
            for attempt in attempts_of(&self.fleet, run) {
                let name = attempt["name"].as_str().expect("a name");
                assert_eq!(Some(&attempt), self.ends.get(name), "{name} has another end than it had");
            }
        }
    }
}

fn attempts_of(fleet: &Fleet, run: &str) -> Vec<Value> {
    fleet.json(&["run", "show", run])["attempts"].as_array().cloned().expect("attempts")
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return fs::metadata(path).map_or(0, |data| data.len()) };
    entries.flatten().map(|entry| bytes_below(&entry.path())).sum()
}

/// Waits for a phase, looking more often than anything happens in it.
fn soon(what: &str, mut look: impl FnMut() -> bool) {
    let started = Instant::now();
    while !look() {
        assert!(started.elapsed() < fleet_tests::DEADLINE, "not seen: {what}");
        thread::sleep(Duration::from_micros(500));
    }
}

#[test]
fn killed_before_and_while_work_is_offered() {
    let mut chaos = Chaos::start("offer");
    for victim in [Victim::Coordinator, Victim::Agent, Victim::CoordinatorAndAgent, Victim::AgentTwice] {
        chaos.kill(Phase::BeforeOffer, victim);
        chaos.kill(Phase::Offer, victim);
    }
    chaos.finish();
}

#[test]
fn killed_while_the_program_is_prepared_and_started() {
    let mut chaos = Chaos::start("start");
    for phase in [Phase::Preparing, Phase::Starting, Phase::Spawning] {
        for victim in [Victim::Agent, Victim::CoordinatorAndAgent, Victim::Supervisor] {
            chaos.kill(phase, victim);
        }
    }
    chaos.kill(Phase::Starting, Victim::AgentTwice);
    chaos.kill(Phase::Spawning, Victim::AgentAndSupervisor);
    chaos.finish();
}

#[test]
fn killed_while_the_upstream_is_looked_at() {
    let mut chaos = Chaos::start("probe");
    // The first copy has nothing that a probe could protect.
    chaos.kill(Phase::Early, Victim::Coordinator);
    for victim in [Victim::Agent, Victim::AgentTwice, Victim::CoordinatorAndAgent] {
        chaos.kill(Phase::Probing, victim);
    }
    for victim in [Victim::Supervisor, Victim::AgentAndSupervisor, Victim::Listing, Victim::Listing] {
        chaos.kill(Phase::Probing, victim);
    }
    chaos.finish();
}

#[test]
fn killed_in_the_middle_of_a_transfer() {
    let mut chaos = Chaos::start("transfer");
    for victim in [Victim::Coordinator, Victim::CoordinatorAndAgent, Victim::AgentTwice] {
        chaos.kill(Phase::Early, victim);
    }
    for victim in [Victim::Supervisor, Victim::Rsync, Victim::AgentAndSupervisor, Victim::Agent] {
        chaos.kill(Phase::Early, victim);
        chaos.kill(Phase::Middle, victim);
    }
    chaos.finish();
}

#[test]
fn killed_while_the_end_is_told_and_acknowledged() {
    let mut chaos = Chaos::start("end");
    for victim in [Victim::Coordinator, Victim::Agent, Victim::CoordinatorAndAgent, Victim::AgentTwice] {
        chaos.kill(Phase::End, victim);
        chaos.kill(Phase::Unacknowledged, victim);
    }
    chaos.kill(Phase::End, Victim::Supervisor);
    chaos.finish();
}

#[test]
fn stopped_and_continued_at_every_phase() {
    let mut chaos = Chaos::start("stop");
    for phase in [Phase::Offer, Phase::Starting, Phase::Middle, Phase::End] {
        for victim in [Victim::Coordinator, Victim::Agent] {
            chaos.stop(phase, victim);
        }
    }
    for victim in [Victim::Supervisor, Victim::Rsync] {
        chaos.stop(Phase::Spawning, victim);
        chaos.stop(Phase::Middle, victim);
    }
    chaos.finish();
}

/// The moments in which a run directory is made or removed are too short to be hit: their remains are put there.
#[test]
fn a_run_directory_that_is_not_whole_is_made_anew_or_removed() {
    let mut chaos = Chaos::start("unfinished");
    // Killed while it was made, and between the last of its making and the start of a supervisor.
    for left in [&["stop.part"][..], &["stop.part", "spec.json"]] {
        chaos.play(Phase::Middle, Victim::Agent, &|chaos| {
            chaos.fell(Victim::AgentAndSupervisor);
            let root = chaos.fleet.root(0);
            eventually("rsync ends with its supervisor", || writers(&root).is_empty().then_some(()));
            let run = chaos.run_dir().expect("its run directory");
            for file in fs::read_dir(run.join("pull-1")).expect("a directory").flatten() {
                if !left.iter().any(|name| file.file_name() == *name) {
                    fs::remove_file(file.path()).expect("a file goes");
                }
            }
            let of_another = run.with_file_name("half-removed").join("pull-1");
            fs::create_dir_all(&of_another).expect("a directory");
            fs::write(of_another.join("stdout.log"), "left").expect("a file");
            chaos.bring_up();
        });
    }
    chaos.finish();
}
