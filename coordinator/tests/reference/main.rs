//! The API reference in docs/api is what the contract says: each page is made from the descriptors that reflection
//! serves, comments included, and from the table of who may call what.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod page;

use std::{collections::BTreeMap, fs, path::PathBuf};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api"))
}

/// The pages that are there, by file name.
fn found() -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(folder()) else { return BTreeMap::new() };
    let files = entries.map(|entry| entry.unwrap());
    files
        .map(|file| (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap()))
        .collect()
}

#[test]
fn the_pages_are_what_the_contract_says() {
    let wanted = page::all();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(folder()).unwrap();
        for stale in found().keys().filter(|name| !wanted.contains_key(*name)) {
            fs::remove_file(folder().join(stale)).unwrap();
        }
        for (name, text) in &wanted {
            fs::write(folder().join(name), text).unwrap();
        }
    }
    let found = found();
    let again = "UPDATE_DOCS=1 cargo test -p mirror-coordinator --test reference";
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        wanted.keys().collect::<Vec<_>>(),
        "docs/api has other pages: {again}"
    );
    for (name, text) in &wanted {
        assert!(found.get(name) == Some(text), "docs/api/{name} is stale: {again}");
    }
}

/// The address that a heading has in its page, as the usual viewers of Markdown make it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_leads_to_a_heading() {
    let pages = page::all();
    let mut seen = 0;
    for (name, text) in &pages {
        for link in text.split("](").skip(1) {
            let (target, _) = link.split_once(')').unwrap();
            if target.starts_with("https://") || target.starts_with("../") {
                continue;
            }
            let (file, place) = target.split_once('#').unwrap_or((target, ""));
            let text = &pages[if file.is_empty() { name } else { file }];
            let headings = text.lines().filter(|line| line.starts_with('#'));
            let leads = place.is_empty()
                || headings
                    .map(|line| anchor(line.trim_start_matches('#').trim()))
                    .any(|there| there == place);
            assert!(leads, "{name}: nothing is at {target}");
            seen += 1;
        }
    }
    assert!(seen > 300, "only {seen} links were seen");
}

#[test]
fn every_method_is_there_with_who_may_call_it() {
    let pages = page::all();
    for (method, _) in mirror_coordinator::rpc::policy::TABLE {
        let Some(method) = method.strip_prefix("/mirror.v1.") else { continue };
        let (service, name) = method.split_once('/').unwrap();
        let page = pages.values().find(|page| page.contains(&format!("\n## {service}\n"))).unwrap();
        let text = page.split(&format!("\n### {name}\n")).nth(1).unwrap_or_else(|| panic!("no {method}"));
        let text = text.split("\n### ").next().unwrap();
        assert!(text.contains("Who may call it: "), "{method}: {text}");
    }
}
