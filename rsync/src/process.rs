//! Starting rsync: the only place of this crate that does. Blocking, without a runtime, for a supervisor of one
//! thread. Does NOT read rsync's output, watch for stalls or end runs: the agent's supervisor does.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::argv::Command;
use crate::uri::Password;
use crate::version::{VERSION_TEXT_BYTES_MAX, Version};

/// Longest wait for `rsync --version`; it takes 3 ms.
pub const PROBE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Why the program's version could not be learned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The path is relative: it would be searched for.
    #[error("the path of the rsync program must be absolute")]
    NotAbsolute,
    /// It could not be started or read.
    #[error("cannot run the rsync program to learn its version")]
    Io(#[from] io::Error),
    /// It did not end in [`PROBE_WAIT_MAX`].
    #[error("the rsync program did not answer --version in {} s", PROBE_WAIT_MAX.as_secs())]
    TimedOut,
    /// It is another program.
    #[error(transparent)]
    NotRsync(#[from] crate::version::NotRsync),
}

/// Asks a program for its version, in an empty environment.
///
/// # Errors
/// When it cannot be started, does not answer in time, or is not rsync.
pub fn probe_version(program: &Path) -> Result<Version, ProbeError> {
    if !program.is_absolute() {
        return Err(ProbeError::NotAbsolute);
    }
    let mut command = base(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.envs([("LC_ALL", "C"), ("HOME", "/nonexistent")]);
    let mut child = command.spawn()?;
    let text = read_to_end(&mut child, Instant::now() + PROBE_WAIT_MAX);
    // It has closed its output, or is to be given up: either way it must not stay. Both calls can only fail if it
    // is gone already.
    let _ = child.kill();
    let _ = child.wait();
    Ok(Version::parse(&text?)?)
}

fn read_to_end(child: &mut Child, deadline: Instant) -> Result<Vec<u8>, ProbeError> {
    let mut output =
        child.stdout.take().ok_or_else(|| io::Error::other("the program's output is no pipe"))?;
    let mut text = vec![0; VERSION_TEXT_BYTES_MAX];
    let mut used = 0;
    while used < text.len() {
        if !ready(&output, deadline)? {
            return Err(ProbeError::TimedOut);
        }
        match output.read(&mut text[used..])? {
            0 => break,
            read => used += read,
        }
    }
    text.truncate(used);
    Ok(text)
}

/// Waits until a descriptor can be read (or has ended), at most until the deadline.
fn ready(fd: &impl std::os::fd::AsFd, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))
            .map_err(io::Error::other)?;
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Starts rsync as the leader of its own process group, with nothing but the environment of `command`, and with
/// standard input at its end: empty, or the password and nothing more.
///
/// The password takes the way over standard input (`--password-file=-`; rsync 3.2.7 and 3.5.0 read it there), as
/// that is the one descriptor that a child gets without another one leaking. It is one line of less than
/// `PIPE_BUF` bytes, so writing it never waits for rsync.
///
/// # Errors
/// When the program cannot be started, and [`io::ErrorKind::InvalidInput`] when the command reads a password and
/// none is given, or the other way round.
pub fn spawn(
    command: &Command,
    stdout: Stdio,
    stderr: Stdio,
    password: Option<&Password>,
) -> io::Result<Child> {
    if command.reads_password() != password.is_some() {
        let text = "the command and the password given with it do not belong together";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut process = base(command.program());
    process.args(command.args().iter().map(|arg| &arg.text));
    process.envs(command.env().iter().map(|(name, value)| (name, value)));
    process.stdout(stdout).stderr(stderr).process_group(0);
    process.stdin(if password.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = process.spawn()?;
    if let (Some(password), Some(mut pipe)) = (password, child.stdin.take()) {
        let line = [password.expose(), b"\n"].concat();
        // rsync may have ended already: how it ended says more than the broken pipe.
        let _ = pipe.write_all(&line);
    }
    Ok(child)
}

/// Waits for the end of a child, at most `wait`; `None` if it still runs then.
///
/// # Errors
/// When the child cannot be waited for.
pub fn wait_at_most(child: &mut Child, wait: Duration) -> io::Result<Option<std::process::ExitStatus>> {
    // A child that was waited for has no process any more; its number may be another's.
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    let pid = Pid::from_child(child);
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    if ready(&handle.as_fd(), Instant::now() + wait)? { child.wait().map(Some) } else { Ok(None) }
}

fn base(program: &Path) -> std::process::Command {
    #[expect(clippy::disallowed_methods, reason = "this module is where rsync is started")]
    let mut command = std::process::Command::new(program);
    command.env_clear();
    command
}
