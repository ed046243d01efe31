//! Programs as processes: found beside the test binary, ended by pid and never by name.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};

use crate::eventually_within;

/// One of ours, as `cargo build --workspace --bins` left it beside this binary.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this process has a program");
    let found = own.ancestors().skip(1).take(3).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not built; next: cargo build --workspace --bins (or make e2e)"))
}

/// A program that runs until it is ended. Dropping it kills it, and only it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both its outputs appended to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> io::Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let child =
            command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn().map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("starting {name} ({:?}): {error}", command.get_program()),
                )
            })?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its name, as it was started with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send_signal(self.pid(), signal);
    }

    /// Kills it with SIGKILL and waits for its end.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Asks it to stop with SIGTERM and waits for its end.
    ///
    /// # Panics
    /// When it does not end within 30 s.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let name = format!("{} ends after SIGTERM", self.name);
        eventually_within(Duration::from_secs(30), &name, || self.exited())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<&str> = output.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            println!("---- last lines of {}\n{}", self.name, tail.join("\n"));
        }
    }
}

/// Sends a signal to a process that this test started or found below one that it started.
pub fn send_signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // A process that has ended meanwhile needs no signal.
        let _gone = rustix::process::kill_process(pid, signal);
    }
}

/// A command that ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// As it was typed.
    pub line: String,
    /// Exit code; -1 for a signal.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

impl Finished {
    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(command: &mut Command) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
        let output = command.stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("starting {line}: {error}"));
        Self {
            line,
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// This, if it ended well.
    ///
    /// # Panics
    /// When it did not.
    #[allow(clippy::must_use_candidate, reason = "mostly called for its panic")]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}{}", self.line, self.stdout, self.stderr);
        self
    }

    /// Its output as one JSON object.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{}: no JSON ({error}):\n{}", self.line, self.stdout))
    }
}

/// The living (not defunct) processes whose command line holds `text`, except this one.
#[must_use]
pub fn living_with(text: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()));
    pids.filter(|pid| *pid != std::process::id() && has_text(*pid, text) && is_living(*pid)).collect()
}

fn has_text(pid: u32, text: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
}

/// Whether a process exists and is not defunct.
#[must_use]
pub fn is_living(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
