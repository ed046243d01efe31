//! A crontab's lines of rsync. What stands around rsync and changes nothing of the tree (`flock`, `nice`, `cd`,
//! redirections) is taken off with a note; what else a line runs makes its project paused. Runs nothing.

use std::{collections::BTreeMap, path::Path};

use fleet::schedule::{parse_crontab, parse_span, parse_zone};
use mirror_proto::v1::{self, schedule::Cadence};
use zeroize::Zeroizing;

use super::{Draft, Import, finish, options, shell};

/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: usize = 16 * 1_024;
/// Fields of a schedule.
const FIELDS: usize = 5;
/// Most programs around one rsync that are taken off.
const WRAPPERS_MAX: usize = 16;

/// What holds for the lines below it.
#[derive(Default)]
struct Environment {
    variables: BTreeMap<String, String>,
    time_zone: String,
}

/// Reads the text.
pub(super) fn read(import: &mut Import<'_>, text: &str, system: bool) {
    let time_zone = import.settings.time_zone.clone().unwrap_or_default();
    let mut environment = Environment { time_zone, ..Environment::default() };
    for (index, line) in text.lines().enumerate() {
        let place = format!("line {}", index + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.len() > LINE_BYTES_MAX {
            import.faults.add(place, format_args!("is longer than {LINE_BYTES_MAX} bytes"));
            continue;
        }
        match assignment(line) {
            Some((name, value)) => set(import, &mut environment, &place, name, value),
            None => entry(import, &environment, &place, line, system),
        }
    }
    if import.drafts.is_empty() && import.faults.is_empty() {
        import.faults.add("the file", "holds no line of rsync that can be a project");
        let left_out = std::mem::take(&mut import.left_out);
        left_out.into_iter().for_each(|(place, why)| import.faults.add(place, why));
    }
}

/// `NAME = value`, as cron reads it.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end().trim_matches(['"', '\'']);
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    let value = value.trim();
    let quoted = |mark: char| value.strip_prefix(mark).and_then(|rest| rest.strip_suffix(mark));
    is_name.then(|| (name, quoted('"').or_else(|| quoted('\'')).unwrap_or(value)))
}

fn set(import: &mut Import<'_>, environment: &mut Environment, place: &str, name: &str, value: &str) {
    match name {
        "CRON_TZ" => match parse_zone(value) {
            Ok(_) => value.clone_into(&mut environment.time_zone),
            Err(bad) => import.faults.add(place, format_args!("CRON_TZ {:?}: {}", bad.value, bad.rule)),
        },
        "MAILTO" | "MAILFROM" => {
            import.once("MAILTO is left out: mirrorctl status and run log say what went wrong");
        }
        _ => {}
    }
    environment.variables.insert(name.to_owned(), value.to_owned());
}

/// A line with a schedule.
fn entry(import: &mut Import<'_>, environment: &Environment, place: &str, line: &str, system: bool) {
    let Some((schedule, rest)) = schedule_of(line) else {
        return import.leave_out(place, "is no line of a crontab");
    };
    let rest = match system.then(|| rest.split_once(char::is_whitespace)) {
        Some(Some((_, command))) => command.trim_start(),
        Some(None) => return import.leave_out(place, "has no command behind the user"),
        None => rest,
    };
    if !rest.to_ascii_lowercase().contains("rsync") {
        return import.leave_out(place, "runs no rsync that can be seen");
    }
    let Some(command) = without_percent(rest) else {
        return import.leave_out(place, "holds %, behind which cron feeds a program's input");
    };
    let line = match shell::line(&command, &environment.variables) {
        Ok(line) => line,
        Err(why) => return import.leave_out(place, format!("it {why}")),
    };
    let found = commands(&line);
    if found.is_empty() {
        let hint = if rest.split_whitespace().nth(1).is_some_and(is_rsync) && !system {
            "; if users stand behind the five fields, add --system"
        } else {
            ""
        };
        return import.leave_out(place, format!("runs a script, or an rsync that does not pull{hint}"));
    }
    for one in found {
        let Some(mut draft) = draft(import, environment, place, &one) else { continue };
        around(&mut draft, &line, &one);
        when(import, environment, &mut draft, &schedule);
        if !import.take(draft) {
            return;
        }
    }
}

/// The schedule and what stands behind it.
fn schedule_of(line: &str) -> Option<(String, &str)> {
    let count = if line.starts_with('@') { 1 } else { FIELDS };
    let mut rest = line;
    let mut fields = Vec::with_capacity(count);
    for _ in 0..count {
        let (field, behind) = rest.split_once(char::is_whitespace)?;
        fields.push(field);
        rest = behind.trim_start();
    }
    (!rest.is_empty()).then(|| (fields.join(" "), rest))
}

