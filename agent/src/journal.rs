//! The agent's journal: what was accepted, how far it is, how it ended. Everything is on disk before it is said
//! to the coordinator, and is kept until the coordinator has acknowledged the outcome; so a restarted agent goes
//! on where it was, and no outcome is ever lost. Secrets are never written. Knows nothing of links and programs.
//!
//! The file is preallocated and so is its spare, to which it is rewritten when it runs full. Room for the
//! outcome of each attempt is set aside when the attempt is accepted: a full journal refuses new attempts, and
//! never drops an outcome.

mod frame;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleet::id::AttemptId;
use fleet::outcome::EVIDENCE_NAMES_MAX;
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
/// Room set aside for what an accepted attempt has still to write, bytes: its steps and its outcome with evidence.
const RESERVE_BYTES: u64 = 20 << 10;
/// Largest cause and advice that are journaled, bytes, so that an outcome always fits its reserve.
const TEXT_BYTES_MAX: usize = 2 << 10;

/// Longest name in an evidence that is journaled, bytes.
const NAME_BYTES_MAX: usize = 400;

/// What a running attempt does. Written before it is started; each step may be started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Step {
    /// Nothing yet.
    Accepted = 0,
    /// Looks at upstream, disk and destination, by programs of its own too: their run directories say how far it is.
    Preflight = 1,
    /// The last rsync runs, or its supervisor is being started.
    Pull = 2,
    /// It has ended; the outcome is made from what it left.
    Finish = 3,
    /// The copy of a tree that moves is proven, and the public link is being pointed at it: there is no way back.
    Switch = 4,
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

/// What a journal says. As it is on disk; a copy of it shares the entries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Book {
    /// In the order in which they were taken: what is written to one tree is told in the order in which it was written,
    /// and no attempt's id says that. One that was offered long ago may be taken after many that the agent began alone.
    entries: Vec<Arc<Entry>>,
    settled: VecDeque<Key>,
}

impl Book {
    /// All attempts that are held, in the order in which they were taken.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(Arc::as_ref)
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: AttemptId) -> Option<&Entry> {
        self.entries().find(|entry| entry.key.id == id)
    }

    /// The highest epoch under which an attempt was settled, among the last [`SETTLED_MAX`] ones.
    #[must_use]
    pub fn settled_epoch(&self, id: AttemptId) -> Option<fleet::id::Epoch> {
        self.settled.iter().filter(|key| key.id == id).map(|key| key.epoch).max()
    }

    fn entry_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.key == key).map(Arc::make_mut)
    }

    /// Under a newer offer it is taken anew.
    fn take(&mut self, entry: Entry) {
        self.remove(entry.key.id);
        self.entries.push(Arc::new(entry));
    }

    fn remove(&mut self, id: AttemptId) {
        self.entries.retain(|entry| entry.key.id != id);
    }

    fn settle(&mut self, key: Key) {
        if self.settled.len() >= SETTLED_MAX {
            self.settled.pop_front();
        }
        self.settled.push_back(key);
    }
}

