//! The agents' daily work: the list, labels and caps, agents that are declared before their hosts come, tokens that are good
//! from some networks only, removal, and housekeeping.

use fleet_tests::{Finished, Fleet, FleetOptions, eventually, tree};
use serde_json::Value;

const BAD_INPUT: i32 = 2;
const NOT_FOUND: i32 = 3;
const NOT_ALLOWED: i32 = 4;
const CONFLICT: i32 = 5;

fn fleet_of(agents: &[&str]) -> FleetOptions {
    FleetOptions { agents: agents.iter().map(|name| (*name).to_owned()).collect(), ..FleetOptions::default() }
}

fn agent<'a>(list: &'a Value, name: &str) -> &'a Value {
    let agents = list["agents"].as_array().expect("a list of agents");
    agents.iter().find(|agent| agent["name"] == format!("agents/{name}")).expect("it is listed")
}

fn names(list: &Value) -> Vec<String> {
    let agents = list["agents"].as_array().cloned().unwrap_or_default();
    agents
        .iter()
        .filter_map(|agent| Some(agent["name"].as_str()?.trim_start_matches("agents/").to_owned()))
        .collect()
}

fn refused(done: &Finished, code: i32, with: &str) {
    assert_eq!(done.code, code, "{}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains(with), "{}", done.stderr);
}

/// Row A2: name, labels, version, rsync version, connected, last seen, running, free disk and certificate expiry; all of it
/// also of an agent that is away, whichever coordinator saw it last.
#[test]
fn a2_the_list_says_all_of_every_agent_the_ones_that_are_away_included() {
    let mut fleet = Fleet::start(fleet_of(&["ftp1", "edge1"])).expect("a fleet starts");
    let here = fleet.json(&["agent", "list"]);
    assert_eq!(names(&here), ["edge1", "ftp1"]);
    let facts = |agent: &Value| {
        let root = &agent["roots"][0];
        let parts =
            [&agent["version"], &agent["rsync_version"], &root["name"], &root["path"], &root["total_bytes"]];
        parts.map(Value::clone)
    };
    let edge1 = agent(&here, "edge1");
    assert_eq!((&edge1["connected"], &edge1["labels"]["role"]), (&true.into(), &"edge".into()), "{edge1}");
    assert!(facts(edge1).iter().all(|fact| !fact.is_null() && *fact != "" && *fact != 0), "{edge1}");
    assert!(edge1["certificate_expire_time"].is_string() && edge1["seen_time"].is_string(), "{edge1}");
    assert!(edge1["roots"][0]["free_bytes"].as_u64().is_some_and(|free| free > 0), "{edge1}");
    assert_eq!((edge1["running"].as_u64().unwrap_or(0), &edge1["max_running_in_force"]), (0, &8.into()));

    fleet.kill_agent(1);
    let gone = |fleet: &Fleet| {
        let shown = fleet.json(&["agent", "show", "edge1"]);
        (shown["connected"] != true).then_some(shown)
    };
    let away = eventually("edge1 is away", || gone(&fleet));
    assert_eq!(facts(&away), facts(edge1));
    fleet.kill_coordinator();
    fleet.start_coordinator().expect("it starts again");
    assert_eq!(facts(&gone(&fleet).expect("it is still away")), facts(edge1));

    fleet.await_connected("ftp1");
    fleet.mirrorctl(&["agent", "set", "edge1", "--label", "site=north"]).ok();
    assert_eq!(names(&fleet.json(&["agent", "list", "-l", "site=north"])), ["edge1"]);
    let wide = fleet.mirrorctl(&["agent", "list", "-o", "wide", "-l", "site=north"]).ok().stdout;
    let row = wide.lines().find(|line| line.starts_with("edge1 ")).expect("a row");
    assert!(row.contains("no ") && row.contains("a1 ") && row.contains("role=edge,site=north"), "{wide}");
}

/// Row A2: labels that people set are followed at once, the tree included; caps hold beside the agent's own file.
#[test]
fn a2_labels_and_caps_are_set_and_followed_at_once() {
    let options = FleetOptions { agent_config: "slots = 3".to_owned(), ..fleet_of(&["ftp1"]) };
    let fleet = Fleet::start(options).expect("a fleet starts");
    let set = fleet.mirrorctl(&["agent", "set", "ftp1", "--label", "tier=1", "--max-running", "5"]).ok();
    assert!(set.stdout.contains("5 at once (its own file: 3)"), "{}", set.stdout);
    let shown = fleet.json(&["agent", "show", "ftp1"]);
    assert_eq!((&shown["max_running"], &shown["max_running_in_force"]), (&5.into(), &3.into()), "{shown}");

    let replicas = ["--replicas", "role=spare"];
    let uri = fleet.upstream.uri();
    let add = ["project", "add", "debian", "--from", &uri, "--to", "a1:debian", "--origin", "ftp1"];
    fleet.mirrorctl(&[&add[..], &replicas].concat()).ok();
    fleet.mirrorctl(&["agent", "create", "edge9", "--max-serving", "2"]).ok();
    let placed = || {
        let status = fleet.json(&["project", "show", "debian"]);
        let placements = status["status"]["placements"].as_array().cloned().unwrap_or_default();
        placements.iter().filter_map(|one| Some(one["agent"].as_str()?.to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(placed(), ["agents/ftp1"]);
    fleet.mirrorctl(&["agent", "set", "edge9", "--label", "role=spare"]).ok();
    eventually("edge9 holds the tree by its label", || {
        placed().contains(&"agents/edge9".to_owned()).then_some(())
    });
    fleet.mirrorctl(&["agent", "set", "edge9", "--label", "role-"]).ok();
    eventually("edge9 does so no more", || (placed() == ["agents/ftp1"]).then_some(()));

    // All faults at once, by the flags as they were typed, and nothing changed.
    let bad = fleet.mirrorctl(&["agent", "set", "ftp1", "--max-running", "65", "--max-serving", "2000"]);
    refused(&bad, BAD_INPUT, "--max-running");
    refused(&bad, BAD_INPUT, "--max-serving");
    assert_eq!(fleet.json(&["agent", "show", "ftp1"])["etag"], shown["etag"]);
    refused(&fleet.mirrorctl(&["agent", "set", "edge8", "--max-running", "1"]), NOT_FOUND, "edge8");
}

/// Row A1: a project names an agent before there is one; it waits, says for what, and runs when the host has joined by the
/// token of its name, from the network that the token is good for.
#[test]
fn a1_a_declared_agent_is_waited_for_and_joins_by_the_token_of_its_name_from_its_network() {
    let mut fleet = Fleet::prepare(fleet_of(&["edge9"])).expect("a fleet is made");
    fleet.start_coordinator().expect("it starts");
    fleet.mirrorctl(&["agent", "create", "edge9", "--label", "site=north", "--max-running", "2"]).ok();
    refused(&fleet.mirrorctl(&["agent", "create", "EDGE9"]), CONFLICT, "exists");
    fleet.add_project("debian", &[]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    let why = fleet.mirrorctl(&["why", "debian"]).ok().stdout.replace("\n  ", " ");
    assert!(why.contains("waits for its origin edge9, which is declared and has not joined yet"), "{why}");
    assert!(why.contains("Next: mirrorctl join-token create --name edge9"), "{why}");
    let list = fleet.mirrorctl(&["agent", "list"]).ok().stdout;
    assert!(list.lines().any(|line| line.starts_with("edge9  not joined")), "{list}");

    let token = |args: &[&str]| {
        let made = fleet.json(&[&["join-token", "create"], args].concat());
        (
            made["token"].as_str().expect("a token").to_owned(),
            made["name"].as_str().expect("a name").to_owned(),
        )
    };
    std::fs::create_dir_all(fleet.root(0)).expect("a root");
    let enroll = |token: &str| Finished::run(&mut fleet.enroll_command(0, token));
    // Not every address is good; why, the host is not told.
    let (elsewhere, id) = token(&["--name", "edge9", "--cidr", "192.0.2.0/24", "--cidr", "2001:db8::/32"]);
    refused(&enroll(&elsewhere), NOT_ALLOWED, "not good for this name or from this address");
    let listed = fleet.mirrorctl(&["join-token", "list"]).ok().stdout;
    assert!(listed.contains("192.0.2.0/24,2001:db8::/32"), "{listed}");
    let id = id.trim_start_matches("joinTokens/").to_owned();
    eventually("the refused use is in the audit log", || {
        let text = fleet.mirrorctl(&["audit", "--refused", "--agent", "edge9", "-o", "json"]).ok().stdout;
        text.contains(&format!("join token {id} is not good from 127.")).then_some(())
    });
    // A pattern is not enough for a name that people have declared.
    let (any, _) = token(&["--pattern", "edge*"]);
    refused(&enroll(&any), NOT_ALLOWED, "the join token is unknown");
    refused(
        &fleet.mirrorctl(&["join-token", "create", "--name", "x", "--cidr", "192.0.2.1/24"]),
        BAD_INPUT,
        "--cidr",
    );

    let (here, _) = token(&["--name", "edge9", "--cidr", "127.0.0.0/8"]);
    enroll(&here).ok();
    fleet.start_agent(0).expect("it starts");
    fleet.await_connected("edge9");
    fleet.await_run("debian", "SUCCEEDED");
    assert_eq!(
        tree::hash(&fleet.root(0).join("debian")).expect("a copy"),
        tree::hash(&fleet.upstream_tree()).expect("a tree")
    );
    let shown = fleet.json(&["agent", "show", "edge9"]);
    let (labels, cap) = (&shown["labels"], &shown["max_running_in_force"]);
    assert_eq!(
        (&labels["site"], &labels["role"], cap),
        (&"north".into(), &"edge".into(), &2.into()),
        "{shown}"
    );
    assert_ne!(shown["declared_only"], true);
}

/// Row A3: who is revoked is cut at once and for ever; a record goes when it is revoked or its host never came, and no
/// project names it; unknown is NOT_FOUND everywhere; and what waits for a drained agent says so.
#[test]
fn a3_agents_are_drained_revoked_and_deleted() {
    let fleet = Fleet::start(fleet_of(&["edge1"])).expect("a fleet starts");
    for verb in ["drain", "undrain", "revoke", "delete", "show", "set"] {
        let flags: &[&str] = if verb == "set" { &["--label", "a=b"] } else { &[] };
        let done = fleet.mirrorctl(&[&["agent", verb, "edge8", "--yes"], flags].concat());
        refused(&done, NOT_FOUND, "no agent \"edge8\"");
    }
    fleet.add_project("debian", &[]).ok();
    fleet.mirrorctl(&["agent", "drain", "edge1"]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    let why = fleet.mirrorctl(&["why", "debian"]).ok().stdout.replace("\n  ", " ");
    assert!(why.contains("it is drained. Next: mirrorctl agent undrain edge1"), "{why}");
    fleet.mirrorctl(&["agent", "undrain", "edge1"]).ok();
    fleet.await_run("debian", "SUCCEEDED");

    refused(
        &fleet.mirrorctl(&["agent", "delete", "edge1", "--yes"]),
        CONFLICT,
        "mirrorctl agent revoke edge1",
    );
    fleet.mirrorctl(&["agent", "revoke", "edge1", "--reason", "sold", "--yes"]).ok();
    let shown = fleet.json(&["agent", "show", "edge1"]);
    assert!(shown["revoked"] == true && shown["connected"] != true, "its session is cut at once: {shown}");
    refused(&fleet.mirrorctl(&["agent", "delete", "edge1", "--yes"]), CONFLICT, "debian");
    fleet.mirrorctl(&["project", "delete", "debian", "--yes"]).ok();
    fleet.mirrorctl(&["agent", "delete", "edge1", "--yes"]).ok();
    refused(&fleet.mirrorctl(&["agent", "show", "edge1"]), NOT_FOUND, "edge1");

    fleet.mirrorctl(&["agent", "create", "edge7"]).ok();
    fleet.mirrorctl(&["agent", "delete", "edge7", "--yes"]).ok();
    assert_eq!(names(&fleet.json(&["agent", "list"])), Vec::<String>::new());
}

/// What the coordinator does by the clock is seen, and done once more on request.
#[test]
fn housekeeping_is_listed_and_run_now() {
    let mut fleet = Fleet::prepare(fleet_of(&[])).expect("a fleet is made");
    fleet.start_coordinator().expect("it starts");
    let list = fleet.json(&["housekeeping", "list"]);
    let jobs = list["housekeeping_jobs"].as_array().cloned().unwrap_or_default();
    let all: Vec<&str> = jobs.iter().filter_map(|job| job["name"].as_str()).collect();
    let wanted = ["watchdog", "sweep", "backup", "prune", "certificate"];
    assert_eq!(all, wanted.map(|name| format!("housekeepingJobs/{name}")));
    assert!(jobs.iter().all(|job| job["next_time"].is_string() && job["schedule"].is_string()), "{list}");

    let done = fleet.mirrorctl(&["housekeeping", "run", "backup"]).ok();
    assert!(done.stdout.starts_with("backup is done in "), "{}", done.stdout);
    let backups = fleet.coordinator_dir().join("backups");
    assert_eq!(std::fs::read_dir(&backups).map_or(0, Iterator::count), 1, "a backup is there");
    let list = fleet.json(&["housekeeping", "list"]);
    let backup = &list["housekeeping_jobs"][2];
    assert!(backup["last_start_time"].is_string() && backup["last_duration"].is_number(), "{backup}");
    assert!(backup["last_outcome"].as_str().is_some_and(|text| text.contains("entries")), "{backup}");
    let audit = fleet.mirrorctl(&["audit"]).ok().stdout;
    assert!(audit.contains("housekeeping job backup was begun"), "{audit}");
    refused(&fleet.mirrorctl(&["housekeeping", "run", "fly"]), NOT_FOUND, "fly");

    // A job that fails says so, here by its exit code.
    std::fs::remove_dir_all(&backups).expect("the folder goes");
    std::fs::write(&backups, "in the way").expect("a file is in its place");
    let failed = fleet.mirrorctl(&["housekeeping", "run", "backup"]);
    assert_eq!(failed.code, 1, "{}{}", failed.stdout, failed.stderr);
    assert!(failed.stdout.starts_with("backup failed"), "{}", failed.stdout);
}
