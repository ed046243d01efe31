//! The agent's journal: what was accepted, how far it is, how it ended. Everything is on disk before it is said
//! to the coordinator, and is kept until the coordinator has acknowledged the outcome; so a restarted agent goes
//! on where it was, and no outcome is ever lost. Secrets are never written. Knows nothing of links and programs.
//!
//! The file is preallocated and so is its spare, to which it is rewritten when it runs full. Room for the
//! outcome of each attempt is set aside when the attempt is accepted: a full journal refuses new attempts, and
//! never drops an outcome.

mod frame;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use fleet::id::AttemptId;
use mirror_proto::v1;
use prost::Message as _;

pub use self::frame::TornTail;
use self::frame::{FRAME_BYTES, Frames, PAYLOAD_BYTES_MAX};
use crate::key::Key;

/// Most attempts held at once, ended but unacknowledged ones included: what a hello may name.
pub const HELD_MAX: usize = fleet::engine::HELLO_ATTEMPTS_MAX;
/// Settled attempts that are remembered, so that a late repetition of their offer is not taken for a new one.
pub const SETTLED_MAX: usize = 256;
/// Largest assignment, encoded, bytes: options have at most 16 KiB, a URI 8 KiB.
pub const ASSIGNMENT_BYTES_MAX: usize = 48 << 10;
/// Room set aside for what an accepted attempt has still to write, bytes: its steps and its outcome.
const RESERVE_BYTES: u64 = 12 << 10;
/// Largest cause and advice that are journaled, bytes, so that an outcome always fits its reserve.
const TEXT_BYTES_MAX: usize = 2 << 10;

/// What a running attempt does. Written before it is started; each step may be started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Step {
    /// Nothing yet.
    Accepted = 0,
    /// Looks at upstream, disk and destination.
    Preflight = 1,
    /// rsync runs, or its supervisor is being started.
    Pull = 2,
    /// rsync has ended; the outcome is made from what it left.
    Finish = 3,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(oneof = "Change", tags = "1, 2, 3, 4")]
    change: Option<Change>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Change {
    #[prost(message, tag = "1")]
    Accepted(AcceptedChange),
    #[prost(message, tag = "2")]
    Step(StepChange),
    /// Without the tail of the log: that is in the log's file.
    #[prost(message, tag = "3")]
    Ended(v1::Ended),
    #[prost(message, tag = "4")]
    Settled(v1::AttemptKey),
}

#[derive(Clone, PartialEq, prost::Message)]
struct AcceptedChange {
    #[prost(message, optional, tag = "1")]
    assignment: Option<v1::Assignment>,
    #[prost(bool, tag = "2")]
    needs_password: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StepChange {
    #[prost(message, optional, tag = "1")]
    key: Option<v1::AttemptKey>,
    #[prost(enumeration = "Step", tag = "2")]
    step: i32,
}

/// An attempt that is held.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Which.
    pub key: Key,
    /// What was assigned, without secrets.
    pub assignment: v1::Assignment,
    /// A password belongs to it, which is not here.
    pub needs_password: bool,
    /// The step that was begun last.
    pub step: Step,
    /// How it ended, if it did.
    pub ended: Option<v1::Ended>,
}

/// Why something could not be journaled.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// No room: outcomes wait for their acknowledgement.
    #[error("the journal is full: {0} attempts are held until the coordinator acknowledges their outcomes")]
    Full(usize),
    /// The assignment is larger than [`ASSIGNMENT_BYTES_MAX`].
    #[error("the assignment has {0} bytes, at most {ASSIGNMENT_BYTES_MAX} are accepted")]
    TooLarge(usize),
    /// There is no such attempt in it.
    #[error("the journal holds no attempt {0}")]
    Unknown(Key),
    /// The file.
    #[error("cannot write the journal {path}; fault: this host's disk")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What was found when the journal was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// There was none: whatever the agent held before is forgotten.
    pub fresh: bool,
    /// The end of it was not readable and is cut off.
    pub torn: Option<TornTail>,
}

/// The journal. One process may have it open: the caller holds the data directory's lock.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    frames: Frames,
    entries: BTreeMap<AttemptId, Entry>,
    settled: VecDeque<Key>,
}

