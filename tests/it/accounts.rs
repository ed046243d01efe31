//! Upstream accounts and options, end to end: several projects from one account whose user is named otherwise than they,
//! anonymous ones beside them (A4), and rsync's options in three parts, in the order in which they were given (A5).

use std::{fs, os::unix::fs::PermissionsExt as _};

use fleet_tests::{Finished, Fleet, FleetOptions, Rsyncd, address, eventually, process::living_with, tree};

/// An upstream with two modules for user `mirror` and one for everybody.
fn upstream(fleet: &Fleet) -> Rsyncd {
    let dir = fleet.path().join("accounts");
    let secrets = dir.join("secrets");
    let mut modules = String::new();
    for (module, guarded) in [("debian", true), ("fedora", true), ("open", false)] {
        tree::fill(&dir.join(module), 20, 512, module.len() as u64).expect("a tree");
        modules.push_str(&format!("[{module}]\npath = {}\nread only = yes\n", dir.join(module).display()));
        if guarded {
            modules.push_str(&format!("auth users = mirror\nsecrets file = {}\n", secrets.display()));
        }
    }
    fs::write(&secrets, "mirror:one-password\n").expect("a file");
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).expect("its mode");
    Rsyncd::start_with(None, &dir, address::unique(), &modules).expect("an upstream")
}

/// A4: the user's name is another thing than the project's, several projects share an account, and others have none.
#[test]
fn several_projects_pull_from_one_account_and_others_from_none() {
    let fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    let upstream = upstream(&fleet);
    let base = upstream.uri().replace("/mod/", "");
    let password = fleet.path().join("password");
    fs::write(&password, "one-password\n").expect("a file");
    let password = password.display().to_string();
    let add = |name: &str, module: &str, more: &[&str]| {
        let (uri, to) = (format!("{base}/{module}/"), format!("a1:{name}"));
        let words = ["project", "add", name, "--from", &uri, "--to", &to, "--origin", "edge1"];
        fleet.mirrorctl(&[&words[..], more].concat()).ok();
        fleet.mirrorctl(&["project", "run", name, "--watch"]).ok();
        let source = tree::hash(&fleet.path().join("accounts").join(module)).expect("a tree");
        assert_eq!(tree::hash(&fleet.root(0).join(name)).expect("a tree"), source, "{name}");
    };
    let account = ["--user", "mirror", "--password-file", &password];
    add("bookworm", "debian", &account);
    add("rawhide", "fedora", &account);
    add("free", "open", &[]);
    for (name, user) in [("bookworm", "mirror"), ("rawhide", "mirror"), ("free", "")] {
        let shown = fleet.json(&["project", "show", name]);
        let upstream = &shown["upstreams"][0];
        assert_eq!(upstream["user"].as_str().unwrap_or_default(), user, "{upstream}");
        assert_eq!(upstream["has_password"].as_bool().unwrap_or_default(), !user.is_empty(), "{upstream}");
    }
    // There, an update could neither clear a password nor name another user.
    let none = fleet.path().join("no-password");
    fs::write(&none, "").expect("a file");
    let (open, none) = (format!("{base}/open/"), none.display().to_string());
    let words = ["project", "edit", "rawhide", "--from", &open, "--user", "", "--password-file", &none];
    fleet.mirrorctl(&words).ok();
    let shown = fleet.json(&["project", "show", "rawhide"]);
    assert_eq!(shown["upstreams"][0]["user"].as_str().unwrap_or_default(), "");
}

/// The arguments of the rsync that an agent runs now, but for the paths.
fn arguments(fleet: &Fleet) -> Option<Vec<String>> {
    let own = fleet.root(0).display().to_string();
    living_with(&own).into_iter().find_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<String> = words.split('\0').map(str::to_owned).collect();
        let runs = words[0].ends_with("rsync") && words.iter().any(|word| word == "--");
        (runs && !words.iter().any(|word| word == "--list-only" || word == "--server")).then_some(words)
    })
}

/// The arguments that come from the options: everything else is the agent's own, on every run.
fn of_options(arguments: &[String]) -> Vec<&str> {
    let ours = [
        "--recursive",
        "--links",
        "--perms",
        "--times",
        "--hard-links",
        "--delay-updates",
        "--partial-dir",
        "--delete",
        "--filter",
        "--checksum",
    ];
    let known = arguments.iter().map(String::as_str);
    known.filter(|word| ours.iter().any(|begin| word.starts_with(begin))).collect()
}

