//! How upstream hosts answer, over the whole fleet: when each was last asked, and the breaker that opens after
//! several attempts in a row that did not reach it. While it is open all projects of the host wait, and one attempt
//! at a time is let through as a probe.
//!
//! Nothing of it is stored: after a restart hosts are spaced and judged anew. Does not know who waits.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    attempt::{AttemptRecord, Role},
    defaults,
    id::AttemptId,
    outcome::{ExitClass, Outcome},
    time::{Mono, Now, Wall},
};

/// rsync's exit code when a socket could not be opened or used.
const EXIT_SOCKET: i32 = 10;
/// rsync's exit code when the connection took longer than its connect timeout.
const EXIT_CONNECT_TIMEOUT: i32 = 35;
/// Below so many hosts none is forgotten.
const PRUNE_MIN: usize = 64;
/// Longest cause that is kept of a host's last failure, in characters.
const CAUSE_CHARS_MAX: usize = 200;

/// An open breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// Nothing starts at the host before; then one attempt does.
    pub until: Mono,
    /// The attempt that has been let through and has not ended.
    pub probe: Option<AttemptId>,
}

/// How an attempt last failed at a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFailure {
    /// When.
    pub time: Wall,
    /// What kind.
    pub class: ExitClass,
    /// In the other side's own words, cut.
    pub cause: String,
}

/// How one upstream host has answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostState {
    /// When an attempt was last offered that asks it.
    pub last_start: Option<Mono>,
    /// Attempts in a row that did not reach it.
    pub failures: u32,
    /// The pause before the next probe, where the breaker opened since the host last answered.
    pub pause: Option<Duration>,
    /// The breaker, while it is open.
    pub breaker: Option<Breaker>,
    /// Its last failure, busy answers apart.
    pub last_failure: Option<HostFailure>,
    /// When it was last asked or answered.
    touched: Mono,
}

/// What an attempt's end says of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    /// It could not be reached.
    Unreached,
    /// It answered, well or badly.
    Answered,
    /// Nothing.
    Nothing,
}

/// What this outcome says of the upstream host.
pub(super) fn hearing(outcome: &Outcome) -> Hearing {
    match (outcome.class, outcome.exit_code) {
        (ExitClass::Network, Some(EXIT_SOCKET)) | (ExitClass::Timeout, Some(EXIT_CONNECT_TIMEOUT)) => {
            Hearing::Unreached
        }
        (ExitClass::Ok, _)
        | (
            ExitClass::Partial
            | ExitClass::MaxDelete
            | ExitClass::Busy
            | ExitClass::Auth
            | ExitClass::NotFound
            | ExitClass::Refused
            | ExitClass::DiskFull
            | ExitClass::Timeout
            | ExitClass::Stalled
            | ExitClass::WallClock
            | ExitClass::Network
            | ExitClass::Protocol
            | ExitClass::UpstreamBehind
            | ExitClass::Guard,
            Some(_),
        ) => Hearing::Answered,
        // Without an exit code rsync did not run to its end; these classes are the agent's own affair.
        (
            ExitClass::Partial
            | ExitClass::MaxDelete
            | ExitClass::Busy
            | ExitClass::Auth
            | ExitClass::NotFound
            | ExitClass::Refused
            | ExitClass::DiskFull
            | ExitClass::Timeout
            | ExitClass::Stalled
            | ExitClass::WallClock
            | ExitClass::Network
            | ExitClass::Protocol
            | ExitClass::UpstreamBehind
            | ExitClass::Guard,
            None,
        )
        | (
            ExitClass::LocalIo
            | ExitClass::Internal
            | ExitClass::Cancelled
            | ExitClass::Config
            | ExitClass::RejectedByAgent
            | ExitClass::Interrupted,
            _,
        ) => Hearing::Nothing,
    }
}

/// The host that an attempt asks; replicas and origins to which people push ask none.
pub(super) fn host_of(attempt: &AttemptRecord) -> Option<&str> {
    let host = attempt.upstream_host.as_str();
    (attempt.role == Role::Origin && !host.is_empty()).then_some(host)
}

