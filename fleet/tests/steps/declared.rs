//! Agents as people declare them: before their hosts come, their labels, and their caps.

use std::{collections::BTreeMap, time::Duration};

use fleet::{
    Engine,
    agent::{AgentCaps, Root, TokenNames},
    defaults::{LABELS_BYTES_MAX, LABELS_MAX},
    engine::WaitReason,
    id::AgentUid,
    input::{AgentInput, Ask, Input, Reply, RequestKey},
    record::Record,
    refusal::{Refusal, RefusalCode},
};

use crate::world::{HOUR, World, labels, ok, root, selected, spec};

fn caps(max_running: u32) -> AgentCaps {
    AgentCaps { max_running: Some(max_running), ..AgentCaps::default() }
}

fn declaration(name: &str, pairs: &[(&str, &str)], caps: AgentCaps) -> Ask {
    let name = name.parse().unwrap();
    Ask::CreateAgent { name, labels: labels(pairs), caps, request: None, validate_only: false }
}

fn declare(world: &mut World, name: &str, pairs: &[(&str, &str)], caps: AgentCaps) -> AgentUid {
    let Reply::Agent(agent) = world.ask(declaration(name, pairs, caps)) else { panic!("not declared") };
    world.settle();
    agent
}

fn set(world: &mut World, agent: AgentUid, pairs: &[(&str, &str)], caps: AgentCaps) {
    let revision = world.engine.agent(agent).unwrap().revision;
    let ask = Ask::UpdateAgent { agent, labels: labels(pairs), caps, revision, validate_only: false };
    assert_eq!(world.ask(ask), Reply::Agent(agent));
    world.settle();
}

fn refused(reply: Reply) -> (RefusalCode, &'static str) {
    let Reply::Refused(refusal) = reply else { panic!("{reply:?}") };
    (refusal.code, refusal.reason)
}

/// A host asks for this name by a token that is good for these, saying these labels.
fn join(world: &mut World, name: &str, names: TokenNames, pairs: &[(&str, &str)]) -> Reply {
    let hash = format!("h{}", world.now.entropy);
    let networks = Vec::new();
    world.ask(Ask::CreateJoinToken {
        id: hash.clone(),
        hash: hash.clone(),
        names,
        networks,
        uses: 1,
        ttl: HOUR,
    });
    world.put(Input::Agent(AgentInput::Enroll {
        token_hash: hash,
        name: name.parse().unwrap(),
        from: None,
        labels: labels(pairs),
        key_hash: "aa".to_owned(),
        serial: "01".to_owned(),
        expires: world.now.wall.plus(900 * HOUR),
    }))
}

#[test]
fn a_project_waits_for_an_agent_that_is_only_declared_and_runs_when_its_host_has_joined() {
    let mut world = World::new();
    let edge9 = declare(&mut world, "edge9", &[("role", "edge")], caps(3));
    let project = world.declare("debian", spec("a1:debian", &[edge9], Vec::new())).unwrap();
    let run = world.run(project);
    assert_eq!(world.waits(project, run), [WaitReason::AgentAway]);

    // Its name is taken for who has no token of exactly this name: with it go its projects.
    let any = join(&mut world, "edge9", TokenNames::Pattern("edge*".to_owned()), &[]);
    assert_eq!(refused(any), (RefusalCode::Unauthenticated, "BAD_JOIN_TOKEN"));
    let bound = TokenNames::One("edge9".parse().unwrap());
    let joined = join(&mut world, "edge9", bound, &[("role", "origin"), ("site", "north")]);
    assert_eq!(joined, Reply::Agent(edge9));
    let record = world.engine.agent(edge9).unwrap();
    assert_eq!(record.labels, labels(&[("role", "edge"), ("site", "north")]), "what people declared holds");
    assert!(!record.is_declared_only() && record.caps == caps(3));

    world.hello(edge9, vec![root("a1", 512)], Vec::new());
    let offer = world.offered();
    assert_eq!((offer.project, world.on(&offer)), (project, edge9));
}

