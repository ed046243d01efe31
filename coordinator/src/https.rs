//! The HTTPS port: pushes of release scripts and webhooks, and nothing else. Off until `https_listen` is set.
//!
//! Whoever comes is a stranger until his token is looked at, so all is bounded as on the port for probes: connections,
//! handshakes and heads in number and time, each connection in its life, bodies in bytes. A body is read and thrown away:
//! a push says all by its path. No client certificate is asked for. Who may push what, and in which words it is
//! refused, is decided where it is for gRPC (`rpc/web.rs`).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::post,
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body::Body as _;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use mirror_certs::WebTls;
use mirror_proto::status::{Fault, unavailable};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::{
    Services,
    crowd::{Crowd, Place},
    listener,
    rpc::{RETRY_UNAVAILABLE, web},
};

/// Open connections at once; who comes then takes the place of another.
pub const CONNECTIONS_MAX: usize = 256;
/// How long one TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one connection lives: who pushes comes and goes.
pub const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// How long the head of a request may take, from when the connection is there or the last answer went out.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Largest head of a request, in bytes.
pub const HEAD_BYTES_MAX: usize = 16 * 1_024;
/// Largest body, in bytes: as much as GitHub sends to a webhook at most (docs.github.com, "Webhook events and
/// payloads"). It is not kept.
pub const BODY_BYTES_MAX: u64 = 25 * 1_024 * 1_024;
/// How long a body may take.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(30);
/// How long the writer may take to answer a push.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// The header in which GitLab sends the secret of a webhook.
const GITLAB_TOKEN: &str = "x-gitlab-token";
/// RFC 9457.
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
struct Peer(SocketAddr);

/// Serves until `stop`, then answers what was asked and ends.
pub async fn serve(listener: TcpListener, tls: Arc<WebTls>, services: Services, stop: CancellationToken) {
    let router = Router::new()
        .route("/v1/projects/{project}/push", post(push).fallback(only_posts))
        .fallback(nothing_here)
        .with_state(services);
    let crowd = Crowd::new(CONNECTIONS_MAX);
    let mut told = None;
    let mut open = JoinSet::new();
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => None,
            next = listener::accept(&listener, &mut told) => Some(next),
        };
        let Some((stream, address)) = next else { break };
        while open.try_join_next().is_some() {}
        let place = crowd.enter(address.ip());
        let router = router.clone().layer(Extension(Peer(address)));
        open.spawn(connection(stream, address, Arc::clone(&tls), router, place, stop.clone()));
    }
    while open.join_next().await.is_some() {}
}

/// One connection, until it ends by itself, has lived long enough, or gives way to another.
async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    tls: Arc<WebTls>,
    router: Router,
    place: Place,
    stop: CancellationToken,
) {
    let talk = async {
        listener::prepare(&stream).map_err(|error| error.to_string())?;
        let shake = TlsAcceptor::from(tls.config()).accept(stream);
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE_TIMEOUT, shake) => shaken.map_err(|_| "a TLS handshake took too long")?,
            // Nothing has been asked yet.
            () = stop.cancelled() => return Ok(()),
        };
        let stream = shaken.map_err(|error| error.to_string())?;
        let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
        server
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME_MAX)
            .max_buf_size(HEAD_BYTES_MAX);
        let served = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        tokio::pin!(served);
        let ended = tokio::select! {
            ended = &mut served => ended,
            () = stop.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        ended.map_err(|error| error.to_string())
    };
    let ended = tokio::select! {
        ended = talk => ended,
        () = place.pushed_out() => Err("it gave way to another".to_owned()),
        () = tokio::time::sleep(CONNECTION_LIFE) => Err("it lived too long".to_owned()),
    };
    if let Err(error) = ended {
        tracing::debug!(%address, error, "an HTTPS connection ended");
    }
}

