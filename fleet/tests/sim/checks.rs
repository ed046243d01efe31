//! What must hold at every step: the rules of the model against what is put on disk, and against what really
//! happened on the machines.

mod alone;
mod guards;
mod life;
mod limits;
mod markers;
mod plans;
mod pushes;
mod replaced;
mod rest;
mod schedule;
mod serving;
mod sources;
mod units;

pub(crate) use plans::{Plans, is_left_out, is_step, steps_recorded};

use std::collections::{BTreeMap, BTreeSet};

use fleet::{
    Engine,
    agent::Root,
    attempt::{AttemptState, End},
    defaults::Limits,
    engine::WaitReason,
    id::{AgentUid, AttemptId, Epoch, ProjectUid, RunId},
    input::{Ask, Decision, Offer, Reply},
    outcome::{ExitClass, GuardKind, Outcome},
    project::Destination,
    record::{Change, Key, Record},
    run::RunState,
    time::{Mono, Now, Wall},
};

use crate::{
    cover::Fault,
    host::{Content, Work},
    shell::{agent_put, session_change},
    store::{Source, Store, Unit},
    world::World,
};

/// A success that is in an agent's journal: it must be recorded some day.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) host: usize,
    project: ProjectUid,
}

/// What was seen so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checks {
    limits: Limits,
    /// How pulls really ended, and what they fetched.
    pub(crate) pulled: BTreeMap<Work, (ExitClass, Content)>,
    pub(crate) kept: BTreeMap<Work, Kept>,
    begun: BTreeSet<Work>,
    /// Epochs of offers that are on disk.
    offers: BTreeSet<Epoch>,
    /// Where an origin's offer must send it, and whether it takes another upstream's place there.
    sources: BTreeMap<Epoch, (String, bool)>,
    last_said: Epoch,
    /// Triggers that a run must cover: its generation must not be below.
    wanted: BTreeMap<RunId, (ProjectUid, u64)>,
    cancelled: BTreeSet<(ProjectUid, RunId)>,
    fired: BTreeSet<(ProjectUid, u64, Wall)>,
    schedules: BTreeMap<ProjectUid, u64>,
    away_since: BTreeMap<AgentUid, Mono>,
    /// Origins' pulls that did not reach their upstream host.
    pub(crate) unreached: BTreeSet<Work>,
    gates: BTreeMap<String, limits::Gate>,
    upstreams: limits::Upstreams,
    /// What agents last told of their roots.
    disks: BTreeMap<AgentUid, Vec<Root>>,
    /// Reasons of waiting that were met.
    pub(crate) waited: BTreeMap<WaitReason, u64>,
    begun_alone: BTreeSet<(usize, ProjectUid, String, Wall)>,
    /// Until when agents have run a project's fires by themselves, by the count of its schedules.
    over_alone: BTreeMap<ProjectUid, (u64, Wall)>,
    /// Moves that have made something else than the tree.
    pub(crate) damaged: BTreeSet<Work>,
    /// What agents ran alone before they lost their state directories.
    pub(crate) unheard: BTreeSet<RunId>,
    /// Some clock was set.
    pub(crate) clock_stepped: bool,
    /// A backup was put back: what was recorded since is forgotten, so the machines know more than the store.
    restored: bool,
    serving: BTreeMap<Epoch, serving::Serving>,
    /// The true markers of versions.
    pub(crate) markers: BTreeMap<RunId, Option<i64>>,
    /// The newest true marker that each project served.
    served: BTreeMap<ProjectUid, i64>,
    /// What agents were doing when others took their places.
    pub(crate) fenced: BTreeSet<Work>,
    pub(crate) plans: Plans,
}

impl Checks {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A unit is about to be committed.
    pub(crate) fn unit(&mut self, store: &Store, unit: &Unit) -> Result<(), String> {
        self.check_attempts(store, unit)?;
        self.check_runs(store, unit)?;
        self.check_states(store, unit)?;
        self.check_guards(store, unit)?;
        sources::check_switches(store, unit)?;
        life::check_followers(store, unit)?;
        life::check_retries(store, unit)?;
        self.check_plans(store, unit)?;
        self.check_markers(store, unit)?;
        self.check_placements(store, unit)
    }

    /// A unit has been committed: how things hang together now.
    pub(crate) fn after(&self, store: &Store, unit: &Unit) -> Result<(), String> {
        let touched: BTreeSet<ProjectUid> = unit
            .changes
            .iter()
            .filter_map(|change| match change {
                Change::Put(record) => Some(record.key()),
                Change::Delete(key) => Some(key.clone()),
                Change::Volatile(_) => None,
            })
            .filter_map(|key| match key {
                Key::Project(uid) | Key::ProjectState(uid) | Key::Placement(uid, _) => Some(uid),
                Key::Run(uid, _) | Key::Attempt(uid, _) => Some(uid),
                Key::Fleet
                | Key::Agent(_)
                | Key::JoinToken(_)
                | Key::User(_)
                | Key::UserToken(_)
                | Key::PushToken(_)
                | Key::Request(_)
                | Key::Upstream(_)
                | Key::PlanStep(_)
                | Key::Trash(..) => None,
            })
            .collect();
        pushes::check_tokens(store, unit)?;
        touched.into_iter().try_for_each(|project| {
            self.check_project(store, project)?;
            life::check_archived(store, unit, project)?;
            sources::check_waiting(store, project)
        })
    }

