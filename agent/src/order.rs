//! An assignment, read with distrust: the URI, the user, the options, the destination and the limits are parsed
//! again by the rules of crate `rsync` and of this agent's own file, and only what they allow becomes a command.
//! Pure: opens nothing, resolves nothing, starts nothing.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use fleet::attempt::Role;
use fleet::defaults;
use fleet::id::ProjectUid;
use fleet::marker::MarkerCheck;
use fleet::project::Destination;
use fleet::refusal::Violation;
use mirror_proto::convert::{SENTINELS_MAX, is_sentinel, marker_from_wire, wall_from_wire};
use mirror_proto::v1;
use mirror_proto::v1::evidence::Kind;
use rsync::options::{DeleteMode, Flag, MAX_DELETE_MAX};
use rsync::{Deletion, LocalCopy, LocalPass, Options, Plan, Publish, Purpose, RsyncUri, Version};

use crate::config::Config;
use crate::key::Key;
use crate::rundir::{JailSpec, ProgramSpec};

/// Time between TERM and KILL: rsync removes its temporary files and keeps partial ones in less.
const TERM_GRACE: Duration = Duration::from_secs(10);
/// Output of rsync kept while it runs, bytes: the attempt's log is made of it, and is smaller.
const STDOUT_BYTES_MAX: u64 = 64 << 20;
/// Error output of rsync kept, bytes.
const STDERR_BYTES_MAX: u64 = 4 << 20;
/// Descriptors of rsync: it opens a handful of files at once.
const OPEN_FILES_MAX: u64 = 1024;
/// Processes and threads of the agent's user before an rsync may start no more: a program that only forks ends there.
/// Far above what the most slots need (64, each with a supervisor and three processes of rsync) beside the agent.
pub(crate) const PROCESSES_MAX: u64 = 4_096;
/// Most characters of a project's name that are kept, as it only names things for people.
const NAME_CHARS_MAX: usize = 64;
/// Longest listing of one directory of the upstream.
const LIST_TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// Longest look at a marker.
const MARKER_TIME_MAX: Duration = Duration::from_secs(5 * 60);
/// What follows from `no_defaults` unset: flags in front of the given ones, unless these exclude them.
const DEFAULT_FLAGS: &[Flag] = &[
    Flag::Recursive,
    Flag::Links,
    Flag::Perms,
    Flag::Times,
    Flag::HardLinks,
    Flag::DelayUpdates,
    Flag::Partial,
];

/// Where a tree comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The upstream, or another agent's daemon; the user included, never a password.
    Rsync(RsyncUri),
    /// Another place of this agent: the tree is moved.
    Place(Destination),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rsync(uri) => uri.fmt(f),
            Self::Place(place) => place.fmt(f),
        }
    }
}

/// A checked assignment.
#[derive(Debug, Clone)]
pub struct Order {
    /// Which attempt.
    pub key: Key,
    /// The project's immutable id.
    pub project: ProjectUid,
    /// Its name, for people.
    pub project_name: String,
    /// What the agent does for the tree.
    pub role: Role,
    /// From where.
    pub source: Source,
    /// Where to.
    pub destination: Destination,
    /// Trace context of what asked for it.
    pub traceparent: String,
    /// Only tell what would change.
    pub dry_run: bool,
    /// First remove what the source no longer has, and copy nothing meanwhile.
    pub reclaim: bool,
    /// Paths that must exist at the source.
    pub sentinels: Vec<String>,
    /// The placement never had a whole tree.
    pub first_sync: bool,
    /// The most bytes that the tree may have.
    pub quota_bytes: Option<u64>,
    /// Files in the tree after the last success.
    pub known_files: Option<u64>,
    /// Bytes in the tree after the last success.
    pub known_bytes: Option<u64>,
    /// It copies a lost tree from another agent: nothing is deleted, and an empty source is no tree.
    pub keep_extra: bool,
    /// What to do about the project's marker.
    pub marker: Option<MarkerCheck>,
    /// The public link to keep.
    pub link: Option<Destination>,
    waived: Vec<Kind>,
    options: Options,
    delete: Option<Deletion>,
    limits: Limits,
    needs_password: bool,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    connect: Duration,
    io: Duration,
    stall: Duration,
    run: Option<Duration>,
    bandwidth_kib: Option<u32>,
}

