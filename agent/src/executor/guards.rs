//! What the guards of an attempt decide: which programs run before the pull, whether what they found lets it go on,
//! what stops a running one, and the evidence that is told. Pure: knows output that was read and figures, no file and
//! no process.

use std::path::Path;
use std::time::{Duration, Instant};

use fleet::defaults::{ADOPT_AGAIN_PERCENT, ADOPT_DELETE_PERCENT};
use fleet::marker::MARKER_BYTES_MAX;
use fleet::outcome::EVIDENCE_NAMES_MAX;
use mirror_proto::v1;
use mirror_proto::v1::evidence::Kind;
use mirror_proto::v1::outcome::Class;
use rsync::{Fault, Stats};

use super::findings::Findings;
use crate::guard::Space;
use crate::order::Order;
use crate::outcome::of_class;
use fleet::words::{bytes, commas};

/// Between two looks at the volume while a program writes to it.
const VOLUME_PACE: Duration = Duration::from_secs(1);
/// How the reasons begin with which a brake ends a program: from these, which are on disk with the program's end, its
/// outcome is made, also by an agent that did not pull the brake.
const VOLUME_BRAKE: &str = "volume brake: ";
const QUOTA_BRAKE: &str = "quota brake: ";
/// What to do about a move that ran out of room.
pub(super) const MOVE_AGAIN: &str = "the old tree serves as before; free space on the new volume and move it again: that goes on from what was \
     copied";
/// What to do about a guard's stop.
const APPROVE: &str = "look at the evidence; mirrorctl run approve lets this run go on";

/// One program run of an attempt, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Reads the upstream's marker.
    Marker,
    /// Lists the upstream's directory.
    Probe,
    /// Tells what a first pull would do to a tree that others put there.
    Adoption,
    /// Removes what the upstream no longer has.
    Reclaim,
    /// The pull; or, for a dry run, what it would do.
    Pull,
    /// Counts what a delete limit stopped.
    Count,
    /// Copies a tree that moves.
    Copy,
    /// Compares the copy with the tree.
    Verify,
}

impl Pass {
    /// What may run before a pull.
    pub(super) const BEFORE: [Self; 4] = [Self::Marker, Self::Probe, Self::Adoption, Self::Reclaim];

    /// Names its run directories, and it in logs and spans.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Marker => "marker",
            Self::Probe => "probe",
            Self::Adoption => "adoption",
            Self::Reclaim => "reclaim",
            Self::Pull => "pull",
            Self::Count => "count",
            Self::Copy => "copy",
            Self::Verify => "verify",
        }
    }

    /// Whether it may change the tree.
    pub(super) fn writes(self, order: &Order) -> bool {
        match self {
            Self::Marker | Self::Probe | Self::Adoption | Self::Count | Self::Verify => false,
            Self::Reclaim | Self::Copy => true,
            Self::Pull => !order.dry_run,
        }
    }

    /// Whether it begins only where there is room. What makes room may begin without any; a count and a comparison,
    /// which come when all is written, need none.
    pub(super) fn needs_room(self, order: &Order) -> bool {
        let makes_room = order.reclaim && self != Self::Pull;
        !order.dry_run && !makes_room && !matches!(self, Self::Count | Self::Verify)
    }

    /// What the log says when it begins; a plain pull needs no word.
    pub(super) fn heading(self, order: &Order) -> Option<&'static str> {
        match self {
            Self::Marker => Some("reads the upstream's marker"),
            Self::Probe => Some("looks at the upstream"),
            Self::Adoption => Some("looks at what a first pull would change; nothing is changed yet"),
            Self::Reclaim => Some("makes room: removes what the upstream no longer has"),
            Self::Pull if order.dry_run => {
                Some("dry run: what follows is what would be done; nothing is changed")
            }
            Self::Pull => None,
            Self::Count => Some("counts what the delete limit stopped; nothing is changed"),
            Self::Copy => Some("copies the tree; the old one does not change"),
            Self::Verify => Some("compares both trees by content; nothing is changed"),
        }
    }
}

/// What is known of the destination before anything runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// There is something in it.
    pub(super) filled: bool,
    /// The fleet has begun it.
    pub(super) begun: bool,
}

