//! `make demo`: the main job for real, in one temporary directory. An upstream daemon with a few thousand
//! files, a coordinator, an origin and two replicas that enrol themselves, a project that is run by its schedule and by
//! hand, live progress, and a comparison of the trees. With `--once` it checks all of this and ends.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it is a demo: it starts programs and prints"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use fleet_tests::{Finished, Fleet, FleetOptions, eventually_within, tree};
use tokio::signal::unix::{SignalKind, signal};

/// The origin and its replicas.
const AGENTS: [&str; 3] = ["ftp1", "edge1", "edge2"];
/// Files in the upstream's tree.
const FILES: usize = 4_096;
/// Bytes of each.
const FILE_BYTES: usize = 16 * 1_024;
/// KiB/s of the first run, so that there is progress to see.
const BANDWIDTH_KIB: u64 = 20_000;
/// How long the schedule may take to fire: it fires every 10 s.
const FIRE_DEADLINE: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let once = match args.as_slice() {
        [] => false,
        [flag] if flag == "--once" => true,
        _ => {
            println!("usage: make demo [ARGS=--once]");
            return ExitCode::from(2);
        }
    };
    match demo(once) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("✗ the demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(once: bool) -> Result<()> {
    let started = Instant::now();
    let interrupted = take_interrupts()?;
    let fleet = Fleet::start(FleetOptions {
        agents: AGENTS.map(str::to_owned).to_vec(),
        files: FILES,
        file_bytes: FILE_BYTES,
        ..FleetOptions::default()
    })?;
    println!("✓ a coordinator and three agents that enrolled themselves, over mutual TLS");
    println!("✓ an rsync daemon with {FILES} files as upstream: {}", fleet.upstream.uri());
    let uri = fleet.upstream.uri();
    let limit = BANDWIDTH_KIB.to_string();
    let add = ["project", "add", "demo", "--from", &uri, "--to", "a1:demo", "--origin", AGENTS[0]];
    let mut add = add.to_vec();
    let bandwidth = format!("--rsync-option=--bwlimit={limit}");
    add.extend(["--replicas", "role=edge", "--cron", "second=*/10", &bandwidth]);
    print!("{}", fleet.mirrorctl(&add).ok().stdout);

    let fired = scheduled_run(&fleet)?;
    println!("✓ run fired by the schedule    {fired}");
    fleet.mirrorctl(&["project", "pause", "demo", "--reason", "the demo runs it by hand now"]).ok();
    settle(&fleet);
    let changed = change_upstream(&fleet)?;
    let asked = watched_run(&fleet)?;
    println!("✓ run asked for by RunProject  {changed} files changed; {asked}");
    compare(&fleet)?;
    let lines = lines_to_try(&fleet);
    if once {
        for line in &lines {
            execute(line)?;
        }
        println!("✓ the lines below were run as printed");
    }
    println!("\nTry:");
    for line in &lines {
        println!("  {line}");
    }
    if once {
        println!("\n✓ all of it in {:.1} s", started.elapsed().as_secs_f64());
        return Ok(());
    }
    println!("\nThe demo fleet is up in {}; Ctrl-C ends it and removes everything.", fleet.path().display());
    fleet.mirrorctl(&["project", "resume", "demo"]).ok();
    wait_for_interrupt(fleet, &interrupted)
}

/// The first run is the schedule's; its progress is watched over the API.
fn scheduled_run(fleet: &Fleet) -> Result<String> {
    let run = eventually_within(FIRE_DEADLINE, "the schedule fires", || {
        fleet.runs("demo").into_iter().find(|run| run["trigger"]["kind"] == "SCHEDULE")
    });
    let name = run["name"].as_str().context("a run has a name")?.to_owned();
    let seen = watch(fleet, &["run", "watch", &name])?;
    ensure!(seen.progress > 0, "no progress was seen while the schedule's run was going");
    ensure!(seen.state == "SUCCEEDED", "the schedule's run ended as {}", seen.state);
    Ok(format!("{}, {} progress reports", seen.summary, seen.progress))
}

fn watched_run(fleet: &Fleet) -> Result<String> {
    let seen = watch(fleet, &["project", "run", "demo", "--watch"])?;
    ensure!(seen.state == "SUCCEEDED", "the run asked for ended as {}", seen.state);
    let runs = fleet.runs("demo");
    ensure!(runs.iter().any(|run| run["trigger"]["kind"] == "USER"), "no run says that a user asked for it");
    Ok(seen.summary)
}

#[derive(Default)]
struct Seen {
    progress: usize,
    state: String,
    summary: String,
}

