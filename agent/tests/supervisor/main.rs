//! The supervisor and the jail as processes: real programs, real signals, real limits.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod harness;
mod jail;
mod orphans;
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{Run, SUPERVISE, eventually, is_alive, sh};
use mirror_agent::rundir::{EndedBy, ProgramStatus, RunDir, RunDirError};

#[test]
fn the_exit_code_and_both_outputs_are_kept() {
    let run = Run::start(&sh("echo out; echo err >&2; exit 23"));
    let exit = run.exit();
    assert_eq!((exit.code, exit.signal, &exit.ended_by), (Some(23), None, &EndedBy::Itself));
    assert_eq!((run.stdout().as_str(), run.stderr().as_str()), ("out\n", "err\n"));
    assert_eq!((exit.stdout_bytes, exit.stderr_bytes, exit.truncated), (4, 4, false));
    assert!(exit.started_ms > 0 && exit.ended_ms >= exit.started_ms);
    assert!(!is_alive(run.supervisor_pid()), "an exited run has no supervisor");
}

#[test]
fn a_signal_is_told_apart_from_a_code() {
    let exit = Run::start(&sh("kill -USR1 $$")).exit();
    assert_eq!((exit.code, exit.signal, exit.ended_by), (None, Some(10), EndedBy::Itself));
}

#[test]
fn environment_directory_and_session_are_the_specified_ones() {
    let mut spec = sh("env | sort | grep -v ^_= ; pwd; umask; cut -d' ' -f5,6 /proc/$$/stat; echo $$");
    spec.cwd = "/usr".into();
    let run = Run::start(&spec);
    run.exit();
    let output = run.stdout();
    let lines: Vec<&str> = output.lines().collect();
    let own_group = format!("{} {}", lines[lines.len() - 1], run.supervisor_pid());
    let expected = ["PATH=/usr/bin:/bin", "PWD=/usr", "/usr", "0022", &own_group];
    assert_eq!(lines[..lines.len() - 1], expected, "own process group in the supervisor's session");
}

#[test]
fn a_program_that_is_not_there_says_so() {
    let mut spec = sh("");
    spec.argv = vec![b"/absent/program".to_vec()];
    let run = Run::start(&spec);
    assert_eq!(run.exit().code, Some(127));
    assert!(
        run.stderr().starts_with("mirror-supervise jail: cannot execute /absent/program"),
        "{}",
        run.stderr()
    );
    spec.cwd = "/absent".into();
    let exit = Run::start(&spec).exit();
    assert!(
        matches!(&exit.ended_by, EndedBy::SupervisorFault(text) if text.contains("cannot start")),
        "{exit:?}"
    );
}

#[test]
fn a_program_that_ignores_term_is_killed_with_its_children_after_the_grace() {
    let mut spec = sh("trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000");
    spec.term_grace = Duration::from_millis(300);
    let run = Run::start(&spec);
    let child: u32 = run.first_line().parse().unwrap();
    run.dir.stop("the project was cancelled").unwrap();
    let exit = run.exit();
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
    assert_eq!(exit.ended_by, EndedBy::Stop("the project was cancelled".into()));
    assert!(!is_alive(child));
}

#[test]
fn a_program_that_obeys_term_ends_within_the_grace_with_its_own_code() {
    let run = Run::start(&sh("trap 'exit 20' TERM; echo ready; while :; do sleep 0.05; done"));
    run.first_line();
    run.dir.stop("first").unwrap();
    run.dir.stop("second").unwrap();
    let exit = run.exit();
    assert_eq!((exit.code, exit.ended_by), (Some(20), EndedBy::Stop("first".into())));
}

#[test]
fn a_run_that_is_stopped_before_its_start_never_runs() {
    let run = Run::create(&sh("echo ran"));
    assert_eq!(run.dir.status().unwrap(), ProgramStatus::Starting);
    run.dir.stop("too late").unwrap();
    run.dir.start_with(Path::new(SUPERVISE), None, &run.lock().unwrap()).unwrap();
    let exit = run.exit();
    assert_eq!((exit.code, exit.ended_by), (None, EndedBy::Stop("too late".into())));
    assert_eq!(run.stdout(), "");
}

