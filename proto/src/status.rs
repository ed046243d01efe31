//! A no on its way to a client and back: [`Refusal`] → [`Status`] with `google.rpc` details, and [`Status`] →
//! [`Fault`]. The only place that knows gRPC's codes. Does not decide what is refused.

use std::{collections::HashMap, fmt, time::Duration};

use fleet::refusal::{Refusal, RefusalCode, Violation};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of every reason.
pub const DOMAIN: &str = "mirror.v1";
/// When a client may ask again after a limit was reached.
pub const RETRY_AFTER: Duration = Duration::from_secs(30);
/// Longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 512;
/// Most bytes of all faults together. A status travels in HTTP headers, base64-coded, of which many clients
/// accept 8 KiB in all: a longer one would reach nobody.
pub const VIOLATIONS_BYTES_MAX: usize = 3 << 10;
/// What the coding of one fault costs besides its texts, at most, in bytes.
const VIOLATION_OVERHEAD_BYTES: usize = 12;

/// The status of a refusal.
#[must_use]
pub fn refusal_to_status(refusal: &Refusal) -> Status {
    let code = match refusal.code {
        RefusalCode::InvalidArgument => Code::InvalidArgument,
        RefusalCode::NotFound => Code::NotFound,
        RefusalCode::AlreadyExists => Code::AlreadyExists,
        RefusalCode::FailedPrecondition => Code::FailedPrecondition,
        RefusalCode::Aborted => Code::Aborted,
        RefusalCode::ResourceExhausted => Code::ResourceExhausted,
        RefusalCode::PermissionDenied => Code::PermissionDenied,
        RefusalCode::Unauthenticated => Code::Unauthenticated,
    };
    let retry = (code == Code::ResourceExhausted).then_some(RETRY_AFTER);
    status(code, refusal.reason, &refusal.message, &refusal.violations, retry)
}

/// The coordinator cannot answer now; `retry` later it may.
#[must_use]
pub fn unavailable(reason: &'static str, message: &str, retry: Duration) -> Status {
    status(Code::Unavailable, reason, message, &[], Some(retry))
}

/// A limit of the server is reached; `retry` later it may work.
#[must_use]
pub fn exhausted(reason: &'static str, message: &str, retry: Duration) -> Status {
    status(Code::ResourceExhausted, reason, message, &[], Some(retry))
}

/// Something broke inside. The message is for people and says nothing of what only logs may hold.
#[must_use]
pub fn internal(reason: &'static str, message: &str) -> Status {
    status(Code::Internal, reason, message, &[], None)
}

fn status(
    code: Code,
    reason: &'static str,
    message: &str,
    violations: &[Violation],
    retry: Option<Duration>,
) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    for violation in bounded(violations) {
        details.add_bad_request_violation(violation.field, violation.description);
    }
    if retry.is_some() {
        details.set_retry_info(retry);
    }
    Status::with_error_details(code, crate::convert::cut(message, MESSAGE_BYTES_MAX), details)
}

/// As many faults as fit, and how many did not.
fn bounded(violations: &[Violation]) -> Vec<Violation> {
    let mut left = VIOLATIONS_BYTES_MAX;
    let fits = |violation: &&Violation| {
        let cost = violation.field.len() + violation.description.len() + VIOLATION_OVERHEAD_BYTES;
        let fits = cost <= left;
        left = left.saturating_sub(cost);
        fits
    };
    let mut told: Vec<Violation> = violations.iter().take_while(fits).cloned().collect();
    let more = violations.len() - told.len();
    if more > 0 {
        told.push(Violation::new("", format!("and {more} more faults; mend these first")));
    }
    told
}

/// A no as a client got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// gRPC's code.
    pub code: Code,
    /// `UPPER_SNAKE_CASE`, stable; empty when the status is not one of the coordinator's own.
    pub reason: String,
    /// For people.
    pub message: String,
    /// All faults of the request.
    pub violations: Vec<Violation>,
    /// When to ask again, if the server said so.
    pub retry: Option<Duration>,
}

