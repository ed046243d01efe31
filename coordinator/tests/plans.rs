//! Many projects at once through real gRPC: planned, applied as a recorded plan, exported.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fleet_common;

use fleet::{
    id::{AgentUid, ProjectUid},
    input::{Ask, Input, Person, Reply},
    plan::{Act, Asker, Deed, LeftOut, Pausing, PlanRequest, PlanStep, Progress},
    project::ProjectSpec,
    record::{Answer, Change, FleetRecord, Freeze, Record, RequestRecord},
};
use fleet_common::{Fleet, project};
use mirror_coordinator::{
    rpc::project::PLANS_AT_ONCE,
    store::{Direction, Store, StoreOptions, Unit, VALUE_BYTES_MAX, restore_from},
};
use mirror_proto::{status::Fault, v1};
use tempfile::TempDir;
use tonic::Code;

fn declared(project: v1::Project) -> v1::DeclaredProject {
    v1::DeclaredProject { project: Some(project.into()), ..v1::DeclaredProject::default() }
}

fn all(names: &[&str]) -> Vec<v1::DeclaredProject> {
    names.iter().map(|name| declared(project(name, "ftp1"))).collect()
}

async fn plan(fleet: &Fleet, projects: &[v1::DeclaredProject], prune: bool) -> v1::PlanProjectsResponse {
    let request = v1::PlanProjectsRequest { projects: projects.to_vec(), prune, paused: false };
    fleet.projects().plan_projects(request).await.unwrap().into_inner()
}

fn request(projects: &[v1::DeclaredProject]) -> v1::ApplyProjectsRequest {
    v1::ApplyProjectsRequest { projects: projects.to_vec(), ..v1::ApplyProjectsRequest::default() }
}

async fn apply(fleet: &Fleet, request: v1::ApplyProjectsRequest) -> v1::ApplyProjectsResponse {
    fleet.projects().apply_projects(request).await.unwrap().into_inner()
}

async fn export(fleet: &Fleet) -> Vec<v1::DeclaredProject> {
    let mut projects = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ExportProjectsRequest { page_size: 2, page_token, ..Default::default() };
        let page = fleet.projects().export_projects(request).await.unwrap().into_inner();
        projects.extend(page.projects);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return projects;
        }
    }
}

fn told(planned: &v1::PlanProjectsResponse) -> Vec<String> {
    let change = |one: &v1::ProjectChange| {
        let fields: Vec<_> = one
            .fields
            .iter()
            .map(|field| format!("{}: {} > {}", field.field, field.old, field.new))
            .collect();
        format!("{:?} {} {}", one.action(), one.project, fields.join(", ")).trim_end().to_owned()
    };
    planned.changes.iter().map(change).collect()
}

fn fields(planned: &v1::PlanProjectsResponse) -> Vec<&str> {
    planned.faults.iter().map(|fault| fault.field.as_str()).collect()
}

