//! A program's output on disk, bounded: its beginning and its newest part.
//!
//! `stdout.log` holds the first half of the cap. What follows goes to segments of a quarter of the cap each,
//! `stdout.log.0`, `stdout.log.1`, ..., of which the two newest are kept; so the files never exceed the cap.
//! Positions count stored bytes from the start of the run and never change, deleted segments included. Lines
//! are the reader's matter.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::reserved;

/// Segments kept beside the head.
const SEGMENTS_KEPT: u64 = 2;

/// Where each position lies.
#[derive(Clone, Debug)]
struct Layout {
    head: PathBuf,
    head_bytes: u64,
    segment_bytes: u64,
}

impl Layout {
    fn new(head: &Path, max: u64) -> Layout {
        Layout { head: head.to_owned(), head_bytes: max / 2, segment_bytes: (max / 4).max(1) }
    }

    fn segment(&self, number: u64) -> PathBuf {
        let mut path = self.head.as_os_str().to_owned();
        path.push(format!(".{number}"));
        PathBuf::from(path)
    }

    /// The segment that holds `position`, none for the head.
    fn segment_of(&self, position: u64) -> Option<u64> {
        position.checked_sub(self.head_bytes).map(|beyond| beyond / self.segment_bytes)
    }

    fn start_of(&self, segment: u64) -> u64 {
        self.head_bytes + segment * self.segment_bytes
    }

    /// The lowest segment on disk above `segment`.
    fn next_on_disk(&self, segment: u64) -> Option<u64> {
        let prefix = format!("{}.", self.head.file_name()?.to_str()?);
        let entries = fs::read_dir(self.head.parent()?).ok()?.flatten();
        let numbers = entries
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(&prefix)?.parse::<u64>().ok());
        numbers.filter(|&number| number > segment).min()
    }
}

/// The writing side; only the supervisor has one.
#[derive(Debug)]
pub(crate) struct LogWriter {
    layout: Layout,
    file: File,
    current: Option<u64>,
    stored: u64,
    produced: u64,
}

impl LogWriter {
    /// A new log; refuses one that is there.
    pub(crate) fn create(head: &Path, max: u64) -> io::Result<LogWriter> {
        let file = reserved::create(head)?;
        Ok(LogWriter { layout: Layout::new(head, max), file, current: None, stored: 0, produced: 0 })
    }

    /// Bytes the program has written.
    pub(crate) fn produced(&self) -> u64 {
        self.produced
    }

    /// Whether some of them are not on disk.
    pub(crate) fn truncated(&self) -> bool {
        let first_kept = self.current.unwrap_or(0).saturating_sub(SEGMENTS_KEPT - 1);
        self.produced > self.stored || first_kept > 0
    }

    /// Stores what fits. What the disk does not take is counted and dropped: the program must never wait for
    /// it.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.produced += bytes.len() as u64;
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.store(rest) {
                Ok(0) | Err(_) => return,
                Ok(written) => rest = &rest[written..],
            }
        }
    }

    fn store(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let segment = self.layout.segment_of(self.stored);
        if segment != self.current {
            self.open_segment(segment)?;
        }
        let end = self.layout.start_of(segment.map_or(0, |number| number + 1));
        let room = usize::try_from(end - self.stored).unwrap_or(usize::MAX);
        let written = self.file.write(&bytes[..bytes.len().min(room)])?;
        self.stored += written as u64;
        Ok(written)
    }

    /// The oldest segment goes first: its room may be what the new one needs.
    fn open_segment(&mut self, segment: Option<u64>) -> io::Result<()> {
        let Some(number) = segment else { return Ok(()) };
        if let Some(oldest) = number.checked_sub(SEGMENTS_KEPT) {
            match fs::remove_file(self.layout.segment(oldest)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = reserved::create(&self.layout.segment(number))?;
        self.current = segment;
        Ok(())
    }
}

/// Some output with the position it starts at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChunk {
    /// Position of the first byte. Above the reader's position when what lay between is no longer on disk.
    pub start: u64,
    /// The bytes; empty when there is nothing new.
    pub bytes: Vec<u8>,
}

