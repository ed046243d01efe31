//! Errors as people read them: what failed, why, whose fault, and what to do next; all faults of one input at once.
//!
//! ```text
//! error: project not created: 2 faults in what you typed
//!   NAME    "deb/ian": only letters, digits and . _ + - (at most 63)
//!   --from  "rsnc://h/debian": unknown scheme; rsync:// or rsync+ssh://
//! next: mirrorctl project add --help
//! ```

use std::error::Error as _;
use std::fmt;

use tonic::{Code, Status};

use crate::exit::Exit;
use crate::fields;
use crate::units::clean;

/// Stands in [`Fault::next`] for the command line that was typed; the program puts it in before it prints.
pub const AGAIN: &str = "{again}";

/// Reasons of the coordinator that a new login cures.
const LOG_IN_AGAIN: [&str; 4] = ["TOKEN_NOT_GOOD", "SHUT_OUT", "NO_IDENTITY", "CERTIFICATE_EXPIRED"];

/// A command's bad end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The exit code.
    pub exit: Exit,
    /// What failed, with names as typed, and why.
    pub what: String,
    /// More lines: where (a flag, `fault`), and what is wrong there.
    pub details: Vec<(String, String)>,
    /// A command that works when pasted.
    pub next: Option<String>,
}

/// The result of nearly everything here.
pub type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// A fault without details.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), details: Vec::new(), next: None }
    }

    /// Adds the command to run next.
    #[must_use]
    pub fn next(mut self, command: impl Into<String>) -> Self {
        self.next = Some(command.into());
        self
    }

    /// Adds a line.
    #[must_use]
    pub fn detail(mut self, label: impl Into<String>, text: impl Into<String>) -> Self {
        self.details.push((label.into(), text.into()));
        self
    }

    /// Says whose fault it is.
    #[must_use]
    pub fn fault(self, whose: &str) -> Self {
        self.detail("fault", whose)
    }

    /// Standard output was closed by its reader, as `head` does: nothing to say, and no failure.
    #[must_use]
    pub fn reader_gone() -> Self {
        Self::new(Exit::Done, "")
    }

    /// What the coordinator answered to a request that was to do something; `failed` says what did not happen, as in
    /// `project not created`.
    #[must_use]
    pub fn from_status(failed: &str, status: &Status) -> Self {
        let answer = mirror_proto::status::Fault::from(status);
        if !answer.violations.is_empty() {
            let input = Self::of_input(failed, violations(status));
            return match status.code() {
                // What was typed is right, and the fleet is not ready for it.
                code @ Code::FailedPrecondition => {
                    Self { exit: Exit::of(code), what: clean(status.message()), ..input }
                }
                _ => input,
            };
        }
        if let Some(fault) = transport(failed, status) {
            return fault;
        }
        let message = clean(status.message());
        let fault = match status.code() {
            Code::Internal | Code::Unknown | Code::DataLoss => {
                Self::new(Exit::Bug, format!("{failed}: {message}"))
                    .fault("this fleet's software; the coordinator's log says more")
            }
            Code::Unimplemented => Self::new(
                Exit::BadAnswer,
                format!(
                    "{failed}: the coordinator does not know this request; it is older than this mirrorctl"
                ),
            ),
            Code::DeadlineExceeded | Code::Cancelled => Self::new(
                Exit::Unreachable,
                format!("{failed}: no answer in time; what was asked may still happen"),
            )
            .next(AGAIN),
            Code::Unauthenticated if LOG_IN_AGAIN.contains(&answer.reason.as_str()) => {
                Self::new(Exit::NotAllowed, format!("{failed}: {message}")).next("mirrorctl login USER")
            }
            code => Self::new(Exit::of(code), message),
        };
        match answer.retry {
            Some(delay) if fault.next.is_none() => {
                fault.next(format!("sleep {}; {AGAIN}", delay.as_secs().max(1)))
            }
            _ => fault,
        }
    }

    /// All faults of what was typed.
    #[must_use]
    pub fn of_input(failed: &str, details: Vec<(String, String)>) -> Self {
        let count = details.len();
        let plural = if count == 1 { "" } else { "s" };
        Self {
            exit: Exit::BadInput,
            what: format!("{failed}: {count} fault{plural} in what you typed"),
            details,
            next: None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", without_numbers(&self.what))?;
        let width = self.details.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, text) in &self.details {
            writeln!(f, "  {label:width$}  {}", without_numbers(text))?;
        }
        match &self.next {
            Some(next) => writeln!(f, "next: {next}"),
            None => Ok(()),
        }
    }
}

/// A system's message without the number that the standard library adds to it: ` (os error 2)`.
fn without_numbers(text: &str) -> String {
    const MARK: &str = " (os error ";
    let mut parts = text.split(MARK);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => plain.push_str(rest),
            _ => plain.push_str(&format!("{MARK}{part}")),
        }
    }
    plain
}

/// Faults of what was typed, collected until the end so that all are told at once.
#[derive(Debug, Default)]
pub struct Faults(Vec<(String, String)>);

impl Faults {
    /// Notes a fault.
    pub fn add(&mut self, label: impl Into<String>, text: impl fmt::Display) {
        self.0.push((label.into(), text.to_string()));
    }

