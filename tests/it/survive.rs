//! It survives: programs killed at every phase, upstreams that hang or lie, full disks, and 50 rounds of a
//! coordinator killed under writers.

use std::{
    fs,
    time::{Duration, Instant},
};

use fleet_tests::{
    Fleet, FleetOptions, eventually, eventually_within,
    process::{is_living, living_with, send_signal},
    tree,
};
use rustix::process::Signal;

/// A fleet whose runs take some seconds: 6 MiB at 1.5 MiB/s.
fn slow_fleet() -> Fleet {
    Fleet::start(FleetOptions { files: 400, file_bytes: 16_384, ..FleetOptions::default() })
        .expect("a fleet starts")
}

const SLOW: &str = "--rsync-option=--bwlimit=1500";

/// The rsync processes of this fleet that write to its agents' roots.
fn receivers(fleet: &Fleet) -> Vec<u32> {
    let own = fleet.path().display().to_string();
    let ours = living_with(&own);
    ours.into_iter().filter(|pid| program_of(*pid).ends_with("/rsync") && !is_daemon(*pid)).collect()
}

fn program_of(pid: u32) -> String {
    fs::read_link(format!("/proc/{pid}/exe")).map(|path| path.display().to_string()).unwrap_or_default()
}

fn is_daemon(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains("--daemon")
}

/// The supervisors of this fleet's agents.
fn supervisors(fleet: &Fleet) -> Vec<u32> {
    let own = fleet.path().display().to_string();
    let ours = living_with(&own).into_iter();
    ours.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(" supervise ")
    })
    .collect()
}

