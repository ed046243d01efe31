//! The option words of others as words of the allow list: values joined to their options, what only concerns output or
//! left-over files dropped with a note, doubles resolved as rsync resolves them. What the list refuses is told with the
//! list's own reason, and never dropped silently. Does not decide what a refusal means.

use std::path::PathBuf;

use rsync::{DeleteMode, Opt, OptionFault, Options};

use super::OPTION_WORDS_MAX;

/// Long options whose value may stand in the next word.
const LONG_WITH_VALUE: &[&str] = &[
    "address",
    "backup-dir",
    "block-size",
    "bwlimit",
    "cc",
    "checksum-choice",
    "checksum-seed",
    "chmod",
    "chown",
    "compare-dest",
    "compress-choice",
    "compress-level",
    "compress-threads",
    "config",
    "contimeout",
    "copy-as",
    "copy-dest",
    "debug",
    "dparam",
    "early-input",
    "exclude",
    "exclude-from",
    "files-from",
    "filter",
    "groupmap",
    "iconv",
    "include",
    "include-from",
    "info",
    "link-dest",
    "log-file",
    "log-file-format",
    "log-format",
    "max-alloc",
    "max-delete",
    "max-size",
    "min-size",
    "modify-window",
    "only-write-batch",
    "out-format",
    "outbuf",
    "partial-dir",
    "password-file",
    "port",
    "protocol",
    "read-batch",
    "remote-option",
    "rsh",
    "rsync-path",
    "skip-compress",
    "sockopts",
    "stderr",
    "stop-after",
    "stop-at",
    "suffix",
    "temp-dir",
    "time-limit",
    "timeout",
    "usermap",
    "write-batch",
    "zc",
    "zl",
    "zt",
];
/// Letters whose value is the rest of the word or the next one.
const LETTERS_WITH_VALUE: &[(char, &str)] = &[
    ('e', "rsh"),
    ('f', "filter"),
    ('B', "block-size"),
    ('M', "remote-option"),
    ('T', "temp-dir"),
    ('@', "modify-window"),
];
/// Words that change no tree, and what the fleet does instead.
const LEFT_OUT: &[(&[&str], &str)] = &[
    (
        &[
            "quiet",
            "info",
            "debug",
            "out-format",
            "log-format",
            "log-file",
            "log-file-format",
            "stderr",
            "outbuf",
            "motd",
            "no-motd",
            "8-bit-output",
            "msgs2stderr",
            "no-h",
            "no-human-readable",
            "no-verbose",
            "no-v",
        ],
        "the fleet keeps logs and progress by itself",
    ),
    (&["partial-dir", "temp-dir"], "the agent keeps unfinished files in a place of its own"),
    (&["no-D", "no-devices", "no-specials"], "an agent never copies devices"),
];
/// Other names of accepted words.
const SAME: &[(&str, &str)] = &[
    ("no-i-r", "no-inc-recursive"),
    ("no-W", "no-whole-file"),
    ("no-z", "no-compress"),
    ("ignore-non-existing", "existing"),
];

/// A dash and a letter, whichever it is.
const LETTER_CHARS: usize = 2;

/// What became of the words.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Sifted {
    /// Words that the allow list takes, in the order given.
    pub(super) options: Vec<String>,
    /// What was understood or left out without a change of the tree.
    pub(super) notes: Vec<String>,
    /// What cannot be done, and why.
    pub(super) refused: Vec<String>,
    /// The value of `--port`.
    pub(super) port: Option<String>,
    /// The value of `--password-file`.
    pub(super) password_file: Option<PathBuf>,
}

/// Words of rsync's command line, apart.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Words {
    /// One option each, values joined: `--exclude=x`.
    pub(super) options: Vec<String>,
    /// Sources, and the destination last.
    pub(super) operands: Vec<String>,
}

/// Words in the three parts of a project's options.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Parts {
    /// What stands in the place of the default flags.
    pub(super) defaults: Vec<String>,
    /// The delete part; `None`: nothing is deleted.
    pub(super) delete: Option<DeleteMode>,
    /// All other words, and what became of those that are in no part.
    pub(super) others: Sifted,
}

