//! The commands: each asks the coordinator (or nobody), prints, and says how it went.

mod agent;
mod audit;
mod backup;
mod cert;
mod check;
pub(crate) mod complete;
mod context;
mod delete;
mod fleet;
mod housekeeping;
mod import;
mod join_token;
mod life;
mod login;
mod manifest;
mod manual;
mod password;
mod project;
mod push_token;
mod run;
pub mod schedule;
mod several;
mod token;
mod upstream;
mod user;

use mirror_proto::v1;
use tonic::{Code, Status};

use crate::app::App;
use crate::cli::Command;
use crate::client::Client;
use crate::exit::Exit;
use crate::fault::{Fault, Outcome};
use crate::{names, suggest};

/// Entries of one page when all pages are wanted: the API's most.
const PAGE_SIZE_MAX: i32 = 1_000;

/// Runs a command.
///
/// # Errors
/// What went wrong, ready to be printed.
pub async fn run(app: &App, command: Command) -> Outcome<Exit> {
    match command {
        Command::Project(command) => project::run(app, command).await,
        Command::Run(command) => run::run(app, command).await,
        Command::Agent(command) => agent::run(app, command).await,
        Command::JoinToken(command) => join_token::run(app, command).await,
        Command::PushToken(command) => push_token::run(app, command).await,
        Command::Housekeeping(command) => housekeeping::run(app, command).await,
        Command::Upstream(command) => upstream::run(app, command).await,
        Command::Plan(args) => manifest::plan(app, args).await,
        Command::Apply(args) => manifest::apply(app, args).await,
        Command::Export(args) => manifest::export(app, args).await,
        Command::Schema => manifest::schema(app),
        Command::Status { selector, all, exit_code } => fleet::status(app, &selector, all, exit_code).await,
        Command::Why { project } => fleet::why(app, &project).await,
        Command::Freeze { reason } => fleet::freeze(app, reason).await,
        Command::Thaw => fleet::thaw(app).await,
        Command::Backup { file } => backup::backup(app, &file).await,
        Command::Audit(args) => audit::run(app, args).await,
        Command::Login(args) => login::login(app, args).await,
        Command::Logout => login::logout(app).await,
        Command::Whoami => login::whoami(app).await,
        Command::User(command) => user::run(app, command).await,
        Command::Token(command) => token::run(app, command).await,
        Command::Cert(command) => cert::run(app, command).await,
        Command::Schedule(command) => schedule::run(app, &command),
        Command::Context(command) => context::run(app, command),
        Command::Import(command) => import::run(app, command),
        Command::Completion { shell } => complete::script(app, shell),
        Command::Man { dir } => manual::man(app, dir.as_deref()),
    }
}

/// All projects that a filter lets through, in name order.
async fn all_projects(client: &Client, filter: &str) -> Result<Vec<v1::Project>, Status> {
    projects_by(client, filter, "").await
}

/// All projects that a filter lets through, in the order that the API's `order_by` says.
async fn projects_by(client: &Client, filter: &str, order_by: &str) -> Result<Vec<v1::Project>, Status> {
    let mut projects = Vec::new();
    let mut page_token = String::new();
    loop {
        let (filter, order_by) = (filter.to_owned(), order_by.to_owned());
        let request = v1::ListProjectsRequest { page_size: PAGE_SIZE_MAX, page_token, filter, order_by };
        let page = client.projects().list_projects(request).await?.into_inner();
        projects.extend(page.projects);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(projects);
        }
    }
}

/// All agents that a filter lets through, in name order.
async fn all_agents(client: &Client, filter: &str) -> Result<Vec<v1::Agent>, Status> {
    agents_by(client, filter, "").await
}

/// All agents that a filter lets through, in the order that the API's `order_by` says.
async fn agents_by(client: &Client, filter: &str, order_by: &str) -> Result<Vec<v1::Agent>, Status> {
    let mut agents = Vec::new();
    let mut page_token = String::new();
    loop {
        let (filter, order_by) = (filter.to_owned(), order_by.to_owned());
        let request = v1::ListAgentsRequest { page_size: PAGE_SIZE_MAX, page_token, filter, order_by };
        let page = client.agents().list_agents(request).await?.into_inner();
        agents.extend(page.agents);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(agents);
        }
    }
}

/// An answer's fault, with the nearest name when there is no such project.
async fn of_project(app: &App, client: &Client, typed: &str, failed: &str, status: &Status) -> Fault {
    if status.code() != Code::NotFound {
        return Fault::from_status(failed, status);
    }
    let known = all_projects(client, "").await.unwrap_or_default();
    let known: Vec<&str> = known.iter().map(|project| names::last(&project.name)).collect();
    let bare = names::last(typed);
    if known.contains(&bare) {
        // The project is there; what is missing is something of it.
        return Fault::from_status(failed, status);
    }
    no_such(app, "project", typed, &known, "mirrorctl project list")
}

/// An answer's fault, with the nearest name when there is no such agent.
async fn of_agent(app: &App, client: &Client, typed: &str, failed: &str, status: &Status) -> Fault {
    if status.code() != Code::NotFound {
        return Fault::from_status(failed, status);
    }
    let known = all_agents(client, "").await.unwrap_or_default();
    let known: Vec<&str> = known.iter().map(|agent| names::last(&agent.name)).collect();
    no_such(app, "agent", typed, &known, "mirrorctl agent list")
}

fn no_such(app: &App, kind: &str, typed: &str, known: &[&str], list: &str) -> Fault {
    match suggest::nearest(typed, known.iter().copied()) {
        Some(near) => Fault::new(Exit::NotFound, format!("no {kind} {typed:?}; the nearest name is {near}"))
            .next(app.corrected(typed, near)),
        None => Fault::new(Exit::NotFound, format!("no {kind} {typed:?}")).next(list),
    }
}
