//! Who is refused for ever: single certificates by serial number, every certificate of a key, agents and users by name.
//!
//! The list is a text file **outside the store**, only ever appended to, so that restoring an old backup of the store
//! brings nobody back. One denial is one line:
//!
//! ```text
//! 2026-11-21T08:00:00Z agent ftp1
//! 2026-11-21T08:00:00Z serial 5d1f…
//! 2026-11-21T08:00:00Z key sha256:9b1e…
//! ```
//!
//! A denial counts from the moment its line is on disk. Asking is a look into an immutable set that a new denial
//! replaces, cheap enough for each request. Cutting live sessions is the coordinator's part.

use std::collections::HashSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use chrono::{DateTime, SecondsFormat, Utc};

use crate::file::{FileError, io_error, sync_directory_of};
use crate::identity::{Identity, Name, Peer};
use crate::serial::Serial;
use crate::spki::{SpkiHash, SpkiHashError};

/// Most denials in one list.
pub const DENIALS_MAX: usize = 100_000;

/// Longest line, in bytes with its newline: time, kind and a name, serial or key hash need under 100.
const LINE_BYTES_MAX: usize = 128;

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = (DENIALS_MAX * LINE_BYTES_MAX) as u64;

/// Faulty lines that one error lists.
const FAULTS_SHOWN_MAX: usize = 20;

/// The list is for the coordinator alone to write.
const FILE_MODE: u32 = 0o600;

/// Why the list is not open, or a denial not written.
#[derive(Debug, thiserror::Error)]
pub enum DenyListError {
    /// The system refused.
    #[error("the deny list could not be used; whoever was to be denied is not")]
    File(#[from] FileError),
    /// Whole lines that say nothing readable. Passing over them could let a revoked agent in.
    #[error("the deny list {} has unreadable lines: {}; correct or restore them, the list is not used as it is", path.display(), faults.join("; "))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// One sentence a line, the first few.
        faults: Vec<String>,
    },
    /// More than [`DENIALS_MAX`] lines.
    #[error("the deny list {} is full at {DENIALS_MAX} denials; rotate the CA, then start a new list", .0.display())]
    Full(PathBuf),
}

/// One denial.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Denial {
    /// One certificate, by its serial number.
    Serial(Serial),
    /// Every certificate of one key, those that a renewal made or could make included.
    Key(SpkiHash),
    /// An agent: every certificate, and joining again under this name.
    Agent(Name),
    /// A user: every certificate.
    User(Name),
}

impl Denial {
    /// Names are unique ignoring case, so a denial of `ftp1` must hold for `FTP1`.
    fn folded(&self) -> Self {
        let fold = |name: &Name| -> Name {
            name.as_str().to_ascii_lowercase().parse().expect("lower case keeps a name a name")
        };
        match self {
            Self::Serial(serial) => Self::Serial(serial.clone()),
            Self::Key(hash) => Self::Key(*hash),
            Self::Agent(name) => Self::Agent(fold(name)),
            Self::User(name) => Self::User(fold(name)),
        }
    }
}

/// Kind and value, as in the file.
impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(serial) => write!(f, "serial {serial}"),
            Self::Key(hash) => write!(f, "key {hash}"),
            Self::Agent(name) => write!(f, "agent {name}"),
            Self::User(name) => write!(f, "user {name}"),
        }
    }
}

impl FromStr for Denial {
    /// A sentence for the list of faults of a file.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(' ') {
            Some(("serial", value)) => value.parse().map(Self::Serial).map_err(|e| e.to_string()),
            Some(("key", value)) => value.parse().map(Self::Key).map_err(|e: SpkiHashError| e.to_string()),
            Some(("agent", value)) => value.parse().map(Self::Agent).map_err(|e| e.to_string()),
            Some(("user", value)) => value.parse().map(Self::User).map_err(|e| e.to_string()),
            Some(_) | None => Err("wanted is: time, then serial, key, agent or user, then whom".to_owned()),
        }
    }
}

