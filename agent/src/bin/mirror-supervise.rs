//! `mirror-supervise`: the small program that the agent starts for each program run, so that the large one is not
//! mapped twice for it. `supervise` owns the run, `jail` becomes its program. Knows words and exit codes; what they do is
//! in the library.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use mirror_agent::jail::{self, REFUSED_CODE};
use mirror_agent::rundir::{BUILD, PROGRAM_NAME};
use mirror_agent::supervisor;

const USAGE: &str =
    "The agent starts this program by itself: it owns one run of rsync and outlives the agent.

Usage: mirror-supervise BUILD supervise --run-dir DIR
       mirror-supervise BUILD jail --spec FILE|--jail FILE [--cgroup DIR] [--parent PID] -- PROGRAM ARGS
       mirror-supervise --version

Exit codes:
  0    supervise: the run has ended, exit.json says how; jail: as the program
  1    supervise: nothing was started
  2    bad usage
  125  jail: refused; or BUILD is not this program's, and nothing was done
  126  jail: the program cannot be executed
  127  jail: there is no such program";

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let Some(build) = words.next() else { return usage() };
    if build == "--version" {
        return said(writeln!(std::io::stdout(), "{PROGRAM_NAME} {BUILD}"));
    }
    if build == "--help" || build == "-h" {
        return said(writeln!(std::io::stdout(), "{USAGE}"));
    }
    let Some(command) = words.next() else { return usage() };
    if build != BUILD {
        let build = build.to_string_lossy();
        let text = format!(
            "{PROGRAM_NAME} is of build {BUILD} now, its agent is of build {build}: restart the agent"
        );
        // Without standard error there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "{text}");
        return ExitCode::from(REFUSED_CODE);
    }
    match command.to_str() {
        Some("jail") => jail::main(words),
        Some("supervise") => supervise(words).unwrap_or_else(usage),
        _ => usage(),
    }
}

fn supervise(mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    words.next().filter(|word| word == "--run-dir")?;
    let run_dir = PathBuf::from(words.next()?);
    words.next().is_none().then(|| supervisor::main(&run_dir))
}

fn usage() -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{USAGE}");
    ExitCode::from(2)
}

fn said(written: std::io::Result<()>) -> ExitCode {
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
