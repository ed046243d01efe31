//! Attacks from inside the jail, each tried without it as well: a test that cannot succeed proves nothing.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mirror_agent::jail::{REFUSED_CODE, gaps};
use mirror_agent::rundir::{BUILD, JailSpec, ProgramSpec};

use crate::harness::{Run, SUPERVISE, sh};

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

#[test]
fn a_link_put_there_between_the_look_and_the_start_leads_nowhere() {
    if !landlock("missing") {
        return;
    }
    let (place, inside, outside) = place();
    let (root, tree) = (place.path().canonicalize().unwrap(), inside.join("tree"));
    fs::create_dir(&tree).unwrap();
    fs::create_dir(outside.join("tree")).unwrap();
    let write = |roots: Vec<PathBuf>| {
        let jail = JailSpec { write_paths: vec![tree.clone()], roots, ..JailSpec::default() };
        let mut spec = with_argument(sh("echo x > \"$0/new\" || exit 1"), &tree);
        spec.jail = jail;
        let run = Run::start(&spec);
        (run.exit().code, run.stderr())
    };
    assert_eq!(write(vec![root.clone()]), (Some(0), String::new()));
    // The agent has looked and made the tree; now somebody puts a link in the way.
    fs::rename(&inside, place.path().join("moved")).unwrap();
    std::os::unix::fs::symlink(&outside, &inside).unwrap();
    let (code, told) = write(vec![root]);
    assert_eq!(code, Some(REFUSED_CODE.into()), "{told}");
    assert!(told.contains("inside/tree") && !outside.join("tree/new").exists(), "{told}");
    // By its name alone, as it would be without a root, it leads out.
    assert_eq!(write(Vec::new()).0, Some(0));
    assert!(outside.join("tree/new").exists());
}

#[test]
fn nor_does_one_in_the_way_to_the_source_of_a_move() {
    if !landlock("missing") {
        return;
    }
    let (place, inside, outside) = place();
    let (old_root, new_root) = (place.path().join("old"), place.path().join("new"));
    let tree = old_root.join("trees/debian");
    for dir in [&tree, &new_root] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(tree.join("private"), "of the tree\n").unwrap();
    fs::create_dir(outside.join("debian")).unwrap();
    fs::rename(outside.join("private"), outside.join("debian/private")).unwrap();
    let read = |roots: &[&PathBuf]| {
        let roots = roots.iter().map(|root| root.canonicalize().unwrap()).collect();
        let mut spec = with_argument(sh("read -r line < \"$0/private\" && echo \"$line\""), &tree);
        let (read_paths, write_paths) = (vec![tree.clone()], vec![inside.clone()]);
        spec.jail = JailSpec { read_paths, write_paths, roots, ..JailSpec::default() };
        let run = Run::start(&spec);
        (run.exit().code, run.stdout(), run.stderr())
    };
    assert_eq!(read(&[&old_root, &new_root]).1, "of the tree\n");
    // The agent has looked at both places; now somebody leads the source elsewhere.
    fs::rename(old_root.join("trees"), old_root.join("moved")).unwrap();
    std::os::unix::fs::symlink(&outside, old_root.join("trees")).unwrap();
    let (code, content, told) = read(&[&old_root, &new_root]);
    assert_eq!((code, content.as_str()), (Some(REFUSED_CODE.into()), ""), "{told}");
    assert!(told.contains("old/trees/debian"), "{told}");
    // With the destination's root alone it leads out.
    assert_eq!(read(&[&new_root]).1, "content\n");
}

#[test]
fn neither_the_supervisor_nor_the_agent_can_be_signalled() {
    if !landlock("signals") {
        return;
    }
    let (_place, inside, _) = place();
    let jail = JailSpec { write_paths: vec![inside.clone()], ..JailSpec::default() };
    // The jail becomes the program, so its parent is the supervisor; this test is the supervisor's.
    assert_eq!(inside_and_outside("kill -0 $PPID || exit 1", &inside, &jail), (Some(1), Some(0)));
    let own = std::process::id();
    let script = format!("kill -0 {own} || exit 1");
    assert_eq!(inside_and_outside(&script, &inside, &jail), (Some(1), Some(0)));
    // Its own children it may end.
    let children = "while :; do :; done & kill -9 $! || exit 1";
    assert_eq!(inside_and_outside(children, &inside, &jail), (Some(0), Some(0)));
}

#[test]
fn abstract_sockets_of_others_cannot_be_reached() {
    let python = Path::new("/usr/bin/python3");
    if !landlock("abstract") || !python.exists() {
        return;
    }
    let name = format!("mirror-jail-test-{}", std::process::id());
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name);
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address.unwrap()).unwrap();
    let script = format!("import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}')");
    let connect = |off: bool| {
        let mut spec = sh("");
        spec.argv = [python.to_str().unwrap(), "-Sc", &script].map(|word| word.as_bytes().to_vec()).to_vec();
        spec.jail = JailSpec { off, ..JailSpec::default() };
        Run::start(&spec).exit().code
    };
    assert_eq!((connect(false), connect(true)), (Some(1), Some(0)));
}

