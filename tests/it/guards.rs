//! Guards with the real programs: whatever happens to an upstream, the trees stay, it is said why, and all goes on by
//! itself, or by a word of a person, once it may.

use std::{
    fs,
    path::{Path, PathBuf},
};

use fleet_tests::{Finished, Fleet, FleetOptions, Rsyncd, eventually, tree};
use serde_json::Value;

use crate::check::fleet_on;

/// Files of a tree of which most go: above twice the smallest delete limit.
const MANY: usize = 2_000;
/// The delete limit of such a tree.
const LIMIT: u64 = 500;

pub(crate) fn fleet_of(files: usize) -> Fleet {
    Fleet::start(FleetOptions { files, ..FleetOptions::default() }).expect("a fleet starts")
}

/// The tree of `debian` on the first agent.
pub(crate) fn tree_of(fleet: &Fleet) -> PathBuf {
    fleet.root(0).join("debian")
}

pub(crate) fn hash(dir: &Path) -> String {
    tree::hash(dir).expect("a tree")
}

/// Runs `debian` to its end: the exit code of `mirrorctl` and the run.
fn run(fleet: &Fleet, more: &[&str]) -> (i32, Value) {
    let before = fleet.newest_run("debian");
    let done = fleet.mirrorctl(&[&["project", "run", "debian", "--watch"], more].concat());
    let newest = fleet.newest_run("debian");
    assert_ne!(newest["name"], before["name"], "{}{}", done.stdout, done.stderr);
    (done.code, newest.clone())
}

/// Runs `debian`, which succeeds.
pub(crate) fn succeed(fleet: &Fleet, more: &[&str]) -> Value {
    let (code, run) = run(fleet, more);
    assert_eq!((code, &run["state"]), (0, &Value::from("SUCCEEDED")), "{run}");
    run
}

/// Runs `debian`, which a guard of this kind stops: its evidence.
pub(crate) fn held(fleet: &Fleet, kind: &str, more: &[&str]) -> Value {
    let (code, run) = run(fleet, more);
    let evidence = &run["origin_attempt"]["outcome"]["evidence"];
    assert_eq!((code, &run["state"], &evidence["kind"]), (11, &"HELD".into(), &kind.into()), "{run}");
    evidence.clone()
}

/// Runs `debian`, which fails with this class: its outcome.
fn fails(fleet: &Fleet, class: &str) -> Value {
    let (code, run) = run(fleet, &[]);
    let outcome = &run["origin_attempt"]["outcome"];
    assert_eq!((code, &run["state"], &outcome["class"]), (10, &"FAILED".into(), &class.into()), "{run}");
    outcome.clone()
}

/// The open hold of `debian` on its origin.
fn hold(fleet: &Fleet) -> Option<Value> {
    let project = fleet.json(&["project", "show", "debian"]);
    let placements = project["status"]["placements"].as_array().expect("placements").clone();
    let origin = placements.into_iter().find(|one| one["role"] == "ORIGIN").expect("an origin");
    origin.get("hold").filter(|hold| !hold.is_null()).cloned()
}

/// What people are shown of a hold says this, in its own place each; `shown` is what its run says.
fn told(fleet: &Fleet, words: &str, shown: &str) {
    let pages =
        [(&["why", "debian"][..], words), (&["status"], words), (&["project", "show", "debian"], words)];
    for (page, words) in pages.into_iter().chain([(&["run", "show", "debian"][..], shown)]) {
        let text = fleet.mirrorctl(page).ok().stdout;
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(line.contains(words), "{page:?} lacks {words:?}:\n{text}");
    }
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) {
    Finished::run(std::process::Command::new("cp").arg("-a").arg(from).arg(to)).ok();
}

/// Puts a directory aside and one that is empty in its place.
fn empty(dir: &Path) -> PathBuf {
    let aside = dir.with_extension("aside");
    fs::rename(dir, &aside).expect("it goes");
    fs::create_dir(dir).expect("an empty one");
    aside
}

