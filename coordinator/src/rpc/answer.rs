//! What becomes of an answer on its way out: a panic is a status, a body ends with what it was allowed by or when the
//! coordinator stops, and its call counts as open until it has been read.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use fleet::refusal::{Refusal, RefusalCode};
use http::{HeaderMap, Response};
use http_body::Frame;
use mirror_proto::status;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

use super::RETRY_UNAVAILABLE;
use crate::open_streams::OpenStream;

/// A future whose panic is an error of its own.
pub(crate) struct Caught<F>(pub(crate) Pin<Box<F>>);

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
pub(super) fn until(
    answer: Response<Body>,
    ended: impl Future<Output = Status> + Send + 'static,
) -> Response<Body> {
    let ended = Box::pin(ended);
    answer.map(|body| Body::new(Ending { body, ended, over: false }))
}

/// The coordinator stops.
pub(super) async fn stopped(stopping: CancellationToken) -> Status {
    stopping.cancelled().await;
    status::unavailable("STOPPING", "the coordinator is stopping; syncs go on", RETRY_UNAVAILABLE)
}

/// The stream's user was shut out, or what the stream was allowed by ended after this time.
pub(super) async fn shut_out(stream: OpenStream, left: Duration) -> Status {
    let text = tokio::select! {
        () = stream.end.cancelled() => {
            "the stream ends: its user was disabled, deleted, given another role or password, or the token was revoked"
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

/// A body whose call is open until it has been read or given up.
pub(super) struct Counted {
    pub(super) body: Body,
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

pub(super) fn too_many() -> Status {
    let text = "too many calls of yours are open at once; end some, or show a certificate of this fleet";
    status::exhausted("TOO_MANY_CALLS", text, RETRY_UNAVAILABLE)
}

pub(super) fn late() -> Status {
    Status::deadline_exceeded(
        "no answer in time; whether anything changed is not known: ask again with the same request id",
    )
}

pub(super) fn after_panic(panic: &(dyn Any + Send)) -> Status {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(panic = text, "a request made the coordinator panic; this is a bug");
    status::internal("PANIC", "a bug in the coordinator; its log has the details; please report it")
}

#[cfg(test)]
mod tests {
    use tonic::Code;

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
