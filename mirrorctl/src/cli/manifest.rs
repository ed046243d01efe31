//! `mirrorctl plan`, `apply` and `export`: projects as files.

use std::path::PathBuf;

use clap::Args;

use super::SelectorArg;

/// What `plan` and `apply` share.
#[derive(Clone, Debug, Args)]
pub struct ManifestArgs {
    /// The manifest, TOML or JSON; a directory is all its .toml and .json files together, - is standard input
    #[arg(short, long, value_name = "FILE|DIR|-")]
    pub file: PathBuf,
    /// Remove projects that are not in it: records and schedules, never trees
    #[arg(long)]
    pub prune: bool,
    /// New projects start paused
    #[arg(long)]
    pub paused: bool,
}

/// `mirrorctl plan`.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// What is compared.
    #[command(flatten)]
    pub manifest: ManifestArgs,
    /// Exit 1 when the fleet is not as declared
    #[arg(long)]
    pub exit_code: bool,
}

/// `mirrorctl export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// The projects [default: all]
    #[arg(value_name = "PROJECT", conflicts_with = "selector")]
    pub projects: Vec<String>,
    /// Those whose labels fit.
    #[command(flatten)]
    pub selector: SelectorArg,
}
