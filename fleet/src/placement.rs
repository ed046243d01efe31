//! A placement: one project on one agent. Trees have versions (the run that made them), so a failed, absent,
//! returned or new replica is one case: it has work whenever it has less than it should.

use crate::{
    attempt::Role,
    id::{AgentUid, AttemptId, ProjectUid, RunId},
    outcome::{Evidence, GuardKind},
    project::Destination,
    time::Wall,
};

/// A guard's stop that is still open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The attempt that first met the limit.
    pub first: AttemptId,
    /// The newest attempt that met it.
    pub newest: AttemptId,
    /// Since when.
    pub since: Wall,
    /// What the newest one found.
    pub evidence: Evidence,
    /// The guards that stopped attempts since it opened, in order. What the first of them saw need not be over when
    /// another one speaks.
    pub met: Vec<GuardKind>,
    /// A person approved what a replica found: until then its attempts may do that. An origin's approval is its run's
    /// wish.
    pub approved_until: Option<Wall>,
}

impl Hold {
    /// Attempts copy and count, but delete nothing: each of them would delete up to the limit again.
    #[must_use]
    pub fn deletes_stopped(&self) -> bool {
        self.met.contains(&GuardKind::Deletes)
    }

    /// The tree on disk is the one that shrank, not the version that the placement is known to have.
    #[must_use]
    pub fn has_shrunk(&self) -> bool {
        self.met.contains(&GuardKind::Shrink)
    }

    /// What was found and what is allowed, as one clause.
    #[must_use]
    pub fn figures(&self) -> String {
        self.evidence.figures(self.newest == self.first)
    }
}

/// Since when an origin finds its upstreams behind what is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// When the first attempt did.
    pub since: Wall,
    /// The newest run with such an attempt.
    pub newest: RunId,
    /// How many runs had one.
    pub runs: u32,
}

/// One project on one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementRecord {
    /// The project.
    pub project: ProjectUid,
    /// The agent.
    pub agent: AgentUid,
    /// What the agent does for the tree.
    pub role: Role,
    /// A replica that can be promoted to origin, and from which others pull while the origin is away.
    pub standby: bool,
    /// Where the tree lives on it.
    pub destination: Destination,
    /// The version it has; `None`: none whole.
    pub have_tree: Option<RunId>,
    /// When it got that version.
    pub have_time: Option<Wall>,
    /// The version for which all tries failed. The next version begins anew, and so does the agent's return: as another
    /// start of its program, or after having been away for longer than any pause between tries.
    pub gave_up_on: Option<RunId>,
    /// Files in the tree after the last success; 0: not known.
    pub files: u64,
    /// Bytes in the tree after the last success; 0: not known.
    pub size_bytes: u64,
    /// A pull into it ended in the middle, its disk was lost, or what it was copied from changed meanwhile, so what is
    /// there is not [`Self::have_tree`]; the next success clears it.
    pub half_changed: bool,
    /// Where a move of this tree has begun to copy it to, and has not come to a good end: what is there is the move's own,
    /// and another move to that place goes on from it.
    pub half_moved: Option<Destination>,
    /// A guard's stop that is open: it closes by a success, or when counted deletions are within the limit again.
    pub hold: Option<Hold>,
    /// The marker of the version it has; `None`: not known.
    pub marker: Option<Wall>,
    /// Its upstreams have been behind what is served since its last success.
    pub behind: Option<Behind>,
}

impl PlacementRecord {
    /// Whether its tree has lost too much, and nobody has said that this is right.
    #[must_use]
    pub fn has_shrunk(&self) -> bool {
        self.hold.as_ref().is_some_and(Hold::has_shrunk)
    }

    /// Whether another agent may copy this version from it: it has that tree whole, and under that name.
    #[must_use]
    pub fn offers(&self, tree: RunId) -> bool {
        self.have_tree == Some(tree) && !self.has_shrunk() && !self.half_changed
    }

    /// Whether a replica should pull, when `wanted` is the version that its project serves. (The wanted version
    /// is the same for all placements of a project, so it is stored once, in the project's state.)
    #[must_use]
    pub fn has_work(&self, wanted: Option<RunId>) -> bool {
        self.role == Role::Replica
            && wanted.is_some()
            && (self.have_tree != wanted || self.half_changed)
            && self.gave_up_on != wanted
    }
}
