//! The clients: people who declare projects and ask for runs, and what each of them was told and when.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use fleet_tests::{Finished, Fleet};
use serde_json::{Value, json};

use crate::{PROJECTS, World};

/// Those who declare projects.
const WRITERS: usize = 3;
/// How long a call may take.
const CALL_TIME_MAX: &str = "10s";
/// Pause between two calls of one who asks for runs.
const TRIGGER_PAUSE: Duration = Duration::from_millis(700);
/// Files of the upstream that are always new, the bytes of each, and the pause between two changes.
const NEWS_FILES: usize = 4;
const NEWS_BYTES: usize = 1 << 20;
const NEWS_PAUSE: Duration = Duration::from_millis(400);
/// Pause between two calls of one who declares.
const WRITE_PAUSE: Duration = Duration::from_millis(60);

/// `mirrorctl` as the first admin, without holding the fleet.
pub(crate) struct Ctl {
    program: OsString,
    before: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Ctl {
    pub(crate) fn of(fleet: &Fleet) -> Self {
        let command = fleet.command("mirrorctl", &[]);
        let environment =
            command.get_envs().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
        Self {
            program: command.get_program().to_owned(),
            before: command.get_args().map(ToOwned::to_owned).collect(),
            environment: environment.collect(),
        }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.args(&self.before).args(args).args(["--timeout", CALL_TIME_MAX]);
        Finished::run(&mut command)
    }

    /// What it prints as JSON; `None`: it did not work now.
    pub(crate) fn json(&self, args: &[&str]) -> Option<Value> {
        let mut args = args.to_vec();
        args.extend(["-o", "json"]);
        let done = self.run(&args);
        if done.code == 0 { serde_json::from_str(&done.stdout).ok() } else { None }
    }
}

/// Every call and its answer, in the order of the answers.
#[derive(Default)]
pub(crate) struct History(Mutex<Vec<Call>>);

/// One call.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) what: String,
    pub(crate) asked_ms: u128,
    pub(crate) answered_ms: u128,
    pub(crate) code: i32,
    /// The name of what was made, where the answer has one.
    pub(crate) name: String,
    pub(crate) said: String,
}

impl History {
    fn calls(&self) -> std::sync::MutexGuard<'_, Vec<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn acknowledged(&self, what: &str) -> Vec<Call> {
        self.calls().iter().filter(|call| call.code == 0 && call.what == what).cloned().collect()
    }

    pub(crate) fn print_counts(&self) {
        let mut counts: BTreeMap<(String, bool), usize> = BTreeMap::new();
        for call in self.calls().iter() {
            *counts.entry((call.what.clone(), call.code == 0)).or_default() += 1;
        }
        for ((what, good), count) in counts {
            println!("{count:6}  {what}: {}", if good { "acknowledged" } else { "refused or unanswered" });
        }
    }

    pub(crate) fn save(&self, path: &Path) -> io::Result<PathBuf> {
        let mut file = BufWriter::new(File::create(path)?);
        for call in self.calls().iter() {
            let line = json!({ "what": call.what, "asked_ms": call.asked_ms, "answered_ms": call.answered_ms,
                "code": call.code, "name": call.name, "said": call.said });
            writeln!(file, "{line}")?;
        }
        file.flush()?;
        Ok(path.to_owned())
    }
}

/// Starts them all.
pub(crate) fn start(world: &Arc<World>) -> Vec<JoinHandle<()>> {
    let writers = (0..WRITERS).map(|writer| {
        let world = Arc::clone(world);
        thread::spawn(move || declare(&world, writer))
    });
    let triggers = PROJECTS.into_iter().map(|project| {
        let world = Arc::clone(world);
        thread::spawn(move || trigger(&world, project))
    });
    let upstream = Arc::clone(world);
    let changes = thread::spawn(move || change_upstream(&upstream));
    writers.chain(triggers).chain([changes]).collect()
}

/// Keeps the runs busy: some of the upstream's files are always new.
fn change_upstream(world: &World) {
    let folder = world.fleet().upstream_tree().join("news");
    let mut count = 0_usize;
    while !world.is_over() {
        let content = count.to_le_bytes().repeat(NEWS_BYTES / 8 + count);
        let partial = folder.join(".new");
        let made = fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&partial, content))
            .and_then(|()| fs::rename(&partial, folder.join(format!("issue-{}", count % NEWS_FILES))));
        if let Err(error) = made {
            println!("the upstream's tree cannot be changed: {error}");
        }
        count += 1;
        thread::sleep(NEWS_PAUSE);
    }
}

fn declare(world: &World, writer: usize) {
    let mut count = 0;
    while !world.is_over() {
        let (project, uri) = (format!("p-{writer}-{count}"), world.fleet().upstream.uri());
        let to = format!("a1:{project}");
        let args =
            ["project", "add", &project, "--from", &uri, "--to", &to, "--origin", "ftp1", "--paused", "-q"];
        call(world, "declare", &project, &args);
        count += 1;
        thread::sleep(WRITE_PAUSE);
    }
}

fn trigger(world: &World, project: &str) {
    while !world.is_over() {
        call(world, "trigger", project, &["project", "run", project, "-o", "json"]);
        thread::sleep(TRIGGER_PAUSE);
    }
}

fn call(world: &World, what: &str, name: &str, args: &[&str]) {
    let asked_ms = world.begun.elapsed().as_millis();
    let done = world.ctl.run(args);
    let answer: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
    let made = answer["name"].as_str().or_else(|| answer["run"]["name"].as_str());
    world.history.calls().push(Call {
        what: what.to_owned(),
        asked_ms,
        answered_ms: world.begun.elapsed().as_millis(),
        code: done.code,
        name: made.unwrap_or(name).to_owned(),
        said: done.stderr.trim().to_owned(),
    });
}
