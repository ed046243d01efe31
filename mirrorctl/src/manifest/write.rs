//! From projects to text, by the contract's shape: only what is set, always in the same order.

use chrono::{SecondsFormat, TimeDelta};
use mirror_proto::v1;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MapKey, ReflectMessage as _, Value};
use serde_json::{Map, Value as Json, json};

use super::{
    Archived, Declared, Manifest, Paused, SCHEMA,
    shape::{self, Field, Shape},
};
use crate::units;

/// A list that is longer than this many columns has one line for each of its values.
const LINE_WIDTH: usize = 100;

pub(super) fn value(manifest: &Manifest) -> Json {
    let projects: Vec<Json> = manifest.projects.iter().map(|one| Json::Object(tree(one))).collect();
    json!({"schema": SCHEMA, "projects": projects})
}

pub(super) fn json(manifest: &Manifest) -> String {
    // The alternate form is the indented one.
    units::harmless_json(&format!("{:#}\n", value(manifest)))
}

pub(super) fn toml(manifest: &Manifest) -> String {
    let mut text = format!("schema = {}\n", quoted(SCHEMA));
    for one in &manifest.projects {
        text.push('\n');
        for line in one.remarks.iter().flat_map(|remark| remark.lines()) {
            text.push_str(&format!("# {}\n", units::clean(line)));
        }
        text.push_str("[[projects]]\n");
        lines("", &tree(one), &mut text);
    }
    text
}

