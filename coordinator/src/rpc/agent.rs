//! Agents and join tokens, as people see and steer them.

mod declare;
mod list;
mod replace;

use std::time::Duration;

use ::fleet::{
    Engine,
    agent::AgentRecord,
    defaults,
    id::{AgentUid, Name},
    input::{Ask, Reply},
    refusal::Refusal,
};
use mirror_certs::{Identity, JoinToken};
use mirror_proto::{
    convert::{self, AgentView},
    v1,
};
use tonic::{Request, Response, Status};

use super::{By, ask, broken, deny_key, invalid, refused, user};
use crate::{Services, audit::origin};

/// What a revoked agent's session is given to say goodbye in before its connection is cut.
const GOODBYE: Duration = Duration::from_millis(300);

/// `mirror.v1.AgentService`.
#[derive(Debug)]
pub struct Agents {
    services: Services,
}

/// The wire's form of an agent as the view has it.
#[must_use]
pub fn show(view: &Engine, record: &AgentRecord) -> v1::Agent {
    let placements = u32::try_from(view.placed_on(record.uid)).unwrap_or(u32::MAX);
    let of_view = AgentView {
        session: view.session(record.uid),
        running: view.running_on(record.uid),
        placements,
        max_running: view.running_max(record.uid),
        max_serving: view.serving_max(record.uid),
        last_known: Some(&record.last_known),
    };
    let trash = view.trash_of(record.uid).map(convert::trashed_tree_to_wire).collect();
    v1::Agent { trash, ..convert::agent_to_wire(record, of_view) }
}

impl Agents {
    /// The service.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self { services }
    }

    #[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
    fn find(&self, what: &str, text: &str) -> Result<(AgentUid, Name), Status> {
        let name = convert::parse_agent("name", text).map_err(|fault| invalid(what, vec![fault]))?;
        origin::concerns(convert::agent_name(&name));
        let view = self.services.driver.view();
        let agent = view.agent_named(&name).ok_or_else(|| refused(&Refusal::not_found("agent", &name)))?;
        Ok((agent.uid, agent.name.clone()))
    }

    #[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
    fn shown(&self, uid: AgentUid, name: &Name) -> Result<Response<v1::Agent>, Status> {
        let view = self.services.driver.view();
        let agent = view.agent(uid).ok_or_else(|| refused(&Refusal::not_found("agent", name)))?;
        Ok(Response::new(self.with_hosts(show(&view, agent), &view, uid)))
    }

    /// Enters where its session comes from, and another host that wants it.
    fn with_hosts(&self, shown: v1::Agent, view: &Engine, uid: AgentUid) -> v1::Agent {
        let connection = view.session(uid).map(|session| session.connection);
        let address = connection.and_then(|connection| self.services.connections.address_of(connection));
        let twin = self.services.twins.of(uid, self.services.driver.now().wall);
        v1::Agent {
            address: address.map(|address| address.ip().to_string()).unwrap_or_default(),
            duplicate: twin.map(|twin| v1::DuplicateIdentity {
                address: twin.address.to_string(),
                since: Some(convert::wall_to_wire(twin.since)),
                last_time: Some(convert::wall_to_wire(twin.last)),
                refusals: twin.refusals,
            }),
            ..shown
        }
    }

    async fn drain(&self, by: By, text: &str, draining: bool) -> Result<Response<v1::Agent>, Status> {
        let (uid, name) = self.find("agent not changed", text)?;
        ask(&self.services, &by, Ask::Drain { agent: uid, draining }).await?;
        tracing::info!(target: "audit", %by, agent = %name, draining, "drain set");
        self.shown(uid, &name)
    }

    /// Cuts what the agent has open. Its session hears why from the engine first.
    fn cut(&self, name: &Name) {
        let Ok(identity) = name.as_str().parse().map(Identity::Agent) else { return };
        let connections = self.services.connections.clone();
        tokio::spawn(async move {
            tokio::time::sleep(GOODBYE).await;
            connections.kill(&identity);
        });
    }
}

