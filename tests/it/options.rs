//! The oracle of the option tables: whatever list of words is accepted, the real rsync that runs with it, called as
//! an agent calls it, executes no other program and opens no file of this host but its libraries, the system's
//! resolver files and what is in the destination. strace sees it; no table of ours is asked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use fleet_tests::{Finished, Rsyncd, address, tree};
use rsync::{
    DeleteMode, Deletion, Options, Plan, Publish, Purpose, RsyncFeatures, RsyncUri, Version,
    options::WORDS_MAX,
    tables::{DROPPED, FLAGS},
};

/// What any program of this system may open: its libraries, and what libc reads to find hosts, users and time zones;
/// and the file of aliases in the home that an agent gives rsync, where no file ever is.
const OF_THE_SYSTEM: [&str; 18] = [
    "/nonexistent/.popt",
    "/lib/",
    "/lib64/",
    "/usr/lib/",
    "/usr/lib64/",
    "/usr/share/locale/",
    "/usr/share/zoneinfo/",
    "/proc/",
    "/dev/",
    "/etc/ld.so.",
    "/etc/nsswitch.conf",
    "/etc/host",
    "/etc/resolv.conf",
    "/etc/gai.conf",
    "/etc/localtime",
    "/etc/passwd",
    "/etc/group",
    "/etc/popt",
];
/// Words with a value, one of each kind and each limit.
const VALUED: [&str; 24] = [
    "--max-delete=0",
    "--exclude=*.iso",
    "--exclude=/etc/passwd",
    "--include=*/",
    "--include=../../x",
    "--filter=P kept",
    "--filter=R risky",
    "--filter=H hidden",
    "--filter=S shown",
    "--filter=- a b",
    "--exclude=. /etc/shadow",
    "--exclude=: .rsync-filter",
    "--exclude=$(id)",
    "--exclude=`id`;|&",
    "--max-size=500M",
    "--min-size=1",
    "--bwlimit=100000000",
    "--timeout=10",
    "--contimeout=600",
    "--modify-window=3600",
    "--chmod=Du+x,go-w,F=rX",
    "--delete-excluded",
    "--delete-after",
    "--del",
];

/// Lists that are accepted: each word of the tables alone, and the combinations that mirrors use.
fn lists() -> Vec<Vec<String>> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut lists: Vec<Vec<String>> = Vec::new();
    for row in FLAGS {
        lists.push(vec![format!("--{}", row.long)]);
        lists.extend(row.short.map(|letter| vec![format!("-{letter}")]));
        lists.extend(row.aliases.iter().map(|alias| vec![format!("--{alias}")]));
    }
    lists.extend(DROPPED.iter().map(|(long, _)| vec![format!("--{long}")]));
    lists.extend(VALUED.iter().map(|word| vec!["-a".to_owned(), (*word).to_owned()]));
    lists.push(words("-avHE --delete --delay-updates --safe-links -P --no-o --no-g"));
    lists.push(words("-rltpSzyxmucWOJ4 --fsync --numeric-ids --max-size=1G --delete-excluded --exclude=x"));
    lists.push(words("-aAX --inplace --size-only --existing --no-inc-recursive --delete-during"));
    lists.push((0..WORDS_MAX).map(|n| format!("--exclude=x{n}")).collect());
    lists
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// What a traced program did that it should not have.
fn breaches(trace: &str, rsync: &Path, destination: &Path) -> Vec<String> {
    let quoted = |line: &str| line.split('"').nth(1).unwrap_or_default().to_owned();
    let (rsync, destination) = (rsync.display().to_string(), destination.display().to_string());
    let mut found = Vec::new();
    let mut executed = 0;
    for line in trace.lines() {
        if line.contains("execve(") {
            executed += 1;
            // The one that strace itself was asked for; whatever else is tried is told, also where it fails.
            if executed > 1 || quoted(line) != rsync {
                found.push(line.to_owned());
            }
        } else if line.contains("open(") || line.contains("openat(") || line.contains("openat2(") {
            let path = quoted(line);
            // Below the destination rsync works with relative names.
            let below = !path.starts_with('/') && !path.split('/').any(|part| part == "..");
            let of_system = OF_THE_SYSTEM.iter().any(|prefix| path.starts_with(prefix));
            let bait = path.contains(BAIT);
            if bait || !(below || of_system || path.starts_with(&destination) || path == "/") {
                found.push(line.to_owned());
            }
        } else if line.contains("connect(") && line.contains("sun_path") && !line.contains("nscd") {
            found.push(line.to_owned());
        }
    }
    found
}

