//! Plans over many projects: judged whole on a copy, recorded in one commit, carried out by ticks, one step in each.
//!
//! ```text
//!   apply_plan   every act in its order on a copy of the fleet; the first that is refused refuses all
//!                ─▶ the steps are stored, and the asker has an answer
//!   plan_step    the first step that is left: done and removed in one commit
//! ```
//!
//! While steps are left, people change no projects and agents besides: so a step finds what it was judged on. What the
//! fleet itself changed meanwhile can still make one impossible; it is left out, and told.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    people::{Outcome, remember},
    state::Engine,
};
use crate::{
    id::ProjectUid,
    input::{Ask, Decision, Reply, UserAsk},
    plan::{Act, LeftOut, PLAN_STEPS_MAX, PlanCounts, PlanRequest, PlanStep},
    project::Pause,
    record::{Answer, Change, FleetRecord, Key, Record, Volatile},
    refusal::{Refusal, RefusalCode, Violation},
    time::Now,
};

/// The plan that is being carried out, and what was left out of the newest one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Plans {
    pub(super) steps: BTreeMap<u32, PlanStep>,
    pub(super) left_out: Vec<LeftOut>,
}

impl Engine {
    /// The plan that is being carried out, and how many steps of it are left.
    #[must_use]
    pub fn open_plan(&self) -> Option<(u64, usize)> {
        self.plans.steps.values().next().map(|step| (step.plan, self.plans.steps.len()))
    }

    /// A step that is left, by its place.
    #[must_use]
    pub fn plan_step_at(&self, number: u32) -> Option<&PlanStep> {
        self.plans.steps.get(&number)
    }

    /// What was left out of a plan since this coordinator started; that of the newest plan alone is kept.
    pub fn left_out_of(&self, plan: u64) -> impl Iterator<Item = &LeftOut> {
        self.plans.left_out.iter().filter(move |one| one.plan == plan)
    }

    /// The uid that the `index`th creation of the next plan gets: the plan itself has the one before them.
    #[must_use]
    pub fn uid_after(&self, index: u64) -> ProjectUid {
        ProjectUid(self.next_uid() + 1 + index)
    }