#[tokio::test]
async fn what_is_planned_is_applied_and_what_is_exported_changes_nothing() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let mut projects = all(&["debian", "gnu", "CPAN"]);
    projects[1].paused = Some(true);
    projects[1].pause_reason = "moving".to_owned();
    let planned = plan(&fleet, &projects, false).await;
    assert_eq!(told(&planned), ["Create projects/CPAN", "Create projects/debian", "Create projects/gnu"]);
    let view_is_empty = |fleet: &Fleet| fleet.handle.services().driver.view().projects_by_name().count() == 0;
    assert!(view_is_empty(&fleet), "a plan changes nothing");
    let applied = apply(&fleet, v1::ApplyProjectsRequest { etag: planned.etag, ..request(&projects) }).await;
    assert_eq!((applied.created, applied.changed, applied.deleted, applied.left_out.len()), (3, 0, 0, 0));

    // The same once more, passwords included, changes nothing; nor does what is exported, without them.
    for same in [projects.clone(), export(&fleet).await] {
        let planned = plan(&fleet, &same, true).await;
        assert_eq!((told(&planned), planned.unchanged), (Vec::new(), 3));
        assert_eq!(apply(&fleet, request(&same)).await, v1::ApplyProjectsResponse::default());
    }
    let exported = export(&fleet).await;
    assert!(exported.iter().all(|one| one.project.as_ref().unwrap().upstreams[0].password.is_none()));
    assert_eq!((exported[2].paused, exported[2].pause_reason.as_str()), (Some(true), "moving"));

    let mut projects = exported;
    let debian = projects[1].project.as_mut().unwrap();
    debian.guard = Some(v1::GuardSettings { max_delete: Some(80_000), ..Default::default() });
    debian.upstreams[0].password = Some("another".to_owned());
    debian.schedule = Some(v1::Schedule {
        cadence: Some(v1::schedule::Cadence::Crontab("0 */3 * * *".to_owned())),
        ..v1::Schedule::default()
    });
    projects[2].paused = Some(false);
    projects.remove(0);
    let planned = plan(&fleet, &projects, false).await;
    let [keep, debian, gnu] = &told(&planned)[..] else { panic!("{planned:?}") };
    assert_eq!(keep, "Keep projects/CPAN");
    assert!(
        debian.starts_with("Change projects/debian guard.max_delete:  > 80000, schedule.cron.hour:  > */3"),
        "{debian}"
    );
    assert!(debian.ends_with("upstreams[0].password: (set) > (changed)"), "{debian}");
    assert_eq!(planned.changes[1].warnings, ["8 fires a day; public upstreams rarely like more than 4"]);
    assert_eq!(gnu, "Change projects/gnu paused: moving > false");
    let applied = apply(&fleet, v1::ApplyProjectsRequest { prune: true, ..request(&projects) }).await;
    assert_eq!((applied.created, applied.changed, applied.deleted), (0, 2, 1));
    assert_eq!(told(&plan(&fleet, &projects, true).await), [""; 0]);
    fleet.end().await;
}

#[tokio::test]
async fn every_fault_of_every_project_is_told_and_nothing_is_done() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let mut projects = all(&["debian", "gnu", "fedora", "Debian"]);
    projects[3].project.as_mut().unwrap().name = "projects/epel".to_owned();
    let bad = projects[1].project.as_mut().unwrap();
    bad.upstreams[0].uri = "rsnc://h/m".to_owned();
    bad.placement.as_mut().unwrap().origins[0].agent = "agents/ftp9".to_owned();
    let bad = projects[2].project.as_mut().unwrap();
    bad.destination = "a1:debian/fedora".to_owned();
    let selected = v1::PlacementTarget { selector: "role=egde".to_owned(), ..Default::default() };
    projects[3].project.as_mut().unwrap().placement.as_mut().unwrap().replicas.push(selected);
    projects[3].project.as_mut().unwrap().destination = "a1:epel".to_owned();
    let planned = plan(&fleet, &projects, false).await;
    assert_eq!(
        fields(&planned),
        [
            "projects[1].project.upstreams[0].uri",
            "projects[1].project.placement.origins[0].agent",
            "projects[2].project.destination",
            "projects[3].project.placement.replicas[0].selector",
        ]
    );
    assert!(planned.faults[2].description.contains("of project \"debian\""), "{:?}", planned.faults[2]);
    assert_eq!(planned.faults[3].description, "\"role=egde\": matches no agent");
    let refused = fleet.projects().apply_projects(request(&projects)).await.unwrap_err();
    assert_eq!((refused.code(), Fault::from(&refused).violations.len()), (Code::InvalidArgument, 4));
    assert_eq!(fields(&plan(&fleet, &[], true).await), ["projects"], "an empty file removes nothing");
    // One bad name hides nothing of the others, nor of its own project.
    let mut twice = all(&["debian", "DEBIAN", "no/name", "gnu"]);
    twice[1].project.as_mut().unwrap().upstreams[0].uri = "rsnc://h/m".to_owned();
    twice[2].pause_reason = "a\nb".to_owned();
    let gnu = &mut twice[3];
    gnu.pause_reason = "x".repeat(501);
    gnu.project.as_mut().unwrap().destination = "nowhere".to_owned();
    for prune in [false, true] {
        assert_eq!(
            fields(&plan(&fleet, &twice, prune).await),
            [
                "projects[1].project.name",
                "projects[1].project.upstreams[0].uri",
                "projects[2].project.name",
                "projects[2].pause_reason",
                "projects[3].project.destination",
                "projects[3].pause_reason",
            ]
        );
    }
    assert_eq!(fleet.handle.services().driver.view().projects_by_name().count(), 0);
    fleet.end().await;
}

