//! How long to wait before the next session. Full jitter, so that a fleet does not come back in step.

use std::time::{Duration, Instant};

use rand::Rng as _;

use super::End;

/// Upper bound of the first pause.
const FIRST: Duration = Duration::from_millis(250);
/// Upper bound of any pause after a lost link.
const CAP: Duration = Duration::from_secs(10);
/// Bounds of the pause after a refusal that only people can mend.
const LONG: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(300));
/// Bounds of the pause after a coordinator that must not be obeyed: another one may be there soon.
const MIDDLE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30));
/// A session that lived this long was a good one.
const GOOD: Duration = Duration::from_secs(30);
/// So many takeovers within [`FLAPPING`] are no restart of this program but two that fight.
const TAKEOVERS_MAX: usize = 3;
/// See [`TAKEOVERS_MAX`].
const FLAPPING: Duration = Duration::from_secs(60);

/// The pauses between sessions.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    last: Instant,
    takeovers: Vec<Instant>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { failures: 0, last: Instant::now(), takeovers: Vec::new() }
    }
}

impl Backoff {
    /// The pause after a session that ended now.
    pub(super) fn after(&mut self, end: &End) -> Duration {
        let now = Instant::now();
        let lived = now.duration_since(self.last);
        if lived >= GOOD {
            self.failures = 0;
        }
        let pause = match end {
            End::Lost(_) => full_jitter(self.failures),
            End::Superseded => {
                self.takeovers.retain(|at| now.duration_since(*at) < FLAPPING);
                self.takeovers.push(now);
                if self.alarm() { between(LONG) } else { full_jitter(self.failures.max(2)) }
            }
            End::Refused(_) => between(LONG),
            End::StaleCoordinator(_) => between(MIDDLE),
        };
        self.failures = self.failures.saturating_add(1);
        self.last = now + pause;
        pause
    }

    /// Whether two programs fight for this agent's session.
    pub(super) fn alarm(&self) -> bool {
        self.takeovers.len() >= TAKEOVERS_MAX
    }
}

fn full_jitter(failures: u32) -> Duration {
    let bound = FIRST.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(CAP);
    between((Duration::ZERO, bound))
}

fn between((min, max): (Duration, Duration)) -> Duration {
    rand::rng().random_range(min..=max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_cap() {
        for (failures, bound) in [(0, FIRST), (1, FIRST * 2), (3, FIRST * 8), (9, CAP), (60, CAP)] {
            for _ in 0..50 {
                assert!(full_jitter(failures) <= bound, "{failures}");
            }
        }
    }

    #[test]
    fn refusals_wait_long_and_fights_raise_the_alarm() {
        let mut backoff = Backoff::default();
        assert!(backoff.after(&End::Refused(String::new())) >= LONG.0);
        assert!(backoff.after(&End::StaleCoordinator(String::new())) >= MIDDLE.0);
        let mut backoff = Backoff::default();
        assert!(backoff.after(&End::Superseded) <= CAP && !backoff.alarm());
        assert!(backoff.after(&End::Superseded) <= CAP && !backoff.alarm());
        assert!(backoff.after(&End::Superseded) >= LONG.0 && backoff.alarm());
    }
}