/// The journal. One process may have it open: the caller holds the data directory's lock.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    frames: Frames,
    book: Arc<Book>,
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
        let mut book = Book::default();
        for payload in found.iter().flat_map(|(_, contents)| &contents.payloads) {
            // A record of a later version of the agent: what it says is not known, the rest is.
            let change = Record::decode(payload.as_slice()).ok().and_then(|record| record.change);
            change.into_iter().for_each(|change| replay(change, &mut book));
        }
        let frames = match found {
            Some((frames, contents)) if contents.torn.is_none() => frames,
            _ => Frames::replace(&path, &spare(&path), &payloads(&book)).map_err(io)?,
        };
        Ok((Self { path, frames, book: Arc::new(book) }, opened))
    }

    /// What it says now.
    #[must_use]
    pub fn book(&self) -> Arc<Book> {
        self.book.clone()
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
        let held = self.book.entries.len();
        let open = self.book.entries().filter(|entry| entry.ended.is_none()).count() as u64 + 1;
        let kept: u64 = payloads(&self.book).iter().map(|p| p.len() as u64 + FRAME_BYTES).sum();
        let wanted = kept + payload.len() as u64 + open * RESERVE_BYTES + 4 * FRAME_BYTES;
        if held >= HELD_MAX || wanted > frame::FILE_BYTES {
            return Err(JournalError::Full(held));
        }
        self.append(&payload, true)?;
        self.change().take(entry);
        Ok(())
    }

    /// Notes that a step begins. Not synced: the end of this process loses nothing that is written, and a power cut
    /// ends the program as well, so that an attempt whose last step it loses is begun anew.
    ///
    /// # Errors
    /// [`JournalError::Unknown`] and [`JournalError::Io`]: the step must not begin then.
    pub fn step(&mut self, key: Key, step: Step) -> Result<(), JournalError> {
        self.holds(key)?;
        self.append(&stepped(key, step), false)?;
        self.entry_mut(key)?.step = step;
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
        self.holds(key)?;
        for text in [&mut outcome.cause, &mut outcome.advice, &mut outcome.fault] {
            crate::text::cut(text, TEXT_BYTES_MAX);
        }
        if let Some(evidence) = &mut outcome.evidence {
            evidence.names.truncate(EVIDENCE_NAMES_MAX);
            evidence.names.iter_mut().for_each(|name| crate::text::cut(name, NAME_BYTES_MAX));
            crate::text::cut(&mut evidence.sentence, TEXT_BYTES_MAX);
        }
        let ended = v1::Ended {
            key: Some(key.to_wire()),
            outcome: Some(outcome),
            traceparent,
            ..v1::Ended::default()
        };
        self.append(&encode(Change::Ended(ended.clone())), true)?;
        self.entry_mut(key)?.ended = Some(ended);
        Ok(())
    }

    /// Forgets an attempt whose outcome the coordinator has. False: there was none under this key. Not synced: if
    /// it is lost, the outcome is said once more, and acknowledged once more.
    ///
    /// # Errors
    /// [`JournalError::Io`]; it is forgotten all the same.
    pub fn settle(&mut self, key: Key) -> Result<bool, JournalError> {
        if self.book.get(key.id).is_none_or(|entry| entry.key != key || entry.ended.is_none()) {
            return Ok(false);
        }
        let book = self.change();
        book.remove(key.id);
        book.settle(key);
        self.append(&encode(Change::Settled(key.to_wire())), false)?;
        Ok(true)
    }

    /// To change it; who reads it meanwhile goes on with what it said before.
    fn change(&mut self) -> &mut Book {
        Arc::make_mut(&mut self.book)
    }

    fn holds(&self, key: Key) -> Result<(), JournalError> {
        let there = self.book.get(key.id).is_some_and(|entry| entry.key == key);
        if there { Ok(()) } else { Err(JournalError::Unknown(key)) }
    }

    fn entry_mut(&mut self, key: Key) -> Result<&mut Entry, JournalError> {
        self.change().entry_mut(key).ok_or(JournalError::Unknown(key))
    }

    fn append(&mut self, payload: &[u8], sync: bool) -> Result<(), JournalError> {
        debug_assert!(payload.len() <= PAYLOAD_BYTES_MAX);
        let io = |source| JournalError::Io { path: self.path.clone(), source };
        if !self.frames.fits(payload) {
            self.frames =
                Frames::replace(&self.path, &spare(&self.path), &payloads(&self.book)).map_err(io)?;
        }
        self.frames.append(payload, sync).map_err(io)
    }
}

fn spare(path: &Path) -> PathBuf {
    path.with_extension("spare")
}

fn replay(change: Change, book: &mut Book) {
    let key_of = |key: Option<&v1::AttemptKey>| Key::from_wire(key).ok();
    match change {
        Change::Accepted(AcceptedChange { assignment, needs_password }) => {
            let Some(assignment) = assignment else { return };
            let Some(key) = key_of(assignment.key.as_ref()) else { return };
            let entry = Entry { key, assignment, needs_password, step: Step::Accepted, ended: None };
            book.take(entry);
        }
        Change::Step(change) => {
            if let Some(entry) = key_of(change.key.as_ref()).and_then(|key| book.entry_mut(key)) {
                entry.step = change.step();
            }
        }
        Change::Ended(ended) => {
            if let Some(entry) = key_of(ended.key.as_ref()).and_then(|key| book.entry_mut(key)) {
                entry.ended = Some(ended);
            }
        }
        Change::Settled(key) => {
            let Some(key) = key_of(Some(&key)) else { return };
            if book.entry_mut(key).is_some() {
                book.remove(key.id);
            }
            book.settle(key);
        }
    }
}

/// The shortest row of records that says the same.
fn payloads(book: &Book) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> =
        book.settled.iter().map(|key| encode(Change::Settled(key.to_wire()))).collect();
    for entry in book.entries() {
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
