//! How numbers, sizes, spans and times read. Pure; knows no terminal.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

pub use fleet::words::{bytes, commas as count};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Ages are told in hours up to this many.
const HOURS_MAX: i64 = 48;

/// Bytes a second: `412 MiB/s`.
#[must_use]
pub fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", bytes(bytes_per_second))
}

/// An age with one unit: `42s`, `42m`, `31h` (up to 48), `9d`. The future counts as now.
#[must_use]
pub fn age(span: TimeDelta) -> String {
    let seconds = span.num_seconds().max(0);
    if seconds < MINUTE {
        format!("{seconds}s")
    } else if seconds < HOUR {
        format!("{}m", seconds / MINUTE)
    } else if seconds / HOUR <= HOURS_MAX {
        format!("{}h", seconds / HOUR)
    } else {
        format!("{}d", seconds / DAY)
    }
}

/// How far off a future time is, as [`age`]. What was just asked for as `10m` or `3d` reads so, although a moment has
/// passed since.
#[must_use]
pub fn ahead(span: TimeDelta) -> String {
    /// The moment that an answer may take.
    const MOMENT: TimeDelta = TimeDelta::seconds(5);
    if span < TimeDelta::minutes(1) - MOMENT { age(span) } else { age(span + MOMENT) }
}

/// A duration with two units: `14m 2s`, `1h 3m`, `2d 4h`, `40s`.
#[must_use]
pub fn duration(span: TimeDelta) -> String {
    let seconds = span.num_seconds().max(0);
    let (large, unit, small, small_unit) = if seconds < MINUTE {
        return format!("{seconds}s");
    } else if seconds < HOUR {
        (seconds / MINUTE, "m", seconds % MINUTE, "s")
    } else if seconds < DAY {
        (seconds / HOUR, "h", seconds % HOUR / MINUTE, "m")
    } else {
        (seconds / DAY, "d", seconds % DAY / HOUR, "h")
    };
    if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit} {small}{small_unit}") }
}

