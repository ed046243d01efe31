//! What the agent lets nobody do with its disk, whoever asks: trees lie below the roots of its own file and are
//! reached without a symbolic link, one program at a time writes to one project, nothing starts on a full volume, and
//! a tree that others put there is known as such. The upstream's side of it is in [`upstream`]. Trusts no coordinator;
//! starts no program.

mod begun;
mod link;
mod notes;
pub mod trash;
pub mod tree_file;
pub mod upstream;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use fleet::id::ProjectUid;
use fleet::project::Destination;
use rustix::fs::{FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

pub use self::link::{LinkFault, LinkState};

/// The agent's own directory below each root: outside of every tree, as no destination may begin with it.
const OWN_DIR: &str = fleet::project::OWN_DIRS[0];
/// Where the locks are, below [`OWN_DIR`].
const LOCKS_DIR: &str = "locks";
/// Mode of directories made for trees.
const TREE_MODE: u32 = 0o755;
/// Mode of the agent's own directories.
const OWN_MODE: u32 = 0o700;
/// A volume with less than a 200th (0.5 %) of its bytes or inodes free is full: nothing starts there.
const FLOOR_PARTS: u64 = 200;

/// What is wrong with a root of the agent's file.
#[derive(Debug, thiserror::Error)]
pub enum RootFault {
    /// It cannot be used.
    #[error("cannot {action} it")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else could replace what is in it.
    #[error("it belongs to user {owner}, the agent runs as {me}; next: chown {me} it")]
    Owner {
        /// Whose it is.
        owner: u32,
        /// Who runs the agent.
        me: u32,
    },
    /// The same.
    #[error("its mode {0:04o} lets other users write to it; next: chmod go-w it")]
    Mode(u32),
    /// Two roots share files.
    #[error("it lies in, or is the same as, root {0}")]
    Nested(String),
}

/// Why a destination cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DestinationFault {
    /// No such root.
    #[error("the agent has no root \"{0}\"")]
    NoRoot(String),
    /// A part of the path leads elsewhere.
    #[error("\"{0}\" in the destination is a symbolic link; the agent follows none")]
    Symlink(String),
    /// A part of the path is a file.
    #[error("\"{0}\" in the destination is no directory")]
    NotDirectory(String),
    /// The file system.
    #[error("cannot open or make \"{part}\" in the destination; fault: this host's disk, or permissions")]
    Io {
        /// Which part.
        part: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a project is not locked.
#[derive(Debug, thiserror::Error)]
pub enum LockFault {
    /// Somebody writes to it.
    #[error("another program still writes to this project on this host (its lock {0} is held)")]
    Held(PathBuf),
    /// The file system.
    #[error("cannot lock {path}; fault: this host's disk, or permissions")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A project's lock; held until every copy of its descriptor is closed, those of started programs included.
#[derive(Debug)]
pub struct ProjectLock {
    /// The open, locked file: a program inherits it.
    pub file: File,
    /// Where it is.
    pub path: PathBuf,
}

/// Room on a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size in bytes.
    pub total_bytes: u64,
    /// Bytes that the agent may still fill.
    pub free_bytes: u64,
    /// Inodes; 0 where there is no limit.
    pub total_inodes: u64,
    /// Free inodes.
    pub free_inodes: u64,
}

impl Space {
    /// Why nothing may start here, if so.
    #[must_use]
    pub fn below_floor(&self) -> Option<String> {
        let lacks = |free: u64, total: u64| total > 0 && free < total / FLOOR_PARTS;
        if lacks(self.free_bytes, self.total_bytes) {
            let (free, total) = (fleet::words::bytes(self.free_bytes), fleet::words::bytes(self.total_bytes));
            return Some(format!("{free} of {total} are free, below the floor of 0.5 %"));
        }
        lacks(self.free_inodes, self.total_inodes).then(|| {
            let (free, total) =
                (fleet::words::commas(self.free_inodes), fleet::words::commas(self.total_inodes));
            format!("{free} of {total} inodes are free, below the floor of 0.5 %")
        })
    }
}

/// A root, opened when the agent started.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    dir: OwnedFd,
}

impl Root {
    /// Opens a root. It must belong to the user that runs the agent, and nobody else may write to it: otherwise
    /// another user of the host could put a link in the way.
    ///
    /// # Errors
    /// [`RootFault`].
    pub fn open(path: &Path) -> Result<Self, RootFault> {
        let io = |action| move |source: io::Error| RootFault::Io { action, source };
        // Real, so that rsync's own confinement meets no link above the root either.
        let path = path.canonicalize().map_err(io("find"))?;
        let dir = rustix::fs::open(&path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| io("open")(error.into()))?;
        let stat = rustix::fs::fstat(&dir).map_err(|error| io("examine")(error.into()))?;
        let me = rustix::process::geteuid().as_raw();
        if stat.st_uid != me {
            return Err(RootFault::Owner { owner: stat.st_uid, me });
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(RootFault::Mode(stat.st_mode & 0o7777));
        }
        let root = Self { path, dir };
        root.try_lock_file(".check")
            .map_err(io("lock a file in"))?
            .ok_or_else(|| io("lock a file in")(io::Error::from(io::ErrorKind::WouldBlock)))?;
        Ok(root)
    }

    /// Its path without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How full it is.
    ///
    /// # Errors
    /// What the system says.
    pub fn space(&self) -> io::Result<Space> {
        let volume = rustix::fs::fstatvfs(&self.dir)?;
        Ok(Space {
            total_bytes: volume.f_blocks.saturating_mul(volume.f_frsize),
            free_bytes: volume.f_bavail.saturating_mul(volume.f_frsize),
            total_inodes: volume.f_files,
            free_inodes: volume.f_favail,
        })
    }

    /// Whether files can be locked here now: a root may have gone since it was opened. Takes no project's lock.
    ///
    /// # Errors
    /// What the system says.
    pub fn locks_work(&self) -> io::Result<()> {
        self.try_lock_file(".probe").map(drop)
    }

    /// The locked file, or `None` while somebody else has it.
    fn try_lock_file(&self, name: &str) -> io::Result<Option<File>> {
        let own = open_below(self.dir.as_fd(), OWN_DIR, Missing::Make(OWN_MODE))?;
        let locks = open_below(own.as_fd(), LOCKS_DIR, Missing::Make(OWN_MODE))?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file: File =
            rustix::fs::openat2(&locks, name, flags, Mode::from_raw_mode(0o600), RESOLVE)?.into();
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// All roots.
#[derive(Debug)]
pub struct Guard {
    roots: BTreeMap<String, Root>,
}

/// Below the directory, and over no link: not even a harmless one.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// What to do about a directory that is not there.
#[derive(Debug, Clone, Copy)]
enum Missing {
    Leave,
    Make(u32),
}

impl Guard {
    /// Opens the roots of the agent's file.
    ///
    /// # Errors
    /// All faults of all roots, each with the root's name.
    pub fn open(roots: &BTreeMap<String, PathBuf>) -> Result<Self, Vec<(String, RootFault)>> {
        let mut open: BTreeMap<String, Root> = BTreeMap::new();
        let mut faults = Vec::new();
        for (name, path) in roots {
            match Root::open(path) {
                Ok(root) => match open.iter().find(|(_, other)| nested(&other.path, &root.path)) {
                    Some((other, _)) => faults.push((name.clone(), RootFault::Nested(other.clone()))),
                    None => _ = open.insert(name.clone(), root),
                },
                Err(fault) => faults.push((name.clone(), fault)),
            }
        }
        if faults.is_empty() { Ok(Self { roots: open }) } else { Err(faults) }
    }

    /// The roots by name.
    pub fn roots(&self) -> impl Iterator<Item = (&str, &Root)> {
        self.roots.iter().map(|(name, root)| (name.as_str(), root))
    }

    /// The root of a destination.
    ///
    /// # Errors
    /// [`DestinationFault::NoRoot`].
    pub fn root_of(&self, destination: &Destination) -> Result<&Root, DestinationFault> {
        let name = destination.root();
        self.roots.get(name).ok_or_else(|| DestinationFault::NoRoot(name.to_owned()))
    }

    /// The path of a destination, if what is there of it already can be used. Makes nothing.
    ///
    /// # Errors
    /// [`DestinationFault`].
    pub fn look_at(&self, destination: &Destination) -> Result<PathBuf, DestinationFault> {
        self.walk(destination, Missing::Leave)
    }

    /// The path of a destination, made where it is missing.
    ///
    /// # Errors
    /// [`DestinationFault`].
    pub fn make(&self, destination: &Destination) -> Result<PathBuf, DestinationFault> {
        self.walk(destination, Missing::Make(TREE_MODE))
    }

    fn walk(&self, destination: &Destination, missing: Missing) -> Result<PathBuf, DestinationFault> {
        let root = self.root_of(destination)?;
        let mut path = root.path.clone();
        let mut dir: Option<OwnedFd> = None;
        let mut parts = destination.path().split('/');
        for part in parts.by_ref() {
            path.push(part);
            let above = dir.as_ref().map_or_else(|| root.dir.as_fd(), OwnedFd::as_fd);
            match open_below(above, part, missing) {
                Ok(next) => dir = Some(next),
                Err(Errno::NOENT) => break,
                Err(Errno::LOOP) => return Err(DestinationFault::Symlink(part.to_owned())),
                Err(Errno::NOTDIR) => return Err(DestinationFault::NotDirectory(part.to_owned())),
                Err(error) => {
                    return Err(DestinationFault::Io { part: part.to_owned(), source: error.into() });
                }
            }
        }
        path.extend(parts);
        Ok(path)
    }

    /// Locks a project on its root, without waiting. Taken before anything is run, and handed down to it.
    ///
    /// # Errors
    /// [`LockFault::Held`] while another program, possibly one that outlived an agent, has it.
    pub fn lock(&self, root: &Root, project: ProjectUid) -> Result<ProjectLock, LockFault> {
        let name = project.0.to_string();
        let path = root.path.join(OWN_DIR).join(LOCKS_DIR).join(&name);
        match root.try_lock_file(&name) {
            Ok(Some(file)) => Ok(ProjectLock { file, path }),
            Ok(None) => Err(LockFault::Held(path)),
            Err(source) => Err(LockFault::Io { path, source }),
        }
    }
}

fn nested(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Opens one directory directly below another one.
fn open_below(above: BorrowedFd<'_>, name: &str, missing: Missing) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || rustix::fs::openat2(above, name, flags, Mode::empty(), RESOLVE);
    match (open(), missing) {
        (Err(Errno::NOENT), Missing::Make(mode)) => {
            match rustix::fs::mkdirat(above, name, Mode::from_raw_mode(mode)) {
                Ok(()) | Err(Errno::EXIST) => open(),
                Err(error) => Err(error),
            }
        }
        (result, _) => result,
    }
}

#[cfg(test)]
mod tests;
