//! What the simulations met, counted: attempt states with the inputs that met them, and faults. A simulator
//! that never meets a case says nothing about it, so the test fails when a count is too low.

use std::{collections::BTreeMap, fmt};

use fleet::{attempt::AttemptState, engine::WaitReason};

use crate::newness::Met;

/// Faults that the simulator injects, or that follow from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A connection breaks; what is in flight is lost from some point on.
    CutLink,
    /// A connection breaks and one end notices much later.
    HalfOpen,
    /// Nothing passes between an agent and the coordinator for a while.
    PartitionBoth,
    /// Nothing passes from an agent to the coordinator.
    PartitionUp,
    /// Nothing passes from the coordinator to an agent.
    PartitionDown,
    /// An old report is said once more.
    Replay,
    /// The agent program dies; its pulls go on.
    AgentCrash,
    /// The whole machine dies; its pulls too.
    HostCrash,
    /// A machine dies and its agent's state directory with it.
    StateLoss,
    /// The coordinator's program dies.
    CoordinatorCrash,
    /// The coordinator's machine dies: agents notice late.
    PowerLoss,
    /// The coordinator is away for hours or days.
    LongOutage,
    /// The store refuses a commit, or takes a part of it.
    CommitError,
    /// An older backup of the store is put back.
    Restore,
    /// The coordinator's wall clock steps back.
    WallBack,
    /// The coordinator's wall clock steps forward.
    WallForward,
    /// An agent's clock goes wrong.
    AgentClock,
    /// A disk of an agent comes or goes.
    RootsChange,
    /// An upstream host cannot be reached for a while.
    UpstreamDown,
    /// A volume of an agent fills up to its reserve, or has room again.
    DiskFills,
    /// Decided units were lost in a crash before they were on disk.
    LostUnits,
    /// A report over an old connection arrived after the new hello.
    LateReport,
    /// The hello of an old connection arrived after that of a newer one.
    LateHello,
    /// A request id was used again.
    RequestRepeat,
    /// A guard of an agent found something.
    GuardStop,
    /// An origin's tree had lost too much.
    ShrunkTree,
    /// An attempt was offered that a person had approved.
    Approved,
    /// A run was to be approved that was not the newest hold.
    StaleApproval,
    /// An attempt of a dry run was offered.
    DryRun,
    /// An attempt was offered that copies a lost tree.
    Reseed,
    /// An agent took another's place.
    Replaced,
    /// What an agent that was away may have been doing counts no more: another one took its place.
    Fenced,
    /// An attempt was offered that moves a tree.
    Move,
    /// A tree was moved, and the project says so.
    Moved,
    /// What was copied of a tree that moves is not what it was made from.
    MoveDamaged,
    /// A host joined again under other labels.
    Relabelled,
    /// A daemon took what it was told to serve, and did not say so.
    DaemonSilent,
    /// A daemon could not serve what it was told to.
    ExportRefused,
    /// A project got another name.
    Renamed,
    /// A project was archived.
    Archived,
    /// A project ran because another one had a new tree.
    Followed,
    /// Somebody was told that a plan of more than one step is recorded.
    Planned,
    /// A coordinator found a plan of more than one step, and not all of them done.
    PlanCut,
    /// A step of a plan was impossible by then: seldom, so it is no part of what must be met.
    StepLeftOut,
    /// A push was answered with a run.
    Pushed,
    /// A push came too fast, and was answered or refused.
    PushedTooFast,
    /// A push token was good no more.
    TokenNotGood,
    /// An agent got other labels or caps from people.
    AgentSet,
    /// An agent was declared whose host has not come.
    Declared,
    /// An offer allows less than its project does, because of its agent.
    Capped,
    /// A fire of a named cadence.
    Named,
    /// A fire of a project that is spread.
    Spread,
}

impl Fault {
    pub(crate) const ALL: [Self; 51] = [
        Self::CutLink,
        Self::HalfOpen,
        Self::PartitionBoth,
        Self::PartitionUp,
        Self::PartitionDown,
        Self::Replay,
        Self::AgentCrash,
        Self::HostCrash,
        Self::StateLoss,
        Self::CoordinatorCrash,
        Self::PowerLoss,
        Self::LongOutage,
        Self::CommitError,
        Self::Restore,
        Self::WallBack,
        Self::WallForward,
        Self::AgentClock,
        Self::RootsChange,
        Self::UpstreamDown,
        Self::DiskFills,
        Self::LostUnits,
        Self::LateReport,
        Self::LateHello,
        Self::RequestRepeat,
        Self::GuardStop,
        Self::ShrunkTree,
        Self::Approved,
        Self::StaleApproval,
        Self::DryRun,
        Self::Reseed,
        Self::Replaced,
        Self::Fenced,
        Self::Move,
        Self::Moved,
        Self::MoveDamaged,
        Self::Relabelled,
        Self::DaemonSilent,
        Self::ExportRefused,
        Self::Renamed,
        Self::Archived,
        Self::Followed,
        Self::Planned,
        Self::PlanCut,
        Self::Pushed,
        Self::PushedTooFast,
        Self::TokenNotGood,
        Self::AgentSet,
        Self::Declared,
        Self::Capped,
        Self::Named,
        Self::Spread,
    ];
}

