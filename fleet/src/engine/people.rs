//! What users ask for. Each request is checked whole: all its faults at once, and nothing changed by a
//! refused one.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{
    due::{first_fire, next_fire},
    effects::Effects,
    guard::no_origin,
    life::archived_refusal,
    requests::remember,
    state::{Engine, Project},
};
use crate::{
    agent::{AgentRecord, JoinToken, TokenNames},
    attempt::{AttemptEvent, AttemptRecord, AttemptState},
    defaults,
    id::{AgentUid, Name, ProjectUid, RunId},
    input::{Ask, CloseReason, Decision, Message, Person, Reply, RequestKey, Send},
    outcome::Evidence,
    placement::PlacementRecord,
    project::{Archive, Pause, Pick, ProjectRecord, ProjectSpec, ProjectState, Replicas},
    record::{Answer, Change, FleetRecord, Freeze, Key, Record, Volatile},
    refusal::{Refusal, RefusalCode, Violation},
    run::{RunRecord, RunState, Trigger, TriggerKind, Wish},
    schedule::Schedule,
    time::{Now, Wall},
};

pub(super) type Outcome = Result<Decision, Refusal>;

impl Engine {
    pub(super) fn person(&self, now: Now, person: Person) -> Decision {
        let by = person.by;
        if let Err(refusal) = self.while_planned(now, &person.ask) {
            return Decision::refused(refusal);
        }
        let outcome = match person.ask {
            Ask::CreateProject { name, spec, paused, request, validate_only } => {
                self.create_project(now, &by, name, *spec, paused, request, validate_only)
            }
            Ask::UpdateProject { project, spec, revision, validate_only } => {
                self.update_project(now, project, *spec, revision, validate_only)
            }
            Ask::DeleteProject { project, revision, cancel_running, tree_to_trash } => {
                self.delete_project_of(now, &by, project, revision, cancel_running, tree_to_trash)
            }
            Ask::Rename { project, name, revision } => self.rename_project(now, project, name, revision),
            Ask::Archive { project, reason, revision } => self.archive(now, by, project, reason, revision),
            Ask::Unarchive { project, revision } => self.unarchive(now, project, revision),
            Ask::Apply(plan) => self.apply_plan(now, &by, *plan),
            Ask::Pause { project, reason, until, revision } => {
                self.pause(now, by, project, reason, until, revision)
            }
            Ask::Resume { project, revision } => self.resume(now, project, revision),
            Ask::Run { project, kind, wish, request, traceparent } => {
                self.run_project(now, by, project, kind, wish, request, traceparent)
            }
            Ask::Push(push) => self.push(now, by, push),
            Ask::CreatePushToken(new) => self.create_push_token(now, by, new),
            Ask::DeletePushToken { id } => self.delete_push_token(id),
            Ask::Approve { project, run, reason, saw, traceparent } => {
                self.approve_run(now, by, project, run, &reason, saw.as_ref(), traceparent)
            }
            Ask::Promote { project, agent, revision, force } => {
                self.promote(now, project, agent, revision, force)
            }
            Ask::Reseed { project, agent, from, revision, traceparent } => {
                self.reseed(now, by, project, agent, from, revision, traceparent)
            }
            Ask::Move { project, agent, to, revision, traceparent } => {
                self.move_tree(now, by, project, agent, to, revision, traceparent)
            }
            Ask::SwitchUpstream { project, uri, revision } => {
                self.switch_upstream(now, project, &uri, revision)
            }
            Ask::CancelRun { project, run } => self.cancel_run(now, &by, project, run),
            Ask::Freeze { reason } => Ok(self.freeze(now, by, reason)),
            Ask::Thaw => Ok(self.thaw()),
            Ask::Drain { agent, draining } => self.drain(agent, draining),
            Ask::RevokeAgent { agent, reason } => self.revoke(now, agent, reason),
            Ask::ReplaceAgent { replacement, traceparent } => {
                self.replace_agent(now, &by, &replacement, &traceparent)
            }
            Ask::CreateAgent { name, labels, caps, request, validate_only } => {
                self.create_agent(now, name, labels, caps, request, validate_only)
            }
            Ask::UpdateAgent { agent, labels, caps, revision, validate_only } => {
                self.update_agent(agent, labels, caps, revision, validate_only)
            }
            Ask::DeleteAgent { agent } => self.delete_agent(agent),
            Ask::CreateJoinToken { id, hash, names, networks, uses, ttl } => {
                self.create_token(now, by, id, hash, names, networks, uses, ttl)
            }
            Ask::DeleteJoinToken { id } => self.delete_token(id),
            Ask::SetUpstream { host, slots, spacing, revision } => {
                self.set_upstream(now, host, slots, spacing, revision)
            }
            Ask::User(ask) => self.user_asked(now, ask),
        };
        outcome.unwrap_or_else(Decision::refused)
    }

