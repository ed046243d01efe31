//! Two hosts on one machine: network namespaces of the test's own, joined by a virtual cable that can be cut.
//! Needs root and iproute2; a test without them says so and is skipped.

use std::{
    net::Ipv4Addr,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Result, ensure};

use crate::Finished;

/// The coordinator's host. The namespaces are the test's own, so the addresses meet nobody.
pub const COORDINATOR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The agents' host, and the upstream's.
pub const AGENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Two namespaces and the cable between them. Dropping it removes both.
#[derive(Debug)]
pub struct Netns {
    coordinator: String,
    agent: String,
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
    /// The two hosts, or why there can be none here.
    ///
    /// # Errors
    /// When this machine or this user cannot make namespaces: the text for "skipped: why".
    pub fn new() -> Result<Self, String> {
        if !rustix::process::getuid().is_root() {
            return Err("network namespaces need root".to_owned());
        }
        let id = format!("{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let pair = Self { coordinator: format!("mfc{id}"), agent: format!("mfa{id}") };
        pair.build().map_err(|error| format!("no network namespaces here: {error}"))?;
        Ok(pair)
    }

    fn build(&self) -> Result<()> {
        let (c, a) = (self.coordinator.as_str(), self.agent.as_str());
        ip(&["netns", "add", c])?;
        ip(&["netns", "add", a])?;
        ip(&["link", "add", "cable", "netns", c, "type", "veth", "peer", "name", "cable", "netns", a])?;
        for (name, address) in [(c, COORDINATOR), (a, AGENT)] {
            ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", "cable"])?;
            ip(&["-n", name, "link", "set", "cable", "up"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    /// A command that runs on the coordinator's host.
    #[must_use]
    pub fn on_coordinator(&self, program: &std::path::Path) -> Command {
        inside(&self.coordinator, program)
    }

    /// A command that runs on the agents' host.
    #[must_use]
    pub fn on_agent(&self, program: &std::path::Path) -> Command {
        inside(&self.agent, program)
    }

    /// Cuts the cable: packets vanish, and no end of it notices.
    ///
    /// # Errors
    /// When iptables cannot do it.
    pub fn cut(&self, cut: Cut) -> Result<()> {
        let coordinator = COORDINATOR.to_string();
        self.iptables(&["-I", "INPUT", "-s", &coordinator, "-j", "DROP"])?;
        if cut == Cut::Both {
            self.iptables(&["-I", "OUTPUT", "-d", &coordinator, "-j", "DROP"])?;
        }
        Ok(())
    }

    /// Mends the cable.
    ///
    /// # Errors
    /// When iptables cannot do it.
    pub fn heal(&self) -> Result<()> {
        self.iptables(&["-F"])
    }

    fn iptables(&self, args: &[&str]) -> Result<()> {
        let done = Finished::run(inside(&self.agent, std::path::Path::new("iptables")).args(args));
        ensure!(done.code == 0, "{}: {}", done.line, done.stderr);
        Ok(())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        for name in [&self.coordinator, &self.agent] {
            // What is gone already needs no removing.
            let _gone = ip(&["netns", "del", name]);
        }
    }
}

fn inside(namespace: &str, program: &std::path::Path) -> Command {
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
