//! Guards, holds and approvals of one project with an origin and a replica, told step by step.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use fleet::{
    attempt::Role,
    defaults,
    id::{AgentUid, ProjectUid, RunId},
    input::{Ask, Offer, Reply},
    outcome::{Evidence, ExitClass, GuardKind, Outcome, Stats},
    placement::Hold,
    project::ProjectSpec,
    refusal::Refusal,
    run::Wish,
};

use super::world::{HOUR, World, named, spec};

/// Files of a good tree here: the delete limit is 1,000.
const FILES: u64 = 10_000;

/// An origin, a replica and their project.
struct Fleet {
    world: World,
    project: ProjectUid,
    origin: AgentUid,
    replica: AgentUid,
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

fn outcome(class: ExitClass, files: u64) -> Outcome {
    let stats = Some(Stats { files, total_bytes: files * 1_000, ..Stats::default() });
    Outcome { stats, ..Outcome::of_class(class) }
}

fn good() -> Outcome {
    outcome(ExitClass::Ok, FILES)
}

fn limited(skipped: u64) -> Outcome {
    Outcome { deletes_skipped: Some(skipped), ..outcome(ExitClass::MaxDelete, FILES) }
}

fn guard(kind: GuardKind) -> Outcome {
    let evidence = Evidence { kind, wanted: 1, allowed: 0, names: Vec::new(), sentence: String::new() };
    Outcome { evidence: Some(evidence), ..Outcome::of_class(ExitClass::Guard) }
}

impl Fleet {
    /// With a good tree on both.
    fn new(change: impl FnOnce(&mut ProjectSpec)) -> Self {
        let mut world = World::new();
        let [origin, replica] = ["ftp1", "edge1"].map(|name| world.agent(name, &[]));
        let mut spec = spec("a1:debian", &[origin], vec![named(replica)]);
        change(&mut spec);
        let project = world.declare("debian", spec).unwrap();
        let mut fleet = Self { world, project, origin, replica };
        fleet.good_run();
        fleet
    }

    /// Lets time pass, and everything that is due happen; the next offer, if there is one. Nobody has taken it.
    fn wait(&mut self, span: Duration) -> Option<Offer> {
        self.pass(span);
        if self.offers.is_empty() { None } else { Some(self.offers.remove(0)) }
    }

    fn offered(&mut self) -> Offer {
        self.wait(Duration::ZERO).expect("an offer")
    }

    /// Taken, and ended; what follows is done when time passes.
    fn end(&mut self, offer: &Offer, outcome: Outcome) {
        self.accept(offer);
        self.report(offer, outcome);
    }

    fn run(&mut self, wish: Wish) -> Reply {
        self.world.wish(self.project, wish)
    }

    /// A run whose origin ends so.
    fn origin_ends(&mut self, end: Outcome) -> Offer {
        self.run(Wish::default());
        let offer = self.offered();
        assert_eq!(offer.role, Role::Origin);
        self.end(&offer, end);
        offer
    }

    /// A run that succeeds everywhere.
    fn good_run(&mut self) {
        self.origin_ends(good());
        let offer = self.offered();
        assert_eq!(offer.role, Role::Replica);
        self.end(&offer, good());
        assert_eq!(self.wait(Duration::ZERO), None);
    }

