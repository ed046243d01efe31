//! The ladder by which a store is opened: as it is; without sled's snapshots; from the newest good backup; or
//! not at all, with instructions. Each step is told. Nothing is deleted: what is in the way goes to
//! `quarantine`. Knows keys and checksums, not what records mean.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Opened, State, Store, StoreOptions, Writer, backup, ballast, codec,
    engine::{self, Engine, Headers, Sled},
    error::{OpenError, StoreError},
    files::{self, Layout, Lock},
    heal, key,
    marker::{Found, Marker, MarkerFile},
    restore,
};

/// Records read at once while all are looked at.
pub(crate) const SCAN_PAGE: usize = 512;
/// This program, as the store's directory names it.
const PROGRAM: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
/// Longest version that is believed to be one.
const VERSION_BYTES_MAX: usize = 64;
/// Largest store, in bytes, that is copied before it is opened after an unclean stop.
const FOUND_BYTES_MAX: u64 = 1 << 30;
/// Bytes that such a copy leaves free on the disk.
const FOUND_ROOM_LEFT: u64 = 128 << 20;
/// Faults told of one store; more are only counted.
const FAULTS_TOLD_MAX: usize = 8;

impl Store {
    /// Opens the store in `dir`, checks every live record, and repairs or restores what is damaged.
    ///
    /// # Errors
    /// [`OpenError`]: another coordinator runs, others can read the files, there is no store, or none of the
    /// ladder's steps gave a good one.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<Opened, OpenError> {
        let layout = Layout::new(dir);
        let failed = |source| OpenError::Store { dir: dir.to_owned(), source };
        let io = |doing: &'static str| move |error| failed(StoreError::io(doing, error));
        prepare_dir(&layout, options)?;
        let lock = Lock::take(&layout.lock()).map_err(io("locking the store"))?;
        let lock = lock.ok_or_else(|| OpenError::Running(dir.to_owned()))?;

        let mut ladder = Ladder {
            layout: &layout,
            backups: backups(&layout, options),
            may_be_new: options.create,
            report: Vec::new(),
        };
        ladder.tidy().map_err(io("looking at the store's directory"))?;
        let found = Marker::read(&layout.marker()).map_err(io("reading the store's marker"))?;
        let created = ladder.is_new(found);
        if created && !options.create {
            return Err(OpenError::Missing(dir.to_owned()));
        }
        let climbed = match ladder.climb(found) {
            Err(OpenError::Store { source, .. }) if source.is_full() => {
                ladder.free_ballast().map_err(io("giving up the ballast"))?;
                ladder.climb(found)
            }
            done => done,
        }?;
        let report = ladder.report;
        let last_used_by = last_used_by(&layout).filter(|last| last != PROGRAM && !created);
        let (marker, report) =
            settle(&layout, options, &climbed, report).map_err(io("settling the store"))?;
        if last_used_by.is_none() {
            sign(&layout).map_err(io("signing the store"))?;
        }
        let clean = matches!(found, Found::Whole(marker) if marker.clean);
        let writer = Writer {
            state: State::Ready,
            revision: climbed.revision,
            marker,
            touched: None,
            lock: Some(lock),
        };
        let store = Self::new(layout.clone(), options.clone(), climbed.engine, writer);
        Ok(Opened { store, report, clean, created, rewound: climbed.rewound, last_used_by })
    }

    /// Names this program as the one that used the store last, durably: whatever [`Opened::last_used_by`] was told for
    /// is done, and the next opening tells of it no more.
    ///
    /// # Errors
    /// When the store is closed or the disk refuses.
    pub fn sign(&self) -> Result<(), StoreError> {
        // Held, so that the store is ours as long as it is written to.
        let writer = self.writer();
        writer.check()?;
        sign(&self.0.layout).map_err(|error| StoreError::io("signing the store", error))
    }
}

/// Makes the directory if it may, and refuses one that others can get at.
fn prepare_dir(layout: &Layout, options: &StoreOptions) -> Result<(), OpenError> {
    let dir = &layout.dir;
    if !dir.exists() {
        if !options.create {
            return Err(OpenError::Missing(dir.clone()));
        }
        files::make_dir(dir).map_err(|error| OpenError::Store {
            dir: dir.clone(),
            source: StoreError::io("making the store's directory", error),
        })?;
    }
    files::check_private(dir, files::DIR_MODE)?;
    files::check_owner(dir)?;
    let engine = layout.engine();
    files::check_owner(&engine)?;
    for file in [layout.lock(), layout.marker(), layout.version(), layout.ballast()] {
        files::check_file(&file)?;
        files::check_private(&file, files::FILE_MODE)?;
        files::check_owner(&file)?;
    }
    for file in [engine::data_file(&engine), engine::parameters_file(&engine)] {
        files::check_file(&file)?;
        files::check_owner(&file)?;
    }
    Ok(())
}