#[test]
fn a_program_that_only_sleeps_is_stalled() {
    let mut spec = sh("exec sleep 1000");
    spec.stall_timeout = Duration::from_millis(600);
    let exit = Run::start(&spec).exit();
    assert_eq!((exit.signal, exit.ended_by), (Some(15), EndedBy::Stalled));
}

#[test]
fn burning_cpu_is_no_stall_but_ends_at_the_wall_clock() {
    let mut spec = sh("while :; do :; done");
    spec.stall_timeout = Duration::from_secs(4);
    spec.run_timeout = Some(Duration::from_secs(6));
    let exit = Run::start(&spec).exit();
    assert_eq!((exit.signal, exit.ended_by), (Some(15), EndedBy::WallClock));
}

#[test]
fn receiving_is_no_stall_also_in_children_that_are_gone() {
    let mut spec = sh("while :; do head -c 20000 /dev/zero >/dev/null; sleep 0.1; done");
    spec.stall_timeout = Duration::from_secs(1);
    spec.run_timeout = Some(Duration::from_secs(3));
    let run = Run::start(&spec);
    let received = eventually("bytes are counted", || match run.dir.status().unwrap() {
        ProgramStatus::Running { received, .. } if received > 60_000 => Some(received),
        ProgramStatus::Exited(exit) => panic!("ended early: {exit:?}"),
        _ => None,
    });
    assert!(received > 60_000);
    assert_eq!(run.exit().ended_by, EndedBy::WallClock);
}

#[test]
fn disk_writes_alone_are_no_stall() {
    const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
    // The build directory is on a disk where the temporary directory may not be.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let on_tmpfs = rustix::fs::statfs(dir.path()).unwrap().f_type == TMPFS_MAGIC;
    if on_tmpfs || !Path::new("/bin/bash").exists() {
        eprintln!("skipped: needs bash and a build directory on a block device");
        return;
    }
    // One process, no children, hardly any CPU and nothing read: only new pages of a file.
    let mut spec = sh("cd \"$0\"; mkfifo never; exec 3<>never; \
                       while printf %5000s x >> file; do read -t 0.1 -u 3; done");
    spec.argv[0] = b"/bin/bash".to_vec();
    spec.argv.push(dir.path().to_str().unwrap().into());
    spec.stall_timeout = Duration::from_secs(1);
    spec.run_timeout = Some(Duration::from_secs(3));
    let run = Run::start(&spec);
    let mut most = 0;
    let exit = eventually("the wall clock ends it", || match run.dir.status().unwrap() {
        ProgramStatus::Exited(exit) => Some(exit),
        ProgramStatus::Running { received, .. } => {
            most = received.max(most);
            None
        }
        ProgramStatus::Starting | ProgramStatus::Vanished => None,
    });
    assert_eq!(exit.ended_by, EndedBy::WallClock, "{}", run.stderr());
    assert!(most < 64 * 1024, "{most} bytes were read: this does not test disk writes");
}

#[test]
fn endless_output_stays_bounded_and_never_blocks_the_program() {
    let mut spec = sh("yes 'all work and no play'");
    spec.run_timeout = Some(Duration::from_secs(1));
    let run = Run::start(&spec);
    let exit = run.exit();
    assert_eq!(exit.ended_by, EndedBy::WallClock, "endless output does not starve the limits");
    assert!(exit.stdout_bytes > 4 * 1024 * 1024, "only {} bytes in a second", exit.stdout_bytes);
    assert!(exit.truncated);
    let files = fs::read_dir(run.dir.path()).unwrap().map(|entry| entry.unwrap());
    let logs = files.filter(|file| file.file_name().to_str().unwrap().starts_with("stdout.log"));
    let on_disk: u64 = logs.map(|file| file.metadata().unwrap().len()).sum();
    assert!((32 * 1024..=64 * 1024).contains(&on_disk), "{on_disk}");
    assert!(run.stdout().starts_with("all work and no play\n"));
}

