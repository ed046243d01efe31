//! Where a marker tells how new a tree is: the next upstream in the place of one that fails or is behind, for one run, and
//! nothing older than what is served.

use std::time::Duration;

use fleet::{
    input::{Ask, Offer},
    marker::{Marker, MarkerCheck, MarkerKind, MarkerSeen},
    outcome::{Evidence, ExitClass, GuardKind, Outcome},
    placement::PlacementRecord,
    run::RunState,
    time::Wall,
};

use super::{
    fallback::{Fleet, pulls_from, unreached},
    world::{BEGIN, HOUR, ok},
};

impl Fleet {
    /// A project that has a marker.
    fn marked(hosts: &[&str]) -> Self {
        let mut fleet = Self::new(hosts);
        fleet.mark(Some(marker()));
        fleet
    }

    fn mark(&mut self, marker: Option<Marker>) {
        let project = self.project;
        self.edit(project, |spec| spec.marker = marker);
    }

    /// A run that succeeds with this marker, at the preferred upstream.
    fn succeed(&mut self, hours: i64) {
        let offer = self.run();
        self.end(&offer, seen(ok(), Some(hours), Some(hours)));
    }

    /// The marker of what is served.
    fn served(&self) -> Option<Wall> {
        self.engine.project(self.project).unwrap().state.marker
    }

    fn origin(&self) -> &PlacementRecord {
        self.engine.project(self.project).unwrap().origin().unwrap()
    }
}

fn marker() -> Marker {
    Marker { kind: MarkerKind::UnixTime, path: "lastupdate".to_owned() }
}

fn hour(hours: i64) -> Wall {
    Wall(BEGIN.0 + hours * 3_600_000)
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

/// What an offer says of the marker: not before, and whether it must be read.
fn checked(offer: &Offer) -> (Option<Wall>, bool) {
    let MarkerCheck { marker: asked, not_before, required } = offer.marker.clone().unwrap();
    assert_eq!(asked, marker());
    (not_before, required)
}

#[test]
fn a_run_of_an_archived_project_asks_each_upstream_once() {
    for outcome in [unreached(), Outcome::of_class(ExitClass::Busy), behind()] {
        let mut fleet = Fleet::marked(&["a", "b", "c"]);
        fleet.succeed(1);
        let (project, reason, revision) = (fleet.project, "released in 2009".to_owned(), None);
        fleet.ask(Ask::Archive { project, reason, revision });
        let first = fleet.run();
        fleet.end(&first, outcome.clone());
        let second = fleet.offered(Duration::ZERO);
        fleet.end(&second, outcome.clone());
        let third = fleet.offered(Duration::ZERO);
        assert!(pulls_from(&first, "a") && pulls_from(&second, "b") && pulls_from(&third, "c"));
        fleet.end(&third, outcome.clone());
        assert_eq!(fleet.wait(HOUR * 30), []);
        let last = fleet.engine.project(project).unwrap().state.last_run.unwrap();
        assert_eq!((last.run, last.state), (first.attempt.run, RunState::Failed), "{outcome:?}");
    }
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
    fleet.end(&third, seen(ok(), Some(2), Some(2)));
    assert_eq!((fleet.last(), fleet.served(), fleet.active()), (RunState::Succeeded, Some(hour(2)), "a"));

    let next = fleet.run();
    assert!(pulls_from(&next, "a"), "each run asks the preferred one first: {next:?}");
    assert_eq!(fleet.engine.attempt(next.attempt).unwrap().fell_back, "");
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
        fleet.end(&offer, seen(ok(), Some(1), Some(1)));
    }
    let passing = fleet.run();
    assert!(pulls_from(&passing, "b"), "{passing:?}");
    let why = &fleet.engine.attempt(passing.attempt).unwrap().fell_back;
    assert!(why.starts_with("a could not be reached "), "{why}");
    fleet.end(&passing, seen(ok(), Some(2), Some(2)));
    fleet.wait(3 * HOUR);
    let probe = fleet.run();
    assert!(pulls_from(&probe, "a"), "{probe:?}");
}

