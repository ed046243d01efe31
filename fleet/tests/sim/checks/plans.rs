//! Rules for recorded plans (I3): a plan is recorded whole or not at all; each of its steps is done once, in its place, or
//! left out and told; and what was recorded is carried out by whoever comes next.

use std::collections::{BTreeMap, BTreeSet};

use fleet::{
    id::ProjectUid,
    input::{Ask, Decision, Reply},
    plan::{Act, PlanStep},
    project::{ProjectRecord, ProjectSpec},
    record::{Change, Key, Record},
};

use super::Checks;
use crate::store::{Source, Store, Unit};

/// A plan that was recorded, and how many of its steps are over: the first ones.
#[derive(Debug, Clone)]
struct Book {
    steps: Vec<PlanStep>,
    over: usize,
}

/// The plans that are on disk, or were.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plans {
    books: BTreeMap<u64, Book>,
    /// Since the newest plan was judged nothing was decided but its own steps: none of them has a reason to fail.
    undisturbed: bool,
    /// A backup was put back, and nobody has begun from it yet.
    restored: bool,
}

/// While the fleet is frozen no plan is begun, and none goes on.
fn is_frozen(store: &Store) -> bool {
    matches!(store.live.get(&Key::Fleet), Some(Record::Fleet(fleet)) if fleet.frozen.is_some())
}

/// Steps that a change records.
fn recorded(change: &Change) -> Option<&PlanStep> {
    match change {
        Change::Put(Record::PlanStep(step)) => Some(step),
        _ => None,
    }
}

/// The place of a step that a change ends.
fn ended(change: &Change) -> Option<u32> {
    match change {
        Change::Delete(Key::PlanStep(number)) => Some(*number),
        Change::Put(Record::LeftOut(left_out)) => Some(left_out.number),
        _ => None,
    }
}

/// Whether the changes tell of a step that it was left out.
pub(crate) fn is_left_out(changes: &[Change]) -> bool {
    changes.iter().any(|change| matches!(change, Change::Put(Record::LeftOut(_))))
}

/// Whether the changes are a step that was done: it is what a person asked for, whenever that is.
pub(crate) fn is_step(changes: &[Change]) -> bool {
    changes.iter().any(|change| ended(change).is_some()) && !is_left_out(changes)
}

/// How many steps the changes record.
pub(crate) fn steps_recorded(changes: &[Change]) -> usize {
    changes.iter().filter_map(recorded).count()
}

/// A change that goes to the disk and is about something else than plans.
fn is_other(change: &Change) -> bool {
    let volatile = matches!(change, Change::Volatile(_));
    !volatile && recorded(change).is_none() && ended(change).is_none()
}

impl Plans {
    fn open(&self) -> Option<(u64, &Book)> {
        let (plan, book) = self.books.last_key_value()?;
        (book.over < book.steps.len()).then_some((*plan, book))
    }

    /// Whether a plan of more than one step is on the disk, and not all of it was done.
    pub(crate) fn is_cut(&self) -> bool {
        self.open().is_some_and(|(_, book)| book.steps.len() > 1)
    }

    /// A backup with these plans is put back.
    pub(super) fn put_back(&mut self, old: Self) {
        *self = Self { restored: true, ..old };
    }

    pub(super) fn restarted(&mut self) {
        self.undisturbed = false;
        self.restored = false;
    }

    /// Something was decided.
    pub(crate) fn decided(&mut self, source: Source, decision: &Decision) -> Result<(), String> {
        let changes = &decision.changes;
        if steps_recorded(changes) > 0 {
            self.undisturbed = true;
            return Ok(());
        }
        let ends = changes.iter().any(|change| ended(change).is_some());
        if ends && source != Source::Tick {
            return Err(format!("{source:?} ended a step of a plan: {changes:?}"));
        }
        let refused = matches!(decision.reply, Reply::Refused(_));
        if ends && refused != is_left_out(changes) {
            return Err(format!("a step was answered with {:?}: {changes:?}", decision.reply));
        }
        let was_so = self.undisturbed;
        self.undisturbed &= changes.is_empty() || (ends && !refused);
        if ends && refused && was_so {
            return Err(format!("nothing has changed since the plan was judged, and {:?}", decision.reply));
        }
        Ok(())
    }

