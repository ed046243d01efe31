//! From flags to requests. Pure: what is wrong with a flag is noted, not thrown, so that all faults are told at once;
//! what is wrong with a value is the coordinator's to say.

mod list;
mod rsync;
mod schedule;
mod selector;

use chrono::{DateTime, TimeDelta, Utc};
use fleet::marker::{Marker, MarkerKind};
use fleet::schedule::{parse_date, parse_span};
use mirror_proto::v1;
use prost_types::{Duration, Timestamp};

use crate::cli::ProjectFlags;
use crate::fault::Faults;
use crate::names;

pub use list::{agent_filter, project_filter};
pub use selector::Selector;

/// Passwords that go along with a project. They were read before, since that needs the outside world.
#[derive(Clone, Default)]
pub struct Passwords {
    /// At the first upstream; `None`: none is sent.
    pub first: Option<String>,
    /// At the fallbacks of these hosts.
    pub fallbacks: Vec<(String, String)>,
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passwords").finish_non_exhaustive()
    }
}

/// Puts the given flags into a project and names what they touched, as an update mask's paths.
pub fn apply(
    flags: &ProjectFlags,
    passwords: Passwords,
    project: &mut v1::Project,
    faults: &mut Faults,
) -> Vec<&'static str> {
    let mut mask = Vec::new();
    if let Some(display_name) = &flags.display_name {
        project.display_name.clone_from(display_name);
        mask.push("display_name");
    }
    if !flags.after.is_empty() {
        project.after = given(&flags.after).map(|name| names::project(name)).collect();
        mask.push("after");
    }
    if let Some(owner) = &flags.owner {
        project.owner = if owner.is_empty() { String::new() } else { names::user(owner) };
        mask.push("owner");
    }
    if !flags.labels.is_empty() {
        labels(&flags.labels, project, faults);
        mask.push("labels");
    }
    if flags.local {
        project.upstreams.clear();
        mask.push("upstreams");
    } else if upstreams(flags, passwords, project, faults) {
        mask.push("upstreams");
    }
    if let Some(destination) = &flags.to {
        project.destination.clone_from(destination);
        mask.push("destination");
    }
    if let Some(link) = &flags.link {
        project.publish = Some(v1::PublishSettings { link: link.clone() });
        mask.push("publish.link");
    }
    if schedule::flags(flags, project, faults) {
        mask.push("schedule");
    }
    if rsync::flags(flags, project, faults) {
        mask.push("rsync");
    }
    if placement(flags, project, faults) {
        mask.push("placement");
    }
    if guard(flags, project, faults) {
        mask.push("guard");
    }
    if let Some(text) = &flags.marker {
        project.marker = if text.is_empty() { None } else { faults.check("--marker", marker(text)) };
        mask.push("marker");
    }
    if retry(flags, project, faults) {
        mask.push("retry");
    }
    mask
}

/// A time, or a span from now on.
///
/// # Errors
/// A text that is neither.
pub fn time_or_span(text: &str, now: DateTime<Utc>) -> Result<Timestamp, String> {
    let wrong = || format!("{text:?}: a time (RFC 3339, 2026-11-20 18:00) or a span (3d)");
    let time = match parse_span(text) {
        Ok(seconds) => i64::try_from(seconds).ok().and_then(TimeDelta::try_seconds).map(|span| now + span),
        Err(_) => parse_date(text, None).ok().map(|date| date.time),
    };
    time.map(timestamp).ok_or_else(wrong)
}

/// A time, or a span before now.
///
/// # Errors
/// A text that is neither.
pub fn time_or_ago(text: &str, now: DateTime<Utc>) -> Result<Timestamp, String> {
    let wrong = || format!("{text:?}: a time (RFC 3339, 2026-11-20 18:00) or how long ago (2d)");
    let time = match parse_span(text) {
        Ok(seconds) => i64::try_from(seconds)
            .ok()
            .and_then(TimeDelta::try_seconds)
            .and_then(|span| now.checked_sub_signed(span)),
        Err(_) => parse_date(text, None).ok().map(|date| date.time),
    };
    time.map(timestamp).ok_or_else(wrong)
}

