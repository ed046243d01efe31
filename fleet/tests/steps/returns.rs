//! Projects with as many replicas as one may have: replicas that gave up begin anew when their agent returns, and the
//! largest decisions stay within their bound.

use std::{collections::BTreeMap, time::Duration};

use fleet::{
    Engine,
    agent::{AgentCaps, AgentFacts, AgentRecord, LastKnown},
    attempt::{AttemptRecord, Role},
    defaults::{self, Limits},
    engine::{CHANGES_MAX, REPLICAS_MAX},
    id::{AgentUid, AttemptId, Epoch, ProjectUid, RunId},
    input::{AgentInput, Ask, Decision, Held, Input, Message, Person, Reply},
    outcome::{ExitClass, Outcome},
    placement::PlacementRecord,
    project::ProjectSpec,
    record::{Change, Record},
    run::{TriggerKind, Wish},
    schedule::{Cron, Schedule},
    standing::AutonomousFire,
    time::{Mono, Now, Wall},
};

use super::world::{self, named, root};

/// More ticks than anything here needs.
const TICKS_MAX: usize = 5_000;
const ORIGIN: AgentUid = AgentUid(1);

/// The agent of the replica with this number.
fn replica(number: usize) -> AgentUid {
    AgentUid(2 + u64::try_from(number).unwrap())
}

struct World {
    engine: Engine,
    now: Now,
    project: ProjectUid,
    connections: u64,
    /// Most records that one decision changed.
    largest: usize,
}

impl World {
    /// A project with an origin and this many replicas; no agent is here.
    fn new(replicas: usize) -> Self {
        let now = Now { wall: Wall(1_800_000_000_000), mono: Mono(1_000), entropy: 7 };
        let mut engine = Engine::new(Limits { upstream_spacing: Duration::ZERO, ..Limits::default() });
        let agents = std::iter::once(ORIGIN).chain((0..replicas).map(replica));
        let agents: Vec<Change> = agents.map(|uid| Change::Put(Record::Agent(agent(uid, now)))).collect();
        engine.apply(now, &agents);
        let mut world = Self { engine, now, project: ProjectUid(0), connections: 0, largest: 0 };
        world.put(Input::Start { at_least: 0 });
        let create = Ask::CreateProject {
            name: "p".parse().unwrap(),
            spec: Box::new(spec(replicas)),
            paused: false,
            request: None,
            validate_only: false,
        };
        let Reply::Project(project) = world.ask(create).reply else { panic!("not declared") };
        world.project = project;
        world.settle();
        world
    }

    /// Decides and makes it so.
    fn put(&mut self, input: Input) -> Decision {
        self.now.mono = Mono(self.now.mono.0 + 1);
        self.now.entropy = self.now.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let decision = self.engine.decide(self.now, input);
        let stored = decision.changes.iter().filter(|change| !matches!(change, Change::Volatile(_))).count();
        self.largest = self.largest.max(stored);
        self.engine.apply(self.now, &decision.changes);
        decision
    }

    fn ask(&mut self, ask: Ask) -> Decision {
        self.put(Input::Person(Person { by: "root".to_owned(), ask }))
    }

    /// What its agent says of the newest message that told it what to serve.
    fn exporting(&mut self, not_served: Vec<ProjectUid>) {
        let session = self.engine.session(ORIGIN).unwrap().epoch;
        let (serve_uri, fault) = ("rsync://o".to_owned(), String::new());
        self.put(Input::Agent(AgentInput::Exporting {
            agent: ORIGIN,
            session,
            serial: u64::MAX,
            serve_uri,
            fault,
            not_served,
        }));
        self.settle();
    }

    /// Everything that is due now; agents answer at once that they serve what they are told to.
    fn settle(&mut self) {
        for _ in 0..TICKS_MAX {
            if self.engine.next_deadline(self.now) != Some(Duration::ZERO) {
                return;
            }
            for send in self.put(Input::Tick).sends {
                if let Message::Exports { serial, .. } = send.message {
                    let (agent, session) = (send.agent, send.session);
                    let (serve_uri, fault) = ("rsync://o".to_owned(), String::new());
                    self.put(Input::Agent(AgentInput::Exporting {
                        agent,
                        session,
                        serial,
                        serve_uri,
                        fault,
                        not_served: Vec::new(),
                    }));
                }
            }
        }
        panic!("it never comes to rest")
    }

    fn hello(&mut self, agent: AgentUid, instance_id: &str) {
        self.hello_with(agent, instance_id, "d", Vec::new());
    }

