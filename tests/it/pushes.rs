//! Pushes through the real programs, as release scripts and webhooks make them: over HTTPS with `curl`, by a token that
//! does nothing else. Issue 5, part 4; of document 1 rows A15 (an explicit sync, by a program) and A22 (who has a token of
//! one tree acts on that tree alone); C2.3: no push is lost, and none runs twice.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use fleet_tests::{Finished, Fleet, FleetOptions, eventually, tree};
use serde_json::Value;

/// The HTTPS port of each coordinator here, on its fleet's own address.
pub(crate) const HTTPS_PORT: u16 = 7481;

/// Switches the HTTPS port on, before the coordinator starts.
pub(crate) fn listen(fleet: &Fleet) {
    let file = fleet.coordinator_dir().join("coordinator.toml");
    let text = fs::read_to_string(&file).expect("a configuration");
    let line = format!("https_listen = \"{}:{HTTPS_PORT}\"\n", fleet.address());
    fs::write(file, line + &text).expect("a configuration");
}

/// A fleet with the HTTPS port.
fn fleet(options: FleetOptions) -> Fleet {
    let mut fleet = Fleet::prepare(options).expect("a fleet");
    listen(&fleet);
    fleet.start_coordinator().expect("the coordinator starts");
    fleet.enroll(0).expect("the agent enrols");
    fleet.start_agent(0).expect("the agent starts");
    fleet.await_connected("edge1");
    fleet
}

/// Keeps a token as a release script does: in a file, as the header that `curl` sends. No argument list shows it.
pub(crate) fn header_file(fleet: &Fleet, name: &str, header: &str) -> PathBuf {
    let dir = fleet.path().join("given");
    fs::create_dir_all(&dir).expect("a directory");
    let file = dir.join(name);
    fs::write(&file, header).expect("a file");
    file
}

/// An answer: its code, and what it says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: String,
    pub(crate) body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// `curl` for `/v1/projects/NAME/push`.
pub(crate) fn curl(fleet: &Fleet, project: &str, header: &Path, more: &[&str]) -> Answer {
    let mut command = Command::new("curl");
    command.args(["-sS", "-m", "60", "-X", "POST", "-w", "\n%{http_code}", "--cacert"]);
    command.arg(fleet.coordinator_dir().join("ca.pem")).arg("-H").arg(format!("@{}", header.display()));
    command.args(more).arg(format!("https://{}:{HTTPS_PORT}/v1/projects/{project}/push", fleet.address()));
    let said = Finished::run(&mut command).ok().stdout;
    let (body, code) = said.rsplit_once('\n').expect("a code behind what is said");
    Answer { code: code.to_owned(), body: body.to_owned() }
}

/// A token of this project, in a file for `curl`.
fn token(fleet: &Fleet, project: &str) -> PathBuf {
    let made = fleet.mirrorctl(&["push-token", "create", project, "--note", "release script"]).ok();
    assert!(made.stderr.contains("and nothing else, until it is deleted; it is not shown again"), "{made:?}");
    header_file(fleet, &format!("header of {project}"), &format!("Authorization: Bearer {}", made.stdout))
}

