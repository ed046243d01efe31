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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_end_at_a_character() {
        let mut text = "häßlich".to_owned();
        cut(&mut text, 6);
        assert_eq!(text, "hä…");
    }
}
