//! Faults planted on purpose, each of a kind that a wrong engine, shell or agent could have: the simulator is
//! worth something only if it finds them.

use std::sync::Arc;

use fleet::{
    Engine,
    attempt::{AttemptState, End, Role},
    id::{AgentUid, ProjectUid},
    input::{AgentInput, Ask, Decision, Input, Message, Person, Reply},
    outcome::GuardKind,
    record::{Change, Key, Record, Volatile},
    run::{RunState, TriggerKind},
};

use crate::{checks::is_step, shell::Coordinator, store::Source};

/// One planted fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// The shell answers people before the commit is on disk.
    AnswerBeforeCommit,
    /// The shell speaks to agents before the commit is on disk.
    SendBeforeCommit,
    /// A restart does not raise the term.
    TermNotRaised,
    /// Reports are taken for the current epoch, whatever theirs is.
    EpochIgnored,
    /// What a hello names is not looked at.
    HeldIgnored,
    /// A run takes its generation when it is asked for, not when it is first offered.
    GenerationEarly,
    /// A trigger during a run is answered, and no run waits for it.
    TriggerDropped,
    /// The tree of a failed origin is propagated.
    FailedTreeServed,
    /// A failed try is not followed by the next one.
    RetryForgotten,
    /// The answer to a request id is not stored.
    RequestForgotten,
    /// The next fire is stored with a later commit than the run.
    NextFireLate,
    /// An agent that is away for too long keeps what it takes up.
    UsageKept,
    /// What was pulled while its source changed passes for whole.
    MixedIgnored,
    /// A person's wish to end a run is answered and forgotten.
    CancelForgotten,
    /// When time alone may free what waits, the engine does not wake.
    WakeForgotten,
    /// A failure is recorded as something else than the agent said.
    EndMisread,
    /// The newest hello wins, and not the newest connection.
    LateHelloObeyed,
    /// An agent forgets an outcome that is not acknowledged.
    AgentForgetsUnacknowledged,
    /// An agent pulls from whatever upstream it is sent to, however old that is, and tells a newer marker.
    OlderTaken,
    /// What rsync exits with is not looked at, so no breaker ever opens.
    ExitCodeForgotten,
    /// What an agent tells of its disks after its hello is not looked at.
    InventoryForgotten,
    /// What a dry run would have copied passes for a tree.
    DryRunServed,
    /// An approval allows more than was seen.
    ApprovalWidened,
    /// A failed try closes the hold.
    HoldDropped,
    /// What an agent was told to serve passes for served before it says so.
    ExportsTrusted,
    /// What an agent cannot serve counts as served.
    RefusalUnheard,
    /// What changes after the first list of exports is not told.
    ExportUnsaid,
    /// A replica is sent to any agent of the project.
    AnySource,
    /// An agent follows orders that are too old.
    OrdersNeverExpire,
    /// The fire that an agent ran by itself stays armed.
    FireNotConsumed,
    /// What a pull that ended in the middle has left passes for the tree before.
    HalfChangeForgotten,
    /// The copy of a lost tree counts as a version that the project serves.
    ReseedServed,
    /// An agent that lost its place goes on serving what it held.
    WithdrawalUnsaid,
    /// The empty disk of an agent that takes another's place counts as the tree that is served.
    HeirServed,
    /// Of the projects whose agent is replaced, one keeps the old one.
    ReplacedByHalf,
    /// An agent makes a copy public that it has not compared with the tree.
    MoveUnproven,
    /// A move that failed is recorded as if it had not.
    MoveTrusted,
    /// A switch of the upstream is stored, and the first one is pulled from all the same.
    SwitchIgnored,
    /// What waits for an upstream is not told of a switch.
    SwitchUnsaid,
    /// The trigger of what runs after a project is lost with the commit that makes the tree.
    FollowerForgotten,
    /// An archived project keeps its fire.
    ArchivedFires,
    /// A step of a plan goes without being done, and nobody is told.
    StepForgotten,
    /// A step of a plan is done, and stays.
    StepTwice,
    /// The last step of a plan is not recorded.
    StepUnrecorded,
    /// A push that came too fast makes a run all the same.
    LimitIgnored,
    /// What people allow an agent is not looked at.
    CapForgotten,
    /// The place in the spread is drawn anew with every change.
    PhaseDrawn,
}

