//! An origin `ftp1`, the replicas `edge1` and `edge2`, and a project whose tree all of them have.

use std::ops::{Deref, DerefMut};

use fleet::{
    engine::WaitReason,
    id::{AgentUid, ProjectUid, RunId},
    outcome::Outcome,
    placement::PlacementRecord,
    project::{ProjectRecord, ProjectSpec},
};

use super::world::World;

pub(super) struct Trio {
    pub(super) world: World,
    pub(super) project: ProjectUid,
    pub(super) origin: AgentUid,
    pub(super) edge1: AgentUid,
    pub(super) edge2: AgentUid,
}

impl Deref for Trio {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Trio {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl Trio {
    /// The agents, each with a label `site` of its own name; no project yet.
    pub(super) fn agents() -> Self {
        let mut world = World::new();
        let [origin, edge1, edge2] =
            ["ftp1", "edge1", "edge2"].map(|name| world.agent(name, &[("site", name)]));
        Self { world, project: ProjectUid(0), origin, edge1, edge2 }
    }

    /// Declares the project, and has its tree brought to all three.
    pub(super) fn begin(&mut self, spec: ProjectSpec, outcome: &Outcome) {
        self.project = self.declare("debian", spec).unwrap();
        self.world.synced(self.project, outcome);
        let everywhere = |agent: &AgentUid| self.placement(*agent).have_tree == self.tree();
        assert!([self.origin, self.edge1, self.edge2].iter().all(everywhere));
        assert!(self.engine.attempts().next().is_none());
    }

    pub(super) fn run(&mut self) -> RunId {
        self.world.run(self.project)
    }

    pub(super) fn record(&self) -> &ProjectRecord {
        self.world.record(self.project)
    }

    pub(super) fn placement(&self, agent: AgentUid) -> &PlacementRecord {
        self.world.placement(self.project, agent).unwrap()
    }

    pub(super) fn tree(&self) -> Option<RunId> {
        self.world.tree(self.project)
    }

    pub(super) fn waits(&self, run: RunId) -> Vec<WaitReason> {
        self.world.waits(self.project, run)
    }

    pub(super) fn may_pull(&self, from: AgentUid) -> Vec<AgentUid> {
        self.world.may_pull(from, self.project)
    }
}
