//! What agents say, from the best to the worst of them.

use std::time::Duration;

use fleet::{
    attempt::Role,
    id::{AgentUid, AttemptId, Epoch, ProjectUid, RunId},
    input::{Export, NotTaken, Offer, Pair},
    marker::{Marker, MarkerCheck, MarkerKind},
    outcome::{ExitClass, Outcome},
    refusal::Violation,
    time::Wall,
};
use mirror_proto::{
    convert::{
        EXPORTS_BYTES_MAX, assignment_to_wire, attempt_key_from_wire, attempt_key_to_wire,
        ended_alone_from_wire, ended_from_wire, exports_to_wire, hello_from_wire, outcome_to_wire,
        refused_from_wire, secrets_to_wire,
    },
    v1,
};

const ID: &str = "01a1f797-47f1-7c02-9d1f-8a3b6f20c1de";
const EPOCH: Epoch = Epoch { term: 3, counter: 9 };

fn run() -> RunId {
    ID.parse().expect("a run")
}

fn attempt() -> AttemptId {
    AttemptId { run: run(), number: 2 }
}

fn key() -> Option<v1::AttemptKey> {
    Some(attempt_key_to_wire(attempt(), EPOCH))
}

fn root(name: &str) -> v1::Root {
    v1::Root {
        name: name.to_owned(),
        path: format!("/srv/{name}"),
        total_bytes: 10,
        free_bytes: 5,
        total_inodes: 0,
        free_inodes: 0,
    }
}

fn hello() -> v1::Hello {
    v1::Hello {
        trash: None,
        instance_id: ID.to_owned(),
        state_id: ID.to_owned(),
        highest_term: 3,
        version: "0.1.0".to_owned(),
        rsync_version: "3.5.0".to_owned(),
        attempts: vec![v1::AttemptDescriptor {
            key: key(),
            project_uid: 7,
            role: v1::Role::Replica.into(),
            destination: "a1:debian".to_owned(),
            spec_hash: "00ff".to_owned(),
            ended: true,
            needs_secrets: false,
            dry_run: true,
            keep_extra: true,
            autonomous: None,
        }],
        inventory: Some(v1::Inventory {
            roots: vec![root("a1"), root("a2")],
            certificate_expire_time: Some(prost_types::Timestamp { seconds: 5, nanos: 0 }),
        }),
        slots: 4,
        jail_gaps: vec!["landlock: not in this kernel".to_owned()],
        serve_uri: "rsync://ftp1.example.org:8730/".to_owned(),
        external_roots: [("a2".to_owned(), "rsync://ftp1.example.org/pub/".to_owned())].into(),
    }
}

fn field_of(change: impl FnOnce(&mut v1::Hello)) -> String {
    let mut wire = hello();
    change(&mut wire);
    hello_from_wire(&wire).expect_err("a faulty hello").field
}

#[test]
fn a_hello_is_read_whole() {
    let read = hello_from_wire(&hello()).expect("a hello");
    assert_eq!((read.state_id.as_str(), read.highest_term), (ID, 3));
    assert_eq!(read.facts.certificate_expires, Some(Wall(5_000)));
    assert_eq!(read.facts.serve_uri, "rsync://ftp1.example.org:8730");
    assert_eq!((read.facts.slots, read.facts.roots.len(), read.facts.jail_gaps.len()), (4, 2, 1));
    let held = &read.attempts[0];
    assert_eq!((held.attempt, held.epoch, held.role), (attempt(), EPOCH, Role::Replica));
    assert_eq!((held.project, held.ended, held.recorded), (ProjectUid(7), true, false));
    let bare = v1::Hello { attempts: Vec::new(), inventory: None, serve_uri: String::new(), ..hello() };
    let read = hello_from_wire(&bare).expect("a bare hello");
    assert!(read.facts.roots.is_empty() && read.facts.serve_uri.is_empty());
}

#[test]
fn every_part_of_a_hello_is_bounded() {
    let control = || "a\u{1b}b".to_owned();
    assert_eq!(field_of(|hello| hello.instance_id = "x".to_owned()), "hello.instance_id");
    assert_eq!(field_of(|hello| hello.state_id = ID.to_uppercase()), "hello.state_id");
    assert_eq!(field_of(|hello| hello.version = control()), "hello.version");
    assert_eq!(field_of(|hello| hello.rsync_version = "x".repeat(201)), "hello.rsync_version");
    assert_eq!(field_of(|hello| hello.jail_gaps = vec![String::new(); 33]), "hello.jail_gaps");
    assert_eq!(field_of(|hello| hello.jail_gaps = vec![control()]), "hello.jail_gaps");
    let one = hello().attempts.remove(0);
    assert_eq!(field_of(|hello| hello.attempts = vec![one; 1_025]), "hello.attempts");
    for bad in ["http://h", "rsync://h/module", "rsync://user@h", "rsync://-e"] {
        assert_eq!(field_of(|hello| hello.serve_uri = bad.to_owned()), "hello.serve_uri", "{bad}");
    }
}

