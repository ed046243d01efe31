//! A project's life through real gRPC: it gets another name, is archived, runs after another one, has another schedule, and
//! is found in lists whose pages stay right while the fleet changes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fleet_common;

use fleet_common::{Fleet, project};
use mirror_proto::{
    status::Fault,
    v1::{self, outcome::Class, schedule::Cadence},
};
use prost_types::FieldMask;
use tonic::{Code, Status};

fn named(name: &str) -> String {
    format!("projects/{name}")
}

fn fields(status: &Status) -> Vec<String> {
    Fault::from(status).violations.into_iter().map(|violation| violation.field).collect()
}

fn crontab(line: &str) -> v1::Schedule {
    v1::Schedule { cadence: Some(Cadence::Crontab(line.to_owned())), ..Default::default() }
}

async fn create(fleet: &Fleet, project: v1::Project) -> Result<v1::Project, Status> {
    let request = v1::CreateProjectRequest { project: Some(project), ..Default::default() };
    fleet.projects().create_project(request).await.map(tonic::Response::into_inner)
}

async fn update(fleet: &Fleet, project: v1::Project, path: &str) -> Result<v1::Project, Status> {
    let update_mask = Some(FieldMask { paths: vec![path.to_owned()] });
    let request = v1::UpdateProjectRequest { project: Some(project), update_mask, validate_only: false };
    fleet.projects().update_project(request).await.map(tonic::Response::into_inner)
}

async fn get(fleet: &Fleet, name: &str) -> Result<v1::Project, Status> {
    let request = v1::GetProjectRequest { name: named(name) };
    fleet.projects().get_project(request).await.map(tonic::Response::into_inner)
}

async fn rename(fleet: &Fleet, old: &str, new: &str, etag: &str) -> Result<v1::Project, Status> {
    let (name, new_name, etag) = (named(old), named(new), etag.to_owned());
    let request = v1::RenameProjectRequest { name, new_name, etag };
    fleet.projects().rename_project(request).await.map(tonic::Response::into_inner)
}

async fn archive(fleet: &Fleet, name: &str) -> v1::Project {
    let (name, reason) = (named(name), "upstream is gone".to_owned());
    let request = v1::ArchiveProjectRequest { name, reason, etag: String::new() };
    fleet.projects().archive_project(request).await.unwrap().into_inner()
}

async fn why(fleet: &Fleet, name: &str) -> Vec<String> {
    let request = v1::WhyProjectRequest { name: named(name) };
    fleet.projects().why_project(request).await.unwrap().into_inner().sentences
}

async fn list(fleet: &Fleet, request: v1::ListProjectsRequest) -> (Vec<String>, String) {
    let page = fleet.projects().list_projects(request).await.unwrap().into_inner();
    let names = page.projects.iter().map(|project| project.name.trim_start_matches("projects/").to_owned());
    (names.collect(), page.next_page_token)
}

async fn filtered(fleet: &Fleet, filter: &str) -> Vec<String> {
    list(fleet, v1::ListProjectsRequest { filter: filter.to_owned(), ..Default::default() }).await.0
}