    /// What follows from one act of a plan at once.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn act(&self, now: Now, by: &str, act: &Act) -> Outcome {
        match act.clone() {
            Act::Create { uid, name, spec, paused, .. } => {
                let pause = |reason| Pause { by: by.to_owned(), time: now.wall, reason, until: None };
                self.declare(now, uid, name, *spec, paused.map(pause))
            }
            Act::Change { project, revision, spec } => {
                self.update_project(now, project, *spec, revision, false)
            }
            Act::Pause { project, revision, reason } => {
                self.pause(now, by.to_owned(), project, reason, None, Some(revision))
            }
            Act::Resume { project, revision } => self.resume(now, project, Some(revision)),
            Act::Delete { project, revision } => {
                self.delete_project_of(now, by, project, Some(revision), false, false)
            }
        }
    }

    /// Records a plan, or refuses all of it.
    pub(super) fn apply_plan(&self, now: Now, by: &str, plan: PlanRequest) -> Outcome {
        if let Some(reply) = self.remembered(now, plan.request.as_ref())? {
            return Ok(Decision { reply, ..Decision::nothing() });
        }
        if plan.acts.len() > PLAN_STEPS_MAX {
            let text = format!("{} steps; at most {PLAN_STEPS_MAX} are possible at once", plan.acts.len());
            return Err(Refusal::invalid("nothing applied", vec![Violation::new("projects", text)]));
        }
        let id = self.next_uid();
        let counts = counts(&plan.acts);
        let mut trial = self.clone();
        let reserved = FleetRecord { next_uid: id + 1 + u64::from(counts.created), ..self.fleet.clone() };
        trial.apply(now, &[Change::Put(Record::Fleet(reserved.clone()))]);
        let mut created = 0;
        for act in &plan.acts {
            if let Act::Create { uid, .. } = act {
                if *uid != self.uid_after(created) {
                    return Err(stale());
                }
                created += 1;
            }
            let decision = trial.act(now, by, act)?;
            trial.apply(now, &decision.changes);
        }
        let reply = Reply::Planned { plan: id, counts };
        if plan.acts.is_empty() {
            let mut decision = Decision::nothing();
            remember(now, plan.request, Answer::Plan { plan: id, counts }, &mut decision);
            return Ok(Decision { reply, ..decision });
        }
        let step = |(number, act)| {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let (by, asker) = (by.to_owned(), plan.asker.clone());
            Change::Put(Record::PlanStep(Box::new(PlanStep { plan: id, number, by, asker, act })))
        };
        let steps = plan.acts.into_iter().enumerate().map(step);
        let changes = std::iter::once(Change::Put(Record::Fleet(reserved))).chain(steps).collect();
        let mut decision = Decision { changes, reply, ..Decision::nothing() };
        remember(now, plan.request, Answer::Plan { plan: id, counts }, &mut decision);
        Ok(decision)
    }

    /// Does the first step that is left.
    pub(super) fn plan_step(&self, now: Now, step: &PlanStep) -> Decision {
        let done = Change::Delete(Key::PlanStep(step.number));
        match self.act(now, &step.by, &step.act) {
            Ok(mut decision) => {
                decision.changes.push(done);
                decision
            }
            Err(refusal) => self.leave_out(step, refusal),
        }
    }

    /// Gives up a step: the plan goes on without it.
    #[must_use]
    pub fn leave_out(&self, step: &PlanStep, refusal: Refusal) -> Decision {
        let known = self.projects.get(&step.act.project()).map(|one| one.record.name.to_string());
        let project = match &step.act {
            Act::Create { name, .. } => name.to_string(),
            Act::Change { .. } | Act::Pause { .. } | Act::Resume { .. } | Act::Delete { .. } => {
                known.unwrap_or_default()
            }
        };
        let left_out = LeftOut { plan: step.plan, project, why: refusal.to_string() };
        let done = Change::Delete(Key::PlanStep(step.number));
        let changes = vec![done, Change::Volatile(Volatile::LeftOut(left_out))];
        Decision { changes, reply: Reply::Refused(refusal), ..Decision::nothing() }
    }

    /// While a plan is carried out nobody else declares anything.
    pub(super) fn while_planned(&self, ask: &Ask) -> Result<(), Refusal> {
        let Some((_, left)) = self.open_plan().filter(|_| declares(ask)) else { return Ok(()) };
        let text = format!(
            "a plan over many projects is being carried out, {left} steps are left; try again in a moment"
        );
        Err(Refusal::new(RefusalCode::ResourceExhausted, "PLAN_OPEN", text))
    }
}

/// The plan was made on what is no longer so.
fn stale() -> Refusal {
    let text = "the fleet was changed since the plan was made; look at it again (mirrorctl plan)";
    Refusal::new(RefusalCode::Aborted, "STALE_PLAN", text)
}

/// Whether it changes what the steps of a plan are judged on. What is new is one that does, until somebody says otherwise.
fn declares(ask: &Ask) -> bool {
    if let Ask::User(ask) = ask {
        // A plan may name the user as an owner.
        return matches!(ask, UserAsk::Delete { .. });
    }
    !matches!(
        ask,
        Ask::Run { .. }
            | Ask::Push(_)
            | Ask::CreatePushToken { .. }
            | Ask::DeletePushToken { .. }
            | Ask::Approve { .. }
            | Ask::CancelRun { .. }
            | Ask::Freeze { .. }
            | Ask::Thaw
            | Ask::Drain { .. }
            | Ask::CreateJoinToken { .. }
            | Ask::DeleteJoinToken { .. }
            | Ask::SetUpstream { .. }
    )
}

/// How many projects these acts are about: each is counted once.
fn counts(acts: &[Act]) -> PlanCounts {
    let mut counts = PlanCounts::default();
    let mut seen = BTreeSet::new();
    for act in acts.iter().filter(|act| seen.insert(act.project())) {
        *match act {
            Act::Create { .. } => &mut counts.created,
            Act::Change { .. } | Act::Pause { .. } | Act::Resume { .. } => &mut counts.changed,
            Act::Delete { .. } => &mut counts.deleted,
        } += 1;
    }
    counts
}
