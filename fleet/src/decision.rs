//! All that can follow from an input: what changes, what is said to agents, and what the asker is told.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    agent::AgentCaps,
    attempt::Role,
    id::{AgentUid, AttemptId, Epoch, Name, ProjectUid, RunId},
    marker::MarkerCheck,
    outcome::GuardKind,
    plan::PlanCounts,
    project::Destination,
    record::{Change, Freeze},
    refusal::Refusal,
    standing::StandingOrder,
    trash::TrashOrder,
};

/// What an agent is to do, complete in itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Under which token.
    pub epoch: Epoch,
    /// The project's immutable id.
    pub project: ProjectUid,
    /// The project's name.
    pub project_name: Name,
    /// To do what.
    pub role: Role,
    /// From where.
    pub source_uri: String,
    /// User name at the source.
    pub user: String,
    /// Password at the source, sealed.
    pub sealed_password: Vec<u8>,
    /// Where to.
    pub destination: Destination,
    /// Canonical option words.
    pub options: Vec<String>,
    /// They replace the default flags.
    pub no_defaults: bool,
    /// The most files that may be deleted.
    pub max_delete: u64,
    /// rsync's connect timeout.
    pub connect_timeout: Duration,
    /// rsync's I/O timeout.
    pub io_timeout: Duration,
    /// The stall limit.
    pub stall_timeout: Duration,
    /// The wall-clock limit; `None`: none.
    pub run_timeout: Option<Duration>,
    /// KiB/s; 0: none.
    pub bandwidth_limit_kib: u64,
    /// The version it makes or fetches.
    pub tree: RunId,
    /// Only tell what would change.
    pub dry_run: bool,
    /// First make room.
    pub reclaim: bool,
    /// Paths that must exist at the source.
    pub sentinels: Vec<String>,
    /// The placement never had a whole tree.
    pub first_sync: bool,
    /// Guards that a person has waived.
    pub waived: Vec<GuardKind>,
    /// What to do about the project's marker; `None`: nothing.
    pub marker: Option<MarkerCheck>,
    /// The most bytes that the tree may have; 0: no limit.
    pub quota_bytes: u64,
    /// Files in the tree after the last success; 0: not known.
    pub known_files: u64,
    /// Bytes in the tree after the last success; 0: not known.
    pub known_bytes: u64,
    /// Delete nothing, whatever the options and `max_delete` say.
    pub keep_extra: bool,
    /// Copy the tree from this place of the same agent, and make the new place the one that readers see; `source_uri` is
    /// empty then.
    pub move_from: Option<Destination>,
    /// The public symbolic link to keep.
    pub link: Option<Destination>,
    /// Which secret opens the origin's daemon; `None` for origins, and where a daemon of the administrator's serves.
    pub pair: Option<Pair>,
    /// W3C trace context of what asked for the run.
    pub traceparent: String,
}

/// What names the secret by which one replica pulls one tree from one agent. The shell derives the secret from its own
/// key, so that none is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The tree.
    pub project: ProjectUid,
    /// Who serves.
    pub origin: AgentUid,
    /// Who pulls.
    pub replica: AgentUid,
    /// Days since 1970 (UTC): secrets change daily, and yesterday's are good today.
    pub day: u64,
}

/// One tree that an agent serves to replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Which.
    pub project: ProjectUid,
    /// Its name, for people.
    pub name: Name,
    /// Where it lives.
    pub destination: Destination,
    /// Who may pull it, by which secrets.
    pub pairs: Vec<Pair>,
}

/// Something to be said to an agent, after the commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Send {
    /// To which agent.
    pub agent: AgentUid,
    /// Over which session; said to no other.
    pub session: Epoch,
    /// What.
    pub message: Message,
}

