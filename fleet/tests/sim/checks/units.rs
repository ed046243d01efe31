//! Rules for each unit that is put on disk.

use std::collections::BTreeSet;

use fleet::{
    attempt::{AttemptRecord, AttemptState, End, Role},
    id::{AttemptId, ProjectUid},
    outcome::ExitClass,
    placement::PlacementRecord,
    record::{Change, Key, Record},
    run::{RunRecord, RunState},
};

use super::{Checks, told};
use crate::{
    cover::At,
    host::Content,
    store::{Source, Store, Unit},
};

/// I1: no tree lies in another one's on an agent. Said where it comes about, not only where both are worked on.
fn check_apart(store: &Store, unit: &Unit, new: &PlacementRecord) -> Result<(), String> {
    if store.placement(new.project, new.agent).is_some_and(|old| old.destination == new.destination) {
        return Ok(());
    }
    let changed: BTreeSet<Key> = unit.changes.iter().filter_map(key_of).collect();
    let stays = store.live.iter().filter(|(key, _)| !changed.contains(key)).map(|(_, record)| record);
    let mut beside = stays.chain(unit.puts()).filter_map(|record| match record {
        Record::Placement(other) => Some(other),
        _ => None,
    });
    let overlaps = |other: &&PlacementRecord| {
        other.agent == new.agent
            && other.project != new.project
            && other.destination.overlaps(&new.destination)
    };
    beside
        .find(overlaps)
        .map_or(Ok(()), |other| Err(format!("{new:?} lies in the tree of {other:?}, or it in this")))
}

fn key_of(change: &Change) -> Option<Key> {
    match change {
        Change::Put(record) => Some(record.key()),
        Change::Delete(key) => Some(key.clone()),
        Change::Volatile(_) => None,
    }
}

impl Checks {
    pub(super) fn check_attempts(&mut self, store: &Store, unit: &Unit) -> Result<(), String> {
        for new in unit.attempts() {
            match store.attempt(new.project, new.id) {
                None => self.check_new_attempt(unit, new)?,
                Some(old) => self.check_move(old, new)?,
            }
            if let AttemptState::Offered { epoch, .. } = new.state {
                self.check_offer(store, new, epoch)?;
            }
        }
        Ok(())
    }

    fn check_new_attempt(&self, unit: &Unit, new: &AttemptRecord) -> Result<(), String> {
        let adopted = unit.source == Source::Hello && self.restored && At::from(&new.state) == At::Running;
        if new.state.is_pending() || adopted {
            return Ok(());
        }
        // What an agent ran alone is entered as it is found.
        if new.state.epoch().is_some_and(fleet::id::Epoch::is_autonomous) {
            let running = unit.source == Source::Hello && At::from(&new.state) == At::Running;
            if running || unit.source == Source::Report {
                return self.check_end_is_true(new);
            }
        }
        Err(told(new.id, &format!("began as {:?}", new.state)))
    }

    /// I4: the end is said once; and no step of the machine is left out.
    fn check_move(&self, old: &AttemptRecord, new: &AttemptRecord) -> Result<(), String> {
        use At::{Cancelling, Ended, Offered, Pending, Running};
        let (from, to) = (At::from(&old.state), At::from(&new.state));
        let fits = match from {
            Pending => matches!(to, Pending | Offered | Ended),
            Offered => matches!(to, Pending | Offered | Running | Cancelling | Ended),
            Running => matches!(to, Running | Cancelling | Ended),
            Cancelling => matches!(to, Cancelling | Ended),
            Ended => old == new,
        };
        let same_epoch = old.state.epoch() == new.state.epoch();
        let epoch_fits = same_epoch || from == Pending || to == Pending;
        if !fits || !epoch_fits {
            return Err(told(new.id, &format!("went from {:?} to {:?}", old.state, new.state)));
        }
        if from != Ended { self.check_end_is_true(new) } else { Ok(()) }
    }

