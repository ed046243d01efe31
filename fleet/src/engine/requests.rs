//! Remembered answers: the same request id gets the same answer for a day, also after a restart.
//!
//! Each asker has at most [`REQUESTS_PER_ASKER_MAX`] of them. Who has so many is refused what would be remembered, until his
//! oldest ones expire: to drop the oldest would break the promise just when a caller relies on it, and silently; who is
//! refused has changed nothing and knows it. It stops nobody but him, and nothing that has no request id: runs are
//! cancelled, projects paused and agents revoked all the same.

use std::collections::{BTreeMap, BTreeSet};

use super::state::Engine;
use crate::{
    defaults::{REQUEST_TTL, REQUESTS_PER_ASKER_MAX},
    input::{Decision, Reply, RequestKey},
    record::{Answer, Change, Record, RequestRecord},
    refusal::{Refusal, RefusalCode, Violation},
    time::{Now, Wall},
};

/// What is remembered, and how much of it for whom.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    by_key: BTreeMap<String, RequestRecord>,
    /// Of each asker, those that expire first come first.
    of_asker: BTreeMap<String, BTreeSet<(Wall, String)>>,
}

impl Requests {
    pub(super) fn iter(&self) -> impl Iterator<Item = &RequestRecord> {
        self.by_key.values()
    }

    pub(super) fn put(&mut self, record: &RequestRecord) {
        self.remove(&record.key);
        let of_asker = self.of_asker.entry(asker(&record.key).to_owned()).or_default();
        of_asker.insert((record.expires, record.key.clone()));
        self.by_key.insert(record.key.clone(), record.clone());
    }

    pub(super) fn remove(&mut self, key: &str) {
        let Some(old) = self.by_key.remove(key) else { return };
        if let Some(of_asker) = self.of_asker.get_mut(asker(key)) {
            of_asker.remove(&(old.expires, old.key));
            if of_asker.is_empty() {
                self.of_asker.remove(asker(key));
            }
        }
    }

    /// Whether so many answers to this asker are remembered that there is room for no other. What has expired and was not
    /// swept yet takes none.
    fn are_full(&self, now: Wall, asker: &str) -> bool {
        let Some(of_asker) = self.of_asker.get(asker) else { return false };
        let over = of_asker.len().checked_sub(REQUESTS_PER_ASKER_MAX);
        over.and_then(|over| of_asker.iter().nth(over)).is_some_and(|(expires, _)| *expires > now)
    }
}

/// Who asked: a key is asker, method and id, and of these only the asker may have blanks.
fn asker(key: &str) -> &str {
    key.rsplitn(3, ' ').nth(2).unwrap_or_default()
}

impl Engine {
    /// The remembered answer to a request id that was used before; `None`: it is new, and its answer can be remembered.
    ///
    /// # Errors
    /// It was used with another payload; or it is new, and the asker has [`REQUESTS_PER_ASKER_MAX`] others.
    pub fn remembered(&self, now: Now, request: Option<&RequestKey>) -> Result<Option<Reply>, Refusal> {
        let Some(request) = request else { return Ok(None) };
        let known = self.requests.by_key.get(&request.key).filter(|old| old.expires > now.wall);
        let Some(old) = known else {
            return if self.requests.are_full(now.wall, asker(&request.key)) {
                Err(too_many())
            } else {
                Ok(None)
            };
        };
        if old.payload != request.payload {
            let fault = "was used before with another payload; ids are remembered for 24 h";
            return Err(Refusal::invalid("nothing done", vec![Violation::new("request_id", fault)]));
        }
        Ok(Some(match old.answer.clone() {
            Answer::Project(uid) => Reply::Project(uid),
            Answer::Agent(uid) => Reply::Agent(uid),
            Answer::PushToken(id) => Reply::PushToken(id),
            Answer::Run { project, run, coalesced } => {
                Reply::Run { project, run, coalesced, notes: Vec::new() }
            }
            Answer::Plan { plan, counts } => Reply::Planned { plan, counts },
        }))
    }
}

/// Remembers the answer in the commit of what was done. [`Engine::remembered`] was asked before.
pub(super) fn remember(now: Now, request: Option<RequestKey>, answer: Answer, decision: &mut Decision) {
    if let Some(RequestKey { key, payload }) = request {
        let expires = now.wall.plus(REQUEST_TTL);
        decision.changes.push(Change::Put(Record::Request(RequestRecord { key, payload, answer, expires })));
    }
}

fn too_many() -> Refusal {
    let text = format!(
        "nothing done: {REQUESTS_PER_ASKER_MAX} of your requests with a request id are remembered, each for {} h; wait \
         until the first of them are forgotten, or send none (then nothing tells a repeated request from a new one)",
        REQUEST_TTL.as_secs() / 3_600
    );
    Refusal::new(RefusalCode::ResourceExhausted, "TOO_MANY_REQUEST_IDS", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_key_all_but_the_last_two_words_are_the_asker() {
        assert_eq!(asker("local root CreateProject 7"), "local root");
        assert_eq!((asker("ada RunProject 1"), asker("1")), ("ada", ""));
    }
}
