//! Recorded plans: what a person wants of many projects at once, stored whole before any of it is done. Each step is
//! done in a commit of its own that also removes it, so a plan that was begun is ended by whoever comes next, and no step
//! is done twice.

use std::collections::BTreeSet;

use crate::{
    id::{Name, ProjectUid},
    input::RequestKey,
    project::ProjectSpec,
    time::Wall,
};

/// Most steps of one plan. A project has at most three, and seldom more than one.
pub const PLAN_STEPS_MAX: usize = 10_000;

/// Most characters of the reason why a step was left out; what is more is cut.
pub const WHY_CHARS_MAX: usize = 1_000;

/// Who asked for a plan, as the audit log has it; opaque here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asker {
    /// The caller: `users/maria`.
    pub who: String,
    /// The address.
    pub from: String,
    /// The id of the request.
    pub request_id: String,
}

/// How a schedule is to be stopped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pausing {
    /// Why; may be empty.
    pub reason: String,
    /// When it ends by itself.
    pub until: Option<Wall>,
}

/// What is to be done to one project.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Declare it.
    Create {
        /// It is kept for it from the plan's recording on.
        uid: ProjectUid,
        /// Its name.
        name: Name,
        /// All of it.
        spec: Box<ProjectSpec>,
        /// It begins paused.
        paused: Option<Pausing>,
        /// It begins archived, for this reason: nothing of it is ever begun.
        archived: Option<String>,
    },
    /// Replace what was declared.
    Change {
        /// Which.
        project: ProjectUid,
        /// Made from this revision; another one is not touched.
        revision: u64,
        /// The whole.
        spec: Box<ProjectSpec>,
    },
    /// Stop its schedule.
    Pause {
        /// Which.
        project: ProjectUid,
        /// Made from this revision.
        revision: u64,
        /// How.
        pausing: Pausing,
    },
    /// Let its schedule go on.
    Resume {
        /// Which.
        project: ProjectUid,
        /// Made from this revision.
        revision: u64,
    },
    /// End all work on its tree, which goes on being served.
    Archive {
        /// Which.
        project: ProjectUid,
        /// Made from this revision.
        revision: u64,
        /// Why; may be empty.
        reason: String,
    },
    /// Work on its tree again.
    Unarchive {
        /// Which.
        project: ProjectUid,
        /// Made from this revision.
        revision: u64,
    },
    /// Remove its record; its trees stay.
    Delete {
        /// Which.
        project: ProjectUid,
        /// Made from this revision.
        revision: u64,
    },
}

/// One step of a plan that is being carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanStep {
    /// The plan.
    pub plan: u64,
    /// Its place: steps are done in this order.
    pub number: u32,
    /// The user.
    pub by: String,
    /// For the audit log.
    pub asker: Asker,
    /// What is to be done.
    pub act: Act,
}

/// A plan that a person asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanRequest {
    /// In the order in which it is to be done. Creations carry the uids that [`Engine::uid_after`](crate::Engine::uid_after)
    /// gives them.
    pub acts: Vec<Act>,
    /// For the audit log.
    pub asker: Asker,
    /// For the same answer twice.
    pub request: Option<RequestKey>,
}

/// How many projects a plan is about, by what is done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanCounts {
    /// Declared.
    pub created: u32,
    /// Changed, paused, resumed, archived or brought back.
    pub changed: u32,
    /// Removed.
    pub deleted: u32,
}

/// What a step does to its project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// Declares it.
    Create,
    /// Changes, pauses or resumes it.
    Change,
    /// Removes it.
    Delete,
}

/// A step that was not done: what it needs had been changed. It is stored in the place of the step, until the next plan is
/// recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The plan.
    pub plan: u64,
    /// The step's place.
    pub number: u32,
    /// What it was to do.
    pub deed: Deed,
    /// To which project.
    pub project: ProjectUid,
    /// The project's name; empty: it was gone.
    pub name: String,
    /// Why not; at most [`WHY_CHARS_MAX`] characters.
    pub why: String,
}

/// How far a plan has got.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress<'a> {
    /// Steps are left.
    Open {
        /// How many.
        left: usize,
        /// They wait for the thaw.
        frozen: bool,
    },
    /// All steps are done but these.
    Ended(Vec<&'a LeftOut>),
    /// It has ended, and what was left out of it or of one after it is no longer kept.
    Forgotten,
}

impl PlanCounts {
    /// How many projects there are of each deed: each project is counted once.
    pub(crate) fn of(deeds: impl IntoIterator<Item = (ProjectUid, Deed)>) -> Self {
        let mut counts = Self::default();
        let mut seen = BTreeSet::new();
        for (_, deed) in deeds.into_iter().filter(|(project, _)| seen.insert(*project)) {
            *match deed {
                Deed::Create => &mut counts.created,
                Deed::Change => &mut counts.changed,
                Deed::Delete => &mut counts.deleted,
            } += 1;
        }
        counts
    }

    /// Without the projects of which something was left out.
    #[must_use]
    pub fn without(self, left_out: &[&LeftOut]) -> Self {
        let not_done = Self::of(left_out.iter().map(|one| (one.project, one.deed)));
        Self {
            created: self.created.saturating_sub(not_done.created),
            changed: self.changed.saturating_sub(not_done.changed),
            deleted: self.deleted.saturating_sub(not_done.deleted),
        }
    }
}

impl Act {
    /// The project that it is about.
    #[must_use]
    pub fn project(&self) -> ProjectUid {
        match self {
            Self::Create { uid, .. } => *uid,
            Self::Change { project, .. }
            | Self::Pause { project, .. }
            | Self::Resume { project, .. }
            | Self::Archive { project, .. }
            | Self::Unarchive { project, .. }
            | Self::Delete { project, .. } => *project,
        }
    }

    /// What it does to it.
    #[must_use]
    pub fn deed(&self) -> Deed {
        match self {
            Self::Create { .. } => Deed::Create,
            Self::Change { .. }
            | Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Archive { .. }
            | Self::Unarchive { .. } => Deed::Change,
            Self::Delete { .. } => Deed::Delete,
        }
    }
}
