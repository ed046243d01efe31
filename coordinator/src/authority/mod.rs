//! The fleet's CA as the coordinator has it: one, or two while one replaces the other (`rotation.rs`), with the list of
//! what was issued (`ledger.rs`). Everything that issues a certificate goes through here, and so does every look at which
//! CAs are trusted; both may change while the coordinator runs.
//!
//! While there are two, the old one issues the coordinator's own certificate, which every host knows how to check, and the
//! new one issues everything else. Which is which follows from the files alone:
//!
//! | `ca.pem`, `ca.key` | `ca-next.pem` | it means |
//! |---|---|---|
//! | one CA | not there | no rotation |
//! | the old CA | another CA | a rotation is under way: both are trusted |
//! | the CA of `ca-next.pem` | the same | the old one was retired a moment ago; what is left to do is done at the next look |
//!
//! Knows no policy: whether somebody may have a certificate is decided before it is asked.

pub mod ledger;
pub mod rotation;

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use chrono::{DateTime, TimeDelta, Utc};
use mirror_certs::{
    BundleError, CaBundle, CaError, CertificateAuthority, CertificateRequest, Existing, FileError, Identity,
    Issued, IssuedServer, Peer, SpkiHash, TrustDomain, read_pem, read_private, write_private,
};

use self::ledger::{Entry, Ledger};

