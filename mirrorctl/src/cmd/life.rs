//! `mirrorctl project rename`, `archive` and `unarchive`.

use mirror_proto::v1;

use super::several::{self, Done, Words};
use super::{of_project, project::fires};
use crate::app::App;
use crate::cli::ProjectsArg;
use crate::exit::Exit;
use crate::fault::{Faults, Outcome};
use crate::names;

/// Gives a project another name.
pub(super) async fn rename(app: &App, typed: &str, new_name: &str) -> Outcome<Exit> {
    const FAILED: &str = "project not renamed";
    let mut faults = Faults::default();
    let name = names::noted_project("OLD", typed, &mut faults);
    let new_name = names::noted_project("NEW", new_name, &mut faults);
    faults.finish(FAILED, "mirrorctl project rename --help")?;
    let client = app.connect().await?;
    let request = v1::RenameProjectRequest { name, new_name, etag: String::new() };
    let project = match client.projects().rename_project(request).await {
        Ok(project) => project.into_inner(),
        Err(status) => return Err(of_project(app, &client, typed, FAILED, &status).await),
    };
    let (old, new) = (names::last(typed), names::last(&project.name));
    let what = format!("{old} is called {new} now; its schedule, runs and trees are as they were.");
    app.changed(&project, "Project", &[new], &what, &format!("mirrorctl project show {new}"))?;
    Ok(Exit::Done)
}

/// Goes on serving trees and works on them no more.
pub(super) async fn archive(app: &App, projects: &ProjectsArg, reason: &str) -> Outcome<Exit> {
    const WORDS: Words = Words { kind: "project", does: "archives", failed: "not archived" };
    const FAILED: &str = "project not archived";
    let client = app.connect().await?;
    let chosen = several::projects(app, &client, projects, FAILED).await?;
    several::each(app, &chosen, WORDS, async |typed| {
        let (name, reason) = (names::checked_project(typed)?, reason.to_owned());
        let request = v1::ArchiveProjectRequest { name, reason, etag: String::new() };
        let project = match client.projects().archive_project(request).await {
            Ok(project) => project.into_inner(),
            Err(status) => return Err(of_project(app, &client, typed, FAILED, &status).await),
        };
        let name = names::last(&project.name);
        let what = format!("{name} archived: served as it is, runs only when asked; what runs goes on.");
        Done::new(&project, "Project", name, what, format!("mirrorctl project unarchive {name}"))
    })
    .await
}

/// Works on archived trees again.
pub(super) async fn unarchive(app: &App, projects: &ProjectsArg) -> Outcome<Exit> {
    const WORDS: Words = Words { kind: "project", does: "unarchives", failed: "not unarchived" };
    const FAILED: &str = "project not unarchived";
    let client = app.connect().await?;
    let chosen = several::projects(app, &client, projects, FAILED).await?;
    several::each(app, &chosen, WORDS, async |typed| {
        let request =
            v1::UnarchiveProjectRequest { name: names::checked_project(typed)?, etag: String::new() };
        let project = match client.projects().unarchive_project(request).await {
            Ok(project) => project.into_inner(),
            Err(status) => return Err(of_project(app, &client, typed, FAILED, &status).await),
        };
        let name = names::last(&project.name);
        let what = format!("{name} is worked on again. {}", fires(&project));
        Done::new(&project, "Project", name, what, format!("mirrorctl project show {name}"))
    })
    .await
}
