//! Every reason why a person or agent is told no. The wire's status codes are mapped from these in one file
//! (`mirror-proto`, status.rs).

use std::fmt;

/// What kind of no it is; the names are gRPC's, the meaning is the API's (AIP-193).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalCode {
    /// The request cannot be right, whatever the state.
    InvalidArgument,
    /// There is no such thing, or the caller may not see it.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// Right, but not in this state.
    FailedPrecondition,
    /// Somebody changed it meanwhile.
    Aborted,
    /// A limit is reached; later it may work.
    ResourceExhausted,
    /// The caller may not do this.
    PermissionDenied,
    /// The caller did not prove who it is.
    Unauthenticated,
}

/// One fault of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field's path in the request, such as `schedule.cron.minute`.
    pub field: String,
    /// The value and the rule: `"*/70": the step must be 1 to 59`.
    pub description: String,
}

impl Violation {
    /// A fault of `field`.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

/// A no: nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// What kind.
    pub code: RefusalCode,
    /// For programs: `UPPER_SNAKE_CASE`, stable.
    pub reason: &'static str,
    /// For people: what was refused, why, and what to do.
    pub message: String,
    /// All faults of the request; mostly empty.
    pub violations: Vec<Violation>,
}

impl Refusal {
    /// A no without field faults.
    pub fn new(code: RefusalCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), violations: Vec::new() }
    }

    /// A no because of these faults, all of them.
    pub fn invalid(what: &str, violations: Vec<Violation>) -> Self {
        let count = violations.len();
        let plural = if count == 1 { "" } else { "s" };
        Self {
            code: RefusalCode::InvalidArgument,
            reason: "INVALID_FIELDS",
            message: format!("{what}: {count} fault{plural}"),
            violations,
        }
    }

    /// There is no such thing.
    pub fn not_found(kind: &str, name: impl fmt::Display) -> Self {
        Self::new(RefusalCode::NotFound, "NOT_FOUND", format!("no {kind} \"{name}\""))
    }

    /// The state does not allow it.
    pub fn precondition(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(RefusalCode::FailedPrecondition, reason, message)
    }

    /// The etag is not the current one.
    pub fn stale(kind: &str, name: impl fmt::Display) -> Self {
        Self::new(
            RefusalCode::Aborted,
            "STALE_ETAG",
            format!("{kind} \"{name}\" was changed meanwhile; read it again and repeat the change"),
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for violation in &self.violations {
            write!(f, "; {} {}", violation.field, violation.description)?;
        }
        Ok(())
    }
}
