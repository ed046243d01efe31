//! Passwords of an import in files of their own: mode 0600, in a directory of mode 0700, nothing ever overwritten; a file
//! that holds its password already is as good as written. Knows nothing of manifests.

use std::{
    fmt, fs,
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::FAILED;
use crate::fault::{Faults, Outcome};

/// What people type to name the directory.
pub(super) const FLAG: &str = "--secrets-dir";
/// How a password's file ends.
const ENDING: &str = "password";
/// Permissions of the directory.
const DIRECTORY_MODE: u32 = 0o700;
/// Permissions of a file.
const FILE_MODE: u32 = 0o600;
/// What of a file's mode are permissions.
const MODE_BITS: u32 = 0o7777;

/// A password and the file for it.
pub struct Secret {
    /// The file.
    pub path: PathBuf,
    pub(super) text: Zeroizing<String>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The file of a project's password.
pub(super) fn path(directory: &Path, project: &str) -> PathBuf {
    directory.join(format!("{project}.{ENDING}"))
}

/// Writes all of them or none; those that an import before wrote stay.
///
/// # Errors
/// Every file that is there already with something else; then the first that cannot be written.
pub fn write(secrets: &[Secret]) -> Outcome<()> {
    let mut faults = Faults::default();
    let mut missing = Vec::new();
    for secret in secrets {
        if secret.path.symlink_metadata().is_err() {
            missing.push(secret);
        } else if !is_written(secret) {
            let path = secret.path.display();
            faults.add(FLAG, format_args!("{path} is there already and is not overwritten"));
        }
    }
    if !faults.is_empty() {
        return Err(faults.into_fault(FAILED));
    }
    let mut written: Vec<&Path> = Vec::new();
    for secret in missing {
        if let Err(error) = write_one(secret, &mut written) {
            // Half of the passwords would be in the way of the next try.
            for path in written {
                let _ = fs::remove_file(path);
            }
            faults.add(FLAG, format_args!("{}: {error}", secret.path.display()));
            return Err(faults.into_fault(FAILED));
        }
    }
    Ok(())
}

/// Whether the file is what this program writes: private, and this password on a line.
fn is_written(secret: &Secret) -> bool {
    let private = |found: &fs::Metadata| found.is_file() && found.mode() & MODE_BITS == FILE_MODE;
    if !secret.path.symlink_metadata().is_ok_and(|found| private(&found)) {
        return false;
    }
    let most = secret.text.len() as u64 + 2;
    let mut held = Zeroizing::new(String::new());
    let read = fs::File::open(&secret.path).and_then(|file| file.take(most).read_to_string(&mut held));
    read.is_ok() && held.strip_suffix('\n') == Some(secret.text.as_str())
}

fn write_one<'a>(secret: &'a Secret, written: &mut Vec<&'a Path>) -> std::io::Result<()> {
    if let Some(directory) = secret.path.parent() {
        fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&secret.path)?;
    written.push(&secret.path);
    writeln!(file, "{}", secret.text.as_str())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn secret(path: PathBuf) -> Secret {
        Secret { path, text: Zeroizing::new("hunter2".to_owned()) }
    }

    #[test]
    fn all_or_none_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("secrets");
        write(&[secret(path(&below, "a")), secret(path(&below, "b"))]).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&below), mode(&below.join("a.password"))), (0o700, 0o600));
        assert_eq!(fs::read_to_string(below.join("b.password")).unwrap(), "hunter2\n");

        // An import before has written them.
        write(&[secret(path(&below, "a")), secret(path(&below, "0"))]).unwrap();
        assert_eq!(fs::read_to_string(below.join("0.password")).unwrap(), "hunter2\n");
        fs::write(below.join("b.password"), "hunter22\n").unwrap();

        std::os::unix::fs::symlink("/nowhere", below.join("d.password")).unwrap();
        let told = write(&[secret(path(&below, "c")), secret(path(&below, "b")), secret(path(&below, "d"))]);
        let told = told.unwrap_err().to_string();
        assert!(told.contains("2 faults") && told.contains("b.password is there already"), "{told}");
        assert!(!below.join("c.password").exists());
        let told = write(&[secret(path(&below, "e")), secret(below.join("a.password/x"))]).unwrap_err();
        assert!(!below.join("e.password").exists() && !format!("{told:?}").contains("hunter2"));
        fs::set_permissions(below.join("a.password"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(write(&[secret(path(&below, "a"))]).is_err(), "others can read it");
    }
}
