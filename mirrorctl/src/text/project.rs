//! Projects: the list, one in full, and what their schedule does next.

use mirror_proto::v1;
use mirror_proto::v1::run::State as RunState;

use crate::names;
use crate::status::{self, Freshness};
use crate::table::{Cell, Table};
use crate::term::{Color, View};
use crate::text::{
    ahead, block, cadence, hold, host, plural, run_color, run_sign, run_word, since, span, time,
};
use crate::units;

/// How many of the last runs are shown as signs.
pub const LAST_RUNS: i32 = 14;

/// `mirrorctl project list`.
#[must_use]
pub fn list(view: &View, projects: &[v1::Project]) -> String {
    if projects.is_empty() {
        return "No projects. Next: mirrorctl project add --help\n".to_owned();
    }
    let mut heads = vec!["NAME", "SCHEDULE", "UPSTREAM", "LAST", "LAG", "NEXT"];
    if view.wide {
        heads.extend(["ORIGIN", "DESTINATION", "OWNER", "LABELS"]);
    }
    let mut table = Table::new(heads);
    for project in projects {
        let status = project.status.clone().unwrap_or_default();
        let next = if project.archived.is_some() {
            "archived".to_owned()
        } else if project.paused.is_some() {
            "paused".to_owned()
        } else {
            ahead(view, status.next_fire_times.first().copied())
        };
        let upstream = in_use(project).map_or("-", |upstream| host(&upstream.uri));
        let mut row = vec![
            Cell::from(names::last(&project.name)),
            cadence(project.schedule.as_ref()).into(),
            upstream.into(),
            last(view, &status),
            since(view, status.last_success_time).into(),
            next.into(),
        ];
        if view.wide {
            let labels: Vec<String> =
                project.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            row.extend([
                origin(project).into(),
                project.destination.as_str().into(),
                owner(project).unwrap_or("-").into(),
                labels.join(",").into(),
            ]);
        }
        table.row(row);
    }
    table.render(view)
}

fn last(view: &View, status: &v1::ProjectStatus) -> Cell {
    if !status.active_run.is_empty() {
        return Cell::colored("running", Some(Color::Blue));
    }
    match status.last_state() {
        RunState::Unspecified => "never".into(),
        state => {
            let text = format!("{} {}", run_word(state), since(view, status.last_end_time));
            Cell::colored(text, run_color(state))
        }
    }
}

fn owner(project: &v1::Project) -> Option<&str> {
    (!project.owner.is_empty()).then(|| names::last(&project.owner))
}

fn origin(project: &v1::Project) -> String {
    let origins =
        project.placement.as_ref().map(|placement| placement.origins.as_slice()).unwrap_or_default();
    origins.first().map_or("-", |origin| names::last(&origin.agent)).to_owned()
}

