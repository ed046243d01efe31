//! The journal across restarts, cuts, compaction and its own limits.

use super::*;
use crate::key::tests::key;

fn assignment(key: Key) -> v1::Assignment {
    v1::Assignment {
        key: Some(key.to_wire()),
        project: "debian".into(),
        destination: "a1:debian".into(),
        secrets: Some(v1::Secrets { password: "hunter2".into() }),
        ..v1::Assignment::default()
    }
}

fn outcome(cause: &str) -> v1::Outcome {
    v1::Outcome { cause: cause.into(), class: v1::outcome::Class::Network.into(), ..v1::Outcome::default() }
}

fn open(dir: &tempfile::TempDir) -> Journal {
    let (journal, opened) = Journal::open(dir.path()).unwrap();
    assert_eq!(opened.torn, None);
    journal
}

#[test]
fn everything_is_there_after_a_restart_and_no_secret_ever_was() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second, third) = (key(1, 1, 1), key(2, 1, 2), key(3, 1, 3));
    let mut journal = open(&dir);
    for one in [first, second, third] {
        journal.accept(one, assignment(one), true).unwrap();
    }
    journal.step(first, Step::Pull).unwrap();
    journal.end(second, outcome("reset"), "00-trace".into()).unwrap();
    journal.end(third, outcome(""), String::new()).unwrap();
    assert!(journal.settle(third).unwrap() && !journal.settle(third).unwrap());
    assert!(!journal.settle(first).unwrap(), "what runs cannot be settled");

    let again = open(&dir);
    assert_eq!(again.book, journal.book);
    assert_eq!(again.book.get(first.id).map(|e| (e.step, e.needs_password)), Some((Step::Pull, true)));
    assert_eq!(again.book.get(second.id).unwrap().ended.as_ref().unwrap().traceparent, "00-trace");
    assert_eq!(again.book.settled_epoch(third.id), Some(third.epoch));
    for file in ["journal", "journal.spare"] {
        let bytes = std::fs::read(dir.path().join(file)).unwrap();
        assert_eq!(bytes.len() as u64, frame::FILE_BYTES);
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "{file}");
    }
}

#[test]
fn a_torn_tail_is_told_once_and_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(&dir);
    journal.accept(key(1, 1, 1), assignment(key(1, 1, 1)), false).unwrap();
    let end = {
        let bytes = std::fs::read(dir.path().join("journal")).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
    };
    journal.accept(key(2, 1, 2), assignment(key(2, 1, 2)), false).unwrap();
    drop(journal);
    let mut bytes = std::fs::read(dir.path().join("journal")).unwrap();
    bytes[end + 20] ^= 4;
    std::fs::write(dir.path().join("journal"), &bytes).unwrap();

    let (journal, opened) = Journal::open(dir.path()).unwrap();
    assert_eq!(opened.torn.map(|torn| torn.at), Some(end as u64));
    assert_eq!(journal.book.entries().map(|entry| entry.key).collect::<Vec<_>>(), [key(1, 1, 1)]);
    drop(journal);
    assert_eq!(Journal::open(dir.path()).unwrap().1, Opened { fresh: false, torn: None });
}

#[test]
fn a_full_journal_refuses_new_attempts_and_takes_every_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(&dir);
    let big =
        |key| v1::Assignment { options: vec!["x".repeat(ASSIGNMENT_BYTES_MAX - 200)], ..assignment(key) };
    let mut taken = Vec::new();
    let refused = (1..=200).map(|run| key(run, 1, 1)).find(|one| {
        let answer = journal.accept(*one, big(*one), false);
        taken.extend(answer.is_ok().then_some(*one));
        matches!(answer, Err(JournalError::Full(_)))
    });
    assert!(refused.is_some() && taken.len() > 20, "{}", taken.len());
    for one in &taken {
        for step in [Step::Preflight, Step::Pull, Step::Finish] {
            journal.step(*one, step).unwrap();
        }
        let long = v1::Outcome {
            cause: "c".repeat(100_000),
            advice: "a".repeat(100_000),
            fault: "f".repeat(100_000),
            evidence: Some(v1::Evidence {
                names: vec!["n".repeat(10_000); 100],
                sentence: "s".repeat(10_000),
                ..v1::Evidence::default()
            }),
            ..outcome("")
        };
        journal.end(*one, long, "t".repeat(55)).unwrap();
    }
    let again = open(&dir);
    assert_eq!(again.book.entries().filter(|entry| entry.ended.is_some()).count(), taken.len());
    for one in &taken {
        assert!(journal.settle(*one).unwrap());
    }
    journal.accept(refused.unwrap(), big(refused.unwrap()), false).unwrap();
}

#[test]
fn it_runs_for_years_in_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(&dir);
    // About 30 KiB each, so the file is rewritten several times.
    for run in 1..=600 {
        let one = key(run, 1, 1);
        let wide = v1::Assignment { options: vec!["y".repeat(30_000)], ..assignment(one) };
        journal.accept(one, wide, false).unwrap();
        journal.end(one, outcome("x"), String::new()).unwrap();
        assert!(journal.settle(one).unwrap());
    }
    let again = open(&dir);
    assert_eq!(again.book.entries().count(), 0);
    assert_eq!(again.book.settled.len(), SETTLED_MAX);
    assert_eq!(again.book.settled_epoch(key(600, 1, 1).id), Some(key(600, 1, 1).epoch));
    assert_eq!(again.book.settled_epoch(key(1, 1, 1).id), None);
}

#[test]
fn what_is_held_stays_in_the_order_in_which_it_was_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(&dir);
    // Offered long ago and taken last; and one that was offered anew.
    let (late, again) = (key(1, 7, 3), key(3, 7, 2));
    for one in [key(3, 1, 1), key(5, 1, 2), key(4, 1, 1), again, late] {
        journal.accept(one, assignment(one), false).unwrap();
    }
    let order = |journal: &Journal| journal.book.entries().map(|entry| entry.key).collect::<Vec<_>>();
    let taken = [key(5, 1, 2), key(4, 1, 1), again, late];
    assert_eq!(order(&journal), taken);
    assert_eq!(order(&open(&dir)), taken);
    let rewritten = payloads(&journal.book);
    let mut book = Book::default();
    for payload in rewritten {
        replay(Record::decode(payload.as_slice()).unwrap().change.unwrap(), &mut book);
    }
    assert_eq!(book, *journal.book);
}

#[test]
fn what_is_no_journal_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("journal"), "a letter to my aunt").unwrap();
    assert!(matches!(Journal::open(dir.path()), Err(JournalError::Io { .. })));
    assert_eq!(std::fs::read(dir.path().join("journal")).unwrap(), b"a letter to my aunt");
}

#[test]
fn assignments_have_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let one = key(1, 1, 1);
    let huge = v1::Assignment { options: vec!["z".repeat(ASSIGNMENT_BYTES_MAX)], ..assignment(one) };
    assert!(matches!(open(&dir).accept(one, huge, false), Err(JournalError::TooLarge(_))));
}
