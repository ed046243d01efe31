//! `mirrorctl project`, and the flags by which a project is described.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{ProjectsArg, SelectorArg};

/// `mirrorctl project`.
#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Declare a tree
    Add(Box<AddArgs>),
    /// All projects, or those that fit
    List(ListArgs),
    /// One project: how old its copy is, and all that is set
    Show {
        /// The project
        project: String,
    },
    /// Change what is given and leave the rest
    Edit(Box<EditArgs>),
    /// Give it another name; schedule, runs, history and trees stay
    Rename {
        /// The project, as it is called now
        #[arg(value_name = "OLD")]
        project: String,
        /// What it is to be called
        #[arg(value_name = "NEW")]
        new_name: String,
    },
    /// Go on serving the tree, and work on it no more: no fires, no retries, no alarms; runs only when asked
    Archive {
        /// Which.
        #[command(flatten)]
        projects: ProjectsArg,
        /// Why, for those who wonder
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Work on an archived tree again
    Unarchive(ProjectsArg),
    /// Stop the schedule; running work goes on, fires wait as one run
    #[command(visible_alias = "disable")]
    Pause {
        /// Which.
        #[command(flatten)]
        projects: ProjectsArg,
        /// End the pause by itself: a time, or a span as in 3d
        #[arg(long, value_name = "TIME|SPAN", allow_hyphen_values = true)]
        until: Option<String>,
        /// Why, for those who wonder
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// End a pause
    #[command(visible_alias = "enable")]
    Resume(ProjectsArg),
    /// Start a run now
    Run {
        /// Which.
        #[command(flatten)]
        projects: ProjectsArg,
        /// Follow it, where it is one, until it ends, and exit by its end (`mirrorctl --help`); Ctrl-C stops watching, not the run
        #[arg(short, long)]
        watch: bool,
        /// Only tell what would change; the tree stays as it is
        #[arg(long)]
        dry_run: bool,
        /// First remove what the upstream no longer has, within the delete limit: makes room on a full volume
        #[arg(long)]
        reclaim: bool,
        /// Allow this run so many deletes instead of the limit; void when it has not begun within 24h
        #[arg(long, value_name = "N")]
        allow_deletes: Option<u64>,
    },
    /// Say that there is something new to copy: like run, but it waits while the project is paused
    Push {
        /// The project
        project: String,
    },
    /// Make another agent the origin; the old one stands by
    Promote {
        /// The project
        project: String,
        /// The agent; it must hold the tree
        #[arg(long, value_name = "AGENT")]
        to: String,
        /// Even if the agent is away or lacks the tree that is served now
        #[arg(long)]
        force: bool,
    },
    /// Copy the tree onto an agent that has lost it, from another one of the project instead of the upstream
    Reseed {
        /// The project
        project: String,
        /// The agent that has lost its tree
        #[arg(long, value_name = "AGENT")]
        agent: String,
        /// The agent to copy from; it must be connected and have the tree that is served now
        #[arg(long, value_name = "AGENT")]
        from: String,
        /// Follow it until it ends, and exit by its end (`mirrorctl --help`); Ctrl-C stops watching, not the run
        #[arg(short, long)]
        watch: bool,
    },
    /// Move the tree of one agent to another place on it: copied, compared, then the public link leads there; the old tree
    /// stays
    Move {
        /// The project
        project: String,
        /// The agent whose tree it is
        #[arg(long, value_name = "AGENT")]
        agent: String,
        /// Where to: a root of that agent and a path below it, absent or empty, as in a2:debian
        #[arg(long, value_name = "ROOT:PATH")]
        to: String,
        /// Follow it until it ends, and exit by its end (`mirrorctl --help`); Ctrl-C stops watching, not the run
        #[arg(short, long)]
        watch: bool,
    },
    /// Pull from another of the upstreams, from the next run on
    Switch {
        /// The project
        project: String,
        /// Which: its place as project show counts, its URI, or its host
        #[arg(long, value_name = "N|HOST|URI")]
        to: String,
    },
    /// Look at all that a run needs: paths, options, upstream, room; exits with 1 when a run would fail
    Check {
        /// The project
        project: String,
        /// Also count the upstream's files and bytes, for at most a minute
        #[arg(long)]
        size: bool,
    },
    /// What rsync would be called with on each agent, and where each argument comes from
    Explain {
        /// The project
        project: String,
    },
    /// The next fires of the schedule
    Preview {
        /// The project
        project: String,
        /// How many, 1 to 100
        #[arg(short = 'n', long, default_value_t = 8, value_name = "N",
              value_parser = clap::value_parser!(i32).range(1..=100))]
        count: i32,
    },
    /// Remove the record and the schedule; the tree on the agents' disks stays, or goes to the trash on request
    Delete {
        /// The project
        project: String,
        /// Cancel what is running instead of refusing
        #[arg(long)]
        cancel_running: bool,
        /// Move its tree on each agent to the trash of its root, where the agent's own file has allow_trash = true; it is
        /// removed there after 7 days. An agent that is away does it when it is back
        #[arg(long)]
        tree_to_trash: bool,
    },
}

