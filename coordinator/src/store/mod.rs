//! The store: the fleet's records on the coordinator's disk. A commit that was acknowledged survives a kill and
//! a power cut; a store that is damaged or emptied is noticed at the next open, never served as if it were new.
//!
//! | file | what it knows |
//! |---|---|
//! | `key`, `codec`, `unit` | how records become keys and values, and which ones change together |
//! | `engine` | sled, behind the little that a store needs of an engine; the only file that calls it |
//! | `open`, `marker`, `files`, `ballast` | the ladder from a damaged store to a good one, and the files around it |
//! | `history` | pages of what is no longer live, and its pruning |
//! | `audit` | the audit log: records of units, pages both ways, pruning |
//! | `backup`, `restore` | copies while it runs; restoring and compacting while it does not |
//!
//! One thread commits at a time; any number read. The store knows nothing of what the records mean beyond
//! whether they are live, keeps nothing in memory but the engine's cache, and never decides to go back in time
//! without saying so: see [`Opened::rewound`].

mod audit;
mod backup;
mod ballast;
mod codec;
mod engine;
mod error;
mod files;
mod history;
mod key;
mod marker;
mod open;
mod restore;
mod unit;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use fleet::record::Record;

pub use audit::{AuditId, Direction, NoAuditId};
pub use backup::{BackupReport, TOUCHED_KEYS_MAX, verify_backup};
pub use ballast::{BALLAST_BYTES, Ballast};
pub use codec::{FORMAT, SCHEMA, VALUE_BYTES_MAX};
pub use engine::COMMIT_UNITS_MAX;
pub use error::{OpenError, StoreError};
pub use files::BACKUP_EXTENSION;
pub use history::{PAGE_MAX, PRUNE_DELETES_MAX, Pruned, Scrubbed};
pub use key::KEY_BYTES_MAX;
pub use restore::{Compacted, compact, restore_from, restore_newest};
pub use unit::Unit;

use engine::{Engine as _, Pair, Sled};
use files::{Layout, Lock};
use marker::{Marker, MarkerFile};

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Make a store where there is none. Off in an ordinary start: an empty directory may be a file system
    /// that is not mounted.
    pub create: bool,
    /// Where the ladder looks for backups (`*.backup`); `None`: `backups` in the store's directory.
    pub backups: Option<PathBuf>,
    /// Bytes of the ballast; 0: none.
    pub ballast_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { create: true, backups: None, ballast_bytes: BALLAST_BYTES }
    }
}

/// A store that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// What was found and done on the way, for the log; empty when all was in order.
    pub report: Vec<String>,
    /// It had been closed in order.
    pub clean: bool,
    /// It was made now.
    pub created: bool,
    /// It holds an older state than agents may have seen (a backup, or a log with its end lost): the next term
    /// must be at least the seconds since 1970, so that it is above any that was lost.
    pub rewound: bool,
    /// The program that used it last, where that was another one: time for a backup, and then for [`Store::sign`]. Each
    /// opening tells of it until then.
    pub last_used_by: Option<String>,
}

/// The store. Cheap to clone. Dropping the last one without [`Store::close`] is an unclean stop.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Layout,
    options: StoreOptions,
    /// `None` while it is being opened again, after that failed, and when closed. Taken after `writer`.
    engine: RwLock<Option<Sled>>,
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    state: State,
    /// Of the newest acknowledged commit.
    revision: u64,
    marker: MarkerFile,
    /// While a backup runs: the keys that were written since it began.
    touched: Option<HashSet<Vec<u8>>>,
    /// Released when the store is closed.
    lock: Option<Lock>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// A commit failed, with this as the cause.
    Failed {
        full: bool,
    },
    Closed,
}

impl Store {
    fn new(layout: Layout, options: StoreOptions, engine: Sled, writer: Writer) -> Self {
        let engine = RwLock::new(Some(engine));
        Self(Arc::new(Inner { layout, options, engine, writer: Mutex::new(writer) }))
    }

