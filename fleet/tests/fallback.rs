//! Which upstream an origin pulls from, as the engine decides it: the one that a person chose, through retries and edits
//! of the list, and never another.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use fleet::{
    Engine,
    agent::{AgentFacts, Root, TokenNames},
    attempt::AttemptRecord,
    defaults::Limits,
    engine::WaitReason,
    id::{AgentUid, Epoch, ProjectUid},
    input::{AgentInput, Ask, Held, Input, Message, Offer, Person, Reply},
    outcome::{ExitClass, Outcome, Stats},
    project::{
        GuardSettings, PlacementSettings, ProjectSpec, RetrySettings, RsyncSettings, Target, Upstream,
    },
    refusal::Refusal,
    run::{TriggerKind, Wish},
    schedule::{Cadence, Schedule, parse_zone},
    time::{Mono, Now, Wall},
};

const HOUR: Duration = Duration::from_secs(3_600);

/// An origin and its project, in one hand.
struct Fleet {
    engine: Engine,
    now: Now,
    project: ProjectUid,
    origin: AgentUid,
    sent: Vec<Message>,
}

/// `rsync://HOST/debian/`, with a password of its own.
fn upstream(host: &str) -> Upstream {
    Upstream {
        uri: format!("rsync://{host}/debian/"),
        host: host.to_owned(),
        user: format!("at-{host}"),
        sealed_password: host.as_bytes().to_vec(),
    }
}

fn good() -> Outcome {
    let stats = Some(Stats { files: 10_000, total_bytes: 10_000_000, ..Stats::default() });
    Outcome { stats, ..Outcome::of_class(ExitClass::Ok) }
}

impl Fleet {
    /// Nothing has run yet.
    fn new(hosts: &[&str]) -> Self {
        let now = Now { wall: Wall(1_800_000_000_000), mono: Mono(1_000), entropy: 7 };
        let engine = Engine::new(Limits { upstream_spacing: Duration::ZERO, ..Limits::default() });
        let (project, origin) = (ProjectUid(0), AgentUid(0));
        let mut fleet = Self { engine, now, project, origin, sent: Vec::new() };
        fleet.put(Input::Start { at_least: 0 });
        fleet.enroll();
        fleet.hello(1, Vec::new());
        let spec = ProjectSpec {
            display_name: String::new(),
            labels: Default::default(),
            upstreams: hosts.iter().map(|host| upstream(host)).collect(),
            destination: "a1:debian".parse().unwrap(),
            schedule: Schedule::new(Cadence::Manual, parse_zone("UTC").unwrap()),
            rsync: RsyncSettings::default(),
            placement: PlacementSettings {
                origins: vec![Target { agent: fleet.origin, destination: None }],
                ..PlacementSettings::default()
            },
            guard: GuardSettings::default(),
            partial_is_success: String::new(),
            link: None,
            retry: RetrySettings::default(),
        };
        let create = Ask::CreateProject {
            name: "debian".parse().unwrap(),
            spec: Box::new(spec),
            paused: false,
            request: None,
            validate_only: false,
        };
        let Reply::Project(project) = fleet.ask(create) else { panic!("not created") };
        fleet.project = project;
        fleet
    }

    fn put(&mut self, input: Input) -> Reply {
        self.now.entropy += 1;
        let decision = self.engine.decide(self.now, input);
        self.engine.apply(self.now, &decision.changes);
        self.sent.extend(decision.sends.into_iter().map(|send| send.message));
        decision.reply
    }

    fn ask(&mut self, ask: Ask) -> Reply {
        self.put(Input::Person(Person { by: "maria".to_owned(), ask }))
    }

    fn enroll(&mut self) {
        let names = TokenNames::One("ftp1".parse().unwrap());
        let (id, hash) = ("t".to_owned(), "h".to_owned());
        self.ask(Ask::CreateJoinToken { id, hash: hash.clone(), names, uses: 1, ttl: HOUR });
        let enroll = AgentInput::Enroll {
            token_hash: hash,
            name: "ftp1".parse().unwrap(),
            labels: Default::default(),
            key_hash: "key".to_owned(),
            serial: "01".to_owned(),
            expires: self.now.wall.plus(900 * HOUR),
        };
        let Reply::Agent(agent) = self.put(Input::Agent(enroll)) else { panic!("not enrolled") };
        self.origin = agent;
    }

