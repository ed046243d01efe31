//! Follows one run for one watcher: each change of state at once, progress at most once a second, the end when the
//! run has closed. A watcher that does not read is dropped and holds up nobody.

use std::time::Duration;

use fleet::id::AttemptId;
use mirror_proto::{convert, status::exhausted, v1};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::{Live, Meant, Place, Whole, no_such_run, show_attempt, show_run, stopping, whole};
use crate::{
    Services,
    outbox::line::{Line, LineSender, Stuck, line},
    rpc::RETRY_UNAVAILABLE,
};

/// Messages that may wait for one watcher.
pub(super) const WATCH_LEN: usize = 16;
/// Least time between two messages that differ in progress only.
pub(super) const PROGRESS_PAUSE: Duration = Duration::from_secs(1);
/// Least time between two looks, however busy the fleet is. A change that comes later after a look is told at once.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Starts to follow; the first message is on its way at once.
pub(super) fn start(
    services: Services,
    meant: Meant,
    whole: Whole,
    place: Place,
) -> Line<v1::WatchRunResponse> {
    let (sender, receiver) = line(WATCH_LEN);
    let closed = services.outbox.closed().clone();
    let watch = Watch { services, meant, whole };
    tokio::spawn(async move {
        let ended = tokio::select! {
            () = closed.cancelled() => Some(stopping()),
            ended = watch.run(&sender) => ended,
        };
        if let Some(status) = ended {
            sender.end(status);
        }
        drop(place);
    });
    receiver
}

struct Watch {
    services: Services,
    meant: Meant,
    whole: Whole,
}

type Progresses = Vec<(AttemptId, v1::Progress)>;

impl Watch {
    /// Follows until the run has closed (`None`), or the watcher must be told why not.
    async fn run(mut self, sender: &LineSender<v1::WatchRunResponse>) -> Option<Status> {
        let mut commits = self.services.driver.changes();
        let mut told = self.services.progress.changes();
        let mut sent: Option<(Live, Progresses)> = None;
        let mut sent_at = Instant::now();
        loop {
            commits.mark_unchanged();
            told.mark_unchanged();
            let looked_at = Instant::now();
            let (live, progress) = self.look();
            let state_changed = sent.as_ref().is_none_or(|(old, _)| *old != live);
            let progress_changed = sent.as_ref().is_some_and(|(_, old)| *old != progress);
            if state_changed {
                let Meant { project, run, .. } = self.meant;
                match whole(&self.services, project, run, live.clone()).await {
                    Ok(Some(fresh)) => self.whole = fresh,
                    Ok(None) => return Some(no_such_run(&self.meant)),
                    Err(status) => return Some(status),
                }
            }
            let mut withheld = false;
            if state_changed || (progress_changed && sent_at.elapsed() >= PROGRESS_PAUSE) {
                match sender.try_send(self.message()) {
                    Ok(()) => (sent, sent_at) = (Some((live, progress)), Instant::now()),
                    Err(Stuck::Gone) => return None,
                    Err(Stuck::Full) => return Some(too_slow()),
                }
            } else {
                withheld = progress_changed;
            }
            if self.whole.run.state.is_closed() {
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
            sleep_until(looked_at + LOOK_PAUSE).await;
        }
    }

    /// What the view has of the run: when it is the same, nothing has happened.
    fn look(&self) -> (Live, Progresses) {
        let live = Live::of(&self.services.driver.view(), self.meant.run);
        let out = live.attempts.iter().filter(|attempt| attempt.state.is_out());
        let progress = out.filter_map(|attempt| Some((attempt.id, self.services.progress.get(attempt.id)?)));
        let progress = progress.collect();
        (live, progress)
    }

    fn message(&self) -> v1::WatchRunResponse {
        let Whole { run, attempts } = &self.whole;
        let (now, progress) = (self.services.driver.now(), &self.services.progress);
        let view = self.services.driver.view();
        // It may have been renamed meanwhile.
        let name = convert::Names::project(&*view, self.meant.project);
        let name = name.as_ref().unwrap_or(&self.meant.name);
        let show = |attempt| show_attempt(&view, now, progress, name, attempt);
        v1::WatchRunResponse {
            run: Some(show_run(&view, now, progress, name, run, self.whole.origin())),
            attempts: attempts.iter().map(show).collect(),
        }
    }
}

fn too_slow() -> Status {
    let text =
        format!("the watcher does not read: {WATCH_LEN} messages wait for it; watch again, the run goes on");
    exhausted("SLOW_WATCHER", &text, RETRY_UNAVAILABLE)
}
