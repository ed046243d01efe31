//! What is served never gets an older marker by itself: told by what was really pulled, not by what agents said of it.

use fleet::outcome::GuardKind;

use super::{Checks, units::is_local};
use crate::store::{Store, Unit};

impl Checks {
    pub(super) fn check_markers(&mut self, store: &Store, unit: &Unit) -> Result<(), String> {
        for state in unit.states() {
            let old = store.state(state.uid).and_then(|old| old.tree);
            let Some(tree) = state.tree.filter(|tree| Some(*tree) != old) else { continue };
            // What people put there themselves has whatever marker they gave it.
            let marked = store.project(state.uid).is_some_and(|project| project.spec.marker.is_some());
            let marked = marked && !is_local(store, state.uid);
            let Some(now) = self.markers.get(&tree).copied().flatten().filter(|_| marked) else { continue };
            let run = unit.runs().find(|run| run.id == tree).or_else(|| store.run(state.uid, tree));
            let waived = run.is_some_and(|run| run.wish.waived.contains(&GuardKind::UpstreamBehind));
            let before = self.served.insert(state.uid, now);
            if let Some(before) = before.filter(|before| *before > now && !waived && !self.restored) {
                return Err(format!(
                    "project {} served {before}, and now {tree}, which is of {now}: {state:?}",
                    state.uid.0
                ));
            }
        }
        Ok(())
    }
}
