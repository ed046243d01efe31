//! From a tree of values to projects, by the contract's shape. Every fault is noted and reading goes on.

use std::collections::HashMap;

use fleet::schedule::{parse_date, parse_span};
use mirror_proto::v1;
use prost_reflect::{DynamicMessage, MapKey, MessageDescriptor, Value};

use super::{
    Archived, Declared, Format, Manifest, Paused, Place, SCHEMA,
    document::{self, Data, Node},
    files::Source,
    shape::{self, Field, Shape},
};
use crate::{fault::Faults, suggest::nearest};

/// The span that [`parse_span`] refuses, and that a manifest may hold.
const NO_SPAN: &str = "0s";
/// Fields of the manifest itself.
const FIELDS: [&str; 2] = ["schema", "projects"];
/// The fields of a project that are no fields of the contract's.
const OWN: [&str; 2] = [PAUSED, ARCHIVED];
const PAUSED: &str = "paused";
const ARCHIVED: &str = "archived";
/// Those of a pause.
const OF_PAUSES: [&str; 2] = ["reason", "until"];

/// Reads a file's projects; `named`: there are several files.
pub(super) fn source(source: &Source, named: bool, manifest: &mut Manifest, faults: &mut Faults) {
    let label = |line: usize| {
        let at = if line == 0 { "schema".to_owned() } else { format!("line {line}") };
        if named { format!("{} {at}", source.name) } else { at }
    };
    let root = match document::parse(&source.text, Format::of(&source.name, &source.text)) {
        Ok(root) => root,
        Err(bad) => return faults.add(label(bad.line), bad.text),
    };
    let Data::Table(fields) = root.data else {
        return faults
            .add(label(root.line), format_args!("a manifest is a table, this is {}", root.data.kind()));
    };
    let mut schema = None;
    for (key, node) in fields {
        match (key.as_str(), node.data) {
            ("schema", Data::Text(text)) => schema = Some((node.line, text)),
            ("schema", other) => schema = Some((node.line, other.kind().to_owned())),
            ("projects", Data::List(projects)) => {
                for (index, one) in projects.into_iter().enumerate() {
                    manifest.projects.push(project(source, named, index, &one, faults));
                }
            }
            ("projects", other) => {
                faults.add(
                    label(node.line),
                    format_args!("projects: must be a list of tables, not {}", other.kind()),
                );
            }
            (unknown, _) => {
                faults.add(label(node.line), format_args!("{unknown}: {}", no_such_field(unknown, FIELDS)))
            }
        }
    }
    match schema {
        Some((_, text)) if text == SCHEMA => {}
        Some((line, text)) => {
            faults.add(label(line), format_args!("schema: {text:?}; this mirrorctl reads {SCHEMA:?}"))
        }
        None => faults.add(label(0), format_args!("is missing; write schema = {SCHEMA:?}")),
    }
}

fn no_such_field<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = nearest(typed, known).map(|near| format!("; did you mean {near}?"));
    format!("no such field{}", near.unwrap_or_default())
}

fn project(source: &Source, named: bool, index: usize, node: &Node, faults: &mut Faults) -> Declared {
    let place = Place { file: source.name.clone(), lines: Vec::new(), line: node.line, index };
    let mut reading =
        Reading { source, declared: Declared { place, ..Declared::default() }, faults: Vec::new() };
    let message = shape::project().map(|message| reading.table(&message, "", node));
    let Reading { mut declared, faults: noted, .. } = reading;
    let project = message.and_then(|message| message.transcode_to::<v1::Project>().ok());
    declared.project = project.unwrap_or_default();
    if declared.project.name.is_empty() && !noted.iter().any(|(field, _)| field == "name") {
        let (label, text) = declared.told("name", "is required", named);
        faults.add(label, text);
    }
    for (field, text) in noted {
        let (label, text) = declared.told(&field, text, named);
        faults.add(label, text);
    }
    declared
}

struct Reading<'a> {
    source: &'a Source,
    declared: Declared,
    /// Field paths as typed, and what is wrong there.
    faults: Vec<(String, String)>,
}

