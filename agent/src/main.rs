//! `mirror-agent`: the command line. What it does is in the library; this reads words, prints lines and chooses
//! exit codes.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mirror_agent::config::{Config, Overrides};
use mirror_agent::enroll::{EnrollArgs, EnrollError, enroll};
use mirror_agent::telemetry::Telemetry;
use mirror_agent::{daemon, outcome};

/// Exit codes, as in the help.
mod exit {
    pub(super) const FAILED: u8 = 1;
    pub(super) const BAD_INPUT: u8 = 2;
    pub(super) const CONFLICT: u8 = 5;
    pub(super) const BUG: u8 = 70;
}

const EXIT_CODES: &str = "\
Exit codes:
  0   done; run: ended by SIGTERM, syncs go on under their supervisors
  1   failed on this host (disk, key, journal)
  2   bad input or configuration, or no mirror-supervise of this build beside this program; all faults are told
  3   not found by the coordinator
  4   not allowed: token refused, or the CA is not the one whose hash was typed
  5   conflict: enrolled already, or another agent runs on the data directory
  6   coordinator unreachable or busy: try again
  70  our bug";

/// The agent of a mirror fleet, one per host: dials the coordinator, runs rsync, reports back
#[derive(Parser)]
#[command(name = "mirror-agent", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make this host an agent of a fleet: spends a join token for a certificate, writes agent.toml
    #[command(after_help = EXIT_CODES)]
    Enroll(Box<EnrollArgs>),
    /// Run the agent until SIGTERM or SIGINT; SIGHUP reloads roots, limits, upstreams and certificates
    #[command(after_help = EXIT_CODES)]
    Run(Box<RunArgs>),
}

#[derive(clap::Args)]
struct RunArgs {
    /// The agent's configuration file, as `mirror-agent enroll` wrote it
    #[arg(long, default_value = "agent.toml", env = "MIRROR_AGENT_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and all that it names, print every fault, and end
    #[arg(long)]
    check_config: bool,
    #[command(flatten)]
    overrides: Overrides,
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    if let Err(error) = mirror_certs::make_undumpable() {
        return complain(&error, exit::FAILED, "allow this program prctl(2) and setrlimit(2)");
    }
    match command {
        Command::Enroll(args) => run_enroll(*args),
        Command::Run(args) => run_agent(*args),
    }
}

fn run_enroll(args: EnrollArgs) -> ExitCode {
    let input = match args.check() {
        Ok(input) => input,
        Err(faults) => return fail(&EnrollError::Faults(faults)),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, exit::FAILED, "free some memory or descriptors"),
    };
    match runtime.block_on(enroll(input)) {
        Ok(enrolled) => print(&enrolled.lines(good_sign())),
        Err(error) => fail(&error),
    }
}

fn fail(error: &EnrollError) -> ExitCode {
    complain(error, error.exit_code(), &error.next())
}

fn run_agent(args: RunArgs) -> ExitCode {
    let loaded = daemon::load(&args.config, args.overrides.clone(), None);
    let (live, tls) = match loaded {
        Ok(loaded) => loaded,
        Err(faults) => return complain(&faults, exit::BAD_INPUT, &after_faults(&args.config)),
    };
    if args.check_config {
        return print(&summary(&live.config));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, exit::FAILED, "free some memory or descriptors"),
    };
    let _inside = runtime.enter();
    let telemetry = match Telemetry::set_up(&live.config) {
        Ok(telemetry) => telemetry,
        Err(error) => return complain(&error, exit::BAD_INPUT, "mirror-agent run --help"),
    };
    let next = after_faults(&args.config);
    let result = runtime.block_on(daemon::run(args.config, args.overrides, live, tls));
    telemetry.shut_down();
    // Tasks that watch a program end here; the programs do not.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ daemon::RunError::State(mirror_agent::state::StateError::Locked(_))) => {
            complain(&error, exit::CONFLICT, "systemctl status mirror-agent")
        }
        Err(error @ daemon::RunError::Faults(_)) => complain(&error, exit::BAD_INPUT, &next),
        Err(error) => complain(&error, exit::FAILED, "mend what it names, then start again"),
    }
}

fn summary(config: &Config) -> String {
    let roots: Vec<String> =
        config.roots.iter().map(|(name, path)| format!("{name}={}", path.display())).collect();
    format!("{} configuration of {}: roots {}", good_sign(), config.name, roots.join(" "))
}

/// Prints what the command is for.
fn print(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads it: `| head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(exit::BUG),
    }
}

fn complain(error: &(dyn std::error::Error + 'static), code: u8, next: &str) -> ExitCode {
    // Without standard error there is nobody to tell.
    let text = without_numbers(&outcome::chain(error));
    let _ = writeln!(std::io::stderr(), "error: {text}\nnext: {next}");
    ExitCode::from(code)
}

/// The command that makes a configuration, or the one that checks it when it was mended.
fn after_faults(config: &Path) -> String {
    if config.exists() {
        format!("mirror-agent run --config {} --check-config", config.display())
    } else {
        "mirror-agent enroll --help".to_owned()
    }
}

/// A system's message without the number that the standard library adds to it: ` (os error 2)`.
fn without_numbers(text: &str) -> String {
    const MARK: &str = " (os error ";
    let mut parts = text.split(MARK);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once(')').map_or(part, |(_number, rest)| rest));
    }
    plain
}

/// The sign in front of what is well: a word where the locale may not show the sign.
fn good_sign() -> &'static str {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    let utf8 = set.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    });
    if utf8 { "✓" } else { "ok" }
}
