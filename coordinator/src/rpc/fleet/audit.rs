//! The audit log, as admins read and follow it: pages and a stream of what the store has. Shows only what is known to be
//! on disk. Writes nothing: that is the driver's.

use std::{sync::Arc, time::Duration};

use ::fleet::{
    refusal::{Refusal, Violation},
    time::Wall,
};
use mirror_proto::{
    convert,
    status::{exhausted, unavailable},
    v1::{self, AuditEvent, AuditOutcome},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tonic::Status;

use super::super::{RETRY_UNAVAILABLE, invalid, page, refused, run::history};
use crate::{
    Services,
    outbox::line::{Line, LineSender, Stuck, line},
    store::{AuditId, Direction, PAGE_MAX, Store, StoreError},
};

/// Events on a page when the caller names no number.
const PAGE_SIZE: usize = 50;
/// Events that one page looks at: beyond them the caller asks for the next one, however few have fitted.
const SCAN_MAX: usize = 10_000;
/// Longest filter, in characters.
const FILTER_CHARS_MAX: usize = 500;
/// Followers at once, all callers together.
const WATCHES_MAX: usize = 64;
/// Messages that may wait for one follower.
const WATCH_LEN: usize = 4;
/// Events in one message.
const WATCH_EVENTS_MAX: usize = 100;
/// How long a follower may leave what waits for it.
const SLOW_AFTER: Duration = Duration::from_secs(30);

/// The places for followers.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(WATCHES_MAX))
}

/// Which events are wanted: exact matches, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Filter(Vec<Test>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Who(String),
    /// By it, or of it.
    Agent(String),
    /// The whole name, or what stands after the service.
    Action(String),
    /// Of it, or of what is below it.
    Resource(String),
    Outcome(AuditOutcome),
}

impl Filter {
    /// Reads `who=users/maria outcome=refused`, with or without `AND` in between.
    fn read(text: &str) -> Result<Self, Violation> {
        let fault = |rule: String| Violation::new("filter", rule);
        if text.chars().count() > FILTER_CHARS_MAX {
            return Err(fault(format!("must not be longer than {FILTER_CHARS_MAX} characters")));
        }
        let tests = text.split_whitespace().filter(|word| *word != "AND").map(|word| {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let of = |test: fn(String) -> Test| Ok(test(value.to_owned()));
            match (key, value) {
                ("who" | "agent" | "action" | "resource", "") => {
                    Err(fault(format!("{word:?}: {key} needs a value")))
                }
                ("who", _) => of(Test::Who),
                ("agent", _) => Ok(Test::Agent(format!("agents/{}", value.trim_start_matches("agents/")))),
                ("action", _) => of(Test::Action),
                ("resource", _) => of(Test::Resource),
                ("outcome", "done") => Ok(Test::Outcome(AuditOutcome::Done)),
                ("outcome", "refused") => Ok(Test::Outcome(AuditOutcome::Refused)),
                ("outcome", "failed") => Ok(Test::Outcome(AuditOutcome::Failed)),
                _ => Err(fault(format!(
                    "{word:?}: write who=users/NAME, agent=NAME, action=PauseProject, resource=projects/NAME or \
                     outcome=done, refused or failed; all of them must hold"
                ))),
            }
        });
        tests.collect::<Result<_, _>>().map(Self)
    }

    fn fits(&self, event: &AuditEvent) -> bool {
        let concerns = |wanted: &str| {
            let is = |resource: &str| {
                let below = resource.get(..wanted.len()).filter(|head| head.eq_ignore_ascii_case(wanted));
                below.is_some() && matches!(resource.as_bytes().get(wanted.len()), None | Some(b'/'))
            };
            is(&event.resource) || event.changes.iter().any(|change| is(&change.resource))
        };
        self.0.iter().all(|test| match test {
            Test::Who(who) => event.who.eq_ignore_ascii_case(who),
            Test::Agent(agent) => event.who.eq_ignore_ascii_case(agent) || concerns(agent),
            Test::Action(action) => {
                let short = event.action.rsplit('.').next().unwrap_or_default();
                event.action.eq_ignore_ascii_case(action) || short.eq_ignore_ascii_case(action)
            }
            Test::Resource(resource) => concerns(resource),
            Test::Outcome(outcome) => event.outcome() == *outcome,
        })
    }
}

/// A page that was asked for.
#[derive(Debug, Clone)]
struct Query {
    filter: Filter,
    since: Option<Wall>,
    until: Option<Wall>,
    oldest_first: bool,
    size: usize,
    /// The event that the page begins after, in its own order.
    after: Option<AuditId>,
    /// Nothing newer is shown: it may not be on disk yet.
    newest: AuditId,
}

