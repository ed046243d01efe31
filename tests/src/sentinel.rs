//! A sentinel: while faults happen, it looks at the processes again and again, and remembers every moment at which
//! two programs wrote to one tree, or one wrote without its lock. Knows the agent's root and nothing of the fleet.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::process::living_with;

/// Between two looks. An overlap is as long as a program needs to notice it: far longer.
const PACE: Duration = Duration::from_millis(10);
/// A writer that is ending has closed its files before it is gone: only one that stays without its lock has none.
const LOCK_LOOKS: usize = 5;

/// An rsync process that writes below an agent's root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Writer {
    /// Its process id.
    pub pid: u32,
    /// Its process group: all of one program run have the same, and no two runs have.
    pub group: u32,
    /// Start time, field 22 of proc_pid_stat(5): tells a process from a later one of the same id.
    pub start_ticks: u64,
    /// The tree, as the last word of its command line.
    pub tree: String,
}

impl Writer {
    fn is_there(&self) -> bool {
        stat(self.pid) == Some((self.group, self.start_ticks))
    }

    /// It has a descriptor with a flock on a file below `locks`.
    fn has_lock(&self, locks: &Path) -> bool {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid)).into_iter().flatten().flatten();
        descriptors.filter(|one| fs::read_link(one.path()).is_ok_and(|to| to.starts_with(locks))).any(|one| {
            let info = format!("/proc/{}/fdinfo/{}", self.pid, one.file_name().to_string_lossy());
            fs::read_to_string(info).is_ok_and(|text| text.contains("FLOCK"))
        })
    }
}

/// The processes that write below an agent's root now.
#[must_use]
pub fn writers(root: &Path) -> Vec<Writer> {
    let text = root.display().to_string();
    let found = living_with(&text).into_iter().filter_map(|pid| {
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        if program.file_name()? != "rsync" {
            return None;
        }
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let tree = line.split('\0').rfind(|word| !word.is_empty())?.trim_end_matches('/').to_owned();
        let (group, start_ticks) = stat(pid)?;
        tree.starts_with(&text).then_some(Writer { pid, group, start_ticks, tree })
    });
    found.collect()
}

/// The supervisors of an agent, known by its data directory.
#[must_use]
pub fn supervisors(data_dir: &Path) -> Vec<u32> {
    living_with(&format!("supervise --run-dir {}", data_dir.display()))
}

/// Process group and start time of a living process.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the fields behind it are counted from 3.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let alive = !matches!(*fields.first()?, "Z" | "X");
    alive.then_some((fields.get(2)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

/// What a sentinel saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// How often it looked.
    pub looks: u64,
    /// The program runs that wrote, by process group.
    pub groups: BTreeSet<u32>,
    /// What must never be, in words.
    pub faults: BTreeSet<String>,
}

/// A thread that watches one root. Dropping it ends it.
#[derive(Debug)]
pub struct Sentinel {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

impl Sentinel {
    /// Begins to watch the trees below a root.
    #[must_use]
    pub fn watch(root: &Path) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (seen, root) = (Arc::clone(&ended), root.to_owned());
        let thread = thread::spawn(move || {
            let mut report = Seen::default();
            while !seen.load(Ordering::Relaxed) {
                look(&root, &root.join(".mirror/locks"), &mut report);
                thread::sleep(PACE);
            }
            report
        });
        Self { ended, thread: Some(thread) }
    }

    /// Ends it, and says what it saw.
    ///
    /// # Panics
    /// When its thread did.
    #[must_use]
    pub fn end(mut self) -> Seen {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).expect("the sentinel's thread ends")
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn look(root: &Path, locks: &Path, report: &mut Seen) {
    report.looks += 1;
    let writers = writers(root);
    for (index, one) in writers.iter().enumerate() {
        report.groups.insert(one.group);
        for other in &writers[index + 1..] {
            let two_runs = one.group != other.group && one.tree == other.tree;
            // A look takes a while: only what is still there when the other was seen was there together.
            if two_runs && one.is_there() {
                report.faults.insert(format!("two programs write to {}: {one:?} and {other:?}", one.tree));
            }
        }
        let lacks = |_| {
            let lacks = one.is_there() && !one.has_lock(locks) && one.is_there();
            thread::sleep(Duration::from_millis(if lacks { 2 } else { 0 }));
            lacks
        };
        if (0..LOCK_LOOKS).all(lacks) {
            report.faults.insert(format!("{one:?} writes without a lock"));
        }
    }
}
