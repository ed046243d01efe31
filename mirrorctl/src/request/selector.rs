//! Selectors: which projects or agents a command is about, by their labels. One grammar for all commands that have
//! `-l`, kubectl's as far as it compares values.
//!
//! The API's filters know equality alone. What they can say goes along with a list's request, so that less is sent; all
//! of it is looked at here.

use std::collections::BTreeMap;

use fleet::id::Name;

use crate::fault::Faults;

/// How a selector's term is written, for refusals.
const RULE: &str = "write KEY=VALUE, KEY!=VALUE, KEY in (A,B) or KEY notin (A,B)";

/// Terms, all of which must hold; none: everything fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Term>);

/// A label and the values that it must have, or must not have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    key: String,
    values: Vec<String>,
    wanted: bool,
}

impl Selector {
    /// Reads what was typed at `-l`, each one or more terms with commas in between; faults are noted.
    pub fn read(typed: &[String], faults: &mut Faults) -> Self {
        let mut terms = Vec::new();
        for text in typed.iter().flat_map(|text| parts(text)) {
            let term = Term::read(text).map_err(|rule| format!("{:?}: {rule}", text.trim()));
            terms.extend(faults.check("--selector", term));
        }
        Self(terms)
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether these labels fit. One that is not there has no value: it is none of those that must be, and none of those
    /// that must not.
    #[must_use]
    pub fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        let holds = |term: &Term| labels.get(&term.key).is_some_and(|value| term.values.contains(value));
        self.0.iter().all(|term| holds(term) == term.wanted)
    }

    /// What of it the API's filters can say: `labels.tier=1`.
    #[must_use]
    pub fn filter(&self) -> String {
        let said = self.0.iter().filter_map(|Term { key, values, wanted }| match values.as_slice() {
            [value] if *wanted && !value.contains(char::is_whitespace) => {
                Some(format!("labels.{key}={value}"))
            }
            _ => None,
        });
        said.collect::<Vec<_>>().join(" ")
    }
}

impl Term {
    fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let end = text.find(|c: char| c.is_whitespace() || "=!(".contains(c)).unwrap_or(text.len());
        let (key, rest) = (&text[..end], text[end..].trim_start());
        let (wanted, values) = if let Some(value) = rest.strip_prefix("!=") {
            (false, vec![value])
        } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
            (true, vec![value])
        } else if let Some(list) = rest.strip_prefix("in") {
            (true, listed(list)?)
        } else if let Some(list) = rest.strip_prefix("notin") {
            (false, listed(list)?)
        } else {
            return Err(RULE.to_owned());
        };
        key.parse::<Name>().map_err(|bad| format!("{key:?} is no label's name: {bad}"))?;
        let values = values.into_iter().map(value).collect::<Result<_, _>>()?;
        Ok(Self { key: key.to_owned(), values, wanted })
    }
}

/// The values of `(a, b)`.
fn listed(text: &str) -> Result<Vec<&str>, String> {
    let list = text.trim().strip_prefix('(').and_then(|list| list.strip_suffix(')'));
    let values = parts(list.ok_or(RULE)?);
    if values.iter().any(|value| value.trim().is_empty()) {
        return Err("a value is missing between the brackets".to_owned());
    }
    Ok(values)
}

/// A value as it is, or in double quotes where it begins or ends with blanks or holds commas or brackets.
fn value(text: &str) -> Result<String, String> {
    let text = text.trim();
    let inner = match text.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').ok_or("the quotes are not closed")?,
        None => text,
    };
    if inner.contains('"') {
        Err("quotes stand around a whole value only".to_owned())
    } else {
        Ok(inner.to_owned())
    }
}

/// The parts between commas that stand in neither brackets nor quotes.
fn parts(text: &str) -> Vec<&str> {
    let (mut depth, mut is_quoted, mut from, mut parts) = (0_u32, false, 0, Vec::new());
    for (at, character) in text.char_indices() {
        match character {
            '"' => is_quoted = !is_quoted,
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted => depth = depth.saturating_sub(1),
            ',' if !is_quoted && depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(typed: &[&str]) -> Selector {
        let mut faults = Faults::default();
        let typed: Vec<String> = typed.iter().map(|text| (*text).to_owned()).collect();
        let selector = Selector::read(&typed, &mut faults);
        assert!(faults.is_empty(), "{typed:?}: {:?}", faults.finish("x", "y"));
        selector
    }

    #[test]
    fn terms_are_anded() {
        let labels = |text: &str| -> BTreeMap<String, String> {
            let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
            pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        let edge = labels("role=edge;site=a b;tier=1");
        for (typed, fits) in [
            (&["role=edge"][..], true),
            (&["role==edge"], true),
            (&["role = edge , tier=1"], true),
            (&["role=edge", "tier=2"], false),
            (&["role!=edge"], false),
            (&["role!=hub"], true),
            (&["floor!=2"], true),
            (&["floor="], false),
            (&["role in (hub,edge)"], true),
            (&["role in(hub , edge),tier=1"], true),
            (&["role in (hub)"], false),
            (&["role notin (hub,core)"], true),
            (&["role notin (edge)"], false),
            (&["floor notin (1)"], true),
            (&["site=a b"], true),
            (&["site=\"a b\""], true),
            (&["site in (\"a, b\", a b)"], true),
            (&["site=\"a, b\""], false),
            (&[], true),
        ] {
            assert_eq!(read(typed).fits(&edge), fits, "{typed:?}");
        }
        assert!(read(&["x=\"(,\""]).fits(&labels("x=(,")));
    }

    #[test]
    fn the_api_gets_what_it_can_say() {
        assert_eq!(
            read(&["tier=1,site=a b", "role in (edge)", "x!=1"]).filter(),
            "labels.tier=1 labels.role=edge"
        );
        assert!(read(&[]).is_empty() && read(&[]).filter().is_empty());
    }

    #[test]
    fn all_faults_are_noted() {
        let mut faults = Faults::default();
        let typed =
            ["tier", "=1", "a b=1,ok=1", "x in a", "x in (a,)", "x=\"a", "x=a\"b", "", "!x", "tier>1"];
        let selector = Selector::read(&typed.map(str::to_owned), &mut faults);
        assert_eq!(selector, read(&["ok=1"]));
        let fault = faults.finish("x", "y").unwrap_err();
        assert_eq!(fault.details.len(), typed.len(), "{fault}");
        assert!(
            fault.to_string().contains("--selector  \"tier\": write KEY=VALUE, KEY!=VALUE, KEY in (A,B)"),
            "{fault}"
        );
    }
}
