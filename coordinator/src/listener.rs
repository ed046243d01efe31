//! The accept loop of the gRPC port: TCP, TLS 1.3, and who is at the other end, read once for each connection.
//!
//! Our own loop because tonic's has no reload, no limit on handshakes and no way to cut one connection. What is
//! bounded: handshakes at once and their time, connections, those of one identity, those without a certificate and their
//! life. Who begins a handshake and says nothing, or has no certificate, does not keep others out: see [`crate::crowd`]. A
//! descriptor table that is full is waited for, never spun on. Knows no rpc and no policy: a peer without a
//! certificate is let in as nobody, and `rpc/layer.rs` says what nobody may do.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use mirror_certs::{Identity, Peer, ServerTls, TrustDomain};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::crowd::{Crowd, Place};

/// TLS handshakes at once; who comes then takes the place of another.
pub const HANDSHAKES_MAX: usize = 256;
/// How long one TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Open connections, all together: 5,000 agents, users, and room for twice that.
pub const CONNECTIONS_MAX: usize = 12_000;
/// Open connections of one identity; the oldest one is cut for another. An agent has one or two, people a few.
pub const IDENTITY_CONNECTIONS_MAX: usize = 64;
/// Calls that one identity may have open at once, over all its connections: an agent has its session, people some
/// watches. What is open holds memory here, such as headers, for as long as the caller likes.
pub const IDENTITY_CALLS_MAX: usize = 512;
/// Calls that a connection without a certificate may have open at once.
pub const NOBODY_CALLS_MAX: usize = 4;
/// What a connection without a certificate may send in all its life, in bytes: an enrolment is a quarter of it. Every
/// flood ends here, whatever frames it is made of.
pub const NOBODY_BYTES_MAX: usize = 256 * 1_024;
/// Open connections without a certificate: nobody in particular must not crowd out the agents.
pub const NOBODY_CONNECTIONS_MAX: usize = 256;
/// How long a connection without a certificate lives: enrolment takes seconds.
pub const NOBODY_LIFE: Duration = Duration::from_secs(60);
/// A peer that acknowledges no data for this long is gone.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
/// A peer that says nothing, before HTTP/2 begins to ask, is asked by TCP after this long whether it is there.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What could be told at every connection is told again after this time at the earliest.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
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
    /// The calls that it, or all connections of its identity together, may have open besides those that are.
    pub calls: Arc<Semaphore>,
}

/// The open connections, so that they can be cut: all, or those of one identity.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<Open>,
    count: AtomicU64,
    /// Grows with each connection that ends.
    ended: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Open {
    all: HashMap<u64, CancellationToken>,
    /// Of those with a certificate, by whom it names.
    by_identity: HashMap<String, Own>,
    /// When it was last told that somebody has too many.
    told: Option<Instant>,
}

/// What one identity has open.
#[derive(Debug)]
struct Own {
    /// Its connections, the oldest first.
    connections: VecDeque<u64>,
    calls: Arc<Semaphore>,
}

impl Default for Own {
    fn default() -> Self {
        Self { connections: VecDeque::new(), calls: Arc::new(Semaphore::new(IDENTITY_CALLS_MAX)) }
    }
}

impl Connections {
    /// Cuts every connection of this identity at once and says how many there were. Names match without case.
    pub fn kill(&self, identity: &Identity) -> usize {
        let open = self.open();
        let hit = open.by_identity.get(&key_of(identity)).into_iter().flat_map(|own| &own.connections);
        hit.filter_map(|connection| open.all.get(connection)).map(CancellationToken::cancel).count()
    }

    /// How many connections of this identity are open.
    #[must_use]
    pub fn count_of(&self, identity: &Identity) -> usize {
        self.open().by_identity.get(&key_of(identity)).map_or(0, |own| own.connections.len())
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts every connection; says how many there were.
    pub fn kill_all(&self) -> usize {
        self.open().all.values().map(CancellationToken::cancel).count()
    }

    /// Grows with each connection that ends.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// How many connections are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open().all.len()
    }

    /// Whether no connection is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Enters a connection; its identity's oldest one may have to go for it.
    fn enter(&self, peer: Option<Peer>, address: SocketAddr) -> PeerInfo {
        let connection = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let kill = CancellationToken::new();
        let mut open = self.open();
        open.all.insert(connection, kill.clone());
        let Some(who) = peer.as_ref().map(|peer| &peer.identity) else {
            let calls = Arc::new(Semaphore::new(NOBODY_CALLS_MAX));
            return PeerInfo { address, peer, connection, kill, calls };
        };
        let own = open.by_identity.entry(key_of(who)).or_default();
        own.connections.push_back(connection);
        let calls = Arc::clone(&own.calls);
        let oldest = own.connections.front().copied();
        if let Some(oldest) = oldest.filter(|_| own.connections.len() > IDENTITY_CONNECTIONS_MAX) {
            if open.told.is_none_or(|at| at.elapsed() >= TOLD_AGAIN) {
                tracing::warn!(%who, %address, "too many connections of one identity; its oldest are cut");
                open.told = Some(Instant::now());
            }
            open.all.get(&oldest).map(CancellationToken::cancel);
        }
        drop(open);
        PeerInfo { address, peer, connection, kill, calls }
    }

