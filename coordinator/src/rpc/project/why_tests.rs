//! The sentences of `mirrorctl why`, at Fri 2026-11-20 07:42 UTC.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fleet::{
    agent::{AgentCaps, AgentFacts, AgentRecord, LastKnown, Root, Session},
    attempt::{End, Role},
    defaults::Limits,
    id::{Epoch, RunId},
    outcome::Outcome,
    project::{
        Pause, PlacementSettings, ProjectRecord, ProjectSpec, ProjectState, RetrySettings, RsyncSettings,
        Target, Upstream,
    },
    record::{Change, FleetRecord, Freeze, Record, Volatile},
    run::{RunRecord, RunState, Trigger, Wish},
    schedule::Schedule,
    time::Mono,
};

use super::*;

const MORNING: Wall = Wall(1_795_160_520_000);
const FTP1: AgentUid = AgentUid(1);
const HOUR: u64 = 3_600;
const MINUTE: u64 = 60;

fn now() -> Now {
    Now { wall: MORNING, mono: Mono(10_000_000), entropy: 7 }
}

fn ago(seconds: u64) -> Wall {
    MORNING.minus(Duration::from_secs(seconds))
}

fn ahead(seconds: u64) -> Wall {
    MORNING.plus(Duration::from_secs(seconds))
}

fn agent(uid: AgentUid, name: &str, last_seen: Option<Wall>) -> Record {
    Record::Agent(AgentRecord {
        uid,
        name: name.parse().unwrap(),
        labels: BTreeMap::new(),
        caps: AgentCaps::default(),
        draining: false,
        revoked: None,
        key_hash: "aa".to_owned(),
        certificate_serial: String::new(),
        certificate_expires: ahead(HOUR),
        state_id: String::new(),
        last_seen,
        last_known: LastKnown::default(),
        revision: 1,
        create_time: ago(HOUR),
    })
}

fn session(agent: AgentUid, roots: &[&str]) -> Change {
    let roots = roots.iter().map(|name| Root {
        name: (*name).to_owned(),
        path: "/srv".to_owned(),
        total_bytes: 1,
        free_bytes: 1,
        total_inodes: 0,
        free_inodes: 0,
    });
    let facts = AgentFacts { roots: roots.collect(), ..AgentFacts::default() };
    let session = Session { epoch: Epoch { term: 1, counter: 1 }, facts, since: MORNING, connection: 1 };
    Change::Volatile(Volatile::SessionOpened(agent, session))
}

fn project(uid: u64, name: &str, host: &str, agent: AgentUid) -> ProjectRecord {
    let target = Target { agent, destination: None };
    ProjectRecord {
        uid: ProjectUid(uid),
        name: name.parse().unwrap(),
        spec: ProjectSpec {
            display_name: String::new(),
            owner: None,
            labels: BTreeMap::new(),
            upstreams: vec![Upstream {
                uri: format!("rsync://{host}/m"),
                host: host.to_owned(),
                user: String::new(),
                sealed_password: Vec::new(),
            }],
            destination: format!("a1:{name}").parse().unwrap(),
            schedule: Schedule::new(Cadence::Manual, fleet::schedule::parse_zone("UTC").unwrap()),
            rsync: RsyncSettings::default(),
            placement: PlacementSettings { origins: vec![target], ..PlacementSettings::default() },
            guard: fleet::project::GuardSettings::default(),
            marker: None,
            partial_is_success: String::new(),
            link: None,
            after: Vec::new(),
            retry: RetrySettings::default(),
        },
        paused: None,
        archived: None,
        revision: 1,
        create_time: ago(HOUR),
        update_time: ago(HOUR),
    }
}

fn placement(project: &ProjectRecord, role: Role) -> PlacementRecord {
    PlacementRecord {
        project: project.uid,
        agent: project.spec.placement.origins[0].agent,
        role,
        destination: project.spec.destination.clone(),
        have_tree: None,
        have_time: None,
        gave_up_on: None,
        standby: false,
        files: 0,
        size_bytes: 0,
        half_changed: false,
        half_moved: None,
        hold: None,
        marker: None,
        behind: None,
    }
}

fn run_id(n: i64) -> RunId {
    RunId::mint(1_000 * n, 0, RunId::NIL)
}

