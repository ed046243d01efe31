//! Which programs run, and what their ends mean: from output as rsync writes it.

use rsync::OutputParser;

use super::*;
use crate::key::tests::key;

const LISTED: &str = "drwxr-xr-x        4096 2026/11/22 00:29:05 .\n\
                      -rw-r--r--           2 2026/11/22 00:29:05 README\n";
const EMPTY: &str = "drwxr-xr-x        4096 2026/11/22 00:29:05 .\n";

fn assignment() -> v1::Assignment {
    v1::Assignment {
        key: Some(key(1, 1, 1).to_wire()),
        project_uid: 7,
        project: "debian".into(),
        role: v1::Role::Origin.into(),
        source_uri: "rsync://ftp.example.org/debian/".into(),
        destination: "a1:debian".into(),
        max_delete: 500,
        ..v1::Assignment::default()
    }
}

fn order(assignment: &v1::Assignment) -> Order {
    Order::read(key(1, 1, 1), assignment, false).unwrap()
}

fn waiving(kind: Kind, assignment: v1::Assignment) -> v1::Assignment {
    v1::Assignment { waived: vec![kind.into()], ..assignment }
}

fn ended(class: Class, findings: Findings, output: &str) -> Ended {
    let (mut parser, mut findings) = (OutputParser::new(), findings);
    parser.push(output.as_bytes(), |event| _ = findings.take(&event));
    let outcome = v1::Outcome { class: class.into(), exit_code: Some(0), ..v1::Outcome::default() };
    Ended { outcome, stats: *parser.stats(), findings, fetched: None }
}

fn stats(files: u64, created: u64, deleted: u64, size: u64, fetched: u64) -> String {
    format!(
        "Number of files: {files}\nNumber of created files: {created}\nNumber of deleted files: {deleted}\n\
         Total file size: {size} bytes\nTotal transferred file size: {fetched} bytes\n\
         Number of regular files transferred: 3\n"
    )
}

fn evidence_of(verdict: Verdict) -> Option<v1::Evidence> {
    match verdict {
        Verdict::GoOn(_) => None,
        Verdict::End(outcome) => {
            assert_eq!(outcome.class(), Class::Guard, "{outcome:?}");
            let evidence = outcome.evidence.expect("a guard's stop has evidence");
            assert_eq!(outcome.cause, evidence.sentence);
            Some(evidence)
        }
    }
}

#[test]
fn passes_run_where_they_protect_something() {
    use Pass::{Adoption, Probe, Reclaim};
    let filled = Facts { filled: true, begun: true };
    let strange = Facts { begun: false, ..filled };
    let none = Facts::default();
    let plain = assignment();
    let no_deletes = v1::Assignment { no_defaults: true, options: vec!["-rt".into()], ..assignment() };
    let sought = v1::Assignment { sentinels: vec!["README".into()], ..assignment() };
    let first = v1::Assignment { first_sync: true, ..assignment() };
    let reclaim = v1::Assignment { reclaim: true, ..assignment() };
    let dry = v1::Assignment { dry_run: true, sentinels: vec!["README".into()], ..first.clone() };
    for (assignment, facts, passes) in [
        (&plain, none, &[][..]),
        (&plain, filled, &[Probe]),
        (&plain, strange, &[Probe]),
        (&waiving(Kind::EmptyUpstream, plain.clone()), filled, &[]),
        (&no_deletes, filled, &[]),
        (&sought, none, &[Probe]),
        (&waiving(Kind::SentinelMissing, sought.clone()), none, &[]),
        (&waiving(Kind::SentinelMissing, sought.clone()), filled, &[Probe]),
        (&first, none, &[]),
        (&first, filled, &[Probe]),
        (&first, strange, &[Probe, Adoption]),
        (&waiving(Kind::Adoption, first.clone()), strange, &[Probe]),
        (&reclaim, filled, &[Probe, Reclaim]),
        (&dry, strange, &[]),
    ] {
        assert_eq!(before_pull(&order(assignment), facts), passes, "{assignment:?} {facts:?}");
    }
}

