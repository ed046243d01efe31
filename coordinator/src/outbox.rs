//! What is said to agents: one bounded queue for each session. The driver speaks into it after a commit and never
//! waits; a session whose queue is full is ended, and the agent's next hello repairs everything.
//!
//! ```text
//!   session ── Input::Hello ──▶ driver: decide, commit ── Welcome ──▶ outbox opens the session's line
//!      ▲                           │                     Offer, ... ▶ into the line, by agent and epoch
//!      └──── Reply::Session(epoch) ┘
//!      └──── claim(agent, epoch) ◀── the line, with all that was said meanwhile
//! ```
//!
//! A line begins with its Welcome, which only the driver sends and which alone names the session's epoch: so
//! nothing that is said between the commit and the claim is lost, and what is meant for another session than the
//! newest is dropped. Knows no connection and decides nothing.

mod autonomy;
pub mod line;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use fleet::{
    id::{AgentUid, AttemptId, Epoch},
    input::{CloseReason, Message, Pair, Send as Said},
};
use mirror_proto::{
    convert,
    v1::{self, open_session_response::Message as Spoken},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use self::line::{Line, LineSender, Stuck, line};
use crate::{authority::Trust, clock::Clock, driver::Outlet, seal::Sealer};

/// Messages that may wait for one agent: the answers to a hello of all its attempts, and as many offers.
pub const OUTBOX_LEN: usize = 256;

/// One session's messages, as they leave.
pub type SessionLine = Line<v1::OpenSessionResponse>;

/// What a session gets when it claims its line.
#[derive(Debug)]
pub struct Claimed {
    /// What is said to the agent, from its Welcome on: the body of the streamed answer.
    pub line: SessionLine,
    /// Cancelled when the coordinator has ended the session.
    pub cut: CancellationToken,
}

/// The lines of all sessions.
#[derive(Debug)]
pub struct Outbox {
    sealer: Arc<Sealer>,
    /// For the time in a Welcome, by which an agent can tell that its own clock is wrong.
    clock: Clock,
    closed: CancellationToken,
    /// Which CAs the fleet trusts; said in each welcome.
    trust: ArcSwap<v1::Trust>,
    sessions: Mutex<BTreeMap<AgentUid, Session>>,
}

#[derive(Debug)]
struct Session {
    epoch: Epoch,
    sender: LineSender<v1::OpenSessionResponse>,
    unclaimed: Option<SessionLine>,
}

impl Outbox {
    /// No sessions yet. The sealer opens passwords at the moment they are sent.
    #[must_use]
    pub fn new(sealer: Arc<Sealer>) -> Self {
        Self {
            sealer,
            clock: Clock::start(),
            closed: CancellationToken::new(),
            trust: ArcSwap::default(),
            sessions: Mutex::default(),
        }
    }

    /// The fleet trusts these CAs from now on: tells the agents that are here, and each one that comes.
    pub fn tell_trust(&self, trust: &Trust) {
        let trust = v1::Trust {
            ca_hashes: trust.hashes.iter().map(ToString::to_string).collect(),
            issuing_ca_hash: trust.issuing.to_string(),
        };
        // Under the lock of the sessions: who is welcomed meanwhile is told by the welcome, or here.
        let mut sessions = self.sessions();
        self.trust.store(Arc::new(trust.clone()));
        let open: Vec<_> = sessions.iter().map(|(agent, session)| (*agent, session.epoch)).collect();
        for (agent, epoch) in open {
            say(&mut sessions, agent, epoch, Spoken::Trust(trust.clone()));
        }
    }

    /// The line of a session that has just been welcomed; once. `None`: it has been ended already.
    #[must_use]
    pub fn claim(&self, agent: AgentUid, epoch: Epoch) -> Option<Claimed> {
        let mut sessions = self.sessions();
        let session = sessions.get_mut(&agent).filter(|session| session.epoch == epoch)?;
        let line = session.unclaimed.take()?;
        Some(Claimed { line, cut: session.sender.cut() })
    }

    /// The stream of this session has ended. Another session of the agent is not touched.
    pub fn leave(&self, agent: AgentUid, epoch: Epoch) {
        let mut sessions = self.sessions();
        if sessions.get(&agent).is_some_and(|session| session.epoch == epoch) {
            sessions.remove(&agent);
        }
    }

    /// The coordinator ends this session with `status`. Another session of the agent is not touched.
    pub fn end(&self, agent: AgentUid, epoch: Epoch, status: Status) {
        let mut sessions = self.sessions();
        let known = sessions.get(&agent).is_some_and(|session| session.epoch == epoch);
        if let Some(session) = known.then(|| sessions.remove(&agent)).flatten() {
            session.sender.end(status);
        }
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions_open(&self) -> usize {
        self.sessions().len()
    }

    /// Asks an agent for the lines of a log, if it has a session.
    pub fn subscribe_log(&self, agent: AgentUid, attempt: AttemptId, epoch: Epoch) {
        let key = Some(convert::attempt_key_to_wire(attempt, epoch));
        self.say_now(agent, Spoken::LogSubscribe(v1::LogSubscribe { key }));
    }

    /// Tells an agent that nobody follows a log any more, if it has a session.
    pub fn unsubscribe_log(&self, agent: AgentUid, attempt: AttemptId, epoch: Epoch) {
        let key = Some(convert::attempt_key_to_wire(attempt, epoch));
        self.say_now(agent, Spoken::LogUnsubscribe(v1::LogUnsubscribe { key }));
    }

    /// Asks an agent to look at something. False: this session is not its newest, or ended in the attempt.
    pub fn probe(&self, agent: AgentUid, session: Epoch, probe: v1::Probe) -> bool {
        let mut sessions = self.sessions();
        say(&mut sessions, agent, session, Spoken::Probe(probe));
        sessions.get(&agent).is_some_and(|open| open.epoch == session)
    }

    /// Asks an agent for a sign of life. False: this session is not its newest, or ended in the attempt.
    pub fn ping(&self, agent: AgentUid, session: Epoch, id: u64) -> bool {
        let mut sessions = self.sessions();
        say(&mut sessions, agent, session, Spoken::Ping(v1::Ping { id }));
        sessions.get(&agent).is_some_and(|open| open.epoch == session)
    }

    /// Ends every session, and everything that waits for [`Outbox::closed`]: the coordinator stops.
    pub fn end_all(&self, why: &str) {
        self.closed.cancel();
        self.end_sessions(why);
    }

    /// Cancelled when the coordinator stops: whoever streams to people ends then too.
    #[must_use]
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    fn end_sessions(&self, why: &str) {
        let sessions = std::mem::take(&mut *self.sessions());
        for session in sessions.into_values() {
            session.sender.end(Status::unavailable(why));
        }
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<AgentUid, Session>> {
        // Each change of the map is one call that leaves it whole, so a panic elsewhere spoils nothing.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say_now(&self, agent: AgentUid, message: Spoken) {
        let mut sessions = self.sessions();
        let epoch = sessions.get(&agent).map(|session| session.epoch);
        if let Some(epoch) = epoch {
            say(&mut sessions, agent, epoch, message);
        }
    }

    fn welcome(&self, agent: AgentUid, epoch: Epoch, mut message: v1::Welcome) {
        let (sender, receiver) = line(OUTBOX_LEN);
        let session = Session { epoch, sender, unclaimed: Some(receiver) };
        if self.closed.is_cancelled() {
            // Not claimed by its session, which then says why.
            return;
        }
        let mut sessions = self.sessions();
        // The engine has ended the old one; a line whose end was not said has none to say it to.
        if let Some(old) = sessions.insert(agent, session) {
            old.sender.end(closed(CloseReason::Superseded));
        }
        message.trust = Some(v1::Trust::clone(&self.trust.load()));
        say(&mut sessions, agent, epoch, Spoken::Welcome(message));
    }

    fn close(&self, agent: AgentUid, epoch: Epoch, reason: CloseReason) {
        tracing::info!(agent = agent.0, session = %epoch, ?reason, "a session is ended by the coordinator");
        self.end(agent, epoch, closed(reason));
    }

    /// A replica's secret for the origin's daemon, or an origin's password for its upstream.
    fn password(&self, attempt: AttemptId, pair: Option<Pair>, sealed: &[u8]) -> Option<String> {
        match pair {
            Some(pair) => Some(self.sealer.replica_secret(pair)),
            None => self.unseal(attempt, sealed),
        }
    }

    /// The password, or none where it cannot be read: then the upstream refuses the login and the attempt ends
    /// with a clear outcome, instead of an offer that is made and lost for ever.
    fn unseal(&self, attempt: AttemptId, sealed: &[u8]) -> Option<String> {
        if sealed.is_empty() {
            return None;
        }
        match self.sealer.unseal(sealed) {
            Ok(password) => Some(password.to_string()),
            Err(error) => {
                tracing::error!(%attempt, %error, "the attempt goes out without its password");
                None
            }
        }
    }
}

/// Puts a message into a session's line; ends the session where there is no room.
fn say(sessions: &mut BTreeMap<AgentUid, Session>, agent: AgentUid, epoch: Epoch, message: Spoken) {
    let Some(session) = sessions.get(&agent).filter(|session| session.epoch == epoch) else {
        tracing::debug!(agent = agent.0, session = %epoch, "a message for a session that has ended is dropped");
        return;
    };
    let Err(stuck) = session.sender.try_send(v1::OpenSessionResponse { message: Some(message) }) else {
        return;
    };
    tracing::warn!(agent = agent.0, session = %epoch, %stuck, "the session is ended; the next hello repairs it");
    if let Some(session) = sessions.remove(&agent) {
        session.sender.end(match stuck {
            Stuck::Full => Status::unavailable(format!(
                "the agent does not read: {OUTBOX_LEN} messages wait for it; say hello again"
            )),
            Stuck::Gone => Status::unavailable("the stream has ended; say hello again"),
        });
    }
}

/// How a stream ends when the coordinator ends it.
fn closed(reason: CloseReason) -> Status {
    match reason {
        CloseReason::Superseded => Status::aborted("superseded by a newer session of this agent"),
        CloseReason::Revoked => Status::permission_denied("this agent is revoked; do not come back"),
        CloseReason::AgentStopping => {
            Status::unavailable("this agent is being stopped: come back afterwards")
        }
        CloseReason::OfferUnanswered => {
            Status::unavailable("an assignment was neither taken nor refused in time; say hello again")
        }
    }
}

impl Outlet for Outbox {
    fn send(&self, said: Said) {
        let Said { agent, session, message } = said;
        let key = |attempt, epoch| Some(convert::attempt_key_to_wire(attempt, epoch));
        let spoken = match message {
            Message::Close(reason) => return self.close(agent, session, reason),
            Message::Welcome { term, name } => {
                let time = Some(convert::wall_to_wire(self.clock.now().wall));
                let session_epoch = Some(convert::epoch_to_wire(session));
                let agent_name = convert::agent_name(&name);
                let welcome = v1::Welcome { term, session_epoch, time, agent: agent_name, trust: None };
                return self.welcome(agent, session, welcome);
            }
            Message::Offer(offer) => {
                let password = self.password(offer.attempt, offer.pair, &offer.sealed_password);
                Spoken::Assignment(convert::assignment_to_wire(&offer, password))
            }
            Message::Continue { attempt, epoch, sealed_password, pair } => {
                let secrets = convert::secrets_to_wire(self.password(attempt, pair, &sealed_password));
                Spoken::Continue(v1::Continue { key: key(attempt, epoch), secrets })
            }
            Message::Cancel { attempt, epoch, reason } => {
                Spoken::Cancel(v1::Cancel { key: key(attempt, epoch), reason })
            }
            Message::Exports { serial, complete, exports, withdrawn } => {
                let secret = |pair| self.sealer.replica_secret(pair);
                for part in convert::exports_to_wire(serial, complete, &exports, &withdrawn, &secret) {
                    say(&mut self.sessions(), agent, session, Spoken::Exports(part));
                }
                return;
            }
            Message::Autonomy { serial, complete, orders, withdrawn } => {
                for message in autonomy::messages(serial, complete, &orders, &withdrawn) {
                    say(&mut self.sessions(), agent, session, Spoken::Autonomy(message));
                }
                return;
            }
            Message::Trash(order) => Spoken::TrashTree(convert::trash_order_to_wire(&order)),
            Message::Acknowledge { attempt, epoch, fenced } => {
                Spoken::Acknowledge(v1::Acknowledge { key: key(attempt, epoch), fenced })
            }
        };
        say(&mut self.sessions(), agent, session, spoken);
    }

    fn reset(&self) {
        self.end_sessions("the coordinator has begun a new term; say hello again");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use fleet::input::Offer;
    use tokio_stream::StreamExt as _;

    use super::*;

    const FTP1: AgentUid = AgentUid(1);
    const EDGE1: AgentUid = AgentUid(2);

    fn epoch(counter: u64) -> Epoch {
        Epoch { term: 1, counter }
    }

    fn attempt() -> AttemptId {
        AttemptId { run: fleet::id::RunId::mint(1_000, 1, fleet::id::RunId::NIL), number: 1 }
    }

    fn sealer() -> Arc<Sealer> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        Sealer::create(&path).unwrap();
        Arc::new(Sealer::open(&path).unwrap())
    }

    fn welcome(outbox: &Outbox, agent: AgentUid, session: Epoch) {
        let message = Message::Welcome { term: 1, name: "ftp1".parse().unwrap() };
        outbox.send(Said { agent, session, message });
    }

    fn cancel(outbox: &Outbox, agent: AgentUid, session: Epoch) {
        let message = Message::Cancel { attempt: attempt(), epoch: epoch(9), reason: "test".to_owned() };
        outbox.send(Said { agent, session, message });
    }

    fn close(outbox: &Outbox, session: Epoch, reason: CloseReason) {
        outbox.send(Said { agent: FTP1, session, message: Message::Close(reason) });
    }

    async fn next(line: &mut SessionLine) -> Spoken {
        line.next().await.unwrap().unwrap().message.unwrap()
    }

    #[tokio::test]
    async fn what_is_said_before_the_claim_is_not_lost_and_the_claim_is_good_once() {
        let outbox = Outbox::new(sealer());
        welcome(&outbox, FTP1, epoch(1));
        cancel(&outbox, FTP1, epoch(1));
        assert!(outbox.claim(FTP1, epoch(2)).is_none() && outbox.claim(EDGE1, epoch(1)).is_none());
        let Claimed { mut line, cut } = outbox.claim(FTP1, epoch(1)).unwrap();
        assert!(outbox.claim(FTP1, epoch(1)).is_none());
        assert!(matches!(next(&mut line).await, Spoken::Welcome(_)));
        assert!(matches!(next(&mut line).await, Spoken::Cancel(_)));
        assert!(!cut.is_cancelled());
        outbox.leave(FTP1, epoch(1));
        assert!(cut.is_cancelled() && line.next().await.is_none());
    }

    #[tokio::test]
    async fn a_full_line_costs_its_session_and_no_other() {
        let outbox = Outbox::new(sealer());
        welcome(&outbox, FTP1, epoch(1));
        welcome(&outbox, EDGE1, epoch(2));
        let Claimed { mut line, cut } = outbox.claim(FTP1, epoch(1)).unwrap();
        for _ in 1..OUTBOX_LEN {
            cancel(&outbox, FTP1, epoch(1));
        }
        assert!(!cut.is_cancelled() && outbox.sessions_open() == 2);
        cancel(&outbox, FTP1, epoch(1));
        assert!(cut.is_cancelled() && outbox.sessions_open() == 1);
        assert_eq!(line.next().await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
        assert!(outbox.claim(EDGE1, epoch(2)).is_some());
    }

    #[tokio::test]
    async fn each_reason_to_close_has_its_status_and_touches_one_session_only() {
        let outbox = Outbox::new(sealer());
        for (reason, code) in [
            (CloseReason::Superseded, tonic::Code::Aborted),
            (CloseReason::Revoked, tonic::Code::PermissionDenied),
            (CloseReason::OfferUnanswered, tonic::Code::Unavailable),
            (CloseReason::AgentStopping, tonic::Code::Unavailable),
        ] {
            welcome(&outbox, FTP1, epoch(2));
            let Claimed { mut line, cut } = outbox.claim(FTP1, epoch(2)).unwrap();
            close(&outbox, epoch(1), reason);
            cancel(&outbox, FTP1, epoch(1));
            assert!(!cut.is_cancelled(), "another session is meant");
            close(&outbox, epoch(2), reason);
            assert!(cut.is_cancelled());
            assert_eq!(line.next().await.unwrap().unwrap_err().code(), code);
        }
    }

    #[tokio::test]
    async fn a_new_term_ends_all_sessions_and_a_stop_ends_streams_to_people_too() {
        let outbox = Outbox::new(sealer());
        welcome(&outbox, FTP1, epoch(1));
        let Claimed { mut line, .. } = outbox.claim(FTP1, epoch(1)).unwrap();
        outbox.reset();
        assert_eq!(line.next().await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
        assert!(outbox.sessions_open() == 0 && !outbox.closed().is_cancelled());
        outbox.end_all("over");
        assert!(outbox.closed().is_cancelled());
        welcome(&outbox, FTP1, epoch(2));
        assert!(outbox.claim(FTP1, epoch(2)).is_none(), "no session begins any more");
    }

    #[tokio::test]
    async fn a_replica_and_the_agent_that_serves_it_get_the_same_secret() {
        let outbox = Outbox::new(sealer());
        welcome(&outbox, FTP1, epoch(1));
        let Claimed { mut line, .. } = outbox.claim(FTP1, epoch(1)).unwrap();
        assert!(matches!(next(&mut line).await, Spoken::Welcome(_)));
        let pair = Pair { project: fleet::id::ProjectUid(7), origin: FTP1, replica: EDGE1, day: 20_779 };
        let export = fleet::input::Export {
            project: pair.project,
            name: "debian".parse().unwrap(),
            destination: "a1:debian".parse().unwrap(),
            pairs: vec![pair],
        };
        let exports =
            Message::Exports { serial: 1, complete: true, exports: vec![export], withdrawn: Vec::new() };
        let Message::Offer(mut pull) = offer(Vec::new()) else { panic!("no offer") };
        (pull.user, pull.pair) = (String::new(), Some(pair));
        let go_on = Message::Continue {
            attempt: attempt(),
            epoch: epoch(9),
            sealed_password: Vec::new(),
            pair: Some(pair),
        };
        for message in [exports, Message::Offer(pull), go_on] {
            outbox.send(Said { agent: FTP1, session: epoch(1), message });
        }
        let Spoken::Exports(exports) = next(&mut line).await else { panic!("no exports") };
        let Spoken::Assignment(assignment) = next(&mut line).await else { panic!("no assignment") };
        let Spoken::Continue(go_on) = next(&mut line).await else { panic!("no go-on") };
        let user = &exports.exports[0].users[0];
        assert_eq!((user.user.as_str(), assignment.user.as_str()), ("a2-20779", "a2-20779"));
        assert_eq!(assignment.secrets.unwrap().password, user.secret);
        assert_eq!(go_on.secrets.unwrap().password, user.secret);
    }

    fn offer(sealed_password: Vec<u8>) -> Message {
        Message::Offer(Box::new(Offer { sealed_password, ..work() }))
    }

    /// Some work, without a password.
    pub(crate) fn work() -> Offer {
        let second = std::time::Duration::from_secs(1);
        Offer {
            attempt: attempt(),
            epoch: epoch(9),
            project: fleet::id::ProjectUid(7),
            project_name: "debian".parse().unwrap(),
            role: fleet::attempt::Role::Origin,
            source_uri: "rsync://h/m".to_owned(),
            user: "mirror".to_owned(),
            sealed_password: Vec::new(),
            destination: "a1:debian".parse().unwrap(),
            options: Vec::new(),
            no_defaults: false,
            max_delete: 500,
            connect_timeout: second,
            io_timeout: second,
            stall_timeout: second,
            run_timeout: None,
            bandwidth_limit_kib: 0,
            tree: attempt().run,
            dry_run: false,
            keep_extra: false,
            move_from: None,
            link: None,
            reclaim: false,
            sentinels: Vec::new(),
            first_sync: false,
            marker: None,
            waived: Vec::new(),
            quota_bytes: 0,
            known_files: 0,
            known_bytes: 0,
            pair: None,
            traceparent: String::new(),
        }
    }

    #[tokio::test]
    async fn passwords_are_opened_as_they_leave_and_one_of_another_key_stays_behind() {
        let sealer_now = sealer();
        let outbox = Outbox::new(Arc::clone(&sealer_now));
        welcome(&outbox, FTP1, epoch(1));
        let Claimed { mut line, .. } = outbox.claim(FTP1, epoch(1)).unwrap();
        assert!(matches!(next(&mut line).await, Spoken::Welcome(_)));
        for (sealed, sent) in [
            (sealer_now.seal("hunter2").unwrap(), Some("hunter2")),
            (sealer().seal("hunter2").unwrap(), None),
            (Vec::new(), None),
        ] {
            outbox.send(Said { agent: FTP1, session: epoch(1), message: offer(sealed) });
            let Spoken::Assignment(assignment) = next(&mut line).await else { panic!("no assignment") };
            assert_eq!(assignment.secrets.map(|secrets| secrets.password).as_deref(), sent);
        }
    }
}
