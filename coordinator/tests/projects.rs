//! Projects through real gRPC: declared, changed, previewed, explained; and pages of runs.

mod fleet_common;

use fleet_common::{Fleet, PATIENCE, project};
use mirror_coordinator::rpc::project::PREVIEWS_MAX;
use mirror_proto::{
    status::Fault,
    v1::{self, outcome::Class, run, schedule::Cadence, wait::Reason},
};
use prost_types::FieldMask;
use tonic::{Code, Status};

fn named(name: &str) -> String {
    format!("projects/{name}")
}

fn fields(status: &Status) -> Vec<String> {
    Fault::from(status).violations.into_iter().map(|violation| violation.field).collect()
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

#[tokio::test]
async fn a_refused_declaration_names_all_faults_and_changes_nothing() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let mut bad = project("debian", "nobody");
    bad.destination = "debian".to_owned();
    bad.upstreams[0].uri = "rsnc://h/debian".to_owned();
    let request =
        v1::CreateProjectRequest { project: Some(bad), request_id: "a b".to_owned(), ..Default::default() };
    let refused = fleet.projects().create_project(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(
        fields(&refused),
        ["upstreams[0].uri", "destination", "placement.origins[0].agent", "request_id"]
    );
    let refused = fleet.projects().create_project(v1::CreateProjectRequest::default()).await.unwrap_err();
    assert_eq!(fields(&refused), ["project"]);
    assert_eq!(fleet.handle.services().driver.view().projects_by_name().count(), 0);
    fleet.end().await;
}

#[tokio::test]
async fn the_same_request_id_gets_the_same_project_and_a_check_makes_none() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let request = v1::CreateProjectRequest {
        project: Some(project("debian", "ftp1")),
        request_id: "one".to_owned(),
        ..Default::default()
    };
    let check =
        v1::CreateProjectRequest { validate_only: true, request_id: String::new(), ..request.clone() };
    let imagined = fleet.projects().create_project(check).await.unwrap().into_inner();
    assert_eq!((imagined.name.as_str(), imagined.etag.as_str()), ("projects/debian", ""));
    assert_eq!(fleet.handle.services().driver.view().projects_by_name().count(), 0);
    let made = fleet.projects().create_project(request.clone()).await.unwrap().into_inner();
    let again = fleet.projects().create_project(request.clone()).await.unwrap().into_inner();
    assert_eq!((made.create_time, made.etag), (again.create_time, again.etag));
    let mut other = request.clone();
    other.paused = true;
    let refused = fleet.projects().create_project(other).await.unwrap_err();
    assert_eq!(fields(&refused), ["request_id"]);
    let taken = v1::CreateProjectRequest { request_id: String::new(), ..request };
    assert_eq!(fleet.projects().create_project(taken).await.unwrap_err().code(), Code::AlreadyExists);
    fleet.end().await;
}

#[tokio::test]
async fn an_update_changes_what_its_mask_names_and_keeps_the_password() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let made = fleet.declare("debian", "ftp1").await;
    let wanted = v1::Project {
        name: named("debian"),
        display_name: "Debian".to_owned(),
        destination: "a1:elsewhere".to_owned(),
        upstreams: vec![v1::Upstream { password: None, ..made.upstreams[0].clone() }],
        etag: made.etag.clone(),
        ..Default::default()
    };
    let request = v1::UpdateProjectRequest {
        project: Some(wanted),
        update_mask: mask(&["display_name", "upstreams"]),
        validate_only: false,
    };
    let changed = fleet.projects().update_project(request.clone()).await.unwrap().into_inner();
    assert_eq!((changed.display_name.as_str(), changed.destination.as_str()), ("Debian", "a1:debian"));
    assert!(changed.upstreams[0].has_password);
    let stale = fleet.projects().update_project(request.clone()).await.unwrap_err();
    assert_eq!(stale.code(), Code::Aborted, "the etag is that of the first version");
    let mut any = request.clone();
    any.project.as_mut().unwrap().etag.clear();
    any.validate_only = true;
    let imagined = fleet.projects().update_project(any).await.unwrap().into_inner();
    assert_eq!(imagined.display_name, "Debian");
    let mut bad = request;
    bad.update_mask = mask(&["status", "nonsense"]);
    bad.project.as_mut().unwrap().etag = "x".to_owned();
    let refused = fleet.projects().update_project(bad).await.unwrap_err();
    assert_eq!(fields(&refused), ["project.etag", "update_mask", "update_mask"]);
    fleet.end().await;
}

