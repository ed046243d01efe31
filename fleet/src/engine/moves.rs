//! A tree is moved to another place on its agent, as when a volume is full or is to be replaced. Such a run is a person's
//! wish for one placement: the agent copies the tree, proves the copy, and points the public link at it; only then the
//! placement and the declaration say the new place. The old tree does not change meanwhile, so that replicas go on
//! pulling from it, and is never removed.
//!
//! ```text
//!   Ask::Move ──▶ run { wish.moves } + its first attempt, on the new place     no other attempt begins on the placement
//!   offer     ──▶ PlacementRecord::half_moved: what is at the new place is the move's own
//!   success   ──▶ placement.destination, and an entry of the declaration that names the agent, in one commit
//!   else      ──▶ the placement is where it was; another move to that place goes on from what is there
//! ```
//!
//! Knows no rsync, no link, and no path of a host.

use std::{sync::Arc, time::Duration};

use super::{
    effects::Effects,
    people::{Outcome, check_revision},
    state::{Engine, Project},
};
use crate::{
    agent::Root,
    attempt::{AttemptRecord, End},
    id::{AgentUid, ProjectUid, RunId},
    input::Reply,
    outcome::ExitClass,
    placement::PlacementRecord,
    project::{Destination, ProjectRecord, REPLICA_TARGETS_MAX},
    record::Record,
    refusal::Refusal,
    retry::Verdict,
    run::{Move, RunRecord, RunState, Trigger, TriggerKind, Wish},
    time::Now,
    words::{bytes, commas},
};

impl Engine {
    /// The way on which this attempt takes a tree; `None`: it moves none.
    pub(super) fn way_of(&self, attempt: &AttemptRecord) -> Option<&Move> {
        self.runs.get(&attempt.id.run)?.wish.moves.as_ref()
    }

    pub(super) fn is_move(&self, attempt: &AttemptRecord) -> bool {
        self.way_of(attempt).is_some()
    }

    /// Whether an attempt concerns its placement alone, beside the project's runs.
    pub(super) fn is_aside(&self, attempt: &AttemptRecord) -> bool {
        self.is_reseed(attempt) || self.is_move(attempt)
    }

    /// Where the tree of a placement is being moved to, while a person's wish for that is open.
    #[must_use]
    pub fn moving_to(&self, project: ProjectUid, agent: AgentUid) -> Option<&Destination> {
        self.attempts_on(project, agent).find_map(|attempt| self.way_of(attempt)).map(|way| &way.to)
    }

    /// Whether an attempt may be changing the tree that the agent serves. A move changes none.
    pub(super) fn is_changed(&self, project: ProjectUid, agent: AgentUid) -> bool {
        self.attempts_on(project, agent).any(|own| own.state.is_out() && !self.is_move(own))
    }

    /// Begins to move a tree.
    #[expect(clippy::too_many_arguments, reason = "they are the fields of one request")]
    pub(super) fn move_tree(
        &self,
        now: Now,
        by: String,
        uid: ProjectUid,
        agent: AgentUid,
        to: Destination,
        revision: Option<u64>,
        traceparent: String,
    ) -> Outcome {
        let project = self.find_project(uid)?;
        check_revision(project, revision)?;
        let placement = self.check_move(project, agent, &to)?;
        let mut effects = Effects::of(self);
        let id = RunId::mint(now.wall.0, now.entropy, self.last_run.unwrap_or(RunId::NIL));
        let way = Move { from: placement.destination.clone(), to };
        let trigger = Trigger { kind: TriggerKind::User, by, time: now.wall, autonomous: false };
        effects.put(Record::Run(RunRecord {
            by_person: true,
            traceparent,
            wish: Wish { moves: Some(way.clone()), ..Wish::default() },
            ..RunRecord::queued(id, uid, trigger, now.wall)
        }));
        effects.put(Record::Attempt(self.move_attempt_of(
            project,
            placement,
            id,
            1,
            &way,
            1,
            Duration::ZERO,
        )));
        effects.reply(Reply::Run { project: uid, run: id, coalesced: false, notes: Vec::new() });
        Ok(effects.decision())
    }

    /// One try of a move: it works on the new place, and takes one of the volume's turns for first copies.
    #[expect(clippy::too_many_arguments, reason = "each is a different fact of one new record")]
    fn move_attempt_of(
        &self,
        project: &Project,
        placement: &PlacementRecord,
        run: RunId,
        number: u32,
        way: &Move,
        tries: u32,
        delay: Duration,
    ) -> AttemptRecord {
        let tree = placement.have_tree.unwrap_or(run);
        AttemptRecord {
            destination: way.to.clone(),
            first_sync: true,
            upstream_host: String::new(),
            upstream_uri: String::new(),
            ..self.new_attempt(project, placement.agent, run, number, tree, tries, delay)
        }
    }

