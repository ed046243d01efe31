//! A coordinator that knows nothing: it enrols whoever has the token, and hands each session to the test.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use chrono::TimeDelta;
use mirror_certs::{
    AGENT_LIFE, CertificateAuthority, CertificateRequest, Identity, JoinToken, server_config,
};
use mirror_proto::v1::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use mirror_proto::v1::open_session_request::Message as FromAgent;
use mirror_proto::v1::open_session_response::Message as ToAgent;
use mirror_proto::v1::session_service_server::{SessionService, SessionServiceServer};
use mirror_proto::v1::{self, OpenSessionRequest, OpenSessionResponse};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::DEADLINE;

const QUEUE: usize = 64;

#[allow(clippy::disallowed_methods, reason = "certificates are checked against the host's clock")]
fn now() -> chrono::DateTime<chrono::Utc> {
    chrono::Utc::now()
}

pub(crate) struct Coordinator {
    pub(crate) address: String,
    pub(crate) token: String,
    pub(crate) ca_hash: String,
    /// Labels and names of those who enrolled.
    pub(crate) enrolled: Arc<Mutex<BTreeMap<String, BTreeMap<String, String>>>>,
    /// What the next session is refused with.
    pub(crate) refuse: Arc<Mutex<Option<Status>>>,
    /// How long ago the certificates were issued that are given out at enrolment.
    pub(crate) issued_ago: Arc<Mutex<TimeDelta>>,
    /// A renewal is answered for each permit.
    pub(crate) renewals: Arc<Semaphore>,
    sessions: mpsc::Receiver<Session>,
}

impl Coordinator {
    pub(crate) async fn start() -> Self {
        // Older than any certificate that a test wants.
        let began = now() - TimeDelta::days(300);
        let ca = CertificateAuthority::create("example.org".parse().unwrap(), began).unwrap();
        let server = ca.issue_server(&["127.0.0.1", "localhost"], now()).unwrap();
        let tls = server_config(&server.issued.cert_pem, &server.key.pem(), &ca.bundle()).unwrap();
        let ca_hash = ca.ca_hash().to_string();
        let token = JoinToken::generate().unwrap().reveal().to_owned();
        let enrolled = Arc::new(Mutex::new(BTreeMap::new()));
        let refuse = Arc::new(Mutex::new(None));
        let (session, sessions) = mpsc::channel(QUEUE);
        let issued_ago = Arc::new(Mutex::new(TimeDelta::zero()));
        let renewals = Arc::new(Semaphore::new(0));
        let enrollment = Enrollment {
            ca,
            token: token.clone(),
            enrolled: enrolled.clone(),
            issued_ago: issued_ago.clone(),
            renewals: renewals.clone(),
        };
        let opener = Opener { session, refuse: refuse.clone() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let incoming = accept(listener, TlsAcceptor::from(Arc::new(tls)));
        let server = tonic::transport::Server::builder()
            .add_service(EnrollmentServiceServer::new(enrollment))
            .add_service(SessionServiceServer::new(opener))
            .serve_with_incoming(incoming);
        tokio::spawn(server);
        Self { address, token, ca_hash, enrolled, refuse, issued_ago, renewals, sessions }
    }

    /// The next session, its hello read.
    pub(crate) async fn session(&mut self) -> Session {
        tokio::time::timeout(DEADLINE, self.sessions.recv()).await.expect("no session came").unwrap()
    }

    /// The next session, welcomed with term 5.
    pub(crate) async fn welcomed(&mut self) -> Session {
        let session = self.session().await;
        session.welcome(5).await;
        session
    }
}

/// One session of an agent.
pub(crate) struct Session {
    pub(crate) hello: v1::Hello,
    inbound: Streaming<OpenSessionRequest>,
    outbound: mpsc::Sender<Result<OpenSessionResponse, Status>>,
}

impl Session {
    pub(crate) async fn welcome(&self, term: u64) {
        let time = now();
        self.send(ToAgent::Welcome(v1::Welcome {
            term,
            session_epoch: Some(v1::Epoch { term, counter: 1 }),
            time: Some(prost_types::Timestamp { seconds: time.timestamp(), nanos: 0 }),
            agent: "agents/edge1".into(),
            trust: None,
        }))
        .await;
    }

    pub(crate) async fn send(&self, message: ToAgent) {
        self.outbound.send(Ok(OpenSessionResponse { message: Some(message) })).await.unwrap();
    }

    pub(crate) async fn assign(&self, assignment: &v1::Assignment) {
        self.send(ToAgent::Assignment(assignment.clone())).await;
    }

    pub(crate) async fn acknowledge(&self, key: v1::AttemptKey) {
        self.send(ToAgent::Acknowledge(v1::Acknowledge { key: Some(key), fenced: false })).await;
    }

    /// Whether the agent has let go of the stream.
    pub(crate) fn is_given_up(&self) -> bool {
        self.outbound.is_closed()
    }

