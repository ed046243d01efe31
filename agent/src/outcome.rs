//! How an attempt ended, in the words of the wire: from what rsync left, and from what stopped it before. Decides
//! nothing about trying again: the coordinator does, by the class.

use std::error::Error;

use fleet::time::Wall;
use mirror_proto::convert::{
    CAUSE_BYTES_MAX, fault_of_rsync, outcome_of_rsync, outcome_to_wire, wall_to_wire,
};
use mirror_proto::v1;
use mirror_proto::v1::outcome::Class;
use rsync::exit::{ExitCode, diagnose};
use rsync::{Fault, Stats};

use crate::clock;
use crate::rundir::{EndedBy, ProgramExit};

/// The exit code of rsync that says that all went well.
const RSYNC_OK: i32 = 0;

/// What rsync said when it ended.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The end of its error output.
    pub stderr: &'a [u8],
    /// Its closing numbers.
    pub stats: &'a Stats,
}

/// The outcome of a run of rsync.
#[must_use]
pub fn of_exit(exit: &ProgramExit, evidence: Evidence<'_>) -> v1::Outcome {
    let by_itself = match (exit.code, exit.signal) {
        (Some(code), _) => ExitCode::Code(code),
        (None, signal) => ExitCode::Signal(signal.unwrap_or(0)),
    };
    let ended = Wall(i64::try_from(exit.ended_ms).unwrap_or(i64::MAX));
    let diagnosed = |end| {
        let diagnosis = diagnose(end, evidence.stderr, evidence.stats);
        outcome_to_wire(&outcome_of_rsync(end, &diagnosis, evidence.stats, ended))
    };
    let by_rsync = diagnosed(by_itself);
    let stats = by_rsync.stats;
    let outcome = match &exit.ended_by {
        // It may have got to its end before the wish reached it: then that is how it ended.
        EndedBy::Stop(reason) if exit.code != Some(RSYNC_OK) => cancelled(reason),
        EndedBy::Itself | EndedBy::Stop(_) => by_rsync,
        EndedBy::Stalled => diagnosed(ExitCode::Stalled),
        EndedBy::WallClock => diagnosed(ExitCode::WallClock),
        EndedBy::SupervisorFault(text) => {
            of_class(Class::Internal, text, Fault::Fleet, "look at the agent's own messages on its host")
        }
    };
    v1::Outcome {
        exit_code: exit.code,
        signal: exit.signal,
        stats,
        end_time: Some(wall_to_wire(ended)),
        ..outcome
    }
}

/// An outcome of our own.
#[must_use]
pub fn of_class(class: Class, cause: &str, fault: Fault, advice: &str) -> v1::Outcome {
    let mut cause = rsync::text::printable(cause.as_bytes(), CAUSE_BYTES_MAX);
    crate::text::cut(&mut cause, CAUSE_BYTES_MAX);
    v1::Outcome {
        class: class.into(),
        cause,
        fault: fault_of_rsync(fault).to_owned(),
        advice: advice.to_owned(),
        end_time: Some(clock::wire_now()),
        ..v1::Outcome::default()
    }
}

/// Ended on request.
#[must_use]
pub fn cancelled(reason: &str) -> v1::Outcome {
    let outcome = of_class(Class::Cancelled, reason, Fault::Open, "nothing to do: it was ended on request");
    v1::Outcome { fault: String::new(), ..outcome }
}

/// The program's supervisor is gone and nobody knows how the program ended.
#[must_use]
pub fn interrupted(cause: &str) -> v1::Outcome {
    of_class(Class::Interrupted, cause, Fault::Fleet, "nothing to do: it is tried again")
}

/// Something of this host's own failed: full disks are told from other faults.
#[must_use]
pub fn of_local_error(doing: &str, error: &(dyn Error + 'static)) -> v1::Outcome {
    let cause = format!("{doing}: {}", chain(error));
    if is_disk_full(error) {
        let advice = "free space on the volume that is named; what was copied before is intact";
        return of_class(Class::DiskFull, &cause, Fault::Fleet, advice);
    }
    of_class(Class::LocalIo, &cause, Fault::Fleet, "look at this host's disks and permissions")
}

/// An error with all that caused it, on one line.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if matches!(kind, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: Option<i32>, ended_by: EndedBy) -> ProgramExit {
        ProgramExit {
            code,
            signal: code.is_none().then_some(9),
            ended_by,
            started_ms: 1_000,
            ended_ms: 2_500,
            stdout_bytes: 0,
            stderr_bytes: 0,
            truncated: false,
        }
    }

    fn judge(code: Option<i32>, ended_by: EndedBy, stderr: &str) -> v1::Outcome {
        let mut stats = Stats::default();
        stats.complete = true;
        of_exit(&exit(code, ended_by), Evidence { stderr: stderr.as_bytes(), stats: &stats })
    }

    #[test]
    fn classes_of_ends() {
        let stop = || EndedBy::Stop("maria wants it".into());
        for (code, by, stderr, expected) in [
            (Some(0), EndedBy::Itself, "", Class::Ok),
            (Some(24), EndedBy::Itself, "", Class::Ok),
            (Some(5), EndedBy::Itself, "@ERROR: max connections (1) reached -- try again later", Class::Busy),
            (Some(11), EndedBy::Itself, "write failed: No space left on device (28)", Class::DiskFull),
            (Some(20), stop(), "", Class::Cancelled),
            (None, stop(), "", Class::Cancelled),
            (Some(0), stop(), "", Class::Ok),
            (Some(20), EndedBy::Stalled, "", Class::Stalled),
            (Some(20), EndedBy::WallClock, "", Class::WallClock),
            (None, EndedBy::SupervisorFault("fork failed".into()), "", Class::Internal),
            (None, EndedBy::Itself, "", Class::Internal),
        ] {
            let outcome = judge(code, by.clone(), stderr);
            assert_eq!(outcome.class(), expected, "{code:?} {by:?}");
            assert_eq!((outcome.exit_code, outcome.end_time.unwrap().seconds), (code, 2));
        }
        assert_eq!(judge(Some(20), stop(), "").cause, "maria wants it");
    }

    #[test]
    fn a_full_disk_is_found_below_other_errors() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot make it")]
        struct Above(#[source] std::io::Error);
        let full = of_local_error("preflight", &Above(std::io::ErrorKind::StorageFull.into()));
        assert_eq!(full.class(), Class::DiskFull);
        let other = of_local_error("preflight", &Above(std::io::ErrorKind::PermissionDenied.into()));
        assert_eq!(other.class(), Class::LocalIo);
        assert!(other.cause.starts_with("preflight: cannot make it: permission denied"), "{}", other.cause);
    }

    #[test]
    fn causes_are_bounded_and_printable() {
        let outcome = of_class(Class::Internal, &format!("\x1b[31m{}", "ä".repeat(5_000)), Fault::Open, "");
        assert!(outcome.cause.len() <= CAUSE_BYTES_MAX && outcome.cause.starts_with("\\x1b[31m"));
    }
}
