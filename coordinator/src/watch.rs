//! What may be dropped on its way to people: the newest progress of each attempt, and live lines of the logs
//! that somebody follows. Held in memory only, newest wins, and nobody who looks on can hold up an agent.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use fleet::id::{AgentUid, AttemptId, Epoch};
use mirror_proto::v1;
use tokio::sync::{broadcast, watch};

use crate::{attempt_logs::LOG_TAIL_BYTES_MAX, outbox::Outbox};

/// Attempts whose progress is kept. Far more than a fleet has out at once: 5,000 agents with 8 slots.
pub const PROGRESS_MAX: usize = 65_536;
/// Pieces of a live log that may wait for one follower.
pub const LOG_PIECES_WAITING_MAX: usize = 64;
/// Logs that are followed at once over the whole fleet.
pub const LOGS_FOLLOWED_MAX: usize = 64;
/// Those who follow one log at once.
pub const FOLLOWERS_MAX: usize = 64;

/// The newest progress of each attempt that is out.
#[derive(Debug)]
pub struct Progress {
    newest: Mutex<BTreeMap<AttemptId, v1::Progress>>,
    told: watch::Sender<u64>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { newest: Mutex::default(), told: watch::Sender::new(0) }
    }
}

impl Progress {
    /// Remembers these in place of older ones and wakes those who watch. `is_out` says of any attempt whether
    /// it may still be on an agent; when there are [`PROGRESS_MAX`], those that are not are forgotten.
    pub fn put(
        &self,
        fresh: impl IntoIterator<Item = (AttemptId, v1::Progress)>,
        is_out: impl Fn(AttemptId) -> bool,
    ) {
        let mut newest = locked(&self.newest);
        for (attempt, progress) in fresh {
            if newest.len() >= PROGRESS_MAX && !newest.contains_key(&attempt) {
                newest.retain(|known, _| is_out(*known));
            }
            if newest.len() < PROGRESS_MAX || newest.contains_key(&attempt) {
                newest.insert(attempt, progress);
            }
        }
        drop(newest);
        self.told.send_modify(|count| *count += 1);
    }

    /// The attempt's newest progress, if there is any.
    #[must_use]
    pub fn get(&self, attempt: AttemptId) -> Option<v1::Progress> {
        locked(&self.newest).get(&attempt).cloned()
    }

    /// The attempt is final: its progress is of no use any more.
    pub fn forget(&self, attempt: AttemptId) {
        locked(&self.newest).remove(&attempt);
    }

    /// Grows with each progress of any attempt: watchers look again.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change of these maps is one call that leaves them whole, so a panic elsewhere spoils nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which log: an attempt under one epoch.
type LogKey = (AttemptId, Epoch);

/// The logs that somebody follows now. An agent sends lines only while somebody does.
#[derive(Debug, Clone, Default)]
pub struct LiveLogs(Arc<Mutex<BTreeMap<LogKey, LiveLog>>>);

/// One log that is followed.
#[derive(Debug)]
struct LiveLog {
    agent: AgentUid,
    lines: broadcast::Sender<Bytes>,
    /// What came so far, so that who joins later sees the same: at most [`LOG_TAIL_BYTES_MAX`].
    recent: VecDeque<Bytes>,
    recent_bytes: usize,
}

/// Too many logs are followed, or this one by too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "too many follow logs now ({LOGS_FOLLOWED_MAX} logs, {FOLLOWERS_MAX} to a log); try again in a moment"
)]
pub struct TooManyFollowers;

impl LiveLogs {
    /// Follows a log, and tells the agent so when nobody else does.
    ///
    /// # Errors
    /// [`TooManyFollowers`] when a bound is reached.
    pub fn follow(
        &self,
        outbox: &Arc<Outbox>,
        agent: AgentUid,
        attempt: AttemptId,
        epoch: Epoch,
    ) -> Result<Follower, TooManyFollowers> {
        let key = (attempt, epoch);
        let mut logs = locked(&self.0);
        if logs.len() >= LOGS_FOLLOWED_MAX && !logs.contains_key(&key) {
            return Err(TooManyFollowers);
        }
        let log = logs.entry(key).or_insert_with(|| {
            outbox.subscribe_log(agent, attempt, epoch);
            let (lines, _) = broadcast::channel(LOG_PIECES_WAITING_MAX);
            LiveLog { agent, lines, recent: VecDeque::new(), recent_bytes: 0 }
        });
        if log.lines.receiver_count() >= FOLLOWERS_MAX {
            return Err(TooManyFollowers);
        }
        let lines = Some(log.lines.subscribe());
        let recent = log.recent.iter().cloned().collect();
        Ok(Follower { recent, lines, key, agent, logs: self.clone(), outbox: Arc::clone(outbox) })
    }

