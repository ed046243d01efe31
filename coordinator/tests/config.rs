//! The configuration from outside: its three sources, its faults, and the page for people that is generated from its
//! table.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::Path};

use mirror_coordinator::config::{self, Config, KEYS, LogFormat, Overrides, Reflection};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");

fn parse(text: &str) -> Result<Config, config::ConfigError> {
    config::parse(text, &Overrides::default(), Path::new("/etc/mirror"))
}

#[test]
fn the_page_for_people_is_what_the_table_says() {
    let wanted = config::reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(PAGE, &wanted).unwrap();
    }
    let found = fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/configuration.md is stale: UPDATE_DOCS=1 cargo test -p mirror-coordinator --test config"
    );
}

#[test]
fn an_empty_file_is_the_defaults_and_every_default_is_accepted_as_text() {
    let config = parse("").unwrap();
    assert_eq!(config, Config { data_dir: "/etc/mirror".into(), ..Config::default() });
    let mut again = Config::default();
    for key in KEYS {
        let text = (key.show)(&config);
        if !text.is_empty() || key.name == "otlp.endpoint" {
            (key.set)(&mut again, &text).unwrap_or_else(|rule| panic!("{} = {text:?}: {rule}", key.name));
        }
    }
    assert_eq!(again, config);
}

#[test]
fn every_key_can_be_set_in_the_file() {
    let config = parse(
        r#"
        data_dir = "state"
        trust_domain = "mirror.example.org"
        server_names = ["coordinator.example.org", "192.0.2.1", "2001:db8::1"]
        grpc_listen = ":9000"
        http_listen = "[::1]:9001"
        reflection = "open"
        [log]
        format = "json"
        filter = "warn,mirror_coordinator=debug"
        [otlp]
        endpoint = "http://127.0.0.1:4317"
        [limits]
        agent_slots = 3
        volume_slots = "2"
        upstream_spacing = "0"
        lost_after = "90min"
        [history]
        runs = 1_000
        [backup]
        keep = 0
        [housekeeping]
        watchdog = "* * * * * *"
        "#,
    )
    .unwrap();
    assert_eq!(config.data_dir, Path::new("/etc/mirror/state"));
    assert_eq!(config.trust_domain.unwrap().as_str(), "mirror.example.org");
    assert_eq!(config.server_names.len(), 3);
    assert_eq!(config.grpc_listen.to_string(), "0.0.0.0:9000");
    assert_eq!(config.http_listen.to_string(), "[::1]:9001");
    assert_eq!((config.reflection, config.log_format), (Reflection::Open, LogFormat::Json));
    assert_eq!((config.limits.agent_slots, config.limits.volume_slots), (3, 2));
    assert!(config.limits.upstream_spacing.is_zero());
    assert_eq!(config.limits.lost_after.as_secs(), 5_400);
    assert_eq!((config.history_runs, config.backups), (1_000, 0));
}

#[test]
fn all_faults_are_told_at_once_with_place_value_and_rule() {
    let text = "grpc_listen = \"nowhere\"\nreflektion = \"users\"\n[limits]\nagent_slots = 0\nlost_after = \"soon\"\n\
                [housekeeping]\nsweep = \"* * *\"\n";
    let overrides = Overrides::default().with("log.filter", "a=b=c").with("reflection", "maybe");
    let error = config::parse(text, &overrides, Path::new(".")).unwrap_err();
    let told: Vec<String> = error.faults.iter().map(ToString::to_string).collect();
    let wanted = [
        "grpc_listen (line 1)  \"nowhere\": wanted is ADDRESS:PORT",
        "line 2  reflektion: no such key; did you mean reflection?",
        "limits.agent_slots (line 4)  \"0\": must be a number from 1 to 10000",
        "limits.lost_after (line 5)  \"soon\": wanted is a time such as 10s",
        "housekeeping.sweep (line 7)  \"* * *\": wanted are six fields",
        "--reflection  \"maybe\": must be open, users or off",
        "--log-filter  \"a=b=c\": ",
    ];
    assert_eq!(told.len(), wanted.len(), "{told:#?}");
    for (told, wanted) in told.iter().zip(wanted) {
        assert!(told.starts_with(wanted), "{told:?} does not begin with {wanted:?}");
    }
}

#[test]
fn what_is_no_toml_or_of_the_wrong_kind_is_told_too() {
    for (text, wanted) in [
        ("a = = b\nreflection = \"never\"", "line 1  "),
        ("server_names = [1, 2]", "server_names (line 1)  wanted is a list of texts"),
        ("[limits.agent_slots]\nmax = 1", "line 2  limits.agent_slots.max: no such key"),
        (
            "http_listen = \"127.0.0.1:7443\"\ngrpc_listen = \"127.0.0.1:7443\"",
            "http_listen  \"127.0.0.1:7443\": is the",
        ),
        (
            "otlp.endpoint = \"https://collector\"",
            "otlp.endpoint (line 1)  \"https://collector\": wanted is http://",
        ),
        ("server_names = [\"a b\"]", "server_names (line 1)  \"a b\": \"a b\" is neither"),
    ] {
        let error = parse(text).unwrap_err();
        let told = error.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(told.contains(wanted), "{text:?}: {told}");
    }
}

#[test]
fn a_file_that_is_not_there_or_far_too_large_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coordinator.toml");
    let load = || config::load(Some(&path), &Overrides::default()).unwrap_err().faults.remove(0).text;
    assert!(load().contains("`mirror-coordinator init` makes one"));
    fs::write(&path, "#".repeat(usize::try_from(config::FILE_BYTES_MAX).unwrap() + 1)).unwrap();
    assert!(load().contains("is larger than"));
}

#[test]
fn what_waits_for_a_restart_is_named() {
    let (old, new) = (parse("").unwrap(), parse("limits.agent_slots = 3\nreflection = \"open\"").unwrap());
    assert_eq!(old.differing(&new), ["reflection", "limits.agent_slots"]);
    assert!(old.differing(&old).is_empty());
}

#[test]
fn faults_repeat_nothing_that_a_terminal_obeys() {
    let text = "glpc_l\u{1}\u{7f}ten = \"x\"\n";
    let escaped = "\"grpc_l\\u001b[2Jisten\" = 1\nreflection = \"\\u009b31m\"\n";
    for text in [text, escaped] {
        let error = parse(text).unwrap_err();
        for fault in &error.faults {
            assert_eq!(fault.to_string().chars().find(|c| c.is_control()), None, "{fault:?}");
        }
    }
}
