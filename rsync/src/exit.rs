//! How a run of rsync ended: what it means, in whose hands it is, what to do, whether to try again.
//!
//! rsync's exit codes are coarse: 5 stands for a wrong password, an unknown module, a refused host and a full
//! server. So its messages are matched first (they are in English, as [`crate::argv`] sets `LC_ALL=C`), each only
//! with the codes it comes with, since an upstream can put messages of its own in between; the code decides
//! where no message does. Does NOT decide when to try again.

use std::fmt;

mod rules;

use self::rules::{BROKEN_PROTOCOL, Meaning, PARTIAL, RULES, by_code, meaning};
use crate::stats::Stats;
use crate::text::printable;

/// Most bytes of standard error that are looked at, from its end.
pub const STDERR_BYTES_MAX: usize = 64 << 10;
/// Longest cause, characters.
pub const CAUSE_CHARS_MAX: usize = 300;

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// We ended it: nothing moved for the stall timeout.
    Stalled,
    /// We ended it: it reached its time limit.
    WallClock,
}

/// What an end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// All is copied.
    Ok,
    /// All is copied, except files that the upstream removed meanwhile.
    OkVanished,
    /// Some files could not be copied.
    Partial,
    /// The delete limit was reached: the run is held.
    MaxDelete,
    /// The upstream has no free connection.
    Busy,
    /// Wrong user or password.
    Auth,
    /// No such module or path.
    NotFound,
    /// The upstream refuses this host, this option or this direction.
    Refused,
    /// No space or quota left here.
    DiskFull,
    /// Another error of reading or writing here.
    LocalIo,
    /// rsync itself failed, or was killed.
    Internal,
    /// rsync's own timeouts.
    Timeout,
    /// Nothing moved; ended by us.
    Stalled,
    /// Took too long; ended by us.
    WallClock,
    /// The connection failed or broke.
    Network,
    /// The other end does not speak rsync as we do.
    Protocol,
    /// Ended on request.
    Cancelled,
    /// rsync did not accept what it was asked to do.
    Config,
}

impl Class {
    /// Whether the tree is up to date.
    #[must_use]
    pub const fn is_ok(self) -> bool {
        matches!(self, Self::Ok | Self::OkVanished)
    }

    /// Whether the same attempt may succeed soon. What needs a decision or a change elsewhere first (a login, a
    /// module, a limit) waits for the next fire.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Partial
                | Self::Busy
                | Self::DiskFull
                | Self::LocalIo
                | Self::Internal
                | Self::Timeout
                | Self::Stalled
                | Self::Network
                | Self::Protocol
        )
    }
}

/// In whose hands a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The upstream's administrators.
    Upstream,
    /// The fleet: the agent's host, its disk, its rsync.
    Fleet,
    /// Somewhere between.
    Network,
    /// What was configured for the project.
    Yours,
    /// Cannot be told from here.
    Open,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upstream => "the upstream's",
            Self::Fleet => "the fleet's",
            Self::Network => "the network's",
            Self::Yours => "yours",
            Self::Open => "open",
        })
    }
}

/// What an end means, for people and for the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// The class.
    pub class: Class,
    /// rsync's own words, one line without control characters; empty when all went well.
    pub cause: String,
    /// Whose it is; none where nothing failed.
    pub fault: Option<Fault>,
    /// What to do next, one sentence.
    pub advice: String,
    /// Whether the same attempt may succeed soon.
    pub retryable: bool,
    /// Entries that were not deleted because of `--max-delete`.
    pub deletions_skipped: Option<u64>,
}