/// What runs before the pull. A probe is left out where there is nothing that it could protect.
pub(super) fn before_pull(order: &Order, facts: Facts) -> Vec<Pass> {
    if order.dry_run {
        return Vec::new();
    }
    let vital = order.keep_extra || (order.deletes() && facts.filled);
    let may_empty = vital && !order.waives(Kind::EmptyUpstream);
    let sought = !order.sentinels.is_empty() && !order.waives(Kind::SentinelMissing);
    let strange = order.first_sync && facts.filled && !facts.begun && !order.waives(Kind::Adoption);
    let wanted = |pass: &Pass| match pass {
        Pass::Marker => order.marker.is_some(),
        Pass::Probe => may_empty || sought,
        Pass::Adoption => strange,
        Pass::Reclaim => order.reclaim,
        Pass::Pull | Pass::Count | Pass::Copy | Pass::Verify => false,
    };
    Pass::BEFORE.into_iter().filter(wanted).collect()
}

/// How a program of an attempt ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// By rsync's own account, or by ours where we ended it.
    pub(super) outcome: v1::Outcome,
    pub(super) stats: Stats,
    pub(super) findings: Findings,
    /// The file that it was to fetch, as far as it is read; `None`: there is none.
    pub(super) fetched: Option<Vec<u8>>,
}

impl Ended {
    fn deleted(&self) -> u64 {
        self.stats.deleted.map_or(0, |count| count.total).max(self.findings.deleted)
    }
}

/// Whether an attempt goes on after one of its programs.
#[derive(Debug)]
pub(super) enum Verdict {
    /// With the next one; what was found, for the log.
    GoOn(String),
    /// It ends so.
    End(Box<v1::Outcome>),
}

pub(super) fn end(outcome: v1::Outcome) -> Verdict {
    Verdict::End(Box::new(outcome))
}

/// Judges a probe. What rsync cannot list although the directory is there may be a sentinel, or has gone meanwhile:
/// the pull will meet it too, and tell.
pub(super) fn judge_probe(order: &Order, probe: Ended) -> Verdict {
    let Findings { entries, itself, missing, .. } = &probe.findings;
    let class = probe.outcome.class();
    let listed = *itself && matches!(class, Class::Ok | Class::Partial);
    if !listed {
        // Exit 0 and not even the directory: it was not what was asked for.
        let lie = || {
            of_class(
                Class::Protocol,
                "the upstream listed nothing, not even its directory",
                Fault::Upstream,
                "tell the upstream's administrators",
            )
        };
        return end(if class == Class::Ok { lie() } else { probe.outcome });
    }
    // Where names are missing rsync ends with 23 for these alone; else it could not read the directory.
    let whole = class == Class::Ok || !missing.is_empty();
    let matters = order.deletes() || order.keep_extra;
    if *entries == 0 && whole && !order.waives(Kind::EmptyUpstream) && matters {
        let all = order.known_files.map_or_else(String::new, |files| format!(" of {} files", commas(files)));
        let lost =
            if order.keep_extra { "there is no tree to copy" } else { "a pull would remove the whole tree" };
        let sentence = format!("{} is empty: {lost}{all}", order.source);
        let missing = order.known_files.unwrap_or(1);
        return end(held(Kind::EmptyUpstream, (missing, 0), Vec::new(), sentence, Fault::Upstream));
    }
    if !missing.is_empty() && !order.waives(Kind::SentinelMissing) {
        let (lost, all) = (missing.len(), order.sentinels.len());
        let sentence = format!("{lost} of {all} paths that must exist are not at {}", order.source);
        return end(held(
            Kind::SentinelMissing,
            (lost as u64, 0),
            missing.clone(),
            sentence,
            Fault::Upstream,
        ));
    }
    if *entries == 0 && !whole {
        return end(probe.outcome);
    }
    Verdict::GoOn(format!("the upstream lists {} entries", commas(*entries)))
}

/// Judges the dry run before a first pull into a tree that others put there.
pub(super) fn judge_adoption(dry: Ended) -> Verdict {
    if dry.outcome.class() != Class::Ok {
        return end(dry.outcome);
    }
    let Findings { new, new_bytes, .. } = dry.findings;
    let (stats, deleted) = (&dry.stats, dry.deleted());
    let listed = stats.files.map_or(0, |count| count.total);
    let created = stats.created.map_or(new, |count| count.total);
    let there = listed.saturating_sub(created).saturating_add(deleted);
    // Files that rsync told of as new are the only ones that are not fetched again: where a part of its output was
    // lost, more is held, not less.
    let again = stats.transferred_size.unwrap_or(0).saturating_sub(new_bytes);
    let there_bytes = stats.total_size.unwrap_or(0).saturating_sub(new_bytes);
    let figures = format!(
        "a first pull would delete {} of {} entries and fetch {} of {} again",
        commas(deleted),
        commas(there),
        bytes(again),
        bytes(there_bytes)
    );
    let allowed = (percent_of(there, ADOPT_DELETE_PERCENT), percent_of(there_bytes, ADOPT_AGAIN_PERCENT));
    if deleted <= allowed.0 && again <= allowed.1 {
        return Verdict::GoOn(figures);
    }
    let sentence = format!(
        "the fleet did not put this tree here, and {figures}; at most {ADOPT_DELETE_PERCENT} % and \
         {ADOPT_AGAIN_PERCENT} % are taken for the same tree"
    );
    let measure = if deleted > allowed.0 { (deleted, allowed.0) } else { (again, allowed.1) };
    let mut names = dry.findings.first_deleted;
    names.extend(dry.findings.first_again);
    names.truncate(EVIDENCE_NAMES_MAX);
    end(held(Kind::Adoption, measure, names, sentence, Fault::Yours))
}

