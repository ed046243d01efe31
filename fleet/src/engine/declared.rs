//! Agents as people declare them: entered before any host enrols by their names, and given labels and caps at any time.
//! What follows from labels is `homes.rs`'s; what agents say of themselves is `agents.rs`'s.

use std::collections::BTreeMap;

use super::{effects::Effects, people::Outcome, requests::remember, state::Engine};
use crate::{
    agent::{AgentCaps, AgentRecord, LastKnown, labels_fault},
    id::{AgentUid, Name},
    input::{Decision, Reply, RequestKey},
    record::{Answer, FleetRecord, Record},
    refusal::{Refusal, RefusalCode, Violation},
    time::{Now, Wall},
};

impl Engine {
    /// Attempts on an agent at once: as many as its own file allows, and no more than people set for it or, where they set
    /// nothing, than the fleet's limit.
    #[must_use]
    pub fn running_max(&self, agent: AgentUid) -> u32 {
        let own = self.sessions.get(&agent).map(|session| session.facts.slots).filter(|slots| *slots > 0);
        let cap = self.caps_of(agent).max_running.unwrap_or(self.limits.agent_slots);
        own.unwrap_or(u32::MAX).min(cap)
    }

    /// Replicas that pull from an agent at once: what people set for it, or the fleet's limit.
    #[must_use]
    pub fn serving_max(&self, agent: AgentUid) -> u32 {
        self.caps_of(agent).max_serving.unwrap_or(self.limits.origin_uplink)
    }

    /// What an attempt on an agent may take, KiB/s, where its project allows this much; 0: no limit in both.
    pub(super) fn bandwidth_on(&self, agent: AgentUid, project_kib: u64) -> u64 {
        self.caps_of(agent).bandwidth(project_kib)
    }

    fn caps_of(&self, agent: AgentUid) -> AgentCaps {
        self.agents.get(&agent).map(|record| record.caps).unwrap_or_default()
    }

    /// Enters an agent by whose name no host has enrolled yet. Projects may name it and select it from now on; what they
    /// would do there waits.
    pub(super) fn create_agent(
        &self,
        now: Now,
        name: Name,
        labels: BTreeMap<String, String>,
        caps: AgentCaps,
        request: Option<RequestKey>,
        validate_only: bool,
    ) -> Outcome {
        if let Some(reply) = self.remembered(now, request.as_ref())? {
            return Ok(Decision { reply, ..Decision::nothing() });
        }
        if let Some(taken) = self.agent_named(&name) {
            let text = format!("an agent \"{}\" exists; names are unique ignoring case", taken.name);
            return Err(Refusal::new(RefusalCode::AlreadyExists, "AGENT_EXISTS", text));
        }
        let faults = faults(caps, Some(&labels));
        if !faults.is_empty() {
            return Err(Refusal::invalid("agent not declared", faults));
        }
        if validate_only {
            return Ok(Decision::nothing());
        }
        let uid = AgentUid(self.next_uid());
        let mut effects = Effects::of(self);
        effects.put(Record::Fleet(FleetRecord { next_uid: uid.0 + 1, ..self.fleet.clone() }));
        effects.put(Record::Agent(AgentRecord {
            uid,
            name,
            labels,
            caps,
            draining: false,
            revoked: None,
            key_hash: String::new(),
            certificate_serial: String::new(),
            certificate_expires: Wall(0),
            state_id: String::new(),
            last_seen: None,
            last_known: LastKnown::default(),
            revision: 1,
            create_time: now.wall,
        }));
        let mut decision = effects.decision();
        remember(now, request, Answer::Agent(uid), &mut decision);
        decision.reply = Reply::Agent(uid);
        Ok(decision)
    }

    /// Sets labels and caps. What runs goes on; placements follow the labels by ticks.
    pub(super) fn update_agent(
        &self,
        uid: AgentUid,
        labels: BTreeMap<String, String>,
        caps: AgentCaps,
        revision: u64,
        validate_only: bool,
    ) -> Outcome {
        let agent = self.find_agent(uid)?;
        if agent.revision != revision {
            return Err(Refusal::stale("agent", &agent.name));
        }
        // What it has already is no fault of who changes something else.
        let faults = faults(caps, (agent.labels != labels).then_some(&labels));
        if !faults.is_empty() {
            return Err(Refusal::invalid("agent not changed", faults));
        }
        let mut effects = Effects::of(self);
        if (&agent.labels, agent.caps) != (&labels, caps) && !validate_only {
            let last_known = agent.last_known.beside(&labels);
            let record = AgentRecord { labels, caps, last_known, revision: revision + 1, ..agent.clone() };
            effects.put(Record::Agent(record));
        }
        effects.reply(if validate_only { Reply::Done } else { Reply::Agent(uid) });
        Ok(effects.decision())
    }
}

/// What is wrong with what people say of an agent.
fn faults(caps: AgentCaps, labels: Option<&BTreeMap<String, String>>) -> Vec<Violation> {
    let mut faults = caps.faults();
    let of_labels = labels.and_then(labels_fault);
    faults.extend(of_labels.map(|fault| Violation::new(format!("agent.{}", fault.field), fault.description)));
    faults
}
