//! The lines of a watched run: live ones that are redrawn, and plain ones for files and pipes. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use mirror_proto::v1;
use mirror_proto::v1::attempt::State as AttemptState;
use mirror_proto::v1::progress::Phase;
use mirror_proto::v1::run::State as RunState;

use crate::names;
use crate::term::{Color, Sign, View, wrap};
use crate::text::run::{diagnosis, ended, move_over};
use crate::text::{attempt_word, class_word, role_word, run_color, run_sign, run_word, span, time};
use crate::units;

/// Columns of a full bar.
const BAR_WIDTH: usize = 31;
/// Columns of bar and rate together.
const BAR_AND_RATE_WIDTH: usize = 40;
/// Shorter agents' names are padded to this.
const AGENT_WIDTH_MIN: usize = 5;
/// Columns of the role and the blanks behind it.
const ROLE_WIDTH: usize = 9;
/// Silence shorter than this is not worth a word: one minute.
const SILENCE_MIN: TimeDelta = TimeDelta::minutes(1);

/// A run as it is now.
#[derive(Debug)]
pub struct Frame<'a> {
    /// How to draw.
    pub view: &'a View,
    /// The run.
    pub run: &'a v1::Run,
    /// Its attempts, in order.
    pub attempts: &'a [v1::Attempt],
    /// Why it waits, in a sentence.
    pub reason: Option<&'a str>,
    /// How long each attempt (by its name) has moved nothing.
    pub silence: &'a dyn Silence,
    /// How long the connection has been lost.
    pub lost: Option<TimeDelta>,
}

/// Knows how long an attempt has moved nothing.
pub trait Silence: std::fmt::Debug {
    /// The time since its figures last changed.
    fn of(&self, attempt: &str, now: DateTime<Utc>) -> TimeDelta;
}

/// The newest attempt of each placement, in order.
pub(crate) fn newest(attempts: &[v1::Attempt]) -> Vec<&v1::Attempt> {
    let mut shown: Vec<&v1::Attempt> = Vec::new();
    for attempt in attempts {
        shown.retain(|other| (other.role, &other.agent) != (attempt.role, &attempt.agent));
        shown.push(attempt);
    }
    shown.sort_by_key(|attempt| attempt.role);
    shown
}

/// The lines to draw now.
#[must_use]
pub fn live(frame: &Frame<'_>) -> Vec<String> {
    let attempts = newest(frame.attempts);
    let width = attempts.iter().map(|attempt| names::last(&attempt.agent).len()).max().unwrap_or(0);
    let width = width.max(AGENT_WIDTH_MIN);
    let mut lines: Vec<String> =
        attempts.iter().flat_map(|attempt| attempt_lines(frame, attempt, width)).collect();
    if lines.is_empty() {
        lines.push(format!("  {}", run_word(frame.run.state())));
    }
    if let Some(reason) = frame.reason {
        let reason = wrap(&units::clean(reason), frame.view.sentence_width().saturating_sub(2), 2);
        lines.extend(reason.lines().map(|line| format!("  {line}")));
    }
    if let Some(lost) = frame.lost {
        lines.push(format!("  {}", lost_text(lost)));
    }
    lines
}

/// What is said while there is no connection.
pub(super) fn lost_text(lost: TimeDelta) -> String {
    format!("connection lost {}, trying again; the sync itself goes on", units::age(lost))
}

fn attempt_lines(frame: &Frame<'_>, attempt: &v1::Attempt, agent_width: usize) -> Vec<String> {
    let view = frame.view;
    let agent = names::last(&attempt.agent);
    let head = format!("  {:ROLE_WIDTH$}{agent:agent_width$}  ", role_word(attempt.role()));
    let state = attempt.state();
    match state {
        AttemptState::Running => running_lines(frame, attempt, &head),
        AttemptState::Succeeded | AttemptState::Failed | AttemptState::Held | AttemptState::Cancelled => {
            let (sign, color) = sign_of(state);
            let line = format!("{} {}", view.sign(sign), ended(attempt));
            vec![format!("{head}{}", view.paint(color, &line))]
        }
        AttemptState::Pending => vec![format!("{head}{}", pending_text(view, attempt))],
        AttemptState::Unspecified | AttemptState::Offered | AttemptState::Cancelling | AttemptState::Lost => {
            vec![format!("{head}{}", attempt_word(state))]
        }
    }
}

