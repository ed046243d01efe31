//! Lists of many projects over gRPC: the first page, one in the middle, and one for which the filter must look at all.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context as _, Result, ensure};
use fleet_tests::{Fleet, FleetOptions};
use mirror_proto::v1;
use mirrorctl::client::Client;
use tokio::runtime::Runtime;

use crate::{
    Size, api,
    table::{Row, Samples, ratio},
};

/// Rows of a page when the caller names no number.
const PAGE_ROWS: usize = 100;
/// One project of so many has the label that is filtered by.
const RARE: usize = 200;

/// The rows.
pub(crate) fn rows(runtime: &Runtime, size: Size) -> Result<Vec<Row>> {
    let (projects, samples) = size.pick((300, 5), (10_000, 200));
    let fleet = Fleet::start(FleetOptions { files: 1, ..FleetOptions::default() })?;
    runtime.block_on(async {
        let client = api::connect(&fleet).await?;
        let uri = fleet.upstream.uri();
        let all = (0..projects).map(|number| {
            let rare = number % RARE == 0;
            let labels = BTreeMap::from([("tier".to_owned(), if rare { "1" } else { "2" }.to_owned())]);
            v1::Project { labels, ..api::project(&format!("p{number:05}"), &uri, "edge1") }
        });
        api::declare(&client, all.collect()).await?;
        let mut one = Samples::default();
        for _ in 0..samples {
            let began = Instant::now();
            let request = v1::GetProjectRequest { name: "projects/p00000".to_owned() };
            client.projects().get_project(request).await?;
            one.push(began.elapsed());
        }
        let first = v1::ListProjectsRequest::default();
        let page_token = client.projects().list_projects(first.clone()).await?.into_inner().next_page_token;
        ensure!(!page_token.is_empty(), "there is more than one page");
        let middle = v1::ListProjectsRequest { page_token, ..first.clone() };
        let rare = v1::ListProjectsRequest { filter: "labels.tier=1".to_owned(), ..first.clone() };
        let mut rows = Vec::new();
        for (what, request, expected) in [
            ("first page", first, PAGE_ROWS),
            ("next page", middle, PAGE_ROWS),
            ("all with a rare label", rare, projects.div_ceil(RARE)),
        ] {
            let took = pages(&client, &request, samples, expected).await.context(what)?;
            let name = format!("ListProjects at {projects} projects, {what} ({expected} rows), p50 / p99");
            rows.push(
                Row::new(name, took.show())
                    .floor(format!("{} for one project", one.show()), ratio(took.median(), one.median())),
            );
        }
        anyhow::Ok(rows)
    })
}

async fn pages(
    client: &Client,
    request: &v1::ListProjectsRequest,
    samples: usize,
    expected: usize,
) -> Result<Samples> {
    let mut took = Samples::default();
    for _ in 0..samples {
        let began = Instant::now();
        let page = client.projects().list_projects(request.clone()).await?.into_inner();
        took.push(began.elapsed());
        ensure!(page.projects.len() == expected, "{} rows", page.projects.len());
    }
    Ok(took)
}