#[test]
fn probes() {
    let sought = v1::Assignment { sentinels: vec!["README".into(), "dists/Release".into()], ..assignment() };
    let probe = |assignment: &v1::Assignment, class, output: &str| {
        let order = order(assignment);
        judge_probe(&order, ended(class, Findings::of_listing(&order.sentinels), output))
    };
    assert!(evidence_of(probe(&assignment(), Class::Ok, LISTED)).is_none());
    let empty = evidence_of(probe(&assignment(), Class::Ok, EMPTY)).unwrap();
    assert_eq!((empty.kind(), empty.wanted, empty.allowed), (Kind::EmptyUpstream, 1, 0));
    let known = v1::Assignment { known_files: 61_204, ..assignment() };
    let known = evidence_of(probe(&known, Class::Ok, EMPTY)).unwrap();
    assert!(
        known.wanted == 61_204 && known.sentence.ends_with("whole tree of 61,204 files"),
        "{}",
        known.sentence
    );
    assert!(empty.sentence.contains("rsync://ftp.example.org/debian"), "{}", empty.sentence);

    let missing = evidence_of(probe(&sought, Class::Partial, LISTED)).unwrap();
    assert_eq!((missing.kind(), missing.wanted, missing.allowed), (Kind::SentinelMissing, 1, 0));
    assert_eq!(missing.names, ["dists/Release"]);
    let waived = waiving(Kind::SentinelMissing, sought.clone());
    assert!(evidence_of(probe(&waived, Class::Partial, LISTED)).is_none());
    assert_eq!(evidence_of(probe(&waived, Class::Partial, EMPTY)).unwrap().kind(), Kind::EmptyUpstream);
    assert_eq!(evidence_of(probe(&sought, Class::Partial, EMPTY)).unwrap().kind(), Kind::EmptyUpstream);
    let found = format!("{LISTED}-rw-r--r--           2 2026/11/22 00:29:05 dists/Release\n");
    assert!(evidence_of(probe(&sought, Class::Ok, &found)).is_none());
}

#[test]
fn a_probe_that_cannot_look_ends_as_it_ended() {
    let end = |class, output: &str| match judge_probe(
        &order(&assignment()),
        ended(class, Findings::of_listing(&[]), output),
    ) {
        Verdict::End(outcome) => outcome.class(),
        Verdict::GoOn(found) => panic!("{class:?} goes on: {found}"),
    };
    for class in
        [Class::Busy, Class::Auth, Class::NotFound, Class::Network, Class::Cancelled, Class::Interrupted]
    {
        assert_eq!(end(class, ""), class);
    }
    // The directory is there and cannot be read: nobody knows that it is empty.
    assert_eq!(end(Class::Partial, EMPTY), Class::Partial);
    assert_eq!(end(Class::Ok, "welcome\n"), Class::Protocol);
    assert_eq!(end(Class::Network, LISTED), Class::Network, "half a listing is none");
}

#[test]
fn adoptions() {
    let dry = |output: &str| judge_adoption(ended(Class::Ok, Findings::default(), output));
    // 1,000 listed, 100 of them new, 18 strangers: 918 are there.
    let within = stats(1_000, 100, 18, 10_000, 1_900) + ">>f+++++++++|1000|0|new\n";
    assert!(evidence_of(dry(&within)).is_none());
    let strangers =
        stats(1_000, 100, 19, 10_000, 0) + ">*deleting  |0|0|b\n>*deleting  |0|0|a\n>>f.st......|5|0|c\n";
    let held = evidence_of(dry(&strangers)).unwrap();
    assert_eq!((held.kind(), held.wanted, held.allowed), (Kind::Adoption, 19, 18));
    assert_eq!(held.names, ["b", "a", "c"]);
    assert!(held.sentence.contains("delete 19 of 919 entries"), "{}", held.sentence);

    let again = stats(1_000, 0, 0, 10_000, 2_001);
    let held = evidence_of(dry(&again)).unwrap();
    assert_eq!((held.wanted, held.allowed), (2_001, 2_000));
    // Anything that cannot be a copy of the upstream: a handful of files, one of them a stranger.
    assert!(evidence_of(dry(&stats(40, 40, 1, 10_000, 10_000))).is_some());
    let failed = judge_adoption(ended(Class::Partial, Findings::default(), &within));
    assert!(matches!(failed, Verdict::End(outcome) if outcome.class() == Class::Partial));
}

