//! Texts for people: bounded, and safe on a terminal. Does NOT know what they say.

/// Cuts a text to at most `bytes_max` bytes, at the end of a character, and marks the cut.
pub(crate) fn cut(text: &mut String, bytes_max: usize) {
    const MARK: char = '…';
    if text.len() > bytes_max {
        let room = bytes_max.saturating_sub(MARK.len_utf8());
        let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push(MARK);
    }
}

/// Bytes with a binary unit and three figures: `8.10 TiB`.
#[allow(clippy::cast_precision_loss, reason = "three figures are shown")]
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match (unit, value) {
        (0, _) => 0,
        (_, value) if value < 9.995 => 2,
        (_, value) if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A count with commas: `61,204`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_figures() {
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (1024, "1.00 KiB"),
            (86 * (1 << 30) + (1 << 27), "86.1 GiB"),
            (412 << 20, "412 MiB"),
            (8_906_000_000_000, "8.10 TiB"),
        ] {
            assert_eq!(bytes(number), text, "{number}");
        }
    }

    #[test]
    fn commas_and_cuts() {
        assert_eq!((count(0), count(999), count(61_204)), ("0".into(), "999".into(), "61,204".into()));
        let mut text = "häßlich".to_owned();
        cut(&mut text, 6);
        assert_eq!(text, "hä…");
    }
}
