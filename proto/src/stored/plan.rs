//! Steps of plans that are being carried out.

use fleet::{
    id::ProjectUid,
    plan::{Act, Asker, Pausing, PlanCounts, PlanStep},
    time::Wall,
};

use super::{
    Read, name, need, part,
    project::{read_spec, write_spec},
    project_uid,
};
use crate::store::{self, plan_step::Act as StoredAct};

pub(super) fn step(step: &PlanStep) -> store::PlanStep {
    let PlanStep { plan, number, by, asker: Asker { who, from, request_id }, act } = step;
    store::PlanStep {
        plan: Some(*plan),
        number: Some(*number),
        by: Some(by.clone()),
        who: Some(who.clone()),
        from: Some(from.clone()),
        request_id: Some(request_id.clone()),
        act: Some(write_act(act)),
    }
}

fn write_act(act: &Act) -> StoredAct {
    let at = |project: &ProjectUid, revision: &u64| store::ProjectAtRevision {
        project: Some(project.0),
        revision: Some(*revision),
    };
    match act {
        Act::Create { uid, name, spec, paused, archived } => StoredAct::Create(store::CreateAct {
            uid: Some(uid.0),
            name: Some(name.to_string()),
            spec: Some(write_spec(spec)),
            paused: paused.as_ref().map(|pausing| pausing.reason.clone()),
            paused_until_ms: paused.as_ref().and_then(|pausing| pausing.until).map(|until| until.0),
            archived: archived.clone(),
        }),
        Act::Change { project, revision, spec } => StoredAct::Change(store::ChangeAct {
            at: Some(at(project, revision)),
            spec: Some(write_spec(spec)),
        }),
        Act::Pause { project, revision, pausing: Pausing { reason, until } } => {
            StoredAct::Pause(store::PauseAct {
                at: Some(at(project, revision)),
                reason: Some(reason.clone()),
                until_ms: until.map(|until| until.0),
            })
        }
        Act::Resume { project, revision } => StoredAct::Resume(at(project, revision)),
        Act::Archive { project, revision, reason } => StoredAct::Archive(store::ArchiveAct {
            at: Some(at(project, revision)),
            reason: Some(reason.clone()),
        }),
        Act::Unarchive { project, revision } => StoredAct::Unarchive(at(project, revision)),
        Act::Delete { project, revision } => StoredAct::Delete(at(project, revision)),
    }
}

pub(super) fn read_step(message: store::PlanStep) -> Read<PlanStep> {
    Ok(PlanStep {
        plan: need("plan", message.plan)?,
        number: need("number", message.number)?,
        by: need("by", message.by)?,
        asker: Asker {
            who: need("who", message.who)?,
            from: need("from", message.from)?,
            request_id: need("request_id", message.request_id)?,
        },
        act: part("act", message.act, read_act)?,
    })
}

fn read_act(act: StoredAct) -> Read<Act> {
    let at = |at: store::ProjectAtRevision| {
        Ok((project_uid("project", at.project)?, need("revision", at.revision)?))
    };
    Ok(match act {
        StoredAct::Create(act) => Act::Create {
            uid: project_uid("uid", act.uid)?,
            name: name("name", act.name)?,
            spec: Box::new(part("spec", act.spec, read_spec)?),
            paused: act.paused.map(|reason| Pausing { reason, until: act.paused_until_ms.map(Wall) }),
            archived: act.archived,
        },
        StoredAct::Change(act) => {
            let (project, revision) = part("at", act.at, at)?;
            Act::Change { project, revision, spec: Box::new(part("spec", act.spec, read_spec)?) }
        }
        StoredAct::Pause(act) => {
            let (project, revision) = part("at", act.at, at)?;
            let pausing = Pausing { reason: need("reason", act.reason)?, until: act.until_ms.map(Wall) };
            Act::Pause { project, revision, pausing }
        }
        StoredAct::Resume(act) => {
            let (project, revision) = at(act)?;
            Act::Resume { project, revision }
        }
        StoredAct::Archive(act) => {
            let (project, revision) = part("at", act.at, at)?;
            Act::Archive { project, revision, reason: need("reason", act.reason)? }
        }
        StoredAct::Unarchive(act) => {
            let (project, revision) = at(act)?;
            Act::Unarchive { project, revision }
        }
        StoredAct::Delete(act) => {
            let (project, revision) = at(act)?;
            Act::Delete { project, revision }
        }
    })
}

pub(super) fn answer(plan: u64, counts: PlanCounts) -> store::PlanAnswer {
    let PlanCounts { created, changed, deleted } = counts;
    store::PlanAnswer {
        plan: Some(plan),
        created: Some(created),
        changed: Some(changed),
        deleted: Some(deleted),
    }
}

pub(super) fn read_answer(message: store::PlanAnswer) -> Read<(u64, PlanCounts)> {
    let counts = PlanCounts {
        created: need("created", message.created)?,
        changed: need("changed", message.changed)?,
        deleted: need("deleted", message.deleted)?,
    };
    Ok((need("plan", message.plan)?, counts))
}