/// `mirrorctl project list`.
#[derive(Debug, Default, Args)]
pub struct ListArgs {
    /// Those whose labels fit.
    #[command(flatten)]
    pub selector: SelectorArg,
    /// Only projects of this owner; '' is nobody's
    #[arg(long, value_name = "USER")]
    pub owner: Option<String>,
    /// Only projects with a tree on this agent
    #[arg(long, value_name = "AGENT")]
    pub agent: Option<String>,
    /// Only projects that have this host among their upstreams
    #[arg(long, value_name = "HOST")]
    pub upstream: Option<String>,
    /// Only projects that run after this one
    #[arg(long, value_name = "PROJECT")]
    pub after: Option<String>,
    /// Only paused projects
    #[arg(long)]
    pub paused: bool,
    /// Only archived projects
    #[arg(long)]
    pub archived: bool,
    /// By falling names
    #[arg(short, long)]
    pub reverse: bool,
}

/// `mirrorctl project add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Its name: letters, digits and . _ + - (at most 63)
    #[arg(value_name = "NAME")]
    pub name: String,
    /// How it is described.
    #[command(flatten)]
    pub flags: ProjectFlags,
    /// Start paused
    #[arg(long)]
    pub paused: bool,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `mirrorctl project edit`.
#[derive(Debug, Args)]
pub struct EditArgs {
    /// The project
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What changes.
    #[command(flatten)]
    pub flags: ProjectFlags,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What a fire does while a run is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OverlapArg {
    /// Exactly one more run follows.
    BufferOne,
    /// The fire is dropped.
    Skip,
}

/// What happens in the hour that a clock change repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DstOverlapArg {
    /// Fires in the first pass only.
    Once,
    /// Fires in both passes.
    Both,
}

/// The description of a project. Values are checked together, so that all faults are told at once; hence plain texts.
#[derive(Clone, Debug, Default, Args)]
pub struct ProjectFlags {
    /// The upstream, as in rsync://host/module/path
    #[arg(long, value_name = "URI")]
    pub from: Option<String>,
    /// An upstream to switch to when the first one fails: with --marker a run does so by itself, otherwise people do; may
    /// be repeated, in order of preference; a user may stand in it; on edit the given ones replace all, and a single empty one removes all
    #[arg(long, value_name = "URI")]
    pub fallback: Vec<String>,
    /// Where the tree goes: a root of the agent and a path below it, as in a1:debian
    #[arg(long, value_name = "ROOT:PATH")]
    pub to: Option<String>,
    /// A public symbolic link to the tree, which its agents make and keep, as in pub:debian; '' ends that, and leaves it
    #[arg(long, value_name = "ROOT:PATH")]
    pub link: Option<String>,
    /// No upstream: people put the tree on the origin themselves, and a run begins at the replicas
    #[arg(long, conflicts_with_all = ["from", "user", "password_file", "fallback", "fallback_password_file"])]
    pub local: bool,
    /// The agent that pulls from the upstream
    #[arg(long, value_name = "AGENT[=ROOT:PATH]")]
    pub origin: Option<String>,
    /// An agent that stands by as the next origin; may be repeated, in order of preference; on edit the given ones
    /// replace all, and a single empty one removes all
    #[arg(long, value_name = "AGENT[=ROOT:PATH]")]
    pub standby: Vec<String>,
    /// Agents that pull from the origin: one by its name, or all that have labels, as in role=edge,site=north; may be
    /// repeated; on edit the given ones replace all, and a single empty one removes all
    #[arg(long, value_name = "AGENT[=ROOT:PATH]|KEY=VALUE")]
    pub replicas: Vec<String>,
    /// User name at the upstream's rsync daemon; its password is asked for on a terminal
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Read the password from this file; - is standard input, an empty file removes it
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Read the password at the fallbacks of this host from this file; may be repeated; an empty file removes it
    #[arg(long, value_name = "HOST=FILE")]
    pub fallback_password_file: Vec<String>,

