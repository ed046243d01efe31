//! A project's public symbolic link: the one name under which readers find its tree, wherever that lives. It is made with
//! a relative target, replaced atomically by a rename, and never followed to write. What is not the agent's own is left
//! alone: its own is a link that it noted before it made it, or one that leads to the project's tree already.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use fleet::id::ProjectUid;
use fleet::project::Destination;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::notes::Note;
use super::{DestinationFault, Guard, Missing, Root, TREE_MODE, open_below};

/// Characters of a foreign link's target that are shown.
const TARGET_CHARS_MAX: usize = 200;

/// Why a link cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum LinkFault {
    /// The way to it, or to the tree.
    #[error("the public link {link} cannot be where it is declared")]
    Place {
        /// The link, as declared.
        link: Destination,
        /// What is wrong.
        source: DestinationFault,
    },
    /// Something else is there.
    #[error("{path} is {what}, and not this project's public link; move it away, or name another link")]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What is there.
        what: String,
    },
    /// The file system.
    #[error("cannot {doing} the public link {path}; fault: this host's disk, or permissions")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is at the place of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Nothing.
    Absent,
    /// The project's link, to this target.
    Own(PathBuf),
}

/// What is noted of a link: where it is, and where it may lead while it is being replaced.
#[derive(Debug, PartialEq, Eq)]
struct Noted {
    link: String,
    targets: Vec<String>,
}

impl Noted {
    fn write(&self) -> Vec<u8> {
        std::iter::once(&self.link)
            .chain(&self.targets)
            .flat_map(|line| [line, "\n"])
            .collect::<String>()
            .into()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines().map(str::to_owned);
        Some(Self { link: lines.next()?, targets: lines.collect() })
    }
}

/// The directory that a link is in.
struct Parent<'a> {
    root: &'a Root,
    dir: Option<OwnedFd>,
    path: PathBuf,
}

impl Parent<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_ref().map_or_else(|| self.root.dir.as_fd(), OwnedFd::as_fd)
    }
}

impl Guard {
    /// What is at the place of a project's public link. `trees` are the places where its tree is, or is to be.
    ///
    /// # Errors
    /// [`LinkFault`]: it could not be made, or something else is there.
    pub fn look_at_link(
        &self,
        project: ProjectUid,
        link: &Destination,
        trees: &[&Destination],
    ) -> Result<LinkState, LinkFault> {
        match self.parent_of(link, Missing::Leave)? {
            Some(parent) => self.state_of(&parent, project, link, trees),
            None => Ok(LinkState::Absent),
        }
    }

    /// Points a project's public link at its tree: readers find the tree that it led to before or this one, and nothing
    /// in between. `before` is where the tree was, if it has just been moved. True: it led elsewhere, or was not there.
    ///
    /// # Errors
    /// [`LinkFault`]; the link is as it was.
    pub fn put_link(
        &self,
        project: ProjectUid,
        link: &Destination,
        tree: &Destination,
        before: Option<&Destination>,
    ) -> Result<bool, LinkFault> {
        let to_tree = self.look_at(tree).map_err(|source| LinkFault::Place { link: link.clone(), source })?;
        let Some(parent) = self.parent_of(link, Missing::Make(TREE_MODE))? else { return Ok(false) };
        let trees: Vec<&Destination> = std::iter::once(tree).chain(before).collect();
        let old = match self.state_of(&parent, project, link, &trees)? {
            LinkState::Absent => None,
            LinkState::Own(target) => Some(target),
        };
        let target = relative(&parent.path, &to_tree);
        if old.as_ref() == Some(&target) {
            return Ok(false);
        }
        let path = parent.path.join(name_of(link));
        let io = |doing| move |source: io::Error| LinkFault::Io { doing, path: path.clone(), source };
        let text = |path: &PathBuf| path.to_str().map(str::to_owned);
        let noted = Noted {
            link: link.to_string(),
            targets: [Some(&target), old.as_ref()].into_iter().flatten().filter_map(text).collect(),
        };
        parent.root.write_note(Note::Link, project, &noted.write()).map_err(io.clone()("note"))?;
        replace(&parent, project, &target, name_of(link)).map_err(|error| io("replace")(error.into()))?;
        Ok(true)
    }

