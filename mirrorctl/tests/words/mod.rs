//! What is done to several at once, answers in YAML, and what shells complete.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fake::{self, Fake};
use crate::run;

/// Reads YAML as others do, and prints the documents as JSON, one a line.
const READER: &str =
    "import json, sys, yaml\nfor one in yaml.safe_load_all(sys.stdin): print(json.dumps(one))";

/// A tool that `make test` installed.
fn tool(name: &str) -> PathBuf {
    let installed = Path::new(env!("CARGO_BIN_EXE_mirrorctl")).ancestors();
    let installed = installed.map(|dir| dir.join("tools/bin").join(name)).find(|path| path.is_file());
    installed.unwrap_or_else(|| PathBuf::from(name))
}

/// Runs another program with this as its standard input; what it printed.
#[allow(clippy::disallowed_methods, reason = "the programs that mirrorctl is used with")]
fn through(program: &Path, args: &[&str], environment: &[(&str, &Path)], input: &str) -> String {
    let mut child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C.UTF-8")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success() && err.is_empty(), "{}: {out}{err}", program.display());
    out
}

#[test]
fn yaml_is_the_json_for_a_reader_that_is_not_ours() {
    let fake = Fake::start();
    let commands: [&[&str]; 9] = [
        &["agent", "show", "hostile"],
        &["project", "show", "hostile"],
        &["project", "list"],
        &["project", "add", "no", "--from", "rsync://host/mod/path", "--to", "a1:1e3", "--label", "on=12:30"],
        &["status"],
        &["run", "list", "debian"],
        &["audit", "--since", "30d"],
        &["context", "show"],
        &["schedule", "parse-date", "2026-11-20 18:00"],
    ];
    for words in commands {
        let (code, json, err) = run(&fake, &[words, &["-o", "json"]].concat());
        assert_eq!(code, 0, "{words:?}: {err}");
        let (code, yaml, _) = run(&fake, &[words, &["-o", "yaml"]].concat());
        assert!(code == 0 && yaml.starts_with("---\n"), "{words:?}: {yaml}");
        let obeyed = |c: &char| (c.is_control() && *c != '\n') || *c == '\u{202e}';
        assert_eq!(yaml.chars().find(obeyed), None, "{words:?}: {yaml:?}");
        // Both hold times of now in places; what is compared is what does not run on.
        let read = through(&tool("python"), &["-c", READER], &[], &yaml);
        let objects = |text: &str| -> Vec<Value> {
            let mut objects: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            objects.iter_mut().filter_map(|one| one.get_mut("time")).for_each(|time| {
                if words == ["status"] {
                    *time = json!(time.is_string());
                }
            });
            objects
        };
        let (read, expected) = (objects(&read), objects(&json));
        if words == ["agent", "show", "hostile"] {
            assert_eq!(read[0]["name"], fake::HOSTILE, "programs get what it is");
        }
        assert!(!expected.is_empty() && read == expected, "{words:?}: {yaml}");
    }
}

#[test]
fn what_acts_on_several_asks_first() {
    let fake = Fake::start();
    let (code, out, err) = run(&fake, &["project", "run", "debian", "fedora"]);
    assert_eq!((code, out.as_str()), (7, ""), "{err}");
    assert!(err.contains("This starts a run of 2 projects: debian, fedora. Go on?"), "{err}");
    assert!(err.ends_with("next: mirrorctl project run debian fedora --yes\n"), "{err}");
    assert!(fake.script().started.is_empty());

    let (code, out, err) = run(&fake, &["project", "run", "fedora", "Debian", "debian", "--yes"]);
    assert_eq!((code, out.lines().count(), err.as_str()), (0, 2, ""), "{out}");
    assert!(out.contains(" of fedora started.\n") && out.contains(" of debian started.\n"), "{out}");
    let started: Vec<_> = fake.script().started.drain(..).map(|one| (one.name, one.request_id)).collect();
    assert_eq!((started[0].0.as_str(), started[1].0.as_str()), ("projects/fedora", "projects/debian"));
    assert_ne!(started[0].1, started[1].1);

    // One that a selector finds is told, and needs no question.
    let (code, out, _) = run(&fake, &["project", "run", "-l", "tier in (1,3),site=a b"]);
    assert!(code == 0 && out.ends_with(" of debian started.\n"), "{out}");
    assert_eq!(fake.script().started.len(), 1);
    let (code, _, err) = run(&fake, &["project", "run", "-l", "tier!=1", "--watch"]);
    assert!(code == 2 && err.contains("--watch  follows one run"), "{err}");
    assert_eq!(run(&fake, &["agent", "drain", "-l", "role!=hub"]).0, 7);
}

