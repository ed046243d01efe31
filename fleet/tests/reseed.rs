//! A lost tree copied from another placement: an origin, two replicas and their project, told step by step.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, time::Duration};

use fleet::{
    Engine,
    agent::{AgentFacts, Root, TokenNames},
    attempt::Role,
    defaults::Limits,
    engine::WaitReason,
    id::{AgentUid, AttemptId, Epoch, ProjectUid, RunId},
    input::{AgentInput, Ask, Export, Held, Input, Message, Offer, Person, Reply},
    outcome::{ExitClass, GuardKind, Outcome, Stats},
    placement::PlacementRecord,
    project::{
        GuardSettings, Pick, PlacementSettings, ProjectSpec, Replicas, RetrySettings, RsyncSettings, Target,
        Upstream,
    },
    run::{RunState, TriggerKind, Wish},
    schedule::{Cadence, Cron, Schedule, parse_zone},
    standing::AutonomousFire,
    time::{Mono, Now, Wall},
};

const HOUR: Duration = Duration::from_secs(3_600);
/// The second upstream of a project that has two.
const OTHER: &str = "rsync://other/debian";

/// An origin `ftp1`, the replicas `edge1` and `edge2`, and a project whose tree all of them have.
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
    /// Whether each agent was last told to run the project by itself.
    alone: BTreeMap<AgentUid, bool>,
    cancelled: usize,
}

