//! Follows one run for one watcher: each change of state at once, progress at most once a second, the end when the
//! run has closed. A watcher that does not read is dropped and holds up nobody.

use std::time::Duration;

use fleet::{
    attempt::AttemptRecord,
    id::{AttemptId, RunId},
    run::RunRecord,
};
use mirror_proto::{status::exhausted, v1};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;

use super::{Meant, Stored, no_such_run, show_attempt, show_run, stopping, stored};
use crate::{
    Services,
    outbox::line::{Line, LineSender, Stuck, line},
    rpc::RETRY_UNAVAILABLE,
};

/// Messages that may wait for one watcher.
pub(super) const WATCH_LEN: usize = 16;
/// Least time between two messages that differ in progress only.
pub(super) const PROGRESS_PAUSE: Duration = Duration::from_secs(1);
/// Least time between two looks, however busy the fleet is.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Starts to follow; the first message is on its way at once.
pub(super) fn start(services: Services, meant: Meant, stored: Stored) -> Line<v1::WatchRunResponse> {
    let (sender, receiver) = line(WATCH_LEN);
    let closed = services.outbox.closed().clone();
    let watch = Watch { services, meant, stored };
    tokio::spawn(async move {
        let ended = tokio::select! {
            () = closed.cancelled() => Some(stopping()),
            ended = watch.run(&sender) => ended,
        };
        if let Some(status) = ended {
            sender.end(status);
        }
    });
    receiver
}

struct Watch {
    services: Services,
    meant: Meant,
    stored: Stored,
}

/// What the view shows of a run: when it is the same, nothing has happened.
#[derive(PartialEq)]
struct Look {
    run: Option<RunRecord>,
    live: Vec<AttemptRecord>,
}

type Progresses = Vec<(AttemptId, v1::Progress)>;

impl Watch {
    /// Follows until the run has closed (`None`), or the watcher must be told why not.
    async fn run(mut self, sender: &LineSender<v1::WatchRunResponse>) -> Option<Status> {
        let mut commits = self.services.driver.changes();
        let mut told = self.services.progress.changes();
        let mut sent: Option<(Look, Progresses)> = None;
        let mut sent_at = Instant::now();
        loop {
            commits.mark_unchanged();
            told.mark_unchanged();
            let (look, progress) = self.look();
            let state_changed = sent.as_ref().is_none_or(|(old, _)| *old != look);
            let progress_changed = sent.as_ref().is_some_and(|(_, old)| *old != progress);
            if state_changed && sent.is_some() {
                match stored(&self.services, self.meant.project, self.meant.run).await {
                    Ok(Some(fresh)) => self.stored = fresh,
                    Ok(None) => return Some(no_such_run(&self.meant)),
                    Err(status) => return Some(status),
                }
            }
            let mut withheld = false;
            if state_changed || (progress_changed && sent_at.elapsed() >= PROGRESS_PAUSE) {
                match sender.try_send(self.message()) {
                    Ok(()) => (sent, sent_at) = (Some((look, progress)), Instant::now()),
                    Err(Stuck::Gone) => return None,
                    Err(Stuck::Full) => return Some(too_slow()),
                }
            } else {
                withheld = progress_changed;
            }
            if self.stored.run.state.is_closed() {
                return None;
            }
            let progress_due = async {
                sleep_until(sent_at + PROGRESS_PAUSE).await;
                if withheld { Ok(()) } else { told.changed().await }
            };
            tokio::select! {
                () = sender.gone() => return None,
                changed = commits.changed() => if changed.is_err() { return Some(stopping()) },
                changed = progress_due => if changed.is_err() { return Some(stopping()) },
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    fn look(&self) -> (Look, Progresses) {
        let run: RunId = self.meant.run;
        let view = self.services.driver.view();
        let live: Vec<AttemptRecord> = view.attempts_of(run).cloned().collect();
        let out = live.iter().filter(|attempt| attempt.state.is_out());
        let progress = out.filter_map(|attempt| Some((attempt.id, self.services.progress.get(attempt.id)?)));
        let progress = progress.collect();
        (Look { run: view.run(run).cloned(), live }, progress)
    }

    fn message(&self) -> v1::WatchRunResponse {
        let Stored { run, attempts } = &self.stored;
        let (now, progress) = (self.services.driver.now(), &self.services.progress);
        let view = self.services.driver.view();
        let name = &self.meant.name;
        let origin = attempts.iter().find(|attempt| attempt.id.number == run.origin_attempt);
        let show = |attempt| show_attempt(&view, now, progress, name, attempt);
        v1::WatchRunResponse {
            run: Some(show_run(&view, now, progress, name, run, origin)),
            attempts: attempts.iter().map(show).collect(),
        }
    }
}

fn too_slow() -> Status {
    let text = format!("the watcher does not read: {WATCH_LEN} messages wait for it; watch again, the run goes on");
    exhausted("SLOW_WATCHER", &text, RETRY_UNAVAILABLE)
}
