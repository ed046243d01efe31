//! An agent that is being stopped refuses what it is offered: the offer goes back, and nothing is offered until the
//! agent is there again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, time::Duration};

use fleet::{
    Engine,
    agent::{AgentFacts, Root, TokenNames},
    attempt::{AttemptRecord, AttemptState},
    defaults::Limits,
    id::{AgentUid, Epoch, ProjectUid},
    input::{AgentInput, Ask, CloseReason, Input, Message, NotTaken, Person, Reply, Send},
    project::{PlacementSettings, ProjectSpec, RetrySettings, RsyncSettings, Target, Upstream},
    run::TriggerKind,
    schedule::{Cron, Schedule},
    time::{Mono, Now, Wall},
};

/// More ticks than anything here needs.
const TICKS_MAX: usize = 50;

struct World {
    engine: Engine,
    now: Now,
    agent: AgentUid,
}

impl World {
    /// Decides and makes it so; the answer, and what agents are told.
    fn put(&mut self, input: Input) -> (Reply, Vec<Send>) {
        self.now.mono = Mono(self.now.mono.0 + 1);
        self.now.entropy = self.now.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let decision = self.engine.decide(self.now, input);
        self.engine.apply(self.now, &decision.changes);
        (decision.reply, decision.sends)
    }

    fn ask(&mut self, ask: Ask) -> Reply {
        self.put(Input::Person(Person { by: "root".to_owned(), ask })).0
    }

    fn hello(&mut self, connection: u64) {
        let root = Root {
            name: "a1".to_owned(),
            path: "/srv".to_owned(),
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
            total_inodes: 0,
            free_inodes: 0,
        };
        let facts = AgentFacts { roots: vec![root], ..AgentFacts::default() };
        let (agent, state_id) = (self.agent, "d".to_owned());
        let hello =
            AgentInput::Hello { agent, state_id, highest_term: 1, connection, facts, attempts: Vec::new() };
        self.put(Input::Agent(hello));
    }

    /// Everything that is due now; what it tells agents.
    fn drain(&mut self) -> Vec<Send> {
        let mut sent = Vec::new();
        for _ in 0..TICKS_MAX {
            if self.engine.next_deadline(self.now) != Some(Duration::ZERO) {
                return sent;
            }
            sent.extend(self.put(Input::Tick).1);
        }
        panic!("it never comes to rest: {sent:?}")
    }

    fn attempt(&self) -> AttemptRecord {
        let mut all = self.engine.attempts();
        let one = all.next().unwrap().clone();
        assert!(all.next().is_none());
        one
    }

    /// A fleet with one agent that is here, and a run that was just offered to it.
    fn offered() -> Self {
        let now = Now { wall: Wall(1_800_000_000_000), mono: Mono(1_000), entropy: 7 };
        let mut world = Self { engine: Engine::new(Limits::default()), now, agent: AgentUid(0) };
        world.put(Input::Start { at_least: 0 });
        world.ask(Ask::CreateJoinToken {
            id: "t".to_owned(),
            hash: "h".to_owned(),
            names: TokenNames::One("edge1".parse().unwrap()),
            uses: 1,
            ttl: Duration::from_secs(600),
            networks: Vec::new(),
        });
        let enroll = AgentInput::Enroll {
            token_hash: "h".to_owned(),
            name: "edge1".parse().unwrap(),
            labels: BTreeMap::new(),
            key_hash: "aa".to_owned(),
            serial: "01".to_owned(),
            expires: now.wall.plus(Duration::from_secs(86_400)),
            from: None,
        };
        let Reply::Agent(agent) = world.put(Input::Agent(enroll)).0 else { panic!("not enrolled") };
        world.agent = agent;
        world.hello(1);
        let project = world.project();
        let run = Ask::Run {
            project,
            kind: TriggerKind::User,
            wish: fleet::run::Wish::default(),
            request: None,
            traceparent: String::new(),
        };
        assert!(matches!(world.ask(run), Reply::Run { .. }));
        world.drain();
        assert!(matches!(world.attempt().state, AttemptState::Offered { .. }));
        world
    }

    fn project(&mut self) -> ProjectUid {
        let upstream = Upstream {
            uri: "rsync://h/mod/".to_owned(),
            host: "h".to_owned(),
            user: String::new(),
            sealed_password: Vec::new(),
        };
        let spec = ProjectSpec {
            display_name: String::new(),
            owner: None,
            labels: BTreeMap::new(),
            upstreams: vec![upstream],
            destination: "a1:p".parse().unwrap(),
            schedule: Schedule::cron(Cron::parse("hour=3".parse().unwrap()).unwrap(), chrono_tz::UTC),
            rsync: RsyncSettings::default(),
            placement: PlacementSettings {
                origins: vec![Target { agent: self.agent, destination: None }],
                ..PlacementSettings::default()
            },
            guard: fleet::project::GuardSettings::default(),
            marker: None,
            partial_is_success: String::new(),
            link: None,
            after: Vec::new(),
            retry: RetrySettings::default(),
        };
        let (name, spec) = ("p".parse().unwrap(), Box::new(spec));
        let create = Ask::CreateProject { name, spec, paused: false, request: None, validate_only: false };
        let Reply::Project(project) = self.ask(create) else { panic!("not declared") };
        project
    }

    fn refuse(&mut self, why: NotTaken, epoch: Epoch) -> Vec<Send> {
        let (agent, attempt, detail) = (self.agent, self.attempt().id, "no".to_owned());
        self.put(Input::Agent(AgentInput::Refused { agent, attempt, epoch, why, detail })).1
    }
}

#[test]
fn what_a_stopping_agent_refuses_is_offered_again_when_it_is_back() {
    let mut world = World::offered();
    let first = world.attempt();
    let epoch = first.state.epoch().unwrap();
    let told = world.refuse(NotTaken::Stopping, epoch);
    assert!(
        matches!(&told[..], [Send { message: Message::Close(CloseReason::AgentStopping), .. }]),
        "{told:?}"
    );
    assert_eq!(world.attempt().state, AttemptState::Pending { delay: Duration::ZERO });
    // Longer than two tries at one upstream are apart.
    world.now.mono = world.now.mono.plus(Duration::from_secs(60));
    assert!(world.drain().is_empty(), "nothing is offered to an agent that is being stopped");

    world.hello(2);
    let sent = world.drain();
    assert!(sent.iter().any(|send| matches!(send.message, Message::Offer(_))), "{sent:?}");
    let again = world.attempt();
    assert_eq!((again.id, again.attempt_try), (first.id, 1), "it is the same try");
    assert!(again.state.epoch().unwrap() > epoch);
    // Said twice, or late: it is not about this offer, nor about this session.
    assert!(world.refuse(NotTaken::Stopping, epoch).is_empty());
    assert_eq!(world.attempt(), again);
    assert!(world.engine.session(world.agent).is_some());
}

#[test]
fn a_busy_agent_keeps_its_session_and_is_asked_again_later() {
    let mut world = World::offered();
    let epoch = world.attempt().state.epoch().unwrap();
    world.refuse(NotTaken::Busy, epoch);
    assert!(world.engine.session(world.agent).is_some());
    let tries: Vec<u32> = world.engine.attempts().map(|attempt| attempt.attempt_try).collect();
    assert!(tries.contains(&2), "another try follows: {tries:?}");
    assert!(world.drain().is_empty(), "not at once");
}