/// What [`empty`] put aside is back.
fn fill_again(dir: &Path, aside: &Path) {
    fs::remove_dir(dir).expect("it is empty");
    fs::rename(aside, dir).expect("it comes back");
}

#[test]
fn an_emptied_upstream_empties_nothing_and_the_hold_closes_by_itself() {
    let fleet = fleet_of(200);
    fleet.add_project("debian", &[]).ok();
    succeed(&fleet, &[]);
    let before = hash(&tree_of(&fleet));

    let aside = empty(&fleet.upstream_tree());
    for _ in 0..2 {
        let evidence = held(&fleet, "EMPTY_UPSTREAM", &[]);
        assert!(evidence["sentence"].as_str().expect("words").contains("of 206 files"), "{evidence}");
        assert_eq!(hash(&tree_of(&fleet)), before, "the tree stays byte for byte");
    }
    assert!(hold(&fleet).is_some());
    told(&fleet, "the upstream lists nothing", "is empty");
    let shown = fleet.mirrorctl(&["run", "show", "debian"]).ok().stdout;
    for words in ["HELD", "is empty", "nothing was changed", "mirrorctl run approve debian"] {
        assert!(shown.contains(words), "{shown}");
    }

    fill_again(&fleet.upstream_tree(), &aside);
    succeed(&fleet, &[]);
    assert_eq!(hold(&fleet), None);
    assert_eq!(hash(&tree_of(&fleet)), before);
    let status = fleet.mirrorctl(&["status"]).ok().stdout;
    assert!(status.contains("Nothing needs you."), "{status}");
}

/// Nine tenths of the upstream's tree are put aside: how many entries went.
fn most_goes(fleet: &Fleet) -> u64 {
    let aside = fleet.path().join("aside");
    fs::create_dir(&aside).expect("a directory");
    let mut gone = 0;
    for entry in fs::read_dir(fleet.upstream_tree().join("pool")).expect("a tree").flatten() {
        if entry.file_name().to_string_lossy().as_ref() > "002" {
            gone += 1 + tree::count(&entry.path()) as u64;
            fs::rename(entry.path(), aside.join(entry.file_name())).expect("it goes");
        }
    }
    gone
}

/// What [`most_goes`] put aside is back, but for these directories.
fn comes_back(fleet: &Fleet, but: &[&str]) {
    for entry in fs::read_dir(fleet.path().join("aside")).expect("a directory").flatten() {
        let name = entry.file_name();
        if !but.iter().any(|but| *but == name) {
            fs::rename(entry.path(), fleet.upstream_tree().join("pool").join(name)).expect("it comes back");
        }
    }
}

/// Files and directories of the tree of `debian`.
fn entries(fleet: &Fleet) -> u64 {
    let dirs = fs::read_dir(tree_of(fleet).join("pool")).expect("a tree").count();
    (dirs + tree::count(&tree_of(fleet))) as u64
}

