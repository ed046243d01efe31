//! A day of people: an admin enters them, each logs in, does what the role may, is refused the rest with a sentence that
//! helps; one is shut out while watching; and the way back in when all is lost.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use fleet_tests::{Finished, Fleet, FleetOptions, Process, eventually};
use serde_json::Value;

const NOT_ALLOWED: i32 = 4;
const CONFLICT: i32 = 5;
const PASSWORD: &str = "correct horse battery";

/// A person on a machine of his own: no files but what the first login makes.
struct Person<'a> {
    fleet: &'a Fleet,
    name: &'static str,
    config: PathBuf,
}

impl<'a> Person<'a> {
    fn new(fleet: &'a Fleet, name: &'static str) -> Self {
        Self { fleet, name, config: fleet.path().join(format!("{name}/config.toml")) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.fleet.command("mirrorctl", args);
        command.env("MIRRORCTL_CONFIG", &self.config);
        command
    }

    fn run(&self, args: &[&str]) -> Finished {
        Finished::run(&mut self.command(args))
    }

    fn json(&self, args: &[&str]) -> Value {
        self.run(&[args, &["-o", "json"]].concat()).ok().json()
    }

    /// The first login: the coordinator is known by the hash of its CA alone.
    fn first_login(&self, password: &Path) -> Finished {
        let (server, hash) = (self.fleet.server(), self.fleet.ca_hash());
        let password = password.display().to_string();
        self.run(&["--server", &server, "login", self.name, "--ca-hash", hash, "--password-file", &password])
    }

    fn login(&self, password: &Path) -> Finished {
        self.run(&["login", self.name, "--password-file", &password.display().to_string()])
    }

    fn is_refused(&self, args: &[&str], with: &str) {
        let refused = self.run(args);
        assert_eq!(refused.code, NOT_ALLOWED, "{args:?}: {}{}", refused.stdout, refused.stderr);
        assert!(refused.stderr.contains(with), "{args:?}: {}", refused.stderr);
    }
}

fn password_file(fleet: &Fleet, name: &str, text: &str) -> PathBuf {
    let path = fleet.path().join(name);
    fs::write(&path, format!("{text}\n")).expect("a file");
    path
}

/// The four of them, each with the same first password.
fn with_people() -> (Fleet, PathBuf) {
    let fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    let password = password_file(&fleet, "password", PASSWORD);
    let file = password.display().to_string();
    for (name, role) in [("vera", "viewer"), ("wim", "owner"), ("olga", "operator"), ("anna", "admin")] {
        fleet.mirrorctl(&["user", "create", name, "--role", role, "--password-file", &file]).ok();
    }
    fleet.add_project("debian", &["--owner", "wim"]).ok();
    fleet.add_project("fedora", &[]).ok();
    (fleet, password)
}

/// A13, A22: users with roles are made, listed, given another role and removed; an owner acts on trees of their own and on
/// no other.
#[test]
fn each_does_what_the_role_may_and_is_refused_the_rest() {
    let (fleet, password) = with_people();
    let people = ["vera", "wim", "olga", "anna"].map(|name| Person::new(&fleet, name));
    for person in &people {
        person.first_login(&password).ok();
        assert_eq!(person.json(&["whoami"])["name"], format!("users/{}", person.name));
        let mode = fs::metadata(&person.config).expect("a context").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else reads a token");
        person.run(&["status"]).ok();
        person.run(&["project", "show", "debian"]).ok();
    }
    let [vera, wim, olga, anna] = &people;
    vera.is_refused(&["project", "run", "debian"], "it needs the role operator or admin, or owner");
    vera.is_refused(&["user", "list"], "it needs the role admin");
    vera.is_refused(&["token", "list", "--user", "wim"], "you may not see the tokens of users/wim");
    wim.run(&["project", "pause", "debian", "--reason", "array swap"]).ok();
    wim.run(&["project", "resume", "debian"]).ok();
    wim.run(&["project", "run", "debian", "--watch"]).ok();
    wim.run(&["project", "push", "debian"]).ok();
    fleet.await_run("debian", "SUCCEEDED");
    assert_eq!(wim.json(&["project", "list", "--owner", "wim"])["projects"][0]["name"], "projects/debian");
    wim.is_refused(
        &["project", "pause", "fedora", "--reason", "x"],
        "you may not pause fedora: you own debian",
    );
    wim.is_refused(&["project", "run", "fedora"], "you may not run fedora: you own debian");
    wim.is_refused(&["project", "push", "fedora"], "you may not push fedora: you own debian");
    vera.is_refused(&["project", "push", "debian"], "owner for projects of your own");
    wim.is_refused(&["push-token", "create", "debian"], "it needs the role admin");
    wim.is_refused(&["project", "edit", "debian", "--owner", "vera"], "it needs the role operator");
    let run = fleet.newest_run("debian")["name"].as_str().expect("a run").to_owned();
    let refused = wim.run(&["run", "cancel", &run, "--yes"]);
    assert_eq!(refused.code, CONFLICT, "it has ended, and he may: {}", refused.stderr);
    olga.run(&["project", "edit", "fedora", "--owner", "wim"]).ok();
    wim.run(&["project", "pause", "fedora", "--reason", "mine now"]).ok();
    olga.is_refused(&["agent", "revoke", "edge1", "--yes"], "it needs the role admin");
    anna.run(&["user", "set-role", "vera", "operator"]).ok();
    vera.run(&["project", "run", "debian"]).ok();
    let refused = anna.run(&["user", "delete", "wim", "--yes"]);
    assert!(refused.code == CONFLICT && refused.stderr.contains("owns debian, fedora"), "{}", refused.stderr);
    assert_eq!(anna.run(&["user", "show", "ana"]).code, 3);
    for project in ["debian", "fedora"] {
        anna.run(&["project", "edit", project, "--owner", ""]).ok();
    }
    anna.run(&["user", "delete", "wim", "--yes"]).ok();
    assert_eq!(wim.run(&["status"]).code, NOT_ALLOWED);
    let listed = anna.run(&["user", "list", "-o", "name"]).ok().stdout;
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["admin", "anna", "olga", "vera"]);
}

