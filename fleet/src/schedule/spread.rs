//! Spread: each project fires at a moment of its own inside the period of its schedule, so that a fleet of hourly
//! projects does not begin at minute 0 with all of them.
//!
//! The moment (the phase) is a hash of the project's and the origin's uids, so it is the same after every restart and
//! rename, and the same for the coordinator and an agent alone: the phase is stored with the schedule. Jitter comes on top,
//! and windows hold back what falls outside of them, as for any other fire. Knows nothing of runs.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

use super::{Cadence, DstOverlap, SPAN_SECONDS_MAX, Schedule, search, whole_seconds_up};

/// Widest spread that may be asked for, in seconds: 366 days. What is wider than the period means the period.
pub const SPREAD_SECONDS_MAX: u64 = SPAN_SECONDS_MAX;
/// Fires that are looked at to find the shortest period of cron fields: the bound of that work. A day that a change of the
/// clock makes shorter may escape it, and does no harm: all fires are moved alike, so none overtakes another.
const PERIOD_FIRES: usize = 64;
/// Where those fires are looked for first, in seconds since 1970: 2024-01-01, the beginning of a leap year.
const PERIOD_FROM: i64 = 1_704_067_200;

/// The phase of a project on its origin, in seconds: 0 up to `spread_seconds`, itself excluded. An even hash of both uids,
/// scaled, so that a wider spread keeps a project's place in it.
#[must_use]
pub fn phase_seconds(project: u64, agent: u64, spread_seconds: u64) -> u64 {
    let hash = mix(mix(project).wrapping_add(agent));
    let scaled = (u128::from(hash) * u128::from(spread_seconds)) >> 64;
    u64::try_from(scaled).unwrap_or(0)
}

/// The finaliser of splitmix64: uids count up, and neighbours must land far apart.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Schedule {
    /// How far projects with this schedule are spread, in seconds: the setting; without one, a named cadence over its whole
    /// period and any other not at all.
    #[must_use]
    pub fn spread_in_force(&self) -> u64 {
        let of_name = match &self.cadence {
            Cadence::Cron(cron) => cron.named().map_or(0, super::Named::period_seconds),
            Cadence::Interval { .. } | Cadence::Manual => 0,
        };
        self.spread_seconds.unwrap_or(of_name)
    }

    /// The shortest time between two fires, in seconds, without spread. For cron fields: of the first `PERIOD_FIRES`
    /// from 2024 on. `None`: manual, or fewer than two fires.
    #[must_use]
    pub fn shortest_period(&self) -> Option<u64> {
        match &self.cadence {
            Cadence::Manual => None,
            Cadence::Interval { every_seconds, .. } => Some(*every_seconds),
            Cadence::Cron(cron) => {
                if let Some(named) = cron.named() {
                    return Some(named.period_seconds());
                }
                let both = self.dst_overlap_in_force() == DstOverlap::Both;
                let fire = |at| search::first_fire(cron, self.time_zone, both, at);
                let fires = std::iter::successors(fire(PERIOD_FROM), |last| fire(last + 1));
                let fires: Vec<i64> = fires.take(PERIOD_FIRES).collect();
                fires.windows(2).filter_map(|pair| u64::try_from(pair[1] - pair[0]).ok()).min()
            }
        }
    }

    /// This schedule with its spread cut to the shortest period, so that every fire stays inside its own; and whether that
    /// cut anything off.
    #[must_use]
    pub fn with_spread_inside_the_period(mut self) -> (Self, bool) {
        let Some(asked) = self.spread_seconds.filter(|seconds| *seconds > 0) else { return (self, false) };
        let Some(period) = self.shortest_period().filter(|period| *period < asked) else {
            return (self, false);
        };
        self.spread_seconds = Some(period);
        (self, true)
    }

    /// This schedule as the project with these uids has it: at its own phase. The phase stays as it was in `old` where
    /// nothing else differs, so that who makes another agent the origin, or changes something else, moves no fire.
    #[must_use]
    pub fn of_project(mut self, project: u64, agent: u64, old: Option<&Self>) -> Self {
        if let Some(old) = old {
            self.phase_seconds = old.phase_seconds;
            if self == *old {
                return self;
            }
        }
        self.phase_seconds = phase_seconds(project, agent, self.spread_in_force());
        self
    }

    /// How far every fire is moved.
    pub(super) fn phase(&self) -> TimeDelta {
        let seconds = i64::try_from(self.phase_seconds.min(SPREAD_SECONDS_MAX)).unwrap_or(0);
        TimeDelta::try_seconds(seconds).unwrap_or_default()
    }

    /// When a project with this schedule that has not run by it fires first: as [`Schedule::first_at_or_after`]; an interval,
    /// which is due at once or at its start, after its phase. Later fires of an interval count from runs alone.
    #[must_use]
    pub fn first_of_all(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let begun = self.start.is_none_or(|start| start <= at);
        match self.cadence {
            Cadence::Interval { .. } if begun => {
                let fire = self.after_its_phase(whole_seconds_up(at)?)?;
                self.end.is_none_or(|end| fire <= end).then_some(fire)
            }
            Cadence::Interval { .. } | Cadence::Cron(_) | Cadence::Manual => self.first_at_or_after(at),
        }
    }

    /// What would be due at `at`, at this project's place in the spread.
    pub(super) fn after_its_phase(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        Some(self.cut_at_end(at, at, at.checked_add_signed(self.phase())?))
    }

    /// The phase takes no `fire` over the end: the last ones come at the end instead of `spread`, but none before `at`.
    pub(super) fn cut_at_end(
        &self,
        at: DateTime<Utc>,
        fire: DateTime<Utc>,
        spread: DateTime<Utc>,
    ) -> DateTime<Utc> {
        match self.end.map(|end| end.trunc_subsecs(0)) {
            Some(end) if (fire..spread).contains(&end) && at <= end => end,
            Some(_) | None => spread,
        }
    }
}
