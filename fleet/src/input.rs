//! All that can happen, and all that can follow: closed enums, so that one look tells what may trigger what.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    agent::{AgentFacts, Root, TokenNames, UserRecord},
    attempt::Role,
    id::{AgentUid, AttemptId, Epoch, Name, ProjectUid, RunId},
    marker::MarkerCheck,
    outcome::{Evidence, GuardKind, Outcome},
    project::{Destination, ProjectSpec},
    record::{Change, Freeze},
    refusal::Refusal,
    run::{TriggerKind, Wish},
    standing::{AutonomousFire, StandingOrder},
    time::Wall,
};

/// A request id: the same one gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// User, method and id.
    pub key: String,
    /// Hash of the payload.
    pub payload: String,
}

/// Anything that can happen to the fleet.
#[derive(Debug, Clone)]
pub enum Input {
    /// Time passed. Does one due thing; the driver repeats it until nothing is due.
    Tick,
    /// Forgets answers and join tokens that have expired, and mends schedules that a wrong clock has sent into
    /// the far future; housekeeping repeats it until nothing changes.
    Sweep,
    /// A coordinator started: the term grows.
    Start {
        /// The least term it must have (restore sets it).
        at_least: u64,
    },
    /// A person asks.
    Person(Person),
    /// An agent speaks.
    Agent(AgentInput),
}

/// What people ask for.
#[derive(Debug, Clone)]
pub struct Person {
    /// The user's name.
    pub by: String,
    /// What is asked for.
    pub ask: Ask,
}

/// What a person asks for.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Declare a project.
    CreateProject {
        /// Its name.
        name: Name,
        /// All of it.
        spec: Box<ProjectSpec>,
        /// It starts paused.
        paused: bool,
        /// For the same answer twice.
        request: Option<RequestKey>,
        /// Check only.
        validate_only: bool,
    },
    /// Replace what was declared; the mask was merged by the shell.
    UpdateProject {
        /// Which.
        project: ProjectUid,
        /// The merged whole.
        spec: Box<ProjectSpec>,
        /// The revision the merge was made from.
        revision: u64,
        /// Check only.
        validate_only: bool,
    },
    /// Remove a project's record.
    DeleteProject {
        /// Which.
        project: ProjectUid,
        /// Must be this, where given.
        revision: Option<u64>,
        /// Cancel what runs rather than refuse.
        cancel_running: bool,
    },
    /// Stop a schedule.
    Pause {
        /// Which.
        project: ProjectUid,
        /// Why.
        reason: String,
        /// When it ends by itself.
        until: Option<Wall>,
        /// Must be this, where given.
        revision: Option<u64>,
    },
    /// End a pause.
    Resume {
        /// Which.
        project: ProjectUid,
        /// Must be this, where given.
        revision: Option<u64>,
    },
    /// Start a run.
    Run {
        /// Which.
        project: ProjectUid,
        /// Why.
        kind: TriggerKind,
        /// Beyond an ordinary run.
        wish: Wish,
        /// For the same answer twice.
        request: Option<RequestKey>,
        /// W3C trace context; empty: none.
        traceparent: String,
    },
    /// Allow what a guard found, once.
    Approve {
        /// Of which project.
        project: ProjectUid,
        /// The run of the newest hold.
        run: RunId,
        /// Why.
        reason: String,
        /// What that run's guard had found, where the history has it: a refusal says how that differs from now.
        saw: Option<Evidence>,
        /// W3C trace context; empty: none.
        traceparent: String,
    },
    /// Make another agent the origin.
    Promote {
        /// Which project.
        project: ProjectUid,
        /// Which agent; it must hold the tree.
        agent: AgentUid,
        /// The project's revision must be this, where given.
        revision: Option<u64>,
        /// Even if the agent is away or lacks the tree that is served now.
        force: bool,
    },
    /// Copy a lost tree from another agent of the project.
    Reseed {
        /// Which project.
        project: ProjectUid,
        /// The agent that lost the tree.
        agent: AgentUid,
        /// The agent to copy from.
        from: AgentUid,
        /// The project's revision must be this, where given.
        revision: Option<u64>,
        /// W3C trace context; empty: none.
        traceparent: String,
    },
    /// Move the tree of one agent to another place on it.
    Move {
        /// Which project.
        project: ProjectUid,
        /// The agent whose tree it is.
        agent: AgentUid,
        /// Where to.
        to: Destination,
        /// The project's revision must be this, where given.
        revision: Option<u64>,
        /// W3C trace context; empty: none.
        traceparent: String,
    },
    /// Pull from another of the project's upstreams.
    SwitchUpstream {
        /// Which project.
        project: ProjectUid,
        /// Which upstream, by its canonical URI.
        uri: String,
        /// The project's revision must be this, where given.
        revision: Option<u64>,
    },
    /// End a run.
    CancelRun {
        /// Of which project.
        project: ProjectUid,
        /// Which.
        run: RunId,
    },
    /// Stop the fleet.
    Freeze {
        /// Why.
        reason: String,
    },
    /// End a freeze.
    Thaw,
    /// Give no new attempts to an agent, or give them again.
    Drain {
        /// Which.
        agent: AgentUid,
        /// Give none.
        draining: bool,
    },
    /// Refuse an agent for ever.
    RevokeAgent {
        /// Which.
        agent: AgentUid,
        /// Why.
        reason: String,
    },
    /// Put one agent in another's place, in all projects.
    ReplaceAgent {
        /// Which in whose.
        replacement: AgentReplacement,
        /// W3C trace context; empty: none.
        traceparent: String,
    },
    /// Remove a revoked agent's record.
    DeleteAgent {
        /// Which.
        agent: AgentUid,
    },
    /// Make a join token; the shell made the secret.
    CreateJoinToken {
        /// No secret.
        id: String,
        /// SHA-256 of the secret, hex.
        hash: String,
        /// What names it is good for.
        names: TokenNames,
        /// How often.
        uses: u32,
        /// For how long.
        ttl: Duration,
    },
    /// Make a join token useless.
    DeleteJoinToken {
        /// Which.
        id: String,
    },
    /// Set the limits of one upstream host.
    SetUpstream {
        /// As in URIs.
        host: String,
        /// Connections over the whole fleet; `None`: the fleet's limit.
        slots: Option<u32>,
        /// Pause between two starts; `None`: the fleet's limit.
        spacing: Option<Duration>,
        /// Must be this, where given; 0: nothing is set.
        revision: Option<u64>,
    },
    /// Enter a user, or give a user another role (`init` enters the first admin).
    PutUser(UserRecord),
}

