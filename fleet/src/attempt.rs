//! One try on one agent under one epoch, as a state machine: each state carries its data, one function moves
//! it, and every pair of state and event is written down.

use std::time::Duration;

use crate::{
    id::{AgentUid, AttemptId, Epoch, ProjectUid, RunId},
    outcome::{ExitClass, Outcome},
    project::Destination,
    time::Wall,
};

/// What an agent does for a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Pulls from the upstream.
    Origin,
    /// Pulls from the origin.
    Replica,
}

/// Where an attempt stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "attempts that are held in numbers have ended and are in the store"
)]
pub enum AttemptState {
    /// Waits for admission, for at least `delay` since it was made.
    Pending {
        /// The pause before this try; granted in full again after a restart of the coordinator.
        delay: Duration,
    },
    /// Sent to the agent, not yet taken.
    Offered {
        /// The fencing token.
        epoch: Epoch,
        /// When.
        at: Wall,
    },
    /// Taken by the agent.
    Running {
        /// The fencing token.
        epoch: Epoch,
        /// When it was offered.
        offered: Wall,
        /// When the agent took it.
        started: Wall,
    },
    /// A person asked for its end; kept while the agent is away.
    Cancelling {
        /// The fencing token.
        epoch: Epoch,
        /// When it was offered.
        offered: Wall,
        /// When the agent took it, if it did.
        started: Option<Wall>,
    },
    /// Final.
    Ended {
        /// The token under which it ended, if it was ever offered.
        epoch: Epoch,
        /// When it was offered.
        offered: Option<Wall>,
        /// When the agent took it.
        started: Option<Wall>,
        /// When it ended.
        at: Wall,
        /// How.
        end: End,
    },
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All copied.
    Succeeded(Outcome),
    /// It did not succeed; the class decides what follows.
    Failed(Outcome),
    /// A guard stopped it; a person may approve.
    Held(Outcome),
    /// Ended on request.
    Cancelled(Option<Outcome>),
    /// The agent no longer knows it, or is revoked.
    Lost,
}

/// What can happen to an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "they pass through; none is kept")]
pub enum AttemptEvent {
    /// Admission let it through.
    Offer(Epoch),
    /// The agent took it.
    Accept(Epoch),
    /// The agent never got it, or gave it back untouched.
    Return(Epoch),
    /// The agent saw its end.
    End(Epoch, Outcome),
    /// A person wants its end.
    Cancel,
    /// The agent no longer knows it, or is revoked.
    Forget,
}

/// Why an event does not fit a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// The epoch is not the one under which the attempt stands: the report is stale.
    Fenced,
    /// The attempt has ended; nothing moves it any more.
    Final,
    /// The event makes no sense here, or was heard before.
    NotNow,
}

impl AttemptState {
    /// Where the event leads. `now` becomes the time of the new state.
    ///
    /// # Errors
    /// [`Misfit`] when the event changes nothing; the state stays as it was.
    pub fn on(&self, event: AttemptEvent, now: Wall) -> Result<Self, Misfit> {
        use AttemptEvent as E;
        match self {
            Self::Pending { .. } => match event {
                E::Offer(epoch) => Ok(Self::Offered { epoch, at: now }),
                E::Cancel => Ok(Self::ended(Epoch::default(), None, None, now, End::Cancelled(None))),
                E::Forget => Ok(Self::ended(Epoch::default(), None, None, now, End::Lost)),
                E::Accept(_) | E::Return(_) | E::End(..) => Err(Misfit::Fenced),
            },
            Self::Offered { epoch, at } => {
                fence(*epoch, &event)?;
                match event {
                    E::Accept(_) => Ok(Self::Running { epoch: *epoch, offered: *at, started: now }),
                    E::Return(_) => Ok(Self::Pending { delay: Duration::ZERO }),
                    E::End(_, outcome) => Ok(Self::ended(*epoch, Some(*at), None, now, End::of(outcome))),
                    E::Cancel => Ok(Self::Cancelling { epoch: *epoch, offered: *at, started: None }),
                    E::Forget => Ok(Self::ended(*epoch, Some(*at), None, now, End::Lost)),
                    E::Offer(_) => Err(Misfit::NotNow),
                }
            }
            Self::Running { epoch, offered, started } => {
                fence(*epoch, &event)?;
                let (epoch, offered, started) = (*epoch, *offered, *started);
                match event {
                    E::End(_, outcome) => {
                        Ok(Self::ended(epoch, Some(offered), Some(started), now, End::of(outcome)))
                    }
                    E::Cancel => Ok(Self::Cancelling { epoch, offered, started: Some(started) }),
                    E::Forget => Ok(Self::ended(epoch, Some(offered), Some(started), now, End::Lost)),
                    E::Offer(_) | E::Accept(_) | E::Return(_) => Err(Misfit::NotNow),
                }
            }
            Self::Cancelling { epoch, offered, started } => {
                fence(*epoch, &event)?;
                let ended = |end| Self::ended(*epoch, Some(*offered), *started, now, end);
                match event {
                    // It may have got to its end before the wish reached it: then that is how it ended.
                    E::End(_, outcome) => Ok(ended(End::of(outcome))),
                    E::Return(_) | E::Forget => Ok(ended(End::Cancelled(None))),
                    E::Accept(_) | E::Offer(_) | E::Cancel => Err(Misfit::NotNow),
                }
            }
            Self::Ended { .. } => Err(Misfit::Final),
        }
    }

