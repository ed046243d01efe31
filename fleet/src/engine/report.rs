//! What agents say of attempts, and what follows: retries, tree versions, propagation, holds.

use std::time::Duration;

use super::{
    behind::{is_spent, met_behind, note_behind, pulled_older},
    effects::Effects,
    guard::Held,
    hosts::{Hearing, hearing, host_of},
    state::{Engine, Project},
};
use crate::{
    attempt::{AttemptEvent, AttemptRecord, AttemptState, End, Role},
    defaults,
    id::{AgentUid, AttemptId, Epoch, RunId},
    input::{CloseReason, Decision, Message, NotTaken, Send},
    outcome::{ExitClass, GuardKind, Outcome},
    placement::PlacementRecord,
    project::ProjectState,
    record::{Change, Record, Volatile},
    retry::{Verdict, verdict},
    run::{Missed, RunRecord, RunState},
    time::{Now, Wall},
};

impl Engine {
    /// The attempt, if this agent may speak of it. An agent that speaks of another's gets nothing changed.
    fn own_attempt(&self, agent: AgentUid, id: AttemptId) -> Option<&AttemptRecord> {
        self.attempts.get(&id).filter(|attempt| attempt.agent == agent)
    }

    pub(super) fn accepted(&self, now: Now, agent: AgentUid, id: AttemptId, epoch: Epoch) -> Decision {
        let Some(attempt) = self.own_attempt(agent, id) else { return Decision::nothing() };
        let mut effects = Effects::of(self);
        if let Ok(state) = attempt.state.on(AttemptEvent::Accept(epoch), now.wall) {
            effects.put(Record::Attempt(AttemptRecord { state, ..attempt.clone() }));
        }
        effects.decision()
    }

    pub(super) fn refused(
        &self,
        now: Now,
        agent: AgentUid,
        id: AttemptId,
        epoch: Epoch,
        why: NotTaken,
        detail: &str,
    ) -> Decision {
        let Some(attempt) = self.own_attempt(agent, id) else { return Decision::nothing() };
        let mut effects = Effects::of(self);
        let goes_back = matches!(attempt.state, AttemptState::Cancelling { .. }) || why == NotTaken::Stopping;
        if why == NotTaken::Forbidden {
            let outcome = Outcome {
                cause: detail.to_owned(),
                fault: "yours".to_owned(),
                advice: "change the project, or the agent's own file on its host".to_owned(),
                time: now.wall,
                ..Outcome::of_class(ExitClass::RejectedByAgent)
            };
            let event = AttemptEvent::End(epoch, outcome);
            self.move_attempt(now, attempt, event, &mut effects);
        } else if goes_back {
            let moved = self.move_attempt(now, attempt, AttemptEvent::Return(epoch), &mut effects);
            if moved && why == NotTaken::Stopping {
                self.close_stopping(agent, &mut effects);
            }
        } else if attempt.state.on(AttemptEvent::Return(epoch), now.wall).is_ok() {
            // Busy for a reason we do not see: ask again, but not in a loop.
            let outcome =
                Outcome { cause: detail.to_owned(), time: now.wall, ..Outcome::of_class(ExitClass::Busy) };
            self.move_attempt(now, attempt, AttemptEvent::End(epoch, outcome), &mut effects);
        }
        effects.decision()
    }

    /// Ends the session of an agent that is being stopped, so that nothing is offered to it until its next hello.
    fn close_stopping(&self, agent: AgentUid, effects: &mut Effects<'_>) {
        let Some(session) = self.sessions.get(&agent) else { return };
        effects.change(Change::Volatile(Volatile::SessionClosed(agent, session.epoch)));
        let message = Message::Close(CloseReason::AgentStopping);
        effects.send(Send { agent, session: session.epoch, message });
    }

