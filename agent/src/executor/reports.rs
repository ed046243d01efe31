//! What the link asks of the attempts, and tells them.

use fleet::id::ProjectUid;
use mirror_proto::v1;
use mirror_proto::v1::refused::Reason;

use super::attempt::Attempt;
use super::guards::Pass;
use super::ledger::blocking;
use super::passes::pass_dir;
use super::{Executor, held, read_password, remember};
use crate::journal::{Entry, JournalError, Step};
use crate::key::Key;
use crate::outcome::cancelled;
use crate::rundir::RunDir;

fn describe(entry: &Entry, needs_secrets: bool) -> v1::AttemptDescriptor {
    v1::AttemptDescriptor {
        key: Some(entry.key.to_wire()),
        project_uid: entry.assignment.project_uid,
        role: entry.assignment.role,
        destination: entry.assignment.destination.clone(),
        spec_hash: entry.assignment.spec_hash.clone(),
        ended: entry.ended.is_some(),
        needs_secrets,
        dry_run: entry.assignment.dry_run,
        autonomous: entry.assignment.autonomous,
        keep_extra: entry.assignment.keep_extra,
    }
}

impl Executor {
    /// Everything held: for the hello. An offer that is being taken is waited for.
    pub async fn descriptors(&self) -> Vec<v1::AttemptDescriptor> {
        let _none_is_taken = self.shared.refused.lock().await;
        let lacking: Vec<Key> = {
            let attempts: Vec<_> = held(&self.shared.attempts).values().cloned().collect();
            let lacking = attempts.iter().filter(|attempt| attempt.lost_password());
            lacking.map(|attempt| attempt.order.key).collect()
        };
        let book = self.shared.book();
        book.entries().map(|entry| describe(entry, lacking.contains(&entry.key))).collect()
    }

    /// Whether an attempt has still to start its program and has no password for it.
    fn lacks_password(&self, attempt: &Attempt) -> bool {
        if !attempt.lost_password() {
            return false;
        }
        let step = self.shared.book().get(attempt.order.key.id).map(|entry| entry.step);
        // Where no supervisor was started the attempt is begun anew, whatever its step.
        let started =
            || RunDir::was_started(&pass_dir(&self.shared, &attempt.order, Pass::Pull, 1)).unwrap_or(true);
        step.is_some_and(|step| step < Step::Pull || !started())
    }

    /// The attempts whose outcomes are not acknowledged.
    pub fn ended_keys(&self) -> impl Iterator<Item = Key> + use<> {
        let book = self.shared.book();
        let ended = book.entries().filter(|entry| entry.ended.is_some());
        ended.map(|entry| entry.key).collect::<Vec<_>>().into_iter()
    }

    /// The outcome of one of them, with the end of its log.
    pub async fn outcome(&self, key: Key) -> Option<v1::Ended> {
        let entry = self.shared.book().get(key.id).filter(|entry| entry.key == key).cloned()?;
        let (logs, project) = (self.shared.logs.clone(), ProjectUid(entry.assignment.project_uid));
        let log_tail = blocking(move || logs.tail(project, key)).await;
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
    pub async fn cancel(&self, key: Key, reason: &str) -> Option<v1::Ended> {
        // Held until the answer is clear: an offer is accepted under the same lock.
        let mut refused = self.shared.refused.lock().await;
        let attempt = held(&self.shared.attempts).get(&key.id).cloned();
        if let Some(attempt) = attempt.filter(|attempt| attempt.order.key == key) {
            attempt.stop.send_if_modified(|stop| {
                let first = stop.is_none();
                stop.get_or_insert_with(|| reason.to_owned());
                first
            });
            return None;
        }
        if self.shared.book().get(key.id).is_some_and(|entry| entry.key == key) {
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
    pub async fn acknowledge(&self, key: Key) -> Result<bool, JournalError> {
        self.shared.journal.write(move |journal| journal.settle(key)).await
    }
}