    /// The engine has taken these changes at this moment.
    pub(crate) fn heard(&mut self, mono: Mono, changes: &[Change]) {
        for change in changes {
            match session_change(change) {
                Some((agent, true)) => drop(self.away_since.remove(&agent)),
                Some((agent, false)) => drop(self.away_since.insert(agent, mono)),
                None => {}
            }
        }
    }

    /// Whether nothing waits for this agent any more.
    fn given_up(&self, agent: AgentUid, mono: Mono) -> bool {
        self.away_since.get(&agent).is_some_and(|since| since.plus(self.limits.lost_after) <= mono)
    }

    /// A coordinator begins: every agent is away from now on.
    pub(crate) fn restarted(&mut self, mono: Mono, engine: &Engine) {
        self.plans.restarted();
        self.away_since = engine.agents_by_name().map(|agent| (agent.uid, mono)).collect();
        // How hosts answered is not stored; limits are, and what was decided may not have got there.
        self.restart_gates(mono, engine);
        self.upstreams =
            engine
                .records()
                .filter_map(|record| {
                    if let Record::Upstream(one) = record { Some((one.host.clone(), one)) } else { None }
                })
                .collect();
    }

    /// Agents that the store knows and nobody has ever seen come or go are away since they were entered.
    pub(crate) fn entered(&mut self, engine: &Engine, mono: Mono, changes: &[Change]) {
        for agent in changes.iter().filter_map(agent_put) {
            if engine.session(agent).is_none() {
                self.away_since.entry(agent).or_insert(mono);
            }
        }
    }

    /// A person was told that this run is being ended.
    pub(crate) fn cancelled(&mut self, project: ProjectUid, run: RunId) {
        self.cancelled.insert((project, run));
    }

    /// The store is an older one again.
    pub(crate) fn put_back(&mut self, old: Self) {
        self.wanted = old.wanted;
        self.fired = old.fired;
        self.schedules = old.schedules;
        self.over_alone = old.over_alone;
        self.cancelled = old.cancelled;
        self.plans.put_back(old.plans);
        self.restored = true;
    }

    /// An offer is said: it must be on disk, under an epoch above all others.
    pub(crate) fn offer_said(&mut self, offer: &Offer) -> Result<(), String> {
        if offer.epoch <= self.last_said {
            return Err(format!("epoch {} was offered after {}", offer.epoch, self.last_said));
        }
        self.last_said = offer.epoch;
        self.check_said_source(offer)
    }
}

/// Checks on what reaches the machines.
impl World {
    pub(crate) fn check_offer_heard(&mut self, work: Work) {
        if !self.checks.offers.contains(&work.1) {
            self.fail(format!("an agent heard an offer that is not on disk: {} under {}", work.0, work.1));
        }
    }

    /// I1, on the machine: never two pulls into one directory.
    pub(crate) fn check_one_writer(&mut self, host: usize, work: Work, destination: &Destination) {
        let trees = &self.hosts[host].trees;
        if let Some((other, _)) =
            trees.iter().find(|(dir, tree)| tree.is_written() && dir.overlaps(destination))
        {
            let text = format!("two pulls at once on host {host}: into {other} and into {destination}");
            self.fail(text);
        }
        if !self.checks.begun.insert(work) {
            self.fail(format!("{} was begun twice under {}", work.0, work.1));
        }
    }

    /// I1, in the engine: an agent's own rule had to stop a second attempt on a destination. That may only
    /// be so when the engine could not know of the first.
    pub(crate) fn check_double(&mut self, host: usize, work: Work, other: Work) {
        let project = self.offer_of(host, other).map(|offer| offer.project);
        let deleted = project.is_none_or(|uid| self.coordinator.store.project(uid).is_none());
        // What is not wanted any more goes on until its agent has ended it.
        let unwanted = other.1.is_autonomous() && self.is_cancelled(host, other);
        let fenced = self.checks.fenced.contains(&other);
        if !deleted && !unwanted && !fenced && !self.checks.restored {
            let record = project.and_then(|uid| self.coordinator.store.attempt(uid, other.0));
            let text = format!(
                "{} was offered under {} to host {host}, where {} under {} goes on; the disk says {record:?}",
                work.0, work.1, other.0, other.1
            );
            self.fail(text);
        }
    }

    /// A journal has an outcome on its disk: from now on a success must be recorded, whatever happens.
    pub(crate) fn check_outcome_kept(&mut self, host: usize, work: Work) {
        let good = self.outcome_of(host, work).is_some_and(|outcome| outcome.class == ExitClass::Ok);
        let project = self.offer_of(host, work).map(|offer| offer.project);
        if let Some(project) = project.filter(|_| good && !self.hosts[host].retired) {
            self.checks.kept.insert(work, Kept { host, project });
        }
    }

