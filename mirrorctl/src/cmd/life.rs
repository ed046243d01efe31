//! `mirrorctl project rename`, `archive` and `unarchive`.

use mirror_proto::v1;

use super::{of_project, project::fires};
use crate::app::App;
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

/// Goes on serving a tree and works on it no more.
pub(super) async fn archive(app: &App, typed: &str, reason: String) -> Outcome<Exit> {
    let client = app.connect().await?;
    let request =
        v1::ArchiveProjectRequest { name: names::checked_project(typed)?, reason, etag: String::new() };
    let project = match client.projects().archive_project(request).await {
        Ok(project) => project.into_inner(),
        Err(status) => return Err(of_project(app, &client, typed, "project not archived", &status).await),
    };
    let name = names::last(&project.name);
    let what = format!("{name} archived: served as it is, runs only when asked; what runs goes on.");
    app.changed(&project, "Project", &[name], &what, &format!("mirrorctl project unarchive {name}"))?;
    Ok(Exit::Done)
}

/// Works on an archived tree again.
pub(super) async fn unarchive(app: &App, typed: &str) -> Outcome<Exit> {
    let client = app.connect().await?;
    let request = v1::UnarchiveProjectRequest { name: names::checked_project(typed)?, etag: String::new() };
    let project = match client.projects().unarchive_project(request).await {
        Ok(project) => project.into_inner(),
        Err(status) => return Err(of_project(app, &client, typed, "project not unarchived", &status).await),
    };
    let name = names::last(&project.name);
    let what = format!("{name} is worked on again. {}", fires(&project));
    app.changed(&project, "Project", &[name], &what, &format!("mirrorctl project show {name}"))?;
    Ok(Exit::Done)
}
