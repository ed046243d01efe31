//! A tree moves to another volume of its host: who reads it by its public link sees a whole version at every moment,
//! replicas go on pulling, and whatever breaks off leaves the tree where it was.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use fleet_tests::{Fleet, FleetOptions, eventually, tree};

use crate::limits::{Mount, fill_up};

const ORIGIN: usize = 0;
const EDGE: usize = 1;
const AGENTS: [&str; 2] = ["ftp1", "edge1"];
const MOVE: [&str; 7] = ["project", "move", "debian", "--agent", "ftp1", "--to", "a2:mirror/debian"];

/// Stands for rsync on the hosts: waits before a pass of a move while a file of that name is there, and may damage the
/// first copy before it is compared.
const RSYNC: &str = r#"#!/bin/sh
dir=$(dirname "$0")
last=
for word in "$@"; do last=$word; done
case " $* " in
*" --delete-during "*" --dry-run "*) pass=verify ;;
*" --delete-during "*) case " $* " in *" rsync://"*) pass=pull ;; *) pass=copy ;; esac ;;
*) pass=other ;;
esac
touch "$dir/at-$pass"
while [ -e "$dir/hold-$pass" ]; do sleep 0.05; done
if [ "$pass" = verify ] && [ -e "$dir/damage" ]; then
    rm "$dir/damage"
    file="${last}pool/000/package-00007.deb"
    time=$(stat -c %y "$file")
    printf 'X' | dd of="$file" bs=1 seek=9 conv=notrunc 2>/dev/null
    touch -d "$time" "$file"
fi
exec /usr/bin/rsync "$@"
"#;

/// An origin and a replica, both with a second volume and a directory of public names.
struct Site {
    fleet: Fleet,
    tools: tempfile::TempDir,
}

impl Site {
    fn start() -> Self {
        let tools = tempfile::tempdir().expect("a directory");
        let rsync = tools.path().join("rsync");
        fs::write(&rsync, RSYNC).expect("a script");
        fs::set_permissions(&rsync, fs::Permissions::from_mode(0o755)).expect("it can be executed");
        let agents = AGENTS.map(str::to_owned).to_vec();
        let agent_config = "jail = false".to_owned();
        let mut fleet = Fleet::start(FleetOptions { agents, agent_config, ..FleetOptions::default() })
            .expect("a fleet starts");
        for (index, agent) in AGENTS.iter().enumerate() {
            for name in ["a2", "pub"] {
                add_root(&fleet, index, name);
            }
            let stand_in = format!("rsync = \"{}\"", rsync.display());
            replace(&fleet, index, "rsync = \"/usr/bin/rsync\"", &stand_in);
            fleet.kill_agent(index);
            fleet.start_agent(index).expect("the agent starts again");
            eventually(&format!("{agent} has three roots"), || {
                let shown = fleet.mirrorctl(&["agent", "show", agent, "-o", "json"]);
                (shown.code == 0 && shown.stdout.contains("\"pub\"")).then_some(())
            });
        }
        Self { fleet, tools }
    }

    /// With the tree on both.
    fn with_trees() -> Self {
        let site = Self::start();
        site.fleet.add_project("debian", &["--replicas", "edge1", "--link", "pub:debian"]).ok();
        site.fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
        site.fleet.await_run("debian", "SUCCEEDED");
        for index in [ORIGIN, EDGE] {
            assert_eq!(site.hash(index, "a1", "debian"), site.upstream());
            assert_eq!(site.link(index), site.way(index, "a1", "debian"));
        }
        site
    }

    fn place(&self, index: usize, root: &str, path: &str) -> PathBuf {
        if root == "a1" {
            self.fleet.root(index).join(path)
        } else {
            extra(&self.fleet, index, root).join(path)
        }
    }

    fn hash(&self, index: usize, root: &str, path: &str) -> Option<String> {
        tree::hash(&self.place(index, root, path)).ok()
    }

    fn upstream(&self) -> Option<String> {
        tree::hash(&self.fleet.upstream_tree()).ok()
    }

    fn link(&self, index: usize) -> PathBuf {
        fs::read_link(self.place(index, "pub", "debian")).expect("the public link")
    }

    /// The relative way from the public names to a tree.
    fn way(&self, index: usize, root: &str, path: &str) -> PathBuf {
        let root = self.place(index, root, "");
        let name = root.components().next_back().expect("a name").as_os_str().to_owned();
        Path::new("..").join(name).join(path)
    }

