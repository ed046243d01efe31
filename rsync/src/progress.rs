//! What rsync writes to standard output during a run, read piece by piece in bounded memory.
//!
//! The arguments of [`crate::argv`] make rsync write, mixed and separated by `\r` or `\n`: progress
//! (`--info=progress2`), one record for each changed entry (`--out-format`), the closing numbers
//! ([`crate::stats`]), and messages. An upstream can add messages too, so a number read here may be a lie of the
//! upstream's, but never more than a number. Does NOT know time: who wants an estimate keeps the clock.

use std::time::Duration;

use crate::stats::Stats;

/// Longest line kept, bytes; the rest of a longer one is dropped. The endless MOTD of a hostile server was
/// 6 MB in 8 s.
pub const LINE_BYTES_MAX: usize = 8 << 10;
/// `--out-format` that [`OutputParser`] reads: change, length, bytes transferred, name. The name comes last, as it
/// may hold `|`; a link's target (`%L`) is left out, as a name may hold ` -> `.
pub const OUT_FORMAT: &str = ">%i|%l|%b|%n";
/// `--info` that [`OutputParser`] reads.
pub const INFO: &str = "progress2,stats2";

/// How far a run is; all of it only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of file data fetched or rebuilt.
    pub bytes: u64,
    /// Files of which data was fetched.
    pub files_transferred: u64,
    /// Entries looked at: the total less rsync's `to-chk`. rsync's own order varies, so the maximum is kept.
    pub files_done: u64,
    /// Entries known so far.
    pub files_total: u64,
    /// The upstream is still sending its list (`ir-chk`), so the total grows.
    pub total_still_grows: bool,
    /// Bytes a second, as rsync measured last.
    pub rate: u64,
    /// Time since the start. rsync says it only when a file is finished; in between it prints an estimate, which
    /// is left out.
    pub elapsed: Option<Duration>,
}

impl Progress {
    /// Share of the entries that were looked at, 0 to 100; none before the first file. rsync's own percentage is
    /// of bytes and ends below 100 where files are up to date.
    #[must_use]
    pub fn percent(&self) -> Option<u8> {
        let percent = u128::from(self.files_done) * 100 / u128::from(self.files_total.max(1));
        (self.files_total > 0).then_some(u8::try_from(percent).unwrap_or(100).min(100))
    }
}

/// What happened to an entry: the first letter of rsync's `%i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// `>` data was fetched.
    Received,
    /// `<` data was sent.
    Sent,
    /// `c` made or changed without data, as a directory or link.
    Created,
    /// `h` a hard link to another entry.
    HardLinked,
    /// `.` only attributes.
    Attributes,
    /// `*deleting` removed here.
    Deleted,
}

/// The kind of an entry: the second letter of rsync's `%i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `f`
    File,
    /// `d`
    Directory,
    /// `L`
    Link,
    /// `D`
    Device,
    /// `S` socket or fifo.
    Special,
}

/// One changed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What happened.
    pub change: Change,
    /// It was not there before; false for deleted ones.
    pub new: bool,
    /// What it is. Of a deleted entry rsync only shows whether it was a directory.
    pub kind: Option<Kind>,
    /// Its length, bytes; 0 for deleted ones.
    pub size: u64,
    /// Bytes received for it.
    pub transferred: u64,
    /// Its name as bytes, relative to the destination; directories end with `/`.
    pub name: Vec<u8>,
}

/// One piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Progress.
    Progress(Progress),
    /// A changed entry.
    Item(Item),
    /// A line of the closing numbers went into [`OutputParser::stats`].
    Stats,
    /// Any other line, as bytes.
    Other {
        /// At most [`LINE_BYTES_MAX`] bytes of it.
        line: Vec<u8>,
        /// There was more.
        cut: bool,
    },
}

/// Reads standard output in pieces of any size. Holds at most one line.
#[derive(Debug, Default)]
pub struct OutputParser {
    line: Vec<u8>,
    cut: bool,
    progress: Progress,
    stats: Stats,
}

