//! Runs, attempts and the reasons of waiting, as people see them. Does not look anything up but names.

use fleet::{
    attempt::{AttemptRecord, AttemptState, End},
    engine::{BLOCKERS_MAX, Blocker, Why},
    id::{Epoch, Name},
    refusal::Violation,
    run::{Missed, RunRecord, Trigger, TriggerKind},
    time::Wall,
};

use super::{
    enums::wire,
    names::{Names, agent_name_of, attempt_name, project_name_of, run_name, upstream_name, user_name},
    outcome::outcome_to_wire,
    time::wall_to_wire,
};
use crate::v1::{self, attempt::State};

/// The wire's form of a run of `project`.
#[must_use]
pub fn run_to_wire(
    run: &RunRecord,
    project: &Name,
    origin_attempt: Option<v1::Attempt>,
    names: &dyn Names,
) -> v1::Run {
    let caught_up = |missed: &Missed| {
        let time = Some(wall_to_wire(missed.caught_up?));
        Some(v1::CaughtUp { agent: agent_name_of(names, missed.agent), time })
    };
    let behind = run.missed.iter().filter(|missed| missed.caught_up.is_none());
    v1::Run {
        name: run_name(project, run.id),
        generation: run.generation,
        trigger: Some(trigger_to_wire(&run.trigger)),
        coalesced_triggers: run.coalesced,
        state: wire::run_state::number(run.state),
        create_time: Some(wall_to_wire(run.create_time)),
        start_time: run.start_time.map(wall_to_wire),
        end_time: run.end_time.map(wall_to_wire),
        missed: behind.map(|missed| agent_name_of(names, missed.agent)).collect(),
        traceparent: run.traceparent.clone(),
        origin_attempt,
        attempt_count: run.attempts,
        dry_run: run.wish.dry_run,
        reclaim: run.wish.reclaim,
        caught_up: run.missed.iter().filter_map(caught_up).collect(),
        move_from: run.wish.moves.as_ref().map(|way| way.from.to_string()).unwrap_or_default(),
        move_to: run.wish.moves.as_ref().map(|way| way.to.to_string()).unwrap_or_default(),
        reseed_from: run.wish.reseed_from.map(|agent| agent_name_of(names, agent)).unwrap_or_default(),
    }
}

/// The wire's form of a trigger.
#[must_use]
pub fn trigger_to_wire(trigger: &Trigger) -> v1::Trigger {
    let Trigger { kind, by, time, autonomous } = trigger;
    v1::Trigger {
        kind: wire::trigger_kind::number(*kind),
        by: match kind {
            TriggerKind::Project => format!("projects/{by}"),
            _ => user_name(by),
        },
        time: Some(wall_to_wire(*time)),
        autonomous: *autonomous,
    }
}

/// What a record of an attempt does not know.
#[derive(Debug, Clone, Default)]
pub struct AttemptView {
    /// Newest progress; shown while it runs only.
    pub progress: Option<v1::Progress>,
    /// The earliest time of its next try, while it waits after a failure.
    pub retry_time: Option<Wall>,
}

/// The wire's form of an attempt of `project`.
#[must_use]
pub fn attempt_to_wire(
    attempt: &AttemptRecord,
    project: &Name,
    view: AttemptView,
    names: &dyn Names,
) -> v1::Attempt {
    let mut out = v1::Attempt {
        name: attempt_name(project, attempt.id),
        agent: agent_name_of(names, attempt.agent),
        role: wire::role::number(attempt.role),
        epoch: attempt.state.epoch().filter(|epoch| *epoch != Epoch::default()).map(epoch_to_wire),
        state: attempt_state_to_wire(&attempt.state).into(),
        destination: attempt.destination.to_string(),
        mixed: attempt.mixed,
        source_agent: attempt.source.map(|agent| agent_name_of(names, agent)).unwrap_or_default(),
        upstream: attempt.upstream_uri.clone(),
        fell_back: attempt.fell_back.clone(),
        ..v1::Attempt::default()
    };
    let mut times = |offered: Option<Wall>, started: Option<Wall>, ended: Option<Wall>| {
        out.offer_time = offered.map(wall_to_wire);
        out.start_time = started.map(wall_to_wire);
        out.end_time = ended.map(wall_to_wire);
    };
    match &attempt.state {
        AttemptState::Pending { .. } => out.retry_time = view.retry_time.map(wall_to_wire),
        AttemptState::Offered { at, .. } => times(Some(*at), None, None),
        AttemptState::Running { offered, started, .. } => {
            times(Some(*offered), Some(*started), None);
            out.progress = view.progress;
        }
        AttemptState::Cancelling { offered, started, .. } => {
            times(Some(*offered), *started, None);
            out.progress = view.progress;
        }
        AttemptState::Ended { offered, started, at, end, .. } => {
            times(*offered, *started, Some(*at));
            out.outcome = end.outcome().map(outcome_to_wire);
        }
    }
    out
}

/// The one word for where an attempt stands.
#[must_use]
pub fn attempt_state_to_wire(state: &AttemptState) -> State {
    match state {
        AttemptState::Pending { .. } => State::Pending,
        AttemptState::Offered { .. } => State::Offered,
        AttemptState::Running { .. } => State::Running,
        AttemptState::Cancelling { .. } => State::Cancelling,
        AttemptState::Ended { end: End::Succeeded(_), .. } => State::Succeeded,
        AttemptState::Ended { end: End::Failed(_), .. } => State::Failed,
        AttemptState::Ended { end: End::Held(_), .. } => State::Held,
        AttemptState::Ended { end: End::Cancelled(_), .. } => State::Cancelled,
        AttemptState::Ended { end: End::Lost, .. } => State::Lost,
    }
}

/// The wire's form of where a run stands.
#[must_use]
pub fn run_state_to_wire(state: fleet::run::RunState) -> v1::run::State {
    v1::run::State::try_from(wire::run_state::number(state)).unwrap_or_default()
}

/// The wire's form of what an agent does for a tree.
#[must_use]
pub fn role_to_wire(role: fleet::attempt::Role) -> v1::Role {
    v1::Role::try_from(wire::role::number(role)).unwrap_or_default()
}

/// Reads what an agent does for a tree.
///
/// # Errors
/// Missing, or not known.
pub fn role_from_wire(field: &str, role: i32) -> Result<fleet::attempt::Role, Violation> {
    wire::role::read(role).ok_or_else(|| Violation::new(field, format!("{role}: there is no such role")))
}

/// The wire's form of a fencing token.
#[must_use]
pub fn epoch_to_wire(epoch: Epoch) -> v1::Epoch {
    v1::Epoch { term: epoch.term, counter: epoch.counter }
}

/// The wire's form of one reason of waiting.
#[must_use]
pub fn wait_to_wire(why: &Why, names: &dyn Names) -> v1::Wait {
    let blocker = |blocker: &Blocker| match blocker {
        Blocker::Agent(agent) => agent_name_of(names, *agent),
        Blocker::Project(project, _) => project_name_of(names, *project),
        Blocker::Host(host) => upstream_name(host),
        Blocker::Volume(agent, root) => format!("{}/roots/{root}", agent_name_of(names, *agent)),
    };
    v1::Wait {
        reason: wire::wait_reason::number(why.wait.reason),
        position: why.position,
        until: why.until.map(wall_to_wire),
        blockers: why.wait.blockers.iter().take(BLOCKERS_MAX).map(blocker).collect(),
        line: why.line,
    }
}
