//! Agents that do not behave: every message of a session in every hostile form, out of order, too large, too many.

use std::time::{Duration, Instant};

use mirror_proto::v1::{
    self, open_session_request::Message as Says, open_session_response::Message as Hears,
};
use prost::Message as _;
use prost_reflect::DynamicMessage;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, client::Grpc, transport::Channel};

use super::{
    fleet, generate,
    messages::{PATIENCE, Raw, is_proper},
};

/// Messages that wait to be sent.
const OUTBOX_LEN: usize = 16;
/// Attempts in one progress report; the most that are taken.
const ATTEMPTS: usize = 1_024;
/// What has to be told a million times.
const UPDATES: usize = 1_000_000;

fn hello() -> Says {
    Says::Hello(v1::Hello {
        instance_id: "018f3f6e-8d2c-7b1a-9c55-0123456789ab".to_owned(),
        state_id: "018f3f6e-8d2c-7b1a-9c55-ba9876543210".to_owned(),
        version: "by hand".to_owned(),
        rsync_version: "3.5.0".to_owned(),
        slots: 8,
        inventory: Some(v1::Inventory::default()),
        ..v1::Hello::default()
    })
}

fn bytes_of(message: Says) -> Vec<u8> {
    v1::OpenSessionRequest { message: Some(message) }.encode_to_vec()
}

fn some_key() -> v1::AttemptKey {
    let run = "01a1f797-47f1-7c02-9d1f-8a3b6f20c1de".to_owned();
    v1::AttemptKey { run, attempt: 1, epoch: Some(v1::Epoch { term: 1, counter: 1 }) }
}

/// One session, in bytes.
struct Talk {
    say: mpsc::Sender<Vec<u8>>,
    hear: Streaming<Vec<u8>>,
}

impl Talk {
    async fn begin(channel: &Channel, first: Vec<u8>) -> Result<Self, Status> {
        let (say, said) = mpsc::channel(OUTBOX_LEN);
        say.try_send(first).unwrap();
        let mut client = Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let path = "/mirror.v1.SessionService/OpenSession".parse().unwrap();
        let opening = client.streaming(Request::new(ReceiverStream::new(said)), path, Raw);
        let hear = timeout(PATIENCE, opening).await.expect("an answer in time")?.into_inner();
        Ok(Self { say, hear })
    }

    /// The next message, or how the session ended.
    async fn next(&mut self) -> Result<Hears, Status> {
        let heard = timeout(PATIENCE, self.hear.message()).await.expect("no session hangs")?;
        let bytes = heard.ok_or_else(|| Status::cancelled("ended without a word"))?;
        Ok(v1::OpenSessionResponse::decode(bytes.as_slice()).unwrap().message.unwrap())
    }

