//! A lost tree copied from another placement: an origin, two replicas and their project, told step by step.

use fleet::{
    attempt::Role,
    engine::WaitReason,
    id::{AgentUid, AttemptId, Epoch, RunId},
    input::{AgentInput, Ask, Held, Input, Message, Reply},
    outcome::{ExitClass, GuardKind, Outcome},
    run::RunState,
    schedule::{Cron, Schedule, parse_zone},
    standing::AutonomousFire,
};

use super::{
    trio::Trio,
    world::{named, ok, root, spec, upstream},
};

/// The second upstream of a project that has two.
const OTHER: &str = "rsync://other/debian/";

fn fleet() -> Trio {
    let mut fleet = Trio::agents();
    let replicas = vec![named(fleet.edge1), named(fleet.edge2)];
    let spec = spec("a1:debian", &[fleet.origin], replicas);
    fleet.begin(spec, &ok());
    fleet
}

impl Trio {
    /// The agent comes, and tells of these.
    fn back(&mut self, agent: AgentUid, attempts: Vec<Held>) {
        self.hello(agent, vec![root("a1", 512)], attempts);
    }

    /// The project has a schedule and a second upstream from now on.
    fn schedule(&mut self) {
        let project = self.project;
        self.edit(project, |spec| {
            // Not within these tests.
            let daily = Cron::parse("hour=3".parse().unwrap()).unwrap();
            spec.schedule = Schedule::cron(daily, parse_zone("UTC").unwrap());
            spec.upstreams.push(upstream("other"));
        });
    }

    /// Whether the agent was last told to run the project by itself.
    fn runs_alone(&self, agent: AgentUid) -> bool {
        let told =
            self.said.iter().rev().filter(|(to, _)| *to == agent).find_map(|(_, message)| match message {
                Message::Autonomy { complete, orders, withdrawn, .. }
                    if *complete || !orders.is_empty() || !withdrawn.is_empty() =>
                {
                    Some(!orders.is_empty())
                }
                _ => None,
            });
        told.unwrap()
    }

