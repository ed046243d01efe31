//! Day one: from nothing to a mirror with a replica, by the ten commands that a new administrator types, in one sitting and
//! in one clean directory.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use fleet_tests::{Finished, Process, Rsyncd, address, eventually, fleet, program, rsyncd, tree};
use serde_json::Value;
use tempfile::TempDir;

/// One administrator with a clean directory, in which everything lies that he makes.
struct Sitting {
    running: Vec<Process>,
    upstream: Rsyncd,
    address: Ipv4Addr,
    dir: TempDir,
}

impl Sitting {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("day-one-").tempdir().expect("a directory");
        let address = address::unique();
        let files = dir.path().join("upstream");
        tree::fill(&files, 120, 2_048, 11).expect("a tree");
        let upstream = Rsyncd::start(None, &dir.path().join("rsyncd"), address, &files).expect("an upstream");
        for root in ["srv", "srv-edge1"] {
            fs::create_dir(dir.path().join(root)).expect("a root");
        }
        Self { running: Vec::new(), upstream, address, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.dir.path()).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.env("MIRRORCTL_CONFIG", self.path("fleet/admin/mirrorctl.toml"));
        command.args(args);
        command
    }

    /// Types a command that ends, and well.
    fn types(&self, name: &str, args: &[&str]) -> Finished {
        Finished::run(&mut self.command(name, args)).ok()
    }

    /// Types a line with a pipe in it, as it stands.
    fn types_in_a_shell(&self, line: &str) -> String {
        let mirrorctl = self.command("mirrorctl", &[]);
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", line]).env_clear();
        shell.envs(mirrorctl.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let bin = program("mirrorctl").parent().map(Path::to_owned).expect("it is in a directory");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(bin).chain(std::env::split_paths(&path));
        shell.env("PATH", std::env::join_paths(path).expect("paths without colons"));
        let done = Finished::run(&mut shell).ok();
        format!("{}{}", done.stdout, done.stderr)
    }

    fn mirrorctl(&self, args: &[&str]) -> String {
        self.types("mirrorctl", args).stdout
    }

    fn json(&self, args: &[&str]) -> Value {
        self.types("mirrorctl", &[args, &["-o", "json"]].concat()).json()
    }

    /// Starts a program that stays in the foreground, and waits until it is at work.
    fn starts(&mut self, name: &str, config: &Path, at_work: &str) {
        let log = self.path(&format!("{}.log", self.running.len()));
        let mut command = self.command(name, &["run", "--config"]);
        command.arg(config);
        let mut process = Process::start(name, &mut command, &log).expect("it starts");
        eventually(&format!("{name} is at work"), || {
            let (output, ended) = (process.output(), process.exited());
            assert!(ended.is_none(), "{name} has ended:\n{output}");
            output.contains(at_work).then_some(())
        });
        self.running.push(process);
    }

    /// What an administrator of one machine with two agents and a private upstream adds to an agent's own file: an address
    /// of its own to serve at, and leave to pull from loopback.
    fn lets_loopback(&self, config: &Path) {
        let (own, port) = (address::unique(), rsyncd::PORT);
        let text = fs::read_to_string(config).expect("the agent's own file");
        let leave =
            if text.contains("allow_upstreams") { "" } else { "allow_upstreams = [\"127.0.0.0/8\"]\n" };
        let serve = format!("\n[serve]\nlisten = \"{own}:{port}\"\naddress = \"{own}\"\n");
        fs::write(config, format!("{leave}{text}{serve}")).expect("it is written");
    }

    fn has_upstreams_tree(&self, root: &str) {
        let wanted = tree::hash(&self.path("upstream")).expect("the upstream's tree");
        let copy = self.path(root).join("debian");
        eventually(&format!("{root} has the upstream's tree"), || {
            (tree::hash(&copy).ok()? == wanted).then_some(())
        });
    }
}

