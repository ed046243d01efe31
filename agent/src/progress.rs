//! rsync's progress in the words of the wire. Nothing in it goes back, and nothing is claimed that is not known: no
//! percentage while the totals grow, no estimate before a twentieth is done. Knows no clock: the time is handed in.

use std::time::Duration;

use mirror_proto::v1;
use mirror_proto::v1::progress::Phase;

/// Below this share of the entries an estimate would be a guess, percent.
const ESTIMATE_PERCENT_MIN: u32 = 5;

/// By what was read a comparison is never quite done: some of it is rsync's own.
const COMPARED_PERCENT_MAX: u32 = 99;

/// How far an attempt is, made of what rsync says.
#[derive(Debug, Default)]
pub struct Tracker {
    percent: u32,
}

impl Tracker {
    /// What to report after `elapsed` since rsync began.
    pub fn report(
        &mut self,
        now: &rsync::Progress,
        elapsed: Duration,
        time: prost_types::Timestamp,
    ) -> v1::Progress {
        let known = now.files_total > 0 && !now.total_still_grows;
        if known {
            let percent = now.percent().map_or(0, u32::from);
            self.percent = self.percent.max(percent);
        }
        let phase = match (now.files_total, now.bytes) {
            (0, 0) => Phase::Listing,
            _ if known && now.files_done >= now.files_total => Phase::Finish,
            _ => Phase::Transfer,
        };
        v1::Progress {
            phase: phase.into(),
            files_done: now.files_done,
            files_total: now.files_total,
            bytes_done: now.bytes,
            percent: known.then_some(self.percent),
            rate_bytes: now.rate,
            eta: known.then(|| self.estimate(elapsed)).flatten(),
            total_grows: !known,
            time: Some(time),
        }
    }

    /// What to report of a comparison after `elapsed`: rsync tells nothing before its end, so it is told by the bytes that
    /// its processes have read, of `all` as far as that is known.
    pub fn report_compared(
        &mut self,
        read: u64,
        all: u64,
        elapsed: Duration,
        time: prost_types::Timestamp,
    ) -> v1::Progress {
        let percent = (u128::from(read) * 100).checked_div(u128::from(all));
        self.percent =
            percent.and_then(|percent| u32::try_from(percent).ok()).unwrap_or(0).min(COMPARED_PERCENT_MAX);
        v1::Progress {
            phase: Phase::Verify.into(),
            bytes_done: read,
            percent: (all > 0).then_some(self.percent),
            rate_bytes: read.checked_div(elapsed.as_secs()).unwrap_or(0),
            eta: (all > 0).then(|| self.estimate(elapsed)).flatten(),
            time: Some(time),
            ..v1::Progress::default()
        }
    }

    /// By the share of entries that are done: rsync tells no total of bytes.
    fn estimate(&self, elapsed: Duration) -> Option<prost_types::Duration> {
        if self.percent < ESTIMATE_PERCENT_MIN {
            return None;
        }
        let left = elapsed.as_secs().saturating_mul(u64::from(100 - self.percent)) / u64::from(self.percent);
        Some(prost_types::Duration { seconds: i64::try_from(left).unwrap_or(i64::MAX), nanos: 0 })
    }
}

/// What is reported before rsync runs.
#[must_use]
pub fn preflight(time: prost_types::Timestamp) -> v1::Progress {
    v1::Progress {
        phase: Phase::Preflight.into(),
        total_grows: true,
        time: Some(time),
        ..v1::Progress::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(done: u64, total: u64, grows: bool) -> rsync::Progress {
        rsync::Progress {
            bytes: done * 10,
            files_done: done,
            files_total: total,
            total_still_grows: grows,
            ..rsync::Progress::default()
        }
    }

    #[test]
    fn percent_never_goes_back_and_waits_for_a_total() {
        let mut tracker = Tracker::default();
        let mut report = |progress: rsync::Progress, seconds| {
            tracker.report(&progress, Duration::from_secs(seconds), prost_types::Timestamp::default())
        };
        assert_eq!(report(at(0, 0, false), 0).phase(), Phase::Listing);
        let growing = report(at(50, 100, true), 10);
        assert_eq!((growing.percent, growing.eta, growing.total_grows), (None, None, true));
        let half = report(at(500, 1_000, false), 60);
        assert_eq!((half.percent, half.phase()), (Some(50), Phase::Transfer));
        assert_eq!(half.eta.map(|eta| eta.seconds), Some(60));
        assert_eq!(
            report(at(500, 2_000, false), 61).percent,
            Some(50),
            "a total that grew takes nothing back"
        );
        let end = report(at(2_000, 2_000, false), 100);
        assert_eq!(
            (end.percent, end.phase(), end.eta.map(|eta| eta.seconds)),
            (Some(100), Phase::Finish, Some(0))
        );
    }
}
