//! One agent in another's place, told step by step: origin, stand-by, replica by name and by label; what is refused;
//! and what an agent that is away may still say.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, time::Duration};

use fleet::{
    Engine,
    agent::{AgentFacts, Root, TokenNames},
    attempt::Role,
    defaults::Limits,
    engine::CHANGES_MAX,
    id::{AgentUid, ProjectUid, RunId},
    input::{
        AgentInput, AgentReplacement, Ask, CloseReason, Export, Held, Input, Message, Offer, Person, Refill,
        Replaced, ReplacedPlacement, Reply,
    },
    outcome::{ExitClass, Outcome, Stats},
    placement::PlacementRecord,
    project::{
        GuardSettings, Pick, PlacementSettings, ProjectSpec, Replicas, RetrySettings, RsyncSettings, Target,
        Upstream,
    },
    record::{Change, Record},
    refusal::{Refusal, RefusalCode},
    run::{TriggerKind, Wish},
    schedule::{Cadence, Schedule, parse_zone},
    time::{Mono, Now, Wall},
};

const HOUR: Duration = Duration::from_secs(3_600);

struct World {
    engine: Engine,
    now: Now,
    offers: Vec<Offer>,
    /// What each agent was last told to serve of each project; `None`: nothing any more.
    exports: BTreeMap<(AgentUid, ProjectUid), Option<Export>>,
    said: Vec<(AgentUid, Message)>,
    connections: u64,
}

