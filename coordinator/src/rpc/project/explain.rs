//! `ExplainProject`: each agent of a project says what it would call rsync with, and here it is said which part of the
//! declaration, or what else, each argument comes from. Nothing is decided and nothing changes.

use ::fleet::{
    Engine,
    attempt::Role,
    engine::{Explained, Project},
    id::{AgentUid, Epoch},
    input::Offer,
    project::ProjectSpec,
};
use mirror_proto::{
    convert, status,
    v1::{self, argument::Origin},
};
use tokio::time::Instant;
use tonic::Status;

use super::{Projects, find, words::span};
use crate::{
    probes::{LOOK_TIME_MAX, Ticket, Unanswered},
    rpc::{RETRY_UNAVAILABLE, project::check::CHECKS_MAX},
};

/// Explanations at once: half of what agents are asked at once, so that who may only look leaves room for checks.
pub const EXPLAINS_MAX: usize = CHECKS_MAX / 2;

/// What is asked of one agent.
struct Case {
    agent: AgentUid,
    /// agents/{agent}.
    name: String,
    role: Role,
    session: Option<Epoch>,
    explained: Option<Explained>,
    /// agents/{agent} that the tree would be pulled from; empty: the upstream.
    from: String,
}

/// What a project says that command lines follow from.
struct Declared {
    spec: ProjectSpec,
    /// The preferred upstream's place.
    upstream: u32,
}

impl Projects {
    /// Asks all agents at once, and says where what they answer comes from.
    pub(super) async fn explain(&self, name: &str) -> Result<v1::ExplainProjectResponse, Status> {
        let (explains, checks) = (&self.services.explains, &self.services.checks);
        let (Ok(_own), Ok(_permit)) = (explains.try_acquire(), checks.try_acquire()) else {
            let text = format!(
                "{EXPLAINS_MAX} projects are explained already, or {CHECKS_MAX} checks go on; try again in a moment"
            );
            return Err(status::exhausted("CHECKS_BUSY", &text, RETRY_UNAVAILABLE));
        };
        let (cases, declared) = {
            let view = self.services.driver.view();
            let project = find(&view, "project not explained", "name", name)?;
            let declared = Declared { spec: project.record.spec.clone(), upstream: project.state.upstream };
            (self.cases(&view, project), declared)
        };
        let asked: Vec<(Case, Result<Ticket, String>)> =
            cases.into_iter().map(|case| self.ask_to_explain(case)).collect();
        let until = Instant::now() + LOOK_TIME_MAX;
        let mut command_lines = Vec::with_capacity(asked.len());
        for (case, ticket) in asked {
            let told = match ticket {
                Ok(ticket) => answered(ticket, until).await,
                Err(why) => Err(why),
            };
            command_lines.push(match told {
                Ok(line) => attributed(line, &case, &declared),
                Err(fault) => v1::CommandLine {
                    agent: case.name.clone(),
                    role: convert::role_to_wire(case.role).into(),
                    fault,
                    ..v1::CommandLine::default()
                },
            });
        }
        Ok(v1::ExplainProjectResponse { command_lines })
    }

    fn cases(&self, view: &Engine, project: &Project) -> Vec<Case> {
        let now = self.services.driver.now();
        let case = |agent: AgentUid, role: Role| {
            let explained = view.explained(now, project.record.uid, agent);
            let from = explained.as_ref().and_then(|explained| explained.source);
            Case {
                agent,
                name: convert::agent_name_of(view, agent),
                role,
                session: view.session(agent).map(|session| session.epoch),
                from: from.map(|from| convert::agent_name_of(view, from)).unwrap_or_default(),
                explained,
            }
        };
        let mut cases: Vec<Case> =
            project.placements.values().map(|placement| case(placement.agent, placement.role)).collect();
        cases.sort_by(|a, b| (a.role != Role::Origin, &a.name).cmp(&(b.role != Role::Origin, &b.name)));
        cases
    }

    fn ask_to_explain(&self, case: Case) -> (Case, Result<Ticket, String>) {
        let ticket = self.explain_ticket(&case);
        (case, ticket)
    }

    fn explain_ticket(&self, case: &Case) -> Result<Ticket, String> {
        let Some(session) = case.session else {
            return Err("it is not connected, and only it knows its own file and rsync".to_owned());
        };
        let Some(Explained { offer, .. }) = &case.explained else {
            return Err(match case.role {
                Role::Origin => "the project has no upstream: people put the tree there".to_owned(),
                Role::Replica => "no agent serves it the tree now".to_owned(),
            });
        };
        let ticket = self.services.probes.begin(case.agent, session, None).map_err(unanswered)?;
        let assignment = v1::Assignment { key: None, ..convert::assignment_to_wire(offer, None) };
        let probe = v1::Probe {
            id: ticket.id(),
            project_uid: offer.project.0,
            project: offer.project_name.to_string(),
            role: convert::role_to_wire(case.role).into(),
            explain: Some(assignment),
            explain_password: offer.pair.is_some() || !offer.sealed_password.is_empty(),
            ..v1::Probe::default()
        };
        let sent = self.services.outbox.probe(case.agent, session, probe);
        if sent { Ok(ticket) } else { Err(unanswered(Unanswered::Gone)) }
    }
}