fn run(project: &ProjectRecord, id: RunId, state: RunState) -> RunRecord {
    RunRecord {
        id,
        project: project.uid,
        trigger: Trigger::schedule(MORNING),
        coalesced: 0,
        by_person: false,
        generation: 0,
        state,
        attempts: 1,
        origin_attempt: 1,
        replica_failed: false,
        missed: Vec::new(),
        create_time: MORNING,
        start_time: None,
        propagate_time: None,
        end_time: None,
        current_tree: false,
        traceparent: String::new(),
        wish: Wish::default(),
    }
}

fn attempt(project: &ProjectRecord, run: RunId, number: u32, state: AttemptState) -> AttemptRecord {
    let placement = placement(project, Role::Origin);
    AttemptRecord {
        id: AttemptId { run, number },
        project: project.uid,
        agent: placement.agent,
        role: Role::Origin,
        destination: placement.destination,
        upstream_host: project.spec.upstreams[0].host.clone(),
        upstream_uri: String::new(),
        fell_back: String::new(),
        tree: run,
        attempt_try: number,
        first_sync: false,
        mixed: false,
        max_delete: 0,
        source: None,
        spec_hash: String::new(),
        state,
    }
}

fn pending(delay: u64) -> AttemptState {
    AttemptState::Pending { delay: Duration::from_secs(delay) }
}

/// A fleet of one connected agent, as it became by `more`.
fn fleet(limits: Limits, more: Vec<Change>) -> Engine {
    let mut engine = Engine::new(limits);
    let fleet = FleetRecord { term: 1, next_uid: 100, ..FleetRecord::default() };
    let mut changes =
        vec![Change::Put(Record::Fleet(fleet)), Change::Put(agent(FTP1, "ftp1", Some(MORNING)))];
    changes.push(session(FTP1, &["a1"]));
    changes.extend(more);
    engine.apply(now(), &changes);
    engine
}

/// A project with one queued run whose attempt waits.
fn waiting(record: &ProjectRecord, delay: u64) -> Vec<Change> {
    let run = run(record, run_id(1), RunState::Queued);
    let attempt = attempt(record, run.id, 1, pending(delay));
    let state = ProjectState::new(record.uid);
    [
        Record::Project(Arc::new(record.clone())),
        Record::ProjectState(state),
        Record::Placement(placement(record, Role::Origin)),
        Record::Run(run),
        Record::Attempt(attempt),
    ]
    .map(Change::Put)
    .into()
}

fn sentences(engine: &Engine, uid: u64, past: &Past) -> Vec<String> {
    let project = engine.project(ProjectUid(uid)).unwrap();
    explain(engine, now(), project, past).1
}

