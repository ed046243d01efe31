//! Guards: what an end means beyond its class, what opens and closes a hold, and what an approval allows. Knows
//! nothing of how agents look: they report evidence, except for a shrunk tree, which only the figures of the last good
//! run tell.

use super::{
    admit::allowed_deletes,
    effects::Effects,
    state::{Engine, Project},
};
use crate::{
    attempt::{AttemptRecord, Role},
    defaults,
    id::RunId,
    input::{Decision, Reply},
    outcome::{Evidence, ExitClass, GuardKind, Outcome, Stats},
    placement::{Hold, PlacementRecord},
    record::Record,
    refusal::Refusal,
    run::{RunRecord, Trigger, TriggerKind, Wish},
    time::Now,
    words::commas,
};

/// Percent at which the shrink guard is off: only an empty tree has lost so much, and another guard sees that.
const SHRINK_OFF: u32 = 100;
/// Characters of a run's id by which people know it.
const SHORT_RUN_CHARS: usize = 13;

/// What a hold means for what follows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Held {
    /// Deletions were only counted, and are within the limit again: it closes, or at least lets a try with the limit
    /// follow.
    Closes(PlacementRecord),
    /// It is open.
    Opens(PlacementRecord),
}

impl Engine {
    /// The outcome as this project judges it: a partial transfer that passes for a success, a success whose tree has
    /// shrunk too much, and the figures of a delete limit from one source.
    pub(super) fn judged(
        &self,
        now: Now,
        run: Option<&RunRecord>,
        attempt: &AttemptRecord,
        outcome: Outcome,
    ) -> Outcome {
        if self.is_move(attempt) {
            // A copy is whole or it is none.
            return outcome;
        }
        let Some(project) = self.projects.get(&attempt.project) else { return outcome };
        let Some(placement) = project.placements.get(&attempt.agent) else { return outcome };
        let partial = outcome.class == ExitClass::Partial;
        let outcome = pass_partial(&project.record.spec.partial_is_success, outcome);
        let kind = outcome.evidence.as_ref().map(|evidence| evidence.kind);
        if outcome.class == ExitClass::MaxDelete
            || (outcome.class == ExitClass::Guard && kind == Some(GuardKind::Deletes))
        {
            let evidence = deletes(project, placement, attempt, &outcome);
            return Outcome { evidence: Some(evidence), ..outcome };
        }
        if outcome.class == ExitClass::Guard && kind.is_none() {
            // Of a newer agent: what nobody here can read, nobody here can approve.
            return Outcome { class: ExitClass::RejectedByAgent, ..outcome };
        }
        let outcome = self.judged_by_marker(now, project, placement, run, attempt, outcome);
        if outcome.class != ExitClass::Ok || attempt.role != Role::Origin || attempt.first_sync {
            return outcome;
        }
        let run = run.filter(|run| !run.wish.dry_run);
        // What an upstream cannot read is not in its figures, and still in the tree.
        let told = outcome.stats.filter(|stats| !partial || stats.deleted > 0);
        match run.and_then(|run| shrunk(project, placement, run, told?)) {
            Some(evidence) => hold_shrunk(evidence, outcome),
            None => outcome,
        }
    }

