//! The few facts read from `/proc`: who a process is, who its relatives are, what it has read and used. A
//! process that is gone or hidden is simply not there. Also the way to signal exactly the process that was
//! seen.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Ticks per second of the CPU times in `/proc/PID/stat`: the kernel's `USER_HZ`, 100 on every architecture
/// Rust's Linux targets with std support run on.
pub(crate) const USER_HZ: u64 = 100;

/// The fields of `/proc/PID/stat` that matter here (numbers as in proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Process id (1).
    pub(crate) pid: u32,
    /// State letter (3).
    pub(crate) state: u8,
    /// Parent (4).
    pub(crate) ppid: u32,
    /// Process group (5).
    pub(crate) pgrp: u32,
    /// Session (6).
    pub(crate) session: u32,
    /// CPU ticks of the process and the children it has waited for (14 to 17), in 1/[`USER_HZ`] s.
    pub(crate) cpu_ticks: u64,
    /// Start time in ticks since boot (22): with the pid it names a process uniquely within one boot.
    pub(crate) start_ticks: u64,
}

impl Stat {
    /// Still executes code: neither a zombie nor dead.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// The process `pid`, none when there is none or nothing can be told of it.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    look(pid).ok().flatten()
}

/// The process `pid`, none when there is none.
///
/// # Errors
/// It could not be looked at, as when no descriptor is left: that is not its end.
pub(crate) fn look(pid: u32) -> io::Result<Option<Stat>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(line) => Ok(parse_stat(&line)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gone, in the middle of the read too, or another user's where the host hides those.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// All visible processes, one after the other; those that cannot be looked at are left out.
pub(crate) fn all() -> impl Iterator<Item = Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| stat(entry.file_name().to_str()?.parse().ok()?))
}

/// All visible processes, for who concludes something from an absence.
///
/// # Errors
/// One could not be looked at.
pub(crate) fn all_for_sure() -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.extend(look(pid)?);
        }
    }
    Ok(found)
}

/// The children of the process `pid`, those of all its threads, dead ones that it has not waited for included; none
/// where there is no such process or the kernel does not tell (`CONFIG_PROC_CHILDREN`). A child may be left out whose
/// elder sibling is waited for meanwhile (proc_tid_children(5)).
pub(crate) fn children(pid: u32) -> Option<Vec<u32>> {
    let mut children = None;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // One that has ended meanwhile has left its children to another.
        let Ok(line) = fs::read_to_string(thread.path().join("children")) else { continue };
        let pids = line.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
        children.get_or_insert_with(Vec::new).extend(pids);
    }
    children
}

/// A descriptor of the process `pid` that began at `start_ticks`, and never of another that got its number since:
/// it is taken first, then the start time is compared. None when it is gone.
pub(crate) fn pidfd(pid: u32, start_ticks: u64) -> io::Result<Option<OwnedFd>> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let pidfd = match pidfd_open(number, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        opened => opened?,
    };
    Ok(look(pid)?.is_some_and(|now| now.start_ticks == start_ticks).then_some(pidfd))
}

/// Sends `signal` to the process that was seen as `seen`, and never to another that got its number since. A process
/// that is gone is no error.
pub(crate) fn signal(seen: &Stat, signal: Signal) -> io::Result<()> {
    let Some(pidfd) = pidfd(seen.pid, seen.start_ticks)? else { return Ok(()) };
    match pidfd_send_signal(pidfd, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        sent => Ok(sent?),
    }
}

/// The identity of this boot; process ids mean nothing across boots.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

/// `rchar` (bytes returned by read calls, sockets included) and block I/O bytes in both directions of one
/// process and the children it has waited for, from `/proc/PID/io`; none where the kernel does not account
/// them.
pub(crate) fn io_bytes(pid: u32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    Some((field("rchar:")?, field("read_bytes:")?.saturating_add(field("write_bytes:")?)))
}

/// `wchar` (bytes given to write calls, sockets included) of one process, from `/proc/PID/io`; none where the kernel
/// does not account them.
pub(crate) fn written_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("wchar:"))?.trim().parse().ok()
}

/// The name in field 2 may hold anything, blanks and parentheses included: fields count from the last `)`.
fn parse_stat(line: &[u8]) -> Option<Stat> {
    let name_end = line.iter().rposition(|&byte| byte == b')')?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let pid = std::str::from_utf8(&line[..digits]).ok()?.parse().ok()?;
    let rest = std::str::from_utf8(&line[name_end + 1..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |field: usize| -> Option<u64> { fields.get(field - 3)?.parse().ok() };
    let id = |field: usize| -> Option<u32> { u32::try_from(number(field)?).ok() };
    Some(Stat {
        pid,
        state: *fields.first()?.as_bytes().first()?,
        ppid: id(4)?,
        pgrp: id(5)?,
        session: id(6)?,
        cpu_ticks: [14, 15, 16, 17].iter().try_fold(0_u64, |sum, &field| sum.checked_add(number(field)?))?,
        start_ticks: number(22)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_blanks_and_parentheses_do_not_shift_the_fields() {
        let line = b"4242 (a) S 1 (\xff) R 17 18 19 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 987654 0 0\n";
        let stat = parse_stat(line).unwrap();
        assert_eq!(
            stat,
            Stat {
                pid: 4242,
                state: b'R',
                ppid: 17,
                pgrp: 18,
                session: 19,
                cpu_ticks: 100,
                start_ticks: 987_654
            }
        );
        assert!(parse_stat(b"").is_none());
        assert!(parse_stat(b"1 (x").is_none());
        assert!(parse_stat(b"1 (x) R 1 2").is_none());
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_absent() {
        use rustix::io::Errno;
        for gone in [Errno::NOENT, Errno::SRCH, Errno::PERM, Errno::ACCESS] {
            assert!(is_absence(&gone.into()), "{gone}");
        }
        for unknown in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::IO] {
            assert!(!is_absence(&unknown.into()), "{unknown}");
        }
        assert_eq!(look(u32::MAX).unwrap(), None);
        assert!(all_for_sure().unwrap().iter().any(|stat| stat.pid == std::process::id()));
    }

    #[test]
    fn this_process_is_found_alive() {
        let own = stat(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(all().any(|stat| stat.pid == own.pid && stat.start_ticks == own.start_ticks));
        assert!(!boot_id().unwrap().is_empty());
    }
}
