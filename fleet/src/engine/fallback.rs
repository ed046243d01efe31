//! Which of its upstreams an origin pulls from. Nothing but a person's word changes it: the model knows no measure of
//! how new the tree of an upstream is, and an older one must never take the place of what is served.
//!
//! It does not know how an upstream answers (see `hosts.rs`): one that fails is tried again, not left.

use super::{
    effects::Effects,
    people::{Outcome, check_revision},
    state::{Engine, Project},
};
use crate::{
    attempt::{AttemptRecord, Role},
    id::ProjectUid,
    input::Reply,
    project::{ProjectRecord, ProjectState, Upstream},
    record::Record,
    refusal::{Refusal, Violation},
    time::Now,
};

impl Project {
    /// Where the origin pulls from now; `None`: people put the tree there.
    #[must_use]
    pub fn upstream(&self) -> Option<&Upstream> {
        self.record.spec.upstreams.get(self.place())
    }

    /// Where the origin will pull from once the declaration has these upstreams.
    pub(super) fn upstream_with<'a>(&self, declared: &'a [Upstream]) -> Option<&'a Upstream> {
        declared.get(self.place_in(declared))
    }

    /// The state once the declaration has these upstreams.
    pub(super) fn state_with(&self, declared: &[Upstream]) -> ProjectState {
        ProjectState { upstream: stored(self.place_in(declared)), ..self.state.clone() }
    }

    /// The upstream that an attempt was begun with, as it is declared now: the declaration may have changed since, and
    /// a secret goes to no other host.
    pub(super) fn upstream_of(&self, attempt: &AttemptRecord) -> Option<&Upstream> {
        let upstreams = self.upstream().into_iter().chain(&self.record.spec.upstreams);
        let mut same = upstreams.filter(|upstream| upstream.host == attempt.upstream_host);
        same.next().filter(|_| attempt.role == Role::Origin && attempt.source.is_none())
    }

    fn place(&self) -> usize {
        usize::try_from(self.state.upstream).unwrap_or(usize::MAX)
    }

    /// An edit of the list is no switch: the upstream that is pulled from stays so wherever it stands, or what was put
    /// in its place does. Only when it is gone the first one follows.
    fn place_in(&self, declared: &[Upstream]) -> usize {
        let old = &self.record.spec.upstreams;
        let same = self.upstream().and_then(|now| declared.iter().position(|one| one.uri == now.uri));
        let replaced = || {
            let new = declared.get(self.place()).filter(|_| declared.len() == old.len())?;
            old.iter().all(|one| one.uri != new.uri).then(|| self.place())
        };
        same.or_else(replaced).unwrap_or_default()
    }
}

/// A place in a list of at most [`UPSTREAMS_MAX`](crate::project::UPSTREAMS_MAX), as it is stored.
fn stored(place: usize) -> u32 {
    u32::try_from(place).unwrap_or_default()
}

impl Engine {
    /// Whether the attempt pulls from the project's upstream: an origin's does, unless it copies a lost tree from
    /// another agent, or moves one.
    pub(super) fn asks_upstream(&self, attempt: &AttemptRecord) -> bool {
        attempt.role == Role::Origin && !self.is_aside(attempt)
    }

    /// An attempt that waits asks the upstream of now; it may have come back after a change of the declaration.
    pub(super) fn asks_active(&self, attempt: AttemptRecord) -> AttemptRecord {
        let project = self.projects.get(&attempt.project);
        match project.and_then(Project::upstream).filter(|_| self.asks_upstream(&attempt)) {
            Some(upstream) if attempt.state.is_pending() => {
                AttemptRecord { upstream_host: upstream.host.clone(), ..attempt }
            }
            Some(_) | None => attempt,
        }
    }

    /// Pulls from another of the declared upstreams, from the next attempt on. The tree stays as it is, and guards
    /// judge what the other one has as they always do.
    pub(super) fn switch_upstream(
        &self,
        now: Now,
        uid: ProjectUid,
        uri: &str,
        revision: Option<u64>,
    ) -> Outcome {
        let project = self.find_project(uid)?;
        check_revision(project, revision)?;
        let spec = &project.record.spec;
        let Some(place) = spec.upstreams.iter().position(|upstream| upstream.uri == uri) else {
            let fault = Violation::new("upstream", "is none of the project's upstreams");
            return Err(Refusal::invalid("upstream not switched", vec![fault]));
        };
        let mut effects = Effects::of(self);
        effects.reply(Reply::Project(uid));
        if place == project.place() {
            return Ok(effects.decision());
        }
        let pulls = || self.attempts_of_project(uid).filter(|attempt| self.asks_upstream(attempt));
        if let Some(busy) = pulls().find(|attempt| attempt.state.is_out()) {
            let on = self.agents.get(&busy.agent).map_or("?", |agent| agent.name.as_str());
            let text = format!(
                "upstream of \"{}\" not switched: an attempt on agent \"{on}\" may be pulling from {}; cancel the run or wait",
                project.record.name, busy.upstream_host
            );
            return Err(Refusal::precondition("ATTEMPT_RUNNING", text));
        }
        let revision = project.record.revision + 1;
        let record = ProjectRecord { revision, update_time: now.wall, ..project.record.clone() };
        effects.put(Record::Project(Box::new(record)));
        effects.put(Record::ProjectState(ProjectState { upstream: stored(place), ..project.state.clone() }));
        for waiting in pulls().filter(|attempt| attempt.state.is_pending()) {
            let upstream_host = spec.upstreams[place].host.clone();
            effects.put(Record::Attempt(AttemptRecord { upstream_host, ..waiting.clone() }));
        }
        Ok(effects.decision())
    }
}
