//! The pages of the API reference, from the descriptors. Knows protobuf's descriptors and Markdown.

use std::collections::BTreeMap;

use fleet::agent::UserRole;
use mirror_coordinator::rpc::policy::{self, Rule};
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

/// Numbers of the descriptors' own fields, of which the paths of comments are made (descriptor.proto).
mod step {
    pub(super) const FILE_MESSAGE: i32 = 4;
    pub(super) const FILE_ENUM: i32 = 5;
    pub(super) const FILE_SERVICE: i32 = 6;
    pub(super) const FILE_SYNTAX: i32 = 12;
    pub(super) const MESSAGE_FIELD: i32 = 2;
    pub(super) const MESSAGE_MESSAGE: i32 = 3;
    pub(super) const MESSAGE_ENUM: i32 = 4;
    pub(super) const ENUM_VALUE: i32 = 2;
    pub(super) const SERVICE_METHOD: i32 = 2;
}

/// The package whose names are written without it.
const PACKAGE: &str = ".mirror.v1.";
/// Where the types are told that are not ours.
const WELL_KNOWN: &str = "https://protobuf.dev/reference/protobuf/google.protobuf/#";
const MADE_FROM: &str =
    "<!-- Made from proto/mirror/v1: UPDATE_DOCS=1 cargo test -p mirror-coordinator --test reference -->\n";

/// The pages in the order in which people look for them; others follow.
const ORDER: [&str; 8] =
    ["project.md", "run.md", "agent.md", "fleet.md", "upstream.md", "user.md", "enrollment.md", "session.md"];

/// One file of the contract, with its comments by the path of what they are about.
struct Source {
    file: FileDescriptorProto,
    comments: BTreeMap<Vec<i32>, String>,
}

/// Where each type of ours is told: the page's name.
type Places = BTreeMap<String, String>;

/// Every page by its file's name.
pub(crate) fn all() -> BTreeMap<String, String> {
    let sources = sources();
    let mut places = Places::new();
    for source in &sources {
        for (name, ..) in source.messages() {
            places.insert(name, source.page());
        }
        for (name, ..) in source.enums() {
            places.insert(name, source.page());
        }
    }
    let mut pages: BTreeMap<_, _> =
        sources.iter().map(|source| (source.page(), source.text(&places))).collect();
    pages.insert("README.md".to_owned(), contents(&sources));
    pages
}

fn sources() -> Vec<Source> {
    let set = FileDescriptorSet::decode(mirror_proto::DESCRIPTORS).expect("the descriptors");
    let own = set.file.into_iter().filter(|file| file.package() == "mirror.v1");
    let mut sources: Vec<_> = own.map(source).collect();
    sources.sort_by_key(|source| {
        let page = source.page();
        ORDER.iter().position(|known| *known == page).unwrap_or(ORDER.len())
    });
    sources
}

fn source(file: FileDescriptorProto) -> Source {
    let told = file.source_code_info.as_ref().expect("comments are kept");
    let comments = told.location.iter().filter_map(|location| {
        let text = location.leading_comments.clone()?;
        Some((location.path.clone(), text.trim_end().to_owned()))
    });
    Source { comments: comments.collect(), file }
}

/// The first page: how to call it, and every method in one line.
fn contents(sources: &[Source]) -> String {
    let mut text = format!(
        "{MADE_FROM}# API reference\n\n\
         Everything that `mirrorctl` does is a call of this API: gRPC, package `mirror.v1`, over TLS with the fleet's CA. The \
         caller is known by a client certificate, or by a token in the header `authorization: Bearer …` \
         ([people](../people.md)); each method says who may call it, and what has no row there is refused. The server \
         reflects itself (v1 and v1alpha), so `grpcurl` and `buf curl` need no files; the files are in `proto/mirror/v1`.\n\n\
         Rules that hold everywhere: a name is a path such as `projects/debian`; lists are cut in pages by `page_size` and \
         `page_token`; a change with `request_id` is done once however often it is asked for within 24 hours; `etag` refuses a \
         change that is based on something old; `validate_only` checks and changes nothing. A refusal carries \
         `google.rpc.ErrorInfo` with a reason and, for bad input, `google.rpc.BadRequest` with every fault at once. Within \
         `v1` fields, methods and enum values are only ever added: read unknown ones as not there.\n\n\
         Besides gRPC there is one HTTPS address, for release scripts: `POST /v1/projects/PROJECT/push` ([pushes](../pushes.md)).\n"
    );
    for source in sources {
        for service in &source.file.service {
            let name = service.name();
            text.push_str(&format!(
                "\n## [{name}]({}#{})\n\n| method | who may call it |\n|---|---|\n",
                source.page(),
                name.to_lowercase()
            ));
            for method in &service.method {
                let link = format!("{}#{}", source.page(), method.name().to_lowercase());
                text.push_str(&format!("| [{}]({link}) | {} |\n", method.name(), who(name, method.name())));
            }
        }
    }
    text
}