/// Who used the store last, as far as that is known.
fn last_used_by(layout: &Layout) -> Option<String> {
    let text = fs::read_to_string(layout.version()).ok()?;
    let text = text.strip_suffix('\n')?;
    let version = text.strip_prefix(concat!(env!("CARGO_PKG_NAME"), " "))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    (version.len() <= VERSION_BYTES_MAX && version.chars().all(plain)).then(|| text.to_owned())
}

/// Names this program as the one that used the store last.
fn sign(layout: &Layout) -> io::Result<()> {
    if last_used_by(layout).as_deref() == Some(PROGRAM) {
        return Ok(());
    }
    files::replace(&layout.version(), format!("{PROGRAM}\n").as_bytes())
}

fn backups(layout: &Layout, options: &StoreOptions) -> PathBuf {
    options.backups.clone().unwrap_or_else(|| layout.backups())
}

/// What is left to do once the engine is open and good.
fn settle(
    layout: &Layout,
    options: &StoreOptions,
    climbed: &Climbed,
    mut report: Vec<String>,
) -> io::Result<(MarkerFile, Vec<String>)> {
    files::tighten(&layout.engine())?;
    files::sync_dir(&layout.engine())?;
    let marker = Marker { revision: climbed.revision, clean: false, rewound: climbed.rewound };
    let marker = marker.write(&layout.marker())?;
    if options.ballast_bytes > 0 {
        match ballast::keep(&layout.ballast(), options.ballast_bytes)? {
            ballast::Ballast::Kept => {}
            ballast::Ballast::NoRoom => report.push("too little room on the disk for the ballast".to_owned()),
            ballast::Ballast::Unsupported => {
                report.push("the file system cannot set room aside: there is no ballast".to_owned());
            }
        }
    }
    Ok((marker, report))
}

/// Calls `each` with every live record's key and value.
pub(crate) fn each_live(
    engine: &impl Engine,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    for table in key::LIVE_TABLES {
        let end = key::end_of(&[table]);
        let mut from = vec![table];
        loop {
            let page = engine.page(&from, &end, SCAN_PAGE)?;
            for (key, value) in &page {
                each(key, value)?;
            }
            match page.last() {
                Some((last, _)) if page.len() == SCAN_PAGE => from = key::after(last),
                _ => break,
            }
        }
    }
    Ok(())
}

/// The end of the ladder.
struct Climbed {
    engine: Sled,
    revision: u64,
    rewound: bool,
}

/// One try to open the engine.
enum Tried {
    /// All of it is there.
    Sound(Sled, u64),
    /// What is there is sound, but the store had got further.
    Behind(Sled, u64),
    /// It cannot be used.
    Damaged,
}

struct Ladder<'a> {
    layout: &'a Layout,
    backups: PathBuf,
    /// A directory without a marker may be one that was never used.
    may_be_new: bool,
    report: Vec<String>,
}

