//! Contexts: which coordinator, and as whom. The file's format is told in this folder's README.
//!
//! Knows files and variables, no network: what it answers is where to dial and which files to show.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::exit::Exit;
use crate::fault::{Fault, Outcome};

/// The port when a server is given without one.
pub const PORT_DEFAULT: u16 = 7443;
/// Largest configuration file, in bytes: thousands of contexts.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The context in use.
    pub current: Option<String>,
    /// All contexts by name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// One coordinator, and who we are there. Relative paths are relative to the file's directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// `host:port`; without a port 7443.
    pub server: String,
    /// The fleet's CA certificates, PEM.
    pub ca: PathBuf,
    /// The user's certificate, PEM; with `key`.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// What `mirrorctl login` got.
    pub token: Option<Secret>,
}

/// A text that is not shown by accident.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret([hidden])")
    }
}

/// What flags and variables say; each overrides the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`, `MIRRORCTL_CONFIG`.
    pub config: Option<PathBuf>,
    /// `--context`, `MIRRORCTL_CONTEXT`.
    pub context: Option<String>,
    /// `--server`, `MIRRORCTL_SERVER`.
    pub server: Option<String>,
    /// `--ca`, `MIRRORCTL_CA`.
    pub ca: Option<PathBuf>,
    /// `--certificate`, `MIRRORCTL_CERTIFICATE`.
    pub certificate: Option<PathBuf>,
    /// `--key`, `MIRRORCTL_KEY`.
    pub key: Option<PathBuf>,
    /// `--socket`, `MIRRORCTL_SOCKET`.
    pub socket: Option<PathBuf>,
}

/// The file that is read: the flag's or variable's, else the user's own.
#[must_use]
pub fn path(overrides: &Overrides) -> PathBuf {
    if let Some(path) = &overrides.config {
        return path.clone();
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .unwrap_or_else(|| PathBuf::from("/etc"));
    directory.join("mirrorctl").join("config.toml")
}

/// Reads the file, its paths made absolute. A file that is not there is an empty one, unless it was asked for by name.
///
/// # Errors
/// A file that cannot be read, or is not in the format.
pub fn load(overrides: &Overrides) -> Outcome<Config> {
    let path = path(overrides);
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && overrides.config.is_none() => {
            return Ok(Config::default());
        }
        Err(error) => {
            return Err(Fault::new(Exit::BadInput, format!("could not read {}: {error}", path.display()))
                .fault("yours: --config or MIRRORCTL_CONFIG names this file")
                .next("mirrorctl context --help"));
        }
    };
    parse(&text, &path)
}

/// As [`load`], but a file that is not there is an empty one also where it was asked for by name: it is about to be made.
///
/// # Errors
/// As [`load`].
pub fn load_if_there(overrides: &Overrides) -> Outcome<Config> {
    if path(overrides).exists() { load(overrides) } else { Ok(Config::default()) }
}

/// The context to use, with its name.
///
/// # Errors
/// No context, or one that is not in the file.
pub fn choose(config: &Config, overrides: &Overrides) -> Outcome<(String, Context)> {
    let name = overrides.context.as_ref().or(config.current.as_ref());
    let stored = match name {
        Some(name) => Some(config.contexts.get(name).ok_or_else(|| no_context(config, name))?.clone()),
        None if config.contexts.len() == 1 => config.contexts.values().next().cloned(),
        None => None,
    };
    let name =
        name.or_else(|| config.contexts.keys().next()).cloned().unwrap_or_else(|| "(environment)".to_owned());
    let missing = |what: &str| {
        Fault::new(Exit::BadInput, format!("no coordinator is known: {what} is not set"))
            .fault("yours: there is no context yet")
            .next("export MIRRORCTL_CONFIG=DATA-DIR/admin/mirrorctl.toml  (as `mirror-coordinator init` wrote it)")
    };
    let pick = |given: &Option<PathBuf>, stored: Option<PathBuf>, what| {
        given.clone().or(stored).ok_or_else(|| missing(what))
    };
    let server = overrides.server.clone().or_else(|| stored.as_ref().map(|context| context.server.clone()));
    let server = with_port(&server.ok_or_else(|| missing("--server"))?)?;
    let ca = pick(&overrides.ca, stored.as_ref().map(|context| context.ca.clone()), "--ca")?;
    let stored = stored.as_ref();
    let both = |given: &Option<PathBuf>, stored: Option<&PathBuf>| given.clone().or_else(|| stored.cloned());
    let certificate = both(&overrides.certificate, stored.and_then(|context| context.certificate.as_ref()));
    let key = both(&overrides.key, stored.and_then(|context| context.key.as_ref()));
    if certificate.is_some() != key.is_some() {
        let missing = if key.is_some() { "--certificate" } else { "--key" };
        return Err(Fault::new(
            Exit::BadInput,
            format!("context {name}: a certificate is used with its key, and {missing} is not set"),
        )
        .fault("yours: the context, or the flags")
        .next("mirrorctl context show"));
    }
    let token = stored.and_then(|context| context.token.clone());
    let context = Context { server, ca, certificate, key, token };
    Ok((name, context))
}

