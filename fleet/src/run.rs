//! A run: one firing of a project, with all its attempts folded into one state.

use crate::{
    id::{AgentUid, ProjectUid, RunId},
    outcome::GuardKind,
    project::Destination,
    time::Wall,
};

/// Why a run exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// What kind of thing asked.
    pub kind: TriggerKind,
    /// The user, where a person asked; the project as it was called then, where another project's run did; else empty.
    pub by: String,
    /// When; for a schedule the instant of the fire.
    pub time: Wall,
    /// The origin's agent ran it by itself, having had no coordinator for long.
    pub autonomous: bool,
}

impl Trigger {
    /// A fire of the schedule, at its time by the schedule.
    #[must_use]
    pub fn schedule(time: Wall) -> Self {
        Self { kind: TriggerKind::Schedule, by: String::new(), time, autonomous: false }
    }
}

/// What kind of thing asked for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TriggerKind {
    /// The project's schedule.
    Schedule,
    /// A person. Runs even while the project is paused.
    User,
    /// A push.
    Push,
    /// The upstream changed.
    UpstreamChange,
    /// Another project, after which this one runs, has made a new version of its tree.
    Project,
}

/// Where a run stands: the fold of its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunState {
    /// Its first attempt has not been offered yet.
    Queued,
    /// Its origin attempt is on an agent, or waits for its next try.
    Running,
    /// The origin is done; replicas pull.
    Propagating,
    /// Closed: the origin and every connected replica have the tree.
    Succeeded,
    /// Closed: the origin, or a connected replica, failed for good.
    Failed,
    /// Closed: a guard stopped the origin.
    Held,
    /// Closed: a person ended it.
    Cancelled,
}

impl RunState {
    /// Whether no attempt can change it any more.
    #[must_use]
    pub fn is_closed(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Propagating => false,
            Self::Succeeded | Self::Failed | Self::Held | Self::Cancelled => true,
        }
    }
}

/// A replica that missed the run, and when it caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed {
    /// Which agent.
    pub agent: AgentUid,
    /// When it caught up, if it did.
    pub caught_up: Option<Wall>,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecord {
    /// Which. Also the version of the tree it makes.
    pub id: RunId,
    /// Of which project.
    pub project: ProjectUid,
    /// Why.
    pub trigger: Trigger,
    /// Triggers that joined it while it waited.
    pub coalesced: u64,
    /// A person is among those who asked, so it runs while the project is paused.
    pub by_person: bool,
    /// The trigger count it consumes; 0 until its first offer, and of dry runs, which consume none.
    pub generation: u64,
    /// Where it stands.
    pub state: RunState,
    /// Attempts so far; also the number of the newest one.
    pub attempts: u32,
    /// The newest attempt of the origin.
    pub origin_attempt: u32,
    /// A connected replica failed for good.
    pub replica_failed: bool,
    /// Replicas that missed it.
    pub missed: Vec<Missed>,
    /// When it was asked for.
    pub create_time: Wall,
    /// When its first attempt was offered.
    pub start_time: Option<Wall>,
    /// When the origin was done and replicas began.
    pub propagate_time: Option<Wall>,
    /// When it closed.
    pub end_time: Option<Wall>,
    /// It made the tree that its project serves now: kept at hand so that replicas that return can be
    /// entered in it.
    pub current_tree: bool,
    /// W3C trace context of what asked for it; empty: none.
    pub traceparent: String,
    /// What was asked for beyond an ordinary run.
    pub wish: Wish,
}

impl RunRecord {
    /// A run that waits with its first attempt, asked for at `create_time` by nobody in particular, as any other.
    #[must_use]
    pub fn queued(id: RunId, project: ProjectUid, trigger: Trigger, create_time: Wall) -> Self {
        Self {
            id,
            project,
            trigger,
            coalesced: 0,
            by_person: false,
            generation: 0,
            state: RunState::Queued,
            attempts: 1,
            origin_attempt: 1,
            replica_failed: false,
            missed: Vec::new(),
            create_time,
            start_time: None,
            propagate_time: None,
            end_time: None,
            current_tree: false,
            traceparent: String::new(),
            wish: Wish::default(),
        }
    }
}

/// What a person wants of a run beyond an ordinary one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// Only tell what would change.
    pub dry_run: bool,
    /// Make room first.
    pub reclaim: bool,
    /// Deletions approved beforehand; `None`: the limit.
    pub allow_deletes: Option<u64>,
    /// Guards waived, by an approval of what they found.
    pub waived: Vec<GuardKind>,
    /// A run that has not begun by then loses `allow_deletes` and `waived`; `None` where it has neither.
    pub waiver_expires: Option<Wall>,
    /// Copy a lost tree from this agent, onto the one that the run's attempts are on. No trigger joins such a run, and
    /// nothing but that placement changes by it.
    pub reseed_from: Option<AgentUid>,
    /// Move the tree of the agent that the run's attempts are on. The same goes for it.
    pub moves: Option<Move>,
}

/// A tree's way from one place on its agent to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Where it was when the move was asked for. It stays there: nobody removes it but the agent's administrator.
    pub from: Destination,
    /// Where it lives from the move's success on.
    pub to: Destination,
}

impl Wish {
    /// Whether a run of it is to make a version of the tree: neither a dry run nor what concerns one placement does.
    #[must_use]
    pub fn makes_tree(&self) -> bool {
        !self.dry_run && !self.is_aside()
    }

    /// Whether it concerns the tree of one placement only, beside the project's runs: a reseed or a move.
    #[must_use]
    pub fn is_aside(&self) -> bool {
        self.reseed_from.is_some() || self.moves.is_some()
    }

    /// What is left of it at `now`.
    #[must_use]
    pub fn valid_at(self, now: Wall) -> Self {
        if self.waiver_expires.is_some_and(|expires| expires <= now) {
            Self { allow_deletes: None, waived: Vec::new(), waiver_expires: None, ..self }
        } else {
            self
        }
    }

    /// This wish of a run that waits, joined at `now` by another one. What they allow holds for as long as both
    /// would: neither is to live longer by the other.
    #[must_use]
    pub fn joined_by(self, other: Self, now: Wall) -> Self {
        let own = self.valid_at(now);
        let mut waived: Vec<GuardKind> = own.waived.into_iter().chain(other.waived).collect();
        waived.sort_unstable();
        waived.dedup();
        Self {
            dry_run: own.dry_run,
            reclaim: own.reclaim || other.reclaim,
            allow_deletes: own.allow_deletes.max(other.allow_deletes),
            waived,
            waiver_expires: [own.waiver_expires, other.waiver_expires].into_iter().flatten().min(),
            reseed_from: own.reseed_from,
            moves: own.moves,
        }
    }
}

impl RunRecord {
    /// Whether the engine still needs it; others live in the history alone.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.state.is_closed() || self.current_tree
    }
}
