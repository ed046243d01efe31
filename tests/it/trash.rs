//! A project is deleted, and its trees go to the trash on request. Row A10 of the mission: a running attempt refuses or is
//! cancelled, the tree stays or is moved where the agent's own file allows it, an unknown project is NOT_FOUND.

use std::{fs, path::PathBuf, time::Duration};

use fleet_tests::{Fleet, FleetOptions, eventually_within, tree};

/// Room for a busy machine.
const SOON: Duration = Duration::from_secs(60);
const NOT_FOUND: i32 = 3;
const CONFLICT: i32 = 5;

/// Two agents that allow the trash.
fn fleet() -> Fleet {
    let agents = vec!["edge1".to_owned(), "edge2".to_owned()];
    let agent_config = "allow_trash = true\n".to_owned();
    Fleet::start(FleetOptions { agents, agent_config, ..FleetOptions::default() }).expect("a fleet starts")
}

/// What is in the trash of an agent's root.
fn trash(fleet: &Fleet, agent: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(fleet.root(agent).join(".mirror-trash")).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// The tree of a project on both agents.
fn synced(fleet: &Fleet, project: &str) {
    fleet.add_project(project, &["--replicas", "edge2"]).ok();
    fleet.mirrorctl(&["project", "run", project, "--watch"]).ok();
    let upstream = tree::hash(&fleet.upstream_tree()).expect("the upstream");
    eventually_within(SOON, "both agents have the tree", || {
        let same = |agent| tree::hash(&fleet.root(agent).join(project)).ok() == Some(upstream.clone());
        (same(0) && same(1)).then_some(())
    });
}

fn shown(fleet: &Fleet, agent: &str, wanted: &str) {
    eventually_within(SOON, &format!("{agent} shows {wanted:?}"), || {
        let shown = fleet.mirrorctl(&["agent", "show", agent]).ok().stdout;
        shown.replace("\n             ", " ").contains(wanted).then_some(())
    });
}

/// A10.
#[test]
fn a_deleted_projects_trees_go_to_the_trash_where_their_agents_allow_it() {
    let mut fleet = fleet();
    let file = fleet.agent_dir(1).join("agent.toml");
    let text = fs::read_to_string(&file).expect("a configuration");
    fleet.kill_agent(1);
    fs::write(&file, text.replace("allow_trash = true", "allow_trash = false")).expect("it can be written");
    fleet.start_agent(1).expect("it starts again");
    fleet.await_connected("edge2");
    synced(&fleet, "debian");
    let upstream = tree::hash(&fleet.upstream_tree()).expect("the upstream");
    let delete = |more: &[&str]| {
        fleet.mirrorctl(&[&["project", "delete", "debian", "--tree-to-trash", "--yes"], more].concat())
    };
    assert_eq!(fleet.mirrorctl(&["project", "delete", "nobody", "--tree-to-trash", "--yes"]).code, NOT_FOUND);

    // While an attempt is on an agent nothing is deleted, and nothing moved, unless that is asked for.
    fs::write(fleet.upstream_tree().join("big"), vec![7_u8; 8 << 20]).expect("the upstream can be written");
    fleet.mirrorctl(&["project", "edit", "debian", "--bandwidth", "200"]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    fleet.await_run("debian", "RUNNING");
    let refused = delete(&[]);
    assert_eq!(refused.code, CONFLICT, "{}", refused.stderr);
    assert!(refused.stderr.contains("--cancel-running --tree-to-trash"), "{}", refused.stderr);
    assert!(fleet.root(0).join("debian").exists() && trash(&fleet, 0).is_empty());

    let deleted = delete(&["--cancel-running"]).ok().stdout;
    assert!(deleted.starts_with("debian deleted.\nedge1: "), "{deleted}");
    let stays = "edge2: stays at a1:debian: the agent's own file does not allow it; allow_trash = true would";
    assert!(deleted.contains(stays), "{deleted}");
    // What was running there may take its time to end.
    shown(&fleet, "edge1", "debian: in the trash until ");
    assert!(!fleet.root(0).join("debian").exists());
    let trashed = trash(&fleet, 0);
    assert_eq!(trashed.len(), 1, "{trashed:?}");
    assert_eq!(tree::hash(&fleet.root(1).join("debian")).ok(), Some(upstream));
    assert!(trash(&fleet, 1).is_empty());
    assert_eq!(fleet.mirrorctl(&["project", "show", "debian"]).code, NOT_FOUND);

    // People see it, then and later.
    shown(&fleet, "edge1", ": a1:.mirror-trash/debian-");
    shown(&fleet, "edge2", "debian: stays at a1:debian: the agent's own file does not allow it");
    let audit = fleet.mirrorctl(&["audit", "--action", "DeleteProject", "-o", "json"]).ok().stdout;
    assert!(audit.contains("agents/edge1.tree") && audit.contains("to the trash"), "{audit}");
    eventually_within(SOON, "the audit log tells what became of both", || {
        let audit = fleet.mirrorctl(&["audit", "--action", "TreeToTrash", "-o", "json"]).ok().stdout;
        (audit.contains("is in the trash: a1:.mirror-trash/debian-")
            && audit.contains("stays: the agent's own"))
        .then_some(())
    });

    // Its place is free, and the way back is a rename by hand.
    fs::rename(&trashed[0], fleet.root(0).join("debian")).expect("it is taken back");
    fs::remove_file(fleet.upstream_tree().join("big")).expect("the upstream can be written");
    let uri = fleet.upstream.uri();
    fleet
        .mirrorctl(&["project", "add", "again", "--from", &uri, "--to", "a1:debian", "--origin", "edge1"])
        .ok();
    fleet.mirrorctl(&["project", "run", "again", "--watch"]).ok();
    // All of it; what the cancelled pull left half done is rsync's to keep.
    let theirs = tree::files(&fleet.upstream_tree()).expect("the upstream");
    let ours = tree::files(&fleet.root(0).join("debian")).expect("the tree");
    assert!(theirs.iter().all(|(name, content)| ours.get(name) == Some(content)));
    assert!(ours.len() <= theirs.len() + 1, "and no more than that: {:?}", ours.keys());
}

/// A10, with an agent that is away: it does it when it is back, over restarts of both, and a new declaration at the place
/// goes before it.
#[test]
fn an_agent_that_is_away_moves_the_tree_when_it_is_back_unless_somebody_else_has_the_place() {
    let mut fleet = fleet();
    synced(&fleet, "debian");
    synced(&fleet, "fedora");
    fleet.kill_agent(1);
    let away = || fleet.mirrorctl(&["agent", "show", "edge2", "-o", "json"]).ok().stdout;
    eventually_within(SOON, "edge2 is known to be away", || {
        (!away().contains("\"connected\": true")).then_some(())
    });
    for project in ["debian", "fedora"] {
        let deleted =
            fleet.mirrorctl(&["project", "delete", project, "--tree-to-trash", "--yes"]).ok().stdout;
        assert!(deleted.contains("edge1: in the trash until "), "{deleted}");
        let waits = format!("edge2: waits at a1:{project} until the agent is back");
        assert!(deleted.contains(&waits), "{deleted}");
    }
    let uri = fleet.upstream.uri();
    fleet
        .mirrorctl(&["project", "add", "again", "--from", &uri, "--to", "a1:fedora", "--origin", "edge2"])
        .ok();
    shown(&fleet, "edge2", "fedora: stays at a1:fedora: project \"again\" has this place now");
    fleet.kill_coordinator();
    fleet.start_coordinator().expect("it starts again");
    fleet.start_agent(1).expect("it starts again");
    fleet.await_connected("edge2");
    shown(&fleet, "edge2", "debian: in the trash until ");
    assert!(!fleet.root(1).join("debian").exists());
    assert_eq!(trash(&fleet, 1).len(), 1);
    let upstream = tree::hash(&fleet.upstream_tree()).expect("the upstream");
    assert_eq!(tree::hash(&fleet.root(1).join("fedora")).ok(), Some(upstream));
    assert_eq!(trash(&fleet, 0).len(), 2);
}
