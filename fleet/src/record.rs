//! What is stored, and how a decision changes it. Recovery is applying every stored record to an empty
//! engine, so a record must say all that the engine needs.

use std::sync::Arc;

use crate::{
    agent::{AgentRecord, JoinToken, PushToken, Root, Session, UserRecord, UserToken},
    attempt::AttemptRecord,
    engine::Timer,
    id::{AgentUid, AttemptId, Epoch, ProjectUid, RunId},
    input::Export,
    placement::PlacementRecord,
    plan::{LeftOut, PlanCounts, PlanStep},
    project::{ProjectRecord, ProjectState},
    run::RunRecord,
    standing::StandingOrder,
    time::{Mono, Wall},
    trash::TrashRecord,
    upstream::UpstreamRecord,
};

/// A fleet-wide stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    /// The user.
    pub by: String,
    /// Since when.
    pub time: Wall,
    /// Why, as given.
    pub reason: String,
}

/// The one record of the fleet as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FleetRecord {
    /// Grows by one at each start of a coordinator.
    pub term: u64,
    /// The uid that the next project or agent gets.
    pub next_uid: u64,
    /// Set while the fleet is frozen.
    pub frozen: Option<Freeze>,
    /// The newest plan of which was left out what is no longer kept: what became of it and of those before it is not known.
    pub forgotten_plan: Option<u64>,
}

/// A remembered answer: the same request id gets it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// User, method and request id.
    pub key: String,
    /// Hash of the payload: another payload under the same id is refused.
    pub payload: String,
    /// What was answered.
    pub answer: Answer,
    /// When it may be forgotten.
    pub expires: Wall,
}

/// A remembered answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This project was made.
    Project(ProjectUid),
    /// This agent was declared.
    Agent(AgentUid),
    /// The push token with this id was made. Its secret is nowhere.
    PushToken(String),
    /// This run was made or joined.
    Run {
        /// The project.
        project: ProjectUid,
        /// The run.
        run: RunId,
        /// It was joined.
        coalesced: bool,
    },
    /// This plan was recorded.
    Plan {
        /// Which.
        plan: u64,
        /// What it is about.
        counts: PlanCounts,
    },
}

/// Anything that is stored.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant holds the record it is named after")]
pub enum Record {
    Fleet(FleetRecord),
    /// Shared: the writer's engine, the view and the decision hold the same one.
    Project(Arc<ProjectRecord>),
    ProjectState(ProjectState),
    Placement(PlacementRecord),
    Agent(AgentRecord),
    JoinToken(JoinToken),
    User(UserRecord),
    UserToken(UserToken),
    PushToken(PushToken),
    Request(RequestRecord),
    Run(RunRecord),
    Attempt(AttemptRecord),
    Upstream(UpstreamRecord),
    PlanStep(Box<PlanStep>),
    /// It takes the place of its step.
    LeftOut(LeftOut),
    Trash(TrashRecord),
}

/// What a record is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each variant is the key of the record it is named after")]
pub enum Key {
    Fleet,
    Project(ProjectUid),
    ProjectState(ProjectUid),
    Placement(ProjectUid, AgentUid),
    Agent(AgentUid),
    JoinToken(String),
    User(String),
    UserToken(String),
    PushToken(String),
    Request(String),
    Run(ProjectUid, RunId),
    Attempt(ProjectUid, AttemptId),
    Upstream(String),
    PlanStep(u32),
    Trash(AgentUid, ProjectUid),
}

