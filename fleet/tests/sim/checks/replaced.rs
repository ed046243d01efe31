//! Rules for one agent in another's place: all of it or nothing, and nothing serves an empty tree.

use fleet::{
    Engine,
    id::AgentUid,
    input::{AgentReplacement, Decision, Reply},
    project::{Pick, ProjectRecord},
    record::{Change, Record},
};

/// What was decided, before it is applied.
pub(super) fn check_replacement(
    engine: &Engine,
    asked: &AgentReplacement,
    decision: &Decision,
) -> Result<(), String> {
    let wrong = |what: String| Err(format!("{asked:?}: {what}"));
    if asked.validate_only || !matches!(decision.reply, Reply::Replaced(_)) {
        return if decision.changes.is_empty() { Ok(()) } else { wrong("changed something".to_owned()) };
    }
    for project in engine.projects_by_name().map(|project| &project.record) {
        let renamed = decision.changes.iter().any(|change| {
            matches!(change, Change::Put(Record::Project(new)) if new.uid == project.uid && !names(new, asked.old))
        });
        if names(project, asked.old) && !renamed {
            return wrong(format!("project {} still names the old agent", project.name));
        }
    }
    for change in &decision.changes {
        match change {
            Change::Put(Record::Placement(placement)) => {
                let old =
                    engine.project(placement.project).and_then(|one| one.placements.get(&placement.agent));
                let had = old.and_then(|old| old.have_tree);
                if placement.have_tree != had {
                    return wrong(format!("{placement:?} had {had:?}"));
                }
            }
            Change::Put(Record::ProjectState(state)) => {
                let served = engine.project(state.uid).and_then(|project| project.state.tree);
                if state.tree != served {
                    return wrong(format!("served {served:?} before, and {state:?} now"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn names(project: &ProjectRecord, agent: AgentUid) -> bool {
    let placement = &project.spec.placement;
    placement.origins.iter().any(|target| target.agent == agent)
        || placement.replicas.iter().any(|replicas| replicas.pick == Pick::Agent(agent))
}
