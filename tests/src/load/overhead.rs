//! What the fleet adds to the bare rsync command, the same words in both: wall and CPU of a long sync, the fixed
//! cost of a sync that finds nothing to do, and the memory of the supervisor meanwhile.

use std::{
    fs::{self, File},
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fleet_tests::{Fleet, FleetOptions, eventually, process};
use mirror_agent::rundir::ProgramSpec;
use mirror_proto::v1;
use mirrorctl::client::Client;
use rustix::process::Signal;
use tokio::runtime::Runtime;

use crate::{
    Size, api,
    proc::{self, mib},
    table::{Row, Samples, millis, ratio},
};

/// Bytes of each file of the long sync.
const FILE_BYTES: usize = 64 * 1_024;
/// KiB/s of the long sync: 4,096 files take some 10 s.
const BANDWIDTH_KIB: u64 = 25_000;
/// Files of the sync that finds nothing to do.
const SMALL_FILES: usize = 10;
/// Targets of document 7.
const WALL_TARGET: f64 = 1.02;
const CPU_TARGET: f64 = 1.03;
const FIXED_TARGET: Duration = Duration::from_millis(15);
const SUPERVISOR_TARGET: u64 = 3 << 20;

/// A fleet with one project, and the command that its agent runs for it.
struct Bench<'a> {
    runtime: &'a Runtime,
    fleet: Fleet,
    client: Client,
    spec: ProgramSpec,
    supervisor: proc::Memory,
}

impl<'a> Bench<'a> {
    fn start(runtime: &'a Runtime, files: usize, bandwidth_limit_kib: u64) -> Result<Self> {
        let fleet = Fleet::start(FleetOptions { files, file_bytes: FILE_BYTES, ..FleetOptions::default() })?;
        let client = runtime.block_on(api::connect(&fleet))?;
        let mut project = api::project("p", &fleet.upstream.uri(), "edge1");
        project.rsync = Some(v1::RsyncSettings { bandwidth_limit_kib, ..v1::RsyncSettings::default() });
        runtime.block_on(api::declare(&client, vec![project]))?;
        let (spec, supervisor) = first_sync(runtime, &fleet, &client)?;
        Ok(Self { runtime, fleet, client, spec, supervisor })
    }

    fn tree(&self) -> PathBuf {
        self.fleet.root(0).join("p")
    }

    fn empty(&self) -> Result<()> {
        fs::remove_dir_all(self.tree())?;
        fs::create_dir(self.tree())?;
        Ok(())
    }

    /// From the call to the moment its end is told.
    fn ours(&self) -> Result<Duration> {
        let began = Instant::now();
        self.runtime.block_on(async {
            let run = api::run(&self.client, "p").await?;
            api::ended(&self.client, &run).await
        })?;
        Ok(began.elapsed())
    }

    fn bare(&self) -> Result<Duration> {
        let text = |bytes: &Vec<u8>| std::ffi::OsString::from_vec(bytes.clone());
        let began = Instant::now();
        let output = File::create(self.fleet.path().join("bare.log"))?;
        let (program, args) = self.spec.argv.split_first().context("a command has a program")?;
        let mut command = Command::new(text(program));
        command.args(args.iter().map(text)).current_dir(&self.spec.cwd).stdin(Stdio::null());
        command.env_clear().envs(self.spec.env.iter().map(|(name, value)| (text(name), text(value))));
        let status = command.stdout(output.try_clone()?).stderr(output).status()?;
        ensure!(status.success(), "rsync ended with {status}");
        Ok(began.elapsed())
    }

    /// CPU of coordinator and agent together.
    fn cpu(&self) -> Result<proc::Cpu> {
        let agent = self.fleet.agents[0].as_ref().context("an agent")?;
        let coordinator = self.fleet.coordinator.as_ref().context("a coordinator")?;
        let (agent, coordinator) = (proc::cpu(agent.pid())?, proc::cpu(coordinator.pid())?);
        Ok(proc::Cpu { own: agent.own + coordinator.own, all: agent.all + coordinator.all })
    }
}

