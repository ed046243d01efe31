//! Rules of the house that a compiler does not know. A rule that matters is a test, not prose.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Longest source file, inline tests included; one that is longer is more than one thing.
const FILE_LINES_MAX: usize = 700;

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// All Rust files below a folder.
pub(crate) fn sources(dir: &Path) -> Vec<PathBuf> {
    files(dir, &["rs"])
}

/// All files below a folder with one of these endings; none that are built or hidden.
fn files(dir: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, endings));
        } else if path.extension().is_some_and(|ending| endings.iter().any(|known| *known == ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn lines_with(path: &Path, bad: impl Fn(&str) -> bool) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let numbered = text.lines().enumerate().filter(|(_, line)| bad(line));
    numbered.map(|(number, line)| format!("{}:{}: {}", path.display(), number + 1, line.trim())).collect()
}

fn is_this_file(path: &Path) -> bool {
    path.ends_with("tests/it/tidy.rs")
}

#[test]
fn nothing_is_left_for_later() {
    let later =
        [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["X", "XX"].concat(), ["for ", "now,"].concat()];
    let mut found = Vec::new();
    for path in files(&root(), &["rs", "proto", "toml", "sh"]).iter().filter(|path| !is_this_file(path)) {
        found.extend(lines_with(path, |line| {
            let word = |word: &str| {
                line.split(|c: char| !c.is_ascii_alphanumeric() && c != ' ' && c != ',').any(|part| {
                    part.split(' ').any(|token| token == word) || (word.contains(' ') && part.contains(word))
                })
            };
            later.iter().any(|later| word(later))
        }));
    }
    assert!(found.is_empty(), "left for later:\n{}", found.join("\n"));
}

#[test]
fn no_queue_is_unbounded() {
    let mut found = Vec::new();
    for path in sources(&root()).iter().filter(|path| !is_this_file(path)) {
        found.extend(lines_with(path, |line| {
            line.contains("unbounded_channel(") || line.contains("mpsc::channel()")
        }));
    }
    assert!(found.is_empty(), "unbounded:\n{}", found.join("\n"));
}

#[test]
fn words_of_the_old_systems_do_not_appear() {
    let old = [["sla", "ve"].concat(), ["mas", "ter"].concat()];
    let mut found = Vec::new();
    for path in files(&root(), &["rs", "proto"]).iter().filter(|path| !is_this_file(path)) {
        found.extend(lines_with(path, |line| {
            let line = line.to_ascii_lowercase();
            old.iter().any(|old| line.contains(old.as_str()))
        }));
    }
    assert!(found.is_empty(), "old words:\n{}", found.join("\n"));
}

#[test]
fn a_source_file_is_one_thing() {
    let crates = ["fleet", "rsync", "proto", "certs", "coordinator", "agent", "mirrorctl"];
    for path in crates.iter().flat_map(|name| sources(&root().join(name).join("src"))) {
        let lines = fs::read_to_string(&path).unwrap_or_default().lines().count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", path.display());
    }
}

#[test]
fn every_module_says_what_it_is() {
    let crates = ["fleet", "rsync", "proto", "certs", "coordinator", "agent", "mirrorctl", "tests"];
    for path in crates.iter().flat_map(|name| sources(&root().join(name).join("src"))) {
        // A module of tests is described by the module it tests.
        let is_tests = path.ends_with("tests.rs");
        let text = fs::read_to_string(&path).unwrap_or_default();
        assert!(is_tests || text.starts_with("//!"), "{} does not begin with what it is", path.display());
    }
}

#[test]
fn every_folder_and_file_that_the_documents_name_exists() {
    let mut missing = Vec::new();
    for document in files(&root(), &["md"]) {
        let text = fs::read_to_string(&document).unwrap_or_default();
        for word in text.split('`').skip(1).step_by(2) {
            let looks_like_path = !word.starts_with('/')
                && word.contains('/')
                && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c))
                && word.split('/').next().is_some_and(|first| root().join(first).is_dir());
            let beside = document.parent().unwrap_or_else(|| Path::new(".")).join(word);
            if looks_like_path && !root().join(word).exists() && !beside.exists() {
                missing.push(format!("{}: {word}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "named and not there:\n{}", missing.join("\n"));
}
