//! The documents are true: every command line of README.md and of the guides in docs/ is run as it stands there, in
//! order, against a real fleet, and prints what the document shows.
//!
//! A block tagged `sh` is run, a block tagged `text` is what the lines before it print, a block tagged `ini` goes into
//! a file. Blocks of any other kind fail the test, so that none is left out.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use fleet_tests::{Finished, Process, Rsyncd, address, eventually, fleet, program, tree};

use crate::tidy::root;

/// Programs that want a host of their own, or hours: these lines are read and not run.
const NOT_RUN: [&str; 5] = ["make ", "useradd ", "chown ", "install ", "systemctl "];

/// Of these, what the test does in its own way.
const UNITS_RUN: [&str; 3] = [
    "systemctl stop mirror-coordinator",
    "systemctl start mirror-coordinator",
    "systemctl reload mirror-coordinator",
];

/// A document's block: its tag and its text.
#[derive(Debug)]
struct Block {
    tag: String,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let text = fs::read_to_string(root().join(document)).expect("the document is there");
    let fenced = text.split("\n```").skip(1).step_by(2);
    let parts = fenced.map(|part| part.split_once('\n').unwrap_or((part, "")));
    parts.map(|(tag, text)| Block { tag: tag.trim().to_owned(), text: text.to_owned() }).collect()
}

/// The hosts of one administrator, in one directory.
struct Hosts {
    dir: tempfile::TempDir,
    address: std::net::Ipv4Addr,
    upstream: Rsyncd,
    running: Vec<Process>,
    /// `cd` and `export` lines, which hold for the lines after them.
    shell: String,
    token: String,
    ca_hash: String,
    /// The line that started the coordinator.
    coordinator: String,
}