/// A14: a login gives a token that is good for a while, and that its user makes useless.
#[test]
fn a_wrong_hash_and_a_wrong_password_send_nothing_and_say_nothing() {
    let (fleet, password) = with_people();
    let vera = Person::new(&fleet, "vera");
    let (server, file) = (fleet.server(), password.display().to_string());
    let wrong = format!("sha256:{}", "0".repeat(64));
    let refused =
        vera.run(&["--server", &server, "login", "vera", "--ca-hash", &wrong, "--password-file", &file]);
    assert!(refused.code == NOT_ALLOWED && refused.stderr.contains("nothing was sent"), "{}", refused.stderr);
    assert!(!vera.config.exists());
    let other = password_file(&fleet, "other", "another horse battery");
    let refused = vera.first_login(&other);
    assert!(
        refused.code == NOT_ALLOWED && refused.stderr.contains("wrong user or password"),
        "{}",
        refused.stderr
    );
    assert!(!vera.config.exists());
    assert_eq!(vera.run(&["status"]).code, 2, "no coordinator is known yet");
    vera.first_login(&password).ok();
    vera.run(&["logout"]).ok();
    vera.is_refused(&["status"], "not logged in: context default has no certificate and no token");
    vera.login(&password).ok();
    let text = fs::read_to_string(&vera.config).expect("a context");
    assert_eq!(text.matches("mut_").count(), 1, "{text}");
    let shown = vera.run(&["context", "show"]).ok();
    assert!(!shown.stdout.contains("mut_"), "{}", shown.stdout);
    let tokens = vera.json(&["token", "list"])["tokens"].clone();
    assert!(tokens.as_array().map(Vec::len) == Some(1) && tokens[0]["expire_time"].is_string(), "{tokens}");
    let token = tokens[0]["name"].as_str().expect("a name").to_owned();
    vera.run(&["token", "revoke", &token]).ok();
    vera.is_refused(&["status"], "log in again");
}

