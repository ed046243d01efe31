//! Secrets at rest: what must not stand readable in the store is sealed with a key that is not in the store, so
//! that a backup without the key file shows no password.
//!
//! AES-256-GCM, a fresh random nonce for each seal, bound to what it is for by associated data. The key file holds one
//! key a line: the first one seals, the others only open what was sealed before the key was changed. Knows nothing of
//! what it seals.
//!
//! The secrets by which replicas pull are not even sealed: they are made anew from the same key whenever they are
//! told, by HMAC-SHA256 under a key of their own.

use std::path::Path;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, MAX_TAG_LEN, NONCE_LEN, Nonce, RandomizedNonceKey},
    hkdf, hmac, rand,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use fleet::input::Pair;
use mirror_certs::{Existing, FileError, read_private, write_private};
use zeroize::Zeroizing;

/// Bytes of the key: AES-256.
const KEY_BYTES: usize = 32;
/// What every seal is bound to, so that the key is good for nothing else.
const PURPOSE: &[u8] = b"mirror.v1 upstream password";
/// What the key of the replicas' secrets is made for.
const PAIR_PURPOSE: &[u8] = b"mirror.v1 replica secrets";
/// Most keys in the file: the present one, and older ones for backups that were made with them.
const KEYS_MAX: usize = 16;
/// Longest secret that is sealed, in bytes.
pub const SECRET_BYTES_MAX: usize = 1_024;

/// Why a secret was not sealed or not read.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file.
    #[error("could not use the key file of sealed passwords; next: mirror-coordinator seal-key --help")]
    File(#[from] FileError),
    /// Not 64 hex digits.
    #[error(
        "{0} is no key of sealed passwords: wanted are 1 to {KEYS_MAX} lines of 64 hex digits; put back the file, or see `mirror-coordinator seal-key --help`"
    )]
    BadKey(String),
    /// As many keys as it may hold are there.
    #[error(
        "{0} holds {KEYS_MAX} keys already, as many as it may; next: keep a copy of it for old backups, then mirror-coordinator seal-key rotate --forget-older"
    )]
    TooManyKeys(String),
    /// The system has no random numbers.
    #[error("this host has no random numbers")]
    Random,
    /// Longer than [`SECRET_BYTES_MAX`].
    #[error("the secret is longer than {SECRET_BYTES_MAX} bytes")]
    TooLong,
    /// Made with another key, or damaged.
    #[error(
        "a stored password does not open with this key file: the store and the key file do not belong together; set the password anew"
    )]
    Unreadable,
}

/// Which key opened a seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedWith {
    /// The one that seals now.
    PresentKey,
    /// One that only opens.
    OlderKey,
    /// None of the file.
    UnknownKey,
}

/// Seals with one key, and unseals with it or an older one.
pub struct Sealer {
    /// The present one first; never empty.
    keys: Vec<RandomizedNonceKey>,
    pairs: hmac::Key,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer([hidden])")
    }
}

impl Sealer {
    /// Makes a new key file (mode 0600); refuses to replace one.
    ///
    /// # Errors
    /// [`SealError`] when the file exists or cannot be written.
    pub fn create(path: &Path) -> Result<(), SealError> {
        Ok(write_private(path, &new_line()?, Existing::Refuse)?)
    }

    /// Puts a new key in front of those of the file, which then only open.
    ///
    /// # Errors
    /// [`SealError`]; the file is as it was.
    pub fn add_key(path: &Path) -> Result<(), SealError> {
        let text = read_private(path)?;
        if lines(&text).count() >= KEYS_MAX {
            return Err(SealError::TooManyKeys(path.display().to_string()));
        }
        let text = Zeroizing::new(format!("{}{}\n", *new_line()?, text.trim()));
        Ok(write_private(path, &text, Existing::Replace)?)
    }

    /// Leaves the present key alone in the file. How many were taken out.
    ///
    /// # Errors
    /// [`SealError`]; the file is as it was.
    pub fn forget_older(path: &Path) -> Result<usize, SealError> {
        let text = read_private(path)?;
        let mut keys = lines(&text);
        let first = keys.next().ok_or_else(|| SealError::BadKey(path.display().to_string()))?;
        write_private(path, &Zeroizing::new(format!("{first}\n")), Existing::Replace)?;
        Ok(keys.count())
    }

