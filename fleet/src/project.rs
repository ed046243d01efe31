//! A project: what is copied from where to where and when. The text of URIs and options is checked where
//! both the model and rsync's grammar are known (crate `mirror-proto`); here they are opaque and valid.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use crate::{
    defaults,
    id::{AgentUid, Name, ProjectUid, RunId},
    marker::Marker,
    schedule::Schedule,
    time::Wall,
};

/// "ROOT:PATH": a named root of an agent and a path below it of `[A-Za-z0-9._+-]` components.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    root: String,
    path: String,
}

/// Most origins of one project: the one that pulls and those that stand by.
pub const ORIGINS_MAX: usize = 8;

/// Most entries of a project's replicas; each may select many agents.
pub const REPLICA_TARGETS_MAX: usize = 64;

/// Most upstreams of one project: the one that is preferred and those in its place.
pub const UPSTREAMS_MAX: usize = 8;

/// Most projects after which one project runs.
pub const AFTER_MAX: usize = 8;

/// Most projects that run after one project.
pub const FOLLOWERS_MAX: usize = 64;

/// Longest destination path, in bytes.
pub const DESTINATION_BYTES_MAX: usize = 512;

/// Directories below each root that are the agent's own: no destination begins with one. What it notes there, and the
/// trees of deleted projects.
pub const OWN_DIRS: [&str; 2] = [".mirror", ".mirror-trash"];

/// Why a text is no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDestination {
    /// There is no colon.
    #[error("needs a root, as in a1:debian")]
    NoRoot,
    /// The root is no name.
    #[error("the root must be a name of letters, digits and . _ + -")]
    BadRoot,
    /// The path is absolute, empty, too long, or climbs.
    #[error(
        "the path must be relative, of components of letters, digits and . _ + -, without . and .. and at most {DESTINATION_BYTES_MAX} bytes"
    )]
    BadPath,
}

impl Destination {
    /// The agent's root it is below.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The relative path below the root.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether one of the two is the other or lies inside it.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let inside = |outer: &str, inner: &str| {
            inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
        };
        self.root == other.root && (inside(&self.path, &other.path) || inside(&other.path, &self.path))
    }
}

impl FromStr for Destination {
    type Err = BadDestination;

    fn from_str(text: &str) -> Result<Self, BadDestination> {
        let (root, path) = text.split_once(':').ok_or(BadDestination::NoRoot)?;
        root.parse::<Name>().map_err(|_| BadDestination::BadRoot)?;
        let component_ok = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && !part.starts_with('-')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
        };
        // These below a root are the agent's own: its locks and notes, and its trash.
        let first_ok = path.split('/').next().is_none_or(|first| !OWN_DIRS.contains(&first));
        if path.len() > DESTINATION_BYTES_MAX || !path.split('/').all(component_ok) || !first_ok {
            return Err(BadDestination::BadPath);
        }
        Ok(Self { root: root.to_owned(), path: path.to_owned() })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.root, self.path)
    }
}

/// Where an origin pulls from.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Canonical `rsync://host[:port]/module[/path]`, without user.
    pub uri: String,
    /// The host in it; slots and spacing count by it.
    pub host: String,
    /// User name at the daemon; empty: anonymous.
    pub user: String,
    /// The password, sealed with a key that is not in the store; empty: none.
    pub sealed_password: Vec<u8>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("uri", &self.uri).field("user", &self.user).finish_non_exhaustive()
    }
}

/// How rsync is called. `None` everywhere: the table of defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RsyncSettings {
    /// Canonical words of the allow list, in order; opaque here.
    pub options: Vec<String>,
    /// The options replace the default flags.
    pub no_defaults: bool,
    /// rsync's connect timeout.
    pub connect_timeout: Option<Duration>,
    /// rsync's I/O timeout.
    pub io_timeout: Option<Duration>,
    /// The stall limit.
    pub stall_timeout: Option<Duration>,
    /// The wall-clock limit.
    pub run_timeout: Option<Duration>,
    /// KiB/s; 0: none.
    pub bandwidth_limit_kib: u64,
    /// Canonical words in place of the default flags, in front of `options`, possibly none. `None`: the default flags, or
    /// what `no_defaults` says. With it there is no delete mode among the words.
    pub defaults: Option<Vec<String>>,
    /// The delete mode as a canonical word; empty: nothing is deleted. With it there is none among the words. `None`: what
    /// stands among `options`; where none does, the default.
    pub delete: Option<String>,
}