/// All hosts of which something is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Hosts {
    known: BTreeMap<String, HostState>,
    kept: usize,
}

impl Hosts {
    pub(super) fn get(&self, host: &str) -> Option<&HostState> {
        self.known.get(host)
    }

    /// An attempt was offered that asks this host.
    pub(super) fn started(&mut self, now: Now, host: &str, attempt: AttemptId) {
        self.forget_old(now);
        let state = self.known.entry(host.to_owned()).or_default();
        (state.last_start, state.touched) = (Some(now.mono), now.mono);
        match &mut state.breaker {
            Some(breaker) if breaker.probe.is_none() => {
                *breaker = Breaker { until: now.mono.plus(defaults::PROBE_PATIENCE), probe: Some(attempt) };
            }
            Some(breaker) if breaker.probe == Some(attempt) => {}
            // Its probe has had time enough to fail, and goes on: the host answers.
            Some(_) => state.breaker = None,
            None => {}
        }
    }

    /// An attempt that was out ended so.
    pub(super) fn ended(&mut self, now: Now, host: &str, attempt: AttemptId, outcome: Option<&Outcome>) {
        let Some(state) = self.known.get_mut(host) else { return };
        let heard = outcome.map_or(Hearing::Nothing, hearing);
        if let Some(outcome) = outcome.filter(|outcome| told_as_failure(outcome.class)) {
            let cause = outcome.cause.chars().take(CAUSE_CHARS_MAX).collect();
            state.last_failure = Some(HostFailure { time: now.wall, class: outcome.class, cause });
        }
        let was_probe = state.breaker.as_ref().is_some_and(|breaker| breaker.probe == Some(attempt));
        match heard {
            Hearing::Answered => (state.failures, state.pause, state.breaker) = (0, None, None),
            Hearing::Unreached => {
                state.failures = state.failures.saturating_add(1);
                let opens = state.breaker.is_none() && state.failures >= defaults::BREAKER_FAILURES;
                if was_probe || opens {
                    let doubled =
                        state.pause.map_or(defaults::BREAKER_PAUSE, |pause| pause.saturating_mul(2));
                    let pause = doubled.min(defaults::BREAKER_PAUSE_MAX);
                    state.pause = Some(pause);
                    state.breaker = Some(Breaker { until: now.mono.plus(pause), probe: None });
                }
            }
            Hearing::Nothing if was_probe => self.free_probe(host, attempt),
            Hearing::Nothing => {}
        }
        if let Some(state) = self.known.get_mut(host) {
            state.touched = now.mono;
        }
    }

    /// An attempt that was let through as a probe tells nothing: the next one may go.
    pub(super) fn free_probe(&mut self, host: &str, attempt: AttemptId) {
        let breaker = self.known.get_mut(host).and_then(|state| state.breaker.as_mut());
        if let Some(breaker) = breaker.filter(|breaker| breaker.probe == Some(attempt)) {
            *breaker = Breaker { until: Mono(0), probe: None };
        }
    }

    /// Forgets hosts that were not asked for long, whenever their number has doubled.
    fn forget_old(&mut self, now: Now) {
        if self.known.len() >= PRUNE_MIN.max(self.kept.saturating_mul(2)) {
            self.known.retain(|_, state| state.touched.plus(defaults::HOST_MEMORY) > now.mono);
            self.kept = self.known.len();
        }
    }
}

