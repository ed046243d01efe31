//! Which projects or agents a command is about: by their names, or by their labels.

use clap::Args;

/// By their labels.
#[derive(Clone, Debug, Default, Args)]
pub struct SelectorArg {
    /// Only those whose labels fit: tier=1, site!=north, 'role in (edge,hub)'; with commas in between all must hold; may
    /// be repeated
    #[arg(id = "selector", short = 'l', long = "selector", visible_alias = "label", value_name = "SELECTOR")]
    pub terms: Vec<String>,
}

/// Projects that a command acts on. More than one are told and asked for first.
#[derive(Clone, Debug, Default, Args)]
pub struct ProjectsArg {
    /// The project, or several
    #[arg(
        id = "project",
        value_name = "PROJECT",
        required_unless_present = "selector",
        conflicts_with = "selector"
    )]
    pub names: Vec<String>,
    /// Those whose labels fit.
    #[command(flatten)]
    pub selector: SelectorArg,
}

/// Agents that a command acts on. More than one are told and asked for first.
#[derive(Clone, Debug, Default, Args)]
pub struct AgentsArg {
    /// The agent, or several
    #[arg(
        id = "agent",
        value_name = "AGENT",
        required_unless_present = "selector",
        conflicts_with = "selector"
    )]
    pub names: Vec<String>,
    /// Those whose labels fit.
    #[command(flatten)]
    pub selector: SelectorArg,
}
