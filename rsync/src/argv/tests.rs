//! Whole command lines.

use super::*;

const FEATURES_3_5: RsyncFeatures =
    RsyncFeatures { drop_devices: true, confine_root: true, acls: true, xattrs: true };

fn plan(words: &[&str]) -> Plan {
    Plan {
        program: "/usr/bin/rsync".into(),
        features: RsyncFeatures::default(),
        source: RsyncUri::parse("rsync://ftp.example.org/debian/").unwrap(),
        password: false,
        destination: "/srv/mirror/debian".into(),
        confine_root: None,
        publish: Publish::InPlace,
        options: Options::parse_words(words).unwrap(),
        delete: Some(Deletion { mode: DeleteMode::Delay, limit: 500 }),
        io_timeout: Duration::from_secs(600),
        connect_timeout: Duration::from_secs(60),
        bwlimit_kib: None,
        max_alloc: MAX_ALLOC_DEFAULT,
        source_address: None,
        purpose: Purpose::Pull,
        privileged: false,
        acls_and_xattrs: false,
    }
}

fn line(plan: &Plan) -> String {
    let command = plan.build().unwrap_or_else(|faults| panic!("{faults:?}"));
    let words: Vec<String> = command.argv().into_iter().map(|word| word.into_string().unwrap()).collect();
    words.join(" ")
}

const TAIL: &str = "--max-alloc=1073741824 --no-motd --no-h --outbuf=L --info=progress2,stats2 \
                    --out-format=>%i|%l|%b|%n -- rsync://ftp.example.org/debian/ /srv/mirror/debian/";

#[test]
fn the_default_line() {
    assert_eq!(
        line(&plan(&[])),
        format!(
            "/usr/bin/rsync --recursive --links --perms --times --hard-links --delay-updates \
             --partial-dir=.rsync-partial --safe-links --no-D --chmod=u+rw,Du+x,go-w,ugo-s --filter=- .~tmp~/ \
             --delete-delay --max-delete=500 --timeout=600 --contimeout=60 {TAIL}"
        )
    );
    let command = plan(&[]).build().unwrap();
    let env: Vec<String> = command.env().iter().map(|(k, v)| format!("{k}={}", v.display())).collect();
    assert_eq!(env, ["LC_ALL=C", "TZ=UTC", "HOME=/nonexistent", "USER=nobody"]);
    assert!(!command.reads_password());
}

#[test]
fn given_flags_replace_the_default_ones_and_guards_stay() {
    assert_eq!(
        line(&plan(&["-avH", "--delete-after"])),
        format!(
            "/usr/bin/rsync --recursive --links --perms --times --hard-links --safe-links --no-D --chmod=ugo-s \
             --delete-delay --max-delete=500 --timeout=600 --contimeout=60 {TAIL}"
        )
    );
    let mut privileged = plan(&["-a", "--no-group", "--partial", "--chmod=Fa+r".replace('a', "").as_str()]);
    privileged.privileged = true;
    privileged.delete = Some(Deletion { mode: DeleteMode::Excluded, limit: 0 });
    let shown = line(&privileged);
    for word in [
        "--owner",
        "--partial-dir=.rsync-partial",
        "--chmod=F+r,ugo-s",
        "--delete-delay --delete-excluded --max-delete=0",
    ] {
        assert!(shown.contains(&format!(" {word} ")), "{word} in {shown}");
    }
    assert!(!shown.contains("group") && !shown.contains("archive"), "{shown}");
}

#[test]
fn filters_and_limits_alone_keep_the_default_flags() {
    let mut limited =
        plan(&["--exclude=*.iso", "--bwlimit=900", "--timeout=30", "--max-delete=9", "--max-size=1G"]);
    limited.bwlimit_kib = Some(500);
    limited.delete = None;
    limited.purpose = Purpose::DryRun;
    let shown = line(&limited);
    assert!(shown.contains("--hard-links --delay-updates"), "{shown}");
    assert!(
        shown.contains("--filter=- .~tmp~/ --filter=- *.iso --max-size=1G --bwlimit=500 --timeout=30"),
        "{shown}"
    );
    assert!(shown.contains(" --dry-run -- ") && !shown.contains("delete"), "{shown}");
    limited.bwlimit_kib = Some(5000);
    limited.delete = Some(Deletion { mode: DeleteMode::Delay, limit: 10 });
    let shown = line(&limited);
    assert!(shown.contains("--bwlimit=900") && shown.contains("--max-delete=9 "), "{shown}");
}

#[test]
fn a_dry_run_and_reclaiming_delete_as_they_go() {
    let mut plan = plan(&[]);
    plan.purpose = Purpose::DryRun;
    let shown = line(&plan);
    assert!(
        shown.contains(" --delete-during --max-delete=500 ") && shown.contains(" --dry-run -- "),
        "{shown}"
    );
    plan.purpose = Purpose::Reclaim;
    plan.delete = Some(Deletion { mode: DeleteMode::Excluded, limit: 7 });
    let shown = line(&plan);
    let words = " --delete-during --delete-excluded --existing --ignore-existing --max-delete=7 ";
    assert!(shown.contains(words) && !shown.contains("--dry-run"), "{shown}");
}

