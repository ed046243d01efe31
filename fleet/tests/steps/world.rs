//! An engine with agents and projects, driven by hand. Agents answer by themselves only that they serve what they were
//! told to; everything else a test says for them.

use std::{collections::BTreeMap, time::Duration};

use fleet::{
    Engine,
    agent::{AgentFacts, Root, TokenNames},
    defaults::Limits,
    engine::WaitReason,
    id::{AgentUid, ProjectUid, RunId},
    input::{AgentInput, Ask, Export, Held, Input, Message, Offer, Person, Reply},
    outcome::{ExitClass, Outcome, Stats},
    placement::PlacementRecord,
    project::{
        GuardSettings, Pick, PlacementSettings, ProjectRecord, ProjectSpec, Replicas, RetrySettings,
        RsyncSettings, Target, Upstream,
    },
    refusal::Refusal,
    run::{TriggerKind, Wish},
    schedule::{Cadence, Schedule, parse_zone},
    time::{Mono, Now, Wall},
    trash::TrashReport,
};

pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const GIB: u64 = 1 << 30;
/// When every world begins.
pub(super) const BEGIN: Wall = Wall(1_800_000_000_000);

/// An engine, what it has sent, and the time.
pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) now: Now,
    /// Offers that nobody has taken yet, the oldest first.
    pub(super) offers: Vec<Offer>,
    /// What each agent was last told to serve of each project; `None`: nothing any more.
    pub(super) exports: BTreeMap<(AgentUid, ProjectUid), Option<Export>>,
    /// Everything else that was sent.
    pub(super) said: Vec<(AgentUid, Message)>,
    /// What each agent has in its trash, as its hello tells.
    pub(super) trash: BTreeMap<AgentUid, TrashReport>,
    /// Agents do not say by themselves that they serve what they were told to.
    pub(super) mute: bool,
    connections: u64,
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            engine: Engine::new(Limits { upstream_spacing: Duration::ZERO, ..Limits::default() }),
            now: Now { wall: BEGIN, mono: Mono(1_000), entropy: 7 },
            offers: Vec::new(),
            exports: BTreeMap::new(),
            said: Vec::new(),
            trash: BTreeMap::new(),
            mute: false,
            connections: 0,
        };
        world.put(Input::Start { at_least: 0 });
        world
    }

    /// Decides, and makes it so.
    pub(super) fn put(&mut self, input: Input) -> Reply {
        self.now.entropy += 1;
        let decision = self.engine.decide(self.now, input);
        self.engine.apply(self.now, &decision.changes);
        for send in decision.sends {
            match send.message {
                Message::Offer(offer) => self.offers.push(*offer),
                Message::Exports { serial, exports, withdrawn, .. } => {
                    let told = exports.into_iter().map(|one| (one.project, Some(one)));
                    let withdrawn = withdrawn.into_iter().map(|project| (project, None));
                    self.exports.extend(
                        told.chain(withdrawn).map(|(project, export)| ((send.agent, project), export)),
                    );
                    if !self.mute {
                        self.exporting(send.agent, serial);
                    }
                }
                message => self.said.push((send.agent, message)),
            }
        }
        decision.reply
    }

    /// The agent serves what it was told to up to then.
    pub(super) fn exporting(&mut self, agent: AgentUid, serial: u64) {
        let session = self.engine.session(agent).unwrap().epoch;
        let (serve_uri, fault, not_served) = (serve_uri(agent), String::new(), Vec::new());
        self.put(Input::Agent(AgentInput::Exporting {
            agent,
            session,
            serial,
            serve_uri,
            fault,
            not_served,
        }));
    }

    pub(super) fn ask(&mut self, ask: Ask) -> Reply {
        self.put(Input::Person(Person { by: "maria".to_owned(), ask }))
    }

    /// Everything that is due now; and the engine is what its records say.
    pub(super) fn settle(&mut self) {
        while self.engine.next_deadline(self.now) == Some(Duration::ZERO) {
            self.put(Input::Tick);
        }
        let rebuilt = Engine::recover(self.engine.limits().clone(), self.now, self.engine.records());
        assert!(rebuilt.records().eq(self.engine.records()));
    }

    /// Lets time pass, and everything that is due happen.
    pub(super) fn pass(&mut self, span: Duration) {
        self.now.wall = self.now.wall.plus(span);
        self.now.mono = self.now.mono.plus(span);
        self.settle();
    }

    /// Enrols an agent, which does not come yet.
    pub(super) fn enroll(&mut self, name: &str, pairs: &[(&str, &str)]) -> AgentUid {
        let (id, hash) = (format!("t-{name}"), format!("h-{name}"));
        let names = TokenNames::One(name.parse().unwrap());
        self.ask(Ask::CreateJoinToken {
            id,
            hash: hash.clone(),
            names,
            uses: 1,
            ttl: HOUR,
            networks: Vec::new(),
        });
        let enroll = AgentInput::Enroll {
            token_hash: hash,
            name: name.parse().unwrap(),
            labels: labels(pairs),
            key_hash: name.to_owned(),
            serial: "01".to_owned(),
            expires: self.now.wall.plus(900 * HOUR),
            from: None,
        };
        let Reply::Agent(agent) = self.put(Input::Agent(enroll)) else { panic!("not enrolled") };
        agent
    }

    /// An agent that is here, with the root `a1`.
    pub(super) fn agent(&mut self, name: &str, pairs: &[(&str, &str)]) -> AgentUid {
        let agent = self.enroll(name, pairs);
        self.hello(agent, vec![root("a1", 512)], Vec::new());
        agent
    }

    /// The agent comes, or comes back, on a connection of its own.
    pub(super) fn hello(&mut self, agent: AgentUid, roots: Vec<Root>, attempts: Vec<Held>) {
        self.connections += 1;
        let trash = Some(self.trash.get(&agent).cloned().unwrap_or_default());
        let serve_uri = serve_uri(agent);
        let facts = AgentFacts { slots: 4, roots, serve_uri, trash, ..AgentFacts::default() };
        let reply = self.put(Input::Agent(AgentInput::Hello {
            agent,
            state_id: format!("s{}", agent.0),
            highest_term: 0,
            connection: self.connections,
            facts,
            attempts,
        }));
        assert!(!matches!(reply, Reply::Refused(_)), "{reply:?}");
        self.settle();
    }

    pub(super) fn gone(&mut self, agent: AgentUid) {
        let session = self.engine.session(agent).unwrap().epoch;
        self.put(Input::Agent(AgentInput::Gone { agent, session }));
        self.settle();
    }

    pub(super) fn declare(&mut self, name: &str, spec: ProjectSpec) -> Result<ProjectUid, Refusal> {
        let name = name.parse().unwrap();
        let (spec, paused, request, validate_only) = (Box::new(spec), false, None, false);
        let reply = self.ask(Ask::CreateProject { name, spec, paused, request, validate_only });
        self.settle();
        match reply {
            Reply::Project(project) => Ok(project),
            Reply::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// Declares the project otherwise.
    pub(super) fn edit(&mut self, project: ProjectUid, change: impl FnOnce(&mut ProjectSpec)) {
        let record = self.record(project);
        let (mut spec, revision) = (Box::new(record.spec.clone()), record.revision);
        change(&mut spec);
        let reply = self.ask(Ask::UpdateProject { project, spec, revision, validate_only: false });
        assert_eq!(reply, Reply::Project(project));
        self.settle();
    }

    /// A run that a person wants.
    pub(super) fn run(&mut self, project: ProjectUid) -> RunId {
        let Reply::Run { run, .. } = self.wish(project, Wish::default()) else { panic!("no run") };
        self.settle();
        run
    }

    pub(super) fn wish(&mut self, project: ProjectUid, wish: Wish) -> Reply {
        let (kind, traceparent) = (TriggerKind::User, String::new());
        self.ask(Ask::Run { project, kind, wish, request: None, traceparent })
    }

    /// A run of which every attempt ends so.
    pub(super) fn synced(&mut self, project: ProjectUid, outcome: &Outcome) -> RunId {
        let run = self.run(project);
        while !self.offers.is_empty() {
            let offer = self.offered();
            self.end(&offer, outcome.clone());
        }
        run
    }

    /// The oldest offer, taken by its agent.
    pub(super) fn offered(&mut self) -> Offer {
        self.settle();
        let offer = self.offers.remove(0);
        self.accept(&offer);
        offer
    }

    /// The agent that an attempt is on.
    pub(super) fn on(&self, offer: &Offer) -> AgentUid {
        self.engine.attempt(offer.attempt).unwrap().agent
    }

    pub(super) fn accept(&mut self, offer: &Offer) {
        let (agent, attempt, epoch) = (self.on(offer), offer.attempt, offer.epoch);
        self.put(Input::Agent(AgentInput::Accepted { agent, attempt, epoch }));
    }

    /// The agent tells how an attempt ended; what follows from that is not done yet.
    pub(super) fn report(&mut self, offer: &Offer, outcome: Outcome) {
        let (agent, attempt, epoch) = (self.on(offer), offer.attempt, offer.epoch);
        self.put(Input::Agent(AgentInput::Ended { agent, attempt, epoch, outcome }));
    }

    pub(super) fn end(&mut self, offer: &Offer, outcome: Outcome) {
        self.report(offer, outcome);
        self.settle();
    }

    pub(super) fn record(&self, project: ProjectUid) -> &ProjectRecord {
        &self.engine.project(project).unwrap().record
    }

    pub(super) fn placement(&self, project: ProjectUid, agent: AgentUid) -> Option<&PlacementRecord> {
        self.engine.project(project).unwrap().placements.get(&agent)
    }

    /// The version that the project serves.
    pub(super) fn tree(&self, project: ProjectUid) -> Option<RunId> {
        self.engine.project(project).unwrap().state.tree
    }

    /// What a run's attempts wait for.
    pub(super) fn waits(&self, project: ProjectUid, run: RunId) -> Vec<WaitReason> {
        let whys = self.engine.why(self.now, project).into_iter();
        whys.filter(|why| why.attempt.run == run).map(|why| why.wait.reason).collect()
    }

    /// Who may pull the project's tree from the agent, as it was last told.
    pub(super) fn may_pull(&self, from: AgentUid, project: ProjectUid) -> Vec<AgentUid> {
        let told = self.exports.get(&(from, project)).and_then(Option::as_ref);
        let mut who: Vec<AgentUid> =
            told.iter().flat_map(|export| &export.pairs).map(|pair| pair.replica).collect();
        who.sort_unstable();
        who.dedup();
        who
    }
}

fn serve_uri(agent: AgentUid) -> String {
    format!("rsync://h{}", agent.0)
}

/// A root with this much free, GiB, on a volume of 4,000.
pub(super) fn root(name: &str, free_gib: u64) -> Root {
    Root {
        name: name.to_owned(),
        path: format!("/srv/{name}"),
        total_bytes: 4_000 * GIB,
        free_bytes: free_gib * GIB,
        total_inodes: 0,
        free_inodes: 0,
    }
}

pub(super) fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn target(agent: AgentUid) -> Target {
    Target { agent, destination: None }
}

/// A replica by its agent.
pub(super) fn named(agent: AgentUid) -> Replicas {
    Replicas { pick: Pick::Agent(agent), destination: None }
}

/// Replicas by a label.
pub(super) fn selected(key: &str, value: &str) -> Replicas {
    Replicas { pick: Pick::Labels(labels(&[(key, value)])), destination: None }
}

/// `rsync://HOST/debian/`, for anybody.
pub(super) fn upstream(host: &str) -> Upstream {
    Upstream {
        uri: format!("rsync://{host}/debian/"),
        host: host.to_owned(),
        user: String::new(),
        sealed_password: Vec::new(),
    }
}

/// A project that is run by hand, from one upstream.
pub(super) fn spec(destination: &str, origins: &[AgentUid], replicas: Vec<Replicas>) -> ProjectSpec {
    ProjectSpec {
        display_name: String::new(),
        owner: None,
        labels: BTreeMap::new(),
        upstreams: vec![upstream("up")],
        destination: destination.parse().unwrap(),
        schedule: Schedule::new(Cadence::Manual, parse_zone("UTC").unwrap()),
        rsync: RsyncSettings::default(),
        placement: PlacementSettings {
            origins: origins.iter().copied().map(target).collect(),
            replicas,
            ..PlacementSettings::default()
        },
        guard: GuardSettings::default(),
        marker: None,
        partial_is_success: String::new(),
        link: None,
        after: Vec::new(),
        retry: RetrySettings::default(),
    }
}

/// An outcome with the figures of a tree of 10,000 files.
pub(super) fn outcome(class: ExitClass, total_bytes: u64) -> Outcome {
    let stats = Some(Stats { files: 10_000, total_bytes, ..Stats::default() });
    Outcome { stats, ..Outcome::of_class(class) }
}

/// It went well.
pub(super) fn ok() -> Outcome {
    outcome(ExitClass::Ok, 10_000_000)
}
