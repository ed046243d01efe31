//! The simulated world: one queue of events, one clock, one source of chance. The same seed is the same world.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fleet::{
    id::{AgentUid, ProjectUid, RunId},
    input::{AgentInput, Message, Send},
};

use crate::{
    checks::Checks,
    config::Config,
    cover::{Cover, Fault},
    host::{Host, Work},
    net::{Packet, Stream, StreamId},
    newness::Newness,
    people::People,
    planted::Planted,
    prng::Prng,
    shell::Coordinator,
};

/// Hosts that origins pull from.
pub(crate) const UPSTREAMS: [&str; 2] = ["up0", "up1"];
/// Steps of the calm end that must be enough for everything to settle.
const CALM_STEPS_MAX: u64 = 10_000;
/// Last events kept for the report of a failure, unless `SIM_NOTES` wants more.
const NOTES: usize = 120;
/// New machines that replace revoked ones, at most.
const HOSTS_MAX: usize = 100;

/// Something that happens at a time.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Drive,
    Committed(u64),
    CoordinatorStarts,
    Packet(StreamId, Packet),
    Arrives(StreamId),
    AgentNotices(StreamId),
    CoordinatorNotices(StreamId),
    Heals(usize),
    Dial(usize, u64),
    Synced(usize, u64, Work),
    Serves(usize, u64),
    Refuses(usize, u64, AgentInput),
    Pulled(usize, u64),
    Alone(usize, u64),
    AgentStarts(usize),
    Joins(usize),
    Person,
    Fault,
    Meddles(ProjectUid, AgentUid),
    Cancels(ProjectUid, RunId),
    Reachable(&'static str),
    PlanCut,
    Operator,
}

/// A simulated fleet.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: Prng,
    pub(crate) config: Config,
    pub(crate) planted: Option<Planted>,
    pub(crate) time: u64,
    pub(crate) coordinator: Coordinator,
    pub(crate) hosts: Vec<Host>,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    /// The newest connection of each host that said hello.
    pub(crate) newest_hello: BTreeMap<usize, StreamId>,
    /// How new the trees of upstream hosts are.
    pub(crate) newness: Newness,
    /// Upstream hosts that cannot be reached now.
    pub(crate) down: BTreeSet<&'static str>,
    pub(crate) people: People,
    pub(crate) checks: Checks,
    pub(crate) cover: Cover,
    /// The end of the simulation: nothing breaks any more, and everything must settle.
    pub(crate) calm: bool,
    /// The first thing that was wrong.
    pub(crate) failure: Option<String>,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    drive: Option<(u64, u64)>,
    notes: Option<VecDeque<String>>,
    notes_most: usize,
}

impl World {
    pub(crate) fn new(seed: u64, planted: Option<Planted>, traced: bool) -> Self {
        let mut rng = Prng::new(seed);
        let config = Config::draw(&mut rng);
        let mut world = Self {
            rng,
            planted,
            time: 0,
            coordinator: Coordinator::default(),
            hosts: Vec::new(),
            streams: BTreeMap::new(),
            newest_hello: BTreeMap::new(),
            newness: Newness::new(seed),
            down: BTreeSet::new(),
            people: People::default(),
            checks: Checks::new(config.limits.clone()),
            cover: Cover::default(),
            calm: false,
            failure: None,
            queue: BTreeMap::new(),
            sequence: 0,
            drive: None,
            notes: traced.then(VecDeque::new),
            notes_most: crate::from_environment("SIM_NOTES")
                .map_or(NOTES, |most| usize::try_from(most).expect("small")),
            config,
        };
        world.after(0, Event::CoordinatorStarts);
        for _ in 0..world.config.hosts {
            world.new_host();
        }
        world.after(5_000, Event::Person);
        world.after(20_000, Event::Fault);
        world
    }