impl Planted {
    pub(crate) const ALL: [Self; 47] = [
        Self::AnswerBeforeCommit,
        Self::SendBeforeCommit,
        Self::TermNotRaised,
        Self::EpochIgnored,
        Self::HeldIgnored,
        Self::GenerationEarly,
        Self::TriggerDropped,
        Self::FailedTreeServed,
        Self::RetryForgotten,
        Self::RequestForgotten,
        Self::NextFireLate,
        Self::UsageKept,
        Self::MixedIgnored,
        Self::CancelForgotten,
        Self::WakeForgotten,
        Self::EndMisread,
        Self::LateHelloObeyed,
        Self::AgentForgetsUnacknowledged,
        Self::OlderTaken,
        Self::ExitCodeForgotten,
        Self::InventoryForgotten,
        Self::DryRunServed,
        Self::ApprovalWidened,
        Self::HoldDropped,
        Self::ExportsTrusted,
        Self::RefusalUnheard,
        Self::ExportUnsaid,
        Self::AnySource,
        Self::OrdersNeverExpire,
        Self::FireNotConsumed,
        Self::HalfChangeForgotten,
        Self::ReseedServed,
        Self::WithdrawalUnsaid,
        Self::HeirServed,
        Self::ReplacedByHalf,
        Self::MoveUnproven,
        Self::MoveTrusted,
        Self::SwitchIgnored,
        Self::SwitchUnsaid,
        Self::FollowerForgotten,
        Self::ArchivedFires,
        Self::StepForgotten,
        Self::StepTwice,
        Self::StepUnrecorded,
        Self::LimitIgnored,
        Self::CapForgotten,
        Self::PhaseDrawn,
    ];

    /// Bends what the engine is told.
    pub(crate) fn bend_input(self, coordinator: &Coordinator, input: &mut Input) {
        if let Input::Person(Person { ask: Ask::Push(push), .. }) = input
            && self == Self::LimitIgnored
        {
            push.over_limit = false;
        }
        let Input::Agent(input) = input else { return };
        match input {
            AgentInput::Hello { attempts, .. } if self == Self::HeldIgnored => attempts.clear(),
            AgentInput::Exporting { serial, .. } if self == Self::ExportsTrusted => *serial = u64::MAX,
            AgentInput::Exporting { not_served, .. } if self == Self::RefusalUnheard => not_served.clear(),
            AgentInput::Hello { connection, .. } if self == Self::LateHelloObeyed => *connection = u64::MAX,
            AgentInput::Ended { outcome, .. } if self == Self::ExitCodeForgotten => outcome.exit_code = None,
            AgentInput::Accepted { attempt, epoch, .. }
            | AgentInput::Refused { attempt, epoch, .. }
            | AgentInput::Ended { attempt, epoch, .. }
                if self == Self::EpochIgnored =>
            {
                let engine = coordinator.engine.as_ref();
                let current = engine.and_then(|engine| engine.attempt(*attempt)?.state.epoch());
                *epoch = current.unwrap_or(*epoch);
            }
            _ => {}
        }
    }