/// Makes `name` the current context and keeps everything else in the file, comments included.
///
/// # Errors
/// An unknown name, or a file that cannot be read or written.
pub fn use_context(overrides: &Overrides, name: &str) -> Outcome<PathBuf> {
    let path = path(overrides);
    let config = load(overrides)?;
    if !config.contexts.contains_key(name) {
        return Err(no_context(&config, name));
    }
    let unreadable = |error: &dyn std::fmt::Display| {
        Fault::new(Exit::BadInput, format!("could not change {}: {error}", path.display()))
            .fault("this host's")
    };
    let text = read(&path).map_err(|error| unreadable(&error))?;
    let changed = with_current(&text, name);
    // A file in a shape that the line edit does not understand must not be spoilt.
    let understood = parse(&changed, &path)?;
    if understood.current.as_deref() != Some(name) || understood.contexts != config.contexts {
        return Err(unreadable(&"its `current` line is in an unusual form; please edit it by hand"));
    }
    mirror_certs::write_private(&path, &changed, mirror_certs::Existing::Replace)
        .map_err(|error| unreadable(&error))?;
    Ok(path)
}

/// What is written into a context. `None` leaves a key as it is.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// Where the coordinator is.
    pub server: Option<String>,
    /// File of the fleet's CAs.
    pub ca: Option<String>,
    /// Files of certificate and key.
    pub identity: Option<(String, String)>,
    /// The token; `Some(None)` removes it.
    pub token: Option<Option<Secret>>,
}

/// Writes into a context, which is made where there is none, and makes it the current one where there is none. All else
/// in the file stays, comments included; nobody but its owner reads it from then on.
///
/// # Errors
/// A file that cannot be read or written, or is not in the format.
pub fn edit(overrides: &Overrides, name: &str, edit: &Edit) -> Outcome<PathBuf> {
    let path = path(overrides);
    let failed = |error: &dyn std::fmt::Display| {
        Fault::new(Exit::BadInput, format!("could not write {}: {error}", path.display()))
            .fault("this host's, or yours: --config names this file")
            .next("mirrorctl context show")
    };
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(&error)),
    };
    let changed = edited(&text, name, edit).map_err(|error| failed(&error))?;
    parse(&changed, &path)?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    }
    mirror_certs::write_private(&path, &changed, mirror_certs::Existing::Replace)
        .map_err(|error| failed(&crate::client::chain(&error)))?;
    Ok(path)
}

/// The text with a context changed.
fn edited(text: &str, name: &str, edit: &Edit) -> Result<String, toml_edit::TomlError> {
    use toml_edit::{DocumentMut, Item, Table, value};
    let mut document: DocumentMut = text.parse()?;
    if !document.contains_key("current") {
        document.insert("current", value(name));
    }
    let table = || {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    };
    let contexts = document.entry("contexts").or_insert_with(table);
    let context = contexts
        .as_table_like_mut()
        .map(|contexts| contexts.entry(name).or_insert_with(|| Item::Table(Table::new())));
    let Some(context) = context.and_then(Item::as_table_like_mut) else { return Ok(document.to_string()) };
    let mut set = |key: &str, text: &str| {
        context.insert(key, value(text));
    };
    for (key, text) in [("server", &edit.server), ("ca", &edit.ca)] {
        text.iter().for_each(|text| set(key, text));
    }
    if let Some((certificate, key)) = &edit.identity {
        set("certificate", certificate);
        set("key", key);
    }
    match &edit.token {
        Some(Some(Secret(token))) => set("token", token),
        Some(None) => {
            context.remove("token");
        }
        None => {}
    }
    Ok(document.to_string())
}

