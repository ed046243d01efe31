//! The trash: the agent's program with a real tree on a real disk, and a coordinator that says what a test wants.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy knows only functions marked #[test]"
)]

mod support;

use std::fs;
use std::path::PathBuf;

use mirror_proto::v1;
use mirror_proto::v1::open_session_request::Message as FromAgent;
use mirror_proto::v1::open_session_response::Message as ToAgent;
use mirror_proto::v1::outcome::Class;
use rustix::fs::FlockOperation;
use support::coordinator::Session;
use support::upstream::Upstream;
use support::{Coordinator, Host, assignment, eventually};

/// An agent with the tree of project 7 at a1:debian, which was pulled from an upstream.
struct Site {
    coordinator: Coordinator,
    host: Host,
    session: Session,
    _upstream: Upstream,
}

impl Site {
    async fn synced(allow_trash: bool) -> Self {
        let mut coordinator = Coordinator::start().await;
        let mut host = Host::enrolled(&coordinator, &["127.0.0.0/8"]).await;
        if allow_trash {
            allow(&host);
        }
        host.start();
        let mut session = coordinator.welcomed().await;
        let upstream = Upstream::start();
        session.assign(&assignment(1, 1, &upstream.uri("m"))).await;
        session.answer().await.unwrap();
        let ended = session.ended().await;
        assert_eq!(ended.outcome.unwrap().class(), Class::Ok);
        session.acknowledge(ended.key.unwrap()).await;
        Self { coordinator, host, session, _upstream: upstream }
    }

    fn tree(&self) -> PathBuf {
        self.host.root().join("debian")
    }

    /// What is in the trash.
    fn trash(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.host.root().join(".mirror-trash")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    async fn order(&self, order: &v1::TrashTree) {
        self.session.send(ToAgent::TrashTree(order.clone())).await;
    }

    async fn report(&mut self) -> v1::TrashReport {
        self.session
            .expect("a report of the trash", |message| match message {
                FromAgent::Trash(report) => Some(report),
                _ => None,
            })
            .await
    }

    async fn refused(&mut self, order: &v1::TrashTree) -> String {
        self.order(order).await;
        let report = self.report().await;
        assert_eq!((report.trees.len(), report.refused.len()), (0, 1), "{report:?}");
        assert_eq!(report.refused[0].project_uid, order.project_uid);
        report.refused[0].reason.clone()
    }

    /// Ends the agent without mercy, and lets it come back.
    async fn again(&mut self) {
        self.host.kill();
        self.host.start();
        self.session = self.coordinator.welcomed().await;
    }
}

fn allow(host: &Host) {
    let file = host.data().join("agent.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(file, format!("allow_trash = true\n{text}")).unwrap();
}

fn order() -> v1::TrashTree {
    v1::TrashTree {
        project_uid: 7,
        project: "debian".into(),
        destination: "a1:debian".into(),
        request_time: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 5_000_000 }),
    }
}

const NAME: &str = "debian-7-20270115T080000005Z";

#[tokio::test]
async fn a_tree_goes_to_the_trash_once_and_the_next_hello_tells_of_it() {
    let mut site = Site::synced(true).await;
    assert_eq!(site.session.hello.trash, Some(v1::TrashReport::default()));
    let files = fs::read_dir(site.tree()).unwrap().count();
    assert!(files > 0);
    site.order(&order()).await;
    let report = site.report().await;
    assert_eq!((report.trees.len(), report.refused.len()), (1, 0), "{report:?}");
    assert_eq!(report.trees[0].place, format!("a1:.mirror-trash/{NAME}"));
    assert_eq!(report.trees[0].request_time, order().request_time);
    assert!(!site.tree().exists());
    assert_eq!(site.trash(), [site.host.root().join(".mirror-trash").join(NAME)]);
    assert_eq!(fs::read_dir(&site.trash()[0]).unwrap().count(), files);

    // Said again, in this session and the next one, and with a tree of somebody else's at the place: done is done.
    fs::create_dir(site.tree()).unwrap();
    fs::write(site.tree().join("other"), "").unwrap();
    site.order(&order()).await;
    assert_eq!(site.report().await.trees, report.trees);
    site.again().await;
    let told = site.session.hello.trash.clone().unwrap();
    assert_eq!(told.trees[0].place, report.trees[0].place);
    site.order(&order()).await;
    assert_eq!(site.report().await.trees.len(), 1);
    assert!(site.tree().join("other").exists());

    // Another order is about a tree that the fleet never put there.
    let later = Some(prost_types::Timestamp { seconds: 1_800_000_001, nanos: 0 });
    site.order(&v1::TrashTree { request_time: later, ..order() }).await;
    let report = site.report().await;
    assert!(report.refused[0].reason.contains("never put a tree there"), "{report:?}");
    assert!(site.tree().join("other").exists());
}

