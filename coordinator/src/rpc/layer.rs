//! What every request passes first: who calls (by certificate or token, deny list and the fleet's own records), may he
//! (by the table), a span that continues the caller's trace, a limit in time, and a net under panics.
//!
//! One layer in front of all services, so that no service can be reached around it. Decided anew for each request:
//! a connection outlives a revocation, a request does not, and a stream of a user ends with what it was allowed by.
//! Knows no message of any service: whose a thing is that a request names, `access.rs` says.

use std::{
    any::Any,
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use chrono::{DateTime, SubsecRound as _, Utc};
use fleet::{
    agent::{LOCAL_ROOT, UserRole},
    id::{AgentUid, Name},
    refusal::{Refusal, RefusalCode},
};
use http::{HeaderMap, HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body::Frame;
use mirror_certs::{BACKDATE, DenyList, Identity, Peer, UserToken};
use mirror_proto::status;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{
    RETRY_UNAVAILABLE,
    access::Scope,
    policy::{self, Rule, Standing, Verdict},
};
use crate::{
    config::Reflection,
    driver::Driver,
    listener::PeerInfo,
    open_streams::{OpenStream, OpenStreams},
};

/// How long the head of an answer may take. Streams answer at once and then go on for as long as they like.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// Streams that go on for as long as their readers like. Sessions and those of runs are ended by the outbox.
const ENDLESS: [&str; 3] = [
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Streams that users open: they end when their user is shut out, or what they were allowed by ends.
pub const STREAMS: [&str; 4] = [
    "/mirror.v1.RunService/WatchRun",
    "/mirror.v1.RunService/TailRunLog",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// What the `authorization` header of a token begins with.
const BEARER: &str = "bearer ";
/// The reason of a certificate that a reset, or an earlier user's end, made worthless; a token may stand in for it.
const OUTDATED: &str = "CERTIFICATE_OUTDATED";
/// Characters of a token's hash that are its id.
const TOKEN_ID_CHARS: usize = 16;

/// Who calls, known to be of this fleet and let through by the table. In the extensions of each request of a method
/// that is not open to all; [`super::caller`] reads it.
#[derive(Debug, Clone)]
pub enum Caller {
    /// An agent: its uid, its name, and its connection.
    Agent(AgentUid, Name, PeerInfo),
    /// A user.
    User {
        /// As entered in the fleet.
        name: Name,
        /// What the user may do.
        role: UserRole,
        /// What the user may touch by this method.
        scope: Scope,
        /// By what the user is known.
        proof: Proof,
    },
    /// Whoever opened the coordinator's own socket: root, or the coordinator's own account. May do what admins may.
    LocalRoot,
}

/// By what a user is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A client certificate.
    Certificate {
        /// When it ends.
        expires: DateTime<Utc>,
    },
    /// A token.
    Token {
        /// Which; no secret.
        id: String,
        /// When it ends.
        expires: DateTime<Utc>,
    },
}

impl Proof {
    /// When it ends.
    #[must_use]
    pub fn expires(&self) -> DateTime<Utc> {
        match self {
            Self::Certificate { expires } | Self::Token { expires, .. } => *expires,
        }
    }

    /// The token's id.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        match self {
            Self::Certificate { .. } => None,
            Self::Token { id, .. } => Some(id),
        }
    }
}

impl Caller {
    fn standing(&self) -> Standing {
        match self {
            Self::Agent(..) => Standing::Agent,
            Self::User { role, .. } => Standing::User(*role),
            Self::LocalRoot => Standing::User(UserRole::Admin),
        }
    }

    /// Whether a certificate speaks for this user.
    fn is_user_of(&self, peer: &Peer) -> bool {
        match (self, &peer.identity) {
            (Self::User { name, .. }, Identity::User(certified)) => {
                name.as_str().eq_ignore_ascii_case(certified.as_str())
            }
            _ => false,
        }
    }

    /// The same caller with what he may touch by this method.
    fn scoped(mut self, method: &str) -> Self {
        if let Self::User { role, scope, .. } = &mut self {
            *scope = match policy::rule(method) {
                Some(Rule::Owner) if *role < UserRole::Operator => Scope::OwnProjects,
                Some(Rule::Oneself) if *role < UserRole::Admin => Scope::Oneself,
                _ => Scope::Whole,
            };
        }
        self
    }
}

/// The id of the token with this hash.
#[must_use]
pub fn token_id(hash: &str) -> &str {
    hash.get(..TOKEN_ID_CHARS).unwrap_or(hash)
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agent(_, name, _) => write!(f, "agents/{name}"),
            Self::User { name, .. } => write!(f, "users/{name}"),
            Self::LocalRoot => f.write_str(LOCAL_ROOT),
        }
    }
}

