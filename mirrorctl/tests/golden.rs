//! What people read, as files in `tests/out`: fixed messages at one moment (Fri 2026-11-20 07:42:10 UTC), printed at 80
//! columns. After an intended change run once with `UPDATE_GOLDEN=1` and look at the difference.

#![allow(clippy::unwrap_used, reason = "a test helper that fails is a test that fails")]

mod fixtures;

use std::path::Path;

use fixtures::{
    agents, cpan, debian, fleet, held_run, partial_run, piped, running_attempt, succeeded, view, wire,
};
use mirror_proto::v1;
use mirror_proto::v1::finding::{Kind, Severity};
use mirrorctl::json;
use mirrorctl::status::summarize;
use mirrorctl::term::View;
use mirrorctl::text;
use mirrorctl::watch::lines::{self, Frame};

/// Compares with the file, or writes it.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/out").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name} differs; UPDATE_GOLDEN=1 writes it anew");
}

/// Text that keeps to 80 columns.
fn golden_80(name: &str, text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{name}: wider than 80 columns: {line}");
    }
    golden(name, text);
}

#[test]
fn status() {
    let fleet = fleet();
    let summary = summarize(&fleet, view().now);
    golden_80("status.txt", &text::status::page(&view(), &summary, false));
    golden("status-wide.txt", &text::status::page(&View { wide: true, ..piped() }, &summary, false));
    let json = text::status::json(&summary, view().now);
    golden("status.json", &(serde_json::to_string_pretty(&json).unwrap() + "\n"));
    golden("status.yaml", &mirrorctl::yaml::document(&json).unwrap());
    let ascii = View { unicode: false, absolute: true, ..piped() };
    golden("status-absolute.txt", &text::status::page(&ascii, &summary, true));
}

#[test]
fn status_of_special_fleets() {
    let empty = v1::FleetStatus::default();
    let now = view().now;
    let mut all = text::status::page(&view(), &summarize(&empty, now), false);
    let calm = v1::FleetStatus { projects: vec![fixtures::ubuntu_at_rest()], ..v1::FleetStatus::default() };
    all.push_str("----\n");
    all.push_str(&text::status::page(&view(), &summarize(&calm, now), false));
    let frozen = v1::Freeze {
        by: "users/maria".to_owned(),
        time: wire("2026-11-20T05:40:00Z"),
        reason: "array swap".to_owned(),
    };
    let frozen = v1::FleetStatus { frozen: Some(frozen), ..calm };
    all.push_str("----\n");
    all.push_str(&text::status::page(&view(), &summarize(&frozen, now), false));
    // What is archived is neither stale nor in need of anybody, however its last run ended and however long ago.
    let mut held = debian();
    held.archived = Some(fixtures::archive());
    let archived =
        v1::FleetStatus { projects: vec![held, fixtures::ubuntu_at_rest()], ..v1::FleetStatus::default() };
    all.push_str("----\n");
    let summary = summarize(&archived, now);
    assert_eq!((summary.counts.archived, summary.counts.stale, summary.attention.len()), (1, 0, 0));
    all.push_str(&text::status::page(&view(), &summary, true));
    golden_80("status-special.txt", &all);
}

#[test]
fn many_projects_are_folded() {
    let mut fleet = fleet();
    for number in 0..107 {
        let mut project = fixtures::ubuntu_at_rest();
        project.name = format!("projects/calm-{number:03}");
        fleet.projects.push(project);
    }
    let text = text::status::page(&view(), &summarize(&fleet, view().now), false);
    assert!(text.ends_with("108 more projects, 107 fresh, 1 paused: mirrorctl status --all\n"), "{text}");
    let last = fleet.projects.last_mut().expect("a calm one");
    last.archived = Some(fixtures::archive());
    let told = text::status::page(&view(), &summarize(&fleet, view().now), false);
    let end = "108 more projects, 106 fresh, 1 paused, 1 archived: mirrorctl status --all\n";
    assert!(told.ends_with(end), "{told}");
    let all = text::status::page(&view(), &summarize(&fleet, view().now), true);
    assert!(all.contains("calm-106") && !all.contains("more projects"));
}

