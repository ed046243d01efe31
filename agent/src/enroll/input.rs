//! What people type to enrol a host, and what is wrong with it: all of it at once.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fleet::defaults::{LABEL_CHARS_MAX, LABELS_MAX};
use fleet::id::Name;
use mirror_certs::{JoinToken, SpkiHash};

use crate::config::{Address, Fault, Faults};
use crate::guard::upstream::Allowed;

/// Most bytes of a token file.
const TOKEN_FILE_BYTES_MAX: u64 = 4 << 10;
/// Where rsync is looked for when no path is given.
const PROGRAM_DIRS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/bin"];

/// Makes this host an agent of a fleet.
#[derive(clap::Args)]
pub struct EnrollArgs {
    /// The coordinator: HOST or HOST:PORT (7443)
    #[arg(value_name = "COORD")]
    coordinator: String,
    /// The join token, from `mirrorctl join-token create`; better by file or environment, where nobody sees it
    #[arg(long, env = "MIRROR_AGENT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// A file that holds the join token; - reads standard input. Instead of --token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The hash by which the fleet's CA is recognised; may be repeated, while one CA replaces another
    #[arg(long = "ca-hash", required = true, value_name = "sha256:HEX")]
    ca_hash: Vec<String>,
    /// The agent's name [default: the token's name, else the short host name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A named directory below which trees may lie, as in a1=/srv/mirror; may be repeated
    #[arg(long = "root", required = true, value_name = "NAME=PATH")]
    roots: Vec<String>,
    /// A label, by which people choose agents, as in role=edge; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// A loopback or private host or network from which may be pulled too; may be repeated [default: public ones only]
    #[arg(long = "allow-upstream", value_name = "HOST|CIDR")]
    allow_upstreams: Vec<String>,
    /// Absolute path of the rsync program [default: rsync of /usr/bin, /usr/local/bin or /bin]
    #[arg(long, value_name = "PATH")]
    rsync: Option<PathBuf>,
    /// Directory for agent.toml, certificate, journal and logs
    #[arg(long, default_value = ".", value_name = "DIR")]
    data_dir: PathBuf,
    /// Replace the enrolment that is in --data-dir
    #[arg(long)]
    force: bool,
}

impl std::fmt::Debug for EnrollArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is a secret.
        f.debug_struct("EnrollArgs").field("coordinator", &self.coordinator).finish_non_exhaustive()
    }
}

/// What was typed, checked.
pub struct Input {
    pub(super) coordinator: Address,
    pub(super) token: JoinToken,
    pub(super) pins: Vec<SpkiHash>,
    pub(super) name: Option<String>,
    pub(super) roots: BTreeMap<String, PathBuf>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) allow_upstreams: Vec<String>,
    pub(super) rsync: PathBuf,
    pub(super) data_dir: PathBuf,
    pub(super) force: bool,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("coordinator", &self.coordinator).finish_non_exhaustive()
    }
}

impl EnrollArgs {
    /// Checks what was typed.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(self) -> Result<Input, Faults> {
        let mut faults = Vec::new();
        let mut fault = |what: &str, text: String| faults.push(Fault::new(what, text));
        let shown = |text: &str, rule: &dyn std::fmt::Display| format!("\"{text}\": {rule}");
        let coordinator = self.coordinator.parse::<Address>();
        if let Err(bad) = &coordinator {
            fault("COORD", shown(&self.coordinator, bad));
        }
        let token = read_token(self.token, self.token_file.as_deref());
        if let Err((what, text)) = &token {
            fault(what, text.clone());
        }
        let mut pins = Vec::new();
        for hash in &self.ca_hash {
            // The error repeats what was typed.
            hash.parse().map_or_else(
                |bad: mirror_certs::SpkiHashError| fault("--ca-hash", bad.to_string()),
                |pin| pins.push(pin),
            );
        }
        if let Some(name) = &self.name
            && let Err(bad) = name.parse::<Name>()
        {
            fault("--name", shown(name, &bad));
        }
        let roots = pairs(&self.roots, "--root", "NAME=PATH, as in a1=/srv/mirror", &mut fault);
        for path in roots.values().filter(|path| !Path::new(path).is_absolute() || *path == "/") {
            fault("--root", shown(path, &"must be an absolute path below /"));
        }
        let labels = pairs(&self.labels, "--label", "KEY=VALUE, as in role=edge", &mut fault);
        if labels.len() > LABELS_MAX {
            fault("--label", format!("{} labels; at most {LABELS_MAX}", labels.len()));
        }
        for value in labels.values() {
            if value.chars().count() > LABEL_CHARS_MAX || value.chars().any(char::is_control) {
                fault(
                    "--label",
                    shown(value, &format!("at most {LABEL_CHARS_MAX} characters, none of them control")),
                );
            }
        }
        for text in &self.allow_upstreams {
            if let Err(bad) = text.parse::<Allowed>() {
                fault("--allow-upstream", shown(text, &bad));
            }
        }
        let rsync = self.rsync.unwrap_or_else(find_rsync);
        if !rsync.is_absolute() {
            fault("--rsync", shown(&rsync.display().to_string(), &"must be an absolute path"));
        }
        match (coordinator, token) {
            (Ok(coordinator), Ok(token)) if faults.is_empty() => Ok(Input {
                coordinator,
                token,
                pins,
                name: self.name,
                roots: roots.into_iter().map(|(name, path)| (name, path.into())).collect(),
                labels,
                allow_upstreams: self.allow_upstreams,
                rsync,
                data_dir: if self.data_dir == Path::new(".") { PathBuf::new() } else { self.data_dir },
                force: self.force,
            }),
            _ => Err(Faults::new("not enrolled", "what you typed", faults)),
        }
    }
}

