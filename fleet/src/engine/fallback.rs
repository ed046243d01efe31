//! Which of its upstreams an origin pulls from. Nothing but a person's word changes which is preferred. Where a marker
//! tells how new a tree is, a run that cannot have it from there asks the others in their order, and every run begins with
//! the preferred one again: an upstream is asked once more only by another run, or after a long pause.
//!
//! An older tree never takes the place of what is served: see `behind.rs`. How hosts answer is in `hosts.rs`.

use std::{sync::Arc, time::Duration};

use super::{
    admit::{Wait, WaitReason},
    effects::Effects,
    people::{Outcome, check_revision},
    state::{Engine, Project},
};
use crate::{
    attempt::{AttemptRecord, End, FELL_BACK_CHARS_MAX, Role},
    id::ProjectUid,
    input::Reply,
    project::{ProjectRecord, ProjectSpec, ProjectState, Upstream},
    record::Record,
    refusal::{Refusal, Violation},
    run::RunRecord,
    time::Now,
};

impl Project {
    /// The preferred upstream, which every run asks first; `None`: people put the tree there.
    #[must_use]
    pub fn upstream(&self) -> Option<&Upstream> {
        self.record.spec.upstreams.get(self.place())
    }

    /// The upstreams in the order in which a run asks them. Without a marker that is the preferred one alone.
    fn line(&self) -> impl Iterator<Item = &Upstream> {
        let others =
            self.record.spec.upstreams.iter().enumerate().filter(|(place, _)| *place != self.place());
        let others = others.map(|(_, upstream)| upstream).filter(|_| self.record.spec.marker.is_some());
        self.upstream().into_iter().chain(others)
    }

    /// The upstream that an attempt is to ask, as it is declared now.
    pub(super) fn asked(&self, attempt: &AttemptRecord) -> Option<&Upstream> {
        asked_of(&self.record.spec, self.upstream(), attempt)
    }

    /// A waiting attempt, with what it is to ask once this is declared.
    pub(super) fn asking(&self, declared: &ProjectSpec, attempt: AttemptRecord) -> AttemptRecord {
        let preferred = declared.upstreams.get(self.place_in(&declared.upstreams));
        let asked = asked_of(declared, preferred, &attempt);
        let is_preferred = asked.map(|one| &one.uri) == preferred.map(|one| &one.uri);
        let fell_back = if is_preferred { String::new() } else { attempt.fell_back.clone() };
        asking(asked, fell_back, attempt)
    }

    /// A new try that asks what the one before it asked.
    pub(super) fn asking_as(&self, before: &AttemptRecord, next: AttemptRecord) -> AttemptRecord {
        if next.role != Role::Origin || before.fell_back.is_empty() {
            return next;
        }
        let (upstream_uri, fell_back) = (before.upstream_uri.clone(), before.fell_back.clone());
        self.asking(&self.record.spec, AttemptRecord { upstream_uri, fell_back, ..next })
    }

    /// The state once the declaration has these upstreams.
    pub(super) fn state_with(&self, declared: &[Upstream]) -> ProjectState {
        ProjectState { upstream: stored(self.place_in(declared)), ..self.state.clone() }
    }

    /// The upstream that an attempt was begun with, as it is declared now: the declaration may have changed since, and
    /// a secret goes to no other host.
    pub(super) fn upstream_of(&self, attempt: &AttemptRecord) -> Option<&Upstream> {
        let upstreams = || self.upstream().into_iter().chain(&self.record.spec.upstreams);
        let same = upstreams().find(|upstream| upstream.uri == attempt.upstream_uri);
        let same = same.or_else(|| upstreams().find(|upstream| upstream.host == attempt.upstream_host));
        same.filter(|_| attempt.role == Role::Origin && attempt.source.is_none())
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

/// The upstream that an attempt is to ask: where one was left for another, that other, while it may be asked.
fn asked_of<'a>(
    declared: &'a ProjectSpec,
    preferred: Option<&'a Upstream>,
    attempt: &AttemptRecord,
) -> Option<&'a Upstream> {
    let fell_back = declared.marker.is_some() && !attempt.fell_back.is_empty();
    let other = declared.upstreams.iter().find(|one| fell_back && one.uri == attempt.upstream_uri);
    other.or(preferred)
}

