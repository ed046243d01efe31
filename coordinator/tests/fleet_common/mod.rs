//! A coordinator of its own for each test, with its services also on a plain port where the test says who calls:
//! who is who is `rpc/layer.rs`'s matter and tested there.

#![allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "shared by test programs"
)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{net::SocketAddr, time::Duration};

use fleet::{
    agent::{TokenNames, UserRole},
    defaults::Limits,
    engine::Engine,
    id::{AgentUid, Epoch, Name},
    input::{AgentInput, Ask, Input, Person, Reply},
    time::Wall,
};
use mirror_coordinator::{
    Coordinator, Handle,
    config::Config,
    connections::PeerInfo,
    init::{NewFleet, init},
    rpc::{Caller, Proof, Scope, project::Projects, run::Runs, upstream::Upstreams},
    session,
};
use mirror_proto::v1::{
    self, open_session_request::Message as Says, open_session_response::Message as Hears,
    project_service_client::ProjectServiceClient, project_service_server::ProjectServiceServer,
    run_service_client::RunServiceClient, run_service_server::RunServiceServer,
    session_service_client::SessionServiceClient, upstream_service_client::UpstreamServiceClient,
    upstream_service_server::UpstreamServiceServer,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status, Streaming,
    metadata::MetadataValue,
    service::interceptor::InterceptedService,
    transport::{Channel, Server},
};

/// Header by which a test says who calls: `agents/a` or `users/maria`.
const CALLER: &str = "test-caller";
/// Nothing in these tests takes nearly as long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running coordinator.
pub struct Fleet {
    pub handle: Handle,
    pub channel: Channel,
    stop: CancellationToken,
    dir: TempDir,
}

type As = fn(Request<()>) -> Result<Request<()>, Status>;
pub type Projectors = ProjectServiceClient<InterceptedService<Channel, As>>;
pub type Runners = RunServiceClient<InterceptedService<Channel, As>>;

fn as_maria(mut request: Request<()>) -> Result<Request<()>, Status> {
    request.metadata_mut().insert(CALLER, MetadataValue::from_static("users/maria"));
    Ok(request)
}

