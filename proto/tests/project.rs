//! Declarations as people send them: what is accepted, and every fault of what is not.

use std::time::Duration;

use fleet::{
    id::{AgentUid, Name, ProjectUid},
    project::{Pause, ProjectRecord, ProjectSpec},
    refusal::Violation,
    schedule::Cadence,
    time::Wall,
};
use mirror_proto::{
    convert::{Context, Declaration, Names, apply_mask, project_from_wire, project_to_wire, spec_from_wire},
    v1,
};

const FTP1: AgentUid = AgentUid(7);
const BASE: ProjectUid = ProjectUid(9);

struct Fleet;

impl Names for Fleet {
    fn agent(&self, uid: AgentUid) -> Option<Name> {
        (uid == FTP1).then(|| name("ftp1"))
    }

    fn project(&self, uid: ProjectUid) -> Option<Name> {
        (uid == BASE).then(|| name("base"))
    }
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn agent_named(wanted: &Name) -> Option<AgentUid> {
    (*wanted == name("ftp1")).then_some(FTP1)
}

fn project_named(wanted: &Name) -> Option<ProjectUid> {
    (*wanted == name("base")).then_some(BASE)
}

/// Not a cipher: it only has to differ from the password.
fn seal(password: &str) -> Vec<u8> {
    password.bytes().map(|byte| byte ^ 0x5a).collect()
}

fn context(current: Option<&ProjectSpec>) -> Context<'_> {
    Context { agent: &agent_named, project: &project_named, seal: &seal, current }
}

fn upstream(uri: &str) -> v1::Upstream {
    v1::Upstream { uri: uri.to_owned(), ..v1::Upstream::default() }
}

