//! Following a run: live lines that are redrawn on a terminal, plain lines otherwise, objects for programs.
//!
//! Watching never touches the run. A lost coordinator is waited for, since the sync goes on without it; Ctrl-C only
//! ends the watching.

pub mod lines;
mod screen;

use std::collections::HashMap;
use std::error::Error as _;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use mirror_proto::v1;
use mirror_proto::v1::attempt::State as AttemptState;
use mirror_proto::v1::run::State as RunState;
use tokio_stream::StreamExt as _;
use tonic::{Status, Streaming};

use crate::app::{App, note};
use crate::client::Client;
use crate::clock;
use crate::exit::Exit;
use crate::fault::{Fault, Outcome};
use crate::names;
use lines::Silence;
use screen::Screen;

/// Ages on the screen are redrawn this often, in seconds.
const REDRAW_SECONDS: u64 = 1;
/// While it waits, the reason is asked for this often, in seconds.
const WHY_SECONDS: i64 = 10;
/// Longest wait for a reason, in seconds: it only embellishes.
const WHY_SECONDS_MAX: u64 = 2;
/// Pauses between tries to come back, in seconds: doubled from the first up to the last.
const RETRY_SECONDS_MIN: u64 = 1;
const RETRY_SECONDS_MAX: u64 = 10;
/// After this long without a coordinator the watch gives up: one hour.
const LOST_MAX: TimeDelta = TimeDelta::hours(1);

/// Follows a run until it closes. The exit code tells how it ended.
///
/// # Errors
/// A run that does not exist, or a coordinator that stays away.
pub async fn follow(app: &App, client: Client, name: String) -> Outcome<Exit> {
    let mut watch = Watch::new(app, client, name);
    tokio::select! {
        exit = watch.until_closed() => exit,
        () = interrupted() => {
            watch.screen.clear();
            let again = names::project_of(&watch.name);
            app.hint(&format!("Stopped watching; the run goes on. Again: mirrorctl run watch {again}"));
            app.hint(&format!("   End it: mirrorctl run cancel {again}"));
            Ok(Exit::Interrupted)
        }
    }
}

/// Waits for Ctrl-C. Where the system gives no signals, for ever.
pub async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

struct Watch<'a> {
    app: &'a App,
    client: Client,
    /// The run's name; from the first message on never `-`, so that a reconnect finds the same run.
    name: String,
    screen: Screen,
    seen: Option<v1::WatchRunResponse>,
    activity: Activity,
    reason: Option<String>,
    reason_asked: Option<DateTime<Utc>>,
    lost_since: Option<DateTime<Utc>>,
}

impl<'a> Watch<'a> {
    fn new(app: &'a App, client: Client, name: String) -> Self {
        Self {
            app,
            client,
            name,
            screen: Screen::new(app),
            seen: None,
            activity: Activity::default(),
            reason: None,
            reason_asked: None,
            lost_since: None,
        }
    }

    async fn until_closed(&mut self) -> Outcome<Exit> {
        let mut pause = RETRY_SECONDS_MIN;
        loop {
            let before = self.seen.is_some() && self.lost_since.is_none();
            let ended = self.one_stream().await;
            if let Some(exit) = self.closed()? {
                return Ok(exit);
            }
            match ended {
                Ok(()) | Err(Stop::Lost) => {}
                Err(Stop::Fault(fault)) => {
                    self.screen.clear();
                    return Err(fault);
                }
            }
            if before {
                pause = RETRY_SECONDS_MIN;
            }
            self.wait(Duration::from_secs(pause)).await?;
            pause = (pause * 2).min(RETRY_SECONDS_MAX);
        }
    }

    /// One stream from its opening to its end.
    async fn one_stream(&mut self) -> Result<(), Stop> {
        let opened = self.client.runs().watch_run(v1::WatchRunRequest { name: self.name.clone() }).await;
        let mut stream = opened.map_err(|status| self.stop(&status))?.into_inner();
        let mut redraw = tokio::time::interval(Duration::from_secs(REDRAW_SECONDS));
        loop {
            tokio::select! {
                message = next(&mut stream) => match message {
                    None => return Ok(()),
                    Some(Ok(message)) => {
                        self.receive(message)?;
                        if self.is_closed() {
                            return Ok(());
                        }
                    }
                    Some(Err(status)) => return Err(self.stop(&status)),
                },
                _ = redraw.tick() => {
                    self.ask_why().await;
                    self.draw()?;
                }
            }
        }
    }

