//! One agent in another's place, told step by step: origin, stand-by, replica by name and by label. What is refused, and
//! what the old one may still say, is in `replace_refused.rs`.

use fleet::{
    agent::{AgentCaps, AgentRecord},
    attempt::Role,
    id::{AgentUid, ProjectUid},
    input::{AgentReplacement, Ask, Input, Offer, Person, Refill, Replaced, ReplacedPlacement, Reply},
    outcome::{ExitClass, Outcome},
    project::Replicas,
    record::Record,
    refusal::Refusal,
};

use super::world::{World, labels, named, ok, selected, spec, target};

fn edges() -> Replicas {
    selected("role", "edge")
}

pub(super) fn plain(old: AgentUid, new: AgentUid) -> AgentReplacement {
    AgentReplacement { old, new, reseed: true, revoke: None, validate_only: false }
}

/// A project below `a1` with its own name.
pub(super) fn declare(
    world: &mut World,
    name: &str,
    origins: &[AgentUid],
    replicas: Vec<Replicas>,
) -> ProjectUid {
    world.declare(name, spec(&format!("a1:{name}"), origins, replicas)).unwrap()
}

impl World {
    pub(super) fn replace_as(&mut self, replacement: AgentReplacement) -> Reply {
        let reply = self.ask(Ask::ReplaceAgent { replacement, traceparent: String::new() });
        self.settle();
        reply
    }

    pub(super) fn replaced(&mut self, old: AgentUid, new: AgentUid) -> Replaced {
        match self.replace_as(plain(old, new)) {
            Reply::Replaced(replaced) => replaced,
            other => panic!("{other:?}"),
        }
    }

    /// The refusal, after which nothing has changed.
    pub(super) fn replace_refused(&mut self, replacement: AgentReplacement) -> Refusal {
        let before: Vec<Record> = self.engine.records().collect();
        let Reply::Refused(refusal) = self.replace_as(replacement) else { panic!("replaced") };
        assert_eq!(before, self.engine.records().collect::<Vec<Record>>());
        refusal
    }

    /// The oldest offer of that project; what was offered of others before goes well.
    pub(super) fn offered_of(&mut self, project: ProjectUid) -> Offer {
        loop {
            let offer = self.offered();
            if offer.project == project {
                return offer;
            }
            self.end(&offer, ok());
        }
    }
}

/// `ftp1` is the origin of `debian` and stands by in `gnu`, whose origin is `edge1`; `edge1` and what has the label
/// `role=edge` are `debian`'s replicas.
pub(super) struct Typical {
    pub(super) world: World,
    pub(super) ftp1: AgentUid,
    pub(super) edge1: AgentUid,
    pub(super) edge2: AgentUid,
    pub(super) new: AgentUid,
    pub(super) debian: ProjectUid,
    pub(super) gnu: ProjectUid,
}

