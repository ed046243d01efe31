//! The accept loop of the gRPC port: TCP, TLS 1.3, and who is at the other end, read once for each connection.
//!
//! Our own loop because tonic's has no reload, no limit on handshakes and no way to cut one connection. What is
//! bounded: handshakes at once and their time, connections, connections without a certificate and their life, until a token tells whose they are. Who
//! begins a handshake and says nothing does not keep others out: when every place is taken, the slow ones go early. A
//! descriptor table that is full is waited for, never spun on. Knows no rpc and no policy: a peer without a
//! certificate is let in as nobody, and `rpc/layer.rs` says what nobody may do.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use mirror_certs::{CaBundle, Identity, Peer, ServerTls, TrustDomain};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// TLS handshakes at once; who comes then waits in the system's own queue.
pub const HANDSHAKES_MAX: usize = 256;
/// How long one TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take while [`HANDSHAKES_MAX`] are going on: some round trips over the slowest of links.
pub const CROWDED_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// Open connections, all together: 5,000 agents, users, and room for twice that.
pub const CONNECTIONS_MAX: usize = 12_000;
/// Open connections without a certificate: nobody in particular must not crowd out the agents.
pub const NOBODY_CONNECTIONS_MAX: usize = 256;
/// How long a connection without a certificate lives: enrolment takes seconds.
pub const NOBODY_LIFE: Duration = Duration::from_secs(60);
/// A peer that acknowledges no data for this long is gone.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Such a failure is told again after this time at the earliest.
const ACCEPT_TOLD: Duration = Duration::from_secs(60);
/// Connections that wait for the server to take them over.
const INCOMING_LEN: usize = 16;

/// The other end of a connection. In the extensions of each of its requests.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Where it dials from.
    pub address: SocketAddr,
    /// Whom its certificate speaks for; `None`: it showed none, or one that names nobody of this fleet.
    pub peer: Option<Peer>,
    /// Counts connections from 1; for logs.
    pub connection: u64,
    /// Cuts the connection with all that goes on over it.
    pub kill: CancellationToken,
    /// It came over the coordinator's own socket, opened by this account; `address` is no other host's then.
    pub local_uid: Option<u32>,
    /// What a connection without a certificate is held to; `None`: it has one.
    nobody: Option<Arc<Nobody>>,
}

impl PeerInfo {
    /// A connection from `address`, of whom `peer` says.
    #[must_use]
    pub fn new(address: SocketAddr, peer: Option<Peer>, connection: u64) -> Self {
        Self { address, peer, connection, kill: CancellationToken::new(), local_uid: None, nobody: None }
    }

    /// Where it comes from, for logs.
    #[must_use]
    pub fn from(&self) -> String {
        self.local_uid.map_or_else(|| self.address.to_string(), |uid| format!("socket, uid {uid}"))
    }

    /// Somebody is known to be at the other end after all, by a token: the connection is a user's like any other now.
    pub fn vouch(&self) {
        if let Some(nobody) = &self.nobody {
            nobody.vouched.cancel();
            drop(nobody.place.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

/// What a connection without a certificate is held to: one of few places, and a short life.
#[derive(Debug)]
struct Nobody {
    place: Mutex<Option<OwnedSemaphorePermit>>,
    vouched: CancellationToken,
}

/// The open connections, so that they can be cut: all, or those of one identity.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<HashMap<u64, PeerInfo>>,
    count: AtomicU64,
    /// Grows with each connection that ends.
    ended: watch::Sender<u64>,
}

impl Connections {
    /// Cuts every connection of this identity at once and says how many there were. Names match without case.
    pub fn kill(&self, identity: &Identity) -> usize {
        self.of(identity).iter().map(CancellationToken::cancel).count()
    }

    /// How many connections of this identity are open.
    #[must_use]
    pub fn count_of(&self, identity: &Identity) -> usize {
        self.of(identity).len()
    }

    fn of(&self, identity: &Identity) -> Vec<CancellationToken> {
        let wanted = identity.to_string();
        let is_it = |peer: &Peer| peer.identity.to_string().eq_ignore_ascii_case(&wanted);
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let hit = open.values().filter(|info| info.peer.as_ref().is_some_and(is_it));
        hit.map(|info| info.kill.clone()).collect()
    }

    /// Cuts every connection whose certificate comes from none of these CAs; says how many there were.
    pub fn kill_foreign(&self, trusted: &CaBundle) -> usize {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let foreign =
            |info: &&PeerInfo| info.peer.as_ref().is_some_and(|peer| trusted.issuer_hash(peer).is_none());
        open.values().filter(foreign).map(|info| info.kill.cancel()).count()
    }

    /// Where an open connection comes from.
    #[must_use]
    pub fn address_of(&self, connection: u64) -> Option<SocketAddr> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&connection).map(|info| info.address)
    }

    /// Cuts every connection; says how many there were.
    pub fn kill_all(&self) -> usize {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().map(|info| info.kill.cancel()).count()
    }

    /// Grows with each connection that ends.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// How many connections are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no connection is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of the next connection.
    fn next(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn enter(&self, info: &PeerInfo) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(info.connection, info.clone());
    }

    fn leave(&self, connection: u64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&connection);
        self.ended.send_modify(|count| *count += 1);
    }
}

