//! Upstream hosts: what a person has set for one of them, over the whole fleet. A host without a record has the
//! fleet's own limits. Which projects pull from a host is theirs to say; how it answers is not stored.

use std::time::Duration;

use crate::{defaults, refusal::Violation, time::Wall};

/// What a person has set for one upstream host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamRecord {
    /// As in URIs: a name or an address, an IPv6 address in brackets.
    pub host: String,
    /// Connections over the whole fleet, 1 to [`defaults::UPSTREAM_SLOTS_MAX`]; `None`: the fleet's limit.
    pub slots: Option<u32>,
    /// Pause between two starts, at most [`defaults::UPSTREAM_SPACING_MAX`]; `None`: the fleet's limit.
    pub spacing: Option<Duration>,
    /// Grows by one with each change.
    pub revision: u64,
    /// When it was first set.
    pub create_time: Wall,
    /// When it was last changed.
    pub update_time: Wall,
}

/// Everything in these settings that may not be stored.
#[must_use]
pub fn faults(slots: Option<u32>, spacing: Option<Duration>) -> Vec<Violation> {
    let mut faults = Vec::new();
    if let Some(slots) = slots.filter(|slots| !(1..=defaults::UPSTREAM_SLOTS_MAX).contains(slots)) {
        let rule =
            format!("\"{slots}\": must be 1 to {}, or 0 for the default", defaults::UPSTREAM_SLOTS_MAX);
        faults.push(Violation::new("slots", rule));
    }
    if let Some(spacing) = spacing.filter(|spacing| *spacing > defaults::UPSTREAM_SPACING_MAX) {
        let rule = format!("\"{}s\": must be 0s to 1h", spacing.as_secs());
        faults.push(Violation::new("spacing", rule));
    }
    faults
}
