//! The one table of defaults and limits. Each is overridable in `coordinator.toml`, and many per project;
//! `docs/defaults.md` is its page for people.

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// rsync's connect timeout.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// rsync's own I/O timeout.
pub const IO_TIMEOUT: Duration = Duration::from_secs(600);
/// No byte, no CPU, no disk I/O for this long: stalled.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30 * MINUTE);
/// The longest an attempt may take; a tree's first run has no limit.
pub const RUN_TIMEOUT: Duration = Duration::from_secs(48 * HOUR);
/// Tries in one run after network, timeout and protocol failures.
pub const RETRY_ATTEMPTS: u32 = 4;
/// Pause before the second try.
pub const RETRY_INITIAL: Duration = Duration::from_secs(5 * MINUTE);
/// Each later pause is this many times longer.
pub const RETRY_MULTIPLIER: u32 = 3;
/// The longest pause between tries.
pub const RETRY_CAP: Duration = Duration::from_secs(HOUR);
/// A partial transfer (rsync 23) is tried once more after this.
pub const PARTIAL_RETRY: Duration = Duration::from_secs(15 * MINUTE);
/// A transfer that filled the disk is tried again after this.
pub const DISK_FULL_RETRY: Duration = Duration::from_secs(15 * MINUTE);
/// First pause after "max connections reached".
pub const BUSY_INITIAL: Duration = Duration::from_secs(2 * MINUTE);
/// Longest pause after "max connections reached".
pub const BUSY_CAP: Duration = Duration::from_secs(30 * MINUTE);
/// An upstream that is behind what is served is asked again after this, when no other one was left to ask.
pub const BEHIND_RETRY: Duration = Duration::from_secs(30 * MINUTE);
/// A run asks upstreams that are behind for at most this long after its start; and when they have been so for this long,
/// over enough runs, the placement is held.
pub const BEHIND_HELD_AFTER: Duration = Duration::from_secs(24 * HOUR);
/// Runs in a row that find their upstreams behind before the placement is held.
pub const BEHIND_HELD_RUNS: u32 = 3;
/// Busy answers in a row after which a run asks the next upstream: half an hour of pauses.
pub const FALLBACK_BUSY_TRIES: u32 = 5;
/// An agent that has no session for this long is shown as unreachable.
pub const UNREACHABLE_AFTER: Duration = Duration::from_secs(90);
/// An agent that has no session for this long no longer holds up runs and slots.
pub const LOST_AFTER: Duration = Duration::from_secs(6 * HOUR);
/// An agent that has had no coordinator for this long runs its last known schedule by itself.
pub const AUTONOMY_AFTER: Duration = Duration::from_secs(15 * MINUTE);
/// A schedule that was last confirmed by a coordinator longer ago is not run any more.
pub const AUTONOMY_VALID: Duration = Duration::from_secs(7 * DAY);
/// An offer that is neither taken nor refused for this long costs the agent its session: its next hello
/// tells what happened.
pub const OFFER_TIMEOUT: Duration = Duration::from_secs(MINUTE);
/// Attempts on one agent at once, where the agent's own file does not say less.
pub const AGENT_SLOTS: u32 = 8;
/// The most attempts at once that a person may allow one agent: no agent's own file allows more.
pub const AGENT_SLOTS_MAX: u32 = 64;
/// Attempts on one volume (an agent's root) at once.
pub const VOLUME_SLOTS: u32 = 4;
/// First copies on one volume at once.
pub const FIRST_SYNCS: u32 = 1;
/// Connections to one upstream host over the whole fleet.
pub const UPSTREAM_SLOTS: u32 = 2;
/// Pause between two starts at one upstream host.
pub const UPSTREAM_SPACING: Duration = Duration::from_secs(10);
/// The most connections that a person may allow to one upstream host.
pub const UPSTREAM_SLOTS_MAX: u32 = 100;
/// The longest pause between two starts at one upstream host that a person may set.
pub const UPSTREAM_SPACING_MAX: Duration = Duration::from_secs(HOUR);
/// Most upstream hosts for which people have set something.
pub const UPSTREAMS_MAX: usize = 1_000;
/// Attempts in a row, over the whole fleet, that did not reach an upstream host: after so many its breaker opens.
pub const BREAKER_FAILURES: u32 = 5;
/// An open breaker lets one probe through after this; each probe in vain doubles it.
pub const BREAKER_PAUSE: Duration = Duration::from_secs(15 * MINUTE);
/// The longest pause between two probes.
pub const BREAKER_PAUSE_MAX: Duration = Duration::from_secs(2 * HOUR);
/// A probe that goes on for this long has reached its host: longer than any connect timeout.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(15 * MINUTE);
/// How an upstream host answered is remembered for this long after it was last asked.
pub const HOST_MEMORY: Duration = Duration::from_secs(DAY);
/// Percent of a volume's bytes that stay free, and of its inodes.
pub const VOLUME_RESERVE_PERCENT: u32 = 2;
/// Bytes of a volume that stay free, where that is more.
pub const VOLUME_RESERVE_BYTES: u64 = 20 << 30;
/// The reserve of a volume is never more than this part of it, in percent: a small one could not be used at all.
pub const VOLUME_RESERVE_PERCENT_MAX: u32 = 5;
/// Replicas that pull from one origin agent at once.
pub const ORIGIN_UPLINK: u32 = 4;
/// The most replicas that a person may let pull from one agent at once.
pub const ORIGIN_UPLINK_MAX: u32 = 1_000;
/// The largest bandwidth limit that a person may set for one agent, KiB/s.
pub const BANDWIDTH_KIB_MAX: u64 = 100_000_000;
/// How long an origin waits for replicas that are still pulling.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(HOUR);
/// A run that is still propagating closes after this.
pub const PROPAGATION_TIMEOUT: Duration = Duration::from_secs(DAY);
/// A missed fire's run starts within this, at random.
pub const CATCH_UP_SPREAD: Duration = Duration::from_secs(10 * MINUTE);
/// A fire later than this was missed rather than late.
pub const FIRE_LATE: Duration = Duration::from_secs(MINUTE);
/// A next fire that lies this much behind what its schedule has next was armed by a clock that was far ahead.
pub const FIRE_STRAYED: Duration = Duration::from_secs(2 * DAY);
/// The answer to a request id is remembered for this long.
pub const REQUEST_TTL: Duration = Duration::from_secs(DAY);
/// Most answers to one asker's request ids that are remembered at a time: each of 10,000 projects may be declared and run in
/// one day. Later requests with an id are refused until the oldest answers expire.
pub const REQUESTS_PER_ASKER_MAX: usize = 20_000;
/// The floor of the default delete limit.
pub const MAX_DELETE_FLOOR: u64 = 500;
/// The largest number a person may give as delete limit.
pub const MAX_DELETE_MAX: u64 = 1_000_000_000;
/// Share of the entries of a tree that others put at the destination, percent: a first pull that would delete more is
/// held.
pub const ADOPT_DELETE_PERCENT: u64 = 2;
/// Share of its bytes, percent: a first pull that would fetch more of them again is held.
pub const ADOPT_AGAIN_PERCENT: u64 = 20;
/// A tree that has lost this many percent of its files or bytes is held.
pub const SHRINK_PERCENT: u32 = 30;
/// What a person allowed beforehand, or approved, is void when it has not begun by then.
pub const APPROVAL_TTL: Duration = Duration::from_secs(DAY);
/// A tree of a deleted project stays in the trash of its root for this long.
pub const TRASH_TTL: Duration = Duration::from_secs(7 * DAY);
/// An agent that has not come for so long is not told any more to move a deleted project's tree to the trash.
pub const TRASH_WAIT_MAX: Duration = Duration::from_secs(30 * DAY);
/// Why a tree was not moved to the trash is shown for this long.
pub const TRASH_TOLD_FOR: Duration = Duration::from_secs(7 * DAY);
/// Most trees in the trash of one agent.
pub const TRASH_TREES_MAX: usize = 256;
/// Most trees of the whole fleet that are in the trash, on their way, or told to have stayed.
pub const TRASH_RECORDS_MAX: usize = 10_000;
/// A join token's default life.
pub const JOIN_TOKEN_TTL: Duration = Duration::from_secs(10 * MINUTE);
/// A join token's longest life.
pub const JOIN_TOKEN_TTL_MAX: Duration = Duration::from_secs(30 * DAY);
/// Most uses of one join token.
pub const JOIN_TOKEN_USES_MAX: u32 = 1_000;
/// Most join tokens at a time.
pub const JOIN_TOKENS_MAX: usize = 1_000;
/// Most networks of one join token.
pub const JOIN_TOKEN_NETWORKS_MAX: usize = 32;
/// Most users.
pub const USERS_MAX: usize = 1_000;
/// A user token's default life.
pub const USER_TOKEN_TTL: Duration = Duration::from_secs(12 * HOUR);
/// A user token's longest life.
pub const USER_TOKEN_TTL_MAX: Duration = Duration::from_secs(30 * DAY);
/// Most tokens of one user at a time: who logs in once more loses the oldest.
pub const USER_TOKENS_MAX: usize = 20;
/// A push token's longest life, where it is given one; without one it is good until it is deleted.
pub const PUSH_TOKEN_TTL_MAX: Duration = Duration::from_secs(400 * DAY);
/// Most push tokens of one project at a time.
pub const PUSH_TOKENS_MAX: usize = 20;
/// Most push tokens of all projects together.
pub const PUSH_TOKENS_IN_ALL_MAX: usize = 20_000;
/// Pushes of one project by one token or user that are taken at any pace; later ones are taken at the pace of
/// [`PUSH_INTERVAL`].
pub const PUSH_BURST: u32 = 60;
/// One more push of a project by one token or user is taken for each of these spans.
pub const PUSH_INTERVAL: Duration = Duration::from_secs(10);
/// Shortest password, in characters.
pub const PASSWORD_CHARS_MIN: usize = 12;
/// Longest password, in bytes. All of them count: none is cut.
pub const PASSWORD_BYTES_MAX: usize = 256;
/// Most labels on one thing.
pub const LABELS_MAX: usize = 32;
/// Most bytes of the keys and values of one agent's labels together: its record has room for them beside the rest.
pub const LABELS_BYTES_MAX: usize = 4_096;
/// Longest label value and display name, in characters.
pub const LABEL_CHARS_MAX: usize = 200;
/// Longest reason a person gives, in characters.
pub const REASON_CHARS_MAX: usize = 500;
/// Longest request id, in characters.
pub const REQUEST_ID_CHARS_MAX: usize = 64;

