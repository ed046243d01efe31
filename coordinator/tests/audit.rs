//! The audit log through the real port: what leaves an event, what is in it, how it is read, and that a flood of refusals
//! is bounded.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod wire_common;

use std::{collections::BTreeMap, time::Duration};

use fleet::{agent::UserRole, time::Wall};
use mirror_coordinator::{audit, offline, rpc::policy, user_certificate::user_certificate};
use mirror_proto::{
    status::Fault,
    v1::{self, AuditChange, AuditEvent, AuditOutcome},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming, transport::Channel};
use v1::session_service_client::SessionServiceClient;
use wire_common::{Fleet, PATIENCE, Papers};

/// The whole log, oldest first, page by page.
async fn all(fleet: &Fleet, request: v1::ListAuditEventsRequest) -> Vec<AuditEvent> {
    let mut client = fleet.fleet(Some(&fleet.root())).await;
    let (mut events, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListAuditEventsRequest { page_token, ..request.clone() };
        let page = client.list_audit_events(request).await.unwrap().into_inner();
        events.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return events;
        }
    }
}

async fn events(fleet: &Fleet, filter: &str) -> Vec<AuditEvent> {
    let filter = filter.to_owned();
    all(fleet, v1::ListAuditEventsRequest { filter, oldest_first: true, ..Default::default() }).await
}

