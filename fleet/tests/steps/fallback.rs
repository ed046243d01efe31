//! Which upstream an origin pulls from, as the engine decides it: the one that a person chose, through retries and edits
//! of the list. What a marker changes of that is in `fallback_markers.rs`.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use fleet::{
    attempt::AttemptRecord,
    engine::WaitReason,
    id::{AgentUid, ProjectUid},
    input::{Ask, Held, Message, Offer, Reply},
    outcome::{ExitClass, Outcome},
    project::{ProjectSpec, Upstream},
    refusal::Refusal,
    run::RunState,
};

use super::world::{self, HOUR, World, ok, root, spec};

/// An origin and its project.
pub(super) struct Fleet {
    world: World,
    pub(super) project: ProjectUid,
    origin: AgentUid,
}

impl Deref for Fleet {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Fleet {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

/// `rsync://HOST/debian/`, with a password of its own.
fn upstream(host: &str) -> Upstream {
    Upstream {
        user: format!("at-{host}"),
        sealed_password: host.as_bytes().to_vec(),
        ..world::upstream(host)
    }
}

impl Fleet {
    /// Nothing has run yet.
    pub(super) fn new(hosts: &[&str]) -> Self {
        let mut world = World::new();
        let origin = world.agent("ftp1", &[]);
        let upstreams = hosts.iter().map(|host| upstream(host)).collect();
        let spec = ProjectSpec { upstreams, ..spec("a1:debian", &[origin], Vec::new()) };
        let project = world.declare("debian", spec).unwrap();
        Self { world, project, origin }
    }

    /// The agent comes back, and tells of these.
    pub(super) fn back(&mut self, attempts: Vec<Held>) {
        let origin = self.origin;
        self.hello(origin, vec![root("a1", 512)], attempts);
    }

    /// Lets time pass, and everything that is due happen; the offers of that time.
    pub(super) fn wait(&mut self, span: Duration) -> Vec<Offer> {
        self.pass(span);
        std::mem::take(&mut self.offers)
    }

    /// The one offer of a new run.
    pub(super) fn run(&mut self) -> Offer {
        self.world.run(self.project);
        self.offered(Duration::ZERO)
    }

    /// The one offer of that time; nobody has taken it.
    pub(super) fn offered(&mut self, span: Duration) -> Offer {
        let mut offers = self.wait(span);
        assert_eq!(offers.len(), 1, "{offers:?}");
        offers.remove(0)
    }

    /// Taken, and ended; what follows is done when time passes.
    pub(super) fn end(&mut self, offer: &Offer, outcome: Outcome) {
        self.accept(offer);
        self.report(offer, outcome);
    }

    /// What its agent tells of an attempt that goes on.
    pub(super) fn held(&self, offer: &Offer) -> Held {
        let attempt = self.engine.attempt(offer.attempt).unwrap().clone();
        Held {
            attempt: offer.attempt,
            epoch: offer.epoch,
            project: self.project,
            destination: attempt.destination,
            role: attempt.role,
            spec_hash: attempt.spec_hash,
            dry_run: false,
            keep_extra: false,
            autonomous: None,
            recorded: false,
            ended: false,
            needs_secrets: true,
        }
    }

    /// Those that attempts which go on were given.
    pub(super) fn passwords(&self) -> Vec<Vec<u8>> {
        let given = self.said.iter().filter_map(|(_, message)| match message {
            Message::Continue { sealed_password, .. } => Some(sealed_password.clone()),
            _ => None,
        });
        given.collect()
    }

