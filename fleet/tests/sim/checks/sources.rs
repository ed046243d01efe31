//! Rules for where origins pull from: the upstream that people chose, and no other.

use fleet::{
    attempt::{AttemptRecord, Role},
    id::{Epoch, ProjectUid},
    input::Offer,
    project::{ProjectRecord, ProjectState, Upstream},
    record::Record,
};

use super::{Checks, told};
use crate::store::{Source, Store, Unit};

fn active<'a>(project: &'a ProjectRecord, state: &ProjectState) -> Option<&'a Upstream> {
    project.spec.upstreams.get(usize::try_from(state.upstream).ok()?)
}

/// Only a person changes where an origin pulls from, and an edit of the list does not as long as it has the old one.
pub(super) fn check_switches(store: &Store, unit: &Unit) -> Result<(), String> {
    for state in unit.states() {
        let (Some(project), Some(old)) = (store.project(state.uid), store.state(state.uid)) else { continue };
        if state.upstream == old.upstream {
            continue;
        }
        if unit.source != Source::Person {
            return Err(format!("nobody switched project {}: from {old:?} to {state:?}", state.uid.0));
        }
        let edited = unit.puts().find_map(|record| match record {
            Record::Project(new) if new.uid == state.uid && new.spec != project.spec => Some(new),
            _ => None,
        });
        let Some(edited) = edited else { continue };
        let was = active(project, old).map(|upstream| &upstream.uri);
        let kept = edited.spec.upstreams.iter().any(|one| Some(&one.uri) == was);
        if kept && active(edited, state).map(|upstream| &upstream.uri) != was {
            return Err(format!("an edit switched project {} away from {was:?}", state.uid.0));
        }
    }
    Ok(())
}

/// What waits counts at the host that it will ask, and there is one to ask; what copies a lost tree or moves one asks
/// none.
pub(super) fn check_waiting(store: &Store, uid: ProjectUid) -> Result<(), String> {
    let (Some(project), Some(state)) = (store.project(uid), store.state(uid)) else { return Ok(()) };
    let upstream = active(project, state);
    if upstream.is_none() && (state.upstream != 0 || !project.spec.upstreams.is_empty()) {
        return Err(format!("project {}: none of its upstreams is pulled from: {state:?}", uid.0));
    }
    let host = upstream.map_or("", |upstream| upstream.host.as_str());
    let mut waiting =
        store.live_attempts(uid).filter(|one| one.role == Role::Origin && one.state.is_pending());
    let declared = |one: &AttemptRecord| {
        let same = |other: &Upstream| other.uri == one.upstream_uri && other.host == one.upstream_host;
        project.spec.marker.is_some() && project.spec.upstreams.iter().any(same)
    };
    let strays = |one: &&AttemptRecord| match (store.is_aside(one), one.fell_back.is_empty()) {
        (true, _) => !one.upstream_host.is_empty() || !one.upstream_uri.is_empty(),
        // What takes another one's place is declared, and another one.
        (false, false) => upstream.is_some_and(|first| !declared(one) || first.uri == one.upstream_uri),
        (false, true) => upstream.is_some() && one.upstream_host != host,
    };
    match waiting.find(strays) {
        Some(one) => Err(told(one.id, &format!("waits for {}, and will ask {host:?}", one.upstream_host))),
        None => Ok(()),
    }
}

impl Checks {
    /// An origin is about to be offered an attempt.
    pub(super) fn note_source(&mut self, store: &Store, new: &AttemptRecord, epoch: Epoch) {
        let project = store.project(new.project).zip(store.state(new.project));
        let upstream = project.and_then(|(project, state)| active(project, state));
        if let Some(upstream) = upstream.filter(|_| new.role == Role::Origin && !store.is_aside(new)) {
            let fell_back = !new.fell_back.is_empty();
            let uri = if fell_back { &new.upstream_uri } else { &upstream.uri };
            self.sources.insert(epoch, (uri.clone(), fell_back));
        }
    }

    /// The offer says what was chosen when it was decided.
    pub(super) fn check_said_source(&mut self, offer: &Offer) -> Result<(), String> {
        match self.sources.remove(&offer.epoch) {
            Some((_, fell_back))
                if fell_back != offer.marker.as_ref().is_some_and(|check| check.required) =>
            {
                Err(told(
                    offer.attempt,
                    "takes another upstream's place, and need not read its marker; or the reverse",
                ))
            }
            Some((uri, _)) if uri != offer.source_uri => {
                Err(told(offer.attempt, &format!("is sent to {}, and {uri} was chosen", offer.source_uri)))
            }
            Some(_) | None => Ok(()),
        }
    }
}
