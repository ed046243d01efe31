//! Rules for holds, approvals and dry runs: nothing comes of an attempt that a guard stopped, a hold closes for a
//! reason, and nobody is allowed more than was seen.

use fleet::{
    attempt::{AttemptRecord, End, Role},
    defaults,
    outcome::{ExitClass, GuardKind, Outcome},
    placement::{Hold, PlacementRecord},
    project::ProjectState,
    record::{Change, Record},
    run::{RunRecord, RunState, Wish},
};

use super::{Checks, told, units::is_local};
use crate::store::{Source, Store, Unit};

impl Checks {
    pub(super) fn check_guards(&self, store: &Store, unit: &Unit) -> Result<(), String> {
        for run in unit.runs() {
            check_dry_run(store, unit, run)?;
            check_reseed(store, unit, run)?;
            check_move(unit, run)?;
            check_waiver(store, unit, run)?;
        }
        for placement in unit.placements() {
            check_hold(store, unit, placement)?;
        }
        unit.attempts().try_for_each(|attempt| {
            check_limit(store, unit, attempt)?;
            self.check_shrunk(store, attempt)
        })
    }

    /// No tree that has lost too much passes for a new version, unless a person has seen that.
    fn check_shrunk(&self, store: &Store, attempt: &AttemptRecord) -> Result<(), String> {
        let Some(End::Succeeded(Outcome { stats: Some(stats), .. })) = attempt.state.end() else {
            return Ok(());
        };
        let run = store.run(attempt.project, attempt.id.run);
        let wish = run.map(|run| run.wish.clone()).unwrap_or_default();
        let spec = store.project(attempt.project).map(|project| &project.spec);
        let before = store.placement(attempt.project, attempt.agent);
        let (Some(spec), Some(before)) = (spec, before) else { return Ok(()) };
        let limit = u64::from(spec.guard.shrink_percent.unwrap_or(defaults::SHRINK_PERCENT));
        let known = before.have_tree.is_some() && attempt.role == Role::Origin && !attempt.first_sync;
        let of = |old: u64, new: u64| old.saturating_sub(new) * 100 >= limit * old && old > 0;
        let lost = of(before.files, stats.files) || of(before.size_bytes, stats.total_bytes);
        let seen = wish.waived.contains(&GuardKind::Shrink) || wish.allow_deletes.is_some();
        // What an upstream cannot read is not in its figures, and still in the tree.
        let work = attempt.state.epoch().map(|epoch| (attempt.id, epoch));
        let pulled = work.and_then(|work| self.pulled.get(&work));
        let unread = pulled.is_some_and(|(class, _)| *class == ExitClass::Partial) && stats.deleted == 0;
        if lost && known && limit < 100 && !seen && !wish.dry_run && !unread {
            return Err(told(attempt.id, &format!("passes with {stats:?} after {before:?}")));
        }
        Ok(())
    }
}

/// A dry run changes nothing but itself.
fn check_dry_run(store: &Store, unit: &Unit, new: &RunRecord) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("dry run {}: {what}: {new:?}", new.id));
    if !new.wish.dry_run {
        return Ok(());
    }
    if new.generation != 0 || new.current_tree || new.propagate_time.is_some() || new.replica_failed {
        return wrong("counts as a real one");
    }
    if matches!(new.state, RunState::Held | RunState::Propagating) {
        return wrong("stands where only a real one does");
    }
    if store.run(new.project, new.id).is_some_and(|old| old.wish != new.wish && old.start_time.is_some()) {
        return wrong("changed its wish");
    }
    let alone = unit.source != Source::Report || !unit.attempts().any(|attempt| attempt.id.run != new.id);
    let state = unit.states().any(|state| state.uid == new.project);
    let placement = unit.placements().any(|placement| placement.project == new.project);
    if alone && (state || placement) && matches!(unit.source, Source::Report | Source::Tick) {
        return wrong("changed more than itself");
    }
    Ok(())
}

/// The copy of a lost tree changes one placement: it makes no version, and no trigger is consumed by it or joins it.
fn check_reseed(store: &Store, unit: &Unit, new: &RunRecord) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("reseed {}: {what}: {new:?}", new.id));
    let Some(donor) = new.wish.reseed_from else { return Ok(()) };
    if new.generation != 0 || new.coalesced != 0 || new.current_tree || new.propagate_time.is_some() {
        return wrong("counts as a run that makes a tree");
    }
    if matches!(new.state, RunState::Held | RunState::Propagating) {
        return wrong("stands where only a run that makes a tree does");
    }
    if new.wish != (Wish { reseed_from: Some(donor), ..Wish::default() }) {
        return wrong("wishes for more");
    }
    let alone = unit.runs().all(|run| run.id == new.id || run.current_tree);
    let serves = |state: &ProjectState| store.state(state.uid).map(|old| old.tree) != Some(state.tree);
    let moved = unit.states().filter(|state| state.uid == new.project).any(serves);
    if alone && moved { wrong("changed which tree is served") } else { Ok(()) }
}

/// A move makes no version, and no trigger is consumed by it or joins it.
fn check_move(unit: &Unit, new: &RunRecord) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("move {}: {what}: {new:?}", new.id));
    let Some(way) = &new.wish.moves else { return Ok(()) };
    if new.generation != 0 || new.coalesced != 0 || new.current_tree || new.propagate_time.is_some() {
        return wrong("counts as a run that makes a tree");
    }
    if matches!(new.state, RunState::Held | RunState::Propagating) {
        return wrong("stands where only a run that makes a tree does");
    }
    if new.wish != (Wish { moves: Some(way.clone()), ..Wish::default() }) {
        return wrong("wishes for more");
    }
    let mine = |one: &PlacementRecord| one.project == new.project && one.destination == way.to;
    let arrived = unit.placements().any(mine);
    let deleted = unit.changes.iter().any(|change| matches!(change, Change::Delete(_)));
    if new.state == RunState::Succeeded && !arrived && !deleted {
        wrong("succeeded and moved nothing")
    } else {
        Ok(())
    }
}

