//! `mirror-coordinator`: the command line of the coordinator. Everything it does is in the library.

mod ca_command;
mod seal_key_command;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use mirror_coordinator::{
    Chain, Coordinator, Handle, StartError,
    config::{self, Config, ConfigError, Overrides},
    init::{InitError, Made, NewFleet, init},
    offline::{self, OfflineError, Restored},
    store::{OpenError, StoreError},
    telemetry,
    user_certificate::{UserCertificateError, user_certificate},
};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What `--help` says after the options: the codes of document "experience", as far as this program uses them.
const EXIT_CODES: &str = "Exit codes:
  0   done
  1   stopped by a fault of this host: files, disk, CA
  2   bad input: command line, environment, coordinator.toml; nothing was done
  5   conflict: the folder is not empty, or another coordinator runs on it
  6   an address is taken or not there: try again
  70  a bug of ours; the log says where";

/// Bad input.
const EXIT_INPUT: u8 = 2;
/// Something else is there.
const EXIT_CONFLICT: u8 = 5;
/// Something is not there (any more, or yet).
const EXIT_AGAIN: u8 = 6;
/// Any other failure.
const EXIT_FAILED: u8 = 1;

/// Holds the schedule of a mirror fleet, decides, and sends assignments to agents.
#[derive(Debug, Parser)]
#[command(name = "mirror-coordinator", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new fleet: configuration, CA, store, and the first admin's context for mirrorctl
    #[command(after_help = EXIT_CODES)]
    Init(Init),
    /// Run the coordinator until SIGTERM (stops in order) or SIGINT; SIGHUP reads certificates anew
    #[command(after_help = EXIT_CODES)]
    Run(Run),
    /// Write a backup of the store to a file while no coordinator runs; one that runs makes its own every day
    #[command(after_help = EXIT_CODES)]
    Backup(File),
    /// Put a backup in the place of the store, which is kept aside, while no coordinator runs
    #[command(after_help = EXIT_CODES)]
    Restore(File),
    /// Write all of the store to a file, to move it to another host, while no coordinator runs; a backup is the same
    #[command(after_help = EXIT_CODES)]
    Export(File),
    /// Make the store of an export where there is none, while no coordinator runs
    #[command(after_help = EXIT_CODES)]
    Import(Import),
    /// Write the store's file anew without what is no longer in it, while no coordinator runs; agents notice nothing
    #[command(after_help = EXIT_CODES)]
    Compact(Offline),
    /// Break glass: a new certificate for a user whose own has ended or is lost, while no coordinator runs
    #[command(after_help = EXIT_CODES, long_about = ABOUT_USER_CERTIFICATE)]
    UserCertificate(UserCertificate),
    /// The fleet's CA: which there are, and how one replaces the other
    #[command(subcommand, long_about = ca_command::ABOUT)]
    Ca(ca_command::Ca),
    /// The key that seals upstream passwords: look, change it, or make a new one where it was lost
    #[command(after_help = EXIT_CODES, long_about = seal_key_command::ABOUT)]
    SealKey(seal_key_command::SealKey),
}

#[derive(Debug, Args)]
struct Init {
    /// Folder to make; may exist if it is empty
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_dir: PathBuf,
    /// The fleet's name in every identity, as in mirror.example.org
    #[arg(long, value_name = "NAME")]
    trust_domain: String,
    /// Names and addresses under which agents and users dial [default: host name and listen address]
    #[arg(long, value_name = "NAME,IP", value_delimiter = ',')]
    server_name: Vec<String>,
    /// Where agents and users dial
    #[arg(long, value_name = "ADDRESS:PORT", default_value = ":7443")]
    grpc_listen: String,
    /// Where probes ask, in plaintext
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7480")]
    http_listen: String,
    /// The first admin's name
    #[arg(long, value_name = "NAME", default_value = "admin")]
    admin: String,
    /// Set up an agent on this host too, in the folder `agent`; it needs no join token
    #[arg(long)]
    with_agent: bool,
    /// A folder below which that agent may hold trees; may be given several times
    #[arg(long, value_name = "NAME=DIR", default_value = "a1=/srv/mirror", requires = "with_agent")]
    root: Vec<String>,
}

#[derive(Debug, Args)]
struct Run {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "MIRROR_COORDINATOR_CONFIG", default_value = "coordinator.toml")]
    config: PathBuf,
    /// Check the configuration, print every fault, and end
    #[arg(long)]
    check_config: bool,
    #[command(flatten)]
    overrides: Overrides,
}

