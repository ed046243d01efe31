//! One session: from the dial to the end of the stream, whichever way it ends.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use fleet::trash::TrashReport;
use mirror_certs::ClientTls;
use mirror_proto::convert::trash_report_to_wire;
use mirror_proto::v1::open_session_request::Message as Out;
use mirror_proto::v1::open_session_response::Message as In;
use mirror_proto::v1::session_service_client::SessionServiceClient;
use mirror_proto::v1::{self, OpenSessionRequest, OpenSessionResponse};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::Link;
use super::orders::Orders;
use crate::config::Address;
use crate::dial::Dialled;
use crate::executor::Answer;
use crate::key::{BadKey, Key};
use crate::state::StateError;
use crate::{clock, dial, outcome};

/// Messages that wait to be sent; beyond it the coordinator does not read.
const OUTBOX_LEN: usize = 64;
/// Longest wait for room in it: then the link is as good as dead.
const SEND_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the welcome.
const WELCOME_WAIT_MAX: Duration = Duration::from_secs(15);
/// Largest message either way, bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Offers that are being looked at, at once.
const OFFERS_MAX: usize = 64;
/// Messages of exports that may wait while one is being done: as many as a coordinator may have in its queue.
const EXPORTS_WAITING_MAX: usize = 1024;
/// Probes whose answer is not sent yet: more than a coordinator asks for at once.
const PROBES_MAX: usize = 64;
/// Pause between two reports of progress.
const PROGRESS_PACE: Duration = Duration::from_secs(1);
/// Pause between two pieces of a followed log.
const LOG_PACE: Duration = Duration::from_millis(250);
/// Followed logs.
const FOLLOWED_MAX: usize = 64;
/// Pause before a tree on which something is still at work is tried again for the trash.
const TRASH_PACE: Duration = Duration::from_secs(1);
/// Pause between two inventories.
const INVENTORY_PACE: Duration = Duration::from_secs(5 * 60);
/// Longest that an outcome waits for the look at the disks that goes before it: one that hangs must not keep what ended
/// on others.
const INVENTORY_WAIT_MAX: Duration = Duration::from_secs(5);
/// An outcome that is unacknowledged for this long is said again.
const RESEND_AFTER: Duration = Duration::from_secs(30);
/// Pause between two dials with a renewed certificate, while the session goes on with the one before.
const DIAL_AGAIN_PAUSE: Duration = Duration::from_secs(60);
/// Clocks that differ by more are worth a warning.
const SKEW_WARN: chrono::TimeDelta = chrono::TimeDelta::seconds(60);

/// How a session ended.
#[derive(Debug)]
pub enum End {
    /// The link broke, or never came about; why, in words.
    Lost(String),
    /// The coordinator does not want this agent; why, in its words.
    Refused(String),
    /// Another session of this agent took over.
    Superseded,
    /// The coordinator's term is lower than one that was seen.
    StaleCoordinator(String),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        let why = rsync::text::printable(status.message().as_bytes(), 500);
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => Self::Refused(why),
            Code::Aborted => Self::Superseded,
            Code::FailedPrecondition => Self::StaleCoordinator(why),
            _ => Self::Lost(format!("connection lost ({why})")),
        }
    }
}

/// One session after the other with a coordinator, each over a connection that was made before the one before it was
/// given up. Returns when the last is over and nothing of it is left.
pub(super) async fn run(link: &Link, address: &Address) -> End {
    // From before the certificate is taken: none that comes later is missed.
    let mut renewals = link.renewals.subscribe();
    let dialled = match dial::dial(address, link.tls.config()).await {
        Ok(dialled) => dialled,
        Err(error) => return End::Lost(outcome::chain(&error)),
    };
    let mut session = match Session::open(link, address, dialled).await {
        Ok(session) => session,
        Err(end) => return end,
    };
    loop {
        let over = session.serve(address, &mut renewals).await;
        // Offers in the middle are dropped here, before the next hello is composed.
        session.offers.shutdown().await;
        // What is being written is written to its end; the next hello brings the whole list again.
        while session.exporting.join_next().await.is_some() {}
        // Nor does an order outlive the session that it came in: the next coordinator may think otherwise.
        session.orders.end().await;
        let dialled = match over {
            Over::Ended(end) => return end,
            Over::Renewed(dialled) => dialled,
        };
        // The old stream is listened to no more and stays open until the new one is welcomed: the agent is not away for
        // a moment. That the coordinator ends it as superseded is as it should be.
        session = match Session::open(link, address, dialled).await {
            Ok(session) => session,
            Err(end) => return end,
        };
        tracing::info!("the session goes on with the renewed certificate");
    }
}