impl Reading<'_> {
    fn wrong(&mut self, path: &str, text: impl Into<String>) {
        self.faults.push((path.to_owned(), text.into()));
    }

    fn table(&mut self, message: &MessageDescriptor, path: &str, node: &Node) -> DynamicMessage {
        let mut read = DynamicMessage::new(message.clone());
        let Data::Table(entries) = &node.data else {
            self.wrong(path, format!("must be a table of fields, not {}", node.data.kind()));
            return read;
        };
        let fields = shape::fields(message);
        let mut chosen: Vec<(String, String)> = Vec::new();
        for (key, node) in entries {
            let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            if node.line > 0 {
                self.declared.place.lines.push((at.clone(), node.line));
            }
            if path.is_empty() && key == PAUSED {
                self.declared.paused = self.paused(node);
                continue;
            }
            if path.is_empty() && key == ARCHIVED {
                self.declared.archived = self.archived(node);
                continue;
            }
            let Some(field) = fields.iter().find(|field| field.key == *key) else {
                let own = if path.is_empty() { &OWN[..] } else { &[] };
                let known = fields.iter().map(|field| field.key.as_str()).chain(own.iter().copied());
                let text = no_such_field(key, known);
                self.wrong(&at, not_for_people(message, key).unwrap_or(text));
                continue;
            };
            // `manual = false` chooses nothing.
            let chosen_not =
                matches!((&field.shape, &node.data), (Shape::Mark, Data::Flag(false)) | (_, Data::Nothing));
            if let Some(choice) = field.choice().filter(|_| !chosen_not) {
                if let Some((_, other)) = chosen.iter().find(|(known, _)| *known == choice) {
                    let text = format!("{other} is given too; give one of them");
                    self.wrong(&at, text);
                    continue;
                }
                chosen.push((choice, key.clone()));
            }
            if let Some(value) = self.field(field, &at, node) {
                read.set_field(&field.descriptor, value);
            }
        }
        read
    }

    fn paused(&mut self, node: &Node) -> Option<Paused> {
        match &node.data {
            Data::Flag(false) => Some(Paused::No),
            Data::Flag(true) => Some(Paused::Yes(String::new())),
            Data::Text(reason) if reason.trim().is_empty() => {
                self.wrong(PAUSED, "is an empty reason; write true, false or the reason");
                None
            }
            Data::Text(reason) => Some(Paused::Yes(reason.clone())),
            Data::Table(entries) => Some(self.pause(entries)),
            Data::Nothing => None,
            other => {
                let text = format!(
                    "must be true, false, the reason as a text, or a table with until, not {}",
                    other.kind()
                );
                self.wrong(PAUSED, text);
                None
            }
        }
    }

    fn pause(&mut self, entries: &[(String, Node)]) -> Paused {
        let (mut why, mut until) = (String::new(), None);
        for (key, node) in entries {
            let at = format!("{PAUSED}.{key}");
            if node.line > 0 {
                self.declared.place.lines.push((at.clone(), node.line));
            }
            match (key.as_str(), &node.data) {
                ("reason" | "until", Data::Nothing) => {}
                ("reason", Data::Text(text)) => why.clone_from(text),
                ("until", Data::Text(text) | Data::Time(text)) => match parse_date(text, None) {
                    Ok(date) => until = Some(date.time),
                    Err(bad) => self.wrong(&at, bad.to_string()),
                },
                ("reason", other) => self.wrong(&at, format!("must be a text, not {}", other.kind())),
                ("until", other) => self.wrong(&at, format!("must be a time, not {}", other.kind())),
                (unknown, _) => self.wrong(&at, no_such_field(unknown, OF_PAUSES)),
            }
        }
        until.map_or_else(|| Paused::Yes(why.clone()), |until| Paused::Until(why.clone(), until))
    }

    fn archived(&mut self, node: &Node) -> Option<Archived> {
        match &node.data {
            Data::Flag(false) => Some(Archived::No),
            Data::Flag(true) => Some(Archived::Yes(String::new())),
            Data::Text(reason) if reason.trim().is_empty() => {
                self.wrong(ARCHIVED, "is an empty reason; write true, false or the reason");
                None
            }
            Data::Text(reason) => Some(Archived::Yes(reason.clone())),
            Data::Nothing => None,
            other => {
                let text = format!("must be true, false or the reason as a text, not {}", other.kind());
                self.wrong(ARCHIVED, text);
                None
            }
        }
    }

    fn field(&mut self, field: &Field, path: &str, node: &Node) -> Option<Value> {
        match (&field.shape, &node.data) {
            (_, Data::Nothing) => None,
            (Shape::List(one), Data::List(nodes)) => {
                let mut values = Vec::with_capacity(nodes.len());
                for (index, node) in nodes.iter().enumerate() {
                    let at = format!("{path}[{index}]");
                    if node.line > 0 {
                        self.declared.place.lines.push((at.clone(), node.line));
                    }
                    values.extend(self.one(one, &at, node));
                }
                Some(Value::List(values))
            }
            (Shape::List(_), other) => {
                let text = format!("must be a list, not {}", other.kind());
                self.wrong(path, text);
                None
            }
            (shape, _) => self.one(shape, path, node),
        }
    }

    fn one(&mut self, shape: &Shape, path: &str, node: &Node) -> Option<Value> {
        let read = match (shape, &node.data) {
            (Shape::Table(message), _) => return Some(Value::Message(self.table(message, path, node))),
            (Shape::Texts, Data::Table(entries)) => return Some(self.texts(path, entries)),
            (Shape::Flag, Data::Flag(flag)) => Ok(Value::Bool(*flag)),
            (Shape::Mark, Data::Flag(true)) => mark(),
            (Shape::Mark, Data::Flag(false)) => return None,
            (Shape::Number(most), Data::Whole(number)) => whole(*number, *most),
            (Shape::SecretFile, Data::Text(file)) => {
                self.secret_file(path, file);
                return None;
            }
            (shape, data) => match (shape, text(data)) {
                (Shape::Text, Some(text)) => Ok(Value::String(text)),
                (Shape::Name(collection), Some(text)) => Ok(name(collection, &text)),
                (Shape::Span, Some(text)) => span(&text),
                (Shape::Word(words), Some(text)) => word(words, &text),
                _ => Err(format!("must be {}, not {}", expected(shape), data.kind())),
            },
        };
        read.map_err(|text| self.wrong(path, text)).ok()
    }

    fn texts(&mut self, path: &str, entries: &[(String, Node)]) -> Value {
        let mut map = HashMap::new();
        for (key, node) in entries {
            let at = format!("{path}.{key}");
            if node.line > 0 {
                self.declared.place.lines.push((at.clone(), node.line));
            }
            match text(&node.data) {
                Some(text) => drop(map.insert(MapKey::String(key.clone()), Value::String(text))),
                None => self.wrong(&at, format!("must be a text, not {}", node.data.kind())),
            }
        }
        Value::Map(map)
    }

    /// The path stands behind `upstreams[N].`, which [`Reading::field`] made.
    fn secret_file(&mut self, path: &str, file: &str) {
        let index = path.split_once('[').and_then(|(_, rest)| rest.split_once(']')?.0.parse().ok());
        match index {
            Some(index) if !file.is_empty() => {
                self.declared.password_files.insert(index, self.source.directory.join(file));
            }
            _ => self.wrong(path, "must be the path of a file"),
        }
    }
}

