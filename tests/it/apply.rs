//! Projects as files: planned, applied as a recorded plan that a killed coordinator's successor ends, exported.

use std::{fmt::Write as _, fs, time::Duration};

use fleet_tests::{Fleet, FleetOptions, Process, eventually_within};

use crate::audit::log;

/// Projects of the first apply that is cut: more than one commit takes.
const MANY: usize = 1_000;
/// Projects of the largest; one manifest takes 5,000.
const MANY_MAX: usize = 4_000;
/// Tries to cut an apply in its middle, each with twice as many as the one before: a machine on which the first is over
/// before a kill can meet it is met by a later one.
const ROUNDS: u32 = 6;
/// How long an apply of the most may take on a busy machine, planned and carried out by unoptimised programs.
const APPLIED: Duration = Duration::from_secs(170);

const HEAD: &str = "schema = \"mirror.manifest.v1\"\n";

fn fleet() -> Fleet {
    let agents = ["ftp1", "edge1"].map(str::to_owned).into();
    let fleet = Fleet::prepare(FleetOptions { agents, files: 10, ..FleetOptions::default() });
    let mut fleet = fleet.expect("a fleet");
    fleet.start_coordinator().expect("a coordinator");
    for index in 0..2 {
        fleet.enroll(index).expect("an agent");
    }
    fleet
}

fn write(fleet: &Fleet, name: &str, text: &str) -> String {
    let path = fleet.path().join(name);
    fs::write(&path, text).expect("a file");
    path.display().to_string()
}

fn plain(name: &str) -> String {
    format!(
        "\n[[projects]]\nname = \"{name}\"\nupstreams = [{{ uri = \"rsync://ftp.example.net/{name}/\" }}]\n\
         destination = \"a1:{name}\"\nplacement.origins = [{{ agent = \"ftp1\" }}]\n"
    )
}

fn projects(fleet: &Fleet) -> Vec<String> {
    fleet.mirrorctl(&["project", "list", "-o", "name"]).ok().stdout.lines().map(str::to_owned).collect()
}

/// A21: what a file says is planned field by field, applied, and is so; every fault stands at its line.
#[test]
fn a_file_is_planned_applied_and_exported() {
    let fleet = fleet();
    write(&fleet, "debian.password", "hunter2-of-upstream\n");
    let text = format!(
        "{HEAD}\n[[projects]]\nname = \"debian\"\nupstreams = [{{ uri = \"{}\", user = \"mirror\", password_file = \
         \"debian.password\" }}]\ndestination = \"a1:debian\"\nschedule.cron.minute = \"10\"\nschedule.cron.hour = \
         \"*/6\"\nplacement.origins = [{{ agent = \"ftp1\" }}]\nplacement.replicas = [{{ selector = \"role=edge\" \
         }}]\nguard.max_delete = 40000\npaused = \"not yet\"\n{}",
        fleet.upstream.uri(),
        plain("gnu")
    );
    let file = write(&fleet, "mirrors.toml", &text);
    let differs = fleet.mirrorctl(&["plan", "-f", &file, "--exit-code"]);
    assert_eq!(differs.code, 1, "{}{}", differs.stdout, differs.stderr);
    assert!(differs.stdout.contains("Plan: 2 to add, 0 to change, 0 to delete."), "{}", differs.stdout);
    assert_eq!(projects(&fleet), [""; 0]);
    let applied = fleet.mirrorctl(&["apply", "-f", &file]).ok();
    assert!(applied.stdout.contains("Applied: 2 added, 0 changed, 0 deleted"), "{}", applied.stdout);
    assert_eq!(fleet.mirrorctl(&["plan", "-f", &file, "--exit-code"]).code, 0, "passwords included");

    let exported = fleet.mirrorctl(&["export"]).ok().stdout;
    assert!(exported.contains("paused = \"not yet\"") && !exported.contains("hunter2"), "{exported}");
    let again = write(&fleet, "export.toml", &exported);
    assert_eq!(fleet.mirrorctl(&["plan", "-f", &again, "--exit-code"]).code, 0);
    let json = write(&fleet, "export.json", &fleet.mirrorctl(&["export", "-o", "json"]).ok().stdout);
    assert_eq!(fleet.mirrorctl(&["plan", "-f", &json, "--exit-code"]).code, 0);
    assert_eq!(fleet.mirrorctl(&["export", "gnu", "-o", "name"]).ok().stdout, "gnu\n");
    let absent = fleet.mirrorctl(&["export", "gnuu"]);
    assert!(absent.code == 3 && absent.stderr.contains("the nearest name is gnu"), "{}", absent.stderr);

    let edited =
        text.replace("40000", "80000").replace("\"10\"", "\"*/30\"").replace(&plain("gnu"), &plain("rocky"));
    write(&fleet, "mirrors.toml", &edited);
    let plan = fleet.mirrorctl(&["plan", "-f", &file]).ok().stdout;
    for line in [
        "~ debian   guard.max_delete      40000  →  80000",
        "schedule.cron.minute  \"10\"   →  \"*/30\"",
        "! 8 fires a day; public upstreams rarely like more than 4",
        "+ rocky    rsync://ftp.example.net/rocky/ → ftp1 a1:rocky",
        "- gnu      not in the file; kept unless --prune",
        "Plan: 1 to add, 1 to change, 0 to delete. Next: mirrorctl apply -f",
    ] {
        assert!(plan.contains(line), "{line}\nis not in\n{plan}");
    }
    assert_eq!(fleet.mirrorctl(&["apply", "-f", &file, "--prune"]).code, 7, "nobody said yes");
    fleet.mirrorctl(&["apply", "-f", &file, "--prune", "--yes"]).ok();
    assert_eq!(projects(&fleet), ["debian", "rocky"]);

    let bad = edited
        .replace("destination = \"a1:rocky\"", "destination = \"a1:debian/x\"")
        .replace("edge\"", "egde\"");
    write(&fleet, "mirrors.toml", &bad);
    let refused = fleet.mirrorctl(&["apply", "-f", &file]);
    assert_eq!(refused.code, 2);
    for part in [
        "error: nothing applied: 2 faults in",
        "line 10  project \"debian\" placement.replicas[0].selector: \"role=egde\": matches no agent",
        "line 17  project \"rocky\" destination: \"a1:debian/x\": on agent \"ftp1\"",
        "next: mirrorctl plan -f",
    ] {
        assert!(refused.stderr.contains(part), "{part}\nis not in\n{}", refused.stderr);
    }
    let schema = fleet.mirrorctl(&["schema"]).ok().stdout;
    assert!(schema.contains("\"const\": \"mirror.manifest.v1\""));
}