const fn sign_of(state: AttemptState) -> (Sign, Option<Color>) {
    match state {
        AttemptState::Succeeded => (Sign::Good, Some(Color::Green)),
        AttemptState::Failed | AttemptState::Lost => (Sign::Bad, Some(Color::Red)),
        AttemptState::Held => (Sign::Held, Some(Color::Magenta)),
        AttemptState::Unspecified
        | AttemptState::Pending
        | AttemptState::Offered
        | AttemptState::Running
        | AttemptState::Cancelling
        | AttemptState::Cancelled => (Sign::Warning, Some(Color::Yellow)),
    }
}

/// `queued`, or when the next try starts.
fn pending_text(view: &View, attempt: &v1::Attempt) -> String {
    match time(attempt.retry_time) {
        Some(retry) => {
            let number = names::last(&attempt.name);
            format!("queued: try {number} starts at {}", units::moment_and_distance(retry, view.now))
        }
        None => "queued".to_owned(),
    }
}

fn running_lines(frame: &Frame<'_>, attempt: &v1::Attempt, head: &str) -> Vec<String> {
    let view = frame.view;
    let Some(progress) = &attempt.progress else { return vec![format!("{head}running")] };
    let took = time(attempt.start_time).map(|start| units::duration(view.now - start)).unwrap_or_default();
    let indent = " ".repeat(head.chars().count());
    let silence = frame.silence.of(&attempt.name, view.now);
    let silent = (silence >= SILENCE_MIN).then(|| format!("   no new bytes for {}", units::age(silence)));
    if progress.phase() == Phase::Verify {
        return vec![format!("{head}{}   {took}", comparing(progress))];
    }
    let Some(percent) = progress.percent.filter(|_| !progress.total_grows) else {
        // A total that still grows has no bar and no estimate.
        let line = format!("{head}running  {}   {took}", counting(progress));
        return std::iter::once(line + silent.as_deref().unwrap_or_default()).collect();
    };
    let rate = units::rate(progress.rate_bytes);
    // A full bar leaves a blank before the rate.
    let bar: String =
        bar(view, percent).chars().take(BAR_AND_RATE_WIDTH.saturating_sub(rate.len() + 1)).collect();
    let fill = BAR_AND_RATE_WIDTH.saturating_sub(bar.chars().count() + rate.len());
    let eta = span(progress.eta).map(|eta| format!("  ETA {}", units::age(eta))).unwrap_or_default();
    let word = view.paint(Some(Color::Blue), "running");
    let first = format!("{head}{word} {percent:3}% {bar}{}{rate}{eta}", " ".repeat(fill));
    let second = format!(
        "{indent}files {} of {}   {}   {took}{}",
        units::count(progress.files_done),
        units::count(progress.files_total),
        units::bytes(progress.bytes_done),
        silent.unwrap_or_default(),
    );
    vec![first, second]
}

/// `comparing 63%, 2.71 TiB read, 412 MiB/s, ETA 3m`.
pub(crate) fn comparing(progress: &v1::Progress) -> String {
    let percent = progress.percent.map(|percent| format!(" {percent}%")).unwrap_or_default();
    let eta = span(progress.eta).map(|eta| format!(", ETA {}", units::age(eta))).unwrap_or_default();
    let (read, rate) = (units::bytes(progress.bytes_done), units::rate(progress.rate_bytes));
    format!("comparing{percent}, {read} read, {rate}{eta}")
}

/// `81,220 files so far, 61.2 GiB, still counting`.
fn counting(progress: &v1::Progress) -> String {
    format!(
        "{} files so far, {}, still counting",
        units::count(progress.files_done.max(progress.files_total)),
        units::bytes(progress.bytes_done)
    )
}

/// A bar in eighths of a column, or of `#` where the locale is not UTF-8.
fn bar(view: &View, percent: u32) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = BAR_WIDTH * 8 * percent.min(100) as usize / 100;
    if view.unicode {
        format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8])
    } else {
        "#".repeat(eighths / 8)
    }
}