#[tokio::test]
async fn places_change_hands_within_one_plan() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    apply(&fleet, request(&all(&["a", "b"]))).await;
    // b leaves its place, which a takes, and c the one that a leaves; in the file the takers stand first.
    let mut projects = all(&["c", "a", "b"]);
    for (one, place) in projects.iter_mut().zip(["a1:a", "a1:b", "a1:elsewhere"]) {
        one.project.as_mut().unwrap().destination = place.to_owned();
    }
    let planned = plan(&fleet, &projects, false).await;
    assert_eq!(fields(&planned), [""; 0]);
    let applied = apply(&fleet, request(&projects)).await;
    assert_eq!((applied.created, applied.changed, applied.left_out.len()), (1, 2, 0));
    fleet.end().await;
}

/// `names`, each after the next one.
fn chain(names: &[&str]) -> Vec<v1::DeclaredProject> {
    let mut projects = all(names);
    for (one, next) in projects.iter_mut().zip(&names[1..]) {
        one.project.as_mut().unwrap().after = vec![format!("projects/{next}")];
    }
    projects
}

#[tokio::test]
async fn projects_that_run_after_each_other_go_and_come_in_one_plan() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let prune =
        |projects: &[v1::DeclaredProject]| v1::ApplyProjectsRequest { prune: true, ..request(projects) };
    // Those that run first sort last, and there are more than any fixed number of tries would find.
    let names: Vec<String> = (0..40).map(|number| format!("p{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let made = apply(&fleet, request(&chain(&names))).await;
    assert_eq!((made.created, made.left_out.len()), (40, 0));
    // All of them go, whichever way their names sort.
    let turned: Vec<&str> = names.iter().rev().copied().collect();
    for names in [&names, &turned] {
        apply(&fleet, prune(&chain(names))).await;
        let gone = apply(&fleet, prune(&all(&["other"]))).await;
        assert_eq!((gone.created, gone.deleted, gone.left_out.len()), (1, 40, 0));
        apply(&fleet, prune(&chain(names))).await;
    }
    // What is let go of in the same plan may go.
    apply(&fleet, prune(&chain(&["security", "base"]))).await;
    let planned = plan(&fleet, &all(&["security"]), true).await;
    let [gone, let_go] = &told(&planned)[..] else { panic!("{planned:?}") };
    assert_eq!(gone, "Delete projects/base");
    assert!(let_go.starts_with("Change projects/security after:"), "{let_go}");
    let gone = apply(&fleet, prune(&all(&["security"]))).await;
    assert_eq!((gone.changed, gone.deleted, gone.left_out.len()), (1, 1, 0));
    // What is still followed may not.
    apply(&fleet, prune(&chain(&["security", "base"]))).await;
    let refused = plan(&fleet, &chain(&["security", "base"])[..1], true).await;
    assert!(!refused.faults.is_empty(), "base is followed, and not declared: {refused:?}");
    fleet.end().await;
}

/// A project's name, why it is paused and whether until a time, why it is archived, whether it will fire.
type Standing = (String, Option<(String, bool)>, Option<String>, bool);

/// The projects of a fleet by name.
fn standings(fleet: &Fleet) -> Vec<Standing> {
    let view = fleet.handle.services().driver.view();
    let standing = |project: &fleet::engine::Project| {
        let record = &project.record;
        let paused = record.paused.as_ref().map(|pause| (pause.reason.clone(), pause.until.is_some()));
        let archived = record.archived.as_ref().map(|archive| archive.reason.clone());
        (record.name.to_string(), paused, archived, project.state.next_fire.is_some())
    };
    view.projects_by_name().map(standing).collect()
}

#[tokio::test]
async fn what_is_archived_and_until_when_it_is_paused_is_so_elsewhere_too() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let mut projects = all(&["calm", "dead", "gone", "old"]);
    for one in &mut projects {
        let hourly = v1::schedule::Cadence::Crontab("0 * * * *".to_owned());
        one.project.as_mut().unwrap().schedule =
            Some(v1::Schedule { cadence: Some(hourly), ..v1::Schedule::default() });
    }
    let paused = |reason: &str, days: i64| v1::PauseProjectRequest {
        name: "projects/calm".to_owned(),
        reason: reason.to_owned(),
        until: Some(until(&fleet, days)),
        ..Default::default()
    };
    apply(&fleet, request(&projects)).await;
    fleet.projects().pause_project(paused("moving", 3)).await.unwrap();
    for (name, reason) in [("dead", "upstream is gone"), ("gone", "")] {
        let archive = v1::ArchiveProjectRequest {
            name: format!("projects/{name}"),
            reason: reason.to_owned(),
            ..Default::default()
        };
        fleet.projects().archive_project(archive).await.unwrap();
    }
    let exported = export(&fleet).await;
    assert_eq!((told(&plan(&fleet, &exported, true).await), standings(&fleet).len()), (Vec::new(), 4));

    let other = Fleet::start().await;
    other.enrol("ftp1").await;
    let made = apply(&other, request(&exported)).await;
    assert_eq!((made.created, made.left_out.len()), (4, 0));
    assert_eq!(standings(&other), standings(&fleet));
    let archived: Vec<bool> = standings(&other).into_iter().map(|(.., fires)| fires).collect();
    assert_eq!(archived, [true, false, false, true], "what is archived has no fire");
    assert_eq!(told(&plan(&other, &exported, true).await), [""; 0]);
    // Its end is the very same, to the millisecond.
    assert_eq!(export(&other).await[0].pause_until, exported[0].pause_until);

    // What a person did by hand besides is no business of a file that does not speak of it.
    let mut silent = exported.clone();
    for one in &mut silent {
        *one = declared(*one.project.clone().unwrap());
    }
    assert_eq!(told(&plan(&other, &silent, true).await), [""; 0]);
    let mut turned = silent;
    turned[0].paused = Some(true);
    turned[0].pause_until = Some(until(&fleet, 5));
    turned[1].archived = Some(false);
    turned[3].archived = Some(true);
    turned[3].archive_reason = "old".to_owned();
    let planned = plan(&other, &turned, true).await;
    let [calm, dead, old] = &told(&planned)[..] else { panic!("{planned:?}") };
    assert!(calm.starts_with("Change projects/calm paused.until: "), "{calm}");
    assert_eq!(dead, "Change projects/dead archived: upstream is gone > false");
    assert_eq!(old, "Change projects/old archived: false > old");
    let applied = apply(&other, request(&turned)).await;
    assert_eq!((applied.changed, applied.left_out.len()), (3, 0));
    let fires: Vec<bool> = standings(&other).into_iter().map(|(.., fires)| fires).collect();
    assert_eq!(fires, [true, true, false, false]);
    assert_eq!(standings(&other)[0].1, Some(("moving".to_owned(), true)), "it keeps its reason");

    pauses_that_are_over_say_nothing(&other, turned).await;
    fleet.end().await;
    other.end().await;
}

