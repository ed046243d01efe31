//! What readers see of the engine: look-ups, and the reasons of waiting.

use std::collections::BTreeMap;

use super::{
    admit::{Blocker, Wait, WaitReason, remaining},
    state::{Engine, Project},
    usage::count,
};
use crate::{
    agent::{AgentRecord, JoinToken, PushToken, Session, UserRecord, UserToken},
    attempt::AttemptRecord,
    defaults::Limits,
    id::{AgentUid, AttemptId, Name, ProjectUid, RunId},
    run::RunRecord,
    time::{Now, Wall},
};

/// Why one attempt of a project waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// Which attempt.
    pub attempt: AttemptId,
    /// What holds it back.
    pub wait: Wait,
    /// When it clears by itself, by the wall clock.
    pub until: Option<Wall>,
    /// Its place in the line for that limit, from 1; 0 where there is no line.
    pub position: u32,
    /// How many stand in that line; 0 where there is no line.
    pub line: u32,
}

impl Engine {
    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// All projects, in order of their names.
    pub fn projects_by_name(&self) -> impl DoubleEndedIterator<Item = &Project> {
        self.project_names.values().filter_map(|uid| self.projects.get(uid))
    }

    /// The projects whose names come after `after`, in order.
    pub fn projects_after<'a>(&'a self, after: Option<&Name>) -> impl Iterator<Item = &'a Project> + use<'a> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.cloned().map_or(Unbounded, Excluded);
        self.project_names.range((from, Unbounded)).filter_map(|(_, uid)| self.projects.get(uid))
    }

    /// The projects whose names come before `before`, in falling order.
    pub fn projects_before<'a>(
        &'a self,
        before: Option<&Name>,
    ) -> impl Iterator<Item = &'a Project> + use<'a> {
        use std::ops::Bound::{Excluded, Unbounded};
        let to = before.cloned().map_or(Unbounded, Excluded);
        self.project_names.range((Unbounded, to)).rev().filter_map(|(_, uid)| self.projects.get(uid))
    }

    /// The projects that run after this one, in order of their uids.
    pub fn followers(&self, project: ProjectUid) -> impl Iterator<Item = &Project> {
        let of_it = (project, ProjectUid(0))..=(project, ProjectUid(u64::MAX));
        self.followers.range(of_it).filter_map(|(_, follower)| self.projects.get(follower))
    }

    /// The project with this name, ignoring case.
    #[must_use]
    pub fn project_named(&self, name: &Name) -> Option<&Project> {
        self.project_names.get(name).and_then(|uid| self.projects.get(uid))
    }

    /// The project with this uid.
    #[must_use]
    pub fn project(&self, uid: ProjectUid) -> Option<&Project> {
        self.projects.get(&uid)
    }

    /// All agents, in order of their names.
    pub fn agents_by_name(&self) -> impl Iterator<Item = &AgentRecord> {
        self.agent_names.values().filter_map(|uid| self.agents.get(uid))
    }

    /// The agent with this name, ignoring case.
    #[must_use]
    pub fn agent_named(&self, name: &Name) -> Option<&AgentRecord> {
        self.agent_names.get(name).and_then(|uid| self.agents.get(uid))
    }

    /// The agent with this uid.
    #[must_use]
    pub fn agent(&self, uid: AgentUid) -> Option<&AgentRecord> {
        self.agents.get(&uid)
    }

    /// The agent's session, if it has one now.
    #[must_use]
    pub fn session(&self, agent: AgentUid) -> Option<&Session> {
        self.sessions.get(&agent)
    }

    /// Attempts that may be on this agent.
    #[must_use]
    pub fn running_on(&self, agent: AgentUid) -> u32 {
        count(&self.usage.agents, &agent)
    }

    /// Projects placed on this agent.
    #[must_use]
    pub fn placed_on(&self, agent: AgentUid) -> usize {
        self.placements_on(agent).count()
    }

    /// A live run; ended ones are in the history.
    #[must_use]
    pub fn run(&self, id: RunId) -> Option<&RunRecord> {
        self.runs.get(&id)
    }

    /// A live attempt; ended ones are in the history.
    #[must_use]
    pub fn attempt(&self, id: AttemptId) -> Option<&AttemptRecord> {
        self.attempts.get(&id)
    }

    /// All live attempts of a run, in order.
    pub fn attempts_of(&self, run: RunId) -> impl Iterator<Item = &AttemptRecord> {
        let from = AttemptId { run, number: 0 };
        self.attempts.range(from..=AttemptId { run, number: u32::MAX }).map(|(_, attempt)| attempt)
    }

    /// All live attempts of a project, placement by placement.
    pub(super) fn attempts_of_project(&self, project: ProjectUid) -> impl Iterator<Item = &AttemptRecord> {
        let first = (project, AgentUid(0), AttemptId { run: RunId::NIL, number: 0 });
        let of_it = self.on_placement.range(first..).take_while(move |(uid, ..)| *uid == project);
        of_it.filter_map(|(_, _, id)| self.attempts.get(id))
    }

    /// All live attempts of a placement, oldest first.
    pub(super) fn attempts_on(
        &self,
        project: ProjectUid,
        agent: AgentUid,
    ) -> impl Iterator<Item = &AttemptRecord> {
        let first = (project, agent, AttemptId { run: RunId::NIL, number: 0 });
        let on_it = self.on_placement.range(first..);
        let on_it = on_it.take_while(move |(of, on, _)| (*of, *on) == (project, agent));
        on_it.filter_map(|(_, _, id)| self.attempts.get(id))
    }

    /// All live attempts.
    pub fn attempts(&self) -> impl Iterator<Item = &AttemptRecord> {
        self.attempts.values()
    }

    /// The live attempt of a placement: the one that may be on the agent before those that wait, and on an origin the
    /// active run's before the waiting run's.
    #[must_use]
    pub fn attempt_on(&self, project: ProjectUid, agent: AgentUid) -> Option<&AttemptRecord> {
        let first = AttemptId { run: RunId::NIL, number: 0 };
        let on_it = self.on_placement.range((project, agent, first)..);
        let on_it = on_it.take_while(|(uid, on, _)| (*uid, *on) == (project, agent));
        on_it.filter_map(|(_, _, id)| self.attempts.get(id)).min_by_key(|attempt| !attempt.state.is_out())
    }

    /// Attempts that wait for admission.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Attempts that may be on agents.
    #[must_use]
    pub fn out(&self) -> usize {
        self.attempts.len() - self.pending.len()
    }

    /// Join tokens, in order of their ids.
    pub fn join_tokens(&self) -> impl Iterator<Item = &JoinToken> {
        self.tokens.values()
    }

    /// The user with this name, ignoring case.
    #[must_use]
    pub fn user(&self, name: &Name) -> Option<&UserRecord> {
        self.users.get(&name.folded())
    }

    /// All users, in order of their names.
    pub fn users_by_name(&self) -> impl Iterator<Item = &UserRecord> {
        self.users.values()
    }

    /// The user's tokens, oldest first; expired ones may be among them.
    #[must_use]
    pub fn tokens_of(&self, user: &Name) -> Vec<&UserToken> {
        let mut tokens: Vec<&UserToken> =
            self.user_tokens.values().filter(|token| token.user == *user).collect();
        tokens.sort_by_key(|token| (token.create_time, &token.id));
        tokens
    }

    /// The tokens of all users, those that have ended included, in no order that means anything.
    pub fn user_tokens(&self) -> impl Iterator<Item = &UserToken> {
        self.user_tokens.values()
    }

    /// The user token with this id.
    #[must_use]
    pub fn user_token(&self, id: &str) -> Option<&UserToken> {
        self.user_tokens.get(id)
    }

    /// All push tokens, those that have ended included, in order of their ids.
    pub fn push_tokens(&self) -> impl Iterator<Item = &PushToken> {
        self.push_tokens.all()
    }

    /// The push token with this id.
    #[must_use]
    pub fn push_token(&self, id: &str) -> Option<&PushToken> {
        self.push_tokens.get(id)
    }

    /// When a waiting attempt's pause ends, if it has one.
    #[must_use]
    pub fn retry_time(&self, now: Now, attempt: AttemptId) -> Option<Wall> {
        let at = self.ready_at.get(&attempt).filter(|at| **at > now.mono)?;
        Some(now.wall.plus(remaining(now, *at)))
    }

    /// Why a project's waiting attempts do not start; the reason that clears last first. Empty: none waits.
    #[must_use]
    pub fn why(&self, now: Now, project: ProjectUid) -> Vec<Why> {
        self.reasons(now, |uid| uid == project).remove(&project).unwrap_or_default()
    }

    /// The same of every project of which something waits, in one look through the line.
    #[must_use]
    pub fn why_all(&self, now: Now) -> BTreeMap<ProjectUid, Vec<Why>> {
        self.reasons(now, |_| true)
    }

    fn reasons(&self, now: Now, wanted: impl Fn(ProjectUid) -> bool) -> BTreeMap<ProjectUid, Vec<Why>> {
        let mut lines: BTreeMap<(WaitReason, Blocker), u32> = BTreeMap::new();
        let mut found = Vec::new();
        for attempt in self.pending.iter().filter_map(|id| self.attempts.get(id)) {
            for wait in self.waits(now, attempt) {
                let line = queue_of(&wait, attempt).map(|blocker| (wait.reason, blocker));
                let position = line.clone().map_or(0, |line| {
                    let place = lines.entry(line).or_default();
                    *place += 1;
                    *place
                });
                if wanted(attempt.project) {
                    let until = wait.until.map(|at| now.wall.plus(remaining(now, at)));
                    let why = Why { attempt: attempt.id, wait, until, position, line: 0 };
                    found.push((attempt.project, line, why));
                }
            }
        }
        let length = |line: Option<(WaitReason, Blocker)>| line.and_then(|line| lines.get(&line)).copied();
        let mut all: BTreeMap<ProjectUid, Vec<Why>> = BTreeMap::new();
        for (project, line, why) in found {
            all.entry(project).or_default().push(Why { line: length(line).unwrap_or(0), ..why });
        }
        for reasons in all.values_mut() {
            // Without a time it may last longest of all.
            reasons.sort_by_key(|why| std::cmp::Reverse(why.until.map_or(i64::MAX, |until| until.0)));
        }
        all
    }
}

