//! Lines of a listing, as `--list-only` with `--no-h` writes them: mode, size, time and name of one entry. Takes any
//! bytes: an upstream chooses the names and can add lines of its own. Does NOT ask for listings:
//! [`crate::argv`] does ([`Purpose::List`](crate::Purpose::List)).

use chrono::{NaiveDate, NaiveTime};

use crate::progress::{Kind, unescape_name};

/// The name of the listed directory itself.
pub const SELF: &[u8] = b".";

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its length, bytes.
    pub size: u64,
    /// When it was last changed, seconds since 1970, where the program that listed it ran with `TZ=UTC`, as all of ours
    /// do. `None`: there is no such day.
    pub changed: Option<i64>,
    /// Its name as bytes, relative to the listed directory; [`SELF`] for the directory itself.
    pub name: Vec<u8>,
}

/// Letters of a mode behind the kind.
const MODE_LETTERS: &[u8] = b"rwxstST-";

/// Reads a line without its end: `-rw-r--r--           2 2026/11/22 00:29:05 README`. `None`: it is another line.
#[must_use]
pub fn parse_line(line: &[u8]) -> Option<Entry> {
    let (mode, rest) = line.split_at_checked(10)?;
    let kind = match mode[0] {
        b'-' => Kind::File,
        b'd' => Kind::Directory,
        b'l' => Kind::Link,
        b'b' | b'c' => Kind::Device,
        b's' | b'p' => Kind::Special,
        _ => return None,
    };
    if !mode[1..].iter().all(|letter| MODE_LETTERS.contains(letter)) {
        return None;
    }
    let (size, rest) = word(rest.strip_prefix(b" ")?.trim_ascii_start())?;
    let (date, rest) = word(rest)?;
    let (time, name) = word(rest)?;
    let shaped = has_shape(date, b"0000/00/00") && has_shape(time, b"00:00:00");
    let size = std::str::from_utf8(size).ok()?.parse().ok()?;
    let changed = shaped.then(|| seconds(date, time)).flatten();
    (shaped && !name.is_empty()).then(|| Entry { kind, size, changed, name: unescape_name(name) })
}

/// `2026/11/22`, `00:29:05` as seconds since 1970.
fn seconds(date: &[u8], time: &[u8]) -> Option<i64> {
    let date = NaiveDate::parse_from_str(std::str::from_utf8(date).ok()?, "%Y/%m/%d").ok()?;
    let time = NaiveTime::parse_from_str(std::str::from_utf8(time).ok()?, "%H:%M:%S").ok()?;
    Some(date.and_time(time).and_utc().timestamp())
}

/// Up to the next space, and what follows that one space.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|b| *b == b' ')?;
    Some((&text[..end], &text[end + 1..]))
}

/// Digits where the shape has a 0, and its other bytes as they are.
fn has_shape(text: &[u8], shape: &[u8]) -> bool {
    let same =
        |(byte, wanted): (&u8, &u8)| if *wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted };
    text.len() == shape.len() && text.iter().zip(shape).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_rsync() {
        for (line, kind, size, name) in [
            ("drwxr-xr-x        4096 2026/11/22 00:29:05 .", Kind::Directory, 4096, "."),
            (
                "-rw-r--r--           2 2026/11/22 00:29:05 dists/stable/Release",
                Kind::File,
                2,
                "dists/stable/Release",
            ),
            ("lrwxrwxrwx           6 2026/11/22 00:29:05 link", Kind::Link, 6, "link"),
            ("-rw-r--r--           0 2026/11/22 00:29:05 new\\#012line", Kind::File, 0, "new\nline"),
            (
                "drwxrwsr-t 18446744073709551615 1970/01/01 00:00:00  two  spaces ",
                Kind::Directory,
                u64::MAX,
                " two  spaces ",
            ),
        ] {
            let entry = parse_line(line.as_bytes()).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((entry.kind, entry.size, entry.name.as_slice()), (kind, size, name.as_bytes()));
        }
    }

    #[test]
    fn times_are_of_utc() {
        for (time, seconds) in [
            ("2026/11/22 00:29:05", Some(1_795_307_345)),
            ("1970/01/01 00:00:00", Some(0)),
            ("1969/12/31 23:59:59", Some(-1)),
            ("2038/01/19 03:14:08", Some(2_147_483_648)),
            ("2024/02/29 12:00:00", Some(1_709_208_000)),
            ("2026/02/29 12:00:00", None),
            ("2026/13/01 12:00:00", None),
            ("2026/11/22 24:00:00", None),
        ] {
            let line = format!("-rw-r--r--           2 {time} README");
            let entry = parse_line(line.as_bytes()).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(entry.changed, seconds, "{line}");
        }
    }

    #[test]
    fn other_lines() {
        for line in [
            "",
            "welcome to the mirror",
            "drwxr-xr-x          4,096 2026/11/22 00:29:05 .",
            "drwxr-xr-x        4096 2026/11/22 00:29:05 ",
            "drwxr-xr-x        4096 2026-11-22 00:29:05 .",
            "xrwxr-xr-x        4096 2026/11/22 00:29:05 .",
            "drwxr-xr-é        4096 2026/11/22 00:29:05 .",
            "-rw-r--r--          -1 2026/11/22 00:29:05 a",
            "              0   0%    0.00kB/s    0:00:00 (xfr#0, to-chk=0/11)",
        ] {
            assert_eq!(parse_line(line.as_bytes()), None, "{line}");
        }
    }
}
