//! The two tables: what a mirror pull may ask of rsync, and what it may not, with the reason.
//!
//! Data only; [`crate::options::Options::parse_words`] reads it. An option of rsync that is in neither table is
//! refused too. Sources of the reasons: rsync's manual and news, and trials against 3.5.0.

use crate::options::Flag;

/// A flag that may be given.
#[derive(Debug, Clone, Copy)]
pub struct FlagRow {
    /// The flag.
    pub flag: Flag,
    /// Its canonical long name, without dashes.
    pub long: &'static str,
    /// Other accepted long names.
    pub aliases: &'static [&'static str],
    /// Its letter.
    pub short: Option<char>,
}

const fn flag(flag: Flag, long: &'static str, short: Option<char>) -> FlagRow {
    FlagRow { flag, long, aliases: &[], short }
}

/// Every flag that may be given, in the order of the arguments of rsync. `--archive` stands for
/// `-rlpt`, owner and group where the agent may set them, and never for devices.
pub const FLAGS: &[FlagRow] = &[
    flag(Flag::Archive, "archive", Some('a')),
    flag(Flag::Recursive, "recursive", Some('r')),
    flag(Flag::Links, "links", Some('l')),
    flag(Flag::Perms, "perms", Some('p')),
    flag(Flag::Times, "times", Some('t')),
    flag(Flag::Group, "group", Some('g')),
    flag(Flag::Owner, "owner", Some('o')),
    FlagRow { flag: Flag::NoGroup, long: "no-group", aliases: &["no-g"], short: None },
    FlagRow { flag: Flag::NoOwner, long: "no-owner", aliases: &["no-o"], short: None },
    flag(Flag::HardLinks, "hard-links", Some('H')),
    flag(Flag::Acls, "acls", Some('A')),
    flag(Flag::Xattrs, "xattrs", Some('X')),
    flag(Flag::Executability, "executability", Some('E')),
    flag(Flag::OmitDirTimes, "omit-dir-times", Some('O')),
    flag(Flag::OmitLinkTimes, "omit-link-times", Some('J')),
    flag(Flag::NumericIds, "numeric-ids", None),
    flag(Flag::Checksum, "checksum", Some('c')),
    flag(Flag::SizeOnly, "size-only", None),
    flag(Flag::IgnoreTimes, "ignore-times", Some('I')),
    flag(Flag::Update, "update", Some('u')),
    flag(Flag::Existing, "existing", None),
    flag(Flag::IgnoreExisting, "ignore-existing", None),
    flag(Flag::IgnoreMissingArgs, "ignore-missing-args", None),
    flag(Flag::PruneEmptyDirs, "prune-empty-dirs", Some('m')),
    flag(Flag::OneFileSystem, "one-file-system", Some('x')),
    flag(Flag::NoIncRecursive, "no-inc-recursive", None),
    flag(Flag::Compress, "compress", Some('z')),
    flag(Flag::NoCompress, "no-compress", None),
    flag(Flag::WholeFile, "whole-file", Some('W')),
    flag(Flag::NoWholeFile, "no-whole-file", None),
    flag(Flag::Sparse, "sparse", Some('S')),
    flag(Flag::Inplace, "inplace", None),
    flag(Flag::DelayUpdates, "delay-updates", None),
    flag(Flag::Partial, "partial", None),
    flag(Flag::Fuzzy, "fuzzy", Some('y')),
    flag(Flag::Fsync, "fsync", None),
    flag(Flag::Ipv4, "ipv4", Some('4')),
    flag(Flag::Ipv6, "ipv6", Some('6')),
];

/// Accepted and left out, since the output format is ours and `--safe-links` is always there. The letter `P` is
/// `--partial --progress`.
pub const DROPPED: &[(&str, Option<char>)] = &[
    ("verbose", Some('v')),
    ("human-readable", Some('h')),
    ("stats", None),
    ("progress", None),
    ("itemize-changes", Some('i')),
    ("safe-links", None),
];

/// Flags that exclude each other.
pub const EXCLUSIVE: &[(Flag, Flag)] = &[
    (Flag::Owner, Flag::NoOwner),
    (Flag::Group, Flag::NoGroup),
    (Flag::Compress, Flag::NoCompress),
    (Flag::WholeFile, Flag::NoWholeFile),
    (Flag::Ipv4, Flag::Ipv6),
    (Flag::SizeOnly, Flag::IgnoreTimes),
    (Flag::Inplace, Flag::DelayUpdates),
    (Flag::Inplace, Flag::Partial),
];

