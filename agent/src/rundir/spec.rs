//! What a program run is asked to do and how it ended: the JSON of `spec.json` and `exit.json`. Pure data
//! with its checks; it knows no file and no process.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The longest secret in bytes. Below `PIPE_BUF` (4,096 bytes), so that writing it into an empty pipe never
/// blocks.
pub const SECRET_MAX_BYTES: usize = 1024;
/// The smallest output cap in bytes.
pub const OUTPUT_MIN_BYTES: u64 = 4 * 1024;
/// The largest output cap in bytes (1 GiB).
pub const OUTPUT_MAX_BYTES: u64 = 1 << 30;
/// The longest time between TERM and KILL.
pub const TERM_GRACE_MAX: Duration = Duration::from_secs(600);
/// The most argv elements and environment variables together.
const WORDS_MAX: usize = 4096;
/// The longest reason or fault text kept, in bytes.
const TEXT_MAX_BYTES: usize = 256;

/// Everything about one program run but its secret. Stored as `spec.json` (mode 0600).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramSpec {
    /// Program (absolute path) and arguments, bytes as they are; never a shell line.
    #[serde(with = "words")]
    pub argv: Vec<Vec<u8>>,
    /// The whole environment: nothing is inherited (`$HOME/.popt`, `RSYNC_RSH` and others execute programs).
    #[serde(with = "pairs")]
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The program's working directory, absolute.
    pub cwd: PathBuf,
    /// Ended as stalled after this long without received bytes, CPU or block I/O (design 5.4).
    #[serde(with = "millis")]
    pub stall_timeout: Duration,
    /// Ended after this long in any case; none: no limit (a first sync).
    #[serde(with = "optional_millis")]
    pub run_timeout: Option<Duration>,
    /// Time between TERM and KILL, at most [`TERM_GRACE_MAX`].
    #[serde(with = "millis")]
    pub term_grace: Duration,
    /// Bytes of standard output kept on disk, [`OUTPUT_MIN_BYTES`] to [`OUTPUT_MAX_BYTES`].
    pub stdout_max: u64,
    /// Bytes of standard error kept on disk, same bounds.
    pub stderr_max: u64,
    /// What the program may touch.
    pub jail: JailSpec,
    /// The destination's lock file, for people who read the run directory; the lock itself is the inherited
    /// descriptor.
    pub lock_path: Option<PathBuf>,
}

/// What the program may touch. The program itself, its loader, `/usr`, `/lib*` and the files of name
/// resolution are always readable; see `jail`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JailSpec {
    /// More files and trees to read; each must exist.
    pub read_paths: Vec<PathBuf>,
    /// Trees to read and change (no devices, sockets, fifos, no execution); each must exist.
    pub write_paths: Vec<PathBuf>,
    /// Roots of the agent, without symbolic links. What is to be read or written below one of them is reached from there
    /// over no link, whatever was put there since the agent looked. Specifications of older agents name one root, or none.
    #[serde(default, alias = "root", deserialize_with = "roots")]
    pub roots: Vec<PathBuf>,
    /// More programs that may be executed, each with its loader; each must exist.
    pub exec_paths: Vec<PathBuf>,
    /// TCP ports that may be connected to; with any, DNS over TCP is allowed as well. Empty: no TCP at all.
    pub connect_ports: Vec<u16>,
    /// Open descriptors (soft and hard limit); none: as the agent's own.
    pub open_files: Option<u64>,
    /// Address space of each process in bytes (`RLIMIT_AS`); none: as the agent's own.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Processes of the user before the program may start no more (`RLIMIT_NPROC`, which does not hold for root); none:
    /// as the agent's own.
    #[serde(default)]
    pub processes: Option<u64>,
    /// No Landlock and no `no_new_privs`: only for programs the agent's own file exempts. Limits and umask
    /// stay.
    pub off: bool,
}

