//! A coordinator that answers from a script, on a real port with the fleet's own TLS: what a command sends, and what
//! it makes of the answers, is seen through the real binary.

#![allow(clippy::unwrap_used, reason = "a test helper that fails is a test that fails")]

mod answers;
mod services;

pub(crate) use services::HOSTILE;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use chrono::{DateTime, TimeDelta, Utc};
use mirror_certs::{
    CertificateAuthority, Existing, Identity, KeyPair, USER_LIFE, server_config, write_private, write_public,
};
use mirror_proto::v1;
use mirror_proto::v1::agent_service_server::AgentServiceServer;
use mirror_proto::v1::fleet_service_server::FleetServiceServer;
use mirror_proto::v1::project_service_server::ProjectServiceServer;
use mirror_proto::v1::run_service_server::RunServiceServer;
use mirror_proto::v1::user_service_server::UserServiceServer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// What the fake was asked, and how it is to answer.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) created: Vec<v1::CreateProjectRequest>,
    pub(crate) updated: Vec<v1::UpdateProjectRequest>,
    pub(crate) deleted: Vec<v1::DeleteProjectRequest>,
    pub(crate) replaced: Vec<v1::ReplaceAgentRequest>,
    pub(crate) updated_agents: Vec<v1::UpdateAgentRequest>,
    pub(crate) approved: Vec<v1::ApproveRunRequest>,
    pub(crate) started: Vec<v1::RunProjectRequest>,
    pub(crate) push_tokens: Vec<v1::CreatePushTokenRequest>,
    pub(crate) deleted_push_tokens: Vec<String>,
    pub(crate) listed_agents: Vec<v1::ListAgentsRequest>,
    pub(crate) traceparents: Vec<String>,
    pub(crate) watches: usize,
    pub(crate) no_certificates: bool,
}

/// A running fake, and a configuration file that leads to it.
pub(crate) struct Fake {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) config: PathBuf,
    script: Arc<Mutex<Script>>,
}

impl Fake {
    /// Starts one; it ends with the test's process.
    pub(crate) fn start() -> Self {
        Self::start_with(TimeDelta::zero())
    }

    /// Starts one whose admin has a certificate of this age.
    pub(crate) fn start_with(age: TimeDelta) -> Self {
        let now = mirrorctl::clock::now();
        let domain = "test.example.org".parse().unwrap();
        let ca = Arc::new(CertificateAuthority::create(domain, now - age).unwrap());
        let server = ca.issue_server(&["127.0.0.1"], now).unwrap();
        let tls = server_config(&server.issued.cert_pem, &server.key.pem(), &ca.bundle()).unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let (told, address) = std::sync::mpsc::sync_channel(1);
        let services = services::Services { script: script.clone(), ca: ca.clone() };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, TlsAcceptor::from(Arc::new(tls)), services).await;
            });
        });
        let directory = tempfile::tempdir().unwrap();
        let config = write_context(&directory, &ca, now - age, address.recv().unwrap());
        Self { directory, config, script }
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }
}

/// As `mirror-coordinator init` writes it.
fn write_context(
    directory: &tempfile::TempDir,
    ca: &CertificateAuthority,
    made: DateTime<Utc>,
    server: SocketAddr,
) -> PathBuf {
    let key = KeyPair::generate().unwrap();
    let admin = Identity::User("admin".parse().unwrap());
    let issued = ca.issue_from_csr(&key.csr_pem().unwrap(), &admin, made, USER_LIFE).unwrap();
    let path = |name: &str| directory.path().join(name);
    write_public(&path("ca.pem"), &ca.cert_pem(), Existing::Refuse).unwrap();
    write_public(&path("admin.pem"), &issued.cert_pem, Existing::Refuse).unwrap();
    write_private(&path("admin.key"), &key.pem(), Existing::Refuse).unwrap();
    let text = format!(
        "current = \"default\"\n\n[contexts.default]\nserver = \"{server}\"\nca = \"ca.pem\"\n\
         certificate = \"admin.pem\"\nkey = \"admin.key\"\n"
    );
    std::fs::write(path("mirrorctl.toml"), text).unwrap();
    path("mirrorctl.toml")
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, service: services::Services) {
    let (accepted, incoming) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that refuses our certificate ends here, and only this connection.
            if let Ok(stream) = acceptor.accept(stream).await {
                accepted.send(Ok::<_, std::io::Error>(Conn(stream))).await.unwrap();
            }
        }
    });
    tonic::transport::Server::builder()
        .add_service(ProjectServiceServer::new(service.clone()))
        .add_service(RunServiceServer::new(service.clone()))
        .add_service(AgentServiceServer::new(service.clone()))
        .add_service(UserServiceServer::new(service.clone()))
        .add_service(FleetServiceServer::new(service))
        .serve_with_incoming(tokio_stream::wrappers::ReceiverStream::new(incoming))
        .await
        .unwrap();
}

/// A TLS connection as tonic wants it.
struct Conn(TlsStream<TcpStream>);

impl Connected for Conn {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
