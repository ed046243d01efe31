//! The one summary of the fleet: what is fresh, what needs a person, what runs. Every view of the status is printed
//! from this, so that they cannot disagree. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use mirror_proto::v1;
use mirror_proto::v1::attempt::State as AttemptState;
use mirror_proto::v1::run::State as RunState;
use mirror_proto::v1::schedule::Cadence;

use crate::names;
use crate::text::{attempt_word, hold, plural, span, time};
use crate::units;

/// A copy is stale from this age on, or from [`STALE_PERIODS`] periods of its schedule, whichever is later: 24 hours.
const STALE_AFTER: TimeDelta = TimeDelta::hours(24);
const STALE_PERIODS: i32 = 3;
/// An agent without a session is shown as unreachable after 90 seconds: shorter breaks are restarts.
const UNREACHABLE_AFTER: TimeDelta = TimeDelta::seconds(90);

/// How good a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Young enough, and the last run ended well.
    Fresh,
    /// Too old, or the last run ended badly.
    Stale,
    /// There is none yet.
    Never,
}

impl Freshness {
    /// As a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Never => "never",
        }
    }
}

/// What needs a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A guard stopped the project's last run.
    Held,
    /// The project's last run failed.
    Failed,
    /// The project's copy is too old.
    Stale,
    /// An agent has no session.
    Unreachable,
    /// The coordinator's own store.
    Store,
}

impl Kind {
    /// As in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Held => "HELD",
            Self::Failed => "FAILED",
            Self::Stale => "STALE",
            Self::Unreachable => "UNREACHABLE",
            Self::Store => "STORE",
        }
    }
}

/// One thing that needs a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attention {
    /// What kind.
    pub kind: Kind,
    /// The project or agent.
    pub name: String,
    /// Since when, where that is known.
    pub since: Option<DateTime<Utc>>,
    /// In words.
    pub sentence: String,
    /// The command to run next.
    pub next: String,
}

/// One project.
#[derive(Clone, Debug)]
pub struct ProjectView<'a> {
    /// As it came.
    pub project: &'a v1::Project,
    /// Its short name.
    pub name: &'a str,
    /// How good the copy is.
    pub freshness: Freshness,
    /// What is going on, as the column NOW says it.
    pub now: String,
    /// Where it stands in the table: needs you, running, queued, calm.
    rank: u8,
}

impl ProjectView<'_> {
    /// Whether nothing about it is worth a line when there are many.
    #[must_use]
    pub const fn is_calm(&self) -> bool {
        self.rank == CALM
    }
}

/// Ranks in the table, behind those that need a person, who are ranked by their [`Kind`].
const RUNNING: u8 = Kind::Store as u8 + 1;
const QUEUED: u8 = RUNNING + 1;
const CALM: u8 = QUEUED + 1;

/// The counts of the first lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the words of the summary")]
pub struct Counts {
    pub projects: u64,
    pub fresh: u64,
    pub stale: u64,
    pub never: u64,
    pub paused: u64,
    pub archived: u64,
    pub agents: u64,
    pub connected: u64,
    pub running: u64,
    pub queued: u64,
}

/// The fleet, judged.
#[derive(Clone, Debug)]
pub struct Summary<'a> {
    /// As it came.
    pub status: &'a v1::FleetStatus,
    /// The counts.
    pub counts: Counts,
    /// What needs a person, the worst first.
    pub attention: Vec<Attention>,
    /// All projects: needs you, running, queued, then by name.
    pub projects: Vec<ProjectView<'a>>,
}