impl From<&Status> for Fault {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let own = details.error_info().filter(|info| info.domain == DOMAIN);
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        Self {
            code: status.code(),
            reason: own.map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            violations: violations
                .iter()
                .map(|bad| Violation::new(bad.field.as_str(), bad.description.as_str()))
                .collect(),
            retry: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for violation in &self.violations {
            write!(f, "; {} {}", violation.field, violation.description)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_arrives_whole() {
        let faults = vec![Violation::new("destination", "\"x\": needs a root"), Violation::new("a", "b")];
        let refusal = Refusal::invalid("project not created", faults.clone());
        let fault = Fault::from(&refusal_to_status(&refusal));
        assert_eq!(
            fault,
            Fault {
                code: Code::InvalidArgument,
                reason: "INVALID_FIELDS".to_owned(),
                message: "project not created: 2 faults".to_owned(),
                violations: faults,
                retry: None,
            }
        );
        assert_eq!(fault.to_string(), refusal.to_string());
    }

    #[test]
    fn every_code_has_its_own_and_limits_say_when_to_come_back() {
        let codes = [
            (RefusalCode::InvalidArgument, Code::InvalidArgument),
            (RefusalCode::NotFound, Code::NotFound),
            (RefusalCode::AlreadyExists, Code::AlreadyExists),
            (RefusalCode::FailedPrecondition, Code::FailedPrecondition),
            (RefusalCode::Aborted, Code::Aborted),
            (RefusalCode::ResourceExhausted, Code::ResourceExhausted),
            (RefusalCode::PermissionDenied, Code::PermissionDenied),
            (RefusalCode::Unauthenticated, Code::Unauthenticated),
        ];
        for (ours, theirs) in codes {
            let fault = Fault::from(&refusal_to_status(&Refusal::new(ours, "WHY", "no")));
            assert_eq!((fault.code, fault.reason.as_str()), (theirs, "WHY"));
            assert_eq!(fault.retry.is_some(), theirs == Code::ResourceExhausted);
        }
        let second = Duration::from_secs(1);
        assert_eq!(Fault::from(&unavailable("STORE_FULL", "no", second)).retry, Some(second));
        assert_eq!(Fault::from(&exhausted("SLOW_READER", "no", second)).retry, Some(second));
        assert_eq!(Fault::from(&internal("BROKEN", "no")).retry, None);
    }

    #[test]
    fn a_status_fits_in_the_headers_that_clients_accept() {
        const CLIENT_HEADERS_BYTES: usize = 8 << 10;
        let faults =
            (0..500).map(|n| Violation::new(format!("rsync.options[{n}]"), "x".repeat(90))).collect();
        let refusal = Refusal { message: "ä".repeat(2_000), ..Refusal::invalid("no", faults) };
        let status = refusal_to_status(&refusal);
        // Base64 makes four bytes of three, percent-coding three of each byte that is not ASCII.
        let bytes = status.details().len().div_ceil(3) * 4 + status.message().len() * 3;
        assert!(bytes < CLIENT_HEADERS_BYTES, "{bytes}");
        let told = Fault::from(&status).violations;
        let last = told.last().unwrap();
        assert_eq!(last.description, format!("and {} more faults; mend these first", 501 - told.len()));
    }

    #[test]
    fn a_status_of_somebody_else_is_read_too() {
        let fault = Fault::from(&Status::unavailable("connection refused"));
        assert_eq!((fault.code, fault.reason.as_str()), (Code::Unavailable, ""));
        assert_eq!(fault.to_string(), "connection refused");
        let foreign = ErrorDetails::with_error_info("WHY", "other.v1", HashMap::new());
        let status = Status::with_error_details(Code::Internal, "no", foreign);
        assert_eq!(Fault::from(&status).reason, "");
    }
}
