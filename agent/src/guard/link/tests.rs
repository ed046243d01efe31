//! Links that are made, replaced and left alone.

use super::*;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const PROJECT: ProjectUid = ProjectUid(7);

/// Two volumes and a directory of public names, as in `/data/ftp/.1`, `.2` and `pub`.
fn site() -> (tempfile::TempDir, Guard) {
    let dir = tempfile::tempdir().unwrap();
    let mut roots = std::collections::BTreeMap::new();
    for (name, path) in [("a1", ".1"), ("a2", ".2"), ("pub", "pub")] {
        std::fs::create_dir(dir.path().join(path)).unwrap();
        roots.insert(name.to_owned(), dir.path().join(path));
    }
    let guard = Guard::open(&roots).unwrap();
    for (place, content) in [("a1:debian", "old"), ("a2:mirror/debian", "new")] {
        std::fs::write(guard.make(&dest(place)).unwrap().join("Release"), content).unwrap();
    }
    (dir, guard)
}

fn dest(text: &str) -> Destination {
    text.parse().unwrap()
}

fn read(dir: &tempfile::TempDir, link: &str) -> String {
    std::fs::read_link(dir.path().join(link)).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_link_is_made_with_a_relative_target_and_follows_the_tree() {
    let (dir, guard) = site();
    let (link, old, new) = (dest("pub:linux/debian"), dest("a1:debian"), dest("a2:mirror/debian"));
    assert_eq!(guard.look_at_link(PROJECT, &link, &[&old]).unwrap(), LinkState::Absent);
    assert!(guard.put_link(PROJECT, &link, &old, None).unwrap());
    assert_eq!(read(&dir, "pub/linux/debian"), "../../.1/debian");
    assert!(!guard.put_link(PROJECT, &link, &old, None).unwrap(), "nothing to do");
    assert!(guard.put_link(PROJECT, &link, &new, Some(&old)).unwrap());
    assert_eq!(read(&dir, "pub/linux/debian"), "../../.2/mirror/debian");
    // Where the tree was no longer matters: the link is noted as the agent's own.
    std::fs::remove_dir_all(dir.path().join(".2/mirror")).unwrap();
    assert!(guard.put_link(PROJECT, &link, &old, None).unwrap());
    assert_eq!(std::fs::read_dir(dir.path().join("pub/linux")).unwrap().count(), 1, "nothing is left over");
}

#[test]
fn what_is_not_the_agents_own_is_left_alone() {
    let (dir, guard) = site();
    let old = dest("a1:debian");
    std::fs::create_dir(dir.path().join("pub/directory")).unwrap();
    std::fs::write(dir.path().join("pub/file"), "x").unwrap();
    symlink("../.2/mirror", dir.path().join("pub/elsewhere")).unwrap();
    symlink("nowhere", dir.path().join("pub/dangling")).unwrap();
    for (name, what) in [
        ("directory", "a directory"),
        ("file", "a file"),
        ("elsewhere", "a symbolic link to ../.2/mirror"),
        ("dangling", "a symbolic link to nowhere"),
    ] {
        let link = dest(&format!("pub:{name}"));
        for result in [
            guard.look_at_link(PROJECT, &link, &[&old]).map(|_| false),
            guard.put_link(PROJECT, &link, &old, None),
        ] {
            let Err(LinkFault::Foreign { what: found, .. }) = result else { panic!("{name}: {result:?}") };
            assert_eq!(found, what);
        }
    }
    assert_eq!(read(&dir, "pub/elsewhere"), "../.2/mirror");
    // One that an administrator made to the tree is taken over.
    symlink(dir.path().join(".1/debian"), dir.path().join("pub/debian")).unwrap();
    assert!(guard.put_link(PROJECT, &dest("pub:debian"), &old, None).unwrap());
    assert_eq!(read(&dir, "pub/debian"), "../.1/debian");
    // And what he made of it since is his.
    std::fs::remove_file(dir.path().join("pub/debian")).unwrap();
    symlink("../.2/mirror", dir.path().join("pub/debian")).unwrap();
    let result = guard.put_link(PROJECT, &dest("pub:debian"), &old, None);
    assert!(matches!(result, Err(LinkFault::Foreign { .. })), "{result:?}");
}

#[test]
fn a_link_lies_below_a_root_and_behind_no_other_link() {
    let (dir, guard) = site();
    let old = dest("a1:debian");
    symlink("..", dir.path().join("pub/up")).unwrap();
    for link in ["other:debian", "pub:up/debian", "pub:up/pub/debian"] {
        let result = guard.put_link(PROJECT, &dest(link), &old, None);
        assert!(matches!(result, Err(LinkFault::Place { .. })), "{link}: {result:?}");
    }
    // A link to the link's own directory is followed by nobody who writes.
    guard.put_link(PROJECT, &dest("pub:debian"), &old, None).unwrap();
    assert!(matches!(guard.make(&dest("pub:debian/pool")), Err(DestinationFault::Symlink(_))));
}

#[test]
fn readers_find_the_old_or_the_new_tree_at_every_moment() {
    const SWITCHES: usize = 300;
    let (dir, guard) = site();
    let (link, old, new) = (dest("pub:debian"), dest("a1:debian"), dest("a2:mirror/debian"));
    guard.put_link(PROJECT, &link, &old, None).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (over, path) = (over.clone(), dir.path().join("pub/debian/Release"));
        move || {
            let mut seen = [0, 0];
            while !over.load(Ordering::Acquire) || seen.contains(&0) {
                match std::fs::read_to_string(&path).unwrap().as_str() {
                    "old" => seen[0] += 1,
                    "new" => seen[1] += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
    });
    for _ in 0..SWITCHES {
        guard.put_link(PROJECT, &link, &new, Some(&old)).unwrap();
        guard.put_link(PROJECT, &link, &old, Some(&new)).unwrap();
    }
    over.store(true, Ordering::Release);
    // The reader ends once it has seen both.
    while !reader.is_finished() {
        guard.put_link(PROJECT, &link, &new, Some(&old)).unwrap();
        guard.put_link(PROJECT, &link, &old, Some(&new)).unwrap();
    }
    reader.join().unwrap();
}

#[test]
fn ways_between_directories() {
    for (from, to, way) in [
        ("/data/ftp/pub", "/data/ftp/.1/debian", "../.1/debian"),
        ("/data/ftp/pub/linux", "/data/ftp/pub/x", "../x"),
        ("/srv", "/data/x", "../data/x"),
        ("/", "/data", "data"),
    ] {
        assert_eq!(relative(Path::new(from), Path::new(to)), Path::new(way));
    }
}
