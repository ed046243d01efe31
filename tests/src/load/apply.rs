//! A manifest of many projects, as one `ApplyProjects`: planned, recorded, carried out, answered. Beside it the same
//! projects declared one by one over one connection.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fleet_tests::{Fleet, FleetOptions};
use mirror_proto::v1;
use mirrorctl::client::Client;
use tokio::runtime::Runtime;

use crate::{
    Size, api,
    table::{Row, ratio},
};

/// Document 7 has no figure; a person waits no longer than this without wondering.
const TARGET: Duration = Duration::from_secs(2);

/// The rows.
pub(crate) fn rows(runtime: &Runtime, size: Size) -> Result<Vec<Row>> {
    let count = size.pick(100, 1_000);
    let mut fleet = Fleet::prepare(FleetOptions { files: 1, ..FleetOptions::default() })?;
    fleet.start_coordinator()?;
    fleet.enroll(0)?;
    runtime.block_on(async {
        let client = api::connect(&fleet).await?;
        let named = |kind: &str| -> Vec<v1::Project> {
            let name = |number| format!("{kind}{number}");
            (0..count)
                .map(|number| api::project(&name(number), "rsync://h.example.net/m/", "edge1"))
                .collect()
        };
        let began = Instant::now();
        for project in named("one") {
            let request = v1::CreateProjectRequest { project: Some(project), ..Default::default() };
            client.projects().create_project(request).await?;
        }
        let one_by_one = began.elapsed();
        let projects: Vec<v1::DeclaredProject> = named("many").into_iter().map(declared).collect();
        let (first, answer) = timed(&client, &projects).await?;
        ensure!(answer.created == count, "all of them are new: {answer:?}");
        let (again, answer) = timed(&client, &projects).await?;
        ensure!(answer == v1::ApplyProjectsResponse::default(), "nothing of them is new: {answer:?}");
        Ok(vec![
            Row::new(format!("apply of {count} new projects"), format!("{} ms", first.as_millis()))
                .floor(format!("{} ms one by one", one_by_one.as_millis()), ratio(first, one_by_one))
                .target("≤ 2 s", first <= TARGET),
            Row::new("– the same again, nothing to change", format!("{} ms", again.as_millis())),
        ])
    })
}

fn declared(project: v1::Project) -> v1::DeclaredProject {
    v1::DeclaredProject { project: Some(project.into()), ..v1::DeclaredProject::default() }
}

async fn timed(
    client: &Client,
    projects: &[v1::DeclaredProject],
) -> Result<(Duration, v1::ApplyProjectsResponse)> {
    let request = v1::ApplyProjectsRequest { projects: projects.to_vec(), ..Default::default() };
    let began = Instant::now();
    let answer = client.projects().apply_projects(request).await?.into_inner();
    Ok((began.elapsed(), answer))
}
