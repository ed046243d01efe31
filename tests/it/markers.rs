//! Markers, with real rsync daemons: a dead upstream is left for one run and asked first again by the next, an older one
//! never takes the place of what is served, and without a marker nothing switches by itself.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use fleet_tests::{Fleet, FleetOptions, Rsyncd, address, eventually, tree};

/// The marker of every project here.
const MARKER: &str = "unix_time:lastupdate";
/// 21 November 2026, 10:00 UTC. Hours are counted from it.
const TEN: i64 = 1_795_255_200;

/// A fleet, and a second upstream with the same tree in `second`.
struct Site {
    fleet: Fleet,
    second: Rsyncd,
}

impl Site {
    fn start() -> Self {
        let fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
        let dir = fleet.path().join("second");
        tree::fill(&dir, 200, 2_048, 42).expect("a tree");
        let second = Rsyncd::start(None, &fleet.path().join("rsyncd-second"), address::unique(), &dir)
            .expect("it starts");
        Self { fleet, second }
    }

    /// The project `debian`, with both upstreams and one try at each.
    fn add(&self, more: &[&str]) {
        let second = self.second.uri();
        let flags = [&["--fallback", &second, "--retry-attempts", "1"], more].concat();
        self.fleet.add_project("debian", &flags).ok();
    }

    fn trees(&self) -> [PathBuf; 2] {
        [self.fleet.upstream_tree(), self.fleet.path().join("second")]
    }

    /// A run to its end: its state, the newest attempt of it, and all as people see it.
    fn run(&self) -> (String, serde_json::Value, String) {
        drop(self.fleet.mirrorctl(&["project", "run", "debian", "--watch"]));
        let shown = self.fleet.newest_run("debian");
        let run = shown.get("run").cloned().unwrap_or(shown);
        let text = self.fleet.mirrorctl(&["run", "show", "debian"]).ok().stdout;
        (run["state"].as_str().expect("a state").to_owned(), run["origin_attempt"].clone(), text)
    }

    fn served(&self) -> String {
        tree::hash(&self.fleet.root(0).join("debian")).expect("a tree")
    }

    fn why(&self) -> String {
        self.fleet.mirrorctl(&["why", "debian"]).ok().stdout.replace("\n  ", " ")
    }
}

/// Sets a tree's marker, so many hours after ten, and the file's own time: rsync would take two of one second for the
/// same.
fn mark(tree: &Path, hours: i64) {
    let seconds = u64::try_from(TEN + hours * 3_600).expect("after 1970");
    let path = tree.join("lastupdate");
    fs::write(&path, format!("{seconds}\n")).expect("a marker");
    let file = fs::File::options().write(true).open(path).expect("a marker");
    file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).expect("its time");
}

/// What is at an upstream, as what was copied of it should be.
fn hash(tree: &Path) -> String {
    tree::hash(tree).expect("a tree")
}

#[test]
fn a_dead_upstream_is_left_for_one_run() {
    let mut site = Site::start();
    let [first, second] = site.trees();
    mark(&first, 0);
    mark(&second, 1);
    site.add(&["--marker", MARKER]);
    assert_eq!(site.run().0, "SUCCEEDED");
    assert_eq!(site.served(), hash(&first));

    site.fleet.upstream.kill();
    let (state, attempt, shown) = site.run();
    assert_eq!(state, "SUCCEEDED", "{shown}");
    assert_eq!(attempt["upstream"], site.second.uri(), "{attempt}");
    let why = attempt["fell_back"].as_str().expect("a reason");
    assert!(why.contains("Connection refused"), "{why}");
    assert!(shown.contains("upstream  fell back to "), "{shown}");
    assert_eq!(site.served(), hash(&second));
    let project = site.fleet.json(&["project", "show", "debian"]);
    assert_eq!(project["status"]["upstream"], site.fleet.upstream.uri(), "the first one is still preferred");
    assert_eq!(project["status"]["marker_time"], "2026-11-21T11:00:00Z", "{project}");

    site.fleet.upstream.restart().expect("it starts again");
    mark(&first, 2);
    let (state, attempt, shown) = site.run();
    assert_eq!(
        (state.as_str(), &attempt["upstream"]),
        ("SUCCEEDED", &site.fleet.upstream.uri().into()),
        "{shown}"
    );
    assert!(attempt.get("fell_back").is_none_or(|why| why == ""), "{attempt}");
    assert_eq!(attempt["outcome"]["marker"]["tree_time"], "2026-11-21T12:00:00Z", "{attempt}");
    assert_eq!(site.served(), hash(&first));
}

