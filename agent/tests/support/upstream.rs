//! A real rsync daemon behind a door: the test's own listener hands each connection to a daemon of its own, at once
//! or when the test opens the door. Until then rsync waits for the greeting, as with any slow upstream.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

const RSYNC: &str = "/usr/bin/rsync";

pub(crate) struct Upstream {
    dir: tempfile::TempDir,
    port: u16,
    door: Arc<Door>,
}

#[derive(Default)]
struct Door {
    state: Mutex<DoorState>,
    changed: Condvar,
}

#[derive(Default)]
struct DoorState {
    /// Connections behind this many wait.
    closed_behind: Option<usize>,
    connections: usize,
}

impl Upstream {
    /// An upstream with module `m`, which anybody may read, `secret`, which wants user mirror, password hunter2, and `one`,
    /// which serves one connection at a time.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("pool/main")).unwrap();
        for n in 0..40 {
            std::fs::write(tree.join(format!("pool/main/package-{n}.deb")), vec![b'a' + n; 5_000]).unwrap();
        }
        std::fs::write(tree.join("Release"), "Suite: stable\n").unwrap();
        let secrets = dir.path().join("secrets");
        std::fs::write(&secrets, "mirror:hunter2\n").unwrap();
        let config = format!(
            "use chroot = no\nstrict modes = no\nread only = yes\nlog file = {0}/log\n[m]\npath = {0}/tree\n\
             [secret]\npath = {0}/tree\nauth users = mirror\nsecrets file = {0}/secrets\n\
             [one]\npath = {0}/tree\nmax connections = 1\nlock file = {0}/lock\n",
            dir.path().display()
        );
        let config_path = dir.path().join("rsyncd.conf");
        std::fs::write(&config_path, config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let door = Arc::new(Door::default());
        let behind = door.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (door, config) = (behind.clone(), config_path.clone());
                std::thread::spawn(move || serve(&door, &config, connection));
            }
        });
        Self { dir, port, door }
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    pub(crate) fn uri(&self, module: &str) -> String {
        format!("rsync://127.0.0.1:{}/{module}/", self.port)
    }

    /// From now on connections wait.
    pub(crate) fn close(&self) {
        self.close_behind(0);
    }

    /// From now on connections wait but the first ones, counted from the start.
    pub(crate) fn close_behind(&self, connections: usize) {
        self.door.state.lock().unwrap().closed_behind = Some(connections);
    }

    /// Lets all in that wait, and all that come.
    pub(crate) fn open(&self) {
        self.door.state.lock().unwrap().closed_behind = None;
        self.door.changed.notify_all();
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.door.state.lock().unwrap().connections
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.open();
    }
}

fn serve(door: &Door, config: &Path, connection: TcpStream) {
    let mut state = door.state.lock().unwrap();
    state.connections += 1;
    let number = state.connections;
    let waits = |state: &mut DoorState| state.closed_behind.is_some_and(|open| number > open);
    let state = door.changed.wait_while(state, waits).unwrap();
    drop(state);
    // A daemon with a socket as standard input serves that one connection.
    let input: OwnedFd = connection.try_clone().unwrap().into();
    let output: OwnedFd = connection.into();
    #[allow(clippy::disallowed_methods, reason = "tests start the upstream")]
    let mut command = Command::new(RSYNC);
    command.arg("--daemon").arg("--config").arg(config).env_clear();
    let daemon = command.stdin(input).stdout(output).stderr(Stdio::null()).spawn();
    let _ = daemon.unwrap().wait();
}

/// Names and contents of everything below a directory, directories marked.
pub(crate) fn tree_of(dir: &Path) -> Vec<(String, Vec<u8>)> {
    fn walk(dir: &Path, base: &Path, found: &mut Vec<(String, Vec<u8>)>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(base).unwrap().display().to_string();
            if path.is_dir() {
                found.push((format!("{name}/"), Vec::new()));
                walk(&path, base, found);
            } else {
                match std::fs::read(&path) {
                    Ok(content) => found.push((name, content)),
                    // An agent that is at work renames what it has just listed here.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => panic!("{}: {error}", path.display()),
                }
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}