/// The limits that an administrator may set for the whole fleet (`[limits]` in `coordinator.toml`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Attempts on one agent at once; the agent's own file may say less.
    pub agent_slots: u32,
    /// Attempts on one volume at once.
    pub volume_slots: u32,
    /// First copies on one volume at once.
    pub first_syncs: u32,
    /// Connections to one upstream host over the whole fleet.
    pub upstream_slots: u32,
    /// Pause between two starts at one upstream host.
    pub upstream_spacing: Duration,
    /// First pause after "max connections reached"; longer ones grow from it up to [`BUSY_CAP`].
    pub busy_pause: Duration,
    /// Replicas that pull from one origin agent at once.
    pub origin_uplink: u32,
    /// Percent of a volume's bytes that stay free, and of its inodes; at most [`VOLUME_RESERVE_PERCENT_MAX`].
    pub volume_reserve_percent: u32,
    /// Bytes of a volume that stay free, where that is more.
    pub volume_reserve_bytes: u64,
    /// An agent away for longer no longer holds up runs and slots.
    pub lost_after: Duration,
    /// An offer unanswered for longer costs the session.
    pub offer_timeout: Duration,
    /// A missed fire's run starts within this, at random.
    pub catch_up_spread: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            agent_slots: AGENT_SLOTS,
            volume_slots: VOLUME_SLOTS,
            first_syncs: FIRST_SYNCS,
            upstream_slots: UPSTREAM_SLOTS,
            upstream_spacing: UPSTREAM_SPACING,
            busy_pause: BUSY_INITIAL,
            origin_uplink: ORIGIN_UPLINK,
            volume_reserve_percent: VOLUME_RESERVE_PERCENT,
            volume_reserve_bytes: VOLUME_RESERVE_BYTES,
            lost_after: LOST_AFTER,
            offer_timeout: OFFER_TIMEOUT,
            catch_up_spread: CATCH_UP_SPREAD,
        }
    }
}