    fn check_offer(
        &mut self,
        store: &Store,
        new: &AttemptRecord,
        epoch: fleet::id::Epoch,
    ) -> Result<(), String> {
        let known = store.attempt(new.project, new.id).is_some_and(|old| old.state.epoch() == Some(epoch));
        if known {
            return Ok(());
        }
        if self.offers.last().is_some_and(|last| *last >= epoch) {
            return Err(told(new.id, &format!("epoch {epoch} was used before, or a later one")));
        }
        if new.role == Role::Origin && self.cancelled.contains(&(new.project, new.id.run)) {
            return Err(told(new.id, "offered after its run was cancelled"));
        }
        let lost =
            |other: &&AttemptRecord| other.agent == new.agent && other.id != new.id && store.is_aside(other);
        if let Some(other) = store.live_attempts(new.project).find(lost) {
            return Err(told(
                new.id,
                &format!("offered where a lost tree is to be copied, or one to be moved: {other:?}"),
            ));
        }
        self.offers.insert(epoch);
        self.note_source(store, new, epoch);
        self.check_source(store, new)
    }

    /// What is recorded of an end is what happened on the machine.
    fn check_end_is_true(&self, new: &AttemptRecord) -> Result<(), String> {
        let AttemptState::Ended { epoch, end, .. } = &new.state else { return Ok(()) };
        let work = (new.id, *epoch);
        let really = self.pulled.get(&work).map(|(class, _)| *class);
        let true_end = match end {
            End::Succeeded(outcome) => {
                really == Some(ExitClass::Ok)
                    || (really == Some(ExitClass::Partial) && outcome.advice.starts_with("passes"))
            }
            End::Held(_) if super::was_good(end) => {
                matches!(really, Some(ExitClass::Ok | ExitClass::Partial))
            }
            End::Held(outcome) if really == Some(ExitClass::UpstreamBehind) => outcome.stats.is_none(),
            End::Held(_) => matches!(really, Some(ExitClass::MaxDelete | ExitClass::Guard)),
            End::Failed(_) if super::was_good(end) => {
                matches!(really, Some(ExitClass::Ok | ExitClass::Partial))
            }
            End::Failed(outcome) => {
                let refused = matches!(outcome.class, ExitClass::Busy | ExitClass::RejectedByAgent);
                really == Some(outcome.class) || (refused && really.is_none())
            }
            End::Cancelled(Some(outcome)) => {
                let told = [crate::host::NOT_HELD, fleet::engine::GAVE_WAY];
                really == Some(ExitClass::Cancelled) || told.contains(&outcome.cause.as_str())
            }
            End::Cancelled(None) | End::Lost => true,
        };
        if true_end { Ok(()) } else { Err(told(new.id, &format!("recorded as {end:?}, really {really:?}"))) }
    }

    pub(super) fn check_runs(&mut self, store: &Store, unit: &Unit) -> Result<(), String> {
        for new in unit.runs() {
            let wrong = |what: &str| Err(format!("run {}: {what}: {new:?}", new.id));
            let old = store.run(new.project, new.id);
            if let Some(old) = old {
                if old.state.is_closed() && (new.state, new.end_time) != (old.state, old.end_time) {
                    return wrong("was closed and changed");
                }
                if new.attempts < old.attempts || new.coalesced < old.coalesced {
                    return wrong("counts backwards");
                }
                if old.generation != 0 && new.generation != old.generation {
                    return wrong("took two generations");
                }
            }
            if !new.wish.makes_tree() {
                continue;
            }
            if new.state == RunState::Running && old.is_none_or(|old| old.state == RunState::Queued) {
                self.check_generation(unit, new)?;
            }
            if new.state != RunState::Queued && new.generation == 0 && !new.state.is_closed() {
                return wrong("began without a generation");
            }
            let made = new.current_tree || new.state == RunState::Propagating;
            let was_made = old.is_some_and(|old| old.current_tree || old.state == RunState::Propagating);
            if made && !was_made && !tree_was_made(store, unit, new) {
                return wrong("propagates, and its origin did not succeed");
            }
        }
        Ok(())
    }

