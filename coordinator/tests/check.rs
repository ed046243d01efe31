//! What the coordinator makes of a check: whom it asks, what it tells by itself, and that nothing waits for ever.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fleet_common;

use fleet_common::{Fleet, PATIENCE, Talk, project};
use mirror_coordinator::rpc::project::{CHECKS_MAX, EXPLAINS_MAX};
use mirror_proto::v1::{
    self,
    finding::{Kind, Severity},
    open_session_request::Message as Says,
    open_session_response::Message as Hears,
};
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Code, Status};

type Checking = JoinHandle<Result<v1::CheckProjectResponse, Status>>;

fn check(fleet: &Fleet, request: v1::CheckProjectRequest) -> Checking {
    let mut projects = fleet.projects();
    tokio::spawn(async move { projects.check_project(request).await.map(tonic::Response::into_inner) })
}

fn named(name: &str) -> v1::CheckProjectRequest {
    v1::CheckProjectRequest { name: format!("projects/{name}"), ..Default::default() }
}

async fn ended(checking: Checking) -> Result<v1::CheckProjectResponse, Status> {
    timeout(PATIENCE, checking).await.expect("an answer in time").unwrap()
}

async fn probe(talk: &mut Talk) -> v1::Probe {
    loop {
        if let Hears::Probe(probe) = talk.hear().await {
            return probe;
        }
    }
}

fn finding(kind: Kind, severity: Severity) -> v1::Finding {
    v1::Finding {
        agent: "agents/somebody-else".to_owned(),
        kind: kind.into(),
        severity: severity.into(),
        sentence: "said".to_owned(),
        ..Default::default()
    }
}

async fn answer(talk: &Talk, probe: &v1::Probe, findings: Vec<v1::Finding>) {
    talk.say(Says::ProbeResult(v1::ProbeResult { id: probe.id, findings, command_line: None })).await;
}

fn with_replica(name: &str) -> v1::Project {
    let mut wanted = project(name, "ftp1");
    let replica = v1::PlacementTarget { agent: "agents/edge1".to_owned(), ..Default::default() };
    wanted.placement.as_mut().unwrap().replicas.push(replica);
    wanted
}

#[tokio::test]
async fn the_origin_is_asked_first_and_its_size_is_what_replicas_need_room_for() {
    let fleet = Fleet::start().await;
    for agent in ["ftp1", "edge1"] {
        fleet.enrol(agent).await;
    }
    let (mut ftp1, mut edge1) = (fleet.connect("ftp1").await, fleet.connect("edge1").await);
    let wanted = with_replica("debian");
    // One that is only being thought about is looked at just the same.
    let request = v1::CheckProjectRequest { project: Some(wanted), size: true, ..Default::default() };
    let checking = check(&fleet, request);
    let asked = probe(&mut ftp1).await;
    assert_eq!(
        (asked.source_uri.as_str(), asked.user.as_str()),
        ("rsync://debian.example.net/debian/", "mirror")
    );
    assert_eq!(asked.secrets.as_ref().unwrap().password, "hunter2");
    assert!(
        asked.size && !asked.offline && asked.destination == "a1:debian" && asked.role() == v1::Role::Origin
    );
    let size = v1::Finding { size_bytes: Some(1 << 30), ..finding(Kind::Size, Severity::Warning) };
    answer(&ftp1, &asked, vec![finding(Kind::Path, Severity::Ok), size]).await;
    let asked = probe(&mut edge1).await;
    assert_eq!((asked.growth_bytes, asked.source_uri.as_str(), asked.secrets.clone()), (1 << 30, "", None));
    assert!(!asked.size && asked.role() == v1::Role::Replica);
    answer(&edge1, &asked, vec![finding(Kind::Space, Severity::Fault)]).await;
    let response = ended(checking).await.unwrap();
    assert_eq!((response.faults, response.warnings), (1, 1));
    let told: Vec<(&str, Kind)> =
        response.findings.iter().map(|finding| (finding.agent.as_str(), finding.kind())).collect();
    let wanted = [
        ("agents/ftp1", Kind::Path),
        ("agents/ftp1", Kind::Size),
        ("agents/edge1", Kind::Space),
        ("agents/edge1", Kind::Reachability),
    ];
    assert_eq!(told, wanted, "the agents are who their certificates say");
    assert!(response.findings[3].sentence.contains("served by the origin ftp1"));
    let none =
        fleet.projects().get_project(v1::GetProjectRequest { name: "projects/debian".to_owned() }).await;
    assert_eq!(none.unwrap_err().code(), Code::NotFound, "nothing is stored");
    fleet.end().await;
}