/// Reads a program's output while it grows and after its end, from any position on.
#[derive(Clone, Debug)]
pub struct LogReader {
    layout: Layout,
    position: u64,
}

impl LogReader {
    pub(super) fn new(head: &Path, max: u64, position: u64) -> LogReader {
        LogReader { layout: Layout::new(head, max), position }
    }

    /// The position of the next byte to be read; keep it to go on in another process.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes, at most `max`; empty when there is nothing new. Skips what is no longer on disk. A
    /// call may return less than there is: read until it is empty.
    ///
    /// # Errors
    /// Reading the files failed for another reason than their absence.
    pub fn read(&mut self, max: usize) -> io::Result<LogChunk> {
        loop {
            let segment = self.layout.segment_of(self.position);
            let (path, start) = match segment {
                None => (self.layout.head.clone(), 0),
                Some(number) => (self.layout.segment(number), self.layout.start_of(number)),
            };
            match File::open(&path) {
                Ok(file) => return self.read_from(file, start, max),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            match segment.and_then(|number| self.layout.next_on_disk(number)) {
                Some(next) => self.position = self.layout.start_of(next),
                None => return Ok(LogChunk { start: self.position, bytes: Vec::new() }),
            }
        }
    }

    fn read_from(&mut self, mut file: File, start: u64, max: usize) -> io::Result<LogChunk> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.position - start))?;
        file.take(max as u64).read_to_end(&mut bytes)?;
        let chunk = LogChunk { start: self.position, bytes };
        self.position += chunk.bytes.len() as u64;
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 64;

    fn read_all(reader: &mut LogReader) -> Vec<(u64, Vec<u8>)> {
        let mut chunks = Vec::new();
        loop {
            let chunk = reader.read(10).unwrap();
            if chunk.bytes.is_empty() {
                return chunks;
            }
            chunks.push((chunk.start, chunk.bytes));
        }
    }

    #[test]
    fn short_output_is_whole_and_can_be_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout.log");
        let mut writer = LogWriter::create(&path, MAX).unwrap();
        let mut reader = LogReader::new(&path, MAX, 0);
        assert!(reader.read(10).unwrap().bytes.is_empty());
        writer.append(b"one ");
        assert_eq!(reader.read(10).unwrap(), LogChunk { start: 0, bytes: b"one ".to_vec() });
        writer.append(&[b'x'; 40]);
        let text: Vec<u8> = read_all(&mut reader).into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert_eq!(text, [b'x'; 40]);
        assert_eq!(reader.position(), 44);
        assert!(!writer.truncated());
    }

    #[test]
    fn long_output_keeps_head_and_tail_within_the_cap() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout.log");
        let mut writer = LogWriter::create(&path, MAX).unwrap();
        let output: Vec<u8> = (0..1000).map(|n: u32| b'a' + u8::try_from(n % 26).unwrap()).collect();
        for part in output.chunks(7) {
            writer.append(part);
            let on_disk: u64 =
                fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
            assert!(on_disk <= MAX, "{on_disk} bytes on disk");
        }
        assert_eq!(writer.produced(), 1000);
        assert!(writer.truncated());
        let chunks = read_all(&mut LogReader::new(&path, MAX, 0));
        let mut position = 0;
        let mut gaps = 0;
        for (start, bytes) in &chunks {
            gaps += u32::from(*start != position);
            let from = usize::try_from(*start).unwrap();
            assert_eq!(bytes[..], output[from..from + bytes.len()]);
            position = start + bytes.len() as u64;
        }
        assert_eq!((gaps, position), (1, 1000), "one gap, and the newest bytes are there");
    }

    #[test]
    fn a_disk_that_refuses_does_not_stop_the_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout.log");
        let mut writer = LogWriter::create(&path, MAX).unwrap();
        fs::create_dir(dir.path().join("stdout.log.0")).unwrap();
        writer.append(&[b'x'; 40]);
        writer.append(&[b'y'; 40]);
        assert_eq!(writer.produced(), 80);
        assert!(writer.truncated());
        assert_eq!(fs::metadata(&path).unwrap().len(), MAX / 2);
    }
}
