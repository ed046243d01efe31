//! How a try ended, in a few words of a sentence: its class, and what the other side said.

use fleet::outcome::{ExitClass, Outcome};

/// Longest part of a cause that a sentence repeats, in characters.
const CAUSE_CHARS_MAX: usize = 120;

/// `"max connections (4) reached"`, or other words where nothing was said.
pub(super) fn quoted_cause(outcome: &Outcome, otherwise: &str) -> String {
    if outcome.cause.is_empty() { otherwise.to_owned() } else { format!("\"{}\"", one_line(&outcome.cause)) }
}

/// `network: connection reset`.
pub(super) fn told_cause(outcome: &Outcome) -> String {
    let class = class_word(outcome.class);
    if outcome.cause.is_empty() { class.to_owned() } else { format!("{class}: {}", one_line(&outcome.cause)) }
}

/// What another side said, in one printable line.
pub(super) fn one_line(cause: &str) -> String {
    let line = cause.lines().next().unwrap_or_default();
    rsync::text::printable(line.as_bytes(), CAUSE_CHARS_MAX).to_string()
}

fn class_word(class: ExitClass) -> &'static str {
    match class {
        ExitClass::Ok => "ok",
        ExitClass::Partial => "partial",
        ExitClass::MaxDelete => "delete limit",
        ExitClass::Busy => "busy",
        ExitClass::Auth => "login refused",
        ExitClass::NotFound => "not found",
        ExitClass::Refused => "refused",
        ExitClass::DiskFull => "disk full",
        ExitClass::LocalIo => "local disk",
        ExitClass::Internal => "internal",
        ExitClass::Timeout => "timeout",
        ExitClass::Stalled => "stalled",
        ExitClass::WallClock => "time limit",
        ExitClass::Network => "network",
        ExitClass::Protocol => "protocol",
        ExitClass::Cancelled => "cancelled",
        ExitClass::Config => "configuration",
        ExitClass::RejectedByAgent => "rejected by the agent",
        ExitClass::Interrupted => "interrupted",
        ExitClass::Guard => "guard",
        ExitClass::UpstreamBehind => "upstream behind",
    }
}