impl Hosts {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("docs-").tempdir().expect("a directory");
        let address = address::unique();
        let files = dir.path().join("upstream");
        tree::fill(&files, 300, 2_000, 7).expect("a tree");
        fs::create_dir(dir.path().join("srv")).expect("a root");
        let upstream = Rsyncd::start(None, &dir.path().join("rsyncd"), address, &files).expect("an upstream");
        let (running, shell) = (Vec::new(), String::new());
        let (token, ca_hash, coordinator) = (String::new(), String::new(), String::new());
        Self { dir, address, upstream, running, shell, token, ca_hash, coordinator }
    }

    /// The one place where the documents' names become this machine's. Everything else is run as it is written.
    fn put_here(&self, line: &str) -> String {
        let (dir, address) = (self.dir.path().display(), self.address);
        let names = [
            // Names and addresses of hosts: one loopback address of this test's own.
            ("coordinator.example.org", address.to_string()),
            ("0.0.0.0:", format!("{address}:")),
            ("127.0.0.1:", format!("{address}:")),
            ("rsync://ftp.example.net/debian/", self.upstream.uri()),
            // Paths.
            ("/var/lib/", format!("{dir}/")),
            ("/root/", format!("{dir}/")),
            ("/srv/mirror", format!("{dir}/srv")),
            // What the reader is told to put in: what the commands before have printed.
            ("mjt_…", self.token.clone()),
            ("sha256:…", self.ca_hash.clone()),
            // The upstream is on a loopback address here, which the host must allow.
            ("--label role=", "--allow-upstream 127.0.0.0/8 --label role=".to_owned()),
        ];
        names.iter().fold(line.to_owned(), |line, (theirs, ours)| line.replace(theirs, ours))
    }

    fn shell(&self, line: &str) -> Command {
        let tools = crate::clients::tool("grpcurl");
        let mut path = vec![program("mirrorctl").parent().map(Path::to_owned).unwrap_or_default()];
        path.extend(tools.parent().filter(|dir| dir.is_absolute()).map(Path::to_owned));
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let mut command = Command::new("bash");
        command.args(["-euc", &format!("{}{line}", self.shell)]).env_clear();
        command.env("PATH", std::env::join_paths(path).expect("paths without colons"));
        command.env("HOME", self.dir.path()).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command
    }

    /// Runs one command line of a document; what it printed.
    fn run(&mut self, written: &str) -> String {
        let line = self.put_here(written);
        if line.starts_with("export ") || line.starts_with("cd ") {
            self.shell.push_str(&format!("{line}\n"));
            return String::new();
        }
        match line.as_str() {
            "systemctl reload mirror-coordinator" => return self.reload(),
            "systemctl stop mirror-coordinator" => return self.stop_coordinator(),
            "systemctl start mirror-coordinator" => return self.start(&self.coordinator.clone()),
            _ => {}
        }
        if line.starts_with("mirror-coordinator run") || line.starts_with("mirror-agent run") {
            return self.start(&line);
        }
        if line.starts_with("mirror-coordinator ca retire ") {
            // The reader has waited until nobody but those named is left, as the page says.
            let (retire, _named) = line.split_once(" --cut ").expect("the page names who is cut");
            let show = retire.replace(" retire ", " show ");
            eventually("no agent is left on the old CA", || {
                let shown = Finished::run(&mut self.shell(&show)).ok().stdout;
                (!shown.contains("  agents/")).then_some(())
            });
        }
        let done = Finished::run(&mut self.shell(&line));
        assert_eq!(
            done.code, 0,
            "{written}\nis run as\n{line}\nand ends with:\n{}{}",
            done.stdout, done.stderr
        );
        let said = done.stdout + &done.stderr;
        let find = |start: &str| {
            let word = said.split_whitespace().find(|word| word.starts_with(start));
            word.map(str::to_owned)
        };
        self.token = find("mjt_").unwrap_or_else(|| self.token.clone());
        self.ca_hash = find("sha256:").unwrap_or_else(|| self.ca_hash.clone());
        said
    }

    /// What the unit's reload does.
    fn reload(&self) -> String {
        let coordinator = self.running.first().expect("the document has started a coordinator");
        let done = |output: &str| output.matches("certificates are read anew").count();
        let before = done(&coordinator.output());
        coordinator.signal(rustix::process::Signal::HUP);
        eventually("the coordinator has reloaded", || (done(&coordinator.output()) > before).then_some(()));
        String::new()
    }

    /// What a document's units are here: the program that a line before has started.
    fn stop_coordinator(&mut self) -> String {
        // The newest one of that name: those before it have ended.
        let newest = self.running.iter_mut().rfind(|process| process.name() == self.coordinator);
        newest.expect("the document has started one").stop();
        String::new()
    }

    /// Starts a program that stays in the foreground, and waits until it is at work.
    fn start(&mut self, line: &str) -> String {
        if let Some((_, config)) = line.split_once("mirror-coordinator run --config ") {
            fleet::without_reserve(Path::new(config.trim())).expect("init has written it");
            line.clone_into(&mut self.coordinator);
        }
        let log = self.dir.path().join(format!("{}.log", self.running.len()));
        let mut command = self.shell(&format!("exec {line}"));
        self.running.push(Process::start(line, &mut command, &log).expect("it starts"));
        let at_work = if line.starts_with("mirror-agent") { " connected " } else { ": ready " };
        eventually(&format!("{line} is at work"), || {
            let process = self.running.last_mut().expect("just started");
            let (output, ended) = (process.output(), process.exited());
            assert!(ended.is_none(), "{line} has ended:\n{output}");
            output.contains(at_work).then_some(output)
        })
    }
}

/// The command lines of a block, those that are continued joined.
fn lines(block: &str) -> Vec<String> {
    block
        .replace("\\\n", " ")
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A line that is not run is true at least in what it names.
fn check_unrun(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["make", target] => {
            let makefile = fs::read_to_string(root().join("Makefile")).expect("a Makefile");
            let rule = format!("{target}:");
            assert!(makefile.lines().any(|line| line.starts_with(&rule)), "no such target: {line}");
        }
        ["install", "-m", _, file, _] => assert!(root().join(file).is_file(), "no such file: {line}"),
        ["systemctl", .., unit] => {
            let unit = root().join("deploy/systemd").join(format!("{unit}.service"));
            assert!(unit.is_file(), "no such unit: {line}");
        }
        _ => {}
    }
}

