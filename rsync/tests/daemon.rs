//! Pulls by the real rsync program from a real rsync daemon on 127.0.0.1.
//!
//! The test listens itself and hands each connection to an `rsync --daemon` of its own (as inetd does), so there
//! is neither a port to guess nor a start to wait for. The program is `$RSYNC`, or the `rsync` found in `$PATH`.
#![allow(clippy::disallowed_methods, reason = "tests start the daemon")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rsync::progress::{Change, Kind};
use rsync::{
    Class, Deletion, Diagnosis, Event, ExitCode, Fault, Item, Options, OutputParser, Password, Plan, Publish,
    Purpose, RsyncUri, Stats, Version, exit, listing, process,
};
use tempfile::TempDir;

const PASSWORD: &str = "correct-horse";
const DELAY: Deletion = Deletion { mode: rsync::DeleteMode::Delay, limit: 500 };
/// Longest wait for something that happens at once.
const WAIT: Duration = Duration::from_secs(60);

fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("RSYNC") {
        return program.into();
    }
    let path = std::env::var_os("PATH").expect("PATH is set");
    let found = std::env::split_paths(&path).map(|dir| dir.join("rsync")).find(|program| program.is_file());
    found.expect("rsync is installed")
}

fn version() -> Version {
    process::probe_version(&program()).expect("the program is rsync")
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// A daemon with the modules `pub`, `auth`, `off`, `denied` and `gone` over one tree.
struct Daemon {
    dir: TempDir,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    accept: Option<JoinHandle<()>>,
}

impl Daemon {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = write_config(dir.path());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let accept = std::thread::spawn(move || {
            let mut children = Vec::new();
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                children.push(serve(&config, stream.unwrap()));
            }
            for mut child in children {
                let _ = child.kill();
                child.wait().unwrap();
            }
        });
        Self { dir, address, stop, accept: Some(accept) }
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn uri(&self, rest: &str) -> String {
        format!("rsync://127.0.0.1:{}/{rest}", self.address.port())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener up.
        let _ = TcpStream::connect(self.address);
        if let Some(accept) = self.accept.take() {
            let _ = accept.join();
        }
    }
}

fn write_config(dir: &Path) -> PathBuf {
    let tree = dir.join("tree");
    fs::create_dir(&tree).unwrap();
    let secrets = dir.join("secrets");
    fs::write(&secrets, format!("mirror:{PASSWORD}\n")).unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    // A daemon of root serves as nobody unless told otherwise, who cannot enter the test's directory.
    let identity = if is_root() { "uid = 0\ngid = 0\n" } else { "" };
    let module = |name: &str, path: &Path, more: &str| {
        format!("[{name}]\npath = {}\nread only = yes\n{more}\n", path.display())
    };
    let text = [
        format!("use chroot = no\nreverse lookup = no\nlog file = {}\n{identity}", dir.join("log").display()),
        module("pub", &tree, ""),
        module("auth", &tree, &format!("auth users = mirror\nsecrets file = {}", secrets.display())),
        module("off", &tree, "max connections = -1"),
        module("denied", &tree, "hosts deny = *"),
        module("gone", &dir.join("no-such-directory"), ""),
        module("wo", &tree, "write only = yes"),
    ];
    let config = dir.join("rsyncd.conf");
    fs::write(&config, text.concat()).unwrap();
    config
}

