//! Secrets stay where they belong: one hunt through everything that a fleet writes, shows and starts while runs with
//! passwords go on; and an agent that was killed goes on with its password from the coordinator alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use fleet_tests::{
    Finished, Fleet, FleetOptions, Process, Rsyncd, address, eventually,
    hunt::{self, Find, Hunt, Watch, files_below},
    process::send_signal,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::trace::{Collector, environment};

/// A word that is no secret and stands in every kind of place: the hunt that does not find it there sees nothing.
const CONTROL: &str = "control-q7w2k9x4";
const ORIGIN: usize = 0;
const REPLICA: usize = 1;
/// Passwords that look different in each form.
const RIGHT: &str = "R1ght/p@ss%word+Zq9";
const WRONG: &str = "Wr0ng/p@ss%word+Xk3";
const TYPED: &str = "Typ3d-into-a-URI-7h5";
/// What a person logs in by, and what the person typed before.
const LOGIN: &str = "L0g-in/with%this+Vb6";
const MISTYPED: &str = "M1s-typed/with%this+Jn8";

/// An upstream whose module wants user `mirror` with [`RIGHT`].
fn guarded(fleet: &Fleet) -> Rsyncd {
    let dir = fleet.path().join("guarded");
    fs::create_dir_all(&dir).expect("a directory");
    let secrets = dir.join("secrets");
    fs::write(&secrets, format!("mirror:{RIGHT}\n")).expect("a file");
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).expect("its mode");
    let modules = format!(
        "[mod]\npath = {}\nread only = yes\nauth users = mirror\nsecrets file = {}\n",
        fleet.upstream_tree().display(),
        secrets.display()
    );
    Rsyncd::start_with(None, &dir, address::unique(), &modules).expect("an upstream")
}

/// A file that a person gives to a command.
fn given(fleet: &Fleet, name: &str, text: &str) -> String {
    let dir = fleet.path().join("given");
    fs::create_dir_all(&dir).expect("a directory");
    let file = dir.join(name);
    fs::write(&file, text).expect("a file");
    file.display().to_string()
}

/// Declares a project of the guarded upstream.
fn declare(fleet: &Fleet, upstream: &Rsyncd, name: &str, password: &str, more: &[&str]) {
    let (uri, to) = (upstream.uri(), format!("a1:{name}"));
    let file = given(fleet, &format!("password of {name}"), password);
    let words = ["project", "add", name, "--from", &uri, "--to", &to, "--user", "mirror"];
    let rest = ["--password-file", &file, "--retry-attempts", "1"];
    fleet.mirrorctl(&[&words[..], &rest, more].concat()).ok();
    // Once more as a file, which names the password's file.
    let exported = fleet.mirrorctl(&["export", name]).ok().stdout;
    let own = format!("user = \"mirror\", password_file = {file:?}");
    let manifest = given(fleet, &format!("{name}.toml"), &exported.replace("user = \"mirror\"", &own));
    let same = fleet.mirrorctl(&["apply", "-f", &manifest]).ok().stdout;
    assert!(same.contains("Nothing to change"), "{same}");
}

/// Enrols by a token in a file, as who reads the help does it. The token.
fn enroll_by_file(fleet: &Fleet, index: usize, name: &str) -> String {
    let token =
        fleet.json(&["join-token", "create", "--name", name])["token"].as_str().expect("a token").to_owned();
    let file = given(fleet, &format!("token of {name}"), &token);
    fs::create_dir_all(fleet.root(index)).expect("a root");
    Finished::run(&mut enroll_command(fleet, index, &file)).ok();
    token
}

fn enroll_command(fleet: &Fleet, index: usize, file: &str) -> Command {
    let (server, root) = (fleet.server(), format!("a1={}", fleet.root(index).display()));
    let mut command = fleet.agent_command(index, &["enroll", &server, "--token-file", file]);
    command.args([
        "--ca-hash",
        fleet.ca_hash(),
        "--root",
        &root,
        "--allow-upstream",
        "127.0.0.0/8",
        "--force",
    ]);
    command.arg("--data-dir").arg(fleet.agent_dir(index));
    command
}