/// `mirrorctl project show`; `runs` are the newest ones, `why` the reasons of waiting in sentences.
#[must_use]
pub fn show(view: &View, project: &v1::Project, runs: &[v1::Run], why: &[String]) -> String {
    let mut text = headline(view, project);
    let mut lines: Vec<(&str, String)> = Vec::new();
    if !project.display_name.is_empty() {
        lines.push(("called", project.display_name.clone()));
    }
    lines.extend(project.archived.as_ref().map(|archive| ("archived", archived(view, archive))));
    lines.extend(owner(project).map(|owner| ("owner", owner.to_owned())));
    lines.extend(upstream_lines(project).map(|line| ("upstream", line)));
    if project.upstreams.is_empty() {
        lines.push(("upstream", "none: people put the tree on the origin themselves".to_owned()));
    }
    lines.extend(project.marker.as_ref().map(|marker| ("marker", marker_line(view, project, marker))));
    lines.push(("schedule", schedule_line(view, project)));
    if !project.after.is_empty() {
        lines.push(("after", after(project)));
    }
    let status = project.status.clone().unwrap_or_default();
    if status.placements.is_empty() {
        lines.push(("origin", format!("{}  {}", origin(project), project.destination)));
    }
    let mut placements: Vec<&v1::PlacementStatus> = status.placements.iter().collect();
    placements.sort_by_key(|one| (one.role, !one.standby, names::last(&one.agent)));
    lines.extend(placements.into_iter().map(|placement| placement_line(view, project, placement)));
    lines.extend(
        status.unplaced.iter().map(|why| ("unplaced", units::clean(why.trim_start_matches("agents/")))),
    );
    if let Some(publish) = project.publish.as_ref().filter(|publish| !publish.link.is_empty()) {
        lines.push(("link", publish.link.clone()));
    }
    lines.extend(spread_line(project).map(|line| ("spread", line)));
    if let Some(rsync) = &project.rsync {
        lines.extend(rsync_line(rsync).map(|line| ("options", line)));
    }
    lines.extend(project.guard.as_ref().and_then(guard_line).map(|line| ("guard", line)));
    if !project.labels.is_empty() {
        let labels: Vec<String> =
            project.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        lines.push(("labels", labels.join(" ")));
    }
    if !runs.is_empty() {
        lines.push(("last runs", last_runs(view, runs)));
    }
    for (placement, hold) in status.placements.iter().filter_map(|one| Some((one, one.hold.as_ref()?))) {
        let age = time(hold.since).map(|since| format!(" {}", units::age(view.now - since)));
        let (on, age) = (names::last(&placement.agent), age.unwrap_or_default());
        lines.push(("held", format!("{on}{age}: {}", hold::figures(hold))));
    }
    for sentence in why {
        lines.push(("why", sentence.clone()));
    }
    text.push_str(&block(view, &lines));
    text
}

fn headline(view: &View, project: &v1::Project) -> String {
    let status = project.status.clone().unwrap_or_default();
    let freshness = status::freshness(project, view.now);
    let word = freshness.word().to_uppercase();
    let color = match freshness {
        Freshness::Fresh => Some(Color::Green),
        Freshness::Stale => Some(Color::Yellow),
        Freshness::Never => None,
    };
    let mut text = format!("{}: {}", names::last(&project.name), view.paint(color, &word));
    if let Some(success) = time(status.last_success_time) {
        text.push_str(&format!(", our copy is {} old", units::age(view.now - success)));
        if let Some(limit) = status::limit(project) {
            text.push_str(&format!(" (limit {})", units::age(limit)));
        }
    } else {
        text.push_str(", no copy yet");
    }
    text.push('.');
    let bad = status.last_state();
    if matches!(bad, RunState::Held | RunState::Failed) {
        let on =
            status::origin(project).map(|one| format!(" on {}", names::last(&one.agent))).unwrap_or_default();
        text.push_str(&format!(" {}{on}.", view.paint(run_color(bad), &run_word(bad).to_uppercase())));
    }
    if project.archived.is_some() {
        text.push_str(" ARCHIVED.");
    }
    if let Some(pause) = &project.paused {
        text.push_str(&format!(" {}", paused(view, pause)));
    }
    text.push('\n');
    text
}

/// `PAUSED since 2d by maria: "moving to a2".`
fn paused(view: &View, pause: &v1::Pause) -> String {
    let mut text = format!("PAUSED since {} by {}", since(view, pause.time), names::last(&pause.by));
    if let Some(until) = time(pause.until) {
        text.push_str(&format!(" until {}", units::moment(until, view.now)));
    }
    if !pause.reason.is_empty() {
        text.push_str(&format!(": \"{}\"", units::clean(&pause.reason)));
    }
    text.push('.');
    text
}

/// `since 2d by maria: "upstream is gone"`
fn archived(view: &View, archive: &v1::Archive) -> String {
    let reason = match archive.reason.as_str() {
        "" => String::new(),
        reason => format!(": \"{}\"", units::clean(reason)),
    };
    format!("since {} by {}{reason}", since(view, archive.time), names::last(&archive.by))
}