/// Judges the fleet.
#[must_use]
pub fn summarize(status: &v1::FleetStatus, now: DateTime<Utc>) -> Summary<'_> {
    let mut counts = Counts {
        projects: status.projects.len() as u64,
        agents: status.agents.iter().filter(|agent| !agent.revoked).count() as u64,
        connected: status.agents.iter().filter(|agent| agent.connected).count() as u64,
        running: status.running.into(),
        queued: status.queued.into(),
        ..Counts::default()
    };
    let mut attention = Vec::new();
    let mut projects: Vec<ProjectView<'_>> = Vec::with_capacity(status.projects.len());
    for project in &status.projects {
        let freshness = freshness(project, now);
        let place = match (project.paused.is_some(), freshness) {
            _ if project.archived.is_some() => &mut counts.archived,
            (true, _) => &mut counts.paused,
            (false, Freshness::Fresh) => &mut counts.fresh,
            (false, Freshness::Stale) => &mut counts.stale,
            (false, Freshness::Never) => &mut counts.never,
        };
        *place += 1;
        let need = project_attention(project, freshness, now);
        let (doing, activity) = doing(project, now);
        let rank = need.as_ref().map_or(activity, |need| need.kind as u8);
        attention.extend(need);
        projects.push(ProjectView { project, name: names::last(&project.name), freshness, now: doing, rank });
    }
    projects.sort_by(|a, b| (a.rank, a.name).cmp(&(b.rank, b.name)));
    attention.extend(status.agents.iter().filter_map(|agent| agent_attention(agent, now)));
    attention.extend(
        status.store.iter().flat_map(|store| &store.warnings).map(|warning| store_attention(warning)),
    );
    attention.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    Summary { status, counts, attention, projects }
}

/// How good the project's copy is: the last success is young enough, and nothing went wrong since.
#[must_use]
pub fn freshness(project: &v1::Project, now: DateTime<Utc>) -> Freshness {
    let status = project.status.clone().unwrap_or_default();
    let Some(success) = time(status.last_success_time) else { return Freshness::Never };
    // Of an archived project nothing newer is expected, so what it has is what it is to have.
    let good =
        project.archived.is_some() || !matches!(status.last_state(), RunState::Failed | RunState::Held);
    let young = limit(project).is_none_or(|limit| now - success <= limit);
    if good && young { Freshness::Fresh } else { Freshness::Stale }
}

/// Whether the placement has another tree than its origin.
#[must_use]
pub fn is_behind(project: &v1::Project, placement: &v1::PlacementStatus) -> bool {
    placement.role() == v1::Role::Replica
        && origin(project)
            .is_some_and(|origin| !origin.have_tree.is_empty() && origin.have_tree != placement.have_tree)
}

/// How good the copy on one agent is. One that has the origin's tree is as good as that; another one's is as good as
/// it is young.
#[must_use]
pub fn placement_freshness(
    project: &v1::Project,
    placement: &v1::PlacementStatus,
    now: DateTime<Utc>,
) -> Freshness {
    let Some(have) = time(placement.have_time).filter(|_| !placement.have_tree.is_empty()) else {
        return Freshness::Never;
    };
    if !is_behind(project, placement) {
        return freshness(project, now);
    }
    if limit(project).is_none_or(|limit| now - have <= limit) { Freshness::Fresh } else { Freshness::Stale }
}

/// The age from which on the copy is stale. `None`: it has no schedule, or is archived, so no age is too old.
#[must_use]
pub fn limit(project: &v1::Project) -> Option<TimeDelta> {
    if project.archived.is_some() {
        return None;
    }
    let schedule = project.schedule.as_ref()?;
    let period = match schedule.cadence.as_ref()? {
        Cadence::Manual(()) => return None,
        Cadence::Interval(interval) => span(interval.every)?,
        Cadence::Cron(_) | Cadence::Crontab(_) | Cadence::Named(_) => {
            let status = project.status.as_ref()?;
            let fires: Vec<_> = status.next_fire_times.iter().filter_map(|fire| time(Some(*fire))).collect();
            // The longest of the next gaps: weekday schedules rest at the weekend.
            fires.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        }
    };
    Some(STALE_AFTER.max(period * STALE_PERIODS))
}

