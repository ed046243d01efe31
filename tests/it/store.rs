//! The coordinator's store as an administrator meets it: a disk that fails and is mended while it works, backups under
//! load, moving and compacting.

use std::{
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fleet_tests::{Finished, Fleet, FleetOptions, Process, eventually, eventually_within, fleet::HTTP_PORT};
use rustix::process::Signal;

const WRITERS: usize = 8;
/// How long a store that is tried again every ten seconds may take to be found mended.
const MENDED: Duration = Duration::from_secs(60);
/// A term above this one is the time of a restore, not a count of starts.
const COUNTED_TERMS: u64 = 1_000;

fn fleet() -> Fleet {
    Fleet::start(FleetOptions::default()).expect("a fleet starts")
}

fn projects(fleet: &Fleet) -> Vec<String> {
    let list = fleet.json(&["project", "list"]);
    let list = list["projects"].as_array().expect("a list");
    list.iter()
        .filter_map(|project| Some(project["name"].as_str()?.strip_prefix("projects/")?.to_owned()))
        .collect()
}

fn readyz(fleet: &Fleet) -> String {
    let url = format!("http://{}:{HTTP_PORT}/readyz", fleet.address());
    Finished::run(Command::new("curl").args(["-sS", "-m", "10", &url])).stdout
}

/// Runs one of the coordinator's commands on its own configuration.
fn offline(fleet: &Fleet, command: &str, more: &[&str]) -> Finished {
    let config = fleet.coordinator_dir().join("coordinator.toml");
    let mut args = vec![command, "--config", config.to_str().expect("a plain path")];
    args.extend(more);
    Finished::run(&mut fleet.command("mirror-coordinator", &args))
}

fn stop(fleet: &mut Fleet) {
    assert!(fleet.coordinator.take().expect("it runs").stop().success());
}

/// The term of the newest start.
fn term(fleet: &Fleet) -> u64 {
    let log = fs::read_to_string(fleet.path().join("coordinator.log")).expect("it has a log");
    let line =
        log.lines().rfind(|line| line.contains("the fleet is recovered from the store")).expect("it started");
    let plain: String = line.replace("\u{1b}[3m", "").replace("\u{1b}[0m", "").replace("\u{1b}[2m", "");
    let at = plain.find("term=").expect("it names its term") + "term=".len();
    plain[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number")
}

#[test]
fn a_disk_that_fails_stops_writes_only_and_heals_without_a_restart() {
    let mut fleet = fleet();
    fleet.add_project("before", &["--paused"]).ok();
    let pid = fleet.coordinator.as_ref().expect("it runs").pid().to_string();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-p", &pid]);
    strace.args(["-e", "trace=fdatasync,fsync,pwrite64,sync_file_range"]);
    strace.args(["-e", "inject=fdatasync,fsync,pwrite64,sync_file_range:error=EIO"]);
    let mut broken = match Process::start("strace", &mut strace, &fleet.path().join("strace.log")) {
        Ok(process) => process,
        Err(error) => return println!("skipped: {error}"),
    };
    let attached = eventually("the disk is broken", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let traced = status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"));
        traced.then_some(true).or_else(|| broken.exited().map(|_| false))
    });
    if !attached {
        return println!("skipped: no tracing here: {}", broken.output());
    }

    let refused = fleet.add_project("meanwhile", &["--paused", "--timeout", "5s"]);
    assert_eq!(refused.code, 6, "{}", refused.stderr);
    assert_eq!(projects(&fleet), ["before"], "reads are answered, with what was acknowledged");
    assert!(readyz(&fleet).contains("not ready: the store does not take writes"), "{}", readyz(&fleet));
    eventually_within(MENDED, "the status says so", || {
        let warnings = fleet.mirrorctl(&["status"]).ok().stdout;
        warnings.contains("the store takes no writes").then_some(())
    });

    broken.signal(Signal::TERM);
    eventually("the disk is mended", || broken.exited());
    // What was refused when the disk had just failed may be there all the same: so each try has a name of its own.
    let mut tries = 0;
    let after = eventually_within(MENDED, "it takes writes again by itself", || {
        tries += 1;
        let name = format!("after-{tries}");
        (fleet.add_project(&name, &["--paused", "--timeout", "5s"]).code == 0).then_some(name)
    });
    assert!(readyz(&fleet).starts_with("ready"));
    fleet.await_connected("edge1");
    fleet.kill_coordinator();
    fleet.start_coordinator().expect("it starts again");
    let there = projects(&fleet);
    assert!(["before", &after].iter().all(|name| there.contains(&(*name).to_owned())), "{there:?}");
}

/// Tells the writers that it is over, also when the test panics before: a scope waits for its threads.
struct TellsOver<'a>(&'a AtomicBool);

