//! A fleet that nobody looks after, by the calendar: every program of it lives on days ahead, by libfaketime.

use std::{fs, path::PathBuf, process::Command};

use chrono::{DateTime, Utc};
use fleet_tests::{Fleet, FleetOptions, eventually, tree};
use tempfile::TempDir;

/// What the clock of every program of a fleet shows, in days from now. A program reads it at its start.
pub(crate) struct Calendar {
    file: PathBuf,
    _dir: TempDir,
}

impl Calendar {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("calendar-").tempdir().expect("a directory");
        let calendar = Self { file: dir.path().join("now"), _dir: dir };
        calendar.set(0);
        calendar
    }

    pub(crate) fn set(&self, days: i64) {
        fs::write(&self.file, format!("{days:+}d\n")).expect("a file");
    }

    /// Only the wall clock is moved: a step of the monotonic one is nothing that happens.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let library = Command::new("faketime").args(["-f", "+0d", "printenv", "LD_PRELOAD"]).output();
        let library = library.expect("faketime is installed (make tools)").stdout;
        let library = String::from_utf8(library).expect("a path").trim().to_owned();
        [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", &self.file.display().to_string()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
    }
}

fn fleet(calendar: &Calendar) -> Fleet {
    let environment = calendar.environment();
    let fleet = Fleet::start(FleetOptions { files: 20, environment, ..FleetOptions::default() });
    let fleet = fleet.expect("a fleet starts");
    fleet.add_project("debian", &[]).ok();
    assert_synced(&fleet);
    fleet
}

/// Everything is off, and comes back so many days from now.
fn come_back(fleet: &mut Fleet, calendar: &Calendar, days: i64) {
    fleet.kill_agent(0);
    fleet.kill_coordinator();
    calendar.set(days);
    fleet.start_coordinator().expect("the coordinator starts");
    fleet.start_agent(0).expect("the agent starts");
}

fn assert_synced(fleet: &Fleet) {
    let news = fleet.upstream_tree().join(format!("news-{}", fleet.runs("debian").len()));
    fs::write(news, "something new").expect("a file");
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    fleet.await_run("debian", "SUCCEEDED");
    let upstream = tree::hash(&fleet.upstream_tree()).expect("a tree");
    assert_eq!(tree::hash(&fleet.root(0).join("debian")).expect("a tree"), upstream);
}

/// Waits until the agent is connected with a certificate that ends so many days from now.
fn await_certificate(fleet: &Fleet, days: i64) {
    let wanted = (Utc::now() + chrono::TimeDelta::days(days)).date_naive();
    eventually(&format!("edge1 has a certificate until {wanted}"), || {
        let agent = fleet.json(&["agent", "show", "edge1"]);
        let until = agent["certificate_expire_time"].as_str()?.parse::<DateTime<Utc>>().ok()?;
        // Midnight may pass while the test runs.
        let apart = (until.date_naive() - wanted).num_days().abs();
        (agent["connected"] == true && apart <= 1).then_some(())
    });
}

fn agent_said(fleet: &Fleet) -> String {
    fleet.agents[0].as_ref().map(fleet_tests::Process::output).unwrap_or_default()
}

#[test]
fn a_fleet_left_alone_renews_its_certificates_and_heals_after_sixty_days_off() {
    let calendar = Calendar::new();
    let mut fleet = fleet(&calendar);
    await_certificate(&fleet, 30);
    assert!(!agent_said(&fleet).contains("renewed"), "nothing is due yet");

    come_back(&mut fleet, &calendar, 11);
    await_certificate(&fleet, 11 + 30);
    assert_synced(&fleet);

    // The certificate of day 11 ended on day 41, and the server's was due on day 30.
    come_back(&mut fleet, &calendar, 71);
    await_certificate(&fleet, 71 + 30);
    assert_synced(&fleet);
    let list = fleet.mirrorctl(&["agent", "list"]).ok();
    let row = list.stdout.lines().find(|line| line.contains("edge1")).expect("its row").to_owned();
    assert!(row.contains("30d") || row.contains("29d"), "{}", list.stdout);
    let said = agent_said(&fleet);
    assert_eq!(said.matches("the certificate is renewed").count(), 2, "{said}");
    assert!(!said.contains("ALARM") && !said.contains("took over"), "{said}");
    let coordinator = fleet.coordinator.as_ref().map(fleet_tests::Process::output).unwrap_or_default();
    assert_eq!(coordinator.matches("certificate renewed").count(), 2, "{coordinator}");
    assert!(!coordinator.contains("a second program of this agent"), "{coordinator}");
}