    /// Fire at these times, as in 'minute=10 hour=*/6'; fields are year month day week day_of_week hour minute second
    #[arg(long, value_name = "FIELDS", conflicts_with_all = ["crontab", "every", "manual"], help_heading = "Schedule")]
    pub cron: Option<String>,
    /// Fire at these times, as in '10 */6 * * *' or @daily
    #[arg(long, value_name = "LINE", conflicts_with_all = ["every", "manual"], help_heading = "Schedule")]
    pub crontab: Option<String>,
    /// Fire this long after the last run ended, as in 6h; or hourly, daily, weekly, monthly, yearly: once in each, at the
    /// project's own moment
    #[arg(long, value_name = "SPAN|NAME", conflicts_with = "manual", help_heading = "Schedule")]
    pub every: Option<String>,
    /// Run only when asked
    #[arg(long, help_heading = "Schedule")]
    pub manual: bool,
    /// Run whenever this project has made a new version of its tree, besides the schedule; may be repeated; on edit the
    /// given ones replace all, and a single empty one removes all
    #[arg(long, value_name = "PROJECT", help_heading = "Schedule")]
    pub after: Vec<String>,
    /// IANA name of the schedule's zone [default: UTC]
    #[arg(long, value_name = "ZONE", help_heading = "Schedule")]
    pub time_zone: Option<String>,
    /// No fire before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = "Schedule")]
    pub start: Option<String>,
    /// No fire after this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = "Schedule")]
    pub end: Option<String>,
    /// Fire at the project's own moment within this after each time, so that not all projects begin together: 20m, or
    /// period for all of the time up to the next; none fires at the times themselves [default: period with --every
    /// daily and its like, otherwise none]
    #[arg(long, value_name = "SPAN|period|none", help_heading = "Schedule")]
    pub spread: Option<String>,
    /// Delay each fire by a random time up to this
    #[arg(long, value_name = "SPAN", help_heading = "Schedule")]
    pub jitter: Option<String>,
    /// What a fire does while a run is going [default: buffer-one]
    #[arg(long, value_enum, help_heading = "Schedule")]
    pub overlap: Option<OverlapArg>,
    /// How late a missed fire may still start [default: one period, 6h to 7d]
    #[arg(long, value_name = "SPAN", help_heading = "Schedule")]
    pub catch_up: Option<String>,
    /// Start runs that nobody asked for only in this time of day, as in 22:00-06:00 or '22:00-06:00 sat,sun'; may be
    /// repeated; on edit the given ones replace all, and a single empty one removes all
    #[arg(long = "window", value_name = "START-END", help_heading = "Schedule")]
    pub windows: Vec<String>,
    /// What happens in the hour that clocks repeat [default: once for fixed hours, otherwise both]
    #[arg(long, value_enum, help_heading = "Schedule")]
    pub dst_overlap: Option<DstOverlapArg>,