/// Takes options and operands apart, as rsync's own parser does.
pub(super) fn apart(words: &[String]) -> Words {
    let mut apart = Words::default();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            apart.operands.extend(rest.by_ref().cloned());
        } else if let Some(long) = word.strip_prefix("--") {
            match LONG_WITH_VALUE.contains(&long).then(|| rest.next()).flatten() {
                Some(value) => apart.options.push(format!("--{long}={value}")),
                None => apart.options.push(word.clone()),
            }
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            cluster(letters, &mut rest, &mut apart.options);
        } else {
            apart.operands.push(word.clone());
        }
    }
    apart
}

/// Letters behind one dash: the first that takes a value ends them.
fn cluster<'a>(letters: &str, rest: &mut impl Iterator<Item = &'a String>, options: &mut Vec<String>) {
    let valued = |letter: char| LETTERS_WITH_VALUE.iter().find(|(known, _)| *known == letter);
    let Some((at, (letter, long))) = letters.char_indices().find_map(|(at, c)| Some((at, *valued(c)?)))
    else {
        options.push(format!("-{letters}"));
        return;
    };
    if at > 0 {
        options.push(format!("-{}", &letters[..at]));
    }
    let joined = &letters[at + letter.len_utf8()..];
    let value = if joined.is_empty() { rest.next().map(String::as_str) } else { Some(joined) };
    match value {
        Some(value) => options.push(format!("--{long}={}", value.strip_prefix('=').unwrap_or(value))),
        None => options.push(format!("--{long}")),
    }
}

/// Sifts options whose values are joined.
pub(super) fn sift(words: &[String]) -> Sifted {
    let mut sieve = Sieve::default();
    sieve.words(words);
    if let Some(word) = sieve.one_delete() {
        let at = sieve.delete_at.min(sieve.sifted.options.len());
        sieve.sifted.options.insert(at, word);
    }
    sieve.finish()
}

/// Sifts the default part's options and the others, whose values are joined. A delete mode is a part of its own, wherever
/// it stood; what both give stays where it stood first, as no option may stand in two parts.
pub(super) fn sift_parts(defaults: &[String], others: &[String]) -> Parts {
    let mut sieve = Sieve::default();
    sieve.words(defaults);
    let count = sieve.sifted.options.len();
    sieve.words(others);
    let delete = sieve.one_delete().and_then(|word| Options::parse_words(&[word]).ok()?.delete_mode());
    let mut sifted = sieve.finish();
    let others = sifted.options.split_off(count.min(sifted.options.len()));
    let defaults = std::mem::replace(&mut sifted.options, others);
    Parts { defaults, delete, others: sifted }
}

#[derive(Default)]
struct Sieve {
    sifted: Sifted,
    /// How many words it was given.
    count: usize,
    /// The delete options as given, without dashes, and where the first stood.
    deletes: Vec<String>,
    delete_at: usize,
}

impl Sieve {
    fn words(&mut self, words: &[String]) {
        for word in words {
            if self.count == OPTION_WORDS_MAX {
                let text = format!("number {} and all behind it are not read", OPTION_WORDS_MAX + 1);
                return self.refuse(Some(text));
            }
            self.count += 1;
            self.word(word);
        }
    }

    fn word(&mut self, word: &str) {
        match word.strip_prefix("--") {
            Some(long) => self.long(word, long),
            None => self.letters(word),
        }
    }

