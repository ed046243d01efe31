//! The marker of a tree: one file in it that tells how new the tree is, as mirrors have had them for long: a time stamp,
//! the date of a release, a trace. By it, and by nothing else, two upstreams of a project can be compared.
//!
//! Pure: reads bytes that somebody else fetched, and trusts none of them. Does NOT know where they come from.

use std::{fmt, str::FromStr, time::Duration};

use crate::{schedule::parse_date, time::Wall};

/// Largest marker that is read, bytes: the largest known one, a distribution's `Release`, has a quarter of it.
pub const MARKER_BYTES_MAX: u64 = 1 << 20;
/// Longest line of a marker that may hold its time, bytes; longer ones are passed over.
pub const MARKER_LINE_BYTES_MAX: usize = 4 << 10;
/// A marker that is further ahead of the reader's clock is not believed.
pub const MARKER_AHEAD_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Nothing that rsync mirrors is older: an earlier time is a serial number, or a clock that was never set. 1 January
/// 1996, the year of rsync's first release.
pub const MARKER_EARLIEST: Wall = Wall(820_454_400_000);
/// Longest note on a marker that could not be read, characters.
pub const MARKER_NOTE_CHARS_MAX: usize = 200;
/// Most digits of a time in seconds since 1970: up to the year 33,658.
const EPOCH_DIGITS_MAX: usize = 12;

/// How a marker tells its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkerKind {
    /// Its first word is a number of seconds since 1970: `lastupdate` of Arch, `TIME` of CentOS.
    UnixTime,
    /// Its first line is a date as RFC 2822 and HTTP have it, or as `date` prints it: `timestamp.chk` of Gentoo.
    HttpDate,
    /// Its first line is a date of RFC 3339 or ISO 8601: `last-update.txt` of Parrot.
    IsoDate,
    /// It has a line `Date:`: `dists/stable/Release` of Debian, Ubuntu, Kali.
    DebianRelease,
    /// It has a line `Date:`, or begins with what `date` prints: `project/trace/ftp.example.net` of Debian.
    DebianTrace,
    /// It has a line `date=`: `state` of Manjaro.
    ManjaroState,
    /// Its element `<revision>` holds seconds since 1970: `repodata/repomd.xml`.
    Repomd,
    /// The file's own time of change, whatever is in it: the file lists of Fedora and Rocky.
    Mtime,
}

impl MarkerKind {
    /// All of them, for tables and tests.
    pub const ALL: [Self; 8] = [
        Self::UnixTime,
        Self::HttpDate,
        Self::IsoDate,
        Self::DebianRelease,
        Self::DebianTrace,
        Self::ManjaroState,
        Self::Repomd,
        Self::Mtime,
    ];

    /// As people type it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UnixTime => "unix_time",
            Self::HttpDate => "http_date",
            Self::IsoDate => "iso_date",
            Self::DebianRelease => "debian_release",
            Self::DebianTrace => "debian_trace",
            Self::ManjaroState => "manjaro_state",
            Self::Repomd => "repomd",
            Self::Mtime => "mtime",
        }
    }
}

impl fmt::Display for MarkerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no kind of marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no such kind of marker; there are unix_time, http_date, iso_date, debian_release, debian_trace, manjaro_state, \
     repomd and mtime"
)]
pub struct NoSuchKind;

impl FromStr for MarkerKind {
    type Err = NoSuchKind;

    fn from_str(text: &str) -> Result<Self, NoSuchKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(NoSuchKind)
    }
}

/// Which file tells how new a tree is, and how. The same at every upstream and in the tree itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Marker {
    /// How it tells its time.
    pub kind: MarkerKind,
    /// Relative path below the upstream's directory and below the destination; checked by the mapping.
    pub path: String,
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.path)
    }
}

/// What an attempt of an origin has to do about the marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkerCheck {
    /// Which.
    pub marker: Marker,
    /// The marker of the tree that is served: nothing older is pulled. `None`: not known.
    pub not_before: Option<Wall>,
    /// Without having read the upstream's marker nothing is pulled: it is asked in another one's place.
    pub required: bool,
}

/// What an attempt saw of the marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkerSeen {
    /// Which one was looked for.
    pub marker: Marker,
    /// At the upstream, before anything was pulled; `None`: it could not be read.
    pub upstream: Option<Wall>,
    /// In the tree, after it was pulled whole; `None`: it was not, or could not be read.
    pub tree: Option<Wall>,
    /// Why one of them could not be read, for people; at most [`MARKER_NOTE_CHARS_MAX`].
    pub note: String,
}

impl MarkerSeen {
    /// How new the tree is that was pulled: by its own word, else by the upstream's.
    #[must_use]
    pub fn of_tree(&self) -> Option<Wall> {
        self.tree.or(self.upstream)
    }
}