    pub(super) fn find_project(&self, uid: ProjectUid) -> Result<&Project, Refusal> {
        self.projects.get(&uid).ok_or_else(|| Refusal::not_found("project", format_args!("uid {}", uid.0)))
    }

    pub(super) fn find_agent(&self, uid: AgentUid) -> Result<&AgentRecord, Refusal> {
        self.agents.get(&uid).ok_or_else(|| Refusal::not_found("agent", format_args!("uid {}", uid.0)))
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of one request")]
    fn create_project(
        &self,
        now: Now,
        by: &str,
        name: Name,
        spec: ProjectSpec,
        paused: bool,
        request: Option<RequestKey>,
        validate_only: bool,
    ) -> Outcome {
        if let Some(reply) = self.remembered(now, request.as_ref())? {
            return Ok(Decision { reply, ..Decision::nothing() });
        }
        let uid = ProjectUid(self.next_uid());
        let pause =
            Pause { by: by.to_owned(), time: now.wall, reason: "created paused".to_owned(), until: None };
        let mut decision = self.declare(now, uid, name, spec, paused.then_some(pause), None)?;
        if validate_only {
            return Ok(Decision::nothing());
        }
        remember(now, request, Answer::Project(uid), &mut decision);
        Ok(decision)
    }

    /// Makes a project of this uid, from which on the next ones are counted.
    pub(super) fn declare(
        &self,
        now: Now,
        uid: ProjectUid,
        name: Name,
        spec: ProjectSpec,
        paused: Option<Pause>,
        archived: Option<Archive>,
    ) -> Outcome {
        self.check_free(&name, None)?;
        self.check_spec("project not created", None, &spec)?;
        let reasons = paused.iter().map(|pause| &pause.reason);
        let reasons = reasons.chain(archived.iter().map(|archive| &archive.reason));
        let faults: Vec<Violation> = reasons.filter_map(|reason| reason_fault(reason)).collect();
        if !faults.is_empty() {
            return Err(Refusal::invalid("project not created", faults));
        }
        let record = ProjectRecord {
            uid,
            name,
            spec: at_its_phase(spec, uid, None),
            paused,
            archived,
            revision: 1,
            create_time: now.wall,
            update_time: now.wall,
        };
        let mut effects = Effects::of(self);
        let fleet = FleetRecord { next_uid: self.next_uid().max(uid.0 + 1), ..self.fleet.clone() };
        effects.put(Record::Fleet(fleet));
        let state = ProjectState::new(uid).with_fire(first_fire(&record, now));
        for placement in self.first_placements(&record) {
            effects.put(Record::Placement(placement));
        }
        effects.put(Record::ProjectState(state));
        // The project comes first of all its records: the others hang on it.
        let mut decision = effects.decision();
        decision.changes.insert(0, Change::Put(Record::Project(Arc::new(record))));
        decision.reply = Reply::Project(uid);
        Ok(decision)
    }

    /// What the model alone can say about a declaration; grammar was checked before.
    fn check_spec(&self, what: &str, own: Option<ProjectUid>, spec: &ProjectSpec) -> Result<(), Refusal> {
        let mut faults = Vec::new();
        let origins = &spec.placement.origins;
        if origins.is_empty() {
            faults.push(Violation::new("placement.origins", "at least one origin is needed"));
        }
        if spec.schedule.never_matches() {
            faults.push(Violation::new("schedule", "never fires: no instant matches all its fields"));
        }
        let named = |(index, replicas): (usize, &Replicas)| match replicas.pick {
            Pick::Agent(agent) => Some((format!("placement.replicas[{index}].agent"), agent)),
            Pick::Labels(_) => None,
        };
        let origins = origins.iter().enumerate();
        let origins =
            origins.map(|(index, target)| (format!("placement.origins[{index}].agent"), target.agent));
        let replicas = spec.placement.replicas.iter().enumerate().filter_map(named);
        let mut seen = BTreeSet::new();
        for (field, agent) in origins.chain(replicas) {
            match self.agents.get(&agent) {
                None => faults.push(Violation::new(field.as_str(), "no such agent")),
                Some(agent) if agent.revoked.is_some() => {
                    faults
                        .push(Violation::new(field.as_str(), format!("agent \"{}\" is revoked", agent.name)));
                }
                Some(_) => {}
            }
            if !seen.insert(agent) {
                faults.push(Violation::new(field, "the same agent is named twice"));
            }
        }
        if let Some(owner) = spec.owner.as_ref().filter(|owner| self.user(owner).is_none()) {
            faults.push(Violation::new("owner", format!("no such user \"{owner}\"")));
        }
        faults.extend(self.home_faults(own, spec));
        faults.extend(self.after_faults(own, spec));
        if faults.is_empty() { Ok(()) } else { Err(Refusal::invalid(what, faults)) }
    }

    pub(super) fn update_project(
        &self,
        now: Now,
        uid: ProjectUid,
        spec: ProjectSpec,
        revision: u64,
        validate_only: bool,
    ) -> Outcome {
        let project = self.find_project(uid)?;
        if project.record.revision != revision {
            return Err(Refusal::stale("project", &project.record.name));
        }
        self.check_spec("project not changed", Some(uid), &spec)?;
        let record = ProjectRecord {
            spec: at_its_phase(spec, uid, Some(&project.record.spec.schedule)),
            revision: revision + 1,
            update_time: now.wall,
            ..(*project.record).clone()
        };
        let mut effects = Effects::of(self);
        self.move_placements(project, &record, &mut effects)?;
        let mut state = project.state_with(&record.spec.upstreams);
        if record.spec.marker != project.record.spec.marker {
            // What another file told is no measure for this one.
            state.marker = None;
            for agent in project.placements.keys() {
                if let Some(old) = effects.placement(uid, *agent) {
                    let unmarked = PlacementRecord { marker: None, behind: None, ..old.clone() };
                    if unmarked != old {
                        effects.put(Record::Placement(unmarked));
                    }
                }
            }
        }
        if record.spec.schedule != project.record.spec.schedule {
            state = state.with_fire(first_fire(&record, now));
        }
        if state != project.state {
            effects.put(Record::ProjectState(state));
        }
        effects.put(Record::Project(Arc::new(record)));
        effects.reply(Reply::Project(uid));
        Ok(if validate_only { Decision::nothing() } else { effects.decision() })
    }

    pub(super) fn delete_project_of(
        &self,
        now: Now,
        by: &str,
        uid: ProjectUid,
        revision: Option<u64>,
        cancel_running: bool,
        tree_to_trash: bool,
    ) -> Outcome {
        let project = self.find_project(uid)?;
        check_revision(project, revision)?;
        self.check_followed_by_none(project)?;
        let live: Vec<&AttemptRecord> = self.attempts_of_project(uid).collect();
        let out = live.iter().filter(|attempt| attempt.state.is_out()).count();
        if out > 0 && !cancel_running {
            return Err(Refusal::precondition(
                "ATTEMPT_RUNNING",
                format!(
                    "project \"{}\" not deleted: {out} of its attempts may be on agents; cancel the run first, or delete \
                     with --cancel-running",
                    project.record.name
                ),
            ));
        }
        let mut effects = Effects::of(self);
        for attempt in live {
            self.say_cancel(attempt, "the project was deleted", &mut effects);
            let epoch = attempt.state.epoch().unwrap_or_default();
            let state = AttemptState::Ended {
                epoch,
                offered: None,
                started: None,
                at: now.wall,
                end: crate::attempt::End::Cancelled(None),
            };
            effects.put(Record::Attempt(AttemptRecord { state, ..attempt.clone() }));
        }
        for run in project.runs.iter().filter_map(|id| self.runs.get(id)) {
            let (state, end_time) = if run.state.is_closed() {
                (run.state, run.end_time)
            } else {
                (RunState::Cancelled, Some(now.wall))
            };
            effects.put(Record::Run(RunRecord { state, end_time, current_tree: false, ..run.clone() }));
        }
        for agent in project.placements.keys() {
            effects.delete(Key::Placement(uid, *agent));
        }
        for id in self.push_tokens.of(uid) {
            effects.delete(Key::PushToken(id.to_owned()));
        }
        effects.delete(Key::ProjectState(uid));
        effects.delete(Key::Project(uid));
        if tree_to_trash {
            self.want_in_trash(now, by, project, &mut effects)?;
        }
        Ok(effects.decision())
    }

    pub(super) fn pause(
        &self,
        now: Now,
        by: String,
        uid: ProjectUid,
        reason: String,
        until: Option<Wall>,
        revision: Option<u64>,
    ) -> Outcome {
        let project = self.find_project(uid)?;
        check_revision(project, revision)?;
        let mut faults = Vec::new();
        faults.extend(reason_fault(&reason));
        if until.is_some_and(|until| until <= now.wall) {
            faults.push(Violation::new("until", "lies in the past"));
        }
        if !faults.is_empty() {
            return Err(Refusal::invalid("project not paused", faults));
        }
        let record = ProjectRecord {
            paused: Some(Pause { by, time: now.wall, reason, until }),
            revision: project.record.revision + 1,
            update_time: now.wall,
            ..(*project.record).clone()
        };
        let changes = vec![Change::Put(Record::Project(Arc::new(record)))];
        Ok(Decision { changes, reply: Reply::Project(uid), ..Decision::nothing() })
    }

    pub(super) fn resume(&self, now: Now, uid: ProjectUid, revision: Option<u64>) -> Outcome {
        let project = self.find_project(uid)?;
        check_revision(project, revision)?;
        let mut effects = Effects::of(self);
        if project.record.paused.is_some() {
            self.resume_project(now, project, &mut effects);
        }
        effects.reply(Reply::Project(uid));
        Ok(effects.decision())
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of one request")]
    fn run_project(
        &self,
        now: Now,
        by: String,
        uid: ProjectUid,
        kind: TriggerKind,
        wish: Wish,
        request: Option<RequestKey>,
        traceparent: String,
    ) -> Outcome {
        if let Some(reply) = self.remembered(now, request.as_ref())? {
            return Ok(Decision { reply, ..Decision::nothing() });
        }
        let project = self.find_project(uid)?;
        if let Some(refusal) = archived_refusal(project, kind) {
            return Err(refusal);
        }
        if wish.allow_deletes.is_some_and(|allowed| allowed > defaults::MAX_DELETE_MAX) {
            let text = format!("must be 0 to {}", defaults::MAX_DELETE_MAX);
            return Err(Refusal::invalid("run not started", vec![Violation::new("allow_deletes", text)]));
        }
        let queued = |id: &RunId| self.runs.get(id).is_some_and(|run| run.state == RunState::Queued);
        if wish.dry_run && project.runs.iter().any(queued) {
            let text = format!(
                "\"{0}\" has a run that waits, and a dry run cannot join it; ask again when it has begun \
                 (mirrorctl run watch {0}), or cancel it",
                project.record.name
            );
            return Err(Refusal::precondition("RUN_QUEUED", text));
        }
        let waiver_expires = wish.allow_deletes.map(|_| now.wall.plus(defaults::APPROVAL_TTL));
        let wish = Wish { waiver_expires, ..wish };
        let mut effects = Effects::of(self);
        let trigger = Trigger { kind, by, time: now.wall, autonomous: false };
        let triggered = self.trigger(now, project, trigger, wish, traceparent, &mut effects);
        let (run, coalesced) = triggered.ok_or_else(|| no_origin(project))?;
        let reply = self.run_reply(project, run, coalesced, false, true);
        let coalesced = matches!(reply, Reply::Run { coalesced: true, .. });
        let mut decision = effects.decision();
        remember(now, request, Answer::Run { project: uid, run, coalesced }, &mut decision);
        decision.reply = reply;
        Ok(decision)
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of one request")]
    fn approve_run(
        &self,
        now: Now,
        by: String,
        uid: ProjectUid,
        run: RunId,
        reason: &str,
        saw: Option<&Evidence>,
        traceparent: String,
    ) -> Outcome {
        let project = self.find_project(uid)?;
        if let Some(fault) = reason_fault(reason) {
            return Err(Refusal::invalid("run not approved", vec![fault]));
        }
        self.approve(now, by, project, run, saw, traceparent)
    }

    fn cancel_run(&self, now: Now, by: &str, uid: ProjectUid, id: RunId) -> Outcome {
        let project = self.find_project(uid)?;
        let run = self.runs.get(&id).filter(|run| run.project == uid && !run.state.is_closed());
        // A closed run may have replicas that still catch up.
        if run.is_none() && !self.attempts_of(id).any(|attempt| attempt.project == uid) {
            return Err(Refusal::precondition(
                "RUN_CLOSED",
                format!("run {id} of \"{}\" has ended or never was; nothing to cancel", project.record.name),
            ));
        }
        let mut effects = Effects::of(self);
        for attempt in self.attempts_of(id) {
            self.say_cancel(attempt, &format!("cancelled by {by}"), &mut effects);
            self.move_attempt(now, attempt, AttemptEvent::Cancel, &mut effects);
        }
        if run.is_some_and(|run| run.state == RunState::Propagating) {
            // Nothing of this tree is to be pulled any more; the next tree is another matter.
            for placement in project.placements.values().filter(|p| p.has_work(project.state.tree)) {
                let gave_up_on = project.state.tree;
                effects.put(Record::Placement(PlacementRecord { gave_up_on, ..placement.clone() }));
            }
        }
        effects.reply(Reply::Run { project: uid, run: id, coalesced: false, notes: Vec::new() });
        Ok(effects.decision())
    }

    /// Tells the agent, if the attempt may be on it and it is here; else its hello will be answered so.
    fn say_cancel(&self, attempt: &AttemptRecord, reason: &str, effects: &mut Effects<'_>) {
        let Some(epoch) = attempt.state.epoch().filter(|_| attempt.state.is_out()) else { return };
        let Some(session) = self.sessions.get(&attempt.agent) else { return };
        let message = Message::Cancel { attempt: attempt.id, epoch, reason: reason.to_owned() };
        effects.send(Send { agent: attempt.agent, session: session.epoch, message });
    }

    fn freeze(&self, now: Now, by: String, reason: String) -> Decision {
        if let Some(fault) = reason_fault(&reason) {
            return Decision::refused(Refusal::invalid("fleet not frozen", vec![fault]));
        }
        let freeze = self.fleet.frozen.clone().unwrap_or(Freeze { by, time: now.wall, reason });
        let fleet = FleetRecord { frozen: Some(freeze.clone()), ..self.fleet.clone() };
        let changes = vec![Change::Put(Record::Fleet(fleet))];
        Decision { changes, reply: Reply::Frozen(Some(freeze)), ..Decision::nothing() }
    }

    fn thaw(&self) -> Decision {
        let fleet = FleetRecord { frozen: None, ..self.fleet.clone() };
        let changes = vec![Change::Put(Record::Fleet(fleet))];
        Decision { changes, reply: Reply::Frozen(None), ..Decision::nothing() }
    }

    fn drain(&self, uid: AgentUid, draining: bool) -> Outcome {
        let agent = self.find_agent(uid)?;
        let record = AgentRecord { draining, revision: agent.revision + 1, ..agent.clone() };
        let changes = vec![Change::Put(Record::Agent(record))];
        Ok(Decision { changes, reply: Reply::Agent(uid), ..Decision::nothing() })
    }

    fn revoke(&self, now: Now, uid: AgentUid, reason: String) -> Outcome {
        let agent = self.find_agent(uid)?;
        if let Some(fault) = reason_fault(&reason) {
            return Err(Refusal::invalid("agent not revoked", vec![fault]));
        }
        let mut effects = Effects::of(self).without_retries();
        for attempt in self.attempts.values().filter(|attempt| attempt.agent == uid) {
            self.move_attempt(now, attempt, AttemptEvent::Forget, &mut effects);
        }
        let record = AgentRecord { revoked: Some(reason), revision: agent.revision + 1, ..agent.clone() };
        effects.put(Record::Agent(record));
        self.close_revoked(uid, &mut effects);
        effects.reply(Reply::Agent(uid));
        Ok(effects.decision())
    }

    /// Ends the session of an agent that is revoked by the same decision.
    pub(super) fn close_revoked(&self, uid: AgentUid, effects: &mut Effects<'_>) {
        let Some(session) = self.sessions.get(&uid) else { return };
        effects.change(Change::Volatile(Volatile::SessionClosed(uid, session.epoch)));
        let message = Message::Close(CloseReason::Revoked);
        effects.send(Send { agent: uid, session: session.epoch, message });
    }

    fn delete_agent(&self, uid: AgentUid) -> Outcome {
        let agent = self.find_agent(uid)?;
        let names = |project: &&Project| project.record.spec.names_agent(uid);
        let placed = self.placements_on(uid).next().and_then(|project| self.projects.get(&project));
        let placed = placed.or_else(|| self.projects.values().find(names));
        if agent.revoked.is_none() && !agent.is_declared_only() {
            return Err(Refusal::precondition(
                "AGENT_NOT_REVOKED",
                format!(
                    "agent \"{0}\" not deleted: revoke it first (mirrorctl agent revoke {0})",
                    agent.name
                ),
            ));
        }
        if let Some(project) = placed {
            return Err(Refusal::precondition(
                "AGENT_PLACED",
                format!(
                    "agent \"{}\" not deleted: project \"{1}\" names it, or is placed on it by its labels; give the project \
                     another agent first (mirrorctl project edit {1} --help)",
                    agent.name, project.record.name
                ),
            ));
        }
        let trash = self.trash_of(uid).map(|record| Change::Delete(Key::Trash(uid, record.project)));
        let changes = trash.chain([Change::Delete(Key::Agent(uid))]).collect();
        Ok(Decision { changes, ..Decision::nothing() })
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of one request")]
    fn create_token(
        &self,
        now: Now,
        by: String,
        id: String,
        hash: String,
        names: TokenNames,
        networks: Vec<IpNet>,
        uses: u32,
        ttl: Duration,
    ) -> Outcome {
        let mut faults = Vec::new();
        if networks.len() > defaults::JOIN_TOKEN_NETWORKS_MAX {
            let text = format!("at most {} networks", defaults::JOIN_TOKEN_NETWORKS_MAX);
            faults.push(Violation::new("cidrs", text));
        }
        if uses == 0 || uses > defaults::JOIN_TOKEN_USES_MAX {
            let text = format!("\"{uses}\": must be 1 to {}", defaults::JOIN_TOKEN_USES_MAX);
            faults.push(Violation::new("uses", text));
        }
        if uses > 1 && matches!(names, TokenNames::One(_)) {
            faults.push(Violation::new("uses", "more than one use needs a pattern of names"));
        }
        if ttl < Duration::from_secs(60) || ttl > defaults::JOIN_TOKEN_TTL_MAX {
            faults.push(Violation::new("ttl", "must be 1 minute to 30 days"));
        }
        if !faults.is_empty() {
            return Err(Refusal::invalid("no join token made", faults));
        }
        if self.tokens.len() >= defaults::JOIN_TOKENS_MAX {
            let text = format!("there are {} join tokens already; delete some", self.tokens.len());
            return Err(Refusal::new(RefusalCode::ResourceExhausted, "TOO_MANY_TOKENS", text));
        }
        let token = JoinToken { id, hash, names, networks, uses_left: uses, expires: now.wall.plus(ttl), by };
        Ok(Decision { changes: vec![Change::Put(Record::JoinToken(token))], ..Decision::nothing() })
    }

    fn delete_token(&self, id: String) -> Outcome {
        if !self.tokens.contains_key(&id) {
            return Err(Refusal::not_found("join token", id));
        }
        Ok(Decision { changes: vec![Change::Delete(Key::JoinToken(id))], ..Decision::nothing() })
    }

    /// Forgets answers and tokens of all kinds that have expired, and mends schedules that a wrong clock has sent into the far
    /// future; at most [`SWEEP_MAX`] at a time.
    pub(super) fn sweep(&self, now: Now) -> Decision {
        let requests = self.requests.iter().filter(|request| request.expires <= now.wall);
        let requests = requests.map(|request| Change::Delete(Key::Request(request.key.clone())));
        let tokens = self.tokens.values().filter(|token| token.expires <= now.wall);
        let tokens = tokens.map(|token| Change::Delete(Key::JoinToken(token.id.clone())));
        let logins = self.user_tokens.values().filter(|token| token.expires <= now.wall);
        let logins = logins.map(|token| Change::Delete(Key::UserToken(token.id.clone())));
        let pushes = self.push_tokens.all().filter(|token| !token.is_good(now.wall));
        let pushes = pushes.map(|token| Change::Delete(Key::PushToken(token.id.clone())));
        let strayed = self.projects.values().filter_map(|project| self.strayed(now, project));
        let changes = requests.chain(tokens).chain(logins).chain(pushes).chain(strayed);
        let changes = changes.chain(self.stale_trash(now)).take(SWEEP_MAX).collect();
        Decision { changes, ..Decision::nothing() }
    }

    /// The state of a project whose next fire lies far behind the one that its schedule has next: the clock
    /// was far ahead when it was armed, and has been set right. It would stay silent until then.
    fn strayed(&self, now: Now, project: &Project) -> Option<Change> {
        let armed = project.state.next_fire?;
        let begun = project.record.spec.schedule.start.is_none_or(|start| Wall::from(start) <= now.wall);
        let right = next_fire(&project.record, now).filter(|_| begun)?;
        let far = armed.scheduled > right.scheduled.plus(defaults::FIRE_STRAYED);
        far.then(|| Change::Put(Record::ProjectState(project.state.clone().with_fire(Some(right)))))
    }
}

/// What was declared, with the fires at this project's own place in the spread: the one that it has now, as long as the
/// `old` schedule stays.
#[must_use]
pub fn at_its_phase(spec: ProjectSpec, uid: ProjectUid, old: Option<&Schedule>) -> ProjectSpec {
    let origin = spec.placement.origins.first().map_or(0, |origin| origin.agent.0);
    ProjectSpec { schedule: spec.schedule.of_project(uid.0, origin, old), ..spec }
}

/// Most expired things forgotten in one commit unit.
pub const SWEEP_MAX: usize = 64;

pub(super) fn check_revision(project: &Project, revision: Option<u64>) -> Result<(), Refusal> {
    match revision {
        Some(revision) if revision != project.record.revision => {
            Err(Refusal::stale("project", &project.record.name))
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn reason_fault(reason: &str) -> Option<Violation> {
    let bad = reason.chars().count() > defaults::REASON_CHARS_MAX || reason.chars().any(char::is_control);
    bad.then(|| {
        let text = format!("at most {} characters, none of them control", defaults::REASON_CHARS_MAX);
        Violation::new("reason", text)
    })
}
