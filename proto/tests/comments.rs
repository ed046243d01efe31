//! The proto is the product's manual: everything in it has a comment.

use mirror_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet, source_code_info::Location};

/// Field numbers of `FileDescriptorProto` and its parts whose entries need a comment, by what holds them:
/// (the holder's own number, the part's number).
const FILE: i32 = 0;
const MESSAGE: i32 = 4;
const ENUM: i32 = 5;
const SERVICE: i32 = 6;
const PARTS: [(i32, i32); 9] = [
    (FILE, MESSAGE),
    (FILE, ENUM),
    (FILE, SERVICE),
    (MESSAGE, 2), // fields
    (MESSAGE, 3), // messages in it
    (MESSAGE, 4), // enums in it
    (MESSAGE, 8), // oneofs
    (ENUM, 2),    // values
    (SERVICE, 2), // methods
];

/// Whether the path of a location leads to something that needs a comment.
fn needs_comment(path: &[i32]) -> bool {
    let mut holder = FILE;
    let mut steps = path.chunks(2);
    let Some(last) = steps.next_back() else { return false };
    for step in steps {
        holder = match (holder, step[0]) {
            (FILE, part) => part,
            (MESSAGE, 3) => MESSAGE,
            (MESSAGE, 4) => ENUM,
            (_, _) => return false,
        };
    }
    last.len() == 2 && PARTS.contains(&(holder, last[0]))
}

/// The entries without a comment, by path, and how many have one.
fn uncommented(file: &FileDescriptorProto) -> (Vec<Vec<i32>>, usize) {
    let locations = &file.source_code_info.as_ref().expect("comments are kept").location;
    let told = |location: &Location| location.leading_comments().trim().len() > 3;
    let relevant = locations.iter().filter(|location| needs_comment(&location.path));
    let (with, without): (Vec<_>, Vec<_>) = relevant.partition(|location| told(location));
    (without.into_iter().map(|location| location.path.clone()).collect(), with.len())
}

fn own_files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("the descriptors");
    set.file.into_iter().filter(|file| file.package().starts_with("mirror.")).collect()
}

#[test]
fn everything_has_a_comment() {
    let files = own_files();
    assert_eq!(files.len(), 8);
    for file in files {
        let (without, with) = uncommented(&file);
        assert!(without.is_empty(), "{}: no comment at {without:?} (descriptor paths)", file.name());
        assert!(with > 5, "{}: only {with} comments seen", file.name());
    }
}

#[test]
fn what_the_store_holds_is_not_served() {
    assert!(own_files().iter().all(|file| file.package() == "mirror.v1"));
}

#[test]
fn a_missing_comment_is_seen() {
    let mut file = own_files().remove(0);
    let locations = &mut file.source_code_info.as_mut().expect("comments are kept").location;
    let field = locations.iter_mut().find(|location| location.path == [4, 0, 2, 0]).expect("a first field");
    field.leading_comments = None;
    assert_eq!(uncommented(&file).0, vec![vec![4, 0, 2, 0]]);
}
