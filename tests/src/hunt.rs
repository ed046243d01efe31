//! A hunt for planted secrets: every form in which one may stand somewhere is looked for in everything that is seen,
//! and what is found outside of a secret's own files is told. Knows bytes and paths, not what they mean.
//!
//! A secret is planted by one line, [`Hunt::plant`]. [`Watch`] collects, while a fleet works, what is gone later:
//! command lines, environments and run directories.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use aho_corasick::AhoCorasick;
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Shortest form that is looked for, in bytes: shorter ones are found by chance.
const FORM_BYTES_MIN: usize = 8;
/// Most bytes of one thing that is collected while a fleet works.
const SEEN_BYTES_MAX: u64 = 256 << 10;
/// Between two looks at all processes.
const PACE: Duration = Duration::from_millis(5);

/// The letters of base64 that two alphabets write differently.
const URL_SAFE: [(&str, &str); 2] = [("+", "-"), ("/", "_")];

/// Something that must not stand anywhere but in its own files.
#[derive(Debug)]
struct Secret {
    name: String,
    /// Files and directories that hold it by their purpose.
    homes: Vec<PathBuf>,
}

/// A secret that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Find {
    /// Which secret.
    pub secret: String,
    /// In which form: raw, hex, base64, percent.
    pub form: &'static str,
    /// Where.
    pub place: String,
}

/// What is looked for.
#[derive(Debug, Default)]
pub struct Hunt {
    secrets: Vec<Secret>,
    /// Which secret and which form each pattern is.
    forms: Vec<(usize, &'static str)>,
    patterns: Vec<Vec<u8>>,
}

impl Hunt {
    /// Plants a secret, which may stand in (or below) its homes alone.
    ///
    /// # Panics
    /// When it is too short to be told from chance.
    pub fn plant(&mut self, name: &str, secret: &[u8], homes: &[&Path]) {
        assert!(secret.len() >= FORM_BYTES_MIN, "{name} is too short to be looked for");
        let index = self.secrets.len();
        let homes = homes.iter().map(|home| (*home).to_owned()).collect();
        self.secrets.push(Secret { name: name.to_owned(), homes });
        for (form, pattern) in forms(secret) {
            self.forms.push((index, form));
            self.patterns.push(pattern);
        }
    }

    /// Plants the private key in a PEM file: its secret number, and the lines of the file that hold it.
    ///
    /// # Panics
    /// When there is no private key in it.
    pub fn plant_key(&mut self, name: &str, file: &Path) {
        let text = fs::read_to_string(file).expect("a key file");
        let body = text.split("PRIVATE KEY-----").nth(1).expect("a private key");
        let lines: Vec<&str> =
            body.lines().filter(|line| !line.is_empty() && !line.starts_with('-')).collect();
        let der = STANDARD.decode(lines.concat()).expect("base64");
        // PKCS#8 and SEC 1 write the number as an octet string of 32 bytes.
        let at = der.windows(2).position(|two| two == [4, 32]).expect("a number of 32 bytes") + 2;
        self.plant(name, &der[at..at + 32], &[file]);
        let index = self.secrets.len() - 1;
        let letters = 4 * at / 3..4 * (at + 32) / 3;
        let of_number = lines
            .iter()
            .enumerate()
            .filter(|(number, line)| number * 64 < letters.end && number * 64 + line.len() > letters.start);
        for (_, line) in of_number {
            self.forms.push((index, "base64"));
            self.patterns.push(line.as_bytes().to_vec());
        }
    }

    /// Makes the hunt ready.
    ///
    /// # Panics
    /// When there is more to look for than fits into memory.
    #[must_use]
    pub fn ready(&self) -> Ready<'_> {
        Ready { hunt: self, machine: AhoCorasick::new(&self.patterns).expect("a few hundred patterns") }
    }
}

/// A hunt that can begin.
#[derive(Debug)]
pub struct Ready<'a> {
    hunt: &'a Hunt,
    machine: AhoCorasick,
}

