//! The service of projects, in front of which its requests are measured: those with a manifest may be large, all others
//! are as small as everywhere. What a manifest holds is counted before it is decoded, because a message of two bytes on
//! the wire is hundreds in memory. Knows the contract's descriptors and no project.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, LazyLock},
    task::{Context, Poll},
};

use ::fleet::refusal::Violation;
use bytes::{Buf as _, Bytes, BytesMut};
use http::{Request, Response};
use http_body::{Body as _, Frame};
use mirror_proto::v1::project_service_server::ProjectServiceServer;
use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};
use tokio::sync::Semaphore;
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

use super::{MANIFEST_BYTES_MAX, REQUEST_BYTES_MAX, RETRY_UNAVAILABLE, invalid, project::Projects};

/// Manifests of each of the two methods that are held at once, from their first byte to the answer: each is megabytes. Who
/// may only look takes no place of who applies.
pub const MANIFESTS_AT_ONCE: usize = 8;
/// Most projects of one manifest.
pub const MANIFEST_PROJECTS_MAX: usize = 5_000;
/// Most messages of one manifest, at any depth: each project is one, each of its upstreams, spans, windows and places.
/// A project that uses all there is has some 30.
pub const MANIFEST_MESSAGES_MAX: usize = 200_000;
/// Most texts in the lists of one manifest, such as rsync's options: each is two bytes on the wire and a dozen times that in
/// memory.
pub const MANIFEST_TEXTS_MAX: usize = 500_000;
/// How deep messages are looked into; prost itself decodes no deeper.
const LEVELS_MAX: usize = 100;
/// What gRPC puts before each message, in bytes: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(mirror_proto::DESCRIPTORS).ok());

/// `mirror.v1.ProjectService`, behind the bounds of its requests.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    manifests: ProjectServiceServer<Projects>,
    others: ProjectServiceServer<Projects>,
    plans: Arc<Semaphore>,
    applies: Arc<Semaphore>,
}

impl Measured {
    pub(super) fn new(projects: Projects) -> Self {
        let server = ProjectServiceServer::new(projects);
        Self {
            manifests: server.clone().max_decoding_message_size(MANIFEST_BYTES_MAX),
            others: server.max_decoding_message_size(REQUEST_BYTES_MAX),
            plans: Arc::new(Semaphore::new(MANIFESTS_AT_ONCE)),
            applies: Arc::new(Semaphore::new(MANIFESTS_AT_ONCE)),
        }
    }
}

impl NamedService for Measured {
    const NAME: &'static str = <ProjectServiceServer<Projects> as NamedService>::NAME;
}