#[test]
fn the_copy_of_a_lost_tree_deletes_nothing_and_first_looks_at_its_donor() {
    let copy = v1::Assignment { keep_extra: true, first_sync: true, max_delete: 5, ..assignment() };
    let copy = v1::Assignment { options: vec!["--delete-after".to_owned()], ..copy };
    let copy = order(&copy);
    assert!(!copy.deletes() && copy.max_delete() == 0);
    assert_eq!(before_pull(&copy, Facts { filled: false, begun: false }), [Pass::Probe]);
}

#[test]
fn dry_runs_tell_and_are_no_failures() {
    let dry = order(&v1::Assignment { dry_run: true, max_delete: 5, ..assignment() });
    let output = stats(100, 3, 7, 10_000, 1_024) + ">*deleting  |0|0|old\n";
    for class in [Class::Ok, Class::MaxDelete] {
        let mut end = ended(class, Findings::default(), &output);
        end.outcome.cause = "Deletions stopped".into();
        end.outcome.deletes_skipped = Some(3).filter(|_| class == Class::MaxDelete);
        let outcome = judge_pull(&dry, end);
        let evidence = outcome.evidence.clone().unwrap();
        assert_eq!((outcome.class(), evidence.kind(), evidence.allowed), (Class::Ok, Kind::Deletes, 5));
        assert_eq!(evidence.names, ["old"]);
        let wanted = if class == Class::Ok { 7 } else { 10 };
        assert_eq!(evidence.sentence, format!("would transfer 3 files (1.00 KiB), delete {wanted}"));
        assert_eq!(evidence.wanted, wanted);
    }
    let failed = judge_pull(&dry, ended(Class::Network, Findings::default(), ""));
    assert_eq!((failed.class(), failed.evidence), (Class::Network, None));
}

#[test]
fn pulls_with_too_many_deletions_or_too_large_trees() {
    let output = stats(100, 3, 500, 10_000, 1_024) + ">*deleting  |0|0|pool/old.deb\n";
    let mut end = ended(Class::MaxDelete, Findings::default(), &output);
    end.outcome.deletes_skipped = Some(21_204);
    let outcome = judge_pull(&order(&assignment()), end);
    let evidence = outcome.evidence.clone().unwrap();
    assert_eq!((outcome.class(), evidence.wanted, evidence.allowed), (Class::MaxDelete, 21_704, 500));
    assert_eq!(evidence.names, ["pool/old.deb"]);

    let quota = |quota_bytes| v1::Assignment { quota_bytes, ..assignment() };
    let pull = |assignment: &v1::Assignment| {
        judge_pull(&order(assignment), ended(Class::Ok, Findings::default(), &output))
    };
    let over = pull(&quota(9_999));
    assert_eq!((over.class(), over.exit_code), (Class::Guard, Some(0)));
    let evidence = over.evidence.unwrap();
    assert_eq!((evidence.kind(), evidence.wanted, evidence.allowed), (Kind::Quota, 10_000, 9_999));
    for fine in [quota(0), quota(10_000), waiving(Kind::Quota, quota(1))] {
        assert_eq!(pull(&fine).class(), Class::Ok);
    }
}