#[test]
fn agents_that_do_not_fit_share_a_column() {
    let mut fleet = fleet();
    for number in 2..9 {
        let mut agent = fleet.agents[1].clone();
        agent.name = format!("agents/edge{number}");
        fleet.agents.push(agent);
    }
    let text = text::status::page(&view(), &summarize(&fleet, view().now), false);
    assert!(text.contains("MORE"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn projects() {
    let projects = [cpan(), debian()];
    golden_80("project-list.txt", &text::project::list(&view(), &projects));
    golden("project-list-wide.txt", &text::project::list(&View { wide: true, ..piped() }, &projects));
    let shown = json::value(&debian(), "Project").unwrap();
    golden("project-show.yaml", &mirrorctl::yaml::document(&shown).unwrap());
    let runs = [held_run(), held_run(), succeeded(), partial_run()];
    let why = ["debian is held since 1h: 61,204 deletes wanted, 40,000 allowed.".to_owned()];
    golden_80("project-show.txt", &text::project::show(&view(), &debian(), &runs, &why));
    let mut switched = debian();
    let fallback = v1::Upstream {
        uri: "rsync://ftp.example.net/debian/".to_owned(),
        user: "mirror".to_owned(),
        has_password: true,
        ..v1::Upstream::default()
    };
    switched.status.as_mut().expect("debian has one").upstream.clone_from(&fallback.uri);
    switched.upstreams.push(fallback);
    golden_80("project-show-switched.txt", &text::project::show(&view(), &switched, &[], &[]));
    golden_80("project-list-switched.txt", &text::project::list(&view(), std::slice::from_ref(&switched)));
    switched.marker = Some(fixtures::trace());
    let status = switched.status.as_mut().expect("debian has one");
    status.marker_time = wire("2026-11-19T00:12:00Z");
    status.behind_since = wire("2026-11-20T06:30:00Z");
    golden_80("project-show-marker.txt", &text::project::show(&view(), &switched, &[], &[]));
    let mut archived = fixtures::ubuntu_at_rest();
    archived.after = vec!["projects/debian".to_owned(), "projects/debian-ports".to_owned()];
    archived.archived = Some(fixtures::archive());
    archived.status.as_mut().expect("ubuntu has one").next_fire_times.clear();
    golden_80("project-show-archived.txt", &text::project::show(&view(), &archived, &[], &[]));
    golden_80("project-list-archived.txt", &text::project::list(&view(), &[archived]));
    golden_80("project-list-empty.txt", &text::project::list(&view(), &[]));
}

#[test]
fn command_lines() {
    use v1::argument::Origin;
    let argument = |text: &str, origin: Origin, source: &str| v1::Argument {
        text: text.to_owned(),
        origin: origin.into(),
        source: source.to_owned(),
    };
    let origin = v1::CommandLine {
        agent: "agents/ftp1".to_owned(),
        role: v1::Role::Origin.into(),
        program: "/usr/bin/rsync".to_owned(),
        rsync_version: "3.5.0".to_owned(),
        arguments: vec![
            argument("--recursive", Origin::Default, ""),
            argument("--links", Origin::Default, ""),
            argument("--perms", Origin::Default, ""),
            argument("--times", Origin::Default, ""),
            argument("--hard-links", Origin::Project, "rsync.options"),
            argument("--safe-links", Origin::Always, ""),
            argument("--filter=- /iso/ here", Origin::Project, "rsync.options"),
            argument("--delete-delay", Origin::Default, ""),
            argument("--max-delete=40000", Origin::Project, "guard.max_delete"),
            argument("--bwlimit=1000", Origin::Agent, "bandwidth_limit_kib"),
            argument("--password-file=-", Origin::Secret, ""),
            argument("--", Origin::Always, ""),
            argument("rsync://mirror@syncproxy.debian.org/debian/", Origin::Project, "upstreams[0]"),
            argument("/srv/mirror/debian/", Origin::Project, "destination"),
        ],
        limits: vec![argument("stall timeout 30m", Origin::Default, "")],
        ..v1::CommandLine::default()
    };
    let replica = v1::CommandLine {
        agent: "agents/edge1".to_owned(),
        role: v1::Role::Replica.into(),
        arguments: vec![
            argument("--max-delete=500", Origin::Guard, "by the tree's size"),
            argument("rsync://a7-20779@ftp1:8730/3/", Origin::Fleet, "agents/ftp1"),
        ],
        ..origin.clone()
    };
    let away = v1::CommandLine {
        agent: "agents/edge2".to_owned(),
        role: v1::Role::Replica.into(),
        fault: "it is not connected, and only it knows its own file and rsync".to_owned(),
        ..v1::CommandLine::default()
    };
    let response = v1::ExplainProjectResponse { command_lines: vec![origin, replica, away] };
    golden_80("project-explain.txt", &text::explain::explain(&view(), &response));
}

#[test]
fn checks() {
    let finding = |kind: Kind, severity: Severity, sentence: &str| v1::Finding {
        agent: format!("agents/{}", sentence.split(' ').next().unwrap()),
        kind: kind.into(),
        severity: severity.into(),
        sentence: sentence.to_owned(),
        ..v1::Finding::default()
    };
    let findings = vec![
        finding(Kind::Path, Severity::Ok, "ftp1 a2:epel is below a root of the agent's own file, writable"),
        finding(
            Kind::Reachability,
            Severity::Fault,
            "ftp1 is refused by rsync.example.net: @ERROR: auth failed on module epel; fault: yours; check the \
             upstream's user and password",
        ),
        v1::Finding {
            files: Some(402_116),
            size_bytes: Some(516_469_817_344),
            ..finding(Kind::Size, Severity::Warning, "~481 GiB, 402,116 files: ftp1:a2 would be 96 % full")
        },
        finding(
            Kind::Marker,
            Severity::Warning,
            "ftp1 reads fullfiletimelist-epel at rsync://rsync.example.net/epel/: 2026-11-19 02:00:00 UTC, older than what \
             is served (2026-11-20 01:00:00 UTC); nothing is pulled from there",
        ),
        finding(Kind::Space, Severity::Fault, "edge2 a1:epel lacks ~12.0 GiB above its reserve of 160 GiB"),
    ];
    let bad = v1::CheckProjectResponse { findings, faults: 2, warnings: 2 };
    let good = v1::CheckProjectResponse { findings: bad.findings[..1].to_vec(), faults: 0, warnings: 0 };
    let ascii = View { unicode: false, ..view() };
    let texts = [
        text::check::check(&view(), "epel", &bad),
        text::check::check(&view(), "epel", &good),
        text::check::check(&ascii, "epel", &good),
    ];
    golden_80("project-check.txt", &texts.join("----\n"));
    let json = serde_json::to_string_pretty(&json::value(&bad, "CheckProjectResponse").unwrap()).unwrap();
    golden("project-check.json", &(json + "\n"));
}

#[test]
fn plans() {
    use v1::project_change::Action;
    let field = |field: &str, old: &str, new: &str| v1::FieldChange {
        field: field.to_owned(),
        old: old.to_owned(),
        new: new.to_owned(),
    };
    let change = |name: &str, action: Action| v1::ProjectChange {
        project: format!("projects/{name}"),
        action: action.into(),
        ..v1::ProjectChange::default()
    };
    let rocky = v1::Project {
        upstreams: vec![v1::Upstream {
            uri: "rsync://msync.rockylinux.org/rocky/mirror/".to_owned(),
            ..v1::Upstream::default()
        }],
        destination: "a2:rocky".to_owned(),
        placement: Some(v1::PlacementSettings {
            origins: vec![v1::PlacementTarget { agent: "agents/ftp1".to_owned(), ..Default::default() }],
            ..v1::PlacementSettings::default()
        }),
        ..v1::Project::default()
    };
    let declared = [("rocky", &rocky)].into();
    let apply = "mirrorctl apply -f mirrors.toml";
    let page = |changes: Vec<v1::ProjectChange>, unchanged: u32| {
        let planned = v1::PlanProjectsResponse { changes, unchanged, ..v1::PlanProjectsResponse::default() };
        text::plan::plan(&view(), &planned, &declared, apply)
    };
    let debian = v1::ProjectChange {
        fields: vec![
            field("guard.max_delete", "40000", "80000"),
            field("schedule.cron.minute", "10", "*/30"),
        ],
        warnings: vec!["8 fires a day; public upstreams rarely like more than 4".to_owned()],
        ..change("debian", Action::Change)
    };
    let sample = page(
        vec![change("centos-vault", Action::Keep), debian.clone(), change("rocky", Action::Create)],
        110,
    );
    let long = v1::ProjectChange {
        fields: vec![
            field("rsync.options", "-rlptH --safe-links", &"--exclude=/pool/main/x/ ".repeat(4)),
            field("placement.origins[0].agent", "agents/ftp1", "agents/ftp2"),
            field("schedule.overlap_policy", "", "buffer_one"),
            field("labels.tier", "1", ""),
            field("paused", "false", "moving to a2"),
            field("upstreams[0].password", "(set)", "(changed)"),
        ],
        fields_left_out: 3,
        ..change("CPAN", Action::Change)
    };
    let kept = (0..12).map(|number| change(&format!("kept-{number:02}"), Action::Keep));
    let more = page(kept.chain([long, change("gone", Action::Delete)]).collect(), 0);
    let same = page(Vec::new(), 110);
    golden_80("plan.txt", &[sample, more, same].join("----\n"));
    let applied =
        v1::ApplyProjectsResponse { created: 1, changed: 1, ..v1::ApplyProjectsResponse::default() };
    assert_eq!(
        text::plan::applied(&applied, 110),
        "Applied: 1 added, 1 changed, 0 deleted, 110 as they were."
    );
    let nothing = v1::ApplyProjectsResponse::default();
    assert_eq!(text::plan::applied(&nothing, 1), "Nothing to change; 1 project is as declared.");
}

#[test]
fn the_schema_of_manifests() {
    golden("manifest.schema.json", &mirrorctl::manifest::json_schema());
}

#[test]
fn runs() {
    golden_80("run-list.txt", &text::run::list(&view(), "debian", &[held_run(), succeeded()]));
    golden_80("run-list-several.txt", &text::run::list_of_several(&view(), &[partial_run(), succeeded()]));
    let partial = partial_run();
    let attempts: Vec<_> = partial.origin_attempt.clone().into_iter().collect();
    golden_80("run-show.txt", &text::run::show(&view(), &partial, &attempts));
    let (run, attempts) = fixtures::spread();
    golden_80("run-show-replicas.txt", &text::run::show(&view(), &run, &attempts));
    let (run, attempts) = fixtures::fallen_back();
    golden_80("run-show-fallback.txt", &text::run::show(&view(), &run, &attempts));
    let held = held_run();
    let attempts: Vec<_> = held.origin_attempt.clone().into_iter().collect();
    golden_80("run-show-held.txt", &text::run::show(&view(), &held, &attempts));
    let json = serde_json::to_string_pretty(&json::value(&partial, "Run").unwrap()).unwrap();
    golden("run.json", &(json + "\n"));
}

#[test]
fn agents_and_tokens() {
    let declared = v1::Agent {
        name: "agents/edge9".to_owned(),
        labels: [("role".to_owned(), "edge".to_owned())].into(),
        create_time: wire("2026-11-20T07:00:00Z"),
        declared_only: true,
        max_running: 2,
        max_running_in_force: 2,
        max_serving: 3,
        bandwidth_limit_kib: 20_480,
        ..v1::Agent::default()
    };
    let tree = v1::TrashedTree {
        project: "debian".to_owned(),
        destination: "a1:pub/debian".to_owned(),
        ..v1::TrashedTree::default()
    };
    let trash = vec![
        v1::TrashedTree {
            state: v1::trashed_tree::State::Trashed.into(),
            place: "a1:.mirror-trash/debian-7-20261119T080000000Z".to_owned(),
            purge_time: wire("2026-11-26T08:00:00Z"),
            ..tree.clone()
        },
        v1::TrashedTree { state: v1::trashed_tree::State::Waiting.into(), ..tree.clone() },
        v1::TrashedTree {
            state: v1::trashed_tree::State::Stays.into(),
            reason: "the agent's own file does not allow it; allow_trash = true would".to_owned(),
            ..tree
        },
    ];
    let mut all = [agents(), vec![declared]].concat();
    all[0].trash = trash;
    golden_80("agent-list.txt", &text::agent::list(&view(), &all));
    golden_80("agent-show.txt", &text::agent::show(&view(), &all[0]));
    golden_80("agent-declared.txt", &text::agent::show(&view(), &all[2]));
    golden("agent-list-wide.txt", &text::agent::list(&View { wide: true, ..piped() }, &all));
    let token = v1::JoinToken {
        name: "joinTokens/7f3a".to_owned(),
        pattern: "edge*".to_owned(),
        uses_left: 20,
        expire_time: wire("2026-11-21T07:42:10Z"),
        by: "users/admin".to_owned(),
        ..v1::JoinToken::default()
    };
    let bound = v1::JoinToken {
        agent: "edge9".to_owned(),
        pattern: String::new(),
        uses_left: 1,
        cidrs: vec!["192.0.2.0/24".to_owned()],
        ..token.clone()
    };
    golden_80("join-token-list.txt", &text::agent::join_tokens(&view(), &[token, bound]));
}

#[test]
fn housekeeping() {
    let job = |name: &str, schedule: &str, took: i64, outcome: &str| v1::HousekeepingJob {
        name: format!("housekeepingJobs/{name}"),
        description: "what it does".to_owned(),
        schedule: schedule.to_owned(),
        next_time: wire("2026-11-20T08:11:00Z"),
        last_start_time: wire("2026-11-20T07:11:00Z"),
        last_duration: Some(prost_types::Duration { seconds: took, nanos: 0 }),
        last_outcome: outcome.to_owned(),
        ..v1::HousekeepingJob::default()
    };
    let never = v1::HousekeepingJob {
        name: "housekeepingJobs/backup".to_owned(),
        schedule: "0 17 3 * * *".to_owned(),
        next_time: wire("2026-11-21T03:17:00Z"),
        ..v1::HousekeepingJob::default()
    };
    let failed =
        v1::HousekeepingJob { last_failed: true, ..job("prune", "0 41 4 * * *", 12, "the disk is full") };
    let running = v1::HousekeepingJob { running: true, ..job("certificate", "0 29 * * * *", 0, "") };
    let jobs = [job("sweep", "0 11 * * * *", 0, "3 sweeps"), never, failed, running];
    golden_80("housekeeping-list.txt", &text::housekeeping::list(&view(), &jobs));
}

#[test]
fn upstreams() {
    let host = |name: &str, slots: u32, spacing: i64| v1::UpstreamHost {
        name: format!("upstreams/{name}"),
        slots_in_force: slots,
        spacing_in_force: Some(prost_types::Duration { seconds: spacing, nanos: 0 }),
        breaker: v1::upstream_host::Breaker::Closed.into(),
        ..v1::UpstreamHost::default()
    };
    let fedora = v1::UpstreamHost {
        slots: 1,
        in_use: 1,
        waiting: 1,
        projects: 2,
        ..host("dl.fedoraproject.org", 1, 10)
    };
    let gnu = v1::UpstreamHost {
        waiting: 1,
        projects: 1,
        breaker: v1::upstream_host::Breaker::Open.into(),
        breaker_until_time: wire("2026-11-20T07:57:10Z"),
        failures: 5,
        last_failure_time: wire("2026-11-20T07:31:10Z"),
        last_failure_class: v1::outcome::Class::Network.into(),
        last_failure_cause: "Connection refused".to_owned(),
        ..host("ftp.gnu.org", 2, 10)
    };
    let six = v1::UpstreamHost {
        spacing: Some(prost_types::Duration { seconds: 90, nanos: 0 }),
        breaker: v1::upstream_host::Breaker::Probing.into(),
        ..host("[2001:db8::1]", 2, 90)
    };
    let all = [six, fedora.clone(), gnu];
    golden_80("upstream-list.txt", &text::upstream::list(&view(), &all));
    golden("upstream-list-wide.txt", &text::upstream::list(&View { wide: true, ..piped() }, &all));
    let response = v1::ListUpstreamsResponse { upstreams: all.into(), next_page_token: String::new() };
    let json =
        serde_json::to_string_pretty(&json::value(&response, "ListUpstreamsResponse").unwrap()).unwrap();
    golden("upstream-list.json", &(json + "\n"));
    assert_eq!(
        text::upstream::told(&fedora),
        "dl.fedoraproject.org has 1 slot and a spacing of 10s (the default)."
    );
    let replaced = |project: &str, password_dropped| v1::ReplacedUpstream {
        project: format!("projects/{project}"),
        from_uri: format!("rsync://old.example.org/{project}"),
        to_uri: format!("rsync://new.example.org/pub/{project}"),
        password_dropped,
    };
    let both = [replaced("debian", false), replaced("gnu", true)];
    let mut text = text::upstream::replaced(&view(), "old.example.org", &both, false);
    text.push_str(&text::upstream::replaced(&view(), "old.example.org", &both[..1], true));
    text.push_str(&text::upstream::replaced(&view(), "old.example.org", &[], true));
    golden("upstream-replace.txt", &text);
}

#[test]
fn an_agent_in_anothers_place() {
    use v1::replaced_placement::Refill;
    let one = |project: &str, role: v1::Role, refill: Refill| v1::ReplacedPlacement {
        project: format!("projects/{project}"),
        role: role.into(),
        destination: format!("a1:{project}"),
        refill: refill.into(),
        ..v1::ReplacedPlacement::default()
    };
    let copied = v1::ReplacedPlacement {
        copied_from: "agents/edge1".to_owned(),
        run: "projects/debian/runs/019a9f4e-77c1-7000-8000-000000000001".to_owned(),
        ..one("debian", v1::Role::Origin, Refill::Copied)
    };
    let standby =
        v1::ReplacedPlacement { standby: true, ..one("gnu", v1::Role::Replica, Refill::FromOrigin) };
    let answer = v1::ReplaceAgentResponse {
        placements: vec![
            copied.clone(),
            one("fedora", v1::Role::Origin, Refill::FromUpstream),
            standby,
            one("own", v1::Role::Origin, Refill::ByPeople),
            one("ubuntu", v1::Role::Replica, Refill::FromOrigin),
        ],
        labels: [("role", "edge"), ("site", "north")].map(|(key, value)| (key.into(), value.into())).into(),
        max_running: 2,
        max_serving: 0,
        bandwidth_limit_kib: 51_200,
    };
    let what = text::agent::Replacement { old: "ftp1", new: "ftp2", dry_run: false, revoke: false };
    let mut text = text::agent::replaced(&view(), &what, &answer);
    let would = v1::ReplaceAgentResponse {
        placements: vec![v1::ReplacedPlacement { run: String::new(), ..copied }],
        ..v1::ReplaceAgentResponse::default()
    };
    let dry = text::agent::Replacement { dry_run: true, revoke: true, ..what };
    text.push_str(&text::agent::replaced(&view(), &dry, &would));
    text.push_str(&text::agent::replaced(&view(), &what, &v1::ReplaceAgentResponse::default()));
    golden_80("agent-replace.txt", &text);
    let json = serde_json::to_string_pretty(&json::value(&answer, "ReplaceAgentResponse").unwrap()).unwrap();
    golden("agent-replace.json", &(json + "\n"));
}

#[test]
fn watching() {
    let mut text = String::new();
    let run = v1::Run {
        name: "projects/ubuntu/runs/01a1f7e0-6a99-7c02-9d1f-8a3b6f20c1de".to_owned(),
        state: v1::run::State::Running.into(),
        start_time: wire("2026-11-20T07:36:58Z"),
        ..v1::Run::default()
    };
    let mut counting = running_attempt();
    let progress = counting.progress.as_mut().unwrap();
    progress.total_grows = true;
    let mut draw = |attempt: v1::Attempt, reason: Option<&str>, silent: i64, lost: Option<i64>| {
        let frame = Frame {
            view: &view(),
            run: &run,
            attempts: std::slice::from_ref(&attempt),
            reason,
            silence: &fixtures::Silent(silent),
            lost: lost.map(chrono::TimeDelta::seconds),
        };
        for line in lines::live(&frame) {
            text.push_str(&line);
            text.push('\n');
        }
        text.push_str(&format!("07:42:10 {}\n----\n", lines::plain(&view(), &attempt)));
    };
    draw(running_attempt(), None, 0, None);
    draw(counting, None, 0, None);
    draw(running_attempt(), None, 360, Some(12));
    let pending =
        v1::Attempt { state: v1::attempt::State::Pending.into(), progress: None, ..running_attempt() };
    let why = "ubuntu is queued: rsync.example.org answered \"max connections (60) reached\" 4m ago.";
    draw(pending.clone(), Some(why), 0, None);
    draw(v1::Attempt { retry_time: wire("2026-11-20T07:55:30Z"), ..pending }, None, 0, None);
    let done = succeeded().origin_attempt.unwrap();
    draw(done.clone(), None, 0, None);
    draw(partial_run().origin_attempt.unwrap(), None, 0, None);
    text.push_str(&lines::verdict(&view(), &succeeded(), &[done]));
    text.push_str(&lines::verdict(&view(), &partial_run(), &[]));
    text.push_str(&lines::verdict(&view(), &held_run(), &[]));
    golden("watch.txt", &text);
}

fn audit_events() -> Vec<v1::AuditEvent> {
    let change = |resource: &str, field: &str, old: &str, new: &str| v1::AuditChange {
        resource: resource.to_owned(),
        field: field.to_owned(),
        old: old.to_owned(),
        new: new.to_owned(),
    };
    let event = |time: &str, who: &str, action: &str, resource: &str| v1::AuditEvent {
        id: "019a9f5f1c0000000000".to_owned(),
        time: wire(time),
        who: who.to_owned(),
        from: "192.0.2.7:40112".to_owned(),
        action: action.to_owned(),
        resource: resource.to_owned(),
        outcome: v1::AuditOutcome::Done.into(),
        request_id: "9c1f7f0e".to_owned(),
        count: 1,
        ..v1::AuditEvent::default()
    };
    let debian = "projects/debian";
    let run = "projects/debian/runs/01a1f797-47f1-7c02-9d1f-8a3b6f20c1de";
    vec![
        v1::AuditEvent {
            message: "version 0.1.0".to_owned(),
            changes: vec![change("fleet", "term", "6", "7")],
            ..event("2026-11-19T07:42:10Z", "coordinator", "Coordinator.Start", "fleet")
        },
        v1::AuditEvent {
            changes: vec![
                change(debian, "schedule.cron.hour", "3", "4"),
                change(debian, "upstreams[0].password", "(set)", "(changed)"),
            ],
            changes_left_out: 1,
            ..event("2026-11-20T05:12:10Z", "users/maria", "ProjectService.UpdateProject", debian)
        },
        v1::AuditEvent {
            outcome: v1::AuditOutcome::Refused.into(),
            reason: "NOT_ALLOWED".to_owned(),
            message: "agents/ftp1 may not call RunService.CancelRun".to_owned(),
            count: 12,
            ..event("2026-11-20T07:40:10Z", "agents/ftp1", "RunService.CancelRun", "")
        },
        v1::AuditEvent {
            changes: vec![change(run, "state", "", "queued")],
            ..event("2026-11-20T07:41:10Z", "users/maria", "ProjectService.RunProject", debian)
        },
    ]
}

#[test]
fn audit() {
    let events = audit_events();
    let mut all = text::audit::list(&view(), &events);
    all.push_str("----\n");
    all.push_str(&text::audit::list(&view(), &[]));
    golden_80("audit.txt", &all);
    let mut all = text::audit::list(&View { wide: true, ..piped() }, &events);
    all.push_str("----\n");
    all.push_str(&text::audit::lines(&View { unicode: false, ..piped() }, &events));
    golden("audit-wide.txt", &all);
    golden("audit.json", &format!("{}\n", json::value(&events[1], "AuditEvent").unwrap()));
}

#[test]
fn users_tokens_and_oneself() {
    let maria = v1::User {
        name: "users/maria".to_owned(),
        role: v1::UserRole::Owner.into(),
        has_password: true,
        tokens: 2,
        projects: vec!["projects/debian".to_owned(), "projects/gnu".to_owned()],
        create_time: wire("2026-09-01T08:00:00Z"),
        update_time: wire("2026-11-18T08:00:00Z"),
        ..v1::User::default()
    };
    let jo = v1::User {
        name: "users/jo".to_owned(),
        role: v1::UserRole::Viewer.into(),
        disabled: true,
        create_time: wire("2026-11-19T08:00:00Z"),
        ..v1::User::default()
    };
    golden_80("user-list.txt", &text::user::list(&view(), &[jo, maria.clone()]));
    golden_80("user-show.txt", &text::user::show(&view(), &maria));
    let token = |id: &str, current: bool| v1::UserToken {
        name: format!("users/maria/tokens/{id}"),
        create_time: wire("2026-11-20T06:42:10Z"),
        expire_time: wire("2026-11-20T18:42:10Z"),
        address: "192.0.2.7:40112".to_owned(),
        current,
    };
    let tokens = [token("0f3a7c21d9e04b55", true), token("77aa01c4e5f60912", false)];
    golden_80("token-list.txt", &text::user::tokens(&view(), &tokens));
    let push = |id: &str, used: bool| v1::PushToken {
        name: format!("pushTokens/{id}"),
        project: "projects/debian".to_owned(),
        note: if used { "release script on build1".to_owned() } else { String::new() },
        create_time: wire("2026-11-19T06:42:10Z"),
        expire_time: if used { None } else { wire("2026-12-20T07:42:10Z") },
        last_use_time: if used { wire("2026-11-20T06:42:10Z") } else { None },
        by: "users/anna".to_owned(),
        ..v1::PushToken::default()
    };
    let tokens = [push("0f3a7c21d9e04b55", true), push("77aa01c4e5f60912", false)];
    golden_80("push-token-list.txt", &text::user::push_tokens(&view(), &tokens));
    let me = v1::WhoAmIResponse {
        name: "users/maria".to_owned(),
        role: v1::UserRole::Owner.into(),
        proof: v1::who_am_i_response::Proof::Token.into(),
        expire_time: wire("2026-11-20T18:42:10Z"),
        projects: maria.projects,
        ..v1::WhoAmIResponse::default()
    };
    golden_80("whoami.txt", &text::user::me(&view(), &me));
}

/// The next fires with what clocks do to them, and who falls together.
#[test]
fn project_preview() {
    let at = |text: &str| {
        let time: chrono::DateTime<chrono::Utc> = text.parse().unwrap();
        Some(prost_types::Timestamp { seconds: time.timestamp(), nanos: 0 })
    };
    let fire = |time: &str, local: &str, remark: &str| v1::Fire {
        time: at(time),
        local_time: local.to_owned(),
        remark: remark.to_owned(),
    };
    let collision = |project: &str, shared: &[&str], other: &str, fires| v1::Collision {
        project: format!("projects/{project}"),
        shared: shared.iter().map(|name| (*name).to_owned()).collect(),
        time: at("2026-11-20T12:27:12Z"),
        other_time: at(other),
        fires,
    };
    let response = v1::PreviewScheduleResponse {
        fires: vec![
            fire("2026-11-20T12:27:12Z", "2026-11-20T13:27:12+01:00", ""),
            fire(
                "2026-11-20T18:27:12Z",
                "2026-11-20T19:27:12+01:00",
                "waits for the window at 2026-11-20 22:00 +01:00",
            ),
        ],
        exhausted: false,
        notes: vec!["spread: this project's fires come 17m12s after their time, within 1h".to_owned()],
        collisions: vec![
            collision("fedora", &["agents/ftp1"], "2026-11-20T12:25:00Z", 1),
            collision("ubuntu", &["agents/ftp1", "upstreams/ftp.example.net"], "2026-11-20T12:30:00Z", 4),
        ],
        collision_count: 52,
    };
    golden("project-preview.txt", &text::project::preview(&view(), &response));
}
