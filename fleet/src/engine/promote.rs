//! Another agent becomes a project's origin. Nothing is promoted by itself: who pulls from the upstream, and
//! whose tree the others copy, is for people to say.

use std::sync::Arc;

use super::{
    effects::Effects,
    people::{Outcome, check_revision},
    state::{Engine, Project},
};
use crate::{
    attempt::Role,
    id::{AgentUid, ProjectUid},
    input::Reply,
    placement::PlacementRecord,
    project::{ORIGINS_MAX, Pick, ProjectRecord, ProjectSpec, Target},
    record::Record,
    refusal::Refusal,
    time::Now,
};

impl Engine {
    /// Puts a placed agent first in the declaration; the old origin stands by. Trees stay as they are: the next run
    /// makes its version on the new origin.
    pub(super) fn promote(
        &self,
        now: Now,
        uid: ProjectUid,
        agent: AgentUid,
        revision: Option<u64>,
        force: bool,
    ) -> Outcome {
        let project = self.find_project(uid)?;
        check_revision(project, revision)?;
        let name = &self.find_agent(agent)?.name;
        let refused = |reason, why: String| {
            let text = format!("\"{name}\" not made the origin of \"{}\": {why}", project.record.name);
            Err(Refusal::precondition(reason, text))
        };
        let Some(placement) = project.placements.get(&agent) else {
            let text =
                "it does not hold the tree; make it a replica first (mirrorctl project edit --replicas)";
            return refused("NOT_PLACED", text.to_owned());
        };
        let mut effects = Effects::of(self);
        effects.reply(Reply::Project(uid));
        if placement.role == Role::Origin {
            return Ok(effects.decision());
        }
        if let Some(busy) = self.attempts_of_project(uid).find(|attempt| attempt.state.is_out()) {
            let on = self.agents.get(&busy.agent).map_or("?", |agent| agent.name.as_str());
            let text = format!("an attempt of the project may be on agent \"{on}\"; cancel the run or wait");
            return refused("ATTEMPT_RUNNING", text);
        }
        let obstacle = self.promotion_obstacle(project, placement).filter(|_| !force);
        if let Some((reason, why)) = obstacle {
            return refused(reason, format!("{why}; --force does it all the same"));
        }
        let Some(spec) = promoted(&project.record.spec, placement) else {
            return refused("TOO_MANY_ORIGINS", format!("a project has at most {ORIGINS_MAX} origins"));
        };
        let record = ProjectRecord {
            spec,
            revision: project.record.revision + 1,
            update_time: now.wall,
            ..(*project.record).clone()
        };
        self.move_placements(project, &record, &mut effects)?;
        effects.put(Record::Project(Arc::new(record)));
        Ok(effects.decision())
    }

    /// What speaks against making it the origin now, which a person may know better.
    fn promotion_obstacle(
        &self,
        project: &Project,
        placement: &PlacementRecord,
    ) -> Option<(&'static str, String)> {
        let root = placement.destination.root();
        let Some(session) = self.sessions.get(&placement.agent) else {
            return Some(("AGENT_AWAY", "it has no session; start its agent".to_owned()));
        };
        if !session.facts.roots.iter().any(|known| known.name == root) {
            return Some(("NO_SUCH_ROOT", format!("it has no root \"{root}\"; see its own file")));
        }
        if placement.half_changed {
            let text =
                "its last pull ended in the middle, so it has no whole tree; wait until it has caught up";
            return Some(("HALF_CHANGED", text.to_owned()));
        }
        let behind = project.state.tree.is_some() && placement.have_tree != project.state.tree;
        behind.then(|| {
            let text = "it lacks the tree that is served now; wait until it has caught up";
            ("BEHIND", text.to_owned())
        })
    }
}

/// The declaration with this placement's agent as the first origin. `None`: there are too many.
fn promoted(spec: &ProjectSpec, placement: &PlacementRecord) -> Option<ProjectSpec> {
    let mut spec = spec.clone();
    let agent = placement.agent;
    let own = (placement.destination != spec.destination).then(|| placement.destination.clone());
    spec.placement.origins.retain(|target| target.agent != agent);
    spec.placement.origins.insert(0, Target { agent, destination: own });
    spec.placement.replicas.retain(|replicas| replicas.pick != Pick::Agent(agent));
    (spec.placement.origins.len() <= ORIGINS_MAX).then_some(spec)
}