fn span(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn target(agent: &str, destination: &str) -> v1::PlacementTarget {
    v1::PlacementTarget {
        agent: agent.to_owned(),
        destination: destination.to_owned(),
        selector: String::new(),
    }
}

/// The least that is a project.
fn minimal() -> v1::Project {
    v1::Project {
        name: "projects/debian".to_owned(),
        upstreams: vec![upstream("rsync://syncproxy.debian.org/debian/")],
        destination: "a1:debian".to_owned(),
        placement: Some(v1::PlacementSettings {
            origins: vec![target("agents/ftp1", "")],
            ..Default::default()
        }),
        ..v1::Project::default()
    }
}

/// Everything set.
fn full() -> v1::Project {
    let cron = v1::Cron { minute: "10".to_owned(), hour: "*/6".to_owned(), ..v1::Cron::default() };
    v1::Project {
        display_name: "Debian".to_owned(),
        labels: [("tier".to_owned(), "1".to_owned())].into(),
        upstreams: vec![v1::Upstream {
            user: "mirror".to_owned(),
            password: Some("hunter2".to_owned()),
            ..upstream("rsync://syncproxy.debian.org:8730/debian/")
        }],
        schedule: Some(v1::Schedule {
            cadence: Some(v1::schedule::Cadence::Cron(cron)),
            time_zone: "Europe/Berlin".to_owned(),
            start_time: "2026-11-20".to_owned(),
            jitter: span(300),
            ..v1::Schedule::default()
        }),
        rsync: Some(v1::RsyncSettings {
            options: words(&["-avH", "--exclude=*.iso"]),
            no_defaults: true,
            connect_timeout: span(30),
            io_timeout: span(600),
            stall_timeout: span(1_800),
            run_timeout: span(86_400),
            bandwidth_limit_kib: 1_000,
            ..v1::RsyncSettings::default()
        }),
        placement: Some(v1::PlacementSettings {
            origins: vec![target("agents/ftp1", "a2:pub/debian")],
            ..Default::default()
        }),
        guard: Some(v1::GuardSettings { max_delete: Some(40_000), ..v1::GuardSettings::default() }),
        marker: Some(v1::Marker {
            kind: v1::marker::Kind::DebianTrace.into(),
            path: "project/trace/ftp.example.net".to_owned(),
        }),
        retry: Some(v1::RetrySettings { attempts: 3, initial_backoff: span(60), ..Default::default() }),
        ..minimal()
    }
}

fn declared(wire: &v1::Project) -> ProjectSpec {
    declared_over(wire, None)
}

fn declared_over(wire: &v1::Project, current: Option<&ProjectSpec>) -> ProjectSpec {
    match spec_from_wire(wire, context(current)) {
        Ok(Declaration { spec, .. }) => spec,
        Err(faults) => panic!("{faults:#?}"),
    }
}

fn faults_of(wire: &v1::Project) -> Vec<Violation> {
    project_from_wire(wire, context(None)).expect_err("a faulty project")
}

/// The one fault of a project that is right but for this change.
fn only_fault(change: impl FnOnce(&mut v1::Project)) -> (String, String) {
    let mut wire = full();
    change(&mut wire);
    let mut faults = faults_of(&wire);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    let Violation { field, description } = faults.remove(0);
    (field, description)
}

fn record(spec: ProjectSpec) -> ProjectRecord {
    ProjectRecord {
        uid: ProjectUid(1),
        name: name("debian"),
        spec,
        paused: None,
        archived: None,
        revision: 4,
        create_time: Wall(1_000),
        update_time: Wall(2_000),
    }
}

#[test]
fn the_least_is_enough() {
    let (project, Declaration { spec, notes }) =
        project_from_wire(&minimal(), context(None)).expect("a project");
    assert_eq!(project.as_str(), "debian");
    assert_eq!(spec.upstreams[0].host, "syncproxy.debian.org");
    assert_eq!(spec.schedule.cadence, Cadence::Manual);
    assert_eq!(spec.placement.origins[0].agent, FTP1);
    assert_eq!((spec.guard.max_delete, spec.retry.attempts, spec.rsync.io_timeout), (None, None, None));
    assert!(notes.is_empty());
}

#[test]
fn everything_is_read_and_comes_out_again_but_for_the_password() {
    let spec = declared(&full());
    assert_eq!(spec.upstreams[0].sealed_password, seal("hunter2"));
    assert_eq!(spec.rsync.connect_timeout, Some(Duration::from_secs(30)));
    assert_eq!(spec.retry.initial_backoff, Some(Duration::from_secs(60)));
    let wire = project_to_wire(&record(spec.clone()), &Fleet, Vec::new());
    assert!(wire.upstreams[0].has_password && wire.upstreams[0].password.is_none());
    assert_eq!(wire.upstreams[0].uri, "rsync://syncproxy.debian.org:8730/debian/");
    assert_eq!(wire.rsync.as_ref().map(|rsync| rsync.options.clone()), Some(spec.rsync.options.clone()));
    assert_eq!((wire.name.as_str(), wire.etag.as_str()), ("projects/debian", "4"));
    assert_eq!(declared_over(&wire, Some(&spec)), spec);
}

#[test]
fn defaults_are_shown_as_absent() {
    let spec = declared(&minimal());
    let wire = project_to_wire(&record(spec), &Fleet, Vec::new());
    assert_eq!((wire.rsync, wire.guard, wire.retry, wire.paused), (None, None, None, None));
}

#[test]
fn a_pause_and_a_deleted_agent_are_shown() {
    let mut stored = record(declared(&minimal()));
    stored.paused =
        Some(Pause { by: "maria".to_owned(), time: Wall(5_000), reason: "moving".to_owned(), until: None });
    stored.spec.placement.origins[0].agent = AgentUid(99);
    let wire = project_to_wire(&stored, &Fleet, Vec::new());
    assert_eq!(wire.paused.map(|pause| pause.by), Some("users/maria".to_owned()));
    assert_eq!(wire.placement.map(|p| p.origins[0].agent.clone()), Some("agents/?".to_owned()));
}

#[test]
fn all_faults_of_one_project_come_at_once() {
    let cron = v1::Cron { minute: "*/70".to_owned(), ..v1::Cron::default() };
    let wire = v1::Project {
        name: "projects/deb ian".to_owned(),
        display_name: "x".repeat(201),
        labels: [("tier".to_owned(), "a\nb".to_owned())].into(),
        upstreams: vec![upstream("rsnc://h/debian")],
        destination: "debian".to_owned(),
        schedule: Some(v1::Schedule {
            cadence: Some(v1::schedule::Cadence::Cron(cron)),
            ..v1::Schedule::default()
        }),
        rsync: Some(v1::RsyncSettings {
            options: words(&["-a", "--nonsense", "-e"]),
            io_timeout: span(1),
            bandwidth_limit_kib: u64::MAX,
            ..v1::RsyncSettings::default()
        }),
        placement: Some(v1::PlacementSettings {
            origins: vec![target("agents/ftp9", "/etc")],
            ..Default::default()
        }),
        guard: Some(v1::GuardSettings { max_delete: Some(u64::MAX), ..v1::GuardSettings::default() }),
        retry: Some(v1::RetrySettings { attempts: 21, initial_backoff: span(0), ..Default::default() }),
        ..v1::Project::default()
    };
    let told: Vec<String> =
        faults_of(&wire).iter().map(|fault| format!("{} {}", fault.field, fault.description)).collect();
    let begins = [
        "name \"deb ian\": only letters, digits and . _ + - (at most 63)",
        "display_name \"xxx",
        "labels.tier \"a\\x0ab\": must not hold control characters",
        "upstreams[0].uri \"rsnc://h/debian\": unknown scheme \"rsnc\"",
        "destination \"debian\": needs a root, as in a1:debian",
        "schedule.cron.minute \"*/70\": the step must be 1 to 59",
        "rsync.options[1] \"--nonsense\": is no option that a mirror pull may use",
        "rsync.options[2] \"-e\": runs a program of your choice; never allowed",
        "rsync.io_timeout \"1s\": must be 10s to 24h",
        "rsync.bandwidth_limit_kib \"18446744073709551615\": must be at most 100000000",
        "placement.origins[0].agent \"ftp9\": there is no such agent",
        "placement.origins[0].destination \"/etc\": needs a root",
        "guard.max_delete \"18446744073709551615\": must be 0 to 1000000000",
        "retry.attempts \"21\": must be 1 to 20",
        "retry.initial_backoff \"0s\": must be 1s to 1h",
    ];
    assert_eq!(told.len(), begins.len(), "{told:#?}");
    for (told, begin) in told.iter().zip(begins) {
        assert!(told.starts_with(begin), "{told}\n{begin}");
    }
}

#[test]
fn at_most_eight_upstreams_and_at_least_one_origin_are_wanted() {
    let faults = faults_of(&v1::Project { upstreams: Vec::new(), placement: None, ..minimal() });
    let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["placement.origins"]);
    let more = |count: usize| (0..count).map(|n| upstream(&format!("rsync://h{n}/m")));
    let (field, _) = only_fault(|wire| wire.upstreams.extend(more(8)));
    assert_eq!(field, "upstreams");
    let mut most = full();
    most.upstreams.extend(more(7));
    assert_eq!(declared(&most).upstreams.len(), 8);
    let (field, text) = only_fault(|wire| {
        wire.upstreams.extend(["rsync://h/m", "rsync://h1/m", "rsync://me@H/m/"].map(upstream));
    });
    assert!(field == "upstreams[3].uri" && text.ends_with("is given twice"), "{field} {text}");
}

