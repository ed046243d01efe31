//! An agent as the fleet remembers it. Whether it is connected is not stored: that is a session's matter.

use std::{collections::BTreeMap, fmt};

use crate::{
    defaults::{self, Limits},
    id::{AgentUid, Epoch, Name, ProjectUid},
    time::Wall,
};

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRecord {
    /// For ever.
    pub uid: AgentUid,
    /// For people; also in its certificate.
    pub name: Name,
    /// From enrolment.
    pub labels: BTreeMap<String, String>,
    /// It takes no new attempts.
    pub draining: bool,
    /// Refused for ever, with the reason.
    pub revoked: Option<String>,
    /// SHA-256 of its public key, hex: what a renewal must be made with.
    pub key_hash: String,
    /// Serial of its newest certificate, hex.
    pub certificate_serial: String,
    /// When that certificate expires.
    pub certificate_expires: Wall,
    /// The state directory it last came with: the same one means the same journal.
    pub state_id: String,
    /// When it was last seen, to within an hour while connected.
    pub last_seen: Option<Wall>,
    /// Grows by one with each change by a person.
    pub revision: u64,
    /// When it enrolled.
    pub create_time: Wall,
}

/// A named directory of an agent, as it last told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// As in "a1:debian".
    pub name: String,
    /// Absolute path on the host.
    pub path: String,
    /// Size of the file system in bytes.
    pub total_bytes: u64,
    /// Bytes the agent may still fill.
    pub free_bytes: u64,
    /// Inodes; 0 where there is no such limit.
    pub total_inodes: u64,
    /// Free inodes.
    pub free_inodes: u64,
}

impl Root {
    /// Bytes that stay free on it: the larger of the two limits, and never more than a 20th of a volume, or a small
    /// one could not be used at all.
    #[must_use]
    pub fn reserve_bytes(&self, limits: &Limits) -> u64 {
        let percent = |percent: u32| share(self.total_bytes, percent);
        let wanted = percent(limits.volume_reserve_percent).max(limits.volume_reserve_bytes);
        wanted.min(percent(defaults::VOLUME_RESERVE_PERCENT_MAX))
    }

    /// Inodes that stay free on it.
    #[must_use]
    pub fn reserve_inodes(&self, limits: &Limits) -> u64 {
        share(self.total_inodes, limits.volume_reserve_percent)
    }

    /// Whether it has less free than its reserve: nothing that may grow starts there.
    #[must_use]
    pub fn is_short(&self, limits: &Limits) -> bool {
        self.free_bytes < self.reserve_bytes(limits) || self.free_inodes < self.reserve_inodes(limits)
    }
}

/// `percent` of `whole`, rounded down.
fn share(whole: u64, percent: u32) -> u64 {
    u64::try_from(u128::from(whole) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

/// What an agent says of itself in its hello.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentFacts {
    /// Made at each start of the agent program.
    pub instance_id: String,
    /// The agent program's version.
    pub version: String,
    /// The rsync program's version.
    pub rsync_version: String,
    /// Attempts it takes at once; 0: the fleet's default.
    pub slots: u32,
    /// Its roots.
    pub roots: Vec<Root>,
    /// What its host lacks of the jail.
    pub jail_gaps: Vec<String>,
    /// Where its own rsync daemon serves replicas; empty: it serves none yet.
    pub serve_uri: String,
    /// Roots that a daemon of the administrator's own serves, and where.
    pub external_roots: BTreeMap<String, String>,
    /// When the certificate expires that it holds now; `None`: it does not say. The record has the newest one that was
    /// issued, whose answer may have been lost.
    pub certificate_expires: Option<Wall>,
}

/// A live session; never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Which session: the newest one of an agent wins.
    pub epoch: Epoch,
    /// What the agent said.
    pub facts: AgentFacts,
    /// When it began.
    pub since: Wall,
    /// The connection it came over, counted as connections are accepted.
    pub connection: u64,
}

/// A secret by which agents join; only its hash is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// No secret; names it in lists.
    pub id: String,
    /// SHA-256 of the token, hex.
    pub hash: String,
    /// Which names it is good for.
    pub names: TokenNames,
    /// Uses left.
    pub uses_left: u32,
    /// When it becomes useless.
    pub expires: Wall,
    /// The user who made it.
    pub by: String,
}

/// Which names a join token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenNames {
    /// This one.
    One(Name),
    /// Those that fit, `*` standing for any part.
    Pattern(String),
}

