//! What happens when the supervisor or the program leaves processes behind (invariant I7).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mirror_agent::rundir::{EndedBy, ProgramStatus, RunDir, RunDirError};

use crate::harness::{Run, SUPERVISE, eventually, is_alive, sh, signal};
use rustix::process::Signal;

#[test]
fn a_child_that_outlives_its_parent_is_killed_with_the_run() {
    let run = Run::start(&sh("(trap '' TERM; exec sleep 1000) & echo $!; exit 12"));
    let exit = run.exit();
    assert_eq!((exit.code, exit.ended_by), (Some(12), EndedBy::Itself));
    assert!(!is_alive(run.first_line().parse().unwrap()));
}

#[test]
fn a_child_with_a_session_of_its_own_is_killed_with_the_run() {
    // The script waits for a mark, so that the child surely is in its new session.
    let mut spec = sh("setsid sh -c 'trap \"\" TERM; echo $$; echo > \"$0\"; exec sleep 1000' \"$0\" & \
                       until [ -s \"$0\" ]; do sleep 0.01; done; exit 0");
    let flag = tempfile::NamedTempFile::new().unwrap();
    spec.argv.push(flag.path().to_str().unwrap().into());
    let run = Run::start(&spec);
    assert_eq!(run.exit().code, Some(0));
    assert!(!is_alive(run.first_line().parse().unwrap()));
}

#[test]
fn without_its_supervisor_a_program_is_told_to_end_by_the_kernel() {
    let run = Run::start(&sh("exec sleep 1000"));
    let program = run.running_pid();
    run.kill_supervisor();
    eventually("the program has ended", || (!is_alive(program)).then_some(()));
}

#[test]
fn orphans_of_a_killed_supervisor_hold_the_lock_until_stop_ends_them() {
    let mut spec = sh("trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000");
    spec.term_grace = Duration::from_millis(100);
    let run = Run::start(&spec);
    let child: u32 = run.first_line().parse().unwrap();
    let program = run.running_pid();
    assert!(run.lock().is_none(), "the run holds the lock, its starter does not any more");
    run.kill_supervisor();
    assert!(is_alive(program) && is_alive(child));
    assert!(run.lock().is_none(), "an orphan still holds the lock");
    // As a new agent would find it.
    let found = RunDir::open(run.dir.path()).unwrap();
    assert_eq!(found.status().unwrap(), ProgramStatus::Vanished);
    assert!(matches!(RunDir::open(run.dir.path()).unwrap().remove(), Err(RunDirError::StillRunning(_))));
    found.stop("the agent was restarted").unwrap();
    assert!(!is_alive(program) && !is_alive(child));
    assert!(run.lock().is_some());
    found.remove().unwrap();
}

#[test]
fn a_stopped_supervisor_is_woken_to_obey() {
    let run = Run::start(&sh("exec sleep 1000"));
    run.running_pid();
    signal(run.supervisor_pid(), Signal::STOP);
    run.dir.stop("enough").unwrap();
    assert_eq!(run.exit().ended_by, EndedBy::Stop("enough".into()));
}

#[test]
fn a_stopped_program_is_stalled_and_killed() {
    let mut spec = sh("exec sleep 1000");
    spec.stall_timeout = Duration::from_millis(500);
    spec.term_grace = Duration::from_millis(100);
    let run = Run::start(&spec);
    signal(run.running_pid(), Signal::STOP);
    let exit = run.exit();
    assert_eq!((exit.signal, exit.ended_by), (Some(9), EndedBy::Stalled));
}

#[test]
fn a_record_of_another_process_or_boot_kills_nobody() {
    let run = Run::start(&sh("exec sleep 1000"));
    let program = run.running_pid();
    let json = fs::read(run.dir.path().join("supervisor.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&json).unwrap();
    for (key, value) in [("start_ticks", serde_json::json!(u64::MAX)), ("boot_id", "another".into())] {
        let mut stale = record.clone();
        stale[key] = value;
        let other = Run::create(&sh("exit 0"));
        fs::write(other.dir.path().join("supervisor.json"), stale.to_string()).unwrap();
        assert_eq!(other.dir.status().unwrap(), ProgramStatus::Vanished, "{key}");
        other.dir.stop("whoever it is").unwrap();
        assert!(is_alive(program), "{key}");
    }
}

/// A cgroup below the root of the v2 hierarchy, as a service manager would delegate it.
struct Delegated(PathBuf);

impl Delegated {
    fn create() -> Option<Delegated> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let path =
            Path::new(line.split(' ').nth(4)?).join(format!("mirror-agent-test-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        path.join("cgroup.kill").exists().then_some(Delegated(path))
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_cgroup_ends_even_what_left_the_session_of_a_dead_supervisor() {
    let Some(cgroup) = Delegated::create() else {
        eprintln!("skipped: no writable cgroup v2 with cgroup.kill here");
        return;
    };
    let run = Run::create(&sh("setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 1000' & wait"));
    let wrapper = run.scratch("bin").join("agent");
    let procs = cgroup.0.join("cgroup.procs");
    fs::write(&wrapper, format!("#!/bin/sh\necho $$ > {}\nexec {SUPERVISE} \"$@\"\n", procs.display()))
        .unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    run.dir.start_with(&wrapper, None, &run.lock().unwrap()).unwrap();
    let escaped: u32 = run.first_line().parse().unwrap();
    run.kill_supervisor();
    assert!(is_alive(escaped));
    run.dir.stop("the agent was restarted").unwrap();
    eventually("the escaped child is dead", || (!is_alive(escaped)).then_some(()));
}
