//! Escapes from a root, and what a root must be.

use super::*;
use std::os::unix::fs::{PermissionsExt as _, symlink};

fn guard() -> (tempfile::TempDir, Guard) {
    let dir = tempfile::tempdir().unwrap();
    let roots = [("a1".to_owned(), dir.path().to_owned())].into();
    let guard = Guard::open(&roots).unwrap();
    (dir, guard)
}

fn dest(text: &str) -> Destination {
    text.parse().unwrap()
}

#[test]
fn looking_makes_nothing_and_making_makes_all() {
    let (dir, guard) = guard();
    let real = dir.path().canonicalize().unwrap();
    assert_eq!(guard.look_at(&dest("a1:pub/debian/pool")).unwrap(), real.join("pub/debian/pool"));
    assert!(!real.join("pub").exists());
    assert_eq!(guard.make(&dest("a1:pub/debian")).unwrap(), real.join("pub/debian"));
    assert_eq!(guard.make(&dest("a1:pub/debian")).unwrap(), real.join("pub/debian"));
    assert!(real.join("pub/debian").is_dir());
    assert!(matches!(guard.make(&dest("a2:pub")), Err(DestinationFault::NoRoot(_))));
}

#[test]
fn no_link_is_followed_wherever_it_leads() {
    let (dir, guard) = guard();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("pub/real")).unwrap();
    symlink(outside.path(), dir.path().join("out")).unwrap();
    symlink("pub", dir.path().join("inside")).unwrap();
    symlink("..", dir.path().join("pub/up")).unwrap();
    symlink("/etc", dir.path().join("pub/etc")).unwrap();
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    for to in ["out", "out/x", "inside", "inside/real", "pub/up", "pub/up/x/y", "pub/etc", "dangling"] {
        let to = dest(&format!("a1:{to}"));
        for result in [guard.look_at(&to), guard.make(&to)] {
            assert!(matches!(result, Err(DestinationFault::Symlink(_))), "{to}: {result:?}");
        }
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_file_in_the_way_is_told() {
    let (dir, guard) = guard();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    for to in ["a1:file", "a1:file/below"] {
        assert!(matches!(guard.make(&dest(to)), Err(DestinationFault::NotDirectory(_))), "{to}");
    }
}

#[test]
fn the_parser_of_destinations_lets_no_escape_through() {
    for bad in
        ["a1:/etc", "a1:../x", "a1:x/../y", "a1:.", "a1:x/./y", "a1:.mirror/locks", "a1:-e", "a1:", "/etc"]
    {
        assert!(bad.parse::<Destination>().is_err(), "{bad}");
    }
}

#[test]
fn one_lock_per_project_that_lives_as_long_as_any_copy() {
    let (dir, guard) = guard();
    let root = guard.roots().next().unwrap().1;
    let lock = guard.lock(root, ProjectUid(7)).unwrap();
    assert_eq!(lock.path, dir.path().canonicalize().unwrap().join(".mirror/locks/7"));
    let inherited = lock.file.try_clone().unwrap();
    drop(lock);
    assert!(matches!(guard.lock(root, ProjectUid(7)), Err(LockFault::Held(_))));
    guard.lock(root, ProjectUid(8)).unwrap();
    drop(inherited);
    guard.lock(root, ProjectUid(7)).unwrap();
    let mode = std::fs::metadata(dir.path().join(".mirror")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_link_in_the_place_of_the_locks_is_refused() {
    let (dir, guard) = guard();
    let outside = tempfile::tempdir().unwrap();
    std::fs::remove_dir_all(dir.path().join(".mirror")).unwrap();
    symlink(outside.path(), dir.path().join(".mirror")).unwrap();
    let root = guard.roots().next().unwrap().1;
    assert!(matches!(guard.lock(root, ProjectUid(7)), Err(LockFault::Io { .. })));
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn roots_that_others_can_write_to_are_refused_all_at_once() {
    let base = tempfile::tempdir().unwrap();
    let make = |name: &str, mode| {
        let path = base.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let roots = BTreeMap::from([
        ("good".to_owned(), make("good", 0o755)),
        ("group".to_owned(), make("group", 0o775)),
        ("inner".to_owned(), make("good/inner", 0o755)),
        ("missing".to_owned(), base.path().join("missing")),
        ("world".to_owned(), make("world", 0o757)),
    ]);
    let faults = Guard::open(&roots).unwrap_err();
    let names: Vec<&str> = faults.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["group", "inner", "missing", "world"]);
    assert!(matches!(faults[1].1, RootFault::Nested(_)) && matches!(faults[0].1, RootFault::Mode(0o775)));
}

#[test]
fn the_floor_is_half_a_percent_of_bytes_and_of_inodes() {
    let space = Space { total_bytes: 200_000, free_bytes: 1_000, total_inodes: 2_000, free_inodes: 10 };
    assert_eq!(space.below_floor(), None);
    assert!(Space { free_bytes: 999, ..space }.below_floor().unwrap().contains("0.5 %"));
    assert!(Space { free_inodes: 9, ..space }.below_floor().unwrap().contains("inodes"));
    assert_eq!(Space { total_inodes: 0, free_inodes: 0, ..space }.below_floor(), None);
}

#[test]
fn a_tree_is_the_fleets_from_its_marker_on_and_at_its_destination_alone() {
    let (dir, guard) = guard();
    let root = guard.roots().next().unwrap().1;
    let (here, there): (Destination, Destination) =
        ("a1:debian".parse().unwrap(), "a1:other/debian".parse().unwrap());
    let begun = |destination| root.has_begun(ProjectUid(7), destination).unwrap();
    assert!(!begun(&here));
    root.mark_begun(ProjectUid(7), &here).unwrap();
    root.mark_begun(ProjectUid(7), &here).unwrap();
    assert!(begun(&here) && !begun(&there) && !root.has_begun(ProjectUid(8), &here).unwrap());
    root.mark_begun(ProjectUid(7), &there).unwrap();
    assert!(begun(&there) && !begun(&here));
    let left: Vec<_> = std::fs::read_dir(dir.path().join(".mirror/begun")).unwrap().collect();
    assert_eq!(left.len(), 1);

    assert!(!root.is_filled(&here).unwrap() && !root.is_filled(&there).unwrap());
    std::fs::create_dir(dir.path().join("debian")).unwrap();
    assert!(!root.is_filled(&here).unwrap());
    std::fs::write(dir.path().join("debian/.hidden"), "").unwrap();
    assert!(root.is_filled(&here).unwrap());
}
