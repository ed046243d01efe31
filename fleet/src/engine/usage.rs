//! Slots in use, counted as attempts go out and come back. Derived: a test recounts it from the attempts.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    attempt::{AttemptRecord, Role},
    id::{AgentUid, AttemptId, ProjectUid},
};

/// What attempts that are out take up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Usage {
    /// On each agent.
    pub(super) agents: BTreeMap<AgentUid, BTreeSet<AttemptId>>,
    /// On each volume: an agent's root.
    pub(super) volumes: BTreeMap<(AgentUid, String), BTreeSet<AttemptId>>,
    /// First copies on each volume.
    pub(super) first_syncs: BTreeMap<(AgentUid, String), BTreeSet<AttemptId>>,
    /// Connections to each upstream host.
    pub(super) hosts: BTreeMap<String, BTreeSet<AttemptId>>,
    /// Replicas pulling, by project.
    pub(super) replicas: BTreeMap<ProjectUid, BTreeSet<AttemptId>>,
    /// Replicas pulling, by the agent that they pull from.
    pub(super) sources: BTreeMap<AgentUid, BTreeSet<AttemptId>>,
}

impl Usage {
    pub(super) fn add(&mut self, attempt: &AttemptRecord) {
        let volume = (attempt.agent, attempt.destination.root().to_owned());
        self.agents.entry(attempt.agent).or_default().insert(attempt.id);
        self.volumes.entry(volume.clone()).or_default().insert(attempt.id);
        if attempt.first_sync {
            self.first_syncs.entry(volume).or_default().insert(attempt.id);
        }
        self.add_remote(attempt);
    }

    pub(super) fn remove(&mut self, attempt: &AttemptRecord) {
        let volume = (attempt.agent, attempt.destination.root().to_owned());
        take(&mut self.agents, &attempt.agent, attempt.id);
        take(&mut self.volumes, &volume, attempt.id);
        take(&mut self.first_syncs, &volume, attempt.id);
        self.remove_remote(attempt);
    }

    /// What it takes up beyond its own agent. Given back early when the agent is away for too long.
    pub(super) fn add_remote(&mut self, attempt: &AttemptRecord) {
        match attempt.role {
            Role::Origin => self.hosts.entry(attempt.upstream_host.clone()).or_default().insert(attempt.id),
            Role::Replica if attempt.source.is_some() => {
                self.replicas.entry(attempt.project).or_default().insert(attempt.id)
            }
            // Its tree is moved on its own disk.
            Role::Replica => false,
        };
        if let Some(source) = attempt.source {
            self.sources.entry(source).or_default().insert(attempt.id);
        }
    }

    pub(super) fn remove_remote(&mut self, attempt: &AttemptRecord) {
        take(&mut self.hosts, &attempt.upstream_host, attempt.id);
        take(&mut self.replicas, &attempt.project, attempt.id);
        if let Some(source) = attempt.source {
            take(&mut self.sources, &source, attempt.id);
        }
    }
}

/// How many of `map` stand under `key`.
pub(super) fn count<K: Ord>(map: &BTreeMap<K, BTreeSet<AttemptId>>, key: &K) -> u32 {
    map.get(key).map_or(0, |set| u32::try_from(set.len()).unwrap_or(u32::MAX))
}

fn take<K: Ord>(map: &mut BTreeMap<K, BTreeSet<AttemptId>>, key: &K, id: AttemptId) {
    if let Some(set) = map.get_mut(key) {
        set.remove(&id);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
