//! The answers' JSON as YAML, for `-o yaml`: the same document for people who read it and for tools that want it.
//!
//! The library quotes every text that a reader of YAML 1.1 or 1.2 would take for something else: `no`, `1_000`, `12:30`,
//! a time. What a terminal would obey never stands in it raw. Knows nothing of the documents.

use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use serde_json::Value as Json;
use serde_saphyr::{DoubleQuoted, ser_options};

use crate::exit::Exit;
use crate::fault::{Fault, Outcome};
use crate::units::{harmless_json, is_obeyed};

/// One document, which begins with `---` so that several can follow each other.
///
/// # Errors
/// Never for JSON: a failure would be our bug, and is reported as such.
pub fn document(json: &Json) -> Outcome<String> {
    // Block texts would fold and indent the words of others; quoted on one line they are what they are.
    let options = ser_options! { prefer_block_scalars: false };
    let text = serde_saphyr::to_string_with_options(&Shown(json), options)
        .map_err(|error| Fault::new(Exit::Bug, format!("the answer cannot be shown as YAML: {error}")))?;
    // YAML's quoted texts have the escapes of JSON's.
    Ok(harmless_json(&format!("---\n{text}")))
}

/// A value whose texts are quoted where they hold what a terminal obeys, so that it can be escaped there.
struct Shown<'a>(&'a Json);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Json::String(text) if text.contains(is_obeyed) => DoubleQuoted(text).serialize(serializer),
            Json::Array(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| list.serialize_element(&Shown(value)))?;
                list.end()
            }
            Json::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(key, value)| map.serialize_entry(key, &Shown(value)))?;
                map.end()
            }
            plain => plain.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_that_look_like_something_else_are_quoted() {
        for text in [
            "",
            "~",
            "null",
            "NULL",
            "true",
            "True",
            "no",
            "NO",
            "on",
            "off",
            "y",
            "n",
            "1",
            "-1",
            "+1",
            "010",
            "0x1f",
            "0o17",
            "0b1",
            "1_000",
            "1e3",
            "1.5",
            ".5",
            ".inf",
            "-.INF",
            ".nan",
            "12:30",
            "1:30:00",
            "2026-11-20",
            "2026-11-20T07:42:10Z",
            "2026-11-20 07:42:10 +01:00",
            "<<",
            "=",
            "- x",
            "? x",
            "-",
            "#x",
            "x #y",
            "x: y",
            "x:",
            "&x",
            "*x",
            "!x",
            "%x",
            "@x",
            "`x",
            "[x",
            "{x",
            "|",
            ">",
            "---",
            "...",
            " x",
            "x ",
            "'x",
            "\"x",
        ] {
            let yaml = document(&json!({"text": text})).unwrap();
            let quoted = yaml.strip_prefix("---\ntext: ").unwrap_or_default();
            let stands_in = |mark: &str| quoted.starts_with(mark) && quoted.ends_with(&format!("{mark}\n"));
            assert!(stands_in("\"") || stands_in("'"), "{text:?}: {yaml}");
        }
        assert_eq!(
            document(&json!({"text": "minute=10 hour=*/6"})).unwrap(),
            "---\ntext: minute=10 hour=*/6\n"
        );
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        let hostile = "a\u{1b}[2J\u{7}\u{9b}\u{202e}\u{2066}\u{61c}\u{7f}\r\n\t\u{2028}b";
        let yaml = document(&json!({"name": hostile, "list": [hostile], hostile: 1})).unwrap();
        let raw = |c: char| is_obeyed(c) && c != '\n';
        assert_eq!(yaml.chars().find(|c| raw(*c)), None, "{yaml:?}");
        assert!(
            yaml.contains("name: \"a\\e[2J\\a\\x9B\\u202e\\u2066\\u061c\\x7F\\r\\n\\t\\Lb\"\n"),
            "{yaml}"
        );
    }

    #[test]
    fn documents_follow_each_other() {
        let both =
            document(&json!({"a": [], "b": {}})).unwrap() + &document(&json!([1, null, true, 0.5])).unwrap();
        assert_eq!(both, "---\na: []\nb: {}\n---\n- 1\n- null\n- true\n- 0.5\n");
    }
}
