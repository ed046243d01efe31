//! What `rsync --version` says. Does NOT decide which versions are acceptable: that is the fleet's `min_rsync`.

use std::fmt;

/// Most bytes of `rsync --version` that are read; 3.5.0 prints about 1,100.
pub const VERSION_TEXT_BYTES_MAX: usize = 16 << 10;

/// An rsync program's version and what it was built with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Major, minor, patch: compare with `<`. Distributions fix security faults without changing it.
    pub release: (u32, u32, u32),
    /// Newest wire protocol it speaks; 32 for 3.2.7 and 3.5.0.
    pub protocol: u32,
    /// What it can do.
    pub features: RsyncFeatures,
}

/// What an rsync program can do, as far as the arguments of a pull depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RsyncFeatures {
    /// `--drop-D`: the receiver makes no devices whatever was asked for (3.5.0).
    pub drop_devices: bool,
    /// `--confine-root=DIR`: refuses its own directories outside DIR (3.5.0).
    pub confine_root: bool,
    /// Built with ACL support.
    pub acls: bool,
    /// Built with support for extended attributes.
    pub xattrs: bool,
}

/// The text is not what `rsync --version` prints.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the program does not answer --version as rsync does")]
pub struct NotRsync;

impl Version {
    /// Reads the output of `rsync --version`: the first line and the list of capabilities.
    ///
    /// # Errors
    /// [`NotRsync`] if the first line is not `rsync  version X.Y.Z  protocol version N`.
    pub fn parse(text: &[u8]) -> Result<Self, NotRsync> {
        let text = String::from_utf8_lossy(&text[..text.len().min(VERSION_TEXT_BYTES_MAX)]);
        let mut words = text.lines().next().unwrap_or_default().split_ascii_whitespace();
        if words.next() != Some("rsync") || words.next() != Some("version") {
            return Err(NotRsync);
        }
        let release = words.next().and_then(parse_release).ok_or(NotRsync)?;
        if words.next() != Some("protocol") || words.next() != Some("version") {
            return Err(NotRsync);
        }
        let protocol = words.next().and_then(|word| word.parse().ok()).ok_or(NotRsync)?;
        let has = |name: &str| capabilities(&text).any(|capability| capability == name);
        let features = RsyncFeatures {
            drop_devices: release >= (3, 5, 0),
            confine_root: release >= (3, 5, 0),
            acls: has("ACLs"),
            xattrs: has("xattrs"),
        };
        Ok(Self { release, protocol, features })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, patch) = self.release;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// `3.5.0`, `v3.2.3`, `3.4.0pre1`: the leading digits of three parts.
fn parse_release(word: &str) -> Option<(u32, u32, u32)> {
    let mut parts = word.trim_start_matches('v').split('.').map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse().ok()
    });
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

/// The comma list after `Capabilities:`, which runs over indented lines. Missing ones appear as `no NAME`.
fn capabilities(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .skip_while(|line| line.trim() != "Capabilities:")
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .flat_map(|line| line.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        for (word, release) in [
            ("3.5.0", Some((3, 5, 0))),
            ("v3.2.3", Some((3, 2, 3))),
            ("3.4.0pre1", Some((3, 4, 0))),
            ("3.4", Some((3, 4, 0))),
            ("three", None),
            ("", None),
        ] {
            assert_eq!(parse_release(word), release, "{word}");
        }
    }

    #[test]
    fn a_missing_capability_is_not_there() {
        let text = b"rsync  version 3.1.0  protocol version 31\nCapabilities:\n    no ACLs, xattrs\nOther:\n    ACLs\n";
        let version = Version::parse(text).unwrap();
        assert!(!version.features.acls && version.features.xattrs && !version.features.drop_devices);
        assert_eq!(version.to_string(), "3.1.0");
    }

    #[test]
    fn other_programs_are_not_rsync() {
        for text in [
            "",
            "openrsync: protocol version 29\n",
            "rsync  version x  protocol version 32",
            "rsync  version 3.5.0",
        ] {
            assert_eq!(Version::parse(text.as_bytes()), Err(NotRsync), "{text}");
        }
    }
}