    fn leave(&self, info: &PeerInfo) {
        let mut open = self.open();
        open.all.remove(&info.connection);
        if let Some(peer) = &info.peer {
            let key = key_of(&peer.identity);
            if let Some(own) = open.by_identity.get_mut(&key) {
                own.connections.retain(|connection| *connection != info.connection);
                if own.connections.is_empty() {
                    open.by_identity.remove(&key);
                }
            }
        }
        drop(open);
        self.ended.send_modify(|count| *count += 1);
    }
}

/// Names are one without case.
fn key_of(identity: &Identity) -> String {
    identity.to_string().to_ascii_lowercase()
}

/// A connection that tonic serves. Ends as soon as its kill token is cancelled.
pub struct Conn {
    stream: TlsStream<TcpStream>,
    info: PeerInfo,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    /// How much more it may send.
    budget: usize,
    connections: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
    /// Of a connection without a certificate.
    _place: Option<Place>,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.connections.leave(&self.info);
        // Whoever waits on the token, such as the timer of a connection without a certificate, may go.
        self.info.kill.cancel();
    }
}

impl Conn {
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
        if self.budget == 0 {
            let text = "it has sent more than a connection without a certificate may";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::QuotaExceeded, text)));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.budget = self.budget.saturating_sub(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_killed(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_killed(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_killed(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// How much the accept loop takes on.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// TLS handshakes at once.
    pub handshakes: usize,
    /// How long one handshake may take.
    pub handshake_timeout: Duration,
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
        let handshakes = Crowd::new(self.bounds.handshakes);
        let nobodies = Crowd::new(self.bounds.nobodies);
        let all = Arc::new(Semaphore::new(self.bounds.connections));
        let mut told = None;
        let mut open = JoinSet::new();
        loop {
            let step = async {
                // First the right to have one, then the connection: what cannot be had stays in the backlog.
                let permit = Arc::clone(&all).acquire_owned().await.ok()?;
                let (stream, address) = accept(&listener, &mut told).await;
                Some((permit, stream, address))
            };
            let next = tokio::select! {
                () = stop.cancelled() => None,
                next = step => next,
            };
            let Some((permit, stream, address)) = next else { return };
            while open.try_join_next().is_some() {}
            let place = handshakes.enter(address.ip());
            let (this, nobodies, accepted) = (self.clone(), nobodies.clone(), accepted.clone());
            open.spawn(async move {
                let Some((stream, peer)) = this.shake_hands(stream, address, &place).await else { return };
                drop(place);
                let nobody = peer.is_none().then(|| nobodies.enter(address.ip()));
                let conn = this.conn(stream, address, peer, permit, nobody);
                // Nobody takes it any more when the server stops.
                drop(accepted.send(Ok(conn)).await);
            });
        }
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        place: &Place,
    ) -> Option<(TlsStream<TcpStream>, Option<Peer>)> {
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
            () = tokio::time::sleep(self.bounds.handshake_timeout) => {
                tracing::debug!(%address, "a TLS handshake took too long");
                return None;
            }
            () = place.pushed_out() => {
                tracing::debug!(%address, "a TLS handshake gave way to another");
                return None;
            }
        };
        let peer = self.peer_of(&stream, address);
        Some((stream, peer))
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

    fn conn(
        &self,
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        peer: Option<Peer>,
        permit: OwnedSemaphorePermit,
        place: Option<Place>,
    ) -> Conn {
        let info = self.connections.enter(peer, address);
        if let Some(place) = &place {
            let (kill, life, pushed_out) = (info.kill.clone(), self.bounds.nobody_life, place.pushed_out());
            tokio::spawn(async move {
                tokio::select! {
                    () = kill.cancelled() => {}
                    () = pushed_out => kill.cancel(),
                    () = tokio::time::sleep(life) => kill.cancel(),
                }
            });
        }
        let killed = Box::pin(info.kill.clone().cancelled_owned());
        let budget = if info.peer.is_none() { NOBODY_BYTES_MAX } else { usize::MAX };
        Conn {
            stream,
            info,
            killed,
            budget,
            connections: Arc::clone(&self.connections),
            _permit: permit,
            _place: place,
        }
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
                if told.is_none_or(|at| at.elapsed() >= TOLD_AGAIN) {
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
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))
}

#[cfg(test)]
mod tests;
