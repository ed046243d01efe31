//! rsync's words in their three parts: what replaces the default flags, what is added, and what a pull deletes. Each part
//! goes through the allow list by itself, then all together, so that nothing is given twice and nothing contradicts.

use fleet::refusal::Violation;
use rsync::{DeleteMode, Opt, Options, options};

use crate::v1;

/// The parts as they are stored.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// The basic part, canonical.
    pub(super) options: Vec<String>,
    /// The default part, canonical.
    pub(super) defaults: Option<Vec<String>>,
    /// The delete part, canonical; empty: nothing is deleted.
    pub(super) delete: Option<String>,
}

/// Reads the three parts.
///
/// # Errors
/// Every fault of every word, and of the words together.
pub(super) fn read_parts(wire: &v1::RsyncSettings) -> Result<Parts, Vec<Violation>> {
    let mut faults = Vec::new();
    let given = wire.defaults.as_ref().map(|defaults| defaults.words.as_slice());
    let basic = read_words("rsync.options", &wire.options, &mut faults);
    let defaults = given.and_then(|words| read_words("rsync.defaults.words", words, &mut faults));
    let delete = read_delete(wire.delete, &mut faults);
    if wire.no_defaults && given.is_some_and(|words| !words.is_empty()) {
        let text = "no_defaults and words in their place are both given; leave one of them out";
        faults.push(Violation::new("rsync.no_defaults", text));
    }
    // Words about output are accepted and left out, so what counts is what is left.
    let nothing = |part: &Option<Options>| part.as_ref().is_some_and(Options::is_empty);
    if nothing(&basic) && (nothing(&defaults) || (wire.no_defaults && given.is_none())) {
        let text = "without default flags options are needed: rsync would copy nothing";
        let field = if wire.no_defaults { "rsync.no_defaults" } else { "rsync.defaults" };
        faults.push(Violation::new(field, text));
    }
    if delete == Some(None) && !wire.no_defaults && given.is_none() {
        let text = "NONE needs words in place of our default flags, such as -rlptH and --delay-updates in the default part";
        faults.push(Violation::new("rsync.delete", text));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let basic = basic.unwrap_or_default();
    check_together(&basic, defaults.as_ref(), delete, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Parts {
        options: basic.render(),
        defaults: defaults.map(|defaults| defaults.render()),
        delete: delete.map(|mode| mode.map_or_else(String::new, |mode| mode.word().to_owned())),
    })
}

/// The wire's name of a stored delete part.
pub(super) fn delete_to_wire(word: Option<&str>) -> v1::DeleteMode {
    match word {
        None => v1::DeleteMode::Unspecified,
        Some("--delete-delay") => v1::DeleteMode::Delay,
        Some("--delete-after") => v1::DeleteMode::After,
        Some("--delete-during") => v1::DeleteMode::During,
        Some("--delete-excluded") => v1::DeleteMode::Excluded,
        Some(_) => v1::DeleteMode::None,
    }
}

/// The delete part. The outer `None`: not given; the inner: nothing is deleted.
#[allow(clippy::option_option, reason = "not given and given as nothing are different things here")]
fn read_delete(number: i32, faults: &mut Vec<Violation>) -> Option<Option<DeleteMode>> {
    match v1::DeleteMode::try_from(number) {
        Ok(v1::DeleteMode::Unspecified) => None,
        Ok(v1::DeleteMode::None) => Some(None),
        Ok(v1::DeleteMode::Delay) => Some(Some(DeleteMode::Delay)),
        Ok(v1::DeleteMode::After) => Some(Some(DeleteMode::After)),
        Ok(v1::DeleteMode::During) => Some(Some(DeleteMode::During)),
        Ok(v1::DeleteMode::Excluded) => Some(Some(DeleteMode::Excluded)),
        Err(_) => {
            faults.push(Violation::new("rsync.delete", format!("{number}: there is no such value")));
            None
        }
    }
}

/// What the parts mean together; each is right by itself.
#[allow(clippy::option_option, reason = "as the delete part is read")]
fn check_together(
    basic: &Options,
    defaults: Option<&Options>,
    delete: Option<Option<DeleteMode>>,
    faults: &mut Vec<Violation>,
) {
    for (field, words) in [("rsync.options", Some(basic)), ("rsync.defaults.words", defaults)] {
        let mode = words.and_then(Options::delete_mode).filter(|_| delete.is_some() || defaults.is_some());
        if let Some(mode) = mode {
            let text = format!(
                "\"{}\": belongs into the delete part, where that or the default part is given",
                mode.word()
            );
            faults.push(Violation::new(field, text));
        }
    }
    let Some(defaults) = defaults else { return };
    let same = |option: &&Opt| match option {
        Opt::Filter(_) => defaults.iter().any(|other| other == *option),
        Opt::Flag(flag) => defaults.has(*flag),
        option => {
            defaults.iter().any(|other| std::mem::discriminant(other) == std::mem::discriminant(*option))
        }
    };
    let twice: Vec<&Opt> = basic.iter().filter(same).collect();
    for option in &twice {
        let text = format!(
            "\"{}\": stands in the default part, too; no option may stand in two parts",
            option.word()
        );
        faults.push(Violation::new("rsync.options", text));
    }
    if !twice.is_empty() {
        return;
    }
    let all: Vec<String> = defaults.render().into_iter().chain(basic.render()).collect();
    match Options::parse_words(&all) {
        Err(more) => faults.extend(more.iter().map(|bad| Violation::new("rsync.options", bad.to_string()))),
        Ok(all) if delete != Some(None) && !all.is_recursive() => {
            let text = "deleting needs --recursive or --archive among the words; otherwise say NONE";
            faults.push(Violation::new("rsync.delete", text));
        }
        Ok(_) => {}
    }
}

/// The words of one part. A fault of one word names its place; a contradiction between words names them all.
fn read_words(field: &str, words: &[String], faults: &mut Vec<Violation>) -> Option<Options> {
    let together = match Options::parse_words(words) {
        Ok(options) => return Some(options),
        Err(faults) => faults,
    };
    let mut found = Vec::new();
    let mut of_one_word = Vec::new();
    for (index, word) in words.iter().enumerate().take(options::WORDS_MAX) {
        for bad in Options::parse_words(&[word]).err().into_iter().flatten() {
            found.push(Violation::new(format!("{field}[{index}]"), bad.to_string()));
            of_one_word.push(bad);
        }
    }
    let between = together.iter().filter(|bad| !of_one_word.contains(bad));
    found.extend(between.map(|bad| Violation::new(field, bad.to_string())));
    // The same word many times over is one fault.
    found.dedup();
    faults.append(&mut found);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn wire(options: &[&str], defaults: Option<&[&str]>, delete: v1::DeleteMode) -> v1::RsyncSettings {
        v1::RsyncSettings {
            options: words(options),
            defaults: defaults.map(|defaults| v1::OptionWords { words: words(defaults) }),
            delete: delete.into(),
            ..v1::RsyncSettings::default()
        }
    }

    fn faults(wire: &v1::RsyncSettings) -> Vec<(String, String)> {
        let faults = read_parts(wire).expect_err("faulty parts");
        faults.into_iter().map(|fault| (fault.field, fault.description)).collect()
    }

    /// A5 of the mission: three parts, each absent or as given, order kept.
    #[test]
    fn each_part_is_absent_or_as_given() {
        use v1::DeleteMode as Mode;
        let read = |options, defaults, delete| read_parts(&wire(options, defaults, delete)).unwrap();
        let none = read(&[], None, Mode::Unspecified);
        assert!(none.options.is_empty() && none.defaults.is_none() && none.delete.is_none());
        let all = read(&["--exclude=b", "--exclude=a", "-z"], Some(&["-avH"]), Mode::After);
        assert_eq!(all.options, ["--exclude=b", "--exclude=a", "--compress"]);
        assert_eq!(all.defaults.unwrap(), ["--archive", "--hard-links"]);
        assert_eq!(all.delete.as_deref(), Some("--delete-after"));
        let bare = read(&["-rt"], Some(&[]), Mode::None);
        assert_eq!((bare.defaults, bare.delete), (Some(Vec::new()), Some(String::new())));
        for number in 0..=5 {
            let mode = Mode::try_from(number).unwrap();
            let parts = read(&["-z"], Some(&["-a"]), mode);
            assert_eq!(delete_to_wire(parts.delete.as_deref()), mode);
        }
    }

    #[test]
    fn nothing_is_given_in_two_parts() {
        use v1::DeleteMode as Mode;
        let twice = faults(&wire(
            &["-H", "--exclude=a", "--timeout=60"],
            Some(&["-avH", "--exclude=a", "--timeout=70"]),
            Mode::Unspecified,
        ));
        let said: Vec<&str> = twice.iter().map(|(_, said)| said.split(':').next().unwrap()).collect();
        assert_eq!(said, ["\"--hard-links\"", "\"--exclude=a\"", "\"--timeout=60\""]);
        assert!(twice.iter().all(|(field, _)| field == "rsync.options"), "{twice:?}");
        for (options, defaults, delete) in [
            (&["--delete"][..], None, Mode::After),
            (&["--delete-after"], Some(&["-a"][..]), Mode::Unspecified),
        ] {
            let found = faults(&wire(options, defaults, delete));
            assert!(found.len() == 1 && found[0].1.contains("belongs into the delete part"), "{found:?}");
        }
        let contrary = faults(&wire(&["--inplace"], Some(&["-a", "--delay-updates"]), Mode::Unspecified));
        assert!(contrary[0].1.contains("contradicts"), "{contrary:?}");
    }

    #[test]
    fn what_would_copy_or_delete_nothing_is_told() {
        use v1::DeleteMode as Mode;
        let field = |wire: &v1::RsyncSettings| faults(wire)[0].0.clone();
        assert_eq!(field(&wire(&[], Some(&[]), Mode::Unspecified)), "rsync.defaults");
        assert_eq!(field(&wire(&[], None, Mode::None)), "rsync.delete");
        assert_eq!(field(&wire(&[], Some(&["-t"]), Mode::Delay)), "rsync.delete");
        assert!(read_parts(&wire(&[], Some(&["-t"]), Mode::None)).is_ok());
        let both = v1::RsyncSettings { no_defaults: true, ..wire(&[], Some(&["-a"]), Mode::Unspecified) };
        assert_eq!(field(&both), "rsync.no_defaults");
        assert_eq!(field(&v1::RsyncSettings { delete: 9, ..v1::RsyncSettings::default() }), "rsync.delete");
        let bad = faults(&wire(&["-e"], Some(&["-a", "--rsh=x"]), Mode::Unspecified));
        let fields: Vec<&str> = bad.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["rsync.options[0]", "rsync.defaults.words[1]"], "all at once");
    }
}
