//! Which upstream an origin pulls from, as the engine decides it: the one that a person chose, through retries and edits
//! of the list; and where a marker tells how new a tree is, the next one in its place, for one run.

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
    marker::{Marker, MarkerCheck, MarkerKind, MarkerSeen},
    outcome::{Evidence, ExitClass, GuardKind, Outcome, Stats},
    project::{
        GuardSettings, PlacementSettings, ProjectSpec, RetrySettings, RsyncSettings, Target, Upstream,
    },
    refusal::Refusal,
    run::{RunState, TriggerKind, Wish},
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
            marker: None,
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

    /// A project that has a marker.
    fn marked(hosts: &[&str]) -> Self {
        let mut fleet = Self::new(hosts);
        fleet.mark(Some(marker()));
        fleet
    }

    fn mark(&mut self, marker: Option<Marker>) {
        let record = (*self.engine.project(self.project).unwrap().record).clone();
        let spec = Box::new(ProjectSpec { marker, ..record.spec });
        let (project, revision) = (self.project, record.revision);
        let reply = self.ask(Ask::UpdateProject { project, spec, revision, validate_only: false });
        assert_eq!(reply, Reply::Project(project));
    }

    /// A run that succeeds with this marker, at the preferred upstream.
    fn succeed(&mut self, hours: i64) {
        let offer = self.run();
        self.end(&offer, seen(good(), Some(hours), Some(hours)));
    }

    /// The marker of what is served.
    fn served(&self) -> Option<Wall> {
        self.engine.project(self.project).unwrap().state.marker
    }

    /// How the newest run that ended did.
    fn last(&self) -> RunState {
        self.engine.project(self.project).unwrap().state.last_run.unwrap().state
    }

    /// Declares these upstreams instead.
    fn edit(&mut self, hosts: &[&str]) {
        let record = (*self.engine.project(self.project).unwrap().record).clone();
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

fn marker() -> Marker {
    Marker { kind: MarkerKind::UnixTime, path: "lastupdate".to_owned() }
}

fn hour(hours: i64) -> Wall {
    Wall(1_800_000_000_000 + hours * 3_600_000)
}

/// An outcome with what was seen of the marker.
fn seen(outcome: Outcome, upstream: Option<i64>, tree: Option<i64>) -> Outcome {
    let (upstream, tree) = (upstream.map(hour), tree.map(hour));
    let marker = Some(Box::new(MarkerSeen { marker: marker(), upstream, tree, note: String::new() }));
    Outcome { marker, ..outcome }
}

/// As an agent ends what it did not pull.
fn behind() -> Outcome {
    let sentence = "rsync://x/ is 2 h older".to_owned();
    let kind = GuardKind::UpstreamBehind;
    let evidence =
        Some(Evidence { kind, wanted: 7_200, allowed: 0, names: Vec::new(), sentence: sentence.clone() });
    Outcome { cause: sentence, evidence, ..Outcome::of_class(ExitClass::UpstreamBehind) }
}

fn unreached() -> Outcome {
    let cause = "connection refused".to_owned();
    Outcome { exit_code: Some(10), cause, ..Outcome::of_class(ExitClass::Network) }
}

/// What an offer says of the marker: not before, and whether it must be read.
fn checked(offer: &Offer) -> (Option<Wall>, bool) {
    let MarkerCheck { marker: asked, not_before, required } = offer.marker.clone().unwrap();
    assert_eq!(asked, marker());
    (not_before, required)
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

#[test]
fn a_dead_upstream_is_left_for_one_run() {
    let mut fleet = Fleet::marked(&["a", "b", "c"]);
    fleet.succeed(1);
    assert_eq!(fleet.served(), Some(hour(1)));
    let mut offer = fleet.run();
    assert_eq!(checked(&offer), (Some(hour(1)), false));
    // It has its tries first.
    for _ in 1..4 {
        assert!(pulls_from(&offer, "a"), "{offer:?}");
        fleet.end(&offer, unreached());
        offer = fleet.offered(HOUR);
    }
    fleet.end(&offer, unreached());
    let second = fleet.offered(Duration::ZERO);
    assert!(pulls_from(&second, "b") && second.attempt.run == offer.attempt.run, "{second:?}");
    assert_eq!(checked(&second), (Some(hour(1)), true));
    let attempt = fleet.engine.attempt(second.attempt).unwrap();
    assert_eq!((attempt.fell_back.as_str(), attempt.attempt_try), ("a: connection refused", 1));
    fleet.end(&second, Outcome::of_class(ExitClass::NotFound));
    let third = fleet.offered(Duration::ZERO);
    assert!(pulls_from(&third, "c"), "{third:?}");
    fleet.end(&third, seen(good(), Some(2), Some(2)));
    assert_eq!((fleet.last(), fleet.served(), fleet.active()), (RunState::Succeeded, Some(hour(2)), "a"));

    let next = fleet.run();
    assert!(pulls_from(&next, "a"), "each run asks the preferred one first: {next:?}");
    assert_eq!(fleet.engine.attempt(next.attempt).unwrap().fell_back, "");
}

#[test]
fn without_a_marker_nothing_falls_back() {
    let mut fleet = Fleet::new(&["a", "b"]);
    let mut offer = fleet.run();
    assert_eq!(offer.marker, None);
    for _ in 1..4 {
        fleet.end(&offer, unreached());
        offer = fleet.offered(HOUR);
        assert!(pulls_from(&offer, "a"), "{offer:?}");
    }
    fleet.end(&offer, unreached());
    assert_eq!((fleet.wait(HOUR), fleet.last()), (Vec::new(), RunState::Failed));
}

#[test]
fn what_a_person_has_to_mend_is_not_hidden() {
    for class in [ExitClass::Auth, ExitClass::Refused, ExitClass::DiskFull, ExitClass::LocalIo] {
        let mut fleet = Fleet::marked(&["a", "b"]);
        let offer = fleet.run();
        fleet.end(&offer, Outcome::of_class(class));
        let offers = fleet.wait(HOUR);
        assert!(offers.iter().all(|offer| pulls_from(offer, "a")), "{class:?}: {offers:?}");
    }
}

#[test]
fn a_full_upstream_is_left_when_it_stays_full() {
    let mut fleet = Fleet::marked(&["a", "b"]);
    let mut offer = fleet.run();
    for _ in 0..5 {
        assert!(pulls_from(&offer, "a"), "{offer:?}");
        fleet.end(&offer, Outcome::of_class(ExitClass::Busy));
        offer = fleet.offered(HOUR);
    }
    for _ in 0..9 {
        assert!(pulls_from(&offer, "b"), "the last one is asked until it has room: {offer:?}");
        fleet.end(&offer, Outcome::of_class(ExitClass::Busy));
        offer = fleet.offered(HOUR);
    }
}

#[test]
fn a_host_whose_breaker_is_open_is_passed_by_until_it_may_be_probed() {
    let mut fleet = Fleet::marked(&["a", "b"]);
    for _ in 0..2 {
        let mut offer = fleet.run();
        while pulls_from(&offer, "a") {
            fleet.end(&offer, unreached());
            let mut offers = fleet.wait(Duration::ZERO);
            offer = offers.pop().unwrap_or_else(|| fleet.offered(HOUR));
        }
        fleet.end(&offer, seen(good(), Some(1), Some(1)));
    }
    let passing = fleet.run();
    assert!(pulls_from(&passing, "b"), "{passing:?}");
    let why = &fleet.engine.attempt(passing.attempt).unwrap().fell_back;
    assert!(why.starts_with("a could not be reached "), "{why}");
    fleet.end(&passing, seen(good(), Some(2), Some(2)));
    fleet.wait(3 * HOUR);
    let probe = fleet.run();
    assert!(pulls_from(&probe, "a"), "{probe:?}");
}

#[test]
fn one_that_is_behind_is_asked_again_and_held_after_a_day_and_three_runs() {
    let mut fleet = Fleet::marked(&["a"]);
    fleet.succeed(5);
    let placement = |fleet: &Fleet| fleet.engine.project(fleet.project).unwrap().origin().unwrap().clone();
    for run in 1..4_u32 {
        let mut offer = fleet.run();
        let id = offer.attempt.run;
        let mut tries = 0;
        loop {
            assert_eq!((offer.attempt.run, checked(&offer)), (id, (Some(hour(5)), false)));
            fleet.end(&offer, behind());
            tries += 1;
            if fleet.engine.run(id).is_none_or(|run| run.state.is_closed()) {
                break;
            }
            assert_eq!(fleet.wait(Duration::from_secs(29 * 60)), Vec::new());
            offer = fleet.offered(Duration::from_secs(60));
        }
        let held = placement(&fleet).hold;
        if run < 3 {
            assert_eq!((tries, fleet.last()), (49, RunState::Failed));
            assert_eq!(held, None);
        } else {
            assert_eq!((tries, fleet.last()), (1, RunState::Held));
            assert_eq!(held.unwrap().evidence.kind, GuardKind::UpstreamBehind);
        }
        assert!(!placement(&fleet).half_changed, "nothing was pulled");
    }
    // While it is held each fire looks once; and the hold closes by itself.
    let offer = fleet.run();
    fleet.end(&offer, behind());
    assert_eq!((fleet.wait(HOUR), fleet.last()), (Vec::new(), RunState::Held));
    fleet.succeed(6);
    assert_eq!((placement(&fleet).hold, placement(&fleet).behind), (None, None));
    assert_eq!((placement(&fleet).marker, fleet.served()), (Some(hour(6)), Some(hour(6))));
}

#[test]
fn a_person_may_take_the_older_tree() {
    let mut fleet = Fleet::marked(&["a"]);
    fleet.succeed(5);
    for _ in 0..3 {
        let offer = fleet.run();
        fleet.end(&offer, behind());
        fleet.ask(Ask::CancelRun { project: fleet.project, run: offer.attempt.run });
        fleet.wait(13 * HOUR);
    }
    let offer = fleet.run();
    fleet.end(&offer, behind());
    assert_eq!(fleet.last(), RunState::Held);
    let (project, run) = (fleet.project, offer.attempt.run);
    let approve = Ask::Approve { project, run, reason: String::new(), saw: None, traceparent: String::new() };
    fleet.ask(approve);
    let allowed = fleet.offered(Duration::ZERO);
    assert_eq!(allowed.waived, [GuardKind::UpstreamBehind]);
    fleet.end(&allowed, seen(good(), Some(3), Some(3)));
    assert_eq!((fleet.last(), fleet.served()), (RunState::Succeeded, Some(hour(3))));
}

#[test]
fn where_one_is_behind_the_next_is_asked_and_then_all_again() {
    let mut fleet = Fleet::marked(&["a", "b"]);
    fleet.succeed(5);
    let first = fleet.run();
    fleet.end(&first, behind());
    let second = fleet.offered(Duration::ZERO);
    assert!(pulls_from(&second, "b"), "{second:?}");
    let why = &fleet.engine.attempt(second.attempt).unwrap().fell_back;
    assert_eq!(why, "a: rsync://x/ is 2 h older");
    fleet.end(&second, behind());
    assert_eq!(fleet.wait(Duration::from_secs(29 * 60)), Vec::new());
    let again = fleet.offered(Duration::from_secs(60));
    assert!(pulls_from(&again, "a") && again.attempt.run == first.attempt.run, "{again:?}");
    fleet.end(&again, seen(good(), Some(6), Some(6)));
    assert_eq!((fleet.last(), fleet.served()), (RunState::Succeeded, Some(hour(6))));
}

#[test]
fn what_turns_out_older_is_no_version() {
    let older = seen(good(), Some(6), Some(4));
    let unread = seen(good(), None, None);
    for (outcome, class) in [(older, "older than"), (unread, "unread")] {
        let mut fleet = Fleet::marked(&["a", "b"]);
        fleet.succeed(5);
        let tree = fleet.engine.project(fleet.project).unwrap().state.tree;
        let first = fleet.run();
        fleet.end(&first, behind());
        let second = fleet.offered(Duration::ZERO);
        fleet.end(&second, outcome);
        let project = fleet.engine.project(fleet.project).unwrap();
        assert_eq!((project.state.tree, fleet.served()), (tree, Some(hour(5))), "{class}");
        assert!(project.origin().unwrap().half_changed, "{class}: nobody may copy what is there now");
        let again = fleet.offered(HOUR);
        fleet.end(&again, seen(good(), Some(7), Some(7)));
        assert_eq!(fleet.served(), Some(hour(7)));
    }
}

#[test]
fn a_marker_that_vanishes_makes_nothing_older() {
    let mut fleet = Fleet::marked(&["a", "b"]);
    fleet.succeed(5);
    let offer = fleet.run();
    fleet.end(&offer, seen(good(), None, None));
    assert_eq!((fleet.last(), fleet.served()), (RunState::Succeeded, Some(hour(5))));
    let offer = fleet.run();
    assert_eq!(checked(&offer), (Some(hour(5)), false));
    fleet.end(&offer, seen(good(), Some(6), None));
    assert_eq!(fleet.served(), Some(hour(6)), "the upstream's word, where the tree holds none");

    // What another file told is no measure for this one.
    fleet.mark(Some(Marker { kind: MarkerKind::Mtime, path: "lastupdate".to_owned() }));
    assert_eq!(fleet.served(), None);
    assert_eq!(fleet.engine.project(fleet.project).unwrap().origin().unwrap().marker, None);
    let offer = fleet.run();
    fleet.end(&offer, seen(good(), Some(7), Some(7)));
    assert_eq!(fleet.served(), None, "it was begun before the edit");
}

#[test]
fn what_waits_for_another_upstream_follows_edits_and_switches() {
    let waits = |hosts: &[&str]| {
        let mut fleet = Fleet::marked(hosts);
        let offer = fleet.run();
        fleet.end(&offer, behind());
        let second = fleet.offered(Duration::ZERO);
        assert!(pulls_from(&second, "b"), "{second:?}");
        fleet.end(&second, unreached());
        fleet
    };
    let mut fleet = waits(&["a", "b", "c"]);
    fleet.edit(&["c", "b", "a"]);
    let kept = fleet.offered(HOUR);
    assert!(pulls_from(&kept, "b") && checked(&kept).1, "{kept:?}");

    let mut fleet = waits(&["a", "b", "c"]);
    fleet.edit(&["a", "c"]);
    let gone = fleet.offered(HOUR);
    assert!(pulls_from(&gone, "a") && !checked(&gone).1, "{gone:?}");

    let mut fleet = waits(&["a", "b", "c"]);
    fleet.switch("b").unwrap();
    let chosen = fleet.offered(HOUR);
    assert!(pulls_from(&chosen, "b") && !checked(&chosen).1, "{chosen:?}");

    let mut fleet = waits(&["a", "b", "c"]);
    fleet.mark(None);
    let unmarked = fleet.offered(HOUR);
    assert!(pulls_from(&unmarked, "a") && unmarked.marker.is_none(), "{unmarked:?}");
}

#[test]
fn a_password_of_the_next_upstream_goes_to_it_alone() {
    let mut fleet = Fleet::marked(&["a", "b"]);
    let offer = fleet.run();
    fleet.end(&offer, behind());
    let second = fleet.offered(Duration::ZERO);
    assert_eq!(second.sealed_password, b"b");
    fleet.accept(&second);
    let attempt = fleet.engine.attempt(second.attempt).unwrap().clone();
    let held = Held {
        attempt: second.attempt,
        epoch: second.epoch,
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
    fleet.hello(2, vec![held]);
    let passwords: Vec<&Vec<u8>> = fleet
        .sent
        .iter()
        .filter_map(|message| match message {
            Message::Continue { sealed_password, .. } => Some(sealed_password),
            _ => None,
        })
        .collect();
    assert_eq!(passwords, [b"b"]);
}