/// Why nobody listens to a stream any more.
enum Over {
    /// The session is over.
    Ended(End),
    /// There is a connection with a renewed certificate.
    Renewed(Dialled),
}

impl<'a> Session<'a> {
    /// Opens the stream, says hello and hears the welcome.
    async fn open(link: &'a Link, address: &Address, dialled: Dialled) -> Result<Self, End> {
        let Dialled { channel, local } = dialled;
        let mut client = SessionServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (outbox, queue) = mpsc::channel(OUTBOX_LEN);
        link.autonomy.greeting().await;
        link.exporter.greeting();
        // The hello waits in the queue before the stream opens: the coordinator may answer nothing before it has it.
        if outbox.try_send(message(Out::Hello(link.hello(local).await))).is_err() {
            return Err(End::Lost("the hello could not be queued".to_owned()));
        }
        let opened = async {
            let mut inbound = client.open_session(ReceiverStream::new(queue)).await?.into_inner();
            let first = inbound.message().await?;
            Ok::<_, Status>((inbound, first.and_then(|response| response.message)))
        };
        let (inbound, first) = match tokio::time::timeout(WELCOME_WAIT_MAX, opened).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(status)) => return Err(status.into()),
            Err(_) => return Err(End::Lost(format!("no welcome in {} s", WELCOME_WAIT_MAX.as_secs()))),
        };
        let Some(In::Welcome(welcome)) = first else {
            return Err(End::Lost("its first message is no welcome".to_owned()));
        };
        check_welcome(link, &welcome)?;
        link.autonomy.welcomed().await;
        link.trust.send_if_modified(|trust| note(trust, welcome.trust.as_ref()));
        tracing::info!(coordinator = %address, term = welcome.term, agent = welcome.agent, "connected");
        Ok(Self {
            link,
            local,
            inbound,
            outbox,
            term: welcome.term,
            offers: JoinSet::new(),
            exports: VecDeque::new(),
            exporting: JoinSet::new(),
            orders: Orders::new(link.trash.clone()),
            probes: JoinSet::new(),
            looking: JoinSet::new(),
            look_began: Instant::now(),
            said: BTreeMap::new(),
            told: BTreeMap::new(),
            followed: BTreeMap::new(),
        })
    }
}

/// Takes down what the coordinator says of the fleet's CAs; true: it says something new.
fn note(known: &mut Option<v1::Trust>, told: Option<&v1::Trust>) -> bool {
    let new = told.is_some() && known.as_ref() != told;
    if new {
        *known = told.cloned();
    }
    new
}

/// A connection with the certificate that was renewed. Until there is one, the session goes on over the old one.
async fn dial_again(tls: Arc<ClientTls>, address: Address) -> Dialled {
    loop {
        match dial::dial(&address, tls.config()).await {
            Ok(dialled) => return dialled,
            Err(error) => {
                let error = outcome::chain(&error);
                tracing::warn!(error, "no connection with the renewed certificate yet; the session goes on");
            }
        }
        tokio::time::sleep(DIAL_AGAIN_PAUSE).await;
    }
}