/// A5 of the mission: what was given in three parts is shown in three parts, and an agent gets the words in order.
#[test]
fn three_parts_of_options_come_back_as_given_and_reach_agents_in_order() {
    let wire = v1::Project {
        rsync: Some(v1::RsyncSettings {
            options: words(&["--exclude=/iso/", "--include=*.deb"]),
            defaults: Some(v1::OptionWords { words: words(&["-avH", "--delay-updates"]) }),
            delete: v1::DeleteMode::After.into(),
            ..v1::RsyncSettings::default()
        }),
        ..minimal()
    };
    let rsync = declared(&wire).rsync;
    let canonical = [
        "--archive",
        "--hard-links",
        "--delay-updates",
        "--exclude=/iso/",
        "--include=*.deb",
        "--delete-after",
    ];
    assert!(rsync.words() == canonical && rsync.replaces_defaults(), "{rsync:?}");
    let none = declared(&minimal()).rsync;
    assert!(none.words().is_empty() && !none.replaces_defaults(), "our default flags");
    let silent = v1::RsyncSettings { delete: 0, ..wire.rsync.clone().unwrap() };
    let silent = declared(&v1::Project { rsync: Some(silent), ..minimal() }).rsync;
    assert_eq!(silent.words().last().unwrap(), "--delete-delay", "each part has its own default");
}