impl Fleet {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("fleet");
        let wish = NewFleet {
            data_dir: folder.clone(),
            trust_domain: "mirror.test".to_owned(),
            server_names: vec!["localhost".to_owned()],
            grpc_listen: "127.0.0.1:7443".to_owned(),
            http_listen: "127.0.0.1:7480".to_owned(),
            admin: "root".to_owned(),
            agent_roots: Vec::new(),
        };
        init(&wish).await.unwrap();
        Self::start_in(dir).await
    }

    /// Starts on what an earlier coordinator left.
    pub async fn start_in(dir: TempDir) -> Self {
        let folder = dir.path().join("fleet");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        // No stranger's server is behind these projects, so nothing has to wait its turn there.
        let limits = Limits { upstream_spacing: Duration::ZERO, ..Limits::default() };
        let config =
            Config { data_dir: folder, grpc_listen: any, http_listen: any, limits, ..Config::default() };
        let handle = Coordinator::start(config).await.unwrap();
        let listener = TcpListener::bind(any).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve(handle.services().clone(), listener, stop.clone()));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { handle, channel, stop, dir }
    }

    pub fn projects(&self) -> Projectors {
        ProjectServiceClient::with_interceptor(self.channel.clone(), as_maria)
    }

    pub fn runs(&self) -> Runners {
        RunServiceClient::with_interceptor(self.channel.clone(), as_maria)
    }

    pub fn upstreams(&self) -> UpstreamServiceClient<InterceptedService<Channel, As>> {
        UpstreamServiceClient::with_interceptor(self.channel.clone(), as_maria)
    }

    pub fn runs_service(&self) -> Runs {
        Runs::new(self.handle.services().clone())
    }

    /// Enters an agent as if it had enrolled.
    pub async fn enrol(&self, name: &str) -> AgentUid {
        let driver = &self.handle.services().driver;
        let name: Name = name.parse().unwrap();
        let hash = format!("hash of {name}");
        let ask = Ask::CreateJoinToken {
            id: format!("t-{name}"),
            hash: hash.clone(),
            names: TokenNames::One(name.clone()),
            networks: Vec::new(),
            uses: 1,
            ttl: Duration::from_secs(600),
        };
        let made = driver.ask(Input::Person(Person { by: "root".to_owned(), ask })).await.unwrap();
        assert_eq!(made, Reply::Done);
        let enroll = AgentInput::Enroll {
            token_hash: hash,
            name,
            labels: Default::default(),
            key_hash: "k".to_owned(),
            serial: "01".to_owned(),
            expires: Wall(i64::MAX / 2),
            from: None,
        };
        let Reply::Agent(uid) = driver.ask(Input::Agent(enroll)).await.unwrap() else {
            panic!("not enrolled")
        };
        uid
    }

    /// Opens a session without a word.
    pub async fn open(&self, caller: &str, first: Vec<Says>) -> Result<Talk, Status> {
        let (say, said) = mpsc::channel(2_048);
        for message in first {
            say.send(v1::OpenSessionRequest { message: Some(message) }).await.unwrap();
        }
        let mut request = Request::new(ReceiverStream::new(said));
        request.metadata_mut().insert(CALLER, caller.parse().unwrap());
        let mut client = SessionServiceClient::new(self.channel.clone());
        let answer = timeout(PATIENCE, client.open_session(request)).await.expect("an answer in time");
        answer.map(|answer| Talk { say: Some(say), heard: answer.into_inner(), epoch: Epoch::default() })
    }

    /// Says hello for an agent that holds nothing, and hears the welcome.
    pub async fn connect(&self, agent: &str) -> Talk {
        let mut talk = self.open(&format!("agents/{agent}"), vec![hello(&[])]).await.unwrap();
        let Hears::Welcome(welcome) = talk.hear().await else { panic!("no welcome") };
        assert_eq!(welcome.agent, format!("agents/{agent}"));
        let epoch = welcome.session_epoch.unwrap();
        talk.epoch = Epoch { term: epoch.term, counter: epoch.counter };
        talk
    }

    /// Declares a manual project on an agent.
    pub async fn declare(&self, name: &str, agent: &str) -> v1::Project {
        let request = v1::CreateProjectRequest { project: Some(project(name, agent)), ..Default::default() };
        self.projects().create_project(request).await.unwrap().into_inner()
    }

    pub async fn run(&self, name: &str) -> v1::RunProjectResponse {
        let request = v1::RunProjectRequest { name: format!("projects/{name}"), ..Default::default() };
        self.projects().run_project(request).await.unwrap().into_inner()
    }

    pub async fn newest_run(&self, name: &str) -> v1::Run {
        let request = v1::GetRunRequest { name: format!("projects/{name}/runs/-") };
        self.runs().get_run(request).await.unwrap().into_inner()
    }

    /// Waits until the view shows it.
    pub async fn until(&self, what: &str, fits: impl Fn(&Engine) -> bool) {
        let driver = &self.handle.services().driver;
        let mut changes = driver.changes();
        let wait = async {
            loop {
                changes.mark_unchanged();
                if fits(&driver.view()) {
                    return;
                }
                changes.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not seen in time: {what}"));
    }

    pub async fn end(self) {
        drop(self.stop().await);
    }

    /// An orderly stop; what it leaves is for the next start.
    pub async fn stop(self) -> TempDir {
        self.stop.cancel();
        drop(self.channel);
        timeout(PATIENCE, self.handle.drain()).await.expect("an orderly stop in time");
        self.dir
    }
}

async fn serve(services: mirror_coordinator::Services, listener: TcpListener, stop: CancellationToken) {
    let known = services.clone();
    let tell = move |mut request: Request<()>| {
        let caller = request.metadata().get(CALLER).map(|value| value.to_str().unwrap().to_owned()).unwrap();
        let caller = match caller.split_once('/').unwrap() {
            ("agents", name) => {
                let name: Name = name.parse().unwrap();
                let uid = known.driver.view().agent_named(&name).map(|agent| agent.uid).unwrap();
                let address = SocketAddr::from(([127, 0, 0, 1], 1));
                let info = PeerInfo::new(address, None, 1);
                Caller::Agent(uid, name, info)
            }
            (_, name) => Caller::User {
                name: name.parse().unwrap(),
                role: UserRole::Admin,
                scope: Scope::Whole,
                proof: Proof::Certificate { expires: chrono::DateTime::<chrono::Utc>::MAX_UTC },
            },
        };
        request.extensions_mut().insert(caller);
        Ok(request)
    };
    Server::builder()
        .layer(tonic::service::InterceptorLayer::new(tell))
        .add_service(session::service(services.clone()))
        .add_service(ProjectServiceServer::new(Projects::new(services.clone())))
        .add_service(UpstreamServiceServer::new(Upstreams::new(services.clone())))
        .add_service(RunServiceServer::new(Runs::new(services)))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned())
        .await
        .unwrap();
}