#[derive(Debug, Args)]
struct File {
    /// The backup's file; backup replaces one that is there in one step
    file: PathBuf,
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "MIRROR_COORDINATOR_CONFIG", default_value = "coordinator.toml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Import {
    /// The export's file, or a backup's
    file: PathBuf,
    /// Replace the store that is there, which is kept aside
    #[arg(long)]
    replace: bool,
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "MIRROR_COORDINATOR_CONFIG", default_value = "coordinator.toml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Offline {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "MIRROR_COORDINATOR_CONFIG", default_value = "coordinator.toml")]
    config: PathBuf,
}

/// What `user-certificate --help` says first.
const ABOUT_USER_CERTIFICATE: &str = "\
Break glass: a new certificate for a user whose own has ended or is lost, while no coordinator runs

Users' certificates live 90 days. Whoever may read the coordinator's data directory may issue one: on its host, as its \
user, with the coordinator stopped (what agents run goes on meanwhile). The new folder holds key, certificate, CAs and \
mirrorctl.toml; move it to whom it is for. Certificates that the user has already stay as good as they were.

  systemctl stop mirror-coordinator
  mirror-coordinator user-certificate --config /var/lib/mirror-coordinator/coordinator.toml --user admin --out admin-new
  systemctl start mirror-coordinator
  mirrorctl --config admin-new/mirrorctl.toml status";

#[derive(Debug, Args)]
struct UserCertificate {
    /// The user, as the fleet knows it
    #[arg(long, value_name = "NAME", default_value = "admin")]
    user: String,
    /// Folder to make, for key, certificate and mirrorctl.toml
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "MIRROR_COORDINATOR_CONFIG", default_value = "coordinator.toml")]
    config: PathBuf,
}

/// What a person reads when something did not work: what, each fault, what next.
struct Failure {
    code: u8,
    what: String,
    faults: Vec<(String, String)>,
    next: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = mirror_certs::make_undumpable() {
        let what = format!("core files of this process cannot be switched off: {error}");
        failed(EXIT_FAILED, what, "allow it prctl(2) and setrlimit(2)").print();
        return ExitCode::from(EXIT_FAILED);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(execute(cli.command));
            // Everything was ended in order. What still waits for a slow disk must not hold up the end.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => {
            Err(failed(EXIT_FAILED, format!("the runtime does not start: {error}"), "free some memory"))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}

async fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::SealKey(wish) => seal_key_command::obey(wish),
        Command::Init(wish) => {
            let wish = NewFleet::from(wish);
            let made = init(&wish).await.map_err(Failure::from)?;
            let roots = &wish.agent_roots;
            say_made(&made, roots);
            Ok(())
        }
        Command::Run(run) => run_coordinator(run).await,
        Command::Backup(File { file, config }) | Command::Export(File { file, config }) => {
            let made = offline::backup(&read(&config)?, &file).map_err(Failure::from)?;
            say(&format!("{} {} entries, {} bytes in {}", mark(), made.entries, made.bytes, file.display()));
            Ok(())
        }
        Command::Restore(File { file, config: path }) => {
            let done = offline::restore(&read(&path)?, &file).map_err(Failure::from)?;
            say_put_in_place(&done, &file, &path);
            Ok(())
        }
        Command::Import(Import { file, replace, config: path }) => {
            let done = offline::import(&read(&path)?, &file, replace).map_err(Failure::from)?;
            say_put_in_place(&done, &file, &path);
            Ok(())
        }
        Command::Compact(Offline { config: path }) => {
            let done = offline::compact(&read(&path)?).map_err(Failure::from)?;
            say(&format!("{} the store's file had {} bytes and has {}", mark(), done.before, done.after));
            say(&format!("Next: mirror-coordinator run --config {}", path.display()));
            Ok(())
        }
        Command::Ca(command) => ca_command::execute(command),
        Command::UserCertificate(UserCertificate { user, out, config: path }) => {
            let made = user_certificate(&read(&path)?, &user, &out).map_err(Failure::from)?;
            say(&format!(
                "{} certificate for users/{user}, valid until {}",
                mark(),
                made.until.format("%Y-%m-%d")
            ));
            say(&format!("Next: mirror-coordinator run --config {}", path.display()));
            say(&format!("Then: mirrorctl --config {} status", made.file.display()));
            Ok(())
        }
    }
}

fn say_put_in_place(done: &Restored, file: &std::path::Path, config: &std::path::Path) {
    say(&format!("{} {} entries of {} are in place", mark(), done.report.entries, file.display()));
    if let Some(aside) = &done.aside {
        say(&format!("The store that was there is kept in {}", aside.display()));
    }
    if done.same {
        say("It held the same: agents notice nothing");
    }
    say(&format!("Next: mirror-coordinator run --config {}", config.display()));
}

