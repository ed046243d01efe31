//! One plain file of a tree, read as carefully as the tree is written: its names came from an upstream. Knows no markers.

use std::fs::File;
use std::io::{self, Read as _};

use fleet::project::Destination;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use super::{RESOLVE, Root};

/// Inside of the tree links may be followed, as in `dists/stable`; never out of it, and the file itself is none.
const RESOLVE_INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// A file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// When it was last changed, seconds since 1970.
    pub changed: i64,
    /// Its first bytes.
    pub content: Vec<u8>,
}

impl Root {
    /// Reads at most `most` bytes of a file below a destination of this root.
    ///
    /// # Errors
    /// What the system says, also where the path leads out of the tree or the file is no plain one.
    pub fn read_in_tree(&self, destination: &Destination, path: &str, most: u64) -> io::Result<TreeFile> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tree = rustix::fs::openat2(&self.dir, destination.path(), flags, Mode::empty(), RESOLVE)?;
        read_beneath(tree, path, most)
    }
}

/// Reads at most `most` bytes of a file below a directory, over no link that leads out of it.
///
/// # Errors
/// As [`Root::read_in_tree`].
pub fn read_beneath(dir: impl std::os::fd::AsFd, path: &str, most: u64) -> io::Result<TreeFile> {
    // Opening a pipe must not wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file: File = rustix::fs::openat2(dir, path, flags, Mode::empty(), RESOLVE_INSIDE)?.into();
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file"));
    }
    let mut content = Vec::new();
    file.take(most).read_to_end(&mut content)?;
    Ok(TreeFile { changed: stat.st_mtime, content })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_plain_files_inside_of_the_tree_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("dists/bookworm")).unwrap();
        std::fs::write(tree.join("dists/bookworm/Release"), "0123456789").unwrap();
        std::fs::write(dir.path().join("outside"), "secret").unwrap();
        symlink("bookworm", tree.join("dists/stable")).unwrap();
        symlink("../outside", tree.join("out")).unwrap();
        symlink("..", tree.join("up")).unwrap();
        symlink("dists/bookworm/Release", tree.join("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, tree.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let read = |path: &str| root.read_in_tree(&"a1:tree".parse().unwrap(), path, 4);
        assert_eq!(read("dists/bookworm/Release").unwrap().content, b"0123");
        assert_eq!(read("dists/stable/Release").unwrap().content, b"0123", "a link inside of the tree");
        for bad in ["out", "up/outside", "link", "pipe", "dists", "none", "../outside", "/etc/passwd"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
