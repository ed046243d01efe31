//! Manifests: projects as files, in TOML or JSON, by the schema [`SCHEMA`].
//!
//! ```text
//!  FILE | DIR | -  ─▶ files ─▶ document ─▶ read ─▶ Manifest ─▶ write ─▶ TOML | JSON
//!                                           └────── shape ──────┘   the contract's own descriptors
//! ```
//!
//! A project has the fields of the API's `Project` under the API's names, with what people type on the command line as
//! values: names without their collection, spans as `6h`, enumerations in the flags' words, and the path of a file in
//! the place of a password. What is not given is at its default; a password that is not given stays as it is stored.
//! Every fault of every file is told at once, with its place. What is wrong with a value that can be read is the
//! coordinator's to say.

pub(crate) mod document;
mod files;
mod read;
mod schema;
mod shape;
mod write;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use mirror_proto::v1;
use prost_types::Timestamp;

pub use self::document::Format;
use self::shape::Shape;
use crate::fault::{Fault, Faults, Outcome};
use crate::text::time;

/// What stands in a manifest's field `schema`.
pub const SCHEMA: &str = "mirror.manifest.v1";
/// Most bytes of all files of a manifest.
pub const MANIFEST_BYTES_MAX: u64 = 16 * 1_024 * 1_024;
/// Most files of a directory that is read as a manifest.
pub const MANIFEST_FILES_MAX: usize = 1_000;
/// Most bytes that are read of a password's file.
const PASSWORD_FILE_BYTES_MAX: u64 = 1_024;

/// Projects as files declare them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// In the files' order.
    pub projects: Vec<Declared>,
}

/// One project of a manifest.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Declared {
    /// The project; what only the coordinator writes is ignored. Its name has its collection: `projects/debian`.
    pub project: v1::Project,
    /// Whether its schedule is stopped. `None`: it stays as it is, and a new one is not stopped.
    pub paused: Option<Paused>,
    /// Whether its tree is served and not worked on. `None`: that stays as it is, and a new one is not archived.
    pub archived: Option<Archived>,
    /// Files that hold the passwords of upstreams, by the upstreams' places in the list.
    pub password_files: BTreeMap<usize, PathBuf>,
    /// Lines that are written as comments before it; they are not read back.
    pub remarks: Vec<String>,
    /// Where it was read.
    pub place: Place,
}

/// Whether a schedule is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Paused {
    /// It is not.
    No,
    /// It is, for this reason; an empty one is none.
    Yes(String),
    /// It is, for this reason, and goes on by itself at this time.
    Until(String, DateTime<Utc>),
}

/// Whether a tree is served and not worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Archived {
    /// It is not.
    No,
    /// It is, for this reason; an empty one is none.
    Yes(String),
}

/// Where in which file a project was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named; empty: nowhere.
    pub file: String,
    /// The line on which each of its fields stands, counted from 1; none in JSON.
    lines: Vec<(String, usize)>,
    /// The line on which it begins; 0: not known.
    line: usize,
    /// Its place in the file, counted from 0.
    index: usize,
}

impl Place {
    /// What is put before a fault of this field: `line 41`, `b.toml line 41`, or `projects[2]`.
    fn label(&self, field: &str, named: bool) -> String {
        // A fault of `upstreams[0]` may be told of `upstreams[0].uri`, of which nothing was written.
        let above = |known: &str| {
            field.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let nearest =
            self.lines.iter().filter(|(known, _)| above(known)).max_by_key(|(known, _)| known.len());
        let place = match nearest.map_or(self.line, |(_, line)| *line) {
            0 => format!("projects[{}]", self.index),
            line => format!("line {line}"),
        };
        if named { format!("{} {place}", self.file) } else { place }
    }
}

impl Declared {
    /// What a message says of one of its fields: the label, as in `line 41`, and `project "debian" destination: TEXT`.
    fn told(&self, field: &str, text: impl fmt::Display, named: bool) -> (String, String) {
        let name = self.project.name.trim_start_matches("projects/");
        let field = match self.written_as(field) {
            field if field.is_empty() => field,
            field => format!(" {field}"),
        };
        (self.place.label(&field[field.len().min(1)..], named), format!("project {name:?}{field}: {text}"))
    }