    fn flag(&self, name: &str) -> PathBuf {
        self.tools.path().join(name)
    }

    /// The next pass of this name waits.
    fn hold(&self, pass: &str) {
        drop(fs::remove_file(self.flag(&format!("at-{pass}"))));
        fs::write(self.flag(&format!("hold-{pass}")), "").expect("a flag");
    }

    fn await_pass(&self, pass: &str) {
        eventually(&format!("the {pass} begins"), || self.flag(&format!("at-{pass}")).exists().then_some(()));
    }

    fn release(&self, pass: &str) {
        fs::remove_file(self.flag(&format!("hold-{pass}"))).expect("it was held");
    }

    /// The tree is at the new place, whole, and so says everybody; the old one stays.
    fn check_moved(&self) {
        self.fleet.await_run("debian", "SUCCEEDED");
        assert_eq!(self.link(ORIGIN), self.way(ORIGIN, "a2", "mirror/debian"));
        assert_eq!(self.hash(ORIGIN, "a2", "mirror/debian"), self.upstream());
        assert!(self.place(ORIGIN, "a1", "debian").is_dir(), "the old tree stays");
        let project = self.fleet.json(&["project", "show", "debian"]);
        assert_eq!(project["placement"]["origins"][0]["destination"], "a2:mirror/debian", "{project}");
    }

    /// The tree is where it was.
    fn check_not_moved(&self) {
        assert_eq!(self.link(ORIGIN), self.way(ORIGIN, "a1", "debian"));
        assert_eq!(self.hash(ORIGIN, "a1", "debian"), self.upstream());
        let project = self.fleet.json(&["project", "show", "debian"]);
        assert_ne!(project["placement"]["origins"][0]["destination"], "a2:mirror/debian", "{project}");
    }
}

fn extra(fleet: &Fleet, index: usize, root: &str) -> PathBuf {
    let own = fleet.root(index);
    let name = own.file_name().expect("a root has a name").to_string_lossy().into_owned();
    own.with_file_name(format!("{name}-{root}"))
}

/// Adds a root to the agent's own file.
fn add_root(fleet: &Fleet, index: usize, name: &str) {
    let path = extra(fleet, index, name);
    fs::create_dir(&path).expect("a directory");
    replace(fleet, index, "[roots]\n", &format!("[roots]\n{name} = \"{}\"\n", path.display()));
}

/// Changes the agent's own file.
fn replace(fleet: &Fleet, index: usize, old: &str, new: &str) {
    let file = fleet.agent_dir(index).join("agent.toml");
    let text = fs::read_to_string(&file).expect("the agent's file");
    assert!(text.contains(old), "{text}");
    fs::write(file, text.replacen(old, new, 1)).expect("it can be written");
}

/// Somebody who reads a public tree all the time.
struct Reader {
    over: Arc<AtomicBool>,
    seen: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn start(tree: PathBuf, version: String) -> Self {
        let (over, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = thread::spawn({
            let (over, seen) = (over.clone(), seen.clone());
            move || {
                while !over.load(Ordering::Acquire) {
                    assert_eq!(tree::hash(&tree).expect("a public tree"), version, "half a tree");
                    seen.fetch_add(1, Ordering::AcqRel);
                }
            }
        });
        Self { over, seen, thread }
    }

    /// Waits until it has read the tree from its beginning to its end.
    fn await_round(&self) {
        let before = self.seen.load(Ordering::Acquire);
        eventually("the reader has read all", || {
            assert!(!self.thread.is_finished(), "the reader has seen half a tree");
            (self.seen.load(Ordering::Acquire) > before + 1).then_some(())
        });
    }

    fn end(self) {
        self.over.store(true, Ordering::Release);
        self.thread.join().expect("it saw whole versions only");
    }
}

#[test]
fn readers_and_replicas_notice_nothing_while_a_tree_moves() {
    let mut site = Site::with_trees();
    site.fleet.kill_agent(EDGE);
    fs::write(site.fleet.upstream_tree().join("news"), "news").expect("a file comes");
    site.fleet.mirrorctl(&["project", "run", "debian"]).ok();
    eventually("the origin has the news", || {
        (site.hash(ORIGIN, "a1", "debian") == site.upstream()).then_some(())
    });

    site.hold("verify");
    let reader = Reader::start(site.place(ORIGIN, "pub", "debian"), site.upstream().expect("a tree"));
    let told = site.fleet.mirrorctl(&MOVE).ok();
    let said = told.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("then pub:debian leads there"), "{said}");
    site.await_pass("verify");
    assert_eq!(site.link(ORIGIN), site.way(ORIGIN, "a1", "debian"), "not before the copy is proven");
    // A replica that missed it pulls from the tree that moves; another run waits.
    site.fleet.start_agent(EDGE).expect("the agent starts");
    eventually("the replica has the news", || {
        (site.hash(EDGE, "a1", "debian") == site.upstream()).then_some(())
    });
    site.fleet.mirrorctl(&["project", "run", "debian"]).ok();
    eventually("why says what the run waits for", || {
        let why = site.fleet.mirrorctl(&["why", "debian"]).ok().stdout;
        let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        why.contains("its tree on ftp1 is being moved to a2:mirror/debian").then_some(())
    });
    reader.await_round();
    site.release("verify");
    eventually("the link leads to the new place", || {
        (site.link(ORIGIN) == site.way(ORIGIN, "a2", "mirror/debian")).then_some(())
    });
    reader.await_round();
    site.check_moved();
    reader.end();

