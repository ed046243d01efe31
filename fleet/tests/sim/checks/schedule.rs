//! Rules for what a project's clock and counters may do: each fire at most once, none lost, jitter, catch-up
//! and overlap by the rules; and no tree that no origin made.

use std::time::Duration;

use fleet::{
    defaults,
    id::ProjectUid,
    project::{NextFire, ProjectRecord, ProjectState},
    record::Record,
    run::RunState,
    schedule::{Cadence, IntervalFrom, OverlapPolicy, Schedule},
    time::{Now, Wall},
};

use super::Checks;
use crate::store::{Source, Store, Unit};

impl Checks {
    pub(super) fn check_states(&mut self, store: &Store, unit: &Unit) -> Result<(), String> {
        check_phases(store, unit)?;
        self.note_schedules(store, unit);
        self.note_alone(store, unit);
        for new in unit.states() {
            let fresh = ProjectState::new(new.uid);
            let old = store.state(new.uid).unwrap_or(&fresh);
            let wrong = |what: &str| Err(format!("project {}: {what}: from {old:?} to {new:?}", new.uid.0));
            if new.wanted < old.wanted || new.taken < old.taken || new.missed_fires < old.missed_fires {
                return wrong("counts backwards");
            }
            if new.tree != old.tree {
                let made = unit.runs().find(|run| Some(run.id) == new.tree);
                if !made.is_some_and(|run| super::units::tree_was_made(store, unit, run)) {
                    return wrong("serves a tree that no origin made");
                }
            }
            if new.wanted > old.wanted {
                self.check_trigger(unit, old, new)?;
            }
            if let Some(project) = store.project(new.uid) {
                self.check_fire(store, unit, project, old, new)?;
            }
        }
        Ok(())
    }

    /// I2: an accepted trigger has a waiting run in the same commit.
    fn check_trigger(&mut self, unit: &Unit, old: &ProjectState, new: &ProjectState) -> Result<(), String> {
        let run = unit.runs().find(|run| run.project == new.uid && run.state == RunState::Queued);
        match run {
            Some(run) if new.wanted == old.wanted + 1 => {
                self.wanted.insert(run.id, (new.uid, new.wanted));
                Ok(())
            }
            // What an agent ran alone is entered as it is found, and wants nothing more.
            Some(_) | None if unit.runs().any(|run| run.project == new.uid && run.trigger.autonomous) => {
                Ok(())
            }
            // An adopted run stands for triggers that the store has forgotten.
            Some(_) | None if self.restored && unit.source == Source::Hello => Ok(()),
            Some(_) | None => {
                Err(format!("project {}: a trigger was accepted and no run waits for it: {new:?}", new.uid.0))
            }
        }
    }

    /// A schedule that a person changes is another schedule: its fires are counted anew.
    fn note_schedules(&mut self, store: &Store, unit: &Unit) {
        for record in unit.puts() {
            if let Record::Project(project) = record {
                let old = store.project(project.uid);
                // It begins as if it were new when the project is archived no more.
                let again = old.is_some_and(|old| old.archived.is_some()) && project.archived.is_none();
                if again || old.map(|old| &old.spec.schedule) != Some(&project.spec.schedule) {
                    *self.schedules.entry(project.uid).or_default() += 1;
                }
            }
        }
    }

    fn check_fire(
        &mut self,
        store: &Store,
        unit: &Unit,
        project: &ProjectRecord,
        old: &ProjectState,
        new: &ProjectState,
    ) -> Result<(), String> {
        let Some(fire) = old.next_fire else { return Ok(()) };
        let (missed, skipped) = (new.missed_fires > old.missed_fires, new.skipped_fires > old.skipped_fires);
        let ran = new.wanted > old.wanted && !super::life::is_triggered(store, unit, project);
        if unit.source != Source::Tick || !(missed || skipped || ran) {
            return check_spread(&self.limits.catch_up_spread, unit, fire, new);
        }
        let wrong = |what: &str| {
            let now = unit.now.wall;
            Err(format!("project {}: {what}: {fire:?} at {now:?}: {old:?} to {new:?}", new.uid.0))
        };
        if fire.at > unit.now.wall {
            return wrong("fired too early");
        }
        if u8::from(missed) + u8::from(skipped) + u8::from(ran) != 1 {
            return wrong("one fire counted twice");
        }
        let generation = self.schedules.get(&new.uid).copied().unwrap_or(0);
        if !self.fired.insert((new.uid, generation, fire.scheduled)) {
            return wrong("fired twice");
        }
        if ran && self.ran_alone(new.uid, fire.scheduled) {
            return wrong("a fire that the agent ran alone was run again");
        }
        let schedule = &project.spec.schedule;
        if missed != self.too_old(schedule, fire, unit.now) {
            return wrong("the catch-up window was not kept");
        }
        let busy = store.live_runs(new.uid).any(|run| !run.state.is_closed() && run.wish.makes_tree());
        if !missed && skipped != (busy && schedule.overlap_policy == OverlapPolicy::Skip) {
            return wrong("the overlap policy was not kept");
        }
        check_following(schedule, unit.now, new.uid, new.next_fire)
    }

