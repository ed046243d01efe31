//! How long certificates live: the numbers of the design's table of defaults, and when to renew.

use chrono::{DateTime, TimeDelta, Utc};

/// Life of the fleet's CA: 10 years.
pub const CA_LIFE: TimeDelta = TimeDelta::days(3_650);

/// Life of an agent's certificate: 30 days. Short enough to limit a stolen key, long enough that a fleet left alone
/// over a holiday comes back by itself; revocation does not wait for it.
pub const AGENT_LIFE: TimeDelta = TimeDelta::days(30);

/// Life of a user's certificate: 90 days.
pub const USER_LIFE: TimeDelta = TimeDelta::days(90);

/// Life of the coordinator's own certificate: 90 days; the coordinator renews it by itself.
pub const SERVER_LIFE: TimeDelta = TimeDelta::days(90);

/// How long after its end an unrevoked agent certificate may still be renewed: 90 days.
pub const RENEW_GRACE: TimeDelta = TimeDelta::days(90);

/// How far the start of validity is set back, so that a host whose clock runs late accepts a fresh certificate:
/// 5 minutes.
pub const BACKDATE: TimeDelta = TimeDelta::minutes(5);

/// The renewal happens from this part of the life on: 1/3. Two thirds are left for trying again.
const RENEW_FROM_PART: i32 = 3;

/// When to start renewing a certificate with this validity: after the first third of it. The caller adds jitter, so
/// that a fleet enrolled in one hour does not renew in one hour. A validity that ends before it starts is due at once.
#[must_use]
pub fn renewal_time(not_before: DateTime<Utc>, not_after: DateTime<Utc>) -> DateTime<Utc> {
    let life = (not_after - not_before).max(TimeDelta::zero());
    not_before + life / RENEW_FROM_PART
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_starts_after_a_third() {
        let from = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        assert_eq!(renewal_time(from, from + AGENT_LIFE), from + TimeDelta::days(10));
        assert_eq!(renewal_time(from, from - AGENT_LIFE), from);
    }
}