/// Whether people are told of it as a host's failure: a full host is none.
fn told_as_failure(class: ExitClass) -> bool {
    !matches!(
        class,
        ExitClass::Ok
            | ExitClass::Busy
            | ExitClass::MaxDelete
            | ExitClass::Guard
            | ExitClass::UpstreamBehind
            | ExitClass::DiskFull
            | ExitClass::LocalIo
            | ExitClass::Internal
            | ExitClass::Cancelled
            | ExitClass::Config
            | ExitClass::RejectedByAgent
            | ExitClass::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RunId;

    const HOST: &str = "ftp.example.org";

    fn at(seconds: u64) -> Now {
        Now { wall: Wall(0), mono: Mono(seconds * 1_000), entropy: 0 }
    }

    fn attempt(number: u32) -> AttemptId {
        AttemptId { run: RunId::NIL, number }
    }

    fn exit(class: ExitClass, code: i32) -> Outcome {
        Outcome { exit_code: Some(code), ..Outcome::of_class(class) }
    }

    fn unreached() -> Outcome {
        exit(ExitClass::Network, EXIT_SOCKET)
    }

    fn fail(hosts: &mut Hosts, seconds: u64, number: u32) {
        hosts.started(at(seconds), HOST, attempt(number));
        hosts.ended(at(seconds), HOST, attempt(number), Some(&unreached()));
    }

    fn until(hosts: &Hosts) -> Option<u64> {
        hosts.get(HOST)?.breaker.as_ref().map(|breaker| breaker.until.0 / 1_000)
    }

    #[test]
    fn it_opens_after_five_in_a_row_and_probes_ever_more_rarely() {
        let mut hosts = Hosts::default();
        for number in 1..5 {
            fail(&mut hosts, 0, number);
        }
        hosts.started(at(0), HOST, attempt(9));
        hosts.ended(at(0), HOST, attempt(9), Some(&exit(ExitClass::Busy, 5)));
        for number in 1..5 {
            fail(&mut hosts, 0, number);
            assert_eq!(until(&hosts), None, "a full host has answered");
        }
        fail(&mut hosts, 0, 5);
        let mut now = 15 * 60;
        assert_eq!(until(&hosts), Some(now));
        for minutes in [30, 60, 120, 120] {
            fail(&mut hosts, now, 6);
            now += minutes * 60;
            assert_eq!(until(&hosts), Some(now));
        }
        hosts.started(at(now), HOST, attempt(7));
        hosts.ended(at(now), HOST, attempt(7), Some(&exit(ExitClass::NotFound, 5)));
        assert_eq!(until(&hosts), None);
        fail(&mut hosts, now, 8);
        assert_eq!(until(&hosts), None, "and counts from nothing again");
    }

    #[test]
    fn a_probe_that_tells_nothing_frees_the_way_and_a_long_one_counts_as_an_answer() {
        let mut hosts = Hosts::default();
        for number in 1..6 {
            fail(&mut hosts, 0, number);
        }
        hosts.started(at(900), HOST, attempt(6));
        hosts.ended(at(901), HOST, attempt(6), None);
        assert_eq!(until(&hosts), Some(0));
        hosts.started(at(902), HOST, attempt(7));
        assert_eq!(until(&hosts), Some(902 + defaults::PROBE_PATIENCE.as_secs()));
        hosts.started(at(902 + defaults::PROBE_PATIENCE.as_secs()), HOST, attempt(8));
        assert_eq!(until(&hosts), None);
    }

    #[test]
    fn only_what_rsync_said_of_the_connection_counts() {
        assert_eq!(hearing(&unreached()), Hearing::Unreached);
        assert_eq!(hearing(&exit(ExitClass::Timeout, 35)), Hearing::Unreached);
        assert_eq!(hearing(&exit(ExitClass::Timeout, 30)), Hearing::Answered);
        assert_eq!(hearing(&exit(ExitClass::Network, 12)), Hearing::Answered);
        assert_eq!(hearing(&Outcome::of_class(ExitClass::Busy)), Hearing::Nothing);
        assert_eq!(hearing(&exit(ExitClass::Cancelled, 20)), Hearing::Nothing);
    }

    #[test]
    fn hosts_that_nobody_asks_any_more_are_forgotten() {
        let mut hosts = Hosts::default();
        let day = defaults::HOST_MEMORY.as_secs();
        for number in 0..10_000_u64 {
            hosts.started(at(number * day / 100), &format!("h{number}"), attempt(1));
        }
        assert!(hosts.known.len() <= 300, "{}", hosts.known.len());
    }
}
