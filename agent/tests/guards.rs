//! The guards and modes of an attempt: the agent's program with a real rsync daemon, and a coordinator that says what
//! a test wants.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy knows only functions marked #[test]"
)]

mod support;

use std::fs;
use std::path::Path;

use mirror_proto::v1;
use mirror_proto::v1::evidence::Kind;
use mirror_proto::v1::open_session_response::Message as ToAgent;
use mirror_proto::v1::outcome::Class;
use support::site::Site;
use support::upstream::{Upstream, tree_of};
use support::{Coordinator, Host, assignment, eventually};

fn held(outcome: &v1::Outcome) -> (Kind, &v1::Evidence) {
    assert_eq!(outcome.class(), Class::Guard, "{outcome:?}");
    let evidence = outcome.evidence.as_ref().unwrap();
    assert_eq!(outcome.cause, evidence.sentence);
    (evidence.kind(), evidence)
}

fn empty(dir: &Path) {
    fs::remove_dir_all(dir).unwrap();
    fs::create_dir(dir).unwrap();
}

#[tokio::test]
async fn an_emptied_upstream_empties_no_tree() {
    let mut site = Site::copied().await;
    assert_eq!(site.upstream.connections(), 1, "nothing to protect, no probe");
    let before = tree_of(&site.tree());
    empty(&site.upstream.tree());
    let again = site.next();
    let outcome = site.run(again).await;
    assert_eq!(held(&outcome).0, Kind::EmptyUpstream);
    assert_eq!(tree_of(&site.tree()), before);
    assert_eq!(site.upstream.connections(), 2, "the probe alone");

    let waived = v1::Assignment { waived: vec![Kind::EmptyUpstream.into()], ..site.next() };
    assert_eq!(site.run(waived).await.class(), Class::Ok);
    assert!(tree_of(&site.tree()).is_empty(), "somebody wanted it");
}

#[tokio::test]
async fn sentinels_must_be_there_before_anything_is_copied() {
    let mut site = Site::start().await;
    let sentinels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let sought = v1::Assignment {
        sentinels: sentinels(&["Release", "pool/main/package-7.deb", "pool/none/x", "InRelease"]),
        ..site.next()
    };
    let outcome = site.run(sought.clone()).await;
    let (kind, evidence) = held(&outcome);
    assert_eq!((kind, evidence.wanted, evidence.allowed), (Kind::SentinelMissing, 2, 0));
    assert_eq!(evidence.names, ["pool/none/x", "InRelease"]);
    assert!(!site.tree().exists(), "nothing was begun");

    let found =
        v1::Assignment { sentinels: sentinels(&["Release", "pool/main/package-7.deb"]), ..site.next() };
    assert_eq!(site.run(found).await.class(), Class::Ok);
    let waived = v1::Assignment {
        waived: vec![Kind::SentinelMissing.into()],
        sentinels: sought.sentinels,
        ..site.next()
    };
    assert_eq!(site.run(waived).await.class(), Class::Ok);
}

#[tokio::test]
async fn a_probe_that_fails_is_how_the_attempt_ends() {
    let mut site = Site::copied().await;
    for (module, class) in
        [("nonesuch", Class::NotFound), ("secret", Class::Auth), ("m/none", Class::NotFound)]
    {
        let bad = v1::Assignment { source_uri: site.upstream.uri(module), ..site.next() };
        assert_eq!(site.run(bad).await.class(), class, "{module}");
    }
    assert!(site.same());
}

#[tokio::test]
async fn a_strange_tree_is_held_until_somebody_waives_it() {
    let mut site = Site::start().await;
    fs::create_dir_all(site.tree().join("old")).unwrap();
    fs::write(site.tree().join("old/stranger"), "x").unwrap();
    fs::write(site.tree().join("Release"), "another").unwrap();
    let before = tree_of(&site.tree());
    let first = v1::Assignment { first_sync: true, ..site.next() };
    let outcome = site.run(first).await;
    let (kind, evidence) = held(&outcome);
    assert_eq!((kind, evidence.wanted, evidence.allowed), (Kind::Adoption, 2, 0));
    assert_eq!(evidence.names, ["old/stranger", "old/", "Release"]);
    assert!(evidence.sentence.contains("delete 2 of "), "{}", evidence.sentence);
    assert_eq!(tree_of(&site.tree()), before);

    let waived = v1::Assignment { first_sync: true, waived: vec![Kind::Adoption.into()], ..site.next() };
    assert_eq!(site.run(waived).await.class(), Class::Ok);
    assert!(site.same());
    // It is the fleet's from now on, whatever lies in it.
    fs::write(site.tree().join("stranger"), "x").unwrap();
    let again = v1::Assignment { first_sync: true, ..site.next() };
    assert_eq!(site.run(again).await.class(), Class::Ok);
    assert!(site.same());
}

