//! What tells a tree of the fleet from one that was there before, and what a move made from what others put there: notes
//! on the root, written before the first program that may write there. Knows no program.

use std::io;

use fleet::id::ProjectUid;
use fleet::project::Destination;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::notes::Note;
use super::{RESOLVE, Root};

impl Root {
    /// Whether the fleet has begun a project's tree at this destination of the root.
    ///
    /// # Errors
    /// What the system says.
    pub fn has_begun(&self, project: ProjectUid, destination: &Destination) -> io::Result<bool> {
        let noted = self.read_note(Note::Begun, project)?;
        Ok(noted.is_some_and(|path| path == destination.path().as_bytes()))
    }

    /// Notes that the fleet begins a project's tree at this destination, or that a move to it has come to a good end;
    /// on disk when this returns. One of another destination is replaced. What is there is the tree from now on: no move
    /// may go on from it.
    ///
    /// # Errors
    /// What the system says; then nothing may be written to the tree.
    pub fn mark_begun(&self, project: ProjectUid, destination: &Destination) -> io::Result<()> {
        if !self.has_begun(project, destination)? {
            self.write_note(Note::Begun, project, destination.path().as_bytes())?;
        }
        if self.was_moving(project, destination)? {
            self.remove_note(Note::Moving, project)?;
        }
        Ok(())
    }

    /// Whether what is at this destination of the root was put there by a move of the project's tree that has not come
    /// to a good end: another one may go on from it, and delete in it.
    ///
    /// # Errors
    /// What the system says.
    pub fn was_moving(&self, project: ProjectUid, destination: &Destination) -> io::Result<bool> {
        let noted = self.read_note(Note::Moving, project)?;
        Ok(noted.is_some_and(|path| path == destination.path().as_bytes()))
    }

    /// Notes that a move of the project's tree begins to write to this destination; on disk when this returns.
    ///
    /// # Errors
    /// What the system says; then nothing may be written there.
    pub fn mark_moving(&self, project: ProjectUid, destination: &Destination) -> io::Result<()> {
        if self.was_moving(project, destination)? {
            return Ok(());
        }
        self.write_note(Note::Moving, project, destination.path().as_bytes())
    }

    /// Puts all that was written to this root's volume on its disk.
    ///
    /// # Errors
    /// What the system says: then what was written is not to be relied on.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.dir)?)
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
