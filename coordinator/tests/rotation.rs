//! One CA replaces the other while the coordinator runs: who learns what when, who is cut, and what a crash between two
//! steps leaves. And one certificate on two hosts.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod wire_common;

use std::time::{Duration, Instant};

use mirror_certs::{
    CaBundle, CertificateAuthority, Denial, Existing, Identity, PinnedBootstrap, SpkiHash, write_public,
};
use mirror_coordinator::authority::rotation::{self, Cut, RotationError, State};
use mirror_proto::{
    status::Fault,
    v1::{
        self, open_session_request::Message as Says, open_session_response::Message as Hears,
        run_service_client::RunServiceClient, session_service_client::SessionServiceClient,
    },
};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};
use wire_common::{Fleet, PATIENCE, Papers};

/// One session as an agent has it.
struct Talk {
    say: mpsc::Sender<v1::OpenSessionRequest>,
    hear: Streaming<v1::OpenSessionResponse>,
    welcome: v1::Welcome,
}

impl Talk {
    async fn begin(channel: Channel, instance: &str) -> Result<Self, Status> {
        let (say, said) = mpsc::channel(16);
        let hello = v1::Hello {
            instance_id: instance.to_owned(),
            state_id: "018f3f6e-8d2c-7b1a-9c55-ba9876543210".to_owned(),
            version: "test".to_owned(),
            rsync_version: "3.4.1".to_owned(),
            slots: 4,
            ..Default::default()
        };
        say.send(v1::OpenSessionRequest { message: Some(Says::Hello(hello)) }).await.unwrap();
        let mut client = SessionServiceClient::new(channel);
        let mut hear = client.open_session(ReceiverStream::new(said)).await?.into_inner();
        match hear.message().await?.unwrap().message.unwrap() {
            Hears::Welcome(welcome) => Ok(Self { say, hear, welcome }),
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// The next message that `pick` wants; pings are answered meanwhile, as an agent does.
    async fn until<T>(&mut self, pick: impl Fn(Hears) -> Option<T>) -> Result<T, Status> {
        let heard = async {
            loop {
                let heard = self.hear.message().await?.expect("the stream goes on").message.unwrap();
                if let Hears::Ping(ping) = &heard {
                    let pong = Says::Pong(v1::Pong { id: ping.id });
                    self.say.send(v1::OpenSessionRequest { message: Some(pong) }).await.unwrap();
                }
                if let Some(found) = pick(heard) {
                    return Ok(found);
                }
            }
        };
        timeout(PATIENCE, heard).await.expect("something is heard in time")
    }

    async fn trust(&mut self) -> v1::Trust {
        let trust = |heard| if let Hears::Trust(trust) = heard { Some(trust) } else { None };
        self.until(trust).await.unwrap()
    }
}

const ONE: &str = "018f3f6e-8d2c-7b1a-9c55-000000000001";
const OTHER: &str = "018f3f6e-8d2c-7b1a-9c55-000000000002";

fn now(fleet: &Fleet) -> chrono::DateTime<chrono::Utc> {
    fleet.handle.services().driver.now().wall.to_utc()
}

fn state(fleet: &Fleet) -> State {
    rotation::show(&fleet.config, now(fleet)).unwrap()
}

fn left(fleet: &Fleet) -> Vec<String> {
    state(fleet).left.iter().map(|one| rotation::resource(&one.identity)).collect()
}

fn trusted(fleet: &Fleet) -> Vec<SpkiHash> {
    fleet.handle.services().ca.bundle().hashes()
}

fn issuer(fleet: &Fleet, certificate: &str) -> Option<SpkiHash> {
    let ca = &fleet.handle.services().ca;
    ca.bundle().issuer_hash(&Identity::from_pem(certificate, ca.trust_domain()).unwrap())
}

/// The CA whose certificate the port shows to a host that enrols with this hash; `None`: the host goes no further.
async fn shown_to(fleet: &Fleet, pins: &[SpkiHash]) -> Option<SpkiHash> {
    let pinned = PinnedBootstrap::new(pins).unwrap();
    let address = fleet.handle.grpc_address();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::IpAddress(address.ip().into());
    TlsConnector::from(pinned.config()).connect(name, stream).await.ok()?;
    CaBundle::from_pem(&pinned.ca_pem().unwrap()).unwrap().hashes().first().copied()
}

/// A reload that fails on its way has told nobody and cut nothing: the next one has to.
fn fail_to_reload(fleet: &Fleet) {
    let (server, aside) = (fleet.file("server.pem"), fleet.file("server.aside"));
    std::fs::rename(&server, &aside).unwrap();
    std::fs::create_dir(&server).unwrap();
    assert!(fleet.handle.reload(&fleet.config).is_err());
    std::fs::remove_dir(&server).unwrap();
    std::fs::rename(aside, server).unwrap();
}

#[tokio::test]
async fn a_running_fleet_moves_to_a_new_ca_and_whoever_stayed_behind_is_cut() {
    let fleet = Fleet::start().await;
    let old = fleet.handle.services().ca.ca_hash();
    let papers = fleet.enroll("edge1").await;
    let mut talk = Talk::begin(fleet.dial(Some(&papers)).await, ONE).await.unwrap();
    assert_eq!(talk.welcome.trust.as_ref().unwrap().ca_hashes, [old.to_string()]);
    assert!(state(&fleet).is_in_force() && state(&fleet).next.is_none());

    // Both are trusted, and the agent that is here hears of it at once.
    let new = rotation::rotate(&fleet.config, now(&fleet)).unwrap().hash;
    assert!(!state(&fleet).is_in_force(), "nobody has told the coordinator");
    let early = rotation::retire(&fleet.config, &Cut::These(Vec::new()), now(&fleet)).unwrap_err();
    assert!(matches!(early, RotationError::NotInForce), "nobody can have moved: {early}");
    fleet.handle.reload(&fleet.config).unwrap();
    let told = talk.trust().await;
    assert_eq!(
        (told.ca_hashes, told.issuing_ca_hash),
        (vec![old.to_string(), new.to_string()], new.to_string())
    );
    assert!(state(&fleet).is_in_force());
    let again = rotation::rotate(&fleet.config, now(&fleet)).unwrap_err();
    assert!(matches!(again, RotationError::Underway { next, .. } if next == new), "{again}");

    // A host that enrols recognises the fleet by the old hash, alone or beside the new one, and gets what is new.
    assert_eq!(shown_to(&fleet, &[old]).await, Some(old));
    assert_eq!(shown_to(&fleet, &[new, old]).await, Some(old));
    assert_eq!(shown_to(&fleet, &[new]).await, None);
    let token = fleet.token("edge2").await;
    let (answer, _) = fleet.try_enroll(&token, "edge2").await.unwrap();
    assert_eq!(issuer(&fleet, &answer.certificate), Some(new));
    assert_eq!(CaBundle::from_pem(&answer.ca_certificates).unwrap().hashes(), [old, new]);

    // The agent that moved is seen with the new certificate, and only then has it arrived.
    let renewed = fleet.renew(&papers.key, &papers.certificate).await.unwrap();
    assert_eq!(issuer(&fleet, &renewed.certificate), Some(new));
    assert_eq!(CaBundle::from_pem(&renewed.ca_certificates).unwrap().hashes(), [old, new]);
    assert_eq!(left(&fleet), ["agents/edge1", "users/root"]);
    let moved = Papers { certificate: renewed.certificate, key: papers.key.clone() };
    let mut talk = Talk::begin(fleet.dial(Some(&moved)).await, ONE).await.unwrap();
    assert_eq!(left(&fleet), ["users/root"]);

    // The old one is retired only with the word for who is cut by it.
    let refused = rotation::retire(&fleet.config, &Cut::These(Vec::new()), now(&fleet)).unwrap_err();
    assert!(matches!(&refused, RotationError::WouldCut(left) if left.len() == 1), "{refused}");
    let strangers = Cut::These(vec!["users/root".to_owned(), "agents/edge1".to_owned()]);
    let refused = rotation::retire(&fleet.config, &strangers, now(&fleet)).unwrap_err();
    assert!(
        matches!(&refused, RotationError::NotAmongThem(names) if names == &["agents/edge1"]),
        "{refused}"
    );
    assert_eq!(trusted(&fleet), [old, new]);

    let mut admin = fleet.fleet(Some(&fleet.root())).await;
    admin.get_status(v1::GetStatusRequest {}).await.unwrap();
    let cut = Cut::These(vec!["USERS/root".to_owned()]);
    let (root, who) = rotation::retire(&fleet.config, &cut, now(&fleet)).unwrap();
    assert_eq!((root.hash, who.len()), (new, 1));
    admin.get_status(v1::GetStatusRequest {}).await.unwrap();
    fail_to_reload(&fleet);
    let refused = admin.get_status(v1::GetStatusRequest {}).await.unwrap_err();
    assert_eq!(Fault::from(&refused).reason, "CA_RETIRED", "{refused}");
    let began = Instant::now();
    fleet.handle.reload(&fleet.config).unwrap();
    assert_eq!(trusted(&fleet), [new]);
    assert!(
        admin.get_status(v1::GetStatusRequest {}).await.is_err(),
        "what was begun under the old CA is cut"
    );
    println!("cut {:?} after the reload", began.elapsed());
    assert_eq!(talk.trust().await.ca_hashes, [new.to_string()], "the session of the new one goes on");
    assert_eq!((shown_to(&fleet, &[old]).await, shown_to(&fleet, &[new]).await), (None, Some(new)));
    assert!(
        fleet.renew(&papers.key, &papers.certificate).await.is_err(),
        "the old certificate renews nothing"
    );
    fleet.renew(&moved.key, &moved.certificate).await.unwrap();
    let refused = rotation::retire(&fleet.config, &Cut::All, now(&fleet)).unwrap_err();
    assert!(matches!(refused, RotationError::NoRotation), "{refused}");
    fleet.end().await;
}

#[tokio::test]
async fn a_crash_between_any_two_files_is_gone_on_from_by_the_next_start() {
    let fleet = Fleet::start().await;
    let old = fleet.handle.services().ca.ca_hash();
    let new = rotation::rotate(&fleet.config, now(&fleet)).unwrap().hash;
    // Rotated while nothing ran, or killed before the reload.
    let fleet = fleet.restart(|_| {}).await;
    assert_eq!(trusted(&fleet), [old, new]);
    assert!(state(&fleet).is_in_force());

    // Killed after the certificate was put in place, before the key was.
    let before = std::fs::read(fleet.file("ca.key")).unwrap();
    let next = fleet.read("ca-next.pem");
    let next = CertificateAuthority::load(&next, &next).unwrap();
    write_public(&fleet.file("ca.pem"), &next.cert_pem(), Existing::Replace).unwrap();
    assert_eq!((state(&fleet).current.hash, state(&fleet).next), (new, None), "shown before it is mended");
    fleet.handle.reload(&fleet.config).unwrap();
    assert_eq!(trusted(&fleet), [new]);
    assert!(!fleet.file("ca-next.pem").exists());
    assert_ne!(std::fs::read(fleet.file("ca.key")).unwrap(), before);

    // Killed after the key, before the other file was removed.
    std::fs::write(fleet.file("ca-next.pem"), next.combined_pem().as_bytes()).unwrap();
    std::fs::set_permissions(fleet.file("ca-next.pem"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    // And before the server had its certificate of the new CA: one of the old is of no use to anybody.
    let fleet = fleet.restart(|_| {}).await;
    assert_eq!(trusted(&fleet), [new]);
    assert!(!fleet.file("ca-next.pem").exists());
    assert_eq!(shown_to(&fleet, &[new]).await, Some(new));
    fleet.end().await;
}

#[tokio::test]
async fn a_bad_next_ca_is_refused_and_what_was_in_force_stays() {
    let fleet = Fleet::start().await;
    let old = fleet.handle.services().ca.ca_hash();
    rotation::rotate(&fleet.config, now(&fleet)).unwrap();
    let good = fleet.read("ca-next.pem");
    for bad in ["", "garbage", &good[..good.len() / 2]] {
        std::fs::write(fleet.file("ca-next.pem"), bad).unwrap();
        assert!(fleet.handle.reload(&fleet.config).is_err(), "{bad}");
        assert_eq!(trusted(&fleet), [old]);
        fleet.fleet(Some(&fleet.root())).await.get_status(v1::GetStatusRequest {}).await.unwrap();
    }
    std::fs::write(fleet.file("ca-next.pem"), good).unwrap();
    fleet.handle.reload(&fleet.config).unwrap();
    assert_eq!(trusted(&fleet).len(), 2);
    fleet.end().await;
}

#[tokio::test]
async fn a_copy_of_an_agent_is_refused_while_the_original_is_alive_and_shown() {
    let fleet = Fleet::start().await;
    let papers = fleet.enroll("edge1").await;
    let mut here = Talk::begin(fleet.dial(Some(&papers)).await, ONE).await.unwrap();
    let listening = tokio::spawn(async move {
        let end = here.until(|_| None::<()>).await;
        (here, end)
    });
    for _ in 0..2 {
        let refused = Talk::begin(fleet.dial(Some(&papers)).await, OTHER).await.err().unwrap();
        let fault = Fault::from(&refused);
        assert_eq!((fault.code, fault.reason.as_str()), (Code::PermissionDenied, "DUPLICATE_IDENTITY"));
        assert!(refused.message().contains("by another program at 127.0.0.1"), "{refused}");
    }
    let mut agents = fleet.agents(Some(&fleet.root())).await;
    let request = v1::GetAgentRequest { name: "agents/edge1".to_owned() };
    let shown = agents.get_agent(request.clone()).await.unwrap().into_inner();
    let duplicate = shown.duplicate.unwrap();
    assert_eq!((shown.address.as_str(), duplicate.address.as_str()), ("127.0.0.1", "127.0.0.1"));
    assert!(shown.connected && duplicate.refusals == 2 && duplicate.since.is_some());

    // The same program may come anew at any time: its first session is succeeded.
    assert!(!listening.is_finished(), "nobody threw it out");
    let mut again = Talk::begin(fleet.dial(Some(&papers)).await, ONE).await.unwrap();
    let (_here, end) = timeout(PATIENCE, listening).await.unwrap().unwrap();
    assert_eq!(end.unwrap_err().code(), Code::Aborted);
    // One that says nothing any more makes room, as after a power cut: nobody answers the ping.
    let began = Instant::now();
    Talk::begin(fleet.dial(Some(&papers)).await, OTHER).await.unwrap();
    assert!(began.elapsed() >= mirror_coordinator::twins::SIGN_WAIT_MAX);
    let over = async { while let Ok(Some(_)) = again.hear.message().await {} };
    timeout(PATIENCE, over).await.expect("the silent one's session is over");
    fleet.end().await;
}

#[tokio::test]
async fn a_user_who_is_shut_out_loses_a_stream_that_is_open_within_a_second() {
    let fleet = Fleet::start().await;
    let maria = fleet.user("maria", fleet::agent::UserRole::Viewer).await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(fleet.dial(Some(&maria)).await);
    let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
    let mut stream = health.watch(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();

    let identity = Identity::User("Maria".parse().unwrap());
    let began = Instant::now();
    fleet.handle.services().shut_out(&identity).await.unwrap();
    let ended = timeout(PATIENCE, stream.message()).await.unwrap();
    let took = began.elapsed();
    println!("cut after {took:?}");
    assert!(ended.is_err() && took < Duration::from_secs(1), "{ended:?} {took:?}");
    let refused = fleet.fleet(Some(&maria)).await.get_status(v1::GetStatusRequest {}).await.unwrap_err();
    assert_eq!(Fault::from(&refused).reason, "CERTIFICATE_REVOKED");
    let fleet = fleet.restart(|_| {}).await;
    let refused = RunServiceClient::new(fleet.dial(Some(&maria)).await)
        .get_run(v1::GetRunRequest { name: "projects/debian".to_owned() })
        .await
        .unwrap_err();
    assert_eq!(Fault::from(&refused).reason, "CERTIFICATE_REVOKED", "a denial is for ever");
    let denied =
        fleet.handle.services().deny.deny(&Denial::User("maria".parse().unwrap()), now(&fleet)).unwrap();
    assert!(!denied, "it was written down");
    fleet.end().await;
}