    /// Bends what the engine decided. The answer, if any, is what the disk gets instead.
    pub(crate) fn bend_decision(
        self,
        engine: &Engine,
        source: Source,
        decision: &mut Decision,
    ) -> Option<Vec<Change>> {
        let changes = &mut decision.changes;
        match self {
            Self::GenerationEarly => take_early(engine, changes),
            Self::TriggerDropped if source != Source::Start => drop_trigger(engine, changes),
            Self::FailedTreeServed => serve_failed(changes),
            Self::RetryForgotten if source == Source::Report => {
                changes.retain(
                    |change| !matches!(change, Change::Put(Record::Attempt(a)) if a.state.is_pending()),
                );
            }
            Self::RequestForgotten => {
                changes.retain(|change| !matches!(change, Change::Put(Record::Request(_))))
            }
            Self::NextFireLate if source == Source::Tick => return Some(keep_fires(engine, changes)),
            Self::StepForgotten if is_step(changes) => {
                changes.retain(|change| matches!(change, Change::Delete(Key::PlanStep(_))));
            }
            Self::StepTwice if is_step(changes) => {
                changes.retain(|change| !matches!(change, Change::Delete(Key::PlanStep(_))));
            }
            Self::StepUnrecorded => forget_last_step(changes),
            Self::CapForgotten => forget_cap(engine, decision),
            Self::PhaseDrawn => draw_phase(engine, changes),
            Self::UsageKept => {
                changes.retain(|change| !matches!(change, Change::Volatile(Volatile::GivenUp(_))));
            }
            Self::InventoryForgotten => {
                changes.retain(|change| !matches!(change, Change::Volatile(Volatile::Inventory(..))));
            }
            Self::MixedIgnored => {
                for change in changes.iter_mut() {
                    if let Change::Put(Record::Attempt(attempt)) = change {
                        attempt.mixed = false;
                    }
                }
            }
            Self::ReseedServed => serve_reseed(changes),
            Self::MoveTrusted => trust_move(engine, changes),
            Self::HalfChangeForgotten => {
                for change in changes.iter_mut() {
                    if let Change::Put(Record::Placement(placement)) = change {
                        placement.half_changed = false;
                    }
                }
            }
            Self::CancelForgotten if source == Source::Person => forget_cancel(decision),
            Self::WakeForgotten => forget_wake(changes),
            Self::FireNotConsumed if matches!(source, Source::Hello | Source::Report) => {
                *changes = keep_fires(engine, changes);
            }
            Self::EndMisread => misread_end(decision),
            Self::DryRunServed => serve_dry_run(engine, changes),
            Self::ApprovalWidened if source == Source::Person => widen_approval(changes),
            Self::HoldDropped if source == Source::Report => drop_hold(engine, changes),
            Self::ExportUnsaid => decision
                .sends
                .retain(|send| !matches!(send.message, Message::Exports { complete: false, .. })),
            Self::WithdrawalUnsaid | Self::HeirServed | Self::ReplacedByHalf => {
                self.bend_replacement(engine, decision);
            }
            Self::AnySource => take_any_source(engine, changes),
            Self::SwitchIgnored => ignore_switch(engine, decision),
            Self::SwitchUnsaid if source == Source::Person => unsay_switch(engine, changes),
            Self::FollowerForgotten => forget_followers(engine, changes),
            Self::ArchivedFires if source == Source::Person => {
                *changes = keep_fires_of_archived(engine, changes);
            }
            _ => {}
        }
        None
    }
}

impl Planted {
    fn bend_replacement(self, engine: &Engine, decision: &mut Decision) {
        let replaced = matches!(decision.reply, Reply::Replaced(_));
        let project = |change: &Change| matches!(change, Change::Put(Record::Project(_)));
        match self {
            Self::WithdrawalUnsaid => decision.sends.retain(|send| match &send.message {
                Message::Exports { withdrawn, .. } => {
                    withdrawn.iter().all(|project| is_placed(engine, *project, send.agent))
                }
                _ => true,
            }),
            Self::HeirServed if replaced => serve_heir(engine, &mut decision.changes),
            Self::ReplacedByHalf if replaced => {
                if let Some(one) = decision.changes.iter().rposition(project) {
                    decision.changes.remove(one);
                }
            }
            _ => {}
        }
    }
}

fn forget_last_step(changes: &mut Vec<Change>) {
    let last = changes.iter().rposition(|change| matches!(change, Change::Put(Record::PlanStep(_))));
    if let Some(last) = last {
        changes.remove(last);
    }
}

fn forget_cap(engine: &Engine, decision: &mut Decision) {
    for send in &mut decision.sends {
        if let Message::Offer(offer) = &mut send.message
            && let Some(project) = engine.project(offer.project)
        {
            offer.bandwidth_limit_kib = project.record.spec.rsync.bandwidth_limit_kib;
        }
    }
}

/// Where nothing else of the schedule has changed.
fn draw_phase(engine: &Engine, changes: &mut [Change]) {
    for change in changes.iter_mut() {
        if let Change::Put(Record::Project(new)) = change
            && new.spec.schedule.phase_seconds > 0
            && engine.project(new.uid).is_some()
        {
            let mut drawn = (**new).clone();
            drawn.spec.schedule.phase_seconds -= 1;
            *new = Arc::new(drawn);
        }
    }
}

fn is_placed(engine: &Engine, project: ProjectUid, agent: AgentUid) -> bool {
    engine.project(project).is_some_and(|project| project.placements.contains_key(&agent))
}

fn serve_heir(engine: &Engine, changes: &mut [Change]) {
    for change in changes.iter_mut() {
        if let Change::Put(Record::Placement(new)) = change
            && !is_placed(engine, new.project, new.agent)
        {
            new.have_tree = engine.project(new.project).and_then(|project| project.state.tree);
        }
    }
}

