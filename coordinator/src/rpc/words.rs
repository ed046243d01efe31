//! The words of a list's filter: separated by blanks, which a value in double quotes may hold. Knows no filter.

/// Takes a filter apart: `labels.site="north wing" paused=true`. In quotes a backslash takes the next character as it is.
///
/// # Errors
/// A quote that is not closed.
pub(super) fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(characters.next()),
            blank if blank.is_whitespace() && !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    if quoted { Err("a double quote is not closed") } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_part_words_unless_they_are_quoted() {
        for (text, words) in [
            ("", &[][..]),
            ("  a=b\t AND  c= ", &["a=b", "AND", "c="]),
            (r#"labels.a="x y" b=c"#, &["labels.a=x y", "b=c"]),
            (r#"labels.a="say \"x\" \\ y""#, &["labels.a=say \"x\" \\ y"]),
            (r#"labels.a="" """#, &["labels.a=", ""]),
            (r"a=\x", &[r"a=\x"]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        assert!(split("labels.a=\"x y").is_err() && split("\"a\\\"").is_err());
    }
}
