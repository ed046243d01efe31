//! `make load`: latencies, rates and memory of whole fleets of the real programs, each figure beside the floor of
//! the same run and beside its target. Figures are to be read as ratios: the machine may be shared. `--quick`
//! makes few samples of everything, to see that it runs; its figures mean little.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a load generator starts programs, reads the clock and prints"
)]

mod api;
mod apply;
mod burst;
mod commits;
mod fires;
mod idle;
mod list;
mod overhead;
mod proc;
mod propagation;
mod table;
mod trigger;

use std::{
    fs,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fleet_tests::Finished;
use tokio::runtime::Runtime;

use crate::{
    api::Disk,
    table::{Row, Samples},
};

/// Records made durable to tell how fast the disk is.
const DISK_SAMPLES: usize = 200;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// A few samples: does it run?
    Quick,
    /// Enough to read the figures.
    Full,
}

impl Size {
    /// The first for a quick run, the second for a full one.
    pub(crate) fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

type Part = fn(&Runtime, Size) -> Result<Vec<Row>>;

/// What can be measured, by name.
const PARTS: [(&str, Part); 10] = [
    ("trigger", trigger::rows),
    ("propagation", propagation::rows),
    ("burst", burst::rows),
    ("commits", commits::rows),
    ("apply", apply::rows),
    ("fires", fires::rows),
    ("overhead", overhead::long),
    ("fixed", overhead::fixed),
    ("idle", idle::rows),
    ("list", list::rows),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let size = if args.iter().any(|arg| arg == "--quick") { Size::Quick } else { Size::Full };
    let named: Vec<&str> = args.iter().map(String::as_str).filter(|arg| *arg != "--quick").collect();
    if named.iter().any(|name| PARTS.iter().all(|(known, _)| known != name)) {
        let known = PARTS.map(|(name, _)| name).join(", ");
        println!("usage: make load [ARGS=\"[--quick] [PART…]\"], parts: {known}");
        return ExitCode::from(2);
    }
    match measure(size, &named) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("✗ not measured: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(size: Size, named: &[&str]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let began = Instant::now();
    println!("{}", machine()?);
    let mut rows = Vec::new();
    for (name, part) in PARTS.iter().filter(|(name, _)| named.is_empty() || named.contains(name)) {
        let from = Instant::now();
        rows.extend(part(&runtime, size).with_context(|| (*name).to_owned())?);
        println!("{name}: {:.0} s", from.elapsed().as_secs_f64());
    }
    println!(
        "\n{}\n{} s, load average at the end {}",
        table::render(&rows),
        began.elapsed().as_secs(),
        load()?
    );
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

/// On what it is measured.
fn machine() -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let rsync = Finished::run(Command::new("rsync").arg("--version")).ok().stdout;
    let rsync = rsync.lines().next().unwrap_or_default().split_whitespace().nth(2).unwrap_or("?");
    let dir = commits::private_dir()?;
    let mut disk = Disk::create(dir.path())?;
    let mut samples = Samples::default();
    for _ in 0..DISK_SAMPLES {
        let from = Instant::now();
        disk.durable()?;
        samples.push(from.elapsed());
    }
    Ok(format!(
        "{cores} cores, Linux {}, rsync {rsync}, load average {}; a record with fdatasync, p50 / p99: {}",
        kernel.trim(),
        load()?,
        samples.show()
    ))
}

fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}
