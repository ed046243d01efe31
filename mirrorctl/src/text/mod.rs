//! Messages of the API for people. Each printer is a pure function of the messages and the [`View`]; `tests/out`
//! holds what they print.

pub mod agent;
pub mod audit;
pub mod check;
pub mod hold;
pub mod plan;
pub mod project;
pub mod run;
pub mod status;
pub mod upstream;
pub mod user;

use chrono::{DateTime, TimeDelta, Utc};
use fleet::schedule::CronFields;
use mirror_proto::v1;
use mirror_proto::v1::attempt::State as AttemptState;
use mirror_proto::v1::outcome::Class;
use mirror_proto::v1::run::State as RunState;
use mirror_proto::v1::schedule::Cadence;
use prost_types::{Duration, Timestamp};

use crate::term::{Color, Sign, View};
use crate::units;

/// A time of the wire.
#[must_use]
pub fn time(timestamp: Option<Timestamp>) -> Option<DateTime<Utc>> {
    let timestamp = timestamp?;
    DateTime::from_timestamp(timestamp.seconds, u32::try_from(timestamp.nanos).unwrap_or(0))
}

/// A span of the wire, in whole seconds.
#[must_use]
pub fn span(duration: Option<Duration>) -> Option<TimeDelta> {
    TimeDelta::try_seconds(duration?.seconds)
}

/// How long ago, or with `--absolute` when; `-` for never.
#[must_use]
pub fn since(view: &View, timestamp: Option<Timestamp>) -> String {
    match time(timestamp) {
        None => "-".to_owned(),
        Some(time) if view.absolute => units::rfc3339(time),
        Some(time) => units::age(view.now - time),
    }
}

/// How far ahead: `07:55`, or with `--absolute` when; `-` for never.
#[must_use]
pub fn ahead(view: &View, timestamp: Option<Timestamp>) -> String {
    match time(timestamp) {
        None => "-".to_owned(),
        Some(time) if view.absolute => units::rfc3339(time),
        Some(time) => units::clock(time, view.now),
    }
}

/// A run's state as a word.
#[must_use]
pub const fn run_word(state: RunState) -> &'static str {
    match state {
        RunState::Unspecified => "-",
        RunState::Queued => "queued",
        RunState::Running => "running",
        RunState::Propagating => "propagating",
        RunState::Succeeded => "succeeded",
        RunState::Failed => "failed",
        RunState::Held => "held",
        RunState::Cancelled => "cancelled",
    }
}

/// A run's state as a sign.
#[must_use]
pub const fn run_sign(state: RunState) -> Sign {
    match state {
        RunState::Succeeded => Sign::Good,
        RunState::Failed => Sign::Bad,
        RunState::Held => Sign::Held,
        RunState::Running | RunState::Propagating => Sign::Running,
        RunState::Unspecified | RunState::Queued | RunState::Cancelled => Sign::Warning,
    }
}

/// A run's state as a colour.
#[must_use]
pub const fn run_color(state: RunState) -> Option<Color> {
    match state {
        RunState::Succeeded => Some(Color::Green),
        RunState::Failed => Some(Color::Red),
        RunState::Held => Some(Color::Magenta),
        RunState::Running | RunState::Propagating => Some(Color::Blue),
        RunState::Cancelled => Some(Color::Yellow),
        RunState::Unspecified | RunState::Queued => None,
    }
}

/// An attempt's state as a word.
#[must_use]
pub const fn attempt_word(state: AttemptState) -> &'static str {
    match state {
        AttemptState::Unspecified => "-",
        AttemptState::Pending => "pending",
        AttemptState::Offered => "offered",
        AttemptState::Running => "running",
        AttemptState::Cancelling => "cancelling",
        AttemptState::Succeeded => "succeeded",
        AttemptState::Failed => "failed",
        AttemptState::Held => "held",
        AttemptState::Cancelled => "cancelled",
        AttemptState::Lost => "lost",
    }
}

/// A role as a word.
#[must_use]
pub const fn role_word(role: v1::Role) -> &'static str {
    match role {
        v1::Role::Unspecified => "-",
        v1::Role::Origin => "origin",
        v1::Role::Replica => "replica",
    }
}

