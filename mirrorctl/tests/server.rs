//! The real binary against a coordinator that answers from a script, over mutual TLS.

#![allow(clippy::unwrap_used, reason = "a test helper that fails is a test that fails")]

mod fake;
mod words;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use chrono::TimeDelta;
use fake::Fake;
use mirror_certs::CertificateAuthority;
use serde_json::{Value, json};

#[allow(clippy::disallowed_methods, reason = "the program under test")]
fn command(config: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirrorctl"));
    command
        .args(words)
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .env("MIRRORCTL_CONFIG", config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(fake: &Fake, words: &[&str]) -> (i32, String, String) {
    let output = command(&fake.config, words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const ADD: [&str; 10] = [
    "project",
    "add",
    "debian",
    "--from",
    "rsync://host/mod/path",
    "--to",
    "a1:debian",
    "--origin",
    "edge1",
    "--paused",
];

#[test]
fn no_byte_of_others_reaches_a_terminal_as_it_came() {
    let fake = Fake::start();
    for words in [
        &["agent", "show", "hostile"][..],
        &["agent", "show", "hostile", "-o", "wide", "--color", "always"],
        &["agent", "show", "hostile", "-o", "json"],
        &["agent", "show", "hostile", "-o", "name"],
        &["project", "show", "hostile"],
        &["project", "show", "hostile", "-o", "json"],
        &["project", "show", "unknown"],
    ] {
        let (_, out, err) = run(&fake, words);
        // Our own colours are all that is left.
        let plain = ["31", "32", "33", "34", "35", "0"]
            .iter()
            .fold(format!("{out}{err}"), |text, code| text.replace(&format!("\u{1b}[{code}m"), ""));
        let obeyed = |c: &char| (c.is_control() && *c != '\n') || *c == '\u{202e}';
        assert_eq!(plain.chars().find(obeyed), None, "{words:?}: {plain:?}");
        assert!(plain.contains("[2J"), "{words:?} shows it: {plain}");
        if words.contains(&"json") {
            let json: Value = serde_json::from_str(&out).unwrap();
            let name = json["name"].as_str().unwrap();
            assert_eq!(name, fake::HOSTILE, "programs get what it is");
        }
    }
}

#[test]
fn a_project_is_added_as_typed() {
    let fake = Fake::start();
    let (code, out, err) = run(&fake, &[&ADD[..], &["--cron", "minute=*/5", "--rsync-option=-H"]].concat());
    assert_eq!((code, out.as_str()), (0, "debian added. It runs when asked.\n"), "{err}");
    assert_eq!(err, "Next: mirrorctl project run debian --watch\n");
    let created = fake.script().created.pop().unwrap();
    assert!(created.paused && !created.validate_only && created.request_id.len() == 36);
    let project = created.project.unwrap();
    assert_eq!(project.name, "projects/debian");
    assert_eq!(project.rsync.unwrap().options, ["-H"]);

    let (code, out, _) = run(&fake, &[&ADD[..], &["-o", "json"]].concat());
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &answer["name"], &answer["destination"]),
        (0, &json!("projects/debian"), &json!("a1:debian"))
    );
    assert_eq!(run(&fake, &[&ADD[..], &["-o", "name"]].concat()).1, "debian\n");
    assert_eq!(run(&fake, &[&ADD[..], &["-q"]].concat()), (0, String::new(), String::new()));
    assert_eq!(
        run(&fake, &[&ADD[..], &["--dry-run"]].concat()).1,
        "debian would be added; nothing changed.\n"
    );
    assert!(fake.script().created.pop().unwrap().validate_only);
    assert!(fake.script().traceparents.is_empty(), "no collector, no trace");
}

#[test]
fn all_faults_are_told_at_once_with_the_names_as_typed() {
    let fake = Fake::start();
    let words =
        ["project", "add", "deb/ian", "--from", "rsnc://h/debian", "--to", "debian", "--jitter", "5x"];
    let (code, out, err) = run(&fake, &words);
    assert_eq!((code, out.as_str()), (2, ""));
    let expected = "\
error: project not created: 4 faults in what you typed
  NAME      \"deb/ian\": only letters, digits and . _ + - (at most 63), the first one a letter or digit
  --jitter  \"5x\": a span is a number with a unit, as in 45s, 90m, 6h, 3d, 2w or 1d12h
  --from    \"rsnc://h/debian\": unknown scheme; rsync:// or rsync+ssh://
  --to      \"debian\": needs a root, as in a1:debian
next: mirrorctl project add --help
";
    assert_eq!(err, expected);
    assert!(fake.script().created.iter().all(|request| request.validate_only), "nothing may be changed");
}

/// A name that cannot be one does not hide what is wrong with the flags.
#[test]
fn a_faulty_name_is_told_with_the_other_faults() {
    let fake = Fake::start();
    let missing = fake.directory.path().join("missing").display().to_string();
    for (words, labels) in [
        (
            &["project", "edit", "deb/ian", "--jitter", "5x", "--user", "me", "--password-file", &missing][..],
            &["NAME", "--password-file", "--jitter"][..],
        ),
        (&["project", "pause", "deb/ian", "--until", "friday"], &["PROJECT", "--until"]),
        (
            &["project", "reseed", "deb/ian", "--agent", "a b", "--from", ""],
            &["PROJECT", "--agent", "--from"],
        ),
        (&["project", "move", "deb/ian", "--agent", "a b", "--to", "a1:x"], &["PROJECT", "--agent"]),
        (&["project", "promote", "deb/ian", "--to", "a b"], &["PROJECT", "--to"]),
        (&["project", "rename", "deb/ian", "a b"], &["OLD", "NEW"]),
        (&["push-token", "create", "deb/ian", "--ttl", "soon"], &["PROJECT", "--ttl"]),
        (&["join-token", "create", "--name", "a b", "--ttl", "soon"], &["--name", "--ttl"]),
        (&["agent", "create", "a b", "--label", "x"], &["AGENT", "--label"]),
        (&["agent", "set", "a b", "--label", "x"], &["AGENT", "--label"]),
        (
            &["user", "create", "a b", "--role", "viewer", "--password-file", &missing],
            &["USER", "--password-file"],
        ),
        (&["cert", "issue", "--user", "a b", "--request", &missing], &["USER", "--request"]),
    ] {
        let (code, out, err) = run(&fake, words);
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}: {err}");
        let told: Vec<&str> = err
            .lines()
            .filter(|line| line.starts_with("  "))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(told, labels, "{words:?}: {err}");
    }
    assert!(fake.script().created.is_empty() && fake.script().updated.is_empty());
}

/// Each row of the table of `--help` is what the program does, and whoever ends with 1 stands in it.
#[test]
fn the_exit_codes_are_those_of_the_table() {
    let fake = Fake::start();
    let manifest = fake.directory.path().join("m.toml").display().to_string();
    let text = "schema = \"mirror.manifest.v1\"\n[[projects]]\nname = \"debian\"\n";
    std::fs::write(&manifest, text).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ends: &[(u8, &str, &[&str])] = &[
        (0, "a why", &["why", "debian"]),
        (0, "an exhausted schedule", &["schedule", "next", "--field", "month=2", "--field", "day=30"]),
        (1, "project check", &["project", "check", "debian", "--size"]),
        (1, "project explain", &["project", "explain", "away"]),
        (1, "housekeeping run", &["housekeeping", "run", "prune"]),
        (1, "(status)", &["status", "--exit-code"]),
        (1, "(plan)", &["plan", "-f", &manifest, "--exit-code"]),
        (1, "coordinator is too old", &["join-token", "list"]),
        (2, "bad input", &["project", "add", "deb/ian"]),
        (3, "not found", &["project", "pause", "debain"]),
        (4, "not allowed", &["project", "resume", "fedora"]),
        (5, "exists", &["agent", "create", "edge1"]),
        (5, "not in this state", &["project", "move", "debian", "--agent", "ftp1", "--to", "a1:debian"]),
        (5, "apply: not all applied", &["apply", "-f", &manifest]),
        (6, "unreachable", &["status", "--server", &free]),
        (7, "impossible", &["project", "delete", "debian"]),
        (10, "watched run failed", &["run", "watch", "failing"]),
        (11, "watched run held", &["run", "watch", "held"]),
        (12, "watched run cancelled", &["run", "watch", "cancelled"]),
        (13, "a connected replica failed", &["run", "watch", "replica-failing"]),
        (70, "our bug", &["project", "show", "broken"]),
    ];
    let mut rows: Vec<(u8, String)> = Vec::new();
    for line in mirrorctl::exit::HELP.lines().skip(1) {
        match line.trim_start().split_once("  ").and_then(|(code, row)| Some((code.parse().ok()?, row))) {
            Some((code, row)) => rows.push((code, row.to_owned())),
            None => rows.last_mut().unwrap().1.push_str(&format!(" {}", line.trim_start())),
        }
    }
    for (code, said, words) in ends {
        let (got, _, err) = run(&fake, words);
        assert_eq!(got, i32::from(*code), "{words:?}: {err}");
        let row = rows.iter().find(|(known, _)| known == code).unwrap();
        assert!(row.1.contains(said), "{said}: {row:?}");
    }
    // Ctrl-C has a test of its own.
    let untried = rows.iter().filter(|(code, _)| *code != 130 && !ends.iter().any(|end| end.0 == *code));
    assert_eq!(untried.count(), 0);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = std::fs::read_dir(source.join("cmd")).unwrap().map(|entry| entry.unwrap().path());
    let said =
        |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap().matches("Exit::BadAnswer").count();
    let bad_answers: usize = files.chain([source.join("fault.rs")]).map(said).sum();
    assert_eq!(bad_answers, ends.iter().filter(|end| end.0 == 1).count(), "one of them is not in the table");
}

#[test]
fn an_edit_sends_what_it_changes() {
    let fake = Fake::start();
    let (code, out, _) = run(&fake, &["project", "edit", "debian", "--every", "4h", "--max-delete", "80000"]);
    assert_eq!((code, out.as_str()), (0, "debian changed (schedule, guard). It runs when asked.\n"));
    let update = fake.script().updated.pop().unwrap();
    assert_eq!(update.update_mask.unwrap().paths, ["schedule", "guard"]);
    assert_eq!(update.project.unwrap().etag, "7", "a change on top of somebody else's must be refused");
    let (code, _, err) = run(&fake, &["project", "edit", "debian"]);
    assert!(code == 2 && err.contains("nothing to change was given"), "{err}");
}

#[test]
fn the_nearest_name_is_told() {
    let fake = Fake::start();
    let (code, out, err) = run(&fake, &["project", "pause", "debain", "--reason", "array swap"]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert_eq!(
        err,
        "error: no project \"debain\"; the nearest name is debian\n\
         next: mirrorctl project pause debian --reason 'array swap'\n"
    );
    let (code, _, err) = run(&fake, &["project", "pause", "debain", "--until", "friday"]);
    assert_eq!(code, 3);
    assert!(err.contains("the nearest name is debian\n  --until  \"friday\": a time"), "{err}");
    let (code, _, err) = run(&fake, &["project", "add", "debian", "--to", "a1:debian", "--origin", "egde1"]);
    assert_eq!(code, 2);
    assert!(err.contains("there is no such agent; the nearest name is edge1\n"), "{err}");
    let (code, _, err) = run(&fake, &["project", "resume", "fedora"]);
    assert_eq!((code, err.as_str()), (4, "error: you may not resume fedora: you own debian, gnu\n"));
}

#[test]
fn a_command_line_that_nobody_could_tell_ends_with_1() {
    let fake = Fake::start();
    assert_eq!(run(&fake, &["project", "explain", "debian"]).0, 0);
    let (code, out, _) = run(&fake, &["project", "explain", "away"]);
    assert_eq!(code, 1);
    assert!(out.starts_with("rsync on edge1") && out.contains("it is not connected"), "{out}");
    assert_eq!(run(&fake, &["project", "explain", "debain"]).0, 3);
}

#[test]
fn a_project_is_renamed_archived_and_worked_on_again() {
    let fake = Fake::start();
    let (code, out, err) = run(&fake, &["project", "rename", "debian", "debian-archive"]);
    assert_eq!((code, err.as_str()), (0, "Next: mirrorctl project show debian-archive\n"));
    assert_eq!(out, "debian is called debian-archive now; its schedule, runs and trees are as they were.\n");
    let (code, _, err) = run(&fake, &["project", "rename", "debian", "taken"]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("a project \"taken\" exists"), "{err}");
    let (code, _, err) = run(&fake, &["project", "rename", "debain", "x"]);
    assert_eq!(code, 3);
    assert!(err.ends_with("next: mirrorctl project rename debian x\n"), "{err}");
    let (code, _, err) = run(&fake, &["project", "rename", "de/bian", "n ew"]);
    assert!(code == 2 && err.contains("OLD") && err.contains("NEW"), "{err}");
    let (code, out, _) = run(&fake, &["project", "archive", "debian", "--reason", "gone"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("debian archived: served as it is, runs only when asked"), "{out}");
    let (code, out, _) = run(&fake, &["project", "unarchive", "debian", "-o", "json"]);
    assert_eq!(
        (code, serde_json::from_str::<Value>(&out).unwrap()["name"].as_str()),
        (0, Some("projects/debian"))
    );
}

#[test]
fn watched_runs_end_with_their_own_codes() {
    let fake = Fake::start();
    for (project, code, verdict) in [
        ("debian", 0, "✓ debian: origin has tree 01a1f7e0-6a99, 9s in all"),
        ("failing", 10, "✗ failing: failed on edge1 after 9s"),
        ("held", 11, "‖ held: held on edge1 after 9s"),
        ("cancelled", 12, "! cancelled: cancelled on edge1 after 9s"),
        ("replica-failing", 13, "✗ replica-failing: failed on edge1 after 9s"),
    ] {
        let (got, out, err) = run(&fake, &["project", "run", project, "--watch"]);
        assert_eq!(got, code, "{project}: {err}");
        assert!(out.starts_with(&format!("Run 01a1f7e0-6a99 of {project} started.")), "{out}");
        assert!(out.contains("origin edge1 running 63%"), "{out}");
        assert_eq!(out.lines().last(), Some(verdict));
    }
}

#[test]
fn an_approval_is_asked_for_with_its_figures_and_names_the_run_that_was_seen() {
    let fake = Fake::start();
    let (code, out, err) = run(&fake, &["run", "approve", "debian", "--reason", "a release left"]);
    assert_eq!((code, out.as_str()), (7, ""), "there is no terminal to ask on");
    assert!(err.contains("This lets edge1 delete up to 21,204 more files of debian. Approve?"), "{err}");
    assert!(fake.script().approved.is_empty());
    let (code, out, err) = run(&fake, &["run", "approve", "debian", "--reason", "a release left", "--yes"]);
    assert_eq!(
        (code, out.as_str()),
        (0, "Approved: run 01a1f7e0-6a99 of debian is queued for it.\n"),
        "{err}"
    );
    let asked = fake.script().approved.pop().unwrap();
    assert_eq!(asked.name, "projects/debian/runs/01a1f797-47f1-7c02-9d1f-8a3b6f20c1de");
    assert_eq!(asked.reason, "a release left");
}

#[test]
fn a_reseed_names_its_run_and_what_comes_next() {
    let fake = Fake::start();
    let words = ["project", "reseed", "debian", "--agent", "ftp1", "--from", "edge1"];
    let (code, out, err) = run(&fake, &words);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("copies debian from edge1 to ftp1; nothing is deleted"), "{out}");
    assert!(err.contains("mirrorctl run watch debian/01"), "{err}");
    let words = ["project", "reseed", "debian", "--agent", "ftp1", "--from", "ftp1"];
    let (code, _, err) = run(&fake, &words);
    assert_ne!(code, 0);
    assert!(err.contains("name another agent"), "{err}");
}

#[test]
fn a_move_says_what_is_where_and_what_comes_next() {
    let fake = Fake::start();
    let words = ["project", "move", "debian", "--agent", "ftp1", "--to", "a2:debian"];
    let (code, out, err) = run(&fake, &words);
    assert_eq!(code, 0, "{err}");
    let out = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        out.contains("moves debian on ftp1 from a1:debian to a2:debian: it is copied and compared"),
        "{out}"
    );
    assert!(out.contains("serves until then, and stays"), "{out}");
    assert!(out.contains("has no public link"), "{out}");
    assert!(err.contains("mirrorctl run watch debian/01"), "{err}");
    let words = ["project", "move", "debian", "--agent", "ftp1", "--to", "a1:debian"];
    let (code, _, err) = run(&fake, &words);
    assert_ne!(code, 0);
    assert!(err.contains("its tree is there already"), "{err}");
}

#[test]
fn a_run_is_started_as_it_is_wished() {
    let fake = Fake::start();
    let words = ["project", "run", "debian", "--dry-run", "--reclaim", "--allow-deletes", "61204"];
    let (code, out, err) = run(&fake, &words);
    assert_eq!((code, out.as_str()), (0, "Dry run 01a1f7e0-6a99 of debian started.\n"), "{err}");
    let asked = fake.script().started.pop().unwrap();
    assert!(asked.dry_run && asked.reclaim && asked.allow_deletes == Some(61_204));
}

#[test]
fn a_watch_outlives_a_lost_coordinator() {
    let fake = Fake::start();
    let (code, out, err) = run(&fake, &["run", "watch", "flaky"]);
    assert_eq!(code, 0, "{err}");
    for text in [
        "connection lost 0s, trying again; the sync itself goes on",
        "connected again",
        "✓ flaky: origin has",
    ] {
        assert!(out.contains(text), "{text}: {out}");
    }
    assert_eq!(fake.script().watches, 2);
}

#[test]
fn a_watch_for_programs_is_one_object_a_line() {
    let fake = Fake::start();
    let (code, out, _) = run(&fake, &["run", "watch", "failing", "-o", "json"]);
    let objects: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let states: Vec<&Value> = objects.iter().map(|object| &object["run"]["state"]).collect();
    assert_eq!((code, states), (10, vec![&json!("QUEUED"), &json!("RUNNING"), &json!("FAILED")]));
    assert_eq!(objects[1]["attempts"][0]["progress"]["percent"], 63);
}

#[test]
fn ctrl_c_stops_watching_only() {
    let fake = Fake::start();
    let mut child: Child = command(&fake.config, &["run", "watch", "endless"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The second line is there, so the signal handler is.
    assert!(lines.by_ref().any(|line| line.unwrap().contains("running 63%")));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("Stopped watching; the run goes on. Again: mirrorctl run watch endless"), "{err}");
    assert!(err.contains("End it: mirrorctl run cancel endless"), "{err}");
}

#[test]
fn destroying_wants_a_confirmation() {
    let fake = Fake::start();
    let (code, out, err) = run(&fake, &["project", "delete", "debian"]);
    assert_eq!((code, out.as_str()), (7, ""));
    let again = err.lines().last().unwrap();
    assert!(
        again.starts_with("next: mirrorctl ") && again.ends_with(" project delete debian --yes"),
        "{err}"
    );
    assert!(fake.script().deleted.is_empty());
    assert_eq!(run(&fake, &["agent", "revoke", "edge1"]).0, 7);
    assert_eq!(run(&fake, &["agent", "delete", "edge1"]).0, 7);
    assert_eq!(run(&fake, &["join-token", "delete", "7f3a"]).0, 7);
    assert_eq!(run(&fake, &["project", "delete", "debian", "--yes"]).0, 0);
    let words = ["project", "delete", "debian", "--tree-to-trash", "--yes"];
    let (code, out, _) = run(&fake, &words);
    assert_eq!((code, out.as_str()), (0, "debian deleted.\n"));
    let deleted = &fake.script().deleted;
    assert_eq!(deleted[0].etag, "7");
    assert_eq!([0, 1].map(|at: usize| deleted[at].tree_to_trash), [false, true]);
}

#[test]
fn an_agent_takes_anothers_place() {
    let fake = Fake::start();
    let (code, out, err) = run(&fake, &["agent", "replace", "ftp1", "edge1", "--dry-run"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("edge1 would take the place of ftp1 in 1 project."), "{out}");
    assert!(err.contains("Nothing changed"), "{err}");
    let (code, out, err) = run(&fake, &["agent", "replace", "ftp1", "edge1", "--no-reseed", "-o", "json"]);
    assert_eq!(code, 0, "{err}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["placements"][0]["refill"], "COPIED", "{answer}");
    assert_eq!(run(&fake, &["agent", "replace", "ftp1", "edge1", "-o", "name"]).1, "debian\n");

    // Who is cut for ever is asked about, once it is known that it can be done.
    let revoke = ["agent", "replace", "ftp1", "edge1", "--revoke", "--reason", "dead"];
    assert_eq!(run(&fake, &revoke).0, 7);
    let (code, out, err) = run(&fake, &[&revoke[..], &["--yes"]].concat());
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("ftp1 is revoked"), "{out}");
    let asked: Vec<_> =
        fake.script().replaced.iter().map(|one| (one.validate_only, one.no_reseed, one.revoke)).collect();
    let look = (true, false, true);
    assert_eq!(
        asked,
        [(true, false, false), (false, true, false), (false, false, false), look, look, (false, false, true)]
    );
    assert_eq!(fake.script().replaced.last().unwrap().reason, "dead");

    let (code, out, err) = run(&fake, &["agent", "replace", "ftp9", "ftp8"]);
    assert_ne!(code, 0, "{out}");
    assert!(
        err.contains("OLD  there is no such agent") && err.contains("NEW  there is no such agent"),
        "{err}"
    );
}

#[test]
fn an_agent_is_declared_and_set() {
    let fake = Fake::start();
    let (code, out, err) =
        run(&fake, &["agent", "create", "edge9", "--label", "role=edge", "--max-running", "2"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("edge9 is declared;"), "{out}");
    assert!(err.contains("Next: mirrorctl join-token create --name edge9"), "{err}");
    assert_eq!(run(&fake, &["agent", "create", "edge1"]).0, 5);

    let words = ["agent", "set", "edge1", "--label", "role=edge", "--label", "site-", "--max-serving", "0"];
    let (code, out, err) = run(&fake, &words);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("edge1 has the labels role=edge; no caps."), "{out}");
    let asked = fake.script().updated_agents[0].clone();
    assert_eq!(asked.update_mask.unwrap().paths, ["labels.role", "labels.site", "max_serving"]);
    let agent = asked.agent.unwrap();
    assert_eq!((agent.labels.len(), agent.labels["role"].as_str()), (1, "edge"));

    let (code, _, err) = run(&fake, &["agent", "set", "edge1"]);
    assert!(code == 2 && err.contains("--max-running"), "{err}");
    let (code, _, err) = run(&fake, &["agent", "set", "edge1", "--label", "role", "--label", "=x"]);
    assert!(code == 2 && err.matches("write KEY=VALUE").count() == 2, "{err}");
    let (code, _, err) = run(&fake, &["agent", "set", "edge1", "--max-running", "65"]);
    assert!(code == 2 && err.contains("--max-running") && err.contains("1 to 64"), "{err}");
    let (code, _, err) = run(&fake, &["agent", "set", "edge2", "--max-running", "6"]);
    assert!(code == 3 && err.contains("the nearest name is edge1"), "{err}");
}

#[test]
fn housekeeping_is_run_now() {
    let fake = Fake::start();
    let (code, out, err) = run(&fake, &["housekeeping", "run", "backup"]);
    assert_eq!((code, out.as_str()), (0, "backup is done in 3s: 4 entries.\n"), "{err}");
    let (code, out, err) = run(&fake, &["housekeeping", "run", "prune"]);
    assert_eq!((code, out.as_str()), (1, "prune failed in 3s: the disk is full.\n"), "{err}");
    assert_eq!(run(&fake, &["housekeeping", "run", "fly"]).0, 3);
}

#[test]
fn join_tokens_can_be_captured() {
    let fake = Fake::start();
    let (code, out, err) = run(&fake, &["join-token", "create", "--name", "edge1"]);
    assert_eq!((code, out.as_str()), (0, "mjt_secret\n"));
    assert!(
        err.contains("Next: mirror-agent enroll 127.0.0.1:")
            && err.contains(" --token mjt_secret --ca-hash sha256:9b1e"),
        "{err}"
    );
    let (_, out, err) = run(&fake, &["join-token", "create", "--name", "edge1", "-o", "json"]);
    let token: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&token["token"], &token["agent"], err.as_str()), (&json!("mjt_secret"), &json!("edge1"), ""));
    assert_eq!(run(&fake, &["join-token", "create", "--name", "edge1", "-o", "name"]).1, "mjt_secret\n");
    let words = ["join-token", "create", "--name", "e", "--cidr", "192.0.2.0/24", "--cidr", "2001:db8::/32"];
    assert!(run(&fake, &words).2.contains("Good for e from 192.0.2.0/24, 2001:db8::/32, once"));
}

#[test]
fn push_tokens_can_be_captured_listed_and_ended() {
    let fake = Fake::start();
    let (code, out, err) = run(&fake, &["push-token", "create", "debian", "--note", "build1"]);
    assert_eq!((code, out.as_str()), (0, "mpt_secret\n"));
    assert!(err.contains("Good for pushes of debian and nothing else, until it is deleted"), "{err}");
    assert!(err.contains("/v1/projects/debian/push") && !err.contains("mpt_secret"), "{err}");
    assert!(err.contains("-H @push-header") && err.contains("--cacert"), "no token on a command line: {err}");
    // The secret is shown this once, whatever the form.
    assert_eq!(run(&fake, &["push-token", "create", "debian", "-o", "name"]).1, "mpt_secret\n");
    let (code, _, err) = run(&fake, &["push-token", "create", "deb/ian", "--ttl", "soon"]);
    assert!(
        code == 2 && err.contains("  PROJECT  \"deb/ian\"") && err.contains("  --ttl    \"soon\""),
        "{err}"
    );
    let (_, out, _) = run(&fake, &["push-token", "list", "debian", "-o", "name"]);
    assert_eq!(out, "7f3a\n80bb\n", "all pages");
    let (code, out, _) = run(&fake, &["push-token", "delete", "7f3a", "--yes"]);
    assert_eq!((code, out.as_str()), (0, "Push token 7f3a is useless now.\n"));
    let (code, _, _) = run(&fake, &["push-token", "delete", "7f3a"]);
    assert_eq!(code, 7, "nobody was asked");
}

#[test]
fn a_push_token_whose_secret_was_lost_with_the_answer_is_deleted() {
    let fake = Fake::start();
    let (code, out, err) = run(&fake, &["push-token", "create", "debian", "--note", "lost"]);
    assert_eq!((code, out.as_str()), (6, ""), "{err}");
    assert!(err.contains("was lost on its way, so it is deleted again"), "{err}");
    let script = fake.script();
    assert_eq!(script.push_tokens.len(), 2);
    assert!(!script.push_tokens[0].request_id.is_empty() && script.push_tokens[0] == script.push_tokens[1]);
    assert_eq!(script.deleted_push_tokens, ["pushTokens/7f3a"]);
}

#[test]
fn a_push_says_what_waits() {
    let fake = Fake::start();
    let (code, out, err) = run(&fake, &["project", "push", "debian"]);
    let said = "Pushed: run 01a1f7e0-6a99 of debian waits (coalesced) and copies it too.\n";
    assert_eq!((code, out.as_str()), (0, said));
    assert!(err.contains("Note: the project is paused by maria; the run waits for the resume"), "{err}");
    assert!(err.ends_with("Next: mirrorctl run watch debian\n"), "{err}");
    let (_, out, _) = run(&fake, &["project", "push", "fedora"]);
    assert!(out.starts_with("Pushed: run 01a1f7e0-6a99 of fedora is queued.\n"), "{out}");
    let (_, out, _) = run(&fake, &["project", "push", "fedora", "-o", "json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert!(json["run"].as_str().unwrap().starts_with("projects/fedora/runs/"), "{json}");
}

#[test]
fn logs_are_rsyncs_own_words() {
    let fake = Fake::start();
    let (code, out, _) = run(&fake, &["run", "log", "debian"]);
    assert_eq!((code, out.as_str()), (0, "receiving file list\npool/a\npool/b\ntotal size is 7\n"));
    assert_eq!(run(&fake, &["run", "log", "debian", "-n", "2"]).1, "pool/b\ntotal size is 7\n");
    assert_eq!(
        run(&fake, &["run", "log", "debian/01a1f7e0", "-n", "1", "-f"]).1,
        "receiving file list\npool/a\npool/b\ntotal size is 7\n"
    );
}

#[test]
fn runs_are_found_by_the_beginning_of_their_id() {
    let fake = Fake::start();
    let (code, out, _) = run(&fake, &["run", "cancel", "debian/01a1f7e0", "-o", "name"]);
    assert_eq!((code, out.as_str()), (0, "projects/debian/runs/01a1f7e0-6a99-7c02-9d1f-8a3b6f20c1de\n"));
    // The script's two projects have a run of the same id.
    let (code, _, err) = run(&fake, &["run", "cancel", "01a1f7e0-6a99"]);
    assert!(code == 2 && err.contains("is the beginning of 2 runs"), "{err}");
    assert_eq!(run(&fake, &["run", "cancel", "debian/ffff"]).0, 3);
}

#[test]
fn status_and_why() {
    let fake = Fake::start();
    let (code, out, _) = run(&fake, &["status", "-o", "json", "--exit-code"]);
    let status: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &status["summary"]["never"]), (1, &json!(1)));
    assert_eq!(run(&fake, &["status"]).0, 0);
    assert_eq!(run(&fake, &["why", "debian"]).1, "debian is queued.\nAlso: the fleet is frozen.\n");
}

#[test]
fn nobody_there_and_somebody_else_there() {
    let fake = Fake::start();
    // A port that was just free: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, _, err) = run(&fake, &["status", "--server", &free]);
    assert_eq!(code, 6);
    assert!(
        err.starts_with(&format!(
            "error: {free} does not answer (connection refused); syncs go on without it\n"
        )),
        "{err}"
    );
    let other =
        CertificateAuthority::create("other.example.org".parse().unwrap(), mirrorctl::clock::now()).unwrap();
    let path = fake.directory.path().join("other.pem");
    std::fs::write(&path, other.cert_pem()).unwrap();
    let (code, _, err) = run(&fake, &["status", "--ca", path.to_str().unwrap()]);
    assert_eq!(code, 4);
    assert!(err.contains("is not the coordinator of this context"), "{err}");
}

/// The collector here takes bytes and never answers: HTTP/2 clients send without waiting, and a mute collector must
/// not matter.
#[test]
fn one_trace_holds_the_command_and_its_requests() {
    let fake = Fake::start();
    let collector = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let child = command(&fake.config, &ADD).env("MIRRORCTL_OTLP_ENDPOINT", endpoint).spawn().unwrap();
    let (mut stream, _) = collector.accept().unwrap();
    let mut sent = Vec::new();
    stream.read_to_end(&mut sent).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    let traceparent = fake.script().traceparents.pop().unwrap();
    assert!(traceparent.starts_with("00-") && traceparent.len() == 55, "{traceparent}");
    let trace: Vec<u8> = (0..16)
        .map(|byte| u8::from_str_radix(&traceparent[3 + 2 * byte..5 + 2 * byte], 16).unwrap())
        .collect();
    let holds = |part: &[u8]| sent.windows(part.len()).any(|window| window == part);
    assert!(holds(b"mirrorctl project add"), "no span of the command in {} bytes", sent.len());
    assert!(holds(&trace), "the span is of another trace than the request");
}

#[test]
fn a_check_that_finds_a_fault_ends_with_1() {
    let fake = Fake::start();
    let (code, out, err) = run(&fake, &["project", "check", "debian", "--size"]);
    assert_eq!(code, 1, "{err}");
    let wanted = "  \u{2717} space      edge1 a1:x lacks ~12.0 GiB above its reserve of 160 GiB\n\
                  1 fault, 0 warnings, nothing changed. Next: mirrorctl project edit debian --help\n";
    assert_eq!(out, wanted);
    let (code, out, _) = run(&fake, &["project", "check", "debian", "-o", "json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["faults"], &json["findings"]), (0, &json!(0), &json!([])));
    let (code, _, err) = run(&fake, &["project", "check", "debain"]);
    assert!(code == 3 && err.contains("mirrorctl project check debian"), "{err}");
}

#[test]
fn the_audit_log_is_newest_last_and_follows_without_a_gap() {
    let fake = Fake::start();
    let words = ["audit", "--user", "maria", "--agent", "agents/ftp1", "--resource", "projects/debian"];
    let (code, out, err) = run(&fake, &[&words[..], &["--refused", "--since", "2d", "-o", "json"]].concat());
    let events: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<&str> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(
        (code, ids.as_slice()),
        (0, &["00000000000000000001", "00000000000000000002", "00000000000000000003"][..]),
        "{err}"
    );
    let filter = "who=users/maria agent=ftp1 resource=projects/debian outcome=refused";
    assert_eq!(events[0]["message"], filter);
    // Only the newest, and that there are more.
    let (code, out, err) = run(&fake, &["audit", "-n", "2"]);
    assert_eq!((code, out.lines().count()), (0, 3), "{out}");
    assert!(err.contains("Only the newest 2"), "{err}");
    // What is followed begins after the newest; why it ends is told.
    let (code, out, err) = run(&fake, &["audit", "--follow", "--action", "Freeze", "-o", "json"]);
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(last["message"], "after 00000000000000000003 action=Freeze");
    assert!(code != 0 && err.contains("has not read for 30 s"), "{code} {err}");
}

#[test]
fn faults_of_an_audit_are_told_with_the_next_step() {
    let fake = Fake::start();
    let (code, _, err) = run(&fake, &["audit", "--since", "yesterday", "--action", "a b", "--user", "x y"]);
    assert_eq!(code, 2, "{err}");
    for flag in ["--since", "--action", "--user", "next: mirrorctl audit --help"] {
        assert!(err.contains(flag), "{flag}: {err}");
    }
    let (code, _, err) = run(&fake, &["audit", "--user", "nobody"]);
    assert!(code != 0 && err.contains("role admin") && err.contains("next: mirrorctl --context"), "{err}");
}

#[test]
fn a_certificate_is_renewed_by_the_way_from_a_third_of_its_life() {
    let fresh = Fake::start_with(TimeDelta::days(29));
    let certificate = |fake: &Fake| std::fs::read_to_string(fake.directory.path().join("admin.pem")).unwrap();
    let before = certificate(&fresh);
    assert_eq!(run(&fresh, &["why", "debian"]).0, 0);
    assert_eq!(certificate(&fresh), before);

    let due = Fake::start_with(TimeDelta::days(31));
    let (before, key) = (certificate(&due), due.directory.path().join("admin.key"));
    let key_before = std::fs::read_to_string(&key).unwrap();
    let (code, _, err) = run(&due, &["why", "debian"]);
    assert_eq!((code, err.as_str()), (0, ""), "it is said to nobody");
    assert_ne!(certificate(&due), before);
    assert_eq!(std::fs::read_to_string(&key).unwrap(), key_before);
    let ca = std::fs::read_to_string(due.directory.path().join("ca.pem")).unwrap();
    assert!(ca.starts_with("# as of now\n"), "the CAs came along");
    let renewed = certificate(&due);
    assert_eq!(run(&due, &["why", "debian"]).0, 0);
    assert_eq!(certificate(&due), renewed, "once is enough");
}

#[test]
fn a_certificate_that_is_not_renewed_is_a_warning_and_one_that_has_ended_says_what_to_do() {
    let fake = Fake::start_with(TimeDelta::days(80));
    fake.script().no_certificates = true;
    let (code, out, err) = run(&fake, &["why", "debian"]);
    assert!(code == 0 && out.contains("debian is queued"), "{err}");
    assert_eq!(
        err,
        "warning: your certificate ends in 10d and is not renewed: users/admin is on the deny list\n"
    );
    let ended = Fake::start_with(TimeDelta::days(91));
    let (code, _, err) = run(&ended, &["why", "debian"]);
    assert_eq!(code, 4, "{err}");
    assert!(err.starts_with("error: the certificate of context default ended"), "{err}");
    assert!(err.ends_with("next: mirrorctl login USER\n"), "{err}");
}

/// A fake whose context knows the CA of another time alone, the present one's hash, and a file with a password.
fn after_the_ca_was_replaced() -> (Fake, String, String) {
    let (fake, other) = (Fake::start(), Fake::start());
    let ca = fake.directory.path().join("ca.pem");
    let present = mirror_certs::CaBundle::from_pem(&std::fs::read_to_string(&ca).unwrap()).unwrap();
    std::fs::rename(&ca, fake.directory.path().join("present.pem")).unwrap();
    std::fs::copy(other.directory.path().join("ca.pem"), &ca).unwrap();
    let password = fake.directory.path().join("password");
    std::fs::write(&password, "correct horse battery\n").unwrap();
    (fake, present.hashes()[0].to_string(), password.to_str().unwrap().to_owned())
}

#[test]
fn whoever_missed_a_new_ca_comes_back_by_the_steps_that_are_told() {
    let (fake, hash, password) = after_the_ca_was_replaced();
    let file = std::fs::read_to_string(&fake.config).unwrap();
    let (_, server) = file.split_once("server = \"").unwrap();
    let server = server.split('"').next().unwrap();
    // By token alone: no certificate.
    let by_token =
        format!("current = \"default\"\n\n[contexts.default]\nserver = \"{server}\"\nca = \"ca.pem\"\n");
    std::fs::write(&fake.config, by_token).unwrap();
    let with_password = |words: &[&str]| run(&fake, &[words, &["--password-file", &password]].concat());
    let (code, _, err) = with_password(&["login", "maria"]);
    assert!(code == 4 && err.contains("is not the coordinator of this context"), "{err}");

    let step = |err: &str, start: &str| -> Vec<String> {
        let line = err.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_else(|| panic!("{err}"));
        line.split(' ').map(str::to_owned).collect()
    };
    let (code, _, err) = with_password(&["--server", server, "login", "maria", "--ca-hash", &hash]);
    assert_eq!(code, 5, "{err}");
    let told = step(&err, "next: mirrorctl ");
    assert_eq!(told, ["--context", "default-2", "--server", server, "login", "maria", "--ca-hash", &hash]);
    let words: Vec<&str> = told.iter().map(String::as_str).collect();
    let (code, out, err) = with_password(&words);
    assert!(code == 0 && out.contains("in context default-2"), "{out}{err}");
    let told = step(&err, "Next: mirrorctl ");
    assert_eq!(told, ["context", "use", "default-2"]);
    assert_eq!(run(&fake, &["context", "use", "default-2"]).0, 0);
    let (code, _, err) = run(&fake, &["why", "debian"]);
    assert_eq!(code, 0, "{err}");
    // Another time the name is another one.
    let words = ["--context", "default", "--server", server, "login", "maria", "--ca-hash", &hash];
    let (code, _, err) = with_password(&words);
    assert!(code == 5 && err.contains("mirrorctl --context default-3 --server "), "{err}");
}

#[test]
fn a_first_login_is_told_with_the_cas_hash_of_now() {
    let (fake, hash, password) = after_the_ca_was_replaced();
    let ca = fake.directory.path().join("ca.pem");
    let retired = std::fs::read_to_string(&ca).unwrap();
    let retired_hash = mirror_certs::CaBundle::from_pem(&retired).unwrap().hashes()[0].to_string();
    // As a renewal during the rotation has left it: both, the older one first.
    let present = std::fs::read_to_string(fake.directory.path().join("present.pem")).unwrap();
    std::fs::write(&ca, format!("{retired}{present}")).unwrap();
    let words = ["user", "create", "maria", "--role", "viewer", "--password-file", &password];
    let (code, out, err) = run(&fake, &words);
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains(&format!(" --ca-hash {hash}  (on maria's own machine)")), "{err}");
    assert!(!err.contains(&retired_hash), "{err}");
}