impl ProgramSpec {
    /// All faults of the specification at once; empty means it can be started.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        match self.argv.first() {
            None => faults.push("argv is empty".to_owned()),
            Some(program) if program.first() != Some(&b'/') => {
                faults.push("argv[0] is not an absolute path".to_owned());
            }
            Some(_) => {}
        }
        if self.argv.len() + self.env.len() > WORDS_MAX {
            faults.push(format!("argv and env have more than {WORDS_MAX} elements"));
        }
        let env_bytes = self.env.iter().flat_map(|(name, value)| [name, value]);
        if self.argv.iter().chain(env_bytes).any(|word| word.contains(&0)) {
            faults.push("argv or env contains a NUL byte".to_owned());
        }
        if self.env.iter().any(|(name, _)| name.is_empty() || name.contains(&b'=')) {
            faults.push("env has a name that is empty or contains '='".to_owned());
        }
        if !self.cwd.is_absolute() {
            faults.push("cwd is not an absolute path".to_owned());
        }
        if self.stall_timeout.is_zero() {
            faults.push("stall_timeout is zero".to_owned());
        }
        if self.run_timeout.is_some_and(|limit| limit.is_zero()) {
            faults.push("run_timeout is zero".to_owned());
        }
        if self.term_grace > TERM_GRACE_MAX {
            faults.push(format!("term_grace is above {} s", TERM_GRACE_MAX.as_secs()));
        }
        for (name, max) in [("stdout_max", self.stdout_max), ("stderr_max", self.stderr_max)] {
            if !(OUTPUT_MIN_BYTES..=OUTPUT_MAX_BYTES).contains(&max) {
                faults.push(format!("{name} is not within {OUTPUT_MIN_BYTES}..={OUTPUT_MAX_BYTES} bytes"));
            }
        }
        let jail = &self.jail;
        for path in jail.read_paths.iter().chain(&jail.write_paths).chain(&jail.exec_paths) {
            if !path.is_absolute() {
                faults.push(format!("jail path {} is not absolute", path.display()));
            }
        }
        faults
    }
}

/// What a program run is doing, as far as its run directory tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramStatus {
    /// Created or started; the program itself does not run yet.
    Starting,
    /// The supervisor and its program are there.
    Running {
        /// The program's process id, which is its process group's id as well.
        pid: u32,
        /// Bytes the group's processes have read so far (`rchar`), from files and network together.
        received: u64,
        /// Time since the last sign of life, as of the supervisor's last sample.
        idle: Duration,
    },
    /// Ended, with its evidence on disk.
    Exited(ProgramExit),
    /// The supervisor is gone and left no `exit.json` (reboot, kill -9). Its program may still run:
    /// [`RunDir::stop`](super::RunDir::stop) ends what is left.
    Vanished,
}

/// How a program run ended: the content of `exit.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramExit {
    /// The exit code; none when a signal ended it or it never started.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Who ended it.
    pub ended_by: EndedBy,
    /// Wall clock at the start, milliseconds since 1970.
    pub started_ms: u64,
    /// Wall clock at the end, milliseconds since 1970.
    pub ended_ms: u64,
    /// Bytes written to standard output, kept or not.
    pub stdout_bytes: u64,
    /// Bytes written to standard error, kept or not.
    pub stderr_bytes: u64,
    /// Some output is not on disk: beyond the cap, or the disk was full.
    pub truncated: bool,
}

/// Who ended a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// Nobody: it ended by itself.
    Itself,
    /// A request, with its reason.
    Stop(String),
    /// The stall rule of design 5.4.
    Stalled,
    /// `run_timeout`.
    WallClock,
    /// The supervisor could not start it or could not end it; what happened.
    SupervisorFault(String),
}

/// A secret for the program's standard input. Never formatted, wiped when dropped.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes the program will read, to the end of file; at most [`SECRET_MAX_BYTES`], else none
    /// (and the bytes are wiped).
    pub fn new(bytes: Vec<u8>) -> Option<Secret> {
        let bytes = Zeroizing::new(bytes);
        (bytes.len() <= SECRET_MAX_BYTES).then_some(Secret(bytes))
    }

    /// The bytes, to be written into a pipe and nowhere else.
    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Cuts a reason or fault to the bytes that surely fit into the reserved files, on a character boundary.
pub(crate) fn bounded_text(text: &str) -> String {
    let end = (0..=text.len().min(TEXT_MAX_BYTES)).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}

/// Several roots; or, as older agents wrote it, one or none.
fn roots<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Roots {
        Several(Vec<PathBuf>),
        Older(Option<PathBuf>),
    }
    Ok(match Roots::deserialize(from)? {
        Roots::Several(roots) => roots,
        Roots::Older(root) => root.into_iter().collect(),
    })
}

/// One argv or environment word: readable where it is UTF-8, exact where it is not.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Word {
    Text(String),
    Bytes { hex: String },
}

impl Word {
    fn of(bytes: &[u8]) -> Word {
        match std::str::from_utf8(bytes) {
            Ok(text) => Word::Text(text.to_owned()),
            Err(_) => Word::Bytes { hex: hex::encode(bytes) },
        }
    }

