//! Attacks from inside the jail, each tried without it as well: a test that cannot succeed proves nothing.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use mirror_agent::jail::{REFUSED_CODE, gaps};
use mirror_agent::rundir::{JailSpec, ProgramSpec};

use crate::harness::{Run, sh};

/// Whether Landlock can be tested here for what needs it; says why not.
fn landlock(gap: &str) -> bool {
    let missing = gaps().into_iter().find(|text| text.contains(gap) || text.contains("Landlock is missing"));
    if let Some(text) = &missing {
        eprintln!("skipped: {text}");
    }
    missing.is_none()
}

/// Runs `script` with `$0` as its argument; its exit code inside the jail and outside of it.
fn inside_and_outside(script: &str, argument: &Path, jail: &JailSpec) -> (Option<i32>, Option<i32>) {
    let run = |off: bool| {
        let mut spec = with_argument(sh(script), argument);
        spec.jail = JailSpec { off, ..jail.clone() };
        Run::start(&spec).exit().code
    };
    (run(false), run(true))
}

fn with_argument(mut spec: ProgramSpec, argument: &Path) -> ProgramSpec {
    spec.argv.push(argument.to_str().unwrap().into());
    spec
}

fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let (inside, outside) = (place.path().join("inside"), place.path().join("outside"));
    for dir in [&inside, &outside] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("private"), "content\n").unwrap();
    }
    (place, inside, outside)
}

#[test]
fn only_the_destination_can_be_written() {
    if !landlock("truncated") {
        return;
    }
    let (_place, inside, outside) = place();
    let jail = JailSpec { write_paths: vec![inside.clone()], ..JailSpec::default() };
    let create = "echo x > \"$0/new\" || exit 1";
    assert_eq!(inside_and_outside(create, &outside, &jail), (Some(1), Some(0)));
    let overwrite = "echo x > \"$0/private\" || exit 1";
    assert_eq!(inside_and_outside(overwrite, &outside, &jail), (Some(1), Some(0)));
    assert_eq!(inside_and_outside(create, &inside, &jail), (Some(0), Some(0)));
    assert_eq!(inside_and_outside("echo x > /dev/null", &inside, &jail), (Some(0), Some(0)));
}

#[test]
fn only_named_programs_can_be_executed() {
    if !landlock("missing") {
        return;
    }
    let (_place, inside, _) = place();
    let jail = JailSpec { write_paths: vec![inside.clone()], ..JailSpec::default() };
    // 126: found, but not permitted.
    assert_eq!(inside_and_outside("/usr/bin/id", &inside, &jail), (Some(126), Some(0)));
    // A program the upstream delivered.
    fs::copy("/usr/bin/id", inside.join("evil")).unwrap();
    assert_eq!(inside_and_outside("\"$0/evil\"", &inside, &jail), (Some(126), Some(0)));
    let named = JailSpec { exec_paths: vec!["/usr/bin/id".into()], ..jail };
    assert_eq!(inside_and_outside("/usr/bin/id", &inside, &named), (Some(0), Some(0)));
}

#[test]
fn what_is_private_cannot_be_read() {
    if !landlock("missing") {
        return;
    }
    let (_place, inside, outside) = place();
    let jail = JailSpec { write_paths: vec![inside.clone()], ..JailSpec::default() };
    let read = "read -r line < \"$0\" || exit 1";
    assert_eq!(inside_and_outside(read, &outside.join("private"), &jail), (Some(1), Some(0)));
    assert_eq!(inside_and_outside(read, &inside.join("private"), &jail), (Some(0), Some(0)));
    let shadow = Path::new("/etc/shadow");
    if fs::read(shadow).is_ok_and(|bytes| !bytes.is_empty()) {
        assert_eq!(inside_and_outside(read, shadow, &jail), (Some(1), Some(0)));
    } else {
        eprintln!("/etc/shadow left out: this user cannot read it anyway");
    }
    let permitted = JailSpec { read_paths: vec![outside.join("private")], ..jail };
    assert_eq!(inside_and_outside(read, &outside.join("private"), &permitted), (Some(0), Some(0)));
}