    /// I2: what was asked for while a run waited is covered by it.
    fn check_generation(&self, unit: &Unit, new: &RunRecord) -> Result<(), String> {
        let wanted = self.wanted.get(&new.id).map_or(0, |(_, wanted)| *wanted);
        if new.generation < wanted {
            return Err(format!(
                "run {} took generation {}, {wanted} was wanted of it",
                new.id, new.generation
            ));
        }
        let taken = unit.states().find(|state| state.uid == new.project).map(|state| state.taken);
        // A hello may tell of several runs that the agent began alone, and after a restore of one that it did not.
        let last = unit.runs().find(|run| run.project == new.project && Some(run.generation) == taken);
        let alone =
            self.restored || last.is_some_and(|last| last.trigger.autonomous && new.trigger.autonomous);
        let later = alone && unit.source == Source::Hello && taken > Some(new.generation);
        if taken != Some(new.generation) && !later {
            return Err(format!("run {} took generation {}, its project {taken:?}", new.id, new.generation));
        }
        Ok(())
    }

    pub(super) fn check_placements(&self, store: &Store, unit: &Unit) -> Result<(), String> {
        for new in unit.placements() {
            self.check_moved(store, unit, new)?;
            check_apart(store, unit, new)?;
            let old = store.placement(new.project, new.agent).and_then(|old| old.have_tree);
            let Some(tree) = new.have_tree.filter(|tree| Some(*tree) != old) else { continue };
            if new.role == Role::Origin && is_local(store, new.project) {
                continue;
            }
            let by = unit.attempts().find(|attempt| attempt.agent == new.agent && attempt.tree == tree);
            let work = by.and_then(|attempt| Some((attempt.id, attempt.state.epoch()?)));
            let really = work.and_then(|work| self.pulled.get(&work));
            let fetched = match really {
                Some((ExitClass::Ok | ExitClass::Partial, Content::Tree(fetched))) => Some(*fetched),
                Some((ExitClass::Ok | ExitClass::Partial, Content::Alone)) => Some(tree),
                // A person has said meanwhile that what cannot be read is no failure here.
                Some((ExitClass::Partial, Content::Nothing)) => Some(tree),
                Some(_) | None => None,
            };
            // Nobody hears of what an agent ran alone when that goes with its state directory.
            let unheard = fetched.is_some_and(|fetched| self.unheard.contains(&fetched));
            if fetched != Some(tree) && !unheard && !self.restored {
                return Err(format!("{new:?} was entered by {by:?}, which really pulled {really:?}"));
            }
        }
        Ok(())
    }

    /// I10: a tree lives elsewhere from a report on only where the copy there was proven to be the tree; and the
    /// declaration says so in the same unit.
    fn check_moved(&self, store: &Store, unit: &Unit, new: &PlacementRecord) -> Result<(), String> {
        let Some(old) = store.placement(new.project, new.agent) else { return Ok(()) };
        if old.destination == new.destination || unit.source != Source::Report {
            return Ok(());
        }
        let on_it = unit.attempts().find(|one| {
            let way = store.way_of(one);
            (one.project, one.agent) == (new.project, new.agent)
                && way.is_some_and(|way| (&way.from, &way.to) == (&old.destination, &new.destination))
        });
        let proven = on_it.is_some_and(|one| {
            let work = one.state.epoch().map(|epoch| (one.id, epoch));
            matches!(one.state.end(), Some(End::Succeeded(_)))
                && work.is_some_and(|work| !self.damaged.contains(&work))
        });
        let declared = unit.changes.iter().any(
            |change| matches!(change, Change::Put(Record::Project(project)) if project.uid == new.project),
        );
        let same =
            (old.have_tree, old.half_changed, &old.hold) == (new.have_tree, new.half_changed, &new.hold);
        if proven && declared && same {
            return Ok(());
        }
        Err(format!("{old:?} moved to {new:?} by {on_it:?}, proven: {proven}, declared: {declared}"))
    }

