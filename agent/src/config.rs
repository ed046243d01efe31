//! The agent's own file, `agent.toml`: what this host lets the fleet do. The coordinator can change nothing of it.
//! Scalar keys are flags and environment variables as well: flag over variable over file over default. All faults
//! are told at once. Reads the one file it is given; whether directories and programs are there is asked elsewhere.

mod keys;
mod serve;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use fleet::defaults;
use fleet::id::Name;
use mirror_certs::TrustDomain;
use serde::de::DeserializeOwned;
use toml::Table;

pub use self::keys::Overrides;
pub use self::serve::{ServeKeys, Told};
use crate::guard::upstream::{Allowed, UpstreamRules};
use crate::journal::HELD_MAX;

/// Port of a coordinator's address that names none.
pub const PORT_DEFAULT: u16 = 7443;
/// Most bytes of the file.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Most roots: what an inventory may name.
pub const ROOTS_MAX: usize = 64;
/// Most coordinators.
const COORDINATORS_MAX: usize = 16;
/// Characters of a faulty path that are shown.
const PATH_CHARS_SHOWN: usize = 200;
/// Longest absence of a coordinator, and greatest age of a schedule, that may be set, in seconds: 366 days.
const AUTONOMY_SECONDS_MAX: u64 = 366 * 86_400;
/// Address space of each process of rsync where nothing is set, MiB: it takes about 100 bytes for each file, in trees of
/// tens of millions with hard links and late deletes too.
const RSYNC_MEMORY_MIB: u64 = 8_192;
/// Less holds no list of files at all, MiB.
const RSYNC_MEMORY_MIB_MIN: u64 = 64;
/// Most entries of `allow_upstreams`.
const UPSTREAMS_MAX: usize = 1_000;

/// Longest line of a fault, in characters.
const FAULT_LINE_CHARS_MAX: usize = 500;

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key.
    pub key: String,
    /// The value and the rule.
    pub text: String,
}

impl Fault {
    /// A fault of `key`. What a terminal would obey is written out, in both: they may repeat what stands in a file or
    /// came over the wire.
    pub fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        let lines = |text: String| {
            let lines =
                text.split('\n').map(|line| rsync::text::printable(line.as_bytes(), FAULT_LINE_CHARS_MAX));
            lines.collect::<Vec<_>>().join("\n")
        };
        Self { key: lines(key.into()), text: lines(text.into()) }
    }
}

/// Everything that is wrong with one input, as people read it: one line each, the words in columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// What did not happen, and where the faults are: `not started: 2 faults in agent.toml`.
    pub what: String,
    /// All of them.
    pub list: Vec<Fault>,
}

impl Faults {
    /// Faults in a place, with what did not happen because of them.
    #[must_use]
    pub fn new(outcome: &str, place: impl fmt::Display, list: Vec<Fault>) -> Self {
        let plural = if list.len() == 1 { "" } else { "s" };
        Self { what: format!("{outcome}: {} fault{plural} in {place}", list.len()), list }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        let width = self.list.iter().map(|fault| fault.key.chars().count()).max().unwrap_or(0);
        self.list.iter().try_for_each(|fault| write!(f, "\n  {:width$}  {}", fault.key, fault.text))
    }
}

impl std::error::Error for Faults {}

/// Where a coordinator is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host name or address, IPv6 without brackets: the name its certificate must have.
    pub host: String,
    /// Its gRPC port.
    pub port: u16,
}

/// The text is no address of a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wanted is HOST or HOST:PORT, an IPv6 address in brackets")]
pub struct BadAddress;

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| BadAddress)?),
            _ => (text, PORT_DEFAULT),
        };
        let host = match rsync::Host::parse(host).map_err(|_| BadAddress)? {
            rsync::Host::V6(address) => address.to_string(),
            other => other.to_string(),
        };
        if port == 0 { Err(BadAddress) } else { Ok(Self { host, port }) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// How the agent's own messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// How long attempts' logs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLimits {
    /// Logs of each project.
    pub attempts: usize,
    /// Their age.
    pub age: Duration,
    /// Largest log, bytes.
    pub file_bytes: u64,
    /// All logs, bytes.
    pub total_bytes: u64,
}

/// What is done while there is no coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutonomyRules {
    /// The last known schedule is run.
    pub enabled: bool,
    /// Once there has been none for so long.
    pub after: Duration,
    /// As long as the schedule was confirmed this recently.
    pub valid: Duration,
}