/// A13: who is disabled is shut out at once, and let in again by a new login.
#[test]
fn a_disabled_user_loses_what_he_watches_within_a_second() {
    let (fleet, password) = with_people();
    let wim = Person::new(&fleet, "wim");
    wim.first_login(&password).ok();
    fleet.mirrorctl(&["freeze", "--reason", "nothing starts"]).ok();
    wim.run(&["project", "run", "debian"]).ok();
    let log = fleet.path().join("watch.log");
    let mut watch =
        Process::start("watch", &mut wim.command(&["run", "watch", "debian"]), &log).expect("it starts");
    eventually("the watch shows the run", || (!watch.output().is_empty()).then_some(()));
    fleet.mirrorctl(&["user", "disable", "wim"]).ok();
    let cut = Instant::now();
    let ended = eventually("the watch ends", || watch.exited());
    assert!(cut.elapsed() < Duration::from_secs(5), "{:?}", cut.elapsed());
    assert_eq!(ended.code(), Some(NOT_ALLOWED), "{}", watch.output());
    assert!(watch.output().contains("its user was disabled"), "{}", watch.output());
    wim.is_refused(&["status"], "log in again");
    fleet.mirrorctl(&["user", "enable", "wim"]).ok();
    wim.is_refused(&["status"], "log in again");
    wim.login(&password).ok();
    wim.run(&["status"]).ok();
}

/// A14, A13: a client certificate is a way in as well; a reset of the password ends it.
#[test]
fn certificates_are_made_here_and_a_reset_ends_them() {
    let (fleet, password) = with_people();
    let olga = Person::new(&fleet, "olga");
    olga.first_login(&password).ok();
    olga.run(&["cert", "issue"]).ok();
    olga.run(&["logout"]).ok();
    assert_eq!(olga.json(&["whoami"])["proof"], "CERTIFICATE");
    let shown = olga.json(&["cert", "show"]);
    assert_eq!(shown["user"], "olga");
    let key = shown["key"].as_str().expect("a path");
    assert_eq!(fs::metadata(key).expect("a key").permissions().mode() & 0o777, 0o600);
    // Certificates count in whole seconds: one of the same second as the reset is taken for one from after it.
    let second = || chrono::Utc::now().timestamp();
    let issued = second();
    eventually("the second of the certificate is over", || (second() > issued).then_some(()));
    let next = password_file(&fleet, "next", "battery staple correct");
    let file = next.display().to_string();
    fleet.mirrorctl(&["user", "reset-password", "olga", "--password-file", &file]).ok();
    olga.is_refused(&["status"], "mirrorctl login olga");
    olga.login(&next).ok();
    olga.run(&["status"]).ok();
    olga.run(&["cert", "issue"]).ok();
    olga.run(&["logout"]).ok();
    olga.run(&["status"]).ok();
}

#[test]
fn the_socket_lets_root_in_when_all_is_lost() {
    let (fleet, password) = with_people();
    for file in ["admin.pem", "admin.key"] {
        fs::remove_file(fleet.admin_dir().join(file)).expect("the first admin's");
    }
    assert_ne!(fleet.mirrorctl(&["status"]).code, 0);
    let socket = fleet.coordinator_dir().join("admin.sock").display().to_string();
    let by_socket = |args: &[&str]| fleet.mirrorctl(&[&["--socket", &socket], args].concat());
    let me = by_socket(&["whoami", "-o", "json"]).ok().json();
    assert_eq!((me["name"].as_str(), me["proof"].as_str()), (Some("local root"), Some("SOCKET")));
    let file = password.display().to_string();
    by_socket(&["user", "reset-password", "admin", "--password-file", &file]).ok();
    by_socket(&["project", "pause", "debian", "--reason", "all is lost"]).ok();
    let shown = by_socket(&["project", "show", "debian", "-o", "json"]).ok().json();
    assert_eq!(shown["paused"]["by"], "local root");
    let admin = Person::new(&fleet, "admin");
    admin.first_login(&password).ok();
    admin.run(&["cert", "issue"]).ok();
    admin.run(&["user", "list"]).ok();
}
