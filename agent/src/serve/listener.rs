//! The socket: who is let in, and the process that each connection becomes. Does NOT know exports.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Inner, ServeError};
use crate::outcome;
use crate::rundir::{BUILD, PROGRAM_NAME};

/// Pause between two looks at the connections.
const SWEEP_PACE: Duration = Duration::from_secs(1);
/// Pause after a connection could not be accepted, as when no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A silent peer is asked for a sign of life after this long, ...
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// ... this often, ...
const KEEPALIVE_PACE: Duration = Duration::from_secs(15);
/// ... this many times.
const KEEPALIVE_PROBES: u32 = 4;
/// A peer that acknowledges nothing for so long is gone, milliseconds.
const UNACKNOWLEDGED_MAX_MS: u32 = 120_000;
/// Answers to connections that are refused, at once; one more is closed without an answer.
const REFUSALS_MAX: usize = 64;
/// Longest time for such an answer to be read.
const REFUSAL_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a refused client that are read: its greeting and the module's name.
const REFUSED_BYTES_MAX: usize = 4 << 10;
/// The greeting of a protocol that every client since 3.0 understands, without a list of digests as no secret is
/// asked for.
const GREETING: &str = "@RSYNCD: 31.0\n";
/// Exit codes of `mirror-supervise jail` and of programs that cannot be executed.
const NOT_STARTED: std::ops::RangeInclusive<i32> = 125..=127;

/// Opens the socket.
pub(super) fn bind(wanted: SocketAddr, elsewhere: bool) -> Result<(StdListener, SocketAddr), ServeError> {
    let open = |address: SocketAddr| {
        let socket = StdListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    };
    let mut result: io::Result<_> = open(wanted);
    if elsewhere && result.is_err() {
        let v4 = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        // First without IPv6, which may be off; then at any port.
        for other in [v4(wanted.port()), SocketAddr::new(wanted.ip(), 0), v4(0)] {
            result = result.or_else(|_| open(other));
        }
        if let Ok((_, address)) = &result {
            tracing::warn!(%wanted, %address, "the usual address for replicas is taken: another one is used");
        }
    }
    result.map_err(|source| ServeError::Listen { address: wanted, source })
}

/// Accepts connections until it is closed, and looks after them.
pub(super) async fn accept(inner: Arc<Inner>, socket: StdListener, close: CancellationToken) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the socket for replicas cannot be used");
            return;
        }
    };
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let mut sweep = interval(SWEEP_PACE);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = close.cancelled() => return,
            _ = sweep.tick() => {
                let state = inner.state();
                inner.connections.sweep(&state.modules, inner.settings.handshake_max);
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => begin(&inner, &refusals, stream, peer.ip().to_canonical()),
                Err(error) => {
                    tracing::error!(%error, "a connection of a replica cannot be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Starts a process for a connection, or says why not.
fn begin(inner: &Arc<Inner>, refusals: &Arc<Semaphore>, stream: TcpStream, peer: IpAddr) {
    let max = inner.settings.connections;
    inner.connections.refresh(&inner.state().modules);
    let refusal = if !inner.connections.admits(peer, max) {
        // rsyncd's own words: clients know that they are to come again.
        format!("@ERROR: max connections ({max}) reached -- try again later\n")
    } else if let Err(error) = inner.files.verify() {
        tracing::error!(error = outcome::chain(&error), %peer, "no replica is served");
        "@ERROR: the daemon's configuration was changed by somebody else\n".to_owned()
    } else {
        match serve(inner, stream, peer) {
            Ok(()) => return,
            Err(error) => return tracing::error!(%error, %peer, "no process for the connection of a replica"),
        }
    };
    if let Ok(permit) = refusals.clone().try_acquire_owned() {
        tokio::spawn(async move {
            // A peer that does not read it learns it at its next connection.
            let _ = timeout(REFUSAL_WAIT, refuse(&stream, &refusal)).await;
            drop(permit);
        });
    }
}

fn serve(inner: &Arc<Inner>, stream: TcpStream, peer: IpAddr) -> io::Result<()> {
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_PACE)?;
    sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MAX_MS)?;
    let socket = stream.into_std()?;
    socket.set_nonblocking(false)?;
    let settings = &inner.settings;
    #[allow(clippy::disallowed_methods, reason = "the one place that starts the daemon for replicas")]
    let mut command = tokio::process::Command::new(settings.program.executable());
    command
        .arg0(PROGRAM_NAME)
        .args([BUILD, "jail", "--jail"])
        .arg(inner.files.jail())
        .arg("--")
        .arg(&settings.rsync);
    // Its standard input is a socket, so it serves that one connection and ends.
    command.args(["--daemon", "--no-detach"]).arg(Inner::argument(&inner.files.main()));
    command.env_clear().envs([
        ("LC_ALL", "C"),
        ("TZ", "UTC"),
        ("HOME", "/nonexistent"),
        ("USER", "nobody"),
        ("RSYNC_NO_XFER_EXEC", "1"),
        // With it `dont compress = *` makes --compress free of cost; the others ignore it (rsyncd.conf(5)).
        ("RSYNC_COMPRESS_LIST", "zlib"),
    ]);
    // The jail complains on standard error; rsync closes it.
    command.current_dir("/").stdin(Stdio::from(std::os::fd::OwnedFd::from(socket))).stdout(Stdio::null());
    let mut child = command.spawn()?;
    inner.connections.add(child.id().unwrap_or_default(), peer);
    tokio::spawn(async move {
        let code = child.wait().await.ok().and_then(|status| status.code());
        if code.is_some_and(|code| NOT_STARTED.contains(&code)) {
            tracing::error!(code, "rsync was not started for a replica; the line on standard error says why");
        }
    });
    Ok(())
}

/// Says why, then takes what the client sends: an answer on a socket that is closed with unread bytes is lost.
async fn refuse(stream: &TcpStream, text: &str) -> io::Result<()> {
    let answer = format!("{GREETING}{text}");
    stream.writable().await?;
    // A new socket takes it whole.
    stream.try_write(answer.as_bytes())?;
    rustix::net::shutdown(stream, rustix::net::Shutdown::Write)?;
    let mut buffer = [0; 512];
    let mut read = 0;
    while read < REFUSED_BYTES_MAX {
        stream.readable().await?;
        match stream.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
