//! What the tests of the agent's program share: a coordinator that says what a test wants, an upstream that can be
//! held, and the program itself. Everything is on ports of the system's choice and in directories of its own.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy knows only functions marked #[test]"
)]

pub(crate) mod coordinator;
pub(crate) mod site;
pub(crate) mod upstream;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use mirror_proto::v1;

pub(crate) use coordinator::Coordinator;

/// Longest wait for anything; far more than anything takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
const LOOK_PACE: Duration = Duration::from_millis(10);

/// The program under test.
#[allow(clippy::disallowed_methods, reason = "tests start the agent")]
pub(crate) fn agent_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirror-agent"));
    command.env("LC_ALL", "C.UTF-8");
    command
}

/// Waits for a condition.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(LOOK_PACE);
    }
}

/// [`wait_until`] beside other tasks.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(LOOK_PACE).await;
    }
}

/// A host with an enrolled agent that may run or not.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    running: Option<Child>,
}

impl Host {
    /// A host with one root and nothing else.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        Self { dir, running: None }
    }

    /// A host that is enrolled as edge1.
    pub(crate) async fn enrolled(coordinator: &Coordinator, allow: &[&str]) -> Self {
        let host = Self::new();
        let mut command = host.enroll_command(coordinator);
        command.args(allow.iter().flat_map(|allowed| ["--allow-upstream", allowed]));
        let output = output(command).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        host
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn enroll_command(&self, coordinator: &Coordinator) -> Command {
        let mut command = agent_command();
        command.args(["enroll", &coordinator.address, "--token", &coordinator.token, "--name", "edge1"]);
        command.args(["--ca-hash", &coordinator.ca_hash, "--label", "role=edge"]);
        command.arg("--root").arg(format!("a1={}", self.root().display()));
        command.arg("--data-dir").arg(self.data());
        command
    }

    pub(crate) fn start(&mut self) {
        assert!(self.running.is_none());
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = agent_command();
        command.arg("run").arg("--config").arg(self.data().join("agent.toml"));
        self.running = Some(command.stderr(log).spawn().unwrap());
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("agent.log")
    }

    /// What the agent said on standard error.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub(crate) fn kill(&mut self) {
        let mut child = self.running.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let mut child = self.running.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap()
    }

    pub(crate) fn hang_up(&self) {
        let pid = rustix::process::Pid::from_child(self.running.as_ref().unwrap());
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    /// Run directories that are there.
    pub(crate) fn runs(&self) -> Vec<PathBuf> {
        let entries = |path: &Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect()
        };
        entries(&self.data().join("runs")).iter().flat_map(|attempt| entries(attempt)).collect()
    }

    /// Process ids of the supervisors that are recorded.
    pub(crate) fn supervisors(&self) -> Vec<rustix::process::Pid> {
        let records = self.runs().into_iter().filter_map(|run| {
            let text = std::fs::read(run.join("supervisor.json")).ok()?;
            let value: serde_json::Value = serde_json::from_slice(&text).ok()?;
            rustix::process::Pid::from_raw(i32::try_from(value["pid"].as_u64()?).ok()?)
        });
        records.collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.supervisors() {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if std::thread::panicking() {
            eprintln!("--- the agent said:\n{}", self.said());
        }
    }
}

/// Runs a command to its end beside other tasks.
pub(crate) async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

/// An assignment of project 7 to `a1:debian`.
pub(crate) fn assignment(run: u128, counter: u64, upstream: &str) -> v1::Assignment {
    v1::Assignment {
        key: Some(key(run, counter)),
        project_uid: 7,
        project: "debian".into(),
        role: v1::Role::Origin.into(),
        source_uri: upstream.into(),
        destination: "a1:debian".into(),
        max_delete: 500,
        tree_version: uuid::Uuid::from_u128(run).to_string(),
        spec_hash: "0123456789abcdef".into(),
        ..v1::Assignment::default()
    }
}

/// The key of attempt 1 of a run under epoch (5, counter).
pub(crate) fn key(run: u128, counter: u64) -> v1::AttemptKey {
    let run = uuid::Uuid::from_u128(run).to_string();
    v1::AttemptKey { run, attempt: 1, epoch: Some(v1::Epoch { term: 5, counter }) }
}
