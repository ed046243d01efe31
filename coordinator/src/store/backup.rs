//! Backups while the store runs, and their check.
//!
//! A backup is one file: the magic, then entries, then a footer. A later entry for a key replaces an earlier
//! one. All numbers are big-endian.
//!
//! ```text
//! "mirror-backup 1\n"
//! 1 [key length u16][value length u32][key][value]     store this (the value in its envelope)
//! 2 [key length u16][key]                              remove it
//! 255 [entries u64][revision u64][SHA-256 of all before it]
//! ```
//!
//! **Complete to its revision.** sled's iterators are no snapshots: a record that moves from the live to the
//! past table while they are being scanned may be in neither. So while a backup runs, each commit notes the
//! *keys* it wrote (not the values: memory stays small, and the committer never waits for the backup's disk).
//! After the scan the noted keys are read again, in rounds, while new commits note new ones; the last round is
//! small and happens with the writer held. A key that nobody wrote has in the scan the value it still has; a key
//! that somebody wrote is read again after its last write. Together that is the state at the revision that the
//! writer stood at in the last round, whatever was committed before it.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use super::{Store, codec, engine::Pair, error::StoreError, files, key, open::SCAN_PAGE, open::with_causes};

/// Keys that may be written while one backup runs, between two of its rounds; more end it with an error.
pub const TOUCHED_KEYS_MAX: usize = 131_072;
/// Bytes that a backup leaves free on the store's own disk.
const ROOM_LEFT: u64 = 8 << 20;
/// Keys that are read with the writer held.
const LAST_ROUND_KEYS: usize = 256;
/// Rounds before the last one is taken however many keys it has.
const ROUNDS_MAX: u32 = 32;

const MAGIC: &[u8] = b"mirror-backup 1\n";
const PUT: u8 = 1;
const DELETE: u8 = 2;
const FOOTER: u8 = 255;
const FOOTER_BYTES: u64 = 1 + 8 + 8 + 32;

/// A key, and its value if it has one.
pub(crate) type Entry = (Vec<u8>, Option<Vec<u8>>);

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// Entries; a record that changed while the backup ran has several.
    pub entries: u64,
    /// The revision that it is complete to.
    pub revision: u64,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 over all but itself, hex.
    pub sha256: String,
}

