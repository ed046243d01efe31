//! One agent's stream. The hello goes to the driver, what the agent reports follows it in order, and what is said
//! to the agent comes out of its line of the [`outbox`](crate::outbox). Who speaks is known from the certificate
//! alone. However the stream ends, it is a lost link and nothing else: the agent's next hello settles everything.
//!
//! Decides nothing: a stale or foreign report is the engine's to ignore. What is bounded here is how much an agent
//! may say, how fast, and how long its hello may take.

pub(crate) mod trace;

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use fleet::{
    id::{AgentUid, AttemptId, Epoch, Name, ProjectUid},
    input::{AgentInput, Held, Input, Reply},
    refusal::{Refusal, RefusalCode, Violation},
    trash::TrashReport,
};
use mirror_proto::{
    convert,
    status::{internal, refusal_to_status, unavailable},
    v1::{
        self,
        open_session_request::Message as Heard,
        session_service_server::{SessionService, SessionServiceServer},
    },
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{Instrument as _, Span};

use crate::{
    Services, audit,
    outbox::{Claimed, SessionLine},
    rpc::{self, Caller, run::history},
};

/// How long an agent may take for its hello after it has opened the stream.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest message in either direction, in bytes: a hello with everything an agent can hold.
pub const MESSAGE_BYTES_MAX: usize = 1_024 * 1_024;
/// Messages that an agent may send at once, such as outcomes that waited for the link.
pub const MESSAGES_BURST: u32 = 1_000;
/// Pause that each message beyond that costs: 100 a second. The agent is read no faster, nothing is lost.
pub const MESSAGE_PAUSE: Duration = Duration::from_millis(10);
/// Attempts in one progress report.
pub const PROGRESS_ATTEMPTS_MAX: usize = 1_024;
/// Largest piece of a live log, in bytes.
pub const LOG_PIECE_BYTES_MAX: usize = 64 * 1024;
/// When an agent whose session could not begin may try again.
const RETRY: Duration = rpc::RETRY_UNAVAILABLE;

/// `mirror.v1.SessionService`, with its bounds.
#[must_use]
pub fn service(services: Services) -> SessionServiceServer<Sessions> {
    SessionServiceServer::new(Sessions { services })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Takes agents' streams.
#[derive(Debug)]
pub struct Sessions {
    services: Services,
}

#[tonic::async_trait]
impl SessionService for Sessions {
    type OpenSessionStream = SessionLine;

    async fn open_session(
        &self,
        request: Request<Streaming<v1::OpenSessionRequest>>,
    ) -> Result<Response<SessionLine>, Status> {
        let Caller::Agent(agent, name, peer) = rpc::caller(&request)?.clone() else {
            return Err(Status::permission_denied("only an agent's own certificate opens a session"));
        };
        let span = tracing::info_span!(parent: None, "session", agent = %name);
        let session = Session {
            services: self.services.clone(),
            agent,
            name,
            connection: peer.connection,
            address: peer.address.ip(),
            foreign_told: AtomicBool::new(false),
        };
        let (began, begin) = oneshot::channel();
        // A task of its own: once the driver knows the session it must also hear of its end, even when the
        // caller is gone before the welcome.
        tokio::spawn(session.run(request.into_inner(), began).instrument(span));
        let line = begin.await.map_err(|_| internal("SESSION_FAILED", "the session could not begin"))??;
        Ok(Response::new(line))
    }
}

/// One stream of one agent.
#[derive(Debug)]
struct Session {
    services: Services,
    agent: AgentUid,
    name: Name,
    /// Counts connections as they were accepted.
    connection: u64,
    /// Where it dials from.
    address: IpAddr,
    /// It was told that this agent speaks of another's attempts: once a session, however often it does.
    foreign_told: AtomicBool,
}

/// How listening to an agent ended.
enum Ending {
    /// The stream is over: the agent left, or the link is lost.
    Lost,
    /// The coordinator has ended the session.
    Cut,
    /// The agent said something that no agent says.
    Refused(Status),
}

impl Session {
    async fn run(
        self,
        mut inbound: Streaming<v1::OpenSessionRequest>,
        began: oneshot::Sender<Result<SessionLine, Status>>,
    ) {
        let (epoch, claimed) = match self.hello(&mut inbound).await {
            Ok(opened) => opened,
            Err(status) => {
                tracing::info!(code = ?status.code(), why = status.message(), "no session");
                // The caller may be gone; then nobody is left to be told.
                drop(began.send(Err(status)));
                return;
            }
        };
        let Claimed { line, cut } = claimed;
        tracing::info!(session = %epoch, "a session begins");
        let ending = match began.send(Ok(line)) {
            Ok(()) => self.listen(epoch, &mut inbound, &cut).await,
            Err(_) => Ending::Lost,
        };
        match ending {
            Ending::Lost => {
                self.services.outbox.leave(self.agent, epoch);
                tracing::info!(session = %epoch, "the session's link is lost");
            }
            Ending::Cut => tracing::info!(session = %epoch, "the session is over"),
            Ending::Refused(status) => {
                tracing::warn!(session = %epoch, code = ?status.code(), why = status.message(), "the session is ended");
                self.services.outbox.end(self.agent, epoch, status);
            }
        }
        self.gone(epoch).await;
    }

    /// The engine compares epochs: the end of an old session does not touch a newer one.
    async fn gone(&self, session: Epoch) {
        self.services.probes.session_over(self.agent, session);
        let gone = AgentInput::Gone { agent: self.agent, session };
        if self.services.driver.tell(Input::Agent(gone)).await.is_err() {
            tracing::debug!("the coordinator stops; no session outlives it");
        }
    }

    /// Waits for the hello, puts it to the driver, and claims what the driver has to say.
    async fn hello(
        &self,
        inbound: &mut Streaming<v1::OpenSessionRequest>,
    ) -> Result<(Epoch, Claimed), Status> {
        let first = tokio::select! {
            () = self.services.outbox.closed().cancelled() => return Err(stopping()),
            first = timeout(HELLO_TIMEOUT, inbound.message()) => first.map_err(|_| {
                Status::deadline_exceeded(format!("no hello came within {} s", HELLO_TIMEOUT.as_secs()))
            })??,
        };
        let Some(Heard::Hello(hello)) = first.and_then(|request| request.message) else {
            return Err(Status::invalid_argument("the first message of a session must be a hello"));
        };
        let read = convert::hello_from_wire(&hello).map_err(|fault| refused("hello refused", fault))?;
        let attempts = self.look_up(read.attempts).await?;
        self.only_one(&read.facts.instance_id).await?;
        let input = AgentInput::Hello {
            agent: self.agent,
            state_id: read.state_id,
            highest_term: read.highest_term,
            connection: self.connection,
            facts: read.facts,
            attempts,
        };
        let epoch = match self.services.driver.ask(Input::Agent(input)).await {
            Ok(Reply::Session(epoch)) => epoch,
            Ok(Reply::Refused(refusal)) => return Err(refusal_to_status(&refusal)),
            Ok(_) => return Err(internal("UNEXPECTED_REPLY", "the hello got an answer of another kind")),
            Err(error) => return Err(unavailable("STORE_UNAVAILABLE", &error.to_string(), RETRY)),
        };
        let Some(claimed) = self.services.outbox.claim(self.agent, epoch) else {
            self.gone(epoch).await;
            let newest = self.services.driver.view().session(self.agent).map(|session| session.epoch);
            return Err(if newest.is_some_and(|newest| newest > epoch) {
                Status::aborted("superseded by a newer session of this agent")
            } else {
                unavailable("SESSION_OVER", "the session was over before it began; say hello again", RETRY)
            });
        };
        for (attempt, epoch) in self.services.logs.live().followed_on(self.agent) {
            self.services.outbox.subscribe_log(self.agent, attempt, epoch);
        }
        Ok((epoch, claimed))
    }

    /// Enters which of the held attempts the history has as ended: the engine does not hold the history.
    async fn look_up(&self, mut held: Vec<Held>) -> Result<Vec<Held>, Status> {
        if held.is_empty() {
            return Ok(held);
        }
        let looked_up = history::read(&self.services.driver, move |store| {
            for one in &mut held {
                let attempt = store.attempt(one.project, one.attempt)?;
                // A run that has closed ends its attempts too, also one of which no record was left.
                let run = store.run(one.project, one.attempt.run)?;
                one.recorded = attempt.is_some_and(|attempt| attempt.state.end().is_some())
                    || run.is_some_and(|run| !run.is_live());
            }
            Ok(held)
        });
        looked_up.await
    }

    /// One certificate on two hosts: where another program has this agent's session and is alive, it keeps it. A program
    /// that has died makes room, and the same program may always come anew.
    async fn only_one(&self, instance: &str) -> Result<(), Status> {
        let Some((here, epoch)) = self.other_instance(instance) else { return Ok(()) };
        let ask = |id| self.services.outbox.ping(self.agent, epoch, id);
        if !self.services.twins.is_alive(self.agent, ask).await {
            tracing::info!(session = %epoch, "another program of this agent has left without a word; it is succeeded");
            return Ok(());
        }
        let (here, now) = (self.services.connections.address_of(here), self.services.driver.now().wall);
        let here = here.map(|address| address.ip());
        self.services.twins.refused(self.agent, &self.name, here, self.address, now);
        let agent = convert::agent_name(&self.name);
        let text =
            "a second program with this agent's certificate wants a session; the one that is here stays";
        let event = audit::happened(
            audit::DUPLICATE_IDENTITY,
            &agent,
            &self.address.to_string(),
            &agent,
            text.to_owned(),
        );
        self.services
            .driver
            .record_refusal(v1::AuditEvent { outcome: v1::AuditOutcome::Refused.into(), ..event });
        let at = here.map_or_else(String::new, |here| format!(" at {here}"));
        let text = format!(
            "agents/{} is connected already, by another program{at}, and that one stays; if this host is a copy of that one, \
             enrol it under a name of its own; if it replaces that one, stop the agent there",
            self.name
        );
        Err(refusal_to_status(&Refusal::new(RefusalCode::PermissionDenied, "DUPLICATE_IDENTITY", text)))
    }

    /// The connection and the epoch of a session that another program of this agent has.
    fn other_instance(&self, instance: &str) -> Option<(u64, Epoch)> {
        let view = self.services.driver.view();
        let other = view.session(self.agent).filter(|other| other.facts.instance_id != instance)?;
        Some((other.connection, other.epoch))
    }

    async fn listen(
        &self,
        epoch: Epoch,
        inbound: &mut Streaming<v1::OpenSessionRequest>,
        cut: &CancellationToken,
    ) -> Ending {
        let mut pace = Pace::new(Instant::now());
        loop {
            let due = pace.next(Instant::now());
            let next = async {
                sleep_until(due).await;
                inbound.message().await
            };
            let heard = tokio::select! {
                biased;
                () = cut.cancelled() => return Ending::Cut,
                heard = next => heard,
            };
            let request = match heard {
                Ok(Some(request)) => request,
                Ok(None) => return Ending::Lost,
                // Too large, or no message: its sender is still there and should know.
                Err(status) if matches!(status.code(), Code::OutOfRange | Code::Internal) => {
                    return Ending::Refused(status);
                }
                Err(status) => {
                    tracing::debug!(code = ?status.code(), why = status.message(), "the stream broke");
                    return Ending::Lost;
                }
            };
            if let Err(status) = self.hear(epoch, request).await {
                return Ending::Refused(status);
            }
        }
    }

    /// One message, in order: the next one is read when this one is with the driver.
    async fn hear(&self, session: Epoch, request: v1::OpenSessionRequest) -> Result<(), Status> {
        let Some(message) = request.message else {
            tracing::debug!("a message of a kind that this coordinator does not know is ignored");
            return Ok(());
        };
        match message {
            Heard::Hello(_) => Err(Status::invalid_argument("a hello comes first, and only once")),
            Heard::Accepted(accepted) => self.accepted(&accepted).await,
            Heard::Refused(refusal) => self.refused(&refusal).await,
            Heard::Ended(ended) => self.ended(ended).await,
            Heard::Progress(report) => self.progress(report),
            Heard::LogChunk(chunk) => self.log_chunk(chunk),
            Heard::ProbeResult(result) => {
                let agent = convert::agent_name(&self.name);
                let (id, probed) = convert::probe_result_from_wire(&agent, result)
                    .map_err(|fault| refused("probe result refused", fault))?;
                if !self.services.probes.answer(self.agent, id, probed) {
                    tracing::debug!(id, "nobody waits for this look any more");
                }
                Ok(())
            }
            Heard::Pong(pong) => {
                self.services.twins.sign(self.agent, pong.id);
                Ok(())
            }
            Heard::Exporting(exporting) => {
                let convert::ReadExporting { serial, serve_uri, fault, not_served } =
                    convert::exporting_from_wire(&exporting)
                        .map_err(|fault| refused("exporting refused", fault))?;
                let agent = self.agent;
                self.tell(AgentInput::Exporting { agent, session, serial, serve_uri, fault, not_served })
                    .await
            }
            Heard::Trash(report) => {
                let report = convert::trash_report_from_wire(&report)
                    .map_err(|fault| refused("trash report refused", fault))?;
                self.note_trash(&report);
                self.tell(AgentInput::Trash { agent: self.agent, session, report }).await
            }
            Heard::Inventory(inventory) => {
                let roots = convert::roots_from_wire(&inventory)
                    .map_err(|fault| refused("inventory refused", fault))?;
                self.tell(AgentInput::Inventory { agent: self.agent, session, roots }).await
            }
        }
    }

    /// What became of trees that people wanted in the trash, for the audit log.
    fn note_trash(&self, report: &TrashReport) {
        let view = self.services.driver.view();
        let waited = view.trash_of(self.agent).filter(|record| record.is_waiting());
        let agent = convert::agent_name(&self.name);
        for record in waited {
            let order = (record.project, record.asked);
            let trashed = report.trees.iter().find(|tree| (tree.project, tree.asked) == order);
            let refused = report.refused.iter().find(|one| (one.project, one.asked) == order);
            let became = match (trashed, refused) {
                (Some(tree), _) => format!("is in the trash: {}", tree.place),
                (None, Some(refused)) => format!("stays: {}", refused.why),
                (None, None) => continue,
            };
            let project = convert::project_name(&record.name);
            let text = format!("the tree {} of deleted {project} {became}", record.destination);
            let from = self.address.to_string();
            let event = audit::happened(audit::TREE_TO_TRASH, &agent, &from, &project, text);
            self.services.driver.record_refusal(event);
        }
    }

    async fn accepted(&self, accepted: &v1::Accepted) -> Result<(), Status> {
        let (attempt, epoch) = convert::attempt_key_from_wire(accepted.key.as_ref())
            .map_err(|fault| refused("report refused", fault))?;
        let known = self.known(attempt);
        let span = self.span(known.as_ref(), attempt, epoch);
        trace::continue_from(&span, known.as_ref().map_or("", |known| &known.traceparent));
        span.in_scope(|| tracing::info!("accepted"));
        self.tell(AgentInput::Accepted { agent: self.agent, attempt, epoch }).instrument(span).await
    }

    async fn refused(&self, refusal: &v1::Refused) -> Result<(), Status> {
        let convert::ReadRefused { attempt, epoch, why, detail } =
            convert::refused_from_wire(refusal).map_err(|fault| refused("report refused", fault))?;
        let known = self.known(attempt);
        let span = self.span(known.as_ref(), attempt, epoch);
        span.in_scope(|| tracing::warn!(?why, detail, "the agent refuses the assignment"));
        let input = AgentInput::Refused { agent: self.agent, attempt, epoch, why, detail };
        self.tell(input).instrument(span).await
    }

    /// The log first, then the outcome: who sees that the attempt has ended finds its log.
    async fn ended(&self, ended: v1::Ended) -> Result<(), Status> {
        let (attempt, epoch, outcome) =
            convert::ended_from_wire(&ended).map_err(|fault| refused("report refused", fault))?;
        let alone =
            convert::ended_alone_from_wire(&ended).map_err(|fault| refused("report refused", fault))?;
        let known = self.known(attempt);
        let span = self.span(known.as_ref(), attempt, epoch);
        trace::continue_from(&span, &ended.traceparent);
        async {
            tracing::info!(class = ?outcome.class, exit_code = outcome.exit_code, "ended");
            let mut unheard = Vec::new();
            match known {
                Some(known) if known.epoch == Some(epoch) => {
                    self.save_log(known.project, attempt, ended.log_tail).await;
                }
                Some(_) => {}
                None => unheard = ended.log_tail,
            }
            let input = match alone {
                None => AgentInput::Ended { agent: self.agent, attempt, epoch, outcome },
                Some(held) => self.ended_alone(held, unheard, outcome).await?,
            };
            match self.services.driver.ask(Input::Agent(input)).await {
                Ok(_) => {
                    self.services.progress.forget(attempt);
                    Ok(())
                }
                Err(error) => Err(unavailable("STORE_UNAVAILABLE", &error.to_string(), RETRY)),
            }
        }
        .instrument(span)
        .await
    }

    /// The end of what the agent began by itself, with the log where this is the first that is heard of it.
    async fn ended_alone(
        &self,
        held: Held,
        log_tail: Vec<u8>,
        outcome: fleet::outcome::Outcome,
    ) -> Result<AgentInput, Status> {
        let held = self.look_up(vec![held]).await?;
        let Some(held) = held.into_iter().next().map(Box::new) else {
            return Err(internal("HISTORY_LOST", "the history answered for another attempt"));
        };
        let placed = self.services.driver.view().project(held.project).is_some_and(|project| {
            project.placements.get(&self.agent).is_some_and(|home| home.destination == held.destination)
        });
        if placed && !held.recorded && !log_tail.is_empty() {
            self.save_log(held.project, held.attempt, log_tail).await;
        }
        Ok(AgentInput::EndedAlone { agent: self.agent, held, outcome })
    }

    /// A log that cannot be kept must not keep the outcome from being recorded.
    async fn save_log(&self, project: ProjectUid, attempt: AttemptId, tail: Vec<u8>) {
        let logs = std::sync::Arc::clone(&self.services.logs);
        let saving = tokio::task::spawn_blocking(move || logs.save(project, attempt, &tail));
        match saving.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "the log's tail is not kept");
            }
            Err(error) => tracing::error!(%error, "the log's tail is not kept"),
        }
    }

    fn progress(&self, report: v1::ProgressReport) -> Result<(), Status> {
        if report.attempts.len() > PROGRESS_ATTEMPTS_MAX {
            let text = format!("{} attempts; at most {PROGRESS_ATTEMPTS_MAX}", report.attempts.len());
            return Err(refused("progress refused", Violation::new("progress.attempts", text)));
        }
        let now = self.services.driver.now().wall;
        let mut fresh = Vec::with_capacity(report.attempts.len());
        for one in report.attempts {
            let (attempt, epoch) = convert::attempt_key_from_wire(one.key.as_ref())
                .map_err(|fault| refused("progress refused", fault))?;
            let current = self.known(attempt).is_some_and(|known| known.epoch == Some(epoch));
            if let Some(progress) = one.progress.filter(|_| current) {
                fresh.push((attempt, bounded(progress, now)));
            }
        }
        let view = self.services.driver.view();
        self.services.progress.put(fresh, |attempt| view.attempt(attempt).is_some());
        Ok(())
    }

    fn log_chunk(&self, chunk: v1::LogChunk) -> Result<(), Status> {
        let (attempt, epoch) = convert::attempt_key_from_wire(chunk.key.as_ref())
            .map_err(|fault| refused("log chunk refused", fault))?;
        if chunk.data.len() > LOG_PIECE_BYTES_MAX {
            let text = format!("{} bytes; at most {LOG_PIECE_BYTES_MAX}", chunk.data.len());
            return Err(refused("log chunk refused", Violation::new("log_chunk.data", text)));
        }
        if !self.services.logs.live().put(self.agent, attempt, epoch, Bytes::from(chunk.data)) {
            tracing::trace!(%attempt, "nobody follows this log any more");
        }
        Ok(())
    }

    async fn tell(&self, input: AgentInput) -> Result<(), Status> {
        let told = self.services.driver.tell(Input::Agent(input)).await;
        told.map_err(|error| unavailable("STOPPING", &error.to_string(), RETRY))
    }

    /// What the view knows of an attempt of this agent. One of another agent is noted: only a program that is
    /// broken or taken over speaks of it, and the engine changes nothing.
    fn known(&self, id: AttemptId) -> Option<Known> {
        let view = self.services.driver.view();
        let attempt = view.attempt(id)?;
        if attempt.agent != self.agent {
            if !self.foreign_told.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    target: "audit",
                    agent = %self.name,
                    attempt = %id,
                    "an agent reports on another agent's attempt; nothing is changed by it"
                );
            }
            return None;
        }
        Some(Known {
            project: attempt.project,
            name: view.project(attempt.project)?.record.name.clone(),
            epoch: attempt.state.epoch(),
            traceparent: view.run(id.run).map_or_else(String::new, |run| run.traceparent.clone()),
        })
    }

    fn span(&self, known: Option<&Known>, attempt: AttemptId, epoch: Epoch) -> Span {
        tracing::info_span!(
            "attempt",
            project = known.map_or("?", |known| known.name.as_str()),
            run = %attempt.run,
            attempt = attempt.number,
            epoch = %epoch,
            agent = %self.name,
        )
    }
}

