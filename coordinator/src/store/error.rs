//! What can go wrong with the store, in words for the administrator: what was being done, whose fault it is,
//! and what to do next. Knows nothing of how the callers answer.

use std::{io, path::PathBuf};

/// A read or a write that did not work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused something.
    #[error("{doing} did not work; fault: the coordinator's disk or system; next: see the cause")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// The storage engine refused something.
    #[error(
        "{doing} did not work; fault: the coordinator's disk; next: see the cause, the store is opened again"
    )]
    Engine {
        /// What was being done.
        doing: &'static str,
        /// What the engine said.
        source: sled::Error,
    },
    /// The storage engine panicked, which it does on damaged files.
    #[error(
        "{doing} made the storage engine panic ({message}); fault: most likely a damaged file; next: restart the \
         coordinator, which looks for the damage and repairs or restores"
    )]
    Panicked {
        /// What was being done.
        doing: &'static str,
        /// The panic's message.
        message: String,
    },
    /// A stored value is not what was written.
    #[error(
        "the stored {record} is damaged ({why}); fault: the coordinator's disk or memory; next: restart the \
         coordinator, which restores the newest good backup if a live record is hit"
    )]
    Damaged {
        /// Which record.
        record: String,
        /// What does not fit.
        why: String,
    },
    /// A sound value that this program cannot read.
    #[error("the stored {record} is sound but cannot be read; fault: this program; next: report it as a bug")]
    Unreadable {
        /// Which record.
        record: String,
        /// What the decoder said.
        source: mirror_proto::stored::StoredFault,
    },
    /// A value was written by a newer coordinator.
    #[error(
        "the stored {record} has schema {found}, this program knows schemas up to {known}; fault: the store was used \
         by a newer coordinator; next: start that version or a newer one, or restore a backup made before the upgrade"
    )]
    Newer {
        /// Which record.
        record: String,
        /// The schema it has.
        found: u16,
        /// The newest schema this program knows.
        known: u16,
    },
    /// A record is larger than the store takes.
    #[error(
        "the {record} has {bytes} bytes, the store takes at most {limit}; fault: the request; next: shorten its texts \
         or split it"
    )]
    TooLarge {
        /// Which record.
        record: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// More units in one commit than the store merges.
    #[error(
        "{units} units in one commit, at most {limit} are possible; fault: this program; next: report it as a bug"
    )]
    TooManyUnits {
        /// How many came.
        units: usize,
        /// The limit.
        limit: usize,
    },
    /// Somebody else has written since.
    #[error(
        "the store is at revision {found}, this writer at {expected}; fault: a second writer; next: stop all but one \
         coordinator"
    )]
    Fenced {
        /// What this writer believes.
        expected: u64,
        /// What the store says.
        found: u64,
    },
    /// The store came back with less than it had acknowledged.
    #[error(
        "the store came back at revision {found}, but revision {acknowledged} was acknowledged; fault: the \
         coordinator's disk; next: restart the coordinator, which looks for the damage and repairs or restores"
    )]
    WentBack {
        /// What the store has.
        found: u64,
        /// What it must have.
        acknowledged: u64,
    },
    /// A commit failed and the store has not been opened again since, or a reader came too late.
    #[error(
        "the store is not open: a commit failed and it will be opened again, or the coordinator is stopping"
    )]
    Failed,
    /// The store has been closed.
    #[error("the store is closed; the coordinator is stopping")]
    Closed,
    /// A backup cannot be made, or is not good.
    #[error("the backup {path} is no good: {why}; next: use an older one")]
    BadBackup {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A backup has no room.
    #[error(
        "no backup was made: it may need {need} bytes and {room} are free beside it; fault: the disk; next: make room, \
         or name a file on another one"
    )]
    NoRoom {
        /// Bytes that must be free.
        need: u64,
        /// Bytes that are.
        room: u64,
    },
    /// A backup cannot be made now.
    #[error("no backup was made: {0}; next: try again")]
    NoBackup(&'static str),
    /// The directory to restore into has something in it.
    #[error(
        "{0} is not empty; a backup is restored only into a new or empty directory; next: name another one"
    )]
    NotEmpty(PathBuf),
}

impl StoreError {
    /// The system refused what was being done.
    #[must_use]
    pub fn io(doing: &str, source: io::Error) -> Self {
        Self::Io { doing: doing.to_owned(), source }
    }

    /// Whether there is no room left on the disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            // The engine keeps only the kind of an error that it tells twice.
            Self::Io { source, .. } | Self::Engine { source: sled::Error::Io(source), .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }

    /// Whether the files are not what was written, so that a backup is the way out.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Panicked { .. } | Self::Damaged { .. } => true,
            Self::Engine { source, .. } => match source {
                sled::Error::Io(io) => {
                    use io::ErrorKind as Kind;
                    matches!(io.kind(), Kind::UnexpectedEof | Kind::InvalidData | Kind::IsADirectory)
                }
                _ => true,
            },
            _ => false,
        }
    }
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another coordinator is running on {0}; next: stop it first, or name another store directory")]
    Running(PathBuf),
    /// Other users of the host can get at it.
    #[error(
        "{path} has mode {mode:04o}, so other users of this host can get at the store; fault: its permissions; next: \
         chmod {want:04o} {path}"
    )]
    Exposed {
        /// Which file or directory.
        path: String,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        want: u32,
    },
    /// It is another user's.
    #[error(
        "{path} belongs to the user with the id {owner}, this program runs as {we}: what it would write there its owner \
         could not use any more; next: run it as that user, as in `sudo -u \\#{owner} mirror-coordinator ...`, or give \
         the whole data directory to this one by `chown -R {we}`"
    )]
    Owner {
        /// Which file or directory.
        path: String,
        /// Its owner.
        owner: u32,
        /// Who we are.
        we: u32,
    },
    /// A directory is where the store has a file.
    #[error(
        "{0} is a directory, the store has a file there; fault: whoever put it there; next: mv {0} {0}.away, then the \
         same command again: what is missing then is made anew, or restored from the newest good backup"
    )]
    Foreign(PathBuf),
    /// A newer program has written to it.
    #[error(
        "the store was last used by {last}, which stores what this program cannot read; nothing was changed; \
         next: install {last} (or a newer one), or `mirror-coordinator restore BACKUP` with a backup made before the \
         upgrade"
    )]
    Newer {
        /// The program, with its version as far as it is known.
        last: String,
        /// Which record.
        #[source]
        source: StoreError,
    },
    /// There is none, and none is to be made.
    #[error(
        "there is no store in {0}; next: is its file system mounted? For a new fleet run `mirror-coordinator init`, \
         after a loss `mirror-coordinator restore BACKUP`"
    )]
    Missing(PathBuf),
    /// It is damaged, and no backup is good.
    #[error(
        "the store in {dir} is damaged and no good backup was found in {backups}; what was found is kept, what was \
         moved away in {dir}/quarantine; fault: the coordinator's disk; next: copy {dir} to a safe place, then \
         `mirror-coordinator restore BACKUP` with a backup kept elsewhere; running syncs go on meanwhile. Found: \
         {found}"
    )]
    Damaged {
        /// Its directory.
        dir: String,
        /// Where backups were looked for.
        backups: String,
        /// What was found, step by step.
        found: String,
    },
    /// Any other fault.
    #[error("the store in {dir} cannot be opened")]
    Store {
        /// Its directory.
        dir: PathBuf,
        /// What went wrong.
        #[source]
        source: StoreError,
    },
}