/// One agent that takes another's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentReplacement {
    /// Whose place.
    pub old: AgentUid,
    /// Who takes it; it must be here, and of none of the projects.
    pub new: AgentUid,
    /// Where the old one was the origin, copy the tree from another agent that has it.
    pub reseed: bool,
    /// Refuse the old one for ever, with this reason; `None`: it is drained.
    pub revoke: Option<String>,
    /// Only tell what would change.
    pub validate_only: bool,
}

/// What agents say, by their sessions.
#[derive(Debug, Clone)]
pub enum AgentInput {
    /// A host wants to join. The certificate is already signed and is given out only after the commit that
    /// burns the token.
    Enroll {
        /// SHA-256 of the join token, hex.
        token_hash: String,
        /// The name it asks for.
        name: Name,
        /// From enrolment.
        labels: BTreeMap<String, String>,
        /// SHA-256 of its public key, hex.
        key_hash: String,
        /// Of the certificate that waits.
        serial: String,
        /// Of the certificate that waits.
        expires: Wall,
    },
    /// An agent's next certificate. It is already signed and is given out only after this commit.
    Renew {
        /// Which agent.
        agent: AgentUid,
        /// SHA-256 of the public key that it is for, hex: the one of the enrolment.
        key_hash: String,
        /// Of the certificate that waits.
        serial: String,
        /// Of the certificate that waits.
        expires: Wall,
    },
    /// A stream began with a hello.
    Hello {
        /// From the certificate.
        agent: AgentUid,
        /// Which state directory.
        state_id: String,
        /// The highest term it has seen.
        highest_term: u64,
        /// The connection it came over, counted as connections are accepted: the newest one wins, whichever
        /// hello arrives first.
        connection: u64,
        /// What it says of itself.
        facts: AgentFacts,
        /// What it holds.
        attempts: Vec<Held>,
    },
    /// A stream ended, however it ended.
    Gone {
        /// Which agent's.
        agent: AgentUid,
        /// Which session.
        session: Epoch,
    },
    /// It took an assignment.
    Accepted {
        /// Which agent.
        agent: AgentUid,
        /// Which attempt.
        attempt: AttemptId,
        /// Under which token.
        epoch: Epoch,
    },
    /// It did not take an assignment.
    Refused {
        /// Which agent.
        agent: AgentUid,
        /// Which attempt.
        attempt: AttemptId,
        /// Under which token.
        epoch: Epoch,
        /// Why, by what follows from it.
        why: NotTaken,
        /// In words.
        detail: String,
    },
    /// An attempt ended.
    Ended {
        /// Which agent says so.
        agent: AgentUid,
        /// Which attempt.
        attempt: AttemptId,
        /// Under which token.
        epoch: Epoch,
        /// How.
        outcome: Outcome,
    },
    /// An attempt ended that the agent began by itself.
    EndedAlone {
        /// Which agent says so.
        agent: AgentUid,
        /// The attempt, as a hello describes it.
        held: Box<Held>,
        /// How.
        outcome: Outcome,
    },
    /// What its rsync daemon serves now.
    Exporting {
        /// Which agent.
        agent: AgentUid,
        /// Which session.
        session: Epoch,
        /// The exports that are in place.
        serial: u64,
        /// Where it serves; empty: it does not.
        serve_uri: String,
        /// Why it cannot serve; empty: it can.
        fault: String,
        /// What it was told to serve up to then, and does not.
        not_served: Vec<ProjectUid>,
    },
    /// Disks, told anew.
    Inventory {
        /// Which agent.
        agent: AgentUid,
        /// Which session.
        session: Epoch,
        /// Its roots.
        roots: Vec<Root>,
    },
}

/// Why an agent did not take an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// Its own file forbids it: trying again would not help.
    Forbidden,
    /// Something is in the way that only it sees: it is asked again later.
    Busy,
    /// It is being stopped: it is asked again when it is back.
    Stopping,
}

/// An attempt that an agent holds, as its hello tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub attempt: AttemptId,
    /// Under which token.
    pub epoch: Epoch,
    /// Of which project.
    pub project: ProjectUid,
    /// To do what.
    pub role: Role,
    /// Where.
    pub destination: Destination,
    /// Hash of what was assigned.
    pub spec_hash: String,
    /// It has ended; the outcome follows.
    pub ended: bool,
    /// It only tells what would change: its success makes no tree.
    pub dry_run: bool,
    /// It copies or moves a tree that is there: its success makes no version.
    pub keep_extra: bool,
    /// The store's history has this attempt, or its whole run, as ended. The shell looks it up: history is not
    /// in the engine, and what has ended must not begin again.
    pub recorded: bool,
    /// The fire that the agent ran by itself; `None`: a coordinator assigned it.
    pub autonomous: Option<AutonomousFire>,
}

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