impl Ready<'_> {
    /// What stands in these bytes.
    #[must_use]
    pub fn seek(&self, place: &str, bytes: &[u8]) -> BTreeSet<Find> {
        let found: BTreeSet<usize> =
            self.machine.find_overlapping_iter(bytes).map(|found| found.pattern().as_usize()).collect();
        let tell = |pattern: usize| {
            let (secret, form) = self.hunt.forms[pattern];
            Find { secret: self.hunt.secrets[secret].name.clone(), form, place: place.to_owned() }
        };
        found.into_iter().map(tell).collect()
    }

    /// What stands in the files below a directory: first what is in none of its secret's homes, then what is at home.
    #[must_use]
    pub fn seek_below(&self, dir: &Path) -> (BTreeSet<Find>, BTreeSet<Find>) {
        let (mut strange, mut at_home) = (BTreeSet::new(), BTreeSet::new());
        for file in files_below(dir) {
            let bytes = fs::read(&file).unwrap_or_default();
            for find in self.seek(&file.display().to_string(), &bytes) {
                let mut of_name = self.hunt.secrets.iter().filter(|secret| secret.name == find.secret);
                let home = of_name.any(|secret| secret.homes.iter().any(|home| file.starts_with(home)));
                if home {
                    at_home.insert(find)
                } else {
                    strange.insert(find)
                };
            }
        }
        (strange, at_home)
    }

    /// The secrets that have a home.
    pub fn with_homes(&self) -> impl Iterator<Item = &str> {
        let secrets = self.hunt.secrets.iter().filter(|secret| !secret.homes.is_empty());
        secrets.map(|secret| secret.name.as_str())
    }
}

/// Every form that is looked for. Inside of a longer base64 text the letters depend on where the secret begins: all
/// three ways, without the letters that its neighbours have a part in.
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut forms = vec![("raw", secret.to_vec())];
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    forms.push(("hex", hex.to_uppercase().into_bytes()));
    forms.push(("hex", hex.into_bytes()));
    for shift in 0..3 {
        let padded = [&vec![0; shift][..], secret].concat();
        let text = STANDARD.encode(&padded);
        let (first, last) = ((shift * 8).div_ceil(6), padded.len() * 8 / 6);
        let standard = text[first..last].to_owned();
        let url_safe = URL_SAFE.iter().fold(standard.clone(), |text, (from, to)| text.replace(from, to));
        forms.extend([standard, url_safe].map(|text| ("base64", text.into_bytes())));
    }
    let percent = |keep: fn(u8) -> bool, upper: bool| -> Vec<u8> {
        let one = |byte: &u8| match (keep(*byte), upper) {
            (true, _) => char::from(*byte).to_string(),
            (false, true) => format!("%{byte:02X}"),
            (false, false) => format!("%{byte:02x}"),
        };
        secret.iter().map(one).collect::<String>().into_bytes()
    };
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    for upper in [true, false] {
        forms.push(("percent", percent(|_| false, upper)));
        forms.push(("percent", percent(unreserved, upper)));
    }
    // What needs no escape is the same as the raw form.
    forms.retain(|(form, pattern)| *form == "raw" || pattern != secret);
    forms.retain(|(_, pattern)| pattern.len() >= FORM_BYTES_MIN);
    forms
}

/// Every file below a directory; links are not followed.
#[must_use]
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(files_below(&entry.path())),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

/// What was seen while a fleet worked: kinds of places, and all that stood in places of that kind, each once.
pub type Seen = BTreeMap<&'static str, HashSet<Vec<u8>>>;

/// Kind of place: what programs were started with.
pub const COMMAND_LINES: &str = "command lines";
/// Kind of place: the environments of programs.
pub const ENVIRONMENTS: &str = "environments";
/// Kind of place: files of agents that are soon removed.
pub const RUN_DIRECTORIES: &str = "run directories";
/// Kind of place: command lines that name the fleet's directory, each with the limits of its process behind it.
pub const LIMITS: &str = "limits";

