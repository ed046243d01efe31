//! Pages of lists: sizes within bounds, and tokens that are opaque to people and strict to us.
//!
//! A token says after which key the next page begins and which list it is of, so that it cannot be used for
//! another list or another filter. It is no secret and grants nothing.

use aws_lc_rs::digest::{SHA256, digest};
use fleet::refusal::Violation;

/// Largest page, in rows; a larger wish is an error.
pub const PAGE_SIZE_MAX: usize = 1_000;
/// Longest token that is read, in bytes: the mark of a list and a key, in hex.
const TOKEN_BYTES_MAX: usize = 1_024;
/// Bytes that stand for the list in a token, however long its filter is.
const MARK_BYTES: usize = 16;

/// Which rows are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// At most this many rows.
    pub size: usize,
    /// Only rows after this key; `None`: from the start.
    pub after: Option<String>,
}

/// Reads `page_size` (0: `default_size`) and `page_token`. `list` names the list with all that selects its rows,
/// such as parent and filter.
///
/// # Errors
/// A size out of bounds, a token of another list.
pub fn read(
    list: &str,
    page_size: i32,
    page_token: &str,
    default_size: usize,
) -> Result<Page, Vec<Violation>> {
    let mut faults = Vec::new();
    let size = match usize::try_from(page_size) {
        Ok(0) => default_size,
        Ok(size) if size <= PAGE_SIZE_MAX => size,
        Ok(_) | Err(_) => {
            let text = format!("\"{page_size}\": must be 1 to {PAGE_SIZE_MAX}, or 0 for the default");
            faults.push(Violation::new("page_size", text));
            default_size
        }
    };
    let after = if page_token.is_empty() { None } else { open(list, page_token) };
    if after.is_none() && !page_token.is_empty() {
        let text = "is no token of this list and filter; send the one of the last answer, or none";
        faults.push(Violation::new("page_token", text));
    }
    if faults.is_empty() { Ok(Page { size, after }) } else { Err(faults) }
}

/// The token of the page that begins after `key`.
#[must_use]
pub fn token(list: &str, key: &str) -> String {
    hex::encode([&mark(list), key.as_bytes()].concat())
}

/// What tells lists apart.
fn mark(list: &str) -> [u8; MARK_BYTES] {
    let mut mark = [0; MARK_BYTES];
    mark.copy_from_slice(&digest(&SHA256, list.as_bytes()).as_ref()[..MARK_BYTES]);
    mark
}

/// Cuts `rows`, which begin after the page's key, to the page; the token of the next one is empty when there is none.
pub fn cut<T>(
    list: &str,
    page: &Page,
    rows: impl Iterator<Item = T>,
    key: impl Fn(&T) -> String,
) -> (Vec<T>, String) {
    let mut rows = rows.fuse();
    let found: Vec<T> = rows.by_ref().take(page.size).collect();
    let more = rows.next().is_some();
    let next = found.last().filter(|_| more).map_or_else(String::new, |last| token(list, &key(last)));
    (found, next)
}

fn open(list: &str, token: &str) -> Option<String> {
    let bytes = hex::decode(Some(token).filter(|token| token.len() <= TOKEN_BYTES_MAX)?).ok()?;
    let key = bytes.strip_prefix(&mark(list))?;
    String::from_utf8(key.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let rows = ["a", "b", "c", "d", "e"];
        let mut seen = Vec::new();
        let mut token = String::new();
        loop {
            let page = read("letters", 2, &token, 100).unwrap();
            let from = rows.iter().filter(|row| page.after.as_deref().is_none_or(|after| **row > after));
            let (found, next) = cut("letters", &page, from.copied(), ToString::to_string);
            assert!(found.len() <= 2);
            seen.extend(found);
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!(seen, rows);
    }

    #[test]
    fn a_full_last_page_has_no_token() {
        let page = read("letters", 2, "", 100).unwrap();
        assert_eq!(
            cut("letters", &page, ["a", "b"].into_iter(), ToString::to_string),
            (vec!["a", "b"], String::new())
        );
    }

    #[test]
    fn the_token_of_the_longest_filter_and_name_is_read_again() {
        let list = format!("projects {}", "\u{1f4be}".repeat(500));
        let name = "x".repeat(100);
        let page = read(&list, 1, &token(&list, &name), 100).unwrap();
        assert_eq!(page.after.as_deref(), Some(name.as_str()));
    }

    #[test]
    fn other_lists_tokens_and_sizes_out_of_bounds_are_refused_together() {
        let foreign = token("agents labels.role=edge", "edge1");
        let faults = read("agents ", 1_001, &foreign, 100).unwrap_err();
        assert_eq!(
            faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(),
            ["page_size", "page_token"]
        );
        for bad in ["x", "zz", "00", &"00".repeat(TOKEN_BYTES_MAX)] {
            assert!(read("agents ", 0, bad, 100).is_err(), "{bad:.10}");
        }
        assert_eq!(read("agents ", -1, "", 100).unwrap_err().len(), 1);
        assert_eq!(read("agents ", 0, "", 100).unwrap(), Page { size: 100, after: None });
    }
}
