//! What an attempt of a project would be assigned on one of its agents if it began now, for people who want to see the
//! command line before it runs. Decides nothing, waits for nothing, and asks the same functions that make an offer.

use std::time::Duration;

use super::state::Engine;
use crate::{
    attempt::{AttemptRecord, Role},
    decision::Offer,
    id::{AgentUid, Epoch, ProjectUid, RunId},
    run::{RunRecord, Trigger},
    time::{Now, Wall},
};

/// An assignment that nobody is given.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// What would be assigned.
    pub offer: Offer,
    /// The agent that the tree would be pulled from; `None`: the upstream.
    pub source: Option<AgentUid>,
}

impl Engine {
    /// What the agent would be assigned for an ordinary run of the project. `None`: nothing is pulled there now, since the
    /// tree is put there by people, or no agent that has it serves it.
    #[must_use]
    pub fn explained(&self, now: Now, uid: ProjectUid, agent: AgentUid) -> Option<Explained> {
        let project = self.projects.get(&uid)?;
        let placement = project.placements.get(&agent)?;
        let source = match placement.role {
            Role::Origin => {
                project.upstream()?;
                None
            }
            Role::Replica => Some(project.sources().find_map(|from| self.served(now, from, agent))?),
        };
        let nil = RunId::NIL;
        let run = RunRecord::queued(nil, uid, Trigger::schedule(Wall(0)), Wall(0));
        let from = source.as_ref().map(|source| source.agent);
        let attempt = self.new_attempt(project, agent, nil, 1, nil, 1, Duration::ZERO);
        let max_delete = Self::max_delete(now, &run, project, placement);
        let attempt = AttemptRecord { max_delete, source: from, ..attempt };
        let offer = self.assignment(&attempt, Epoch::default(), &run, project, placement, source);
        Some(Explained { offer, source: from })
    }
}