    /// Reads the key file. There must be one: a new key would make every stored password unreadable without a word.
    ///
    /// # Errors
    /// [`SealError`] when the file is missing, open to others, or holds anything but keys.
    pub fn open(path: &Path) -> Result<Self, SealError> {
        let text = read_private(path)?;
        let bad = || SealError::BadKey(path.display().to_string());
        let (mut keys, mut pairs) = (Vec::new(), None);
        for line in lines(&text) {
            let mut key = Zeroizing::new([0u8; KEY_BYTES]);
            hex::decode_to_slice(line, key.as_mut()).map_err(|_| bad())?;
            keys.push(RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).map_err(|_| bad())?);
            if pairs.is_none() {
                pairs = Some(pair_key(&key).ok_or_else(bad)?);
            }
        }
        let pairs = pairs.filter(|_| keys.len() <= KEYS_MAX).ok_or_else(bad)?;
        Ok(Self { keys, pairs })
    }

    /// How many keys only open.
    #[must_use]
    pub fn older_keys(&self) -> usize {
        self.keys.len() - 1
    }

    /// Whether the file may hold one more key.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.keys.len() < KEYS_MAX
    }

    /// The secret by which one replica pulls one tree from one agent on one day: 43 characters of base64url.
    #[must_use]
    pub fn replica_secret(&self, pair: Pair) -> String {
        let Pair { project, origin, replica, day } = pair;
        let parts = [project.0, origin.0, replica.0, day].map(u64::to_be_bytes);
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.pairs, &parts.concat()))
    }

    /// Seals a secret: nonce, then what AES-GCM makes of it.
    ///
    /// # Errors
    /// [`SealError::TooLong`], or the host's cryptography failed.
    pub fn seal(&self, secret: &str) -> Result<Vec<u8>, SealError> {
        if secret.len() > SECRET_BYTES_MAX {
            return Err(SealError::TooLong);
        }
        let mut sealed = Vec::with_capacity(NONCE_LEN + secret.len() + MAX_TAG_LEN);
        let mut text = secret.as_bytes().to_vec();
        text.reserve(MAX_TAG_LEN);
        let nonce = self.keys[0]
            .seal_in_place_append_tag(Aad::from(PURPOSE), &mut text)
            .map_err(|_| SealError::Random)?;
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&text);
        Ok(sealed)
    }

    /// Reads a secret that [`Sealer::seal`] sealed. Wiped on drop.
    ///
    /// # Errors
    /// [`SealError::Unreadable`].
    pub fn unseal(&self, sealed: &[u8]) -> Result<Zeroizing<String>, SealError> {
        self.keys.iter().find_map(|key| open(key, sealed)).ok_or(SealError::Unreadable)
    }

    /// Which key a secret was sealed with.
    #[must_use]
    pub fn sealed_with(&self, sealed: &[u8]) -> SealedWith {
        match self.keys.iter().position(|key| open(key, sealed).is_some()) {
            Some(0) => SealedWith::PresentKey,
            Some(_) => SealedWith::OlderKey,
            None => SealedWith::UnknownKey,
        }
    }
}

