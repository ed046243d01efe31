//! One short run of rsync that a probe waits for, under the supervisor and in the jail as every program: never a shell,
//! no environment but its own, the password on a pipe, output bounded, time bounded. Its run directory is gone
//! afterwards; what an agent that was killed leaves is ended and removed at its next start.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet::marker::MARKER_BYTES_MAX;
use rsync::exit::ExitCode;
use rsync::{Event, OutputParser, Stats};

use crate::executor::Live;
use crate::guard::tree_file::read_beneath;
use crate::order::PROCESSES_MAX;
use crate::outcome;
use crate::rundir::{
    EndedBy, JailSpec, ProgramExit, ProgramSpec, ProgramStatus, RunDir, RunDirError, Secret,
};

/// Name of the one pass of a probe's run directory.
const PASS: &str = "probe";
/// Time between TERM and KILL: a probe has nothing to save.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// Beyond a run's own limit: to start, to be killed, to be read.
const SLACK: Duration = Duration::from_secs(20);
/// Pause between two looks at a run.
const LOOK_PACE: Duration = Duration::from_millis(20);
/// Standard output kept, bytes: its beginning and its end, where the closing numbers are.
const STDOUT_BYTES_MAX: u64 = 4 << 20;
/// Error output kept, bytes.
const STDERR_BYTES_MAX: u64 = 64 << 10;
/// Output read at one step, bytes.
const STEP_BYTES: usize = 256 << 10;
/// Where a program puts what it copies, below its run directory.
const FETCHED_DIR: &str = "fetched";
/// A program that has copied more than this, bytes, is ended: upstreams lie about sizes.
const FETCHED_BYTES_MAX: u64 = 2 * MARKER_BYTES_MAX;
/// Descriptors of rsync.
const OPEN_FILES_MAX: u64 = 256;

/// What is run.
pub(super) struct Wanted {
    /// The command.
    pub(super) command: rsync::Command,
    /// The upstream's port: nothing else may be connected to.
    pub(super) port: u16,
    /// What may be read besides what every program may; each must exist.
    pub(super) read_paths: Vec<PathBuf>,
    /// Names the run directory, below the agent's own.
    pub(super) slug: String,
    /// The file that it copies into [`fetched_dir`] of that directory.
    pub(super) fetches: Option<String>,
    /// For its standard input.
    pub(super) secret: Option<Secret>,
    /// How long it may take.
    pub(super) time_max: Duration,
}

/// How it went.
pub(super) struct Ran {
    /// How it ended.
    pub(super) end: ExitCode,
    /// The closing numbers.
    pub(super) stats: Stats,
    /// The end of its error output.
    pub(super) stderr: Vec<u8>,
    /// Some of its output is missing.
    pub(super) truncated: bool,
    /// The file that it copied, as far as it is read.
    pub(super) fetched: Option<Vec<u8>>,
}

/// A name for a run directory that no other one has.
pub(super) fn new_slug() -> String {
    format!("probe-{}", uuid::Uuid::new_v4())
}

/// Where a program with that name puts what it copies.
pub(super) fn fetched_dir(live: &Live, slug: &str) -> PathBuf {
    live.config.data_dir.join("runs").join(slug).join(PASS).join(FETCHED_DIR)
}

/// Runs it to its end and hands each line that is neither progress nor a closing number to `line`.
///
/// # Errors
/// Why it could not be run, in words.
pub(super) async fn run(live: &Arc<Live>, wanted: Wanted, line: impl FnMut(&[u8])) -> Result<Ran, String> {
    let live = Arc::clone(live);
    let (time_max, fetches) = (wanted.time_max, wanted.fetches.clone());
    let run = blocking(move || start(&live, wanted)).await?;
    let deadline = Instant::now() + time_max + SLACK;
    let (run, exit) = wait(run, deadline).await?;
    let (stdout, stderr, fetched) = blocking(move || {
        let fetched = fetches.and_then(|name| {
            let dir = File::open(run.path().join(FETCHED_DIR)).ok()?;
            Some(read_beneath(dir, &name, MARKER_BYTES_MAX + 1).ok()?.content)
        });
        let output = (read_all(run.stdout(0)), read_all(run.stderr(0)), fetched);
        if let Err(error) = run.remove() {
            tracing::warn!(
                error = outcome::chain(&error),
                "the run directory of a probe stays until the next start"
            );
        }
        Ok(output)
    })
    .await?;
    Ok(Ran { fetched, ..digest(&exit, &stdout, stderr, line)? })
}

fn start(live: &Live, wanted: Wanted) -> Result<RunDir, String> {
    let told = |error: RunDirError| format!("rsync was not started: {}", outcome::chain(&error));
    let base = live.config.data_dir.join("runs");
    let run = RunDir::create(&base, &wanted.slug, PASS, &spec(live, &wanted)).map_err(told)?;
    if wanted.fetches.is_some() {
        let made = std::fs::create_dir(run.path().join(FETCHED_DIR));
        made.map_err(|error| format!("rsync was not started: {error}"))?;
    }
    // A probe writes to no project, so it holds no project's lock.
    let lock = File::open("/dev/null").map_err(|error| format!("rsync was not started: {error}"))?;
    match run.start_with(&live.program.executable(), wanted.secret.as_ref(), &lock) {
        Ok(()) => Ok(run),
        Err(error) => {
            let text = told(error);
            if let Err(error) = run.remove() {
                tracing::warn!(error = outcome::chain(&error), "the run directory of a probe stays");
            }
            Err(text)
        }
    }
}