/// The token, never shown in a fault.
fn read_token(typed: Option<String>, file: Option<&Path>) -> Result<JoinToken, (&'static str, String)> {
    let (what, text) = match (typed, file) {
        (Some(text), _) => ("--token", text),
        (None, None) => {
            let rule = "wanted is --token, --token-file or MIRROR_AGENT_TOKEN; make one: mirrorctl join-token create";
            return Err(("--token", rule.to_owned()));
        }
        (None, Some(path)) => {
            let mut text = String::new();
            let read = if path == Path::new("-") {
                std::io::stdin().take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text)
            } else {
                std::fs::File::open(path)
                    .and_then(|file| file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text))
            };
            let told = |error| ("--token-file", format!("\"{}\": cannot be read: {error}", path.display()));
            read.map_err(told)?;
            ("--token-file", text)
        }
    };
    text.parse().map_err(|bad: mirror_certs::TokenError| (what, bad.to_string()))
}

/// `NAME=VALUE` words, each name once.
fn pairs(
    texts: &[String],
    what: &str,
    form: &str,
    fault: &mut impl FnMut(&str, String),
) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    for text in texts {
        let Some((name, value)) = text.split_once('=').filter(|(_, value)| !value.is_empty()) else {
            fault(what, format!("\"{text}\": wanted is {form}"));
            continue;
        };
        if let Err(bad) = name.parse::<Name>() {
            fault(what, format!("\"{name}\": {bad}"));
        } else if pairs.insert(name.to_owned(), value.to_owned()).is_some() {
            fault(what, format!("\"{name}\": is given twice"));
        }
    }
    pairs
}

fn find_rsync() -> PathBuf {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    let places = PROGRAM_DIRS.iter().map(|dir| Path::new(dir).join("rsync"));
    places.clone().find(is_program).unwrap_or_else(|| Path::new(PROGRAM_DIRS[0]).join("rsync"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        enroll: EnrollArgs,
    }

    fn check(words: &[&str]) -> Result<Input, Faults> {
        let words = std::iter::once("enroll").chain(words.iter().copied());
        Cli::try_parse_from(words).unwrap().enroll.check()
    }

    #[test]
    fn all_faults_of_what_was_typed_at_once() {
        let token = JoinToken::generate().unwrap();
        let faults = check(&[
            "h:0",
            "--token",
            "nonsense",
            "--ca-hash",
            "sha256:12",
            "--name=-e",
            "--root",
            "a1",
            "--root",
            "a2=srv",
            "--root",
            "a3=/x",
            "--root",
            "a3=/y",
            "--label",
            "role",
            "--allow-upstream",
            "10.0.0.0/99",
            "--rsync",
            "rsync",
        ])
        .unwrap_err();
        let keys: Vec<&str> = faults.list.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "COORD",
                "--token",
                "--ca-hash",
                "--name",
                "--root",
                "--root",
                "--root",
                "--label",
                "--allow-upstream",
                "--rsync"
            ]
        );
        assert!(
            faults.to_string().starts_with("not enrolled: 10 faults in what you typed\n  COORD "),
            "{faults}"
        );
        let shown = check(&["h", "--token", token.reveal(), "--ca-hash", "x", "--root", "a=/b"]).unwrap_err();
        assert!(!shown.to_string().contains(token.reveal()));
    }

    #[test]
    fn a_token_comes_from_a_file_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, format!("{}\n", JoinToken::generate().unwrap().reveal())).unwrap();
        let hash = format!("sha256:{}", "0".repeat(64));
        let typed = [
            "h",
            "--token-file",
            path.to_str().unwrap(),
            "--ca-hash",
            &hash,
            "--root",
            "a=/b",
            "--label",
            "r=e",
        ];
        let input = check(&typed).unwrap();
        assert_eq!(input.coordinator.to_string(), "h:7443");
        assert_eq!(input.labels["r"], "e");
    }
}