    /// The value, or nothing and a noted fault.
    pub fn check<T, E: fmt::Display>(&mut self, label: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(label, error)).ok()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ends well when nothing was noted.
    ///
    /// # Errors
    /// All that was noted.
    pub fn finish(self, failed: &str, next: &str) -> Outcome<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Fault::of_input(failed, self.0).next(next)) }
    }

    /// These faults, of which there is at least one.
    #[must_use]
    pub fn into_fault(self, failed: &str) -> Fault {
        Fault::of_input(failed, self.0)
    }

    /// These faults and those that the coordinator found in the rest; where both speak of one flag, ours was the
    /// reason why the coordinator saw nothing there.
    #[must_use]
    pub fn with_answer(mut self, failed: &str, status: &Status) -> Fault {
        for (label, text) in violations(status) {
            if !self.0.iter().any(|(known, _)| *known == label) {
                self.0.push((label, text));
            }
        }
        Fault::of_input(failed, self.0)
    }
}

/// The field faults of an answer, with the names of the command line.
fn violations(status: &Status) -> Vec<(String, String)> {
    let answer = mirror_proto::status::Fault::from(status);
    answer.violations.iter().map(|one| (fields::typed(&one.field), clean(&one.description))).collect()
}

/// A connection that broke, or a peer that did not want us.
fn transport(failed: &str, status: &Status) -> Option<Fault> {
    let mut reason = None;
    let mut source = status.source();
    while let Some(error) = source {
        let text = error.to_string();
        if text.contains("received fatal alert") {
            return Some(
                Fault::new(
                    Exit::NotAllowed,
                    format!("{failed}: the coordinator refuses this certificate ({text})"),
                )
                .fault("yours: the certificate is expired, revoked or of another fleet")
                .next("mirrorctl context show"),
            );
        }
        reason = Some(text);
        source = error.source();
    }
    let reason = reason?;
    Some(
        Fault::new(
            Exit::Unreachable,
            format!("{failed}: the connection to the coordinator broke ({})", clean(&reason)),
        )
        .fault(
            "the network's, the coordinator stopped, or it closed on a certificate that is not of its fleet; \
             syncs go on without it",
        )
        .next("mirrorctl context show"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::{ErrorDetails, StatusExt as _};

    fn invalid() -> Status {
        let mut details = ErrorDetails::new();
        details
            .add_bad_request_violation("project.schedule.cron.minute", "\"*/70\": the step must be 1 to 59");
        details.add_bad_request_violation("project.upstreams[0].uri", "\"rsnc://h\": unknown scheme");
        Status::with_error_details(Code::InvalidArgument, "project: 2 faults", details)
    }

    #[test]
    fn field_faults_carry_the_names_that_were_typed() {
        let fault =
            Fault::from_status("project not created", &invalid()).next("mirrorctl project add --help");
        assert_eq!(fault.exit, Exit::BadInput);
        assert_eq!(
            fault.to_string(),
            "error: project not created: 2 faults in what you typed\n  \
             --cron minute  \"*/70\": the step must be 1 to 59\n  \
             --from         \"rsnc://h\": unknown scheme\n\
             next: mirrorctl project add --help\n"
        );
    }

    #[test]
    fn what_the_fleet_is_not_ready_for_is_no_fault_of_what_was_typed() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("projects/debian", "agent \"ftp2\" has no root \"a1\"");
        details.add_bad_request_violation("replacement", "agent \"ftp2\" is being drained");
        let text = "agent \"ftp1\" not replaced: 2 things are in the way";
        let status = Status::with_error_details(Code::FailedPrecondition, text, details);
        let fault = Fault::from_status("agent not replaced", &status);
        assert_eq!(fault.exit, Exit::of(Code::FailedPrecondition));
        assert_eq!(
            fault.to_string(),
            "error: agent \"ftp1\" not replaced: 2 things are in the way\n  \
             projects/debian  agent \"ftp2\" has no root \"a1\"\n  \
             NEW              agent \"ftp2\" is being drained\n"
        );
    }

    #[test]
    fn own_faults_and_the_coordinators_are_one_list() {
        let mut faults = Faults::default();
        faults.add("--jitter", "\"5x\": a span is a number with a unit");
        faults.add("--from", "not read");
        let text = faults.with_answer("project not created", &invalid()).to_string();
        assert!(text.starts_with("error: project not created: 3 faults"), "{text}");
        assert!(text.contains("--from         not read\n") && !text.contains("unknown scheme"), "{text}");
    }

    #[test]
    fn system_messages_lose_their_number() {
        let text = "could not read x: No such file or directory (os error 2); see (os error)";
        assert_eq!(without_numbers(text), "could not read x: No such file or directory; see (os error)");
        assert_eq!(without_numbers("a (os error x) b"), "a (os error x) b");
    }

    #[test]
    fn other_answers_speak_for_themselves() {
        let status = Status::permission_denied("you may not pause fedora: you own debian, gnu");
        let fault = Fault::from_status("project not paused", &status);
        assert_eq!(fault.to_string(), "error: you may not pause fedora: you own debian, gnu\n");
        assert_eq!(fault.exit, Exit::NotAllowed);
        assert_eq!(Fault::from_status("x", &Status::internal("boom")).exit, Exit::Bug);
    }

    #[test]
    fn a_busy_coordinator_says_when_to_come_back() {
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(std::time::Duration::from_secs(5)));
        let status = Status::with_error_details(Code::ResourceExhausted, "too many requests", details);
        let fault = Fault::from_status("project not created", &status);
        assert_eq!(fault.to_string(), "error: too many requests\nnext: sleep 5; {again}\n");
        assert_eq!(fault.exit, Exit::Unreachable);
    }
}