    /// A guard stopped an attempt: the placement's hold, and whether it closes by itself.
    pub(super) fn held(
        &self,
        now: Now,
        project: &Project,
        placement: &PlacementRecord,
        attempt: &AttemptRecord,
        outcome: &Outcome,
    ) -> Held {
        let evidence = match &outcome.evidence {
            Some(evidence) => evidence.clone(),
            None => deletes(project, placement, attempt, outcome),
        };
        let old = placement.hold.as_ref();
        let counted_only = attempt.max_delete == 0 && old.is_some_and(Hold::deletes_stopped);
        let allowed = allowed_deletes(project, placement);
        let within = outcome.deletes_skipped.is_some_and(|wanted| wanted <= allowed) && allowed > 0;
        if evidence.kind == GuardKind::Deletes && counted_only && within {
            // Whether the tree is whole again only a success tells.
            let shrunk = old.filter(|hold| hold.has_shrunk());
            let hold = shrunk.map(|hold| Hold { met: vec![GuardKind::Shrink], ..hold.clone() });
            return Held::Closes(PlacementRecord { hold, ..placement.clone() });
        }
        let (first, since) = old.map_or((attempt.id, now.wall), |hold| (hold.first, hold.since));
        let mut met = old.map(|hold| hold.met.clone()).unwrap_or_default();
        met.push(evidence.kind);
        met.sort_unstable();
        met.dedup();
        let hold = Hold { first, newest: attempt.id, since, evidence, met, approved_until: None };
        Held::Opens(PlacementRecord { hold: Some(hold), ..placement.clone() })
    }

    /// Allows once what the newest hold of a project found, and no more than that: an origin's by a new run, a
    /// replica's by its next attempt.
    pub(super) fn approve(
        &self,
        now: Now,
        by: String,
        project: &Project,
        run: RunId,
        saw: Option<&Evidence>,
        traceparent: String,
    ) -> Result<Decision, Refusal> {
        let holds = project.placements.values().filter_map(|one| Some((one, one.hold.as_ref()?)));
        let newest: Vec<(&PlacementRecord, &Hold)> =
            holds.clone().filter(|(_, hold)| hold.newest.run == run).collect();
        if newest.is_empty() {
            return Err(not_newest(project, run, saw, holds.map(|(_, hold)| hold)));
        }
        if newest.iter().any(|(_, hold)| counts_unknown(&hold.evidence)) {
            let name = &project.record.name;
            let text = format!(
                "run {} of {name} did not tell how many deletes it wants; allow a number yourself: \
                 mirrorctl project run {name} --allow-deletes N",
                short(run)
            );
            return Err(Refusal::precondition("EVIDENCE_MISSING", text));
        }
        let expires = now.wall.plus(defaults::APPROVAL_TTL);
        let mut effects = Effects::of(self);
        if let Some((_, hold)) = newest.iter().find(|(placement, _)| placement.role == Role::Origin) {
            let wish = Wish {
                allow_deletes: (hold.evidence.kind == GuardKind::Deletes).then_some(hold.evidence.wanted),
                waived: vec![hold.evidence.kind],
                waiver_expires: Some(expires),
                ..Wish::default()
            };
            let trigger = Trigger { kind: TriggerKind::User, by, time: now.wall, autonomous: false };
            let triggered = self.trigger(now, project, trigger, wish, traceparent, &mut effects);
            let (run, coalesced) = triggered.ok_or_else(|| no_origin(project))?;
            effects.reply(self.run_reply(project, run, coalesced, false, true));
            return Ok(effects.decision());
        }
        for (placement, hold) in newest {
            let hold = Some(Hold { approved_until: Some(expires), ..hold.clone() });
            effects.put(Record::Placement(PlacementRecord { hold, gave_up_on: None, ..placement.clone() }));
        }
        effects.reply(self.run_reply(project, run, false, false, true));
        Ok(effects.decision())
    }

    /// The most files the next attempt may delete. While a hold has stopped deletions: none, or each fire would
    /// delete up to the limit again.
    pub(super) fn max_delete(
        now: Now,
        run: &RunRecord,
        project: &Project,
        placement: &PlacementRecord,
    ) -> u64 {
        if run.wish.is_aside() {
            return 0;
        }
        let limit = allowed_deletes(project, placement);
        let hold = placement.hold.as_ref();
        let stopped = hold.is_some_and(Hold::deletes_stopped);
        match (placement.role, approved(now, placement), run.wish.allow_deletes) {
            (_, Some(evidence), _) if evidence.kind == GuardKind::Deletes => evidence.wanted,
            // What was allowed of the origin came on top of what its limit had let through before.
            (Role::Replica, _, Some(more)) if !stopped => limit.saturating_add(more),
            (_, _, Some(allowed)) => allowed,
            (_, _, None) if stopped => 0,
            (_, _, None) => limit,
        }
    }

