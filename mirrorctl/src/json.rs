//! Messages of the API as JSON, straight from the contract's descriptors, so that no field can be forgotten or
//! misnamed: proto field names, RFC 3339 times, spans in seconds, integers as numbers, enum values without their
//! prefix, `null` for what is not there.
//!
//! This is not protobuf's own JSON mapping, which has integers as strings and spans as `"300s"`.

use std::sync::LazyLock;

use chrono::{DateTime, SecondsFormat};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, Kind, MapKey, ReflectMessage as _, Value,
};
use serde_json::{Map, Number, Value as Json, json};

use crate::exit::Exit;
use crate::fault::{Fault, Outcome};

/// The package of the contract.
const PACKAGE: &str = "mirror.v1";

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(mirror_proto::DESCRIPTORS).ok());

/// A message as JSON; `name` is its name in the contract, such as `Project`.
///
/// # Errors
/// Never for messages of the contract: a wrong `name` would be our bug, and is reported as such.
pub fn value(message: &impl Message, name: &str) -> Outcome<Json> {
    let bug = |what: &dyn std::fmt::Display| {
        Fault::new(Exit::Bug, format!("{name} cannot be shown as JSON: {what}"))
    };
    let pool = POOL.as_ref().ok_or_else(|| bug(&"the contract's descriptors are damaged"))?;
    let descriptor =
        pool.get_message_by_name(&format!("{PACKAGE}.{name}")).ok_or_else(|| bug(&"no such message"))?;
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .map_err(|error| bug(&error))?;
    Ok(object(&message))
}

fn object(message: &DynamicMessage) -> Json {
    let descriptor = message.descriptor();
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => return timestamp(message),
        "google.protobuf.Duration" => return seconds(message),
        _ => {}
    }
    let mut object = Map::new();
    for field in descriptor.fields() {
        let real_oneof = field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic());
        // Of a choice only what was chosen; of write-only fields nothing, ever.
        if (real_oneof && !message.has_field(&field)) || is_write_only(field.full_name()) {
            continue;
        }
        let absent = field.supports_presence() && !message.has_field(&field);
        let json = if absent { Json::Null } else { render(&message.get_field(&field), &field.kind()) };
        object.insert(field.name().to_owned(), json);
    }
    Json::Object(object)
}

/// Secrets that the coordinator never answers; an always-null field would only puzzle.
fn is_write_only(field: &str) -> bool {
    field == "mirror.v1.Upstream.password"
}

fn render(value: &Value, kind: &Kind) -> Json {
    match value {
        Value::Bool(value) => json!(value),
        Value::I32(value) => json!(value),
        Value::I64(value) => json!(value),
        Value::U32(value) => json!(value),
        Value::U64(value) => json!(value),
        Value::F32(value) => json!(value),
        Value::F64(value) => json!(value),
        Value::String(value) => json!(value),
        Value::Bytes(value) => json!(String::from_utf8_lossy(value)),
        Value::EnumNumber(number) => match kind {
            Kind::Enum(descriptor) => short_name(descriptor, *number),
            _ => json!(number),
        },
        Value::Message(message) => object(message),
        Value::List(values) => values.iter().map(|value| render(value, kind)).collect(),
        Value::Map(entries) => map(entries, kind),
    }
}

fn map(entries: &std::collections::HashMap<MapKey, Value>, kind: &Kind) -> Json {
    let value_kind = match kind {
        Kind::Message(entry) if entry.is_map_entry() => entry.map_entry_value_field().kind(),
        other => other.clone(),
    };
    let mut sorted: Vec<(String, Json)> = entries
        .iter()
        .map(|(key, value)| {
            let key = match key {
                MapKey::String(text) => text.clone(),
                other => format!("{other:?}"),
            };
            (key, render(value, &value_kind))
        })
        .collect();
    sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
    Json::Object(sorted.into_iter().collect())
}

