//! `mirror-supervise supervise`: the small process that owns one program run and outlives the agent.
//!
//! ```text
//! agent ── start ──▶ supervise ── spawn ──▶ jail ── exec ──▶ program (own process group, supervisor's session)
//!   ▲                  │  ▲ pipes                              │
//!   └── run directory ◀┘  └────────────────────────────────────┘
//! ```
//!
//! It drains the program's output into bounded files without ever making it wait, applies the wall clock and
//! the stall rule (design 5.4), obeys the `stop` file, ends the whole process group with the program, and
//! writes `exit.json`. It is single-threaded, uses nothing but std and rustix, and must be entered before
//! anything else is initialised.
//!
//! The destination's lock arrives as standard output and stays open here and in the program. Standard input
//! (the pipe with the secret) is handed to the program as it is; the supervisor never reads it.
//!
//! A signal that ends the supervisor is not caught: safe code cannot. The program then gets TERM from the
//! kernel (see `jail`), and [`RunDir::stop`] ends what ignores it.

mod cgroup;
mod group;
mod stall;
mod stream;
mod watch;

use std::error::Error;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, WaitOptions, WaitStatus, getpid, set_child_subreaper, setsid, waitpid};

pub(crate) use cgroup::gap as cgroup_gap;
use group::Group;
use stream::Stream;
use watch::Watch;

use crate::rundir::{
    BUILD, EXIT_BYTES, EndedBy, LogWriter, PROGRAM_NAME, PROGRESS_BYTES, ProgramExit, RunDir, RunDirError,
    SupervisorRecord, bounded_text, io_error, name, own_executable, procfs, reserved,
};

/// Longest wait for killed processes to be gone; beyond it they hang in the kernel (a dead disk or NFS
/// server).
const KILL_WAIT: Duration = Duration::from_secs(10);
/// Longest time for the output that is left in the pipes after the end.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// Pause between two tries to write `exit.json`, and how many: an hour, after which the run counts as
/// vanished. Only a copy-on-write file system that is full to the last block or a failing disk comes here.
const EXIT_PACE: Duration = Duration::from_secs(1);
const EXIT_TRIES: u32 = 3600;