    let moved = site.fleet.runs("debian").into_iter().find(|run| run["move_to"] == "a2:mirror/debian");
    let moved = moved.expect("the move is in the history");
    assert_eq!((&moved["state"], &moved["move_from"]), (&"SUCCEEDED".into(), &"a1:debian".into()), "{moved}");
    let name = moved["name"].as_str().and_then(|name| name.rsplit('/').next()).expect("a name");
    let shown = site.fleet.mirrorctl(&["run", "show", &format!("debian/{name}")]).ok().stdout;
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        shown.contains("a1:debian; it stays there and nobody uses it: remove it when you like"),
        "{shown}"
    );

    // From now on the new place is worked on, and served; the old one is not touched.
    let old = site.hash(ORIGIN, "a1", "debian");
    fs::write(site.fleet.upstream_tree().join("more"), "more").expect("another file comes");
    site.fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    for (index, root, path) in [(ORIGIN, "a2", "mirror/debian"), (EDGE, "a1", "debian")] {
        eventually(&format!("agent {index} has the new tree"), || {
            (site.hash(index, root, path) == site.upstream()).then_some(())
        });
    }
    assert_eq!(site.hash(ORIGIN, "a1", "debian"), old);
    assert_eq!(site.link(ORIGIN), site.way(ORIGIN, "a2", "mirror/debian"));
}

#[test]
fn a_killed_agent_and_a_killed_coordinator_go_on_with_the_move() {
    for pass in ["copy", "verify"] {
        let mut site = Site::with_trees();
        site.hold(pass);
        site.fleet.mirrorctl(&MOVE).ok();
        site.await_pass(pass);
        site.fleet.kill_agent(ORIGIN);
        site.fleet.kill_coordinator();
        site.check_link_only();
        site.fleet.start_coordinator().expect("the coordinator starts");
        site.fleet.start_agent(ORIGIN).expect("the agent starts");
        site.fleet.await_connected("ftp1");
        site.release(pass);
        site.check_moved();
        let run = site.fleet.newest_run("debian");
        assert_eq!(run["attempts"].as_array().map(Vec::len), Some(1), "{pass}: the same attempt: {run}");
    }
}

impl Site {
    /// What can be seen without a coordinator.
    fn check_link_only(&self) {
        assert_eq!(self.link(ORIGIN), self.way(ORIGIN, "a1", "debian"));
        assert_eq!(self.hash(ORIGIN, "a1", "debian"), self.upstream());
    }
}

#[test]
fn a_damaged_copy_is_found_and_mended_before_anybody_sees_it() {
    let site = Site::with_trees();
    fs::write(site.flag("damage"), "").expect("a flag");
    let mut words = MOVE.to_vec();
    words.push("--watch");
    site.fleet.mirrorctl(&words).ok();
    assert!(!site.flag("damage").exists(), "it was damaged");
    site.check_moved();
    let log = site.fleet.mirrorctl(&["run", "log", "debian"]).ok().stdout;
    assert!(log.contains("1 entries differ, as pool/000/package-00007.deb"), "{log}");
    assert!(log.contains("both trees are equal"), "{log}");
}