impl Query {
    fn start(&self) -> Direction {
        let least = |wall: Wall| AuditId { ms: u64::try_from(wall.0).unwrap_or(0), number: 0 };
        match (self.oldest_first, self.after) {
            (true, Some(after)) => Direction::After(Some(after)),
            (true, None) => Direction::After(self.since.map(|since| least(since).before())),
            (false, Some(after)) => Direction::Before(Some(after)),
            (false, None) => Direction::Before(Some(self.newest.after())),
        }
    }

    /// Whether nothing that comes after this event, in the page's order, can be wanted. An event's id is never of an
    /// earlier time than the event.
    fn ends_at(&self, id: AuditId) -> bool {
        if self.oldest_first {
            return id > self.newest;
        }
        self.since.is_some_and(|since| i64::try_from(id.ms).is_ok_and(|ms| ms < since.0))
    }

    fn fits(&self, event: &AuditEvent) -> bool {
        let time = convert::required_wall("time", event.time.as_ref()).ok();
        self.since.is_none_or(|since| time.is_some_and(|time| time >= since))
            && self.until.is_none_or(|until| time.is_some_and(|time| time < until))
            && self.filter.fits(event)
    }

    /// The page, and the event that the next one begins after.
    fn run(&self, store: &Store) -> Result<(Vec<AuditEvent>, Option<AuditId>), StoreError> {
        let mut found = Vec::new();
        let mut direction = self.start();
        let mut scanned = 0;
        loop {
            let page = store.audit_events(direction, PAGE_MAX)?;
            let full = page.len() == PAGE_MAX;
            for event in page {
                let Some(id) = id_of(&event) else { continue };
                if self.ends_at(id) {
                    return Ok((found, None));
                }
                direction =
                    if self.oldest_first { Direction::After(Some(id)) } else { Direction::Before(Some(id)) };
                scanned += 1;
                if self.fits(&event) {
                    found.push(event);
                }
                if found.len() == self.size || scanned == SCAN_MAX {
                    return Ok((found, Some(id)));
                }
            }
            if !full {
                return Ok((found, None));
            }
        }
    }
}

fn id_of(event: &AuditEvent) -> Option<AuditId> {
    event.id.parse().ok()
}

/// A page of the log.
pub(super) async fn list(
    services: &Services,
    request: v1::ListAuditEventsRequest,
) -> Result<v1::ListAuditEventsResponse, Status> {
    const WHAT: &str = "audit log not listed";
    let v1::ListAuditEventsRequest { page_size, page_token, filter, since, until, oldest_first } = request;
    let name = format!("audit {filter} {since:?} {until:?} {oldest_first}");
    let mut faults = Vec::new();
    let page = page::read(&name, page_size, &page_token, PAGE_SIZE).map_err(|more| faults.extend(more)).ok();
    let filter = Filter::read(&filter).map_err(|fault| faults.push(fault)).ok();
    let mut time = |field: &str, time: Option<prost_types::Timestamp>| {
        let read = time.map(|time| convert::wall_from_wire(field, &time)).transpose();
        read.map_err(|fault| faults.push(fault)).ok().flatten()
    };
    let (since, until) = (time("since", since), time("until", until));
    let (Some(page), Some(filter), true) = (page, filter, faults.is_empty()) else {
        return Err(invalid(WHAT, faults));
    };
    let after = page.after.as_deref().map(str::parse).transpose().map_err(|_| {
        invalid(WHAT, vec![Violation::new("page_token", "names no event; send the one of the last answer")])
    })?;
    let newest = *services.driver.audited().borrow();
    let query = Query { filter, since, until, oldest_first, size: page.size, after, newest };
    let (events, next) = history::read(&services.driver, move |store| query.run(store)).await?;
    let next_page_token = next.map(|id| page::token(&name, &id.to_string())).unwrap_or_default();
    Ok(v1::ListAuditEventsResponse { events, next_page_token, newest_id: newest.to_string() })
}

/// Follows the log.
#[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
pub(super) fn watch(
    services: &Services,
    places: &Arc<Semaphore>,
    request: &v1::WatchAuditEventsRequest,
) -> Result<Line<v1::WatchAuditEventsResponse>, Status> {
    let v1::WatchAuditEventsRequest { after, filter } = request;
    let filter = Filter::read(filter);
    let newest = *services.driver.audited().borrow();
    let after = if after.is_empty() { Ok(newest) } else { after.parse() };
    let (filter, after) = match (filter, after) {
        (Ok(filter), Ok(after)) => (filter, after),
        (filter, after) => {
            let after =
                after.err().map(|error: crate::store::NoAuditId| Violation::new("after", error.to_string()));
            return Err(invalid("audit log not followed", filter.err().into_iter().chain(after).collect()));
        }
    };
    let place = Arc::clone(places).try_acquire_owned().map_err(|_| {
        let text = format!("{WATCHES_MAX} follow the audit log now; try again in a moment");
        exhausted("TOO_MANY_STREAMS", &text, RETRY_UNAVAILABLE)
    })?;
    let (sender, receiver) = line(WATCH_LEN);
    tokio::spawn(follow(services.clone(), filter, after, sender, place));
    Ok(receiver)
}