/// Judges the pass that made room; `space` is what there is now.
pub(super) fn judge_reclaim(order: &Order, pass: Ended, space: Space) -> Verdict {
    if pass.outcome.class() != Class::Ok {
        return end(with_deletes(order, pass));
    }
    let freed = format!("removed {} entries", commas(pass.deleted()));
    match space.below_floor() {
        None => Verdict::GoOn(freed),
        Some(lack) => {
            let cause = format!("{freed} that the upstream no longer has, and still {lack}");
            let advice = "free space on the volume by other means; nothing was copied";
            let full = of_class(Class::DiskFull, &cause, Fault::Fleet, advice);
            end(v1::Outcome { stats: pass.outcome.stats, exit_code: pass.outcome.exit_code, ..full })
        }
    }
}

/// The outcome of the last program.
pub(super) fn judge_pull(order: &Order, pull: Ended) -> v1::Outcome {
    if order.dry_run {
        return told(order, pull);
    }
    let size = pull.stats.total_size.unwrap_or(0);
    match order.quota_bytes.filter(|_| !order.waives(Kind::Quota)) {
        Some(quota) if pull.outcome.class() == Class::Ok && size > quota => {
            let sentence = format!("the tree has {}, its quota is {}", bytes(size), bytes(quota));
            on_top(pull.outcome, held(Kind::Quota, (size, quota), Vec::new(), sentence, Fault::Open))
        }
        _ => with_deletes(order, pull),
    }
}

/// What a dry run found. Its own delete limit is no end of it.
fn told(order: &Order, dry: Ended) -> v1::Outcome {
    let (class, stats) = (dry.outcome.class(), &dry.stats);
    if !matches!(class, Class::Ok | Class::MaxDelete | Class::Partial) {
        return dry.outcome;
    }
    let wanted = dry.deleted().saturating_add(dry.outcome.deletes_skipped.unwrap_or(0));
    let (files, size) = (stats.transferred.unwrap_or(0), stats.transferred_size.unwrap_or(0));
    let word = if files == 1 { "file" } else { "files" };
    let sentence =
        format!("would transfer {} {word} ({}), delete {}", commas(files), bytes(size), commas(wanted));
    let evidence =
        evidence(Kind::Deletes, (wanted, order.max_delete()), dry.findings.first_deleted, sentence);
    let mut outcome = v1::Outcome { evidence: Some(evidence), ..dry.outcome };
    if class == Class::MaxDelete {
        outcome.set_class(Class::Ok);
        outcome.cause.clear();
        outcome.fault.clear();
        outcome.advice.clear();
        outcome.deletes_skipped = None;
    }
    outcome
}

/// An outcome, with what was to be deleted where that was too much.
fn with_deletes(order: &Order, pass: Ended) -> v1::Outcome {
    if pass.outcome.class() != Class::MaxDelete {
        return pass.outcome;
    }
    let wanted = pass.deleted().saturating_add(pass.outcome.deletes_skipped.unwrap_or(0));
    let limit = order.max_delete();
    let sentence = format!("{} deletions are wanted, at most {} are allowed", commas(wanted), commas(limit));
    let evidence = evidence(Kind::Deletes, (wanted, limit), pass.findings.first_deleted, sentence);
    v1::Outcome { evidence: Some(evidence), ..pass.outcome }
}

/// What a delete limit stopped, by a dry run after it. rsync's own count lacks each directory that it could not empty:
/// who approved that number would be asked again for these.
pub(super) fn counted(mut stopped: Ended, dry: Ended) -> Ended {
    let skipped = stopped.outcome.deletes_skipped.unwrap_or(0);
    let wanted = dry.deleted();
    if dry.outcome.class() != Class::Ok || wanted < skipped {
        return stopped;
    }
    stopped.findings.first_deleted = dry.findings.first_deleted;
    stopped.outcome.deletes_skipped = Some(wanted);
    stopped
}