fn unanswered(why: Unanswered) -> String {
    format!("it was not asked: {why}")
}

async fn answered(ticket: Ticket, until: Instant) -> Result<v1::CommandLine, String> {
    match ticket.probed(until).await {
        Ok(probed) => match (probed.command_line, probed.findings.into_iter().next()) {
            (Some(line), _) if line.fault.is_empty() => Ok(line),
            (Some(line), _) => Err(line.fault),
            (None, Some(finding)) => Err(finding.sentence),
            (None, None) => Err("it is too old to explain".to_owned()),
        },
        Err(why) => Err(unanswered(why)),
    }
}

/// The agent's answer, with the part of the declaration that each argument comes from.
fn attributed(line: v1::CommandLine, case: &Case, declared: &Declared) -> v1::CommandLine {
    let last = line.arguments.len().saturating_sub(1);
    let operands = line.arguments.iter().position(|one| one.text == "--").unwrap_or(last);
    let arguments = line.arguments.into_iter().enumerate().map(|(index, one)| {
        let (origin, source) = match index {
            _ if index == last => (Origin::Project, "destination".to_owned()),
            _ if index > operands => operand(case, declared),
            _ => declared.says(&one),
        };
        v1::Argument { origin: origin.into(), source, ..one }
    });
    let limits = case.explained.as_ref().map(|explained| declared.limits(&explained.offer));
    v1::CommandLine {
        agent: case.name.clone(),
        role: convert::role_to_wire(case.role).into(),
        arguments: arguments.collect(),
        limits: limits.unwrap_or_default(),
        ..line
    }
}

/// Where the tree is pulled from.
fn operand(case: &Case, declared: &Declared) -> (Origin, String) {
    match case.role {
        Role::Origin => (Origin::Project, format!("upstreams[{}]", declared.upstream)),
        Role::Replica => (Origin::Fleet, case.from.clone()),
    }
}

impl Declared {
    /// Where an option comes from, by its name and by what the agent says of it.
    fn says(&self, one: &v1::Argument) -> (Origin, String) {
        let rsync = &self.spec.rsync;
        let name = one.text.split('=').next().unwrap_or_default();
        let field = |given: bool, field: &str| match given {
            true => (Origin::Project, field.to_owned()),
            false => (Origin::Default, String::new()),
        };
        match (one.origin(), name) {
            (Origin::Guard, _) => match self.spec.guard.max_delete {
                Some(_) => (Origin::Project, "guard.max_delete".to_owned()),
                None => (Origin::Guard, "by the tree's size".to_owned()),
            },
            (Origin::Default, "--timeout") => field(rsync.io_timeout.is_some(), "rsync.io_timeout"),
            (Origin::Default, "--contimeout") => {
                field(rsync.connect_timeout.is_some(), "rsync.connect_timeout")
            }
            (Origin::Always, "--bwlimit") => {
                let own = format!("--bwlimit={}", rsync.bandwidth_limit_kib);
                match rsync.bandwidth_limit_kib > 0 && own == one.text {
                    true => (Origin::Project, "rsync.bandwidth_limit_kib".to_owned()),
                    false => (Origin::Agent, "bandwidth_limit_kib".to_owned()),
                }
            }
            (Origin::Project, _) => (Origin::Project, "rsync.options".to_owned()),
            (origin, _) => (origin, one.source.clone()),
        }
    }

    /// What the agent itself holds the program to.
    fn limits(&self, offer: &Offer) -> Vec<v1::Argument> {
        let rsync = &self.spec.rsync;
        let limit = |given: bool, field: &str, text: String| {
            let (origin, source) =
                if given { (Origin::Project, field.to_owned()) } else { (Origin::Default, String::new()) };
            v1::Argument { text, origin: origin.into(), source }
        };
        let run = offer.run_timeout.map_or_else(|| "none, it is the first copy".to_owned(), span);
        let stall = format!("stall timeout {}", span(offer.stall_timeout));
        vec![
            limit(rsync.stall_timeout.is_some(), "rsync.stall_timeout", stall),
            limit(rsync.run_timeout.is_some(), "rsync.run_timeout", format!("run timeout {run}")),
        ]
    }
}
