//! Reads what a run of rsync writes, while it runs and after it: progress, the attempt's log, the closing numbers
//! and the end of the error output. The same for a run this agent began and for one it found. Blocking, by short steps.

use std::io;
use std::time::Instant;

use rsync::progress::Change;
use rsync::{Event, Item, OutputParser};

use super::findings::Findings;
use crate::logs::AttemptLog;
use crate::rundir::{LogChunk, LogReader, ProgramStatus, RunDir, RunDirError};

/// Output taken at one step, bytes.
const STEP_BYTES: usize = 256 << 10;
/// End of the error output that is kept to find out what happened, bytes.
const STDERR_KEPT_BYTES: usize = rsync::exit::STDERR_BYTES_MAX;
/// Longest line of the log, characters.
const LINE_CHARS_MAX: usize = 4_096;

/// A run and how far it was read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) run: RunDir,
    pub(super) parser: OutputParser,
    pub(super) stderr_end: Vec<u8>,
    pub(super) since: Instant,
    pub(super) findings: Findings,
    stdout: LogReader,
    stderr: LogReader,
    stdout_next: u64,
    stderr_line: Vec<u8>,
}

impl Reading {
    /// From the beginning of a run's output.
    pub(super) fn new(run: RunDir, findings: Findings) -> Self {
        let (stdout, stderr) = (run.stdout(0), run.stderr(0));
        Self {
            run,
            parser: OutputParser::new(),
            stderr_end: Vec::new(),
            since: Instant::now(),
            findings,
            stdout,
            stderr,
            stdout_next: 0,
            stderr_line: Vec::new(),
        }
    }

    /// Takes what is new, and how the program is doing. The status is asked first: after an end everything that was
    /// written is taken.
    pub(super) fn step(&mut self, log: &mut AttemptLog) -> Result<ProgramStatus, RunDirError> {
        let status = self.run.status()?;
        let over = matches!(status, ProgramStatus::Exited(_) | ProgramStatus::Vanished);
        while self.take_output(log) && over {}
        if over {
            self.finish(log);
        }
        Ok(status)
    }

    /// False when there is nothing new.
    fn take_output(&mut self, log: &mut AttemptLog) -> bool {
        let stdout = told(self.stdout.read(STEP_BYTES));
        let stderr = told(self.stderr.read(STEP_BYTES));
        let more = [&stdout, &stderr].iter().any(|chunk| chunk.as_ref().is_some_and(|c| !c.bytes.is_empty()));
        if let Some(chunk) = stdout {
            self.take_stdout(&chunk, log);
        }
        if let Some(chunk) = stderr {
            self.take_stderr(&chunk.bytes, log);
        }
        more
    }

    fn take_stdout(&mut self, chunk: &LogChunk, log: &mut AttemptLog) {
        let mut bytes = chunk.bytes.as_slice();
        if chunk.start > self.stdout_next {
            // What lies between is gone, and with it the end of one line and the beginning of another.
            self.parser.push(b"\n", |event| note(event, &mut self.findings, log));
            log.line("[some of the output was not kept]");
            let next_line = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            bytes = &bytes[next_line..];
        }
        self.stdout_next = chunk.start + chunk.bytes.len() as u64;
        self.parser.push(bytes, |event| note(event, &mut self.findings, log));
    }

    fn take_stderr(&mut self, bytes: &[u8], log: &mut AttemptLog) {
        self.stderr_end.extend_from_slice(bytes);
        let surplus = self.stderr_end.len().saturating_sub(STDERR_KEPT_BYTES);
        self.stderr_end.drain(..surplus);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = rsync::progress::LINE_BYTES_MAX.saturating_sub(self.stderr_line.len());
            self.stderr_line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.end_stderr_line(log);
            }
        }
    }

    fn end_stderr_line(&mut self, log: &mut AttemptLog) {
        let line = std::mem::take(&mut self.stderr_line);
        let line = line.trim_ascii();
        if !line.is_empty() {
            log.line(&rsync::text::printable(line, LINE_CHARS_MAX));
        }
    }

    fn finish(&mut self, log: &mut AttemptLog) {
        if let Some(event) = self.parser.finish() {
            note(event, &mut self.findings, log);
        }
        self.end_stderr_line(log);
    }
}

/// A file that cannot be read costs lines of the log, not the attempt.
fn told(chunk: io::Result<LogChunk>) -> Option<LogChunk> {
    chunk.map_err(|error| tracing::warn!(%error, "cannot read the output of rsync")).ok()
}