    pub(super) fn switch(&mut self, host: &str) -> Result<(), Refusal> {
        let (project, uri) = (self.project, upstream(host).uri);
        match self.ask(Ask::SwitchUpstream { project, uri, revision: None }) {
            Reply::Project(_) => Ok(()),
            Reply::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// How the newest run that ended did.
    pub(super) fn last(&self) -> RunState {
        self.engine.project(self.project).unwrap().state.last_run.unwrap().state
    }

    /// Declares these upstreams instead.
    pub(super) fn declare_at(&mut self, hosts: &[&str]) {
        let project = self.project;
        self.edit(project, |spec| spec.upstreams = hosts.iter().map(|host| upstream(host)).collect());
    }

    /// The host that is pulled from.
    pub(super) fn active(&self) -> &str {
        &self.engine.project(self.project).unwrap().upstream().unwrap().host
    }
}

pub(super) fn pulls_from(offer: &Offer, host: &str) -> bool {
    let Upstream { uri, user, sealed_password, .. } = upstream(host);
    (&offer.source_uri, &offer.user, &offer.sealed_password) == (&uri, &user, &sealed_password)
}

pub(super) fn unreached() -> Outcome {
    let cause = "connection refused".to_owned();
    Outcome { exit_code: Some(10), cause, ..Outcome::of_class(ExitClass::Network) }
}

#[test]
fn the_first_is_pulled_from_until_a_person_switches() {
    let mut fleet = Fleet::new(&["a", "b"]);
    let offer = fleet.run();
    assert!(pulls_from(&offer, "a"), "{offer:?}");
    fleet.end(&offer, ok());

    // However often the first one fails, nothing else is asked.
    let failed = fleet.run();
    fleet.end(&failed, Outcome::of_class(ExitClass::NotFound));
    let again = fleet.run();
    assert!(pulls_from(&again, "a"), "{again:?}");
    fleet.end(&again, Outcome::of_class(ExitClass::NotFound));

    let tree = fleet.tree(fleet.project);
    let before = fleet.record(fleet.project).revision;
    fleet.switch("b").unwrap();
    assert_eq!(fleet.record(fleet.project).revision, before + 1, "who saw it as it was before is told");
    let offer = fleet.run();
    assert!(pulls_from(&offer, "b"), "{offer:?}");
    assert_eq!(fleet.engine.attempt(offer.attempt).unwrap().upstream_host, "b");
    assert!(!offer.first_sync, "the tree is the same one");
    fleet.end(&offer, ok());
    let newer = fleet.tree(fleet.project);
    assert!(newer.is_some() && newer != tree);
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
    let steps: [fn(&mut Fleet, &Offer); 2] = [|fleet, offer| fleet.accept(offer), |_, _| {}];
    for step in steps {
        let refusal = fleet.switch("b").unwrap_err();
        assert_eq!(refusal.reason, "ATTEMPT_RUNNING");
        assert!(refusal.message.contains("\"ftp1\" may be pulling from a;"), "{}", refusal.message);
        step(&mut fleet, &offer);
    }
    fleet.switch("a").unwrap();
    fleet.end(&offer, ok());
    fleet.switch("b").unwrap();
    let refusal = fleet.switch("c").unwrap_err();
    assert_eq!(refusal.violations[0].field, "upstream");
    let stale =
        Ask::SwitchUpstream { project: fleet.project, uri: world::upstream("a").uri, revision: Some(1) };
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
        fleet.declare_at(hosts);
        assert_eq!(fleet.active(), active, "{hosts:?}");
        let offer = fleet.run();
        assert!(pulls_from(&offer, active), "{hosts:?}: {offer:?}");
        fleet.end(&offer, ok());
    }
}

#[test]
fn a_password_goes_to_the_host_of_the_attempt_alone() {
    let mut fleet = Fleet::new(&["a", "b"]);
    let offer = fleet.run();
    fleet.accept(&offer);
    let told = |fleet: &mut Fleet| {
        let held = fleet.held(&offer);
        fleet.said.clear();
        fleet.back(vec![held]);
        let [password] = &fleet.passwords()[..] else { panic!("it goes on once") };
        password.clone()
    };
    assert_eq!(told(&mut fleet), b"a");
    fleet.declare_at(&["b", "a"]);
    assert_eq!(told(&mut fleet), b"a");
    fleet.declare_at(&["b", "c"]);
    assert_eq!(told(&mut fleet), b"", "a's own is gone, and no other is for a");
}

#[test]
fn an_offer_that_comes_back_asks_what_is_declared_by_then() {
    let mut fleet = Fleet::new(&["a", "b"]);
    let offer = fleet.run();
    fleet.declare_at(&["c", "b"]);
    fleet.back(Vec::new());
    let again = fleet.offered(Duration::ZERO);
    assert!(again.attempt == offer.attempt && pulls_from(&again, "c"), "{again:?}");
    assert_eq!(fleet.engine.attempt(again.attempt).unwrap().upstream_host, "c");
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
