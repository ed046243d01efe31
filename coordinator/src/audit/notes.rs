//! What is recorded without a change: refusals, failures and happenings, on their way to the writer's next commit. A
//! flood of them fills no disk and slows nobody: the queue is bounded, equal refusals are counted in one event, and the
//! events of an hour are bounded, those of strangers apart from those of members. What is left out is counted, and the
//! count is an event itself.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fleet::time::Mono;
use mirror_proto::{convert::parse_push_token, v1::AuditEvent};
use tokio_util::sync::CancellationToken;

use super::{COORDINATOR, DROPPED, changes::FLEET, happened};
use crate::{driver::Driver, rpc::gate::NOBODY};

/// Events that may wait for the writer.
pub const WAITING_MAX: usize = 256;
/// Refusals that are equal (who, from, action, reason) within this time are counted in one event.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Kinds of refusals that are counted at once.
pub const KINDS_MAX: usize = 1_024;
/// The time over which [`STRANGERS_MAX`] and [`MEMBERS_MAX`] count.
pub const SPAN: Duration = Duration::from_secs(3_600);
/// Refusals recorded of those who have not proved who they are, all together, in one [`SPAN`].
pub const STRANGERS_MAX: u32 = 600;
/// Refusals recorded of users and agents, all together, in one [`SPAN`].
pub const MEMBERS_MAX: u32 = 3_600;
/// Refusals recorded of programs with push tokens, all together, in one [`SPAN`]: such a token lies in many a script, and who
/// found one must not be able to keep anything else out of the log.
pub const PUSHERS_MAX: u32 = 600;
/// How often counts that are due are looked for.
pub const FLUSH_EVERY: Duration = Duration::from_secs(5);

/// The way of what is recorded without a change.
#[derive(Debug, Default)]
pub struct Notes(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<AuditEvent>,
    kinds: BTreeMap<Kind, Counted>,
    strangers: Budget,
    members: Budget,
    pushers: Budget,
    dropped: u64,
}

/// What makes two refusals equal.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    who: String,
    /// Without the port, which is another one for each connection.
    from: String,
    action: String,
    reason: String,
}

/// Equal ones after the first one, which is recorded at once.
#[derive(Debug)]
struct Counted {
    since: Mono,
    newest: AuditEvent,
    more: u64,
}

#[derive(Debug, Default)]
struct Budget {
    since: Option<Mono>,
    spent: u32,
}

impl Budget {
    fn spend(&mut self, now: Mono, most: u32) -> bool {
        if self.since.is_none_or(|since| now.since(since) >= SPAN) {
            (self.since, self.spent) = (Some(now), 0);
        }
        let left = self.spent < most;
        self.spent += u32::from(left);
        left
    }
}

impl Notes {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a happening in the queue, or counts it as left out.
    pub fn put(&self, event: AuditEvent) {
        self.inner().put(event);
    }

    /// Takes a refusal: the first of its kind is recorded at once, equal ones within [`WINDOW`] by their number. True when
    /// an event has come into the queue by it.
    pub fn refused(&self, now: Mono, event: AuditEvent) -> bool {
        self.inner().refused(now, event)
    }

    /// Puts the counts whose time is over in the queue, and the number of what was left out; `all`: also those whose
    /// time is not over. True when something waits.
    pub fn flush(&self, now: Mono, all: bool) -> bool {
        let mut inner = self.inner();
        inner.flush(now, all);
        !inner.waiting.is_empty()
    }

    /// Everything that waits.
    pub fn take(&self) -> Vec<AuditEvent> {
        self.inner().waiting.drain(..).collect()
    }

    /// Counts what was taken and could not be recorded: the events' own counts, all together.
    pub fn lost(&self, count: u64) {
        let mut inner = self.inner();
        inner.dropped = inner.dropped.saturating_add(count);
    }
}

impl Inner {
    /// True when there was room in the queue.
    fn put(&mut self, event: AuditEvent) -> bool {
        let room = self.waiting.len() < WAITING_MAX;
        if room {
            self.waiting.push_back(event);
        } else {
            self.dropped = self.dropped.saturating_add(event.count);
        }
        room
    }

    fn refused(&mut self, now: Mono, event: AuditEvent) -> bool {
        let mut came = false;
        let kind = Kind::of(&event);
        if let Some(counted) = self.kinds.get_mut(&kind) {
            if now.since(counted.since) < WINDOW {
                (counted.newest, counted.more) = (event, counted.more.saturating_add(1));
                return false;
            }
            if let Some(over) = self.kinds.remove(&kind) {
                came = self.close(now, over);
            }
        }
        if self.kinds.len() >= KINDS_MAX || !self.spend(now, &event) {
            self.dropped = self.dropped.saturating_add(1);
            return came;
        }
        self.kinds.insert(kind, Counted { since: now, newest: event.clone(), more: 0 });
        self.put(event) || came
    }

    fn spend(&mut self, now: Mono, event: &AuditEvent) -> bool {
        match event.who.as_str() {
            NOBODY => self.strangers.spend(now, STRANGERS_MAX),
            who if parse_push_token("who", who).is_ok() => self.pushers.spend(now, PUSHERS_MAX),
            _ => self.members.spend(now, MEMBERS_MAX),
        }
    }

    /// True when the count has come into the queue.
    fn close(&mut self, now: Mono, counted: Counted) -> bool {
        let Counted { newest, more, .. } = counted;
        if more == 0 {
            return false;
        }
        let event = AuditEvent { count: more, ..newest };
        if self.spend(now, &event) {
            return self.put(event);
        }
        self.dropped = self.dropped.saturating_add(more);
        false
    }