#[test]
fn a_declaration_is_made_once_and_its_faults_are_told_together() {
    let mut world = World::new();
    let request = RequestKey { key: "ada CreateAgent 1".to_owned(), payload: "p".to_owned() };
    let ask = |validate_only| {
        let (name, labels, caps) = ("edge9".parse().unwrap(), BTreeMap::new(), AgentCaps::default());
        Ask::CreateAgent { name, labels, caps, request: Some(request.clone()), validate_only }
    };
    assert_eq!(world.ask(ask(true)), Reply::Done);
    assert_eq!(world.engine.agents_by_name().count(), 0, "only checked");
    let Reply::Agent(edge9) = world.ask(ask(false)) else { panic!("not declared") };
    assert_eq!(world.ask(ask(false)), Reply::Agent(edge9), "the same request again");
    assert_eq!(
        refused(world.ask(declaration("EDGE9", &[], AgentCaps::default()))),
        (RefusalCode::AlreadyExists, "AGENT_EXISTS")
    );
    let bad = AgentCaps { max_running: Some(65), max_serving: Some(1_001), bandwidth_limit_kib: Some(0) };
    let Reply::Refused(refusal) = world.ask(declaration("edge8", &[], bad)) else { panic!("declared") };
    assert_eq!(refusal.violations.len(), 3, "{refusal}");
    world.settle();
}

#[test]
fn replicas_follow_labels_at_once_and_stay_while_they_are_worked_on() {
    let mut world = World::new();
    let ftp1 = world.agent("ftp1", &[]);
    let edge1 = world.agent("edge1", &[]);
    let replicas = vec![selected("role", "edge")];
    let project = world.declare("debian", spec("a1:debian", &[ftp1], replicas)).unwrap();
    world.synced(project, &ok());
    assert!(world.placement(project, edge1).is_none());

    set(&mut world, edge1, &[("role", "edge")], AgentCaps::default());
    let pull = world.offered();
    assert_eq!(world.on(&pull), edge1, "it pulls the tree that is served");

    set(&mut world, edge1, &[("role", "spare")], AgentCaps::default());
    assert!(world.placement(project, edge1).is_some(), "it is being worked on");
    world.end(&pull, ok());
    assert!(world.placement(project, edge1).is_none(), "nothing is there any more that wants it");
}

#[test]
fn a_tree_that_moves_while_its_agents_labels_are_taken_away_is_forgotten_at_its_end() {
    let mut world = World::new();
    let ftp1 = world.agent("ftp1", &[]);
    let edge1 = world.agent("edge1", &[("role", "edge")]);
    let replicas = vec![selected("role", "edge")];
    let project = world.declare("debian", spec("a1:debian", &[ftp1], replicas)).unwrap();
    world.synced(project, &ok());
    let (to, revision, traceparent) = ("a1:moved".parse().unwrap(), None, String::new());
    let asked = world.ask(Ask::Move { project, agent: edge1, to, revision, traceparent });
    let Reply::Run { run, .. } = asked else { panic!("{asked:?}") };
    let offer = world.offered();
    set(&mut world, edge1, &[], AgentCaps::default());
    world.report(&offer, ok());
    assert!(world.placement(project, edge1).is_none(), "nothing says that the tree is where it was");
    assert!(world.engine.run(run).is_none_or(|run| run.state.is_closed()));
    world.settle();
    assert!(world.placement(project, edge1).is_none());
}

#[test]
fn a_changed_agent_must_be_the_one_that_was_seen() {
    let mut world = World::new();
    let edge1 = world.agent("edge1", &[]);
    let update = |revision, validate_only| Ask::UpdateAgent {
        agent: edge1,
        labels: labels(&[("role", "edge")]),
        caps: caps(2),
        revision,
        validate_only,
    };
    assert_eq!(refused(world.ask(update(7, false))), (RefusalCode::Aborted, "STALE_ETAG"));
    assert_eq!(world.ask(update(1, true)), Reply::Done);
    assert!(world.engine.agent(edge1).unwrap().labels.is_empty(), "only checked");
    assert_eq!(world.ask(update(1, false)), Reply::Agent(edge1));
    assert_eq!(world.ask(update(2, false)), Reply::Agent(edge1), "the same again changes nothing");
    assert_eq!(world.engine.agent(edge1).unwrap().revision, 2);
    assert_eq!(
        refused(world.ask(Ask::UpdateAgent {
            agent: AgentUid(99),
            labels: BTreeMap::new(),
            caps: AgentCaps::default(),
            revision: 1,
            validate_only: false
        })),
        (RefusalCode::NotFound, "NOT_FOUND")
    );
}

