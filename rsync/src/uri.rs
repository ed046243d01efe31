//! `rsync://[user[:password]@]host[:port]/[module[/path]]` (RFC 5781), as bytes.
//!
//! [`RsyncUri::parse`] refuses what would make rsync do something else than talk to that host's daemon:
//! `rsync://h:abc/` runs ssh, ports above 65535 wrap around, a host that starts with `-` is read as an option.
//! [`RsyncUri::check_source`] adds what only a mirror pull must refuse: a name that a daemon would expand.
//! Does NOT resolve names and does not decide which hosts may be contacted.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

pub use crate::host::{Host, valid_host};
use crate::text::printable;

/// Longest accepted URI text, in bytes (a path of 4,096 bytes is Linux's own limit).
pub const URI_BYTES_MAX: usize = 8 << 10;
/// Longest user of a mirror source, in bytes.
pub const USER_BYTES_MAX: usize = 64;
/// Longest password, in bytes: rsync reads one line into a buffer of 512 (`authenticate.c`).
pub const PASSWORD_BYTES_MAX: usize = 510;
/// The port when the URI names none (RFC 5781).
pub const PORT_DEFAULT: u16 = 873;

/// RFC 3986 `unreserved`: never escaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Inside a path the slash separates.
const ESCAPED_IN_PATH: &AsciiSet = &ESCAPED.remove(b'/');

/// Why a text is no usable `rsync://` URI. No message repeats the user information, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// Empty text.
    #[error("is empty; write rsync://host/module/")]
    Empty,
    /// Longer than [`URI_BYTES_MAX`].
    #[error("is longer than {URI_BYTES_MAX} bytes")]
    TooLong,
    /// Another scheme, or none.
    #[error("unknown scheme {0}; write rsync://host/module/")]
    Scheme(String),
    /// A raw space or control character.
    #[error("holds a space or control character; write it as %20 and the like")]
    RawByte,
    /// `?query` or `#fragment`: rsync has neither.
    #[error("an rsync URI has no query and no fragment; write ? as %3F and # as %23")]
    QueryOrFragment,
    /// `%` without two hexadecimal digits, or `%00`.
    #[error("holds a bad percent escape: % needs two hexadecimal digits and never 00")]
    Escape,
    /// No `//host`.
    #[error("names no host; write rsync://host/module/")]
    NoHost,
    /// Not a host name and no address.
    #[error("the host is no host name and no address (an IPv6 address stands in brackets)")]
    Host,
    /// Port outside 1 to 65535, or no number.
    #[error("the port is no number from 1 to 65535")]
    Port,
    /// A second `@`, an empty user, or control bytes in user or password.
    #[error("the part before @ is malformed; write a literal @ as %40 and leave no control characters in it")]
    UserInfo,
    /// A password rsync cannot take: empty lines, or longer than [`PASSWORD_BYTES_MAX`].
    #[error("the password is longer than {PASSWORD_BYTES_MAX} bytes or not one line")]
    Password,
    /// Module name with a leading `-` or `#`, or with a slash or control byte in it.
    #[error(
        "the module {0} is malformed: it may not start with - or #, nor hold a slash or a control character"
    )]
    Module(String),
    /// `.` or `..` as a component.
    #[error("the path holds a . or .. component; write the path that is meant")]
    Dots,
    /// A mirror needs a module.
    #[error("names no module; write rsync://host/module/")]
    NoModule,
    /// User that rsync would read as something else, or none before the password.
    #[error("the user may have 1 to {USER_BYTES_MAX} of A-Z a-z 0-9 . _ - and may not start with -")]
    User,
    /// `* ? [ \`: daemons expand them.
    #[error(
        "the module or path holds {0:?}, which a daemon expands to other names; name the directory itself"
    )]
    Wildcard(char),
    /// A control byte in the path of a mirror source.
    #[error("the path holds a control character")]
    PathControl,
    /// A leading `-` in the path of a mirror source.
    #[error("the path starts with -, which a daemon reads as an option")]
    PathDash,
}