#[test]
fn files_move_within_the_destination_but_special_files_are_not_made() {
    if !landlock("moved") {
        return;
    }
    let (_place, inside, _) = place();
    let exec_paths = ["mkdir", "mv", "mkfifo"].map(|name| Path::new("/usr/bin").join(name)).to_vec();
    let jail = JailSpec { write_paths: vec![inside.clone()], exec_paths, ..JailSpec::default() };
    let shuffle = "cd \"$0\" && mkdir -p a b && echo x > a/f && mv a/f b/f && read -r line < b/f";
    assert_eq!(inside_and_outside(shuffle, &inside, &jail), (Some(0), Some(0)));
    assert_eq!(inside_and_outside("mkfifo \"$0/fifo\"", &inside, &jail), (Some(1), Some(0)));
}

#[test]
fn only_the_upstreams_port_can_be_connected_to() {
    let bash = Path::new("/bin/bash");
    if !landlock("TCP") || !bash.exists() {
        return;
    }
    let (upstream, other) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let jail = JailSpec { connect_ports: vec![port(&upstream)], ..JailSpec::default() };
    let connect = |to: &TcpListener, off: bool| {
        let mut spec = sh(&format!("exec 3<>/dev/tcp/127.0.0.1/{}", port(to)));
        spec.argv[0] = bash.to_str().unwrap().into();
        spec.jail = JailSpec { off, ..jail.clone() };
        Run::start(&spec).exit().code
    };
    assert_eq!((connect(&upstream, false), connect(&upstream, true)), (Some(0), Some(0)));
    assert_eq!((connect(&other, false), connect(&other, true)), (Some(1), Some(0)));
}

#[test]
fn the_secrets_pipe_can_be_opened_by_its_name() {
    // As rsync does with --password-file=/dev/fd/0.
    let mut spec = sh("read -r line < /dev/fd/0 && [ ${#line} = 6 ]");
    spec.jail = JailSpec::default();
    let run = Run::start_with_secret(&spec, "secret\n");
    assert_eq!(run.exit().code, Some(0), "{}", run.stderr());
}

#[test]
fn privileges_and_limits_are_lowered() {
    let mut spec =
        sh("while read -r key value; do [ \"$key\" = NoNewPrivs: ] && echo \"$value\"; done < \"$0\"; \
                       ulimit -n; ulimit -c");
    spec.jail = JailSpec { read_paths: vec!["/proc".into()], open_files: Some(64), ..JailSpec::default() };
    let run = Run::start(&with_argument(spec, Path::new("/proc/self/status")));
    assert_eq!(run.exit().code, Some(0), "{}", run.stderr());
    assert_eq!(run.stdout(), "1\n64\n0\n");
}

#[test]
fn a_missing_path_is_refused_in_one_line_that_names_all() {
    let mut spec = sh("echo ran");
    spec.jail = JailSpec {
        read_paths: vec!["/absent/list".into()],
        write_paths: vec!["/absent/destination".into()],
        ..JailSpec::default()
    };
    let run = Run::start(&spec);
    assert_eq!(run.exit().code, Some(REFUSED_CODE.into()));
    let line = run.stderr();
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.contains("/absent/list") && line.contains("/absent/destination"), "{line}");
    assert_eq!(run.stdout(), "");
}

#[test]
fn rsync_copies_inside_the_jail_and_cannot_leave_it() {
    let rsync = Path::new("/usr/bin/rsync");
    if !rsync.exists() || !landlock("missing") {
        eprintln!("skipped: needs rsync and Landlock");
        return;
    }
    let (place, inside, outside) = place();
    fs::write(outside.join("file"), vec![b'x'; 100_000]).unwrap();
    let copy = |to: &Path| {
        let mut spec = sh("");
        let words = ["/usr/bin/rsync", "-rlptH", "--delay-updates", "--partial-dir=.part", "--stats", "--"];
        spec.argv = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        spec.argv.extend([&outside, to].map(|path| format!("{}/", path.display()).into_bytes()));
        spec.jail = JailSpec {
            read_paths: vec![outside.clone()],
            write_paths: vec![inside.clone()],
            ..JailSpec::default()
        };
        let run = Run::start(&spec);
        let exit = run.exit();
        (exit.code, run.stderr())
    };
    assert_eq!(copy(&inside), (Some(0), String::new()));
    assert_eq!(fs::read(inside.join("file")).unwrap(), vec![b'x'; 100_000]);
    let elsewhere = place.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let (code, stderr) = copy(&elsewhere);
    assert!(code != Some(0) && stderr.contains("Permission denied"), "{code:?} {stderr}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}