/// Options that are refused, and why.
#[derive(Debug, Clone, Copy)]
pub struct DenyRow {
    /// Long names, without dashes.
    pub long: &'static [&'static str],
    /// Letters.
    pub short: &'static [char],
    /// The reason, as the end of a sentence about the option.
    pub why: &'static str,
}

const fn deny(long: &'static [&'static str], short: &'static [char], why: &'static str) -> DenyRow {
    DenyRow { long, short, why }
}

/// The reason against everything that starts a program.
pub const RUNS_A_PROGRAM: &str = "runs a program of your choice; never allowed";
/// The reason against what the agent sets.
pub const AGENT_SETS_IT: &str = "the agent sets it itself on every run; leave it out";
/// The reason against any other `--no-OPTION`.
pub const NO_OPTION: &str = "of the --no- options only --no-owner, --no-group, --no-compress, --no-whole-file and \
                             --no-inc-recursive are accepted";
/// The reason against a name or letter in no table.
pub const UNKNOWN: &str = "is no option that a mirror pull may use";

const READS_A_FILE: &str = "reads a file of the agent's host and can show it to the upstream";
const OTHER_MODE: &str = "turns rsync into another program than a pulling client";
const WIRE: &str = "changes the wire protocol or weakens the protection of arguments; no mirror needs it";
const WRITES_OUTSIDE: &str = "writes outside the destination; the agent chooses such directories itself";
const READS_OUTSIDE: &str = "reads outside the destination; the agent sets --link-dest itself for snapshots";
const PRIVILEGES: &str = "makes device files or changes ownership and privileges on the agent's host";
const FOLLOWS_LINKS: &str = "follows or rewrites symbolic links in the published tree";
const SENDER_LINKS: &str = "copies what links point to and so undoes --safe-links";
const OUTPUT: &str = "changes or hides the output that the agent reads";
const NO_SYNC: &str = "makes the run do nothing; ask for a dry run instead";
const LATE_DELETE: &str = "deletes on an error of the upstream";
const STOP: &str = "has a field of its own: the run's time limit";
const FIELD: &str =
    "has a field of its own: the port stands in the URI, the source address in the agent's file";
const UNSAFE_WRITE: &str = "can leave corrupt files or a changed layout in a mirror";
const NOT_OFFERED: &str = "is not offered: no mirror needs it";