    /// Whether a stream's bad end is the network's, and so worth waiting for.
    fn stop(&self, status: &Status) -> Stop {
        let lost = Exit::of(status.code()) == Exit::Unreachable || status.source().is_some();
        if lost && self.seen.is_some() {
            return Stop::Lost;
        }
        Stop::Fault(Fault::from_status("the run cannot be watched", status))
    }

    fn receive(&mut self, message: v1::WatchRunResponse) -> Outcome<()> {
        if self.lost_since.take().is_some() {
            self.screen.said("connected again", &self.app.view())?;
        }
        if let Some(run) = &message.run {
            self.name.clone_from(&run.name);
        }
        self.activity.note(&message.attempts, clock::now());
        if self.app.is_json() {
            self.app.answer_json(&crate::json::value(&message, "WatchRunResponse")?)?;
        }
        self.seen = Some(message);
        self.draw()
    }

    fn draw(&mut self) -> Outcome<()> {
        let Some(v1::WatchRunResponse { run: Some(run), attempts }) = &self.seen else { return Ok(()) };
        let view = self.app.view();
        let lost = self.lost_since.map(|since| view.now - since);
        let frame = lines::Frame {
            view: &view,
            run,
            attempts,
            reason: self.reason.as_deref(),
            silence: &self.activity,
            lost,
        };
        self.screen.draw(&frame)
    }

    /// Keeps the sentence on why it waits, while it does.
    async fn ask_why(&mut self) {
        let now = clock::now();
        if !self.waits() {
            self.reason = None;
            return;
        }
        if self.reason_asked.is_some_and(|asked| now - asked < TimeDelta::seconds(WHY_SECONDS)) {
            return;
        }
        self.reason_asked = Some(now);
        let name = names::project(names::project_of(&self.name));
        let mut projects = self.client.projects();
        let answer = projects.why_project(v1::WhyProjectRequest { name });
        if let Ok(Ok(why)) = tokio::time::timeout(Duration::from_secs(WHY_SECONDS_MAX), answer).await {
            // What to type next is to watch, which is being done.
            let sentence = why.into_inner().sentences.into_iter().next();
            self.reason = sentence
                .map(|text| text.split(" Next: mirrorctl run watch ").next().unwrap_or_default().to_owned());
        }
    }

    /// Whether the run waits for something: queued, or its newest attempt not offered yet.
    fn waits(&self) -> bool {
        let Some(v1::WatchRunResponse { run: Some(run), attempts }) = &self.seen else { return false };
        let busy = attempts.iter().any(|attempt| {
            matches!(
                attempt.state(),
                AttemptState::Offered | AttemptState::Running | AttemptState::Cancelling
            )
        });
        match run.state() {
            RunState::Queued => true,
            RunState::Running | RunState::Propagating => {
                !busy && attempts.iter().any(|attempt| attempt.state() == AttemptState::Pending)
            }
            _ => false,
        }
    }

    /// Waits before the next try, telling for how long there has been no connection.
    async fn wait(&mut self, pause: Duration) -> Outcome<()> {
        let now = clock::now();
        let first = self.lost_since.is_none();
        let since = *self.lost_since.get_or_insert(now);
        if now - since > LOST_MAX {
            self.screen.clear();
            return Err(Fault::new(
                Exit::Unreachable,
                "the coordinator has been away for an hour; watching ends",
            )
            .fault("the network's, or the coordinator is down; the sync itself goes on")
            .next(format!("mirrorctl run watch {}", names::project_of(&self.name))));
        }
        if first && self.app.is_json() {
            note(&lines::lost_text(TimeDelta::zero()));
        } else if first {
            self.screen.said(&lines::lost_text(TimeDelta::zero()), &self.app.view())?;
        }
        let end = tokio::time::Instant::now() + pause;
        while tokio::time::Instant::now() < end {
            self.draw()?;
            let step = Duration::from_secs(REDRAW_SECONDS).min(end - tokio::time::Instant::now());
            tokio::time::sleep(step).await;
        }
        Ok(())
    }

