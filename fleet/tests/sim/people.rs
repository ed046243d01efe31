//! What people and hosts ask of the coordinator, and what they were promised: an answer that was given is
//! remembered here, and must still be true after any crash.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
    time::Duration,
};

use fleet::{
    agent::TokenNames,
    attempt::{AttemptState, Role},
    engine::{WaitReason, Why},
    id::{AgentUid, Name, ProjectUid, RunId},
    input::{AgentInput, Ask, Decision, Input, Person, Reply, RequestKey},
    project::{PlacementSettings, ProjectSpec, RetrySettings, RsyncSettings, Target, Upstream},
    record::{Change, Key, Record},
    refusal::RefusalCode,
    run::TriggerKind,
    schedule::{Cadence, Cron, IntervalFrom, OverlapPolicy, Schedule, parse_zone},
    time::Wall,
};

use crate::{
    cover::{At, Fault},
    planted::Planted,
    prng::Prng,
    shell::Tag,
    store::Store,
    world::{Event, World},
};

/// Projects at a time.
const PROJECTS_MAX: usize = 6;
/// Request ids that may be used again.
const REQUESTS_MAX: usize = 16;

/// How often the operator looks in the calm end, in ms.
const OPERATOR_MS: u64 = 300_000;

/// Schedules to draw from.
static CRONS: LazyLock<Vec<Cron>> = LazyLock::new(|| {
    let texts = ["minute=*/20", "minute=7,37", "hour=*/2 minute=30", "hour=2 minute=30", "minute=*"];
    let parse = |text: &str| Cron::parse(text.parse().expect("good fields")).expect("a good cron");
    texts.into_iter().map(parse).collect()
});

/// What people do, with how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Do {
    Create,
    Update,
    Delete,
    Run,
    Cancel,
    Pause,
    Resume,
    Freeze,
    Thaw,
    Drain,
    Undrain,
    Revoke,
    Sweep,
    Repeat,
    Check,
}

const DEEDS: [(Do, u64); 15] = [
    (Do::Create, 40),
    (Do::Update, 24),
    (Do::Delete, 14),
    (Do::Run, 90),
    (Do::Cancel, 80),
    (Do::Pause, 8),
    (Do::Resume, 10),
    (Do::Freeze, 1),
    (Do::Thaw, 4),
    (Do::Drain, 3),
    (Do::Undrain, 5),
    (Do::Revoke, 8),
    (Do::Sweep, 4),
    (Do::Repeat, 14),
    (Do::Check, 3),
];

/// How often each deed is done in one seed's world.
pub(crate) fn draw_weights(rng: &mut Prng) -> Vec<u64> {
    let keep = |rng: &mut Prng, (deed, weight): (Do, u64)| {
        let always = matches!(deed, Do::Create | Do::Run | Do::Thaw | Do::Resume);
        if always || rng.chance(750) { weight } else { 0 }
    };
    DEEDS.into_iter().map(|deed| keep(rng, deed)).collect()
}

/// What an answer promised: marks that only grow, and what is gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Promise {
    marks: Vec<(Key, u64)>,
    frozen: Option<bool>,
}

impl Promise {
    pub(crate) fn of(decision: &Decision) -> Self {
        let mut promise = Self::default();
        for change in &decision.changes {
            if let Change::Put(record) = change {
                promise.marks.extend(mark(record).map(|mark| (record.key(), mark)));
            }
        }
        if let Reply::Frozen(freeze) = &decision.reply {
            promise.frozen = Some(freeze.is_some());
        }
        promise
    }
}

/// A number that only grows while the record lives; `None`: such records may go at any time.
fn mark(record: &Record) -> Option<u64> {
    match record {
        Record::Project(project) => Some(project.revision),
        Record::ProjectState(state) => Some(state.wanted),
        Record::Agent(agent) => Some(agent.revision),
        Record::Run(run) => Some(run.coalesced),
        Record::Fleet(_)
        | Record::Attempt(_)
        | Record::Placement(_)
        | Record::JoinToken(_)
        | Record::User(_)
        | Record::Request(_) => None,
    }
}

