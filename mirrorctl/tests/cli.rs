//! The real binary without a coordinator: schedules, contexts, help, and what is said when nobody answers.

#![allow(clippy::unwrap_used, reason = "a test helper that fails is a test that fails")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

#[allow(clippy::disallowed_methods, reason = "the program under test")]
fn mirrorctl(home: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mirrorctl"))
        .args(words)
        .env_clear()
        .env("HOME", home)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap()
}

fn run(words: &[&str]) -> (i32, String, String) {
    let home = tempfile::tempdir().unwrap();
    told(&mirrorctl(home.path(), words))
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn json(words: &[&str]) -> Value {
    let (code, out, err) = run(words);
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.lines().count(), 1, "one object on one line: {out}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn schedule_next_from_fields() {
    let answer = json(&[
        "schedule",
        "next",
        "--field",
        "minute=*/5",
        "--field",
        "day=last fri",
        "--time-zone",
        "Europe/London",
        "--start",
        "2026-11-01",
        "--end",
        "2027-06-01",
        "--now",
        "2026-11-20T07:42:00Z",
        "--count",
        "2",
        "--dst-overlap",
        "once",
        "-o",
        "json",
    ]);
    assert_eq!(
        answer,
        serde_json::json!({
            "fires": ["2026-11-27T00:00:00+00:00", "2026-11-27T00:05:00+00:00"], "exhausted": false, "notes": []
        })
    );
}

#[test]
fn schedule_next_tells_what_a_clock_change_does() {
    let words = [
        "schedule",
        "next",
        "--field",
        "hour=2",
        "--field",
        "minute=30",
        "--time-zone",
        "Europe/Berlin",
        "--now",
        "2027-03-27",
        "--count",
        "2",
    ];
    let (code, out, _) = run(&words);
    assert_eq!(code, 0);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("2027-03-27 02:30:00 +01:00   "), "{out}");
    assert!(lines[1].starts_with("2027-03-28 03:30:00 +02:00   "), "{out}");
    assert!(lines[1].ends_with("   02:30 does not exist that day: shifted"), "{out}");
}

#[test]
fn other_forms_and_exhausted_schedules() {
    let crontab = json(&["schedule", "next", "--crontab", "0 3 * * 0", "--now", "2026-11-20", "-o", "json"]);
    assert_eq!(crontab["fires"][0], "2026-11-22T03:00:00+00:00");
    assert_eq!(crontab["fires"].as_array().unwrap().len(), 8);
    let every =
        json(&["schedule", "next", "--every", "6h", "--now", "2026-11-20", "--count", "2", "-o", "json"]);
    assert_eq!(every["fires"], serde_json::json!(["2026-11-20T00:00:00+00:00", "2026-11-20T06:00:00+00:00"]));
    let keys: Vec<&String> = every.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["fires", "exhausted", "notes"], "and nothing else");
    let weekly = json(&["schedule", "next", "--every", "weekly", "--now", "2026-11-20", "-o", "json"]);
    assert_eq!(weekly["fires"][0], "2026-11-23T00:00:00+00:00");
    assert!(weekly["notes"][0].as_str().unwrap().contains("its own moment"), "{weekly}");
    let never = json(&["schedule", "next", "--field", "month=2", "--field", "day=30", "-o", "json"]);
    assert_eq!((&never["fires"], &never["exhausted"]), (&serde_json::json!([]), &Value::Bool(true)));
    assert_eq!(never["notes"].as_array().unwrap().len(), 1);
    let backwards = ["--start", "2026-12-01", "--end", "2026-11-01", "--field", "hour=1", "-o", "json"];
    assert_eq!(json(&[&["schedule", "next"][..], &backwards].concat())["exhausted"], true);
    let last = ["--end", "2026-11-21", "--now", "2026-11-20T12:00:00Z", "--field", "hour=0", "-o", "json"];
    let last = json(&[&["schedule", "next"][..], &last].concat());
    assert_eq!((last["fires"].as_array().unwrap().len(), &last["exhausted"]), (1, &Value::Bool(true)));
}