/// Row A1: agents register themselves. `init --with-agent`, `join-token create`, `enroll`, `project add`, `project check`,
/// `project run --watch`, `status`, `why`, `run log -f`, `import tunasync … | apply --paused -f -`: each line as it is typed, and after each what its reader sees.
#[test]
fn a1_the_ten_commands_of_day_one_in_one_sitting() {
    let mut sitting = Sitting::new();
    let server = format!("{}:{}", sitting.address, fleet::GRPC_PORT);
    let http = format!("{}:{}", sitting.address, fleet::HTTP_PORT);
    let home = sitting.path("fleet");
    let text = |path: &Path| path.display().to_string();

    // 1: the fleet, with an agent on the same host.
    let root = format!("a1={}", text(&sitting.path("srv")));
    let init = ["init", "--trust-domain", "day.example.org", "--with-agent", "--root", &root];
    let here = ["--data-dir", &text(&home), "--server-name", &sitting.address.to_string()];
    let ports = ["--grpc-listen", &server, "--http-listen", &http];
    let made = sitting.types("mirror-coordinator", &[&init[..], &here, &ports].concat());
    let said = format!("{}{}", made.stdout, made.stderr);
    let hash = said.split_whitespace().find(|word| word.starts_with("sha256:")).expect("it prints the hash");
    let hash = hash.to_owned();
    fleet::without_reserve(&home.join("coordinator.toml")).expect("init has written it");
    sitting.starts("mirror-coordinator", &home.join("coordinator.toml"), ": ready ");
    let own = home.join("agent/agent.toml");
    sitting.lets_loopback(&own);
    sitting.starts("mirror-agent", &own, " connected ");
    let list = sitting.json(&["agent", "list"]);
    let origin =
        list["agents"][0]["name"].as_str().expect("it is listed").trim_start_matches("agents/").to_owned();
    assert_eq!(
        (list["agents"].as_array().map(Vec::len), &list["agents"][0]["connected"]),
        (Some(1), &true.into())
    );

    // 2, 3: a token for twenty hosts, and the first of them.
    let create = ["join-token", "create", "--pattern", "edge*", "--uses", "20", "--ttl", "1d"];
    let token = sitting.mirrorctl(&create).trim().to_owned();
    let edge_home = text(&sitting.path("edge1"));
    let edge_root = format!("a1={}", text(&sitting.path("srv-edge1")));
    let enroll = ["enroll", &server, "--token", &token, "--ca-hash", &hash, "--name", "edge1"];
    let host = ["--root", &edge_root, "--data-dir", &edge_home, "--label", "role=edge"];
    let enrolled = sitting.types("mirror-agent", &[&enroll[..], &host].concat());
    let said = format!("{}{}", enrolled.stdout, enrolled.stderr);
    assert!(said.contains("Enrolled as edge1. Next: mirror-agent run --config"), "{said}");
    let tokens = sitting.json(&["join-token", "list"]);
    assert_eq!(tokens["join_tokens"][0]["uses_left"], 19, "{tokens}");
    let edge = Path::new(&edge_home).join("agent.toml");
    sitting.lets_loopback(&edge);
    sitting.starts("mirror-agent", &edge, " connected ");

    // 4, 5, 6: a tree, looked at before its first run, and run.
    let uri = sitting.upstream.uri();
    let add = ["project", "add", "debian", "--from", &uri, "--to", "a1:debian", "--origin", &origin];
    let added = sitting.mirrorctl(&[&add[..], &["--replicas", "role=edge"]].concat());
    assert!(added.starts_with("debian added."), "{added}");
    let checked = sitting.mirrorctl(&["project", "check", "debian"]);
    assert!(checked.contains("path") && !checked.contains('✗'), "{checked}");
    let watched = sitting.mirrorctl(&["project", "run", "debian", "--watch"]);
    assert!(watched.contains("✓ debian: origin and 1 of 1 replicas have tree"), "{watched}");
    sitting.has_upstreams_tree("srv");
    sitting.has_upstreams_tree("srv-edge1");

    // 7, 8, 9: how it stands, why nothing goes on, and rsync's own words.
    let status = sitting.mirrorctl(&["status"]);
    assert!(status.contains("1 project: 1 fresh. 2 agents: 2 connected."), "{status}");
    assert!(status.contains("Nothing needs you."), "{status}");
    let why = sitting.mirrorctl(&["why", "debian"]);
    assert!(why.starts_with("debian is not waiting: it is fresh"), "{why}");
    let log = sitting.mirrorctl(&["run", "log", "debian", "-f"]);
    assert!(log.contains("ok, rsync exit 0"), "{log}");

    // 10: what another mirror's host ran until now.
    let other = sitting.path("worker.conf");
    let text = format!(
        "[global]\nname = \"{origin}\"\nmirror_dir = \"/data/mirrors\"\ninterval = 120\n[[mirrors]]\nname = \"cpan\"\n\
         provider = \"rsync\"\nupstream = \"{uri}\"\n"
    );
    fs::write(&other, text).expect("it is written");
    let line = format!(
        "mirrorctl import tunasync {} --map-root /data/mirrors=a1 | mirrorctl apply --paused -f -",
        other.display()
    );
    let applied = sitting.types_in_a_shell(&line);
    assert!(applied.contains("1 added"), "{applied}");
    let cpan = sitting.json(&["project", "show", "cpan"]);
    assert_eq!(
        (&cpan["destination"], &cpan["schedule"]["interval"]["every"]),
        (&"a1:cpan".into(), &7_200.into())
    );
    assert!(cpan["paused"].is_object(), "{cpan}");
}
