//! What is done to a store while no coordinator runs on it: a backup by hand, a restore, moving it, compacting it.

use std::path::{Path, PathBuf};

use crate::{
    STORE,
    chores::BACKUPS,
    config::Config,
    store::{
        self, BackupReport, Compacted, OpenError, Store, StoreError, StoreOptions, restore_from,
        restore_newest, verify_backup,
    },
};

/// Old stores that are kept aside in one folder.
const ASIDE_MAX: u32 = 1_000;

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The store cannot be opened, or a coordinator runs on it.
    #[error("the store is not open to this command")]
    Open(#[from] OpenError),
    /// The backup that was named.
    #[error("nothing was restored: the backup {0} cannot be read")]
    File(PathBuf, #[source] std::io::Error),
    /// Reading or writing a backup.
    #[error("nothing was changed")]
    Store(#[from] StoreError),
    /// There is a store already.
    #[error(
        "nothing was imported: there is a store in {0} already; next: the same command with --replace, which keeps it \
         aside"
    )]
    Exists(PathBuf),
    /// The present store could not be moved aside, or back.
    #[error("could not move {0} aside; nothing was restored")]
    Move(PathBuf, #[source] std::io::Error),
}

/// What a restore did.
#[derive(Debug)]
pub struct Restored {
    /// What the backup held.
    pub report: BackupReport,
    /// Where the store that was there has gone.
    pub aside: Option<PathBuf>,
    /// It is what the store that was there held, so nothing went back in time.
    pub same: bool,
}

/// Writes a backup of the store to `file`.
///
/// # Errors
/// [`OfflineError`], also when a coordinator runs on the store: that one makes backups of its own.
pub fn backup(config: &Config, file: &Path) -> Result<BackupReport, OfflineError> {
    let store = Store::open(&config.file(STORE), &options(config))?.store;
    let made = store.backup_to(file);
    store.close()?;
    Ok(made?)
}

/// Puts a backup in the place of the store. The store that was there is moved aside, not removed. The next start
/// begins a term above every one that can have been lost, and the deny list, which is no part of the store, holds on.
///
/// # Errors
/// [`OfflineError`]; the store that was there is in its place then.
pub fn restore(config: &Config, file: &Path) -> Result<Restored, OfflineError> {
    put_in_place(config, file, true, false)
}

/// Puts an export in the place of a store, or where there is none. One that holds exactly what the store that was there
/// holds goes back in no time: terms go on. Any other one is a restore.
///
/// # Errors
/// [`OfflineError`], also when there is a store and `replace` is not set; that one is in its place then.
pub fn import(config: &Config, file: &Path, replace: bool) -> Result<Restored, OfflineError> {
    put_in_place(config, file, replace, true)
}

fn put_in_place(
    config: &Config,
    file: &Path,
    replace: bool,
    may_be_newest: bool,
) -> Result<Restored, OfflineError> {
    std::fs::File::open(file).map_err(|error| OfflineError::File(file.to_owned(), error))?;
    verify_backup(file)?;
    let place = config.file(STORE);
    if place.exists() && !replace {
        return Err(OfflineError::Exists(place));
    }
    let same = match Store::open(&place, &options(config)) {
        Ok(opened) => {
            // Only of a store that is in order it is known that there never was a newer state.
            let sound = may_be_newest && opened.clean && !opened.rewound && opened.report.is_empty();
            let same = sound && opened.store.is_as_in(file)?;
            opened.store.close()?;
            same
        }
        Err(refused @ (OpenError::Running(_) | OpenError::Owner { .. })) => return Err(refused.into()),
        // Whatever else is wrong with it, it is moved aside.
        Err(_) => false,
    };
    let aside = set_aside(&place)?;
    let put = if same { restore_newest(file, &place) } else { restore_from(file, &place) };
    match put {
        Ok(report) => Ok(Restored { report, aside, same }),
        Err(error) => {
            if let Some(aside) = &aside {
                put_back(aside, &place)?;
            }
            Err(error.into())
        }
    }
}

/// Writes the store's file anew without what is no longer in it. Nothing goes back in time.
///
/// # Errors
/// [`OfflineError`], also when a coordinator runs on the store; it is as it was then.
pub fn compact(config: &Config) -> Result<Compacted, OfflineError> {
    Ok(store::compact(&config.file(STORE))?)
}

pub(crate) fn options(config: &Config) -> StoreOptions {
    StoreOptions { create: false, backups: Some(config.file(BACKUPS)), ballast_bytes: 0 }
}

fn set_aside(place: &Path) -> Result<Option<PathBuf>, OfflineError> {
    if !place.exists() {
        return Ok(None);
    }
    let names = (1..=ASIDE_MAX).map(|n| place.with_extension(format!("before-restore-{n}")));
    let free = names.into_iter().find(|name| !name.exists());
    let free = free.ok_or_else(|| moving(place)(std::io::ErrorKind::AlreadyExists.into()))?;
    std::fs::rename(place, &free).map_err(moving(place))?;
    Ok(Some(free))
}

fn put_back(aside: &Path, place: &Path) -> Result<(), OfflineError> {
    if place.exists() {
        std::fs::remove_dir_all(place).map_err(moving(place))?;
    }
    std::fs::rename(aside, place).map_err(moving(place))
}

fn moving(path: &Path) -> impl FnOnce(std::io::Error) -> OfflineError {
    let path = path.to_owned();
    move |error| OfflineError::Move(path, error)
}