/// A span as it would be typed: `5m`, `6h`, `1d12h`; exact.
#[must_use]
pub fn span(span: TimeDelta) -> String {
    let mut rest = span.num_seconds().max(0);
    let mut text = String::new();
    for (seconds, unit) in [(DAY, 'd'), (HOUR, 'h'), (MINUTE, 'm'), (1, 's')] {
        let number = rest / seconds;
        rest %= seconds;
        if number > 0 {
            text.push_str(&format!("{number}{unit}"));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// `2026-11-20T07:42:10Z`.
#[must_use]
pub fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A place in a line: `1st`, `2nd`, `11th`.
#[must_use]
pub fn ordinal(place: u32) -> String {
    let ending = match (place % 100, place % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{place}{ending}")
}

/// A time near `now`, as tables show it: `07:55` on the same day or within twelve hours, otherwise the date.
#[must_use]
pub fn clock(time: DateTime<Utc>, now: DateTime<Utc>) -> String {
    const NEAR: TimeDelta = TimeDelta::hours(12);
    if time.date_naive() == now.date_naive() || (time - now).abs() <= NEAR {
        time.format("%H:%M").to_string()
    } else {
        time.format("%Y-%m-%d").to_string()
    }
}

/// An absolute time in a sentence: `07:55 UTC` today, otherwise `2026-11-18 09:02 UTC`.
#[must_use]
pub fn moment(time: DateTime<Utc>, now: DateTime<Utc>) -> String {
    if time.date_naive() == now.date_naive() {
        time.format("%H:%M UTC").to_string()
    } else {
        time.format("%Y-%m-%d %H:%M UTC").to_string()
    }
}

/// `moment` and how far it is away: `07:55 UTC (in 13m)`, `05:40 UTC (2h ago)`.
#[must_use]
pub fn moment_and_distance(time: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let distance =
        if time >= now { format!("in {}", ahead(time - now)) } else { format!("{} ago", age(now - time)) };
    format!("{} ({distance})", moment(time, now))
}

/// Whether a terminal does something else with a character than show it: control characters, and those that turn the
/// direction of writing. None is beyond U+FFFF.
#[must_use]
pub fn is_obeyed(character: char) -> bool {
    let turns = matches!(character, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || turns
}

/// A whole page or message, made safe for a terminal: all but line ends, tabs and the colours that
/// [`View::paint`](crate::term::View::paint) makes prints as with [`clean`]. The last thing that text passes, whoever
/// made its parts.
#[must_use]
pub fn harmless(page: &str) -> String {
    let mut safe = String::with_capacity(page.len());
    let mut rest = page;
    while let Some(at) =
        rest.find(|character: char| is_obeyed(character) && character != '\n' && character != '\t')
    {
        let (before, from) = rest.split_at(at);
        safe.push_str(before);
        let own = if from.starts_with("\x1b[0m") {
            4
        } else if crate::term::begins_with_color(from) {
            5
        } else {
            0
        };
        let one = from.chars().next().map_or(from.len(), char::len_utf8);
        let (part, after) = from.split_at(own.max(one));
        safe.push_str(&if own > 0 { part.to_owned() } else { clean(part) });
        rest = after;
    }
    safe.push_str(rest);
    safe
}

/// JSON, made safe for a terminal: what it would obey stands in strings only, and is written as `\uNNNN`, which is the
/// same JSON.
#[must_use]
pub fn harmless_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        if is_obeyed(character) && !character.is_ascii_control() {
            safe.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            safe.push(character);
        }
    }
    safe.replace('\u{7f}', "\\u007f")
}

/// Text of others, made safe for a terminal: control characters print as `\xNN`, byte by byte.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_obeyed(character) {
            let mut buffer = [0; 4];
            for byte in character.encode_utf8(&mut buffer).bytes() {
                safe.push_str(&format!("\\x{byte:02X}"));
            }
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Log bytes, made safe for a terminal: all but line ends, tabs and printable text prints as `\xNN`.
#[must_use]
pub fn clean_log(data: &[u8]) -> String {
    let mut safe = String::with_capacity(data.len());
    for chunk in data.utf8_chunks() {
        for part in chunk.valid().split_inclusive(['\n', '\t']) {
            let kept = part.strip_suffix(['\n', '\t']).unwrap_or(part);
            safe.push_str(&clean(kept));
            safe.push_str(&part[kept.len()..]);
        }
        for byte in chunk.invalid() {
            safe.push_str(&format!("\\x{byte:02X}"));
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn rates_are_sizes_a_second() {
        assert_eq!(rate(412 << 20), "412 MiB/s");
    }

    #[test]
    fn ages_have_one_unit_and_durations_two() {
        for (seconds, one, two) in [
            (-5, "0s", "0s"),
            (59, "59s", "59s"),
            (842, "14m", "14m 2s"),
            (3_600, "1h", "1h"),
            (111_670, "31h", "1d 7h"),
            (48 * 3_600, "48h", "2d"),
            (49 * 3_600, "2d", "2d 1h"),
            (9 * 86_400 + 5, "9d", "9d"),
        ] {
            let span = TimeDelta::seconds(seconds);
            assert_eq!((age(span).as_str(), duration(span).as_str()), (one, two), "{seconds}");
        }
        assert_eq!(span(TimeDelta::seconds(129_600)), "1d12h");
        for (seconds, text) in [(54, "54s"), (57, "1m"), (599, "10m"), (590, "9m"), (3 * 86_400 - 1, "3d")] {
            assert_eq!(ahead(TimeDelta::seconds(seconds)), text);
        }
    }

    #[test]
    fn times_near_and_far() {
        let now = at("2026-11-20T07:42:10Z");
        assert_eq!(clock(at("2026-11-20T23:00:00Z"), now), "23:00");
        assert_eq!(clock(at("2026-11-21T08:00:00Z"), now), "2026-11-21");
        assert_eq!(clock(at("2026-11-19T22:00:00Z"), now), "22:00");
        assert_eq!(moment_and_distance(at("2026-11-20T07:55:30Z"), now), "07:55 UTC (in 13m)");
        assert_eq!(moment_and_distance(at("2026-11-18T09:02:00Z"), now), "2026-11-18 09:02 UTC (46h ago)");
    }

    #[test]
    fn control_bytes_are_shown() {
        assert_eq!(clean("a\x1b[2Jb\n"), "a\\x1B[2Jb\\x0A");
        assert_eq!(clean("a\u{202e}b\u{9b}"), "a\\xE2\\x80\\xAEb\\xC2\\x9B");
        let page = "\x1b[31mred\x1b[0m\tx\n\x1b[2J\x1b]0;t\x07\u{202e}\x1b[35";
        assert_eq!(harmless(page), "\x1b[31mred\x1b[0m\tx\n\\x1B[2J\\x1B]0;t\\x07\\xE2\\x80\\xAE\\x1B[35");
        assert_eq!(
            harmless_json("{\"a\": \"\u{9b}\u{202e}\u{7f}\"}\n"),
            "{\"a\": \"\\u009b\\u202e\\u007f\"}\n"
        );
        assert_eq!(clean_log(b"one\ttwo\r\n\xffend"), "one\ttwo\\x0D\n\\xFFend");
    }
}
