//! Hostile messages of any type, made from the contract's own description: a new field is covered as soon as it is
//! there.

use std::collections::HashMap;

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

/// Texts that something reads as more than a text.
pub(crate) const TEXTS: [&str; 12] = [
    "\u{1b}]0;title\u{7}\u{1b}[31m",
    "../../etc/passwd",
    "/etc/passwd",
    "-rf",
    "%2e%2e%2f",
    "a\u{202e}b",
    "a\nb\r\0c",
    "projects/\u{1b}[2J",
    "agents/..",
    "projects/x/runs/-/attempts/99999999999999999999",
    "$(id)`id`;|&",
    "\u{9b}31m",
];
/// How deep messages are filled.
const DEPTH_MAX: usize = 2;
/// Elements of a list that is too long.
const MANY: usize = 3_000;
/// Levels of nesting that no reader should follow.
const LEVELS: usize = 10_000;

/// The contract.
pub(crate) fn pool() -> DescriptorPool {
    DescriptorPool::decode(mirror_proto::DESCRIPTORS).unwrap()
}

/// A name for people, and the bytes.
pub(crate) type Case = (String, Vec<u8>);

/// Every hostile message of a type: one field at a time, all fields at once, and bytes that are no such message.
pub(crate) fn hostile(of: &MessageDescriptor) -> Vec<Case> {
    let mut cases = vec![("nothing".to_owned(), Vec::new())];
    for field in of.fields() {
        for (index, value) in values(&field, DEPTH_MAX).into_iter().enumerate() {
            let mut message = DynamicMessage::new(of.clone());
            message.set_field(&field, value);
            cases.push((format!("{} #{index}", field.name()), message.encode_to_vec()));
        }
    }
    for turn in 0..TEXTS.len() {
        cases.push((format!("all fields #{turn}"), filled(of, turn, DEPTH_MAX).encode_to_vec()));
    }
    cases.extend(no_messages());
    cases
}

/// Bytes that are no message of ours, or one of tomorrow.
fn no_messages() -> Vec<Case> {
    let nested = |first: u8, rest: usize| {
        // From the inside out each level is a field of the one around it.
        let mut bytes = Vec::new();
        for _ in 0..rest {
            let mut outer = vec![first];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            outer.extend(&bytes);
            bytes = outer;
            if bytes.len() > 60_000 {
                break;
            }
        }
        bytes
    };
    [
        ("a field of tomorrow", vec![0xfa, 0xff, 0x3f, 3, 1, 2, 3]),
        ("another wire type", vec![0x09, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("wrong UTF-8", vec![0x0a, 2, 0xff, 0xfe]),
        ("a length beyond the end", vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x07]),
        ("an endless number", vec![0x08; 1].into_iter().chain([0xff; 20]).collect()),
        ("field zero", vec![0x02, 0]),
        ("groups without an end", vec![0x0b; LEVELS]),
        ("deep nesting", nested(0x0a, LEVELS)),
        ("deep nesting of a field of tomorrow", nested(0x7a, LEVELS)),
        ("4 MiB and a byte", {
            let mut bytes = vec![0x7a];
            prost::encoding::encode_varint(4 << 20, &mut bytes);
            bytes.resize((4 << 20) + 1, b'x');
            bytes
        }),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .to_vec()
}

/// Hostile values of one field.
fn values(field: &FieldDescriptor, depth: usize) -> Vec<Value> {
    if field.is_map() {
        return values_of_map(field, depth);
    }
    let one = scalars(field, depth);
    if field.is_list() {
        let many = one.first().map(|value| Value::List(vec![value.clone(); MANY]));
        return one.iter().map(|value| Value::List(vec![value.clone()])).chain(many).collect();
    }
    one
}

fn values_of_map(field: &FieldDescriptor, depth: usize) -> Vec<Value> {
    let Kind::Message(entry) = field.kind() else { return Vec::new() };
    let map = |key: MapKey, value: Value| Value::Map(HashMap::from([(key, value)]));
    let values = scalars(&entry.map_entry_value_field(), depth);
    match entry.map_entry_key_field().kind() {
        Kind::String => TEXTS
            .iter()
            .zip(values.iter().cycle())
            .map(|(key, value)| map(MapKey::String((*key).to_owned()), value.clone()))
            .collect(),
        other => panic!("maps by {other:?} are not made yet"),
    }
}

fn scalars(field: &FieldDescriptor, depth: usize) -> Vec<Value> {
    match field.kind() {
        Kind::String => {
            let long = "x".repeat(10_000);
            TEXTS
                .iter()
                .map(|text| (*text).to_owned())
                .chain([String::new(), long])
                .map(Value::String)
                .collect()
        }
        Kind::Bytes => vec![Value::Bytes(vec![0xff; 70_000].into()), Value::Bytes(Vec::new().into())],
        Kind::Bool => vec![Value::Bool(true)],
        Kind::Enum(_) => [12_345, -1, i32::MIN].map(Value::EnumNumber).to_vec(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => [i32::MIN, -1, i32::MAX].map(Value::I32).to_vec(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => [i64::MIN, -1, i64::MAX].map(Value::I64).to_vec(),
        Kind::Uint32 | Kind::Fixed32 => [0, u32::MAX].map(Value::U32).to_vec(),
        Kind::Uint64 | Kind::Fixed64 => [0, u64::MAX].map(Value::U64).to_vec(),
        Kind::Double => vec![Value::F64(f64::NAN)],
        Kind::Float => vec![Value::F32(f32::INFINITY)],
        Kind::Message(inner) => {
            let empty = Value::Message(DynamicMessage::new(inner.clone()));
            let turns = if depth == 0 { 0 } else { 3 };
            let filled = (0..turns).map(|turn| Value::Message(filled(&inner, turn, depth - 1)));
            std::iter::once(empty).chain(filled).collect()
        }
    }
}

/// A message with a hostile value in every field; which one goes by the turn.
fn filled(of: &MessageDescriptor, turn: usize, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields() {
        let all = if depth == 0 && matches!(field.kind(), Kind::Message(_)) {
            Vec::new()
        } else {
            // A list that is too long belongs to the cases of its field.
            let mut all = values(&field, depth.min(1));
            all.truncate(all.len() - usize::from(field.is_list() && all.len() > 1));
            all
        };
        if let Some(value) = all.get(turn % all.len().max(1)) {
            message.set_field(&field, value.clone());
        }
    }
    message
}