fn started(fleet: &Fleet) {
    fleet.add_project("debian", &[SLOW]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    fleet.await_run("debian", "RUNNING");
    eventually("rsync runs", || (!receivers(fleet).is_empty()).then_some(()));
}

fn assert_one_good_run(fleet: &Fleet) {
    let run = fleet.await_run("debian", "SUCCEEDED");
    assert_eq!(run["attempt_count"], 1, "one try did it: {run}");
    assert_eq!(fleet.runs("debian").len(), 1);
    let upstream = tree::hash(&fleet.upstream_tree()).expect("a tree");
    assert_eq!(tree::hash(&fleet.root(0).join("debian")).expect("a tree"), upstream);
    eventually("no program of the run is left", || {
        (receivers(fleet).is_empty() && supervisors(fleet).is_empty()).then_some(())
    });
}

#[test]
fn a_killed_coordinator_costs_a_running_sync_nothing() {
    let mut fleet = slow_fleet();
    started(&fleet);
    let rsync = receivers(&fleet);
    fleet.kill_coordinator();
    assert!(rsync.iter().any(|pid| is_living(*pid)), "rsync goes on without the coordinator");
    fleet.start_coordinator().expect("it starts again");
    assert_one_good_run(&fleet);
}

#[test]
fn a_sync_that_ends_while_the_coordinator_is_down_is_reported_once() {
    let mut fleet = slow_fleet();
    started(&fleet);
    fleet.kill_coordinator();
    eventually("rsync ends without a coordinator", || receivers(&fleet).is_empty().then_some(()));
    fleet.start_coordinator().expect("it starts again");
    assert_one_good_run(&fleet);
}

#[test]
fn a_killed_agent_adopts_its_running_sync() {
    let mut fleet = slow_fleet();
    started(&fleet);
    let rsync = receivers(&fleet);
    fleet.kill_agent(0);
    assert!(rsync.iter().any(|pid| is_living(*pid)), "rsync goes on without the agent");
    fleet.start_agent(0).expect("it starts again");
    assert_one_good_run(&fleet);
}

#[test]
fn a_sync_that_ends_while_the_agent_is_dead_is_reported_by_the_next_one() {
    let mut fleet = slow_fleet();
    started(&fleet);
    fleet.kill_agent(0);
    eventually("rsync and its supervisor end", || {
        (receivers(&fleet).is_empty() && supervisors(&fleet).is_empty()).then_some(())
    });
    fleet.start_agent(0).expect("it starts again");
    assert_one_good_run(&fleet);
}

#[test]
fn a_killed_rsync_is_a_failed_try_with_its_signal() {
    let fleet = slow_fleet();
    fleet.add_project("debian", &[SLOW, "--retry-attempts", "1"]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    let victims = eventually("rsync runs", || Some(receivers(&fleet)).filter(|pids| !pids.is_empty()));
    for pid in victims {
        send_signal(pid, Signal::KILL);
    }
    let run = fleet.await_run("debian", "FAILED");
    let class = &run["origin_attempt"]["outcome"]["class"];
    assert!(class == "INTERNAL" || class == "NETWORK", "{run}");
    eventually("no program of the run is left", || receivers(&fleet).is_empty().then_some(()));
}

#[test]
fn a_killed_supervisor_leaves_no_orphan_and_the_run_says_so() {
    let fleet = slow_fleet();
    fleet.add_project("debian", &[SLOW, "--retry-attempts", "1"]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    eventually("rsync runs", || (!receivers(&fleet).is_empty()).then_some(()));
    for pid in supervisors(&fleet) {
        send_signal(pid, Signal::KILL);
    }
    let run = fleet.await_run("debian", "FAILED");
    assert_eq!(run["origin_attempt"]["outcome"]["class"], "INTERRUPTED", "{run}");
    eventually("no orphan is left", || receivers(&fleet).is_empty().then_some(()));
}

#[test]
fn a_stopped_upstream_is_stalled_within_its_limit() {
    let limit = Duration::from_secs(10);
    let fleet = slow_fleet();
    fleet.add_project("debian", &[SLOW, "--stall-timeout", "10s", "--retry-attempts", "1"]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    let serving =
        eventually("the upstream serves", || Some(fleet.upstream.children()).filter(|pids| !pids.is_empty()));
    for pid in &serving {
        send_signal(*pid, Signal::STOP);
    }
    let stopped = Instant::now();
    let run = eventually_within(limit + Duration::from_secs(40), "the run fails", || {
        let run = fleet.newest_run("debian");
        (run["state"] == "FAILED").then_some(run)
    });
    let took = stopped.elapsed();
    for pid in serving {
        send_signal(pid, Signal::CONT);
        send_signal(pid, Signal::KILL);
    }
    assert_eq!(run["origin_attempt"]["outcome"]["class"], "STALLED", "{run}");
    assert!(took < limit + Duration::from_secs(15), "noticed after {took:?}");
    assert!(receivers(&fleet).is_empty(), "its rsync is gone");
}

#[test]
fn cancelling_a_run_ends_its_rsync() {
    let fleet = slow_fleet();
    started(&fleet);
    fleet.mirrorctl(&["run", "cancel", "debian", "--yes"]).ok();
    fleet.await_run("debian", "CANCELLED");
    eventually("no program of the run is left", || {
        (receivers(&fleet).is_empty() && supervisors(&fleet).is_empty()).then_some(())
    });
    let again = fleet.mirrorctl(&["run", "cancel", "debian", "--yes"]);
    assert_eq!(again.code, 5, "a run that has ended cannot be cancelled: {}", again.stderr);
}

#[test]
fn no_acknowledged_write_is_lost_by_a_killed_coordinator() {
    const ROUNDS: usize = 50;
    const WRITERS: usize = 8;
    // `make chaos` wants more.
    let rounds = std::env::var("KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let mut fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    let mut acknowledged = Vec::new();
    for round in 0..rounds {
        let victim = fleet.coordinator.as_ref().expect("it runs").pid();
        let names = std::thread::scope(|scope| {
            let fleet = &fleet;
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    scope.spawn(move || {
                        let mut done = Vec::new();
                        for count in 0..1_000 {
                            let name = format!("p-{round}-{writer}-{count}");
                            if fleet.add_project(&name, &["--paused", "-q"]).code != 0 {
                                return done;
                            }
                            done.push(name);
                        }
                        done
                    })
                })
                .collect();
            // The first acknowledgements must be there before the end comes, at another moment each round.
            std::thread::sleep(Duration::from_millis(100 + 37 * u64::try_from(round % 11).unwrap_or(0)));
            send_signal(victim, Signal::KILL);
            writers.into_iter().flat_map(|writer| writer.join().expect("a writer ends")).collect::<Vec<_>>()
        });
        acknowledged.extend(names);
        fleet.kill_coordinator();
        fleet.start_coordinator().expect("it starts again");
    }
    let list = fleet.json(&["project", "list"]);
    let projects = list["projects"].as_array().expect("a list");
    let present: std::collections::BTreeSet<&str> = projects
        .iter()
        .filter_map(|project| project["name"].as_str())
        .map(|name| &name["projects/".len()..])
        .collect();
    assert!(acknowledged.len() >= rounds, "only {} writes were acknowledged", acknowledged.len());
    for name in &acknowledged {
        assert!(present.contains(name.as_str()), "{name} was acknowledged and is lost");
    }
    // The change and its event are one commit: neither is there without the other.
    let events = crate::audit::log(&fleet, &["--action", "CreateProject", "--since", "1d"]);
    let done = events.iter().filter(|event| event["outcome"] == "DONE");
    let mut recorded: Vec<&str> =
        done.filter_map(|event| event["resource"].as_str()?.strip_prefix("projects/")).collect();
    recorded.sort_unstable();
    let present: Vec<&str> = present.into_iter().collect();
    assert_eq!(recorded, present, "one event for each project that is there");
    println!("{} writes acknowledged over {rounds} kills", acknowledged.len());
}