/// What the layer asks.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Agents and users of the fleet.
    pub driver: Driver,
    /// Who is refused for ever.
    pub deny: Arc<DenyList>,
    /// Who may use reflection.
    pub reflection: Reflection,
    /// The coordinator stops: streams that go on for as long as their readers like end.
    pub stopping: CancellationToken,
    /// Streams of users, to be ended with what they were allowed by.
    pub streams: Arc<OpenStreams>,
}

impl Gate {
    /// Who calls and whether he may; `None`: nobody in particular, on an open method. `authorization` is the header, where
    /// there is one.
    ///
    /// # Errors
    /// UNAUTHENTICATED without an identity, PERMISSION_DENIED where the table, the deny list or the fleet's records
    /// say no.
    pub fn admit(
        &self,
        method: &str,
        info: Option<&PeerInfo>,
        authorization: Option<&[u8]>,
    ) -> Result<Option<Caller>, Refusal> {
        let caller = self.caller(info, authorization);
        let standing = match &caller {
            Ok(Some(caller)) => caller.standing(),
            Ok(None) | Err(_) => Standing::Nobody,
        };
        match (policy::decide(method, standing, self.reflection), caller) {
            // What is open to nobody is open to the revoked too: they learn nothing more by it.
            (Verdict::Allowed, caller) => Ok(caller.unwrap_or(None).map(|caller| caller.scoped(method))),
            (_, Err(refusal)) => Err(refusal),
            (Verdict::NoIdentity, Ok(_)) => Err(Refusal::new(
                RefusalCode::Unauthenticated,
                "NO_IDENTITY",
                format!(
                    "{} needs a client certificate or a token of this fleet; people log in (mirrorctl login), agents \
                     enrol (mirror-agent enroll)",
                    short(method)
                ),
            )),
            (Verdict::Forbidden(why), Ok(caller)) => Err(forbidden(method, caller.as_ref(), why)),
        }
    }

    /// Whom connection and header speak for; both, where both speak.
    fn caller(
        &self,
        info: Option<&PeerInfo>,
        authorization: Option<&[u8]>,
    ) -> Result<Option<Caller>, Refusal> {
        let peer = info.and_then(|info| info.peer.as_ref().map(|peer| (info, peer)));
        let token = authorization.map(|header| self.identify_token(header)).transpose()?;
        let caller = match (peer, token) {
            (Some((info, peer)), None) => Some(self.identify(info, peer)?),
            (Some((info, peer)), Some(by_token)) => {
                match self.identify(info, peer) {
                    Ok(_) => {}
                    Err(refusal) if refusal.reason == OUTDATED => {}
                    Err(refusal) => return Err(refusal),
                }
                if !by_token.is_user_of(peer) {
                    let text = format!(
                        "the certificate is of {} and the token of {by_token}; send one of the two, or both of one user",
                        peer.identity
                    );
                    return Err(denied("TWO_IDENTITIES", text));
                }
                Some(by_token)
            }
            (None, Some(by_token)) => {
                if let Some(info) = info {
                    info.vouch();
                }
                Some(by_token)
            }
            (None, None) => info.and_then(|info| info.local_uid).map(|_| Caller::LocalRoot),
        };
        Ok(caller)
    }

