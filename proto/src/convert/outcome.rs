//! How attempts end: rsync's diagnosis in the fleet's words, and those words on the wire. What agents report is
//! bounded here, since it ends in records and on terminals. Does not decide what follows from an end.

use fleet::{
    outcome::{EVIDENCE_NAME_CHARS_MAX, EVIDENCE_NAMES_MAX, Evidence, ExitClass, Outcome, Stats},
    refusal::Violation,
    time::Wall,
};
use rsync::text::printable;

use super::{
    cut,
    enums::wire,
    marker::{marker_seen_from_wire, marker_seen_to_wire},
    time::{required_wall, wall_to_wire},
};
use crate::v1;

/// Longest cause, in bytes.
pub const CAUSE_BYTES_MAX: usize = 1 << 10;
/// Longest advice, in characters.
pub const ADVICE_CHARS_MAX: usize = 500;

const FAULT_OPEN: &str = "open";
/// Whose fault an end may be.
const FAULTS: [&str; 5] = ["upstream", "fleet", "network", "yours", FAULT_OPEN];

/// The fleet's class for rsync's.
#[must_use]
pub fn class_of_rsync(class: rsync::Class) -> ExitClass {
    use rsync::Class as C;
    match class {
        // What vanished at the upstream while rsync ran is not there any more: the copy is good.
        C::Ok | C::OkVanished => ExitClass::Ok,
        C::Partial => ExitClass::Partial,
        C::MaxDelete => ExitClass::MaxDelete,
        C::Busy => ExitClass::Busy,
        C::Auth => ExitClass::Auth,
        C::NotFound => ExitClass::NotFound,
        C::Refused => ExitClass::Refused,
        C::DiskFull => ExitClass::DiskFull,
        C::LocalIo => ExitClass::LocalIo,
        C::Internal => ExitClass::Internal,
        C::Timeout => ExitClass::Timeout,
        C::Stalled => ExitClass::Stalled,
        C::WallClock => ExitClass::WallClock,
        C::Network => ExitClass::Network,
        C::Protocol => ExitClass::Protocol,
        C::Cancelled => ExitClass::Cancelled,
        C::Config => ExitClass::Config,
    }
}

/// The fleet's word for whose fault it is.
#[must_use]
pub fn fault_of_rsync(fault: rsync::Fault) -> &'static str {
    match fault {
        rsync::Fault::Upstream => "upstream",
        rsync::Fault::Fleet => "fleet",
        rsync::Fault::Network => "network",
        rsync::Fault::Yours => "yours",
        rsync::Fault::Open => FAULT_OPEN,
    }
}

/// The fleet's numbers for rsync's; `None` when rsync printed none. Files are counted as rsync counts them for
/// the delete limit: directories and links are among them.
#[must_use]
pub fn stats_of_rsync(stats: &rsync::Stats) -> Option<Stats> {
    if *stats == rsync::Stats::default() {
        return None;
    }
    let total = |count: Option<rsync::stats::Count>| count.map_or(0, |count| count.total);
    Some(Stats {
        files: total(stats.files),
        created: total(stats.created),
        deleted: total(stats.deleted),
        transferred: stats.transferred.unwrap_or(0),
        total_bytes: stats.total_size.unwrap_or(0),
        transferred_bytes: stats.transferred_size.unwrap_or(0),
        received_bytes: stats.received.unwrap_or(0),
        sent_bytes: stats.sent.unwrap_or(0),
    })
}

/// The outcome of an attempt for which rsync ran: `end` is how the process ended, `now` when.
#[must_use]
pub fn outcome_of_rsync(
    end: rsync::ExitCode,
    diagnosis: &rsync::Diagnosis,
    stats: &rsync::Stats,
    now: Wall,
) -> Outcome {
    let (exit_code, signal) = match end {
        rsync::ExitCode::Code(code) => (Some(code), None),
        rsync::ExitCode::Signal(signal) => (None, Some(signal)),
        rsync::ExitCode::Stalled | rsync::ExitCode::WallClock => (None, None),
    };
    Outcome {
        class: class_of_rsync(diagnosis.class),
        exit_code,
        signal,
        cause: bounded_cause(&diagnosis.cause),
        fault: diagnosis.fault.map(fault_of_rsync).unwrap_or_default().to_owned(),
        advice: bounded_advice(&diagnosis.advice),
        stats: stats_of_rsync(stats),
        deletes_skipped: diagnosis.deletions_skipped,
        evidence: None,
        marker: None,
        time: now,
    }
}

