//! One directory per program run: how the agent starts a program that outlives it, and finds it again.
//!
//! `<data-dir>/runs/<attempt>/<pass>/` holds everything about one run of one program:
//!
//! | file | written by | content |
//! |---|---|---|
//! | `spec.json` | agent | [`ProgramSpec`]; never a secret |
//! | `supervisor.json` | supervisor | process id, start time, boot, cgroup; exists before the program |
//! | `supervisor.log` | supervisor | what it could not say otherwise; normally empty |
//! | `progress` | supervisor | the program's id, bytes received, idle time; overwritten in place |
//! | `stdout.log`, `stderr.log` (`.0`, `.1`, ...) | supervisor | bounded output, see [`LogReader`] |
//! | `stop` | agent | a request to end, with its reason |
//! | `exit.json` | supervisor | [`ProgramExit`]; its presence is the end |
//!
//! `stop.part`, `exit.part` and `progress` are reserved while there is room, so a full disk loses neither a
//! request nor an end. The state lives in the directory alone: an agent that was killed opens it and goes on
//! reading. This module knows no rsync, no attempt state and no coordinator. All calls block for some file
//! accesses; [`RunDir::start_with`] and [`RunDir::stop`] say how much longer they may.

mod log;
mod orphans;
pub(crate) mod procfs;
mod program;
pub(crate) mod reserved;
mod spec;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use log::LogWriter;
pub use log::{LogChunk, LogReader};
pub(crate) use orphans::{SupervisorRecord, kill_cgroup, remove_cgroup};
pub(crate) use program::own_executable;
pub use program::{BUILD, PROGRAM_NAME, ProgramError, SuperviseProgram};
pub(crate) use spec::bounded_text;
pub use spec::{
    EndedBy, JailSpec, OUTPUT_MAX_BYTES, OUTPUT_MIN_BYTES, ProgramExit, ProgramSpec, ProgramStatus,
    SECRET_MAX_BYTES, Secret, TERM_GRACE_MAX,
};

/// Bytes reserved for `exit.json`: several times the longest.
pub(crate) const EXIT_BYTES: usize = 4096;
/// Bytes reserved for the progress record.
pub(crate) const PROGRESS_BYTES: usize = 256;
/// Bytes reserved for `stop`: the longest reason with every character escaped.
const STOP_BYTES: usize = 2048;
/// The largest JSON file that is read back, in bytes.
const JSON_MAX_BYTES: u64 = 4 << 20;
/// The most bytes of `supervisor.log` quoted in an error.
const COMPLAINT_MAX_BYTES: u64 = 1024;
/// The longest a supervisor may take to write `supervisor.json`.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two looks for it.
const START_PACE: Duration = Duration::from_millis(2);
/// Mode of the directories: the owner's only.
const DIR_MODE: u32 = 0o700;
/// The longest attempt slug or pass name, in bytes.
const NAME_MAX_BYTES: usize = 128;

/// The files of a run directory.
pub(crate) mod name {
    pub(crate) const SPEC: &str = "spec.json";
    pub(crate) const SUPERVISOR: &str = "supervisor.json";
    pub(crate) const SUPERVISOR_LOG: &str = "supervisor.log";
    pub(crate) const PROGRESS: &str = "progress";
    pub(crate) const STDOUT: &str = "stdout.log";
    pub(crate) const STDERR: &str = "stderr.log";
    pub(crate) const STOP: &str = "stop";
    pub(crate) const STOP_PART: &str = "stop.part";
    pub(crate) const EXIT: &str = "exit.json";
    pub(crate) const EXIT_PART: &str = "exit.part";
}

