//! The next fires of a schedule, and which other projects of the same agent or upstream fall together with them. What is
//! compared is taken from the view at once, and compared without it: in a very large fleet that may take a tenth of a
//! second, and as many are made at once as leave room for everything else.

use std::{sync::Arc, time::Duration};

use ::fleet::{
    Engine,
    engine::Project,
    id::AgentUid,
    project::ProjectRecord,
    refusal::Violation,
    schedule::{Cadence, Schedule},
    time::Wall,
};
use mirror_proto::{
    convert,
    status::{exhausted, internal},
    v1,
};
use tonic::Status;

use super::{Projects, find, words::exact};
use crate::rpc::{RETRY_UNAVAILABLE, invalid};

/// Previews that are made at once: each may keep one core busy for a second.
pub const PREVIEWS_MAX: usize = 4;

/// Fires of a preview when the caller names no number.
const FIRES: usize = 3;
/// Most fires of a preview.
const FIRES_MAX: usize = 100;
/// Two fires that lie no further apart fall together: within it their runs ask one agent, or one upstream, for slots.
const TOGETHER: Duration = Duration::from_secs(5 * 60);
/// How far ahead fires are compared.
const AHEAD: Duration = Duration::from_secs(24 * 3_600);
/// Most fires of the previewed schedule that are compared: one every five minutes for a day.
const COMPARED_MAX: usize = 288;
/// Most projects that are compared.
const OTHERS_MAX: usize = 20_000;
/// Most searches for a next fire in one comparison. A search takes below a microsecond, a rare schedule's up to twenty:
/// a fleet of 10,000 daily projects is compared in some 20 ms.
const SEARCHES_MAX: usize = 50_000;
/// Most collisions that are told.
const COLLISIONS_MAX: usize = 50;

impl Projects {
    /// Reads what is asked, and answers it apart from what answers others.
    pub(super) async fn preview(
        &self,
        request: v1::PreviewScheduleRequest,
    ) -> Result<v1::PreviewScheduleResponse, Status> {
        const WHAT: &str = "schedule not previewed";
        let v1::PreviewScheduleRequest { name, schedule, count: fires } = request;
        let fires = count(fires).map_err(|fault| invalid(WHAT, vec![fault]))?;
        let read = schedule.map(|schedule| convert::schedule_from_wire(Some(&schedule)));
        let read = read.transpose().map_err(|faults| invalid(WHAT, faults))?;
        let Ok(place) = Arc::clone(&self.services.previews).try_acquire_owned() else {
            let text = format!("{PREVIEWS_MAX} previews are made already; try again in a moment");
            return Err(exhausted("PREVIEWS_BUSY", &text, RETRY_UNAVAILABLE));
        };
        let now = self.services.driver.now().wall;
        let (asked, others) = match (read, name.as_str()) {
            (Some(read), "") => (Asked::given(read, None, now, fires), Others::default()),
            (read, name) => {
                let view = self.services.driver.view();
                let project = find(&view, WHAT, "name", name)?;
                let asked = match read {
                    Some(read) => Asked::given(read, Some(project), now, fires),
                    None => Asked::stored(project, now, fires),
                };
                (asked, Others::of(&view, project))
            }
        };
        // It ends with the work and not with the call: who hangs up ends only the wait.
        let shown = tokio::task::spawn_blocking(move || {
            let _place = place;
            answer(asked, others)
        });
        shown.await.map_err(|error| internal("PREVIEW_FAILED", &error.to_string()))
    }
}

/// How many fires are asked for.
fn count(count: i32) -> Result<usize, Violation> {
    match usize::try_from(count) {
        Ok(0) => Ok(FIRES),
        Ok(count) if count <= FIRES_MAX => Ok(count),
        Ok(_) | Err(_) => {
            let rule = format!("\"{count}\": must be 1 to {FIRES_MAX}, or 0 for {FIRES}");
            Err(Violation::new("count", rule))
        }
    }
}

/// What is previewed.
struct Asked {
    schedule: Schedule,
    from: Wall,
    /// The first fire: the one that is armed, or would be.
    first: Option<Wall>,
    count: usize,
    notes: Vec<String>,
    of_project: bool,
}

impl Asked {
    /// The schedule of a project, from its next fire on.
    fn stored(project: &Project, now: Wall, count: usize) -> Self {
        let from = project.state.next_fire.map_or(now, |fire| fire.scheduled.max(now));
        let schedule = project.record.spec.schedule.clone();
        let first = schedule.first_at_or_after(from.to_utc()).map(Wall::from);
        Self { schedule, from, first, count, notes: Vec::new(), of_project: true }
    }

    /// A schedule that is only being thought about, as the project would have it.
    fn given(read: convert::ReadSchedule, project: Option<&Project>, now: Wall, count: usize) -> Self {
        let mut schedule = Schedule { phase_seconds: 0, ..read.schedule };
        if let Some(ProjectRecord { uid, spec, .. }) = project.map(|project| &*project.record) {
            let origin = spec.placement.origins.first().map_or(0, |origin| origin.agent.0);
            schedule = schedule.of_project(uid.0, origin, Some(&spec.schedule));
        }
        // Nothing is armed anew where nothing changes.
        if let Some(project) = project.filter(|project| project.record.spec.schedule == schedule) {
            return Self { notes: read.notes, ..Self::stored(project, now, count) };
        }
        let first = schedule.first_of_all(now.to_utc()).map(Wall::from);
        Self { schedule, from: now, first, count, notes: read.notes, of_project: project.is_some() }
    }
}