#[test]
fn the_secret_reaches_the_program_and_nothing_else() {
    const SECRET: &str = "correct-horse-9f21";
    // The digest of the secret: the script must not name it.
    const DIGEST: &str = "a3342fee33f64d7e2f533c0f431bd547";
    let run = Run::start_with_secret(&sh("md5sum; exec sleep 1000"), SECRET);
    assert_eq!(run.first_line().split(' ').next(), Some(DIGEST));
    let supervisor = run.supervisor_pid();
    for pid in [supervisor, run.running_pid()] {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap();
            assert!(!contains(&bytes, SECRET), "{file} of {pid}");
        }
    }
    run.dir.stop("seen").unwrap();
    run.exit();
    for entry in fs::read_dir(run.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        assert!(!contains(&fs::read(&path).unwrap(), SECRET), "{}", path.display());
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_supervisor_is_small() {
    const MAX_KIB: u64 = 3 * 1024;
    let run = Run::start(&sh("yes"));
    run.first_line();
    let status = fs::read_to_string(format!("/proc/{}/status", run.supervisor_pid())).unwrap();
    // Its own memory; the executable's pages are shared with the agent.
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kib: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    assert!(kib <= MAX_KIB, "{kib} KiB");
}

#[test]
fn a_run_directory_is_one_run() {
    let run = Run::start(&sh("exec sleep 1000"));
    let base: PathBuf = run.dir.path().ancestors().nth(2).unwrap().into();
    let again = run.dir.start_with(Path::new(SUPERVISE), None, &fs::File::open("/dev/null").unwrap());
    assert!(matches!(again, Err(RunDirError::AlreadyStarted(_))));
    let twice = RunDir::create(&base, "attempt-1", "pull-1", &sh(""));
    assert!(matches!(twice, Err(RunDirError::Exists(_))));
    for bad in ["..", "a/b", "", ".hidden"] {
        assert!(matches!(RunDir::create(&base, bad, "p", &sh("")), Err(RunDirError::Name(_))), "{bad}");
    }
    RunDir::create(&base, "attempt-1", "pull-2", &sh("")).unwrap();
    let paths: Vec<_> =
        RunDir::list(&base).unwrap().into_iter().map(|run| run.unwrap().path().to_owned()).collect();
    assert_eq!(paths, [base.join("attempt-1/pull-1"), base.join("attempt-1/pull-2")]);

    let early = RunDir::open(run.dir.path()).unwrap().remove();
    assert!(matches!(early, Err(RunDirError::StillRunning(_))));
    run.dir.stop("over").unwrap();
    run.exit();
    RunDir::open(run.dir.path()).unwrap().remove().unwrap();
    assert!(!run.dir.path().exists());
}

#[test]
fn what_is_not_whole_is_swept_and_nothing_else() {
    let run = Run::create(&sh(""));
    let base: PathBuf = run.dir.path().ancestors().nth(2).unwrap().into();
    // As an agent leaves it that is killed while it makes, or removes, a directory.
    for unfinished in ["attempt-1/pull-2", "attempt-2/pull-1", "attempt-3"] {
        fs::create_dir_all(base.join(unfinished)).unwrap();
    }
    fs::write(base.join("attempt-2/pull-1/stdout.log"), "left").unwrap();
    RunDir::sweep(&base).unwrap();
    assert!(RunDir::open(run.dir.path()).is_ok());
    assert!(!base.join("attempt-1/pull-2").exists());
    let left = fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["attempt-1"]);
    RunDir::sweep(&base.join("absent")).unwrap();
}

/// The record of a supervisor before the host was booted, as a power cut leaves it.
const OF_ANOTHER_BOOT: &str =
    r#"{"pid":1,"start_ticks":1,"boot_id":"another","cgroup":null,"no_cgroup":"-"}"#;

