//! Completion of command lines: words from their definition, names from the fleet.
//!
//! ```text
//!  shell ── its script, from `mirrorctl completion SHELL` ──▶ MIRRORCTL_COMPLETE=SHELL mirrorctl -- WORDS ──▶ candidates
//! ```
//!
//! Nobody asked for a message who pressed Tab: where there is no context, no coordinator or no leave, and where the answer
//! takes longer than [`ANSWER_TIME_MAX`], there are no names, in silence.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, Command, CommandFactory as _, FromArgMatches as _};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};
use mirror_proto::v1;
use tonic::Status;

use super::PAGE_SIZE_MAX;
use crate::app::App;
use crate::cli::{Cli, Global};
use crate::client::Client;
use crate::config::{self, Overrides};
use crate::exit::Exit;
use crate::fault::{Fault, Outcome};
use crate::names;

/// Set by the shells' scripts: whose way of asking it is.
const VARIABLE: &str = "MIRRORCTL_COMPLETE";
/// How long a person who pressed Tab is kept waiting for names, dialling included. What came until then is offered.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// Newest runs of a project that are offered.
const RUNS_MAX: i32 = 20;

/// Answers a shell's script, where this call is one.
pub(crate) fn run(argv: &[OsString]) -> Option<ExitCode> {
    let command = || {
        let mut command = Cli::command();
        // What clap adds by itself, --help above all, is to be there when flags are hidden.
        command.build();
        with_names(command, "", &Arc::new(Source { overrides: overrides(argv) }))
    };
    let completing = CompleteEnv::with_factory(command).var(VARIABLE);
    match completing.try_complete(argv, std::env::current_dir().ok().as_deref()) {
        Ok(false) => None,
        Ok(true) => Some(Exit::Done.into()),
        Err(error) => {
            // An unknown shell; when it cannot be told there is nothing left to do.
            let _ = error.print();
            Some(Exit::BadInput.into())
        }
    }
}

/// Prints a shell's script.
pub(super) fn script(app: &App, shell: Shell) -> Outcome<Exit> {
    let shells = Shells::builtins();
    let known = shells.completer(&shell.to_string());
    let completer = known.ok_or_else(|| Fault::new(Exit::BadInput, format!("no completion for {shell}")))?;
    let mut script = Vec::new();
    let written = completer.write_registration(VARIABLE, "mirrorctl", "mirrorctl", "mirrorctl", &mut script);
    written.map_err(|error| Fault::new(Exit::Bug, format!("no completion written: {error}")))?;
    app.print_bytes(&script)?;
    Ok(Exit::Done)
}

/// What an argument is the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Project,
    Agent,
    User,
    Run,
    Upstream,
    Job,
    Token,
    JoinToken,
    PushToken,
    Context,
}

/// What the argument of this command names, where it is something that is there already.
fn kind(command: &str, arg: &Arg) -> Option<Kind> {
    let value = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    match (command, arg.get_id().as_str(), value) {
        ("agent create", "agent", _) | ("user create", "user", _) => None,
        ("project edit", "name", _) | ("project rename", "project", _) => Some(Kind::Project),
        ("agent replace", "old" | "new", _) | ("audit", "agent", _) => Some(Kind::Agent),
        ("audit", "user", _) => Some(Kind::User),
        ("token revoke", "token", _) => Some(Kind::Token),
        ("join-token delete", "token", _) => Some(Kind::JoinToken),
        ("push-token delete", "token", _) => Some(Kind::PushToken),
        ("context use", "name", _) | (_, "context", _) => Some(Kind::Context),
        (_, _, "PROJECT") => Some(Kind::Project),
        (_, _, "USER") => Some(Kind::User),
        (_, _, "RUN") => Some(Kind::Run),
        (_, _, "HOST") => Some(Kind::Upstream),
        (_, _, "JOB") => Some(Kind::Job),
        (_, _, text) if text.starts_with("AGENT") => Some(Kind::Agent),
        _ => None,
    }
}

/// The command line with names for its arguments. Flags are hidden: then they are offered to who has typed a hyphen, or where
/// there is nothing else, and names stand alone.
fn with_names(command: Command, path: &str, source: &Arc<Source>) -> Command {
    let command = command.mut_args(|arg| {
        let arg = if arg.is_positional() { arg } else { arg.hide(true) };
        let Some(kind) = kind(path, &arg) else { return arg };
        let source = source.clone();
        arg.add(ArgValueCompleter::new(move |typed: &OsStr| source.candidates(kind, typed)))
    });
    command.mut_subcommands(|deeper| {
        let path = format!("{path} {}", deeper.get_name());
        with_names(deeper, path.trim_start(), source)
    })
}

