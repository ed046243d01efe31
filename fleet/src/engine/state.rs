//! The engine's state: live records, and what is derived from them. `apply` is the only way to change it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    autonomy::Autonomy,
    exports::Exports,
    hosts::{Hosts, host_of},
    plans::Plans,
    pushes::PushTokens,
    requests::Requests,
    timers::{Timer, Timers},
    trash::Trash,
    usage::Usage,
};
use crate::{
    agent::{AgentRecord, JoinToken, Session, UserRecord, UserToken},
    attempt::AttemptRecord,
    defaults::{self, Limits},
    id::{AgentUid, AttemptId, Epoch, Name, ProjectUid, RunId},
    placement::PlacementRecord,
    project::{Destination, ProjectRecord, ProjectState},
    record::{Change, FleetRecord, Key, Record},
    run::{RunRecord, RunState},
    time::{Mono, Now, Wall},
    upstream::UpstreamRecord,
};

/// All that is known of one project.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// What was declared.
    pub record: Arc<ProjectRecord>,
    /// What happened.
    pub state: ProjectState,
    /// Its placements.
    pub placements: BTreeMap<AgentUid, PlacementRecord>,
    /// Its live runs, oldest first: at most one that serves the tree, one active and one queued.
    pub runs: BTreeSet<RunId>,
}

/// The fleet, as far as it has happened.
#[derive(Debug, Clone, Default)]
pub struct Engine {
    pub(super) limits: Limits,
    pub(super) fleet: FleetRecord,
    pub(super) projects: BTreeMap<ProjectUid, Project>,
    pub(super) project_names: BTreeMap<Name, ProjectUid>,
    pub(super) agents: BTreeMap<AgentUid, AgentRecord>,
    pub(super) agent_names: BTreeMap<Name, AgentUid>,
    pub(super) tokens: BTreeMap<String, JoinToken>,
    pub(super) users: BTreeMap<String, UserRecord>,
    pub(super) user_tokens: BTreeMap<String, UserToken>,
    pub(super) push_tokens: PushTokens,
    pub(super) requests: Requests,
    pub(super) runs: BTreeMap<RunId, RunRecord>,
    pub(super) attempts: BTreeMap<AttemptId, AttemptRecord>,
    pub(super) upstreams: BTreeMap<String, UpstreamRecord>,
    pub(super) plans: Plans,
    pub(super) trash: Trash,

    // Known and not stored.
    pub(super) sessions: BTreeMap<AgentUid, Session>,
    /// The newest connection over which each agent said hello, open or not.
    pub(super) connections: BTreeMap<AgentUid, u64>,
    /// The newest start of each agent's program that said hello to this coordinator.
    pub(super) instances: BTreeMap<AgentUid, String>,
    pub(super) given_up: BTreeSet<AgentUid>,
    pub(super) hosts: Hosts,
    pub(super) ready_at: BTreeMap<AttemptId, Mono>,
    pub(super) propagating_since: BTreeMap<RunId, Mono>,
    pub(super) last_counter: u64,
    pub(super) last_run: Option<RunId>,

