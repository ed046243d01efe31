//! The trash of a root: where trees of deleted projects lie until their time has come. A tree gets there by one rename
//! within the root's file system, and leaves it by somebody's `mv` or by being removed. Only what a note of the agent's own
//! names is ever touched there. Knows no clock, no order and no program.
//!
//! ```text
//!   ROOT/.mirror/trash/NAME          the note, on disk before the rename
//!   ROOT/.mirror-trash/NAME          the tree
//!   ROOT/.mirror-trash/NAME.purging  the same while it is being removed: too late to take it back
//! ```

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use fleet::id::ProjectUid;
use fleet::project::{Destination, OWN_DIRS};
use fleet::time::Wall;
use fleet::trash::TrashOrder;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::notes::Note;
use super::{Missing, OWN_DIR, OWN_MODE, RESOLVE, Root, open_below};

/// The directory of the trees: outside of every tree, as no destination may begin with it, and closed to all other users.
const TRASH_DIR: &str = OWN_DIRS[1];
/// Where the notes are, below the agent's own directory.
const NOTES_DIR: &str = "trash";
/// What is added to a tree's name while it is being removed.
const PURGING: &str = ".purging";
/// Largest note that is read, bytes.
const NOTE_BYTES_MAX: u64 = 4 << 10;
/// Most notes that are looked at: more than an agent makes.
const NOTES_MAX: usize = 4 * fleet::defaults::TRASH_TREES_MAX;
/// Deepest directory of a tree that is removed: each one above is held open meanwhile.
const DEPTH_MAX: usize = 200;
/// Names of a directory that are read before they are removed.
const NAMES_AT_ONCE: usize = 1_024;

/// What is noted of a tree in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashNote {
    /// Of which project.
    pub project: u64,
    /// What it was called.
    pub name: String,
    /// Where the tree was, below the root.
    pub path: String,
    /// The order, in milliseconds since 1970.
    pub asked_ms: i64,
    /// For how long the agent has seen it in the trash, seconds.
    pub counted_s: u64,
}

impl TrashNote {
    /// The note of an order that is not followed yet.
    #[must_use]
    pub fn of(order: &TrashOrder) -> Self {
        Self {
            project: order.project.0,
            name: order.name.to_string(),
            path: order.destination.path().to_owned(),
            asked_ms: order.asked.0,
            counted_s: 0,
        }
    }

    /// Whether it is of this order.
    #[must_use]
    pub fn is_of(&self, order: &TrashOrder) -> bool {
        (self.project, self.asked_ms) == (order.project.0, order.asked.0)
    }

    /// For how long the agent has seen it in the trash.
    #[must_use]
    pub fn counted(&self) -> Duration {
        Duration::from_secs(self.counted_s)
    }

    /// The tree's name in the trash: `debian-17-20260731T120000000Z`. Follows from the order alone, so an order that was
    /// followed halfway is recognised.
    #[must_use]
    pub fn file_name(&self) -> String {
        let asked = Wall(self.asked_ms).to_utc().format("%Y%m%dT%H%M%S%3fZ");
        format!("{}-{}-{asked}", self.name, self.project)
    }
}

/// Where a tree of a note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lies {
    /// In the trash.
    There,
    /// In the trash, and being removed.
    Purging,
    /// Not in the trash.
    Nowhere,
}

/// What became of a tree that was to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It is in the trash.
    Done,
    /// There was none.
    Absent,
}

/// How far the removal of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purged {
    /// All of it is gone.
    All,
    /// As much as was allowed at once.
    Partly,
}

impl Root {
    /// Which project has begun a tree at this destination, around it or in it after this one did, if any has. `None` within:
    /// this one never began one there.
    ///
    /// # Errors
    /// What the system says.
    pub fn begun_since(
        &self,
        project: ProjectUid,
        destination: &Destination,
    ) -> io::Result<Option<Option<ProjectUid>>> {
        if !self.has_begun(project, destination)? {
            return Ok(None);
        }
        let own = self.note_time(Note::Begun, project)?;
        for other in self.noted(Note::Begun)? {
            let Some(path) = self.read_note(Note::Begun, other)?.filter(|_| other != project) else {
                continue;
            };
            let place = String::from_utf8(path).ok();
            let place = place.and_then(|path| format!("{}:{path}", destination.root()).parse().ok());
            let overlaps = place.is_some_and(|place: Destination| place.overlaps(destination));
            // Uids grow; a project that was moved here is told by when it was.
            if overlaps && (other > project || self.note_time(Note::Begun, other)? > own) {
                return Ok(Some(Some(other)));
            }
        }
        Ok(Some(None))
    }

