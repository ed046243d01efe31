//! Numbers and times as sentences tell them: relative ones with one unit, absolute ones in UTC.

use std::time::Duration;

use fleet::time::Wall;
// Told alike by the engine and by people's programs.
pub(super) use fleet::words::{bytes, commas};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A span with one unit: `40s`, `42m`, `31h` (up to 48), `9d`.
pub(super) fn relative(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 48 * HOUR => format!("{}h", seconds / HOUR),
        _ => format!("{}d", seconds / DAY),
    }
}

/// A configured span in its largest whole unit: `90s`, `10m`.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        _ if seconds.is_multiple_of(HOUR) => format!("{}h", seconds / HOUR),
        _ if seconds.is_multiple_of(MINUTE) => format!("{}m", seconds / MINUTE),
        _ => format!("{seconds}s"),
    }
}

/// An instant: `12:10 UTC` on the day of `now`, else `2026-11-18 09:02 UTC`.
pub(super) fn moment(now: Wall, at: Wall) -> String {
    let (now, at) = (now.to_utc(), at.to_utc());
    let format = if now.date_naive() == at.date_naive() { "%H:%M UTC" } else { "%Y-%m-%d %H:%M UTC" };
    at.format(format).to_string()
}

/// A place in a line: `1st`, `2nd`, `11th`.
pub(super) fn ordinal(place: u32) -> String {
    let ending = match (place % 100, place % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{place}{ending}")
}

/// Seconds to the last one: `3h17m12s`, `7d`, `0s`.
pub(super) fn exact(seconds: u64) -> String {
    let mut rest = seconds;
    let mut text = String::new();
    for (size, unit) in [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')] {
        let (number, left) = (rest / size, rest % size);
        rest = left;
        if number > 0 {
            text.push_str(&format!("{number}{unit}"));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_with_one_unit() {
        let told = |seconds| relative(Duration::from_secs(seconds));
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_599, "59m"),
            (31 * HOUR, "31h"),
            (48 * HOUR, "2d"),
            (9 * DAY, "9d"),
        ] {
            assert_eq!(told(seconds), text);
        }
        assert_eq!(span(Duration::from_secs(90)), "90s");
        assert_eq!(span(Duration::from_secs(600)), "10m");
        assert_eq!(span(Duration::from_millis(20)), "20ms");
    }

    #[test]
    fn places_read_well() {
        let places: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 101, 111].map(ordinal).into();
        assert_eq!(places.join(" "), "1st 2nd 3rd 4th 11th 12th 13th 21st 101st 111th");
    }

    #[test]
    fn another_day_is_told_with_its_date() {
        let now = Wall(1_795_160_520_000);
        assert_eq!(moment(now, now), "07:42 UTC");
        assert_eq!(moment(now, now.minus(Duration::from_secs(26 * HOUR))), "2026-11-19 05:42 UTC");
    }
}