    // Derived.
    pub(super) usage: Usage,
    pub(super) pending: BTreeSet<AttemptId>,
    /// The live attempts of each placement, oldest first. Only an origin can have two: the active run's, and
    /// the waiting run's behind it.
    pub(super) on_placement: BTreeSet<(ProjectUid, AgentUid, AttemptId)>,
    pub(super) fires: BTreeSet<(Wall, ProjectUid)>,
    pub(super) pause_ends: BTreeSet<(Wall, ProjectUid)>,
    pub(super) timers: Timers,
    /// Every placement by its agent, so that an agent's coming and going costs what it holds.
    pub(super) placed: BTreeSet<(AgentUid, ProjectUid)>,
    /// Every placement by agent, root and path, so that two trees inside each other are found at once.
    pub(super) trees: BTreeSet<(AgentUid, String, String, ProjectUid)>,
    /// Where trees are being moved to: agent, root, path.
    pub(super) moving: BTreeSet<(AgentUid, String, String, ProjectUid)>,
    /// The public links of all projects: root, path.
    pub(super) links: BTreeSet<(String, String, ProjectUid)>,
    /// The agents with each label, without revoked ones.
    pub(super) labelled: BTreeMap<(String, String), BTreeSet<AgentUid>>,
    /// Which projects run after which: the one that is waited for first.
    pub(super) followers: BTreeSet<(ProjectUid, ProjectUid)>,
    /// Projects that select agents by labels.
    pub(super) selecting: BTreeSet<ProjectUid>,
    /// Placements that are not as declared and can be brought in line.
    pub(super) homes_due: BTreeSet<(ProjectUid, AgentUid)>,
    /// Placements that are not as declared and cannot be brought in line now.
    pub(super) homes_blocked: BTreeSet<(ProjectUid, AgentUid)>,
    /// The same by agent.
    pub(super) homes_blocked_on: BTreeSet<(AgentUid, ProjectUid)>,
    pub(super) exports: Exports,
    /// Replicas with work on which nothing is going; those that stand by come first.
    pub(super) idle_replicas: BTreeSet<(ProjectUid, Turn, AgentUid)>,
    pub(super) close_checks: BTreeSet<RunId>,
    pub(super) autonomy: Autonomy,
    /// Where the look through the waiting attempts goes on; `None`: nothing to look for.
    pub(super) scan_from: Option<AttemptId>,
    pub(super) scan_wake: Option<Mono>,
    /// Since when by the wall clock what waits for windows was looked at, and when the first of them opens.
    pub(super) openings: Option<(Wall, Wall)>,
}

/// Who begins to pull first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    Standby,
    Replica,
}

/// The place that an attempt works on, as the indexes have it.
fn place_of(attempt: &AttemptRecord) -> (AgentUid, String, String, ProjectUid) {
    let (root, path) = (attempt.destination.root(), attempt.destination.path());
    (attempt.agent, root.to_owned(), path.to_owned(), attempt.project)
}

pub(super) const LINE_START: AttemptId = AttemptId { run: RunId::NIL, number: 0 };

