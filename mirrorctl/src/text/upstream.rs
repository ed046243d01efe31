//! Upstream hosts, and what a replacement changes.

use mirror_proto::v1;
use mirror_proto::v1::upstream_host::Breaker;

use crate::names;
use crate::table::{Cell, Table};
use crate::term::{Color, View};
use crate::text::{class_word, plural, since, span, time};
use crate::units;

/// `mirrorctl upstream list`.
#[must_use]
pub fn list(view: &View, upstreams: &[v1::UpstreamHost]) -> String {
    if upstreams.is_empty() {
        return "No upstream hosts: no project has one. Next: mirrorctl project add --help\n".to_owned();
    }
    let mut heads = vec!["HOST", "SLOTS", "SPACING", ">LINE", "BREAKER", ">PROJECTS"];
    if view.wide {
        heads.extend(["SET", "LAST FAILURE"]);
    }
    let mut table = Table::new(heads);
    for upstream in upstreams {
        let mut row = vec![
            Cell::from(names::last(&upstream.name)),
            format!("{}/{}", upstream.in_use, upstream.slots_in_force).into(),
            span(upstream.spacing_in_force).map(units::span).unwrap_or_default().into(),
            units::count(upstream.waiting.into()).into(),
            breaker(view, upstream),
            units::count(upstream.projects.into()).into(),
        ];
        if view.wide {
            row.extend([set(upstream).into(), last_failure(view, upstream).into()]);
        }
        table.row(row);
    }
    table.render(view)
}

/// `closed`, `open 15m` until the next probe, `probing`.
fn breaker(view: &View, upstream: &v1::UpstreamHost) -> Cell {
    match upstream.breaker() {
        Breaker::Unspecified => "?".into(),
        Breaker::Closed => "closed".into(),
        Breaker::Probing => Cell::colored("probing", Some(Color::Yellow)),
        Breaker::Open => {
            let until = time(upstream.breaker_until_time).filter(|until| *until > view.now);
            let until = until.map_or_else(String::new, |until| {
                let text = if view.absolute { units::rfc3339(until) } else { units::ahead(until - view.now) };
                format!(" {text}")
            });
            Cell::colored(format!("open{until}"), Some(Color::Red))
        }
    }
}

/// Which limits are its own.
fn set(upstream: &v1::UpstreamHost) -> &'static str {
    match (upstream.slots > 0, upstream.spacing.is_some()) {
        (true, true) => "slots, spacing",
        (true, false) => "slots",
        (false, true) => "spacing",
        (false, false) => "-",
    }
}

fn last_failure(view: &View, upstream: &v1::UpstreamHost) -> String {
    if upstream.last_failure_time.is_none() {
        return "-".to_owned();
    }
    let class = class_word(upstream.last_failure_class());
    let cause = units::clean(&upstream.last_failure_cause);
    let told = if cause.is_empty() { class.to_owned() } else { format!("{class}: {cause}") };
    format!("{} {told}", since(view, upstream.last_failure_time))
}

/// What a change has set, in one line.
#[must_use]
pub fn told(upstream: &v1::UpstreamHost) -> String {
    let own = |set: bool| if set { "" } else { " (the default)" };
    let slots = plural(upstream.slots_in_force.into(), "slot", "slots");
    let spacing = span(upstream.spacing_in_force).map(units::span).unwrap_or_default();
    format!(
        "{} has {slots}{} and a spacing of {spacing}{}.",
        names::last(&upstream.name),
        own(upstream.slots > 0),
        own(upstream.spacing.is_some())
    )
}

/// `mirrorctl upstream replace`.
#[must_use]
pub fn replaced(view: &View, old: &str, projects: &[v1::ReplacedUpstream], dry_run: bool) -> String {
    if projects.is_empty() {
        return format!("No project pulls from {old}; nothing to replace.\n");
    }
    let done = if dry_run { "would pull" } else { "pull" };
    let mut text =
        format!("{} {done} from elsewhere:\n", plural(projects.len() as u64, "project", "projects"));
    let mut table = Table::new(["PROJECT", "FROM", "TO"]);
    for one in projects {
        table.row([
            Cell::from(names::last(&one.project)),
            one.from_uri.as_str().into(),
            one.to_uri.as_str().into(),
        ]);
    }
    text.push_str(&table.render(view));
    let dropped = projects.iter().filter(|one| one.password_dropped).map(|one| names::last(&one.project));
    let dropped: Vec<&str> = dropped.collect();
    if !dropped.is_empty() {
        let done = if dry_run { "would be dropped" } else { "dropped" };
        text.push_str(&format!("Passwords {done}: {}\n", dropped.join(", ")));
    }
    text
}
