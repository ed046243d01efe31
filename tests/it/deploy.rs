//! The systemd units parse, and expose as little as is promised, by systemd's own judgement.

use std::process::Command;

use fleet_tests::{Finished, program};

use crate::tidy::root;

/// The most that `systemd-analyze security` may find exposed, of 10, in tenths.
const EXPOSED_MAX: [(&str, u32); 2] = [("mirror-coordinator.service", 20), ("mirror-agent.service", 40)];

/// Whether the tool is there; says why not.
fn has_tool() -> bool {
    let found =
        Command::new("systemd-analyze").arg("--version").output().is_ok_and(|done| done.status.success());
    if !found {
        println!("skipped: systemd-analyze is not installed (Debian's package systemd)");
    }
    found
}

fn unit(name: &str) -> String {
    std::fs::read_to_string(root().join("deploy/systemd").join(name)).expect("the unit is there")
}

#[test]
fn the_units_expose_little() {
    if !has_tool() {
        return;
    }
    for (name, most) in EXPOSED_MAX {
        let path = root().join("deploy/systemd").join(name);
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--no-pager"]);
        let strict = format!("--threshold={most}");
        let judged = Finished::run(command.arg(strict).arg(&path));
        if judged.stderr.contains("unrecognized option") {
            println!("skipped: this systemd-analyze cannot judge a unit offline (it is older than 250)");
            return;
        }
        let verdict = judged.stdout.lines().find(|line| line.contains("Overall exposure level"));
        let verdict =
            verdict.unwrap_or_else(|| panic!("no verdict on {name}:\n{}{}", judged.stdout, judged.stderr));
        assert_eq!(
            judged.code, 0,
            "{name} may be exposed by {most} tenths at most:\n{verdict}\n{}",
            judged.stdout
        );
        println!("{verdict}");
    }
}

#[test]
fn the_units_parse() {
    if !has_tool() {
        return;
    }
    // `verify` wants programs that exist: those that were just built stand in for the installed ones.
    let dir = tempfile::tempdir().expect("a directory");
    for (name, _) in EXPOSED_MAX {
        let binary = name.trim_end_matches(".service");
        let built = program(binary).display().to_string();
        let text = unit(name).replace(&format!("/usr/bin/{binary}"), &built);
        assert!(text.contains(&built), "{name} starts {binary}");
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        let mut command = Command::new("systemd-analyze");
        let verified =
            Finished::run(command.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&path));
        if verified.stderr.contains("Failed to initialize manager")
            || verified.stderr.contains("unrecognized option")
        {
            println!("skipped: systemd-analyze verify does not work here: {}", verified.stderr.trim());
            return;
        }
        assert_eq!((verified.code, verified.stderr.trim()), (0, ""), "{name}");
    }
}

#[test]
fn what_the_units_start_is_what_the_programs_understand() {
    for (name, _) in EXPOSED_MAX {
        let binary = name.trim_end_matches(".service");
        let text = unit(name);
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("ExecStart");
        // In an empty folder: the words are understood, and the file that they name is what is missed.
        let dir = tempfile::tempdir().expect("a directory");
        let start = start.replace("/var/lib", &dir.path().display().to_string());
        let words: Vec<&str> = start.split_whitespace().skip(1).collect();
        let mut command = Command::new(program(binary));
        let done = Finished::run(command.args(&words).arg("--check-config").env("LC_ALL", "C.UTF-8"));
        let missing = words.last().copied().unwrap_or_default();
        assert!(done.code == 2 && done.stderr.contains(missing), "{start}\n{}", done.stderr);
        assert!(
            text.contains("KillMode=process") == (binary == "mirror-agent"),
            "supervisors outlive agents alone"
        );
    }
}