/// A time of the wire.
#[must_use]
pub fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp { seconds: time.timestamp(), nanos: 0 }
}

/// A span as typed, or a noted fault.
pub fn span(text: &str, flag: &str, faults: &mut Faults) -> Option<Duration> {
    let seconds = faults.check(flag, parse_span(text))?;
    Some(Duration { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 })
}

fn number(text: &str, flag: &str, faults: &mut Faults) -> Option<u64> {
    faults.check(flag, text.parse().map_err(|_| format!("{text:?}: a number of digits only")))
}

fn labels(given: &[String], project: &mut v1::Project, faults: &mut Faults) {
    for (key, value) in label_changes(given, faults) {
        match value {
            Some(value) => drop(project.labels.insert(key, value)),
            None => drop(project.labels.remove(&key)),
        }
    }
}

/// Labels as typed: `KEY=VALUE` sets one, `KEY-` removes one.
pub fn label_changes(given: &[String], faults: &mut Faults) -> Vec<(String, Option<String>)> {
    let mut changes = Vec::with_capacity(given.len());
    for label in given {
        match (label.split_once('='), label.strip_suffix('-')) {
            (Some((key, value)), _) if !key.is_empty() => {
                changes.push((key.to_owned(), Some(value.to_owned())));
            }
            (None, Some(key)) if !key.is_empty() => changes.push((key.to_owned(), None)),
            _ => faults.add("--label", format_args!("{label:?}: write KEY=VALUE, or KEY- to remove it")),
        }
    }
    changes
}

/// Whether any flag about the upstreams was given.
fn upstreams(
    flags: &ProjectFlags,
    passwords: Passwords,
    project: &mut v1::Project,
    faults: &mut Faults,
) -> bool {
    let Passwords { first: password, fallbacks } = passwords;
    let one = flags.from.is_some() || flags.user.is_some() || password.is_some();
    if !one && flags.fallback.is_empty() && fallbacks.is_empty() {
        return false;
    }
    // One that changes its place keeps its user.
    let old = project.upstreams.clone();
    let same = |a: &str, b: &str| a.trim_end_matches('/') == b.trim_end_matches('/');
    let known = |uri: &String| old.iter().find(|known| same(&known.uri, uri)).cloned();
    if project.upstreams.is_empty() {
        project.upstreams.push(v1::Upstream::default());
    }
    let upstream = &mut project.upstreams[0];
    if let Some(uri) = &flags.from {
        *upstream = known(uri).unwrap_or_else(|| v1::Upstream { uri: uri.clone(), ..upstream.clone() });
    }
    if let Some(user) = &flags.user {
        upstream.user.clone_from(user);
    }
    if password.is_some() {
        upstream.password = password;
    }
    if !flags.fallback.is_empty() {
        let new = |uri: &String| v1::Upstream { uri: uri.clone(), ..v1::Upstream::default() };
        let fallbacks = given(&flags.fallback).map(|uri| known(uri).unwrap_or_else(|| new(uri)));
        project.upstreams.truncate(1);
        project.upstreams.extend(fallbacks);
    }
    for (host, password) in fallbacks {
        let at_host = |one: &&mut v1::Upstream| crate::text::host(&one.uri).eq_ignore_ascii_case(&host);
        let mut meant = project.upstreams.iter_mut().skip(1).filter(at_host).peekable();
        if meant.peek().is_none() {
            faults.add("--fallback-password-file", format_args!("{host:?}: no fallback has this host"));
        }
        meant.for_each(|one| one.password = Some(password.clone()));
    }
    true
}

