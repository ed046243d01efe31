//! One agent in another's place: the request is read, and what the engine says of it is put into words of the wire.

use ::fleet::{
    Engine,
    id::Name,
    input::{AgentReplacement, Ask, Input, Person, Reply},
    refusal::{Refusal, RefusalCode, Violation},
};
use mirror_proto::{convert, v1};
use tonic::{Request, Response, Status};

use super::Agents;
use crate::{
    audit::origin,
    config::Reflection,
    rpc::{
        Caller, ask, caller, deny_key, invalid,
        policy::{self, Standing, Verdict},
        project::unexpected,
        refused, user,
    },
    session::trace,
};

const WHAT: &str = "agent not replaced";

/// The request, with the agents' names for the log.
struct Wanted {
    replacement: AgentReplacement,
    old: Name,
    new: Name,
    /// The old agent's key, to be denied when it is revoked.
    key_hash: String,
}

fn read(view: &Engine, request: &v1::ReplaceAgentRequest) -> Result<Wanted, Vec<Violation>> {
    let find = |field: &str, text: &str| {
        let name = convert::parse_agent(field, text)?;
        let unknown =
            || Violation::new(field, format!("there is no agent \"{name}\" (mirrorctl agent list)"));
        view.agent_named(&name).ok_or_else(unknown)
    };
    match (find("name", &request.name), find("replacement", &request.replacement)) {
        (Ok(old), Ok(new)) => Ok(Wanted {
            replacement: AgentReplacement {
                old: old.uid,
                new: new.uid,
                reseed: !request.no_reseed,
                revoke: request.revoke.then(|| request.reason.clone()),
                validate_only: request.validate_only,
            },
            old: old.name.clone(),
            new: new.name.clone(),
            key_hash: old.key_hash.clone(),
        }),
        (old, new) => Err(old.err().into_iter().chain(new.err()).collect()),
    }
}

/// To revoke by the way takes the role that it takes otherwise.
#[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
fn check_may_revoke<T>(request: &Request<T>) -> Result<(), Status> {
    let Caller::User { role, .. } = caller(request)? else { return Ok(()) };
    let method = "/mirror.v1.AgentService/RevokeAgent";
    match policy::decide(method, Standing::User(*role), Reflection::Off) {
        Verdict::Allowed => Ok(()),
        Verdict::NoIdentity | Verdict::Forbidden(_) => {
            let text = format!(
                "{WHAT}: to revoke the old one needs the role admin; without --revoke it is drained, and an admin can \
                 revoke it later"
            );
            Err(refused(&Refusal::new(RefusalCode::PermissionDenied, "NOT_ALLOWED", text)))
        }
    }
}

impl Agents {
    pub(super) async fn replace(
        &self,
        request: Request<v1::ReplaceAgentRequest>,
    ) -> Result<Response<v1::ReplaceAgentResponse>, Status> {
        let by = user(&request)?;
        if request.get_ref().revoke {
            check_may_revoke(&request)?;
        }
        let traceparent = trace::current(request.metadata());
        let request = request.into_inner();
        let wanted = read(&self.services.driver.view(), &request).map_err(|faults| invalid(WHAT, faults))?;
        let Wanted { replacement, old, new, key_hash } = wanted;
        origin::concerns(convert::agent_name(&old));
        let revoke = request.revoke && !request.validate_only;
        let replace = Ask::ReplaceAgent { replacement, traceparent };
        if revoke {
            // What the engine would refuse must not leave a denial behind; and the denial comes first, as with RevokeAgent.
            let now = self.services.driver.now();
            let input = Input::Person(Person { by: by.to_string(), ask: replace.clone() });
            if let Reply::Refused(refusal) = self.services.driver.view().decide(now, input).reply {
                return Err(refused(&refusal));
            }
            deny_key(&self.services, &key_hash).await?;
        }
        let replaced = match ask(&self.services, &by, replace).await? {
            Reply::Replaced(replaced) => replaced,
            other => return Err(unexpected(&other)),
        };
        if revoke {
            self.cut(&old);
        }
        if !request.validate_only {
            let count = replaced.placements.len();
            tracing::info!(
                target: "audit", %by, agent = %old, replacement = %new, count, revoke, no_reseed = request.no_reseed,
                "agent replaced"
            );
        }
        let view = self.services.driver.view();
        Ok(Response::new(convert::replaced_to_wire(&replaced, &*view)))
    }
}