/// A fleet that tells all it can, with an origin and a replica; and the tokens they came by.
fn talkative(collector: &Collector) -> (Fleet, [String; 2]) {
    let mut environment = environment(&collector.endpoint());
    environment.extend([
        ("MIRROR_COORDINATOR_LOG_FILTER".to_owned(), "debug".to_owned()),
        ("MIRROR_AGENT_LOG_LEVEL".to_owned(), "debug".to_owned()),
    ]);
    let agents = ["ftp1", "edge1"];
    let options =
        FleetOptions { agents: agents.map(str::to_owned).to_vec(), environment, ..FleetOptions::default() };
    let mut fleet = Fleet::prepare(options).expect("a fleet");
    fleet.start_coordinator().expect("the coordinator starts");
    let tokens = [ORIGIN, REPLICA].map(|index| {
        let token = enroll_by_file(&fleet, index, agents[index]);
        let file = fleet.agent_dir(index).join("agent.toml");
        let text = fs::read_to_string(&file).expect("the agent's file");
        let (own, port) = (address::unique(), fleet_tests::rsyncd::PORT);
        let serve = format!("[serve]\nlisten = \"{own}:{port}\"\naddress = \"{own}\"\n");
        fs::write(file, text + &serve).expect("the agent's file");
        fleet.start_agent(index).expect("the agent starts");
        fleet.await_connected(agents[index]);
        token
    });
    (fleet, tokens)
}

/// `mirrorctl` of a person who has only what the first login makes.
fn as_vera(fleet: &Fleet, args: &[&str]) -> Finished {
    let mut command = fleet.command("mirrorctl", args);
    Finished::run(command.env("MIRRORCTL_CONFIG", fleet.path().join("vera/config.toml")))
}

/// A person is entered, types a wrong password, logs in, looks around and makes a certificate; what was said.
fn log_in(fleet: &Fleet) -> Vec<u8> {
    let (right, wrong) = (given(fleet, "password of vera", LOGIN), given(fleet, "mistyped", MISTYPED));
    let made = fleet.mirrorctl(&["user", "create", "vera", "--role", "viewer", "--password-file", &right]);
    let login = |file: &str| {
        let (server, hash) = (fleet.server(), fleet.ca_hash());
        as_vera(fleet, &["--server", &server, "login", "vera", "--ca-hash", hash, "--password-file", file])
    };
    let refused = login(&wrong);
    assert_ne!(refused.code, 0, "it is not the password");
    let said = [made.ok(), refused, login(&right).ok(), as_vera(fleet, &["whoami", "-o", "json"]).ok()];
    said.into_iter().flat_map(|said| [said.stdout, said.stderr].concat().into_bytes()).collect()
}

/// The token in a person's context.
fn token_of_vera(fleet: &Fleet) -> String {
    let text = fs::read_to_string(fleet.path().join("vera/config.toml")).expect("a context");
    let at = text.find("mut_").expect("a token");
    text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).collect()
}

