//! One connection to the coordinator: mutual TLS, HTTP/2, and a clear sentence when it fails.
//!
//! Knows nothing of commands. tonic is handed plain connections that are already TLS, so the URI says `http` and the
//! requests carry the `https` origin.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mirror_certs::{ClientFiles, ClientTls, IdentityFiles};
use mirror_proto::v1::agent_service_client::AgentServiceClient;
use mirror_proto::v1::fleet_service_client::FleetServiceClient;
use mirror_proto::v1::project_service_client::ProjectServiceClient;
use mirror_proto::v1::run_service_client::RunServiceClient;
use mirror_proto::v1::upstream_service_client::UpstreamServiceClient;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::config::Context;
use crate::exit::Exit;
use crate::fault::{Fault, Outcome};

/// How long one dial may take, TLS included, in seconds.
const CONNECT_SECONDS_MAX: u64 = 5;
/// HTTP/2 pings, so that a watch notices a lost coordinator: interval and timeout, in seconds.
const KEEPALIVE_SECONDS: u64 = 20;
const KEEPALIVE_TIMEOUT_SECONDS: u64 = 10;
/// Largest answer, in bytes: the status of 10,000 projects is about 10 MiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What every request carries besides its message.
#[derive(Debug, Clone)]
pub struct Metadata(Option<MetadataValue<Ascii>>);

impl Interceptor for Metadata {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(traceparent) = &self.0 {
            request.metadata_mut().insert("traceparent", traceparent.clone());
        }
        Ok(request)
    }
}

/// The transport of the generated clients.
pub type Transport = InterceptedService<Channel, Metadata>;

/// A connection to the coordinator.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    metadata: Metadata,
}

impl Client {
    /// Dials. `timeout` bounds each answer (a stream's beginning) from now on.
    ///
    /// # Errors
    /// Unusable files, no connection, or a server that is not the fleet's.
    pub async fn connect(context: &Context, timeout: Duration, traceparent: Option<&str>) -> Outcome<Self> {
        let tls = tls(context)?;
        let name = server_name(&context.server)?;
        let address = context.server.clone();
        let connector = tower::service_fn(move |_| {
            let (tls, name, address) = (tls.clone(), name.clone(), address.clone());
            async move { dial(&address, name, &tls).await.map(TokioIo::new) }
        });
        let endpoint = endpoint(&context.server, timeout)?;
        let dialled = endpoint.connect_with_connector(connector).await;
        let channel = dialled.map_err(|error| not_connected(&context.server, &error))?;
        let metadata = Metadata(traceparent.and_then(|text| text.parse().ok()));
        Ok(Self { channel, metadata })
    }

    /// The project service.
    #[must_use]
    pub fn projects(&self) -> ProjectServiceClient<Transport> {
        let client = ProjectServiceClient::with_interceptor(self.channel.clone(), self.metadata.clone());
        client.max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The run service.
    #[must_use]
    pub fn runs(&self) -> RunServiceClient<Transport> {
        let client = RunServiceClient::with_interceptor(self.channel.clone(), self.metadata.clone());
        client.max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The agent service.
    #[must_use]
    pub fn agents(&self) -> AgentServiceClient<Transport> {
        let client = AgentServiceClient::with_interceptor(self.channel.clone(), self.metadata.clone());
        client.max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The upstream service.
    #[must_use]
    pub fn upstreams(&self) -> UpstreamServiceClient<Transport> {
        let client = UpstreamServiceClient::with_interceptor(self.channel.clone(), self.metadata.clone());
        client.max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The fleet service.
    #[must_use]
    pub fn fleet(&self) -> FleetServiceClient<Transport> {
        let client = FleetServiceClient::with_interceptor(self.channel.clone(), self.metadata.clone());
        client.max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}

fn tls(context: &Context) -> Outcome<Arc<ClientTls>> {
    let identity = IdentityFiles { certificate: context.certificate.clone(), key: context.key.clone() };
    let files = ClientFiles { identity: Some(identity), ca: context.ca.clone() };
    ClientTls::load(files).map(Arc::new).map_err(|error| {
        Fault::new(Exit::BadInput, format!("the context's files cannot be used: {}", chain(&error)))
            .fault("yours: the context names these files")
            .next("mirrorctl context show")
    })
}

fn server_name(server: &str) -> Outcome<ServerName<'static>> {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(|_| {
        Fault::new(Exit::BadInput, format!("server {server:?}: {host:?} is no host name and no address"))
            .next("mirrorctl context show")
    })
}

fn endpoint(server: &str, timeout: Duration) -> Outcome<Endpoint> {
    let bad = |_| Fault::new(Exit::BadInput, format!("server {server:?} is no host:port"));
    let origin = format!("https://{server}").parse::<tonic::transport::Uri>();
    let endpoint = Endpoint::from_shared(format!("http://{server}")).map_err(|_| bad(()))?;
    Ok(endpoint
        .origin(origin.map_err(|_| bad(()))?)
        .timeout(timeout)
        .http2_keep_alive_interval(Duration::from_secs(KEEPALIVE_SECONDS))
        .keep_alive_timeout(Duration::from_secs(KEEPALIVE_TIMEOUT_SECONDS))
        .keep_alive_while_idle(true))
}

/// One dial; the channel calls this again by itself when a connection broke.
async fn dial(address: &str, name: ServerName<'static>, tls: &ClientTls) -> io::Result<TlsStream<TcpStream>> {
    let dialled = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(tls.config()).connect(name, stream).await
    };
    let in_time = tokio::time::timeout(Duration::from_secs(CONNECT_SECONDS_MAX), dialled).await;
    in_time.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Why a dial failed, in words.
fn not_connected(server: &str, error: &tonic::transport::Error) -> Fault {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut io_error = None;
    while let Some(error) = source {
        io_error = error.downcast_ref::<io::Error>().or(io_error);
        source = error.source();
    }
    let Some(error) = io_error else { return unreachable(server, &chain(error)) };
    match error.kind() {
        // rustls reports what it dislikes as InvalidData.
        io::ErrorKind::InvalidData => Fault::new(
            Exit::NotAllowed,
            format!(
                "{server} is not the coordinator of this context ({})",
                mirror_certs::handshake_trouble(error).unwrap_or_else(|| error.to_string())
            ),
        )
        .fault("open: another server's address, an old CA file, or somebody in between; nothing was sent")
        .next("mirrorctl context show"),
        kind => {
            // Name resolution has no kind of its own; only the system's text says anything then.
            let words = kind.to_string();
            let silent = ["other error", "uncategorized error"].contains(&words.as_str());
            unreachable(server, &if silent { error.to_string() } else { words })
        }
    }
}

fn unreachable(server: &str, why: &str) -> Fault {
    Fault::new(Exit::Unreachable, format!("{server} does not answer ({why}); syncs go on without it"))
        .fault("the network's, or the coordinator is down")
        .next("mirrorctl context show")
}

/// An error and its sources, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}
