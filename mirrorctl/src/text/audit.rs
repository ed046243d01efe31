//! The audit log: a line an event.

use mirror_proto::v1;
use mirror_proto::v1::AuditOutcome;

use crate::names;
use crate::table::{Cell, Table};
use crate::term::{Color, View};
use crate::text::{since, time};
use crate::units;

/// Widths of the columns of [`lines`], where what comes is not known yet.
const WIDTHS: [usize; 4] = [20, 14, 18, 20];

/// `mirrorctl audit`.
#[must_use]
pub fn list(view: &View, events: &[v1::AuditEvent]) -> String {
    if events.is_empty() {
        return "No events. Next: mirrorctl audit --since 30d\n".to_owned();
    }
    let mut heads = vec!["WHEN", "WHO", "ACTION", "RESOURCE"];
    if view.wide {
        heads.extend(["FROM", "REQUEST", "ID"]);
    }
    heads.push("WHAT");
    let mut table = Table::new(heads);
    for event in events {
        let mut row: Vec<Cell> = vec![
            since(view, event.time).into(),
            who(&event.who).into(),
            action(&event.action).into(),
            resource(&event.resource).into(),
        ];
        if view.wide {
            row.extend([
                or_none(&event.from).into(),
                or_none(&event.request_id).into(),
                event.id.as_str().into(),
            ]);
        }
        row.push(Cell::colored(what(view, event), color(event)));
        table.row(row);
    }
    table.render(view)
}

/// `mirrorctl audit --follow`: events as they come, with their times, since ages would not stay true.
#[must_use]
pub fn lines(view: &View, events: &[v1::AuditEvent]) -> String {
    let mut text = String::new();
    for event in events {
        let when = time(event.time).map(units::rfc3339).unwrap_or_default();
        let resource = resource(&event.resource);
        let columns = [when.as_str(), who(&event.who), action(&event.action), resource.as_str()];
        for (column, width) in columns.iter().zip(WIDTHS) {
            text.push_str(&format!("{:width$}  ", units::clean(column)));
        }
        text.push_str(&view.paint(color(event), &units::clean(&what(view, event))));
        text.push('\n');
    }
    text
}

fn color(event: &v1::AuditEvent) -> Option<Color> {
    match event.outcome() {
        AuditOutcome::Refused => Some(Color::Yellow),
        AuditOutcome::Failed => Some(Color::Red),
        AuditOutcome::Done | AuditOutcome::Unspecified => None,
    }
}

/// `maria` of `users/maria`; agents keep their kind.
fn who(who: &str) -> &str {
    who.strip_prefix("users/").unwrap_or(who)
}

/// `PauseProject` of `ProjectService.PauseProject`; what happened by itself keeps its first part.
fn action(action: &str) -> &str {
    match action.split_once('.') {
        Some((service, method)) if service.ends_with("Service") => method,
        _ => action,
    }
}

/// A run's name with its id shortened; everything else as it is.
fn resource(resource: &str) -> String {
    match resource.split_once("/runs/") {
        Some((project, _)) => format!("{project}/runs/{}", names::short_run(resource)),
        None => or_none(resource).to_owned(),
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// `schedule.cron.hour: 3 → 4, and 2 more`; `REFUSED NOT_ALLOWED ×12: why`.
fn what(view: &View, event: &v1::AuditEvent) -> String {
    let sign = if view.unicode { '×' } else { 'x' };
    let times = if event.count > 1 { format!(" {sign}{}", event.count) } else { String::new() };
    let word = match event.outcome() {
        AuditOutcome::Refused => "REFUSED",
        AuditOutcome::Failed => "FAILED",
        AuditOutcome::Done | AuditOutcome::Unspecified => {
            let shown = if view.wide { event.changes.len() } else { 1 };
            let mut parts: Vec<String> =
                event.changes.iter().take(shown).map(|change| one_change(view, event, change)).collect();
            let left = event.changes.len().saturating_sub(shown);
            let left = left + usize::try_from(event.changes_left_out).unwrap_or(0);
            if parts.is_empty() && !event.message.is_empty() {
                parts.push(event.message.clone());
            }
            if left > 0 {
                parts.push(format!("and {left} more"));
            }
            return format!("{}{times}", parts.join(", "));
        }
    };
    format!("{word} {}{times}: {}", event.reason, event.message)
}

fn one_change(view: &View, event: &v1::AuditEvent, change: &v1::AuditChange) -> String {
    let v1::AuditChange { resource, field, old, new } = change;
    // What is below the event's own resource is told by its last parts.
    let of = match resource.strip_prefix(&event.resource).map(|rest| rest.trim_start_matches('/')) {
        Some("") => String::new(),
        Some(rest) if rest.starts_with("runs/") => format!("runs/{} ", names::short_run(resource)),
        Some(_) | None => format!("{} ", self::resource(resource)),
    };
    let to = if view.unicode { "→" } else { "->" };
    match (old.as_str(), new.as_str()) {
        ("", new) => format!("{of}{field}: {new}"),
        (old, "") => format!("{of}{field}: {old} {to} -"),
        (old, new) => format!("{of}{field}: {old} {to} {new}"),
    }
}