/// Words of this length are secrets, hashes or paths: other ones each time.
const SECRET_BYTES: usize = 24;

/// The words of a line that are the same each time: those without a figure, and without the units of sizes.
fn lasting(line: &str) -> Vec<&str> {
    let varies = |word: &str| {
        let units = ["B", "KiB", "MiB", "GiB", "TiB"];
        word.contains(|c: char| c.is_ascii_digit() || c == '…' || c == '█')
            || word.len() >= SECRET_BYTES
            || units.contains(&word.trim_end_matches([',', ';', '.', ')']).trim_end_matches("/s"))
    };
    line.split_whitespace().filter(|word| !varies(word)).collect()
}

/// Each line that a document shows was printed, but for words with figures in them, which differ by nature. What ends with
/// `…` was printed with more behind it. Names of hosts and paths stand there as in the document or as they are here.
fn check_shown(document: &str, shown: &str, printed: &str, here: impl Fn(&str) -> String) {
    for line in shown.lines().filter(|line| !line.trim().is_empty()) {
        let is_printed = |wanted: &str| {
            let words = lasting(wanted);
            let cut = wanted.ends_with('…');
            printed.lines().map(lasting).any(|found| found == words || cut && found.starts_with(&words))
        };
        assert!(
            is_printed(line) || is_printed(&here(line)),
            "{document} shows a line that was not printed:\n{line}\nThis was:\n{printed}"
        );
    }
}

fn follow(hosts: &mut Hosts, document: &str) {
    let mut printed = String::new();
    let mut run = 0;
    for block in blocks(document) {
        match block.tag.as_str() {
            "sh" => {
                printed.clear();
                for line in lines(&block.text) {
                    if NOT_RUN.iter().any(|program| line.starts_with(program)) {
                        check_unrun(&line);
                    }
                    if NOT_RUN.iter().any(|program| line.starts_with(program))
                        && !UNITS_RUN.contains(&line.as_str())
                    {
                        continue;
                    }
                    printed.push_str(&hosts.run(&line));
                    run += 1;
                }
            }
            "text" => check_shown(document, &block.text, &printed, |line| hosts.put_here(line)),
            "ini" => {}
            other => panic!("{document} has a block of kind {other:?}: say sh, text or ini"),
        }
    }
    assert!(run >= 10, "{document}: only {run} lines were run");
}

fn has_upstreams_tree(hosts: &Hosts, document: &str) {
    let copy: PathBuf = hosts.dir.path().join("srv/debian");
    let upstream = tree::hash(&hosts.dir.path().join("upstream")).expect("a tree");
    assert_eq!(
        tree::hash(&copy).expect("a copy"),
        upstream,
        "{document} ends with a tree that is another one"
    );
}

#[test]
fn the_command_lines_of_the_readme_work_as_written() {
    let mut hosts = Hosts::new();
    follow(&mut hosts, "README.md");
    has_upstreams_tree(&hosts, "README.md");
}

#[test]
fn the_command_lines_of_getting_started_work_as_written() {
    let mut hosts = Hosts::new();
    follow(&mut hosts, "docs/getting-started.md");
    has_upstreams_tree(&hosts, "docs/getting-started.md");
}

#[test]
fn the_command_lines_about_a_new_tree_work_as_written() {
    let mut hosts = Hosts::new();
    follow(&mut hosts, "docs/getting-started.md");
    follow(&mut hosts, "docs/add-a-tree.md");
}