fn check_welcome(link: &Link, welcome: &v1::Welcome) -> Result<(), End> {
    link.observe_term(welcome.term).map_err(|error| match error {
        StateError::StaleTerm { .. } => End::StaleCoordinator(error.to_string()),
        other => End::Lost(format!("its term cannot be noted ({})", outcome::chain(&other))),
    })?;
    let theirs = welcome.time.as_ref().and_then(|time| chrono::DateTime::from_timestamp(time.seconds, 0));
    if let Some(text) = theirs.and_then(|theirs| clocks_differ(clock::now(), theirs)) {
        tracing::warn!("{text}");
    }
    Ok(())
}

/// What to say of two clocks that differ by more than [`SKEW_WARN`].
fn clocks_differ(ours: DateTime<Utc>, theirs: DateTime<Utc>) -> Option<String> {
    let apart = ours - theirs;
    (apart.abs() > SKEW_WARN).then(|| {
        let way = if apart > chrono::TimeDelta::zero() { "ahead of" } else { "behind" };
        let time = |time: DateTime<Utc>| time.format("%Y-%m-%d %H:%M:%S UTC").to_string();
        format!(
            "this host's clock is {} {way} the coordinator's ({} here, {} there); certificates depend on clocks: set the one \
             that is wrong",
            roughly(apart.abs()),
            time(ours),
            time(theirs)
        )
    })
}

/// A span in its largest unit, rounded down.
fn roughly(span: chrono::TimeDelta) -> String {
    let units = [(span.num_days(), "day"), (span.num_hours(), "hour"), (span.num_minutes(), "minute")];
    let (count, unit) =
        units.into_iter().find(|(count, _)| *count > 0).unwrap_or_else(|| (span.num_seconds(), "second"));
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

struct Session<'a> {
    link: &'a Link,
    /// This host's address as the coordinator sees it.
    local: IpAddr,
    inbound: Streaming<OpenSessionResponse>,
    outbox: mpsc::Sender<OpenSessionRequest>,
    term: u64,
    offers: JoinSet<Result<Answer, BadKey>>,
    /// What is to be served, in the order it was said, and the one that is being done.
    exports: VecDeque<v1::Exports>,
    exporting: JoinSet<Option<v1::Exporting>>,
    /// Trees that are to go to the trash, and the one that is on its way.
    orders: Orders,
    /// Looks for which the coordinator waits; what they started ends by itself when the session does.
    probes: JoinSet<v1::ProbeResult>,
    /// The look at the disks that goes on, one at most, and the outcomes that are said after it.
    looking: JoinSet<(v1::Inventory, Vec<Key>)>,
    /// When the last one began.
    look_began: Instant,
    /// Outcomes that were said in this session, and when.
    said: BTreeMap<Key, Instant>,
    /// Progress as it was told last.
    told: BTreeMap<Key, v1::Progress>,
    /// Followed logs and how far each was sent.
    followed: BTreeMap<Key, u64>,
}