/// The agent's configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The agent's name.
    pub name: String,
    /// The fleet's name.
    pub trust_domain: Option<TrustDomain>,
    /// Where journal, logs and running programs are kept.
    pub data_dir: PathBuf,
    /// Certificate and key.
    pub identity: PathBuf,
    /// The fleet's CAs.
    pub ca: PathBuf,
    /// The coordinators.
    pub coordinators: Vec<Address>,
    /// Named directories below which trees may lie.
    pub roots: BTreeMap<String, PathBuf>,
    /// From where may be pulled.
    pub upstreams: UpstreamRules,
    /// The rsync program.
    pub rsync: PathBuf,
    /// Attempts at once.
    pub slots: u32,
    /// Address space that each process of rsync may take, bytes.
    pub rsync_memory_bytes: u64,
    /// KiB/s for each attempt.
    pub bandwidth_limit_kib: Option<u32>,
    /// `--acls` and `--xattrs` may be used.
    pub acls_and_xattrs: bool,
    /// The coordinator may have trees of deleted projects moved to the trash, where they are removed after some days.
    pub allow_trash: bool,
    /// rsync runs confined.
    pub jail: bool,
    /// What is done while there is no coordinator.
    pub autonomy: AutonomyRules,
    /// How long logs are kept.
    pub logs: LogLimits,
    /// How own messages are written.
    pub log_format: LogFormat,
    /// Which own messages are written.
    pub log_level: String,
    /// Where traces are sent.
    pub otlp_endpoint: Option<String>,
    /// Serving replicas.
    pub serve: ServeKeys,
}

