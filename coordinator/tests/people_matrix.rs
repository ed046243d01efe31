//! Every served method × every kind of caller × what is the caller's own and what is not, against a real coordinator:
//! certificates, tokens and the coordinator's own socket, people who are shut out, and agents.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod design;
mod wire_common;

use std::{collections::BTreeMap, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes};
use design::{DESIGN, descriptors, full, served};
use fleet::agent::UserRole;
use fleet::input::{Reply, UserAsk};
use mirror_certs::UserToken;
use mirror_coordinator::rpc::gate::token_id;
use mirror_proto::{status::Fault, v1};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use wire_common::{Fleet, dial_socket};

const HOUR: Duration = Duration::from_secs(3_600);
const RUN: &str = "01a1f797-47f1-7c02-9d1f-8a3b6f20c1de";
/// The reasons by which a caller is told that he may not.
const REASONS: [&str; 8] = [
    "NO_IDENTITY",
    "NOT_ALLOWED",
    "NOT_OWNER",
    "NOT_ITS_PROJECT",
    "NOT_FOR_AGENTS",
    "USER_DISABLED",
    "UNKNOWN_USER",
    "TOKEN_NOT_GOOD",
];

/// Messages as they are on the wire.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
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
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Somebody who calls.
struct Caller {
    what: &'static str,
    /// The letter of the design's table; `x` is let through nowhere but where all are, and so is `P`, a push token, but
    /// to push.
    letter: char,
    user: &'static str,
    channel: Channel,
    /// What is sent besides.
    token: Option<String>,
}

/// The input of a method that names `project` and `user`, and is wrong in some other way wherever it would do
/// something that others in this test need undone.
fn input(pool: &DescriptorPool, method: &str, project: &str, user: &str) -> Bytes {
    let (service, name) = method.trim_start_matches('/').split_once('/').unwrap();
    let service = pool.get_service_by_name(service).unwrap();
    let method = service.methods().find(|method| method.name() == name).unwrap();
    let short = service.name().to_owned();
    let subject = match (short.as_str(), name) {
        ("ProjectService", _) | ("RunService", "ListRuns") => format!("projects/{project}"),
        ("RunService", _) => format!("projects/{project}/runs/{RUN}"),
        ("UserService", "RevokeToken") => format!("users/{user}/tokens/none"),
        ("UserService", _) => format!("users/{user}"),
        (_, "DeleteJoinToken") => "joinTokens/none".to_owned(),
        _ => "agents/none".to_owned(),
    };
    let mut message = DynamicMessage::new(method.input());
    for (field, text) in
        [("name", subject.as_str()), ("parent", &subject), ("etag", "x"), ("password", "short")]
    {
        if message.get_field_by_name(field).is_some_and(|value| value.as_str().is_some()) {
            message.set_field_by_name(field, Value::String(text.to_owned()));
        }
    }
    for (field, etag) in [("project", "x"), ("user", "x")] {
        let nested = message.get_field_by_name(field).and_then(|value| value.as_message().cloned());
        if let Some(mut nested) = nested.filter(|_| name.starts_with("Update")) {
            nested.set_field_by_name("name", Value::String(subject.clone()));
            nested.set_field_by_name("etag", Value::String(etag.to_owned()));
            message.set_field_by_name(field, Value::Message(nested));
        }
    }
    message.encode_to_vec().into()
}

