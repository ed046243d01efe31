use super::*;
use mirror_proto::v1::schedule::Cadence;

const WHOLE: &str = r#"schema = "mirror.manifest.v1"

# From the old host.
[[projects]]
name = "debian"
display_name = "Debian GNU/Linux"
labels.tier = "1"
labels."x.y" = 'a "b"'
upstreams = [
  { uri = "rsync://a.example.net/debian/", user = "mirror", password_file = "debian.password" },
  { uri = "rsync://b.example.net/debian/" },
]
destination = "a1:debian"
schedule.cron.hour = "*/6"
schedule.cron.minute = "10"
schedule.time_zone = "Europe/Berlin"
schedule.jitter = "5m"
schedule.overlap_policy = "skip"
schedule.windows = [{ start = "22:00", end = "06:00", days_of_week = ["sat", "sun"] }]
rsync.options = ["--exclude=/iso/", "-H"]
rsync.run_timeout = "1d12h"
placement.origins = [{ agent = "ftp1" }]
placement.replicas = [
  { agent = "edge1", destination = "a2:debian" },
  { selector = "role=edge" },
]
placement.drain_timeout = "0s"
guard.max_delete = 0
marker.kind = "debian_trace"
marker.path = "project/trace/a.example.net"
owner = "maria"
paused = "moving to a2"

[[projects]]
name = "gnu"
upstreams = [{ uri = "rsync://ftp.gnu.org/gnu/" }]
destination = "a1:gnu"
schedule.interval.every = "6h"
placement.origins = [{ agent = "ftp1" }]

[[projects]]
name = "loki"
paused.reason = 'until "x" is back'
paused.until = "2027-01-31T18:00:00.250Z"
archived = "upstream is gone"

[[projects]]
name = "etc"
paused.until = "2027-01-31T18:00:00Z"
archived = true

[[projects]]
name = "back"
paused = false
archived = false
"#;

fn read(text: &str) -> Manifest {
    Manifest::parse("nothing applied", "mirrors.toml", text).unwrap()
}

fn refused(text: &str) -> String {
    Manifest::parse("nothing applied", "mirrors.toml", text).unwrap_err().to_string()
}

#[test]
fn a_manifest_is_read_as_the_api_has_it() {
    let manifest = read(WHOLE);
    let debian = &manifest.projects[0];
    assert_eq!(debian.project.name, "projects/debian");
    assert_eq!(debian.project.owner, "users/maria");
    assert_eq!(debian.project.labels["x.y"], "a \"b\"");
    assert_eq!(debian.paused, Some(Paused::Yes("moving to a2".to_owned())));
    assert_eq!(debian.password_files[&0], Path::new("debian.password"));
    let schedule = debian.project.schedule.as_ref().unwrap();
    assert_eq!((schedule.jitter.unwrap().seconds, schedule.overlap_policy()), (300, v1::OverlapPolicy::Skip));
    assert!(matches!(&schedule.cadence, Some(Cadence::Cron(cron)) if cron.hour == "*/6"));
    let placement = debian.project.placement.as_ref().unwrap();
    assert_eq!(placement.origins[0].agent, "agents/ftp1");
    assert_eq!(placement.drain_timeout.unwrap().seconds, 0);
    assert_eq!(debian.project.guard.as_ref().unwrap().max_delete, Some(0));
    assert_eq!(debian.project.marker.as_ref().unwrap().kind(), v1::marker::Kind::DebianTrace);
    assert_eq!((&manifest.projects[1].paused, &manifest.projects[1].archived), (&None, &None));
    let loki = &manifest.projects[2];
    let Some(Paused::Until(reason, until)) = &loki.paused else { panic!("{:?}", loki.paused) };
    assert_eq!((reason.as_str(), until.timestamp_millis()), ("until \"x\" is back", 1_801_418_400_250));
    assert_eq!(loki.archived, Some(Archived::Yes("upstream is gone".to_owned())));
    assert_eq!(manifest.projects[3].archived, Some(Archived::Yes(String::new())));
    assert_eq!(manifest.projects[4].archived, Some(Archived::No));
    // And so it is on the wire, and back.
    for one in &manifest.projects {
        let again = Declared::from(v1::DeclaredProject::from(one));
        assert_eq!((&again.paused, &again.archived), (&one.paused, &one.archived));
    }
}