/// Writes what happened, without the noise of progress: that is shown elsewhere.
fn note(event: Event, findings: &mut Findings, log: &mut AttemptLog) {
    if findings.take(&event) {
        return;
    }
    match event {
        Event::Progress(_) | Event::Stats => {}
        Event::Item(item) => log.line(&item_line(&item)),
        Event::Other { line, cut } => {
            let mut text = rsync::text::printable(line.trim_ascii_end(), LINE_CHARS_MAX);
            if cut {
                text.push('…');
            }
            log.line(&text);
        }
    }
}

fn item_line(item: &Item) -> String {
    let what = match item.change {
        Change::Received => "received",
        Change::Sent => "sent",
        Change::Created => "created",
        Change::HardLinked => "linked",
        Change::Attributes => "attributes",
        Change::Deleted => "deleted",
    };
    let name = rsync::text::printable(&item.name, LINE_CHARS_MAX);
    match item.change {
        Change::Received | Change::Sent => format!("{what:<10} {:>12} {name}", item.size),
        Change::Created | Change::HardLinked | Change::Attributes | Change::Deleted => {
            format!("{what:<10} {:>12} {name}", "-")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::config::LogLimits;
    use crate::key::tests::key;
    use crate::logs::Logs;
    use crate::rundir::{JailSpec, OUTPUT_MIN_BYTES, ProgramSpec};

    fn run_in(dir: &Path) -> RunDir {
        let spec = ProgramSpec {
            argv: vec![b"/bin/true".to_vec()],
            env: Vec::new(),
            cwd: "/".into(),
            stall_timeout: Duration::from_secs(1),
            run_timeout: None,
            term_grace: Duration::ZERO,
            stdout_max: OUTPUT_MIN_BYTES,
            stderr_max: OUTPUT_MIN_BYTES,
            jail: JailSpec::default(),
            lock_path: None,
        };
        RunDir::create(dir, "attempt", "pull-1", &spec).unwrap()
    }

    fn log_in(dir: &Path) -> AttemptLog {
        let day = Duration::from_secs(86_400);
        let limits = LogLimits { attempts: 1, age: day, file_bytes: 1 << 20, total_bytes: 1 << 20 };
        Logs::new(dir).begin(fleet::id::ProjectUid(7), key(1, 1, 1), &limits)
    }

    fn text(log: &AttemptLog) -> String {
        String::from_utf8(log.since(0).0).unwrap()
    }

    #[test]
    fn the_log_is_for_people_and_progress_is_no_line_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let run = run_in(dir.path());
        let stdout = b"          5000  12%    4.77MB/s    0:00:00 (xfr#1, to-chk=7/9)\r>>f+++++++++|5000|5000|pool/a.deb\n\
                       >*deleting|0|0|old\n>cd+++++++++|0|0|pool/\nsome message\n";
        std::fs::write(run.path().join("stdout.log"), stdout).unwrap();
        std::fs::write(run.path().join("stderr.log"), b"rsync: \x1b[31mred\nhalf a li").unwrap();
        let mut log = log_in(dir.path());
        let mut reading = Reading::new(run, Findings::default());
        assert_eq!(reading.step(&mut log).unwrap(), ProgramStatus::Starting);
        let shown = text(&log);
        let wanted = "received           5000 pool/a.deb\n\
                      deleted               - old\n\
                      created               - pool/\n\
                      some message\n\
                      rsync: \\x1b[31mred\n";
        assert_eq!(shown, wanted);
        assert_eq!(reading.parser.progress().files_done, 2);
        assert!(reading.stderr_end.ends_with(b"half a li"));
        reading.finish(&mut log);
        assert!(text(&log).ends_with("half a li\n"));
    }

    #[test]
    fn a_gap_in_the_output_is_told_and_joins_no_lines() {
        let dir = tempfile::tempdir().unwrap();
        let run = run_in(dir.path());
        let head = usize::try_from(OUTPUT_MIN_BYTES / 2).unwrap();
        let mut first = b"x\n".repeat(head / 2 - 4);
        first.extend_from_slice(b"cut-off1");
        std::fs::write(run.path().join("stdout.log"), &first).unwrap();
        std::fs::write(run.path().join("stdout.log.3"), b"rest of a line\nwhole\n").unwrap();
        let mut log = log_in(dir.path());
        let mut reading = Reading::new(run, Findings::default());
        while reading.take_output(&mut log) {}
        let shown = text(&log);
        assert!(shown.ends_with("x\ncut-off1\n[some of the output was not kept]\nwhole\n"), "{shown}");
    }
}
