//! One agent in another's place: what is in the way, what the old one may still say, and how much fits into one decision.

use fleet::{
    attempt::Role,
    engine::CHANGES_MAX,
    id::AgentUid,
    input::{AgentInput, AgentReplacement, Ask, CloseReason, Held, Input, Message, Person, Refill, Reply},
    project::ProjectSpec,
    record::{Change, Record},
    refusal::{Refusal, RefusalCode},
};

use super::{
    replace::{Typical, declare, plain, typical},
    world::{World, named, ok, root, spec},
};

fn faults(refusal: &Refusal) -> Vec<(&str, &str)> {
    refusal.violations.iter().map(|one| (one.field.as_str(), one.description.as_str())).collect()
}

#[test]
fn all_that_is_in_the_way_is_told_at_once_and_nothing_changes() {
    let Typical { mut world, ftp1, edge1, new, debian, .. } = typical();
    assert_eq!(
        faults(&world.replace_refused(plain(ftp1, ftp1))),
        [("replacement", "agent \"ftp1\" cannot take its own place")]
    );
    let stranger = AgentUid(9_999);
    assert_eq!(world.replace_refused(plain(stranger, new)).code, RefusalCode::NotFound);

    // Of both projects, and with an attempt on the old one.
    let run = world.run(debian);
    let pull = world.offered();
    let refusal = world.replace_refused(plain(ftp1, edge1));
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
    world.hello(new, vec![root("b1", 512)], Vec::new());
    let refusal = world.replace_refused(plain(ftp1, new));
    let missing = |project: &str| {
        format!("agent \"ftp2\" has no root \"a1\" for a1:{project}; add it to its own file and restart it")
    };
    assert_eq!(
        faults(&refusal),
        [("projects/debian", missing("debian").as_str()), ("projects/gnu", missing("gnu").as_str())]
    );

    // What it holds is in the way.
    world.hello(new, vec![root("a1", 512)], Vec::new());
    world.declare("debian-cd", spec("a1:debian/cd", &[new], Vec::new())).unwrap();
    let refusal = world.replace_refused(plain(ftp1, new));
    assert!(
        matches!(faults(&refusal)[..], [("projects/debian", text)] if text.contains("lies inside, around or at a1:debian/cd")),
        "{refusal}"
    );

    world.ask(Ask::Drain { agent: new, draining: true });
    world.gone(new);
    let long = AgentReplacement { revoke: Some("x".repeat(501)), ..plain(ftp1, new) };
    let refusal = world.replace_refused(long);
    let fields: Vec<&str> = refusal.violations.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(fields, ["replacement", "reason", "projects/debian"]);
    assert!(refusal.violations[0].description.ends_with("mirrorctl agent undrain ftp2"), "{refusal}");
    world.ask(Ask::Drain { agent: new, draining: false });
    assert!(world.replace_refused(plain(ftp1, new)).violations[0].description.contains("has no session"));
    world.ask(Ask::RevokeAgent { agent: new, reason: String::new() });
    assert!(world.replace_refused(plain(ftp1, new)).violations[0].description.contains("is revoked"));
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
        attempt: pull.attempt,
        epoch: pull.epoch,
        project: debian,
        role: Role::Origin,
        destination: pull.destination.clone(),
        spec_hash: pull.spec_hash(),
        ended: false,
        needs_secrets: true,
        dry_run: false,
        keep_extra: false,
        recorded: true,
        autonomous: None,
    };
    world.hello(ftp1, vec![root("a1", 512)], vec![held]);
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
    assert!(world.placement(debian, ftp1).is_none());

    world.end(&copy, ok());
    let mut pulls = Vec::new();
    while !world.offers.is_empty() {
        let offer = world.offered();
        pulls.push((offer.project, offer.attempt.run, world.on(&offer)));
        world.end(&offer, ok());
    }
    assert!(pulls.contains(&(debian, waiting, new)), "{pulls:?}");
    assert_eq!(world.placement(debian, edge1).unwrap().have_tree, Some(waiting));
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
    assert!(world.placement(debian, ftp1).is_none());
    assert_eq!(world.ask(Ask::DeleteAgent { agent: ftp1 }), Reply::Done, "nothing is placed on it any more");
}

#[test]
fn who_was_revoked_before_can_be_replaced() {
    let Typical { mut world, edge2, ftp1, new, debian, .. } = typical();
    world.ask(Ask::RevokeAgent { agent: ftp1, reason: "dead".to_owned() });
    world.ask(Ask::RevokeAgent { agent: edge2, reason: "dead".to_owned() });
    world.settle();
    world.replaced(ftp1, new);
    assert_eq!(world.placement(debian, new).unwrap().role, Role::Origin);
    let third = world.agent("edge3", &[]);
    assert_eq!(world.replaced(edge2, third).placements.len(), 1, "what its labels selected follows");
    assert!(world.placement(debian, third).is_some());
    assert_eq!(world.engine.agent(ftp1).unwrap().revoked.as_deref(), Some("dead"));
}

#[test]
fn a_tree_that_people_put_there_is_copied_or_they_say_that_they_put_it_there_again() {
    let mut world = World::new();
    let (ftp1, edge1, new) = (world.agent("ftp1", &[]), world.agent("edge1", &[]), world.agent("ftp2", &[]));
    let own = world
        .declare("own", ProjectSpec { upstreams: Vec::new(), ..spec("a1:own", &[ftp1], vec![named(edge1)]) })
        .unwrap();
    world.synced(own, &ok());
    assert!(world.tree(own).is_some());
    world.gone(edge1);
    let refusal = world.replace_refused(plain(ftp1, new));
    assert!(
        matches!(faults(&refusal)[..], [("projects/own", text)] if text.contains("--no-reseed")),
        "{refusal}"
    );
    world.hello(edge1, vec![root("a1", 512)], Vec::new());
    let ask = AgentReplacement { validate_only: true, ..plain(ftp1, new) };
    let Reply::Replaced(would) = world.replace_as(ask) else { panic!("refused") };
    assert_eq!(would.placements[0].refill, Refill::Copied { from: edge1, run: None });
    let ask = AgentReplacement { reseed: false, ..plain(ftp1, new) };
    let Reply::Replaced(replaced) = world.replace_as(ask) else { panic!("refused") };
    assert_eq!(replaced.placements[0].refill, Refill::ByPeople);
}

#[test]
fn a_replacement_is_one_unit_within_its_bound() {
    let mut world = World::new();
    let (ftp1, edge1, new) = (world.agent("ftp1", &[]), world.agent("edge1", &[]), world.agent("ftp2", &[]));
    let mut made = 0;
    for count in 1.. {
        let project = declare(&mut world, &format!("p{count}"), &[ftp1], vec![named(edge1)]);
        world.synced(project, &ok());
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