/// The projects after which it runs: `debian, debian-ports`.
#[must_use]
pub fn after(project: &v1::Project) -> String {
    project.after.iter().map(|name| names::last(name)).collect::<Vec<_>>().join(", ")
}

/// The upstream that the origin pulls from: the one that the status names; without one, the first.
fn in_use(project: &v1::Project) -> Option<&v1::Upstream> {
    let active = project.status.as_ref().map(|status| status.upstream.as_str()).unwrap_or_default();
    let mut upstreams = project.upstreams.iter();
    upstreams.find(|upstream| upstream.uri == active).or_else(|| project.upstreams.first())
}

/// `rsync://host/module/ (1 of 2, in use)`; one alone needs no count.
fn upstream_lines(project: &v1::Project) -> impl Iterator<Item = String> {
    let count = project.upstreams.len();
    let active = in_use(project);
    project.upstreams.iter().enumerate().map(move |(index, upstream)| {
        let line = upstream_line(upstream);
        let used = match (active == Some(upstream), project.marker.is_some()) {
            (true, true) => ", asked first",
            (true, false) => ", in use",
            (false, _) => "",
        };
        if count < 2 { line } else { format!("{line} ({} of {count}{used})", index + 1) }
    })
}

fn upstream_line(upstream: &v1::Upstream) -> String {
    let mut line = upstream.uri.clone();
    if !upstream.user.is_empty() {
        let password = if upstream.has_password { "a password is set" } else { "no password" };
        line.push_str(&format!(" as {} ({password})", upstream.user));
    }
    line
}

/// `debian_trace:project/trace/ftp.example.net, of 04:12 UTC (3h ago)`.
fn marker_line(view: &View, project: &v1::Project, marker: &v1::Marker) -> String {
    let mut line = format!("{}:{}", marker_kind(marker.kind()), marker.path);
    let status = project.status.clone().unwrap_or_default();
    match time(status.marker_time) {
        Some(at) => {
            line.push_str(&format!(", what is served is of {}", units::moment_and_distance(at, view.now)))
        }
        None => line.push_str(", not seen yet"),
    }
    if let Some(since) = time(status.behind_since) {
        line.push_str(&format!(
            "; no upstream has had anything newer since {}",
            units::age(view.now - since)
        ));
    }
    line
}

/// A kind as people type it.
#[must_use]
pub fn marker_kind(kind: v1::marker::Kind) -> String {
    kind.as_str_name().trim_start_matches("KIND_").to_lowercase()
}

fn schedule_line(view: &View, project: &v1::Project) -> String {
    let Some(schedule) = &project.schedule else { return "manual".to_owned() };
    let mut line = cadence(Some(schedule));
    if line == "manual" {
        return line;
    }
    let zone = if schedule.time_zone.is_empty() { "UTC" } else { &schedule.time_zone };
    line.push_str(&format!(", {zone}"));
    let moved = span(schedule.phase).filter(|phase| !phase.is_zero());
    let width = span(schedule.spread).filter(|width| !width.is_zero());
    match (moved, width) {
        (Some(phase), Some(width)) => {
            line.push_str(&format!(", {} into its spread of {}", units::span(phase), units::span(width)));
        }
        (Some(phase), None) => line.push_str(&format!(", {} into its period", units::span(phase))),
        (None, Some(width)) => line.push_str(&format!(", spread over {}", units::span(width))),
        (None, None) => {}
    }
    if let Some(jitter) = span(schedule.jitter).filter(|jitter| !jitter.is_zero()) {
        line.push_str(&format!(", jitter {}", units::span(jitter)));
    }
    for (word, text) in [("from", &schedule.start_time), ("until", &schedule.end_time)] {
        if !text.is_empty() {
            line.push_str(&format!(", {word} {text}"));
        }
    }
    if !schedule.windows.is_empty() {
        let windows: Vec<String> = schedule.windows.iter().map(window).collect();
        line.push_str(&format!(", only {}", windows.join(" and ")));
    }
    let status = project.status.clone().unwrap_or_default();
    let mut fires = status.next_fire_times.iter().filter_map(|fire| time(Some(*fire)));
    match fires.next() {
        Some(first) => {
            line.push_str(&format!("; next {}", units::moment_and_distance(first, view.now)));
            for fire in fires.take(1) {
                line.push_str(&format!(", {}", units::clock(fire, view.now)));
            }
        }
        None if project.archived.is_some() => line.push_str("; archived"),
        None if project.paused.is_some() => line.push_str("; paused"),
        None => line.push_str("; no more fires"),
    }
    line
}

