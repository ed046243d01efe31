//! Identities. Each is parsed once and never re-checked. Names are for people and may change; uids are for
//! ever, and every key, epoch, lock, journal entry and spread hash uses them.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// A name of a project, agent or user: `[A-Za-z0-9][A-Za-z0-9._+-]{0,62}`. Unique ignoring case (real sites
/// have CPAN, CTAN, KaOS), so it compares, orders and hashes without case and prints as it was given.
#[derive(Clone)]
pub struct Name(String);

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("only letters, digits and . _ + - (at most {NAME_BYTES_MAX}), the first one a letter or digit")]
pub struct BadName;

impl Name {
    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether both are written in the same way, too: names that are equal may differ in case.
    #[must_use]
    pub fn is_spelt_as(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// What decides equality.
    #[must_use]
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let mut bytes = text.bytes();
        let first = bytes.next().ok_or(BadName)?;
        let rest_ok = bytes.all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b));
        if text.len() > NAME_BYTES_MAX || !first.is_ascii_alphanumeric() || !rest_ok {
            return Err(BadName);
        }
        Ok(Self(text.to_owned()))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let folded = |byte: u8| byte.to_ascii_lowercase();
        self.0.bytes().map(folded).cmp(other.0.bytes().map(folded))
    }
}

impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.folded().hash(state);
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// A project's immutable id. Never given twice, so a re-created name inherits nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectUid(pub u64);

/// An agent's immutable id. Never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentUid(pub u64);

/// A run's id: a `UUIDv7`, so that order is time. Never below one given before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub Uuid);

impl RunId {
    /// The id that sorts before all others.
    pub const NIL: Self = Self(Uuid::nil());

    /// A new id for `wall_ms` (milliseconds since 1970), above `last` whatever the clock says.
    #[must_use]
    pub fn mint(wall_ms: i64, entropy: u64, last: Self) -> Self {
        let mut random = [0u8; 10];
        random[..8].copy_from_slice(&entropy.to_be_bytes());
        random[8..].copy_from_slice(&entropy.rotate_left(17).to_be_bytes()[..2]);
        let millis = u64::try_from(wall_ms).unwrap_or(0);
        let fresh =
            Uuid::from_u128(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().as_u128());
        // The last one known after a restart need not be the last one given: chance keeps them apart.
        let above = || Uuid::from_u128(last.0.as_u128() + 1 + u128::from(entropy >> 32));
        if fresh > last.0 { Self(fresh) } else { Self(above()) }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text).map(Self)
    }
}

/// One attempt: its run and its number in it, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The run.
    pub run: RunId,
    /// From 1.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.run, self.number)
    }
}

/// A fencing token. It only grows: the term by one at each start of the coordinator, the counter by one at
/// each use within a term. Two writers can never hold the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch {
    /// The coordinator's count of starts.
    pub term: u64,
    /// The count within the term.
    pub counter: u64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_compare_without_case() {
        for good in ["debian", "CPAN", "a", "0ad", "kernel.org", "a+b_c-d", &"x".repeat(63)] {
            assert_eq!(good.parse::<Name>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-e", ".x", "deb/ian", "a b", "ä", "a\n", &"x".repeat(64)] {
            assert_eq!(bad.parse::<Name>(), Err(BadName), "{bad:?}");
        }
        assert_eq!("KaOS".parse::<Name>(), "kaos".parse::<Name>());
    }

    #[test]
    fn run_ids_grow_even_when_the_clock_goes_back() {
        let first = RunId::mint(1_000_000, u64::MAX, RunId::NIL);
        let second = RunId::mint(500_000, 0, first);
        let third = RunId::mint(2_000_000, 0, second);
        assert!(first < second && second < third);
        assert_eq!(first.0.get_version_num(), 7);
    }
}