/// Every secret of the fleet. **A new kind of secret is one line here.**
fn plant(fleet: &Fleet, tokens: &[String], hunt: &mut Hunt) {
    let coordinator = fleet.coordinator_dir();
    let guests = [fleet.path().join("given"), fleet.path().join("guarded")];
    let given: Vec<&Path> = guests.iter().map(PathBuf::as_path).collect();
    hunt.plant("control", CONTROL.as_bytes(), &[]);
    hunt.plant("upstream password", RIGHT.as_bytes(), &given);
    hunt.plant("wrong upstream password", WRONG.as_bytes(), &given);
    hunt.plant("password typed into a URI", TYPED.as_bytes(), &[]);
    hunt.plant("login password", LOGIN.as_bytes(), &given);
    hunt.plant("mistyped password", MISTYPED.as_bytes(), &given);
    hunt.plant("user's token", token_of_vera(fleet).as_bytes(), &[&fleet.path().join("vera")]);
    for token in tokens {
        hunt.plant("join token", token.as_bytes(), &given);
    }
    let seal = fs::read_to_string(coordinator.join("seal.key")).expect("the sealing key");
    hunt.plant("sealing key", &hex::decode(seal.trim()).expect("hex"), &[&coordinator.join("seal.key")]);
    hunt.plant_key("CA's key", &coordinator.join("ca.key"));
    hunt.plant_key("server's key", &coordinator.join("server.pem"));
    hunt.plant_key("user's key", &fleet.admin_dir().join("admin.key"));
    for (index, name) in [(ORIGIN, "origin's key"), (REPLICA, "replica's key")] {
        hunt.plant_key(name, &fleet.agent_dir(index).join("identity.pem"));
    }
    let serving = fleet.agent_dir(ORIGIN);
    let files = files_below(&serving)
        .into_iter()
        .filter(|file| file.parent().is_some_and(|dir| dir.ends_with("secrets")));
    let mut pairs = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("rsync's file of secrets");
        pairs.extend(
            text.lines().filter_map(|line| line.split_once(':')).map(|(_, secret)| secret.to_owned()),
        );
        assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
        for secret in &pairs {
            hunt.plant("pair secret", secret.as_bytes(), &[&file]);
        }
    }
    assert!(!pairs.is_empty(), "the origin serves its replica");
}

/// The one page that finds a fault, and says so by its exit code: a password that is wrong.
const FINDS_A_FAULT: &[&str] = &["project", "check", "wrong"];

/// Every answer that people can ask for, each as it is shown and as JSON.
fn answers(fleet: &Fleet) -> Vec<u8> {
    let mut all = Vec::new();
    for page in [
        &["project", "list"][..],
        &["project", "show", CONTROL],
        &["project", "show", "wrong"],
        &["project", "check", CONTROL],
        FINDS_A_FAULT,
        &["project", "preview", CONTROL],
        &["run", "list", CONTROL],
        &["run", "show", CONTROL],
        &["run", "show", "wrong"],
        &["run", "log", CONTROL],
        &["run", "log", "wrong"],
        &["agent", "list"],
        &["agent", "show", "ftp1"],
        &["agent", "show", "edge1"],
        &["join-token", "list"],
        &["user", "list"],
        &["user", "show", "vera"],
        &["token", "list", "--user", "vera"],
        &["cert", "show"],
        &["audit"],
        &["upstream", "list"],
        &["status"],
        &["why", CONTROL],
        &["why", "wrong"],
    ] {
        for form in [&[][..], &["-o", "json"], &["-o", "wide"]] {
            let said = fleet.mirrorctl(&[page, form].concat());
            let code = i32::from(page == FINDS_A_FAULT);
            assert_eq!(said.code, code, "{}\n{}{}", said.line, said.stdout, said.stderr);
            assert!(!said.stdout.trim().is_empty(), "{}: nothing is shown", said.line);
            all.extend([said.stdout, said.stderr].concat().into_bytes());
        }
    }
    all
}