#[test]
fn a_cancelled_move_leaves_the_tree_and_the_next_one_goes_on() {
    let site = Site::with_trees();
    site.hold("verify");
    site.fleet.mirrorctl(&MOVE).ok();
    site.await_pass("verify");
    site.fleet.mirrorctl(&["run", "cancel", "debian", "--yes"]).ok();
    site.fleet.await_run("debian", "CANCELLED");
    site.release("verify");
    site.check_not_moved();
    // What went from the old tree since goes from the copy, and what came comes.
    let file = "pool/000/package-00001.deb";
    fs::remove_file(site.fleet.upstream_tree().join(file)).expect("a file goes");
    fs::write(site.fleet.upstream_tree().join("news"), "news").expect("a file comes");
    site.fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    site.check_not_moved();
    assert!(site.place(ORIGIN, "a2", "mirror/debian").join(file).exists(), "of the first move");
    let mut words = MOVE.to_vec();
    words.push("--watch");
    let told = site.fleet.mirrorctl(&words).ok().stdout;
    assert!(told.contains("lives at a2:mirror/debian now"), "{told}");
    site.check_moved();
}

#[test]
fn a_volume_that_runs_full_ends_the_move_and_not_the_service() {
    let site = Site::with_trees();
    let volume = extra(&site.fleet, ORIGIN, "a2");
    let mut site = site;
    let mount = match Mount::over(&volume, "24m") {
        Ok(mount) => mount,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    site.fleet.kill_agent(ORIGIN);
    site.fleet.start_agent(ORIGIN).expect("the agent starts on the new volume");
    eventually("the coordinator knows the new volume", || {
        let shown = site.fleet.json(&["agent", "show", "ftp1"]);
        let roots = shown["roots"].as_array().cloned().unwrap_or_default();
        roots.iter().any(|root| root["name"] == "a2" && root["total_bytes"] == 24 << 20).then_some(())
    });
    site.hold("copy");
    site.fleet.mirrorctl(&MOVE).ok();
    site.await_pass("copy");
    fill_up(&volume.join("filler"));
    site.release("copy");
    let run = site.fleet.await_run("debian", "FAILED");
    assert_eq!(run["origin_attempt"]["outcome"]["class"], "DISK_FULL", "{run}");
    site.check_not_moved();
    fs::remove_file(volume.join("filler")).expect("room again");
    let mut words = MOVE.to_vec();
    words.push("--watch");
    site.fleet.mirrorctl(&words).ok();
    site.check_moved();
    drop(site);
    drop(mount);
}

#[test]
fn what_cannot_be_moved_is_refused_with_every_reason() {
    let site = Site::with_trees();
    let refused = |words: &[&str]| {
        let told = site.fleet.mirrorctl(words);
        assert_ne!(told.code, 0, "{words:?}: {}", told.stdout);
        (told.stdout + &told.stderr).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (agent, to, why) in [
        ("ftp1", "a1:debian", "its tree is there already"),
        ("ftp1", "a1:debian/pool", "inside or around the tree's own, a1:debian"),
        ("ftp1", "a9:debian", "has no root \"a9\" (it has a1, a2, pub)"),
        ("ftp1", "pub:debian", "inside, around or at the public link pub:debian"),
        ("ftp1", "/srv/debian", "needs a root"),
        ("ftp1", "a2:../debian", "must be relative"),
        ("nobody", "a2:debian", "nobody"),
    ] {
        let said = refused(&["project", "move", "debian", "--agent", agent, "--to", to]);
        assert!(said.contains(why), "{to}: {said}");
    }
    // What only its host sees is told by the run.
    let strange = site.place(ORIGIN, "a2", "mirror/debian");
    fs::create_dir_all(&strange).expect("a directory");
    fs::write(strange.join("own"), "somebody's").expect("a file");
    let mut words = MOVE.to_vec();
    words.push("--watch");
    let said = refused(&words);
    assert!(
        said.contains("a2:mirror/debian is not empty, and no move of this tree put there what it holds"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(strange.join("own")).expect("it is there"), "somebody's");
    site.check_not_moved();

    // A public name that is somebody else's stays so, and check tells it before.
    fs::create_dir(site.place(ORIGIN, "pub", "epel")).expect("a directory");
    site.fleet.add_project("epel", &["--link", "pub:epel"]).ok();
    let check = site.fleet.mirrorctl(&["project", "check", "epel"]).stdout;
    assert!(check.contains("is a directory, and not this project's public link"), "{check}");
    let said = refused(&["project", "run", "epel", "--watch"]);
    assert!(said.contains("is a directory, and not this project's public link"), "{said}");
    assert!(site.place(ORIGIN, "pub", "epel").is_dir());
}
