//! Durable commits through the driver, in process: 64 askers that declare projects, beside bare sled with an
//! fdatasync and the same records in batches of the same size, in turns within one run.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fleet::{
    Engine,
    agent::TokenNames,
    defaults::Limits,
    id::AgentUid,
    input::{AgentInput, Ask, Input, Person, Reply, Send},
    project::{PlacementSettings, ProjectSpec, RetrySettings, RsyncSettings, Target, Upstream},
    record::{Change, Key},
    schedule::{Cron, Schedule},
    time::{Mono, Now, Wall},
};
use mirror_coordinator::{
    audit::origin::{Origin, scope},
    driver::{Begin, Driver, Outlet},
    store::{Store, StoreOptions},
};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{Size, table::Row};

/// Askers at once.
const ASKERS: usize = 64;
/// Projects on one agent, about as a large mirror has them.
const PROJECTS_PER_AGENT: usize = 128;
/// Turns of ours and of bare sled: the disk's mood hits both.
const TURNS: usize = 32;
/// Bytes of the envelope that the store puts around a value.
const ENVELOPE_BYTES: usize = 15;
/// Page cache of bare sled, as the store's.
const CACHE_BYTES: u64 = 16 << 20;
/// Target of document 7.
const RATIO_TARGET: f64 = 0.8;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The row.
pub(crate) fn rows(runtime: &Runtime, size: Size) -> Result<Vec<Row>> {
    let dir = private_dir()?;
    let inputs = size.pick(1_024, 16_384);
    let units = records(inputs);
    let (driver, thread) = open(&dir.path().join("ours"))?;
    runtime.block_on(enrol(&driver, inputs))?;
    let (audited, audited_thread) = open(&dir.path().join("audited"))?;
    runtime.block_on(enrol(&audited, inputs))?;
    let mut audited_took = Duration::ZERO;
    let mut bare = Bare::open(&dir.path().join("bare"))?;
    let (mut ours_took, mut bare_took, mut commits) = (Duration::ZERO, Duration::ZERO, 0);
    let turn = inputs / TURNS;
    for number in 0..TURNS {
        let from = number * turn;
        let before = *driver.changes().borrow();
        ours_took += runtime.block_on(ask(&driver, from..from + turn, None, four_times_a_day))?;
        audited_took +=
            runtime.block_on(ask(&audited, from..from + turn, Some(&origin()), four_times_a_day))?;
        let done = *driver.changes().borrow() - before;
        commits += done;
        let batch = turn.div_ceil(usize::try_from(done)?.max(1));
        for units in units[from..from + turn].chunks(batch) {
            bare_took += bare.commit(units)?;
        }
    }
    drop((driver, audited));
    thread.join();
    audited_thread.join();
    let inputs = f64::from(u32::try_from(inputs)?);
    let (ours, floor) = (inputs / ours_took.as_secs_f64(), inputs / bare_took.as_secs_f64());
    let as_requests = inputs / audited_took.as_secs_f64();
    let batch = inputs / f64::from(u32::try_from(commits)?);
    Ok(vec![
        Row::new(
            format!("durable CreateProject/s through the driver, {ASKERS} askers"),
            format!("{ours:.0}/s"),
        )
        .floor(format!("{floor:.0}/s sled + fdatasync, batches of {batch:.0}"), ours / floor)
        .target("ratio ≥ 0.8", ours / floor >= RATIO_TARGET),
        Row::new(
            "the same as requests of somebody, each with its audit event",
            format!("{as_requests:.0}/s"),
        )
        .floor(format!("{ours:.0}/s without"), as_requests / ours),
    ])
}

/// sled as its documentation has it used, made durable as the store is.
struct Bare {
    db: sled::Db,
    disk: File,
}

impl Bare {
    /// A driver with a store of its own.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let db = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).open()?;
        Ok(Self { db, disk: File::open(dir.join("db"))? })
    }

    /// One durable commit of these units: how long it took.
    fn commit(&mut self, units: &[Pairs]) -> Result<Duration> {
        let units = units.to_vec();
        let began = Instant::now();
        let mut batch = sled::Batch::default();
        for (key, value) in units.into_iter().flatten() {
            batch.insert(key, value);
        }
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        self.disk.sync_data()?;
        Ok(began.elapsed())
    }
}

pub(crate) fn private_dir() -> std::io::Result<tempfile::TempDir> {
    let private = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix("fleet-load-").permissions(private).tempdir()
}

struct Nobody;

impl Outlet for Nobody {
    fn send(&self, _: Send) {}
    fn reset(&self) {}
}

/// A driver with a store of its own.
pub(crate) fn open(dir: &Path) -> Result<(Driver, mirror_coordinator::driver::DriverThread)> {
    let options = StoreOptions { create: true, backups: None, ballast_bytes: 0 };
    let store = Store::open(dir, &options)?.store;
    Ok(Driver::start(store, Limits::default(), Begin::Started, Arc::new(Nobody))?)
}

/// The agents of so many projects.
fn enrolments(projects: usize) -> impl Iterator<Item = Input> {
    (0..projects.div_ceil(PROJECTS_PER_AGENT)).flat_map(enrolment)
}

fn enrolment(number: usize) -> [Input; 2] {
    let token = Ask::CreateJoinToken {
        id: format!("t{number}"),
        hash: format!("h{number}"),
        names: TokenNames::Pattern("*".to_owned()),
        networks: Vec::new(),
        uses: 1,
        ttl: Duration::from_secs(600),
    };
    let enroll = AgentInput::Enroll {
        token_hash: format!("h{number}"),
        name: format!("edge{number}").parse().expect("a name"),
        from: None,
        labels: BTreeMap::new(),
        key_hash: format!("k{number}"),
        serial: format!("{number:x}"),
        expires: Wall(i64::MAX / 2),
    };
    [Input::Person(Person { by: "root".to_owned(), ask: token }), Input::Agent(enroll)]
}