    fn ended(epoch: Epoch, offered: Option<Wall>, started: Option<Wall>, at: Wall, end: End) -> Self {
        Self::Ended { epoch, offered, started, at, end }
    }

    /// The token under which it stands; `None` before the first offer and after a return.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Pending { .. } => None,
            Self::Offered { epoch, .. }
            | Self::Running { epoch, .. }
            | Self::Cancelling { epoch, .. }
            | Self::Ended { epoch, .. } => Some(*epoch),
        }
    }

    /// When it was last offered; `None` before that and after a return.
    #[must_use]
    pub fn offered(&self) -> Option<Wall> {
        match self {
            Self::Pending { .. } => None,
            Self::Offered { at, .. } => Some(*at),
            Self::Running { offered, .. } | Self::Cancelling { offered, .. } => Some(*offered),
            Self::Ended { offered, .. } => *offered,
        }
    }

    /// Whether it may be on the agent: offered, running or being cancelled.
    #[must_use]
    pub fn is_out(&self) -> bool {
        match self {
            Self::Offered { .. } | Self::Running { .. } | Self::Cancelling { .. } => true,
            Self::Pending { .. } | Self::Ended { .. } => false,
        }
    }

    /// Whether it waits for admission.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Pending { .. })
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        match self {
            Self::Ended { end, .. } => Some(end),
            Self::Pending { .. } | Self::Offered { .. } | Self::Running { .. } | Self::Cancelling { .. } => {
                None
            }
        }
    }
}

/// Refuses an event that speaks of another epoch than the attempt's.
fn fence(epoch: Epoch, event: &AttemptEvent) -> Result<(), Misfit> {
    match event {
        AttemptEvent::Accept(other) | AttemptEvent::Return(other) | AttemptEvent::End(other, _) => {
            if *other == epoch { Ok(()) } else { Err(Misfit::Fenced) }
        }
        AttemptEvent::Offer(_) | AttemptEvent::Cancel | AttemptEvent::Forget => Ok(()),
    }
}

impl End {
    fn of(outcome: Outcome) -> Self {
        match outcome.class {
            ExitClass::Ok => Self::Succeeded(outcome),
            ExitClass::MaxDelete | ExitClass::Guard => Self::Held(outcome),
            ExitClass::Cancelled => Self::Cancelled(Some(outcome)),
            ExitClass::Partial
            | ExitClass::Busy
            | ExitClass::Auth
            | ExitClass::NotFound
            | ExitClass::Refused
            | ExitClass::DiskFull
            | ExitClass::LocalIo
            | ExitClass::Internal
            | ExitClass::Timeout
            | ExitClass::Stalled
            | ExitClass::WallClock
            | ExitClass::Network
            | ExitClass::Protocol
            | ExitClass::Config
            | ExitClass::RejectedByAgent
            | ExitClass::Interrupted => Self::Failed(outcome),
        }
    }