    fn bytes<E: serde::de::Error>(self) -> Result<Vec<u8>, E> {
        match self {
            Word::Text(text) => Ok(text.into_bytes()),
            Word::Bytes { hex } => hex::decode(hex).map_err(E::custom),
        }
    }
}

mod words {
    use super::{Deserialize, Word};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(words: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(words.iter().map(|word| Word::of(word)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<u8>>, D::Error> {
        Vec::<Word>::deserialize(from)?.into_iter().map(Word::bytes).collect()
    }
}

mod pairs {
    use super::{Deserialize, Word};
    use serde::{Deserializer, Serializer};

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    pub(super) fn serialize<S: Serializer>(pairs: &[(Vec<u8>, Vec<u8>)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(pairs.iter().map(|(name, value)| (Word::of(name), Word::of(value))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Pairs, D::Error> {
        let pairs = Vec::<(Word, Word)>::deserialize(from)?;
        pairs.into_iter().map(|(name, value)| Ok((name.bytes()?, value.bytes()?))).collect()
    }
}

mod millis {
    use super::{Deserialize, Duration};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(u64::deserialize(from)?))
    }
}

mod optional_millis {
    use super::{Deserialize, Duration, millis};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => millis::serialize(time, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ProgramSpec {
        ProgramSpec {
            argv: vec![b"/usr/bin/rsync".to_vec(), b"--exclude=caf\xe9".to_vec()],
            env: vec![(b"LC_ALL".to_vec(), b"C".to_vec()), (b"ODD".to_vec(), b"\xff".to_vec())],
            cwd: "/".into(),
            stall_timeout: Duration::from_secs(1800),
            run_timeout: None,
            term_grace: Duration::from_secs(10),
            stdout_max: OUTPUT_MIN_BYTES,
            stderr_max: OUTPUT_MIN_BYTES,
            jail: JailSpec { connect_ports: vec![873], ..JailSpec::default() },
            lock_path: None,
        }
    }

    #[test]
    fn words_that_are_not_text_survive_json() {
        let json = serde_json::to_string(&spec()).unwrap();
        assert!(json.contains("\"/usr/bin/rsync\""), "text stays readable: {json}");
        assert_eq!(serde_json::from_str::<ProgramSpec>(&json).unwrap(), spec());
    }

    #[test]
    fn the_root_of_an_older_specification_is_read() {
        let read = |root: &str| {
            let json = format!(
                r#"{{"read_paths":[],"write_paths":[],{root}"exec_paths":[],"connect_ports":[],"open_files":null,"off":false}}"#
            );
            serde_json::from_str::<JailSpec>(&json).unwrap().roots
        };
        assert_eq!(read(r#""root":"/srv/a","#), [PathBuf::from("/srv/a")]);
        assert!(read(r#""root":null,"#).is_empty() && read("").is_empty());
        let jail = JailSpec { roots: vec!["/srv/a".into(), "/srv/b".into()], ..JailSpec::default() };
        let json = serde_json::to_string(&jail).unwrap();
        assert_eq!(serde_json::from_str::<JailSpec>(&json).unwrap(), jail);
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let mut bad = spec();
        bad.argv = vec![b"rsync".to_vec(), b"a\0b".to_vec()];
        bad.env.push((b"A=B".to_vec(), Vec::new()));
        bad.cwd = "relative".into();
        bad.stall_timeout = Duration::ZERO;
        bad.run_timeout = Some(Duration::ZERO);
        bad.term_grace = TERM_GRACE_MAX + Duration::from_secs(1);
        bad.stdout_max = 0;
        bad.jail.write_paths = vec!["dest".into()];
        assert_eq!(bad.faults().len(), 9, "{:?}", bad.faults());
        assert!(spec().faults().is_empty());
    }

    #[test]
    fn a_secret_is_bounded_and_not_printed() {
        let secret = Secret::new(b"hunter2".to_vec()).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert!(Secret::new(vec![b'x'; SECRET_MAX_BYTES + 1]).is_none());
    }

    #[test]
    fn long_texts_are_cut_on_a_character() {
        let text = "é".repeat(TEXT_MAX_BYTES);
        assert_eq!(bounded_text(&text).len(), TEXT_MAX_BYTES);
        assert_eq!(bounded_text(&format!("x{text}")).len(), TEXT_MAX_BYTES - 1);
    }
}
