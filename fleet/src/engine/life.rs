//! A project's life apart from its runs: what it is called, and whether anybody works on its tree any more.
//!
//! Every record, lock, journal entry and export names a project by its uid, so a new name is one write, whatever is
//! going on: attempts on agents go on, and their reports are the renamed project's. An archived project is served as it
//! is. It has no fire, so there is nothing to catch up with when its time comes again; a person's run has no retries:
//! with a marker it asks each upstream once, and where a hold's deletes are within the limit again it goes on to do them.

use std::sync::Arc;

use super::{
    due::first_fire,
    effects::Effects,
    people::{Outcome, check_revision, reason_fault},
    state::{Engine, Project},
};
use crate::{
    attempt::{AttemptEvent, Role},
    id::{Name, ProjectUid},
    input::Reply,
    project::{Archive, ProjectRecord},
    record::Record,
    refusal::{Refusal, RefusalCode},
    run::TriggerKind,
    time::Now,
};

impl Engine {
    /// The name must be nobody else's; case does not tell names apart.
    pub(super) fn check_free(&self, name: &Name, own: Option<ProjectUid>) -> Result<(), Refusal> {
        let taken = self.project_names.get(name).filter(|uid| Some(**uid) != own);
        match taken.and_then(|uid| self.projects.get(uid)) {
            None => Ok(()),
            Some(taken) => Err(Refusal::new(
                RefusalCode::AlreadyExists,
                "PROJECT_EXISTS",
                format!("a project \"{}\" exists; names are unique ignoring case", taken.record.name),
            )),
        }
    }

    /// Gives a project another name. All that it has and all that is going on stays with it.
    pub(super) fn rename_project(
        &self,
        now: Now,
        uid: ProjectUid,
        name: Name,
        revision: Option<u64>,
    ) -> Outcome {
        let project = self.find_project(uid)?;
        check_revision(project, revision)?;
        self.check_free(&name, Some(uid))?;
        let mut effects = Effects::of(self);
        // Names are equal ignoring case, and a change of case is a change.
        if !project.record.name.is_spelt_as(&name) {
            effects.put(Record::Project(Arc::new(ProjectRecord { name, ..changed(project, now) })));
        }
        effects.reply(Reply::Project(uid));
        Ok(effects.decision())
    }

    /// Ends all work on a tree that is still served. What is on an agent goes on to its end; what waits is cancelled.
    pub(super) fn archive(
        &self,
        now: Now,
        by: String,
        uid: ProjectUid,
        reason: String,
        revision: Option<u64>,
    ) -> Outcome {
        let project = self.find_project(uid)?;
        check_revision(project, revision)?;
        if let Some(fault) = reason_fault(&reason) {
            return Err(Refusal::invalid("project not archived", vec![fault]));
        }
        let mut effects = Effects::of(self);
        effects.reply(Reply::Project(uid));
        if project.record.archived.is_some() {
            return Ok(effects.decision());
        }
        let waits = self.attempts_of_project(uid).filter(|one| one.state.is_pending());
        for attempt in waits.filter(|one| one.role == Role::Origin && !self.is_aside(one)) {
            self.move_attempt(now, attempt, AttemptEvent::Cancel, &mut effects);
        }
        let archived = Some(Archive { by, time: now.wall, reason });
        effects.put(Record::Project(Arc::new(ProjectRecord { archived, ..changed(project, now) })));
        if let Some(state) = effects.project_state(uid) {
            effects.put(Record::ProjectState(state.with_fire(None)));
        }
        Ok(effects.decision())
    }

    /// Work on the tree goes on; the schedule begins as if it were new.
    pub(super) fn unarchive(&self, now: Now, uid: ProjectUid, revision: Option<u64>) -> Outcome {
        let project = self.find_project(uid)?;
        check_revision(project, revision)?;
        let mut effects = Effects::of(self);
        effects.reply(Reply::Project(uid));
        if project.record.archived.is_none() {
            return Ok(effects.decision());
        }
        let record = ProjectRecord { archived: None, ..changed(project, now) };
        let state = project.state.clone().with_fire(first_fire(&record, now));
        effects.put(Record::Project(Arc::new(record)));
        effects.put(Record::ProjectState(state));
        Ok(effects.decision())
    }
}

fn changed(project: &Project, now: Now) -> ProjectRecord {
    let revision = project.record.revision + 1;
    ProjectRecord { revision, update_time: now.wall, ..(*project.record).clone() }
}

/// Why what is not a person starts no run of the project: it is archived.
pub(super) fn archived_refusal(project: &Project, kind: TriggerKind) -> Option<Refusal> {
    if kind == TriggerKind::User || project.record.archived.is_none() {
        return None;
    }
    let text = format!(
        "project \"{0}\" is archived: only people start its runs; mirrorctl project unarchive {0}",
        project.record.name
    );
    Some(Refusal::precondition("PROJECT_ARCHIVED", text))
}