/// Why a marker tells no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MarkerFault {
    /// Nothing was found that could be read.
    #[error("there is no plain file of that name and at most 1 MiB")]
    NoFile,
    /// More bytes than are read.
    #[error("it has more than {MARKER_BYTES_MAX} bytes")]
    TooLarge,
    /// There is no time where its kind has one.
    #[error("it does not begin with {0}")]
    Beginning(&'static str),
    /// The part in which its kind has the time is not there, or holds none.
    #[error("it has no {0} with a time")]
    Missing(&'static str),
    /// Further ahead than clocks differ.
    #[error("its time is more than a day ahead of this host's clock, so it is not believed")]
    Ahead,
    /// Before there was rsync.
    #[error("its time is before 1996, so it is not believed")]
    TooEarly,
}

/// The time that a marker's file tells: `changed` and `content` are what was found of it, as far as its kind needs them.
///
/// # Errors
/// What the kind needs was not found, tells no time, or one that cannot be right at `now` by the reader's clock.
pub fn of_file(
    kind: MarkerKind,
    changed: Option<Wall>,
    content: Option<&[u8]>,
    now: Wall,
) -> Result<Wall, MarkerFault> {
    if kind == MarkerKind::Mtime {
        believed(changed.ok_or(MarkerFault::NoFile)?, now)
    } else {
        read(kind, content.ok_or(MarkerFault::NoFile)?, now)
    }
}

/// The time that a marker's content tells, at `now` by the reader's clock. Of kind [`MarkerKind::Mtime`] it is not in
/// the content; see [`of_file`].
///
/// # Errors
/// No such time, or one that cannot be right.
fn read(kind: MarkerKind, content: &[u8], now: Wall) -> Result<Wall, MarkerFault> {
    if content.len() as u64 > MARKER_BYTES_MAX {
        return Err(MarkerFault::TooLarge);
    }
    let first = || lines(content).find(|line| !line.is_empty());
    let time = match kind {
        MarkerKind::UnixTime => {
            const WHAT: &str = "a number of seconds since 1970";
            let word = first().and_then(|line| line.split_ascii_whitespace().next());
            word.and_then(epoch).ok_or(MarkerFault::Beginning(WHAT))?
        }
        MarkerKind::HttpDate => {
            let worded = first().filter(|line| !begins_with_year(line));
            worded.and_then(date).ok_or(MarkerFault::Beginning("a date of RFC 2822 or HTTP"))?
        }
        MarkerKind::IsoDate => {
            let numeric = first().filter(|line| begins_with_year(line));
            numeric.and_then(date).ok_or(MarkerFault::Beginning("a date of RFC 3339 or ISO 8601"))?
        }
        MarkerKind::DebianRelease => field(content, "Date:").ok_or(MarkerFault::Missing("line Date:"))?,
        MarkerKind::DebianTrace => {
            let traced = field(content, "Date:").or_else(|| first().and_then(date));
            traced.ok_or(MarkerFault::Missing("line Date:, and no first line"))?
        }
        MarkerKind::ManjaroState => field(content, "date=").ok_or(MarkerFault::Missing("line date="))?,
        MarkerKind::Repomd => revision(content).ok_or(MarkerFault::Missing("element <revision>"))?,
        MarkerKind::Mtime => return Err(MarkerFault::Missing("content")),
    };
    believed(time, now)
}

/// A time that may be right at `now`.
///
/// # Errors
/// One that is more than a day ahead, or from before there was rsync.
fn believed(time: Wall, now: Wall) -> Result<Wall, MarkerFault> {
    if time > now.plus(MARKER_AHEAD_MAX) {
        return Err(MarkerFault::Ahead);
    }
    if time < MARKER_EARLIEST { Err(MarkerFault::TooEarly) } else { Ok(time) }
}

/// The lines that may hold a time, without blanks around them. What is no text is none of them.
fn lines(content: &[u8]) -> impl Iterator<Item = &str> {
    let short = content.split(|byte| *byte == b'\n').filter(|line| line.len() <= MARKER_LINE_BYTES_MAX);
    short.filter_map(|line| std::str::from_utf8(line).ok()).map(str::trim)
}

/// Seconds since 1970.
fn epoch(word: &str) -> Option<Wall> {
    let fits = (1..=EPOCH_DIGITS_MAX).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: i64 = word.parse().ok().filter(|_| fits)?;
    Some(Wall(seconds.checked_mul(1_000)?))
}

/// Without an offset in it the date is of UTC.
fn date(text: &str) -> Option<Wall> {
    parse_date(text, None).ok().map(|parsed| Wall::from(parsed.time))
}

fn begins_with_year(line: &str) -> bool {
    line.len() > 4 && line.bytes().take(4).all(|byte| byte.is_ascii_digit()) && line.as_bytes()[4] == b'-'
}

/// The date in the first line that begins so.
fn field(content: &[u8], name: &str) -> Option<Wall> {
    lines(content).find_map(|line| line.strip_prefix(name)).map(str::trim).and_then(date)
}

fn revision(content: &[u8]) -> Option<Wall> {
    const OPEN: &str = "<revision>";
    let rest = lines(content).find_map(|line| line.split_once(OPEN).map(|(_, rest)| rest))?;
    epoch(rest.split('<').next()?.trim())
}

#[cfg(test)]
mod tests;
