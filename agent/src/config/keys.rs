//! The table of `agent.toml`'s keys: from it come the command line's flags, the environment's variables, the help
//! and the answer to a mistyped key. Knows no values.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Table, Value};

/// Prefix of the environment variables.
const ENV_PREFIX: &str = "MIRROR_AGENT_";
/// Most edits between a mistyped key and the one that is suggested.
const EDITS_MAX: usize = 3;

/// What a key's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Bool,
    /// Only in the file.
    List,
    /// Only in the file.
    Map,
}

impl Kind {
    const fn value_name(self) -> &'static str {
        match self {
            Self::Number => "N",
            Self::Bool => "true|false",
            Self::Text | Self::List | Self::Map => "TEXT",
        }
    }
}

struct Row {
    key: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
}

impl Row {
    /// `serve.listen` is `--serve-listen`.
    fn flag(&self) -> String {
        self.key.replace(['_', '.'], "-")
    }

    fn variable(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key.replace('.', "_").to_uppercase())
    }
}

const fn row(key: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Row {
    Row { key, kind, default, help }
}

/// Every key.
const KEYS: &[Row] = &[
    row("name", Kind::Text, "as enrolled", "The agent's name in the fleet; decided by its certificate"),
    row("trust_domain", Kind::Text, "as enrolled", "The fleet's name, to read the own certificate by"),
    row("data_dir", Kind::Text, "the file's directory", "Where journal, logs and running programs are kept"),
    row("identity", Kind::Text, "DATA_DIR/identity.pem", "Certificate and key, one file of mode 0600"),
    row("ca", Kind::Text, "DATA_DIR/ca.pem", "The fleet's CA certificates"),
    row("rsync", Kind::Text, "/usr/bin/rsync", "Absolute path of the rsync program"),
    row("slots", Kind::Number, "8", "Attempts at once, 1 to 64; the coordinator may say less"),
    row(
        "rsync_memory_mib",
        Kind::Number,
        "8192",
        "Most memory of each rsync process, MiB: 64 and more; beyond, it fails and says so",
    ),
    row(
        "bandwidth_limit_kib",
        Kind::Number,
        "0",
        "KiB/s for each attempt; 0: none. A project can only lower it",
    ),
    row("acls_and_xattrs", Kind::Bool, "false", "Projects may use --acls and --xattrs"),
    row(
        "only_allowed_upstreams",
        Kind::Bool,
        "false",
        "Refuse public upstream hosts that are not listed, too",
    ),
    row(
        "allow_trash",
        Kind::Bool,
        "false",
        "Trees of deleted projects may be moved to their root's trash, and are removed there after 7 days",
    ),
    row("jail", Kind::Bool, "true", "Run rsync with no_new_privs and Landlock"),
    row("autonomy", Kind::Bool, "true", "Run the last known schedule while there is no coordinator"),
    row(
        "autonomy_after_seconds",
        Kind::Number,
        "900",
        "Once there has been no coordinator for so long, counted from the start of the agent too",
    ),
    row(
        "autonomy_valid_seconds",
        Kind::Number,
        "604800",
        "As long as a coordinator confirmed the schedule this recently",
    ),
    row(
        "log_attempts",
        Kind::Number,
        "20",
        "Logs kept of each project, besides the last good and 5 failed ones",
    ),
    row("log_days", Kind::Number, "14", "Days for which logs are kept"),
    row("log_file_mib", Kind::Number, "16", "Largest log of one attempt, MiB"),
    row("log_total_mib", Kind::Number, "5120", "All logs together, MiB"),
    row("log_format", Kind::Text, "text", "The agent's own messages on standard error: text or json"),
    row(
        "log_level",
        Kind::Text,
        "info",
        "error, warn, info, debug, trace; or directives: info,mirror_agent=debug",
    ),
    row(
        "otlp_endpoint",
        Kind::Text,
        "off",
        "Send traces there by OTLP over gRPC, such as http://127.0.0.1:4317",
    ),
    row(
        "serve.enabled",
        Kind::Bool,
        "true",
        "Serve trees to replicas by rsync when this host is their origin",
    ),
    row(
        "serve.listen",
        Kind::Text,
        "[::]:8730",
        "ADDRESS:PORT for replicas, open while there is something to serve",
    ),
    row(
        "serve.address",
        Kind::Text,
        "as seen",
        "Host name or address that replicas are told instead of the one this host dials out from",
    ),
    row("serve.connections", Kind::Number, "16", "Connections of replicas at once, 1 to 1000"),
    row("coordinators", Kind::List, "", "HOST[:PORT] of the coordinators, tried in turn"),
    row("allow_upstreams", Kind::List, "none", "Hosts and networks that are allowed besides public ones"),
    row(
        "serve.external",
        Kind::Map,
        "none",
        "Roots that a daemon of your own serves: a1 = \"rsync://ftp.example.org/mirror/\"",
    ),
    row("roots", Kind::Map, "", "Named directories below which trees may lie: a1 = \"/srv/mirror\""),
];

/// Values that the command line and the environment put above the file's: scalar keys only.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    table: Table,
    /// Where each value was given, as faults name it: `--slots`, `MIRROR_AGENT_SLOTS`.
    given: BTreeMap<&'static str, String>,
}