#[test]
fn after_thirty_one_days_off_an_expired_certificate_is_renewed_and_syncs_go_on() {
    let calendar = Calendar::new();
    let mut fleet = fleet(&calendar);
    come_back(&mut fleet, &calendar, 31);
    await_certificate(&fleet, 31 + 30);
    assert_synced(&fleet);
    assert_eq!(agent_said(&fleet).matches("the certificate is renewed").count(), 1);
}

/// The agent is started anew on a host whose clock is so many days off.
fn start_agent_off(fleet: &mut Fleet, days: i64) -> Calendar {
    fleet.kill_agent(0);
    let theirs = Calendar::new();
    theirs.set(days);
    let mut command = fleet.agent_command(0, &["run", "--config"]);
    command.arg(fleet.agent_dir(0).join("agent.toml")).envs(theirs.environment());
    let log = fleet.path().join("agent-off.log");
    fleet.agents[0] =
        Some(fleet_tests::Process::start("agent edge1", &mut command, &log).expect("it starts"));
    theirs
}

#[test]
fn a_host_whose_clock_is_two_days_wrong_says_so_and_works_as_far_as_it_can() {
    let calendar = Calendar::new();
    let mut fleet = fleet(&calendar);
    let ahead = start_agent_off(&mut fleet, 2);
    eventually("it names the clock", || {
        agent_said(&fleet).contains("this host's clock is 2 days ahead of the coordinator's").then_some(())
    });
    fleet.await_connected("edge1");
    assert_synced(&fleet);
    drop(ahead);

    // Behind, the coordinator's certificate is one of the future.
    let behind = start_agent_off(&mut fleet, -2);
    eventually("it names the clock", || {
        agent_said(&fleet)
            .contains("this host's clock is behind, or the coordinator's was ahead")
            .then_some(())
    });
    let mut status = fleet.command("mirrorctl", &["status"]);
    let from_there = fleet_tests::Finished::run(status.envs(behind.environment()));
    assert_ne!(from_there.code, 0);
    assert!(from_there.stderr.contains("this host's clock is behind"), "{}", from_there.stderr);
    fleet.kill_agent(0);
    fleet.start_agent(0).expect("the agent starts");
    fleet.await_connected("edge1");
    assert_synced(&fleet);
}

#[test]
fn after_a_hundred_and_fifty_days_off_one_command_on_each_host_is_enough() {
    let calendar = Calendar::new();
    let mut fleet = fleet(&calendar);
    come_back(&mut fleet, &calendar, 150);
    let next = eventually("the agent names the command", || {
        let said = agent_said(&fleet);
        let (_, next) = said.split_once("days ago, and it is renewed no more. Next: ")?;
        Some(next.split_once("   (TOKEN: mirrorctl join-token create --name edge1)")?.0.to_owned())
    });
    assert!(agent_said(&fleet).contains("more than 90 days ago"), "{}", agent_said(&fleet));

    // The first admin's certificate ended on day 90: glass is broken on the coordinator's host.
    assert_ne!(fleet.mirrorctl(&["status"]).code, 0);
    fleet.kill_coordinator();
    let fresh = fleet.path().join("fresh");
    let mut glass = fleet.command("mirror-coordinator", &["user-certificate", "--user", "admin"]);
    glass.arg("--config").arg(fleet.coordinator_dir().join("coordinator.toml")).arg("--out").arg(&fresh);
    fleet_tests::Finished::run(&mut glass).ok();
    fs::remove_dir_all(fleet.admin_dir()).expect("the old context goes");
    fs::rename(fresh, fleet.admin_dir()).expect("the new one takes its place");
    fleet.start_coordinator().expect("the coordinator starts");
    fleet.mirrorctl(&["status"]).ok();

    // The host: the one command that its log names.
    let token = fleet.json(&["join-token", "create", "--name", "edge1"]);
    let next = next.replace("TOKEN", token["token"].as_str().expect("a token"));
    let words: Vec<&str> = next.split(' ').collect();
    assert_eq!(words[0], "mirror-agent", "{next}");
    fleet_tests::Finished::run(&mut fleet.command(words[0], &words[1..])).ok();
    fleet.kill_agent(0);
    fleet.start_agent(0).expect("the agent starts");
    await_certificate(&fleet, 150 + 30);
    assert_synced(&fleet);
}
