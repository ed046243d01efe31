//! The accept loop alone, with small bounds.

use mirror_certs::{
    CertificateAuthority, Existing, IdentityFiles, KeyPair, ServerFiles, USER_LIFE, client_config,
    write_private, write_public,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client};

use super::*;
use crate::connections::{IDENTITY_CALLS_MAX, IDENTITY_CONNECTIONS_MAX, NOBODY_CALLS_MAX};

/// Nothing in these tests takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(30);

struct Port {
    ca: CertificateAuthority,
    address: SocketAddr,
    incoming: mpsc::Receiver<io::Result<Conn>>,
    connections: Arc<Connections>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _dir: tempfile::TempDir,
}

impl Port {
    async fn open(bounds: Bounds) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = crate::clock::Clock::start().now().wall.to_utc();
        let ca = CertificateAuthority::create("mirror.test".parse().unwrap(), now).unwrap();
        let (server, trusted) = (dir.path().join("server.pem"), dir.path().join("ca.pem"));
        let issued = ca.issue_server(&["127.0.0.1"], now).unwrap();
        write_private(&server, &issued.combined_pem(), Existing::Refuse).unwrap();
        write_public(&trusted, &ca.cert_pem(), Existing::Refuse).unwrap();
        let identity = IdentityFiles { certificate: server.clone(), key: server };
        let acceptor = Acceptor {
            bounds,
            tls: Arc::new(ServerTls::load(ServerFiles { identity, ca: trusted, next_ca: None }).unwrap()),
            trust_domain: ca.trust_domain().clone(),
            connections: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::clone(&acceptor.connections));
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let incoming = acceptor.start(listener, stop.clone(), &mut tasks);
        Self { ca, address, incoming, connections, stop, tasks, _dir: dir }
    }

    async fn dial(&self, user: Option<&str>) -> io::Result<client::TlsStream<TcpStream>> {
        let papers = user.map(|user| {
            let key = KeyPair::generate().unwrap();
            let now = crate::clock::Clock::start().now().wall.to_utc();
            let identity = Identity::User(user.parse().unwrap());
            let issued = self.ca.issue_from_csr(&key.csr_pem().unwrap(), &identity, now, USER_LIFE).unwrap();
            (issued.cert_pem, key.pem())
        });
        let papers = papers.as_ref().map(|(certificate, key)| (certificate.as_str(), key.as_str()));
        let config = client_config(&self.ca.bundle(), papers).unwrap();
        let stream = TcpStream::connect(self.address).await?;
        let name = rustls::pki_types::ServerName::IpAddress(self.address.ip().into());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn accepted(&mut self) -> Conn {
        timeout(PATIENCE, self.incoming.recv()).await.expect("a connection in time").unwrap().unwrap()
    }
}

/// Reads until the other end is gone.
async fn ends(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    // However it ends: what matters is that it does.
    drop(timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end in time"));
}

#[tokio::test]
async fn a_peer_is_read_from_its_certificate_and_cut_by_name() {
    let mut port = Port::open(Bounds::default()).await;
    let mut maria = port.dial(Some("Maria")).await.unwrap();
    let mut accepted = port.accepted().await;
    let info = accepted.connect_info();
    assert_eq!(info.peer.unwrap().identity.to_string(), "user/Maria");
    maria.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    accepted.read_exact(&mut heard).await.unwrap();
    let maria = Identity::User("maria".parse().unwrap());
    assert_eq!(port.connections.count_of(&Identity::User("mario".parse().unwrap())), 0);
    assert_eq!(port.connections.kill(&maria), 1);
    let cut = timeout(PATIENCE, accepted.read(&mut heard)).await.unwrap().unwrap_err();
    assert_eq!(cut.kind(), io::ErrorKind::ConnectionAborted);
    drop(accepted);
    assert_eq!(port.connections.count_of(&maria), 0);
}

#[tokio::test]
async fn silent_peers_hold_up_nobody_and_are_gone_after_the_limit_of_a_handshake() {
    let handshake_timeout = Duration::from_millis(300);
    let mut port = Port::open(Bounds { handshake_timeout, ..Bounds::default() }).await;
    let mut silent = TcpStream::connect(port.address).await.unwrap();
    let _maria = port.dial(Some("maria")).await.unwrap();
    port.accepted().await;
    ends(&mut silent).await;
}

#[tokio::test]
async fn when_all_places_are_taken_the_oldest_silent_peer_goes() {
    let bounds = Bounds { handshakes: 4, handshake_timeout: 2 * PATIENCE, ..Bounds::default() };
    let mut port = Port::open(bounds).await;
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(TcpStream::connect(port.address).await.unwrap());
    }
    let _maria = timeout(PATIENCE, port.dial(Some("maria"))).await.expect("her turn comes").unwrap();
    port.accepted().await;
    // Three keep their places: hers is free again.
    for stream in &mut silent[..9] {
        ends(stream).await;
    }
    let mut heard = [0];
    for stream in &mut silent[9..] {
        assert!(timeout(Duration::from_millis(20), stream.read(&mut heard)).await.is_err());
    }
}

