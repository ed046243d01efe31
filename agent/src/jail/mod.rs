//! `mirror-supervise BUILD jail --spec SPEC.json [--cgroup DIR] -- PROGRAM ARGS`: confines itself, then becomes the
//! program.
//!
//! `mirror-supervise BUILD jail --jail JAIL.json -- PROGRAM ARGS`: the same for a program without a supervisor, which leads a
//! session of its own and may outlive who started it.
//!
//! In this order: the run's cgroup, TERM when the supervisor dies, resource limits, umask, `no_new_privs`, root's
//! capabilities, Landlock, exec. Everything is set on this process by safe calls, so nothing has to happen between fork and
//! exec. Environment, working directory and descriptors are the supervisor's matter and pass through.
//!
//! What the kernel cannot enforce is left out here and told by [`gaps`], which the agent reports. What cannot
//! be done although the kernel can is a refusal: one line on standard error and exit code [`REFUSED_CODE`].

mod loader;
mod privileges;
mod rules;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::fs::Mode;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit, setsid,
    umask,
};
use rustix::thread::set_no_new_privs;
use serde::de::DeserializeOwned;

use self::privileges::Keep;
use crate::rundir::{JailSpec, ProgramSpec};

/// Exit code of a refusal; 126 and 127 say, as shells do, that the program could not be executed or was not
/// found.
pub const REFUSED_CODE: u8 = 125;
const NOT_EXECUTABLE_CODE: u8 = 126;
const NOT_FOUND_CODE: u8 = 127;

/// Files are group and world readable at most: mirrors are served by others.
const UMASK: Mode = Mode::WGRP.union(Mode::WOTH);

/// Confines this process and executes the program; returns only when that is not possible. `args` are those
/// after the subcommand's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match run(args.into_iter()) {
        Ok(never) => match never {},
        Err(refusal) => {
            let _ = writeln!(io::stderr(), "mirror-supervise jail: {}", refusal.text);
            ExitCode::from(refusal.code)
        }
    }
}

/// What of a jail and of the supervisor's means this host cannot provide, as texts for people; empty when
/// nothing is missing. The agent puts them into its hello.
pub fn gaps() -> Vec<String> {
    let mut gaps = rules::gaps();
    gaps.extend(privileges::gaps());
    gaps.extend(crate::supervisor::cgroup_gap());
    // By its name: the agent is undumpable, so its own figures are not for its own user.
    if !Path::new("/proc/self/io").exists() {
        gaps.push(
            "the kernel does not account I/O per process: only CPU time shows that a run is alive".to_owned(),
        );
    }
    gaps
}

struct Refusal {
    code: u8,
    text: String,
}

fn refuse(text: impl std::fmt::Display) -> Refusal {
    Refusal { code: REFUSED_CODE, text: text.to_string() }
}

fn run(args: impl Iterator<Item = OsString>) -> Result<std::convert::Infallible, Refusal> {
    let args = Args::parse(args)?;
    let jail = match &args.source {
        Source::Spec(path) => read::<ProgramSpec>(path)?.jail,
        Source::Jail(path) => read::<JailSpec>(path)?,
    };
    if let Some(cgroup) = &args.cgroup {
        // Refused where the delegation does not reach up to the common ancestor: then group and session have
        // to do.
        let _ = fs::write(cgroup.join("cgroup.procs"), "0");
    }
    let keep = match args.source {
        // TERM, not KILL: rsync then ends its other processes, removes its temporary files and keeps partial
        // ones.
        Source::Spec(_) => {
            set_parent_process_death_signal(Some(Signal::TERM))
                .map_err(|error| refuse(format!("death signal: {error}")))?;
            Keep::Trees
        }
        Source::Jail(_) => {
            setsid().map_err(|error| refuse(format!("session: {error}")))?;
            Keep::Daemon
        }
    };
    // The signal comes only for a death from now on: a supervisor that is gone already is noticed here.
    if args.parent.is_some_and(|parent| getppid() != Some(parent)) {
        return Err(refuse("the supervisor is gone; nothing is started without one"));
    }
    limit(&jail).map_err(|error| refuse(format!("resource limits: {error}")))?;
    umask(UMASK);
    if !jail.off {
        set_no_new_privs(true).map_err(|error| refuse(format!("no_new_privs: {error}")))?;
        privileges::lower(keep).map_err(|error| refuse(format!("capabilities: {error}")))?;
        rules::confine(&jail, Path::new(&args.program)).map_err(|faults| refuse(faults.join("; ")))?;
    }
    #[allow(clippy::disallowed_methods, reason = "becomes the program; nothing is spawned")]
    let error = Command::new(&args.program).args(&args.rest).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND_CODE } else { NOT_EXECUTABLE_CODE };
    Err(Refusal { code, text: format!("cannot execute {}: {error}", Path::new(&args.program).display()) })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Refusal> {
    let text = fs::read(path).map_err(|error| refuse(format!("cannot read {}: {error}", path.display())))?;
    serde_json::from_slice(&text).map_err(|error| refuse(format!("{} is damaged: {error}", path.display())))
}