/// The agent that pulls from the upstream, where there is one.
#[must_use]
pub fn origin(project: &v1::Project) -> Option<&v1::PlacementStatus> {
    project.status.as_ref()?.placements.iter().find(|placement| placement.role() == v1::Role::Origin)
}

/// The newest hold of a project and whose it is: the origin's before those of replicas, which follow from its tree.
#[must_use]
pub fn newest_hold(project: &v1::Project) -> Option<(&v1::PlacementStatus, &v1::Hold)> {
    let placements = &project.status.as_ref()?.placements;
    let holds = placements.iter().filter_map(|placement| Some((placement, placement.hold.as_ref()?)));
    holds.min_by_key(|(placement, _)| placement.role() != v1::Role::Origin)
}

/// A hold is open whatever the last run did: a run may fail before the guard looks again.
fn hold_attention(project: &v1::Project, now: DateTime<Utc>) -> Option<Attention> {
    let (placement, hold) = newest_hold(project)?;
    let name = names::last(&project.name).to_owned();
    let since = time(hold.since);
    let age = since.map(|since| format!(" {}", units::age(now - since))).unwrap_or_default();
    let on = match placement.role() {
        v1::Role::Replica => format!(" on {}", names::last(&placement.agent)),
        v1::Role::Origin | v1::Role::Unspecified => String::new(),
    };
    let sentence = format!("held{age}{on}: {}", hold::figures(hold));
    let newest = placement.role() == v1::Role::Origin
        && project.status.as_ref().is_some_and(|status| status.last_state() == RunState::Held);
    let run = if newest { name.clone() } else { run_to_show(&name, hold) };
    let next = format!("mirrorctl run show {run}");
    Some(Attention { kind: Kind::Held, name, since, sentence, next })
}

/// The hold's run as it can be typed, where it need not be the project's newest.
fn run_to_show(project: &str, hold: &v1::Hold) -> String {
    match hold.newest_attempt.split_once("/attempts/") {
        Some((run, _)) => format!("{project}/{}", names::short_run(run)),
        None => project.to_owned(),
    }
}

fn on_origin(project: &v1::Project) -> String {
    origin(project).map(|placement| format!(" on {}", names::last(&placement.agent))).unwrap_or_default()
}

fn project_attention(project: &v1::Project, freshness: Freshness, now: DateTime<Utc>) -> Option<Attention> {
    if project.archived.is_some() {
        // It is served as it is: nobody waits for a newer one.
        return None;
    }
    if let Some(held) = hold_attention(project, now) {
        return Some(held);
    }
    let status = project.status.clone().unwrap_or_default();
    let name = names::last(&project.name).to_owned();
    let ended = time(status.last_end_time);
    let age = ended.map(|time| format!(" {}", units::age(now - time))).unwrap_or_default();
    let on = on_origin(project);
    let (kind, since, sentence) = match status.last_state() {
        RunState::Held => (Kind::Held, ended, format!("held{age}{on}")),
        RunState::Failed => (Kind::Failed, ended, format!("failed{age} ago{on}")),
        _ if freshness == Freshness::Stale && project.paused.is_none() => {
            let success = time(status.last_success_time);
            let age = success.map(|time| units::age(now - time)).unwrap_or_default();
            let limit = limit(project).map(units::age).unwrap_or_default();
            (Kind::Stale, success, format!("stale {age} (limit {limit})"))
        }
        _ => return None,
    };
    let next = match kind {
        Kind::Stale => format!("mirrorctl why {name}"),
        Kind::Held | Kind::Failed | Kind::Unreachable | Kind::Store => format!("mirrorctl run show {name}"),
    };
    Some(Attention { kind, name, since, sentence, next })
}

fn store_attention(warning: &str) -> Attention {
    Attention {
        kind: Kind::Store,
        name: "store".to_owned(),
        since: None,
        sentence: warning.to_owned(),
        next: "mirrorctl backup fleet.backup".to_owned(),
    }
}

