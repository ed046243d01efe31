//! Serial numbers of certificates, in the one spelling that certificates, the store and the deny list share.

use std::fmt;
use std::str::FromStr;

/// Longest serial number, in bytes: RFC 5280, section 4.1.2.2.
const SERIAL_BYTES_MAX: usize = 20;

/// Not a serial number in our spelling.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no serial number: 1 to {SERIAL_BYTES_MAX} bytes in lower-case hex, not starting with 00; `cert show` prints it"
)]
pub struct SerialError(String);

/// A certificate's serial number: lower-case hex, without leading zero bytes, at most 20 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(String);

impl Serial {
    /// The serial number as hex.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From the bytes in a certificate, where a zero byte in front keeps a number positive.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, SerialError> {
        let zeros = bytes.iter().take_while(|&&b| b == 0).count();
        hex::encode(&bytes[zeros..]).parse()
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let whole = text.len().is_multiple_of(2) && (1..=SERIAL_BYTES_MAX).contains(&(text.len() / 2));
        if !digits || !whole || text.starts_with("00") {
            return Err(SerialError(text.chars().take(2 * SERIAL_BYTES_MAX + 1).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        for good in ["01", "ff", "0a1b", &"ab".repeat(20)] {
            assert_eq!(good.parse::<Serial>().unwrap().as_str(), good);
        }
        for bad in ["", "1", "00ff", "AB", "0x", "a b", "ab\n", &"ab".repeat(21)] {
            assert!(bad.parse::<Serial>().is_err(), "{bad:?}");
        }
        assert_eq!(Serial::from_bytes(&[0, 0x9f, 0, 1]).unwrap().as_str(), "9f0001");
        assert!(Serial::from_bytes(&[0]).is_err());
        assert!(Serial::from_bytes(&[1; 21]).is_err());
    }
}