fn ok() -> Outcome {
    let stats = Some(Stats { files: 10_000, total_bytes: 10_000_000, ..Stats::default() });
    Outcome { stats, ..Outcome::of_class(ExitClass::Ok) }
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
            alone: BTreeMap::new(),
            cancelled: 0,
        };
        fleet.put(Input::Start { at_least: 0 });
        (fleet.origin, fleet.edge1, fleet.edge2) =
            (fleet.agent("ftp1"), fleet.agent("edge1"), fleet.agent("edge2"));
        let replicas = [fleet.edge1, fleet.edge2];
        let spec = ProjectSpec {
            display_name: String::new(),
            labels: Default::default(),
            upstreams: vec![Upstream {
                uri: "rsync://up/debian".to_owned(),
                host: "up".to_owned(),
                user: String::new(),
                sealed_password: Vec::new(),
            }],
            destination: "a1:debian".parse().unwrap(),
            schedule: Schedule::new(Cadence::Manual, parse_zone("UTC").unwrap()),
            rsync: RsyncSettings::default(),
            placement: PlacementSettings {
                origins: vec![Target { agent: fleet.origin, destination: None }],
                replicas: replicas
                    .map(|agent| Replicas { pick: Pick::Agent(agent), destination: None })
                    .into(),
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
        fleet.run();
        for _ in 0..3 {
            let offer = fleet.offered();
            fleet.end(&offer, ok());
        }
        fleet.settle();
        assert!(fleet.offers.is_empty() && fleet.engine.attempts().next().is_none());
        fleet
    }

    fn put(&mut self, input: Input) -> Reply {
        self.now.entropy += 1;
        let decision = self.engine.decide(self.now, input);
        self.engine.apply(self.now, &decision.changes);
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
                Message::Autonomy { complete, orders, withdrawn, .. }
                    if complete || !orders.is_empty() || !withdrawn.is_empty() =>
                {
                    self.alone.insert(send.agent, !orders.is_empty());
                }
                Message::Cancel { .. } => self.cancelled += 1,
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
            labels: Default::default(),
            key_hash: name.to_owned(),
            serial: "01".to_owned(),
            expires: self.now.wall.plus(900 * HOUR),
        };
        let Reply::Agent(agent) = self.put(Input::Agent(enroll)) else { panic!("not enrolled") };
        self.hello(agent, 1);
        agent
    }

    fn hello(&mut self, agent: AgentUid, connection: u64) {
        self.hello_with(agent, connection, Vec::new());
    }

    fn hello_with(&mut self, agent: AgentUid, connection: u64, attempts: Vec<Held>) {
        let root = Root {
            name: "a1".to_owned(),
            path: "/srv".to_owned(),
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
            total_inodes: 0,
            free_inodes: 0,
        };
        let serve_uri = format!("rsync://h{}", agent.0);
        let facts = AgentFacts { slots: 4, roots: vec![root], serve_uri, ..AgentFacts::default() };
        self.put(Input::Agent(AgentInput::Hello {
            agent,
            state_id: format!("s{}", agent.0),
            highest_term: 0,
            connection,
            facts,
            attempts,
        }));
        self.settle();
    }

    /// The project has a schedule and a second upstream from now on.
    fn schedule(&mut self) {
        let project = &self.engine.project(self.project).unwrap().record;
        let mut spec = project.spec.clone();
        let revision = project.revision;
        // Not within these tests.
        let daily = Cron::parse("hour=3".parse().unwrap()).unwrap();
        spec.schedule = Schedule::cron(daily, parse_zone("UTC").unwrap());
        let other = Upstream { uri: OTHER.to_owned(), host: "other".to_owned(), ..spec.upstreams[0].clone() };
        spec.upstreams.push(other);
        let spec = Box::new(spec);
        self.ask(Ask::UpdateProject { project: self.project, spec, revision, validate_only: false });
        self.settle();
    }

    /// What the origin ran alone, as its hello tells.
    fn ran_alone(&self, ended: bool) -> Held {
        let started = self.now.wall;
        Held {
            needs_secrets: true,
            attempt: AttemptId { run: RunId::mint(started.0 + 1, 99, RunId::NIL), number: 1 },
            epoch: Epoch::autonomous(self.engine.fleet().term),
            project: self.project,
            role: Role::Origin,
            destination: "a1:debian".parse().unwrap(),
            spec_hash: "0".to_owned(),
            ended,
            dry_run: false,
            keep_extra: false,
            recorded: false,
            autonomous: Some(AutonomousFire { scheduled: started, started, max_delete: 0 }),
        }
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

    fn reseed(&mut self, agent: AgentUid, from: AgentUid) -> Reply {
        let (project, traceparent) = (self.project, String::new());
        let reply = self.ask(Ask::Reseed { project, agent, from, revision: None, traceparent });
        self.settle();
        reply
    }

    fn reseeded(&mut self, agent: AgentUid, from: AgentUid) -> RunId {
        match self.reseed(agent, from) {
            Reply::Run { run, .. } => run,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&mut self, agent: AgentUid, from: AgentUid) -> &'static str {
        match self.reseed(agent, from) {
            Reply::Refused(refusal) => refusal.reason,
            other => panic!("{other:?}"),
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

    /// Who may pull the project's tree from the agent, as it was last told.
    fn may_pull(&self, from: AgentUid) -> Vec<AgentUid> {
        let told = self.exports.iter().rev().find(|(agent, _)| *agent == from);
        let pairs = told.and_then(|(_, export)| export.as_ref()).map(|export| export.pairs.clone());
        let mut who: Vec<AgentUid> = pairs.unwrap_or_default().iter().map(|pair| pair.replica).collect();
        who.sort_unstable();
        who.dedup();
        who
    }
}

#[test]
fn an_origin_is_reseeded_from_a_replica_without_a_delete_or_a_version() {
    let mut fleet = Fleet::new();
    let (before, wanted) = (fleet.tree(), fleet.engine.project(fleet.project).unwrap().state.wanted);
    let run = fleet.reseeded(fleet.origin, fleet.edge1);
    assert_eq!(fleet.may_pull(fleet.edge1), [fleet.origin]);
    assert_eq!(fleet.placement(fleet.origin).have_tree, None, "nobody pulls from an empty disk");
    let offer = fleet.offered();
    assert_eq!((offer.attempt.run, offer.role, Some(offer.tree)), (run, Role::Origin, before));
    assert!(offer.keep_extra && offer.max_delete == 0 && !offer.dry_run && !offer.reclaim);
    assert_eq!(offer.waived, [GuardKind::Adoption]);
    assert_eq!(offer.source_uri, format!("rsync://h{}/{}/", fleet.edge1.0, fleet.project.0));
    let pair = offer.pair.unwrap();
    assert_eq!((pair.origin, pair.replica), (fleet.edge1, fleet.origin));
    assert!(offer.user.is_empty() && offer.sealed_password.is_empty());
    fleet.end(&offer, ok());
    assert_eq!(fleet.placement(fleet.origin).have_tree, before);
    let state = &fleet.engine.project(fleet.project).unwrap().state;
    assert_eq!((state.tree, state.wanted), (before, wanted), "no version, and no trigger");
    assert!(fleet.engine.run(run).is_none(), "it is history");
    assert!(fleet.offers.is_empty(), "nothing propagates");
    assert!(fleet.may_pull(fleet.edge1).is_empty(), "the wish is over: {:?}", fleet.exports);
}

#[test]
fn the_origins_pulls_wait_until_its_tree_is_there() {
    let mut fleet = Fleet::new();
    fleet.reseeded(fleet.origin, fleet.edge1);
    let reseed = fleet.offered();
    let run = fleet.run();
    assert!(fleet.waits(run).contains(&WaitReason::DestinationBusy), "{:?}", fleet.waits(run));
    assert!(fleet.offers.is_empty());
    fleet.end(&reseed, ok());
    let pull = fleet.offered();
    assert_eq!((pull.attempt.run, pull.first_sync, pull.keep_extra), (run, false, false));
    assert!(pull.source_uri.starts_with("rsync://up/") && pull.max_delete > 0);
}

#[test]
fn a_run_goes_on_while_a_replica_is_reseeded_from_another() {
    let mut fleet = Fleet::new();
    let old = fleet.tree();
    fleet.reseeded(fleet.edge1, fleet.edge2);
    let reseed = fleet.offered();
    assert_eq!((reseed.role, fleet.on(&reseed)), (Role::Replica, fleet.edge1));
    let run = fleet.run();
    let pull = fleet.offered();
    assert_eq!(pull.attempt.run, run);
    fleet.end(&pull, ok());
    // The donor pulls the new tree: what was copied from it meanwhile is no version.
    let donor = fleet.offered();
    assert_eq!(fleet.on(&donor), fleet.edge2);
    fleet.end(&reseed, ok());
    assert_eq!(fleet.placement(fleet.edge1).have_tree, None);
    assert!(fleet.offers.is_empty(), "the donor is changing");
    fleet.end(&donor, ok());
    let again = fleet.offered();
    assert!(again.keep_extra && again.tree == run && Some(again.tree) != old);
    fleet.end(&again, ok());
    assert_eq!(fleet.placement(fleet.edge1).have_tree, Some(run));
    assert!(fleet.engine.attempts().next().is_none());
}

#[test]
fn what_cannot_be_copied_is_refused_with_a_next_step() {
    let mut fleet = Fleet::new();
    assert_eq!(fleet.refused(fleet.origin, fleet.origin), "SAME_AGENT");
    let stranger = fleet.agent("edge9");
    assert_eq!(fleet.refused(fleet.origin, stranger), "NOT_PLACED");
    fleet.gone(fleet.edge1);
    assert_eq!(fleet.refused(fleet.origin, fleet.edge1), "AGENT_AWAY");
    fleet.hello(fleet.edge1, 2);
    fleet.run();
    let pull = fleet.offered();
    assert_eq!(fleet.refused(fleet.origin, fleet.edge1), "ATTEMPT_RUNNING");
    fleet.end(&pull, ok());
    assert_eq!(fleet.refused(fleet.origin, fleet.edge1), "BEHIND");
    for _ in 0..2 {
        let replica = fleet.offered();
        fleet.end(&replica, ok());
    }
    fleet.reseeded(fleet.origin, fleet.edge1);
    assert_eq!(fleet.refused(fleet.origin, fleet.edge2), "RESEED_OPEN");
    assert_eq!(fleet.refused(fleet.edge2, fleet.origin), "BEHIND", "the target has no tree to give");
}

#[test]
fn a_reseed_that_cannot_be_had_ends_and_leaves_the_placement_to_ordinary_pulls() {
    let mut fleet = Fleet::new();
    let lost = Outcome::of_class(ExitClass::NotFound);
    let run = fleet.reseeded(fleet.edge1, fleet.edge2);
    let reseed = fleet.offered();
    fleet.end(&reseed, lost);
    assert!(fleet.engine.run(run).is_none());
    let ordinary = fleet.offered();
    assert!(!ordinary.keep_extra && ordinary.first_sync, "{ordinary:?}");
    assert_eq!(ordinary.pair.unwrap().origin, fleet.origin);
    fleet.end(&ordinary, ok());

    // The donor is lost for good while the copy waits for it.
    fleet.reseeded(fleet.origin, fleet.edge1);
    let reseed = fleet.offered();
    fleet.end(&reseed, Outcome::of_class(ExitClass::Network));
    fleet.gone(fleet.edge1);
    fleet.ask(Ask::RevokeAgent { agent: fleet.edge1, reason: String::new() });
    fleet.settle();
    assert!(fleet.engine.attempts().next().is_none(), "{:?}", fleet.engine.attempts().next());
}

#[test]
fn a_cancelled_reseed_frees_the_origin() {
    let mut fleet = Fleet::new();
    let (project, run) = (fleet.project, fleet.reseeded(fleet.origin, fleet.edge1));
    let reseed = fleet.offered();
    let pull = fleet.run();
    fleet.ask(Ask::CancelRun { project, run });
    assert_eq!(fleet.cancelled, 1);
    assert_eq!(fleet.engine.run(run).unwrap().state, RunState::Running);
    fleet.end(&reseed, Outcome::of_class(ExitClass::Cancelled));
    let offer = fleet.offered();
    assert_eq!((offer.attempt.run, offer.first_sync), (pull, true));
}

#[test]
fn an_origin_that_is_reseeded_is_neither_moved_nor_replaced() {
    let mut fleet = Fleet::new();
    fleet.gone(fleet.origin);
    fleet.reseeded(fleet.origin, fleet.edge1);
    let (project, agent) = (fleet.project, fleet.edge1);
    let promote = Ask::Promote { project, agent, revision: None, force: true };
    let Reply::Refused(refusal) = fleet.ask(promote) else { panic!("promoted") };
    assert_eq!(refusal.reason, "ATTEMPT_RUNNING");
}

#[test]
fn the_agent_of_a_lost_tree_serves_nobody_and_runs_nothing_alone_until_the_wish_is_over() {
    for cancels in [false, true] {
        let mut fleet = Fleet::new();
        fleet.schedule();
        let (project, origin) = (fleet.project, fleet.origin);
        assert_eq!((fleet.alone[&origin], fleet.may_pull(origin).len()), (true, 2));
        let run = fleet.reseeded(origin, fleet.edge1);
        assert_eq!((fleet.alone[&origin], fleet.may_pull(origin).len()), (false, 0));
        if cancels {
            fleet.offers.clear();
            fleet.ask(Ask::CancelRun { project, run });
            fleet.gone(origin);
            fleet.hello(origin, 2);
        } else {
            let reseed = fleet.offered();
            fleet.end(&reseed, ok());
        }
        assert!(fleet.engine.run(run).is_none());
        assert_eq!((fleet.alone[&origin], fleet.may_pull(origin).len()), (true, 2));
    }
}

#[test]
fn a_switch_of_the_upstream_leaves_a_reseed_alone() {
    let mut fleet = Fleet::new();
    fleet.schedule();
    let project = fleet.project;
    let switch = |uri: &str| Ask::SwitchUpstream { project, uri: uri.to_owned(), revision: None };
    let donor = fleet.edge1;
    fleet.gone(fleet.origin);
    let run = fleet.reseeded(fleet.origin, donor);
    // While it waits, and while it is out.
    assert!(matches!(fleet.ask(switch(OTHER)), Reply::Project(_)));
    assert_eq!(fleet.engine.attempts_of(run).next().unwrap().upstream_host, "");
    fleet.hello(fleet.origin, 2);
    let reseed = fleet.offered();
    assert!(reseed.source_uri.starts_with(&format!("rsync://h{}/", donor.0)));
    assert!(matches!(fleet.ask(switch("rsync://up/debian")), Reply::Project(_)));
    fleet.end(&reseed, ok());
    fleet.run();
    assert!(fleet.offered().source_uri.starts_with("rsync://up/"));
}

/// An origin that was away when its tree was lost may have pulled before that: nobody is to be served what it says.
#[test]
fn what_an_agent_pulled_alone_is_no_version_where_the_tree_was_lost() {
    for (ended, donor_first) in [(false, true), (true, true), (true, false)] {
        let mut fleet = Fleet::new();
        fleet.schedule();
        let (before, origin) = (fleet.tree(), fleet.origin);
        fleet.gone(origin);
        let run = fleet.reseeded(origin, fleet.edge1);
        if !donor_first {
            // The wish is over before the agent is back.
            fleet.ask(Ask::CancelRun { project: fleet.project, run });
        }
        let held = fleet.ran_alone(ended);
        fleet.hello_with(origin, 2, vec![held.clone()]);
        assert!(fleet.offers.is_empty(), "{:?}: what it ran alone comes first", fleet.offers);
        let (agent, outcome) = (origin, ok());
        fleet.put(Input::Agent(AgentInput::EndedAlone { agent, held: Box::new(held.clone()), outcome }));
        assert_eq!((fleet.tree(), fleet.placement(origin).have_tree), (before, None));
        if donor_first {
            let reseed = fleet.offered();
            assert!(reseed.keep_extra && reseed.attempt.run == run);
            fleet.end(&reseed, ok());
            assert_eq!(fleet.placement(origin).have_tree, before);
        }
        let again = fleet.offered();
        assert_eq!((again.attempt.run, again.attempt.number), (held.attempt.run, 2));
        fleet.end(&again, ok());
        assert_eq!(fleet.tree(), Some(held.attempt.run));
        assert_eq!(fleet.placement(origin).have_tree, fleet.tree());
    }
}

#[test]
fn a_reseed_that_is_cancelled_while_its_donor_changes_is_not_tried_again() {
    let mut fleet = Fleet::new();
    let run = fleet.reseeded(fleet.edge1, fleet.origin);
    let reseed = fleet.offered();
    fleet.run();
    let pull = fleet.offers.remove(0);
    assert_eq!(fleet.on(&pull), fleet.origin);
    fleet.ask(Ask::CancelRun { project: fleet.project, run });
    fleet.end(&reseed, ok());
    assert!(fleet.engine.run(run).is_none(), "{:?}", fleet.engine.run(run));
    assert_eq!(fleet.placement(fleet.edge1).have_tree, None);
}
