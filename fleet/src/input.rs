//! All that can happen: closed enums, so that one look tells what may trigger what. What can follow is `decision`'s.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ipnet::IpNet;

use crate::{
    agent::{AgentCaps, AgentFacts, PasswordHash, Root, TokenNames, UserRole},
    attempt::Role,
    id::{AgentUid, AttemptId, Epoch, Name, ProjectUid, RunId},
    outcome::{Evidence, Outcome},
    plan::PlanRequest,
    project::{Destination, ProjectSpec},
    run::{TriggerKind, Wish},
    standing::AutonomousFire,
    time::Wall,
    trash::TrashReport,
};

pub use crate::decision::{
    CloseReason, Decision, Export, Message, Offer, Pair, Refill, Replaced, ReplacedPlacement, Reply, Send,
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
    /// Forgets answers, join tokens and user tokens that have expired, and mends schedules that a wrong clock has sent into
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
        /// Move its trees to the trash of their roots, where their agents allow it.
        tree_to_trash: bool,
    },
    /// Give a project another name.
    Rename {
        /// Which.
        project: ProjectUid,
        /// What it is called from now on.
        name: Name,
        /// Must be this, where given.
        revision: Option<u64>,
    },
    /// Serve a tree and work on it no more.
    Archive {
        /// Which.
        project: ProjectUid,
        /// Why.
        reason: String,
        /// Must be this, where given.
        revision: Option<u64>,
    },
    /// Work on an archived tree again.
    Unarchive {
        /// Which.
        project: ProjectUid,
        /// Must be this, where given.
        revision: Option<u64>,
    },
    /// Create, change and remove many projects.
    Apply(Box<PlanRequest>),
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
    /// Start a run because there is something new to copy. It waits where a schedule's fire would.
    Push(Push),
    /// Make a push token; the shell made the secret.
    CreatePushToken(NewPushToken),
    /// Make a push token useless.
    DeletePushToken {
        /// Which.
        id: String,
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
    /// Declare an agent before any host enrols by its name.
    CreateAgent {
        /// Its name.
        name: Name,
        /// Its labels.
        labels: BTreeMap<String, String>,
        /// What it is allowed.
        caps: AgentCaps,
        /// For the same answer twice.
        request: Option<RequestKey>,
        /// Check only.
        validate_only: bool,
    },
    /// Set an agent's labels and caps; the mask was merged by the shell.
    UpdateAgent {
        /// Which.
        agent: AgentUid,
        /// All its labels from now on.
        labels: BTreeMap<String, String>,
        /// All its caps from now on.
        caps: AgentCaps,
        /// The revision the merge was made from.
        revision: u64,
        /// Check only.
        validate_only: bool,
    },
    /// Remove the record of an agent that is revoked, or by whose name no host has enrolled.
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
        /// The networks that a host may enrol from by it; none: from anywhere.
        networks: Vec<IpNet>,
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
    /// Something about users.
    User(UserAsk),
}

/// A push of a project.
#[derive(Debug, Clone)]
pub struct Push {
    /// Which.
    pub project: ProjectUid,
    /// The push token that it is asked for by; `None`: a user asks.
    pub token: Option<String>,
    /// Who pushes has had what may be pushed at a time: only a run that waits already may answer.
    pub over_limit: bool,
    /// For the same answer twice.
    pub request: Option<RequestKey>,
    /// W3C trace context; empty: none.
    pub traceparent: String,
}

/// A push token that is to be made.
#[derive(Debug, Clone)]
pub struct NewPushToken {
    /// No secret.
    pub id: String,
    /// SHA-256 of the secret, hex.
    pub hash: String,
    /// The one project it is good for.
    pub project: ProjectUid,
    /// Who has it.
    pub note: String,
    /// For how long; `None`: until it is deleted.
    pub ttl: Option<Duration>,
    /// For the same answer twice.
    pub request: Option<RequestKey>,
    /// Change nothing; refuse as usual.
    pub validate_only: bool,
}

/// What a person asks for about users. Whether he may is the shell's matter; that an admin remains is the engine's.
#[derive(Debug, Clone)]
pub enum UserAsk {
    /// Enter a user.
    Create {
        /// The name.
        name: Name,
        /// What the user may do.
        role: UserRole,
        /// What a password is compared with; `None`: nobody logs in by one.
        password: Option<PasswordHash>,
    },
    /// Change what a user may do.
    Update {
        /// Which.
        user: Name,
        /// The new role; `None`: as it is.
        role: Option<UserRole>,
        /// Let nothing through, or let it through again; `None`: as it is.
        disabled: Option<bool>,
        /// Must be this, where given.
        revision: Option<u64>,
    },
    /// Give a user another password. All tokens end.
    SetPassword {
        /// Which.
        user: Name,
        /// What a password is compared with from now on.
        password: PasswordHash,
        /// What the old one is compared with, as it was when the change was allowed.
        old: Option<PasswordHash>,
        /// An admin gives the account anew: the old password does not matter, and all certificates end too.
        reset: bool,
    },
    /// Remove a user's record.
    Delete {
        /// Which.
        user: Name,
        /// Must be this, where given.
        revision: Option<u64>,
    },
    /// Enter a token. The password is already compared; the token is given out only after the commit.
    LogIn {
        /// Who.
        user: Name,
        /// What the password was compared with.
        password: PasswordHash,
        /// No secret.
        id: String,
        /// SHA-256 of the token, hex.
        hash: String,
        /// For how long.
        ttl: Duration,
        /// The address that it is asked for from.
        from: String,
    },
    /// Make a token useless.
    RevokeToken {
        /// Whose.
        user: Name,
        /// Which.
        id: String,
    },
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
        /// The address that it asks from; `None`: it is the coordinator's own host.
        from: Option<IpAddr>,
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
    /// What is in its trash, and what it does not put there.
    Trash {
        /// Which agent.
        agent: AgentUid,
        /// Which session.
        session: Epoch,
        /// All of it.
        report: TrashReport,
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
    /// It may still start a program and has no password for it: only then a go-on brings one.
    pub needs_secrets: bool,
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