    /// Takes a project's public link away, where it is as the agent made it: its tree goes. Readers find nothing instead of
    /// a link that leads nowhere, and the next project may have the place.
    ///
    /// # Errors
    /// [`LinkFault`]; the link is as it was.
    pub fn remove_link(&self, project: ProjectUid) -> Result<(), LinkFault> {
        for root in self.roots.values() {
            let at = || root.path.clone();
            let io = |doing| move |source: io::Error| LinkFault::Io { doing, path: at(), source };
            let noted = root.read_note(Note::Link, project).map_err(io("examine"))?;
            let Some(noted) = noted.and_then(|note| Noted::read(&note)) else { continue };
            let Ok(link) = noted.link.parse::<Destination>() else { continue };
            let Some(parent) = self.parent_of(&link, Missing::Leave)? else { continue };
            let target = rustix::fs::readlinkat(parent.fd(), name_of(&link), Vec::new());
            let own = |target: &OsString| noted.targets.iter().any(|one| **one == **target);
            if target.is_ok_and(|target| own(&OsString::from_vec(target.into_bytes()))) {
                let gone = rustix::fs::unlinkat(parent.fd(), name_of(&link), AtFlags::empty());
                let gone = gone.and_then(|()| rustix::fs::fsync(parent.fd()));
                gone.map_err(|error| io("remove")(error.into()))?;
            }
            root.remove_note(Note::Link, project).map_err(io("forget"))?;
        }
        Ok(())
    }

    /// The directory of a link; `None`: it is not there.
    fn parent_of(&self, link: &Destination, missing: Missing) -> Result<Option<Parent<'_>>, LinkFault> {
        let place = |source| LinkFault::Place { link: link.clone(), source };
        let root = self.root_of(link).map_err(place)?;
        let mut parent = Parent { root, dir: None, path: root.path.clone() };
        let above = link.path().rsplit_once('/').map_or("", |(above, _)| above);
        for part in above.split('/').filter(|part| !part.is_empty()) {
            match open_below(parent.fd(), part, missing) {
                Ok(next) => parent.dir = Some(next),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::LOOP) => return Err(place(DestinationFault::Symlink(part.to_owned()))),
                Err(Errno::NOTDIR) => return Err(place(DestinationFault::NotDirectory(part.to_owned()))),
                Err(error) => {
                    let fault = DestinationFault::Io { part: part.to_owned(), source: error.into() };
                    return Err(place(fault));
                }
            }
            parent.path.push(part);
        }
        Ok(Some(parent))
    }

    fn state_of(
        &self,
        parent: &Parent<'_>,
        project: ProjectUid,
        link: &Destination,
        trees: &[&Destination],
    ) -> Result<LinkState, LinkFault> {
        let path = parent.path.join(name_of(link));
        let foreign = |what: String| Err(LinkFault::Foreign { path: path.clone(), what });
        let io = |source: io::Error| LinkFault::Io { doing: "examine", path: path.clone(), source };
        let target = match rustix::fs::readlinkat(parent.fd(), name_of(link), Vec::new()) {
            Ok(target) => PathBuf::from(OsString::from_vec(target.into_bytes())),
            Err(Errno::NOENT) => return Ok(LinkState::Absent),
            // What it is called here: no link.
            Err(Errno::INVAL) => {
                let is_dir = std::fs::symlink_metadata(&path).map_err(io)?.is_dir();
                return foreign(if is_dir { "a directory" } else { "a file" }.to_owned());
            }
            Err(error) => return Err(io(error.into())),
        };
        let noted =
            parent.root.read_note(Note::Link, project).map_err(io)?.and_then(|note| Noted::read(&note));
        let own = noted.is_some_and(|noted| {
            noted.link == link.to_string() && noted.targets.iter().any(|one| Path::new(one) == target)
        });
        if own || trees.iter().any(|tree| self.leads_to(&path, tree)) {
            return Ok(LinkState::Own(target));
        }
        let shown = rsync::text::printable(target.as_os_str().as_encoded_bytes(), TARGET_CHARS_MAX);
        foreign(format!("a symbolic link to {shown}"))
    }

    /// Whether a path ends at this tree, over whatever links. Only asked, never written to.
    fn leads_to(&self, path: &Path, tree: &Destination) -> bool {
        let Ok(tree) = self.look_at(tree) else { return false };
        let same = |one: std::fs::Metadata, other: std::fs::Metadata| {
            one.is_dir() && (one.dev(), one.ino()) == (other.dev(), other.ino())
        };
        std::fs::metadata(path)
            .ok()
            .zip(std::fs::metadata(tree).ok())
            .is_some_and(|(one, other)| same(one, other))
    }
}

/// Makes the link under another name and renames it over the old one. What a crash left under that name is ours.
fn replace(parent: &Parent<'_>, project: ProjectUid, target: &Path, name: &str) -> rustix::io::Result<()> {
    let fresh = format!(".mirror-link-{}", project.0);
    match rustix::fs::unlinkat(parent.fd(), &fresh, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    rustix::fs::symlinkat(target, parent.fd(), &fresh)?;
    rustix::fs::renameat(parent.fd(), &fresh, parent.fd(), name)?;
    rustix::fs::fsync(parent.fd())
}

fn name_of(link: &Destination) -> &str {
    let path = link.path();
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// The way from a directory to another path; both absolute and free of links.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let (from, to): (Vec<Component<'_>>, Vec<Component<'_>>) =
        (from.components().collect(), to.components().collect());
    let same = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let up = from[same..].iter().map(|_| Component::ParentDir);
    up.chain(to[same..].iter().copied()).collect()
}

#[cfg(test)]
mod tests;
