//! Upstreams that are behind what is served, by the project's marker: nothing of them is pulled, they are asked again, and
//! when that goes on for long a person is told. Agents read markers and compare; what only the records tell is here, and
//! so is what agents could not know: that what they pulled was older after all.
//!
//! Which upstream is asked next is in `fallback.rs`.

use super::{
    effects::Effects,
    state::{Engine, Project},
};
use crate::{
    attempt::{AttemptRecord, Role},
    defaults,
    id::RunId,
    marker::{MarkerCheck, MarkerSeen},
    outcome::{Evidence, ExitClass, GuardKind, Outcome},
    placement::{Behind, Hold, PlacementRecord},
    record::Record,
    retry::Verdict,
    run::RunRecord,
    time::{Now, Wall},
    words,
};

impl Project {
    /// What an outcome tells of the marker as it is declared now.
    fn seen<'a>(&self, outcome: &'a Outcome) -> Option<&'a MarkerSeen> {
        let declared = self.record.spec.marker.as_ref()?;
        outcome.marker.as_deref().filter(|seen| seen.marker == *declared)
    }

    /// The marker of what was pulled.
    pub(super) fn marker_of_pull(&self, outcome: &Outcome) -> Option<Wall> {
        self.seen(outcome)?.of_tree()
    }

    /// The marker of a version, as whoever has it knows it.
    pub(super) fn marker_of(&self, tree: RunId) -> Option<Wall> {
        let mut have = self.placements.values().filter(|one| one.have_tree == Some(tree));
        have.find_map(|one| one.marker)
    }
}

impl Engine {
    /// What an attempt has to do about its project's marker.
    pub(super) fn marker_check(
        &self,
        project: &Project,
        attempt: &AttemptRecord,
        run: &RunRecord,
    ) -> Option<MarkerCheck> {
        let marker = project.record.spec.marker.clone()?;
        let pulls = attempt.role == Role::Origin && run.wish.makes_tree() && !project.is_local();
        let required = !attempt.fell_back.is_empty();
        pulls.then_some(MarkerCheck { marker, not_before: project.state.marker, required })
    }

    /// What an outcome is by its marker. What was pulled may be older although nobody saw that before: names of
    /// upstreams stand for several hosts, and an agent may know nothing of markers.
    pub(super) fn judged_by_marker(
        &self,
        now: Now,
        project: &Project,
        placement: &PlacementRecord,
        run: Option<&RunRecord>,
        attempt: &AttemptRecord,
        outcome: Outcome,
    ) -> Outcome {
        let marked = project.record.spec.marker.is_some() && attempt.role == Role::Origin;
        if !marked || !run.is_some_and(|run| run.wish.makes_tree()) {
            return outcome;
        }
        let waived = run.is_some_and(|run| run.wish.waived.contains(&GuardKind::UpstreamBehind));
        let outcome = if outcome.class == ExitClass::Ok && !waived {
            pulled_in_order(project, attempt, outcome)
        } else {
            outcome
        };
        let held = || is_due(now, placement, attempt) && self.next_upstream(now, project, attempt).is_none();
        if outcome.class == ExitClass::UpstreamBehind && held() {
            return Outcome { class: ExitClass::Guard, ..outcome };
        }
        outcome
    }
}

/// A success, unless what it pulled is older than what is served, or nobody looked where that was needed.
fn pulled_in_order(project: &Project, attempt: &AttemptRecord, outcome: Outcome) -> Outcome {
    let seen = project.seen(&outcome);
    let of_tree = seen.and_then(MarkerSeen::of_tree);
    let (behind, sentence) = match (of_tree, project.state.marker) {
        (Some(pulled), Some(served)) if pulled < served => {
            let sentence = format!(
                "what was pulled is of {}, what is served is of {}; it goes to no replica",
                words::instant(pulled),
                words::instant(served)
            );
            (served.since(pulled).as_secs(), sentence)
        }
        _ if !attempt.fell_back.is_empty() && seen.and_then(|seen| seen.upstream).is_none() => {
            let sentence = "its marker was not read, so nobody knows whether it is older than what is served";
            (0, sentence.to_owned())
        }
        _ => return outcome,
    };
    Outcome {
        class: ExitClass::UpstreamBehind,
        cause: sentence.clone(),
        fault: "upstream".to_owned(),
        advice: "nothing to do: it is asked again, and any other upstream that is declared".to_owned(),
        evidence: Some(Evidence {
            kind: GuardKind::UpstreamBehind,
            wanted: behind,
            allowed: 0,
            names: Vec::new(),
            sentence,
        }),
        ..outcome
    }
}

/// Whether upstreams have been behind for so long that a person is told, with this attempt.
fn is_due(now: Now, placement: &PlacementRecord, attempt: &AttemptRecord) -> bool {
    let open = |hold: &Hold| hold.evidence.kind == GuardKind::UpstreamBehind;
    let Some(behind) = placement.behind else { return placement.hold.as_ref().is_some_and(open) };
    let runs = behind.runs + u32::from(behind.newest != attempt.id.run);
    let long = behind.since.plus(defaults::BEHIND_HELD_AFTER) <= now.wall;
    placement.hold.as_ref().is_some_and(open) || (long && runs >= defaults::BEHIND_HELD_RUNS)
}

/// An attempt found its upstream behind.
pub(super) fn note_behind(now: Now, run: &RunRecord, attempt: &AttemptRecord, effects: &mut Effects<'_>) {
    let Some(placement) = effects.placement(attempt.project, attempt.agent) else { return };
    let behind = match placement.behind {
        Some(old) if old.newest == run.id => old,
        Some(old) => Behind { newest: run.id, runs: old.runs.saturating_add(1), ..old },
        None => Behind { since: now.wall, newest: run.id, runs: 1 },
    };
    effects.put(Record::Placement(PlacementRecord { behind: Some(behind), ..placement }));
}

/// Whether an upstream was found behind in this run: then it may be newer soon.
pub(super) fn met_behind(run: &RunRecord, attempt: &AttemptRecord, effects: &Effects<'_>) -> bool {
    let placement = effects.placement(attempt.project, attempt.agent);
    placement.and_then(|one| one.behind).is_some_and(|behind| behind.newest == run.id)
}

/// Whether the run need not ask this upstream again by itself, and the fault may be its own: then another one may do
/// better. Who is refused, or has a wrong password, has to hear of it; and what fails here fails with any upstream.
pub(super) fn is_spent(class: ExitClass, attempt: &AttemptRecord, verdict: Verdict, knocked: bool) -> bool {
    match class {
        ExitClass::UpstreamBehind | ExitClass::NotFound => true,
        ExitClass::Busy => verdict == Verdict::GiveUp || attempt.attempt_try >= defaults::FALLBACK_BUSY_TRIES,
        ExitClass::Network | ExitClass::Timeout | ExitClass::Stalled | ExitClass::Protocol => {
            knocked || verdict == Verdict::GiveUp
        }
        ExitClass::Ok
        | ExitClass::Partial
        | ExitClass::MaxDelete
        | ExitClass::Auth
        | ExitClass::Refused
        | ExitClass::DiskFull
        | ExitClass::LocalIo
        | ExitClass::Internal
        | ExitClass::WallClock
        | ExitClass::Cancelled
        | ExitClass::Config
        | ExitClass::RejectedByAgent
        | ExitClass::Interrupted
        | ExitClass::Guard => false,
    }
}

/// Whether an attempt that found its upstream behind found that only after it had pulled.
pub(super) fn pulled_older(outcome: &Outcome) -> bool {
    outcome.stats.is_some()
}