#[test]
fn of_a_cap_and_the_agents_own_file_the_stricter_holds() {
    let mut world = World::new();
    // Its own file allows 4, the fleet 8.
    let ftp1 = world.agent("ftp1", &[]);
    assert_eq!(world.engine.running_max(ftp1), 4);
    set(&mut world, ftp1, &[], caps(64));
    assert_eq!(world.engine.running_max(ftp1), 4, "people cannot allow what the host does not");
    set(&mut world, ftp1, &[], AgentCaps { bandwidth_limit_kib: Some(500), ..caps(1) });
    let one = world.declare("one", spec("a1:one", &[ftp1], Vec::new())).unwrap();
    let mut limited = spec("a1:two", &[ftp1], Vec::new());
    limited.rsync.bandwidth_limit_kib = 100;
    let two = world.declare("two", limited).unwrap();
    world.synced(one, &ok());
    world.synced(two, &ok());

    world.run(one);
    let first = world.offered();
    assert_eq!(first.bandwidth_limit_kib, 500);
    let second = world.run(two);
    assert_eq!(world.waits(two, second), [WaitReason::AgentSlots]);
    set(&mut world, ftp1, &[], AgentCaps { bandwidth_limit_kib: Some(500), ..caps(2) });
    let offer = world.offered();
    assert_eq!((offer.project, offer.bandwidth_limit_kib), (two, 100), "the project's own limit is stricter");
}

#[test]
fn an_agent_serves_no_more_replicas_at_once_than_people_say() {
    let mut world = World::new();
    let ftp1 = world.agent("ftp1", &[]);
    for name in ["edge1", "edge2"] {
        world.agent(name, &[("role", "edge")]);
    }
    set(&mut world, ftp1, &[], AgentCaps { max_serving: Some(1), ..AgentCaps::default() });
    let replicas = vec![selected("role", "edge")];
    let project = world.declare("debian", spec("a1:debian", &[ftp1], replicas)).unwrap();
    let run = world.run(project);
    let origin = world.offered();
    world.end(&origin, ok());
    let first = world.offered();
    assert!(world.offers.is_empty());
    assert_eq!(world.waits(project, run), [WaitReason::OriginUplink]);
    set(&mut world, ftp1, &[], AgentCaps::default());
    let second = world.offered();
    assert_ne!(world.on(&first), world.on(&second));
}

#[test]
fn only_who_is_revoked_or_never_came_is_deleted_and_only_when_no_project_names_it() {
    let mut world = World::new();
    let ftp1 = world.agent("ftp1", &[]);
    let edge9 = declare(&mut world, "edge9", &[], AgentCaps::default());
    let project = world.declare("debian", spec("a1:debian", &[ftp1, edge9], Vec::new())).unwrap();
    let delete = |agent| Ask::DeleteAgent { agent };
    let precondition = RefusalCode::FailedPrecondition;
    assert_eq!(refused(world.ask(delete(ftp1))), (precondition, "AGENT_NOT_REVOKED"));
    assert_eq!(refused(world.ask(delete(edge9))), (precondition, "AGENT_PLACED"));
    assert_eq!(refused(world.ask(delete(AgentUid(99)))), (RefusalCode::NotFound, "NOT_FOUND"));
    world.edit(project, |spec| spec.placement.origins.truncate(1));
    assert_eq!(world.ask(delete(edge9)), Reply::Done);
    assert!(world.engine.agent(edge9).is_none());
    world.settle();
}

#[test]
fn what_an_agent_last_told_is_known_while_it_is_away_and_after_a_restart() {
    let mut world = World::new();
    let ftp1 = world.agent("ftp1", &[]);
    let session = world.engine.session(ftp1).unwrap().epoch;
    let roots = vec![root("a1", 77)];
    world.put(Input::Agent(AgentInput::Inventory { agent: ftp1, session, roots: roots.clone() }));
    world.pass(Duration::from_secs(60));
    world.gone(ftp1);
    let away = world.engine.agent(ftp1).unwrap();
    assert_eq!((away.last_known.roots.clone(), away.last_seen), (roots.clone(), Some(world.now.wall)));
    let again = Engine::recover(world.engine.limits().clone(), world.now, world.engine.records());
    assert_eq!(again.agent(ftp1).unwrap().last_known.roots, roots);
}

/// So many labels that nobody else has.
fn many(prefix: &str, count: usize) -> Vec<(String, String)> {
    (0..count).map(|n| (format!("{prefix}{n}"), "x".to_owned())).collect()
}