impl Service<Request<Body>> for Measured {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // As tonic's own servers: always.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (message, what, places) = match request.uri().path() {
            "/mirror.v1.ProjectService/PlanProjects" => {
                ("mirror.v1.PlanProjectsRequest", "nothing planned", &self.plans)
            }
            "/mirror.v1.ProjectService/ApplyProjects" => {
                ("mirror.v1.ApplyProjectsRequest", "nothing applied", &self.applies)
            }
            _ => return self.others.call(request),
        };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            let text =
                "as many manifests are being read as this coordinator reads at once; try again in a moment";
            let status = mirror_proto::status::exhausted("TOO_MANY_PLANS", text, RETRY_UNAVAILABLE);
            return Box::pin(async move { Ok(status.into_http()) });
        };
        let mut manifests = self.manifests.clone();
        Box::pin(async move {
            let _place = place;
            let (head, body) = request.into_parts();
            let measured = match read(body).await {
                Ok(bytes) => check(message, what, &bytes).map(|()| bytes),
                Err(status) => Err(status),
            };
            match measured {
                Ok(bytes) => manifests.call(Request::from_parts(head, Body::new(Whole(Some(bytes))))).await,
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// The whole body, as far as it is not larger than a manifest. The gate's limit in time is around it.
async fn read(body: Body) -> Result<Bytes, Status> {
    let (mut body, mut bytes) = (pin!(body), BytesMut::new());
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.len() + data.len() > PREFIX_BYTES + MANIFEST_BYTES_MAX {
            return Err(Status::out_of_range(format!(
                "a manifest has at most {MANIFEST_BYTES_MAX} bytes on the wire; apply it in parts"
            )));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Refuses what would become too much by being decoded.
fn check(message: &str, what: &str, body: &[u8]) -> Result<(), Status> {
    let Some(message) = POOL.as_ref().and_then(|pool| pool.get_message_by_name(message)) else {
        return Err(Status::internal("the contract's own descriptors cannot be read; this is a bug"));
    };
    let mut held = Held::default();
    let mut rest = body;
    // Tonic decodes every message that is sent, though it takes the first alone.
    while let Some((prefix, behind)) = rest.split_at_checked(PREFIX_BYTES) {
        let (_, mut length) = prefix.split_at(1);
        let Some((sent, behind)) = behind.split_at_checked(length.get_u32() as usize) else { break };
        // What is no such message is refused by who decodes it, at the same byte.
        let _ = held.count(&message, sent, 0);
        rest = behind;
    }
    let fault = if held.projects > MANIFEST_PROJECTS_MAX {
        format!("at most {MANIFEST_PROJECTS_MAX} are possible at once; apply them in parts")
    } else if held.messages > MANIFEST_MESSAGES_MAX {
        format!(
            "at most {MANIFEST_MESSAGES_MAX} upstreams, places, windows and spans in all of them are possible \
             at once; apply them in parts"
        )
    } else if held.texts > MANIFEST_TEXTS_MAX {
        format!(
            "at most {MANIFEST_TEXTS_MAX} options and other texts in lists are possible at once; apply them in parts"
        )
    } else {
        return Ok(());
    };
    Err(invalid(what, vec![Violation::new("projects", fault)]))
}

/// How much is in a manifest, as far as it was looked at: not beyond what is too much.
#[derive(Debug, Default)]
struct Held {
    projects: usize,
    messages: usize,
    texts: usize,
}

impl Held {
    fn is_too_much(&self) -> bool {
        self.projects > MANIFEST_PROJECTS_MAX
            || self.messages > MANIFEST_MESSAGES_MAX
            || self.texts > MANIFEST_TEXTS_MAX
    }

    /// Goes through a message as prost does, and keeps nothing of it. Entries of maps are not counted: those with the
    /// same key are one.
    fn count(
        &mut self,
        message: &MessageDescriptor,
        mut bytes: &[u8],
        level: usize,
    ) -> Result<(), DecodeError> {
        while bytes.has_remaining() && !self.is_too_much() {
            let (number, wire) = decode_key(&mut bytes)?;
            let field = message.get_field(number).filter(|field| !field.is_map());
            self.texts += usize::from(
                field.as_ref().is_some_and(|field| field.is_list() && field.kind() == Kind::String),
            );
            match field.map(|field| field.kind()) {
                Some(Kind::Message(inner)) if wire == WireType::LengthDelimited && level < LEVELS_MAX => {
                    let length = usize::try_from(decode_varint(&mut bytes)?).unwrap_or(usize::MAX);
                    let Some((inside, rest)) = bytes.split_at_checked(length) else { return Ok(()) };
                    self.messages += 1;
                    self.projects += usize::from(level == 0);
                    self.count(&inner, inside, level + 1)?;
                    bytes = rest;
                }
                _ => skip_field(wire, number, &mut bytes, DecodeContext::default())?,
            }
        }
        Ok(())
    }
}

/// A body that has been read.
struct Whole(Option<Bytes>);

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use mirror_proto::v1;
    use prost::Message as _;

    use super::*;

    fn counted(bytes: &[u8]) -> (usize, usize) {
        let message = POOL.as_ref().unwrap().get_message_by_name("mirror.v1.PlanProjectsRequest").unwrap();
        let mut held = Held::default();
        let _ = held.count(&message, bytes, 0);
        (held.projects, held.messages)
    }

    #[test]
    fn messages_are_counted_at_every_depth() {
        let target = || v1::PlacementTarget { agent: "agents/ftp1".to_owned(), ..Default::default() };
        let project = v1::Project {
            name: "projects/a".to_owned(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            upstreams: vec![v1::Upstream::default(); 3],
            placement: Some(v1::PlacementSettings {
                origins: vec![target(), target()],
                ..Default::default()
            }),
            ..Default::default()
        };
        let declared = v1::DeclaredProject { project: Some(Box::new(project)), ..Default::default() };
        let request = v1::PlanProjectsRequest { projects: vec![declared; 2], prune: true, paused: false };
        // Itself, the project, three upstreams, the placement, two places.
        assert_eq!(counted(&request.encode_to_vec()), (2, 16));
        // Several parts of one project are one project to prost, and none of them is free.
        let parts = [0x0a, 6, 0x0a, 0, 0x0a, 0, 0x0a, 0];
        assert_eq!(counted(&parts), (1, 4));
        let mut broken = request.encode_to_vec();
        broken.push(0x0f);
        assert_eq!(counted(&broken), (2, 16), "what stands before the fault is counted");
    }
}
