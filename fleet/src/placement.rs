//! A placement: one project on one agent. Trees have versions (the run that made them), so a failed, absent,
//! returned or new replica is one case: it has work whenever it has less than it should.

use crate::{
    attempt::Role,
    id::{AgentUid, AttemptId, ProjectUid, RunId},
    outcome::Evidence,
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
    /// The version for which all tries failed; the next version, or the agent's return, begins anew.
    pub gave_up_on: Option<RunId>,
    /// Files in the tree after the last success; 0: not known.
    pub files: u64,
    /// Bytes in the tree after the last success; 0: not known.
    pub size_bytes: u64,
    /// While a hold is open, attempts copy and count but delete nothing.
    pub hold: Option<Hold>,
}

impl PlacementRecord {
    /// Whether a replica should pull, when `wanted` is the version that its project serves. (The wanted version
    /// is the same for all placements of a project, so it is stored once, in the project's state.)
    #[must_use]
    pub fn has_work(&self, wanted: Option<RunId>) -> bool {
        self.role == Role::Replica
            && wanted.is_some()
            && self.have_tree != wanted
            && self.gave_up_on != wanted
    }
}
