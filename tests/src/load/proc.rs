//! What Linux says of processes: memory and CPU. Knows no process by name.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// Ticks of `/proc/PID/stat` in a second (`USER_HZ`, fixed on every architecture).
const USER_HZ: u64 = 100;

/// Memory of a process, bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Resident, shared pages included.
    pub(crate) rss: u64,
    /// Resident, shared pages by share.
    pub(crate) pss: u64,
    /// Resident and nobody else's.
    pub(crate) private: u64,
}

/// The memory of a process now.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("reading smaps_rollup")?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.map(|kib| kib * 1_024).with_context(|| format!("smaps_rollup has {name}"))
    };
    let private = field("Private_Clean")? + field("Private_Dirty")?;
    Ok(Memory { rss: field("Rss")?, pss: field("Pss")?, private })
}

/// CPU that a process has used, exact to a hundredth of a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    /// By itself.
    pub(crate) own: Duration,
    /// By itself and by all children that it has waited for.
    pub(crate) all: Duration,
}

/// The CPU that a process has used until now.
pub(crate) fn cpu(pid: u32) -> Result<Cpu> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("reading stat")?;
    let (_, rest) = stat.rsplit_once(')').context("stat has a name")?;
    // Behind the name: the state is field 3 of proc_pid_stat(5), utime to cstime are 14 to 17.
    let words = rest.split_whitespace().skip(11).take(4);
    let ticks: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    let time = |ticks: &[u64]| Duration::from_millis(ticks.iter().sum::<u64>() * 1_000 / USER_HZ);
    Ok(Cpu { own: time(ticks.get(..2).context("stat is short")?), all: time(&ticks) })
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> String {
    let kib = u32::try_from(bytes / 1_024).unwrap_or(u32::MAX);
    format!("{:.1} MiB", f64::from(kib) / 1_024.0)
}