fn serve(config: &Path, stream: TcpStream) -> std::process::Child {
    let socket = || Stdio::from(OwnedFd::from(stream.try_clone().unwrap()));
    std::process::Command::new(program())
        .arg("--daemon")
        .arg(format!("--config={}", config.display()))
        .stdin(socket())
        .stdout(socket())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn plan(uri: &str, destination: &Path, words: &[&str]) -> Plan {
    let version = version();
    let (source, password) = RsyncUri::parse(uri).unwrap().split_password();
    Plan {
        program: program(),
        features: version.features,
        source,
        password: password.is_some(),
        destination: destination.to_owned(),
        confine_root: None,
        publish: Publish::InPlace,
        options: Options::parse_words(words).unwrap(),
        delete: None,
        io_timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(10),
        bwlimit_kib: None,
        max_alloc: rsync::argv::MAX_ALLOC_DEFAULT,
        source_address: None,
        purpose: Purpose::Pull,
        privileged: is_root(),
        acls_and_xattrs: true,
    }
}

/// What a finished run said.
struct Ran {
    output: Output,
    items: Vec<Item>,
    parser: OutputParser,
    diagnosis: Diagnosis,
}

impl Ran {
    fn stats(&self) -> &Stats {
        self.parser.stats()
    }

    fn item(&self, name: &[u8]) -> Option<&Item> {
        self.items.iter().find(|item| item.name == name)
    }
}

fn run(plan: &Plan, password: Option<&str>) -> Ran {
    let command = plan.build().unwrap_or_else(|faults| panic!("{faults:?}"));
    let password = password.map(|text| Password::new(text.into()).unwrap());
    let child = process::spawn(&command, Stdio::piped(), Stdio::piped(), password.as_ref()).unwrap();
    let output = child.wait_with_output().unwrap();
    let mut parser = OutputParser::new();
    let mut items = Vec::new();
    let mut take = |event| {
        if let Event::Item(item) = event {
            items.push(item)
        }
    };
    for piece in output.stdout.chunks(7) {
        parser.push(piece, &mut take);
    }
    parser.finish().into_iter().for_each(&mut take);
    let end = output.status.code().map_or_else(
        || ExitCode::Signal(output.status.signal().expect("it ended by itself or by a signal")),
        ExitCode::Code,
    );
    let diagnosis = exit::diagnose(end, &output.stderr, parser.stats());
    Ran { output, items, parser, diagnosis }
}

fn pull(daemon: &Daemon, rest: &str, words: &[&str]) -> (TempDir, Ran) {
    let destination = tempfile::tempdir().unwrap();
    let ran = run(&plan(&daemon.uri(rest), destination.path(), words), None);
    (destination, ran)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_pull_with_the_default_flags() {
    let daemon = Daemon::start();
    let tree = daemon.tree();
    fs::create_dir(tree.join("sub")).unwrap();
    fs::write(tree.join("big"), vec![7; 300_000]).unwrap();
    fs::hard_link(tree.join("big"), tree.join("sub/linked")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"sub/n\nl | \\#012 \xff -> x");
    fs::write(tree.join(odd), "odd").unwrap();
    fs::write(tree.join("suid"), "s").unwrap();
    fs::set_permissions(tree.join("suid"), fs::Permissions::from_mode(0o6777)).unwrap();
    symlink("big", tree.join("good")).unwrap();
    symlink("/etc/passwd", tree.join("unsafe")).unwrap();
    fs::create_dir(tree.join(".~tmp~")).unwrap();

    let destination = tempfile::tempdir().unwrap();
    fs::write(destination.path().join("stale"), "old").unwrap();
    let mut plan = plan(&daemon.uri("pub"), destination.path(), &[]);
    plan.delete = Some(DELAY);
    let ran = run(&plan, None);
    assert_eq!(ran.diagnosis.class, Class::Ok, "{:?} {:?}", ran.diagnosis, ran.output);
    let at = |name: &str| destination.path().join(name);
    assert_eq!(fs::read(at("big")).unwrap(), fs::read(tree.join("big")).unwrap());
    assert_eq!(fs::read(destination.path().join(odd)).unwrap(), b"odd");
    assert_eq!(mode(&at("suid")), 0o755, "neither special bits nor write permission for others");
    assert_eq!(fs::read_link(at("good")).unwrap(), Path::new("big"));
    for absent in ["unsafe", "stale", ".~tmp~"] {
        assert!(fs::symlink_metadata(at(absent)).is_err(), "{absent}");
    }

    let item = ran.item(odd.as_bytes()).expect("the odd name comes back as it is");
    assert_eq!((item.change, item.kind, item.size), (Change::Received, Some(Kind::File), 3));
    assert_eq!(ran.item(b"good").map(|item| item.kind), Some(Some(Kind::Link)));
    // Which of the two names rsync fetches is its own affair.
    let linked = [b"big".as_slice(), b"sub/linked"].map(|name| ran.item(name).map(|item| item.change));
    assert!(
        linked.contains(&Some(Change::HardLinked)) && linked.contains(&Some(Change::Received)),
        "{linked:?}"
    );
    assert_eq!(fs::metadata(at("big")).unwrap().nlink(), 2);
    assert_eq!(ran.item(b"stale").map(|item| item.change), Some(Change::Deleted));
    let stats = ran.stats();
    assert_eq!(stats.deleted.map(|count| count.total), Some(1));
    assert_eq!(stats.transferred, Some(3));
    assert_eq!(stats.literal, Some(300_004));
    let progress = ran.parser.progress();
    assert_eq!((progress.percent(), progress.files_transferred, progress.bytes), (Some(100), 3, 300_004));

    let again = run(&plan, None);
    assert_eq!(
        (again.diagnosis.class, again.stats().transferred),
        (Class::Ok, Some(0)),
        "{:?}",
        again.output
    );
    assert_eq!(again.stats().deleted.map(|count| count.total), Some(0));
}

#[test]
fn each_option_of_the_tables_is_known_to_rsync() {
    let daemon = Daemon::start();
    fs::write(daemon.tree().join("a"), "a").unwrap();
    let flags = rsync::tables::FLAGS.iter().map(|row| row.flag.word());
    let valued = "--max-size=1G|--min-size=1|--bwlimit=100000|--timeout=60|--contimeout=60|--modify-window=1|\
                  --chmod=Du+x,F-x,go=rX|--exclude=b|--include=a|--filter=P keep|--filter=R x|--filter=H h|\
                  --filter=S s|--filter=-  lead";
    for word in flags.chain(valued.split('|').map(str::to_owned)) {
        let (_destination, ran) = pull(&daemon, "pub", &[&word]);
        // The daemon of this test has an IPv4 address only; what matters is that rsync knows the option.
        let known =
            ran.diagnosis.class.is_ok() || (word == "--ipv6" && ran.diagnosis.class == Class::Network);
        assert!(known, "{word}: {:?} {:?}", ran.diagnosis, ran.output);
    }
    for mode in [rsync::DeleteMode::After, rsync::DeleteMode::During, rsync::DeleteMode::Excluded] {
        let destination = tempfile::tempdir().unwrap();
        fs::write(destination.path().join("stale"), "old").unwrap();
        let mut plan = plan(&daemon.uri("pub"), destination.path(), &["-a"]);
        plan.delete = Some(Deletion { mode, limit: 1 });
        assert_eq!(run(&plan, None).stats().deleted.map(|count| count.total), Some(1), "{mode:?}");
    }
}

#[test]
fn a_listing_of_a_directory_and_of_names_below_it() {
    let daemon = Daemon::start();
    let tree = daemon.tree();
    fs::create_dir_all(tree.join("dists/stable")).unwrap();
    fs::write(tree.join("dists/stable/Release"), "x").unwrap();
    fs::write(tree.join("dists/other"), "x").unwrap();
    fs::write(tree.join("with space"), "12345").unwrap();
    let list = |rest: &str, names: &[&str]| {
        let mut plan = plan(&daemon.uri(rest), Path::new("/nonexistent/tree"), &[]);
        plan.purpose = Purpose::List(names.iter().map(|name| (*name).to_owned()).collect());
        let ran = run(&plan, None);
        let lines = ran.output.stdout.split(|b| *b == b'\n');
        let entries: Vec<String> = lines
            .filter_map(listing::parse_line)
            .map(|entry| String::from_utf8(entry.name).unwrap())
            .collect();
        (ran, entries)
    };
    let (ran, entries) = list("pub", &[]);
    assert!(ran.diagnosis.class.is_ok(), "{:?}", ran.output);
    assert!(entries.contains(&".".to_owned()) && entries.contains(&"with space".to_owned()), "{entries:?}");
    assert!(
        entries.contains(&"dists".to_owned()) && !entries.iter().any(|name| name.contains('/')),
        "{entries:?}"
    );

    let (ran, entries) = list("pub", &["dists/stable/Release", "with space", "dists/none", "none"]);
    assert_eq!(ran.output.status.code(), Some(23), "{:?}", ran.output);
    for name in [".", "dists/stable/Release", "with space"] {
        assert!(entries.contains(&name.to_owned()), "{name} is not in {entries:?}");
    }
    assert!(!entries.iter().any(|name| name.contains("none") || name == "dists/other"), "{entries:?}");

    let (ran, entries) = list("pub/no-such-directory", &["Release"]);
    assert_eq!((ran.diagnosis.class, entries.len()), (Class::NotFound, 0));
}

#[test]
fn a_fetch_brings_one_plain_file_that_is_not_too_large() {
    let daemon = Daemon::start();
    let tree = daemon.tree();
    fs::create_dir_all(tree.join("project/trace")).unwrap();
    fs::write(tree.join("project/trace/ftp.example.net"), "Sat Nov 21 20:31:04 UTC 2026\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", tree.join("link")).unwrap();
    fs::File::create(tree.join("huge")).unwrap().set_len(1 << 30).unwrap();
    for (name, code, fetched) in [
        ("project/trace/ftp.example.net", 0, Some("ftp.example.net")),
        ("huge", 0, None),
        ("link", 0, None),
        ("project", 0, None),
        ("none", 23, None),
    ] {
        let destination = tempfile::tempdir().unwrap();
        let mut plan = plan(&daemon.uri("pub"), destination.path(), &[]);
        plan.purpose = Purpose::Fetch { name: name.to_owned(), max_bytes: 64 << 10 };
        let ran = run(&plan, None);
        assert_eq!(ran.output.status.code(), Some(code), "{name}: {:?}", ran.output);
        let found = fs::read_dir(destination.path()).unwrap();
        let found: Vec<String> =
            found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(found, Vec::from_iter(fetched.map(str::to_owned)), "{name}");
    }
}

#[test]
fn reclaiming_deletes_and_copies_nothing() {
    let daemon = Daemon::start();
    fs::write(daemon.tree().join("new"), "new").unwrap();
    fs::write(daemon.tree().join("changed"), "longer than before").unwrap();
    let destination = tempfile::tempdir().unwrap();
    for name in ["changed", "stale-1", "stale-2"] {
        fs::write(destination.path().join(name), "old").unwrap();
    }
    let mut plan = plan(&daemon.uri("pub"), destination.path(), &[]);
    plan.purpose = Purpose::Reclaim;
    plan.delete = Some(Deletion { limit: 1, ..DELAY });
    let ran = run(&plan, None);
    assert_eq!((ran.diagnosis.class, ran.diagnosis.deletions_skipped), (Class::MaxDelete, Some(1)));
    plan.delete = Some(DELAY);
    let ran = run(&plan, None);
    assert!(ran.diagnosis.class.is_ok(), "{:?}", ran.output);
    let left: Vec<_> =
        fs::read_dir(destination.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["changed"]);
    assert_eq!(fs::read(destination.path().join("changed")).unwrap(), b"old");
}

#[test]
fn a_dry_run_changes_nothing() {
    let daemon = Daemon::start();
    fs::write(daemon.tree().join("a"), "a").unwrap();
    let destination = tempfile::tempdir().unwrap();
    let mut plan = plan(&daemon.uri("pub"), destination.path(), &[]);
    plan.purpose = Purpose::DryRun;
    let ran = run(&plan, None);
    assert!(
        ran.diagnosis.class.is_ok() && ran.stats().dry_run && ran.item(b"a").is_some(),
        "{:?}",
        ran.output
    );
    assert_eq!(fs::read_dir(destination.path()).unwrap().count(), 0);
}

#[test]
fn passwords_open_the_module_and_wrong_ones_do_not() {
    let daemon = Daemon::start();
    fs::write(daemon.tree().join("a"), "a").unwrap();
    let destination = tempfile::tempdir().unwrap();
    let uri = daemon.uri("auth").replace("127.0.0.1", "mirror:unused@127.0.0.1");
    let plan = plan(&uri, destination.path(), &[]);
    let right = run(&plan, Some(PASSWORD));
    assert_eq!(right.diagnosis.class, Class::Ok, "{:?}", right.output);
    let wrong = run(&plan, Some("wrong"));
    assert_eq!((wrong.diagnosis.class, wrong.diagnosis.fault), (Class::Auth, Some(Fault::Yours)));
    assert_eq!(wrong.diagnosis.cause, "@ERROR: auth failed on module auth");
    let (_destination, none) = pull(&daemon, "auth", &[]);
    assert_eq!(none.diagnosis.class, Class::Auth, "rsync asks nobody and does not hang: {:?}", none.output);
}

/// `O_CLOEXEC` as `/proc/PID/fdinfo` shows it.
const CLOSE_ON_EXEC: u32 = 0o2_000_000;

/// What the open descriptors of a process refer to, of those whose flags are wanted.
fn open_files(pid: u32, wanted: impl Fn(u32) -> bool) -> Vec<PathBuf> {
    let flags = |fd: &str| {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
        let octal = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        u32::from_str_radix(octal.trim(), 8).ok()
    };
    fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| flags(&entry.file_name().to_string_lossy()).is_some_and(&wanted))
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect()
}

#[test]
fn nothing_but_the_pipe_carries_the_password() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let destination = tempfile::tempdir().unwrap();
    let uri = format!("rsync://mirror:x@127.0.0.1:{}/auth/", listener.local_addr().unwrap().port());
    let command = plan(&uri, destination.path(), &[]).build().unwrap();
    let password = Password::new(PASSWORD.into()).unwrap();
    let mut child = process::spawn(&command, Stdio::null(), Stdio::null(), Some(&password)).unwrap();
    // rsync is connected and waits for a greeting that does not come.
    let (_silent, _) = listener.accept().unwrap();
    let of_child = |name: &str| fs::read(format!("/proc/{}/{name}", child.id())).unwrap();
    let (cmdline, environ) = (of_child("cmdline"), of_child("environ"));
    let links = open_files(child.id(), |_| true);
    let group = rustix::process::getpgid(Some(rustix::process::Pid::from_child(&child))).unwrap();
    let running = process::wait_at_most(&mut child, Duration::ZERO).unwrap();
    child.kill().unwrap();
    let ended = process::wait_at_most(&mut child, WAIT).unwrap().expect("a killed child ends");

    assert!(cmdline.starts_with(program().as_os_str().as_bytes()));
    for bytes in [&cmdline, &environ] {
        assert!(!bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()));
    }
    let mut names: Vec<&[u8]> = environ.split(|b| *b == 0).filter(|entry| !entry.is_empty()).collect();
    names.sort_unstable();
    assert_eq!(names, [b"HOME=/nonexistent".as_slice(), b"LC_ALL=C", b"TZ=UTC", b"USER=mirror"]);
    // What this test's own parent left open for everybody (a build tool's pipes) is none of ours.
    let inherited = open_files(std::process::id(), |flags| flags & CLOSE_ON_EXEC == 0);
    let ours: Vec<&PathBuf> = links.iter().filter(|link| !inherited.contains(link)).collect();
    let sockets = ours.iter().filter(|link| link.as_os_str().as_bytes().starts_with(b"socket:")).count();
    let pipes = ours.iter().filter(|link| link.as_os_str().as_bytes().starts_with(b"pipe:")).count();
    assert_eq!((sockets, pipes), (1, 1), "its connection and the password's pipe, nothing leaked: {links:?}");
    assert_eq!(group, rustix::process::Pid::from_child(&child), "it leads its own group");
    assert_eq!((running, ended.signal()), (None, Some(9)));
}