impl Overrides {
    pub(super) fn apply(self, table: &mut Table) {
        table.extend(self.table);
    }

    /// The names of keys that were given above the file, as they were given.
    pub(super) fn given(&self) -> BTreeMap<&'static str, String> {
        self.given.clone()
    }
}

fn scalars() -> impl Iterator<Item = &'static Row> {
    KEYS.iter().filter(|row| !matches!(row.kind, Kind::List | Kind::Map))
}

fn augment(command: Command) -> Command {
    scalars().fold(command, |command, row| {
        let help = format!("{} [default: {}]", row.help, row.default);
        command.arg(
            Arg::new(row.key)
                .long(row.flag())
                .env(row.variable())
                .hide_env_values(true)
                .value_name(row.kind.value_name())
                .action(ArgAction::Set)
                .help_heading("Over the file's keys")
                .help(help),
        )
    })
}

impl clap::Args for Overrides {
    fn augment_args(command: Command) -> Command {
        augment(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        augment(command)
    }
}

impl clap::FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut overrides = Self::default();
        overrides.update_from_arg_matches(matches)?;
        Ok(overrides)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for row in scalars() {
            if let Some(text) = matches.get_one::<String>(row.key) {
                self.table.insert(row.key.to_owned(), value(row.kind, text));
                let flag = matches.value_source(row.key) == Some(ValueSource::CommandLine);
                self.given.insert(row.key, if flag { format!("--{}", row.flag()) } else { row.variable() });
            }
        }
        Ok(())
    }
}

/// A text that is not of the kind stays a text: the check tells of it, together with all other faults.
fn value(kind: Kind, text: &str) -> Value {
    let typed = match kind {
        Kind::Number => text.parse().ok().map(Value::Integer),
        Kind::Bool => text.parse().ok().map(Value::Boolean),
        Kind::Text | Kind::List | Kind::Map => None,
    };
    typed.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// What to say of a key that does not exist.
pub(super) fn unknown(key: &str) -> String {
    let nearest = KEYS.iter().map(|row| (edits(key, row.key), row.key)).min();
    match nearest {
        Some((edits, near)) if edits <= EDITS_MAX => format!("no such key; did you mean {near}?"),
        _ => "no such key; all keys: mirror-agent run --help".to_owned(),
    }
}

/// Levenshtein's distance in bytes.
fn edits(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, a) in one.bytes().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (left, b) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[left + 1];
            row[left + 1] = replaced.min(row[left] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// The names of all keys, for the test that every one of them is read.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|row| row.key)
}