    pub(super) fn ended(
        &self,
        now: Now,
        agent: AgentUid,
        id: AttemptId,
        epoch: Epoch,
        outcome: Outcome,
    ) -> Decision {
        let mut effects = Effects::of(self);
        let moved = self.own_attempt(agent, id).is_some_and(|attempt| {
            let outcome = self.judged(now, self.runs.get(&id.run), attempt, outcome);
            self.move_attempt(now, attempt, AttemptEvent::End(epoch, outcome), &mut effects)
        });
        // A stale report is acknowledged too, or the agent would say it for ever; it changes nothing.
        if let Some(session) = self.sessions.get(&agent) {
            let message = Message::Acknowledge { attempt: id, epoch, fenced: !moved };
            effects.send(Send { agent, session: session.epoch, message });
        }
        effects.decision()
    }

    /// Moves an attempt by an event that may end it, with all that follows from its end. False: the event
    /// did not fit, and nothing follows.
    pub(super) fn move_attempt(
        &self,
        now: Now,
        attempt: &AttemptRecord,
        event: AttemptEvent,
        effects: &mut Effects<'_>,
    ) -> bool {
        let comes_back = matches!(event, AttemptEvent::Return(_));
        let mut before = attempt.state.clone();
        if comes_back && effects.run(attempt.project, attempt.id.run).is_none() {
            // Its run is over, a newer tree took its place: it comes back for nothing.
            before = before.on(AttemptEvent::Cancel, now.wall).unwrap_or(before);
        }
        let Ok(state) = before.on(event, now.wall) else { return false };
        let moved = self.asks_active(AttemptRecord { state, ..attempt.clone() });
        effects.put(Record::Attempt(moved.clone()));
        if let Some(end) = moved.state.end() {
            let follows = self.after_wish(attempt, end);
            self.after_end(now, &moved, &follows, effects);
            self.note_half_changed(&moved, end, effects);
        }
        true
    }

    /// A pull that ended in the middle left a mixture: nobody may copy it under the name of the tree before.
    fn note_half_changed(&self, attempt: &AttemptRecord, end: &End, effects: &mut Effects<'_>) {
        let dry_run = self.runs.get(&attempt.id.run).is_some_and(|run| run.wish.dry_run);
        let mixed = attempt.mixed && matches!(end, End::Succeeded(_));
        if dry_run || !(mixed || may_have_changed(attempt, end)) {
            return;
        }
        let placement = effects.placement(attempt.project, attempt.agent);
        let same_place = |one: &PlacementRecord| one.destination == attempt.destination;
        if let Some(placement) = placement.filter(|one| same_place(one) && !one.half_changed) {
            effects.put(Record::Placement(PlacementRecord { half_changed: true, ..placement }));
        }
    }

    /// How an end counts for what follows: where a person wanted it, no other try does, however it came. Only
    /// a guard's first stop is remembered all the same; what makes no tree has nothing to be remembered.
    fn after_wish(&self, before: &AttemptRecord, end: &End) -> End {
        let wished = matches!(before.state, AttemptState::Cancelling { .. });
        let project = self.projects.get(&before.project);
        let placement = project.and_then(|project| project.placements.get(&before.agent));
        let aside = self.runs.get(&before.id.run).is_some_and(|run| !run.wish.makes_tree());
        let held_before = aside || placement.is_some_and(|placement| placement.hold.is_some());
        match end {
            End::Failed(_) | End::Lost if wished => End::Cancelled(None),
            End::Held(_) if wished && held_before => End::Cancelled(None),
            End::Succeeded(_) if wished && before.mixed => End::Cancelled(None),
            End::Succeeded(_) | End::Failed(_) | End::Held(_) | End::Cancelled(_) | End::Lost => end.clone(),
        }
    }

    fn after_end(&self, now: Now, attempt: &AttemptRecord, end: &End, effects: &mut Effects<'_>) {
        let Some(project) = self.projects.get(&attempt.project) else { return };
        let Some(run) = effects.run(attempt.project, attempt.id.run) else { return };
        if let Some(way) = run.wish.moves.clone() {
            return self.after_move(now, project, run, &way, attempt, end, effects);
        }
        if run.wish.reseed_from.is_some() {
            return self.after_reseed(now, project, run, attempt, end, effects);
        }
        match attempt.role {
            Role::Origin if run.wish.dry_run => self.after_dry_run(now, project, run, attempt, end, effects),
            Role::Origin => self.after_origin(now, project, run, attempt, end, effects),
            Role::Replica => self.after_replica(now, project, &run, attempt, end, effects),
        }
    }