/// Runs the program of `run_dir` to its end. Success means that `exit.json` is there; a failure before the
/// program was started is one line on standard error (`supervisor.log`).
pub fn main(run_dir: &Path) -> ExitCode {
    match supervise(run_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            let _ = writeln!(io::stderr(), "mirror-supervise: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

fn supervise(run_dir: &Path) -> Result<(), RunDirError> {
    let path = std::path::absolute(run_dir).map_err(io_error("resolve", run_dir))?;
    let run = RunDir::open(&path)?;
    let no_cgroup = detach().map_err(io_error("detach the supervisor of", &path))?;
    let record = describe_self(no_cgroup).map_err(io_error("describe the supervisor of", &path))?;
    let prepared = Prepared::new(&run)?;
    let json = to_json(&record).map_err(io_error("describe the supervisor of", &path))?;
    let file = path.join(name::SUPERVISOR);
    // It names a process of this boot: after a power cut it means nothing, synced or not.
    reserved::publish(&file, &json).map_err(io_error("write", &file))?;
    // From here on every end is told by exit.json.
    let exit = prepared.run(&run, &record);
    write_exit(&path, &exit)
}

/// Leaves the agent's session and directory, and adopts what the program leaves behind.
fn detach() -> io::Result<Result<std::path::PathBuf, String>> {
    match setsid() {
        // Started by hand as a group leader: the group is its own already, but the session must be too.
        Err(rustix::io::Errno::PERM)
            if procfs::stat(std::process::id()).is_some_and(|own| own.session == own.pid) => {}
        done => drop(done?),
    }
    set_child_subreaper(Some(getpid()))?;
    std::env::set_current_dir("/")?;
    Ok(cgroup::create(std::process::id()))
}

fn describe_self(cgroup: Result<std::path::PathBuf, String>) -> io::Result<SupervisorRecord> {
    let own = procfs::stat(std::process::id()).ok_or_else(|| io::Error::other("/proc is not mounted"))?;
    let (cgroup, no_cgroup) = match cgroup {
        Ok(path) => (Some(path), None),
        Err(reason) => (None, Some(reason)),
    };
    let boot_id = procfs::boot_id()?;
    Ok(SupervisorRecord { pid: own.pid, start_ticks: own.start_ticks, boot_id, cgroup, no_cgroup })
}

/// Everything on disk that must not fail once the program runs.
struct Prepared {
    progress: File,
    stdout: LogWriter,
    stderr: LogWriter,
}

impl Prepared {
    fn new(run: &RunDir) -> Result<Prepared, RunDirError> {
        let path = |name: &str| run.path().join(name);
        let exit = path(name::EXIT_PART);
        reserved::reserve(&exit, EXIT_BYTES).map_err(io_error("reserve", &exit))?;
        let progress = path(name::PROGRESS);
        let log = |name: &str, max: u64| {
            let file = path(name);
            LogWriter::create(&file, max).map_err(io_error("create", &file))
        };
        Ok(Prepared {
            progress: reserved::reserve(&progress, PROGRESS_BYTES).map_err(io_error("reserve", &progress))?,
            stdout: log(name::STDOUT, run.spec().stdout_max)?,
            stderr: log(name::STDERR, run.spec().stderr_max)?,
        })
    }

    /// Starts the program, watches it and ends its group.
    fn run(self, run: &RunDir, record: &SupervisorRecord) -> ProgramExit {
        let started_ms = now_ms();
        if let Some(reason) = run.stop_reason() {
            return never_started(EndedBy::Stop(reason), started_ms);
        }
        let started = spawn(run, record).and_then(|child| Program::new(child, self, record));
        let mut program = match started {
            Ok(program) => program,
            Err(error) => {
                let text = bounded_text(&format!("cannot start the program: {error}"));
                return never_started(EndedBy::SupervisorFault(text), started_ms);
            }
        };
        let ended_by = Watch::new(run, &mut program).until_end();
        program.finish(ended_by, started_ms)
    }
}

/// The running program: its group and its output.
struct Program {
    leader: Pid,
    group: Group,
    streams: [Stream; 2],
    progress: File,
}

impl Program {
    fn new(mut child: Child, prepared: Prepared, record: &SupervisorRecord) -> io::Result<Program> {
        let missing = || io::Error::other("the program has no pipe");
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let leader = leader.ok_or_else(|| io::Error::other("the program has no process id"))?;
        let streams =
            [Stream::new(stdout.into(), prepared.stdout)?, Stream::new(stderr.into(), prepared.stderr)?];
        let group = Group::new(leader, record.cgroup.clone());
        Ok(Program { leader, group, streams, progress: prepared.progress })
    }

    /// Ends what the program left, takes the rest of its output and its status. The leader is reaped last:
    /// until then its number, the group's, belongs to nobody else.
    fn finish(mut self, ended_by: EndedBy, started_ms: u64) -> ProgramExit {
        let survivors = self.group.kill_all(KILL_WAIT);
        let status = waitpid(Some(self.leader), WaitOptions::NOHANG).ok().flatten().map(|(_, status)| status);
        self.group.forget();
        for stream in &mut self.streams {
            stream.drain_rest(DRAIN_WAIT);
        }
        let ended_by = if survivors == 0 {
            ended_by
        } else {
            EndedBy::SupervisorFault(format!(
                "{survivors} processes survive KILL: a disk or network file system hangs; the lock stays held"
            ))
        };
        let [stdout, stderr] = self.streams.map(Stream::into_log);
        ProgramExit {
            code: status.and_then(WaitStatus::exit_status),
            signal: status.and_then(WaitStatus::terminating_signal),
            ended_by,
            started_ms,
            ended_ms: now_ms(),
            stdout_bytes: stdout.produced(),
            stderr_bytes: stderr.produced(),
            truncated: stdout.truncated() || stderr.truncated(),
        }
    }
}

fn spawn(run: &RunDir, record: &SupervisorRecord) -> io::Result<Child> {
    let spec = run.spec();
    // The lock: a duplicate is not close-on-exec, so the program inherits it beside its own standard output.
    // Leaked on purpose, for this process keeps it to its end.
    std::mem::forget(rustix::io::dup(io::stdout())?);
    #[allow(clippy::disallowed_methods, reason = "the supervisor's own program")]
    let mut command = Command::new(own_executable());
    command.arg0(PROGRAM_NAME).args([BUILD, "jail", "--spec"]).arg(run.path().join(name::SPEC));
    command.arg("--parent").arg(std::process::id().to_string());
    if let Some(cgroup) = &record.cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    command.arg("--").args(spec.argv.iter().map(|word| OsStr::from_bytes(word)));
    let env = spec.env.iter().map(|(name, value)| (OsStr::from_bytes(name), OsStr::from_bytes(value)));
    command.env_clear().envs(env).current_dir(&spec.cwd).process_group(0);
    command.stdin(Stdio::inherit()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

fn never_started(ended_by: EndedBy, started_ms: u64) -> ProgramExit {
    ProgramExit {
        code: None,
        signal: None,
        ended_by,
        started_ms,
        ended_ms: now_ms(),
        stdout_bytes: 0,
        stderr_bytes: 0,
        truncated: false,
    }
}

/// Does not give up soon: the exit is what the agent waits for, and nothing else is left to do.
fn write_exit(path: &Path, exit: &ProgramExit) -> Result<(), RunDirError> {
    let (part, file) = (path.join(name::EXIT_PART), path.join(name::EXIT));
    let json = to_json(exit).map_err(io_error("describe", &file))?;
    let mut tries = 1;
    loop {
        match reserved::complete(&part, &file, EXIT_BYTES, &json) {
            Err(_) if tries < EXIT_TRIES => {
                tries += 1;
                std::thread::sleep(EXIT_PACE);
            }
            written => return written.map_err(io_error("write", &file)),
        }
    }
}

fn to_json(value: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::from)
}

/// Milliseconds since 1970, for people; no decision depends on it.
fn now_ms() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "the supervisor stamps the start and end of its program")]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
