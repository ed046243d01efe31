//! Host names and addresses as they stand in a URI. Does NOT resolve names.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::uri::UriError;

/// Longest host name, in bytes (RFC 1035 gives 253).
pub const HOST_BYTES_MAX: usize = 253;
/// Longest label of a host name, in bytes (RFC 1035).
pub const LABEL_BYTES_MAX: usize = 63;

/// The host of a URI, validated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A host name, in lower case, see [`valid_host`].
    Name(String),
    /// An IPv4 address in dotted form.
    V4(Ipv4Addr),
    /// An IPv6 address; `Display` puts it in brackets.
    V6(Ipv6Addr),
}

impl Host {
    /// Reads a host as it stands in a URI, IPv6 in brackets.
    ///
    /// # Errors
    /// [`UriError::Host`] for anything that is neither a host name nor an address.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return inner.parse().map(Self::V6).map_err(|_| UriError::Host);
        }
        if let Ok(v4) = text.parse() {
            return Ok(Self::V4(v4));
        }
        if valid_host(text) { Ok(Self::Name(text.to_ascii_lowercase())) } else { Err(UriError::Host) }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => write!(f, "[{address}]"),
        }
    }
}

/// Whether `text` is a host name: letters, digits, `-` and `.`, beginning and ending with a letter or digit,
/// no empty label, at most [`HOST_BYTES_MAX`] bytes. A last label that is a number is refused, since resolvers
/// read `127.1` and `0x7f000001` as addresses (WHATWG URL, "ends in a number"). Addresses are not host names.
#[must_use]
pub fn valid_host(text: &str) -> bool {
    let label_ok = |label: &str| {
        let bytes = label.as_bytes();
        (1..=LABEL_BYTES_MAX).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_number = last.bytes().all(|b| b.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    text.len() <= HOST_BYTES_MAX && text.split('.').all(label_ok) && !is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let label = "a".repeat(LABEL_BYTES_MAX);
        for good in ["a", "ftp.example.org", "x-1.y", "1a", "127.0.0.1a", "0x.example", "0xg", &label] {
            assert!(valid_host(good), "{good}");
        }
        let long = format!("{label}.").repeat(4) + "a";
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "a_b",
            "a b",
            "ä",
            "127.0.0.1",
            "127.1",
            "a.0x1f",
            "0x",
            "[::1]",
            "a:b",
            "a/b",
            "a@b",
            "a\n",
            &format!("{label}a"),
            &long,
        ] {
            assert!(!valid_host(bad), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        for (text, shown) in
            [("[2001:DB8::1]", "[2001:db8::1]"), ("192.0.2.1", "192.0.2.1"), ("FTP.example", "ftp.example")]
        {
            assert_eq!(Host::parse(text).map(|host| host.to_string()).as_deref(), Ok(shown));
        }
        for bad in ["[]", "[192.0.2.1]", "[::1", "::1", "[::1%eth0]", "192.0.2.256", "192.0.2.01"] {
            assert_eq!(Host::parse(bad), Err(UriError::Host), "{bad}");
        }
    }
}
