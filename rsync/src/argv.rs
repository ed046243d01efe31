//! A plan of one pull to the one command line for it.
//!
//! The order is fixed, each argument is one `--long` or `--long=value`, `--` stands before the operands, the
//! program's path is absolute, the environment is empty but for four names. Every argument knows where it came
//! from; the arguments are made of that list, so what is explained is what runs. Does NOT open the destination and
//! does not decide limits.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

mod list;
mod local;

pub use self::local::{LocalCopy, LocalPass};

use crate::filter::{Action, Rule};
use crate::options::{DeleteMode, Flag, Opt, Options};
use crate::progress::{INFO, OUT_FORMAT};
use crate::tables::FLAGS;
use crate::uri::{RsyncUri, UriError};
use crate::version::RsyncFeatures;

/// Where interrupted files are kept, in each directory; rsync excludes it from the transfer by itself.
pub const PARTIAL_DIR: &str = ".rsync-partial";
/// Directories that `--delay-updates` of this or another mirror leaves behind; never copied, never published.
pub const DELAY_DIR: &str = ".~tmp~/";
/// Modes by default: the mirror can read and replace its files, nobody else can write them. Never `D755,F644`:
/// that opens private trees and takes execute bits away.
pub const CHMOD_DEFAULT: &str = "u+rw,Du+x,go-w";
/// Behind every `--chmod`: no set-user-id and set-group-id file of an upstream is ever published.
pub const CHMOD_FORCED: &str = "ugo-s";
/// Largest single allocation of rsync by default, bytes: rsync's own default, made explicit. A hostile upstream
/// cannot make it grow further.
pub const MAX_ALLOC_DEFAULT: u64 = 1 << 30;
/// `HOME`: `$HOME/.popt` can define options that run programs.
const HOME: &str = "/nonexistent";
/// Characters of a faulty name that are shown.
const NAME_CHARS_MAX: usize = 80;
/// `USER` where the URI names none; without it rsync would send the name of the caller.
const USER: &str = "nobody";

/// The default flags, used when the options name no flag: document 5.4 of the design (`-rlptH` and near-atomic
/// updates).
const DEFAULT_FLAGS: [Flag; 6] =
    [Flag::Recursive, Flag::Links, Flag::Perms, Flag::Times, Flag::HardLinks, Flag::DelayUpdates];

/// Where an argument came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Our default, as the project says nothing.
    Default,
    /// The project's options or upstream.
    Project,
    /// The agent's, on every run or from its own limits; no project can change it.
    Forced,
    /// The delete guard.
    Guard,
    /// Concerns the password.
    Secret,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Project => "project",
            Self::Forced => "always",
            Self::Guard => "delete guard",
            Self::Secret => "secret, sent on a pipe",
        })
    }
}

/// That a run deletes, and how much at most. There is no deleting without a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// When.
    pub mode: DeleteMode,
    /// Most entries; the run ends with 25 when there were more. 0 deletes nothing and still tells.
    pub limit: u64,
}

/// How the destination becomes visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publish {
    /// The destination is what users see.
    InPlace,
    /// The destination is a private tree that is swapped in later.
    Atomic {
        /// The published tree, relative to the destination (`../NAME`): unchanged files become hard links. An
        /// absolute path would switch rsync's confinement off (CVE-2026-53795).
        link_dest: Option<PathBuf>,
    },
}

/// What a run is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Copies, and deletes where [`Plan::delete`] says so.
    #[default]
    Pull,
    /// Tells what a pull would do and changes nothing; the destination need not be there.
    DryRun,
    /// Deletes what the upstream no longer has and copies nothing: makes room on a full volume.
    Reclaim,
    /// Lists the upstream's directory, not what is below it, and these names below it as they are; changes nothing.
    /// What is not there is not listed, and the run then ends with 23. See [`crate::listing`].
    List(Vec<String>),
    /// Copies this one file below the upstream's directory into the destination, whatever the options say. What is larger,
    /// or no plain file, is not copied, and rsync may tell by nothing but a message.
    Fetch {
        /// Its path below the upstream's directory.
        name: String,
        /// The most bytes that it may have.
        max_bytes: u64,
    },
}