/// Reads the end of a pull.
///
/// `stderr` is what rsync wrote to standard error, at least its last [`STDERR_BYTES_MAX`] bytes; `stats` are the
/// closing numbers. A pull that ends with 0 but without them did nothing: a server that says `@RSYNCD: EXIT`
/// looks like that.
#[must_use]
pub fn diagnose(end: ExitCode, stderr: &[u8], stats: &Stats) -> Diagnosis {
    let text = &stderr[stderr.len().saturating_sub(STDERR_BYTES_MAX)..];
    let lines: Vec<&[u8]> =
        text.split(|b| matches!(b, b'\n' | b'\r')).filter(|line| !line.trim_ascii().is_empty()).collect();
    let found = match end {
        ExitCode::Code(code) => {
            RULES.iter().find_map(|rule| rule.matches(code, &lines).map(|line| (rule, line)))
        }
        _ => None,
    };
    let (meaning, cause) = match found {
        Some((rule, line)) => (rule.meaning, quote(line, same_kind(&lines, rule.needle))),
        None => (by_end(end, stats), cause_by_end(end, stats, &lines)),
    };
    // Where other files were listed, one missing directory is not the source itself.
    let listed = stats.files.is_some_and(|count| count.total > 0);
    let meaning = if meaning.class == Class::NotFound && listed { PARTIAL } else { meaning };
    Diagnosis {
        class: meaning.class,
        cause,
        fault: meaning.fault,
        advice: meaning.advice.to_owned(),
        retryable: meaning.class.is_retryable(),
        deletions_skipped: lines.iter().find_map(|line| deletions_skipped(line)),
    }
}

/// The meaning of an end that no message explains.
fn by_end(end: ExitCode, stats: &Stats) -> Meaning {
    match end {
        ExitCode::Code(0) if !stats.complete => BROKEN_PROTOCOL,
        ExitCode::Code(code) => by_code(code),
        ExitCode::Signal(_) => {
            meaning(Class::Internal, Fault::Fleet, "look into the host's kernel log for lack of memory")
        }
        ExitCode::Stalled => {
            meaning(Class::Stalled, Fault::Open, "the upstream or the way to it hung; it is tried again")
        }
        ExitCode::WallClock => {
            meaning(Class::WallClock, Fault::Open, "raise the run's time limit if the tree is that large")
        }
    }
}

fn cause_by_end(end: ExitCode, stats: &Stats, lines: &[&[u8]]) -> String {
    match end {
        ExitCode::Code(0) if stats.complete => String::new(),
        ExitCode::Code(0) => "rsync exited with 0 but transferred no list of files".to_owned(),
        ExitCode::Signal(signal) => format!("rsync was ended by signal {signal}"),
        ExitCode::Stalled => "nothing was received, computed or written during the stall timeout".to_owned(),
        ExitCode::WallClock => "the run reached its time limit".to_owned(),
        ExitCode::Code(code) => {
            // The trailer repeats the code in words; any other message says more. A reset follows most refusals.
            let trailer =
                |line: &&&[u8]| line.starts_with(b"rsync error: ") || line.starts_with(b"rsync warning: ");
            let noise = |line: &&&[u8]| contains(line, "read error: Connection reset by peer");
            let best = lines.iter().find(|line| !trailer(line) && !noise(line)).or_else(|| lines.first());
            best.map_or_else(|| format!("rsync exited with {code} and said nothing"), |line| quote(line, 1))
        }
    }
}

/// How many lines are of the same kind as the one shown.
fn same_kind(lines: &[&[u8]], needle: &str) -> usize {
    lines.iter().filter(|line| contains(line, needle)).count()
}

fn quote(line: &[u8], count: usize) -> String {
    let line = line.trim_ascii();
    // Without a terminal rsync prints its question for the password in front of the next message.
    let line = line.strip_prefix(b"Password: ").unwrap_or(line);
    let mut out = printable(line.strip_prefix(b"rsync: ").unwrap_or(line), CAUSE_CHARS_MAX);
    if count > 1 {
        out += &format!(" (and {} more)", count - 1);
    }
    out
}

