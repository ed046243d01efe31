//! `ApplyProjects`: a plan is made, recorded by one commit, and the answer waits until the writer has carried it out.

use std::sync::Arc;

use ::fleet::{
    input::{Ask, Reply},
    plan::{Asker, PlanCounts, PlanRequest, Progress},
    refusal::{Refusal, RefusalCode},
};
use mirror_proto::v1;
use tonic::{Code, Status};

use super::{
    Projects, UPDATE_TRIES, ask, invalid,
    plan::{Wanted, not_applied},
    refused, unexpected,
};
use crate::{
    audit::origin,
    rpc::{By, request::key},
};

/// Steps that were left out of a plan and are named in the answer.
const LEFT_OUT_MAX: usize = 100;

impl Projects {
    pub(super) async fn apply_declared(
        &self,
        by: By,
        request: v1::ApplyProjectsRequest,
    ) -> Result<v1::ApplyProjectsResponse, Status> {
        let id = key(&by, "ApplyProjects", &request.request_id, &without_passwords(&request))
            .map_err(|fault| invalid("nothing applied", vec![fault]))?;
        let known = {
            let driver = &self.services.driver;
            driver.view().remembered(driver.now(), id.as_ref()).map_err(|refusal| refused(&refusal))?
        };
        if let Some(reply) = known {
            return self.carried_out(&reply).await;
        }
        let v1::ApplyProjectsRequest { projects, prune, paused, etag, .. } = request;
        let wanted = Arc::new(Wanted { projects, prune, paused, compares: true });
        let mut tries = UPDATE_TRIES;
        loop {
            tries -= 1;
            let planned = self.planned(&by, &wanted, self.place_to_apply().await?).await?;
            if !etag.is_empty() && etag != planned.etag && planned.faults.is_empty() {
                return Err(stale());
            }
            if !planned.faults.is_empty() {
                return Err(not_applied(planned.faults));
            }
            let plan = PlanRequest { acts: planned.acts, asker: asker(&by), request: id.clone() };
            match ask(&self.services, &by, Ask::Apply(Box::new(plan))).await {
                Ok(reply) => {
                    tracing::info!(target: "audit", %by, ?reply, "projects applied");
                    return self.carried_out(&reply).await;
                }
                // Somebody else was faster: what the plan was made on is judged anew, by the same etag.
                Err(status) if status.code() == Code::Aborted && tries > 0 => {}
                Err(status) => return Err(status),
            }
        }
    }

    /// Waits until nothing of the plan is left.
    async fn carried_out(&self, reply: &Reply) -> Result<v1::ApplyProjectsResponse, Status> {
        let Reply::Planned { plan, counts } = reply else { return Err(unexpected(reply)) };
        let mut changes = self.services.driver.changes();
        loop {
            let ended = answer(self.services.driver.view().progress(*plan), *counts);
            if let Some(answer) = ended {
                return answer.map_err(|refusal| refused(&refusal));
            }
            if changes.changed().await.is_err() {
                let text =
                    "the coordinator stops; what was planned is recorded and goes on at its next start";
                return Err(Status::unavailable(text));
            }
        }
    }
}

/// The answer for a plan that is about so much; `None`: it is being carried out.
fn answer(progress: Progress<'_>, counts: PlanCounts) -> Option<Result<v1::ApplyProjectsResponse, Refusal>> {
    let left_out = match progress {
        Progress::Open { frozen: false, .. } => return None,
        Progress::Open { left, frozen: true } => {
            let text = format!(
                "not all applied: the fleet is frozen; what was planned is recorded, {left} steps of it are left and go on \
                 at the thaw (mirrorctl thaw)"
            );
            return Some(Err(Refusal::precondition("FLEET_FROZEN", text)));
        }
        Progress::Forgotten => {
            let text = "the plan has ended, and whether all of it was done is not known any more: others were applied \
                        since; look what still differs (mirrorctl plan)";
            return Some(Err(Refusal::new(RefusalCode::Aborted, "PLAN_FORGOTTEN", text)));
        }
        Progress::Ended(left_out) => left_out,
    };
    let PlanCounts { created, changed, deleted } = counts.without(&left_out);
    let told = left_out.iter().take(LEFT_OUT_MAX);
    let left_out = told.map(|one| format!("project \"{}\": {}", one.name, one.why)).collect();
    Some(Ok(v1::ApplyProjectsResponse { created, changed, deleted, left_out }))
}

fn asker(by: &By) -> Asker {
    let none = || Asker { who: by.to_string(), ..Asker::default() };
    origin::current().map_or_else(none, |origin| Asker {
        who: origin.who().to_owned(),
        from: origin.from().to_owned(),
        request_id: origin.request_id(),
    })
}

fn stale() -> Status {
    let text =
        "nothing applied: projects of the plan were changed meanwhile; look at it again (mirrorctl plan)";
    refused(&Refusal::new(RefusalCode::Aborted, "STALE_PLAN", text))
}

/// The request as it is remembered: the hash of a password that people chose would help to guess it.
fn without_passwords(request: &v1::ApplyProjectsRequest) -> v1::ApplyProjectsRequest {
    let mut request = request.clone();
    let projects = request.projects.iter_mut().filter_map(|declared| declared.project.as_mut());
    for upstream in projects.flat_map(|project| &mut project.upstreams) {
        upstream.password = upstream.password.as_ref().map(|_| String::new());
    }
    request
}