/// The delete mode of a pull that says nothing of it. Words are opaque here, so this is the one that is known.
const DELETE_DEFAULT: &str = "--delete-delay";

impl RsyncSettings {
    /// The words that an agent gets: the default part, the basic part, the delete part.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let of_parts = self.defaults.is_some().then_some(DELETE_DEFAULT);
        let delete = self.delete.as_deref().or(of_parts).filter(|word| !word.is_empty());
        let before = self.defaults.iter().flatten().chain(&self.options).cloned();
        before.chain(delete.map(str::to_owned)).collect()
    }

    /// Whether those words replace the agents' default flags.
    #[must_use]
    pub const fn replaces_defaults(&self) -> bool {
        self.no_defaults || self.defaults.is_some()
    }
}

/// One agent that holds the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which agent.
    pub agent: AgentUid,
    /// Where on it; `None`: the project's destination.
    pub destination: Option<Destination>,
}

/// Which agents are replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// This one.
    Agent(AgentUid),
    /// Every agent that has all of these labels, now or later. Never empty.
    Labels(BTreeMap<String, String>),
}

/// Agents that pull from the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas {
    /// Which.
    pub pick: Pick,
    /// Where on them; `None`: the project's destination.
    pub destination: Option<Destination>,
}

/// Which agents hold the tree, and how it spreads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlacementSettings {
    /// The first is the origin and pulls from the upstream; the others stand by, in order of preference.
    pub origins: Vec<Target>,
    /// The agents that pull from the origin.
    pub replicas: Vec<Replicas>,
    /// Replicas of this project that pull at once; 0: no limit of its own.
    pub max_parallel: u32,
    /// A propagating run closes after this.
    pub propagation_timeout: Option<Duration>,
    /// How long an origin waits for replicas that are still pulling.
    pub drain_timeout: Option<Duration>,
}

/// What stops a run that would destroy the tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuardSettings {
    /// The most files an attempt may delete; `None`: by the size of the tree.
    pub max_delete: Option<u64>,
    /// Percent of files or bytes lost that hold the origin's new tree; `None`: the default.
    pub shrink_percent: Option<u32>,
    /// Relative paths that must exist at the upstream; checked by the mapping.
    pub sentinels: Vec<String>,
    /// The most bytes that the tree may have; 0: no limit.
    pub quota_bytes: u64,
}

/// What is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetrySettings {
    /// Tries in one run, the first included.
    pub attempts: Option<u32>,
    /// Pause before the second try.
    pub initial_backoff: Option<Duration>,
}

/// All that people say about a project, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ProjectSpec {
    /// For people.
    pub display_name: String,
    /// The user who may act on it without being an operator; `None`: nobody.
    pub owner: Option<Name>,
    /// For selectors.
    pub labels: BTreeMap<String, String>,
    /// Where the origin may pull from, in order of preference; [`ProjectState::upstream`] says which is asked first.
    /// At most [`UPSTREAMS_MAX`], no URI twice. Empty: people put the tree on the origin themselves, and a run begins
    /// at the replicas.
    pub upstreams: Vec<Upstream>,
    /// Where the tree lives.
    pub destination: Destination,
    /// When it fires.
    pub schedule: Schedule,
    /// How rsync is called.
    pub rsync: RsyncSettings,
    /// Which agents hold it.
    pub placement: PlacementSettings,
    /// What stops a run that would destroy the tree.
    pub guard: GuardSettings,
    /// The file that tells how new a tree is. `None`: nobody knows, and nothing falls back by itself.
    pub marker: Option<Marker>,
    /// What is tried again.
    pub retry: RetrySettings,
    /// Why a partial transfer counts as a success; empty: it does not.
    pub partial_is_success: String,
    /// The public symbolic link to the tree, on each of its agents: a named root and a path below it, outside of every
    /// tree. The agent makes it, after its first success, and keeps it; `None`: how readers get at the tree is the
    /// administrator's matter.
    pub link: Option<Destination>,
    /// The projects after which this one runs: whenever one of them has made a new version of its tree. At most
    /// [`AFTER_MAX`], none twice, and never in a circle.
    pub after: Vec<ProjectUid>,
}

impl ProjectSpec {
    /// Where the tree lives on that target's agent.
    #[must_use]
    pub fn destination_on<'a>(&'a self, target: &'a Target) -> &'a Destination {
        target.destination.as_ref().unwrap_or(&self.destination)
    }