/// A11: a rename moves history and schedule along, while a run goes on and somebody watches it.
#[tokio::test]
async fn a_rename_takes_history_runs_and_watchers_along() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let mut talk = fleet.connect("ftp1").await;
    fleet.declare("debian", "ftp1").await;
    fleet.run("debian").await;
    let assignment = talk.assignment().await;
    talk.accept(&assignment).await;
    talk.finish(assignment.key.as_ref().unwrap(), Class::Ok, b"").await;
    talk.acknowledged().await;
    let old = fleet.newest_run("debian").await;

    let running = fleet.run("debian").await.run.unwrap();
    let assignment = talk.assignment().await;
    talk.accept(&assignment).await;
    let watch = v1::WatchRunRequest { name: running.name.clone() };
    let mut watch = fleet.runs().watch_run(watch).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().run.unwrap().name, running.name);

    let before = get(&fleet, "debian").await.unwrap();
    assert_eq!(rename(&fleet, "debian", "new", "99").await.unwrap_err().code(), Code::Aborted);
    let bad = rename(&fleet, "de/bian", "n ew", "x").await.unwrap_err();
    assert_eq!(fields(&bad), ["name", "etag", "new_name"]);
    let renamed = rename(&fleet, "debian", "debian-archive", &before.etag).await.unwrap();
    assert_eq!(renamed.name, named("debian-archive"));
    assert_ne!(renamed.etag, before.etag);
    assert_eq!((&renamed.schedule, &renamed.upstreams), (&before.schedule, &before.upstreams));
    assert!(renamed.upstreams[0].has_password);
    assert_eq!(get(&fleet, "debian").await.unwrap_err().code(), Code::NotFound);

    // What ran before is found below the new name, and so is what goes on.
    let below = |run: &str| run.replace("projects/debian/", "projects/debian-archive/");
    let request = v1::GetRunRequest { name: below(&old.name) };
    assert_eq!(fleet.runs().get_run(request).await.unwrap().into_inner().name, below(&old.name));
    talk.finish(assignment.key.as_ref().unwrap(), Class::Ok, b"").await;
    assert!(!talk.acknowledged().await, "its report is the renamed project's");
    let mut last = None;
    while let Some(message) = watch.message().await.unwrap() {
        last = message.run;
    }
    let last = last.unwrap();
    assert_eq!(
        (last.name.as_str(), last.state()),
        (below(&running.name).as_str(), v1::run::State::Succeeded)
    );
    let request = v1::ListRunsRequest { parent: named("debian-archive"), ..Default::default() };
    let runs = fleet.runs().list_runs(request).await.unwrap().into_inner().runs;
    assert_eq!(runs.len(), 2);
    // The name is free, and whoever takes it inherits nothing.
    let other = v1::Project { destination: "a1:other".to_owned(), ..project("debian", "ftp1") };
    create(&fleet, other).await.unwrap();
    let request = v1::ListRunsRequest { parent: named("debian"), ..Default::default() };
    assert!(fleet.runs().list_runs(request).await.unwrap().into_inner().runs.is_empty());
    assert_eq!(rename(&fleet, "debian", "DEBIAN-archive", "").await.unwrap_err().code(), Code::AlreadyExists);
    fleet.end().await;
}

#[tokio::test]
async fn an_archived_project_says_so_and_runs_only_for_people() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let declared = v1::Project { schedule: Some(crontab("10 * * * *")), ..project("vault", "ftp1") };
    create(&fleet, declared).await.unwrap();
    let archived = archive(&fleet, "vault").await;
    let told = archived.archived.clone().unwrap();
    assert_eq!((told.by.as_str(), told.reason.as_str()), ("users/maria", "upstream is gone"));
    assert!(archived.status.unwrap().next_fire_times.is_empty() && archived.paused.is_none());
    let sentences = why(&fleet, "vault").await;
    assert!(sentences[0].contains("by maria: \"upstream is gone\": it is served as it is"), "{sentences:?}");
    assert!(sentences[0].ends_with("Next: mirrorctl project unarchive vault"), "{sentences:?}");
    assert_eq!(filtered(&fleet, "archived=true").await, ["vault"]);
    let ran = fleet.run("vault").await;
    assert_eq!(ran.notes, ["the project is archived by maria; this run runs all the same, without retries"]);
    let request = v1::UnarchiveProjectRequest { name: named("vault"), etag: String::new() };
    let again = fleet.projects().unarchive_project(request).await.unwrap().into_inner();
    assert!(again.archived.is_none() && !again.status.unwrap().next_fire_times.is_empty());
    assert!(filtered(&fleet, "archived=true").await.is_empty());
    fleet.end().await;
}