/// Who may call a method, in words.
fn who(service: &str, method: &str) -> &'static str {
    let rule = policy::rule(&format!("/mirror.v1.{service}/{method}")).expect("every method has a row");
    match rule {
        Rule::Open => "everybody who reaches the port",
        Rule::Reflection => "as the configuration says",
        Rule::Agent => "agents, each for itself",
        Rule::User(UserRole::Viewer) => "every user",
        Rule::User(UserRole::Owner) => "owners, operators and admins",
        Rule::User(UserRole::Operator) => "operators and admins",
        Rule::User(UserRole::Admin) => "admins",
        Rule::Owner => "owners of the project, operators and admins",
        Rule::Push => "owners of the project, its push tokens, operators and admins",
        Rule::Oneself => "every user for himself, admins for all",
    }
}

/// A type's name as it is written on the pages, with a link to where it is told.
fn type_link(name: &str, places: &Places) -> String {
    match name.strip_prefix(PACKAGE) {
        Some(own) => format!("[{own}]({}#{})", places[own], own.replace('.', "").to_lowercase()),
        None => match name.strip_prefix(".google.protobuf.") {
            Some(known) => format!("[{known}]({WELL_KNOWN}{})", known.to_lowercase()),
            None => name.trim_start_matches('.').to_owned(),
        },
    }
}

/// A comment as a cell of a table.
fn cell(comment: &str) -> String {
    comment.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|").replace('<', "&lt;")
}