#[tokio::test]
async fn a_copy_by_other_means_is_adopted() {
    let mut site = Site::start().await;
    let from = format!("{}/", site.upstream.tree().display());
    #[allow(clippy::disallowed_methods, reason = "the copy by other means")]
    let mut copy = std::process::Command::new("/usr/bin/rsync");
    copy.args(["--archive", &from]).arg(site.tree());
    assert!(support::output(copy).await.status.success());
    fs::write(site.upstream.tree().join("new"), vec![b'n'; 500_000]).unwrap();
    let first = v1::Assignment { first_sync: true, ..site.next() };
    site.begin(&first).await;
    let ended = site.end().await;
    assert_eq!(ended.outcome.unwrap().class(), Class::Ok);
    let log = String::from_utf8(ended.log_tail).unwrap();
    assert!(log.contains("would delete 0 of 44 entries and fetch 0 B of "), "{log}");
    assert!(site.same());
    assert_eq!(site.upstream.connections(), 3, "probe, dry run, pull");
}

#[tokio::test]
async fn a_dry_run_tells_and_changes_nothing() {
    let mut site = Site::start().await;
    let dry = v1::Assignment { dry_run: true, first_sync: true, ..site.next() };
    let outcome = site.run(dry).await;
    let evidence = outcome.evidence.unwrap();
    assert_eq!((outcome.class, evidence.kind(), evidence.wanted), (Class::Ok.into(), Kind::Deletes, 0));
    assert!(
        evidence.sentence.starts_with("would transfer 41 files (195 KiB), delete 0"),
        "{}",
        evidence.sentence
    );
    assert!(!site.tree().exists());

    let first = site.next();
    assert_eq!(site.run(first).await.class(), Class::Ok);
    for n in 0..30 {
        fs::write(site.tree().join(format!("old-{n}")), "x").unwrap();
    }
    let before = tree_of(&site.host.root());
    let dry = v1::Assignment { dry_run: true, max_delete: 7, ..site.next() };
    let outcome = site.run(dry).await;
    let evidence = outcome.evidence.unwrap();
    assert_eq!((outcome.class, evidence.wanted, evidence.allowed), (Class::Ok.into(), 30, 7));
    assert_eq!(evidence.names.len(), 20);
    assert_eq!(outcome.stats.unwrap().deleted, 30);
    assert_eq!(tree_of(&site.host.root()), before);
}

#[tokio::test]
async fn too_many_deletions_are_told_with_names() {
    let mut site = Site::copied().await;
    for n in 0..5 {
        fs::write(site.tree().join(format!("old-{n}")), "x").unwrap();
    }
    let limited = v1::Assignment { max_delete: 2, ..site.next() };
    let outcome = site.run(limited).await;
    assert_eq!((outcome.class(), outcome.exit_code), (Class::MaxDelete, Some(25)));
    let evidence = outcome.evidence.unwrap();
    assert_eq!((evidence.kind(), evidence.wanted, evidence.allowed), (Kind::Deletes, 5, 2));
    // Those that are still to go.
    assert!(evidence.names.len() == 3 && evidence.names.iter().all(|name| name.starts_with("old-")));
}

#[tokio::test]
async fn reclaiming_removes_first_and_copies_then() {
    let mut site = Site::copied().await;
    fs::write(site.tree().join("old"), "x").unwrap();
    fs::write(site.upstream.tree().join("new"), "n").unwrap();
    let limited = v1::Assignment { reclaim: true, max_delete: 0, ..site.next() };
    let outcome = site.run(limited).await;
    assert_eq!((outcome.class(), outcome.evidence.unwrap().wanted), (Class::MaxDelete, 1));
    assert!(!site.tree().join("new").exists(), "nothing was copied");

    let reclaim = v1::Assignment { reclaim: true, ..site.next() };
    site.begin(&reclaim).await;
    let ended = site.end().await;
    assert_eq!(ended.outcome.unwrap().class(), Class::Ok);
    let log = String::from_utf8(ended.log_tail).unwrap();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("no {text:?} in {log}"));
    assert!(at("deleted               - old") < at("reclaim: removed 1 entries"), "{log}");
    assert!(at("reclaim: removed 1 entries") < at("received              1 new"), "{log}");
    assert!(site.same());
}