impl TokenNames {
    /// Whether it is good for `name`; without case.
    #[must_use]
    pub fn fits(&self, name: &Name) -> bool {
        match self {
            Self::One(bound) => bound == name,
            Self::Pattern(pattern) => glob(&pattern.to_ascii_lowercase(), &name.folded()),
        }
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for any part. Linear in both: it never backtracks past
/// the newest star.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Who acts when it is no user but somebody who may open the coordinator's own socket. Never a user's name: names have
/// no blanks.
pub const LOCAL_ROOT: &str = "local root";

/// A person or program that may use the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Also in the certificate.
    pub name: Name,
    /// What the user may do.
    pub role: UserRole,
    /// Nothing is let through, whatever it is proved with.
    pub disabled: bool,
    /// What a password is compared with; `None`: nobody logs in by one.
    pub password: Option<PasswordHash>,
    /// Certificates made before are another's: of an earlier user of this name, or of before a reset.
    pub certificates_since: Wall,
    /// Grows by one with each change.
    pub revision: u64,
    /// When the user was entered.
    pub create_time: Wall,
    /// When the record was changed last.
    pub update_time: Wall,
}

impl UserRecord {
    /// Whether it is an admin who is let through.
    #[must_use]
    pub fn is_acting_admin(&self) -> bool {
        self.role == UserRole::Admin && !self.disabled
    }
}

/// The hash of a password with all that is needed to compare (PHC string). Hidden from `Debug`: what people chose can
/// be guessed from it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash([hidden])")
    }
}

/// A secret by which a user is known for some hours; only its hash is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserToken {
    /// No secret; names it in lists.
    pub id: String,
    /// Whose.
    pub user: Name,
    /// SHA-256 of the token, hex.
    pub hash: String,
    /// When it was made.
    pub create_time: Wall,
    /// When it becomes useless.
    pub expires: Wall,
    /// The address that it was asked for from.
    pub from: String,
}

/// A secret by which a program pushes one project, and does nothing else; only its hash is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushToken {
    /// No secret; names it in lists.
    pub id: String,
    /// The one project it is good for.
    pub project: ProjectUid,
    /// SHA-256 of the token, hex.
    pub hash: String,
    /// Who has it, as people wrote; may be empty.
    pub note: String,
    /// When it was made.
    pub create_time: Wall,
    /// When it becomes useless; `None`: when it is deleted.
    pub expires: Option<Wall>,
    /// The user who made it.
    pub by: String,
    /// When it pushed last.
    pub last_used: Option<Wall>,
}

impl PushToken {
    /// Whether it pushes at this time.
    #[must_use]
    pub fn is_good(&self, now: Wall) -> bool {
        self.expires.is_none_or(|expires| expires > now)
    }
}

/// What a user may do, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UserRole {
    /// Sees.
    Viewer,
    /// Sees, and acts on own projects.
    Owner,
    /// Acts on all projects and agents.
    Operator,
    /// Everything.
    Admin,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_the_larger_limit_and_never_more_than_a_twentieth() {
        let limits = Limits::default();
        let root = |total: u64, free: u64| Root {
            name: "a1".to_owned(),
            path: "/a1".to_owned(),
            total_bytes: total,
            free_bytes: free,
            total_inodes: 1_000,
            free_inodes: 20,
        };
        const GIB: u64 = 1 << 30;
        assert_eq!(root(2_000 * GIB, 0).reserve_bytes(&limits), 40 * GIB);
        assert_eq!(root(500 * GIB, 0).reserve_bytes(&limits), 20 * GIB);
        assert_eq!(root(100 * GIB, 0).reserve_bytes(&limits), 5 * GIB);
        assert_eq!(root(u64::MAX, 0).reserve_bytes(&limits), u64::MAX / 50);
        assert!(
            !root(100 * GIB, 5 * GIB).is_short(&limits) && root(100 * GIB, 5 * GIB - 1).is_short(&limits)
        );
        assert!(Root { free_inodes: 19, ..root(100 * GIB, 90 * GIB) }.is_short(&limits));
        let none = Limits { volume_reserve_bytes: 0, volume_reserve_percent: 0, ..limits };
        assert!(!Root { free_inodes: 0, ..root(100 * GIB, 0) }.is_short(&none));
    }

    #[test]
    fn token_patterns_fit_whole_names() {
        let fits = |pattern: &str, name: &str| {
            TokenNames::Pattern(pattern.to_owned()).fits(&name.parse().expect("a name"))
        };
        assert!(
            fits("edge*", "edge1") && fits("edge*", "EDGE12") && fits("*", "x") && fits("e*g*1", "edge1")
        );
        assert!(
            !fits("edge*", "xedge1")
                && !fits("edge", "edge1")
                && !fits("*1", "edge2")
                && !fits("e*e*1", "ed1")
        );
        assert!(fits("ab*ba", "abba") && !fits("ab*ba", "aba"));
    }
}