    /// The guards that an attempt is to pass over. An origin's waiver is good for the hold that was approved, and
    /// with it for what its tree brings to replicas; but what a replica's own disk holds is approved there.
    pub(super) fn waived(now: Now, run: &RunRecord, placement: &PlacementRecord) -> Vec<GuardKind> {
        if run.wish.reseed_from.is_some() {
            // It deletes nothing that others put there.
            return vec![GuardKind::Adoption];
        }
        match placement.role {
            Role::Origin => {
                let open = placement.hold.as_ref().map(|hold| hold.evidence.kind);
                run.wish.waived.iter().copied().filter(|kind| Some(*kind) == open).collect()
            }
            Role::Replica => {
                let brought = run.wish.waived.iter().copied().filter(|kind| *kind != GuardKind::Adoption);
                let mut waived: Vec<GuardKind> =
                    brought.chain(approved(now, placement).map(|evidence| evidence.kind)).collect();
                waived.sort_unstable();
                waived.dedup();
                waived
            }
        }
    }
}

/// What a person approved of a replica's hold, as long as that is good.
fn approved(now: Now, placement: &PlacementRecord) -> Option<&Evidence> {
    let hold = placement.hold.as_ref()?;
    hold.approved_until.filter(|until| *until > now.wall).map(|_| &hold.evidence)
}

/// A partial transfer is a success where a person said why.
fn pass_partial(reason: &str, outcome: Outcome) -> Outcome {
    if outcome.class != ExitClass::Partial || reason.is_empty() {
        return outcome;
    }
    let advice = format!("passes for a success in this project: {reason}");
    Outcome { class: ExitClass::Ok, advice, ..outcome }
}

/// The evidence of a delete limit: how many deletions it stopped is rsync's own count.
fn deletes(
    project: &Project,
    placement: &PlacementRecord,
    attempt: &AttemptRecord,
    outcome: &Outcome,
) -> Evidence {
    let told = outcome.evidence.clone();
    let wanted = outcome.deletes_skipped.or_else(|| Some(told.as_ref()?.wanted)).unwrap_or(0);
    let limit = allowed_deletes(project, placement);
    let (names, sentence) = told.map(|told| (told.names, told.sentence)).unwrap_or_default();
    let sentence = if sentence.is_empty() {
        match attempt.max_delete {
            0 => format!("{} deletes wanted and only counted, {} allowed", commas(wanted), commas(limit)),
            deleted => {
                format!("stopped at the limit of {} deletes, {} more wanted", commas(deleted), commas(wanted))
            }
        }
    } else {
        sentence
    };
    let allowed = if attempt.max_delete == 0 { limit } else { attempt.max_delete };
    Evidence { kind: GuardKind::Deletes, wanted, allowed, names, sentence }
}

/// Whether the origin's tree has lost too much against its last good run.
fn shrunk(project: &Project, placement: &PlacementRecord, run: &RunRecord, stats: Stats) -> Option<Evidence> {
    let limit = project.record.spec.guard.shrink_percent.unwrap_or(defaults::SHRINK_PERCENT);
    let files = lost_percent(placement.files, stats.files);
    let bytes = lost_percent(placement.size_bytes, stats.total_bytes);
    let lost = files.max(bytes);
    let waived = placement.hold.as_ref().is_some_and(|hold| {
        hold.evidence.kind == GuardKind::Shrink
            && run.wish.waived.contains(&GuardKind::Shrink)
            && lost <= hold.evidence.wanted
    });
    // Who allowed so many deletes has seen that so many files go: one accident, one question.
    let gone = placement.files.saturating_sub(stats.files);
    let expected = run.wish.allow_deletes.is_some_and(|allowed| {
        gone > 0 && gone <= allowed.saturating_add(allowed_deletes(project, placement))
    });
    if limit >= SHRINK_OFF || lost < u64::from(limit) || waived || expected {
        return None;
    }
    let sentence = format!(
        "the origin's tree has {} files and {} bytes, its last good run left {} and {}; it goes to no replica",
        commas(stats.files),
        commas(stats.total_bytes),
        commas(placement.files),
        commas(placement.size_bytes),
    );
    Some(Evidence {
        kind: GuardKind::Shrink,
        wanted: lost,
        allowed: u64::from(limit),
        names: Vec::new(),
        sentence,
    })
}