fn open(key: &RandomizedNonceKey, sealed: &[u8]) -> Option<Zeroizing<String>> {
    let (nonce, rest) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut text = Zeroizing::new(rest.to_vec());
    let opened = key.open_in_place(nonce, Aad::from(PURPOSE), &mut text).ok()?;
    Some(Zeroizing::new(std::str::from_utf8(opened).ok()?.to_owned()))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// A new key as a line of the file.
fn new_line() -> Result<Zeroizing<String>, SealError> {
    let mut key = Zeroizing::new([0u8; KEY_BYTES]);
    rand::fill(key.as_mut()).map_err(|_| SealError::Random)?;
    let digits = Zeroizing::new(hex::encode(key.as_ref()));
    Ok(Zeroizing::new(format!("{}\n", *digits)))
}

fn pair_key(key: &[u8; KEY_BYTES]) -> Option<hmac::Key> {
    let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key);
    let purpose = [PAIR_PURPOSE];
    derived.expand(&purpose, hmac::HMAC_SHA256).map(hmac::Key::from).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn sealer(directory: &Path, name: &str) -> Sealer {
        let path = directory.join(name);
        Sealer::create(&path).unwrap();
        Sealer::open(&path).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_only() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (sealer(directory.path(), "one"), sealer(directory.path(), "other"));
        let sealed = one.seal("hunter2 ä").unwrap();
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        assert_ne!(sealed, one.seal("hunter2 ä").unwrap(), "each seal has its own nonce");
        assert_eq!(one.unseal(&sealed).unwrap().as_str(), "hunter2 ä");
        assert!(matches!(other.unseal(&sealed), Err(SealError::Unreadable)));
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(one.unseal(&damaged).is_err(), "byte {at}");
            assert!(one.unseal(&sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_key_file_is_private_and_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert!(matches!(Sealer::open(&path), Err(SealError::File(_))));
        Sealer::create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Sealer::create(&path), Err(SealError::File(_))));
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(Sealer::open(&path), Err(SealError::BadKey(_))));
    }

    #[test]
    fn an_added_key_seals_and_the_older_ones_still_open_until_they_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let first = sealer(directory.path(), "key");
        let old = first.seal("hunter2").unwrap();
        let pair = any_pair();
        Sealer::add_key(&path).unwrap();
        let second = Sealer::open(&path).unwrap();
        assert_eq!((second.older_keys(), second.sealed_with(&old)), (1, SealedWith::OlderKey));
        assert_eq!(second.unseal(&old).unwrap().as_str(), "hunter2");
        assert_ne!(second.replica_secret(pair), first.replica_secret(pair), "a leaked key opens no tree");
        let new = second.seal("hunter2").unwrap();
        assert_eq!(second.sealed_with(&new), SealedWith::PresentKey);
        assert_eq!(first.sealed_with(&new), SealedWith::UnknownKey);
        assert_eq!(Sealer::forget_older(&path).unwrap(), 1);
        let third = Sealer::open(&path).unwrap();
        assert!(third.unseal(&old).is_err() && third.unseal(&new).is_ok() && third.older_keys() == 0);
        for _ in 1..KEYS_MAX {
            Sealer::add_key(&path).unwrap();
        }
        assert!(matches!(Sealer::add_key(&path), Err(SealError::TooManyKeys(_))));
        assert_eq!(Sealer::open(&path).unwrap().unseal(&new).unwrap().as_str(), "hunter2");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    fn any_pair() -> Pair {
        use fleet::id::{AgentUid, ProjectUid};
        Pair { project: ProjectUid(1), origin: AgentUid(2), replica: AgentUid(3), day: 20_779 }
    }

    #[test]
    fn each_pair_of_agents_each_tree_and_each_day_has_a_secret_of_its_own() {
        use fleet::id::{AgentUid, ProjectUid};
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (sealer(directory.path(), "one"), sealer(directory.path(), "other"));
        let pair = any_pair();
        let pairs = [
            pair,
            Pair { project: ProjectUid(4), ..pair },
            Pair { origin: AgentUid(3), replica: AgentUid(2), ..pair },
            Pair { replica: AgentUid(4), ..pair },
            Pair { day: 20_780, ..pair },
        ];
        let mut secrets: Vec<String> = pairs.iter().map(|pair| one.replica_secret(*pair)).collect();
        assert_eq!(secrets[0], one.replica_secret(pair));
        secrets.push(other.replica_secret(pair));
        assert!(secrets.iter().all(|secret| secret.len() == 43 && !secret.contains([':', '#', '='])));
        assert_eq!(secrets.iter().collect::<std::collections::BTreeSet<_>>().len(), 6);
    }

    #[test]
    fn secrets_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let sealer = sealer(directory.path(), "key");
        assert!(sealer.seal(&"x".repeat(SECRET_BYTES_MAX)).is_ok());
        assert!(matches!(sealer.seal(&"x".repeat(SECRET_BYTES_MAX + 1)), Err(SealError::TooLong)));
    }
}
