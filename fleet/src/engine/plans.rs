//! Plans over many projects: judged whole on a copy, recorded in one commit, carried out by ticks, one step in each.
//!
//! ```text
//!   apply_plan   every act in its order on a copy of the fleet; the first that is refused refuses all
//!                ─▶ the steps are stored, and the asker has an answer
//!   plan_step    the first step that is left: done and removed in one commit;
//!                what is due takes turns with them, and while the fleet is frozen none is done
//! ```
//!
//! While steps are left, people declare nothing besides: so a step finds what it was judged on. What must not wait, as
//! the revocation of a stolen key, is let through, and the fleet itself goes on. A step that became impossible by it is left
//! out, and told: its reason is stored in its place until the next plan is recorded.

use std::collections::{BTreeMap, BTreeSet};

use super::{people::Outcome, requests::remember, state::Engine};
use crate::{
    id::{Name, ProjectUid},
    input::{Ask, Decision, Reply, RequestKey, UserAsk},
    plan::{
        Act, LeftOut, PLAN_STEPS_MAX, Pausing, PlanCounts, PlanRequest, PlanStep, Progress, WHY_CHARS_MAX,
    },
    project::{Archive, Pause},
    record::{Answer, Change, FleetRecord, Key, Record},
    refusal::{Refusal, RefusalCode, Violation},
    time::Now,
};

/// The plan of a request that changes nothing: uids begin with 1.
const NO_PLAN: u64 = 0;

/// The plan that is being carried out, and what was left out of the newest one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Plans {
    steps: BTreeMap<u32, PlanStep>,
    left_out: BTreeMap<u32, LeftOut>,
    /// The projects of what was left out.
    incomplete: BTreeSet<ProjectUid>,
    /// A step was done, and nothing else since.
    others_turn: bool,
}

impl Plans {
    pub(super) fn put(&mut self, step: &PlanStep) {
        self.remove(step.number);
        self.steps.insert(step.number, step.clone());
    }

    pub(super) fn leave_out(&mut self, left_out: &LeftOut) {
        self.remove(left_out.number);
        self.incomplete.insert(left_out.project);
        self.left_out.insert(left_out.number, left_out.clone());
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.others_turn |= self.steps.remove(&number).is_some();
        if self.left_out.remove(&number).is_some() && self.left_out.is_empty() {
            self.incomplete.clear();
        }
    }

    pub(super) fn took_turn(&mut self) {
        self.others_turn = false;
    }

    pub(super) fn is_others_turn(&self) -> bool {
        self.others_turn
    }