/// No core files (they would hold what the program read); descriptors, memory and processes as asked for, as far as
/// the hard limits go.
fn limit(jail: &JailSpec) -> rustix::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    for (resource, wanted) in [
        (Resource::Nofile, jail.open_files),
        (Resource::As, jail.memory_bytes),
        (Resource::Nproc, jail.processes),
    ] {
        if let Some(wanted) = wanted {
            let most = getrlimit(resource).maximum.map_or(wanted, |hard| hard.min(wanted));
            setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
        }
    }
    Ok(())
}

/// Where it stands what the program may touch.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// In the specification of a supervised run.
    Spec(PathBuf),
    /// On its own.
    Jail(PathBuf),
}

#[derive(Debug, PartialEq, Eq)]
struct Args {
    source: Source,
    cgroup: Option<PathBuf>,
    parent: Option<Pid>,
    program: OsString,
    rest: Vec<OsString>,
}

impl Args {
    /// By hand: this is called by the agent and the supervisor alone, and has to stay small.
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Args, Refusal> {
        const USAGE: &str = "usage: mirror-supervise BUILD jail --spec SPEC.json|--jail JAIL.json [--cgroup DIR] [--parent PID] -- PROGRAM ARGS";
        let (mut spec, mut jail, mut cgroup, mut parent) = (None, None, None, None);
        loop {
            let word = args.next().ok_or_else(|| refuse(USAGE))?;
            let slot = match word.to_str() {
                Some("--") => break,
                Some("--spec") => &mut spec,
                Some("--jail") => &mut jail,
                Some("--cgroup") => &mut cgroup,
                Some("--parent") => &mut parent,
                _ => return Err(refuse(USAGE)),
            };
            *slot = Some(PathBuf::from(args.next().ok_or_else(|| refuse(USAGE))?));
        }
        let program = args.next().filter(|program| Path::new(program).is_absolute());
        let source = match (spec, jail) {
            (Some(spec), None) => Source::Spec(spec),
            (None, Some(jail)) => Source::Jail(jail),
            _ => return Err(refuse(USAGE)),
        };
        let Some(program) = program else { return Err(refuse(USAGE)) };
        let parent = match parent {
            None => None,
            Some(text) => Some(read_pid(&text).ok_or_else(|| refuse(USAGE))?),
        };
        Ok(Args { source, cgroup, parent, program, rest: args.collect() })
    }
}

fn read_pid(text: &Path) -> Option<Pid> {
    Pid::from_raw(text.to_str()?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Option<Args> {
        Args::parse(words.iter().map(OsString::from)).ok()
    }

    #[test]
    fn arguments_after_the_dashes_are_the_programs_own() {
        let words = ["--spec", "/s", "--cgroup", "/c", "--parent", "7", "--", "/bin/echo", "--spec", "--"];
        let args = parse(&words).unwrap();
        assert_eq!(args.parent, Pid::from_raw(7));
        assert_eq!(args.source, Source::Spec("/s".into()));
        let bare = parse(&["--jail", "/j", "--", "/bin/echo"]).unwrap();
        assert_eq!(bare.source, Source::Jail("/j".into()));
        assert_eq!(args.cgroup.as_deref(), Some(Path::new("/c")));
        assert_eq!(args.program, "/bin/echo");
        assert_eq!(args.rest, ["--spec", "--"]);
    }

    #[test]
    fn incomplete_or_relative_command_lines_are_refused() {
        for words in [
            &["--spec", "/s"][..],
            &["--spec", "/s", "--"],
            &["--", "/bin/echo"],
            &["--spec", "/s", "--", "echo"],
            &["--other", "--", "/bin/echo"],
            &["--spec", "/s", "--jail", "/j", "--", "/bin/echo"],
            &["--spec", "/s", "--parent", "x", "--", "/bin/echo"],
            &["--spec"],
            &[],
        ] {
            assert_eq!(parse(words), None, "{words:?}");
        }
    }
}