    /// What the origin ran alone, as its hello tells.
    pub(super) fn ran_alone(&self, ended: bool) -> Held {
        let started = self.now.wall;
        Held {
            attempt: AttemptId { run: RunId::mint(started.0 + 1, 99, RunId::NIL), number: 1 },
            epoch: Epoch::autonomous(self.engine.fleet().term),
            project: self.project,
            role: Role::Origin,
            destination: "a1:debian".parse().unwrap(),
            spec_hash: "0".to_owned(),
            ended,
            needs_secrets: true,
            dry_run: false,
            keep_extra: false,
            recorded: false,
            autonomous: Some(AutonomousFire { scheduled: started, started, max_delete: 0 }),
        }
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

    fn reseed_refused(&mut self, agent: AgentUid, from: AgentUid) -> &'static str {
        match self.reseed(agent, from) {
            Reply::Refused(refusal) => refusal.reason,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_origin_is_reseeded_from_a_replica_without_a_delete_or_a_version() {
    let mut fleet = fleet();
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
    let mut fleet = fleet();
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
    let mut fleet = fleet();
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
    let mut fleet = fleet();
    assert_eq!(fleet.reseed_refused(fleet.origin, fleet.origin), "SAME_AGENT");
    let stranger = fleet.agent("edge9", &[]);
    assert_eq!(fleet.reseed_refused(fleet.origin, stranger), "NOT_PLACED");
    fleet.world.gone(fleet.edge1);
    assert_eq!(fleet.reseed_refused(fleet.origin, fleet.edge1), "AGENT_AWAY");
    fleet.back(fleet.edge1, Vec::new());
    fleet.run();
    let pull = fleet.offered();
    assert_eq!(fleet.reseed_refused(fleet.origin, fleet.edge1), "ATTEMPT_RUNNING");
    fleet.end(&pull, ok());
    assert_eq!(fleet.reseed_refused(fleet.origin, fleet.edge1), "BEHIND");
    for _ in 0..2 {
        let replica = fleet.offered();
        fleet.end(&replica, ok());
    }
    fleet.reseeded(fleet.origin, fleet.edge1);
    assert_eq!(fleet.reseed_refused(fleet.origin, fleet.edge2), "RESEED_OPEN");
    assert_eq!(fleet.reseed_refused(fleet.edge2, fleet.origin), "BEHIND", "the target has no tree to give");
}

#[test]
fn a_reseed_that_cannot_be_had_ends_and_leaves_the_placement_to_ordinary_pulls() {
    let mut fleet = fleet();
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
    fleet.world.gone(fleet.edge1);
    fleet.world.ask(Ask::RevokeAgent { agent: fleet.edge1, reason: String::new() });
    fleet.settle();
    assert!(fleet.engine.attempts().next().is_none(), "{:?}", fleet.engine.attempts().next());
}

#[test]
fn a_cancelled_reseed_frees_the_origin() {
    let mut fleet = fleet();
    let (project, run) = (fleet.project, fleet.reseeded(fleet.origin, fleet.edge1));
    let reseed = fleet.offered();
    let pull = fleet.run();
    fleet.ask(Ask::CancelRun { project, run });
    let told = |(_, message): &&(AgentUid, Message)| matches!(message, Message::Cancel { .. });
    assert_eq!(fleet.said.iter().filter(told).count(), 1);
    assert_eq!(fleet.engine.run(run).unwrap().state, RunState::Running);
    fleet.end(&reseed, Outcome::of_class(ExitClass::Cancelled));
    let offer = fleet.offered();
    assert_eq!((offer.attempt.run, offer.first_sync), (pull, true));
}

#[test]
fn an_origin_that_is_reseeded_is_neither_moved_nor_replaced() {
    let mut fleet = fleet();
    fleet.world.gone(fleet.origin);
    fleet.reseeded(fleet.origin, fleet.edge1);
    let (project, agent) = (fleet.project, fleet.edge1);
    let promote = Ask::Promote { project, agent, revision: None, force: true };
    let Reply::Refused(refusal) = fleet.ask(promote) else { panic!("promoted") };
    assert_eq!(refusal.reason, "ATTEMPT_RUNNING");
}

#[test]
fn the_agent_of_a_lost_tree_serves_nobody_and_runs_nothing_alone_until_the_wish_is_over() {
    for cancels in [false, true] {
        let mut fleet = fleet();
        fleet.schedule();
        let (project, origin) = (fleet.project, fleet.origin);
        assert_eq!((fleet.runs_alone(origin), fleet.may_pull(origin).len()), (true, 2));
        let run = fleet.reseeded(origin, fleet.edge1);
        assert_eq!((fleet.runs_alone(origin), fleet.may_pull(origin).len()), (false, 0));
        if cancels {
            fleet.offers.clear();
            fleet.ask(Ask::CancelRun { project, run });
            fleet.gone(origin);
            fleet.back(origin, Vec::new());
        } else {
            let reseed = fleet.offered();
            fleet.end(&reseed, ok());
        }
        assert!(fleet.engine.run(run).is_none());
        assert_eq!((fleet.runs_alone(origin), fleet.may_pull(origin).len()), (true, 2));
    }
}

#[test]
fn a_switch_of_the_upstream_leaves_a_reseed_alone() {
    let mut fleet = fleet();
    fleet.schedule();
    let project = fleet.project;
    let switch = |uri: &str| Ask::SwitchUpstream { project, uri: uri.to_owned(), revision: None };
    let donor = fleet.edge1;
    fleet.world.gone(fleet.origin);
    let run = fleet.reseeded(fleet.origin, donor);
    // While it waits, and while it is out.
    assert!(matches!(fleet.ask(switch(OTHER)), Reply::Project(_)));
    assert_eq!(fleet.engine.attempts_of(run).next().unwrap().upstream_host, "");
    fleet.back(fleet.origin, Vec::new());
    let reseed = fleet.offered();
    assert!(reseed.source_uri.starts_with(&format!("rsync://h{}/", donor.0)));
    assert!(matches!(fleet.ask(switch("rsync://up/debian/")), Reply::Project(_)));
    fleet.end(&reseed, ok());
    fleet.run();
    assert!(fleet.offered().source_uri.starts_with("rsync://up/"));
}

/// An origin that was away when its tree was lost may have pulled before that: nobody is to be served what it says.
#[test]
fn what_an_agent_pulled_alone_is_no_version_where_the_tree_was_lost() {
    for (ended, donor_first) in [(false, true), (true, true), (true, false)] {
        let mut fleet = fleet();
        fleet.schedule();
        let (before, origin) = (fleet.tree(), fleet.origin);
        fleet.gone(origin);
        let run = fleet.reseeded(origin, fleet.edge1);
        if !donor_first {
            // The wish is over before the agent is back.
            fleet.world.ask(Ask::CancelRun { project: fleet.project, run });
        }
        let held = fleet.ran_alone(ended);
        fleet.back(origin, vec![held.clone()]);
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
    let mut fleet = fleet();
    let run = fleet.reseeded(fleet.edge1, fleet.origin);
    let reseed = fleet.offered();
    fleet.run();
    let pull = fleet.offers.remove(0);
    assert_eq!(fleet.on(&pull), fleet.origin);
    fleet.world.ask(Ask::CancelRun { project: fleet.project, run });
    fleet.end(&reseed, ok());
    assert!(fleet.engine.run(run).is_none(), "{:?}", fleet.engine.run(run));
    assert_eq!(fleet.placement(fleet.edge1).have_tree, None);
}
