//! Steps of plans that are being carried out, and those that were left out.

use fleet::{
    id::ProjectUid,
    plan::{Act, Asker, LeftOut, Pausing, PlanCounts, PlanStep},
    record::Record,
    time::Wall,
};

use super::{
    Bad, Read, choice, name, need, part,
    project::{read_spec, write_spec},
    project_uid,
};
use crate::{
    convert::enums::stored,
    store::{self, plan_step::Act as StoredAct},
};

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

pub(super) fn left_out(left_out: &LeftOut) -> store::PlanStep {
    let LeftOut { plan, number, deed, project, name, why } = left_out;
    store::PlanStep {
        plan: Some(*plan),
        number: Some(*number),
        act: Some(StoredAct::LeftOut(store::LeftOut {
            project: Some(project.0),
            name: Some(name.clone()),
            deed: Some(stored::deed::number(*deed)),
            why: Some(why.clone()),
        })),
        ..store::PlanStep::default()
    }
}

/// A step, or what was left out in its place.
pub(super) fn read(message: store::PlanStep) -> Read<Record> {
    let Some(StoredAct::LeftOut(act)) = message.act else {
        return read_step(message).map(|step| Record::PlanStep(Box::new(step)));
    };
    let (plan, number) = (need("plan", message.plan)?, need("number", message.number)?);
    part("left_out", Some(act), |act| {
        Ok(Record::LeftOut(LeftOut {
            plan,
            number,
            deed: choice("deed", act.deed, stored::deed::read)?,
            project: project_uid("project", act.project)?,
            name: need("name", act.name)?,
            why: need("why", act.why)?,
        }))
    })
}

fn read_step(message: store::PlanStep) -> Read<PlanStep> {
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
        StoredAct::LeftOut(_) => return Err(Bad::new("left_out", "is no act")),
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