/// What the view knows of an attempt.
struct Known {
    project: ProjectUid,
    name: Name,
    epoch: Option<Epoch>,
    traceparent: String,
}

/// Progress is shown as it came, so what would make a client stumble is mended here.
fn bounded(progress: v1::Progress, now: fleet::time::Wall) -> v1::Progress {
    let time = progress.time.and_then(|time| convert::wall_from_wire("time", &time).ok());
    v1::Progress {
        percent: progress.percent.map(|percent| percent.min(100)),
        eta: progress.eta.filter(|eta| convert::duration_from_wire("eta", eta).is_ok()),
        time: Some(convert::wall_to_wire(time.unwrap_or(now))),
        ..progress
    }
}

fn stopping() -> Status {
    unavailable("STOPPING", "the coordinator is stopping; say hello again in a moment", RETRY)
}

fn refused(what: &str, fault: Violation) -> Status {
    refusal_to_status(&Refusal::invalid(what, vec![fault]))
}

/// Lets through a burst of [`MESSAGES_BURST`], then one message each [`MESSAGE_PAUSE`].
struct Pace {
    /// When the next message is due at the steady pace.
    due: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { due: earliest(now) }
    }

    /// Until when the next message has to wait; in the past: not at all.
    fn next(&mut self, now: Instant) -> Instant {
        let due = self.due.max(earliest(now));
        self.due = due + MESSAGE_PAUSE;
        due
    }
}

/// What was not said for a while may be said at once, but no more than a burst.
fn earliest(now: Instant) -> Instant {
    now.checked_sub(MESSAGE_PAUSE * (MESSAGES_BURST - 1)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_then_one_message_a_pause() {
        // Far enough from the clock's start for a whole burst before it.
        let now = Instant::now() + MESSAGE_PAUSE * MESSAGES_BURST;
        let mut pace = Pace::new(now);
        let at_once = (0..MESSAGES_BURST).filter(|_| pace.next(now) <= now).count();
        assert_eq!(at_once, usize::try_from(MESSAGES_BURST).unwrap());
        assert_eq!(pace.next(now), now + MESSAGE_PAUSE);
        assert_eq!(pace.next(now), now + MESSAGE_PAUSE * 2);
        let later = now + MESSAGE_PAUSE * 3;
        assert!(pace.next(later) <= later);
        assert_eq!(pace.next(later), later + MESSAGE_PAUSE);
    }
}