/// What is waived was seen, by a person, in the hold that is open; and no more of it.
fn check_waiver(store: &Store, unit: &Unit, new: &RunRecord) -> Result<(), String> {
    let nothing = Wish::default();
    let old = store.run(new.project, new.id).map_or(&nothing, |run| &run.wish);
    let added: Vec<GuardKind> =
        new.wish.waived.iter().copied().filter(|kind| !old.waived.contains(kind)).collect();
    if added.is_empty() {
        return Ok(());
    }
    let range = store.live.values().filter_map(|record| match record {
        Record::Placement(one) if one.project == new.project && one.role == Role::Origin => one.hold.as_ref(),
        _ => None,
    });
    let holds: Vec<&Hold> = range.collect();
    for kind in added {
        let seen = holds.iter().find(|hold| hold.evidence.kind == kind);
        let Some(seen) = seen.filter(|_| unit.source == Source::Person) else {
            return Err(format!("run {} waives {kind:?}, and {holds:?} are open", new.id));
        };
        let most = old.allow_deletes.max(Some(seen.evidence.wanted));
        if kind == GuardKind::Deletes && new.wish.allow_deletes > most {
            return Err(format!("run {} allows {:?}, seen was {seen:?}", new.id, new.wish.allow_deletes));
        }
    }
    match new.wish.waiver_expires {
        Some(expires) if expires <= unit.now.wall.plus(defaults::APPROVAL_TTL) => Ok(()),
        expires => Err(format!("run {} waives {:?} until {expires:?}", new.id, new.wish.waived)),
    }
}

/// A hold opens by an attempt that was held, and closes by a success, by a count within the limit, or because a
/// person moved the placement.
fn check_hold(store: &Store, unit: &Unit, new: &PlacementRecord) -> Result<(), String> {
    let old = store.placement(new.project, new.agent);
    let before = old.and_then(|old| old.hold.as_ref());
    let wrong = |what: &str| Err(format!("{what}: {before:?} to {new:?} by {:?}", unit.source));
    let on_it =
        || unit.attempts().filter(|attempt| attempt.agent == new.agent && attempt.project == new.project);
    let dry = |attempt: &AttemptRecord| {
        store.run(attempt.project, attempt.id.run).is_some_and(|run| !run.wish.makes_tree())
    };
    // What was pulled while its source changed is no success.
    let succeeded =
        on_it().any(|one| matches!(one.state.end(), Some(End::Succeeded(_))) && !one.mixed && !dry(one));
    let held = on_it().find(|one| matches!(one.state.end(), Some(End::Held(_))) && !dry(one));
    match (before, &new.hold) {
        (None, None) => Ok(()),
        (Some(_), None) => {
            let moved = unit.source == Source::Person
                && old.is_some_and(|old| old.destination != new.destination || old.role != new.role);
            let counted = held.is_some_and(|one| one.max_delete == 0);
            let whole_again = before.is_some_and(|hold| hold.met == [GuardKind::Shrink])
                && on_it().any(|one| matches!(one.state.end(), Some(End::Succeeded(_))));
            // The tree that people put on an origin is what they want it to be.
            let uploaded = new.role == Role::Origin
                && is_local(store, new.project)
                && old.is_some_and(|old| old.have_tree != new.have_tree);
            if succeeded || counted || moved || uploaded || whole_again {
                Ok(())
            } else {
                wrong("a hold closed for no reason")
            }
        }
        (before, Some(hold)) => {
            let same = before.is_some_and(|old| old.newest == hold.newest && old.evidence == hold.evidence);
            if succeeded {
                return wrong("a hold outlived a success");
            }
            match held {
                Some(one) if hold.newest == one.id || same => Ok(()),
                None if same => Ok(()),
                Some(_) | None => wrong("a hold came from nowhere"),
            }
        }
    }
}

/// While the delete limit holds a placement nothing is deleted there, but for what a person allowed.
fn check_limit(store: &Store, unit: &Unit, new: &AttemptRecord) -> Result<(), String> {
    let offered_before = store.attempt(new.project, new.id).is_some_and(|old| old.state.is_out());
    if !matches!(new.state, fleet::attempt::AttemptState::Offered { .. }) || offered_before {
        return Ok(());
    }
    let in_unit = unit.runs().find(|run| run.id == new.id.run);
    let run = in_unit.or_else(|| store.run(new.project, new.id.run));
    let Some(run) = run else { return Ok(()) };
    let Some(hold) = store.placement(new.project, new.agent).and_then(|one| one.hold.as_ref()) else {
        return Ok(());
    };
    let approved = hold.approved_until.filter(|until| *until > unit.now.wall).map(|_| hold.evidence.wanted);
    let expired = run.wish.waiver_expires.is_some_and(|at| at <= unit.now.wall);
    if expired && run.start_time == Some(unit.now.wall) && run.wish.allow_deletes.is_some() {
        return Err(told(new.id, &format!("began with an expired wish: {:?}", run.wish)));
    }
    let most = run.wish.allow_deletes.max(approved).unwrap_or(0);
    if hold.deletes_stopped() && new.max_delete > most {
        return Err(told(new.id, &format!("may delete {} while {hold:?}", new.max_delete)));
    }
    Ok(())
}
