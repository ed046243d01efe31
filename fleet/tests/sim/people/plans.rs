//! Plans over several projects.

use std::collections::BTreeSet;

use fleet::{
    id::ProjectUid,
    input::Ask,
    plan::{Act, Asker, Pausing, PlanRequest},
};

use crate::world::World;

/// Most acts of one plan.
const ACTS_MAX: u64 = 4;

impl World {
    /// Several projects at once; often some that get in each other's way.
    pub(super) fn plan(&mut self) -> Option<Ask> {
        let mut acts = Vec::new();
        let mut touched = BTreeSet::new();
        let mut created = 0;
        for _ in 0..self.rng.between(1, ACTS_MAX) {
            let act = match self.untouched(&touched) {
                Some(project) if self.rng.chance(800) => self.act_on(project),
                _ => self.act_of_creation(created),
            };
            if let Some(act) = act {
                created += u64::from(matches!(act, Act::Create { .. }));
                touched.insert(act.project());
                acts.push(act);
            }
        }
        Some(Ask::Apply(Box::new(PlanRequest { acts, asker: Asker::default(), request: None })))
    }

    fn untouched(&mut self, touched: &BTreeSet<ProjectUid>) -> Option<ProjectUid> {
        let all = self.projects().into_iter().filter(|project| !touched.contains(project));
        let all: Vec<ProjectUid> = all.collect();
        self.rng.pick(&all).copied()
    }

    /// Pauses what is not paused, and lets go on what is; but not always.
    fn act_on(&mut self, project: ProjectUid) -> Option<Act> {
        let record = self.coordinator.store.project(project)?;
        let (revision, paused) = (record.revision, record.paused.is_some());
        let archived = record.archived.is_some();
        Some(match self.rng.below(12) {
            0 => Act::Delete { project, revision },
            10 if !archived && self.rng.chance(300) => {
                Act::Archive { project, revision, reason: "planned".to_owned() }
            }
            10..=11 if archived => Act::Unarchive { project, revision },
            1..=3 if !paused || self.rng.chance(200) => {
                let pausing = Pausing { reason: "planned".to_owned(), until: None };
                Act::Pause { project, revision, pausing }
            }
            4..=5 if !paused => return None,
            1..=5 => Act::Resume { project, revision },
            _ => match self.update(project)? {
                Ask::UpdateProject { project, spec, revision, .. } => Act::Change { project, revision, spec },
                _ => return None,
            },
        })
    }

    fn act_of_creation(&mut self, created: u64) -> Option<Act> {
        let uid = self.coordinator.engine.as_ref()?.uid_after(created);
        let paused = self.rng.chance(100).then(|| Pausing { reason: "imported".to_owned(), until: None });
        let archived = self.rng.chance(30).then(|| "imported".to_owned());
        match self.creation(false) {
            Some(Ask::CreateProject { name, spec, .. }) => {
                Some(Act::Create { uid, name, spec, paused, archived })
            }
            _ => None,
        }
    }
}