impl Record {
    /// What it is found by.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Fleet(_) => Key::Fleet,
            Self::Project(r) => Key::Project(r.uid),
            Self::ProjectState(r) => Key::ProjectState(r.uid),
            Self::Placement(r) => Key::Placement(r.project, r.agent),
            Self::Agent(r) => Key::Agent(r.uid),
            Self::JoinToken(r) => Key::JoinToken(r.id.clone()),
            Self::User(r) => Key::User(r.name.folded()),
            Self::UserToken(r) => Key::UserToken(r.id.clone()),
            Self::PushToken(r) => Key::PushToken(r.id.clone()),
            Self::Request(r) => Key::Request(r.key.clone()),
            Self::Run(r) => Key::Run(r.project, r.id),
            Self::Attempt(r) => Key::Attempt(r.project, r.id),
            Self::Upstream(r) => Key::Upstream(r.host.clone()),
            Self::PlanStep(r) => Key::PlanStep(r.number),
            Self::LeftOut(r) => Key::PlanStep(r.number),
            Self::Trash(r) => Key::Trash(r.agent, r.project),
        }
    }

    /// Whether the engine needs it. What is not live is history: the store keeps it apart, the engine forgets
    /// it, and only pages of it are ever read.
    #[must_use]
    pub fn is_live(&self) -> bool {
        match self {
            Self::Run(run) => run.is_live(),
            Self::Attempt(attempt) => attempt.state.end().is_none(),
            Self::Fleet(_)
            | Self::Project(_)
            | Self::ProjectState(_)
            | Self::Placement(_)
            | Self::Agent(_)
            | Self::JoinToken(_)
            | Self::User(_)
            | Self::UserToken(_)
            | Self::PushToken(_)
            | Self::Request(_)
            | Self::Upstream(_)
            | Self::PlanStep(_)
            | Self::LeftOut(_)
            | Self::Trash(_) => true,
        }
    }
}

/// One step of a decision.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a decision has a handful of them, and they are gone after the commit"
)]
pub enum Change {
    /// Store this record in place of the one with its key.
    Put(Record),
    /// Remove the record with this key.
    Delete(Key),
    /// Remember something that is not stored: it is gone after a restart, and may be.
    Volatile(Volatile),
}

/// What the engine knows and does not store.
#[derive(Debug, Clone, PartialEq)]
pub enum Volatile {
    /// An agent said hello.
    SessionOpened(AgentUid, Session),
    /// A session ended.
    SessionClosed(AgentUid, Epoch),
    /// An agent told of its disks anew.
    Inventory(AgentUid, Vec<Root>),
    /// An agent's rsync daemon serves what it was told up to `serial`, at `serve_uri`.
    Exporting {
        /// Which agent.
        agent: AgentUid,
        /// The exports that are in place.
        serial: u64,
        /// Where; empty: nowhere.
        serve_uri: String,
        /// Why it cannot; empty: it can.
        fault: String,
        /// What it was told to serve up to then, and does not.
        not_served: Vec<ProjectUid>,
    },
    /// An agent was told what it serves.
    Told {
        /// Which agent.
        agent: AgentUid,
        /// The message that told it.
        serial: u64,
        /// The day of its newest secrets, counted since 1970.
        day: u64,
        /// This is the whole list.
        complete: bool,
        /// What it serves of each project; `None`: nothing.
        told: Vec<(ProjectUid, Option<Export>)>,
    },
    /// A placement was looked at, and brought in line where that was possible.
    HomeChecked(ProjectUid, AgentUid),
    /// An agent has been away for so long that nothing waits for it any more.
    GivenUp(AgentUid),
    /// While steps of a plan are left something else was done: the next tick does a step.
    TookTurn,
    /// A tree that is wanted in the trash was looked at; it waits on.
    TrashLooked(AgentUid, ProjectUid),
    /// An agent was told to move a tree to the trash.
    TrashTold(AgentUid, ProjectUid),
    /// A timer was dealt with.
    TimerDone(Timer),
    /// The line of waiting attempts was looked through, up to but not including this one.
    Scanned {
        /// Where to go on; `None`: the whole line is done.
        next: Option<AttemptId>,
        /// When time alone may let one of them through.
        wake: Option<Mono>,
        /// When the first window opens for one of them, by the wall clock.
        opening: Option<Wall>,
    },
    /// It was seen whether a propagating run can close.
    CloseChecked(RunId),
    /// An agent was told what to do by itself.
    ToldAutonomy {
        /// Which agent.
        agent: AgentUid,
        /// The message that told it.
        serial: u64,
        /// This is the whole list.
        complete: bool,
        /// Its orders by project; `None`: there is none.
        orders: Vec<(ProjectUid, Option<StandingOrder>)>,
    },
}