/// The command as cron hands it to the shell; `None`: an unescaped `%` ends it.
fn without_percent(command: &str) -> Option<String> {
    let mut text = String::with_capacity(command.len());
    let mut characters = command.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.next_if_eq(&'%').is_some() => text.push('%'),
            '%' => return None,
            other => text.push(other),
        }
    }
    Some(text)
}

/// One rsync of a line, taken out of what stands around it.
#[derive(Default)]
struct Rsync {
    /// rsync's own words, without its name.
    words: Vec<String>,
    /// Where it runs, by a `cd` before it.
    directory: Option<String>,
    password: Option<Zeroizing<String>>,
    notes: Vec<String>,
    pauses: Vec<String>,
    run_timeout: Option<u64>,
    /// The programs that the line runs besides it, by their names alone.
    others: Vec<String>,
}

fn commands(line: &shell::Line) -> Vec<Rsync> {
    let mut directory = None;
    let mut found: Vec<Rsync> = Vec::new();
    let mut others = Vec::new();
    let mut variables = Vec::new();
    for command in &line.commands {
        if let [cd, to] = command.words.as_slice()
            && cd == "cd"
        {
            directory = Some(to.clone());
            continue;
        }
        if let Some(set) = assignments(&command.words) {
            variables.extend(set);
            continue;
        }
        let mut rsync = Rsync { directory: directory.clone(), ..Rsync::default() };
        variables.iter().for_each(|(name, value)| rsync.variable(name, value));
        rsync.unwrap(&command.words);
        if rsync.words.is_empty() {
            let program = shell::program(command.words.iter().map(String::as_str));
            others.push(finish::shown(base(program)));
            continue;
        }
        if command.is_piped {
            rsync.pauses.push("its line is a pipe".to_owned());
        }
        found.push(rsync);
    }
    let several = found.len() > 1;
    for rsync in &mut found {
        rsync.others.clone_from(&others);
        if several {
            rsync.pauses.push("its line runs rsync several times".to_owned());
        }
    }
    found
}

/// What a command sets that does nothing else, `A=x` or `export A=x B=y`; it holds for the rest of the line.
fn assignments(words: &[String]) -> Option<Vec<(&str, &str)>> {
    let words = if words.first().is_some_and(|word| word == "export") { &words[1..] } else { words };
    words.iter().map(|word| assignment(word)).collect()
}

fn base(program: &str) -> &str {
    Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or(program)
}

fn is_rsync(word: &str) -> bool {
    base(word) == "rsync"
}

impl Rsync {
    /// Takes off what stands before rsync; its words stay empty where none is found.
    fn unwrap(&mut self, words: &[String]) {
        let mut words = words.to_vec();
        for _ in 0..WRAPPERS_MAX {
            while let Some((name, value)) = words.first().and_then(|word| assignment(word)) {
                self.variable(name, value);
                words.remove(0);
            }
            let Some(program) = words.first().map(|word| base(word).to_owned()) else { return };
            if program == "rsync" {
                // Its own name is not one of its words, and the mark keeps an rsync without words apart from none.
                self.words = words;
                return;
            }
            let Some(behind) = self.wrapper(&program, &words[1..]) else { return };
            words = behind;
        }
    }

    fn variable(&mut self, name: &str, value: &str) {
        match name {
            "RSYNC_PASSWORD" => self.password = Some(Zeroizing::new(value.to_owned())),
            name if name.starts_with("RSYNC_") => {
                self.pauses
                    .push(format!("it sets {}, which agents do not pass to rsync", finish::shown(name)));
            }
            _ => {}
        }
    }

    /// The words behind a program that runs another; `None`: it is none that is known.
    fn wrapper(&mut self, program: &str, words: &[String]) -> Option<Vec<String>> {
        // Options whose value is the next word.
        let (valued, operands): (&[&str], usize) = match program {
            "flock" => (&["-w", "--wait", "--timeout", "-E", "--conflict-exit-code"], 1),
            "nice" => (&["-n", "--adjustment"], 0),
            "ionice" => (&["-c", "--class", "-n", "--classdata"], 0),
            "timeout" => (&["-k", "--kill-after", "-s", "--signal"], 1),
            "env" | "exec" | "nohup" | "setsid" | "chronic" | "cronic" | "time" | "command" => (&[], 0),
            _ => return None,
        };
        let mut rest = words.iter().peekable();
        while let Some(option) = rest.next_if(|word| word.starts_with('-')) {
            if valued.contains(&option.as_str()) {
                rest.next();
            } else if program == "env" {
                return None;
            }
        }
        for _ in 0..operands {
            let operand = rest.next()?;
            if program == "timeout" {
                self.run_timeout = seconds(operand);
            }
        }
        let mut behind: Vec<String> = rest.cloned().collect();
        if program == "flock" && behind.first().is_some_and(|word| word == "-c" || word == "--command") {
            behind = shell::words(behind.get(1)?).ok()?;
        }
        self.notes.push(format!("{program} is left out: {}", instead(program)));
        Some(behind)
    }
}

