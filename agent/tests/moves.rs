//! Moves of trees and public links: the agent's program with a real rsync, and a coordinator that says what a test wants.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy knows only functions marked #[test]"
)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use mirror_proto::v1;
use mirror_proto::v1::open_session_response::Message as ToAgent;
use mirror_proto::v1::outcome::Class;
use mirror_proto::v1::refused::Reason;
use rustix::fs::FlockOperation;
use support::coordinator::Session;
use support::upstream::{Upstream, tree_of};
use support::{Coordinator, Host, assignment, eventually, key};

/// An agent with two volumes and a directory of public names, its session, and an upstream of 41 files.
struct Site {
    coordinator: Coordinator,
    host: Host,
    upstream: Upstream,
    session: Session,
    runs: u128,
}

impl Site {
    async fn start() -> Self {
        let mut coordinator = Coordinator::start().await;
        let mut host = Host::enrolled(&coordinator, &["127.0.0.0/8"]).await;
        for name in ["a2", "pub"] {
            let path = host.dir.path().join(name);
            fs::create_dir(&path).unwrap();
            configure(&host, "[roots]\n", &format!("[roots]\n{name} = \"{}\"\n", path.display()));
        }
        host.start();
        let session = coordinator.welcomed().await;
        Self { coordinator, host, upstream: Upstream::start(), session, runs: 0 }
    }

    /// With the tree at a1:debian and the public link to it.
    async fn copied() -> Self {
        let mut site = Self::start().await;
        let pull = site.pull();
        assert_eq!(site.run(pull).await.class(), Class::Ok);
        assert_eq!(site.link(), Path::new("../root/debian"));
        site
    }

    fn next(&mut self, uri: &str) -> v1::Assignment {
        self.runs += 1;
        let counter = u64::try_from(self.runs).unwrap();
        v1::Assignment { link: "pub:debian".into(), ..assignment(self.runs, counter, uri) }
    }

    fn pull(&mut self) -> v1::Assignment {
        let uri = self.upstream.uri("m");
        self.next(&uri)
    }

    fn moves(&mut self) -> v1::Assignment {
        v1::Assignment {
            destination: "a2:mirror/debian".into(),
            move_from: "a1:debian".into(),
            keep_extra: true,
            max_delete: 0,
            first_sync: true,
            known_files: 41,
            ..self.next("")
        }
    }

    async fn begin(&mut self, assignment: &v1::Assignment) {
        self.session.assign(assignment).await;
        self.session.answer().await.unwrap();
    }

    async fn refused(&mut self, assignment: &v1::Assignment) -> String {
        self.session.assign(assignment).await;
        let refused = self.session.answer().await.unwrap_err();
        assert_eq!(refused.reason(), Reason::NotAllowed, "{refused:?}");
        refused.detail
    }

    async fn run(&mut self, assignment: v1::Assignment) -> v1::Outcome {
        self.begin(&assignment).await;
        self.end().await
    }

    async fn end(&mut self) -> v1::Outcome {
        let ended = self.session.ended().await;
        self.session.acknowledge(ended.key.clone().unwrap()).await;
        ended.outcome.unwrap()
    }

    /// The project's lock on the root of the old place: no move begins while it is held.
    async fn hold_old(&self) -> fs::File {
        let lock = fs::File::options().write(true).open(self.host.root().join(".mirror/locks/7")).unwrap();
        let take = || rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        eventually("the last program has let go of the old place", take).await;
        lock
    }

    fn old(&self) -> PathBuf {
        self.host.root().join("debian")
    }

    fn new_place(&self) -> PathBuf {
        self.host.dir.path().join("a2/mirror/debian")
    }

    fn public(&self) -> PathBuf {
        self.host.dir.path().join("pub/debian")
    }

    fn link(&self) -> PathBuf {
        fs::read_link(self.public()).unwrap()
    }

    fn check_moved(&self) {
        assert_eq!(self.link(), Path::new("../a2/mirror/debian"));
        assert_eq!(tree_of(&self.new_place()), tree_of(&self.old()));
    }

    fn check_not_moved(&self) {
        assert_eq!(self.link(), Path::new("../root/debian"));
        assert_eq!(tree_of(&self.old()), tree_of(&self.upstream.tree()));
    }
}

