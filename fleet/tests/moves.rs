//! A tree moved to another place on its agent: an origin, two replicas and their project, told step by step.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use fleet::{
    Engine,
    agent::{AgentFacts, Root, TokenNames},
    attempt::Role,
    defaults::Limits,
    engine::WaitReason,
    id::{AgentUid, ProjectUid, RunId},
    input::{AgentInput, Ask, Export, Held, Input, Message, Offer, Person, Reply},
    outcome::{ExitClass, Outcome, Stats},
    placement::PlacementRecord,
    project::{
        Destination, GuardSettings, Pick, PlacementSettings, ProjectRecord, ProjectSpec, Replicas,
        RetrySettings, RsyncSettings, Target, Upstream,
    },
    refusal::Refusal,
    run::{RunState, TriggerKind, Wish},
    schedule::{Cadence, Schedule, parse_zone},
    time::{Mono, Now, Wall},
};

const HOUR: Duration = Duration::from_secs(3_600);
const GIB: u64 = 1 << 30;
/// Bytes of the tree.
const TREE: u64 = 100 * GIB;

/// An origin `ftp1`, the replicas `edge1` (named) and `edge2` (selected), and a project whose tree all of them have.
struct Fleet {
    engine: Engine,
    now: Now,
    project: ProjectUid,
    origin: AgentUid,
    edge1: AgentUid,
    edge2: AgentUid,
    offers: Vec<Offer>,
    /// What each agent was last told to serve of the project.
    exports: Vec<(AgentUid, Option<Export>)>,
}

fn ok() -> Outcome {
    let stats = Some(Stats { files: 10_000, total_bytes: TREE, ..Stats::default() });
    Outcome { stats, ..Outcome::of_class(ExitClass::Ok) }
}

fn place(text: &str) -> Destination {
    text.parse().unwrap()
}

fn root(name: &str, free_bytes: u64) -> Root {
    Root {
        name: name.to_owned(),
        path: format!("/srv/{name}"),
        total_bytes: 4_000 * GIB,
        free_bytes,
        total_inodes: 0,
        free_inodes: 0,
    }
}

impl Fleet {
    fn new() -> Self {
        let now = Now { wall: Wall(1_800_000_000_000), mono: Mono(1_000), entropy: 7 };
        let nobody = AgentUid(0);
        let mut fleet = Self {
            engine: Engine::new(Limits { upstream_spacing: Duration::ZERO, ..Limits::default() }),
            now,
            project: ProjectUid(0),
            origin: nobody,
            edge1: nobody,
            edge2: nobody,
            offers: Vec::new(),
            exports: Vec::new(),
        };
        fleet.put(Input::Start { at_least: 0 });
        (fleet.origin, fleet.edge1, fleet.edge2) =
            (fleet.agent("ftp1"), fleet.agent("edge1"), fleet.agent("edge2"));
        fleet.project = fleet.declare("debian", fleet.spec()).unwrap();
        fleet.run();
        for _ in 0..3 {
            let offer = fleet.offered();
            fleet.end(&offer, ok());
        }
        fleet.settle();
        assert!(fleet.offers.is_empty() && fleet.engine.attempts().next().is_none());
        fleet
    }

    fn spec(&self) -> ProjectSpec {
        let selected = Pick::Labels([("site".to_owned(), "edge2".to_owned())].into());
        ProjectSpec {
            display_name: String::new(),
            owner: None,
            labels: Default::default(),
            upstreams: vec![Upstream {
                uri: "rsync://up/debian".to_owned(),
                host: "up".to_owned(),
                user: String::new(),
                sealed_password: vec![1],
            }],
            destination: place("a1:debian"),
            schedule: Schedule::new(Cadence::Manual, parse_zone("UTC").unwrap()),
            rsync: RsyncSettings::default(),
            placement: PlacementSettings {
                origins: vec![Target { agent: self.origin, destination: None }],
                replicas: [Pick::Agent(self.edge1), selected]
                    .map(|pick| Replicas { pick, destination: None })
                    .into(),
                ..PlacementSettings::default()
            },
            guard: GuardSettings::default(),
            partial_is_success: "some files are never readable".to_owned(),
            retry: RetrySettings::default(),
            marker: None,
            link: Some(place("pub:debian")),
        }
    }