impl OutputParser {
    /// A parser at the start of the output.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and hands each finished line to `sink`.
    pub fn push(&mut self, bytes: &[u8], mut sink: impl FnMut(Event)) {
        for piece in bytes.split_inclusive(|b| matches!(b, b'\r' | b'\n')) {
            let (text, ends) = match piece {
                [text @ .., b'\r' | b'\n'] => (text, true),
                text => (text, false),
            };
            let room = LINE_BYTES_MAX - self.line.len();
            self.cut |= text.len() > room;
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ends && let Some(event) = self.end_line() {
                sink(event);
            }
        }
    }

    /// Ends the output: the last line may lack its end.
    pub fn finish(&mut self) -> Option<Event> {
        self.end_line()
    }

    /// The latest progress.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The closing numbers read so far.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let cut = std::mem::take(&mut self.cut);
        if line.iter().all(u8::is_ascii_whitespace) {
            return None;
        }
        // A cut record would give a cut name, that of another file.
        if cut {
            return Some(Event::Other { line, cut });
        }
        if let Some(item) = parse_item(&line) {
            return Some(Event::Item(item));
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            return Some(Event::Other { line, cut });
        };
        if let Some(update) = parse_progress(text) {
            self.progress = merge(self.progress, update);
            return Some(Event::Progress(self.progress));
        }
        if self.stats.absorb(text) { Some(Event::Stats) } else { Some(Event::Other { line, cut }) }
    }
}

/// One line of `progress2`, as it stands there.
struct Update {
    bytes: u64,
    rate: u64,
    checked: Option<Checked>,
}

struct Checked {
    transferred: u64,
    still_to_check: u64,
    total: u64,
    grows: bool,
    elapsed: Option<Duration>,
}

/// Keeps what only grows: `to-chk` jumps (42, 40, 41), and with incremental recursion the total grows with it, so
/// the number to keep is the entries done.
fn merge(old: Progress, update: Update) -> Progress {
    let mut new = Progress { bytes: old.bytes.max(update.bytes), rate: update.rate, ..old };
    if let Some(checked) = update.checked {
        new.files_transferred = old.files_transferred.max(checked.transferred);
        new.files_total = old.files_total.max(checked.total);
        new.files_done = old.files_done.max(checked.total.saturating_sub(checked.still_to_check));
        new.total_still_grows = checked.grows;
        new.elapsed = old.elapsed.max(checked.elapsed);
    }
    new
}

/// `3000000  33%    2.98MB/s    0:00:00 (xfr#1, to-chk=42/46)`, the bracket only when a file is finished.
fn parse_progress(line: &str) -> Option<Update> {
    let mut words = line.split_ascii_whitespace();
    let bytes = words.next()?.parse().ok()?;
    words.next()?.strip_suffix('%')?.parse::<u64>().ok()?;
    let rate = parse_rate(words.next()?)?;
    let time = words.next()?;
    // The time of an unfinished file is an estimate, `??:??:??` when there is none.
    let elapsed = parse_time(time);
    if elapsed.is_none() && time != "??:??:??" {
        return None;
    }
    let Some(transferred) = words.next() else {
        return Some(Update { bytes, rate, checked: None });
    };
    let transferred = transferred.strip_prefix("(xfr#")?.strip_suffix(',')?.parse().ok()?;
    let (kind, numbers) = words.next()?.strip_suffix(')')?.split_once('=')?;
    let (still_to_check, total) = numbers.split_once('/')?;
    let grows = match kind {
        "to-chk" => false,
        "ir-chk" => true,
        _ => return None,
    };
    let (still_to_check, total) = (still_to_check.parse().ok()?, total.parse().ok()?);
    let checked = Checked { transferred, still_to_check, total, grows, elapsed };
    words.next().is_none().then_some(Update { bytes, rate, checked: Some(checked) })
}

/// `2.98MB/s`: two decimals, units of 1,024 (`progress.c`).
fn parse_rate(word: &str) -> Option<u64> {
    let number = word.strip_suffix("B/s")?;
    let (number, unit) = number.split_at_checked(number.len().checked_sub(1)?)?;
    let unit: u128 = match unit {
        "k" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return None,
    };
    let (whole, hundredths) = number.split_once('.')?;
    if hundredths.len() != 2 {
        return None;
    }
    let (whole, hundredths): (u64, u8) = (whole.parse().ok()?, hundredths.parse().ok()?);
    u64::try_from((u128::from(whole) * 100 + u128::from(hundredths)) * unit / 100).ok()
}