/// Runs a program in a jail without a supervisor, as this user or as one of its own; or without a jail. Its exit code
/// and output.
fn bare(jail: Option<&JailSpec>, uid: Option<u32>, argv: &[&str]) -> (Option<i32>, String) {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let file = place.path().join("jail.json");
    let mut words: Vec<String> = Vec::new();
    if let Some(uid) = uid {
        let user = ["/usr/bin/setpriv", "--clear-groups"].map(str::to_owned);
        words.extend(user.into_iter().chain([
            format!("--reuid={uid}"),
            format!("--regid={uid}"),
            "--".to_owned(),
        ]));
    }
    if let Some(jail) = jail {
        fs::write(&file, serde_json::to_vec(jail).unwrap()).unwrap();
        words.extend([SUPERVISE, BUILD, "jail", "--jail", file.to_str().unwrap(), "--"].map(str::to_owned));
    }
    words.extend(argv.iter().map(|word| (*word).to_owned()));
    #[allow(clippy::disallowed_methods, reason = "a program in the jail, without a supervisor")]
    let said = std::process::Command::new(&words[0]).args(&words[1..]).output().unwrap();
    (said.status.code(), String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned())
}

/// A user that nothing else on this host runs as; none where this test is not root's, or others may not come here.
fn a_user_of_its_own() -> Option<u32> {
    let uid = 100_000 + std::process::id() % 1_000_000;
    let able = rustix::process::geteuid().is_root()
        && Path::new("/usr/bin/setpriv").exists()
        && bare(None, Some(uid), &[SUPERVISE, "--version"]).0 == Some(0);
    if !able {
        eprintln!("skipped: needs root, setpriv, and a build directory that other users may enter");
    }
    able.then_some(uid)
}

#[test]
fn a_set_user_id_program_gives_no_privileges() {
    let Some(uid) = a_user_of_its_own() else { return };
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let id = place.path().join("id");
    fs::copy("/usr/bin/id", &id).unwrap();
    fs::set_permissions(&id, PermissionsExt::from_mode(0o4755)).unwrap();
    let words = [id.to_str().unwrap(), "-u"];
    let (code, outside) = bare(None, Some(uid), &words);
    if (code, outside.trim()) != (Some(0), "0") {
        eprintln!("skipped: the temporary directory honours no set-user-id bit");
        return;
    }
    let (code, inside) = bare(Some(&JailSpec::default()), Some(uid), &words);
    assert_eq!((code, inside.trim()), (Some(0), uid.to_string().as_str()));
}

#[test]
fn what_forks_without_end_meets_its_limit() {
    let Some(uid) = a_user_of_its_own() else { return };
    let script = "i=0; while [ $i -lt 30 ]; do sleep 2 & i=$((i+1)); done; wait";
    let words = ["/bin/sh", "-c", script];
    let jail =
        |processes| JailSpec { processes, exec_paths: vec!["/usr/bin/sleep".into()], ..JailSpec::default() };
    assert_eq!(bare(Some(&jail(None)), Some(uid), &words), (Some(0), String::new()));
    let (code, told) = bare(Some(&jail(Some(10))), Some(uid), &words);
    assert!(code != Some(0) && told.contains("fork"), "{code:?} {told}");
}

#[test]
fn what_takes_memory_without_end_meets_its_limit() {
    // tail keeps what it is to print last.
    let words =
        ["/bin/sh", "-c", "head -c 300000000 /dev/zero | tail -c 299999999 | head -c 1 >/dev/null; exit $?"];
    let exec_paths = ["head", "tail"].map(|name| Path::new("/usr/bin").join(name)).to_vec();
    let jail =
        |memory_bytes| JailSpec { memory_bytes, exec_paths: exec_paths.clone(), ..JailSpec::default() };
    assert_eq!(bare(Some(&jail(None)), None, &words), (Some(0), String::new()));
    let (_, told) = bare(Some(&jail(Some(96 << 20))), None, &words);
    assert!(told.contains("memory exhausted"), "{told}");
}

#[test]
fn root_keeps_only_what_copies_need() {
    if !gaps().iter().any(|gap| gap.contains("as root")) || gaps().iter().any(|gap| gap.contains("SETPCAP")) {
        eprintln!("skipped: needs root with all its capabilities");
        return;
    }
    let (_place, inside, _) = place();
    let names = ["sbin/chroot", "bin/nice", "bin/chown", "bin/chmod", "bin/true"];
    let exec_paths = names.map(|name| Path::new("/usr").join(name));
    let jail = JailSpec {
        write_paths: vec![inside.clone()],
        exec_paths: exec_paths.to_vec(),
        ..JailSpec::default()
    };
    // 125: chroot itself failed.
    assert_eq!(inside_and_outside("/usr/sbin/chroot / /usr/bin/true", &inside, &jail), (Some(125), Some(0)));
    let faster = "[ -z \"$(/usr/bin/nice -n -5 /usr/bin/true 2>&1)\" ]";
    assert_eq!(inside_and_outside(faster, &inside, &jail), (Some(1), Some(0)));
    let give_away = "/usr/bin/chown 12345:12345 \"$0/private\"";
    assert_eq!(inside_and_outside(give_away, &inside, &jail), (Some(0), Some(0)));
    // Of a group that root is not in: the bit would be lost without an error.
    std::os::unix::fs::chown(&inside, None, Some(12345)).unwrap();
    let shared = "/usr/bin/chmod 2755 \"$0\" && [ -g \"$0\" ] && /usr/bin/chmod g-s \"$0\"";
    assert_eq!(inside_and_outside(shared, &inside, &jail), (Some(0), Some(0)));
}
