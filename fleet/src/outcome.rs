//! How an attempt ended, in the fleet's own words: crate `mirror-proto` maps rsync's classes to these.

use crate::{marker::MarkerSeen, time::Wall};

/// What kind of end it was. Decides alone whether and when it is tried again ([`crate::retry`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExitClass {
    /// All copied (rsync 0, and 24: files vanished while it ran).
    Ok,
    /// Some files could not be read or written (rsync 23).
    Partial,
    /// The delete limit was reached (rsync 25).
    MaxDelete,
    /// "max connections reached": asked again later, no failure.
    Busy,
    /// The upstream refuses the login.
    Auth,
    /// The upstream has no such module or path.
    NotFound,
    /// The upstream refuses this host or an option.
    Refused,
    /// The agent's disk is full (rsync 11 with the text).
    DiskFull,
    /// The agent's disk has another fault (rsync 11 otherwise).
    LocalIo,
    /// rsync or our own program failed inside.
    Internal,
    /// rsync's own timeout (30, 35).
    Timeout,
    /// No byte, no CPU, no disk I/O for the stall limit.
    Stalled,
    /// The wall-clock limit.
    WallClock,
    /// The connection failed or broke (10, 12).
    Network,
    /// The other side does not speak rsync (2).
    Protocol,
    /// Ended on request.
    Cancelled,
    /// rsync was called wrongly (1, 3, 4).
    Config,
    /// The agent's own guard refused the assignment.
    RejectedByAgent,
    /// The agent or its host stopped in the middle.
    Interrupted,
    /// A guard stopped it; the outcome's evidence says which.
    Guard,
    /// The upstream's marker is older than the tree that is served, or could not be read where it had to be: nothing was
    /// pulled, or what was pulled goes nowhere.
    UpstreamBehind,
}

impl ExitClass {
    /// All of them, for tables and tests.
    pub const ALL: [Self; 21] = [
        Self::Ok,
        Self::Partial,
        Self::MaxDelete,
        Self::Busy,
        Self::Auth,
        Self::NotFound,
        Self::Refused,
        Self::DiskFull,
        Self::LocalIo,
        Self::Internal,
        Self::Timeout,
        Self::Stalled,
        Self::WallClock,
        Self::Network,
        Self::Protocol,
        Self::Cancelled,
        Self::Config,
        Self::RejectedByAgent,
        Self::Interrupted,
        Self::Guard,
        Self::UpstreamBehind,
    ];
}

/// Which guard found something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GuardKind {
    /// More deletions are wanted than allowed.
    Deletes,
    /// The upstream lists nothing.
    EmptyUpstream,
    /// A path that must exist at the upstream does not.
    SentinelMissing,
    /// The tree lost too many of its files or bytes.
    Shrink,
    /// The destination holds files that the fleet did not put there.
    Adoption,
    /// The tree is larger than its quota.
    Quota,
    /// The upstream's marker is older than the tree that is served.
    UpstreamBehind,
}

impl GuardKind {
    /// All of them, for tables and tests.
    pub const ALL: [Self; 7] = [
        Self::Deletes,
        Self::EmptyUpstream,
        Self::SentinelMissing,
        Self::Shrink,
        Self::Adoption,
        Self::Quota,
        Self::UpstreamBehind,
    ];
}

/// Most names kept in an [`Evidence`].
pub const EVIDENCE_NAMES_MAX: usize = 20;
/// Longest name in an [`Evidence`], characters.
pub const EVIDENCE_NAME_CHARS_MAX: usize = 200;

/// What a guard found. Approvals are bound to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Which guard.
    pub kind: GuardKind,
    /// How many it found: deletions wanted, entries missing, percent lost, bytes above the quota, seconds behind.
    pub wanted: u64,
    /// How many are allowed, in the same unit.
    pub allowed: u64,
    /// The first names concerned; at most [`EVIDENCE_NAMES_MAX`] of [`EVIDENCE_NAME_CHARS_MAX`].
    pub names: Vec<String>,
    /// In words, with all the figures; bounded by the mapping.
    pub sentence: String,
}

/// What rsync counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Files in the tree.
    pub files: u64,
    /// Files created.
    pub created: u64,
    /// Files deleted.
    pub deleted: u64,
    /// Regular files transferred.
    pub transferred: u64,
    /// Bytes in the tree.
    pub total_bytes: u64,
    /// Bytes of the transferred files.
    pub transferred_bytes: u64,
    /// Bytes received over the network.
    pub received_bytes: u64,
    /// Bytes sent over the network.
    pub sent_bytes: u64,
}

/// How an attempt ended, as its agent saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What kind of end.
    pub class: ExitClass,
    /// rsync's exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended rsync.
    pub signal: Option<i32>,
    /// In the other side's own words; bounded by the mapping.
    pub cause: String,
    /// Whose fault.
    pub fault: String,
    /// What to do.
    pub advice: String,
    /// What was counted.
    pub stats: Option<Stats>,
    /// Deletions that the limit stopped.
    pub deletes_skipped: Option<u64>,
    /// What a guard found, where one stopped it; and what a dry run found.
    pub evidence: Option<Evidence>,
    /// What was seen of the project's marker; `None`: nobody looked.
    pub marker: Option<Box<MarkerSeen>>,
    /// When the agent saw the end, by its own clock.
    pub time: Wall,
}

impl Outcome {
    /// An outcome that says nothing but its class.
    #[must_use]
    pub fn of_class(class: ExitClass) -> Self {
        Self {
            class,
            exit_code: None,
            signal: None,
            cause: String::new(),
            fault: String::new(),
            advice: String::new(),
            stats: None,
            deletes_skipped: None,
            evidence: None,
            marker: None,
            time: Wall(0),
        }
    }
}