/// A password. Neither `Debug` nor anything else shows it, and it is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Takes a password of 1 to [`PASSWORD_BYTES_MAX`] bytes without NUL and line ends.
    ///
    /// # Errors
    /// [`UriError::Password`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, UriError> {
        let bytes = Zeroizing::new(bytes);
        let fits = (1..=PASSWORD_BYTES_MAX).contains(&bytes.len());
        let one_line = !bytes.iter().any(|b| matches!(b, 0 | b'\n' | b'\r'));
        if fits && one_line { Ok(Self(bytes)) } else { Err(UriError::Password) }
    }

    /// The bytes, for the pipe to rsync and for sealing.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// A parsed `rsync://` URI. `Display` is its canonical text without the password; parsing that text gives the
/// same URI again (without the password).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RsyncUri {
    host: Host,
    port: u16,
    user: Option<Vec<u8>>,
    password: Option<Password>,
    /// Empty: the URI means the list of modules.
    module: Vec<u8>,
    /// Decoded, single slashes, neither leading nor trailing ones.
    path: Vec<u8>,
    /// The text ended with a slash: the contents of a directory.
    directory: bool,
}

impl RsyncUri {
    /// Reads an `rsync://` URI. Percent escapes are decoded once; a `%2F` in a path is a slash, empty segments
    /// are dropped. The module may be missing (the list of modules); a mirror source is checked by
    /// [`check_source`](Self::check_source).
    ///
    /// # Errors
    /// The first fault found, as [`UriError`]. No error shows the user or the password.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let rest = strip_scheme(text)?;
        if text.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(UriError::RawByte);
        }
        if rest.contains(['?', '#']) {
            return Err(UriError::QueryOrFragment);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user_info, host_port) = match authority.split_once('@') {
            Some((user_info, host_port)) => (Some(user_info), host_port),
            None => (None, authority),
        };
        if host_port.contains('@') {
            return Err(UriError::UserInfo);
        }
        let (host, port) = parse_host_port(host_port)?;
        let (user, password) = user_info.map_or(Ok((None, None)), parse_user_info)?;
        let (module, path, directory) = parse_path(path)?;
        Ok(Self { host, port, user, password, module, path, directory })
    }

    /// Whether this URI can be the source of a mirror: a module is named, a user is of the plain kind, and no
    /// byte of module or path means something else to a daemon.
    ///
    /// # Errors
    /// The first reason against it.
    pub fn check_source(&self) -> Result<(), UriError> {
        if self.module.is_empty() {
            return Err(UriError::NoModule);
        }
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let user_ok = |user: &Vec<u8>| {
            user.len() <= USER_BYTES_MAX && user.iter().all(plain) && user.first().is_some_and(|b| *b != b'-')
        };
        if self.user.as_ref().is_some_and(|user| !user_ok(user))
            || (self.user.is_none() && self.password.is_some())
        {
            return Err(UriError::User);
        }
        let names = || self.module.iter().chain(&self.path);
        if let Some(wild) = names().find(|b| matches!(b, b'*' | b'?' | b'[' | b'\\')) {
            return Err(UriError::Wildcard(char::from(*wild)));
        }
        if names().any(u8::is_ascii_control) {
            return Err(UriError::PathControl);
        }
        if self.path.starts_with(b"-") { Err(UriError::PathDash) } else { Ok(()) }
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, [`PORT_DEFAULT`] if the text named none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The user, decoded.
    #[must_use]
    pub fn user(&self) -> Option<&[u8]> {
        self.user.as_deref()
    }

    /// The password, decoded. It belongs on a pipe and nowhere else.
    #[must_use]
    pub fn password(&self) -> Option<&Password> {
        self.password.as_ref()
    }

    /// Splits the password off, for keeping it apart from the URI.
    #[must_use]
    pub fn split_password(mut self) -> (Self, Option<Password>) {
        let password = self.password.take();
        (self, password)
    }

    /// The module, decoded; empty where the URI means the list of modules.
    #[must_use]
    pub fn module(&self) -> &[u8] {
        &self.module
    }

    /// The path inside the module, decoded, without slashes at either end; empty for the module itself.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Whether the text ended with a slash or named a module only: the contents of a directory are meant.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.directory
    }

    /// The operand for rsync's command line: `rsync://user@host:port/module/path/`, names literal (rsync decodes
    /// no escapes), always with the trailing slash that means the directory's contents, never with a password.
    /// Only meaningful for a URI that passed [`check_source`](Self::check_source).
    #[must_use]
    pub fn operand(&self) -> OsString {
        let mut out = b"rsync://".to_vec();
        if let Some(user) = &self.user {
            out.extend_from_slice(user);
            out.push(b'@');
        }
        out.extend_from_slice(self.host.to_string().as_bytes());
        if self.port != PORT_DEFAULT {
            out.extend_from_slice(format!(":{}", self.port).as_bytes());
        }
        for part in [&self.module, &self.path] {
            if !part.is_empty() {
                out.push(b'/');
                out.extend_from_slice(part);
            }
        }
        out.push(b'/');
        OsString::from_vec(out)
    }
}

