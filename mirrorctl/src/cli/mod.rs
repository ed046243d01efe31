//! What can be typed. The help texts are the manual: `mirrorctl man` prints these.

mod import;
mod manifest;
mod people;
mod project;
mod select;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use import::{ImportArgs, ImportCommand};
pub use manifest::{ExportArgs, ManifestArgs, PlanArgs};
pub use people::{CertCommand, LoginArgs, RoleArg, TokenCommand, UserCommand};
pub use project::{AddArgs, DstOverlapArg, EditArgs, ListArgs, OverlapArg, ProjectCommand, ProjectFlags};
pub use select::{AgentsArg, ProjectsArg, SelectorArg};

use crate::term::ColorChoice;

/// How long an answer may take where people say nothing.
pub const TIMEOUT_DEFAULT: &str = "30s";

/// Runs the mirror fleet: projects, their runs, and the agents that hold the trees.
#[derive(Debug, Parser)]
#[command(
    name = "mirrorctl",
    version,
    after_help = crate::exit::HELP,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Flags of all commands.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people, 80 columns; of export and import a manifest in TOML (toml does as well there).
    #[default]
    #[value(alias = "toml")]
    Table,
    /// For people, all columns.
    Wide,
    /// One object; watches print one object a line. Field names are the API's.
    Json,
    /// The same object in YAML; watches print one document after the other.
    Yaml,
    /// Names only, one a line, as they can be typed.
    Name,
}

