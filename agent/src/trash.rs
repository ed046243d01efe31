//! The agent's trash: moves trees of deleted projects there when its coordinator says so and its own file allows it, tells
//! what is in it, and removes what has been there for long enough. It begins nothing by itself: an order that a crash cut
//! short is gone on with only when it is said again. Knows neither sessions nor how files are moved.
//!
//! Time in the trash is counted, not computed: each look adds what has passed since the look before, by the monotonic
//! clock. So a clock that is far ahead removes nothing early, and while no agent runs no time passes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fleet::defaults::{TRASH_TREES_MAX, TRASH_TTL};
use fleet::id::ProjectUid;
use fleet::time::Wall;
use fleet::trash::{InTrash, TrashOrder, TrashReport};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::executor::{Executor, Live};
use crate::guard::trash::{Lies, Moved, Purged, TrashNote};
use crate::guard::{LockFault, Root};
use crate::link::Exporter;
use crate::serve::StillServed;
use crate::slots::Open;
use crate::{clock, outcome};

/// Pause between two looks at the trash.
const LOOK_PACE: Duration = Duration::from_secs(600);
/// Entries that are removed at once; then the disk is left to others for [`PURGE_PAUSE`].
const PURGE_ENTRIES_MAX: usize = 10_000;
/// Pause between two pieces of a removal.
const PURGE_PAUSE: Duration = Duration::from_secs(1);

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// The tree is in the trash.
    Done,
    /// The tree stays; why, for people.
    Refused(String),
    /// Something is still at work on the tree; in words. To be tried again.
    NotYet(String),
}

/// The trash of all roots. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Trash {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    executor: Executor,
    exporter: Exporter,
    /// Held while anything is done to the trash: nobody who only asks what is in it waits for a disk that is being emptied.
    work: Mutex<()>,
    /// Up to when each tree's time was counted, by root and name.
    counted: Mutex<Counted>,
    /// Grows when something has left the trash.
    changes: watch::Sender<u64>,
}

type Counted = BTreeMap<(String, String), Instant>;

impl Trash {
    /// The trash of the agent's roots.
    #[must_use]
    pub fn new(executor: Executor, exporter: Exporter) -> Self {
        let (work, counted, changes) = (Mutex::default(), Mutex::default(), watch::Sender::new(0));
        Self { inner: Arc::new(Inner { executor, exporter, work, counted, changes }) }
    }

    /// Tells when something has left the trash.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Follows an order, as far as it was not followed before. Waits for the disk.
    #[must_use]
    pub fn follow(&self, order: &TrashOrder) -> Followed {
        let _alone = self.alone();
        let live = self.inner.executor.live();
        let followed = self.follow_in(&live, order);
        let (project, at) = (order.name.as_str(), order.destination.to_string());
        match &followed {
            Followed::Done => tracing::info!(project, at, "the tree is in the trash"),
            Followed::Refused(why) => tracing::warn!(project, at, why, "the tree is not moved to the trash"),
            Followed::NotYet(why) => tracing::debug!(project, at, why, "the tree cannot go to the trash yet"),
        }
        followed
    }

