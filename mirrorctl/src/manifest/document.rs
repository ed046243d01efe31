//! A file's text as a tree of values that know their lines, whichever format it has. Knows nothing of projects.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use toml_edit::{Document, Item, Table, TableLike, Value};

/// In which format a manifest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.0.
    Toml,
    /// JSON, an object.
    Json,
}

impl Format {
    /// By the file's name; else by its first character, which no TOML file can begin with.
    #[must_use]
    pub fn of(name: &str, text: &str) -> Self {
        let ending = |ending: &str| name.to_ascii_lowercase().ends_with(ending);
        match text.trim_start().starts_with('{') {
            _ if ending(".toml") => Self::Toml,
            _ if ending(".json") => Self::Json,
            true => Self::Json,
            false => Self::Toml,
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Counted from 1; 0: not known, as in JSON.
    pub(crate) line: usize,
    pub(crate) data: Data,
}

/// A value.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    Nothing,
    Text(String),
    Whole(i128),
    Broken,
    Flag(bool),
    Time(String),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
}

impl Data {
    /// What it is called in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Text(_) => "a text",
            Self::Whole(_) => "a number",
            Self::Broken => "a broken number",
            Self::Flag(_) => "true or false",
            Self::Time(_) => "a time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Why a text is no document.
#[derive(Debug)]
pub(crate) struct Syntax {
    /// Counted from 1; 0: not known.
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// Reads a document.
pub(crate) fn parse(text: &str, format: Format) -> Result<Node, Syntax> {
    match format {
        Format::Toml => toml(text),
        Format::Json => serde_json::from_str(text).map_err(|bad| {
            let line = bad.line();
            let place = format!(" at line {line} column {}", bad.column());
            let text = bad.to_string().replace(&place, "");
            Syntax { line, text: format!("is no JSON: {text}") }
        }),
    }
}

fn toml(text: &str) -> Result<Node, Syntax> {
    let lines = Lines::of(text);
    let document = Document::parse(text).map_err(|bad| Syntax {
        line: bad.span().map_or(0, |span| lines.at(span.start)),
        text: format!("is no TOML: {}", bad.message().replace('\n', ", ")),
    })?;
    Ok(Node { line: 1, data: table(document.as_table(), &lines) })
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }

    fn of_span(&self, span: Option<std::ops::Range<usize>>) -> usize {
        span.map_or(0, |span| self.at(span.start))
    }
}

fn table(table: &Table, lines: &Lines) -> Data {
    Data::Table(entries(table, lines))
}

fn entries(table: &dyn TableLike, lines: &Lines) -> Vec<(String, Node)> {
    let one = |(name, item): (&str, &Item)| {
        let mut node = self::item(item, lines);
        // A key stands at the place that people look for; what it opens may stand elsewhere.
        match table.key(name).map_or(0, |key| lines.of_span(key.span())) {
            0 => {}
            line => node.line = line,
        }
        (name.to_owned(), node)
    };
    table.iter().map(one).collect()
}

fn item(item: &Item, lines: &Lines) -> Node {
    let line = lines.of_span(item.span());
    let data = match item {
        Item::None => Data::Nothing,
        Item::Value(value) => return self::value(value, lines),
        Item::Table(inner) => table(inner, lines),
        Item::ArrayOfTables(tables) => {
            let one = |inner: &Table| Node { line: lines.of_span(inner.span()), data: table(inner, lines) };
            Data::List(tables.iter().map(one).collect())
        }
    };
    Node { line, data }
}

fn value(value: &Value, lines: &Lines) -> Node {
    let data = match value {
        Value::String(text) => Data::Text(text.value().clone()),
        Value::Integer(number) => Data::Whole((*number.value()).into()),
        Value::Float(_) => Data::Broken,
        Value::Boolean(flag) => Data::Flag(*flag.value()),
        Value::Datetime(time) => Data::Time(time.value().to_string()),
        Value::Array(values) => Data::List(values.iter().map(|one| self::value(one, lines)).collect()),
        Value::InlineTable(inner) => Data::Table(entries(inner, lines)),
    };
    Node { line: lines.of_span(value.span()), data }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OfJson).map(|data| Self { line: 0, data })
    }
}

/// JSON's values. Unlike `serde_json::Value` it refuses a key that is given twice: one of the two would be lost.
struct OfJson;

impl<'de> Visitor<'de> for OfJson {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Data, E> {
        Ok(Data::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Data, E> {
        Ok(Data::Whole(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Data, E> {
        Ok(Data::Whole(number.into()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Data, E> {
        Ok(Data::Broken)
    }

    fn visit_str<E>(self, text: &str) -> Result<Data, E> {
        Ok(Data::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Data, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = values.next_element()? {
            list.push(node);
        }
        Ok(Data::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Data, A::Error> {
        let mut table: Vec<(String, Node)> = Vec::new();
        while let Some((key, node)) = entries.next_entry::<String, Node>()? {
            if table.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom(format_args!("the key {key:?} is given twice")));
            }
            table.push((key, node));
        }
        Ok(Data::Table(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_name_or_by_content() {
        for (name, text, format) in [
            ("a.toml", "{", Format::Toml),
            ("a.JSON", "", Format::Json),
            ("standard input", "  {\"schema\": 1}", Format::Json),
            ("standard input", "# x\nschema = 1", Format::Toml),
        ] {
            assert_eq!(Format::of(name, text), format, "{name} {text}");
        }
    }

    #[test]
    fn lines_of_keys_are_known() {
        let text = "schema = \"x\"\n\n[[projects]]\nname = \"a\"\nrsync.options = [\n  \"-H\",\n  \"-A\",\n]\n[projects.guard]\nmax_delete = 5\n";
        let root = parse(text, Format::Toml).unwrap();
        let Data::Table(root) = root.data else { panic!() };
        let Data::List(projects) = &root[1].1.data else { panic!() };
        let Data::Table(fields) = &projects[0].data else { panic!() };
        let lines: Vec<_> = fields.iter().map(|(key, node)| (key.as_str(), node.line)).collect();
        assert_eq!(projects[0].line, 3);
        assert_eq!(lines, [("name", 4), ("rsync", 5), ("guard", 9)]);
        let Data::Table(rsync) = &fields[1].1.data else { panic!() };
        let Data::List(options) = &rsync[0].1.data else { panic!() };
        assert_eq!((rsync[0].1.line, options[1].line), (5, 7));
    }

    #[test]
    fn what_is_no_document_says_where() {
        let bad = parse("schema = \"x\"\nname = \n", Format::Toml).unwrap_err();
        assert_eq!(bad.line, 2, "{bad:?}");
        let bad = parse("{\n\"a\": 1,\n\"a\": 2}", Format::Json).unwrap_err();
        assert_eq!((bad.line, bad.text.as_str()), (3, "is no JSON: the key \"a\" is given twice"));
        assert_eq!(parse("a = 1\na = 2\n", Format::Toml).unwrap_err().line, 2);
    }
}
