//! Who speaks for what is not his: another agent, a stranger with a certificate of his own making, a user, an agent
//! of yesterday, a coordinator of yesterday. A session client written by hand, against the real coordinator; each
//! time nothing is changed.

use std::{fs, path::Path, sync::Arc, time::Duration};

use fleet_tests::{Fleet, FleetOptions, Process, eventually, fleet::TRUST_DOMAIN, tree};
use hyper_util::rt::TokioIo;
use mirror_certs::{AGENT_LIFE, CaBundle, CertificateAuthority, Identity, KeyPair, client_config};
use mirror_proto::v1::{
    self, open_session_request::Message as Says, open_session_response::Message as Hears, outcome::Class,
    session_service_client::SessionServiceClient,
};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};

/// Nothing that is waited for takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages that wait to be sent.
const OUTBOX_LEN: usize = 64;

/// Certificate and key, PEM.
pub(crate) struct Papers(pub(crate) String, pub(crate) String);

impl Papers {
    /// What an agent got when it enrolled: both in one file.
    pub(crate) fn of_agent(fleet: &Fleet, index: usize) -> Self {
        let both = fs::read_to_string(fleet.agent_dir(index).join("identity.pem")).expect("an identity");
        Self(both.clone(), both)
    }

    /// What a stranger makes for himself: all names are right, the CA is his own.
    fn of_a_stranger(agent: &str) -> Self {
        let now = chrono::Utc::now();
        let ca = CertificateAuthority::create(TRUST_DOMAIN.parse().expect("a domain"), now).expect("a CA");
        let key = KeyPair::generate().expect("a key");
        let identity = Identity::Agent(agent.parse().expect("a name"));
        let request = key.csr_pem().expect("a request");
        let issued = ca.issue_from_csr(&request, &identity, now, AGENT_LIFE).expect("a certificate");
        Self(issued.cert_pem, key.pem().to_string())
    }
}

/// One session, from the agent's end.
pub(crate) struct Talk {
    say: mpsc::Sender<v1::OpenSessionRequest>,
    hear: Streaming<v1::OpenSessionResponse>,
}

impl Talk {
    /// Dials, says hello and takes the welcome.
    pub(crate) async fn begin(fleet: &Fleet, papers: Option<&Papers>) -> Result<Self, Status> {
        let channel = dial(fleet, papers).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let (say, said) = mpsc::channel(OUTBOX_LEN);
        let root = v1::Root {
            name: "a1".to_owned(),
            path: fleet.root(0).display().to_string(),
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
            ..v1::Root::default()
        };
        let hello = v1::Hello {
            instance_id: "018f3f6e-8d2c-7b1a-9c55-0123456789ab".to_owned(),
            state_id: "018f3f6e-8d2c-7b1a-9c55-ba9876543210".to_owned(),
            version: "by hand".to_owned(),
            rsync_version: "3.4.1".to_owned(),
            slots: 8,
            inventory: Some(v1::Inventory { roots: vec![root], certificate_expire_time: None }),
            ..v1::Hello::default()
        };
        let mut talk = {
            say.try_send(v1::OpenSessionRequest { message: Some(Says::Hello(hello)) }).expect("room");
            let mut client = SessionServiceClient::new(channel);
            let opened = timeout(PATIENCE, client.open_session(ReceiverStream::new(said)));
            Self { say, hear: opened.await.expect("an answer in time")?.into_inner() }
        };
        match talk.next().await? {
            Hears::Welcome(_) => Ok(talk),
            other => panic!("the first message is no welcome: {other:?}"),
        }
    }

    async fn say(&self, message: Says) {
        self.say.send(v1::OpenSessionRequest { message: Some(message) }).await.expect("the session is open");
    }

    async fn next(&mut self) -> Result<Hears, Status> {
        let heard = timeout(PATIENCE, self.hear.message()).await.expect("a message in time")?;
        heard.and_then(|response| response.message).ok_or_else(|| Status::cancelled("the session has ended"))
    }

    async fn assignment(&mut self) -> v1::Assignment {
        loop {
            if let Hears::Assignment(assignment) = self.next().await.expect("the session is open") {
                return assignment;
            }
        }
    }

    /// Reports an end, and says whether the acknowledgement of it is a fenced one.
    async fn ends_fenced(&mut self, key: &v1::AttemptKey, class: Class) -> bool {
        let outcome = v1::Outcome {
            class: class.into(),
            cause: "forged".to_owned(),
            end_time: Some(prost_types::Timestamp { seconds: chrono::Utc::now().timestamp(), nanos: 0 }),
            ..v1::Outcome::default()
        };
        let ended = v1::Ended {
            key: Some(key.clone()),
            outcome: Some(outcome),
            log_tail: b"forged\n".to_vec(),
            ..v1::Ended::default()
        };
        self.say(Says::Ended(ended)).await;
        loop {
            if let Hears::Acknowledge(acknowledge) = self.next().await.expect("the session is open") {
                assert_eq!(acknowledge.key.as_ref(), Some(key));
                return acknowledge.fenced;
            }
        }
    }
}

