#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

/// 22 November 2026, 00:00 UTC.
const NOW: Wall = Wall(1_795_305_600_000);

fn at(text: &str) -> Wall {
    Wall::from(parse_date(text, None).unwrap().time)
}

#[test]
fn every_kind_reads_what_mirrors_have() {
    use MarkerKind as K;
    let release = "Origin: Debian\nLabel: Debian\nSuite: stable\nVersion: 12.12\nCodename: bookworm\n\
                   Date: Sat, 21 Nov 2026 09:57:42 UTC\nAcquire-By-Hash: yes\nMD5Sum:\n 0b3d 1484322 main/Contents\n";
    let signed = format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{release}");
    let trace = "Sat Nov 21 20:31:04 UTC 2026\nUsing dak v1\nRunning on host: fasolo.debian.org\n\
                 Archive serial: 2026112104\n";
    let new_trace = "Sat, 21 Nov 2026 20:40:11 +0000\nDate: Sat, 21 Nov 2026 20:40:11 +0000\n\
                     Date-Started: Sat, 21 Nov 2026 20:31:09 +0000\nArchive serial: 2026112104\n";
    let manjaro = "###\n### BoxIt state file\n###\n\n# Unique hash code representing current branch state.\n\
                   state=7a9b1f\n\n# Date and time of the last branch change.\ndate=2026-11-21T18:49:42Z\n";
    let repomd = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<repomd xmlns=\"http://linux.duke.edu/metadata/repo\">\n  \
                  <revision>1795255200</revision>\n  <data type=\"primary\">\n";
    for (kind, content, time) in [
        (K::UnixTime, "1795255200\n", "2026-11-21T10:00:00Z"),
        (K::UnixTime, "  1795255200 Sat Nov 21 10:00:00 UTC 2026\n", "2026-11-21T10:00:00Z"),
        (K::HttpDate, "Sat, 21 Nov 2026 10:00:01 +0000\n", "2026-11-21T10:00:01Z"),
        (K::HttpDate, "Sat, 21 Nov 2026 10:00:01 GMT", "2026-11-21T10:00:01Z"),
        (K::HttpDate, "\n21 Nov 2026 11:00:01 +0100\r\nmore", "2026-11-21T10:00:01Z"),
        (K::HttpDate, "Sat Nov 21 10:00:01 UTC 2026\n", "2026-11-21T10:00:01Z"),
        (K::IsoDate, "2026-11-21T10:00:00+02:00", "2026-11-21T08:00:00Z"),
        (K::IsoDate, "2026-11-21 10:00:00\n", "2026-11-21T10:00:00Z"),
        (K::IsoDate, "2026-11-21\n", "2026-11-21T00:00:00Z"),
        (K::DebianRelease, release, "2026-11-21T09:57:42Z"),
        (K::DebianRelease, &signed, "2026-11-21T09:57:42Z"),
        (K::DebianTrace, trace, "2026-11-21T20:31:04Z"),
        (K::DebianTrace, new_trace, "2026-11-21T20:40:11Z"),
        (K::ManjaroState, manjaro, "2026-11-21T18:49:42Z"),
        (K::Repomd, repomd, "2026-11-21T10:00:00Z"),
    ] {
        assert_eq!(read(kind, content.as_bytes(), NOW), Ok(at(time)), "{kind}: {content}");
    }
}

