//! A clock that was far ahead and is set right: schedules must not stay silent until the far future comes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, time::Duration};

use fleet::{
    Engine,
    agent::TokenNames,
    defaults::Limits,
    input::{AgentInput, Ask, Input, Person},
    project::{PlacementSettings, ProjectSpec, RetrySettings, RsyncSettings, Target, Upstream},
    schedule::{Cadence, Cron, IntervalFrom, Schedule},
    time::{Mono, Now, Wall},
};

const NOW: Now = Now { wall: Wall(1_800_000_000_000), mono: Mono(1_000), entropy: 7 };
const DAY: Duration = Duration::from_secs(86_400);

fn put(engine: &mut Engine, now: Now, input: Input) {
    let decision = engine.decide(now, input);
    engine.apply(now, &decision.changes);
}

fn person(ask: Ask) -> Input {
    Input::Person(Person { by: "root".to_owned(), ask })
}

/// A fleet with one project on this schedule.
fn fleet(schedule: Schedule) -> Engine {
    let mut engine = Engine::new(Limits::default());
    put(&mut engine, NOW, Input::Start { at_least: 0 });
    let names = TokenNames::One("ftp1".parse().unwrap());
    let ttl = Duration::from_secs(600);
    let token = Ask::CreateJoinToken {
        id: "t".to_owned(),
        hash: "h".to_owned(),
        names,
        uses: 1,
        ttl,
        networks: Vec::new(),
    };
    put(&mut engine, NOW, person(token));
    let enroll = AgentInput::Enroll {
        token_hash: "h".to_owned(),
        name: "ftp1".parse().unwrap(),
        labels: BTreeMap::new(),
        key_hash: "aa".to_owned(),
        serial: "01".to_owned(),
        expires: NOW.wall.plus(30 * DAY),
        from: None,
    };
    put(&mut engine, NOW, Input::Agent(enroll));
    let agent = engine.agents_by_name().next().unwrap().uid;
    let upstream = Upstream {
        uri: "rsync://h/m/".to_owned(),
        host: "h".to_owned(),
        user: String::new(),
        sealed_password: Vec::new(),
    };
    let origins = vec![Target { agent, destination: None }];
    let spec = Box::new(ProjectSpec {
        display_name: String::new(),
        owner: None,
        labels: BTreeMap::new(),
        upstreams: vec![upstream],
        destination: "a1:debian".parse().unwrap(),
        schedule,
        rsync: RsyncSettings::default(),
        placement: PlacementSettings { origins, ..PlacementSettings::default() },
        guard: fleet::project::GuardSettings::default(),
        marker: None,
        partial_is_success: String::new(),
        link: None,
        after: Vec::new(),
        retry: RetrySettings::default(),
    });
    let name = "debian".parse().unwrap();
    put(
        &mut engine,
        NOW,
        person(Ask::CreateProject { name, spec, paused: false, request: None, validate_only: false }),
    );
    engine
}

fn scheduled(engine: &Engine) -> Wall {
    engine.projects_by_name().next().unwrap().state.next_fire.unwrap().scheduled
}

/// Everything that is due at `now`.
fn drain(engine: &mut Engine, now: Now) {
    while engine.next_deadline(now) == Some(Duration::ZERO) {
        put(engine, now, Input::Tick);
    }
}

#[test]
fn a_schedule_that_a_wrong_clock_sent_into_the_far_future_is_armed_anew() {
    let every_five_minutes = Cron::parse("minute=*/5".parse().unwrap()).unwrap();
    let mut engine = fleet(Schedule::cron(every_five_minutes, chrono_tz::UTC));
    let ahead = Now { wall: NOW.wall.plus(400 * DAY), mono: Mono(2_000), ..NOW };
    drain(&mut engine, ahead);
    let spread = Now { wall: ahead.wall.plus(Duration::from_secs(900)), mono: Mono(902_000), ..NOW };
    drain(&mut engine, spread);
    assert!(scheduled(&engine) > ahead.wall, "it fired by the wrong clock and was armed for after it");

    let right = Now { wall: NOW.wall.plus(DAY), mono: Mono(903_000), ..NOW };
    put(&mut engine, right, Input::Sweep);
    assert!(scheduled(&engine) <= right.wall.plus(Duration::from_secs(300)), "{:?}", scheduled(&engine));
    assert!(engine.decide(right, Input::Sweep).changes.is_empty(), "and that is all");
}

#[test]
fn a_schedule_that_is_just_rare_or_has_not_begun_is_left_alone() {
    let yearly = Schedule::cron(Cron::parse("month=2 day=29".parse().unwrap()).unwrap(), chrono_tz::UTC);
    let monthly = Cadence::Interval { every_seconds: 30 * 86_400, from: IntervalFrom::Start };
    let mut later = Schedule::new(monthly.clone(), chrono_tz::UTC);
    later.start = Some(NOW.wall.plus(100 * DAY).to_utc());
    for schedule in [yearly, Schedule::new(monthly, chrono_tz::UTC), later] {
        let mut engine = fleet(schedule);
        drain(&mut engine, NOW);
        let armed = engine.projects_by_name().next().unwrap().state.next_fire;
        assert!(armed.is_some());
        assert!(engine.decide(NOW, Input::Sweep).changes.is_empty(), "{armed:?}");
    }
}
