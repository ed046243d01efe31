//! `mirror-supervise`, the program behind every program run: found once, checked, and held, so that an agent runs the
//! one it was installed with, however its file is replaced meanwhile. Does NOT know what that program does.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// The program's name, beside the agent's own.
pub const PROGRAM_NAME: &str = "mirror-supervise";
/// Version and sources that agent and program are built from. The program does nothing for an agent of another one.
pub const BUILD: &str = env!("MIRROR_AGENT_BUILD");
/// The most characters of what another program says that are quoted.
const QUOTED_CHARS_MAX: usize = 100;

/// Why no program run can be started on this host.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// There is none, or it may not be used.
    #[error("cannot use {}, without which nothing is run; next: install it from the package of the agent", .path.display())]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Of another installation.
    #[error(
        "{} is \"{found}\", and this agent is of build {BUILD}; next: install both from one package", .path.display()
    )]
    Other {
        /// Which.
        path: PathBuf,
        /// What it says of itself.
        found: String,
    },
}

/// The program, held. Clones share the descriptor.
#[derive(Debug, Clone)]
pub struct SuperviseProgram {
    path: PathBuf,
    file: Arc<File>,
    /// Device and inode.
    id: (u64, u64),
}

impl SuperviseProgram {
    /// The one in the directory of this executable.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub fn beside_own() -> Result<SuperviseProgram, ProgramError> {
        let own = std::env::current_exe();
        let own = own.map_err(|source| ProgramError::Absent { path: PROGRAM_NAME.into(), source })?;
        SuperviseProgram::open(&own.with_file_name(PROGRAM_NAME))
    }

    /// The one at this path. It is asked for its build.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub fn open(path: &Path) -> Result<SuperviseProgram, ProgramError> {
        let absent = |source| ProgramError::Absent { path: path.to_owned(), source };
        let file = File::open(path).map_err(absent)?;
        let metadata = file.metadata().map_err(absent)?;
        let id = (metadata.dev(), metadata.ino());
        let program = SuperviseProgram { path: path.to_owned(), file: Arc::new(file), id };
        #[allow(clippy::disallowed_methods, reason = "asks the program who it is")]
        let mut command = Command::new(program.executable());
        command.arg0(PROGRAM_NAME).arg("--version").env_clear();
        let said = command.stdin(Stdio::null()).stderr(Stdio::null()).output().map_err(absent)?;
        let found = String::from_utf8_lossy(&said.stdout);
        if found.trim_end() != format!("{PROGRAM_NAME} {BUILD}") {
            let found = rsync::text::printable(found.trim_end().as_bytes(), QUOTED_CHARS_MAX);
            return Err(ProgramError::Other { path: path.to_owned(), found });
        }
        Ok(program)
    }

    /// What is to be executed now, while this value lives: its path where that still leads to it (a readable name in
    /// `ps`), else, after an upgrade replaced it, the descriptor. A file that was overwritten in place is another
    /// program under the same number; it then refuses [`BUILD`].
    #[must_use]
    pub fn executable(&self) -> PathBuf {
        let same = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.id;
        if fs::metadata(&self.path).is_ok_and(same) {
            return self.path.clone();
        }
        // Of the process that executes it, which has the descriptor until then.
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// The running executable: by its path where that still leads to it, else, after an upgrade replaced it, by the
/// kernel's own link, so that supervisor and jail are always the same version.
pub(crate) fn own_executable() -> PathBuf {
    let link = PathBuf::from("/proc/self/exe");
    // The link of a replaced file reads "... (deleted)", which is no file.
    fs::read_link(&link).ok().filter(|path| path.exists()).unwrap_or(link)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn script(path: &Path, text: &str) {
        let new = path.with_extension("new");
        fs::write(&new, format!("#!/bin/sh\necho \"{text}\"\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, path).unwrap();
    }

    #[test]
    fn another_build_and_none_at_all_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(PROGRAM_NAME);
        let absent = SuperviseProgram::open(&path).unwrap_err();
        assert!(matches!(absent, ProgramError::Absent { .. }), "{absent}");
        script(&path, "mirror-supervise 0.0.1+0123");
        let other = SuperviseProgram::open(&path).unwrap_err().to_string();
        assert!(other.contains("\"mirror-supervise 0.0.1+0123\"") && other.contains(BUILD), "{other}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let absent = SuperviseProgram::open(&path).unwrap_err();
        assert!(matches!(absent, ProgramError::Absent { .. }), "{absent}");
    }

    #[test]
    fn what_was_replaced_is_executed_by_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(PROGRAM_NAME);
        script(&path, &format!("{PROGRAM_NAME} {BUILD}"));
        let program = SuperviseProgram::open(&path).unwrap();
        assert_eq!(program.executable(), path);
        script(&path, "mirror-supervise 9.9.9+0123");
        let held = program.executable();
        assert!(fs::read_to_string(&held).unwrap().contains(BUILD), "{}", held.display());
        fs::remove_file(&path).unwrap();
        assert_eq!(program.executable(), held);
    }
}
