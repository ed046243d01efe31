//! What other systems hand to rsync as its source, as an upstream's URI: `rsync://`, `host::module` and the rest, which
//! no upstream can be. Knows nothing of passwords' files and destinations.

use rsync::RsyncUri;
use zeroize::Zeroizing;

/// A source on an rsync daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// `rsync://host[:port]/module[/path]/`, percent-encoded, without user and password.
    pub(super) uri: String,
    /// Empty: anonymous.
    pub(super) user: String,
    /// Where one stood in the source itself.
    pub(super) password: Option<Zeroizing<String>>,
    /// The directory that rsync makes below the destination, since the source does not end with a slash.
    pub(super) own_directory: Option<String>,
}

/// Reads a source; `port` stands for rsync's `--port`.
///
/// # Errors
/// Why it is none that an agent can pull from, as the end of a sentence that begins with "its source".
pub(super) fn read(text: &str, port: Option<&str>) -> Result<Source, String> {
    if text.is_empty() {
        return Err("is missing".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("holds a control character".to_owned());
    }
    let (authority, path, is_url) = parts(text)?;
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (user, host),
        None => ("", authority),
    };
    let (user, password) = match user.split_once(':') {
        Some((user, password)) => (user, Some(Zeroizing::new(password.to_owned()))),
        None => (user, None),
    };
    let host = match port {
        Some(port) if !is_url || !has_port(host) => format!("{host}:{port}"),
        _ => host.to_owned(),
    };
    let at = if user.is_empty() { String::new() } else { format!("{user}@") };
    let path = path.trim_start_matches('/');
    let slash = if path.is_empty() || path.ends_with('/') { "" } else { "/" };
    let path_encoded = encoded(path);
    let whole = RsyncUri::parse(&format!("rsync://{at}{host}/{path_encoded}{slash}"));
    // The errors never show the user or the password.
    let whole = whole.and_then(|uri| uri.check_source().map(|()| uri)).map_err(|bad| bad.to_string())?;
    let inside = path.trim_end_matches('/').rsplit_once('/').map(|(_, last)| last.to_owned());
    let own_directory = inside.filter(|_| !path.ends_with('/'));
    let written = whole.to_string();
    let uri = match written.split_once('@') {
        Some((_, rest)) if !user.is_empty() => format!("rsync://{rest}"),
        _ => written,
    };
    Ok(Source { uri, user: user.to_owned(), password, own_directory })
}

/// User and host, the path with its module, and whether it is a URL.
fn parts(text: &str) -> Result<(&str, &str, bool), String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        if !scheme.eq_ignore_ascii_case("rsync") {
            let scheme: String = scheme.chars().take(20).collect();
            return Err(format!("is {scheme}://, not rsync://"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        return Ok((authority, path, true));
    }
    // The colons of an address in brackets are its own.
    let from = text.find(']').filter(|end| text[..*end].contains('[')).unwrap_or(0);
    let Some(colon) = text[from..].find(':').map(|at| from + at) else {
        return Err("is a directory of the host itself".to_owned());
    };
    if text[..colon].contains('/') {
        return Err("is a directory of the host itself".to_owned());
    }
    match text[colon..].strip_prefix("::") {
        Some(path) => Ok((&text[..colon], path, false)),
        None => Err("is read over a remote shell, not from an rsync daemon".to_owned()),
    }
}

/// Whether a port follows the host or the bracketed address.
fn has_port(host: &str) -> bool {
    host.rsplit_once(']').map_or(host, |(_, behind)| behind).contains(':')
}

/// rsync decodes no escapes; a URI does.
fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@[]\\".contains(&byte);
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if plain(byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_daemons() {
        for (text, port, uri, user, own) in [
            ("rsync://ftp.example.net/debian/", None, "rsync://ftp.example.net/debian/", "", None),
            ("ftp.example.net::debian", None, "rsync://ftp.example.net/debian/", "", None),
            ("me@ftp.example.net::pub/a b", None, "rsync://ftp.example.net/pub/a%20b/", "me", Some("a b")),
            ("rsync://me@h:8730/m/x/", Some("9"), "rsync://h:8730/m/x/", "me", None),
            ("h::m/", Some("8730"), "rsync://h:8730/m/", "", None),
            ("[2001:db8::1]::m/x", None, "rsync://[2001:db8::1]/m/x/", "", Some("x")),
        ] {
            let source = read(text, port).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!((source.uri.as_str(), source.user.as_str()), (uri, user), "{text}");
            assert_eq!(source.own_directory.as_deref(), own, "{text}");
        }
        let source = read("rsync://me:hunter2@h/m/", None).unwrap();
        assert_eq!(source.password.unwrap().as_str(), "hunter2");
        assert!(!source.uri.contains("hunter2"));
    }

    #[test]
    fn what_is_no_upstream() {
        for (text, why) in [
            ("", "is missing"),
            ("https://h/x", "is https://, not rsync://"),
            ("rsync+ssh://h/x", "is rsync+ssh://"),
            ("mirror@h:/srv/x", "remote shell"),
            ("/srv/x", "directory of the host itself"),
            ("./a:b", "directory of the host itself"),
            ("rsync://h/", "names no module"),
            ("h::m/*.deb", "expands to other names"),
            ("h::m/\u{1}", "control character"),
        ] {
            let told = read(text, None).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
        assert!(!read("rsync://me:hunter2@h:x/m/", None).unwrap_err().contains("hunter2"));
    }
}