#[test]
fn a_listing_asks_for_literal_names() {
    let mut plan = plan(&["-a", "-4"]);
    let list = |plan: &mut Plan, names: &[&str]| {
        plan.purpose = Purpose::List(names.iter().map(|name| (*name).to_owned()).collect());
        plan.build().map(|_| line(plan))
    };
    let shown = list(&mut plan, &[]).unwrap();
    assert!(
        shown.starts_with("/usr/bin/rsync --dirs --list-only --sockopts=TCP_NODELAY --ipv4 --timeout=600"),
        "{shown}"
    );
    assert!(shown.ends_with(" -- rsync://ftp.example.org/debian/ /nonexistent/"), "{shown}");
    let shown = list(&mut plan, &["dists/stable/Release", "a b"]).unwrap();
    let operands = "rsync://ftp.example.org/debian/./ rsync://ftp.example.org/debian/./dists/stable/Release \
                    rsync://ftp.example.org/debian/./a b /nonexistent/";
    assert!(shown.contains(" --relative ") && shown.ends_with(operands), "{shown}");
    for bad in ["", "/etc", "a//b", "../a", "a/..", "./a", "a*", "a?", "[a]", "a\\b", "a\nb"] {
        let refused = list(&mut plan, &["good", bad]);
        assert_eq!(refused, Err(vec![PlanFault::Name(bad.to_owned())]));
    }
}

#[test]
fn a_fetch_is_of_one_bounded_file() {
    let mut plan = plan(&["-avH", "-4", "--delete"]);
    let fetch = |plan: &mut Plan, name: &str| {
        plan.purpose = Purpose::Fetch { name: name.to_owned(), max_bytes: 4_096 };
        plan.build().map(|_| line(plan))
    };
    let shown = fetch(&mut plan, "project/trace/ftp.example.net").unwrap();
    let beginning =
        "/usr/bin/rsync --no-D --whole-file --max-size=4096 --sockopts=TCP_NODELAY --ipv4 --timeout=600";
    assert!(shown.starts_with(beginning), "{shown}");
    let end = " -- rsync://ftp.example.org/debian/project/trace/ftp.example.net /srv/mirror/debian/";
    assert!(shown.ends_with(end), "{shown}");
    assert!(!shown.contains("--delete") && !shown.contains("--links"), "{shown}");
    for bad in ["", "/etc/passwd", "../a", "a*", "a\nb"] {
        assert_eq!(fetch(&mut plan, bad), Err(vec![PlanFault::Name(bad.to_owned())]));
    }
}

#[test]
fn origins() {
    let mut full = plan(&["-a", "--delete"]);
    full.source = RsyncUri::parse("rsync://mirror:sekrit@h/m").unwrap();
    full.password = true;
    full.features = FEATURES_3_5;
    full.confine_root = Some("/srv/mirror".into());
    full.publish = Publish::Atomic { link_dest: Some("../current".into()) };
    full.source_address = Some("2001:db8::7".parse().unwrap());
    let command = full.build().unwrap();
    let origin = |text: &str| command.args().iter().find(|arg| arg.text == *text).map(|arg| arg.origin);
    for (text, expected) in [
        ("--recursive", Origin::Project),
        ("--delete-delay", Origin::Project),
        ("--max-delete=500", Origin::Guard),
        ("--drop-D", Origin::Forced),
        ("--confine-root=/srv/mirror", Origin::Forced),
        ("--link-dest=../current", Origin::Forced),
        ("--address=2001:db8::7", Origin::Forced),
        ("--timeout=600", Origin::Default),
        ("--password-file=-", Origin::Secret),
        ("rsync://mirror@h/m/", Origin::Project),
    ] {
        assert_eq!(origin(text), Some(expected), "{text} in {:?}", command.args());
    }
    assert!(command.reads_password() && !format!("{command:?}{full:?}").contains("sekrit"));
    assert_eq!(command.env().last(), Some(&("USER", OsString::from("mirror"))));
}

#[test]
fn every_fault_at_once() {
    let mut bad = plan(&["-tAX", "--inplace"]);
    bad.program = "rsync".into();
    bad.source = RsyncUri::parse("rsync://h/m/*").unwrap();
    bad.password = true;
    bad.destination = "/srv/../etc".into();
    bad.confine_root = Some("/var".into());
    bad.publish = Publish::Atomic { link_dest: Some("/etc".into()) };
    bad.io_timeout = Duration::ZERO;
    assert_eq!(
        bad.build().unwrap_err(),
        [
            PlanFault::Source(UriError::Wildcard('*')),
            PlanFault::Program,
            PlanFault::PasswordWithoutUser,
            PlanFault::Destination,
            PlanFault::Confinement,
            PlanFault::LinkDest,
            PlanFault::InplaceWithAtomic,
            PlanFault::DeleteWithoutRecursion,
            PlanFault::Timeout,
            PlanFault::NeedsOptIn("--acls".into()),
            PlanFault::NeedsOptIn("--xattrs".into()),
        ]
    );
    for destination in ["srv", "/", "/srv/./a", "/srv/a\n"] {
        bad.destination = destination.into();
        assert!(bad.build().unwrap_err().contains(&PlanFault::Destination), "{destination:?}");
    }
}