/// A request id that was used, and what was answered.
#[derive(Debug, Clone)]
struct Used {
    ask: Ask,
    answer: Option<Reply>,
    at: Wall,
}

/// Something asked and not answered yet.
#[derive(Debug, Clone)]
struct Deed {
    ask: Ask,
    request: Option<String>,
}

/// The people's memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct People {
    deeds: BTreeMap<u64, Deed>,
    used: BTreeMap<String, Used>,
    promised: BTreeMap<Key, u64>,
    /// Projects whose deletion was asked for: whether they are still there is not known.
    doomed: BTreeSet<ProjectUid>,
    frozen: Option<bool>,
    next: u64,
    /// The calm end: a last run of each project was asked for.
    last_runs: BTreeMap<ProjectUid, RunId>,
    last_asked: bool,
    /// Everything has come to rest.
    pub(crate) settled: bool,
}

impl People {
    /// What was promised must be on disk, whatever happened.
    pub(crate) fn check_promises(&self, store: &Store) -> Result<(), String> {
        for (key, promised) in &self.promised {
            let doomed = match key {
                Key::Project(uid) | Key::ProjectState(uid) => self.doomed.contains(uid),
                _ => false,
            };
            let found = store.live.get(key).or_else(|| store.history.get(key)).and_then(mark);
            if found.is_none_or(|found| found < *promised) && !doomed {
                return Err(format!("{key:?} was promised at {promised}, and the disk has {found:?}"));
            }
        }
        let frozen = store
            .live
            .get(&Key::Fleet)
            .is_some_and(|record| matches!(record, Record::Fleet(fleet) if fleet.frozen.is_some()));
        match self.frozen {
            Some(promised) if promised != frozen => {
                Err(format!("frozen was promised to be {promised} and is {frozen}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn promise(&mut self, promise: Promise) {
        for (key, mark) in promise.marks {
            let known = self.promised.entry(key).or_default();
            *known = mark.max(*known);
        }
        if promise.frozen.is_some() {
            self.frozen = promise.frozen;
        }
    }

    pub(crate) fn forget_requests(&mut self) {
        self.used.clear();
    }

    /// An older backup is put back: promises made since are void.
    pub(crate) fn put_back(&mut self, old: &Self) {
        self.promised.clone_from(&old.promised);
        self.used.clear();
        self.frozen = None;
        self.last_runs.clear();
    }
}

impl World {
    pub(crate) fn person_acts(&mut self) {
        let deed = DEEDS[self.rng.weighted(&self.config.deeds)].0;
        if deed == Do::Sweep {
            return self.submit(Input::Sweep, Tag::Nothing);
        }
        if deed == Do::Repeat {
            return self.repeat();
        }
        if let Some(ask) = self.think_of(deed) {
            self.ask(ask);
        }
    }

    /// Somebody asks for something that disturbs this attempt.
    pub(crate) fn person_meddles(&mut self, project: ProjectUid, agent: AgentUid) {
        let deeds =
            [Do::Cancel, Do::Cancel, Do::Cancel, Do::Delete, Do::Delete, Do::Update, Do::Revoke, Do::Revoke];
        let deed = *self.rng.pick(&deeds).expect("not empty");
        if let Some(ask) = self.think(deed, Some(project), Some(agent)) {
            self.ask(ask);
        }
    }

    pub(crate) fn person_cancels(&mut self, project: ProjectUid, run: RunId) {
        self.ask(Ask::CancelRun { project, run });
    }

    fn think_of(&mut self, deed: Do) -> Option<Ask> {
        let project = self.some_project();
        let agent = self.some_agent();
        self.think(deed, project, agent)
    }

    fn think(&mut self, deed: Do, project: Option<ProjectUid>, agent: Option<AgentUid>) -> Option<Ask> {
        Some(match deed {
            Do::Create => return self.creation(false),
            Do::Check => return self.creation(true),
            Do::Update => return self.update(project?),
            Do::Delete => {
                Ask::DeleteProject { project: project?, revision: None, cancel_running: self.rng.chance(800) }
            }
            Do::Run => {
                let kinds =
                    [TriggerKind::User, TriggerKind::User, TriggerKind::Push, TriggerKind::UpstreamChange];
                let kind = *self.rng.pick(&kinds)?;
                Ask::Run { project: project?, kind, request: None, traceparent: String::new() }
            }
            Do::Cancel => {
                let project = project?;
                let runs: Vec<RunId> = self.coordinator.store.live_runs(project).map(|run| run.id).collect();
                Ask::CancelRun { project, run: *self.rng.pick(&runs)? }
            }
            Do::Pause => {
                let span = Duration::from_secs(self.rng.between(1, 20_000));
                let until = self.rng.chance(600).then(|| self.still().wall.plus(span));
                Ask::Pause { project: project?, reason: "maintenance".to_owned(), until, revision: None }
            }
            Do::Resume => Ask::Resume { project: project?, revision: None },
            Do::Freeze => Ask::Freeze { reason: "power".to_owned() },
            Do::Thaw => Ask::Thaw,
            Do::Drain => Ask::Drain { agent: agent?, draining: true },
            Do::Undrain => Ask::Drain { agent: agent?, draining: false },
            Do::Revoke => Ask::RevokeAgent { agent: agent?, reason: "stolen".to_owned() },
            Do::Sweep | Do::Repeat => return None,
        })
    }

    /// Sometimes any, mostly one with an attempt in a drawn state: else the short states would hardly be met.
    pub(crate) fn some_attempt(&mut self) -> Option<(ProjectUid, AgentUid)> {
        let states = [At::Pending, At::Offered, At::Offered, At::Running, At::Cancelling, At::Cancelling];
        let at = *self.rng.pick(&states)?;
        let live = self.coordinator.store.live.values();
        let found: Vec<(ProjectUid, AgentUid)> = live
            .filter_map(|record| if let Record::Attempt(one) = record { Some(one) } else { None })
            .filter(|attempt| At::from(&attempt.state) == at)
            .map(|attempt| (attempt.project, attempt.agent))
            .collect();
        self.rng.pick(&found).copied()
    }

    fn some_project(&mut self) -> Option<ProjectUid> {
        let hunted = if self.rng.chance(600) { self.some_attempt() } else { None };
        let all = self.projects();
        hunted.map(|(project, _)| project).or_else(|| self.rng.pick(&all).copied())
    }

    fn some_agent(&mut self) -> Option<AgentUid> {
        let hunted = if self.rng.chance(600) { self.some_attempt() } else { None };
        let agents: Vec<AgentUid> = self.hosts.iter().filter_map(|host| host.uid).collect();
        hunted.map(|(_, agent)| agent).or_else(|| self.rng.pick(&agents).copied())
    }

    pub(crate) fn projects(&self) -> Vec<ProjectUid> {
        let live = self.coordinator.store.live.values();
        live.filter_map(|record| if let Record::Project(one) = record { Some(one.uid) } else { None })
            .collect()
    }

    fn creation(&mut self, validate_only: bool) -> Option<Ask> {
        if self.projects().len() >= PROJECTS_MAX {
            return None;
        }
        self.people.next += 1;
        let name: Name = format!("p{}", self.people.next).parse().ok()?;
        let spec = Box::new(self.spec(&name)?);
        Some(Ask::CreateProject { name, spec, paused: self.rng.chance(50), request: None, validate_only })
    }

    fn update(&mut self, project: ProjectUid) -> Option<Ask> {
        let record = self.coordinator.store.project(project)?.clone();
        let mut spec = record.spec;
        let drawn = self.spec(&record.name)?;
        match self.rng.below(4) {
            0 => spec.schedule = drawn.schedule,
            1 => spec.placement.replicas = drawn.placement.replicas,
            2 => spec.placement = drawn.placement,
            _ => spec = drawn,
        }
        if spec.placement.replicas.iter().any(|replica| replica.agent == spec.placement.origins[0].agent) {
            return None;
        }
        Some(Ask::UpdateProject {
            project,
            spec: Box::new(spec),
            revision: record.revision,
            validate_only: false,
        })
    }

    /// A declaration: an origin, up to four replicas, any kind of schedule.
    fn spec(&mut self, name: &Name) -> Option<ProjectSpec> {
        let mut agents: Vec<AgentUid> =
            self.hosts.iter().filter(|host| !host.retired).filter_map(|host| host.uid).collect();
        let origin =
            if agents.is_empty() { return None } else { agents.remove(self.rng.index(agents.len())) };
        let wanted = self.rng.index(5);
        while agents.len() > wanted {
            agents.remove(self.rng.index(agents.len()));
        }
        let root = if self.rng.chance(700) { "a1" } else { "a2" };
        let host = *self.rng.pick(&["up0", "up1"])?;
        let upstream = Upstream {
            uri: format!("rsync://{host}/{name}"),
            host: host.to_owned(),
            user: String::new(),
            sealed_password: Vec::new(),
        };
        let span = |rng: &mut Prng| rng.chance(700).then(|| Duration::from_secs(rng.between(30, 7_200)));
        Some(ProjectSpec {
            display_name: String::new(),
            labels: BTreeMap::new(),
            upstreams: if self.rng.chance(950) { vec![upstream] } else { Vec::new() },
            destination: format!("{root}:{name}").parse().ok()?,
            schedule: self.schedule()?,
            rsync: RsyncSettings::default(),
            placement: PlacementSettings {
                origins: vec![Target { agent: origin, destination: None }],
                replicas: agents.into_iter().map(|agent| Target { agent, destination: None }).collect(),
                max_parallel: u32::try_from(self.rng.below(3)).ok()?,
                propagation_timeout: span(&mut self.rng),
                drain_timeout: span(&mut self.rng),
            },
            max_delete: self.rng.chance(200).then_some(100),
            retry: RetrySettings {
                attempts: self.rng.chance(500).then(|| u32::try_from(self.rng.between(1, 4)).expect("small")),
                initial_backoff: self.rng.chance(500).then_some(Duration::from_secs(20)),
            },
        })
    }

    fn schedule(&mut self) -> Option<Schedule> {
        let zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];
        let zone = parse_zone(self.rng.pick(&zones)?).ok()?;
        let from = if self.rng.chance(500) { IntervalFrom::End } else { IntervalFrom::Start };
        let cadence = match self.rng.below(5) {
            0 => Cadence::Manual,
            1 => Cadence::Interval { every_seconds: self.rng.between(60, 20_000), from },
            _ => Cadence::Cron(Box::new(self.rng.pick(&CRONS)?.clone())),
        };
        let mut schedule = Schedule::new(cadence, zone);
        if self.rng.chance(300) {
            schedule.jitter_seconds = u32::try_from(self.rng.below(3_000)).ok()?;
        }
        if self.rng.chance(200) {
            schedule.catch_up_window_seconds = Some(self.rng.below(30_000));
        }
        if self.rng.chance(300) {
            schedule.overlap_policy = OverlapPolicy::Skip;
        }
        Some(schedule)
    }

    fn ask(&mut self, mut ask: Ask) {
        let id = self.next_id();
        let mut used = None;
        if let Ask::CreateProject { request, validate_only: false, .. } | Ask::Run { request, .. } = &mut ask
        {
            if !self.calm && self.rng.chance(600) {
                let key = format!("request {id}");
                *request = Some(RequestKey { key: key.clone(), payload: key.clone() });
                used = Some(key);
            }
        }
        match &ask {
            Ask::DeleteProject { project, .. } => {
                self.people.doomed.insert(*project);
            }
            Ask::Freeze { .. } | Ask::Thaw => self.people.frozen = None,
            _ => {}
        }
        if let Some(key) = &used {
            if self.people.used.len() >= REQUESTS_MAX {
                self.people.used.pop_first();
            }
            let at = self.still().wall;
            self.people.used.insert(key.clone(), Used { ask: ask.clone(), answer: None, at });
        }
        self.people.deeds.insert(id, Deed { ask: ask.clone(), request: used });
        let person = Person { by: "ada".to_owned(), ask };
        self.submit(Input::Person(person), Tag::Deed(id));
    }

    /// The same request id once more, as after an answer that got lost.
    fn repeat(&mut self) {
        let keys: Vec<String> = self.people.used.keys().cloned().collect();
        let Some(key) = self.rng.pick(&keys).cloned() else { return };
        let used = &self.people.used[&key];
        let ask = used.ask.clone();
        self.cover.fault(Fault::RequestRepeat);
        let id = self.next_id();
        self.people.deeds.insert(id, Deed { ask: ask.clone(), request: Some(key) });
        self.submit(Input::Person(Person { by: "ada".to_owned(), ask }), Tag::Deed(id));
    }

    pub(crate) fn answered(&mut self, tag: Tag, reply: Reply, promise: Promise) {
        self.people.promise(promise);
        match tag {
            Tag::Nothing => {}
            Tag::Hello(stream) => match reply {
                Reply::Session(session) => self.session_began(stream, session),
                Reply::Refused(refusal) => self.hello_refused(stream, refusal.reason),
                other => self.fail(format!("a hello was answered with {other:?}")),
            },
            Tag::Deed(id) => self.deed_answered(id, reply),
            Tag::Token(host, secret) => self.enroll(host, secret),
            Tag::Enroll(host, secret) => match reply {
                Reply::Agent(uid) => {
                    self.hosts[host].uid = Some(uid);
                    self.dial_soon(host);
                    let input = self.enrolment("somebody-else".parse().expect("a good name"), secret);
                    self.submit(input, Tag::SpentToken);
                }
                _ => self.after(20_000, Event::Joins(host)),
            },
            Tag::SpentToken => {
                if !matches!(reply, Reply::Refused(_)) {
                    self.fail("a spent join token was good once more".to_owned());
                }
            }
        }
    }

    fn hello_refused(&mut self, stream: u64, reason: &str) {
        let Some(host) = self.streams.get(&stream).map(|stream| stream.host) else { return };
        let revoked = reason == "AGENT_REVOKED";
        self.agent_closes(stream);
        if revoked && !self.hosts[host].retired {
            self.retire(host);
        } else if !revoked && reason != "UNKNOWN_AGENT" {
            self.fail(format!("the hello of host {host} was refused: {reason}"));
        } else if !revoked {
            // The store was put back to before this agent joined.
            self.hosts[host].uid = None;
            self.after(1_000, Event::Joins(host));
        }
    }

    /// A revoked machine goes, and another one comes.
    fn retire(&mut self, host: usize) {
        self.hosts[host].retired = true;
        self.checks.kept.retain(|_, kept| kept.host != host);
        self.new_host();
    }

    fn deed_answered(&mut self, id: u64, reply: Reply) {
        let Some(deed) = self.people.deeds.remove(&id) else { return };
        if let Some(used) = deed.request.as_ref().and_then(|key| self.people.used.get_mut(key)) {
            let fresh = self.config.wall_start + i64::try_from(self.time).expect("short") - used.at.0
                + self.coordinator.wall_shift
                < 20 * 3_600_000;
            match (&used.answer, &reply) {
                (Some(old), new) if fresh && !same_answer(old, new) => {
                    let text = format!("request {:?} was answered {old:?} and then {new:?}", deed.request);
                    self.fail(text);
                }
                (None, Reply::Project(_) | Reply::Run { .. }) => used.answer = Some(reply.clone()),
                (Some(_) | None, _) => {}
            }
        }
        match (&deed.ask, &reply) {
            (Ask::RevokeAgent { agent, .. }, Reply::Agent(_)) => {
                if let Some(host) = self.host_of(*agent).filter(|host| !self.hosts[*host].retired) {
                    self.retire(host);
                }
            }
            (Ask::Run { project, .. }, Reply::Run { run, .. }) if self.people.last_asked => {
                self.people.last_runs.insert(*project, *run);
            }
            (Ask::CancelRun { project, run }, Reply::Run { .. }) => self.checks.cancelled(*project, *run),
            (ask, Reply::Refused(refusal)) if refusal.code == RefusalCode::InvalidArgument => {
                // Only what changed meanwhile may make a good request bad: a revoked agent, a taken path.
                let about_agents = |text: &str| text.contains("agent") || text.contains("lies in");
                if !refusal.violations.iter().all(|fault| about_agents(&fault.description)) && !self.calm {
                    let wall_went = refusal.violations.iter().all(|fault| fault.field == "until");
                    if !wall_went {
                        self.fail(format!("{ask:?} was refused: {refusal}"));
                    }
                }
            }
            _ => {}
        }
    }

    pub(crate) fn unanswered(&mut self, tag: Tag) {
        match tag {
            Tag::Nothing | Tag::SpentToken => {}
            Tag::Hello(stream) => self.agent_closes(stream),
            Tag::Deed(id) => {
                self.people.deeds.remove(&id);
            }
            Tag::Token(host, _) | Tag::Enroll(host, _) => self.after(20_000, Event::Joins(host)),
        }
    }

    pub(crate) fn joins(&mut self, host: usize) {
        if self.hosts[host].uid.is_some() {
            return;
        }
        let id = format!("t{}", self.next_id());
        let secret = format!("hash of {id}");
        let names = TokenNames::One(self.hosts[host].name.clone());
        let ttl = Duration::from_secs(600);
        let ask = Ask::CreateJoinToken { id, hash: secret.clone(), names, uses: 1, ttl };
        self.submit(Input::Person(Person { by: "ada".to_owned(), ask }), Tag::Token(host, secret));
    }

    fn enroll(&mut self, host: usize, secret: String) {
        let input = self.enrolment(self.hosts[host].name.clone(), secret.clone());
        self.submit(input, Tag::Enroll(host, secret));
    }

    fn enrolment(&self, name: Name, token_hash: String) -> Input {
        Input::Agent(AgentInput::Enroll {
            token_hash,
            name,
            labels: BTreeMap::new(),
            key_hash: "key".to_owned(),
            serial: "01".to_owned(),
            expires: self.still().wall.plus(Duration::from_secs(86_400 * 30)),
        })
    }
}

/// The calm end: an operator puts everything right, waits, asks for one last run of each project, and waits.
impl World {
    pub(crate) fn operator_looks(&mut self) {
        if self.people.settled {
            return;
        }
        self.after(OPERATOR_MS, Event::Operator);
        if self.coordinator.engine.is_none() || self.put_right() || !self.at_rest() {
            return;
        }
        if !self.people.last_asked {
            self.people.last_asked = true;
            for project in self.projects() {
                let kind = TriggerKind::User;
                self.ask(Ask::Run { project, kind, request: None, traceparent: String::new() });
            }
            return;
        }
        // A planted fault may swallow the answer; the end is then judged without it.
        let asked = self.projects().len() == self.people.last_runs.len() || !self.people.deeds.is_empty();
        if asked || self.planted == Some(Planted::AnswerBeforeCommit) {
            self.people.settled = self.people.deeds.is_empty();
        }
    }

    /// Whether no run and no attempt is open.
    fn at_rest(&self) -> bool {
        let now = self.still();
        let idle = self.coordinator.engine.as_ref().is_some_and(|engine| {
            // A replica may wait for the tree that the last run will make: its origin is a new one.
            engine.attempts().all(|attempt| {
                let why = engine.why(now, attempt.project);
                let of_it =
                    |why: &Why| why.attempt == attempt.id && why.wait.reason == WaitReason::OriginNotServing;
                !self.people.last_asked && attempt.role == Role::Replica && why.iter().any(of_it)
            })
        });
        let closed = self
            .projects()
            .into_iter()
            .all(|project| self.coordinator.store.live_runs(project).all(|run| run.state.is_closed()));
        idle && closed && self.people.deeds.is_empty()
    }

    /// Asks for what is not as it should be; false: nothing was left to do.
    fn put_right(&mut self) -> bool {
        let mut asks = Vec::new();
        let store = &self.coordinator.store;
        let mut revoked = BTreeSet::new();
        for record in store.live.values() {
            match record {
                Record::Fleet(fleet) if fleet.frozen.is_some() => asks.push(Ask::Thaw),
                Record::Agent(agent) if agent.revoked.is_some() => {
                    revoked.insert(agent.uid);
                }
                Record::Agent(agent)
                    if self.host_of(agent.uid).is_none_or(|host| self.hosts[host].retired) =>
                {
                    asks.push(Ask::RevokeAgent { agent: agent.uid, reason: "gone".to_owned() });
                }
                Record::Agent(agent) if agent.draining => {
                    asks.push(Ask::Drain { agent: agent.uid, draining: false });
                }
                _ => {}
            }
        }
        for project in self.projects() {
            asks.extend(self.put_project_right(project, &revoked));
        }
        asks.extend(self.cancel_the_stuck());
        let any = !asks.is_empty();
        for ask in asks {
            self.ask(ask);
        }
        any
    }

    fn put_project_right(&self, uid: ProjectUid, revoked: &BTreeSet<AgentUid>) -> Option<Ask> {
        let record = self.coordinator.store.project(uid)?;
        if record.paused.is_some() {
            return Some(Ask::Resume { project: uid, revision: None });
        }
        let mut spec = record.spec.clone();
        spec.schedule = Schedule::new(Cadence::Manual, spec.schedule.time_zone);
        spec.placement.replicas.retain(|target| !revoked.contains(&target.agent));
        if revoked.contains(&spec.placement.origins[0].agent) {
            let present = self.hosts.iter().filter(|host| !host.retired).filter_map(|host| host.uid);
            let taken =
                |agent: &AgentUid| spec.placement.replicas.iter().any(|target| target.agent == *agent);
            let free = present.into_iter().find(|agent| !revoked.contains(agent) && !taken(agent));
            match free {
                Some(agent) => spec.placement.origins[0].agent = agent,
                None => spec.placement.origins[0] = spec.placement.replicas.pop()?,
            }
        }
        (spec != record.spec).then(|| Ask::UpdateProject {
            project: uid,
            spec: Box::new(spec),
            revision: record.revision,
            validate_only: false,
        })
    }

    /// What an agent took before it lost its state directory ends only when a person says so: the engine
    /// cannot know whether it still goes on.
    fn cancel_the_stuck(&self) -> Vec<Ask> {
        let live = self.coordinator.store.live.values();
        let attempts =
            live.filter_map(|record| if let Record::Attempt(one) = record { Some(one) } else { None });
        let mut asks = Vec::new();
        for attempt in attempts {
            let (AttemptState::Offered { epoch, .. } | AttemptState::Running { epoch, .. }) = attempt.state
            else {
                continue;
            };
            let stored = self.coordinator.store.live.get(&Key::Agent(attempt.agent));
            let host = self.host_of(attempt.agent);
            let other_state = match (stored, host) {
                (Some(Record::Agent(agent)), Some(host)) => {
                    self.hosts[host].welcomed
                        && agent.state_id != self.hosts[host].state_id
                        && !self.hosts[host].holds((attempt.id, epoch))
                }
                _ => false,
            };
            if other_state {
                asks.push(Ask::CancelRun { project: attempt.project, run: attempt.id.run });
            }
        }
        asks
    }

    /// What still is not done, in words.
    pub(crate) fn unsettled(&mut self) -> String {
        let now = self.still();
        let mut text = format!("people wait for {} answers", self.people.deeds.len());
        let Some(engine) = &self.coordinator.engine else { return text };
        for project in engine.projects_by_name() {
            let uid = project.record.uid;
            for run in self.coordinator.store.live_runs(uid).filter(|run| !run.state.is_closed()) {
                text += &format!("\n  run {run:?}");
            }
            for why in engine.why(now, uid) {
                text += &format!("\n  waits {why:?}");
            }
        }
        for attempt in engine.attempts() {
            text += &format!("\n  {attempt:?}");
        }
        text
    }
}

/// A repeated run request may only differ in its notes.
fn same_answer(old: &Reply, new: &Reply) -> bool {
    match (old, new) {
        (
            Reply::Run { project, run, coalesced, .. },
            Reply::Run { project: other_project, run: other_run, coalesced: other_coalesced, .. },
        ) => (project, run, coalesced) == (other_project, other_run, other_coalesced),
        (old, new) => old == new,
    }
}
