//! The plaintext port for probes: is the process there, may it be asked, which version is it. Shows nothing of the
//! fleet and changes nothing.

use std::{
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, routing::get, serve::Listener};
use fleet::{input::Input, time::Mono};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    time::Sleep,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    crowd::{Crowd, Place},
    driver::Driver,
};

/// Open connections at once; who comes then takes the place of another.
pub const CONNECTIONS_MAX: usize = 256;
/// How long one connection lives: probes ask and go, and nobody may hold a place by saying nothing.
pub const CONNECTION_LIFE: Duration = Duration::from_secs(30);
/// How long the writer may take to answer a probe.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// For this long one answer of the writer does for all probes.
const ANSWER_GOOD_FOR: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
struct Probes {
    driver: Driver,
    last: Arc<Mutex<Option<(Mono, Ready)>>>,
}

type Ready = Result<(), &'static str>;

/// Serves until `stop`, then answers what was asked and ends.
///
/// # Errors
/// When the socket fails in a way that does not pass.
pub async fn serve(listener: TcpListener, driver: Driver, stop: CancellationToken) -> io::Result<()> {
    let probes = Probes { driver, last: Arc::default() };
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .with_state(probes);
    let crowd = Crowd::new(CONNECTIONS_MAX);
    axum::serve(Bounded { listener, crowd }, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn ready(State(probes): State<Probes>) -> (StatusCode, String) {
    match probes.ready().await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

async fn version() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") }))
}

impl Probes {
    /// Whether the writer answers and its store takes writes. Asks it at most once in [`ANSWER_GOOD_FOR`]: a tick
    /// carries no data and does at most what is due anyway.
    async fn ready(&self) -> Ready {
        let mut last = self.last.lock().await;
        let now = self.driver.now().mono;
        // What is known by now needs no asking, and is no older than now.
        let still_true = |answer: Ready| answer.is_err() || self.driver.is_writable();
        let known = last.filter(|(at, answer)| now.since(*at) < ANSWER_GOOD_FOR && still_true(*answer));
        if let Some((_, answer)) = known {
            return answer;
        }
        let answer = match tokio::time::timeout(ANSWER_TIME_MAX, self.driver.ask(Input::Tick)).await {
            Ok(Ok(_)) if self.driver.is_writable() => Ok(()),
            Ok(Ok(_) | Err(_)) => Err("the store does not take writes"),
            Err(_) => Err("the writer does not answer"),
        };
        *last = Some((now, answer));
        answer
    }
}

/// Accepts a bounded number of connections, each for a bounded time.
struct Bounded {
    listener: TcpListener,
    crowd: Crowd,
}

impl Listener for Bounded {
    type Io = Brief;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Brief, SocketAddr) {
        // axum's own accept waits out what cannot be mended.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let place = self.crowd.enter(address.ip());
        let (end, pushed_out) = (Box::pin(tokio::time::sleep(CONNECTION_LIFE)), Box::pin(place.pushed_out()));
        (Brief { stream, end, pushed_out, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with an end.
struct Brief {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    pushed_out: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Place,
}

impl Brief {
    fn check_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let over = self.end.as_mut().poll(context).is_ready();
        if over || self.pushed_out.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl AsyncRead for Brief {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_end(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Brief {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_end(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