    fn identify(&self, info: &PeerInfo, peer: &Peer) -> Result<Caller, Refusal> {
        if self.deny.is_denied(peer) {
            let text =
                format!("the certificate of {} is revoked for ever; do not come back with it", peer.identity);
            return Err(denied("CERTIFICATE_REVOKED", text));
        }
        if self.driver.now().wall.to_utc() >= peer.not_after {
            // A connection outlives its certificate; a request does not.
            let text = format!("the certificate of {} expired at {}", peer.identity, peer.not_after);
            return Err(Refusal::new(RefusalCode::Unauthenticated, "CERTIFICATE_EXPIRED", text));
        }
        match &peer.identity {
            Identity::Agent(name) => self.identify_agent(name.as_str(), info, peer),
            Identity::User(name) => self.identify_user(name.as_str(), peer),
            Identity::Server => Err(denied("NOT_ALLOWED", "a coordinator calls nothing".to_owned())),
        }
    }

    fn identify_agent(&self, name: &str, info: &PeerInfo, peer: &Peer) -> Result<Caller, Refusal> {
        let view = self.driver.view();
        let known = name.parse().ok().and_then(|name: Name| view.agent_named(&name));
        let Some(agent) = known else {
            let text = format!("agents/{name} is not of this fleet (any more); enrol its host again");
            return Err(denied("UNKNOWN_AGENT", text));
        };
        if agent.revoked.is_some() {
            let text = format!("agents/{name} is revoked; enrol its host under another name");
            return Err(denied("AGENT_REVOKED", text));
        }
        if agent.key_hash != super::enrollment::key_hash(&peer.spki_hash) {
            let text = format!(
                "agents/{name} was enrolled anew with another key; this certificate is no longer good"
            );
            return Err(denied("CERTIFICATE_REPLACED", text));
        }
        Ok(Caller::Agent(agent.uid, agent.name.clone(), info.clone()))
    }

    fn identify_user(&self, name: &str, peer: &Peer) -> Result<Caller, Refusal> {
        let view = self.driver.view();
        let known = name.parse().ok().and_then(|name: Name| view.user(&name));
        let Some(user) = known else {
            let text = format!("users/{name} is no user of this fleet (any more); ask an admin");
            return Err(denied("UNKNOWN_USER", text));
        };
        if user.disabled {
            return Err(denied("USER_DISABLED", format!("users/{name} is disabled; ask an admin")));
        }
        // Certificates count in seconds, and begin earlier than they were made.
        if peer.not_before + BACKDATE < user.certificates_since.to_utc().trunc_subsecs(0) {
            let text = format!(
                "the certificate of users/{name} was made before the user's password was reset, or for another user of \
                 that name; log in (mirrorctl login {name}) and get a new one (mirrorctl cert issue)"
            );
            return Err(denied(OUTDATED, text));
        }
        let proof = Proof::Certificate { expires: peer.not_after };
        Ok(Caller::User { name: user.name.clone(), role: user.role, scope: Scope::Whole, proof })
    }

    /// Who logged in by the token in this header. Why one is not good is told to nobody.
    fn identify_token(&self, header: &[u8]) -> Result<Caller, Refusal> {
        let bad = || {
            let text = "the token is not good (any more): it ended, was revoked, or its user was disabled or given \
                        another password; log in again: mirrorctl login";
            Refusal::new(RefusalCode::Unauthenticated, "TOKEN_NOT_GOOD", text)
        };
        let text = std::str::from_utf8(header).ok().and_then(|text| {
            let scheme = text.get(..BEARER.len())?;
            scheme.eq_ignore_ascii_case(BEARER).then(|| &text[BEARER.len()..])
        });
        let token: UserToken = text.ok_or_else(bad)?.parse().map_err(|_| bad())?;
        let view = self.driver.view();
        let now = self.driver.now().wall;
        let record = view.user_token(token_id(&token.hash())).ok_or_else(bad)?;
        if !token.matches(&record.hash) || record.expires <= now {
            return Err(bad());
        }
        let user = view.user(&record.user).filter(|user| !user.disabled).ok_or_else(bad)?;
        let proof = Proof::Token { id: record.id.clone(), expires: record.expires.to_utc() };
        Ok(Caller::User { name: user.name.clone(), role: user.role, scope: Scope::Whole, proof })
    }