#[tokio::test]
async fn a_tree_above_its_quota_is_stopped_or_told() {
    let mut site = Site::start().await;
    fs::write(site.upstream.tree().join("large"), vec![b'l'; 6_000_000]).unwrap();
    let slow = v1::Assignment { quota_bytes: 1_000_000, bandwidth_limit_kib: 1_000, ..site.next() };
    let outcome = site.run(slow).await;
    let (kind, evidence) = held(&outcome);
    assert_eq!((kind, evidence.allowed), (Kind::Quota, 1_000_000));
    assert!(outcome.exit_code != Some(0) && evidence.wanted < 6_000_000, "it was ended: {outcome:?}");

    fs::remove_file(site.upstream.tree().join("large")).unwrap();
    let small = v1::Assignment { quota_bytes: 100_000, ..site.next() };
    let outcome = site.run(small).await;
    let (kind, evidence) = held(&outcome);
    assert_eq!((kind, evidence.allowed), (Kind::Quota, 100_000));
    let waived = v1::Assignment { quota_bytes: 100, waived: vec![Kind::Quota.into()], ..site.next() };
    assert_eq!(site.run(waived).await.class(), Class::Ok);
}

#[tokio::test]
async fn an_upstream_of_one_connection_serves_probe_and_pull() {
    let mut site = Site::copied().await;
    for n in 1..=5 {
        fs::write(site.upstream.tree().join("Release"), "x".repeat(n)).unwrap();
        let one = v1::Assignment { source_uri: site.upstream.uri("one"), ..site.next() };
        let outcome = site.run(one).await;
        assert_eq!(outcome.class(), Class::Ok, "{}", outcome.cause);
    }
    assert!(site.same());
}

#[tokio::test]
async fn a_killed_agent_goes_on_with_a_probe_that_runs_or_has_ended() {
    let mut site = Site::copied().await;
    for ends_meanwhile in [false, true] {
        fs::write(site.upstream.tree().join("Release"), format!("ends meanwhile: {ends_meanwhile}")).unwrap();
        let before = site.upstream.connections();
        site.upstream.close();
        let next = site.next();
        site.begin(&next).await;
        eventually("the probe runs", || site.upstream.connections() == before + 1).await;
        site.host.kill();
        let run = site.host.runs().remove(0);
        assert_eq!(run.file_name().unwrap(), "probe-1");
        if ends_meanwhile {
            site.upstream.open();
            eventually("the probe has ended", || run.join("exit.json").exists()).await;
        }
        site.host.start();
        site.session = site.coordinator.welcomed().await;
        site.upstream.open();
        assert_eq!(site.end().await.outcome.unwrap().class(), Class::Ok);
        assert_eq!(site.upstream.connections(), before + 2, "one probe, one pull");
        assert!(site.same());
    }
}

#[tokio::test]
async fn what_has_begun_to_change_a_tree_is_not_preceded_by_a_probe_again() {
    let mut site = Site::copied().await;
    fs::write(site.upstream.tree().join("Release"), "another one").unwrap();
    site.upstream.close_behind(2);
    let next = site.next();
    site.begin(&next).await;
    eventually("the pull runs", || site.upstream.connections() == 3).await;
    site.restart().await;
    site.upstream.open();
    assert_eq!(site.end().await.outcome.unwrap().class(), Class::Ok);
    assert_eq!(site.upstream.connections(), 3);
    assert!(site.same());
}