/// Whether the method was let through: whatever it then says of its input.
async fn is_let_through(fleet: &Fleet, caller: &Caller, method: &str, input: Bytes) -> bool {
    let mut request = Request::new(input);
    if let Some(token) = &caller.token {
        let ends_it = method.ends_with("/Logout") && !['x', 'P'].contains(&caller.letter);
        let token = if ends_it { fleet.user_token(caller.user, HOUR).await } else { token.clone() };
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let mut client = Grpc::new(caller.channel.clone());
    client.ready().await.unwrap();
    let path = method.parse().unwrap();
    match client.server_streaming(request, path, Raw).await {
        Ok(_) => true,
        Err(status) => !REASONS.contains(&Fault::from(&status).reason.as_str()),
    }
}

/// The fleet of this test: one agent, a project of wim's and one of nobody's.
async fn people() -> (Fleet, Vec<Caller>) {
    let fleet = Fleet::start().await;
    let agent = fleet.enroll("ftp1").await;
    let mut callers = vec![
        Caller { what: "nobody", letter: 'N', user: "nobody", channel: fleet.dial(None).await, token: None },
        Caller {
            what: "an agent",
            letter: 'G',
            user: "ftp1",
            channel: fleet.dial(Some(&agent)).await,
            token: None,
        },
    ];
    for (user, letter, role) in [
        ("vera", 'V', UserRole::Viewer),
        ("wim", 'W', UserRole::Owner),
        ("olga", 'O', UserRole::Operator),
        ("anna", 'A', UserRole::Admin),
    ] {
        let papers = fleet.user(user, role).await;
        let certified = fleet.dial(Some(&papers)).await;
        callers.push(Caller { what: "a certificate", letter, user, channel: certified, token: None });
        let channel = fleet.dial(None).await;
        let token = Some(fleet.user_token(user, HOUR).await);
        callers.push(Caller { what: "a token", letter, user, channel, token });
    }
    let gone = fleet.user("dora", UserRole::Admin).await;
    let channel = fleet.dial(Some(&gone)).await;
    callers.push(Caller { what: "a disabled user", letter: 'x', user: "dora", channel, token: None });
    let disable =
        UserAsk::Update { user: "dora".parse().unwrap(), role: None, disabled: Some(true), revision: None };
    assert_eq!(fleet.ask_user(disable).await, Reply::Done);
    let channel = fleet.dial(None).await;
    let token = fleet.user_token("anna", HOUR).await;
    let id = token_id(&token.parse::<UserToken>().unwrap().hash()).to_owned();
    let revoke = UserAsk::RevokeToken { user: "anna".parse().unwrap(), id };
    assert_eq!(fleet.ask_user(revoke).await, Reply::Done);
    callers.push(Caller { what: "a revoked token", letter: 'x', user: "anna", channel, token: Some(token) });
    let socket = dial_socket(fleet.file("admin.sock")).await.unwrap();
    callers.push(Caller { what: "the socket", letter: 'A', user: "nobody", channel: socket, token: None });
    let mut projects =
        v1::project_service_client::ProjectServiceClient::new(fleet.dial(Some(&fleet.root())).await);
    for (name, owner) in [("mine", "users/wim"), ("theirs", "")] {
        let target = v1::PlacementTarget { agent: "agents/ftp1".to_owned(), ..Default::default() };
        let project = v1::Project {
            name: format!("projects/{name}"),
            owner: owner.to_owned(),
            destination: format!("a1:{name}"),
            placement: Some(v1::PlacementSettings { origins: vec![target], ..Default::default() }),
            ..Default::default()
        };
        let request = v1::CreateProjectRequest { project: Some(project), ..Default::default() };
        projects.create_project(request).await.unwrap();
    }
    let mut admin = v1::user_service_client::UserServiceClient::new(fleet.dial(Some(&fleet.root())).await);
    let request = v1::CreatePushTokenRequest { project: "projects/mine".to_owned(), ..Default::default() };
    let token = Some(admin.create_push_token(request).await.unwrap().into_inner().token);
    let channel = fleet.dial(None).await;
    callers.push(Caller { what: "a push token", letter: 'P', user: "nobody", channel, token });
    (fleet, callers)
}

#[tokio::test]
async fn every_method_lets_through_whom_the_design_names_and_nobody_else() {
    let (fleet, callers) = people().await;
    let pool = descriptors();
    let mut wrong = Vec::new();
    for (method, own, foreign) in DESIGN {
        let full = full(method);
        for (whose, letters) in [("own", own), ("foreign", foreign)] {
            for caller in &callers {
                let (project, user) = if whose == "own" { ("mine", caller.user) } else { ("theirs", "root") };
                let open = letters.starts_with('N');
                let pushes = caller.letter == 'P' && method == "ProjectService/PushProject" && whose == "own";
                let wanted = letters.contains(caller.letter) || open || pushes;
                let through = is_let_through(&fleet, caller, &full, input(&pool, &full, project, user)).await;
                if through != wanted {
                    wrong.push(format!("{method}, {whose}, {} ({}): {through}", caller.what, caller.user));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "let through or not, against the design:\n{}", wrong.join("\n"));
    fleet.end().await;
}

/// What the design's table leaves out, because it is no method of ours.
#[tokio::test]
async fn a_push_token_is_let_through_by_no_other_method_that_is_served() {
    let (fleet, callers) = people().await;
    let pool = descriptors();
    let token = callers.iter().find(|caller| caller.letter == 'P').unwrap();
    let table: Vec<String> = DESIGN.iter().map(|(method, ..)| full(method)).collect();
    let mut others = served();
    others.retain(|method| !table.contains(method));
    assert_eq!(others.len(), 3, "{others:?}");
    for method in others {
        let through = is_let_through(&fleet, token, &method, input(&pool, &method, "mine", "nobody")).await;
        assert_eq!(through, method == "/grpc.health.v1.Health/Watch", "{method}");
    }
    fleet.end().await;
}

#[tokio::test]
async fn an_owner_is_told_what_is_his() {
    let (fleet, callers) = people().await;
    let wim = callers.iter().find(|caller| caller.user == "wim").unwrap();
    let mut projects = v1::project_service_client::ProjectServiceClient::new(wim.channel.clone());
    let pause = |name: &str| v1::PauseProjectRequest {
        name: format!("projects/{name}"),
        reason: "disk".to_owned(),
        ..Default::default()
    };
    let refused = projects.pause_project(pause("theirs")).await.unwrap_err();
    assert_eq!(refused.message(), "you may not pause theirs: you own mine");
    let paused = projects.pause_project(pause("mine")).await.unwrap().into_inner().paused.unwrap();
    assert_eq!(paused.by, "users/wim");
    let filters: BTreeMap<&str, Vec<&str>> =
        BTreeMap::from([("owner=wim", vec!["projects/mine"]), ("owner=", vec!["projects/theirs"])]);
    for (filter, wanted) in filters {
        let request = v1::ListProjectsRequest { filter: filter.to_owned(), ..Default::default() };
        let found = projects.list_projects(request).await.unwrap().into_inner().projects;
        assert_eq!(found.iter().map(|project| project.name.as_str()).collect::<Vec<_>>(), wanted, "{filter}");
    }
    fleet.end().await;
}