#[tokio::test]
async fn the_agents_own_file_and_what_others_began_there_go_first() {
    let mut site = Site::synced(false).await;
    let why = site.refused(&order()).await;
    assert!(why.contains("allow_trash = true"), "{why}");
    assert!(site.tree().exists() && site.trash().is_empty());
    let nowhere = v1::TrashTree { destination: "zz:debian".into(), ..order() };
    assert!(site.refused(&nowhere).await.contains("no root"));
    allow(&site.host);
    site.host.hang_up();
    eventually("the file was read again", || site.host.said().contains("reloaded")).await;
    // A later project's note on the root: of a restored coordinator that has forgotten that project, too.
    let note = site.host.root().join(".mirror/begun/9");
    fs::write(&note, "debian").unwrap();
    let why = site.refused(&order()).await;
    assert!(why.contains("project 9 has begun a tree there since"), "{why}");
    fs::remove_file(note).unwrap();
    site.order(&order()).await;
    assert_eq!(site.report().await.trees.len(), 1);
}

/// An export of that place, all of the list.
fn serving(serial: u64, exports: &[(u64, &str)]) -> ToAgent {
    let export = |&(project_uid, destination): &(u64, &str)| v1::Export {
        project_uid,
        project: format!("p{project_uid}"),
        destination: destination.to_owned(),
        users: vec![v1::ExportUser { user: "r2-20000".into(), secret: "a secret of enough bytes".into() }],
    };
    let exports = exports.iter().map(export).collect();
    ToAgent::Exports(v1::Exports { serial, complete: true, exports, ..v1::Exports::default() })
}

#[tokio::test]
async fn a_tree_that_is_served_is_not_moved_whatever_the_coordinator_says() {
    let mut site = Site::synced(true).await;
    // Other projects first: nothing of theirs was ever begun by the fleet, as where people put the tree there.
    for at in ["a1:debian", "a1:debian/pool"] {
        site.session.send(serving(1, &[(9, at)])).await;
        let why = site.refused(&order()).await;
        assert!(why.contains("project 9 is served to replicas from there"), "{why}");
    }
    assert!(site.tree().exists() && site.trash().is_empty());
    // Its own export: it waits for the word that it is withdrawn, and another order shows that it was looked at.
    site.session.send(serving(2, &[(7, "a1:debian")])).await;
    site.order(&order()).await;
    let nowhere = v1::TrashTree { destination: "zz:debian".into(), ..order() };
    assert!(site.refused(&nowhere).await.contains("no root"));
    assert!(site.tree().exists() && site.trash().is_empty());
    site.session.send(serving(3, &[])).await;
    let report = site.report().await;
    assert_eq!((report.trees.len(), report.refused.len()), (1, 0), "{report:?}");
    assert!(!site.tree().exists());
}

#[tokio::test]
async fn an_order_waits_for_the_last_program_and_is_void_with_its_session() {
    let mut site = Site::synced(true).await;
    let lock = fs::File::options().write(true).open(site.host.root().join(".mirror/locks/7")).unwrap();
    let take = || rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
    eventually("the last program has let go of the tree", take).await;
    site.order(&order()).await;
    // Killed while it waits: whatever it had noted, it does nothing by itself.
    site.again().await;
    drop(lock);
    site.session.send(ToAgent::Ping(v1::Ping { id: 1 })).await;
    site.session.expect("a pong", |message| matches!(message, FromAgent::Pong(_)).then_some(())).await;
    assert!(site.tree().exists() && site.trash().is_empty());
    assert_eq!(site.session.hello.trash, Some(v1::TrashReport::default()));

    let lock = fs::File::options().write(true).open(site.host.root().join(".mirror/locks/7")).unwrap();
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    site.order(&order()).await;
    site.session.send(ToAgent::Ping(v1::Ping { id: 2 })).await;
    site.session.expect("a pong", |message| matches!(message, FromAgent::Pong(_)).then_some(())).await;
    assert!(site.tree().exists());
    drop(lock);
    assert_eq!(site.report().await.trees.len(), 1);
    assert!(!site.tree().exists());
}

#[tokio::test]
async fn a_crash_after_the_note_or_after_the_rename_leaves_what_the_same_order_ends() {
    let mut site = Site::synced(true).await;
    let (notes, note) =
        (site.host.root().join(".mirror/trash"), site.host.root().join(".mirror/trash").join(NAME));
    let noted = serde_json::json!({
        "project": 7, "name": "debian", "path": "debian", "asked_ms": 1_800_000_000_005_i64, "counted_s": 0
    });
    // After the note.
    fs::create_dir(notes).unwrap();
    fs::write(&note, noted.to_string()).unwrap();
    site.again().await;
    assert_eq!(site.session.hello.trash, Some(v1::TrashReport::default()));
    assert!(site.tree().exists());
    eventually("the note of nothing is forgotten", || !note.exists()).await;
    // After the rename.
    fs::create_dir(site.host.root().join(".mirror-trash")).unwrap();
    fs::rename(site.tree(), site.host.root().join(".mirror-trash").join(NAME)).unwrap();
    fs::write(&note, noted.to_string()).unwrap();
    site.again().await;
    assert_eq!(site.session.hello.trash.as_ref().unwrap().trees.len(), 1);
    site.order(&order()).await;
    let report = site.report().await;
    assert_eq!((report.trees.len(), report.refused.len()), (1, 0), "{report:?}");
    assert!(!site.host.root().join(".mirror/begun/7").exists(), "nothing there is the project's any more");
}