#[tokio::test]
async fn a_project_runs_after_another_one_and_says_so() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let mut talk = fleet.connect("ftp1").await;
    fleet.declare("debian", "ftp1").await;
    let security = v1::Project {
        destination: "a1:security".to_owned(),
        after: vec![named("debian")],
        ..project("security", "ftp1")
    };
    let unknown = v1::Project { after: vec![named("none"), "x".to_owned()], ..security.clone() };
    assert_eq!(fields(&create(&fleet, unknown).await.unwrap_err()), ["after[0]", "after[1]"]);
    let made = create(&fleet, security).await.unwrap();
    assert_eq!(made.after, [named("debian")]);
    assert_eq!(
        why(&fleet, "security").await,
        ["security is not waiting: it has never run and it runs after debian (it has no fire)."]
    );
    let circle = v1::Project { name: named("debian"), after: vec![named("security")], ..Default::default() };
    assert_eq!(fields(&update(&fleet, circle, "after").await.unwrap_err()), ["after[0]"]);
    let delete = v1::DeleteProjectRequest { name: named("debian"), ..Default::default() };
    let refused = fleet.projects().delete_project(delete).await.unwrap_err();
    assert_eq!(
        (refused.code(), Fault::from(&refused).reason.as_str()),
        (Code::FailedPrecondition, "PROJECT_FOLLOWED")
    );

    fleet.run("debian").await;
    let assignment = talk.assignment().await;
    talk.accept(&assignment).await;
    talk.finish(assignment.key.as_ref().unwrap(), Class::Ok, b"").await;
    talk.acknowledged().await;
    let next = talk.assignment().await;
    assert_eq!(next.project, "security");
    let trigger = fleet.newest_run("security").await.trigger.unwrap();
    assert_eq!((trigger.kind(), trigger.by.as_str()), (v1::trigger::Kind::Project, "projects/debian"));
    // A rename of the one before is followed.
    rename(&fleet, "debian", "debian-main", "").await.unwrap();
    assert_eq!(get(&fleet, "security").await.unwrap().after, [named("debian-main")]);
    assert_eq!(filtered(&fleet, "after=debian-main").await, ["security"]);
    assert!(filtered(&fleet, "after=debian").await.is_empty());
    fleet.end().await;
}

/// A12: an update with the mask `schedule` replaces the whole schedule, and leaves the rest.
#[tokio::test]
async fn a_mask_of_the_schedule_replaces_all_of_it_and_nothing_else() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let schedule = v1::Schedule {
        time_zone: "Europe/Berlin".to_owned(),
        jitter: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        windows: vec![v1::Window { start: "22:00".into(), end: "06:00".into(), days_of_week: Vec::new() }],
        end_time: "2099-01-01".to_owned(),
        ..crontab("10 * * * *")
    };
    let labels = [("tier".to_owned(), "1".to_owned())].into();
    let guard = v1::GuardSettings { max_delete: Some(7), ..Default::default() };
    let declared =
        v1::Project { schedule: Some(schedule), labels, guard: Some(guard), ..project("debian", "ftp1") };
    let before = create(&fleet, declared).await.unwrap();
    // What else the message holds is not looked at.
    let wanted = v1::Project {
        name: named("debian"),
        schedule: Some(crontab("5 4 * * *")),
        display_name: "ignored".to_owned(),
        destination: "a1:ignored".to_owned(),
        ..Default::default()
    };
    let after = update(&fleet, wanted, "schedule").await.unwrap();
    let new = after.schedule.clone().unwrap();
    let Some(Cadence::Cron(cron)) = new.cadence.clone() else { panic!("{new:?}") };
    assert_eq!((cron.minute.as_str(), cron.hour.as_str()), ("5", "4"));
    assert_eq!((new.jitter, new.windows.len(), new.end_time.as_str()), (None, 0, ""));
    assert!(new.time_zone.is_empty() || new.time_zone == "UTC", "{}", new.time_zone);
    let rest = |project: &v1::Project| v1::Project {
        schedule: None,
        status: None,
        etag: String::new(),
        update_time: None,
        ..project.clone()
    };
    assert_eq!(rest(&after), rest(&before));
    // No schedule at all is one too: it runs when asked.
    let none = v1::Project { name: named("debian"), ..Default::default() };
    let manual = update(&fleet, none, "schedule").await.unwrap();
    assert!(manual.status.unwrap().next_fire_times.is_empty());
    fleet.end().await;
}

