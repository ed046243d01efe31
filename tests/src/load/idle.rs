//! A fleet that has nothing to do: memory of its programs, the start of an empty coordinator, and the size of
//! the programs.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fleet_tests::{Finished, Fleet, FleetOptions, Process, eventually, fleet::HTTP_PORT, program};
use tokio::runtime::Runtime;

use crate::{
    Size, api,
    overhead::show,
    proc::{self, mib},
    table::{Row, Samples, ratio},
};

/// Time to come to rest before memory is looked at.
const REST: Duration = Duration::from_secs(5);
/// Between two tries to reach a coordinator that starts.
const LOOK: Duration = Duration::from_micros(200);
/// Targets of document 7.
const COORDINATOR_TARGET: u64 = 30 << 20;
const AGENT_TARGET: u64 = 12 << 20;
const START_TARGET: Duration = Duration::from_millis(50);
const PROGRAM_TARGET: u64 = 25 << 20;

/// The rows.
pub(crate) fn rows(runtime: &Runtime, size: Size) -> Result<Vec<Row>> {
    let mut rows = start(size)?;
    rows.extend(memory(runtime, size)?);
    rows.extend(programs()?);
    Ok(rows)
}

/// From the spawn of an empty coordinator to its first good answer.
fn start(size: Size) -> Result<Vec<Row>> {
    let mut fleet = Fleet::prepare(FleetOptions { files: 1, ..FleetOptions::default() })?;
    let (mut ours, mut floor) = (Samples::default(), Samples::default());
    for _ in 0..size.pick(2, 10) {
        let mut command = fleet.command("mirror-coordinator", &["run", "--config"]);
        command.arg(fleet.coordinator_dir().join("coordinator.toml"));
        let began = Instant::now();
        let mut coordinator =
            Process::start("coordinator", &mut command, &fleet.path().join("coordinator.log"))?;
        await_ready(&fleet, &mut coordinator)?;
        ours.push(began.elapsed());
        ensure!(coordinator.stop().success(), "the coordinator stops in order");
        let began = Instant::now();
        Finished::run(&mut fleet.command("mirror-coordinator", &["--version"])).ok();
        floor.push(began.elapsed());
    }
    fleet.coordinator = None;
    Ok(vec![
        Row::new("start of an empty coordinator → ready, p50 / p99", ours.show())
            .floor(format!("{} for --version; peer 7 ms", floor.show()), ratio(ours.median(), floor.median()))
            .target("≤ 50 ms", ours.median() <= START_TARGET),
    ])
}

fn await_ready(fleet: &Fleet, coordinator: &mut Process) -> Result<()> {
    loop {
        if let Some(status) = coordinator.exited() {
            anyhow::bail!("the coordinator ended ({status}):\n{}", coordinator.output());
        }
        if ready(fleet).unwrap_or(false) {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}

fn ready(fleet: &Fleet) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((fleet.address(), HTTP_PORT))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

fn memory(runtime: &Runtime, size: Size) -> Result<Vec<Row>> {
    let projects = size.pick(100, 1_000);
    let mut fleet = Fleet::start(FleetOptions { files: 1, ..FleetOptions::default() })?;
    let rest = size.pick(Duration::from_secs(1), REST);
    std::thread::sleep(rest);
    let empty = coordinator(&fleet)?;
    let agent = proc::memory(fleet.agents[0].as_ref().context("an agent")?.pid())?;
    let took = runtime.block_on(async {
        let client = api::connect(&fleet).await?;
        let uri = fleet.upstream.uri();
        let all = (0..projects).map(|number| api::project(&format!("p{number}"), &uri, "edge1")).collect();
        let began = Instant::now();
        api::declare(&client, all).await?;
        anyhow::Ok(began.elapsed())
    })?;
    let stopped = fleet.coordinator.as_mut().context("a coordinator")?.stop();
    ensure!(stopped.success(), "the coordinator stops in order");
    fleet.start_coordinator()?;
    eventually("the agent is back", || {
        (fleet.json(&["agent", "show", "edge1"])["connected"] == true).then_some(())
    });
    std::thread::sleep(rest);
    let full = coordinator(&fleet)?;
    let rate = f64::from(u32::try_from(projects)?) / took.as_secs_f64();
    Ok(vec![
        Row::new("durable CreateProject/s over gRPC, one connection, 64 at once", format!("{rate:.0}/s"))
            .peer("141/s (peer's status updates)"),
        Row::new("coordinator, idle, no project, RSS (PSS, private)", show(empty)).peer("18.0 MiB (peer)"),
        Row::new(format!("coordinator, idle, {projects} projects, after a restart"), show(full))
            .peer("23.9 MiB (peer)")
            .target("RSS ≤ 30 MiB", full.rss <= COORDINATOR_TARGET),
        Row::new("agent, idle, RSS (PSS, private)", show(agent))
            .peer("17.6 MiB (peer)")
            .target("RSS ≤ 12 MiB", agent.rss <= AGENT_TARGET),
    ])
}

fn coordinator(fleet: &Fleet) -> Result<proc::Memory> {
    proc::memory(fleet.coordinator.as_ref().context("a coordinator")?.pid())
}

/// Sizes of stripped copies: that is what is shipped.
fn programs() -> Result<Vec<Row>> {
    let dir = tempfile::tempdir()?;
    let mut rows = Vec::new();
    for name in ["mirror-coordinator", "mirror-agent", "mirror-supervise", "mirrorctl"] {
        let copy = dir.path().join(name);
        let mut strip = Command::new("strip");
        Finished::run(strip.arg("-o").arg(&copy).arg(program(name))).ok();
        let bytes = fs::metadata(&copy)?.len();
        let row = Row::new(format!("{name}, stripped"), mib(bytes));
        rows.push(row.target("≤ 25 MiB", bytes <= PROGRAM_TARGET));
    }
    Ok(rows)
}