/// Everything about one run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Absolute path of rsync.
    pub program: PathBuf,
    /// What that rsync can do.
    pub features: RsyncFeatures,
    /// The upstream; its password, if any, is not looked at.
    pub source: RsyncUri,
    /// Whether the upstream's password will be handed over on a pipe.
    pub password: bool,
    /// The destination: an absolute path. The caller made sure that it is a directory below an allowed root.
    pub destination: PathBuf,
    /// A directory that rsync's own paths may not leave; needs rsync 3.5.0, ignored before. It and the destination
    /// must be free of symbolic links: otherwise rsync 3.5.0 drops every file and exits with 0.
    pub confine_root: Option<PathBuf>,
    /// How the destination becomes visible.
    pub publish: Publish,
    /// The project's options. Their delete mode only counts through [`Plan::delete`].
    pub options: Options,
    /// Whether this run deletes. Nothing is deleted by a pass that comes before the last one.
    pub delete: Option<Deletion>,
    /// `--timeout` where the options give none; at least a second.
    pub io_timeout: Duration,
    /// `--contimeout` where the options give none; at least a second.
    pub connect_timeout: Duration,
    /// The agent's bandwidth limit, KiB/s; the options can only lower it.
    pub bwlimit_kib: Option<u32>,
    /// Largest single allocation of rsync, bytes, see [`MAX_ALLOC_DEFAULT`].
    pub max_alloc: u64,
    /// The agent's own address to connect from.
    pub source_address: Option<IpAddr>,
    /// What it is for.
    pub purpose: Purpose,
    /// The agent may change owners, so `--archive` includes owner and group.
    pub privileged: bool,
    /// The agent's own file allows `--acls` and `--xattrs`.
    pub acls_and_xattrs: bool,
}

/// Why a plan cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanFault {
    /// The upstream.
    #[error("the upstream's URI: {0}")]
    Source(UriError),
    /// A password without a user.
    #[error("a password is set but the upstream's URI names no user")]
    PasswordWithoutUser,
    /// The program.
    #[error("the path of the rsync program must be absolute")]
    Program,
    /// The destination.
    #[error("the destination must be an absolute path below / without . and .. components")]
    Destination,
    /// The confinement.
    #[error("the destination is not below the directory it is confined to")]
    Confinement,
    /// The previous snapshot.
    #[error("the snapshot to link to must be a relative path")]
    LinkDest,
    /// `--inplace` into a tree that shares files with the published one.
    #[error("--inplace cannot be used with atomic publishing: it would change published files")]
    InplaceWithAtomic,
    /// `--acls` or `--xattrs`.
    #[error("{0} must be allowed in the agent's own file")]
    NeedsOptIn(String),
    /// Deleting without walking directories.
    #[error("deleting needs --recursive or --archive among the options")]
    DeleteWithoutRecursion,
    /// A name to list that is not one name.
    #[error("\"{}\" cannot be asked for by name", crate::text::printable(.0.as_bytes(), NAME_CHARS_MAX))]
    Name(String),
    /// A timeout below a second.
    #[error("timeouts must be at least one second")]
    Timeout,
}

/// One argument and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// The argument, exactly as rsync gets it.
    pub text: OsString,
    /// Where it came from.
    pub origin: Origin,
}

/// What to execute. Only [`Plan::build`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    program: PathBuf,
    args: Vec<Arg>,
    env: Vec<(&'static str, OsString)>,
    password: bool,
}

impl Command {
    /// The program, an absolute path.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The arguments behind the program's name, each with its origin.
    #[must_use]
    pub fn args(&self) -> &[Arg] {
        &self.args
    }

    /// The argument vector, program first.
    #[must_use]
    pub fn argv(&self) -> Vec<OsString> {
        std::iter::once(self.program.clone().into_os_string())
            .chain(self.args.iter().map(|arg| arg.text.clone()))
            .collect()
    }

    /// The whole environment: nothing else is set.
    #[must_use]
    pub fn env(&self) -> &[(&'static str, OsString)] {
        &self.env
    }

    /// Whether rsync reads the password from standard input (`--password-file=-`). It is one line, written at once.
    #[must_use]
    pub fn reads_password(&self) -> bool {
        self.password
    }
}

impl Plan {
    /// Makes the command line.
    ///
    /// # Errors
    /// Everything that is wrong with the plan, at once.
    pub fn build(&self) -> Result<Command, Vec<PlanFault>> {
        let faults = self.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut args = Args::default();
        if let Purpose::List(names) = &self.purpose {
            self.push_list_flags(names, &mut args);
            self.push_output_and_limits(&mut args);
            self.push_list_operands(names, &mut args);
        } else if let Purpose::Fetch { name, max_bytes } = &self.purpose {
            self.push_fetch_flags(*max_bytes, &mut args);
            self.push_output_and_limits(&mut args);
            self.push_fetch_operands(name, &mut args);
        } else {
            self.push_flags(&mut args);
            self.push_filters(&mut args);
            self.push_deletion(&mut args);
            self.push_values(&mut args);
            self.push_output_and_limits(&mut args);
            self.push_operands(&mut args);
        }
        let user =
            self.source.user().map_or_else(|| OsString::from(USER), |user| OsString::from_vec(user.to_vec()));
        let env = vec![("LC_ALL", "C".into()), ("TZ", "UTC".into()), ("HOME", HOME.into()), ("USER", user)];
        Ok(Command { program: self.program.clone(), args: args.0, env, password: self.password })
    }

