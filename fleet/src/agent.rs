//! An agent as the fleet remembers it. Whether it is connected is not stored: that is a session's matter.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;

use crate::{
    defaults::{self, Limits},
    id::{AgentUid, Epoch, Name, ProjectUid},
    refusal::Violation,
    time::Wall,
    trash::TrashReport,
};

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRecord {
    /// For ever.
    pub uid: AgentUid,
    /// For people; also in its certificate.
    pub name: Name,
    /// What people set, and what its host added when it enrolled; [`labels_fault`] bounds them.
    pub labels: BTreeMap<String, String>,
    /// What people allow it, beside its own file.
    pub caps: AgentCaps,
    /// It takes no new attempts.
    pub draining: bool,
    /// Refused for ever, with the reason.
    pub revoked: Option<String>,
    /// SHA-256 of its public key, hex: what a renewal must be made with. Empty: no host has enrolled by its name.
    pub key_hash: String,
    /// Serial of its newest certificate, hex.
    pub certificate_serial: String,
    /// When that certificate expires.
    pub certificate_expires: Wall,
    /// The state directory it last came with: the same one means the same journal.
    pub state_id: String,
    /// When its newest session began, or ended; `None`: never seen.
    pub last_seen: Option<Wall>,
    /// What it said of itself then, for people to see while it is away.
    pub last_known: LastKnown,
    /// Grows by one with each change by a person.
    pub revision: u64,
    /// When it enrolled, or was declared.
    pub create_time: Wall,
}

impl AgentRecord {
    /// Whether people have declared it and no host has enrolled by its name yet.
    #[must_use]
    pub fn is_declared_only(&self) -> bool {
        self.key_hash.is_empty()
    }
}

/// What people allow an agent, beside its own file; the stricter of the two holds. `None`: the fleet's limit, where there
/// is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgentCaps {
    /// Attempts on it at once, 1 to [`defaults::AGENT_SLOTS_MAX`].
    pub max_running: Option<u32>,
    /// Replicas that pull from it at once, 1 to [`defaults::ORIGIN_UPLINK_MAX`].
    pub max_serving: Option<u32>,
    /// What one attempt on it may take, KiB/s, 1 to [`defaults::BANDWIDTH_KIB_MAX`].
    pub bandwidth_limit_kib: Option<u64>,
}

impl AgentCaps {
    /// Everything in them that may not be stored, by the API's names.
    #[must_use]
    pub fn faults(&self) -> Vec<Violation> {
        let check = |field: &str, value: Option<u64>, most: u64| {
            let value = value.filter(|value| !(1..=most).contains(value))?;
            let rule = format!("\"{value}\": must be 1 to {most}, or 0 for no cap");
            Some(Violation::new(format!("agent.{field}"), rule))
        };
        [
            check("max_running", self.max_running.map(u64::from), defaults::AGENT_SLOTS_MAX.into()),
            check("max_serving", self.max_serving.map(u64::from), defaults::ORIGIN_UPLINK_MAX.into()),
            check("bandwidth_limit_kib", self.bandwidth_limit_kib, defaults::BANDWIDTH_KIB_MAX),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// These, and where nothing is set, the others.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            max_running: self.max_running.or(others.max_running),
            max_serving: self.max_serving.or(others.max_serving),
            bandwidth_limit_kib: self.bandwidth_limit_kib.or(others.bandwidth_limit_kib),
        }
    }

    /// Those of them of which the others have none.
    #[must_use]
    pub fn where_none_in(self, others: Self) -> Self {
        Self {
            max_running: self.max_running.filter(|_| others.max_running.is_none()),
            max_serving: self.max_serving.filter(|_| others.max_serving.is_none()),
            bandwidth_limit_kib: self.bandwidth_limit_kib.filter(|_| others.bandwidth_limit_kib.is_none()),
        }
    }

    /// The stricter of a project's bandwidth limit and this one, KiB/s; 0: none.
    #[must_use]
    pub fn bandwidth(&self, project_kib: u64) -> u64 {
        let limits = [Some(project_kib).filter(|kib| *kib > 0), self.bandwidth_limit_kib];
        limits.into_iter().flatten().min().unwrap_or(0)
    }
}

/// What is wrong with labels that one agent would have, by the API's name of them.
#[must_use]
pub fn labels_fault(labels: &BTreeMap<String, String>) -> Option<Violation> {
    let fault = |text: String| Some(Violation::new("labels", text));
    let (count, bytes) = (labels.len(), label_bytes(labels));
    if count > defaults::LABELS_MAX {
        return fault(format!("{count} labels in all; at most {} are possible", defaults::LABELS_MAX));
    }
    if bytes > defaults::LABELS_BYTES_MAX {
        let most = defaults::LABELS_BYTES_MAX;
        return fault(format!(
            "their keys and values have {bytes} bytes in all; at most {most} are possible"
        ));
    }
    None
}

/// Bytes of all keys and values.
fn label_bytes(labels: &BTreeMap<String, String>) -> usize {
    labels.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// Most bytes of labels and of what is last known of one agent together: a store record holds both. What does not fit is
/// left out.
const LAST_KNOWN_BYTES_MAX: usize = 3 * 1_024;
/// Bytes that the figures of one root take at most, as they are stored.
const ROOT_FIGURES_BYTES: usize = 64;

/// What an agent last said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LastKnown {
    /// The agent program's version.
    pub version: String,
    /// The rsync program's version.
    pub rsync_version: String,
    /// Its roots, as many as fit.
    pub roots: Vec<Root>,
}