/// `STATE_RUNNING` as `RUNNING`; `_UNSPECIFIED` as null; a value newer than this program as its number. The prefix is
/// that of the zero value, which the contract's lint demands.
fn short_name(descriptor: &EnumDescriptor, number: i32) -> Json {
    let Some(value) = descriptor.get_value(number) else { return json!(number) };
    let zero = descriptor.default_value();
    match zero.name().strip_suffix("UNSPECIFIED") {
        Some(_) if number == zero.number() => Json::Null,
        Some(prefix) => json!(value.name().strip_prefix(prefix).unwrap_or_else(|| value.name())),
        None => json!(value.name()),
    }
}

fn timestamp(message: &DynamicMessage) -> Json {
    let time = DateTime::from_timestamp(whole_seconds(message), u32::try_from(nanos(message)).unwrap_or(0));
    time.map_or(Json::Null, |time| json!(time.to_rfc3339_opts(SecondsFormat::AutoSi, true)))
}

/// Whole seconds as an integer, others as a fraction.
#[allow(
    clippy::cast_precision_loss,
    reason = "a span of 366 days and nanoseconds fit an f64's 53 bits nearly exactly"
)]
fn seconds(message: &DynamicMessage) -> Json {
    let (seconds, nanos) = (whole_seconds(message), nanos(message));
    if nanos == 0 {
        return json!(seconds);
    }
    Number::from_f64(seconds as f64 + f64::from(nanos) / 1e9).map_or(Json::Null, Json::Number)
}

fn whole_seconds(message: &DynamicMessage) -> i64 {
    message.get_field_by_name("seconds").and_then(|value| value.as_i64()).unwrap_or(0)
}

fn nanos(message: &DynamicMessage) -> i32 {
    message.get_field_by_name("nanos").and_then(|value| value.as_i32()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror_proto::v1;
    use prost_types::{Duration, Timestamp};

    #[test]
    fn names_times_spans_and_enums() {
        let run = v1::Run {
            name: "projects/debian/runs/x".to_owned(),
            generation: u64::MAX,
            state: v1::run::State::Propagating.into(),
            create_time: Some(Timestamp { seconds: 1_795_160_530, nanos: 0 }),
            ..v1::Run::default()
        };
        let json = value(&run, "Run").unwrap();
        assert_eq!(json["generation"], json!(u64::MAX));
        assert_eq!(json["state"], "PROPAGATING");
        assert_eq!(json["create_time"], "2026-11-20T07:42:10Z");
        assert_eq!(json["end_time"], Json::Null);
        assert_eq!(json["missed"], json!([]));
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys[..3], ["name", "generation", "trigger"], "the contract's order");

        let newer = v1::Run { state: 99, ..v1::Run::default() };
        assert_eq!(value(&newer, "Run").unwrap()["state"], 99);
        assert_eq!(value(&v1::Run::default(), "Run").unwrap()["state"], Json::Null);
    }

    #[test]
    fn choices_maps_and_secrets() {
        let interval = v1::Interval { every: Some(Duration { seconds: 21_600, nanos: 0 }), from: 0 };
        let project = v1::Project {
            labels: [("tier".to_owned(), "1".to_owned())].into(),
            upstreams: vec![v1::Upstream { password: Some("hunter2".to_owned()), ..v1::Upstream::default() }],
            schedule: Some(v1::Schedule {
                jitter: Some(Duration { seconds: 0, nanos: 500_000_000 }),
                cadence: Some(v1::schedule::Cadence::Interval(interval)),
                ..v1::Schedule::default()
            }),
            ..v1::Project::default()
        };
        let json = value(&project, "Project").unwrap();
        assert_eq!(json["labels"], json!({"tier": "1"}));
        assert_eq!(json["schedule"]["interval"], json!({"every": 21_600, "from": null}));
        assert_eq!(json["schedule"]["jitter"], 0.5);
        assert!(json["schedule"].get("cron").is_none());
        assert_eq!(json["guard"], Json::Null);
        assert!(!json.to_string().contains("hunter2"));
    }

    #[test]
    fn a_wrong_name_is_our_bug() {
        assert_eq!(value(&v1::Run::default(), "Rnu").unwrap_err().exit, Exit::Bug);
    }
}