/// What is said to an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// First of all.
    Welcome {
        /// The coordinator's term.
        term: u64,
        /// The agent's name.
        name: Name,
    },
    /// Work.
    Offer(Box<Offer>),
    /// Go on.
    Continue {
        /// With what.
        attempt: AttemptId,
        /// Under which token.
        epoch: Epoch,
        /// The password of an upstream, sealed; empty: none.
        sealed_password: Vec<u8>,
        /// Which secret opens the origin's daemon, for a replica; `None`: none does.
        pair: Option<Pair>,
    },
    /// End it.
    Cancel {
        /// What.
        attempt: AttemptId,
        /// Under which token.
        epoch: Epoch,
        /// Why.
        reason: String,
    },
    /// It is recorded.
    Acknowledge {
        /// What.
        attempt: AttemptId,
        /// Under which token.
        epoch: Epoch,
        /// It changed nothing.
        fenced: bool,
    },
    /// Trees that it serves to replicas.
    Exports {
        /// Grows with each in a session; the agent's answer names it.
        serial: u64,
        /// This is the whole list.
        complete: bool,
        /// To be served from now on.
        exports: Vec<Export>,
        /// Not to be served any more.
        withdrawn: Vec<ProjectUid>,
    },
    /// What it is to do by itself once it has had no coordinator for long.
    Autonomy {
        /// Grows with each in a session.
        serial: u64,
        /// This is the whole list.
        complete: bool,
        /// To be kept from now on.
        orders: Vec<StandingOrder>,
        /// Not to be run any more.
        withdrawn: Vec<ProjectUid>,
    },
    /// Move the tree of a deleted project to the trash.
    Trash(TrashOrder),
    /// The session is over.
    Close(CloseReason),
}

/// Why a session is ended by the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// A newer session of the same agent began.
    Superseded,
    /// The agent is revoked.
    Revoked,
    /// An offer was neither taken nor refused in time: the next hello tells what happened.
    OfferUnanswered,
    /// The agent is being stopped and takes nothing any more: it is offered again what it refused when it is back.
    AgentStopping,
}

/// What the asker is told, after the commit.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Done; nothing to say.
    Done,
    /// No, and nothing changed.
    Refused(Refusal),
    /// This project was made or changed.
    Project(ProjectUid),
    /// This run will do it.
    Run {
        /// Of which project.
        project: ProjectUid,
        /// Which.
        run: RunId,
        /// It was already waiting.
        coalesced: bool,
        /// What the asker should know.
        notes: Vec<String>,
    },
    /// This agent.
    Agent(AgentUid),
    /// This push token was made.
    PushToken(String),
    /// The plan, which is recorded, and what it is about.
    Planned {
        /// Which.
        plan: u64,
        /// What it is about.
        counts: PlanCounts,
    },
    /// The session's token.
    Session(Epoch),
    /// The freeze that holds.
    Frozen(Option<Freeze>),
    /// What went over from one agent to another, or would.
    Replaced(Replaced),
}

/// What goes over when one agent takes another's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The old agent's labels.
    pub labels: BTreeMap<String, String>,
    /// The old agent's caps, as far as the new one had none of its own.
    pub caps: AgentCaps,
    /// By the names of their projects.
    pub placements: Vec<ReplacedPlacement>,
}

/// One tree that another agent holds from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplacedPlacement {
    /// Of which project.
    pub project: ProjectUid,
    /// To do what.
    pub role: Role,
    /// A replica that stands by as origin.
    pub standby: bool,
    /// Where.
    pub destination: Destination,
    /// Where the new agent gets the tree.
    pub refill: Refill,
}

/// Where an agent that takes another's place gets a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refill {
    /// It is copied from an agent that has the version which is served.
    Copied {
        /// From which.
        from: AgentUid,
        /// By which run; `None`: only asked what would change.
        run: Option<RunId>,
    },
    /// As every replica's, from its project's origin.
    FromOrigin,
    /// By the project's next run.
    FromUpstream,
    /// People put it there.
    ByPeople,
}

/// What follows from an input: nothing has changed yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// To be committed as one, then applied.
    pub changes: Vec<Change>,
    /// To be said to agents, after the commit.
    pub sends: Vec<Send>,
    /// To be told to the asker, after the commit.
    pub reply: Reply,
}

impl Decision {
    /// Nothing follows.
    #[must_use]
    pub fn nothing() -> Self {
        Self { changes: Vec::new(), sends: Vec::new(), reply: Reply::Done }
    }

    /// No.
    #[must_use]
    pub fn refused(refusal: Refusal) -> Self {
        Self { changes: Vec::new(), sends: Vec::new(), reply: Reply::Refused(refusal) }
    }

    /// Whether anything of it must be stored.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.changes.iter().any(|change| !matches!(change, Change::Volatile(_)))
    }
}