/// Why a run directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// The specification is wrong; all faults.
    #[error("the program cannot be started as specified: {}", .0.join("; "))]
    Spec(Vec<String>),
    /// The name is not one path component of `[A-Za-z0-9._-]`, or too long.
    #[error("{0:?} cannot name a run directory")]
    Name(String),
    /// A run with this name was started before, since this host was booted.
    #[error("the run directory {} exists already", .0.display())]
    Exists(PathBuf),
    /// The run was started before: one directory is one run.
    #[error("the program of {} was started before", .0.display())]
    AlreadyStarted(PathBuf),
    /// The supervisor or processes it started are still there.
    #[error("the program of {} still runs: stop it first", .0.display())]
    StillRunning(PathBuf),
    /// Some processes did not die from KILL (an uninterruptible disk wait); they still hold the destination's
    /// lock.
    #[error("{count} processes of {} survive KILL; their disk or network file system hangs", .path.display())]
    Unkillable {
        /// The run directory.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// The supervisor did not come up; what it said.
    #[error("the supervisor for {} did not start: {complaint}", .path.display())]
    NotStarted {
        /// The run directory.
        path: PathBuf,
        /// Its words, bounded.
        complaint: String,
    },
    /// A file of the run directory does not hold what it should: it was damaged or written by another
    /// version.
    #[error("{} is damaged", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
}

/// The content of `progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The program's process and process group id.
    pub(crate) pid: u32,
    /// See [`ProgramStatus::Running`].
    pub(crate) received: u64,
    /// See [`ProgramStatus::Running`], in milliseconds.
    pub(crate) idle_ms: u64,
}

/// One program run on disk.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    spec: ProgramSpec,
    /// When this process first saw the run: the bound of waiting for its supervisor.
    seen: Instant,
}

impl RunDir {
    /// Makes `<base>/<attempt_slug>/<pass>` with everything a run needs, its reserved bytes included. What is there
    /// already is replaced unless a supervisor of this boot was started in it: an agent that was killed, or a power
    /// cut, left it. For that the caller holds the destination's lock, as for [`RunDir::start_with`]: a supervisor that
    /// is being started has it.
    ///
    /// Nothing of it is synced: after a power cut nothing runs, and what cannot be read is replaced.
    ///
    /// # Errors
    /// [`RunDirError::Spec`], [`RunDirError::Name`], [`RunDirError::Exists`], or the disk's refusal.
    pub fn create(
        base: &Path,
        attempt_slug: &str,
        pass: &str,
        spec: &ProgramSpec,
    ) -> Result<RunDir, RunDirError> {
        let faults = spec.faults();
        if !faults.is_empty() {
            return Err(RunDirError::Spec(faults));
        }
        for name in [attempt_slug, pass] {
            check_name(name)?;
        }
        let path = base.join(attempt_slug).join(pass);
        if RunDir::was_started(&path)? {
            return Err(RunDirError::Exists(path));
        }
        if path.exists() {
            fs::remove_dir_all(&path).map_err(io_error("replace the unfinished", &path))?;
        }
        let json =
            serde_json::to_vec_pretty(spec).map_err(|error| RunDirError::Spec(vec![error.to_string()]))?;
        let made = DirBuilder::new().recursive(true).mode(DIR_MODE).create(&path);
        made.map_err(io_error("create", &path))?;
        let stop = path.join(name::STOP_PART);
        reserved::reserve(&stop, STOP_BYTES).map_err(io_error("reserve", &stop))?;
        // Last: a directory without a specification was never created.
        let file = path.join(name::SPEC);
        reserved::publish(&file, &json).map_err(io_error("write", &file))?;
        Ok(RunDir { path, spec: spec.clone(), seen: Instant::now() })
    }

    /// Opens a run directory, of this process or of an earlier one.
    ///
    /// # Errors
    /// There is none, or its specification cannot be read.
    pub fn open(path: &Path) -> Result<RunDir, RunDirError> {
        let file = path.join(name::SPEC);
        let missing = || io_error("open", &file)(io::ErrorKind::NotFound.into());
        let spec = read_json(&file)?.ok_or_else(missing)?;
        Ok(RunDir { path: path.to_owned(), spec, seen: Instant::now() })
    }

