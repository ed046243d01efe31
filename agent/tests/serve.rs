//! The daemon for replicas, asked by real rsync clients: who gets what, what goes on while it changes, and what is
//! ended. As root everything holds with chroot and without.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy knows only functions marked #[test]"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fleet::id::ProjectUid;
use mirror_agent::guard::Guard;
use mirror_agent::rundir::SuperviseProgram;
use mirror_agent::serve::{Export, Serve, ServeError, Settings, StillServed};
use rsync::{Class, ExitCode, Password, Stats};
use support::upstream::tree_of;
use support::{eventually, wait_until};

const RSYNC: &str = "/usr/bin/rsync";
const DEBIAN: ProjectUid = ProjectUid(7);
const FEDORA: ProjectUid = ProjectUid(8);
/// KiB/s at which a transfer of [`LARGE_BYTES`] is there until it is ended.
const SLOW: &str = "--bwlimit=400";
const LARGE_BYTES: usize = 64 << 20;

/// An origin with two trees, and room for what replicas get.
struct Origin {
    dir: tempfile::TempDir,
    guard: Guard,
    settings: Settings,
    serve: Serve,
}

fn secret(of: &str) -> String {
    format!("{of}-secret-of-enough-bytes")
}

fn export(project: ProjectUid, tree: &str, users: &[&str]) -> Export {
    export_with(project, tree, &users.iter().map(|user| (*user, secret(user))).collect::<Vec<_>>())
}

fn export_with(project: ProjectUid, tree: &str, users: &[(&str, String)]) -> Export {
    let user = |(user, secret): &(&str, String)| {
        ((*user).to_owned(), Password::new(secret.clone().into_bytes()).unwrap())
    };
    let destination = format!("a1:{tree}").parse().unwrap();
    Export { project, name: tree.to_owned(), destination, users: users.iter().map(user).collect() }
}

impl Origin {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("debian/pool")).unwrap();
        fs::create_dir_all(root.join("fedora")).unwrap();
        fs::write(root.join("debian/Release"), "Suite: stable\n").unwrap();
        fs::write(root.join("debian/pool/a.deb"), vec![b'a'; 50_000]).unwrap();
        symlink("pool/a.deb", root.join("debian/inside")).unwrap();
        fs::write(root.join("fedora/private"), "not for replicas of debian\n").unwrap();
        let guard = Guard::open(&BTreeMap::from([("a1".to_owned(), root)])).unwrap();
        let mut settings = Settings {
            dir: dir.path().join("serve"),
            rsync: RSYNC.into(),
            program: SuperviseProgram::open(Path::new(env!("CARGO_BIN_EXE_mirror-supervise"))).unwrap(),
            listen: "127.0.0.1:0".parse().unwrap(),
            listen_elsewhere: false,
            connections: 8,
            privileged: rustix::process::geteuid().is_root(),
            acls_and_xattrs: false,
            jail: true,
            handshake_max: support::DEADLINE,
        };
        change(&mut settings);
        let serve = Serve::start(settings.clone(), &guard).unwrap();
        Self { dir, guard, settings, serve }
    }

    fn exporting() -> Self {
        let origin = Self::new();
        origin.set_all(vec![
            export(DEBIAN, "debian", &["edge1", "edge2"]),
            export(FEDORA, "fedora", &["edge3"]),
        ]);
        origin
    }

    fn set_all(&self, exports: Vec<Export>) {
        let faults = self.serve.set_all(&self.guard, exports);
        assert!(faults.is_empty(), "{faults:?}");
    }

    fn put(&self, export: &Export) {
        self.serve.put(&self.guard, export).unwrap();
    }

    fn tree(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    fn add_large(&self) {
        fs::write(self.tree("debian/large"), vec![b'x'; LARGE_BYTES]).unwrap();
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.serve.port().unwrap()))
    }

    /// An rsync with these words between options and password; `{}` is the daemon's address.
    fn client(&self, words: &[&str], password: &str) -> Child {
        #[allow(clippy::disallowed_methods, reason = "the test is a replica")]
        let mut command = Command::new(RSYNC);
        command.args(["-rlptH", "--no-motd", "--password-file=-", "--contimeout=20", "--timeout=60"]);
        command.args(words.iter().map(|word| word.replace("{}", &self.address().to_string())));
        command.env_clear().env("LC_ALL", "C").env("USER", "nobody");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let written = child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes());
        // Who is refused before it is asked for a password ends without reading it.
        let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
        assert!(written.as_ref().err().is_none_or(refused), "{written:?}");
        child
    }

    fn run(&self, words: &[&str], password: &str) -> Ended {
        let output = self.client(words, password).wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code().unwrap();
        let class = rsync::exit::diagnose(ExitCode::Code(code), &output.stderr, &Stats::default()).class;
        Ended { code, class, text, stdout: output.stdout }
    }

    /// Pulls as a replica, into a new directory.
    fn pull(&self, user: &str, module: &str, secret: &str) -> (Ended, PathBuf) {
        let to = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        let ended = self.run(&[&format!("rsync://{user}@{{}}/{module}/"), to.to_str().unwrap()], secret);
        (ended, to)
    }

    /// A transfer that will not end by itself, with something of it there already.
    async fn slow(&self, user: &str) -> Slow {
        let to = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        let words = [SLOW, "--inplace", &format!("rsync://{user}@{{}}/7/"), to.to_str().unwrap()];
        let child = self.client(&words, &secret(user));
        let slow = Slow { child, file: to.join("large") };
        eventually("a slow transfer begins", || slow.bytes() > 0).await;
        slow
    }
}

