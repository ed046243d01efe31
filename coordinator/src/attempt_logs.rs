//! The last lines of each attempt's log, one file per attempt: `logs/<project uid>/<run>/<n>.log` below the data
//! directory. Every part of such a path is a number of ours, so no agent can name a file. The bytes are kept as
//! the agent sent them: how they are shown is the reader's matter. Does not know which runs still matter.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use fleet::id::{AttemptId, ProjectUid, RunId};

use crate::watch::LiveLogs;

/// Bytes kept of each attempt's log: its last ones.
pub const LOG_TAIL_BYTES_MAX: usize = 64 * 1024;
/// Run directories removed by one call of [`AttemptLogs::prune`].
pub const PRUNE_RUNS_MAX: usize = 10_000;

/// A log file could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", path.display())]
pub struct LogError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The stored tails, and the live lines of the logs that somebody follows.
#[derive(Debug)]
pub struct AttemptLogs {
    root: PathBuf,
    live: LiveLogs,
}

impl AttemptLogs {
    /// The logs below `data_dir`; makes the directory where it is missing.
    ///
    /// # Errors
    /// [`LogError`] when the directory cannot be made.
    pub fn open(data_dir: &Path) -> Result<Self, LogError> {
        let root = data_dir.join("logs");
        fs::create_dir_all(&root).map_err(at("making the directory", &root))?;
        Ok(Self { root, live: LiveLogs::default() })
    }

    /// The lines that arrive while somebody follows.
    #[must_use]
    pub fn live(&self) -> &LiveLogs {
        &self.live
    }

    /// Keeps the last [`LOG_TAIL_BYTES_MAX`] bytes of `tail` as the attempt's log, whole or not at all. Blocks
    /// on the disk.
    ///
    /// # Errors
    /// [`LogError`] when the disk does not take it; what was stored before is still there.
    pub fn save(&self, project: ProjectUid, attempt: AttemptId, tail: &[u8]) -> Result<(), LogError> {
        let directory = self.run_dir(project, attempt.run);
        fs::create_dir_all(&directory).map_err(at("making the directory", &directory))?;
        let path = self.path(project, attempt);
        let fresh = path.with_extension("new");
        let kept = &tail[tail.len().saturating_sub(LOG_TAIL_BYTES_MAX)..];
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(kept)?;
            file.sync_data()?;
            fs::rename(&fresh, &path)
        };
        write().map_err(at("writing the log", &path))
    }

    /// The stored tail; `None`: there is none. Blocks on the disk.
    ///
    /// # Errors
    /// [`LogError`] when there is one and it cannot be read.
    pub fn read(&self, project: ProjectUid, attempt: AttemptId) -> Result<Option<Vec<u8>>, LogError> {
        let path = self.path(project, attempt);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at("opening the log", &path)(error)),
        };
        let mut tail = Vec::new();
        let limit = u64::try_from(LOG_TAIL_BYTES_MAX).unwrap_or(u64::MAX);
        file.take(limit).read_to_end(&mut tail).map_err(at("reading the log", &path))?;
        Ok(Some(tail))
    }

    /// Removes the logs of runs that `keep` does not name, at most [`PRUNE_RUNS_MAX`] of them, and says how
    /// many. What is not named like one of ours is left alone. Blocks on the disk.
    ///
    /// # Errors
    /// [`LogError`] at the first directory that cannot be listed or removed.
    pub fn prune(&self, keep: impl Fn(ProjectUid, RunId) -> bool) -> Result<usize, LogError> {
        let mut removed = 0;
        for (project, project_dir) in named::<u64>(&self.root)? {
            let mut kept = 0;
            for (run, run_dir) in named::<RunId>(&project_dir)? {
                if keep(ProjectUid(project), run) || removed == PRUNE_RUNS_MAX {
                    kept += 1;
                    continue;
                }
                fs::remove_dir_all(&run_dir).map_err(at("removing the logs", &run_dir))?;
                removed += 1;
            }
            if kept == 0 {
                // Fails when something came in meanwhile, as it should.
                drop(fs::remove_dir(&project_dir));
            }
        }
        Ok(removed)
    }

    fn run_dir(&self, project: ProjectUid, run: RunId) -> PathBuf {
        self.root.join(project.0.to_string()).join(run.to_string())
    }

    fn path(&self, project: ProjectUid, attempt: AttemptId) -> PathBuf {
        self.run_dir(project, attempt.run).join(format!("{}.log", attempt.number))
    }
}

fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError { doing, path, source }
}

/// The directories in `parent` whose names are a `T`.
fn named<T: std::str::FromStr>(parent: &Path) -> Result<Vec<(T, PathBuf)>, LogError> {
    let listing = fs::read_dir(parent).map_err(at("listing", parent))?;
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.map_err(at("listing", parent))?;
        if let Some(name) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECT: ProjectUid = ProjectUid(7);

    fn attempt(run_ms: i64, number: u32) -> AttemptId {
        AttemptId { run: RunId::mint(run_ms, 1, RunId::NIL), number }
    }

    #[test]
    fn a_tail_is_kept_whole_and_only_its_last_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let logs = AttemptLogs::open(dir.path()).unwrap();
        let first = attempt(1_000, 1);
        assert!(logs.read(PROJECT, first).unwrap().is_none());
        let mut long = vec![b'a'; LOG_TAIL_BYTES_MAX];
        long.extend_from_slice(b"\x1b[31mend\xff\n");
        logs.save(PROJECT, first, &long).unwrap();
        let read = logs.read(PROJECT, first).unwrap().unwrap();
        assert_eq!(read.len(), LOG_TAIL_BYTES_MAX);
        assert!(read.ends_with(b"\x1b[31mend\xff\n"));
        logs.save(PROJECT, first, b"short\n").unwrap();
        assert_eq!(logs.read(PROJECT, first).unwrap().unwrap(), b"short\n");
        let files: Vec<_> = fs::read_dir(logs.run_dir(PROJECT, first.run)).unwrap().collect();
        assert_eq!(files.len(), 1, "no half-written file stays: {files:?}");
    }

    #[test]
    fn pruning_keeps_what_is_named_and_what_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let logs = AttemptLogs::open(dir.path()).unwrap();
        let (old, new, other) = (attempt(1_000, 1), attempt(2_000, 1), attempt(3_000, 2));
        logs.save(PROJECT, old, b"old").unwrap();
        logs.save(PROJECT, new, b"new").unwrap();
        logs.save(ProjectUid(8), other, b"other").unwrap();
        fs::create_dir(dir.path().join("logs/lost+found")).unwrap();
        let removed = logs.prune(|project, run| project == PROJECT && run == new.run).unwrap();
        assert_eq!(removed, 2);
        assert!(logs.read(PROJECT, old).unwrap().is_none());
        assert!(logs.read(PROJECT, new).unwrap().is_some());
        assert!(logs.read(ProjectUid(8), other).unwrap().is_none());
        assert!(dir.path().join("logs/lost+found").exists());
        assert!(!dir.path().join("logs/8").exists());
    }
}