    fn hello_with(&mut self, agent: AgentUid, instance_id: &str, state_id: &str, attempts: Vec<Held>) {
        self.connections += 1;
        let instance_id = instance_id.to_owned();
        self.put(Input::Agent(AgentInput::Hello {
            agent,
            state_id: state_id.to_owned(),
            highest_term: 1,
            connection: self.connections,
            facts: AgentFacts { instance_id, roots: vec![root("a1", 512)], ..AgentFacts::default() },
            attempts,
        }));
        self.settle();
    }

    fn gone(&mut self, agent: AgentUid) {
        let session = self.engine.session(agent).unwrap().epoch;
        self.put(Input::Agent(AgentInput::Gone { agent, session }));
    }

    fn run(&mut self) -> RunId {
        let ask = Ask::Run {
            project: self.project,
            kind: TriggerKind::User,
            wish: Wish::default(),
            request: None,
            traceparent: String::new(),
        };
        let Reply::Run { run, .. } = self.ask(ask).reply else { panic!("no run") };
        self.settle();
        run
    }

    fn attempt(&self, agent: AgentUid) -> Option<&AttemptRecord> {
        self.engine.attempt_on(self.project, agent)
    }

    /// Ends what is on the agent.
    fn end(&mut self, agent: AgentUid, class: ExitClass) {
        let one = self.attempt(agent).unwrap();
        let (attempt, epoch) = (one.id, one.state.epoch().unwrap());
        let outcome = Outcome { exit_code: Some(5), ..Outcome::of_class(class) };
        self.put(Input::Agent(AgentInput::Ended { agent, attempt, epoch, outcome }));
        self.settle();
    }

    fn placement(&self, agent: AgentUid) -> &PlacementRecord {
        &self.engine.project(self.project).unwrap().placements[&agent]
    }

    /// The origin has made a tree, and the one replica has given up on it.
    fn given_up() -> Self {
        let mut world = Self::new(1);
        world.hello(ORIGIN, "o1");
        world.hello(replica(0), "r1");
        let run = world.run();
        world.end(ORIGIN, ExitClass::Ok);
        assert!(world.attempt(replica(0)).is_some_and(|attempt| attempt.state.is_out()));
        world.end(replica(0), ExitClass::Auth);
        assert!(world.attempt(replica(0)).is_none());
        assert_eq!(world.placement(replica(0)).gave_up_on, Some(run));
        world
    }
}

fn agent(uid: AgentUid, now: Now) -> AgentRecord {
    AgentRecord {
        uid,
        name: format!("agent{}", uid.0).parse().unwrap(),
        labels: BTreeMap::new(),
        caps: AgentCaps::default(),
        draining: false,
        revoked: None,
        key_hash: "aa".to_owned(),
        certificate_serial: "01".to_owned(),
        certificate_expires: now.wall.plus(Duration::from_secs(86_400)),
        state_id: "d".to_owned(),
        last_seen: None,
        last_known: LastKnown::default(),
        revision: 1,
        create_time: now.wall,
    }
}

fn spec(replicas: usize) -> ProjectSpec {
    let replicas = (0..replicas).map(|number| named(replica(number))).collect();
    ProjectSpec {
        schedule: Schedule::cron(Cron::parse("hour=3".parse().unwrap()).unwrap(), chrono_tz::UTC),
        ..world::spec("a1:p", &[ORIGIN], replicas)
    }
}

#[test]
fn a_replica_that_gave_up_begins_anew_when_its_agent_was_started_again() {
    let mut world = World::given_up();
    world.gone(replica(0));
    world.hello(replica(0), "r1");
    assert!(world.attempt(replica(0)).is_none(), "a lost connection is no reason to try again");
    world.gone(replica(0));
    world.hello(replica(0), "r2");
    assert!(world.attempt(replica(0)).is_some_and(|attempt| attempt.role == Role::Replica));
}

#[test]
fn a_replica_that_gave_up_begins_anew_when_its_agent_was_long_away() {
    let mut world = World::given_up();
    world.gone(replica(0));
    world.now.wall = world.now.wall.plus(defaults::RETRY_CAP);
    world.hello(replica(0), "r1");
    assert!(world.attempt(replica(0)).is_some());
}

#[test]
fn a_pull_that_ended_in_the_middle_is_remembered_until_the_next_success() {
    let mut world = World::given_up();
    assert!(!world.placement(replica(0)).half_changed, "a refused login changes nothing");
    world.run();
    world.end(ORIGIN, ExitClass::LocalIo);
    assert!(world.placement(ORIGIN).half_changed);
    let promote = |force| Ask::Promote { project: world.project, agent: replica(0), revision: None, force };
    let (unasked, forced) = (promote(false), promote(true));
    world.run();
    world.end(ORIGIN, ExitClass::Ok);
    assert!(!world.placement(ORIGIN).half_changed);
    world.end(replica(0), ExitClass::Stalled);
    assert!(world.placement(replica(0)).half_changed);
    let Reply::Refused(refusal) = world.ask(unasked).reply else { panic!("made the origin") };
    assert_eq!(refusal.reason, "HALF_CHANGED");
    assert_eq!(world.ask(forced).reply, Reply::Project(world.project));
}

