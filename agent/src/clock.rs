//! The one place of the agent that reads the wall clock. It is for people and reports only: waits and limits count
//! by the monotonic clock.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};

/// Now.
pub(crate) fn now() -> DateTime<Utc> {
    #[allow(clippy::disallowed_methods, reason = "the clock module")]
    let now = SystemTime::now();
    // A clock before 1970 or after 262,000 is as wrong as any other: such reports say 1970.
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default()
}

/// Now, as the wire has it.
pub(crate) fn wire_now() -> prost_types::Timestamp {
    mirror_proto::convert::utc_to_wire(now())
}