/// A fleet with a project that takes long, and these options.
fn slow(options: &[&str]) -> Fleet {
    let fleet = Fleet::start(FleetOptions { files: 300, file_bytes: 16_384, ..FleetOptions::default() })
        .expect("a fleet starts");
    fleet.add_project("debian", &[&["--bandwidth", "100"][..], options].concat()).ok();
    fleet
}

fn edit(fleet: &Fleet, more: &[&str]) -> Finished {
    fleet.mirrorctl(&[&["project", "edit", "debian"][..], more].concat())
}

/// The arguments of a run that is begun and cancelled.
fn runs_with(fleet: &Fleet) -> Vec<String> {
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    let words = eventually("rsync runs", || arguments(fleet));
    fleet.mirrorctl(&["run", "cancel", "debian"]).ok();
    eventually("it has ended", || arguments(fleet).is_none().then_some(()));
    words
}

/// A5: absent are our default flags; what is given replaces or follows them, in its order, and deletes as it says.
#[test]
fn options_in_three_parts_reach_rsync_as_they_were_given() {
    let fleet = slow(&["--rsync-option=--exclude=/b", "--rsync-option=--exclude=/a"]);
    let ours = runs_with(&fleet);
    assert_eq!(
        of_options(&ours),
        [
            "--recursive",
            "--links",
            "--perms",
            "--times",
            "--hard-links",
            "--delay-updates",
            "--partial-dir=.rsync-partial",
            "--filter=- .~tmp~/",
            "--filter=- /b",
            "--filter=- /a",
            "--delete-delay"
        ],
        "{ours:?}"
    );

    let defaults = ["--rsync-default=-rt", "--rsync-default=--exclude=/first"];
    let basic = ["--rsync-option=--exclude=/z", "--rsync-option=-c", "--rsync-option=--exclude=/y"];
    edit(&fleet, &[&defaults[..], &basic, &["--rsync-delete=--delete-after"]].concat()).ok();
    let theirs = runs_with(&fleet);
    assert_eq!(
        of_options(&theirs),
        [
            "--recursive",
            "--times",
            "--checksum",
            "--filter=- /first",
            "--filter=- /z",
            "--filter=- /y",
            "--delete-after"
        ],
        "{theirs:?}"
    );
    let shown = fleet.mirrorctl(&["project", "show", "debian"]).ok().stdout;
    assert!(shown.contains("--recursive --times --exclude=/first (instead of the defaults)"), "{shown}");

    // Back to ours.
    edit(&fleet, &["--no-default-options=false", "--rsync-option=", "--rsync-delete=default"]).ok();
    let again = runs_with(&fleet);
    let without_filters = |words: &[String]| {
        let kept = of_options(words).into_iter().filter(|word| !word.starts_with("--filter=- /"));
        kept.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_filters(&again), without_filters(&ours));
}

/// A5: there, "no defaults" could be said on a creation only, and any text reached a shell.
#[test]
fn no_defaults_can_be_said_on_creation_and_update_and_no_option_twice() {
    let none = ["--rsync-default=", "--rsync-option=-rt", "--rsync-delete=none"];
    let fleet = slow(&none);
    let created = runs_with(&fleet);
    assert_eq!(of_options(&created), ["--recursive", "--times"], "{created:?}");
    edit(&fleet, &["--no-default-options=false", "--rsync-option=", "--rsync-delete=default"]).ok();
    edit(&fleet, &none).ok();
    let updated = runs_with(&fleet);
    assert_eq!(of_options(&updated), ["--recursive", "--times"], "{updated:?}");

    let twice =
        edit(&fleet, &["--rsync-default=-rtc", "--rsync-option=--checksum", "--rsync-option=--delete-after"]);
    assert_eq!(twice.code, 2, "{twice:?}");
    assert!(
        twice.stderr.contains("--rsync-option") && twice.stderr.contains("no option may stand in two parts"),
        "{twice:?}"
    );
    assert!(twice.stderr.contains("belongs into the delete part"), "all at once: {twice:?}");
    let denied = edit(&fleet, &["--rsync-default=-a", "--rsync-default=--rsh=/bin/sh"]);
    assert!(denied.code == 2 && denied.stderr.contains("--rsync-default"), "{denied:?}");
}
