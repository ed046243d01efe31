//! Rules for projects that run after others, and for archived ones.

use fleet::{
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

/// Of an archived project nothing fires, and nothing waits but what a person wants.
pub(super) fn check_archived(store: &Store, uid: ProjectUid) -> Result<(), String> {
    let Some((project, state)) = store.project(uid).zip(store.state(uid)) else { return Ok(()) };
    if project.archived.is_none() {
        return Ok(());
    }
    let unasked = store.live_runs(uid).find(|run| run.state == RunState::Queued && !run.by_person);
    if state.next_fire.is_some() || unasked.is_some() {
        return Err(format!("project {} is archived: {state:?}, {unasked:?}", uid.0));
    }
    Ok(())
}