/// The first sync waits at a stopped upstream until its command, and its supervisor, were looked at.
fn first_sync(runtime: &Runtime, fleet: &Fleet, client: &Client) -> Result<(ProgramSpec, proc::Memory)> {
    process::send_signal(fleet.upstream.pid(), Signal::STOP);
    let run = runtime.block_on(api::run(client, "p"))?;
    let runs = fleet.agent_dir(0).join("runs");
    let spec = eventually("the agent writes the command down", || {
        let path = specs(&runs)?;
        serde_json::from_slice::<ProgramSpec>(&fs::read(path).ok()?).ok()
    });
    let text = runs.display().to_string();
    let supervisor = eventually("its supervisor runs", || {
        let supervises = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(2) == Some(b"supervise".as_slice())
        };
        process::living_with(&text).into_iter().find(supervises)
    });
    // Its own start is over once it writes down what its program does.
    eventually("rsync runs", || {
        let progress = specs(&runs)?.with_file_name("progress");
        fs::read_to_string(progress).ok()?.contains("pid").then_some(())
    });
    let memory = proc::memory(supervisor)?;
    process::send_signal(fleet.upstream.pid(), Signal::CONT);
    runtime.block_on(api::ended(client, &run))?;
    Ok((spec, memory))
}

fn specs(runs: &Path) -> Option<PathBuf> {
    let attempts = fs::read_dir(runs).ok()?.flatten();
    attempts.map(|attempt| attempt.path().join("pull-1/spec.json")).find(|path| path.exists())
}

/// A long sync, and its supervisor's memory.
pub(crate) fn long(runtime: &Runtime, size: Size) -> Result<Vec<Row>> {
    let bench = Bench::start(runtime, size.pick(256, 4_096), BANDWIDTH_KIB)?;
    let pairs = size.pick(1, 4);
    let own = std::process::id();
    let (mut ours, mut bare) = (Samples::default(), Samples::default());
    let (mut ours_cpu, mut own_cpu, mut bare_cpu) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for _ in 0..pairs {
        bench.empty()?;
        let before = bench.cpu()?;
        ours.push(bench.ours()?);
        let after = bench.cpu()?;
        ours_cpu += after.all.saturating_sub(before.all);
        own_cpu += after.own.saturating_sub(before.own);
        bench.empty()?;
        // This process waits for the bare rsync and does next to nothing besides.
        let before = proc::cpu(own)?.all;
        bare.push(bench.bare()?);
        bare_cpu += proc::cpu(own)?.all.saturating_sub(before);
    }
    let wall = ratio(ours.median(), bare.median());
    let cpu = ratio(ours_cpu, bare_cpu);
    let each =
        |total: Duration| format!("{:.0} ms", millis(total) / f64::from(u32::try_from(pairs).unwrap_or(1)));
    Ok(vec![
        Row::new(format!("long sync, wall, median of {pairs}"), format!("{:.0} ms", millis(ours.median())))
            .floor(format!("{:.0} ms bare rsync", millis(bare.median())), wall)
            .target("ratio ≤ 1.02", wall <= WALL_TARGET),
        Row::new("long sync, CPU of coordinator, agent and rsync", each(ours_cpu))
            .floor(format!("{} bare rsync", each(bare_cpu)), cpu)
            .target("ratio ≤ 1.03", cpu <= CPU_TARGET),
        Row::new("  of it: coordinator and agent themselves", each(own_cpu)),
        Row::new("supervisor of one sync, RSS (PSS, private)", show(bench.supervisor))
            .target("PSS ≤ 3 MiB", bench.supervisor.pss <= SUPERVISOR_TARGET),
    ])
}

/// A sync that finds nothing to do.
pub(crate) fn fixed(runtime: &Runtime, size: Size) -> Result<Vec<Row>> {
    let bench = Bench::start(runtime, SMALL_FILES, 0)?;
    let (mut ours, mut bare) = (Samples::default(), Samples::default());
    for _ in 0..size.pick(5, 50) {
        ours.push(bench.ours()?);
        bare.push(bench.bare()?);
    }
    let fixed = ours.median().saturating_sub(bare.median());
    Ok(vec![
        Row::new("sync with nothing to do, call → end told, p50 / p99", ours.show())
            .floor(format!("{} bare rsync", bare.show()), ratio(ours.median(), bare.median())),
        Row::new("  fixed cost: difference of the medians", format!("{:.1} ms", millis(fixed)))
            .peer("5.6 ms (peer, by its own stamps)")
            .target("≤ 15 ms", fixed <= FIXED_TARGET),
    ])
}

/// Memory as the table shows it.
pub(crate) fn show(memory: proc::Memory) -> String {
    format!("{} ({}, {})", mib(memory.rss), mib(memory.pss), mib(memory.private))
}
