//! Hosts on one machine: network namespaces of the test's own, joined by virtual cables that can be cut. Needs root and
//! iproute2; a test without them says so and is skipped.

use std::{
    net::Ipv4Addr,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Result, ensure};

use crate::Finished;

/// The coordinator's host. The namespaces are the test's own, so the addresses meet nobody.
pub const COORDINATOR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The upstream's host; with [`Netns::new`] the agents' too.
pub const UPSTREAM: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Namespaces and the cables between them. Dropping it removes all.
#[derive(Debug)]
pub struct Netns {
    coordinator: String,
    upstream: String,
    /// One for each agent; with [`Netns::new`] the upstream's for all of them.
    agents: Vec<String>,
}

/// What of the cable is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing gets through in either direction.
    Both,
    /// What the coordinator says does not reach the agent; the agent is heard.
    ToAgent,
}

impl Netns {
    /// Two hosts, one for the coordinator, one for all else; or why there can be none here.
    ///
    /// # Errors
    /// When this machine or this user cannot make namespaces: the text for "skipped: why".
    pub fn new() -> Result<Self, String> {
        let id = Self::id()?;
        let pair = Self { coordinator: format!("mfc{id}"), upstream: format!("mfa{id}"), agents: Vec::new() };
        pair.join_pair().map_err(|error| format!("no network namespaces here: {error}"))?;
        Ok(pair)
    }

    /// A laboratory: the coordinator, the upstream and each of `agents` agents on hosts of their own; or why there
    /// can be none here.
    ///
    /// # Errors
    /// As [`Netns::new`].
    pub fn laboratory(agents: usize) -> Result<Self, String> {
        let id = Self::id()?;
        let agents = (0..agents).map(|index| format!("mf{index}{id}")).collect();
        let lab = Self { coordinator: format!("mfc{id}"), upstream: format!("mfu{id}"), agents };
        lab.join_all().map_err(|error| format!("no network namespaces here: {error}"))?;
        Ok(lab)
    }

    fn id() -> Result<String, String> {
        if !rustix::process::getuid().is_root() {
            return Err("network namespaces need root".to_owned());
        }
        Ok(format!("{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    fn join_pair(&self) -> Result<()> {
        let (c, a) = (self.coordinator.as_str(), self.upstream.as_str());
        ip(&["netns", "add", c])?;
        ip(&["netns", "add", a])?;
        ip(&["link", "add", "cable", "netns", c, "type", "veth", "peer", "name", "cable", "netns", a])?;
        plug_in(c, COORDINATOR)?;
        plug_in(a, UPSTREAM)
    }

    /// Every host has a cable to the coordinator's, which passes on what is not its own.
    fn join_all(&self) -> Result<()> {
        let c = self.coordinator.as_str();
        ip(&["netns", "add", c])?;
        ip(&["-n", c, "link", "set", "lo", "up"])?;
        ip(&["-n", c, "addr", "add", &COORDINATOR.to_string(), "dev", "lo"])?;
        let mut forward = inside(c, Path::new("sh"));
        let done = Finished::run(forward.args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]));
        ensure!(done.code == 0, "{}: {}", done.line, done.stderr);
        let agents = self.agents.iter().enumerate().map(|(index, name)| (name, self.agent_address(index)));
        for (port, (name, address)) in std::iter::once((&self.upstream, UPSTREAM)).chain(agents).enumerate() {
            let port = format!("port{port}");
            ip(&["netns", "add", name])?;
            ip(&["link", "add", &port, "netns", c, "type", "veth", "peer", "name", "cable", "netns", name])?;
            ip(&["-n", c, "link", "set", &port, "up"])?;
            ip(&[
                "-n",
                c,
                "route",
                "add",
                &address.to_string(),
                "dev",
                &port,
                "src",
                &COORDINATOR.to_string(),
            ])?;
            ip(&["-n", name, "addr", "add", &address.to_string(), "dev", "cable"])?;
            ip(&["-n", name, "link", "set", "cable", "up"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "route", "add", &COORDINATOR.to_string(), "dev", "cable"])?;
            ip(&["-n", name, "route", "add", "default", "via", &COORDINATOR.to_string()])?;
        }
        Ok(())
    }

    /// The address of an agent's host.
    ///
    /// # Panics
    /// Never with the few agents of a test.
    #[must_use]
    pub fn agent_address(&self, index: usize) -> Ipv4Addr {
        if self.agents.is_empty() {
            return UPSTREAM;
        }
        Ipv4Addr::new(10, 77, 0, 10 + u8::try_from(index).expect("a handful of agents"))
    }

    /// A command that runs on the coordinator's host.
    #[must_use]
    pub fn on_coordinator(&self, program: &Path) -> Command {
        inside(&self.coordinator, program)
    }

    /// A command that runs on the upstream's host.
    #[must_use]
    pub fn on_upstream(&self, program: &Path) -> Command {
        inside(&self.upstream, program)
    }

    /// A command that runs on an agent's host.
    #[must_use]
    pub fn on_agent(&self, index: usize, program: &Path) -> Command {
        inside(self.agent(index), program)
    }

    fn agent(&self, index: usize) -> &str {
        self.agents.get(index).unwrap_or(&self.upstream)
    }

    /// Cuts the cable between the first agent and the coordinator: packets vanish, and no end of it notices.
    ///
    /// # Errors
    /// When iptables cannot do it.
    pub fn cut(&self, cut: Cut) -> Result<()> {
        let coordinator = COORDINATOR.to_string();
        iptables(self.agent(0), &["-I", "INPUT", "-s", &coordinator, "-j", "DROP"])?;
        if cut == Cut::Both {
            iptables(self.agent(0), &["-I", "OUTPUT", "-d", &coordinator, "-j", "DROP"])?;
        }
        Ok(())
    }

    /// Cuts an agent's host off from everybody else: packets vanish, and nobody notices.
    ///
    /// # Errors
    /// When iptables cannot do it.
    pub fn isolate(&self, index: usize) -> Result<()> {
        iptables(self.agent(index), &["-I", "INPUT", "-i", "cable", "-j", "DROP"])?;
        iptables(self.agent(index), &["-I", "OUTPUT", "-o", "cable", "-j", "DROP"])
    }

    /// Mends every cable.
    ///
    /// # Errors
    /// When iptables cannot do it.
    pub fn heal(&self) -> Result<()> {
        std::iter::once(&self.upstream).chain(&self.agents).try_for_each(|name| iptables(name, &["-F"]))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        for name in [&self.coordinator, &self.upstream].into_iter().chain(&self.agents) {
            // What is gone already needs no removing.
            let _gone = ip(&["netns", "del", name]);
        }
    }
}

fn plug_in(namespace: &str, address: Ipv4Addr) -> Result<()> {
    ip(&["-n", namespace, "addr", "add", &format!("{address}/24"), "dev", "cable"])?;
    ip(&["-n", namespace, "link", "set", "cable", "up"])?;
    ip(&["-n", namespace, "link", "set", "lo", "up"])
}

fn iptables(namespace: &str, args: &[&str]) -> Result<()> {
    let done = Finished::run(inside(namespace, Path::new("iptables")).args(args));
    ensure!(done.code == 0, "{}: {}", done.line, done.stderr);
    Ok(())
}

fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    // `ip netns exec` becomes the program, so the process id is the program's.
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

fn ip(args: &[&str]) -> Result<()> {
    let done = Finished::run(Command::new("ip").args(args));
    ensure!(done.code == 0, "{}: {}", done.line, done.stderr);
    Ok(())
}
