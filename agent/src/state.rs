//! What the agent must never forget between two starts: which state directory this is, and the highest term of
//! a coordinator that it obeyed. Both are on disk before anything follows from them. Knows no link.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Most bytes of the state file that are read.
const STATE_BYTES_MAX: u64 = 4 << 10;

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A second agent would run the same attempts.
    #[error("another agent runs on the data directory {0}; end it, or give this one a directory of its own")]
    Locked(PathBuf),
    /// The file cannot be read as what it should be.
    #[error(
        "the state file {0} is damaged; put it back from a backup, or remove it: then the coordinator is asked to settle \
         what this agent ran"
    )]
    Damaged(PathBuf),
    /// The term is lower than one that was seen.
    #[error("the coordinator has term {offered}, this agent has seen {highest}")]
    StaleTerm {
        /// The coordinator's.
        offered: u64,
        /// The highest seen.
        highest: u64,
    },
    /// The file system.
    #[error("cannot read or write {path}; fault: this host's disk, or the directory's permissions")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    state_id: Uuid,
    highest_term: u64,
}

/// The state, and with it the right to be the one agent of the data directory.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    stored: Stored,
    _lock: File,
}

impl State {
    /// Reads the state of a data directory, or makes a new one. Only one process may have it.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open(data_dir: &Path) -> Result<Self, StateError> {
        let lock_path = data_dir.join("agent.lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io_error(&lock_path))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StateError::Locked(data_dir.to_owned()))?;
        let path = data_dir.join("state.json");
        let state = match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > STATE_BYTES_MAX => return Err(StateError::Damaged(path)),
            Ok(_) => {
                let text = fs::read(&path).map_err(io_error(&path))?;
                let stored = serde_json::from_slice(&text).map_err(|_| StateError::Damaged(path.clone()))?;
                return Ok(Self { path, stored, _lock: lock });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let stored = Stored { state_id: Uuid::new_v4(), highest_term: 0 };
                Self { path, stored, _lock: lock }
            }
            Err(error) => return Err(io_error(&path)(error)),
        };
        state.write(&state.stored)?;
        Ok(state)
    }

    /// Which state directory this is: the same id means the same journal.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.stored.state_id
    }

    /// The highest term seen.
    #[must_use]
    pub fn highest_term(&self) -> u64 {
        self.stored.highest_term
    }

    /// The journal was lost: from now on this is another state directory, so that the coordinator does not take
    /// silence about an attempt for its end.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn renew_id(&mut self) -> Result<(), StateError> {
        self.replace(Stored { state_id: Uuid::new_v4(), ..self.stored.clone() })
    }

    /// Notes a coordinator's term; on disk when this returns.
    ///
    /// # Errors
    /// [`StateError::StaleTerm`]: it must not be obeyed. [`StateError::Io`]: neither, as it could not be noted.
    pub fn observe_term(&mut self, offered: u64) -> Result<(), StateError> {
        let highest = self.stored.highest_term;
        match offered.cmp(&highest) {
            std::cmp::Ordering::Less => Err(StateError::StaleTerm { offered, highest }),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => {
                self.replace(Stored { highest_term: offered, ..self.stored.clone() })
            }
        }
    }

    fn replace(&mut self, stored: Stored) -> Result<(), StateError> {
        self.write(&stored)?;
        self.stored = stored;
        Ok(())
    }

    fn write(&self, stored: &Stored) -> Result<(), StateError> {
        let text =
            serde_json::to_vec_pretty(stored).map_err(io::Error::other).map_err(io_error(&self.path))?;
        let temporary = self.path.with_extension("tmp");
        let written = (|| {
            let mut options = File::options();
            let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)?;
            File::open(self.path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
        })();
        written.map_err(io_error(&self.path))
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StateError + use<> {
    let path = path.to_owned();
    |source| StateError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_only_grow_and_survive() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open(dir.path()).unwrap();
        let id = state.id();
        state.observe_term(7).unwrap();
        assert!(matches!(state.observe_term(6), Err(StateError::StaleTerm { offered: 6, highest: 7 })));
        state.observe_term(7).unwrap();
        drop(state);
        let mut again = State::open(dir.path()).unwrap();
        assert_eq!((again.id(), again.highest_term()), (id, 7));
        again.renew_id().unwrap();
        assert_ne!(again.id(), id);
        assert_eq!(again.highest_term(), 7);
    }

    #[test]
    fn one_agent_per_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = State::open(dir.path()).unwrap();
        assert!(matches!(State::open(dir.path()), Err(StateError::Locked(_))));
        drop(first);
        State::open(dir.path()).unwrap();
    }

    #[test]
    fn a_damaged_state_is_never_replaced_silently() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state.json"), "{").unwrap();
        assert!(matches!(State::open(dir.path()), Err(StateError::Damaged(_))));
        assert_eq!(fs::read(dir.path().join("state.json")).unwrap(), b"{");
    }
}
