//! Agents as people declare them: created before any host enrols by their names, and given labels and caps.

use ::fleet::{
    id::{AgentUid, Name},
    input::{Ask, Reply},
    refusal::{Refusal, Violation},
};
use mirror_proto::{
    convert::{self, AgentSettings},
    v1,
};
use tonic::{Code, Response, Status};

use super::Agents;
use crate::{
    audit::origin,
    rpc::{By, ask, invalid, project::unexpected, refused, request::key},
};

/// Tries of an update without an etag, when others change the agent at the same time.
const UPDATE_TRIES: usize = 5;

/// An update, ready for the driver.
struct Update {
    ask: Ask,
    uid: AgentUid,
    name: Name,
    settings: AgentSettings,
}

impl Agents {
    pub(super) async fn declare(
        &self,
        by: By,
        request: v1::CreateAgentRequest,
    ) -> Result<Response<v1::Agent>, Status> {
        const WHAT: &str = "agent not declared";
        let id = key(&by, "CreateAgent", &request.request_id, &request);
        let wire = request.agent.as_ref().ok_or_else(|| invalid(WHAT, vec![missing("agent")]))?;
        let named = convert::parse_agent("agent.name", &wire.name);
        if let Ok(name) = &named {
            origin::concerns(convert::agent_name(name));
        }
        let settings = convert::agent_settings_from_wire(wire);
        let (id, name, settings) = match (id, named, settings) {
            (Ok(id), Ok(name), Ok(settings)) => (id, name, settings),
            (id, named, settings) => {
                let faults = named.err().into_iter().chain(settings.err().into_iter().flatten());
                return Err(invalid(WHAT, faults.chain(id.err()).collect()));
            }
        };
        let AgentSettings { labels, caps } = settings.clone();
        let validate_only = request.validate_only;
        let create = Ask::CreateAgent { name: name.clone(), labels, caps, request: id, validate_only };
        match ask(&self.services, &by, create).await? {
            Reply::Agent(uid) => {
                tracing::info!(target: "audit", %by, agent = %name, "agent declared");
                self.shown(uid, &name)
            }
            Reply::Done => Ok(Response::new(imagined(&name, &settings))),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn update(
        &self,
        by: By,
        request: v1::UpdateAgentRequest,
    ) -> Result<Response<v1::Agent>, Status> {
        let any_etag = request.agent.as_ref().is_some_and(|agent| agent.etag.is_empty());
        let mut tries = UPDATE_TRIES;
        loop {
            tries -= 1;
            let Update { ask: update, uid, name, settings } = self.read_update(&request)?;
            match ask(&self.services, &by, update).await {
                Ok(Reply::Agent(uid)) => {
                    tracing::info!(target: "audit", %by, agent = %name, "agent changed");
                    return self.shown(uid, &name);
                }
                Ok(Reply::Done) => {
                    let shown = self.shown(uid, &name)?;
                    return Ok(shown.map(|shown| with(shown, &settings)));
                }
                Ok(other) => return Err(unexpected(&other)),
                // Somebody else was faster; who sent no etag means whatever is there.
                Err(status) if status.code() == Code::Aborted && any_etag && tries > 0 => {}
                Err(status) => return Err(status),
            }
        }
    }

    #[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
    fn read_update(&self, request: &v1::UpdateAgentRequest) -> Result<Update, Status> {
        const WHAT: &str = "agent not changed";
        let wanted = request.agent.as_ref().ok_or_else(|| invalid(WHAT, vec![missing("agent")]))?;
        let paths = request.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
        let name = convert::parse_agent("agent.name", &wanted.name);
        let etag = convert::parse_etag("agent.etag", &wanted.etag);
        let view = self.services.driver.view();
        let known = name.as_ref().ok().and_then(|name| view.agent_named(name));
        let current = known.map(AgentSettings::of).unwrap_or_default();
        let settings = convert::agent_update_from_wire(&current, wanted, paths);
        let (name, etag, settings) = match (name, etag, settings) {
            (Ok(name), Ok(etag), Ok(settings)) => (name, etag, settings),
            (name, etag, settings) => {
                let faults = name.err().into_iter().chain(etag.err());
                return Err(invalid(WHAT, faults.chain(settings.err().into_iter().flatten()).collect()));
            }
        };
        origin::concerns(convert::agent_name(&name));
        let record = known.ok_or_else(|| refused(&Refusal::not_found("agent", &name)))?;
        let AgentSettings { labels, caps } = settings.clone();
        let (uid, name) = (record.uid, record.name.clone());
        let revision = etag.unwrap_or(record.revision);
        let validate_only = request.validate_only;
        let ask = Ask::UpdateAgent { agent: uid, labels, caps, revision, validate_only };
        Ok(Update { ask, uid, name, settings })
    }
}

/// An agent as it would be with these settings.
fn with(shown: v1::Agent, settings: &AgentSettings) -> v1::Agent {
    let caps = settings.caps;
    v1::Agent {
        labels: settings.labels.clone(),
        max_running: caps.max_running.unwrap_or(0),
        max_serving: caps.max_serving.unwrap_or(0),
        bandwidth_limit_kib: caps.bandwidth_limit_kib.unwrap_or(0),
        ..shown
    }
}

/// What a declaration would become, without anything that only a stored one has.
fn imagined(name: &Name, settings: &AgentSettings) -> v1::Agent {
    let bare = v1::Agent { name: convert::agent_name(name), declared_only: true, ..v1::Agent::default() };
    with(bare, settings)
}

fn missing(field: &str) -> Violation {
    Violation::new(field, "is required")
}
