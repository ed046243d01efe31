//! The manifest's grammar, from the contract's own descriptors: which fields people write, what they are called and what
//! stands in them. Reading, writing and the JSON Schema all follow it, so a field of the contract is in the manifest as
//! soon as it is in the contract. Knows no text formats.

use std::{collections::BTreeMap, sync::LazyLock};

use prost_reflect::{Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

/// Fields whose values are resource names, and the collection that is left out of the manifest.
const NAMES: [(&str, &str); 3] = [
    ("mirror.v1.Project.name", "projects/"),
    ("mirror.v1.Project.owner", "users/"),
    ("mirror.v1.PlacementTarget.agent", "agents/"),
];
/// The one field that no manifest holds; the path of a file stands in its place.
const SECRET: &str = "mirror.v1.Upstream.password";
/// What that path is called.
pub(super) const SECRET_FILE: &str = "password_file";
/// What is said of it.
const SECRET_FILE_ABOUT: &str = "A file that holds the password and nothing else; a relative path counts from the \
    manifest's own directory. Absent: the stored password stays. An empty file removes it.";
/// The enumeration whose words the command line writes with underscores, as its values are; all others have hyphens.
const UNDERSCORED: &str = "mirror.v1.Marker.Kind";
/// The list that says something when it is empty: that there are none. Where it is not given, its message is not there.
const SAYS_WHEN_EMPTY: &str = "mirror.v1.OptionWords.words";
/// How the contract's comments begin where only the coordinator writes a field.
const OUTPUT_ONLY: &str = "Output only.";

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(mirror_proto::DESCRIPTORS).ok());
static COMMENTS: LazyLock<BTreeMap<String, String>> = LazyLock::new(comments);

/// What stands in a field.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// A text; a whole number stands for its digits.
    Text,
    /// A resource name without this collection before it.
    Name(&'static str),
    /// The path of a file whose content is the value.
    SecretFile,
    /// True or false.
    Flag,
    /// Nothing; true stands for it.
    Mark,
    /// A whole number from 0 up to this.
    Number(u64),
    /// A span as typed on the command line: `6h`.
    Span,
    /// One of the enumeration's words.
    Word(EnumDescriptor),
    /// Texts by keys.
    Texts,
    /// Fields of its own.
    Table(MessageDescriptor),
    /// Several.
    List(Box<Shape>),
}

/// One field that people write.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// What it is called in a manifest.
    pub(super) key: String,
    /// The contract's own.
    pub(super) descriptor: FieldDescriptor,
    /// What stands in it.
    pub(super) shape: Shape,
}

impl Field {
    /// What the contract says about it.
    pub(super) fn about(&self) -> String {
        let about = about(self.descriptor.full_name());
        match self.shape {
            Shape::SecretFile => SECRET_FILE_ABOUT.to_owned(),
            Shape::Name(collection) => about.replace(collection, ""),
            _ => about.to_owned(),
        }
    }

    /// Whether it is written although it is empty.
    pub(super) fn says_when_empty(&self) -> bool {
        self.descriptor.full_name() == SAYS_WHEN_EMPTY
    }

    /// The choice it is part of: at most one of its fields is given.
    pub(super) fn choice(&self) -> Option<String> {
        let choice = self.descriptor.containing_oneof().filter(|oneof| !oneof.is_synthetic())?;
        Some(choice.name().to_owned())
    }
}

/// The contract's message of a project.
pub(super) fn project() -> Option<MessageDescriptor> {
    POOL.as_ref()?.get_message_by_name("mirror.v1.Project")
}

/// The message that a mark stands for.
pub(super) fn empty() -> Option<MessageDescriptor> {
    POOL.as_ref()?.get_message_by_name("google.protobuf.Empty")
}

/// The message of a span.
pub(super) fn span() -> Option<MessageDescriptor> {
    POOL.as_ref()?.get_message_by_name("google.protobuf.Duration")
}

/// Whether no manifest holds its value.
pub(super) fn is_secret(field: &FieldDescriptor) -> bool {
    field.full_name() == SECRET
}

/// The fields of a message that people write, in the contract's order.
pub(super) fn fields(message: &MessageDescriptor) -> Vec<Field> {
    let written = message.fields().filter(|field| !about(field.full_name()).starts_with(OUTPUT_ONLY));
    written
        .filter_map(|descriptor| {
            let shape = shape(&descriptor)?;
            let key = if descriptor.full_name() == SECRET { SECRET_FILE } else { descriptor.name() };
            Some(Field { key: key.to_owned(), descriptor, shape })
        })
        .collect()
}

/// `None`: no manifest can hold such a field. A test finds one that people write.
fn shape(field: &FieldDescriptor) -> Option<Shape> {
    if field.full_name() == SECRET {
        return Some(Shape::SecretFile);
    }
    if field.is_map() {
        return Some(Shape::Texts);
    }
    let one = match field.kind() {
        Kind::String => match NAMES.iter().find(|(name, _)| *name == field.full_name()) {
            Some((_, collection)) => Shape::Name(collection),
            None => Shape::Text,
        },
        Kind::Bool => Shape::Flag,
        Kind::Uint32 | Kind::Fixed32 => Shape::Number(u32::MAX.into()),
        // What TOML's whole numbers can hold.
        Kind::Uint64 | Kind::Fixed64 => Shape::Number(i64::MAX as u64),
        Kind::Enum(words) => Shape::Word(words),
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Duration" => Shape::Span,
            "google.protobuf.Empty" => Shape::Mark,
            _ => Shape::Table(message),
        },
        _ => return None,
    };
    let several = field.cardinality() == Cardinality::Repeated;
    Some(if several { Shape::List(Box::new(one)) } else { one })
}