/// A last line without its end, left by a crash while it was written. It was never acknowledged and has been cut off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the last line of the deny list {} had no end and was cut off: {text:?}; a crash interrupted a revocation that was never confirmed: check whom it names and revoke again",
    path.display()
)]
pub struct TornLine {
    /// The file.
    pub path: PathBuf,
    /// What stood there.
    pub text: String,
}

/// An open list, and what had to be mended to open it.
#[derive(Debug)]
pub struct OpenedDenyList {
    /// The list.
    pub list: DenyList,
    /// To be logged as a warning; its `Display` is the sentence for people.
    pub torn: Option<TornLine>,
}

/// The denials in force.
#[derive(Debug)]
pub struct DenyList {
    path: PathBuf,
    denied: ArcSwap<HashSet<Denial>>,
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    file: File,
    /// Bytes of whole, durable lines; what a failed write left after them is cut off before the next one.
    good_bytes: u64,
    /// Whole lines in the file.
    lines: usize,
}

/// What [`DenyList::look`] found.
#[derive(Debug, Default)]
pub struct Denied(HashSet<Denial>);

impl Denied {
    /// Whether a certificate is refused: by its serial number, its key or whom it speaks for.
    #[must_use]
    pub fn is_denied(&self, identity: &Identity, serial: &Serial, key: &SpkiHash) -> bool {
        let whom = match identity {
            Identity::Agent(name) => Denial::Agent(name.clone()),
            Identity::User(name) => Denial::User(name.clone()),
            Identity::Server => return false,
        };
        [Denial::Serial(serial.clone()), Denial::Key(*key), whom.folded()]
            .iter()
            .any(|one| self.0.contains(one))
    }
}