fn forget_cancel(decision: &mut Decision) {
    let cancels = |change: &Change| matches!(change, Change::Put(Record::Attempt(a)) if matches!(a.state, AttemptState::Cancelling { .. }));
    if decision.changes.iter().any(cancels) {
        decision.changes.retain(|change| !cancels(change));
        decision.sends.retain(|send| !matches!(send.message, Message::Cancel { .. }));
    }
}

fn forget_wake(changes: &mut [Change]) {
    for change in changes.iter_mut() {
        if let Change::Volatile(Volatile::Scanned { wake, .. }) = change {
            *wake = None;
        }
    }
}

fn ignore_switch(engine: &Engine, decision: &mut Decision) {
    for send in &mut decision.sends {
        if let Message::Offer(offer) = &mut send.message
            && offer.role == Role::Origin
            && let Some(project) = engine.project(offer.project)
            && let Some(first) = project.record.spec.upstreams.first()
        {
            offer.source_uri.clone_from(&first.uri);
        }
    }
}

/// Every run that is there for another project's tree, with all that was put with it.
fn forget_followers(engine: &Engine, changes: &mut Vec<Change>) {
    let followers: Vec<ProjectUid> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Put(Record::Run(run))
                if run.trigger.kind == TriggerKind::Project && engine.run(run.id).is_none() =>
            {
                Some(run.project)
            }
            _ => None,
        })
        .collect();
    changes.retain(|change| match change {
        Change::Put(Record::Run(run)) => !followers.contains(&run.project),
        Change::Put(Record::Attempt(attempt)) => !followers.contains(&attempt.project),
        Change::Put(Record::ProjectState(state)) => !followers.contains(&state.uid),
        _ => true,
    });
}

/// The changes, without the end of an archived project's fire.
fn keep_fires_of_archived(engine: &Engine, changes: &[Change]) -> Vec<Change> {
    let archived = |uid: ProjectUid| {
        changes.iter().any(|change| {
            matches!(change, Change::Put(Record::Project(one)) if one.uid == uid && one.archived.is_some())
        })
    };
    let kept = changes.iter().cloned().map(|change| match change {
        Change::Put(Record::ProjectState(state)) if archived(state.uid) => {
            let next_fire = engine.project(state.uid).and_then(|project| project.state.next_fire);
            Change::Put(Record::ProjectState(state.with_fire(next_fire)))
        }
        change => change,
    });
    kept.collect()
}

fn unsay_switch(engine: &Engine, changes: &mut Vec<Change>) {
    changes.retain(|change| match change {
        Change::Put(Record::Attempt(new)) => engine
            .attempt(new.id)
            .is_none_or(|old| old.upstream_host == new.upstream_host || old.agent != new.agent),
        _ => true,
    });
}

fn take_any_source(engine: &Engine, changes: &mut [Change]) {
    for change in changes.iter_mut() {
        if let Change::Put(Record::Attempt(attempt)) = change {
            let project = engine.project(attempt.project);
            let other = project.and_then(|project| project.placements.keys().next_back());
            attempt.source = attempt.source.and_then(|_| other.copied());
        }
    }
}

fn take_early(engine: &Engine, changes: &mut [Change]) {
    let wanted = changes.iter().find_map(|change| match change {
        Change::Put(Record::ProjectState(state)) => Some(state.wanted),
        _ => None,
    });
    let mut early = None;
    for change in changes.iter_mut() {
        let Change::Put(Record::Run(run)) = change else { continue };
        match engine.run(run.id).map(|old| old.generation) {
            None if run.state == RunState::Queued => run.generation = wanted.unwrap_or(0),
            Some(old) if old != 0 => run.generation = old,
            Some(_) | None => continue,
        }
        early = early.max(Some(run.generation));
    }
    for change in changes.iter_mut() {
        if let (Change::Put(Record::ProjectState(state)), Some(early)) = (change, early) {
            let before = engine.project(state.uid).map_or(0, |project| project.state.taken);
            state.taken = before.max(early);
        }
    }
}