fn one(engine: &Engine, uid: u64) -> String {
    let all = sentences(engine, uid, &Past::default());
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

#[test]
fn a_pause_is_told_with_who_when_and_why() {
    let mut gnu = project(7, "gnu", "ftp.gnu.org", FTP1);
    let since = ago(46 * HOUR + 40 * MINUTE);
    gnu.paused = Some(Pause { by: "maria".into(), time: since, reason: "moving to a2".into(), until: None });
    let engine = fleet(Limits::default(), waiting(&gnu, 0));
    assert_eq!(
        one(&engine, 7),
        "gnu is paused since 2026-11-18 09:02 UTC (46h) by maria: \"moving to a2\"; one run waits for the resume. Next: \
         mirrorctl project resume gnu"
    );
}

#[test]
fn a_freeze_is_told_with_what_waits_and_what_runs() {
    let gnu = project(7, "gnu", "ftp.gnu.org", FTP1);
    let mut changes = waiting(&gnu, 0);
    let freeze = Freeze { by: "maria".into(), time: ago(122 * MINUTE), reason: "array swap".into() };
    let frozen = FleetRecord { term: 1, next_uid: 100, frozen: Some(freeze), ..FleetRecord::default() };
    changes.push(Change::Put(Record::Fleet(frozen)));
    let engine = fleet(Limits::default(), changes);
    assert_eq!(
        one(&engine, 7),
        "The whole fleet is frozen since 05:40 UTC (2h) by maria: \"array swap\"; 1 run waits, none is running. Next: \
         mirrorctl thaw"
    );
}

#[test]
fn a_place_in_line_names_who_is_before() {
    let epel = project(7, "epel", "dl.fedoraproject.org", FTP1);
    let fedora = project(8, "fedora", "dl.fedoraproject.org", FTP1);
    let mut changes = waiting(&epel, 0);
    let epoch = Epoch { term: 1, counter: 2 };
    let started = ago(14 * MINUTE);
    let state = AttemptState::Running { epoch, offered: started, started };
    changes.push(Change::Put(Record::Run(run(&epel, run_id(1), RunState::Running))));
    changes.push(Change::Put(Record::Attempt(attempt(&epel, run_id(1), 1, state))));
    changes.extend(waiting(&fedora, 0).into_iter().map(|change| match change {
        Change::Put(Record::Run(run)) => Change::Put(Record::Run(RunRecord { id: run_id(2), ..run })),
        Change::Put(Record::Attempt(attempt)) => {
            let id = AttemptId { run: run_id(2), number: 1 };
            Change::Put(Record::Attempt(AttemptRecord { id, ..attempt }))
        }
        other => other,
    }));
    let limits = Limits { upstream_slots: 1, upstream_spacing: Duration::ZERO, ..Limits::default() };
    let engine = fleet(limits, changes);
    assert_eq!(
        one(&engine, 8),
        "fedora is 1st in line for dl.fedoraproject.org: its 1 slot is taken (epel on ftp1 since 14m)."
    );
    assert_eq!(one(&engine, 7), "epel is running: epel on ftp1 since 14m. Next: mirrorctl run watch epel");
}

fn failed_before(record: &ProjectRecord, class: ExitClass, cause: &str, minutes: u64, waits: u32) -> Past {
    let at = ago(minutes * MINUTE);
    let outcome = Outcome { cause: cause.to_owned(), ..Outcome::of_class(class) };
    let state = AttemptState::Ended {
        epoch: Epoch { term: 1, counter: 1 },
        offered: Some(at),
        started: Some(at),
        at,
        end: End::Failed(outcome),
    };
    let failed = attempt(record, run_id(1), waits - 1, state);
    let failed = BTreeMap::from([(AttemptId { run: run_id(1), number: waits }, failed)]);
    Past { failed }
}

#[test]
fn a_pause_after_a_failure_names_the_failure_and_the_try() {
    let apache = project(7, "apache", "rsync.apache.org", FTP1);
    let mut changes = waiting(&apache, 0);
    changes.truncate(3);
    changes.push(Change::Put(Record::Run(run(&apache, run_id(1), RunState::Running))));
    changes.push(Change::Put(Record::Attempt(attempt(&apache, run_id(1), 3, pending(13 * MINUTE)))));
    let engine = fleet(Limits::default(), changes);
    let past = failed_before(&apache, ExitClass::Network, "connection reset\nmore", 2, 3);
    assert_eq!(
        sentences(&engine, 7, &past),
        ["apache failed at 07:40 UTC (network: connection reset); try 3 of 4 starts at 07:55 UTC (in 13m)."]
    );
    let busy = failed_before(&apache, ExitClass::Busy, "max connections (60) reached", 4, 3);
    assert_eq!(
        sentences(&engine, 7, &busy),
        [
            "apache is queued: rsync.apache.org answered \"max connections (60) reached\" 4m ago; we ask again at 07:55 UTC \
          (in 13m). This is no failure."
        ]
    );
    assert_eq!(one(&engine, 7), "apache is tried again at 07:55 UTC (in 13m).", "history was pruned");
}

/// An attempt that has gone out and come back without reaching its host.
fn knocks(record: &ProjectRecord, number: u32) -> Vec<Change> {
    let epoch = Epoch { term: 1, counter: u64::from(number) + 1 };
    let outcome = Outcome {
        exit_code: Some(10),
        cause: "Connection refused".to_owned(),
        ..Outcome::of_class(ExitClass::Network)
    };
    let at = ago(11 * MINUTE);
    let ended =
        AttemptState::Ended { epoch, offered: Some(at), started: Some(at), at, end: End::Failed(outcome) };
    [AttemptState::Offered { epoch, at }, ended]
        .map(|state| Change::Put(Record::Attempt(attempt(record, run_id(1), number, state))))
        .into()
}

#[test]
fn an_open_breaker_is_told_with_the_probe_that_all_wait_for() {
    let nongnu = project(7, "nongnu", "ftp.gnu.org", FTP1);
    let mut changes = waiting(&nongnu, 0);
    changes.truncate(3);
    changes.push(Change::Put(Record::Run(run(&nongnu, run_id(1), RunState::Running))));
    for number in 1..=5 {
        changes.extend(knocks(&nongnu, number));
    }
    changes.push(Change::Put(Record::Attempt(attempt(&nongnu, run_id(1), 6, pending(0)))));
    let limits = Limits { upstream_spacing: Duration::ZERO, ..Limits::default() };
    let engine = fleet(limits, changes);
    assert_eq!(
        one(&engine, 7),
        "nongnu waits: ftp.gnu.org could not be reached 5 times in a row (last 0s ago); one probe goes out at 07:57 UTC \
         (in 15m) and all projects of that host wait for it. Next: mirrorctl upstream list"
    );
}

#[test]
fn a_closed_window_is_told_with_its_zone_and_when_it_opens() {
    let mut alpine = project(7, "alpine", "rsync.alpinelinux.org", FTP1);
    alpine.spec.schedule.time_zone = fleet::schedule::parse_zone("Europe/Berlin").unwrap();
    alpine.spec.schedule.windows = vec!["22:00-06:00".parse().unwrap()];
    let engine = fleet(Limits::default(), waiting(&alpine, 0));
    assert_eq!(
        one(&engine, 7),
        "alpine may only run 22:00-06:00 Europe/Berlin; the window opens at 21:00 UTC (in 13h)."
    );
}

#[test]
fn a_full_volume_is_told_with_its_figures() {
    let opensuse = project(7, "opensuse", "stage.opensuse.org", FTP1);
    let full = Root {
        name: "a1".to_owned(),
        path: "/srv".to_owned(),
        total_bytes: 8 << 40,
        free_bytes: 12_992_276_071,
        total_inodes: 1_000_000,
        free_inodes: 900_000,
    };
    let mut changes = waiting(&opensuse, 0);
    changes.push(Change::Volatile(Volatile::Inventory(FTP1, vec![full.clone()])));
    let engine = fleet(Limits::default(), changes.clone());
    assert_eq!(
        one(&engine, 7),
        "opensuse waits for room: ftp1:a1 has 12.1 GiB free and its reserve is 163 GiB; it starts by itself when there is \
         room. Next: mirrorctl project run opensuse --reclaim"
    );
    let inodes = Root { free_bytes: 4 << 40, free_inodes: 19_999, ..full };
    changes.push(Change::Volatile(Volatile::Inventory(FTP1, vec![inodes])));
    let engine = fleet(Limits::default(), changes);
    assert!(one(&engine, 7).contains("ftp1:a1 has 19,999 inodes free and its reserve is 20,000; "));
}

#[test]
fn an_agent_that_is_away_is_named_with_when_it_was_seen() {
    let edge3 = AgentUid(3);
    let cran = project(7, "cran", "cran.r-project.org", edge3);
    let mut changes = vec![Change::Put(agent(edge3, "edge3", Some(ago(26 * HOUR + 2 * MINUTE))))];
    changes.extend(waiting(&cran, 0));
    let engine = fleet(Limits::default(), changes);
    assert_eq!(
        one(&engine, 7),
        "cran waits for its origin edge3, unreachable since 26h (last seen 2026-11-19 05:40 UTC). Next: mirrorctl agent \
         show edge3"
    );
}

#[test]
fn a_missing_root_is_named_with_those_that_are_there() {
    let mut gnu = project(7, "gnu", "ftp.gnu.org", FTP1);
    gnu.spec.destination = "b2:gnu".parse().unwrap();
    let engine = fleet(Limits::default(), waiting(&gnu, 0));
    assert_eq!(
        one(&engine, 7),
        "gnu waits: ftp1 has no root \"b2\" in its own file (it has: a1). Next: mirrorctl agent show ftp1"
    );
}

#[test]
fn every_hold_says_what_was_found() {
    let debian = project(7, "debian", "syncproxy.debian.org", FTP1);
    let mut changes = waiting(&debian, 0);
    changes.truncate(2);
    let first = AttemptId { run: run_id(1), number: 1 };
    let evidence = fleet::outcome::Evidence {
        kind: fleet::outcome::GuardKind::Deletes,
        wanted: 21_204,
        allowed: 40_000,
        names: Vec::new(),
        sentence: String::new(),
    };
    let hold = Hold {
        first,
        newest: first,
        since: ago(25 * HOUR),
        evidence,
        met: vec![fleet::outcome::GuardKind::Deletes],
        approved_until: None,
    };
    let held = PlacementRecord { hold: Some(hold.clone()), ..placement(&debian, Role::Origin) };
    changes.push(Change::Put(Record::Placement(held)));
    let fire = ahead(4 * HOUR + 28 * MINUTE);
    let next_fire = Some(fleet::project::NextFire { scheduled: fire, at: fire, spread: false });
    let last_run = Some(fleet::project::LastRun { run: run_id(1), state: RunState::Held, end: ago(HOUR) });
    let state = ProjectState { next_fire, last_run, ..ProjectState::new(debian.uid) };
    changes.push(Change::Put(Record::ProjectState(state)));
    let engine = fleet(Limits::default(), changes.clone());
    assert_eq!(
        sentences(&engine, 7, &Past::default()),
        [
            "debian is held since 25h: 61,204 deletes wanted, 40,000 allowed; the fire at 12:10 UTC checks again by itself. \
          Next: mirrorctl run show debian"
        ]
    );

    let newest = AttemptId { run: run_id(2), number: 3 };
    let told = |kind, names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let evidence =
            fleet::outcome::Evidence { kind, wanted: 41, allowed: 30, names, sentence: String::new() };
        let held = Hold { newest, evidence, ..hold.clone() };
        let held = PlacementRecord { hold: Some(held), ..placement(&debian, Role::Origin) };
        let mut changes = changes.clone();
        changes.push(Change::Put(Record::Placement(held)));
        one(&fleet(Limits::default(), changes), 7)
    };
    use fleet::outcome::GuardKind;
    let again = format!(
        "; the fire at 12:10 UTC checks again by itself. Next: mirrorctl run show debian/{}",
        &run_id(2).to_string()[..13]
    );
    for (kind, names, figures) in [
        (GuardKind::EmptyUpstream, &[][..], "the upstream lists nothing"),
        (
            GuardKind::SentinelMissing,
            &["pool"][..],
            "the upstream lacks 41 paths that must exist, first pool",
        ),
        (
            GuardKind::Shrink,
            &[][..],
            "the tree lost 41 % of its files or bytes, 30 % hold it, so it goes to no replica",
        ),
        (GuardKind::Adoption, &[][..], "the destination holds files that the fleet did not put there"),
        (GuardKind::Quota, &[][..], "the tree is larger than its quota"),
        (GuardKind::UpstreamBehind, &[][..], "the upstream is older than what is served"),
    ] {
        assert_eq!(told(kind, names), format!("debian is held since 25h: {figures}{again}"));
    }
}

