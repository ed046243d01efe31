//! Agents and join tokens.

use mirror_proto::v1;

use crate::names;
use crate::table::{Cell, Table};
use crate::term::{Color, View};
use crate::text::{block, plural, role_word, since, time};
use crate::units;

/// `mirrorctl agent list`.
#[must_use]
pub fn list(view: &View, agents: &[v1::Agent]) -> String {
    if agents.is_empty() {
        return "No agents. Next: mirrorctl join-token create --name edge1\n".to_owned();
    }
    let mut heads = vec!["NAME", "CONNECTED", "RUN", ">PLACED", "FREE (WORST)", "VERSION", "RSYNC", "CERT"];
    if view.wide {
        heads.push("LABELS");
    }
    let mut table = Table::new(heads);
    for agent in agents {
        let mut row = vec![
            Cell::from(names::last(&agent.name)),
            connected(view, agent),
            format!("{}/{}", agent.running, agent.max_running_in_force).into(),
            units::count(agent.placements.into()).into(),
            worst_root(agent).into(),
            or_unknown(&agent.version).into(),
            or_unknown(&agent.rsync_version).into(),
            certificate(view, agent).into(),
        ];
        if view.wide {
            row.push(labels(&agent.labels).into());
        }
        table.row(row);
    }
    let mut text = table.render(view);
    for agent in agents {
        if agent.duplicate.is_some() {
            let name = names::last(&agent.name);
            text.push_str(&format!(
                "{name}: two hosts have its certificate. Next: mirrorctl agent show {name}\n"
            ));
        }
    }
    text
}

/// Whether it is there, and since when: `yes 41d`, `draining`, `no 26h`, `revoked`.
fn connected(view: &View, agent: &v1::Agent) -> Cell {
    let since = since(view, agent.seen_time);
    if agent.revoked {
        Cell::colored("revoked", Some(Color::Red))
    } else if agent.declared_only {
        Cell::colored("not joined", Some(Color::Yellow))
    } else if !agent.connected {
        Cell::colored(
            if since == "-" { "never".to_owned() } else { format!("no {since}") },
            Some(Color::Yellow),
        )
    } else if agent.draining {
        Cell::colored(format!("draining {since}"), Some(Color::Yellow))
    } else {
        Cell::colored(format!("yes {since}"), Some(Color::Green))
    }
}

/// The root with the least space, and when it was told if the agent is away.
fn worst_root(agent: &v1::Agent) -> String {
    let Some(root) = agent.roots.iter().min_by_key(|root| root.free_bytes) else { return "?".to_owned() };
    let text = format!("{} {}", root.name, units::bytes(root.free_bytes));
    match time(agent.seen_time) {
        Some(seen) if !agent.connected => format!("{text} at {}", seen.format("%H:%M")),
        _ => text,
    }
}

/// How long the certificate is still good.
fn certificate(view: &View, agent: &v1::Agent) -> String {
    match time(agent.certificate_expire_time) {
        None if agent.declared_only => "-".to_owned(),
        None => "?".to_owned(),
        Some(expiry) if view.absolute => units::rfc3339(expiry),
        Some(expiry) if expiry <= view.now => "expired".to_owned(),
        Some(expiry) => units::ahead(expiry - view.now),
    }
}

fn labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "?" } else { text }
}

