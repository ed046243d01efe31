//! Runs, attempts, agents and reasons of waiting as people see them.

use std::time::Duration;

use fleet::{
    agent::{AgentCaps, AgentFacts, AgentRecord, JoinToken, LastKnown, Root, Session, TokenNames},
    attempt::{AttemptRecord, AttemptState, End, Role},
    engine::{Blocker, Wait, WaitReason, Why},
    id::{AgentUid, AttemptId, Epoch, Name, ProjectUid, RunId},
    outcome::{ExitClass, Outcome},
    placement::PlacementRecord,
    project::{LastRun, ProjectState},
    run::{Missed, RunRecord, RunState, Trigger, TriggerKind},
    time::{Mono, Wall},
};
use mirror_proto::{
    convert::{
        AgentView, AttemptView, Names, PlacementView, StandingView, agent_to_wire, attempt_to_wire,
        join_token_to_wire, placement_to_wire, run_to_wire, status_to_wire, wait_to_wire,
    },
    v1::{self, attempt::State},
};

const FTP1: AgentUid = AgentUid(7);
const DEBIAN: ProjectUid = ProjectUid(1);
const EPOCH: Epoch = Epoch { term: 3, counter: 9 };

struct Fleet;

impl Names for Fleet {
    fn agent(&self, uid: AgentUid) -> Option<Name> {
        (uid == FTP1).then(|| name("ftp1"))
    }

