//! rsync's own log, read for one fact that nothing else tells: which user a process serves. The agent makes the file
//! and keeps it small; rsync appends. It outlives the agent, and so does what it says of running transfers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Size from which the log is put aside, bytes; one older log is kept.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// Most bytes read at once; the rest is read the next time.
const READ_BYTES_MAX: u64 = 1 << 20;

/// The log, and up to where it was read.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    offset: u64,
}

impl Log {
    /// From the beginning of the present log on.
    pub(super) fn open(path: PathBuf) -> Self {
        Self { path, offset: 0 }
    }

    /// What was logged since the last time: the user of each process that began to transfer, none where a new
    /// process got an old one's number.
    ///
    /// # Errors
    /// The file cannot be read, or not be replaced when it has grown too long.
    pub(super) fn users(&mut self) -> io::Result<BTreeMap<u32, Option<String>>> {
        let mut users = BTreeMap::new();
        loop {
            let mut file = File::open(&self.path)?;
            if file.metadata()?.len() < self.offset {
                // Somebody cut it.
                self.offset = 0;
            }
            file.seek(SeekFrom::Start(self.offset))?;
            let mut text = Vec::new();
            file.take(READ_BYTES_MAX).read_to_end(&mut text)?;
            let full = text.len() as u64 == READ_BYTES_MAX;
            // A line without an end yet is read the next time, unless it is too long for any line.
            let end = text.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
            let end = end.unwrap_or(if full { text.len() } else { 0 });
            users.extend(text[..end].split(|byte| *byte == b'\n').filter_map(read_line));
            self.offset += end as u64;
            if !full {
                break;
            }
        }
        if self.offset > LOG_BYTES_MAX {
            self.put_aside()?;
        }
        Ok(users)
    }

    /// Exchanges the log with an empty file in one step: a daemon that starts now must find one.
    fn put_aside(&mut self) -> io::Result<()> {
        let older = self.path.with_extension("log.1");
        File::create(&older)?;
        renameat_with(CWD, &self.path, CWD, &older, RenameFlags::EXCHANGE)?;
        self.offset = 0;
        Ok(())
    }
}

/// `2026/11/22 00:34:05 [5118] rsync on 7/ from edge1@UNDETERMINED (127.0.0.1)`, from `clientserver.c`. The request
/// is the client's own text, so the user is looked for from the end; `connect from` is a process's first line.
fn read_line(line: &[u8]) -> Option<(u32, Option<String>)> {
    let line = std::str::from_utf8(line).ok()?;
    let (_, rest) = line.split_once(" [")?;
    let (pid, text) = rest.split_once("] ")?;
    let pid = pid.parse().ok()?;
    if text.starts_with("connect from ") {
        return Some((pid, None));
    }
    let (_, who) = text.strip_prefix("rsync on ")?.rsplit_once(" from ")?;
    let (user, _) = who.split_once('@')?;
    Some((pid, Some(user.to_owned())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_user_cannot_be_forged_by_a_request() {
        let line =
            b"2026/11/22 00:34:05 [5118] rsync on 7/x from root@h (1.2.3.4) from edge1@UNDETERMINED (::1)";
        assert_eq!(read_line(line), Some((5118, Some("edge1".to_owned()))));
        assert_eq!(
            read_line(b"2026/11/22 00:34:05 [5118] connect from UNDETERMINED (::1)"),
            Some((5118, None))
        );
        for other in
            ["", "x", "2026/11/22 00:34:05 [5118] building file list", "2026/11/22 00:34:05 [a] rsync on 7/"]
        {
            assert_eq!(read_line(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn lines_are_read_once_and_whole_and_the_log_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rsyncd.log");
        let mut file = File::create(&path).unwrap();
        let mut log = Log::open(path.clone());
        file.write_all(b"d t [1] rsync on 7/ from a@h (x)\nd t [2] rsync on 7/ fr").unwrap();
        assert_eq!(log.users().unwrap(), BTreeMap::from([(1, Some("a".to_owned()))]));
        file.write_all(b"om b@h (x)\nd t [1] connect from h (x)\n").unwrap();
        assert_eq!(log.users().unwrap(), BTreeMap::from([(1, None), (2, Some("b".to_owned()))]));
        assert!(log.users().unwrap().is_empty());
        file.write_all(&vec![b'\n'; usize::try_from(LOG_BYTES_MAX).unwrap()]).unwrap();
        log.users().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        assert!(fs::metadata(path.with_extension("log.1")).unwrap().len() > LOG_BYTES_MAX);
    }
}