/// A guard's stop.
pub(super) fn held(
    kind: Kind,
    measure: (u64, u64),
    names: Vec<String>,
    sentence: String,
    fault: Fault,
) -> v1::Outcome {
    let outcome = of_class(Class::Guard, &sentence, fault, APPROVE);
    v1::Outcome { evidence: Some(evidence(kind, measure, names, sentence)), ..outcome }
}

/// `measure` is what was found and what is allowed.
pub(super) fn evidence(
    kind: Kind,
    measure: (u64, u64),
    names: Vec<String>,
    sentence: String,
) -> v1::Evidence {
    v1::Evidence { kind: kind.into(), wanted: measure.0, allowed: measure.1, names, sentence }
}

/// The outcome where a program has no room to begin; `lack` is what its volume lacks.
pub(super) fn no_room(order: &Order, volume: &Path, lack: &str) -> v1::Outcome {
    let cause = format!("{} holds {}: {lack}", volume.display(), order.destination);
    let advice = if order.moves_from().is_some() {
        MOVE_AGAIN
    } else {
        "free space on the volume, or let mirrorctl project run --reclaim remove what the upstream no longer has; nothing \
         was started"
    };
    of_class(Class::DiskFull, &cause, Fault::Fleet, advice)
}

/// Another meaning of how a program ended.
pub(super) fn on_top(ended: v1::Outcome, meaning: v1::Outcome) -> v1::Outcome {
    v1::Outcome {
        class: meaning.class,
        cause: meaning.cause,
        fault: meaning.fault,
        advice: meaning.advice,
        evidence: meaning.evidence,
        ..ended
    }
}

/// A whole part of a count: less than one is none.
fn percent_of(whole: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(whole) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

/// What ends a program that writes too much. Pulled once.
#[derive(Debug)]
pub(super) struct Brake {
    quota: Option<u64>,
    next_look: Option<Instant>,
}

impl Brake {
    /// For a pass of an attempt.
    pub(super) fn of(pass: Pass, order: &Order, now: Instant) -> Self {
        let writes = pass.writes(order);
        // A tree that moves is as large as it is.
        let guarded = writes && pass != Pass::Copy;
        let quota = match pass {
            // Upstreams lie about sizes.
            Pass::Marker => Some(MARKER_BYTES_MAX),
            _ => order.quota_bytes.filter(|_| guarded && !order.waives(Kind::Quota)),
        };
        Self { quota, next_look: writes.then(|| now + VOLUME_PACE) }
    }

    /// Whether the volume is to be looked at again.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.next_look.is_some_and(|next| next <= now);
        if due {
            self.next_look = Some(now + VOLUME_PACE);
        }
        due
    }

    /// Why the program is to end: by what the volume lacks, or by what was transferred.
    pub(super) fn judge(&self, lack: Option<&str>, transferred: u64) -> Option<String> {
        let over = self.quota.is_some_and(|quota| transferred > quota);
        match lack {
            Some(lack) => Some(format!("{VOLUME_BRAKE}{lack}")),
            None => over.then(|| format!("{QUOTA_BRAKE}{transferred}")),
        }
    }
}

/// The outcome of a program that a brake ended, from the reason it was ended with; any other outcome as it is.
pub(super) fn of_stop(ended: v1::Outcome, reason: &str, pass: Pass, order: &Order) -> v1::Outcome {
    if let Some(lack) = reason.strip_prefix(VOLUME_BRAKE) {
        let cause = format!("the volume of {} ran full while rsync wrote to it: {lack}", order.destination);
        let advice = if order.moves_from().is_some() {
            MOVE_AGAIN
        } else {
            "free space on the volume; what was copied is intact, and mirrorctl project run --reclaim removes what the \
             upstream no longer has"
        };
        return on_top(ended, of_class(Class::DiskFull, &cause, Fault::Fleet, advice));
    }
    if pass == Pass::Marker && reason.starts_with(QUOTA_BRAKE) {
        let cause = "the marker is larger than the upstream said";
        return on_top(ended, of_class(Class::WallClock, cause, Fault::Upstream, "tell its administrators"));
    }
    let transferred = reason.strip_prefix(QUOTA_BRAKE).and_then(|bytes| bytes.parse().ok());
    let (Some(transferred), Some(quota)) = (transferred, order.quota_bytes) else { return ended };
    let sentence = format!("{} were transferred, the tree's quota is {}", bytes(transferred), bytes(quota));
    on_top(ended, held(Kind::Quota, (transferred, quota), Vec::new(), sentence, Fault::Open))
}

#[cfg(test)]
mod tests;