#[test]
fn reclaiming_that_frees_too_little_is_a_full_disk() {
    let reclaim = order(&v1::Assignment { reclaim: true, ..assignment() });
    let pass = |class| ended(class, Findings::default(), &stats(100, 0, 1_200, 10_000, 0));
    let room = Space { total_bytes: 200_000, free_bytes: 1_000, total_inodes: 0, free_inodes: 0 };
    assert!(
        matches!(judge_reclaim(&reclaim, pass(Class::Ok), room), Verdict::GoOn(found) if found.contains("1,200"))
    );
    let Verdict::End(full) = judge_reclaim(&reclaim, pass(Class::Ok), Space { free_bytes: 999, ..room })
    else {
        panic!("it goes on")
    };
    assert_eq!(full.class(), Class::DiskFull);
    assert!(full.cause.contains("1,200") && full.cause.contains("0.5 %"), "{}", full.cause);
    let Verdict::End(limit) = judge_reclaim(&reclaim, pass(Class::MaxDelete), room) else {
        panic!("it goes on")
    };
    assert!(limit.class() == Class::MaxDelete && limit.evidence.is_some());
}

#[test]
fn brakes_and_the_outcomes_of_their_reasons() {
    let now = Instant::now();
    let quota = order(&v1::Assignment { quota_bytes: 1_000, ..assignment() });
    let mut brake = Brake::of(Pass::Pull, &quota, now);
    assert!(!brake.is_due(now) && brake.is_due(now + VOLUME_PACE) && !brake.is_due(now + VOLUME_PACE));
    assert_eq!(brake.judge(None, 1_000), None);
    let cancelled = || v1::Outcome { exit_code: Some(20), ..crate::outcome::cancelled("x") };
    let by_quota = of_stop(cancelled(), &brake.judge(None, 1_001).unwrap(), Pass::Pull, &quota);
    assert_eq!((by_quota.class(), by_quota.exit_code), (Class::Guard, Some(20)));
    assert_eq!(by_quota.evidence.map(|evidence| (evidence.wanted, evidence.allowed)), Some((1_001, 1_000)));
    let by_volume =
        of_stop(cancelled(), &brake.judge(Some("3 B of 9 TiB are free"), 0).unwrap(), Pass::Pull, &quota);
    assert_eq!(by_volume.class(), Class::DiskFull);
    assert!(by_volume.cause.contains("a1:debian") && by_volume.cause.contains("3 B"), "{}", by_volume.cause);
    assert_eq!(of_stop(cancelled(), "maria wants it", Pass::Pull, &quota).class(), Class::Cancelled);

    let dry = order(&v1::Assignment { dry_run: true, quota_bytes: 1_000, ..assignment() });
    for mut idle in [Brake::of(Pass::Probe, &quota, now), Brake::of(Pass::Pull, &dry, now)] {
        assert!(!idle.is_due(now + VOLUME_PACE * 2) && idle.judge(None, u64::MAX).is_none());
    }
}

#[test]
fn room_is_asked_of_what_writes_and_each_is_told_what_helps() {
    let pull = order(&assignment());
    let moves = order(&v1::Assignment {
        source_uri: String::new(),
        destination: "a2:debian".into(),
        move_from: "a1:debian".into(),
        keep_extra: true,
        max_delete: 0,
        ..assignment()
    });
    let reclaim = order(&v1::Assignment { reclaim: true, ..assignment() });
    let dry = order(&v1::Assignment { dry_run: true, ..assignment() });
    assert!(Pass::Copy.needs_room(&moves) && !Pass::Verify.needs_room(&moves));
    assert!(Pass::Pull.needs_room(&pull) && Pass::Probe.needs_room(&pull) && !Pass::Count.needs_room(&pull));
    assert!(Pass::Pull.needs_room(&reclaim) && !Pass::Reclaim.needs_room(&reclaim));
    assert!(!Pass::Pull.needs_room(&dry));

    let full = |order| no_room(order, Path::new("/srv/a"), "3 B of 9 TiB are free");
    assert!(
        full(&pull).advice.contains("--reclaim") && full(&pull).cause.starts_with("/srv/a holds a1:debian")
    );
    assert_eq!((full(&moves).class(), full(&moves).advice.as_str()), (Class::DiskFull, MOVE_AGAIN));
}
