//! The ballast: room on the disk that is kept until the disk is full, and then given up so that the store can
//! be opened again and an administrator gets through to make more.

use std::{fs, io, path::Path};

use rustix::fs::{FallocateFlags, fallocate};

use super::files;

/// Bytes kept free.
pub const BALLAST_BYTES: u64 = 64 << 20;

/// What became of the ballast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ballast {
    /// It is there.
    Kept,
    /// There is too little room for it: twice its size must be free.
    NoRoom,
    /// The file system cannot set room aside.
    Unsupported,
}

/// Sets the ballast aside, unless it is there or there is no room to spare.
///
/// # Errors
/// When the file system refuses anything but the room.
pub(crate) fn keep(path: &Path, bytes: u64) -> io::Result<Ballast> {
    if fs::metadata(path).is_ok_and(|found| found.len() == bytes) {
        return Ok(Ballast::Kept);
    }
    free(path)?;
    let Some(dir) = path.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    if files::room(dir)? < bytes.saturating_mul(2) {
        return Ok(Ballast::NoRoom);
    }
    let file = files::create(path)?;
    let outcome = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => return Ok(Ballast::Kept),
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Ok(Ballast::NoRoom),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(Ballast::Unsupported),
        Err(error) => Err(error.into()),
    };
    free(path)?;
    outcome
}

/// Gives it up; true when there was any.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn free(path: &Path) -> io::Result<bool> {
    files::remove_file(path)
}
