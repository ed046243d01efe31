//! The only place that reads the wall clock.

use chrono::{DateTime, Utc};

/// Now.
#[allow(clippy::disallowed_methods, reason = "this is the clock module; all else is handed the time")]
#[must_use]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}