/// How many whole percent of `before` are gone; 0 where that is not known.
fn lost_percent(before: u64, after: u64) -> u64 {
    let lost = u128::from(before.saturating_sub(after)) * 100;
    lost.checked_div(u128::from(before)).map_or(0, |percent| u64::try_from(percent).unwrap_or(u64::MAX))
}

fn hold_shrunk(evidence: Evidence, outcome: Outcome) -> Outcome {
    Outcome {
        class: ExitClass::Guard,
        cause: "the tree has shrunk".to_owned(),
        fault: "open".to_owned(),
        advice: "look at the upstream; leave it, the next fire looks again; or approve the run".to_owned(),
        evidence: Some(evidence),
        ..outcome
    }
}

/// A delete limit without a count: an old rsync, or its words were lost.
fn counts_unknown(evidence: &Evidence) -> bool {
    evidence.kind == GuardKind::Deletes && evidence.wanted == 0
}

pub(super) fn no_origin(project: &Project) -> Refusal {
    let text = format!("project \"{}\" has no origin to run on", project.record.name);
    Refusal::precondition("NO_ORIGIN", text)
}

fn not_newest<'a>(
    project: &Project,
    run: RunId,
    saw: Option<&Evidence>,
    holds: impl Iterator<Item = &'a Hold>,
) -> Refusal {
    let name = &project.record.name;
    let Some(newest) = holds.max_by_key(|hold| hold.newest) else {
        let text = format!("{name} is not held: there is nothing to approve");
        return Refusal::precondition("NOT_HELD", text);
    };
    let now = newest.evidence.found();
    let figures = match saw {
        Some(saw) => format!("it saw {}, now {now}", saw.found()),
        None => format!("now {now}"),
    };
    let text = format!(
        "run {} is not the newest hold of {name} ({figures}); that is run {}",
        short(run),
        short(newest.newest.run)
    );
    Refusal::precondition("NOT_NEWEST_HOLD", text)
}

/// A run as people name it.
pub(super) fn short(run: RunId) -> String {
    run.to_string().chars().take(SHORT_RUN_CHARS).collect()
}

impl Engine {
    /// The answer to whoever asked for a run. `waits_paused`: while the project is paused it waits. `names`: the asker may
    /// know who does what in this fleet.
    pub(super) fn run_reply(
        &self,
        project: &Project,
        run: RunId,
        coalesced: bool,
        waits_paused: bool,
        names: bool,
    ) -> Reply {
        let by = |who: &str| if names { format!(" by {who}") } else { String::new() };
        let mut notes = Vec::new();
        if let Some(pause) = &project.record.paused {
            let what =
                if waits_paused { "the run waits for the resume" } else { "this run runs all the same" };
            notes.push(format!("the project is paused{}; {what}", by(&pause.by)));
        }
        if let Some(archive) = &project.record.archived {
            let by = by(&archive.by);
            notes.push(format!("the project is archived{by}; this run runs all the same, without retries"));
        }
        if let Some(freeze) = &self.fleet.frozen {
            notes.push(format!("the fleet is frozen{}; the run waits for the thaw", by(&freeze.by)));
        }
        // During a run the answer is the run that waits behind it, whether this trigger made it or joined it.
        let going =
            |id: &RunId| *id != run && self.runs.get(id).is_some_and(|other| !other.state.is_closed());
        let coalesced = coalesced || project.runs.iter().any(going);
        Reply::Run { project: project.record.uid, run, coalesced, notes }
    }
}