/// Where configuration comes from in the words typed so far; `None`: they make no sense yet.
fn overrides(argv: &[OsString]) -> Option<Overrides> {
    let words = argv.iter().skip_while(|word| *word != "--").skip(1);
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(words).ok()?;
    let global = Global::from_arg_matches(&matches).ok()?;
    Some(App::new(global, &[], "", None).overrides())
}

/// Whom names are asked of.
struct Source {
    overrides: Option<Overrides>,
}

impl Source {
    fn candidates(&self, kind: Kind, typed: &OsStr) -> Vec<CompletionCandidate> {
        let Some(typed) = typed.to_str() else { return Vec::new() };
        let mut found = Vec::new();
        if let Some(overrides) = &self.overrides {
            if kind == Kind::Context {
                found.extend(
                    config::load(overrides).into_iter().flat_map(|config| config.contexts.into_keys()),
                );
            } else if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
                runtime.block_on(async {
                    // What went wrong is told by the command itself, when it is run.
                    let _ =
                        tokio::time::timeout(ANSWER_TIME_MAX, ask(overrides, kind, typed, &mut found)).await;
                });
            }
        }
        // A shell may read what it is offered: nothing but what names are made of.
        let plain = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || "._+-:[]/".contains(c));
        found.retain(|name| name.starts_with(typed) && plain(name));
        found.into_iter().map(CompletionCandidate::new).collect()
    }
}

async fn dial(overrides: &Overrides) -> Outcome<Client> {
    if let Some(socket) = &overrides.socket {
        return Client::connect_socket(socket, ANSWER_TIME_MAX, None).await;
    }
    let (_, context) = config::choose(&config::load(overrides)?, overrides)?;
    Client::connect(&context, ANSWER_TIME_MAX, None).await
}

/// Puts names into `found` as they come, since the answer may be cut short.
async fn ask(overrides: &Overrides, kind: Kind, typed: &str, found: &mut Vec<String>) -> Outcome<()> {
    let client = dial(overrides).await?;
    let asked = match kind {
        Kind::Project => projects(&client, found).await,
        Kind::Run => runs(&client, typed, found).await,
        Kind::Agent => agents(&client, found).await,
        _ => few(&client, kind, found).await,
    };
    asked.map_err(|status| Fault::from_status("no names", &status))
}

async fn projects(client: &Client, found: &mut Vec<String>) -> Result<(), Status> {
    let mut request = v1::ListProjectsRequest { page_size: PAGE_SIZE_MAX, ..Default::default() };
    loop {
        let page = client.projects().list_projects(request.clone()).await?.into_inner();
        found.extend(page.projects.iter().map(|one| names::last(&one.name).to_owned()));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(());
        }
    }
}

async fn agents(client: &Client, found: &mut Vec<String>) -> Result<(), Status> {
    let mut request = v1::ListAgentsRequest { page_size: PAGE_SIZE_MAX, ..Default::default() };
    loop {
        let page = client.agents().list_agents(request.clone()).await?.into_inner();
        found.extend(page.agents.iter().map(|one| names::last(&one.name).to_owned()));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(());
        }
    }
}

/// Projects, whose newest run is meant; after `PROJECT/` its runs.
async fn runs(client: &Client, typed: &str, found: &mut Vec<String>) -> Result<(), Status> {
    let Some((project, _)) = typed.split_once('/') else { return projects(client, found).await };
    let request = v1::ListRunsRequest {
        parent: names::project(project),
        page_size: RUNS_MAX,
        page_token: String::new(),
    };
    let page = client.runs().list_runs(request).await?.into_inner();
    found.extend(page.runs.iter().map(|run| format!("{project}/{}", names::short_run(&run.name))));
    Ok(())
}

