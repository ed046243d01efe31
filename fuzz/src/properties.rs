//! The properties, by target. Each panics where its property does not hold, and knows nothing of who calls it.

use std::{path::Path, str::FromStr as _};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use fleet::{
    id::{AgentUid, Name},
    marker::{self, MarkerKind},
    refusal::{Refusal, Violation},
    schedule::{
        CRONTAB_BYTES_MAX, Cron, CronFields, DATE_BYTES_MAX, FIELD_BYTES_MAX, Schedule, parse_crontab,
        parse_date, parse_span, parse_zone,
    },
    time::Wall,
};
use mirror_certs::JoinToken;
use mirror_proto::{
    convert::{self, Context},
    status,
    stored::{self, Table},
    v1,
};
use rsync::{
    ExitCode, Options, OutputParser, RsyncUri, Stats,
    exit::{self, CAUSE_CHARS_MAX},
    listing,
    options::WORDS_MAX,
    tables::FLAGS,
    text::printable,
    uri::URI_BYTES_MAX,
};

/// A property: panics where it does not hold for these bytes.
pub type Property = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Property); 14] = [
    ("options", options),
    ("uri", uri),
    ("listing", listing_lines),
    ("progress", progress),
    ("stats", stats),
    ("exits", exits),
    ("cron", cron),
    ("dates", dates),
    ("markers", markers),
    ("store", store),
    ("join_token", join_token),
    ("agent_toml", agent_toml),
    ("coordinator_toml", coordinator_toml),
    ("convert", convert_wire),
];

/// Longest message about one faulty value, in characters: what it names is cut.
const FAULT_CHARS_MAX: usize = 2_000;

/// The text is one that people can be shown: bounded, and without what a terminal would obey.
fn plain(text: &str) {
    let shown = printable(text.as_bytes(), usize::MAX);
    assert_eq!(shown, text.replace('\n', "\\x0a"), "not fit for a terminal");
    assert!(text.chars().count() <= FAULT_CHARS_MAX, "{} characters", text.chars().count());
}

/// The text is plain and one line.
fn plain_line(text: &str) {
    plain(text);
    assert!(!text.contains('\n'), "{text:?}");
}

/// Words, one a line: what is accepted is made of table names, and parses to the same again.
pub fn options(data: &[u8]) {
    const VALUED: [&str; 15] = [
        "delete-delay",
        "delete-after",
        "delete-during",
        "delete-excluded",
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
    let text = String::from_utf8_lossy(data);
    let words: Vec<&str> = text.split('\n').collect();
    match Options::parse_words(&words) {
        Ok(options) => {
            let canonical = options.render();
            assert!(canonical.len() <= WORDS_MAX);
            for word in &canonical {
                let name = word.strip_prefix("--").expect("canonical words are long");
                let name = name.split('=').next().unwrap_or_default();
                assert!(VALUED.contains(&name) || FLAGS.iter().any(|row| row.long == name), "{word}");
                assert!(!word.chars().any(char::is_control), "{word:?}");
            }
            assert_eq!(Options::parse_words(&canonical), Ok(options));
        }
        Err(faults) => {
            assert!(!faults.is_empty() && faults.len() <= 2 * WORDS_MAX, "{}", faults.len());
            faults.iter().for_each(|fault| plain_line(&fault.to_string()));
        }
    }
}

/// A URI without its password is read again as it was; one that may be pulled from is an operand of rsync's.
pub fn uri(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match RsyncUri::parse(&text) {
        Ok(uri) => {
            let (uri, password) = uri.split_password();
            let shown = uri.to_string();
            plain_uri(&shown);
            assert_eq!(RsyncUri::parse(&shown), Ok(uri.clone()), "{text:?}");
            if let Some(password) = password {
                assert!(
                    !format!("{password:?}").contains(&*String::from_utf8_lossy(password.expose()))
                        || password.expose().len() < 8
                );
            }
            match uri.check_source() {
                Ok(()) => {
                    let operand = uri.operand().into_encoded_bytes();
                    assert!(operand.starts_with(b"rsync://") && operand.ends_with(b"/"));
                    assert!(!operand.iter().any(u8::is_ascii_control));
                    let from_host = operand["rsync://".len()..].to_vec();
                    assert!(!from_host.starts_with(b"-"), "{shown}");
                }
                Err(bad) => plain_line(&bad.to_string()),
            }
        }
        Err(bad) => plain_line(&bad.to_string()),
    }
}

fn plain_uri(text: &str) {
    assert!(text.is_ascii() && !text.bytes().any(|byte| byte.is_ascii_control()), "{text:?}");
    // Each byte is three when it is written out.
    assert!(text.len() <= 3 * URI_BYTES_MAX + 16);
}

/// A line is read whole or not at all, and no name is longer than the line.
pub fn listing_lines(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        if let Some(entry) = listing::parse_line(line) {
            assert!(!entry.name.is_empty() && entry.name.len() < line.len());
            let mut longer = line.to_vec();
            longer.push(b'x');
            let more = listing::parse_line(&longer).expect("a longer name is a name");
            assert_eq!((more.kind, more.size, more.changed), (entry.kind, entry.size, entry.changed));
        }
    }
}

