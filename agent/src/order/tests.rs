//! What an assignment may say, and the command it becomes.

use super::*;
use crate::key::tests::key;

fn assignment() -> v1::Assignment {
    v1::Assignment {
        key: Some(key(1, 1, 1).to_wire()),
        project_uid: 7,
        project: "debian".into(),
        role: v1::Role::Origin.into(),
        source_uri: "rsync://ftp.example.org/debian/".into(),
        destination: "a1:debian".into(),
        max_delete: 500,
        ..v1::Assignment::default()
    }
}

fn config() -> Config {
    let text = "coordinators = [\"c\"]\n[roots]\na1 = \"/srv/mirror\"\n";
    Config::check(text.parse().unwrap(), Path::new("/var/lib/mirror-agent")).unwrap()
}

fn version() -> Version {
    Version { release: (3, 2, 7), protocol: 32, features: rsync::RsyncFeatures::default() }
}

fn line_with(assignment: &v1::Assignment, config: &Config) -> Result<String, Vec<String>> {
    let order = Order::read(key(1, 1, 1), assignment, assignment.secrets.is_some())?;
    let (root, path) = (Path::new("/srv/mirror"), Path::new("/srv/mirror/debian"));
    let spec = order.program(
        order.purpose(),
        config,
        &version(),
        root,
        path,
        Path::new("/srv/mirror/.mirror/locks/7"),
    )?;
    assert!(spec.faults().is_empty(), "{:?}", spec.faults());
    let words: Vec<String> = spec.argv.into_iter().map(|word| String::from_utf8(word).unwrap()).collect();
    Ok(words.join(" "))
}

fn line(assignment: &v1::Assignment) -> String {
    line_with(assignment, &config()).unwrap()
}

#[test]
fn hostile_assignments_are_refused_with_every_reason() {
    let base = assignment;
    let options = |words: &[&str]| v1::Assignment {
        options: words.iter().map(|word| (*word).to_owned()).collect(),
        ..base()
    };
    let to = |text: &str| v1::Assignment { destination: text.into(), ..base() };
    let from = |text: &str| v1::Assignment { source_uri: text.into(), ..base() };
    for bad in [
        options(&["-e", "sh"]),
        options(&["-e.Lsf"]),
        options(&["--rsh=sh"]),
        options(&["--rsync-path=/tmp/x"]),
        options(&["--files-from=/etc/shadow"]),
        options(&["--password-file=/etc/shadow"]),
        options(&["--log-file=/etc/cron.d/x"]),
        options(&["--daemon"]),
        options(&["--acls"]),
        options(&["--timeout=0"]),
        to("/etc"),
        to("a1:/etc"),
        to("a1:../etc"),
        to("a1:x/../../etc"),
        to("a1:.mirror/locks"),
        to(""),
        from("-e"),
        from("rsync://-e/m/"),
        from("rsync://h:abc/m/"),
        from("rsync://u:p@h/m/"),
        from("rsync://h/*"),
        from("rsync://h/"),
        from("file:///etc/passwd"),
        from("host:path"),
        from("rsync+ssh://h/m"),
        v1::Assignment { user: "-x:y".into(), ..base() },
        v1::Assignment { user: "a@b".into(), ..base() },
        v1::Assignment { role: 0, ..base() },
        v1::Assignment { sentinels: vec!["../up".into()], ..base() },
        v1::Assignment { sentinels: vec!["/etc/passwd".into()], ..base() },
        v1::Assignment { sentinels: vec!["dists/*".into()], ..base() },
        v1::Assignment { sentinels: vec!["a".repeat(513)], ..base() },
        v1::Assignment { sentinels: vec!["a".into(); 17], ..base() },
        v1::Assignment { reclaim: true, no_defaults: true, ..options(&["-rt"]) },
        v1::Assignment { io_timeout: Some(prost_types::Duration { seconds: -5, nanos: 0 }), ..base() },
        v1::Assignment { stall_timeout: Some(prost_types::Duration { seconds: 0, nanos: 5 }), ..base() },
    ] {
        let refused = line_with(&bad, &config());
        assert!(refused.as_ref().is_err_and(|faults| !faults.is_empty()), "{bad:?} gave {refused:?}");
    }
    let many = v1::Assignment { destination: "/etc".into(), role: 0, ..options(&["-e"]) };
    assert_eq!(line_with(&many, &config()).unwrap_err().len(), 3);
    let secret = line_with(&from("rsync://u:hunter2@h/m/"), &config()).unwrap_err().join(" ");
    assert!(!secret.contains("hunter2"), "{secret}");
}

