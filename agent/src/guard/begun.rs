//! What tells a tree of the fleet from one that was there before: a marker on the root, written before the first
//! program that may change the tree. Knows no program.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;

use fleet::id::ProjectUid;
use fleet::project::Destination;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Missing, OWN_DIR, OWN_MODE, RESOLVE, Root, open_below};

/// Where the markers are, below the agent's own directory.
const BEGUN_DIR: &str = "begun";
/// Longest content of a marker that is read, bytes: a destination's longest path and more.
const MARKER_BYTES_MAX: u64 = 64 << 10;

impl Root {
    /// Whether the fleet has begun a project's tree at this destination of the root.
    ///
    /// # Errors
    /// What the system says.
    pub fn has_begun(&self, project: ProjectUid, destination: &Destination) -> io::Result<bool> {
        let name = format!("{OWN_DIR}/{BEGUN_DIR}/{}", project.0);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file: File = match rustix::fs::openat2(&self.dir, &name, flags, Mode::empty(), RESOLVE) {
            Ok(file) => file.into(),
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let mut path = Vec::new();
        file.take(MARKER_BYTES_MAX).read_to_end(&mut path)?;
        Ok(path == destination.path().as_bytes())
    }

    /// Notes that the fleet begins a project's tree at this destination; on disk when this returns. One of another
    /// destination is replaced.
    ///
    /// # Errors
    /// What the system says; then nothing may be written to the tree.
    pub fn mark_begun(&self, project: ProjectUid, destination: &Destination) -> io::Result<()> {
        if self.has_begun(project, destination)? {
            return Ok(());
        }
        let own = open_below(self.dir.as_fd(), OWN_DIR, Missing::Make(OWN_MODE))?;
        let dir = open_below(own.as_fd(), BEGUN_DIR, Missing::Make(OWN_MODE))?;
        let (name, fresh) = (project.0.to_string(), format!("{}.new", project.0));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mut file: File =
            rustix::fs::openat2(&dir, &fresh, flags, Mode::from_raw_mode(0o600), RESOLVE)?.into();
        file.write_all(destination.path().as_bytes())?;
        file.sync_all()?;
        rustix::fs::renameat(&dir, &fresh, &dir, &name)?;
        // The directory may be new as well.
        rustix::fs::fsync(&dir)?;
        Ok(rustix::fs::fsync(&own)?)
    }

    /// Whether anything is at a destination of this root.
    ///
    /// # Errors
    /// What the system says, also where a part of the path is a link.
    pub fn is_filled(&self, destination: &Destination) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match rustix::fs::openat2(&self.dir, destination.path(), flags, Mode::empty(), RESOLVE) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        for entry in rustix::fs::Dir::read_from(&dir)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