    fn record(&mut self, store: &Store, unit: &Unit, steps: Vec<PlanStep>) -> Result<(), String> {
        let plan = steps[0].plan;
        let in_order =
            steps.iter().enumerate().all(|(at, step)| step.plan == plan && step.number as usize == at);
        let other = unit
            .changes
            .iter()
            .filter(|change| is_other(change))
            .find(|change| !matches!(change, Change::Put(Record::Fleet(_) | Record::Request(_))));
        let live = store.live.values().any(|record| matches!(record, Record::PlanStep(_)));
        if !in_order
            || is_frozen(store)
            || other.is_some()
            || unit.source != Source::Person
            || live
            || self.open().is_some()
        {
            return Err(format!("plan {plan} was recorded with {other:?}, in order: {in_order}: {unit:?}"));
        }
        match self.books.insert(plan, Book { steps, over: 0 }) {
            None => Ok(()),
            Some(old) => Err(format!("plan {plan} was recorded before: {old:?}")),
        }
    }

    fn end(&mut self, store: &Store, unit: &Unit, number: u32) -> Result<(), String> {
        let Some((plan, book)) = self.open() else {
            return Err(format!("step {number} ended, and no plan is open"));
        };
        if is_frozen(store) {
            return Err(format!("step {number} ended while the fleet is frozen: {unit:?}"));
        }
        let step = &book.steps[book.over];
        let stored = store.live.get(&Key::PlanStep(number));
        if step.number != number || stored != Some(&Record::PlanStep(Box::new(step.clone()))) {
            return Err(format!("step {number} ended, {step:?} is the next, and the disk has {stored:?}"));
        }
        let right = if is_left_out(&unit.changes) {
            !unit.changes.iter().any(is_other)
        } else {
            is_done(store, unit, &step.act)
        };
        if !right {
            return Err(format!("{step:?} became {unit:?}"));
        }
        if let Some(book) = self.books.get_mut(&plan) {
            book.over += 1;
        }
        Ok(())
    }
}

impl Checks {
    pub(super) fn check_plans(&mut self, store: &Store, unit: &Unit) -> Result<(), String> {
        let steps: Vec<PlanStep> = unit.changes.iter().filter_map(recorded).cloned().collect();
        if !steps.is_empty() {
            return self.plans.record(store, unit, steps);
        }
        let ends: Vec<u32> = unit.changes.iter().filter_map(ended).collect();
        match ends[..] {
            [] if unit.source == Source::Tick => changes_no_project(store, unit),
            [] => Ok(()),
            // Whoever puts a backup back may want the rest of it no more.
            [..] if unit.source == Source::Start && self.plans.restored => {
                self.plans.books.values_mut().for_each(|book| book.over = book.steps.len());
                Ok(())
            }
            [number] => self.plans.end(store, unit, number),
            [..] => Err(format!("several steps in one unit: {unit:?}")),
        }
    }

    /// A plan that somebody was told of is recorded, and what is not on the disk any more was done, or told; at the
    /// `end` nothing of it is left.
    pub(crate) fn check_plans_kept(
        &self,
        store: &Store,
        promised: &BTreeSet<u64>,
        end: bool,
    ) -> Result<(), String> {
        let unknown = promised.iter().find(|plan| !self.plans.books.contains_key(plan));
        if let Some(plan) = unknown {
            return Err(format!("plan {plan} was promised, and was never recorded"));
        }
        let open = self.plans.open().map(|(_, book)| &book.steps[book.over..]).unwrap_or_default();
        let stored = store.live.values().filter_map(|record| match record {
            Record::PlanStep(step) => Some(&**step),
            _ => None,
        });
        if !stored.eq(open) || (end && !open.is_empty()) {
            return Err(format!("of the plans {open:?} is left, at the end: {end}, and the disk has others"));
        }
        Ok(())
    }
}