impl Session<'_> {
    async fn serve(&mut self, address: &Address, renewals: &mut watch::Receiver<u64>) -> Over {
        let mut dialling = JoinSet::new();
        let mut progress = tokio::time::interval(PROGRESS_PACE);
        let mut logs = tokio::time::interval(LOG_PACE);
        let mut trash = tokio::time::interval(TRASH_PACE);
        trash.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inventory = tokio::time::interval(INVENTORY_PACE);
        inventory.reset();
        if let Err(end) = self.see_to_outcomes().await {
            return Over::Ended(end);
        }
        loop {
            let result = tokio::select! {
                received = self.inbound.message() => match received {
                    Ok(Some(OpenSessionResponse { message: Some(message) })) => self.obey(message).await,
                    Ok(Some(OpenSessionResponse { message: None })) => {
                        tracing::warn!("the coordinator sent a message that this version does not know");
                        Ok(())
                    }
                    Ok(None) => Err(End::Lost("the coordinator ended the session".to_owned())),
                    Err(status) => Err(status.into()),
                },
                Some(answered) = self.offers.join_next() => self.say_answer(answered).await,
                Some(done) = self.exporting.join_next() => self.say_exporting(done).await,
                report = self.orders.done() => self.say_trash(report).await,
                _ = trash.tick(), if self.orders.wait() => {
                    self.trash_next();
                    Ok(())
                }
                Some(Ok(result)) = self.probes.join_next() => self.say(Out::ProbeResult(result)).await,
                Some(Ok((inventory, ended))) = self.looking.join_next() => self.say_looked(inventory, ended).await,
                () = self.link.executor.ended() => self.see_to_outcomes().await,
                _ = progress.tick() => {
                    self.tell_progress();
                    self.see_to_outcomes().await
                }
                _ = logs.tick(), if !self.followed.is_empty() => {
                    self.send_logs();
                    Ok(())
                }
                _ = inventory.tick() => {
                    self.retry_exports();
                    self.look_at_disks(Vec::new());
                    Ok(())
                }
                Ok(()) = renewals.changed(), if dialling.is_empty() => {
                    dialling.spawn(dial_again(self.link.tls.clone(), address.clone()));
                    Ok(())
                }
                Some(Ok(dialled)) = dialling.join_next() => return Over::Renewed(dialled),
            };
            if let Err(end) = result {
                return Over::Ended(end);
            }
        }
    }

    async fn obey(&mut self, message: In) -> Result<(), End> {
        let executor = &self.link.executor;
        match message {
            In::Welcome(_) => tracing::warn!("the coordinator sent a second welcome; it is ignored"),
            In::Assignment(assignment) => return self.look_at(assignment).await,
            In::Continue(go_on) => {
                if let Some(key) = known(go_on.key.as_ref()) {
                    executor.proceed(key, go_on.secrets);
                }
            }
            In::Cancel(cancel) => {
                if let Some(key) = known(cancel.key.as_ref()) {
                    tracing::info!(%key, reason = cancel.reason, "asked to end an attempt");
                    if let Some(ended) = executor.cancel(key, &cancel.reason).await {
                        return self.say(Out::Ended(ended)).await;
                    }
                }
            }
            In::Acknowledge(acknowledge) => {
                if let Some(key) = known(acknowledge.key.as_ref()) {
                    self.acknowledged(key, acknowledge.fenced).await;
                }
            }
            In::LogSubscribe(subscribe) => {
                if let Some(key) = known(subscribe.key.as_ref())
                    && self.followed.len() < FOLLOWED_MAX
                {
                    self.followed.entry(key).or_insert(0);
                }
            }
            In::Exports(exports) => {
                if self.exports.len() >= EXPORTS_WAITING_MAX {
                    return Err(End::Lost(
                        "more exports came than this host's disk keeps up with".to_owned(),
                    ));
                }
                self.exports.push_back(exports);
                self.export_next();
            }
            In::TrashTree(order) => {
                self.orders.take(&order);
                self.trash_next();
            }
            In::Probe(probe) => self.look(probe),
            In::Trust(trust) => {
                self.link.trust.send_if_modified(|known| note(known, Some(&trust)));
            }
            In::Ping(ping) => return self.say(Out::Pong(v1::Pong { id: ping.id })).await,
            In::Autonomy(autonomy) => self.link.autonomy.told(&autonomy),
            In::LogUnsubscribe(unsubscribe) => {
                if let Some(key) = known(unsubscribe.key.as_ref()) {
                    self.followed.remove(&key);
                }
            }
        }
        Ok(())
    }

    /// One after the other, in order, beside everything else: each is written to disk.
    fn export_next(&mut self) {
        if self.exporting.is_empty()
            && let Some(exports) = self.exports.pop_front()
        {
            let (exporter, local) = (self.link.exporter.clone(), self.local);
            self.exporting.spawn(async move { exporter.obey(exports, local).await });
        }
    }

    /// Exports go first: what was withdrawn before must be served to nobody any more.
    fn trash_next(&mut self) {
        if self.exporting.is_empty() && self.exports.is_empty() {
            self.orders.begin();
        }
    }

    async fn say_trash(&mut self, report: TrashReport) -> Result<(), End> {
        self.trash_next();
        self.say(Out::Trash(trash_report_to_wire(&report))).await
    }

    /// What could not be served then may be served now: a tree is there, a disk has room again.
    fn retry_exports(&mut self) {
        if self.exporting.is_empty() && self.exports.is_empty() {
            let (exporter, local) = (self.link.exporter.clone(), self.local);
            self.exporting.spawn(async move { exporter.retry(local).await });
        }
    }

    async fn say_exporting(
        &mut self,
        done: Result<Option<v1::Exporting>, tokio::task::JoinError>,
    ) -> Result<(), End> {
        self.export_next();
        self.trash_next();
        match done {
            Ok(Some(exporting)) => self.say(Out::Exporting(exporting)).await,
            Ok(None) => Ok(()),
            Err(error) => Err(End::Lost(format!("serving replicas failed: {error}"))),
        }
    }

    /// Looked at beside everything else; how many at once is the prober's to bound.
    fn look(&mut self, probe: v1::Probe) {
        if self.probes.len() >= PROBES_MAX {
            tracing::warn!(id = probe.id, "a probe is ignored: too many wait for their answer already");
            return;
        }
        let (prober, live) = (self.link.prober.clone(), self.link.executor.live());
        self.probes.spawn(async move { prober.look(live, probe).await });
    }

    /// An offer is looked at beside everything else: name servers may take their time.
    async fn look_at(&mut self, mut assignment: v1::Assignment) -> Result<(), End> {
        // Only this agent itself enters what it does alone.
        assignment.autonomous = None;
        if self.offers.len() >= OFFERS_MAX {
            let Some(key) = known(assignment.key.as_ref()) else { return Ok(()) };
            let reason = v1::refused::Reason::Busy;
            let answer = Answer::Refused(key, reason, "too many offers at once".to_owned());
            return self.say_message(answer.to_wire()).await;
        }
        let (executor, term) = (self.link.executor.clone(), self.term);
        self.offers.spawn(async move { executor.offer(assignment, term).await });
        Ok(())
    }

    async fn say_answer(
        &self,
        answered: Result<Result<Answer, BadKey>, tokio::task::JoinError>,
    ) -> Result<(), End> {
        match answered {
            Ok(Ok(answer)) => self.say_message(answer.to_wire()).await,
            Ok(Err(bad)) => {
                tracing::error!("an offer is ignored: {bad}");
                Ok(())
            }
            Err(error) => Err(End::Lost(format!("looking at an offer failed: {error}"))),
        }
    }

    async fn acknowledged(&mut self, key: Key, fenced: bool) {
        self.said.remove(&key);
        match self.link.executor.acknowledge(key).await {
            Ok(true) if fenced => tracing::info!(%key, "acknowledged; another attempt has the tree since"),
            Ok(true) => tracing::info!(%key, "acknowledged"),
            Ok(false) => tracing::debug!(%key, "acknowledged before"),
            Err(error) => {
                tracing::warn!(
                    error = outcome::chain(&error),
                    "the acknowledgement is not on disk; it will come again"
                );
            }
        }
    }

    /// Sees to it that every outcome is said that was not said in this session, or long ago. Disks have changed much with
    /// it, and what follows from it must know: they are looked at first.
    async fn see_to_outcomes(&mut self) -> Result<(), End> {
        let unsaid: Vec<Key> = self.link.executor.ended_keys().filter(|key| self.is_unsaid(key)).collect();
        if unsaid.is_empty() {
            return Ok(());
        }
        if !self.looking.is_empty() && self.look_began.elapsed() >= INVENTORY_WAIT_MAX {
            tracing::warn!("a disk of this host hangs: what ended is said without a look at it");
            return self.say_outcomes(unsaid).await;
        }
        self.look_at_disks(unsaid);
        Ok(())
    }

    /// Looks at them beside everything else, and then says these outcomes; not while another look goes on, which may have
    /// begun before they ended.
    fn look_at_disks(&mut self, ended: Vec<Key>) {
        if self.looking.is_empty() {
            let inventory = self.link.inventory();
            self.look_began = Instant::now();
            self.looking.spawn(async move { (inventory.await, ended) });
        }
    }

    async fn say_looked(&mut self, inventory: v1::Inventory, ended: Vec<Key>) -> Result<(), End> {
        self.say(Out::Inventory(inventory)).await?;
        self.say_outcomes(ended).await?;
        // Others may have ended since it began.
        self.see_to_outcomes().await
    }

    fn is_unsaid(&self, key: &Key) -> bool {
        self.said.get(key).is_none_or(|at| at.elapsed() >= RESEND_AFTER)
    }

    async fn say_outcomes(&mut self, keys: Vec<Key>) -> Result<(), End> {
        for key in keys {
            if !self.is_unsaid(&key) {
                continue;
            }
            let Some(ended) = self.link.executor.outcome(key).await else { continue };
            self.say(Out::Ended(ended)).await?;
            self.said.insert(key, Instant::now());
            self.told.remove(&key);
        }
        Ok(())
    }

    /// The newest of each attempt that changed; dropped when the coordinator is slow.
    fn tell_progress(&mut self) {
        let now: BTreeMap<Key, v1::Progress> = self.link.executor.progress().into_iter().collect();
        let changed = now.iter().filter(|(key, progress)| self.told.get(key) != Some(progress));
        let attempts: Vec<v1::AttemptProgress> = changed
            .map(|(key, progress)| v1::AttemptProgress {
                key: Some(key.to_wire()),
                progress: Some(*progress),
            })
            .collect();
        if attempts.is_empty()
            || self.outbox.try_send(message(Out::Progress(v1::ProgressReport { attempts }))).is_ok()
        {
            self.told = now;
        }
    }

    /// New lines of followed logs; what finds no room now comes with the next piece.
    fn send_logs(&mut self) {
        let mut over = Vec::new();
        for (key, position) in &mut self.followed {
            let Some((data, next)) = self.link.executor.log_since(*key, *position) else {
                over.push(*key);
                continue;
            };
            let chunk = v1::LogChunk { key: Some(key.to_wire()), data };
            if chunk.data.is_empty() || self.outbox.try_send(message(Out::LogChunk(chunk))).is_ok() {
                *position = next;
            }
        }
        over.iter().for_each(|key| _ = self.followed.remove(key));
    }

    async fn say(&self, out: Out) -> Result<(), End> {
        self.say_message(message(out)).await
    }

    async fn say_message(&self, message: OpenSessionRequest) -> Result<(), End> {
        match self.outbox.send_timeout(message, SEND_WAIT_MAX).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                Err(End::Lost(format!("the coordinator has read nothing for {} s", SEND_WAIT_MAX.as_secs())))
            }
            // The stream has ended; why comes from its other half, unless that is silent.
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(End::Lost("connection lost".to_owned())),
        }
    }
}

fn message(out: Out) -> OpenSessionRequest {
    OpenSessionRequest { message: Some(out) }
}

fn known(key: Option<&v1::AttemptKey>) -> Option<Key> {
    Key::from_wire(key).map_err(|bad| tracing::error!("a message is ignored: {bad}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_wrong_is_named_with_both_times() {
        let here = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let at = |seconds: i64| here + chrono::TimeDelta::seconds(seconds);
        assert_eq!(clocks_differ(here, at(60)), None);
        let ahead = clocks_differ(at(2 * 86_400), here).unwrap();
        let told = "this host's clock is 2 days ahead of the coordinator's (2027-01-17 08:00:00 UTC here, 2027-01-15 08:00:00 \
                    UTC there)";
        assert!(ahead.starts_with(told), "{ahead}");
        assert!(
            clocks_differ(here, at(3_700))
                .unwrap()
                .starts_with("this host's clock is 1 hour behind the coord")
        );
    }
}