    /// A word for rsync, as in --rsync-option=--exclude=/iso/; may be repeated, order is kept; on edit the given ones
    /// replace all, and a single empty one removes all
    #[arg(long = "rsync-option", value_name = "WORD", allow_hyphen_values = true, help_heading = "rsync")]
    pub rsync_options: Vec<String>,
    /// A word in place of our default flags, in front of the other words, as in --rsync-default=-avH; may be repeated,
    /// order is kept, '' is none at all; on edit the given ones replace all (--no-default-options=false: ours again)
    #[arg(long = "rsync-default", value_name = "WORD", allow_hyphen_values = true, help_heading = "rsync")]
    pub rsync_defaults: Vec<String>,
    /// What a run deletes of what the upstream no longer has, in rsync's words: delay, after, during or excluded; none
    /// deletes nothing, and needs --rsync-default or --no-default-options; default takes it back [default: delay, also
    /// with --rsync-default; none with --no-default-options]
    #[arg(long = "rsync-delete", value_name = "MODE", allow_hyphen_values = true, help_heading = "rsync")]
    pub rsync_delete: Option<String>,
    /// The --rsync-option words replace the default flags and the default deletion instead of following them
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true,
          help_heading = "rsync")]
    pub no_default_options: Option<bool>,
    /// rsync's connect timeout [default: 60s]
    #[arg(long, value_name = "SPAN", help_heading = "rsync")]
    pub connect_timeout: Option<String>,
    /// rsync's own timeout of silence [default: 10m]
    #[arg(long, value_name = "SPAN", help_heading = "rsync")]
    pub io_timeout: Option<String>,
    /// End an attempt that moves nothing for this long [default: 30m]
    #[arg(long, value_name = "SPAN", help_heading = "rsync")]
    pub stall_timeout: Option<String>,
    /// End an attempt that takes longer [default: 48h; the first copy: none]
    #[arg(long, value_name = "SPAN", help_heading = "rsync")]
    pub run_timeout: Option<String>,
    /// Most KiB/s of a run; 0 is no limit [default: 0]
    #[arg(long, value_name = "KIB", help_heading = "rsync")]
    pub bandwidth: Option<String>,

    /// Hold a run that wants to delete more files [default: 10 % of the files, at least 500]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_delete: Option<String>,
    /// Hold a tree that has lost so many percent of its files or bytes, 1 to 100 [default: 30; 100: never]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub shrink_percent: Option<String>,
    /// A path that must exist at the upstream, as in dists/stable/Release; may be repeated, '' removes all
    #[arg(long = "sentinel", value_name = "PATH", help_heading = "Limits")]
    pub sentinels: Vec<String>,
    /// The file that tells how new a tree is, as in debian_trace:project/trace/ftp.example.net: nothing older than what is served
    /// is pulled, and a run that fails at one upstream asks the next; kinds: unix_time, http_date, iso_date,
    /// debian_release, debian_trace, manjaro_state, repomd, mtime; '' removes it
    #[arg(long, value_name = "KIND:PATH", help_heading = "Limits")]
    pub marker: Option<String>,
    /// The most bytes that the tree may have; 0: no limit
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub quota: Option<String>,
    /// Take a partial transfer (rsync exit 23) for a success, and why; '' ends it
    #[arg(long, value_name = "REASON", help_heading = "Limits")]
    pub partial_is_success: Option<String>,
    /// Tries in one run after network failures, the first included [default: 4]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub retry_attempts: Option<String>,
    /// Pause before the second try; it grows with each [default: 5m]
    #[arg(long, value_name = "SPAN", help_heading = "Limits")]
    pub retry_backoff: Option<String>,

    /// Replicas of the project that pull at once; 0 is no limit of its own [default: 0]
    #[arg(long, value_name = "N", help_heading = "Replicas")]
    pub max_parallel: Option<String>,
    /// Close a run that still propagates after this; who lacks its tree catches up [default: 24h]
    #[arg(long, value_name = "SPAN", help_heading = "Replicas")]
    pub propagation_timeout: Option<String>,
    /// How long the origin waits for replicas that still pull what it is about to change [default: 1h]
    #[arg(long, value_name = "SPAN", help_heading = "Replicas")]
    pub drain_timeout: Option<String>,

    /// A label; may be repeated; KEY- removes one on edit
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", help_heading = "For people")]
    pub labels: Vec<String>,
    /// A name for people
    #[arg(long, value_name = "TEXT", help_heading = "For people")]
    pub display_name: Option<String>,
    /// The user who may run, pause, resume, cancel and approve without being an operator; '' is nobody
    #[arg(long, value_name = "USER", help_heading = "For people")]
    pub owner: Option<String>,
}
