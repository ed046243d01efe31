//! Finds in an engine that opened whole what would harm it later, and writes its file anew from all that can be read: a
//! segment that lost its header, so that what is written next is not found again; and a page that cannot be read, so that
//! a commit that meets it fails. Live records are known to be good already; only the past may have holes.
//!
//! Knows keys, not what records mean.

use std::{fmt, fs, path::PathBuf};

use super::{
    audit,
    engine::{Engine as _, Headers, Pair, Sled},
    error::StoreError,
    files::{self, Layout},
    key,
    open::SCAN_PAGE,
    restore,
};

/// What was mended.
#[derive(Debug)]
pub(crate) struct Healed {
    /// Where the file is now that was damaged.
    pub(crate) moved: PathBuf,
    /// What of the past could not be read.
    pub(crate) holes: Vec<Hole>,
}

impl fmt::Display for Healed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moved = self.moved.display();
        write!(
            f,
            "the file of the store's engine was damaged: it was written anew, and the damaged one moved to {moved}; "
        )?;
        if self.holes.is_empty() {
            return f.write_str("nothing is lost");
        }
        f.write_str("nothing that is going on is lost; these of the past are: ")?;
        for (index, hole) in self.holes.iter().enumerate() {
            let comma = if index > 0 { "; " } else { "" };
            write!(f, "{comma}{hole}")?;
        }
        Ok(())
    }
}

/// A part of one table that cannot be read: at most one for each table of the past.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    /// The last key before it that could be read.
    after: Option<Vec<u8>>,
    /// The first key behind it that could be read.
    before: Option<Vec<u8>>,
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.after, &self.before) {
            (Some(after), Some(before)) => {
                write!(f, "from {} to {}", key::describe(after), key::describe(before))
            }
            (Some(after), None) => write!(f, "all after {}", key::describe(after)),
            (None, Some(before)) => write!(f, "all before {}", key::describe(before)),
            (None, None) => f.write_str("a whole table"),
        }
    }
}

/// Looks at all of an engine that opened whole, and mends what has to be. `headers`: as they were before it was opened.
///
/// # Errors
/// When live records cannot be read, or the disk refuses.
pub(crate) fn heal(
    layout: &Layout,
    engine: Sled,
    headers: &Headers,
) -> Result<(Sled, Option<Healed>), StoreError> {
    let dir = layout.engine();
    let readable = match read_through(&engine) {
        Err(error) if error.is_damage() => false,
        read => read.map(|()| true)?,
    };
    let (engine, kept) = if headers.blank { engine.keeps_what_is_written(&dir)? } else { (engine, true) };
    if readable && kept && headers.damaged.is_empty() {
        return Ok((engine, None));
    }
    files::remove_dir(&layout.fresh()).map_err(io)?;
    let fresh = restore::begin(&layout.fresh())?;
    let holes = carry_over(&engine, &fresh)?;
    restore::settle(fresh, &layout.fresh(), engine.revision()?)?;
    drop(engine);
    let (engine, moved) = swap_in(layout)?;
    Ok((engine, Some(Healed { moved, holes })))
}

/// Puts the new engine that lies ready in the place of the present one, and says where that one is now. Cut short at any
/// point, the next opening finds the one or the other ([`finish`]).
pub(crate) fn swap_in(layout: &Layout) -> Result<(Sled, PathBuf), StoreError> {
    let swap = || {
        fs::rename(layout.fresh(), layout.mended())?;
        files::sync_dir(&layout.dir)?;
        let quarantine = layout.quarantine()?;
        if layout.engine().exists() {
            fs::rename(layout.engine(), quarantine.join("sled"))?;
            files::sync_dir(&quarantine)?;
        }
        fs::rename(layout.mended(), layout.engine())?;
        files::sync_dir(&layout.dir)?;
        Ok(quarantine)
    };
    let moved = swap().map_err(io)?;
    Ok((Sled::open(&layout.engine())?, moved))
}

/// Ends a swap that was cut short. True: the new engine is in the place of the old one by it.
pub(crate) fn finish(layout: &Layout) -> std::io::Result<bool> {
    if layout.engine().exists() || !layout.mended().exists() {
        files::remove_dir(&layout.mended())?;
        return Ok(false);
    }
    fs::rename(layout.mended(), layout.engine())?;
    files::sync_dir(&layout.dir)?;
    Ok(true)
}

fn io(error: std::io::Error) -> StoreError {
    StoreError::io("putting a new file in the place of the store's damaged one", error)
}