#[test]
fn a_contradiction_between_options_names_them_all() {
    let (field, text) = only_fault(|wire| {
        wire.rsync.as_mut().unwrap().options = words(&["-a", "--delete-after", "--delete-during"]);
    });
    assert_eq!(field, "rsync.options");
    assert!(text.contains("--delete"), "{text}");
    // A word about output is accepted and left out, so nothing is left here either.
    for nothing in [&[][..], &["-v"][..]] {
        let (field, _) = only_fault(|wire| wire.rsync.as_mut().unwrap().options = words(nothing));
        assert_eq!(field, "rsync.no_defaults");
    }
    let many: Vec<String> = (0..70).map(|n| format!("--exclude={n}")).collect();
    let (field, text) = only_fault(|wire| wire.rsync.as_mut().unwrap().options = many);
    assert_eq!(field, "rsync.options");
    assert!(text.ends_with("is word 65; at most 64 are accepted"), "{text}");
    let (_, text) = only_fault(|wire| wire.rsync.as_mut().unwrap().options = words(&["-a"; 9]));
    assert!(text.contains("a second time"), "{text}");
}

#[test]
fn the_user_may_stand_in_the_uri() {
    let mut wire = full();
    wire.upstreams[0].uri = "rsync://mirror@h/m".to_owned();
    wire.upstreams[0].user = String::new();
    let spec = declared(&wire);
    assert_eq!((spec.upstreams[0].uri.as_str(), spec.upstreams[0].user.as_str()), ("rsync://h/m/", "mirror"));
    wire.upstreams[0].user = "mirror".to_owned();
    assert_eq!(declared(&wire), spec);
    let (field, text) = only_fault(|wire| wire.upstreams[0].uri = "rsync://other@h/m".to_owned());
    assert_eq!(field, "upstreams[0].user");
    assert_eq!(text, "\"mirror\": the URI names another user, \"other\"");
    let (field, _) = only_fault(|wire| wire.upstreams[0].user = "a:b".to_owned());
    assert_eq!(field, "upstreams[0].user");
}

