//! The gRPC services, one file each, behind one gate (`layer.rs`, `gate.rs`) and one table (`policy.rs`).
//!
//! A service reads the request with `mirror_proto::convert`, puts one input to the driver or looks at its view, and
//! shows what came of it. It decides nothing: that is the engine's.

pub mod access;
pub mod agent;
mod answer;
pub mod enrollment;
pub mod fleet;
pub mod gate;
pub mod layer;
pub mod manifests;
pub mod page;
pub mod policy;
pub mod project;
pub mod request;
pub mod run;
pub mod upstream;
pub mod user;
pub(crate) mod web;
mod words;

use std::{sync::Arc, time::Duration};

use ::fleet::{
    input::{Ask, Input, Person, Reply},
    refusal::{Refusal, Violation},
};
use mirror_certs::Denial;
use mirror_proto::{
    status,
    v1::{
        agent_service_server::AgentServiceServer, enrollment_service_server::EnrollmentServiceServer,
        fleet_service_server::FleetServiceServer, run_service_server::RunServiceServer,
        upstream_service_server::UpstreamServiceServer, user_service_server::UserServiceServer,
    },
};
use tonic::{
    Status,
    service::Routes,
    transport::{Server, server::Router},
};
use tonic_health::{pb::health_server::HealthServer, server::HealthService};
use tower::layer::util::{Identity as NoLayer, Stack};

pub(crate) use self::answer::Caught;
pub use self::{
    access::{By, Scope, acting_on, caller, user},
    gate::{Caller, Proof},
};
use self::{gate::Gate, layer::GateLayer};
use crate::{Services, config::Reflection, driver::Unavailable, session};

/// Largest request of people, in bytes; a project is under 16 KiB.
pub const REQUEST_BYTES_MAX: usize = 256 * 1_024;
/// Largest request with a manifest, in bytes: thousands of projects. It is tonic's own default.
pub const MANIFEST_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// Largest enrolment, in bytes: a request of 8 KiB, 32 labels, a token.
pub const ENROLL_BYTES_MAX: usize = 64 * 1_024;
/// Largest request about users, in bytes: a certificate request of 8 KiB, or two passwords.
pub const USER_BYTES_MAX: usize = 16 * 1_024;
/// When a client may ask again after UNAVAILABLE.
pub const RETRY_UNAVAILABLE: Duration = Duration::from_secs(2);

/// A ping to the other end after this long without a sign of it.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long the answer to a ping may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Flow-control window of one stream, in bytes: how much one stalled reader may pin here.
const STREAM_WINDOW_BYTES: u32 = 64 * 1_024;
/// Flow-control window of one connection, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 128 * 1_024;
/// Streams of one connection at once: a session and some watches, or a page of a browser-like client.
const STREAMS_MAX: u32 = 128;
/// Streams that a client has reset before they were looked at; more end the connection (CVE-2023-44487).
const RESETS_UNSEEN_MAX: usize = 20;
/// Streams that we had to reset for a client's faults; more end the connection (CVE-2025-8671).
const RESETS_OWN_MAX: usize = 256;
/// All headers of one request together, in bytes.
const HEADERS_BYTES_MAX: u32 = 16 * 1_024;

/// A refusal on its way out.
#[must_use]
pub fn refused(refusal: &Refusal) -> Status {
    status::refusal_to_status(refusal)
}

/// A request with these faults on its way out: `what` was not done.
#[must_use]
pub fn invalid(what: &str, faults: Vec<Violation>) -> Status {
    refused(&Refusal::invalid(what, faults))
}

/// The writer cannot answer now.
#[must_use]
pub fn unavailable(error: &Unavailable) -> Status {
    status::unavailable("STORE_UNAVAILABLE", &error.to_string(), RETRY_UNAVAILABLE)
}

/// Something of ours broke; the log has it, the caller gets the sentence.
#[must_use]
pub fn broken(doing: &str, error: &dyn std::error::Error) -> Status {
    tracing::error!(error = %crate::Chain(error), "{doing} failed");
    status::internal("INTERNAL", &format!("{doing} failed; the coordinator's log has the details"))
}

