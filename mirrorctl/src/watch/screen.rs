//! Where a watched run is drawn: redrawn lines on a terminal, appended ones in a file or pipe, nothing where a program
//! reads objects.

use std::collections::HashMap;
use std::io::IsTerminal as _;

use chrono::{DateTime, TimeDelta, Utc};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use mirror_proto::v1::attempt::State as AttemptState;

use super::lines::{self, Frame};
use crate::app::{App, note};
use crate::fault::{Fault, Outcome};
use crate::term::{View, is_dumb};
use crate::units;

/// A running attempt has a plain line this often: every minute.
const PLAIN_EVERY: TimeDelta = TimeDelta::minutes(1);

pub(super) enum Screen {
    Live(Live),
    Plain(Plain),
    Silent,
}

impl Screen {
    pub(super) fn new(app: &App) -> Self {
        if app.is_json() {
            Self::Silent
        } else if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() && !is_dumb() {
            Self::Live(Live::default())
        } else {
            Self::Plain(Plain::default())
        }
    }

    pub(super) fn draw(&mut self, frame: &Frame<'_>) -> Outcome<()> {
        match self {
            Self::Live(live) => {
                live.set(&lines::live(frame));
                Ok(())
            }
            Self::Plain(plain) => plain.draw(frame),
            Self::Silent => Ok(()),
        }
    }

    /// A line about the watching itself, where lines are appended; the live screen has its own.
    pub(super) fn said(&mut self, text: &str, view: &View) -> Outcome<()> {
        match self {
            Self::Plain(_) => print(&stamped(view, text)),
            Self::Live(_) | Self::Silent => Ok(()),
        }
    }

    /// Takes the redrawn lines away.
    pub(super) fn clear(&mut self) {
        if let Self::Live(live) = self {
            live.clear();
        }
    }

    /// Draws the end, to stay.
    pub(super) fn finish(&mut self, app: &App, frame: &Frame<'_>) -> Outcome<()> {
        match self {
            Self::Live(live) => {
                live.clear();
                let ended: String = lines::live(frame).into_iter().map(|line| line + "\n").collect();
                app.print(&ended)?;
            }
            Self::Plain(plain) => plain.draw(frame)?,
            Self::Silent => return Ok(()),
        }
        app.print(&lines::verdict(frame.view, frame.run, frame.attempts))
    }
}

/// Redrawn lines on standard error.
#[derive(Default)]
pub(super) struct Live {
    area: MultiProgress,
    lines: Vec<ProgressBar>,
}

impl Live {
    fn set(&mut self, texts: &[String]) {
        while self.lines.len() > texts.len() {
            if let Some(line) = self.lines.pop() {
                line.finish_and_clear();
                self.area.remove(&line);
            }
        }
        while self.lines.len() < texts.len() {
            let line = self.area.add(ProgressBar::new_spinner());
            // The template is a constant; a wrong one would show indicatif's default and nothing worse.
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                line.set_style(style);
            }
            self.lines.push(line);
        }
        for (line, text) in self.lines.iter().zip(texts) {
            // What did not change is not drawn again.
            if line.message() != *text {
                line.set_message(units::harmless(text));
                line.tick();
            }
        }
    }

    fn clear(&mut self) {
        self.set(&[]);
        if let Err(error) = self.area.clear() {
            note(&format!("the terminal could not be cleared: {error}"));
        }
    }
}

/// Appended lines on standard output: one for each change of state, and one a minute for each running attempt.
#[derive(Default)]
pub(super) struct Plain {
    told: HashMap<String, Told>,
    reason: Option<DateTime<Utc>>,
    any: bool,
}

/// What was last told of an attempt.
struct Told {
    state: AttemptState,
    figures: bool,
    at: DateTime<Utc>,
}

impl Plain {
    fn draw(&mut self, frame: &Frame<'_>) -> Outcome<()> {
        print(&self.lines(frame))
    }