/// Lets the agents of so many projects join.
pub(crate) async fn enrol(driver: &Driver, projects: usize) -> Result<()> {
    for input in enrolments(projects) {
        let reply = driver.ask(input).await?;
        ensure!(!matches!(reply, Reply::Refused(_)), "{reply:?}");
    }
    Ok(())
}

/// The same declaration as a person would make, each with a name of its own.
fn create(agents: &[AgentUid], number: usize, schedule: Schedule) -> Input {
    let agent = agents[number / PROJECTS_PER_AGENT];
    let host = format!("mirror{}.example.net", number % 500);
    let upstream = Upstream {
        uri: format!("rsync://{host}/mod/p{number}/"),
        host,
        user: String::new(),
        sealed_password: Vec::new(),
    };
    let spec = ProjectSpec {
        display_name: String::new(),
        owner: None,
        labels: BTreeMap::new(),
        upstreams: vec![upstream],
        destination: format!("a1:p{number}").parse().expect("a destination"),
        schedule,
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
    };
    let name = format!("p{number}").parse().expect("a name");
    let ask =
        Ask::CreateProject { name, spec: Box::new(spec), paused: false, request: None, validate_only: false };
    Input::Person(Person { by: "root".to_owned(), ask })
}

/// The same for all.
fn four_times_a_day(_number: usize) -> Schedule {
    let cron = "minute=10 hour=*/6".parse().map(Cron::parse).expect("fields").expect("a schedule");
    Schedule::cron(cron, chrono_tz::UTC)
}

/// Where a request comes from.
fn origin() -> Arc<Origin> {
    let origin = Origin::new("users/maria", "192.0.2.7:40112", "ProjectService.CreateProject");
    Arc::new(origin.with_ids("9c1f7f0e5a3b2d10".to_owned(), String::new()))
}

/// Declares these projects from [`ASKERS`] tasks: how long until all are durable.
pub(crate) async fn ask(
    driver: &Driver,
    numbers: std::ops::Range<usize>,
    origin: Option<&Arc<Origin>>,
    schedule: fn(usize) -> Schedule,
) -> Result<Duration> {
    let agents: Arc<[AgentUid]> = driver.view().agents_by_name().map(|agent| agent.uid).collect();
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for asker in 0..ASKERS {
        let (driver, agents, numbers) = (driver.clone(), Arc::clone(&agents), numbers.clone());
        let origin = origin.cloned();
        tasks.spawn(async move {
            for number in numbers.skip(asker).step_by(ASKERS) {
                let asked = driver.ask(create(&agents, number, schedule(number)));
                let reply = match &origin {
                    Some(origin) => scope(Arc::clone(origin), asked).await?,
                    None => asked.await?,
                };
                ensure!(!matches!(reply, Reply::Refused(_)), "{reply:?}");
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(began.elapsed())
}

/// What these declarations store, as keys and values of the store's lengths, ready-made.
fn records(count: usize) -> Vec<Pairs> {
    let mut engine = Engine::new(Limits::default());
    let mut at = Now { wall: Wall(1_800_000_000_000), mono: Mono(1), entropy: 1 };
    let mut step = |engine: &mut Engine, input| {
        at.entropy = at.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let decision = engine.decide(at, input);
        engine.apply(at, &decision.changes);
        decision.changes
    };
    step(&mut engine, Input::Start { at_least: 0 });
    for input in enrolments(count) {
        step(&mut engine, input);
    }
    let agents: Vec<AgentUid> = engine.agents_by_name().map(|agent| agent.uid).collect();
    (0..count)
        .map(|number| pairs(&step(&mut engine, create(&agents, number, four_times_a_day(number)))))
        .collect()
}

fn pairs(changes: &[Change]) -> Pairs {
    let puts = changes.iter().filter_map(|change| match change {
        Change::Put(record) => Some(record),
        Change::Delete(_) | Change::Volatile(_) => None,
    });
    puts.map(|record| {
        let value = [&[0; ENVELOPE_BYTES], mirror_proto::stored::encode(record).as_slice()].concat();
        (key(&record.key()), value)
    })
    .collect()
}

/// As long as the store's, and in its order.
fn key(key: &Key) -> Vec<u8> {
    let ids = |table: u8, ids: &[u64]| {
        let mut key = vec![table];
        key.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
        key
    };
    match key {
        Key::Fleet => vec![b'f'],
        Key::Project(uid) => ids(b'p', &[uid.0]),
        Key::ProjectState(uid) => ids(b's', &[uid.0]),
        Key::Placement(project, agent) => ids(b'l', &[project.0, agent.0]),
        Key::Agent(uid) => ids(b'g', &[uid.0]),
        Key::JoinToken(text)
        | Key::User(text)
        | Key::UserToken(text)
        | Key::PushToken(text)
        | Key::Request(text)
        | Key::Upstream(text) => [b"t", text.as_bytes()].concat(),
        Key::PlanStep(number) => ids(b'd', &[u64::from(*number)]),
        Key::Trash(agent, project) => ids(b'x', &[agent.0, project.0]),
        Key::Run(project, run) => {
            [ids(b'r', &[project.0]), (!run.0.as_u128()).to_be_bytes().to_vec()].concat()
        }
        Key::Attempt(project, attempt) => {
            let run = (!attempt.run.0.as_u128()).to_be_bytes().to_vec();
            [ids(b'a', &[project.0]), run, attempt.number.to_be_bytes().to_vec()].concat()
        }
    }
}