    fn after_origin(
        &self,
        now: Now,
        project: &Project,
        run: RunRecord,
        attempt: &AttemptRecord,
        end: &End,
        effects: &mut Effects<'_>,
    ) {
        match end {
            // Its agent pulled it alone, and may have lost it since.
            End::Succeeded(_) if attempt.mixed => self.pull_again(now, project, run, attempt, effects),
            End::Succeeded(outcome) => self.new_tree(now, project, run, attempt, outcome, effects),
            End::Held(outcome) => self.hold_or_go_on(now, project, run, attempt, outcome, effects),
            End::Cancelled(_) => self.close_run(now, run, RunState::Cancelled, effects),
            End::Failed(outcome) => {
                if outcome.class == ExitClass::UpstreamBehind {
                    note_behind(now, &run, attempt, effects);
                }
                self.retry_or_fail(now, project, run, attempt, outcome.class, effects);
            }
            End::Lost => {
                self.retry_or_fail(now, project, run, attempt, ExitClass::Interrupted, effects);
            }
        }
    }

    /// An origin's pull that ended well is no version; unless another run pulls anyway, this one does so again.
    fn pull_again(
        &self,
        now: Now,
        project: &Project,
        run: RunRecord,
        attempt: &AttemptRecord,
        effects: &mut Effects<'_>,
    ) {
        let mut others = project.runs.iter().filter(|id| **id != run.id).filter_map(|id| self.runs.get(id));
        let pulls = |other: &RunRecord| {
            matches!(other.state, RunState::Queued | RunState::Running) && other.wish.makes_tree()
        };
        if others.any(pulls) || !effects.retries() || project.record.archived.is_some() {
            self.close_run(now, run, RunState::Cancelled, effects);
        } else {
            self.next_try(project, run, attempt, Duration::ZERO, effects);
        }
    }

    /// A dry run has told what it was to tell, or could not. Nothing else follows from it.
    fn after_dry_run(
        &self,
        now: Now,
        project: &Project,
        run: RunRecord,
        attempt: &AttemptRecord,
        end: &End,
        effects: &mut Effects<'_>,
    ) {
        match end {
            End::Succeeded(_) => self.close_run(now, run, RunState::Succeeded, effects),
            End::Held(_) => self.close_run(now, run, RunState::Failed, effects),
            End::Failed(_) | End::Cancelled(_) | End::Lost => {
                self.after_origin(now, project, run, attempt, end, effects);
            }
        }
    }

    /// The origin has a new tree: that is what every replica should have from now on.
    pub(super) fn new_tree(
        &self,
        now: Now,
        project: &Project,
        run: RunRecord,
        attempt: &AttemptRecord,
        outcome: &Outcome,
        effects: &mut Effects<'_>,
    ) {
        if let Some(placement) = project.placements.get(&attempt.agent) {
            let marker = project.marker_of_pull(outcome);
            effects.put(Record::Placement(placement.clone().with_tree(now, run.id, outcome, marker)));
        }
        if let Some(state) = effects.project_state(run.project) {
            // A marker that is not there any more makes nothing older.
            let marker = project.marker_of_pull(outcome).or(state.marker);
            let state = ProjectState { tree: Some(run.id), last_success: Some(now.wall), marker, ..state };
            effects.put(Record::ProjectState(state));
        }
        let served = project.runs.iter().filter(|id| **id != run.id).filter_map(|id| self.runs.get(id));
        for old in served.filter(|old| old.current_tree) {
            let old = effects.run(run.project, old.id).unwrap_or_else(|| old.clone());
            effects.put(Record::Run(RunRecord { current_tree: false, ..old }));
        }
        // A run that an agent began by itself and one that went on meanwhile: the older tree spreads no more.
        for old in project.runs.iter().filter(|id| **id != run.id).filter_map(|id| self.runs.get(id)) {
            if effects.run(run.project, old.id).is_some_and(|old| old.state == RunState::Propagating) {
                self.close_propagation(now, old, effects);
            }
        }
        // What waits to fetch the old tree has nothing to fetch any more; idle replicas get a new attempt.
        let fetches = |one: &&AttemptRecord| one.role == Role::Replica && !self.is_aside(one);
        for waiting in self.attempts_of_project(run.project).filter(fetches) {
            if let Ok(state) = waiting.state.on(AttemptEvent::Cancel, now.wall).and_then(|state| {
                if waiting.state.is_pending() { Ok(state) } else { Err(crate::attempt::Misfit::NotNow) }
            }) {
                effects.put(Record::Attempt(AttemptRecord { state, ..waiting.clone() }));
            }
        }
        let traceparent = run.traceparent.clone();
        let has_replicas = project.placements.values().any(|placement| placement.role == Role::Replica);
        let made = RunRecord { current_tree: true, propagate_time: Some(now.wall), ..run };
        if has_replicas {
            effects.put(Record::Run(RunRecord { state: RunState::Propagating, ..made }));
        } else {
            self.close_run(now, made, RunState::Succeeded, effects);
        }
        self.begin_followers(now, project, &traceparent, effects);
    }