    /// Every record that the engine needs, each checked.
    ///
    /// # Errors
    /// When one cannot be read or is damaged.
    pub fn live(&self) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        self.with_engine(|engine| {
            open::each_live(engine, |key, value| {
                records.push(codec::decode(key, value)?);
                Ok(())
            })
        })?;
        Ok(records)
    }

    /// Makes the units durable in one atomic batch and says its revision. Returns only when they are on the
    /// disk. After an error whether they are is not known: [`Store::reopen`] finds out.
    ///
    /// # Errors
    /// When the engine or the disk refuses, or an earlier commit failed and the store was not opened since.
    pub fn commit(&self, units: &[Unit]) -> Result<u64, StoreError> {
        let mut writer = self.writer();
        writer.check()?;
        if units.iter().all(|unit| unit.ops().is_empty()) {
            return Ok(writer.revision);
        }
        match self.with_engine(|engine| engine.commit(units, writer.revision)) {
            Ok(revision) => {
                writer.note(revision, units);
                Ok(revision)
            }
            Err(error) => {
                writer.state = State::Failed { full: error.is_full() };
                Err(error)
            }
        }
    }

    /// Opens the engine again after a failed commit. If the disk was full, the ballast is given up first;
    /// [`Store::restore_ballast`] brings it back. Readers wait meanwhile.
    ///
    /// # Errors
    /// When the engine cannot be opened, or holds less than was acknowledged; it may be tried again.
    pub fn reopen(&self) -> Result<(), StoreError> {
        let mut writer = self.writer();
        if writer.state == State::Closed {
            return Err(StoreError::Closed);
        }
        // A backup that runs now cannot know what the failed commit left: it ends with an error.
        writer.touched = None;
        let mut slot = self.0.engine.write().unwrap_or_else(PoisonError::into_inner);
        drop(slot.take());
        if writer.state == (State::Failed { full: true }) {
            let freed = ballast::free(&self.0.layout.ballast())
                .map_err(|error| StoreError::io("giving up the ballast", error))?;
            if freed {
                tracing::warn!("the disk is full: the ballast is given up so that the store can be opened");
            }
        }
        // What the failed commit wrote may be in the kernel's cache alone, and later commits build on it.
        engine::renew(&self.0.layout.engine(), &self.0.layout.renewed())
            .map_err(|error| StoreError::io("writing the store's file once more", error))
            .inspect_err(|error| writer.state = State::Failed { full: error.is_full() })?;
        *slot = Some(writer.take_up(Sled::open(&self.0.layout.engine()))?);
        Ok(())
    }

    /// Closes the engine, lets `swap` put another one with the same content in its place, and opens that.
    fn replace_engine(&self, swap: impl FnOnce() -> std::io::Result<()>) -> Result<(), StoreError> {
        let mut writer = self.writer();
        let mut slot = self.0.engine.write().unwrap_or_else(PoisonError::into_inner);
        drop(slot.take());
        swap().map_err(|error| StoreError::io("swapping the store's files", error))?;
        *slot = Some(writer.take_up(Sled::open(&self.0.layout.engine()))?);
        Ok(())
    }

    /// Sets the ballast aside again, if there is room for it twice. For housekeeping.
    ///
    /// # Errors
    /// When the file system refuses anything but the room.
    pub fn restore_ballast(&self) -> Result<Ballast, StoreError> {
        ballast::keep(&self.0.layout.ballast(), self.0.options.ballast_bytes)
            .map_err(|error| StoreError::io("setting the ballast aside", error))
    }

    /// The revision of the newest acknowledged commit.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.writer().revision
    }

    /// Bytes of the engine's files. They never shrink: see [`compact`].
    ///
    /// # Errors
    /// When the files cannot be looked at.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.with_engine(Sled::disk_bytes)
    }

    /// Closes the store and marks the stop as clean. All other handles get an error from then on.
    ///
    /// # Errors
    /// When it is not known to be whole on the disk; then the stop is not marked as clean.
    pub fn close(&self) -> Result<(), StoreError> {
        let mut writer = self.writer();
        let was = writer.state;
        writer.state = State::Closed;
        let engine = self.0.engine.write().unwrap_or_else(PoisonError::into_inner).take();
        let synced = engine.as_ref().map_or(Ok(()), Sled::sync);
        // sled writes its last pages as it is dropped: the mark comes after that.
        drop(engine);
        let marked = match was {
            State::Ready => synced.and_then(|()| {
                let rewound = writer.marker.rewound();
                let marker = Marker { revision: writer.revision, clean: true, rewound };
                let written = marker.write(&self.0.layout.marker());
                written.map(drop).map_err(|error| StoreError::io("marking the stop as clean", error))
            }),
            State::Failed { .. } => Err(StoreError::Failed),
            State::Closed => Ok(()),
        };
        writer.lock = None;
        marked
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_engine<T>(&self, call: impl FnOnce(&Sled) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let slot = self.0.engine.read().unwrap_or_else(PoisonError::into_inner);
        call(slot.as_ref().ok_or(StoreError::Failed)?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with_engine(|engine| engine.get(key))
    }

    fn page(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.with_engine(|engine| engine.page(from, to, limit))
    }

    fn page_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.with_engine(|engine| engine.page_back(from, to, limit))
    }
}

impl Writer {
    fn check(&self) -> Result<(), StoreError> {
        match self.state {
            State::Ready => Ok(()),
            State::Failed { .. } => Err(StoreError::Failed),
            State::Closed => Err(StoreError::Closed),
        }
    }

    /// Goes on with an engine that was opened again, unless it holds less than was acknowledged.
    fn take_up(&mut self, opened: Result<Sled, StoreError>) -> Result<Sled, StoreError> {
        self.state = State::Failed { full: false };
        let opened = opened.and_then(|engine| Ok((engine.revision()?, engine)));
        let (found, engine) = opened.inspect_err(|error| {
            self.state = State::Failed { full: error.is_full() };
        })?;
        if found < self.revision {
            return Err(StoreError::WentBack { found, acknowledged: self.revision });
        }
        self.revision = found;
        self.state = State::Ready;
        Ok(engine)
    }

    /// What follows a durable commit.
    fn note(&mut self, revision: u64, units: &[Unit]) {
        self.revision = revision;
        if let Some(touched) = &mut self.touched {
            // One above the bound is kept: so the backup sees that there were too many.
            let keys = units.iter().flat_map(Unit::ops).map(|op| op.key().to_vec());
            let room = (TOUCHED_KEYS_MAX + 1).saturating_sub(touched.len());
            touched.extend(keys.take(room));
        }
        if let Err(error) = self.marker.advance(revision) {
            // The commit is on the disk, and an older mark is true as well.
            tracing::warn!(revision, %error, "the store's marker was not moved on");
        }
    }
}