#[test]
fn what_is_not_due_says_when_it_is() {
    let kernel = project(7, "kernel.org", "rsync.kernel.org", FTP1);
    let mut changes = waiting(&kernel, 0);
    changes.truncate(3);
    let engine = fleet(Limits::default(), changes.clone());
    assert_eq!(
        one(&engine, 7),
        "kernel.org is not waiting: it has never run and it runs only when asked. Next: mirrorctl project run kernel.org"
    );
    let fire = ahead(23 * MINUTE);
    let state = ProjectState {
        next_fire: Some(fleet::project::NextFire { scheduled: fire, at: fire, spread: false }),
        last_success: Some(ago(50 * MINUTE)),
        ..ProjectState::new(kernel.uid)
    };
    changes.push(Change::Put(Record::ProjectState(state)));
    let engine = fleet(Limits::default(), changes);
    assert_eq!(
        one(&engine, 7),
        "kernel.org is not waiting: it is fresh (50m) and its next fire is 08:05 UTC (in 23m)."
    );
}

/// A replica that waits for the tree of an origin, with these records beside.
fn waits_for_origin(origin: impl FnOnce(PlacementRecord) -> PlacementRecord, more: Vec<Record>) -> String {
    const EDGE1: AgentUid = AgentUid(2);
    let debian = project(7, "debian", "ftp.debian.org", FTP1);
    let tree = run_id(1);
    let made = RunRecord { current_tree: true, ..run(&debian, tree, RunState::Propagating) };
    let origin = origin(PlacementRecord { have_tree: Some(tree), ..placement(&debian, Role::Origin) });
    let replica = PlacementRecord { agent: EDGE1, ..placement(&debian, Role::Replica) };
    let pull = AttemptRecord {
        agent: EDGE1,
        role: Role::Replica,
        upstream_host: String::new(),
        upstream_uri: String::new(),
        fell_back: String::new(),
        ..attempt(&debian, tree, 2, pending(0))
    };
    let state = ProjectState { tree: Some(tree), ..ProjectState::new(debian.uid) };
    let mut changes = vec![Change::Put(agent(EDGE1, "edge1", Some(MORNING))), session(EDGE1, &["a1"])];
    let records = [
        Record::Project(Arc::new(debian)),
        Record::ProjectState(state),
        Record::Placement(origin),
        Record::Placement(replica),
        Record::Run(made),
        Record::Attempt(pull),
    ];
    changes.extend(records.into_iter().chain(more).map(Change::Put));
    one(&fleet(Limits::default(), changes), 7)
}

