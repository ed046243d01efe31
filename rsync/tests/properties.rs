//! Properties that hold for any input.

use proptest::prelude::*;
use rsync::progress::{LINE_BYTES_MAX, unescape_name};
use rsync::tables::FLAGS;
use rsync::{ExitCode, Options, OutputParser, RsyncUri, Stats, Version, exit, listing};

/// Words that are sometimes options: letters, names of the tables, values, and noise.
fn word() -> impl Strategy<Value = String> {
    let valued = vec![
        "max-delete",
        "exclude",
        "include",
        "filter",
        "max-size",
        "min-size",
        "bwlimit",
        "timeout",
        "contimeout",
        "modify-window",
        "chmod",
    ];
    prop_oneof![
        4 => "-[arlptgoHEOJcIumxzWSyP46vih]{1,6}",
        4 => proptest::sample::select(FLAGS).prop_map(|row| format!("--{}", row.long)),
        2 => proptest::sample::select(vec!["--delete", "--delete-after", "--del", "--delete-excluded"]).prop_map(str::to_owned),
        4 => (proptest::sample::select(valued), "[0-9]{1,5}[KMGT]?|[-+PRHS] .{0,8}|[DF]?[ugo]{0,2}[-+=][rwxX]{0,2}|.{0,8}")
            .prop_map(|(name, value)| format!("--{name}={value}")),
        1 => "-{0,2}.{0,12}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn canonical_words_parse_to_the_same(words in proptest::collection::vec(word(), 0..8)) {
        // Single good words are common, whole good lists are rare: keep what is good.
        let mut kept: Vec<String> = Vec::new();
        for word in words {
            kept.push(word);
            if Options::parse_words(&kept).is_err() {
                kept.pop();
            }
        }
        let options = Options::parse_words(&kept).expect("each word was tried");
        let canonical = options.render();
        let again = Options::parse_words(&canonical);
        prop_assert_eq!(again, Ok(options), "{:?} -> {:?}", kept, canonical);
    }

    #[test]
    fn what_is_accepted_is_made_of_table_names(word in word()) {
        const VALUED: &[&str] = &[
            "delete-delay", "delete-after", "delete-during", "delete-excluded", "max-delete", "exclude", "include",
            "filter", "max-size", "min-size", "bwlimit", "timeout", "contimeout", "modify-window", "chmod",
        ];
        for word in Options::parse_words(&[word]).map(|options| options.render()).unwrap_or_default() {
            let name = word.strip_prefix("--").expect("canonical words are long");
            let name = name.split('=').next().unwrap_or_default();
            prop_assert!(VALUED.contains(&name) || FLAGS.iter().any(|row| row.long == name), "{}", word);
        }
    }

    #[test]
    fn letters_outside_the_table_refuse_the_word(letters in "[!-~]{1,5}") {
        let known = |c: char| "vhiP".contains(c) || FLAGS.iter().any(|row| row.short == Some(c));
        if !letters.starts_with('-') && !letters.chars().all(known) {
            let word = format!("-{letters}");
            prop_assert!(Options::parse_words(&[word]).is_err());
        }
    }

    #[test]
    fn output_is_read_in_any_pieces(bytes in proptest::collection::vec(any::<u8>(), 0..600), cut in 0_usize..600) {
        let mut whole = Vec::new();
        let mut parser = OutputParser::new();
        parser.push(&bytes, |event| whole.push(event));
        whole.extend(parser.finish());
        let mut pieces = Vec::new();
        let mut parser = OutputParser::new();
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        parser.push(first, |event| pieces.push(event));
        parser.push(second, |event| pieces.push(event));
        pieces.extend(parser.finish());
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn listings_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = listing::parse_line(&bytes);
    }

    #[test]
    fn listed_names_come_back(size in any::<u64>(), name in "[^\\x00-\\x1f\\\\]{1,40}") {
        let line = format!("-rw-r--r-- {size:>14} 2026/11/22 00:29:05 {name}");
        let entry = listing::parse_line(line.as_bytes());
        prop_assert_eq!(entry.map(|entry| (entry.size, entry.name)), Some((size, name.into_bytes())));
    }

    #[test]
    fn progress_never_panics_and_only_grows(lines in proptest::collection::vec(
        "[0-9]{1,21} +[0-9]{1,4}% +[0-9]{1,5}\\.[0-9]{2}[kMGT]B/s +[0-9]{1,20}:[0-5][0-9]:[0-5][0-9]( \\(xfr#[0-9]{1,3}, (to|ir)-chk=[0-9]{1,20}/[0-9]{1,20}\\))?", 1..8)) {
        let mut parser = OutputParser::new();
        let mut last = parser.progress();
        for line in lines {
            parser.push(line.as_bytes(), |_| ());
            parser.push(b"\r", |_| ());
            let now = parser.progress();
            prop_assert!(now.bytes >= last.bytes && now.files_done >= last.files_done && now.files_total >= last.files_total);
            prop_assert!(now.percent().is_none_or(|percent| percent <= 100));
            last = now;
        }
    }

    #[test]
    fn parsers_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2_000), code in any::<i32>()) {
        let _ = Version::parse(&bytes);
        let _ = unescape_name(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = Stats::default().absorb(&text);
        let diagnosis = exit::diagnose(ExitCode::Code(code), &bytes, &Stats::default());
        prop_assert!(diagnosis.cause.chars().count() <= exit::CAUSE_CHARS_MAX + 30);
        prop_assert!(!diagnosis.cause.chars().any(char::is_control));
    }

    #[test]
    fn escaped_names_come_back(name in proptest::collection::vec(any::<u8>(), 0..40)) {
        prop_assert_eq!(unescape_name(&escape_as_rsync(&name)), name);
    }

    #[test]
    fn uris_are_refused_or_stable(text in "(rsync://)?([a-z%4]{0,3}(:[a-z@]{0,3})?@)?[-a-z0-9.\\[\\]:]{0,8}(:[0-9]{0,6})?(/[ -~é]{0,6}){0,3}") {
        if let Ok(uri) = RsyncUri::parse(&text) {
            let (uri, _) = uri.split_password();
            let again = RsyncUri::parse(&uri.to_string());
            prop_assert_eq!(again, Ok(uri.clone()), "{} -> {}", text, uri);
            if uri.check_source().is_ok() {
                let operand = uri.operand().into_encoded_bytes();
                prop_assert!(operand.starts_with(b"rsync://") && operand.ends_with(b"/"));
                prop_assert!(!operand.iter().any(u8::is_ascii_control));
            }
        }
    }
}

/// rsync's own escaping under `LC_ALL=C`, as measured: bytes from 0x80 and controls except tab; a `\#` before
/// three digits has its backslash escaped.
fn escape_as_rsync(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, byte) in name.iter().enumerate() {
        let looks_escaped = *byte == b'\\'
            && name.get(at + 1) == Some(&b'#')
            && name.get(at + 2..at + 5).is_some_and(|digits| digits.iter().all(u8::is_ascii_digit));
        if *byte >= 0x80 || (*byte < 0x20 && *byte != b'\t') || looks_escaped {
            out.extend_from_slice(format!("\\#{byte:03o}").as_bytes());
        } else {
            out.push(*byte);
        }
    }
    out
}

#[test]
fn an_endless_line_takes_bounded_memory() {
    let mut parser = OutputParser::new();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        parser.push(&piece, |event| panic!("no line has ended: {event:?}"));
    }
    match parser.finish() {
        Some(rsync::Event::Other { line, cut: true }) => assert_eq!(line.len(), LINE_BYTES_MAX),
        other => panic!("{other:?}"),
    }
}