#[test]
fn what_no_supervisor_of_this_boot_was_started_in_is_replaced() {
    let run = Run::create(&sh("exit 1"));
    let base: PathBuf = run.dir.path().ancestors().nth(2).unwrap().into();
    let spec = run.dir.path().join("spec.json");
    let again = |why: &str| {
        assert!(!RunDir::was_started(run.dir.path()).unwrap(), "{why}");
        let made = RunDir::create(&base, "attempt-1", "pull-1", &sh("exit 0"));
        assert_eq!(made.unwrap().spec().argv, sh("exit 0").argv, "{why}");
        let files = fs::read_dir(run.dir.path()).unwrap().count();
        assert_eq!(files, 2, "{why}: nothing of the old one is left");
    };
    again("whole and never started");
    fs::write(&spec, vec![0; 100]).unwrap();
    again("its specification is blank");
    fs::write(run.dir.path().join("supervisor.json"), OF_ANOTHER_BOOT).unwrap();
    again("its supervisor was of another boot");
    fs::write(run.dir.path().join("supervisor.json"), "").unwrap();
    again("its supervisor's record is blank");

    fs::write(&spec, "").unwrap();
    RunDir::sweep(&base).unwrap();
    assert!(!run.dir.path().exists(), "blank, and of nobody");
}

#[test]
fn the_end_of_a_supervisor_is_told_at_once() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let told = |fd: &std::os::fd::OwnedFd, seconds: i64| {
        let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
        poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit)).unwrap() == 1
    };
    let run = Run::start(&sh("exec sleep 1000"));
    let end = run.dir.supervisor_end().unwrap().unwrap();
    assert!(!told(&end, 0));
    run.dir.stop("over").unwrap();
    assert!(told(&end, 30));
    run.exit();
    assert!(run.dir.supervisor_end().unwrap().is_none(), "there is none any more");
    fs::write(run.dir.path().join("supervisor.json"), OF_ANOTHER_BOOT).unwrap();
    assert!(run.dir.supervisor_end().unwrap().is_none(), "process 1 is not waited for");
    assert!(Run::create(&sh("")).dir.supervisor_end().unwrap().is_none(), "not started yet");
}

#[test]
fn a_supervisor_that_cannot_start_is_an_error_with_its_words() {
    let run = Run::create(&sh(""));
    // What the supervisor reserves is there already, as if the directory were used twice.
    fs::write(run.dir.path().join("exit.part"), "").unwrap();
    let error = run.dir.start_with(Path::new(SUPERVISE), None, &run.lock().unwrap()).unwrap_err();
    assert!(error.to_string().contains("cannot reserve"), "{error}");
    assert!(run.lock().is_some(), "nothing runs that would hold the lock");
}

/// A small file system of its own; needs the right to mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let point = tempfile::tempdir().unwrap();
        #[allow(clippy::disallowed_methods, reason = "a test's own tool")]
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"])
            .arg(point.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(SmallDisk(point))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        #[allow(clippy::disallowed_methods, reason = "a test's own tool")]
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_loses_neither_the_request_nor_the_end() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: mounting a tmpfs is not permitted here");
        return;
    };
    let dir =
        RunDir::create(disk.0.path(), "attempt-1", "pull-1", &sh("echo ready; while :; do sleep 0.05; done"));
    let dir = dir.unwrap();
    dir.start_with(Path::new(SUPERVISE), None, &fs::File::open("/dev/null").unwrap()).unwrap();
    eventually("it runs", || (!dir.stdout(0).read(64).unwrap().bytes.is_empty()).then_some(()));
    fs::write(disk.0.path().join("filler"), vec![0; 1 << 20]).unwrap_err();
    fs::write(disk.0.path().join("more"), "x").unwrap_err();
    dir.stop("the disk is full").unwrap();
    let exit = eventually("the end is told", || match dir.status().unwrap() {
        ProgramStatus::Exited(exit) => Some(exit),
        _ => None,
    });
    assert_eq!((exit.signal, exit.ended_by), (Some(15), EndedBy::Stop("the disk is full".into())));
    dir.remove().unwrap();
}