/// What is said of a field of the contract that no manifest has.
fn not_for_people(message: &MessageDescriptor, key: &str) -> Option<String> {
    let known = message.get_field_by_name(key)?;
    Some(if shape::is_secret(&known) {
        format!("does not belong into a file that others read; write {} = \"FILE\"", shape::SECRET_FILE)
    } else {
        "is told by the coordinator and cannot be set".to_owned()
    })
}

/// A text; whole numbers and times of TOML stand for what was typed.
fn text(data: &Data) -> Option<String> {
    match data {
        Data::Text(text) | Data::Time(text) => Some(text.clone()),
        Data::Whole(number) => Some(number.to_string()),
        _ => None,
    }
}

fn expected(shape: &Shape) -> &'static str {
    match shape {
        Shape::Text => "a text",
        Shape::Name(_) => "a name",
        Shape::SecretFile => "the path of a file",
        Shape::Flag => "true or false",
        Shape::Mark => "true",
        Shape::Number(_) => "a whole number without quotes",
        Shape::Span => "a span such as \"6h\"",
        Shape::Word(_) => "a word",
        Shape::Texts | Shape::Table(_) => "a table",
        Shape::List(_) => "a list",
    }
}

fn mark() -> Result<Value, String> {
    let empty = shape::empty().ok_or_else(|| "is not known to this mirrorctl".to_owned())?;
    Ok(Value::Message(DynamicMessage::new(empty)))
}

fn whole(number: i128, most: u64) -> Result<Value, String> {
    let fits = u64::try_from(number).ok().filter(|number| *number <= most);
    let number = fits.ok_or_else(|| format!("{number}: must be a whole number from 0 to {most}"))?;
    // The shape of a 32-bit field has the bound of one.
    let narrow = u32::try_from(number).ok().filter(|_| most == u64::from(u32::MAX));
    Ok(narrow.map_or(Value::U64(number), Value::U32))
}

fn name(collection: &str, text: &str) -> Value {
    let bare = text.strip_prefix(collection).unwrap_or(text);
    Value::String(if bare.is_empty() { String::new() } else { format!("{collection}{bare}") })
}

fn span(text: &str) -> Result<Value, String> {
    let seconds = if text == NO_SPAN { 0 } else { parse_span(text).map_err(|bad| bad.to_string())? };
    let message = shape::span().ok_or_else(|| "is not known to this mirrorctl".to_owned())?;
    let mut read = DynamicMessage::new(message);
    read.set_field_by_name("seconds", Value::I64(i64::try_from(seconds).unwrap_or(i64::MAX)));
    Ok(Value::Message(read))
}

fn word(of: &prost_reflect::EnumDescriptor, text: &str) -> Result<Value, String> {
    let words = shape::words(of);
    let plain = |word: &str| word.to_lowercase().replace('_', "-");
    match words.iter().find(|(word, _)| plain(word) == plain(text)) {
        Some((_, number)) => Ok(Value::EnumNumber(*number)),
        None => {
            let known: Vec<&str> = words.iter().map(|(word, _)| word.as_str()).collect();
            Err(format!("{text:?}: must be one of {}", known.join(", ")))
        }
    }
}
