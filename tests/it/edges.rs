//! The allowed edges between our crates, and the few folders that may name a library: whoever adds another
//! edge meets this test first.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde_json::Value;

/// Who may depend on whom (ARCHITECTURE.md). `fleet-tests` is a harness and may depend on any of ours.
const EDGES: [(&str, &[&str]); 8] = [
    ("fleet", &[]),
    ("rsync", &[]),
    ("mirror-proto", &["fleet", "rsync"]),
    ("mirror-certs", &[]),
    ("mirror-coordinator", &["fleet", "rsync", "mirror-proto", "mirror-certs"]),
    ("mirror-agent", &["fleet", "rsync", "mirror-proto", "mirror-certs"]),
    ("mirrorctl", &["fleet", "rsync", "mirror-proto", "mirror-certs"]),
    (
        "fleet-tests",
        &[
            "fleet",
            "rsync",
            "mirror-proto",
            "mirror-certs",
            "mirror-coordinator",
            "mirror-agent",
            "mirrorctl",
        ],
    ),
];

/// What the pure core must never meet.
const NEVER_IN_FLEET: [&str; 6] = ["tonic", "tokio", "sled", "prost", "rustls", "serde"];

fn metadata() -> Value {
    let root = super::tidy::root();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let output = command
        .args(["metadata", "--format-version", "1", "--offline", "--no-deps"])
        .current_dir(root)
        .output();
    let output = output.expect("cargo runs");
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn dependencies() -> BTreeMap<String, Vec<(String, bool)>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("there are packages");
    let edges = packages.iter().map(|package| {
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        let all = package["dependencies"].as_array().cloned().unwrap_or_default();
        let names = all.iter().map(|dependency| {
            (dependency["name"].as_str().unwrap_or_default().to_owned(), dependency["kind"] == "dev")
        });
        (name, names.collect())
    });
    edges.collect()
}

#[test]
fn no_crate_of_ours_depends_on_one_it_may_not() {
    let dependencies = dependencies();
    let ours: Vec<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        dependencies.len(),
        ours.len(),
        "a crate is missing from the table: {:?}",
        dependencies.keys()
    );
    for (name, allowed) in EDGES {
        for (dependency, _) in &dependencies[name] {
            let is_ours = ours.contains(&dependency.as_str());
            assert!(
                !is_ours || allowed.contains(&dependency.as_str()),
                "{name} may not depend on {dependency}"
            );
        }
    }
}

#[test]
fn the_model_does_no_io() {
    for (dependency, dev) in &dependencies()["fleet"] {
        let never = NEVER_IN_FLEET.contains(&dependency.as_str());
        assert!(*dev || !never, "fleet may not depend on {dependency}");
    }
}

/// Files below `crate_dir/src` that name `word`, relative to it.
fn naming(crate_dir: &str, word: &str) -> Vec<String> {
    let src = super::tidy::root().join(crate_dir).join("src");
    let mut found = Vec::new();
    for file in super::tidy::sources(&src) {
        let text = fs::read_to_string(&file).expect("a source file can be read");
        if text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(word)) {
            let relative = file.strip_prefix(&src).unwrap_or_else(|_| Path::new("")).display().to_string();
            found.push(relative);
        }
    }
    found
}

#[test]
fn only_the_store_names_sled_and_only_the_ticker_names_the_cron_library() {
    for file in naming("coordinator", "sled::") {
        assert!(file.starts_with("store"), "{file} names sled");
    }
    for file in naming("coordinator", "tokio_cron_scheduler::") {
        assert!(file.starts_with("ticker"), "{file} names tokio-cron-scheduler");
    }
    assert!(!naming("coordinator", "sled::").is_empty(), "the store is sled");
    assert!(!naming("coordinator", "tokio_cron_scheduler::").is_empty(), "housekeeping runs by the library");
}

#[test]
fn programs_are_spawned_in_few_places() {
    let allowed: [(&str, &[&str]); 4] = [
        ("rsync", &["process.rs"]),
        ("agent", &["rundir", "supervisor", "jail", "serve", "hooks"]),
        ("coordinator", &[]),
        ("mirrorctl", &[]),
    ];
    for (crate_dir, files) in allowed {
        for word in ["Command::new(", "process::Command"] {
            for file in naming(crate_dir, word) {
                let ok = files.iter().any(|prefix| file.starts_with(prefix)) || file.contains("tests");
                assert!(ok, "{crate_dir}/src/{file} spawns programs");
            }
        }
    }
}