/// Whether any flag about the agents that hold the tree was given.
fn placement(flags: &ProjectFlags, project: &mut v1::Project, faults: &mut Faults) -> bool {
    let mut settings = project.placement.clone().unwrap_or_default();
    let before = settings.clone();
    if let Some(origin) = &flags.origin {
        let target = named(origin);
        settings.origins.retain(|known| known.agent != target.agent);
        // Who pulled before does so no longer, and who stands by still does.
        if settings.origins.len() == before.origins.len() && !settings.origins.is_empty() {
            settings.origins.remove(0);
        }
        settings.origins.insert(0, target);
    }
    if !flags.standby.is_empty() {
        settings.origins.truncate(1);
        settings.origins.extend(given(&flags.standby).map(|standby| named(standby)));
    }
    if !flags.replicas.is_empty() {
        settings.replicas = given(&flags.replicas).map(|replicas| picked(replicas)).collect();
    }
    if let Some(text) = &flags.max_parallel {
        let parsed = text.parse().map_err(|_| format!("{text:?}: a number from 0 to 1000"));
        settings.max_parallel = faults.check("--max-parallel", parsed).unwrap_or_default();
    }
    for (text, flag, field) in [
        (&flags.propagation_timeout, "--propagation-timeout", &mut settings.propagation_timeout),
        (&flags.drain_timeout, "--drain-timeout", &mut settings.drain_timeout),
    ] {
        if let Some(text) = text {
            *field = span(text, flag, faults);
        }
    }
    let any = flags.origin.is_some()
        || !(flags.standby.is_empty() && flags.replicas.is_empty())
        || [&flags.max_parallel, &flags.propagation_timeout, &flags.drain_timeout]
            .into_iter()
            .any(Option::is_some);
    if any {
        project.placement = Some(settings);
    }
    any
}

/// The values that were given; a single empty one stands for none.
fn given(texts: &[String]) -> impl Iterator<Item = &String> {
    texts.iter().filter(move |text| texts.len() > 1 || !text.is_empty())
}

/// `AGENT`, or `AGENT=ROOT:PATH` where the tree lies elsewhere than on the others.
fn named(text: &str) -> v1::PlacementTarget {
    let (agent, destination) = text.split_once('=').unwrap_or((text, ""));
    v1::PlacementTarget {
        agent: crate::names::agent(agent),
        destination: destination.to_owned(),
        ..Default::default()
    }
}

/// An agent as [`named`], or labels: a destination has a colon.
fn picked(text: &str) -> v1::PlacementTarget {
    match text.split_once('=') {
        Some((_, value)) if !value.contains(':') => {
            v1::PlacementTarget { selector: text.to_owned(), ..Default::default() }
        }
        _ => named(text),
    }
}

/// Whether any flag about guards was given.
fn guard(flags: &ProjectFlags, project: &mut v1::Project, faults: &mut Faults) -> bool {
    let mut settings = project.guard.clone().unwrap_or_default();
    let mut given = false;
    if let Some(text) = &flags.max_delete {
        given = true;
        settings.max_delete = number(text, "--max-delete", faults);
    }
    if let Some(text) = &flags.shrink_percent {
        given = true;
        let parsed = text.parse().map_err(|_| format!("{text:?}: a number from 1 to 100"));
        settings.shrink_percent = faults.check("--shrink-percent", parsed);
    }
    if !flags.sentinels.is_empty() {
        given = true;
        let none = flags.sentinels == [""];
        settings.sentinels = if none { Vec::new() } else { flags.sentinels.clone() };
    }
    if let Some(text) = &flags.quota {
        given = true;
        settings.quota_bytes = number(text, "--quota", faults).unwrap_or_default();
    }
    if given {
        project.guard = Some(settings);
    }
    given
}

/// `KIND:PATH`.
fn marker(text: &str) -> Result<v1::Marker, String> {
    let (kind, path) = text.split_once(':').ok_or_else(|| {
        format!("{text:?}: write KIND:PATH, as in debian_trace:project/trace/ftp.example.net")
    })?;
    let kind: MarkerKind = kind.parse().map_err(|bad| format!("{kind:?}: {bad}"))?;
    Ok(mirror_proto::convert::marker_to_wire(&Marker { kind, path: path.to_owned() }))
}

