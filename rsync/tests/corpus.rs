//! Output captured from rsync 3.2.7 and 3.5.0 with the arguments of this crate. The files are named
//! `output-VERSION-CASE.txt`, `stderr-VERSION-CODE-CASE.txt` and `version-VERSION.txt`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::path::Path;

use rsync::progress::Change;
use rsync::{Class, Diagnosis, Event, ExitCode, Item, OutputParser, Progress, Stats, Version, exit};

const VERSIONS: [&str; 2] = ["3.2.7", "3.5.0"];

fn read(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name)).unwrap()
}

#[derive(Default)]
struct Parsed {
    progress: Vec<Progress>,
    items: Vec<Item>,
    other: Vec<String>,
    stats: Stats,
}

fn parse(name: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut parser = OutputParser::new();
    let mut sink = |event| match event {
        Event::Progress(progress) => parsed.progress.push(progress),
        Event::Item(item) => parsed.items.push(item),
        Event::Stats => {}
        Event::Other { line, .. } => parsed.other.push(String::from_utf8(line).unwrap()),
    };
    for byte in read(name) {
        parser.push(&[byte], &mut sink);
    }
    parser.finish().into_iter().for_each(&mut sink);
    parsed.stats = *parser.stats();
    parsed
}

#[test]
fn pulls() {
    for version in VERSIONS {
        let run = parse(&format!("output-{version}-pull.txt"));
        assert_eq!(run.other, ["skipping non-regular file \"fifo\""], "{version}");
        let names: Vec<&[u8]> = run.items.iter().map(|item| item.name.as_slice()).collect();
        for name in [b"p|pe -> x".as_slice(), b"\xff\xfe", b"sub/n\nl", b"good", b"olddir/"] {
            assert!(names.contains(&name), "{version}: {name:?} in {names:?}");
        }
        assert_eq!(run.items.iter().filter(|item| item.change == Change::Deleted).count(), 2);
        let last = run.progress.last().unwrap();
        // Half of the bytes were a hard link: rsync's own percentage ends at 50.
        assert_eq!((last.percent(), last.files_total, last.bytes), (Some(100), 10, 3_000_005), "{version}");
        let stats = run.stats;
        assert!(stats.complete && !stats.dry_run);
        assert_eq!(stats.files.map(|count| (count.total, count.files, count.specials)), Some((10, 6, 1)));
        assert_eq!(stats.deleted.map(|count| (count.total, count.directories)), Some((2, 1)));
        assert_eq!((stats.transferred, stats.literal, stats.matched), (Some(5), Some(3_000_005), Some(0)));
        assert!(stats.received > stats.literal && stats.list_generation_ms.is_some());
    }
}

#[test]
fn runs_that_change_nothing() {
    for version in VERSIONS {
        let unchanged = parse(&format!("output-{version}-unchanged.txt"));
        assert_eq!((unchanged.items.len(), unchanged.stats.transferred), (0, Some(0)), "{version}");
        let dry = parse(&format!("output-{version}-dry-run.txt"));
        assert!(dry.stats.dry_run && dry.stats.complete && dry.items.len() > 5, "{version}");
    }
}

#[test]
fn a_growing_list() {
    let run = parse("output-3.5.0-incremental.txt");
    let growing: Vec<&Progress> = run.progress.iter().filter(|progress| progress.total_still_grows).collect();
    assert!(!growing.is_empty() && run.progress.iter().is_sorted_by_key(|progress| progress.files_done));
    let last = run.progress.last().unwrap();
    assert!(!last.total_still_grows && growing[0].files_total < last.files_total);
    assert_eq!(Some(last.files_total), run.stats.files.map(|count| count.total));
    assert_eq!(last.percent(), Some(100));
}

fn diagnose(version: &str, code: i32, case: &str) -> Diagnosis {
    let stderr = read(&format!("stderr-{version}-{code}-{case}.txt"));
    exit::diagnose(ExitCode::Code(code), &stderr, &Stats::default())
}

#[test]
fn ends() {
    for version in VERSIONS {
        for (code, case, class, cause) in [
            (5, "auth", Class::Auth, "@ERROR: auth failed on module auth"),
            (5, "unknown-module", Class::NotFound, "@ERROR: Unknown module 'nomod'"),
            (5, "off", Class::Busy, "@ERROR: max connections (-1) reached -- try again later"),
            (5, "denied", Class::Refused, "@ERROR: access denied to denied from UNDETERMINED (127.0.0.1)"),
            (5, "gone", Class::Refused, "@ERROR: chdir failed"),
            (10, "refused-option", Class::Refused, "The server is configured to refuse --checksum (-c)"),
            (
                23,
                "no-such-path",
                Class::NotFound,
                "[sender] change_dir \"none\" (in pub) failed: No such file or directory (2)",
            ),
            (
                23,
                "unreadable",
                Class::Partial,
                "[sender] send_files failed to open \"secret\" (in asnobody): Permission denied (13) (and 1 more)",
            ),
            (25, "delete-limit", Class::MaxDelete, "Deletions stopped due to --max-delete limit (3 skipped)"),
        ] {
            let diagnosis = diagnose(version, code, case);
            assert_eq!((diagnosis.class, diagnosis.cause.as_str()), (class, cause), "{version} {case}");
        }
        assert_eq!(diagnose(version, 25, "delete-limit").deletions_skipped, Some(3));
    }
}

#[test]
fn versions() {
    let old = Version::parse(&read("version-3.2.7.txt")).unwrap();
    let new = Version::parse(&read("version-3.5.0.txt")).unwrap();
    assert_eq!((old.release, old.protocol), ((3, 2, 7), 32));
    assert_eq!((new.release, new.protocol), ((3, 5, 0), 32));
    assert!(
        !old.features.drop_devices && !old.features.confine_root && old.features.acls && old.features.xattrs
    );
    assert!(
        new.features.drop_devices && new.features.confine_root && new.features.acls && new.features.xattrs
    );
}