/// Output is read alike in any pieces, and how far a run is only grows.
pub fn progress(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else { return };
    let mut whole = Vec::new();
    let mut parser = OutputParser::new();
    parser.push(data, |event| whole.push(event));
    whole.extend(parser.finish());
    let mut pieces = Vec::new();
    let mut parser = OutputParser::new();
    let mut last = parser.progress();
    for piece in data.chunks(usize::from(*cut).max(1)) {
        parser.push(piece, |event| pieces.push(event));
        let now = parser.progress();
        assert!(now.bytes >= last.bytes && now.files_done >= last.files_done);
        assert!(now.files_total >= last.files_total && now.files_transferred >= last.files_transferred);
        assert!(now.percent().is_none_or(|percent| percent <= 100));
        last = now;
    }
    pieces.extend(parser.finish());
    assert_eq!(whole, pieces);
}

/// The closing numbers: the same line twice says nothing new.
pub fn stats(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut stats = Stats::default();
    for line in text.lines() {
        let belongs = stats.absorb(line);
        let before = stats;
        assert_eq!(stats.absorb(line), belongs);
        assert_eq!(stats, before, "{line:?}");
    }
}

/// What an end means: always a class, always fit for a terminal.
pub fn exits(data: &[u8]) {
    let Some((code, stderr)) = data.split_first() else { return };
    let end = ExitCode::Code(i32::from(*code));
    let mut whole = Stats::default();
    whole.complete = true;
    for stats in [Stats::default(), whole] {
        let diagnosis = exit::diagnose(end, stderr, &stats);
        plain_line(&diagnosis.cause);
        plain_line(&diagnosis.advice);
        assert!(diagnosis.cause.chars().count() <= CAUSE_CHARS_MAX + 30);
        assert_eq!(diagnosis.retryable, diagnosis.class.is_retryable());
        if !diagnosis.class.is_ok() {
            assert!(!diagnosis.cause.is_empty() && !diagnosis.advice.is_empty());
        }
        assert!(!diagnosis.class.is_ok() || matches!(code, 0 | 24), "{code} became {:?}", diagnosis.class);
    }
}

/// Fields, one a line, and a crontab line: what is accepted is echoed to the same, and fires only forwards.
pub fn cron(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut fields = CronFields::default();
    for line in text.lines().take(8) {
        if let Some((name, value)) = line.split_once('=') {
            drop(fields.set(name, value));
        }
    }
    match Cron::parse(fields) {
        Ok(cron) => {
            let again = Cron::parse(cron.fields().clone()).expect("it was accepted");
            assert_eq!(again.fields(), cron.fields());
            fires_forwards(&Schedule::cron(cron, Tz::Europe__Berlin));
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            faults.iter().for_each(|fault| plain_line(&fault.to_string()));
        }
    }
    match parse_crontab(&text) {
        Ok((fields, notes)) => {
            assert!(text.len() <= CRONTAB_BYTES_MAX);
            notes.iter().for_each(|note| plain_line(note));
            for line in fields.to_string().split(' ') {
                assert!(line.len() <= FIELD_BYTES_MAX + 16, "{line}");
            }
            let cron = Cron::parse(fields).expect("a translation is in the language it is translated to");
            fires_forwards(&Schedule::cron(cron, Tz::UTC));
        }
        Err(faults) => faults.iter().for_each(|fault| plain_line(&fault.to_string())),
    }
}