#[test]
fn one_that_is_behind_is_asked_again_and_held_after_a_day_and_three_runs() {
    let mut fleet = Fleet::marked(&["a"]);
    fleet.succeed(5);
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
        let held = fleet.origin().hold.clone();
        if run < 3 {
            assert_eq!((tries, fleet.last()), (49, RunState::Failed));
            assert_eq!(held, None);
        } else {
            assert_eq!((tries, fleet.last()), (1, RunState::Held));
            assert_eq!(held.unwrap().evidence.kind, GuardKind::UpstreamBehind);
        }
        assert!(!fleet.origin().half_changed, "nothing was pulled");
    }
    // While it is held each fire looks once; and the hold closes by itself.
    let offer = fleet.run();
    fleet.end(&offer, behind());
    assert_eq!((fleet.wait(HOUR), fleet.last()), (Vec::new(), RunState::Held));
    fleet.succeed(6);
    assert_eq!((&fleet.origin().hold, fleet.origin().behind), (&None, None));
    assert_eq!((fleet.origin().marker, fleet.served()), (Some(hour(6)), Some(hour(6))));
}

#[test]
fn a_person_may_take_the_older_tree() {
    let mut fleet = Fleet::marked(&["a"]);
    fleet.succeed(5);
    for _ in 0..3 {
        let offer = fleet.run();
        fleet.end(&offer, behind());
        let (project, run) = (fleet.project, offer.attempt.run);
        fleet.ask(Ask::CancelRun { project, run });
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
    fleet.end(&allowed, seen(ok(), Some(3), Some(3)));
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
    fleet.end(&again, seen(ok(), Some(6), Some(6)));
    assert_eq!((fleet.last(), fleet.served()), (RunState::Succeeded, Some(hour(6))));
}

#[test]
fn what_turns_out_older_is_no_version() {
    let older = seen(ok(), Some(6), Some(4));
    let unread = seen(ok(), None, None);
    for (outcome, class) in [(older, "older than"), (unread, "unread")] {
        let mut fleet = Fleet::marked(&["a", "b"]);
        fleet.succeed(5);
        let tree = fleet.tree(fleet.project);
        let first = fleet.run();
        fleet.end(&first, behind());
        let second = fleet.offered(Duration::ZERO);
        fleet.end(&second, outcome);
        assert_eq!((fleet.tree(fleet.project), fleet.served()), (tree, Some(hour(5))), "{class}");
        assert!(fleet.origin().half_changed, "{class}: nobody may copy what is there now");
        let again = fleet.offered(HOUR);
        fleet.end(&again, seen(ok(), Some(7), Some(7)));
        assert_eq!(fleet.served(), Some(hour(7)));
    }
}

#[test]
fn a_marker_that_vanishes_makes_nothing_older() {
    let mut fleet = Fleet::marked(&["a", "b"]);
    fleet.succeed(5);
    let offer = fleet.run();
    fleet.end(&offer, seen(ok(), None, None));
    assert_eq!((fleet.last(), fleet.served()), (RunState::Succeeded, Some(hour(5))));
    let offer = fleet.run();
    assert_eq!(checked(&offer), (Some(hour(5)), false));
    fleet.end(&offer, seen(ok(), Some(6), None));
    assert_eq!(fleet.served(), Some(hour(6)), "the upstream's word, where the tree holds none");

    // What another file told is no measure for this one.
    fleet.mark(Some(Marker { kind: MarkerKind::Mtime, path: "lastupdate".to_owned() }));
    assert_eq!(fleet.served(), None);
    assert_eq!(fleet.origin().marker, None);
    let offer = fleet.run();
    fleet.end(&offer, seen(ok(), Some(7), Some(7)));
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
    fleet.declare_at(&["c", "b", "a"]);
    let kept = fleet.offered(HOUR);
    assert!(pulls_from(&kept, "b") && checked(&kept).1, "{kept:?}");

    let mut fleet = waits(&["a", "b", "c"]);
    fleet.declare_at(&["a", "c"]);
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
    let held = fleet.held(&second);
    fleet.said.clear();
    fleet.back(vec![held]);
    assert_eq!(fleet.passwords(), [b"b"]);
}