/// What is said to people who make mistakes with secrets.
fn complaints(fleet: &Fleet, upstream: &Rsyncd) -> Vec<u8> {
    let used = given(
        fleet,
        "token of ftp1",
        &fs::read_to_string(fleet.path().join("given/token of ftp1")).expect("a file"),
    );
    let again = Finished::run(&mut enroll_command(fleet, ORIGIN, &used));
    assert_ne!(again.code, 0, "a token is good once");
    let in_uri = upstream.uri().replace("rsync://", &format!("rsync://mirror:{TYPED}@"));
    let typed = fleet
        .mirrorctl(&["project", "add", "typed", "--from", &in_uri, "--to", "a1:typed", "--origin", "ftp1"]);
    assert_ne!(typed.code, 0, "a password does not belong into a URI");
    let run = fleet.mirrorctl(&["project", "run", "wrong", "--watch"]);
    assert_eq!(run.code, 10, "{}{}", run.stdout, run.stderr);
    let outcome = &fleet.newest_run("wrong")["origin_attempt"]["outcome"];
    assert_eq!(outcome["class"], "AUTH", "{outcome}");
    let unknown = fleet.mirrorctl(&["project", "show", &format!("{CONTROL}-absent")]);
    [again, typed, run, unknown]
        .into_iter()
        .flat_map(|said| [said.stdout, said.stderr].concat().into_bytes())
        .collect()
}

/// Two runs, the second with a look at the upstream in front of it, copied to the replica each time.
fn work(fleet: &Fleet) {
    for round in 0..2 {
        fs::write(fleet.upstream_tree().join(format!("round-{round}")), "new").expect("the upstream grows");
        fleet.mirrorctl(&["project", "run", CONTROL, "--watch"]).ok();
        let copy = fleet.root(REPLICA).join(CONTROL).join(format!("round-{round}"));
        eventually("the replica has it", || copy.exists().then_some(()));
    }
}

/// Every program of the fleet has a core limit of zero.
fn no_cores(limits: impl IntoIterator<Item = Vec<u8>>) -> usize {
    let of_fleet = |line: &str| line.contains("/agent-") || line.contains("/root-");
    let texts = limits.into_iter().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let ours: Vec<String> = texts.filter(|text| of_fleet(text)).collect();
    for text in &ours {
        let core = text.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
        assert!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{text}");
    }
    ours.len()
}

/// What was seen while the fleet works: by kinds of places, and the collector's spans among them.
fn observed(fleet: &Fleet, upstream: &Rsyncd) -> BTreeMap<&'static str, Vec<Vec<u8>>> {
    let directories = [ORIGIN, REPLICA].map(|index| fleet.agent_dir(index).join("runs")).to_vec();
    let watch = Watch::begin(fleet.path(), directories);
    let control = Process::start(
        "a control",
        Command::new("sleep").arg("600").env_clear().env("CONTROL", CONTROL),
        &fleet.path().join("sleep.log"),
    );
    let more = ["--origin", "ftp1", "--replicas", "edge1", "--sentinel", "pool"];
    declare(fleet, upstream, CONTROL, RIGHT, &more);
    declare(fleet, upstream, "wrong", WRONG, &["--origin", "ftp1"]);
    let said = log_in(fleet);
    work(fleet);
    let seen = watch.end().into_iter().map(|(kind, all)| (kind, all.into_iter().collect()));
    drop(control);
    seen.chain([("logins", vec![said, CONTROL.as_bytes().to_vec()])]).collect()
}

/// Ends the fleet in order and backs its store up: its audit, and the backup's file.
fn ended(fleet: &mut Fleet) -> (Vec<u8>, PathBuf) {
    fleet.agents.iter_mut().flatten().for_each(|agent| _ = agent.stop());
    fleet.coordinator.as_mut().expect("it runs").stop();
    let log = fs::read_to_string(fleet.path().join("coordinator.log")).expect("a log");
    let audit: String = log.lines().filter(|line| line.contains(" audit: ")).collect();
    let backup = fleet.path().join("by-hand.backup");
    let mut command = fleet.command("mirror-coordinator", &["backup", "--config"]);
    Finished::run(command.arg(fleet.coordinator_dir().join("coordinator.toml")).arg(&backup)).ok();
    (audit.into_bytes(), backup)
}