/// Host and port of a server as it is dialled.
///
/// # Errors
/// A text that is neither `host` nor `host:port` nor `[v6]:port`.
pub fn with_port(server: &str) -> Outcome<String> {
    let bad = || {
        Fault::new(
            Exit::BadInput,
            format!("server {server:?}: write host:port, as in coordinator.example.org:7443"),
        )
    };
    let bare_v6 = server.parse::<std::net::Ipv6Addr>().is_ok();
    if server.is_empty() || server.contains(['/', '@', ' ']) {
        return Err(bad());
    }
    if bare_v6 {
        return Ok(format!("[{server}]:{PORT_DEFAULT}"));
    }
    match server.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let known = port.parse::<u16>().is_ok_and(|port| port > 0) && !host.is_empty();
            if known { Ok(server.to_owned()) } else { Err(bad()) }
        }
        _ => Ok(format!("{server}:{PORT_DEFAULT}")),
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(CONFIG_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn parse(text: &str, path: &Path) -> Outcome<Config> {
    let mut config: Config = toml::from_str(text).map_err(|error| {
        Fault::new(Exit::BadInput, format!("{} is not a configuration of mirrorctl", path.display()))
            .detail("why", error.to_string().trim().replace('\n', "\n       "))
            .fault("yours: the file")
            .next("mirrorctl context --help")
    })?;
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    for context in config.contexts.values_mut() {
        let files = [&mut context.certificate, &mut context.key].into_iter().flatten();
        for file in std::iter::once(&mut context.ca).chain(files) {
            *file = directory.join(&*file);
        }
    }
    Ok(config)
}

/// The text with its `current` line replaced, or put first.
fn with_current(text: &str, name: &str) -> String {
    let line = format!("current = {}", toml::Value::from(name));
    let mut replaced = false;
    let mut in_table = false;
    let mut lines: Vec<String> = Vec::new();
    for old in text.lines() {
        in_table |= old.trim_start().starts_with('[');
        let is_current =
            old.trim_start().strip_prefix("current").is_some_and(|rest| rest.trim_start().starts_with('='));
        if is_current && !in_table && !replaced {
            replaced = true;
            lines.push(line.clone());
        } else {
            lines.push(old.to_owned());
        }
    }
    if !replaced {
        lines.insert(0, line);
    }
    lines.join("\n") + "\n"
}

fn no_context(config: &Config, name: &str) -> Fault {
    let near = crate::suggest::nearest(name, config.contexts.keys().map(String::as_str));
    let what = match near {
        Some(near) => format!("no context {name:?}; the nearest name is {near}"),
        None => format!("no context {name:?}"),
    };
    Fault::new(Exit::NotFound, what).next("mirrorctl context list")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# ours\ncurrent = \"default\"\n\n[contexts.default]\nserver = \"127.0.0.1:7443\"\nca = \"ca.pem\"\n\
                        certificate = \"admin.pem\"\nkey = \"admin.key\"\n\n[contexts.far]\nserver = \"far.example.org\"\n\
                        ca = \"/etc/far/ca.pem\"\ncertificate = \"/etc/far/me.pem\"\nkey = \"/etc/far/me.key\"\n";

    fn overrides(config: &Path) -> Overrides {
        Overrides { config: Some(config.to_owned()), ..Overrides::default() }
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mirrorctl.toml");
        std::fs::write(&path, FILE).unwrap();
        (directory, path)
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let (directory, path) = file();
        let (name, context) = choose(&load(&overrides(&path)).unwrap(), &overrides(&path)).unwrap();
        assert_eq!((name.as_str(), context.server.as_str()), ("default", "127.0.0.1:7443"));
        assert_eq!(context.ca, directory.path().join("ca.pem"));
    }

    #[test]
    fn flags_and_variables_override_the_file() {
        let (_directory, path) = file();
        let given = Overrides {
            context: Some("far".to_owned()),
            key: Some("/tmp/other.key".into()),
            ..overrides(&path)
        };
        let (_, context) = choose(&load(&given).unwrap(), &given).unwrap();
        assert_eq!(context.server, "far.example.org:7443");
        assert_eq!(context.ca, Path::new("/etc/far/ca.pem"));
        assert_eq!(context.key.as_deref(), Some(Path::new("/tmp/other.key")));
    }

    #[test]
    fn without_any_context_the_next_step_is_told() {
        let fault = choose(&Config::default(), &Overrides::default()).unwrap_err();
        assert_eq!(fault.exit, Exit::BadInput);
        assert!(fault.to_string().contains("MIRRORCTL_CONFIG=DATA-DIR/admin/mirrorctl.toml"), "{fault}");
    }

    #[test]
    fn another_context_is_chosen_and_comments_stay() {
        let (_directory, path) = file();
        use_context(&overrides(&path), "far").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, FILE.replace("current = \"default\"", "current = \"far\""));
        let fault = use_context(&overrides(&path), "fra").unwrap_err();
        assert_eq!(fault.exit, Exit::NotFound);
        assert!(fault.what.ends_with("the nearest name is far"), "{fault}");
    }

    #[test]
    fn a_context_is_written_into_and_all_else_stays() {
        let (_directory, path) = file();
        let token = |text: &str| Some(Some(Secret(text.to_owned())));
        let given = overrides(&path);
        edit(&given, "default", &Edit { token: token("mut_x"), ..Edit::default() }).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# ours\ncurrent = \"default\"\n") && text.contains("[contexts.far]"),
            "{text}"
        );
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let context = choose(&load(&given).unwrap(), &given).unwrap().1;
        assert_eq!(context.token, Some(Secret("mut_x".to_owned())));
        assert!(!format!("{context:?}").contains("mut_x"));
        edit(&given, "default", &Edit { token: Some(None), ..Edit::default() }).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), FILE);
    }

    #[test]
    fn a_first_context_is_made_and_is_the_current_one() {
        let directory = tempfile::tempdir().unwrap();
        let given = overrides(&directory.path().join("new/config.toml"));
        let made = Edit {
            server: Some("c.example.org:7443".to_owned()),
            ca: Some("default-ca.pem".to_owned()),
            token: Some(Some(Secret("mut_x".to_owned()))),
            ..Edit::default()
        };
        let path = edit(&given, "default", &made).unwrap();
        let (name, context) = choose(&load(&given).unwrap(), &given).unwrap();
        assert_eq!((name.as_str(), context.server.as_str()), ("default", "c.example.org:7443"));
        assert_eq!(context.ca, path.parent().unwrap().join("default-ca.pem"));
        assert!(context.certificate.is_none() && context.token.is_some());
        let key_only = Overrides { key: Some("/k".into()), ..given };
        assert!(
            choose(&load(&key_only).unwrap(), &key_only)
                .unwrap_err()
                .what
                .contains("--certificate is not set")
        );
    }

    #[test]
    fn unknown_keys_and_missing_files_are_told() {
        let (_directory, path) = file();
        std::fs::write(&path, "curent = \"x\"\n").unwrap();
        assert!(load(&overrides(&path)).unwrap_err().to_string().contains("curent"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(load(&overrides(&path)).unwrap_err().exit, Exit::BadInput);
    }

    #[test]
    fn servers() {
        for (typed, dialled) in [
            ("h", Some("h:7443")),
            ("h:1", Some("h:1")),
            ("::1", Some("[::1]:7443")),
            ("[::1]:9", Some("[::1]:9")),
            ("[::1]", Some("[::1]:7443")),
            ("https://h", None),
            ("h:0", None),
            ("h:x", None),
            ("", None),
        ] {
            assert_eq!(with_port(typed).ok().as_deref(), dialled, "{typed}");
        }
    }
}
