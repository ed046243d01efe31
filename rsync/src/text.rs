//! Text for people made of bytes that strangers chose. Does NOT know terminals or colours.

use std::fmt::Write as _;

/// Bytes as one line of text that is safe on a terminal and in a log: control characters, characters that turn
/// the writing direction and bytes that are not UTF-8 become `\xNN` or `\u{N}`. After `chars_max` characters of
/// output the rest is replaced by `…`.
#[must_use]
pub fn printable(bytes: &[u8], chars_max: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for chunk in bytes.utf8_chunks() {
        let shown =
            chunk.valid().chars().map(escape_char).chain(chunk.invalid().iter().map(|b| escape_byte(*b)));
        for piece in shown {
            used += piece.chars().count();
            if used > chars_max {
                out.push('…');
                return out;
            }
            out.push_str(&piece);
        }
    }
    out
}

fn escape_char(c: char) -> String {
    // Bidirectional controls: U+202E in a file name would let an upstream reorder an administrator's screen.
    let turns_direction =
        matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match c {
        _ if c.is_ascii_control() => escape_byte(c as u8),
        _ if c.is_control() || turns_direction => c.escape_unicode().to_string(),
        _ => c.to_string(),
    }
}

fn escape_byte(byte: u8) -> String {
    let mut out = String::with_capacity(4);
    // Writing to a String cannot fail.
    let _ = write!(out, "\\x{byte:02x}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_controls_become_text() {
        assert_eq!(printable(b"a\x1b[31m\n\xff\x7f", 100), "a\\x1b[31m\\x0a\\xff\\x7f");
        assert_eq!(printable("grün \u{202e}x\u{85}".as_bytes(), 100), "grün \\u{202e}x\\u{85}");
    }

    #[test]
    fn the_rest_is_cut() {
        assert_eq!(printable(b"abcdef", 3), "abc…");
        assert_eq!(printable(b"abc", 3), "abc");
    }
}
