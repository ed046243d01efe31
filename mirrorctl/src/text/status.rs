//! `mirrorctl status`: the first five seconds, then the matrix of projects and agents; and its JSON, which is a
//! schema of its own because it holds judgements that no message has.

use chrono::{DateTime, Utc};
use mirror_proto::v1;
use serde_json::{Value as Json, json};

use crate::names;
use crate::status::{Freshness, Kind, ProjectView, Summary, by_agent, placement_freshness};
use crate::table::{Cell, Table};
use crate::term::{Color, View};
use crate::text::{attempt_word, role_word, run_word, since, time};
use crate::units;

/// Up to this many projects all are shown; of more only those with something to say.
const ROWS_ALWAYS: usize = 20;
/// Columns that one agent takes, blanks included: `stale 31h`.
const AGENT_WIDTH: usize = 11;
/// Columns that the rest of the matrix takes: names, and what is going on.
const REST_WIDTH: usize = 34;

/// The whole answer.
#[must_use]
pub fn page(view: &View, summary: &Summary<'_>, all: bool) -> String {
    let mut text = String::new();
    if let Some(frozen) = &summary.status.frozen {
        text.push_str(&frozen_line(view, frozen));
    }
    if summary.projects.is_empty() {
        text.push_str("No projects yet. Next: mirrorctl project add --help\n");
        if summary.counts.agents == 0 {
            text.push_str("No agents yet. Next: mirrorctl join-token create --name edge1\n");
        }
        return text;
    }
    text.push_str(&headline(summary));
    text.push('\n');
    text.push_str(&attention(view, summary));
    text.push('\n');
    let shown: Vec<&ProjectView<'_>> = if all || summary.projects.len() <= ROWS_ALWAYS {
        summary.projects.iter().collect()
    } else {
        summary.projects.iter().filter(|project| !project.is_calm()).collect()
    };
    if !shown.is_empty() {
        text.push_str(&matrix(view, summary, &shown));
    }
    text.push_str(&rest_line(summary, shown.len()));
    text
}

fn frozen_line(view: &View, frozen: &v1::Freeze) -> String {
    let reason = if frozen.reason.is_empty() {
        String::new()
    } else {
        format!(": \"{}\"", units::clean(&frozen.reason))
    };
    let line = format!(
        "FROZEN for {} by {}{reason}. Next: mirrorctl thaw",
        since(view, frozen.time),
        names::last(&frozen.by)
    );
    format!("{}\n", view.paint(Some(Color::Yellow), &line))
}

fn headline(summary: &Summary<'_>) -> String {
    let counts = &summary.counts;
    let mut parts = vec![format!("{} fresh", units::count(counts.fresh))];
    for (number, word) in [
        (counts.stale, "stale"),
        (counts.never, "never synced"),
        (counts.paused, "paused"),
        (counts.archived, "archived"),
    ] {
        if number > 0 {
            parts.push(format!("{} {word}", units::count(number)));
        }
    }
    let projects = if counts.projects == 1 { "project" } else { "projects" };
    let agents = if counts.agents == 1 { "agent" } else { "agents" };
    format!(
        "{} {projects}: {}. {} {agents}: {} connected.\n{} running, {} queued.{}\n",
        units::count(counts.projects),
        parts.join(", "),
        units::count(counts.agents),
        units::count(counts.connected),
        units::count(counts.running),
        units::count(counts.queued),
        backup_age(summary).map(|age| format!(" Backup {age} old.")).unwrap_or_default(),
    )
}

/// How old the newest backup of the coordinator's store was when the status was taken.
fn backup_age(summary: &Summary<'_>) -> Option<String> {
    let made = time(summary.status.store.as_ref()?.backup_time)?;
    Some(units::age(time(summary.status.time)? - made))
}

fn attention(view: &View, summary: &Summary<'_>) -> String {
    let Some(first) = summary.attention.first() else { return "Nothing needs you.\n".to_owned() };
    let width = summary.attention.iter().map(|one| one.name.len()).max().unwrap_or(0);
    let mut text = "NEEDS YOU\n".to_owned();
    for one in &summary.attention {
        let line = format!("  {:width$}  {}", one.name, units::clean(&one.sentence));
        text.push_str(&view.wrap_keeping(&line, width + 4));
        text.push('\n');
    }
    text.push_str(&format!("Next: {}\n", first.next));
    text
}