impl Config {
    /// Reads a file, with what the command line and the environment put above it.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(path: &Path, overrides: Overrides) -> Result<Self, Faults> {
        let place = path.display();
        let one = |text: String| Faults::new("not started", &place, vec![Fault::new("file", text)]);
        let text = read_bounded(path).map_err(|error| one(format!("cannot be read: {error}")))?;
        let mut table: Table =
            text.parse().map_err(|error: toml::de::Error| one(error.to_string().trim_end().to_owned()))?;
        let given = overrides.given();
        overrides.apply(&mut table);
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let base = std::path::absolute(parent.unwrap_or_else(|| Path::new(".")))
            .map_err(|error| one(format!("has no absolute path: {error}")))?;
        Self::check(table, &base).map_err(|mut list| {
            for fault in &mut list {
                if let Some(name) = given.get(fault.key.as_str()) {
                    fault.key.clone_from(name);
                }
            }
            Faults::new("not started", &place, list)
        })
    }

    /// Makes a configuration of a table; relative paths in it count from `base`.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check(table: Table, base: &Path) -> Result<Self, Vec<Fault>> {
        let mut keys = Reader { table: serve::flattened(table), faults: Vec::new() };
        let data_dir = base.join(keys.take("data_dir", PathBuf::new()));
        let config = Self {
            name: keys.take("name", String::new()),
            trust_domain: keys.parsed("trust_domain"),
            identity: data_dir.join(keys.take("identity", PathBuf::from("identity.pem"))),
            ca: data_dir.join(keys.take("ca", PathBuf::from("ca.pem"))),
            data_dir,
            coordinators: keys.parsed_list("coordinators", 1, COORDINATORS_MAX),
            roots: keys.take("roots", BTreeMap::new()),
            upstreams: UpstreamRules {
                allowed: keys.parsed_list::<Allowed>("allow_upstreams", 0, UPSTREAMS_MAX),
                only_listed: keys.take("only_allowed_upstreams", false),
            },
            rsync: keys.take("rsync", PathBuf::from("/usr/bin/rsync")),
            slots: keys.number("slots", 8, 1, HELD_MAX as u64),
            rsync_memory_bytes: keys.number::<u64>(
                "rsync_memory_mib",
                RSYNC_MEMORY_MIB,
                RSYNC_MEMORY_MIB_MIN,
                1 << 24,
            ) << 20,
            bandwidth_limit_kib: Some(keys.number(
                "bandwidth_limit_kib",
                0,
                0,
                rsync::options::BWLIMIT_KIB_MAX.into(),
            ))
            .filter(|limit| *limit > 0),
            acls_and_xattrs: keys.take("acls_and_xattrs", false),
            allow_trash: keys.take("allow_trash", false),
            jail: keys.take("jail", true),
            autonomy: AutonomyRules {
                enabled: keys.take("autonomy", true),
                after: Duration::from_secs(keys.number(
                    "autonomy_after_seconds",
                    defaults::AUTONOMY_AFTER.as_secs(),
                    1,
                    AUTONOMY_SECONDS_MAX,
                )),
                valid: Duration::from_secs(keys.number(
                    "autonomy_valid_seconds",
                    defaults::AUTONOMY_VALID.as_secs(),
                    1,
                    AUTONOMY_SECONDS_MAX,
                )),
            },
            logs: LogLimits {
                attempts: keys.number::<u32>("log_attempts", 20, 1, 10_000) as usize,
                age: Duration::from_secs(24 * 3600 * keys.number::<u64>("log_days", 14, 1, 3_650)),
                file_bytes: keys.number::<u64>("log_file_mib", 16, 1, 1_024) << 20,
                total_bytes: keys.number::<u64>("log_total_mib", 5_120, 16, 1 << 20) << 20,
            },
            log_format: keys.log_format(),
            log_level: keys.take("log_level", "info".to_owned()),
            otlp_endpoint: keys.otlp_endpoint(),
            serve: ServeKeys::read(&mut keys),
        };
        config.check_paths(&mut keys.faults);
        config.serve.check_roots(&config.roots, &mut keys.faults);
        keys.finish().map(|()| config)
    }

    fn check_paths(&self, faults: &mut Vec<Fault>) {
        if !self.name.is_empty()
            && let Err(bad) = self.name.parse::<Name>()
        {
            faults.push(Fault::new("name", format!("\"{}\": {bad}", self.name)));
        }
        if !self.rsync.is_absolute() {
            let text =
                format!("\"{}\": must be an absolute path, nothing is searched for", self.rsync.display());
            faults.push(Fault::new("rsync", text));
        }
        if self.roots.is_empty() {
            faults.push(Fault::new("roots", "at least one root is wanted: a1 = \"/srv/mirror\""));
        }
        if self.roots.len() > ROOTS_MAX {
            faults.push(Fault::new("roots", format!("{} roots; at most {ROOTS_MAX}", self.roots.len())));
        }
        for (name, path) in &self.roots {
            if let Err(bad) = name.parse::<Name>() {
                faults.push(Fault::new("roots", format!("\"{name}\": {bad}")));
            }
            let text = path.to_str().unwrap_or_default();
            if !path.is_absolute() || path == Path::new("/") || text.chars().any(char::is_control) {
                let shown = rsync::text::printable(text.as_bytes(), PATH_CHARS_SHOWN);
                let text =
                    format!("\"{shown}\": must be an absolute path below / without control characters");
                faults.push(Fault::new(format!("roots.{name}"), text));
            }
        }
        if let Err(error) = self.log_level.parse::<tracing_subscriber::filter::Targets>() {
            faults.push(Fault::new("log_level", format!("\"{}\": {error}", self.log_level)));
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Takes key after key out of a table and notes what is wrong; what is left in the end is unknown.
struct Reader {
    table: Table,
    faults: Vec<Fault>,
}

impl Reader {
    fn take<T: DeserializeOwned>(&mut self, key: &str, default: T) -> T {
        let Some(value) = self.table.remove(key) else { return default };
        let shown = value.to_string();
        value.try_into().unwrap_or_else(|error: toml::de::Error| {
            self.faults.push(Fault::new(key, format!("{shown}: {}", error.message())));
            default
        })
    }

    /// A whole number within bounds, both included.
    fn number<T: TryFrom<u64> + Copy>(&mut self, key: &str, default: T, min: u64, max: u64) -> T {
        if !self.table.contains_key(key) {
            return default;
        }
        let value = self.table.remove(key);
        let number =
            value.as_ref().and_then(toml::Value::as_integer).and_then(|number| u64::try_from(number).ok());
        let fits = number.filter(|number| (min..=max).contains(number));
        fits.and_then(|number| T::try_from(number).ok()).unwrap_or_else(|| {
            let shown = value.map(|value| value.to_string()).unwrap_or_default();
            self.faults.push(Fault::new(key, format!("{shown}: must be a number from {min} to {max}")));
            default
        })
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, key: &str) -> Option<T> {
        let text: String = self.take(key, String::new());
        if text.is_empty() {
            return None;
        }
        text.parse().map_err(|bad| self.faults.push(Fault::new(key, format!("\"{text}\": {bad}")))).ok()
    }

    fn parsed_list<T>(&mut self, key: &str, min: usize, max: usize) -> Vec<T>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let before = self.faults.len();
        let texts: Vec<String> = self.take(key, Vec::new());
        if self.faults.len() == before && !(min..=max).contains(&texts.len()) {
            self.faults.push(Fault::new(key, format!("{} entries; {min} to {max} are wanted", texts.len())));
        }
        let read = |text: &String| match text.parse() {
            Ok(value) => Some(value),
            Err(bad) => {
                self.faults.push(Fault::new(key, format!("\"{text}\": {bad}")));
                None
            }
        };
        texts.iter().take(max).filter_map(read).collect()
    }

    fn log_format(&mut self) -> LogFormat {
        let text: String = self.take("log_format", "text".to_owned());
        match text.as_str() {
            "json" => LogFormat::Json,
            "text" => LogFormat::Text,
            _ => {
                self.faults.push(Fault::new("log_format", format!("\"{text}\": must be text or json")));
                LogFormat::Text
            }
        }
    }

    fn otlp_endpoint(&mut self) -> Option<String> {
        let text: String = self.take("otlp_endpoint", "off".to_owned());
        if text == "off" || text.is_empty() {
            return None;
        }
        let known = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
        if !known || text.parse::<http::Uri>().is_err() {
            let rule = "must be off, or a URL such as http://127.0.0.1:4317";
            self.faults.push(Fault::new("otlp_endpoint", format!("\"{text}\": {rule}")));
        }
        Some(text)
    }

    fn finish(mut self) -> Result<(), Vec<Fault>> {
        self.faults.extend(self.table.keys().map(|key| Fault::new(key, keys::unknown(key))));
        if self.faults.is_empty() { Ok(()) } else { Err(self.faults) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config, Vec<Fault>> {
        Config::check(text.parse().unwrap(), Path::new("/var/lib/mirror-agent"))
    }

    const SMALLEST: &str = "coordinators = [\"c.example.org\"]\n[roots]\na1 = \"/srv/mirror\"\n";

    #[test]
    fn the_smallest_file_has_every_default() {
        let config = check(SMALLEST).unwrap();
        assert_eq!(config.coordinators, [Address { host: "c.example.org".into(), port: 7443 }]);
        assert_eq!(config.identity, Path::new("/var/lib/mirror-agent/identity.pem"));
        assert_eq!((config.slots, config.bandwidth_limit_kib, config.jail), (8, None, true));
        assert_eq!(config.logs.file_bytes, 16 << 20);
        assert_eq!(config.logs.total_bytes, 5 << 30);
        assert_eq!(config.otlp_endpoint, None);
    }

    #[test]
    fn all_faults_come_at_once() {
        let faults = check(
            "coordinators = [\"h:0\", \"a b\"]\nslots = 0\nslot = 3\nrsync = \"rsync\"\njail = \"yes\"\nlog_days = -1\n\
             allow_upstreams = [\"10.0.0.0/40\"]\nlog_format = \"xml\"\nlog_level = \"a=b=c\"\notlp_endpoint = \"h\"\n\
             name = \"-x\"\n[roots]\n\"-r\" = \"srv\"\n",
        )
        .unwrap_err();
        let keys: Vec<&str> = faults.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "coordinators",
                "coordinators",
                "allow_upstreams",
                "slots",
                "jail",
                "log_days",
                "log_format",
                "otlp_endpoint",
                "name",
                "rsync",
                "roots",
                "roots.-r",
                "log_level",
                "slot"
            ]
        );
        let text = Faults::new("not started", "agent.toml", faults).to_string();
        assert!(
            text.starts_with("not started: 14 faults in agent.toml\n  coordinators     \"h:0\": "),
            "{text}"
        );
        assert!(text.ends_with("slot             no such key; did you mean slots?"), "{text}");
    }

    #[test]
    fn every_key_of_the_table_is_read() {
        let mut table: Table = SMALLEST.parse().unwrap();
        for key in keys::names().filter(|key| !["coordinators", "roots"].contains(key)) {
            table.insert(key.to_owned(), toml::Value::Array(vec![toml::Value::Integer(1)]));
        }
        let faults = Config::check(table, Path::new("/")).unwrap_err();
        for key in keys::names().filter(|key| !["coordinators", "roots"].contains(key)) {
            let fault = faults.iter().find(|fault| fault.key == key);
            assert!(fault.is_some_and(|fault| !fault.text.starts_with("no such key")), "{key}: {faults:?}");
        }
    }

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("c.example.org", "c.example.org:7443"),
            ("c:1", "c:1"),
            ("127.0.0.1:99", "127.0.0.1:99"),
            ("[::1]:99", "[::1]:99"),
            ("[::1]", "[::1]:7443"),
        ] {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()), Ok(shown.into()), "{text}");
        }
        for bad in ["", ":1", "h:", "h:70000", "https://h", "::1", "h/x"] {
            assert_eq!(bad.parse::<Address>(), Err(BadAddress), "{bad}");
        }
    }
}
