//! The nearest known name to one that does not exist. Pure.

/// Names longer than this are not compared: the table of distances grows with the square.
const COMPARED_CHARS_MAX: usize = 128;

/// The known name that was most likely meant, if any is near enough: at most a third of the letters wrong, and at least
/// one wrong letter is always forgiven.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    let limit = (typed.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (distance(&typed, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// How many letters must be changed, added, removed or swapped with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(COMPARED_CHARS_MAX).collect();
    let b: Vec<char> = b.chars().take(COMPARED_CHARS_MAX).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_slips_are_found() {
        let known = ["debian", "debian-security", "CPAN", "fedora"];
        assert_eq!(nearest("debain", known), Some("debian"));
        assert_eq!(nearest("cpan", known), Some("CPAN"));
        assert_eq!(nearest("fedroa", known), Some("fedora"));
        assert_eq!(nearest("gentoo", known), None);
        assert_eq!(nearest("x", ["y"]), Some("y"));
    }

    #[test]
    fn distances() {
        for (a, b, expect) in [("", "", 0), ("a", "", 1), ("ab", "ba", 1), ("kitten", "sitting", 3)] {
            assert_eq!(distance(a, b), expect, "{a} {b}");
        }
    }
}