#[tokio::test]
async fn an_upstream_without_a_free_slot_is_left_alone() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let mut ftp1 = fleet.connect("ftp1").await;
    fleet.declare("debian", "ftp1").await;
    // Checks are connections too: with as many as there are slots the next one stays away.
    let slots = fleet.handle.services().driver.view().limits().upstream_slots;
    let mut going = Vec::new();
    for _ in 0..slots {
        going.push(check(&fleet, named("debian")));
        assert!(!probe(&mut ftp1).await.offline);
    }
    let last = check(&fleet, named("debian"));
    let asked = probe(&mut ftp1).await;
    assert!(asked.offline, "{asked:?}");
    answer(&ftp1, &asked, Vec::new()).await;
    let response = ended(last).await.unwrap();
    assert_eq!((response.faults, response.warnings), (0, 1), "{response:?}");
    assert!(response.findings[0].sentence.contains("slots are taken"), "{response:?}");
    going.iter().for_each(JoinHandle::abort);
    fleet.end().await;
}

#[tokio::test]
async fn who_is_away_or_leaves_is_told_and_nobody_waits_for_ever() {
    let fleet = Fleet::start().await;
    for agent in ["ftp1", "edge1"] {
        fleet.enrol(agent).await;
    }
    let request = v1::CreateProjectRequest { project: Some(with_replica("debian")), ..Default::default() };
    fleet.projects().create_project(request).await.unwrap();
    let response = ended(check(&fleet, named("debian"))).await.unwrap();
    let told: Vec<(&str, Kind, Severity)> =
        response.findings.iter().map(|one| (one.agent.as_str(), one.kind(), one.severity())).collect();
    let wanted =
        [("agents/ftp1", Kind::Agent, Severity::Fault), ("agents/edge1", Kind::Agent, Severity::Warning)];
    assert_eq!(told, wanted);

    let mut ftp1 = fleet.connect("ftp1").await;
    let checking = check(&fleet, named("debian"));
    probe(&mut ftp1).await;
    ftp1.say = None;
    let response = ended(checking).await.unwrap();
    assert!(response.findings[0].sentence.contains("connection was lost"), "{response:?}");

    // The caller's own deadline holds, and what it waited for is forgotten.
    let mut ftp1 = fleet.connect("ftp1").await;
    let mut request = tonic::Request::new(named("debian"));
    request.set_timeout(std::time::Duration::from_millis(300));
    let late = fleet.projects().check_project(request).await.unwrap_err();
    assert!(matches!(late.code(), Code::Cancelled | Code::DeadlineExceeded), "{late:?}");
    let asked = probe(&mut ftp1).await;
    answer(&ftp1, &asked, vec![finding(Kind::Path, Severity::Ok)]).await;
    let probes = &fleet.handle.services().probes;
    timeout(PATIENCE, async {
        while probes.connected_to("debian.example.net") > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("its slot is given back");
    fleet.end().await;
}

#[tokio::test]
async fn bad_requests_and_too_many_are_refused() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let missing = ended(check(&fleet, named("debian"))).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let both = v1::CheckProjectRequest { project: Some(project("x", "ftp1")), ..named("debian") };
    let mut bad = project("deb/ian", "ftp1");
    bad.destination = "debian".to_owned();
    let bad = v1::CheckProjectRequest { project: Some(bad), ..Default::default() };
    for request in [v1::CheckProjectRequest::default(), both, bad] {
        assert_eq!(ended(check(&fleet, request)).await.unwrap_err().code(), Code::InvalidArgument);
    }
    fleet.declare("debian", "ftp1").await;
    let taken = v1::CheckProjectRequest { project: Some(project("debian", "ftp1")), ..Default::default() };
    assert_eq!(ended(check(&fleet, taken)).await.unwrap_err().code(), Code::AlreadyExists);

    let permits =
        fleet.handle.services().checks.try_acquire_many(u32::try_from(CHECKS_MAX).unwrap()).unwrap();
    let busy = ended(check(&fleet, named("debian"))).await.unwrap_err();
    assert_eq!(busy.code(), Code::ResourceExhausted);
    drop(permits);
    assert!(ended(check(&fleet, named("debian"))).await.is_ok());
    // Who may only look leaves room for checks.
    assert!(EXPLAINS_MAX < CHECKS_MAX);
    let explain = || {
        let request = v1::ExplainProjectRequest { name: "projects/debian".to_owned() };
        let mut projects = fleet.projects();
        async move { projects.explain_project(request).await }
    };
    let places = fleet.handle.services().explains.try_acquire_many(u32::try_from(EXPLAINS_MAX).unwrap());
    assert_eq!(explain().await.unwrap_err().code(), Code::ResourceExhausted);
    assert!(ended(check(&fleet, named("debian"))).await.is_ok());
    drop(places);
    assert!(explain().await.is_ok());
    fleet.end().await;
}