#[test]
fn a_release_script_pushes_its_tree_over_https_and_no_other() {
    let fleet = fleet(FleetOptions::default());
    fleet.add_project("debian", &[]).ok();
    fleet.add_project("fedora", &[]).ok();
    let header = token(&fleet, "debian");
    let pushed = curl(&fleet, "debian", &header, &[]);
    assert_eq!(pushed.code, "202", "{}", pushed.body);
    let run = fleet.await_run("debian", "SUCCEEDED");
    assert_eq!(run["name"], pushed.json()["run"]);
    let id = fleet.json(&["push-token", "list", "debian"])["push_tokens"][0]["name"].clone();
    assert_eq!((&run["trigger"]["kind"], &run["trigger"]["by"]), (&Value::from("PUSH"), &id), "{run}");
    assert_eq!(
        tree::hash(&fleet.root(0).join("debian")).expect("a tree"),
        tree::hash(&fleet.upstream_tree()).expect("a tree")
    );

    let [foreign, unknown] = ["fedora", "no-such"].map(|other| curl(&fleet, other, &header, &[]));
    assert_eq!((foreign.code.as_str(), &foreign.body), ("403", &unknown.body), "{foreign:?} {unknown:?}");
    assert!(fleet.runs("fedora").is_empty());
    let hook =
        fs::read_to_string(&header).expect("a file").replace("Authorization: Bearer", "X-Gitlab-Token:");
    let hook = header_file(&fleet, "header of a webhook", &hook);
    let body = ["--tls-max", "1.2", "-H", "content-type: application/json", "-d", "{\"ref\": \"main\"}"];
    let hooked = curl(&fleet, "debian", &hook, &body);
    assert!(matches!(hooked.code.as_str(), "200" | "202"), "{hooked:?}");
    let none = header_file(&fleet, "no header", "Accept: application/json");
    assert_eq!(curl(&fleet, "debian", &none, &[]).code, "401");

    let list = fleet.mirrorctl(&["push-token", "list"]).ok().stdout;
    assert!(list.contains("debian") && list.contains("release script"), "{list}");
    let audit = fleet.mirrorctl(&["audit", "-o", "json"]).ok().stdout;
    for action in ["CreatePushToken", "PushProject", "NOT_ITS_PROJECT"] {
        assert!(audit.contains(action), "{action} is not in the audit log: {audit}");
    }
    let id = id.as_str().expect("a name").trim_start_matches("pushTokens/").to_owned();
    fleet.mirrorctl(&["push-token", "delete", &id, "--yes"]).ok();
    let refused = curl(&fleet, "debian", &header, &[]);
    assert_eq!((refused.code.as_str(), &refused.json()["reason"]), ("401", &Value::from("TOKEN_NOT_GOOD")));
}

#[test]
fn pushes_at_once_during_a_run_make_exactly_one_more() {
    let fleet = fleet(FleetOptions { files: 400, file_bytes: 16_384, ..FleetOptions::default() });
    fleet.add_project("debian", &["--rsync-option=--bwlimit=2000"]).ok();
    let header = token(&fleet, "debian");
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    let first = fleet.await_run("debian", "RUNNING");
    let answers: Vec<Answer> = thread::scope(|scope| {
        let push = || scope.spawn(|| curl(&fleet, "debian", &header, &[]));
        let all = [push(), push(), push()];
        all.into_iter().map(|one| one.join().expect("an answer")).collect()
    });
    fleet.mirrorctl(&["project", "push", "debian"]).ok();
    let runs: Vec<Value> = answers.iter().map(|answer| answer.json()["run"].clone()).collect();
    assert!(runs.iter().all(|run| *run == runs[0] && *run != first["name"]), "{answers:?}");
    assert!(answers.iter().all(|answer| answer.code == "200"), "{answers:?}");
    eventually("both runs end", || {
        fleet.runs("debian").iter().all(|run| run["state"] == "SUCCEEDED").then_some(())
    });
    let all = fleet.runs("debian");
    assert_eq!((all.len(), &all[0]["name"]), (2, &runs[0]), "{all:?}");
    assert_eq!(all[0]["coalesced_triggers"], 3, "{all:?}");
}

#[test]
fn an_acknowledged_push_survives_kill_9_and_waits_for_the_end_of_a_pause() {
    let mut fleet = fleet(FleetOptions::default());
    fleet.add_project("debian", &[]).ok();
    let header = token(&fleet, "debian");
    fleet.mirrorctl(&["project", "pause", "debian", "--reason", "array swap"]).ok();
    let pushed = curl(&fleet, "debian", &header, &[]);
    fleet.kill_coordinator();
    assert_eq!(pushed.code, "202", "{}", pushed.body);
    let note = pushed.json()["notes"][0].clone();
    assert!(note.as_str().expect("a note").ends_with("the run waits for the resume"), "{note}");
    fleet.start_coordinator().expect("it starts again");
    fleet.await_connected("edge1");
    let waiting = fleet.newest_run("debian");
    let waiting = waiting.get("run").cloned().unwrap_or(waiting);
    assert_eq!((&waiting["name"], &waiting["state"]), (&pushed.json()["run"], &Value::from("QUEUED")));
    let again = curl(&fleet, "debian", &header, &[]);
    assert_eq!((again.code.as_str(), &again.json()["run"]), ("200", &waiting["name"]), "{again:?}");
    fleet.mirrorctl(&["project", "resume", "debian"]).ok();
    let run = fleet.await_run("debian", "SUCCEEDED");
    assert_eq!(run["name"], waiting["name"]);
    assert_eq!(fleet.runs("debian").len(), 1);
}
