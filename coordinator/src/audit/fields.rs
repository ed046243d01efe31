//! A message of the contract as a flat list of its fields, straight from the descriptors, so that a new field is in the
//! audit log without anybody's thinking of it. Fields that can hold a secret are left out, by name.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use chrono::{DateTime, SecondsFormat};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value,
};

/// The package of the contract.
const PACKAGE: &str = "mirror.v1";
/// Never shown, at any depth. The first is told by those who compare the records themselves.
const SECRETS: [&str; 4] = ["password", "old_password", "token", "secret"];
/// Not shown: ids of the records, and what changes with everything else.
const LEFT_OUT: [&str; 6] = ["etag", "create_time", "update_time", "seen_time", "has_password", "ca_hash"];

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(mirror_proto::DESCRIPTORS).ok());

/// A field's value, and what it is when nobody has set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) text: String,
    pub(super) unset: &'static str,
}

/// The fields that are set, by their paths; empty for what is no message of the contract.
pub(super) fn of(message: &impl Message, name: &str) -> BTreeMap<String, Shown> {
    let mut fields = BTreeMap::new();
    let descriptor = POOL.as_ref().and_then(|pool| pool.get_message_by_name(&format!("{PACKAGE}.{name}")));
    let decoded = descriptor
        .and_then(|descriptor| DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok());
    if let Some(message) = decoded {
        flatten(&message, "", &mut fields);
        fields.remove("name");
    }
    fields
}

fn flatten(message: &DynamicMessage, prefix: &str, fields: &mut BTreeMap<String, Shown>) {
    for (field, value) in message.fields() {
        if SECRETS.contains(&field.name()) || LEFT_OUT.contains(&field.name()) {
            continue;
        }
        let path =
            if prefix.is_empty() { field.name().to_owned() } else { format!("{prefix}.{}", field.name()) };
        match value {
            Value::List(list) if matches!(field.kind(), Kind::Message(_)) => {
                for (index, one) in list.iter().enumerate() {
                    value_of(&field, one, format!("{path}[{index}]"), fields);
                }
            }
            Value::List(list) => {
                let texts: Vec<String> = list.iter().map(|one| scalar(&field.kind(), one)).collect();
                put(fields, path, texts.join(" "), "");
            }
            Value::Map(map) => {
                for (key, one) in map {
                    let key = match key {
                        MapKey::String(key) => key.clone(),
                        other => format!("{other:?}"),
                    };
                    put(fields, format!("{path}.{key}"), scalar(&field.kind(), one), "");
                }
            }
            one => value_of(&field, one, path, fields),
        }
    }
}

fn value_of(field: &FieldDescriptor, value: &Value, path: String, fields: &mut BTreeMap<String, Shown>) {
    match value {
        Value::Message(message) => match well_known(message) {
            Some(text) => put(fields, path, text, ""),
            None => {
                let before = fields.len();
                flatten(message, &path, fields);
                if fields.len() == before {
                    // Its presence alone says something, as of `guard`.
                    put(fields, path, "yes".to_owned(), "");
                }
            }
        },
        value => {
            let unset = match value {
                Value::Bool(_) => "false",
                Value::I32(_) | Value::I64(_) | Value::U32(_) | Value::U64(_) => "0",
                _ => "",
            };
            put(fields, path, scalar(&field.kind(), value), unset);
        }
    }
}

fn put(fields: &mut BTreeMap<String, Shown>, path: String, text: String, unset: &'static str) {
    fields.insert(path, Shown { text, unset });
}

/// A time or a span, for people.
fn well_known(message: &DynamicMessage) -> Option<String> {
    let number = |name: &str| match message.get_field_by_name(name).as_deref() {
        Some(Value::I64(number)) => *number,
        Some(Value::I32(number)) => i64::from(*number),
        _ => 0,
    };
    let nanos = u32::try_from(number("nanos")).unwrap_or(0);
    match message.descriptor().full_name() {
        "google.protobuf.Timestamp" => Some(
            DateTime::from_timestamp(number("seconds"), nanos)
                .map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
                .unwrap_or_default(),
        ),
        "google.protobuf.Duration" => {
            let span = Duration::new(u64::try_from(number("seconds")).unwrap_or(0), nanos);
            Some(humantime::format_duration(span).to_string())
        }
        _ => None,
    }
}

fn scalar(kind: &Kind, value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::I32(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::F32(value) => value.to_string(),
        Value::F64(value) => value.to_string(),
        Value::String(value) => value.clone(),
        Value::EnumNumber(number) => match kind {
            Kind::Enum(descriptor) => {
                let name = descriptor.get_value(*number).map(|value| value.name().to_owned());
                let prefix = screaming(descriptor.name());
                let name = name.unwrap_or_else(|| number.to_string());
                name.strip_prefix(&prefix).unwrap_or(&name).to_ascii_lowercase()
            }
            _ => number.to_string(),
        },
        // Bytes are nothing for people, and might be a secret; the others do not come here.
        Value::Bytes(_) | Value::Message(_) | Value::List(_) | Value::Map(_) => "(set)".to_owned(),
    }
}

/// `OVERLAP_POLICY_` of `OverlapPolicy`: what the names of its values begin with.
fn screaming(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text + "_"
}

#[cfg(test)]
mod tests {
    use mirror_proto::v1;

    use super::*;

    #[test]
    fn a_message_is_its_set_fields_without_secrets() {
        let project = v1::Project {
            name: "projects/debian".to_owned(),
            labels: [("tier".to_owned(), "1".to_owned())].into(),
            upstreams: vec![v1::Upstream {
                uri: "rsync://h/m".to_owned(),
                password: Some("hunter2".to_owned()),
                has_password: true,
                ..v1::Upstream::default()
            }],
            guard: Some(v1::GuardSettings::default()),
            rsync: Some(v1::RsyncSettings {
                options: vec!["--bwlimit".to_owned(), "9".to_owned()],
                io_timeout: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
                ..v1::RsyncSettings::default()
            }),
            etag: "7".to_owned(),
            ..v1::Project::default()
        };
        let fields = of(&project, "Project");
        let shown: Vec<String> = fields.iter().map(|(path, one)| format!("{path}={}", one.text)).collect();
        assert_eq!(
            shown,
            [
                "guard=yes",
                "labels.tier=1",
                "rsync.io_timeout=10m",
                "rsync.options=--bwlimit 9",
                "upstreams[0].uri=rsync://h/m",
            ]
        );
        assert!(of(&project, "NoSuchMessage").is_empty());
    }

    #[test]
    fn no_field_of_the_contract_that_can_hold_a_secret_is_shown() {
        let pool = POOL.as_ref().unwrap();
        let told = ["page_token", "next_page_token", "join_token"];
        for field in pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>()) {
            let name = field.name();
            if !matches!(field.kind(), Kind::String | Kind::Bytes) {
                continue;
            }
            let secret = ["password", "secret", "token"].iter().any(|word| name.contains(word));
            assert!(
                !secret || SECRETS.contains(&name) || told.contains(&name),
                "{}: is it a secret? Then add it to SECRETS",
                field.full_name()
            );
        }
    }
}