/// How an attempt ended, in one or two words.
#[must_use]
pub const fn class_word(class: Class) -> &'static str {
    match class {
        Class::Unspecified => "unknown",
        Class::Ok => "ok",
        Class::Partial => "partial",
        Class::MaxDelete => "delete limit",
        Class::Busy => "upstream busy",
        Class::Auth => "login refused",
        Class::NotFound => "not found",
        Class::Refused => "refused",
        Class::DiskFull => "disk full",
        Class::LocalIo => "local disk",
        Class::Internal => "internal",
        Class::Timeout => "timeout",
        Class::Stalled => "stalled",
        Class::WallClock => "time limit",
        Class::Network => "network",
        Class::Protocol => "protocol",
        Class::Cancelled => "cancelled",
        Class::Config => "configuration",
        Class::RejectedByAgent => "rejected by the agent",
        Class::Interrupted => "interrupted",
        Class::Guard => "guard",
        Class::UpstreamBehind => "upstream behind",
    }
}

/// A schedule as it would be typed: `minute=10 hour=*/6`, `every 4h`, `manual`.
#[must_use]
pub fn cadence(schedule: Option<&v1::Schedule>) -> String {
    match schedule.and_then(|schedule| schedule.cadence.as_ref()) {
        Some(Cadence::Cron(cron)) => cron_text(cron),
        Some(Cadence::Crontab(line)) => line.clone(),
        Some(Cadence::Interval(interval)) => {
            format!("every {}", span(interval.every).map_or_else(|| "?".to_owned(), units::span))
        }
        Some(Cadence::Manual(())) | None => "manual".to_owned(),
    }
}

fn cron_text(cron: &v1::Cron) -> String {
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    CronFields {
        year: given(&cron.year),
        month: given(&cron.month),
        day: given(&cron.day),
        week: given(&cron.week),
        day_of_week: given(&cron.day_of_week),
        hour: given(&cron.hour),
        minute: given(&cron.minute),
        second: given(&cron.second),
    }
    .to_string()
}

/// The host of `rsync://user@host:port/module`.
#[must_use]
pub fn host(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// `1 file`, `2 files`.
#[must_use]
pub fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", units::count(number), if number == 1 { one } else { many })
}

/// Lines of a block below a headline: `  label      text`, continued below the text on a terminal.
#[must_use]
pub fn block(view: &View, lines: &[(&str, String)]) -> String {
    /// Columns of the labels at least, blanks included, as in the samples.
    const LABEL_WIDTH_MIN: usize = 10;
    let width = lines.iter().map(|(label, _)| label.len() + 2).max().unwrap_or(0).max(LABEL_WIDTH_MIN);
    let mut text = String::new();
    for (label, value) in lines {
        let line = format!("  {label:width$}{}", units::clean(value));
        text.push_str(&view.wrap_keeping(&line, width + 2));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (uri, expect) in [
            ("rsync://syncproxy.debian.org/debian/", "syncproxy.debian.org"),
            ("rsync://me@cpan.example.net:8873/CPAN", "cpan.example.net"),
            ("rsync://[2001:db8::1]:873/m", "[2001:db8::1]"),
            ("rsync://[2001:db8::1]/m", "[2001:db8::1]"),
            ("rsync://127.0.0.1:4711/m", "127.0.0.1"),
        ] {
            assert_eq!(host(uri), expect);
        }
    }

    #[test]
    fn cadences_read_as_typed() {
        let schedule = |cadence| v1::Schedule { cadence: Some(cadence), ..v1::Schedule::default() };
        let cron = v1::Cron { minute: "10".into(), hour: "*/6".into(), ..v1::Cron::default() };
        assert_eq!(cadence(Some(&schedule(Cadence::Cron(cron)))), "minute=10 hour=*/6");
        let every = v1::Interval { every: Some(Duration { seconds: 14_400, nanos: 0 }), from: 0 };
        assert_eq!(cadence(Some(&schedule(Cadence::Interval(every)))), "every 4h");
        assert_eq!(cadence(None), "manual");
    }
}