#[test]
fn bad_definitions_exit_2_with_every_reason() {
    let (code, out, err) =
        run(&["schedule", "next", "--field", "minute=*/70", "--field", "hour=25", "--time-zone", "IST"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.starts_with("error: no fires computed: 3 faults in what you typed\n"), "{err}");
    for label in ["--time-zone", "--field hour", "--field minute"] {
        assert!(err.contains(&format!("  {label}")), "{label}: {err}");
    }
    for words in [["--every", "5x"], ["--crontab", "* * *"], ["--field", "minut=5"], ["--now", "soon"]] {
        assert_eq!(run(&[&["schedule", "next"][..], &words].concat()).0, 2, "{words:?}");
    }
}

/// A6: every line of the scheduler's vectors, through the command line.
#[test]
fn schedule_next_agrees_with_the_vectors() {
    use clap::Parser as _;
    use mirrorctl::cli::{Cli, Command, ScheduleCommand};
    let vectors = include_str!("../../fleet/tests/vectors/cron.jsonl");
    let (mut fired, mut refused) = (0, 0);
    for line in vectors.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let quirk = case["tags"].as_array().unwrap().iter().any(|tag| tag == "quirk");
        let mut words: Vec<String> =
            ["mirrorctl", "schedule", "next", "--dst-overlap", "both"].map(str::to_owned).into();
        for (name, text) in case["fields"].as_object().unwrap() {
            words.extend(["--field".to_owned(), format!("{name}={}", text.as_str().unwrap())]);
        }
        for (flag, key) in
            [("--time-zone", "timezone"), ("--start", "start_date"), ("--end", "end_date"), ("--now", "now")]
        {
            words.extend(
                case[key].as_str().map(|text| [flag.to_owned(), text.to_owned()]).into_iter().flatten(),
            );
        }
        let Command::Schedule(ScheduleCommand::Next(args)) = Cli::try_parse_from(&words).unwrap().command
        else {
            panic!("{words:?}")
        };
        let answer = mirrorctl::cmd::schedule::next(&args, chrono::DateTime::UNIX_EPOCH);
        if case["error"] == true || quirk {
            // Our grammar of times is the wider one, and reads IST.
            refused += usize::from(answer.is_err());
            assert!(
                answer.is_err() || case["error_kind"].as_str().is_some_and(|kind| kind.ends_with("_date"))
            );
            continue;
        }
        let Ok(answer) = answer else { panic!("refused: {line}") };
        if line.contains("18:00:00 IST") {
            continue;
        }
        let expect = case.get("clean").unwrap_or_else(|| &case["expect"]).as_array().unwrap();
        let instant = |text: &str| chrono::DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        let expect: Vec<_> = expect.iter().map(|time| instant(time.as_str().unwrap())).collect();
        let got: Vec<_> = answer.fires.iter().map(|fire| fire.time.to_utc()).take(expect.len()).collect();
        assert_eq!(got, expect, "{line}");
        if case["exhausted"] == true {
            assert!(answer.exhausted && answer.fires.len() == expect.len(), "{line}");
        }
        fired += 1;
    }
    assert!(fired > 1_000 && refused > 200, "{fired} fired, {refused} refused");
}

