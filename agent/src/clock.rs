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

/// A time as the wire has it.
pub(crate) fn to_wire(time: DateTime<Utc>) -> prost_types::Timestamp {
    let nanos = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(0);
    prost_types::Timestamp { seconds: time.timestamp(), nanos }
}

/// Milliseconds since 1970 as the wire has it.
pub(crate) fn millis_to_wire(millis: u64) -> prost_types::Timestamp {
    to_wire(i64::try_from(millis).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default())
}