/// A comment as a paragraph.
fn paragraph(comment: &str) -> String {
    let lines = comment.lines().map(|line| line.strip_prefix(' ').unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n").replace('<', "&lt;")
}

fn with(path: &[i32], more: [i32; 2]) -> Vec<i32> {
    [path, &more].concat()
}

fn index(at: usize) -> i32 {
    i32::try_from(at).expect("few of them")
}

impl Source {
    /// `mirror/v1/project.proto` is told in `project.md`.
    fn page(&self) -> String {
        let name = self.file.name().rsplit('/').next().unwrap_or_default();
        name.replace(".proto", ".md")
    }

    fn comment(&self, path: &[i32]) -> &str {
        self.comments.get(path).map_or("", |text| text.as_str())
    }

    /// Its messages, those inside others too, with the path of each; without the entries of maps.
    fn messages(&self) -> Vec<(String, Vec<i32>, &DescriptorProto)> {
        let mut found = Vec::new();
        for (at, message) in self.file.message_type.iter().enumerate() {
            collect(message.name().to_owned(), vec![step::FILE_MESSAGE, index(at)], message, &mut found);
        }
        found
    }

    fn enums(&self) -> Vec<(String, Vec<i32>, &EnumDescriptorProto)> {
        let outer = self.file.enum_type.iter().enumerate();
        let mut found: Vec<_> = outer
            .map(|(at, this)| (this.name().to_owned(), vec![step::FILE_ENUM, index(at)], this))
            .collect();
        for (name, path, message) in self.messages() {
            for (at, this) in message.enum_type.iter().enumerate() {
                let path = with(&path, [step::MESSAGE_ENUM, index(at)]);
                found.push((format!("{name}.{}", this.name()), path, this));
            }
        }
        found
    }

    fn text(&self, places: &Places) -> String {
        // What stands at the file's head belongs to its syntax line.
        let about = paragraph(self.comment(&[step::FILE_SYNTAX]));
        let name = self.file.name();
        let mut text =
            format!("{MADE_FROM}# {name}\n\n{about}\n\nAll services: [API reference](README.md).\n");
        for (at, service) in self.file.service.iter().enumerate() {
            self.service(&mut text, &[step::FILE_SERVICE, index(at)], service, places);
        }
        text.push_str("\n## Messages\n");
        for (name, path, message) in self.messages() {
            self.message(&mut text, &name, &path, message, places);
        }
        if !self.enums().is_empty() {
            text.push_str("\n## Enumerations\n");
        }
        for (name, path, this) in self.enums() {
            text.push_str(&format!("\n### {name}\n\n{}\n\n", paragraph(self.comment(&path))));
            text.push_str("| value | number | meaning |\n|---|---|---|\n");
            for (at, value) in this.value.iter().enumerate() {
                let comment = cell(self.comment(&with(&path, [step::ENUM_VALUE, index(at)])));
                text.push_str(&format!("| `{}` | {} | {comment} |\n", value.name(), value.number()));
            }
        }
        text
    }

    fn service(&self, text: &mut String, path: &[i32], service: &ServiceDescriptorProto, places: &Places) {
        let name = service.name();
        text.push_str(&format!("\n## {name}\n\n{}\n", paragraph(self.comment(path))));
        for (at, method) in service.method.iter().enumerate() {
            let stream = |streams: bool| if streams { "stream of " } else { "" };
            text.push_str(&format!(
                "\n### {}\n\n{}{} → {}{}. Who may call it: {}.\n\n{}\n",
                method.name(),
                stream(method.client_streaming()),
                type_link(method.input_type(), places),
                stream(method.server_streaming()),
                type_link(method.output_type(), places),
                who(name, method.name()),
                paragraph(self.comment(&with(path, [step::SERVICE_METHOD, index(at)]))),
            ));
        }
    }

    fn message(
        &self,
        text: &mut String,
        name: &str,
        path: &[i32],
        message: &DescriptorProto,
        places: &Places,
    ) {
        text.push_str(&format!("\n### {name}\n\n{}\n", paragraph(self.comment(path))));
        if message.field.is_empty() {
            return;
        }
        text.push_str("\n| field | type | meaning |\n|---|---|---|\n");
        for (at, field) in message.field.iter().enumerate() {
            let comment = cell(self.comment(&with(path, [step::MESSAGE_FIELD, index(at)])));
            let kind = kind(field, message, places);
            text.push_str(&format!("| `{}` {} | {kind} | {comment} |\n", field.name(), field.number()));
        }
    }
}

fn collect<'a>(
    name: String,
    path: Vec<i32>,
    message: &'a DescriptorProto,
    found: &mut Vec<(String, Vec<i32>, &'a DescriptorProto)>,
) {
    found.push((name.clone(), path.clone(), message));
    for (at, inner) in message.nested_type.iter().enumerate() {
        if !is_entry(inner) {
            let path = with(&path, [step::MESSAGE_MESSAGE, index(at)]);
            collect(format!("{name}.{}", inner.name()), path, inner, found);
        }
    }
}

/// What protobuf makes for a map.
fn is_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

/// A field's type in words.
fn kind(field: &FieldDescriptorProto, message: &DescriptorProto, places: &Places) -> String {
    let entry = message
        .nested_type
        .iter()
        .find(|inner| is_entry(inner) && field.type_name().rsplit('.').next() == Some(inner.name()));
    if let Some(entry) = entry {
        let [key, value] = entry.field.as_slice() else { unreachable!("a map has keys and values") };
        return format!("map of {} to {}", single(key, places), single(value, places));
    }
    let single = single(field, places);
    if field.label() == Label::Repeated {
        return format!("list of {single}");
    }
    if field.proto3_optional() {
        return format!("optional {single}");
    }
    match field.oneof_index.and_then(|at| message.oneof_decl.get(usize::try_from(at).ok()?)) {
        Some(oneof) => format!("{single}, one of `{}`", oneof.name()),
        None => single,
    }
}

fn single(field: &FieldDescriptorProto, places: &Places) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => type_link(field.type_name(), places),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}
