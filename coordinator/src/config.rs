//! The coordinator's configuration: one TOML file, each of whose keys is also a flag and an environment variable.
//!
//! One table (`config/keys.rs`) says it all: names, defaults, help texts, checks. From it come the flags, the page
//! `docs/configuration.md`, and the check that names every fault of every source at once. A flag beats the
//! environment, the environment beats the file, the file beats the default. Relative paths count from the file's
//! folder. Knows no sockets and opens no other file.

mod keys;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{ArgMatches, Command, parser::ValueSource};
use fleet::defaults::Limits;
use mirror_certs::TrustDomain;
use toml::de::{DeTable, DeValue};

pub use keys::{KEYS, Key};

/// Largest configuration file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The socket's name where nobody names another.
const ADMIN_SOCKET: &str = "admin.sock";

/// Who may ask the server for its own description (gRPC reflection).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reflection {
    /// Anybody who reaches the port.
    Open,
    /// Users of any role.
    Users,
    /// Nobody.
    Off,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// When housekeeping runs: cron texts of six fields, seconds first, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Housekeeping {
    /// Looks whether a fire is overdue, and wakes the writer.
    pub watchdog: String,
    /// Forgets expired answers and join tokens.
    pub sweep: String,
    /// Backs the store up.
    pub backup: String,
    /// Removes old history.
    pub prune: String,
    /// Renews the server's own certificate from a third of its life on.
    pub certificate: String,
}

/// Everything an administrator may set, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Holds all that the coordinator keeps.
    pub data_dir: PathBuf,
    /// The fleet's name in every identity; `None`: as the CA says.
    pub trust_domain: Option<TrustDomain>,
    /// Names and addresses in the server's certificate.
    pub server_names: Vec<String>,
    /// The gRPC port.
    pub grpc_listen: SocketAddr,
    /// The plaintext port for probes.
    pub http_listen: SocketAddr,
    /// The HTTPS port for pushes; `None`: none.
    pub https_listen: Option<SocketAddr>,
    /// The HTTPS port's certificate; `None`: the server's own. Never without [`Config::https_key`].
    pub https_certificate: Option<PathBuf>,
    /// The key of [`Config::https_certificate`].
    pub https_key: Option<PathBuf>,
    /// Socket of the coordinator's own host; relative to `data_dir`. `None`: none.
    pub admin_socket: Option<PathBuf>,
    /// Who may use reflection.
    pub reflection: Reflection,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged, in the manner of `RUST_LOG`.
    pub log_filter: String,
    /// Where traces go; `None`: nowhere.
    pub otlp_endpoint: Option<String>,
    /// The fleet's limits.
    pub limits: Limits,
    /// Ended runs kept for each project.
    pub history_runs: u32,
    /// Days for which ended runs are kept.
    pub history_days: u32,
    /// Days for which the audit log is kept.
    pub audit_days: u32,
    /// Daily backups kept.
    pub backups: u32,
    /// Weeks before those of which one backup is kept.
    pub weekly_backups: u32,
    /// When housekeeping runs.
    pub housekeeping: Housekeeping,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("."),
            trust_domain: None,
            server_names: Vec::new(),
            grpc_listen: SocketAddr::from(([0, 0, 0, 0], 7443)),
            http_listen: SocketAddr::from(([127, 0, 0, 1], 7480)),
            https_listen: None,
            https_certificate: None,
            https_key: None,
            admin_socket: Some(PathBuf::from(ADMIN_SOCKET)),
            reflection: Reflection::Users,
            log_format: LogFormat::Text,
            log_filter: "info".to_owned(),
            otlp_endpoint: None,
            limits: Limits::default(),
            history_runs: 200,
            history_days: 90,
            audit_days: 400,
            backups: 7,
            weekly_backups: 4,
            housekeeping: Housekeeping {
                watchdog: "*/10 * * * * *".to_owned(),
                sweep: "30 * * * * *".to_owned(),
                backup: "0 17 3 * * *".to_owned(),
                prune: "0 47 * * * *".to_owned(),
                certificate: "0 23 * * * *".to_owned(),
            },
        }
    }
}

impl Config {
    /// A file in the data directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.data_dir.join(name)
    }

    /// Where the coordinator's own socket is; `None`: there is none.
    #[must_use]
    pub fn admin_socket_path(&self) -> Option<PathBuf> {
        self.admin_socket.as_ref().map(|path| self.data_dir.join(path))
    }

    /// The keys whose values differ from `other`'s.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        KEYS.iter().filter(|key| (key.show)(self) != (key.show)(other)).map(|key| key.name).collect()
    }
}

/// Where a value came from; what a fault is shown under.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Line(usize),
    Environment,
    Flag,
}

/// A key's value as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Given {
    text: String,
    source: Source,
}

/// One fault of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is at fault, as it was written: `limits.agent_slots (line 7)`, `--grpc-listen`.
    pub at: String,
    /// The value and the rule it breaks.
    pub text: String,
}