#[tokio::test]
async fn a_person_switches_between_the_declared_upstreams() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let made = fleet.declare("debian", "ftp1").await;
    let first = made.upstreams[0].clone();
    assert_eq!(made.status.unwrap().upstream, first.uri);
    let other = v1::Upstream { uri: "rsync://other.example/debian/".to_owned(), ..Default::default() };
    let wanted = v1::Project {
        name: named("debian"),
        upstreams: vec![first.clone(), other.clone()],
        ..Default::default()
    };
    let request = v1::UpdateProjectRequest {
        project: Some(wanted),
        update_mask: mask(&["upstreams"]),
        validate_only: false,
    };
    let changed = fleet.projects().update_project(request).await.unwrap().into_inner();
    let switch = async |to: &str, etag: &str| {
        let (name, upstream, etag) = (named("debian"), to.to_owned(), etag.to_owned());
        fleet.projects().switch_upstream(v1::SwitchUpstreamRequest { name, upstream, etag }).await
    };
    let switched = switch("other.example", &changed.etag).await.unwrap().into_inner();
    assert_eq!(switched.status.unwrap().upstream, other.uri);
    assert_eq!(switched.upstreams, changed.upstreams, "the order is as it was declared");
    assert_eq!(switch("1", &changed.etag).await.unwrap_err().code(), Code::Aborted);
    assert_eq!(fields(&switch("3", "").await.unwrap_err()), ["upstream"]);
    assert_eq!(switch("1", "").await.unwrap().into_inner().status.unwrap().upstream, first.uri);
    fleet.end().await;
}

#[tokio::test]
async fn updates_without_an_etag_do_not_lose_against_each_other() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    fleet.declare("debian", "ftp1").await;
    let update = |field: &'static str, wanted: v1::Project| {
        let mut client = fleet.projects();
        async move {
            let request = v1::UpdateProjectRequest {
                project: Some(v1::Project { name: named("debian"), ..wanted }),
                update_mask: mask(&[field]),
                validate_only: false,
            };
            client.update_project(request).await
        }
    };
    let labels = [("tier".to_owned(), "1".to_owned())].into();
    let one = update("display_name", v1::Project { display_name: "Debian".to_owned(), ..Default::default() });
    let two = update("labels", v1::Project { labels, ..Default::default() });
    let (one, two) = tokio::join!(one, two);
    assert!(one.is_ok() && two.is_ok());
    let request = v1::ListProjectsRequest { filter: "labels.tier=1".to_owned(), ..Default::default() };
    let listed = fleet.projects().list_projects(request).await.unwrap().into_inner().projects;
    assert_eq!(listed.iter().map(|project| project.display_name.as_str()).collect::<Vec<_>>(), ["Debian"]);
    fleet.end().await;
}

#[tokio::test]
async fn a_paused_project_explains_itself_and_still_runs_for_people() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    fleet.declare("gnu", "ftp1").await;
    let pause = v1::PauseProjectRequest {
        name: named("gnu"),
        reason: "moving to a2".to_owned(),
        ..Default::default()
    };
    let paused = fleet.projects().pause_project(pause).await.unwrap().into_inner().paused.unwrap();
    assert_eq!((paused.by.as_str(), paused.reason.as_str()), ("users/maria", "moving to a2"));
    let why = || async {
        let request = v1::WhyProjectRequest { name: named("gnu") };
        fleet.projects().why_project(request).await.unwrap().into_inner()
    };
    let told = why().await;
    assert!(told.waits.is_empty());
    assert!(told.sentences[0].contains("by maria: \"moving to a2\"; nothing waits"), "{told:?}");
    let ran = fleet.run("gnu").await;
    assert_eq!(ran.notes, ["the project is paused by maria; this run runs all the same"]);
    let told = why().await;
    assert_eq!(told.waits.iter().map(v1::Wait::reason).collect::<Vec<_>>(), [Reason::AgentAway]);
    assert_eq!(told.waits[0].blockers, ["agents/ftp1"]);
    assert_eq!(
        told.sentences,
        ["gnu waits for its origin ftp1, which has never said hello. Next: mirrorctl agent show ftp1"]
    );
    let resume = v1::ResumeProjectRequest { name: named("gnu"), etag: String::new() };
    assert!(fleet.projects().resume_project(resume).await.unwrap().into_inner().paused.is_none());
    fleet.end().await;
}

#[tokio::test]
async fn a_failed_try_is_explained_with_its_cause_and_the_next_one() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let mut talk = fleet.connect("ftp1").await;
    fleet.declare("apache", "ftp1").await;
    fleet.run("apache").await;
    let assignment = talk.assignment().await;
    talk.accept(&assignment).await;
    let mut ended = fleet_common::ended(assignment.key.as_ref().unwrap(), Class::Network, b"");
    ended.outcome.as_mut().unwrap().cause = "connection reset".to_owned();
    talk.say(v1::open_session_request::Message::Ended(ended)).await;
    assert!(!talk.acknowledged().await);
    let request = v1::WhyProjectRequest { name: named("apache") };
    let told = fleet.projects().why_project(request).await.unwrap().into_inner();
    let sentence = told.sentences.iter().find(|sentence| sentence.contains("try 2 of 4 starts at"));
    assert!(sentence.is_some_and(|told| told.contains("(network: connection reset)")), "{told:?}");
    let run = fleet.newest_run("apache").await;
    assert!(run.origin_attempt.unwrap().retry_time.is_some());
    fleet.end().await;
}