/// A connection that tonic serves. Ends as soon as its kill token is cancelled.
pub struct Conn {
    stream: Stream,
    info: PeerInfo,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    connections: Arc<Connections>,
    _place: OwnedSemaphorePermit,
}

/// What a connection goes over.
enum Stream {
    /// The network.
    Tls(Box<TlsStream<TcpStream>>),
    /// The coordinator's own socket.
    Local(UnixStream),
}

/// The same call on either.
macro_rules! on {
    ($self:ident.$method:ident($($argument:ident),*)) => {
        match &mut $self.stream {
            Stream::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
            Stream::Local(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.connections.leave(self.info.connection);
        // Whoever waits on the token, such as the timer of a connection without a certificate, may go.
        self.info.kill.cancel();
    }
}

impl Conn {
    fn new(
        stream: Stream,
        info: PeerInfo,
        connections: &Arc<Connections>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        connections.enter(&info);
        let killed = Box::pin(info.kill.clone().cancelled_owned());
        Self { stream, info, killed, connections: Arc::clone(connections), _place: place }
    }

    /// A connection over the coordinator's own socket, opened by the account `uid`.
    pub(crate) fn local(
        stream: UnixStream,
        uid: u32,
        connections: &Arc<Connections>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let info = PeerInfo { local_uid: Some(uid), ..PeerInfo::new(nowhere, None, connections.next()) };
        Self::new(Stream::Local(stream), info, connections, place)
    }

    fn check_killed(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.killed.as_mut().poll(context) {
            Poll::Ready(()) => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by the coordinator"))
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl Connected for Conn {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_killed(context)?;
        on!(self.poll_read(context, buffer))
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_killed(context)?;
        on!(self.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_killed(context)?;
        on!(self.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self.poll_shutdown(context))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_killed(context)?;
        on!(self.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Local(stream) => stream.is_write_vectored(),
        }
    }
}

/// How much the accept loop takes on.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// TLS handshakes at once.
    pub handshakes: usize,
    /// How long one handshake may take.
    pub handshake_timeout: Duration,
    /// How long it may take while all places for handshakes are taken.
    pub crowded_timeout: Duration,
    /// Open connections.
    pub connections: usize,
    /// Open connections without a certificate.
    pub nobodies: usize,
    /// How long a connection without a certificate lives.
    pub nobody_life: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            handshakes: HANDSHAKES_MAX,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            crowded_timeout: CROWDED_HANDSHAKE_TIMEOUT,
            connections: CONNECTIONS_MAX,
            nobodies: NOBODY_CONNECTIONS_MAX,
            nobody_life: NOBODY_LIFE,
        }
    }
}

/// What the accept loop needs.
#[derive(Debug, Clone)]
pub struct Acceptor {
    /// How much it takes on.
    pub bounds: Bounds,
    /// Read anew for each connection, so that a reload takes effect with the next one.
    pub tls: Arc<ServerTls>,
    /// Identities of other trust domains are nobody.
    pub trust_domain: TrustDomain,
    /// Where open connections are entered.
    pub connections: Arc<Connections>,
}

impl Acceptor {
    /// Accepts until `stop`; what passed its handshake comes out of the returned channel. The socket is closed when
    /// the loop ends, connections that are open are not touched by it.
    pub fn start(
        self,
        listener: TcpListener,
        stop: CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> mpsc::Receiver<io::Result<Conn>> {
        let (accepted, incoming) = mpsc::channel(INCOMING_LEN);
        tasks.spawn(self.run(listener, stop, accepted));
        incoming
    }

    async fn run(
        self,
        listener: TcpListener,
        stop: CancellationToken,
        accepted: mpsc::Sender<io::Result<Conn>>,
    ) {
        let handshakes = Arc::new(Semaphore::new(self.bounds.handshakes));
        let all = Arc::new(Semaphore::new(self.bounds.connections));
        let nobodies = Arc::new(Semaphore::new(self.bounds.nobodies));
        let crowded = watch::Sender::new(false);
        let mut told = None;
        let mut open = JoinSet::new();
        loop {
            let step = async {
                // First the right to handle one, then the connection: what cannot be handled stays in the backlog.
                crowded.send_replace(handshakes.available_permits() == 0);
                let handshake = Arc::clone(&handshakes).acquire_owned().await.ok()?;
                crowded.send_replace(false);
                let place = Arc::clone(&all).acquire_owned().await.ok()?;
                let (stream, address) = accept(&listener, &mut told).await;
                Some((handshake, place, stream, address))
            };
            let next = tokio::select! {
                () = stop.cancelled() => None,
                next = step => next,
            };
            let Some((handshake, place, stream, address)) = next else { return };
            while open.try_join_next().is_some() {}
            let (this, nobodies, accepted) = (self.clone(), Arc::clone(&nobodies), accepted.clone());
            let crowded = crowded.subscribe();
            open.spawn(async move {
                let conn = this.shake_hands(stream, address, crowded, place, nobodies).await;
                drop(handshake);
                if let Some(conn) = conn {
                    // Nobody takes it any more when the server stops.
                    drop(accepted.send(Ok(conn)).await);
                }
            });
        }
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        crowded: watch::Receiver<bool>,
        place: OwnedSemaphorePermit,
        nobodies: Arc<Semaphore>,
    ) -> Option<Conn> {
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%address, %error, "could not prepare a connection");
            return None;
        }
        let acceptor = TlsAcceptor::from(self.tls.config());
        let stream = tokio::select! {
            done = acceptor.accept(stream) => match done {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%address, %error, "a TLS handshake failed");
                    return None;
                }
            },
            () = self.too_long(crowded) => {
                tracing::debug!(%address, "a TLS handshake took too long");
                return None;
            }
        };
        let peer = self.peer_of(&stream, address);
        let nobody = match &peer {
            Some(_) => None,
            None => match nobodies.try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => {
                    tracing::warn!(%address, "too many connections without a certificate; this one is closed");
                    return None;
                }
            },
        };
        let info = self.info(address, peer, nobody);
        Some(Conn::new(Stream::Tls(Box::new(stream)), info, &self.connections, place))
    }

    /// Comes back when a handshake that begins now has taken too long.
    async fn too_long(&self, mut crowded: watch::Receiver<bool>) {
        let brief = self.bounds.crowded_timeout.min(self.bounds.handshake_timeout);
        tokio::time::sleep(brief).await;
        let rest = self.bounds.handshake_timeout - brief;
        // However it ends, by the crowd or by the time or because the loop is over: it was long enough.
        drop(tokio::time::timeout(rest, crowded.wait_for(|crowded| *crowded)).await);
    }

    fn peer_of(&self, stream: &TlsStream<TcpStream>, address: SocketAddr) -> Option<Peer> {
        let certificate = stream.get_ref().1.peer_certificates()?.first()?;
        match Identity::from_der(certificate, &self.trust_domain) {
            Ok(peer) => Some(peer),
            Err(error) => {
                tracing::warn!(%address, %error, "a certificate of our CA names nobody in this fleet");
                None
            }
        }
    }

    fn info(
        &self,
        address: SocketAddr,
        peer: Option<Peer>,
        nobody: Option<OwnedSemaphorePermit>,
    ) -> PeerInfo {
        let mut info = PeerInfo::new(address, peer, self.connections.next());
        if let Some(place) = nobody {
            let (kill, life) = (info.kill.clone(), self.bounds.nobody_life);
            let vouched = CancellationToken::new();
            info.nobody = Some(Arc::new(Nobody { place: Mutex::new(Some(place)), vouched: vouched.clone() }));
            tokio::spawn(async move {
                tokio::select! {
                    () = kill.cancelled() => {}
                    () = vouched.cancelled() => {}
                    () = tokio::time::sleep(life) => kill.cancel(),
                }
            });
        }
        info
    }
}

/// The next connection. Errors are waited out: some are the dead connection's own, the others (no descriptors, no
/// memory) would come back at once. `told`: when the latter was said last.
async fn accept(listener: &TcpListener, told: &mut Option<Instant>) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if told.is_none_or(|at| at.elapsed() >= ACCEPT_TOLD) {
                    tracing::warn!(%error, "cannot accept connections; waiting for some to end");
                    *told = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors of the connection that was to be accepted, not of ours: accept(2).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))
}

#[cfg(test)]
mod tests;