    fn long(&mut self, word: &str, long: &str) {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        if name == "del" || name == "delete" || name.starts_with("delete-") && name != "delete-missing-args" {
            return self.delete(name);
        }
        if let Some((_, instead)) = LEFT_OUT.iter().find(|(names, _)| names.contains(&name)) {
            return self.note(format!("--{name} is left out: {instead}"));
        }
        match (name, value) {
            ("port", Some(port)) => self.sifted.port = Some(port.to_owned()),
            ("password-file", Some(file)) => self.sifted.password_file = Some(PathBuf::from(file)),
            ("bwlimit", Some(value)) => match kib(value) {
                Some(0) => self.note("--bwlimit=0 is left out: it means no limit".to_owned()),
                Some(kib) => self.allowed(&format!("--bwlimit={kib}")),
                None => self.allowed(word),
            },
            ("timeout" | "contimeout", Some("0")) => {
                self.note(format!("--{name}=0 is left out: the fleet always has a timeout"));
            }
            _ => match SAME.iter().find(|(other, _)| *other == name) {
                Some((_, same)) if value.is_none() => self.allowed(&format!("--{same}")),
                _ => self.allowed(word),
            },
        }
    }

    fn letters(&mut self, word: &str) {
        let letters = word.trim_start_matches('-');
        let single = letters.chars().count() == 1;
        if letters.chars().all(|letter| letter == 'q' || letter == '8') && !letters.is_empty() {
            return self.note(format!("{word} is left out: the fleet keeps logs and progress by itself"));
        }
        if single || self.fits(word) {
            return self.allowed(word);
        }
        // One letter that cannot be must not take the others with it.
        for letter in letters.chars() {
            self.letters_one(letter);
        }
    }

    fn letters_one(&mut self, letter: char) {
        if letter == 'q' || letter == '8' {
            self.note(format!("-{letter} is left out: the fleet keeps logs and progress by itself"));
        } else {
            self.allowed(&format!("-{letter}"));
        }
    }

    fn fits(&self, word: &str) -> bool {
        let mut all: Vec<&str> = self.sifted.options.iter().map(String::as_str).collect();
        all.push(word);
        Options::parse_words(&all).is_ok()
    }

    /// A word for the allow list. Given twice, rsync's rule holds: the last value counts, a flag is a flag.
    fn allowed(&mut self, word: &str) {
        let parsed = match Options::parse_words(&[word]) {
            Ok(parsed) => parsed,
            Err(faults) => return self.refuse(faults.first().map(told)),
        };
        if self.fits(word) {
            // What only speaks of output is accepted and means nothing.
            if !parsed.is_empty() {
                self.sifted.options.push(word.to_owned());
            }
            return;
        }
        let Some(option) = parsed.iter().next() else { return };
        match self.sifted.options.iter().position(|known| is_same_kind(known, option)) {
            Some(_) if matches!(option, Opt::Flag(_)) => self.note(format!("{word} is given twice")),
            Some(at) => {
                let old = std::mem::replace(&mut self.sifted.options[at], word.to_owned());
                self.note(format!("{old} is left out: {word} behind it counts"));
            }
            None => {
                let mut all: Vec<&str> = self.sifted.options.iter().map(String::as_str).collect();
                all.push(word);
                let fault = Options::parse_words(&all).err().and_then(|faults| faults.last().cloned());
                self.refuse(fault.as_ref().map(told));
            }
        }
    }

    fn delete(&mut self, name: &str) {
        if self.deletes.is_empty() {
            self.delete_at = self.sifted.options.len();
        }
        if !self.deletes.iter().any(|known| known == name) {
            self.deletes.push(name.to_owned());
        }
    }

    /// One delete mode of those given; rsync lets plain `--delete` stand beside the others.
    fn one_delete(&mut self) -> Option<String> {
        let excluded = self.deletes.iter().any(|name| name == "delete-excluded");
        let when: Vec<String> = self
            .deletes
            .iter()
            .filter(|name| !["delete", "delete-excluded"].contains(&name.as_str()))
            .cloned()
            .collect();
        let mode = match when.as_slice() {
            [] if excluded => "--delete-excluded".to_owned(),
            [] => return self.deletes.first().map(|_| "--delete".to_owned()),
            [one] if excluded => {
                self.note(format!(
                    "--{one} is left out beside --delete-excluded: deletes come after the transfer"
                ));
                "--delete-excluded".to_owned()
            }
            [one] if one == "delete-before" => {
                let text = "--delete-before is read as --delete-delay: the same files go, after the transfer, so that \
                            a full disk or a broken transfer loses none";
                self.note(text.to_owned());
                DeleteMode::Delay.word().to_owned()
            }
            [one] => format!("--{one}"),
            several => {
                let names: Vec<String> = several.iter().map(|name| format!("--{name}")).collect();
                self.refuse(Some(format!("{} exclude each other", names.join(" and "))));
                return None;
            }
        };
        match Options::parse_words(&[&mode]) {
            Ok(_) => Some(mode),
            Err(faults) => {
                self.refuse(faults.first().map(told));
                None
            }
        }
    }