fn fires_forwards(schedule: &Schedule) {
    // Before a change of the clocks, so that both kinds of hour are near.
    let mut at = DateTime::from_timestamp(1_774_742_400, 0).expect("a time");
    for _ in 0..3 {
        let Some(next) = schedule.next_after(at) else { break };
        assert!(next > at);
        assert_eq!(schedule.first_at_or_after(next), Some(next));
        at = next;
    }
}

/// Dates, spans and zones: what is accepted is an instant that is read again from its own text.
pub fn dates(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for zone in [None, Some(Tz::Asia__Kolkata)] {
        match parse_date(&text, zone) {
            Ok(parsed) => {
                assert!(text.trim().len() <= DATE_BYTES_MAX);
                parsed.notes.iter().for_each(|note| plain_line(note));
                let written = parsed.time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
                let again = parse_date(&written, zone).map(|parsed| parsed.time);
                assert_eq!(again, Ok(parsed.time), "{written}");
            }
            Err(bad) => plain_line(&bad.to_string()),
        }
    }
    if let Err(bad) = parse_span(&text) {
        plain_line(&bad.to_string());
    }
    if let Err(bad) = parse_zone(&text) {
        plain_line(&bad.to_string());
    }
}

/// Marker files of every kind: a time that is told is one that may be right.
pub fn markers(data: &[u8]) {
    let now = Wall::from(DateTime::<Utc>::from_timestamp(1_800_000_000, 0).expect("a time"));
    for kind in MarkerKind::ALL {
        match marker::of_file(kind, None, Some(data), now) {
            Ok(time) => {
                assert_eq!(marker::of_file(MarkerKind::Mtime, Some(time), None, now), Ok(time));
                // What comes behind it tells nothing else; unless the last line goes on.
                if data.ends_with(b"\n") {
                    assert_eq!(marker::of_file(kind, None, Some(&[data, b"\n"].concat()), now), Ok(time));
                }
            }
            Err(bad) => plain_line(&bad.to_string()),
        }
    }
}

/// Records of the store: what can be read is written as what is read.
pub fn store(data: &[u8]) {
    let Some((table, bytes)) = data.split_first() else { return };
    let table = Table::ALL[usize::from(*table) % Table::ALL.len()];
    match stored::decode(table, bytes) {
        Ok(record) => {
            assert_eq!(Table::of(&record), table);
            let again = stored::decode(table, &stored::encode(&record));
            assert_eq!(again.as_ref(), Ok(&record));
        }
        Err(bad) => plain_line(&bad.to_string()),
    }
}

/// Join tokens: one spelling each, and no error repeats what may be a token with a typing error.
pub fn join_token(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match JoinToken::from_str(&text) {
        Ok(token) => {
            assert_eq!(token.reveal(), text.trim());
            assert!(token.matches(&token.hash()) && !token.matches(token.reveal()));
            assert!(!format!("{token:?}").contains(token.reveal()));
        }
        Err(bad) => {
            plain_line(&bad.to_string());
            assert!(text.len() < 16 || !bad.to_string().contains(&*text));
        }
    }
}

