//! Reading and writing the few small PEM files of a PKI: bounded, atomic, durable, and private where they must be.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Largest PEM file that is read, in bytes. A full CA bundle and a key are under 20 KiB.
pub const PEM_BYTES_MAX: u64 = 64 * 1024;

/// Only the owner reads a private key.
const PRIVATE_MODE: u32 = 0o600;

/// Certificates are public.
const PUBLIC_MODE: u32 = 0o644;

/// The permission bits of everybody else.
const OTHERS_MASK: u32 = 0o007;

/// What to do when the file to be written exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Leave it and fail: the default for a first key, which must not be lost by a second `init`.
    Refuse,
    /// Replace it, atomically.
    Replace,
}

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// [`Existing::Refuse`] met a file.
    #[error("{} exists and is left as it is; move it away if it is to be replaced", .0.display())]
    Exists(PathBuf),
    /// Larger than [`PEM_BYTES_MAX`].
    #[error("{} is larger than {PEM_BYTES_MAX} bytes: not a PEM file of this fleet", .0.display())]
    TooLarge(PathBuf),
    /// A private key that everybody on the host may read or write.
    #[error("{} holds a private key and other users may access it (mode {mode:04o}); run chmod 600, and renew the key if the host has other users", path.display())]
    OthersMayAccess {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Reads a PEM file as text. The buffer is wiped on drop: the file may hold a key.
///
/// # Errors
/// [`FileError`] when it cannot be read, is not UTF-8 or is larger than [`PEM_BYTES_MAX`].
pub fn read_pem(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    read_bounded(file, path)
}

/// [`read_pem`] for a private key, which also refuses a file that others than its owner and group may access.
///
/// # Errors
/// As [`read_pem`], and [`FileError::OthersMayAccess`].
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    // Asked of the open file, so that nobody swaps it between the question and the reading.
    let mode = file.metadata().map_err(io_error("examine", path))?.permissions().mode() & 0o7777;
    if mode & OTHERS_MASK != 0 {
        return Err(FileError::OthersMayAccess { path: path.to_owned(), mode });
    }
    read_bounded(file, path)
}

/// Writes a private key (or a key with its certificates) with mode 0600: whole or not at all, and on disk when this
/// returns.
///
/// # Errors
/// [`FileError`]; the file is then what it was before (only when the very last sync failed may it be the new one).
pub fn write_private(path: &Path, contents: &str, existing: Existing) -> Result<(), FileError> {
    write(path, contents, PRIVATE_MODE, existing)
}

/// Writes certificates with mode 0644: whole or not at all, and on disk when this returns.
///
/// # Errors
/// [`FileError`]; the file is then what it was before (only when the very last sync failed may it be the new one).
pub fn write_public(path: &Path, contents: &str, existing: Existing) -> Result<(), FileError> {
    write(path, contents, PUBLIC_MODE, existing)
}

fn read_bounded(file: File, path: &Path) -> Result<Zeroizing<String>, FileError> {
    // The whole bound at once: a buffer that grows would leave copies of a key behind.
    let capacity = usize::try_from(PEM_BYTES_MAX).expect("64 KiB fit every usize") + 1;
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    file.take(PEM_BYTES_MAX + 1).read_to_string(&mut text).map_err(io_error("read", path))?;
    if text.len() >= capacity {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    Ok(text)
}

fn write(path: &Path, contents: &str, mode: u32, existing: Existing) -> Result<(), FileError> {
    let temporary = temporary_beside(path)?;
    let written =
        write_new(&temporary, contents, mode).and_then(|()| put_in_place(&temporary, path, existing));
    if written.is_err() || existing == Existing::Refuse {
        // Failing to remove it loses nothing but tidiness, and the first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_directory_of(path)
}

/// A name in the same directory that nobody else uses, so that the rename stays within one file system.
fn temporary_beside(path: &Path) -> Result<PathBuf, FileError> {
    let mut random = [0u8; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| FileError::Io {
        action: "draw a random name beside",
        path: path.to_owned(),
        source: io::Error::other("the random number generator failed"),
    })?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", hex::encode(random)));
    Ok(path.with_file_name(name))
}

fn write_new(temporary: &Path, contents: &str, mode: u32) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(temporary)
        .map_err(io_error("create", temporary))?;
    file.write_all(contents.as_bytes()).map_err(io_error("write", temporary))?;
    file.sync_all().map_err(io_error("sync", temporary))
}

fn put_in_place(temporary: &Path, path: &Path, existing: Existing) -> Result<(), FileError> {
    match existing {
        Existing::Replace => fs::rename(temporary, path).map_err(io_error("replace", path)),
        // A hard link fails if the name exists, in one step; a check followed by a rename would race.
        Existing::Refuse => fs::hard_link(temporary, path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => FileError::Exists(path.to_owned()),
            _ => io_error("create", path)(source),
        }),
    }
}

/// A new name is durable only once its directory is.
pub(crate) fn sync_directory_of(path: &Path) -> Result<(), FileError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io_error("sync", directory))
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_private_file_is_0600_and_nothing_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        write_private(&path, "one", Existing::Refuse).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(read_private(&path).unwrap().as_str(), "one");
        assert_eq!(entries(directory.path()), 1);
    }

    #[test]
    fn an_existing_file_is_replaced_only_when_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        write_private(&path, "one", Existing::Refuse).unwrap();
        let refused = write_private(&path, "two", Existing::Refuse).unwrap_err();
        assert!(matches!(refused, FileError::Exists(_)), "{refused}");
        assert_eq!(read_pem(&path).unwrap().as_str(), "one");
        write_private(&path, "two", Existing::Replace).unwrap();
        assert_eq!(read_pem(&path).unwrap().as_str(), "two");
        assert_eq!(entries(directory.path()), 1);
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write_public(&path, "text", Existing::Replace).is_err());
        assert_eq!(entries(directory.path()), 1);
        assert!(write_public(&directory.path().join("absent/file"), "text", Existing::Replace).is_err());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        write_public(&path, "key", Existing::Refuse).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = read_private(&path).unwrap_err();
        assert!(refused.to_string().contains("mode 0644"), "{refused}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read_private(&path).is_ok());
    }

    #[test]
    fn reading_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("big.pem");
        let limit = usize::try_from(PEM_BYTES_MAX).unwrap();
        fs::write(&path, "x".repeat(limit)).unwrap();
        assert!(read_pem(&path).is_ok());
        fs::write(&path, "x".repeat(limit + 1)).unwrap();
        assert!(matches!(read_pem(&path), Err(FileError::TooLarge(_))));
    }
}
