//! What the link asks of the attempts, and tells them.

use fleet::id::ProjectUid;
use mirror_proto::v1;
use mirror_proto::v1::refused::Reason;

use super::attempt::Attempt;
use super::{Executor, held, read_password, remember};
use crate::journal::{Entry, JournalError, Step};
use crate::key::Key;
use crate::outcome::cancelled;

fn describe(entry: &Entry, needs_secrets: bool) -> v1::AttemptDescriptor {
    v1::AttemptDescriptor {
        key: Some(entry.key.to_wire()),
        project_uid: entry.assignment.project_uid,
        role: entry.assignment.role,
        destination: entry.assignment.destination.clone(),
        spec_hash: entry.assignment.spec_hash.clone(),
        ended: entry.ended.is_some(),
        needs_secrets,
        autonomous: entry.assignment.autonomous,
    }
}

impl Executor {
    /// Everything held: for the hello.
    #[must_use]
    pub fn descriptors(&self) -> Vec<v1::AttemptDescriptor> {
        let lacking: Vec<Key> = {
            let attempts: Vec<_> = held(&self.shared.attempts).values().cloned().collect();
            let lacking = attempts.iter().filter(|attempt| self.lacks_password(attempt));
            lacking.map(|attempt| attempt.order.key).collect()
        };
        let journal = self.shared.journal();
        journal.entries().map(|entry| describe(entry, lacking.contains(&entry.key))).collect()
    }

    /// Whether an attempt has still to start its program and has no password for it.
    fn lacks_password(&self, attempt: &Attempt) -> bool {
        let step = self.shared.journal().get(attempt.order.key.id).map(|entry| entry.step);
        let started = step.is_none_or(|step| step >= Step::Pull);
        attempt.order.needs_password() && attempt.password.borrow().is_none() && !started
    }

    /// The attempts whose outcomes are not acknowledged.
    pub fn ended_keys(&self) -> impl Iterator<Item = Key> + use<> {
        let journal = self.shared.journal();
        let ended = journal.entries().filter(|entry| entry.ended.is_some());
        ended.map(|entry| entry.key).collect::<Vec<_>>().into_iter()
    }

    /// The outcome of one of them, with the end of its log.
    #[must_use]
    pub fn outcome(&self, key: Key) -> Option<v1::Ended> {
        let entry = self.shared.journal().get(key.id).filter(|entry| entry.key == key).cloned()?;
        let log_tail = self.shared.logs.tail(ProjectUid(entry.assignment.project_uid), key);
        // The coordinator may never have heard of what this agent began by itself.
        let autonomous = entry.assignment.autonomous.is_some().then(|| describe(&entry, false));
        entry.ended.map(|ended| v1::Ended { log_tail, autonomous, ..ended })
    }

    /// Comes back when an attempt has ended since the last call.
    pub async fn ended(&self) {
        self.shared.ended.notified().await;
    }

    /// How far each running attempt is.
    #[must_use]
    pub fn progress(&self) -> Vec<(Key, v1::Progress)> {
        let attempts = held(&self.shared.attempts);
        attempts.values().map(|attempt| (attempt.order.key, *attempt.progress.borrow())).collect()
    }

    /// A running attempt's log from a position on, and the position behind it. `None`: it does not run.
    #[must_use]
    pub fn log_since(&self, key: Key, position: u64) -> Option<(Vec<u8>, u64)> {
        let attempt = held(&self.shared.attempts).get(&key.id).cloned()?;
        (attempt.order.key == key).then(|| held(&attempt.log).since(position))
    }

    /// An attempt of the hello goes on, with its secrets.
    pub fn proceed(&self, key: Key, secrets: Option<v1::Secrets>) {
        let Some(attempt) = held(&self.shared.attempts).get(&key.id).cloned() else { return };
        if attempt.order.key != key {
            return;
        }
        match read_password(secrets.map(|secrets| secrets.password).unwrap_or_default()) {
            Ok(Some(password)) => _ = attempt.password.send_replace(Some(password)),
            Ok(None) if self.lacks_password(&attempt) => {
                attempt.stop.send_replace(Some("its project has no password any more".to_owned()));
            }
            Ok(None) => {}
            Err(fault) => tracing::warn!(%key, %fault, "the coordinator sent a password that cannot be used"),
        }
    }

    /// Ends an attempt. One that is not held, such as an offer that is still being looked at, is never taken from now
    /// on, and the outcome to say is returned, so that nobody waits for it. One that has ended needs no answer: its
    /// outcome is on the way.
    pub fn cancel(&self, key: Key, reason: &str) -> Option<v1::Ended> {
        // Held until the answer is clear: an offer is accepted under the same lock.
        let mut refused = held(&self.shared.refused);
        let attempt = held(&self.shared.attempts).get(&key.id).cloned();
        if let Some(attempt) = attempt.filter(|attempt| attempt.order.key == key) {
            attempt.stop.send_if_modified(|stop| {
                let first = stop.is_none();
                stop.get_or_insert_with(|| reason.to_owned());
                first
            });
            return None;
        }
        if self.shared.journal().get(key.id).is_some_and(|entry| entry.key == key) {
            return None;
        }
        remember(&mut refused, key, Reason::Stale, "it was cancelled before it was taken");
        let outcome = cancelled("this agent does not hold it; nothing of it runs here");
        Some(v1::Ended { key: Some(key.to_wire()), outcome: Some(outcome), ..v1::Ended::default() })
    }

    /// The coordinator has an outcome. False: there was none.
    ///
    /// # Errors
    /// As [`crate::journal::Journal::settle`].
    pub fn acknowledge(&self, key: Key) -> Result<bool, JournalError> {
        self.shared.journal().settle(key)
    }
}