fn ok() -> Outcome {
    let stats = Some(Stats { files: 10_000, total_bytes: 10_000_000, ..Stats::default() });
    Outcome { stats, ..Outcome::of_class(ExitClass::Ok) }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn target(agent: AgentUid) -> Target {
    Target { agent, destination: None }
}

fn named(agent: AgentUid) -> Replicas {
    Replicas { pick: Pick::Agent(agent), destination: None }
}

fn edges() -> Replicas {
    Replicas { pick: Pick::Labels(labels(&[("role", "edge")])), destination: None }
}

impl World {
    fn new() -> Self {
        let now = Now { wall: Wall(1_800_000_000_000), mono: Mono(1_000), entropy: 7 };
        let mut world = Self {
            engine: Engine::new(Limits { upstream_spacing: Duration::ZERO, ..Limits::default() }),
            now,
            offers: Vec::new(),
            exports: BTreeMap::new(),
            said: Vec::new(),
            connections: 0,
        };
        world.put(Input::Start { at_least: 0 });
        world
    }

    fn put(&mut self, input: Input) -> Reply {
        self.now.entropy += 1;
        let decision = self.engine.decide(self.now, input);
        self.engine.apply(self.now, &decision.changes);
        for send in decision.sends {
            match send.message {
                Message::Offer(offer) => self.offers.push(*offer),
                Message::Exports { serial, exports, withdrawn, .. } => {
                    let told = exports.into_iter().map(|one| (one.project, Some(one)));
                    for (project, export) in told.chain(withdrawn.into_iter().map(|project| (project, None)))
                    {
                        self.exports.insert((send.agent, project), export);
                    }
                    let (agent, session) = (send.agent, send.session);
                    let serve_uri = format!("rsync://h{}", agent.0);
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
                message => self.said.push((send.agent, message)),
            }
        }
        decision.reply
    }

    fn ask(&mut self, ask: Ask) -> Reply {
        self.put(Input::Person(Person { by: "maria".to_owned(), ask }))
    }

    fn settle(&mut self) {
        while self.engine.next_deadline(self.now) == Some(Duration::ZERO) {
            self.put(Input::Tick);
        }
    }

    fn agent(&mut self, name: &str, pairs: &[(&str, &str)]) -> AgentUid {
        let (id, hash) = (format!("t-{name}"), format!("h-{name}"));
        let names = TokenNames::One(name.parse().unwrap());
        self.ask(Ask::CreateJoinToken { id, hash: hash.clone(), names, uses: 1, ttl: HOUR });
        let enroll = AgentInput::Enroll {
            token_hash: hash,
            name: name.parse().unwrap(),
            labels: labels(pairs),
            key_hash: name.to_owned(),
            serial: "01".to_owned(),
            expires: self.now.wall.plus(900 * HOUR),
        };
        let Reply::Agent(agent) = self.put(Input::Agent(enroll)) else { panic!("not enrolled") };
        self.hello(agent, &["a1"], Vec::new());
        agent
    }

    fn hello(&mut self, agent: AgentUid, roots: &[&str], attempts: Vec<Held>) {
        self.connections += 1;
        let root = |name: &&str| Root {
            name: (*name).to_owned(),
            path: format!("/srv/{name}"),
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
            total_inodes: 0,
            free_inodes: 0,
        };
        let roots = roots.iter().map(root).collect();
        let serve_uri = format!("rsync://h{}", agent.0);
        let facts = AgentFacts { slots: 4, roots, serve_uri, ..AgentFacts::default() };
        self.put(Input::Agent(AgentInput::Hello {
            agent,
            state_id: format!("s{}", agent.0),
            highest_term: 0,
            connection: self.connections,
            facts,
            attempts,
        }));
        self.settle();
    }

    fn gone(&mut self, agent: AgentUid) {
        let session = self.engine.session(agent).unwrap().epoch;
        self.put(Input::Agent(AgentInput::Gone { agent, session }));
        self.settle();
    }

    fn project(
        &mut self,
        name: &str,
        origins: &[AgentUid],
        replicas: Vec<Replicas>,
        local: bool,
    ) -> ProjectUid {
        let upstream = Upstream {
            uri: format!("rsync://up/{name}"),
            host: "up".to_owned(),
            user: String::new(),
            sealed_password: Vec::new(),
        };
        let spec = ProjectSpec {
            display_name: String::new(),
            labels: BTreeMap::new(),
            upstreams: if local { Vec::new() } else { vec![upstream] },
            destination: format!("a1:{name}").parse().unwrap(),
            schedule: Schedule::new(Cadence::Manual, parse_zone("UTC").unwrap()),
            rsync: RsyncSettings::default(),
            placement: PlacementSettings {
                origins: origins.iter().map(|agent| target(*agent)).collect(),
                replicas,
                ..PlacementSettings::default()
            },
            marker: None,
            link: None,
            guard: GuardSettings::default(),
            partial_is_success: String::new(),
            retry: RetrySettings::default(),
        };
        let create = Ask::CreateProject {
            name: name.parse().unwrap(),
            spec: Box::new(spec),
            paused: false,
            request: None,
            validate_only: false,
        };
        let Reply::Project(project) = self.ask(create) else { panic!("not created") };
        self.settle();
        project
    }

    fn run(&mut self, project: ProjectUid) -> RunId {
        let (kind, wish) = (TriggerKind::User, Wish::default());
        let ask = Ask::Run { project, kind, wish, request: None, traceparent: String::new() };
        let Reply::Run { run, .. } = self.ask(ask) else { panic!("no run") };
        self.settle();
        run
    }

    /// A run of which every attempt goes well.
    fn synced(&mut self, project: ProjectUid) -> RunId {
        let run = self.run(project);
        while !self.offers.is_empty() {
            let offer = self.offered();
            self.end(&offer, ok());
        }
        run
    }

    /// The oldest offer, taken by its agent.
    fn offered(&mut self) -> Offer {
        self.settle();
        let offer = self.offers.remove(0);
        let (agent, attempt, epoch) = (self.on(&offer), offer.attempt, offer.epoch);
        self.put(Input::Agent(AgentInput::Accepted { agent, attempt, epoch }));
        offer
    }

    /// The oldest offer of that project; what was offered of others before goes well.
    fn offered_of(&mut self, project: ProjectUid) -> Offer {
        loop {
            let offer = self.offered();
            if offer.project == project {
                return offer;
            }
            self.end(&offer, ok());
        }
    }

    fn on(&self, offer: &Offer) -> AgentUid {
        self.engine.attempt(offer.attempt).unwrap().agent
    }

    fn end(&mut self, offer: &Offer, outcome: Outcome) {
        let (agent, attempt, epoch) = (self.on(offer), offer.attempt, offer.epoch);
        self.put(Input::Agent(AgentInput::Ended { agent, attempt, epoch, outcome }));
        self.settle();
    }

    fn replace_as(&mut self, replacement: AgentReplacement) -> Reply {
        let reply = self.ask(Ask::ReplaceAgent { replacement, traceparent: String::new() });
        self.settle();
        reply
    }

    fn replaced(&mut self, old: AgentUid, new: AgentUid) -> Replaced {
        match self.replace_as(plain(old, new)) {
            Reply::Replaced(replaced) => replaced,
            other => panic!("{other:?}"),
        }
    }

    /// The refusal, after which nothing has changed.
    fn refused(&mut self, replacement: AgentReplacement) -> Refusal {
        let before: Vec<Record> = self.engine.records().collect();
        let Reply::Refused(refusal) = self.replace_as(replacement) else { panic!("replaced") };
        assert_eq!(before, self.engine.records().collect::<Vec<Record>>());
        refusal
    }

    fn home(&self, project: ProjectUid, agent: AgentUid) -> Option<&PlacementRecord> {
        self.engine.project(project).unwrap().placements.get(&agent)
    }

    fn tree(&self, project: ProjectUid) -> Option<RunId> {
        self.engine.project(project).unwrap().state.tree
    }

    /// Who may pull from the agent, as it was last told.
    fn may_pull(&self, from: AgentUid, project: ProjectUid) -> Vec<AgentUid> {
        let told = self.exports.get(&(from, project)).and_then(Option::as_ref);
        let mut who: Vec<AgentUid> =
            told.iter().flat_map(|export| &export.pairs).map(|pair| pair.replica).collect();
        who.dedup();
        who
    }
}

fn plain(old: AgentUid, new: AgentUid) -> AgentReplacement {
    AgentReplacement { old, new, reseed: true, revoke: None, validate_only: false }
}

fn faults(refusal: &Refusal) -> Vec<(&str, &str)> {
    refusal.violations.iter().map(|one| (one.field.as_str(), one.description.as_str())).collect()
}

/// `ftp1` is the origin of `debian` and stands by in `gnu`, whose origin is `edge1`; `edge1` and what has the label
/// `role=edge` are `debian`'s replicas.
struct Typical {
    world: World,
    ftp1: AgentUid,
    edge1: AgentUid,
    edge2: AgentUid,
    new: AgentUid,
    debian: ProjectUid,
    gnu: ProjectUid,
}

fn typical() -> Typical {
    let mut world = World::new();
    let (ftp1, edge1) = (world.agent("ftp1", &[("site", "north")]), world.agent("edge1", &[]));
    let edge2 = world.agent("edge2", &[("role", "edge")]);
    let new = world.agent("ftp2", &[("rack", "7")]);
    let debian = world.project("debian", &[ftp1], vec![named(edge1), edges()], false);
    let gnu = world.project("gnu", &[edge1, ftp1], Vec::new(), false);
    world.synced(debian);
    world.synced(gnu);
    Typical { world, ftp1, edge1, edge2, new, debian, gnu }
}

#[test]
fn an_origin_goes_over_and_its_tree_is_copied_from_a_replica() {
    let Typical { mut world, ftp1, edge1, edge2, new, debian, gnu } = typical();
    world.gone(ftp1);
    let (tree, revision) = (world.tree(debian), world.engine.project(debian).unwrap().record.revision);
    let replaced = world.replaced(ftp1, new);
    assert_eq!(replaced.labels, labels(&[("site", "north")]));
    let [origin, standby] = &replaced.placements[..] else { panic!("{replaced:?}") };
    assert_eq!((origin.project, origin.role, origin.standby), (debian, Role::Origin, false));
    let Refill::Copied { from, run: Some(run) } = origin.refill else { panic!("{origin:?}") };
    assert_eq!(from, edge1);
    let expected = ReplacedPlacement {
        project: gnu,
        role: Role::Replica,
        standby: true,
        destination: "a1:gnu".parse().unwrap(),
        refill: Refill::FromOrigin,
    };
    assert_eq!(*standby, expected);

    let project = world.engine.project(debian).unwrap();
    assert_eq!(project.record.revision, revision + 1);
    assert_eq!(project.record.spec.placement.origins, [target(new)]);
    assert!(world.home(debian, ftp1).is_none() && world.home(gnu, ftp1).is_none());
    let old = world.engine.agent(ftp1).unwrap();
    assert!(old.draining && old.revoked.is_none() && old.labels.is_empty());
    let heir = world.engine.agent(new).unwrap();
    assert_eq!(heir.labels, labels(&[("rack", "7"), ("site", "north")]));

    // What is served stays what it is, and nobody is sent to the empty disk.
    assert_eq!(world.tree(debian), tree);
    assert_eq!(world.home(debian, new).unwrap().have_tree, None);
    for replica in [edge1, edge2] {
        assert_eq!(world.home(debian, replica).unwrap().have_tree, tree);
    }
    let replica = world.offered();
    assert_eq!((replica.project, replica.role, world.on(&replica)), (gnu, Role::Replica, new));
    world.end(&replica, ok());
    let copy = world.offered();
    assert_eq!((copy.attempt.run, copy.role, Some(copy.tree)), (run, Role::Origin, tree));
    assert!(
        copy.keep_extra
            && copy.max_delete == 0
            && copy.source_uri.starts_with(&format!("rsync://h{}/", edge1.0))
    );
    assert!(world.offers.is_empty(), "{:?}", world.offers);
    world.end(&copy, ok());
    assert_eq!((world.tree(debian), world.home(debian, new).unwrap().have_tree), (tree, tree));
    assert!(world.engine.attempts().next().is_none());

    // It is an origin as any other one now.
    let run = world.synced(debian);
    for agent in [new, edge1, edge2] {
        assert_eq!(world.home(debian, agent).unwrap().have_tree, Some(run));
    }
}

#[test]
fn exports_name_the_new_agent_and_no_more_the_old_one() {
    let Typical { mut world, ftp1, edge1, edge2, new, debian, gnu } = typical();
    assert_eq!(world.may_pull(ftp1, debian), [edge1, edge2]);
    assert_eq!(world.may_pull(edge1, gnu), [ftp1]);
    world.replaced(ftp1, new);
    assert!(world.may_pull(ftp1, debian).is_empty() && world.may_pull(ftp1, gnu).is_empty());
    assert_eq!(world.may_pull(edge1, gnu), [new]);
    assert_eq!(world.may_pull(edge1, debian), [new], "while the copy is open");
    assert!(world.may_pull(new, debian).is_empty(), "an empty disk is served to nobody");
    let copy = world.offered_of(debian);
    world.end(&copy, ok());
    assert_eq!(world.may_pull(new, debian), [edge1, edge2]);
    assert!(world.may_pull(edge1, debian).is_empty());
}

#[test]
fn a_dry_run_tells_the_same_and_changes_nothing() {
    let Typical { mut world, ftp1, new, edge1, .. } = typical();
    let ask = AgentReplacement { validate_only: true, ..plain(ftp1, new) };
    let input = Input::Person(Person {
        by: "maria".to_owned(),
        ask: Ask::ReplaceAgent { replacement: ask, traceparent: String::new() },
    });
    let decision = world.engine.decide(world.now, input);
    assert!(decision.changes.is_empty() && decision.sends.is_empty());
    let Reply::Replaced(would) = decision.reply else { panic!("{:?}", decision.reply) };
    let replaced = world.replaced(ftp1, new);
    assert_eq!(would.placements[0].refill, Refill::Copied { from: edge1, run: None });
    assert_eq!((would.labels, would.placements.len()), (replaced.labels, replaced.placements.len()));
}

#[test]
fn without_a_copy_the_next_run_asks_the_upstream_and_replicas_wait_for_it() {
    let Typical { mut world, ftp1, edge1, new, debian, .. } = typical();
    let tree = world.tree(debian);
    let reply = world.replace_as(AgentReplacement { reseed: false, ..plain(ftp1, new) });
    let Reply::Replaced(replaced) = reply else { panic!("{reply:?}") };
    assert_eq!(replaced.placements[0].refill, Refill::FromUpstream);
    let run = world.run(debian);
    let pull = world.offered_of(debian);
    assert_eq!((world.on(&pull), pull.first_sync, pull.attempt.run), (new, true, run));
    assert!(pull.source_uri.starts_with("rsync://up/"));
    // A partial copy is no tree: what is served stays, and nobody is sent to it.
    world.end(&pull, Outcome::of_class(ExitClass::Config));
    assert_eq!((world.tree(debian), world.home(debian, new).unwrap().have_tree), (tree, None));
    assert_eq!(world.home(debian, edge1).unwrap().have_tree, tree);
    assert!(world.offers.iter().all(|offer| offer.project != debian), "{:?}", world.offers);
}

#[test]
fn a_replica_goes_over_by_name_and_by_label() {
    let Typical { mut world, edge1, edge2, new, debian, gnu, ftp1 } = typical();
    let replaced = world.replaced(edge2, new);
    let [by_label] = &replaced.placements[..] else { panic!("{replaced:?}") };
    assert_eq!((by_label.project, by_label.refill), (debian, Refill::FromOrigin));
    assert_eq!(world.engine.project(debian).unwrap().record.spec.placement.replicas[1], edges());
    assert!(world.home(debian, edge2).is_none() && world.home(debian, new).is_some());
    let pull = world.offered();
    assert_eq!((world.on(&pull), pull.first_sync, pull.keep_extra), (new, true, false));
    assert_eq!(pull.pair.unwrap().origin, ftp1);
    world.end(&pull, ok());
    assert_eq!(world.home(debian, new).unwrap().have_tree, world.tree(debian));

    let third = world.agent("edge3", &[]);
    let replaced = world.replaced(edge1, third);
    assert_eq!(replaced.placements.iter().map(|one| one.project).collect::<Vec<_>>(), [debian, gnu]);
    assert_eq!(world.engine.project(debian).unwrap().record.spec.placement.replicas[0], named(third));
    assert_eq!(world.home(gnu, third).unwrap().role, Role::Origin);
    assert!(world.home(debian, edge1).is_none() && world.home(gnu, edge1).is_none());
}

#[test]
fn whom_the_labels_of_both_select_keeps_its_tree() {
    let Typical { mut world, edge2, debian, .. } = typical();
    let other = world.agent("edge4", &[("role", "edge")]);
    let pull = world.offered();
    world.end(&pull, ok());
    let tree = world.home(debian, other).unwrap().have_tree;
    assert!(world.replaced(edge2, other).placements.is_empty());
    assert_eq!((world.home(debian, other).unwrap().have_tree, world.home(debian, edge2)), (tree, None));
}

#[test]
fn all_that_is_in_the_way_is_told_at_once_and_nothing_changes() {
    let Typical { mut world, ftp1, edge1, new, debian, .. } = typical();
    assert_eq!(
        faults(&world.refused(plain(ftp1, ftp1))),
        [("replacement", "agent \"ftp1\" cannot take its own place")]
    );
    let stranger = AgentUid(9_999);
    assert_eq!(world.refused(plain(stranger, new)).code, RefusalCode::NotFound);

    // Of both projects, and with an attempt on the old one.
    let run = world.run(debian);
    let pull = world.offered();
    let refusal = world.refused(plain(ftp1, edge1));
    assert_eq!((refusal.code, refusal.reason), (RefusalCode::FailedPrecondition, "NOT_REPLACEABLE"));
    assert_eq!(refusal.message, "agent \"ftp1\" not replaced: 3 things are in the way");
    let short: String = run.to_string().chars().take(13).collect();
    let busy = format!(
        "an attempt may be on agent \"ftp1\"; wait for it (mirrorctl agent drain ftp1 keeps others away) or cancel it: \
         mirrorctl run cancel debian/{short}"
    );
    let promote = "agent \"edge1\" is of the project already; make it the origin: mirrorctl project promote debian --to edge1";
    let leave = "agent \"edge1\" is of the project already; take \"ftp1\" out of the project: mirrorctl project edit gnu --help";
    assert_eq!(
        faults(&refusal),
        [("projects/debian", busy.as_str()), ("projects/debian", promote), ("projects/gnu", leave)]
    );
    world.end(&pull, ok());

    // Its disks are others.
    world.hello(new, &["b1"], Vec::new());
    let refusal = world.refused(plain(ftp1, new));
    let root = |project: &str| {
        format!("agent \"ftp2\" has no root \"a1\" for a1:{project}; add it to its own file and restart it")
    };
    assert_eq!(
        faults(&refusal),
        [("projects/debian", root("debian").as_str()), ("projects/gnu", root("gnu").as_str())]
    );

    // What it holds is in the way.
    world.hello(new, &["a1"], Vec::new());
    world.project("debian-cd", &[new], Vec::new(), false);
    let inner = world.engine.project_named(&"debian-cd".parse().unwrap()).unwrap().record.clone();
    let mut spec = inner.spec.clone();
    spec.destination = "a1:debian/cd".parse().unwrap();
    let edit =
        Ask::UpdateProject { project: inner.uid, spec: Box::new(spec), revision: 1, validate_only: false };
    assert!(matches!(world.ask(edit), Reply::Project(_)));
    let refusal = world.refused(plain(ftp1, new));
    assert!(
        matches!(faults(&refusal)[..], [("projects/debian", text)] if text.contains("lies inside, around or at a1:debian/cd")),
        "{refusal}"
    );

    world.ask(Ask::Drain { agent: new, draining: true });
    world.gone(new);
    let long = AgentReplacement { revoke: Some("x".repeat(501)), ..plain(ftp1, new) };
    let refusal = world.refused(long);
    let fields: Vec<&str> = refusal.violations.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(fields, ["replacement", "reason", "projects/debian"]);
    assert!(refusal.violations[0].description.ends_with("mirrorctl agent undrain ftp2"), "{refusal}");
    world.ask(Ask::Drain { agent: new, draining: false });
    assert!(world.refused(plain(ftp1, new)).violations[0].description.contains("has no session"));
    world.ask(Ask::RevokeAgent { agent: new, reason: String::new() });
    assert!(world.refused(plain(ftp1, new)).violations[0].description.contains("is revoked"));
}

#[test]
fn an_agent_that_is_away_is_fenced_whatever_it_reports_later() {
    let Typical { mut world, ftp1, new, edge1, debian, .. } = typical();
    let run = world.run(debian);
    let pull = world.offered();
    let waiting = world.run(debian);
    assert_ne!(run, waiting);
    world.gone(ftp1);
    world.replaced(ftp1, new);
    assert!(world.engine.run(run).is_none(), "its run has failed");
    // What waited goes on at the new origin, once its tree is there.
    let copy = world.offered_of(debian);
    assert!(copy.keep_extra && world.on(&copy) == new);
    assert!(world.offers.iter().all(|offer| offer.project != debian), "{:?}", world.offers);

    // The old one comes back with the pull, and then with its outcome.
    let held = Held {
        needs_secrets: true,
        attempt: pull.attempt,
        epoch: pull.epoch,
        project: debian,
        role: Role::Origin,
        destination: pull.destination.clone(),
        spec_hash: pull.spec_hash(),
        ended: false,
        dry_run: false,
        keep_extra: false,
        recorded: true,
        autonomous: None,
    };
    world.hello(ftp1, &["a1"], vec![held]);
    let told = world.said.iter().rev().find(|(agent, message)| {
        *agent == ftp1 && matches!(message, Message::Cancel { attempt, .. } if *attempt == pull.attempt)
    });
    assert!(told.is_some(), "it is told to end it");
    let before = world.tree(debian);
    world.put(Input::Agent(AgentInput::Ended {
        agent: ftp1,
        attempt: pull.attempt,
        epoch: pull.epoch,
        outcome: ok(),
    }));
    let fenced = world.said.iter().rev().any(|(agent, message)| {
        *agent == ftp1 && matches!(message, Message::Acknowledge { fenced: true, attempt, .. } if *attempt == pull.attempt)
    });
    assert!(fenced && world.tree(debian) == before);
    assert!(world.home(debian, ftp1).is_none());

    world.end(&copy, ok());
    let mut pulls = Vec::new();
    while !world.offers.is_empty() {
        let offer = world.offered();
        pulls.push((offer.project, offer.attempt.run, world.on(&offer)));
        world.end(&offer, ok());
    }
    assert!(pulls.contains(&(debian, waiting, new)), "{pulls:?}");
    assert_eq!(world.home(debian, edge1).unwrap().have_tree, Some(waiting));
}

#[test]
fn a_revoked_agent_is_cut_by_the_same_decision() {
    let Typical { mut world, ftp1, new, debian, .. } = typical();
    let reply = world.replace_as(AgentReplacement { revoke: Some("dead".to_owned()), ..plain(ftp1, new) });
    assert!(matches!(reply, Reply::Replaced(_)), "{reply:?}");
    let old = world.engine.agent(ftp1).unwrap();
    assert_eq!((old.revoked.as_deref(), old.draining), (Some("dead"), false));
    assert!(world.engine.session(ftp1).is_none());
    assert!(world.said.contains(&(ftp1, Message::Close(CloseReason::Revoked))));
    assert!(world.home(debian, ftp1).is_none());
    assert_eq!(world.ask(Ask::DeleteAgent { agent: ftp1 }), Reply::Done, "nothing is placed on it any more");
}

#[test]
fn who_was_revoked_before_can_be_replaced() {
    let Typical { mut world, edge2, ftp1, new, debian, .. } = typical();
    world.ask(Ask::RevokeAgent { agent: ftp1, reason: "dead".to_owned() });
    world.ask(Ask::RevokeAgent { agent: edge2, reason: "dead".to_owned() });
    world.settle();
    world.replaced(ftp1, new);
    assert_eq!(world.home(debian, new).unwrap().role, Role::Origin);
    let third = world.agent("edge3", &[]);
    assert_eq!(world.replaced(edge2, third).placements.len(), 1, "what its labels selected follows");
    assert!(world.home(debian, third).is_some());
    assert_eq!(world.engine.agent(ftp1).unwrap().revoked.as_deref(), Some("dead"));
}

#[test]
fn a_tree_that_people_put_there_is_copied_or_they_say_that_they_put_it_there_again() {
    let mut world = World::new();
    let (ftp1, edge1, new) = (world.agent("ftp1", &[]), world.agent("edge1", &[]), world.agent("ftp2", &[]));
    let own = world.project("own", &[ftp1], vec![named(edge1)], true);
    world.synced(own);
    assert!(world.tree(own).is_some());
    world.gone(edge1);
    let refusal = world.refused(plain(ftp1, new));
    assert!(
        matches!(faults(&refusal)[..], [("projects/own", text)] if text.contains("--no-reseed")),
        "{refusal}"
    );
    world.hello(edge1, &["a1"], Vec::new());
    let ask = AgentReplacement { validate_only: true, ..plain(ftp1, new) };
    let Reply::Replaced(would) = world.replace_as(ask) else { panic!("refused") };
    assert_eq!(would.placements[0].refill, Refill::Copied { from: edge1, run: None });
    let ask = AgentReplacement { reseed: false, ..plain(ftp1, new) };
    let Reply::Replaced(replaced) = world.replace_as(ask) else { panic!("refused") };
    assert_eq!(replaced.placements[0].refill, Refill::ByPeople);
}

#[test]
fn a_copy_that_waits_for_the_old_agent_ends_with_it() {
    let Typical { mut world, ftp1, edge1, new, debian, .. } = typical();
    world.gone(ftp1);
    let (project, traceparent) = (debian, String::new());
    let reseed = Ask::Reseed { project, agent: ftp1, from: edge1, revision: None, traceparent };
    let Reply::Run { run, .. } = world.ask(reseed) else { panic!("not reseeded") };
    world.settle();
    world.replaced(ftp1, new);
    assert!(world.engine.run(run).is_none());
    let copy = world.offered_of(debian);
    assert!(copy.keep_extra && world.on(&copy) == new);
    assert!(world.engine.attempts().all(|attempt| attempt.agent != ftp1));
}

#[test]
fn a_replacement_is_one_unit_within_its_bound() {
    let mut world = World::new();
    let (ftp1, edge1, new) = (world.agent("ftp1", &[]), world.agent("edge1", &[]), world.agent("ftp2", &[]));
    let mut made = 0;
    for count in 1.. {
        let project = world.project(&format!("p{count}"), &[ftp1], vec![named(edge1)], false);
        world.synced(project);
        let ask = |reseed| Ask::ReplaceAgent {
            replacement: AgentReplacement { reseed, ..plain(ftp1, new) },
            traceparent: String::new(),
        };
        let decide =
            |ask| world.engine.decide(world.now, Input::Person(Person { by: "maria".to_owned(), ask }));
        let decision = decide(ask(true));
        assert!(decision.changes.len() <= CHANGES_MAX);
        if let Reply::Refused(refusal) = decision.reply {
            assert_eq!(refusal.reason, "TOO_MANY_CHANGES");
            let without = decide(ask(false));
            assert!(matches!(without.reply, Reply::Replaced(_)), "{:?}", without.reply);
            break;
        }
        let named = |change: &&Change| matches!(change, Change::Put(Record::Project(_)));
        assert_eq!(decision.changes.iter().filter(named).count(), count);
        made = count;
    }
    assert!(made >= 100, "{made} origins fit into one unit");
}