#[test]
fn most_deletions_wait_for_a_person_who_allows_exactly_these() {
    let fleet = fleet_of(MANY);
    fleet.add_project("debian", &[]).ok();
    succeed(&fleet, &[]);
    let all = entries(&fleet);
    let gone = most_goes(&fleet);
    assert!(gone > 1_800, "{gone}");

    let evidence = held(&fleet, "DELETES", &[]);
    assert_eq!((&evidence["wanted"], &evidence["allowed"]), (&(gone - LIMIT).into(), &LIMIT.into()));
    assert!(evidence["names"].as_array().is_some_and(|names| !names.is_empty()), "{evidence}");
    assert_eq!(entries(&fleet), all - LIMIT, "the limit, and no more");
    told(
        &fleet,
        &format!("{} deletes wanted, 500 allowed", thousands(gone)),
        &format!("{} deletions are wanted, at most 500 are allowed", thousands(gone)),
    );

    // New files go on to come; not one more goes.
    fs::write(fleet.upstream_tree().join("pool/000/new.deb"), "new").expect("a file");
    for _ in 0..2 {
        let evidence = held(&fleet, "DELETES", &[]);
        assert_eq!(evidence["wanted"], gone - LIMIT, "{evidence}");
        assert_eq!(entries(&fleet), all - LIMIT + 1);
    }

    // A number of one's own is that number.
    let evidence = held(&fleet, "DELETES", &["--allow-deletes", "100"]);
    assert_eq!(evidence["wanted"], gone - LIMIT - 100, "{evidence}");
    assert_eq!(entries(&fleet), all - LIMIT + 1 - 100);

    // More goes between the look and the word: that was not approved.
    let unseen = fleet.upstream_tree().join("pool/002");
    let more = tree::count(&unseen) as u64 + 1;
    fs::remove_dir_all(&unseen).expect("it goes");
    let asked = fleet.newest_run("debian");
    fleet.mirrorctl(&["run", "approve", "debian", "--yes"]).ok();
    let run = eventually("the approved run is held", || {
        let run = fleet.newest_run("debian");
        (run["state"] == "HELD" && run["name"] != asked["name"]).then_some(run)
    });
    assert_eq!(run["origin_attempt"]["outcome"]["evidence"]["wanted"], more, "{run}");
    assert_eq!(entries(&fleet), all + 1 - gone);

    // All that goes is right, and yet more than was allowed in any one run: that the tree is so small is asked once.
    fleet.mirrorctl(&["run", "approve", "debian", "--yes"]).ok();
    let shrunk = |run: &Value| run["origin_attempt"]["outcome"]["evidence"]["kind"] == "SHRINK";
    eventually("the shrunk tree is told", || Some(fleet.newest_run("debian")).filter(shrunk));
    assert_eq!(hash(&tree_of(&fleet)), hash(&fleet.upstream_tree()));
    fleet.mirrorctl(&["run", "approve", "debian", "--yes"]).ok();
    fleet.await_run("debian", "SUCCEEDED");
    assert_eq!(hold(&fleet), None);
    assert_eq!(hash(&tree_of(&fleet)), hash(&fleet.upstream_tree()));
    let nothing = fleet.mirrorctl(&["run", "approve", "debian", "--yes"]);
    assert_eq!(nothing.code, 5, "{}", nothing.stderr);
}

fn thousands(number: u64) -> String {
    format!("{},{:03}", number / 1_000, number % 1_000)
}

#[test]
fn files_that_return_close_the_hold_without_a_person() {
    let fleet = fleet_of(MANY);
    fleet.add_project("debian", &[]).ok();
    succeed(&fleet, &[]);
    let gone = most_goes(&fleet);
    held(&fleet, "DELETES", &[]);
    // All but 65 entries: what is wanted is within the limit again, so these go in the same run.
    comes_back(&fleet, &["020"]);
    let run = succeed(&fleet, &[]);
    assert_eq!(hold(&fleet), None, "{gone} {run}");
    assert_eq!(hash(&tree_of(&fleet)), hash(&fleet.upstream_tree()));

    // All that is wanted can be allowed beforehand.
    fs::remove_dir_all(fleet.path().join("aside")).expect("it goes");
    let gone = most_goes(&fleet);
    succeed(&fleet, &["--allow-deletes", &gone.to_string()]);
    assert_eq!(hash(&tree_of(&fleet)), hash(&fleet.upstream_tree()));
}