/// Texts that turn the direction of writing are data, and no terminal gets them as they are.
#[test]
fn what_a_terminal_would_obey_is_escaped_and_read_back() {
    use crate::units::{harmless, harmless_json};
    let hostile = "\u{200f}דביאן \"\\'\n\t\u{61c}\u{2028}\u{202e}\u{2069}\u{7f}\u{9b}\u{1b}[2J";
    let mut manifest = read(WHOLE);
    let project = &mut manifest.projects[0].project;
    project.display_name = hostile.to_owned();
    project.labels.insert("a\u{200e}b".to_owned(), hostile.to_owned());
    project.rsync.get_or_insert_default().options.push(format!("--exclude={hostile}"));
    manifest.projects[0].paused = Some(Paused::Yes("\u{2066}why".to_owned()));
    let (toml, json) = (manifest.to_toml(), manifest.to_json());
    assert!(toml.contains(r#"paused = "\u2066why""#), "{toml}");
    assert_eq!((harmless(&toml), harmless_json(&json)), (toml.clone(), json.clone()));
    assert_eq!(harmless(&json), json);
    for text in [toml, json] {
        let again = Manifest::parse("nothing applied", "-", &text).unwrap();
        assert_eq!(again.projects[0].project, manifest.projects[0].project, "{text}");
        assert_eq!(again.projects[0].paused, manifest.projects[0].paused, "{text}");
    }
}

/// That no flag stands in the place of the default ones is another thing than that the default ones hold.
#[test]
fn a_default_part_that_is_empty_is_kept() {
    let none = "rsync.defaults.words = []\nrsync.delete = \"none\"\n";
    let text = WHOLE.replace("rsync.run_timeout = \"1d12h\"\n", none);
    let manifest = read(&text);
    let rsync = manifest.projects[0].project.rsync.as_ref().unwrap();
    assert_eq!(rsync.defaults.as_ref().map(|defaults| defaults.words.len()), Some(0));
    assert!(manifest.to_toml().contains(none), "{}", manifest.to_toml());
    for again in [manifest.to_toml(), manifest.to_json()] {
        assert_eq!(
            Manifest::parse("nothing applied", "-", &again).unwrap().projects[0].project,
            manifest.projects[0].project
        );
    }
}

#[test]
fn a_reason_that_is_empty_is_none() {
    for blank in ["", "  "] {
        let told = refused(&WHOLE.replace("\"moving to a2\"", &format!("\"{blank}\"")));
        assert!(told.contains("paused: is an empty reason; write true, false or the reason"), "{told}");
    }
}

#[test]
fn what_is_written_is_what_was_read_in_both_formats() {
    let mut manifest = read(WHOLE);
    manifest.projects[0].remarks = vec!["From the old host.".to_owned()];
    assert_eq!(manifest.to_toml(), WHOLE);
    let json = manifest.to_json();
    let again = Manifest::parse("nothing applied", "-", &json).unwrap();
    assert_eq!(again.to_json(), json);
    for (one, other) in manifest.projects.iter().zip(&again.projects) {
        assert_eq!((&one.project, &one.paused), (&other.project, &other.paused));
        assert_eq!(one.archived, other.archived);
        assert_eq!(one.password_files, other.password_files);
    }
}

#[test]
fn defaults_are_left_out() {
    let project = v1::Project {
        name: "projects/x".to_owned(),
        rsync: Some(v1::RsyncSettings::default()),
        schedule: Some(v1::Schedule { cadence: Some(Cadence::Manual(())), ..v1::Schedule::default() }),
        etag: "abc".to_owned(),
        ..v1::Project::default()
    };
    let manifest = Manifest { projects: vec![Declared { project, ..Declared::default() }] };
    assert_eq!(manifest.to_toml(), "schema = \"mirror.manifest.v1\"\n\n[[projects]]\nname = \"x\"\n");
}

#[test]
fn numbers_and_times_stand_for_what_was_typed() {
    let text = "schema = \"mirror.manifest.v1\"\n[[projects]]\nname = \"x\"\nschedule.cron.minute = 10\n\
                schedule.start_time = 2026-12-01T00:00:00Z\nlabels.tier = 1\nschedule.manual = false\n";
    let project = &read(text).projects[0].project;
    let schedule = project.schedule.as_ref().unwrap();
    assert_eq!(schedule.start_time, "2026-12-01T00:00:00Z");
    assert!(matches!(&schedule.cadence, Some(Cadence::Cron(cron)) if cron.minute == "10"));
    assert_eq!(project.labels["tier"], "1");
}

#[test]
fn all_faults_of_all_projects_are_told_at_once_with_their_lines() {
    let text = r#"schema = "mirror.manifest.v1"
project = 5
[[projects]]
name = "fedora"
upstreams = [{ url = "rsync://h/m" }, { uri = "rsync://h/n", password = "x" }]
etag = "1"
schedule.crontab = "@daily"
schedule.interval.every = "soon"
[[projects]]
destination = 1.5
guard.max_delete = -1
rsync.no_defaults = "yes"
schedule.overlap_policy = "drop"
[[projects]]
name = "Fedora"
paused = 5
archived = ["x"]
[[projects]]
name = "x"
paused = { until = "soon", why = "x", reason = 5 }
"#;
    assert_eq!(
        refused(text),
        r#"error: nothing applied: 16 faults in mirrors.toml
  line 2   project: no such field; did you mean projects?
  line 5   project "fedora" upstreams[0].url: no such field; did you mean uri?
  line 5   project "fedora" upstreams[1].password_file: does not belong into a file that others read; write password_file = "FILE"
  line 6   project "fedora" etag: is told by the coordinator and cannot be set
  line 8   project "fedora" schedule.interval: crontab is given too; give one of them
  line 9   project "" name: is required
  line 10  project "" destination: must be a text, not a broken number
  line 11  project "" guard.max_delete: -1: must be a whole number from 0 to 9223372036854775807
  line 12  project "" rsync.no_defaults: must be true or false, not a text
  line 13  project "" schedule.overlap_policy: "drop": must be one of buffer-one, skip
  line 16  project "Fedora" paused: must be true, false, the reason as a text, or a table with until, not a number
  line 17  project "Fedora" archived: must be true, false or the reason as a text, not a list
  line 20  project "x" paused.until: "soon": not a time; write 2026-11-20, 2026-11-20 18:00, RFC 3339 (2026-11-20T18:00:00Z), RFC 2822, or what date -u prints
  line 20  project "x" paused.why: no such field
  line 20  project "x" paused.reason: must be a text, not a number
  line 15  project "Fedora" name: is declared twice, first at line 4
"#
    );
}

#[test]
fn a_file_of_something_else_is_refused() {
    for (text, expect) in [
        ("a = ", "line 1  is no TOML"),
        ("[[projects]]\nname = \"x\"\n", "schema  is missing; write schema = \"mirror.manifest.v1\""),
        ("schema = \"mirror.manifest.v2\"\n", "line 1  schema: \"mirror.manifest.v2\"; this mirrorctl reads"),
        (
            "schema = \"mirror.manifest.v1\"\nprojects = 5\n",
            "line 2  projects: must be a list of tables, not a number",
        ),
    ] {
        let told = refused(text);
        assert!(told.contains(expect), "{text}: {told}");
    }
    assert_eq!(read("schema = \"mirror.manifest.v1\"\n").projects, []);
}

#[test]
fn a_directory_is_one_manifest_and_passwords_are_read_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    put("b.json", r#"{"schema": "mirror.manifest.v1", "projects": [{"name": "b", "destnation": "a1:b"}]}"#);
    put("a.toml", WHOLE);
    put("notes.txt", "no manifest");
    let refused = || Manifest::open("nothing applied", directory.path()).unwrap_err().to_string();
    let fault = refused();
    assert!(
        fault.contains(
            "b.json projects[0]  project \"b\" destnation: no such field; did you mean destination?"
        ),
        "{fault}"
    );
    // What is wrong with the texts does not hide a password's file that is not there.
    assert!(fault.contains("a.toml line 10") && fault.contains("upstreams[0].password_file: "), "{fault}");
    put("b.json", r#"{"schema": "mirror.manifest.v1", "projects": [{"name": "GNU"}]}"#);
    assert!(refused().contains("project \"GNU\" name: is declared twice, first at "), "{}", refused());
    std::fs::remove_file(directory.path().join("b.json")).unwrap();
    let fault = refused();
    assert!(fault.contains("  line 10") && fault.contains("upstreams[0].password_file: "), "{fault}");
    put("debian.password", "hunter2\n");
    let manifest = Manifest::open("nothing applied", directory.path()).unwrap();
    assert_eq!(manifest.projects[0].project.upstreams[0].password.as_deref(), Some("hunter2"));
    assert!(!manifest.to_toml().contains("hunter2") && !manifest.to_json().contains("hunter2"));
    assert!(!format!("{manifest:?}").contains("hunter2"));
}

#[test]
fn the_coordinators_faults_stand_at_their_lines() {
    let manifest = read(WHOLE);
    let faults = [
        (
            "projects[0].project.placement.replicas[1].selector".to_owned(),
            "\"role=edge\": matches no agent".to_owned(),
        ),
        ("projects[1].project.upstreams[0].password".to_owned(), "needs a user".to_owned()),
        ("request_id".to_owned(), "was used before".to_owned()),
    ];
    let told = manifest.located("nothing applied", "mirrors.toml", &faults).to_string();
    assert_eq!(
        told,
        "error: nothing applied: 3 faults in mirrors.toml\n  \
         line 25     project \"debian\" placement.replicas[1].selector: \"role=edge\": matches no agent\n  \
         line 36     project \"gnu\" upstreams[0].password_file: needs a user\n  \
         request_id  was used before\n"
    );
}