impl Store {
    /// Writes a backup, complete to the revision that the report names, while commits go on; verifies it by
    /// reading it; and only then gives it its name, durably. Blocks as long as that takes. One at a time.
    ///
    /// # Errors
    /// When the store cannot be read, the file cannot be written or does not verify, another backup runs, the
    /// store is opened again meanwhile, or more than [`TOUCHED_KEYS_MAX`] keys change at once.
    pub fn backup_to(&self, path: &Path) -> Result<BackupReport, StoreError> {
        let io = |error| StoreError::io("writing the backup", error);
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io(io::ErrorKind::InvalidInput.into()));
        };
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        files::make_dir(dir).map_err(io)?;
        self.check_room(dir)?;
        let partial = Partial(dir.join(format!(".{}.partial", name.to_string_lossy())));
        let noting = self.note_touched()?;
        let mut out = Writer::create(&partial.0).map_err(io)?;
        self.scan(&mut out)?;
        let revision = self.catch_up(&mut out)?;
        drop(noting);
        out.finish(revision).map_err(io)?;
        let report = verify_backup(&partial.0)?;
        fs::rename(&partial.0, path).map_err(io)?;
        files::sync_dir(dir).map_err(io)?;
        Ok(report)
    }

    /// A backup must not be what fills the store's own disk. It is never larger than the store's file.
    fn check_room(&self, dir: &Path) -> Result<(), StoreError> {
        let io = |error| StoreError::io("looking for room for the backup", error);
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).map_err(io);
        if device(dir)? != device(&self.0.layout.dir)? {
            return Ok(());
        }
        let need = self.disk_bytes()?.saturating_add(ROOM_LEFT);
        let room = files::room(dir).map_err(io)?;
        if room < need { Err(StoreError::NoRoom { need, room }) } else { Ok(()) }
    }

    fn note_touched(&self) -> Result<Noting<'_>, StoreError> {
        let mut writer = self.writer();
        writer.check()?;
        if writer.touched.is_some() {
            return Err(StoreError::NoBackup("another backup is running"));
        }
        writer.touched = Some(HashSet::new());
        Ok(Noting(self))
    }

    /// Writes all there is, at no one moment.
    fn scan(&self, out: &mut Writer) -> Result<(), StoreError> {
        let mut from = key::FIRST.to_vec();
        loop {
            let page = self.page(&from, key::LAST, SCAN_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from = key::after(last);
            for (key, value) in &page {
                out.entry(key, Some(value)).map_err(|error| StoreError::io("writing the backup", error))?;
            }
        }
    }

    /// Writes what changed meanwhile, until nothing is left, and says the revision of that moment.
    fn catch_up(&self, out: &mut Writer) -> Result<u64, StoreError> {
        for round in 0.. {
            let mut writer = self.writer();
            let touched = writer.touched.take();
            let touched = touched.ok_or(StoreError::NoBackup("the store was opened again meanwhile"))?;
            if touched.len() > TOUCHED_KEYS_MAX {
                return Err(StoreError::NoBackup("the store changed faster than it could be copied"));
            }
            let last = touched.len() <= LAST_ROUND_KEYS || round == ROUNDS_MAX;
            let held = if last {
                Some(writer)
            } else {
                writer.touched = Some(HashSet::new());
                drop(writer);
                None
            };
            let entries = self.read_again(&touched, held.is_some())?;
            let revision = held.map(|writer| writer.revision);
            for (key, value) in entries {
                let value = value.as_deref();
                out.entry(&key, value).map_err(|error| StoreError::io("writing the backup", error))?;
            }
            if let Some(revision) = revision {
                return Ok(revision);
            }
        }
        unreachable!("the round ROUNDS_MAX returns")
    }

    /// The present values of these keys, and of the revision in the last round.
    fn read_again(&self, touched: &HashSet<Vec<u8>>, last: bool) -> Result<Vec<Entry>, StoreError> {
        let keys = touched.iter().map(Vec::as_slice).chain(last.then_some(key::REVISION));
        keys.map(|key| Ok((key.to_vec(), self.get(key)?))).collect()
    }
}

/// Notes the keys of commits as long as it lives.
struct Noting<'a>(&'a Store);

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        self.0.writer().touched = None;
    }
}

/// A file that has no right to stay under this name.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already when it was renamed.
        drop(fs::remove_file(&self.0));
    }
}

/// A backup that is being written.
struct Writer {
    file: BufWriter<File>,
    digest: Context,
    entries: u64,
}

impl Writer {
    fn create(path: &Path) -> io::Result<Self> {
        let mut writer =
            Self { file: BufWriter::new(files::create(path)?), digest: Context::new(&SHA256), entries: 0 };
        writer.put(MAGIC)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.file.write_all(bytes)
    }

    fn entry(&mut self, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let length = u16::try_from(key.len()).map_err(io::Error::other)?.to_be_bytes();
        self.entries += 1;
        match value {
            Some(value) => {
                self.put(&[PUT])?;
                self.put(&length)?;
                self.put(&u32::try_from(value.len()).map_err(io::Error::other)?.to_be_bytes())?;
                self.put(key)?;
                self.put(value)
            }
            None => {
                self.put(&[DELETE])?;
                self.put(&length)?;
                self.put(key)
            }
        }
    }