#[test]
fn a_password_and_its_command_belong_together() {
    let destination = tempfile::tempdir().unwrap();
    let command = plan("rsync://127.0.0.1/m/", destination.path(), &[]).build().unwrap();
    let password = Password::new(PASSWORD.into()).unwrap();
    let error = process::spawn(&command, Stdio::null(), Stdio::null(), Some(&password)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn what_the_upstream_refuses() {
    let daemon = Daemon::start();
    for (rest, class, fault, cause) in [
        ("nomod", Class::NotFound, Fault::Open, "@ERROR: Unknown module 'nomod'"),
        ("off", Class::Busy, Fault::Upstream, "@ERROR: max connections (-1) reached -- try again later"),
        ("denied", Class::Refused, Fault::Upstream, "@ERROR: access denied to denied from"),
        ("gone", Class::Refused, Fault::Upstream, "@ERROR: chdir failed"),
        ("wo", Class::Refused, Fault::Yours, "ERROR: module is write only"),
        ("pub/nosuch", Class::NotFound, Fault::Open, "[sender] change_dir \"nosuch\" (in pub) failed"),
    ] {
        let (_destination, ran) = pull(&daemon, rest, &[]);
        let found = &ran.diagnosis;
        assert_eq!((found.class, found.fault), (class, Some(fault)), "{rest}: {:?}", ran.output);
        assert!(found.cause.starts_with(cause), "{rest}: {found:?}");
    }
}

#[test]
fn nobody_listens() {
    // Bound and never listening: the port stays ours and refuses connections.
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
    let destination = tempfile::tempdir().unwrap();
    let uri = format!("rsync://127.0.0.1:{}/pub/", address.port());
    let ran = run(&plan(&uri, destination.path(), &[]), None);
    assert_eq!((ran.diagnosis.class, ran.diagnosis.retryable), (Class::Network, true), "{:?}", ran.output);
    assert!(ran.diagnosis.cause.ends_with("Connection refused (111)"), "{:?}", ran.diagnosis);
}

/// Answers one connection with fixed bytes after each line it reads.
fn fake(answers: &'static [&'static str]) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for answer in answers {
            // The client may have had enough.
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.read(&mut [0; 1024]);
        }
    });
    (port, thread)
}

