//! Manifests that are small on the wire and would be large in memory: refused before they are decoded. And what is no
//! manifest may not be as large as one.

use std::fs;

use fleet::agent::UserRole;
use mirror_coordinator::rpc::{
    MANIFEST_BYTES_MAX, REQUEST_BYTES_MAX,
    manifests::{MANIFEST_MESSAGES_MAX, MANIFEST_PROJECTS_MAX, MANIFESTS_AT_ONCE},
};
use mirror_proto::{status::Fault, v1};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use tokio::time::timeout;
use tonic::{Code, Request, client::Grpc, transport::Channel};

use super::{
    fleet, good,
    messages::{PATIENCE, Raw, ask},
};

const PLAN: &str = "/mirror.v1.ProjectService/PlanProjects";
const APPLY: &str = "/mirror.v1.ProjectService/ApplyProjects";
/// Elements of two bytes each, which just fit a manifest.
const MANY: usize = 2_000_000;
/// What this process may come to need for the refusal of such a one, in KiB: the request itself, a few times. Decoded, it
/// would be 200 MiB at least.
const GROWTH_KIB_MAX: u64 = 96 * 1_024;

/// The most memory that this process ever had, in KiB.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// This field with these bytes.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut whole);
    encode_varint(bytes.len() as u64, &mut whole);
    whole.extend_from_slice(bytes);
    whole
}

/// So many empty messages of this field.
fn empty(number: u32, count: usize) -> Vec<u8> {
    field(number, &[]).repeat(count)
}

#[tokio::test]
async fn empty_elements_without_number_are_refused_before_they_are_memory() {
    let (fleet, _) = fleet().await;
    let viewer = fleet.user("guest", UserRole::Viewer).await;
    let operator = fleet.user("maria", UserRole::Operator).await;
    let (viewer, operator) = (fleet.dial(Some(&viewer)).await, fleet.dial(Some(&operator)).await);
    let in_project = |bytes: &[u8]| field(1, &field(1, bytes));
    let hostile = [
        ("projects", empty(1, MANY)),
        ("upstreams", in_project(&empty(4, MANY))),
        ("places", in_project(&field(8, &empty(1, MANY)))),
        ("windows", in_project(&field(6, &empty(13, MANY)))),
        ("what only the coordinator tells", in_project(&field(21, &empty(7, MANY)))),
        ("options", in_project(&field(7, &empty(1, MANY)))),
        ("one project in many parts", field(1, &empty(1, MANY))),
    ];
    let before = peak_kib();
    for (what, bytes) in hostile {
        assert!(bytes.len() <= MANIFEST_BYTES_MAX, "{what}: refused for nothing but its elements");
        for (channel, path) in [(&viewer, PLAN), (&operator, APPLY)] {
            let refused = ask(channel, path, bytes.clone()).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{path}, {what}: {refused:?}");
            assert_eq!(Fault::from(&refused).violations[0].field, "projects", "{path}, {what}");
        }
    }
    // The kernel counts in batches for each thread: what is told as the peak may sink by a few pages.
    let growth = peak_kib().saturating_sub(before);
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB for what is refused");
    fleet.end().await;
}

/// A manifest that never ends; begun again where no place was free.
async fn endless(channel: Channel) {
    loop {
        let mut client = Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let body = Request::new(tokio_stream::pending::<Vec<u8>>());
        let refused = client.client_streaming(body, PLAN.parse().unwrap(), Raw).await.unwrap_err();
        assert_eq!(Fault::from(&refused).reason, "TOO_MANY_PLANS", "{refused:?}");
    }
}

#[tokio::test]
async fn only_some_manifests_are_held_at_once_and_who_looks_takes_no_place_of_who_applies() {
    let (fleet, _) = fleet().await;
    let viewer = fleet.dial(Some(&fleet.user("guest", UserRole::Viewer).await)).await;
    let root = fleet.dial(Some(&fleet.root())).await;
    let held: Vec<_> = (0..MANIFESTS_AT_ONCE).map(|_| tokio::spawn(endless(viewer.clone()))).collect();
    let is_full = async |path| match ask(&root, path, Vec::new()).await {
        Ok(_) => false,
        Err(status) => Fault::from(&status).reason == "TOO_MANY_PLANS",
    };
    let until = async |full: bool| {
        let asking = async { while is_full(PLAN).await != full {} };
        timeout(PATIENCE, asking).await.expect("it comes to that");
    };
    until(true).await;
    assert!(is_full(PLAN).await, "and stays so while they last");
    assert!(!is_full(APPLY).await);
    held.iter().for_each(tokio::task::JoinHandle::abort);
    until(false).await;
    fleet.end().await;
}

#[tokio::test]
async fn as_many_as_allowed_are_judged_and_one_more_is_not() {
    let (fleet, _) = fleet().await;
    let channel = fleet.dial(Some(&fleet.root())).await;
    let planned = ask(&channel, PLAN, empty(1, MANIFEST_PROJECTS_MAX)).await.unwrap().unwrap();
    let planned = v1::PlanProjectsResponse::decode(planned.as_slice()).unwrap();
    assert_eq!(planned.faults[0].field, "projects[0].project.name", "each is looked at");
    let more = ask(&channel, PLAN, empty(1, MANIFEST_PROJECTS_MAX + 1)).await.unwrap_err();
    let more = Fault::from(&more).violations.remove(0);
    assert!(more.description.contains("at most 5000 are possible"), "{more:?}");
    // The project and its declaration are two of the messages.
    let with = |places: usize| field(1, &field(1, &field(8, &empty(1, places))));
    let most = MANIFEST_MESSAGES_MAX - 3;
    assert!(ask(&channel, PLAN, with(most)).await.is_ok());
    assert_eq!(ask(&channel, PLAN, with(most + 1)).await.unwrap_err().code(), Code::InvalidArgument);
    fleet.end().await;
}

#[tokio::test]
async fn what_is_no_manifest_is_as_small_as_everywhere() {
    let (fleet, mut projects) = fleet().await;
    let channel = fleet.dial(Some(&fleet.root())).await;
    let large = |bytes: usize| v1::Project { display_name: "x".repeat(bytes), ..good("debian", "ftp1") };
    for method in ["PreviewSchedule", "PushProject", "ListProjects", "CreateProject"] {
        let path = format!("/mirror.v1.ProjectService/{method}");
        let refused = ask(&channel, &path, field(1, &vec![b'x'; REQUEST_BYTES_MAX])).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{method}: {refused:?}");
    }
    let create = v1::CreateProjectRequest { project: Some(large(REQUEST_BYTES_MAX)), ..Default::default() };
    assert_eq!(projects.create_project(create).await.unwrap_err().code(), Code::OutOfRange);
    // A manifest may be, and no larger than it may be.
    let plan = |bytes: usize| v1::PlanProjectsRequest {
        projects: vec![v1::DeclaredProject { project: Some(Box::new(large(bytes))), ..Default::default() }],
        ..Default::default()
    };
    let planned = projects.plan_projects(plan(REQUEST_BYTES_MAX)).await.unwrap().into_inner();
    assert_eq!(planned.faults[0].field, "projects[0].project.display_name");
    let refused = projects.plan_projects(plan(MANIFEST_BYTES_MAX)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    fleet.end().await;
}