pub(super) fn typical() -> Typical {
    let mut world = World::new();
    let (ftp1, edge1) = (world.agent("ftp1", &[("site", "north")]), world.agent("edge1", &[]));
    let edge2 = world.agent("edge2", &[("role", "edge")]);
    let new = world.agent("ftp2", &[("rack", "7")]);
    let debian = declare(&mut world, "debian", &[ftp1], vec![named(edge1), edges()]);
    let gnu = declare(&mut world, "gnu", &[edge1, ftp1], Vec::new());
    world.synced(debian, &ok());
    world.synced(gnu, &ok());
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
    assert!(world.placement(debian, ftp1).is_none() && world.placement(gnu, ftp1).is_none());
    let old = world.engine.agent(ftp1).unwrap();
    assert!(old.draining && old.revoked.is_none() && old.labels.is_empty());
    let heir = world.engine.agent(new).unwrap();
    assert_eq!(heir.labels, labels(&[("rack", "7"), ("site", "north")]));

    // What is served stays what it is, and nobody is sent to the empty disk.
    assert_eq!(world.tree(debian), tree);
    assert_eq!(world.placement(debian, new).unwrap().have_tree, None);
    for replica in [edge1, edge2] {
        assert_eq!(world.placement(debian, replica).unwrap().have_tree, tree);
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
    assert_eq!((world.tree(debian), world.placement(debian, new).unwrap().have_tree), (tree, tree));
    assert!(world.engine.attempts().next().is_none());

    // It is an origin as any other one now.
    let run = world.synced(debian, &ok());
    for agent in [new, edge1, edge2] {
        assert_eq!(world.placement(debian, agent).unwrap().have_tree, Some(run));
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
    assert_eq!((world.tree(debian), world.placement(debian, new).unwrap().have_tree), (tree, None));
    assert_eq!(world.placement(debian, edge1).unwrap().have_tree, tree);
    assert!(world.offers.iter().all(|offer| offer.project != debian), "{:?}", world.offers);
}

#[test]
fn a_replica_goes_over_by_name_and_by_label() {
    let Typical { mut world, edge1, edge2, new, debian, gnu, ftp1 } = typical();
    let replaced = world.replaced(edge2, new);
    let [by_label] = &replaced.placements[..] else { panic!("{replaced:?}") };
    assert_eq!((by_label.project, by_label.refill), (debian, Refill::FromOrigin));
    assert_eq!(world.engine.project(debian).unwrap().record.spec.placement.replicas[1], edges());
    assert!(world.placement(debian, edge2).is_none() && world.placement(debian, new).is_some());
    let pull = world.offered();
    assert_eq!((world.on(&pull), pull.first_sync, pull.keep_extra), (new, true, false));
    assert_eq!(pull.pair.unwrap().origin, ftp1);
    world.end(&pull, ok());
    assert_eq!(world.placement(debian, new).unwrap().have_tree, world.tree(debian));

    let third = world.agent("edge3", &[]);
    let replaced = world.replaced(edge1, third);
    assert_eq!(replaced.placements.iter().map(|one| one.project).collect::<Vec<_>>(), [debian, gnu]);
    assert_eq!(world.engine.project(debian).unwrap().record.spec.placement.replicas[0], named(third));
    assert_eq!(world.placement(gnu, third).unwrap().role, Role::Origin);
    assert!(world.placement(debian, edge1).is_none() && world.placement(gnu, edge1).is_none());
}

#[test]
fn the_caps_of_the_old_agent_bound_the_new_one_where_it_has_none() {
    let Typical { mut world, ftp1, new, debian, .. } = typical();
    let mut set = |agent, caps| {
        let AgentRecord { labels, revision, .. } = world.engine.agent(agent).unwrap().clone();
        let ask = Ask::UpdateAgent { agent, labels, caps, revision, validate_only: false };
        assert_eq!(world.ask(ask), Reply::Agent(agent));
    };
    let thin = AgentCaps { max_running: Some(2), max_serving: None, bandwidth_limit_kib: Some(500) };
    set(ftp1, thin);
    set(new, AgentCaps { max_running: Some(3), max_serving: Some(7), ..AgentCaps::default() });
    let replaced = world.replaced(ftp1, new);
    let given = AgentCaps { bandwidth_limit_kib: Some(500), ..AgentCaps::default() };
    assert_eq!(replaced.caps, given, "what goes over is told");
    let both = AgentCaps { max_running: Some(3), max_serving: Some(7), bandwidth_limit_kib: Some(500) };
    assert_eq!(world.engine.agent(new).unwrap().caps, both);
    assert_eq!(world.engine.agent(ftp1).unwrap().caps, thin);
    let copy = world.offered_of(debian);
    assert_eq!(
        (world.on(&copy), copy.bandwidth_limit_kib),
        (new, 500),
        "it is filled again over the thin line"
    );
}

#[test]
fn whom_the_labels_of_both_select_keeps_its_tree() {
    let Typical { mut world, edge2, debian, .. } = typical();
    let other = world.agent("edge4", &[("role", "edge")]);
    let pull = world.offered();
    world.end(&pull, ok());
    let tree = world.placement(debian, other).unwrap().have_tree;
    assert!(world.replaced(edge2, other).placements.is_empty());
    assert_eq!(
        (world.placement(debian, other).unwrap().have_tree, world.placement(debian, edge2)),
        (tree, None)
    );
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