    /// Gives a piece of a log to those who follow it. False: nobody does, or another agent holds it.
    pub fn put(&self, agent: AgentUid, attempt: AttemptId, epoch: Epoch, piece: Bytes) -> bool {
        let mut logs = locked(&self.0);
        let Some(log) = logs.get_mut(&(attempt, epoch)).filter(|log| log.agent == agent) else {
            return false;
        };
        log.recent_bytes += piece.len();
        log.recent.push_back(piece.clone());
        while log.recent_bytes > LOG_TAIL_BYTES_MAX {
            let Some(oldest) = log.recent.pop_front() else { break };
            log.recent_bytes -= oldest.len();
        }
        log.lines.send(piece).is_ok()
    }

    /// What of this agent is followed: to be asked for again when a new session of it begins.
    #[must_use]
    pub fn followed_on(&self, agent: AgentUid) -> Vec<(AttemptId, Epoch)> {
        let logs = locked(&self.0);
        logs.iter().filter(|(_, log)| log.agent == agent).map(|(key, _)| *key).collect()
    }
}

/// One who follows a log. Dropping the last one of a log tells the agent to send no more of it.
#[derive(Debug)]
pub struct Follower {
    recent: VecDeque<Bytes>,
    /// Always there until the drop.
    lines: Option<broadcast::Receiver<Bytes>>,
    key: LogKey,
    agent: AgentUid,
    logs: LiveLogs,
    outbox: Arc<Outbox>,
}

/// The follower did not keep up and has missed lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the follower did not keep up with the log")]
pub struct FellBehind;

