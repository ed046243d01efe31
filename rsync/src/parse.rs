//! Words to [`Options`]. The rules: a word is one option, or letters that are all flags; a value stands behind `=`
//! and never in the next word; the first letter that is not in the table refuses the whole word, so that `-avHe…`,
//! `-e.Lsf` and the typing error `-delete` (which rsync reads as `-d -e lete`) get nowhere.

use crate::filter::{Action, Rule};
use crate::options::{
    BWLIMIT_KIB_MAX, CHMOD_BYTES_MAX, CONNECT_TIMEOUT_S, Chmod, DeleteMode, Flag, MAX_DELETE_MAX,
    MODIFY_WINDOW_S_MAX, Opt, OptionFault, Options, Size, TIMEOUT_S, WORD_BYTES_MAX, WORDS_BYTES_MAX,
    WORDS_MAX,
};
use crate::tables::{self, DROPPED, EXCLUSIVE, FLAGS};
use crate::text::printable;

/// Most `-v`; more only slows rsync down.
const VERBOSE_MAX: usize = 2;

/// What a long option without a value means.
const DELETE_MODES: &[(&str, DeleteMode)] = &[
    ("delete", DeleteMode::Delay),
    ("delete-delay", DeleteMode::Delay),
    ("delete-after", DeleteMode::After),
    ("delete-during", DeleteMode::During),
    ("del", DeleteMode::During),
    ("delete-excluded", DeleteMode::Excluded),
];

type ReadValue = fn(&str) -> Result<Opt, String>;

/// Long options with a value.
const VALUED: &[(&str, ReadValue)] = &[
    ("max-delete", |value| number(value, 0, MAX_DELETE_MAX).map(Opt::MaxDelete)),
    ("exclude", |value| Rule::new(Action::Exclude, value).map(Opt::Filter)),
    ("include", |value| Rule::new(Action::Include, value).map(Opt::Filter)),
    ("filter", |value| Rule::parse(value).map(Opt::Filter)),
    ("max-size", |value| size(value).map(Opt::MaxSize)),
    ("min-size", |value| size(value).map(Opt::MinSize)),
    ("bwlimit", |value| number(value, 1, BWLIMIT_KIB_MAX).map(Opt::Bwlimit)),
    ("timeout", |value| number(value, *TIMEOUT_S.start(), *TIMEOUT_S.end()).map(Opt::Timeout)),
    ("contimeout", |value| {
        number(value, *CONNECT_TIMEOUT_S.start(), *CONNECT_TIMEOUT_S.end()).map(Opt::ConnectTimeout)
    }),
    ("modify-window", |value| number(value, 0, MODIFY_WINDOW_S_MAX).map(Opt::ModifyWindow)),
    ("chmod", |value| {
        Chmod::parse(value).map(Opt::Chmod).ok_or_else(|| {
            format!(
                "write clauses like Du=rwx,go-w: [D or F][u g o] + - or = [r w x X], at most {CHMOD_BYTES_MAX} \
                 bytes; numbers and the bits s and t are not accepted"
            )
        })
    }),
];

pub(crate) fn parse_words<S: AsRef<str>>(words: &[S]) -> Result<Options, Vec<OptionFault>> {
    let mut parser = Parser::default();
    let mut bytes = 0;
    for (at, word) in words.iter().map(AsRef::as_ref).enumerate() {
        bytes += word.len();
        // Nothing behind a limit is looked at, so the faults are bounded too.
        if at >= WORDS_MAX {
            parser.fault(word, format!("is word {}; at most {WORDS_MAX} are accepted", at + 1));
            break;
        }
        if bytes > WORDS_BYTES_MAX {
            parser.fault(word, format!("all words together are longer than {WORDS_BYTES_MAX} bytes"));
            break;
        }
        if let Err(reason) = parser.word(word) {
            parser.fault(word, reason);
        }
    }
    parser.finish()
}

#[derive(Default)]
struct Parser {
    /// Each option with the word it came from.
    list: Vec<(Opt, String)>,
    verbose: usize,
    faults: Vec<OptionFault>,
}

impl Parser {
    fn fault(&mut self, word: &str, reason: impl Into<String>) {
        self.faults.push(OptionFault::new(word, reason));
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        if word.len() > WORD_BYTES_MAX {
            return Err(format!("is longer than {WORD_BYTES_MAX} bytes"));
        }
        if word.chars().any(char::is_control) {
            return Err("holds a control character".to_owned());
        }
        let options = match word.strip_prefix("--") {
            Some("") => return Err("ends the options; only options are accepted here".to_owned()),
            Some(long) => self.long(long)?,
            None => match word.strip_prefix('-') {
                Some("") => return Err("is no option".to_owned()),
                Some(letters) => self.letters(letters)?,
                None => {
                    return Err(
                        "is no option; a value belongs into the word of its option, --name=value".to_owned()
                    );
                }
            },
        };
        for option in options {
            self.add(option, word)?;
        }
        Ok(())
    }