/// What the fleet does where such a program stood.
fn instead(program: &str) -> &'static str {
    match program {
        "flock" => "two runs never work on one tree",
        "nice" | "ionice" => "an agent's unit says how much its programs may take",
        "timeout" => "its time is the longest that a run may take",
        _ => "it changes nothing of the tree",
    }
}

/// Seconds of `timeout`'s operand: `90`, `6h`.
fn seconds(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| parse_span(text).ok())
}

/// The project of one rsync; `None`: it is none, which is told.
fn draft(import: &mut Import<'_>, environment: &Environment, place: &str, rsync: &Rsync) -> Option<Draft> {
    let apart = options::apart(rsync.words.get(1..).unwrap_or_default());
    let Some((destination, sources)) = apart.operands.split_last().filter(|(_, sources)| !sources.is_empty())
    else {
        import.leave_out(place, "its rsync has no source and destination");
        return None;
    };
    if destination.contains("::") || destination.contains("://") || remote_shell(destination) {
        import.leave_out(place, "its rsync sends to another host");
        return None;
    }
    let mut draft = Draft::new(place, "");
    let sifted = options::sift(&apart.options);
    let port = sifted.port.clone();
    import.tell_of_own_flags(&apart.options);
    draft.set_options(sifted, true);
    let own = match sources {
        [source] => draft.set_source(source, port.as_deref()),
        several => {
            draft.pause(format!("its rsync has {} sources", several.len()));
            None
        }
    };
    let from = rsync.directory.as_deref().unwrap_or_default();
    draft.directory =
        if destination.starts_with('/') { destination.clone() } else { format!("{from}/{destination}") };
    if !draft.directory.starts_with('/') || (from.is_empty() && !destination.starts_with('/')) {
        import.leave_out(place, "its destination is no absolute path");
        return None;
    }
    if let Some(own) = own {
        draft.note(format!(
            "rsync made the directory {:?}, since its source does not end with a slash",
            finish::shown(&own)
        ));
        draft.directory = format!("{}/{own}", draft.directory.trim_end_matches('/'));
    }
    let last = draft.directory.trim_end_matches('/').rsplit('/').find(|part| *part != ".");
    draft.name = last.unwrap_or_default().to_owned();
    let inherited = environment.variables.get("RSYNC_PASSWORD").map(|text| Zeroizing::new(text.clone()));
    if draft.password.is_none() && draft.password_file.is_none() {
        draft.password = rsync.password.clone().or(inherited).filter(|text| !text.is_empty());
    }
    Some(draft)
}

/// `host:path`, which a slash before the colon makes a file's name.
fn remote_shell(text: &str) -> bool {
    text.split_once(':').is_some_and(|(host, _)| !host.contains('/'))
}

/// What stood around rsync.
fn around(draft: &mut Draft, line: &shell::Line, rsync: &Rsync) {
    rsync.notes.iter().for_each(|note| draft.note(note));
    rsync.pauses.iter().for_each(|reason| draft.pause(reason));
    if rsync.directory.is_some() {
        draft.note("cd is left out: destinations are absolute");
    }
    if line.is_redirected {
        draft.note("where its output went is left out: the fleet keeps logs, mirrorctl run log shows them");
    }
    if line.reads_file {
        draft.pause("its line reads a file as input");
    }
    if !rsync.others.is_empty() {
        draft.pause(format!("its line also runs {}", rsync.others.join(", ")));
    }
    if let Some(seconds) = rsync.run_timeout {
        draft.set_run_timeout(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}

fn when(import: &mut Import<'_>, environment: &Environment, draft: &mut Draft, schedule: &str) {
    if environment.time_zone.is_empty() {
        import.once(
            "the lines' times are read as UTC: the file has no CRON_TZ; give --time-zone if the host's clock had another",
        );
    }
    match parse_crontab(schedule) {
        Ok((_, notes)) => notes.into_iter().for_each(|note| draft.note(note)),
        Err(_) if schedule.eq_ignore_ascii_case("@reboot") => {
            draft.pause("it ran when the host started; it has no schedule");
            return;
        }
        Err(faults) => {
            for fault in faults {
                import.faults.add(
                    draft.place.clone(),
                    format_args!("{} {:?}: {}", fault.field, fault.value, fault.rule),
                );
            }
            return;
        }
    }
    draft.set_cadence(Cadence::Crontab(schedule.to_owned()));
    let zone: &mut v1::Schedule = draft.project.schedule.get_or_insert_default();
    zone.time_zone.clone_from(&environment.time_zone);
}
