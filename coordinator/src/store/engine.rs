//! The storage engine: sled behind a trait that etcd could serve as honestly. Knows keys and envelopes, not
//! records; and neither the ladder that opens it nor who may write.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{
    backup::Entry,
    codec,
    error::StoreError,
    files, key,
    unit::{Op, Unit},
};

/// Units that one commit merges.
pub const COMMIT_UNITS_MAX: usize = 512;
/// sled's page cache, in bytes: an estimate of sled's own, it takes some times more.
const CACHE_BYTES: u64 = 16 << 20;
/// How often sled's own thread flushes and collects garbage, in milliseconds. Without it, garbage is never
/// collected.
const FLUSH_EVERY_MS: u64 = 500;
/// How long a handle that was just dropped may go on holding sled's lock.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Pause between two looks at that lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Bytes of the checksum at the end of sled's parameters.
const CHECKSUM_BYTES: usize = 4;
/// Bytes of one segment of sled's file, as [`PARAMETERS`] has it.
const SEGMENT_BYTES: u64 = 512 << 10;
/// Bytes of the header that a segment begins with.
const HEADER_BYTES: usize = 20;
/// Bytes that are written once more at a time.
const RENEW_CHUNK: usize = 1 << 20;
/// Bytes that a renewed file leaves free on the disk.
const RENEW_ROOM_LEFT: u64 = 4 << 20;

/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// What the store wants of an engine, and no more: no snapshots, no secondary indexes, no unbounded scans.
pub(crate) trait Engine {
    /// Makes the units durable in their order, each one all or nothing, and says the revision they got, if the
    /// engine is at revision `fence`. sled merges them into one atomic batch; another engine may commit a
    /// prefix and fail, after which it must be opened again, as after any error.
    fn commit(&self, units: &[Unit], fence: u64) -> Result<u64, StoreError>;

    /// The value under a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// At most `limit` pairs with `from <= key < to`, ascending. Two pages are two moments.
    fn page(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError>;

    /// At most `limit` pairs with `from <= key < to`, descending. Two pages are two moments.
    fn page_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError>;
}

/// sled, and a second handle of its file.
#[derive(Debug)]
pub(crate) struct Sled {
    db: sled::Db,
    disk: File,
}

impl Sled {
    /// Opens or makes the database in this directory.
    ///
    /// # Errors
    /// Whatever sled says; a panic of sled's is an error like any other.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        remove_unfinished_snapshots(dir)
            .map_err(|error| StoreError::io("clearing up before opening the store", error))?;
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS))
            .print_profile_on_drop(false);
        let mut waited = Duration::ZERO;
        let db = loop {
            match guarded("opening the store", || config.open()) {
                // Our own lock is held already, so this is a handle of ours that is on its way out.
                Err(error) if is_lock(&error) && waited < LOCK_WAIT => {
                    thread::sleep(LOCK_PAUSE);
                    waited += LOCK_PAUSE;
                }
                done => break done?,
            }
        };
        let disk = File::open(data_file(dir))
            .map_err(|error| StoreError::io("opening the store's file a second time", error))?;
        Ok(Self { db, disk })
    }

    /// The revision of the newest commit; 0 when nothing was ever committed.
    pub(crate) fn revision(&self) -> Result<u64, StoreError> {
        match self.get(key::REVISION)? {
            Some(value) => Ok(codec::open(key::REVISION, &value)?.revision),
            None => Ok(0),
        }
    }

    /// Puts sealed values as they are (`None`: removes), without making them durable: for a restore.
    pub(crate) fn import(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in entries {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        guarded("restoring", || self.db.apply_batch(batch))
    }

    /// Writes a word, opens the database in this directory anew, and says whether the word is still there.
    pub(crate) fn keeps_what_is_written(self, dir: &Path) -> Result<(Self, bool), StoreError> {
        let word = |engine: &Self| match engine.get(key::PROBE)? {
            Some(value) => codec::open(key::PROBE, &value).map(|probe| probe.revision),
            None => Ok(0),
        };
        let next = word(&self)?.wrapping_add(1);
        self.import(vec![(key::PROBE.to_vec(), Some(codec::seal(key::PROBE, next, &[])))])?;
        self.sync()?;
        drop(self);
        let engine = Self::open(dir)?;
        let kept = word(&engine)? == next;
        engine.import(vec![(key::PROBE.to_vec(), None)])?;
        Ok((engine, kept))
    }

    /// Makes all that was written durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        // sled's flush ends in sync_file_range on Linux, which writes out neither the disk's cache nor the
        // file's length; without the second handle a power cut takes up to half a second of commits.
        guarded("flushing the store", || self.db.flush())?;
        self.disk.sync_data().map_err(|error| StoreError::io("syncing the store to disk", error))
    }

    /// Bytes on disk.
    pub(crate) fn disk_bytes(&self) -> Result<u64, StoreError> {
        guarded("measuring the store", || self.db.size_on_disk())
    }
}

