//! What is to be done when the monotonic clock gets there. Setting and ending a timer costs the same however many
//! others there are: each attempt that starts sets one, and ends it soon after.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{AgentUid, AttemptId, Epoch, RunId},
    time::Mono,
};

/// Something to be dealt with when the monotonic clock reaches its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// An offer has had no answer.
    Offer(AttemptId, Epoch),
    /// An agent has been away for long enough that nothing waits for it any more.
    Away(AgentUid),
    /// A run has been propagating for long enough.
    Propagation(RunId),
}

/// All timers, each at most once.
#[derive(Debug, Clone, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Mono, Timer)>,
    set: BTreeMap<Timer, Mono>,
}

impl Timers {
    /// Sets a timer; one that is set is moved.
    pub(super) fn set(&mut self, at: Mono, timer: Timer) {
        self.end(timer);
        self.set.insert(timer, at);
        self.due.insert((at, timer));
    }

    /// Ends a timer, if it is set.
    pub(super) fn end(&mut self, timer: Timer) {
        if let Some(at) = self.set.remove(&timer) {
            self.due.remove(&(at, timer));
        }
    }

    /// The one that is due first.
    pub(super) fn first(&self) -> Option<(Mono, Timer)> {
        self.due.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_each_is_set_once() {
        let mut timers = Timers::default();
        let away = |uid| Timer::Away(AgentUid(uid));
        for (at, uid) in [(7, 1), (5, 2), (9, 3)] {
            timers.set(Mono(at), away(uid));
        }
        assert_eq!(timers.first(), Some((Mono(5), away(2))));
        timers.set(Mono(8), away(2));
        assert_eq!(timers.first(), Some((Mono(7), away(1))));
        timers.end(away(1));
        timers.end(away(1));
        timers.end(away(3));
        assert_eq!(timers.first(), Some((Mono(8), away(2))));
        timers.end(away(2));
        assert_eq!(timers.first(), None);
        assert!(timers.set.is_empty() && timers.due.is_empty());
    }
}