/// A pause whose end has come says nothing; what makes no sense is told, all of it.
async fn pauses_that_are_over_say_nothing(other: &Fleet, mut turned: Vec<v1::DeclaredProject>) {
    turned[0].paused = Some(true);
    turned[0].pause_until = Some(until(other, -1));
    let mut late = all(&["late"]);
    late[0].project.as_mut().unwrap().destination = "a1:late".to_owned();
    late[0].paused = Some(true);
    late[0].pause_until = turned[0].pause_until;
    turned.extend(late);
    assert_eq!(told(&plan(other, &turned, true).await), ["Create projects/late"]);
    apply(other, request(&turned)).await;
    assert_eq!(standings(other)[3].1, None);
    turned[0].paused = None;
    turned[1].archive_reason = "why".to_owned();
    assert_eq!(
        fields(&plan(other, &turned, true).await),
        ["projects[0].pause_until", "projects[1].archive_reason"]
    );
}

/// So many days from now, by the fleet's clock.
fn until(fleet: &Fleet, days: i64) -> prost_types::Timestamp {
    let now = fleet.handle.services().driver.now().wall;
    mirror_proto::convert::wall_to_wire(fleet::time::Wall(now.0 + days * 86_400_000))
}

#[tokio::test]
async fn who_may_only_look_holds_up_nobody_who_applies() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let services = fleet.handle.services().clone();
    let places = services.plans.try_acquire_many(u32::try_from(PLANS_AT_ONCE).unwrap()).unwrap();
    let wanted = v1::PlanProjectsRequest { projects: all(&["debian"]), ..Default::default() };
    let busy = fleet.projects().plan_projects(wanted).await.unwrap_err();
    assert_eq!(
        (busy.code(), Fault::from(&busy).reason.as_str()),
        (Code::ResourceExhausted, "TOO_MANY_PLANS")
    );
    assert_eq!(apply(&fleet, request(&all(&["debian"]))).await.created, 1);
    drop(places);
    fleet.end().await;
}