    /// How long it is until this time.
    fn left(&self, until: DateTime<Utc>) -> Duration {
        (until - self.driver.now().wall.to_utc()).to_std().unwrap_or_default()
    }

    /// Enters a stream of a user among those that can be ended; `None`: it is none. A caller who was shut out between
    /// being let in and being entered is refused after all.
    fn enter_stream(
        &self,
        method: &str,
        caller: Option<&Caller>,
        cuts_before: u64,
        admit: impl FnOnce() -> Result<Option<Caller>, Refusal>,
    ) -> Result<Option<(OpenStream, DateTime<Utc>)>, Refusal> {
        let Some(Caller::User { name, proof, .. }) = caller.filter(|_| STREAMS.contains(&method)) else {
            return Ok(None);
        };
        let stream = self.streams.enter(name, proof.token());
        if self.streams.cuts() != cuts_before {
            admit()?;
        }
        Ok(Some((stream, proof.expires())))
    }
}

fn forbidden(method: &str, caller: Option<&Caller>, why: &str) -> Refusal {
    let text = match caller {
        Some(caller @ Caller::User { role, .. }) => format!(
            "{caller} with the role {} may not call {}: {why}",
            policy::role_name(*role),
            short(method)
        ),
        Some(caller) => format!("{caller} may not call {}: {why}", short(method)),
        None => format!("you may not call {}: {why}", short(method)),
    };
    denied("NOT_ALLOWED", text)
}

fn denied(reason: &'static str, text: String) -> Refusal {
    Refusal::new(RefusalCode::PermissionDenied, reason, text)
}

/// `ProjectService.RunProject`, of a full method name.
fn short(method: &str) -> String {
    method.trim_start_matches("/mirror.v1.").trim_start_matches('/').replace('/', ".")
}

/// Puts the [`Gate`] in front of services.
#[derive(Debug, Clone)]
pub struct GateLayer(pub Arc<Gate>);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: Arc::clone(&self.0), inner }
    }
}

/// Services behind the [`Gate`].
#[derive(Debug, Clone)]
pub struct Gated<S> {
    gate: Arc<Gate>,
    inner: S,
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answering {
        let method = policy::name(request.uri().path());
        let info = request.extensions().get::<PeerInfo>().cloned();
        let from = info.as_ref().map_or_else(|| "unknown".to_owned(), PeerInfo::from);
        // Taken out: nobody behind this layer can log what it holds.
        let authorization = request.headers_mut().remove(AUTHORIZATION);
        let authorization = authorization.as_ref().map(HeaderValue::as_bytes);
        let cuts = self.gate.streams.cuts();
        let admit = || self.gate.admit(method, info.as_ref(), authorization);
        let admitted = admit().and_then(|caller| {
            let stream = self.gate.enter_stream(method, caller.as_ref(), cuts, admit)?;
            Ok((caller, stream))
        });
        let (caller, stream) = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => {
                let who = info.and_then(|info| info.peer).map(|peer| peer.identity.to_string());
                let who = who.as_deref().unwrap_or("nobody");
                tracing::warn!(target: "audit", method, who, from, reason = refusal.reason, "refused");
                return Box::pin(async move { Ok(super::refused(&refusal).into_http()) });
            }
        };
        let life = stream.map(|(stream, until)| (stream, self.gate.left(until)));
        let who = caller.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
        let span = tracing::info_span!("rpc", otel.name = short(method), method, who, from);
        continue_trace(&span, request.headers());
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        // The clone that was asked whether it is ready must be the one that is called.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let stopping = self.gate.stopping.clone();
        let answer = Caught(Box::pin(async move { inner.call(request).await }));
        Box::pin(
            async move {
                let answer = match tokio::time::timeout(ANSWER_TIME_MAX, answer).await {
                    Ok(Ok(Ok(answer))) => answer,
                    Ok(Ok(Err(never))) => match never {},
                    Ok(Err(panic)) => after_panic(panic.as_ref()).into_http(),
                    Err(_) => late().into_http(),
                };
                let answer =
                    if ENDLESS.contains(&method) { until(answer, stopped(stopping)) } else { answer };
                let answer = match life {
                    Some((stream, left)) => until(answer, shut_out(stream, left)),
                    None => answer,
                };
                if policy::changes_something(method) {
                    let code =
                        Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code());
                    tracing::info!(target: "audit", method, who, from, ?code, "answered");
                }
                Ok(answer)
            }
            .instrument(span),
        )
    }
}