#[test]
fn no_secret_stands_where_it_does_not_belong() {
    let collector = Collector::start();
    let (mut fleet, tokens) = talkative(&collector);
    let mut tokens = tokens.to_vec();
    // One that nobody uses.
    let unused = fleet.json(&["join-token", "create", "--name", "edge9"]);
    tokens.push(unused["token"].as_str().expect("a token").to_owned());
    let upstream = guarded(&fleet);
    let mut seen = observed(&fleet, &upstream);
    let mut hunt = Hunt::default();
    plant(&fleet, &tokens, &mut hunt);
    let limits = seen.remove(hunt::LIMITS).unwrap_or_default();
    assert!(no_cores(limits) > 2, "rsync and its supervisors were seen");
    seen.insert("complaints", vec![complaints(&fleet, &upstream)]);
    seen.insert("answers", vec![answers(&fleet)]);
    let spans = eventually("the agent's spans arrive", || {
        let spans = collector.spans();
        spans.iter().any(|span| span["service"] == "agent").then_some(spans)
    });
    seen.insert("traces", spans.iter().map(|span| span.to_string().into_bytes()).collect());
    let (audit, backup) = ended(&mut fleet);
    seen.insert("audit", vec![audit]);

    let ready = hunt.ready();
    let (mut found, at_home) = ready.seek_below(fleet.path());
    for secret in ready.with_homes() {
        assert!(at_home.iter().any(|find| find.secret == secret), "{secret} is not even seen at home");
    }
    for (kind, all) in &seen {
        let here: BTreeSet<Find> = all.iter().flat_map(|bytes| ready.seek(kind, bytes)).collect();
        assert!(here.iter().any(|find| find.secret == "control"), "nothing is seen in {kind}");
        found.extend(here);
    }
    let (coordinator, agent) = (fleet.coordinator_dir(), fleet.agent_dir(ORIGIN));
    let logs = ["coordinator.log", "agent-ftp1.log", "agent-edge1.log"].map(|name| fleet.path().join(name));
    let places = [coordinator.join("store"), backup, agent.join("logs"), agent.join("journal")];
    for place in places.iter().chain(&logs) {
        let within = |find: &&Find| find.place.starts_with(&place.display().to_string());
        let control = found.iter().filter(within).any(|find| find.secret == "control");
        assert!(control, "nothing is seen in {}", place.display());
    }
    let leaks: Vec<&Find> = found.iter().filter(|find| find.secret != "control").collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}

/// The run directories of the newest attempt of an agent, by the name of their pass.
fn passes(fleet: &Fleet) -> BTreeSet<String> {
    let dirs = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let runs = fleet.agent_dir(ORIGIN).join("runs");
    let all = dirs(&runs).flat_map(|attempt| dirs(&attempt).collect::<Vec<_>>());
    all.filter(|pass| pass.join("supervisor.json").exists())
        .filter_map(|pass| Some(pass.file_name()?.to_str()?.to_owned()))
        .collect()
}

fn log_of_agent(fleet: &Fleet) -> String {
    let files = files_below(&fleet.agent_dir(ORIGIN).join("logs"));
    files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect()
}