#[tokio::test]
async fn what_was_changed_meanwhile_is_refused() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    apply(&fleet, request(&all(&["debian", "gnu"]))).await;
    let projects = all(&["debian", "new"]);
    let etag = plan(&fleet, &projects, false).await.etag;
    let with_etag = v1::ApplyProjectsRequest { etag, ..request(&projects) };
    let pause =
        |name: &str| v1::PauseProjectRequest { name: format!("projects/{name}"), ..Default::default() };
    fleet.projects().pause_project(pause("gnu")).await.unwrap();
    assert_eq!(apply(&fleet, with_etag.clone()).await.created, 1, "gnu is none of its business");
    let stale = fleet.projects().apply_projects(with_etag).await.unwrap_err();
    assert_eq!(stale.code(), Code::Aborted, "new is there now");
    let etag = plan(&fleet, &projects, true).await.etag;
    fleet.projects().pause_project(pause("gnu")).await.unwrap();
    let prune = v1::ApplyProjectsRequest { etag, prune: true, ..request(&projects) };
    assert_eq!(fleet.projects().apply_projects(prune).await.unwrap_err().code(), Code::Aborted);
    fleet.end().await;
}

#[tokio::test]
async fn the_same_request_id_is_done_once() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let once = v1::ApplyProjectsRequest { request_id: "one".to_owned(), ..request(&all(&["debian"])) };
    let first = apply(&fleet, once.clone()).await;
    let delete = v1::DeleteProjectRequest { name: "projects/debian".to_owned(), ..Default::default() };
    fleet.projects().delete_project(delete).await.unwrap();
    assert_eq!(apply(&fleet, once.clone()).await, first);
    assert_eq!(fleet.handle.services().driver.view().projects_by_name().count(), 0, "it is not done again");
    let other = v1::ApplyProjectsRequest { paused: true, ..once };
    let refused = fleet.projects().apply_projects(other).await.unwrap_err();
    assert_eq!(Fault::from(&refused).violations[0].field, "request_id");
    fleet.end().await;
}

#[tokio::test]
async fn exports_are_chosen_by_name_or_by_filter() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let mut projects = all(&["debian", "gnu", "CPAN"]);
    projects[1].project.as_mut().unwrap().labels.insert("tier".to_owned(), "1".to_owned());
    apply(&fleet, request(&projects)).await;
    let names = |response: v1::ExportProjectsResponse| -> Vec<String> {
        response.projects.into_iter().map(|one| one.project.unwrap().name).collect()
    };
    let by_name = v1::ExportProjectsRequest {
        names: vec!["projects/gnu".to_owned(), "projects/cpan".to_owned()],
        ..Default::default()
    };
    let found = fleet.projects().export_projects(by_name.clone()).await.unwrap().into_inner();
    assert_eq!(names(found), ["projects/CPAN", "projects/gnu"]);
    // Page by page, each name once however often it is given; a page's token is good for these names only.
    let one = v1::ExportProjectsRequest { page_size: 1, ..by_name.clone() };
    let one = v1::ExportProjectsRequest {
        names: one.names.iter().chain(&["projects/GNU".to_owned()]).cloned().collect(),
        ..one
    };
    let first = fleet.projects().export_projects(one.clone()).await.unwrap().into_inner();
    let page_token = first.next_page_token.clone();
    assert_eq!(names(first), ["projects/CPAN"]);
    let next = v1::ExportProjectsRequest { page_token: page_token.clone(), ..one };
    let last = fleet.projects().export_projects(next).await.unwrap().into_inner();
    assert!(last.next_page_token.is_empty());
    assert_eq!(names(last), ["projects/gnu"]);
    for names in [Vec::new(), vec!["projects/gnu".to_owned()]] {
        let others =
            v1::ExportProjectsRequest { names, page_token: page_token.clone(), ..Default::default() };
        let refused = fleet.projects().export_projects(others).await.unwrap_err();
        assert_eq!(Fault::from(&refused).violations[0].field, "page_token");
    }
    let by_filter = v1::ExportProjectsRequest { filter: "labels.tier=1".to_owned(), ..Default::default() };
    let found = fleet.projects().export_projects(by_filter).await.unwrap().into_inner();
    assert_eq!(names(found), ["projects/gnu"]);
    let mut missing = by_name;
    missing.names.extend(["projects/x".to_owned(), "projects/y".to_owned()]);
    let refused = fleet.projects().export_projects(missing).await.unwrap_err();
    assert_eq!((refused.code(), Fault::from(&refused).violations.len()), (Code::NotFound, 2));
    fleet.end().await;
}