/// Follows a run by `mirrorctl … -o json`, one object a line, and prints how far it is.
fn watch(fleet: &Fleet, args: &[&str]) -> Result<Seen> {
    let mut command = fleet.command("mirrorctl", args);
    let mut child = command.args(["-o", "json"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("its output is a pipe")?;
    let mut seen = Seen::default();
    for line in BufReader::new(stdout).lines() {
        let value: serde_json::Value = serde_json::from_str(&line?).context("a watch prints JSON lines")?;
        let run = value.get("run").unwrap_or(&value);
        let attempt = run.get("origin_attempt").cloned().unwrap_or_default();
        if let Some(state) = run["state"].as_str() {
            seen.state = state.to_owned();
        }
        if let Some(progress) = attempt.get("progress").filter(|progress| progress.is_object()) {
            seen.progress += 1;
            let done = progress["files_done"].as_u64().unwrap_or(0);
            let rate = progress["rate_bytes"].as_u64().unwrap_or(0) / 1_048_576;
            print!("\r  {done} files looked at, {rate} MiB/s      ");
            std::io::stdout().flush()?;
        }
        if let Some(stats) = attempt.pointer("/outcome/stats").filter(|stats| stats.is_object()) {
            let files = stats["transferred"].as_u64().unwrap_or(0);
            let mib = stats["received_bytes"].as_u64().unwrap_or(0) / 1_048_576;
            seen.summary = format!("{files} files, {mib} MiB, origin + {} replicas", replicas_done(&value));
        }
    }
    println!();
    let status = child.wait()?;
    ensure!(status.code() == Some(0), "mirrorctl {} ended with {status}", args.join(" "));
    Ok(seen)
}

/// Replicas that have the run's tree.
fn replicas_done(watched: &serde_json::Value) -> usize {
    let attempts = watched["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    attempts.iter().filter(|one| one["role"] == "REPLICA" && one["state"] == "SUCCEEDED").count()
}

/// Waits until nothing of the project runs or waits.
fn settle(fleet: &Fleet) {
    eventually_within(FIRE_DEADLINE, "all runs end", || {
        let going = ["QUEUED", "RUNNING", "PROPAGATING"];
        let runs = fleet.runs("demo");
        let paused = |run: &serde_json::Value| run["state"] == "QUEUED";
        runs.iter()
            .all(|run| paused(run) || !going.contains(&run["state"].as_str().unwrap_or("")))
            .then_some(())
    });
}

fn change_upstream(fleet: &Fleet) -> Result<usize> {
    let changed = 37;
    let dir = fleet.upstream_tree().join("changed");
    fs::create_dir_all(&dir)?;
    for index in 0..changed {
        fs::write(dir.join(format!("news-{index}")), format!("news number {index}\n"))?;
    }
    fs::remove_dir_all(fleet.upstream_tree().join("pool/000"))?;
    Ok(changed)
}

fn compare(fleet: &Fleet) -> Result<()> {
    let upstream = tree::hash(&fleet.upstream_tree())?;
    for (index, agent) in AGENTS.iter().enumerate() {
        let copy = tree::hash(&fleet.root(index).join("demo"))?;
        ensure!(upstream == copy, "the trees of the upstream and {agent} differ: {upstream} and {copy}");
    }
    println!(
        "✓ the three trees are equal to the upstream's (sha256 of all names and contents: {})",
        &upstream[..16]
    );
    Ok(())
}

/// Lines that work as printed, in any shell on this machine.
fn lines_to_try(fleet: &Fleet) -> Vec<String> {
    let done = fleet.runs("demo").into_iter().find(|run| run["state"] == "SUCCEEDED");
    let run =
        done.and_then(|run| run["name"].as_str().map(str::to_owned)).unwrap_or_else(|| "demo".to_owned());
    let admin = fleet.admin_dir();
    let mirrorctl = fleet_tests::program("mirrorctl");
    let config = admin.join("mirrorctl.toml");
    let grpcurl = tool("grpcurl");
    let tls = format!(
        "-cacert {0}/ca.pem -cert {0}/admin.pem -key {0}/admin.key {1}",
        admin.display(),
        fleet.server()
    );
    let ctl = format!("MIRRORCTL_CONFIG={} {}", config.display(), mirrorctl.display());
    let grpc = format!("{} {tls}", grpcurl.display());
    vec![
        format!("{ctl} status"),
        format!("{ctl} run list demo"),
        // The newest run may be a fire that waits for the end of the pause, and has no log yet.
        format!("{ctl} run log {run}"),
        format!("{grpc} list"),
        format!("{grpc} mirror.v1.FleetService/GetStatus"),
    ]
}

/// A tool that `make` installed, or one on the PATH.
fn tool(name: &str) -> PathBuf {
    let installed = fleet_tests::program("mirrorctl")
        .ancestors()
        .map(|dir| dir.join("tools/bin").join(name))
        .find(|path| path.is_file());
    installed.unwrap_or_else(|| PathBuf::from(name))
}

fn execute(line: &str) -> Result<()> {
    let done = Finished::run(Command::new("sh").args(["-c", line]));
    if done.code != 0 || done.stdout.is_empty() {
        bail!("{line}\nended with {}:\n{}{}", done.code, done.stdout, done.stderr);
    }
    Ok(())
}

/// Ctrl-C reaches this process and all its children alike; dropping the fleet ends what is left of them and
/// removes the directory.
fn wait_for_interrupt(fleet: Fleet, interrupted: &Receiver<()>) -> Result<()> {
    interrupted.recv().context("the signal handler's thread ended")?;
    println!("\nremoved {}", fleet.path().display());
    drop(fleet);
    Ok(())
}

/// Takes SIGINT, SIGTERM and SIGHUP from now on, so that an interrupted demo cleans up too: whatever it is doing then
/// fails because its children were interrupted as well, and the fleet is dropped.
fn take_interrupts() -> Result<Receiver<()>> {
    let (said, interrupted) = sync_channel(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        let _ended = said.send(());
    });
    Ok(interrupted)
}
