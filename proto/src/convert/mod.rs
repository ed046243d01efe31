//! Wire ⇄ model: the only mapping. What comes in ends as a model value or as [`Violation`]s that name the field
//! as the API does, the value as it was typed and the rule; what goes out cannot fail. Does not know who asks,
//! what is stored, or whether the state allows what is asked.

mod agent;
mod check;
pub(crate) mod enums;
mod marker;
mod mask;
mod names;
mod outcome;
mod parts;
mod project;
mod run;
mod schedule;
mod session;
mod standing;
mod time;
mod trash;
mod upstream;
mod user;

pub use agent::*;
pub use check::*;
pub use marker::*;
pub use mask::*;
pub use names::*;
pub use outcome::*;
pub use project::*;
pub use run::*;
pub use schedule::*;
pub use session::*;
pub use standing::*;
pub use time::*;
pub use trash::*;
pub use upstream::*;
pub use user::*;

use std::collections::BTreeMap;

use fleet::{
    defaults::{LABEL_CHARS_MAX, LABELS_MAX},
    id::Name,
    refusal::Violation,
};

/// How much of a faulty value a fault shows, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// A value as it was typed, in quotes, safe to print and not too long.
fn quoted(value: &str) -> String {
    format!("\"{}\"", rsync::text::printable(value.as_bytes(), SHOWN_CHARS_MAX))
}

/// A fault that shows the value: `"*/70": the step must be 1 to 59`.
fn fault(field: impl Into<String>, value: &str, rule: impl std::fmt::Display) -> Violation {
    Violation::new(field, format!("{}: {rule}", quoted(value)))
}

/// Cuts a text to at most `bytes_max` bytes, between two characters.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    &text[..ends.take_while(|end| *end <= bytes_max).last().unwrap_or(0)]
}

/// Checks a text for people: length in characters, no control characters.
fn check_text(field: &str, text: &str, chars_max: usize, faults: &mut Vec<Violation>) {
    if text.chars().count() > chars_max {
        faults.push(fault(field, text, format_args!("must not be longer than {chars_max} characters")));
    } else if text.chars().any(char::is_control) {
        faults.push(fault(field, text, "must not hold control characters"));
    }
}

/// Checks labels: at most 32, keys as names are, values short texts. A fault of one label names the field
/// `labels.KEY`.
///
/// # Errors
/// Too many of them, or every faulty one.
pub fn labels_from_wire(
    field: &str,
    labels: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Vec<Violation>> {
    let mut faults = Vec::new();
    if labels.len() > LABELS_MAX {
        let text = format!("{} labels; at most {LABELS_MAX} are accepted", labels.len());
        return Err(vec![Violation::new(field, text)]);
    }
    for (key, value) in labels {
        match key.parse::<Name>() {
            Ok(_) => check_text(&format!("{field}.{key}"), value, LABEL_CHARS_MAX, &mut faults),
            Err(bad) => faults.push(fault(field, key, bad)),
        }
    }
    if faults.is_empty() { Ok(labels.clone()) } else { Err(faults) }
}

/// Takes a part of a request that was read, or notes its faults and goes on.
trait OrNote<T> {
    fn or_note(self, faults: &mut Vec<Violation>) -> Option<T>;
}

impl<T> OrNote<T> for Result<T, Violation> {
    fn or_note(self, faults: &mut Vec<Violation>) -> Option<T> {
        self.map_err(|fault| faults.push(fault)).ok()
    }
}

impl<T> OrNote<T> for Result<T, Vec<Violation>> {
    fn or_note(self, faults: &mut Vec<Violation>) -> Option<T> {
        self.map_err(|more| faults.extend(more)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("aäb", 2), "a");
        assert_eq!(cut("aäb", 3), "aä");
        assert_eq!(cut("aäb", 9), "aäb");
    }

    #[test]
    fn every_bad_label_is_told_of() {
        let labels =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert!(labels_from_wire("labels", &labels(&[("tier", "1"), ("x.y", "")])).is_ok());
        let bad = labels(&[("a b", "1"), ("c", "x\ny"), ("d", &"z".repeat(201))]);
        let faults = labels_from_wire("labels", &bad).unwrap_err();
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["labels", "labels.c", "labels.d"], "{faults:?}");
        let many = (0..33).map(|n| (format!("k{n}"), String::new())).collect();
        assert_eq!(labels_from_wire("labels", &many).unwrap_err().len(), 1);
    }
}