#[tokio::test]
async fn a_plan_that_was_recorded_is_ended_by_the_next_coordinator() {
    let fleet = Fleet::start().await;
    let agent = fleet.enrol("ftp1").await;
    fleet.declare("debian", "ftp1").await;
    let driver = fleet.handle.services().driver.clone();
    let (uid, mut spec) = {
        let view = driver.view();
        let debian = view.project_named(&"debian".parse().unwrap()).unwrap();
        (view.uid_after(0), debian.record.spec.clone())
    };
    spec.destination = "a1:rocky".parse().unwrap();
    assert_eq!(spec.placement.origins[0].agent, agent);
    let act = Act::Create {
        uid,
        name: "rocky".parse().unwrap(),
        spec: Box::new(spec),
        paused: None,
        archived: None,
    };
    let record = Record::PlanStep(Box::new(step(uid.0 - 1, 0, act)));
    drop(driver);
    // As a coordinator leaves it that is killed between the recording and the step.
    let dir = fleet.stop().await;
    store_into(&dir, &[record]);

    let fleet = Fleet::start_in(dir).await;
    fleet.until("the plan is ended", |view| view.open_plan().is_none() && view.project(uid).is_some()).await;
    let answered = {
        let plan = PlanRequest { acts: Vec::new(), asker: Asker::default(), request: None };
        let ask = Ask::Apply(Box::new(plan));
        fleet
            .handle
            .services()
            .driver
            .ask(Input::Person(Person { by: "maria".to_owned(), ask }))
            .await
            .unwrap()
    };
    assert!(matches!(answered, Reply::Planned { .. }), "another plan may begin: {answered:?}");
    let events = audited(&fleet).await;
    let by_maria = |event: &v1::AuditEvent| event.who == "users/maria" && event.resource == "projects/rocky";
    assert!(events.iter().any(by_maria), "{events:?}");
    fleet.end().await;
}

/// A step of a plan, as the store has it.
fn step(plan: u64, number: u32, act: Act) -> PlanStep {
    let asker = Asker { who: "users/maria".to_owned(), from: "192.0.2.1:5".to_owned(), ..Asker::default() };
    PlanStep { plan, number, by: "maria".to_owned(), asker, act }
}

/// Puts records into the store of a coordinator that is stopped.
fn store_into(dir: &TempDir, records: &[Record]) {
    let folder = dir.path().join("fleet").join("store");
    let store = Store::open(&folder, &StoreOptions::default()).unwrap().store;
    let changes: Vec<Change> = records.iter().cloned().map(Change::Put).collect();
    store.commit(&[Unit::of(&changes).unwrap()]).unwrap();
    store.close().unwrap();
}

/// What plans and the coordinator itself did, newest first.
async fn audited(fleet: &Fleet) -> Vec<v1::AuditEvent> {
    let store = fleet.handle.services().driver.store().clone();
    let page = move || store.audit_events(Direction::Before(None), 50).unwrap();
    let page = tokio::task::spawn_blocking(page).await.unwrap();
    let told = |event: &v1::AuditEvent| {
        event.action == "ProjectService.ApplyProjects" || event.action.starts_with("Coordinator.")
    };
    page.into_iter().filter(told).collect()
}

