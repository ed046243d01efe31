//! `mirrorctl import`: other systems' files as a manifest.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What all imports share.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// A directory of the old host and the agent's root that takes its place; may be repeated, the longest counts
    #[arg(long = "map-root", value_name = "OLD=ROOT[:PATH]")]
    pub map_roots: Vec<String>,
    /// The agent that pulls from the upstreams
    #[arg(long, value_name = "AGENT")]
    pub origin: Option<String>,
    /// Where passwords go, one file of mode 0600 each; made with mode 0700, nothing in it is overwritten
    #[arg(long, value_name = "DIR")]
    pub secrets_dir: Option<PathBuf>,
    /// The zone of the old host's clock, for times that name none [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
}

/// `mirrorctl import`. The manifest goes to standard output, TOML or with `-o json` JSON; every decision, and what was
/// left out, to standard error.
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// The mirror syncing API's JSON: one project or the list that it answers
    Seed {
        /// The file, - is standard input
        file: PathBuf,
        /// What all imports share.
        #[command(flatten)]
        args: ImportArgs,
    },
    /// tunasync's worker.conf, with what it includes
    Tunasync {
        /// The file, - is standard input
        file: PathBuf,
        /// What all imports share.
        #[command(flatten)]
        args: ImportArgs,
    },
    /// A crontab's lines of rsync
    Crontab {
        /// The file, - is standard input
        file: PathBuf,
        /// A user stands behind the five fields, as in /etc/crontab and /etc/cron.d
        #[arg(long)]
        system: bool,
        /// What all imports share.
        #[command(flatten)]
        args: ImportArgs,
    },
}
