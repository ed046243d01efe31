//! Moving here from other systems: what `mirrorctl import` prints is applied as it is, and the trees come.

use std::{fs, os::unix::fs::PermissionsExt as _};

use fleet_tests::{Fleet, FleetOptions, tree};
use serde_json::{Value, json};

const BAD_INPUT: i32 = 2;
const PASSWORD: &str = "testpassword-of-2014";

fn write(fleet: &Fleet, name: &str, text: &str) -> String {
    let path = fleet.path().join(name);
    fs::write(&path, text).expect("a file");
    path.display().to_string()
}

/// Host and port of the fleet's upstream, which has the one module `mod`.
fn upstream(fleet: &Fleet) -> (String, String) {
    let uri = fleet.upstream.uri();
    let authority = uri.trim_start_matches("rsync://").split('/').next().unwrap_or_default().to_owned();
    let (host, port) = authority.rsplit_once(':').expect("a port");
    (host.to_owned(), port.to_owned())
}

fn project(fleet: &Fleet, name: &str) -> Value {
    fleet.json(&["project", "show", name])
}

/// Applies what was printed; the fleet is then as it says, and the tree comes.
fn applied_and_run(fleet: &Fleet, manifest: &str, name: &str) {
    // Without an ending the content says which format it is.
    let file = write(fleet, &format!("{name}.manifest"), manifest);
    fleet.mirrorctl(&["apply", "-f", &file]).ok();
    assert_eq!(fleet.mirrorctl(&["plan", "-f", &file, "--exit-code"]).code, 0, "{manifest}");
    fleet.mirrorctl(&["project", "run", name]).ok();
    fleet.await_run(name, "SUCCEEDED");
    let copy = tree::hash(&fleet.root(0).join(name)).expect("a copy");
    assert_eq!(copy, tree::hash(&fleet.upstream_tree()).expect("a tree"), "{name}");
}

/// A4, A5, A6, A7: the old API's payload as its page has it, into projects that run; its passwords into files of their
/// own; its options in their three parts; its fields of a schedule and its start date.
#[test]
fn the_old_apis_projects_run_here() {
    let fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    let (host, port) = upstream(&fleet);
    let payload = json!([
        {
            "project": "fedora", "rsync_module": "mod", "rsync_host": host, "dest": "/data/ftp/.1/", "rsync_password": "",
            "cron_options": {"hour": "*/6", "start_date": "2014-05-7 18:00"},
            "rsync_options": {"basic": [format!("--port {port}"), "--exclude '*.iso'"], "defaults": ["-avH"],
                "delete": "--delete"},
        },
        {
            "project": "ubuntu", "rsync_module": "documents", "rsync_host": "rsync.example.net",
            "dest": "/data/ftp/.1/", "rsync_password": PASSWORD, "enabled": false,
            "cron_options": {"minute": "10", "start_date": "Fri Jul 11 03:08:57 IST 2014"},
        },
    ]);
    let file = write(&fleet, "projects.json", &payload.to_string());
    let missing = fleet.mirrorctl(&["import", "seed", &file]);
    assert_eq!(missing.code, BAD_INPUT);
    for part in
        ["3 faults", "--map-root", "add --map-root /data/ftp/.1=ROOT", "--origin", "--secrets-dir", "next: "]
    {
        assert!(missing.stderr.contains(part), "{part}\nis not in\n{}", missing.stderr);
    }
    let secrets = fleet.path().join("secrets").display().to_string();
    let import = [
        "import",
        "seed",
        &file,
        "--map-root",
        "/data/ftp/.1=a1",
        "--origin",
        "edge1",
        "--secrets-dir",
        &secrets,
    ];
    let imported = fleet.mirrorctl(&import).ok();
    assert!(!format!("{}{}", imported.stdout, imported.stderr).contains(PASSWORD), "{}", imported.stdout);
    for part in ["IST", "2 projects imported, 1 of them paused: ubuntu"] {
        assert!(imported.stderr.contains(part), "{part}\nis not in\n{}", imported.stderr);
    }
    let secret = fleet.path().join("secrets/ubuntu.password");
    assert_eq!(fs::metadata(&secret).expect("a file").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&secret).expect("a file"), format!("{PASSWORD}\n"));
    // Once more, as people do until the maps are right: what is there already is the same.
    assert_eq!(fleet.mirrorctl(&import).ok().stdout, imported.stdout);
    fs::write(&secret, "another one\n").expect("a file");
    let again = fleet.mirrorctl(&import);
    assert!(again.code == BAD_INPUT && again.stderr.contains("is there already"), "{}", again.stderr);
    fs::write(&secret, format!("{PASSWORD}\n")).expect("a file");

    applied_and_run(&fleet, &imported.stdout, "fedora");
    let fedora = project(&fleet, "fedora");
    let rsync = &fedora["rsync"];
    assert_eq!(rsync["defaults"]["words"], json!(["--archive", "--hard-links"]));
    assert_eq!(
        (&rsync["options"], &rsync["delete"], &rsync["no_defaults"]),
        (&json!(["--exclude=*.iso"]), &json!("DELAY"), &json!(false))
    );
    assert_eq!(fedora["schedule"]["cron"]["hour"], "*/6");
    assert_eq!(fedora["schedule"]["start_time"], "2014-05-07T18:00:00Z");
    let ubuntu = project(&fleet, "ubuntu");
    assert_eq!(ubuntu["schedule"]["start_time"], "2014-07-10T21:38:57Z");
    assert_eq!(ubuntu["upstreams"][0]["user"], "ubuntu");
    assert_eq!(ubuntu["upstreams"][0]["has_password"], true);
    assert!(
        ubuntu["paused"]["reason"].as_str().is_some_and(|reason| reason.contains("disabled")),
        "{ubuntu}"
    );
}