#[test]
fn servers_that_are_no_good() {
    for (answers, class) in [
        (&["@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\n", "@RSYNCD: EXIT\n"][..], Class::Protocol),
        (&["HTTP/1.0 400 Bad Request\r\n\r\n"], Class::Protocol),
        (&[""], Class::Protocol),
        (&["@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\n", "@ERROR: closed on Sundays\n"], Class::Refused),
        (&["@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\n", "@RSYNCD: OK\n"], Class::Network),
    ] {
        let (port, thread) = fake(answers);
        let destination = tempfile::tempdir().unwrap();
        let ran = run(&plan(&format!("rsync://127.0.0.1:{port}/m/"), destination.path(), &[]), None);
        thread.join().unwrap();
        assert_eq!(ran.diagnosis.class, class, "{answers:?}: {:?} {:?}", ran.diagnosis, ran.output);
    }
}

#[test]
fn the_delete_limit_holds() {
    let daemon = Daemon::start();
    fs::write(daemon.tree().join("a"), "a").unwrap();
    let destination = tempfile::tempdir().unwrap();
    for name in ["1", "2", "3", "4", "5"] {
        fs::write(destination.path().join(name), "old").unwrap();
    }
    let mut plan = plan(&daemon.uri("pub"), destination.path(), &[]);
    for (limit, left) in [(0, 6), (2, 4)] {
        plan.delete = Some(Deletion { mode: rsync::DeleteMode::Delay, limit });
        let ran = run(&plan, None);
        assert_eq!(ran.diagnosis.class, Class::MaxDelete, "{:?}", ran.output);
        assert_eq!(ran.diagnosis.deletions_skipped, Some(5 - limit));
        assert_eq!(ran.stats().deleted.map(|count| count.total), Some(limit));
        assert_eq!(fs::read_dir(destination.path()).unwrap().count(), left);
    }
}