/// Runs under strace in a directory with bait, and says what should not have happened.
fn traced(dir: &Path, rsync: &Path, command: &mut Command, destination: &Path) -> (Finished, Vec<String>) {
    let trace = dir.join("trace");
    drop(fs::remove_file(&trace));
    let done = Finished::run(command.current_dir(dir.join("home")));
    let text = fs::read(&trace).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (done, breaches(&text.unwrap_or_default(), rsync, destination))
}

/// A part of the name of every file that nobody may open.
const BAIT: &str = "bait";

/// A pull as an agent makes it, with these words.
fn plan(
    words: &[String],
    program: &Path,
    features: RsyncFeatures,
    daemon: &Rsyncd,
    destination: &Path,
) -> Plan {
    let options = Options::parse_words(words).unwrap_or_else(|bad| panic!("{words:?}: {bad:?}"));
    let delete = options
        .is_recursive()
        .then_some(Deletion { mode: options.delete_mode().unwrap_or(DeleteMode::Delay), limit: 10 });
    Plan {
        program: program.to_owned(),
        features,
        source: RsyncUri::parse(&daemon.uri()).expect("a URI"),
        password: false,
        destination: destination.to_owned(),
        confine_root: Some(destination.to_owned()),
        publish: Publish::InPlace,
        options,
        delete,
        io_timeout: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(10),
        bwlimit_kib: None,
        max_alloc: rsync::argv::MAX_ALLOC_DEFAULT,
        source_address: None,
        purpose: Purpose::Pull,
        privileged: false,
        acls_and_xattrs: true,
    }
}

#[test]
fn whatever_is_accepted_executes_and_opens_nothing_else() {
    let (Some(strace), Some(program)) = (in_path("strace"), in_path("rsync")) else {
        println!("skipped: strace is not installed");
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let (home, upstream, destination) =
        (dir.path().join("home"), dir.path().join("up"), dir.path().join("dest"));
    fs::create_dir(&home).expect("a directory");
    tree::fill(&upstream, 3, 64, 1).expect("a tree");
    let script = home.join("bait.sh");
    fs::write(&script, "#!/bin/sh\ntouch executed\n").expect("a script");
    for (name, text) in [
        (".popt", format!("rsync exec --stats {0}\nrsync alias --times --rsh={0}\n", script.display())),
        (".cvsignore", "*\n".to_owned()),
        (".rsync-filter", "- *\n".to_owned()),
    ] {
        fs::write(home.join(name), text).expect("a file");
    }
    let daemon =
        Rsyncd::start(None, &dir.path().join("rsyncd"), address::unique(), &upstream).expect("a daemon");
    let said = Finished::run(Command::new(&program).arg("--version")).ok().stdout;
    let features = Version::parse(said.as_bytes()).expect("it is rsync").features;
    let trace = dir.path().join("trace");
    let under_strace = || {
        let mut command = Command::new(&strace);
        command.args(["-f", "-qq", "-e", "trace=execve,open,openat,openat2,connect", "-o"]).arg(&trace);
        command
    };

    let lists = lists();
    for words in &lists {
        drop(fs::remove_dir_all(&destination));
        fs::create_dir(&destination).expect("a directory");
        fs::write(destination.join("old"), "goes\n").expect("a file");
        let plan = plan(words, &program, features, &daemon, &destination);
        let built = plan.build().unwrap_or_else(|bad| panic!("{words:?}: {bad:?}"));
        let mut command = under_strace();
        command.args(built.argv()).env_clear().envs(built.env().iter().cloned());
        let (done, breaches) = traced(dir.path(), &program, &mut command, &destination);
        assert!(breaches.is_empty(), "{words:?}:\n{}", breaches.join("\n"));
        // 23: attributes that this file system does not have; 25: a limit of 0; 10: the daemon has no IPv6 address.
        let ipv6 = built.argv().contains(&"--ipv6".into());
        assert!(
            matches!(done.code, 0 | 23 | 25) || (ipv6 && done.code == 10),
            "{words:?}: {} {}",
            done.code,
            done.stderr
        );
        assert!(!home.join("executed").exists(), "{words:?}");
    }
    assert!(lists.len() > FLAGS.len() + VALUED.len());

    // The oracle sees what it is for: an executed program, a read file, and what HOME can do.
    let module = daemon.uri();
    let files_from = format!("--files-from={}", script.display());
    for bad in [&["-e", "/bin/true"][..], &[&files_from], &["--times", "--stats"]] {
        let mut command = under_strace();
        command.arg(&program).args(bad).args([module.as_str(), "new/"]).env_clear().env("HOME", &home);
        let (_, breaches) = traced(dir.path(), &program, &mut command, &destination);
        assert!(!breaches.is_empty(), "{bad:?} went unseen");
    }
}