/// A7: dates as people write them, told what was understood, or refused with the reason.
#[test]
fn parse_date() {
    let answer =
        json(&["schedule", "parse-date", "2026-11-20 18:00", "--time-zone", "Europe/Berlin", "-o", "json"]);
    assert_eq!(answer, serde_json::json!({"time": "2026-11-20T17:00:00Z", "notes": []}));
    let indian = json(&["schedule", "parse-date", "Tue May 6 18:00:00 IST 2014", "-o", "json"]);
    assert_eq!(indian["time"], "2014-05-06T12:30:00Z");
    assert_eq!(indian["notes"].as_array().unwrap().len(), 1);
    let (code, out, err) = run(&["schedule", "parse-date", "tomorrow 6pm", "-o", "json"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("TEXT  \"tomorrow 6pm\""), "{err}");
}

#[test]
fn help_version_and_manual() {
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, 0);
    assert!(out.contains(mirrorctl::exit::HELP), "{out}");
    assert_eq!(run(&["--version"]).0, 0);
    let (code, out, _) = run(&["man"]);
    assert!(code == 0 && out.contains(".TH mirrorctl") && out.contains("watched run held"), "{out}");
    let home = tempfile::tempdir().unwrap();
    let pages = home.path().join("man");
    assert_eq!(mirrorctl(home.path(), &["man", "--dir", pages.to_str().unwrap()]).status.code(), Some(0));
    assert!(pages.join("mirrorctl.1").exists() && pages.join("mirrorctl-project-add.1").exists());
}

#[test]
fn typing_errors_exit_2() {
    for words in [&["projct"][..], &["project", "add"], &["status", "-o", "xml"], &[]] {
        let (code, out, err) = run(words);
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}");
        assert!(!err.is_empty());
    }
}

#[test]
fn toml_is_the_form_of_manifests_alone() {
    for words in
        [&["status", "-o", "toml"][..], &["-o", "toml", "project", "list"], &["agent", "show", "x", "-otoml"]]
    {
        let (code, out, err) = run(words);
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}");
        assert!(err.contains("--output toml: only export and import print it"), "{err}");
    }
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("crontab"), "0 1 * * * rsync -a h.example.org::m/ /srv/m\n").unwrap();
    let file = home.path().join("crontab").display().to_string();
    let words = ["import", "crontab", &file, "--map-root", "/srv=a1", "--origin", "edge1", "-o", "toml"];
    let (code, out, err) = told(&mirrorctl(home.path(), &words));
    assert!(code == 0 && out.starts_with("schema = \"mirror.manifest.v1\""), "{err}");
    // No coordinator is known here: the format is not what is wrong.
    assert!(!run(&["export", "-o", "toml"]).2.contains("--output"));
}

#[test]
fn without_a_context_the_next_step_is_told() {
    let (code, out, err) = run(&["status"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.starts_with("error: no coordinator is known"), "{err}");
    assert!(err.lines().last().unwrap().starts_with("next: export MIRRORCTL_CONFIG="), "{err}");
}

#[test]
fn contexts() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join(".config/mirrorctl");
    std::fs::create_dir_all(&directory).unwrap();
    let entry = |name: &str, server: &str| {
        format!(
            "[contexts.{name}]\nserver = \"{server}\"\nca = \"ca.pem\"\ncertificate = \"a.pem\"\nkey = \"a.key\"\n"
        )
    };
    let text =
        format!("current = \"default\"\n{}{}", entry("default", "127.0.0.1:7443"), entry("far", "far"));
    std::fs::write(directory.join("config.toml"), text).unwrap();
    let (code, out, _) = told(&mirrorctl(home.path(), &["context", "list"]));
    assert_eq!(
        (code, out.as_str()),
        (0, "CURRENT  NAME     SERVER\n*        default  127.0.0.1:7443\n         far      far\n")
    );
    assert_eq!(told(&mirrorctl(home.path(), &["context", "use", "far"])).0, 0);
    let (_, out, _) = told(&mirrorctl(home.path(), &["context", "show", "-o", "json"]));
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&shown["name"], &shown["server"]), (&Value::from("far"), &Value::from("far:7443")));
    assert_eq!(shown["ca"], directory.join("ca.pem").to_str().unwrap());
    assert_eq!(told(&mirrorctl(home.path(), &["context", "use", "fra"])).0, 3);
    // The files of the context do not exist: that is told before anything is dialled.
    let (code, _, err) = told(&mirrorctl(home.path(), &["status"]));
    assert!(code == 2 && err.contains("ca.pem"), "{err}");
}