    fn follow_in(&self, live: &Live, order: &TrashOrder) -> Followed {
        let root = match live.guard.root_of(&order.destination) {
            Ok(root) => root,
            Err(fault) => return Followed::Refused(fault.to_string()),
        };
        match lies_in_trash(root, order) {
            Ok(false) => {}
            Ok(true) => {
                settle(live, root, order);
                return Followed::Done;
            }
            Err(error) => return Followed::Refused(disk(&error)),
        }
        if let Err(why) = allowed(live, root, order) {
            return Followed::Refused(why);
        }
        // No attempt begins there from here on, and none is on it.
        let closed = self.inner.executor.close_place(order.project, &order.destination);
        let _closed = match closed {
            Ok(closed) => closed,
            Err(Open::Own(why)) => return Followed::NotYet(why),
            Err(Open::Other(why)) => return Followed::Refused(why),
        };
        let _lock = match live.guard.lock(root, order.project) {
            Ok(lock) => lock,
            Err(fault @ LockFault::Held(_)) => return Followed::NotYet(fault.to_string()),
            Err(fault @ LockFault::Io { .. }) => return Followed::Refused(outcome::chain(&fault)),
        };
        let exporter = &self.inner.exporter;
        if let Err(why) = exporter.withdraw_again(order.project) {
            return Followed::NotYet(why);
        }
        // Whoever gives the order has withdrawn the export before: what is served all the same is not moved.
        let path = root.path().join(order.destination.path());
        let moved = match exporter.while_unserved(&path, || carry_out(root, order)) {
            Ok(moved) => moved,
            Err(served @ StillServed::Exported(by)) if by != order.project => {
                return Followed::Refused(served.to_string());
            }
            Err(served) => return Followed::NotYet(served.to_string()),
        };
        match moved {
            Ok(Moved::Done) => {
                settle(live, root, order);
                let note = TrashNote::of(order);
                let key = (order.destination.root().to_owned(), note.file_name());
                self.counted().insert(key, Instant::now());
                Followed::Done
            }
            Ok(Moved::Absent) => Followed::Refused("there is no tree".to_owned()),
            Err(error) => Followed::Refused(disk(&error)),
        }
    }