/// Every refused option of rsync 3.5.0, with its reason.
pub const DENY: &[DenyRow] = &[
    deny(&["rsh", "rsync-path"], &['e'], RUNS_A_PROGRAM),
    deny(&["blocking-io"], &[], "belongs to remote shells, which run a program; never used"),
    deny(&["daemon", "config", "dparam", "detach", "no-detach", "server", "sender"], &[], OTHER_MODE),
    deny(&["remote-option"], &['M'], "sends options to the upstream past this check"),
    deny(
        &["files-from", "exclude-from", "include-from", "cvs-exclude", "from0"],
        &['F', 'C', '0'],
        READS_A_FILE,
    ),
    deny(&["password-file"], &[], "reads a local file; the password is a field of its own"),
    deny(&["early-input"], &[], READS_A_FILE),
    deny(&["log-file", "log-file-format"], &[], "writes a file anywhere on the agent's host"),
    deny(
        &["write-batch", "only-write-batch", "read-batch"],
        &[],
        "writes a script or feeds a file to rsync instead of the upstream's answer",
    ),
    deny(&["temp-dir", "partial-dir", "backup-dir", "backup", "suffix"], &['T', 'b'], WRITES_OUTSIDE),
    deny(&["link-dest", "copy-dest", "compare-dest"], &[], READS_OUTSIDE),
    deny(&["copy-links", "copy-dirlinks", "copy-unsafe-links"], &['L', 'k'], SENDER_LINKS),
    deny(
        &["keep-dirlinks", "insecure-links", "no-safe-links", "munge-links", "no-munge-links"],
        &['K'],
        FOLLOWS_LINKS,
    ),
    deny(
        &[
            "devices",
            "specials",
            "write-devices",
            "copy-devices",
            "super",
            "no-super",
            "fake-super",
            "copy-as",
            "chown",
            "usermap",
            "groupmap",
        ],
        &['D'],
        PRIVILEGES,
    ),
    deny(&["trust-sender"], &[], "turns off the check that the upstream sends only what was asked for"),
    deny(&["delete-before"], &[], "loses the old file when the disk is full; use --delete-delay"),
    deny(&["delete-missing-args", "force", "ignore-errors"], &[], LATE_DELETE),
    deny(&["remove-source-files", "remove-sent-files"], &[], "deletes files at the upstream"),
    deny(
        &["max-alloc"],
        &[],
        "lifts the limit that stops a hostile upstream from filling memory; the agent sets it",
    ),
    deny(
        &[
            "old-args",
            "protect-args",
            "secluded-args",
            "iconv",
            "protocol",
            "checksum-seed",
            "checksum-choice",
            "cc",
            "compress-choice",
            "zc",
            "compress-threads",
            "zt",
            "block-size",
        ],
        &['s', 'B'],
        WIRE,
    ),
    deny(&["sockopts", "address", "port"], &[], FIELD),
    deny(
        &[
            "out-format",
            "log-format",
            "info",
            "debug",
            "quiet",
            "stderr",
            "msgs2stderr",
            "8-bit-output",
            "outbuf",
            "motd",
        ],
        &['q', '8'],
        OUTPUT,
    ),
    deny(&["list-only", "dry-run", "version", "help"], &['n', 'V'], NO_SYNC),
    deny(&["stop-at", "stop-after", "time-limit"], &[], STOP),
    deny(&["append", "append-verify", "preallocate", "mkpath"], &[], UNSAFE_WRITE),
    deny(&["relative"], &['R'], "changes the layout of the destination and has been used to escape from it"),
    deny(&["no-D", "no-motd", "no-h", "drop-D", "confine-root"], &[], AGENT_SETS_IT),
    deny(&["ignore-non-existing"], &[], "is another name; write --existing"),
    deny(&["no-i-r"], &[], "is another name; write --no-inc-recursive"),
    deny(&["no-W"], &[], "is another name; write --no-whole-file"),
    deny(&["no-z"], &[], "is another name; write --no-compress"),
    deny(
        &[
            "dirs",
            "old-dirs",
            "old-d",
            "inc-recursive",
            "i-r",
            "atimes",
            "open-noatime",
            "crtimes",
            "compress-level",
            "zl",
            "skip-compress",
            "old-compress",
            "new-compress",
        ],
        &['d', 'U', 'N'],
        NOT_OFFERED,
    ),
    // As letters these two take a value from the rest of the word or the next one, which hides options.
    deny(&[], &['f'], "takes the rest of the word; write --filter=RULE"),
    deny(&[], &['@'], "takes the rest of the word; write --modify-window=SECONDS"),
];

/// The reason against a long name (without dashes, before any `=`), if it is refused by name.
#[must_use]
pub fn why_long_refused(name: &str) -> Option<&'static str> {
    let named = DENY.iter().find(|row| row.long.contains(&name)).map(|row| row.why);
    named.or_else(|| name.starts_with("no-").then_some(NO_OPTION))
}

/// The reason against a letter, if it is refused by name.
#[must_use]
pub fn why_short_refused(letter: char) -> Option<&'static str> {
    DENY.iter().find(|row| row.short.contains(&letter)).map(|row| row.why)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_name_and_no_letter_stands_twice() {
        let mut names = HashSet::new();
        let mut letters = HashSet::new();
        for row in FLAGS {
            assert!(names.insert(row.long), "{}", row.long);
            assert!(row.aliases.iter().all(|alias| names.insert(alias)), "{}", row.long);
            assert!(row.short.is_none_or(|letter| letters.insert(letter)), "{:?}", row.short);
        }
        for (name, letter) in DROPPED {
            assert!(names.insert(name) && letter.is_none_or(|letter| letters.insert(letter)), "{name}");
        }
        for row in DENY {
            assert!(row.long.iter().all(|name| names.insert(name)), "{:?}", row.long);
            assert!(row.short.iter().all(|letter| letters.insert(*letter)), "{:?}", row.short);
            assert!(row.why.len() > 10);
        }
    }

    #[test]
    fn the_first_reason_is_the_one_people_see_most() {
        assert_eq!(why_short_refused('e'), Some(RUNS_A_PROGRAM));
        assert_eq!(why_long_refused("no-perms"), Some(NO_OPTION));
        assert_eq!(why_long_refused("frobnicate"), None);
    }
}
