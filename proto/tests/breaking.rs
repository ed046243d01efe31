//! The contract may grow but not break: what the committed baseline (`baseline.bin`) has must still be there.
//! After a change that only adds: `UPDATE_BASELINE=1 cargo test -p mirror-proto --test breaking`.

use std::{collections::BTreeMap, env, fs, path::Path};

use mirror_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
};

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.bin");

/// Everything that clients rely on, as facts by name: `field mirror.v1.Run #2` → `generation uint64 ...`.
type Facts = BTreeMap<String, String>;

fn facts(set: &FileDescriptorSet) -> Facts {
    let mut facts = Facts::new();
    for file in &set.file {
        let package = file.package();
        file.message_type.iter().for_each(|message| message_facts(package, message, &mut facts));
        file.enum_type.iter().for_each(|set| enum_facts(package, set, &mut facts));
        file.service.iter().for_each(|service| service_facts(package, service, &mut facts));
    }
    facts
}

fn message_facts(scope: &str, message: &DescriptorProto, facts: &mut Facts) {
    let name = format!("{scope}.{}", message.name());
    facts.insert(format!("message {name}"), String::new());
    for field in &message.field {
        let oneof = field.oneof_index.and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?));
        let text = format!(
            "{} {:?} {} {:?} oneof {:?} presence {}",
            field.name(),
            field.r#type(),
            field.type_name(),
            field.label(),
            oneof.map(|oneof| oneof.name()),
            field.proto3_optional(),
        );
        facts.insert(format!("field {name} #{}", field.number()), text);
    }
    message.nested_type.iter().for_each(|inner| message_facts(&name, inner, facts));
    message.enum_type.iter().for_each(|inner| enum_facts(&name, inner, facts));
}

fn enum_facts(scope: &str, set: &EnumDescriptorProto, facts: &mut Facts) {
    let name = format!("{scope}.{}", set.name());
    facts.insert(format!("enum {name}"), String::new());
    for value in &set.value {
        facts.insert(format!("value {name} #{}", value.number()), value.name().to_owned());
    }
}

fn service_facts(scope: &str, service: &ServiceDescriptorProto, facts: &mut Facts) {
    let name = format!("{scope}.{}", service.name());
    facts.insert(format!("service {name}"), String::new());
    for rpc in &service.method {
        let side = |streams: bool| if streams { "stream of" } else { "one" };
        let text = format!(
            "{} {} to {} {}",
            side(rpc.client_streaming()),
            rpc.input_type(),
            side(rpc.server_streaming()),
            rpc.output_type()
        );
        facts.insert(format!("rpc {name}.{}", rpc.name()), text);
    }
}

/// Every fact of the old contract that no longer holds.
fn breaks(old: &FileDescriptorSet, new: &FileDescriptorSet) -> Vec<String> {
    let now = facts(new);
    let broken = |(what, was): (&String, &String)| match now.get(what) {
        None => Some(format!("{what} ({was}) is gone")),
        Some(is) if is != was => Some(format!("{what} was \"{was}\" and is \"{is}\"")),
        Some(_) => None,
    };
    facts(old).iter().filter_map(broken).collect()
}

/// The contract as it is compiled, without the comments and without what is Google's.
fn current() -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(DESCRIPTORS).expect("the descriptors");
    set.file.retain(|file| file.package() == "mirror.v1");
    set.file.iter_mut().for_each(|file| file.source_code_info = None);
    set
}

fn baseline() -> FileDescriptorSet {
    let bytes = fs::read(Path::new(BASELINE)).expect("baseline.bin is in the repository");
    FileDescriptorSet::decode(bytes.as_slice()).expect("baseline.bin is a descriptor set")
}

#[test]
fn the_contract_is_the_baseline() {
    if env::var_os("UPDATE_BASELINE").is_some() {
        fs::write(BASELINE, current().encode_to_vec()).expect("baseline.bin is written");
    }
    let broken = breaks(&baseline(), &current());
    assert!(broken.is_empty(), "the contract breaks its clients:\n{}", broken.join("\n"));
    let unknown = breaks(&current(), &baseline());
    assert!(unknown.is_empty(), "set UPDATE_BASELINE=1 to take these in:\n{}", unknown.join("\n"));
}

fn message<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut DescriptorProto {
    let mut messages = set.file.iter_mut().flat_map(|file: &mut FileDescriptorProto| &mut file.message_type);
    messages.find(|message| message.name() == name).expect("a message of this name")
}

fn service<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut ServiceDescriptorProto {
    let mut services = set.file.iter_mut().flat_map(|file| &mut file.service);
    services.find(|service| service.name() == name).expect("a service of this name")
}

/// What the checker says about a doctored contract.
fn after(change: impl FnOnce(&mut FileDescriptorSet)) -> Vec<String> {
    let mut doctored = current();
    change(&mut doctored);
    breaks(&current(), &doctored)
}

#[test]
fn the_checker_sees_every_kind_of_break() {
    type Change = fn(&mut FileDescriptorSet);
    let changes: [(&str, Change); 9] = [
        ("a field is removed", |set| drop(message(set, "Run").field.remove(1))),
        ("a field is renumbered", |set| message(set, "Run").field[1].number = Some(99)),
        ("a field is renamed", |set| message(set, "Run").field[1].name = Some("other".to_owned())),
        ("a field has another type", |set| message(set, "Run").field[1].r#type = Some(9)),
        ("a field becomes a list", |set| message(set, "Run").field[1].label = Some(3)),
        ("an enum value is removed", |set| drop(message(set, "Run").enum_type[0].value.pop())),
        ("an rpc is removed", |set| drop(service(set, "RunService").method.remove(0))),
        ("an rpc begins to stream", |set| service(set, "RunService").method[0].server_streaming = Some(true)),
        ("a service is removed", |set| {
            set.file.iter_mut().for_each(|file| file.service.retain(|s| s.name() != "RunService"));
        }),
    ];
    assert_eq!(after(|_| {}), Vec::<String>::new());
    for (what, change) in changes {
        assert!(!after(change).is_empty(), "not seen: {what}");
    }
}

#[test]
fn the_checker_lets_the_contract_grow() {
    let grown = after(|set| {
        let mut field = message(set, "Run").field[1].clone();
        (field.name, field.number) = (Some("new".to_owned()), Some(99));
        message(set, "Run").field.push(field);
        let mut rpc = service(set, "RunService").method[0].clone();
        rpc.name = Some("New".to_owned());
        service(set, "RunService").method.push(rpc);
    });
    assert_eq!(grown, Vec::<String>::new());
}
