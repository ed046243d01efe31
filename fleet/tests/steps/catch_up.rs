//! After an outage every project runs once, and not all of them at once (decision 5 of the schedules' design, A20 of the
//! mission); and a spread stays with its project over renames of what is around it.

use std::{collections::BTreeMap, time::Duration};

use fleet::{
    defaults::{CATCH_UP_SPREAD, FIRE_LATE},
    id::ProjectUid,
    project::ProjectSpec,
    run::{RunRecord, RunState, TriggerKind},
    schedule::{Cadence, Cron, IntervalFrom, Named, OverlapPolicy, Schedule},
    time::Wall,
};

use super::world::{HOUR, World, ok, spec};

/// Projects that miss their fires together.
const PROJECTS: u64 = 120;
const MINUTE: Duration = Duration::from_secs(60);

fn hourly() -> Schedule {
    Schedule::cron(Cron::parse("minute=30".parse().unwrap()).unwrap(), chrono_tz::UTC)
}

fn fire(world: &World, project: ProjectUid) -> Wall {
    world.engine.project(project).unwrap().state.next_fire.unwrap().at
}

/// Every run that has not ended.
fn runs(world: &World) -> impl Iterator<Item = &RunRecord> {
    let of_all = world.engine.projects_by_name().flat_map(|project| &project.runs);
    of_all.filter_map(|run| world.engine.run(*run))
}

/// A fleet of projects with this schedule, on an agent that is not here: runs wait and are counted.
fn projects(world: &mut World, schedule: &Schedule, count: u64) -> Vec<ProjectUid> {
    let agent = world.enroll("ftp1", &[]);
    let declare = |number| {
        let spec = ProjectSpec {
            schedule: schedule.clone(),
            ..spec(&format!("a1:p{number}"), &[agent], Vec::new())
        };
        world.declare(&format!("p{number}"), spec).unwrap()
    };
    (0..count).map(declare).collect()
}

#[test]
fn what_an_outage_missed_is_run_once_for_each_project_and_over_ten_minutes() {
    let mut world = World::new();
    let projects = projects(&mut world, &hourly(), PROJECTS);
    let missed: Vec<Wall> = projects.iter().map(|project| fire(&world, *project)).collect();
    assert!(missed.iter().all(|fire| *fire == missed[0]), "without a spread all are due together");
    // Nobody was there for three hours.
    let back = missed[0].plus(3 * HOUR).plus(FIRE_LATE);
    world.pass(back.since(world.now.wall));
    let put_off: Vec<Duration> = projects.iter().map(|project| fire(&world, *project).since(back)).collect();
    assert!(put_off.iter().all(|late| *late <= CATCH_UP_SPREAD), "{put_off:?}");
    let mut in_minute: BTreeMap<u64, u32> = BTreeMap::new();
    put_off.iter().for_each(|late| *in_minute.entry(late.as_secs() / 60).or_default() += 1);
    assert!(in_minute.len() >= 9 && in_minute.values().all(|count| *count < 40), "{in_minute:?}");
    assert_eq!(runs(&world).count(), 0, "none has begun yet");

    for _ in 0..11 {
        world.pass(MINUTE);
    }
    assert_eq!(runs(&world).count(), projects.len(), "one run each");
    for run in runs(&world) {
        assert_eq!((run.trigger.kind, run.coalesced), (TriggerKind::Schedule, 0));
        assert_eq!(run.trigger.time, missed[0], "it stands for the oldest fire that was missed");
    }
    for project in &projects {
        let state = &world.engine.project(*project).unwrap().state;
        assert_eq!((state.wanted, state.missed_fires), (1, 0));
        assert_eq!(state.next_fire.unwrap().scheduled, missed[0].plus(4 * HOUR), "and the schedule goes on");
    }
}

#[test]
fn what_is_older_than_the_catch_up_window_is_missed_and_counted() {
    let mut world = World::new();
    let schedule = Schedule { catch_up_window_seconds: Some(60), ..hourly() };
    let projects = projects(&mut world, &schedule, 1);
    let missed = fire(&world, projects[0]);
    world.pass(missed.plus(30 * MINUTE).since(world.now.wall));
    world.pass(CATCH_UP_SPREAD);
    let state = &world.engine.project(projects[0]).unwrap().state;
    assert_eq!((state.wanted, state.missed_fires), (0, 1));
    assert_eq!(state.next_fire.unwrap().scheduled, missed.plus(HOUR));
}