impl Journal {
    /// Opens the journal of a data directory, or makes one. A torn end is cut off and told.
    ///
    /// # Errors
    /// [`JournalError::Io`], also for a file that is no journal: it is left as it is.
    pub fn open(data_dir: &Path) -> Result<(Self, Opened), JournalError> {
        let path = data_dir.join("journal");
        let io = |source| JournalError::Io { path: path.clone(), source };
        let found = Frames::open(&path).map_err(io)?;
        let opened =
            Opened { fresh: found.is_none(), torn: found.as_ref().and_then(|(_, contents)| contents.torn) };
        let (mut entries, mut settled) = (BTreeMap::new(), VecDeque::new());
        for payload in found.iter().flat_map(|(_, contents)| &contents.payloads) {
            // A record of a later version of the agent: what it says is not known, the rest is.
            let change = Record::decode(payload.as_slice()).ok().and_then(|record| record.change);
            change.into_iter().for_each(|change| replay(change, &mut entries, &mut settled));
        }
        let frames = match found {
            Some((frames, contents)) if contents.torn.is_none() => frames,
            _ => {
                let payloads = payloads(&entries, &settled);
                Frames::replace(&path, &spare(&path), &payloads).map_err(io)?
            }
        };
        Ok((Self { path, frames, entries, settled }, opened))
    }

    /// Notes that an assignment is taken. Its secrets are left out; `needs_password` is whether there were any.
    ///
    /// # Errors
    /// [`JournalError::Full`] and [`JournalError::TooLarge`]; then nothing is taken.
    pub fn accept(
        &mut self,
        key: Key,
        mut assignment: v1::Assignment,
        needs_password: bool,
    ) -> Result<(), JournalError> {
        assignment.secrets = None;
        let bytes = assignment.encoded_len();
        if bytes > ASSIGNMENT_BYTES_MAX {
            return Err(JournalError::TooLarge(bytes));
        }
        let entry = Entry { key, assignment, needs_password, step: Step::Accepted, ended: None };
        let payload = accepted(&entry);
        let open = self.entries.values().filter(|entry| entry.ended.is_none()).count() as u64 + 1;
        let kept: u64 =
            payloads(&self.entries, &self.settled).iter().map(|p| p.len() as u64 + FRAME_BYTES).sum();
        let wanted = kept + payload.len() as u64 + open * RESERVE_BYTES + 4 * FRAME_BYTES;
        if self.entries.len() >= HELD_MAX || wanted > frame::FILE_BYTES {
            return Err(JournalError::Full(self.entries.len()));
        }
        self.append(&payload, true)?;
        self.entries.insert(key.id, entry);
        Ok(())
    }

    /// Notes that a step begins. Synced where a power cut would otherwise lose that a program may have left
    /// something: a step after [`Step::Accepted`] or [`Step::Pull`] is gone on with as these are.
    ///
    /// # Errors
    /// [`JournalError::Unknown`] and [`JournalError::Io`]: the step must not begin then.
    pub fn step(&mut self, key: Key, step: Step) -> Result<(), JournalError> {
        self.held(key)?;
        self.append(&stepped(key, step), step == Step::Pull)?;
        self.held(key)?.step = step;
        Ok(())
    }

    /// Notes an outcome. Long texts are cut; the tail of the log is not kept here.
    ///
    /// # Errors
    /// [`JournalError::Unknown`] and [`JournalError::Io`]: the outcome must not be told then, and is tried again.
    pub fn end(
        &mut self,
        key: Key,
        mut outcome: v1::Outcome,
        traceparent: String,
    ) -> Result<(), JournalError> {
        self.held(key)?;
        for text in [&mut outcome.cause, &mut outcome.advice, &mut outcome.fault] {
            crate::text::cut(text, TEXT_BYTES_MAX);
        }
        let ended = v1::Ended {
            key: Some(key.to_wire()),
            outcome: Some(outcome),
            traceparent,
            ..v1::Ended::default()
        };
        self.append(&encode(Change::Ended(ended.clone())), true)?;
        self.held(key)?.ended = Some(ended);
        Ok(())
    }

