//! Hostile input over real mutual TLS, from people and from agents: refused for its reason, all faults at once, and
//! nothing is changed by it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../wire_common/mod.rs"]
mod wire_common;

mod generate;
mod manifests;
mod messages;
mod names;
mod sessions;
mod words;

use fleet::record::Record;
use mirror_proto::v1::{self, project_service_client::ProjectServiceClient};
use tonic::transport::Channel;
use wire_common::Fleet;

/// A declaration that is taken as it stands; tests put one thing wrong in it.
fn good(name: &str, agent: &str) -> v1::Project {
    v1::Project {
        name: format!("projects/{name}"),
        upstreams: vec![v1::Upstream {
            uri: format!("rsync://ftp.example.net/{name}/"),
            ..Default::default()
        }],
        destination: format!("a1:{name}"),
        placement: Some(v1::PlacementSettings {
            origins: vec![v1::PlacementTarget { agent: format!("agents/{agent}"), ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A fleet with the agent `ftp1`, and its projects as the first admin sees them.
async fn fleet() -> (Fleet, ProjectServiceClient<Channel>) {
    let fleet = Fleet::start().await;
    fleet.enroll("ftp1").await;
    let projects = ProjectServiceClient::new(fleet.dial(Some(&fleet.root())).await);
    (fleet, projects)
}

/// Everything that the fleet is. The audit log is not: what is refused is recorded there.
fn records(fleet: &Fleet) -> Vec<Record> {
    fleet.handle.services().driver.view().records().collect()
}
