//! Users and their tokens: who stays, what ends with what, and that the engine rebuilt from its records is the same one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::time::Duration;

use fleet::{
    Engine,
    agent::{PasswordHash, UserRole},
    defaults::{Limits, USER_TOKENS_MAX, USERS_MAX},
    id::Name,
    input::{Ask, Input, Person, Reply, UserAsk},
    record::Change,
    time::{Mono, Now, Wall},
};

const HOUR: Duration = Duration::from_secs(3_600);

struct Fleet {
    engine: Engine,
    now: Now,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn password(text: &str) -> PasswordHash {
    PasswordHash(text.to_owned())
}

impl Fleet {
    /// A fleet whose first admin is root.
    fn new() -> Self {
        let now = Now { wall: Wall(1_800_000_000_000), mono: Mono(1_000), entropy: 7 };
        let mut fleet = Self { engine: Engine::new(Limits::default()), now };
        fleet.done(create("root", UserRole::Admin));
        fleet
    }

    fn ask(&mut self, ask: UserAsk) -> Reply {
        let person = Person { by: "root".to_owned(), ask: Ask::User(ask) };
        let decision = self.engine.decide(self.now, Input::Person(person));
        self.engine.apply(self.now, &decision.changes);
        decision.reply
    }

    fn done(&mut self, ask: UserAsk) {
        assert_eq!(self.ask(ask), Reply::Done);
    }