    /// The contract's path of a field as a manifest has it.
    fn written_as(&self, field: &str) -> String {
        match field {
            "pause_reason" => return "paused".to_owned(),
            "pause_until" => return "paused.until".to_owned(),
            "archive_reason" => return "archived".to_owned(),
            _ => {}
        }
        let secret = field.strip_suffix(".password").filter(|before| before.starts_with("upstreams["));
        secret.map_or_else(|| field.to_owned(), |before| format!("{before}.{}", shape::SECRET_FILE))
    }
}

impl Manifest {
    /// Reads all that `-f` names: a file, a directory (its `.toml` and `.json` files in the order of their names), or `-`
    /// for standard input; and the files of passwords that these name.
    ///
    /// # Errors
    /// Every fault of every file; `failed` says what did not happen, as in `nothing applied`.
    pub fn open(failed: &str, path: &Path) -> Outcome<Self> {
        let sources = files::read(failed, path)?;
        let mut faults = Faults::default();
        let mut manifest = Self::read_all(&sources, &mut faults);
        manifest.read_passwords(sources.len() > 1, &mut faults);
        if faults.is_empty() {
            Ok(manifest)
        } else {
            Err(in_files(failed, &path.display().to_string(), faults))
        }
    }

    /// Reads one text; `name` tells its format, where its ending does, and stands in messages. Files of passwords are not
    /// looked at.
    ///
    /// # Errors
    /// As [`Manifest::open`].
    pub fn parse(failed: &str, name: &str, text: &str) -> Outcome<Self> {
        let source =
            files::Source { name: name.to_owned(), directory: PathBuf::new(), text: text.to_owned() };
        let mut faults = Faults::default();
        let manifest = Self::read_all(&[source], &mut faults);
        if faults.is_empty() { Ok(manifest) } else { Err(in_files(failed, name, faults)) }
    }

    fn read_all(sources: &[files::Source], faults: &mut Faults) -> Self {
        let mut manifest = Self::default();
        for source in sources {
            read::source(source, sources.len() > 1, &mut manifest, faults);
        }
        manifest.note_doubles(sources.len() > 1, faults);
        manifest
    }

    fn note_doubles(&self, named: bool, faults: &mut Faults) {
        let mut seen = BTreeMap::new();
        for one in self.projects.iter().filter(|one| !one.project.name.is_empty()) {
            let Some(first) = seen.insert(one.project.name.to_lowercase(), one) else { continue };
            let text = format!("is declared twice, first at {}", first.place.label("name", named));
            let (label, text) = one.told("name", text, named);
            faults.add(label, text);
        }
    }

    /// Reads the files that hold passwords into the projects. A relative path counts from the manifest's directory.
    fn read_passwords(&mut self, named: bool, faults: &mut Faults) {
        for one in &mut self.projects {
            for (index, path) in one.password_files.clone() {
                match files::secret(&path, PASSWORD_FILE_BYTES_MAX) {
                    Ok(secret) => {
                        if let Some(upstream) = one.project.upstreams.get_mut(index) {
                            upstream.password = Some(secret);
                        }
                    }
                    Err(error) => {
                        let field = format!("upstreams[{index}].password");
                        let (label, text) = one.told(&field, format!("{}: {error}", path.display()), named);
                        faults.add(label, text);
                    }
                }
            }
        }
    }

    /// The faults that the coordinator found, each at its place in the files: `projects[3].project.destination` is of the
    /// fourth project. What it says of no project stays as it is.
    #[must_use]
    pub fn located(&self, failed: &str, whole: &str, violations: &[(String, String)]) -> Fault {
        let named = self.is_of_several_files();
        let mut faults = Faults::default();
        for (field, text) in violations {
            match self.meant(field) {
                Some((one, inner)) => {
                    let (label, text) = one.told(inner, text, named);
                    faults.add(label, text);
                }
                None => faults.add(field.clone(), text),
            }
        }
        in_files(failed, whole, faults)
    }

