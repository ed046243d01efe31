//! Exit class → again or not, and when. Pure arithmetic over the table of document "defaults".

use std::time::Duration;

use crate::{defaults, outcome::ExitClass, project::RetrySettings, time::Now};

/// What follows a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Another try in the same run, after this pause.
    Again(Duration),
    /// Nothing before the next fire.
    GiveUp,
}

/// What follows try number `attempt_try` (from 1) that ended with `class`; `busy_pause` is the fleet's
/// [`defaults::Limits::busy_pause`].
#[must_use]
pub fn verdict(
    class: ExitClass,
    attempt_try: u32,
    settings: RetrySettings,
    busy_pause: Duration,
    now: Now,
) -> Verdict {
    let tries = settings.attempts.unwrap_or(defaults::RETRY_ATTEMPTS);
    match class {
        ExitClass::Network
        | ExitClass::Timeout
        | ExitClass::Stalled
        | ExitClass::Protocol
        | ExitClass::Internal
        | ExitClass::Interrupted => {
            if attempt_try >= tries {
                return Verdict::GiveUp;
            }
            let initial = settings.initial_backoff.unwrap_or(defaults::RETRY_INITIAL);
            Verdict::Again(full_jitter(grow(initial, attempt_try - 1, defaults::RETRY_CAP), now))
        }
        // Admission lets it start only when there is room.
        ExitClass::DiskFull if attempt_try < tries => Verdict::Again(defaults::DISK_FULL_RETRY),
        ExitClass::Partial if attempt_try == 1 && tries > 1 => Verdict::Again(defaults::PARTIAL_RETRY),
        // Queued, not failed: asked again until the next fire takes over, with a growing, jittered pause.
        ExitClass::Busy => {
            let pause = grow(busy_pause, attempt_try - 1, defaults::BUSY_CAP);
            Verdict::Again(pause / 2 + full_jitter(pause / 2, now))
        }
        ExitClass::UpstreamBehind => Verdict::Again(defaults::BEHIND_RETRY),
        ExitClass::Ok
        | ExitClass::Partial
        | ExitClass::MaxDelete
        | ExitClass::Auth
        | ExitClass::NotFound
        | ExitClass::Refused
        | ExitClass::DiskFull
        | ExitClass::LocalIo
        | ExitClass::WallClock
        | ExitClass::Cancelled
        | ExitClass::Config
        | ExitClass::RejectedByAgent
        | ExitClass::Guard => Verdict::GiveUp,
    }
}

/// `initial` × multiplier^`steps`, at most `cap`.
fn grow(initial: Duration, steps: u32, cap: Duration) -> Duration {
    let factor = defaults::RETRY_MULTIPLIER.saturating_pow(steps.min(20));
    initial.saturating_mul(factor).min(cap)
}

/// Uniform in (0, `span`]: "full jitter", so that a fleet does not come back in step.
fn full_jitter(span: Duration, now: Now) -> Duration {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(1 + now.below(millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Mono, Wall};

    fn verdict(class: ExitClass, attempt_try: u32, settings: RetrySettings, now: Now) -> Verdict {
        super::verdict(class, attempt_try, settings, defaults::BUSY_INITIAL, now)
    }

    fn now(entropy: u64) -> Now {
        Now { wall: Wall(0), mono: Mono(0), entropy }
    }

    #[test]
    fn network_failures_are_tried_four_times_with_growing_jittered_pauses() {
        let limits = [5 * 60, 15 * 60, 45 * 60];
        for (index, limit) in limits.into_iter().enumerate() {
            for entropy in 0..200 {
                let attempt_try = u32::try_from(index).expect("small") + 1;
                match verdict(ExitClass::Network, attempt_try, RetrySettings::default(), now(entropy)) {
                    Verdict::Again(pause) => {
                        assert!(pause <= Duration::from_secs(limit) + Duration::from_millis(1))
                    }
                    Verdict::GiveUp => panic!("gave up at try {attempt_try}"),
                }
            }
        }
        assert_eq!(verdict(ExitClass::Network, 4, RetrySettings::default(), now(1)), Verdict::GiveUp);
    }

    #[test]
    fn partial_is_tried_once_more_and_login_errors_never() {
        let settings = RetrySettings::default();
        assert_eq!(verdict(ExitClass::Partial, 1, settings, now(1)), Verdict::Again(defaults::PARTIAL_RETRY));
        assert_eq!(verdict(ExitClass::Partial, 2, settings, now(1)), Verdict::GiveUp);
        assert_eq!(verdict(ExitClass::Auth, 1, settings, now(1)), Verdict::GiveUp);
    }

    #[test]
    fn a_full_disk_is_tried_again_as_often_as_a_broken_network() {
        let settings = RetrySettings::default();
        for attempt_try in 1..4 {
            let again = Verdict::Again(defaults::DISK_FULL_RETRY);
            assert_eq!(verdict(ExitClass::DiskFull, attempt_try, settings, now(1)), again);
        }
        assert_eq!(verdict(ExitClass::DiskFull, 4, settings, now(1)), Verdict::GiveUp);
        let once = RetrySettings { attempts: Some(1), ..settings };
        assert_eq!(verdict(ExitClass::DiskFull, 1, once, now(1)), Verdict::GiveUp);
    }

    #[test]
    fn busy_is_asked_again_for_ever_but_never_sooner_than_a_minute() {
        for attempt_try in 1..50 {
            match verdict(ExitClass::Busy, attempt_try, RetrySettings::default(), now(u64::from(attempt_try)))
            {
                Verdict::Again(pause) => {
                    assert!(
                        pause >= Duration::from_secs(60)
                            && pause <= defaults::BUSY_CAP + Duration::from_millis(1)
                    );
                }
                Verdict::GiveUp => panic!("busy is no failure"),
            }
        }
    }
}
