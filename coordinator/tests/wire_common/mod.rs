//! A coordinator in this process, on ports of its own, dialled over mutual TLS as agents and users do.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use fleet::{
    agent::{PasswordHash, UserRole},
    id::Name,
    input::{Ask, Input, Person, Reply, UserAsk},
};
use hyper_util::rt::TokioIo;
use mirror_certs::{CaBundle, Identity, KeyPair, USER_LIFE, UserToken, client_config};
use mirror_coordinator::{
    Coordinator, Handle, Services, StartOptions,
    config::Config,
    init::{NewFleet, init},
    rpc::{By, gate::token_id},
};
use mirror_proto::v1::{
    self, agent_service_client::AgentServiceClient, enrollment_service_client::EnrollmentServiceClient,
    fleet_service_client::FleetServiceClient,
};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

/// Nothing in these tests takes nearly as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long before its time a pusher's pace is used up.
pub(crate) const AHEAD: Duration = Duration::from_secs(3_600);

/// Certificate and key, PEM.
#[derive(Debug, Clone)]
pub(crate) struct Papers {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

pub(crate) struct Fleet {
    pub(crate) handle: Handle,
    pub(crate) config: Config,
    pub(crate) dir: TempDir,
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        Self::start_with(StartOptions::default(), |_| {}).await
    }

    pub(crate) async fn start_with(options: StartOptions, adapt: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("fleet");
        let wish = NewFleet {
            data_dir: folder.clone(),
            trust_domain: "mirror.test".to_owned(),
            server_names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            grpc_listen: "127.0.0.1:7443".to_owned(),
            http_listen: "127.0.0.1:7480".to_owned(),
            admin: "root".to_owned(),
            agent_roots: Vec::new(),
        };
        init(&wish).await.unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = Config {
            data_dir: folder,
            server_names: wish.server_names,
            grpc_listen: any,
            http_listen: any,
            ..Config::default()
        };
        adapt(&mut config);
        let handle = Coordinator::start_with(config.clone(), options).await.unwrap();
        Self { handle, config, dir }
    }

