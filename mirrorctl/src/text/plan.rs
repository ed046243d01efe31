//! What a manifest would change, and what it has changed.

use std::collections::BTreeMap;

use mirror_proto::v1::{self, FieldChange, ProjectChange, project_change::Action};

use crate::manifest::as_written;
use crate::names;
use crate::term::{Color, View};
use crate::units::clean;

/// Columns between two of them.
const GAP: usize = 3;
/// Columns between a field and its values.
const FIELD_GAP: usize = 2;
/// Projects that are not in the file and are named; more are counted.
const KEPT_SHOWN_MAX: usize = 10;

/// `mirrorctl plan`; `declared` are the manifest's projects by name, `apply` the command that does it.
#[must_use]
pub fn plan(
    view: &View,
    planned: &v1::PlanProjectsResponse,
    declared: &BTreeMap<&str, &v1::Project>,
    apply: &str,
) -> String {
    let of = |action: Action| planned.changes.iter().filter(move |one| one.action() == action);
    let (created, changed) = (of(Action::Create).count(), of(Action::Change).count());
    let (deleted, kept) = (of(Action::Delete).count(), of(Action::Keep).count());
    let shown: Vec<&ProjectChange> = of(Action::Change)
        .chain(of(Action::Create))
        .chain(of(Action::Delete))
        .chain(of(Action::Keep).take(KEPT_SHOWN_MAX))
        .collect();
    let width =
        shown.iter().map(|one| names::last(&one.project).chars().count()).max().unwrap_or(0) + 2 + GAP;
    let mut text = String::new();
    for one in shown {
        let (sign, color) = sign(one.action());
        let name = clean(names::last(&one.project));
        let lines = match one.action() {
            Action::Create => vec![way(view, declared.get(names::last(&one.project)).copied())],
            Action::Delete => vec!["not in the file; its record and schedule go, its trees stay".to_owned()],
            Action::Keep => vec!["not in the file; kept unless --prune".to_owned()],
            Action::Change | Action::Unspecified => fields(view, width, &one.fields, one.fields_left_out),
        };
        let warnings = one.warnings.iter().map(|warning| format!("! {}", clean(warning)));
        let mut head = format!("{sign} {name}");
        for line in lines.into_iter().chain(warnings) {
            let padded = format!("{head:width$}{line}");
            let folded = view.wrap_keeping(padded.trim_end(), width);
            text.push_str(&match (head.is_empty(), color) {
                (false, color) => folded.replacen(sign, &view.paint(color, sign), 1),
                (true, _) => folded,
            });
            text.push('\n');
            head.clear();
        }
    }
    if kept > KEPT_SHOWN_MAX {
        text.push_str(&format!(
            "- {} more are not in the file; kept unless --prune\n",
            kept - KEPT_SHOWN_MAX
        ));
    }
    if created + changed + deleted == 0 {
        let same = super::plural(planned.unchanged.into(), "project is", "projects are");
        text.push_str(&format!("Plan: nothing to change; {same} as declared.\n"));
        return text;
    }
    let last = format!("Plan: {created} to add, {changed} to change, {deleted} to delete. Next: {apply}");
    text.push_str(&view.wrap(&last, 2));
    text.push('\n');
    text
}

/// What `mirrorctl apply` says at its end.
#[must_use]
pub fn applied(applied: &v1::ApplyProjectsResponse, unchanged: u32) -> String {
    let v1::ApplyProjectsResponse { created, changed, deleted, .. } = applied;
    if created + changed + deleted == 0 {
        let same = super::plural(unchanged.into(), "project is", "projects are");
        return format!("Nothing to change; {same} as declared.");
    }
    format!("Applied: {created} added, {changed} changed, {deleted} deleted, {unchanged} as they were.")
}

const fn sign(action: Action) -> (&'static str, Option<Color>) {
    match action {
        Action::Create => ("+", Some(Color::Green)),
        Action::Change | Action::Unspecified => ("~", Some(Color::Yellow)),
        Action::Delete => ("-", Some(Color::Red)),
        Action::Keep => ("-", None),
    }
}

const fn arrow(view: &View) -> &'static str {
    if view.unicode { "→" } else { "->" }
}

/// From where to where a new tree goes.
fn way(view: &View, project: Option<&v1::Project>) -> String {
    let Some(project) = project else { return "new".to_owned() };
    let from = project.upstreams.first().map_or("local", |upstream| upstream.uri.as_str());
    let origin = project.placement.as_ref().and_then(|placement| placement.origins.first());
    let (agent, own) =
        origin.map_or(("", ""), |origin| (names::last(&origin.agent), origin.destination.as_str()));
    let to = if own.is_empty() { &project.destination } else { own };
    clean(format!("{from} {} {agent} {to}", arrow(view)).trim_end())
}

/// A line for each field; what does not fit on one has two.
fn fields(view: &View, indent: usize, fields: &[FieldChange], left_out: u32) -> Vec<String> {
    let told = |field: &FieldChange, value: &str| {
        if value.is_empty() { "-".to_owned() } else { clean(&as_written(&field.field, value)) }
    };
    let rows: Vec<(String, String, String)> =
        fields.iter().map(|one| (clean(&one.field), told(one, &one.old), told(one, &one.new))).collect();
    let wide = |text: &String| text.chars().count();
    let field_width = rows.iter().map(|row| wide(&row.0)).max().unwrap_or(0) + FIELD_GAP;
    let arrow = arrow(view);
    // A value that is much longer than the others would push their arrows off the page.
    let fits = |row: &&(String, String, String)| {
        indent + field_width + wide(&row.1) + wide(&row.2) + 5 <= view.width
    };
    let old_width = rows.iter().filter(fits).map(|row| wide(&row.1)).max().unwrap_or(0);
    let mut lines = Vec::new();
    for row in &rows {
        let (field, old, new) = row;
        let line = format!("{field:field_width$}{old:old_width$}  {arrow}  {new}");
        if indent + wide(&line) <= view.width {
            lines.push(line);
        } else {
            lines.push(format!("{field:field_width$}{old}"));
            lines.push(format!("{arrow}  {new}"));
        }
    }
    if left_out > 0 {
        lines.push(format!("and {left_out} more fields"));
    }
    lines
}