/// `H:MM:SS`, any number of hours.
fn parse_time(word: &str) -> Option<Duration> {
    let mut parts = word.split(':').map(|part| part.parse::<u64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let in_range = parts.next().is_none() && minutes < 60 && seconds < 60;
    in_range.then_some(Duration::from_secs(hours.checked_mul(3600)?.checked_add(minutes * 60 + seconds)?))
}

/// A record of [`OUT_FORMAT`].
fn parse_item(line: &[u8]) -> Option<Item> {
    let mut fields = line.strip_prefix(b">")?.splitn(4, |b| *b == b'|');
    let (code, size, transferred, name) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let number = |field: &[u8]| std::str::from_utf8(field).ok().and_then(|text| text.parse().ok());
    let name = unescape_name(name);
    let (change, kind) = parse_code(code, &name)?;
    // Behind the two letters: what differs, or a plus in each place where there was nothing.
    let new = code.len() > 2 && code[2..].iter().all(|b| *b == b'+');
    Some(Item { change, new, kind, size: number(size)?, transferred: number(transferred)?, name })
}

fn parse_code(code: &[u8], name: &[u8]) -> Option<(Change, Option<Kind>)> {
    if code.starts_with(b"*deleting") {
        return Some((Change::Deleted, name.ends_with(b"/").then_some(Kind::Directory)));
    }
    let change = match code.first()? {
        b'>' => Change::Received,
        b'<' => Change::Sent,
        b'c' => Change::Created,
        b'h' => Change::HardLinked,
        b'.' => Change::Attributes,
        _ => return None,
    };
    let kind = match code.get(1)? {
        b'f' => Kind::File,
        b'd' => Kind::Directory,
        b'L' => Kind::Link,
        b'D' => Kind::Device,
        b'S' => Kind::Special,
        _ => return None,
    };
    Some((change, Some(kind)))
}

/// Undoes rsync's `\#ooo` in names. Exact: rsync writes a `\#` of a name that is followed by three digits as
/// `\#134#`.
#[must_use]
pub fn unescape_name(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let digit = |b: u8| (b'0'..=b'7').contains(&b).then(|| u16::from(b - b'0'));
        let octal = match tail {
            [b'#', a, b, c, ..] if *first == b'\\' => {
                digit(*a).zip(digit(*b)).zip(digit(*c)).map(|((a, b), c)| a * 64 + b * 8 + c)
            }
            _ => None,
        };
        match octal.and_then(|value| u8::try_from(value).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[4..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(bytes: &[u8]) -> Vec<Event> {
        let mut parser = OutputParser::new();
        let mut out = Vec::new();
        parser.push(bytes, |event| out.push(event));
        out.extend(parser.finish());
        out
    }

    fn progress_of(text: &str) -> Progress {
        match events(text.as_bytes()).pop() {
            Some(Event::Progress(progress)) => progress,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn a_finished_file() {
        let progress =
            progress_of("\r        3000000  33%    2.98MB/s    1:02:03 (xfr#1, to-chk=42/46)   \r");
        assert_eq!(progress.bytes, 3_000_000);
        assert_eq!((progress.files_done, progress.files_total, progress.files_transferred), (4, 46, 1));
        assert_eq!(progress.rate, 298 * (1 << 20) / 100);
        assert_eq!(progress.elapsed, Some(Duration::from_secs(3723)));
        assert_eq!(progress.percent(), Some(8));
        assert!(!progress.total_still_grows);
    }

    #[test]
    fn an_unfinished_file_has_an_estimate_and_no_counts() {
        for time in ["0:00:09", "??:??:??"] {
            let progress = progress_of(&format!("\r  32768   0%    1.00kB/s    {time}  "));
            assert_eq!((progress.bytes, progress.rate), (32_768, 1024));
            assert_eq!((progress.elapsed, progress.percent()), (None, None));
        }
    }

    #[test]
    fn what_is_done_never_shrinks() {
        let line = |checked: &str| format!("1 1% 1.00kB/s 0:00:01 (xfr#1, {checked})\n");
        let mut text = String::new();
        let mut last = 0;
        for (checked, done, total) in [
            ("ir-chk=100000/100010", 10, 100_010),
            ("ir-chk=100000/200000", 100_000, 200_000),
            ("to-chk=42/200000", 199_958, 200_000),
            ("to-chk=40/200000", 199_960, 200_000),
            ("to-chk=41/200000", 199_960, 200_000),
            ("to-chk=9/5", 199_960, 200_000),
        ] {
            text += &line(checked);
            let progress = progress_of(&text);
            assert_eq!((progress.files_done, progress.files_total), (done, total), "{checked}");
            assert_eq!(progress.total_still_grows, checked.starts_with("ir"));
            assert!(progress.files_done >= last);
            last = progress.files_done;
        }
    }

    #[test]
    fn records() {
        let item = |change, kind, size, transferred, name: &[u8]| {
            let new = matches!(change, Change::Received | Change::Created | Change::HardLinked);
            vec![Event::Item(Item { change, new, kind, size, transferred, name: name.to_vec() })]
        };
        for (line, expected) in [
            (">>f+++++++++|3|43|a", item(Change::Received, Some(Kind::File), 3, 43, b"a")),
            (">cd+++++++++|4096|0|sub/", item(Change::Created, Some(Kind::Directory), 4096, 0, b"sub/")),
            (">cL+++++++++|1|0|a -> b", item(Change::Created, Some(Kind::Link), 1, 0, b"a -> b")),
            (">hf+++++++++|1|0|hard", item(Change::HardLinked, Some(Kind::File), 1, 0, b"hard")),
            (">.d..t......|4096|0|./", item(Change::Attributes, Some(Kind::Directory), 4096, 0, b"./")),
            (">*deleting  |0|0|gone", item(Change::Deleted, None, 0, 0, b"gone")),
            (">*deleting  |0|0|old/", item(Change::Deleted, Some(Kind::Directory), 0, 0, b"old/")),
            (
                ">>f+++++++++|1|41|a|b\\#012c\\#377",
                item(Change::Received, Some(Kind::File), 1, 41, b"a|b\nc\xff"),
            ),
        ] {
            assert_eq!(events(line.as_bytes()), expected, "{line}");
        }
        let again = events(b">>f.st......|3|43|a");
        assert!(matches!(again.as_slice(), [Event::Item(Item { change: Change::Received, new: false, .. })]));
    }

    #[test]
    fn other_lines_stay_as_they_are() {
        for line in [
            "skipping non-regular file \"dev\"",
            "> hello",
            ">>f+++++++++|x|43|a",
            ">?f+++++++++|1|43|a",
            "3000000  33%",
            "1 2% fast 0:00:00",
            "1 2% 1.00kB/s 0:61:00",
            "1 2% 1.00kB/s 0:00:01 (xfr#1, to-chk=1/2) more",
            "1 2% 1.00kB/s 0:00:01 (xfr#1, no-chk=1/2)",
            "1 2% 99999999999999999999.00TB/s 0:00:01",
        ] {
            assert_eq!(events(line.as_bytes()), [Event::Other { line: line.into(), cut: false }], "{line}");
        }
    }

    #[test]
    fn long_lines_are_cut_and_the_next_is_whole() {
        let mut bytes = b">>f+++++++++|1|1|".to_vec();
        bytes.resize(3 * LINE_BYTES_MAX, b'a');
        bytes.extend_from_slice(b"\nnext\n");
        let events = events(&bytes);
        assert!(matches!(&events[0], Event::Other { line, cut: true } if line.len() == LINE_BYTES_MAX));
        assert_eq!(events[1], Event::Other { line: b"next".to_vec(), cut: false });
        assert_eq!(events.len(), 2);
    }

    #[test]
    fn names_are_unescaped_exactly() {
        for (text, name) in [
            (r"a\#012b", b"a\nb".as_slice()),
            (r"a\#134#012b", br"a\#012b"),
            (r"a\#99", br"a\#99"),
            (r"\#777", br"\#777"),
            (r"\\#101", b"\\A"),
            (r"\#", br"\#"),
            ("", b""),
        ] {
            assert_eq!(unescape_name(text.as_bytes()), name, "{text}");
        }
    }
}