/// `mirrorctl agent show`.
#[must_use]
pub fn show(view: &View, agent: &v1::Agent) -> String {
    let name = names::last(&agent.name);
    let seen = time(agent.seen_time);
    let when = |time| format!("{} ({})", units::age(view.now - time), units::rfc3339(time));
    let state = match (agent.revoked, agent.connected, seen) {
        (true, ..) => "REVOKED".to_owned(),
        (false, true, Some(seen)) => format!("CONNECTED since {}", when(seen)),
        (false, true, None) => "CONNECTED".to_owned(),
        (false, false, Some(seen)) => format!("UNREACHABLE since {}", when(seen)),
        (false, false, None) if agent.declared_only => "declared; its host has not joined yet".to_owned(),
        (false, false, None) => "never connected".to_owned(),
    };
    let draining = if agent.draining { ", draining: it takes no new attempts" } else { "" };
    let mut text = format!("{name}: {state}{draining}.\n");
    let mut lines = vec![(
        "work",
        format!(
            "{} of {} slots, {}",
            agent.running,
            agent.max_running_in_force,
            plural(agent.placements.into(), "placement", "placements")
        ),
    )];
    lines.extend(caps(agent).map(|caps| ("caps", caps)));
    for root in &agent.roots {
        let inodes = match root.total_inodes {
            0 => String::new(),
            total => format!(", {} of {} inodes", units::count(root.free_inodes), units::count(total)),
        };
        lines.push((
            "root",
            format!(
                "{} = {}: {} free of {}{inodes}",
                root.name,
                root.path,
                units::bytes(root.free_bytes),
                units::bytes(root.total_bytes)
            ),
        ));
    }
    for tree in &agent.trash {
        let project = units::clean(&tree.project);
        lines.push(("trash", format!("{project}: {}", trashed(view, agent, tree))));
    }
    if !agent.labels.is_empty() {
        lines.push(("labels", labels(&agent.labels).replace(',', " ")));
    }
    let versions =
        format!("agent {}, rsync {}", or_unknown(&agent.version), or_unknown(&agent.rsync_version));
    lines.push(("versions", versions));
    lines.extend(agent.jail_gaps.iter().map(|gap| ("jail", format!("missing: {gap}"))));
    if !agent.address.is_empty() {
        lines.push(("address", agent.address.clone()));
    }
    if let Some(twin) = &agent.duplicate {
        let since = time(twin.since).map(|since| units::moment_and_distance(since, view.now));
        lines.push(("duplicate", format!("{} has this certificate too, and is refused", twin.address)));
        let times = plural(twin.refusals.into(), "time", "times");
        lines.push(("", format!("since {}, {times}", since.unwrap_or_default())));
        lines.push(("", "enrol one of the two under another name, or revoke this one".to_owned()));
    }
    if let Some(expiry) = time(agent.certificate_expire_time) {
        lines.push(("cert", format!("until {}", units::moment_and_distance(expiry, view.now))));
    }
    if let Some(enrolled) = time(agent.create_time) {
        let label = if agent.declared_only { "declared" } else { "enrolled" };
        lines.push((label, units::moment_and_distance(enrolled, view.now)));
    }
    text.push_str(&block(view, &lines));
    text
}

/// Where a deleted project's tree is: `in the trash until ...`, `stays at a1:debian: ...`.
#[must_use]
pub fn trashed(view: &View, agent: &v1::Agent, tree: &v1::TrashedTree) -> String {
    use v1::trashed_tree::State;
    let at = units::clean(&tree.destination);
    match tree.state() {
        State::Unspecified => "?".to_owned(),
        State::Waiting if agent.connected => format!("waits at {at}: something is still at work on it"),
        State::Waiting => format!("waits at {at} until the agent is back"),
        State::Trashed => {
            let until = time(tree.purge_time).map(|until| units::moment_and_distance(until, view.now));
            format!("in the trash until {}: {}", until.unwrap_or_default(), units::clean(&tree.place))
        }
        State::Stays => format!("stays at {at}: {}", units::clean(&tree.reason)),
    }
}

/// What people set of it beside its own file; `None`: nothing.
fn caps(agent: &v1::Agent) -> Option<String> {
    let own = agent.slots > 0 && agent.slots < agent.max_running;
    let own = if own { format!(" (its own file: {})", agent.slots) } else { String::new() };
    caps_in_words(agent.max_running, &own, agent.max_serving, agent.bandwidth_limit_kib)
}

fn caps_in_words(running: u32, own: &str, serving: u32, bandwidth_kib: u64) -> Option<String> {
    let mut caps = Vec::new();
    if running > 0 {
        caps.push(format!("{running} at once{own}"));
    }
    if serving > 0 {
        caps.push(format!("{} pull from it", plural(serving.into(), "replica", "replicas")));
    }
    if bandwidth_kib > 0 {
        let bytes = bandwidth_kib.saturating_mul(1_024);
        caps.push(format!("{}/s for each attempt", units::bytes(bytes)));
    }
    (!caps.is_empty()).then(|| caps.join(", "))
}