    fn is_closed(&self) -> bool {
        let state = self.seen.as_ref().and_then(|seen| seen.run.as_ref()).map(v1::Run::state);
        state.is_some_and(|state| result(state, None).is_some())
    }

    /// Prints the end and tells the exit code, once the run is closed.
    fn closed(&mut self) -> Outcome<Option<Exit>> {
        let Some(v1::WatchRunResponse { run: Some(run), attempts }) = &self.seen else { return Ok(None) };
        let origin = lines::newest(attempts).into_iter().find(|attempt| attempt.role() == v1::Role::Origin);
        let origin = origin.or(run.origin_attempt.as_ref()).map(v1::Attempt::state);
        let Some(exit) = result(run.state(), origin) else { return Ok(None) };
        let view = self.app.view();
        let frame =
            lines::Frame { view: &view, run, attempts, reason: None, silence: &self.activity, lost: None };
        self.screen.finish(self.app, &frame)?;
        if exit != Exit::Done {
            self.app.hint(&format!("Next: mirrorctl run show {}", names::project_of(&run.name)));
        }
        Ok(Some(exit))
    }
}

/// Why a stream ended early.
enum Stop {
    /// The connection, or the coordinator's patience: come back.
    Lost,
    /// Something that coming back does not mend.
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

async fn next(stream: &mut Streaming<v1::WatchRunResponse>) -> Option<Result<v1::WatchRunResponse, Status>> {
    stream.next().await
}

/// The exit code of a closed run; `None` while it is open.
fn result(run: RunState, origin: Option<AttemptState>) -> Option<Exit> {
    match run {
        RunState::Unspecified | RunState::Queued | RunState::Running | RunState::Propagating => None,
        RunState::Succeeded => Some(Exit::Done),
        RunState::Failed if origin == Some(AttemptState::Succeeded) => Some(Exit::ReplicaFailed),
        RunState::Failed => Some(Exit::RunFailed),
        RunState::Held => Some(Exit::RunHeld),
        RunState::Cancelled => Some(Exit::RunCancelled),
    }
}

/// When each attempt's figures last changed.
#[derive(Debug, Default)]
struct Activity(HashMap<String, (u64, u64, DateTime<Utc>)>);

impl Activity {
    fn note(&mut self, attempts: &[v1::Attempt], now: DateTime<Utc>) {
        self.0.retain(|name, _| attempts.iter().any(|attempt| attempt.name == *name));
        for attempt in attempts {
            let Some(progress) = &attempt.progress else { continue };
            let figures = (progress.bytes_done, progress.files_done);
            let known = self.0.entry(attempt.name.clone()).or_insert((figures.0, figures.1, now));
            if (known.0, known.1) != figures {
                *known = (figures.0, figures.1, now);
            }
        }
    }
}

impl Silence for Activity {
    fn of(&self, attempt: &str, now: DateTime<Utc>) -> TimeDelta {
        self.0.get(attempt).map_or(TimeDelta::zero(), |(_, _, since)| now - *since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_the_documented_codes() {
        let good = Some(AttemptState::Succeeded);
        for (run, origin, code) in [
            (RunState::Succeeded, good, Some(0)),
            (RunState::Failed, Some(AttemptState::Failed), Some(10)),
            (RunState::Failed, good, Some(13)),
            (RunState::Held, None, Some(11)),
            (RunState::Cancelled, None, Some(12)),
            (RunState::Running, None, None),
            (RunState::Queued, None, None),
        ] {
            assert_eq!(result(run, origin).map(Exit::code), code, "{run:?}");
        }
    }

    #[test]
    fn silence_begins_when_figures_stand_still() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let attempt = |bytes_done| v1::Attempt {
            name: "a".to_owned(),
            progress: Some(v1::Progress { bytes_done, ..v1::Progress::default() }),
            ..v1::Attempt::default()
        };
        let mut activity = Activity::default();
        activity.note(&[attempt(1)], at(0));
        activity.note(&[attempt(1)], at(60));
        assert_eq!(activity.of("a", at(90)), TimeDelta::seconds(90));
        activity.note(&[attempt(2)], at(100));
        assert_eq!(activity.of("a", at(100)), TimeDelta::zero());
        activity.note(&[], at(101));
        assert!(activity.0.is_empty());
    }
}