impl DenyList {
    /// Opens the list, or starts an empty one. A torn last line is cut off and reported.
    ///
    /// # Errors
    /// [`DenyListError`], also for any whole line that cannot be read: a coordinator must not start on half a list.
    pub fn open(path: &Path) -> Result<OpenedDenyList, DenyListError> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(path)
            .map_err(io_error("open", path))?;
        sync_directory_of(path)?;
        let bytes = read_bounded(&mut file, path)?;
        let good_bytes = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
        let (whole, tail) = bytes.split_at(good_bytes);
        let (denied, lines) = parse(whole, path)?;
        let torn = (!tail.is_empty()).then(|| TornLine {
            path: path.to_owned(),
            text: String::from_utf8_lossy(&tail[..tail.len().min(LINE_BYTES_MAX)]).into_owned(),
        });
        let mut writer = Writer { file, good_bytes: good_bytes as u64, lines };
        writer.cut(path)?;
        let list =
            Self { path: path.to_owned(), denied: ArcSwap::from_pointee(denied), writer: Mutex::new(writer) };
        Ok(OpenedDenyList { list, torn })
    }

    /// The denials in a file, for a command that runs beside a coordinator: nothing is mended, a torn last line is passed
    /// over, and a file that is not there denies nobody.
    ///
    /// # Errors
    /// [`DenyListError`].
    pub fn look(path: &Path) -> Result<Denied, DenyListError> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Denied::default()),
            opened => opened.map_err(io_error("open", path))?,
        };
        let bytes = read_bounded(&mut file, path)?;
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
        Ok(Denied(parse(&bytes[..whole], path)?.0))
    }

    /// Denies somebody, for ever: writes the line, waits until it is on disk, then refuses. Returns whether it is new;
    /// denying twice writes nothing.
    ///
    /// # Errors
    /// [`DenyListError`]; then nothing has changed, and the denial must not be reported as done.
    pub fn deny(&self, denial: &Denial, now: DateTime<Utc>) -> Result<bool, DenyListError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let denied = self.denied.load_full();
        let folded = denial.folded();
        if denied.contains(&folded) {
            return Ok(false);
        }
        if writer.lines >= DENIALS_MAX {
            return Err(DenyListError::Full(self.path.clone()));
        }
        let time = now.to_rfc3339_opts(SecondsFormat::Secs, true);
        writer.append(&format!("{time} {denial}\n"), &self.path)?;
        let mut grown = HashSet::clone(&denied);
        grown.insert(folded);
        self.denied.store(Arc::new(grown));
        Ok(true)
    }

    /// Whether this peer is refused, by its certificate, its key or its name.
    #[must_use]
    pub fn is_denied(&self, peer: &Peer) -> bool {
        self.denied.load().contains(&Denial::Serial(peer.serial.clone()))
            || self.is_key_denied(&peer.spki_hash)
            || self.is_identity_denied(&peer.identity)
    }

    /// Whether every certificate of this key is refused: asked before one is issued.
    #[must_use]
    pub fn is_key_denied(&self, hash: &SpkiHash) -> bool {
        self.denied.load().contains(&Denial::Key(*hash))
    }

    /// Whether this identity is refused: asked before a certificate is issued. The coordinator itself never is.
    #[must_use]
    pub fn is_identity_denied(&self, identity: &Identity) -> bool {
        let denial = match identity {
            Identity::Agent(name) => Denial::Agent(name.clone()),
            Identity::User(name) => Denial::User(name.clone()),
            Identity::Server => return false,
        };
        self.denied.load().contains(&denial.folded())
    }

    /// How many denials are in force.
    #[must_use]
    pub fn len(&self) -> usize {
        self.denied.load().len()
    }

    /// Whether nobody is denied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Writer {
    fn append(&mut self, line: &str, path: &Path) -> Result<(), FileError> {
        self.cut(path)?;
        self.file.write_all(line.as_bytes()).map_err(io_error("write", path))?;
        self.file.sync_data().map_err(io_error("sync", path))?;
        self.good_bytes += line.len() as u64;
        self.lines += 1;
        Ok(())
    }

    /// Cuts off what an interrupted write left, so that the next line does not join it.
    fn cut(&mut self, path: &Path) -> Result<(), FileError> {
        let length = self.file.metadata().map_err(io_error("examine", path))?.len();
        if length == self.good_bytes {
            return Ok(());
        }
        self.file.set_len(self.good_bytes).map_err(io_error("cut the torn line off", path))?;
        self.file.sync_all().map_err(io_error("sync", path))
    }
}

fn read_bounded(file: &mut File, path: &Path) -> Result<Vec<u8>, DenyListError> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(DenyListError::Full(path.to_owned()));
    }
    Ok(bytes)
}

/// The denials of whole lines, and how many lines there are; every unreadable line is a fault.
fn parse(whole: &[u8], path: &Path) -> Result<(HashSet<Denial>, usize), DenyListError> {
    let mut denied = HashSet::new();
    let mut faults = Vec::new();
    let mut lines = 0;
    for line in whole.split_inclusive(|&b| b == b'\n') {
        lines += 1;
        match parse_line(&line[..line.len() - 1]) {
            Ok(denial) => {
                denied.insert(denial.folded());
            }
            Err(fault) if faults.len() < FAULTS_SHOWN_MAX => faults.push(format!("line {lines}: {fault}")),
            Err(_) => {}
        }
    }
    if lines > DENIALS_MAX {
        return Err(DenyListError::Full(path.to_owned()));
    }
    if !faults.is_empty() {
        return Err(DenyListError::Damaged { path: path.to_owned(), faults });
    }
    Ok((denied, lines))
}

fn parse_line(line: &[u8]) -> Result<Denial, String> {
    let line = std::str::from_utf8(line).map_err(|_| "is not text".to_owned())?;
    let (time, denial) = line.split_once(' ').ok_or_else(|| "wanted is: time, kind, whom".to_owned())?;
    DateTime::parse_from_rfc3339(time).map_err(|e| format!("the time is unreadable ({e})"))?;
    denial.parse()
}

#[cfg(test)]
mod tests;
