//! Passwords: argon2id, off the runtime's threads, and only so many at once: each takes tens of milliseconds and
//! 19 MiB, so a flood of logins would otherwise take all processors and all memory.
//!
//! Knows no users. What is stored is a PHC string with its parameters, so that those of new ones may change.

use std::{sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHash as Phc, PasswordHasher as _, PasswordVerifier as _, SaltString},
};
use fleet::{
    agent::PasswordHash,
    defaults::{PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN},
};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Passwords that are hashed or compared at once.
pub const HASHES_MAX: usize = 2;
/// Those that wait for a place, besides.
pub const HASHES_WAITING_MAX: usize = 30;
/// When to come back when all places are taken.
pub const BUSY_RETRY: Duration = Duration::from_secs(2);
/// Memory of one hash, in KiB (OWASP Password Storage Cheat Sheet: 19 MiB, 2 passes, 1 lane).
const MEMORY_KIB: u32 = 19 * 1_024;
/// Passes over it.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;
/// Random bytes of a salt.
const SALT_BYTES: usize = 16;
/// Bytes of a hash.
const HASH_BYTES: usize = 32;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many at once.
    #[error("more passwords are being compared than this coordinator takes at once; try again in a moment")]
    Busy,
    /// A stored hash is damaged, or the host has no random numbers.
    #[error("could not hash a password: {0}")]
    Broken(String),
}

/// Hashes and compares passwords.
#[derive(Debug, Clone)]
pub struct Passwords {
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(HASHES_MAX)),
            waiting: Arc::new(Semaphore::new(HASHES_MAX + HASHES_WAITING_MAX)),
        }
    }
}

/// The rule that a new password breaks; `None`: it is good. Nothing of it is repeated.
#[must_use]
pub fn fault_of(password: &str) -> Option<String> {
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return Some(format!("must have at least {PASSWORD_CHARS_MIN} characters"));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Some(format!("must not be longer than {PASSWORD_BYTES_MAX} bytes"));
    }
    password.chars().any(char::is_control).then(|| "must not hold control characters".to_owned())
}

impl Passwords {
    /// What is stored of a password.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<PasswordHash, PasswordError> {
        self.apart(move || {
            let mut salt = [0u8; SALT_BYTES];
            aws_lc_rs::rand::fill(&mut salt).map_err(|_| broken("this host has no random numbers"))?;
            let salt = SaltString::encode_b64(&salt).map_err(broken)?;
            let hash = argon2()?.hash_password(password.as_bytes(), &salt).map_err(broken)?;
            Ok(PasswordHash(hash.to_string()))
        })
        .await
    }

    /// Whether it is this password. Without a hash the same work is done, and the answer is no: the time tells nobody
    /// whether there is such a user.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn is(
        &self,
        password: Zeroizing<String>,
        hash: Option<PasswordHash>,
    ) -> Result<bool, PasswordError> {
        self.apart(move || {
            let Some(PasswordHash(hash)) = hash else {
                let mut out = [0u8; HASH_BYTES];
                let salt = [0u8; SALT_BYTES];
                argon2()?.hash_password_into(password.as_bytes(), &salt, &mut out).map_err(broken)?;
                return Ok(false);
            };
            let hash = Phc::new(&hash).map_err(broken)?;
            if hash.salt.is_none() || hash.hash.is_none() {
                return Err(broken("a stored hash of a password is damaged"));
            }
            match argon2()?.verify_password(password.as_bytes(), &hash) {
                Ok(()) => Ok(true),
                Err(argon2::password_hash::Error::Password) => Ok(false),
                Err(error) => Err(broken(error)),
            }
        })
        .await
    }

    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _waiting = self.waiting.try_acquire().map_err(|_| PasswordError::Busy)?;
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(broken)?;
        let done = tokio::task::spawn_blocking(move || {
            // Held by the work itself: a caller that goes away frees no place that is still in use.
            let _place = place;
            work()
        });
        done.await.map_err(broken)?
    }
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_BYTES)).map_err(broken)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn broken(error: impl ToString) -> PasswordError {
    PasswordError::Broken(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_and_no_other_is() {
        let passwords = Passwords::default();
        let hash = passwords.hash(secret("correct horse battery")).await.unwrap();
        assert!(hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.0);
        assert_ne!(
            hash,
            passwords.hash(secret("correct horse battery")).await.unwrap(),
            "each has its own salt"
        );
        assert!(passwords.is(secret("correct horse battery"), Some(hash.clone())).await.unwrap());
        for wrong in ["correct horse batterx", "", "correct horse battery "] {
            assert!(!passwords.is(secret(wrong), Some(hash.clone())).await.unwrap(), "{wrong:?}");
        }
        assert!(!passwords.is(secret("correct horse battery"), None).await.unwrap());
    }

    #[tokio::test]
    async fn all_of_a_long_password_counts() {
        let passwords = Passwords::default();
        let long = "x".repeat(PASSWORD_BYTES_MAX);
        let hash = passwords.hash(secret(&long)).await.unwrap();
        let other = format!("{}y", &long[1..]);
        assert!(!passwords.is(secret(&other), Some(hash.clone())).await.unwrap());
        assert!(passwords.is(secret(&long), Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn a_damaged_hash_is_no_wrong_password() {
        let damaged = Some(PasswordHash("$argon2id$nonsense".to_owned()));
        let answer = Passwords::default().is(secret("correct horse battery"), damaged).await;
        assert!(matches!(answer, Err(PasswordError::Broken(_))));
    }

    #[tokio::test]
    async fn too_many_at_once_are_told_so() {
        let passwords = Passwords::default();
        let all = u32::try_from(HASHES_MAX + HASHES_WAITING_MAX).unwrap();
        let taken = Arc::clone(&passwords.waiting).acquire_many_owned(all).await.unwrap();
        assert!(matches!(passwords.is(secret("x"), None).await, Err(PasswordError::Busy)));
        drop(taken);
        assert!(!passwords.is(secret("x"), None).await.unwrap());
    }

    #[test]
    fn new_passwords_are_neither_short_nor_endless() {
        assert_eq!(fault_of("correct horse"), None);
        assert_eq!(fault_of(&"ä".repeat(PASSWORD_CHARS_MIN)), None);
        for bad in ["", "hunter2", "eleven char", "with a\nline end", &"x".repeat(PASSWORD_BYTES_MAX + 1)] {
            let fault = fault_of(bad).unwrap();
            assert!(bad.is_empty() || !fault.contains(bad), "{fault}");
        }
    }
}