fn read(path: &std::path::Path) -> Result<Config, Failure> {
    config::load(Some(path), &Overrides::default()).map_err(|error| Failure::of_config(&error, path))
}

async fn run_coordinator(run: Run) -> Result<(), Failure> {
    let load = || {
        config::load(Some(&run.config), &run.overrides)
            .map_err(|error| Failure::of_config(&error, &run.config))
    };
    let config = load()?;
    if run.check_config {
        say(&format!("{} {} is good", mark(), run.config.display()));
        return Ok(());
    }
    let telemetry = telemetry::start(&config).map_err(|error| {
        failed(EXIT_FAILED, Chain(&error).to_string(), "mirror-coordinator run --check-config")
    })?;
    // Before anything is promised: a signal that comes early waits until it can be obeyed in order.
    let signals = Signals::listen()
        .map_err(|error| failed(EXIT_FAILED, format!("no signals on this host: {error}"), "report this"))?;
    let handle = Coordinator::start(config).await.map_err(Failure::from)?;
    notify(&[NotifyState::Ready]);
    signals.until_stopped(&handle, load).await;
    notify(&[NotifyState::Stopping]);
    handle.drain().await;
    drop(telemetry);
    Ok(())
}

/// What the program listens to.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the signal to stop; reloads at each SIGHUP.
    async fn until_stopped(mut self, handle: &Handle, load: impl Fn() -> Result<Config, Failure>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    notify(&[NotifyState::Reloading]);
                    reload(handle, load());
                    notify(&[NotifyState::Ready]);
                }
            }
        }
    }
}