/// Looks at all processes and at some directories, again and again, until it is ended.
#[derive(Debug)]
pub struct Watch {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watch {
    /// Begins to look. The programs of the fleet at `root` are known by its path in their command lines.
    #[must_use]
    pub fn begin(root: &Path, directories: Vec<PathBuf>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (seen, root) = (Arc::clone(&ended), root.display().to_string());
        let thread = thread::spawn(move || {
            let mut all = Seen::new();
            while !seen.load(Ordering::Relaxed) {
                look_at_processes(&root, &mut all);
                for file in directories.iter().flat_map(|dir| files_below(dir)) {
                    note(&mut all, RUN_DIRECTORIES, &file);
                }
                thread::sleep(PACE);
            }
            all
        });
        Self { ended, thread }
    }

    /// Ends it and returns what it saw.
    ///
    /// # Panics
    /// When it panicked.
    #[must_use]
    pub fn end(self) -> Seen {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("a look does not panic")
    }
}

fn look_at_processes(root: &str, all: &mut Seen) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = entry.path();
        let is_process = entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
        if !is_process || entry.file_name().to_string_lossy() == std::process::id().to_string() {
            continue;
        }
        let line = note(all, COMMAND_LINES, &process.join("cmdline"));
        note(all, ENVIRONMENTS, &process.join("environ"));
        if String::from_utf8_lossy(&line).contains(root)
            && let Ok(limits) = fs::read(process.join("limits"))
        {
            all.entry(LIMITS).or_default().insert([line, limits].concat());
        }
    }
}

/// What stands in a file now, noted as seen. What cannot be read is gone, or another user's.
fn note(all: &mut Seen, kind: &'static str, file: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = fs::File::open(file).and_then(|file| file.take(SEEN_BYTES_MAX).read_to_end(&mut bytes));
    if read.is_ok() && !bytes.is_empty() {
        all.entry(kind).or_default().insert(bytes.clone());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"p@ss/w%rd+Zq9 x";

    fn found(bytes: &[u8]) -> Vec<&'static str> {
        let mut hunt = Hunt::default();
        hunt.plant("it", SECRET, &[]);
        hunt.ready().seek("here", bytes).into_iter().map(|find| find.form).collect()
    }

    #[test]
    fn every_form_is_found_wherever_it_begins() {
        let percent: String = SECRET.iter().map(|byte| format!("%{byte:02X}")).collect();
        assert_eq!(found(b"nothing of the kind"), Vec::<&str>::new());
        for before in 0..7 {
            let raw = [&b"abcdefg"[..before], SECRET, b"hij"].concat();
            assert_eq!(found(&raw), ["raw"]);
            assert_eq!(found(STANDARD.encode(&raw).as_bytes()), ["base64"], "{before}");
            let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&raw);
            assert_eq!(found(url_safe.as_bytes()), ["base64"], "{before}");
            let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found(hex.as_bytes()), ["hex"]);
            assert_eq!(found(hex.to_uppercase().as_bytes()), ["hex"]);
        }
        assert_eq!(found(percent.as_bytes()), ["percent"]);
        assert_eq!(found(b"?a=p%40ss%2fw%25rd%2bZq9%20x&b"), ["percent"]);
    }

    #[test]
    fn a_secret_may_be_at_home_and_nowhere_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let (home, other) = (dir.path().join("home"), dir.path().join("deep/other"));
        fs::create_dir_all(other.parent().expect("a parent")).expect("a directory");
        fs::write(&home, SECRET).expect("a file");
        let mut hunt = Hunt::default();
        hunt.plant("it", SECRET, &[&home]);
        let (strange, at_home) = hunt.ready().seek_below(dir.path());
        assert_eq!((strange.len(), at_home.len()), (0, 1));
        fs::write(&other, [b"x", SECRET].concat()).expect("a file");
        let (found, _) = hunt.ready().seek_below(dir.path());
        assert_eq!(
            found.iter().map(|find| find.place.as_str()).collect::<Vec<_>>(),
            [other.to_str().unwrap()]
        );
    }
}
