//! One run directory with a lock in a temporary place, and waiting with a deadline.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mirror_agent::rundir::{JailSpec, ProgramExit, ProgramSpec, ProgramStatus, RunDir, Secret};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The binary under test.
pub(crate) const SUPERVISE: &str = env!("CARGO_BIN_EXE_mirror-supervise");
/// The deadline of everything that should happen soon; generous, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn sh(script: &str) -> ProgramSpec {
    ProgramSpec {
        argv: ["/bin/sh", "-c", script].map(|word| word.as_bytes().to_vec()).to_vec(),
        env: vec![(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())],
        cwd: "/".into(),
        stall_timeout: Duration::from_secs(600),
        run_timeout: Some(Duration::from_secs(120)),
        term_grace: Duration::from_secs(60),
        stdout_max: 64 * 1024,
        stderr_max: 64 * 1024,
        jail: JailSpec { off: true, ..JailSpec::default() },
        lock_path: None,
    }
}

/// A run with its place; what still runs when it is dropped is ended.
pub(crate) struct Run {
    pub(crate) dir: RunDir,
    place: TempDir,
}

impl Run {
    pub(crate) fn create(spec: &ProgramSpec) -> Run {
        let place = TempDir::new().unwrap();
        let dir = RunDir::create(&place.path().join("runs"), "attempt-1", "pull-1", spec).unwrap();
        Run { dir, place }
    }

    pub(crate) fn start(spec: &ProgramSpec) -> Run {
        let run = Run::create(spec);
        run.dir.start_with(Path::new(SUPERVISE), None, &run.lock().unwrap()).unwrap();
        run
    }

    pub(crate) fn start_with_secret(spec: &ProgramSpec, secret: &str) -> Run {
        let run = Run::create(spec);
        let secret = Secret::new(secret.into()).unwrap();
        run.dir.start_with(Path::new(SUPERVISE), Some(&secret), &run.lock().unwrap()).unwrap();
        run
    }

    /// The destination's lock, if nobody holds it.
    pub(crate) fn lock(&self) -> Option<File> {
        let file = File::create(self.place.path().join("lock")).unwrap();
        file.try_lock().ok().map(|()| file)
    }

    /// A directory beside the run directory.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        let path = self.place.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn exit(&self) -> ProgramExit {
        eventually("the program ends", || match self.dir.status().unwrap() {
            ProgramStatus::Exited(exit) => Some(exit),
            _ => None,
        })
    }

    pub(crate) fn running_pid(&self) -> u32 {
        eventually("the program runs", || match self.dir.status().unwrap() {
            ProgramStatus::Running { pid, .. } => Some(pid),
            _ => None,
        })
    }

    pub(crate) fn supervisor_pid(&self) -> u32 {
        let json = fs::read(self.dir.path().join("supervisor.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&json).unwrap();
        u32::try_from(record["pid"].as_u64().unwrap()).unwrap()
    }

    pub(crate) fn kill_supervisor(&self) {
        signal(self.supervisor_pid(), Signal::KILL);
        eventually("the supervisor is noticed missing", || {
            (self.dir.status().unwrap() == ProgramStatus::Vanished).then_some(())
        });
    }

    /// All of the kept output, as text.
    pub(crate) fn stdout(&self) -> String {
        read_all(self.dir.stdout(0))
    }

    pub(crate) fn stderr(&self) -> String {
        read_all(self.dir.stderr(0))
    }

    /// The first line of output, once it is whole.
    pub(crate) fn first_line(&self) -> String {
        eventually("the program prints a line", || {
            self.stdout().split_once('\n').map(|(line, _)| line.to_owned())
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // The place goes with everything in it, so nothing may write there any more.
        let _ = self.dir.stop("the test is over");
        let deadline = Instant::now() + PATIENCE;
        while let Ok(ProgramStatus::Starting | ProgramStatus::Running { .. }) = self.dir.status() {
            if let Ok(ProgramStatus::Running { pid, .. }) = self.dir.status() {
                signal(pid, Signal::KILL);
            }
            if Instant::now() >= deadline || !self.dir.path().join("supervisor.json").exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn read_all(mut reader: mirror_agent::rundir::LogReader) -> String {
    let mut bytes = Vec::new();
    loop {
        let chunk = reader.read(4096).unwrap();
        if chunk.bytes.is_empty() {
            return String::from_utf8(bytes).unwrap();
        }
        bytes.extend(chunk.bytes);
    }
}

pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Neither gone nor a zombie (whoever is process 1 here may reap slowly).
pub(crate) fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // It may have ended by itself.
    let _ = kill_process(pid, signal);
}