#[test]
fn one_accident_is_one_question() {
    let fleet = fleet_of(MANY);
    fleet.add_project("debian", &[]).ok();
    succeed(&fleet, &[]);
    let gone = most_goes(&fleet);
    // A dry run tells how it would end.
    let run = succeed(&fleet, &["--dry-run"]);
    assert_eq!(run["origin_attempt"]["outcome"]["evidence"]["wanted"], gone, "{run}");
    let shown = fleet.mirrorctl(&["run", "show", "debian"]).ok().stdout;
    assert!(shown.contains("500 deletes; a run would be held"), "{shown}");
    for _ in 0..3 {
        held(&fleet, "DELETES", &[]);
    }
    fleet.mirrorctl(&["run", "approve", "debian", "--yes"]).ok();
    fleet.await_run("debian", "SUCCEEDED");
    assert_eq!(hold(&fleet), None);
    assert_eq!(hash(&tree_of(&fleet)), hash(&fleet.upstream_tree()));
}

/// A18: a failure is seen: exit code, class, cause, advice, the log's own words, and the history of before.
#[test]
fn a_module_that_is_gone_is_told_and_asked_for_at_the_next_fire_only() {
    let mut fleet = fleet_of(200);
    fleet.add_project("debian", &["--cron", "hour=3"]).ok();
    succeed(&fleet, &[]);
    let before = hash(&tree_of(&fleet));
    fleet.upstream.kill();
    let dir = fleet.path().join("other");
    let other = format!("[other]\npath = {}\nread only = yes\n", fleet.upstream_tree().display());
    fleet.upstream = Rsyncd::start_with(None, &dir, fleet.address(), &other).expect("it starts again");

    let outcome = fails(&fleet, "NOT_FOUND");
    assert!(outcome["cause"].as_str().expect("a cause").contains("Unknown module 'mod'"), "{outcome}");
    assert_eq!(hash(&tree_of(&fleet)), before, "the tree stays");
    let run = fleet.newest_run("debian");
    assert_eq!(run["attempt_count"], 1, "{run}");
    assert!(run["origin_attempt"]["retry_time"].is_null(), "{run}");
    let why = fleet.mirrorctl(&["why", "debian"]).ok().stdout;
    assert!(why.contains("did not succeed") && why.contains("its next fire is"), "{why}");
    let shown = fleet.mirrorctl(&["run", "show", "debian"]).ok().stdout;
    assert!(shown.contains("Unknown module 'mod'") && shown.contains("advice"), "{shown}");
    assert!(outcome["exit_code"].as_u64().is_some_and(|code| code > 0), "{outcome}");
    let log = fleet.mirrorctl(&["run", "log", "debian"]).ok().stdout;
    assert!(log.contains("Unknown module"), "{log}");
    let runs = fleet.runs("debian");
    let states: Vec<&str> = runs.iter().filter_map(|run| run["state"].as_str()).collect();
    assert_eq!(states, ["FAILED", "SUCCEEDED"]);
    let stats = &runs[1]["origin_attempt"]["outcome"]["stats"];
    assert!(stats["received_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{runs:?}");
}

#[test]
fn what_the_upstream_cannot_read_costs_nothing_here_and_goes_to_no_replica() {
    if !rustix::process::getuid().is_root() {
        println!("skipped: a daemon that may not read its own files needs root to be started");
        return;
    }
    let options = FleetOptions {
        agents: vec!["edge1".to_owned(), "edge2".to_owned()],
        // A port that nobody else has.
        agent_config: "serve.listen = \"127.0.0.1:0\"\nserve.address = \"127.0.0.1\"".to_owned(),
        ..FleetOptions::default()
    };
    let mut fleet = Fleet::start(options).expect("a fleet starts");
    fleet.upstream.kill();
    let upstream = fleet.upstream_tree();
    // Chroot, as the way to the tree is closed to others.
    let module =
        format!("[mod]\npath = {}\nread only = yes\nuse chroot = yes\nuid = nobody\n", upstream.display());
    fleet.upstream =
        Rsyncd::start_with(None, &fleet.path().join("nobody"), fleet.address(), &module).expect("a daemon");
    fleet.add_project("debian", &["--replicas", "edge2", "--retry-attempts", "1"]).ok();
    succeed(&fleet, &[]);
    let before = tree::files(&tree_of(&fleet)).expect("a tree");
    let replica = fleet.root(1).join("debian");
    let followed = hash(&replica);
    assert_eq!(followed, hash(&upstream));

    let locked = upstream.join("pool/001");
    fs::set_permissions(&locked, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("its mode");
    fs::remove_file(upstream.join("pool/000/package-00000.deb")).expect("it goes");
    fs::write(upstream.join("pool/000/new.deb"), "new").expect("a file");
    let outcome = fails(&fleet, "PARTIAL");
    let told = format!("{}{}", outcome["cause"], outcome["advice"]);
    assert!(told.contains("pool/001"), "{told}");
    let shown = fleet.mirrorctl(&["run", "show", "debian"]).ok().stdout;
    assert!(shown.contains("pool/001") && shown.contains("the upstream's"), "{shown}");
    let after = tree::files(&tree_of(&fleet)).expect("a tree");
    assert!(
        before.iter().all(|(name, content)| after.get(name) == Some(content)),
        "all that was there is there"
    );
    assert_eq!(hash(&replica), followed, "the replica keeps the version it has");
    let project = fleet.json(&["project", "show", "debian"]);
    let trees: Vec<&Value> = project["status"]["placements"]
        .as_array()
        .expect("two")
        .iter()
        .map(|one| &one["have_tree"])
        .collect();
    assert_eq!(trees[0], trees[1], "{project}");

    fleet
        .mirrorctl(&["project", "edit", "debian", "--partial-is-success", "their 001 is always closed"])
        .ok();
    let run = succeed(&fleet, &[]);
    let advice = run["origin_attempt"]["outcome"]["advice"].as_str().expect("words");
    assert!(advice.contains("their 001 is always closed"), "{run}");
    assert_eq!(hash(&replica), hash(&tree_of(&fleet)), "now it goes on");
    assert!(replica.join("pool/000/new.deb").exists());
}

#[test]
fn without_its_sentinel_an_upstream_is_not_copied() {
    let fleet = fleet_of(50);
    fleet.add_project("debian", &["--sentinel", "dists"]).ok();
    let evidence = held(&fleet, "SENTINEL_MISSING", &[]);
    assert_eq!(evidence["names"], serde_json::json!(["dists"]), "{evidence}");
    assert_eq!(tree::count(&tree_of(&fleet)), 0, "nothing was copied");
    told(&fleet, "the upstream lacks dists, which must exist", "paths that must exist are not at rsync://");
    fs::create_dir(fleet.upstream_tree().join("dists")).expect("a directory");
    succeed(&fleet, &[]);
    assert_eq!(hold(&fleet), None);
    assert_eq!(hash(&tree_of(&fleet)), hash(&fleet.upstream_tree()));
}

#[test]
fn a_tree_that_others_put_there_is_looked_at_before_it_is_changed() {
    let fleet = fleet_of(200);
    tree::fill(&tree_of(&fleet).join("old"), 50, 1_024, 7).expect("a tree");
    let before = hash(&tree_of(&fleet));
    fleet.add_project("debian", &[]).ok();
    for _ in 0..2 {
        let evidence = held(&fleet, "ADOPTION", &[]);
        assert!(evidence["names"].as_array().is_some_and(|names| !names.is_empty()), "{evidence}");
        assert!(
            evidence["sentence"].as_str().expect("words").contains("did not put this tree here"),
            "{evidence}"
        );
        assert_eq!(hash(&tree_of(&fleet)), before, "nothing was changed");
    }
    told(&fleet, "the fleet did not put this tree here", "the fleet did not put this tree here");
    fleet.mirrorctl(&["run", "approve", "debian", "--yes"]).ok();
    fleet.await_run("debian", "SUCCEEDED");
    assert_eq!(hold(&fleet), None);
    assert_eq!(hash(&tree_of(&fleet)), hash(&fleet.upstream_tree()));

    // The same tree needs no question, and hardly a byte.
    copy(&fleet.upstream_tree(), &fleet.root(0).join("same"));
    fleet.add_project("same", &[]).ok();
    fleet.mirrorctl(&["project", "run", "same", "--watch"]).ok();
    let stats = &fleet.newest_run("same")["origin_attempt"]["outcome"]["stats"];
    assert_eq!((&stats["transferred"], &stats["deleted"]), (&0.into(), &0.into()), "{stats}");
}

#[test]
fn a_dry_run_tells_and_changes_nothing_and_a_quota_holds() {
    let fleet = fleet_of(200);
    fleet.add_project("debian", &[]).ok();
    let run = succeed(&fleet, &["--dry-run"]);
    let sentence = run["origin_attempt"]["outcome"]["evidence"]["sentence"].as_str().expect("words");
    assert!(sentence.starts_with("would transfer 200 files (400 KiB), delete 0"), "{run}");
    assert_eq!(tree::count(&tree_of(&fleet)), 0);
    succeed(&fleet, &[]);
    let before = hash(&tree_of(&fleet));
    let tree_before = fleet.json(&["project", "show", "debian"])["status"]["tree_version"].clone();

    fs::write(fleet.upstream_tree().join("new"), vec![1; 1_024]).expect("a file");
    fs::remove_dir_all(fleet.upstream_tree().join("pool/001")).expect("it goes");
    succeed(&fleet, &["--dry-run"]);
    let shown = fleet.mirrorctl(&["run", "show", "debian"]).ok().stdout;
    for words in ["Dry run", "would transfer 1 file (1.00 KiB), delete 65", "103 deletes\n"] {
        assert!(shown.contains(words), "{words:?} is not in:\n{shown}");
    }
    assert_eq!(hash(&tree_of(&fleet)), before, "nothing changed");
    assert_eq!(fleet.json(&["project", "show", "debian"])["status"]["tree_version"], tree_before);

    fleet.mirrorctl(&["project", "edit", "debian", "--quota", "102400", "--shrink-percent", "100"]).ok();
    held(&fleet, "QUOTA", &[]);
    told(&fleet, "quota is 100", "quota is 100");
    fleet.mirrorctl(&["project", "edit", "debian", "--quota", "1048576"]).ok();
    succeed(&fleet, &[]);
    assert_eq!(hold(&fleet), None);
    assert_eq!(hash(&tree_of(&fleet)), hash(&fleet.upstream_tree()));
}

/// Attempts of a run, oldest first, by the class of their outcomes.
fn classes(fleet: &Fleet, project: &str) -> Vec<String> {
    let run = fleet.newest_run(project);
    let attempts = run["attempts"].as_array().expect("attempts").clone();
    attempts.iter().filter_map(|one| Some(one["outcome"]["class"].as_str()?.to_owned())).collect()
}

/// A client that has begun a transfer and says no more.
fn hanging_client(fleet: &Fleet) -> std::net::TcpStream {
    use std::io::{BufRead as _, BufReader, Write as _};
    let stream =
        std::net::TcpStream::connect((fleet.address(), fleet_tests::rsyncd::PORT)).expect("a connection");
    let mut reader = BufReader::new(stream.try_clone().expect("the same"));
    (&stream).write_all(b"@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\nmod\n").expect("it is taken");
    let mut line = String::new();
    while !line.starts_with("@RSYNCD: OK") {
        line.clear();
        assert_ne!(reader.read_line(&mut line).expect("an answer"), 0, "the daemon closed it");
    }
    stream
}

#[test]
fn an_upstream_with_one_connection_makes_six_projects_wait_and_none_fail() {
    let options = FleetOptions {
        agents: vec!["edge1".to_owned(), "edge2".to_owned()],
        files: 20,
        limits: "upstream_spacing = \"0s\"\nupstream_slots = 100\nbusy_pause = \"1s\"\n".to_owned(),
        ..FleetOptions::default()
    };
    let mut fleet = Fleet::start(options).expect("a fleet starts");
    fleet.upstream.kill();
    let dir = fleet.path().join("small");
    let module = format!(
        "[mod]\npath = {}\nread only = yes\nmax connections = 1\nlock file = {}\n",
        fleet.upstream_tree().display(),
        dir.join("lock").display()
    );
    fleet.upstream = Rsyncd::start_with(None, &dir, fleet.address(), &module).expect("a daemon");
    let names: Vec<String> = (0..6).map(|number| format!("p{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let (to, origin) = (format!("a1:{name}"), format!("edge{}", 1 + number % 2));
        let from = fleet.upstream.uri();
        fleet.mirrorctl(&["project", "add", name, "--from", &from, "--to", &to, "--origin", &origin]).ok();
    }

    let hanging = hanging_client(&fleet);
    for name in &names {
        fleet.mirrorctl(&["project", "run", name]).ok();
    }
    eventually("it is told as waiting", || {
        let why = fleet.mirrorctl(&["why", "p0"]).ok().stdout;
        (why.contains("max connections (1) reached") && why.contains("This is no failure")).then_some(())
    });
    drop(hanging);
    for name in &names {
        fleet.await_run(name, "SUCCEEDED");
        assert_eq!(fleet.runs(name).len(), 1);
    }
    let waited: Vec<Vec<String>> = names.iter().map(|name| classes(&fleet, name)).collect();
    assert!(waited[0].len() > 1, "{waited:?}");
    for tries in &waited {
        let (last, before) = tries.split_last().expect("a try");
        assert!(last == "OK" && before.iter().all(|class| class == "BUSY"), "{waited:?}");
    }

    // Whoever tells the fleet of it never hears it.
    let host = fleet.address().to_string();
    fleet.mirrorctl(&["upstream", "set", &host, "--slots", "1"]).ok();
    let first: Vec<Value> = names.iter().map(|name| fleet.newest_run(name)["name"].clone()).collect();
    for name in &names {
        fleet.mirrorctl(&["project", "run", name]).ok();
    }
    for (name, first) in names.iter().zip(first) {
        eventually("the second run succeeds", || {
            let run = fleet.newest_run(name).clone();
            (run["name"] != first && run["state"] == "SUCCEEDED").then_some(())
        });
        assert_eq!(classes(&fleet, name), ["OK"]);
    }
}

#[test]
fn a_full_disk_costs_no_old_file_and_a_run_can_make_room_first() {
    const MIB: usize = 1 << 20;
    let options = FleetOptions { files: 64, file_bytes: MIB / 16, ..FleetOptions::default() };
    let Some((fleet, mount)) = fleet_on("size=16m", options) else { return };
    fleet.add_project("debian", &["--retry-attempts", "1"]).ok();
    succeed(&fleet, &[]);
    let before = tree::files(&tree_of(&fleet)).expect("a tree");
    let grown = fleet.upstream_tree().join("grown");
    tree::fill(&grown, 20, MIB, 3).expect("it grows");
    let outcome = fails(&fleet, "DISK_FULL");
    assert!(outcome["advice"].as_str().expect("advice").contains("--reclaim"), "{outcome}");
    let intact = |fleet: &Fleet| {
        let after = tree::files(&tree_of(fleet)).expect("a tree");
        before.iter().all(|(name, content)| after.get(name) == Some(content))
    };
    assert!(intact(&fleet), "the old files are as they were");

    // The upstream shrinks, and what is new fits only where the other is gone.
    fs::remove_dir_all(&grown).expect("it goes");
    tree::fill(&fleet.upstream_tree().join("next"), 8, MIB, 5).expect("something else comes");
    succeed(&fleet, &["--reclaim"]);
    assert!(intact(&fleet));
    assert_eq!(hash(&tree_of(&fleet)), hash(&fleet.upstream_tree()));
    drop(fleet);
    drop(mount);
}