async fn follow(
    services: Services,
    filter: Filter,
    after: AuditId,
    sender: LineSender<v1::WatchAuditEventsResponse>,
    place: OwnedSemaphorePermit,
) {
    let closed = services.outbox.closed().clone();
    let ended = tokio::select! {
        () = closed.cancelled() => Some(stopping()),
        ended = follow_on(&services, &filter, after, &sender) => ended,
    };
    if let Some(status) = ended {
        sender.end(status);
    }
    drop(place);
}

/// Sends what comes after an event, until the follower is gone (`None`) or must be told why not.
async fn follow_on(
    services: &Services,
    filter: &Filter,
    mut after: AuditId,
    sender: &LineSender<v1::WatchAuditEventsResponse>,
) -> Option<Status> {
    let mut told = services.driver.audited();
    loop {
        let newest = *told.borrow_and_update();
        while after < newest {
            let from = Direction::After(Some(after));
            let page =
                history::read(&services.driver, move |store| store.audit_events(from, WATCH_EVENTS_MAX));
            let page = match page.await {
                Ok(page) => page,
                Err(status) => return Some(status),
            };
            let known: Vec<(AuditId, AuditEvent)> =
                page.into_iter().filter_map(|event| Some((id_of(&event)?, event))).collect();
            let Some((last, _)) = known.iter().rfind(|(id, _)| *id <= newest) else { break };
            after = *last;
            let events = known.into_iter().filter(|(id, event)| *id <= newest && filter.fits(event));
            let events: Vec<AuditEvent> = events.map(|(_, event)| event).collect();
            if events.is_empty() {
                continue;
            }
            match timeout(SLOW_AFTER, sender.send(v1::WatchAuditEventsResponse { events })).await {
                Ok(Ok(())) => {}
                Ok(Err(Stuck::Gone | Stuck::Full)) => return None,
                Err(_) => return Some(too_slow()),
            }
        }
        tokio::select! {
            () = sender.gone() => return None,
            changed = told.changed() => if changed.is_err() { return Some(stopping()) },
        }
    }
}

fn stopping() -> Status {
    unavailable(
        "STOPPING",
        "the coordinator is stopping; go on after the last event that came",
        RETRY_UNAVAILABLE,
    )
}

fn too_slow() -> Status {
    let text = format!(
        "the follower has not read for {} s; go on after the last event that came: nothing is lost",
        SLOW_AFTER.as_secs()
    );
    let slow = Refusal::new(::fleet::refusal::RefusalCode::ResourceExhausted, "SLOW_WATCHER", text);
    refused(&slow)
}

#[cfg(test)]
mod tests {
    use mirror_proto::v1::AuditChange;

    use super::*;

    fn event() -> AuditEvent {
        AuditEvent {
            who: "users/maria".to_owned(),
            action: "AgentService.ReplaceAgent".to_owned(),
            resource: "agents/ftp1".to_owned(),
            outcome: AuditOutcome::Done.into(),
            changes: vec![AuditChange { resource: "projects/debian".to_owned(), ..AuditChange::default() }],
            ..AuditEvent::default()
        }
    }

    #[test]
    fn filters_are_anded_exact_matches_and_resources_hold_what_is_below_them() {
        for fits in [
            "",
            "who=users/maria",
            "action=ReplaceAgent AND action=AgentService.ReplaceAgent",
            "resource=agents/ftp1 outcome=done",
            "resource=projects/Debian",
            "resource=projects",
            "agent=FTP1",
        ] {
            assert!(Filter::read(fits).unwrap().fits(&event()), "{fits}");
        }
        for other in [
            "who=maria",
            "action=Agent",
            "resource=projects/deb",
            "resource=agents/ftp1/x",
            "outcome=refused",
            "agent=ftp2",
        ] {
            assert!(!Filter::read(other).unwrap().fits(&event()), "{other}");
        }
        for bad in ["maria", "who=", "outcome=no", "user=maria", &"x".repeat(501)] {
            assert_eq!(Filter::read(bad).unwrap_err().field, "filter", "{bad:.20}");
        }
    }
}
