//! Which attempts the agent may hold at once: so many in all, one on each destination, one of each project,
//! and none that is older than what it has already seen. Pure; knows neither disk nor link.

use std::collections::BTreeMap;

use fleet::id::{AttemptId, Epoch, ProjectUid};
use fleet::project::Destination;

use crate::key::Key;

/// What holds a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taken {
    epoch: Epoch,
    project: ProjectUid,
    destination: Destination,
}

/// What is said to an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be taken.
    Free,
    /// It was taken before: the same answer again.
    Again,
    /// All slots are taken, or another attempt is in the way; in words.
    Busy(String),
    /// Its epoch is older than what is known of the attempt, or its term older than a coordinator's since; in words.
    Stale(String),
}

/// The slots of one agent.
#[derive(Debug, Default)]
pub struct Slots {
    taken: BTreeMap<AttemptId, Taken>,
    /// Trees that are being moved to the trash: nothing may be taken there.
    closed: Vec<Destination>,
}

/// Why a place is not closed to attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open {
    /// An attempt of its own project is not over; in words.
    Own(String),
    /// Another project's attempt is on it; in words.
    Other(String),
}

impl Slots {
    /// What to say to an offer. `limit` is the number of slots, `highest_term` the highest term seen, `settled` the
    /// epoch under which the attempt was settled before, if it was.
    #[must_use]
    pub fn judge(
        &self,
        key: Key,
        project: ProjectUid,
        destination: &Destination,
        limit: usize,
        highest_term: u64,
        settled: Option<Epoch>,
    ) -> Verdict {
        if key.epoch.term < highest_term {
            return Verdict::Stale(format!("its term {} is lower than {highest_term}", key.epoch.term));
        }
        if let Some(epoch) = settled.filter(|epoch| key.epoch <= *epoch) {
            return Verdict::Stale(format!("the attempt has ended under epoch {epoch}"));
        }
        if let Some(held) = self.taken.get(&key.id) {
            return match key.epoch.cmp(&held.epoch) {
                std::cmp::Ordering::Equal => Verdict::Again,
                std::cmp::Ordering::Less => {
                    Verdict::Stale(format!("the attempt is held under epoch {}", held.epoch))
                }
                std::cmp::Ordering::Greater => {
                    Verdict::Busy(format!("the attempt is still held under epoch {}", held.epoch))
                }
            };
        }
        for (id, held) in &self.taken {
            if held.project == project {
                return Verdict::Busy(format!("attempt {id} of the same project is not over"));
            }
            if held.destination.overlaps(destination) {
                return Verdict::Busy(format!("attempt {id} is on {}", held.destination));
            }
        }
        if let Some(closed) = self.closed.iter().find(|closed| closed.overlaps(destination)) {
            return Verdict::Busy(format!("the tree at {closed} is being moved to the trash"));
        }
        if self.taken.len() >= limit {
            return Verdict::Busy(format!("all {limit} slots are taken"));
        }
        Verdict::Free
    }

    /// Takes a slot. Adopted attempts take theirs whatever the limit is now.
    pub fn take(&mut self, key: Key, project: ProjectUid, destination: Destination) {
        self.taken.insert(key.id, Taken { epoch: key.epoch, project, destination });
    }

    /// Takes no attempt at this place of the project's tree, until it is opened again.
    ///
    /// # Errors
    /// [`Open`]: one is on it, or is the project's.
    pub fn close(&mut self, project: ProjectUid, destination: &Destination) -> Result<(), Open> {
        for (id, held) in &self.taken {
            if held.project == project {
                return Err(Open::Own(format!("attempt {id} of it is not over")));
            }
            if held.destination.overlaps(destination) {
                let (other, at) = (held.project, &held.destination);
                return Err(Open::Other(format!("project {} has it now: attempt {id} is on {at}", other.0)));
            }
        }
        self.closed.push(destination.clone());
        Ok(())
    }

    /// Takes attempts at this place again.
    pub fn open(&mut self, destination: &Destination) {
        self.closed.retain(|closed| closed != destination);
    }

    /// Gives a slot back.
    pub fn give_back(&mut self, key: Key) {
        if self.taken.get(&key.id).is_some_and(|held| held.epoch == key.epoch) {
            self.taken.remove(&key.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::key;

    fn dest(text: &str) -> Destination {
        text.parse().unwrap()
    }

    fn busy() -> Slots {
        let mut slots = Slots::default();
        slots.take(key(1, 5, 10), ProjectUid(1), dest("a1:pub/debian"));
        slots
    }

    #[test]
    fn one_attempt_on_a_destination_by_whole_components() {
        let slots = busy();
        for (to, free) in [
            ("a1:pub/debian", false),
            ("a1:pub", false),
            ("a1:pub/debian/pool", false),
            ("a1:pub/debian-security", true),
            ("a1:pu", true),
            ("a2:pub/debian", true),
        ] {
            let verdict = slots.judge(key(2, 5, 11), ProjectUid(2), &dest(to), 8, 5, None);
            assert_eq!(verdict == Verdict::Free, free, "{to}: {verdict:?}");
        }
    }

    #[test]
    fn one_attempt_of_a_project_and_a_limit_in_all() {
        let mut slots = busy();
        let same = slots.judge(key(2, 5, 11), ProjectUid(1), &dest("a1:other"), 8, 5, None);
        assert!(matches!(same, Verdict::Busy(_)), "{same:?}");
        let full = slots.judge(key(2, 5, 11), ProjectUid(2), &dest("a1:other"), 1, 5, None);
        assert_eq!(full, Verdict::Busy("all 1 slots are taken".into()));
        slots.give_back(key(1, 5, 9));
        assert!(slots.taken.contains_key(&key(1, 5, 10).id), "another epoch's end frees nothing");
        slots.give_back(key(1, 5, 10));
        assert_eq!(slots.judge(key(2, 5, 11), ProjectUid(1), &dest("a1:pub"), 1, 5, None), Verdict::Free);
    }

    #[test]
    fn a_closed_place_takes_nothing_and_is_closed_only_where_nothing_is_on_it() {
        let mut slots = busy();
        assert!(matches!(slots.close(ProjectUid(1), &dest("a1:elsewhere")), Err(Open::Own(_))));
        assert!(matches!(slots.close(ProjectUid(2), &dest("a1:pub")), Err(Open::Other(_))));
        slots.close(ProjectUid(2), &dest("a1:other")).unwrap();
        let judge =
            |slots: &Slots, to: &str| slots.judge(key(2, 5, 11), ProjectUid(3), &dest(to), 8, 5, None);
        assert!(matches!(judge(&slots, "a1:other/pool"), Verdict::Busy(_)));
        assert_eq!(judge(&slots, "a1:others"), Verdict::Free);
        slots.open(&dest("a1:other"));
        assert_eq!(judge(&slots, "a1:other/pool"), Verdict::Free);
    }

    #[test]
    fn epochs_only_go_forward() {
        let slots = busy();
        let judge = |key, settled| slots.judge(key, ProjectUid(1), &dest("a1:pub/debian"), 8, 5, settled);
        assert_eq!(judge(key(1, 5, 10), None), Verdict::Again);
        assert!(matches!(judge(key(1, 5, 9), None), Verdict::Stale(_)));
        assert!(matches!(judge(key(1, 5, 11), None), Verdict::Busy(_)));
        assert!(matches!(judge(key(1, 4, 99), None), Verdict::Stale(_)));
        let settled = key(3, 5, 10).epoch;
        assert!(matches!(judge(key(3, 5, 10), Some(settled)), Verdict::Stale(_)));
    }
}
