//! The JSON Schema of manifests, from the contract's descriptors and comments: for editors, and for checks before a commit.

use prost_reflect::MessageDescriptor;
use serde_json::{Map, Value as Json, json};

use super::{
    SCHEMA,
    shape::{self, Field, Shape},
};

/// The dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// A span as people type it: numbers with units, the largest first.
const SPAN: &str = "^ *([0-9]+[wW])?([0-9]+[dD])?([0-9]+[hH])?([0-9]+[mM])?([0-9]+[sS])? *$";
/// A resource name without its collection.
const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$";

pub(super) fn document() -> Json {
    let mut project = shape::project().map(|message| table(&message)).unwrap_or_else(|| json!({}));
    if let Some(properties) = project.get_mut("properties").and_then(Json::as_object_mut) {
        properties.insert(
            "paused".to_owned(),
            json!({
                "description": "Whether its schedule is stopped: true, false, why, or until when. Absent: that stays as it is, and a new project is not paused.",
                "type": ["boolean", "string", "object"],
                "additionalProperties": false,
                "properties": {
                    "reason": {"type": "string", "description": "Why."},
                    "until": {"type": "string", "description": "When it goes on by itself, as in RFC 3339. When that has come, nothing is said here of whether it is stopped."},
                },
            }),
        );
        properties.insert(
            "archived".to_owned(),
            json!({
                "description": "Whether its tree is served and not worked on: true, false, or why. Absent: that stays as it is, and a new project is not archived.",
                "type": ["boolean", "string"],
                "minLength": 1,
            }),
        );
    }
    if let Some(project) = project.as_object_mut() {
        project.insert("required".to_owned(), json!(["name"]));
    }
    json!({
        "$schema": DIALECT,
        "title": "Projects of a mirror fleet",
        "type": "object",
        "additionalProperties": false,
        "required": ["schema"],
        "properties": {
            "schema": {"const": SCHEMA},
            "projects": {"type": "array", "items": project},
        },
    })
}

fn table(message: &MessageDescriptor) -> Json {
    let mut properties = Map::new();
    let fields = shape::fields(message);
    for field in &fields {
        let mut property = of(&field.shape);
        if let Some(property) = property.as_object_mut() {
            property.insert("description".to_owned(), json!(field.about()));
        }
        properties.insert(field.key.clone(), property);
    }
    let mut table = json!({"type": "object", "additionalProperties": false, "properties": properties});
    let choices = one_of_each(&fields);
    if let Some(table) = table.as_object_mut().filter(|_| !choices.is_empty()) {
        table.insert("allOf".to_owned(), json!(choices));
    }
    table
}

/// No two fields of one choice.
fn one_of_each(fields: &[Field]) -> Vec<Json> {
    let mut pairs = Vec::new();
    for (at, one) in fields.iter().enumerate() {
        let Some(choice) = one.choice() else { continue };
        let others = fields[at + 1..].iter().filter(|other| other.choice().as_ref() == Some(&choice));
        pairs.extend(others.map(|other| json!({"not": {"required": [one.key, other.key]}})));
    }
    pairs
}

fn of(shape: &Shape) -> Json {
    match shape {
        Shape::Text => json!({"type": ["string", "integer"]}),
        Shape::Name(_) => json!({"type": "string", "pattern": NAME}),
        Shape::SecretFile => json!({"type": "string", "minLength": 1}),
        Shape::Flag | Shape::Mark => json!({"type": "boolean"}),
        Shape::Number(most) => json!({"type": "integer", "minimum": 0, "maximum": most}),
        Shape::Span => json!({"type": "string", "pattern": SPAN}),
        Shape::Word(words) => {
            json!({"enum": shape::words(words).into_iter().map(|(word, _)| word).collect::<Vec<_>>()})
        }
        Shape::Texts => json!({"type": "object", "additionalProperties": {"type": ["string", "integer"]}}),
        Shape::Table(message) => table(message),
        Shape::List(one) => json!({"type": "array", "items": of(one)}),
    }
}