    /// The run directories below `base`, ordered by path. Those that cannot be opened are returned as errors,
    /// in their place: one damaged file hides nothing else. Unfinished ones are left out.
    ///
    /// # Errors
    /// `base` cannot be listed; an absent one is empty.
    pub fn list(base: &Path) -> Result<Vec<Result<RunDir, RunDirError>>, RunDirError> {
        let mut paths = Vec::new();
        for attempt in subdirectories(base)? {
            let runs = subdirectories(&attempt)?;
            paths.extend(runs.into_iter().filter(|path| path.join(name::SPEC).exists()));
        }
        paths.sort();
        Ok(paths.iter().map(|path| RunDir::open(path)).collect())
    }

    /// Whether a supervisor was started in the run directory at `path` since this host was booted: what it left is
    /// to be read. Where none was, there is nothing to lose.
    ///
    /// # Errors
    /// It cannot be found out.
    pub fn was_started(path: &Path) -> Result<bool, RunDirError> {
        // A record is published whole, so one that cannot be read is of an earlier boot: it was not on disk yet when
        // the power was cut.
        match read_json::<SupervisorRecord>(&path.join(name::SUPERVISOR)) {
            Ok(None) | Err(RunDirError::Damaged { .. }) => Ok(false),
            Ok(Some(record)) => {
                record.is_of_this_boot().map_err(io_error("look for the supervisor of", path))
            }
            Err(error) => Err(error),
        }
    }

    /// Removes what a process left that was killed while it made or removed run directories, and what a power cut
    /// made unreadable: without a specification nothing was started there yet, or nothing runs there any more. For
    /// the agent's start.
    ///
    /// # Errors
    /// `base` cannot be listed, or the disk's refusal.
    pub fn sweep(base: &Path) -> Result<(), RunDirError> {
        for attempt in subdirectories(base)? {
            let passes = subdirectories(&attempt)?.into_iter();
            for path in passes.filter(|path| !is_whole(path)) {
                fs::remove_dir_all(&path).map_err(io_error("remove the unfinished", &path))?;
            }
            // Refused while there are others, which is what is wanted.
            let _ = fs::remove_dir(&attempt);
        }
        Ok(())
    }

    /// Forgets the run: removes its directory, and its attempt's when that is empty.
    ///
    /// # Errors
    /// [`RunDirError::StillRunning`], or the disk's refusal.
    pub fn remove(self) -> Result<(), RunDirError> {
        if let Some(record) = self.supervisor()? {
            let alive = record.is_alive().map_err(io_error("look for the supervisor of", &self.path))?;
            let left = record.orphans().map_err(io_error("look for the processes of", &self.path))?;
            if alive || !left.is_empty() {
                return Err(RunDirError::StillRunning(self.path));
            }
        }
        // First: what is removed by half, because this process is killed, is swept by the next one.
        let spec = self.path.join(name::SPEC);
        fs::remove_file(&spec).map_err(io_error("remove", &spec))?;
        fs::remove_dir_all(&self.path).map_err(io_error("remove", &self.path))?;
        if let Some(attempt) = self.path.parent() {
            // Refused while other passes are there, which is what is wanted.
            let _ = fs::remove_dir(attempt);
        }
        Ok(())
    }