    /// Whether a cron fire, and all that were due since, are too old to be caught up. An interval is due for
    /// as long as it did not run: there is nothing to catch up.
    fn too_old(&self, schedule: &Schedule, fire: NextFire, now: Now) -> bool {
        if !matches!(schedule.cadence, Cadence::Cron(_)) {
            return false;
        }
        let window = schedule.catch_up_window(fire.scheduled.to_utc()).to_std().unwrap_or_default();
        let from = fire.scheduled.max(now.wall.minus(window));
        let due = schedule.first_at_or_after(from.to_utc()).map(Wall::from).filter(|due| *due <= now.wall);
        let newest = due.unwrap_or(fire.scheduled);
        now.wall.since(newest) > window + self.limits.catch_up_spread
    }
}

/// I13: a project keeps its place in the spread, inside of it, for as long as its schedule is the same; and each of its
/// fires is one of the cadence, so much later.
fn check_phases(store: &Store, unit: &Unit) -> Result<(), String> {
    let declared = unit.puts().filter_map(|record| match record {
        Record::Project(project) => Some(&**project),
        _ => None,
    });
    let declared: Vec<&ProjectRecord> = declared.collect();
    for new in declared.iter().copied() {
        let schedule = &new.spec.schedule;
        let old = store.project(new.uid).map(|old| &old.spec.schedule);
        let plain = |schedule: &Schedule| Schedule { phase_seconds: 0, ..schedule.clone() };
        let moved = old.is_some_and(|old| plain(old) == plain(schedule) && old != schedule);
        if moved || schedule.phase_seconds >= schedule.spread_in_force().max(1) {
            return Err(format!("project {}: its fires moved from {old:?} to {schedule:?}", new.uid.0));
        }
    }
    for state in unit.states() {
        let project = declared.iter().copied().find(|project| project.uid == state.uid);
        let Some(project) = project.or_else(|| store.project(state.uid)) else { continue };
        let schedule = &project.spec.schedule;
        let known = store.state(state.uid).and_then(|old| old.next_fire).map(|fire| fire.scheduled);
        let new = state.next_fire.filter(|next| Some(next.scheduled) != known);
        let Some(next) = new.filter(|_| matches!(schedule.cadence, Cadence::Cron(_))) else { continue };
        let own = next.scheduled.minus(Duration::from_secs(schedule.phase_seconds));
        let plain = Schedule { phase_seconds: 0, ..schedule.clone() };
        let fire = plain.first_at_or_after(own.to_utc()).map(Wall::from);
        if fire != Some(own) {
            return Err(format!("project {}: {next:?} is no fire of {schedule:?}", state.uid.0));
        }
    }
    Ok(())
}

/// A fire that was put off must have been late, and is put off once.
fn check_spread(spread: &Duration, unit: &Unit, fire: NextFire, new: &ProjectState) -> Result<(), String> {
    let Some(next) = new.next_fire.filter(|next| *next != fire) else { return Ok(()) };
    if !next.spread || next.scheduled != fire.scheduled {
        return Ok(());
    }
    let late = unit.now.wall.since(fire.at) > defaults::FIRE_LATE;
    let in_time = next.at >= unit.now.wall && next.at <= unit.now.wall.plus(*spread);
    if late && in_time && !fire.spread {
        return Ok(());
    }
    Err(format!("project {}: {fire:?} was put off to {next:?} at {:?}", new.uid.0, unit.now.wall))
}

/// The fire after this one is the schedule's next, with a jitter within its bound.
fn check_following(
    schedule: &Schedule,
    now: Now,
    project: ProjectUid,
    next: Option<NextFire>,
) -> Result<(), String> {
    let from_end = matches!(schedule.cadence, Cadence::Interval { from: IntervalFrom::End, .. });
    let expected = schedule.next_after(now.wall.to_utc()).map(Wall::from).filter(|_| !from_end);
    let found = next.map(|next| next.scheduled);
    let jitter = Duration::from_secs(u64::from(schedule.jitter_seconds));
    let jitter_fits =
        next.is_none_or(|next| next.at >= next.scheduled && next.at <= next.scheduled.plus(jitter));
    if found == expected && jitter_fits {
        return Ok(());
    }
    Err(format!("project {}: after {:?} comes {expected:?}, armed is {next:?}", project.0, now.wall))
}