    /// A guard stopped it. Nothing propagates, and the run closes unless its hold has just closed by itself.
    fn hold_or_go_on(
        &self,
        now: Now,
        project: &Project,
        run: RunRecord,
        attempt: &AttemptRecord,
        outcome: &Outcome,
        effects: &mut Effects<'_>,
    ) {
        let Some(placement) = project.placements.get(&attempt.agent) else {
            return self.close_run(now, run, RunState::Held, effects);
        };
        match self.held(now, project, placement, attempt, outcome) {
            Held::Closes(placement) => {
                effects.put(Record::Placement(placement));
                if is_for_nobody(project, &run) {
                    self.close_run(now, run, RunState::Cancelled, effects);
                } else {
                    self.next_try(project, run, attempt, Duration::ZERO, effects);
                }
            }
            Held::Opens(placement) => {
                effects.put(Record::Placement(placement));
                self.close_run(now, run, RunState::Held, effects);
            }
        }
    }

    fn retry_or_fail(
        &self,
        now: Now,
        project: &Project,
        run: RunRecord,
        attempt: &AttemptRecord,
        class: ExitClass,
        effects: &mut Effects<'_>,
    ) {
        // A waiting run asks the upstream again anyway: no need to try the old one any longer.
        let makes_tree = |id: &RunId| self.runs.get(id).is_none_or(|run| run.wish.makes_tree());
        let newer_waits = project.runs.range(RunId(run.id.0)..).any(|id| *id != run.id && makes_tree(id));
        let knocked = self.knocked_in_vain(attempt);
        let archived = project.record.archived.is_some();
        let verdict = match self.verdict(now, project, attempt, class) {
            // Nobody waits for it, so nobody tries again by himself; another upstream is no other try.
            Verdict::Again(_) if archived => Verdict::GiveUp,
            verdict @ (Verdict::Again(_) | Verdict::GiveUp) => verdict,
        };
        let goes_on = effects.retries() && run.wish.makes_tree() && !is_for_nobody(project, &run);
        if goes_on && is_spent(class, attempt, verdict, knocked) {
            if let Some(next) = self.next_upstream(now, project, attempt) {
                return self.fall_back(project, run, attempt, next, effects);
            }
            if met_behind(&run, attempt, effects) {
                return self.wait_for_newer(now, project, run, attempt, newer_waits, effects);
            }
        }
        let again = match verdict {
            _ if archived => None,
            _ if knocked => (!newer_waits && effects.retries()).then_some(Duration::ZERO),
            Verdict::Again(_) if class == ExitClass::Busy && newer_waits => None,
            Verdict::Again(delay) => effects.retries().then_some(delay),
            Verdict::GiveUp => None,
        };
        match again {
            Some(delay) => self.next_try(project, run, attempt, delay, effects),
            // A full upstream is no failure: the next run takes over.
            None if class == ExitClass::Busy && newer_waits => {
                self.close_run(now, run, RunState::Cancelled, effects);
            }
            None => self.close_run(now, run, RunState::Failed, effects),
        }
    }