#[tokio::test]
async fn a_schedule_is_previewed_without_being_stored() {
    let fleet = Fleet::start().await;
    let cron = v1::Cron { hour: "2".to_owned(), minute: "30".to_owned(), ..Default::default() };
    let schedule = v1::Schedule {
        cadence: Some(Cadence::Cron(cron)),
        time_zone: "Europe/Berlin".to_owned(),
        start_time: "2027-03-27".to_owned(),
        ..Default::default()
    };
    let request = v1::PreviewScheduleRequest { schedule: Some(schedule), count: 2, ..Default::default() };
    let seen = fleet.projects().preview_schedule(request.clone()).await.unwrap().into_inner();
    let local: Vec<&str> = seen.fires.iter().map(|fire| fire.local_time.as_str()).collect();
    assert_eq!(local, ["2027-03-27T02:30:00+01:00", "2027-03-28T03:30:00+02:00"]);
    assert!(seen.fires[1].remark.contains("does not exist that day") && !seen.exhausted);
    let request = v1::PreviewScheduleRequest { count: 101, ..request };
    let refused = fleet.projects().preview_schedule(request).await.unwrap_err();
    assert_eq!(fields(&refused), ["count"]);
    fleet.end().await;
}

/// A preview that nobody waits for any more still takes its place, until its work is done.
#[test]
fn previews_are_bounded_also_those_whose_callers_hung_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
    runtime.unwrap().block_on(async {
        let fleet = Fleet::start().await;
        let cron = v1::Cron { hour: "2".to_owned(), ..Default::default() };
        let schedule = v1::Schedule { cadence: Some(Cadence::Cron(cron)), ..Default::default() };
        let request = v1::PreviewScheduleRequest { schedule: Some(schedule), ..Default::default() };
        let places = &fleet.handle.services().previews;
        let free = async |wanted: usize| {
            let wait = async {
                while places.available_permits() != wanted {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{wanted} free places"));
        };
        // They work on the one thread for such work, which is taken.
        let (release, held) = std::sync::mpsc::sync_channel::<()>(1);
        let holding = tokio::task::spawn_blocking(move || held.recv().is_err());
        for taken in 1..=PREVIEWS_MAX {
            let (mut client, request) = (fleet.projects(), request.clone());
            let call = tokio::spawn(async move { client.preview_schedule(request).await });
            free(PREVIEWS_MAX - taken).await;
            call.abort();
            assert!(call.await.unwrap_err().is_cancelled());
        }
        let busy = fleet.projects().preview_schedule(request.clone()).await.unwrap_err();
        assert_eq!(Fault::from(&busy).reason, "PREVIEWS_BUSY");
        drop(release);
        assert!(holding.await.unwrap());
        free(PREVIEWS_MAX).await;
        fleet.projects().preview_schedule(request).await.unwrap();
        fleet.end().await;
    });
}

#[tokio::test]
async fn the_first_fire_of_a_previewed_interval_is_the_one_that_is_armed() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    fleet.declare("debian", "ftp1").await;
    let span = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let schedule = v1::Schedule {
        cadence: Some(Cadence::Interval(v1::Interval { every: span(21_600), ..Default::default() })),
        start_time: "2124-03-27T02:00:00Z".to_owned(),
        spread: span(21_600),
        ..Default::default()
    };
    let request =
        v1::PreviewScheduleRequest { name: named("debian"), schedule: Some(schedule.clone()), count: 2 };
    let seen = fleet.projects().preview_schedule(request.clone()).await.unwrap().into_inner();
    let start = 4_867_178_400;
    let first = seen.fires[0].time.unwrap().seconds;
    assert!(first > start && first < start + 21_600, "{seen:?}");
    assert_eq!(seen.fires[1].time.unwrap().seconds, first + 21_600);
    let update = v1::UpdateProjectRequest {
        project: Some(v1::Project { name: named("debian"), schedule: Some(schedule), ..Default::default() }),
        update_mask: mask(&["schedule"]),
        validate_only: false,
    };
    let armed = fleet.projects().update_project(update).await.unwrap().into_inner();
    assert_eq!(armed.status.unwrap().next_fire_times[0].seconds, first);
    // As it is stored, or given once more: nothing is armed anew.
    let stored = v1::PreviewScheduleRequest { schedule: None, ..request.clone() };
    for request in [request, stored] {
        let seen = fleet.projects().preview_schedule(request).await.unwrap().into_inner();
        assert_eq!(seen.fires[0].time.unwrap().seconds, first);
    }
    fleet.end().await;
}

