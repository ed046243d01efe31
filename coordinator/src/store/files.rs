//! The files around the engine: where they are, who may read them, and how they are replaced so that a crash
//! leaves the old one or the new one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::error::OpenError;

/// Mode of the store's directories.
pub(crate) const DIR_MODE: u32 = 0o700;
/// Mode of the store's files.
pub(crate) const FILE_MODE: u32 = 0o600;
/// What backups' names end in: the ladder looks at no other files.
pub const BACKUP_EXTENSION: &str = "backup";

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
}

impl Layout {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The engine's directory.
    pub(crate) fn engine(&self) -> PathBuf {
        self.dir.join("sled")
    }

    /// The engine's directory while it is being restored or compacted into.
    pub(crate) fn fresh(&self) -> PathBuf {
        self.dir.join("sled.new")
    }

    /// A whole engine that is about to take the place of a damaged one.
    pub(crate) fn mended(&self) -> PathBuf {
        self.dir.join("sled.mended")
    }

    /// The engine's old directory, while a compacted one takes its place.
    pub(crate) fn old(&self) -> PathBuf {
        self.dir.join("sled.old")
    }

    /// The engine's directory as it was found after an unclean stop, until the engine is known to be good: sled cuts
    /// a damaged log as it opens.
    pub(crate) fn found(&self) -> PathBuf {
        self.dir.join("sled.found")
    }

    /// The engine's file while it is written once more.
    pub(crate) fn renewed(&self) -> PathBuf {
        self.dir.join("db.renewed")
    }

    /// What a compaction copies through.
    pub(crate) fn copy(&self) -> PathBuf {
        self.dir.join("compact.partial")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub(crate) fn marker(&self) -> PathBuf {
        self.dir.join("marker")
    }

    /// Names the program that used the store last, so that an older one can say which to install.
    pub(crate) fn version(&self) -> PathBuf {
        self.dir.join("version")
    }

    pub(crate) fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }

    pub(crate) fn backups(&self) -> PathBuf {
        self.dir.join("backups")
    }

    /// A new directory for what is moved out of the way.
    pub(crate) fn quarantine(&self) -> io::Result<PathBuf> {
        let parent = self.dir.join("quarantine");
        make_dir(&parent)?;
        let taken = fs::read_dir(&parent)?.count();
        for number in taken + 1.. {
            match fs::DirBuilder::new().mode(DIR_MODE).create(parent.join(number.to_string())) {
                Ok(()) => return Ok(parent.join(number.to_string())),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// Makes a directory that is ours alone, unless it is there.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(DIR_MODE).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        done => done,
    }
}

/// Refuses a file or directory that other users of the host can get at; one that is absent is none.
pub(crate) fn check_private(path: &Path, want: u32) -> Result<(), OpenError> {
    match fs::metadata(path) {
        Ok(found) if found.permissions().mode() & 0o077 != 0 => Err(OpenError::Exposed {
            path: path.display().to_string(),
            mode: found.permissions().mode() & 0o7777,
            want,
        }),
        _ => Ok(()),
    }
}

/// Refuses what belongs to another user: root could use it, and what root makes anew its owner could not use again.
pub(crate) fn check_owner(path: &Path) -> Result<(), OpenError> {
    let we = rustix::process::geteuid().as_raw();
    match fs::metadata(path) {
        Ok(found) if found.uid() != we => {
            Err(OpenError::Owner { path: path.display().to_string(), owner: found.uid(), we })
        }
        _ => Ok(()),
    }
}

/// Refuses a directory where a file belongs.
pub(crate) fn check_file(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() { Err(OpenError::Foreign(path.to_owned())) } else { Ok(()) }
}

/// Copies the files of a directory (and of those in it) into a new one, which appears whole or not at all.
pub(crate) fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    let partial = to.with_extension("partial");
    remove_dir(&partial)?;
    make_dir(&partial)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = partial.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    fs::rename(&partial, to)
}

/// Bytes of the files of a directory and of those in it.
pub(crate) fn bytes_below(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        bytes += if kind.is_dir() { bytes_below(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

/// Bytes that an ordinary user may still write on the volume of this directory.
pub(crate) fn room(dir: &Path) -> io::Result<u64> {
    let volume = rustix::fs::statvfs(dir)?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
}

/// Makes the engine's own files ours alone: it makes them with whatever the process's mask allows.
pub(crate) fn tighten(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(DIR_MODE))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let mode = if entry.file_type()?.is_dir() { DIR_MODE } else { FILE_MODE };
        match fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)) {
            // The engine replaces its snapshots as it likes.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Makes what was created, renamed or removed in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Puts a small file in place of an old one: a crash leaves the one or the other, whole.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let partial = dir.join(format!(".{}.partial", name.to_string_lossy()));
    let mut file = create(&partial)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    sync_dir(dir)
}

/// Makes or empties a file that is ours alone.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path)
}

/// Removes a file, if it is there; true when it was.
pub(crate) fn remove_file(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a directory and all in it, if it is there.
pub(crate) fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The lock that keeps a second coordinator out. Held as long as the value lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it; `None`: another process has it.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}