/// What a change has set, in one line.
#[must_use]
pub fn told(agent: &v1::Agent) -> String {
    let labels = match agent.labels.is_empty() {
        true => "no labels".to_owned(),
        false => format!("the labels {}", labels(&agent.labels)),
    };
    let caps = caps(agent).unwrap_or_else(|| "no caps".to_owned());
    format!("{} has {labels}; {caps}.", names::last(&agent.name))
}

/// Who takes whose place, and how.
#[derive(Debug, Clone, Copy)]
pub struct Replacement<'a> {
    /// Whose place.
    pub old: &'a str,
    /// Who takes it.
    pub new: &'a str,
    /// It is only asked what would change.
    pub dry_run: bool,
    /// The old one is revoked, not drained.
    pub revoke: bool,
}

/// `mirrorctl agent replace`.
#[must_use]
pub fn replaced(view: &View, what: &Replacement<'_>, answer: &v1::ReplaceAgentResponse) -> String {
    let Replacement { old, new, dry_run, revoke } = *what;
    let count = plural(answer.placements.len() as u64, "project", "projects");
    let takes = if dry_run { "would take" } else { "takes" };
    let mut text = format!("{new} {takes} the place of {old} in {count}.\n");
    if !answer.placements.is_empty() {
        let mut table = Table::new(["PROJECT", "ROLE", "PLACE", "TREE"]);
        for one in &answer.placements {
            let role = if one.standby { "standby" } else { role_word(one.role()) };
            table.row([
                Cell::from(names::last(&one.project)),
                role.into(),
                one.destination.as_str().into(),
                refill(one).into(),
            ]);
        }
        text.push_str(&table.render(view));
    }
    if !answer.labels.is_empty() {
        text.push_str(&format!("Labels that go over: {}\n", labels(&answer.labels)));
    }
    let caps = caps_in_words(answer.max_running, "", answer.max_serving, answer.bandwidth_limit_kib);
    if let Some(caps) = caps {
        text.push_str(&format!("Caps that go over: {caps}\n"));
    }
    let verb = if dry_run { "would be" } else { "is" };
    let state = if revoke { "revoked" } else { "drained" };
    text.push_str(&format!("{old} {verb} {state}; its trees stay on its disk.\n"));
    text
}

/// Where the new agent gets a tree: `copied from edge1 by run 019f3a2b-77c1`.
fn refill(one: &v1::ReplacedPlacement) -> String {
    use v1::replaced_placement::Refill;
    match one.refill() {
        Refill::Unspecified => "?".to_owned(),
        Refill::Copied if one.run.is_empty() => format!("copied from {}", names::last(&one.copied_from)),
        Refill::Copied => {
            let (from, run) = (names::last(&one.copied_from), names::short_run(&one.run));
            format!("copied from {from} by run {run}")
        }
        Refill::FromOrigin => "from its origin".to_owned(),
        Refill::FromUpstream => "from the upstream, by its next run".to_owned(),
        Refill::ByPeople => "put it there before its next run".to_owned(),
    }
}

/// `mirrorctl join-token list`.
#[must_use]
pub fn join_tokens(view: &View, tokens: &[v1::JoinToken]) -> String {
    if tokens.is_empty() {
        return "No join tokens. Next: mirrorctl join-token create --name edge1\n".to_owned();
    }
    let mut table = Table::new(["ID", "GOOD FOR", ">USES LEFT", "EXPIRES", "BY", "FROM"]);
    for token in tokens {
        let expires = match time(token.expire_time) {
            Some(expiry) if view.absolute => units::rfc3339(expiry),
            Some(expiry) => format!("in {}", units::ahead(expiry - view.now)),
            None => "-".to_owned(),
        };
        table.row([
            names::last(&token.name).into(),
            good_for(token).into(),
            token.uses_left.to_string().into(),
            expires.into(),
            names::last(&token.by).into(),
            if token.cidrs.is_empty() { "anywhere".into() } else { token.cidrs.join(",").into() },
        ]);
    }
    table.render(view)
}

/// The names a token may be used for.
#[must_use]
pub fn good_for(token: &v1::JoinToken) -> &str {
    match (token.agent.is_empty(), token.pattern.is_empty()) {
        (false, _) => names::last(&token.agent),
        (true, false) => &token.pattern,
        (true, true) => "any name",
    }
}
