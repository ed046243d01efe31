//! Pages of what is no longer live, its pruning, and its slow check. Every value read is checked. Knows no
//! policy: how much is kept is the caller's matter.

use fleet::{
    attempt::AttemptRecord,
    id::{AttemptId, ProjectUid, RunId},
    record::Record,
    run::RunRecord,
    time::Wall,
};

use super::{
    Store, codec,
    engine::Pair,
    error::StoreError,
    key::{self, Age},
    unit::Unit,
};

/// Most records that one page holds.
pub const PAGE_MAX: usize = 1_000;
/// Most records that one call of [`Store::prune`] removes.
pub const PRUNE_DELETES_MAX: usize = 1_000;

/// What one call of [`Store::prune`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Runs removed.
    pub runs: usize,
    /// Attempts removed.
    pub attempts: usize,
    /// The bound was reached: call again.
    pub more: bool,
}

/// What one call of [`Store::scrub`] looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrubbed {
    /// Records looked at.
    pub checked: usize,
    /// What is wrong, a line for each damaged record.
    pub faults: Vec<String>,
    /// Where to go on; `None`: the end was reached.
    pub next: Option<Vec<u8>>,
}

impl Store {
    /// A run, live or past.
    ///
    /// # Errors
    /// When the store cannot be read, or the record is damaged.
    pub fn run(&self, project: ProjectUid, run: RunId) -> Result<Option<RunRecord>, StoreError> {
        self.either(|age| key::of_run(project, run, age))?
            .map(|(key, value)| decode_run(&key, &value))
            .transpose()
    }

    /// An attempt, live or past.
    ///
    /// # Errors
    /// When the store cannot be read, or the record is damaged.
    pub fn attempt(
        &self,
        project: ProjectUid,
        attempt: AttemptId,
    ) -> Result<Option<AttemptRecord>, StoreError> {
        let found = self.either(|age| key::of_attempt(project, attempt, age))?;
        found.map(|(key, value)| decode_attempt(&key, &value)).transpose()
    }

    /// Past runs of a project, newest first: those older than `before`, at most `limit` and at most
    /// [`PAGE_MAX`].
    ///
    /// # Errors
    /// When the store cannot be read, or a record is damaged.
    pub fn runs(
        &self,
        project: ProjectUid,
        before: Option<RunId>,
        limit: usize,
    ) -> Result<Vec<RunRecord>, StoreError> {
        let prefix = key::runs_of(project, Age::Past);
        let from = before.map(|run| key::after(&key::of_run(project, run, Age::Past)));
        let end = key::end_of(&prefix);
        let page = self.page(&from.unwrap_or(prefix), &end, limit.min(PAGE_MAX))?;
        page.iter().map(|(key, value)| decode_run(key, value)).collect()
    }

    /// All attempts of a run, live and past, in order.
    ///
    /// # Errors
    /// When the store cannot be read, or a record is damaged.
    pub fn attempts(&self, project: ProjectUid, run: RunId) -> Result<Vec<AttemptRecord>, StoreError> {
        let mut attempts = Vec::new();
        // Live ones first: one that moves meanwhile is then seen in the history, never in neither.
        for age in [Age::Live, Age::Past] {
            let prefix = key::attempts_of(project, run, age);
            self.each(&prefix, |key, value| {
                attempts.push(decode_attempt(key, value)?);
                Ok(())
            })?;
        }
        // Stable: of one that was seen in both, the past one is the newer and the last.
        attempts.sort_by_key(|attempt| attempt.id);
        attempts.reverse();
        attempts.dedup_by_key(|attempt| attempt.id);
        attempts.reverse();
        Ok(attempts)
    }