impl fmt::Display for RsyncUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rsync://")?;
        if let Some(user) = &self.user {
            write!(f, "{}@", percent_encode(user, ESCAPED))?;
        }
        self.host.fmt(f)?;
        if self.port != PORT_DEFAULT {
            write!(f, ":{}", self.port)?;
        }
        f.write_str("/")?;
        f.write_str(&percent_encode(&self.module, ESCAPED).to_string())?;
        if !self.path.is_empty() {
            write!(f, "/{}", percent_encode(&self.path, ESCAPED_IN_PATH))?;
        }
        if self.directory && !self.module.is_empty() { f.write_str("/") } else { Ok(()) }
    }
}

impl std::str::FromStr for RsyncUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}

fn strip_scheme(text: &str) -> Result<&str, UriError> {
    if text.is_empty() {
        return Err(UriError::Empty);
    }
    if text.len() > URI_BYTES_MAX {
        return Err(UriError::TooLong);
    }
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    match scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case("rsync") => {
            text[scheme.len() + 1..].strip_prefix("//").ok_or(UriError::NoHost)
        }
        // What stands before `:` is shown only where it is followed by `//`: in `user:password@host` it is no
        // scheme.
        Some(scheme) if text[scheme.len()..].starts_with("://") => {
            Err(UriError::Scheme(format!("{:?}", printable(scheme.as_bytes(), 32))))
        }
        _ => Err(UriError::Scheme("(none)".to_owned())),
    }
}

fn parse_host_port(text: &str) -> Result<(Host, u16), UriError> {
    // The colon that separates the port comes after the bracket of an IPv6 address.
    let host_end = text.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match text[host_end..].find(':') {
        Some(colon) => (&text[..host_end + colon], &text[host_end + colon + 1..]),
        None => (text, ""),
    };
    if host.is_empty() {
        return Err(UriError::NoHost);
    }
    let host = Host::parse(host)?;
    // RFC 3986 3.2.3: an empty port is the default one.
    if port.is_empty() {
        return Ok((host, PORT_DEFAULT));
    }
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(UriError::Port);
    }
    match port.parse() {
        Ok(port) if port > 0 => Ok((host, port)),
        _ => Err(UriError::Port),
    }
}

type UserInfo = (Option<Vec<u8>>, Option<Password>);

fn parse_user_info(text: &str) -> Result<UserInfo, UriError> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (text, None),
    };
    let user = decode(user)?;
    if user.is_empty() || user.iter().any(u8::is_ascii_control) {
        return Err(UriError::UserInfo);
    }
    // `user:@host` is a user without a password.
    let password = password.filter(|password| !password.is_empty());
    let password = password.map(|password| decode(password).and_then(Password::new)).transpose()?;
    Ok((Some(user), password))
}

type ModulePath = (Vec<u8>, Vec<u8>, bool);

