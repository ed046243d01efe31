//! Every served method against every kind of caller, compared with the table of the design ("Authorization"). The
//! methods are read from the descriptors that reflection serves, so that a new rpc without a row fails here.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use fleet::agent::UserRole;
use mirror_coordinator::{
    config::Reflection,
    rpc::policy::{self, Standing, Verdict},
};
use prost_reflect::DescriptorPool;

/// Callers, in the order of the letters below.
const CALLERS: [Standing; 6] = [
    Standing::Nobody,
    Standing::Agent,
    Standing::User(UserRole::Viewer),
    Standing::User(UserRole::Owner),
    Standing::User(UserRole::Operator),
    Standing::User(UserRole::Admin),
];

/// What the design says: who may, as letters in the order none, agent, viewer, owner, operator, admin. An owner may
/// act on own projects only, and no project has an owner.
const DESIGN: [(&str, &str); 43] = [
    ("ProjectService/CreateProject", "----OA"),
    ("ProjectService/GetProject", "--VWOA"),
    ("ProjectService/ListProjects", "--VWOA"),
    ("ProjectService/UpdateProject", "----OA"),
    ("ProjectService/DeleteProject", "----OA"),
    ("ProjectService/PauseProject", "----OA"),
    ("ProjectService/ResumeProject", "----OA"),
    ("ProjectService/RunProject", "----OA"),
    ("ProjectService/PromoteOrigin", "----OA"),
    ("ProjectService/ReseedPlacement", "----OA"),
    ("ProjectService/MovePlacement", "----OA"),
    ("ProjectService/SwitchUpstream", "----OA"),
    ("ProjectService/WhyProject", "--VWOA"),
    ("ProjectService/PreviewSchedule", "--VWOA"),
    ("ProjectService/CheckProject", "----OA"),
    ("RunService/GetRun", "--VWOA"),
    ("RunService/ListRuns", "--VWOA"),
    ("RunService/ListAttempts", "--VWOA"),
    ("RunService/WatchRun", "--VWOA"),
    ("RunService/TailRunLog", "--VWOA"),
    ("RunService/CancelRun", "----OA"),
    ("RunService/ApproveRun", "----OA"),
    ("AgentService/GetAgent", "--VWOA"),
    ("AgentService/ListAgents", "--VWOA"),
    ("AgentService/DrainAgent", "----OA"),
    ("AgentService/UndrainAgent", "----OA"),
    ("AgentService/RevokeAgent", "-----A"),
    ("AgentService/ReplaceAgent", "----OA"),
    ("AgentService/DeleteAgent", "-----A"),
    ("AgentService/CreateJoinToken", "-----A"),
    ("AgentService/ListJoinTokens", "-----A"),
    ("AgentService/DeleteJoinToken", "-----A"),
    ("EnrollmentService/Enroll", "NGVWOA"),
    ("EnrollmentService/Renew", "NGVWOA"),
    ("SessionService/OpenSession", "-G----"),
    ("UpstreamService/ListUpstreams", "--VWOA"),
    ("UpstreamService/UpdateUpstream", "----OA"),
    ("UpstreamService/ReplaceUpstream", "----OA"),
    ("FleetService/GetStatus", "--VWOA"),
    ("FleetService/Freeze", "----OA"),
    ("FleetService/Thaw", "----OA"),
    ("FleetService/Backup", "-----A"),
    ("Health/Check", "NGVWOA"),
];

/// Every method of the contract, health and both reflections, as `/package.Service/Method`.
fn served() -> BTreeSet<String> {
    let mut pool = DescriptorPool::new();
    for set in [
        mirror_proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        pool.decode_file_descriptor_set(set).unwrap();
    }
    let services: Vec<_> = pool.services().collect();
    services
        .iter()
        .flat_map(|service| {
            service
                .methods()
                .map(|method| format!("/{}/{}", service.full_name(), method.name()))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn allowed(method: &str, reflection: Reflection) -> String {
    let letters = "NGVWOA".chars();
    let verdicts = CALLERS.iter().map(|caller| policy::decide(method, *caller, reflection));
    verdicts
        .zip(letters)
        .map(|(verdict, letter)| if verdict == Verdict::Allowed { letter } else { '-' })
        .collect()
}

#[test]
fn every_served_method_has_a_row_and_every_row_is_served() {
    let rows: BTreeSet<String> = policy::TABLE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(rows.len(), policy::TABLE.len(), "a method has two rows");
    assert_eq!(rows, served());
}

#[test]
fn every_method_and_role_is_as_the_design_says() {
    let mut seen = BTreeSet::new();
    for (method, wanted) in DESIGN {
        let package = if method.starts_with("Health/") { "grpc.health.v1" } else { "mirror.v1" };
        let full = format!("/{package}.{method}");
        assert_eq!(allowed(&full, Reflection::Users), wanted, "{full}");
        seen.insert(full);
    }
    let left: Vec<String> = served().difference(&seen).cloned().collect();
    let others = [
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ];
    assert_eq!(left, others, "the design's table above lacks a method");
    assert_eq!(allowed(others[0], Reflection::Users), "NGVWOA");
}

#[test]
fn reflection_is_as_configured() {
    for version in ["v1", "v1alpha"] {
        let method = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        assert_eq!(allowed(&method, Reflection::Open), "NGVWOA");
        assert_eq!(allowed(&method, Reflection::Users), "--VWOA");
        assert_eq!(allowed(&method, Reflection::Off), "------");
    }
}

#[test]
fn a_method_without_a_row_is_refused_to_everybody() {
    for method in ["/mirror.v1.ProjectService/Fly", "/mirror.v1.projectservice/GetProject", "", "/", "//"] {
        assert_eq!(allowed(method, Reflection::Open), "------", "{method}");
        assert_eq!(policy::name(method), "unknown method");
    }
}