/// `22:00-06:00 sat,sun`.
fn window(window: &v1::Window) -> String {
    let days = window.days_of_week.join(",");
    let blank = if days.is_empty() { "" } else { " " };
    format!("{}-{}{blank}{days}", window.start, window.end)
}

fn placement_line(
    view: &View,
    project: &v1::Project,
    placement: &v1::PlacementStatus,
) -> (&'static str, String) {
    let role = if placement.standby { "standby" } else { crate::text::role_word(placement.role()) };
    let mut parts = vec![names::last(&placement.agent).to_owned(), placement.destination.clone()];
    if placement.have_tree.is_empty() {
        parts.push("never".to_owned());
    } else {
        let word = status::placement_freshness(project, placement, view.now).word();
        parts.push(format!("{word} {}", since(view, placement.have_time)));
        if status::is_behind(project, placement) {
            parts.push("behind the origin".to_owned());
        }
        parts.push(plural(placement.files, "file", "files"));
        parts.push(units::bytes(placement.size_bytes));
        if status::is_behind(project, placement)
            && let Some(at) = time(placement.marker_time)
        {
            parts.push(format!("marker {}", units::moment(at, view.now)));
        }
    }
    if !placement.connected {
        parts.push("unreachable".to_owned());
    }
    (role, parts.join("  "))
}

