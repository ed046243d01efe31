//! `mirror-coordinator ca`: the fleet's CA and its replacement, for whoever administers the coordinator's host. What it
//! says is decided by `mirror_coordinator::authority::rotation`; here are only the words.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use mirror_certs::{Identity, RENEW_GRACE};
use mirror_coordinator::{
    authority::{
        ledger::Entry,
        rotation::{self, Cut, Root, RotationError, State, resource},
    },
    clock::Clock,
};

use super::{EXIT_CODES, EXIT_CONFLICT, EXIT_FAILED, EXIT_INPUT, Failure, mark, read, say};

/// Holders of certificates that are listed one by one.
const LISTED_MAX: usize = 50;
/// `--cut` with this word means everybody.
const ALL: &str = "all";

/// What `ca --help` says first.
pub(super) const ABOUT: &str = "\
The fleet's CA: which there are, and how one replaces the other

The CA signs the certificates of everybody in the fleet and lives 10 years. It is replaced by two commands on the \
coordinator's host, as its user; the coordinator goes on running, and no other host is visited:

  mirror-coordinator ca rotate     the new CA is made; both are trusted, the new one issues
  systemctl reload mirror-coordinator
  mirror-coordinator ca show       who is left on the old one, and what to do about each
  mirror-coordinator ca retire     the old one is trusted no more
  systemctl reload mirror-coordinator

Each may be broken off at any moment and given again. Agents that are connected have moved within seconds of the first \
reload, those that are away move by themselves when they are back. `ca retire` is refused while anybody is left.";

/// The commands on the CA.
#[derive(Debug, Subcommand)]
pub(super) enum Ca {
    /// Which CAs the fleet trusts, who still depends on the old one, and what comes next; changes nothing
    #[command(after_help = EXIT_CODES)]
    Show(On),
    /// Make the CA that replaces the present one; from the next reload on both are trusted and the new one issues
    #[command(after_help = EXIT_CODES)]
    Rotate(On),
    /// End the old CA; from the next reload on it is trusted no more, and what was begun under it is cut
    #[command(after_help = EXIT_CODES)]
    Retire(Retire),
}

/// Where the fleet is.
#[derive(Debug, Args)]
pub(super) struct On {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "MIRROR_COORDINATOR_CONFIG", default_value = "coordinator.toml")]
    config: PathBuf,
}

/// What `ca retire` takes.
#[derive(Debug, Args)]
pub(super) struct Retire {
    /// Cut these off, who still depend on the old CA: agents/NAME and users/NAME as `ca show` lists them, or `all`
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    cut: Vec<String>,
    #[command(flatten)]
    on: On,
}

/// Does it.
pub(super) fn execute(command: Ca) -> Result<(), Failure> {
    let now = Clock::start().now().wall.to_utc();
    match command {
        Ca::Show(On { config }) => {
            let state = rotation::show(&read(&config)?, now).map_err(|error| failure(error, &config, now))?;
            shown(&state, &config, now).iter().for_each(|line| say(line));
        }
        Ca::Rotate(On { config }) => {
            let next =
                rotation::rotate(&read(&config)?, now).map_err(|error| failure(error, &config, now))?;
            say(&format!("{} new CA {}, valid until {}", mark(), next.hash, day(next.until)));
            say(RELOAD);
            say(&format!("Then: mirror-coordinator ca show --config {}", config.display()));
        }
        Ca::Retire(Retire { cut, on: On { config } }) => {
            let cut = if cut.iter().any(|name| name == ALL) { Cut::All } else { Cut::These(cut) };
            let retired = rotation::retire(&read(&config)?, &cut, now);
            let (root, left) = retired.map_err(|error| failure(error, &config, now))?;
            say(&format!("{} the fleet's CA is {}, valid until {}", mark(), root.hash, day(root.until)));
            if !left.is_empty() {
                say("Cut off at the reload:");
                listed(&left, now).iter().for_each(|line| say(line));
            }
            say(RELOAD);
        }
    }
    Ok(())
}

/// What makes a coordinator take a change over.
const RELOAD: &str = "Next: systemctl reload mirror-coordinator   (without systemd: kill -HUP; if it does not run, its next start)";

