//! What the design says of every method ("Authorization"), and which methods there are. The methods are read from the
//! descriptors that reflection serves, so that a new rpc without a row fails.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeSet;

use prost_reflect::DescriptorPool;

/// A method; who may on what is his own; who may on what is not. As letters in the order none, agent, viewer, owner,
/// operator, admin. Owners have projects, all users have themselves.
pub(crate) const DESIGN: [(&str, &str, &str); 60] = [
    ("ProjectService/CreateProject", "----OA", "----OA"),
    ("ProjectService/GetProject", "--VWOA", "--VWOA"),
    ("ProjectService/ListProjects", "--VWOA", "--VWOA"),
    ("ProjectService/UpdateProject", "----OA", "----OA"),
    ("ProjectService/DeleteProject", "----OA", "----OA"),
    ("ProjectService/PauseProject", "---WOA", "----OA"),
    ("ProjectService/ResumeProject", "---WOA", "----OA"),
    ("ProjectService/RunProject", "---WOA", "----OA"),
    ("ProjectService/PromoteOrigin", "----OA", "----OA"),
    ("ProjectService/ReseedPlacement", "----OA", "----OA"),
    ("ProjectService/MovePlacement", "----OA", "----OA"),
    ("ProjectService/SwitchUpstream", "----OA", "----OA"),
    ("ProjectService/WhyProject", "--VWOA", "--VWOA"),
    ("ProjectService/PreviewSchedule", "--VWOA", "--VWOA"),
    ("ProjectService/CheckProject", "----OA", "----OA"),
    ("ProjectService/PlanProjects", "--VWOA", "--VWOA"),
    ("ProjectService/ApplyProjects", "----OA", "----OA"),
    ("ProjectService/ExportProjects", "--VWOA", "--VWOA"),
    ("RunService/GetRun", "--VWOA", "--VWOA"),
    ("RunService/ListRuns", "--VWOA", "--VWOA"),
    ("RunService/ListAttempts", "--VWOA", "--VWOA"),
    ("RunService/WatchRun", "--VWOA", "--VWOA"),
    ("RunService/TailRunLog", "--VWOA", "--VWOA"),
    ("RunService/CancelRun", "---WOA", "----OA"),
    ("RunService/ApproveRun", "---WOA", "----OA"),
    ("AgentService/GetAgent", "--VWOA", "--VWOA"),
    ("AgentService/ListAgents", "--VWOA", "--VWOA"),
    ("AgentService/DrainAgent", "----OA", "----OA"),
    ("AgentService/UndrainAgent", "----OA", "----OA"),
    ("AgentService/RevokeAgent", "-----A", "-----A"),
    ("AgentService/ReplaceAgent", "----OA", "----OA"),
    ("AgentService/DeleteAgent", "-----A", "-----A"),
    ("AgentService/CreateJoinToken", "-----A", "-----A"),
    ("AgentService/ListJoinTokens", "-----A", "-----A"),
    ("AgentService/DeleteJoinToken", "-----A", "-----A"),
    ("EnrollmentService/Enroll", "NGVWOA", "NGVWOA"),
    ("EnrollmentService/Renew", "NGVWOA", "NGVWOA"),
    ("SessionService/OpenSession", "-G----", "-G----"),
    ("UpstreamService/ListUpstreams", "--VWOA", "--VWOA"),
    ("UpstreamService/UpdateUpstream", "----OA", "----OA"),
    ("UpstreamService/ReplaceUpstream", "----OA", "----OA"),
    ("FleetService/GetStatus", "--VWOA", "--VWOA"),
    ("FleetService/Freeze", "----OA", "----OA"),
    ("FleetService/Thaw", "----OA", "----OA"),
    ("FleetService/ListAuditEvents", "-----A", "-----A"),
    ("FleetService/WatchAuditEvents", "-----A", "-----A"),
    ("FleetService/Backup", "-----A", "-----A"),
    ("UserService/CreateUser", "-----A", "-----A"),
    ("UserService/GetUser", "--VWOA", "-----A"),
    ("UserService/ListUsers", "-----A", "-----A"),
    ("UserService/UpdateUser", "-----A", "-----A"),
    ("UserService/SetPassword", "--VWOA", "-----A"),
    ("UserService/DeleteUser", "-----A", "-----A"),
    ("UserService/Login", "NGVWOA", "NGVWOA"),
    ("UserService/Logout", "--VWOA", "--VWOA"),
    ("UserService/ListTokens", "--VWOA", "-----A"),
    ("UserService/RevokeToken", "--VWOA", "-----A"),
    ("UserService/WhoAmI", "--VWOA", "--VWOA"),
    ("UserService/IssueCertificate", "--VWOA", "-----A"),
    ("Health/Check", "NGVWOA", "NGVWOA"),
];

/// The full name of a row's method.
pub(crate) fn full(method: &str) -> String {
    let package = if method.starts_with("Health/") { "grpc.health.v1" } else { "mirror.v1" };
    format!("/{package}.{method}")
}

/// Every method of the contract, health and both reflections, as `/package.Service/Method`.
pub(crate) fn served() -> BTreeSet<String> {
    let pool = descriptors();
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

/// All that is served.
pub(crate) fn descriptors() -> DescriptorPool {
    let mut pool = DescriptorPool::new();
    for set in [
        mirror_proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        pool.decode_file_descriptor_set(set).unwrap();
    }
    pool
}