    /// The first project above `after` (`None`: of all) that has past runs: projects that are gone, too.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn next_with_history(&self, after: Option<ProjectUid>) -> Result<Option<ProjectUid>, StoreError> {
        let first = key::runs_of(ProjectUid(0), Age::Past);
        let from = after.map_or(first, |uid| key::end_of(&key::runs_of(uid, Age::Past)));
        let last = key::end_of(&key::runs_of(ProjectUid(u64::MAX), Age::Past));
        let page = self.page(&from, &last, 1)?;
        Ok(page.first().and_then(|(key, _)| key::project_of_run(key)))
    }

    /// Removes past runs of a project, with their attempts, that are not among the `keep_runs` newest ones and
    /// ended before `before`; at most [`PRUNE_DELETES_MAX`] records in one commit. For a project that is gone:
    /// `prune(project, 0, Wall(i64::MAX))`.
    ///
    /// # Errors
    /// When the store cannot be read or written, or a record is damaged.
    pub fn prune(&self, project: ProjectUid, keep_runs: usize, before: Wall) -> Result<Pruned, StoreError> {
        let mut pruned = Pruned::default();
        let mut doomed: Vec<Vec<u8>> = Vec::new();
        let end = key::end_of(&key::runs_of(project, Age::Past));
        let mut from = self.past_the_kept(project, keep_runs, before)?;
        'pages: loop {
            let page = self.page(&from, &end, PAGE_MAX)?;
            for (key, value) in &page {
                let run = decode_run(key, value)?;
                if run.end_time.is_some_and(|ended| ended >= before) || self.has_live_attempt(&run)? {
                    continue;
                }
                let attempts = key::attempts_of(project, run.id, Age::Past);
                // The run goes last, so that a run with very many attempts is found again by the next call.
                let room = PRUNE_DELETES_MAX - doomed.len();
                let found = self.page(&attempts, &key::end_of(&attempts), room)?;
                pruned.attempts += found.len();
                doomed.extend(found.into_iter().map(|(key, _)| key));
                if doomed.len() == PRUNE_DELETES_MAX {
                    pruned.more = true;
                    break 'pages;
                }
                pruned.runs += 1;
                doomed.push(key.clone());
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE_MAX => from = key::after(last),
                _ => break,
            }
        }
        self.commit(&[Unit::removing(doomed)])?;
        Ok(pruned)
    }

    /// Checks at most `limit` (and at most [`PAGE_MAX`]) past records, from `from` on (`None`: the first). For
    /// a slow walk over the history in the background; live records are checked at each start.
    ///
    /// # Errors
    /// When the store cannot be read at all.
    pub fn scrub(&self, from: Option<&[u8]>, limit: usize) -> Result<Scrubbed, StoreError> {
        let [runs, attempts] = key::HISTORY_TABLES;
        let (low, high) = (runs.min(attempts), runs.max(attempts));
        let limit = limit.min(PAGE_MAX);
        // No other table's letter lies between these two.
        let page = self.page(from.unwrap_or(&[low]), &key::end_of(&[high]), limit)?;
        let decoded = page.iter().map(|(key, value)| codec::decode(key, value));
        let faults = decoded.filter_map(Result::err).map(|error| error.to_string()).collect();
        let next = page.last().filter(|_| page.len() == limit).map(|(last, _)| key::after(last));
        Ok(Scrubbed { checked: page.len(), faults, next })
    }

    /// Where the runs begin that may be pruned, as far as the keys tell: after the kept ones, and not before
    /// the ids of that time (a run ends after it was made, and its id is the time it was made at).
    fn past_the_kept(
        &self,
        project: ProjectUid,
        keep_runs: usize,
        before: Wall,
    ) -> Result<Vec<u8>, StoreError> {
        let prefix = key::runs_of(project, Age::Past);
        let end = key::end_of(&prefix);
        let mut from = prefix;
        let mut left = keep_runs;
        while left > 0 {
            let page = self.page(&from, &end, left.min(PAGE_MAX))?;
            let Some((last, _)) = page.last() else { return Ok(end) };
            from = key::after(last);
            left -= page.len();
        }
        let millis = u128::try_from(before.0).unwrap_or(0).min((1 << 48) - 1);
        let newest = RunId(uuid::Uuid::from_u128((millis << 80) | ((1 << 80) - 1)));
        Ok(from.max(key::of_run(project, newest, Age::Past)))
    }

    /// Whether an attempt of it is still out: it would come to the history when the run has left it.
    fn has_live_attempt(&self, run: &RunRecord) -> Result<bool, StoreError> {
        let live = key::attempts_of(run.project, run.id, Age::Live);
        Ok(!self.page(&live, &key::end_of(&live), 1)?.is_empty())
    }

    /// The record under the live key, else under the past one: one that moves meanwhile is found in its new
    /// place.
    fn either(&self, key: impl Fn(Age) -> Vec<u8>) -> Result<Option<Pair>, StoreError> {
        for age in [Age::Live, Age::Past] {
            let key = key(age);
            if let Some(value) = self.get(&key)? {
                return Ok(Some((key, value)));
            }
        }
        Ok(None)
    }

    fn each(
        &self,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let end = key::end_of(prefix);
        let mut from = prefix.to_vec();
        loop {
            let page = self.page(&from, &end, PAGE_MAX)?;
            for (key, value) in &page {
                each(key, value)?;
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE_MAX => from = key::after(last),
                _ => return Ok(()),
            }
        }
    }
}

fn decode_run(key: &[u8], value: &[u8]) -> Result<RunRecord, StoreError> {
    match codec::decode(key, value)? {
        Record::Run(run) => Ok(run),
        _ => Err(misplaced(key)),
    }
}

fn decode_attempt(key: &[u8], value: &[u8]) -> Result<AttemptRecord, StoreError> {
    match codec::decode(key, value)? {
        Record::Attempt(attempt) => Ok(attempt),
        _ => Err(misplaced(key)),
    }
}

fn misplaced(key: &[u8]) -> StoreError {
    StoreError::Damaged { record: key::describe(key), why: "it holds a record of another kind".to_owned() }
}