/// A21: whatever is declared, its export is the same declaration: random projects of every shape, in both formats.
#[test]
fn what_is_exported_changes_nothing_when_it_is_applied() {
    let fleet = fleet();
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_122);
    println!("SEED={seed}");
    let mut dice = Dice(seed);
    let mut text = HEAD.to_owned();
    for number in 0..120 {
        text.push_str(&shaped(number, &mut dice));
    }
    let file = write(&fleet, "random.toml", &text);
    fleet.mirrorctl(&["apply", "-f", &file]).ok();
    for (name, format) in [("out.toml", "toml"), ("out.json", "json")] {
        let exported = write(&fleet, name, &fleet.mirrorctl(&["export", "-o", format]).ok().stdout);
        let same = fleet.mirrorctl(&["plan", "-f", &exported, "--prune", "--exit-code"]);
        assert_eq!(same.code, 0, "{}{}", same.stdout, same.stderr);
        let applied = fleet.mirrorctl(&["apply", "-f", &exported, "--prune"]).ok();
        assert!(
            applied.stdout.contains("Nothing to change; 120 projects are as declared."),
            "{}",
            applied.stdout
        );
    }
}

/// A small generator (xorshift64*, Marsaglia and Vigna): the same seed gives the same projects.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        let at = self.below(all.len() as u64);
        all[usize::try_from(at).expect("a place in a list")]
    }
}

/// Lines of which each is there or not; of each row one at most.
const LINES: [&[&str]; 18] = [
    // The second one turns the direction of writing, as Hebrew does, and ends a line.
    &["display_name = \"Tree \\\"%\\\" · 木\"", "display_name = \"\\u200Fדביאן % \\u2028\\u202E\""],
    &["labels = { tier = \"1\", \"x.y\" = \"a b\" }", "labels.tier = 2"],
    &[
        "schedule.cron.minute = \"*/30\"",
        "schedule.cron = { day = \"last fri\", hour = 3 }",
        "schedule.crontab = \"10 */6 * * 1-5\"",
        "schedule.interval.every = \"1d12h\"",
        "schedule.interval = { every = \"6h\", from = \"start\" }",
        "schedule.manual = true",
    ],
    &["schedule.time_zone = \"Europe/Berlin\""],
    &["schedule.jitter = \"5m\"", "schedule.catch_up_window = \"2d\""],
    &["schedule.overlap_policy = \"skip\"", "schedule.overlap_policy = \"buffer-one\""],
    &["schedule.dst_overlap = \"both\"", "schedule.start_time = 2027-03-01T00:00:00Z"],
    &["schedule.windows = [{ start = \"22:00\", end = \"06:00\", days_of_week = [\"sat\", \"sun\"] }]"],
    &[
        "rsync.options = [\"--exclude=/iso/\", \"-H\"]",
        "rsync.options = [\"-avH\"]\nrsync.no_defaults = true",
        "rsync.options = [\"-rt\"]\nrsync.defaults.words = []\nrsync.delete = \"none\"",
        "rsync.options = [\"--exclude=/iso/\"]\nrsync.defaults.words = [\"-avH\"]\nrsync.delete = \"after\"",
    ],
    &["rsync.io_timeout = \"20m\"", "rsync.bandwidth_limit_kib = 1000"],
    &[
        "placement.max_parallel = 2",
        "placement.drain_timeout = \"0s\"",
        "placement.propagation_timeout = \"2h\"",
    ],
    &[
        "placement.replicas = [{ agent = \"edge1\", destination = \"a1:r%\" }]",
        "placement.replicas = [{ selector = \"role=edge\" }]",
    ],
    &[
        "guard.max_delete = 0",
        "guard = { shrink_percent = 40, sentinels = [\"dists\", \"pool/x\"], quota_bytes = 5000 }",
    ],
    &["retry.attempts = 2", "retry.treat_partial_as_success = \"known\"", "retry.initial_backoff = \"1m\""],
    &[
        "marker = { kind = \"debian_trace\", path = \"project/trace/a\" }",
        "marker = { kind = \"mtime\", path = \"x\" }",
    ],
    &["publish.link = \"a1:links/l%\""],
    &[
        "paused = true",
        "paused = \"why: % & co\"",
        "paused = false",
        "paused = { reason = \"until then\", until = 2099-01-31T18:00:00.5Z }",
    ],
    &["archived = true", "archived = \"gone: %\"", "archived = false"],
];

