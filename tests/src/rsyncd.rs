//! A real rsync daemon as an upstream.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Finished, Process, eventually, netns::Netns};

/// The port of every test's daemon, on an address of its own.
pub const PORT: u16 = 8730;

/// A daemon that serves directories as modules.
#[derive(Debug)]
pub struct Rsyncd {
    process: Process,
    address: Ipv4Addr,
    dir: PathBuf,
    config: String,
}

impl Rsyncd {
    /// Starts a daemon in `dir` with one read-only module `mod` that serves `tree`.
    ///
    /// # Errors
    /// When it cannot be started.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub fn start(hosts: Option<&Netns>, dir: &Path, address: Ipv4Addr, tree: &Path) -> io::Result<Self> {
        Self::start_with(hosts, dir, address, &format!("[mod]\npath = {}\nread only = yes\n", tree.display()))
    }

    /// Starts a daemon with these modules, in the words of rsyncd.conf(5).
    ///
    /// # Errors
    /// When it cannot be started.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub fn start_with(
        hosts: Option<&Netns>,
        dir: &Path,
        address: Ipv4Addr,
        modules: &str,
    ) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        // Outside chroot and without names: the tests' trees belong to whoever runs them.
        let config = format!(
            "port = {PORT}\naddress = {address}\nuse chroot = no\nreverse lookup = no\nuid = root\ngid = root\n\
             pid file = {}\nlog file = {}\n{modules}",
            dir.join("pid").display(),
            dir.join("log").display()
        );
        let config = if rustix::process::getuid().is_root() {
            config
        } else {
            config.replace("uid = root\ngid = root\n", "")
        };
        let process = Self::spawn(hosts, dir, &config)?;
        let daemon = Self { process, address, dir: dir.to_owned(), config };
        daemon.await_port(hosts);
        Ok(daemon)
    }

    fn spawn(hosts: Option<&Netns>, dir: &Path, config: &str) -> io::Result<Process> {
        let file = dir.join("rsyncd.conf");
        fs::write(&file, config)?;
        drop(fs::remove_file(dir.join("pid")));
        let mut command = on_upstream(hosts, "rsync");
        command.arg("--daemon").arg("--no-detach").arg(format!("--config={}", file.display()));
        Process::start("rsyncd", &mut command, &dir.join("output"))
    }

    fn await_port(&self, hosts: Option<&Netns>) {
        let modules = format!("rsync://{}:{PORT}/", self.address);
        eventually("the rsync daemon answers", || {
            let listed = Finished::run(on_upstream(hosts, "rsync").args(["--contimeout=5", &modules]));
            (listed.code == 0).then_some(())
        });
    }

    /// Where its module `mod` is.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("rsync://{}:{PORT}/mod/", self.address)
    }

    /// The daemon's own process. Each transfer has a child of it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The processes that serve transfers now.
    #[must_use]
    pub fn children(&self) -> Vec<u32> {
        let tasks = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = fs::read_to_string(tasks).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Ends it; nothing answers any more.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again as it was.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self) -> io::Result<()> {
        self.process = Self::spawn(None, &self.dir, &self.config)?;
        self.await_port(None);
        Ok(())
    }
}

fn on_upstream(hosts: Option<&Netns>, program: &str) -> Command {
    hosts.map_or_else(|| Command::new(program), |hosts| hosts.on_upstream(Path::new(program)))
}
