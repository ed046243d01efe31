//! Secrets at rest: what must not stand readable in the store is sealed with a key that is not in the store, so
//! that a backup without the key file shows no password.
//!
//! AES-256-GCM, a fresh random nonce for each seal, bound to what it is for by associated data. Knows one key;
//! knows nothing of what it seals.
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
/// Longest secret that is sealed, in bytes.
pub const SECRET_BYTES_MAX: usize = 1_024;

/// Why a secret was not sealed or not read.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file.
    #[error("could not use the key file of sealed passwords")]
    File(#[from] FileError),
    /// Not 64 hex digits.
    #[error(
        "{0} is no key of sealed passwords: wanted are 64 hex digits; put back the file that `mirror-coordinator init` wrote"
    )]
    BadKey(String),
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

/// Seals and unseals with one key.
pub struct Sealer {
    key: RandomizedNonceKey,
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
        let mut key = Zeroizing::new([0u8; KEY_BYTES]);
        rand::fill(key.as_mut()).map_err(|_| SealError::Random)?;
        let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(hex::encode(key.as_ref()))));
        Ok(write_private(path, &text, Existing::Refuse)?)
    }

    /// Reads the key file. There must be one: a new key would make every stored password unreadable without a word.
    ///
    /// # Errors
    /// [`SealError`] when the file is missing, open to others, or holds no key.
    pub fn open(path: &Path) -> Result<Self, SealError> {
        let text = read_private(path)?;
        let mut key = Zeroizing::new([0u8; KEY_BYTES]);
        let bad = || SealError::BadKey(path.display().to_string());
        hex::decode_to_slice(text.trim(), key.as_mut()).map_err(|_| bad())?;
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key.as_ref());
        let purpose = [PAIR_PURPOSE];
        let pairs = derived.expand(&purpose, hmac::HMAC_SHA256).map_err(|_| bad())?;
        let pairs = hmac::Key::from(pairs);
        RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).map(|key| Self { key, pairs }).map_err(|_| bad())
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
        let nonce = self
            .key
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
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or(SealError::Unreadable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Unreadable)?;
        let mut text = Zeroizing::new(rest.to_vec());
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(PURPOSE), &mut text)
            .map_err(|_| SealError::Unreadable)?;
        let opened = std::str::from_utf8(opened).map_err(|_| SealError::Unreadable)?;
        Ok(Zeroizing::new(opened.to_owned()))
    }
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
    fn each_pair_of_agents_each_tree_and_each_day_has_a_secret_of_its_own() {
        use fleet::id::{AgentUid, ProjectUid};
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (sealer(directory.path(), "one"), sealer(directory.path(), "other"));
        let pair = Pair { project: ProjectUid(1), origin: AgentUid(2), replica: AgentUid(3), day: 20_779 };
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
