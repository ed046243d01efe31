//! What people may think of: projects of all kinds, and everything that can be asked of one, mostly of one
//! with an attempt in a drawn state.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use fleet::{
    agent::AgentCaps,
    engine::Project,
    id::{AgentUid, Name, ProjectUid, RunId},
    input::{AgentReplacement, Ask, Input},
    marker::{Marker, MarkerKind},
    project::{
        GuardSettings, Pick, PlacementSettings, ProjectSpec, Replicas, RetrySettings, RsyncSettings, Target,
        Upstream,
    },
    record::Record,
    run::{TriggerKind, Wish},
    schedule::{Cadence, Cron, IntervalFrom, Named, OverlapPolicy, Schedule, parse_zone},
};

use crate::{
    cover::At,
    prng::Prng,
    shell::Tag,
    world::{UPSTREAMS, World},
};

/// Projects at a time.
const PROJECTS_MAX: usize = 6;
/// Agents at a time whose hosts never come.
const DECLARED_MAX: usize = 2;
/// Widest spread, in seconds: what is wider never fires here.
const SPREAD_MAX: u64 = 8_000;
/// Schedules to draw from, with the shortest time between two of their fires, in seconds.
static CRONS: LazyLock<Vec<(Cron, u64)>> = LazyLock::new(|| {
    let texts = [
        ("minute=*/20", 1_200),
        ("minute=7,37", 1_800),
        ("hour=*/2 minute=30", 7_200),
        ("hour=2 minute=30", 86_400),
        ("minute=*", 60),
    ];
    let parse = |text: &str| Cron::parse(text.parse().expect("good fields")).expect("a good cron");
    texts.into_iter().map(|(text, period)| (parse(text), period)).collect()
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
    Upstream,
    Approve,
    Promote,
    Reseed,
    Replace,
    Move,
    Switch,
    Rename,
    Archive,
    Unarchive,
    SetAgent,
    Declare,
    Apply,
    Token,
}

const DEEDS: [(Do, u64); 29] = [
    (Do::Create, 40),
    (Do::Update, 24),
    (Do::Delete, 14),
    (Do::Run, 90),
    (Do::Cancel, 84),
    (Do::Pause, 8),
    (Do::Resume, 10),
    (Do::Freeze, 1),
    (Do::Thaw, 4),
    (Do::Drain, 3),
    (Do::Undrain, 5),
    (Do::Upstream, 6),
    (Do::Revoke, 8),
    (Do::Sweep, 4),
    (Do::Repeat, 14),
    (Do::Check, 3),
    (Do::Approve, 60),
    (Do::Promote, 16),
    (Do::Reseed, 60),
    (Do::Replace, 14),
    (Do::Move, 70),
    (Do::Switch, 24),
    (Do::Rename, 5),
    (Do::Archive, 3),
    (Do::Unarchive, 12),
    (Do::SetAgent, 4),
    (Do::Declare, 1),
    (Do::Apply, 16),
    (Do::Token, 8),
];

/// How often each deed is done in one seed's world.
pub(crate) fn draw_weights(rng: &mut Prng) -> Vec<u64> {
    let keep = |rng: &mut Prng, (deed, weight): (Do, u64)| {
        let always = matches!(deed, Do::Create | Do::Run | Do::Thaw | Do::Resume | Do::Unarchive);
        if always || rng.chance(750) { weight } else { 0 }
    };
    DEEDS.into_iter().map(|deed| keep(rng, deed)).collect()
}

/// What a project was called at first: what hosts do for it goes by that, whatever it is called now.
pub(crate) fn base_of(name: &Name) -> Name {
    let base = name.as_str().rsplit('-').next().unwrap_or_default();
    base.parse().expect("a part of a good name")
}

/// Whether a project takes a partial transfer for a success: some do, and always.
pub(crate) fn passes_partial(project: &Name) -> bool {
    project.as_str().ends_with(['3', '8'])
}

/// The marker of a project: most have one, and always the same.
fn marker_of(project: &Name) -> Option<Marker> {
    let marked = !project.as_str().ends_with(['2', '5', '8']);
    marked.then(|| Marker { kind: MarkerKind::UnixTime, path: "lastupdate".to_owned() })
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
        let deeds = [
            Do::Cancel,
            Do::Cancel,
            Do::Cancel,
            Do::Cancel,
            Do::Delete,
            Do::Delete,
            Do::Update,
            Do::Revoke,
            Do::Revoke,
        ];
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
                let project = project?;
                // Every second one, without a draw that would make another history of each seed.
                let (cancel_running, tree_to_trash) = (self.rng.chance(800), project.0 % 2 == 1);
                Ask::DeleteProject { project, revision: None, cancel_running, tree_to_trash }
            }
            Do::Run => return self.trigger(project?),
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
            Do::Promote => {
                let project = project?;
                let placed = self.coordinator.engine.as_ref()?.project(project)?.placements.keys().copied();
                let placed: Vec<AgentUid> = placed.collect();
                let agent = *self.rng.pick(&placed)?;
                Ask::Promote { project, agent, revision: None, force: self.rng.chance(300) }
            }
            Do::Move => return self.relocation(),
            Do::Reseed => return self.reseed(),
            Do::Switch => {
                let project = project?;
                let declared = &self.coordinator.store.project(project)?.spec.upstreams;
                let uri = self.rng.pick(declared)?.uri.clone();
                Ask::SwitchUpstream { project, uri, revision: None }
            }
            Do::Rename => {
                let project = project?;
                self.people.next += 1;
                let base = base_of(&self.coordinator.store.project(project)?.name);
                let name = format!("r{}-{base}", self.people.next).parse().ok()?;
                Ask::Rename { project, name, revision: None }
            }
            Do::Archive => Ask::Archive { project: project?, reason: "gone".to_owned(), revision: None },
            Do::Unarchive => Ask::Unarchive { project: project?, revision: None },
            Do::Resume => Ask::Resume { project: project?, revision: None },
            Do::Freeze => Ask::Freeze { reason: "power".to_owned() },
            Do::Thaw => Ask::Thaw,
            Do::Drain => Ask::Drain { agent: agent?, draining: true },
            Do::Undrain => Ask::Drain { agent: agent?, draining: false },
            Do::Revoke => Ask::RevokeAgent { agent: agent?, reason: "stolen".to_owned() },
            Do::Upstream => Ask::SetUpstream {
                host: (*self.rng.pick(&UPSTREAMS)?).to_owned(),
                slots: self.rng.chance(700).then(|| u32::try_from(self.rng.between(1, 4)).expect("small")),
                spacing: self.rng.chance(500).then(|| Duration::from_secs(self.rng.below(60))),
                revision: None,
            },
            Do::Replace => return self.replacement(agent?),
            Do::SetAgent => return self.agent_set(agent?),
            Do::Declare => return Some(self.agent_declared()),
            Do::Apply => return self.plan(),
            Do::Token => return self.token(project?),
            Do::Approve => return self.approval(),
            Do::Sweep | Do::Repeat => return None,
        })
    }

    fn trigger(&mut self, project: ProjectUid) -> Option<Ask> {
        let kinds = [TriggerKind::User, TriggerKind::User, TriggerKind::Push, TriggerKind::UpstreamChange];
        let kind = *self.rng.pick(&kinds)?;
        if kind == TriggerKind::Push && self.rng.chance(700) {
            return Some(self.push(project));
        }
        let (wish, request, traceparent) = (self.wish(), None, String::new());
        Some(Ask::Run { project, kind, wish, request, traceparent })
    }

    fn wish(&mut self) -> Wish {
        Wish {
            dry_run: self.rng.chance(150),
            reclaim: self.rng.chance(100),
            allow_deletes: self.rng.chance(100).then(|| self.rng.below(5_000)),
            ..Wish::default()
        }
    }

    /// Caps that hold somewhat more or less than what agents and fleet allow.
    fn draw_caps(&mut self) -> AgentCaps {
        let mut number = |most| {
            let drawn = self.rng.between(1, most);
            self.rng.chance(300).then_some(drawn)
        };
        let (running, serving, bandwidth_limit_kib) = (number(5), number(4), number(1_000));
        let small = |number: Option<u64>| number.map(|number| u32::try_from(number).expect("small"));
        AgentCaps { max_running: small(running), max_serving: small(serving), bandwidth_limit_kib }
    }

    /// Other labels or other caps; mostly one of the two.
    fn agent_set(&mut self, agent: AgentUid) -> Option<Ask> {
        let engine = self.coordinator.engine.as_ref()?;
        let known = engine.agent(agent)?;
        let (mut labels, mut caps, revision) = (known.labels.clone(), known.caps, known.revision);
        if self.rng.chance(600) {
            labels = self.draw_labels();
        }
        if self.rng.chance(600) {
            caps = self.draw_caps();
        }
        Some(Ask::UpdateAgent { agent, labels, caps, revision, validate_only: false })
    }

    /// An agent whose host never comes; or one of them is removed again.
    fn agent_declared(&mut self) -> Ask {
        let live = self.coordinator.store.live.values();
        let declared = live.filter_map(|record| match record {
            Record::Agent(agent) if agent.is_declared_only() => Some(agent.uid),
            _ => None,
        });
        let declared: Vec<AgentUid> = declared.collect();
        match self.rng.pick(&declared) {
            Some(agent) if declared.len() >= DECLARED_MAX => Ask::DeleteAgent { agent: *agent },
            _ => {
                let name = format!("declared{}", self.next_id()).parse().expect("a good name");
                let (labels, caps) = (self.draw_labels(), self.draw_caps());
                Ask::CreateAgent { name, labels, caps, request: None, validate_only: false }
            }
        }
    }

    /// Mostly of a project that can spare the tree of one of its agents, and of another agent that has it.
    fn reseed(&mut self) -> Option<Ask> {
        let engine = self.coordinator.engine.as_ref()?;
        let all: Vec<(ProjectUid, Vec<AgentUid>, Vec<AgentUid>)> = engine
            .projects_by_name()
            .map(|project| {
                let tree = project.state.tree;
                let have = project.placements.values().filter(|one| one.have_tree == tree && tree.is_some());
                let have = have.filter(|one| engine.session(one.agent).is_some());
                let have = have.map(|one| one.agent).collect();
                (project.record.uid, project.placements.keys().copied().collect(), have)
            })
            .filter(|(_, placed, have): &(_, Vec<_>, Vec<_>)| placed.len() > 1 && !have.is_empty())
            .collect();
        let (project, placed, have) = self.rng.pick(&all)?.clone();
        let good = self.rng.chance(900);
        let from = *self.rng.pick(if good { &have } else { &placed })?;
        let agent = *self.rng.pick(&placed)?;
        Some(Ask::Reseed { project, agent, from, revision: None, traceparent: String::new() })
    }

    /// Mostly by an agent that is here and of none of the old one's projects.
    fn replacement(&mut self, old: AgentUid) -> Option<Ask> {
        let engine = self.coordinator.engine.as_ref()?;
        let of = |project: &&Project| project.placements.contains_key(&old);
        let own: Vec<&Project> = engine.projects_by_name().filter(of).collect();
        let is_free = |agent: &AgentUid| {
            *agent != old
                && engine.session(*agent).is_some()
                && engine.agent(*agent).is_some_and(|record| !record.draining && record.revoked.is_none())
                && own.iter().all(|project| !project.placements.contains_key(agent))
        };
        let agents: Vec<AgentUid> = self.hosts.iter().filter_map(|host| host.uid).collect();
        let free: Vec<AgentUid> = agents.iter().copied().filter(is_free).collect();
        let any = free.is_empty() || self.rng.chance(100);
        let new = *self.rng.pick(if any { &agents } else { &free })?;
        let replacement = AgentReplacement {
            old,
            new,
            reseed: self.rng.chance(700),
            revoke: self.rng.chance(200).then(|| "dead".to_owned()),
            validate_only: self.rng.chance(100),
        };
        Some(Ask::ReplaceAgent { replacement, traceparent: String::new() })
    }

    /// Mostly of a tree that is there, to a place of its own; sometimes to where another one may be.
    fn relocation(&mut self) -> Option<Ask> {
        let engine = self.coordinator.engine.as_ref()?;
        let all: Vec<(ProjectUid, String, AgentUid)> = engine
            .projects_by_name()
            .flat_map(|project| {
                let have = project.placements.values().filter(|one| one.have_tree.is_some());
                have.map(|one| (project.record.uid, base_of(&project.record.name).to_string(), one.agent))
            })
            .collect();
        let (project, name, agent) = self.rng.pick(&all)?.clone();
        let other = self.rng.between(1, self.people.next.max(1));
        let paths = [name.clone(), format!("{name}-moved"), format!("{name}/in"), format!("p{other}")];
        let path = if self.rng.chance(900) { &paths[self.rng.index(2)] } else { self.rng.pick(&paths)? };
        let to = format!("{}:{path}", self.rng.pick(&["a1", "a2"])?).parse().ok()?;
        Some(Ask::Move { project, agent, to, revision: None, traceparent: String::new() })
    }

    /// Mostly of the newest hold of some project, sometimes of any other run.
    fn approval(&mut self) -> Option<Ask> {
        let live = self.coordinator.store.live.values();
        let held = live.filter_map(|record| match record {
            Record::Placement(one) => Some((one.project, one.hold.as_ref()?.newest.run)),
            _ => None,
        });
        let held: Vec<(ProjectUid, RunId)> = held.collect();
        let (project, newest) = *self.rng.pick(&held)?;
        let stale = self.rng.chance(200);
        let runs: Vec<RunId> = self.coordinator.store.live_runs(project).map(|run| run.id).collect();
        let run = if stale { *self.rng.pick(&runs)? } else { newest };
        let (reason, traceparent) = ("seen".to_owned(), String::new());
        Some(Ask::Approve { project, run, reason, saw: None, traceparent })
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

    pub(super) fn creation(&mut self, validate_only: bool) -> Option<Ask> {
        if self.projects().len() >= PROJECTS_MAX {
            return None;
        }
        self.people.next += 1;
        let name: Name = format!("p{}", self.people.next).parse().ok()?;
        let spec = Box::new(self.spec(&name)?);
        Some(Ask::CreateProject { name, spec, paused: self.rng.chance(50), request: None, validate_only })
    }

    pub(super) fn update(&mut self, project: ProjectUid) -> Option<Ask> {
        let record = self.coordinator.store.project(project)?.clone();
        let mut spec = record.spec;
        let drawn = self.spec(&base_of(&record.name))?;
        match self.rng.below(6) {
            5 => spec.after = drawn.after,
            4 => spec.upstreams = drawn.upstreams,
            0 => spec.schedule = drawn.schedule,
            1 => spec.placement.replicas = drawn.placement.replicas,
            2 => spec.placement = drawn.placement,
            _ => spec = drawn,
        }
        let origins: Vec<Pick> =
            spec.placement.origins.iter().map(|origin| Pick::Agent(origin.agent)).collect();
        if spec.placement.replicas.iter().any(|one| origins.contains(&one.pick)) {
            return None;
        }
        Some(Ask::UpdateProject {
            project,
            spec: Box::new(spec),
            revision: record.revision,
            validate_only: false,
        })
    }

    /// Selected by labels, sometimes; and sometimes where another project's tree is, on agents that join later.
    fn selected(&mut self) -> Option<Replicas> {
        if !self.rng.chance(500) {
            return None;
        }
        let (key, value) = *self.rng.pick(&[("role", "edge"), ("site", "north")])?;
        let labels = [(key.to_owned(), value.to_owned())].into();
        let other = self.rng.between(1, self.people.next.max(1));
        let taken = self.rng.chance(100).then(|| format!("a1:p{other}/in").parse().ok()).flatten();
        Some(Replicas { pick: Pick::Labels(labels), destination: taken })
    }

    /// A declaration: an origin, up to two that stand by, some replicas, any kind of schedule.
    fn spec(&mut self, name: &Name) -> Option<ProjectSpec> {
        let mut agents: Vec<AgentUid> =
            self.hosts.iter().filter(|host| !host.retired).filter_map(|host| host.uid).collect();
        let origin =
            if agents.is_empty() { return None } else { agents.remove(self.rng.index(agents.len())) };
        let wanted = self.rng.index(5);
        while agents.len() > wanted {
            agents.remove(self.rng.index(agents.len()));
        }
        let standby = self.rng.index(3).min(agents.len());
        let standbys: Vec<AgentUid> = agents.drain(..standby).collect();
        let selected = self.selected();
        let root = if self.rng.chance(700) { "a1" } else { "a2" };
        let span = |rng: &mut Prng| rng.chance(800).then(|| Duration::from_secs(rng.between(1, 1_200)));
        Some(ProjectSpec {
            display_name: String::new(),
            owner: None,
            labels: BTreeMap::new(),
            upstreams: self.upstreams(name),
            destination: format!("{root}:{name}").parse().ok()?,
            schedule: self.schedule()?,
            rsync: RsyncSettings { bandwidth_limit_kib: self.bandwidth(), ..RsyncSettings::default() },
            placement: PlacementSettings {
                origins: std::iter::once(origin)
                    .chain(standbys)
                    .map(|agent| Target { agent, destination: None })
                    .collect(),
                replicas: agents
                    .into_iter()
                    .map(|agent| Replicas { pick: Pick::Agent(agent), destination: None })
                    .chain(selected)
                    .collect(),
                max_parallel: u32::try_from(self.rng.below(3)).ok()?,
                propagation_timeout: span(&mut self.rng),
                drain_timeout: span(&mut self.rng),
            },
            guard: GuardSettings {
                max_delete: self.rng.chance(200).then_some(100),
                shrink_percent: self.rng.chance(200).then_some(if self.rng.chance(300) { 100 } else { 10 }),
                ..GuardSettings::default()
            },
            marker: marker_of(name),
            partial_is_success: if passes_partial(name) { "known".to_owned() } else { String::new() },
            link: None,
            after: self.before(),
            retry: RetrySettings {
                attempts: self.rng.chance(500).then(|| u32::try_from(self.rng.between(1, 4)).expect("small")),
                initial_backoff: self.rng.chance(500).then_some(Duration::from_secs(20)),
            },
        })
    }

    /// Mostly none.
    fn bandwidth(&mut self) -> u64 {
        let drawn = self.rng.between(1, 1_000);
        if self.rng.chance(300) { drawn } else { 0 }
    }

    /// Mostly no project to run after; sometimes one or two, which may be a circle.
    fn before(&mut self) -> Vec<ProjectUid> {
        let mut all = self.projects();
        let wanted = if self.rng.chance(350) { 1 + self.rng.index(2) } else { 0 };
        let mut drawn = Vec::new();
        while drawn.len() < wanted && !all.is_empty() {
            drawn.push(all.remove(self.rng.index(all.len())));
        }
        drawn
    }

    /// None, or some in any order, two of them on one host.
    fn upstreams(&mut self, name: &Name) -> Vec<Upstream> {
        let other = [(UPSTREAMS[0], "other")];
        let mut left: Vec<(&str, &str)> =
            UPSTREAMS.into_iter().map(|host| (host, name.as_str())).chain(other).collect();
        let wanted = if self.rng.chance(880) { 1 + self.rng.index(left.len()) } else { 0 };
        let mut drawn = Vec::new();
        while drawn.len() < wanted {
            let (host, module) = left.remove(self.rng.index(left.len()));
            drawn.push(Upstream {
                uri: format!("rsync://{host}/{module}"),
                host: host.to_owned(),
                user: String::new(),
                sealed_password: Vec::new(),
            });
        }
        drawn
    }

    fn schedule(&mut self) -> Option<Schedule> {
        let zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];
        let zone = parse_zone(self.rng.pick(&zones)?).ok()?;
        let from = if self.rng.chance(500) { IntervalFrom::End } else { IntervalFrom::Start };
        let named = if self.rng.chance(800) { Named::Hourly } else { Named::Daily };
        let every_seconds = self.rng.between(60, 20_000);
        let (cadence, period) = match self.rng.below(6) {
            0 => (Cadence::Manual, 0),
            1 => (Cadence::Interval { every_seconds, from }, every_seconds),
            2 => (Cadence::Cron(Box::new(named.cron())), named.period_seconds()),
            _ => {
                let (cron, period) = self.rng.pick(&CRONS)?;
                (Cadence::Cron(Box::new(cron.clone())), *period)
            }
        };
        let mut schedule = Schedule::new(cadence, zone);
        // The shell lets no spread be wider than the period.
        if self.rng.chance(300) {
            schedule.spread_seconds = Some(self.rng.between(0, period.min(SPREAD_MAX)));
        }
        if self.rng.chance(300) {
            schedule.jitter_seconds = u32::try_from(self.rng.below(3_000)).ok()?;
        }
        if self.rng.chance(200) {
            schedule.catch_up_window_seconds = Some(self.rng.below(30_000));
        }
        if self.rng.chance(300) {
            schedule.overlap_policy = OverlapPolicy::Skip;
        }
        if self.rng.chance(100) {
            let windows = ["22:00-06:00", "02:15-02:45", "12:00-13:00 sat,sun", "06:00-22:00 mon,wed,fri"];
            let window = self.rng.pick(&windows)?;
            schedule.windows = vec![window.parse().ok()?];
        }
        Some(schedule)
    }
}