fn contains(line: &[u8], needle: &str) -> bool {
    line.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// `Deletions stopped due to --max-delete limit (3 skipped)`.
fn deletions_skipped(line: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(line).ok()?;
    let (_, rest) = line.split_once("Deletions stopped due to --max-delete limit (")?;
    rest.split_once(" skipped)")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use {Class as C, Fault as F};

    fn full_stats() -> Stats {
        Stats { complete: true, ..Stats::default() }
    }

    fn at(code: i32, stderr: &str) -> Diagnosis {
        diagnose(ExitCode::Code(code), stderr.as_bytes(), &full_stats())
    }

    /// Every case that was tried against rsync 3.5.0, with the message it gave.
    const MESSAGES: &[(i32, &str, C, F)] = &[
        (5, "@ERROR: auth failed on module auth", C::Auth, F::Yours),
        (5, "Password: @ERROR: auth failed on module auth", C::Auth, F::Yours),
        (5, "@ERROR: Unknown module 'nomod'", C::NotFound, F::Open),
        (5, "@ERROR: max connections (1) reached -- try again later", C::Busy, F::Upstream),
        (5, "@ERROR: access denied to deny from UNDETERMINED (127.0.0.1)", C::Refused, F::Upstream),
        (5, "@ERROR: chdir failed", C::Refused, F::Upstream),
        (5, "@ERROR: we are closed", C::Refused, F::Upstream),
        (5, "rsync: did not see server greeting", C::Protocol, F::Upstream),
        (5, "rsync: didn't get server startup line", C::Protocol, F::Upstream),
        (5, "rsync: server sent \"HTTP/1.0 400 Bad Request\" rather than greeting", C::Protocol, F::Upstream),
        (1, "ERROR: module is read only", C::Refused, F::Yours),
        (1, "ERROR: module is write only", C::Refused, F::Yours),
        (1, "rsync: --frob: unknown option", C::Config, F::Fleet),
        (10, "rsync: The server is configured to refuse --checksum (-c)", C::Refused, F::Yours),
        (10, "pre-xfer exec returned failure (256): no", C::Refused, F::Upstream),
        (
            10,
            "rsync: [Receiver] failed to connect to h (192.0.2.1): Connection refused (111)",
            C::Network,
            F::Upstream,
        ),
        (10, "rsync: getaddrinfo: h 873: Name or service not known", C::Network, F::Open),
        (
            23,
            "rsync: [sender] link_stat \"nosuch\" (in pub) failed: No such file or directory (2)",
            C::NotFound,
            F::Open,
        ),
        (
            23,
            "rsync: [sender] change_dir \"nosuch\" (in pub) failed: No such file or directory (2)",
            C::NotFound,
            F::Open,
        ),
        (
            23,
            "rsync: [sender] send_files failed to open \"/a\" (in pub): Permission denied (13)",
            C::Partial,
            F::Upstream,
        ),
        (
            23,
            "rsync: [sender] read errors mapping \"/van/a.bin\" (in pub): No data available (61)",
            C::Partial,
            F::Upstream,
        ),
        (
            23,
            "rsync: [generator] delete_file: unlink(x) failed: Permission denied (13)",
            C::Partial,
            F::Fleet,
        ),
        (23, "rsync: [receiver] mkstemp \"/m/.x\" failed: Permission denied (13)", C::Partial, F::Fleet),
        (
            23,
            "rsync: [receiver] mkstemp \"/m/.x\" failed: No space left on device (28)",
            C::DiskFull,
            F::Fleet,
        ),
        (
            3,
            "rsync: [Receiver] change_dir#3 \"/no\" failed: No such file or directory (2)",
            C::Config,
            F::Fleet,
        ),
        (3, "refusing to follow a symlink owned by an untrusted user", C::Config, F::Fleet),
        (35, "", C::Timeout, F::Network),
        (30, "[Receiver] io timeout after 2 seconds -- exiting", C::Timeout, F::Open),
        (11, "rsync: [receiver] write failed on \"F\": No space left on device (28)", C::DiskFull, F::Fleet),
        (11, "rsync: [receiver] write failed on \"F\": Input/output error (5)", C::LocalIo, F::Fleet),
        (25, "Deletions stopped due to --max-delete limit (3 skipped)", C::MaxDelete, F::Open),
        (2, "--protocol must be at least 20 on the Client.", C::Protocol, F::Open),
        (12, "safe_write failed to write 8 bytes to fd 3: Broken pipe (32)", C::Network, F::Network),
        (0, "Unable to create partial-dir for a -- discarding completed file.", C::Partial, F::Fleet),
    ];

    #[test]
    fn messages_of_rsync() {
        for (code, stderr, class, fault) in MESSAGES {
            let stderr =
                format!("{stderr}\nrsync error: something (code {code}) at main.c(1956) [Receiver=3.5.0]\n");
            let diagnosis = at(*code, &stderr);
            assert_eq!((diagnosis.class, diagnosis.fault), (*class, Some(*fault)), "{stderr}");
            assert!(!diagnosis.cause.is_empty() && !diagnosis.advice.is_empty(), "{diagnosis:?}");
            assert!(!diagnosis.cause.contains("rsync error: ") || *code == 35, "{diagnosis:?}");
        }
    }

    #[test]
    fn codes_without_a_message() {
        for (code, class) in [
            (0, C::Ok),
            (1, C::Config),
            (2, C::Protocol),
            (3, C::Config),
            (4, C::Config),
            (5, C::Protocol),
            (6, C::Internal),
            (10, C::Network),
            (11, C::LocalIo),
            (12, C::Network),
            (13, C::Internal),
            (14, C::Internal),
            (15, C::Internal),
            (16, C::Internal),
            (19, C::Cancelled),
            (20, C::Cancelled),
            (21, C::Internal),
            (22, C::Internal),
            (23, C::Partial),
            (24, C::OkVanished),
            (25, C::MaxDelete),
            (30, C::Timeout),
            (35, C::Timeout),
            (124, C::Internal),
            (127, C::Config),
            (255, C::Internal),
        ] {
            assert_eq!(at(code, "").class, class, "{code}");
        }
    }

    #[test]
    fn ends_that_are_no_code() {
        let end = |end| diagnose(end, b"", &Stats::default());
        assert_eq!(end(ExitCode::Signal(9)).class, Class::Internal);
        assert_eq!(end(ExitCode::Signal(9)).cause, "rsync was ended by signal 9");
        assert_eq!(end(ExitCode::Stalled).class, Class::Stalled);
        assert_eq!(end(ExitCode::WallClock).class, Class::WallClock);
        // A server that says @RSYNCD: EXIT: code 0, no output at all.
        assert_eq!(end(ExitCode::Code(0)).class, Class::Protocol);
        assert!(end(ExitCode::Code(0)).retryable);
    }

    #[test]
    fn the_delete_limit_shows_through_other_codes() {
        let stderr = "rsync: [sender] opendir \"/x\" (in m) failed: Permission denied (13)\n\
                      Deletions stopped due to --max-delete limit (21204 skipped)\n";
        let diagnosis = at(23, stderr);
        assert_eq!((diagnosis.class, diagnosis.deletions_skipped), (Class::MaxDelete, Some(21_204)));
        assert!(!diagnosis.retryable);
    }

    #[test]
    fn one_missing_directory_is_not_the_source() {
        let stderr = b"rsync: [sender] change_dir \"/x\" (in m) failed: No such file or directory (2)\n";
        for (files, class) in [(0, C::NotFound), (7, C::Partial)] {
            let count = crate::stats::Count { total: files, ..Default::default() };
            let stats = Stats { files: Some(count), ..full_stats() };
            assert_eq!(diagnose(ExitCode::Code(23), stderr, &stats).class, class);
        }
    }

    #[test]
    fn causes_are_counted_and_harmless() {
        let line =
            "rsync: [sender] send_files failed to open \"/a\u{1b}[31m\" (in CPAN): Permission denied (13)\n";
        let diagnosis = at(23, &line.repeat(3));
        assert_eq!(
            diagnosis.cause,
            "[sender] send_files failed to open \"/a\\x1b[31m\" (in CPAN): Permission denied (13) (and 2 more)"
        );
        assert!(at(12, &"x".repeat(200_000)).cause.chars().count() <= CAUSE_CHARS_MAX + 1);
        assert_eq!(at(12, "").cause, "rsync exited with 12 and said nothing");
    }

    #[test]
    fn a_message_counts_only_with_its_code() {
        // An upstream may send any text as a message of its own.
        assert_eq!(at(0, "@ERROR: auth failed on module x").class, Class::Ok);
        assert_eq!(at(12, "Deletions stopped due to --max-delete limit (1 skipped)").class, Class::Network);
    }
}
