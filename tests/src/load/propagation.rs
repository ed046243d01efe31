//! From the origin's rsync to the last replica's, with one replica and with twenty: the stubs stand in for rsync, so the
//! time between their starts is the fleet's own. The floor does the least that can be asked for: two durable records and
//! two processes for each replica, all at once.

use std::{
    fs::OpenOptions,
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fleet_tests::{Fleet, FleetOptions, program};
use mirror_proto::v1;
use mirrorctl::client::Client;
use tokio::runtime::Runtime;

use crate::{
    Size,
    api::{self, Disk, Stamps, between, now_nanos},
    table::{Row, Samples, ratio},
};

/// The project.
const PROJECT: &str = "tree";
/// Rest between two samples: the agents remove what the last one left.
const REST: Duration = Duration::from_millis(50);

/// The rows.
pub(crate) fn rows(runtime: &Runtime, size: Size) -> Result<Vec<Row>> {
    let samples = size.pick(5, 50);
    let mut rows = Vec::new();
    for replicas in [1, size.pick(3, 20)] {
        rows.push(runtime.block_on(measure(replicas, samples))?);
    }
    Ok(rows)
}

async fn measure(replicas: usize, samples: usize) -> Result<Row> {
    let (fleet, mut stamps) = start(replicas).await?;
    let client = api::connect(&fleet).await?;
    api::declare(&client, vec![project(&stamps, replicas)]).await?;
    let mut disk = Disk::create(fleet.path())?;
    let (mut ours, mut floor) = (Samples::default(), Samples::default());
    for _ in 0..samples {
        ours.push(propagate(&client, &mut stamps, replicas).await?);
        tokio::time::sleep(REST).await;
        floor.push(least(&mut disk, &mut stamps, replicas).await?);
    }
    let over = ratio(ours.median(), floor.median());
    let what = format!("origin's rsync → last replica's, of {replicas}, p50 / p99");
    Ok(Row::new(what, ours.show()).floor(floor.show(), over))
}

/// An origin and replicas whose rsync is the stub; what the origin serves is said to be where the stubs tell of
/// themselves.
async fn start(replicas: usize) -> Result<(Fleet, Stamps)> {
    let stub = program("fleet-stub").display().to_string();
    let names =
        std::iter::once("origin".to_owned()).chain((0..replicas).map(|number| format!("edge{number}")));
    let agents: Vec<String> = names.collect();
    let mut fleet = Fleet::prepare(FleetOptions {
        agents: agents.clone(),
        files: 1,
        limits: "upstream_spacing = \"0s\"\nupstream_slots = 100\norigin_uplink = 100\n".to_owned(),
        environment: vec![("MIRROR_AGENT_RSYNC".to_owned(), stub)],
        ..FleetOptions::default()
    })?;
    fleet.start_coordinator()?;
    let stamps = Stamps::listen(fleet.address()).await?;
    for (index, name) in agents.iter().enumerate() {
        fleet.enroll(index)?;
        let file = fleet.agent_dir(index).join("agent.toml");
        let mut file = OpenOptions::new().append(true).open(file).context("the agent's own file")?;
        writeln!(file, "\n[serve.external]\na1 = \"{}\"", stamps.uri())?;
        fleet.start_agent(index)?;
        fleet.await_connected(name);
    }
    Ok((fleet, stamps))
}

fn project(stamps: &Stamps, replicas: usize) -> v1::Project {
    let mut project = api::project(PROJECT, &stamps.uri(), "origin");
    let replica =
        |number| v1::PlacementTarget { agent: format!("agents/edge{number}"), ..Default::default() };
    project.placement.get_or_insert_default().replicas = (0..replicas).map(replica).collect();
    project
}

/// From the start of the origin's rsync, which ends at once, to the start of the last replica's.
async fn propagate(client: &Client, stamps: &mut Stamps, replicas: usize) -> Result<Duration> {
    let run = api::run(client, PROJECT).await?;
    let origin = stamps.next().await?;
    let mut last = origin;
    for _ in 0..replicas {
        last = last.max(stamps.next().await?);
    }
    api::ended(client, &run).await?;
    Ok(between(origin, last))
}

async fn least(disk: &mut Disk, stamps: &mut Stamps, replicas: usize) -> Result<Duration> {
    let began = Instant::now();
    disk.durable()?;
    disk.durable()?;
    let durable = began.elapsed();
    let began = now_nanos();
    let children = (0..replicas).map(|_| stamps.spawn_two()).collect::<Result<Vec<_>, _>>()?;
    let mut last = began;
    for _ in 0..replicas {
        last = last.max(stamps.next().await?);
    }
    children.into_iter().try_for_each(api::reap)?;
    Ok(durable + between(began, last))
}
