//! The program itself: what it prints, with which code it ends, and how it takes signals.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

#[allow(clippy::disallowed_methods, reason = "the program under test")]
fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirror-coordinator"));
    command.current_dir(folder).env_clear().env("LANG", "C.UTF-8");
    command
}

fn run(folder: &Path, words: &[&str]) -> Output {
    program(folder).args(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const INIT: [&str; 7] =
    ["init", "--data-dir", "fleet", "--trust-domain", "mirror.test", "--grpc-listen", "127.0.0.1:7443"];

/// A coordinator that runs as a program.
struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// The line in which it says that it is ready.
    ready: serde_json::Value,
}

impl Running {
    fn start(folder: &Path, words: &[&str]) -> Self {
        let mut child = program(folder)
            .args(["run", "--config", "fleet/coordinator.toml", "--log-format", "json"])
            .args(["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
            .args(words)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let ready = until(&mut stderr, "ready");
        Self { child, stderr, ready }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it by SIGTERM, and says with which code it ended.
    fn stop(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        until(&mut self.stderr, "stopped in order");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind; one that did not has waited for it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The log line with this message.
fn until(stderr: &mut BufReader<ChildStderr>, message: &str) -> serde_json::Value {
    let mut seen = String::new();
    for line in stderr.lines() {
        let line = line.unwrap();
        let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if event["message"] == message {
            return event;
        }
        seen.push_str(&line);
        seen.push('\n');
    }
    panic!("it ended without saying {message:?}:\n{seen}");
}

#[test]
fn init_says_what_it_made_and_what_comes_next() {
    let dir = tempfile::tempdir().unwrap();
    let done = run(dir.path(), &INIT);
    assert_eq!((done.status.code(), text(&done.stderr)), (Some(0), String::new()));
    let said = text(&done.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("✓ certificate authority made, valid until 20"), "{said}");
    assert_eq!(
        lines[1],
        "✓ coordinator.toml, first admin's context; gRPC 127.0.0.1:7443, HTTP 127.0.0.1:7480"
    );
    let hash = lines[2].strip_prefix("CA hash: sha256:").unwrap();
    let (hash, rest) = hash.split_at(64);
    assert!(
        hash.bytes().all(|b| b.is_ascii_hexdigit()) && rest == " (agents need it; it is no secret)",
        "{said}"
    );
    assert!(lines[3].starts_with("Next: mirror-coordinator run --config "), "{said}");

    let again = run(dir.path(), &INIT);
    assert_eq!((again.status.code(), text(&again.stdout)), (Some(5), String::new()));
    assert!(text(&again.stderr).contains("is not empty"), "{again:?}");
}

#[test]
fn bad_input_ends_with_2_and_every_fault() {
    let dir = tempfile::tempdir().unwrap();
    let bad = run(dir.path(), &["init", "--trust-domain", "X", "--grpc-listen", "x", "--data-dir", "fleet"]);
    assert_eq!(bad.status.code(), Some(2));
    assert_eq!(
        text(&bad.stderr),
        "error: no fleet made: 2 faults in what you typed\n  \
         --trust-domain  \"X\": 1 to 255 small letters, digits and . _ -, as in mirror.example.org\n  \
         --grpc-listen   \"x\": wanted is ADDRESS:PORT, as in 127.0.0.1:7443, [::1]:7443 or :7443\n\
         next: mirror-coordinator init --help\n"
    );
    assert!(!dir.path().join("fleet").exists());
    assert_eq!(run(dir.path(), &["fly"]).status.code(), Some(2));
}

#[test]
fn check_config_tells_faults_of_file_environment_and_flags_together() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("coordinator.toml"), "limits.agent_slots = 0\n").unwrap();
    let checked = program(dir.path())
        .args(["run", "--check-config", "--reflection", "maybe"])
        .env("MIRROR_COORDINATOR_HTTP_LISTEN", "nowhere")
        .output()
        .unwrap();
    assert_eq!(checked.status.code(), Some(2));
    let said = text(&checked.stderr);
    assert!(
        said.starts_with("error: not started: 3 faults in the configuration coordinator.toml\n"),
        "{said}"
    );
    for at in ["  limits.agent_slots (line 1) ", "  MIRROR_COORDINATOR_HTTP_LISTEN ", "  --reflection "] {
        assert!(said.contains(at), "{said}");
    }
    let good = run(dir.path(), &["run", "--check-config", "--limits-agent-slots", "4"]);
    assert_eq!(
        (good.status.code(), text(&good.stdout)),
        (Some(0), "✓ coordinator.toml is good\n".to_owned())
    );
}

#[test]
fn it_runs_answers_probes_reloads_and_stops_in_order_with_a_dead_collector() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), &INIT).status.success());
    // Port 9 of this host: nobody collects there.
    let mut running = Running::start(dir.path(), &["--otlp-endpoint", "http://127.0.0.1:9"]);
    let mut stream = TcpStream::connect(running.ready["http"].as_str().unwrap()).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let second = run(dir.path(), &["run", "--config", "fleet/coordinator.toml"]);
    assert_eq!(second.status.code(), Some(5), "{second:?}");
    assert!(text(&second.stderr).contains("another coordinator is running"), "{second:?}");

    running.signal(Signal::HUP);
    until(&mut running.stderr, "certificates are read anew");
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn a_backup_by_hand_and_its_restore() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), &INIT).status.success());
    let on = ["--config", "fleet/coordinator.toml"];
    let made = run(dir.path(), &[&["backup", "one.backup"][..], &on].concat());
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    std::fs::write(dir.path().join("bad.backup"), "no backup").unwrap();
    let refused = run(dir.path(), &[&["restore", "bad.backup"][..], &on].concat());
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let missing = run(dir.path(), &[&["restore", "no.backup"][..], &on].concat());
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    assert_eq!(
        text(&missing.stderr),
        "error: nothing was restored: the backup no.backup cannot be read: No such file or directory\n\
         next: mirror-coordinator restore --help\n"
    );
    let done = run(dir.path(), &[&["restore", "one.backup"][..], &on].concat());
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert!(text(&done.stdout).contains("store.before-restore-1"), "{done:?}");
    let running = Running::start(dir.path(), &[]);
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn a_user_whose_certificate_has_ended_gets_another_one_on_the_coordinators_host() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), &INIT).status.success());
    let glass = |user: &str, out: &str| {
        let on = ["user-certificate", "--config", "fleet/coordinator.toml", "--user", user, "--out", out];
        run(dir.path(), &on)
    };
    let unknown = glass("maria", "maria");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        text(&unknown.stderr).contains("the fleet has no user \"maria\"; its users are: admin"),
        "{unknown:?}"
    );
    let running = Running::start(dir.path(), &[]);
    assert_eq!(glass("admin", "new").status.code(), Some(5), "the store is another program's");
    assert_eq!(running.stop(), Some(0));
    assert!(!dir.path().join("maria").exists() && !dir.path().join("new").exists());

    let made = glass("ADMIN", "new");
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    assert!(text(&made.stdout).ends_with("Then: mirrorctl --config new/mirrorctl.toml status\n"), "{made:?}");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let domain = "mirror.test".parse().unwrap();
    let peer = mirror_certs::Identity::from_pem(&read("new/user.pem"), &domain).unwrap();
    assert_eq!(peer.identity.to_string(), "user/admin");
    assert!(mirror_certs::CaBundle::from_pem(&read("fleet/ca.pem")).unwrap().signed(&read("new/user.pem")));
    let key = mirror_certs::KeyPair::load(&dir.path().join("new/user.key")).unwrap();
    assert_eq!(key.spki_hash(), peer.spki_hash);
    let context: toml::Table = read("new/mirrorctl.toml").parse().unwrap();
    assert_eq!(context["contexts"]["default"]["certificate"].as_str(), Some("user.pem"));
    let before = read("new/user.pem");
    assert_eq!(glass("admin", "new").status.code(), Some(5), "nothing is overwritten");
    assert_eq!(read("new/user.pem"), before);
}

#[test]
fn help_documents_the_exit_codes_and_every_key() {
    let dir = tempfile::tempdir().unwrap();
    let help = text(&run(dir.path(), &["run", "--help"]).stdout);
    for code in ["  2   bad input", "  5   conflict", "  70  a bug"] {
        assert!(help.contains(code), "{help}");
    }
    for key in mirror_coordinator::config::KEYS {
        assert!(help.contains(&format!("--{} <", key.flag())), "{}", key.name);
    }
    assert!(text(&run(dir.path(), &["--version"]).stdout).contains(env!("CARGO_PKG_VERSION")));
}