    /// The lines that are due now.
    fn lines(&mut self, frame: &Frame<'_>) -> String {
        let now = frame.view.now;
        let mut text = String::new();
        if frame.attempts.is_empty() && !self.any {
            text.push_str(&stamped(frame.view, crate::text::run_word(frame.run.state())));
        }
        self.any = true;
        for attempt in frame.attempts {
            let figures = attempt.progress.is_some();
            let due = self.told.get(&attempt.name).is_none_or(|told| {
                let minute = attempt.state() == AttemptState::Running && now - told.at >= PLAIN_EVERY;
                // The first figures count as a change: many syncs are over within the first minute.
                told.state != attempt.state() || (figures && !told.figures) || minute
            });
            if due {
                let told = Told { state: attempt.state(), figures, at: now };
                self.told.insert(attempt.name.clone(), told);
                text.push_str(&stamped(frame.view, &lines::plain(frame.view, attempt)));
            }
        }
        match frame.reason {
            None => self.reason = None,
            Some(reason) if self.reason.is_none_or(|told| now - told >= PLAIN_EVERY) => {
                self.reason = Some(now);
                text.push_str(&stamped(frame.view, &units::clean(reason)));
            }
            Some(_) => {}
        }
        text
    }
}

/// A line with its time before it.
fn stamped(view: &View, text: &str) -> String {
    if view.absolute {
        format!("{} {text}\n", units::rfc3339(view.now))
    } else {
        format!("{} {text}\n", view.now.format("%H:%M:%S"))
    }
}

fn print(text: &str) -> Outcome<()> {
    use std::io::Write as _;
    if text.is_empty() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    out.write_all(units::harmless(text).as_bytes())
        .and_then(|()| out.flush())
        .map_err(|_| Fault::reader_gone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Activity;
    use mirror_proto::v1;

    fn view(seconds: i64) -> View {
        View {
            now: DateTime::from_timestamp(seconds, 0).unwrap(),
            width: 80,
            color: false,
            unicode: true,
            absolute: false,
            wide: false,
            terminal: false,
        }
    }

    #[test]
    fn plain_lines_come_with_changes_and_minutes() {
        let mut plain = Plain::default();
        let run = v1::Run { state: v1::run::State::Running.into(), ..v1::Run::default() };
        let attempt = |state: AttemptState, percent: Option<u32>| v1::Attempt {
            name: "projects/p/runs/r/attempts/1".to_owned(),
            agent: "agents/ftp1".to_owned(),
            role: v1::Role::Origin.into(),
            state: state.into(),
            progress: percent
                .map(|percent| v1::Progress { percent: Some(percent), ..v1::Progress::default() }),
            ..v1::Attempt::default()
        };
        let mut at = |seconds: i64, attempt: v1::Attempt| {
            let frame = Frame {
                view: &view(seconds),
                run: &run,
                attempts: &[attempt],
                reason: None,
                silence: &Activity::default(),
                lost: None,
            };
            plain.lines(&frame)
        };
        assert_eq!(at(0, attempt(AttemptState::Offered, None)), "00:00:00 origin ftp1 offered\n");
        assert_eq!(at(1, attempt(AttemptState::Offered, None)), "");
        assert_eq!(at(2, attempt(AttemptState::Running, None)), "00:00:02 origin ftp1 running\n");
        let first = at(3, attempt(AttemptState::Running, Some(5)));
        assert_eq!(first, "00:00:03 origin ftp1 running 5%, 0 of 0 files, 0 B, 0 B/s\n");
        assert_eq!(at(4, attempt(AttemptState::Running, Some(6))), "");
        assert!(
            at(63, attempt(AttemptState::Running, Some(70))).starts_with("00:01:03 origin ftp1 running 70%")
        );
        assert_eq!(
            at(64, attempt(AttemptState::Cancelled, None)),
            "00:01:04 origin ftp1 cancelled after ?\n"
        );
    }
}
