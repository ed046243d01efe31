//! The exit codes: the one table that `--help`, the manual and the code share.

use std::process::ExitCode;

use tonic::Code;

/// How a command ended. Scripts may rely on the numbers; unknown ones are failures, and new ones may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done. An empty list, a `why` and an exhausted schedule are answers, too.
    Done = 0,
    /// Done, and the answer is a bad one: `project check`, `project explain` or `housekeeping run` tells of a fault, with
    /// `--exit-code` `status` of projects that are not fresh and `plan` of changes. Or an older coordinator has no answer.
    BadAnswer = 1,
    /// What was typed, or a configuration file, is wrong. Nothing was changed.
    BadInput = 2,
    /// There is no such project, run or agent.
    NotFound = 3,
    /// Not logged in, or not allowed.
    NotAllowed = 4,
    /// It exists already, was changed meanwhile, or is not in a state that allows this; of an `apply` some steps were left
    /// out.
    Conflict = 5,
    /// The coordinator is unreachable, busy or too slow: try again.
    Unreachable = 6,
    /// A question was answered with no, or could not be asked.
    Unconfirmed = 7,
    /// Of several that were to be done some failed; each was told, and the others are done.
    SomeFailed = 8,
    /// The watched run failed.
    RunFailed = 10,
    /// The watched run was held by a guard.
    RunHeld = 11,
    /// The watched run was cancelled.
    RunCancelled = 12,
    /// The watched run's origin is good, but a connected replica failed.
    ReplicaFailed = 13,
    /// A fault of this software, or of the machine it runs on: what was answered could not be written.
    Bug = 70,
    /// Ctrl-C.
    Interrupted = 130,
}

/// The table as people read it, below `mirrorctl --help` and in the manual.
pub const HELP: &str = "\
Exit codes (unknown ones are failures; new ones may come):
    0  done; a why, an empty list and an exhausted schedule too
    1  bad answer: project check, project explain or housekeeping run tells of a fault;
       with --exit-code: not all projects are fresh (status), something differs (plan);
       or the coordinator is too old for the question
    2  bad input
    3  not found
    4  not logged in, or not allowed
    5  conflict: exists, changed meanwhile, or not in this state; apply: not all applied
    6  coordinator unreachable, busy or too late: try again
    7  confirmation refused or impossible
    8  of several, some failed: each is told, the others are done
   10  watched run failed
   11  watched run held
   12  watched run cancelled
   13  watched run: origin good, but a connected replica failed
   70  our bug, or the answer could not be written
  130  Ctrl-C";

impl Exit {
    /// What a gRPC status means for a command.
    #[must_use]
    pub fn of(code: Code) -> Self {
        match code {
            Code::Ok => Self::Done,
            Code::InvalidArgument | Code::OutOfRange => Self::BadInput,
            Code::NotFound => Self::NotFound,
            Code::Unauthenticated | Code::PermissionDenied => Self::NotAllowed,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Self::Conflict,
            // Cancelled is what a client-side deadline looks like in tonic.
            Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled => {
                Self::Unreachable
            }
            // An older coordinator that lacks the rpc is a bad answer, not a crash.
            Code::Unimplemented => Self::BadAnswer,
            Code::Internal | Code::Unknown | Code::DataLoss => Self::Bug,
        }
    }

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_code_once() {
        // A row may go on below its code, further in.
        let codes: Vec<u8> = HELP
            .lines()
            .skip(1)
            .filter(|line| !line.starts_with("       "))
            .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
            .collect();
        let known = [
            Exit::Done,
            Exit::BadAnswer,
            Exit::BadInput,
            Exit::NotFound,
            Exit::NotAllowed,
            Exit::Conflict,
            Exit::Unreachable,
            Exit::Unconfirmed,
            Exit::SomeFailed,
            Exit::RunFailed,
            Exit::RunHeld,
            Exit::RunCancelled,
            Exit::ReplicaFailed,
            Exit::Bug,
            Exit::Interrupted,
        ];
        assert_eq!(codes, known.map(Exit::code));
    }

    #[test]
    fn statuses_become_documented_codes() {
        for (code, exit) in [
            (Code::InvalidArgument, 2),
            (Code::NotFound, 3),
            (Code::PermissionDenied, 4),
            (Code::Unauthenticated, 4),
            (Code::AlreadyExists, 5),
            (Code::Aborted, 5),
            (Code::FailedPrecondition, 5),
            (Code::Unavailable, 6),
            (Code::ResourceExhausted, 6),
            (Code::DeadlineExceeded, 6),
            (Code::Internal, 70),
        ] {
            assert_eq!(Exit::of(code).code(), exit, "{code:?}");
        }
    }
}