/// The configuration is refused: every fault of every source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("configuration refused: {}", count(.faults.len()))]
pub struct ConfigError {
    /// In the order of the file's lines, then those of environment and flags.
    pub faults: Vec<Fault>,
}

fn count(faults: usize) -> String {
    format!("{faults} fault{}", if faults == 1 { "" } else { "s" })
}

/// Values from flags and the environment, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<&'static str, Given>);

impl Overrides {
    /// One value, as a flag would give it.
    #[must_use]
    pub fn with(mut self, key: &'static str, text: &str) -> Self {
        self.0.insert(key, Given { text: text.to_owned(), source: Source::Flag });
        self
    }
}

/// One flag and one environment variable for each key.
impl clap::Args for Overrides {
    fn augment_args(command: Command) -> Command {
        KEYS.iter().fold(command, |command, key| command.arg(key.argument()))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut overrides = Self::default();
        overrides.update_from_arg_matches(matches)?;
        Ok(overrides)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for key in KEYS {
            let Some(text) = matches.get_one::<String>(key.name) else { continue };
            let flag = matches.value_source(key.name) == Some(ValueSource::CommandLine);
            let source = if flag { Source::Flag } else { Source::Environment };
            self.0.insert(key.name, Given { text: text.clone(), source });
        }
        Ok(())
    }
}

/// Reads and checks the configuration: the file (none: defaults and overrides alone), then what overrides it.
///
/// # Errors
/// [`ConfigError`] with all faults at once.
pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Config, ConfigError> {
    let mut faults = Vec::new();
    let text = file.map(|path| read(path).map_err(|fault| faults.push(fault)).unwrap_or_default());
    let folder = file.and_then(Path::parent).unwrap_or_else(|| Path::new("."));
    check(text.as_deref().unwrap_or_default(), overrides, folder, faults)
}

/// [`load`] for a text already read; relative paths count from `folder`.
///
/// # Errors
/// [`ConfigError`] with all faults at once.
pub fn parse(text: &str, overrides: &Overrides, folder: &Path) -> Result<Config, ConfigError> {
    check(text, overrides, folder, Vec::new())
}

fn check(
    text: &str,
    overrides: &Overrides,
    folder: &Path,
    mut faults: Vec<Fault>,
) -> Result<Config, ConfigError> {
    let mut given = BTreeMap::new();
    read_toml(text, &mut given, &mut faults);
    given.extend(overrides.0.clone());
    let mut config = Config::default();
    for key in KEYS {
        let Some(value) = given.get(key.name) else { continue };
        if let Err(rule) = (key.set)(&mut config, value.text.trim()) {
            let text = format!("{:?}: {rule}", shown(&value.text));
            faults.push(Fault { at: key.at(&value.source), text });
        }
    }
    if config.grpc_listen == config.http_listen && config.grpc_listen.port() != 0 {
        let text = format!("\"{}\": is the address of grpc_listen too", config.http_listen);
        faults.push(Fault { at: "http_listen".to_owned(), text });
    }
    faults.extend(https_faults(&config));
    for path in [&mut config.https_certificate, &mut config.https_key].into_iter().flatten() {
        let whole = folder.join(&*path);
        *path = std::path::absolute(&whole).unwrap_or(whole);
    }
    let data_dir = folder.join(&config.data_dir);
    config.data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
    faults.sort_by_key(|fault| line_of(&fault.at));
    // They repeat what stands in a file: what a terminal would obey is written out.
    for fault in &mut faults {
        fault.at = plain(&fault.at);
        fault.text = plain(&fault.text);
    }
    if faults.is_empty() { Ok(config) } else { Err(ConfigError { faults }) }
}

/// What of the HTTPS port does not fit the rest.
fn https_faults(config: &Config) -> Vec<Fault> {
    let fault = |at: &str, text: String| Fault { at: at.to_owned(), text };
    let mut faults = Vec::new();
    let others = [("grpc_listen", config.grpc_listen), ("http_listen", config.http_listen)];
    for (other, taken) in others {
        if config.https_listen == Some(taken) && taken.port() != 0 {
            faults.push(fault("https_listen", format!("\"{taken}\": is the address of {other} too")));
        }
    }
    match (&config.https_certificate, &config.https_key) {
        (Some(_), None) => faults.push(fault("https_key", "is wanted with https_certificate".to_owned())),
        (None, Some(_)) => faults.push(fault("https_certificate", "is wanted with https_key".to_owned())),
        (Some(_), Some(_)) | (None, None) => {}
    }
    faults
}

fn plain(text: &str) -> String {
    /// Longest line of a fault, in characters.
    const LINE_CHARS_MAX: usize = 500;
    let lines = text.split('\n').map(|line| rsync::text::printable(line.as_bytes(), LINE_CHARS_MAX));
    lines.collect::<Vec<_>>().join("\n")
}

