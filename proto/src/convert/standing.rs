//! How a project stands: its fires, its runs, and its tree on every agent. Does not find these out: the caller
//! has the engine and the sessions.

use fleet::{
    attempt::AttemptRecord,
    id::{Name, RunId},
    placement::{Hold, PlacementRecord},
    project::ProjectState,
    time::Wall,
};

use super::{
    enums::wire,
    names::{Names, agent_name_of, attempt_name, run_name},
    outcome::evidence_to_wire,
    run::attempt_state_to_wire,
    time::wall_to_wire,
};
use crate::v1;

/// Most next fires that a status shows.
pub const NEXT_FIRES_MAX: usize = 3;

/// What the records of a project do not say about how it stands.
#[derive(Debug, Clone, Default)]
pub struct StandingView {
    /// Its next fires; the first [`NEXT_FIRES_MAX`] are shown.
    pub next_fires: Vec<Wall>,
    /// The run that is going.
    pub active_run: Option<RunId>,
    /// The run that waits.
    pub queued_run: Option<RunId>,
    /// One for each placement, by [`placement_to_wire`].
    pub placements: Vec<v1::PlacementStatus>,
    /// Agents that should hold the tree and cannot, with the reason.
    pub unplaced: Vec<String>,
    /// The URI of the upstream that the origin pulls from; empty: none.
    pub upstream: String,
    /// Since when no upstream has anything as new as what is served.
    pub behind_since: Option<Wall>,
}

/// The wire's form of how `project` stands.
#[must_use]
pub fn status_to_wire(project: &Name, state: &ProjectState, view: StandingView) -> v1::ProjectStatus {
    let run = |run: Option<RunId>| run.map(|run| run_name(project, run)).unwrap_or_default();
    v1::ProjectStatus {
        next_fire_times: view.next_fires.into_iter().take(NEXT_FIRES_MAX).map(wall_to_wire).collect(),
        last_success_time: state.last_success.map(wall_to_wire),
        active_run: run(view.active_run),
        queued_run: run(view.queued_run),
        last_state: state.last_run.map_or(0, |last| wire::run_state::number(last.state)),
        last_end_time: state.last_run.map(|last| wall_to_wire(last.end)),
        placements: view.placements,
        unplaced: view.unplaced,
        wait: None,
        upstream: view.upstream,
        marker_time: state.marker.map(wall_to_wire),
        behind_since: view.behind_since.map(wall_to_wire),
    }
}

/// What a record of a placement does not know.
#[derive(Debug, Clone, Default)]
pub struct PlacementView<'a> {
    /// Its agent has a session now.
    pub connected: bool,
    /// The attempt that is on the agent, or waits for it.
    pub attempt: Option<&'a AttemptRecord>,
    /// That attempt's newest progress.
    pub progress: Option<v1::Progress>,
}

/// The wire's form of an open hold of `project`.
#[must_use]
pub fn hold_to_wire(hold: &Hold, project: &Name) -> v1::Hold {
    let Hold { first, newest, since, evidence, met: _, approved_until } = hold;
    v1::Hold {
        first_attempt: attempt_name(project, *first),
        newest_attempt: attempt_name(project, *newest),
        since: Some(wall_to_wire(*since)),
        evidence: Some(evidence_to_wire(evidence)),
        approval_expire_time: approved_until.map(wall_to_wire),
    }
}

/// The wire's form of one placement of `project`.
#[must_use]
pub fn placement_to_wire(
    record: &PlacementRecord,
    project: &Name,
    view: PlacementView<'_>,
    names: &dyn Names,
) -> v1::PlacementStatus {
    let PlacementView { connected, attempt, progress } = view;
    v1::PlacementStatus {
        agent: agent_name_of(names, record.agent),
        role: wire::role::number(record.role),
        destination: record.destination.to_string(),
        connected,
        have_tree: record.have_tree.map(|tree| tree.to_string()).unwrap_or_default(),
        have_time: record.have_time.map(wall_to_wire),
        attempt: attempt.map(|attempt| attempt_name(project, attempt.id)).unwrap_or_default(),
        attempt_state: attempt.map_or(0, |attempt| attempt_state_to_wire(&attempt.state).into()),
        progress: attempt.and(progress),
        files: record.files,
        size_bytes: record.size_bytes,
        hold: record.hold.as_ref().map(|hold| hold_to_wire(hold, project)),
        standby: record.standby,
        marker_time: record.marker.filter(|_| record.have_tree.is_some()).map(wall_to_wire),
    }
}