    /// Stops in order and starts again; `between` may touch the files.
    pub(crate) async fn restart(self, between: impl FnOnce(&Config)) -> Self {
        let Self { handle, config, dir } = self;
        handle.drain().await;
        between(&config);
        let handle = Coordinator::start(config.clone()).await.unwrap();
        Self { handle, config, dir }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.config.file(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }

    pub(crate) fn root(&self) -> Papers {
        Papers { certificate: self.read("admin/admin.pem"), key: self.read("admin/admin.key") }
    }

    /// Enters a user and makes his certificate.
    pub(crate) async fn user(&self, name: &str, role: UserRole) -> Papers {
        let user = UserAsk::Create { name: name.parse().unwrap(), role, password: None };
        assert_eq!(self.ask_user(user).await, Reply::Done);
        self.papers(&Identity::User(name.parse().unwrap()))
    }

    /// Asks the engine for something about users, as an admin would.
    pub(crate) async fn ask_user(&self, ask: UserAsk) -> Reply {
        let person = Person { by: "root".to_owned(), ask: Ask::User(ask) };
        self.handle.services().driver.ask(Input::Person(person)).await.unwrap()
    }

    /// A token of a user, as a login would make it; good for `ttl` from now.
    pub(crate) async fn user_token(&self, name: &str, ttl: Duration) -> String {
        let user: Name = name.parse().unwrap();
        let old = self.handle.services().driver.view().user(&user).unwrap().password.clone();
        let password = PasswordHash("$argon2id$test".to_owned());
        if old.is_none() {
            let (user, password) = (user.clone(), password.clone());
            let set = UserAsk::SetPassword { user, password, old: None, reset: false };
            assert_eq!(self.ask_user(set).await, Reply::Done);
        }
        let token = UserToken::generate().unwrap();
        let (hash, from) = (token.hash(), "test".to_owned());
        let id = token_id(&hash).to_owned();
        let login = UserAsk::LogIn { user, password: old.unwrap_or(password), id, hash, ttl, from };
        assert_eq!(self.ask_user(login).await, Reply::Done);
        token.reveal().to_owned()
    }

    /// A certificate of the fleet's CA for anybody.
    pub(crate) fn papers(&self, identity: &Identity) -> Papers {
        self.earlier_papers(identity, Duration::ZERO)
    }

    /// [`Self::papers`] as they were made so long ago.
    pub(crate) fn earlier_papers(&self, identity: &Identity, age: Duration) -> Papers {
        let services = self.handle.services();
        let key = KeyPair::generate().unwrap();
        let made = services.driver.now().wall.to_utc() - age;
        let issued = services.ca.issue_from_csr(&key.csr_pem().unwrap(), identity, made, USER_LIFE).unwrap();
        Papers { certificate: issued.cert_pem, key: key.pem().to_string() }
    }

    pub(crate) async fn dial(&self, papers: Option<&Papers>) -> Channel {
        dial(self.handle.grpc_address(), &self.read("ca.pem"), papers).await.unwrap()
    }

    pub(crate) async fn agents(&self, papers: Option<&Papers>) -> AgentServiceClient<Channel> {
        AgentServiceClient::new(self.dial(papers).await)
    }

    pub(crate) async fn fleet(&self, papers: Option<&Papers>) -> FleetServiceClient<Channel> {
        FleetServiceClient::new(self.dial(papers).await)
    }

    /// A join token for this name.
    pub(crate) async fn token(&self, agent: &str) -> String {
        let request = v1::CreateJoinTokenRequest { agent: agent.to_owned(), ..Default::default() };
        self.agents(Some(&self.root())).await.create_join_token(request).await.unwrap().into_inner().token
    }

    pub(crate) async fn try_enroll(
        &self,
        token: &str,
        agent: &str,
    ) -> Result<(v1::EnrollResponse, Papers), Status> {
        let key = KeyPair::generate().unwrap();
        let request = v1::EnrollRequest {
            join_token: token.to_owned(),
            agent: agent.to_owned(),
            certificate_request: key.csr_pem().unwrap(),
            ..Default::default()
        };
        let mut client = EnrollmentServiceClient::new(self.dial(None).await);
        let answer = client.enroll(request).await?.into_inner();
        let papers = Papers { certificate: answer.certificate.clone(), key: key.pem().to_string() };
        Ok((answer, papers))
    }

    /// Enrols an agent as a host would.
    pub(crate) async fn enroll(&self, agent: &str) -> Papers {
        let token = self.token(agent).await;
        self.try_enroll(&token, agent).await.unwrap().1
    }

    /// Asks for the next certificate as an agent does: without showing the old one in the handshake.
    pub(crate) async fn renew(&self, key: &str, certificate: &str) -> Result<v1::RenewResponse, Status> {
        let request = v1::RenewRequest {
            certificate_request: KeyPair::from_pem(key).unwrap().csr_pem().unwrap(),
            certificate: certificate.to_owned(),
        };
        let mut client = EnrollmentServiceClient::new(self.dial(None).await);
        client.renew(request).await.map(tonic::Response::into_inner)
    }

    /// Has a push token use up its pace for a project, for [`AHEAD`] from now: however long the test takes, no push of it
    /// comes back meanwhile.
    pub(crate) fn exhaust(&self, project: &str, token: &str) {
        let Services { driver, pushes, .. } = self.handle.services();
        let uid = driver.view().project_named(&project.parse().unwrap()).unwrap().record.uid;
        let by = By::push_token(token.trim_start_matches("pushTokens/"));
        let later = driver.now().mono.plus(AHEAD);
        while pushes.take(later, uid, &by).is_ok() {}
    }

    pub(crate) async fn end(self) {
        tokio::time::timeout(PATIENCE, self.handle.drain()).await.expect("an orderly stop in time");
    }
}

/// A connection over the coordinator's own socket.
pub(crate) async fn dial_socket(path: PathBuf) -> Result<Channel, tonic::transport::Error> {
    let connect = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://coordinator").connect_with_connector(connect).await
}

/// A request with a token.
pub(crate) fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// A connection as agents and users have it: TLS 1.3, our CA only.
pub(crate) async fn dial(
    address: SocketAddr,
    ca: &str,
    papers: Option<&Papers>,
) -> Result<Channel, tonic::transport::Error> {
    let identity = papers.map(|papers| (papers.certificate.as_str(), papers.key.as_str()));
    let config = client_config(&CaBundle::from_pem(ca).unwrap(), identity).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = address.ip().into();
            connector.connect(rustls::pki_types::ServerName::IpAddress(name), stream).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_static("http://coordinator").origin("https://coordinator".parse().unwrap());
    endpoint.connect_with_connector(connect).await
}
