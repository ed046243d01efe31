//! The audit log as an administrator has it: each command that changes something leaves one event with old and new, and
//! no password or token is in any.

use std::fs;

use fleet_tests::{Fleet, FleetOptions, eventually};
use serde_json::Value;

/// The events that `mirrorctl audit` prints, oldest first.
pub(crate) fn log(fleet: &Fleet, args: &[&str]) -> Vec<Value> {
    let mut words = vec!["audit", "-o", "json"];
    words.extend(args);
    let printed = fleet.mirrorctl(&words).ok().stdout;
    printed.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

fn admins(fleet: &Fleet) -> Vec<Value> {
    log(fleet, &["--user", "admin", "--since", "1d"])
}

/// What a command must leave: the action, the resource, and one changed field with old and new.
type Left<'a> = (&'a str, &'a str, (&'a str, &'a str, &'a str));

/// Runs a command and looks at the one event that it leaves.
fn changes(fleet: &Fleet, args: &[&str], (action, resource, (field, old, new)): Left<'_>) {
    let before = admins(fleet).len();
    fleet.mirrorctl(args).ok();
    let events = admins(fleet);
    let [event] = &events[before..] else { panic!("{args:?} leaves {:#?}", &events[before..]) };
    assert_eq!(event["outcome"], "DONE", "{event:#}");
    assert!(event["action"].as_str().is_some_and(|all| all.ends_with(&format!(".{action}"))), "{event:#}");
    let rows = event["changes"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["field"] == field);
    let row = row.unwrap_or_else(|| panic!("{args:?}: no {field} in {event:#}"));
    assert_eq!((row["old"].as_str(), row["new"].as_str()), (Some(old), Some(new)), "{args:?}: {event:#}");
    assert_eq!(event["resource"], resource, "{args:?}");
}

/// Commands with what each must leave, in an order in which all of them work; `first` and `second` are files with
/// passwords.
fn steps<'a>(first: &'a str, second: &'a str) -> Vec<(Vec<&'a str>, Left<'a>)> {
    const URI: &str = "rsync://ftp.example.net/debian/";
    const NEW_URI: &str = "rsync://ftp2.example.net/debian/";
    let (debian, edge1, host) = ("projects/debian", "agents/edge1", "upstreams/ftp.example.net");
    let add =
        ["project", "add", "debian", "--from", URI, "--to", "a1:debian", "--origin", "edge1", "--paused"];
    let edit = ["project", "edit", "debian"];
    let (old_host, new_host) = ("ftp.example.net", "ftp2.example.net");
    let replace = vec!["upstream", "replace", old_host, new_host, "--drop-passwords", "--yes"];
    let (every, reason, password) = ("schedule.interval.every", "paused.reason", "upstreams[0].password");
    let with = |words: &[&'a str], more: &[&'a str]| [words, more].concat();
    vec![
        (
            with(&add, &["--user", "me", "--password-file", first]),
            ("CreateProject", debian, (password, "", "(set)")),
        ),
        (
            with(&edit, &["--user", "me", "--password-file", second]),
            ("UpdateProject", debian, (password, "(set)", "(changed)")),
        ),
        (with(&edit, &["--every", "6h"]), ("UpdateProject", debian, (every, "", "6h"))),
        (with(&edit, &["--every", "8h"]), ("UpdateProject", debian, (every, "6h", "8h"))),
        (vec!["project", "resume", "debian"], ("ResumeProject", debian, (reason, "created paused", ""))),
        (
            vec!["project", "pause", "debian", "--reason", "array swap"],
            ("PauseProject", debian, (reason, "", "array swap")),
        ),
        (vec!["agent", "drain", "edge1"], ("DrainAgent", edge1, ("draining", "false", "true"))),
        (vec!["agent", "undrain", "edge1"], ("UndrainAgent", edge1, ("draining", "true", "false"))),
        (vec!["freeze", "--reason", "power"], ("Freeze", "fleet", ("frozen", "", "power"))),
        (vec!["thaw"], ("Thaw", "fleet", ("frozen", "power", ""))),
        (vec!["upstream", "set", old_host, "--slots", "3"], ("UpdateUpstream", host, ("slots", "", "3"))),
        (replace, ("ReplaceUpstream", debian, ("upstreams[0].uri", URI, NEW_URI))),
        (
            vec!["project", "archive", "debian", "--reason", "gone"],
            ("ArchiveProject", debian, ("archived.reason", "", "gone")),
        ),
        (
            vec!["project", "unarchive", "debian"],
            ("UnarchiveProject", debian, ("archived.reason", "gone", "")),
        ),
        (
            vec!["project", "rename", "debian", "debian-old"],
            ("RenameProject", debian, ("name", debian, "projects/debian-old")),
        ),
        (
            vec!["project", "rename", "debian-old", "debian"],
            ("RenameProject", "projects/debian-old", ("name", "projects/debian-old", debian)),
        ),
        (
            vec!["project", "delete", "debian", "--yes"],
            ("DeleteProject", debian, ("destination", "a1:debian", "")),
        ),
        (
            vec!["agent", "revoke", "edge1", "--reason", "sold", "--yes"],
            ("RevokeAgent", edge1, ("revoke_reason", "", "sold")),
        ),
        (vec!["agent", "delete", "edge1", "--yes"], ("DeleteAgent", edge1, ("revoke_reason", "sold", ""))),
    ]
}