/// The origin has made a tree; it was cut off, and its replica has pulled the tree to its end then.
fn copied_while_cut_off() -> World {
    let mut world = World::new(1);
    world.hello(ORIGIN, "o1");
    world.hello(replica(0), "r1");
    world.run();
    world.end(ORIGIN, ExitClass::Ok);
    world.gone(ORIGIN);
    world.now.wall = world.now.wall.plus(Duration::from_secs(60));
    world.end(replica(0), ExitClass::Ok);
    assert!(world.placement(replica(0)).have_tree.is_some());
    world.now.wall = world.now.wall.plus(Duration::from_secs(3_600));
    world
}

#[test]
fn what_was_copied_while_the_origin_ran_alone_counts_as_no_tree() {
    let mut world = copied_while_cut_off();
    let started = world.now.wall.minus(Duration::from_secs(3_590));
    let fire = AutonomousFire { scheduled: started, started, max_delete: 0 };
    let attempt = AttemptId { run: RunId::mint(started.0, 9, RunId::NIL), number: 1 };
    let held = Held {
        needs_secrets: true,
        attempt,
        epoch: Epoch { term: 1, counter: 1 << 63 },
        project: world.project,
        role: Role::Origin,
        destination: "a1:p".parse().unwrap(),
        spec_hash: String::new(),
        ended: true,
        dry_run: false,
        keep_extra: false,
        recorded: false,
        autonomous: Some(fire),
    };
    world.hello_with(ORIGIN, "o1", "d", vec![held]);
    assert_eq!(world.placement(replica(0)).have_tree, None);
}

#[test]
fn who_lost_its_state_serves_nobody_before_it_has_pulled_again() {
    let mut world = copied_while_cut_off();
    world.hello_with(ORIGIN, "o1", "d", Vec::new());
    assert!(world.placement(replica(0)).have_tree.is_some(), "nothing is lost");
    world.gone(ORIGIN);
    world.hello_with(ORIGIN, "o2", "another", Vec::new());
    assert!(world.placement(ORIGIN).half_changed);
    world.run();
    world.end(ORIGIN, ExitClass::Ok);
    assert!(!world.placement(ORIGIN).half_changed);
    world.end(replica(0), ExitClass::Ok);
    assert_eq!(world.placement(replica(0)).have_tree, world.placement(ORIGIN).have_tree);
}

#[test]
fn nobody_is_sent_to_a_tree_that_its_agent_could_not_export() {
    let mut world = World::new(1);
    world.hello(ORIGIN, "o1");
    world.hello(replica(0), "r1");
    world.run();
    let project = world.project;
    world.exporting(vec![project]);
    world.end(ORIGIN, ExitClass::Ok);
    assert!(world.attempt(replica(0)).is_some_and(|attempt| attempt.state.is_pending()));
    world.exporting(Vec::new());
    assert!(world.attempt(replica(0)).is_some_and(|attempt| attempt.state.is_out()));
}

/// The origin has made a tree, and all the replicas that a project may have wait to pull it.
fn full() -> World {
    let mut world = World::new(REPLICAS_MAX);
    world.hello(ORIGIN, "o1");
    for number in 0..REPLICAS_MAX {
        world.hello(replica(number), "r1");
    }
    world.run();
    world.end(ORIGIN, ExitClass::Ok);
    assert_eq!(world.engine.attempts().count(), REPLICAS_MAX);
    world
}

#[test]
fn the_largest_decisions_of_a_full_project_stay_within_their_bound() {
    let mut cancelled = full();
    let (project, run) = (cancelled.project, cancelled.attempt(replica(0)).unwrap().id.run);
    cancelled.ask(Ask::CancelRun { project, run });
    let mut made_again = full();
    made_again.run();
    made_again.now.mono = made_again.now.mono.plus(defaults::DRAIN_TIMEOUT);
    made_again.settle();
    made_again.end(ORIGIN, ExitClass::Ok);
    let mut deleted = full();
    deleted.ask(Ask::DeleteProject { project, revision: None, cancel_running: true, tree_to_trash: true });
    let mut revoked = full();
    revoked.ask(Ask::RevokeAgent { agent: ORIGIN, reason: "gone".to_owned() });
    for world in [&cancelled, &made_again, &deleted] {
        assert!(world.largest > REPLICAS_MAX / 2, "the replicas were not in it: {}", world.largest);
    }
    for world in [&cancelled, &made_again, &deleted, &revoked] {
        assert!(world.largest <= CHANGES_MAX, "{} records in one decision", world.largest);
    }
}
