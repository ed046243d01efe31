//! The page of defaults for people says what the table in the code says: every constant, with its value.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeSet, time::Duration};

use fleet::defaults;

const PAGE: &str = include_str!("../../docs/defaults.md");
const TABLE: &str = include_str!("../src/defaults.rs");

/// A value as the page writes it.
trait Shown {
    fn shown(&self) -> String;
}

impl Shown for Duration {
    fn shown(&self) -> String {
        let seconds = self.as_secs();
        // Days only from three on, as ages read: `24h`, `48h`, `30d`.
        let units = [(86_400, "d", 3), (3_600, "h", 1), (60, "m", 1)];
        let fits =
            |(unit, _, least): &(u64, &str, u64)| seconds.is_multiple_of(*unit) && seconds / unit >= *least;
        match units.into_iter().find(fits) {
            Some((unit, sign, _)) => format!("{}{sign}", seconds / unit),
            None => format!("{seconds}s"),
        }
    }
}

macro_rules! plain {
    ($($kind:ty),*) => { $(impl Shown for $kind {
        fn shown(&self) -> String {
            self.to_string()
        }
    })* };
}
plain!(u32, u64, usize);

macro_rules! constants {
    ($($name:ident)*) => { [$((stringify!($name), defaults::$name.shown())),*] };
}

#[test]
fn the_page_has_every_constant_with_its_value() {
    let known = constants![
        CONNECT_TIMEOUT IO_TIMEOUT STALL_TIMEOUT RUN_TIMEOUT RETRY_ATTEMPTS RETRY_INITIAL RETRY_MULTIPLIER RETRY_CAP
        PARTIAL_RETRY DISK_FULL_RETRY BUSY_INITIAL BUSY_CAP FALLBACK_BUSY_TRIES
        BEHIND_RETRY BEHIND_HELD_AFTER BEHIND_HELD_RUNS UNREACHABLE_AFTER LOST_AFTER AUTONOMY_AFTER AUTONOMY_VALID OFFER_TIMEOUT AGENT_SLOTS AGENT_SLOTS_MAX VOLUME_SLOTS
        FIRST_SYNCS UPSTREAM_SLOTS UPSTREAM_SPACING UPSTREAM_SLOTS_MAX UPSTREAM_SPACING_MAX UPSTREAMS_MAX
        BREAKER_FAILURES BREAKER_PAUSE BREAKER_PAUSE_MAX PROBE_PATIENCE HOST_MEMORY VOLUME_RESERVE_PERCENT
        VOLUME_RESERVE_BYTES VOLUME_RESERVE_PERCENT_MAX ORIGIN_UPLINK ORIGIN_UPLINK_MAX BANDWIDTH_KIB_MAX DRAIN_TIMEOUT PROPAGATION_TIMEOUT CATCH_UP_SPREAD
        FIRE_LATE FIRE_STRAYED REQUEST_TTL REQUESTS_PER_ASKER_MAX MAX_DELETE_FLOOR MAX_DELETE_MAX ADOPT_DELETE_PERCENT
        ADOPT_AGAIN_PERCENT SHRINK_PERCENT APPROVAL_TTL JOIN_TOKEN_TTL JOIN_TOKEN_TTL_MAX JOIN_TOKEN_USES_MAX
        JOIN_TOKENS_MAX JOIN_TOKEN_NETWORKS_MAX TRASH_TTL TRASH_WAIT_MAX TRASH_TOLD_FOR TRASH_TREES_MAX TRASH_RECORDS_MAX USERS_MAX USER_TOKEN_TTL USER_TOKEN_TTL_MAX USER_TOKENS_MAX
        PUSH_TOKEN_TTL_MAX PUSH_TOKENS_MAX PUSH_TOKENS_IN_ALL_MAX PUSH_BURST PUSH_INTERVAL PASSWORD_CHARS_MIN
        PASSWORD_BYTES_MAX LABELS_MAX LABELS_BYTES_MAX LABEL_CHARS_MAX REASON_CHARS_MAX REQUEST_ID_CHARS_MAX
    ];
    let here: BTreeSet<&str> = known.iter().map(|(name, _)| *name).collect();
    let in_code: BTreeSet<&str> = TABLE
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split_once(':').map(|(name, _)| name))
        .collect();
    assert_eq!(here, in_code, "a constant is new or gone: this test and docs/defaults.md want it too");

    let mut wrong = Vec::new();
    for (name, value) in &known {
        let rows: Vec<&str> = PAGE.lines().filter(|line| line.ends_with(&format!("| `{name}` |"))).collect();
        let shown = rows.first().and_then(|row| row.split('|').nth(2)).map(str::trim);
        if rows.len() != 1 || shown != Some(format!("`{value}`").as_str()) {
            wrong.push(format!("{name} is {value}; the page has {rows:?}"));
        }
    }
    assert!(wrong.is_empty(), "docs/defaults.md:\n{}", wrong.join("\n"));
    let rows = PAGE.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |")).count();
    assert_eq!(rows, known.len(), "docs/defaults.md has a row for something that is no constant any more");
}
