//! Attempts' logs on the agent: what rsync did and said, as people read it, one file for each attempt below
//! `logs/PROJECT-UID/`. The newest [`TAIL_BYTES`] of a running one are in memory too, for followers and for the report
//! of its end. A log that cannot be written never stops an attempt.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet::id::ProjectUid;

use crate::config::LogLimits;
use crate::key::Key;

/// The end of a log that is sent to the coordinator and kept in memory, bytes.
pub const TAIL_BYTES: usize = 64 << 10;
/// Failed attempts' logs of a project that are kept whatever their age.
const FAILED_KEPT: usize = 5;
/// Successful ones.
const GOOD_KEPT: usize = 1;
/// Names of a log: while the attempt runs, after it succeeded, after it did not.
const ENDINGS: [&str; 3] = [".log", ".good.log", ".failed.log"];
/// Behind the name of a log's older half.
const OLDER: &str = ".1";

/// The logs of one agent.
#[derive(Debug, Clone)]
pub struct Logs {
    dir: PathBuf,
}

/// The log of a running attempt.
#[derive(Debug)]
pub struct AttemptLog {
    path: PathBuf,
    file: Option<File>,
    in_file: u64,
    half: u64,
    recent: VecDeque<u8>,
    total: u64,
}

impl Logs {
    /// The logs of a data directory.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("logs") }
    }

    fn stem(&self, project: ProjectUid, key: Key) -> PathBuf {
        self.dir.join(project.0.to_string()).join(key.slug())
    }

    /// Begins an attempt's log; one of the same attempt under the same epoch is begun anew. Without a disk to write
    /// to it is in memory only.
    #[must_use]
    pub fn begin(&self, project: ProjectUid, key: Key, limits: &LogLimits) -> AttemptLog {
        let path = with_ending(&self.stem(project, key), ENDINGS[0]);
        let file = (|| {
            let dir = path.parent().unwrap_or(&self.dir);
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            File::options().create(true).truncate(true).write(true).mode(0o600).open(&path)
        })();
        if let Err(error) = &file {
            tracing::warn!(path = %path.display(), %error, "no log can be written for this attempt");
        }
        let half = limits.file_bytes / 2;
        AttemptLog { path, file: file.ok(), in_file: 0, half, recent: VecDeque::new(), total: 0 }
    }

    /// The last [`TAIL_BYTES`] of a log that is on disk, from the beginning of a line; empty when there is none.
    #[must_use]
    pub fn tail(&self, project: ProjectUid, key: Key) -> Vec<u8> {
        let stem = self.stem(project, key);
        let found =
            ENDINGS.iter().map(|ending| with_ending(&stem, ending)).find_map(|path| read_end(&path).ok());
        found.map(whole_lines).unwrap_or_default()
    }

    /// Removes what is beyond the limits. Logs of running attempts stay.
    ///
    /// # Errors
    /// The first that the file system reports; the rest was tried.
    pub fn prune(&self, limits: &LogLimits) -> io::Result<()> {
        let mut kept = Vec::new();
        let mut result = Ok(());
        for project in subdirectories(&self.dir)? {
            let mut logs = ended_logs(&project)?;
            // Names begin with a UUIDv7, so their order is time.
            logs.sort_by(|one, other| other.path.cmp(&one.path));
            let (mut good, mut failed) = (0, 0);
            for (place, log) in logs.into_iter().enumerate() {
                let (count, always) =
                    if log.good { (&mut good, GOOD_KEPT) } else { (&mut failed, FAILED_KEPT) };
                *count += 1;
                let recent = place < limits.attempts && log.age <= limits.age;
                if recent || *count <= always { kept.push(log) } else { result = log.remove().and(result) }
            }
        }
        kept.sort_by_key(|log| std::cmp::Reverse(log.age));
        let mut total: u64 = kept.iter().map(|log| log.bytes).sum();
        for log in kept {
            if total <= limits.total_bytes {
                break;
            }
            total -= log.bytes;
            result = log.remove().and(result);
        }
        result
    }
}

impl AttemptLog {
    /// Adds a line; its end is added too.
    pub fn line(&mut self, text: &str) {
        let mut bytes = Vec::with_capacity(text.len() + 1);
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(b'\n');
        self.recent.extend(&bytes);
        let surplus = self.recent.len().saturating_sub(TAIL_BYTES);
        self.recent.drain(..surplus);
        self.total += bytes.len() as u64;
        if self.in_file + bytes.len() as u64 > self.half {
            self.rotate();
        }
        if let Some(file) = &mut self.file {
            match file.write_all(&bytes) {
                Ok(()) => self.in_file += bytes.len() as u64,
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %error, "the log of this attempt ends here");
                    self.file = None;
                }
            }
        }
    }

    /// The newer half begins; the older one before it is given up.
    fn rotate(&mut self) {
        if self.file.is_none() {
            return;
        }
        let renamed = fs::rename(&self.path, with_ending(&self.path, OLDER));
        let options = File::options().create(true).truncate(true).write(true).mode(0o600).clone();
        self.file = renamed.and_then(|()| options.open(&self.path)).ok();
        self.in_file = 0;
    }

    /// Bytes written so far: the position of the next one.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.total
    }

    /// What was written from a position on, whole lines of at most [`TAIL_BYTES`], and the position behind them.
    /// What is no longer in memory is left out.
    #[must_use]
    pub fn since(&self, position: u64) -> (Vec<u8>, u64) {
        let oldest = self.total - self.recent.len() as u64;
        let skip = usize::try_from(position.max(oldest).min(self.total) - oldest).unwrap_or(0);
        let bytes: Vec<u8> = self.recent.iter().skip(skip).copied().collect();
        let cut = position < oldest;
        (if cut { whole_lines(bytes) } else { bytes }, self.total)
    }

    /// Ends the log and names it by its end.
    pub fn finish(&mut self, good: bool) {
        self.file = None;
        let Some(text) = self.path.to_str().and_then(|text| text.strip_suffix(ENDINGS[0])) else { return };
        let ended = with_ending(Path::new(text), ENDINGS[if good { 1 } else { 2 }]);
        // Neither need be there: the disk may have refused the log, and a short one has no older half.
        let _ = fs::rename(with_ending(&self.path, OLDER), with_ending(&ended, OLDER));
        let _ = fs::rename(&self.path, ended);
    }
}