/// Another project that shares an agent or an upstream host with the previewed one.
struct Other {
    record: Arc<ProjectRecord>,
    next: Wall,
    shared: Vec<String>,
}

/// All of them that may fire by themselves, at most [`OTHERS_MAX`].
#[derive(Default)]
struct Others {
    list: Vec<Other>,
    more: bool,
}

impl Others {
    /// Those of this project.
    fn of(view: &Engine, project: &Project) -> Self {
        let (agent, host) = ground(project);
        let shared = |other: &Project| {
            let (its_agent, its_host) = ground(other);
            let agent = its_agent.filter(|_| its_agent == agent);
            let host = its_host.filter(|_| its_host == host).map(convert::upstream_name);
            agent.map(|agent| convert::agent_name_of(view, agent)).into_iter().chain(host).collect::<Vec<_>>()
        };
        let others = view
            .projects_by_name()
            .filter(|other| other.record.uid != project.record.uid && other.record.paused.is_none());
        let others = others.filter_map(|other| {
            let next = other.state.next_fire?.scheduled;
            let shared = shared(other);
            (!shared.is_empty()).then(|| Other { record: Arc::clone(&other.record), next, shared })
        });
        let mut list: Vec<Other> = others.take(OTHERS_MAX + 1).collect();
        let more = list.len() > OTHERS_MAX;
        list.truncate(OTHERS_MAX);
        Self { list, more }
    }
}

/// Where a project's runs begin: on its origin's agent, at its preferred upstream.
fn ground(project: &Project) -> (Option<AgentUid>, Option<&str>) {
    let host = project.upstream().map(|upstream| upstream.host.as_str());
    (project.origin().map(|origin| origin.agent), host)
}

/// The fires and what falls together with them.
fn answer(asked: Asked, others: Others) -> v1::PreviewScheduleResponse {
    let Asked { schedule, from, first, count, mut notes, of_project } = asked;
    let first = first.map(Wall::to_utc);
    let fires: Vec<_> = schedule.fires_from(first).take(count).collect();
    notes.extend(spread_note(&schedule, of_project));
    let upcoming = schedule.fires_from(first).map(Wall::from);
    let (mut found, ended_early) = collisions(&schedule, upcoming, from.plus(AHEAD), others);
    if ended_early {
        notes.push("the fleet is too large to compare all of its projects: there may be more".to_owned());
    }
    let collision_count = u32::try_from(found.len()).unwrap_or(u32::MAX);
    found.sort_by_key(|(at, its, _)| (*at, *its));
    found.truncate(COLLISIONS_MAX);
    v1::PreviewScheduleResponse {
        exhausted: fires.len() < count,
        fires: fires.into_iter().map(|fire| convert::fire_to_wire(&schedule.describe(fire))).collect(),
        notes,
        collisions: found.into_iter().map(|(_, _, collision)| collision).collect(),
        collision_count,
    }
}

/// What spread does to the fires.
fn spread_note(schedule: &Schedule, of_project: bool) -> Option<String> {
    let width = Some(schedule.spread_in_force()).filter(|width| *width > 0).map(exact)?;
    Some(if of_project {
        let phase = exact(schedule.phase_seconds);
        format!("spread: this project's fires come {phase} after their time, within {width}")
    } else {
        format!("spread: each project's fires come at a moment of its own within {width} after these times")
    })
}

type Found = Vec<(Wall, Wall, v1::Collision)>;

/// Every other project that falls together, and whether the comparison ended before all were looked at.
fn collisions(
    schedule: &Schedule,
    upcoming: impl Iterator<Item = Wall>,
    until: Wall,
    others: Others,
) -> (Found, bool) {
    let own = upcoming.take_while(|fire| *fire < until);
    let own: Vec<Wall> = own.take(if known_once(schedule) { 1 } else { COMPARED_MAX }).collect();
    let mut found = Found::new();
    let mut searches = 0;
    for other in others.list {
        if searches >= SEARCHES_MAX {
            return (found, true);
        }
        if let Some((at, its, fires)) = together(&own, &other, &mut searches) {
            let collision = v1::Collision {
                project: convert::project_name(&other.record.name),
                shared: other.shared,
                time: Some(convert::wall_to_wire(at)),
                other_time: Some(convert::wall_to_wire(its)),
                fires,
            };
            found.push((at, its, collision));
        }
    }
    (found, others.more)
}

/// Whether only the next fire is known: an interval's later ones follow from runs that have not been.
const fn known_once(schedule: &Schedule) -> bool {
    matches!(schedule.cadence, Cadence::Interval { .. })
}

/// The first of these fires that one of the other project's falls together with, that one, and how many do.
fn together(own: &[Wall], other: &Other, searches: &mut usize) -> Option<(Wall, Wall, u32)> {
    let schedule = &other.record.spec.schedule;
    let mut next = other.next;
    let mut found: Option<(Wall, Wall, u32)> = None;
    for fire in own {
        let earliest = fire.minus(TOGETHER);
        if next < earliest {
            if known_once(schedule) || *searches >= SEARCHES_MAX {
                break;
            }
            *searches += 1;
            let Some(later) = schedule.first_at_or_after(earliest.to_utc()) else { break };
            next = later.into();
        }
        if next <= fire.plus(TOGETHER) {
            let (at, its, fires) = found.unwrap_or((*fire, next, 0));
            found = Some((at, its, fires + 1));
        }
    }
    found
}