#[test]
fn the_command_lines_of_emergencies_work_as_written() {
    let mut hosts = Hosts::new();
    follow(&mut hosts, "docs/getting-started.md");
    follow(&mut hosts, "docs/emergencies.md");
}

#[test]
fn the_command_lines_about_people_work_as_written() {
    let mut hosts = Hosts::new();
    follow(&mut hosts, "docs/getting-started.md");
    follow(&mut hosts, "docs/people.md");
}

#[test]
fn the_command_lines_about_agents_work_as_written() {
    let mut hosts = Hosts::new();
    follow(&mut hosts, "docs/getting-started.md");
    follow(&mut hosts, "docs/agents.md");
}

#[test]
fn the_command_lines_about_projects_as_files_work_as_written() {
    let mut hosts = Hosts::new();
    follow(&mut hosts, "docs/getting-started.md");
    follow(&mut hosts, "docs/apply.md");
}

#[test]
fn the_command_lines_of_the_move_work_as_written() {
    let mut hosts = Hosts::new();
    follow(&mut hosts, "docs/getting-started.md");
    follow(&mut hosts, "docs/migrate.md");
}

#[test]
fn the_command_lines_about_the_life_of_a_project_work_as_written() {
    let mut hosts = Hosts::new();
    follow(&mut hosts, "docs/getting-started.md");
    follow(&mut hosts, "docs/projects.md");
}

#[test]
fn the_command_lines_about_pushes_work_as_written() {
    let mut hosts = Hosts::new();
    follow(&mut hosts, "docs/getting-started.md");
    follow(&mut hosts, "docs/pushes.md");
}

#[test]
fn the_command_lines_about_mirrorctl_itself_work_as_written() {
    let mut hosts = Hosts::new();
    follow(&mut hosts, "docs/getting-started.md");
    follow(&mut hosts, "docs/mirrorctl.md");
}

/// A page about a fleet that is there already: its lines are run against one, and print what it shows.
fn follow_on_a_fleet(page: &str) {
    let fleet = fleet_tests::Fleet::start(fleet_tests::FleetOptions::default()).expect("a fleet starts");
    let mut printed = String::new();
    let mut run = 0;
    for block in blocks(page) {
        match block.tag.as_str() {
            "sh" => {
                printed.clear();
                for line in lines(&block.text) {
                    // In the environment that the harness gives to mirrorctl.
                    let own = fleet.command("mirrorctl", &[]);
                    let line = line.replacen("mirrorctl", &program("mirrorctl").display().to_string(), 1);
                    let mut bash = Command::new("bash");
                    bash.args(["-euc", &line]).env_clear();
                    bash.envs(own.get_envs().filter_map(|(key, value)| Some((key, value?))));
                    printed.push_str(&Finished::run(&mut bash).ok().stdout);
                    run += 1;
                }
            }
            "text" => check_shown(page, &block.text, &printed, str::to_owned),
            other => panic!("{page} has a block of kind {other:?}: say sh or text"),
        }
    }
    assert!(run > 5, "{page}: only {run} lines were run");
}

#[test]
fn the_command_lines_of_the_audit_page_work_as_written() {
    follow_on_a_fleet("docs/audit.md");
}

#[test]
fn the_command_lines_about_schedules_work_as_written() {
    follow_on_a_fleet("docs/schedules.md");
}

#[test]
fn the_command_lines_about_rsyncs_options_work_as_written() {
    follow_on_a_fleet("docs/rsync-options.md");
}

#[test]
fn the_command_lines_of_certificates_work_as_written() {
    follow(&mut Hosts::new(), "docs/certificates.md");
}

#[test]
fn the_command_lines_of_backup_and_restore_work_as_written() {
    let mut hosts = Hosts::new();
    follow(&mut hosts, "docs/getting-started.md");
    follow(&mut hosts, "docs/backup-and-restore.md");
}

/// Pages with command lines that need a fleet in trouble: they are typed to `mirrorctl` all the same, below.
const TYPED_ONLY: [&str; 1] = ["docs/troubleshooting.md"];