/// A future whose panic is an error of its own.
struct Caught<F>(Pin<Box<F>>);

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // After a panic the future is dropped and never polled again, so a broken state in it is seen by nobody.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

/// The same answer, whose body ends with this status as soon as there is one.
fn until(answer: Response<Body>, ended: impl Future<Output = Status> + Send + 'static) -> Response<Body> {
    let ended = Box::pin(ended);
    answer.map(|body| Body::new(Ending { body, ended, over: false }))
}

/// The coordinator stops.
async fn stopped(stopping: CancellationToken) -> Status {
    stopping.cancelled().await;
    status::unavailable("STOPPING", "the coordinator is stopping; syncs go on", RETRY_UNAVAILABLE)
}

/// The stream's user was shut out, or what the stream was allowed by ended after this time.
async fn shut_out(stream: OpenStream, left: Duration) -> Status {
    let text = tokio::select! {
        () = stream.end.cancelled() => {
            "the stream ends: its user was disabled, deleted or given another password, or the token was revoked"
        }
        () = tokio::time::sleep(left) => "the stream ends: the certificate or token that it was opened by has ended",
    };
    super::refused(&Refusal::new(RefusalCode::Unauthenticated, "SHUT_OUT", text))
}

struct Ending {
    body: Body,
    ended: Pin<Box<dyn Future<Output = Status> + Send>>,
    over: bool,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let Poll::Ready(goodbye) = self.ended.as_mut().poll(context) else {
            return Pin::new(&mut self.body).poll_frame(context);
        };
        self.over = true;
        let mut trailers = HeaderMap::new();
        match goodbye.add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }
}

fn late() -> Status {
    Status::deadline_exceeded(
        "no answer in time; whether anything changed is not known: ask again with the same request id",
    )
}

fn after_panic(panic: &(dyn Any + Send)) -> Status {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(panic = text, "a request made the coordinator panic; this is a bug");
    status::internal("PANIC", "a bug in the coordinator; its log has the details; please report it")
}

/// Makes the caller's span the parent, where it sent a `traceparent`.
fn continue_trace(span: &tracing::Span, headers: &HeaderMap) {
    let parent = TraceContextPropagator::new().extract(&Headers(headers));
    if let Err(error) = span.set_parent(parent) {
        tracing::trace!(%error, "traces are off");
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn boom(when: bool) -> u8 {
        tokio::task::yield_now().await;
        assert!(!when, "boom");
        7
    }

    #[tokio::test]
    async fn a_panic_becomes_a_status_that_tells_nothing_of_the_inside() {
        assert_eq!(Caught(Box::pin(boom(false))).await.unwrap(), 7);
        let panic = Caught(Box::pin(boom(true))).await.unwrap_err();
        let status = after_panic(panic.as_ref());
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("boom"));
    }

    #[tokio::test]
    async fn an_endless_body_ends_with_unavailable_when_the_coordinator_stops() {
        let stopping = CancellationToken::new();
        let (frames, rest) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Status>>(1);
        let answer = until(Response::new(Body::new(Frames(rest))), stopped(stopping.clone()));
        let mut body = answer.into_body();
        frames.send(Ok(Frame::data(Bytes::from_static(b"x")))).await.unwrap();
        assert!(next(&mut body).await.unwrap().is_data());
        stopping.cancel();
        let trailers = next(&mut body).await.unwrap().into_trailers().unwrap();
        assert_eq!(Status::from_header_map(&trailers).unwrap().code(), Code::Unavailable);
        assert!(next(&mut body).await.is_none());
    }

    struct Frames(tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, Status>>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0.poll_recv(context)
        }
    }

    async fn next(body: &mut Body) -> Option<Frame<Bytes>> {
        use http_body::Body as _;
        std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await.map(Result::unwrap)
    }
}