impl Drop for TellsOver<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_backup_taken_under_eight_writers_restores_all_that_was_acknowledged_before_it() {
    let mut fleet = fleet();
    let file = fleet.path().join("fleet.backup");
    let (over, done) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let before = std::thread::scope(|scope| {
        let tells_over = TellsOver(&over);
        for writer in 0..WRITERS {
            let (fleet, over, done) = (&fleet, &over, &done);
            scope.spawn(move || {
                for count in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("p-{writer}-{count}");
                    fleet.add_project(&name, &["--paused", "-q"]).ok();
                    done.lock().expect("no writer panicked").push(name);
                }
            });
        }
        eventually("the writers write", || {
            (done.lock().expect("no writer panicked").len() >= 3 * WRITERS).then_some(())
        });
        let before = done.lock().expect("no writer panicked").clone();
        let taken = fleet.mirrorctl(&["backup", file.to_str().expect("a plain path")]);
        drop(tells_over);
        let said = taken.ok().stdout;
        assert!(said.starts_with("Backup of ") && said.contains("read again and whole"), "{said}");
        before
    });
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    let left = fs::read_dir(fleet.coordinator_dir().join("backups")).expect("a folder").count();
    assert_eq!(left, 0, "nothing of it is left on the coordinator's disk");

    stop(&mut fleet);
    // A damaged one is refused whole.
    let bad = fleet.path().join("bad.backup");
    fs::copy(&file, &bad).expect("a copy");
    fs::File::options().write(true).open(&bad).expect("it opens").write_all_at(b"X", 4_000).expect("damage");
    let refused = offline(&fleet, "restore", &[bad.to_str().expect("a plain path")]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("bad.backup") && refused.stderr.contains("no good"),
        "{}",
        refused.stderr
    );

    offline(&fleet, "restore", &[file.to_str().expect("a plain path")]).ok();
    fleet.start_coordinator().expect("it starts from the backup");
    let there = projects(&fleet);
    let lost: Vec<_> = before.iter().filter(|name| !there.contains(name)).collect();
    assert!(lost.is_empty(), "acknowledged before the backup and not in it: {lost:?}");
    assert!(term(&fleet) > COUNTED_TERMS, "a restore goes back in time");
    fleet.await_connected("edge1");
}

#[test]
fn compacting_and_moving_a_store_goes_back_in_no_time() {
    let mut fleet = fleet();
    fleet.add_project("debian", &[]).ok();
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    let export = fleet.path().join("fleet.export");
    let export = export.to_str().expect("a plain path").to_owned();
    let running = offline(&fleet, "compact", &[]);
    assert_eq!(running.code, 5, "never under a coordinator: {}", running.stderr);

    stop(&mut fleet);
    let said = offline(&fleet, "compact", &[]).ok().stdout;
    assert!(said.contains("bytes and has"), "{said}");
    fleet.start_coordinator().expect("it starts again");
    fleet.await_connected("edge1");
    assert!(term(&fleet) < COUNTED_TERMS);

    stop(&mut fleet);
    offline(&fleet, "export", &[&export]).ok();
    let refused = offline(&fleet, "import", &[&export]);
    assert_eq!(refused.code, 5, "never over a store: {}", refused.stderr);
    assert!(refused.stderr.contains("--replace"), "{}", refused.stderr);
    let said = offline(&fleet, "import", &["--replace", &export]).ok().stdout;
    assert!(said.contains("agents notice nothing") && said.contains("is kept in"), "{said}");
    fleet.start_coordinator().expect("it starts again");
    fleet.await_connected("edge1");
    assert!(term(&fleet) < COUNTED_TERMS, "the export was the newest state there was");
    assert_eq!(fleet.runs("debian").len(), 1);

    // The same export once more, when the store has gone on: that is a restore.
    fleet.add_project("later", &["--paused"]).ok();
    stop(&mut fleet);
    let said = offline(&fleet, "import", &["--replace", &export]).ok().stdout;
    assert!(!said.contains("agents notice nothing"), "{said}");
    fleet.start_coordinator().expect("it starts again");
    assert!(term(&fleet) > COUNTED_TERMS);
    assert_eq!(projects(&fleet), ["debian"]);
}
