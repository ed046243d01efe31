//! What a dead supervisor leaves behind: finding it and ending it.
//!
//! A supervisor leads a session of its own, and everything it starts stays in that session (or in its cgroup)
//! unless it asks to leave. The kernel gives a process id to nobody while a session of that number has
//! members, so "same boot, same session, not older than the supervisor" names exactly its processes.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use serde::{Deserialize, Serialize};

use super::procfs::{self, Stat};

/// Longest wait between TERM and KILL for orphans: nobody reads their output any more.
const ORPHAN_GRACE_MAX: Duration = Duration::from_secs(2);
/// Longest wait after KILL; a process in an uninterruptible disk wait may need longer than that.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// Pause between two looks.
const PACE: Duration = Duration::from_millis(10);

/// The content of `supervisor.json`: who supervises, in terms that survive the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SupervisorRecord {
    /// Process and session id.
    pub(crate) pid: u32,
    /// Start time, field 22 of `/proc/PID/stat`.
    pub(crate) start_ticks: u64,
    /// The boot both belong to.
    pub(crate) boot_id: String,
    /// The run's own cgroup v2, where one could be made.
    pub(crate) cgroup: Option<PathBuf>,
    /// Why there is none.
    pub(crate) no_cgroup: Option<String>,
}

impl SupervisorRecord {
    /// Whether it was written since the host was booted: else nothing of it runs any more.
    pub(crate) fn is_of_this_boot(&self) -> io::Result<bool> {
        Ok(self.boot_id == procfs::boot_id()?)
    }

    /// What becomes readable when the supervisor is gone, reaped or not; none when there is none (any more).
    pub(crate) fn end(&self) -> io::Result<Option<OwnedFd>> {
        if !self.is_of_this_boot()? {
            return Ok(None);
        }
        procfs::pidfd(self.pid, self.start_ticks)
    }

    /// Whether the supervisor still runs. A dead child of this process is reaped on the way.
    pub(crate) fn is_alive(&self) -> io::Result<bool> {
        if !self.is_of_this_boot()? {
            return Ok(false);
        }
        let Some(stat) = procfs::look(self.pid)?.filter(|stat| stat.start_ticks == self.start_ticks) else {
            return Ok(false);
        };
        if !stat.is_alive() && stat.ppid == std::process::id() {
            let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
            // Refused when another thread was quicker.
            let _ = waitpid(pid, WaitOptions::NOHANG);
        }
        Ok(stat.is_alive())
    }

    /// Continues a supervisor that somebody stopped (SIGSTOP): it has to read a request.
    pub(crate) fn wake(&self) -> io::Result<()> {
        let own = procfs::stat(self.pid).filter(|stat| stat.start_ticks == self.start_ticks);
        own.map_or(Ok(()), |stat| procfs::signal(&stat, Signal::CONT))
    }

    /// The living processes of its session, the supervisor itself left out.
    pub(crate) fn orphans(&self) -> io::Result<Vec<Stat>> {
        if !self.is_of_this_boot()? {
            return Ok(Vec::new());
        }
        let ours = |stat: &Stat| {
            stat.session == self.pid
                && stat.pid != self.pid
                && stat.start_ticks >= self.start_ticks
                && stat.is_alive()
        };
        Ok(procfs::all_for_sure()?.into_iter().filter(ours).collect())
    }

    /// Ends what is left: TERM, then KILL after `grace` (at most [`ORPHAN_GRACE_MAX`]). Returns what still
    /// lives.
    pub(crate) fn end_orphans(&self, grace: Duration) -> io::Result<Vec<Stat>> {
        for orphan in self.orphans()? {
            procfs::signal(&orphan, Signal::TERM)?;
        }
        let left = self.wait_for_none(grace.min(ORPHAN_GRACE_MAX))?;
        for orphan in &left {
            procfs::signal(orphan, Signal::KILL)?;
        }
        let same_boot = self.is_of_this_boot()?;
        if let Some(cgroup) = self.cgroup.as_deref().filter(|_| same_boot) {
            kill_cgroup(cgroup);
        }
        let left = self.wait_for_none(KILL_WAIT)?;
        if let Some(cgroup) = self.cgroup.as_deref().filter(|_| same_boot) {
            remove_cgroup(cgroup);
        }
        Ok(left)
    }

    fn wait_for_none(&self, limit: Duration) -> io::Result<Vec<Stat>> {
        let deadline = Instant::now() + limit;
        loop {
            let left = self.orphans()?;
            if left.is_empty() || Instant::now() >= deadline {
                return Ok(left);
            }
            std::thread::sleep(PACE);
        }
    }
}

/// Kills every member of a cgroup, those of other sessions included. An absent cgroup has none; a kernel
/// before 5.14 has no such file, and then the session and the process group are what is ended.
pub(crate) fn kill_cgroup(cgroup: &Path) {
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
}

/// Removes an empty cgroup; one that still has members stays, harmless, until they are gone.
pub(crate) fn remove_cgroup(cgroup: &Path) {
    let _ = fs::remove_dir(cgroup);
}