    fn finish(mut self, revision: u64) -> io::Result<()> {
        self.put(&[FOOTER])?;
        self.put(&self.entries.to_be_bytes())?;
        self.put(&revision.to_be_bytes())?;
        self.file.write_all(self.digest.clone().finish().as_ref())?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

/// Reads a whole backup and checks all of it: the hash, the footer, and each value's own checksum.
///
/// # Errors
/// When it cannot be read, is damaged or cut short, or is of a newer coordinator.
pub fn verify_backup(path: &Path) -> Result<BackupReport, StoreError> {
    read(path, |_, _| Ok(()))
}

/// Reads a backup, checks all of it, and calls `each` with every entry (`None`: removed) before the end is
/// known to be good: what it does must be thrown away after an error.
pub(crate) fn read(
    path: &Path,
    mut each: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), StoreError>,
) -> Result<BackupReport, StoreError> {
    let bad = |why: &str| StoreError::BadBackup { path: path.to_owned(), why: why.to_owned() };
    let mut reader = Reader::open(path)?;
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(bad("it is no backup of a mirror coordinator"));
    }
    let mut stored_revision = 0;
    let mut entries = 0;
    loop {
        match reader.take(1)?[..] {
            [PUT] => {
                let (key, value) = reader.pair()?;
                let opened = codec::open(&key, &value).map_err(|error| bad(&with_causes(&error)))?;
                if key == key::REVISION {
                    stored_revision = opened.revision;
                }
                each(&key, Some(&value))?;
            }
            [DELETE] => {
                let length = usize::from(u16::from_be_bytes(reader.array()?));
                each(&reader.key(length)?, None)?;
            }
            [FOOTER] => break,
            _ => return Err(bad("an entry is damaged")),
        }
        entries += 1;
    }
    let (counted, revision) = (u64::from_be_bytes(reader.array()?), u64::from_be_bytes(reader.array()?));
    let hash = reader.digest.clone().finish();
    if reader.array::<SHA256_OUTPUT_LEN>()? != hash.as_ref() {
        return Err(bad("its hash does not fit"));
    }
    if counted != entries || revision != stored_revision {
        return Err(bad("its footer does not fit what is in it"));
    }
    if !reader.at_end()? {
        return Err(bad("something follows its end"));
    }
    Ok(BackupReport { entries, revision, bytes: reader.bytes, sha256: hex::encode(hash) })
}

/// A backup that is being read.
struct Reader<'a> {
    path: &'a Path,
    file: BufReader<File>,
    digest: Context,
    bytes: u64,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(|error| StoreError::io("opening the backup", error))?;
        Ok(Self { path, file: BufReader::new(file), digest: Context::new(&SHA256), bytes: 0 })
    }

    fn bad(&self, why: &str) -> StoreError {
        StoreError::BadBackup { path: self.path.to_owned(), why: why.to_owned() }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; length];
        self.file.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.bad("it is cut short"),
            _ => StoreError::io("reading the backup", error),
        })?;
        self.digest.update(&bytes);
        self.bytes += length as u64;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| self.bad("it is cut short"))
    }

    fn key(&mut self, length: usize) -> Result<Vec<u8>, StoreError> {
        if length > key::KEY_BYTES_MAX {
            return Err(self.bad("a key is longer than the store takes"));
        }
        self.take(length)
    }

    fn pair(&mut self) -> Result<Pair, StoreError> {
        let key_length = usize::from(u16::from_be_bytes(self.array()?));
        let value_length = u32::from_be_bytes(self.array()?) as usize;
        let key = self.key(key_length)?;
        if value_length > codec::VALUE_BYTES_MAX {
            return Err(self.bad("a value is larger than the store takes"));
        }
        Ok((key, self.take(value_length)?))
    }

    fn at_end(&mut self) -> Result<bool, StoreError> {
        let mut one = [0];
        let read = self.file.read(&mut one).map_err(|error| StoreError::io("reading the backup", error))?;
        Ok(read == 0)
    }
}

/// The files in a directory that may be backups.
pub(crate) fn candidates(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|end| end == files::BACKUP_EXTENSION)).collect()
}

/// The good backup with the highest revision. Bad ones on the way are told.
pub(crate) fn newest_good(dir: &Path, told: &mut Vec<String>) -> Option<(PathBuf, BackupReport)> {
    let mut candidates: Vec<_> =
        candidates(dir).into_iter().map(|path| (claimed_revision(&path).unwrap_or(0), path)).collect();
    candidates.sort();
    while let Some((_, path)) = candidates.pop() {
        match verify_backup(&path) {
            Ok(report) => return Some((path, report)),
            Err(error) => told.push(with_causes(&error)),
        }
    }
    None
}

/// The revision in the footer, unchecked: only for trying the newest first.
fn claimed_revision(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    let mut revision = [0; 8];
    file.seek(SeekFrom::Start(end.saturating_sub(FOOTER_BYTES) + 9))?;
    file.read_exact(&mut revision)?;
    Ok(u64::from_be_bytes(revision))
}
