//! Agents join, come, and go. A hello is complete: it alone settles what happened to every attempt while the
//! link was down.

use std::{collections::BTreeMap, net::IpAddr};

use super::{effects::Effects, state::Engine};
use crate::{
    agent::{AgentFacts, AgentRecord, JoinToken, LastKnown, Root, Session, TokenNames, labels_fault},
    attempt::{AttemptEvent, AttemptRecord, AttemptState, Role},
    defaults,
    id::{AgentUid, Epoch, Name, ProjectUid, RunId},
    input::{AgentInput, CloseReason, Decision, Held, Message, Reply, Send},
    record::{Change, FleetRecord, Record, Volatile},
    refusal::{Refusal, RefusalCode, Violation},
    run::{RunRecord, RunState, Trigger, Wish},
    time::{Now, Wall},
};

/// Most attempts a hello may name: far above any agent's slots, far below a commit unit's bound.
pub const HELLO_ATTEMPTS_MAX: usize = 64;

impl Engine {
    /// Burns the token and enters the agent in one commit: the certificate is given out only after it.
    pub(super) fn enroll(&self, now: Now, input: AgentInput) -> Decision {
        let AgentInput::Enroll { token_hash, name, from, labels, key_hash, serial, expires } = input else {
            return Decision::nothing();
        };
        let Some(token) = self.usable_token(now, &token_hash, &name, from) else {
            return Decision::refused(bad_token());
        };
        let mut effects = Effects::of(self);
        let known = self.agent_names.get(&name).and_then(|uid| self.agents.get(uid));
        let labels = joined_labels(known, labels);
        if let Some(fault) = labels_fault(&labels).filter(|_| known.is_none_or(|old| old.labels != labels)) {
            return Decision::refused(too_many_labels(&name, known, fault));
        }
        let fresh_uid = AgentUid(self.next_uid());
        let record = AgentRecord {
            uid: known.map_or(fresh_uid, |agent| agent.uid),
            name,
            last_known: known.map(|agent| agent.last_known.beside(&labels)).unwrap_or_default(),
            labels,
            caps: known.map(|agent| agent.caps).unwrap_or_default(),
            draining: known.is_some_and(|agent| agent.draining),
            revoked: None,
            key_hash,
            certificate_serial: serial,
            certificate_expires: expires,
            state_id: known.map_or_else(String::new, |agent| agent.state_id.clone()),
            last_seen: known.and_then(|agent| agent.last_seen),
            revision: known.map_or(1, |agent| agent.revision + 1),
            create_time: known.map_or(now.wall, |agent| agent.create_time),
        };
        let agent = record.uid;
        if known.is_none() {
            let fleet = FleetRecord { next_uid: fresh_uid.0 + 1, ..self.fleet.clone() };
            effects.put(Record::Fleet(fleet));
        }
        effects.put(Record::Agent(record));
        if token.uses_left > 1 {
            effects.put(Record::JoinToken(JoinToken { uses_left: token.uses_left - 1, ..token.clone() }));
        } else {
            effects.delete(crate::record::Key::JoinToken(token.id.clone()));
        }
        effects.reply(Reply::Agent(agent));
        effects.decision()
    }

    /// Enters the agent's newest certificate. The one before stays good until its own end: the agent may never get this
    /// one.
    pub(super) fn renew(
        &self,
        agent: AgentUid,
        key_hash: &str,
        serial: String,
        certificate_expires: Wall,
    ) -> Decision {
        let record = match self.agent_of_fleet(agent) {
            Ok(record) if record.key_hash == key_hash => record,
            Ok(record) => return Decision::refused(other_key(&record.name)),
            Err(refusal) => return Decision::refused(refusal),
        };
        let mut effects = Effects::of(self);
        effects.put(Record::Agent(AgentRecord {
            certificate_serial: serial,
            certificate_expires,
            ..record.clone()
        }));
        effects.reply(Reply::Agent(agent));
        effects.decision()
    }