    /// What was counted and said, where an agent reported it.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Succeeded(outcome) | Self::Failed(outcome) | Self::Held(outcome) => Some(outcome),
            Self::Cancelled(outcome) => outcome.as_ref(),
            Self::Lost => None,
        }
    }
}

/// An attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Which.
    pub id: AttemptId,
    /// Of which project.
    pub project: ProjectUid,
    /// On which agent.
    pub agent: AgentUid,
    /// To do what.
    pub role: Role,
    /// Where.
    pub destination: Destination,
    /// The host it pulls from: slots and spacing count by it. Empty for replicas.
    pub upstream_host: String,
    /// The tree version it makes or fetches.
    pub tree: RunId,
    /// Which try of its placement within the run this is, from 1.
    pub attempt_try: u32,
    /// It copies a tree that the placement never had whole.
    pub first_sync: bool,
    /// What it fetched is no version at all: its source changed while it pulled, or an agent pulled it alone and may
    /// have lost it since.
    pub mixed: bool,
    /// The delete limit it was last offered with.
    pub max_delete: u64,
    /// The agent that a replica was last offered to pull from; `None` for origins, and before an offer.
    pub source: Option<AgentUid>,
    /// Hash of the assignment it was last offered with.
    pub spec_hash: String,
    /// Where it stands.
    pub state: AttemptState,
}

#[cfg(test)]
mod tests {
    use super::*;

    const E1: Epoch = Epoch { term: 1, counter: 1 };
    const E2: Epoch = Epoch { term: 1, counter: 2 };

    fn events() -> Vec<AttemptEvent> {
        let mut all = vec![AttemptEvent::Cancel, AttemptEvent::Forget];
        for epoch in [E1, E2] {
            all.extend([
                AttemptEvent::Offer(epoch),
                AttemptEvent::Accept(epoch),
                AttemptEvent::Return(epoch),
            ]);
            for class in [ExitClass::Ok, ExitClass::Network, ExitClass::MaxDelete, ExitClass::Cancelled] {
                all.push(AttemptEvent::End(epoch, Outcome::of_class(class)));
            }
        }
        all
    }

    fn walk(state: &AttemptState, depth: u32, seen: &mut std::collections::BTreeSet<String>) {
        let name = format!("{state:?}");
        seen.insert(name.split([' ', '{']).next().unwrap_or_default().to_owned());
        for event in events() {
            match state.on(event.clone(), Wall(7)) {
                Ok(next) if depth > 0 => walk(&next, depth - 1, seen),
                Ok(_) => {}
                Err(Misfit::Final) => assert!(state.end().is_some(), "{state:?} {event:?}"),
                Err(Misfit::Fenced) => assert!(
                    !matches!(event, AttemptEvent::Cancel | AttemptEvent::Forget | AttemptEvent::Offer(_)),
                    "{state:?} {event:?}"
                ),
                Err(Misfit::NotNow) => assert!(state.end().is_none(), "{state:?} {event:?}"),
            }
        }
    }

    #[test]
    fn every_walk_of_four_events_stays_in_the_machine_and_reaches_all_of_it() {
        let mut seen = std::collections::BTreeSet::new();
        walk(&AttemptState::Pending { delay: Duration::ZERO }, 4, &mut seen);
        assert_eq!(seen.len(), 5, "{seen:?}");
    }

    #[test]
    fn a_stale_epoch_never_moves_an_attempt() {
        let running = AttemptState::Running { epoch: E2, offered: Wall(1), started: Wall(2) };
        let late = AttemptEvent::End(E1, Outcome::of_class(ExitClass::Ok));
        assert_eq!(running.on(late, Wall(9)), Err(Misfit::Fenced));
    }

    #[test]
    fn a_cancelled_attempt_that_had_already_succeeded_has_succeeded() {
        let state = AttemptState::Cancelling { epoch: E1, offered: Wall(1), started: Some(Wall(2)) };
        let ended = state.on(AttemptEvent::End(E1, Outcome::of_class(ExitClass::Ok)), Wall(9));
        assert!(matches!(ended.map(|s| s.end().cloned()), Ok(Some(End::Succeeded(_)))));
    }
}