#[test]
fn each_changing_command_leaves_one_event_with_old_and_new_and_no_secret() {
    const PASSWORD: &str = "planted-hunter2";
    const OTHER: &str = "planted-correct-horse";
    let fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    let file = |name: &str, text: &str| {
        let path = fleet.path().join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let (first, second) = (file("first", PASSWORD), file("second", OTHER));
    for (args, left) in steps(&first, &second) {
        changes(&fleet, &args, left);
    }
    let token = fleet.json(&["join-token", "create", "--name", "edge9", "--ttl", "1h"]);
    let name = token["name"].as_str().expect("a name").to_owned();
    let made = admins(&fleet).pop().expect("an event");
    assert_eq!(made["resource"].as_str(), Some(name.as_str()), "{made:#}");
    let id = name.trim_start_matches("joinTokens/");
    let delete = vec!["join-token", "delete", id, "--yes"];
    changes(&fleet, &delete, ("DeleteJoinToken", &name, ("agent", "edge9", "")));
    let all = format!("{:?}", log(&fleet, &["--since", "1d"]));
    for secret in [PASSWORD, OTHER, token["token"].as_str().expect("a token")] {
        assert!(!all.contains(secret), "{secret} is in the audit log");
    }
}

#[test]
fn runs_and_refusals_are_told_and_nothing_that_is_read() {
    let fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    fleet.add_project("debian", &[]).ok();
    let debian = "projects/debian";
    changes(&fleet, &["project", "run", "debian"], ("RunProject", debian, ("trigger.kind", "", "user")));
    fleet.await_run("debian", "SUCCEEDED");
    let before = admins(&fleet).len();
    for read in
        [&["status"][..], &["project", "show", "debian"], &["run", "list", "debian"], &["agent", "list"]]
    {
        fleet.mirrorctl(read).ok();
    }
    let refused = fleet.mirrorctl(&["run", "cancel", "debian", "--yes"]);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    let events = eventually("the refusal is recorded", || {
        Some(log(&fleet, &["--resource", debian, "--refused"])).filter(|events| !events.is_empty())
    });
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["action"], "RunService.CancelRun");
    assert_eq!(admins(&fleet).len(), before + 1, "what is read leaves nothing");
    // How the agent came in: by which token, from where.
    let joined = log(&fleet, &["--agent", "edge1", "--action", "Enroll"]);
    let from = joined[0]["from"].as_str().expect("an address");
    assert!(joined.len() == 1 && from.starts_with("127."), "{joined:?}");
    let table = fleet.mirrorctl(&["audit", "--resource", debian]).ok().stdout;
    assert!(table.contains("CreateProject") && table.contains("REFUSED"), "{table}");
}