    /// The token, if it exists, is not used up or expired, and is good for this name and from this address. A name that is
    /// taken, also by an agent that people have only declared, needs a token bound to exactly that name: with the name go
    /// its projects and their passwords. A revoked one is refused for ever.
    #[must_use]
    pub fn usable_token(
        &self,
        now: Now,
        hash: &str,
        name: &Name,
        from: Option<IpAddr>,
    ) -> Option<&JoinToken> {
        let token = self.tokens.values().find(|token| token.hash == hash)?;
        let known = self.agent_names.get(name).and_then(|uid| self.agents.get(uid));
        let takes_over = matches!(token.names, TokenNames::One(_));
        let name_ok = known.is_none_or(|agent| agent.revoked.is_none() && takes_over);
        let usable = token.uses_left > 0 && token.expires > now.wall;
        (usable && token.names.fits(name) && token.admits(from) && name_ok).then_some(token)
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of one hello")]
    pub(super) fn hello(
        &self,
        now: Now,
        agent: AgentUid,
        state_id: &str,
        highest_term: u64,
        connection: u64,
        facts: AgentFacts,
        held: &[Held],
    ) -> Decision {
        let record = match self.welcome_agent(agent, highest_term, held) {
            Ok(record) => record,
            Err(refusal) => return Decision::refused(refusal),
        };
        // A hello that was long on its way tells of a past that a newer one has put right already.
        if self.connections.get(&agent).is_some_and(|newest| *newest > connection) {
            let text = "superseded by a newer connection of this agent";
            return Decision::refused(Refusal::new(RefusalCode::Aborted, "SUPERSEDED", text));
        }
        let mut effects = Effects::of(self);
        let epoch = self.next_epoch();
        if let Some(old) = self.sessions.get(&agent) {
            let message = Message::Close(CloseReason::Superseded);
            effects.send(Send { agent, session: old.epoch, message });
        }
        self.begin_anew(now, record, &facts.instance_id, &mut effects);
        if let Some(report) = &facts.trash {
            self.settle_trash(now, agent, report, &mut effects);
        }
        let last_known = LastKnown::of(&facts, &record.labels);
        let session = Session { epoch, facts, since: now.wall, connection };
        effects.change(Change::Volatile(Volatile::SessionOpened(agent, session)));
        let welcome = Message::Welcome { term: self.fleet.term, name: record.name.clone() };
        effects.send(Send { agent, session: epoch, message: welcome });
        self.consume_fires(now, agent, held, &mut effects);
        for one in held {
            self.settle_held(now, agent, epoch, one, &mut effects);
        }
        let unsettled = self.settle_lacking(now, record, state_id, held, &mut effects);
        for one in held {
            self.distrust(agent, one, &mut effects);
            self.distrust_copies(agent, one, record.last_seen, &mut effects);
        }
        if !record.state_id.is_empty() && record.state_id != state_id {
            self.distrust_all(record, &mut effects);
        }
        let keep_old_state = unsettled && !record.state_id.is_empty();
        let state_id = if keep_old_state { record.state_id.clone() } else { state_id.to_owned() };
        let last_seen = Some(now.wall);
        effects.put(Record::Agent(AgentRecord { state_id, last_seen, last_known, ..record.clone() }));
        effects.reply(Reply::Session(epoch));
        effects.decision()
    }

    fn welcome_agent(
        &self,
        agent: AgentUid,
        highest_term: u64,
        held: &[Held],
    ) -> Result<&AgentRecord, Refusal> {
        let record = self.agent_of_fleet(agent)?;
        if highest_term > self.fleet.term {
            return Err(Refusal::precondition(
                "STALE_COORDINATOR",
                format!(
                    "this coordinator has term {}, agent \"{}\" has seen {highest_term}: another coordinator runs, or this \
                     store was put back without `mirror-coordinator restore`",
                    self.fleet.term, record.name
                ),
            ));
        }
        if held.len() > HELLO_ATTEMPTS_MAX {
            return Err(Refusal::new(
                RefusalCode::InvalidArgument,
                "TOO_MANY_ATTEMPTS",
                format!("the hello names {} attempts, at most {HELLO_ATTEMPTS_MAX} are possible", held.len()),
            ));
        }
        Ok(record)
    }

    /// The agent, if it is known and not revoked.
    fn agent_of_fleet(&self, agent: AgentUid) -> Result<&AgentRecord, Refusal> {
        let record = self.agents.get(&agent).ok_or_else(|| {
            Refusal::new(
                RefusalCode::PermissionDenied,
                "UNKNOWN_AGENT",
                "this agent is not of this fleet; enrol it again",
            )
        })?;
        if record.revoked.is_some() {
            return Err(Refusal::new(
                RefusalCode::PermissionDenied,
                "AGENT_REVOKED",
                format!("agent \"{}\" is revoked; enrol its host under another name", record.name),
            ));
        }
        Ok(record)
    }

    /// What to do about one attempt that the agent holds.
    fn settle_held(&self, now: Now, agent: AgentUid, session: Epoch, held: &Held, effects: &mut Effects<'_>) {
        let known = self.attempts.get(&held.attempt).filter(|attempt| attempt.agent == agent);
        let cancel = |reason: &str| Message::Cancel {
            attempt: held.attempt,
            epoch: held.epoch,
            reason: reason.to_owned(),
        };
        let message = match known {
            Some(attempt) if attempt.state.epoch() == Some(held.epoch) => match attempt.state {
                AttemptState::Cancelling { .. } => cancel("cancelled while the agent was away"),
                AttemptState::Offered { .. } => {
                    self.move_attempt(now, attempt, AttemptEvent::Accept(held.epoch), effects);
                    self.go_on(attempt, held)
                }
                AttemptState::Running { .. } => self.go_on(attempt, held),
                AttemptState::Pending { .. } | AttemptState::Ended { .. } => {
                    cancel("it was settled otherwise")
                }
            },
            Some(_) => cancel("a newer offer of this attempt was made"),
            // What it ran alone and has ended is entered with its outcome; but before a tree is copied to there, or moved.
            None if held.autonomous.is_some()
                && held.ended
                && self.donor_of(held.project, agent).is_none()
                && self.moving_to(held.project, agent).is_none() =>
            {
                return;
            }
            None if held.autonomous.is_some() => match self.take_over(now, agent, held, effects) {
                Some(attempt) => self.go_on(&attempt, held),
                None => cancel("the project is not this agent's any more, or it has ended"),
            },
            // After a restore a hello may name several that nobody knows: one run of a project is open at a time.
            None if self.may_adopt(agent, held) && !effects.opens_run(held.project) => {
                let attempt = self.adopt(now, agent, held, effects);
                self.go_on(&attempt, held)
            }
            None => cancel("the coordinator knows no such attempt that could still be going"),
        };
        // What has ended needs no order: its report follows, and is acknowledged.
        if !held.ended {
            effects.send(Send { agent, session, message });
        }
    }

    /// Secrets go only where they were lost and are still needed: an agent that has them, or needs none, gets none.
    fn go_on(&self, attempt: &AttemptRecord, held: &Held) -> Message {
        let (attempt_id, epoch) = (held.attempt, held.epoch);
        if !held.needs_secrets {
            return Message::Continue { attempt: attempt_id, epoch, sealed_password: Vec::new(), pair: None };
        }
        let project = self.projects.get(&attempt.project);
        let upstream = project.and_then(|project| project.upstream_of(attempt));
        let sealed_password = upstream.map_or_else(Vec::new, |upstream| upstream.sealed_password.clone());
        let pair = self.pair_of(attempt);
        Message::Continue { attempt: attempt_id, epoch, sealed_password, pair }
    }

    /// An attempt that only the agent knows, as after a restore of an older backup: it is taken over when
    /// nothing speaks against it.
    fn may_adopt(&self, agent: AgentUid, held: &Held) -> bool {
        let Some(project) = self.projects.get(&held.project) else { return false };
        let Some(placement) = project.placements.get(&agent) else { return false };
        !held.recorded
            && !self.runs.contains_key(&held.attempt.run)
            && held.epoch.term < self.fleet.term
            && placement.destination == held.destination
            && placement.role == held.role
            && held.role == Role::Origin
            && !held.keep_extra
            && project.runs.iter().all(|id| self.runs.get(id).is_none_or(|run| run.state.is_closed()))
    }

    fn adopt(&self, now: Now, agent: AgentUid, held: &Held, effects: &mut Effects<'_>) -> AttemptRecord {
        let project = &self.projects[&held.project];
        let id: RunId = held.attempt.run;
        let mut state = effects.project_state(held.project).unwrap_or_else(|| project.state.clone());
        let wanted = state.wanted.max(state.taken + 1);
        let run = RunRecord {
            by_person: true,
            generation: if held.dry_run { 0 } else { wanted },
            state: RunState::Running,
            attempts: held.attempt.number,
            origin_attempt: held.attempt.number,
            start_time: Some(now.wall),
            wish: Wish { dry_run: held.dry_run, ..Wish::default() },
            ..RunRecord::queued(id, held.project, Trigger::schedule(now.wall), now.wall)
        };
        let fresh =
            self.new_attempt(project, agent, id, held.attempt.number, id, 1, std::time::Duration::ZERO);
        let attempt = AttemptRecord {
            state: AttemptState::Running { epoch: held.epoch, offered: now.wall, started: now.wall },
            spec_hash: held.spec_hash.clone(),
            ..fresh
        };
        if !held.dry_run {
            (state.wanted, state.taken) = (wanted, wanted);
            effects.put(Record::ProjectState(state));
        }
        effects.put(Record::Run(run));
        effects.put(Record::Attempt(attempt.clone()));
        attempt
    }

    /// What to do about attempts that we believe to be out and the agent does not name. True: some stay
    /// unsettled, because this is another state directory than the one that took them.
    fn settle_lacking(
        &self,
        now: Now,
        record: &AgentRecord,
        state_id: &str,
        held: &[Held],
        effects: &mut Effects<'_>,
    ) -> bool {
        let same_state = record.state_id.is_empty() || record.state_id == state_id;
        let out = self.usage.agents.get(&record.uid).into_iter().flatten();
        let mut unsettled = false;
        for attempt in out.filter_map(|id| self.attempts.get(id)) {
            let Some(epoch) = attempt.state.epoch() else { continue };
            // Held under another epoch is not held: that one is an older offer, and is cancelled.
            if held.iter().any(|one| one.attempt == attempt.id && one.epoch == epoch) {
                continue;
            }
            let event = match attempt.state {
                AttemptState::Cancelling { .. } => AttemptEvent::Return(epoch),
                AttemptState::Offered { .. } if same_state => AttemptEvent::Return(epoch),
                AttemptState::Running { .. } if same_state => AttemptEvent::Forget,
                AttemptState::Offered { .. } | AttemptState::Running { .. } => {
                    unsettled = true;
                    continue;
                }
                AttemptState::Pending { .. } | AttemptState::Ended { .. } => continue,
            };
            self.move_attempt(now, attempt, event, effects);
        }
        unsettled
    }

    pub(super) fn gone(&self, now: Now, agent: AgentUid, session: Epoch) -> Decision {
        let mut effects = Effects::of(self);
        if let Some(current) = self.sessions.get(&agent).filter(|current| current.epoch == session) {
            effects.change(Change::Volatile(Volatile::SessionClosed(agent, session)));
            if let Some(record) = self.agents.get(&agent) {
                let last_known = LastKnown::of(&current.facts, &record.labels);
                let last_seen = Some(now.wall);
                effects.put(Record::Agent(AgentRecord { last_seen, last_known, ..record.clone() }));
            }
        }
        effects.decision()
    }

    pub(super) fn exporting(
        &self,
        agent: AgentUid,
        session: Epoch,
        serial: u64,
        serve_uri: String,
        fault: String,
        not_served: Vec<ProjectUid>,
    ) -> Decision {
        let mut effects = Effects::of(self);
        if self.sessions.get(&agent).is_some_and(|current| current.epoch == session) {
            let exporting = Volatile::Exporting { agent, serial, serve_uri, fault, not_served };
            effects.change(Change::Volatile(exporting));
        }
        effects.decision()
    }

    pub(super) fn inventory(&self, agent: AgentUid, session: Epoch, roots: Vec<Root>) -> Decision {
        let mut effects = Effects::of(self);
        if self.sessions.get(&agent).is_some_and(|current| current.epoch == session) {
            effects.change(Change::Volatile(Volatile::Inventory(agent, roots)));
        }
        effects.decision()
    }
}

/// The labels of an agent that enrols: those that it has hold, whoever gave them, and the host can only add others. Else a
/// host that is installed anew would undo what people have set since, and the trees of the projects that select it by that.
fn joined_labels(known: Option<&AgentRecord>, said: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels = said;
    labels.extend(known.map(|agent| agent.labels.clone()).unwrap_or_default());
    labels
}

fn too_many_labels(name: &Name, known: Option<&AgentRecord>, fault: Violation) -> Refusal {
    let next = match known {
        Some(known) if !known.labels.is_empty() => {
            format!(
                "; {} of them it has already: enrol it with fewer, or take some of those away first (mirrorctl agent set \
                     {name} --label KEY-)",
                known.labels.len()
            )
        }
        Some(_) | None => "; enrol it with fewer".to_owned(),
    };
    let description = format!("agent \"{name}\": {}{next}", fault.description);
    Refusal::invalid("not enrolled", vec![Violation { description, ..fault }])
}

fn other_key(name: &Name) -> Refusal {
    Refusal::new(
        RefusalCode::PermissionDenied,
        "OTHER_KEY",
        format!("agent \"{name}\" enrolled with another key; enrol its host again"),
    )
}

fn bad_token() -> Refusal {
    let minutes = defaults::JOIN_TOKEN_TTL.as_secs() / 60;
    Refusal::new(
        RefusalCode::Unauthenticated,
        "BAD_JOIN_TOKEN",
        format!(
            "the join token is unknown, used up, expired (they live {minutes} minutes by default) or not good for this \
             name or from this address; make a new one: mirrorctl join-token create"
        ),
    )
}