    /// Forgets an attempt whose outcome the coordinator has. False: there was none under this key. Not synced: if
    /// it is lost, the outcome is said once more, and acknowledged once more.
    ///
    /// # Errors
    /// [`JournalError::Io`]; it is forgotten all the same.
    pub fn settle(&mut self, key: Key) -> Result<bool, JournalError> {
        if self.entries.get(&key.id).is_none_or(|entry| entry.key != key || entry.ended.is_none()) {
            return Ok(false);
        }
        self.entries.remove(&key.id);
        remember(&mut self.settled, key);
        self.append(&encode(Change::Settled(key.to_wire())), false)?;
        Ok(true)
    }

    /// All attempts that are held.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: AttemptId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// The highest epoch under which an attempt was settled, among the last [`SETTLED_MAX`] ones.
    #[must_use]
    pub fn settled_epoch(&self, id: AttemptId) -> Option<fleet::id::Epoch> {
        self.settled.iter().filter(|key| key.id == id).map(|key| key.epoch).max()
    }

    fn held(&mut self, key: Key) -> Result<&mut Entry, JournalError> {
        self.entries.get_mut(&key.id).filter(|entry| entry.key == key).ok_or(JournalError::Unknown(key))
    }

    fn append(&mut self, payload: &[u8], sync: bool) -> Result<(), JournalError> {
        debug_assert!(payload.len() <= PAYLOAD_BYTES_MAX);
        let io = |source| JournalError::Io { path: self.path.clone(), source };
        if !self.frames.fits(payload) {
            let payloads = payloads(&self.entries, &self.settled);
            self.frames = Frames::replace(&self.path, &spare(&self.path), &payloads).map_err(io)?;
        }
        self.frames.append(payload, sync).map_err(io)
    }
}

fn spare(path: &Path) -> PathBuf {
    path.with_extension("spare")
}

fn replay(change: Change, entries: &mut BTreeMap<AttemptId, Entry>, settled: &mut VecDeque<Key>) {
    let held = |key: Option<&v1::AttemptKey>| -> Option<(Key, AttemptId)> {
        let key = Key::from_wire(key).ok()?;
        entries.get(&key.id).filter(|entry| entry.key == key).map(|entry| (key, entry.key.id))
    };
    match change {
        Change::Accepted(AcceptedChange { assignment, needs_password }) => {
            let Some(assignment) = assignment else { return };
            let Ok(key) = Key::from_wire(assignment.key.as_ref()) else { return };
            let entry = Entry { key, assignment, needs_password, step: Step::Accepted, ended: None };
            entries.insert(key.id, entry);
        }
        Change::Step(change) => {
            if let Some((_, id)) = held(change.key.as_ref())
                && let Some(entry) = entries.get_mut(&id)
            {
                entry.step = change.step();
            }
        }
        Change::Ended(ended) => {
            if let Some((_, id)) = held(ended.key.as_ref())
                && let Some(entry) = entries.get_mut(&id)
            {
                entry.ended = Some(ended);
            }
        }
        Change::Settled(key) => {
            if let Some((_, id)) = held(Some(&key)) {
                entries.remove(&id);
            }
            if let Ok(key) = Key::from_wire(Some(&key)) {
                remember(settled, key);
            }
        }
    }
}

fn remember(settled: &mut VecDeque<Key>, key: Key) {
    if settled.len() >= SETTLED_MAX {
        settled.pop_front();
    }
    settled.push_back(key);
}

/// The shortest row of records that says the same.
fn payloads(entries: &BTreeMap<AttemptId, Entry>, settled: &VecDeque<Key>) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = settled.iter().map(|key| encode(Change::Settled(key.to_wire()))).collect();
    for entry in entries.values() {
        all.push(accepted(entry));
        if entry.step != Step::Accepted {
            all.push(stepped(entry.key, entry.step));
        }
        all.extend(entry.ended.iter().map(|ended| encode(Change::Ended(ended.clone()))));
    }
    all
}

fn accepted(entry: &Entry) -> Vec<u8> {
    encode(Change::Accepted(AcceptedChange {
        assignment: Some(entry.assignment.clone()),
        needs_password: entry.needs_password,
    }))
}

fn stepped(key: Key, step: Step) -> Vec<u8> {
    encode(Change::Step(StepChange { key: Some(key.to_wire()), step: step.into() }))
}

fn encode(change: Change) -> Vec<u8> {
    Record { change: Some(change) }.encode_to_vec()
}

#[cfg(test)]
mod tests;