impl Order {
    /// Reads an assignment. `needs_password` is whether one comes, or came, with it.
    ///
    /// # Errors
    /// Everything in it that is not allowed, one sentence each.
    pub fn read(key: Key, assignment: &v1::Assignment, needs_password: bool) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let destination = note(read_place("destination", &assignment.destination), &mut faults);
        let source = if assignment.move_from.is_empty() {
            note(read_source(assignment).map(Source::Rsync), &mut faults)
        } else {
            note(read_move(assignment, destination.as_ref()).map(Source::Place), &mut faults)
        };
        let link = match assignment.link.as_str() {
            "" => None,
            text => note(read_place("link", text), &mut faults),
        };
        let options = read_options(&assignment.options, assignment.no_defaults)
            .map_err(|more| faults.extend(more))
            .ok();
        let limits = note(Limits::read(assignment), &mut faults);
        let role = match assignment.role() {
            v1::Role::Origin => Some(Role::Origin),
            v1::Role::Replica => Some(Role::Replica),
            v1::Role::Unspecified => None,
        };
        if role.is_none() {
            faults.push("no role; fault: the coordinator's".to_owned());
        }
        let sentinels = note(read_sentinels(&assignment.sentinels), &mut faults);
        let marker = note(read_marker(assignment), &mut faults).flatten();
        match (source, destination, options, limits, role, sentinels) {
            (Some(source), Some(destination), Some(options), Some(limits), Some(role), Some(sentinels))
                if faults.is_empty() =>
            {
                // With default flags the tree is kept as the upstream's is; otherwise only what is said is done.
                let mode = match options.delete_mode() {
                    _ if assignment.keep_extra => None,
                    None if !assignment.no_defaults => Some(DeleteMode::Delay),
                    given => given,
                };
                if mode.is_none() && assignment.reclaim {
                    let text =
                        "reclaim: the project's options delete nothing, so there is nothing to reclaim";
                    return Err(vec![text.to_owned()]);
                }
                Ok(Self {
                    key,
                    project: ProjectUid(assignment.project_uid),
                    project_name: rsync::text::printable(assignment.project.as_bytes(), NAME_CHARS_MAX),
                    role,
                    source,
                    destination,
                    traceparent: assignment.traceparent.clone(),
                    dry_run: assignment.dry_run,
                    reclaim: assignment.reclaim,
                    sentinels,
                    first_sync: assignment.first_sync,
                    quota_bytes: Some(assignment.quota_bytes).filter(|bytes| *bytes > 0),
                    known_files: Some(assignment.known_files).filter(|files| *files > 0),
                    known_bytes: Some(assignment.known_bytes).filter(|bytes| *bytes > 0),
                    keep_extra: assignment.keep_extra,
                    marker,
                    link,
                    // A guard that this agent does not know is not one of its own.
                    waived: assignment.waived().collect(),
                    options,
                    delete: mode.map(|mode| Deletion { mode, limit: assignment.max_delete }),
                    limits,
                    needs_password,
                })
            }
            _ => Err(faults),
        }
    }

    /// The daemon that it pulls from; `None`: the tree is moved.
    #[must_use]
    pub fn upstream(&self) -> Option<&RsyncUri> {
        match &self.source {
            Source::Rsync(uri) => Some(uri),
            Source::Place(_) => None,
        }
    }

    /// Where the tree is that is to be moved; `None`: it is pulled.
    #[must_use]
    pub fn moves_from(&self) -> Option<&Destination> {
        match &self.source {
            Source::Rsync(_) => None,
            Source::Place(place) => Some(place),
        }
    }

    /// Whether a password belongs to it.
    #[must_use]
    pub fn needs_password(&self) -> bool {
        self.needs_password
    }

    /// Whether it may delete anything.
    #[must_use]
    pub fn deletes(&self) -> bool {
        self.delete.is_some()
    }

    /// The most entries that it may delete.
    #[must_use]
    pub fn max_delete(&self) -> u64 {
        let limit = self.delete.map_or(0, |deletion| deletion.limit);
        self.options.max_delete().map_or(limit, |own| limit.min(own.into()))
    }

    /// Whether a person has waived a guard for it.
    #[must_use]
    pub fn waives(&self, guard: Kind) -> bool {
        self.waived.contains(&guard)
    }

    /// What its last program is for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        if self.dry_run { Purpose::DryRun } else { Purpose::Pull }
    }

    /// A program to run for it, into a directory that the caller has opened below the root. Where nothing is written
    /// it need not be there; then the caller takes it out of what the jail lets read.
    ///
    /// # Errors
    /// What this agent's own file or rsync does not allow, one sentence each.
    pub fn program(
        &self,
        purpose: Purpose,
        config: &Config,
        version: &Version,
        root: &Path,
        destination: &Path,
        lock: &Path,
    ) -> Result<ProgramSpec, Vec<String>> {
        let Some(source) = self.upstream() else {
            return Err(vec!["a tree that is moved is pulled from nowhere; fault: the agent's".to_owned()]);
        };
        let cap = config.bandwidth_limit_kib;
        let bandwidth = self.limits.bandwidth_kib;
        let fetches = matches!(purpose, Purpose::Fetch { .. });
        let writes = fetches || matches!(purpose, Purpose::Pull | Purpose::Reclaim);
        let dry = purpose == Purpose::DryRun;
        let at_most = |most: Duration| Some(self.limits.run.map_or(most, |limit| limit.min(most)));
        // What would be deleted is wanted whole.
        let all = |deletion: Deletion| Deletion { limit: MAX_DELETE_MAX.into(), ..deletion };
        let run_timeout = match purpose {
            Purpose::List(_) => at_most(LIST_TIME_MAX),
            Purpose::Fetch { .. } => at_most(MARKER_TIME_MAX),
            Purpose::Pull | Purpose::DryRun | Purpose::Reclaim => self.limits.run,
        };
        let plan = Plan {
            program: config.rsync.clone(),
            features: version.features,
            source: source.clone(),
            password: self.needs_password,
            destination: destination.to_owned(),
            // What is fetched goes into the run directory, alone.
            confine_root: Some(if fetches { destination } else { root }.to_owned()),
            publish: Publish::InPlace,
            options: self.options.clone(),
            delete: if dry { self.delete.map(all) } else { self.delete },
            io_timeout: self.limits.io,
            connect_timeout: self.limits.connect,
            bwlimit_kib: bandwidth.into_iter().chain(cap).min(),
            max_alloc: rsync::argv::MAX_ALLOC_DEFAULT,
            source_address: None,
            purpose,
            privileged: rustix::process::geteuid().is_root(),
            acls_and_xattrs: config.acls_and_xattrs,
        };
        let command =
            plan.build().map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let jail = JailSpec {
            write_paths: if writes { vec![destination.to_owned()] } else { Vec::new() },
            read_paths: if dry { vec![destination.to_owned()] } else { Vec::new() },
            connect_ports: vec![source.port()],
            roots: vec![root.to_owned()],
            open_files: Some(OPEN_FILES_MAX),
            memory_bytes: Some(config.rsync_memory_bytes),
            processes: Some(PROCESSES_MAX),
            off: !config.jail,
            ..JailSpec::default()
        };
        Ok(ProgramSpec { run_timeout, ..self.spec(&command, jail, root, lock) })
    }

    /// A program to run for a move: from one directory that the caller has opened below a root into another one, perhaps
    /// below another root, or to compare both. It reads the one, writes to the other at most, and connects to nothing.
    ///
    /// # Errors
    /// What this agent's own file or rsync does not allow, one sentence each.
    pub fn local_program(
        &self,
        pass: LocalPass,
        config: &Config,
        version: &Version,
        (from, to): (&Path, &Path),
        (old_root, root): (&Path, &Path),
        lock: &Path,
    ) -> Result<ProgramSpec, Vec<String>> {
        let copy = LocalCopy {
            program: config.rsync.clone(),
            features: version.features,
            from: from.to_owned(),
            to: to.to_owned(),
            options: self.options.clone(),
            acls_and_xattrs: config.acls_and_xattrs,
            pass,
        };
        let command =
            copy.build().map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let (from, to) = (from.to_owned(), to.to_owned());
        let (write_paths, read_paths) = match pass {
            LocalPass::Copy | LocalPass::Repair => (vec![to], vec![from]),
            LocalPass::Verify => (Vec::new(), vec![from, to]),
        };
        let jail = JailSpec {
            write_paths,
            read_paths,
            roots: vec![old_root.to_owned(), root.to_owned()],
            open_files: Some(OPEN_FILES_MAX),
            memory_bytes: Some(config.rsync_memory_bytes),
            processes: Some(PROCESSES_MAX),
            off: !config.jail,
            ..JailSpec::default()
        };
        Ok(self.spec(&command, jail, root, lock))
    }

    fn spec(&self, command: &rsync::Command, jail: JailSpec, root: &Path, lock: &Path) -> ProgramSpec {
        let bytes = |text: &std::ffi::OsStr| text.as_bytes().to_vec();
        ProgramSpec {
            argv: command.argv().iter().map(|word| bytes(word)).collect(),
            env: command.env().iter().map(|(name, value)| (name.as_bytes().to_vec(), bytes(value))).collect(),
            cwd: root.to_owned(),
            stall_timeout: self.limits.stall,
            run_timeout: self.limits.run,
            term_grace: TERM_GRACE,
            stdout_max: STDOUT_BYTES_MAX,
            stderr_max: STDERR_BYTES_MAX,
            jail,
            lock_path: Some(lock.to_owned()),
        }
    }
}

