//! Imports as people do them: files of three systems against what is printed (`tests/out/import-*`; after an intended
//! change run once with `UPDATE_GOLDEN=1`), the faults, and strangers' bytes.

#![allow(clippy::unwrap_used, reason = "a test helper that fails is a test that fails")]

use std::path::{Path, PathBuf};

use mirrorctl::fault::Outcome;
use mirrorctl::import::{self, Imported, Settings};
use mirrorctl::manifest::Manifest;
use proptest::prelude::*;

const SEED: &str = include_str!("import/seed.json");
const WORKER: &str = include_str!("import/worker.conf");
const INCLUDED: &str = include_str!("import/included.conf");
const CRONTAB: &str = include_str!("import/crontab");
/// Every secret of these files.
const SECRETS: [&str; 5] = ["testpassword", "s3cret", "hunter2", "t0p-s3cret", "a-token-of-the-manager"];

fn settings(map_roots: &[&str]) -> Settings {
    Settings {
        origin: Some("ftp1".to_owned()),
        map_roots: map_roots.iter().map(|&map| map.to_owned()).collect(),
        secrets_dir: Some(PathBuf::from("/etc/mirror/secrets")),
        time_zone: None,
    }
}

fn worker(settings: &Settings, text: &str) -> Outcome<Imported> {
    import::tunasync(settings, "worker.conf", text, &mut |pattern| {
        assert_eq!(pattern, "mirrors.d/*.conf");
        Ok(vec![("mirrors.d/cpan.conf".to_owned(), INCLUDED.to_owned())])
    })
}

fn all(imported: &Imported) -> String {
    format!("{}----\n{}\n", imported.manifest.to_toml(), imported.notes.join("\n"))
}

/// What is printed, which is a manifest again and holds no secret.
fn golden(name: &str, imported: &Imported) {
    let text = all(imported);
    for secret in SECRETS {
        assert!(!text.contains(secret) && !format!("{imported:?}").contains(secret), "{secret} in {text}");
    }
    let again = Manifest::parse("nothing applied", "x.toml", &imported.manifest.to_toml()).unwrap();
    assert_eq!(again.to_json(), imported.manifest.to_json());
    compare(name, &text);
}

fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/out").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name} differs; UPDATE_GOLDEN=1 writes it anew");
}

#[test]
fn the_old_api() {
    let imported =
        import::seed(&settings(&["/data/ftp/.1=a1", "/data/ftp/.2=a2"]), "seed.json", SEED).unwrap();
    golden("import-seed.txt", &imported);
    let files: Vec<_> = imported.secrets.iter().map(|secret| secret.path.display().to_string()).collect();
    assert_eq!(files, ["/etc/mirror/secrets/fedora.password", "/etc/mirror/secrets/gnu-tools.password"]);
}

/// Its answers wrap the list, or are one project; its page calls two fields otherwise than its code.
#[test]
fn the_old_api_in_its_other_forms() {
    let one = r#"{"project": "x", "rsync_host": "h.example.org", "rsync_module": "m", "dest": "/d", "password": "p",
        "cron_options": {"minute": "5"}, "rsync_options": {"delete_option": "--delete"}}"#;
    let maps = settings(&["/d=a1"]);
    let alone = import::seed(&maps, "-", one).unwrap();
    let listed = import::seed(&maps, "-", &format!("{{\"projects\": [{one}]}}")).unwrap();
    assert_eq!(alone.manifest, listed.manifest);
    let project = &alone.manifest.projects[0].project;
    assert_eq!((project.destination.as_str(), project.upstreams[0].user.as_str()), ("a1:x", "x"));
    let rsync = project.rsync.as_ref().unwrap();
    assert_eq!(rsync.defaults.as_ref().unwrap().words, ["-avH"]);
    assert_eq!((rsync.options.len(), rsync.delete()), (0, mirror_proto::v1::DeleteMode::Delay));
}

#[test]
fn tunasync() {
    let imported = worker(&settings(&["/srv/tunasync=a1", "/data/big=a2:big"]), WORKER).unwrap();
    golden("import-tunasync.txt", &imported);
}

#[test]
fn a_crontab() {
    let imported =
        import::crontab(&settings(&["/srv/mirror=a1", "/data=a2"]), "crontab", CRONTAB, false).unwrap();
    golden("import-crontab.txt", &imported);
    let system = "0 1 * * * root rsync -a h.example.org::m/ /srv/m\n";
    let maps = settings(&["/srv=a1"]);
    assert_eq!(import::crontab(&maps, "x", system, true).unwrap().manifest.projects.len(), 1);
    let told = import::crontab(&maps, "x", system, false).unwrap_err().to_string();
    assert!(told.contains("add --system"), "{told}");
}