impl Engine for Sled {
    fn commit(&self, units: &[Unit], fence: u64) -> Result<u64, StoreError> {
        if units.len() > COMMIT_UNITS_MAX {
            return Err(StoreError::TooManyUnits { units: units.len(), limit: COMMIT_UNITS_MAX });
        }
        let found = self.revision()?;
        if found != fence {
            return Err(StoreError::Fenced { expected: fence, found });
        }
        let revision = fence + 1;
        let mut batch = sled::Batch::default();
        for op in units.iter().flat_map(Unit::ops) {
            match op {
                Op::Put { key, payload } => {
                    batch.insert(key.as_slice(), codec::seal(key, revision, payload));
                }
                Op::Delete { key } => batch.remove(key.as_slice()),
            }
        }
        batch.insert(key::REVISION, codec::seal(key::REVISION, revision, &[]));
        guarded("committing to the store", || self.db.apply_batch(batch))?;
        self.sync()?;
        Ok(revision)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        guarded("reading the store", || self.db.get(key)).map(|value| value.map(|value| value.to_vec()))
    }

    fn page(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        guarded("reading the store", || {
            let pairs = self.db.range(from..to).take(limit);
            pairs.map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
        })
    }

    fn page_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        guarded("reading the store", || {
            let pairs = self.db.range(from..to).rev().take(limit);
            pairs.map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
        })
    }
}

/// sled writes a snapshot as it opens. One that a full disk or a kill left half written would be taken for the
/// newest one at the next open, and refused as corrupt; sled itself never uses it again.
fn remove_unfinished_snapshots(dir: &Path) -> io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_snapshot(&name) && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What sled 0.34.7 writes as its parameters for how we open it, before a checksum of four bytes. A test holds us to it.
const PARAMETERS: &[u8] = b"segment_size: 524288\nuse_compression: false\nversion: 0.34\n";