/// A project as the manifest has it.
fn tree(one: &Declared) -> Map<String, Json> {
    let mut tree = Map::new();
    let Some(descriptor) = shape::project() else { return tree };
    let decoded = DynamicMessage::decode(descriptor, without_noise(&one.project).encode_to_vec().as_slice());
    let Ok(message) = decoded else { return tree };
    tree = fields(&message);
    let upstreams =
        tree.get_mut("upstreams").and_then(Json::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default();
    for (index, upstream) in upstreams.iter_mut().enumerate() {
        let Some(upstream) = upstream.as_object_mut() else { continue };
        if let Some(path) = one.password_files.get(&index) {
            upstream.insert(shape::SECRET_FILE.to_owned(), json!(path.to_string_lossy()));
        }
    }
    let paused = one.paused.as_ref().map(|paused| match paused {
        Paused::No => json!(false),
        Paused::Yes(reason) => so_or_why(reason),
        Paused::Until(reason, until) => {
            let until = until.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            if reason.is_empty() {
                json!({"until": until})
            } else {
                json!({"reason": reason, "until": until})
            }
        }
    });
    let archived = one.archived.as_ref().map(|archived| match archived {
        Archived::No => json!(false),
        Archived::Yes(reason) => so_or_why(reason),
    });
    for (key, value) in [("paused", paused), ("archived", archived)] {
        tree.extend(value.map(|value| (key.to_owned(), value)));
    }
    tree
}

/// A reason of blanks is none.
fn so_or_why(reason: &str) -> Json {
    if reason.trim().is_empty() { json!(true) } else { json!(reason) }
}

/// A project without what says no more than its absence does.
fn without_noise(project: &v1::Project) -> v1::Project {
    let mut project = project.clone();
    if let Some(schedule) = &mut project.schedule
        && matches!(schedule.cadence, Some(v1::schedule::Cadence::Manual(())))
    {
        schedule.cadence = None;
    }
    project
}

fn fields(message: &DynamicMessage) -> Map<String, Json> {
    let mut tree = Map::new();
    for field in shape::fields(&message.descriptor()) {
        if !message.has_field(&field.descriptor) && !field.says_when_empty() {
            continue;
        }
        if let Some(value) = field_value(&field, &message.get_field(&field.descriptor)) {
            tree.insert(field.key, value);
        }
    }
    tree
}

fn field_value(field: &Field, value: &Value) -> Option<Json> {
    match (&field.shape, value) {
        (Shape::List(one), Value::List(values)) => {
            let values: Vec<Json> = values.iter().filter_map(|value| one_value(one, value)).collect();
            Some(Json::Array(values))
        }
        (shape, value) => {
            one_value(shape, value).filter(|json| json.as_object().is_none_or(|table| !table.is_empty()))
        }
    }
}

/// `None`: nothing of it is written.
fn one_value(shape: &Shape, value: &Value) -> Option<Json> {
    Some(match (shape, value) {
        (Shape::Text, Value::String(text)) => json!(text),
        (Shape::Name(collection), Value::String(text)) => {
            json!(text.strip_prefix(collection).unwrap_or(text))
        }
        (Shape::Flag, Value::Bool(flag)) => json!(flag),
        (Shape::Mark, _) => json!(true),
        (Shape::Number(_), Value::U32(number)) => json!(number),
        (Shape::Number(_), Value::U64(number)) => json!(number),
        (Shape::Span, Value::Message(span)) => json!(units::span(seconds(span))),
        (Shape::Word(words), Value::EnumNumber(number)) => {
            json!(shape::words(words).into_iter().find(|(_, known)| known == number)?.0)
        }
        (Shape::Texts, Value::Map(entries)) => {
            let mut texts: Vec<(String, String)> = entries.iter().filter_map(text_entry).collect();
            texts.sort();
            Json::Object(texts.into_iter().map(|(key, text)| (key, json!(text))).collect())
        }
        (Shape::Table(_), Value::Message(message)) => Json::Object(fields(message)),
        _ => return None,
    })
}

fn text_entry((key, value): (&MapKey, &Value)) -> Option<(String, String)> {
    Some((key.as_str()?.to_owned(), value.as_str()?.to_owned()))
}

fn seconds(span: &DynamicMessage) -> TimeDelta {
    let seconds = span.get_field_by_name("seconds").and_then(|value| value.as_i64()).unwrap_or(0);
    TimeDelta::try_seconds(seconds).unwrap_or_default()
}

/// A table as lines with dotted keys, so that each line says by itself what it sets.
fn lines(prefix: &str, table: &Map<String, Json>, text: &mut String) {
    for (name, value) in table {
        let name = format!("{prefix}{}", key(name));
        match value {
            Json::Object(inner) => lines(&format!("{name}."), inner, text),
            value => text.push_str(&line(&name, value)),
        }
    }
}

fn line(name: &str, value: &Json) -> String {
    let whole = format!("{name} = {}\n", inline(value));
    match value {
        Json::Array(values)
            if whole.chars().count() > LINE_WIDTH || (values.len() > 1 && values[0].is_object()) =>
        {
            let values: String = values.iter().map(|value| format!("  {},\n", inline(value))).collect();
            format!("{name} = [\n{values}]\n")
        }
        _ => whole,
    }
}

fn inline(value: &Json) -> String {
    match value {
        Json::String(text) => quoted(text),
        Json::Array(values) => format!("[{}]", values.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Json::Object(table) => {
            let entries: Vec<String> =
                table.iter().map(|(name, value)| format!("{} = {}", key(name), inline(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        // Numbers and truth are written alike in both formats.
        other => other.to_string(),
    }
}

pub(super) fn quoted(text: &str) -> String {
    printable(text, toml_edit::Value::from(text).to_string())
}

fn key(name: &str) -> String {
    printable(name, toml_edit::Key::new(name).to_string())
}

/// TOML's own form of a text, where a terminal shows all of it. Else all that it would obey is escaped, since what is
/// printed must be read back as it was, and no terminal gets such a character.
fn printable(text: &str, written: String) -> String {
    if units::harmless(&written) == written {
        return written;
    }
    let mut escaped = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => escaped.extend(['\\', character]),
            obeyed if units::is_obeyed(obeyed) => escaped.push_str(&format!("\\u{:04X}", u32::from(obeyed))),
            plain => escaped.push(plain),
        }
    }
    escaped.push('"');
    escaped
}