/// Of what there are so few that one page has them all.
async fn few(client: &Client, kind: Kind, found: &mut Vec<String>) -> Result<(), Status> {
    let (page_size, page_token) = (PAGE_SIZE_MAX, String::new());
    let whole: Vec<String> = match kind {
        Kind::User => {
            let page = client.users().list_users(v1::ListUsersRequest { page_size, page_token }).await?;
            page.into_inner().users.into_iter().map(|one| one.name).collect()
        }
        Kind::Upstream => {
            let request = v1::ListUpstreamsRequest { page_size, page_token };
            let page = client.upstreams().list_upstreams(request).await?;
            page.into_inner().upstreams.into_iter().map(|one| one.name).collect()
        }
        Kind::Job => {
            let jobs = client.fleet().list_housekeeping_jobs(v1::ListHousekeepingJobsRequest {}).await?;
            jobs.into_inner().housekeeping_jobs.into_iter().map(|one| one.name).collect()
        }
        Kind::Token => {
            let tokens = client.users().list_tokens(v1::ListTokensRequest::default()).await?;
            tokens.into_inner().tokens.into_iter().map(|one| one.name).collect()
        }
        Kind::JoinToken => {
            let tokens = client.agents().list_join_tokens(v1::ListJoinTokensRequest {}).await?;
            tokens.into_inner().join_tokens.into_iter().map(|one| one.name).collect()
        }
        Kind::PushToken => {
            let request = v1::ListPushTokensRequest { page_size, page_token, ..Default::default() };
            let tokens = client.users().list_push_tokens(request).await?;
            tokens.into_inner().push_tokens.into_iter().map(|one| one.name).collect()
        }
        Kind::Project | Kind::Agent | Kind::Run | Kind::Context => Vec::new(),
    };
    found.extend(whole.iter().map(|name| names::last(name).to_owned()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each argument that has names, with its command.
    fn named(command: &Command, path: &str, found: &mut Vec<(String, String, Kind)>) {
        for arg in command.get_arguments() {
            let id = arg.get_id().to_string();
            found.extend(kind(path, arg).map(|kind| (path.to_owned(), id, kind)));
        }
        for deeper in command.get_subcommands() {
            named(deeper, format!("{path} {}", deeper.get_name()).trim_start(), found);
        }
    }

    #[test]
    fn arguments_that_name_something_are_known() {
        let mut found = Vec::new();
        named(&Cli::command(), "", &mut found);
        let of = |path: &str, id: &str| {
            found.iter().find(|(command, arg, _)| command == path && arg == id).map(|(_, _, kind)| *kind)
        };
        for (path, id, expected) in [
            ("project show", "project", Some(Kind::Project)),
            ("project pause", "project", Some(Kind::Project)),
            ("project edit", "name", Some(Kind::Project)),
            ("project add", "name", None),
            ("project rename", "project", Some(Kind::Project)),
            ("project rename", "new_name", None),
            ("project add", "origin", Some(Kind::Agent)),
            ("project add", "replicas", Some(Kind::Agent)),
            ("project list", "owner", Some(Kind::User)),
            ("project promote", "to", Some(Kind::Agent)),
            ("export", "projects", Some(Kind::Project)),
            ("why", "project", Some(Kind::Project)),
            ("run log", "run", Some(Kind::Run)),
            ("agent drain", "agent", Some(Kind::Agent)),
            ("agent create", "agent", None),
            ("agent replace", "new", Some(Kind::Agent)),
            ("user delete", "user", Some(Kind::User)),
            ("user create", "user", None),
            ("token revoke", "token", Some(Kind::Token)),
            ("join-token delete", "token", Some(Kind::JoinToken)),
            ("push-token delete", "token", Some(Kind::PushToken)),
            ("housekeeping run", "job", Some(Kind::Job)),
            ("upstream set", "host", Some(Kind::Upstream)),
            ("context use", "name", Some(Kind::Context)),
            ("", "context", Some(Kind::Context)),
        ] {
            assert_eq!(of(path, id), expected, "{path} {id}");
        }
    }

    #[test]
    fn the_words_typed_so_far_choose_the_context() {
        let argv = |words: &[&str]| -> Vec<OsString> { words.iter().map(OsString::from).collect() };
        let typed = argv(&[
            "mirrorctl",
            "--",
            "mirrorctl",
            "project",
            "show",
            "--context",
            "lab",
            "--server",
            "h",
            "",
        ]);
        let overrides = overrides(&typed).unwrap();
        assert_eq!((overrides.context.as_deref(), overrides.server.as_deref()), (Some("lab"), Some("h")));
    }
}