    fn meant<'a>(&self, field: &'a str) -> Option<(&Declared, &'a str)> {
        let (index, inner) = field.strip_prefix("projects[")?.split_once(']')?;
        let inner = inner.trim_start_matches('.');
        Some((
            self.projects.get(index.parse::<usize>().ok()?)?,
            inner.strip_prefix("project.").unwrap_or(inner),
        ))
    }

    fn is_of_several_files(&self) -> bool {
        self.projects.windows(2).any(|two| two[0].place.file != two[1].place.file)
    }

    /// The manifest as TOML: stable, one line a field, and nothing that is at its default.
    #[must_use]
    pub fn to_toml(&self) -> String {
        write::toml(self)
    }

    /// The manifest as JSON, likewise; without the remarks.
    #[must_use]
    pub fn to_json(&self) -> String {
        write::json(self)
    }

    /// The manifest as [`Manifest::to_json`] prints it.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        write::value(self)
    }
}

/// The JSON Schema of manifests.
#[must_use]
pub fn json_schema() -> String {
    format!("{:#}\n", schema::document())
}

/// A value as the coordinator tells it, as a manifest has it: texts quoted, names without their collection.
#[must_use]
pub fn as_written(field: &str, value: &str) -> String {
    match shape::at(field) {
        Some(Shape::Text | Shape::Texts) => write::quoted(value),
        Some(Shape::Mark) => "true".to_owned(),
        Some(Shape::Name(collection)) => value.strip_prefix(collection).unwrap_or(value).to_owned(),
        Some(Shape::Word(words)) => {
            let plain = |word: &str| word.replace('_', "-");
            let known = shape::words(&words).into_iter().find(|(word, _)| plain(word) == plain(value));
            known.map_or_else(|| value.to_owned(), |(word, _)| word)
        }
        _ => value.to_owned(),
    }
}

impl From<v1::DeclaredProject> for Declared {
    fn from(wire: v1::DeclaredProject) -> Self {
        let v1::DeclaredProject { project, paused, pause_reason, pause_until, archived, archive_reason } =
            wire;
        let paused = paused.map(|paused| match (paused, time(pause_until)) {
            (false, _) => Paused::No,
            (true, None) => Paused::Yes(pause_reason),
            (true, Some(until)) => Paused::Until(pause_reason, until),
        });
        let archived = archived.map(|archived| match archived {
            false => Archived::No,
            true => Archived::Yes(archive_reason),
        });
        let project = project.map(|project| *project).unwrap_or_default();
        Self { project, paused, archived, ..Self::default() }
    }
}

/// To the millisecond, as the coordinator stores it: what is exported must be what is there.
fn instant(time: DateTime<Utc>) -> Timestamp {
    let millis = i32::try_from(time.timestamp_subsec_millis()).unwrap_or(0);
    Timestamp { seconds: time.timestamp(), nanos: millis * 1_000_000 }
}

impl From<&Declared> for v1::DeclaredProject {
    fn from(one: &Declared) -> Self {
        let (paused, pause_reason, pause_until) = match &one.paused {
            None => (None, String::new(), None),
            Some(Paused::No) => (Some(false), String::new(), None),
            Some(Paused::Yes(reason)) => (Some(true), reason.clone(), None),
            Some(Paused::Until(reason, until)) => (Some(true), reason.clone(), Some(instant(*until))),
        };
        let (archived, archive_reason) = match &one.archived {
            None => (None, String::new()),
            Some(Archived::No) => (Some(false), String::new()),
            Some(Archived::Yes(reason)) => (Some(true), reason.clone()),
        };
        let project = Some(Box::new(one.project.clone()));
        Self { project, paused, pause_reason, pause_until, archived, archive_reason }
    }
}

fn in_files(failed: &str, whole: &str, faults: Faults) -> Fault {
    let fault = faults.into_fault(failed);
    let whole = if whole == "-" { "standard input" } else { whole };
    Fault { what: fault.what.replace("in what you typed", &format!("in {whole}")), ..fault }
}

#[cfg(test)]
mod tests;