    fn hello(&mut self, connection: u64, attempts: Vec<Held>) {
        let root = Root {
            name: "a1".to_owned(),
            path: "/srv".to_owned(),
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
            total_inodes: 0,
            free_inodes: 0,
        };
        let facts = AgentFacts { slots: 4, roots: vec![root], ..AgentFacts::default() };
        let agent = self.origin;
        let state_id = "s".to_owned();
        let hello = AgentInput::Hello { agent, state_id, highest_term: 0, connection, facts, attempts };
        assert!(matches!(self.put(Input::Agent(hello)), Reply::Session(_)));
    }

    /// Lets time pass, and everything that is due happen; the offers of that time.
    fn wait(&mut self, span: Duration) -> Vec<Offer> {
        self.now.wall = self.now.wall.plus(span);
        self.now.mono = self.now.mono.plus(span);
        while self.engine.next_deadline(self.now) == Some(Duration::ZERO) {
            self.put(Input::Tick);
        }
        let offer = |message| if let Message::Offer(offer) = message { Some(*offer) } else { None };
        std::mem::take(&mut self.sent).into_iter().filter_map(offer).collect()
    }

    /// The one offer of a new run.
    fn run(&mut self) -> Offer {
        let (project, kind) = (self.project, TriggerKind::User);
        self.ask(Ask::Run {
            project,
            kind,
            wish: Wish::default(),
            request: None,
            traceparent: String::new(),
        });
        self.offered(Duration::ZERO)
    }

    fn offered(&mut self, span: Duration) -> Offer {
        let mut offers = self.wait(span);
        assert_eq!(offers.len(), 1, "{offers:?}");
        offers.remove(0)
    }

    fn accept(&mut self, offer: &Offer) {
        let (agent, attempt, epoch) = (self.origin, offer.attempt, offer.epoch);
        self.put(Input::Agent(AgentInput::Accepted { agent, attempt, epoch }));
    }

    fn end(&mut self, offer: &Offer, outcome: Outcome) {
        self.accept(offer);
        let (agent, attempt, epoch) = (self.origin, offer.attempt, offer.epoch);
        self.put(Input::Agent(AgentInput::Ended { agent, attempt, epoch, outcome }));
    }