    fn faults(&self) -> Vec<PlanFault> {
        let atomic = matches!(self.publish, Publish::Atomic { .. });
        let link_dest_bad = matches!(&self.publish, Publish::Atomic { link_dest: Some(path) }
            if path.is_absolute() || path.as_os_str().is_empty() || has_control(path));
        let outside = self.confine_root.as_ref().is_some_and(|root| !self.destination.starts_with(root));
        let not_allowed = self.options.needs_opt_in().into_iter().filter(|_| !self.acls_and_xattrs);
        let second = Duration::from_secs(1);
        let checks = [
            (!self.program.is_absolute(), PlanFault::Program),
            (self.password && self.source.user().is_none(), PlanFault::PasswordWithoutUser),
            (!is_plain_absolute(&self.destination), PlanFault::Destination),
            (outside, PlanFault::Confinement),
            (link_dest_bad, PlanFault::LinkDest),
            (atomic && self.options.has(Flag::Inplace), PlanFault::InplaceWithAtomic),
            (self.delete.is_some() && !self.options.is_recursive(), PlanFault::DeleteWithoutRecursion),
            (self.io_timeout < second || self.connect_timeout < second, PlanFault::Timeout),
        ];
        let source = self.source.check_source().err().map(PlanFault::Source);
        source
            .into_iter()
            .chain(checks.into_iter().filter_map(|(bad, fault)| bad.then_some(fault)))
            .chain(not_allowed.map(|flag| PlanFault::NeedsOptIn(flag.word())))
            .chain(self.bad_names().map(|name| PlanFault::Name(name.clone())))
            .collect()
    }

    /// The flags, in the order of [`FLAGS`]; then what keeps links and devices harmless.
    fn push_flags(&self, args: &mut Args) {
        let defaults = self.options.uses_default_flags();
        let origin = if defaults { Origin::Default } else { Origin::Project };
        let given = |flag| if defaults { DEFAULT_FLAGS.contains(&flag) } else { self.options.has(flag) };
        for row in FLAGS {
            match row.flag {
                // Expanded below, so that it never includes devices.
                Flag::Archive | Flag::NoOwner | Flag::NoGroup => {}
                Flag::Partial if given(Flag::Partial) => {
                    args.push(format!("--partial-dir={PARTIAL_DIR}"), origin)
                }
                flag if given(flag) || (given(Flag::Archive) && self.archive_includes(flag)) => {
                    args.push(flag.word(), origin);
                }
                _ => {}
            }
        }
        if defaults {
            args.push(format!("--partial-dir={PARTIAL_DIR}"), origin);
        }
        args.push("--safe-links", Origin::Forced);
        args.push("--no-D", Origin::Forced);
        if self.features.drop_devices {
            args.push("--drop-D", Origin::Forced);
        }
        if let Some(root) = self.confine_root.as_ref().filter(|_| self.features.confine_root) {
            args.push_joined("--confine-root=", root, Origin::Forced);
        }
        match self.options.find(|opt| if let Opt::Chmod(chmod) = opt { Some(chmod.clone()) } else { None }) {
            Some(chmod) => args.push(format!("--chmod={chmod},{CHMOD_FORCED}"), Origin::Project),
            None if defaults => args.push(format!("--chmod={CHMOD_DEFAULT},{CHMOD_FORCED}"), Origin::Default),
            None => args.push(format!("--chmod={CHMOD_FORCED}"), Origin::Forced),
        }
    }

    fn archive_includes(&self, flag: Flag) -> bool {
        match flag {
            Flag::Recursive | Flag::Links | Flag::Perms | Flag::Times => true,
            Flag::Owner => self.privileged && !self.options.has(Flag::NoOwner),
            Flag::Group => self.privileged && !self.options.has(Flag::NoGroup),
            _ => false,
        }
    }

    /// Ours first: the first rule that matches counts.
    fn push_filters(&self, args: &mut Args) {
        if self.options.uses_default_flags() {
            let rule = Rule::new(Action::Exclude, DELAY_DIR).expect("the constant is a valid pattern");
            args.push(format!("--filter={rule}"), Origin::Default);
        }
        for rule in self.options.filters() {
            args.push(format!("--filter={rule}"), Origin::Project);
        }
    }