async fn push(
    State(services): State<Services>,
    Extension(Peer(address)): Extension<Peer>,
    project: Result<Path<String>, PathRejection>,
    mut headers: HeaderMap,
    body: Body,
) -> Response {
    let authorization = authorization(&mut headers);
    let pusher = match web::admit(&services, address, authorization, &headers) {
        Ok(pusher) => pusher,
        // The body is not read: nobody in particular sends it.
        Err(status) => return ([(CONNECTION, "close")], problem(&status)).into_response(),
    };
    if let Err(status) = thrown_away(&headers, body).await {
        let detail = match status {
            StatusCode::PAYLOAD_TOO_LARGE => {
                "nothing pushed: the body is larger than 25 MiB; a push needs none"
            }
            StatusCode::REQUEST_TIMEOUT => "nothing pushed: the body came too slowly; a push needs none",
            _ => "nothing pushed: the body broke off; a push needs none",
        };
        return ([(CONNECTION, "close")], told(status, detail, "BAD_BODY")).into_response();
    }
    // What is no name is told so where names are read.
    let project = project.map_or_else(|_| String::new(), |Path(project)| project);
    match timeout(ANSWER_TIME_MAX, pusher.push(&services, &project)).await {
        Ok(Ok(pushed)) => {
            let code = if pushed.coalesced { StatusCode::OK } else { StatusCode::ACCEPTED };
            let answer = json!({ "run": pushed.run, "coalesced": pushed.coalesced, "notes": pushed.notes });
            (code, Json(answer)).into_response()
        }
        Ok(Err(status)) => problem(&status),
        Err(_) => {
            let text = "the answer is late, so it is not known whether the push was taken; push again, which is harmless";
            problem(&unavailable("LATE", text, RETRY_UNAVAILABLE))
        }
    }
}

/// The caller's token as an `authorization` header, taken out of the headers: nobody behind here can log it.
fn authorization(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let sent = headers.remove(AUTHORIZATION);
    let gitlab = headers.remove(GITLAB_TOKEN);
    let bearer = |token: HeaderValue| {
        HeaderValue::from_bytes(&[b"Bearer ".as_slice(), token.as_bytes()].concat()).ok()
    };
    let mut shown = sent.or_else(|| gitlab.and_then(bearer));
    shown.iter_mut().for_each(|header| header.set_sensitive(true));
    shown
}

/// Reads a body to its end and keeps nothing of it.
async fn thrown_away(headers: &HeaderMap, body: Body) -> Result<(), StatusCode> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > BODY_BYTES_MAX) {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let read = async {
        let (mut body, mut left) = (std::pin::pin!(body), BODY_BYTES_MAX);
        while let Some(frame) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
            let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            left = left.checked_sub(bytes).ok_or(StatusCode::PAYLOAD_TOO_LARGE)?;
        }
        Ok(())
    };
    timeout(BODY_TIME_MAX, read).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
}

async fn only_posts() -> Response {
    told(StatusCode::METHOD_NOT_ALLOWED, "a push is a POST", "NOT_A_POST")
}

async fn nothing_here() -> Response {
    told(
        StatusCode::NOT_FOUND,
        "there is POST /v1/projects/{project}/push here, and nothing else",
        "NO_SUCH_PATH",
    )
}

/// A refusal in the words of the API.
fn problem(status: &Status) -> Response {
    let fault = Fault::from(status);
    let code = match fault.code {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::FailedPrecondition | Code::Aborted | Code::AlreadyExists => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut answer = told(code, &fault.to_string(), &fault.reason);
    if let Some(wait) = fault.retry {
        // Whole seconds, and none too early: RFC 9110, section 10.2.3.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if code == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

fn told(code: StatusCode, detail: &str, reason: &str) -> Response {
    let title = code.canonical_reason().unwrap_or_default();
    let told = json!({ "type": "about:blank", "title": title, "status": code.as_u16(), "detail": detail, "reason": reason });
    let mut answer = (code, Json(told)).into_response();
    answer.headers_mut().insert(CONTENT_TYPE, PROBLEM);
    answer
}