/// An agent's own file: all of it is understood, or every fault is told.
pub fn agent_toml(data: &[u8]) {
    use mirror_agent::config::{Config, Faults};
    let text = String::from_utf8_lossy(data);
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(_) => return,
    };
    match Config::check(table, Path::new("/srv/agent")) {
        Ok(config) => {
            assert!(config.rsync.is_absolute() && config.slots > 0 && !config.roots.is_empty());
            assert!(config.roots.values().all(|root| root.is_absolute() && root != Path::new("/")));
        }
        Err(list) => {
            assert!(!list.is_empty());
            for fault in &list {
                plain_line(&fault.key);
                plain(&fault.text);
            }
            drop(Faults::new("not started", "agent.toml", list).to_string());
        }
    }
}

/// The coordinator's own file: all of it is understood, or every fault is told.
pub fn coordinator_toml(data: &[u8]) {
    use mirror_coordinator::config::{Overrides, parse};
    let text = String::from_utf8_lossy(data);
    match parse(&text, &Overrides::default(), Path::new("/srv/coordinator")) {
        Ok(config) => {
            assert!(config.data_dir.is_absolute());
            assert!(config.grpc_listen != config.http_listen || config.grpc_listen.port() == 0);
        }
        Err(error) => error.faults.iter().for_each(|fault| plain(&fault.to_string())),
    }
}

/// Messages of people and agents: read into the model, or refused by field and rule in what a status can carry.
pub fn convert_wire(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 8 {
        0 => read::<v1::Project>(bytes, |project| {
            let agent = |_: &Name| Some(AgentUid(1));
            let after = |_: &Name| None;
            let context = Context {
                agent: &agent,
                project: &after,
                seal: &|text| text.as_bytes().to_vec(),
                current: None,
            };
            let (_, first) = convert::project_from_wire(&project, context)?;
            let (_, second) = convert::project_from_wire(&project, context)?;
            assert_eq!(first, second);
            Ok(())
        }),
        1 => read::<v1::Hello>(bytes, |hello| one(convert::hello_from_wire(&hello))),
        2 => read::<v1::Ended>(bytes, |ended| {
            one(convert::ended_from_wire(&ended))?;
            one(convert::ended_alone_from_wire(&ended))
        }),
        3 => read::<v1::Inventory>(bytes, |inventory| {
            one(convert::roots_from_wire(&inventory))?;
            one(convert::certificate_expiry_from_wire(&inventory))
        }),
        4 => read::<v1::Exporting>(bytes, |exporting| one(convert::exporting_from_wire(&exporting))),
        5 => read::<v1::ProbeResult>(bytes, |result| {
            let (_, probed) = convert::probe_result_from_wire("agents/a", result).map_err(|bad| vec![bad])?;
            probed.findings.iter().for_each(|finding| plain_line(&finding.sentence));
            let arguments = probed.command_line.iter().flat_map(|line| &line.arguments);
            arguments.for_each(|one| plain_line(&one.text));
            Ok(())
        }),
        6 => read::<v1::Schedule>(bytes, |schedule| {
            let read = convert::schedule_from_wire(Some(&schedule))?;
            let written = convert::schedule_to_wire(&read.schedule, Vec::new());
            let again = convert::schedule_from_wire(Some(&written))?;
            assert_eq!(again.schedule, read.schedule);
            Ok(())
        }),
        _ => read::<v1::Refused>(bytes, |refused| {
            let read = convert::refused_from_wire(&refused).map_err(|bad| vec![bad])?;
            plain_line(&read.detail);
            Ok(())
        }),
    }
}

fn one<T>(read: Result<T, Violation>) -> Result<(), Vec<Violation>> {
    read.map(drop).map_err(|fault| vec![fault])
}

fn read<M: prost::Message + Default>(bytes: &[u8], check: impl Fn(M) -> Result<(), Vec<Violation>>) {
    let Ok(message) = M::decode(bytes) else { return };
    let Err(faults) = check(message) else { return };
    assert!(!faults.is_empty());
    for fault in &faults {
        plain_line(&fault.field);
        plain_line(&fault.description);
    }
    let refused = status::refusal_to_status(&Refusal::invalid("refused", faults));
    assert!(refused.details().len() + refused.message().len() <= 6 << 10, "a status travels in headers");
}