/// A4, A21: tunasync's worker.conf with an included file, and a crontab, straight into `apply`.
#[test]
fn tunasyncs_and_crons_mirrors_run_here() {
    let fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    let uri = fleet.upstream.uri();
    fs::create_dir(fleet.path().join("mirrors.d")).expect("a directory");
    let more =
        "[[mirrors]]\nname = \"fonts\"\nprovider = \"command\"\ncommand = \"/bin/fonts.sh\"\ninterval = 60\n";
    write(&fleet, "mirrors.d/fonts.conf", more);
    let text = format!(
        "[global]\nname = \"edge1\"\nmirror_dir = \"/srv/tunasync\"\ninterval = 120\n[include]\ninclude_mirrors = \
         \"mirrors.d/*.conf\"\n[[mirrors]]\nprovider = \"rsync\"\nuse_ipv4 = true\n  [[mirrors.mirrors]]\n  name = \
         \"cpan\"\n  upstream = \"{uri}\"\n"
    );
    let file = write(&fleet, "worker.conf", &text);
    let imported = fleet.mirrorctl(&["import", "tunasync", &file, "--map-root", "/srv/tunasync=a1"]).ok();
    assert!(imported.stderr.contains("fonts: paused: it runs the command"), "{}", imported.stderr);
    applied_and_run(&fleet, &imported.stdout, "cpan");
    assert_eq!(project(&fleet, "cpan")["schedule"]["interval"]["every"], 7_200);
    let fonts = project(&fleet, "fonts");
    assert!(
        fonts["paused"]["reason"].as_str().is_some_and(|reason| reason.contains("/bin/fonts.sh")),
        "{fonts}"
    );

    let text = format!(
        "CRON_TZ=Europe/Berlin\n10 */6 * * * cd /srv/mirror && flock -n /run/gnu.lock nice rsync -rltH --delete {uri} gnu \
         >/dev/null 2>&1\n0 1 * * * certbot renew\n"
    );
    let file = write(&fleet, "crontab", &text);
    let args =
        ["import", "crontab", &file, "--map-root", "/srv/mirror=a1", "--origin", "edge1", "-o", "json"];
    let imported = fleet.mirrorctl(&args).ok();
    assert!(imported.stderr.contains("left out, line 3"), "{}", imported.stderr);
    applied_and_run(&fleet, &imported.stdout, "gnu");
    let gnu = project(&fleet, "gnu");
    assert_eq!(gnu["schedule"]["time_zone"], "Europe/Berlin");
    assert_eq!(gnu["rsync"]["no_defaults"], true);
}
