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
            tls: Arc::new(ServerTls::load(ServerFiles { identity, ca: trusted }).unwrap()),
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
async fn silent_peers_hold_up_others_no_longer_than_the_limit_of_a_handshake() {
    let bounds = Bounds { handshakes: 2, handshake_timeout: Duration::from_millis(300), ..Bounds::default() };
    let mut port = Port::open(bounds).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpStream::connect(port.address).await.unwrap());
    }
    let maria = timeout(PATIENCE, port.dial(Some("maria"))).await.expect("her turn comes").unwrap();
    port.accepted().await;
    for stream in &mut silent {
        ends(stream).await;
    }
    drop(maria);
}

#[tokio::test]
async fn when_all_places_are_taken_silent_peers_go_early() {
    let crowded_timeout = Duration::from_millis(100);
    let bounds =
        Bounds { handshakes: 2, handshake_timeout: 2 * PATIENCE, crowded_timeout, ..Bounds::default() };
    let mut port = Port::open(bounds).await;
    let mut silent = TcpStream::connect(port.address).await.unwrap();
    let mut heard = [0];
    let early = timeout(4 * crowded_timeout, silent.read(&mut heard)).await;
    assert!(early.is_err(), "there is room, so it has its time");
    let mut more = Vec::new();
    for _ in 0..4 {
        more.push(TcpStream::connect(port.address).await.unwrap());
    }
    let maria = timeout(PATIENCE, port.dial(Some("maria"))).await.expect("her turn comes").unwrap();
    port.accepted().await;
    ends(&mut silent).await;
    drop(maria);
}

#[tokio::test]
async fn peers_without_a_certificate_are_few_brief_and_do_not_crowd_out_the_others() {
    let bounds = Bounds { nobodies: 1, nobody_life: Duration::from_millis(500), ..Bounds::default() };
    let mut port = Port::open(bounds).await;
    let _first = port.dial(None).await.unwrap();
    let mut accepted = port.accepted().await;
    assert!(accepted.connect_info().peer.is_none());
    let mut second = port.dial(None).await.unwrap();
    ends(&mut second).await;
    let _maria = port.dial(Some("maria")).await.unwrap();
    assert!(port.accepted().await.connect_info().peer.is_some());
    // The first one has nothing to say, and its time is over.
    ends(&mut accepted).await;
    drop(accepted);
    let _third = port.dial(None).await.unwrap();
    assert!(port.accepted().await.connect_info().peer.is_none());
}

#[tokio::test]
async fn whom_a_token_vouches_for_is_nobody_no_longer() {
    let bounds = Bounds { nobodies: 1, nobody_life: Duration::from_millis(200), ..Bounds::default() };
    let mut port = Port::open(bounds).await;
    let _first = port.dial(None).await.unwrap();
    let accepted = port.accepted().await;
    accepted.connect_info().vouch();
    let _second = port.dial(None).await.unwrap();
    let mut other = port.accepted().await;
    // The other one's time is over, and the first one's, which began before, is not.
    ends(&mut other).await;
    assert!(!accepted.connect_info().kill.is_cancelled());
}

#[tokio::test]
async fn the_loop_ends_when_it_is_told_and_closes_its_socket() {
    let mut port = Port::open(Bounds::default()).await;
    port.stop.cancel();
    timeout(PATIENCE, port.tasks.join_next()).await.expect("an end in time").unwrap().unwrap();
    assert!(port.incoming.recv().await.is_none());
    assert_eq!(TcpStream::connect(port.address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}