impl LastKnown {
    /// What of these facts is kept beside these labels.
    #[must_use]
    pub fn of(facts: &AgentFacts, labels: &BTreeMap<String, String>) -> Self {
        Self::fitting(&facts.version, &facts.rsync_version, &facts.roots, labels)
    }

    /// What of this is kept beside other labels.
    #[must_use]
    pub fn beside(&self, labels: &BTreeMap<String, String>) -> Self {
        Self::fitting(&self.version, &self.rsync_version, &self.roots, labels)
    }

    fn fitting(
        version: &str,
        rsync_version: &str,
        roots: &[Root],
        labels: &BTreeMap<String, String>,
    ) -> Self {
        let taken = label_bytes(labels) + version.len() + rsync_version.len();
        let Some(mut left) = LAST_KNOWN_BYTES_MAX.checked_sub(taken) else {
            return Self::default();
        };
        let fits = |root: &&Root| {
            let bytes = root.name.len() + root.path.len() + ROOT_FIGURES_BYTES;
            left.checked_sub(bytes).map(|rest| left = rest).is_some()
        };
        let roots = roots.iter().take_while(fits).cloned().collect();
        Self { version: version.to_owned(), rsync_version: rsync_version.to_owned(), roots }
    }
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
    /// What is in its trash; `None`: its program has none.
    pub trash: Option<TrashReport>,
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
    /// The networks that a host may enrol from by it; none: from anywhere.
    pub networks: Vec<IpNet>,
    /// Uses left.
    pub uses_left: u32,
    /// When it becomes useless.
    pub expires: Wall,
    /// The user who made it.
    pub by: String,
}

impl JoinToken {
    /// Whether a host may enrol by it from this address; `None`: it is the coordinator's own. An IPv4 address is one in
    /// whichever form it came.
    #[must_use]
    pub fn admits(&self, from: Option<IpAddr>) -> bool {
        let Some(address) = from.map(|from| from.to_canonical()) else { return self.networks.is_empty() };
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&address))
    }
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
    fn what_is_last_known_of_an_agent_fits_beside_its_labels() {
        let root = |n: usize| Root {
            name: format!("a{n}"),
            path: "/srv".repeat(40),
            total_bytes: 1,
            free_bytes: 1,
            total_inodes: 0,
            free_inodes: 0,
        };
        let facts = AgentFacts {
            version: "0.1.0".to_owned(),
            rsync_version: "3.5.0".to_owned(),
            roots: (0..64).map(root).collect(),
            ..AgentFacts::default()
        };
        let kept = |label_bytes: usize| {
            let labels = BTreeMap::from([("k".to_owned(), "v".repeat(label_bytes))]);
            LastKnown::of(&facts, &labels)
        };
        assert_eq!(kept(1).roots.len(), 13);
        let labels = BTreeMap::from([("k".to_owned(), "v".repeat(1_500))]);
        assert!(kept(1).beside(&labels) == kept(1_500) && kept(1_500).roots.len() < 13);
        assert_eq!((kept(2_900).roots.len(), kept(2_900).version.as_str()), (0, "0.1.0"));
        assert_eq!(kept(LAST_KNOWN_BYTES_MAX), LastKnown::default());
    }

    #[test]
    fn a_token_admits_addresses_of_its_networks_in_either_form() {
        let token = |networks: &[&str]| JoinToken {
            id: "t".to_owned(),
            hash: "h".to_owned(),
            names: TokenNames::Pattern("*".to_owned()),
            networks: networks.iter().map(|text| text.parse().expect("a network")).collect(),
            uses_left: 1,
            expires: Wall(1),
            by: "ada".to_owned(),
        };
        let two = token(&["192.0.2.0/24", "2001:db8::/32"]);
        let admits = |token: &JoinToken, from: &str| token.admits(Some(from.parse().expect("an address")));
        for inside in ["192.0.2.1", "192.0.2.255", "::ffff:192.0.2.7", "2001:db8:1::1"] {
            assert!(admits(&two, inside), "{inside}");
        }
        for outside in ["192.0.3.1", "::ffff:192.0.3.1", "::192.0.2.1", "2001:db9::1", "::1"] {
            assert!(!admits(&two, outside), "{outside}");
        }
        assert!(!two.admits(None) && token(&[]).admits(None) && admits(&token(&[]), "203.0.113.1"));
    }

    #[test]
    fn caps_are_bounded_and_the_stricter_bandwidth_holds() {
        let caps =
            AgentCaps { max_running: Some(65), max_serving: Some(0), bandwidth_limit_kib: Some(u64::MAX) };
        let fields: Vec<String> = caps.faults().into_iter().map(|fault| fault.field).collect();
        assert_eq!(fields, ["agent.max_running", "agent.max_serving", "agent.bandwidth_limit_kib"]);
        assert!(AgentCaps::default().faults().is_empty());
        let capped = AgentCaps { bandwidth_limit_kib: Some(100), ..AgentCaps::default() };
        assert_eq!([0, 50, 500].map(|project| capped.bandwidth(project)), [100, 50, 100]);
        assert_eq!(AgentCaps::default().bandwidth(0), 0);
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