impl Limits {
    fn read(assignment: &v1::Assignment) -> Result<Self, String> {
        let read = |name: &str, span: Option<&prost_types::Duration>| {
            span.map(|span| {
                Duration::try_from(*span)
                    .ok()
                    .filter(|span| *span >= Duration::from_secs(1))
                    .ok_or_else(|| format!("{name} must be at least one second"))
            })
            .transpose()
        };
        let kib = assignment.bandwidth_limit_kib;
        Ok(Self {
            connect: read("connect_timeout", assignment.connect_timeout.as_ref())?
                .unwrap_or(defaults::CONNECT_TIMEOUT),
            io: read("io_timeout", assignment.io_timeout.as_ref())?.unwrap_or(defaults::IO_TIMEOUT),
            stall: read("stall_timeout", assignment.stall_timeout.as_ref())?
                .unwrap_or(defaults::STALL_TIMEOUT),
            run: read("run_timeout", assignment.run_timeout.as_ref())?,
            bandwidth_kib: u32::try_from(kib).ok().filter(|kib| *kib > 0),
        })
    }
}

fn read_place(field: &str, text: &str) -> Result<Destination, String> {
    text.parse().map_err(|bad| format!("{field} \"{}\": {bad}", printable(text)))
}

/// Where a tree is that is to be moved. Nothing else is to be done on the way.
fn read_move(assignment: &v1::Assignment, to: Option<&Destination>) -> Result<Destination, String> {
    let from = read_place("move_from", &assignment.move_from)?;
    if to.is_some_and(|to| to.overlaps(&from)) {
        return Err(format!("the tree at {from} cannot be moved to a place inside or around it"));
    }
    if !assignment.source_uri.is_empty() || assignment.dry_run || assignment.reclaim {
        return Err("a tree that is moved is not pulled as well; fault: the coordinator's".to_owned());
    }
    Ok(from)
}