    fn project(&self, uid: ProjectUid) -> Option<Name> {
        (uid == DEBIAN).then(|| name("debian"))
    }
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn run_id() -> RunId {
    "01a1f797-47f1-7c02-9d1f-8a3b6f20c1de".parse().expect("a run")
}

fn time(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

fn record(state: AttemptState) -> AttemptRecord {
    AttemptRecord {
        id: AttemptId { run: run_id(), number: 2 },
        project: DEBIAN,
        agent: FTP1,
        role: Role::Origin,
        destination: "a1:debian".parse().expect("a destination"),
        upstream_host: "h".to_owned(),
        upstream_uri: "rsync://h/debian/".to_owned(),
        fell_back: String::new(),
        tree: run_id(),
        attempt_try: 1,
        first_sync: false,
        mixed: false,
        max_delete: 500,
        source: None,
        spec_hash: String::new(),
        state,
    }
}

fn attempt(state: AttemptState) -> v1::Attempt {
    let view = AttemptView { progress: Some(v1::Progress::default()), retry_time: Some(Wall(99_000)) };
    attempt_to_wire(&record(state), &name("debian"), view, &Fleet)
}

fn ended(end: End) -> AttemptState {
    AttemptState::Ended { epoch: EPOCH, offered: Some(Wall(1_000)), started: None, at: Wall(3_000), end }
}

#[test]
fn an_attempt_shows_what_its_state_knows() {
    let pending = attempt(AttemptState::Pending { delay: Duration::ZERO });
    assert_eq!(pending.name, "projects/debian/runs/01a1f797-47f1-7c02-9d1f-8a3b6f20c1de/attempts/2");
    assert_eq!((pending.agent.as_str(), pending.destination.as_str()), ("agents/ftp1", "a1:debian"));
    assert_eq!((pending.state(), pending.retry_time, pending.epoch), (State::Pending, time(99), None));
    assert_eq!(pending.progress, None);

    let offered = attempt(AttemptState::Offered { epoch: EPOCH, at: Wall(1_000) });
    assert_eq!((offered.state(), offered.offer_time, offered.retry_time), (State::Offered, time(1), None));
    assert_eq!(offered.epoch, Some(v1::Epoch { term: 3, counter: 9 }));

    let running = attempt(AttemptState::Running { epoch: EPOCH, offered: Wall(1_000), started: Wall(2_000) });
    assert_eq!((running.state(), running.start_time, running.end_time), (State::Running, time(2), None));
    assert!(running.progress.is_some());

    let cancelling =
        attempt(AttemptState::Cancelling { epoch: EPOCH, offered: Wall(1_000), started: Some(Wall(2_000)) });
    assert_eq!((cancelling.state(), cancelling.start_time), (State::Cancelling, time(2)));
}

#[test]
fn an_end_shows_its_outcome() {
    let outcome = || Outcome::of_class(ExitClass::Network);
    let ends = [
        (End::Succeeded(outcome()), State::Succeeded, true),
        (End::Failed(outcome()), State::Failed, true),
        (End::Held(outcome()), State::Held, true),
        (End::Cancelled(Some(outcome())), State::Cancelled, true),
        (End::Cancelled(None), State::Cancelled, false),
        (End::Lost, State::Lost, false),
    ];
    for (end, state, has_outcome) in ends {
        let wire = attempt(ended(end));
        assert_eq!((wire.state(), wire.outcome.is_some()), (state, has_outcome));
        assert_eq!((wire.offer_time, wire.start_time, wire.end_time), (time(1), None, time(3)));
        assert_eq!(wire.progress, None);
    }
    let never_offered = AttemptState::Ended {
        epoch: Epoch::default(),
        offered: None,
        started: None,
        at: Wall(3_000),
        end: End::Lost,
    };
    assert_eq!(attempt(never_offered).epoch, None);
}

#[test]
fn a_project_stands_by_its_runs_and_placements() {
    let running = record(AttemptState::Offered { epoch: EPOCH, at: Wall(1_000) });
    let placement = PlacementRecord {
        project: DEBIAN,
        agent: FTP1,
        role: Role::Origin,
        destination: "a1:debian".parse().expect("a destination"),
        have_tree: Some(run_id()),
        have_time: Some(Wall(5_000)),
        gave_up_on: None,
        standby: false,
        files: 10,
        size_bytes: 100,
        half_changed: false,
        half_moved: None,
        hold: None,
        marker: Some(Wall(4_000)),
        behind: None,
    };
    let view =
        PlacementView { connected: true, attempt: Some(&running), progress: Some(v1::Progress::default()) };
    let placed = placement_to_wire(&placement, &name("debian"), view, &Fleet);
    assert_eq!((placed.agent.as_str(), placed.connected, placed.files), ("agents/ftp1", true, 10));
    assert_eq!((placed.have_tree.as_str(), placed.have_time), (run_id().to_string().as_str(), time(5)));
    assert!(placed.attempt.ends_with("/attempts/2") && placed.attempt_state() == State::Offered);
    let idle = placement_to_wire(&placement, &name("debian"), PlacementView::default(), &Fleet);
    assert_eq!((idle.attempt.as_str(), idle.attempt_state, idle.progress), ("", 0, None));

    let state = ProjectState {
        uid: DEBIAN,
        wanted: 4,
        taken: 4,
        next_fire: None,
        missed_fires: 0,
        skipped_fires: 0,
        last_run: Some(LastRun { run: run_id(), state: RunState::Held, end: Wall(6_000) }),
        tree: Some(run_id()),
        last_success: Some(Wall(5_000)),
        upstream: 0,
        marker: Some(Wall(4_000)),
    };
    let fires = (1..9).map(|n| Wall(n * 60_000)).collect();
    let view = StandingView {
        unplaced: Vec::new(),
        upstream: String::new(),
        behind_since: Some(Wall(7_000)),
        next_fires: fires,
        active_run: Some(run_id()),
        queued_run: None,
        placements: vec![placed],
    };
    let status = status_to_wire(&name("debian"), &state, view);
    assert_eq!((status.next_fire_times.len(), status.placements.len()), (3, 1));
    assert_eq!(status.active_run, "projects/debian/runs/01a1f797-47f1-7c02-9d1f-8a3b6f20c1de");
    assert_eq!((status.queued_run.as_str(), status.last_state()), ("", v1::run::State::Held));
    assert_eq!((status.last_end_time, status.last_success_time), (time(6), time(5)));
    assert_eq!((status.marker_time, status.behind_since), (time(4), time(7)));
    assert_eq!(status.placements[0].marker_time, time(4));
}

#[test]
fn a_run_names_who_still_lacks_it() {
    let missed = |agent, caught_up| Missed { agent, caught_up };
    let record = RunRecord {
        id: run_id(),
        project: DEBIAN,
        trigger: Trigger {
            kind: TriggerKind::User,
            by: "maria".to_owned(),
            time: Wall(1_000),
            autonomous: false,
        },
        coalesced: 2,
        by_person: true,
        generation: 5,
        state: RunState::Propagating,
        attempts: 3,
        origin_attempt: 1,
        replica_failed: false,
        missed: vec![missed(FTP1, None), missed(AgentUid(8), None), missed(AgentUid(9), Some(Wall(1)))],
        create_time: Wall(1_000),
        start_time: Some(Wall(2_000)),
        propagate_time: Some(Wall(3_000)),
        end_time: None,
        current_tree: true,
        traceparent: String::new(),
        wish: fleet::run::Wish::default(),
    };
    let wire = run_to_wire(&record, &name("debian"), None, &Fleet);
    assert_eq!(wire.missed, ["agents/ftp1", "agents/?"]);
    assert_eq!((wire.state(), wire.coalesced_triggers), (v1::run::State::Propagating, 2));
    assert_eq!(
        wire.trigger.as_ref().map(|t| (t.kind(), t.by.as_str())),
        Some((v1::trigger::Kind::User, "users/maria"))
    );
    assert_eq!((wire.start_time, wire.end_time, wire.attempt_count), (time(2), None, 3));
}

#[test]
fn what_is_in_the_way_is_named() {
    let why = Why {
        attempt: AttemptId { run: run_id(), number: 1 },
        wait: Wait {
            reason: WaitReason::UpstreamSlots,
            until: Some(Mono(5)),
            blockers: vec![
                Blocker::Host("h.example".to_owned()),
                Blocker::Project(DEBIAN, FTP1),
                Blocker::Agent(FTP1),
                Blocker::Volume(FTP1, "a1".to_owned()),
                Blocker::Project(ProjectUid(2), FTP1),
            ],
        },
        until: Some(Wall(7_000)),
        position: 2,
        line: 5,
    };
    let wire = wait_to_wire(&why, &Fleet);
    assert_eq!(
        (wire.reason(), wire.position, wire.line, wire.until),
        (v1::wait::Reason::UpstreamSlots, 2, 5, time(7))
    );
    assert_eq!(
        wire.blockers,
        ["upstreams/h.example", "projects/debian", "agents/ftp1", "agents/ftp1/roots/a1", "projects/?"]
    );
}

#[test]
fn an_agent_without_a_session_shows_when_it_was_seen() {
    let root = Root {
        name: "a1".to_owned(),
        path: "/srv/a1".to_owned(),
        total_bytes: 10,
        free_bytes: 5,
        total_inodes: 3,
        free_inodes: 2,
    };
    let record = AgentRecord {
        uid: FTP1,
        name: name("ftp1"),
        labels: [("role".to_owned(), "edge".to_owned())].into(),
        caps: AgentCaps { max_running: Some(3), ..AgentCaps::default() },
        draining: true,
        revoked: None,
        key_hash: "aa".to_owned(),
        certificate_serial: "01".to_owned(),
        certificate_expires: Wall(50_000),
        state_id: String::new(),
        last_seen: Some(Wall(4_000)),
        last_known: LastKnown {
            rsync_version: "3.2.7".to_owned(),
            roots: vec![root.clone()],
            ..LastKnown::default()
        },
        revision: 6,
        create_time: Wall(1_000),
    };
    let last_known = Some(&record.last_known);
    let (max_running, max_serving) = (3, 4);
    let view = AgentView { running: 1, placements: 2, max_running, max_serving, last_known, session: None };
    let away = agent_to_wire(&record, view);
    assert_eq!((away.connected, away.seen_time, away.version.as_str()), (false, time(4), ""));
    assert_eq!((away.rsync_version.as_str(), away.roots[0].free_bytes), ("3.2.7", 5));
    assert_eq!((away.max_running, away.max_running_in_force, away.max_serving), (3, 3, 0));
    assert_eq!((away.running, away.placements, away.etag.as_str()), (1, 2, "6"));
    assert_eq!(away.certificate_expire_time, time(50));
    let facts = AgentFacts {
        version: "0.1.0".to_owned(),
        slots: 4,
        roots: vec![root],
        certificate_expires: Some(Wall(40_000)),
        ..AgentFacts::default()
    };
    let session = Session { epoch: EPOCH, facts, since: Wall(9_000), connection: 1 };
    let here = agent_to_wire(&record, AgentView { session: Some(&session), ..AgentView::default() });
    assert_eq!((here.connected, here.seen_time, here.version.as_str()), (true, time(9), "0.1.0"));
    assert_eq!((here.slots, here.roots[0].free_inodes, here.draining), (4, 2, true));
    assert_eq!(here.certificate_expire_time, time(40), "the one that it holds");
    let declared = AgentRecord { key_hash: String::new(), certificate_expires: Wall(0), ..record };
    let declared = agent_to_wire(&declared, AgentView::default());
    assert!(declared.declared_only && declared.certificate_expire_time.is_none() && !here.declared_only);
}

#[test]
fn a_listed_join_token_has_no_secret() {
    let record = JoinToken {
        id: "t1".to_owned(),
        hash: "5ec2e7".to_owned(),
        names: TokenNames::Pattern("edge*".to_owned()),
        networks: vec!["192.0.2.0/24".parse().unwrap()],
        uses_left: 3,
        expires: Wall(2_000),
        by: "maria".to_owned(),
    };
    let wire = join_token_to_wire(&record, "sha256:00");
    assert_eq!(
        (wire.name.as_str(), wire.token.as_str(), wire.pattern.as_str()),
        ("joinTokens/t1", "", "edge*")
    );
    assert_eq!(wire.cidrs, ["192.0.2.0/24"]);
    assert!(!format!("{wire:?}").contains("5ec2e7"));
}