#[test]
fn an_older_upstream_is_refused_and_the_tree_stays() {
    let mut site = Site::start();
    let [first, second] = site.trees();
    mark(&first, 5);
    mark(&second, 3);
    site.add(&["--marker", MARKER]);
    assert_eq!(site.run().0, "SUCCEEDED");
    let served = site.served();

    site.fleet.upstream.kill();
    site.fleet.mirrorctl(&["project", "run", "debian"]).ok();
    let second_uri = site.second.uri();
    let why = eventually("no upstream is newer", || {
        let why = site.why();
        why.contains("waits for a newer upstream").then_some(why)
    });
    assert!(why.contains("its tree stays as it is") && why.contains(": 2 h older"), "{why}");
    assert!(why.contains(&second_uri), "{why}");
    assert_eq!(site.served(), served);
    let project = site.fleet.json(&["project", "show", "debian"]);
    assert!(project["status"]["behind_since"].is_string(), "{project}");

    // A person looks at all of them.
    let checked = site.fleet.mirrorctl(&["project", "check", "debian", "-o", "json"]).json();
    let findings = checked["findings"].as_array().expect("findings");
    let markers: Vec<&str> = findings
        .iter()
        .filter(|finding| finding["kind"] == "MARKER")
        .filter_map(|finding| finding["sentence"].as_str())
        .collect();
    assert_eq!(markers.len(), 2, "{checked}");
    assert!(markers[0].contains("cannot tell how new"), "{markers:?}");
    assert!(markers[1].contains("2026-11-21 13:00:00 UTC, older than what is served"), "{markers:?}");

    // The first one comes back: the next run asks it first.
    site.fleet.mirrorctl(&["run", "cancel", "debian"]).ok();
    site.fleet.await_run("debian", "CANCELLED");
    site.fleet.upstream.restart().expect("it starts again");
    mark(&first, 6);
    let (state, attempt, shown) = site.run();
    assert_eq!(
        (state.as_str(), &attempt["upstream"]),
        ("SUCCEEDED", &site.fleet.upstream.uri().into()),
        "{shown}"
    );
    assert_eq!(site.served(), hash(&first));
    let project = site.fleet.json(&["project", "show", "debian"]);
    assert!(project["status"].get("behind_since").is_none_or(serde_json::Value::is_null), "{project}");
}

#[test]
fn a_preferred_upstream_that_went_back_is_passed_by() {
    let site = Site::start();
    let [first, second] = site.trees();
    mark(&first, 5);
    mark(&second, 6);
    site.add(&["--marker", MARKER]);
    assert_eq!(site.run().0, "SUCCEEDED");
    mark(&first, 4);
    let (state, attempt, shown) = site.run();
    assert_eq!((state.as_str(), &attempt["upstream"]), ("SUCCEEDED", &site.second.uri().into()), "{shown}");
    assert!(attempt["fell_back"].as_str().expect("a reason").contains(": 60 min older"), "{attempt}");
    assert_eq!(site.served(), hash(&second));
}

#[test]
fn without_a_marker_nothing_switches_by_itself() {
    let mut site = Site::start();
    let [first, second] = site.trees();
    mark(&first, 0);
    mark(&second, 1);
    site.add(&[]);
    assert_eq!(site.run().0, "SUCCEEDED");
    let served = site.served();
    site.fleet.upstream.kill();
    let (state, attempt, shown) = site.run();
    assert_eq!(
        (state.as_str(), &attempt["upstream"]),
        ("FAILED", &site.fleet.upstream.uri().into()),
        "{shown}"
    );
    assert_eq!(site.served(), served);

    // A marker that is declared now is enough, and `''` takes it away again.
    site.fleet.mirrorctl(&["project", "edit", "debian", "--marker", MARKER]).ok();
    let (state, attempt, shown) = site.run();
    assert_eq!((state.as_str(), &attempt["upstream"]), ("SUCCEEDED", &site.second.uri().into()), "{shown}");
    assert_eq!(site.served(), hash(&second));
    site.fleet.mirrorctl(&["project", "edit", "debian", "--marker", ""]).ok();
    assert_eq!(site.run().0, "FAILED");
}

#[test]
fn a_hostile_marker_lets_nothing_in() {
    let mut site = Site::start();
    let [first, second] = site.trees();
    mark(&first, 0);
    site.add(&["--marker", MARKER]);
    assert_eq!(site.run().0, "SUCCEEDED");
    let served = site.served();
    site.fleet.upstream.kill();
    fs::write(second.join("pool/000/evil"), "evil").expect("a file");
    let marker = second.join("lastupdate");
    type Make = fn(&Path);
    let hostile: [(&str, Make); 5] = [
        ("at most 1 MiB", |path| fs::File::create(path).expect("a file").set_len(1 << 30).expect("a hole")),
        ("does not begin with a number", |path| fs::write(path, [0_u8, 0xff, b'\n', 0x1b]).expect("a file")),
        ("at most 1 MiB", |path| std::os::unix::fs::symlink("/proc/uptime", path).expect("a link")),
        ("more than a day ahead", |path| fs::write(path, "4070908800\n").expect("a file")),
        ("at most 1 MiB", |_| {}),
    ];
    for (reason, make) in hostile {
        drop(fs::remove_file(&marker));
        make(&marker);
        site.fleet.mirrorctl(&["project", "run", "debian"]).ok();
        let why = eventually("the second upstream is refused", || {
            let why = site.why();
            why.contains("waits for a newer upstream").then_some(why)
        });
        assert!(why.contains("tells nothing") && why.contains(reason), "{reason}: {why}");
        assert_eq!(site.served(), served, "{reason}");
        site.fleet.mirrorctl(&["run", "cancel", "debian"]).ok();
        site.fleet.await_run("debian", "CANCELLED");
    }
}
