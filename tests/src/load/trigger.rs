//! From the call that triggers a run to the moment its rsync process exists, by API and by command line, with
//! store and journal synced as they are. The floor does the least that can be asked for, in turns with ours:
//! a call, two durable records, two processes.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fleet_tests::{Fleet, FleetOptions, Process, program};
use mirror_proto::v1;
use mirrorctl::client::Client;
use tokio::runtime::Runtime;

use crate::{
    Size,
    api::{self, Disk, Stamps, between, now_nanos},
    table::{Row, Samples, millis, ratio},
};

/// Projects that are run in turn.
const PROJECTS: usize = 10;
/// Rest between two samples: the agent removes what the last one left.
const REST: Duration = Duration::from_millis(10);
/// Target of document 7: p50 of the API.
const API_TARGET: Duration = Duration::from_millis(3);
/// Target of document 7: over the floor.
const RATIO_TARGET: f64 = 1.5;
/// The peer's command line, p50, slower of two series.
const PEER_CLI: Duration = Duration::from_micros(8_600);

struct Bench {
    fleet: Fleet,
    client: Client,
    stamps: Stamps,
    disk: Disk,
}

/// The rows.
pub(crate) fn rows(runtime: &Runtime, size: Size) -> Result<Vec<Row>> {
    let stub = program("fleet-stub").display().to_string();
    let fleet = Fleet::start(FleetOptions {
        files: 1,
        environment: vec![("MIRROR_AGENT_RSYNC".to_owned(), stub)],
        ..FleetOptions::default()
    })?;
    runtime.block_on(async {
        let client = api::connect(&fleet).await?;
        let stamps = Stamps::listen(fleet.address()).await?;
        let projects = (0..PROJECTS).map(|number| api::project(&name(number), &stamps.uri(), "edge1"));
        api::declare(&client, projects.collect()).await?;
        let disk = Disk::create(fleet.path())?;
        let mut bench = Bench { fleet, client, stamps, disk };
        let mut rows = bench.api(size.pick(20, 200)).await?;
        rows.extend(bench.cli(size.pick(10, 100)).await?);
        Ok(rows)
    })
}

fn name(number: usize) -> String {
    format!("p{}", number % PROJECTS)
}

impl Bench {
    async fn api(&mut self, samples: usize) -> Result<Vec<Row>> {
        let (mut ours, mut floor) = (Samples::default(), Samples::default());
        let (mut call, mut durable, mut spawn) = (Samples::default(), Samples::default(), Samples::default());
        for number in 0..samples {
            let began = now_nanos();
            let run = api::run(&self.client, &name(number)).await?;
            ours.push(between(began, self.stamps.next().await?));
            api::ended(&self.client, &run).await?;
            tokio::time::sleep(REST).await;

            let parts = self.floor(&name(number)).await?;
            floor.push(parts.iter().sum());
            call.push(parts[0]);
            durable.push(parts[1]);
            spawn.push(parts[2]);
        }
        let over = ratio(ours.median(), floor.median());
        let ok = ours.median() <= API_TARGET && over <= RATIO_TARGET;
        Ok(vec![
            Row::new("trigger → rsync exists, API, p50 / p99", ours.show())
                .floor(floor.show(), over)
                .target("p50 ≤ 3 ms, ratio ≤ 1.5", ok),
            Row::new("  of the floor: one unary call, p50 / p99", call.show()),
            Row::new("  of the floor: two records with fdatasync, p50 / p99", durable.show()),
            Row::new("  of the floor: two processes, p50 / p99", spawn.show()),
        ])
    }

    /// A call, two durable records, and two processes: how long each took.
    async fn floor(&mut self, project: &str) -> Result<[Duration; 3]> {
        let began = Instant::now();
        let request = v1::GetProjectRequest { name: format!("projects/{project}") };
        self.client.projects().get_project(request).await?;
        let called = began.elapsed();
        let [durable, spawned] = self.least().await?;
        Ok([called, durable, spawned])
    }

    async fn least(&mut self) -> Result<[Duration; 2]> {
        let began = Instant::now();
        self.disk.durable()?;
        self.disk.durable()?;
        let durable = began.elapsed();
        let began = now_nanos();
        let child = self.stamps.spawn_two()?;
        let spawned = between(began, self.stamps.next().await?);
        api::reap(child)?;
        Ok([durable, spawned])
    }

    async fn cli(&mut self, samples: usize) -> Result<Vec<Row>> {
        let (mut ours, mut floor) = (Samples::default(), Samples::default());
        for number in 0..samples {
            let project = name(number);
            let began = now_nanos();
            let asked = self.mirrorctl(&["project", "run", &project])?;
            ours.push(between(began, self.stamps.next().await?));
            api::reap(asked)?;
            api::ended(&self.client, &format!("projects/{project}/runs/-")).await?;
            tokio::time::sleep(REST).await;

            let began = Instant::now();
            api::reap(self.mirrorctl(&["project", "show", &project])?)?;
            let read = began.elapsed();
            floor.push(self.least().await?.iter().sum::<Duration>() + read);
        }
        let agent = self.fleet.agents[0].as_mut().and_then(Process::exited);
        ensure!(agent.is_none(), "the agent ended: {agent:?}");
        let over = ratio(ours.median(), floor.median());
        let target = format!("p50 ≤ {:.1} ms (peer)", millis(PEER_CLI));
        Ok(vec![
            Row::new("trigger → rsync exists, mirrorctl, p50 / p99", ours.show())
                .floor(floor.show(), over)
                .target(target, ours.median() <= PEER_CLI),
        ])
    }

    fn mirrorctl(&self, args: &[&str]) -> std::io::Result<std::process::Child> {
        self.fleet
            .command("mirrorctl", args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }
}