fn configure(host: &Host, old: &str, new: &str) {
    let file = host.data().join("agent.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(old), "{text}");
    fs::write(file, text.replacen(old, new, 1)).unwrap();
}

#[tokio::test]
async fn a_tree_moves_verbatim_inside_its_jail_and_the_old_one_stays() {
    let mut site = Site::copied().await;
    // What a mirror may hold beside plain files.
    let old = site.old();
    fs::hard_link(old.join("Release"), old.join("Release.again")).unwrap();
    symlink("pool/main", old.join("here")).unwrap();
    symlink("/nowhere/at/all", old.join("outside")).unwrap();
    fs::create_dir(old.join(".rsync-partial")).unwrap();
    fs::write(old.join(".rsync-partial/half"), "half a file").unwrap();
    let before = fs::metadata(old.join("pool")).unwrap().mtime();

    let order = site.moves();
    let outcome = site.run(order).await;
    assert_eq!(outcome.class(), Class::Ok, "{outcome:?}");
    assert!(outcome.stats.unwrap().transferred >= 41, "{outcome:?}");
    assert_eq!(site.link(), Path::new("../a2/mirror/debian"));
    let new = site.new_place();
    assert!(!new.join(".rsync-partial").exists(), "what a pull left is no part of the tree");
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&new.join("Release")), inode(&new.join("Release.again")));
    assert_eq!(fs::read_link(new.join("outside")).unwrap(), Path::new("/nowhere/at/all"));
    assert_eq!(fs::read_link(new.join("here")).unwrap(), Path::new("pool/main"));
    assert_eq!(fs::metadata(new.join("pool")).unwrap().mtime(), before);
    fs::remove_dir_all(old.join(".rsync-partial")).unwrap();
    for link in ["here", "outside"] {
        fs::remove_file(old.join(link)).unwrap();
        fs::remove_file(new.join(link)).unwrap();
    }
    site.check_moved();
    // An ordinary pull goes on there, and keeps the link.
    let pull = v1::Assignment { destination: "a2:mirror/debian".into(), ..site.pull() };
    assert_eq!(site.run(pull).await.class(), Class::Ok);
    assert_eq!(site.link(), Path::new("../a2/mirror/debian"));
}

#[tokio::test]
async fn a_directory_shared_with_a_foreign_group_moves_with_its_mode() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root, who alone gives files away");
        return;
    }
    let mut site = Site::copied().await;
    let (group, mode) = (12_345, 0o2775);
    chown(site.old().join("pool"), None, Some(group)).unwrap();
    fs::set_permissions(site.old().join("pool"), PermissionsExt::from_mode(mode)).unwrap();
    let order = site.moves();
    let outcome = site.run(order).await;
    assert_eq!(outcome.class(), Class::Ok, "{outcome:?}");
    let moved = fs::metadata(site.new_place().join("pool")).unwrap();
    assert_eq!((moved.gid(), moved.mode() & 0o7777), (group, mode));
    site.check_moved();
}

#[tokio::test]
async fn what_is_in_the_way_is_told_at_once_and_left_alone() {
    let mut site = Site::copied().await;
    fs::create_dir_all(site.new_place()).unwrap();
    fs::write(site.new_place().join("own"), "somebody's").unwrap();
    let gone = v1::Assignment { move_from: "a1:gone".into(), link: "pub:taken".into(), ..site.moves() };
    fs::create_dir(site.host.dir.path().join("pub/taken")).unwrap();
    let detail = site.refused(&gone).await;
    for fault in
        ["there is no tree at a1:gone", "a2:mirror/debian is not empty", "is a directory, and not this"]
    {
        assert!(detail.contains(fault), "{fault}: {detail}");
    }
    for (bad, fault) in [
        (v1::Assignment { move_from: "a9:debian".into(), ..site.moves() }, "no root \"a9\""),
        (v1::Assignment { destination: "a1:debian/new".into(), ..site.moves() }, "inside or around"),
        (v1::Assignment { source_uri: site.upstream.uri("m"), ..site.moves() }, "not pulled as well"),
        (v1::Assignment { link: "a2:mirror".into(), ..site.moves() }, "inside, around or at the tree"),
    ] {
        let detail = site.refused(&bad).await;
        assert!(detail.contains(fault), "{fault}: {detail}");
    }
    assert_eq!(fs::read_to_string(site.new_place().join("own")).unwrap(), "somebody's");
    site.check_not_moved();
    // Nor is a foreign name taken by a pull.
    let pull = v1::Assignment { link: "pub:taken".into(), ..site.pull() };
    assert!(site.refused(&pull).await.contains("is a directory, and not this project's public link"));
}

#[tokio::test]
async fn a_move_that_was_broken_off_goes_on_from_what_it_made() {
    let mut site = Site::copied().await;
    // As a move leaves it that ended in the middle: some of the tree, and something that is in it no more.
    let new = site.new_place();
    fs::create_dir_all(new.join("pool")).unwrap();
    fs::write(new.join("pool/gone"), "was there when the first move began").unwrap();
    fs::copy(site.old().join("Release"), new.join("Release")).unwrap();
    let moving = site.host.dir.path().join("a2/.mirror/moving");
    fs::create_dir_all(&moving).unwrap();
    fs::write(moving.join("7"), "mirror/debian").unwrap();
    let order = site.moves();
    assert_eq!(site.run(order).await.class(), Class::Ok);
    site.check_moved();
    assert!(!moving.join("7").exists(), "it is the tree now");
}