/// Meets every page.
fn read_through(engine: &Sled) -> Result<(), StoreError> {
    let mut from = key::FIRST.to_vec();
    loop {
        let page = engine.page(&from, key::LAST, SCAN_PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        from = key::after(last);
    }
}

/// Copies all that can be read.
fn carry_over(engine: &Sled, fresh: &Sled) -> Result<Vec<Hole>, StoreError> {
    for table in key::LIVE_TABLES.into_iter().chain([key::META_TABLE]) {
        let (_, met) = copy_up(engine, fresh, &[table])?;
        met.map_or(Ok(()), Err)?;
    }
    let mut holes = Vec::new();
    for table in key::HISTORY_TABLES.into_iter().chain([audit::TABLE]) {
        let (after, met) = copy_up(engine, fresh, &[table])?;
        if met.is_some() {
            let before = copy_down(engine, fresh, after.as_deref(), &[table])?;
            holes.push(Hole { after, before });
        }
    }
    Ok(holes)
}

/// Copies a table from its beginning to its end, or as far as it can be read: the last key that was, and what came then.
fn copy_up(
    engine: &Sled,
    fresh: &Sled,
    table: &[u8],
) -> Result<(Option<Vec<u8>>, Option<StoreError>), StoreError> {
    let end = key::end_of(table);
    let mut last: Option<Vec<u8>> = None;
    let mut at_once = SCAN_PAGE;
    loop {
        let from = last.as_deref().map_or_else(|| table.to_vec(), key::after);
        match engine.page(&from, &end, at_once) {
            Ok(page) => match copy(fresh, page)? {
                Some(key) => last = Some(key),
                None => return Ok((last, None)),
            },
            // The page holds some that can be read, then one that cannot.
            Err(error) if error.is_damage() && at_once > 1 => at_once = 1,
            Err(error) if error.is_damage() => return Ok((last, Some(error))),
            Err(error) => return Err(error),
        }
    }
}

/// Copies a table from its end down to `after`, or as far as it can be read: the first key that was.
fn copy_down(
    engine: &Sled,
    fresh: &Sled,
    after: Option<&[u8]>,
    table: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    let from = after.map_or_else(|| table.to_vec(), key::after);
    let mut first: Option<Vec<u8>> = None;
    loop {
        let end = first.clone().unwrap_or_else(|| key::end_of(table));
        match engine.page_back(&from, &end, 1) {
            Ok(page) => match copy(fresh, page)? {
                Some(key) => first = Some(key),
                None => return Ok(first),
            },
            Err(error) if error.is_damage() => return Ok(first),
            Err(error) => return Err(error),
        }
    }
}

/// Copies a page, and says its last key.
fn copy(fresh: &Sled, page: Vec<Pair>) -> Result<Option<Vec<u8>>, StoreError> {
    let last = page.last().map(|(key, _)| key.clone());
    if last.is_some() {
        fresh.import(page.into_iter().map(|(key, value)| (key, Some(value))).collect())?;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::store::{codec, engine};

    const RECORDS: u32 = 3_000;
    /// The record whose page is damaged.
    const HIT: u32 = 1_500;
    const LOST_MAX: usize = 200;

    fn key_of(number: u32) -> Vec<u8> {
        [&[audit::TABLE][..], &number.to_be_bytes()].concat()
    }

    fn value_of(number: u32) -> Vec<u8> {
        codec::seal(&key_of(number), 1, format!("a record of the past, number {number:08}").as_bytes())
    }

    fn count(engine: &Sled) -> usize {
        engine.page(&[audit::TABLE], &key::end_of(&[audit::TABLE]), usize::MAX).unwrap().len()
    }

    #[test]
    fn what_can_be_read_is_carried_over_and_what_cannot_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let engine = restore::begin(&layout.engine()).unwrap();
        engine.import(vec![(key::REVISION.to_vec(), Some(codec::seal(key::REVISION, 1, &[])))]).unwrap();
        for some in (0..RECORDS).collect::<Vec<_>>().chunks(100) {
            engine.import(some.iter().map(|n| (key_of(*n), Some(value_of(*n)))).collect()).unwrap();
        }
        engine.sync().unwrap();
        drop(engine);
        // sled writes its snapshot as it opens: from then on it does not read the log to find its pages.
        drop(Sled::open(&layout.engine()).unwrap());
        let db =
            fs::File::options().read(true).write(true).open(engine::data_file(&layout.engine())).unwrap();
        let bytes = fs::read(engine::data_file(&layout.engine())).unwrap();
        let word = format!("number {HIT:08}").into_bytes();
        let places = bytes.windows(word.len()).enumerate().filter(|(_, window)| **window == word);
        places.for_each(|(at, _)| db.write_all_at(b"N", at as u64).unwrap());

        let headers = Headers::read(&layout.engine()).unwrap();
        let (engine, healed) = heal(&layout, Sled::open(&layout.engine()).unwrap(), &headers).unwrap();
        let healed = healed.expect("a page cannot be read");
        let [Hole { after: Some(after), before: Some(before) }] = &healed.holes[..] else {
            panic!("{healed}");
        };
        assert!(*after < key_of(HIT) && key_of(HIT) < *before, "{healed}");
        let whole = RECORDS as usize;
        assert!((whole - LOST_MAX..whole).contains(&count(&engine)), "{healed}");
        assert_eq!(engine.revision().unwrap(), 1);
        assert!(healed.moved.join("sled/db").exists());
        drop(engine);

        let headers = Headers::read(&layout.engine()).unwrap();
        let (_, healed) = heal(&layout, Sled::open(&layout.engine()).unwrap(), &headers).unwrap();
        assert!(healed.is_none());
    }

    #[test]
    fn a_swap_that_is_cut_short_is_ended_or_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let made = |path: &std::path::Path| fs::create_dir(path).unwrap();
        made(&layout.engine());
        made(&layout.mended());
        assert!(!finish(&layout).unwrap(), "the old one is still in its place");
        assert!(layout.engine().exists() && !layout.mended().exists());
        fs::remove_dir(layout.engine()).unwrap();
        made(&layout.mended());
        assert!(finish(&layout).unwrap());
        assert!(layout.engine().exists() && !layout.mended().exists());
        assert!(!finish(&layout).unwrap());
    }
}