    /// How often network, timeout and protocol failures are tried, the first try included.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.retry.attempts.unwrap_or(defaults::RETRY_ATTEMPTS)
    }
}

/// Why and since when a schedule is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// The user.
    pub by: String,
    /// Since when.
    pub time: Wall,
    /// Why, as given.
    pub reason: String,
    /// When it ends by itself.
    pub until: Option<Wall>,
}

/// Since when and why nobody works on a tree any more, which goes on being served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// The user.
    pub by: String,
    /// Since when.
    pub time: Wall,
    /// Why, as given.
    pub reason: String,
}

/// A project as people declared it. Changes only when a person changes it; `revision` is its etag.
#[derive(Debug, Clone, PartialEq)]
pub struct ProjectRecord {
    /// For ever.
    pub uid: ProjectUid,
    /// For people.
    pub name: Name,
    /// What was declared.
    pub spec: ProjectSpec,
    /// Set while paused.
    pub paused: Option<Pause>,
    /// Set while archived: it has no fire, runs only when a person asks, without retries, and raises no alarm.
    pub archived: Option<Archive>,
    /// Grows by one with each change.
    pub revision: u64,
    /// When it was declared.
    pub create_time: Wall,
    /// When it was last changed.
    pub update_time: Wall,
}

/// The next fire of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextFire {
    /// The instant by the schedule: the identity of the fire.
    pub scheduled: Wall,
    /// When it really fires: jitter and catch-up spread drawn once and stored.
    pub at: Wall,
    /// The spread after an outage has been drawn.
    pub spread: bool,
}

/// What happens to a project by itself: counters and clocks, apart from what people declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectState {
    /// Whose.
    pub uid: ProjectUid,
    /// Accepted triggers so far.
    pub wanted: u64,
    /// The trigger count that the newest offered run took.
    pub taken: u64,
    /// When it fires next; `None`: manual, exhausted, or after the running interval.
    pub next_fire: Option<NextFire>,
    /// Fires dropped because they were older than the catch-up window.
    pub missed_fires: u64,
    /// Fires dropped by overlap policy SKIP.
    pub skipped_fires: u64,
    /// How the newest closed run ended.
    pub last_run: Option<LastRun>,
    /// The version of the tree that the origin serves: what every replica should have.
    pub tree: Option<RunId>,
    /// When the origin last succeeded.
    pub last_success: Option<Wall>,
    /// Which of the declared upstreams is preferred, and asked first by each run; 0: the first.
    pub upstream: u32,
    /// The newest marker that was seen of what is served, by the declared one; nothing older is pulled by itself. `None`:
    /// not known.
    pub marker: Option<Wall>,
}

impl ProjectState {
    /// A project to which nothing has happened.
    #[must_use]
    pub fn new(uid: ProjectUid) -> Self {
        Self {
            uid,
            wanted: 0,
            taken: 0,
            next_fire: None,
            missed_fires: 0,
            skipped_fires: 0,
            last_run: None,
            tree: None,
            last_success: None,
            upstream: 0,
            marker: None,
        }
    }
}

/// How the newest closed run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRun {
    /// Which.
    pub run: RunId,
    /// How.
    pub state: crate::run::RunState,
    /// When.
    pub end: Wall,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_stay_below_their_root() {
        for good in ["a1:debian", "a1:pub/debian-cd", "a1:a+b/c.d_e-f"] {
            assert_eq!(good.parse::<Destination>().map(|d| d.to_string()), Ok(good.to_owned()));
        }
        assert_eq!("debian".parse::<Destination>(), Err(BadDestination::NoRoot));
        assert_eq!("-a:debian".parse::<Destination>(), Err(BadDestination::BadRoot));
        let long = format!("a1:{}", "x/".repeat(300));
        for bad in
            ["a1:/etc", "a1:..", "a1:a/../b", "a1:", "a1:a//b", "a1:a b", "a1:-x", "a1:.mirror/x", &long]
        {
            assert_eq!(bad.parse::<Destination>(), Err(BadDestination::BadPath), "{bad}");
        }
    }

    #[test]
    fn overlap_is_by_whole_components() {
        let of = |text: &str| text.parse::<Destination>().expect("a good destination");
        assert!(of("a1:pub").overlaps(&of("a1:pub/debian")));
        assert!(of("a1:pub/debian").overlaps(&of("a1:pub")));
        assert!(!of("a1:pub").overlaps(&of("a1:public")));
        assert!(!of("a1:pub").overlaps(&of("a2:pub")));
    }
}