fn pairs(labels: &[(String, String)]) -> Vec<(&str, &str)> {
    labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

fn refusal(reply: Reply) -> Refusal {
    match reply {
        Reply::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_host_that_enrols_again_changes_no_label_that_its_agent_has() {
    let mut world = World::new();
    let ftp1 = world.agent("ftp1", &[]);
    let edge1 = world.agent("edge1", &[("role", "edge"), ("site", "north")]);
    let replicas = vec![selected("role", "edge")];
    let project = world.declare("debian", spec("a1:debian", &[ftp1], replicas)).unwrap();
    world.synced(project, &ok());
    set(&mut world, edge1, &[("role", "edge"), ("site", "south"), ("tier", "1")], AgentCaps::default());

    // A new disk, and the same script as ever; or another one that says none.
    let one = || TokenNames::One("edge1".parse().unwrap());
    for said in [&[("role", "spare"), ("site", "north"), ("rack", "7")][..], &[]] {
        assert_eq!(join(&mut world, "edge1", one(), said), Reply::Agent(edge1));
        world.settle();
        let expected = labels(&[("role", "edge"), ("site", "south"), ("tier", "1"), ("rack", "7")]);
        assert_eq!(world.engine.agent(edge1).unwrap().labels, expected);
        assert!(world.placement(project, edge1).unwrap().have_tree.is_some(), "its tree is still its own");
    }
}

#[test]
fn labels_of_people_and_host_together_are_bounded_and_who_is_refused_reads_what_to_do() {
    let mut world = World::new();
    let edge1 = world.agent("edge1", &[]);
    let own = many("p", 20);
    set(&mut world, edge1, &pairs(&own), AgentCaps::default());
    let one = || TokenNames::One("edge1".parse().unwrap());
    let said = many("h", LABELS_MAX - 19);
    let before: Vec<_> = world.engine.records().filter(|record| !is_token(record)).collect();
    let refused = refusal(join(&mut world, "edge1", one(), &pairs(&said)));
    assert_eq!((refused.code, refused.violations.len()), (RefusalCode::InvalidArgument, 1));
    let text = &refused.violations[0].description;
    let words = ["\"edge1\"", "33 labels", "at most 32", "20 of them it has", "agent set edge1 --label KEY-"];
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert_eq!(world.engine.join_tokens().count(), 1, "the token is still good");
    assert!(world.engine.records().filter(|record| !is_token(record)).eq(before));
    assert_eq!(join(&mut world, "edge1", one(), &pairs(&said[1..])), Reply::Agent(edge1));
    assert_eq!(world.engine.agent(edge1).unwrap().labels.len(), LABELS_MAX);

    // Nor are they longer than a record has room for, whoever says them.
    let long: Vec<_> = (0..8).map(|n| (format!("l{n}"), "y".repeat(LABELS_BYTES_MAX / 8 - 1))).collect();
    let fresh = refusal(join(&mut world, "edge2", TokenNames::Pattern("*".to_owned()), &pairs(&long)));
    assert!(fresh.violations[0].description.contains("4104 bytes"), "{fresh}");
    let created = refusal(world.ask(declaration("edge3", &pairs(&long), caps(65))));
    let fields: Vec<&str> = created.violations.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["agent.max_running", "agent.labels"]);
    let revision = world.engine.agent(edge1).unwrap().revision;
    let update =
        |labels, caps| Ask::UpdateAgent { agent: edge1, labels, caps, revision, validate_only: true };
    let changed = refusal(world.ask(update(labels(&pairs(&long)), caps(1))));
    assert_eq!(changed.violations[0].field, "agent.labels");
    assert!(world.engine.agent_named(&"edge2".parse().unwrap()).is_none());
}

fn is_token(record: &Record) -> bool {
    matches!(record, Record::JoinToken(_))
}

#[test]
fn what_an_agent_last_told_gives_room_to_labels_that_people_set() {
    let mut world = World::new();
    let edge1 = world.enroll("edge1", &[]);
    let roots: Vec<Root> = (0..64).map(|n| root(&format!("a{n}"), 1)).collect();
    world.hello(edge1, roots, Vec::new());
    let known = |world: &World| world.engine.agent(edge1).unwrap().last_known.roots.len();
    let all = known(&world);
    let long = |bytes: usize| vec![("k".to_owned(), "v".repeat(bytes))];
    set(&mut world, edge1, &pairs(&long(1_000)), AgentCaps::default());
    let fewer = known(&world);
    assert!(fewer > 0 && fewer < all, "{fewer} of {all}");
    // The same where a host brings them, or they come from another agent.
    let said = vec![("h".to_owned(), "v".repeat(1_000))];
    join(&mut world, "edge1", TokenNames::One("edge1".parse().unwrap()), &pairs(&said));
    let fewer_still = known(&world);
    assert!(fewer_still > 0 && fewer_still < fewer, "{fewer_still} of {fewer}");
    let old = world.agent("edge2", &pairs(&[("z".to_owned(), "v".repeat(1_500))]));
    world.replaced(old, edge1);
    assert_eq!(world.engine.agent(edge1).unwrap().labels.len(), 3);
    assert_eq!(known(&world), 0);
}