/// The CA's certificate.
pub const CA_CERTIFICATE: &str = "ca.pem";
/// The CA's private key: whoever has it is the fleet.
pub const CA_KEY: &str = "ca.key";
/// Key and certificate of the CA that is replacing the other one; only then is there such a file.
pub const CA_NEXT: &str = "ca-next.pem";
/// Which certificates were issued and seen.
pub const ISSUED: &str = "issued.txt";
/// Held by whoever changes one of these files.
const LOCK: &str = "ca.lock";
/// Only the coordinator's user opens it.
const LOCK_MODE: u32 = 0o600;
/// Longest wait for another program that changes them, which takes milliseconds.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
/// Pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why the CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error("could not use the coordinator's own files")]
    File(#[from] FileError),
    /// The CA is unusable.
    #[error("could not use the fleet's CA in {0}")]
    Ca(PathBuf, #[source] CaError),
    /// Two CAs that cannot be trusted side by side.
    #[error("could not trust the fleet's CA and the next one side by side")]
    Bundle(#[from] BundleError),
    /// Another program is changing the files, or the lock is not to be had.
    #[error("could not lock {0}; does another command change the fleet's CA?")]
    Lock(PathBuf, #[source] io::Error),
    /// The file that is no longer wanted.
    #[error("could not remove {0}")]
    Remove(PathBuf, #[source] io::Error),
}

/// Where the CA's files are.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    dir: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    next: PathBuf,
    issued: PathBuf,
}

impl Files {
    pub(crate) fn of(dir: &Path) -> Self {
        let file = |name: &str| dir.join(name);
        let (certificate, key, next) = (file(CA_CERTIFICATE), file(CA_KEY), file(CA_NEXT));
        Self { dir: dir.to_owned(), certificate, key, next, issued: file(ISSUED) }
    }

    /// Waits until nobody else changes the files; until the answer is dropped nobody does.
    fn lock(&self) -> Result<File, AuthorityError> {
        let path = self.dir.join(LOCK);
        let failed = |error| AuthorityError::Lock(path.clone(), error);
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(LOCK_MODE).open(&path);
        let file = options.map_err(failed)?;
        let tries = LOCK_WAIT_MAX.as_millis() / LOCK_PAUSE.as_millis();
        for _ in 0..tries {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        Err(failed(io::ErrorKind::TimedOut.into()))
    }

    fn of_next(&self) -> Result<Option<CertificateAuthority>, AuthorityError> {
        if !self.next.exists() {
            return Ok(None);
        }
        let both = read_private(&self.next)?;
        let next = CertificateAuthority::load(&both, &both);
        next.map(Some).map_err(|error| AuthorityError::Ca(self.dir.clone(), error))
    }

    /// Ends a retirement that was interrupted. With the lock held.
    fn settle(&self) -> Result<(), AuthorityError> {
        let Some(next) = self.of_next()? else { return Ok(()) };
        if self.current_bundle()?.hashes() == [next.ca_hash()] {
            write_private(&self.key, &next.key_pem(), Existing::Replace)?;
            fs::remove_file(&self.next).map_err(|error| AuthorityError::Remove(self.next.clone(), error))?;
        }
        Ok(())
    }

    /// The CA whose certificate is in `ca.pem`, whether or not its key is in place.
    fn current_bundle(&self) -> Result<CaBundle, AuthorityError> {
        Ok(CaBundle::from_pem(&read_pem(&self.certificate)?)?)
    }

    fn read(&self) -> Result<Keys, AuthorityError> {
        let (certificate, key) = (read_pem(&self.certificate)?, read_private(&self.key)?);
        let current = CertificateAuthority::load(&certificate, &key)
            .map_err(|error| AuthorityError::Ca(self.dir.clone(), error))?;
        let next = self.of_next()?;
        let bundle = match &next {
            Some(next) => current.bundle().union(&next.bundle())?,
            None => current.bundle(),
        };
        let names = bundle.names();
        Ok(Keys { current, next, bundle, names })
    }
}

/// The CAs in force.
struct Keys {
    /// The one that issues the coordinator's own certificate.
    current: CertificateAuthority,
    /// The one that replaces it.
    next: Option<CertificateAuthority>,
    bundle: CaBundle,
    /// Name and key hash of each, read once: they are looked up for every request.
    names: Vec<(Vec<u8>, SpkiHash)>,
}

impl Keys {
    /// Issues for agents and users.
    fn issuing(&self) -> &CertificateAuthority {
        self.next.as_ref().unwrap_or(&self.current)
    }

    /// The key hash of the CA that issued this certificate, as [`CaBundle::issuer_hash`] has it.
    fn issuer_hash(&self, peer: &Peer) -> Option<SpkiHash> {
        self.names.iter().find(|(name, _)| *name == peer.issuer).map(|(_, hash)| *hash)
    }

    /// Issues for the coordinator: what every host can check, as long as that is valid at all.
    fn of_server(&self, now: DateTime<Utc>) -> &CertificateAuthority {
        match &self.next {
            Some(next) if now >= self.current.not_after() => next,
            _ => &self.current,
        }
    }
}

/// What is other than what was taken over last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The same CAs as before.
    None,
    /// One is trusted that was not.
    Added,
    /// One is trusted no more: what was begun under it is to be cut.
    Removed,
}

/// The CAs that are trusted, and the one that issues: what agents compare with their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Key hashes of all of them.
    pub hashes: Vec<SpkiHash>,
    /// Key hash of the one that issues agents' certificates.
    pub issuing: SpkiHash,
}

/// The fleet's CA. The list of what was issued is kept by the way.
pub struct Authority {
    files: Files,
    trust_domain: TrustDomain,
    keys: ArcSwap<Keys>,
    /// Key hashes of the CAs whose coming and going everybody was told of.
    adopted: Mutex<Vec<SpkiHash>>,
    ledger: Ledger,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("trust", &self.trust()).finish_non_exhaustive()
    }
}

impl Authority {
    /// Reads the files in this folder, and ends a retirement that was interrupted. Blocks for moments.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn load(dir: &Path) -> Result<Self, AuthorityError> {
        let files = Files::of(dir);
        let keys = {
            let _lock = files.lock()?;
            files.settle()?;
            files.read()?
        };
        let (trust_domain, ledger) = (keys.current.trust_domain().clone(), Ledger::open(&files.issued));
        let adopted = Mutex::new(keys.bundle.hashes());
        Ok(Self { files, trust_domain, keys: ArcSwap::from_pointee(keys), adopted, ledger })
    }

    /// What was taken over last. Whoever takes a change over holds it from the reading to the last consequence, and then
    /// puts the new hashes in: one at a time, and what fails in the middle is a change still at the next try.
    pub fn adopting(&self) -> MutexGuard<'_, Vec<SpkiHash>> {
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the files anew; what they say differs so from what was taken over last.
    ///
    /// # Errors
    /// [`AuthorityError`]; what was in force stays.
    pub fn reload(&self, adopted: &[SpkiHash]) -> Result<Change, AuthorityError> {
        let keys = {
            let _lock = self.files.lock()?;
            self.files.settle()?;
            self.files.read()?
        };
        let now = keys.bundle.hashes();
        self.keys.store(Arc::new(keys));
        Ok(match () {
            () if adopted.iter().any(|hash| !now.contains(hash)) => Change::Removed,
            () if adopted != now => Change::Added,
            () => Change::None,
        })
    }

    /// Issues a certificate for an agent or a user; see [`CertificateAuthority::issue`].
    ///
    /// # Errors
    /// [`CaError`].
    pub fn issue(
        &self,
        request: &CertificateRequest,
        identity: &Identity,
        now: DateTime<Utc>,
        life: TimeDelta,
    ) -> Result<Issued, CaError> {
        let keys = self.keys.load();
        let issued = keys.issuing().issue(request, identity, now, life)?;
        self.ledger.issued(&Entry {
            time: now,
            used: false,
            issuer: keys.issuing().ca_hash(),
            serial: issued.serial.clone(),
            key: issued.spki_hash,
            identity: identity.clone(),
            until: issued.not_after,
        });
        Ok(issued)
    }

    /// [`Authority::issue`] from a request as PEM text.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn issue_from_csr(
        &self,
        csr_pem: &str,
        identity: &Identity,
        now: DateTime<Utc>,
        life: TimeDelta,
    ) -> Result<Issued, CaError> {
        self.issue(&CertificateRequest::from_pem(csr_pem)?, identity, now, life)
    }

    /// Makes the coordinator's certificate; see [`CertificateAuthority::issue_server`].
    ///
    /// # Errors
    /// [`CaError`].
    pub fn issue_server(
        &self,
        names: &[impl AsRef<str>],
        now: DateTime<Utc>,
    ) -> Result<IssuedServer, CaError> {
        self.keys.load().of_server(now).issue_server(names, now)
    }

    /// Whether the coordinator's certificate comes from the CA that issues it now.
    #[must_use]
    pub fn issues_for_server(&self, certificate: &Peer, now: DateTime<Utc>) -> bool {
        let keys = self.keys.load();
        keys.bundle.issuer_hash(certificate) == Some(keys.of_server(now).ca_hash())
    }

    /// The hash by which hosts recognise the fleet when they enrol: of the CA whose certificate the port shows.
    #[must_use]
    pub fn ca_hash(&self) -> SpkiHash {
        self.keys.load().current.ca_hash()
    }

    /// End of the CA that issues agents' certificates.
    #[must_use]
    pub fn not_after(&self) -> DateTime<Utc> {
        self.keys.load().issuing().not_after()
    }

    /// The CAs that are trusted: what is handed to those who enrol or renew.
    #[must_use]
    pub fn bundle(&self) -> CaBundle {
        self.keys.load().bundle.clone()
    }

    /// What agents compare with what they have.
    #[must_use]
    pub fn trust(&self) -> Trust {
        let keys = self.keys.load();
        Trust { hashes: keys.bundle.hashes(), issuing: keys.issuing().ca_hash() }
    }

    /// The trust domain of every identity.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Whether a CA that is trusted has issued this certificate, which a handshake has verified: that one may have begun
    /// when another CA still was.
    #[must_use]
    pub fn trusts(&self, peer: &Peer) -> bool {
        self.keys.load().issuer_hash(peer).is_some()
    }

    /// Somebody was let in with this certificate.
    pub fn seen(&self, peer: &Peer, now: DateTime<Utc>) {
        if let Some(issuer) = self.keys.load().issuer_hash(peer) {
            self.ledger.used(peer, issuer, now);
        }
    }

    /// Enters the newest certificate of an agent that the list lacks, such as after the list was lost.
    pub(crate) fn complete(&self, agents: impl Iterator<Item = Entry>) {
        let Ok(book) = ledger::Book::read(&self.files.issued) else { return };
        let known: std::collections::HashSet<_> = book.entries.into_iter().map(|one| one.serial).collect();
        agents.filter(|one| !known.contains(&one.serial)).for_each(|one| self.ledger.issued(&one));
    }

    /// Notes in the list what a coordinator trusts that runs.
    pub(crate) fn note_in_force(&self, now: DateTime<Utc>) {
        self.ledger.trusts(&self.trust().hashes, now);
    }

    /// Drops what the list need not say any more.
    ///
    /// # Errors
    /// The system's; the list is then what it was.
    pub fn tidy(&self, now: DateTime<Utc>) -> io::Result<()> {
        self.ledger.tidy(now)
    }
}