#[tokio::test]
async fn a_killed_agent_goes_on_with_the_look_at_a_strange_tree() {
    let mut site = Site::start().await;
    fs::create_dir(site.tree()).unwrap();
    fs::write(site.tree().join("stranger"), "x").unwrap();
    for (round, victim) in (0..).zip(["agent", "supervisor"]) {
        // Two connections in a round: the probe, which is let in, and the dry run.
        site.upstream.close_behind(round * 2 + 1);
        let first = v1::Assignment { first_sync: true, ..site.next() };
        site.begin(&first).await;
        eventually("the dry run begins", || site.upstream.connections() == round * 2 + 2).await;
        if victim == "agent" {
            site.restart().await;
            site.upstream.open();
            assert_eq!(held(&site.end().await.outcome.unwrap()).0, Kind::Adoption);
        } else {
            for pid in site.host.supervisors() {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            assert_eq!(site.end().await.outcome.unwrap().class(), Class::Interrupted);
            site.upstream.open();
        }
        assert_eq!(site.upstream.connections(), round * 2 + 2);
        assert_eq!(tree_of(&site.tree()), [("stranger".to_owned(), b"x".to_vec())]);
    }
}

#[tokio::test]
async fn a_volume_that_runs_full_ends_what_writes_to_it() {
    let Some(volume) = Volume::mount() else {
        eprintln!("skipped: mounting a tmpfs is not permitted here");
        return;
    };
    let mut coordinator = Coordinator::start().await;
    let mut host = Host::new();
    let output = support::output({
        let mut command = host.enroll_command(&coordinator);
        command
            .args(["--allow-upstream", "127.0.0.0/8"])
            .arg("--root")
            .arg(format!("a2={}", volume.0.path().display()));
        command
    })
    .await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let upstream = Upstream::start();
    fs::write(upstream.tree().join("large"), vec![b'l'; 20_000_000]).unwrap();
    host.start();
    let mut session = coordinator.welcomed().await;
    let slow = v1::Assignment {
        destination: "a2:debian".into(),
        bandwidth_limit_kib: 100,
        ..assignment(1, 1, &upstream.uri("m"))
    };
    session.assign(&slow).await;
    session.answer().await.unwrap();
    let tree = volume.0.path().join("debian");
    eventually("rsync writes", || fs::read_dir(&tree).is_ok_and(|entries| entries.count() > 0)).await;
    // What is left is below the floor, and far more than rsync takes until that is seen.
    fs::write(volume.0.path().join("of-others"), vec![0; 256 * 1024 * 1024 - 1_000_000]).unwrap();
    let outcome = session.ended().await.outcome.unwrap();
    assert_eq!(outcome.class(), Class::DiskFull, "{outcome:?}");
    assert!(
        outcome.exit_code != Some(11) && outcome.cause.contains("below the floor"),
        "it was ended: {outcome:?}"
    );
    session.acknowledge(support::key(1, 1)).await;

    // Nothing starts there but what makes room, and that tells what it freed.
    let next =
        v1::Assignment { destination: slow.destination.clone(), ..assignment(2, 2, &upstream.uri("m")) };
    session.assign(&next).await;
    session.answer().await.unwrap();
    let refused = session.ended().await.outcome.unwrap();
    assert!(refused.class() == Class::DiskFull && refused.cause.contains("below the floor"), "{refused:?}");
    fs::write(tree.join("old"), vec![0; 1_000]).unwrap();
    session.acknowledge(support::key(2, 2)).await;
    let reclaim = v1::Assignment { key: Some(support::key(3, 3)), reclaim: true, ..next };
    session.assign(&reclaim).await;
    session.answer().await.unwrap();
    let told = session.ended().await.outcome.unwrap();
    assert!(told.class() == Class::DiskFull && told.cause.starts_with("removed "), "{told:?}");
    assert!(!tree.join("old").exists());
}

/// A volume of 256 MiB; needs the right to mount.
struct Volume(tempfile::TempDir);

impl Volume {
    #[allow(clippy::disallowed_methods, reason = "a test's own tool")]
    fn mount() -> Option<Self> {
        let point = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=256m,mode=755", "tmpfs"]).arg(point.path());
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(point))
    }
}

impl Drop for Volume {
    #[allow(clippy::disallowed_methods, reason = "a test's own tool")]
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).output();
    }
}

#[tokio::test]
async fn a_killed_agent_judges_a_guards_stop_alike() {
    let mut site = Site::copied().await;
    let tree = tree_of(&site.tree());
    empty(&site.upstream.tree());
    site.upstream.close();
    let next = site.next();
    site.begin(&next).await;
    eventually("the probe runs", || site.upstream.connections() == 2).await;
    site.restart().await;
    site.upstream.open();
    let outcome = site.end().await.outcome.unwrap();
    assert_eq!(held(&outcome).0, Kind::EmptyUpstream);
    assert_eq!(tree_of(&site.tree()), tree);
}

#[tokio::test]
async fn the_pull_behind_an_adopted_probe_waits_for_its_password() {
    let mut site = Site::copied().await;
    site.upstream.close();
    let secrets = || Some(v1::Secrets { password: "hunter2".into() });
    let next = v1::Assignment {
        source_uri: site.upstream.uri("secret"),
        user: "mirror".into(),
        secrets: secrets(),
        ..site.next()
    };
    site.begin(&next).await;
    eventually("the probe runs", || site.upstream.connections() == 2).await;
    site.restart().await;
    assert!(site.session.hello.attempts[0].needs_secrets, "the pull is still to come");
    site.upstream.open();
    site.session.send(ToAgent::Continue(v1::Continue { key: next.key.clone(), secrets: secrets() })).await;
    let outcome = site.end().await.outcome.unwrap();
    assert_eq!(outcome.class(), Class::Ok, "{}", outcome.cause);
    assert_eq!(site.upstream.connections(), 3);
}

#[tokio::test]
async fn a_dead_probe_is_an_interrupted_attempt_and_the_tree_stays() {
    let mut site = Site::copied().await;
    site.upstream.close();
    let next = site.next();
    site.begin(&next).await;
    eventually("the probe runs", || site.upstream.connections() == 2).await;
    for pid in site.host.supervisors() {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    assert_eq!(site.end().await.outcome.unwrap().class(), Class::Interrupted);
    site.upstream.open();
    assert!(site.same());
    let again = site.next();
    assert_eq!(site.run(again).await.class(), Class::Ok);
}