/// README and every page for people, by its path in the repository.
fn pages() -> Vec<String> {
    let files = fs::read_dir(root().join("docs")).expect("there is a folder docs");
    let names = files.map(|file| file.expect("readable").file_name().into_string().expect("UTF-8"));
    let mut pages: Vec<_> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    pages.push("README.md".to_owned());
    pages
}

#[test]
fn every_page_with_command_lines_is_followed() {
    let tests = include_str!("docs.rs");
    for page in pages() {
        let runs = blocks(&page).iter().any(|block| block.tag == "sh");
        let followed = tests.contains(&format!("follow(&mut hosts, \"{page}\")"))
            || tests.contains(&format!("follow(&mut Hosts::new(), \"{page}\")"))
            || tests.contains(&format!("follow_on_a_fleet(\"{page}\")"));
        assert!(!runs || followed || TYPED_ONLY.contains(&page.as_str()), "{page}: no test runs its lines");
    }
}

/// A command line goes to `mirrorctl` in a place without a coordinator: it is understood, and finds nobody.
#[test]
fn the_command_lines_of_troubleshooting_are_understood() {
    let mut hosts = Hosts::new();
    let init = lines(&blocks("docs/getting-started.md")[0].text);
    hosts.run(&init[0]);
    let context = hosts.put_here("/var/lib/mirror-coordinator/admin/mirrorctl.toml");
    let mut typed = 0;
    for page in TYPED_ONLY {
        for block in blocks(page) {
            assert!(
                ["sh", "text"].contains(&block.tag.as_str()),
                "{page} has a block of kind {:?}",
                block.tag
            );
            for line in lines(&block.text) {
                if !line.starts_with("mirrorctl ") || line.contains("--socket ") || line.contains("context ")
                {
                    continue;
                }
                let done = Finished::run(hosts.shell(&line).env("MIRRORCTL_CONFIG", &context));
                // 6: understood, and nobody was there; 7: it would have asked first.
                assert!(
                    [6, 7].contains(&done.code),
                    "{page}: {line}\nends with {}: {}",
                    done.code,
                    done.stderr
                );
                typed += 1;
            }
        }
    }
    assert!(typed >= 6, "only {typed} lines were typed");
}

/// What stands in the text of the pages: each subcommand and flag is there.
#[test]
fn the_commands_named_in_the_pages_are_there() {
    let mut helps = std::collections::BTreeMap::<Vec<String>, String>::new();
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(root().join(&page)).expect("the page is there");
        let prose: String = text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n");
        for code in prose.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " ")) {
            let Some(typed) = code.strip_prefix("mirrorctl ") else { continue };
            let words: Vec<&str> =
                typed.split([' ', '|', '\'', '"']).filter(|word| !word.is_empty()).collect();
            let named: Vec<_> = words
                .iter()
                .take_while(|word| {
                    word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
                })
                .take(2)
                .map(|word| (*word).to_owned())
                .collect();
            let help = help_of(&mut helps, named);
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                let flag = flag.split(['=', '…']).next().unwrap_or(flag);
                assert!(help.contains(flag), "{page} says `{code}`, and it has no {flag}:\n{help}");
            }
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} commands were seen");
}

/// The help of the longest command that these words name; the last one may be a name of the reader's own.
fn help_of(helps: &mut std::collections::BTreeMap<Vec<String>, String>, mut words: Vec<String>) -> String {
    if let Some(known) = helps.get(&words) {
        return known.clone();
    }
    let asked = words.clone();
    loop {
        let done = Finished::run(Command::new(program("mirrorctl")).args(&words).arg("--help").env_clear());
        if done.code == 0 {
            helps.insert(asked, done.stdout.clone());
            return done.stdout;
        }
        assert!(words.len() > 1, "no such command: mirrorctl {}", asked.join(" "));
        words.pop();
    }
}