#[test]
fn an_empty_selection_and_wrong_names_change_nothing() {
    let fake = Fake::start();
    for verb in ["run", "pause", "resume", "archive", "unarchive"] {
        let (code, out, err) = run(&fake, &["project", verb, "-l", "tier=9", "--yes"]);
        assert_eq!((code, out.as_str()), (3, ""), "{err}");
        assert!(err.contains(": no project fits \"tier=9\"\nnext: mirrorctl project list"), "{err}");
    }
    for words in [
        &["status", "-l", "tier=9"][..],
        &["run", "list", "-l", "tier=9"],
        &["agent", "undrain", "-l", "x=1"],
    ] {
        let (code, _, err) = run(&fake, words);
        assert!(code == 3 && err.contains(" fits \""), "{words:?}: {err}");
    }
    let (code, _, err) = run(&fake, &["project", "run", "debain", "fedora", "fedroa", "-y"]);
    assert_eq!(code, 3);
    assert_eq!(
        err,
        "error: no run started: 2 projects are not there; nothing was done\n  \
         debain  the nearest name is debian\n  fedroa  the nearest name is fedora\n\
         next: mirrorctl project list\n"
    );
    assert!(fake.script().started.is_empty());
    let (code, _, err) = run(&fake, &["project", "pause", "-l", "tier", "-l", "x in 1"]);
    assert!(code == 2 && err.contains("2 faults in what you typed") && err.contains("--selector"), "{err}");
    let (code, _, err) = run(&fake, &["project", "pause", "debian", "-l", "tier=1"]);
    assert!(code == 2 && err.contains("cannot be used with"), "{err}");
    assert_eq!(run(&fake, &["project", "pause"]).0, 2);
    let (code, _, err) = run(&fake, &["project", "pause", "a b", "--until", "friday"]);
    assert!(
        code == 2 && err.contains("2 faults") && err.contains("PROJECT  \"a b\"") && err.contains("--until"),
        "{err}"
    );
}