fn matrix(view: &View, summary: &Summary<'_>, shown: &[&ProjectView<'_>]) -> String {
    let agents: Vec<&v1::Agent> = summary.status.agents.iter().filter(|agent| agent.placements > 0).collect();
    let names = shown.iter().map(|project| project.name.len()).max().unwrap_or(0);
    let room = view.width.saturating_sub(REST_WIDTH.max(names + AGENT_WIDTH)) / AGENT_WIDTH;
    let fit = if view.wide || agents.len() <= room { agents.len() } else { room.saturating_sub(1).max(1) };
    let (fitting, others) = agents.split_at(fit.min(agents.len()));
    let mut heads = vec!["PROJECT".to_owned()];
    heads.extend(fitting.iter().map(|agent| agent_head(agent)));
    if !others.is_empty() {
        heads.push(format!("+{} MORE", others.len()));
    }
    if view.wide {
        heads.extend(["SIZE", "LAST SUCCESS", "LAST ATTEMPT", "NEXT"].map(str::to_owned));
    } else {
        heads.push("NOW".to_owned());
    }
    let mut table = Table::new(heads);
    for project in shown {
        let placements = by_agent(project.project);
        let placement = |agent: &&v1::Agent| placements.get(agent.name.as_str()).copied();
        let mut row: Vec<Cell> = vec![project.name.into()];
        row.extend(fitting.iter().map(|agent| copy(view, project, placement(agent))));
        if !others.is_empty() {
            // The worst of those that do not fit: none before stale before fresh, the oldest first.
            let worst = others.iter().filter_map(placement).min_by_key(|one| time(one.have_time));
            row.push(copy(view, project, worst));
        }
        if view.wide {
            row.extend(wide_cells(view, project));
        } else {
            row.push(project.now.as_str().into());
        }
        table.row(row);
    }
    table.render(view)
}

fn agent_head(agent: &v1::Agent) -> String {
    let mark = if agent.connected { "" } else { " !" };
    format!("{}{mark}", names::last(&agent.name))
}

/// How good the copy on one agent is, and how old.
fn copy(view: &View, project: &ProjectView<'_>, placement: Option<&v1::PlacementStatus>) -> Cell {
    let Some(placement) = placement else { return "-".into() };
    let freshness = placement_freshness(project.project, placement, view.now);
    if freshness == Freshness::Never {
        return freshness.word().into();
    }
    let color = if freshness == Freshness::Fresh { Color::Green } else { Color::Yellow };
    let version = if view.wide {
        format!(" {}", placement.have_tree.get(..8).unwrap_or_default())
    } else {
        String::new()
    };
    Cell::colored(format!("{} {}{version}", freshness.word(), since(view, placement.have_time)), Some(color))
}

fn wide_cells(view: &View, project: &ProjectView<'_>) -> [Cell; 4] {
    let status = project.project.status.clone().unwrap_or_default();
    let size = status.placements.iter().map(|placement| placement.size_bytes).max().unwrap_or(0);
    let last = match run_word(status.last_state()) {
        "-" => "-".to_owned(),
        word => format!("{word} {}", since(view, status.last_end_time)),
    };
    let next = status.next_fire_times.first().and_then(|fire| time(Some(*fire)));
    let next = match next {
        Some(fire) if view.absolute => units::rfc3339(fire),
        Some(fire) => format!("{} in {}", units::clock(fire, view.now), units::ahead(fire - view.now)),
        None => "-".to_owned(),
    };
    let size = if size == 0 { "?".to_owned() } else { units::bytes(size) };
    [size.into(), since(view, status.last_success_time).into(), last.into(), next.into()]
}

fn rest_line(summary: &Summary<'_>, shown: usize) -> String {
    let rest = summary.projects.len() - shown;
    if rest == 0 {
        return String::new();
    }
    let hidden: Vec<&ProjectView<'_>> = summary.projects.iter().filter(|project| project.is_calm()).collect();
    let is = |one: &&&ProjectView<'_>| (one.project.archived.is_some(), one.project.paused.is_some());
    let archived = hidden.iter().filter(|one| is(one).0).count();
    let paused = hidden.iter().filter(|one| is(one) == (false, true)).count();
    let active = hidden.iter().filter(|one| is(one) == (false, false));
    let fresh = active.filter(|one| one.freshness == Freshness::Fresh).count();
    let mut parts = vec![format!("{fresh} fresh")];
    for (number, word) in [
        (paused, "paused"),
        (archived, "archived"),
        (rest.saturating_sub(fresh + paused + archived), "never synced"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {word}"));
        }
    }
    let projects = if rest == 1 { "project" } else { "projects" };
    format!("{rest} more {projects}, {}: mirrorctl status --all\n", parts.join(", "))
}

