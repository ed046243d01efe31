//! A project with what the fleet knows of its tree now: one look at the view.

use fleet::{
    Engine,
    engine::{Project, Why},
    id::{Name, RunId},
    placement::PlacementRecord,
    run::RunState,
    time::{Now, Wall},
};
use mirror_proto::{convert, v1};

use super::super::run;
use crate::watch::Progress;

/// Fires in a project's status.
const STATUS_FIRES: usize = 3;

/// The wire's form of a project, with its status as the view has it.
#[must_use]
pub fn show(view: &Engine, now: Now, progress: &Progress, project: &Project) -> v1::Project {
    let reasons = view.why(now, project.record.uid);
    shown(view, now, progress, project, reasons.first())
}

/// The same of many projects, with one look at all that waits.
#[must_use]
pub fn show_all<'a>(
    view: &Engine,
    now: Now,
    progress: &Progress,
    projects: impl IntoIterator<Item = &'a Project>,
) -> Vec<v1::Project> {
    let reasons = view.why_all(now);
    let why = |project: &Project| reasons.get(&project.record.uid).and_then(|all| all.first());
    projects.into_iter().map(|project| shown(view, now, progress, project, why(project))).collect()
}

fn shown(view: &Engine, now: Now, progress: &Progress, project: &Project, why: Option<&Why>) -> v1::Project {
    let mut shown = convert::project_to_wire(&project.record, view, Vec::new());
    let wait = why.map(|why| convert::wait_to_wire(why, view));
    shown.status = Some(v1::ProjectStatus { wait, ..status(view, now, progress, project) });
    shown
}

fn status(view: &Engine, now: Now, progress: &Progress, project: &Project) -> v1::ProjectStatus {
    let name = &project.record.name;
    let runs = project.runs.iter().rev().filter_map(|id| view.run(*id));
    let newest_of = |fits: fn(RunState) -> bool| {
        let fitting = runs.clone().find(|run| fits(run.state));
        fitting.map_or_else(String::new, |run| convert::run_name(name, run.id))
    };
    let last = project.state.last_run;
    v1::ProjectStatus {
        next_fire_times: next_fires(project).into_iter().map(convert::wall_to_wire).collect(),
        last_success_time: project.state.last_success.map(convert::wall_to_wire),
        active_run: newest_of(|state| matches!(state, RunState::Running | RunState::Propagating)),
        queued_run: newest_of(|state| state == RunState::Queued),
        last_state: last
            .map_or(v1::run::State::Unspecified, |last| convert::run_state_to_wire(last.state))
            .into(),
        last_end_time: last.map(|last| convert::wall_to_wire(last.end)),
        placements: project
            .placements
            .values()
            .map(|one| placement(view, now, progress, name, one))
            .collect(),
        unplaced: view
            .unplaced(project.record.uid)
            .into_iter()
            .map(|(agent, why)| format!("{}: {why}", convert::agent_name_of(view, agent)))
            .collect(),
        wait: None,
        upstream: project.upstream().map_or_else(String::new, |upstream| upstream.uri.clone()),
        marker_time: project.state.marker.map(convert::wall_to_wire),
        behind_since: project
            .origin()
            .and_then(|origin| origin.behind)
            .map(|behind| convert::wall_to_wire(behind.since)),
    }
}

/// The stored fire, and those that follow it by the schedule.
fn next_fires(project: &Project) -> Vec<Wall> {
    let Some(next) = project.state.next_fire.filter(|_| project.record.paused.is_none()) else {
        return Vec::new();
    };
    let schedule = &project.record.spec.schedule;
    let later = schedule.next_after(next.scheduled.to_utc());
    let later = std::iter::successors(later, |fire| schedule.next_after(*fire)).map(Wall::from);
    std::iter::once(next.at).chain(later).take(STATUS_FIRES).collect()
}

fn placement(
    view: &Engine,
    now: Now,
    progress: &Progress,
    project: &Name,
    placement: &PlacementRecord,
) -> v1::PlacementStatus {
    let attempt = view.attempt_on(placement.project, placement.agent);
    let attempt = attempt.map(|attempt| run::show_attempt(view, now, progress, project, attempt));
    let tree = |tree: Option<RunId>| tree.map(|tree| tree.to_string()).unwrap_or_default();
    v1::PlacementStatus {
        agent: convert::agent_name_of(view, placement.agent),
        role: convert::role_to_wire(placement.role).into(),
        destination: placement.destination.to_string(),
        connected: view.session(placement.agent).is_some(),
        have_tree: tree(placement.have_tree),
        have_time: placement.have_time.map(convert::wall_to_wire),
        attempt: attempt.as_ref().map(|attempt| attempt.name.clone()).unwrap_or_default(),
        attempt_state: attempt.as_ref().map_or(0, |attempt| attempt.state),
        progress: attempt.and_then(|attempt| attempt.progress),
        files: placement.files,
        size_bytes: placement.size_bytes,
        hold: placement.hold.as_ref().map(|hold| convert::hold_to_wire(hold, project)),
        standby: placement.standby,
        marker_time: placement.marker.filter(|_| placement.have_tree.is_some()).map(convert::wall_to_wire),
    }
}