    /// How the records of one project hang together.
    pub(super) fn check_project(&self, store: &Store, uid: ProjectUid) -> Result<(), String> {
        let wrong = |what: String| Err(format!("project {}: {what}", uid.0));
        let Some(state) = store.state(uid) else {
            let left = store.live_attempts(uid).count() + store.live_runs(uid).count();
            return if left == 0 { Ok(()) } else { wrong("deleted, and something is left".to_owned()) };
        };
        let mut placements = BTreeSet::new();
        for attempt in store.live_attempts(uid) {
            // A waiting run's attempt stands behind the active run's.
            let behind = attempt.role == Role::Origin && attempt.state.is_pending();
            let alone = attempt.state.epoch().is_some_and(fleet::id::Epoch::is_autonomous);
            let way = store.way_of(attempt);
            if !behind && !alone && way.is_none() && !placements.insert(attempt.agent) {
                return wrong(format!("two live attempts on agent {}", attempt.agent.0));
            }
            let home = store.placement(uid, attempt.agent);
            let place = way.map_or(&attempt.destination, |way| &way.from);
            let goes_to = way.is_none_or(|way| way.to == attempt.destination);
            if !home.is_some_and(|home| home.role == attempt.role && home.destination == *place) || !goes_to {
                return wrong(format!("{attempt:?} is not at its placement {home:?}"));
            }
            if store.reseeds(attempt) && home.is_some_and(|home| home.have_tree.is_some()) {
                return wrong(format!("{attempt:?} copies a lost tree to {home:?}"));
            }
            let run = store.live_runs(uid).find(|run| run.id == attempt.id.run);
            if run.is_none() && !(attempt.role == Role::Replica && attempt.state.is_out()) {
                return wrong(format!("{attempt:?} is of a run that is over"));
            }
        }
        let real = || store.live_runs(uid).filter(|run| run.wish.makes_tree());
        let of = |state| real().filter(|run| run.state == state).count();
        if store.live_runs(uid).count() - real().count() > 1 {
            // It joins nothing that waits, and nothing joins it; so it waits behind one run at most.
            let waiting =
                store.live_runs(uid).filter(|run| run.wish.dry_run && run.state == RunState::Queued);
            if waiting.count() > 1 {
                return wrong("two dry runs wait".to_owned());
            }
        }
        let running = real().filter(|run| run.state == RunState::Running);
        if of(RunState::Queued) > 1
            || running.filter(|run| !run.trigger.autonomous).count() > 1
            || of(RunState::Propagating) > 1
        {
            return wrong("two runs in one state".to_owned());
        }
        for run in
            store.live_runs(uid).filter(|run| matches!(run.state, RunState::Queued | RunState::Running))
        {
            let aside = run.wish.is_aside();
            let mut origins =
                store.live_attempts(uid).filter(|a| a.id.run == run.id && (a.role == Role::Origin || aside));
            let only = origins.next().is_some_and(|attempt| attempt.id.number == run.origin_attempt);
            if !only || origins.next().is_some() {
                return wrong(format!("no attempt will end {run:?}"));
            }
        }
        if state.taken > state.wanted {
            return wrong(format!("{} taken of {} wanted", state.taken, state.wanted));
        }
        match state.tree {
            Some(tree) if !store.run(uid, tree).is_some_and(|run| run.current_tree) => {
                wrong(format!("serves {tree}, whose run is not at hand"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether people put the project's tree on its origin themselves.
pub(super) fn is_local(store: &Store, project: ProjectUid) -> bool {
    store.project(project).is_some_and(|project| project.spec.upstreams.is_empty())
}

/// Whether this unit records the success of the run's origin; or takes the tree that people put there, in place of
/// the attempt that stood in line for it.
pub(super) fn tree_was_made(store: &Store, unit: &Unit, run: &RunRecord) -> bool {
    let in_line = AttemptId { run: run.id, number: run.origin_attempt };
    let taken = Change::Delete(Key::Attempt(run.project, in_line));
    if is_local(store, run.project) && unit.changes.contains(&taken) {
        return true;
    }
    unit.attempts().any(|attempt| {
        attempt.id.run == run.id
            && attempt.role == Role::Origin
            && matches!(attempt.state.end(), Some(End::Succeeded(_)))
    })
}