#[test]
fn a_password_in_the_uri_is_refused_and_never_repeated() {
    for uri in ["rsync://mirror:hunter2@h/m", "rsnc://mirror:hunter2@h/m", "mirror:hunter2@h::m"] {
        let (field, text) = only_fault(|wire| wire.upstreams[0].uri = uri.to_owned());
        assert_eq!(field, "upstreams[0].uri");
        assert!(!text.contains("hunter2"), "{text}");
    }
    let (_, text) = only_fault(|wire| wire.upstreams[0].uri = "rsync://mirror:hunter2@h/m".to_owned());
    assert!(text.ends_with("holds a password; give it in the field password"), "{text}");
    let (field, text) = only_fault(|wire| wire.upstreams[0].password = Some("hunter2\n".repeat(100)));
    assert_eq!(field, "upstreams[0].password");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn an_absent_password_stays_an_empty_one_goes() {
    let stored = declared(&full());
    let mut wire = full();
    wire.upstreams[0].password = None;
    assert_eq!(declared_over(&wire, Some(&stored)), stored);
    wire.upstreams[0].password = Some(String::new());
    assert!(declared_over(&wire, Some(&stored)).upstreams[0].sealed_password.is_empty());
    wire.upstreams[0].password = Some("other".to_owned());
    assert_eq!(declared_over(&wire, Some(&stored)).upstreams[0].sealed_password, seal("other"));
}

#[test]
fn a_stored_password_goes_to_no_other_host_and_needs_a_user() {
    let stored = declared(&full());
    let refused = |uri: &str, user: &str| {
        let mut wire = full();
        wire.upstreams = vec![v1::Upstream { user: user.to_owned(), ..upstream(uri) }];
        let faults = spec_from_wire(&wire, context(Some(&stored))).expect_err("a refused change");
        faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>()
    };
    assert_eq!(refused("rsync://evil.example/debian/", "mirror"), ["upstreams[0].password"]);
    assert_eq!(refused("rsync://syncproxy.debian.org/debian/", "mirror"), ["upstreams[0].password"]);
    assert_eq!(refused("rsync://syncproxy.debian.org:8730/debian/", ""), ["upstreams[0].password"]);
    let mut wire = full();
    wire.upstreams[0].password = None;
    wire.upstreams[0].uri = "rsync://SyncProxy.debian.org:8730/other/".to_owned();
    assert_eq!(declared_over(&wire, Some(&stored)).upstreams[0].sealed_password, seal("hunter2"));
}

#[test]
fn a_stored_password_follows_its_uri_through_the_list() {
    let stored = declared(&full());
    let mut wire = full();
    wire.upstreams[0].password = None;
    wire.upstreams.insert(0, upstream("rsync://h/m"));
    let moved = declared_over(&wire, Some(&stored));
    assert!(moved.upstreams[0].sealed_password.is_empty());
    assert_eq!(moved.upstreams[1], stored.upstreams[0]);
    // Each has its own, and what takes a place takes no password.
    wire.upstreams[0] =
        v1::Upstream { user: "b".to_owned(), password: Some("b's".to_owned()), ..upstream("rsync://h/m") };
    let both = declared_over(&wire, Some(&stored));
    assert_eq!(both.upstreams[0].sealed_password, seal("b's"));
    wire.upstreams[0] = v1::Upstream { user: "b".to_owned(), ..upstream("rsync://other/m") };
    let faults = spec_from_wire(&wire, context(Some(&both))).expect_err("a password of another host");
    assert_eq!(faults[0].field, "upstreams[0].password");
}

#[test]
fn an_update_changes_what_its_mask_names_and_nothing_else() {
    let mut stored = declared(&full());
    stored.placement.max_parallel = 3;
    let current = project_to_wire(&record(stored.clone()), &Fleet, Vec::new());
    let update = v1::Project {
        guard: Some(v1::GuardSettings { max_delete: Some(80_000), ..v1::GuardSettings::default() }),
        ..v1::Project::default()
    };
    let merged = apply_mask(&current, &update, &words(&["guard.max_delete"])).expect("a merge");
    let spec = declared_over(&merged, Some(&stored));
    assert_eq!(
        spec,
        ProjectSpec {
            guard: fleet::project::GuardSettings { max_delete: Some(80_000), ..Default::default() },
            ..stored
        }
    );
}

#[test]
fn a_selector_is_pairs_and_a_forgotten_value_selects_nobody() {
    let read = |text: &str| mirror_proto::convert::read_selector("placement.replicas[0].selector", text);
    let labels = read("role=edge, site=north").expect("two pairs");
    assert_eq!((labels["role"].as_str(), labels["site"].as_str()), ("edge", "north"));
    for bad in ["", "role", "role=", "role=edge,", "role=edge,role=core", "=edge"] {
        let faults = read(bad).expect_err(bad);
        assert!(
            faults.iter().all(|fault| fault.field.starts_with("placement.replicas[0].selector")),
            "{faults:?}"
        );
    }
}

#[test]
fn a_project_runs_after_projects_that_are_there_each_once() {
    let mut wire = full();
    wire.after = words(&["projects/Base"]);
    let spec = declared(&wire);
    assert_eq!(spec.after, [BASE]);
    // What is shown is what it is called.
    assert_eq!(project_to_wire(&record(spec), &Fleet, Vec::new()).after, words(&["projects/base"]));
    for (after, fields) in [
        (words(&["projects/none"]), vec!["after[0]"]),
        (words(&["base", "projects/none"]), vec!["after[0]", "after[1]"]),
        (words(&["projects/base", "projects/BASE"]), vec!["after[1]"]),
        (words(&["projects/base"; 9]), vec!["after"]),
    ] {
        wire.after = after;
        let faults = spec_from_wire(&wire, context(None)).expect_err("faults");
        assert_eq!(faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(), fields);
    }
}

/// A12: a mask that names the schedule replaces the whole of it, and leaves the rest as it was.
#[test]
fn a_mask_of_the_schedule_replaces_all_of_it_and_nothing_else() {
    let stored = declared(&full());
    let current = project_to_wire(&record(stored.clone()), &Fleet, Vec::new());
    let schedule = v1::Schedule {
        cadence: Some(v1::schedule::Cadence::Crontab("5 4 * * *".to_owned())),
        ..v1::Schedule::default()
    };
    let update = v1::Project { schedule: Some(schedule), ..v1::Project::default() };
    let merged = apply_mask(&current, &update, &words(&["schedule"])).expect("a merge");
    let spec = declared_over(&merged, Some(&stored));
    assert_ne!(spec.schedule, stored.schedule);
    assert_eq!((spec.schedule.jitter_seconds, spec.schedule.start), (0, None));
    assert_eq!(ProjectSpec { schedule: stored.schedule.clone(), ..spec }, stored);
}