/// Puts a user's wish to the writer and waits until it is done and on disk.
///
/// # Errors
/// The refusal, or UNAVAILABLE.
pub async fn ask(services: &Services, by: &By, ask: Ask) -> Result<Reply, Status> {
    let input = Input::Person(Person { by: by.to_string(), ask });
    match services.driver.ask(input).await {
        Ok(Reply::Refused(refusal)) => Err(refused(&refusal)),
        Ok(reply) => Ok(reply),
        Err(error) => Err(unavailable(&error)),
    }
}

/// Refuses every certificate of a key for ever: those that were renewed, and the one before that is still valid. The
/// hash is as records have it; an empty one is nobody's.
async fn deny_key(services: &Services, key_hash: &str) -> Result<(), Status> {
    match format!("sha256:{key_hash}").parse() {
        Ok(hash) => deny(services, Denial::Key(hash)).await,
        Err(_) => Ok(()),
    }
}

/// Refuses somebody for ever: writes the denial and waits until it is on disk.
pub(crate) async fn deny(services: &Services, denial: Denial) -> Result<(), Status> {
    let (deny, now) = (Arc::clone(&services.deny), services.driver.now().wall.to_utc());
    match tokio::task::spawn_blocking(move || deny.deny(&denial, now)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(broken("writing the deny list", &error)),
        Err(error) => Err(broken("writing the deny list", &error)),
    }
}

/// The server with everything in it.
pub type Served = Router<Stack<GateLayer, NoLayer>>;

/// What stands in front of all services, on whatever port.
fn gate(services: &Services) -> Gate {
    Gate {
        driver: services.driver.clone(),
        deny: Arc::clone(&services.deny),
        ca: Arc::clone(&services.ca),
        reflection: services.config.reflection,
        stopping: services.stopping.clone(),
        streams: Arc::clone(&services.streams),
    }
}

/// What the gRPC port serves: every service behind the gate, health, and reflection where the configuration allows.
///
/// # Errors
/// When the contract's own descriptor cannot be read: a bug.
pub fn server(services: &Services) -> Result<Served, tonic_reflection::server::Error> {
    Ok(Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_UNSEEN_MAX))
        .http2_max_local_error_reset_streams(Some(RESETS_OWN_MAX))
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .layer(GateLayer(Arc::new(gate(services))))
        .add_routes(routes(services)?))
}

fn routes(services: &Services) -> Result<Routes, tonic_reflection::server::Error> {
    let health = HealthService::from_health_reporter(services.health.clone());
    let projects = manifests::Measured::new(project::Projects::new(services.clone()));
    let runs = RunServiceServer::new(run::Runs::new(services.clone()));
    let agents = AgentServiceServer::new(agent::Agents::new(services.clone()));
    let fleet = FleetServiceServer::new(fleet::Fleet::new(services.clone()));
    let upstreams = UpstreamServiceServer::new(upstream::Upstreams::new(services.clone()));
    let users = UserServiceServer::new(user::Users::new(services.clone()));
    let enrollment = EnrollmentServiceServer::new(enrollment::Enrollment::new(services.clone()));
    let mut routes = Routes::default()
        .add_service(projects)
        .add_service(runs.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(agents.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(fleet.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(upstreams.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(users.max_decoding_message_size(USER_BYTES_MAX))
        .add_service(enrollment.max_decoding_message_size(ENROLL_BYTES_MAX))
        .add_service(session::service(services.clone()))
        .add_service(HealthServer::new(health));
    if services.config.reflection != Reflection::Off {
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(mirror_proto::DESCRIPTORS)
                // So that grpcurl can print the details of an error.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        // grpcurl and grpcio ask v1alpha, buf asks v1.
        routes = routes.add_service(describe().build_v1()?).add_service(describe().build_v1alpha()?);
    }
    Ok(routes)
}
