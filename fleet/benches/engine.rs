//! What the engine costs: the next fire of schedules, arming many projects, a burst in which all of them are due at once,
//! and plans over half of them. Figures are ratios to look at within one run; nothing is asserted here.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::{
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
    time::Duration,
};

use chrono::{DateTime, Utc};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use fleet::{
    Engine,
    agent::{AgentFacts, Root, TokenNames},
    defaults::Limits,
    id::AgentUid,
    input::{AgentInput, Ask, Input, NewPushToken, Person, Reply},
    plan::{Act, Asker, PlanRequest},
    project::{PlacementSettings, ProjectSpec, RetrySettings, RsyncSettings, Target, Upstream},
    schedule::{Cron, Named, Schedule},
    time::{Mono, Now, Wall},
};

/// Projects in the larger benches.
const PROJECTS: usize = 10_000;
/// Projects of a plan.
const PLANNED: usize = 5_000;
/// Push tokens of the fleet while projects are removed.
const PUSH_TOKENS: usize = 20_000;
/// Schedules that are armed.
const ARMED: u64 = 100_000;

fn schedule(fields: &str) -> Schedule {
    let fields = fields.parse().expect("fields are named");
    Schedule::cron(Cron::parse(fields).expect("fields are right"), chrono_tz::Europe::Berlin)
}

fn instant() -> DateTime<Utc> {
    "2026-11-20T07:42:10Z".parse().expect("an instant")
}

fn next_fire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("next fire");
    for (name, fields) in [
        ("plain", "minute=10 hour=*/6"),
        ("last friday", "day=last fri"),
        ("29 February", "month=2 day=29"),
        ("week 53", "week=53"),
    ] {
        let schedule = schedule(fields);
        group.bench_function(name, |bencher| bencher.iter(|| schedule.next_after(black_box(instant()))));
    }
    group.finish();
}

