//! What every request passes first: the [`Gate`], a span that continues the caller's trace, a bound on open calls, a limit
//! in time, and a net under panics.
//!
//! One layer in front of all services, so that no service can be reached around it. A stream of a user ends with what it
//! was allowed by. Knows no message of any service.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use fleet::refusal::Refusal;
use http::{HeaderMap, HeaderValue, Request, Response, header::AUTHORIZATION};
use opentelemetry::{
    propagation::{Extractor, TextMapPropagator as _},
    trace::TraceContextExt as _,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tokio::sync::Semaphore;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{
    answer::{Caught, Counted, after_panic, late, shut_out, stopped, too_many, until},
    gate::{Admitted, Gate, NOBODY, short},
    policy,
};
use crate::{
    audit::{self, origin, origin::Origin},
    connections::PeerInfo,
    driver::Driver,
};

/// How long the head of an answer may take. Streams answer at once and then go on for as long as they like.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// Streams that go on for as long as their readers like. Sessions and those of runs are ended by the outbox.
const ENDLESS: [&str; 3] = [
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

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
        let calls = info.as_ref().map(|info| Arc::clone(info.calls()));
        let Ok(place) = calls.map(Semaphore::try_acquire_owned).transpose() else {
            tracing::debug!(method, from, "too many open calls");
            return Box::pin(async { Ok(too_many().into_http()) });
        };
        // Taken out: nobody behind this layer can log what it holds.
        let mut authorization = request.headers_mut().remove(AUTHORIZATION);
        authorization.iter_mut().for_each(|header| header.set_sensitive(true));
        let cuts = self.gate.streams.cuts();
        let shown = authorization.as_ref().map(HeaderValue::as_bytes);
        let admit = || self.gate.admit(method, info.as_ref(), shown);
        let admitted = admit().and_then(|caller| {
            let stream = self.gate.enter_stream(method, caller.as_ref(), cuts, admit)?;
            Ok((caller, stream))
        });
        let (caller, stream) = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => {
                let who = info.and_then(|info| info.peer).map(|peer| audit::name_of(&peer.identity));
                let who = who.as_deref().unwrap_or(NOBODY);
                let origin = Origin::new(who, &from, &short(method));
                let origin = origin.with_ids(self.gate.request_id(request.headers()), String::new());
                let status = refuse(&self.gate.driver, &origin, &refusal);
                return Box::pin(async move { Ok(status.into_http()) });
            }
        };
        let life = stream.map(|(stream, until)| (stream, self.gate.left(until)));
        let who = caller.as_ref().map_or_else(|| NOBODY.to_owned(), ToString::to_string);
        let request_id = self.gate.request_id(request.headers());
        let span = tracing::info_span!("rpc", otel.name = short(method), method, who, from, request_id);
        let trace_id = continue_trace(&span, request.headers());
        let origin = Arc::new(Origin::new(&who, &from, &short(method)).with_ids(request_id, trace_id));
        if let Some(caller) = caller {
            let gate = Arc::clone(&self.gate);
            request.extensions_mut().insert(Admitted { gate, method, info, authorization });
            request.extensions_mut().insert(caller);
        }
        // The clone that was asked whether it is ready must be the one that is called.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let stopping = self.gate.stopping.clone();
        let driver = self.gate.driver.clone();
        let service = origin::scope(Arc::clone(&origin), async move { inner.call(request).await });
        let answer = Caught(Box::pin(service));
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
                let answer = answer.map(|body| Body::new(Counted { body, _place: place }));
                if audit::covers(method) {
                    record(&driver, &origin, method, Status::from_header_map(answer.headers()));
                }
                Ok(answer)
            }
            .instrument(span),
        )
    }
}

/// What who is not let in is told; it is recorded.
pub(super) fn refuse(driver: &Driver, origin: &Origin, refusal: &Refusal) -> Status {
    let (who, from, method) = (origin.who(), origin.from(), origin.action());
    tracing::warn!(target: "audit", method, who, from, reason = refusal.reason, "refused");
    let status = super::refused(refusal);
    driver.record_refusal(audit::not_done(origin, &status));
    status
}

/// Tells how a call was answered. What was done is recorded by the driver, in the commit that did it.
pub(super) fn record(driver: &Driver, origin: &Origin, method: &str, status: Option<Status>) {
    let code = status.as_ref().map_or(Code::Ok, Status::code);
    let (who, from) = (origin.who(), origin.from());
    tracing::info!(target: "audit", method, who, from, ?code, "answered");
    if let Some(status) = status.filter(|status| status.code() != Code::Ok) {
        driver.record_refusal(audit::not_done(origin, &status));
    }
}

/// Makes the caller's span the parent, where it sent a `traceparent`; the trace's id, empty without one.
pub(super) fn continue_trace(span: &tracing::Span, headers: &HeaderMap) -> String {
    let parent = TraceContextPropagator::new().extract(&Headers(headers));
    let sent = parent.span().span_context().clone();
    if let Err(error) = span.set_parent(parent) {
        tracing::trace!(%error, "traces are off");
    }
    if sent.is_valid() { sent.trace_id().to_string() } else { String::new() }
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