impl Engine {
    /// An empty fleet with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Makes `changes` true. Timers and pauses begin at `now`: after a restart they are granted in full.
    pub fn apply(&mut self, now: Now, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(record) => self.put(now, record),
                Change::Delete(key) => self.delete(key),
                Change::Volatile(volatile) => self.remember(now, volatile),
            }
        }
    }

    /// A fleet as its store remembers it. Every agent is away until its hello.
    #[must_use]
    pub fn recover(limits: Limits, now: Now, records: impl IntoIterator<Item = Record>) -> Self {
        let mut engine = Self::new(limits);
        // Any order of records must do, so the ones that others hang on come first.
        let (mut projects, mut rest) = (Vec::new(), Vec::new());
        for record in records {
            if let Record::Project(project) = record {
                projects.push(project);
            } else if matches!(record, Record::Fleet(_) | Record::Agent(_)) {
                engine.put(now, &record);
            } else {
                rest.push(record);
            }
        }
        for project in projects {
            engine.put_project(&project);
        }
        rest.sort_by_key(Record::key);
        for record in &rest {
            engine.put(now, record);
        }
        engine
    }

    /// Every live record, as the store must hold them.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let projects = self.projects.values().flat_map(|project| {
            [Record::Project(Arc::clone(&project.record)), Record::ProjectState(project.state.clone())]
                .into_iter()
                .chain(project.placements.values().cloned().map(Record::Placement))
        });
        std::iter::once(Record::Fleet(self.fleet.clone()))
            .chain(projects)
            .chain(self.agents.values().cloned().map(Record::Agent))
            .chain(self.tokens.values().cloned().map(Record::JoinToken))
            .chain(self.users.values().cloned().map(Record::User))
            .chain(self.user_tokens.values().cloned().map(Record::UserToken))
            .chain(self.push_tokens.all().cloned().map(Record::PushToken))
            .chain(self.requests.iter().cloned().map(Record::Request))
            .chain(self.runs.values().cloned().map(Record::Run))
            .chain(self.attempts.values().cloned().map(Record::Attempt))
            .chain(self.upstreams.values().cloned().map(Record::Upstream))
            .chain(self.plans.records())
            .chain(self.trash.records().cloned().map(Record::Trash))
    }

    fn put(&mut self, now: Now, record: &Record) {
        match record {
            Record::Fleet(fleet) => self.put_fleet(fleet),
            Record::Project(project) => self.put_project(project),
            Record::ProjectState(state) => self.put_project_state(state),
            Record::Placement(placement) => self.put_placement(placement),
            Record::Agent(agent) => self.put_agent(now, agent),
            Record::JoinToken(token) => {
                self.tokens.insert(token.id.clone(), token.clone());
            }
            Record::User(user) => {
                self.users.insert(user.name.folded(), user.clone());
            }
            Record::UserToken(token) => {
                self.user_tokens.insert(token.id.clone(), token.clone());
            }
            Record::PushToken(token) => self.push_tokens.put(token),
            Record::Request(request) => self.requests.put(request),
            Record::Run(run) => self.put_run(now, run),
            Record::Attempt(attempt) => self.put_attempt(now, attempt),
            Record::Upstream(upstream) => {
                self.upstreams.insert(upstream.host.clone(), upstream.clone());
                self.rescan();
            }
            Record::PlanStep(step) => self.plans.put(step),
            Record::LeftOut(left_out) => self.plans.leave_out(left_out),
            Record::Trash(record) => self.put_trash(record),
        }
    }

    fn put_fleet(&mut self, fleet: &FleetRecord) {
        if fleet.term != self.fleet.term {
            self.last_counter = 0;
        }
        if fleet.frozen.is_some() != self.fleet.frozen.is_some() {
            self.autonomy.touch_all();
        }
        self.fleet = fleet.clone();
        self.rescan();
    }

    fn put_project(&mut self, record: &Arc<ProjectRecord>) {
        if let Some(old) = self.projects.get(&record.uid) {
            self.project_names.remove(&old.record.name);
            if let Some(until) = old.record.paused.as_ref().and_then(|pause| pause.until) {
                self.pause_ends.remove(&(until, record.uid));
            }
        }
        self.project_names.insert(record.name.clone(), record.uid);
        if let Some(until) = record.paused.as_ref().and_then(|pause| pause.until) {
            self.pause_ends.insert((until, record.uid));
        }
        self.link_changed(record.uid, record.spec.link.as_ref());
        self.after_changed(record.uid, &record.spec.after);
        let (mut moved, mut renamed) = (true, true);
        match self.projects.get_mut(&record.uid) {
            Some(project) => {
                let (old, new) = (&project.record.spec, &record.spec);
                moved = (&old.placement, &old.destination, &old.link)
                    != (&new.placement, &new.destination, &new.link);
                renamed = !project.record.name.is_spelt_as(&record.name);
                project.record = Arc::clone(record);
            }
            None => {
                let project = Project {
                    record: Arc::clone(record),
                    state: ProjectState::new(record.uid),
                    placements: BTreeMap::new(),
                    runs: BTreeSet::new(),
                };
                self.projects.insert(record.uid, project);
            }
        }
        if moved {
            self.reindex_homes(record.uid);
        }
        if renamed {
            self.touch_exports(record.uid);
        }
        self.touch_standing_order(record.uid);
        self.rescan();
    }

    /// The project's public link is this one from now on.
    fn link_changed(&mut self, uid: ProjectUid, new: Option<&Destination>) {
        let key = |link: &Destination| (link.root().to_owned(), link.path().to_owned(), uid);
        let old = self.projects.get(&uid).and_then(|project| project.record.spec.link.as_ref()).map(key);
        if old == new.map(key) {
            return;
        }
        if let Some(old) = old {
            self.links.remove(&old);
            let agents: Vec<AgentUid> =
                self.projects.get(&uid).into_iter().flat_map(|one| one.placements.keys().copied()).collect();
            agents.into_iter().for_each(|agent| self.reindex_blocked_on(agent));
        }
        self.links.extend(new.map(key));
    }

    fn put_project_state(&mut self, state: &ProjectState) {
        let Some(project) = self.projects.get_mut(&state.uid) else { return };
        if let Some(fire) = project.state.next_fire {
            self.fires.remove(&(fire.at, state.uid));
        }
        if let Some(fire) = state.next_fire {
            self.fires.insert((fire.at, state.uid));
        }
        self.last_run = self.last_run.max(state.last_run.map(|last| last.run));
        let tree_changed = project.state.tree != state.tree;
        let fire_changed = project.state.next_fire != state.next_fire;
        project.state = state.clone();
        if tree_changed {
            let agents: Vec<AgentUid> = project.placements.keys().copied().collect();
            for agent in agents {
                self.reindex_replica(state.uid, agent);
            }
        }
        if fire_changed {
            self.touch_standing_order(state.uid);
        }
    }

    fn put_placement(&mut self, placement: &PlacementRecord) {
        let Some(project) = self.projects.get_mut(&placement.project) else { return };
        let old = project.placements.insert(placement.agent, placement.clone());
        self.placed.insert((placement.agent, placement.project));
        if !old.as_ref().is_some_and(|old| old.same_home(placement)) {
            self.home_changed(placement.project, placement.agent, old.as_ref(), Some(placement));
        }
        if old.is_some_and(|old| old.have_tree.is_some()) && placement.have_tree.is_none() {
            // Who waits to copy that tree waits in vain.
            self.rescan();
        }
        self.autonomy.touch(placement.agent, placement.project);
        self.reindex_replica(placement.project, placement.agent);
        self.check_closing(placement.project);
    }

    fn home_changed(
        &mut self,
        project: ProjectUid,
        agent: AgentUid,
        old: Option<&PlacementRecord>,
        new: Option<&PlacementRecord>,
    ) {
        self.placement_moved(project, agent, old, new);
        self.exports.touch(agent, project);
        self.touch_exports(project);
        self.rescan();
    }

    fn put_agent(&mut self, now: Now, record: &AgentRecord) {
        if let Some(old) = self.agents.get(&record.uid) {
            self.agent_names.remove(&old.name);
        } else if !self.sessions.contains_key(&record.uid) {
            self.timers.set(now.mono.plus(self.limits.lost_after), Timer::Away(record.uid));
        }
        self.agent_names.insert(record.name.clone(), record.uid);
        let old = self.agents.insert(record.uid, record.clone());
        self.relabel(old.as_ref(), record.uid);
        // What a standing order says follows from both.
        if old.as_ref().is_some_and(|old| (old.draining, old.caps) != (record.draining, record.caps)) {
            self.autonomy.touch_agent(record.uid);
        }
        if old.is_some_and(|old| old.revoked.is_some() != record.revoked.is_some()) {
            self.trash.touch(record.uid);
            let placed: Vec<ProjectUid> = self.placements_on(record.uid).collect();
            for project in placed {
                self.touch_exports(project);
            }
        }
        self.rescan();
    }

    fn put_run(&mut self, now: Now, run: &RunRecord) {
        self.last_run = self.last_run.max(Some(run.id));
        let was_propagating = self.propagating_since.contains_key(&run.id);
        let propagating = run.state == RunState::Propagating;
        if propagating && !was_propagating {
            self.propagating_since.insert(run.id, now.mono);
            let timeout = self.propagation_timeout(run.project);
            self.timers.set(now.mono.plus(timeout), Timer::Propagation(run.id));
            self.close_checks.insert(run.id);
        }
        if !propagating {
            self.stop_propagating(run.id);
        }
        if run.state.is_closed() {
            self.rescan();
        }
        let Some(project) = self.projects.get_mut(&run.project) else { return };
        if run.is_live() {
            project.runs.insert(run.id);
            self.runs.insert(run.id, run.clone());
        } else {
            project.runs.remove(&run.id);
            self.runs.remove(&run.id);
        }
    }

    fn stop_propagating(&mut self, run: RunId) {
        if self.propagating_since.remove(&run).is_some() {
            self.timers.end(Timer::Propagation(run));
        }
        self.close_checks.remove(&run);
    }

    fn propagation_timeout(&self, project: ProjectUid) -> Duration {
        self.projects
            .get(&project)
            .and_then(|project| project.record.spec.placement.propagation_timeout)
            .unwrap_or(defaults::PROPAGATION_TIMEOUT)
    }

    fn put_attempt(&mut self, now: Now, attempt: &AttemptRecord) {
        if let Some(donor) = self.reseed_from(attempt) {
            self.exports.touch(donor, attempt.project);
            self.exports.touch(attempt.agent, attempt.project);
        }
        if self.is_aside(attempt) {
            self.autonomy.touch(attempt.agent, attempt.project);
        }
        if let Some(old) = self.attempts.remove(&attempt.id) {
            self.hear_of_host(now, &old, attempt);
            self.forget_attempt(&old);
        }
        self.last_run = self.last_run.max(Some(attempt.id.run));
        let of_term = |epoch: &Epoch| epoch.term == self.fleet.term && !epoch.is_autonomous();
        if let Some(epoch) = attempt.state.epoch().filter(of_term) {
            self.last_counter = self.last_counter.max(epoch.counter);
        }
        if attempt.state.end().is_some() {
            self.autonomy.ended(attempt);
            self.ready_at.remove(&attempt.id);
            self.rescan();
        } else {
            if self.is_move(attempt) {
                self.moving.insert(place_of(attempt));
            }
            self.on_placement.insert((attempt.project, attempt.agent, attempt.id));
            self.attempts.insert(attempt.id, attempt.clone());
            if attempt.state.is_out() {
                self.went_out(now, attempt);
                if self
                    .projects
                    .get(&attempt.project)
                    .is_some_and(|project| project.has_other_source(attempt.agent))
                {
                    // While it changes its tree, replicas are sent to the next one.
                    self.rescan();
                }
            } else {
                self.joins_line(now, attempt);
            }
        }
        if self.homes_blocked.contains(&(attempt.project, attempt.agent)) {
            self.reindex_home(attempt.project, attempt.agent);
        }
        self.reindex_replica(attempt.project, attempt.agent);
        self.check_closing(attempt.project);
    }

    /// What the step of an attempt that was out says of the host it asked.
    fn hear_of_host(&mut self, now: Now, old: &AttemptRecord, new: &AttemptRecord) {
        let Some(host) = host_of(old).filter(|_| old.state.is_out()) else { return };
        if let Some(end) = new.state.end() {
            self.hosts.ended(now, host, old.id, end.outcome());
        } else if new.state.is_pending() {
            self.hosts.free_probe(host, old.id);
            self.rescan();
        }
    }

    /// Takes an attempt out of all that is derived from it.
    fn forget_attempt(&mut self, old: &AttemptRecord) {
        self.pending.remove(&old.id);
        if old.state.is_out() {
            self.usage.remove(old);
            if let Some(epoch) = old.state.epoch() {
                self.timers.end(Timer::Offer(old.id, epoch));
            }
        }
        self.on_placement.remove(&(old.project, old.agent, old.id));
        if self.moving.remove(&place_of(old)) {
            self.reindex_blocked_on(old.agent);
        }
    }

    fn went_out(&mut self, now: Now, attempt: &AttemptRecord) {
        self.usage.add(attempt);
        if self.given_up.contains(&attempt.agent) {
            self.usage.remove_remote(attempt);
        }
        if let crate::attempt::AttemptState::Offered { epoch, .. } = attempt.state {
            self.timers.set(now.mono.plus(self.limits.offer_timeout), Timer::Offer(attempt.id, epoch));
            self.ready_at.remove(&attempt.id);
            if let Some(host) = host_of(attempt) {
                self.hosts.started(now, host, attempt.id);
            }
        }
    }

    fn joins_line(&mut self, now: Now, attempt: &AttemptRecord) {
        if let crate::attempt::AttemptState::Pending { delay } = attempt.state {
            self.ready_at.entry(attempt.id).or_insert_with(|| now.mono.plus(delay));
        }
        self.pending.insert(attempt.id);
        self.scan_from = Some(self.scan_from.map_or(attempt.id, |from| from.min(attempt.id)));
    }

    fn delete(&mut self, key: &Key) {
        match key {
            Key::Fleet => self.fleet = FleetRecord::default(),
            Key::Project(uid) => self.delete_project(*uid),
            Key::ProjectState(_) => {}
            Key::Placement(project, agent) => {
                let owner = self.projects.get_mut(project);
                let old = owner.and_then(|owner| owner.placements.remove(agent));
                self.placed.remove(&(*agent, *project));
                self.autonomy.touch(*agent, *project);
                self.forget_idle(*project, *agent);
                self.home_changed(*project, *agent, old.as_ref(), None);
                self.check_closing(*project);
            }
            Key::Agent(uid) => {
                if let Some(agent) = self.agents.remove(uid) {
                    self.agent_names.remove(&agent.name);
                    self.relabel(Some(&agent), *uid);
                }
                self.given_up.remove(uid);
                self.connections.remove(uid);
                self.instances.remove(uid);
                self.timers.end(Timer::Away(*uid));
            }
            Key::JoinToken(id) => {
                self.tokens.remove(id);
            }
            Key::User(name) => {
                self.users.remove(name);
            }
            Key::UserToken(id) => {
                self.user_tokens.remove(id);
            }
            Key::PushToken(id) => self.push_tokens.remove(id),
            Key::Request(key) => self.requests.remove(key),
            Key::Run(project, run) => {
                self.runs.remove(run);
                if let Some(project) = self.projects.get_mut(project) {
                    project.runs.remove(run);
                }
            }
            Key::Attempt(_, id) => {
                if let Some(old) = self.attempts.remove(id) {
                    self.hosts.free_probe(&old.upstream_host, old.id);
                    self.forget_attempt(&old);
                }
            }
            Key::Upstream(host) => {
                self.upstreams.remove(host);
                self.rescan();
            }
            Key::PlanStep(number) => self.plans.remove(*number),
            Key::Trash(agent, project) => self.delete_trash(*agent, *project),
        }
    }

    fn delete_project(&mut self, uid: ProjectUid) {
        self.link_changed(uid, None);
        self.after_changed(uid, &[]);
        let Some(project) = self.projects.remove(&uid) else { return };
        self.project_names.remove(&project.record.name);
        if let Some(fire) = project.state.next_fire {
            self.fires.remove(&(fire.at, uid));
        }
        if let Some(until) = project.record.paused.as_ref().and_then(|pause| pause.until) {
            self.pause_ends.remove(&(until, uid));
        }
        for run in &project.runs {
            self.runs.remove(run);
            self.stop_propagating(*run);
        }
        for (agent, placement) in &project.placements {
            self.placed.remove(&(*agent, uid));
            self.autonomy.touch(*agent, uid);
            self.forget_idle(uid, *agent);
            self.placement_moved(uid, *agent, Some(placement), None);
            self.exports.touch(*agent, uid);
        }
        self.reindex_homes(uid);
        self.rescan();
    }

    /// An agent came, went or was given up: what waits for it must be looked at again.
    pub(super) fn agent_changed(&mut self, agent: AgentUid) {
        let placed: Vec<ProjectUid> = self.placements_on(agent).collect();
        for project in placed {
            self.reindex_replica(project, agent);
            self.check_closing(project);
        }
        self.rescan();
    }

    /// The projects placed on an agent.
    pub(super) fn placements_on(&self, agent: AgentUid) -> impl Iterator<Item = ProjectUid> + '_ {
        let last = ProjectUid(u64::MAX);
        self.placed.range((agent, ProjectUid(0))..=(agent, last)).map(|(_, project)| *project)
    }

    /// Whether this placement is a replica that has work, whose agent is here, and on which nothing is going.
    pub(super) fn reindex_replica(&mut self, project: ProjectUid, agent: AgentUid) {
        self.forget_idle(project, agent);
        let owner = self.projects.get(&project);
        let has_work = owner.and_then(|owner| {
            let tree = owner.state.tree.filter(|tree| self.runs.contains_key(tree));
            owner.placements.get(&agent).filter(|placement| placement.has_work(tree))
        });
        let turn = has_work.map(|one| if one.standby { Turn::Standby } else { Turn::Replica });
        let idle = self.sessions.contains_key(&agent) && self.attempt_on(project, agent).is_none();
        if let Some(turn) = turn.filter(|_| idle) {
            self.idle_replicas.insert((project, turn, agent));
        }
    }

    fn forget_idle(&mut self, project: ProjectUid, agent: AgentUid) {
        for turn in [Turn::Standby, Turn::Replica] {
            self.idle_replicas.remove(&(project, turn, agent));
        }
    }

    pub(super) fn check_closing(&mut self, project: ProjectUid) {
        let Some(project) = self.projects.get(&project) else { return };
        let propagating =
            project.runs.iter().filter(|run| self.propagating_since.contains_key(*run)).copied();
        self.close_checks.extend(propagating.collect::<Vec<_>>());
    }

    /// Something may have become free: everything that waits is asked again.
    pub(super) fn rescan(&mut self) {
        self.scan_from = Some(LINE_START);
    }

    pub(super) fn last_counter(&self) -> u64 {
        self.last_counter
    }

    /// The uid that the next project or agent gets. From 1: on the wire 0 means "not given".
    pub(super) fn next_uid(&self) -> u64 {
        self.fleet.next_uid.max(1)
    }

    /// The fleet's own record.
    #[must_use]
    pub fn fleet(&self) -> &FleetRecord {
        &self.fleet
    }

    /// When the next `Tick` has something to do: `Duration::ZERO` at once, `None` never (until something
    /// happens).
    #[must_use]
    pub fn next_deadline(&self, now: Now) -> Option<Duration> {
        let due = self.exports.due(now.wall.day()).is_some()
            || !self.homes_due.is_empty()
            || self.autonomy.due().is_some()
            || self.trash.due().is_some()
            || self.step_due().is_some();
        if due || !self.idle_replicas.is_empty() || !self.close_checks.is_empty() {
            return Some(Duration::ZERO);
        }
        if self.scan_from.is_some() && !self.pending.is_empty() {
            return Some(Duration::ZERO);
        }
        let fire = self.fires.first().map(|(at, _)| at.since(now.wall));
        let pause = self.pause_ends.first().map(|(at, _)| at.since(now.wall));
        let timer = self.timers.first().map(|(at, _)| at.since(now.mono));
        let wake = self.scan_wake.filter(|_| !self.pending.is_empty()).map(|at| at.since(now.mono));
        let opening = self.openings.filter(|_| !self.pending.is_empty());
        // A clock that was set back may read the inside of a window again.
        let opening =
            opening.map(|(looked, at)| if now.wall < looked { Duration::ZERO } else { at.since(now.wall) });
        let day = self.exports.next_day(now.wall).map(|at| at.since(now.wall));
        [fire, pause, timer, wake, opening, day].into_iter().flatten().min()
    }
}
