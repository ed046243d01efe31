//! Replacing the fleet's CA, as an administrator does it on the coordinator's host, whether the coordinator runs or not:
//! [`rotate`] makes the next one, [`retire`] ends the old one, [`show`] says how far it is and what comes next.
//!
//! Each of the two is one file put in place at once, so a crash leaves the step done or not begun: [`rotate`] writes
//! `ca-next.pem`; [`retire`] writes `ca.pem`, and whatever looks at the files next does the rest. A coordinator that runs
//! takes the change over at a reload (SIGHUP), and at the latest when it looks at its certificates, once an hour.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use mirror_certs::{
    CaError, CertificateAuthority, DenyList, DenyListError, Existing, FileError, Identity, SpkiHash,
    read_private, write_private, write_public,
};

use super::{
    AuthorityError, Files,
    ledger::{Book, Entry},
};
use crate::{
    config::Config,
    identity::{DENIED, SERVER},
};

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// A rotation is under way.
    #[error("a rotation is under way already: the new CA is {next}, made at {since}; nothing was changed")]
    Underway {
        /// The new one.
        next: SpkiHash,
        /// When it was made.
        since: DateTime<Utc>,
    },
    /// There is only one CA.
    #[error("there is one CA only, so none can be retired; nothing was changed")]
    NoRotation,
    /// No coordinator has trusted the new one yet.
    #[error(
        "no coordinator has taken the new CA over yet, so nobody can have moved to it; nothing was changed"
    )]
    NotInForce,
    /// Who would be cut, and is not named.
    #[error("{} would be cut off; nothing was changed", count(.0.len()))]
    WouldCut(Vec<Entry>),
    /// Names that are not among those who would be cut.
    #[error("{} would not be cut off: nobody of this name depends on the old CA; nothing was changed", .0.join(", "))]
    NotAmongThem(Vec<String>),
    /// Root would write files that the coordinator cannot read.
    #[error("{file} belongs to the user with the id {owner}, and this is another one; nothing was changed")]
    OtherUser {
        /// The CA's key.
        file: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// The CA.
    #[error("nothing was changed")]
    Authority(#[from] AuthorityError),
    /// The new CA.
    #[error("could not make a CA; nothing was changed")]
    Make(#[source] CaError),
    /// A file.
    #[error("could not use the coordinator's own files; nothing was changed")]
    File(#[from] FileError),
    /// The list of those refused.
    #[error("could not read who is refused for ever; nothing was changed")]
    Denied(#[from] DenyListError),
    /// The list of what was issued.
    #[error("could not read {0}, which says who depends on which CA; nothing was changed")]
    Ledger(PathBuf, #[source] io::Error),
}

fn count(holders: usize) -> String {
    if holders == 1 {
        "1 holder of a certificate".to_owned()
    } else {
        format!("{holders} holders of certificates")
    }
}

/// One CA, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// What hosts type when they enrol.
    pub hash: SpkiHash,
    /// When it was made.
    pub made: DateTime<Utc>,
    /// Its end.
    pub until: DateTime<Utc>,
}

impl From<&CertificateAuthority> for Root {
    fn from(ca: &CertificateAuthority) -> Self {
        Self { hash: ca.ca_hash(), made: ca.made(), until: ca.not_after() }
    }
}

/// How far a rotation is.
#[derive(Debug)]
pub struct State {
    /// The CA whose certificate the port shows: the old one during a rotation.
    pub current: Root,
    /// The one that replaces it.
    pub next: Option<Root>,
    /// What a coordinator trusted last, and since when; `None`: none has run since there is such a list.
    pub in_force: Option<(DateTime<Utc>, Vec<SpkiHash>)>,
    /// During a rotation: who would be cut if the old one were retired now.
    pub left: Vec<Entry>,
    /// End of the coordinator's own certificate, where it has one.
    pub server_until: Option<DateTime<Utc>>,
    /// Lines of the list that say nothing readable.
    pub unreadable: usize,
}

impl State {
    /// Whether the coordinator that runs, or ran last, knows of what the files say.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        let hashes: Vec<SpkiHash> =
            [Some(self.current), self.next].into_iter().flatten().map(|root| root.hash).collect();
        self.in_force.as_ref().is_some_and(|(_, trusted)| *trusted == hashes)
    }
}

/// Who may be cut off by a retirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// These and nobody else; empty: nobody. `agents/NAME` and `users/NAME`, without case.
    These(Vec<String>),
    /// Whoever depends on the old CA.
    All,
}

/// Says how far it is. Changes nothing.
///
/// # Errors
/// [`RotationError`].
pub fn show(config: &Config, now: DateTime<Utc>) -> Result<State, RotationError> {
    let files = Files::of(&config.data_dir);
    let (current, next) = match files.of_next()? {
        // Retired a moment ago, or before a crash: the key that belongs to the certificate is still in the other file.
        Some(next) if is_retired(&files, &next)? => (Root::from(&next), None),
        Some(next) => (Root::from(&files.read()?.current), Some(Root::from(&next))),
        None => (Root::from(&files.read()?.current), None),
    };
    let book = read(&files)?;
    let left = match next {
        Some(next) => left(config, &book, current.hash, next.hash, now)?,
        None => Vec::new(),
    };
    let domain = files.current_bundle()?.trust_domain().ok();
    let server = read_private(&config.file(SERVER)).ok();
    let server = server.zip(domain).and_then(|(text, domain)| Identity::from_pem(&text, &domain).ok());
    Ok(State {
        current,
        next,
        left,
        server_until: server.map(|peer| peer.not_after),
        in_force: book.trusted,
        unreadable: book.unreadable,
    })
}

/// Makes the next CA. From the next reload on the coordinator trusts both and issues from the new one; agents that are
/// connected have a certificate of it seconds later.
///
/// # Errors
/// [`RotationError`]; nothing was changed.
pub fn rotate(config: &Config, now: DateTime<Utc>) -> Result<Root, RotationError> {
    let files = Files::of(&config.data_dir);
    check_user(&files.key)?;
    let _lock = files.lock()?;
    files.settle()?;
    let keys = files.read()?;
    if let Some(next) = &keys.next {
        return Err(RotationError::Underway { next: next.ca_hash(), since: next.made() });
    }
    let next = CertificateAuthority::create(keys.current.trust_domain().clone(), now)
        .map_err(RotationError::Make)?;
    write_private(&files.next, &next.combined_pem(), Existing::Refuse)?;
    Ok(Root::from(&next))
}

/// Ends the old CA: from the next reload on nothing of it is trusted, and what was begun under it is cut. Whoever depends
/// on it must be among those in `cut`. Says who was.
///
/// # Errors
/// [`RotationError`]; nothing was changed.
pub fn retire(config: &Config, cut: &Cut, now: DateTime<Utc>) -> Result<(Root, Vec<Entry>), RotationError> {
    let files = Files::of(&config.data_dir);
    check_user(&files.key)?;
    let _lock = files.lock()?;
    files.settle()?;
    let keys = files.read()?;
    let Some(next) = &keys.next else { return Err(RotationError::NoRotation) };
    let (book, old) = (read(&files)?, keys.current.ca_hash());
    let left = left(config, &book, old, next.ca_hash(), now)?;
    if let Cut::These(named) = cut {
        // Until a coordinator trusts both nobody can have moved, and without its word nobody knows who there is.
        if book.trusted.as_ref().is_none_or(|(_, trusted)| *trusted != [old, next.ca_hash()]) {
            return Err(RotationError::NotInForce);
        }
        let is = |one: &Entry, name: &String| name.eq_ignore_ascii_case(&resource(&one.identity));
        let strangers = named.iter().filter(|name| !left.iter().any(|one| is(one, name)));
        let strangers: Vec<String> = strangers.cloned().collect();
        if !strangers.is_empty() {
            return Err(RotationError::NotAmongThem(strangers));
        }
        let unnamed = left.iter().filter(|one| !named.iter().any(|name| is(one, name)));
        let unnamed: Vec<Entry> = unnamed.cloned().collect();
        if !unnamed.is_empty() {
            return Err(RotationError::WouldCut(unnamed));
        }
    }
    // The one step that decides. What follows is done by `settle`, now or at the next start.
    write_public(&files.certificate, &next.cert_pem(), Existing::Replace)?;
    files.settle()?;
    Ok((Root::from(next), left))
}

/// `agents/ftp1`, as everywhere else where people name one.
#[must_use]
pub fn resource(identity: &Identity) -> String {
    match identity {
        Identity::Agent(name) => format!("agents/{name}"),
        Identity::User(name) => format!("users/{name}"),
        Identity::Server => identity.to_string(),
    }
}

fn is_retired(files: &Files, next: &CertificateAuthority) -> Result<bool, RotationError> {
    Ok(files.current_bundle()?.hashes() == [next.ca_hash()])
}

fn read(files: &Files) -> Result<Book, RotationError> {
    Book::read(&files.issued).map_err(|error| RotationError::Ledger(files.issued.clone(), error))
}

fn left(
    config: &Config,
    book: &Book,
    old: SpkiHash,
    next: SpkiHash,
    now: DateTime<Utc>,
) -> Result<Vec<Entry>, RotationError> {
    let denied = DenyList::look(&config.file(DENIED))?;
    Ok(book.left_on(old, next, now, |one| denied.is_denied(&one.identity, &one.serial, &one.key)))
}

/// Files that another user makes would be of no use to the coordinator.
fn check_user(key: &Path) -> Result<(), RotationError> {
    let owner = fs::metadata(key).map(|meta| meta.uid()).ok();
    match owner {
        Some(owner) if owner != rustix::process::geteuid().as_raw() => {
            Err(RotationError::OtherUser { file: key.to_owned(), owner })
        }
        // A key that is not there is told by whoever reads it.
        Some(_) | None => Ok(()),
    }
}