    pub(super) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let steps = self.steps.values().cloned().map(|step| Record::PlanStep(Box::new(step)));
        steps.chain(self.left_out.values().cloned().map(Record::LeftOut))
    }
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

    /// How far a plan has got that was recorded once.
    #[must_use]
    pub fn progress(&self, plan: u64) -> Progress<'_> {
        if let Some((_, left)) = self.open_plan().filter(|(open, _)| *open == plan) {
            return Progress::Open { left, frozen: self.fleet.frozen.is_some() };
        }
        let left_out: Vec<&LeftOut> = self.plans.left_out.values().filter(|one| one.plan == plan).collect();
        if left_out.is_empty()
            && plan != NO_PLAN
            && self.fleet.forgotten_plan.is_some_and(|last| plan <= last)
        {
            return Progress::Forgotten;
        }
        Progress::Ended(left_out)
    }

    /// The step that comes next, unless all are held.
    pub(super) fn step_due(&self) -> Option<&PlanStep> {
        self.plans.steps.values().next().filter(|_| self.fleet.frozen.is_none())
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
            Act::Create { uid, name, spec, paused, archived } => {
                let (by, time) = (|| by.to_owned(), now.wall);
                let paused = paused.map(|Pausing { reason, until }| Pause { by: by(), time, reason, until });
                let archived = archived.map(|reason| Archive { by: by(), time, reason });
                self.declare(now, uid, name, *spec, paused, archived)
            }
            Act::Change { project, revision, spec } => {
                self.update_project(now, project, *spec, revision, false)
            }
            Act::Pause { project, revision, pausing: Pausing { reason, until } } => {
                self.pause(now, by.to_owned(), project, reason, until, Some(revision))
            }
            Act::Resume { project, revision } => self.resume(now, project, Some(revision)),
            Act::Archive { project, revision, reason } => {
                self.archive(now, by.to_owned(), project, reason, Some(revision))
            }
            Act::Unarchive { project, revision } => self.unarchive(now, project, Some(revision)),
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
        let counts = PlanCounts::of(plan.acts.iter().map(|act| (act.project(), act.deed())));
        if plan.acts.is_empty() {
            let reply = Reply::Planned { plan: NO_PLAN, counts };
            let mut decision = Decision { reply, ..Decision::nothing() };
            remember(now, plan.request, Answer::Plan { plan: NO_PLAN, counts }, &mut decision);
            return Ok(decision);
        }
        if self.fleet.frozen.is_some() {
            let text =
                "nothing applied: the fleet is frozen, and no plan is begun before the thaw (mirrorctl thaw)";
            return Err(Refusal::precondition("FLEET_FROZEN", text));
        }
        let id = self.next_uid();
        let mut trial = self.clone();
        // What was left out of the plan before it is kept no longer.
        let forgotten = self.plans.left_out.values().next().map(|one| one.plan);
        let reserved = FleetRecord {
            next_uid: id + 1 + u64::from(counts.created),
            forgotten_plan: forgotten.or(self.fleet.forgotten_plan),
            ..self.fleet.clone()
        };
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
        let steps = u32::try_from(plan.acts.len()).unwrap_or(u32::MAX);
        let old =
            self.plans.left_out.range(steps..).map(|(number, _)| Change::Delete(Key::PlanStep(*number)));
        let old: Vec<Change> = old.collect();
        let step = |(number, act)| {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let (by, asker) = (by.to_owned(), plan.asker.clone());
            Change::Put(Record::PlanStep(Box::new(PlanStep { plan: id, number, by, asker, act })))
        };
        let steps = plan.acts.into_iter().enumerate().map(step);
        let changes = std::iter::once(Change::Put(Record::Fleet(reserved))).chain(steps).chain(old).collect();
        let mut decision = Decision { changes, reply, ..Decision::nothing() };
        remember(now, plan.request, Answer::Plan { plan: id, counts }, &mut decision);
        Ok(decision)
    }

    /// Does the first step that is left.
    pub(super) fn plan_step(&self, now: Now, step: &PlanStep) -> Decision {
        if self.plans.incomplete.contains(&step.act.project()) {
            // Its revision may be that of somebody else's change now.
            return self.leave_out(step, part_left_out());
        }
        match self.act(now, &step.by, &step.act) {
            Ok(mut decision) => {
                decision.changes.push(Change::Delete(Key::PlanStep(step.number)));
                decision
            }
            Err(refusal) => self.leave_out(step, refusal),
        }
    }

    /// Gives up a step: the plan goes on without it.
    #[must_use]
    pub fn leave_out(&self, step: &PlanStep, refusal: Refusal) -> Decision {
        let changes = vec![self.left_out(step, &refusal)];
        Decision { changes, reply: Reply::Refused(refusal), ..Decision::nothing() }
    }

    fn left_out(&self, step: &PlanStep, refusal: &Refusal) -> Change {
        let PlanStep { plan, number, act, .. } = step;
        Change::Put(Record::LeftOut(LeftOut {
            plan: *plan,
            number: *number,
            deed: act.deed(),
            project: act.project(),
            name: self.name_in(act).map(Name::to_string).unwrap_or_default(),
            why: refusal.to_string().chars().take(WHY_CHARS_MAX).collect(),
        }))
    }

    /// What the project of an act is called; `None`: it is gone.
    #[must_use]
    pub fn name_in<'a>(&'a self, act: &'a Act) -> Option<&'a Name> {
        if let Act::Create { name, .. } = act {
            return Some(name);
        }
        self.projects.get(&act.project()).map(|one| &one.record.name)
    }

    /// All steps that are left are given up: an older state was put back.
    pub(super) fn plan_dropped(&self) -> impl Iterator<Item = Change> + '_ {
        let text = "not done: a backup, or an older state of the store, was put back while the plan was being carried out";
        let refusal = Refusal::new(RefusalCode::Aborted, "PLAN_DROPPED", text);
        self.plans.steps.values().map(move |step| self.left_out(step, &refusal))
    }

    /// While a plan is carried out nobody else declares anything. What was done before it has its answer.
    pub(super) fn while_planned(&self, now: Now, ask: &Ask) -> Result<(), Refusal> {
        let Some((_, left)) = self.open_plan().filter(|_| declares(ask)) else { return Ok(()) };
        if !matches!(self.remembered(now, request_of(ask)), Ok(None)) {
            return Ok(());
        }
        let text = if self.fleet.frozen.is_some() {
            format!(
                "{left} steps of a plan over many projects are held while the fleet is frozen; they go on at the thaw \
                 (mirrorctl thaw)"
            )
        } else {
            format!(
                "a plan over many projects is being carried out, {left} steps are left; try again in a moment"
            )
        };
        Err(Refusal::new(RefusalCode::ResourceExhausted, "PLAN_OPEN", text))
    }
}

/// What was to be done to the project is not done in part.
fn part_left_out() -> Refusal {
    let text = "not done: another step of this project was left out";
    Refusal::new(RefusalCode::Aborted, "STEP_LEFT_OUT", text)
}

/// The id under which the answer to it is remembered.
fn request_of(ask: &Ask) -> Option<&RequestKey> {
    if let Ask::Apply(plan) = ask {
        return plan.request.as_ref();
    }
    let (Ask::CreateProject { request, .. } | Ask::CreateAgent { request, .. }) = ask else { return None };
    request.as_ref()
}

/// The plan was made on what is no longer so.
fn stale() -> Refusal {
    let text = "the fleet was changed since the plan was made; look at it again (mirrorctl plan)";
    Refusal::new(RefusalCode::Aborted, "STALE_PLAN", text)
}

/// Whether it changes what the steps of a plan are judged on, and can wait. What is new is one that does, until somebody
/// says otherwise.
fn declares(ask: &Ask) -> bool {
    if let Ask::User(ask) = ask {
        // A plan may name the user as an owner.
        return matches!(ask, UserAsk::Delete { .. });
    }
    if let Ask::ReplaceAgent { replacement, .. } = ask {
        return replacement.revoke.is_none();
    }
    !matches!(
        ask,
        Ask::RevokeAgent { .. }
            | Ask::Pause { .. }
            | Ask::Resume { .. }
            | Ask::Archive { .. }
            | Ask::Run { .. }
            | Ask::Push(_)
            | Ask::CreatePushToken(_)
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
