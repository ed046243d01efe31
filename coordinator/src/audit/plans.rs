//! The event of a decision. That of a step of a recorded plan is its asker's, who may be long gone: a step that a
//! coordinator does after its start is audited as the one that was asked for.

use fleet::{
    Engine,
    input::{Decision, Reply},
    plan::PlanStep,
    record::{Change, Key},
};
use mirror_proto::{status::refusal_to_status, v1::AuditEvent};

use super::{changes, done, not_done, origin::Origin};

/// What asks for a plan.
const ACTION: &str = "ProjectService.ApplyProjects";

/// The event of a decision that `engine` has not applied yet; `None`: nobody asked for it.
#[must_use]
pub fn event(engine: &Engine, decision: &Decision, origin: Option<&Origin>) -> Option<AuditEvent> {
    let rows = || changes::of(engine, &decision.changes);
    let Some(origin) = origin else {
        let step = step_of(engine, decision)?;
        let origin = asker_of(step);
        return Some(match &decision.reply {
            Reply::Refused(refusal) => not_done(&origin, &refusal_to_status(refusal)),
            _ => done(&origin, rows()),
        });
    };
    let event = done(origin, rows());
    Some(match &decision.reply {
        Reply::Planned { counts, .. } => {
            let (created, changed, deleted) = (counts.created, counts.changed, counts.deleted);
            let message =
                format!("a plan was recorded: {created} to add, {changed} to change, {deleted} to delete");
            AuditEvent { message, ..event }
        }
        _ => event,
    })
}

/// The step that a decision does; `None`: it does none.
#[must_use]
pub fn step_of<'a>(engine: &'a Engine, decision: &Decision) -> Option<&'a PlanStep> {
    decision.changes.iter().find_map(|change| match change {
        Change::Delete(Key::PlanStep(number)) => engine.plan_step_at(*number),
        _ => None,
    })
}

fn asker_of(step: &PlanStep) -> Origin {
    let asker = &step.asker;
    Origin::new(&asker.who, &asker.from, ACTION).with_ids(asker.request_id.clone(), String::new())
}
