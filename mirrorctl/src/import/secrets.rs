//! Passwords of an import in files of their own: mode 0600, in a directory of mode 0700, nothing ever overwritten. Knows
//! nothing of manifests.

use std::{
    fmt, fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
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

/// Writes all of them or none.
///
/// # Errors
/// Every file that is there already; then the first that cannot be written.
pub fn write(secrets: &[Secret]) -> Outcome<()> {
    let mut faults = Faults::default();
    for secret in secrets {
        if secret.path.symlink_metadata().is_ok() {
            faults
                .add(FLAG, format_args!("{} is there already and is not overwritten", secret.path.display()));
        }
    }
    if !faults.is_empty() {
        return Err(faults.into_fault(FAILED));
    }
    let mut written: Vec<&Path> = Vec::new();
    for secret in secrets {
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

        std::os::unix::fs::symlink("/nowhere", below.join("d.password")).unwrap();
        let told = write(&[secret(path(&below, "c")), secret(path(&below, "b")), secret(path(&below, "d"))]);
        let told = told.unwrap_err().to_string();
        assert!(told.contains("2 faults") && told.contains("b.password is there already"), "{told}");
        assert!(!below.join("c.password").exists());
        let told = write(&[secret(path(&below, "e")), secret(below.join("a.password/x"))]).unwrap_err();
        assert!(!below.join("e.password").exists() && !format!("{told:?}").contains("hunter2"));
    }
}