/// The newest plan that was answered for.
fn newest_plan(fleet: &Fleet) -> u64 {
    let view = fleet.handle.services().driver.view();
    let plan = |record: Record| match record {
        Record::Request(RequestRecord { answer: Answer::Plan { plan, .. }, .. }) => Some(plan),
        _ => None,
    };
    view.records().filter_map(plan).max().unwrap()
}

/// A creation like that of a project that is there.
fn creation(fleet: &Fleet, like: &str, name: &str) -> Act {
    let view = fleet.handle.services().driver.view();
    let mut spec = view.project_named(&like.parse().unwrap()).unwrap().record.spec.clone();
    spec.destination = format!("a1:{name}").parse().unwrap();
    Act::Create {
        uid: view.uid_after(0),
        name: name.parse().unwrap(),
        spec: Box::new(spec),
        paused: None,
        archived: None,
    }
}

#[tokio::test]
async fn who_asks_again_after_a_restart_or_another_plan_is_not_told_more_than_was_done() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let once = v1::ApplyProjectsRequest { request_id: "one".to_owned(), ..request(&all(&["debian", "gnu"])) };
    assert_eq!(apply(&fleet, once.clone()).await.created, 2);
    let plan = newest_plan(&fleet);
    let gnu =
        fleet.handle.services().driver.view().project_named(&"gnu".parse().unwrap()).unwrap().record.uid;
    // As it would be, had gnu become impossible.
    let left_out = LeftOut {
        plan,
        number: 1,
        deed: Deed::Create,
        project: gnu,
        name: "gnu".to_owned(),
        why: "agent \"ftp1\" is revoked".to_owned(),
    };
    let dir = fleet.stop().await;
    store_into(&dir, &[Record::LeftOut(left_out)]);

    let fleet = Fleet::start_in(dir).await;
    for _ in 0..2 {
        let again = apply(&fleet, once.clone()).await;
        assert_eq!((again.created, again.changed, again.deleted), (1, 0, 0));
        assert_eq!(again.left_out, ["project \"gnu\": agent \"ftp1\" is revoked"]);
    }
    let other = v1::ApplyProjectsRequest { request_id: "two".to_owned(), ..request(&all(&["fedora"])) };
    assert_eq!(apply(&fleet, other.clone()).await.created, 1);
    let refused = fleet.projects().apply_projects(once).await.unwrap_err();
    assert_eq!((refused.code(), Fault::from(&refused).reason), (Code::Aborted, "PLAN_FORGOTTEN".to_owned()));
    assert_eq!(apply(&fleet, other).await.created, 1);
    fleet.end().await;
}

#[tokio::test]
async fn a_step_that_is_left_out_is_in_the_audit_log_under_its_project() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    fleet.declare("debian", "ftp1").await;
    let Act::Create { uid, name, mut spec, .. } = creation(&fleet, "debian", "rocky") else {
        panic!("a creation")
    };
    spec.placement.origins[0].agent = AgentUid(999);
    let unknown = Act::Create { uid, name, spec, paused: None, archived: None };
    // With who paused it and when the project is larger than its step, which just fits.
    let Act::Create { name, mut spec, .. } = creation(&fleet, "debian", "alma") else { panic!("a creation") };
    let fits = |text: &str, spec: &mut ProjectSpec| {
        text.clone_into(&mut spec.display_name);
        let uid = ProjectUid(uid.0 + 1);
        let (name, spec) = (name.clone(), Box::new(spec.clone()));
        let act = Act::Create { uid, name, spec, paused: Some(Pausing::default()), archived: None };
        let step = PlanStep { asker: Asker::default(), ..step(uid.0 - 2, 1, act) };
        let record = Record::PlanStep(Box::new(step));
        Unit::of(&[Change::Put(record.clone())]).is_ok().then_some(record)
    };
    let longest = (0..VALUE_BYTES_MAX).rev().find_map(|len| fits(&"x".repeat(len), &mut spec)).unwrap();
    let dir = fleet.stop().await;
    store_into(&dir, &[Record::PlanStep(Box::new(step(uid.0 - 1, 0, unknown))), longest]);

    let fleet = Fleet::start_in(dir).await;
    fleet.until("the plan is ended", |view| view.open_plan().is_none()).await;
    let events = audited(&fleet).await;
    let of =
        |project: &str| events.iter().find(|event| event.resource == project).map(|one| one.reason.as_str());
    assert_eq!(of("projects/rocky"), Some("INVALID_FIELDS"), "{events:?}");
    assert_eq!(of("projects/alma"), Some("RECORD_TOO_LARGE"), "{events:?}");
    {
        let view = fleet.handle.services().driver.view();
        assert_eq!(view.projects_by_name().count(), 1);
        let Progress::Ended(left_out) = view.progress(uid.0 - 1) else { panic!("it has ended") };
        assert_eq!(left_out.len(), 2);
    }
    fleet.end().await;
}