/// `mirror.status.v1`.
#[must_use]
pub fn json(summary: &Summary<'_>, now: DateTime<Utc>) -> Json {
    let status = summary.status;
    let counts = &summary.counts;
    json!({
        "schema": "mirror.status.v1",
        "time": rfc3339(time(status.time).or(Some(now))),
        "version": status.version,
        "frozen": status.frozen.as_ref().map(|frozen| json!({
            "by": names::last(&frozen.by), "time": rfc3339(time(frozen.time)), "reason": frozen.reason,
        })),
        "summary": {
            "projects": counts.projects, "fresh": counts.fresh, "stale": counts.stale, "never": counts.never,
            "paused": counts.paused, "archived": counts.archived, "agents": counts.agents, "connected": counts.connected,
            "running": counts.running, "queued": counts.queued,
        },
        "attention": summary.attention.iter().map(|one| {
            let what = match one.kind {
                Kind::Unreachable => "agent",
                Kind::Store => "part",
                Kind::Held | Kind::Failed | Kind::Stale => "project",
            };
            json!({
                "kind": one.kind.word(), what: one.name, "since": rfc3339(one.since),
                "sentence": one.sentence, "next": [one.next],
            })
        }).collect::<Vec<_>>(),
        "store": status.store.as_ref().map(|store| json!({
            "backup_time": rfc3339(time(store.backup_time)), "bytes": store.bytes,
        })),
        "projects": summary.projects.iter().map(|project| project_json(project, now)).collect::<Vec<_>>(),
    })
}

fn project_json(view: &ProjectView<'_>, now: DateTime<Utc>) -> Json {
    let status = view.project.status.clone().unwrap_or_default();
    let size = status.placements.iter().map(|placement| placement.size_bytes).max().filter(|size| *size > 0);
    json!({
        "name": view.name,
        "fresh": view.freshness == Freshness::Fresh,
        "paused": view.project.paused.as_ref().map(|pause| json!({
            "by": names::last(&pause.by), "time": rfc3339(time(pause.time)), "reason": pause.reason,
            "until": rfc3339(time(pause.until)),
        })),
        "archived": view.project.archived.as_ref().map(|archive| json!({
            "by": names::last(&archive.by), "time": rfc3339(time(archive.time)), "reason": archive.reason,
        })),
        "lag_limit_seconds": crate::status::limit(view.project).map(|limit| limit.num_seconds()),
        "size_bytes": size,
        "last_success_time": rfc3339(time(status.last_success_time)),
        "last_state": upper(run_word(status.last_state())),
        "last_end_time": rfc3339(time(status.last_end_time)),
        "next_fire_time": rfc3339(status.next_fire_times.first().and_then(|fire| time(Some(*fire)))),
        "active_run": some(&status.active_run),
        "queued_run": some(&status.queued_run),
        "unplaced": status.unplaced,
        "wait": status.wait.as_ref().map(|wait| json!({
            "reason": wait.reason().as_str_name().trim_start_matches("REASON_"),
            "position": wait.position, "until": rfc3339(time(wait.until)),
        })),
        "placements": status.placements.iter().map(|one| placement_json(view, one, now)).collect::<Vec<_>>(),
    })
}

fn placement_json(view: &ProjectView<'_>, placement: &v1::PlacementStatus, now: DateTime<Utc>) -> Json {
    let progress =
        placement.progress.as_ref().and_then(|progress| crate::json::value(progress, "Progress").ok());
    json!({
        "agent": names::last(&placement.agent),
        "role": upper(role_word(placement.role())),
        "connected": placement.connected,
        "standby": placement.standby,
        "fresh": placement_freshness(view.project, placement, now) == Freshness::Fresh,
        "lag_seconds": time(placement.have_time).map(|have| (now - have).num_seconds().max(0)),
        "have_tree": some(&placement.have_tree),
        "attempt": upper(attempt_word(placement.attempt_state())),
        "progress": progress,
    })
}

fn rfc3339(time: Option<DateTime<Utc>>) -> Option<String> {
    time.map(units::rfc3339)
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn upper(word: &str) -> Option<String> {
    (word != "-").then(|| word.to_uppercase())
}
