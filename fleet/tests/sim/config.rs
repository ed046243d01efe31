//! What kind of a day one seed has. Each seed draws its own mix ("swarm testing"): with every fault in every
//! run, some would always hide what others could show.

use std::time::Duration;

use fleet::defaults::{BUSY_INITIAL, Limits};

use crate::{cover::Fault, prng::Prng};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
/// What stays free on each volume; they have 1 TiB.
const RESERVE_BYTES: u64 = 30 << 30;

/// One seed's world.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) limits: Limits,
    /// Machines at the start.
    pub(crate) hosts: usize,
    /// Steps before the calm end.
    pub(crate) steps: u64,
    /// Mean pause between two things people do, in ms.
    pub(crate) person_gap: u64,
    /// Mean pause between two faults, in ms.
    pub(crate) fault_gap: u64,
    /// How often each fault is drawn.
    pub(crate) faults: Vec<u64>,
    /// How often each thing is asked for, in the order of `people::DEEDS`.
    pub(crate) deeds: Vec<u64>,
    /// Longest network delay, in ms.
    pub(crate) latency: u64,
    /// Longest commit, in ms.
    pub(crate) commit: u64,
    /// Longest fsync of an agent's journal, in ms.
    pub(crate) fsync: u64,
    /// Mean time of a pull, in ms.
    pub(crate) pull: u64,
    /// Offers and cancels after which somebody meddles at once, in 1,000.
    pub(crate) meddling: u64,
    /// Longest time from a kill to a pull's end, in ms.
    pub(crate) kill: u64,
    /// Messages with which their connection breaks, in 1,000.
    pub(crate) snaps: u64,
    /// Pulls that succeed, in 1,000.
    pub(crate) pulls_ok: u64,
    /// Offers that an agent refuses for reasons of its own, in 1,000.
    pub(crate) refusals: u64,
    /// How long an agent has no coordinator before it does without one, in ms.
    pub(crate) alone_after: u64,
    /// How old its orders may be then, in ms.
    pub(crate) alone_valid: u64,
    /// Instant at which the coordinator's wall clock starts, in ms since 1970.
    pub(crate) wall_start: i64,
}

/// Mean weight of each fault; see [`Fault`].
fn weight(fault: Fault) -> u64 {
    match fault {
        Fault::CutLink => 30,
        Fault::HalfOpen => 20,
        Fault::Replay => 100,
        Fault::PartitionBoth | Fault::PartitionUp | Fault::PartitionDown => 9,
        Fault::AgentCrash => 16,
        Fault::HostCrash | Fault::CoordinatorCrash => 10,
        Fault::StateLoss | Fault::CommitError | Fault::PowerLoss => 6,
        Fault::LongOutage => 5,
        Fault::Restore => 30,
        Fault::UpstreamDown => 6,
        Fault::DiskFills => 5,
        Fault::WallBack | Fault::WallForward | Fault::AgentClock | Fault::RootsChange => 5,
        Fault::Relabelled => 8,
        // These happen by themselves.
        Fault::LostUnits
        | Fault::LateReport
        | Fault::LateHello
        | Fault::RequestRepeat
        | Fault::DaemonSilent
        | Fault::ExportRefused => 0,
        Fault::GuardStop
        | Fault::ShrunkTree
        | Fault::Approved
        | Fault::StaleApproval
        | Fault::DryRun
        | Fault::Reseed
        | Fault::Replaced
        | Fault::Fenced
        | Fault::Move
        | Fault::Moved
        | Fault::MoveDamaged
        | Fault::Renamed
        | Fault::Archived
        | Fault::Followed
        | Fault::Planned
        | Fault::PlanCut
        | Fault::StepLeftOut
        | Fault::Pushed
        | Fault::PushedTooFast
        | Fault::TokenNotGood
        | Fault::AgentSet
        | Fault::Declared
        | Fault::Capped
        | Fault::Named
        | Fault::Spread => 0,
    }
}

impl Config {
    pub(crate) fn draw(rng: &mut Prng) -> Self {
        let limits = Limits {
            agent_slots: number(rng, 1, 4),
            volume_slots: number(rng, 1, 4),
            first_syncs: number(rng, 1, 2),
            upstream_slots: number(rng, 1, 2),
            upstream_spacing: Duration::from_millis(rng.below(20) * SECOND),
            busy_pause: BUSY_INITIAL,
            origin_uplink: number(rng, 1, 3),
            volume_reserve_percent: 2,
            volume_reserve_bytes: RESERVE_BYTES,
            lost_after: Duration::from_millis(
                *rng.pick(&[20 * SECOND, MINUTE, 10 * MINUTE]).expect("not empty"),
            ),
            offer_timeout: Duration::from_millis(rng.between(2, 30) * SECOND),
            catch_up_spread: Duration::from_millis(rng.below(11) * MINUTE),
        };
        let gap = *rng.pick(&[2 * SECOND, 5 * SECOND, 30 * SECOND, 3 * MINUTE]).expect("not empty");
        let faults = Fault::ALL.into_iter().map(|fault| if rng.chance(700) { weight(fault) } else { 0 });
        let mut faults: Vec<u64> = faults.collect();
        faults[0] += 1;
        // Near the change of Europe's and America's clocks in 2026, or any day.
        let dst = [1_774_746_000_000, 1_792_976_400_000, 1_772_953_200_000, 1_793_512_800_000];
        let any = 1_767_225_600_000 + i64::try_from(rng.below(365 * 24)).expect("small") * 3_600_000;
        let near = *rng.pick(&dst).expect("not empty") - i64::try_from(rng.below(12 * HOUR)).expect("small");
        Self {
            limits,
            hosts: rng.index(4) + 3,
            steps: rng.between(400, 2_400),
            person_gap: gap,
            fault_gap: rng.between(1, 4) * gap / 2,
            faults,
            deeds: crate::people::wishes::draw_weights(rng),
            latency: rng.between(1, 400),
            commit: rng.between(0, 80),
            // A slow disk keeps offers without an answer for long.
            fsync: *rng.pick(&[0, 5, 20, 60, 1_000, 15 * SECOND, 2 * MINUTE]).expect("not empty"),
            kill: *rng.pick(&[SECOND, MINUTE, 5 * MINUTE, 20 * MINUTE]).expect("not empty"),
            meddling: *rng.pick(&[0, 500, 950]).expect("not empty"),
            snaps: *rng.pick(&[0, 10, 60]).expect("not empty"),
            pull: *rng.pick(&[SECOND, 10 * SECOND, MINUTE, 10 * MINUTE, HOUR]).expect("not empty"),
            pulls_ok: rng.between(200, 900),
            refusals: *rng.pick(&[0, 350, 650]).expect("not empty"),
            alone_after: *rng.pick(&[SECOND, 20 * SECOND, 15 * MINUTE]).expect("not empty"),
            alone_valid: *rng.pick(&[MINUTE, HOUR, 6 * HOUR]).expect("not empty"),
            wall_start: if rng.chance(500) { near } else { any },
        }
    }
}

fn number(rng: &mut Prng, low: u64, high: u64) -> u32 {
    u32::try_from(rng.between(low, high)).expect("small")
}