/// Waits until the log has so many events of this kind: what changes nothing is recorded soon, not at once.
async fn until(fleet: &Fleet, filter: &str, count: usize) -> Vec<AuditEvent> {
    let mut audited = fleet.handle.services().driver.audited();
    let wait = async {
        loop {
            audited.mark_unchanged();
            let found = events(fleet, filter).await;
            if found.len() >= count {
                return found;
            }
            audited.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no {count} events of {filter:?} in time"))
}

fn row(resource: &str, field: &str, old: &str, new: &str) -> AuditChange {
    AuditChange {
        resource: resource.to_owned(),
        field: field.to_owned(),
        old: old.to_owned(),
        new: new.to_owned(),
    }
}

/// Calls a method with an empty request.
async fn call(channel: Channel, method: &'static str) -> Result<(), tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = http::uri::PathAndQuery::from_static(method);
    client.unary(Request::new(()), path, codec).await.map(|_| ())
}

#[tokio::test]
async fn every_method_of_the_table_that_changes_something_leaves_one_event_and_no_read_does() {
    let fleet = Fleet::start().await;
    let channel = fleet.dial(Some(&fleet.root())).await;
    let mut wanted = 0;
    for (method, _) in policy::TABLE {
        // What streams is no change, and an agent's session speaks of itself.
        let streams = ["/OpenSession", "/WatchRun", "/TailRunLog", "/WatchAuditEvents"];
        if !method.starts_with("/mirror.v1.") || streams.iter().any(|name| method.ends_with(name)) {
            continue;
        }
        let done = call(channel.clone(), method).await;
        // The only ones that need no word about what is meant.
        let blank = ["/Freeze", "/Thaw", "/Backup"].iter().any(|name| method.ends_with(name));
        assert!(!audit::covers(method) || done.is_ok() == blank, "{method}: {done:?}");
        wanted += usize::from(audit::covers(method));
    }
    assert!(wanted > 20, "{wanted}");
    let found = until(&fleet, "who=users/root", wanted).await;
    let mut by_action: BTreeMap<String, usize> = BTreeMap::new();
    for event in &found {
        *by_action.entry(format!("/mirror.v1.{}", event.action.replacen('.', "/", 1))).or_default() += 1;
        assert!(event.from.starts_with("127.0.0.1:"), "{event:?}");
        assert!(!event.request_id.is_empty() && event.count == 1, "{event:?}");
    }
    for (method, _) in policy::TABLE {
        let count = by_action.get(*method).copied().unwrap_or(0);
        assert_eq!(count, usize::from(audit::covers(method)), "events of {method}");
    }
    fleet.end().await;
}

#[tokio::test]
async fn an_event_says_who_what_from_where_old_and_new_and_outlives_restart_and_restore() {
    let fleet = Fleet::start().await;
    let mut client = fleet.fleet(Some(&fleet.root())).await;
    let mut freeze = Request::new(v1::FreezeRequest { reason: "array swap".to_owned() });
    freeze.metadata_mut().insert("x-request-id", "ticket-4711".parse().unwrap());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    freeze.metadata_mut().insert("traceparent", format!("00-{trace}-00f067aa0ba902b7-01").parse().unwrap());
    client.freeze(freeze).await.unwrap();
    client.thaw(v1::ThawRequest {}).await.unwrap();
    // That somebody asked is told, and that nothing was changed.
    client.thaw(v1::ThawRequest {}).await.unwrap();
    let found = events(&fleet, "resource=fleet who=users/root").await;
    let [frozen, thawed, again] = &found[..] else { panic!("{found:?}") };
    assert!(again.changes.is_empty(), "{again:?}");
    assert_eq!(frozen.changes, [row("fleet", "frozen", "", "array swap")]);
    assert_eq!(thawed.changes, [row("fleet", "frozen", "array swap", "")]);
    assert_eq!((frozen.action.as_str(), frozen.outcome()), ("FleetService.Freeze", AuditOutcome::Done));
    assert_eq!((frozen.request_id.as_str(), frozen.trace_id.as_str()), ("ticket-4711", trace));
    assert!(frozen.time.is_some() && frozen.id < thawed.id && frozen.reason.is_empty());
    let before = events(&fleet, "").await;
    drop(client);
    let backup = fleet.dir.path().join("kept.backup");
    let glass = fleet.dir.path().join("glass");
    let fleet = fleet.restart(|config| drop(offline::backup(config, &backup).unwrap())).await;
    let fleet = fleet.restart(|config| drop(user_certificate(config, "root", &glass).unwrap())).await;
    assert_eq!(events(&fleet, "resource=users/root action=UserCertificate").await.len(), 1);
    let fleet = fleet.restart(|config| drop(offline::restore(config, &backup).unwrap())).await;
    let after = events(&fleet, "").await;
    assert_eq!(after[..before.len()], before, "the backup has the log");
    let actions: Vec<&str> = after[before.len()..].iter().map(|event| event.action.as_str()).collect();
    assert_eq!(actions, [audit::RESTORED, audit::STARTED]);
    let term = &after.last().unwrap().changes[0];
    assert_eq!(term.field, "term");
    assert!(term.new.parse::<u64>().unwrap() > 1_000_000_000, "the term jumps: {term:?}");
    fleet.end().await;
}

#[tokio::test]
async fn how_hosts_get_in_and_out_is_told_and_no_secret_is() {
    let fleet = Fleet::start().await;
    let token = fleet.token("edge1").await;
    let (_, papers) = fleet.try_enroll(&token, "edge1").await.unwrap();
    fleet.try_enroll(&token, "edge1").await.unwrap_err();
    let renewed = fleet.renew(&papers.key, &papers.certificate).await.unwrap();
    let mut agents = fleet.agents(Some(&fleet.root())).await;
    let revoke = v1::RevokeAgentRequest { name: "agents/edge1".to_owned(), reason: "sold".to_owned() };
    agents.revoke_agent(revoke).await.unwrap();
    fleet.renew(&papers.key, &renewed.certificate).await.unwrap_err();
    let wrong = v1::DeleteJoinTokenRequest { name: format!("joinTokens/{token}") };
    agents.delete_join_token(wrong).await.unwrap_err();

    let made = until(&fleet, "action=CreateJoinToken", 1).await.remove(0);
    assert!(made.resource.starts_with("joinTokens/") && made.who == "users/root", "{made:?}");
    let enrolled = until(&fleet, "action=Enroll", 2).await;
    let uses = |event: &AuditEvent| event.changes.iter().find(|row| row.field == "uses_left").cloned();
    let spent = uses(&enrolled[0]).expect("which token");
    assert_eq!((spent.resource.as_str(), spent.old.as_str()), (made.resource.as_str(), "1"));
    assert_eq!((enrolled[0].who.as_str(), enrolled[0].resource.as_str()), ("nobody", "agents/edge1"));
    assert_eq!(
        (enrolled[1].outcome(), enrolled[1].reason.as_str()),
        (AuditOutcome::Refused, "BAD_JOIN_TOKEN")
    );
    assert!(enrolled.iter().all(|event| event.from.starts_with("127.0.0.1:")));
    let renewals = until(&fleet, "action=Renew", 2).await;
    let serial = renewals[0].changes.iter().find(|row| row.field == "certificate_serial").unwrap();
    assert!(serial.resource == "agents/edge1" && serial.old != serial.new && !serial.old.is_empty());
    assert!(renewals[1].message.contains("deny list"), "what the caller is not told: {:?}", renewals[1]);
    let revoked = events(&fleet, "agent=edge1 action=RevokeAgent").await.remove(0);
    assert!(revoked.changes.contains(&row("agents/edge1", "revoke_reason", "", "sold")), "{revoked:?}");
    assert!(revoked.changes.contains(&row("agents/edge1", "revoked", "false", "true")), "{revoked:?}");
    until(&fleet, "action=DeleteJoinToken", 1).await;
    let log = format!("{:?}", events(&fleet, "").await);
    let key: Vec<&str> = papers.key.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(!log.contains(&token) && key.iter().all(|line| !log.contains(line)), "a secret is in {log}");
    fleet.end().await;
}

#[tokio::test]
async fn a_flood_of_refusals_is_one_event_and_a_count() {
    const CALLS: u64 = 500;
    let fleet = Fleet::start().await;
    let vera = fleet.user("vera", UserRole::Viewer).await;
    let channel = fleet.dial(Some(&vera)).await;
    for _ in 0..CALLS {
        call(channel.clone(), "/mirror.v1.FleetService/Freeze").await.unwrap_err();
    }
    // An agent's session by somebody who is none, and a read that its role forbids.
    call(channel.clone(), "/mirror.v1.AgentService/ListJoinTokens").await.unwrap_err();
    fleet.handle.services().driver.flush_notes(true);
    let refused = until(&fleet, "who=users/vera action=FleetService.Freeze outcome=refused", 2).await;
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert_eq!(refused.iter().map(|event| event.count).sum::<u64>(), CALLS);
    assert_eq!(refused[0].reason, "NOT_ALLOWED");
    assert_eq!(until(&fleet, "action=ListJoinTokens outcome=refused", 1).await.len(), 1);
    fleet.end().await;
}

#[tokio::test]
async fn a_follower_gets_every_event_once_from_where_it_was() {
    const ROUNDS: usize = 30;
    let fleet = Fleet::start().await;
    let mut client = fleet.fleet(Some(&fleet.root())).await;
    let start = client.list_audit_events(v1::ListAuditEventsRequest::default()).await.unwrap().into_inner();
    let watch = |after: String| v1::WatchAuditEventsRequest { after, filter: "resource=fleet".to_owned() };
    let mut early = client.watch_audit_events(watch(start.newest_id.clone())).await.unwrap().into_inner();
    for round in 0..ROUNDS {
        client.freeze(v1::FreezeRequest { reason: round.to_string() }).await.unwrap();
        client.thaw(v1::ThawRequest {}).await.unwrap();
    }
    let written: Vec<String> =
        events(&fleet, "who=users/root").await.into_iter().map(|event| event.id).collect();
    assert_eq!(written.len(), 2 * ROUNDS);
    assert_eq!(follow(&mut early, 2 * ROUNDS).await, written);
    // Who comes back goes on after the last one that it has seen.
    let mut late = client.watch_audit_events(watch(written[ROUNDS].clone())).await.unwrap().into_inner();
    assert_eq!(follow(&mut late, ROUNDS - 1).await, written[ROUNDS + 1..]);
    let bad = client.watch_audit_events(watch("yesterday".to_owned())).await.unwrap_err();
    assert_eq!(Fault::from(&bad).violations[0].field, "after");
    fleet.end().await;
}

async fn follow(stream: &mut Streaming<v1::WatchAuditEventsResponse>, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let next = timeout(PATIENCE, stream.message()).await.expect("an event in time").unwrap().unwrap();
        seen.extend(next.events.into_iter().map(|event| event.id));
    }
    seen
}

#[tokio::test]
async fn pages_go_both_ways_and_old_events_are_pruned() {
    let fleet = Fleet::start().await;
    let mut client = fleet.fleet(Some(&fleet.root())).await;
    for round in 0..7 {
        client.freeze(v1::FreezeRequest { reason: format!("round {round}") }).await.unwrap();
    }
    let page_size = 3;
    let oldest = v1::ListAuditEventsRequest { page_size, oldest_first: true, ..Default::default() };
    let forth = all(&fleet, oldest.clone()).await;
    let mut back = all(&fleet, v1::ListAuditEventsRequest { page_size, ..Default::default() }).await;
    back.reverse();
    assert!(forth.len() > 7 && forth == back, "{forth:?}\n{back:?}");
    // From the fourth one on, and before it: times are to the millisecond and ids are of the same clock.
    let (since, id) = (forth[3].time, forth[3].id.clone());
    let from = all(&fleet, v1::ListAuditEventsRequest { since, ..oldest.clone() }).await;
    let to = all(&fleet, v1::ListAuditEventsRequest { until: since, ..oldest }).await;
    assert!(from.iter().any(|event| event.id == id) && to.iter().all(|event| event.id != id));
    assert_eq!(from.len() + to.len(), forth.len());
    let newest = v1::ListAuditEventsRequest { since, ..Default::default() };
    assert_eq!(all(&fleet, newest).await.len(), from.len());
    let bad = v1::ListAuditEventsRequest { filter: "x".to_owned(), page_size: -1, ..Default::default() };
    let faults = Fault::from(&client.list_audit_events(bad).await.unwrap_err()).violations;
    assert_eq!(faults.len(), 2, "{faults:?}");

    let store = fleet.handle.services().driver.store().clone();
    let millis =
        |time: &prost_types::Timestamp| Wall(time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000);
    let removed = store.prune_audit(millis(&since.unwrap())).unwrap();
    assert_eq!(removed, to.len());
    assert_eq!(events(&fleet, "").await, from);
    assert_eq!(store.prune_audit(millis(&since.unwrap())).unwrap(), 0);
    client.thaw(v1::ThawRequest {}).await.unwrap();
    assert_eq!(events(&fleet, "").await.len(), from.len() + 1);
    fleet.end().await;
}

#[tokio::test]
async fn a_second_program_with_one_identity_is_told() {
    let fleet = Fleet::start().await;
    let papers = fleet.enroll("edge1").await;
    let (say, mut heard) = session(&fleet, &papers).await.unwrap();
    // It is alive.
    let first = tokio::spawn(async move {
        while let Ok(Some(response)) = heard.message().await {
            if let Some(v1::open_session_response::Message::Ping(v1::Ping { id })) = response.message {
                let message = Some(v1::open_session_request::Message::Pong(v1::Pong { id }));
                say.send(v1::OpenSessionRequest { message }).await.unwrap();
            }
        }
    });
    let refused = session(&fleet, &papers).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused:?}");
    let found = until(&fleet, "agent=edge1 action=DuplicateIdentity", 1).await;
    assert_eq!((found[0].resource.as_str(), found[0].outcome()), ("agents/edge1", AuditOutcome::Refused));
    assert!(found[0].message.contains("a second program"), "{found:?}");
    first.abort();
    fleet.end().await;
}

type Open = (mpsc::Sender<v1::OpenSessionRequest>, Streaming<v1::OpenSessionResponse>);

/// Opens a session and says hello, as another program each time.
async fn session(fleet: &Fleet, papers: &Papers) -> Result<Open, tonic::Status> {
    let (say, said) = mpsc::channel(8);
    let hello = v1::Hello {
        instance_id: uuid::Uuid::new_v4().to_string(),
        state_id: "7d1c0f0a-0b6b-4a53-9f3e-0f5c0b6f9a11".to_owned(),
        version: "0.1.0".to_owned(),
        rsync_version: "3.5.0".to_owned(),
        inventory: Some(v1::Inventory::default()),
        ..Default::default()
    };
    let message = Some(v1::open_session_request::Message::Hello(hello));
    say.send(v1::OpenSessionRequest { message }).await.unwrap();
    let mut client = SessionServiceClient::new(fleet.dial(Some(papers)).await);
    let answer = timeout(Duration::from_secs(30), client.open_session(ReceiverStream::new(said))).await;
    answer.expect("an answer in time").map(|answer| (say, answer.into_inner()))
}