/// The wire's form of an outcome.
#[must_use]
pub fn outcome_to_wire(outcome: &Outcome) -> v1::Outcome {
    let Outcome {
        class,
        exit_code,
        signal,
        cause,
        fault,
        advice,
        stats,
        deletes_skipped,
        evidence,
        marker,
        time,
    } = outcome;
    v1::Outcome {
        class: wire::exit_class::number(*class),
        exit_code: *exit_code,
        signal: *signal,
        cause: bounded_cause(cause),
        fault: fault.clone(),
        advice: bounded_advice(advice),
        stats: stats.as_ref().map(stats_to_wire),
        end_time: Some(wall_to_wire(*time)),
        deletes_skipped: *deletes_skipped,
        evidence: evidence.as_ref().map(evidence_to_wire),
        marker: marker.as_deref().map(marker_seen_to_wire),
    }
}

/// The wire's form of what a guard found.
#[must_use]
pub fn evidence_to_wire(evidence: &Evidence) -> v1::Evidence {
    let Evidence { kind, wanted, allowed, names, sentence } = evidence;
    v1::Evidence {
        kind: wire::guard_kind::number(*kind),
        wanted: *wanted,
        allowed: *allowed,
        names: names.iter().take(EVIDENCE_NAMES_MAX).map(|name| bounded_name(name)).collect(),
        sentence: bounded_advice(sentence),
    }
}

/// Reads what a guard found; `None` where it is of a kind that this program does not know. Texts are made printable
/// and cut.
#[must_use]
pub fn evidence_from_wire(wire: &v1::Evidence) -> Option<Evidence> {
    Some(Evidence {
        kind: wire::guard_kind::read(wire.kind)?,
        wanted: wire.wanted,
        allowed: wire.allowed,
        names: wire.names.iter().take(EVIDENCE_NAMES_MAX).map(|name| bounded_name(name)).collect(),
        sentence: bounded_advice(&wire.sentence),
    })
}

/// Strangers choose the names of files.
fn bounded_name(name: &str) -> String {
    let text = printable(name.as_bytes(), EVIDENCE_NAME_CHARS_MAX);
    text.chars().take(EVIDENCE_NAME_CHARS_MAX).collect()
}

/// Reads an outcome that an agent reports. Texts are made printable and cut rather than refused: the report is
/// about something that has happened.
///
/// # Errors
/// A missing or malformed time.
pub fn outcome_from_wire(wire: &v1::Outcome) -> Result<Outcome, Violation> {
    // A class of a newer agent is a failure that we cannot name; refusing its report would bring it back for ever.
    let class = wire::exit_class::read(wire.class).unwrap_or(ExitClass::Internal);
    let known = |word: &&str| wire.fault.is_empty() || *word == wire.fault;
    Ok(Outcome {
        class,
        exit_code: wire.exit_code,
        signal: wire.signal,
        cause: bounded_cause(&wire.cause),
        fault: if FAULTS.iter().any(known) { wire.fault.clone() } else { FAULT_OPEN.to_owned() },
        advice: bounded_advice(&wire.advice),
        stats: wire.stats.as_ref().map(stats_from_wire),
        deletes_skipped: wire.deletes_skipped,
        evidence: wire.evidence.as_ref().and_then(evidence_from_wire),
        marker: wire.marker.as_ref().and_then(marker_seen_from_wire).map(Box::new),
        time: required_wall("outcome.end_time", wire.end_time.as_ref())?,
    })
}

fn stats_to_wire(stats: &Stats) -> v1::Stats {
    let Stats {
        files,
        created,
        deleted,
        transferred,
        total_bytes,
        transferred_bytes,
        received_bytes,
        sent_bytes,
    } = *stats;
    v1::Stats {
        files,
        created,
        deleted,
        transferred,
        total_bytes,
        transferred_bytes,
        received_bytes,
        sent_bytes,
    }
}

fn stats_from_wire(stats: &v1::Stats) -> Stats {
    let v1::Stats {
        files,
        created,
        deleted,
        transferred,
        total_bytes,
        transferred_bytes,
        received_bytes,
        sent_bytes,
    } = *stats;
    Stats { files, created, deleted, transferred, total_bytes, transferred_bytes, received_bytes, sent_bytes }
}