    /// All that speaks against it, with what to do about it.
    fn check_move<'a>(
        &self,
        project: &'a Project,
        agent: AgentUid,
        to: &Destination,
    ) -> Result<&'a PlacementRecord, Refusal> {
        let record = self.find_agent(agent)?;
        let (uid, name, host) = (project.record.uid, &project.record.name, &record.name);
        let mut faults: Vec<(&'static str, String)> = Vec::new();
        if record.revoked.is_some() {
            faults.push(("AGENT_REVOKED", "the agent is revoked".to_owned()));
        } else if !self.sessions.contains_key(&agent) {
            faults.push(("AGENT_AWAY", "the agent has no session; start it".to_owned()));
        }
        let placement = project.placements.get(&agent);
        match placement {
            None => {
                let text = format!("the agent is not of the project; see mirrorctl project show {name}");
                faults.push(("NOT_PLACED", text));
            }
            Some(placement) if placement.have_tree.is_none() => {
                let text = format!(
                    "there is no whole tree on it, so nothing to move; declare the new place instead \
                     (mirrorctl project edit {name} --help)"
                );
                faults.push(("NO_TREE", text));
            }
            Some(_) => {}
        }
        if let Some(way) = self.attempts_on(uid, agent).find_map(|attempt| self.way_of(attempt)) {
            let text = format!(
                "it is being moved to {} already; follow it with mirrorctl why {name}, or cancel that run",
                way.to
            );
            faults.push(("MOVE_OPEN", text));
        }
        if self.donor_of(uid, agent).is_some() {
            let text =
                format!("it is being reseeded; follow that with mirrorctl why {name}, or cancel that run");
            faults.push(("RESEED_OPEN", text));
        }
        if let Some(placement) = placement {
            faults.extend(self.place_faults(project, placement, to));
            let named = project.record.spec.placement.replicas.len();
            let adds = self.spec_with_home(&project.record.spec, agent, to);
            if adds.is_some_and(|spec| spec.placement.replicas.len() > named.max(REPLICA_TARGETS_MAX)) {
                let text = format!(
                    "the project's declaration has {named} entries of replicas and the agent needs one of its own; at \
                     most {REPLICA_TARGETS_MAX} are possible"
                );
                faults.push(("TOO_MANY_ENTRIES", text));
            }
        }
        match (placement, faults.first()) {
            (Some(placement), None) => Ok(placement),
            (_, first) => {
                let reason = first.map_or("NOT_PLACED", |(reason, _)| *reason);
                let whys: Vec<&str> = faults.iter().map(|(_, why)| why.as_str()).collect();
                let text = format!("\"{name}\" on \"{host}\" not moved to {to}: {}", whys.join("; "));
                Err(Refusal::precondition(reason, text))
            }
        }
    }

    /// The declaration of a project whose tree on the agent has moved; `None`: the agent is not of the project.
    #[must_use]
    pub fn record_after_move(
        &self,
        now: Now,
        project: &Project,
        agent: AgentUid,
        to: &Destination,
    ) -> Option<ProjectRecord> {
        let spec = self.spec_with_home(&project.record.spec, agent, to)?;
        let revision = project.record.revision + 1;
        Some(ProjectRecord { spec, revision, update_time: now.wall, ..(*project.record).clone() })
    }

    /// What speaks against the new place.
    fn place_faults(
        &self,
        project: &Project,
        placement: &PlacementRecord,
        to: &Destination,
    ) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let (agent, old) = (placement.agent, &placement.destination);
        if old == to {
            faults.push(("SAME_PLACE", "its tree is there already".to_owned()));
        } else if old.overlaps(to) {
            faults.push(("PLACE_TAKEN", format!("the place lies inside or around the tree's own, {old}")));
        }
        if let Some(link) = project.record.spec.link.as_ref().filter(|link| link.overlaps(to)) {
            faults
                .push(("PLACE_TAKEN", format!("the place lies inside, around or at the public link {link}")));
        }
        if let Some(text) = self.taken_by(agent, to, project.record.uid) {
            faults.push(("PLACE_TAKEN", text));
        }
        let Some(session) = self.sessions.get(&agent) else { return faults };
        match session.facts.roots.iter().find(|root| root.name == to.root()) {
            None => {
                let known: Vec<&str> = session.facts.roots.iter().map(|root| root.name.as_str()).collect();
                let text = format!(
                    "the agent's own file has no root \"{}\" (it has {})",
                    to.root(),
                    known.join(", ")
                );
                faults.push(("NO_SUCH_ROOT", text));
            }
            // How much of it is there already only the agent sees; its own floor is what stops that one.
            Some(_) if placement.half_moved.as_ref() == Some(to) => {}
            Some(root) => faults.extend(self.lack_of_room(root, placement).map(|text| ("NO_ROOM", text))),
        }
        faults
    }

    fn lack_of_room(&self, root: &Root, placement: &PlacementRecord) -> Option<String> {
        let reserve = root.reserve_bytes(&self.limits);
        let wanted = placement.size_bytes.saturating_add(reserve);
        if root.free_bytes < wanted {
            return Some(format!(
                "root \"{}\" lacks ~{} above its reserve of {} for the {} of the tree",
                root.name,
                bytes(wanted - root.free_bytes),
                bytes(reserve),
                bytes(placement.size_bytes)
            ));
        }
        let inodes = placement.files.saturating_add(root.reserve_inodes(&self.limits));
        (root.total_inodes > 0 && root.free_inodes < inodes).then(|| {
            format!(
                "root \"{}\" has {} inodes free, the tree's {} files and its reserve need {}",
                root.name,
                commas(root.free_inodes),
                commas(placement.files),
                commas(inodes)
            )
        })
    }

    /// From the offer on there may be files at the new place.
    pub(super) fn begin_move(&self, placement: &PlacementRecord, way: &Move, effects: &mut Effects<'_>) {
        if placement.half_moved.as_ref() != Some(&way.to) {
            let half_moved = Some(way.to.clone());
            effects.put(Record::Placement(PlacementRecord { half_moved, ..placement.clone() }));
        }
    }

    /// What follows from the end of a move's attempt: the tree is at the new place, or where it was. A try that its host
    /// broke off goes on; with anything else somebody has to look.
    #[expect(clippy::too_many_arguments, reason = "they are the facts of one end")]
    pub(super) fn after_move(
        &self,
        now: Now,
        project: &Project,
        run: RunRecord,
        way: &Move,
        attempt: &AttemptRecord,
        end: &End,
        effects: &mut Effects<'_>,
    ) {
        let class = match end {
            End::Succeeded(_) => {
                // Who lost the placement by a declaration meanwhile has copied it for nothing.
                let moved = self.moved(now, project, way, attempt, effects);
                let state = if moved { RunState::Succeeded } else { RunState::Cancelled };
                return self.close_run(now, run, state, effects);
            }
            End::Cancelled(_) => return self.close_run(now, run, RunState::Cancelled, effects),
            End::Held(_) => return self.close_run(now, run, RunState::Failed, effects),
            End::Failed(outcome) => outcome.class,
            End::Lost => ExitClass::Interrupted,
        };
        let passes = matches!(class, ExitClass::Interrupted | ExitClass::Busy) && effects.retries();
        let placement = project.placements.get(&attempt.agent);
        match (self.verdict(now, project, attempt, class), placement) {
            (Verdict::Again(delay), Some(placement)) if passes => {
                let (number, tries) = (run.attempts + 1, attempt.attempt_try + 1);
                let next = self.move_attempt_of(project, placement, run.id, number, way, tries, delay);
                effects.put(Record::Run(RunRecord { attempts: number, origin_attempt: number, ..run }));
                effects.put(Record::Attempt(next));
            }
            (Verdict::Again(_) | Verdict::GiveUp, _) => self.close_run(now, run, RunState::Failed, effects),
        }
    }

    /// The tree lives at the new place: the placement and the declaration say so in the same commit, and what waits for
    /// its turn on the agent goes there. False: the project has no tree on the agent any more.
    fn moved(
        &self,
        now: Now,
        project: &Project,
        way: &Move,
        attempt: &AttemptRecord,
        effects: &mut Effects<'_>,
    ) -> bool {
        let (uid, agent) = (attempt.project, attempt.agent);
        let Some(placement) = project.placements.get(&agent) else { return false };
        let Some(record) = self.record_after_move(now, project, agent, &way.to) else {
            // Its labels were taken away meanwhile: it is no more of the project, wherever the tree lies now.
            self.rehome(project, &project.record, agent, effects);
            return false;
        };
        effects.put(Record::Project(Arc::new(record)));
        effects.put(Record::Placement(PlacementRecord {
            destination: way.to.clone(),
            half_moved: None,
            ..placement.clone()
        }));
        // Whoever still pulls from the old place goes on, and then once more: it may be removed at any time now.
        self.mix_replicas(project, agent, effects);
        for waiting in self.attempts_on(uid, agent).filter(|one| one.state.is_pending()) {
            effects.put(Record::Attempt(AttemptRecord { destination: way.to.clone(), ..waiting.clone() }));
        }
        true
    }
}
