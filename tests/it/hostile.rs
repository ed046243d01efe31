//! An upstream that means harm: links out of the tree, set-user-id bits, devices, a file of a terabyte, names made for
//! shells and terminals. What can be copied is; nothing else is touched, and no name reaches a terminal as it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use fleet_tests::{Finished, tree};

use crate::guards::{fleet_of, hash, held, succeed, tree_of};

/// Names that an upstream may give its files.
const NAMES: [&[u8]; 6] = [b"new\nline", b"esc\x1b[31m", b"\xff\xfe", b"-rf", b" --delete", b".rsync-filter"];

/// A tree with all that an upstream can be made of to harm who copies it; `outside` is what it aims at.
fn hostile_tree(dir: &Path, outside: &Path) {
    use std::os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
    };
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
    for (name, target) in
        [("abs", outside), ("passwd", Path::new("/etc/passwd")), ("good", Path::new("pool"))]
    {
        symlink(target, dir.join(name)).expect("a link");
    }
    symlink("../../../../../../etc", dir.join("climbing")).expect("a link");
    symlink("../../outside", dir.join("pool/beside")).expect("a link");
    for name in NAMES {
        fs::write(dir.join(std::ffi::OsStr::from_bytes(name)), "- *\nP *\n").expect("a file");
    }
    fs::write(dir.join("suid"), "#!/bin/sh\n").expect("a file");
    mode(&dir.join("suid"), 0o6755);
    fs::create_dir(dir.join("sticky")).expect("a directory");
    mode(&dir.join("sticky"), 0o3777);
    fs::File::create(dir.join("sparse")).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
    let mut special = vec![vec!["mkfifo", "fifo"]];
    if rustix::process::getuid().is_root() {
        special.push(vec!["mknod", "device", "c", "1", "3"]);
    }
    for words in special {
        Finished::run(std::process::Command::new(words[0]).args(&words[1..]).current_dir(dir)).ok();
    }
}

/// Every entry below a directory, links not followed.
fn all_below(dir: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let data = entry.metadata().expect("it is there");
        if data.is_dir() {
            found.extend(all_below(&entry.path()));
        }
        found.push((entry.path(), data));
    }
    found
}

/// No byte in it means something to a terminal but the end of a line.
fn is_plain(what: &str, text: &[u8]) {
    let strange = text.iter().position(|byte| byte.is_ascii_control() && *byte != b'\n');
    assert_eq!(strange, None, "{what}: {}", String::from_utf8_lossy(text));
    assert!(std::str::from_utf8(text).is_ok(), "{what} is no UTF-8");
}

#[test]
fn a_hostile_upstream_touches_nothing_outside_and_reaches_no_terminal() {
    use std::os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _};
    let fleet = fleet_of(200);
    let outside = fleet.path().join("outside");
    tree::fill(&outside, 3, 100, 1).expect("a tree");
    let untouched = hash(&outside);
    hostile_tree(&fleet.upstream_tree(), &outside);
    fleet.add_project("debian", &["--rsync-option=--max-size=1M", "--retry-attempts", "1"]).ok();
    succeed(&fleet, &[]);
    let tree = tree_of(&fleet);
    for (path, data) in all_below(&tree) {
        let kind = data.file_type();
        assert!(kind.is_dir() || kind.is_file() || kind.is_symlink(), "{}", path.display());
        assert_eq!(data.permissions().mode() & 0o6000, 0, "{}", path.display());
    }
    for name in NAMES {
        assert!(tree.join(std::ffi::OsStr::from_bytes(name)).exists(), "{}", name.escape_ascii());
    }
    for name in ["abs", "passwd", "climbing", "pool/beside", "sparse", "fifo", "device"] {
        assert!(tree.join(name).symlink_metadata().is_err(), "{name} was taken");
    }
    assert_eq!(fs::read_link(tree.join("good")).expect("a link"), Path::new("pool"));

    // Its names come to people when they go, are counted, and stand in evidence.
    for name in NAMES {
        fs::remove_file(fleet.upstream_tree().join(std::ffi::OsStr::from_bytes(name))).expect("it goes");
    }
    fleet.mirrorctl(&["project", "edit", "debian", "--max-delete", "1"]).ok();
    let evidence = held(&fleet, "DELETES", &[]).to_string();
    assert!(evidence.contains(r"\\x1b[31m") || evidence.contains(r"new\\x0aline"), "{evidence}");
    for page in [
        &["run", "show", "debian"][..],
        &["run", "log", "debian"],
        &["why", "debian"],
        &["status"],
        &["project", "show", "debian"],
        &["run", "show", "debian", "-o", "json"],
    ] {
        is_plain(&page.join(" "), fleet.mirrorctl(page).ok().stdout.as_bytes());
    }
    let logs = all_below(&fleet.agent_dir(0).join("logs")).into_iter().map(|(path, _)| path);
    let logs = logs.chain(["agent-edge1.log", "coordinator.log"].map(|name| fleet.path().join(name)));
    for log in logs.filter(|path| path.is_file()) {
        is_plain(&log.display().to_string(), &fs::read(&log).expect("a log"));
    }
    let first =
        fleet.runs("debian").pop().expect("the first run")["name"].as_str().expect("a name").to_owned();
    let log =
        fleet.mirrorctl(&["run", "log", &first.replace("projects/", "").replace("runs/", "")]).ok().stdout;
    assert!(log.contains(r"\x1b[31m") && log.contains(r"\x0a") && log.contains(r"\xff\xfe"), "{log}");
    assert_eq!(hash(&outside), untouched);
    let beside: Vec<_> =
        fs::read_dir(fleet.root(0)).expect("a root").flatten().map(|one| one.file_name()).collect();
    assert_eq!(beside.len(), 2, "the tree and the agent's own: {beside:?}");
}

#[test]
fn a_file_of_a_terabyte_meets_the_quota() {
    const QUOTA: u64 = 4 << 20;
    let fleet = fleet_of(10);
    let sparse = fs::File::create(fleet.upstream_tree().join("sparse")).expect("a file");
    sparse.set_len(1 << 40).expect("a sparse file");
    fleet.add_project("debian", &["--quota", "4194304", "--rsync-option=--bwlimit=8000"]).ok();
    let evidence = held(&fleet, "QUOTA", &[]);
    assert_eq!(evidence["allowed"], QUOTA, "{evidence}");
    assert!(!tree_of(&fleet).join("sparse").exists());
}