    pub(crate) async fn fail(&self, status: Status) {
        self.outbound.send(Err(status)).await.unwrap();
    }

    /// The next message, whatever it is; `None` when the agent ended the session.
    pub(crate) async fn next(&mut self) -> Option<FromAgent> {
        let next =
            tokio::time::timeout(DEADLINE, self.inbound.message()).await.expect("the agent says nothing");
        next.ok().flatten().map(|request| request.message.expect("a message of a known kind"))
    }

    /// The next message that `pick` wants; others are passed over.
    pub(crate) async fn expect<T>(&mut self, what: &str, mut pick: impl FnMut(FromAgent) -> Option<T>) -> T {
        loop {
            let message = self.next().await.unwrap_or_else(|| panic!("the session ended before: {what}"));
            if let Some(found) = pick(message) {
                return found;
            }
        }
    }

    /// The answer to an offer.
    pub(crate) async fn answer(&mut self) -> Result<v1::AttemptKey, v1::Refused> {
        self.expect("an answer", |message| match message {
            FromAgent::Accepted(accepted) => Some(Ok(accepted.key.unwrap())),
            FromAgent::Refused(refused) => Some(Err(refused)),
            _ => None,
        })
        .await
    }

    pub(crate) async fn ended(&mut self) -> v1::Ended {
        self.expect("an outcome", |message| match message {
            FromAgent::Ended(ended) => Some(ended),
            _ => None,
        })
        .await
    }
}

struct Enrollment {
    ca: CertificateAuthority,
    token: String,
    enrolled: Arc<Mutex<BTreeMap<String, BTreeMap<String, String>>>>,
    issued_ago: Arc<Mutex<TimeDelta>>,
    renewals: Arc<Semaphore>,
}

#[tonic::async_trait]
impl EnrollmentService for Enrollment {
    async fn enroll(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Result<Response<v1::EnrollResponse>, Status> {
        let request = request.into_inner();
        if request.join_token != self.token || request.agent.is_empty() {
            return Err(Status::unauthenticated(
                "the join token is unknown, used up, expired or not good for the name",
            ));
        }
        let identity = Identity::Agent(request.agent.parse().unwrap());
        let began = now() - *self.issued_ago.lock().unwrap();
        let issued =
            self.ca.issue_from_csr(&request.certificate_request, &identity, began, AGENT_LIFE).unwrap();
        self.enrolled.lock().unwrap().insert(request.agent.clone(), request.labels);
        Ok(Response::new(v1::EnrollResponse {
            agent: format!("agents/{}", request.agent),
            certificate: issued.cert_pem,
            ca_certificates: self.ca.cert_pem(),
            trust_domain: "example.org".into(),
            expire_time: None,
        }))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        self.renewals.acquire().await.unwrap().forget();
        let v1::RenewRequest { certificate_request, certificate } = request.into_inner();
        assert!(!certificate.contains("PRIVATE KEY"), "a key never travels");
        let old = Identity::from_pem(&certificate, self.ca.trust_domain()).unwrap();
        let csr = CertificateRequest::from_pem(&certificate_request).unwrap();
        assert_eq!(csr.spki_hash(), old.spki_hash, "the key stays");
        let issued = self.ca.issue(&csr, &old.identity, now(), AGENT_LIFE).unwrap();
        Ok(Response::new(v1::RenewResponse {
            certificate: issued.cert_pem,
            ca_certificates: self.ca.cert_pem(),
            expire_time: None,
        }))
    }
}

struct Opener {
    session: mpsc::Sender<Session>,
    refuse: Arc<Mutex<Option<Status>>>,
}

#[tonic::async_trait]
impl SessionService for Opener {
    type OpenSessionStream = ReceiverStream<Result<OpenSessionResponse, Status>>;

    async fn open_session(
        &self,
        request: Request<Streaming<OpenSessionRequest>>,
    ) -> Result<Response<Self::OpenSessionStream>, Status> {
        if let Some(status) = self.refuse.lock().unwrap().clone() {
            return Err(status);
        }
        let mut inbound = request.into_inner();
        let first = inbound.message().await?.and_then(|request| request.message);
        let Some(FromAgent::Hello(hello)) = first else {
            return Err(Status::invalid_argument("the first message is no hello"));
        };
        let (outbound, queue) = mpsc::channel(QUEUE);
        let session = Session { hello, inbound, outbound };
        self.session.send(session).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(queue)))
    }
}

fn accept(listener: TcpListener, tls: TlsAcceptor) -> ReceiverStream<io::Result<Connection>> {
    let (connection, connections) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (tls, connection) = (tls.clone(), connection.clone());
            tokio::spawn(async move {
                // A handshake that fails is the other end's affair.
                if let Ok(stream) = tls.accept(tcp).await {
                    let _ = connection.send(Ok(Connection(stream))).await;
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

/// What tonic wants of a connection.
struct Connection(TlsStream<TcpStream>);

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