#[test]
fn every_root_and_held_attempt_is_checked() {
    let roots = |list: Vec<v1::Root>| {
        move |hello: &mut v1::Hello| hello.inventory.as_mut().expect("an inventory").roots = list
    };
    let relative = v1::Root { path: "srv".to_owned(), ..root("a1") };
    assert_eq!(field_of(roots(vec![relative])), "inventory.roots.path");
    assert_eq!(field_of(roots(vec![root("a b")])), "inventory.roots.name");
    assert_eq!(field_of(roots(vec![root("a1"), root("a1")])), "inventory.roots");
    assert_eq!(field_of(roots((0..65).map(|n| root(&format!("a{n}"))).collect())), "inventory.roots");
    assert_eq!(field_of(|hello| hello.attempts[0].role = 0), "hello.attempts.role");
    assert_eq!(field_of(|hello| hello.attempts[0].key = None), "key");
    let outside = |hello: &mut v1::Hello| hello.attempts[0].destination = "a1:../etc".to_owned();
    assert_eq!(field_of(outside), "hello.attempts.destination");
}

#[test]
fn a_key_is_read_strictly() {
    assert_eq!(attempt_key_from_wire(key().as_ref()), Ok((attempt(), EPOCH)));
    let good = attempt_key_to_wire(attempt(), EPOCH);
    let bad = [
        (v1::AttemptKey { run: "x".to_owned(), ..good.clone() }, "key.run"),
        (v1::AttemptKey { attempt: 0, ..good.clone() }, "key.attempt"),
        (v1::AttemptKey { epoch: None, ..good }, "key.epoch"),
    ];
    for (wire, field) in bad {
        assert_eq!(attempt_key_from_wire(Some(&wire)).expect_err("a bad key").field, field);
    }
}

#[test]
fn a_refusal_says_whether_to_try_again() {
    use v1::refused::Reason;
    let read =
        |reason: i32| refused_from_wire(&v1::Refused { key: key(), reason, detail: "a\u{7}".repeat(2_000) });
    let for_good = read(Reason::NotAllowed.into()).expect("a refusal");
    assert!(
        for_good.why == NotTaken::Forbidden
            && for_good.detail.len() <= 1_024
            && !for_good.detail.contains('\u{7}')
    );
    for reason in [Reason::Busy, Reason::JournalFull, Reason::Stale] {
        assert_eq!(read(reason.into()).expect("a refusal").why, NotTaken::Busy);
    }
    assert_eq!(read(Reason::Stopping.into()).expect("a refusal").why, NotTaken::Stopping);
    for reason in [0, 99] {
        assert_eq!(read(reason).expect_err("no reason").field, "refused.reason");
    }
}

#[test]
fn an_end_needs_its_key_and_outcome() {
    let outcome = Outcome::of_class(ExitClass::Ok);
    let ended = v1::Ended { key: key(), outcome: Some(outcome_to_wire(&outcome)), ..v1::Ended::default() };
    assert_eq!(ended_from_wire(&ended), Ok((attempt(), EPOCH, outcome)));
    let none = ended_from_wire(&v1::Ended { outcome: None, ..ended });
    assert_eq!(none, Err(Violation::new("ended.outcome", "is required")));
}

/// An offer in which everything is said.
fn full_offer() -> Offer {
    Offer {
        attempt: attempt(),
        epoch: EPOCH,
        project: ProjectUid(7),
        project_name: "debian".parse().expect("a name"),
        role: Role::Origin,
        source_uri: "rsync://h/debian/".to_owned(),
        user: "mirror".to_owned(),
        sealed_password: vec![1, 2, 3],
        destination: "a1:debian".parse().expect("a destination"),
        options: vec!["--archive".to_owned()],
        no_defaults: true,
        max_delete: 500,
        connect_timeout: Duration::from_secs(60),
        io_timeout: Duration::from_secs(600),
        stall_timeout: Duration::from_secs(1_800),
        run_timeout: None,
        bandwidth_limit_kib: 10,
        tree: run(),
        dry_run: true,
        keep_extra: true,
        reclaim: true,
        sentinels: vec!["README".to_owned()],
        first_sync: true,
        waived: vec![fleet::outcome::GuardKind::Adoption],
        marker: Some(MarkerCheck {
            marker: Marker { kind: MarkerKind::Repomd, path: "repodata/repomd.xml".to_owned() },
            not_before: Some(Wall(60_000)),
            required: true,
        }),
        quota_bytes: 7,
        known_files: 8,
        known_bytes: 9,
        move_from: Some("a2:debian".parse().expect("a destination")),
        link: Some("pub:debian".parse().expect("a destination")),
        pair: None,
        traceparent: "00-1-2-01".to_owned(),
    }
}

