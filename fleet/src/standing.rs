//! Standing orders: what an agent does by itself once it has had no coordinator for long. An order is complete, as an
//! assignment is; when it is due follows from the schedule and the fire that the coordinator has armed. Pure: the
//! coordinator writes orders, the agent asks them, and neither needs the other for it.

use std::time::Duration;

use crate::{
    defaults,
    id::Epoch,
    input::Offer,
    project::NextFire,
    schedule::{Cadence, IntervalFrom, OverlapPolicy, Schedule},
    time::{Now, Wall},
};

/// The counter of every epoch under which an agent begins something by itself: a coordinator never counts so far, so
/// the two can never hold the same token.
const AUTONOMOUS_COUNTER: u64 = 1 << 63;

/// Where no window of a schedule opens, the next one is looked for after this.
pub(crate) const OPENING_LOOK: Duration = Duration::from_secs(24 * 3_600);

impl Epoch {
    /// The token of what an agent begins by itself, having seen `term` as the highest one. Each attempt has a run of its
    /// own, so one token for all of them fences enough.
    #[must_use]
    pub fn autonomous(term: u64) -> Self {
        Self { term, counter: AUTONOMOUS_COUNTER }
    }

    /// Whether an agent began it by itself.
    #[must_use]
    pub fn is_autonomous(self) -> bool {
        self.counter >= AUTONOMOUS_COUNTER
    }
}

/// One project that an agent runs by itself while it has no coordinator.
#[derive(Debug, Clone, PartialEq)]
pub struct StandingOrder {
    /// What each run does; its run is nil and its epoch zero.
    pub template: Offer,
    /// When it fires.
    pub schedule: Schedule,
    /// The fire that is armed; `None`: none is, as while an interval's run goes on.
    pub next_fire: Option<NextFire>,
}

/// A fire that an agent ran by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutonomousFire {
    /// Its time by the schedule.
    pub scheduled: Wall,
    /// When the agent began, by its own clock. The fires up to then are run with it.
    pub started: Wall,
    /// The most files that it may delete.
    pub max_delete: u64,
}

/// What follows from a schedule now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Wait,
    /// Nothing, and this is the fire to wait for from now on.
    Later(Option<NextFire>),
    /// This fire is run, and the one to wait for after it.
    Run(Wall, Option<NextFire>),
}

/// What an agent alone does about a schedule of which `next` is armed. `busy`: a run of the project goes on. As the
/// coordinator has it: what was missed is run once, unless it is too old; an interval counts from the end of a run; a
/// fire during a run follows it, or is dropped where the schedule says so; a fire outside of all windows waits for the
/// next one; and what is late starts at random within `spread`, for all agents of a fleet lose their coordinator
/// together.
#[must_use]
pub fn due(schedule: &Schedule, next: Option<NextFire>, busy: bool, spread: Duration, now: Now) -> Due {
    let from_end = matches!(schedule.cadence, Cadence::Interval { from: IntervalFrom::End, .. });
    let Some(fire) = next else {
        return if from_end { Due::Later(fire_after(schedule, now.wall, now)) } else { Due::Wait };
    };
    if busy && from_end {
        return Due::Later(fire_after(schedule, now.wall, now));
    }
    if fire.at > now.wall {
        return Due::Wait;
    }
    let following = fire_after(schedule, now.wall, now);
    if busy {
        let skips = schedule.overlap_policy == OverlapPolicy::Skip;
        return if skips { Due::Later(following) } else { Due::Wait };
    }
    if !schedule.is_open(now.wall.to_utc()) {
        // None within two weeks: it is looked for again after a day.
        let opening = schedule.next_opening(now.wall.to_utc());
        let at = opening.map_or_else(|| now.wall.plus(OPENING_LOOK), Wall::from);
        return Due::Later(Some(NextFire { at, ..fire }));
    }
    if now.wall.since(fire.at) > defaults::FIRE_LATE && !fire.spread && !spread.is_zero() {
        let within = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
        let at = now.wall.plus(Duration::from_millis(now.below(within)));
        return Due::Later(Some(NextFire { at, spread: true, ..fire }));
    }
    let caught = fire_to_catch_up(schedule, fire.scheduled, now.wall);
    // What had to wait for a window is as old as that.
    let ready = schedule.next_opening(fire.scheduled.to_utc()).map_or(caught, Wall::from).min(now.wall);
    if now.wall.since(caught.max(ready)) > catch_up_window(schedule, fire.scheduled).saturating_add(spread) {
        Due::Later(following)
    } else {
        Due::Run(caught, following)
    }
}

/// How long after its time a missed fire is still caught up.
pub(crate) fn catch_up_window(schedule: &Schedule, at: Wall) -> Duration {
    schedule.catch_up_window(at.to_utc()).to_std().unwrap_or_default()
}

/// The fire that the one run for all that was missed stands for: the oldest still within the catch-up window,
/// or the one that was armed when there is none.
pub(crate) fn fire_to_catch_up(schedule: &Schedule, first: Wall, now: Wall) -> Wall {
    match &schedule.cadence {
        // Due for as long as it did not run: it is never too old, or it would never run again.
        Cadence::Interval { .. } => now.max(first),
        Cadence::Manual => first,
        Cadence::Cron(_) => {
            // Only the age matters, and only roughly: looking one window back from now is enough.
            let from = first.max(now.minus(catch_up_window(schedule, first)));
            schedule
                .first_at_or_after(from.to_utc())
                .map(Wall::from)
                .filter(|fire| *fire <= now)
                .map_or(first, |fire| fire.max(first))
        }
    }
}

