//! Rules for projects that run after others, and for archived ones.

use fleet::{
    attempt::{AttemptRecord, End, Role},
    id::ProjectUid,
    project::ProjectRecord,
    record::{Key, Record},
    run::RunState,
};

use crate::store::{Store, Unit};

/// Whether this unit makes a new tree of a project after which this one runs.
pub(super) fn is_triggered(store: &Store, unit: &Unit, project: &ProjectRecord) -> bool {
    let made = |uid: &ProjectUid| {
        let old = store.state(*uid).and_then(|state| state.tree);
        unit.states().any(|state| state.uid == *uid && state.tree.is_some() && state.tree != old)
    };
    project.spec.after.iter().any(made)
}

/// I2: whoever runs after a project is triggered in the unit that makes its tree; and who is archived is not.
pub(super) fn check_followers(store: &Store, unit: &Unit) -> Result<(), String> {
    let projects = store.live.range(Key::Project(ProjectUid(0))..=Key::Project(ProjectUid(u64::MAX)));
    for (_, record) in projects {
        let Record::Project(project) = record else { continue };
        if !is_triggered(store, unit, project) {
            continue;
        }
        let before = store.state(project.uid).map(|state| state.wanted);
        let now = unit.states().find(|state| state.uid == project.uid).map(|state| state.wanted);
        let triggered = now.is_some_and(|now| Some(now) > before);
        if triggered == project.archived.is_some() {
            return Err(format!(
                "project {} runs after one with a new tree, triggered: {triggered}, archived: {:?}",
                project.uid.0, project.archived
            ));
        }
    }
    Ok(())
}

fn is_retry(store: &Store, attempt: &AttemptRecord) -> bool {
    let aside = store.is_aside(attempt);
    attempt.role == Role::Origin && attempt.attempt_try > 1 && attempt.state.is_pending() && !aside
}

/// What fails in an archived project is not tried again; and what no person wants goes no further in it at all.
pub(super) fn check_retries(store: &Store, unit: &Unit) -> Result<(), String> {
    let archived = |uid: ProjectUid| store.project(uid).is_some_and(|project| project.archived.is_some());
    let run = |one: &AttemptRecord| unit.runs().find(|run| run.id == one.id.run);
    // A guard's first stop counts what it would have deleted: the try begins with the next attempt.
    let counted = |one: &AttemptRecord| {
        let mut held = unit.attempts().filter(|other| other.id.run == one.id.run);
        held.any(|other| matches!(other.state.end(), Some(End::Held(_))))
    };
    let wrong = |one: &&AttemptRecord| {
        let goes_on = one.role == Role::Origin && one.id.number > 1 && one.state.is_pending();
        let wanted = run(one).is_some_and(|run| run.by_person);
        goes_on && !(wanted && (one.attempt_try == 1 || counted(one)))
    };
    let new = |one: &&AttemptRecord| {
        store.attempt(one.project, one.id).is_none() && archived(one.project) && !store.is_aside(one)
    };
    match unit.attempts().filter(new).find(wrong) {
        None => Ok(()),
        Some(retry) => Err(format!("its project is archived, and it is to be tried again: {retry:?}")),
    }
}

/// Of an archived project nothing fires, and nothing waits but what a person wants. What was to be tried again is not when
/// it is archived; what was out then may come back.
pub(super) fn check_archived(store: &Store, unit: &Unit, uid: ProjectUid) -> Result<(), String> {
    let Some((project, state)) = store.project(uid).zip(store.state(uid)) else { return Ok(()) };
    if project.archived.is_none() {
        return Ok(());
    }
    let unasked = store.live_runs(uid).find(|run| run.state == RunState::Queued && !run.by_person);
    if state.next_fire.is_some() || unasked.is_some() {
        return Err(format!("project {} is archived: {state:?}, {unasked:?}", uid.0));
    }
    let declared = unit.puts().any(|record| matches!(record, Record::Project(one) if one.uid == uid));
    let retry = store.live_attempts(uid).find(|one| is_retry(store, one));
    // It was archived just now: nothing has come back since.
    if let Some(retry) =
        retry.filter(|_| declared && project.archived.as_ref().is_some_and(|at| at.time == unit.now.wall))
    {
        return Err(format!("project {} was archived, and {retry:?} is left", uid.0));
    }
    Ok(())
}