fn shaped(number: usize, dice: &mut Dice) -> String {
    let mut text = format!("\n[[projects]]\nname = \"p{number}\"\ndestination = \"a1:t{number}\"\n");
    text.push_str("placement.origins = [{ agent = \"ftp1\" }]\n");
    let upstreams = dice.one_of(&[
        "upstreams = [{ uri = \"rsync://h.example.net/m%\" }]\n",
        "upstreams = [{ uri = \"rsync://h.example.net/m%/\", user = \"me\" }, { uri = \"rsync://b.example.net:874/m/\" }]\n",
        "",
    ]);
    text.push_str(upstreams);
    for row in LINES {
        if dice.below(2) == 0 {
            let _ = writeln!(text, "{}", dice.one_of(row));
        }
    }
    text.replace('%', &number.to_string())
}

/// A21: an apply whose coordinator is killed in its middle is ended by the next one: nothing is half, nobody asks again,
/// and the audit log names who asked.
#[test]
fn a_killed_coordinator_leaves_a_plan_that_the_next_one_ends() {
    let mut fleet = fleet();
    for round in 0..ROUNDS {
        let many = (MANY << round).min(MANY_MAX);
        let text: String = (0..many).map(|number| plain(&format!("r{round}-{number:04}"))).collect();
        let file = write(&fleet, "many.toml", &format!("{HEAD}{text}"));
        let out = fleet.path().join("apply.log");
        let mut apply =
            Process::start("apply", &mut fleet.command("mirrorctl", &["apply", "-f", &file]), &out)
                .expect("mirrorctl starts");
        // One project is looked at: a list of all takes the longer the more there are.
        let first = format!("r{round}-0000");
        eventually_within(APPLIED, "the first of them is there", || {
            (fleet.mirrorctl(&["project", "show", &first, "-o", "name"]).code == 0).then_some(())
        });
        fleet.kill_coordinator();
        apply.stop();
        fleet.start_coordinator().expect("the next coordinator");
        let of_round = format!("r{round}-");
        eventually_within(APPLIED, "the plan is ended", || {
            let there = projects(&fleet).iter().filter(|name| name.starts_with(&of_round)).count();
            (there == many).then_some(())
        });
        let same = fleet.mirrorctl(&["plan", "-f", &file, "--exit-code"]);
        assert_eq!(same.code, 0, "{}{}", same.stdout, same.stderr);
        println!("round {round}: killed after the first of {many}");
        if in_the_middle(&fleet) {
            return;
        }
    }
    panic!("no kill of {ROUNDS} was in the middle of an apply");
}

/// Whether steps that a person asked for were done after the newest start of a coordinator.
fn in_the_middle(fleet: &Fleet) -> bool {
    let events = log(fleet, &["--since", "1d"]);
    let started =
        events.iter().rposition(|event| event["action"] == "Coordinator.Start").expect("it has started");
    let (before, after) = events.split_at(started);
    let is_step = |event: &&serde_json::Value| {
        event["action"] == "ProjectService.ApplyProjects"
            && event["resource"].as_str().is_some_and(|name| name.starts_with("projects/"))
    };
    let asked_by_admin = after.iter().filter(is_step).all(|event| event["who"] == "users/admin");
    assert!(asked_by_admin, "{after:#?}");
    before.iter().any(|event| is_step(&event)) && after.iter().any(|event| is_step(&event))
}