fn shown(state: &State, config: &Path, now: DateTime<Utc>) -> Vec<String> {
    let root = |name: &str, root: &Root, does: &str| {
        format!("{name}  {}  made {}, valid until {}; {does}", root.hash, day(root.made), day(root.until))
    };
    let mut lines = match &state.next {
        None => vec![root("CA     ", &state.current, "issues everything")],
        Some(next) => vec![
            root(
                "old CA ",
                &state.current,
                "issues the coordinator's own certificate; hosts that enrol type its hash",
            ),
            root("new CA ", next, "issues everything else"),
        ],
    };
    if let Some(until) = state.server_until {
        lines.push(format!(
            "The coordinator's own certificate is valid until {} and renewed by itself.",
            day(until)
        ));
    }
    if state.unreadable > 0 {
        lines.push(format!(
            "{} lines of issued.txt are unreadable; somebody may be missing below.",
            state.unreadable
        ));
    }
    let command = |what: &str| format!("mirror-coordinator ca {what} --config {}", config.display());
    match (&state.next, state.is_in_force()) {
        (_, false) => {
            lines.push("The coordinator has not taken that over yet.".to_owned());
            lines.push(RELOAD.to_owned());
        }
        (None, true) => lines.push(format!("No rotation is under way. To begin one: {}", command("rotate"))),
        (Some(_), true) if state.left.is_empty() => {
            lines.push("Nobody is left on the old CA.".to_owned());
            lines.push(format!("Next: {}", command("retire")));
        }
        (Some(_), true) => {
            lines.push(format!("Left on the old CA: {}.", state.left.len()));
            lines.extend(listed(&state.left, now));
            lines.push(format!("Next: when nobody is left, {}", command("retire")));
        }
    }
    lines
}

/// Who depends on the old CA, until when, and what helps.
fn listed(left: &[Entry], now: DateTime<Utc>) -> Vec<String> {
    let line = |one: &Entry| {
        let until = day(one.until);
        let what = match &one.identity {
            Identity::Agent(_) => {
                let back = day(one.until + RENEW_GRACE);
                let state =
                    if now < one.until { format!("until {until}") } else { format!("expired {until}") };
                format!("certificate {state}; away: moves by itself when it is back by {back}, or revoke it")
            }
            Identity::User(name) => {
                format!("certificate until {until}; needs a new one: mirrorctl cert issue, as {name}")
            }
            Identity::Server => format!("certificate until {until}"),
        };
        format!("  {}  {what}", resource(&one.identity))
    };
    let mut lines: Vec<String> = left.iter().take(LISTED_MAX).map(line).collect();
    if left.len() > LISTED_MAX {
        lines.push(format!("  and {} more", left.len() - LISTED_MAX));
    }
    lines
}

fn day(time: DateTime<Utc>) -> impl std::fmt::Display {
    time.format("%Y-%m-%d")
}

fn failure(error: RotationError, config: &Path, now: DateTime<Utc>) -> Failure {
    let command = |what: &str| format!("mirror-coordinator ca {what} --config {}", config.display());
    let (code, next) = match &error {
        RotationError::Underway { .. } => (EXIT_CONFLICT, command("show")),
        RotationError::NoRotation => (EXIT_CONFLICT, command("rotate")),
        RotationError::NotInForce => {
            let next = format!(
                "systemctl reload mirror-coordinator, then {}; to cut everybody off: {} --cut {ALL}",
                command("show"),
                command("retire")
            );
            (EXIT_CONFLICT, next)
        }
        RotationError::WouldCut(left) => {
            let names: Vec<String> = left.iter().map(|one| resource(&one.identity)).collect();
            let cut = if names.len() > LISTED_MAX { ALL.to_owned() } else { names.join(",") };
            let next =
                format!("wait until nobody is left, or cut them off: {} --cut {cut}", command("retire"));
            let mut failure = Failure::of(EXIT_CONFLICT, &error, &next);
            let lines = listed(left, now);
            let faults = lines.iter().map(|line| line.trim_start().split_once("  ").unwrap_or((line, "")));
            failure.faults = faults.map(|(who, what)| (who.to_owned(), what.to_owned())).collect();
            return failure;
        }
        RotationError::NotAmongThem(_) => (EXIT_INPUT, command("show")),
        RotationError::OtherUser { file, .. } => {
            let next = format!("runuser -u \"$(stat -c %U {})\" -- mirror-coordinator ca …", file.display());
            (EXIT_FAILED, next)
        }
        _ => (EXIT_FAILED, "mend that, then the same command again".to_owned()),
    };
    Failure::of(code, &error, &next)
}
