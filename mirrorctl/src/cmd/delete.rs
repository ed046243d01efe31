//! `mirrorctl project delete`, and what becomes of the trees.

use std::time::Duration;

use mirror_proto::v1;
use mirror_proto::v1::trashed_tree::State;
use tonic::Code;

use super::of_project;
use crate::app::App;
use crate::client::Client;
use crate::confirm::{Wanted, confirm};
use crate::exit::Exit;
use crate::fault::Outcome;
use crate::{names, text};

/// Longest wait for agents that are connected to say what became of their trees: it is one rename on each.
const ANSWER_SECONDS_MAX: u64 = 10;
/// Pause before they are asked after again.
const ANSWER_PAUSE: Duration = Duration::from_millis(250);

/// Removes a project, and has its trees moved to the trash if that is wanted.
pub(super) async fn delete(
    app: &App,
    typed: &str,
    cancel_running: bool,
    tree_to_trash: bool,
) -> Outcome<Exit> {
    const FAILED: &str = "project not deleted";
    let client = app.connect().await?;
    let name = names::checked_project(typed)?;
    let found = client.projects().get_project(v1::GetProjectRequest { name: name.clone() }).await;
    let project = match found {
        Ok(project) => project.into_inner(),
        Err(status) => return Err(of_project(app, &client, typed, FAILED, &status).await),
    };
    let short = names::last(&project.name);
    let trees = if tree_to_trash {
        "its trees go to the trash where their agents allow it, and are gone after 7 days"
    } else {
        "the trees on disk stay"
    };
    let question = format!("This removes {short}, its schedule and its history for good; {trees}.");
    confirm(&question, Wanted::Name(short), app.global.yes)?;
    let etag = project.etag.clone();
    let request = v1::DeleteProjectRequest { name, etag, cancel_running, tree_to_trash };
    if let Err(status) = client.projects().delete_project(request).await {
        let fault = of_project(app, &client, typed, FAILED, &status).await;
        let running = status.code() == Code::FailedPrecondition && !cancel_running;
        let trash = if tree_to_trash { " --tree-to-trash" } else { "" };
        return Err(if running {
            fault.next(format!("mirrorctl project delete {short} --cancel-running{trash}"))
        } else {
            fault
        });
    }
    if !tree_to_trash {
        let what = format!("{short} deleted; the trees on the agents' disks stay.");
        app.changed(&project, "Project", &[short], &what, "mirrorctl project list")?;
        return Ok(Exit::Done);
    }
    let trees = answers(&client, &project).await;
    let what = trees.iter().fold(format!("{short} deleted."), |what, (agent, tree)| {
        format!("{what}\n{}: {}", names::last(&agent.name), text::agent::trashed(&app.view(), agent, tree))
    });
    let open = trees.iter().find(|(_, tree)| tree.state() == State::Waiting);
    let next = open.or_else(|| trees.first()).map(|(agent, _)| agent.name.as_str());
    let next = next.map(|agent| format!("mirrorctl agent show {}", names::last(agent)));
    app.changed(&project, "Project", &[short], &what, &next.unwrap_or_default())?;
    Ok(Exit::Done)
}

/// What became of each tree, as far as its agent says so in time; nobody waits for one that is away.
async fn answers(client: &Client, project: &v1::Project) -> Vec<(v1::Agent, v1::TrashedTree)> {
    let placements = project.status.iter().flat_map(|status| &status.placements);
    let mut asked: Vec<(&str, &str)> =
        placements.map(|one| (one.agent.as_str(), one.destination.as_str())).collect();
    let end = tokio::time::Instant::now() + Duration::from_secs(ANSWER_SECONDS_MAX);
    let mut trees = Vec::new();
    while !asked.is_empty() {
        let late = tokio::time::Instant::now() >= end;
        let mut open = Vec::new();
        for (name, destination) in asked {
            let request = v1::GetAgentRequest { name: name.to_owned() };
            let Ok(agent) = client.agents().get_agent(request).await.map(tonic::Response::into_inner) else {
                continue;
            };
            let of_project = |tree: &&v1::TrashedTree| {
                tree.project == names::last(&project.name) && tree.destination == destination
            };
            let newest = |tree: &&v1::TrashedTree| text::time(tree.request_time);
            let Some(tree) = agent.trash.iter().filter(of_project).max_by_key(newest).cloned() else {
                continue;
            };
            if tree.state() == State::Waiting && agent.connected && !late {
                open.push((name, destination));
            } else {
                trees.push((agent, tree));
            }
        }
        asked = open;
        if !asked.is_empty() {
            tokio::time::sleep(ANSWER_PAUSE).await;
        }
    }
    trees.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    trees
}