fn now(wall: DateTime<Utc>, step: u64) -> Now {
    Now { wall: Wall::from(wall), mono: Mono(step), entropy: step.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

fn step(engine: &mut Engine, now: Now, input: Input) {
    let decision = engine.decide(now, input);
    engine.apply(now, &decision.changes);
}

/// A fleet with one agent that is here, and this many projects that fire every minute.
fn fleet(projects: usize) -> Engine {
    let limits = Limits {
        agent_slots: u32::MAX,
        volume_slots: u32::MAX,
        first_syncs: u32::MAX,
        upstream_slots: u32::MAX,
        upstream_spacing: Duration::ZERO,
        ..Limits::default()
    };
    let mut engine = Engine::new(limits);
    let at = now(instant(), 1);
    step(&mut engine, at, Input::Start { at_least: 0 });
    let names = TokenNames::Pattern("*".to_owned());
    let ask = Ask::CreateJoinToken {
        id: "t".into(),
        hash: "h".into(),
        names,
        uses: 1,
        ttl: Duration::from_secs(600),
        networks: Vec::new(),
    };
    step(&mut engine, at, Input::Person(Person { by: "maria".into(), ask }));
    let enroll = AgentInput::Enroll {
        token_hash: "h".into(),
        name: "ftp1".parse().expect("a name"),
        labels: BTreeMap::new(),
        key_hash: "k".into(),
        serial: "s".into(),
        expires: at.wall.plus(Duration::from_secs(86_400)),
        from: None,
    };
    step(&mut engine, at, Input::Agent(enroll));
    let agent = engine.agents_by_name().next().map(|agent| agent.uid).expect("it is enrolled");
    for number in 0..projects {
        step(&mut engine, at, create(agent, number));
    }
    let root = Root {
        name: "a1".into(),
        path: "/srv".into(),
        total_bytes: 1 << 40,
        free_bytes: 1 << 39,
        total_inodes: 0,
        free_inodes: 0,
    };
    let facts = AgentFacts { roots: vec![root], ..AgentFacts::default() };
    let hello = AgentInput::Hello {
        agent,
        state_id: "d".into(),
        highest_term: 1,
        connection: 1,
        facts,
        attempts: Vec::new(),
    };
    step(&mut engine, at, Input::Agent(hello));
    engine
}

fn create(agent: AgentUid, number: usize) -> Input {
    let name = format!("p{number}").parse().expect("a name");
    let spec = Box::new(spec(agent, number));
    let ask = Ask::CreateProject { name, spec, paused: false, request: None, validate_only: false };
    Input::Person(Person { by: "maria".into(), ask })
}

fn spec(agent: AgentUid, number: usize) -> ProjectSpec {
    let host = format!("h{}.example.net", number % 500);
    let upstream = Upstream {
        uri: format!("rsync://{host}/mod/p{number}/"),
        host,
        user: String::new(),
        sealed_password: Vec::new(),
    };
    ProjectSpec {
        display_name: String::new(),
        owner: None,
        labels: BTreeMap::new(),
        upstreams: vec![upstream],
        destination: format!("a1:p{number}").parse().expect("a destination"),
        schedule: schedule("second=0"),
        rsync: RsyncSettings::default(),
        placement: PlacementSettings {
            origins: vec![Target { agent, destination: None }],
            ..PlacementSettings::default()
        },
        guard: fleet::project::GuardSettings::default(),
        marker: None,
        partial_is_success: String::new(),
        link: None,
        after: Vec::new(),
        retry: RetrySettings::default(),
    }
}

fn apply(acts: &[Act]) -> Input {
    let plan = PlanRequest { acts: acts.to_vec(), asker: Asker::default(), request: None };
    Input::Person(Person { by: "maria".into(), ask: Ask::Apply(Box::new(plan)) })
}

/// Two push tokens for each project.
fn with_push_tokens(mut engine: Engine, at: Now) -> Engine {
    let projects: Vec<_> = engine.projects_by_name().map(|project| project.record.uid).collect();
    for (number, project) in projects.iter().cycle().take(PUSH_TOKENS).enumerate() {
        let (id, hash) = (format!("{number:012}"), String::new());
        let ask = Ask::CreatePushToken(NewPushToken {
            id,
            hash,
            project: *project,
            note: String::new(),
            ttl: None,
            request: None,
            validate_only: false,
        });
        step(&mut engine, at, Input::Person(Person { by: "maria".into(), ask }));
    }
    assert_eq!(engine.push_tokens().count(), PUSH_TOKENS);
    engine
}

/// The recording of a plan, in which the writer does nothing else; and all of its steps.
fn plans(criterion: &mut Criterion) {
    let at = now(instant(), 1);
    let engine = with_push_tokens(fleet(PROJECTS), at);
    let agent = engine.agents_by_name().next().map(|agent| agent.uid).expect("it is enrolled");
    let creation = |number: usize| Act::Create {
        uid: engine.uid_after(number as u64),
        name: format!("n{number}").parse().expect("a name"),
        spec: Box::new(spec(agent, PROJECTS + number)),
        paused: None,
        archived: None,
    };
    let creations: Vec<Act> = (0..PLANNED).map(creation).collect();
    let deletion = |project: &fleet::engine::Project| Act::Delete {
        project: project.record.uid,
        revision: project.record.revision,
    };
    let deletions: Vec<Act> = engine.projects_by_name().take(PLANNED).map(deletion).collect();
    let mut group = criterion.benchmark_group("5,000 of 10,000 projects, 20,000 push tokens");
    group.sample_size(10);
    for (name, acts) in [("created", creations), ("removed", deletions)] {
        group.bench_function(format!("{name}: recording"), |bencher| {
            let decide = |input| {
                let decision = engine.decide(at, input);
                assert!(matches!(decision.reply, Reply::Planned { .. }), "{:?}", decision.reply);
                decision
            };
            bencher.iter_batched(|| apply(&acts), decide, BatchSize::LargeInput);
        });
        let mut recorded = engine.clone();
        step(&mut recorded, at, apply(&acts));
        group.bench_function(format!("{name}: steps, and what follows"), |bencher| {
            bencher.iter_batched(
                || recorded.clone(),
                |mut engine| drain(&mut engine, instant()),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// Everything that is due now, to the end: fires, then offers.
fn drain(engine: &mut Engine, at: DateTime<Utc>) -> usize {
    let mut steps = 0;
    let mut at = now(at, 2);
    while engine.next_deadline(at) == Some(Duration::ZERO) {
        at.entropy = at.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        step(engine, at, Input::Tick);
        steps += 1;
    }
    steps
}

fn burst(criterion: &mut Criterion) {
    let armed = fleet(PROJECTS);
    let due = instant() + chrono::Duration::seconds(51);
    let mut group = criterion.benchmark_group("10,000 projects");
    group.sample_size(10);
    group.bench_function("all due in one second, all offered", |bencher| {
        bencher.iter_batched(|| armed.clone(), |mut engine| drain(&mut engine, due), BatchSize::LargeInput);
    });
    let records: Vec<_> = armed.records().collect();
    group.bench_function("recover from records", |bencher| {
        bencher.iter_batched(
            || records.clone(),
            |records| Engine::recover(armed.limits().clone(), now(due, 3), records),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// 100,000 schedules of several kinds, half of them spread: each finds its first fire and takes its place in one ordered
/// set, as the engine arms them.
fn arm(criterion: &mut Criterion) {
    let kinds = [
        schedule("minute=10 hour=*/6"),
        schedule("hour=3 minute=30"),
        schedule("day_of_week=mon-fri hour=2"),
        Schedule::cron(Named::Hourly.cron(), chrono_tz::Europe::Berlin),
        Schedule::cron(Named::Daily.cron(), chrono_tz::UTC),
        schedule("day=last fri"),
    ];
    let schedules: Vec<Schedule> = (0..ARMED)
        .zip(kinds.iter().cycle())
        .map(|(uid, kind)| kind.clone().of_project(uid, 1, None))
        .collect();
    let mut group = criterion.benchmark_group("100,000 projects");
    group.sample_size(10);
    group.bench_function("arm", |bencher| {
        bencher.iter(|| {
            let fires = schedules.iter().zip(0_u64..);
            let fires = fires.filter_map(|(schedule, uid)| Some((schedule.first_of_all(instant())?, uid)));
            fires.collect::<BTreeSet<_>>()
        });
    });
    group.finish();
}

criterion_group!(benches, next_fire, arm, burst, plans);
criterion_main!(benches);
