//! The table `[serve]`: whether and where this host serves trees to replicas. Its keys are read as `serve.KEY`, as flags
//! and faults name them. Opens no socket.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use fleet::project::Destination;
use rsync::uri::UriError;
use rsync::{Host, RsyncUri};
use toml::{Table, Value};

use super::{Fault, Reader};

/// Where replicas connect to by default: all addresses, at a port of rsync's style that needs no rights.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 8730);
/// Most connections of replicas that may be allowed at once; each is a process.
const CONNECTIONS_MAX: u64 = 1_000;
/// The table's name.
const TABLE: &str = "serve";

/// How trees are served to replicas.
#[derive(Debug, Clone)]
pub struct ServeKeys {
    /// Whether at all.
    pub enabled: bool,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Host name or address that replicas are told.
    pub address: Option<Told>,
    /// Connections at once.
    pub connections: usize,
    /// Roots that another daemon serves, each with the place that is the root there.
    external: BTreeMap<String, RsyncUri>,
}

/// The host that replicas are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told(pub Host);

impl FromStr for Told {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        // An address may come without brackets.
        text.parse().map(|address| Self(Host::V6(address))).or_else(|_| Host::parse(text).map(Self))
    }
}

impl ServeKeys {
    pub(super) fn read(keys: &mut Reader) -> Self {
        Self {
            enabled: keys.take("serve.enabled", true),
            listen: keys.parsed("serve.listen").unwrap_or(LISTEN_DEFAULT),
            address: keys.parsed("serve.address"),
            connections: keys.number("serve.connections", 16, 1, CONNECTIONS_MAX),
            external: external(keys),
        }
    }

    /// Whether another port may be taken where the wanted one is not free: nobody chose it.
    #[must_use]
    pub fn listen_elsewhere(&self) -> bool {
        self.listen == LISTEN_DEFAULT
    }

    /// Where replicas find a tree of a root that another daemon serves; none for all others.
    #[must_use]
    pub fn external(&self, destination: &Destination) -> Option<RsyncUri> {
        let root = self.external.get(destination.root())?.to_string();
        // A destination has no character that a URI gives a meaning to, so this is one.
        RsyncUri::parse(&format!("{}/{}/", root.trim_end_matches('/'), destination.path())).ok()
    }

    /// All roots that another daemon serves, by name, as the coordinator is told.
    #[must_use]
    pub fn external_roots(&self) -> BTreeMap<String, String> {
        let told = |(root, uri): (&String, &RsyncUri)| (root.clone(), uri.to_string());
        self.external.iter().map(told).collect()
    }

    pub(super) fn check_roots(&self, roots: &BTreeMap<String, PathBuf>, faults: &mut Vec<Fault>) {
        for name in self.external.keys().filter(|name| !roots.contains_key(*name)) {
            faults
                .push(Fault::new("serve.external", format!("\"{name}\": is no root; roots are in [roots]")));
        }
    }
}

/// Users and passwords are refused: replicas get them from the coordinator, and it knows none of another daemon.
fn external(keys: &mut Reader) -> BTreeMap<String, RsyncUri> {
    let texts: BTreeMap<String, String> = keys.take("serve.external", BTreeMap::new());
    let mut found = BTreeMap::new();
    for (root, text) in texts {
        let parsed = RsyncUri::parse(&text).and_then(|uri| uri.check_source().map(|()| uri));
        let fault = match parsed {
            // Not shown: it may be a password.
            Ok(uri) if uri.user().is_some() => "names a user; replicas read it without one".to_owned(),
            Ok(uri) => {
                found.insert(root, uri);
                continue;
            }
            Err(error) => error.to_string(),
        };
        keys.faults.push(Fault::new("serve.external", format!("{root}: {fault}")));
    }
    found
}

/// The keys of the table as `serve.KEY`, below those that are there by that name: flags and variables put them there.
pub(super) fn flattened(mut table: Table) -> Table {
    match table.remove(TABLE) {
        Some(Value::Table(inner)) => {
            for (key, value) in inner {
                table.entry(format!("{TABLE}.{key}")).or_insert(value);
            }
        }
        // No table: told as an unknown key.
        Some(other) => _ = table.insert(TABLE.to_owned(), other),
        None => {}
    }
    table
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn check(serve: &str) -> Result<ServeKeys, Vec<Fault>> {
        let text = format!("coordinators = [\"c\"]\n[roots]\na1 = \"/srv/mirror\"\n{serve}");
        Config::check(text.parse().unwrap(), Path::new("/var/lib/mirror-agent")).map(|config| config.serve)
    }

    #[test]
    fn defaults_and_values() {
        let keys = check("").unwrap();
        assert!(keys.enabled && keys.listen_elsewhere() && keys.address.is_none());
        assert_eq!((keys.listen.to_string().as_str(), keys.connections), ("[::]:8730", 16));
        let keys = check(
            "[serve]\nlisten = \"192.0.2.1:873\"\naddress = \"FTP.example.org\"\nconnections = 4\nenabled = false\n\
             [serve.external]\na1 = \"rsync://ftp.example.org/mirror\"\n",
        )
        .unwrap();
        assert!(!keys.enabled && !keys.listen_elsewhere());
        assert_eq!((keys.address.clone(), keys.connections), (Some("ftp.example.org".parse().unwrap()), 4));
        assert_eq!("2001:db8::1".parse::<Told>().unwrap(), "[2001:db8::1]".parse().unwrap());
        let uri = keys.external(&"a1:debian/cd".parse().unwrap()).map(|uri| uri.to_string());
        assert_eq!(uri.as_deref(), Some("rsync://ftp.example.org/mirror/debian/cd/"));
        assert_eq!(keys.external(&"a2:debian".parse().unwrap()), None);
    }

    #[test]
    fn faults() {
        for (text, key) in [
            ("[serve]\nlisten = \"8730\"", "serve.listen"),
            ("[serve]\nconnections = 0", "serve.connections"),
            ("[serve]\naddress = \"a b\"", "serve.address"),
            ("[serve]\nconnection = 3", "serve.connection"),
            ("[serve.external]\na1 = \"rsync://u@h/m/\"", "serve.external"),
            ("[serve.external]\na1 = \"rsync://h/\"", "serve.external"),
            ("[serve.external]\na2 = \"rsync://h/m/\"", "serve.external"),
        ] {
            let faults = check(text).unwrap_err();
            assert_eq!(faults.iter().map(|fault| fault.key.as_str()).collect::<Vec<_>>(), [key], "{text}");
        }
        let shown = format!("{:?}", check("[serve.external]\na1 = \"rsync://u:sekrit@h/m/\"").unwrap_err());
        assert!(!shown.contains("sekrit"), "{shown}");
    }
}