/// Whether the unit does this.
fn is_done(store: &Store, unit: &Unit, act: &Act) -> bool {
    let uid = act.project();
    let Some(old) = store.project(uid) else {
        let Act::Create { name, spec, paused, archived, .. } = act else { return false };
        return put(unit, uid).is_some_and(|new| {
            new.name.as_str() == name.as_str()
                && is_same(&new.spec, spec)
                && new.paused.as_ref().map(|pause| &pause.reason) == paused.as_ref().map(|one| &one.reason)
                && new.archived.as_ref().map(|archive| &archive.reason) == archived.as_ref()
        });
    };
    let new = put(unit, uid);
    let changed = new.filter(|new| new.revision == old.revision + 1);
    match act {
        Act::Create { .. } => false,
        Act::Change { revision, spec, .. } => {
            *revision == old.revision && changed.is_some_and(|new| is_same(&new.spec, spec))
        }
        Act::Pause { revision, pausing, .. } => {
            let pause = changed.and_then(|new| new.paused.as_ref());
            *revision == old.revision && pause.is_some_and(|pause| pause.reason == pausing.reason)
        }
        Act::Resume { revision, .. } => {
            let idle = old.paused.is_none() && new.is_none();
            *revision == old.revision && (idle || changed.is_some_and(|new| new.paused.is_none()))
        }
        Act::Archive { revision, .. } => {
            let idle = old.archived.is_some() && new.is_none();
            *revision == old.revision && (idle || changed.is_some_and(|new| new.archived.is_some()))
        }
        Act::Unarchive { revision, .. } => {
            let idle = old.archived.is_none() && new.is_none();
            *revision == old.revision && (idle || changed.is_some_and(|new| new.archived.is_none()))
        }
        Act::Delete { revision, .. } => {
            let gone = |change: &Change| matches!(change, Change::Delete(Key::Project(one)) if *one == uid);
            *revision == old.revision && unit.changes.iter().any(gone)
        }
    }
}

fn put(unit: &Unit, uid: ProjectUid) -> Option<&ProjectRecord> {
    unit.puts().find_map(|record| match record {
        Record::Project(project) if project.uid == uid => Some(&**project),
        _ => None,
    })
}

/// The same but for the place in the spread, which is the engine's.
fn is_same(one: &ProjectSpec, other: &ProjectSpec) -> bool {
    let placed = |spec: &ProjectSpec| {
        let mut spec = spec.clone();
        spec.schedule.phase_seconds = 0;
        spec
    };
    placed(one) == placed(other)
}

/// What time alone brings declares nothing; but pauses end.
fn changes_no_project(store: &Store, unit: &Unit) -> Result<(), String> {
    for change in &unit.changes {
        let wrong = match change {
            Change::Put(Record::Project(new)) => store.project(new.uid).is_none_or(|old| {
                let until = old.paused.as_ref().and_then(|pause| pause.until);
                let ends = until.is_some_and(|until| until <= unit.now.wall);
                (&old.name, &old.spec, &old.archived) != (&new.name, &new.spec, &new.archived)
                    || (new.paused != old.paused && !(ends && new.paused.is_none()))
            }),
            Change::Delete(Key::Project(_)) => true,
            Change::Put(_) | Change::Delete(_) | Change::Volatile(_) => false,
        };
        if wrong {
            return Err(format!("nobody asked for it: {change:?}"));
        }
    }
    Ok(())
}

/// All that was asked for is in the plan, and nothing else.
pub(super) fn check_recorded(ask: &Ask, decision: &Decision) -> Result<(), String> {
    let Ask::Apply(plan) = ask else { return Ok(()) };
    let steps = decision.changes.iter().filter_map(recorded);
    if steps_recorded(&decision.changes) == 0 || steps.map(|step| &step.act).eq(&plan.acts) {
        return Ok(());
    }
    Err(format!("{:?} was recorded as {:?}", plan.acts, decision.changes))
}
