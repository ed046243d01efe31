//! The marker of a tree, as an agent reads it at a real rsync daemon and in its own tree.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy knows only functions marked #[test]"
)]

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use mirror_proto::v1;
use mirror_proto::v1::evidence::Kind;
use mirror_proto::v1::outcome::Class;
use support::eventually;
use support::site::Site;
use support::upstream::tree_of;

fn trace() -> v1::Marker {
    v1::Marker {
        kind: v1::marker::Kind::DebianTrace.into(),
        path: "project/trace/ftp.example.net".to_owned(),
    }
}

/// 21 November 2026 at that hour, as `date` and as the wire has it.
fn at(hour: i64) -> (String, prost_types::Timestamp) {
    let time = prost_types::Timestamp { seconds: 1_795_219_200 + hour * 3_600, nanos: 0 };
    (format!("Sat Nov 21 {hour:02}:00:00 UTC 2026\n"), time)
}

/// The file's own time is another one each time: rsync would take two of one second and one size for the same.
fn mark(tree: &Path, hour: i64) {
    fs::create_dir_all(tree.join("project/trace")).unwrap();
    let path = tree.join("project/trace/ftp.example.net");
    let (content, time) = at(hour);
    fs::write(&path, content).unwrap();
    let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(time.seconds).unwrap());
    fs::File::options().write(true).open(path).unwrap().set_modified(changed).unwrap();
}

fn seen(outcome: &v1::Outcome) -> v1::MarkerSeen {
    outcome.marker.clone().unwrap()
}

#[tokio::test]
async fn the_marker_is_read_at_the_upstream_and_in_the_tree() {
    let mut site = Site::start().await;
    mark(&site.upstream.tree(), 10);
    let first = v1::Assignment { marker: Some(trace()), ..site.next() };
    let outcome = site.run(first).await;
    assert_eq!(outcome.class(), Class::Ok, "{outcome:?}");
    let marker = seen(&outcome);
    assert_eq!((marker.upstream_time, marker.tree_time), (Some(at(10).1), Some(at(10).1)), "{marker:?}");
    assert!(marker.note.is_empty() && marker.marker == Some(trace()), "{marker:?}");

    // By the file's own time nothing is fetched.
    let mtime = v1::Marker { kind: v1::marker::Kind::Mtime.into(), ..trace() };
    let again = v1::Assignment { marker: Some(mtime), ..site.next() };
    let marker = seen(&site.run(again).await);
    assert!(marker.upstream_time.is_some() && marker.upstream_time == marker.tree_time, "{marker:?}");
}

#[tokio::test]
async fn an_older_upstream_changes_nothing() {
    let mut site = Site::start().await;
    mark(&site.upstream.tree(), 10);
    let first = v1::Assignment { marker: Some(trace()), ..site.next() };
    assert_eq!(site.run(first).await.class(), Class::Ok);
    let before = tree_of(&site.tree());
    fs::remove_file(site.upstream.tree().join("Release")).unwrap();
    mark(&site.upstream.tree(), 8);
    // The agent knows its own tree; the coordinator need not say.
    let older = v1::Assignment { marker: Some(trace()), ..site.next() };
    let outcome = site.run(older).await;
    assert_eq!(outcome.class(), Class::UpstreamBehind, "{outcome:?}");
    let evidence = outcome.evidence.clone().unwrap();
    assert_eq!((evidence.kind(), evidence.wanted), (Kind::UpstreamBehind, 7_200));
    assert!(outcome.cause.ends_with("2026-11-21 10:00:00 UTC: 2 h older"), "{}", outcome.cause);
    assert_eq!((seen(&outcome).upstream_time, seen(&outcome).tree_time), (Some(at(8).1), None));
    assert!(outcome.stats.is_none(), "nothing was pulled");
    assert_eq!(tree_of(&site.tree()), before);

    // And what it is told of what is served counts where its own tree is older.
    mark(&site.upstream.tree(), 11);
    let told = v1::Assignment { marker: Some(trace()), marker_not_before: Some(at(12).1), ..site.next() };
    assert_eq!(site.run(told).await.class(), Class::UpstreamBehind);
    let waived = v1::Assignment {
        marker: Some(trace()),
        marker_not_before: Some(at(12).1),
        waived: vec![Kind::UpstreamBehind.into()],
        ..site.next()
    };
    let outcome = site.run(waived).await;
    assert_eq!((outcome.class(), seen(&outcome).tree_time), (Class::Ok, Some(at(11).1)));
    assert!(site.same());
}

#[tokio::test]
async fn a_marker_that_tells_nothing_is_told_and_ends_only_who_stands_in() {
    let mut site = Site::start().await;
    mark(&site.upstream.tree(), 10);
    let first = v1::Assignment { marker: Some(trace()), ..site.next() };
    assert_eq!(site.run(first).await.class(), Class::Ok);
    let path = site.upstream.tree().join("project/trace/ftp.example.net");
    type Make = fn(&Path);
    let hostile: [(&str, Make); 6] = [
        ("at most 1 MiB", |path| fs::File::create(path).unwrap().set_len(1 << 30).unwrap()),
        ("at most 1 MiB", |path| std::os::unix::fs::symlink("/etc/passwd", path).unwrap()),
        ("at most 1 MiB", |path| fs::create_dir(path).unwrap()),
        ("at most 1 MiB", |_| {}),
        ("Date:", |path| fs::write(path, [0xff, 0, b'\n', 0x1b].repeat(5_000)).unwrap()),
        ("more than a day ahead", |path| fs::write(path, "Thu Jan  1 00:00:00 UTC 2099\n").unwrap()),
    ];
    for (why, make) in hostile {
        if path.is_dir() {
            fs::remove_dir(&path).unwrap()
        } else {
            _ = fs::remove_file(&path)
        }
        make(&path);
        let before = tree_of(&site.tree());
        let stands_in = v1::Assignment { marker: Some(trace()), marker_required: true, ..site.next() };
        let outcome = site.run(stands_in).await;
        assert_eq!(outcome.class(), Class::UpstreamBehind, "{why}: {outcome:?}");
        assert!(outcome.cause.contains(why), "{why}: {}", outcome.cause);
        assert_eq!(tree_of(&site.tree()), before);
        assert!(seen(&outcome).note.contains(why) && seen(&outcome).upstream_time.is_none(), "{outcome:?}");
    }
    let preferred = v1::Assignment { marker: Some(trace()), ..site.next() };
    let outcome = site.run(preferred).await;
    assert_eq!((outcome.class(), seen(&outcome).tree_time), (Class::Ok, None));
    assert!(site.same() && seen(&outcome).note.contains("tree: "), "{outcome:?}");
}

#[tokio::test]
async fn an_agent_that_is_killed_still_knows_what_it_saw() {
    let mut site = Site::start().await;
    mark(&site.upstream.tree(), 10);
    site.upstream.close_behind(1);
    let first = v1::Assignment { marker: Some(trace()), ..site.next() };
    site.begin(&first).await;
    eventually("the pull", || site.upstream.connections() == 2).await;
    site.restart().await;
    site.upstream.open();
    let outcome = site.end().await.outcome.unwrap();
    assert_eq!((outcome.class(), seen(&outcome).upstream_time), (Class::Ok, Some(at(10).1)), "{outcome:?}");
}