#[test]
fn each_outcome_is_told_and_the_end_says_that_some_failed() {
    let fake = Fake::start();
    let (code, out, err) = run(&fake, &["project", "pause", "-l", "tier in (1,2)", "--yes"]);
    assert_eq!((code, out.as_str()), (8, "debian paused; what runs goes on.\n"), "{err}");
    assert_eq!(
        err,
        "error: 1 of 2 projects not paused\n  fedora  no project \"projects/fedora\"\n\
         next: mirrorctl project show fedora\n"
    );
    let (code, out, _) = run(&fake, &["project", "pause", "-l", "tier in (1,2)", "--yes", "-o", "json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 8);
    let outcome = |index: usize| {
        let one = &answer["outcomes"][index];
        (one["name"].clone(), one["exit"].clone(), one["error"].clone(), one["answer"]["name"].clone())
    };
    assert_eq!(outcome(0), (json!("debian"), json!(0), Value::Null, json!("projects/debian")));
    let error = json!("no project \"projects/fedora\"");
    assert_eq!(outcome(1), (json!("fedora"), json!(3), error, Value::Null));
    // Of a selector programs read outcomes, however many it finds; of one name the answer, as ever.
    let (_, out, _) = run(&fake, &["project", "archive", "-l", "tier=1", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["outcomes"][0]["exit"], 0);
    let (_, out, _) = run(&fake, &["project", "archive", "debian", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["name"], "projects/debian");
    assert_eq!(
        run(&fake, &["project", "archive", "debian", "fedora", "-y", "-o", "name"]).1,
        "debian\nfedora\n"
    );
}

#[test]
fn agents_are_listed_by_what_they_are() {
    let fake = Fake::start();
    let words =
        ["-l", "role=edge,site!=x", "--connected=false", "--draining", "--revoked=false", "--declared-only"];
    let (code, out, _) = run(&fake, &[&["agent", "list", "-r"], &words[..]].concat());
    assert_eq!((code, out.as_str()), (0, "No agent is like that. Next: mirrorctl agent list\n"));
    let asked = fake.script().listed_agents.pop().unwrap();
    assert_eq!(
        asked.filter,
        "labels.role=edge connected=false draining=true revoked=false declared_only=true"
    );
    assert_eq!(asked.order_by, "name desc");
}

/// Types a command line, its last word begun, in a shell that has sourced our script; what it offers.
fn completed(fake: &Fake, shell: &str, words: &[&str]) -> Vec<String> {
    let ask = match shell {
        "bash" => {
            "source <(mirrorctl completion bash)\nCOMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9\n\
             _clap_complete_mirrorctl mirrorctl \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"\n\
             for one in \"${COMPREPLY[@]}\"; do printf '%s\\n' \"$one\"; done"
        }
        // Its menu, which wants a terminal, prints instead.
        "zsh" => {
            "compdef() { : }\n_describe() { print -rl -- ${(P)@[-1]} }\nsource <(mirrorctl completion zsh)\n\
             words=(\"$@\"); CURRENT=$#\n_clap_dynamic_completer_mirrorctl"
        }
        _ => "mirrorctl completion fish | source\ncomplete --do-complete \"$argv\"",
    };
    let home = fake.directory.path();
    let bin = Path::new(env!("CARGO_BIN_EXE_mirrorctl")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(bin.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let path = PathBuf::from(path.unwrap());
    let environment: [(&str, &Path); 4] =
        [("PATH", &path), ("HOME", home), ("XDG_CONFIG_HOME", home), ("MIRRORCTL_CONFIG", &fake.config)];
    let mut args = match shell {
        "bash" => vec!["--norc", "-c", ask, "bash"],
        "zsh" => vec!["-f", "-c", ask, "zsh"],
        _ => vec!["--no-config", "-c", ask],
    };
    args.extend(words);
    let offered = through(Path::new(shell), &args, &environment, "");
    // A description may stand behind a word.
    let word = |line: &str| line.split(['\t', ':']).next().unwrap_or_default().trim_end().to_owned();
    offered.lines().map(word).collect()
}

#[test]
fn shells_complete_words_and_the_fleets_names() {
    let fake = Fake::start();
    for shell in ["bash", "zsh", "fish"] {
        let completed = |words: &[&str]| completed(&fake, shell, words);
        assert_eq!(completed(&["mirrorctl", "project", "unarc"]), ["unarchive"], "{shell}");
        assert_eq!(completed(&["mirrorctl", "project", "show", "d"]), ["debian"], "{shell}");
        assert_eq!(completed(&["mirrorctl", "project", "pause", "debian", "f"]), ["fedora"], "{shell}");
        assert_eq!(completed(&["mirrorctl", "run", "watch", "fed"]), ["fedora"], "{shell}");
        assert_eq!(completed(&["mirrorctl", "run", "watch", "debian/"]), ["debian/01a1f7e0-6a99"], "{shell}");
        // What a shell would run, or a terminal obey, is no name.
        assert_eq!(completed(&["mirrorctl", "agent", "show", "e"]), ["edge1"], "{shell}");
        assert_eq!(completed(&["mirrorctl", "project", "list", "--agent", "ed"]), ["edge1"], "{shell}");
        assert_eq!(completed(&["mirrorctl", "context", "use", "d"]), ["default"], "{shell}");
        assert_eq!(completed(&["mirrorctl", "status", "-o", "y"]), ["yaml"], "{shell}");
        assert_eq!(completed(&["mirrorctl", "project", "show", ""]), ["debian", "fedora"], "{shell}");
        assert_eq!(completed(&["mirrorctl", "status", "--exit"]), ["--exit-code"], "{shell}");
    }
    assert!(!fake.directory.path().join("x").exists());
}

#[test]
fn without_a_coordinator_no_names_are_offered_and_nothing_is_said() {
    let fake = Fake::start();
    let text = std::fs::read_to_string(&fake.config).unwrap();
    // One that takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("server = \"{}\"", silent.local_addr().unwrap());
    let line = text.lines().find(|line| line.starts_with("server = ")).unwrap();
    for config in [text.replace(line, &server), String::new(), "no = [toml".to_owned()] {
        std::fs::write(&fake.config, config).unwrap();
        let begun = Instant::now();
        for shell in ["bash", "zsh", "fish"] {
            assert!(completed(&fake, shell, &["mirrorctl", "project", "show", "d"]).is_empty(), "{shell}");
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "the deadline of a completion is a second");
        assert_eq!(completed(&fake, "bash", &["mirrorctl", "project", "unarc"]), ["unarchive"]);
    }
}
