//! What is to be known of attempts that this agent begins by itself: its journal tells it, so that it holds after a
//! restart too. Begins none.

use std::cmp::Reverse;

use fleet::id::ProjectUid;
use fleet::time::Wall;
use mirror_proto::convert::wall_from_wire;
use mirror_proto::v1;
use mirror_proto::v1::outcome::Class;

use super::Executor;
use crate::journal::{Entry, Journal, JournalError};
use crate::key::Key;

/// Most attempts that are held before outcomes of earlier fires make room: offers of a coordinator need some too.
const HELD_ALONE_MAX: usize = 48;

/// What the journal tells of a project that is run without a coordinator.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Alone {
    /// An attempt of it goes on, whoever began it.
    pub busy: bool,
    /// When this agent last began it by itself.
    pub begun: Option<Wall>,
    /// A guard stopped it, and nobody was told yet: nothing more may be deleted.
    pub stopped_by_guard: bool,
    /// What the newest success counted.
    pub counted: Option<v1::Stats>,
}

impl Executor {
    /// What the journal tells of a project.
    #[must_use]
    pub fn alone(&self, project: ProjectUid) -> Alone {
        let book = self.shared.book();
        let mut alone = Alone::default();
        // A dry run holds up nothing and says nothing of the tree.
        let of_it = |entry: &&Entry| entry.assignment.project_uid == project.0 && !entry.assignment.dry_run;
        for entry in book.entries().filter(of_it) {
            let outcome = entry.ended.as_ref().and_then(|ended| ended.outcome.as_ref());
            // What has moved is told anew by the coordinator that has heard of it.
            alone.busy |= entry.ended.is_none() || !entry.assignment.move_from.is_empty();
            alone.begun = alone.begun.max(begun(entry));
            alone.stopped_by_guard |=
                outcome.is_some_and(|outcome| matches!(outcome.class(), Class::MaxDelete | Class::Guard));
            let good = outcome.filter(|outcome| outcome.class() == Class::Ok);
            alone.counted = good.and_then(|outcome| outcome.stats).or(alone.counted);
        }
        alone
    }

    /// Forgets outcomes of what this agent began by itself until there is room for another attempt: the oldest, of
    /// which no coordinator ever heard, and that a newer one of the same project follows.
    ///
    /// # Errors
    /// As [`crate::journal::Journal::settle`].
    pub async fn make_room(&self) -> Result<(), JournalError> {
        if self.shared.book().entries().count() < HELD_ALONE_MAX {
            return Ok(());
        }
        self.shared.journal.write(make_room).await
    }
}

fn make_room(journal: &mut Journal) -> Result<(), JournalError> {
    let book = journal.book();
    let ended = |entry: &&Entry| entry.ended.is_some() && entry.assignment.autonomous.is_some();
    let mut newest_first: Vec<(Wall, u64, Key)> = book
        .entries()
        .filter(ended)
        .filter_map(|entry| Some((begun(entry)?, entry.assignment.project_uid, entry.key)))
        .collect();
    newest_first.sort_by_key(|(begun, ..)| Reverse(*begun));
    while journal.book().entries().count() >= HELD_ALONE_MAX {
        let followed = |at: &usize| newest_first[..*at].iter().any(|one| one.1 == newest_first[*at].1);
        let Some(oldest) = (0..newest_first.len()).rev().find(followed) else { return Ok(()) };
        let (.., key) = newest_first.remove(oldest);
        tracing::warn!(%key, "no room for its outcome any more: a newer one of the project is kept");
        journal.settle(key)?;
    }
    Ok(())
}

/// When an attempt was begun by the agent itself.
fn begun(entry: &Entry) -> Option<Wall> {
    let time = entry.assignment.autonomous.as_ref()?.start_time.as_ref()?;
    wall_from_wire("start_time", time).ok()
}