/// One plain line about an attempt, without its time.
#[must_use]
pub fn plain(view: &View, attempt: &v1::Attempt) -> String {
    let head = format!("{} {}", role_word(attempt.role()), names::last(&attempt.agent));
    let state = attempt.state();
    match (state, &attempt.progress) {
        (AttemptState::Running, Some(progress)) => format!("{head} running {}", figures(progress)),
        (AttemptState::Pending, _) => format!("{head} {}", pending_text(view, attempt)),
        (
            AttemptState::Succeeded | AttemptState::Failed | AttemptState::Held | AttemptState::Cancelled,
            _,
        ) => format!("{head} {}", ended(attempt)),
        _ => format!("{head} {}", attempt_word(state)),
    }
}

/// `63%, 281,904 of 447,000 files, 86.1 GiB, 412 MiB/s, ETA 3m`.
fn figures(progress: &v1::Progress) -> String {
    if progress.phase() == Phase::Verify {
        return comparing(progress);
    }
    let Some(percent) = progress.percent.filter(|_| !progress.total_grows) else { return counting(progress) };
    let eta = span(progress.eta).map(|eta| format!(", ETA {}", units::age(eta))).unwrap_or_default();
    format!(
        "{percent}%, {} of {} files, {}, {}{eta}",
        units::count(progress.files_done),
        units::count(progress.files_total),
        units::bytes(progress.bytes_done),
        units::rate(progress.rate_bytes),
    )
}

/// The last lines: how it ended.
#[must_use]
pub fn verdict(view: &View, run: &v1::Run, attempts: &[v1::Attempt]) -> String {
    let project = names::project_of(&run.name);
    let state = run.state();
    let sign = view.paint(run_color(state), view.sign(run_sign(state)));
    let origin = newest(attempts).into_iter().find(|attempt| attempt.role() == v1::Role::Origin);
    let origin = origin.or(run.origin_attempt.as_ref());
    let on = origin.map(|attempt| format!(" on {}", names::last(&attempt.agent))).unwrap_or_default();
    let begun = time(run.start_time).or_else(|| time(run.create_time));
    let took = begun
        .map(|start| units::duration(time(run.end_time).unwrap_or(view.now) - start))
        .unwrap_or_default();
    let mut text = match state {
        RunState::Succeeded if run.dry_run => {
            format!("{sign} {project}: the dry run is done after {took}; nothing was changed")
        }
        RunState::Succeeded if !run.reseed_from.is_empty() => {
            let donor = names::last(&run.reseed_from);
            let target = run.origin_attempt.as_ref().map_or("", |attempt| names::last(&attempt.agent));
            format!("{sign} {project}: {target} has the tree of {donor}, {took} in all")
        }
        RunState::Succeeded if !run.move_to.is_empty() => {
            format!("{sign} {project}: its tree{on} lives at {} now, {took} in all", run.move_to)
        }
        RunState::Succeeded => {
            format!(
                "{sign} {project}: {} tree {}, {took} in all",
                holders(attempts),
                names::short_run(&run.name)
            )
        }
        RunState::Failed => {
            let class = origin.and_then(|attempt| attempt.outcome.as_ref()).map(|outcome| outcome.class());
            let class = class.map(|class| format!(" ({})", class_word(class))).unwrap_or_default();
            format!("{sign} {project}: failed{class}{on} after {took}")
        }
        other => format!("{sign} {project}: {}{on} after {took}", run_word(other)),
    };
    text.push('\n');
    if matches!(state, RunState::Failed | RunState::Held) {
        for attempt in newest(attempts) {
            let Some(diagnosis) = diagnosis(attempt) else { continue };
            let line = format!("  {}: {}", names::last(&attempt.agent), units::clean(&diagnosis));
            text.push_str(&view.wrap_keeping(&line, 4));
            text.push('\n');
        }
    }
    if !run.move_to.is_empty() {
        text.push_str(&view.wrap_keeping(&format!("  {}", move_over(run)), 2));
        text.push('\n');
    }
    for agent in &run.missed {
        let agent = names::last(agent);
        text.push_str(&format!(
            "{} {agent} missed it and will catch up by itself.\n",
            view.sign(Sign::Warning)
        ));
    }
    text
}

/// `origin has`, `origin and 2 of 3 replicas have`.
fn holders(attempts: &[v1::Attempt]) -> String {
    let replicas: Vec<_> =
        newest(attempts).into_iter().filter(|attempt| attempt.role() == v1::Role::Replica).collect();
    let good = replicas.iter().filter(|attempt| attempt.state() == AttemptState::Succeeded).count();
    match replicas.len() {
        0 => "origin has".to_owned(),
        all => format!("origin and {good} of {all} replicas have"),
    }
}