impl Ladder<'_> {
    /// Clears up after a restore or a compaction that was cut short.
    fn tidy(&mut self) -> io::Result<()> {
        files::remove_dir(&self.layout.fresh())?;
        files::remove_file(&self.layout.copy())?;
        files::remove_file(&self.layout.renewed())?;
        files::remove_dir(&self.layout.found().with_extension("partial"))?;
        if heal::finish(self.layout)? {
            self.report
                .push("a repair was cut short, and is ended; the damaged file is in quarantine".to_owned());
        }
        if self.layout.old().exists() {
            if self.layout.engine().exists() {
                files::remove_dir(&self.layout.old())?;
            } else {
                fs::rename(self.layout.old(), self.layout.engine())?;
                self.report.push("a compaction was cut short; the store is as it was before".to_owned());
            }
        }
        Ok(())
    }

    fn free_ballast(&mut self) -> io::Result<()> {
        if ballast::free(&self.layout.ballast())? {
            self.report.push("the disk is full: the ballast was given up to open the store".to_owned());
        }
        Ok(())
    }

    /// Whether there never was a store here, as far as anything tells.
    fn is_new(&self, found: Found) -> bool {
        let data = engine::data_file(&self.layout.engine());
        found == Found::Absent && !data.exists() && backup::candidates(&self.backups).is_empty()
    }

    /// The revision that the store must have, as far as is known.
    fn at_least(&mut self, found: Found) -> u64 {
        match found {
            Found::Whole(marker) => marker.revision,
            Found::Damaged => {
                self.report
                    .push("the store's marker is damaged; how far the store had got is not known".to_owned());
                1
            }
            // Backups without a marker: there was a store. With neither it may be empty and new, where one may be made.
            Found::Absent => u64::from(!self.may_be_new || !backup::candidates(&self.backups).is_empty()),
        }
    }

    fn climb(&mut self, found: Found) -> Result<Climbed, OpenError> {
        let at_least = self.at_least(found);
        let was_rewound = matches!(found, Found::Whole(marker) if marker.rewound);
        if matches!(found, Found::Whole(marker) if !marker.clean) {
            self.report.push("the store was not closed in order; every live record is checked".to_owned());
        }
        let clean = matches!(found, Found::Whole(marker) if marker.clean);
        self.mend_parameters().map_err(|error| self.failed("moving damaged parameters away", error))?;
        let headers = Headers::read(&self.layout.engine())
            .map_err(|error| self.failed("looking at the headers of the store's file", error))?;
        let in_order = clean && headers.damaged.is_empty();
        let no_copy = if in_order { None } else { self.copy_as_found().err() };
        let mut tried = match self.attempt(at_least)? {
            Tried::Sound(engine, revision) => self.heal(engine, revision, &headers)?,
            other => other,
        };
        if !matches!(tried, Tried::Sound(..)) && self.snapshots().is_ok_and(|found| !found.is_empty()) {
            drop(tried);
            let moved =
                self.quarantine_snapshots().map_err(|error| self.failed("moving snapshots away", error))?;
            self.report.push(format!("sled's snapshots were moved to {}", moved.display()));
            tried = self.attempt(at_least)?;
        }
        self.keep_as_found(matches!(tried, Tried::Sound(..)), no_copy)
            .map_err(|error| self.failed("keeping the store as it was found", error))?;
        match tried {
            Tried::Sound(engine, revision) => Ok(Climbed { engine, revision, rewound: was_rewound }),
            Tried::Behind(engine, revision) => self.settle_for_less(Some((engine, revision)), at_least),
            Tried::Damaged => self.settle_for_less(None, at_least),
        }
    }

    /// Opens the engine and looks at every live record.
    fn attempt(&mut self, at_least: u64) -> Result<Tried, OpenError> {
        let opened = Sled::open(&self.layout.engine())
            .and_then(|engine| Ok((engine.revision()?, engine)))
            .and_then(|(revision, engine)| check(&engine).map(|()| (engine, revision)));
        match opened {
            Ok((engine, revision)) if revision < at_least => {
                self.report
                    .push(format!("the store opens at revision {revision}, but had got to {at_least}"));
                Ok(Tried::Behind(engine, revision))
            }
            Ok((engine, revision)) => Ok(Tried::Sound(engine, revision)),
            Err(error) if error.is_damage() => {
                self.report.push(with_causes(&error));
                Ok(Tried::Damaged)
            }
            Err(error) if engine::is_lock(&error) => Err(OpenError::Running(self.layout.dir.clone())),
            Err(source @ StoreError::Newer { .. }) => {
                let last = last_used_by(self.layout).filter(|last| last != PROGRAM);
                let last = last.unwrap_or_else(|| format!("a newer {}", env!("CARGO_PKG_NAME")));
                Err(OpenError::Newer { last, source })
            }
            Err(source) => Err(OpenError::Store { dir: self.layout.dir.clone(), source }),
        }
    }

    /// Moves away parameters that are not sled's own.
    fn mend_parameters(&mut self) -> io::Result<()> {
        let Some(path) = engine::damaged_parameters(&self.layout.engine())? else { return Ok(()) };
        let quarantine = self.layout.quarantine()?;
        fs::rename(&path, quarantine.join("conf"))?;
        files::sync_dir(&quarantine)?;
        files::sync_dir(&self.layout.engine())?;
        self.report.push(format!(
            "the parameters of the store's engine were damaged: moved to {}, and written anew",
            quarantine.display()
        ));
        Ok(())
    }

    /// sled cuts a log with a damaged place there, as it opens: all that came after is gone then, so it is copied
    /// before. An error says why it was not.
    fn copy_as_found(&self) -> Result<(), String> {
        let (engine, found) = (self.layout.engine(), self.layout.found());
        // One that is there is older: what was found by an opening that was itself cut short.
        if found.exists() || !engine.exists() {
            return Ok(());
        }
        let text = |error: io::Error| error.to_string();
        let need = files::bytes_below(&engine).map_err(text)?;
        if need > FOUND_BYTES_MAX {
            return Err(format!("it has {need} bytes, more than {FOUND_BYTES_MAX}"));
        }
        let room = files::room(&self.layout.dir).map_err(text)?;
        if room < need.saturating_add(FOUND_ROOM_LEFT) {
            return Err(format!("it has {need} bytes, and {room} are free on the disk"));
        }
        files::copy_dir(&engine, &found).map_err(text)
    }

    /// Throws the copy away where all is in order, and keeps it otherwise.
    fn keep_as_found(&mut self, in_order: bool, no_copy: Option<String>) -> io::Result<()> {
        let found = self.layout.found();
        if in_order {
            return files::remove_dir(&found);
        }
        if let Some(why) = no_copy {
            self.report.push(format!("no copy was made of the store as it was found: {why}"));
        }
        if found.exists() {
            let quarantine = self.layout.quarantine()?;
            fs::rename(&found, quarantine.join("sled"))?;
            files::sync_dir(&quarantine)?;
            self.report.push(format!("the store as it was found is in {}", quarantine.display()));
        }
        Ok(())
    }

    fn snapshots(&self) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.layout.engine())?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
        let name =
            |path: &PathBuf| path.file_name().is_some_and(|n| engine::is_snapshot(&n.to_string_lossy()));
        Ok(paths.into_iter().filter(name).collect())
    }

    /// Mends what would harm an engine later that opened whole.
    fn heal(&mut self, engine: Sled, revision: u64, headers: &Headers) -> Result<Tried, OpenError> {
        match heal::heal(self.layout, engine, headers) {
            Ok((engine, healed)) => {
                self.report.extend(healed.map(|healed| healed.to_string()));
                Ok(Tried::Sound(engine, revision))
            }
            Err(error) if error.is_damage() => {
                self.report.push(with_causes(&error));
                Ok(Tried::Damaged)
            }
            Err(source) => Err(self.store_error(source)),
        }
    }

    fn quarantine_snapshots(&self) -> io::Result<PathBuf> {
        let quarantine = self.layout.quarantine()?;
        for snapshot in self.snapshots()? {
            if let Some(name) = snapshot.file_name() {
                fs::rename(&snapshot, quarantine.join(name))?;
            }
        }
        files::sync_dir(&quarantine)?;
        files::sync_dir(&self.layout.engine())?;
        Ok(quarantine)
    }

    /// Takes whichever got further: what is left of the store, or the newest good backup.
    fn settle_for_less(&mut self, left: Option<(Sled, u64)>, at_least: u64) -> Result<Climbed, OpenError> {
        let newest = backup::newest_good(&self.backups, &mut self.report);
        match (left, newest) {
            (Some((engine, revision)), newest)
                if revision > 0 && newest.as_ref().is_none_or(|(_, report)| report.revision <= revision) =>
            {
                self.report.push(format!(
                    "the commits after revision {revision} are lost (up to revision {at_least}); no backup has \
                     more of them, so the store goes on from there"
                ));
                Ok(Climbed { engine, revision, rewound: true })
            }
            (left, Some((path, report))) => {
                drop(left);
                let engine = self.put_back(&path).map_err(|source| self.store_error(source))?;
                self.report.push(format!(
                    "the store was restored from {} at revision {}; all commits after it are lost",
                    path.display(),
                    report.revision
                ));
                Ok(Climbed { engine, revision: report.revision, rewound: true })
            }
            (_, None) => Err(OpenError::Damaged {
                dir: self.layout.dir.display().to_string(),
                backups: self.backups.display().to_string(),
                found: self.report.join("; "),
            }),
        }
    }

    /// Restores a backup beside the damaged engine, and swaps them.
    fn put_back(&self, path: &Path) -> Result<Sled, StoreError> {
        restore::import(path, &self.layout.fresh())?;
        heal::swap_in(self.layout).map(|(engine, _)| engine)
    }

    fn failed(&self, doing: &str, error: io::Error) -> OpenError {
        self.store_error(StoreError::io(doing, error))
    }

    fn store_error(&self, source: StoreError) -> OpenError {
        OpenError::Store { dir: self.layout.dir.clone(), source }
    }
}

/// Checks every live record, and tells of all that are damaged at once.
fn check(engine: &impl Engine) -> Result<(), StoreError> {
    let mut faults = Vec::new();
    let mut more = 0_usize;
    each_live(engine, |key, value| match codec::open(key, value) {
        Err(StoreError::Damaged { record, why }) if faults.len() < FAULTS_TOLD_MAX => {
            faults.push(format!("{record}: {why}"));
            Ok(())
        }
        Err(StoreError::Damaged { .. }) => {
            more += 1;
            Ok(())
        }
        other => other.map(drop),
    })?;
    if faults.is_empty() {
        return Ok(());
    }
    if more > 0 {
        faults.push(format!("and {more} more"));
    }
    Err(StoreError::Damaged { record: "live records".to_owned(), why: faults.join("; ") })
}

/// An error with all its causes, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
