//! The processes of one run: who they are, what they use, and how they are ended.
//!
//! The supervisor is a subreaper, so a process whose parent died becomes its child, one that made itself a new session
//! included: members are its descendants. They are found from parent to child, which costs as much as there are of
//! them, or, where the kernel does not list children, among all processes by session and descent.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpid};

use super::stall::Usage;
use crate::rundir::procfs::{self, Stat};
use crate::rundir::{kill_cgroup, remove_cgroup};

/// Pause between two looks while processes die.
const PACE: Duration = Duration::from_millis(10);
/// Walks from the supervisor down before a family that changes meanwhile is looked for among all processes.
const WALKS_MAX: u32 = 3;

/// The process group of a program and what it has spawned.
#[derive(Debug)]
pub(super) struct Group {
    supervisor: u32,
    /// The program's process id and process group id. Not reaped before the group is gone, so the number
    /// stays its own.
    leader: Pid,
    cgroup: Option<PathBuf>,
}

impl Group {
    pub(super) fn new(leader: Pid, cgroup: Option<PathBuf>) -> Group {
        Group { supervisor: std::process::id(), leader, cgroup }
    }

    /// What the living members and the children they have waited for have used.
    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for member in self.members() {
            let (received, disk) = procfs::io_bytes(member.pid).unwrap_or_default();
            usage.received = usage.received.saturating_add(received);
            usage.disk = usage.disk.saturating_add(disk);
            usage.cpu_ticks = usage.cpu_ticks.saturating_add(member.cpu_ticks);
        }
        usage
    }

    /// Asks every member to end.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Kills every member, those that left the process group included.
    pub(super) fn kill(&self) {
        self.kill_at_once();
        self.signal_outside(Signal::KILL, &self.members());
    }

    /// Kills the cgroup, if there is one, and the process group: no look at all processes is needed for these.
    fn kill_at_once(&self) {
        if let Some(cgroup) = &self.cgroup {
            kill_cgroup(cgroup);
        }
        let _ = kill_process_group(self.leader, Signal::KILL);
    }

    /// Kills until no member but the (dead, unreaped) leader is left, for at most `limit`. Returns how many
    /// survive.
    pub(super) fn kill_all(&self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        loop {
            self.kill_at_once();
            // Mostly nobody is left: then this is the only look, which is what costs.
            let left = self.members();
            if left.is_empty() || Instant::now() >= deadline {
                return left.len();
            }
            self.signal_outside(Signal::KILL, &left);
            self.reap_adopted();
            std::thread::sleep(PACE);
        }
    }

    /// Removes the run's cgroup; called when the leader is reaped as well.
    pub(super) fn forget(&self) {
        if let Some(cgroup) = &self.cgroup {
            remove_cgroup(cgroup);
        }
    }

    /// Waits for dead processes that became the supervisor's children, all but the leader.
    pub(super) fn reap_adopted(&self) {
        let leader = self.leader.as_raw_pid().unsigned_abs();
        let children = procfs::children(self.supervisor).unwrap_or_else(|| {
            let all = procfs::all().filter(|stat| stat.ppid == self.supervisor);
            all.map(|stat| stat.pid).collect()
        });
        for child in children.into_iter().filter(|child| *child != leader) {
            if let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) {
                // Nothing else reaps in this single-threaded process; a living one or a refusal changes nothing.
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
    }

    /// The group at once, which no fork can escape, then each member outside of it. A refusal (a set-uid
    /// program of another user) cannot be helped here; what survives is counted at the end.
    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.leader, signal);
        self.signal_outside(signal, &self.members());
    }

    /// Those of the members that left the process group.
    fn signal_outside(&self, signal: Signal, members: &[Stat]) {
        let group = self.leader.as_raw_pid().unsigned_abs();
        for member in members.iter().filter(|member| member.pgrp != group) {
            let _ = procfs::signal(member, signal);
        }
    }

    /// The living members.
    fn members(&self) -> Vec<Stat> {
        (0..WALKS_MAX).find_map(|_| self.walk()).unwrap_or_else(|| self.scan())
    }

    /// The living descendants of the supervisor; none where the kernel does not list children, or where the supervisor
    /// got one meanwhile.
    ///
    /// When it finds nobody there is nobody: each child was dead when it was looked at, what the dead leave become the
    /// supervisor's children before they are dead, and afterwards the supervisor had no others. It alone waits for its
    /// children, so its list is whole. Somebody else's child may be missed, but its parent is not.
    fn walk(&self) -> Option<Vec<Stat>> {
        let children = procfs::children(self.supervisor)?;
        let mut members = HashMap::new();
        let mut next = children.clone();
        while let Some(pid) = next.pop() {
            let Some(stat) = procfs::stat(pid) else { continue };
            if members.insert(pid, stat).is_none() {
                next.extend(procfs::children(pid).unwrap_or_default());
            }
        }
        let unchanged = procfs::children(self.supervisor)? == children;
        unchanged.then(|| members.into_values().filter(Stat::is_alive).collect())
    }

    /// The living members among all processes: the session, and the descendants of the supervisor.
    fn scan(&self) -> Vec<Stat> {
        let mut members = HashMap::new();
        let mut others = Vec::new();
        for stat in procfs::all() {
            if stat.pid == self.supervisor {
                continue;
            }
            if stat.session == self.supervisor {
                members.insert(stat.pid, stat);
            } else {
                others.push((stat.pid, stat.ppid));
            }
        }
        let mut family: HashSet<u32> = members.keys().copied().collect();
        family.insert(self.supervisor);
        loop {
            let (found, rest): (Vec<_>, Vec<_>) =
                others.into_iter().partition(|(_, ppid)| family.contains(ppid));
            if found.is_empty() {
                break;
            }
            for (pid, _) in found {
                family.insert(pid);
                members.extend(procfs::stat(pid).map(|stat| (pid, stat)));
            }
            others = rest;
        }
        members.into_values().filter(Stat::is_alive).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn walking_down_and_looking_at_all_processes_find_the_same_family() {
        #[allow(clippy::disallowed_methods, reason = "a family to be found")]
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "setsid sleep 60 & echo; wait"]).process_group(0).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let leader = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let group = Group::new(leader, None);
        // Other tests of this process may have children as well.
        let family = |members: Vec<Stat>| {
            let ours = |stat: &Stat| stat.pid == child.id() || stat.ppid == child.id();
            members.into_iter().filter(ours).map(|stat| stat.pid).collect::<HashSet<_>>()
        };
        let walked = family((0..1_000).find_map(|_| group.walk()).expect("this kernel lists children"));
        let scanned = family(group.scan());
        for member in &walked {
            procfs::signal(&procfs::stat(*member).unwrap(), Signal::KILL).unwrap();
        }
        child.wait().unwrap();
        assert_eq!(walked.len(), 2, "the shell and its child");
        assert_eq!(walked, scanned);
    }
}