/// A8: filters, both orders, and pages that stay right while projects come, go and are renamed.
#[tokio::test]
async fn pages_of_projects_are_right_while_the_fleet_changes() {
    let fleet = Fleet::start().await;
    for agent in ["ftp1", "ftp2"] {
        fleet.enrol(agent).await;
    }
    let names = ["b", "D", "f", "h", "J", "l"];
    for (index, name) in names.iter().enumerate() {
        let agent = if index % 2 == 0 { "ftp1" } else { "ftp2" };
        let tier = (index / 3).to_string();
        let declared = v1::Project {
            destination: format!("a1:{name}"),
            labels: [("tier".to_owned(), tier)].into(),
            ..project(name, agent)
        };
        create(&fleet, declared).await.unwrap();
    }
    assert_eq!(filtered(&fleet, "").await, names);
    assert_eq!(filtered(&fleet, "labels.tier=1 AND agent=ftp1").await, ["J"]);
    assert_eq!(filtered(&fleet, "agent=nobody").await, Vec::<String>::new());
    let host = get(&fleet, "b").await.unwrap().upstreams[0].uri.split('/').nth(2).unwrap().to_owned();
    let host = host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host);
    assert_eq!(filtered(&fleet, &format!("upstream={host}")).await, ["b"]);
    let request = v1::ListProjectsRequest {
        filter: "tier=1 owner=a/b".to_owned(),
        order_by: "lag".to_owned(),
        page_size: -1,
        ..Default::default()
    };
    let refused = fleet.projects().list_projects(request).await.unwrap_err();
    assert_eq!(fields(&refused), ["page_size", "filter", "filter", "order_by"]);

    for (order_by, expected) in
        [("", ["b", "D", "f", "h", "J", "l"]), ("name desc", ["l", "J", "h", "f", "D", "b"])]
    {
        let page = |page_token: String| v1::ListProjectsRequest {
            page_size: 2,
            page_token,
            order_by: order_by.to_owned(),
            ..Default::default()
        };
        let (mut seen, mut token) = list(&fleet, page(String::new())).await;
        // Beside the pages one comes and goes on each side; and the one that ended the page goes too, and comes back.
        for name in ["a", "e", "z"] {
            let declared = v1::Project { destination: format!("a1:x{name}"), ..project(name, "ftp1") };
            create(&fleet, declared).await.unwrap();
        }
        let last = seen.last().unwrap().clone();
        rename(&fleet, &last, "zz", "").await.unwrap();
        while !token.is_empty() {
            let (names, next) = list(&fleet, page(token)).await;
            seen.extend(names);
            token = next;
        }
        let stayed: Vec<&String> = seen.iter().filter(|name| expected.contains(&name.as_str())).collect();
        assert_eq!(stayed, expected, "each that stayed is there once: {seen:?}");
        rename(&fleet, "zz", &last, "").await.unwrap();
        for name in ["a", "e", "z"] {
            let request = v1::DeleteProjectRequest { name: named(name), ..Default::default() };
            fleet.projects().delete_project(request).await.unwrap();
        }
        // A token is good for its order only.
        let (_, token) = list(&fleet, page(String::new())).await;
        let other = if order_by.is_empty() { "name desc" } else { "name" };
        let request = v1::ListProjectsRequest { order_by: other.to_owned(), ..page(token) };
        assert_eq!(fields(&fleet.projects().list_projects(request).await.unwrap_err()), ["page_token"]);
    }
    fleet.end().await;
}