/// Fires during a run: one more run follows, or none.
#[test]
fn fires_during_a_run_become_one_more_or_are_dropped_and_counted() {
    for (policy, expected, skipped) in [(OverlapPolicy::BufferOne, 2, 0), (OverlapPolicy::Skip, 1, 3)] {
        let mut world = World::new();
        let agent = world.agent("ftp1", &[]);
        let schedule = Schedule { overlap_policy: policy, ..hourly() };
        let spec = ProjectSpec { schedule, ..spec("a1:debian", &[agent], Vec::new()) };
        let project = world.declare("debian", spec).unwrap();
        world.pass(fire(&world, project).since(world.now.wall));
        let offer = world.offered();
        for _ in 0..3 {
            world.pass(HOUR);
        }
        let state = &world.engine.project(project).unwrap().state;
        assert_eq!((runs(&world).count(), state.skipped_fires), (expected, skipped), "{policy:?}");
        world.end(&offer, ok());
        let queued = runs(&world).filter(|run| run.state == RunState::Queued).count();
        assert_eq!((world.offers.len(), queued), (expected - 1, 0), "{policy:?}");
    }
}

#[test]
fn a_projects_moment_stays_whatever_else_changes() {
    let mut world = World::new();
    let (first, second) = (world.agent("ftp1", &[]), world.agent("ftp2", &[]));
    let daily = Schedule::cron(Named::Daily.cron(), chrono_tz::UTC);
    let spec = ProjectSpec { schedule: daily.clone(), ..spec("a1:debian", &[first, second], Vec::new()) };
    let project = world.declare("debian", spec).unwrap();
    let (phase, due) = (world.record(project).spec.schedule.phase_seconds, fire(&world, project));
    assert!(phase > 0 && due.since(world.now.wall) <= 24 * HOUR);
    // What a person sends has no phase, or an old one.
    world.edit(project, |spec| {
        spec.schedule.phase_seconds = 0;
        spec.display_name = "Debian".to_owned();
        spec.placement.origins.reverse();
    });
    assert_eq!((world.record(project).spec.schedule.phase_seconds, fire(&world, project)), (phase, due));
    world.edit(project, |spec| spec.schedule.spread_seconds = Some(0));
    assert_eq!(world.record(project).spec.schedule.phase_seconds, 0);
    world.edit(project, |spec| spec.schedule = daily.clone());
    let moved = world.record(project).spec.schedule.phase_seconds;
    assert!(
        moved > 0 && moved != phase,
        "another origin is another moment, from the next change of the schedule on"
    );
}

/// 10,000 fires in one second: each project once, none lost.
#[test]
fn ten_thousand_fires_in_one_second_are_ten_thousand_runs() {
    let mut world = World::new();
    let projects = projects(&mut world, &hourly(), 10);
    let agent = world.record(projects[0]).spec.placement.origins[0].agent;
    for number in 10..10_000 {
        let spec = ProjectSpec { schedule: hourly(), ..spec(&format!("a1:p{number}"), &[agent], Vec::new()) };
        let name = format!("p{number}").parse().unwrap();
        world.ask(fleet::input::Ask::CreateProject {
            name,
            spec: Box::new(spec),
            paused: false,
            request: None,
            validate_only: false,
        });
    }
    world.pass(fire(&world, projects[0]).since(world.now.wall));
    assert_eq!(runs(&world).count(), 10_000);
    let once =
        world.engine.projects_by_name().all(|project| project.state.wanted == 1 && project.runs.len() == 1);
    assert!(once, "each project once");
}

#[test]
fn an_interval_that_people_run_before_its_start_begins_at_its_start() {
    for from in [IntervalFrom::End, IntervalFrom::Start] {
        let mut world = World::new();
        let ftp1 = world.agent("ftp1", &[]);
        let start = world.now.wall.plus(HOUR * 30);
        let mut declared = spec("a1:debian", &[ftp1], Vec::new());
        let cadence = Cadence::Interval { every_seconds: 6 * 3_600, from };
        let schedule = Schedule::new(cadence, chrono_tz::UTC);
        declared.schedule =
            Schedule { start: Some(start.to_utc()), spread_seconds: Some(6 * 3_600), ..schedule };
        let project = world.declare("debian", declared).unwrap();
        let first = fire(&world, project);
        assert!(first > start && first < start.plus(HOUR * 6), "at its own place in the spread");
        world.synced(project, &ok());
        assert_eq!(fire(&world, project), first, "nothing fires before the start");
        world.pass(first.since(world.now.wall));
        let offer = world.offered();
        world.end(&offer, ok());
        assert_eq!(fire(&world, project), world.now.wall.plus(HOUR * 6), "from then on runs count");
    }
}