    pub(super) fn verdict(
        &self,
        now: Now,
        project: &Project,
        attempt: &AttemptRecord,
        class: ExitClass,
    ) -> Verdict {
        verdict(class, attempt.attempt_try, project.record.spec.retry, self.limits.busy_pause, now)
    }

    /// Whether this attempt ended without reaching a host whose breaker was open already: that is no try of its own.
    fn knocked_in_vain(&self, attempt: &AttemptRecord) -> bool {
        let outcome = attempt.state.end().and_then(End::outcome);
        let open = host_of(attempt).and_then(|host| self.hosts.get(host)?.breaker.as_ref());
        open.is_some() && outcome.is_some_and(|outcome| hearing(outcome) == Hearing::Unreached)
    }

    /// No upstream has anything newer: they are asked once more, from the preferred one on; but not for ever, and not
    /// where a run that waits does so anyway.
    fn wait_for_newer(
        &self,
        now: Now,
        project: &Project,
        run: RunRecord,
        attempt: &AttemptRecord,
        newer_waits: bool,
        effects: &mut Effects<'_>,
    ) {
        let until = run.start_time.unwrap_or(run.create_time).plus(defaults::BEHIND_HELD_AFTER);
        if newer_waits {
            self.close_run(now, run, RunState::Cancelled, effects);
        } else if until <= now.wall || project.record.archived.is_some() {
            self.close_run(now, run, RunState::Failed, effects);
        } else {
            let number = run.attempts + 1;
            let (tree, delay) = (attempt.tree, defaults::BEHIND_RETRY);
            let next = self.new_attempt(project, attempt.agent, run.id, number, tree, 1, delay);
            effects.put(Record::Run(RunRecord { attempts: number, origin_attempt: number, ..run }));
            effects.put(Record::Attempt(next));
        }
    }

    /// Another try on the same placement in the same run.
    fn next_try(
        &self,
        project: &Project,
        run: RunRecord,
        failed: &AttemptRecord,
        delay: Duration,
        effects: &mut Effects<'_>,
    ) {
        let number = run.attempts + 1;
        let origin_attempt = if failed.role == Role::Origin { number } else { run.origin_attempt };
        let next = self.new_attempt(
            project,
            failed.agent,
            run.id,
            number,
            failed.tree,
            failed.attempt_try + u32::from(!self.knocked_in_vain(failed)),
            delay,
        );
        effects.put(Record::Run(RunRecord { attempts: number, origin_attempt, ..run }));
        effects.put(Record::Attempt(project.asking_as(failed, next)));
    }

    fn after_replica(
        &self,
        now: Now,
        project: &Project,
        run: &RunRecord,
        attempt: &AttemptRecord,
        end: &End,
        effects: &mut Effects<'_>,
    ) {
        let Some(placement) = project.placements.get(&attempt.agent) else { return };
        let class = match end {
            End::Succeeded(outcome) => {
                // What was pulled while the source changed is no version: the placement still has work.
                if !attempt.mixed {
                    let marker = project.marker_of(attempt.tree);
                    let whole = placement.clone().with_tree(now, attempt.tree, outcome, marker);
                    effects.put(Record::Placement(whole));
                    self.caught_up(now, run, attempt, effects);
                }
                return;
            }
            End::Cancelled(_) => return self.give_up(placement, run, attempt, false, effects),
            End::Held(outcome) => {
                match self.held(now, project, placement, attempt, outcome) {
                    Held::Opens(placement) => self.give_up(&placement, run, attempt, true, effects),
                    Held::Closes(placement) => {
                        effects.put(Record::Placement(placement));
                        if project.state.tree == Some(attempt.tree) {
                            self.next_try(project, run.clone(), attempt, Duration::ZERO, effects);
                        }
                    }
                }
                return;
            }
            End::Failed(outcome) => outcome.class,
            End::Lost => ExitClass::Interrupted,
        };
        let superseded = project.state.tree != Some(attempt.tree);
        match self.verdict(now, project, attempt, class) {
            _ if superseded => {}
            Verdict::Again(delay) if effects.retries() => {
                self.next_try(project, run.clone(), attempt, delay, effects)
            }
            Verdict::Again(_) | Verdict::GiveUp => self.give_up(placement, run, attempt, true, effects),
        }
    }