struct Ended {
    code: i32,
    class: Class,
    text: String,
    stdout: Vec<u8>,
}

struct Slow {
    child: Child,
    file: PathBuf,
}

impl Slow {
    fn bytes(&self) -> u64 {
        fs::metadata(&self.file).map_or(0, |metadata| metadata.len())
    }

    /// Goes on: more arrives than was there.
    async fn goes_on(&mut self) {
        let before = self.bytes();
        eventually("a slow transfer goes on", || self.bytes() > before).await;
        assert!(self.child.try_wait().unwrap().is_none());
    }

    async fn is_ended(&mut self) {
        eventually("a transfer is ended", || self.child.try_wait().unwrap().is_some()).await;
        assert!(self.bytes() < LARGE_BYTES as u64);
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn connect(origin: &Origin) -> TcpStream {
    let stream = TcpStream::connect(origin.address()).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream
}

/// All that a connection says, up to its end.
fn heard(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end too.
    drop(stream.read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_gets_the_tree_and_no_half_files() {
    let root = rustix::process::geteuid().is_root();
    for (privileged, jail) in [(false, true), (root, true), (root, false)] {
        let origin = Origin::with(|settings| {
            settings.privileged = privileged;
            settings.jail = jail;
        });
        assert_eq!(origin.serve.port(), None, "nothing to serve, no open port");
        origin.put(&export(DEBIAN, "debian", &["edge1"]));
        let wanted = tree_of(&origin.tree("debian"));
        for half in [".~tmp~", "pool/.rsync-partial"] {
            fs::create_dir(origin.tree("debian").join(half)).unwrap();
            fs::write(origin.tree("debian").join(half).join("half"), "ha").unwrap();
        }
        let (ended, to) = origin.pull("edge1", "7", &secret("edge1"));
        assert_eq!((ended.code, tree_of(&to)), (0, wanted), "{}", ended.text);
        assert_eq!(fs::read_link(to.join("inside")).unwrap(), Path::new("pool/a.deb"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_nothing() {
    let origin = Origin::exporting();
    let good = secret("edge1");
    for (user, module, password, class) in [
        ("edge1", "7", "wrong", Class::Auth),
        ("edge1", "7", &secret("edge2"), Class::Auth),
        ("nobody", "7", &good, Class::Auth),
        ("edge3", "7", &secret("edge3"), Class::Auth),
        ("edge1", "8", &good, Class::Auth),
        ("edge1", "9", &good, Class::NotFound),
        ("edge1", "debian", &good, Class::NotFound),
        ("edge1", "../7", &good, Class::NotFound),
    ] {
        let (ended, to) = origin.pull(user, module, password);
        assert_eq!(ended.class, class, "{user} {module}: {}", ended.text);
        assert_eq!(tree_of(&to), [], "{user} {module}");
    }
    let listing = origin.run(&["rsync://{}/"], &good);
    assert_eq!((listing.code, listing.stdout), (0, Vec::new()), "no module is listed");
    let (ended, _) = origin.pull("edge3", "8", &secret("edge3"));
    assert_eq!(ended.code, 0, "{}", ended.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_pull_needs_is_refused() {
    let origin = Origin::exporting();
    let password = secret("edge1");
    let from = origin.dir.path().join("mine");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("evil"), "evil").unwrap();
    let from = format!("{}/", from.display());
    let before = tree_of(&origin.tree("debian"));
    let push = origin.run(&[&from, "rsync://edge1@{}/7/"], &password);
    assert!(push.code != 0 && push.text.contains("read only"), "{}", push.text);
    let push = origin.run(&["--delete", &from, "rsync://edge1@{}/7/"], &password);
    assert_ne!(push.code, 0, "{}", push.text);
    let log = origin.dir.path().join("evil-log");
    let log = format!("-M--log-file={}", log.display());
    for words in [
        &["--remove-source-files"][..],
        &["--copy-links"],
        &["--copy-unsafe-links"],
        &["--copy-dirlinks"],
        &["--acls"],
        &["--iconv=utf-8"],
        &["-M--copy-devices"],
        &["-M--files-from=/etc/hostname"],
        &["-M--write-devices"],
        &["-M--delete"],
        &["-M--config=/etc/hostname"],
        &[&log],
    ] {
        let to = tempfile::tempdir_in(origin.dir.path()).unwrap();
        let to = to.path().to_str().unwrap();
        let ended = origin.run(&[words, &["rsync://edge1@{}/7/", to]].concat(), &password);
        assert_eq!(ended.class, Class::Refused, "{words:?}: {}", ended.text);
        assert_eq!(tree_of(Path::new(to)), [], "{words:?}");
    }
    assert_eq!(tree_of(&origin.tree("debian")), before);
    assert!(!origin.dir.path().join("evil-log").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_may_look_before_it_pulls() {
    let origin = Origin::exporting();
    let listing = [
        "--dirs",
        "--list-only",
        "--relative",
        "--",
        "rsync://edge1@{}/7/./",
        "rsync://edge1@{}/7/./pool/a.deb",
        "/nonexistent/",
    ];
    let ended = origin.run(&listing, &secret("edge1"));
    let shown = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.code == 0 && shown.contains("pool/a.deb"), "{}{shown}", ended.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_option_of_a_project_passes() {
    let origin = Origin::exporting();
    for flag in rsync::tables::FLAGS {
        // The first never stands on a command line of ours, the next two need the agent's consent.
        if ["archive", "acls", "xattrs", "ipv6"].contains(&flag.long) {
            continue;
        }
        let to = tempfile::tempdir_in(origin.dir.path()).unwrap();
        let word = format!("--{}", flag.long);
        let words = [&word, "--safe-links", "--info=progress2,stats2", "--bwlimit=90000", "--delete-delay"];
        let words = [&words[..], &["rsync://edge1@{}/7/", to.path().to_str().unwrap()]].concat();
        let ended = origin.run(&words, &secret("edge1"));
        assert_eq!(ended.code, 0, "{word}: {}", ended.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_not_followed_out_of_the_tree() {
    for privileged in [false, rustix::process::geteuid().is_root()] {
        let origin = Origin::with(|settings| settings.privileged = privileged);
        symlink("../fedora", origin.tree("debian/up")).unwrap();
        symlink(origin.tree("fedora"), origin.tree("debian/across")).unwrap();
        symlink(origin.settings.dir.join("secrets"), origin.tree("debian/secrets")).unwrap();
        origin.set_all(vec![export(DEBIAN, "debian", &["edge1"]), export(FEDORA, "fedora", &["edge3"])]);
        for path in [
            "7/up",
            "7/across",
            "7/up/private",
            "7/secrets",
            "7/secrets/8",
            "7/../fedora",
            "7/pool/../../fedora",
        ] {
            let (ended, to) = origin.pull("edge1", path, &secret("edge1"));
            assert_ne!(ended.code, 0, "{path}");
            assert_eq!(tree_of(&to), [], "{path}: {}", ended.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rsync_has_the_rights_of_the_trees_owner_only() {
    if !rustix::process::geteuid().is_root() {
        // Without root there is no other owner to become.
        return;
    }
    let origin = Origin::new();
    let tree = origin.tree("debian");
    fs::write(tree.join("roots-own"), "x").unwrap();
    fs::set_permissions(tree.join("roots-own"), fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&tree, Some(12_345), Some(12_345)).unwrap();
    origin.put(&export(DEBIAN, "debian", &["edge1"]));
    let (ended, to) = origin.pull("edge1", "7", &secret("edge1"));
    assert_eq!(ended.class, Class::Partial, "{}", ended.text);
    assert!(to.join("Release").exists() && !to.join("roots-own").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_touch_only_those_they_mean() {
    let origin = Origin::exporting();
    origin.add_large();
    let mut first = origin.slow("edge1").await;
    let mut second = origin.slow("edge2").await;
    assert_eq!(origin.serve.connections(), 2);
    let users = ["edge1", "edge2", "edge4"];
    origin.put(&export(DEBIAN, "debian", &users));
    let rotated: Vec<_> = users.iter().map(|user| (*user, secret(&format!("new-{user}")))).collect();
    origin.put(&export_with(DEBIAN, "debian", &rotated));
    origin.serve.remove(FEDORA).unwrap();
    first.goes_on().await;
    second.goes_on().await;
    assert_eq!(origin.pull("edge1", "7", &secret("edge1")).0.class, Class::Auth, "the old secret");
    let listed = format!("rsync://{}@{{}}/7/Release", "edge4");
    assert_eq!(origin.run(&[&listed], &secret("new-edge4")).code, 0, "a new user's secret");
    assert_eq!(origin.pull("edge3", "8", &secret("edge3")).0.class, Class::NotFound);

    origin.put(&export_with(DEBIAN, "debian", &rotated[1..]));
    first.is_ended().await;
    second.goes_on().await;
    assert_eq!(origin.pull("edge1", "7", &secret("new-edge1")).0.class, Class::Auth);

    let address = origin.address();
    origin.serve.remove(DEBIAN).unwrap();
    second.is_ended().await;
    assert_eq!(origin.serve.exports(), []);
    eventually("without exports the port is closed", || TcpStream::connect(address).is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_to_a_tree_while_anybody_reads_it_or_may() {
    let origin = Origin::exporting();
    origin.add_large();
    let mut reader = origin.slow("edge1").await;
    let held = |path: &str| origin.serve.while_unserved(&origin.tree(path), || ()).err();
    for path in ["debian", "debian/pool", ""] {
        assert_eq!(held(path), Some(StillServed::Exported(DEBIAN)), "{path}");
    }
    assert_eq!(held("debian-security"), None, "another tree");
    // A replica that stands still in the middle of it when its export goes is killed, and waited for.
    origin.serve.remove(DEBIAN).unwrap();
    reader.is_ended().await;
    eventually("the daemon's side has ended too", || held("debian").is_none()).await;
    assert_eq!(held("fedora"), Some(StillServed::Exported(FEDORA)));
    // Of a reader that the daemon has not seen yet when the export goes, only the process tells.
    origin.put(&export(DEBIAN, "debian", &["edge1"]));
    let _reader = origin.slow("edge1").await;
    fs::rename(origin.tree("debian"), origin.tree("moved")).unwrap();
    assert_eq!(held("moved"), Some(StillServed::Read));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_outlives_the_day_of_its_secret() {
    let origin = Origin::exporting();
    origin.add_large();
    origin.put(&export(DEBIAN, "debian", &["a3-100", "a3-99", "a4-100"]));
    let mut slow = origin.slow("a3-100").await;
    let mut gone = origin.slow("a4-100").await;
    // Two midnights later, and another replica has left.
    origin.put(&export(DEBIAN, "debian", &["a3-102", "a3-101"]));
    gone.is_ended().await;
    slow.goes_on().await;
    // The sweep looks by itself, and judges alike.
    eventually("a sweep has looked", || origin.serve.connections() == 1).await;
    slow.goes_on().await;
    assert_eq!(origin.pull("a3-100", "7", &secret("a3-100")).0.class, Class::Auth, "an old day's secret");
    origin.put(&export(DEBIAN, "debian", &["a5-102"]));
    slow.is_ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_too_many_is_told_to_come_again() {
    let origin = Origin::with(|settings| settings.connections = 2);
    origin.add_large();
    origin.put(&export(DEBIAN, "debian", &["edge1", "edge2"]));
    let first = origin.slow("edge1").await;
    let _second = origin.slow("edge2").await;
    let (ended, to) = origin.pull("edge1", "7", &secret("edge1"));
    assert_eq!((ended.code, ended.class), (5, Class::Busy), "{}", ended.text);
    assert!(ended.text.contains("max connections (2) reached"), "{}", ended.text);
    assert_eq!(tree_of(&to), []);
    drop(first);
    eventually("a place is free again", || origin.serve.connections() < 2).await;
    assert_eq!(origin.run(&["rsync://edge1@{}/7/Release"], &secret("edge1")).code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_cannot_hold_all_places_and_a_stalled_handshake_is_ended() {
    let origin = Origin::with(|settings| settings.handshake_max = Duration::from_secs(5));
    origin.add_large();
    origin.put(&export(DEBIAN, "debian", &["edge1"]));
    let mut slow = origin.slow("edge1").await;
    let stalled: Vec<TcpStream> = (0..4).map(|_| connect(&origin)).collect();
    eventually("all are begun", || origin.serve.connections() == 5).await;
    assert!(heard(connect(&origin)).contains("@ERROR: max connections"), "a fifth handshake of one peer");
    // One goes further, up to the challenge, and then says nothing more.
    (&stalled[0]).write_all(b"@RSYNCD: 31.0 md5\n7\n").unwrap();
    for stream in stalled {
        assert!(heard(stream).starts_with("@RSYNCD: 3"));
    }
    slow.goes_on().await;
    eventually("only the transfer is left", || origin.serve.connections() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_and_transfers_outlive_the_agent() {
    let mut origin = Origin::exporting();
    origin.add_large();
    let mut slow = origin.slow("edge1").await;
    let mut other = origin.slow("edge2").await;
    origin.serve.stop();
    assert_eq!(origin.serve.port(), None);
    origin.serve = Serve::start(origin.settings.clone(), &origin.guard).unwrap();
    assert_eq!(origin.serve.exports(), [DEBIAN, FEDORA]);
    assert_eq!(origin.serve.connections(), 2);
    slow.goes_on().await;
    assert_eq!(origin.run(&["rsync://edge1@{}/7/Release"], &secret("edge1")).code, 0);
    // The new agent knows what the old one's processes serve, and to whom.
    origin.put(&export(DEBIAN, "debian", &["edge2"]));
    slow.is_ended().await;
    other.goes_on().await;
    origin.set_all(vec![export(FEDORA, "fedora", &["edge3"])]);
    other.is_ended().await;
    assert_eq!(origin.serve.exports(), [FEDORA]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_hook_in_the_files_nothing_is_served() {
    let origin = Origin::exporting();
    let marker = origin.dir.path().join("executed");
    let hook = format!("pre-xfer exec = /bin/touch {}\n", marker.display());
    let main = origin.settings.dir.join("rsyncd.conf");
    let module = origin.settings.dir.join("modules/7.conf");
    for file in [&main, &module] {
        let good = fs::read_to_string(file).unwrap();
        fs::write(file, format!("{good}{hook}")).unwrap();
        let (ended, to) = origin.pull("edge1", "7", &secret("edge1"));
        assert_eq!(ended.class, Class::Refused, "{}", ended.text);
        assert_eq!(tree_of(&to), []);
        assert!(!marker.exists());
        // The coordinator's next list puts everything right.
        origin.set_all(vec![export(DEBIAN, "debian", &["edge1"]), export(FEDORA, "fedora", &["edge3"])]);
        assert_eq!(fs::read_to_string(&main).unwrap().find("exec"), None);
        assert_eq!(origin.pull("edge1", "7", &secret("edge1")).0.code, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_private_files_only() {
    let origin = Origin::exporting();
    origin.add_large();
    let _slow = origin.slow("edge1").await;
    let mut dirs = vec![origin.settings.dir.clone()];
    let mut files = 0;
    while let Some(dir) = dirs.pop() {
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700, "{}", dir.display());
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                files += 1;
                assert_eq!(
                    entry.metadata().unwrap().permissions().mode() & 0o777,
                    0o600,
                    "{}",
                    path.display()
                );
            }
        }
    }
    assert!(files >= 7, "{files}");
    for process in fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let text = fs::read(process.path().join(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            assert!(!text.contains(&secret("edge1")) && !text.contains(&secret("edge2")), "{file}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_without_users_or_with_bad_ones_is_not_served_at_all() {
    let origin = Origin::exporting();
    origin.put(&export(DEBIAN, "debian", &[]));
    assert_eq!(origin.serve.exports(), [FEDORA]);
    symlink(origin.tree("fedora"), origin.tree("link")).unwrap();
    for bad in [
        export(DEBIAN, "debian", &["edge 1"]),
        export(DEBIAN, "debian", &["@all"]),
        export(DEBIAN, "debian", &["edge1:rw"]),
        export(DEBIAN, "debian", &["edge1", "edge1"]),
        export_with(DEBIAN, "debian", &[("edge1", "short".to_owned())]),
        export(DEBIAN, "link", &["edge1"]),
    ] {
        origin.put(&export(DEBIAN, "debian", &["edge1"]));
        let faults = origin.serve.set_all(&origin.guard, vec![bad, export(FEDORA, "fedora", &["edge3"])]);
        assert_eq!(
            faults.iter().map(|(project, _)| *project).collect::<Vec<_>>(),
            [Some(DEBIAN)],
            "{faults:?}"
        );
        assert_eq!(origin.serve.exports(), [FEDORA]);
        assert_eq!(origin.pull("edge1", "7", &secret("edge1")).0.class, Class::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_only_left_where_nobody_chose_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let chosen = Origin::with(|settings| settings.listen = listen);
    let refused = chosen.serve.put(&chosen.guard, &export(DEBIAN, "debian", &["edge1"]));
    assert!(matches!(refused, Err(ServeError::Listen { address, .. }) if address == listen), "{refused:?}");
    let usual = Origin::with(|settings| {
        settings.listen = listen;
        settings.listen_elsewhere = true;
    });
    usual.put(&export(DEBIAN, "debian", &["edge1"]));
    assert!(usual.serve.port().is_some_and(|port| port != listen.port()));
    wait_until("it is served there", || usual.pull("edge1", "7", &secret("edge1")).0.code == 0);
}