#[tokio::test]
async fn a_file_that_looks_alike_is_found_and_mended() {
    let mut site = Site::copied().await;
    // Of the same size and age, and not the same: what a power cut may leave of an earlier move.
    let (old, new) = (site.old(), site.new_place());
    fs::create_dir_all(&new).unwrap();
    let good = fs::read(old.join("Release")).unwrap();
    fs::write(new.join("Release"), vec![0; good.len()]).unwrap();
    let times = fs::metadata(old.join("Release")).unwrap().modified().unwrap();
    fs::File::options().write(true).open(new.join("Release")).unwrap().set_modified(times).unwrap();
    let moving = site.host.dir.path().join("a2/.mirror/moving");
    fs::create_dir_all(&moving).unwrap();
    fs::write(moving.join("7"), "mirror/debian").unwrap();
    let order = site.moves();
    assert_eq!(site.run(order).await.class(), Class::Ok);
    assert_eq!(fs::read(new.join("Release")).unwrap(), good);
    site.check_moved();
}

#[tokio::test]
async fn a_foreign_link_is_told_before_anything_is_begun() {
    let mut site = Site::copied().await;
    fs::remove_file(site.public()).unwrap();
    symlink("elsewhere", site.public()).unwrap();
    let order = site.moves();
    let detail = site.refused(&order).await;
    assert!(detail.contains("a symbolic link to elsewhere"), "{detail}");
    assert_eq!(site.link(), Path::new("elsewhere"));
    assert!(!site.new_place().exists(), "nothing was begun");
}

#[tokio::test]
async fn a_link_that_becomes_foreign_ends_the_move_and_the_old_tree_stays() {
    let mut site = Site::copied().await;
    // Somebody puts his own link there after the move was taken: it cannot begin before the old place is let go.
    let held = site.hold_old().await;
    let order = site.moves();
    site.begin(&order).await;
    fs::remove_file(site.public()).unwrap();
    symlink("elsewhere", site.public()).unwrap();
    drop(held);
    let outcome = site.end().await;
    assert_eq!(outcome.class(), Class::RejectedByAgent, "{outcome:?}");
    assert!(outcome.cause.contains("a symbolic link to elsewhere"), "{outcome:?}");
    assert!(outcome.cause.contains("the old tree is still at a1:debian"), "{outcome:?}");
    assert!(outcome.advice.contains("move the tree again"), "{outcome:?}");
    assert_eq!(site.link(), Path::new("elsewhere"));
    assert_eq!(tree_of(&site.new_place()), tree_of(&site.old()));
    // As it advises.
    fs::remove_file(site.public()).unwrap();
    let order = site.moves();
    assert_eq!(site.run(order).await.class(), Class::Ok);
    site.check_moved();
}

#[tokio::test]
async fn a_tree_whose_readers_have_moved_has_moved_whatever_can_be_noted() {
    let mut site = Site::copied().await;
    // In the way of the note, and of nothing before the link is there.
    let begun = site.host.dir.path().join("a2/.mirror/begun/7");
    fs::create_dir_all(&begun).unwrap();
    // Without a link nobody is there yet: then it has not moved.
    let order = v1::Assignment { link: String::new(), ..site.moves() };
    assert_eq!(site.run(order).await.class(), Class::LocalIo);
    site.check_not_moved();
    let order = site.moves();
    let outcome = site.run(order).await;
    assert_eq!(outcome.class(), Class::Ok, "{outcome:?}");
    site.check_moved();
    assert!(site.host.said().contains("the tree has moved, and that cannot be noted"));
    // The next pull notes it, and that no move goes on from there.
    fs::remove_dir(&begun).unwrap();
    let pull = v1::Assignment { destination: "a2:mirror/debian".into(), ..site.pull() };
    assert_eq!(site.run(pull).await.class(), Class::Ok);
    assert_eq!(fs::read_to_string(&begun).unwrap(), "mirror/debian");
    assert!(!site.host.dir.path().join("a2/.mirror/moving/7").exists());
}

#[tokio::test]
async fn a_killed_agent_ends_what_it_had_begun() {
    let mut site = Site::copied().await;
    for number in 0..400 {
        fs::write(site.old().join(format!("pool/more-{number}")), vec![7; 64 << 10]).unwrap();
    }
    let order = site.moves();
    site.begin(&order).await;
    eventually("a program of the move is there", || !site.host.runs().is_empty()).await;
    site.host.kill();
    site.host.start();
    site.session = site.coordinator.session().await;
    let held = site.session.hello.attempts.clone();
    assert!(held.len() == 1 && held[0].keep_extra && held[0].destination == "a2:mirror/debian", "{held:?}");
    site.session.welcome(5).await;
    if !held[0].ended {
        let key = Some(key(site.runs, u64::try_from(site.runs).unwrap()));
        site.session.send(ToAgent::Continue(v1::Continue { key, secrets: None })).await;
    }
    let ended = site.session.ended().await;
    assert_eq!(ended.outcome.unwrap().class(), Class::Ok, "{}", ended.log_tail.len());
    site.check_moved();
}
