//! One output pipe of the program, read without ever waiting for it and without ever making it wait.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::rundir::LogWriter;

/// Bytes read at once: a pipe's usual capacity.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;
/// Reads in a row before the supervisor looks after its other duties: endless output must not starve them.
const READS_PER_TURN: usize = 16;

/// A pipe and the log it goes to.
#[derive(Debug)]
pub(super) struct Stream {
    /// None once the program's side is closed.
    pipe: Option<File>,
    log: LogWriter,
}

impl Stream {
    pub(super) fn new(pipe: OwnedFd, log: LogWriter) -> io::Result<Stream> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Stream { pipe: Some(File::from(pipe)), log })
    }

    /// What to poll for, none once closed.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there, a bounded amount. How many bytes.
    pub(super) fn drain(&mut self, buffer: &mut Buffer) -> usize {
        let mut taken = 0;
        for _ in 0..READS_PER_TURN {
            let Some(pipe) = &mut self.pipe else { return taken };
            match pipe.read(&mut buffer.0) {
                Ok(0) => self.pipe = None,
                Ok(length) => {
                    self.log.append(&buffer.0[..length]);
                    taken += length;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return taken,
                // A pipe has no other error; if it had one, reading it again would not help.
                Err(_) => self.pipe = None,
            }
        }
        taken
    }

    /// Takes what is left to the end of file. Only a process that survived KILL can hold the pipe open and
    /// make this take as long as `limit`.
    pub(super) fn drain_rest(&mut self, limit: Duration) {
        let mut buffer = Buffer::new();
        let deadline = Instant::now() + limit;
        while self.pipe.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            if self.drain(&mut buffer) == 0 {
                self.wait(left);
            }
        }
    }

    fn wait(&self, limit: Duration) {
        if let (Some(pipe), Ok(limit)) = (&self.pipe, Timespec::try_from(limit)) {
            // A failed wait is a short one; the caller has the deadline.
            let _ = poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&limit));
        }
    }

    pub(super) fn into_log(self) -> LogWriter {
        self.log
    }
}

/// The one read buffer of the supervisor.
#[derive(Debug)]
pub(super) struct Buffer(Box<[u8]>);

impl Buffer {
    pub(super) fn new() -> Buffer {
        Buffer(vec![0; BUFFER_BYTES].into_boxed_slice())
    }
}