    fn give_up(
        &self,
        placement: &PlacementRecord,
        run: &RunRecord,
        attempt: &AttemptRecord,
        failed: bool,
        effects: &mut Effects<'_>,
    ) {
        let gave_up_on = Some(attempt.tree);
        effects.put(Record::Placement(PlacementRecord { gave_up_on, ..placement.clone() }));
        if failed && run.state == RunState::Propagating {
            let run = effects.run(run.project, run.id).unwrap_or_else(|| run.clone());
            effects.put(Record::Run(RunRecord { replica_failed: true, ..run }));
        }
    }

    /// Enters a replica that was missed as caught up, in the run whose tree it now has.
    pub(super) fn caught_up(
        &self,
        now: Now,
        run: &RunRecord,
        attempt: &AttemptRecord,
        effects: &mut Effects<'_>,
    ) {
        if !run.missed.iter().any(|missed| missed.agent == attempt.agent && missed.caught_up.is_none()) {
            return;
        }
        let missed = run.missed.iter().map(|missed| {
            if missed.agent == attempt.agent {
                Missed { caught_up: Some(now.wall), ..*missed }
            } else {
                *missed
            }
        });
        effects.put(Record::Run(RunRecord { missed: missed.collect(), ..run.clone() }));
    }
}

/// Whether the project was archived while a run went on that no person wants: it goes no further.
fn is_for_nobody(project: &Project, run: &RunRecord) -> bool {
    project.record.archived.is_some() && !run.by_person
}

/// Whether an attempt that ended so may have begun to change its tree, and not come to the end of it.
fn may_have_changed(attempt: &AttemptRecord, end: &End) -> bool {
    let outcome = match end {
        End::Succeeded(_) => return false,
        End::Lost | End::Cancelled(None) => return attempt.state.offered().is_some(),
        End::Failed(outcome) | End::Held(outcome) | End::Cancelled(Some(outcome)) => outcome,
    };
    match outcome.class {
        ExitClass::Ok
        | ExitClass::Auth
        | ExitClass::NotFound
        | ExitClass::Refused
        | ExitClass::Busy
        | ExitClass::Config
        | ExitClass::RejectedByAgent => false,
        ExitClass::Guard => {
            // These look before the pull begins.
            let before = [GuardKind::EmptyUpstream, GuardKind::SentinelMissing, GuardKind::Adoption];
            let kind = outcome.evidence.as_ref().map(|evidence| evidence.kind);
            match kind {
                Some(GuardKind::UpstreamBehind) => pulled_older(outcome),
                kind => !kind.is_some_and(|kind| before.contains(&kind)),
            }
        }
        ExitClass::UpstreamBehind => pulled_older(outcome),
        ExitClass::Network | ExitClass::Timeout => hearing(outcome) != Hearing::Unreached,
        ExitClass::Partial
        | ExitClass::MaxDelete
        | ExitClass::DiskFull
        | ExitClass::LocalIo
        | ExitClass::Internal
        | ExitClass::Stalled
        | ExitClass::WallClock
        | ExitClass::Protocol
        | ExitClass::Cancelled
        | ExitClass::Interrupted => true,
    }
}

impl PlacementRecord {
    /// This placement with a whole tree of this marker, which closes its hold.
    pub(super) fn with_tree(self, now: Now, tree: RunId, outcome: &Outcome, marker: Option<Wall>) -> Self {
        let (files, size_bytes) =
            outcome.stats.map_or((self.files, self.size_bytes), |stats| (stats.files, stats.total_bytes));
        Self {
            have_tree: Some(tree),
            have_time: Some(now.wall),
            gave_up_on: None,
            files,
            size_bytes,
            half_changed: false,
            hold: None,
            marker,
            behind: None,
            ..self
        }
    }
}