    /// The project's tree is in the trash: nothing of it begins here any more.
    ///
    /// # Errors
    /// What the system says.
    pub fn forget_begun(&self, project: ProjectUid) -> io::Result<()> {
        self.remove_note(Note::Begun, project)
    }

    /// All notes of the trash that can be read, by their names.
    ///
    /// # Errors
    /// What the system says.
    pub fn trash_notes(&self) -> io::Result<Vec<TrashNote>> {
        let Some(dir) = self.notes_dir(Missing::Leave)? else { return Ok(Vec::new()) };
        let mut notes = Vec::new();
        for name in names(&dir, NOTES_MAX)? {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(file) = rustix::fs::openat2(&dir, name.as_c_str(), flags, Mode::empty(), RESOLVE) else {
                continue;
            };
            let mut text = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(File::from(file), NOTE_BYTES_MAX), &mut text)?;
            let note = serde_json::from_slice(&text).ok();
            // A note under another name is not one that was made here: what it names is left alone.
            let own = |note: &TrashNote| {
                note.name.parse::<fleet::id::Name>().is_ok() && note.file_name().as_bytes() == name.to_bytes()
            };
            match note.filter(own) {
                Some(note) => notes.push(note),
                None if name.to_bytes().ends_with(b".new") => {}
                None => {
                    tracing::warn!(note = ?name, "a note of the trash cannot be read; it is left as it is")
                }
            }
        }
        notes.sort_by_key(TrashNote::file_name);
        Ok(notes)
    }

    /// Notes what is in the trash, or is about to be; on disk when this returns.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_trash_note(&self, note: &TrashNote) -> io::Result<()> {
        let own = open_below(self.dir.as_fd(), OWN_DIR, Missing::Make(OWN_MODE))?;
        let dir = open_below(own.as_fd(), NOTES_DIR, Missing::Make(OWN_MODE))?;
        let (name, fresh) = (note.file_name(), format!("{}.new", note.file_name()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mut file: File =
            rustix::fs::openat2(&dir, &fresh, flags, Mode::from_raw_mode(0o600), RESOLVE)?.into();
        file.write_all(&serde_json::to_vec(note).map_err(io::Error::other)?)?;
        file.sync_all()?;
        rustix::fs::renameat(&dir, &fresh, &dir, &name)?;
        rustix::fs::fsync(&dir)?;
        Ok(rustix::fs::fsync(&own)?)
    }

    /// Forgets a note.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_trash_note(&self, note: &TrashNote) -> io::Result<()> {
        let Some(dir) = self.notes_dir(Missing::Leave)? else { return Ok(()) };
        match rustix::fs::unlinkat(&dir, note.file_name(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Where the tree of a note is.
    ///
    /// # Errors
    /// What the system says.
    pub fn lies(&self, note: &TrashNote) -> io::Result<Lies> {
        let Some(trash) = self.trash_dir(Missing::Leave)? else { return Ok(Lies::Nowhere) };
        let name = note.file_name();
        for (name, lies) in [(name.clone(), Lies::There), (name + PURGING, Lies::Purging)] {
            match rustix::fs::statat(&trash, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => return Ok(lies),
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Lies::Nowhere)
    }

    /// Moves the tree of a note, which was written before, to the trash; on disk when this returns. Within the file system
    /// of the root, and over no link.
    ///
    /// # Errors
    /// What the system says; then the tree is where it was, or a power cut will show where it is.
    pub fn move_to_trash(&self, note: &TrashNote) -> io::Result<Moved> {
        let mut above: Option<OwnedFd> = None;
        let (parents, last) = note.path.rsplit_once('/').unwrap_or(("", &note.path));
        for part in parents.split('/').filter(|part| !part.is_empty()) {
            let from = above.as_ref().map_or_else(|| self.dir.as_fd(), OwnedFd::as_fd);
            match open_below(from, part, Missing::Leave) {
                Ok(next) => above = Some(next),
                Err(Errno::NOENT) => return Ok(Moved::Absent),
                Err(error) => return Err(error.into()),
            }
        }
        let parent = above.as_ref().map_or_else(|| self.dir.as_fd(), OwnedFd::as_fd);
        match open_below(parent, last, Missing::Leave) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(Moved::Absent),
            Err(error) => return Err(error.into()),
        }
        let trash = self.trash_dir(Missing::Make(OWN_MODE))?.ok_or(io::ErrorKind::NotFound)?;
        let name = note.file_name();
        rustix::fs::renameat_with(parent, last, &trash, &name, RenameFlags::NOREPLACE)?;
        rustix::fs::fsync(&trash)?;
        rustix::fs::fsync(parent)?;
        Ok(Moved::Done)
    }

    /// Removes at most `most` entries of a tree in the trash, which nobody can take back from then on. Follows no link and
    /// stays on the file system of the trash.
    ///
    /// # Errors
    /// What the system says: what is left is tried again by the next call.
    pub fn purge(&self, note: &TrashNote, most: usize) -> io::Result<Purged> {
        let Some(trash) = self.trash_dir(Missing::Leave)? else { return Ok(Purged::All) };
        let name = note.file_name();
        let purging = format!("{name}{PURGING}");
        match rustix::fs::renameat_with(&trash, &name, &trash, &purging, RenameFlags::NOREPLACE) {
            Ok(()) => rustix::fs::fsync(&trash)?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let mut purge = Purge { device: rustix::fs::fstat(&trash)?.st_dev, left: most };
        let tree = match purge.open(trash.as_fd(), std::ffi::CString::new(purging.clone())?.as_c_str()) {
            Ok(tree) => tree,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Purged::All),
            Err(error) => return Err(error),
        };
        purge.empty(&tree, 0)?;
        if purge.left == 0 {
            return Ok(Purged::Partly);
        }
        rustix::fs::unlinkat(&trash, &purging, AtFlags::REMOVEDIR)?;
        rustix::fs::fsync(&trash)?;
        Ok(Purged::All)
    }

    fn notes_dir(&self, missing: Missing) -> io::Result<Option<OwnedFd>> {
        let below = |above: BorrowedFd<'_>, name| match open_below(above, name, missing) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(io::Error::from(error)),
        };
        match below(self.dir.as_fd(), OWN_DIR)? {
            Some(own) => below(own.as_fd(), NOTES_DIR),
            None => Ok(None),
        }
    }

    /// The directory of the trees: on the root's own file system, and nobody else's.
    fn trash_dir(&self, missing: Missing) -> io::Result<Option<OwnedFd>> {
        let dir = match open_below(self.dir.as_fd(), TRASH_DIR, missing) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (root, stat) = (rustix::fs::fstat(&self.dir)?, rustix::fs::fstat(&dir)?);
        let me = rustix::process::geteuid().as_raw();
        if stat.st_uid != me || stat.st_mode & 0o022 != 0 || stat.st_dev != root.st_dev {
            let text = format!("{TRASH_DIR} is not the agent's own, or on another file system");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        if matches!(missing, Missing::Make(_)) {
            // It may be new.
            rustix::fs::fsync(&self.dir)?;
        }
        Ok(Some(dir))
    }
}

/// A removal: on one file system, and so many entries.
struct Purge {
    device: u64,
    left: usize,
}

impl Purge {
    /// Opens a directory that is to be emptied, with the rights to do so.
    fn open(&self, above: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat2(above, name, flags, Mode::empty(), RESOLVE);
        let dir = match open() {
            Err(Errno::ACCESS) => {
                // Nobody else can put a link in its place: the trash is closed to all others.
                rustix::fs::chmodat(above, name, Mode::from_raw_mode(OWN_MODE), AtFlags::empty())?;
                open()?
            }
            other => other?,
        };
        let stat = rustix::fs::fstat(&dir)?;
        if stat.st_dev != self.device {
            let text = format!("{name:?} in it is another file system: unmount it");
            return Err(io::Error::new(io::ErrorKind::CrossesDevices, text));
        }
        if stat.st_mode & OWN_MODE != OWN_MODE {
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(OWN_MODE))?;
        }
        Ok(dir)
    }

    /// Removes what is in a directory, as long as entries are left to be removed.
    fn empty(&mut self, dir: &OwnedFd, depth: usize) -> io::Result<()> {
        if depth == DEPTH_MAX {
            let text = format!("it is deeper than {DEPTH_MAX} directories: remove it by hand");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        loop {
            let found = names(dir, NAMES_AT_ONCE)?;
            if found.is_empty() {
                return Ok(());
            }
            for name in found {
                if self.left == 0 {
                    return Ok(());
                }
                match rustix::fs::unlinkat(dir, name.as_c_str(), AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => self.left -= 1,
                    Err(Errno::ISDIR) => {
                        let inner = self.open(dir.as_fd(), &name)?;
                        self.empty(&inner, depth + 1)?;
                        if self.left == 0 {
                            return Ok(());
                        }
                        rustix::fs::unlinkat(dir, name.as_c_str(), AtFlags::REMOVEDIR)?;
                        self.left -= 1;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

/// The names in a directory, at most so many.
fn names(dir: &OwnedFd, most: usize) -> io::Result<Vec<std::ffi::CString>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            found.push(entry.file_name().to_owned());
        }
        if found.len() == most {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
