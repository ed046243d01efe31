//! `mirror-coordinator seal-key`: words in, lines out. What is done is in the library's `seal_key`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use mirror_coordinator::{
    seal_key::{self, SealKeyError, Seals},
    store::OpenError,
};

use crate::{EXIT_CONFLICT, EXIT_FAILED, Failure, mark, read, say};

/// What `seal-key --help` says first.
pub(crate) const ABOUT: &str = "\
The key that seals upstream passwords, seal.key in the data directory, while no coordinator runs

Store and backups hold upstream passwords sealed; seal.key opens them and stands in no backup. Keep a copy of it elsewhere.
When it leaked: rotate, and give new passwords at the upstreams if store or backups leaked as well. When it is lost and
no copy is left: renew names every password that has to be set again.

  systemctl stop mirror-coordinator
  mirror-coordinator seal-key rotate --config /var/lib/mirror-coordinator/coordinator.toml
  systemctl start mirror-coordinator";

/// The words behind `seal-key`.
#[derive(Debug, Args)]
pub(crate) struct SealKey {
    #[command(subcommand)]
    command: SealKeyCommand,
    /// The configuration file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MIRROR_COORDINATOR_CONFIG",
        default_value = "coordinator.toml"
    )]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum SealKeyCommand {
    /// Say which stored passwords open with the key file; nothing is changed
    Check,
    /// Make a new key and seal every password with it; replicas' secrets change with it
    Rotate {
        /// Take older keys out of the file; passwords in backups from before are lost with them
        #[arg(long)]
        forget_older: bool,
    },
    /// Make a new key file where it was lost; names the passwords to set again
    Renew,
}

/// Does what was asked for, and says it.
pub(crate) fn obey(SealKey { command, config: path }: SealKey) -> Result<(), Failure> {
    let config = read(&path)?;
    let (done, seals) = match command {
        SealKeyCommand::Check => ("", seal_key::check(&config)?),
        SealKeyCommand::Rotate { forget_older } => ("new key: ", seal_key::rotate(&config, forget_older)?),
        SealKeyCommand::Renew => ("new key file: ", seal_key::renew(&config)?),
    };
    say_seals(done, &seals);
    Ok(())
}

fn say_seals(done: &str, seals: &Seals) {
    let Seals { present, older, unreadable, older_keys } = seals;
    say(&format!(
        "{} {done}passwords sealed with the present key: {present}; with older ones: {older}; with none of the file: {}",
        mark(),
        unreadable.len()
    ));
    if *older_keys > 0 {
        say(&format!("Older keys in the file, for backups that were made with them: {older_keys}"));
    }
    for lost in unreadable {
        let seal_key::Unreadable { project, host, first } = lost;
        let flag = if *first {
            "--password-file FILE".to_owned()
        } else {
            format!("--fallback-password-file {host}=FILE")
        };
        say(&format!("Set again: mirrorctl project edit {project} {flag} (for {host})"));
    }
}

impl From<SealKeyError> for Failure {
    fn from(error: SealKeyError) -> Self {
        let (code, next) = match &error {
            SealKeyError::Open(OpenError::Running(_)) => (EXIT_CONFLICT, "stop it first"),
            SealKeyError::NotLost(_) => (EXIT_CONFLICT, "mirror-coordinator seal-key --help"),
            SealKeyError::Key(_) => {
                (EXIT_FAILED, "put the file back, or: mirror-coordinator seal-key --help")
            }
            _ => (EXIT_FAILED, "mend that, then the same command again"),
        };
        Self::of(code, &error, next)
    }
}
