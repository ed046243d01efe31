//! How fast who pushes: so many at any pace, then one for each span. Of each pusher and project by itself, so that a script
//! that runs wild takes nobody else's pushes. What is beyond it is not refused here: the engine looks whether a run waits
//! that does for it too.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use fleet::{
    defaults::{PUSH_BURST, PUSH_INTERVAL},
    id::ProjectUid,
    time::Mono,
};

use crate::rpc::By;

/// Pushers that are remembered; beyond it those are forgotten first that have pushed least.
pub const ENTRIES_MAX: usize = 8_192;

/// Who pushed, and until when what they pushed counts: each push counts for [`PUSH_INTERVAL`] after the one before.
#[derive(Debug, Default)]
pub struct Pushes(Mutex<HashMap<(ProjectUid, String), Mono>>);

impl Pushes {
    /// Counts a push.
    ///
    /// # Errors
    /// It comes too fast, by so much; then it does not count.
    pub fn take(&self, now: Mono, project: ProjectUid, by: &By) -> Result<(), Duration> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (project, by.folded());
        let until = entries.get(&key).copied().unwrap_or(now).max(now);
        let ahead = PUSH_INTERVAL * (PUSH_BURST - 1);
        if let Some(wait) = until.since(now).checked_sub(ahead).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        if entries.len() >= ENTRIES_MAX && !entries.contains_key(&key) {
            entries.retain(|_, until| *until > now);
        }
        if entries.len() >= ENTRIES_MAX && !entries.contains_key(&key) {
            let least = entries.iter().min_by_key(|(_, until)| **until).map(|(key, _)| key.clone());
            least.map(|key| entries.remove(&key));
        }
        entries.insert(key, until.plus(PUSH_INTERVAL));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fleet::id::Name;

    use super::*;

    const NOW: Mono = Mono(5_000_000);
    const DEBIAN: ProjectUid = ProjectUid(1);

    fn by(name: &str) -> By {
        By::from(&name.parse::<Name>().unwrap())
    }

    #[test]
    fn a_burst_is_taken_and_then_one_for_each_span_from_each_pusher_and_project() {
        let pushes = Pushes::default();
        for _ in 0..PUSH_BURST {
            assert_eq!(pushes.take(NOW, DEBIAN, &by("wim")), Ok(()));
        }
        for _ in 0..3 {
            assert_eq!(
                pushes.take(NOW, DEBIAN, &by("WIM")),
                Err(PUSH_INTERVAL),
                "a refused one does not count"
            );
        }
        assert_eq!(pushes.take(NOW, DEBIAN, &by("maria")), Ok(()));
        assert_eq!(pushes.take(NOW, ProjectUid(2), &by("wim")), Ok(()));
        let half = NOW.plus(PUSH_INTERVAL / 2);
        assert_eq!(pushes.take(half, DEBIAN, &by("wim")), Err(PUSH_INTERVAL / 2));
        let later = NOW.plus(PUSH_INTERVAL);
        assert_eq!(pushes.take(later, DEBIAN, &by("wim")), Ok(()));
        assert_eq!(pushes.take(later, DEBIAN, &by("wim")), Err(PUSH_INTERVAL));
        let rested = NOW.plus(PUSH_INTERVAL * (2 * PUSH_BURST));
        for _ in 0..PUSH_BURST {
            assert_eq!(pushes.take(rested, DEBIAN, &by("wim")), Ok(()));
        }
        assert_eq!(pushes.take(rested, DEBIAN, &by("wim")), Err(PUSH_INTERVAL));
    }

    #[test]
    fn memory_is_bounded_and_those_who_pushed_most_are_remembered() {
        let pushes = Pushes::default();
        for _ in 0..PUSH_BURST {
            assert_eq!(pushes.take(NOW, DEBIAN, &by("wim")), Ok(()));
        }
        for n in 0..2 * ENTRIES_MAX as u64 {
            assert_eq!(pushes.take(NOW, ProjectUid(10 + n), &by("maria")), Ok(()));
        }
        assert_eq!(pushes.0.lock().unwrap().len(), ENTRIES_MAX);
        assert!(pushes.take(NOW, DEBIAN, &by("wim")).is_err());
    }
}
