//! `mirrorctl project check`: every thing that a run needs is looked at where it is, and what is wrong is named with
//! whose fault it is. Nothing changes by it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use fleet_tests::{
    Finished, Fleet, FleetOptions, Rsyncd, address, eventually,
    liar::{Liar, Lie},
};
use serde_json::Value;

fn fleet() -> Fleet {
    Fleet::start(FleetOptions::default()).expect("a fleet starts")
}

/// What a check of `debian` finds: its exit code and its findings.
fn check(fleet: &Fleet, more: &[&str]) -> (i32, Vec<Value>) {
    let args = [&["project", "check", "debian", "-o", "json"], more].concat();
    let checked = fleet.mirrorctl(&args);
    let json = checked.json();
    let findings = json["findings"].as_array().expect("findings").clone();
    let faults = findings.iter().filter(|finding| finding["severity"] == "FAULT").count();
    assert_eq!(json["faults"], faults, "{json}");
    assert_eq!(checked.code, i32::from(faults > 0), "{json}");
    (checked.code, findings)
}

/// The one finding of a kind: its severity and its sentence.
fn of<'a>(findings: &'a [Value], kind: &str) -> (&'a str, &'a str) {
    let mut found = findings.iter().filter(|finding| finding["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("no {kind} in {findings:?}"));
    assert!(found.next().is_none(), "{kind} twice in {findings:?}");
    (one["severity"].as_str().expect("a severity"), one["sentence"].as_str().expect("a sentence"))
}

/// What the agent still has of programs that it ran.
fn leftovers(fleet: &Fleet) -> Vec<PathBuf> {
    let runs = fs::read_dir(fleet.agent_dir(0).join("runs")).into_iter().flatten().flatten();
    runs.map(|entry| entry.path()).collect()
}

#[test]
fn a_good_project_is_told_so_and_nothing_changes() {
    // A volume of its own, as the one that the tests are on may really be too full.
    let options = FleetOptions::default();
    let (files, bytes) = (options.files, options.files * options.file_bytes);
    let Some((fleet, mount)) = fleet_on("size=64m", options) else { return };
    fleet.add_project("debian", &["--rsync-option=--exclude=/iso/"]).ok();
    let (code, findings) = check(&fleet, &[]);
    assert_eq!(code, 0, "{findings:?}");
    for kind in ["PATH", "OPTIONS", "REACHABILITY", "SPACE"] {
        let (severity, sentence) = of(&findings, kind);
        assert!(severity == "OK" && sentence.starts_with("edge1 "), "{sentence}");
    }
    assert!(findings.iter().all(|finding| finding["kind"] != "SIZE"), "{findings:?}");
    let (_, findings) = check(&fleet, &["--size"]);
    let size = findings.iter().find(|finding| finding["kind"] == "SIZE").expect("a size");
    assert_eq!(size["size_bytes"], bytes, "{size}");
    assert!(size["files"].as_u64().expect("a count") >= files as u64, "{size}");
    let space = findings.iter().find(|finding| finding["kind"] == "SPACE").expect("room");
    assert_eq!(space["size_bytes"], bytes, "an empty destination still needs all of it: {space}");

    assert!(!fleet.root(0).join("debian").exists(), "a check makes nothing");
    assert_eq!(leftovers(&fleet), Vec::<PathBuf>::new());
    assert_eq!(fleet.runs("debian").len(), 0);

    // After a run there is little left to fetch.
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    let (_, findings) = check(&fleet, &["--size"]);
    let space = findings.iter().find(|finding| finding["kind"] == "SPACE").expect("room");
    assert_eq!(space["size_bytes"], 0, "{space}");
    let shown = fleet.mirrorctl(&["project", "check", "debian"]).ok().stdout;
    assert!(shown.ends_with("nothing changed. Next: mirrorctl project run debian --watch\n"), "{shown}");
    drop(fleet);
    drop(mount);
}

#[test]
fn an_upstream_that_is_down_has_lost_its_module_or_talks_garbage_is_named() {
    let mut fleet = fleet();
    fleet.add_project("debian", &[]).ok();
    fleet.upstream.kill();
    let (code, findings) = check(&fleet, &["--size"]);
    let (severity, sentence) = of(&findings, "REACHABILITY");
    assert_eq!((code, severity), (1, "FAULT"), "{sentence}");
    assert!(sentence.contains("cannot reach") && sentence.contains("fault: the upstream's"), "{sentence}");
    assert!(findings.iter().all(|finding| finding["kind"] != "SIZE"), "nobody to count: {findings:?}");
    fleet.upstream.restart().expect("it starts again");

    let gone = fleet.upstream.uri().replace("/mod/", "/gone/");
    fleet.mirrorctl(&["project", "edit", "debian", "--from", &gone]).ok();
    let (_, findings) = check(&fleet, &[]);
    let (severity, sentence) = of(&findings, "REACHABILITY");
    assert!(severity == "FAULT" && sentence.contains("Unknown module 'gone'"), "{sentence}");

    let path = fleet.upstream.uri() + "no/such/directory/";
    fleet.mirrorctl(&["project", "edit", "debian", "--from", &path]).ok();
    let (_, findings) = check(&fleet, &[]);
    let (severity, sentence) = of(&findings, "REACHABILITY");
    assert!(severity == "FAULT" && sentence.contains("does not find"), "{sentence}");

    let liar = Liar::start(address::unique(), Lie::Garbage).expect("a liar");
    fleet.mirrorctl(&["project", "edit", "debian", "--from", &liar.uri()]).ok();
    let (_, findings) = check(&fleet, &[]);
    let (severity, sentence) = of(&findings, "REACHABILITY");
    assert!(severity == "FAULT" && !sentence.contains('\u{1b}'), "{sentence}");
    assert_eq!(leftovers(&fleet), Vec::<PathBuf>::new());
}

#[test]
fn a_bad_login_is_yours_a_good_one_is_told_and_a_full_upstream_is_a_warning() {
    const SECRET: &str = "correct-horse-battery";
    let fleet = fleet();
    let dir = fleet.path().join("guarded");
    fs::create_dir_all(&dir).expect("a directory");
    let secrets = dir.join("secrets");
    fs::write(&secrets, format!("mirror:{SECRET}\n")).expect("a file");
    fs::set_permissions(&secrets, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
    let path = fleet.upstream_tree();
    let modules = format!(
        "[mod]\npath = {0}\nread only = yes\nauth users = mirror\nsecrets file = {1}\n\
         [full]\npath = {0}\nread only = yes\nmax connections = -1\n",
        path.display(),
        secrets.display()
    );
    let guarded = Rsyncd::start_with(None, &dir, address::unique(), &modules).expect("an upstream");
    let password = fleet.path().join("password");
    fleet.add_project("debian", &[]).ok();
    for (typed, good) in [("wrong-horse", false), (SECRET, true)] {
        fs::write(&password, typed).expect("a file");
        let file = password.to_str().expect("text");
        let uri = guarded.uri();
        let flags = ["--from", &uri, "--user", "mirror", "--password-file", file];
        fleet.mirrorctl(&[&["project", "edit", "debian"], &flags[..]].concat()).ok();
        let (_, findings) = check(&fleet, &["--size"]);
        let (severity, sentence) = of(&findings, "REACHABILITY");
        assert_eq!(severity, if good { "OK" } else { "FAULT" }, "{sentence}");
        assert_eq!(findings.iter().any(|finding| finding["kind"] == "SIZE"), good, "{findings:?}");
        assert!(
            good || (sentence.contains("auth failed") && sentence.contains("fault: yours")),
            "{sentence}"
        );
        assert!(!format!("{findings:?}").contains(typed), "{findings:?}");
    }
    let full = guarded.uri().replace("/mod/", "/full/");
    fleet
        .mirrorctl(&[
            "project",
            "edit",
            "debian",
            "--from",
            &full,
            "--user",
            "",
            "--password-file",
            "/dev/null",
        ])
        .ok();
    let (_, findings) = check(&fleet, &[]);
    let (severity, sentence) = of(&findings, "REACHABILITY");
    assert_eq!(severity, "WARNING", "{sentence}");
    assert!(sentence.contains("max connections"), "{sentence}");
}

#[test]
fn what_the_agents_own_file_does_not_allow_and_what_it_lacks_is_told() {
    let mut fleet = fleet();
    fleet.add_project("debian", &[]).ok();
    fleet.mirrorctl(&["project", "edit", "debian", "--to", "b9:debian", "--rsync-option=-aA"]).ok();
    let (_, findings) = check(&fleet, &[]);
    let (severity, sentence) = of(&findings, "PATH");
    assert!(severity == "FAULT" && sentence.contains("no root \"b9\""), "{sentence}");
    let (severity, sentence) = of(&findings, "OPTIONS");
    assert!(severity == "FAULT" && sentence.contains("--acls"), "{sentence}");
    // One fault hides no other thing.
    assert_eq!(of(&findings, "REACHABILITY").0, "OK", "{findings:?}");

    // A link in the way, and a file.
    let root = fleet.root(0);
    std::os::unix::fs::symlink("/tmp", root.join("link")).expect("a link");
    fs::write(root.join("file"), "x").expect("a file");
    for (to, named) in [("a1:link/x", "symbolic link"), ("a1:file/x", "no directory")] {
        fleet.mirrorctl(&["project", "edit", "debian", "--to", to, "--rsync-option="]).ok();
        let (_, findings) = check(&fleet, &[]);
        let (severity, sentence) = of(&findings, "PATH");
        assert!(severity == "FAULT" && sentence.contains(named), "{sentence}");
    }

    // Private upstreams are for the agent's own file to allow.
    let file = fleet.agent_dir(0).join("agent.toml");
    let text = fs::read_to_string(&file).expect("the agent's file");
    let text = text.replace("127.0.0.0/8", "198.51.100.0/24");
    fs::write(&file, text).expect("it is written");
    fleet.kill_agent(0);
    fleet.start_agent(0).expect("it starts again");
    eventually("its new rules hold", || {
        let (_, findings) = check(&fleet, &[]);
        let of_it = findings.iter().find(|finding| finding["kind"] == "REACHABILITY")?;
        let sentence = of_it["sentence"].as_str().expect("a sentence");
        (of_it["severity"] == "FAULT" && sentence.contains("allow_upstreams")).then_some(())
    });
}

#[test]
fn an_agent_that_is_away_is_told_at_once() {
    let mut fleet = fleet();
    fleet.add_project("debian", &[]).ok();
    fleet.kill_agent(0);
    let findings = eventually("it is seen to be away", || {
        let (_, findings) = check(&fleet, &[]);
        (findings.len() == 1 && findings[0]["kind"] == "AGENT").then_some(findings)
    });
    let (severity, sentence) = of(&findings, "AGENT");
    assert!(severity == "FAULT" && sentence.contains("edge1 is not connected"), "{sentence}");
    let unknown = fleet.mirrorctl(&["project", "check", "debain"]);
    assert!(unknown.code == 3 && unknown.stderr.contains("debian"), "{}", unknown.stderr);
}

/// A small file system of its own at a path; unmounted when dropped.
pub(crate) struct Mount(PathBuf);

impl Mount {
    fn new(path: &Path, size: &str) -> Result<Self, String> {
        if !rustix::process::getuid().is_root() {
            return Err("mounting needs root".to_owned());
        }
        fs::create_dir_all(path).map_err(|error| error.to_string())?;
        let options = format!("mode=755,{size}");
        let mount = ["-t", "tmpfs", "-o", &options, "tmpfs"];
        let done = Finished::run(Command::new("mount").args(mount).arg(path));
        if done.code == 0 {
            Ok(Self(path.to_owned()))
        } else {
            Err(format!("no tmpfs here: {}", done.stderr))
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _unmounted = Finished::run(Command::new("umount").arg("-l").arg(&self.0));
    }
}

/// A fleet whose one agent has its root on a volume of this size; says why where there is none.
pub(crate) fn fleet_on(size: &str, options: FleetOptions) -> Option<(Fleet, Mount)> {
    let mut fleet = Fleet::prepare(options).expect("a fleet");
    let mount = match Mount::new(&fleet.root(0), size) {
        Ok(mount) => mount,
        Err(why) => {
            println!("skipped: {why}");
            return None;
        }
    };
    fleet.start_coordinator().expect("the coordinator starts");
    fleet.enroll(0).expect("the agent enrols");
    fleet.start_agent(0).expect("the agent starts");
    fleet.await_connected("edge1");
    Some((fleet, mount))
}

#[test]
fn a_volume_without_room_for_the_tree_is_a_fault() {
    // 20 GiB are more than there is: a 20th of the volume, then.
    let limits = "volume_reserve_percent = 2\nvolume_reserve_bytes = \"20GiB\"\n".to_owned();
    let options = FleetOptions { files: 64, file_bytes: 262_144, limits, ..FleetOptions::default() };
    let Some((fleet, mount)) = fleet_on("size=8m", options) else { return };
    fleet.add_project("debian", &[]).ok();
    let (code, findings) = check(&fleet, &[]);
    assert_eq!((code, of(&findings, "SPACE").0), (0, "OK"), "the tree's size is not known: {findings:?}");
    let (_, findings) = check(&fleet, &["--size"]);
    let (severity, sentence) = of(&findings, "SPACE");
    assert!(severity == "FAULT" && sentence.contains("lacks ~"), "{sentence}");
    let (severity, sentence) = of(&findings, "SIZE");
    assert!(severity == "WARNING" && sentence.contains("% full"), "{sentence}");
    fs::write(fleet.root(0).join("fill"), vec![0; 8_100_000]).expect("it fills up");
    let (_, findings) = check(&fleet, &[]);
    let (severity, sentence) = of(&findings, "SPACE");
    assert!(severity == "FAULT" && sentence.contains("nothing above its reserve"), "{sentence}");
    drop(fleet);
    drop(mount);
}
