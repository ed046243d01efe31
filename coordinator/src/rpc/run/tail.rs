//! Follows one attempt's log for one reader: the stored tail of one that has ended; of one that runs, what its agent
//! sends while somebody follows. The bytes are passed on as they are.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fleet::{
    attempt::AttemptRecord,
    id::{AgentUid, Epoch},
};
use mirror_proto::{status::exhausted, v1};
use tokio::time::timeout;
use tonic::Status;

use super::{Place, stopping};
use crate::{
    Services,
    outbox::line::{Line, LineSender, Stuck, line},
    rpc::{RETRY_UNAVAILABLE, broken},
    watch::{FellBehind, Follower},
};

/// Pieces of a log that may wait for one reader.
const TAIL_LEN: usize = 4;
/// How long a reader that does not follow waits for the agent's first lines.
const FIRST_LINES_WAIT: Duration = Duration::from_secs(3);
/// Without a new line for this long, those that have come are sent as they are.
const MORE_LINES_WAIT: Duration = Duration::from_millis(200);

/// Starts to read the log.
pub(super) fn start(
    services: Services,
    attempt: AttemptRecord,
    follow: bool,
    place: Place,
) -> Line<v1::TailRunLogResponse> {
    let (sender, receiver) = line(TAIL_LEN);
    let closed = services.outbox.closed().clone();
    let tail = Tail { services, attempt, told: false };
    tokio::spawn(async move {
        let ended = tokio::select! {
            () = closed.cancelled() => Err(Stop::Tell(stopping())),
            ended = tail.run(follow, &sender) => ended,
        };
        match ended {
            Ok(()) | Err(Stop::ReaderGone) => {}
            Err(Stop::Tell(status)) => sender.end(status),
        }
        drop(place);
    });
    receiver
}

struct Tail {
    services: Services,
    attempt: AttemptRecord,
    /// Live lines have been passed on.
    told: bool,
}

/// Why a log is read no further before its end.
enum Stop {
    ReaderGone,
    Tell(Status),
}

impl From<Stuck> for Stop {
    fn from(stuck: Stuck) -> Self {
        match stuck {
            Stuck::Gone => Self::ReaderGone,
            Stuck::Full => Self::Tell(too_slow()),
        }
    }
}

impl From<FellBehind> for Stop {
    fn from(_: FellBehind) -> Self {
        Self::Tell(too_slow())
    }
}

type Sender = LineSender<v1::TailRunLogResponse>;

impl Tail {
    async fn run(mut self, follow: bool, sender: &Sender) -> Result<(), Stop> {
        let mut commits = self.services.driver.changes();
        loop {
            commits.mark_unchanged();
            match self.out_on() {
                Some((agent, epoch)) => {
                    let mut lines = self.follow(agent, epoch)?;
                    if !follow {
                        return self.snapshot(&mut lines, sender).await;
                    }
                    self.pass_on(&mut lines, sender, &mut commits).await?;
                }
                None if self.has_ended() => return self.stored(sender).await,
                None if !follow => return Ok(()),
                None => tokio::select! {
                    () = sender.gone() => return Err(Stop::ReaderGone),
                    changed = commits.changed() => changed.map_err(|_| Stop::Tell(stopping()))?,
                },
            }
        }
    }

    /// On which agent the attempt may be, under which token.
    fn out_on(&self) -> Option<(AgentUid, Epoch)> {
        let view = self.services.driver.view();
        let attempt = view.attempt(self.attempt.id).filter(|attempt| attempt.state.is_out())?;
        Some((attempt.agent, attempt.state.epoch()?))
    }

    fn has_ended(&self) -> bool {
        self.services.driver.view().attempt(self.attempt.id).is_none()
    }

    fn follow(&self, agent: AgentUid, epoch: Epoch) -> Result<Follower, Stop> {
        let followed = self.services.logs.live().follow(&self.services.outbox, agent, self.attempt.id, epoch);
        followed.map_err(|error| {
            Stop::Tell(exhausted("TOO_MANY_FOLLOWERS", &error.to_string(), RETRY_UNAVAILABLE))
        })
    }

    /// Passes on live lines until the attempt is no longer out under this token.
    async fn pass_on(
        &mut self,
        lines: &mut Follower,
        sender: &Sender,
        commits: &mut tokio::sync::watch::Receiver<u64>,
    ) -> Result<(), Stop> {
        loop {
            tokio::select! {
                biased;
                () = sender.gone() => return Err(Stop::ReaderGone),
                piece = lines.next() => self.send(piece?, sender).await?,
                changed = commits.changed() => {
                    changed.map_err(|_| Stop::Tell(stopping()))?;
                    if self.out_on().map(|(_, epoch)| epoch) != Some(lines.epoch()) {
                        // What came before the end stands before it in the agent's stream, so it is here.
                        while let Some(piece) = lines.next_at_hand()? {
                            self.send(piece, sender).await?;
                        }
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The lines that the agent has now.
    async fn snapshot(&mut self, lines: &mut Follower, sender: &Sender) -> Result<(), Stop> {
        let mut wait = FIRST_LINES_WAIT;
        while let Ok(piece) = timeout(wait, lines.next()).await {
            self.send(piece?, sender).await?;
            wait = MORE_LINES_WAIT;
        }
        Ok(())
    }

    /// The tail that came with the outcome, unless its lines were passed on as they came.
    async fn stored(&self, sender: &Sender) -> Result<(), Stop> {
        if self.told {
            return Ok(());
        }
        let (logs, attempt) = (Arc::clone(&self.services.logs), self.attempt.id);
        let project = self.attempt.project;
        let read = tokio::task::spawn_blocking(move || logs.read(project, attempt)).await;
        let tail = read
            .map_err(|panicked| Stop::Tell(broken("reading the log", &panicked)))?
            .map_err(|error| Stop::Tell(broken("reading the log", &error)))?;
        match tail {
            Some(data) if !data.is_empty() => Ok(sender.send(v1::TailRunLogResponse { data }).await?),
            Some(_) | None => Ok(()),
        }
    }

    async fn send(&mut self, piece: Bytes, sender: &Sender) -> Result<(), Stop> {
        self.told = true;
        Ok(sender.send(v1::TailRunLogResponse { data: piece.into() }).await?)
    }
}

fn too_slow() -> Status {
    exhausted("SLOW_READER", "the reader does not keep up with the log; read it again", RETRY_UNAVAILABLE)
}