    fn finish(mut self) -> Sifted {
        // Doubles were resolved; what is left are the bounds of all words together.
        if let Err(faults) = Options::parse_words(&self.sifted.options) {
            self.sifted.refused.extend(faults.iter().map(told));
            self.sifted.options.clear();
        }
        self.sifted
    }

    fn note(&mut self, text: String) {
        if !self.sifted.notes.contains(&text) {
            self.sifted.notes.push(text);
        }
    }

    fn refuse(&mut self, text: Option<String>) {
        let text = text.unwrap_or_else(|| "an option is not accepted".to_owned());
        if !self.sifted.refused.contains(&text) {
            self.sifted.refused.push(text);
        }
    }
}

/// A refusal with the option's name alone: a value may be a secret (`--rsh=sshpass -p …`), and why a project is paused is
/// stored and shown to everybody.
fn told(fault: &OptionFault) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let end = fault.word.char_indices().skip(LETTER_CHARS).find(|(_, c)| !is_name(*c)).map(|(at, _)| at);
    let name = &fault.word[..end.unwrap_or(fault.word.len())];
    format!("\"{name}\": {}", fault.reason)
}

/// Whether a word that is there already says something about the same thing.
fn is_same_kind(known: &str, option: &Opt) -> bool {
    let Ok(known) = Options::parse_words(&[known]) else { return false };
    known.iter().any(|one| match (one, option) {
        (Opt::Flag(one), Opt::Flag(other)) => one == other,
        (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
    })
}

/// KiB/s of rsync's `--bwlimit`, rounded up: `1000`, `5m`, `1.5M` (units of 1,024).
fn kib(text: &str) -> Option<u32> {
    let (number, factor) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 1.0),
        (at, 'm' | 'M') => (&text[..at], 1_024.0),
        (at, 'g' | 'G') => (&text[..at], 1_048_576.0),
        _ => (text, 1.0),
    };
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let value: f64 = number.parse().ok().filter(|_| plain)?;
    let kib = (value * factor).ceil();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    (0.0..=f64::from(rsync::options::BWLIMIT_KIB_MAX)).contains(&kib).then_some(kib as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<String> {
        line.split(' ').map(|word| word.replace('~', " ")).collect()
    }

    fn sifted(line: &str) -> Sifted {
        sift(&apart(&split(line)).options)
    }

    #[test]
    fn options_and_operands_come_apart() {
        let words =
            apart(&split("-avHe ssh --exclude x -fP~y --timeout=5 -T /tmp h::m/ --bwlimit 5m /srv/m/"));
        assert_eq!(
            words.options,
            [
                "-avH",
                "--rsh=ssh",
                "--exclude=x",
                "--filter=P y",
                "--timeout=5",
                "--temp-dir=/tmp",
                "--bwlimit=5m"
            ]
        );
        assert_eq!(words.operands, ["h::m/", "/srv/m/"]);
        assert_eq!(apart(&split("-a -- -x --y")).operands, ["-x", "--y"]);
        assert_eq!(apart(&split("-a --exclude")).options, ["-a", "--exclude"]);
    }

    #[test]
    fn what_the_list_takes_stays_in_its_order() {
        for (line, options) in [
            ("-avH --delete", "-avH --delete"),
            (
                "-aHvh --no-o --no-g --stats --filter R~x --exclude .~~tmp --delete --delete-after --safe-links",
                "-aHvh --no-o --no-g --filter=R~x --exclude=.~~tmp --delete-after",
            ),
            ("-avHq -q --quiet", "-a -H"),
            ("-a --delete-excluded --delete-after", "-a --delete-excluded"),
            ("--delete-before -rt", "--delete-delay -rt"),
            ("-rt --timeout 20 --timeout=30 --bwlimit=1.5m", "-rt --timeout=30 --bwlimit=1536"),
            ("-rt -r --del --no-i-r --partial-dir=.p", "-rt --del --no-inc-recursive"),
        ] {
            let got = sifted(line);
            assert_eq!(got.options, split(options), "{line}: {got:?}");
            assert_eq!(got.refused, [""; 0], "{line}");
        }
        let got = sifted("-a --port=8730 --password-file /etc/p --bwlimit=0");
        assert_eq!((got.port.as_deref(), got.options.len()), (Some("8730"), 1));
        assert_eq!(got.password_file.as_deref(), Some(std::path::Path::new("/etc/p")));
    }

    #[test]
    fn what_is_refused_is_told_and_takes_nothing_else_with_it() {
        for (line, options, why) in [
            ("-avHL --delete", "-a -H --delete", "\"-L\":"),
            ("-a -e ssh", "-a", "\"--rsh\":"),
            ("-a --exclude-from /etc/x -H", "-a -H", "\"--exclude-from\":"),
            ("-a -%", "-a", "\"-%\":"),
            ("-a --delete-after --delete-before", "-a", "exclude each other"),
            ("-a --copy-links", "-a", "--copy-links"),
            ("-a --nonsense", "-a", "--nonsense"),
            ("-rt --owner --no-owner", "-rt --owner", "contradicts"),
        ] {
            let got = sifted(line);
            assert_eq!(got.options, split(options), "{line}: {got:?}");
            assert!(got.refused.iter().any(|text| text.contains(why)), "{line}: {got:?}");
        }
    }

    #[test]
    fn three_parts_stay_apart() {
        let parts = |defaults: &str, others: &str| {
            let words = |line: &str| if line.is_empty() { Vec::new() } else { apart(&split(line)).options };
            let Parts { defaults, delete, others } = sift_parts(&words(defaults), &words(others));
            (defaults.join(" "), others.options.join(" "), delete, others.refused.len())
        };
        let told = |defaults: &str, others: &str, delete: Option<DeleteMode>| {
            (defaults.to_owned(), others.to_owned(), delete, 0)
        };
        assert_eq!(
            parts("-avH", "--exclude=x -z --delete"),
            told("-avH", "--exclude=x -z", Some(DeleteMode::Delay))
        );
        assert_eq!(parts("", "-rt"), told("", "-rt", None));
        let (defaults, others, delete, refused) =
            parts("-rt --delete-after --bwlimit=5", "-r --bwlimit=7 -H --delete");
        // The later value counts, as in rsync, at the place of the first.
        assert_eq!((defaults.as_str(), others.as_str()), ("-rt --bwlimit=7", "-H"));
        assert_eq!((delete, refused), (Some(DeleteMode::After), 0));
        let many: Vec<String> = (0..300).map(|number| format!("--exclude={number}")).collect();
        assert!(
            sift_parts(&split("-a"), &many).others.refused.iter().any(|text| text.contains("number 257"))
        );
    }

    #[test]
    fn a_refusal_holds_no_value() {
        for line in [
            "-a -e sshpass~-p~hunter2~ssh",
            "-a --rsh=sshpass~-p~hunter2~ssh",
            "-aMe=hunter2 --password=hunter2",
            "-a --max-delete=hunter2 --chmod=hunter2 --timeout=hunter2",
            "-a --rsh~hunter2 --max-size=1k --min-size=hunter2",
        ] {
            let got = sifted(line);
            assert!(!got.refused.is_empty() && !format!("{got:?}").contains("hunter2"), "{line}: {got:?}");
        }
    }
}