/// What stands at a path of a project, as in `upstreams[0].uri` or `labels.tier`; of a list, what its values are.
pub(super) fn at(path: &str) -> Option<Shape> {
    let (first, mut rest) = path.split_once('.').unwrap_or((path, ""));
    let find = |message: &MessageDescriptor, part: &str| {
        let bare = part.split('[').next().unwrap_or_default();
        fields(message).into_iter().find(|field| field.descriptor.name() == bare).map(|field| field.shape)
    };
    let mut shape = find(&project()?, first)?;
    loop {
        shape = match shape {
            Shape::List(one) => *one,
            Shape::Table(message) if !rest.is_empty() => {
                let (part, after) = rest.split_once('.').unwrap_or((rest, ""));
                rest = after;
                find(&message, part)?
            }
            shape => return Some(shape),
        };
    }
}

/// The words of an enumeration with their numbers: those of the command line's flags.
pub(super) fn words(of: &EnumDescriptor) -> Vec<(String, i32)> {
    let zero = of.default_value();
    let prefix = zero.name().strip_suffix("UNSPECIFIED").unwrap_or_default().to_owned();
    let hyphens = of.full_name() != UNDERSCORED;
    let meant = of.values().filter(|value| value.number() != zero.number());
    meant
        .map(|value| {
            let word = value.name().strip_prefix(&prefix).unwrap_or_else(|| value.name()).to_lowercase();
            (if hyphens { word.replace('_', "-") } else { word }, value.number())
        })
        .collect()
}

/// What the contract says about a message, a field or an enumeration's value, on one line.
pub(super) fn about(full_name: &str) -> &'static str {
    COMMENTS.get(full_name).map_or("", String::as_str)
}

/// The leading comments of all that the contract declares, by full names.
fn comments() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let files = POOL.as_ref().map(|pool| pool.files().collect::<Vec<_>>()).unwrap_or_default();
    for file in files {
        let raw = file.file_descriptor_proto();
        let places = raw.source_code_info.as_ref().map(|info| &info.location[..]).unwrap_or_default();
        let of_path: BTreeMap<&[i32], String> = places
            .iter()
            .filter_map(|place| {
                let text = place.leading_comments.as_deref()?;
                Some((&place.path[..], text.split_whitespace().collect::<Vec<_>>().join(" ")))
            })
            .collect();
        let mut note = |path: &[i32], name: &str| {
            if let Some(text) = of_path.get(path) {
                all.insert(name.to_owned(), text.clone());
            }
        };
        let messages = file.parent_pool().all_messages().filter(|message| message.parent_file() == file);
        for message in messages {
            note(message.path(), message.full_name());
            message.fields().for_each(|field| note(field.path(), field.full_name()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(message: &MessageDescriptor, prefix: &str, found: &mut Vec<String>) {
        let known = fields(message);
        for descriptor in message.fields() {
            let output_only = about(descriptor.full_name()).starts_with(OUTPUT_ONLY);
            let field = known.iter().find(|field| field.descriptor == descriptor);
            assert!(output_only != field.is_some(), "no shape for {}", descriptor.full_name());
            let Some(field) = field else { continue };
            assert!(!field.about().is_empty(), "{prefix}{} has no comment", field.key);
            let inner = match &field.shape {
                Shape::List(one) => one.as_ref(),
                one => one,
            };
            match inner {
                Shape::Table(inner) => collect(inner, &format!("{prefix}{}.", field.key), found),
                _ => found.push(format!("{prefix}{}", field.key)),
            }
        }
    }

    #[test]
    fn every_field_of_the_contract_is_written_by_people_or_by_the_coordinator() {
        let mut found = Vec::new();
        collect(&project().unwrap(), "", &mut found);
        for known in [
            "name",
            "owner",
            "labels",
            "upstreams.uri",
            "upstreams.password_file",
            "schedule.cron.day_of_week",
            "schedule.interval.every",
            "schedule.manual",
            "rsync.options",
            "placement.replicas.selector",
            "guard.max_delete",
            "marker.kind",
            "publish.link",
        ] {
            assert!(found.iter().any(|path| path == known), "{known} is missing: {found:?}");
        }
        for told in [
            "etag",
            "status",
            "upstreams.has_password",
            "schedule.notes",
            "upstreams.password",
            "create_time",
        ] {
            assert!(
                !found.iter().any(|path| path == told || path.starts_with(&format!("{told}."))),
                "{told}"
            );
        }
    }

    #[test]
    fn enumerations_have_the_words_of_the_flags() {
        let of = |name: &str| {
            let pool = POOL.as_ref().unwrap();
            let words = words(&pool.get_enum_by_name(&format!("mirror.v1.{name}")).unwrap());
            words.into_iter().map(|(word, _)| word).collect::<Vec<_>>()
        };
        assert_eq!(of("OverlapPolicy"), ["buffer-one", "skip"]);
        assert_eq!(of("DstOverlap"), ["once", "both"]);
        assert_eq!(of("Interval.From"), ["start", "end"]);
        assert_eq!(of("Marker.Kind")[..2], ["unix_time", "http_date"]);
    }
}