fn spec(live: &Live, wanted: &Wanted) -> ProgramSpec {
    let bytes = |text: &OsStr| text.as_bytes().to_vec();
    ProgramSpec {
        argv: wanted.command.argv().iter().map(|word| bytes(word)).collect(),
        env: wanted
            .command
            .env()
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), bytes(value)))
            .collect(),
        cwd: "/".into(),
        stall_timeout: wanted.time_max,
        run_timeout: Some(wanted.time_max),
        term_grace: TERM_GRACE,
        stdout_max: STDOUT_BYTES_MAX,
        stderr_max: STDERR_BYTES_MAX,
        jail: JailSpec {
            read_paths: wanted.read_paths.clone(),
            write_paths: wanted.fetches.iter().map(|_| fetched_dir(live, &wanted.slug)).collect(),
            connect_ports: vec![wanted.port],
            open_files: Some(OPEN_FILES_MAX),
            memory_bytes: Some(live.config.rsync_memory_bytes),
            processes: Some(PROCESSES_MAX),
            off: !live.config.jail,
            ..JailSpec::default()
        },
        lock_path: None,
    }
}

/// Waits for its end; ends it if that does not come.
async fn wait(run: RunDir, deadline: Instant) -> Result<(RunDir, ProgramExit), String> {
    let mut run = run;
    loop {
        let (back, status, too_much) = blocking(move || {
            let status = run.status();
            let too_much = copied(&run) > FETCHED_BYTES_MAX;
            Ok((run, status, too_much))
        })
        .await?;
        run = back;
        let lost = match status {
            Ok(ProgramStatus::Exited(exit)) => return Ok((run, exit)),
            Ok(ProgramStatus::Starting | ProgramStatus::Running { .. }) => false,
            Ok(ProgramStatus::Vanished) => true,
            Err(error) => {
                tracing::warn!(error = outcome::chain(&error), "the run of a probe cannot be looked at");
                false
            }
        };
        if lost || too_much || Instant::now() >= deadline {
            let stopped = blocking(move || {
                let stopped = run.stop("a probe that takes too long");
                Ok(stopped.and_then(|()| if lost || too_much { run.remove() } else { Ok(()) }))
            });
            if let Err(error) = stopped.await? {
                tracing::warn!(error = outcome::chain(&error), "the run of a probe is left as it is");
            }
            if too_much {
                return Err("the upstream sends more than it said".to_owned());
            }
            return Err("rsync did not end as it should; the agent's own messages say more".to_owned());
        }
        tokio::time::sleep(LOOK_PACE).await;
    }
}

/// Bytes of what a program has copied so far.
fn copied(run: &RunDir) -> u64 {
    let entries = std::fs::read_dir(run.path().join(FETCHED_DIR)).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

/// All that was kept of an output; a line that lacks its middle is none.
fn read_all(mut reader: crate::rundir::LogReader) -> (Vec<u8>, bool) {
    let (mut text, mut next, mut gap) = (Vec::new(), 0, false);
    loop {
        match reader.read(STEP_BYTES) {
            Ok(chunk) if chunk.bytes.is_empty() => return (text, gap),
            Ok(chunk) => {
                if chunk.start > next {
                    gap = true;
                    text.push(b'\n');
                }
                next = chunk.start + chunk.bytes.len() as u64;
                text.extend_from_slice(&chunk.bytes);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the output of a probe");
                return (text, true);
            }
        }
    }
}

fn digest(
    exit: &ProgramExit,
    (stdout, gap): &(Vec<u8>, bool),
    (stderr, _): (Vec<u8>, bool),
    mut line: impl FnMut(&[u8]),
) -> Result<Ran, String> {
    let end = match (&exit.ended_by, exit.code, exit.signal) {
        (EndedBy::WallClock, ..) => ExitCode::WallClock,
        (EndedBy::Stalled, ..) => ExitCode::Stalled,
        (EndedBy::SupervisorFault(text), ..) => return Err(text.clone()),
        (EndedBy::Stop(reason), ..) => return Err(format!("it was ended: {reason}")),
        (EndedBy::Itself, Some(code), _) => ExitCode::Code(code),
        (EndedBy::Itself, None, signal) => ExitCode::Signal(signal.unwrap_or(0)),
    };
    let mut parser = OutputParser::new();
    let mut take = |event: Event| {
        if let Event::Other { line: text, cut: false } = event {
            line(&text);
        }
    };
    parser.push(stdout, &mut take);
    if let Some(event) = parser.finish() {
        take(event);
    }
    let truncated = *gap || exit.truncated;
    Ok(Ran { end, stats: *parser.stats(), stderr, truncated, fetched: None })
}

/// Runs what waits for a disk where it holds up nothing else.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(format!("the agent failed while it looked: {error}")))
}