/// The line of a fault's place, `line 3` or `limits.agent_slots (line 3)`; faults without one come last.
fn line_of(at: &str) -> usize {
    let number = at.rsplit_once("line ").map(|(_, number)| number.trim_end_matches(')'));
    number.and_then(|number| number.parse().ok()).unwrap_or(usize::MAX)
}

/// The start of a value, for a message.
fn shown(text: &str) -> String {
    /// Characters of a refused value that a message repeats.
    const SHOWN_CHARS: usize = 100;
    text.chars().take(SHOWN_CHARS).collect()
}

fn read(path: &Path) -> Result<String, Fault> {
    use std::io::Read as _;
    let fault = |text: String| Fault { at: path.display().to_string(), text };
    let file = std::fs::File::open(path).map_err(|error| {
        fault(format!("could not be read ({error}); `mirror-coordinator init` makes one"))
    })?;
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let length = read.map_err(|error| fault(format!("could not be read ({error})")))?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(fault(format!("is larger than {FILE_BYTES_MAX} bytes: not a configuration file")));
    }
    Ok(text)
}

fn read_toml(text: &str, given: &mut BTreeMap<&'static str, Given>, faults: &mut Vec<Fault>) {
    let line = |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|&&b| b == b'\n').count() + 1;
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at =
            error.span().map_or_else(|| "the file".to_owned(), |span| format!("line {}", line(span.start)));
        faults.push(Fault { at, text: error.message().to_owned() });
    }
    let mut found = Vec::new();
    flatten("", table.get_ref(), &mut found);
    for (name, at, value) in found {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            let near = nearest(&name).map_or_else(String::new, |near| format!("; did you mean {near}?"));
            faults
                .push(Fault { at: format!("line {}", line(at)), text: format!("{name}: no such key{near}") });
            continue;
        };
        match value {
            Ok(text) => {
                given.insert(key.name, Given { text, source: Source::Line(line(at)) });
            }
            Err(rule) => faults.push(Fault { at: key.at(&Source::Line(line(at))), text: rule }),
        }
    }
}

type Found = (String, usize, Result<String, String>);

/// Every value of a table under its dotted name, with the place of its key.
fn flatten(prefix: &str, table: &DeTable<'_>, found: &mut Vec<Found>) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        let text = match value.get_ref() {
            DeValue::Table(inner) => {
                flatten(&format!("{name}."), inner, found);
                continue;
            }
            DeValue::Array(items) => items
                .iter()
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
                .map(|texts| texts.join(","))
                .ok_or_else(|| "wanted is a list of texts".to_owned()),
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) => Ok(number.as_str().to_owned()),
            DeValue::Float(number) => Ok(number.as_str().to_owned()),
            DeValue::Boolean(truth) => Ok(truth.to_string()),
            DeValue::Datetime(time) => Ok(time.to_string()),
        };
        found.push((name, key.span().start, text));
    }
}

/// The key that was probably meant: same last word, or fewest letters apart.
fn nearest(name: &str) -> Option<&'static str> {
    /// More letters apart than this is another word.
    const APART_MAX: usize = 3;
    let last = |name: &str| name.rsplit('.').next().map(str::to_owned);
    let same = KEYS.iter().find(|key| last(key.name) == last(name));
    let near = KEYS.iter().map(|key| (apart(key.name, name), key)).min_by_key(|(apart, _)| *apart);
    same.or_else(|| near.filter(|(apart, _)| *apart <= APART_MAX).map(|(_, key)| key)).map(|key| key.name)
}

/// Levenshtein's distance, for short texts.
fn apart(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(keys::NAME_CHARS_MAX).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

/// The page for people: every key with flag, variable, default and meaning.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Configuration of the coordinator\n\n\
         Generated from the table in `coordinator/src/config/keys.rs`; `UPDATE_DOCS=1 cargo test -p mirror-coordinator\n\
         --test config` writes it anew.\n\n\
         `mirror-coordinator init` writes `coordinator.toml`. Each key is also a flag and an environment variable: a flag\n\
         beats the environment, the environment beats the file, the file beats the default. Relative paths count from\n\
         the file's folder. `mirror-coordinator run --config coordinator.toml --check-config` prints every fault at once\n\
         and exits 2. Durations are texts such as `10s`, `5m`, `6h`, `90days`. All keys take effect at the next start;\n\
         SIGHUP reads the server's certificate and the fleet's CAs anew and says which changed keys wait for a restart.\n\n\
         | key | flag, variable | default | what it is |\n|---|---|---|---|\n",
    );
    let defaults = Config::default();
    for key in KEYS {
        let default = (key.show)(&defaults);
        let default = if default.is_empty() { "-".to_owned() } else { format!("`{default}`") };
        let (flag, variable) = (key.flag(), key.variable());
        page += &format!("| `{}` | `--{flag}` `{variable}` | {default} | {} |\n", key.name, key.about);
    }
    page
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", self.at, self.text)
    }
}