    /// The whole simulation: the lively part, then the calm end. `Err` says what was wrong.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        while self.cover.steps < self.config.steps && self.failure.is_none() {
            self.next_event();
        }
        self.calm_down();
        let end = self.cover.steps + CALM_STEPS_MAX;
        while self.failure.is_none() && !self.people.settled && self.cover.steps < end {
            self.next_event();
        }
        if self.failure.is_none() && !self.people.settled {
            let text = format!("not settled after {CALM_STEPS_MAX} calm steps: {}", self.unsettled());
            self.fail(text);
        }
        if self.failure.is_none() {
            self.check_end();
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn next_event(&mut self) {
        let Some(((time, _), event)) = self.queue.pop_first() else {
            return self.fail("nothing will ever happen again".to_owned());
        };
        self.time = time;
        self.cover.steps += 1;
        self.note(|| format!("{event:?}"));
        match event {
            Event::Drive => {
                self.drive = None;
                self.drive();
            }
            Event::Committed(boot) => self.committed(boot),
            Event::CoordinatorStarts => self.coordinator_starts(),
            Event::Packet(stream, packet) => self.arrive(stream, packet),
            Event::Arrives(stream) => self.lagged_arrive(stream),
            Event::AgentNotices(stream) => self.agent_closes(stream),
            Event::CoordinatorNotices(stream) => self.coordinator_closes(stream),
            Event::Heals(host) => self.heal(host),
            Event::Dial(host, boot) => self.dial(host, boot),
            Event::Serves(host, boot) => self.serves(host, boot),
            Event::Synced(host, boot, work) => self.synced(host, boot, work),
            Event::Refuses(host, boot, input) => self.refuses(host, boot, input),
            Event::Pulled(host, id) => self.pulled(host, id),
            Event::Alone(host, gone) => self.alone(host, gone),
            Event::AgentStarts(host) => self.agent_starts(host),
            Event::Joins(host) => self.joins(host),
            Event::Person if !self.calm => {
                self.person_acts();
                let gap = self.rng.span(self.config.person_gap).max(self.coordinator_away());
                self.after(gap, Event::Person);
            }
            Event::Fault if !self.calm => {
                self.something_breaks();
                let gap = self.rng.span(self.config.fault_gap).max(self.coordinator_away());
                self.after(gap, Event::Fault);
            }
            Event::Meddles(project, agent) if !self.calm => self.meddle(project, agent),
            Event::Cancels(project, run) if !self.calm => self.person_cancels(project, run),
            Event::PlanCut if !self.calm => self.break_now(Fault::CoordinatorCrash, 0),
            Event::Operator => self.operator_looks(),
            Event::Reachable(upstream) => drop(self.down.remove(upstream)),
            Event::Person | Event::Fault | Event::Meddles(..) | Event::Cancels(..) | Event::PlanCut => {}
        }
    }

    pub(crate) fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((time, self.sequence), event);
    }

    /// The driver has at most one plan for when it looks again.
    pub(crate) fn plan_drive(&mut self, time: u64) {
        if let Some(old) = self.drive.take() {
            self.queue.remove(&old);
        }
        self.at(time, Event::Drive);
        self.drive = Some((time, self.sequence));
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.time + delay, event);
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    pub(crate) fn new_host(&mut self) {
        let index = self.hosts.len();
        if index >= HOSTS_MAX {
            return;
        }
        let name = format!("mirror{index}").parse().expect("a good name");
        let mut host = Host::new(name, format!("s{index}"));
        host.slots = u32::try_from(self.rng.below(4)).expect("small");
        host.clock_shift = i64::try_from(self.rng.below(20_000)).expect("small") - 10_000;
        host.external = self.rng.chance(250);
        host.labels = self.draw_labels();
        self.hosts.push(host);
        let delay = self.rng.between(100, 3_000);
        self.after(delay, Event::Joins(index));
    }

    pub(crate) fn draw_labels(&mut self) -> BTreeMap<String, String> {
        let labels = [("role", "edge"), ("site", "north"), ("site", "south")];
        let drawn = labels.into_iter().filter(|_| self.rng.chance(500));
        drawn.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Remembers what was wrong; the first thing counts.
    pub(crate) fn fail(&mut self, text: String) {
        self.note(|| format!("WRONG: {text}"));
        self.failure.get_or_insert(text);
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(notes) = &mut self.notes {
            if notes.len() >= self.notes_most {
                notes.pop_front();
            }
            notes.push_back(format!("[{:>10} ms] {}", self.time, text()));
        }
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.iter().flatten().cloned().collect()
    }

    /// How long the coordinator still stays away, mostly: in a long outage little else is of interest.
    fn coordinator_away(&mut self) -> u64 {
        let left = self.coordinator.away_until.saturating_sub(self.time);
        if self.coordinator.engine.is_none() && self.rng.chance(800) { left } else { 0 }
    }

    /// Somebody or something is just in time to disturb an attempt that was offered or is being cancelled.
    fn meddle(&mut self, project: ProjectUid, agent: AgentUid) {
        let Some(host) = self.host_of(agent) else { return };
        match self.rng.below(12) {
            0 if self.rng.chance(500) => self.break_now(Fault::CoordinatorCrash, host),
            0 | 1 => self.break_now(Fault::AgentCrash, host),
            2 => self.break_now(Fault::HostCrash, host),
            3 => self.break_now(Fault::StateLoss, host),
            4 => self.break_now(Fault::HalfOpen, host),
            5 => self.break_now(Fault::PartitionBoth, host),
            6 => self.break_now(Fault::PartitionUp, host),
            _ => self.person_meddles(project, agent),
        }
    }

    /// In a meddlesome world: an attempt's report will be on its way within `within` ms, and so will be a
    /// person's wish to end it.
    pub(crate) fn cancel_meanwhile(&mut self, project: ProjectUid, run: RunId, within: u64, likely: bool) {
        if self.rng.chance(if likely { self.config.meddling } else { self.config.meddling / 2 }) {
            let delay = self.rng.between(0, within + self.config.latency);
            self.after(delay, Event::Cancels(project, run));
        }
    }

    fn something_breaks(&mut self) {
        let fault = Fault::ALL[self.rng.weighted(&self.config.faults)];
        let hunted = if self.rng.chance(500) { self.some_attempt() } else { None };
        let hunted = hunted.and_then(|(_, agent)| self.host_of(agent));
        let host = hunted.unwrap_or_else(|| self.rng.index(self.hosts.len()));
        self.break_now(fault, host);
    }

    fn break_now(&mut self, fault: Fault, host: usize) {
        self.note(|| format!("fault {fault:?}, host {host}"));
        let stream = self.hosts[host].stream;
        let happened = match fault {
            Fault::CutLink => stream.map(|id| self.cut(id, false)).is_some(),
            Fault::HalfOpen => stream.map(|id| self.cut(id, true)).is_some(),
            Fault::PartitionBoth => self.partition(host, [true, true]),
            Fault::PartitionUp => self.partition(host, [true, false]),
            Fault::PartitionDown => self.partition(host, [false, true]),
            Fault::Replay => self.replay(host),
            Fault::AgentCrash => self.crash_agent(host, false, false),
            Fault::HostCrash => self.crash_agent(host, true, false),
            Fault::StateLoss => self.crash_agent(host, true, true),
            Fault::CoordinatorCrash => self.crash_coordinator(false, 50, 20_000),
            Fault::PowerLoss => self.crash_coordinator(true, 1_000, 120_000),
            Fault::LongOutage => self.crash_coordinator(false, 3_600_000, 260 * 3_600_000),
            Fault::CommitError => {
                self.coordinator.commit_fails = true;
                false
            }
            Fault::Restore => self.restore_or_back_up(),
            Fault::WallBack | Fault::WallForward => self.step_wall(fault),
            Fault::AgentClock => self.step_clock(host),
            Fault::RootsChange => self.change_roots(host),
            Fault::UpstreamDown => self.upstream_goes_down(),
            Fault::DiskFills => self.fill_disk(host),
            Fault::Relabelled => self.relabel(host),
            Fault::LostUnits
            | Fault::LateReport
            | Fault::LateHello
            | Fault::RequestRepeat
            | Fault::DaemonSilent
            | Fault::ExportRefused
            | Fault::GuardStop
            | Fault::ShrunkTree
            | Fault::Approved
            | Fault::StaleApproval
            | Fault::DryRun
            | Fault::Reseed
            | Fault::Replaced
            | Fault::Fenced
            | Fault::Move
            | Fault::Moved
            | Fault::MoveDamaged
            | Fault::Renamed
            | Fault::Archived
            | Fault::Followed
            | Fault::Planned
            | Fault::PlanCut
            | Fault::StepLeftOut
            | Fault::Pushed
            | Fault::PushedTooFast
            | Fault::TokenNotGood
            | Fault::AgentSet
            | Fault::Declared
            | Fault::Capped
            | Fault::Named
            | Fault::Spread => false,
        };
        if happened {
            self.cover.fault(fault);
        }
    }

    fn restore_or_back_up(&mut self) -> bool {
        let put_back = self.rng.chance(500) && self.restore();
        if !put_back {
            self.back_up();
        }
        put_back
    }

    /// A volume that is full has room again.
    fn fill_disk(&mut self, host: usize) -> bool {
        let root = if self.rng.chance(800) { "a1" } else { "a2" };
        if !self.hosts[host].full.remove(root) {
            self.hosts[host].full.insert(root);
        }
        self.inventory(host);
        true
    }

    fn relabel(&mut self, host: usize) -> bool {
        self.hosts[host].labels = self.draw_labels();
        self.rejoins(host)
    }

    fn upstream_goes_down(&mut self) -> bool {
        let upstream = *self.rng.pick(&UPSTREAMS).expect("not empty");
        let span = self.rng.between(60_000, 10 * 3_600_000);
        self.after(span, Event::Reachable(upstream));
        self.down.insert(upstream)
    }

    fn change_roots(&mut self, host: usize) -> bool {
        let roots = if self.rng.chance(400) { vec!["a1"] } else { vec!["a1", "a2"] };
        self.hosts[host].roots = roots;
        self.hosts[host].serves = self.rng.chance(800);
        self.inventory(host);
        self.say_exporting(host);
        true
    }

    fn step_clock(&mut self, host: usize) -> bool {
        self.checks.clock_stepped = true;
        self.hosts[host].clock_shift += i64::try_from(self.rng.below(7_200_000)).expect("small") - 3_600_000;
        true
    }

    fn partition(&mut self, host: usize, lines: [bool; 2]) -> bool {
        if self.hosts[host].blocked != [false; 2] || self.hosts[host].stream.is_none() {
            return false;
        }
        self.block(host, lines);
        true
    }

    fn crash_agent(&mut self, host: usize, machine: bool, state_lost: bool) -> bool {
        let up = self.hosts[host].up;
        self.agent_crashes(host, machine, state_lost);
        up
    }

    fn crash_coordinator(&mut self, silently: bool, least_ms: u64, most_ms: u64) -> bool {
        let up = self.coordinator.engine.is_some();
        self.coordinator_stops(silently, least_ms, most_ms);
        up
    }

    fn step_wall(&mut self, fault: Fault) -> bool {
        let size = *self.rng.pick(&[2_000, 300_000, 3_600_000, 26 * 3_600_000]).expect("not empty");
        let step = i64::try_from(self.rng.between(1, size)).expect("small");
        self.checks.clock_stepped = true;
        self.coordinator.wall_shift += if fault == Fault::WallBack { -step } else { step };
        if fault == Fault::WallForward {
            // Answers may be forgotten early then.
            self.people.forget_requests();
        }
        // The clock task reads the wall clock at least once a second.
        self.wake_driver(1_000);
        true
    }

    pub(crate) fn host_of(&self, agent: AgentUid) -> Option<usize> {
        self.hosts.iter().position(|host| host.uid == Some(agent))
    }

    /// Nothing breaks any more, and what is broken heals.
    fn calm_down(&mut self) {
        self.note(|| "calm".to_owned());
        self.calm = true;
        self.coordinator.commit_fails = false;
        self.down.clear();
        self.newness.calm();
        for host in 0..self.hosts.len() {
            self.hosts[host].roots = vec!["a1", "a2"];
            self.hosts[host].full.clear();
            self.hosts[host].serves = true;
            self.heal(host);
            self.agent_starts(host);
            // A hello tells of roots and daemon anew.
            if let Some(stream) = self.hosts[host].stream {
                self.cut(stream, false);
            }
        }
        self.coordinator_starts();
        self.after(1_000, Event::Operator);
    }

    pub(crate) fn check_said(&mut self, send: &Send) {
        self.check_fenced(send);
        let concerned = match &send.message {
            Message::Offer(offer) => {
                if let Err(text) = self.checks.offer_said(offer) {
                    self.fail(text);
                }
                Some(offer.project)
            }
            Message::Cancel { attempt, .. } => {
                let engine = self.coordinator.engine.as_ref();
                engine.and_then(|engine| engine.attempt(*attempt)).map(|attempt| attempt.project)
            }
            _ => None,
        };
        if let Some(project) = concerned.filter(|_| self.rng.chance(self.config.meddling)) {
            let soon = self.rng.between(0, 3 * self.config.latency);
            self.after(soon, Event::Meddles(project, send.agent));
        }
    }
}