#[test]
fn an_origin_whose_last_sync_ended_in_the_middle_is_named() {
    assert_eq!(
        waits_for_origin(|origin| PlacementRecord { half_changed: true, ..origin }, Vec::new()),
        "debian on edge1 waits: ftp1's last sync ended in the middle, so what it has is no whole tree; the next success \
         makes a new one. Next: mirrorctl project run debian"
    );
}

#[test]
fn another_upstream_is_told_with_what_was_left() {
    let mut debian = project(7, "debian", "mirror1.example.org", FTP1);
    debian.spec.upstreams.push(Upstream {
        uri: "rsync://mirror2.example.org/m".to_owned(),
        host: "mirror2.example.org".to_owned(),
        user: String::new(),
        sealed_password: Vec::new(),
    });
    let running = AttemptState::Running {
        epoch: Epoch { term: 1, counter: 1 },
        offered: ago(15 * MINUTE),
        started: ago(14 * MINUTE),
    };
    let mut changes = waiting(&debian, 0);
    changes.push(Change::Put(Record::Run(run(&debian, run_id(1), RunState::Running))));
    changes.push(Change::Put(Record::Attempt(AttemptRecord {
        upstream_host: "mirror2.example.org".to_owned(),
        upstream_uri: "rsync://mirror2.example.org/m".to_owned(),
        fell_back: "mirror1.example.org: connection refused".to_owned(),
        ..attempt(&debian, run_id(1), 1, running)
    })));
    assert_eq!(
        one(&fleet(Limits::default(), changes), 7),
        "debian is running: debian on ftp1 since 14m, from mirror2.example.org (fell back: mirror1.example.org: connection \
         refused). Next: mirrorctl run watch debian"
    );
}