#[tokio::test]
async fn a_frozen_fleet_holds_the_steps_of_a_plan_and_says_so() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let once = v1::ApplyProjectsRequest { request_id: "one".to_owned(), ..request(&all(&["debian"])) };
    apply(&fleet, once.clone()).await;
    let (plan, act) = (newest_plan(&fleet), creation(&fleet, "debian", "rocky"));
    let frozen = {
        let view = fleet.handle.services().driver.view();
        let freeze = Freeze {
            by: "maria".to_owned(),
            time: fleet.handle.services().driver.now().wall,
            reason: String::new(),
        };
        FleetRecord { frozen: Some(freeze), ..view.fleet().clone() }
    };
    let dir = fleet.stop().await;
    store_into(&dir, &[Record::Fleet(frozen), Record::PlanStep(Box::new(step(plan, 1, act)))]);

    let fleet = Fleet::start_in(dir).await;
    for ask in [once.clone(), request(&all(&["gnu"]))] {
        let refused = fleet.projects().apply_projects(ask).await.unwrap_err();
        let fault = Fault::from(&refused);
        assert!(matches!(fault.reason.as_str(), "FLEET_FROZEN" | "PLAN_OPEN"), "{fault:?}");
        assert!(fault.message.contains("mirrorctl thaw"), "{fault:?}");
    }
    assert_eq!(fleet.handle.services().driver.view().open_plan(), Some((plan, 1)));
    let thaw = Input::Person(Person { by: "maria".to_owned(), ask: Ask::Thaw });
    fleet.handle.services().driver.ask(thaw).await.unwrap();
    assert_eq!(apply(&fleet, once).await.left_out, [""; 0]);
    assert!(fleet.handle.services().driver.view().project_named(&"rocky".parse().unwrap()).is_some());
    fleet.end().await;
}

#[tokio::test]
async fn a_backup_that_was_made_in_the_middle_of_a_plan_is_put_back_without_the_rest_of_it() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let once = v1::ApplyProjectsRequest { request_id: "one".to_owned(), ..request(&all(&["debian", "gnu"])) };
    apply(&fleet, once.clone()).await;
    let (plan, Act::Create { uid, name, spec, .. }) =
        (newest_plan(&fleet), creation(&fleet, "debian", "rocky"))
    else {
        panic!("a creation")
    };
    let act = Act::Create { uid, name, spec, paused: None, archived: None };
    let dir = fleet.stop().await;
    store_into(&dir, &[Record::PlanStep(Box::new(step(plan, 1, act)))]);
    let folder = dir.path().join("fleet").join("store");
    let backup = dir.path().join("one.backup");
    let store = Store::open(&folder, &StoreOptions::default()).unwrap().store;
    store.backup_to(&backup).unwrap();
    store.close().unwrap();
    drop(store);
    std::fs::remove_dir_all(&folder).unwrap();
    restore_from(&backup, &folder).unwrap();

    let fleet = Fleet::start_in(dir).await;
    let events = audited(&fleet).await;
    let text = "what was left of it is dropped, 1 in all: rocky";
    let told = |event: &v1::AuditEvent| event.action == "Coordinator.Restore" && event.message.contains(text);
    assert!(events.iter().any(told), "{events:?}");
    let again = apply(&fleet, once).await;
    assert_eq!((again.created, again.left_out.len()), (1, 1), "{again:?}");
    let state = {
        let view = fleet.handle.services().driver.view();
        (view.open_plan(), view.projects_by_name().count())
    };
    assert_eq!(state, (None, 2));
    fleet.end().await;
}
