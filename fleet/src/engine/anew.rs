//! A replica for which all tries failed is tried again when its agent comes back: whoever mended its host has started
//! it again, or it was away. Knows no attempts, only what placements remember.

use super::{effects::Effects, state::Engine};
use crate::{
    agent::AgentRecord, attempt::Role, defaults, id::AgentUid, placement::PlacementRecord, record::Record,
    time::Now,
};

/// Most placements that begin anew with one hello, for the sake of the commit unit; the others wait for their next tree.
pub const ANEW_AT_ONCE: usize = 32;

impl Engine {
    /// Forgets that this agent's replicas gave up. An agent that only lost its connection changes nothing, or a bad
    /// link would be a loop of tries.
    pub(super) fn begin_anew(
        &self,
        now: Now,
        record: &AgentRecord,
        instance_id: &str,
        effects: &mut Effects<'_>,
    ) {
        let known = self.instances.get(&record.uid);
        let restarted = known.is_some_and(|known| known != instance_id);
        let was_long_away = !self.sessions.contains_key(&record.uid)
            && record.last_seen.is_some_and(|seen| now.wall.since(seen) >= defaults::RETRY_CAP);
        if restarted || was_long_away {
            for placement in self.gave_up(record.uid).take(ANEW_AT_ONCE) {
                let anew = PlacementRecord { gave_up_on: None, ..placement.clone() };
                effects.put(Record::Placement(anew));
            }
        }
    }

    /// The agent's replicas that gave up on the tree that is served now. Not those that a guard holds: what becomes of
    /// them a person says, or the next tree.
    fn gave_up(&self, agent: AgentUid) -> impl Iterator<Item = &PlacementRecord> {
        self.placements_on(agent).filter_map(move |uid| {
            let project = self.projects.get(&uid)?;
            let placement = project.placements.get(&agent)?;
            let gave_up = placement.gave_up_on.is_some() && placement.gave_up_on == project.state.tree;
            (gave_up && placement.role == Role::Replica && placement.hold.is_none()).then_some(placement)
        })
    }
}
