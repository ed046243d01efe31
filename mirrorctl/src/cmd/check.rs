//! `mirrorctl project check` and `explain`: what agents say when they are asked.

use std::time::Duration;

use mirror_proto::v1;

use super::of_project;
use crate::app::App;
use crate::exit::Exit;
use crate::fault::Outcome;
use crate::{names, text};

/// How long the coordinator may take by itself, as its agents ask upstreams: more than it gives them.
const ANSWER_TIME: Duration = Duration::from_secs(180);

/// Asks, prints, and ends with 1 when a fault was found.
pub(super) async fn run(app: &App, typed: &str, size: bool) -> Outcome<Exit> {
    let client = app.connect_for(ANSWER_TIME).await?;
    let name = names::checked_project(typed)?;
    let request = v1::CheckProjectRequest { name: name.clone(), project: None, size };
    let response = match client.projects().check_project(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Err(of_project(app, &client, typed, "project not checked", &status).await),
    };
    let short = names::last(&name);
    app.answer(&response, "CheckProjectResponse", &[short], |view| {
        text::check::check(view, short, &response)
    })?;
    Ok(if response.faults > 0 { Exit::BadAnswer } else { Exit::Done })
}

/// Asks what rsync would be called with, and prints it. Ends with 1 when an agent could not say.
pub(super) async fn explain(app: &App, typed: &str) -> Outcome<Exit> {
    let client = app.connect_for(ANSWER_TIME).await?;
    let name = names::checked_project(typed)?;
    let request = v1::ExplainProjectRequest { name: name.clone() };
    let response = match client.projects().explain_project(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Err(of_project(app, &client, typed, "project not explained", &status).await),
    };
    let short = names::last(&name);
    app.answer(&response, "ExplainProjectResponse", &[short], |view| {
        text::explain::explain(view, &response)
    })?;
    let told = response.command_lines.iter().all(|line| line.fault.is_empty());
    Ok(if told { Exit::Done } else { Exit::BadAnswer })
}