    fn push_deletion(&self, args: &mut Args) {
        let Some(Deletion { mode, limit }) = self.delete else { return };
        let origin = if self.options.delete_mode() == Some(mode) { Origin::Project } else { Origin::Default };
        // Where nothing is copied nothing has to wait; to remember it rsync would need a file in the destination,
        // which a dry run must not make and a full volume may not take.
        let delay = if self.purpose == Purpose::Pull { DeleteMode::Delay } else { DeleteMode::During };
        match mode {
            DeleteMode::Delay => args.push(delay.word(), origin),
            DeleteMode::Excluded => {
                args.push(delay.word(), origin);
                args.push(mode.word(), origin);
            }
            DeleteMode::After | DeleteMode::During => args.push(mode.word(), origin),
        }
        if self.purpose == Purpose::Reclaim {
            for flag in
                [Flag::Existing, Flag::IgnoreExisting].into_iter().filter(|flag| !self.options.has(*flag))
            {
                args.push(flag.word(), Origin::Forced);
            }
        }
        match self.options.max_delete().map(u64::from) {
            Some(own) if own < limit => args.push(format!("--max-delete={own}"), Origin::Project),
            _ => args.push(format!("--max-delete={limit}"), Origin::Guard),
        }
    }

    fn push_values(&self, args: &mut Args) {
        for option in self.options.iter() {
            if matches!(option, Opt::MaxSize(_) | Opt::MinSize(_) | Opt::ModifyWindow(_)) {
                args.push(option.word(), Origin::Project);
            }
        }
        if let Publish::Atomic { link_dest: Some(path) } = &self.publish {
            args.push_joined("--link-dest=", path, Origin::Forced);
        }
    }

    fn push_output_and_limits(&self, args: &mut Args) {
        let given = |pick: fn(&Opt) -> Option<u32>| self.options.find(pick);
        let bwlimit = given(|opt| if let Opt::Bwlimit(kib) = opt { Some(*kib) } else { None });
        match (bwlimit, self.bwlimit_kib) {
            (Some(own), cap) if cap.is_none_or(|cap| own <= cap) => {
                args.push(format!("--bwlimit={own}"), Origin::Project);
            }
            (_, Some(cap)) => args.push(format!("--bwlimit={cap}"), Origin::Forced),
            _ => {}
        }
        let timeout = given(|opt| if let Opt::Timeout(seconds) = opt { Some(*seconds) } else { None });
        let connect = given(|opt| if let Opt::ConnectTimeout(seconds) = opt { Some(*seconds) } else { None });
        for (name, own, default) in
            [("timeout", timeout, self.io_timeout), ("contimeout", connect, self.connect_timeout)]
        {
            let origin = if own.is_some() { Origin::Project } else { Origin::Default };
            let seconds = own.map_or(default.as_secs(), u64::from);
            args.push(format!("--{name}={seconds}"), origin);
        }
        args.push(format!("--max-alloc={}", self.max_alloc), Origin::Forced);
        if let Some(address) = self.source_address {
            args.push(format!("--address={address}"), Origin::Forced);
        }
        for word in ["--no-motd", "--no-h", "--outbuf=L"] {
            args.push(word, Origin::Forced);
        }
        args.push(format!("--info={INFO}"), Origin::Forced);
        args.push(format!("--out-format={OUT_FORMAT}"), Origin::Forced);
        if self.purpose == Purpose::DryRun {
            args.push("--dry-run", Origin::Forced);
        }
        if self.password {
            args.push("--password-file=-", Origin::Secret);
        }
    }

    fn push_operands(&self, args: &mut Args) {
        args.push("--", Origin::Forced);
        args.push(self.source.operand(), Origin::Project);
        // An absolute path begins with a slash, so no colon in it can be taken for a host.
        let mut destination = self.destination.clone().into_os_string().into_vec();
        if !destination.ends_with(b"/") {
            destination.push(b'/');
        }
        args.push(OsString::from_vec(destination), Origin::Project);
    }
}

#[derive(Default)]
struct Args(Vec<Arg>);

impl Args {
    fn push(&mut self, text: impl Into<OsString>, origin: Origin) {
        self.0.push(Arg { text: text.into(), origin });
    }

    fn push_joined(&mut self, option: &str, value: impl AsRef<OsStr>, origin: Origin) {
        let mut text = OsString::from(option);
        text.push(value);
        self.push(text, origin);
    }
}

fn has_control(path: &Path) -> bool {
    path.as_os_str().as_bytes().iter().any(u8::is_ascii_control)
}

fn is_plain_absolute(path: &Path) -> bool {
    let mut components = path.components();
    let rooted = components.next() == Some(Component::RootDir);
    let rest: Vec<Component<'_>> = components.collect();
    // `components` drops inner `.`; only the text shows them.
    let dots = path.as_os_str().as_bytes().split(|b| *b == b'/').any(|part| matches!(part, b"." | b".."));
    rooted && !rest.is_empty() && !dots && !has_control(path)
}

#[cfg(test)]
mod tests;
