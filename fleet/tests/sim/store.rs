//! The coordinator's disk: what has been flushed. Nothing else survives a crash.

use std::collections::BTreeMap;

use fleet::{
    Engine,
    attempt::AttemptRecord,
    id::{AgentUid, AttemptId, ProjectUid, RunId},
    placement::PlacementRecord,
    project::{ProjectRecord, ProjectState},
    record::{Change, Key, Record},
    run::{Move, RunRecord},
    time::Now,
};

/// What made a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Tick,
    Sweep,
    Start,
    Person,
    Hello,
    Report,
}

/// What is committed as one.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) now: Now,
    pub(crate) source: Source,
    pub(crate) changes: Vec<Change>,
}

impl Unit {
    pub(crate) fn puts(&self) -> impl Iterator<Item = &Record> {
        self.changes.iter().filter_map(|change| match change {
            Change::Put(record) => Some(record),
            Change::Delete(_) | Change::Volatile(_) => None,
        })
    }

    pub(crate) fn attempts(&self) -> impl Iterator<Item = &AttemptRecord> {
        self.puts().filter_map(|record| if let Record::Attempt(one) = record { Some(one) } else { None })
    }

    pub(crate) fn runs(&self) -> impl Iterator<Item = &RunRecord> {
        self.puts().filter_map(|record| if let Record::Run(one) = record { Some(one) } else { None })
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = &ProjectState> {
        self.puts().filter_map(|record| if let Record::ProjectState(one) = record { Some(one) } else { None })
    }

    pub(crate) fn placements(&self) -> impl Iterator<Item = &PlacementRecord> {
        self.puts().filter_map(|record| if let Record::Placement(one) = record { Some(one) } else { None })
    }
}

/// Records on disk: those the engine needs, and the history apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    pub(crate) live: BTreeMap<Key, Record>,
    pub(crate) history: BTreeMap<Key, Record>,
}

impl Store {
    pub(crate) fn commit(&mut self, unit: &Unit) {
        for change in &unit.changes {
            match change {
                Change::Put(record) => {
                    let key = record.key();
                    if record.is_live() {
                        self.live.insert(key, record.clone());
                    } else {
                        self.live.remove(&key);
                        self.history.insert(key, record.clone());
                    }
                }
                Change::Delete(key) => {
                    self.live.remove(key);
                }
                Change::Volatile(_) => {}
            }
        }
    }

    pub(crate) fn project(&self, uid: ProjectUid) -> Option<&ProjectRecord> {
        match self.live.get(&Key::Project(uid)) {
            Some(Record::Project(project)) => Some(project),
            _ => None,
        }
    }

    pub(crate) fn state(&self, uid: ProjectUid) -> Option<&ProjectState> {
        match self.live.get(&Key::ProjectState(uid)) {
            Some(Record::ProjectState(state)) => Some(state),
            _ => None,
        }
    }

    pub(crate) fn placement(&self, project: ProjectUid, agent: AgentUid) -> Option<&PlacementRecord> {
        match self.live.get(&Key::Placement(project, agent)) {
            Some(Record::Placement(placement)) => Some(placement),
            _ => None,
        }
    }

    /// Live or ended.
    pub(crate) fn run(&self, project: ProjectUid, run: RunId) -> Option<&RunRecord> {
        let key = Key::Run(project, run);
        match self.live.get(&key).or_else(|| self.history.get(&key)) {
            Some(Record::Run(run)) => Some(run),
            _ => None,
        }
    }

    /// Live or ended.
    pub(crate) fn attempt(&self, project: ProjectUid, id: AttemptId) -> Option<&AttemptRecord> {
        let key = Key::Attempt(project, id);
        match self.live.get(&key).or_else(|| self.history.get(&key)) {
            Some(Record::Attempt(attempt)) => Some(attempt),
            _ => None,
        }
    }

    /// Whether the attempt copies a lost tree from another agent.
    pub(crate) fn reseeds(&self, attempt: &AttemptRecord) -> bool {
        self.run(attempt.project, attempt.id.run).is_some_and(|run| run.wish.reseed_from.is_some())
    }

    /// The way on which the attempt takes a tree.
    pub(crate) fn way_of(&self, attempt: &AttemptRecord) -> Option<&Move> {
        self.run(attempt.project, attempt.id.run)?.wish.moves.as_ref()
    }

    /// Whether the attempt copies a lost tree from another agent, or moves one.
    pub(crate) fn is_aside(&self, attempt: &AttemptRecord) -> bool {
        self.reseeds(attempt) || self.way_of(attempt).is_some()
    }

    pub(crate) fn live_attempts(&self, project: ProjectUid) -> impl Iterator<Item = &AttemptRecord> {
        let first = Key::Attempt(project, AttemptId { run: RunId::NIL, number: 0 });
        let last = Key::Attempt(ProjectUid(project.0 + 1), AttemptId { run: RunId::NIL, number: 0 });
        let range = self.live.range(first..last);
        range.filter_map(|(_, record)| if let Record::Attempt(one) = record { Some(one) } else { None })
    }

    pub(crate) fn live_runs(&self, project: ProjectUid) -> impl Iterator<Item = &RunRecord> {
        let range =
            self.live.range(Key::Run(project, RunId::NIL)..Key::Run(ProjectUid(project.0 + 1), RunId::NIL));
        range.filter_map(|(_, record)| if let Record::Run(one) = record { Some(one) } else { None })
    }

    /// How the engine differs from the disk, if it does.
    pub(crate) fn differs_from(&self, engine: &Engine) -> Option<String> {
        let mut count = 0;
        for record in engine.records() {
            count += 1;
            let key = record.key();
            if key == Key::Fleet && !self.live.contains_key(&key) {
                count -= 1;
                continue;
            }
            let stored = self.live.get(&key);
            if stored != Some(&record) {
                return Some(format!("the engine has {record:?}, the disk {stored:?}"));
            }
        }
        (count != self.live.len()).then(|| {
            let known: std::collections::BTreeSet<Key> =
                engine.records().map(|record| record.key()).collect();
            let extra: Vec<&Key> = self.live.keys().filter(|key| !known.contains(*key)).collect();
            format!("the disk has {extra:?}, which the engine lacks")
        })
    }
}