    fn approve(&mut self, run: RunId) -> Result<RunId, Refusal> {
        let (project, reason, traceparent) = (self.project, "seen".to_owned(), String::new());
        match self.ask(Ask::Approve { project, run, reason, saw: None, traceparent }) {
            Reply::Run { run, .. } => Ok(run),
            Reply::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    fn hold(&self, agent: AgentUid) -> Option<&Hold> {
        self.engine.project(self.project).unwrap().placements[&agent].hold.as_ref()
    }

    fn tree(&self) -> Option<RunId> {
        self.world.tree(self.project)
    }
}

fn simple() -> Fleet {
    Fleet::new(|_| ())
}

#[test]
fn a_delete_hold_counts_and_closes_by_itself() {
    let mut fleet = simple();
    let tree = fleet.tree();
    let first = fleet.origin_ends(limited(700));
    assert_eq!(first.max_delete, 1_000);
    let evidence = fleet.hold(fleet.origin).unwrap().evidence.clone();
    assert_eq!((evidence.wanted, evidence.allowed), (700, 1_000));
    assert_eq!(fleet.hold(fleet.origin).unwrap().figures(), "1,700 deletes wanted, 1,000 allowed");
    assert_eq!((fleet.tree(), fleet.wait(HOUR)), (tree, None), "nothing propagates");

    let counted = fleet.origin_ends(limited(1_200));
    assert_eq!(counted.max_delete, 0, "while it is held nothing is deleted");
    let hold = fleet.hold(fleet.origin).unwrap();
    assert_eq!((hold.first, hold.newest), (first.attempt, counted.attempt));
    assert_eq!(hold.figures(), "1,200 deletes wanted, 1,000 allowed");

    fleet.origin_ends(limited(900));
    assert_eq!(fleet.hold(fleet.origin), None, "within the limit again");
    let again = fleet.offered();
    assert_eq!(again.max_delete, 1_000, "a try with the limit follows in the same run");
}

#[test]
fn another_guard_does_not_let_deletions_go_on() {
    let mut fleet = simple();
    fleet.origin_ends(limited(5_000));
    let empty = fleet.origin_ends(guard(GuardKind::EmptyUpstream));
    assert_eq!(empty.max_delete, 0);
    assert_eq!(fleet.hold(fleet.origin).unwrap().evidence.kind, GuardKind::EmptyUpstream);
    fleet.run(Wish::default());
    assert_eq!(fleet.offered().max_delete, 0, "or each of them would delete up to the limit again");
}

#[test]
fn an_approval_allows_what_was_seen_and_is_good_once() {
    let mut fleet = simple();
    let held = fleet.origin_ends(limited(21_204));
    let run = fleet.approve(held.attempt.run).unwrap();
    let offer = fleet.offered();
    assert_eq!((offer.attempt.run, offer.max_delete), (run, 21_204));
    fleet.end(&offer, limited(96));
    assert_eq!(fleet.hold(fleet.origin).unwrap().evidence.wanted, 96, "more is wanted now");
    fleet.run(Wish::default());
    assert_eq!(fleet.offered().max_delete, 0);
}

#[test]
fn what_was_approved_of_the_origin_lets_its_replicas_follow() {
    let mut fleet = simple();
    let held = fleet.origin_ends(limited(21_204));
    fleet.approve(held.attempt.run).unwrap();
    let offer = fleet.offered();
    fleet.end(&offer, good());
    assert_eq!(fleet.hold(fleet.origin), None);
    let replica = fleet.offered();
    assert_eq!((replica.role, replica.max_delete), (Role::Replica, 1_000 + 21_204));
}

#[test]
fn only_the_newest_hold_is_approved() {
    let mut fleet = simple();
    let good = fleet.tree().unwrap();
    assert_eq!(fleet.approve(good).unwrap_err().reason, "NOT_HELD");
    let old = fleet.origin_ends(limited(20_980));
    let new = fleet.origin_ends(limited(21_204));
    let (project, run, reason) = (fleet.project, old.attempt.run, String::new());
    let saw = Some(Evidence { wanted: 20_980, ..fleet.hold(fleet.origin).unwrap().evidence.clone() });
    let Reply::Refused(refusal) =
        fleet.ask(Ask::Approve { project, run, reason, saw, traceparent: String::new() })
    else {
        panic!("approved")
    };
    assert_eq!(refusal.reason, "NOT_NEWEST_HOLD");
    assert!(refusal.message.contains("(it saw 20,980 deletes, now 21,204 deletes)"), "{}", refusal.message);
    fleet.approve(new.attempt.run).unwrap();
}

#[test]
fn an_approval_that_does_not_begin_in_time_is_void() {
    let mut fleet = simple();
    let held = fleet.origin_ends(limited(21_204));
    fleet.ask(Ask::Freeze { reason: "power".to_owned() });
    let run = fleet.approve(held.attempt.run).unwrap();
    assert_eq!(fleet.wait(defaults::APPROVAL_TTL), None);
    fleet.ask(Ask::Thaw);
    let offer = fleet.offered();
    assert_eq!((offer.attempt.run, offer.max_delete), (run, 0), "the run runs, without the waiver");
    assert_eq!(fleet.engine.run(run).unwrap().wish, Wish::default());
}

#[test]
fn an_allowance_for_a_local_tree_that_does_not_begin_in_time_is_void() {
    let mut fleet = simple();
    let record = (*fleet.engine.project(fleet.project).unwrap().record).clone();
    let spec = Box::new(ProjectSpec { upstreams: Vec::new(), ..record.spec });
    let (project, revision) = (fleet.project, record.revision);
    fleet.ask(Ask::UpdateProject { project, spec, revision, validate_only: false });
    fleet.ask(Ask::Freeze { reason: "power".to_owned() });
    let Reply::Run { run, .. } = fleet.run(Wish { allow_deletes: Some(90_000), ..Wish::default() }) else {
        panic!("no run")
    };
    assert_eq!(fleet.wait(defaults::APPROVAL_TTL), None);
    fleet.ask(Ask::Thaw);
    let offer = fleet.offered();
    assert_eq!((offer.role, offer.attempt.run), (Role::Replica, run));
    assert!(offer.max_delete < 90_000, "{}", offer.max_delete);
    assert_eq!(fleet.engine.run(run).unwrap().wish, Wish::default());
}

#[test]
fn a_waiver_is_good_for_the_hold_it_was_given_for() {
    let mut fleet = simple();
    let held = fleet.origin_ends(guard(GuardKind::SentinelMissing));
    assert_eq!(held.waived, []);
    fleet.approve(held.attempt.run).unwrap();
    let offer = fleet.offered();
    assert_eq!((offer.waived.as_slice(), offer.max_delete), (&[GuardKind::SentinelMissing][..], 1_000));
    fleet.end(&offer, guard(GuardKind::EmptyUpstream));
    fleet.run(Wish::default());
    assert_eq!(fleet.offered().waived, [], "the next run has no waiver");
}

#[test]
fn a_replicas_hold_is_approved_for_its_next_attempt() {
    let mut fleet = simple();
    fleet.origin_ends(good());
    let replica = fleet.offered();
    fleet.end(&replica, limited(3_000));
    assert_eq!(fleet.wait(HOUR), None, "it gives up on that tree");
    assert_eq!(fleet.hold(fleet.replica).unwrap().evidence.wanted, 3_000);
    assert_eq!(fleet.hold(fleet.origin), None);
    fleet.approve(replica.attempt.run).unwrap();
    let again = fleet.offered();
    assert_eq!((again.role, again.max_delete), (Role::Replica, 3_000));
    assert_eq!(again.waived, [GuardKind::Deletes]);
    fleet.end(&again, good());
    assert_eq!(fleet.hold(fleet.replica), None);
}

#[test]
fn a_replicas_approval_ends_too() {
    let mut fleet = simple();
    fleet.origin_ends(good());
    let replica = fleet.offered();
    fleet.end(&replica, limited(3_000));
    fleet.wait(Duration::ZERO);
    fleet.ask(Ask::Freeze { reason: "power".to_owned() });
    fleet.approve(replica.attempt.run).unwrap();
    assert_eq!(fleet.wait(defaults::APPROVAL_TTL), None);
    fleet.ask(Ask::Thaw);
    assert_eq!(fleet.offered().max_delete, 0);
}

#[test]
fn a_shrunk_tree_goes_nowhere_until_it_is_whole_or_approved() {
    let mut fleet = simple();
    let tree = fleet.tree();
    let held = fleet.origin_ends(outcome(ExitClass::Ok, FILES * 6 / 10));
    assert_eq!((fleet.tree(), fleet.wait(HOUR)), (tree, None), "nothing propagates");
    let hold = fleet.hold(fleet.origin).unwrap();
    assert_eq!((hold.evidence.kind, hold.evidence.wanted), (GuardKind::Shrink, 40));
    let placement = &fleet.engine.project(fleet.project).unwrap().placements[&fleet.origin];
    assert_eq!(placement.files, FILES, "the last good figures stay");

    fleet.approve(held.attempt.run).unwrap();
    let offer = fleet.offered();
    assert_eq!(offer.waived, [GuardKind::Shrink]);
    fleet.end(&offer, outcome(ExitClass::Ok, FILES / 2));
    assert_eq!(fleet.hold(fleet.origin).unwrap().evidence.wanted, 50, "more than was approved");
    fleet.origin_ends(outcome(ExitClass::Ok, FILES * 8 / 10));
    assert_eq!(fleet.hold(fleet.origin), None);
    assert_eq!(fleet.offered().role, Role::Replica);
}

#[test]
fn a_replica_waits_while_its_origin_has_shrunk() {
    let mut fleet = Fleet::new(|spec| spec.placement.drain_timeout = Some(Duration::ZERO));
    fleet.origin_ends(good());
    let replica = fleet.offered();
    // It will try again in some minutes; meanwhile the origin's tree shrinks.
    fleet.end(&replica, Outcome::of_class(ExitClass::Network));
    fleet.origin_ends(outcome(ExitClass::Ok, FILES / 2));
    assert_eq!(fleet.wait(HOUR), None, "the origin's tree is not the version it had");
    fleet.origin_ends(good());
    assert_eq!(fleet.offered().role, Role::Replica);
}

#[test]
fn a_tree_that_lost_less_than_the_limit_goes_on() {
    let mut fleet = simple();
    fleet.origin_ends(outcome(ExitClass::Ok, FILES * 71 / 100));
    assert_eq!(fleet.hold(fleet.origin), None);
    assert_eq!(fleet.offered().role, Role::Replica);
}

#[test]
fn who_allowed_the_deletes_is_not_asked_again_for_the_loss() {
    let mut fleet = simple();
    let held = fleet.origin_ends(limited(4_000));
    fleet.approve(held.attempt.run).unwrap();
    let offer = fleet.offered();
    fleet.end(&offer, outcome(ExitClass::Ok, FILES - 5_000));
    assert_eq!(fleet.hold(fleet.origin), None, "1,000 by the limit, 4,000 by the approval");
    fleet.offered();

    let mut fleet = simple();
    fleet.run(Wish { allow_deletes: Some(10), ..Wish::default() });
    let offer = fleet.offered();
    fleet.end(&offer, outcome(ExitClass::Ok, FILES / 2));
    assert!(fleet.hold(fleet.origin).is_some(), "more than that is another accident");
}

#[test]
fn a_shrink_guard_that_is_off_holds_nothing() {
    let mut fleet = Fleet::new(|spec| spec.guard.shrink_percent = Some(100));
    fleet.origin_ends(outcome(ExitClass::Ok, 1));
    assert_eq!(fleet.hold(fleet.origin), None);
    assert_eq!(fleet.offered().role, Role::Replica);
}

#[test]
fn a_dry_run_changes_nothing_and_joins_nothing() {
    let mut fleet = simple();
    let before = fleet.engine.project(fleet.project).unwrap().clone();
    let dry = || Wish { dry_run: true, ..Wish::default() };
    let Reply::Run { run, coalesced: false, .. } = fleet.run(dry()) else { panic!("refused") };
    assert!(
        matches!(fleet.run(dry()), Reply::Refused(refusal) if refusal.reason == "RUN_QUEUED"),
        "it cannot join what waits"
    );
    let Reply::Run { run: real, .. } = fleet.run(Wish::default()) else { panic!("refused") };
    assert_ne!(run, real, "and no trigger joins it");
    let offer = fleet.offered();
    assert!(offer.dry_run && offer.attempt.run == run);
    fleet.end(&offer, outcome(ExitClass::Ok, 1));
    assert_eq!(fleet.engine.run(run), None, "closed, and serves nothing");
    let after = fleet.engine.project(fleet.project).unwrap();
    assert_eq!((after.state.tree, after.state.last_run), (before.state.tree, before.state.last_run));
    assert_eq!(after.state.taken, before.state.taken, "it consumes no trigger");
    assert_eq!(after.placements, before.placements);
    let next = fleet.offered();
    assert_eq!((next.attempt.run, next.dry_run), (real, false));
}

#[test]
fn a_dry_run_that_meets_a_guard_fails_and_opens_no_hold() {
    let mut fleet = simple();
    fleet.run(Wish { dry_run: true, ..Wish::default() });
    let offer = fleet.offered();
    fleet.end(&offer, guard(GuardKind::EmptyUpstream));
    assert_eq!(fleet.hold(fleet.origin), None);
    assert_eq!(fleet.engine.run(offer.attempt.run), None);
}

#[test]
fn wishes_join_what_waits() {
    let mut fleet = simple();
    fleet.ask(Ask::Freeze { reason: "power".to_owned() });
    let Reply::Run { run, .. } = fleet.run(Wish::default()) else { panic!("refused") };
    fleet.run(Wish { reclaim: true, allow_deletes: Some(5), ..Wish::default() });
    let Reply::Run { run: same, coalesced: true, .. } =
        fleet.run(Wish { allow_deletes: Some(2_000), ..Wish::default() })
    else {
        panic!("not joined")
    };
    assert_eq!(run, same);
    fleet.ask(Ask::Thaw);
    let offer = fleet.offered();
    assert_eq!((offer.reclaim, offer.max_delete), (true, 2_000));
    let too_many = Wish { allow_deletes: Some(defaults::MAX_DELETE_MAX + 1), ..Wish::default() };
    assert!(matches!(fleet.run(too_many), Reply::Refused(_)));
}

#[test]
fn deletes_can_be_allowed_beforehand_while_held() {
    let mut fleet = simple();
    fleet.origin_ends(limited(5_000));
    fleet.run(Wish { allow_deletes: Some(6_000), ..Wish::default() });
    assert_eq!(fleet.offered().max_delete, 6_000);
}

#[test]
fn a_partial_transfer_passes_where_a_person_said_why() {
    let mut fleet = Fleet::new(|spec| spec.partial_is_success = "whois is private".to_owned());
    let offer = fleet.origin_ends(outcome(ExitClass::Partial, FILES));
    assert_eq!(fleet.tree(), Some(offer.attempt.run));
    let mut strict = simple();
    let tree = strict.tree();
    strict.origin_ends(outcome(ExitClass::Partial, FILES));
    assert_eq!((strict.tree(), strict.wait(Duration::ZERO)), (tree, None));
}
