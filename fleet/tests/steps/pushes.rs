//! Pushes told step by step: what they join, what they wait for, and what becomes of those that come too fast or by a
//! token that is no longer good.

use std::time::Duration;

use fleet::{
    defaults,
    engine::PUSHED_TOO_OFTEN,
    id::{ProjectUid, RunId},
    input::{Ask, Input, NewPushToken, Push, Reply, RequestKey},
    record::{Answer, Change, Record, RequestRecord},
    refusal::{Refusal, RefusalCode},
    run::{RunState, TriggerKind, Wish},
};

use super::world::{HOUR, World, ok, spec};

fn pushed(project: ProjectUid) -> Push {
    Push { project, token: None, over_limit: false, request: None, traceparent: String::new() }
}

fn new_token(id: &str, project: ProjectUid) -> NewPushToken {
    let (id, hash, note) = (id.to_owned(), format!("hash of {id}"), "build1".to_owned());
    NewPushToken { id, hash, project, note, ttl: None, request: None, validate_only: false }
}

fn made(id: &str) -> Reply {
    Reply::PushToken(id.to_owned())
}

impl World {
    /// Pushes, and what follows; the run and whether it is coalesced.
    fn push(&mut self, push: Push) -> Result<(RunId, bool), Refusal> {
        let reply = self.ask(Ask::Push(push));
        self.settle();
        match reply {
            Reply::Run { run, coalesced, .. } => Ok((run, coalesced)),
            Reply::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    fn token(&mut self, id: &str, project: ProjectUid, ttl: Option<Duration>) -> Reply {
        self.ask(Ask::CreatePushToken(NewPushToken { ttl, ..new_token(id, project) }))
    }

    fn run_state(&self, run: RunId) -> RunState {
        self.engine.run(run).unwrap().state
    }
}

fn world() -> (World, ProjectUid) {
    let mut world = World::new();
    let origin = world.agent("ftp1", &[]);
    let project = world.declare("debian", spec("a1:debian", &[origin], Vec::new())).unwrap();
    (world, project)
}

#[test]
fn pushes_during_a_run_make_exactly_one_more_run() {
    let (mut world, project) = world();
    let (first, coalesced) = world.push(pushed(project)).unwrap();
    let offer = world.offered();
    assert!(offer.attempt.run == first && !coalesced);
    assert_eq!(world.engine.run(first).unwrap().trigger.kind, TriggerKind::Push);
    let (second, coalesced) = world.push(pushed(project)).unwrap();
    assert!(second != first && coalesced, "it waits behind the one that runs");
    for _ in 0..3 {
        assert_eq!(world.push(pushed(project)).unwrap(), (second, true));
    }
    assert_eq!(world.engine.run(second).unwrap().coalesced, 3);
    world.end(&offer, ok());
    let offer = world.offered();
    assert_eq!(offer.attempt.run, second);
    world.end(&offer, ok());
    assert!(world.offers.is_empty(), "and no third one");
    assert_eq!(world.engine.project(project).unwrap().state.wanted, 5);
}

#[test]
fn a_push_to_a_paused_project_waits_for_the_resume_and_a_person_does_not() {
    let (mut world, project) = world();
    world.ask(Ask::Pause { project, reason: String::new(), until: None, revision: None });
    let Reply::Run { run, notes, .. } = world.ask(Ask::Push(pushed(project))) else { panic!("no run") };
    assert_eq!(notes, ["the project is paused by maria; the run waits for the resume"]);
    world.settle();
    assert!(world.offers.is_empty() && world.run_state(run) == RunState::Queued);
    assert_eq!(world.push(pushed(project)).unwrap(), (run, true));
    world.ask(Ask::Resume { project, revision: None });
    let offer = world.offered();
    assert_eq!(offer.attempt.run, run);
    world.end(&offer, ok());
    world.ask(Ask::Pause { project, reason: String::new(), until: None, revision: None });
    let (waiting, _) = world.push(pushed(project)).unwrap();
    let Reply::Run { run, notes, .. } = world.wish(project, Wish::default()) else { panic!("no run") };
    assert_eq!((run, notes.len()), (waiting, 1), "{notes:?}");
    assert_eq!(world.offered().attempt.run, waiting, "a person runs it all the same");
}

/// The least of all credentials: it says that its run waits, and names nobody.
#[test]
fn a_tokens_push_is_told_what_waits_and_nobodys_name() {
    let (mut world, project) = world();
    world.token("t1", project, None);
    world.ask(Ask::Pause { project, reason: "disk".to_owned(), until: None, revision: None });
    world.ask(Ask::Freeze { reason: "move".to_owned() });
    let told = |world: &mut World, token: Option<String>| match world
        .ask(Ask::Push(Push { token, ..pushed(project) }))
    {
        Reply::Run { notes, .. } => notes,
        other => panic!("{other:?}"),
    };
    let to_a_user = [
        "the project is paused by maria; the run waits for the resume",
        "the fleet is frozen by maria; the run waits for the thaw",
    ];
    assert_eq!(told(&mut world, None), to_a_user);
    let to_a_program = [
        "the project is paused; the run waits for the resume",
        "the fleet is frozen; the run waits for the thaw",
    ];
    assert_eq!(told(&mut world, Some("t1".to_owned())), to_a_program);
}

#[test]
fn a_push_over_the_limit_is_answered_with_the_run_that_waits_or_refused() {
    let (mut world, project) = world();
    let over = || Push { over_limit: true, ..pushed(project) };
    let refused = world.push(over()).unwrap_err();
    assert_eq!((refused.reason, refused.code), (PUSHED_TOO_OFTEN, RefusalCode::ResourceExhausted));
    assert!(refused.message.contains("nothing is recorded"), "{refused}");
    let (_, _) = world.push(pushed(project)).unwrap();
    let offer = world.offered();
    assert_eq!(world.push(over()).unwrap_err().reason, PUSHED_TOO_OFTEN, "what runs may be past what is new");
    let (second, _) = world.push(pushed(project)).unwrap();
    let before: Vec<_> = world.engine.records().collect();
    assert_eq!(world.push(over()).unwrap(), (second, true));
    let request = Some(RequestKey { key: "build1 PushProject 7".to_owned(), payload: "p".to_owned() });
    assert_eq!(world.push(Push { request: request.clone(), ..over() }).unwrap(), (second, true));
    assert!(world.engine.records().eq(before), "nothing is written for it, not even its id");
    world.end(&offer, ok());
    assert_eq!(world.offered().attempt.run, second, "and nothing is lost");
    // Its id is as good as new: it is no promise that was given.
    assert_eq!(world.push(Push { request, ..over() }).unwrap_err().reason, PUSHED_TOO_OFTEN);
}

#[test]
fn who_has_too_many_request_ids_remembered_is_refused_new_ones_until_the_oldest_expire() {
    let (mut world, project) = world();
    let by = |asker: &str, id: usize| {
        let key = format!("{asker} PushProject {id}");
        Push { request: Some(RequestKey { key, payload: "p".to_owned() }), ..pushed(project) }
    };
    let (run, _) = world.push(by("local root", 0)).unwrap();
    world.pass(HOUR);
    let answer = Answer::Run { project, run, coalesced: false };
    let expires = world.now.wall.plus(defaults::REQUEST_TTL);
    let record = |id: usize| {
        let key = format!("local root PushProject {id}");
        let (payload, answer) = ("p".to_owned(), answer.clone());
        Change::Put(Record::Request(RequestRecord { key, payload, answer, expires }))
    };
    let others: Vec<Change> = (1..defaults::REQUESTS_PER_ASKER_MAX).map(record).collect();
    world.engine.apply(world.now, &others);
    let before: Vec<_> = world.engine.records().collect();
    let refused = world.push(by("local root", 99_999)).unwrap_err();
    assert_eq!((refused.code, refused.reason), (RefusalCode::ResourceExhausted, "TOO_MANY_REQUEST_IDS"));
    assert!(world.engine.records().eq(before), "nothing is done");
    // What was promised holds, others are not concerned, and nor is what has no id.
    assert_eq!(world.push(by("local root", 0)).unwrap().0, run);
    let (second, _) = world.push(by("local", 99_999)).unwrap();
    assert_eq!(world.push(pushed(project)).unwrap(), (second, true));
    // The oldest expires, whether it was swept or not.
    world.pass(HOUR * 23);
    world.push(by("local root", 99_999)).unwrap();
    assert_eq!(world.push(by("local root", 88_888)).unwrap_err().reason, "TOO_MANY_REQUEST_IDS");
    world.put(Input::Sweep);
    assert_eq!(world.push(by("local root", 88_888)).unwrap_err().reason, "TOO_MANY_REQUEST_IDS");
}

#[test]
fn a_repeated_push_with_its_id_is_one_push() {
    let (mut world, project) = world();
    let again = || {
        let request = RequestKey { key: "k".to_owned(), payload: "p".to_owned() };
        Push { request: Some(request), ..pushed(project) }
    };
    let (run, _) = world.push(again()).unwrap();
    assert_eq!(world.push(again()).unwrap(), (run, false));
    let offer = world.offered();
    world.end(&offer, ok());
    assert_eq!(world.push(again()).unwrap().0, run);
    assert!(world.offers.is_empty());
}

#[test]
fn a_token_pushes_its_project_until_it_ends_or_goes_with_the_project() {
    let (mut world, project) = world();
    let origin = world.agent("ftp2", &[]);
    let other = world.declare("fedora", spec("a1:fedora", &[origin], Vec::new())).unwrap();
    assert_eq!(world.token("t1", project, Some(HOUR)), made("t1"));
    let by = |project: ProjectUid| Push { token: Some("t1".to_owned()), ..pushed(project) };
    assert_eq!(world.engine.push_token("t1").unwrap().last_used, None);
    world.push(by(project)).unwrap();
    assert_eq!(world.engine.push_token("t1").unwrap().last_used, Some(world.now.wall));
    assert_eq!(world.push(by(other)).unwrap_err().code, RefusalCode::Unauthenticated);
    world.pass(HOUR);
    assert_eq!(world.push(by(project)).unwrap_err().code, RefusalCode::Unauthenticated);
    world.put(Input::Sweep);
    assert!(world.engine.push_token("t1").is_none());

    assert_eq!(world.token("t1", other, None), made("t1"));
    world.pass(10_000 * HOUR);
    world.push(by(other)).unwrap();
    assert_eq!(world.ask(Ask::DeletePushToken { id: "t1".to_owned() }), Reply::Done);
    assert_eq!(world.push(by(other)).unwrap_err().code, RefusalCode::Unauthenticated);
    assert_eq!(world.token("t2", other, None), made("t2"));
    let gone =
        Ask::DeleteProject { project: other, revision: None, cancel_running: true, tree_to_trash: false };
    assert_eq!(world.ask(gone), Reply::Done);
    assert_eq!(world.engine.push_tokens().count(), 0);
    world.settle();
}

#[test]
fn tokens_are_checked_whole_and_bounded() {
    let (mut world, project) = world();
    let reason = |reply: Reply| match reply {
        Reply::Refused(refusal) => (refusal.reason, refusal.violations.len()),
        other => panic!("{other:?}"),
    };
    let ttl = Some(Duration::from_secs(59));
    let bad = NewPushToken { note: "a\nb".to_owned(), ttl, ..new_token("t", project) };
    assert_eq!(reason(world.ask(Ask::CreatePushToken(bad))), ("INVALID_FIELDS", 2));
    let longer = Some(defaults::PUSH_TOKEN_TTL_MAX + Duration::from_secs(1));
    assert_eq!(reason(world.token("t", project, longer)), ("INVALID_FIELDS", 1));
    assert_eq!(reason(world.token("t", ProjectUid(99), None)), ("NOT_FOUND", 0));
    assert_eq!(reason(world.ask(Ask::DeletePushToken { id: "t".to_owned() })), ("NOT_FOUND", 0));
    for n in 0..defaults::PUSH_TOKENS_MAX {
        let id = format!("t{n}");
        assert_eq!(world.token(&id, project, None), made(&id));
    }
    assert_eq!(reason(world.token("t0", project, None)), ("TOKEN_EXISTS", 0));
    assert_eq!(reason(world.token("one more", project, None)), ("TOO_MANY_TOKENS", 0));
}

/// A token is made once under one request id, whatever became of the answer; its secret is in none but the first.
#[test]
fn a_request_id_makes_one_token_and_a_trial_makes_none() {
    let (mut world, project) = world();
    let with_id = |id: &str, payload: &str| {
        let request = Some(RequestKey { key: "maria x".to_owned(), payload: payload.to_owned() });
        Ask::CreatePushToken(NewPushToken { request, ..new_token(id, project) })
    };
    let trial =
        |id: &str| Ask::CreatePushToken(NewPushToken { validate_only: true, ..new_token(id, project) });
    assert_eq!(world.ask(trial("t0")), Reply::Done);
    assert_eq!(world.engine.push_tokens().count(), 0);
    assert_eq!(world.ask(with_id("t1", "p")), made("t1"));
    assert_eq!(world.ask(with_id("t2", "p")), made("t1"), "the shell made another secret; no token has it");
    assert!(
        matches!(world.ask(with_id("t3", "q")), Reply::Refused(refusal) if refusal.reason == "INVALID_FIELDS")
    );
    assert_eq!(world.engine.push_tokens().count(), 1);
    for n in 2..=defaults::PUSH_TOKENS_MAX {
        world.ask(Ask::CreatePushToken(new_token(&format!("t{n}"), project)));
    }
    assert!(
        matches!(world.ask(trial("more")), Reply::Refused(refusal) if refusal.reason == "TOO_MANY_TOKENS")
    );
}