/// The file of sled's parameters, if it is there and is not what sled wrote. sled takes a wrong segment size at its
/// word, only warning of the checksum, and then clears what it takes for garbage; without the file it writes it anew.
pub(crate) fn damaged_parameters(dir: &Path) -> io::Result<Option<PathBuf>> {
    let path = parameters_file(dir);
    match fs::read(&path) {
        Ok(found) if found.len() > CHECKSUM_BYTES && found[..found.len() - CHECKSUM_BYTES] == *PARAMETERS => {
            Ok(None)
        }
        Ok(_) => Ok(Some(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the headers of the segments of sled's file look like. sled does not use a segment without a sound one, and says
/// nothing of it. With a snapshot it may open whole all the same, go on writing into that segment, and miss at the next
/// opening what it acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Headers {
    /// Where damaged ones begin, in bytes.
    pub(crate) damaged: Vec<u64>,
    /// Some are zeros: of segments that are not in use, or that lost theirs.
    pub(crate) blank: bool,
}

impl Headers {
    /// Reads all of them. One is a checksum (CRC-32, inverted, little-endian), then what it is of.
    pub(crate) fn read(dir: &Path) -> io::Result<Self> {
        let mut headers = Self { damaged: Vec::new(), blank: false };
        let file = match File::open(data_file(dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(headers),
            opened => opened?,
        };
        let length = file.metadata()?.len();
        let mut at = 0;
        // What a cut left of a header at the end is no segment to sled.
        while at + HEADER_BYTES as u64 <= length {
            let mut header = [0; HEADER_BYTES];
            file.read_exact_at(&mut header, at)?;
            let (checksum, of) = header.split_at(size_of::<u32>());
            if header == [0; HEADER_BYTES] {
                headers.blank = true;
            } else if (!crc32fast::hash(of)).to_le_bytes() != checksum {
                headers.damaged.push(at);
            }
            at += SEGMENT_BYTES;
        }
        Ok(headers)
    }
}

/// Puts the file that holds the data on the disk once more, through `copy` beside the engine's directory. After a failed
/// write the kernel takes what it could not write for written: it can be read, may be on no disk, and later syncs say
/// nothing of it. Not even writing it again in place helps on ext4, where a block that failed once reads as zeros ever
/// after; so it becomes a new file. Without room for one, all of it is written in place.
pub(crate) fn renew(dir: &Path, copy: &Path) -> io::Result<()> {
    let path = data_file(dir);
    let file = File::options().read(true).write(true).open(&path)?;
    // sled's own lock: once we have it, no thread of sled's has the file any more.
    let mut waited = Duration::ZERO;
    while let Err(error) = file.try_lock() {
        match error {
            fs::TryLockError::WouldBlock if waited < LOCK_WAIT => {
                thread::sleep(LOCK_PAUSE);
                waited += LOCK_PAUSE;
            }
            fs::TryLockError::WouldBlock => return Err(io::ErrorKind::WouldBlock.into()),
            fs::TryLockError::Error(error) => return Err(error),
        }
    }
    if files::room(dir)? < file.metadata()?.len().saturating_add(RENEW_ROOM_LEFT) {
        return write_through(&file, &file);
    }
    // They may be in memory alone too, and only shorten the way to open.
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if is_snapshot(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())?;
        }
    }
    write_through(&file, &files::create(copy)?)?;
    fs::rename(copy, &path)?;
    files::sync_dir(dir)
}

/// Writes all of `from` to `to`, from its beginning, and makes it durable.
fn write_through(from: &File, to: &File) -> io::Result<()> {
    let mut chunk = vec![0; RENEW_CHUNK];
    let mut at = 0;
    loop {
        let read = from.read_at(&mut chunk, at)?;
        if read == 0 {
            return to.sync_all();
        }
        to.write_all_at(&chunk[..read], at)?;
        at += read as u64;
    }
}

/// Calls sled: it panics on some damaged files where others are an error.
fn guarded<T>(doing: &'static str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(source)) => Err(StoreError::Engine { doing, source }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(StoreError::Panicked { doing, message: text.to_owned() })
        }
    }
}

/// Whether another handle, of this process or another one, has the database open.
pub(crate) fn is_lock(error: &StoreError) -> bool {
    // sled has no variant for it; the text is the one of sled 0.34.7 and a test holds us to it.
    matches!(error, StoreError::Engine { source: sled::Error::Io(io), .. }
        if io.to_string().starts_with("could not acquire lock"))
}

/// The file that holds the data.
pub(crate) fn data_file(dir: &Path) -> PathBuf {
    dir.join("db")
}

/// The file that holds sled's parameters.
pub(crate) fn parameters_file(dir: &Path) -> PathBuf {
    dir.join("conf")
}

/// sled's snapshots in a directory: they only shorten the way to open, and are rebuilt when absent.
pub(crate) fn is_snapshot(name: &str) -> bool {
    name.starts_with("snap.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_fenced_and_stores_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Sled::open(dir.path()).unwrap();
        let unit = |key: &[u8]| [Unit::removing([key.to_vec()])];
        assert_eq!(engine.commit(&unit(b"a"), 0).unwrap(), 1);
        assert_eq!(engine.commit(&unit(b"b"), 1).unwrap(), 2);
        let refused = engine.commit(&unit(b"c"), 1);
        assert!(matches!(refused, Err(StoreError::Fenced { expected: 1, found: 2 })));
        assert_eq!(engine.revision().unwrap(), 2);
    }

    #[test]
    fn a_panic_of_the_engine_is_an_error() {
        let result: Result<(), _> = guarded("trying", || panic!("tried to serialize {}", "nothing"));
        let error = result.unwrap_err();
        assert!(error.is_damage() && error.to_string().contains("(tried to serialize nothing)"), "{error}");
    }
}