async fn dial(fleet: &Fleet, papers: Option<&Papers>) -> Result<Channel, tonic::transport::Error> {
    let ca = fs::read_to_string(fleet.admin_dir().join("ca.pem")).expect("the fleet's CA");
    let identity = papers.map(|Papers(certificate, key)| (certificate.as_str(), key.as_str()));
    let config =
        client_config(&CaBundle::from_pem(&ca).expect("a bundle"), identity).expect("a configuration");
    let (connector, server) = (TlsConnector::from(Arc::new(config)), fleet.server());
    let name = ServerName::IpAddress(std::net::IpAddr::from(fleet.address()).into());
    let connect = tower::service_fn(move |_| {
        let (connector, server, name) = (connector.clone(), server.clone(), name.clone());
        async move { connector.connect(name, TcpStream::connect(server).await?).await.map(TokioIo::new) }
    });
    let origin = format!("https://{}", fleet.server()).parse().expect("an origin");
    Endpoint::from_static("http://coordinator").origin(origin).connect_with_connector(connect).await
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// What must not change: the newest run with its attempts, without how far it is.
fn picture(fleet: &Fleet, project: &str) -> Value {
    let mut run = fleet.newest_run(project);
    run["origin_attempt"]["progress"].take();
    for attempt in run["attempts"].as_array_mut().into_iter().flatten() {
        attempt["progress"].take();
    }
    run
}

fn key_of(run: &Value) -> v1::AttemptKey {
    let attempt = &run["origin_attempt"];
    let number = |name: &str| attempt["epoch"][name].as_u64().expect("a number");
    let name = attempt["name"].as_str().expect("a name");
    v1::AttemptKey {
        run: name.split('/').nth(3).expect("a run").to_owned(),
        attempt: name.rsplit('/').next().and_then(|number| number.parse().ok()).expect("a number"),
        epoch: Some(v1::Epoch { term: number("term"), counter: number("counter") }),
    }
}

#[test]
fn an_agent_cannot_speak_of_anothers_attempt() {
    let agents = vec!["edge1".to_owned(), "edge2".to_owned()];
    let options = FleetOptions { agents, files: 200, file_bytes: 16_384, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options).expect("a fleet starts");
    fleet.kill_agent(1);
    fleet.add_project("debian", &["--rsync-option=--bwlimit=1000"]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    fleet.await_run("debian", "RUNNING");
    eventually("edge1 has taken it", || {
        (picture(&fleet, "debian")["origin_attempt"]["state"] == "RUNNING").then_some(())
    });
    let before = picture(&fleet, "debian");
    let key = key_of(&before);
    run(async {
        let mut talk =
            Talk::begin(&fleet, Some(&Papers::of_agent(&fleet, 1))).await.expect("edge2's session");
        let progress = v1::Progress { percent: Some(99), ..v1::Progress::default() };
        let attempts = vec![v1::AttemptProgress { key: Some(key.clone()), progress: Some(progress) }];
        talk.say(Says::Progress(v1::ProgressReport { attempts })).await;
        talk.say(Says::Accepted(v1::Accepted { key: Some(key.clone()) })).await;
        let reason = v1::refused::Reason::NotAllowed.into();
        let detail = "forged".to_owned();
        talk.say(Says::Refused(v1::Refused { key: Some(key.clone()), reason, detail })).await;
        assert!(talk.ends_fenced(&key, Class::Ok).await, "it is told, so that it forgets");
        assert!(talk.ends_fenced(&key, Class::Cancelled).await);
    });
    assert_eq!(picture(&fleet, "debian"), before, "nothing is changed by it");
    assert_ne!(fleet.newest_run("debian")["origin_attempt"]["progress"]["percent"], 99);
    let output = fleet.coordinator.as_ref().map(Process::output).unwrap_or_default();
    assert!(output.contains("reports on another agent's attempt"), "it is told to the administrator");

    let done = fleet.await_run("debian", "SUCCEEDED");
    assert_eq!(done["attempt_count"], 1, "{done}");
    assert_eq!(done["origin_attempt"]["agent"], "agents/edge1", "{done}");
    assert!(!fleet.mirrorctl(&["run", "log", "debian"]).ok().stdout.contains("forged"));
}

#[test]
fn strangers_and_users_open_no_session() {
    let fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    let before = fleet.json(&["agent", "show", "edge1"]);
    let refused = |papers: Option<Papers>| {
        let begun = run(Talk::begin(&fleet, papers.as_ref()));
        begun.err().unwrap_or_else(|| panic!("a session was opened"))
    };
    // The handshake itself fails: who is no one of this fleet is told nothing, and sees a connection that ends.
    let stranger = refused(Some(Papers::of_a_stranger("edge1")));
    assert!(
        std::error::Error::source(&stranger).is_some_and(|cause| cause.is::<tonic::transport::Error>())
            || stranger.code() == Code::Unavailable,
        "{stranger}"
    );
    let nobody = refused(None);
    assert!(matches!(nobody.code(), Code::Unauthenticated | Code::PermissionDenied), "{nobody}");
    let read = |name: &str| fs::read_to_string(fleet.admin_dir().join(name)).expect("the admin's papers");
    let admin = refused(Some(Papers(read("admin.pem"), read("admin.key"))));
    assert_eq!(admin.code(), Code::PermissionDenied, "{admin}");

    // The true one has not even noticed.
    let after = fleet.json(&["agent", "show", "edge1"]);
    assert_eq!(
        (&after["connected"], &after["connect_time"]),
        (&before["connected"], &before["connect_time"])
    );
    let output = fleet.agents[0].as_ref().map(Process::output).unwrap_or_default();
    assert_eq!(output.matches("connected").count(), 1, "{output}");
}

#[test]
fn a_report_under_an_older_epoch_changes_nothing() {
    let mut fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    let papers = Papers::of_agent(&fleet, 0);
    fleet.kill_agent(0);
    fleet.add_project("debian", &["--retry-attempts", "1"]).ok();
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    run(async {
        let mut lost = Talk::begin(&fleet, Some(&papers)).await.expect("a session");
        let old = lost.assignment().await.key.expect("a key");
        // The offer is lost with its session, and made again under an epoch of its own.
        drop(lost);
        let mut talk = Talk::begin(&fleet, Some(&papers)).await.expect("a session");
        let new = talk.assignment().await.key.expect("a key");
        assert_eq!((&old.run, old.attempt), (&new.run, new.attempt), "the same attempt");
        assert_ne!(old.epoch, new.epoch);

        let offered = picture(&fleet, "debian");
        talk.say(Says::Accepted(v1::Accepted { key: Some(old.clone()) })).await;
        assert!(talk.ends_fenced(&old, Class::Ok).await);
        assert_eq!(picture(&fleet, "debian"), offered, "nothing is changed by it");

        talk.say(Says::Accepted(v1::Accepted { key: Some(new.clone()) })).await;
        assert!(talk.ends_fenced(&old, Class::Ok).await);
        assert_eq!(fleet.newest_run("debian")["origin_attempt"]["state"], "RUNNING");
        assert!(!talk.ends_fenced(&new, Class::Auth).await, "the true end is taken");
        let failed = picture(&fleet, "debian");
        assert_eq!(failed["state"], "FAILED", "{failed}");
        for late in [&new, &old] {
            assert!(talk.ends_fenced(late, Class::Ok).await);
        }
        assert_eq!(picture(&fleet, "debian"), failed, "an end is final");
    });
    let status = fleet.json(&["project", "show", "debian"]);
    assert!(status["status"]["tree_version"].as_str().unwrap_or_default().is_empty(), "{status}");
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) {
    let mut command = std::process::Command::new("cp");
    fleet_tests::Finished::run(command.arg("-a").arg(from).arg(to)).ok();
}

#[test]
fn a_coordinator_with_an_older_store_is_not_obeyed() {
    let mut fleet = Fleet::start(FleetOptions::default()).expect("a fleet starts");
    fleet.add_project("debian", &[]).ok();
    let (live, old, new) = (fleet.coordinator_dir(), fleet.path().join("old"), fleet.path().join("new"));
    fleet.coordinator.as_mut().expect("it runs").stop();
    fleet.kill_coordinator();
    copy(&live, &old);
    // Two more terms, seen by the agent; the old store will count one of them a second time.
    for _ in 0..2 {
        fleet.start_coordinator().expect("it starts");
        fleet.await_connected("edge1");
        fleet.kill_coordinator();
    }
    fs::rename(&live, &new).expect("it moves");
    copy(&old, &live);

    fleet.start_coordinator().expect("the old one starts");
    fleet.mirrorctl(&["project", "run", "debian"]).ok();
    eventually("the agent does not obey", || {
        let output = fleet.agents[0].as_ref().map(Process::output).unwrap_or_default();
        (output.contains("is not obeyed") && output.contains("its store is an old copy")).then_some(())
    });
    assert_ne!(fleet.json(&["agent", "show", "edge1"])["connected"], true);
    assert_eq!(fleet.newest_run("debian")["state"], "QUEUED");
    assert!(!fleet.root(0).join("debian").exists(), "nothing was begun");
    let waits = fleet.mirrorctl(&["why", "debian"]).ok();
    assert!(waits.stdout.contains("edge1"), "people are told what it waits for: {}", waits.stdout);

    // The true one is put back: its agent comes, and its run is done.
    fleet.kill_coordinator();
    fleet.kill_agent(0);
    fs::rename(&live, fleet.path().join("old-used")).expect("it moves");
    fs::rename(&new, &live).expect("it moves");
    fleet.start_coordinator().expect("the true one starts");
    fleet.start_agent(0).expect("the agent starts");
    fleet.await_connected("edge1");
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    assert_eq!(fleet.runs("debian").len(), 1, "of the old one's run nothing is left");
    let upstream = tree::hash(&fleet.upstream_tree()).expect("a tree");
    assert_eq!(tree::hash(&fleet.root(0).join("debian")).expect("a tree"), upstream);
}