fn reload(handle: &Handle, config: Result<Config, Failure>) {
    let config = match config {
        Ok(config) => config,
        Err(failure) => {
            tracing::error!(faults = failure.one_line(), "nothing is reloaded: the configuration is refused");
            return;
        }
    };
    match handle.reload(&config) {
        Ok(waiting) if waiting.is_empty() => tracing::info!("certificates are read anew"),
        Ok(waiting) => tracing::warn!(
            keys = waiting.join(", "),
            "certificates are read anew; these keys take effect at the next start"
        ),
        Err(error) => tracing::error!(error = %Chain(&error), "nothing is reloaded: what was in force stays"),
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

fn say_made(made: &Made, roots: &[String]) {
    let mark = mark();
    let shown = |address: std::net::SocketAddr| {
        if address.ip().is_unspecified() { format!(":{}", address.port()) } else { address.to_string() }
    };
    say(&format!("{mark} certificate authority made, valid until {}", made.ca_until.format("%Y-%m-%d")));
    say(&format!(
        "{mark} {}, first admin's context; gRPC {}, HTTP {}",
        file_name(&made.config),
        shown(made.grpc_listen),
        shown(made.http_listen)
    ));
    say(&format!("CA hash: {} (agents need it; it is no secret)", made.ca_hash));
    say(&format!("Next: mirror-coordinator run --config {}", made.config.display()));
    say(&format!("Then: mirrorctl --config {} status", made.context.display()));
    if let Some(agent) = &made.agent {
        let folders = roots.iter().filter_map(|root| root.split_once('=').map(|(_, folder)| folder));
        for missing in folders.filter(|folder| !std::path::Path::new(folder).is_dir()) {
            say(&format!("And:  mkdir -p {missing}"));
        }
        say(&format!("And:  mirror-agent run --config {}", agent.display()));
    }
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `✓`, where the locale can show it.
fn mark() -> &'static str {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    let utf8 = locale.is_some_and(|locale| locale.to_ascii_lowercase().replace('-', "").contains("utf8"));
    if utf8 { "✓" } else { "ok" }
}

#[allow(clippy::print_stdout, reason = "the command line's deliberate output")]
fn say(line: &str) {
    println!("{line}");
}

fn failed(code: u8, what: String, next: &str) -> Failure {
    Failure { code, what, faults: Vec::new(), next: next.to_owned() }
}

impl Failure {
    fn of_config(error: &ConfigError, path: &std::path::Path) -> Self {
        let faults =
            error.faults.iter().map(|fault| (fault.at.clone(), fault.text.clone())).collect::<Vec<_>>();
        let count = faults.len();
        let plural = if count == 1 { "" } else { "s" };
        Self {
            code: EXIT_INPUT,
            what: format!("not started: {count} fault{plural} in the configuration {}", path.display()),
            faults,
            next: if path.exists() {
                format!("mirror-coordinator run --config {} --check-config", path.display())
            } else {
                "mirror-coordinator init --help".to_owned()
            },
        }
    }

    /// An error's chain; the last thing to do that one of its links names beats `next`.
    fn of(code: u8, error: &dyn std::error::Error, next: &str) -> Self {
        const MARK: &str = "; next: ";
        let (mut said, mut next) = (Vec::new(), next.to_owned());
        let mut link = Some(error);
        while let Some(error) = link {
            let text = error.to_string();
            let (what, named) = text.split_once(MARK).unwrap_or((&text, ""));
            said.push(what.to_owned());
            if !named.is_empty() && !named.starts_with("see the cause") {
                next = named.to_owned();
            }
            link = error.source();
        }
        failed(code, said.join(": "), &next)
    }

    fn one_line(&self) -> String {
        let faults: Vec<String> = self.faults.iter().map(|(at, text)| format!("{at} {text}")).collect();
        format!("{}: {}", self.what, faults.join("; "))
    }

    #[allow(clippy::print_stderr, reason = "the command line's deliberate output")]
    fn print(&self) {
        eprintln!("error: {}", without_numbers(&self.what));
        let width = self.faults.iter().map(|(at, _)| at.chars().count()).max().unwrap_or(0);
        for (at, text) in &self.faults {
            eprintln!("  {at:width$}  {}", without_numbers(text));
        }
        eprintln!("next: {}", self.next);
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

impl From<Init> for NewFleet {
    fn from(wish: Init) -> Self {
        Self {
            data_dir: wish.data_dir,
            trust_domain: wish.trust_domain,
            server_names: wish.server_name,
            grpc_listen: wish.grpc_listen,
            http_listen: wish.http_listen,
            admin: wish.admin,
            agent_roots: if wish.with_agent { wish.root } else { Vec::new() },
        }
    }
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        match error {
            InitError::Refused(ConfigError { faults }) => {
                let faults: Vec<_> =
                    faults.into_iter().map(|fault| (as_flag(&fault.at), fault.text)).collect();
                let plural = if faults.len() == 1 { "" } else { "s" };
                let what = format!("no fleet made: {} fault{plural} in what you typed", faults.len());
                Self { code: EXIT_INPUT, what, faults, next: "mirror-coordinator init --help".to_owned() }
            }
            InitError::NotEmpty(ref folder, _) => {
                let config = folder.join("coordinator.toml");
                let next = if config.exists() {
                    format!("mirror-coordinator run --config {}", config.display())
                } else {
                    format!("ls -A {}", folder.display())
                };
                Self::of(EXIT_CONFLICT, &error, &next)
            }
            _ => Self::of(EXIT_FAILED, &error, "mend that, then the same command again"),
        }
    }
}

/// `--server-names` is the configuration's key; people typed `--server-name`.
fn as_flag(at: &str) -> String {
    if at == "--server-names" { "--server-name".to_owned() } else { at.to_owned() }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let (code, next) = match &error {
            StartError::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrNotAvailable => {
                (EXIT_AGAIN, "ip -brief address")
            }
            StartError::Listen { .. } => (EXIT_AGAIN, "ss -ltnp"),
            StartError::Open(OpenError::Running(_)) => (EXIT_CONFLICT, "systemctl status mirror-coordinator"),
            _ => (EXIT_FAILED, "mend that, then the same command again"),
        };
        Self::of(code, &error, next)
    }
}

impl From<UserCertificateError> for Failure {
    fn from(error: UserCertificateError) -> Self {
        match error {
            UserCertificateError::Store(error) => error.into(),
            UserCertificateError::Unknown { .. } | UserCertificateError::Denied(_) => {
                Self::of(EXIT_INPUT, &error, "mirror-coordinator user-certificate --help")
            }
            UserCertificateError::Exists(_) => Self::of(EXIT_CONFLICT, &error, "another --out"),
            _ => Self::of(EXIT_FAILED, &error, "mend that, then the same command again"),
        }
    }
}

impl From<OfflineError> for Failure {
    fn from(error: OfflineError) -> Self {
        let (code, next) = match &error {
            OfflineError::Open(OpenError::Running(_)) => (EXIT_CONFLICT, "stop it first"),
            OfflineError::Exists(_) => (EXIT_CONFLICT, "mirror-coordinator import --help"),
            OfflineError::File(..) | OfflineError::Store(StoreError::BadBackup { .. }) => {
                (EXIT_INPUT, "mirror-coordinator restore --help")
            }
            _ => (EXIT_FAILED, "mend that, then the same command again"),
        };
        Self::of(code, &error, next)
    }
}
