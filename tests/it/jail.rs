//! A program in rsync's place that means harm, in a real run of a real agent: what it tries fails there, and succeeds
//! when the same program is started without an agent. One program, so that nobody can say that an attack was too weak.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use fleet_tests::{
    Finished, Fleet, FleetOptions, eventually,
    process::{is_living, living_with, send_signal},
};
use rustix::process::Signal;

/// What the program tries inside of its tree, which it may.
const PERMITTED: [&str; 3] = ["write-inside", "connect-upstream", "read-libraries"];
/// What it tries outside.
const ATTACKS: [&str; 13] = [
    "write-outside",
    "truncate-outside",
    "write-beside",
    "remove-other-project",
    "run-shell",
    "connect-elsewhere",
    "read-agents-key",
    "read-agents-journal",
    "read-agents-file",
    "read-other-project",
    "read-agents-environment",
    "signal-agent",
    "signal-supervisor",
];

/// The program: bash alone, so that no attack fails for want of another one. It answers for its version with the real
/// rsync, which the agent asks outside of any run. `--` ends what is rsync's; the tree is the last word.
fn program(fleet: &Fleet, upstream: u16, elsewhere: u16) -> String {
    let (root, agent) = (fleet.root(0), fleet.agent_dir(0));
    let pid = fleet.agents[0].as_ref().map_or(0, fleet_tests::Process::pid);
    let (address, outside) = (fleet.address(), fleet.path().join("outside"));
    format!(
        r#"#!/bin/bash
[ "$1" = --version ] && exec /usr/bin/rsync --version
tree="${{@: -1}}"
try() {{
    local name=$1; shift
    if ( eval "$*" ) 2>/dev/null; then echo "$name yes"; else echo "$name no"; fi >> "$tree/verdicts"
}}
: > "$tree/verdicts"
compgen -e > "$tree/environment"
echo "HOME=$HOME" >> "$tree/environment"
try write-inside ': > "$tree/inside"'
try connect-upstream 'exec 3<>/dev/tcp/{address}/{upstream}'
try read-libraries 'read -r line < /etc/ld.so.cache || [ -n "$line" ]'
try write-outside ': > {outside}/new'
try truncate-outside ': > {outside}/file'
try write-beside ': > "$tree/../beside"'
try remove-other-project ': > {root}/other/file'
try run-shell '/bin/sh -c :'
try connect-elsewhere 'exec 3<>/dev/tcp/{address}/{elsewhere}'
try read-agents-key 'read -r line < {agent}/identity.pem'
try read-agents-journal 'exec 3< {agent}/journal'
try read-agents-file 'read -r line < {agent}/agent.toml'
try read-other-project 'read -r line < {root}/other/secret'
try read-agents-environment 'exec 3< /proc/{pid}/environ'
try signal-agent 'kill -0 {pid}'
try signal-supervisor "kill -0 $PPID"
( ( trap '' TERM HUP INT; while [ $SECONDS -lt 120 ]; do :; done ) & ) </dev/null >/dev/null 2>&1
echo over >> "$tree/verdicts"
"#,
        outside = outside.display(),
        root = root.display(),
        agent = agent.display(),
    )
}

/// The verdicts once they are whole.
fn verdicts(tree: &Path) -> BTreeMap<String, bool> {
    let text = eventually("the program has tried everything", || {
        fs::read_to_string(tree.join("verdicts")).ok().filter(|text| text.ends_with("over\n"))
    });
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, verdict)| (name.to_owned(), verdict == "yes")).collect()
}