    fn refused(&mut self, ask: UserAsk) -> &'static str {
        match self.ask(ask) {
            Reply::Refused(refusal) => refusal.reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn tokens(&self, user: &str) -> Vec<String> {
        self.engine.tokens_of(&name(user)).into_iter().map(|token| token.id.clone()).collect()
    }

    fn later(&mut self, span: Duration) {
        self.now.wall = self.now.wall.plus(span);
        self.now.mono = self.now.mono.plus(span);
    }
}

fn create(user: &str, role: UserRole) -> UserAsk {
    UserAsk::Create { name: name(user), role, password: Some(password("first")) }
}

fn update(user: &str, role: Option<UserRole>, disabled: Option<bool>) -> UserAsk {
    UserAsk::Update { user: name(user), role, disabled, revision: None }
}

fn log_in(user: &str, with: &str, id: &str, ttl: Duration) -> UserAsk {
    UserAsk::LogIn {
        user: name(user),
        password: password(with),
        id: id.to_owned(),
        hash: format!("hash of {id}"),
        ttl,
        from: "192.0.2.1".to_owned(),
    }
}

#[test]
fn the_last_admin_who_is_not_disabled_stays() {
    let mut fleet = Fleet::new();
    let delete = |user: &str| UserAsk::Delete { user: name(user), revision: None };
    fleet.done(create("dora", UserRole::Admin));
    fleet.done(update("dora", None, Some(true)));
    for ask in [
        update("ROOT", Some(UserRole::Operator), None),
        update("root", None, Some(true)),
        update("root", Some(UserRole::Admin), Some(true)),
        delete("root"),
    ] {
        assert_eq!(fleet.refused(ask), "LAST_ADMIN");
    }
    // Nothing that leaves it an admin is refused, nor that of others.
    fleet.done(update("root", Some(UserRole::Admin), Some(false)));
    fleet.done(update("dora", Some(UserRole::Viewer), None));
    fleet.done(delete("dora"));
    fleet.done(create("anna", UserRole::Admin));
    fleet.done(delete("root"));
    assert_eq!(fleet.refused(delete("anna")), "LAST_ADMIN");
    assert_eq!(fleet.refused(delete("nobody")), "NOT_FOUND");
}

#[test]
fn tokens_end_with_what_they_hang_on() {
    let mut fleet = Fleet::new();
    fleet.done(create("maria", UserRole::Viewer));
    fleet.done(create("jo", UserRole::Viewer));
    fleet.done(log_in("jo", "first", "j", HOUR));
    for (n, ending) in [
        update("maria", None, Some(true)),
        UserAsk::SetPassword {
            user: name("maria"),
            password: password("second"),
            old: Some(password("first")),
            reset: false,
        },
        UserAsk::SetPassword { user: name("maria"), password: password("first"), old: None, reset: true },
        UserAsk::RevokeToken { user: name("maria"), id: "t3".to_owned() },
        UserAsk::Delete { user: name("maria"), revision: None },
    ]
    .into_iter()
    .enumerate()
    {
        let with = if n == 2 { "second" } else { "first" };
        fleet.done(log_in("maria", with, &format!("t{n}"), HOUR));
        assert_eq!(fleet.tokens("maria").len(), 1, "{n}");
        fleet.done(ending);
        assert!(fleet.tokens("maria").is_empty(), "{n}");
        if n == 0 {
            assert_eq!(
                fleet.refused(log_in("maria", "first", "x", HOUR)),
                "STALE_ETAG",
                "disabled meanwhile"
            );
            fleet.done(update("maria", None, Some(false)));
        }
    }
    assert_eq!(fleet.tokens("jo"), ["j"]);
    assert_eq!(fleet.refused(UserAsk::RevokeToken { user: name("root"), id: "j".to_owned() }), "NOT_FOUND");
}

#[test]
fn only_a_reset_makes_earlier_certificates_useless() {
    let mut fleet = Fleet::new();
    fleet.done(create("maria", UserRole::Viewer));
    let since = |fleet: &Fleet| fleet.engine.user(&name("maria")).unwrap().certificates_since;
    let made = since(&fleet);
    fleet.later(HOUR);
    let own = |old: &str, new: &str| UserAsk::SetPassword {
        user: name("maria"),
        password: password(new),
        old: Some(password(old)),
        reset: false,
    };
    assert_eq!(fleet.refused(own("other", "second")), "STALE_ETAG", "it was changed while it was compared");
    fleet.done(own("first", "second"));
    assert_eq!(since(&fleet), made);
    let reset =
        UserAsk::SetPassword { user: name("maria"), password: password("third"), old: None, reset: true };
    fleet.done(reset);
    assert_eq!(since(&fleet), fleet.now.wall);
}

#[test]
fn tokens_and_users_are_bounded_and_what_expired_is_swept() {
    let mut fleet = Fleet::new();
    fleet.done(log_in("root", "first", "brief", Duration::from_secs(60)));
    fleet.later(HOUR);
    for n in 0..=USER_TOKENS_MAX {
        fleet.later(Duration::from_secs(1));
        fleet.done(log_in("root", "first", &format!("t{n}"), HOUR));
    }
    let tokens = fleet.tokens("root");
    assert_eq!((tokens.len(), tokens[0].as_str()), (USER_TOKENS_MAX, "t1"), "the oldest made room");
    assert_eq!(fleet.refused(log_in("root", "first", "t5", HOUR)), "TOKEN_EXISTS");
    for ttl in [Duration::from_secs(59), HOUR * 24 * 31] {
        assert_eq!(fleet.refused(log_in("root", "first", "y", ttl)), "INVALID_FIELDS");
    }
    fleet.later(HOUR * 2);
    let swept = fleet.engine.decide(fleet.now, Input::Sweep).changes;
    assert!(swept.iter().all(|change| matches!(change, Change::Delete(_))));
    assert_eq!(swept.len(), USER_TOKENS_MAX);
    for n in 1..USERS_MAX {
        fleet.done(create(&format!("u{n}"), UserRole::Viewer));
    }
    assert_eq!(fleet.refused(create("more", UserRole::Viewer)), "TOO_MANY_USERS");
}

#[test]
fn an_engine_rebuilt_from_its_records_is_the_same_one() {
    let mut fleet = Fleet::new();
    fleet.done(create("maria", UserRole::Owner));
    fleet.done(log_in("maria", "first", "t", HOUR));
    fleet.done(update("maria", Some(UserRole::Operator), None));
    let mut rebuilt = Engine::new(Limits::default());
    let records: Vec<Change> = fleet.engine.records().map(Change::Put).collect();
    rebuilt.apply(fleet.now, &records);
    assert!(rebuilt.records().eq(fleet.engine.records()));
    assert_eq!(rebuilt.tokens_of(&name("maria")).len(), 1);
    assert!(!format!("{:?}", fleet.engine.records().collect::<Vec<_>>()).contains("first"));
}