#[test]
fn the_default_pull() {
    let shown = line(&assignment());
    let flags = "/usr/bin/rsync --recursive --links --perms --times --hard-links --delay-updates";
    assert!(shown.starts_with(flags), "{shown}");
    assert!(shown.contains("--delete-delay --max-delete=500 --timeout=600 --contimeout=60"), "{shown}");
    assert!(shown.ends_with("-- rsync://ftp.example.org/debian/ /srv/mirror/debian/"), "{shown}");
}

#[test]
fn given_flags_follow_the_default_ones_or_replace_them() {
    let with = |words: &[&str], no_defaults| {
        line(&v1::Assignment {
            options: words.iter().map(|word| (*word).to_owned()).collect(),
            no_defaults,
            ..assignment()
        })
    };
    let plain = line(&assignment());
    let following = with(&["--checksum"], false);
    for word in plain.split(' ') {
        assert!(following.contains(word), "{word} is not in {following}");
    }
    assert!(following.contains("--checksum"), "{following}");
    let in_place = with(&["--inplace"], false);
    assert!(in_place.contains("--inplace") && !in_place.contains("--delay-updates"), "{in_place}");

    let replacing = with(&["-rt"], true);
    assert!(replacing.starts_with("/usr/bin/rsync --recursive --times --safe-links"), "{replacing}");
    assert!(!replacing.contains("delete"), "nothing is deleted that nobody asked for: {replacing}");
    let deleting = with(&["-rt", "--delete-after"], true);
    assert!(deleting.contains("--delete-after") || deleting.contains("--delete-delay"), "{deleting}");
    assert!(deleting.contains("--max-delete=500"), "{deleting}");
}

#[test]
fn what_only_looks_writes_nothing() {
    let looks = v1::Assignment { dry_run: true, sentinels: vec!["dists/Release".into()], ..assignment() };
    let order = Order::read(key(1, 1, 1), &looks, false).unwrap();
    let (root, path) = (Path::new("/srv/mirror"), Path::new("/srv/mirror/debian"));
    let spec = |purpose| order.program(purpose, &config(), &version(), root, path, Path::new("/l")).unwrap();
    for purpose in [order.purpose(), Purpose::List(order.sentinels.clone())] {
        assert!(spec(purpose).jail.write_paths.is_empty());
    }
    let dry = line(&looks);
    assert!(dry.contains(" --dry-run ") && dry.contains(" --max-delete=1000000000 "), "{dry}");
    assert_eq!(order.max_delete(), 500);
    assert_eq!(spec(Purpose::List(Vec::new())).run_timeout, Some(LIST_TIME_MAX));
    assert_eq!(spec(Purpose::Reclaim).jail.write_paths, [path]);
}

#[test]
fn a_hold_deletes_nothing_and_still_counts() {
    let held = v1::Assignment { max_delete: 0, ..assignment() };
    assert!(line(&held).contains("--delete-delay --max-delete=0"));
}

#[test]
fn the_agents_own_file_caps_and_opts_in() {
    let mut own = config();
    own.bandwidth_limit_kib = Some(500);
    own.acls_and_xattrs = true;
    let asked = |kib, words: &[&str]| v1::Assignment {
        bandwidth_limit_kib: kib,
        options: words.iter().map(|word| (*word).to_owned()).collect(),
        ..assignment()
    };
    assert!(line_with(&asked(9_000, &[]), &own).unwrap().contains("--bwlimit=500"));
    assert!(line_with(&asked(100, &[]), &own).unwrap().contains("--bwlimit=100"));
    assert!(line_with(&asked(0, &["--acls"]), &own).unwrap().contains("--acls"));
    assert!(!line_with(&asked(0, &[]), &config()).unwrap().contains("bwlimit"));
}

#[test]
fn a_password_goes_over_a_pipe_and_needs_a_user() {
    let secrets = Some(v1::Secrets { password: "hunter2".into() });
    let with_user = v1::Assignment { user: "mirror".into(), secrets: secrets.clone(), ..assignment() };
    let shown = line(&with_user);
    assert!(
        shown.contains("--password-file=-") && shown.contains("rsync://mirror@ftp.example.org/"),
        "{shown}"
    );
    assert!(!shown.contains("hunter2"));
    let without = v1::Assignment { secrets, ..assignment() };
    assert!(line_with(&without, &config()).is_err());
}