    fn flush(&mut self, now: Mono, all: bool) {
        let over = |counted: &Counted| all || now.since(counted.since) >= WINDOW;
        let (closed, open) = std::mem::take(&mut self.kinds).into_iter().partition(|(_, one)| over(one));
        self.kinds = open;
        let closed: BTreeMap<Kind, Counted> = closed;
        for counted in closed.into_values() {
            self.close(now, counted);
        }
        if self.dropped > 0 && self.waiting.len() < WAITING_MAX {
            let count = std::mem::take(&mut self.dropped);
            let text = format!(
                "{count} events were too many to be recorded one by one; the coordinator's log may have them"
            );
            let event = happened(DROPPED, COORDINATOR, "", FLEET, text);
            self.put(AuditEvent { count, ..event });
        }
    }
}

impl Kind {
    fn of(event: &AuditEvent) -> Self {
        let host = event.from.parse().map_or_else(
            |_| event.from.clone(),
            |address: std::net::SocketAddr| address.ip().to_canonical().to_string(),
        );
        Self {
            who: event.who.clone(),
            from: host,
            action: event.action.clone(),
            reason: event.reason.clone(),
        }
    }
}

/// Brings counts to the writer as their time is over. What is counted when the coordinator stops, and while its requests
/// end, the writer records as it ends itself.
pub async fn run(driver: Driver, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(FLUSH_EVERY) => driver.flush_notes(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(who: &str, port: u16, reason: &str) -> AuditEvent {
        AuditEvent {
            reason: reason.to_owned(),
            ..happened("X.Y", who, &format!("192.0.2.1:{port}"), "", String::new())
        }
    }

    fn counts(notes: &Notes) -> Vec<(String, u64)> {
        notes.take().into_iter().map(|event| (event.action, event.count)).collect()
    }

    #[test]
    fn equal_refusals_are_one_event_and_a_count() {
        let (notes, start) = (Notes::default(), Mono(1));
        for port in 1..=1_000 {
            let came = notes.refused(start, refusal("users/maria", port, "NOT_ALLOWED"));
            assert_eq!(came, port == 1, "only the first one is for the writer to take");
        }
        notes.refused(start, refusal("users/maria", 1, "OTHER"));
        assert_eq!(counts(&notes), [("X.Y".to_owned(), 1), ("X.Y".to_owned(), 1)]);
        assert!(!notes.flush(start.plus(WINDOW / 2), false));
        assert!(notes.flush(start.plus(WINDOW), false));
        assert_eq!(counts(&notes), [("X.Y".to_owned(), 999)]);
        // A new window begins with an event of its own; at the end nothing is kept back.
        for _ in 0..3 {
            notes.refused(start.plus(WINDOW), refusal("users/maria", 1, "NOT_ALLOWED"));
        }
        assert!(notes.flush(start.plus(WINDOW), true));
        assert_eq!(counts(&notes), [("X.Y".to_owned(), 1), ("X.Y".to_owned(), 2)]);
        assert!(!notes.flush(start.plus(WINDOW), true));
    }

    #[test]
    fn a_flood_is_bounded_and_what_is_left_out_is_counted() {
        let (notes, now) = (Notes::default(), Mono(1));
        let mut recorded = 0;
        let mut take = |notes: &Notes| {
            let taken = notes.take();
            let dropped = taken.iter().filter(|event| event.action == DROPPED).map(|event| event.count);
            recorded += taken.iter().filter(|event| event.action != DROPPED).count();
            dropped.sum::<u64>()
        };
        let mut dropped = 0;
        for n in 0..10_000_u32 {
            notes.refused(now, refusal("nobody", 1, &n.to_string()));
            if n % 100 == 0 {
                dropped += take(&notes);
            }
        }
        notes.flush(now, true);
        dropped += take(&notes);
        assert_eq!(recorded as u64 + dropped, 10_000);
        assert_eq!(recorded, STRANGERS_MAX as usize);
        // Members are not kept out by strangers.
        notes.refused(now, refusal("users/maria", 1, "x"));
        assert_eq!(counts(&notes).len(), 1);
    }

    #[test]
    fn who_found_a_push_token_keeps_nobody_out_of_the_log() {
        let (notes, start) = (Notes::default(), Mono(1));
        let mut recorded = 0;
        // Every method in turn, minute by minute, for an hour.
        for minute in 0..60 {
            let now = start.plus(WINDOW * minute);
            for method in 0..100 {
                notes.refused(now, refusal("pushTokens/0f3a7c21d9e04b55", 1, &method.to_string()));
                recorded += notes.take().len();
            }
        }
        assert_eq!(recorded, PUSHERS_MAX as usize);
        for who in ["users/maria", "agents/ftp1", "nobody"] {
            assert!(notes.refused(start.plus(WINDOW * 59), refusal(who, 1, "x")), "{who}");
        }
    }

    #[test]
    fn the_queue_is_bounded_and_nothing_is_left_out_in_silence() {
        let notes = Notes::default();
        for _ in 0..WAITING_MAX + 7 {
            notes.put(happened("X.Y", COORDINATOR, "", "", String::new()));
        }
        assert_eq!(notes.take().len(), WAITING_MAX);
        notes.lost(3);
        assert!(notes.flush(Mono(1), false));
        assert_eq!(counts(&notes), [(DROPPED.to_owned(), 10)]);
    }
}