/// A fleet whose agent takes `program` for rsync, with something worth an attack around it.
fn besieged() -> (Fleet, PathBuf, TcpListener, TcpListener) {
    let mut fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    let listen = || TcpListener::bind((fleet.address(), 0)).expect("a port");
    let (upstream, elsewhere) = (listen(), listen());
    let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
    let (outside, other) = (fleet.path().join("outside"), fleet.root(0).join("other"));
    for (dir, file) in [(&outside, "file"), (&other, "file"), (&other, "secret")] {
        fs::create_dir_all(dir).expect("a directory");
        fs::write(dir.join(file), "content\n").expect("a file");
    }
    let path = fleet.path().join("attack");
    let write = |fleet: &Fleet| {
        fs::write(&path, program(fleet, port(&upstream), port(&elsewhere))).expect("the program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    };
    write(&fleet);
    fleet.kill_agent(0);
    let file = fleet.agent_dir(0).join("agent.toml");
    let text = fs::read_to_string(&file).expect("the agent's file");
    let lines = text.lines().map(|line| {
        if line.starts_with("rsync =") {
            format!("rsync = \"{}\"\n", path.display())
        } else {
            format!("{line}\n")
        }
    });
    fs::write(&file, lines.collect::<String>()).expect("the agent's file");
    fleet.start_agent(0).expect("the agent starts");
    fleet.await_connected("edge1");
    // Now it knows the agent that it attacks.
    write(&fleet);
    let uri = format!("rsync://{}:{}/mod/", fleet.address(), port(&upstream));
    let words = ["project", "add", "debian", "--from", &uri, "--to", "a1:debian", "--origin", "edge1"];
    fleet.mirrorctl(&[&words[..], &["--retry-attempts", "1"]].concat()).ok();
    (fleet, path, upstream, elsewhere)
}

fn landlock_is_whole(fleet: &Fleet) -> bool {
    let agent = fleet.json(&["agent", "show", "edge1"]);
    let gaps = agent["jail_gaps"].as_array().cloned().unwrap_or_default();
    let lacks = gaps.iter().filter_map(|gap| gap.as_str()).find(|gap| gap.contains("Landlock"));
    if let Some(gap) = lacks {
        println!("skipped: {gap}");
    }
    lacks.is_none()
}

#[test]
fn what_a_program_in_rsyncs_place_tries_fails_in_a_run_and_succeeds_without_one() {
    let (fleet, attack, _upstream, _elsewhere) = besieged();
    if !landlock_is_whole(&fleet) {
        return;
    }
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    let tree = fleet.root(0).join("debian");
    let inside = verdicts(&tree);
    eventually("the run ends", || fleet.newest_run("debian")["end_time"].is_string().then_some(()));
    let path = attack.display().to_string();
    assert_eq!(living_with(&path), Vec::<u32>::new(), "what left its process group is ended with the run");
    assert_eq!(fs::read_to_string(fleet.path().join("outside/file")).expect("a file"), "content\n");
    let environment = fs::read_to_string(tree.join("environment")).expect("its environment");
    // PWD, SHLVL and _ are bash's own.
    let strange: Vec<&str> = environment
        .lines()
        .filter(|name| {
            !["HOME", "LC_ALL", "TZ", "USER", "PWD", "OLDPWD", "SHLVL", "_", "HOME=/nonexistent"]
                .contains(name)
        })
        .collect();
    assert!(strange.is_empty() && environment.contains("HOME=/nonexistent"), "{environment}");

    // The same program by hand.
    let by_hand = fleet.path().join("by-hand");
    fs::create_dir(&by_hand).expect("a tree");
    Finished::run(Command::new(&attack).arg(&by_hand)).ok();
    let without = verdicts(&by_hand);
    let survivors: Vec<u32> = living_with(&path).into_iter().filter(|pid| is_living(*pid)).collect();
    survivors.iter().for_each(|pid| send_signal(*pid, Signal::KILL));
    assert!(!survivors.is_empty(), "without a supervisor it lives on");
    for name in PERMITTED {
        assert_eq!((inside.get(name), without.get(name)), (Some(&true), Some(&true)), "{name}");
    }
    for name in ATTACKS {
        assert_eq!((inside.get(name), without.get(name)), (Some(&false), Some(&true)), "{name}");
    }
    assert_eq!(inside.len(), PERMITTED.len() + ATTACKS.len());
}

/// Words that make rsync run a program, where it reads them: in its user's home, and in the environment.
fn bait(fleet: &Fleet) -> (PathBuf, PathBuf, PathBuf) {
    let (home, by_home, by_environment) =
        (fleet.path().join("home"), fleet.path().join("by-home"), fleet.path().join("by-environment"));
    fs::create_dir_all(&home).expect("a home");
    let script = fleet.path().join("bait");
    fs::write(&script, format!("#!/bin/sh\necho run > {}\nexit 1\n", by_home.display())).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
    fs::write(home.join(".popt"), format!("rsync exec --stats {}\n", script.display())).expect("a file");
    (home, by_home, by_environment)
}

#[test]
fn neither_home_nor_environment_of_the_agent_reach_rsync() {
    let mut fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    let (home, by_home, by_environment) = bait(&fleet);
    let connect = format!("echo run > {}; exit 1", by_environment.display());
    fleet.kill_agent(0);
    let mut command = fleet.agent_command(0, &["run", "--config"]);
    command.arg(fleet.agent_dir(0).join("agent.toml"));
    command.env("HOME", &home).env("RSYNC_CONNECT_PROG", &connect).env("RSYNC_PASSWORD", "of-another");
    let log = fleet.path().join("agent-edge1.log");
    fleet.agents[0] =
        Some(fleet_tests::Process::start("agent edge1", &mut command, &log).expect("it starts"));
    fleet.await_connected("edge1");
    fleet.add_project("debian", &[]).ok();
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    assert!(!by_home.exists() && !by_environment.exists());

    // The same words, by hand.
    let copy = fleet.path().join("by-hand/");
    let uri = fleet.upstream.uri();
    for (name, value) in [("HOME", home.display().to_string()), ("RSYNC_CONNECT_PROG", connect)] {
        let mut rsync = Command::new("/usr/bin/rsync");
        rsync
            .args(["-r", "--stats", &uri])
            .arg(&copy)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env(name, value);
        assert_ne!(Finished::run(&mut rsync).code, 0, "{name}");
    }
    assert!(by_home.exists() && by_environment.exists(), "the bait is one");
}

#[test]
fn a_jail_that_is_off_is_told_of_its_agent() {
    let options = FleetOptions { agent_config: "jail = false".to_owned(), ..FleetOptions::default() };
    let fleet = Fleet::start(options).expect("a fleet starts");
    let shown = fleet.mirrorctl(&["agent", "show", "edge1"]).ok().stdout;
    assert!(shown.contains("the agent's own file switches the jail off"), "{shown}");
}

/// A command as another user, who is nobody else on this host.
fn as_user(uid: u32, program: &Path) -> Command {
    let mut command = Command::new("/usr/bin/setpriv");
    command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups", "--"]).arg(program);
    command
}

/// The same with a `/dev/null` that everybody may write to, which not every container has.
fn as_user_with_null(uid: u32, dir: &Path, program: &Path) -> Command {
    const SCRIPT: &str = "mknod -m 666 \"$1/null\" c 1 3 && chmod 666 \"$1/null\" && mount --bind \"$1/null\" /dev/null \
                          && : >/dev/null && shift && exec \"$@\"";
    let own = as_user(uid, program);
    let mut command = Command::new("/usr/bin/unshare");
    command
        .args(["--mount", "/bin/sh", "-c", SCRIPT, "sh"])
        .arg(dir)
        .arg(own.get_program())
        .args(own.get_args());
    command
}

/// Whether a process of this user may read the environment of another one.
fn may_look_into(uid: u32, pid: u32) -> bool {
    let environment = format!("/proc/{pid}/environ");
    Finished::run(as_user(uid, Path::new("/usr/bin/cat")).arg(environment)).code == 0
}

fn give(uid: u32, path: &Path) {
    Finished::run(Command::new("chown").arg("-R").arg(format!("{uid}:{uid}")).arg(path)).ok();
}

/// Why a program of another user cannot be started here as the test below needs it; nothing where it can.
fn hindrance(uid: u32, agent: &Path) -> Option<String> {
    const TOOLS: [&str; 2] = ["/usr/bin/setpriv", "/usr/bin/unshare"];
    if !rustix::process::geteuid().is_root() {
        return Some("this process is not root".to_owned());
    }
    if let Some(tool) = TOOLS.into_iter().find(|tool| !Path::new(tool).exists()) {
        return Some(format!("there is no {tool}"));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let tried = Finished::run(as_user_with_null(uid, dir.path(), agent).arg("--version"));
    (tried.code != 0).then(|| format!("{}: code {}, {}", tried.line, tried.code, tried.stderr.trim()))
}

/// As the unit runs it: a user of its own, without any privilege.
#[test]
fn an_agent_without_privileges_works_and_no_other_process_of_its_user_looks_into_it() {
    let uid = 100_000 + std::process::id() % 1_000_000;
    let agent = fleet_tests::program("mirror-agent");
    if let Some(why) = hindrance(uid, &agent) {
        println!("skipped: {why}");
        return;
    }
    let mut fleet = Fleet::prepare(FleetOptions::default()).expect("a fleet");
    fleet.start_coordinator().expect("the coordinator starts");
    fleet.enroll(0).expect("the agent enrols");
    fs::set_permissions(fleet.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    give(uid, &fleet.agent_dir(0));
    give(uid, &fleet.root(0));
    let own = fleet.agent_command(0, &["run", "--config"]);
    let mut command = as_user_with_null(uid, fleet.path(), &agent);
    command.args(own.get_args()).arg(fleet.agent_dir(0).join("agent.toml")).env_clear();
    command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let log = fleet.path().join("agent-edge1.log");
    fleet.agents[0] =
        Some(fleet_tests::Process::start("agent edge1", &mut command, &log).expect("it starts"));
    fleet.await_connected("edge1");
    fleet.add_project("debian", &[]).ok();
    for _ in 0..2 {
        fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    }
    let gaps = fleet.json(&["agent", "show", "edge1"])["jail_gaps"].to_string();
    assert!(!gaps.contains("as root") && !gaps.contains("account I/O"), "{gaps}");

    let mut sleep = as_user(uid, Path::new("/usr/bin/sleep"));
    let bystander =
        fleet_tests::Process::start("a bystander", sleep.arg("600"), &fleet.path().join("sleep.log"));
    let bystander = bystander.expect("it starts");
    eventually("a process of the same user can be looked into", || {
        may_look_into(uid, bystander.pid()).then_some(())
    });
    let pid = fleet.agents[0].as_ref().expect("it runs").pid();
    assert!(!may_look_into(uid, pid), "the agent's memory and environment are its own");
}