#[test]
fn what_is_missing_or_wrong_is_told_at_once() {
    let nothing = Settings::default();
    let mut text = import::seed(&nothing, "seed.json", SEED).unwrap_err().to_string();
    text.push_str(&worker(&nothing, WORKER).unwrap_err().to_string());
    text.push_str(&import::crontab(&nothing, "crontab", CRONTAB, false).unwrap_err().to_string());
    let bad = r#"[{"project": "x", "rsync_host": "h", "dest": 5.5, "cron_options": {"minute": "61", "hours": "*"}},
        {"project": "y", "rsync_host": "h", "rsync_module": "m", "dest": "/d/..",
         "cron_options": {"hour": "1", "start_date": "tomorrow"}, "rsync_options": {"basics": []}}, 7]"#;
    text.push_str(&import::seed(&settings(&["/d=a1", "x"]), "-", bad).unwrap_err().to_string());
    let bad = "[global]\nmirror_dir = 5\n[[mirrors]]\nname = \"a\"\nprovider = \"ftp\"\n[[mirrors]]\nname = \"b\"\n\
               interval = \"often\"\nupstream = \"rsync://h/m/\"\nrsync_override_only = true\n";
    text.push_str(&worker(&settings(&["/5=a1"]), bad).unwrap_err().to_string());
    let bad = "CRON_TZ=Mars/Base\n61 0 * * * rsync -a h::m/ /srv/m\n";
    text.push_str(&import::crontab(&settings(&["/srv=a1"]), "-", bad, false).unwrap_err().to_string());
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    compare("import-faults.txt", &text);
}

#[test]
fn children_inherit_as_deep_as_is_reasonable() {
    let header = |depth: usize| vec!["mirrors"; depth].join(".");
    let mut text = "[global]\nname = \"w\"\nmirror_dir = \"/s\"\ninterval = 60\n".to_owned();
    for depth in 1..=20 {
        text.push_str(&format!(
            "[[{}]]\nname = \"n{depth}\"\nupstream = \"rsync://h.example.org/m{depth}/\"\n",
            header(depth)
        ));
    }
    let told = worker(&settings(&["/s=a1"]), &text).unwrap_err().to_string();
    assert!(told.contains("nested deeper than 16"), "{told}");
}

#[test]
fn there_are_bounds() {
    let one = |n: usize| format!("0 1 * * * rsync -a h.example.org::m/ /srv/m{n}\n");
    let text: String = (0..=import::IMPORT_PROJECTS_MAX).map(one).collect();
    let told = import::crontab(&settings(&["/srv=a1"]), "x", &text, false).unwrap_err().to_string();
    assert!(told.contains("more than 10000 projects"), "{told}");
    let long = format!("0 1 * * * rsync -a h::m/ /srv/{}\n", "x".repeat(20_000));
    assert!(
        import::crontab(&settings(&["/srv=a1"]), "x", &long, false)
            .unwrap_err()
            .to_string()
            .contains("longer than")
    );
}

/// Pieces that make whole files likely, and bytes of any kind.
fn pieces() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "rsync",
        "-a",
        "-avHe",
        "--delete",
        "--exclude",
        "h::m/",
        "rsync://u:p@h:1/m/x",
        "/srv/m",
        "/srv/a/../b",
        "~",
        "&&",
        "|",
        ";",
        "$(",
        "`",
        "'",
        "\"",
        "\\",
        "%",
        "flock",
        "-n",
        "-c",
        "timeout",
        "9h",
        "env",
        "X=1",
        "cd",
        ">",
        "2>&1",
        "<",
        "@daily",
        "0 1 * * *",
        "*/5 */6 1-3 jan mon",
        "\n",
        "[global]\n",
        "[[mirrors]]\n",
        "[[mirrors.mirrors]]\n",
        "name = \"a\"\n",
        "mirror_dir = \"/srv\"\n",
        "interval = 99999999999999\n",
        "upstream = \"rsync://h/m/\"\n",
        "mirrors = 5\n",
        "rsync_options = [\"-a\", 5]\n",
        "provider = \"command\"\n",
        "env = {USER = \"x\"}\n",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"project\"",
        "\"rsync_options\"",
        "\"cron_options\"",
        "\"dest\"",
        "\"/d\"",
        "null",
        "1e9",
        "-1",
        "\u{202e}",
        "\u{0}",
    ]);
    let any = prop_oneof![4 => words.prop_map(str::to_owned), 1 => any::<String>()];
    prop::collection::vec(any, 0..60).prop_map(|all| all.join(" "))
}

proptest! {
    /// Nothing that strangers write ends the program, and what comes out of it can be read back.
    #[test]
    fn any_text_is_answered(text in pieces()) {
        let settings = settings(&["/=a1:x", "/srv=a1"]);
        let answers = [
            import::seed(&settings, "-", &text),
            import::tunasync(&settings, "-", &text, &mut |_| Ok(vec![("x".to_owned(), text.clone())])),
            import::crontab(&settings, "-", &text, false),
            import::crontab(&settings, "-", &text, true),
        ];
        for imported in answers.into_iter().flatten() {
            let again = Manifest::parse("nothing applied", "x.toml", &imported.manifest.to_toml());
            prop_assert!(again.is_ok(), "{}", again.unwrap_err());
            prop_assert!(imported.notes.iter().all(|note| !note.contains('\n')));
        }
    }

    /// Whatever a payload of the old API holds, a project that comes out has a name and a destination of its own.
    #[test]
    fn any_payload_is_answered(
        project in ".{0,80}", host in "[a-z.:@/-]{0,20}", module in ".{0,30}", dest in "(/[a-z.]{0,4}){0,4}",
        minute in ".{0,8}", options in prop::collection::vec(".{0,12}", 0..4),
    ) {
        let payload = serde_json::json!({"project": project, "rsync_host": host, "rsync_module": module, "dest": dest,
            "cron_options": {"minute": minute}, "rsync_options": {"basic": options}});
        let list = format!("[{payload},{payload}]");
        if let Ok(imported) = import::seed(&settings(&["/=a1:x"]), "-", &list) {
            prop_assert_eq!(imported.manifest.projects.len(), 1);
            prop_assert!(imported.manifest.projects[0].paused.is_some(), "two wrote one tree");
        }
    }
}