#[tokio::test]
async fn peers_without_a_certificate_are_few_brief_and_do_not_crowd_out_the_others() {
    let bounds = Bounds { nobodies: 1, nobody_life: Duration::from_millis(500), ..Bounds::default() };
    let mut port = Port::open(bounds).await;
    let _first = port.dial(None).await.unwrap();
    let mut first = port.accepted().await;
    assert!(first.connect_info().peer.is_none());
    let _second = port.dial(None).await.unwrap();
    let mut second = port.accepted().await;
    ends(&mut first).await;
    let _maria = port.dial(Some("maria")).await.unwrap();
    assert!(port.accepted().await.connect_info().peer.is_some());
    // The second one has nothing to say, and its time is over.
    ends(&mut second).await;
}

#[tokio::test]
async fn without_a_certificate_little_can_be_sent() {
    let mut port = Port::open(Bounds::default()).await;
    for (user, all) in [(None, false), (Some("maria"), true)] {
        let mut far = port.dial(user).await.unwrap();
        let mut near = port.accepted().await;
        let sending =
            tokio::spawn(async move { far.write_all(&[0; 2 * NOBODY_BYTES_MAX]).await.map(|()| far) });
        let mut heard = vec![0; 2 * NOBODY_BYTES_MAX];
        let read = timeout(PATIENCE, near.read_exact(&mut heard)).await.unwrap();
        assert_eq!(read.is_ok(), all, "{read:?}");
        drop(near);
        drop(sending.await.unwrap());
    }
}

#[tokio::test]
async fn one_identity_has_so_many_connections_and_loses_its_oldest() {
    let mut port = Port::open(Bounds::default()).await;
    let (mut far_ends, mut open) = (Vec::new(), Vec::new());
    for _ in 0..=IDENTITY_CONNECTIONS_MAX {
        far_ends.push(port.dial(Some("maria")).await.unwrap());
        open.push(port.accepted().await);
    }
    // They are not over yet, and two more come.
    for _ in 0..2 {
        far_ends.push(port.dial(Some("maria")).await.unwrap());
        open.push(port.accepted().await);
    }
    for _ in 0..3 {
        let mut oldest = open.remove(0);
        ends(&mut oldest).await;
    }
    let maria = Identity::User("maria".parse().unwrap());
    assert_eq!(port.connections.count_of(&maria), IDENTITY_CONNECTIONS_MAX);
    assert!(open.iter().all(|conn| !conn.connect_info().kill.is_cancelled()));
    drop(open);
    assert_eq!((port.connections.count_of(&maria), port.connections.len()), (0, 0));
}

#[tokio::test]
async fn a_token_makes_a_connection_one_of_its_users() {
    let bounds = Bounds { nobodies: 1, nobody_life: Duration::from_millis(500), ..Bounds::default() };
    let mut port = Port::open(bounds).await;
    let maria = Identity::User("maria".parse().unwrap());
    let mut far = port.dial(None).await.unwrap();
    let mut near = port.accepted().await;
    let info = near.connect_info();
    assert_eq!((info.is_nobody(), info.calls().available_permits()), (true, NOBODY_CALLS_MAX));
    info.vouch(&maria);
    info.vouch(&Identity::User("mario".parse().unwrap()));
    assert_eq!((info.is_nobody(), info.calls().available_permits()), (false, IDENTITY_CALLS_MAX));
    assert_eq!(port.connections.count_of(&maria), 1);

    // Her place is free, and the end of the next stranger's life is none of hers.
    let _stranger = port.dial(None).await.unwrap();
    let mut stranger = port.accepted().await;
    ends(&mut stranger).await;
    let sending = tokio::spawn(async move { far.write_all(&[0; 2 * NOBODY_BYTES_MAX]).await.map(|()| far) });
    let mut heard = vec![0; 2 * NOBODY_BYTES_MAX];
    timeout(PATIENCE, near.read_exact(&mut heard)).await.unwrap().unwrap();
    let _far = sending.await.unwrap().unwrap();

    assert_eq!(port.connections.kill(&maria), 1);
    ends(&mut near).await;
    drop(near);
    assert_eq!(port.connections.count_of(&maria), 0);
    // Too late: it is counted nowhere.
    let _late = port.dial(None).await.unwrap();
    let late = port.accepted().await.connect_info();
    late.vouch(&maria);
    assert_eq!((late.is_nobody(), port.connections.count_of(&maria)), (false, 0));
}

#[tokio::test]
async fn the_loop_ends_when_it_is_told_and_closes_its_socket() {
    let mut port = Port::open(Bounds::default()).await;
    port.stop.cancel();
    timeout(PATIENCE, port.tasks.join_next()).await.expect("an end in time").unwrap().unwrap();
    assert!(port.incoming.recv().await.is_none());
    assert_eq!(TcpStream::connect(port.address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}