/// Flags of all commands.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Flags of all commands")]
pub struct Global {
    /// How the answer is printed
    #[arg(short, long, global = true, value_enum, default_value_t, env = "MIRRORCTL_OUTPUT")]
    pub output: Format,
    /// Times as RFC 3339 UTC instead of ages
    #[arg(long, global = true)]
    pub absolute: bool,
    /// When to use colours; NO_COLOR and TERM=dumb are heeded
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: ColorChoice,
    /// Say nothing about what was changed, and no hints
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Answer questions with yes, names included
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// How long to wait for an answer, as in 30s
    #[arg(long, global = true, default_value = TIMEOUT_DEFAULT, env = "MIRRORCTL_TIMEOUT", value_name = "SPAN")]
    pub timeout: String,
    /// The file with the contexts [default: ~/.config/mirrorctl/config.toml]
    #[arg(long, global = true, env = "MIRRORCTL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The context to use instead of the current one
    #[arg(long, global = true, env = "MIRRORCTL_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// The coordinator, host:port, instead of the context's
    #[arg(long, global = true, env = "MIRRORCTL_SERVER", value_name = "HOST:PORT")]
    pub server: Option<String>,
    /// The fleet's CA certificates, PEM, instead of the context's
    #[arg(long, global = true, env = "MIRRORCTL_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Your certificate, PEM, instead of the context's
    #[arg(long, global = true, env = "MIRRORCTL_CERTIFICATE", value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// Your private key, PEM, instead of the context's
    #[arg(long, global = true, env = "MIRRORCTL_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The coordinator's own socket, on its host, as admin: the way back in when all else is lost
    #[arg(long, global = true, env = "MIRRORCTL_SOCKET", value_name = "FILE")]
    pub socket: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Declare trees, change them and start their runs
    #[command(subcommand)]
    Project(ProjectCommand),
    /// See, follow and end runs
    #[command(subcommand)]
    Run(RunCommand),
    /// See agents and say what they may do
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Secrets by which hosts join the fleet
    #[command(subcommand)]
    JoinToken(JoinTokenCommand),
    /// Secrets by which release scripts and webhooks push one project
    #[command(subcommand)]
    PushToken(PushTokenCommand),
    /// What the coordinator does by the clock for itself: backups, pruning, and the like
    #[command(subcommand)]
    Housekeeping(HousekeepingCommand),
    /// The hosts that origins pull from, and how much of them the fleet may take
    #[command(subcommand)]
    Upstream(UpstreamCommand),
    /// What a manifest would change: field by field, and every fault; nothing is changed
    Plan(PlanArgs),
    /// Make the projects what a manifest says, or refuse all of it
    ///
    /// What the fleet itself makes impossible after it was accepted is left out and named. The rest is done, and it ends
    /// with 5.
    Apply(ManifestArgs),
    /// Print projects as a manifest, without anything secret: to apply it changes nothing
    Export(ExportArgs),
    /// Print the JSON Schema of manifests, for editors; needs no coordinator
    Schema,
    /// What needs you, how old the trees are, and what runs
    Status {
        /// Those whose labels fit.
        #[command(flatten)]
        selector: SelectorArg,
        /// All projects, the calm ones too
        #[arg(long)]
        all: bool,
        /// Exit 1 when not all projects are fresh
        #[arg(long)]
        exit_code: bool,
    },
    /// Why a project is not running now
    Why {
        /// The project
        project: String,
    },
    /// Start nothing new anywhere until thaw; running work goes on
    Freeze {
        /// Why, for those who wonder
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// End a freeze
    Thaw,
    /// Take a backup of the coordinator's store, for `mirror-coordinator restore`
    Backup {
        /// The file to write; one that is there is replaced when the new one is whole
        file: PathBuf,
    },
    /// Who changed what, old and new, and who was refused; newest last
    Audit(AuditArgs),
    /// Exchange your password for a token, which goes into the context
    Login(LoginArgs),
    /// Make the context's token useless
    Logout,
    /// Who you are to the coordinator, by what, and until when
    Whoami,
    /// People and programs that may use the fleet, and what they may do
    #[command(subcommand)]
    User(UserCommand),
    /// Tokens that are still good: what people logged in by
    #[command(subcommand)]
    Token(TokenCommand),
    /// Your client certificate
    #[command(subcommand)]
    Cert(CertCommand),
    /// Try out schedules; needs no coordinator
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Which coordinator is asked, and as whom
    #[command(subcommand)]
    Context(ContextCommand),
    /// Other systems' mirrors as a manifest for plan and apply; changes nothing, needs no coordinator
    #[command(subcommand)]
    Import(ImportCommand),
    /// Print the completion script of a shell: words, and names from the fleet
    ///
    /// bash: source <(mirrorctl completion bash); zsh: source <(mirrorctl completion zsh); fish: mirrorctl completion
    /// fish | source. Names are asked of the coordinator for at most a second; without one there are none.
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual, or write a page for each command
    Man {
        /// Write the pages into this directory instead
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// `mirrorctl run`. A RUN is a project (its newest run), the first figures of a run's id, PROJECT/ID, or the whole
/// name.
#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// Runs, newest first: of a project, or of several together
    List {
        /// Whose.
        #[command(flatten)]
        projects: ProjectsArg,
        /// How many, 1 to 1000
        #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000))]
        page_size: i32,
        /// Go on where the last page ended
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TOKEN")]
        page_token: String,
    },
    /// One run with its attempts
    Show {
        /// A project (its newest run), a run's id, PROJECT/ID or a run's whole name
        run: String,
    },
    /// Follow a run until it ends, and exit by its end (`mirrorctl --help`); Ctrl-C stops watching, not the run
    Watch {
        /// A project (its newest run), a run's id, PROJECT/ID or a run's whole name
        run: String,
    },
    /// rsync's own words
    Log {
        /// A project (its newest run), a run's id, PROJECT/ID or a run's whole name
        run: String,
        /// Go on with new lines until the attempt ends
        #[arg(short, long)]
        follow: bool,
        /// Only the last lines
        #[arg(short = 'n', long, value_name = "N")]
        lines: Option<usize>,
        /// Which attempt [default: the newest]
        #[arg(long, value_name = "N")]
        attempt: Option<u32>,
    },
    /// Allow once, for 24h, what stopped a held run, and no more than that
    Approve {
        /// A project (its newest hold), a run's id, PROJECT/ID or a run's whole name
        run: String,
        /// Why, for the audit log
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// End a run: what waits is dropped, what runs is stopped
    Cancel {
        /// A project (its newest run), a run's id, PROJECT/ID or a run's whole name
        run: String,
    },
}

/// `mirrorctl agent`.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// All agents, or those that fit
    List(AgentListArgs),
    /// One agent
    Show {
        /// The agent
        agent: String,
    },
    /// Declare an agent before its host joins: projects may name it and select it at once, and wait for it
    ///
    /// Its host joins by a token for exactly this name: mirrorctl join-token create --name AGENT
    Create {
        /// The agent
        agent: String,
        /// Its labels and caps.
        #[command(flatten)]
        flags: AgentFlags,
        /// Check everything, change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Set its labels and caps; projects that select agents by labels follow at once, what runs goes on
    Set {
        /// The agent
        agent: String,
        /// Its labels and caps.
        #[command(flatten)]
        flags: AgentFlags,
        /// Check everything, change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Give it no new attempts; what runs goes on
    Drain(AgentsArg),
    /// End a drain
    Undrain(AgentsArg),
    /// Cut its session and refuse its certificate for ever
    Revoke {
        /// The agent
        agent: String,
        /// Why
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Put one agent in another's place in all projects: a disk array died, or a new machine takes over
    ///
    /// NEW is enrolled as any other agent, under a name of its own. Every project that names OLD names NEW, OLD's labels
    /// go over, and OLD is drained: all of it or nothing. Where OLD was the origin, the tree is copied from another
    /// agent that has it; what is served stays what it is, and no tree is removed anywhere.
    Replace {
        /// The agent whose place is taken
        old: String,
        /// The agent that takes it; it must be here, and of none of OLD's projects
        new: String,
        /// Tell what would change, change nothing
        #[arg(long)]
        dry_run: bool,
        /// Copy no tree from another agent: the next run asks the upstream for all of it
        #[arg(long)]
        no_reseed: bool,
        /// Refuse OLD's certificate for ever instead of draining it
        #[arg(long)]
        revoke: bool,
        /// Why it is revoked
        #[arg(long, default_value = "", hide_default_value = true, requires = "revoke")]
        reason: String,
    },
    /// Remove the record of an agent that is revoked, or declared and never joined
    Delete {
        /// The agent
        agent: String,
    },
}

/// `mirrorctl agent list`.
#[derive(Clone, Debug, Default, Args)]
pub struct AgentListArgs {
    /// Those whose labels fit.
    #[command(flatten)]
    pub selector: SelectorArg,
    /// Only connected agents; =false: only those that are away
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub connected: Option<bool>,
    /// Only agents that are being drained; =false: only the others
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub draining: Option<bool>,
    /// Only revoked agents; =false: only the others
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub revoked: Option<bool>,
    /// Only agents that are declared and whose hosts never joined; =false: only the others
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub declared_only: Option<bool>,
    /// By falling names
    #[arg(short, long)]
    pub reverse: bool,
}

/// Labels and caps of an agent. A cap holds beside the agent's own file: the stricter of the two.
#[derive(Clone, Debug, Default, Args)]
pub struct AgentFlags {
    /// A label; may be repeated; KEY- removes one
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Attempts on it at once, 1 to 64; 0 is the fleet's limit; its own file may allow less
    #[arg(long, value_name = "N")]
    pub max_running: Option<u32>,
    /// Replicas that pull from it at once, 1 to 1000; 0 is the fleet's limit
    #[arg(long, value_name = "N")]
    pub max_serving: Option<u32>,
    /// What one attempt on it may take, KiB/s; 0 is no limit; a project or its own file may allow less
    #[arg(long, value_name = "KIB")]
    pub bandwidth: Option<u64>,
}

/// `mirrorctl housekeeping`.
#[derive(Debug, Subcommand)]
pub enum HousekeepingCommand {
    /// Every job: when it runs, and how it went last
    List,
    /// Run a job now, beside its schedule; exits 1 when it fails
    Run {
        /// The job, from housekeeping list
        job: String,
    },
}

/// `mirrorctl join-token`.
#[derive(Debug, Subcommand)]
pub enum JoinTokenCommand {
    /// Make a secret by which a host joins; it is shown once
    Create {
        /// The one agent name it is good for
        #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
        name: String,
        /// Names it is good for, as in edge*; instead of --name
        #[arg(long, default_value = "", hide_default_value = true, value_name = "PATTERN")]
        pattern: String,
        /// How many hosts may join by it, 1 to 1000; more than one needs --pattern
        #[arg(long, default_value_t = 1, value_name = "N")]
        uses: u32,
        /// How long it is good for, 1m to 30d [default: 10m]
        #[arg(long, value_name = "SPAN")]
        ttl: Option<String>,
        /// A network that hosts may join from, as in 192.0.2.0/24, or one address; may be repeated [default: anywhere]
        #[arg(long = "cidr", value_name = "CIDR")]
        cidrs: Vec<String>,
    },
    /// Tokens that can still be used
    List,
    /// Make a token useless
    Delete {
        /// The token's id, from join-token list
        token: String,
    },
}

/// `mirrorctl push-token`.
#[derive(Debug, Subcommand)]
pub enum PushTokenCommand {
    /// Make a secret by which a program pushes one project and does nothing else; it is shown once
    Create {
        /// The project
        project: String,
        /// How long it is good for, 1m to 400d [default: until it is deleted]
        #[arg(long, value_name = "SPAN")]
        ttl: Option<String>,
        /// Who gets it, to tell tokens apart
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        note: String,
    },
    /// Tokens that are good, with their last use; never the secrets
    List {
        /// Of this project alone
        project: Option<String>,
    },
    /// Make a token useless
    Delete {
        /// The token's id, from push-token list
        token: String,
    },
}

/// `mirrorctl upstream`.
#[derive(Debug, Subcommand)]
pub enum UpstreamCommand {
    /// Every host that a project names or that has limits of its own
    List,
    /// Set the limits of one host, over the whole fleet
    Set {
        /// The host, as in URIs
        host: String,
        /// Connections at once, 1 to 100; 0 is the fleet's default
        #[arg(long, value_name = "N")]
        slots: Option<u32>,
        /// Pause between two starts, 0s to 1h; `default` is the fleet's
        #[arg(long, value_name = "SPAN")]
        spacing: Option<String>,
    },
    /// Put one upstream in the place of another in all projects
    Replace {
        /// What is replaced: a host, HOST:PORT, or the beginning of URIs as in rsync://ftp.example.org/pub
        old: String,
        /// What takes its place, in the same forms
        new: String,
        /// Check everything, change nothing
        #[arg(long)]
        dry_run: bool,
        /// Drop stored passwords, which are not taken along to another host, instead of refusing
        #[arg(long)]
        drop_passwords: bool,
    },
}

/// `mirrorctl audit`.
#[derive(Debug, Default, Args)]
pub struct AuditArgs {
    /// Only what this user did
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Only what this agent did, and what was done to it
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Only what concerns this, as in projects/debian, users/maria or fleet; its runs are part of a project
    #[arg(long, value_name = "RESOURCE")]
    pub resource: Option<String>,
    /// Only this action, as in PauseProject or EnrollmentService.Enroll
    #[arg(long, value_name = "ACTION")]
    pub action: Option<String>,
    /// Only what was refused
    #[arg(long)]
    pub refused: bool,
    /// Nothing before this time, or from longer ago than this, as in 2d
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Nothing from this time on, or from less long ago than this
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    pub until: Option<String>,
    /// Only the newest so many [default: 50; with --since all]
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<usize>,
    /// Go on with what comes, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
}

/// `mirrorctl schedule`.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// The next fires of a schedule that is only being thought about
    Next(Box<NextArgs>),
    /// How a time is read that is given to --start, --end or --until
    ParseDate {
        /// The time
        #[arg(allow_hyphen_values = true)]
        text: String,
        /// The zone of a time without an offset [default: UTC]
        #[arg(long, value_name = "ZONE")]
        time_zone: Option<String>,
    },
}

/// `mirrorctl schedule next`.
#[derive(Debug, Default, Args)]
pub struct NextArgs {
    /// One cron field, as in minute='*/5'; may be repeated
    #[arg(long = "field", value_name = "NAME=EXPRESSION")]
    pub fields: Vec<String>,
    /// All cron fields in one, as in 'minute=10 hour=*/6'
    #[arg(long, value_name = "FIELDS", conflicts_with_all = ["fields", "crontab", "every"])]
    pub cron: Option<String>,
    /// A crontab line's five fields, or @daily and its like
    #[arg(long, value_name = "LINE", conflicts_with_all = ["fields", "every"])]
    pub crontab: Option<String>,
    /// A fixed distance, as in 6h; or hourly, daily, weekly, monthly, yearly
    #[arg(long, value_name = "SPAN|NAME", conflicts_with = "fields")]
    pub every: Option<String>,
    /// IANA name of the zone [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// No fire before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub start: Option<String>,
    /// No fire after this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub end: Option<String>,
    /// Count from this time instead of the present
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub now: Option<String>,
    /// How many fires, 1 to 1000
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub count: u16,
    /// What happens in the hour that clocks repeat
    #[arg(long, value_enum)]
    pub dst_overlap: Option<DstOverlapArg>,
}

/// `mirrorctl context`.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// All contexts
    List,
    /// Make another context the current one
    Use {
        /// The context
        name: String,
    },
    /// The context in use, as it results from file, flags and environment
    Show,
}