    fn declare(&mut self, name: &str, spec: ProjectSpec) -> Result<ProjectUid, Refusal> {
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

    fn put(&mut self, input: Input) -> Reply {
        self.now.entropy += 1;
        let decision = self.engine.decide(self.now, input);
        self.engine.apply(self.now, &decision.changes);
        let rebuilt = Engine::recover(self.engine.limits().clone(), self.now, self.engine.records());
        assert!(rebuilt.records().eq(self.engine.records()));
        for send in decision.sends {
            match send.message {
                Message::Offer(offer) => self.offers.push(*offer),
                Message::Exports { serial, exports, withdrawn, .. } => {
                    let all = exports.into_iter().map(Some).chain(withdrawn.into_iter().map(|_| None));
                    self.exports.extend(all.map(|export| (send.agent, export)));
                    let serve_uri = format!("rsync://h{}", send.agent.0);
                    let (agent, session) = (send.agent, send.session);
                    let said = AgentInput::Exporting {
                        agent,
                        session,
                        serial,
                        serve_uri,
                        fault: String::new(),
                        not_served: Vec::new(),
                    };
                    self.put(Input::Agent(said));
                }
                _ => {}
            }
        }
        decision.reply
    }

    fn ask(&mut self, ask: Ask) -> Reply {
        self.put(Input::Person(Person { by: "maria".to_owned(), ask }))
    }

    fn agent(&mut self, name: &str) -> AgentUid {
        let (id, hash) = (format!("t-{name}"), format!("h-{name}"));
        let names = TokenNames::One(name.parse().unwrap());
        self.ask(Ask::CreateJoinToken { id, hash: hash.clone(), names, uses: 1, ttl: HOUR });
        let enroll = AgentInput::Enroll {
            token_hash: hash,
            name: name.parse().unwrap(),
            labels: [("site".to_owned(), name.to_owned())].into(),
            key_hash: name.to_owned(),
            serial: "01".to_owned(),
            expires: self.now.wall.plus(900 * HOUR),
        };
        let Reply::Agent(agent) = self.put(Input::Agent(enroll)) else { panic!("not enrolled") };
        self.hello(agent, 1, Vec::new());
        agent
    }

    fn hello(&mut self, agent: AgentUid, connection: u64, attempts: Vec<Held>) {
        let roots = [("a1", 2_000), ("a2", 2_000), ("pub", 1_000), ("small", 150)];
        let roots = roots.map(|(name, free)| root(name, free * GIB)).into();
        let serve_uri = format!("rsync://h{}", agent.0);
        self.put(Input::Agent(AgentInput::Hello {
            agent,
            state_id: format!("s{}", agent.0),
            highest_term: 0,
            connection,
            facts: AgentFacts { slots: 4, roots, serve_uri, ..AgentFacts::default() },
            attempts,
        }));
        self.settle();
    }

    fn gone(&mut self, agent: AgentUid) {
        let session = self.engine.session(agent).unwrap().epoch;
        self.put(Input::Agent(AgentInput::Gone { agent, session }));
        self.settle();
    }

    fn settle(&mut self) {
        while self.engine.next_deadline(self.now) == Some(Duration::ZERO) {
            self.put(Input::Tick);
        }
    }

    fn run(&mut self) -> RunId {
        let ask = Ask::Run {
            project: self.project,
            kind: TriggerKind::User,
            wish: Wish::default(),
            request: None,
            traceparent: String::new(),
        };
        let Reply::Run { run, .. } = self.ask(ask) else { panic!("no run") };
        self.settle();
        run
    }

    fn ask_move(&mut self, agent: AgentUid, to: &str) -> Reply {
        let (project, traceparent) = (self.project, String::new());
        let reply = self.ask(Ask::Move { project, agent, to: place(to), revision: None, traceparent });
        self.settle();
        reply
    }

    fn moves(&mut self, agent: AgentUid, to: &str) -> RunId {
        match self.ask_move(agent, to) {
            Reply::Run { run, .. } => run,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&mut self, agent: AgentUid, to: &str) -> Refusal {
        match self.ask_move(agent, to) {
            Reply::Refused(refusal) => refusal,
            other => panic!("{to}: {other:?}"),
        }
    }

    /// The agent that an attempt is on.
    fn on(&self, offer: &Offer) -> AgentUid {
        self.engine.attempt(offer.attempt).unwrap().agent
    }

    /// The oldest offer, taken by its agent.
    fn offered(&mut self) -> Offer {
        self.settle();
        let offer = self.offers.remove(0);
        let (agent, attempt, epoch) = (self.on(&offer), offer.attempt, offer.epoch);
        self.put(Input::Agent(AgentInput::Accepted { agent, attempt, epoch }));
        offer
    }

    fn end(&mut self, offer: &Offer, outcome: Outcome) {
        let (agent, attempt, epoch) = (self.on(offer), offer.attempt, offer.epoch);
        self.put(Input::Agent(AgentInput::Ended { agent, attempt, epoch, outcome }));
        self.settle();
    }

    fn record(&self) -> &ProjectRecord {
        &self.engine.project(self.project).unwrap().record
    }

    fn placement(&self, agent: AgentUid) -> &PlacementRecord {
        &self.engine.project(self.project).unwrap().placements[&agent]
    }

    fn tree(&self) -> Option<RunId> {
        self.engine.project(self.project).unwrap().state.tree
    }

    fn waits(&self, run: RunId) -> Vec<WaitReason> {
        let whys = self.engine.why(self.now, self.project).into_iter();
        whys.filter(|why| why.attempt.run == run).map(|why| why.wait.reason).collect()
    }
}

#[test]
fn an_origins_tree_moves_and_the_declaration_says_so() {
    let mut fleet = Fleet::new();
    let (before, revision) = (fleet.tree(), fleet.record().revision);
    let old = fleet.placement(fleet.origin).clone();
    let run = fleet.moves(fleet.origin, "a2:debian");
    let offer = fleet.offered();
    assert_eq!((offer.attempt.run, offer.role, Some(offer.tree)), (run, Role::Origin, before));
    assert_eq!(
        (&offer.destination, offer.move_from.clone()),
        (&place("a2:debian"), Some(place("a1:debian")))
    );
    assert_eq!(offer.link, Some(place("pub:debian")));
    assert!(offer.source_uri.is_empty() && offer.sealed_password.is_empty() && offer.pair.is_none());
    assert!(offer.keep_extra && offer.max_delete == 0 && offer.run_timeout.is_none());
    assert_eq!(fleet.placement(fleet.origin).destination, place("a1:debian"), "not before it is proven");
    fleet.end(&offer, ok());

    let expected = PlacementRecord { destination: place("a2:debian"), ..old };
    assert_eq!(fleet.placement(fleet.origin), &expected, "the same tree at another place");
    let record = fleet.record();
    assert_eq!(record.spec.placement.origins[0].destination, Some(place("a2:debian")));
    assert_eq!((&record.spec.destination, record.revision), (&place("a1:debian"), revision + 1));
    assert_eq!(fleet.tree(), before, "no version");
    assert!(fleet.engine.run(run).is_none(), "it is history");
    let served = fleet.exports.iter().rev().find(|(agent, _)| *agent == fleet.origin);
    let served = served.and_then(|(_, export)| export.clone()).unwrap();
    assert_eq!(served.destination, place("a2:debian"));
    fleet.run();
    assert_eq!(fleet.offered().destination, place("a2:debian"));
}

#[test]
fn a_tree_that_moves_is_pulled_and_nothing_else_begins_on_it() {
    let mut fleet = Fleet::new();
    fleet.run();
    let pull = fleet.offered();
    fleet.end(&pull, ok());
    let (one, other) = (fleet.offered(), fleet.offered());
    fleet.end(&one, ok());
    fleet.moves(fleet.origin, "a2:debian");
    let moving = fleet.offered();
    assert!(moving.move_from.is_some());
    let run = fleet.run();
    assert!(fleet.waits(run).contains(&WaitReason::DestinationBusy), "{:?}", fleet.waits(run));
    assert_eq!((other.role, other.pair.unwrap().origin), (Role::Replica, fleet.origin));
    let pulls = fleet.on(&other);
    fleet.end(&other, Outcome::of_class(ExitClass::Interrupted));
    // Another try begins while the tree moves, and what it gets is whole.
    fleet.now.mono = fleet.now.mono.plus(HOUR);
    let again = fleet.offered();
    assert_eq!((fleet.on(&again), again.pair.unwrap().origin), (pulls, fleet.origin));
    fleet.end(&again, ok());
    assert!(fleet.placement(pulls).offers(fleet.tree().unwrap()), "not mixed");
    fleet.end(&moving, ok());
    let next = fleet.engine.attempts().find(|attempt| attempt.id.run == run).unwrap();
    assert_eq!(next.destination, place("a2:debian"), "what waited goes to the new place");
}

#[test]
fn a_move_begins_when_what_runs_has_ended() {
    let mut fleet = Fleet::new();
    fleet.run();
    let pull = fleet.offered();
    let run = fleet.moves(fleet.origin, "a2:debian");
    assert_eq!(fleet.waits(run), [WaitReason::DestinationBusy]);
    fleet.end(&pull, ok());
    let next = fleet.offers.iter().find(|offer| offer.attempt.run == run).unwrap();
    assert_eq!(next.tree, pull.tree);
}

#[test]
fn a_replica_that_labels_selected_is_named_from_then_on() {
    let mut fleet = Fleet::new();
    for (agent, entry) in [(fleet.edge1, 0), (fleet.edge2, 2)] {
        fleet.moves(agent, "a2:mirror/debian");
        let offer = fleet.offered();
        assert_eq!(offer.role, Role::Replica);
        fleet.end(&offer, ok());
        let named = fleet.record().spec.placement.replicas[entry].clone();
        assert_eq!(
            named,
            Replicas { pick: Pick::Agent(agent), destination: Some(place("a2:mirror/debian")) }
        );
        assert_eq!(fleet.placement(agent).have_tree, fleet.tree());
    }
    // Back to where the project says: no word of its own is needed.
    fleet.moves(fleet.edge1, "a1:debian");
    let offer = fleet.offered();
    fleet.end(&offer, ok());
    assert_eq!(fleet.record().spec.placement.replicas[0].destination, None);
    assert!(fleet.engine.attempts().next().is_none());
}

#[test]
fn a_move_that_does_not_succeed_leaves_the_project_as_it_was() {
    let ends = [ExitClass::DiskFull, ExitClass::Partial, ExitClass::LocalIo, ExitClass::RejectedByAgent];
    let ends = ends.into_iter().chain([ExitClass::Guard, ExitClass::MaxDelete, ExitClass::Cancelled]);
    for class in ends {
        let mut fleet = Fleet::new();
        let (project, record, old) =
            (fleet.project, fleet.record().clone(), fleet.placement(fleet.origin).clone());
        let run = fleet.moves(fleet.origin, "a2:debian");
        let offer = fleet.offered();
        if class == ExitClass::Cancelled {
            fleet.ask(Ask::CancelRun { project, run });
        }
        fleet.end(&offer, Outcome::of_class(class));
        assert!(fleet.engine.run(run).is_none(), "{class:?}: it has ended");
        assert_eq!(fleet.record(), &record, "{class:?}");
        let half_moved = Some(place("a2:debian"));
        assert_eq!(fleet.placement(fleet.origin), &PlacementRecord { half_moved, ..old }, "{class:?}");
        assert!(fleet.offers.is_empty(), "{class:?}: nothing follows");
        // The next one goes on, also where there is no room for the whole tree once more.
        fleet.moves(fleet.origin, "a2:debian");
        let again = fleet.offered();
        fleet.end(&again, ok());
        assert_eq!(fleet.placement(fleet.origin).destination, place("a2:debian"));
    }
}

#[test]
fn a_move_that_its_host_broke_off_is_tried_again_and_one_too_late_to_end_succeeds() {
    let mut fleet = Fleet::new();
    let (project, run) = (fleet.project, fleet.moves(fleet.origin, "a2:debian"));
    let first = fleet.offered();
    fleet.end(&first, Outcome::of_class(ExitClass::Interrupted));
    assert_eq!(fleet.engine.run(run).unwrap().state, RunState::Running);
    fleet.now.mono = fleet.now.mono.plus(HOUR);
    let again = fleet.offered();
    assert_eq!((again.attempt.number, &again.destination), (2, &first.destination));
    fleet.ask(Ask::CancelRun { project, run });
    fleet.end(&again, ok());
    assert_eq!(fleet.placement(fleet.origin).destination, place("a2:debian"));
}

#[test]
fn an_end_under_an_old_epoch_moves_nothing() {
    let mut fleet = Fleet::new();
    fleet.moves(fleet.origin, "a2:debian");
    let offer = fleet.offered();
    fleet.gone(fleet.origin);
    fleet.hello(fleet.origin, 2, Vec::new());
    // The agent's state directory no longer knew it: it is lost, and tried again under another epoch.
    fleet.now.mono = fleet.now.mono.plus(HOUR);
    fleet.settle();
    let (agent, attempt, epoch) = (fleet.origin, offer.attempt, offer.epoch);
    fleet.put(Input::Agent(AgentInput::Ended { agent, attempt, epoch, outcome: ok() }));
    assert_eq!(fleet.placement(fleet.origin).destination, place("a1:debian"));
}

#[test]
fn all_that_speaks_against_a_place_is_said_at_once() {
    let mut fleet = Fleet::new();
    let mut other = fleet.spec();
    (other.destination, other.link) = (place("a2:epel"), Some(place("pub:epel/latest")));
    fleet.declare("epel", other).unwrap();
    let origin = fleet.origin;
    for (to, reason, text) in [
        ("a1:debian", "SAME_PLACE", "its tree is there already"),
        ("a1:debian/new", "PLACE_TAKEN", "inside or around the tree's own, a1:debian"),
        ("a2:epel/debian", "PLACE_TAKEN", "inside, around or at a2:epel of project \"epel\""),
        ("pub:epel", "PLACE_TAKEN", "inside, around or at pub:epel/latest of project \"epel\""),
        ("pub:debian", "PLACE_TAKEN", "inside, around or at the public link pub:debian"),
        ("a9:debian", "NO_SUCH_ROOT", "has no root \"a9\" (it has a1, a2, pub, small)"),
        (
            "small:debian",
            "NO_ROOM",
            "lacks ~30.0 GiB above its reserve of 80.0 GiB for the 100 GiB of the tree",
        ),
    ] {
        let refusal = fleet.refused(origin, to);
        assert_eq!(refusal.reason, reason, "{to}");
        assert!(refusal.message.contains(text), "{to}: {}", refusal.message);
    }
    let stranger = fleet.agent("edge9");
    assert_eq!(fleet.refused(stranger, "a2:debian").reason, "NOT_PLACED");
    fleet.moves(origin, "a2:debian");
    let _moving = fleet.offered();
    fleet.gone(origin);
    let refusal = fleet.refused(origin, "a2:epel");
    assert_eq!(refusal.reason, "AGENT_AWAY");
    for fault in ["has no session", "being moved to a2:debian already", "at a2:epel of project"] {
        assert!(refusal.message.contains(fault), "{fault}: {}", refusal.message);
    }
}

#[test]
fn a_tree_that_is_not_there_is_not_moved() {
    let mut fleet = Fleet::new();
    let mut fresh = fleet.spec();
    (fresh.destination, fresh.link) = (place("a2:fresh"), None);
    let old = fleet.project;
    fleet.project = fleet.declare("fresh", fresh).unwrap();
    let refusal = fleet.refused(fleet.origin, "a1:fresh");
    assert_eq!(refusal.reason, "NO_TREE");
    assert!(refusal.message.contains("mirrorctl project edit fresh"), "{}", refusal.message);
    fleet.project = old;
}

#[test]
fn where_a_tree_moves_to_nothing_else_is_put() {
    let mut fleet = Fleet::new();
    let (project, run) = (fleet.project, fleet.moves(fleet.origin, "a2:debian"));
    let moving = fleet.offered();
    let mut other = fleet.spec();
    (other.destination, other.link) = (place("a2:debian/sub"), None);
    let refusal = fleet.declare("sub", other.clone()).unwrap_err();
    assert!(refusal.violations[0].description.contains("at a2:debian of project"), "{refusal:?}");
    let revision = fleet.record().revision;
    let spec = Box::new(ProjectSpec { destination: place("a1:elsewhere"), ..fleet.record().spec.clone() });
    let edit = Ask::UpdateProject { project, spec, revision, validate_only: false };
    let Reply::Refused(refusal) = fleet.ask(edit) else { panic!("edited") };
    assert_eq!(refusal.reason, "ATTEMPT_RUNNING");
    fleet.ask(Ask::CancelRun { project, run });
    fleet.end(&moving, Outcome::of_class(ExitClass::Cancelled));
    fleet.declare("sub", other).unwrap();
}

#[test]
fn links_and_trees_keep_apart() {
    let mut fleet = Fleet::new();
    let base = fleet.spec();
    for (destination, link, field) in [
        ("a1:x", "pub:debian", "publish.link"),
        ("a1:x", "a1:debian/latest", "publish.link"),
        ("a1:x", "a1:x/latest", "publish.link"),
        ("pub:debian", "pub:x", "destination"),
    ] {
        let spec = ProjectSpec { destination: place(destination), link: Some(place(link)), ..base.clone() };
        let refusal = fleet.declare("other", spec).unwrap_err();
        assert!(
            refusal.violations.iter().any(|fault| fault.field == field),
            "{destination} {link}: {refusal:?}"
        );
    }
    let spec = ProjectSpec { destination: place("a1:x"), link: Some(place("pub:x")), ..base };
    fleet.declare("other", spec).unwrap();
}