#[tokio::test]
async fn runs_are_listed_newest_first_over_pages_and_the_end_of_one_is_final() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let mut talk = fleet.connect("ftp1").await;
    fleet.declare("debian", "ftp1").await;
    let mut made = Vec::new();
    for class in [Class::Auth, Class::Ok, Class::Auth] {
        made.push(fleet.run("debian").await.run.unwrap().name);
        let assignment = talk.assignment().await;
        talk.accept(&assignment).await;
        talk.finish(assignment.key.as_ref().unwrap(), class, b"").await;
        talk.acknowledged().await;
    }
    talk.say = None;
    talk.end().await;
    fleet
        .until("the agent is away", |view| view.agents_by_name().all(|a| view.session(a.uid).is_none()))
        .await;
    made.push(fleet.run("debian").await.run.unwrap().name);
    made.reverse();
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListRunsRequest { parent: named("debian"), page_size: 2, page_token };
        let page = fleet.runs().list_runs(request).await.unwrap().into_inner();
        listed.extend(page.runs.into_iter().map(|run| (run.name.clone(), run.state())));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let states = [run::State::Queued, run::State::Failed, run::State::Succeeded, run::State::Failed];
    assert_eq!(listed, made.iter().cloned().zip(states).collect::<Vec<_>>());

    let cancel = |name: &str| v1::CancelRunRequest { name: name.to_owned() };
    let cancelled = fleet.runs().cancel_run(cancel("projects/debian/runs/-")).await.unwrap().into_inner();
    assert_eq!((cancelled.name.as_str(), cancelled.state()), (made[0].as_str(), run::State::Cancelled));
    let refused = fleet.runs().cancel_run(cancel(&made[1])).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let request = v1::ListAttemptsRequest { parent: made[2].clone() };
    let attempts = fleet.runs().list_attempts(request).await.unwrap().into_inner().attempts;
    assert_eq!(attempts.len(), 1);
    let missing =
        v1::GetRunRequest { name: "projects/debian/runs/01a1f797-47f1-7c02-9d1f-8a3b6f20c1de".to_owned() };
    assert_eq!(fleet.runs().get_run(missing).await.unwrap_err().code(), Code::NotFound);
    fleet.end().await;
}

#[tokio::test]
async fn a_deleted_project_is_gone() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let made = fleet.declare("debian", "ftp1").await;
    let delete = |etag: &str| v1::DeleteProjectRequest {
        name: named("debian"),
        etag: etag.to_owned(),
        cancel_running: false,
        tree_to_trash: false,
    };
    assert_eq!(fleet.projects().delete_project(delete("99")).await.unwrap_err().code(), Code::Aborted);
    fleet.projects().delete_project(delete(&made.etag)).await.unwrap();
    let request = v1::GetProjectRequest { name: named("debian") };
    assert_eq!(fleet.projects().get_project(request).await.unwrap_err().code(), Code::NotFound);
    fleet.end().await;
}

#[tokio::test]
async fn a_destination_is_free_again_when_its_project_moves_or_goes() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    fleet.declare("debian", "ftp1").await;
    let create = |name: &'static str, destination: &'static str| {
        let destination = destination.to_owned();
        let project = v1::Project { destination, ..project(name, "ftp1") };
        let request = v1::CreateProjectRequest { project: Some(project), ..Default::default() };
        let mut client = fleet.projects();
        async move { client.create_project(request).await }
    };
    for clash in ["a1:debian", "a1:debian/pool"] {
        assert_eq!(fields(&create("cd", clash).await.unwrap_err()), ["destination"], "{clash}");
    }
    create("cd", "a1:debian-cd").await.unwrap();

    let moved = v1::UpdateProjectRequest {
        project: Some(v1::Project {
            name: named("debian"),
            destination: "a1:pub/debian".to_owned(),
            ..Default::default()
        }),
        update_mask: mask(&["destination"]),
        validate_only: false,
    };
    fleet.projects().update_project(moved).await.unwrap();
    create("pool", "a1:debian/pool").await.unwrap();
    assert_eq!(fields(&create("all", "a1:pub").await.unwrap_err()), ["destination"]);

    let delete = v1::DeleteProjectRequest { name: named("debian"), ..Default::default() };
    fleet.projects().delete_project(delete).await.unwrap();
    create("all", "a1:pub").await.unwrap();
    fleet.end().await;
}
