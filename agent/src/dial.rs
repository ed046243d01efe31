//! One connection to a coordinator: TCP with quick notice of a dead peer, TLS 1.3, HTTP/2 with keepalive. A
//! connection that ends is not made again behind the caller's back. Knows no message.

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::config::Address;

/// Longest wait for the TCP connection, and again for TLS.
pub const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Pause between two pings on a connection without traffic: a half-open peer is never noticed otherwise.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Longest wait for the answer to a ping.
const KEEPALIVE_WAIT_MAX: Duration = Duration::from_secs(10);
/// What was sent and is unacknowledged for this long ends the connection, milliseconds (`TCP_USER_TIMEOUT`).
const TCP_USER_TIMEOUT_MS: u32 = 15_000;
/// What a coordinator may send on one stream before it is read, bytes: hyper's 2 MiB would hide that nobody reads.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// The same for a connection, bytes.
const CONNECTION_WINDOW_BYTES: u32 = 128 << 10;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nothing answers there.
    #[error("{address} does not answer ({})", plain(cause))]
    Unreachable {
        /// Where.
        address: Address,
        /// What the system said; part of the text.
        cause: io::Error,
    },
    /// What answers is not the fleet's coordinator, or does not take us for one of the fleet.
    #[error("{address} answers, but no TLS connection of this fleet comes about ({})", plain(cause))]
    Tls {
        /// Where.
        address: Address,
        /// What the TLS library said; part of the text.
        cause: io::Error,
    },
    /// HTTP/2.
    #[error("{address} does not speak gRPC")]
    Http {
        /// Where.
        address: Address,
        /// What the library said.
        source: tonic::transport::Error,
    },
}

/// A connection.
#[derive(Debug)]
pub struct Dialled {
    /// For gRPC clients.
    pub channel: Channel,
    /// This host's own address on it.
    pub local: IpAddr,
}

/// Makes a connection.
///
/// # Errors
/// [`DialError`], at the latest after some ten seconds.
pub async fn dial(address: &Address, tls: Arc<ClientConfig>) -> Result<Dialled, DialError> {
    let host = address.host.clone();
    let tcp = in_time(TcpStream::connect((host.as_str(), address.port))).await;
    let (tcp, local) = tcp
        .and_then(|tcp| {
            tcp.set_nodelay(true)?;
            rustix::net::sockopt::set_tcp_user_timeout(&tcp, TCP_USER_TIMEOUT_MS)?;
            let local = tcp.local_addr()?.ip();
            Ok((tcp, local))
        })
        .map_err(|cause| DialError::Unreachable { address: address.clone(), cause })?;
    let name = match host.parse::<IpAddr>() {
        Ok(ip) => Ok(ServerName::IpAddress(ip.into())),
        Err(_) => ServerName::try_from(host).map_err(io::Error::other),
    };
    let connected = match name {
        Ok(name) => in_time(TlsConnector::from(tls).connect(name, tcp)).await,
        Err(error) => Err(error),
    };
    let stream = connected.map_err(|cause| DialError::Tls { address: address.clone(), cause })?;
    let channel = over(address, TokioIo::new(stream)).await;
    channel
        .map(|channel| Dialled { channel, local })
        .map_err(|source| DialError::Http { address: address.clone(), source })
}

async fn over<S>(address: &Address, stream: TokioIo<S>) -> Result<Channel, tonic::transport::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut once = Some(stream);
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.take().ok_or_else(|| io::Error::other("the connection has ended"));
        async move { stream }
    });
    // tonic wants http:// where it does not do TLS itself; what the server sees is the origin.
    let origin = format!("https://{address}").parse().expect("an address is a URI's authority");
    Endpoint::from_shared(format!("http://{address}"))?
        .origin(origin)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_WAIT_MAX)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector(connector)
        .await
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late =
        |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {} s", CONNECT_WAIT_MAX.as_secs()));
    tokio::time::timeout(CONNECT_WAIT_MAX, work).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

/// A system error in plain words, without its number.
fn plain(error: &io::Error) -> String {
    if let Some(trouble) = mirror_certs::handshake_trouble(error) {
        return trouble;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}