/// rsync 3.5.0 copies nothing and exits with 0 when the confinement is given through a symbolic link.
#[test]
fn confinement_through_a_link_is_no_silent_success() {
    if !version().features.confine_root {
        println!("skipped: this rsync has no --confine-root");
        return;
    }
    let daemon = Daemon::start();
    fs::write(daemon.tree().join("a"), "a").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let real = fs::canonicalize(dir.path()).unwrap().join("real");
    fs::create_dir(&real).unwrap();
    let link = dir.path().join("link");
    symlink(&real, &link).unwrap();
    for (root, class, copied) in [(&link, Class::Partial, false), (&real, Class::Ok, true)] {
        let mut plan = plan(&daemon.uri("pub"), root, &[]);
        plan.confine_root = Some(root.clone());
        let ran = run(&plan, None);
        assert_eq!((ran.diagnosis.class, real.join("a").exists()), (class, copied), "{:?}", ran.output);
    }
}

#[test]
fn snapshots_share_unchanged_files() {
    let daemon = Daemon::start();
    fs::write(daemon.tree().join("a"), "a").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    for (name, link_dest) in [("one", None), ("two", Some(PathBuf::from("../one")))] {
        fs::create_dir(root.join(name)).unwrap();
        let mut plan = plan(&daemon.uri("pub"), &root.join(name), &[]);
        plan.publish = Publish::Atomic { link_dest };
        plan.confine_root = Some(root.clone());
        let ran = run(&plan, None);
        assert!(ran.diagnosis.class.is_ok(), "{:?}", ran.output);
    }
    assert_eq!(fs::metadata(root.join("two/a")).unwrap().nlink(), 2);
}

