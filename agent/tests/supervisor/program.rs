//! Agent and supervisor are of one build, or nothing is started.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use mirror_agent::jail::REFUSED_CODE;
use mirror_agent::rundir::{EndedBy, PROGRAM_NAME, SuperviseProgram};

use crate::harness::{Run, SUPERVISE, sh};

const AGENT: &str = env!("CARGO_BIN_EXE_mirror-agent");

/// Under another inode, as an upgrade makes it.
fn install(from: &Path, to: &Path) {
    let new = to.with_extension("new");
    fs::copy(from, &new).unwrap();
    fs::rename(new, to).unwrap();
}

fn output(program: &Path, args: &[&str]) -> Output {
    #[allow(clippy::disallowed_methods, reason = "the program under test")]
    let mut command = Command::new(program);
    command.args(args).output().unwrap()
}

#[test]
fn an_upgrade_changes_nothing_for_an_agent_that_runs() {
    let run = Run::create(&sh("echo done"));
    let installed = run.scratch("bin").join(PROGRAM_NAME);
    install(Path::new(SUPERVISE), &installed);
    let held = SuperviseProgram::open(&installed).unwrap();
    // The next version has other words.
    install(Path::new("/bin/false"), &installed);
    run.dir.start_with(&held.executable(), None, &run.lock().unwrap()).unwrap();
    let exit = run.exit();
    assert_eq!((exit.code, exit.ended_by), (Some(0), EndedBy::Itself));
    assert_eq!(run.stdout(), "done\n");
}

#[test]
fn an_agent_of_another_build_is_refused() {
    for command in
        [&["supervise", "--run-dir", "/absent"][..], &["jail", "--spec", "/absent", "--", "/bin/true"]]
    {
        let args = [&["0.0.1+0123"], command].concat();
        let refused = output(Path::new(SUPERVISE), &args);
        assert_eq!(refused.status.code(), Some(i32::from(REFUSED_CODE)), "{args:?}");
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains("0.0.1+0123") && said.contains("restart the agent"), "{said}");
    }
}

#[test]
fn an_agent_does_not_start_without_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let agent = dir.path().join("mirror-agent");
    fs::copy(AGENT, &agent).unwrap();
    let config = dir.path().join("agent.toml");
    let text = format!(
        "name = \"edge1\"\ncoordinators = [\"127.0.0.1:1\"]\n\n[roots]\na1 = \"{}\"\n",
        dir.path().display()
    );
    fs::write(&config, text).unwrap();
    let check = || {
        let done = output(&agent, &["run", "--check-config", "--config", &config.display().to_string()]);
        assert_eq!(done.status.code(), Some(2));
        String::from_utf8(done.stderr).unwrap()
    };
    let said = check();
    assert!(said.contains("cannot use") && said.contains(PROGRAM_NAME), "{said}");
    let other = dir.path().join(PROGRAM_NAME);
    fs::write(&other, "#!/bin/sh\necho mirror-supervise 0.0.1+0123\n").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    let said = check();
    assert!(said.contains("\"mirror-supervise 0.0.1+0123\""), "{said}");
    fs::remove_file(&other).unwrap();
    install(Path::new(SUPERVISE), &other);
    let said = check();
    assert!(!said.contains(PROGRAM_NAME), "what is wrong still is not this: {said}");
}
