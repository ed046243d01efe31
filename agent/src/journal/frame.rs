//! The journal's file: a preallocated row of framed records. Knows lengths and checksums, not what a record
//! means.
//!
//! ```text
//! "mirrorj1" | length u32 | crc32c u32 | payload | length | crc32c | payload | 0 0 0 …
//! ```
//! Numbers are little-endian; the checksum covers length and payload, so that a cut record is never taken for a
//! whole one. A length of 0 ends the row.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FallocateFlags, RenameFlags};

/// Size of the file, bytes. All of it is allocated when the file is made, so that a full disk silences nobody.
pub(super) const FILE_BYTES: u64 = 4 << 20;
/// The first bytes: what it is, and the version of the format.
const MAGIC: &[u8; 8] = b"mirrorj1";
/// Length and checksum in front of each payload, bytes.
pub(super) const FRAME_BYTES: u64 = 8;
/// Largest payload, bytes.
pub(super) const PAYLOAD_BYTES_MAX: usize = 128 << 10;

/// Bytes that could not be read at the end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TornTail {
    /// Where the readable part ends, bytes from the start.
    pub at: u64,
    /// How many bytes behind it are not empty.
    pub bytes: u64,
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) payloads: Vec<Vec<u8>>,
    pub(super) torn: Option<TornTail>,
    /// Where the next record goes.
    pub(super) end: u64,
}

/// An open file and the place of the next record.
#[derive(Debug)]
pub(super) struct Frames {
    file: File,
    end: u64,
}

impl Frames {
    /// Opens a file that is there; `None` when there is none, or it is empty, as after a crash while it was made.
    pub(super) fn open(path: &Path) -> io::Result<Option<(Self, Contents)>> {
        let file = match File::options().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len().min(FILE_BYTES);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let contents = parse(&bytes).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "it does not begin as a journal does")
        })?;
        let end = contents.end;
        Ok(Some((Self { file, end }, contents)))
    }

    /// Makes `path` hold exactly these payloads, in one step: they are written to `spare` (already allocated, so
    /// this works on a full disk too), synced, and the two files change names.
    pub(super) fn replace(path: &Path, spare: &Path, payloads: &[Vec<u8>]) -> io::Result<Self> {
        let mut bytes = MAGIC.to_vec();
        for payload in payloads {
            bytes.extend_from_slice(&frame(payload));
        }
        let end = bytes.len() as u64;
        bytes.resize(usize::try_from(FILE_BYTES).map_err(io::Error::other)?, 0);
        let file = File::options().create(true).truncate(false).read(true).write(true).open(spare)?;
        allocate(&file)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        exchange(spare, path)?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        // The old file is the next spare. Without one, as on the first day, one is made now, while there is room.
        if !spare.exists() {
            allocate(&File::options().create_new(true).write(true).open(spare)?)?;
        }
        Ok(Self { file, end })
    }

    /// Whether a record with this payload fits behind the last one.
    pub(super) fn fits(&self, payload: &[u8]) -> bool {
        // The end of the row needs room as well: a length of 0.
        self.end + FRAME_BYTES + payload.len() as u64 + FRAME_BYTES <= FILE_BYTES
    }

    /// Appends a record that [`fits`](Self::fits); on disk when this returns, if `sync`.
    pub(super) fn append(&mut self, payload: &[u8], sync: bool) -> io::Result<()> {
        let bytes = frame(payload);
        self.file.write_all_at(&bytes, self.end)?;
        if sync {
            self.file.sync_data()?;
        }
        self.end += bytes.len() as u64;
        Ok(())
    }
}

fn allocate(file: &File) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, FILE_BYTES) {
        Ok(()) => Ok(()),
        // Some file systems cannot; written zeros are allocated too (if it does not compress them away).
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let length = file.metadata()?.len();
            let missing = usize::try_from(FILE_BYTES.saturating_sub(length)).map_err(io::Error::other)?;
            file.write_all_at(&vec![0; missing], length)
        }
        Err(error) => Err(error.into()),
    }
}

/// Exchanges two names, or renames when there is no second file or the file system cannot exchange.
fn exchange(from: &Path, to: &Path) -> io::Result<()> {
    let there = rustix::fs::statat(CWD, to, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    if there && rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE).is_ok() {
        return Ok(());
    }
    std::fs::rename(from, to)
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("payloads are at most PAYLOAD_BYTES_MAX").to_le_bytes();
    let mut bytes = Vec::with_capacity(payload.len() + 8);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&checksum(length, payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), payload)
}

/// Reads every record up to the first that is not whole. `None`: it is no journal.
fn parse(bytes: &[u8]) -> Option<Contents> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut payloads = Vec::new();
    while let Some((payload, after)) = parse_one(rest) {
        payloads.push(payload.to_vec());
        rest = after;
    }
    let end = (bytes.len() - rest.len()) as u64;
    let used = rest.iter().rposition(|byte| *byte != 0).map(|at| at as u64 + 1);
    let torn = used.map(|bytes| TornTail { at: end, bytes });
    Some(Contents { payloads, torn, end })
}

fn parse_one(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (stored, rest) = rest.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if size == 0 || size > PAYLOAD_BYTES_MAX {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(size)?;
    (checksum(*length, payload) == u32::from_le_bytes(*stored)).then_some((payload, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        payloads.iter().for_each(|payload| bytes.extend(frame(payload)));
        bytes
    }

    /// How many records end at or before this byte.
    fn whole(payloads: &[Vec<u8>], at: usize) -> usize {
        let mut end = MAGIC.len();
        payloads
            .iter()
            .take_while(|payload| {
                end += payload.len() + 8;
                end <= at
            })
            .count()
    }

    proptest! {
        #[test]
        fn a_cut_loses_only_the_records_it_touches(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 1..8),
            cut in any::<prop::sample::Index>(),
            zeros in 0usize..40,
        ) {
            let mut bytes = file(&payloads);
            let at = MAGIC.len() + cut.index(bytes.len() - MAGIC.len() + 1);
            bytes.truncate(at);
            bytes.resize(at + zeros, 0);
            let read = parse(&bytes).unwrap();
            let kept = whole(&payloads, at);
            prop_assert!(read.payloads.len() >= kept);
            // Zeros behind the cut may happen to be the very bytes that were cut off.
            prop_assert_eq!(&payloads[..read.payloads.len()], &read.payloads[..]);
        }

        #[test]
        fn a_flipped_bit_loses_no_record_before_it(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 1..8),
            place in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let mut bytes = file(&payloads);
            let at = MAGIC.len() + place.index(bytes.len() - MAGIC.len());
            bytes[at] ^= 1 << bit;
            let read = parse(&bytes).unwrap();
            let kept = whole(&payloads, at);
            prop_assert_eq!(&payloads[..kept], &read.payloads[..]);
            prop_assert!(read.torn.is_some());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let mut led = MAGIC.to_vec();
            led.extend(&bytes);
            prop_assert!(parse(&led).is_some());
        }
    }
}