#[test]
fn an_assignment_says_all_of_the_offer() {
    let offer = full_offer();
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let wire = assignment_to_wire(&offer, Some("hunter2".to_owned()));
    assert_eq!(
        wire,
        v1::Assignment {
            key: key(),
            project_uid: 7,
            project: "debian".to_owned(),
            role: v1::Role::Origin.into(),
            source_uri: "rsync://h/debian/".to_owned(),
            user: "mirror".to_owned(),
            secrets: Some(v1::Secrets { password: "hunter2".to_owned() }),
            destination: "a1:debian".to_owned(),
            options: vec!["--archive".to_owned()],
            no_defaults: true,
            max_delete: 500,
            connect_timeout: seconds(60),
            io_timeout: seconds(600),
            stall_timeout: seconds(1_800),
            run_timeout: None,
            bandwidth_limit_kib: 10,
            tree_version: ID.to_owned(),
            spec_hash: offer.spec_hash(),
            traceparent: "00-1-2-01".to_owned(),
            dry_run: true,
            keep_extra: true,
            move_from: "a2:debian".to_owned(),
            link: "pub:debian".to_owned(),
            reclaim: true,
            sentinels: vec!["README".to_owned()],
            first_sync: true,
            waived: vec![v1::evidence::Kind::Adoption.into()],
            quota_bytes: 7,
            known_files: 8,
            known_bytes: 9,
            marker: Some(v1::Marker {
                kind: v1::marker::Kind::Repomd.into(),
                path: "repodata/repomd.xml".to_owned(),
            }),
            marker_not_before: Some(prost_types::Timestamp { seconds: 60, nanos: 0 }),
            marker_required: true,
            autonomous: None,
        }
    );
    assert_eq!(secrets_to_wire(None), None);
    assert_eq!(secrets_to_wire(Some(String::new())), None);
}

#[test]
fn a_long_list_of_exports_is_cut_and_a_short_one_is_one_message() {
    use prost::Message as _;
    let secret = |pair: Pair| format!("{:043}", pair.replica.0);
    let export = |project| {
        let pair = |replica| Pair {
            project: ProjectUid(project),
            origin: AgentUid(1),
            replica: AgentUid(replica),
            day: 20_779,
        };
        Export {
            project: ProjectUid(project),
            name: "debian".parse().expect("a name"),
            destination: "a1:debian".parse().expect("a destination"),
            pairs: (2..102).map(pair).collect(),
        }
    };
    let exports: Vec<Export> = (1..=100).map(export).collect();
    let parts = exports_to_wire(7, true, &exports, &[ProjectUid(500)], &secret);
    assert!(parts.len() > 2);
    assert!(parts.iter().all(|part| part.encoded_len() <= EXPORTS_BYTES_MAX + 1_024 && part.serial == 7));
    let told: Vec<u64> = parts.iter().flat_map(|part| &part.exports).map(|one| one.project_uid).collect();
    assert_eq!(told, (1..=100).collect::<Vec<u64>>());
    let more: Vec<bool> = parts.iter().map(|part| part.more).collect();
    assert!(more.iter().rev().skip(1).all(|more| *more) && more.last() == Some(&false));
    assert!(parts[0].complete && parts[1..].iter().all(|part| !part.complete && part.withdrawn.is_empty()));
    assert_eq!(parts[0].withdrawn, [500]);
    let user = &parts[0].exports[0].users[0];
    assert_eq!((user.user.as_str(), user.secret.len()), ("a2-20779", 43));

    let empty = exports_to_wire(1, true, &[], &[], &secret);
    assert_eq!(empty, [v1::Exports { serial: 1, complete: true, ..v1::Exports::default() }]);
}

#[test]
fn what_an_agent_ran_alone_is_read_with_its_fire_and_only_as_itself() {
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let fire = v1::AutonomousFire { scheduled_time: time(60), start_time: time(61), max_delete: 500 };
    let described = v1::AttemptDescriptor { autonomous: Some(fire), ..hello().attempts.remove(0) };
    let ended = v1::Ended { key: key(), autonomous: Some(described.clone()), ..v1::Ended::default() };
    let held = ended_alone_from_wire(&ended).expect("a report").expect("of an agent alone");
    let fire = held.autonomous.expect("its fire");
    assert_eq!((fire.scheduled, fire.started, fire.max_delete), (Wall(60_000), Wall(61_000), 500));
    assert_eq!(ended_alone_from_wire(&v1::Ended { autonomous: None, ..ended.clone() }), Ok(None));
    let other = v1::AttemptKey { attempt: 3, ..key().expect("a key") };
    let of_another = v1::Ended { key: Some(other), ..ended.clone() };
    assert_eq!(ended_alone_from_wire(&of_another).expect_err("another attempt").field, "ended.autonomous");
    let timeless = v1::AutonomousFire { start_time: None, ..v1::AutonomousFire::default() };
    let timeless = v1::AttemptDescriptor { autonomous: Some(timeless), ..described };
    assert!(ended_alone_from_wire(&v1::Ended { autonomous: Some(timeless), ..ended }).is_err());
}