/// Strangers choose the words of a cause: control characters become text, and it is cut.
fn bounded_cause(cause: &str) -> String {
    cut(&printable(cause.as_bytes(), CAUSE_BYTES_MAX), CAUSE_BYTES_MAX).to_owned()
}

fn bounded_advice(advice: &str) -> String {
    let text = printable(advice.as_bytes(), ADVICE_CHARS_MAX);
    text.chars().take(ADVICE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use rsync::{ExitCode, exit::diagnose};

    use super::*;

    #[test]
    fn outcomes_of_all_classes_go_out_and_come_back() {
        for class in ExitClass::ALL {
            let outcome = Outcome {
                exit_code: Some(23),
                signal: Some(9),
                cause: "grün: Permission denied (13)".to_owned(),
                fault: "upstream".to_owned(),
                advice: "tell the upstream".to_owned(),
                stats: Some(Stats { files: 1, created: 2, deleted: 3, transferred: 4, ..Stats::default() }),
                deletes_skipped: Some(7),
                time: Wall(1_763_624_530_123),
                ..Outcome::of_class(class)
            };
            assert_eq!(outcome_from_wire(&outcome_to_wire(&outcome)), Ok(outcome));
        }
    }

    #[test]
    fn what_an_agent_reports_is_bounded() {
        let wire = v1::Outcome {
            class: v1::outcome::Class::Network.into(),
            cause: "ä\u{1b}[2J".repeat(1_000),
            fault: "nobody's".to_owned(),
            advice: "ü\n".repeat(1_000),
            end_time: Some(prost_types::Timestamp::default()),
            ..v1::Outcome::default()
        };
        let outcome = outcome_from_wire(&wire).unwrap();
        assert!(outcome.cause.len() <= CAUSE_BYTES_MAX && !outcome.cause.contains('\u{1b}'));
        assert!(outcome.advice.chars().count() <= ADVICE_CHARS_MAX && !outcome.advice.contains('\n'));
        assert_eq!(outcome.fault, "open");
        let again = outcome_from_wire(&outcome_to_wire(&outcome)).unwrap();
        assert_eq!(again, outcome);
    }

    #[test]
    fn a_class_we_do_not_know_is_internal_and_a_missing_time_is_a_fault() {
        let wire = outcome_to_wire(&Outcome::of_class(ExitClass::Ok));
        for class in [0, 99] {
            let read = outcome_from_wire(&v1::Outcome { class, ..wire.clone() }).unwrap();
            assert_eq!(read.class, ExitClass::Internal);
        }
        let no_time = outcome_from_wire(&v1::Outcome { end_time: None, ..wire }).unwrap_err();
        assert_eq!(no_time.field, "outcome.end_time");
    }

    #[test]
    fn what_rsync_says_becomes_an_outcome() {
        let stats = counted();
        let stderr = b"@ERROR: auth failed on module debian\nrsync error: error starting client-server protocol (code 5)\n";
        let end = ExitCode::Code(5);
        let outcome = outcome_of_rsync(end, &diagnose(end, stderr, &stats), &stats, Wall(7));
        assert_eq!((outcome.class, outcome.exit_code, outcome.signal), (ExitClass::Auth, Some(5), None));
        assert_eq!((outcome.fault.as_str(), outcome.time), ("yours", Wall(7)));
        assert!(outcome.cause.contains("auth failed"), "{}", outcome.cause);
        let counts = outcome.stats.unwrap();
        assert_eq!((counts.files, counts.transferred), (12, 4));

        let none = rsync::Stats::default();
        let end = ExitCode::Signal(9);
        let killed = outcome_of_rsync(end, &diagnose(end, b"", &none), &none, Wall(7));
        assert_eq!((killed.exit_code, killed.signal, killed.stats), (None, Some(9), None));
        let end = ExitCode::Stalled;
        let stalled = outcome_of_rsync(end, &diagnose(end, b"", &none), &none, Wall(7));
        assert_eq!((stalled.class, stalled.exit_code), (ExitClass::Stalled, None));
    }

    fn counted() -> rsync::Stats {
        let mut stats = rsync::Stats::default();
        assert!(stats.absorb("Number of files: 12 (reg: 10, dir: 2)"));
        assert!(stats.absorb("Number of regular files transferred: 4"));
        stats
    }
}