/// Whether any flag about retries was given.
fn retry(flags: &ProjectFlags, project: &mut v1::Project, faults: &mut Faults) -> bool {
    let mut settings = project.retry.clone().unwrap_or_default();
    if let Some(text) = &flags.retry_attempts {
        let parsed = text.parse().map_err(|_| format!("{text:?}: a number from 1 to 20"));
        settings.attempts = faults.check("--retry-attempts", parsed).unwrap_or_default();
    }
    if let Some(text) = &flags.retry_backoff {
        settings.initial_backoff = span(text, "--retry-backoff", faults);
    }
    if let Some(reason) = &flags.partial_is_success {
        settings.treat_partial_as_success.clone_from(reason);
    }
    let given =
        flags.retry_attempts.is_some() || flags.retry_backoff.is_some() || flags.partial_is_success.is_some();
    if given {
        project.retry = Some(settings);
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, ProjectCommand};
    use clap::Parser as _;
    use mirror_proto::v1::schedule::Cadence;

    pub(super) fn flags(words: &str) -> ProjectFlags {
        let argv = ["mirrorctl", "project", "add", "debian"].into_iter().chain(words.split('|'));
        match Cli::try_parse_from(argv.filter(|word| !word.is_empty())).unwrap().command {
            Command::Project(ProjectCommand::Add(add)) => add.flags,
            other => panic!("{other:?}"),
        }
    }

    fn applied(words: &str) -> (v1::Project, Vec<&'static str>, Vec<String>) {
        let mut project = v1::Project::default();
        let mut faults = Faults::default();
        let mask = apply(&flags(words), Passwords::default(), &mut project, &mut faults);
        let faults = match faults.finish("x", "y") {
            Ok(()) => Vec::new(),
            Err(fault) => fault.details.into_iter().map(|(label, text)| format!("{label} {text}")).collect(),
        };
        (project, mask, faults)
    }

    #[test]
    fn the_issues_own_line() {
        let (project, mask, faults) = applied(
            "--from|rsync://host/mod/path|--to|a1:debian|--origin|edge1|--cron|minute=*/5|--rsync-option=--exclude=/iso/\
             |--rsync-option=-H",
        );
        assert_eq!(faults, [""; 0]);
        assert_eq!(project.upstreams[0].uri, "rsync://host/mod/path");
        assert_eq!(project.destination, "a1:debian");
        assert_eq!(project.placement.unwrap().origins[0].agent, "agents/edge1");
        assert_eq!(project.rsync.unwrap().options, ["--exclude=/iso/", "-H"]);
        let Some(Cadence::Cron(cron)) = project.schedule.unwrap().cadence else { panic!("no cron") };
        assert_eq!((cron.minute.as_str(), cron.hour.as_str()), ("*/5", ""));
        assert_eq!(mask, ["upstreams", "destination", "schedule", "rsync", "placement"]);
    }

    #[test]
    fn every_flag_has_its_field() {
        let (project, mask, faults) = applied(
            "--every|6h|--time-zone|Europe/Berlin|--start|2026-12-01|--end|2027-01-01|--jitter|5m|--overlap|skip\
             |--catch-up|1d|--dst-overlap|both|--no-default-options|--connect-timeout|30s|--io-timeout|5m\
             |--stall-timeout|1h|--run-timeout|2d|--bandwidth|1000|--max-delete|40000|--retry-attempts|2\
             |--shrink-percent|40|--sentinel|dists|--sentinel|pool|--quota|5000|--marker|mtime:fullfiletimelist-epel|--partial-is-success|known\
             |--retry-backoff|1m|--window|22:00-06:00|--window|01:00-02:00 sat,sun|-l|tier=1|--display-name|Debian GNU|--user|mirror\
             |--link|pub:debian|--after|base|--after|extra",
        );
        assert_eq!(faults, [""; 0]);
        assert_eq!(project.after, ["projects/base", "projects/extra"]);
        let schedule = project.schedule.unwrap();
        assert_eq!(schedule.jitter.unwrap().seconds, 300);
        assert_eq!(schedule.catch_up_window.unwrap().seconds, 86_400);
        assert_eq!(schedule.overlap_policy(), v1::OverlapPolicy::Skip);
        assert_eq!(schedule.dst_overlap(), v1::DstOverlap::Both);
        assert_eq!((schedule.start_time.as_str(), schedule.end_time.as_str()), ("2026-12-01", "2027-01-01"));
        let windows: Vec<_> =
            schedule.windows.iter().map(|one| (one.start.as_str(), one.days_of_week.len())).collect();
        assert_eq!(windows, [("22:00", 0), ("01:00", 2)]);
        let rsync = project.rsync.unwrap();
        assert!(rsync.no_defaults && rsync.bandwidth_limit_kib == 1000);
        assert_eq!(rsync.run_timeout.unwrap().seconds, 172_800);
        let guard = project.guard.unwrap();
        assert_eq!(
            (guard.max_delete, guard.shrink_percent, guard.quota_bytes),
            (Some(40_000), Some(40), 5_000)
        );
        assert_eq!(guard.sentinels, ["dists", "pool"]);
        let marker = project.marker.unwrap();
        assert_eq!((marker.kind(), marker.path.as_str()), (v1::marker::Kind::Mtime, "fullfiletimelist-epel"));
        let retry = project.retry.unwrap();
        assert_eq!((retry.attempts, retry.treat_partial_as_success.as_str()), (2, "known"));
        assert_eq!(project.labels["tier"], "1");
        assert_eq!(project.upstreams[0].user, "mirror");
        assert_eq!(project.publish.unwrap().link, "pub:debian");
        let touched = [
            "display_name",
            "after",
            "labels",
            "upstreams",
            "publish.link",
            "schedule",
            "rsync",
            "guard",
            "marker",
            "retry",
        ];
        assert_eq!(mask, touched);
    }

    #[test]
    fn replicas_are_named_or_selected() {
        let words = "--origin|ftp1|--standby|ftp2|--standby|ftp3=a2:deb|--replicas|role=edge,site=north\
                     |--replicas|edge2|--replicas|edge3=a2:deb|--max-parallel|2|--propagation-timeout|2h\
                     |--drain-timeout|0s";
        let (project, mask, _) = applied(words);
        assert_eq!(mask, ["placement"]);
        let placement = project.placement.unwrap();
        let told = |target: &v1::PlacementTarget| {
            format!("{} {} {}", target.agent, target.selector, target.destination).trim().to_owned()
        };
        let origins: Vec<String> = placement.origins.iter().map(told).collect();
        assert_eq!(origins, ["agents/ftp1", "agents/ftp2", "agents/ftp3  a2:deb"]);
        let replicas: Vec<String> = placement.replicas.iter().map(told).collect();
        assert_eq!(replicas, ["role=edge,site=north", "agents/edge2", "agents/edge3  a2:deb"]);
        assert_eq!(placement.max_parallel, 2);
        assert_eq!(placement.propagation_timeout.unwrap().seconds, 7_200);
    }

    #[test]
    fn fallbacks_stand_behind_the_first_upstream() {
        let (mut project, mask, _) =
            applied("--from|rsync://a/m/|--user|me|--fallback|rsync://b/m|--fallback|rsync://u@c/m/");
        assert_eq!(mask, ["upstreams"]);
        let told = |project: &v1::Project| -> Vec<String> {
            project
                .upstreams
                .iter()
                .map(|one| format!("{} {}", one.uri, one.user).trim().to_owned())
                .collect()
        };
        assert_eq!(told(&project), ["rsync://a/m/ me", "rsync://b/m", "rsync://u@c/m/"]);
        let mut edit = |words: &str, fallbacks: &[(&str, &str)]| {
            let fallbacks =
                fallbacks.iter().map(|(host, word)| ((*host).to_owned(), (*word).to_owned())).collect();
            let mut faults = Faults::default();
            apply(&flags(words), Passwords { first: None, fallbacks }, &mut project, &mut faults);
            (project.clone(), faults.is_empty())
        };
        let (edited, good) = edit("", &[("C", "secret")]);
        let passwords: Vec<_> = edited.upstreams.iter().map(|one| one.password.as_deref()).collect();
        assert!(good && passwords == [None, None, Some("secret")], "{passwords:?}");
        assert!(!edit("", &[("a", "secret")]).1, "the first one is no fallback");
        // Who changes places keeps what is known of it.
        let (edited, _) = edit("--from|rsync://b/m/|--fallback|rsync://a/m", &[]);
        assert_eq!(told(&edited), ["rsync://b/m", "rsync://a/m/ me"]);
        let (edited, _) = edit("--fallback=", &[]);
        assert_eq!(told(&edited), ["rsync://b/m"]);
    }

    #[test]
    fn an_edit_of_the_origin_keeps_the_others() {
        let (mut project, ..) =
            applied("--from|rsync://h/m|--origin|ftp1|--standby|ftp2|--replicas|role=edge");
        let agents = |project: &v1::Project| -> Vec<String> {
            let origins = &project.placement.as_ref().unwrap().origins;
            origins.iter().map(|one| crate::names::last(&one.agent).to_owned()).collect()
        };
        apply(&flags("--origin|ftp3"), Passwords::default(), &mut project, &mut Faults::default());
        assert_eq!(agents(&project), ["ftp3", "ftp2"]);
        apply(&flags("--origin|ftp2"), Passwords::default(), &mut project, &mut Faults::default());
        assert_eq!(agents(&project), ["ftp2", "ftp3"]);
        let mask = apply(
            &flags("--standby=|--replicas="),
            Passwords::default(),
            &mut project,
            &mut Faults::default(),
        );
        assert_eq!(mask, ["placement"]);
        assert_eq!(agents(&project), ["ftp2"]);
        assert_eq!(project.placement.as_ref().unwrap().replicas.len(), 0);
        assert_eq!(
            apply(&flags("--local"), Passwords::default(), &mut project, &mut Faults::default()),
            ["upstreams"]
        );
        assert!(project.upstreams.is_empty());
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let (_, _, faults) = applied(
            "--cron|minut=5|--jitter|soon|--max-delete|-|-l|tier|--retry-backoff|0s|--run-timeout|400d",
        );
        let labels: Vec<&str> = faults.iter().map(|fault| fault.split(' ').next().unwrap()).collect();
        assert_eq!(
            labels,
            ["--label", "--cron", "--jitter", "--run-timeout", "--max-delete", "--retry-backoff"]
        );
        assert!(faults[1].contains("no such field"), "{}", faults[1]);
    }

    #[test]
    fn an_edit_keeps_what_it_does_not_name() {
        let mut project = v1::Project {
            schedule: Some(v1::Schedule { time_zone: "Europe/Berlin".to_owned(), ..v1::Schedule::default() }),
            labels: [("tier".to_owned(), "1".to_owned()), ("old".to_owned(), "x".to_owned())].into(),
            ..v1::Project::default()
        };
        let mask = apply(
            &flags("--every|4h|-l|old-|-l|new=y"),
            Passwords::default(),
            &mut project,
            &mut Faults::default(),
        );
        assert_eq!(mask, ["labels", "schedule"]);
        assert_eq!(project.schedule.as_ref().unwrap().time_zone, "Europe/Berlin");
        assert_eq!(project.labels.keys().collect::<Vec<_>>(), ["new", "tier"]);
        assert_eq!(apply(&flags(""), Passwords::default(), &mut project, &mut Faults::default()), [""; 0]);
    }

    #[test]
    fn no_schedule_flag_no_schedule() {
        assert!(applied("--to|a1:x").0.schedule.is_none());
        let (manual, mask, _) = applied("--manual");
        assert!(matches!(manual.schedule.unwrap().cadence, Some(Cadence::Manual(()))));
        assert_eq!(mask, ["schedule"]);
    }

    #[test]
    fn until() {
        let now = "2026-11-20T07:42:10Z".parse().unwrap();
        assert_eq!(time_or_span("3d", now).unwrap().seconds, 1_795_160_530 + 3 * 86_400);
        assert_eq!(time_or_span("2026-11-20T07:42:10Z", now).unwrap().seconds, 1_795_160_530);
        assert_eq!(
            time_or_span("friday", now).unwrap_err(),
            "\"friday\": a time (RFC 3339, 2026-11-20 18:00) or a span (3d)"
        );
    }
}