impl Follower {
    /// Which epoch of the attempt it follows.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.key.1
    }

    /// Waits for the next piece.
    ///
    /// # Errors
    /// [`FellBehind`] when pieces were lost because this follower did not take them.
    pub async fn next(&mut self) -> Result<Bytes, FellBehind> {
        if let Some(piece) = self.recent.pop_front() {
            return Ok(piece);
        }
        match &mut self.lines {
            // The sender lives as long as there is a follower, so an error means that pieces were lost.
            Some(lines) => lines.recv().await.map_err(|_| FellBehind),
            None => Err(FellBehind),
        }
    }

    /// The next piece if it is here already.
    ///
    /// # Errors
    /// [`FellBehind`] as for [`Follower::next`].
    pub fn next_at_hand(&mut self) -> Result<Option<Bytes>, FellBehind> {
        if let Some(piece) = self.recent.pop_front() {
            return Ok(Some(piece));
        }
        let Some(lines) = &mut self.lines else { return Ok(None) };
        match lines.try_recv() {
            Ok(piece) => Ok(Some(piece)),
            Err(broadcast::error::TryRecvError::Lagged(_)) => Err(FellBehind),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => Ok(None),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut logs = locked(&self.logs.0);
        self.lines = None;
        if logs.get(&self.key).is_some_and(|log| log.lines.receiver_count() == 0) {
            logs.remove(&self.key);
            self.outbox.unsubscribe_log(self.agent, self.key.0, self.key.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use fleet::id::RunId;

    use super::*;
    use crate::seal::Sealer;

    const FTP1: AgentUid = AgentUid(1);
    const EPOCH: Epoch = Epoch { term: 1, counter: 1 };

    fn attempt(number: u32) -> AttemptId {
        AttemptId { run: RunId::mint(1_000, 1, RunId::NIL), number }
    }

    fn outbox() -> Arc<Outbox> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        Sealer::create(&path).unwrap();
        Arc::new(Outbox::new(Arc::new(Sealer::open(&path).unwrap())))
    }

    fn percent(percent: u32) -> v1::Progress {
        v1::Progress { percent: Some(percent), ..v1::Progress::default() }
    }

    #[test]
    fn the_newest_progress_wins_and_wakes_who_watches() {
        let progress = Progress::default();
        let changes = progress.changes();
        progress.put([(attempt(1), percent(3)), (attempt(2), percent(4))], |_| true);
        progress.put([(attempt(1), percent(5))], |_| true);
        assert!(changes.has_changed().unwrap());
        assert_eq!(progress.get(attempt(1)), Some(percent(5)));
        progress.forget(attempt(1));
        assert_eq!((progress.get(attempt(1)), progress.get(attempt(2))), (None, Some(percent(4))));
    }

    #[test]
    fn progress_is_bounded_and_what_is_over_makes_room() {
        let progress = Progress::default();
        let many = u32::try_from(PROGRESS_MAX).unwrap();
        progress.put((1..=many).map(|n| (attempt(n), percent(1))), |_| true);
        progress.put([(attempt(many + 1), percent(1))], |_| true);
        assert_eq!(progress.get(attempt(many + 1)), None, "all of them may still be out");
        progress.put([(attempt(1), percent(9))], |_| true);
        assert_eq!(progress.get(attempt(1)), Some(percent(9)), "a known one is always renewed");
        progress.put([(attempt(many + 1), percent(1))], |known| known == attempt(2));
        assert!(progress.get(attempt(many + 1)).is_some() && progress.get(attempt(2)).is_some());
        assert_eq!(progress.get(attempt(1)), None);
    }

    #[tokio::test]
    async fn a_follower_that_falls_behind_is_told_and_holds_up_nobody() {
        let (logs, outbox) = (LiveLogs::default(), outbox());
        let mut slow = logs.follow(&outbox, FTP1, attempt(1), EPOCH).unwrap();
        let mut quick = logs.follow(&outbox, FTP1, attempt(1), EPOCH).unwrap();
        for n in 0..=LOG_PIECES_WAITING_MAX {
            let piece = Bytes::from(n.to_string());
            assert!(logs.put(FTP1, attempt(1), EPOCH, piece.clone()));
            assert_eq!(quick.next().await, Ok(piece));
        }
        assert_eq!(slow.next().await, Err(FellBehind));
        assert_eq!(quick.next_at_hand(), Ok(None));
    }

    #[test]
    fn lines_are_taken_from_the_agent_that_is_followed_and_while_it_is() {
        let (logs, outbox) = (LiveLogs::default(), outbox());
        let piece = Bytes::from_static(b"line\n");
        assert!(!logs.put(FTP1, attempt(1), EPOCH, piece.clone()));
        let follower = logs.follow(&outbox, FTP1, attempt(1), EPOCH).unwrap();
        assert_eq!(logs.followed_on(FTP1), [(attempt(1), EPOCH)]);
        assert!(!logs.put(AgentUid(2), attempt(1), EPOCH, piece.clone()), "another agent's");
        assert!(!logs.put(FTP1, attempt(1), Epoch { term: 2, counter: 1 }, piece.clone()), "another epoch's");
        assert!(logs.put(FTP1, attempt(1), EPOCH, piece));
        drop(follower);
        assert!(logs.followed_on(FTP1).is_empty());
    }

    #[test]
    fn who_joins_later_gets_the_recent_lines_and_no_more_than_a_tail() {
        let (logs, outbox) = (LiveLogs::default(), outbox());
        let first = logs.follow(&outbox, FTP1, attempt(1), EPOCH).unwrap();
        let half = Bytes::from(vec![b'x'; LOG_TAIL_BYTES_MAX / 2]);
        for _ in 0..3 {
            logs.put(FTP1, attempt(1), EPOCH, half.clone());
        }
        let mut second = logs.follow(&outbox, FTP1, attempt(1), EPOCH).unwrap();
        let mut bytes = 0;
        while let Ok(Some(piece)) = second.next_at_hand() {
            bytes += piece.len();
        }
        assert_eq!(bytes, LOG_TAIL_BYTES_MAX);
        let more: Vec<_> =
            (2..FOLLOWERS_MAX).map(|_| logs.follow(&outbox, FTP1, attempt(1), EPOCH)).collect();
        assert!(more.iter().all(Result::is_ok));
        assert_eq!(logs.follow(&outbox, FTP1, attempt(1), EPOCH).err(), Some(TooManyFollowers));
        drop((first, second));
    }
}