fn asking(upstream: Option<&Upstream>, fell_back: String, attempt: AttemptRecord) -> AttemptRecord {
    let (upstream_host, upstream_uri) =
        upstream.map(|one| (one.host.clone(), one.uri.clone())).unwrap_or_default();
    AttemptRecord { upstream_host, upstream_uri, fell_back, ..attempt }
}

/// Bounded: a cause is as long as its host made it.
fn cut(why: &str) -> String {
    why.chars().take(FELL_BACK_CHARS_MAX).collect()
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
        match project.filter(|one| self.asks_upstream(&attempt) && one.upstream().is_some()) {
            Some(project) if attempt.state.is_pending() => project.asking(&project.record.spec, attempt),
            Some(_) | None => attempt,
        }
    }

    /// The next upstream that a run may ask, after the one that this attempt of it asked. One whose host could not be
    /// reached lately is left out.
    pub(super) fn next_upstream<'a>(
        &self,
        now: Now,
        project: &'a Project,
        attempt: &AttemptRecord,
    ) -> Option<&'a Upstream> {
        let mut line = project.line().skip_while(|one| one.uri != attempt.upstream_uri).skip(1);
        line.find(|one| !self.is_shut(now, &one.host)).filter(|_| attempt.role == Role::Origin)
    }

    fn is_shut(&self, now: Now, host: &str) -> bool {
        let breaker = self.hosts.get(host).and_then(|state| state.breaker.as_ref());
        breaker.is_some_and(|breaker| breaker.until > now.mono)
    }

    /// The next attempt of the run asks another upstream, at once.
    pub(super) fn fall_back(
        &self,
        project: &Project,
        run: RunRecord,
        failed: &AttemptRecord,
        upstream: &Upstream,
        effects: &mut Effects<'_>,
    ) {
        let outcome = failed.state.end().and_then(End::outcome);
        let cause = outcome.map(|outcome| outcome.cause.as_str()).filter(|cause| !cause.is_empty());
        let why = format!("{}: {}", failed.upstream_host, cause.unwrap_or("it failed"));
        let number = run.attempts + 1;
        let next = self.new_attempt(project, failed.agent, run.id, number, failed.tree, 1, Duration::ZERO);
        effects.put(Record::Run(RunRecord { attempts: number, origin_attempt: number, ..run }));
        effects.put(Record::Attempt(asking(Some(upstream), cut(&why), next)));
    }

    /// An attempt that waits for a host that could not be reached lately, and for nothing but hosts, asks the next one.
    pub(super) fn passes_by(
        &self,
        now: Now,
        attempt: &AttemptRecord,
        waits: &[Wait],
    ) -> Option<AttemptRecord> {
        use WaitReason::{UpstreamBreaker, UpstreamSlots, UpstreamSpacing};
        let hosts_only = [UpstreamBreaker, UpstreamSlots, UpstreamSpacing];
        let shut = waits.iter().any(|wait| wait.reason == UpstreamBreaker);
        let project = self.projects.get(&attempt.project)?;
        let run = self.runs.get(&attempt.id.run).filter(|run| run.wish.makes_tree())?;
        let newest = run.origin_attempt == attempt.id.number;
        if !shut || !newest || !waits.iter().all(|wait| hosts_only.contains(&wait.reason)) {
            return None;
        }
        let upstream = self.next_upstream(now, project, attempt)?;
        let failures = self.hosts.get(&attempt.upstream_host).map_or(0, |state| state.failures);
        let why = format!("{} could not be reached {failures} times in a row", attempt.upstream_host);
        Some(asking(Some(upstream), cut(&why), attempt.clone()))
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
        let record = ProjectRecord { revision, update_time: now.wall, ..(*project.record).clone() };
        effects.put(Record::Project(Arc::new(record)));
        effects.put(Record::ProjectState(ProjectState { upstream: stored(place), ..project.state.clone() }));
        for waiting in pulls().filter(|attempt| attempt.state.is_pending()) {
            effects.put(Record::Attempt(asking(
                Some(&spec.upstreams[place]),
                String::new(),
                waiting.clone(),
            )));
        }
        Ok(effects.decision())
    }
}
