//! The life of the key that seals passwords, while no coordinator runs: what opens with it, a new one in its place, and
//! a new file where it was lost. Each step leaves a store and a key file that fit together, wherever it is cut off.

use std::path::PathBuf;
use std::sync::Arc;

use fleet::{
    id::Name,
    project::ProjectRecord,
    record::{Change, Record},
};

use crate::{
    STORE,
    config::Config,
    identity::SEAL_KEY,
    offline::options,
    seal::{SealError, SealedWith, Sealer},
    store::{COMMIT_UNITS_MAX, OpenError, Store, StoreError, Unit},
};

/// Why the key was not looked at, or not changed.
#[derive(Debug, thiserror::Error)]
pub enum SealKeyError {
    /// The store cannot be opened, or a coordinator runs on it.
    #[error("the store is not open to this command")]
    Open(#[from] OpenError),
    /// The key file.
    #[error("the key of sealed passwords cannot be used")]
    Key(#[from] SealError),
    /// Reading or writing the store.
    #[error("the stored passwords could not be read or written; what was sealed before still opens")]
    Store(#[from] StoreError),
    /// A usable file is there: a new one would lock its passwords away.
    #[error("{0} is there and is a key; next: mirror-coordinator seal-key rotate")]
    NotLost(PathBuf),
}

/// A password that has to be set again: no key of the file opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Of which project.
    pub project: Name,
    /// For which upstream host.
    pub host: String,
    /// It belongs to the project's first upstream.
    pub first: bool,
}

/// What the stored passwords are sealed with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seals {
    /// With the present key.
    pub present: usize,
    /// With an older one of the file.
    pub older: usize,
    /// With none of it.
    pub unreadable: Vec<Unreadable>,
    /// Keys of the file that only open.
    pub older_keys: usize,
}

/// Looks which passwords open. Changes nothing.
///
/// # Errors
/// [`SealKeyError`].
pub fn check(config: &Config) -> Result<Seals, SealKeyError> {
    let sealer = Sealer::open(&config.file(SEAL_KEY))?;
    with_store(config, |store| Ok(survey(&sealer, &projects(store)?)))
}

/// Puts a new key in front and seals every password with it. The older keys stay in the file, for backups that were
/// made with them, unless they are to be forgotten. Cut off in the middle, it is simply begun again.
///
/// # Errors
/// [`SealKeyError`], also when the file holds as many keys as it may and none is to be forgotten; every password that
/// opened before still opens.
pub fn rotate(config: &Config, forget_older: bool) -> Result<Seals, SealKeyError> {
    let path = config.file(SEAL_KEY);
    // Before the file is touched: nobody else has the store from here on.
    with_store(config, |store| {
        let sealer = Sealer::open(&path)?;
        if forget_older && !sealer.has_room() {
            // Room for the new key: nothing may need the older ones when they go.
            reseal_all(store, &sealer)?;
            Sealer::forget_older(&path)?;
        }
        Sealer::add_key(&path)?;
        reseal_all(store, &Sealer::open(&path)?)?;
        if forget_older {
            Sealer::forget_older(&path)?;
        }
        let sealer = Sealer::open(&path)?;
        Ok(survey(&sealer, &projects(store)?))
    })
}

/// Makes a new key file where it was lost. What was sealed with the lost key stays as it is, and opens again when that
/// file is found and put back.
///
/// # Errors
/// [`SealKeyError::NotLost`] while there is a usable file.
pub fn renew(config: &Config) -> Result<Seals, SealKeyError> {
    let path = config.file(SEAL_KEY);
    with_store(config, |store| {
        if path.exists() {
            Sealer::open(&path)?;
            return Err(SealKeyError::NotLost(path.clone()));
        }
        Sealer::create(&path)?;
        Ok(survey(&Sealer::open(&path)?, &projects(store)?))
    })
}

/// What the passwords of these projects are sealed with.
pub(crate) fn survey<'a>(sealer: &Sealer, projects: impl IntoIterator<Item = &'a ProjectRecord>) -> Seals {
    let mut seals = Seals { older_keys: sealer.older_keys(), ..Seals::default() };
    for project in projects {
        let upstreams = project.spec.upstreams.iter().enumerate();
        for (place, upstream) in upstreams.filter(|(_, upstream)| !upstream.sealed_password.is_empty()) {
            match sealer.sealed_with(&upstream.sealed_password) {
                SealedWith::PresentKey => seals.present += 1,
                SealedWith::OlderKey => seals.older += 1,
                SealedWith::UnknownKey => seals.unreadable.push(Unreadable {
                    project: project.name.clone(),
                    host: upstream.host.clone(),
                    first: place == 0,
                }),
            }
        }
    }
    seals
}

/// Seals with the present key whatever an older one opens; durable when it returns.
fn reseal_all(store: &Store, sealer: &Sealer) -> Result<(), SealKeyError> {
    let resealed: Vec<ProjectRecord> = projects(store)?
        .into_iter()
        .filter_map(|project| reseal(sealer, project).transpose())
        .collect::<Result<_, _>>()?;
    for part in resealed.chunks(COMMIT_UNITS_MAX) {
        let put =
            |project: &ProjectRecord| Unit::of(&[Change::Put(Record::Project(Arc::new(project.clone())))]);
        store.commit(&part.iter().map(put).collect::<Result<Vec<_>, _>>()?)?;
    }
    Ok(())
}

/// The project with its passwords sealed with the present key; `None`: nothing changes.
fn reseal(sealer: &Sealer, mut project: ProjectRecord) -> Result<Option<ProjectRecord>, SealError> {
    let mut changed = false;
    for upstream in &mut project.spec.upstreams {
        if sealer.sealed_with(&upstream.sealed_password) == SealedWith::OlderKey {
            upstream.sealed_password = sealer.seal(&sealer.unseal(&upstream.sealed_password)?)?;
            changed = true;
        }
    }
    Ok(changed.then_some(project))
}

fn projects(store: &Store) -> Result<Vec<ProjectRecord>, StoreError> {
    let records = store.live()?.into_iter();
    Ok(records
        .filter_map(|record| match record {
            Record::Project(project) => Some(Arc::unwrap_or_clone(project)),
            _ => None,
        })
        .collect())
}

fn with_store<T>(
    config: &Config,
    act: impl FnOnce(&Store) -> Result<T, SealKeyError>,
) -> Result<T, SealKeyError> {
    let store = Store::open(&config.file(STORE), &options(config))?.store;
    let done = act(&store);
    let closed = store.close();
    let done = done?;
    closed?;
    Ok(done)
}