/// How the tree spreads, where a person said something about it.
fn spread_line(project: &v1::Project) -> Option<String> {
    let settings = project.placement.as_ref()?;
    let picks = settings.replicas.iter().filter(|replicas| !replicas.selector.is_empty());
    let mut parts: Vec<String> = picks.map(|replicas| format!("to all with {}", replicas.selector)).collect();
    if settings.max_parallel > 0 {
        parts.push(format!("{} at once", settings.max_parallel));
    }
    for (word, limit) in
        [("propagation timeout", settings.propagation_timeout), ("drain timeout", settings.drain_timeout)]
    {
        parts.extend(span(limit).map(|limit| format!("{word} {}", units::span(limit))));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn rsync_line(rsync: &v1::RsyncSettings) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(defaults) = &rsync.defaults {
        let words = if defaults.words.is_empty() { "nothing".to_owned() } else { defaults.words.join(" ") };
        parts.push(format!("{words} (instead of the defaults)"));
    }
    if !rsync.options.is_empty() {
        let place = match (&rsync.defaults, rsync.no_defaults) {
            (Some(_), _) => "after these",
            (None, true) => "instead of the defaults",
            (None, false) => "after the defaults",
        };
        parts.push(format!("{} ({place})", rsync.options.join(" ")));
    }
    match rsync.delete() {
        v1::DeleteMode::Unspecified => {}
        v1::DeleteMode::None => parts.push("deletes nothing".to_owned()),
        mode => {
            let name = mode.as_str_name().trim_start_matches("DELETE_MODE_").to_lowercase();
            parts.push(format!("--delete-{name}"));
        }
    }
    for (word, limit) in [
        ("connect timeout", rsync.connect_timeout),
        ("io timeout", rsync.io_timeout),
        ("stall timeout", rsync.stall_timeout),
        ("run timeout", rsync.run_timeout),
    ] {
        parts.extend(span(limit).map(|limit| format!("{word} {}", units::span(limit))));
    }
    if rsync.bandwidth_limit_kib > 0 {
        parts.push(format!("at most {}", units::rate(rsync.bandwidth_limit_kib.saturating_mul(1024))));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn guard_line(guard: &v1::GuardSettings) -> Option<String> {
    let mut parts = Vec::new();
    parts.extend(guard.max_delete.map(|most| format!("at most {} deletes", units::count(most))));
    parts.extend(guard.shrink_percent.map(|percent| format!("held from {percent} % lost on")));
    if !guard.sentinels.is_empty() {
        parts.push(format!("must exist: {}", guard.sentinels.join(" ")));
    }
    if guard.quota_bytes > 0 {
        parts.push(format!("quota {}", units::bytes(guard.quota_bytes)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The newest runs as signs, and what the rarer ones mean.
fn last_runs(view: &View, runs: &[v1::Run]) -> String {
    let signs: Vec<&str> = runs.iter().map(|run| view.sign(run_sign(run.state()))).collect();
    let mut legend = Vec::new();
    for state in [RunState::Held, RunState::Failed, RunState::Running, RunState::Queued, RunState::Cancelled]
    {
        if runs.iter().any(|run| run.state() == state) {
            legend.push(format!("{} {}", view.sign(run_sign(state)), run_word(state)));
        }
    }
    let legend = if legend.is_empty() { String::new() } else { format!("; {}", legend.join(", ")) };
    format!("{}   (newest first{legend})", signs.join(" "))
}

/// `mirrorctl project preview`.
#[must_use]
pub fn preview(view: &View, response: &v1::PreviewScheduleResponse) -> String {
    let mut text = String::new();
    for fire in &response.fires {
        let distance = time(fire.time).map(|time| units::ahead(time - view.now)).unwrap_or_default();
        // As `schedule next` and the remarks have instants.
        let local = chrono::DateTime::parse_from_rfc3339(&fire.local_time);
        let local = local.map_or_else(|_| units::clean(&fire.local_time), |local| local.to_string());
        text.push_str(&fire_line(&local, &distance, &fire.remark));
    }
    if response.exhausted {
        text.push_str(if response.fires.is_empty() {
            "It never fires.\n"
        } else {
            "No more fires after that.\n"
        });
    }
    text.push_str(&collisions(view, response));
    for line in &response.notes {
        text.push_str(&format!("Note: {}\n", units::clean(line)));
    }
    text
}

/// Other projects that fire together with this one, the earliest first.
fn collisions(view: &View, response: &v1::PreviewScheduleResponse) -> String {
    if response.collision_count == 0 {
        return String::new();
    }
    let mut table = Table::new(["PROJECT", "SHARED", "WITH OURS AT", "ITS OWN AT", ">TIMES"]);
    for collision in &response.collisions {
        let clock = |at| time(at).map(|at| units::moment(at, view.now)).unwrap_or_default();
        let shared: Vec<&str> = collision.shared.iter().map(|name| names::last(name)).collect();
        table.row([
            Cell::from(names::last(&collision.project)),
            shared.join(" ").into(),
            clock(collision.time).into(),
            clock(collision.other_time).into(),
            collision.fires.to_string().into(),
        ]);
    }
    let others = plural(response.collision_count.into(), "other project falls", "other projects fall");
    let told = response.collisions.len();
    let rest = match usize::try_from(response.collision_count).unwrap_or(told).saturating_sub(told) {
        0 => String::new(),
        more => format!("and {more} more\n"),
    };
    format!("\n{others} within 5m of it in the next 24h:\n{}{rest}", table.render(view))
}

/// One fire: local time, how far ahead, what a clock change does to it.
#[must_use]
pub fn fire_line(local: &str, distance: &str, remark: &str) -> String {
    format!("{local}   in {distance:6} {}", units::clean(remark)).trim_end().to_owned() + "\n"
}