/// What attempts that wait for the same thing stand in line for; `None`: it is no line.
fn queue_of(wait: &Wait, attempt: &AttemptRecord) -> Option<Blocker> {
    match wait.reason {
        WaitReason::AgentSlots => Some(Blocker::Agent(attempt.agent)),
        WaitReason::VolumeSlots | WaitReason::FirstSync | WaitReason::DiskSpace => {
            Some(Blocker::Volume(attempt.agent, attempt.destination.root().to_owned()))
        }
        WaitReason::OriginUplink => wait.blockers.first().cloned(),
        // The line is the project's, whichever agents its replicas are on.
        WaitReason::MaxParallel => Some(Blocker::Project(attempt.project, AgentUid(0))),
        WaitReason::UpstreamSlots | WaitReason::UpstreamSpacing | WaitReason::UpstreamBreaker => {
            Some(Blocker::Host(attempt.upstream_host.clone()))
        }
        WaitReason::Paused
        | WaitReason::Archived
        | WaitReason::Frozen
        | WaitReason::RunActive
        | WaitReason::AgentAway
        | WaitReason::AgentDraining
        | WaitReason::Backoff
        | WaitReason::DestinationBusy
        | WaitReason::OriginAway
        | WaitReason::OriginNotServing
        | WaitReason::ReplicasPulling
        | WaitReason::OutsideWindow
        | WaitReason::NoSuchRoot => None,
    }
}
