//! An agent's next certificate: entered for the known key of an agent that is not revoked, and for nobody else.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use fleet::{
    Engine,
    agent::{AgentRecord, TokenNames},
    defaults::Limits,
    id::AgentUid,
    input::{AgentInput, Ask, Input, Person, Reply},
    time::{Mono, Now, Wall},
};

const NOW: Now = Now { wall: Wall(1_800_000_000_000), mono: Mono(1_000), entropy: 7 };
const DAY_MS: i64 = 86_400_000;

/// Decides, and makes it so.
fn put(engine: &mut Engine, input: Input) -> Reply {
    let decision = engine.decide(NOW, input);
    engine.apply(NOW, &decision.changes);
    decision.reply
}

fn person(ask: Ask) -> Input {
    Input::Person(Person { by: "root".to_owned(), ask })
}

fn renewal(agent: AgentUid, key_hash: &str) -> Input {
    let expires = Wall(NOW.wall.0 + 40 * DAY_MS);
    Input::Agent(AgentInput::Renew { agent, key_hash: key_hash.to_owned(), serial: "02".to_owned(), expires })
}

/// A fleet with the agent edge1, whose key is "aa".
fn fleet() -> (Engine, AgentUid) {
    let mut engine = Engine::new(Limits::default());
    put(&mut engine, Input::Start { at_least: 0 });
    let token = Ask::CreateJoinToken {
        id: "t".to_owned(),
        hash: "h".to_owned(),
        names: TokenNames::One("edge1".parse().unwrap()),
        uses: 1,
        ttl: Duration::from_secs(600),
        networks: Vec::new(),
    };
    assert_eq!(put(&mut engine, person(token)), Reply::Done);
    let enroll = AgentInput::Enroll {
        token_hash: "h".to_owned(),
        name: "edge1".parse().unwrap(),
        labels: Default::default(),
        key_hash: "aa".to_owned(),
        serial: "01".to_owned(),
        expires: Wall(NOW.wall.0 + 30 * DAY_MS),
        from: None,
    };
    let Reply::Agent(agent) = put(&mut engine, Input::Agent(enroll)) else { panic!("not enrolled") };
    (engine, agent)
}

fn refused(engine: &Engine, input: Input) -> &'static str {
    let decision = engine.decide(NOW, input);
    assert!(decision.changes.is_empty());
    match decision.reply {
        Reply::Refused(refusal) => refusal.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_renewal_enters_the_new_certificate_and_nothing_else() {
    let (mut engine, agent) = fleet();
    let before = engine.agent(agent).unwrap().clone();
    assert_eq!(put(&mut engine, renewal(agent, "aa")), Reply::Agent(agent));
    let wanted = AgentRecord {
        certificate_serial: "02".to_owned(),
        certificate_expires: Wall(NOW.wall.0 + 40 * DAY_MS),
        ..before
    };
    assert_eq!(engine.agent(agent), Some(&wanted));
}

#[test]
fn another_key_an_unknown_agent_and_a_revoked_one_are_refused() {
    let (mut engine, agent) = fleet();
    assert_eq!(refused(&engine, renewal(agent, "bb")), "OTHER_KEY");
    assert_eq!(refused(&engine, renewal(AgentUid(99), "aa")), "UNKNOWN_AGENT");
    let revoke = person(Ask::RevokeAgent { agent, reason: "stolen".to_owned() });
    assert!(!matches!(put(&mut engine, revoke), Reply::Refused(_)));
    assert_eq!(refused(&engine, renewal(agent, "aa")), "AGENT_REVOKED");
}
