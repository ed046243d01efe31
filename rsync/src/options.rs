//! The options of a pull, typed. Words go in through [`Options::parse_words`], canonical words come out of
//! [`Options::render`], and parsing those gives the same options: the coordinator stores them, the agent parses
//! them again and trusts nothing. Does NOT build rsync's arguments: that is [`crate::argv`].

use std::fmt;

use crate::filter::Rule;
use crate::tables::FLAGS;
use crate::text::printable;

/// Most option words, given or canonical.
pub const WORDS_MAX: usize = 64;
/// Most bytes of all words together.
pub const WORDS_BYTES_MAX: usize = 16 << 10;
/// Longest word, bytes.
pub const WORD_BYTES_MAX: usize = 4096;
/// Largest `--max-delete`.
pub const MAX_DELETE_MAX: u32 = 1_000_000_000;
/// Largest `--bwlimit`, KiB/s.
pub const BWLIMIT_KIB_MAX: u32 = 100_000_000;
/// Range of `--timeout`, seconds.
pub const TIMEOUT_S: std::ops::RangeInclusive<u32> = 10..=86_400;
/// Range of `--contimeout`, seconds.
pub const CONNECT_TIMEOUT_S: std::ops::RangeInclusive<u32> = 1..=600;
/// Largest `--modify-window`, seconds.
pub const MODIFY_WINDOW_S_MAX: u32 = 3600;
/// Longest `--chmod` text, bytes.
pub const CHMOD_BYTES_MAX: usize = 256;
/// Characters of a faulty word that are shown.
const SHOWN_CHARS_MAX: usize = 80;

/// A flag of a pull; rsync's manual tells what each does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the rsync option of that name, see tables::FLAGS")]
pub enum Flag {
    Archive,
    Recursive,
    Links,
    Perms,
    Times,
    Group,
    Owner,
    NoGroup,
    NoOwner,
    HardLinks,
    Acls,
    Xattrs,
    Executability,
    OmitDirTimes,
    OmitLinkTimes,
    NumericIds,
    Checksum,
    SizeOnly,
    IgnoreTimes,
    Update,
    Existing,
    IgnoreExisting,
    IgnoreMissingArgs,
    PruneEmptyDirs,
    OneFileSystem,
    NoIncRecursive,
    Compress,
    NoCompress,
    WholeFile,
    NoWholeFile,
    Sparse,
    Inplace,
    DelayUpdates,
    Partial,
    Fuzzy,
    Fsync,
    Ipv4,
    Ipv6,
}

impl Flag {
    /// The canonical word, `--long`.
    #[must_use]
    pub fn word(self) -> String {
        let row = FLAGS
            .iter()
            .find(|row| row.flag == self)
            .expect("tables::FLAGS has a row for each flag (a test)");
        format!("--{}", row.long)
    }
}

/// When a pull deletes what the upstream no longer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeleteMode {
    /// Found during the transfer, deleted after it; what plain `--delete` means here.
    Delay,
    /// A second walk after the transfer.
    After,
    /// As each directory is reached.
    During,
    /// As [`Delay`](Self::Delay), and also what the filters exclude.
    Excluded,
}

impl DeleteMode {
    /// The canonical word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Delay => "--delete-delay",
            Self::After => "--delete-after",
            Self::During => "--delete-during",
            Self::Excluded => "--delete-excluded",
        }
    }
}

/// A file size as rsync takes it: a number without leading zeros and at most one of `K M G T`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Size(String);

impl Size {
    /// Digits before the unit, at most.
    const DIGITS_MAX: usize = 16;

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_suffix(['K', 'M', 'G', 'T']).unwrap_or(text);
        let ok = (1..=Self::DIGITS_MAX).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0');
        ok.then(|| Self(text.to_owned()))
    }

    /// The size in bytes; the units are powers of 1,024.
    #[must_use]
    pub fn bytes(&self) -> u128 {
        let (digits, shift) = match self.0.split_at(self.0.len() - 1) {
            (digits, "K") => (digits, 10),
            (digits, "M") => (digits, 20),
            (digits, "G") => (digits, 30),
            (digits, "T") => (digits, 40),
            _ => (self.0.as_str(), 0),
        };
        digits.parse::<u128>().expect("parse() admits 16 digits at most") << shift
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Changes of modes: a comma list of `[DF]?[ugo]*[+=-][rwxX]*`. It cannot set special bits, and the agent takes
/// those of the upstream away behind it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chmod(String);

impl Chmod {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let clause_ok = |clause: &str| {
            let clause = clause.strip_prefix(['D', 'F']).unwrap_or(clause);
            let Some(operator) = clause.find(['+', '=', '-']) else { return false };
            let (who, bits) = (&clause[..operator], &clause[operator + 1..]);
            who.bytes().all(|b| b"ugo".contains(&b)) && bits.bytes().all(|b| b"rwxX".contains(&b))
        };
        (text.len() <= CHMOD_BYTES_MAX && text.split(',').all(clause_ok)).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Chmod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One option.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Opt {
    /// A flag.
    Flag(Flag),
    /// The one delete mode.
    Delete(DeleteMode),
    /// `--max-delete`, entries; the guard may be stricter.
    MaxDelete(u32),
    /// A filter rule; their order counts.
    Filter(Rule),
    /// Larger files are left out.
    MaxSize(Size),
    /// Smaller files are left out.
    MinSize(Size),
    /// KiB/s; the agent may be stricter.
    Bwlimit(u32),
    /// `--timeout`, seconds.
    Timeout(u32),
    /// `--contimeout`, seconds.
    ConnectTimeout(u32),
    /// Times that differ by up to this many seconds are equal.
    ModifyWindow(u32),
    /// Changes of modes.
    Chmod(Chmod),
}

impl Opt {
    /// The canonical word; parsing it gives this option.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::Flag(flag) => flag.word(),
            Self::Delete(mode) => mode.word().to_owned(),
            Self::MaxDelete(entries) => format!("--max-delete={entries}"),
            Self::Filter(rule) => rule.word(),
            Self::MaxSize(size) => format!("--max-size={size}"),
            Self::MinSize(size) => format!("--min-size={size}"),
            Self::Bwlimit(kib) => format!("--bwlimit={kib}"),
            Self::Timeout(seconds) => format!("--timeout={seconds}"),
            Self::ConnectTimeout(seconds) => format!("--contimeout={seconds}"),
            Self::ModifyWindow(seconds) => format!("--modify-window={seconds}"),
            Self::Chmod(chmod) => format!("--chmod={chmod}"),
        }
    }
}