    fn switch(&mut self, host: &str) -> Result<(), Refusal> {
        let uri = upstream(host).uri;
        match self.ask(Ask::SwitchUpstream { project: self.project, uri, revision: None }) {
            Reply::Project(_) => Ok(()),
            Reply::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// Declares these upstreams instead.
    fn edit(&mut self, hosts: &[&str]) {
        let record = self.engine.project(self.project).unwrap().record.clone();
        let spec =
            ProjectSpec { upstreams: hosts.iter().map(|host| upstream(host)).collect(), ..record.spec };
        let (project, spec, revision) = (self.project, Box::new(spec), record.revision);
        let reply = self.ask(Ask::UpdateProject { project, spec, revision, validate_only: false });
        assert_eq!(reply, Reply::Project(project));
    }

    /// The host that is pulled from.
    fn active(&self) -> &str {
        &self.engine.project(self.project).unwrap().upstream().unwrap().host
    }

    fn revision(&self) -> u64 {
        self.engine.project(self.project).unwrap().record.revision
    }
}

fn pulls_from(offer: &Offer, host: &str) -> bool {
    let Upstream { uri, user, sealed_password, .. } = upstream(host);
    (&offer.source_uri, &offer.user, &offer.sealed_password) == (&uri, &user, &sealed_password)
}

#[test]
fn the_first_is_pulled_from_until_a_person_switches() {
    let mut fleet = Fleet::new(&["a", "b"]);
    let offer = fleet.run();
    assert!(pulls_from(&offer, "a"), "{offer:?}");
    fleet.end(&offer, good());

    // However often the first one fails, nothing else is asked.
    let failed = fleet.run();
    fleet.end(&failed, Outcome::of_class(ExitClass::NotFound));
    let again = fleet.run();
    assert!(pulls_from(&again, "a"), "{again:?}");
    fleet.end(&again, Outcome::of_class(ExitClass::NotFound));

    let tree = fleet.engine.project(fleet.project).unwrap().state.tree;
    let before = fleet.revision();
    fleet.switch("b").unwrap();
    assert_eq!(fleet.revision(), before + 1, "who saw it as it was before is told");
    let offer = fleet.run();
    assert!(pulls_from(&offer, "b"), "{offer:?}");
    assert_eq!(fleet.engine.attempt(offer.attempt).unwrap().upstream_host, "b");
    assert!(!offer.first_sync, "the tree is the same one");
    fleet.end(&offer, good());
    let state = &fleet.engine.project(fleet.project).unwrap().state;
    assert!(state.tree.is_some() && state.tree != tree);
}

#[test]
fn what_waits_asks_the_other_one() {
    let mut fleet = Fleet::new(&["a", "b"]);
    let offer = fleet.run();
    fleet.end(&offer, Outcome::of_class(ExitClass::Network));
    assert_eq!(fleet.wait(Duration::ZERO), Vec::new());
    let waiting = |fleet: &Fleet| -> AttemptRecord { fleet.engine.attempts().next().unwrap().clone() };
    assert_eq!(waiting(&fleet).upstream_host, "a");
    let why = fleet.engine.why(fleet.now, fleet.project);
    assert_eq!(why[0].wait.reason, WaitReason::Backoff);
    fleet.switch("b").unwrap();
    assert_eq!(waiting(&fleet).upstream_host, "b");
    let retried = fleet.offered(HOUR);
    assert!(retried.attempt.run == offer.attempt.run && pulls_from(&retried, "b"), "{retried:?}");
}

#[test]
fn a_switch_is_refused_while_the_old_one_may_be_pulled_from() {
    let mut fleet = Fleet::new(&["a", "b"]);
    let offer = fleet.run();
    for step in [Fleet::accept as fn(&mut Fleet, &Offer), |_, _| {}] {
        let refusal = fleet.switch("b").unwrap_err();
        assert_eq!(refusal.reason, "ATTEMPT_RUNNING");
        assert!(refusal.message.contains("\"ftp1\" may be pulling from a;"), "{}", refusal.message);
        step(&mut fleet, &offer);
    }
    fleet.switch("a").unwrap();
    fleet.end(&offer, good());
    fleet.switch("b").unwrap();
    let refusal = fleet.switch("c").unwrap_err();
    assert_eq!(refusal.violations[0].field, "upstream");
    let stale = Ask::SwitchUpstream { project: fleet.project, uri: upstream("a").uri, revision: Some(1) };
    assert!(matches!(fleet.ask(stale), Reply::Refused(refusal) if refusal.reason == "STALE_ETAG"));
    assert_eq!(fleet.active(), "b");
}

#[test]
fn an_edit_of_the_list_is_no_switch() {
    let mut fleet = Fleet::new(&["a", "b"]);
    fleet.switch("b").unwrap();
    for (hosts, active) in [
        (&["c", "a", "b"][..], "b"),
        (&["b", "c"], "b"),
        (&["c", "b"], "b"),
        // What takes its place is what a person put there.
        (&["c", "d"], "d"),
        // It is gone: nobody chose another one.
        (&["c"], "c"),
        (&["e", "c"], "c"),
        (&["a", "b"], "b"),
        (&["c", "a"], "c"),
    ] {
        fleet.edit(hosts);
        assert_eq!(fleet.active(), active, "{hosts:?}");
        let offer = fleet.run();
        assert!(pulls_from(&offer, active), "{hosts:?}: {offer:?}");
        fleet.end(&offer, good());
    }
}

#[test]
fn a_password_goes_to_the_host_of_the_attempt_alone() {
    let mut fleet = Fleet::new(&["a", "b"]);
    let offer = fleet.run();
    fleet.accept(&offer);
    let told = |fleet: &mut Fleet, connection: u64| {
        let epoch: Epoch = offer.epoch;
        let attempt = fleet.engine.attempt(offer.attempt).unwrap().clone();
        let held = Held {
            attempt: offer.attempt,
            epoch,
            project: fleet.project,
            destination: attempt.destination,
            role: attempt.role,
            spec_hash: attempt.spec_hash,
            dry_run: false,
            keep_extra: false,
            autonomous: None,
            recorded: false,
            ended: false,
        };
        fleet.sent.clear();
        fleet.hello(connection, vec![held]);
        let password = |message: &Message| match message {
            Message::Continue { sealed_password, .. } => Some(sealed_password.clone()),
            _ => None,
        };
        fleet.sent.iter().find_map(password).expect("it goes on")
    };
    assert_eq!(told(&mut fleet, 2), b"a");
    fleet.edit(&["b", "a"]);
    assert_eq!(told(&mut fleet, 3), b"a");
    fleet.edit(&["b", "c"]);
    assert_eq!(told(&mut fleet, 4), b"", "a's own is gone, and no other is for a");
}

#[test]
fn an_offer_that_comes_back_asks_what_is_declared_by_then() {
    let mut fleet = Fleet::new(&["a", "b"]);
    let offer = fleet.run();
    fleet.edit(&["c", "b"]);
    fleet.hello(2, Vec::new());
    let again = fleet.offered(Duration::ZERO);
    assert!(again.attempt == offer.attempt && pulls_from(&again, "c"), "{again:?}");
    assert_eq!(fleet.engine.attempt(again.attempt).unwrap().upstream_host, "c");
}
