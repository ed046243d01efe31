//! A whole fleet in one directory: a coordinator, agents, an upstream, and the first admin's `mirrorctl`.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Finished, Process, Rsyncd, address, eventually,
    netns::{self, Netns},
    program, tree,
};

/// gRPC port of every test's coordinator, on an address of its own.
pub const GRPC_PORT: u16 = 7443;
/// HTTP port of every test's coordinator.
pub const HTTP_PORT: u16 = 7480;
/// Limits by which volumes may be filled to the last byte.
const NO_RESERVE: &str = "volume_reserve_percent = 0\nvolume_reserve_bytes = 0\n";
/// Trust domain of every test's fleet.
pub const TRUST_DOMAIN: &str = "test.example.org";

/// What kind of fleet.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Names of its agents.
    pub agents: Vec<String>,
    /// Files in the upstream's tree.
    pub files: usize,
    /// Bytes of each.
    pub file_bytes: usize,
    /// Lines for the `[limits]` table of `coordinator.toml`.
    pub limits: String,
    /// Environment of the programs.
    pub environment: Vec<(String, String)>,
    /// Lines in front of each agent's `agent.toml`.
    pub agent_config: String,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            agents: vec!["edge1".to_owned()],
            files: 200,
            file_bytes: 2_048,
            // Everything here is one upstream host: the pause between two starts would be all that is tested.
            limits: "upstream_spacing = \"0s\"\nupstream_slots = 100\n".to_owned(),
            environment: Vec::new(),
            agent_config: String::new(),
        }
    }
}

/// A fleet. Dropping it ends its processes and removes its directory.
#[derive(Debug)]
pub struct Fleet {
    /// The coordinator, while it runs.
    pub coordinator: Option<Process>,
    /// The agents, by the order of the options; `None` while stopped.
    pub agents: Vec<Option<Process>>,
    /// The upstream.
    pub upstream: Rsyncd,
    options: FleetOptions,
    address: Ipv4Addr,
    ca_hash: String,
    /// Its hosts, where the fleet is spread over several; dropped after every process of it.
    hosts: Option<Netns>,
    dir: TempDir,
}

impl Fleet {
    /// A fleet with these options, up and connected.
    ///
    /// # Errors
    /// When a step of setting it up fails, with what that step printed.
    pub fn start(options: FleetOptions) -> Result<Self> {
        Self::prepare(options)?.up()
    }

    /// A fleet over several hosts with cables that can be cut.
    ///
    /// # Errors
    /// As [`Fleet::start`].
    pub fn start_on(hosts: Netns, options: FleetOptions) -> Result<Self> {
        Self::prepare_on(Some(hosts), options)?.up()
    }

    fn up(self) -> Result<Self> {
        let mut fleet = self;
        fleet.start_coordinator()?;
        for index in 0..fleet.options.agents.len() {
            fleet.enroll(index)?;
            fleet.start_agent(index)?;
        }
        for name in fleet.options.agents.clone() {
            fleet.await_connected(&name);
        }
        Ok(fleet)
    }

    /// A fleet whose coordinator is initialised and not started, with an upstream that runs.
    ///
    /// # Errors
    /// When the upstream or `init` fails.
    pub fn prepare(options: FleetOptions) -> Result<Self> {
        Self::prepare_on(None, options)
    }