    /// What is in the trash. Waits for the disk.
    #[must_use]
    pub fn report(&self) -> TrashReport {
        let counted = self.counted().clone();
        let live = self.inner.executor.live();
        let (wall, now) = (Wall(clock::now().timestamp_millis()), Instant::now());
        let mut trees = Vec::new();
        for (name, root) in live.guard.roots() {
            for note in notes_of(name, root) {
                let there = root.lies(&note).is_ok_and(|lies| lies != Lies::Nowhere);
                if there && trees.len() < TRASH_TREES_MAX {
                    let file = note.file_name();
                    let since = counted.get(&(name.to_owned(), file.clone()));
                    let since = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(*since));
                    let left = TRASH_TTL.saturating_sub(note.counted().saturating_add(since));
                    trees.push(InTrash {
                        project: ProjectUid(note.project),
                        asked: Wall(note.asked_ms),
                        place: format!("{name}:{}/{file}", fleet::project::OWN_DIRS[1]),
                        until: wall.plus(left),
                    });
                }
            }
        }
        TrashReport { trees, refused: Vec::new() }
    }

    /// Looks after the trash until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            let trash = self.clone();
            let looked = tokio::task::spawn_blocking(move || trash.look(Instant::now())).await;
            pause = if matches!(looked, Ok(true)) { PURGE_PAUSE } else { LOOK_PACE };
        }
    }

    /// Counts the time of what is in the trash, forgets what was taken back, and removes a piece of one tree that has been
    /// there for long enough, if the agent's file still allows it. True: more may be to be removed.
    fn look(&self, now: Instant) -> bool {
        let _alone = self.alone();
        let live = self.inner.executor.live();
        let (mut removed, mut gone) = (false, false);
        for (name, root) in live.guard.roots() {
            for note in notes_of(name, root) {
                let key = (name.to_owned(), note.file_name());
                let since = *self.counted().entry(key.clone()).or_insert(now);
                let passed = now.saturating_duration_since(since);
                // One piece in each look, however many trees are due: the disk is others' as well.
                let looked = look_at(root, note, passed, live.config.allow_trash && !removed);
                removed |= matches!(looked, Ok(Looked::More | Looked::Removed));
                match looked {
                    Ok(Looked::Stays | Looked::More) => _ = self.counted().insert(key, now),
                    Ok(Looked::Gone | Looked::Removed) => {
                        self.counted().remove(&key);
                        gone = true;
                    }
                    Err(error) => {
                        tracing::warn!(
                            root = name,
                            tree = key.1,
                            why = disk(&error),
                            "a tree in the trash stays"
                        );
                    }
                }
            }
        }
        if gone {
            self.inner.changes.send_modify(|changes| *changes += 1);
        }
        removed
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.inner.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        // What is true is on the disk.
        self.inner.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a look at one tree did.
enum Looked {
    /// Nothing but counting.
    Stays,
    /// A piece of it was removed.
    More,
    /// The last piece of it was removed.
    Removed,
    /// It was not there any more.
    Gone,
}

fn look_at(root: &Root, mut note: TrashNote, passed: Duration, may_purge: bool) -> std::io::Result<Looked> {
    let lies = root.lies(&note)?;
    if lies == Lies::Nowhere {
        // Somebody took it back; or it never came here, and is said again if it is still wanted.
        root.remove_trash_note(&note)?;
        return Ok(Looked::Gone);
    }
    if lies == Lies::There && note.counted().saturating_add(passed) < TRASH_TTL {
        note.counted_s = note.counted_s.saturating_add(passed.as_secs());
        root.write_trash_note(&note)?;
        return Ok(Looked::Stays);
    }
    if !may_purge {
        return Ok(Looked::Stays);
    }
    if root.purge(&note, PURGE_ENTRIES_MAX)? == Purged::Partly {
        return Ok(Looked::More);
    }
    root.remove_trash_note(&note)?;
    tracing::info!(
        project = note.name,
        was = note.path,
        "a deleted project's tree has left the trash for good"
    );
    Ok(Looked::Removed)
}

/// Whether the order was followed before.
fn lies_in_trash(root: &Root, order: &TrashOrder) -> std::io::Result<bool> {
    let known = root.trash_notes()?.into_iter().find(|note| note.is_of(order));
    known.map_or(Ok(false), |known| Ok(root.lies(&known)? != Lies::Nowhere))
}

/// Why the tree is not this host's to move, if so.
fn allowed(live: &Live, root: &Root, order: &TrashOrder) -> Result<(), String> {
    if !live.config.allow_trash {
        return Err("the agent's own file does not allow it; allow_trash = true would".to_owned());
    }
    let held: usize = live.guard.roots().map(|(name, root)| notes_of(name, root).len()).sum();
    if held >= TRASH_TREES_MAX {
        return Err(format!("the trash holds {held} trees already"));
    }
    // A declaration that the agent has and this coordinator has not, as after a restore, goes first.
    match root.begun_since(order.project, &order.destination) {
        Ok(Some(None)) => Ok(()),
        Ok(Some(Some(other))) => Err(format!("project {} has begun a tree there since", other.0)),
        Ok(None) => Err("the fleet never put a tree there".to_owned()),
        Err(error) => Err(disk(&error)),
    }
}

/// The note, then the rename: a crash after either leaves what the same order goes on from.
fn carry_out(root: &Root, order: &TrashOrder) -> std::io::Result<Moved> {
    let note = TrashNote::of(order);
    root.write_trash_note(&note)?;
    let moved = root.move_to_trash(&note);
    // Where only the sync failed, the tree is in the trash, and its note says so.
    if !matches!(moved, Ok(Moved::Done)) && root.lies(&note)? == Lies::Nowhere {
        root.remove_trash_note(&note)?;
    }
    moved
}

/// The tree is in the trash: nothing at its place is the project's any more, and no public link leads there. What fails
/// here harms nobody: the same project never comes again.
fn settle(live: &Live, root: &Root, order: &TrashOrder) {
    let begun = root.has_begun(order.project, &order.destination);
    if let Err(error) = begun.and_then(|begun| if begun { root.forget_begun(order.project) } else { Ok(()) })
    {
        tracing::warn!(why = disk(&error), "a note of the tree's place stays");
    }
    if let Err(fault) = live.guard.remove_link(order.project) {
        tracing::warn!(why = outcome::chain(&fault), "the public link stays, and leads nowhere");
    }
}

fn notes_of(name: &str, root: &Root) -> Vec<TrashNote> {
    root.trash_notes().unwrap_or_else(|error| {
        tracing::warn!(root = name, %error, "cannot look at what is noted of the trash");
        Vec::new()
    })
}

fn disk(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::CrossesDevices => "it is on another file system than its root".to_owned(),
        _ => format!("this host's disk: {error}"),
    }
}

#[cfg(test)]
mod tests;