    fn long(&mut self, text: &str) -> Result<Vec<Opt>, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        if let Some((_, parse)) = VALUED.iter().find(|(long, _)| *long == name) {
            let value = value.ok_or_else(|| format!("needs its value in the same word: --{name}=VALUE"))?;
            return parse(value).map(|option| vec![option]);
        }
        let option =
            if let Some(row) = FLAGS.iter().find(|row| row.long == name || row.aliases.contains(&name)) {
                vec![Opt::Flag(row.flag)]
            } else if let Some((_, mode)) = DELETE_MODES.iter().find(|(long, _)| *long == name) {
                vec![Opt::Delete(*mode)]
            } else if DROPPED.iter().any(|(long, _)| *long == name) {
                self.count_verbose(usize::from(name == "verbose"))?;
                Vec::new()
            } else {
                return Err(tables::why_long_refused(name).unwrap_or(tables::UNKNOWN).to_owned());
            };
        if value.is_some() { Err(format!("--{name} takes no value")) } else { Ok(option) }
    }

    fn letters(&mut self, letters: &str) -> Result<Vec<Opt>, String> {
        let mut options = Vec::new();
        let mut verbose = 0;
        if let Some(why) = why_not_letters(letters) {
            return Err(why);
        }
        for letter in letters.chars() {
            if let Some(row) = FLAGS.iter().find(|row| row.short == Some(letter)) {
                options.push(Opt::Flag(row.flag));
            } else if letter == 'P' {
                options.push(Opt::Flag(Flag::Partial));
            } else if DROPPED.iter().any(|(_, short)| *short == Some(letter)) {
                verbose += usize::from(letter == 'v');
            } else {
                let why = tables::why_short_refused(letter).unwrap_or(tables::UNKNOWN);
                let alone = letters.chars().count() == 1;
                let shown = printable(letter.to_string().as_bytes(), 8);
                return Err(if alone { why.to_owned() } else { format!("the letter {shown} in it: {why}") });
            }
        }
        // Only now: what else is wrong with a word is the reason to tell.
        self.count_verbose(verbose)?;
        Ok(options)
    }

    fn count_verbose(&mut self, more: usize) -> Result<(), String> {
        self.verbose += more;
        if self.verbose > VERBOSE_MAX { Err(format!("verbose at most {VERBOSE_MAX} times")) } else { Ok(()) }
    }

    fn add(&mut self, option: Opt, word: &str) -> Result<(), String> {
        // Filter rules are a list; of anything else there is one.
        let same = |other: &Opt| match (&option, other) {
            (Opt::Filter(_), _) => false,
            (Opt::Flag(a), Opt::Flag(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        };
        if let Some((other, other_word)) = self.list.iter().find(|(other, _)| same(other)) {
            let other_word = printable(other_word.as_bytes(), 40);
            return Err(match other {
                Opt::Delete(_) => format!("a second delete mode besides {other_word}; give exactly one"),
                Opt::Flag(flag) => format!("gives {} a second time (first in {other_word})", flag.word()),
                _ => format!("is given a second time (first as {other_word})"),
            });
        }
        self.list.push((option, word.to_owned()));
        Ok(())
    }

    fn finish(mut self) -> Result<Options, Vec<OptionFault>> {
        self.check_contradictions();
        let options = Options { list: self.list.into_iter().map(|(option, _)| option).collect() };
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        // One word of letters is many canonical words, and those are what is stored and parsed again.
        let canonical = options.render();
        if canonical.len() > WORDS_MAX || canonical.iter().map(String::len).sum::<usize>() > WORDS_BYTES_MAX {
            let reason =
                format!("these are more than {WORDS_MAX} options or {WORDS_BYTES_MAX} bytes written out");
            return Err(vec![OptionFault::new(&canonical[canonical.len() - 1], reason)]);
        }
        Ok(options)
    }

    fn check_contradictions(&mut self) {
        let word_of =
            |flag| self.list.iter().find(|(option, _)| *option == Opt::Flag(flag)).map(|(_, word)| word);
        let mut faults = Vec::new();
        for (one, other) in EXCLUSIVE {
            if let (Some(_), Some(word)) = (word_of(*one), word_of(*other)) {
                faults.push(OptionFault::new(word, format!("{} contradicts {}", other.word(), one.word())));
            }
        }
        let min = self.list.iter().find_map(|(option, word)| match option {
            Opt::MinSize(size) => Some((size.bytes(), word)),
            _ => None,
        });
        let max = self.list.iter().find_map(|(option, _)| match option {
            Opt::MaxSize(size) => Some(size.bytes()),
            _ => None,
        });
        if let (Some((min, word)), Some(max)) = (min, max)
            && min > max
        {
            faults.push(OptionFault::new(word, "is above --max-size: no file would be copied"));
        }
        self.faults.append(&mut faults);
    }
}

/// The fault of letters behind one dash that spell a long option, accepted or refused.
fn why_not_letters(letters: &str) -> Option<String> {
    let name = letters.split('=').next().unwrap_or_default();
    let mut accepted = FLAGS
        .iter()
        .flat_map(|row| std::iter::once(row.long).chain(row.aliases.iter().copied()))
        .chain(DROPPED.iter().map(|(long, _)| *long))
        .chain(DELETE_MODES.iter().map(|(long, _)| *long))
        .chain(VALUED.iter().map(|(long, _)| *long));
    if name.len() < 2 {
        None
    } else if accepted.any(|long| long == name) {
        Some(format!("one dash means single letters; write --{letters}"))
    } else {
        let row = tables::DENY.iter().find(|row| row.long.contains(&name))?;
        Some(format!("one dash means single letters, and --{name} {}", row.why))
    }
}

/// A decimal number in a range. rsync itself takes `0x10`, `-5` and `010`.
fn number(text: &str, min: u32, max: u32) -> Result<u32, String> {
    let plain = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    let value = plain.then(|| text.parse().ok()).flatten().filter(|value| (min..=max).contains(value));
    value.ok_or_else(|| format!("the value must be a decimal number from {min} to {max}"))
}

fn size(text: &str) -> Result<Size, String> {
    Size::parse(text)
        .ok_or_else(|| "the value must be a number like 500M: 1 to 16 digits and one of K M G T".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(words: &str) -> Vec<String> {
        let words: Vec<&str> = words.split(' ').collect();
        Options::parse_words(&words).unwrap_or_else(|faults| panic!("{words:?}: {faults:?}")).render()
    }

    #[test]
    fn words_become_canonical() {
        for (words, expected) in [
            ("-avH --delete", "--archive --hard-links --delete-delay"),
            ("-rlptH --del", "--recursive --links --perms --times --hard-links --delete-during"),
            ("-rtP --no-o --no-g", "--recursive --times --partial --no-owner --no-group"),
            ("-vv -hh --stats --progress -i -4", "--ipv4"),
            (
                "--max-delete=0 --bwlimit=1 --timeout=10 --contimeout=600",
                "--max-delete=0 --bwlimit=1 --timeout=10 --contimeout=600",
            ),
            ("--chmod=Du+x,go-w,F=,+X --max-size=500M", "--chmod=Du+x,go-w,F=,+X --max-size=500M"),
        ] {
            assert_eq!(canonical(words).join(" "), expected, "{words}");
        }
        assert_eq!(
            Options::parse_words(&["--filter=- a b", "--filter=include c", "--filter=protect d"])
                .unwrap()
                .render(),
            ["--exclude=a b", "--include=c", "--filter=P d"]
        );
    }

    #[test]
    fn all_faults_at_once() {
        let faults = Options::parse_words(&["-e", "-a", "x", "--timeout=5", "--bwlimit"]).unwrap_err();
        let shown: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "\"-e\": runs a program of your choice; never allowed",
                "\"x\": is no option; a value belongs into the word of its option, --name=value",
                "\"--timeout=5\": the value must be a decimal number from 10 to 86400",
                "\"--bwlimit\": needs its value in the same word: --bwlimit=VALUE",
            ]
        );
    }

    #[test]
    fn limits() {
        let many = vec!["--exclude=a"; WORDS_MAX];
        assert!(Options::parse_words(&many).is_ok());
        assert_eq!(
            Options::parse_words(&vec!["-a"; WORDS_MAX + 9])
                .unwrap_err()
                .last()
                .map(|f| f.reason.clone())
                .unwrap(),
            "is word 65; at most 64 are accepted"
        );
        // Written out, the letters are 38 words.
        let mut words = vec!["-rlptgoHEOJ"];
        words.extend(vec!["--exclude=a"; WORDS_MAX - 5]);
        assert!(Options::parse_words(&words).unwrap_err()[0].reason.contains("written out"));
        let long = format!("--exclude={}", "x".repeat(WORD_BYTES_MAX));
        assert!(Options::parse_words(&[long]).unwrap_err()[0].reason.contains("longer than 4096"));
        let pattern = format!("--exclude={}", "x".repeat(1000));
        assert!(Options::parse_words(&vec![pattern; 17]).unwrap_err()[0].reason.contains("together"));
    }

    #[test]
    fn what_the_agent_must_allow_and_what_is_unwise() {
        let options = Options::parse_words(&["-aAXcz"]).unwrap();
        assert_eq!(options.needs_opt_in(), [Flag::Acls, Flag::Xattrs]);
        assert_eq!(options.warnings().len(), 2);
        assert!(Options::parse_words(&["-t"]).unwrap().warnings()[0].contains("--recursive"));
        assert!(Options::default().warnings().is_empty() && Options::default().is_recursive());
    }
}