    fn prepare_on(hosts: Option<Netns>, options: FleetOptions) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("fleet-").tempdir()?;
        let address = if hosts.is_some() { netns::COORDINATOR } else { address::unique() };
        let upstream_address = if hosts.is_some() { netns::UPSTREAM } else { address };
        let upstream_tree = dir.path().join("upstream");
        tree::fill(&upstream_tree, options.files, options.file_bytes, 42)?;
        let upstream =
            Rsyncd::start(hosts.as_ref(), &dir.path().join("rsyncd"), upstream_address, &upstream_tree)?;
        let agents = options.agents.iter().map(|_| None).collect();
        let mut fleet = Self {
            coordinator: None,
            agents,
            upstream,
            options,
            address,
            ca_hash: String::new(),
            hosts,
            dir,
        };
        fleet.init()?;
        Ok(fleet)
    }

    fn init(&mut self) -> Result<()> {
        let grpc = format!("{}:{GRPC_PORT}", self.address);
        let init = self.command("mirror-coordinator", &["init", "--trust-domain", TRUST_DOMAIN]);
        let mut init = init;
        init.arg("--data-dir").arg(self.coordinator_dir());
        init.args(["--server-name", &self.address.to_string(), "--grpc-listen", &grpc]);
        init.args(["--http-listen", &format!("{}:{HTTP_PORT}", self.address)]);
        let done = Finished::run(&mut init).ok();
        let said = format!("{}{}", done.stdout, done.stderr);
        let at = said.find("sha256:").context("init prints the CA hash")?;
        self.ca_hash = said[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == ':').collect();
        ensure!(self.ca_hash.len() == 71, "the CA hash is cut: {}", self.ca_hash);
        let config = self.coordinator_dir().join("coordinator.toml");
        without_reserve(&config)?;
        set_limits(&config, &self.options.limits)
    }

    /// The fleet's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The loopback address that all of it lives on.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The upstream's tree.
    #[must_use]
    pub fn upstream_tree(&self) -> PathBuf {
        self.path().join("upstream")
    }

    /// The coordinator's directory.
    #[must_use]
    pub fn coordinator_dir(&self) -> PathBuf {
        self.path().join("coordinator")
    }

    /// The directory of the first admin's context, certificate and key.
    #[must_use]
    pub fn admin_dir(&self) -> PathBuf {
        self.coordinator_dir().join("admin")
    }

    /// An agent's directory.
    #[must_use]
    pub fn agent_dir(&self, index: usize) -> PathBuf {
        self.path().join(format!("agent-{}", self.options.agents[index]))
    }

    /// An agent's root `a1`.
    #[must_use]
    pub fn root(&self, index: usize) -> PathBuf {
        self.path().join(format!("root-{}", self.options.agents[index]))
    }

    /// The fleet's CA hash, as `init` printed it.
    #[must_use]
    pub fn ca_hash(&self) -> &str {
        &self.ca_hash
    }

    /// Its hosts, where the fleet is spread over several.
    #[must_use]
    pub fn hosts(&self) -> Option<&Netns> {
        self.hosts.as_ref()
    }

    /// host:port of the coordinator's gRPC.
    #[must_use]
    pub fn server(&self) -> String {
        format!("{}:{GRPC_PORT}", self.address)
    }

    /// One of our programs, in an environment that is the fleet's own.
    #[must_use]
    pub fn command(&self, name: &str, args: &[&str]) -> Command {
        let path = program(name);
        let command = match &self.hosts {
            None => Command::new(path),
            Some(hosts) => hosts.on_coordinator(&path),
        };
        self.own_environment(command, args)
    }

    /// `mirror-agent` on an agent's host, in an environment that is the fleet's own.
    #[must_use]
    pub fn agent_command(&self, index: usize, args: &[&str]) -> Command {
        let path = program("mirror-agent");
        let command = match &self.hosts {
            None => Command::new(path),
            Some(hosts) => hosts.on_agent(index, &path),
        };
        self.own_environment(command, args)
    }

    fn own_environment(&self, mut command: Command, args: &[&str]) -> Command {
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path()).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.env("MIRRORCTL_CONFIG", self.admin_dir().join("mirrorctl.toml"));
        if let Some(tmp) = std::env::var_os("TMPDIR") {
            command.env("TMPDIR", tmp);
        }
        command.envs(self.options.environment.iter().map(|(key, value)| (key, value)));
        command.args(args);
        command
    }

    /// Runs `mirrorctl` as the first admin.
    #[must_use]
    pub fn mirrorctl(&self, args: &[&str]) -> Finished {
        Finished::run(&mut self.command("mirrorctl", args))
    }

    /// Runs `mirrorctl … -o json` as the first admin and returns what it prints.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    #[must_use]
    pub fn json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.extend(["-o", "json"]);
        self.mirrorctl(&args).ok().json()
    }

    /// Starts the coordinator and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_coordinator(&mut self) -> Result<()> {
        let config = self.coordinator_dir().join("coordinator.toml");
        let mut command = self.command("mirror-coordinator", &["run", "--config"]);
        command.arg(config);
        let log = self.path().join("coordinator.log");
        self.coordinator = Some(Process::start("coordinator", &mut command, &log)?);
        let ready = format!("http://{}:{HTTP_PORT}/readyz", self.address);
        eventually("the coordinator is ready", || {
            if let Some(status) = self.coordinator.as_mut().and_then(Process::exited) {
                let output = self.coordinator.as_ref().map(Process::output).unwrap_or_default();
                panic!("the coordinator ended ({status}):\n{output}");
            }
            let mut curl = match &self.hosts {
                None => Command::new("curl"),
                Some(hosts) => hosts.on_coordinator(Path::new("curl")),
            };
            (Finished::run(curl.args(["-fsS", "-m", "5", &ready])).code == 0).then_some(())
        });
        Ok(())
    }

    /// Kills the coordinator with SIGKILL.
    pub fn kill_coordinator(&mut self) {
        self.coordinator = None;
    }

    /// Makes a join token for an agent and enrols it.
    ///
    /// # Errors
    /// When enrolment fails.
    pub fn enroll(&self, index: usize) -> Result<()> {
        let name = &self.options.agents[index];
        let token = self.json(&["join-token", "create", "--name", name]);
        let token = token["token"].as_str().context("join-token create prints the token")?;
        fs::create_dir_all(self.root(index))?;
        let done = Finished::run(&mut self.enroll_command(index, token));
        ensure!(done.code == 0, "enroll: {}{}", done.stdout, done.stderr);
        if !self.options.agent_config.is_empty() {
            let file = self.agent_dir(index).join("agent.toml");
            let text = format!("{}\n{}", self.options.agent_config, fs::read_to_string(&file)?);
            fs::write(file, text)?;
        }
        Ok(())
    }

    /// The command by which an agent enrols with a token.
    #[must_use]
    pub fn enroll_command(&self, index: usize, token: &str) -> Command {
        let server = self.server();
        let root = format!("a1={}", self.root(index).display());
        let mut command = self.agent_command(index, &["enroll", &server, "--token", token]);
        command.args(["--ca-hash", &self.ca_hash, "--root", &root, "--label", "role=edge"]);
        command
            .args(["--allow-upstream", "127.0.0.0/8", "--allow-upstream", "10.77.0.0/24"])
            .arg("--data-dir")
            .arg(self.agent_dir(index));
        command
    }

    /// Starts an agent; does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_agent(&mut self, index: usize) -> Result<()> {
        let mut command = self.agent_command(index, &["run", "--config"]);
        command.arg(self.agent_dir(index).join("agent.toml"));
        let name = format!("agent {}", self.options.agents[index]);
        let log = self.path().join(format!("agent-{}.log", self.options.agents[index]));
        self.agents[index] = Some(Process::start(&name, &mut command, &log)?);
        Ok(())
    }

    /// Kills an agent with SIGKILL; its supervisors go on.
    pub fn kill_agent(&mut self, index: usize) {
        self.agents[index] = None;
    }

    /// Waits until an agent is shown as connected.
    pub fn await_connected(&self, name: &str) {
        eventually(&format!("{name} is connected"), || {
            let list = self.mirrorctl(&["agent", "show", name, "-o", "json"]);
            (list.code == 0 && list.json()["connected"] == true).then_some(())
        });
    }

    /// Declares a project from the upstream to `a1:NAME` on the first agent.
    #[must_use]
    pub fn add_project(&self, name: &str, more: &[&str]) -> Finished {
        let uri = self.upstream.uri();
        let to = format!("a1:{name}");
        let origin = &self.options.agents[0];
        let mut args = vec!["project", "add", name, "--from", &uri, "--to", &to, "--origin", origin];
        args.extend(more);
        self.mirrorctl(&args)
    }

    /// The newest run of a project, as JSON; null before there is one.
    #[must_use]
    pub fn newest_run(&self, project: &str) -> Value {
        let shown = self.mirrorctl(&["run", "show", project, "-o", "json"]);
        if shown.code == 0 { shown.json() } else { Value::Null }
    }

    /// Waits until the newest run of a project is in this state, and returns it.
    #[allow(clippy::must_use_candidate, reason = "often called for the waiting alone")]
    pub fn await_run(&self, project: &str, state: &str) -> Value {
        eventually(&format!("the newest run of {project} is {state}"), || {
            let run = self.newest_run(project);
            let run = run.get("run").cloned().unwrap_or(run);
            (run["state"] == state).then_some(run)
        })
    }

    /// All runs of a project, newest first.
    #[must_use]
    pub fn runs(&self, project: &str) -> Vec<Value> {
        let list = self.json(&["run", "list", project]);
        list["runs"].as_array().cloned().unwrap_or_default()
    }

    /// Kills every process of this fleet, the upstream's with them.
    pub fn kill_all(&mut self) {
        self.coordinator = None;
        self.agents.iter_mut().for_each(|agent| *agent = None);
        // Supervisors outlive their agents by design: end those of this fleet, known by its directory.
        let own = self.path().display().to_string();
        for pid in crate::process::living_with(&own) {
            crate::process::send_signal(pid, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// Lets the volumes of a coordinator's agents be filled to the last byte: how full this machine's disk is must not
/// decide a test.
///
/// # Errors
/// When the configuration cannot be read or written.
pub fn without_reserve(config: &Path) -> Result<()> {
    set_limits(config, NO_RESERVE)
}

/// Puts lines into the `[limits]` table of a configuration.
fn set_limits(config: &Path, lines: &str) -> Result<()> {
    let text = fs::read_to_string(config)?;
    let text = match text.find("\n[limits]\n") {
        Some(at) => {
            let (before, after) = text.split_at(at + "\n[limits]\n".len());
            // Keys given here win: the file's own are dropped.
            let given: Vec<&str> =
                lines.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key).collect();
            let kept: Vec<&str> = after
                .lines()
                .filter(|line| !given.iter().any(|key| line.starts_with(&format!("{key} ="))))
                .collect();
            format!("{before}{lines}{}\n", kept.join("\n"))
        }
        None => format!("{text}\n[limits]\n{lines}"),
    };
    fs::write(config, text)?;
    Ok(())
}