#[test]
fn an_agent_killed_between_two_passes_goes_on_with_its_password_from_the_coordinator_alone() {
    let mut fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    let upstream = guarded(&fleet);
    declare(&fleet, &upstream, "debian", RIGHT, &["--origin", "edge1", "--sentinel", "pool"]);
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    let watch = Watch::begin(fleet.path(), vec![fleet.agent_dir(ORIGIN)]);

    // The look at the upstream waits for a daemon that does not answer.
    send_signal(upstream.pid(), Signal::STOP);
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    eventually("the upstream is looked at", || passes(&fleet).contains("probe-1").then_some(()));
    fleet.kill_agent(ORIGIN);
    fleet.coordinator.as_ref().expect("it runs").signal(Signal::STOP);
    send_signal(upstream.pid(), Signal::CONT);
    let probe = files_below(&fleet.agent_dir(ORIGIN).join("runs"));
    let probe = probe.iter().find(|file| file.ends_with("probe-1/spec.json")).expect("its directory").clone();
    eventually("the look is over", || probe.with_file_name("exit.json").exists().then_some(()));

    fleet.start_agent(ORIGIN).expect("the agent starts again");
    let waits = "waits for its password from the coordinator";
    eventually("it has no password", || log_of_agent(&fleet).contains(waits).then_some(()));
    assert!(!passes(&fleet).contains("pull-1"), "nothing is begun without one: {:?}", passes(&fleet));
    fleet.coordinator.as_ref().expect("it runs").signal(Signal::CONT);
    let run: Value = fleet.await_run("debian", "SUCCEEDED");
    assert_eq!(run["attempts"].as_array().map_or(1, Vec::len), 1, "the same attempt went on: {run}");

    let mut hunt = Hunt::default();
    hunt.plant("password", RIGHT.as_bytes(), &[]);
    hunt.plant("control", b"a1:debian", &[]);
    let ready = hunt.ready();
    let seen = watch.end().into_values().flatten();
    let found: BTreeSet<Find> = seen.flat_map(|bytes| ready.seek("while it ran", &bytes)).collect();
    let (on_disk, _) = ready.seek_below(&fleet.agent_dir(ORIGIN));
    let names: BTreeSet<String> = found.into_iter().chain(on_disk).map(|find| find.secret).collect();
    assert_eq!(names, BTreeSet::from(["control".to_owned()]), "the password is on no disk");
}

/// `mirror-coordinator seal-key …` on the fleet's own configuration.
fn seal_key(fleet: &Fleet, words: &[&str]) -> Finished {
    let mut command = fleet.command("mirror-coordinator", &[&["seal-key"], words].concat());
    Finished::run(command.arg("--config").arg(fleet.coordinator_dir().join("coordinator.toml")))
}

#[test]
fn the_sealing_key_is_changed_lost_and_made_anew_and_runs_go_on() {
    let mut fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    let upstream = guarded(&fleet);
    declare(&fleet, &upstream, "debian", RIGHT, &["--origin", "edge1"]);
    let runs = |fleet: &Fleet, code: i32| {
        let run = fleet.mirrorctl(&["project", "run", "debian", "--watch"]);
        assert_eq!(run.code, code, "{}{}", run.stdout, run.stderr);
    };
    runs(&fleet, 0);
    assert_eq!(seal_key(&fleet, &["check"]).code, 5, "a coordinator runs on it");
    fleet.coordinator.as_mut().expect("it runs").stop();
    let changed = seal_key(&fleet, &["rotate"]).ok().stdout;
    assert!(changed.contains("with the present key: 1; with older ones: 0"), "{changed}");
    fleet.start_coordinator().expect("the coordinator starts");
    fleet.await_connected("edge1");
    runs(&fleet, 0);

    fleet.coordinator.as_mut().expect("it runs").stop();
    fs::remove_file(fleet.coordinator_dir().join("seal.key")).expect("it is lost");
    let mut command = fleet.command("mirror-coordinator", &["run", "--config"]);
    let refused = Finished::run(command.arg(fleet.coordinator_dir().join("coordinator.toml")));
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.ends_with("next: mirror-coordinator seal-key --help\n"), "{}", refused.stderr);
    let made = seal_key(&fleet, &["renew"]).ok().stdout;
    assert!(made.contains("Set again: mirrorctl project edit debian --password-file FILE"), "{made}");
    fleet.start_coordinator().expect("the coordinator starts");
    fleet.await_connected("edge1");
    let told = fleet.coordinator.as_ref().expect("it runs").output();
    assert!(told.contains("a stored password does not open with the key file; set it again"), "{told}");
    runs(&fleet, 10);
    assert_eq!(fleet.newest_run("debian")["origin_attempt"]["outcome"]["class"], "AUTH");
    let file = given(&fleet, "password of debian", RIGHT);
    fleet.mirrorctl(&["project", "edit", "debian", "--password-file", &file]).ok();
    runs(&fleet, 0);
}
