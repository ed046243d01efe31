//! Files whose bytes exist before they are needed, so that a full disk cannot silence the end of a run.
//!
//! A reserved file is written with blanks while there is room: what a write was accepted for is set aside, also
//! by file systems that choose the blocks later. It is not synced: after a power cut nothing runs that would need
//! it, and each sync would delay the program's start. Completing it overwrites these bytes in place and renames it
//! to its real name: on file systems that overwrite (ext4, XFS, tmpfs) neither step needs a new block, and the name
//! has the same length as the old one, so the directory does not grow either. A copy-on-write file system may still
//! refuse for want of space; the caller decides about trying again. JSON allows trailing blanks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Mode of every file of a run directory: the owner's only.
const FILE_MODE: u32 = 0o600;

/// A new file of `size` blanks at `path`.
pub(crate) fn reserve(path: &Path, size: usize) -> io::Result<File> {
    let mut file = create(path)?;
    file.write_all(&vec![b' '; size])?;
    Ok(file)
}

/// Fills the reserved file `from` with `content` and renames it to `to`. A reader of `to` sees the whole content.
/// The first content counts. Not synced, as little as the reserved file was: whom a power cut keeps from reading a
/// run's end takes it for interrupted, which is what became of everything else on the host.
pub(crate) fn complete(from: &Path, to: &Path, size: usize, content: &[u8]) -> io::Result<()> {
    let file = match OpenOptions::new().write(true).open(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && to.exists() => return Ok(()),
        file => file?,
    };
    overwrite(&file, size, content)?;
    fs::rename(from, to)
}

/// Overwrites a reserved file of `size` bytes with `content` and blanks.
pub(crate) fn overwrite(file: &File, size: usize, content: &[u8]) -> io::Result<()> {
    if content.len() > size {
        return Err(io::Error::other(format!("{} bytes do not fit into the {size} reserved", content.len())));
    }
    let mut bytes = content.to_vec();
    bytes.resize(size, b' ');
    file.write_all_at(&bytes, 0)
}

/// Writes `content` to `path` through a temporary name: readers see all of it or nothing. Not synced: for what
/// means nothing after a power cut.
pub(crate) fn publish(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(&temporary)?;
    file.write_all(content)?;
    drop(file);
    fs::rename(&temporary, path)
}

/// A new file that only the owner reads; refuses one that is there.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completing_keeps_the_inode_and_its_size() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("exit.part"), dir.path().join("exit.json"));
        let reserved = reserve(&from, 4096).unwrap().metadata().unwrap();
        complete(&from, &to, 4096, b"{\"code\":0}").unwrap();
        let completed = fs::metadata(&to).unwrap();
        assert_eq!(
            (reserved.ino(), reserved.blocks(), 4096),
            (completed.ino(), completed.blocks(), completed.len())
        );
        assert_eq!(completed.mode() & 0o777, FILE_MODE);
        let value: serde_json::Value = serde_json::from_slice(&fs::read(&to).unwrap()).unwrap();
        assert_eq!(value["code"], 0);
        complete(&from, &to, 4096, b"{\"code\":1}").unwrap();
        assert!(fs::read(&to).unwrap().starts_with(b"{\"code\":0}"), "the first content counts");
    }

    #[test]
    fn too_much_content_is_refused_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("stop.part"), dir.path().join("stop"));
        reserve(&from, 8).unwrap();
        complete(&from, &to, 8, b"123456789").unwrap_err();
        assert!(!to.exists());
        assert_eq!(fs::read(&from).unwrap(), b"        ");
    }
}