/// The fire after `after`, with its jitter drawn; `None`: manual or exhausted.
pub(crate) fn fire_after(schedule: &Schedule, after: Wall, now: Now) -> Option<NextFire> {
    jittered(schedule, schedule.next_after(after.to_utc())?.into(), now)
}

/// The fire at `scheduled`, with its jitter drawn.
pub(crate) fn jittered(schedule: &Schedule, scheduled: Wall, now: Now) -> Option<NextFire> {
    let jitter = u64::from(schedule.jitter_seconds) * 1_000;
    let at = scheduled.plus(Duration::from_millis(now.below(jitter)));
    // Never past the end: APScheduler caps there too.
    let at = schedule.end.map_or(at, |end| at.min(end.into())).max(scheduled);
    Some(NextFire { scheduled, at, spread: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Cron, CronFields, Window};
    use crate::time::Mono;

    const HOUR: i64 = 3_600_000;

    fn hourly() -> Schedule {
        let fields: CronFields = "minute=0".parse().expect("fields");
        Schedule::cron(Cron::parse(fields).expect("a cron"), chrono_tz::UTC)
    }

    fn at(wall: i64) -> Now {
        Now { wall: Wall(wall), mono: Mono(0), entropy: 7 }
    }

    fn armed(wall: i64) -> Option<NextFire> {
        Some(NextFire { scheduled: Wall(wall), at: Wall(wall), spread: false })
    }

    #[test]
    fn what_was_missed_is_run_once_and_the_schedule_goes_on() {
        let schedule = hourly();
        assert_eq!(due(&schedule, armed(HOUR), false, Duration::ZERO, at(HOUR - 1)), Due::Wait);
        // Three fires were missed: one run stands for them, and the next is the fourth.
        assert_eq!(
            due(&schedule, armed(HOUR), false, Duration::ZERO, at(3 * HOUR + 5)),
            Due::Run(Wall(HOUR), armed(4 * HOUR))
        );
    }

    #[test]
    fn what_is_late_is_put_off_once() {
        let spread = Duration::from_secs(600);
        let now = at(3 * HOUR + 5);
        let Due::Later(Some(later)) = due(&hourly(), armed(HOUR), false, spread, now) else {
            panic!("not put off")
        };
        assert!(later.spread && later.scheduled == Wall(HOUR) && later.at <= now.wall.plus(spread));
        let now = Now { wall: later.at, ..now };
        assert!(matches!(due(&hourly(), Some(later), false, spread, now), Due::Run(Wall(HOUR), _)));
    }

    #[test]
    fn a_fire_during_a_run_follows_it_or_is_dropped() {
        let buffered = hourly();
        assert_eq!(due(&buffered, armed(HOUR), true, Duration::ZERO, at(HOUR)), Due::Wait);
        let skipping = Schedule { overlap_policy: OverlapPolicy::Skip, ..hourly() };
        assert_eq!(due(&skipping, armed(HOUR), true, Duration::ZERO, at(HOUR)), Due::Later(armed(2 * HOUR)));
    }

    #[test]
    fn what_is_too_old_is_not_caught_up() {
        let schedule = Schedule { catch_up_window_seconds: Some(60), ..hourly() };
        let late = at(HOUR + HOUR / 2);
        assert_eq!(due(&schedule, armed(HOUR), false, Duration::ZERO, late), Due::Later(armed(2 * HOUR)));
    }

    #[test]
    fn an_interval_counts_from_the_end_of_the_run() {
        let cadence = Cadence::Interval { every_seconds: 3_600, from: IntervalFrom::End };
        let schedule = Schedule::new(cadence, chrono_tz::UTC);
        assert_eq!(due(&schedule, None, true, Duration::ZERO, at(HOUR)), Due::Later(armed(2 * HOUR)));
        assert_eq!(
            due(&schedule, armed(2 * HOUR), true, Duration::ZERO, at(2 * HOUR)),
            Due::Later(armed(3 * HOUR))
        );
        let run = due(&schedule, armed(2 * HOUR), false, Duration::ZERO, at(2 * HOUR));
        assert_eq!(run, Due::Run(Wall(2 * HOUR), armed(3 * HOUR)));
    }

    #[test]
    fn outside_of_its_windows_a_fire_waits_for_the_next_one_however_long() {
        let night = Window::new("22:00", "04:00", &[]).expect("a window");
        let schedule = Schedule { windows: vec![night], catch_up_window_seconds: Some(60), ..hourly() };
        let opens = 22 * HOUR;
        let waiting = due(&schedule, armed(9 * HOUR), false, Duration::ZERO, at(9 * HOUR + 5));
        let Due::Later(Some(later)) = waiting else { panic!("{waiting:?}") };
        assert_eq!((later.scheduled, later.at), (Wall(9 * HOUR), Wall(opens)));
        let run = due(&schedule, Some(later), false, Duration::ZERO, at(opens));
        assert!(matches!(run, Due::Run(_, Some(next)) if next.scheduled == Wall(opens + HOUR)), "{run:?}");
        // It was away while the window opened, and for too long since.
        let late = due(&schedule, Some(later), false, Duration::ZERO, at(opens + HOUR / 2));
        assert!(matches!(late, Due::Later(_)), "{late:?}");
    }

    #[test]
    fn no_coordinator_counts_as_far_as_an_agent_alone() {
        assert!(Epoch::autonomous(3).is_autonomous());
        assert!(!Epoch { term: u64::MAX, counter: AUTONOMOUS_COUNTER - 1 }.is_autonomous());
    }
}
