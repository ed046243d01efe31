//! The supervisor's loop: output, limits, requests, until the program is gone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::stall::StallClock;
use super::stream::{BUFFER_BYTES, Buffer};
use super::{KILL_WAIT, Program};
use crate::rundir::{EndedBy, PROGRESS_BYTES, Progress, RunDir, bounded_text, reserved};

/// How often requests and deadlines are looked at when there is no output.
const TICK: Duration = Duration::from_millis(250);
/// Pause after little output before more is taken: each look costs two wake-ups, and the pipe has room meanwhile.
const OUTPUT_PACE: Duration = Duration::from_millis(50);
/// Output in one look that is not little: a pipe that fills faster is read again at once.
const OUTPUT_MUCH_BYTES: usize = BUFFER_BYTES / 4;
/// The usage is sampled this often within `stall_timeout`, ...
const SAMPLES_PER_STALL: u32 = 20;
/// ... but neither more often ...
const SAMPLE_MIN: Duration = Duration::from_millis(100);
/// ... nor less often than this: progress is shown from it.
const SAMPLE_MAX: Duration = Duration::from_secs(5);

/// The state of watching one program.
pub(super) struct Watch<'a> {
    run: &'a RunDir,
    program: &'a mut Program,
    buffer: Buffer,
    /// Wall-clock limit; none: no limit.
    deadline: Option<Instant>,
    stall: StallClock,
    sample_interval: Duration,
    next_sample: Instant,
    /// The most ever seen: a process that ends unwaited takes its count along.
    received: u64,
    ending: Option<Ending>,
}

/// The program has been asked to end.
struct Ending {
    by: EndedBy,
    kill_at: Instant,
}

impl<'a> Watch<'a> {
    pub(super) fn new(run: &'a RunDir, program: &'a mut Program) -> Watch<'a> {
        let now = Instant::now();
        let spec = run.spec();
        let watch = Watch {
            run,
            program,
            buffer: Buffer::new(),
            deadline: spec.run_timeout.and_then(|limit| now.checked_add(limit)),
            stall: StallClock::new(now),
            sample_interval: (spec.stall_timeout / SAMPLES_PER_STALL).clamp(SAMPLE_MIN, SAMPLE_MAX),
            next_sample: now,
            received: 0,
            ending: None,
        };
        watch.write_progress(Duration::ZERO);
        watch
    }

    /// Returns when the program has ended, by whomever, or cannot be ended.
    pub(super) fn until_end(mut self) -> EndedBy {
        let pidfd = match pidfd_open(self.program.leader, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            // The caller kills the group: a program that cannot be watched must not run.
            Err(error) => return EndedBy::SupervisorFault(bounded_text(&format!("cannot watch: {error}"))),
        };
        let mut next_tick = Instant::now();
        loop {
            let mut taken = 0;
            for stream in &mut self.program.streams {
                taken = stream.drain(&mut self.buffer).max(taken);
            }
            let now = Instant::now();
            if now >= next_tick {
                next_tick = now + TICK;
                if self.tick(now) == Verdict::GiveUp {
                    return self.ending.map_or(EndedBy::Itself, |ending| ending.by);
                }
            }
            let until_tick = next_tick.saturating_duration_since(now);
            let (for_output, timeout) = match taken {
                0 => (true, until_tick),
                1..OUTPUT_MUCH_BYTES => (false, until_tick.min(OUTPUT_PACE)),
                _ => (true, Duration::ZERO),
            };
            match self.wait(&pidfd, for_output, timeout) {
                Ok(false) => {}
                Ok(true) => return self.ending.map_or(EndedBy::Itself, |ending| ending.by),
                Err(error) => {
                    return EndedBy::SupervisorFault(bounded_text(&format!("cannot watch: {error}")));
                }
            }
        }
    }

    /// Waits for the program's end, the timeout, or output if that is asked for. Whether the program has ended.
    fn wait(&self, pidfd: &OwnedFd, for_output: bool, timeout: Duration) -> io::Result<bool> {
        let mut fds = vec![PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        let pipes = self.program.streams.iter().filter(|_| for_output).filter_map(|stream| stream.fd());
        fds.extend(pipes.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => Ok(false),
            polled => polled.map(|_| !fds[0].revents().is_empty()).map_err(io::Error::from),
        }
    }

    fn tick(&mut self, now: Instant) -> Verdict {
        if let Some(ending) = &self.ending {
            if now >= ending.kill_at + KILL_WAIT {
                return Verdict::GiveUp;
            }
            if now >= ending.kill_at {
                // Again at each tick: it may be forking.
                self.program.group.kill();
            }
            return Verdict::GoOn;
        }
        let idle = self.sample(now);
        let reason = if let Some(reason) = self.run.stop_reason() {
            Some(EndedBy::Stop(reason))
        } else if self.deadline.is_some_and(|deadline| now >= deadline) {
            Some(EndedBy::WallClock)
        } else if idle.is_some_and(|idle| idle >= self.run.spec().stall_timeout) {
            Some(EndedBy::Stalled)
        } else {
            None
        };
        if let Some(by) = reason {
            self.program.group.terminate();
            self.ending = Some(Ending { by, kill_at: now + self.run.spec().term_grace });
        }
        Verdict::GoOn
    }

    /// Samples the group when it is time; returns for how long there has been no sign of life.
    fn sample(&mut self, now: Instant) -> Option<Duration> {
        if now < self.next_sample {
            return None;
        }
        self.next_sample = now + self.sample_interval;
        self.program.group.reap_adopted();
        let usage = self.program.group.usage();
        self.received = self.received.max(usage.received);
        let idle = self.stall.observe(usage, now);
        self.write_progress(idle);
        Some(idle)
    }

    /// Best effort: the next sample writes it again, and no decision depends on it.
    fn write_progress(&self, idle: Duration) {
        let progress = Progress {
            pid: self.program.leader.as_raw_pid().unsigned_abs(),
            received: self.received,
            idle_ms: u64::try_from(idle.as_millis()).unwrap_or(u64::MAX),
        };
        if let Ok(json) = serde_json::to_vec(&progress) {
            let _ = reserved::overwrite(&self.program.progress, PROGRESS_BYTES, &json);
        }
    }
}

/// What a tick decides.
#[derive(PartialEq, Eq)]
enum Verdict {
    GoOn,
    /// KILL did not end it: it hangs in the kernel.
    GiveUp,
}