fn read_sentinels(paths: &[String]) -> Result<Vec<String>, String> {
    if paths.len() > SENTINELS_MAX {
        return Err(format!("{} sentinels; at most {SENTINELS_MAX} are looked for", paths.len()));
    }
    match paths.iter().find(|path| !is_sentinel(path)) {
        Some(bad) => Err(format!("sentinel \"{}\": not a plain relative path", printable(bad))),
        None => Ok(paths.to_vec()),
    }
}

fn read_marker(assignment: &v1::Assignment) -> Result<Option<MarkerCheck>, String> {
    let Some(marker) = &assignment.marker else { return Ok(None) };
    let told = |faults: Vec<Violation>| {
        let faults = faults.iter().map(|fault| format!("{}: {}", fault.field, fault.description));
        faults.collect::<Vec<_>>().join("; ")
    };
    let not_before = assignment.marker_not_before.as_ref();
    let not_before = not_before.map(|time| wall_from_wire("marker_not_before", time)).transpose();
    Ok(Some(MarkerCheck {
        marker: marker_from_wire("marker", marker).map_err(told)?,
        not_before: not_before.map_err(|fault| told(vec![fault]))?,
        required: assignment.marker_required,
    }))
}

fn note<T>(result: Result<T, String>, faults: &mut Vec<String>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn printable(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    rsync::text::printable(text.as_bytes(), SHOWN_CHARS_MAX)
}

/// The upstream with the user in it: both come apart, so that no password can hide in a URI.
pub(crate) fn read_source(assignment: &v1::Assignment) -> Result<RsyncUri, String> {
    let shown = || format!("source \"{}\"", printable(&assignment.source_uri));
    let uri = RsyncUri::parse(&assignment.source_uri).map_err(|bad| {
        if assignment.source_uri.contains('@') { bad.to_string() } else { format!("{}: {bad}", shown()) }
    })?;
    if uri.user().is_some() || uri.password().is_some() {
        return Err("the source's URI must hold neither user nor password".to_owned());
    }
    let user = &assignment.user;
    if user.is_empty() {
        uri.check_source().map_err(|bad| format!("{}: {bad}", shown()))?;
        return Ok(uri);
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let written = uri.to_string();
    let with_user = written
        .strip_prefix("rsync://")
        .filter(|_| user.bytes().all(plain))
        .and_then(|rest| RsyncUri::parse(&format!("rsync://{user}@{rest}")).ok())
        .ok_or_else(|| format!("user \"{}\": only letters, digits and . _ -", printable(user)))?;
    with_user.check_source().map_err(|bad| format!("{}: {bad}", shown()))?;
    Ok(with_user)
}

/// The options through the allow list; flags of the default pull in front unless they replace it.
pub(crate) fn read_options(words: &[String], no_defaults: bool) -> Result<Options, Vec<String>> {
    let tell = |faults: Vec<rsync::OptionFault>| faults.iter().map(ToString::to_string).collect::<Vec<_>>();
    let given = Options::parse_words(words).map_err(tell)?;
    if no_defaults || given.uses_default_flags() {
        return Ok(given);
    }
    let in_place = given.has(Flag::Inplace);
    let excluded = |flag: &Flag| in_place && matches!(flag, Flag::DelayUpdates | Flag::Partial);
    let added = DEFAULT_FLAGS.iter().filter(|flag| !given.has(**flag) && !excluded(flag));
    let mut all: Vec<String> = added.map(|flag| flag.word()).collect();
    if !given.iter().any(|option| matches!(option, rsync::Opt::Chmod(_))) {
        all.push(format!("--chmod={}", rsync::argv::CHMOD_DEFAULT));
    }
    all.push(format!("--exclude={}", rsync::argv::DELAY_DIR));
    all.extend(given.render());
    Options::parse_words(&all).map_err(tell)
}

#[cfg(test)]
mod tests;
