//! The accept loop of the gRPC port: TCP, TLS 1.3, and who is at the other end, read once for each connection.
//!
//! Our own loop because tonic's has no reload, no limit on handshakes and no way to cut one connection. What is
//! bounded: handshakes at once and their time, connections, those of one identity, those without a certificate and their
//! life, until a token tells whose they are ([`crate::connections`]). Who begins a handshake and says nothing, or has no
//! certificate, does not keep others out: see [`crate::crowd`]. A descriptor table that is full is waited for, never spun
//! on. Knows no rpc and no policy: a peer without a certificate is let in as nobody, and `rpc/layer.rs` says what nobody
//! may do.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use mirror_certs::{Identity, Peer, ServerTls, TrustDomain};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::{
    connections::{Connections, PeerInfo},
    crowd::{Crowd, Place},
};

/// TLS handshakes at once; who comes then takes the place of another.
pub const HANDSHAKES_MAX: usize = 256;
/// How long one TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Open connections, all together: 5,000 agents, users, and room for twice that.
pub const CONNECTIONS_MAX: usize = 12_000;
/// What a connection without a certificate may send before a token tells whose it is, in bytes: an enrolment is a quarter
/// of it. Every flood ends here, whatever frames it is made of.
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

/// A connection that tonic serves. Ends as soon as its kill token is cancelled.
pub struct Conn {
    stream: Stream,
    info: PeerInfo,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    /// How much more it may send while nobody is known to be at its other end.
    budget: usize,
    connections: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
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
        self.connections.leave(&self.info);
        // Whoever waits on the token, such as the timer of a connection without a certificate, may go.
        self.info.kill.cancel();
    }
}

impl Conn {
    fn new(
        stream: Stream,
        info: PeerInfo,
        connections: &Arc<Connections>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let killed = Box::pin(info.kill.clone().cancelled_owned());
        let (budget, connections) = (NOBODY_BYTES_MAX, Arc::clone(connections));
        Self { stream, info, killed, budget, connections, _permit: permit }
    }

    /// A connection over the coordinator's own socket, opened by the account `uid`.
    pub(crate) fn local(
        stream: UnixStream,
        uid: u32,
        connections: &Arc<Connections>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self::new(Stream::Local(stream), connections.enter_local(uid), connections, permit)
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
        if !self.info.is_nobody() {
            return on!(self.poll_read(context, buffer));
        }
        if self.budget == 0 {
            let text = "it has sent more than a connection without a certificate may";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::QuotaExceeded, text)));
        }
        let room = buffer.remaining().min(self.budget);
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        let read = {
            let part = &mut part;
            on!(self.poll_read(context, part))
        };
        let count = part.filled().len();
        buffer.advance(count);
        self.budget -= count;
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
        let pushed_out = place.as_ref().map(Place::pushed_out);
        let info = self.connections.enter(address, peer, place);
        if let (Some(pushed_out), Some(vouched)) = (pushed_out, info.vouched()) {
            let (kill, life) = (info.kill.clone(), self.bounds.nobody_life);
            tokio::spawn(async move {
                tokio::select! {
                    () = kill.cancelled() => {}
                    () = vouched => {}
                    () = pushed_out => kill.cancel(),
                    () = tokio::time::sleep(life) => kill.cancel(),
                }
            });
        }
        Conn::new(Stream::Tls(Box::new(stream)), info, &self.connections, permit)
    }
}

/// The next connection. Errors are waited out: some are the dead connection's own, the others (no descriptors, no
/// memory) would come back at once. `told`: when the latter was said last.
pub(crate) async fn accept(listener: &TcpListener, told: &mut Option<Instant>) -> (TcpStream, SocketAddr) {
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

/// Sets what every connection has: no delay, and signs of life.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))
}

#[cfg(test)]
mod tests;