#[tonic::async_trait]
impl v1::agent_service_server::AgentService for Agents {
    async fn get_agent(&self, request: Request<v1::GetAgentRequest>) -> Result<Response<v1::Agent>, Status> {
        let (uid, name) = self.find("agent not shown", &request.get_ref().name)?;
        self.shown(uid, &name)
    }

    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        self.list(request.get_ref())
    }

    async fn create_agent(
        &self,
        request: Request<v1::CreateAgentRequest>,
    ) -> Result<Response<v1::Agent>, Status> {
        self.declare(user(&request)?, request.into_inner()).await
    }

    async fn update_agent(
        &self,
        request: Request<v1::UpdateAgentRequest>,
    ) -> Result<Response<v1::Agent>, Status> {
        self.update(user(&request)?, request.into_inner()).await
    }

    async fn drain_agent(
        &self,
        request: Request<v1::DrainAgentRequest>,
    ) -> Result<Response<v1::Agent>, Status> {
        self.drain(user(&request)?, &request.get_ref().name, true).await
    }

    async fn undrain_agent(
        &self,
        request: Request<v1::UndrainAgentRequest>,
    ) -> Result<Response<v1::Agent>, Status> {
        self.drain(user(&request)?, &request.get_ref().name, false).await
    }

    async fn revoke_agent(
        &self,
        request: Request<v1::RevokeAgentRequest>,
    ) -> Result<Response<v1::Agent>, Status> {
        let by = user(&request)?;
        let v1::RevokeAgentRequest { name, reason } = request.into_inner();
        let (uid, name) = self.find("agent not revoked", &name)?;
        let revoke = Ask::RevokeAgent { agent: uid, reason };
        // What the engine would refuse must not leave a denial behind.
        let now = self.services.driver.now();
        let input = ::fleet::input::Person { by: by.to_string(), ask: revoke.clone() };
        let dry = self.services.driver.view().decide(now, ::fleet::input::Input::Person(input)).reply;
        if let Reply::Refused(refusal) = dry {
            return Err(refused(&refusal));
        }
        // First the denial, outside the store: from here on its certificates are refused, whatever a restore brings back.
        let key = self.services.driver.view().agent(uid).map(|agent| agent.key_hash.clone());
        deny_key(&self.services, &key.unwrap_or_default()).await?;
        ask(&self.services, &by, revoke).await?;
        self.cut(&name);
        tracing::info!(target: "audit", %by, agent = %name, "revoked");
        self.shown(uid, &name)
    }

    async fn replace_agent(
        &self,
        request: Request<v1::ReplaceAgentRequest>,
    ) -> Result<Response<v1::ReplaceAgentResponse>, Status> {
        self.replace(request).await
    }

    async fn delete_agent(&self, request: Request<v1::DeleteAgentRequest>) -> Result<Response<()>, Status> {
        let by = user(&request)?;
        let (uid, name) = self.find("agent not deleted", &request.get_ref().name)?;
        ask(&self.services, &by, Ask::DeleteAgent { agent: uid }).await?;
        tracing::info!(target: "audit", %by, agent = %name, "deleted");
        Ok(Response::new(()))
    }

    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::JoinToken>, Status> {
        let by = user(&request)?;
        let v1::CreateJoinTokenRequest { agent, pattern, uses, ttl, cidrs } = request.get_ref();
        let mut faults = Vec::new();
        let names = convert::token_names_from_wire(agent, pattern).map_err(|fault| faults.push(fault));
        let networks = convert::networks_from_wire("cidrs", cidrs).map_err(|found| faults.extend(found));
        let ttl =
            ttl.as_ref().map_or(Ok(defaults::JOIN_TOKEN_TTL), |ttl| convert::duration_from_wire("ttl", ttl));
        let ttl = ttl.map_err(|fault| faults.push(fault));
        let (Ok(names), Ok(networks), Ok(ttl)) = (names, networks, ttl) else {
            return Err(invalid("no join token made", faults));
        };
        let token = JoinToken::generate().map_err(|error| broken("making a join token", &error))?;
        let now = self.services.driver.now();
        // Its first part is the time, so that the order of ids is the order of age.
        let id = format!("{:012x}{:08x}", now.wall.0, now.entropy & 0xffff_ffff);
        let uses = if *uses == 0 { 1 } else { *uses };
        let wish = Ask::CreateJoinToken { id: id.clone(), hash: token.hash(), names, networks, uses, ttl };
        ask(&self.services, &by, wish).await?;
        tracing::info!(target: "audit", %by, token = id, agent, pattern, ?cidrs, uses, "join token made");
        let view = self.services.driver.view();
        let made = view.join_tokens().find(|token| token.id == id);
        let made = made.ok_or_else(|| refused(&Refusal::not_found("join token", &id)))?;
        let shown = convert::join_token_to_wire(made, &self.services.ca.ca_hash().to_string());
        Ok(Response::new(v1::JoinToken { token: token.reveal().to_owned(), ..shown }))
    }

    async fn list_join_tokens(
        &self,
        _request: Request<v1::ListJoinTokensRequest>,
    ) -> Result<Response<v1::ListJoinTokensResponse>, Status> {
        let ca_hash = self.services.ca.ca_hash().to_string();
        let now = self.services.driver.now();
        let view = self.services.driver.view();
        let usable = view.join_tokens().filter(|token| token.expires > now.wall);
        let join_tokens = usable.map(|token| convert::join_token_to_wire(token, &ca_hash)).collect();
        Ok(Response::new(v1::ListJoinTokensResponse { join_tokens }))
    }

    async fn delete_join_token(
        &self,
        request: Request<v1::DeleteJoinTokenRequest>,
    ) -> Result<Response<()>, Status> {
        let by = user(&request)?;
        let id = convert::parse_join_token("name", &request.get_ref().name);
        let id = id.map_err(|fault| invalid("join token not deleted", vec![fault]))?;
        origin::concerns(convert::join_token_name(&id));
        ask(&self.services, &by, Ask::DeleteJoinToken { id: id.clone() }).await?;
        tracing::info!(target: "audit", %by, token = id, "join token deleted");
        Ok(Response::new(()))
    }
}
