//! The event of a decision. That of a step of a recorded plan is its asker's, who may be long gone: a step that a
//! coordinator does after its start is audited as the one that was asked for.

use fleet::{
    Engine,
    input::{Decision, Reply},
    plan::PlanStep,
    record::{Change, Key, Record},
};
use mirror_proto::{convert, status::refusal_to_status, v1::AuditEvent};

use super::{COORDINATOR, RESTORED, changes, done, happened, not_done, origin::Origin};

/// What asks for a plan.
const ACTION: &str = "ProjectService.ApplyProjects";

/// The event of a decision that `engine` has not applied yet; `None`: nobody asked for it.
#[must_use]
pub fn event(engine: &Engine, decision: &Decision, origin: Option<&Origin>) -> Option<AuditEvent> {
    let rows = || changes::of(engine, &decision.changes);
    let Some(origin) = origin else {
        let step = step_of(engine, decision)?;
        let origin = asker_of(step);
        if let Some(name) = engine.name_in(&step.act) {
            origin.set_resource(convert::project_name(name));
        }
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

/// Projects that one event names.
const NAMES_MAX: usize = 20;

/// What a start gave up of a plan, as the store holds an older state than there was; `None`: nothing.
#[must_use]
pub fn dropped(changes: &[Change]) -> Option<AuditEvent> {
    let left_out = changes.iter().filter_map(|change| match change {
        Change::Put(Record::LeftOut(left_out)) => Some(left_out.name.as_str()),
        _ => None,
    });
    let names: Vec<&str> = left_out.collect();
    let shown = names.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = if names.len() > NAMES_MAX { ", ..." } else { "" };
    let text = format!(
        "a plan over many projects was being carried out in that state; what was left of it is dropped, {} in all: {shown}{more}",
        names.len()
    );
    (!names.is_empty()).then(|| happened(RESTORED, COORDINATOR, "", changes::FLEET, text))
}

/// The step that a decision does or leaves out; `None`: none.
#[must_use]
pub fn step_of<'a>(engine: &'a Engine, decision: &Decision) -> Option<&'a PlanStep> {
    decision.changes.iter().find_map(|change| match change {
        Change::Delete(Key::PlanStep(number)) => engine.plan_step_at(*number),
        Change::Put(Record::LeftOut(left_out)) => engine.plan_step_at(left_out.number),
        _ => None,
    })
}

fn asker_of(step: &PlanStep) -> Origin {
    let asker = &step.asker;
    Origin::new(&asker.who, &asker.from, ACTION).with_ids(asker.request_id.clone(), String::new())
}
