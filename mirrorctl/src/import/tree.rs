//! A document's values by name, with faults where they are of another kind. Knows no format's keys.

use crate::{
    fault::Faults,
    manifest::document::{Data, Node},
};

/// A place in messages: the line, where the format gives it.
pub(super) fn place(line: usize, otherwise: &str) -> String {
    if line == 0 { otherwise.to_owned() } else { format!("line {line}") }
}

/// The fields of a table; what is none is a fault.
pub(super) fn table<'a>(node: &'a Node, at: &str, faults: &mut Faults) -> &'a [(String, Node)] {
    match &node.data {
        Data::Table(fields) => fields,
        Data::Nothing => &[],
        other => {
            faults.add(place(node.line, at), format_args!("{at} must be a table, not {}", other.kind()));
            &[]
        }
    }
}

/// A text, empty where there is none; numbers stand for their digits.
pub(super) fn text(node: &Node, at: &str, faults: &mut Faults) -> String {
    match &node.data {
        Data::Text(text) => text.clone(),
        Data::Whole(number) => number.to_string(),
        Data::Time(time) => time.clone(),
        Data::Nothing => String::new(),
        other => {
            faults.add(place(node.line, at), format_args!("{at} must be a text, not {}", other.kind()));
            String::new()
        }
    }
}

/// A list of texts; a text alone is a list of one.
pub(super) fn texts(node: &Node, at: &str, faults: &mut Faults) -> Vec<String> {
    match &node.data {
        Data::List(values) => values
            .iter()
            .enumerate()
            .map(|(index, one)| text(one, &format!("{at}[{index}]"), faults))
            .collect(),
        Data::Nothing => Vec::new(),
        _ => vec![text(node, at, faults)],
    }
}

/// A whole number.
pub(super) fn number(node: &Node, at: &str, faults: &mut Faults) -> i64 {
    match &node.data {
        Data::Whole(number) => i64::try_from(*number).unwrap_or(i64::MAX),
        Data::Nothing => 0,
        other => {
            faults
                .add(place(node.line, at), format_args!("{at} must be a whole number, not {}", other.kind()));
            0
        }
    }
}

/// True or false.
pub(super) fn flag(node: &Node, at: &str, faults: &mut Faults) -> bool {
    match &node.data {
        Data::Flag(flag) => *flag,
        Data::Nothing => false,
        other => {
            faults
                .add(place(node.line, at), format_args!("{at} must be true or false, not {}", other.kind()));
            false
        }
    }
}

/// Whether a file's name is like a pattern with `*` and `?`, which match no dot at its beginning.
pub fn matches_name(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star stood, and how far it reaches: one step back is enough, so this ends in time.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, reached)) => {
                    star = Some((at, reached + 1));
                    p = at + 1;
                    n = reached + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_like_patterns() {
        for (pattern, name, is_like) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".a.conf", false),
            ("*.conf", "a.conf~", false),
            ("a?c*", "abcd", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("x", "x", true),
            ("", "", true),
        ] {
            assert_eq!(matches_name(pattern, name), is_like, "{pattern} {name}");
        }
    }
}