    /// Nothing that an agent holds is ever taken for lost; unless a person revokes the agent or puts another one in its
    /// place.
    pub(crate) fn check_lost(&mut self, unit: &Unit) {
        for attempt in unit.attempts() {
            let AttemptState::Ended { epoch, end: End::Lost | End::Cancelled(None), .. } = attempt.state
            else {
                continue;
            };
            if unit.source == Source::Person && attempt.state.offered().is_some() {
                self.cover.fault(Fault::Fenced);
                self.checks.fenced.insert((attempt.id, epoch));
            }
            if unit.source == Source::Person || attempt.state.end() != Some(&End::Lost) {
                continue;
            }
            if let Some(host) =
                self.host_of(attempt.agent).filter(|host| self.hosts[*host].holds((attempt.id, epoch)))
            {
                self.fail(format!("{} was taken for lost, and host {host} holds it", attempt.id));
            }
        }
    }

    /// The end of a simulation: everything asked for was done, everywhere.
    pub(crate) fn check_end(&mut self) {
        if let Err(text) = self.everything_was_done() {
            self.fail(text);
        }
    }

    fn everything_was_done(&self) -> Result<(), String> {
        let store = &self.coordinator.store;
        for ((id, epoch), kept) in self.checks.kept.iter().filter(|_| !self.checks.restored) {
            let recorded = store.attempt(kept.project, *id).is_some_and(|attempt| {
                attempt.state.epoch() == Some(*epoch) && attempt.state.end().is_some_and(was_good)
            });
            if !recorded
                && !self.checks.fenced.contains(&(*id, *epoch))
                && store.project(kept.project).is_some()
            {
                let record = store.attempt(kept.project, *id);
                return Err(format!(
                    "{id} succeeded on host {} under {epoch}, recorded: {record:?}",
                    kept.host
                ));
            }
        }
        for (run, (project, _)) in &self.checks.wanted {
            let found = store.run(*project, *run);
            if store.project(*project).is_some() && !found.is_some_and(|run| run.state.is_closed()) {
                return Err(format!("a trigger was accepted for run {run}, and its record is {found:?}"));
            }
        }
        self.checks.check_plans_kept(store, &self.people.plans, true)?;
        self.served_to_nobody_else()?;
        self.projects().into_iter().try_for_each(|project| {
            self.placed_as_declared(project)?;
            self.converged(project)
        })
    }

    /// Every agent of the project has the tree that the origin made last; really has it.
    fn converged(&self, uid: ProjectUid) -> Result<(), String> {
        let store = &self.coordinator.store;
        let tree = store.state(uid).and_then(|state| state.tree);
        let Some(tree) = tree else { return Err(format!("project {uid:?} never got a tree")) };
        let made = store.run(uid, tree);
        if made.is_none_or(|run| run.state != RunState::Succeeded) {
            return Err(format!("the last run of {uid:?} is {made:?}"));
        }
        let range =
            store.live.range(Key::Placement(uid, AgentUid(0))..=Key::Placement(uid, AgentUid(u64::MAX)));
        for (key, _) in range {
            let Key::Placement(_, agent) = key else { continue };
            let Some(placement) = store.placement(uid, *agent) else { continue };
            let really =
                self.host_of(*agent).and_then(|host| self.hosts[host].trees.get(&placement.destination));
            if placement.have_tree != Some(tree)
                || really.map(|tree| tree.content) != Some(Content::Tree(tree))
            {
                return Err(format!("{placement:?} should have {tree} and really has {really:?}"));
            }
        }
        Ok(())
    }
}

/// What follows from what a person asks is what was asked for, and no more.
pub(crate) fn check_answer(engine: &Engine, now: Now, ask: &Ask, decision: &Decision) -> Result<(), String> {
    match ask {
        Ask::ReplaceAgent { replacement, .. } => {
            replaced::check_replacement(engine, replacement, decision)?;
        }
        Ask::Push(push) => pushes::check_push(engine, now, push, decision)?,
        _ => plans::check_recorded(ask, decision)?,
    }
    let written = decision.changes.iter().find(|change| !matches!(change, Change::Volatile(_)));
    match (&decision.reply, written) {
        (Reply::Refused(refusal), Some(written)) => {
            Err(format!("{ask:?} was refused with {refusal}, and {written:?} was written"))
        }
        _ => Ok(()),
    }
}

/// The attempt's own words for where and what.
fn told(id: AttemptId, what: &str) -> String {
    format!("attempt {id}: {what}")
}

/// Whether all was copied, be it that the tree had shrunk then.
fn was_good(end: &End) -> bool {
    match end {
        End::Succeeded(_) => true,
        End::Held(outcome) => {
            let kind = outcome.evidence.as_ref().map(|evidence| evidence.kind);
            kind == Some(GuardKind::Shrink) || is_older(outcome)
        }
        End::Failed(outcome) => is_older(outcome),
        End::Cancelled(_) | End::Lost => false,
    }
}

/// Whether all was copied, and it turned out older than what is served.
fn is_older(outcome: &Outcome) -> bool {
    let kind = outcome.evidence.as_ref().map(|evidence| evidence.kind);
    kind == Some(GuardKind::UpstreamBehind) && outcome.stats.is_some()
}
