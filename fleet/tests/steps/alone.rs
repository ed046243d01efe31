//! What is copied from an agent that has run its fires alone meanwhile: an origin, one that stands by, and a replica, told
//! step by step.

use fleet::{
    id::AgentUid,
    input::{AgentInput, Ask, Held, Input, Offer, Reply},
    marker::{Marker, MarkerKind},
    outcome::{ExitClass, Outcome},
    run::RunState,
    schedule::{Cron, Schedule, parse_zone},
};

use super::{
    trio::Trio,
    world::{HOUR, named, ok, root, spec, upstream},
};

/// `edge1` stands by. Not more than this many copies are made at a time.
fn fleet(max_parallel: u32) -> Trio {
    let mut fleet = Trio::agents();
    let mut spec = spec("a1:debian", &[fleet.origin, fleet.edge1], vec![named(fleet.edge2)]);
    spec.placement.max_parallel = max_parallel;
    // Not within these tests.
    let daily = Cron::parse("hour=3".parse().unwrap()).unwrap();
    spec.schedule = Schedule::cron(daily, parse_zone("UTC").unwrap());
    fleet.begin(spec, &ok());
    fleet
}

impl Trio {
    /// The origin has made a tree; the offer of the first copy of it.
    fn copying(&mut self) -> Offer {
        self.run();
        let offer = self.offered();
        self.end(&offer, ok());
        self.offered()
    }

    /// The origin is back: it has run a fire alone, and tells only later how that ended.
    fn origin_back(&mut self) {
        let held = self.ran_alone(true);
        let origin = self.origin;
        self.hello(origin, vec![root("a1", 512)], vec![held]);
    }

    fn source_of(&self, offer: &Offer) -> Option<AgentUid> {
        self.engine.attempt(offer.attempt).unwrap().source
    }
}

/// The origin runs a fire alone, which its agent will tell so; `edge1` ends its copy meanwhile, and is made the origin.
fn cut_off_and_replaced(fleet: &mut Trio, copy: &Offer) -> Held {
    let (project, origin, agent) = (fleet.project, fleet.origin, fleet.edge1);
    fleet.gone(origin);
    fleet.pass(HOUR);
    let ran_alone = fleet.ran_alone(true);
    fleet.end(copy, ok());
    // The other replica pulls from it by now.
    let second = fleet.offered();
    fleet.end(&second, Outcome::of_class(ExitClass::Network));
    let reply = fleet.ask(Ask::Promote { project, agent, revision: None, force: false });
    assert_eq!(reply, Reply::Project(project));
    fleet.settle();
    fleet.pass(HOUR);
    ran_alone
}

#[test]
fn what_is_copied_from_an_origin_that_ran_alone_is_no_tree_from_its_return_on() {
    let mut fleet = fleet(1);
    let before = fleet.placement(fleet.edge1).have_tree;
    let offer = fleet.copying();
    assert_eq!((fleet.on(&offer), fleet.source_of(&offer)), (fleet.edge1, Some(fleet.origin)));
    let origin = fleet.origin;
    fleet.gone(origin);
    fleet.pass(HOUR);
    fleet.origin_back();
    // The copy ends before the origin has told what became of its fire.
    fleet.end(&offer, ok());
    let copy = fleet.placement(fleet.edge1);
    assert!(copy.have_tree.is_none() || copy.have_tree == before, "{copy:?}");
    assert_ne!(copy.have_tree, fleet.tree());
}

#[test]
fn what_is_copied_from_a_doubted_copy_is_no_tree_either() {
    let mut fleet = fleet(1);
    let first = fleet.copying();
    let origin = fleet.origin;
    fleet.gone(origin);
    fleet.pass(HOUR);
    fleet.end(&first, ok());
    assert_eq!(fleet.placement(fleet.edge1).have_tree, fleet.tree());
    let second = fleet.offered();
    assert_eq!((fleet.on(&second), fleet.source_of(&second)), (fleet.edge2, Some(fleet.edge1)));
    fleet.origin_back();
    assert_eq!(fleet.placement(fleet.edge1).have_tree, None);
    fleet.end(&second, ok());
    assert_ne!(fleet.placement(fleet.edge2).have_tree, fleet.tree());
}

#[test]
fn a_doubted_copy_that_was_made_the_origin_goes_to_nobody_before_it_has_pulled() {
    let mut fleet = fleet(1);
    let first = fleet.copying();
    let (project, former, promoted) = (fleet.project, fleet.origin, fleet.edge1);
    let ran_alone = cut_off_and_replaced(&mut fleet, &first);
    let second = fleet.offered();
    assert_eq!((fleet.on(&second), fleet.source_of(&second)), (fleet.edge2, Some(promoted)));
    fleet.hello(former, vec![root("a1", 512)], vec![ran_alone]);
    let copy = fleet.placement(promoted);
    assert_eq!((copy.have_tree, copy.half_changed), (fleet.tree(), true));
    fleet.end(&second, ok());
    assert_ne!(fleet.placement(fleet.edge2).have_tree, fleet.tree(), "a copy of such a copy");
    assert!(fleet.offers.is_empty(), "{:?}", fleet.offers);
    let trees = fleet.world.synced(project, &ok());
    for agent in [former, promoted, fleet.edge2] {
        let placement = fleet.placement(agent);
        assert_eq!((placement.have_tree, placement.half_changed), (Some(trees), false));
    }
}

#[test]
fn an_origin_that_has_pulled_since_it_was_promoted_is_not_doubted() {
    let mut fleet = fleet(1);
    let first = fleet.copying();
    let (project, former, promoted) = (fleet.project, fleet.origin, fleet.edge1);
    let ran_alone = cut_off_and_replaced(&mut fleet, &first);
    let second = fleet.offered();
    fleet.end(&second, ok());
    fleet.pass(HOUR);
    let made = fleet.world.synced(project, &ok());
    fleet.hello(former, vec![root("a1", 512)], vec![ran_alone]);
    let placement = fleet.placement(promoted);
    assert_eq!((placement.have_tree, placement.half_changed), (Some(made), false));
    let offer = fleet.offered();
    assert_eq!((offer.tree, fleet.source_of(&offer)), (made, Some(promoted)));
}

#[test]
fn what_ran_alone_in_a_project_that_was_archived_meanwhile_goes_to_no_other_upstream() {
    let mut fleet = fleet(1);
    let (project, origin) = (fleet.project, fleet.origin);
    fleet.edit(project, |spec| {
        spec.upstreams.push(upstream("other"));
        spec.marker = Some(Marker { kind: MarkerKind::UnixTime, path: "lastupdate".to_owned() });
    });
    fleet.gone(origin);
    fleet.ask(Ask::Archive { project, reason: String::new(), revision: None });
    let held = fleet.ran_alone(true);
    fleet.hello(origin, vec![root("a1", 512)], vec![held.clone()]);
    let (run, outcome) = (held.attempt.run, Outcome::of_class(ExitClass::NotFound));
    fleet.put(Input::Agent(AgentInput::EndedAlone { agent: origin, held: Box::new(held), outcome }));
    fleet.settle();
    assert!(fleet.engine.attempts().next().is_none(), "{:?}", fleet.offers);
    let last = fleet.engine.project(project).unwrap().state.last_run.unwrap();
    assert_eq!((last.run, last.state), (run, RunState::Failed));
}