#[test]
fn an_upstream_that_is_behind_leaves_the_tree_as_it_is() {
    let debian = project(7, "debian", "mirror1.example.org", FTP1);
    let engine = fleet(Limits::default(), waiting(&debian, 1_800));
    let cause = "trace at rsync://mirror1.example.org/m is of 2026-11-20 01:00:00 UTC, what is served is of 2026-11-20 \
                 04:00:00 UTC: 3 h older";
    let outcome = Outcome { cause: cause.to_owned(), ..Outcome::of_class(ExitClass::UpstreamBehind) };
    let ended = AttemptState::Ended {
        epoch: Epoch { term: 1, counter: 1 },
        offered: Some(ago(MINUTE)),
        started: Some(ago(MINUTE)),
        at: ago(MINUTE),
        end: fleet::attempt::End::Failed(outcome),
    };
    let waits = AttemptId { run: run_id(1), number: 1 };
    let failed = [(waits, attempt(&debian, run_id(1), 1, ended))].into();
    let told = sentences(&engine, 7, &Past { failed });
    assert_eq!(
        told,
        [format!(
            "debian waits for a newer upstream, and its tree stays as it is: {cause}; asked again at 08:12 UTC (in 30m)."
        )]
    );
}

#[test]
fn an_origin_whose_lost_tree_is_being_copied_is_named() {
    let debian = project(7, "debian", "ftp.debian.org", FTP1);
    let copy = run_id(9);
    let wish = Wish { reseed_from: Some(AgentUid(2)), ..Wish::default() };
    let reseed = RunRecord { wish, ..run(&debian, copy, RunState::Running) };
    let started = ago(14 * MINUTE);
    let state = AttemptState::Running { epoch: Epoch { term: 1, counter: 2 }, offered: started, started };
    let copies = AttemptRecord { upstream_host: String::new(), ..attempt(&debian, copy, 1, state) };
    assert_eq!(
        waits_for_origin(
            |origin| PlacementRecord { have_tree: None, half_changed: true, ..origin },
            vec![Record::Run(reseed), Record::Attempt(copies)]
        ),
        "debian on edge1 waits: ftp1's tree is being copied from edge1, and goes to nobody before it is whole. Next: \
         mirrorctl run list debian"
    );
}
