//! The people's command line of the mirror fleet.
//!
//! ```text
//!  argv ─▶ cli ─▶ cmd ─▶ request ─▶ client ══gRPC══▶ coordinator
//!                  │                   │
//!                  └─▶ text | json ◀───┘  one message, two printers
//! ```
//!
//! The words, columns and exit codes are a contract with people and scripts: `tests/out` holds them as files. This
//! crate decides nothing about the fleet; what is a fault of a request is the coordinator's to say, and this crate
//! only gives the fields the names under which they were typed.

pub mod app;
pub mod cli;
pub mod client;
pub mod clock;
pub mod cmd;
pub mod config;
pub mod confirm;
pub mod exit;
pub mod fault;
pub mod fields;
pub mod import;
pub mod json;
pub mod manifest;
pub mod names;
mod renewal;
pub mod request;
pub mod status;
pub mod suggest;
pub mod table;
pub mod telemetry;
pub mod term;
pub mod text;
pub mod units;
pub mod watch;
pub mod yaml;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use crate::app::App;
use crate::cli::Cli;
use crate::exit::Exit;
use crate::telemetry::{ENDPOINT_VARIABLE, Telemetry};

/// The format of manifests, as it is typed.
const TOML: &str = "toml";
/// The commands that print manifests.
const MANIFESTS: [&str; 2] = ["export", "import"];

/// Runs one command line, its first word the program's name.
#[must_use]
pub fn main(argv: Vec<OsString>) -> ExitCode {
    if let Some(exit) = cmd::complete::run(&argv) {
        return exit;
    }
    let parsed = Cli::command().try_get_matches_from(&argv).and_then(|matches| {
        only_manifests_are_toml(&matches)?;
        Cli::from_arg_matches(&matches).map(|cli| (words(&matches), cli))
    });
    let (words, cli) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version are answers, everything else is bad input; a closed pipe is neither.
            let _ = error.print();
            return if error.use_stderr() { Exit::BadInput.into() } else { Exit::Done.into() };
        }
    };
    // One thread is enough for one connection, and starts fastest.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            app::note(&format!("error: the system gives no event queue: {error}"));
            return Exit::Bug.into();
        }
    };
    runtime.block_on(run(cli, &words, &argv)).into()
}

async fn run(cli: Cli, words: &str, argv: &[OsString]) -> Exit {
    let endpoint = std::env::var(ENDPOINT_VARIABLE).ok();
    let telemetry = Telemetry::start(endpoint.as_deref(), words);
    let app = App::new(cli.global, argv, words, telemetry.traceparent());
    let exit = match cmd::run(&app, cli.command).await {
        Ok(exit) => exit,
        Err(fault) => {
            if !fault.what.is_empty() {
                app.complain(&fault);
            }
            fault.exit
        }
    };
    telemetry.finish(exit).await;
    exit
}

/// `toml` is what a manifest is printed in where nothing else is asked for, and no other answer has it.
fn only_manifests_are_toml(matches: &ArgMatches) -> Result<(), clap::Error> {
    let typed = matches.get_raw("output").is_some_and(|mut raw| raw.any(|value| value == TOML));
    if !typed || matches.subcommand_name().is_some_and(|name| MANIFESTS.contains(&name)) {
        return Ok(());
    }
    let text = format!("--output {TOML}: only {} print it", MANIFESTS.join(" and "));
    Err(Cli::command().error(clap::error::ErrorKind::InvalidValue, text))
}

/// The words of the command without its arguments: `project run`.
fn words(matches: &ArgMatches) -> String {
    match matches.subcommand() {
        Some((word, deeper)) => format!("{word} {}", words(deeper)).trim_end().to_owned(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn words_leave_arguments_out() {
        let matches = Cli::command()
            .try_get_matches_from(["mirrorctl", "project", "run", "debian", "--watch"])
            .unwrap();
        assert_eq!(words(&matches), "project run");
    }
}