/// One session as its agent sees it.
pub struct Talk {
    pub say: Option<mpsc::Sender<v1::OpenSessionRequest>>,
    pub heard: Streaming<v1::OpenSessionResponse>,
    pub epoch: Epoch,
}

impl Talk {
    pub async fn say(&self, message: Says) {
        let request = v1::OpenSessionRequest { message: Some(message) };
        self.say.as_ref().unwrap().send(request).await.unwrap();
    }

    /// The next message, but for standing orders, which may come at any time.
    pub async fn hear(&mut self) -> Hears {
        loop {
            match self.hear_any().await {
                Hears::Autonomy(_) => {}
                other => return other,
            }
        }
    }

    pub async fn hear_any(&mut self) -> Hears {
        let next = timeout(PATIENCE, self.heard.message()).await.expect("a message in time");
        next.unwrap().expect("no end of the stream").message.unwrap()
    }

    /// The next standing orders, whatever comes before them.
    pub async fn orders(&mut self) -> v1::Autonomy {
        loop {
            if let Hears::Autonomy(orders) = self.hear_any().await {
                return orders;
            }
        }
    }

    /// The status that ends the stream, whatever comes before it.
    pub async fn end(&mut self) -> Status {
        loop {
            match timeout(PATIENCE, self.heard.message()).await.expect("an end in time") {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }

    /// The next assignment, whatever comes before it.
    pub async fn assignment(&mut self) -> v1::Assignment {
        loop {
            if let Hears::Assignment(assignment) = self.hear().await {
                return assignment;
            }
        }
    }

    pub async fn accept(&self, assignment: &v1::Assignment) {
        self.say(Says::Accepted(v1::Accepted { key: assignment.key.clone() })).await;
    }

    pub async fn finish(&self, key: &v1::AttemptKey, class: v1::outcome::Class, log: &[u8]) {
        self.say(Says::Ended(ended(key, class, log))).await;
    }

    /// The next acknowledgement: whether it is of a fenced report.
    pub async fn acknowledged(&mut self) -> bool {
        loop {
            if let Hears::Acknowledge(acknowledge) = self.hear().await {
                return acknowledge.fenced;
            }
        }
    }
}

pub fn ended(key: &v1::AttemptKey, class: v1::outcome::Class, log: &[u8]) -> v1::Ended {
    let outcome = v1::Outcome {
        class: class.into(),
        exit_code: Some(0),
        end_time: Some(prost_types::Timestamp { seconds: 1_795_160_520, nanos: 0 }),
        ..Default::default()
    };
    v1::Ended { key: Some(key.clone()), outcome: Some(outcome), log_tail: log.to_vec(), ..Default::default() }
}

pub fn hello(attempts: &[v1::AttemptDescriptor]) -> Says {
    let root = v1::Root {
        name: "a1".to_owned(),
        path: "/srv/mirror".to_owned(),
        total_bytes: 1 << 40,
        free_bytes: 1 << 39,
        total_inodes: 0,
        free_inodes: 0,
    };
    Says::Hello(v1::Hello {
        instance_id: uuid::Uuid::new_v4().to_string(),
        state_id: "7d1c0f0a-0b6b-4a53-9f3e-0f5c0b6f9a11".to_owned(),
        version: "0.1.0".to_owned(),
        rsync_version: "3.5.0".to_owned(),
        attempts: attempts.to_vec(),
        inventory: Some(v1::Inventory { roots: vec![root], certificate_expire_time: None }),
        slots: 4,
        ..Default::default()
    })
}

pub fn project(name: &str, agent: &str) -> v1::Project {
    let upstream = v1::Upstream {
        uri: format!("rsync://{name}.example.net/{name}/"),
        user: "mirror".to_owned(),
        password: Some("hunter2".to_owned()),
        has_password: false,
    };
    v1::Project {
        name: format!("projects/{name}"),
        upstreams: vec![upstream],
        destination: format!("a1:{name}"),
        placement: Some(v1::PlacementSettings {
            origins: vec![v1::PlacementTarget { agent: format!("agents/{agent}"), ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    }
}