#[test]
fn a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(at).output();
    match mount {
        Ok(output) if output.status.success() => {}
        other => {
            println!("skipped: cannot mount a small tmpfs here: {other:?}");
            return;
        }
    }
    let daemon = Daemon::start();
    fs::write(daemon.tree().join("big"), vec![7; 3 << 20]).unwrap();
    fs::write(at.join("old"), "still here").unwrap();
    let mut plan = plan(&daemon.uri("pub"), at, &[]);
    plan.delete = Some(DELAY);
    let ran = run(&plan, None);
    let kept = at.join("old").exists();
    let unmounted = std::process::Command::new("umount").arg(at).status().unwrap();
    assert!(unmounted.success());
    assert_eq!(
        (ran.diagnosis.class, ran.diagnosis.fault),
        (Class::DiskFull, Some(Fault::Fleet)),
        "{:?}",
        ran.output
    );
    assert!(kept, "with a late delete a full disk loses nothing");
}

#[test]
fn the_version_of_the_program_and_of_others() {
    let version = version();
    assert!(version.release >= (3, 1, 0) && version.protocol >= 31, "{version:?}");
    let other = process::probe_version(Path::new("/usr/bin/env"));
    assert!(matches!(other, Err(process::ProbeError::NotRsync(_))), "{other:?}");
    assert!(matches!(
        process::probe_version(Path::new("/nonexistent/rsync")),
        Err(process::ProbeError::Io(_))
    ));
    assert!(matches!(process::probe_version(Path::new("rsync")), Err(process::ProbeError::NotAbsolute)));
}