    /// What becomes readable, for poll and its kin, when the supervisor is gone; none when there is none (any more).
    ///
    /// # Errors
    /// The system has no such descriptors, or none left: [`RunDir::status`] tells all the same.
    pub fn supervisor_end(&self) -> Result<Option<OwnedFd>, RunDirError> {
        let Some(record) = self.supervisor()? else { return Ok(None) };
        record.end().map_err(io_error("watch the supervisor of", &self.path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is run.
    pub fn spec(&self) -> &ProgramSpec {
        &self.spec
    }

    /// Starts the supervisor: `executable` (see [`SuperviseProgram::executable`]), in a session of its own. Returns
    /// when `supervisor.json` is on disk, usually after a few milliseconds, at the latest after 10 s.
    ///
    /// The secret goes through a pipe that is written and closed before the start: it is never on disk, in an
    /// argv or in an environment. `lock` is the locked file (flock) of the destination; supervisor and
    /// program inherit the descriptor, so the lock lives as long as either of them.
    ///
    /// # Errors
    /// [`RunDirError::AlreadyStarted`], [`RunDirError::NotStarted`], or the system's refusal. After the last
    /// two nothing runs, and the directory is used up: remove it and create it anew.
    pub fn start_with(
        &self,
        executable: &Path,
        secret: Option<&Secret>,
        lock: &File,
    ) -> Result<(), RunDirError> {
        if self.path.join(name::SUPERVISOR).exists() {
            return Err(RunDirError::AlreadyStarted(self.path.clone()));
        }
        let child = self.spawn_supervisor(executable, secret, lock);
        self.wait_for_supervisor(child.map_err(io_error("start the supervisor of", &self.path))?)
    }

    /// The lock travels as standard output, which the supervisor never writes to: descriptors above 2 would
    /// have to be made inheritable in this process, and then every program it starts meanwhile would inherit
    /// them as well.
    fn spawn_supervisor(&self, executable: &Path, secret: Option<&Secret>, lock: &File) -> io::Result<Child> {
        let stdin = match secret {
            None => Stdio::null(),
            Some(secret) => {
                let (reader, mut writer) = io::pipe()?;
                writer.write_all(secret.expose())?;
                reader.into()
            }
        };
        let complaints = File::create(self.path.join(name::SUPERVISOR_LOG))?;
        #[allow(clippy::disallowed_methods, reason = "the one place that starts supervisors")]
        let mut command = Command::new(executable);
        command.arg0(PROGRAM_NAME).args([BUILD, "supervise", "--run-dir"]).arg(&self.path).env_clear();
        command.stdin(stdin).stdout(lock.try_clone()?).stderr(complaints).spawn()
    }

    fn wait_for_supervisor(&self, mut child: Child) -> Result<(), RunDirError> {
        let record = self.path.join(name::SUPERVISOR);
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let ended = child.try_wait().map_err(io_error("wait for the supervisor of", &self.path))?;
            // Looked for after the wait: a short run may be over already.
            if record.exists() {
                return Ok(());
            }
            if ended.is_some() {
                break;
            }
            if Instant::now() >= deadline {
                let killed = child.kill().and_then(|()| child.wait());
                killed.map_err(io_error("end the slow supervisor of", &self.path))?;
                if record.exists() {
                    // In the last moment after all: its program may run, so this is a run that has vanished.
                    return Ok(());
                }
                break;
            }
            std::thread::sleep(START_PACE);
        }
        Err(RunDirError::NotStarted { path: self.path.clone(), complaint: self.complaint() })
    }

    fn complaint(&self) -> String {
        let mut text = Vec::new();
        if let Ok(file) = File::open(self.path.join(name::SUPERVISOR_LOG)) {
            let _ = file.take(COMPLAINT_MAX_BYTES).read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text);
        if text.trim().is_empty() { "it said nothing".to_owned() } else { text.trim().to_owned() }
    }

    /// What the program is doing. Reads a few small files; meant to be called several times a second. Reaps
    /// the supervisor if it was a child of this process. `Exited` means that the supervisor is gone as well,
    /// and its hold on the lock with it.
    ///
    /// # Errors
    /// A file is damaged or cannot be read.
    pub fn status(&self) -> Result<ProgramStatus, RunDirError> {
        let Some(record) = self.supervisor()? else {
            let waited = self.seen.elapsed() >= START_TIMEOUT;
            return Ok(if waited { ProgramStatus::Vanished } else { ProgramStatus::Starting });
        };
        if !record.is_alive().map_err(io_error("look for the supervisor of", &self.path))? {
            let exit = read_json(&self.path.join(name::EXIT))?;
            return Ok(exit.map_or(ProgramStatus::Vanished, ProgramStatus::Exited));
        }
        Ok(self.progress().map_or(ProgramStatus::Starting, |progress| ProgramStatus::Running {
            pid: progress.pid,
            received: progress.received,
            idle: Duration::from_millis(progress.idle_ms),
        }))
    }

    /// Asks the program to end: TERM, then KILL after `term_grace`, by the supervisor; the result is in
    /// [`RunDir::status`] then. The first reason counts. A program that was not started yet never will be.
    ///
    /// When the supervisor is gone ([`ProgramStatus::Vanished`]) this ends what it left behind itself and
    /// then blocks for up to 7 s; call it in that case even if it was called before.
    ///
    /// # Errors
    /// [`RunDirError::Unkillable`], or the system's refusal.
    pub fn stop(&self, reason: &str) -> Result<(), RunDirError> {
        let (part, stop) = (self.path.join(name::STOP_PART), self.path.join(name::STOP));
        let content = serde_json::json!({ "reason": bounded_text(reason) }).to_string();
        let written = reserved::complete(&part, &stop, STOP_BYTES, content.as_bytes());
        written.map_err(io_error("write", &stop))?;
        let Some(record) = self.supervisor()? else { return Ok(()) };
        if record.is_alive().map_err(io_error("look for the supervisor of", &self.path))? {
            return record.wake().map_err(io_error("wake the supervisor of", &self.path));
        }
        let left =
            record.end_orphans(self.spec.term_grace).map_err(io_error("end the processes of", &self.path))?;
        match left.len() {
            0 => Ok(()),
            count => Err(RunDirError::Unkillable { path: self.path.clone(), count }),
        }
    }

    /// The program's standard output from `position` on (0: its start).
    pub fn stdout(&self, position: u64) -> LogReader {
        LogReader::new(&self.path.join(name::STDOUT), self.spec.stdout_max, position)
    }

    /// The program's standard error from `position` on (0: its start).
    pub fn stderr(&self, position: u64) -> LogReader {
        LogReader::new(&self.path.join(name::STDERR), self.spec.stderr_max, position)
    }

    /// The reason of a request to end, once there is one.
    pub(crate) fn stop_reason(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Stop {
            reason: String,
        }
        let stop = self.path.join(name::STOP);
        match read_json::<Stop>(&stop) {
            Ok(found) => found.map(|stop| stop.reason),
            Err(_) => Some("a stop file that cannot be read".to_owned()),
        }
    }

    fn supervisor(&self) -> Result<Option<SupervisorRecord>, RunDirError> {
        read_json(&self.path.join(name::SUPERVISOR))
    }

    /// None before the program runs, and in the instant in which the supervisor overwrites it.
    fn progress(&self) -> Option<Progress> {
        let read = || read_json(&self.path.join(name::PROGRESS)).ok().flatten();
        read().or_else(read)
    }
}

fn check_name(name: &str) -> Result<(), RunDirError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let good = (1..=NAME_MAX_BYTES).contains(&name.len()) && name.bytes().all(allowed);
    if good && !name.starts_with('.') { Ok(()) } else { Err(RunDirError::Name(name.to_owned())) }
}

fn subdirectories(path: &Path) -> Result<Vec<PathBuf>, RunDirError> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io_error("list", path))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(io_error("list", path))?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    Ok(found)
}

/// Whether there is a specification, and one that can be read where nothing was started since the boot.
fn is_whole(path: &Path) -> bool {
    let spec = path.join(name::SPEC);
    let blank = || matches!(read_json::<ProgramSpec>(&spec), Err(RunDirError::Damaged { .. }));
    spec.exists() && !(blank() && matches!(RunDir::was_started(path), Ok(false)))
}

/// None when there is no such file.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RunDirError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io_error("open", path))?,
    };
    let mut bytes = Vec::new();
    file.take(JSON_MAX_BYTES).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|source| RunDirError::Damaged { path: path.to_owned(), source })
}

pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunDirError {
    let path = path.to_owned();
    move |source| RunDirError::Io { doing, path, source }
}
