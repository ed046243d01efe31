//! Small notes that the agent keeps on a root, beside the trees: which tree was begun there, what a move made, which
//! link is its own. One for each project and kind; replaced whole, on disk when written. Knows no meaning.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;

use fleet::id::ProjectUid;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{Missing, OWN_DIR, OWN_MODE, RESOLVE, Root, open_below};

/// Longest note that is read, bytes: some paths.
const NOTE_BYTES_MAX: u64 = 64 << 10;

/// What a note is about: the directory that it lies in, below the agent's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// The path at which the fleet has begun the project's tree.
    Begun,
    /// The path to which a move has begun to copy the project's tree.
    Moving,
    /// The project's public link.
    Link,
}

impl Note {
    const fn dir(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Moving => "moving",
            Self::Link => "links",
        }
    }
}

impl Root {
    /// What was noted; `None`: nothing.
    pub(super) fn read_note(&self, note: Note, project: ProjectUid) -> io::Result<Option<Vec<u8>>> {
        let name = format!("{OWN_DIR}/{}/{}", note.dir(), project.0);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file: File = match rustix::fs::openat2(&self.dir, &name, flags, Mode::empty(), RESOLVE) {
            Ok(file) => file.into(),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut content = Vec::new();
        file.take(NOTE_BYTES_MAX).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    /// Notes something in place of what was noted before; on disk when this returns.
    pub(super) fn write_note(&self, note: Note, project: ProjectUid, content: &[u8]) -> io::Result<()> {
        let own = open_below(self.dir.as_fd(), OWN_DIR, Missing::Make(OWN_MODE))?;
        let dir = open_below(own.as_fd(), note.dir(), Missing::Make(OWN_MODE))?;
        let (name, fresh) = (project.0.to_string(), format!("{}.new", project.0));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mut file: File =
            rustix::fs::openat2(&dir, &fresh, flags, Mode::from_raw_mode(0o600), RESOLVE)?.into();
        file.write_all(content)?;
        file.sync_all()?;
        rustix::fs::renameat(&dir, &fresh, &dir, &name)?;
        // The directory may be new as well.
        rustix::fs::fsync(&dir)?;
        Ok(rustix::fs::fsync(&own)?)
    }

    /// When it was noted, by this host's clock: seconds and nanoseconds since 1970.
    pub(super) fn note_time(&self, note: Note, project: ProjectUid) -> io::Result<(i64, u64)> {
        let name = format!("{OWN_DIR}/{}/{}", note.dir(), project.0);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&self.dir, &name, flags, Mode::empty(), RESOLVE)?;
        let stat = rustix::fs::fstat(&file)?;
        Ok((stat.st_mtime, stat.st_mtime_nsec))
    }

    /// The projects of which something of this kind is noted.
    pub(super) fn noted(&self, note: Note) -> io::Result<Vec<ProjectUid>> {
        let name = format!("{OWN_DIR}/{}", note.dir());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match rustix::fs::openat2(&self.dir, &name, flags, Mode::empty(), RESOLVE) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut projects = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir)? {
            let uid = entry?.file_name().to_str().ok().and_then(|name| name.parse().ok());
            projects.extend(uid.map(ProjectUid));
        }
        Ok(projects)
    }

    /// Forgets what was noted, if anything was.
    pub(super) fn remove_note(&self, note: Note, project: ProjectUid) -> io::Result<()> {
        let name = format!("{OWN_DIR}/{}/{}", note.dir(), project.0);
        match rustix::fs::unlinkat(&self.dir, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