/// A word that was refused, and why. `Display`: `"-e": runs a program of your choice; never allowed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionFault {
    /// The word as given, except that control characters are escaped and a long one is cut.
    pub word: String,
    /// Why, as the end of a sentence about the word.
    pub reason: String,
}

impl OptionFault {
    pub(crate) fn new(word: &str, reason: impl Into<String>) -> Self {
        Self { word: printable(word.as_bytes(), SHOWN_CHARS_MAX), reason: reason.into() }
    }
}

impl fmt::Display for OptionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\": {}", self.word, self.reason)
    }
}

impl std::error::Error for OptionFault {}

/// The options of a pull in the order given. Every value of this type passed the tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    pub(crate) list: Vec<Opt>,
}

impl Options {
    /// Reads option words as people write them: `-avH`, `--delete-after`, `--exclude=*.iso`. A value stands behind
    /// `=` in the same word; numbers are decimal without sign and leading zeros. Words about output (`-v`,
    /// `--stats`, `--progress`) are accepted and left out.
    ///
    /// # Errors
    /// Every faulty word with its reason, in the order of the words; contradictions behind them.
    pub fn parse_words<S: AsRef<str>>(words: &[S]) -> Result<Self, Vec<OptionFault>> {
        crate::parse::parse_words(words)
    }

    /// The canonical words: one long option each. `parse_words(render(x)) == x`.
    #[must_use]
    pub fn render(&self) -> Vec<String> {
        self.list.iter().map(Opt::word).collect()
    }

    /// The options in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &Opt> {
        self.list.iter()
    }

    /// No options: the defaults hold.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether no flag is given, so that the default flags hold. Filters, limits and sizes alone do not replace
    /// them: a run without `--recursive` would copy nothing.
    #[must_use]
    pub fn uses_default_flags(&self) -> bool {
        !self.list.iter().any(|opt| matches!(opt, Opt::Flag(_)))
    }

    /// Whether this flag is given by name (`--archive` does not count as `--recursive`).
    #[must_use]
    pub fn has(&self, flag: Flag) -> bool {
        self.list.contains(&Opt::Flag(flag))
    }

    /// Whether directories are walked: by a flag or by the default flags.
    #[must_use]
    pub fn is_recursive(&self) -> bool {
        self.uses_default_flags() || self.has(Flag::Recursive) || self.has(Flag::Archive)
    }

    /// The delete mode given.
    #[must_use]
    pub fn delete_mode(&self) -> Option<DeleteMode> {
        self.find(|opt| if let Opt::Delete(mode) = opt { Some(*mode) } else { None })
    }

    /// The `--max-delete` given.
    #[must_use]
    pub fn max_delete(&self) -> Option<u32> {
        self.find(|opt| if let Opt::MaxDelete(entries) = opt { Some(*entries) } else { None })
    }

    /// The filter rules in order.
    pub fn filters(&self) -> impl Iterator<Item = &Rule> {
        self.list.iter().filter_map(|opt| if let Opt::Filter(rule) = opt { Some(rule) } else { None })
    }

    /// Flags that an agent's own file must allow: access control lists and extended attributes, whose receiving
    /// code had faults that a hostile upstream could use.
    #[must_use]
    pub fn needs_opt_in(&self) -> Vec<Flag> {
        [Flag::Acls, Flag::Xattrs].into_iter().filter(|flag| self.has(*flag)).collect()
    }

    /// What is accepted but rarely wise, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<&'static str> {
        let not_recursive = !self.is_recursive();
        [
            (
                self.has(Flag::Checksum),
                "--checksum makes the upstream read every file at each run; public ones forbid it",
            ),
            (
                self.has(Flag::Compress),
                "--compress costs the upstream much CPU; mirrored files are compressed already",
            ),
            (self.has(Flag::Inplace), "--inplace shows half-written files to users while a run lasts"),
            (
                not_recursive,
                "neither --recursive nor --archive is given: no directory is walked, so nothing is copied",
            ),
        ]
        .into_iter()
        .filter_map(|(given, warning)| given.then_some(warning))
        .collect()
    }

    pub(crate) fn find<T>(&self, pick: impl Fn(&Opt) -> Option<T>) -> Option<T> {
        self.list.iter().find_map(pick)
    }
}
