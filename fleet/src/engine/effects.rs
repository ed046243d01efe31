//! Collects what a decision changes and says. A record that is put twice in one decision is kept once, in its
//! newest form, so that steps of a decision may build on each other.

use super::state::Engine;
use crate::{
    attempt::AttemptRecord,
    id::{AgentUid, AttemptId, ProjectUid, RunId},
    input::{Decision, Reply, Send},
    placement::PlacementRecord,
    project::ProjectState,
    record::{Change, Key, Record},
    run::RunRecord,
};

/// A decision in the making.
#[derive(Debug)]
pub(super) struct Effects<'a> {
    engine: &'a Engine,
    changes: Vec<Change>,
    sends: Vec<Send>,
    reply: Reply,
    retries: bool,
}

impl<'a> Effects<'a> {
    pub(super) fn of(engine: &'a Engine) -> Self {
        Self { engine, changes: Vec::new(), sends: Vec::new(), reply: Reply::Done, retries: true }
    }

    /// What fails in this decision is not tried again: its agent will not come back.
    pub(super) fn without_retries(self) -> Self {
        Self { retries: false, ..self }
    }

    pub(super) fn retries(&self) -> bool {
        self.retries
    }

    pub(super) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub(super) fn put(&mut self, record: Record) {
        let key = record.key();
        let same = |change: &&mut Change| matches!(change, Change::Put(old) if old.key() == key);
        match self.changes.iter_mut().find(same) {
            Some(change) => *change = Change::Put(record),
            None => self.changes.push(Change::Put(record)),
        }
    }

    pub(super) fn delete(&mut self, key: Key) {
        self.changes.push(Change::Delete(key));
    }

    pub(super) fn send(&mut self, send: Send) {
        self.sends.push(send);
    }

    pub(super) fn reply(&mut self, reply: Reply) {
        self.reply = reply;
    }

    pub(super) fn decision(self) -> Decision {
        Decision { changes: self.changes, sends: self.sends, reply: self.reply }
    }

    fn pending_put(&self, key: &Key) -> Option<&Record> {
        self.changes.iter().find_map(|change| match change {
            Change::Put(record) if record.key() == *key => Some(record),
            Change::Put(_) | Change::Delete(_) | Change::Volatile(_) => None,
        })
    }

    fn deletes(&self, key: &Key) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::Delete(gone) if gone == key))
    }

    /// The run as this decision leaves it so far.
    pub(super) fn run(&self, project: ProjectUid, id: RunId) -> Option<RunRecord> {
        match self.pending_put(&Key::Run(project, id)) {
            Some(Record::Run(run)) => Some(run.clone()),
            _ => self.engine.runs.get(&id).cloned(),
        }
    }

    /// The attempt as this decision leaves it so far.
    pub(super) fn attempt(&self, project: ProjectUid, id: AttemptId) -> Option<AttemptRecord> {
        let key = Key::Attempt(project, id);
        if self.deletes(&key) {
            return None;
        }
        match self.pending_put(&key) {
            Some(Record::Attempt(attempt)) => Some(attempt.clone()),
            _ => self.engine.attempts.get(&id).cloned(),
        }
    }

    /// The newest run that there is, those of this decision included: a new one comes after it.
    pub(super) fn newest_run(&self) -> RunId {
        let put = self.changes.iter().filter_map(|change| match change {
            Change::Put(Record::Run(run)) => Some(run.id),
            Change::Put(_) | Change::Delete(_) | Change::Volatile(_) => None,
        });
        put.chain(self.engine.last_run).max().unwrap_or(RunId::NIL)
    }

    /// Whether this decision has put a run of the project that is open.
    pub(super) fn opens_run(&self, project: ProjectUid) -> bool {
        self.changes.iter().any(|change| match change {
            Change::Put(Record::Run(run)) => run.project == project && !run.state.is_closed(),
            Change::Put(_) | Change::Delete(_) | Change::Volatile(_) => false,
        })
    }

    /// The placement as this decision leaves it so far.
    pub(super) fn placement(&self, project: ProjectUid, agent: AgentUid) -> Option<PlacementRecord> {
        let key = Key::Placement(project, agent);
        if self.deletes(&key) {
            return None;
        }
        match self.pending_put(&key) {
            Some(Record::Placement(placement)) => Some(placement.clone()),
            _ => self.engine.projects.get(&project)?.placements.get(&agent).cloned(),
        }
    }

    /// The project's state as this decision leaves it so far.
    pub(super) fn project_state(&self, project: ProjectUid) -> Option<ProjectState> {
        match self.pending_put(&Key::ProjectState(project)) {
            Some(Record::ProjectState(state)) => Some(state.clone()),
            _ => self.engine.projects.get(&project).map(|project| project.state.clone()),
        }
    }
}