fn parse_path(text: &str) -> Result<ModulePath, UriError> {
    let (module, path) = text.split_once('/').unwrap_or((text, ""));
    let only_module = !text.contains('/');
    let module = decode(module)?;
    let shown = || UriError::Module(format!("{:?}", printable(&module, 64)));
    let odd = |b: &u8| *b == b'/' || b.is_ascii_control();
    if matches!(module.first(), Some(b'-' | b'#')) || module.iter().any(odd) {
        return Err(shown());
    }
    let path = decode(path)?;
    if module.is_empty() && !path.is_empty() {
        return Err(UriError::NoModule);
    }
    let directory = only_module || path.is_empty() || path.ends_with(b"/");
    let segments: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|segment| !segment.is_empty()).collect();
    if segments.iter().chain([&module.as_slice()]).any(|segment| matches!(*segment, b"." | b"..")) {
        return Err(UriError::Dots);
    }
    Ok((module, segments.join(&b'/'), directory))
}

/// Decodes percent escapes once. Unlike the usual decoders it refuses broken ones.
fn decode(text: &str) -> Result<Vec<u8>, UriError> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).ok_or(UriError::Escape);
        let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
        match u8::try_from(value) {
            Ok(value) if value > 0 => out.push(value),
            _ => return Err(UriError::Escape),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Result<String, UriError> {
        let uri = RsyncUri::parse(text)?;
        uri.check_source()?;
        Ok(uri.operand().into_string().expect("the tests use UTF-8 operands"))
    }

    #[test]
    fn operands() {
        for (text, operand) in [
            ("rsync://ftp.example.org/debian", "rsync://ftp.example.org/debian/"),
            ("RSYNC://FTP.Example.org:873/debian/", "rsync://ftp.example.org/debian/"),
            ("rsync://h:/m//a//b", "rsync://h/m/a/b/"),
            ("rsync://mirror:p%40ss@h:8730/m/a%20b", "rsync://mirror@h:8730/m/a b/"),
            ("rsync://[2001:DB8::1]:8730/m/", "rsync://[2001:db8::1]:8730/m/"),
            ("rsync://[::ffff:127.0.0.1]/m/", "rsync://[::ffff:127.0.0.1]/m/"),
            ("rsync://192.0.2.1/m%20x/100%2525/", "rsync://192.0.2.1/m x/100%25/"),
            ("rsync://h/m/a%2Fb", "rsync://h/m/a/b/"),
        ] {
            assert_eq!(source(text).as_deref(), Ok(operand), "{text}");
        }
    }

    #[test]
    fn refusals() {
        let wild = UriError::Wildcard;
        for (text, error) in [
            ("", UriError::Empty),
            ("h/m", UriError::Scheme("(none)".into())),
            ("http://h/m", UriError::Scheme("\"http\"".into())),
            ("rsync+ssh://h/m", UriError::Scheme("\"rsync+ssh\"".into())),
            ("mirror:secret@h::m", UriError::Scheme("(none)".into())),
            ("rsync:/h/m", UriError::NoHost),
            ("rsync:///m", UriError::NoHost),
            ("rsync://:873/m", UriError::NoHost),
            ("rsync://u@/m", UriError::NoHost),
            ("rsync://h:abc/m", UriError::Port),
            ("rsync://h:0/m", UriError::Port),
            ("rsync://h:65536/m", UriError::Port),
            ("rsync://h:+873/m", UriError::Port),
            ("rsync://h:99999999999999999999/m", UriError::Port),
            ("rsync://-oProxyCommand=x/m", UriError::Host),
            ("rsync://-h/m", UriError::Host),
            ("rsync://h-/m", UriError::Host),
            ("rsync://a..b/m", UriError::Host),
            ("rsync://h%61/m", UriError::Host),
            ("rsync://127.1/m", UriError::Host),
            ("rsync://2130706433/m", UriError::Host),
            ("rsync://0x7f000001/m", UriError::Host),
            ("rsync://::1/m", UriError::NoHost),
            ("rsync://fe80::1/m", UriError::Port),
            ("rsync://[::1/m", UriError::Host),
            ("rsync://[::1]x/m", UriError::Host),
            ("rsync://[fe80::1%25eth0]/m", UriError::Host),
            ("rsync://a@b@h/m", UriError::UserInfo),
            ("rsync://@h/m", UriError::UserInfo),
            ("rsync://u:a%0Ab@h/m", UriError::Password),
            ("rsync://u%0A@h/m", UriError::UserInfo),
            ("rsync://-u@h/m", UriError::User),
            ("rsync://a%2Fb@h/m", UriError::User),
            ("rsync://h/m?x=1", UriError::QueryOrFragment),
            ("rsync://h/m#f", UriError::QueryOrFragment),
            ("rsync://h/m/%zz", UriError::Escape),
            ("rsync://h/m/a%", UriError::Escape),
            ("rsync://h/m/a%4", UriError::Escape),
            ("rsync://h/m/a%00b", UriError::Escape),
            ("rsync://h /m", UriError::RawByte),
            ("rsync://h/m\n", UriError::RawByte),
            ("rsync://h/m/a%0Ab", UriError::PathControl),
            ("rsync://h/m/%7f", UriError::PathControl),
            ("rsync://h/m/../x", UriError::Dots),
            ("rsync://h/m/%2e%2e/x", UriError::Dots),
            ("rsync://h/m/.", UriError::Dots),
            ("rsync://h/..", UriError::Dots),
            ("rsync://h", UriError::NoModule),
            ("rsync://h/", UriError::NoModule),
            ("rsync://h//x", UriError::NoModule),
            ("rsync://h/-m/", UriError::Module("\"-m\"".into())),
            ("rsync://h/%23list", UriError::Module("\"#list\"".into())),
            ("rsync://h/a%2Fb", UriError::Module("\"a/b\"".into())),
            ("rsync://h/m/--delete", UriError::PathDash),
            ("rsync://h/m*/", wild('*')),
            ("rsync://h/m/%3F", wild('?')),
            ("rsync://h/m/[a]", wild('[')),
            ("rsync://h/m/a%5Cb", wild('\\')),
        ] {
            assert_eq!(source(text), Err(error), "{text}");
        }
        assert_eq!(
            RsyncUri::parse(&format!("rsync://h/{}", "a".repeat(URI_BYTES_MAX))),
            Err(UriError::TooLong)
        );
    }

    #[test]
    fn nothing_shows_the_password() {
        let uri = RsyncUri::parse("rsync://mirror:sekrit@h/m/").unwrap();
        let shown = format!("{uri} {uri:?} {:?}", uri.operand());
        assert!(!shown.contains("sekrit"), "{shown}");
        assert_eq!(uri.password().map(Password::expose), Some(b"sekrit".as_slice()));
        let (uri, password) = uri.split_password();
        assert!(password.is_some() && uri.password().is_none());
        // A slash that should have been escaped puts the password where the port is looked for.
        for text in ["rsync://u:sekrit/x@h/m", "rsync://u:sekrit@h:sekrit/m", "sekrit:sekrit@h/m"] {
            let error = RsyncUri::parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("sekrit"), "{text}: {error}");
        }
    }

    #[test]
    fn canonical_text_parses_to_the_same() {
        for text in [
            "rsync://h",
            "rsync://h/m",
            "rsync://h/m/f",
            "rsync://h/m/d/",
            "rsync://we%40ird:x@h:1/m%20x/%C3%A9%FF/100%25%0A",
            "rsync://[::1]/m/+plus,~",
        ] {
            let (uri, _) = RsyncUri::parse(text).unwrap().split_password();
            assert_eq!(RsyncUri::parse(&uri.to_string()).as_ref(), Ok(&uri), "{text} -> {uri}");
        }
    }

    #[test]
    fn a_user_that_only_the_environment_can_carry_is_no_source() {
        let uri = RsyncUri::parse("rsync://we%40ird:p%3A%25@h/m/").unwrap();
        assert_eq!(uri.user(), Some(b"we@ird".as_slice()));
        assert_eq!(uri.password().map(Password::expose), Some(b"p:%".as_slice()));
        assert_eq!(uri.check_source(), Err(UriError::User));
    }
}