fn agent_attention(agent: &v1::Agent, now: DateTime<Utc>) -> Option<Attention> {
    let seen = time(agent.seen_time);
    let away = seen.is_none_or(|seen| now - seen >= UNREACHABLE_AFTER);
    // One that is only declared needs somebody when a project waits for it.
    if agent.connected || agent.revoked || !away || (agent.declared_only && agent.placements == 0) {
        return None;
    }
    let name = names::last(&agent.name).to_owned();
    let mut sentence = match seen {
        Some(seen) => format!("unreachable {}", units::age(now - seen)),
        None if agent.declared_only => "declared, not joined yet".to_owned(),
        None => "never connected".to_owned(),
    };
    if agent.declared_only {
        let waiting = plural(agent.placements.into(), "placement waits", "placements wait");
        sentence.push_str(&format!("; {waiting} for it"));
    } else if agent.placements > 0 {
        let ages = if agent.placements == 1 { "ages" } else { "age" };
        sentence.push_str(&format!(
            "; {} {ages} there",
            plural(agent.placements.into(), "placement", "placements")
        ));
    }
    let next = match agent.declared_only {
        true => format!("mirrorctl join-token create --name {name}"),
        false => format!("mirrorctl agent show {name}"),
    };
    Some(Attention { kind: Kind::Unreachable, name, since: seen, sentence, next })
}

/// What goes on, for the column NOW, and its rank.
fn doing(project: &v1::Project, now: DateTime<Utc>) -> (String, u8) {
    let status = project.status.clone().unwrap_or_default();
    let mut waits = !status.queued_run.is_empty();
    for placement in &status.placements {
        let on = names::last(&placement.agent);
        match placement.attempt_state() {
            AttemptState::Running => {
                let percent = placement.progress.as_ref().and_then(|progress| progress.percent);
                let done = percent.map_or_else(|| "running".to_owned(), |percent| format!("{percent}%"));
                return (format!("{done} on {on}"), RUNNING);
            }
            state @ (AttemptState::Offered | AttemptState::Cancelling) => {
                return (format!("{} on {on}", attempt_word(state)), RUNNING);
            }
            AttemptState::Pending => waits = true,
            _ => {}
        }
    }
    if waits {
        return (waiting(status.wait.as_ref(), now), QUEUED);
    }
    if project.archived.is_some() {
        return ("archived".to_owned(), CALM);
    }
    if project.paused.is_some() {
        return ("paused".to_owned(), CALM);
    }
    let next = status.next_fire_times.first().and_then(|fire| time(Some(*fire)));
    let next = next.map_or_else(|| "-".to_owned(), |fire| format!("next in {}", units::ahead(fire - now)));
    match status.last_state() {
        RunState::Held => (format!("held{}", on_origin(project)), CALM),
        _ => (next, CALM),
    }
}

/// What waits for in a few words; `mirrorctl why` has the sentence.
fn waiting(wait: Option<&v1::Wait>, now: DateTime<Utc>) -> String {
    use v1::wait::Reason;
    let Some(wait) = wait else { return "queued".to_owned() };
    match (wait.reason(), time(wait.until)) {
        (Reason::Backoff, Some(until)) => format!("retry {}", units::clock(until, now)),
        (Reason::Paused, _) => "paused".to_owned(),
        (Reason::Frozen, _) => "frozen".to_owned(),
        _ if wait.position > 0 => format!("{} in line", units::ordinal(wait.position)),
        _ => "queued".to_owned(),
    }
}

/// The placements of a project by agent.
#[must_use]
pub fn by_agent(project: &v1::Project) -> BTreeMap<&str, &v1::PlacementStatus> {
    let placements = project.status.as_ref().map(|status| status.placements.as_slice()).unwrap_or_default();
    placements.iter().map(|placement| (placement.agent.as_str(), placement)).collect()
}