    /// How it ends.
    async fn end(mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

#[tokio::test]
async fn every_message_of_a_session_in_every_hostile_form() {
    let (fleet, _) = fleet().await;
    let papers = fleet.enroll("edge1").await;
    let channel = fleet.dial(Some(&papers)).await;
    let request = generate::pool().get_message_by_name("mirror.v1.OpenSessionRequest").unwrap();
    let (mut cases, mut refused) = (0, 0);
    for field in request.fields() {
        let kind = field.kind();
        for (case, inner) in generate::hostile(kind.as_message().unwrap()) {
            let what = format!("{} with {case}", field.name());
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(u64::from(field.number()) << 3 | 2, &mut bytes);
            prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
            bytes.extend(inner);
            let decodable = DynamicMessage::decode(request.clone(), bytes.as_slice()).is_ok();
            cases += 1;
            // As the first message, where only a hello may be.
            if field.name() == "hello" {
                if let Err(status) = Talk::begin(&channel, bytes.clone()).await {
                    is_proper(&what, &status, decodable);
                    refused += 1;
                }
                continue;
            }
            // Behind a hello; a second one ends what has not ended by it.
            let talk = Talk::begin(&channel, bytes_of(hello())).await.unwrap();
            for message in [bytes, bytes_of(hello())] {
                // It may be over by now.
                drop(talk.say.send(message).await);
            }
            let ended = talk.end().await;
            is_proper(&what, &ended, decodable);
            refused += usize::from(!ended.message().contains("a hello comes first"));
        }
    }
    println!("{cases} cases, {refused} refused by themselves");
    assert!(cases > 300 && refused > 100);
    let known = fleet.handle.services().driver.view().projects_by_name().count();
    assert_eq!(known, 0);
    fleet.end().await;
}

#[tokio::test]
async fn what_comes_out_of_order_changes_nothing() {
    let (fleet, _) = fleet().await;
    let papers = fleet.enroll("edge1").await;
    let channel = fleet.dial(Some(&papers)).await;
    let accepted = || Says::Accepted(v1::Accepted { key: Some(some_key()) });
    let first = Talk::begin(&channel, bytes_of(accepted())).await.err().expect("no hello");
    assert_eq!(first.code(), Code::InvalidArgument, "{first:?}");
    let large = Says::Hello(v1::Hello { jail_gaps: vec!["x".repeat(1 << 20)], ..v1::Hello::default() });
    let large = Talk::begin(&channel, bytes_of(large)).await.err().expect("too large");
    assert_eq!(large.code(), Code::OutOfRange, "{large:?}");

    let mut talk = Talk::begin(&channel, bytes_of(hello())).await.unwrap();
    assert!(matches!(talk.next().await, Ok(Hears::Welcome(_))));
    // Of an attempt that nobody knows: an answer to nothing, a log that nobody follows, an end that is told off.
    let outcome = v1::Outcome { class: v1::outcome::Class::Ok.into(), ..v1::Outcome::default() };
    for message in [
        accepted(),
        Says::LogChunk(v1::LogChunk { key: Some(some_key()), data: b"\x1b[31m".to_vec() }),
        Says::Exporting(v1::Exporting { serial: 99, ..v1::Exporting::default() }),
        Says::ProbeResult(v1::ProbeResult { id: 99, findings: Vec::new() }),
        Says::Ended(v1::Ended {
            key: Some(some_key()),
            outcome: Some(v1::Outcome { end_time: Some(prost_types::Timestamp::default()), ..outcome }),
            log_tail: b"forged".to_vec(),
            ..v1::Ended::default()
        }),
    ] {
        talk.say.send(bytes_of(message)).await.unwrap();
    }
    let fenced = loop {
        if let Hears::Acknowledge(acknowledge) = talk.next().await.expect("the session goes on") {
            break acknowledge;
        }
    };
    assert!(fenced.fenced && fenced.key == Some(some_key()));
    let chunk = v1::LogChunk { key: Some(some_key()), data: vec![0; (64 << 10) + 1] };
    talk.say.send(bytes_of(Says::LogChunk(chunk))).await.unwrap();
    let ended = talk.end().await;
    assert_eq!(ended.code(), Code::InvalidArgument, "{ended:?}");
    fleet.end().await;
}

#[tokio::test]
async fn a_million_updates_keep_nobody_waiting() {
    let (fleet, mut projects) = fleet().await;
    let papers = fleet.enroll("edge1").await;
    let channel = fleet.dial(Some(&papers)).await;
    let talk = Talk::begin(&channel, bytes_of(hello())).await.unwrap();
    let one = v1::AttemptProgress { key: Some(some_key()), progress: Some(v1::Progress::default()) };
    let report = bytes_of(Says::Progress(v1::ProgressReport { attempts: vec![one; ATTEMPTS] }));
    let say = talk.say.clone();
    let flood = tokio::spawn(async move {
        for _ in 0..UPDATES.div_ceil(ATTEMPTS) {
            say.send(report.clone()).await.unwrap();
        }
    });
    let mut took = Vec::new();
    while !flood.is_finished() {
        let began = Instant::now();
        let list = projects.list_projects(v1::ListProjectsRequest::default());
        timeout(PATIENCE, list).await.expect("an answer in time").unwrap();
        took.push(began.elapsed());
    }
    flood.await.unwrap();
    talk.say.send(bytes_of(hello())).await.unwrap();
    let ended = talk.end().await;
    assert_eq!(ended.code(), Code::InvalidArgument, "it was heard to the end: {ended:?}");
    took.sort();
    println!(
        "{UPDATES} updates; {} answers meanwhile, half of them in {:?}",
        took.len(),
        took[took.len() / 2]
    );
    assert!(took[took.len() / 2] < Duration::from_secs(1), "{took:?}");
    fleet.end().await;
}
