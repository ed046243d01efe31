//! Every rpc with every hostile message of its type: answered with a proper status, in time, and what is refused
//! changes nothing.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use mirror_proto::status::Fault;
use prost_reflect::DynamicMessage;
use tokio::time::timeout;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

use super::{fleet, generate, records};

/// No answer takes nearly as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Messages as the bytes they are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}

/// What has nothing to say until something happens is not waited for: that it is open is its answer.
const SILENT: &str = "/mirror.v1.FleetService/WatchAuditEvents";

/// Asks, and takes the first message or the refusal.
pub(crate) async fn ask(channel: &Channel, path: &str, bytes: Vec<u8>) -> Result<Option<Vec<u8>>, Status> {
    let asking = async {
        let mut client = Grpc::new(channel.clone());
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let answer = client.server_streaming(Request::new(bytes), path.parse().unwrap(), Raw).await?;
        if path == SILENT { Ok(None) } else { answer.into_inner().message().await }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{path} hangs"))
}

/// A refusal that people and programs can do something with, and that no terminal obeys.
pub(crate) fn is_proper(what: &str, status: &Status, decodable: bool) {
    let fault = Fault::from(status);
    let known = match status.code() {
        // By gRPC's own table: what cannot be decoded is INTERNAL, what is too large may be OUT_OF_RANGE.
        Code::Internal => !decodable && fault.reason != "PANIC",
        Code::OutOfRange => true,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::ResourceExhausted
        | Code::PermissionDenied
        | Code::Unauthenticated => !fault.reason.is_empty() || status.code() == Code::InvalidArgument,
        _ => false,
    };
    assert!(known, "{what}: {status:?}");
    let violations = fault.violations.iter().flat_map(|one| [&one.field, &one.description]);
    for text in violations.chain([&fault.message]) {
        let shown = rsync::text::printable(text.as_bytes(), usize::MAX);
        assert_eq!(&shown, text, "{what} is not fit for a terminal");
    }
}

#[tokio::test]
async fn every_rpc_answers_every_hostile_message_and_what_is_refused_changes_nothing() {
    let (fleet, _) = fleet().await;
    let channel = fleet.dial(Some(&fleet.root())).await;
    let pool = generate::pool();
    let (mut asked, mut refused) = (0, 0);
    for service in pool.services() {
        for method in service.methods().filter(|method| !method.is_client_streaming()) {
            let path = format!("/{}/{}", service.full_name(), method.name());
            for (case, bytes) in generate::hostile(&method.input()) {
                let what = format!("{path} with {case}");
                let decodable = DynamicMessage::decode(method.input(), bytes.as_slice()).is_ok();
                let before = records(&fleet);
                asked += 1;
                if let Err(status) = ask(&channel, &path, bytes).await {
                    is_proper(&what, &status, decodable);
                    assert_eq!(records(&fleet), before, "{what} is refused and changes something");
                    refused += 1;
                }
            }
        }
    }
    println!("{asked} asked, {refused} refused");
    assert!(asked > 1_000 && refused > asked / 2);
    assert_eq!(fleet.handle.services().driver.view().projects_by_name().count(), 0);
    fleet.end().await;
}
