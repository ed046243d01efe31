//! Key pairs of agents, users, the coordinator and the CA, and the certificate requests made with them. A key is made
//! on the host that uses it and never leaves it; every copy this module makes of it is wiped on drop.

use std::fmt;
use std::path::Path;

use rcgen::{CertificateParams, DistinguishedName, PublicKeyData, SigningKey};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::file::{self, Existing, FileError};
use crate::pem;
use crate::spki::SpkiHash;

/// Why there is no key pair or no request.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No random numbers, or the library refused to sign.
    #[error("could not make a key pair or sign with it; fault: this host's cryptography library")]
    Crypto(#[source] rcgen::Error),
    /// Not a private key in PEM.
    #[error("no usable private key in the PEM text; wanted is an unencrypted PKCS #8 or EC key")]
    Pem,
    /// The file could not be read.
    #[error("could not load the private key")]
    File(#[from] FileError),
}

/// A private key with its public half.
pub struct KeyPair(rcgen::KeyPair);

impl KeyPair {
    /// Makes a new ECDSA P-256 key pair.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] when the system has no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        rcgen::KeyPair::generate().map(Self).map_err(KeyError::Crypto)
    }

    /// Reads the first private key of a PEM text, which may also hold certificates.
    ///
    /// # Errors
    /// [`KeyError::Pem`] when there is none.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let mut der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::Pem)?;
        let pair = rcgen::KeyPair::try_from(&der).map(Self).map_err(|_| KeyError::Pem);
        // rustls-pki-types wipes only when asked.
        der.zeroize();
        pair
    }

    /// Reads a private key file.
    ///
    /// # Errors
    /// [`KeyError`], also when other users of the host may access the file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::from_pem(&file::read_private(path)?)
    }

    /// The private key as PKCS #8 PEM. Wiped on drop; write it with [`KeyPair::write_private`] or not at all.
    #[must_use]
    pub fn pem(&self) -> Zeroizing<String> {
        pem::encode("PRIVATE KEY", self.0.serialized_der())
    }

    /// Writes the private key to a file of mode 0600, whole or not at all.
    ///
    /// # Errors
    /// [`FileError`], also when the file exists and `existing` says to refuse.
    pub fn write_private(&self, path: &Path, existing: Existing) -> Result<(), FileError> {
        file::write_private(path, &self.pem(), existing)
    }

    /// A certificate request (PKCS #10 PEM) for this key. It asks for no name: the issuer decides that, and would
    /// ignore one.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] when signing fails.
    pub fn csr_pem(&self) -> Result<String, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serialize_request(self).and_then(|request| request.pem()).map_err(KeyError::Crypto)
    }

    /// The hash of the public key.
    #[must_use]
    pub fn spki_hash(&self) -> SpkiHash {
        SpkiHash::of_spki(&self.0.subject_public_key_info())
    }
}

impl Drop for KeyPair {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("spki_hash", &self.spki_hash()).finish_non_exhaustive()
    }
}

// So that a KeyPair signs certificates and requests itself and no second, unwiped copy is made for that.
impl PublicKeyData for KeyPair {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        PublicKeyData::algorithm(&self.0)
    }
}

impl SigningKey for KeyPair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csr::CertificateRequest;

    #[test]
    fn a_written_key_is_the_same_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.key");
        let key = KeyPair::generate().unwrap();
        key.write_private(&path, Existing::Refuse).unwrap();
        assert_eq!(KeyPair::load(&path).unwrap().spki_hash(), key.spki_hash());
        assert!(matches!(key.write_private(&path, Existing::Refuse), Err(FileError::Exists(_))));
    }

    #[test]
    fn its_request_carries_its_public_key() {
        let key = KeyPair::generate().unwrap();
        let request = CertificateRequest::from_pem(&key.csr_pem().unwrap()).unwrap();
        assert_eq!(request.spki_hash(), key.spki_hash());
    }

    #[test]
    fn debug_shows_no_key() {
        let key = KeyPair::generate().unwrap();
        let shown = format!("{key:?}");
        let pem = key.pem();
        assert!(shown.contains(&key.spki_hash().to_string()));
        assert!(pem.lines().filter(|l| !l.starts_with('-')).all(|line| !shown.contains(line)), "{shown}");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let request = KeyPair::generate().unwrap().csr_pem().unwrap();
        for bad in [
            "",
            "garbage",
            request.as_str(),
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            assert!(matches!(KeyPair::from_pem(bad), Err(KeyError::Pem)), "{bad:?}");
        }
    }
}
