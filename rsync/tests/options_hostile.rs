//! Words that must never reach rsync, each with a piece of the reason that is shown for it. They stand in
//! `hostile_words.jsonl`, one `["word", "reason"]` a line: the coordinator's and the agent's tests put the same
//! file to the real programs.

use rsync::{Options, tables};

fn hostile() -> Vec<(String, String)> {
    let lines = include_str!("hostile_words.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|bad| panic!("{line}: {bad}"))).collect()
}

#[test]
fn every_hostile_word_is_refused_for_its_reason() {
    let mut wrong = Vec::new();
    let hostile = hostile();
    for (word, reason) in &hostile {
        match Options::parse_words(&[word]) {
            Ok(options) => wrong.push(format!("{word:?} became {:?}", options.render())),
            Err(faults) if faults.len() == 1 && faults[0].reason.contains(reason) => {}
            Err(faults) => wrong.push(format!("{word:?}: {faults:?}, expected {reason:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(hostile.len() >= 300, "{}", hostile.len());
}

#[test]
fn hostile_words_are_found_among_good_ones_and_each_for_itself() {
    let hostile = hostile();
    for (word, reason) in &hostile {
        let faults = Options::parse_words(&["-rlptH", word, "--exclude=*.iso"]).expect_err(word);
        assert!(faults.iter().any(|fault| fault.reason.contains(reason)), "{word:?}: {faults:?}");
    }
    for many in hostile.chunks(32) {
        let words: Vec<&str> = many.iter().map(|(word, _)| word.as_str()).collect();
        let faults = Options::parse_words(&words).expect_err("all of them are hostile");
        assert_eq!(faults.len(), many.len(), "{faults:?}");
        for (fault, (word, reason)) in faults.iter().zip(many) {
            assert!(fault.reason.contains(reason), "{word:?}: {fault:?}, expected {reason:?}");
        }
    }
}

#[test]
fn every_name_and_letter_of_the_deny_table_is_among_them_in_three_forms() {
    let hostile = hostile();
    let has = |form: &dyn Fn(&str) -> bool| hostile.iter().any(|(word, _)| form(word));
    for row in tables::DENY {
        for name in row.long {
            assert!(has(&|word| word == format!("--{name}")), "--{name}");
            assert!(has(&|word| word.starts_with(&format!("--{name}="))), "--{name}=VALUE");
            // What people type by mistake, and rsync reads as letters.
            assert!(has(&|word| word == format!("-{name}")), "-{name}");
        }
        for letter in row.short {
            assert!(has(&|word| word == format!("-{letter}")), "-{letter}");
            assert!(has(&|word| word == format!("-av{letter}")), "-av{letter}");
            assert!(has(&|word| word == format!("-{letter}=x")), "-{letter}=x");
        }
        assert!(!row.long.is_empty() || !row.short.is_empty(), "a row without an option");
    }
}

#[test]
fn every_name_of_the_deny_table_is_refused_in_every_form() {
    for row in tables::DENY {
        for name in row.long {
            for word in [format!("--{name}"), format!("--{name}="), format!("--{name}=x"), format!("-{name}")]
            {
                assert!(Options::parse_words(&[&word]).is_err(), "{word}");
            }
        }
    }
}

#[test]
fn contradictions_name_both_sides() {
    for (words, reason) in [
        (&["--delete", "--delete-after"][..], "second delete mode besides --delete;"),
        (&["--delete-excluded", "--delete-delay"], "second delete mode"),
        (&["--del", "--del"], "second delete mode"),
        (&["-aa"], "--archive a second time"),
        (&["-avH", "-H"], "--hard-links a second time (first in -avH)"),
        (&["--partial", "-P"], "--partial a second time"),
        (&["--timeout=60", "--timeout=70"], "second time (first as --timeout=60)"),
        (&["-vv", "-v"], "at most 2"),
        (&["-o", "--no-o"], "--no-owner contradicts --owner"),
        (&["--no-group", "-g"], "--no-group contradicts --group"),
        (&["-z", "--no-compress"], "contradicts"),
        (&["-W", "--no-whole-file"], "contradicts"),
        (&["-46"], "--ipv6 contradicts --ipv4"),
        (&["-I", "--size-only"], "contradicts"),
        (&["--inplace", "--delay-updates"], "--delay-updates contradicts --inplace"),
        (&["-P", "--inplace"], "--partial contradicts --inplace"),
        (&["--min-size=2M", "--max-size=1M"], "above --max-size"),
    ] {
        let faults = Options::parse_words(words).expect_err(words[0]);
        assert!(faults.len() == 1 && faults[0].reason.contains(reason), "{words:?}: {faults:?}");
    }
}

#[test]
fn the_fault_reads_as_in_the_manual() {
    let faults = Options::parse_words(&["-e"]).unwrap_err();
    assert_eq!(faults[0].to_string(), "\"-e\": runs a program of your choice; never allowed");
}