struct EndedLog {
    path: PathBuf,
    good: bool,
    bytes: u64,
    age: Duration,
}

impl EndedLog {
    fn remove(&self) -> io::Result<()> {
        // The older half is mostly not there.
        let _ = fs::remove_file(with_ending(&self.path, OLDER));
        fs::remove_file(&self.path)
    }
}

fn subdirectories(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths.filter(|path| path.as_ref().map_or(true, |path| path.is_dir())).collect()
}

fn ended_logs(dir: &Path) -> io::Result<Vec<EndedLog>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.to_str().unwrap_or_default();
        let good = name.ends_with(ENDINGS[1]);
        if !good && !name.ends_with(ENDINGS[2]) {
            continue;
        }
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let older = fs::metadata(with_ending(&path, OLDER)).map_or(0, |metadata| metadata.len());
        let age = metadata.modified().ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
        logs.push(EndedLog { path, good, bytes: metadata.len() + older, age });
    }
    Ok(logs)
}

/// The end of a log, its older half included where the newer one is short.
fn read_end(path: &Path) -> io::Result<Vec<u8>> {
    let newer = read_last(path, TAIL_BYTES)?;
    let mut bytes = read_last(&with_ending(path, OLDER), TAIL_BYTES - newer.len()).unwrap_or_default();
    bytes.extend(newer);
    Ok(bytes)
}

fn read_last(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(max as u64)))?;
    let mut bytes = Vec::new();
    file.take(max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Without the rest of a line that was cut, where a full buffer shows that there was one.
fn whole_lines(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() >= TAIL_BYTES
        && let Some(end) = bytes.iter().position(|byte| *byte == b'\n')
    {
        bytes.drain(..=end);
    }
    bytes
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(ending);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::key;

    fn limits() -> LogLimits {
        LogLimits { attempts: 3, age: Duration::from_secs(3600), file_bytes: 1 << 20, total_bytes: 1 << 30 }
    }

    const P: ProjectUid = ProjectUid(7);

    #[test]
    fn a_follower_gets_every_line_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Logs::new(dir.path()).begin(P, key(1, 1, 1), &limits());
        log.line("one");
        let (first, position) = log.since(0);
        log.line("two");
        let (second, position) = log.since(position);
        assert_eq!((first.as_slice(), second.as_slice()), (b"one\n".as_slice(), b"two\n".as_slice()));
        assert_eq!(log.since(position).0, b"");
        for n in 0..20_000 {
            log.line(&format!("line {n}"));
        }
        let (late, end) = log.since(position);
        assert!(late.starts_with(b"line ") && late.ends_with(b"line 19999\n") && late.len() <= TAIL_BYTES);
        assert_eq!(end, log.end());
    }

    #[test]
    fn the_tail_survives_the_end_and_a_restart_and_the_file_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path());
        let mut log = logs.begin(P, key(1, 1, 1), &LogLimits { file_bytes: 200_000, ..limits() });
        for n in 0..60_000 {
            log.line(&format!("line {n}"));
        }
        let size = |project: &str| -> u64 {
            fs::read_dir(dir.path().join("logs").join(project))
                .unwrap()
                .map(|entry| entry.unwrap().metadata().unwrap().len())
                .sum()
        };
        assert!((100_000..=200_000).contains(&size("7")), "{}", size("7"));
        log.finish(false);
        let tail = logs.tail(P, key(1, 1, 1));
        assert!(
            tail.len() > TAIL_BYTES - 20 && tail.starts_with(b"line ") && tail.ends_with(b"line 59999\n")
        );
        assert_eq!(logs.tail(P, key(2, 1, 1)), b"");
    }

    #[test]
    fn pruning_keeps_the_newest_the_last_good_and_five_failed() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path());
        for run in 1..=20 {
            let mut log = logs.begin(P, key(run, 1, 1), &limits());
            log.line(&"x".repeat(1_000));
            // The newest good one is run 2, far behind.
            log.finish(run <= 2);
        }
        let mut running = logs.begin(P, key(21, 1, 1), &limits());
        running.line("still going");
        logs.prune(&limits()).unwrap();
        let there = |run| !logs.tail(P, key(run, 1, 1)).is_empty();
        let kept: Vec<u128> = (1..=21).filter(|run| there(*run)).collect();
        assert_eq!(kept, [2, 16, 17, 18, 19, 20, 21]);
        logs.prune(&LogLimits { total_bytes: 2_500, ..limits() }).unwrap();
        assert_eq!((1..=20).filter(|run| there(*run)).count(), 2);
        assert!(there(21), "a running attempt keeps its log");
    }

    #[test]
    fn a_disk_that_refuses_costs_the_file_only() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("logs"), "in the way").unwrap();
        let mut log = Logs::new(dir.path()).begin(P, key(1, 1, 1), &limits());
        log.line("kept in memory");
        assert_eq!(log.since(0).0, b"kept in memory\n");
        log.finish(true);
    }
}