#[test]
fn what_holds_no_time_is_said_so() {
    use MarkerFault as F;
    use MarkerKind as K;
    let long = format!("Date: {}Sat, 21 Nov 2026 09:57:42 UTC\n", " ".repeat(MARKER_LINE_BYTES_MAX));
    let serial = "<revision>8.10</revision>";
    for (kind, content, fault) in [
        (K::UnixTime, "", "begin"),
        (K::UnixTime, "now", "begin"),
        (K::UnixTime, "-1795255200", "begin"),
        (K::UnixTime, "1795255200000000", "begin"),
        (K::HttpDate, "2026-11-21", "begin"),
        (K::HttpDate, "yesterday", "begin"),
        (K::HttpDate, "Fri, 21 Nov 2026 10:00:01 GMT", "begin"),
        (K::IsoDate, "Sat, 21 Nov 2026 10:00:01 GMT", "begin"),
        (K::IsoDate, "2026-13-21", "begin"),
        (K::DebianRelease, "Origin: Debian\n", "Date:"),
        (K::DebianRelease, "Date: soon\n", "Date:"),
        (K::DebianRelease, &long, "Date:"),
        (K::DebianTrace, "<html>404</html>", "Date:"),
        (K::ManjaroState, "state=1", "date="),
        (K::Repomd, serial, "<revision>"),
        (K::Repomd, "<repomd>", "<revision>"),
        (K::Mtime, "1795255200", "content"),
    ] {
        let error = read(kind, content.as_bytes(), NOW).unwrap_err();
        assert!(error.to_string().contains(fault), "{kind}: {content}: {error}");
    }
    assert_eq!(
        read(K::UnixTime, b"\xff\xfe\x00\x01\n\x80", NOW),
        Err(F::Beginning("a number of seconds since 1970"))
    );
    let mut large = b"1795255200\n".to_vec();
    large.resize(usize::try_from(MARKER_BYTES_MAX).unwrap() + 1, b'\n');
    assert_eq!(read(K::UnixTime, &large, NOW), Err(F::TooLarge));
}

#[test]
fn a_time_that_cannot_be_right_is_not_believed() {
    let read = |text: &str| read(MarkerKind::IsoDate, text.as_bytes(), NOW);
    assert_eq!(read("2099-01-01"), Err(MarkerFault::Ahead));
    assert_eq!(read("2026-11-22T23:59:59Z"), Ok(at("2026-11-22T23:59:59Z")), "clocks differ");
    assert_eq!(read("2026-11-23T00:00:01Z"), Err(MarkerFault::Ahead));
    assert_eq!(read("1995-12-31"), Err(MarkerFault::TooEarly));
    assert_eq!(read("1996-01-01"), Ok(MARKER_EARLIEST));
}

#[test]
fn kinds_have_names() {
    for kind in MarkerKind::ALL {
        assert_eq!(kind.name().parse(), Ok(kind));
        assert!(NoSuchKind.to_string().contains(kind.name()));
    }
    assert_eq!("unixtime".parse::<MarkerKind>(), Err(NoSuchKind));
}

proptest! {
    #[test]
    fn no_content_is_too_strange(content in prop::collection::vec(any::<u8>(), 0..4_000), now in any::<i64>()) {
        for kind in MarkerKind::ALL {
            if let Ok(time) = read(kind, &content, Wall(now)) {
                prop_assert_eq!(believed(time, Wall(now)), Ok(time));
            }
        }
    }

    #[test]
    fn no_line_is_too_strange(line in "(Date:|date=|<revision>|)[ -~]{0,80}", tail in any::<[u8; 8]>()) {
        let content = [line.as_bytes(), b"\n", tail.as_slice()].concat();
        for kind in MarkerKind::ALL {
            if let Ok(time) = read(kind, &content, NOW) {
                prop_assert!(time >= MARKER_EARLIEST && time <= NOW.plus(MARKER_AHEAD_MAX));
            }
        }
    }

    #[test]
    fn what_is_written_is_read(seconds in 820_454_400_i64..1_795_305_600) {
        let time = Wall(seconds * 1_000);
        let utc = time.to_utc();
        for (kind, content) in [
            (MarkerKind::UnixTime, seconds.to_string()),
            (MarkerKind::HttpDate, utc.to_rfc2822()),
            (MarkerKind::HttpDate, utc.format("%a, %d %b %Y %H:%M:%S GMT").to_string()),
            (MarkerKind::IsoDate, utc.to_rfc3339()),
            (MarkerKind::DebianRelease, utc.format("Date: %a, %d %b %Y %H:%M:%S UTC").to_string()),
            (MarkerKind::DebianTrace, utc.format("%a %b %e %H:%M:%S UTC %Y").to_string()),
            (MarkerKind::ManjaroState, format!("date={}", utc.format("%Y-%m-%dT%H:%M:%SZ"))),
            (MarkerKind::Repomd, format!("<revision>{seconds}</revision>")),
        ] {
            prop_assert_eq!(read(kind, content.as_bytes(), NOW), Ok(time), "{}", content);
        }
    }
}
