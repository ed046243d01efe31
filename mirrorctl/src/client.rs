//! One connection to the coordinator: TLS (or its own socket), HTTP/2, and a clear sentence when it fails.
//!
//! Knows nothing of commands. tonic is handed plain connections that are already TLS, so the URI says `http` and the
//! requests carry the `https` origin.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mirror_certs::{CaBundle, ClientFiles, ClientTls, Identity, IdentityFiles, Peer, PinnedBootstrap};
use mirror_proto::v1::agent_service_client::AgentServiceClient;
use mirror_proto::v1::fleet_service_client::FleetServiceClient;
use mirror_proto::v1::project_service_client::ProjectServiceClient;
use mirror_proto::v1::run_service_client::RunServiceClient;
use mirror_proto::v1::upstream_service_client::UpstreamServiceClient;
use mirror_proto::v1::user_service_client::UserServiceClient;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::clock;
use crate::config::{Context, Secret};
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
pub struct Metadata {
    traceparent: Option<MetadataValue<Ascii>>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Metadata {
    fn new(traceparent: Option<&str>, token: Option<&Secret>) -> Self {
        let authorization = token.and_then(|Secret(token)| {
            let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().ok()?;
            // Hidden from Debug, and from HTTP/2's table of headers.
            value.set_sensitive(true);
            Some(value)
        });
        Self { traceparent: traceparent.and_then(|text| text.parse().ok()), authorization }
    }
}

impl Interceptor for Metadata {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        if let Some(traceparent) = &self.traceparent {
            metadata.insert("traceparent", traceparent.clone());
        }
        if let Some(authorization) = &self.authorization {
            metadata.insert("authorization", authorization.clone());
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
    /// Dials, and shows all that the context has and that has not ended. `timeout` bounds each answer (a stream's
    /// beginning) from now on.
    ///
    /// # Errors
    /// Unusable files, no connection, or a server that is not the fleet's.
    pub async fn connect(context: &Context, timeout: Duration, traceparent: Option<&str>) -> Outcome<Self> {
        // A certificate that has ended would be refused before anything was asked.
        let ended = own_certificate(context).is_some_and(|own| own.not_after <= clock::now());
        let identity = context.identity().filter(|_| !ended);
        let metadata = Metadata::new(traceparent, context.token.as_ref());
        Self::dialled(&context.server, tls(context, identity)?.config(), metadata, timeout).await
    }

    /// Dials as nobody in particular, to log in.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_as_nobody(
        context: &Context,
        timeout: Duration,
        traceparent: Option<&str>,
    ) -> Outcome<Self> {
        let metadata = Metadata::new(traceparent, None);
        Self::dialled(&context.server, tls(context, None)?.config(), metadata, timeout).await
    }

    /// Dials a coordinator whose CA is known by its hash alone, to log in for the first time.
    ///
    /// # Errors
    /// No connection, or a server of another CA.
    pub async fn connect_pinned(server: &str, pin: &PinnedBootstrap, timeout: Duration) -> Outcome<Self> {
        let dialled = Self::dialled(server, pin.config(), Metadata::new(None, None), timeout).await;
        dialled.map_err(|fault| match pin.mismatch() {
            Some(mismatch) => Fault::new(Exit::NotAllowed, mismatch.to_string()),
            None => fault,
        })
    }

    /// Dials the coordinator's own socket.
    ///
    /// # Errors
    /// No such socket, or one of another account.
    pub async fn connect_socket(path: &Path, timeout: Duration, traceparent: Option<&str>) -> Outcome<Self> {
        let socket = path.to_owned();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = endpoint("localhost", timeout)?;
        let dialled = endpoint.connect_with_connector(connector).await;
        let channel = dialled.map_err(|error| {
            Fault::new(Exit::Unreachable, format!("{} does not answer ({})", path.display(), chain(&error)))
                .fault("the coordinator is down, its socket is elsewhere (admin_socket), or you are not its account")
                .next(format!("sudo mirrorctl --socket {} whoami", path.display()))
        })?;
        Ok(Self { channel, metadata: Metadata::new(traceparent, None) })
    }

    async fn dialled(
        server: &str,
        tls: Arc<ClientConfig>,
        metadata: Metadata,
        timeout: Duration,
    ) -> Outcome<Self> {
        let name = server_name(server)?;
        let address = server.to_owned();
        let connector = tower::service_fn(move |_| {
            let (tls, name, address) = (tls.clone(), name.clone(), address.clone());
            async move { dial(&address, name, &tls).await.map(TokioIo::new) }
        });
        let dialled = endpoint(server, timeout)?.connect_with_connector(connector).await;
        let channel = dialled.map_err(|error| not_connected(server, &error))?;
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

    /// The user service.
    #[must_use]
    pub fn users(&self) -> UserServiceClient<Transport> {
        let client = UserServiceClient::with_interceptor(self.channel.clone(), self.metadata.clone());
        client.max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The fleet service.
    #[must_use]
    pub fn fleet(&self) -> FleetServiceClient<Transport> {
        let client = FleetServiceClient::with_interceptor(self.channel.clone(), self.metadata.clone());
        client.max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}

fn tls(context: &Context, identity: Option<IdentityFiles>) -> Outcome<ClientTls> {
    let files = ClientFiles { identity, ca: context.ca.clone() };
    ClientTls::load(files).map_err(|error| {
        Fault::new(Exit::BadInput, format!("the context's files cannot be used: {}", chain(&error)))
            .fault("yours: the context names these files")
            .next("mirrorctl context show")
    })
}

impl Context {
    /// The files of certificate and key, where there are some.
    #[must_use]
    pub fn identity(&self) -> Option<IdentityFiles> {
        let (certificate, key) = self.certificate.clone().zip(self.key.clone())?;
        Some(IdentityFiles { certificate, key })
    }
}

/// The context's certificate, where it has one that can be read.
#[must_use]
pub fn own_certificate(context: &Context) -> Option<Peer> {
    let bundle = CaBundle::from_pem(&mirror_certs::read_pem(&context.ca).ok()?).ok()?;
    let certificate = mirror_certs::read_pem(context.certificate.as_ref()?).ok()?;
    Identity::from_pem(&certificate, &bundle.trust_domain().ok()?).ok()
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
async fn dial(
    address: &str,
    name: ServerName<'static>,
    tls: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let dialled = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(Arc::clone(tls)).connect(name, stream).await
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