fn drop_trigger(engine: &Engine, changes: &mut Vec<Change>) {
    let queued = changes.iter().find_map(|change| match change {
        Change::Put(Record::Run(run)) if run.state == RunState::Queued && engine.run(run.id).is_none() => {
            Some((run.project, run.id))
        }
        _ => None,
    });
    let Some((project, id)) = queued else { return };
    let busy = engine.project(project).is_some_and(|project| {
        project.runs.iter().any(|run| engine.run(*run).is_some_and(|run| run.state == RunState::Running))
    });
    if busy {
        changes.retain(|change| match change {
            Change::Put(Record::Run(run)) => run.id != id,
            Change::Put(Record::Attempt(attempt)) => attempt.id.run != id,
            _ => true,
        });
    }
}

fn serve_failed(changes: &mut [Change]) {
    let failed = changes.iter().find_map(|change| match change {
        Change::Put(Record::Attempt(a)) if a.role == Role::Origin => {
            matches!(a.state.end(), Some(End::Failed(_))).then_some(a.id.run)
        }
        _ => None,
    });
    let Some(failed) = failed else { return };
    for change in changes {
        if let Change::Put(Record::ProjectState(state)) = change {
            state.tree = Some(failed);
        }
    }
}

fn keep_fires(engine: &Engine, changes: &[Change]) -> Vec<Change> {
    let mut on_disk = changes.to_vec();
    for change in &mut on_disk {
        if let Change::Put(Record::ProjectState(state)) = change {
            let old = engine.project(state.uid).and_then(|project| project.state.next_fire);
            state.next_fire = old.or(state.next_fire);
        }
    }
    on_disk
}

/// What an agent says of a failure is recorded as something else.
fn misread_end(decision: &mut Decision) {
    for change in &mut decision.changes {
        if let Change::Put(Record::Attempt(attempt)) = change
            && let AttemptState::Ended { end: end @ End::Failed(_), .. } = &mut attempt.state
        {
            *end = End::Lost;
        }
    }
}

/// What a reseed copied counts as a version of its own.
fn serve_reseed(changes: &mut [Change]) {
    for change in changes.iter_mut() {
        if let Change::Put(Record::Run(run)) = change
            && run.wish.reseed_from.is_some()
            && run.state == RunState::Succeeded
        {
            run.current_tree = true;
        }
    }
}

/// A tree is where it was to be moved to, however that ended.
fn trust_move(engine: &Engine, changes: &mut Vec<Change>) {
    let failed = changes.iter().find_map(|change| match change {
        Change::Put(Record::Attempt(a)) if matches!(a.state.end(), Some(End::Failed(_))) => {
            let way = engine.run(a.id.run)?.wish.moves.clone()?;
            Some((engine.project(a.project)?.placements.get(&a.agent)?.clone(), way.to))
        }
        _ => None,
    });
    if let Some((placement, destination)) = failed {
        let moved = fleet::placement::PlacementRecord { destination, ..placement };
        changes.push(Change::Put(Record::Placement(moved)));
    }
}

/// An approval of deletes allows twice as many.
fn widen_approval(changes: &mut [Change]) {
    for change in changes.iter_mut() {
        if let Change::Put(Record::Run(run)) = change
            && run.wish.waived.contains(&GuardKind::Deletes)
        {
            run.wish.allow_deletes = run.wish.allow_deletes.map(|allowed| allowed * 2);
        }
    }
}

fn serve_dry_run(engine: &Engine, changes: &mut Vec<Change>) {
    let done = changes.iter().find_map(|change| match change {
        Change::Put(Record::Run(run)) if run.wish.dry_run && run.state == RunState::Succeeded => {
            Some((run.project, run.id))
        }
        _ => None,
    });
    let Some((project, run)) = done else { return };
    if let Some(project) = engine.project(project) {
        let state = fleet::project::ProjectState { tree: Some(run), ..project.state.clone() };
        changes.push(Change::Put(Record::ProjectState(state)));
    }
}

fn drop_hold(engine: &Engine, changes: &mut Vec<Change>) {
    let failed = changes.iter().find_map(|change| match change {
        Change::Put(Record::Attempt(a)) if matches!(a.state.end(), Some(End::Failed(_))) => {
            Some((a.project, a.agent))
        }
        _ => None,
    });
    let Some((project, agent)) = failed else { return };
    let placement = engine.project(project).and_then(|project| project.placements.get(&agent));
    if let Some(placement) = placement.filter(|placement| placement.hold.is_some()) {
        let dropped = fleet::placement::PlacementRecord { hold: None, ..placement.clone() };
        changes.push(Change::Put(Record::Placement(dropped)));
    }
}
