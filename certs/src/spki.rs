//! The hash of a public key: SHA-256 over the DER SubjectPublicKeyInfo, as RFC 7469 pins keys (written here in hex).
//!
//! It names the key, not the certificate: a CA renewed with its key keeps its hash, and a CSR and the certificate
//! issued from it have the same one.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};

use crate::x509::{self, MalformedCertificate};

/// Bytes of a SHA-256 digest.
const SHA256_BYTES: usize = 32;

/// The prefix of the text form.
const PREFIX: &str = "sha256:";

/// SHA-256 of a DER SubjectPublicKeyInfo; text form `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpkiHash([u8; SHA256_BYTES]);

/// The text is not `sha256:` and 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a key hash: `{text}`; a key hash is `sha256:` and 64 hex digits; copy it whole")]
pub struct SpkiHashError {
    /// The refused text, cut to a bounded length.
    text: String,
}

impl SpkiHash {
    /// The hash of this DER SubjectPublicKeyInfo.
    pub(crate) fn of_spki(spki_der: &[u8]) -> Self {
        let mut bytes = [0; SHA256_BYTES];
        bytes.copy_from_slice(digest(&SHA256, spki_der).as_ref());
        Self(bytes)
    }

    /// The hash of the public key in this DER certificate.
    ///
    /// # Errors
    /// [`MalformedCertificate`] when `der` is not exactly one certificate.
    pub fn of_certificate(der: &[u8]) -> Result<Self, MalformedCertificate> {
        Ok(Self::of_spki(x509::parse(der)?.public_key().raw))
    }
}

impl fmt::Display for SpkiHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(self.0))
    }
}

impl fmt::Debug for SpkiHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SpkiHash {
    type Err = SpkiHashError;

    /// Reads the text form; the hex digits may be of either case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        /// Characters of a refused text that the error repeats.
        const SHOWN_CHARS: usize = 100;

        let mut bytes = [0; SHA256_BYTES];
        text.strip_prefix(PREFIX)
            .filter(|digits| hex::decode_to_slice(digits, &mut bytes).is_ok())
            .map(|_| Self(bytes))
            .ok_or_else(|| SpkiHashError { text: text.chars().take(SHOWN_CHARS).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let hash = SpkiHash::of_spki(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hash.to_string(), text);
        assert_eq!(text.parse::<SpkiHash>().unwrap(), hash);
        let upper = format!("sha256:{}", &text[7..].to_uppercase());
        assert_eq!(upper.parse::<SpkiHash>().unwrap(), hash);
    }

    #[test]
    fn everything_else_is_refused() {
        let good = SpkiHash::of_spki(b"").to_string();
        for bad in
            ["", "sha256:", &good[..70], &good[7..], &format!("{good}0"), &format!(" {good}"), "sha1:00"]
        {
            assert!(bad.parse::<SpkiHash>().is_err(), "{bad:?}");
        }
    }
}