/// Where an attempt stands, without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    Pending,
    Offered,
    Running,
    Cancelling,
    Ended,
}

impl At {
    pub(crate) const ALL: [Self; 5] =
        [Self::Pending, Self::Offered, Self::Running, Self::Cancelling, Self::Ended];
}

impl From<&AttemptState> for At {
    fn from(state: &AttemptState) -> Self {
        match state {
            AttemptState::Pending { .. } => Self::Pending,
            AttemptState::Offered { .. } => Self::Offered,
            AttemptState::Running { .. } => Self::Running,
            AttemptState::Cancelling { .. } => Self::Cancelling,
            AttemptState::Ended { .. } => Self::Ended,
        }
    }
}

/// What can meet an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Meets {
    Offer,
    Accepted,
    RefusedBusy,
    RefusedForGood,
    RefusedStopping,
    EndedOk,
    EndedHeld,
    EndedCancelled,
    EndedFailed,
    HelloHolds,
    HelloEnded,
    HelloLacks,
    HelloOtherState,
    Cancel,
    Delete,
    Update,
    Revoke,
    OfferTimeout,
    GivenUp,
    Restart,
}

impl Meets {
    pub(crate) const ALL: [Self; 20] = [
        Self::Offer,
        Self::Accepted,
        Self::RefusedBusy,
        Self::RefusedForGood,
        Self::RefusedStopping,
        Self::EndedOk,
        Self::EndedHeld,
        Self::EndedCancelled,
        Self::EndedFailed,
        Self::HelloHolds,
        Self::HelloEnded,
        Self::HelloLacks,
        Self::HelloOtherState,
        Self::Cancel,
        Self::Delete,
        Self::Update,
        Self::Revoke,
        Self::OfferTimeout,
        Self::GivenUp,
        Self::Restart,
    ];
}

impl Meets {
    /// The states in which it must be met. All others are impossible for agents that keep their contract, or
    /// follow only from a restored backup or a report said twice; they are counted and not demanded.
    pub(crate) fn possible(self) -> &'static [At] {
        use At::{Cancelling, Ended, Offered, Pending, Running};
        match self {
            Self::Offer => &[Pending],
            Self::Accepted => &[Offered, Running, Cancelling, Ended],
            Self::RefusedBusy | Self::RefusedForGood | Self::RefusedStopping => &[Offered, Cancelling, Ended],
            Self::EndedOk | Self::EndedHeld | Self::EndedFailed => &[Running, Cancelling, Ended],
            Self::EndedCancelled => &[Cancelling, Ended],
            Self::HelloHolds | Self::HelloEnded => &[Offered, Running, Cancelling, Ended],
            Self::OfferTimeout => &[Offered],
            Self::HelloLacks
            | Self::HelloOtherState
            | Self::Cancel
            | Self::Delete
            | Self::Update
            | Self::Revoke
            | Self::GivenUp
            | Self::Restart => &[Pending, Offered, Running, Cancelling],
        }
    }
}

/// Counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cover {
    pub(crate) pairs: BTreeMap<(Meets, At), u64>,
    pub(crate) faults: BTreeMap<Fault, u64>,
    /// How often something was found waiting, by reason.
    pub(crate) waits: BTreeMap<WaitReason, u64>,
    pub(crate) steps: u64,
    pub(crate) commits: u64,
    /// Fires that agents ran by themselves.
    pub(crate) alone: u64,
    /// What was met of markers.
    pub(crate) markers: BTreeMap<Met, u64>,
}

impl Cover {
    pub(crate) fn pair(&mut self, meets: Meets, at: At) {
        *self.pairs.entry((meets, at)).or_default() += 1;
    }

    pub(crate) fn marker(&mut self, met: Met) {
        *self.markers.entry(met).or_default() += 1;
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (pair, count) in &other.pairs {
            *self.pairs.entry(*pair).or_default() += count;
        }
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (reason, count) in &other.waits {
            *self.waits.entry(*reason).or_default() += count;
        }
        for (met, count) in &other.markers {
            *self.markers.entry(*met).or_default() += count;
        }
        self.steps += other.steps;
        self.commits += other.commits;
        self.alone += other.alone;
    }
}

impl fmt::Display for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} steps, {} commits, {} fires run by agents alone",
            self.steps, self.commits, self.alone
        )?;
        write!(f, "{:18}", "")?;
        for at in At::ALL {
            write!(f, "{:>12}", format!("{at:?}"))?;
        }
        writeln!(f)?;
        for meets in Meets::ALL {
            write!(f, "{:18}", format!("{meets:?}"))?;
            for at in At::ALL {
                write!(f, "{:>12}", self.pairs.get(&(meets, at)).copied().unwrap_or(0))?;
            }
            writeln!(f)?;
        }
        for (fault, count) in &self.faults {
            writeln!(f, "{:18}{count:>12}", format!("{fault:?}"))?;
        }
        for (met, count) in &self.markers {
            writeln!(f, "marker {:18}{count:>11}", format!("{met:?}"))?;
        }
        for (reason, count) in &self.waits {
            writeln!(f, "waits {:18}{count:>12}", format!("{reason:?}"))?;
        }
        Ok(())
    }
}
