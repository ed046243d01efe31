//! `ExplainProject`: each agent of a project says what it would call rsync with, and here it is said which part of the
//! declaration, or what else, each argument comes from. Nothing is decided and nothing changes.

use ::fleet::{
    Engine,
    attempt::Role,
    engine::{Explained, Project},
    id::{AgentUid, Epoch},
    input::Offer,
    project::{ProjectSpec, RsyncSettings},
};
use mirror_proto::{
    convert, status,
    v1::{self, argument::Origin, finding::Kind},
};
use rsync::{DeleteMode, Flag, Opt, Options};
use tokio::time::Instant;
use tonic::Status;

use super::{Projects, find, words::span};
use crate::{
    probes::{LOOK_TIME_MAX, Ticket, Unanswered},
    rpc::{RETRY_UNAVAILABLE, project::check::CHECKS_MAX},
};

/// What `--archive` stands for: it is never passed as such, so that devices are not part of it.
const ARCHIVE: [&str; 6] = ["--recursive", "--links", "--perms", "--times", "--owner", "--group"];
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
    /// What people hold one attempt on the agent to, KiB/s.
    cap: Option<u64>,
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
                cap: view.agent(agent).and_then(|record| record.caps.bandwidth_limit_kib),
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
        Ok(probed) => match (probed.command_line, probed.findings.as_slice()) {
            (Some(line), _) if line.fault.is_empty() => Ok(line),
            (Some(line), _) => Err(line.fault),
            // It looks at too much already.
            (None, [finding]) if finding.kind() == Kind::Agent => Err(finding.sentence.clone()),
            // It knows no more than looks, and has looked at nothing.
            (None, _) => {
                Err("it is too old to explain; next: install the coordinator's version there".to_owned())
            }
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
            _ => declared.says(&one, case),
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
    fn says(&self, one: &v1::Argument, case: &Case) -> (Origin, String) {
        let rsync = &self.spec.rsync;
        let field = |given: bool, field: &str| match given {
            true => (Origin::Project, field.to_owned()),
            false => (Origin::Default, String::new()),
        };
        match (one.origin(), name_of(&one.text)) {
            (Origin::Guard, _) => match self.spec.guard.max_delete {
                Some(_) => (Origin::Project, "guard.max_delete".to_owned()),
                None => (Origin::Guard, "by the tree's size".to_owned()),
            },
            (Origin::Default, "--timeout") => field(rsync.io_timeout.is_some(), "rsync.io_timeout"),
            (Origin::Default, "--contimeout") => {
                field(rsync.connect_timeout.is_some(), "rsync.connect_timeout")
            }
            (Origin::Always, "--bwlimit") => limited(&one.text, rsync.bandwidth_limit_kib, case),
            (Origin::Project, _) => match self.part_of(&one.text) {
                Some(part) => (Origin::Project, part.to_owned()),
                // The delete mode of who gives default flags of his own and says nothing of deleting.
                None => (Origin::Default, String::new()),
            },
            (origin, _) => (origin, one.source.clone()),
        }
    }

    /// The part of rsync's words that makes this argument; `None`: no word does.
    fn part_of(&self, text: &str) -> Option<&'static str> {
        let RsyncSettings { defaults, options, delete, .. } = &self.spec.rsync;
        let parts = [
            ("rsync.defaults", defaults.as_deref().unwrap_or_default()),
            ("rsync.options", options),
            ("rsync.delete", delete.as_slice()),
        ];
        parts.into_iter().find(|(_, words)| words.iter().any(|word| makes(word, text))).map(|(part, _)| part)
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

/// Which of the limits it is that holds: the agent keeps to the strictest.
fn limited(text: &str, own_kib: u64, case: &Case) -> (Origin, String) {
    let is = |kib: &u64| *kib > 0 && text == format!("--bwlimit={kib}");
    if is(&own_kib) {
        (Origin::Project, "rsync.bandwidth_limit_kib".to_owned())
    } else if case.cap.as_ref().is_some_and(is) {
        (Origin::Fleet, format!("{} bandwidth_limit_kib", case.name))
    } else {
        (Origin::Agent, "bandwidth_limit_kib".to_owned())
    }
}

/// Whether a pull has this argument because of this word, which is of the allow list in canonical form.
fn makes(word: &str, text: &str) -> bool {
    let read = Options::parse_words(&[word]).unwrap_or_default();
    read.iter().any(|option| match option {
        Opt::Filter(rule) => text == format!("--filter={rule}"),
        Opt::Flag(Flag::Archive) => ARCHIVE.contains(&text),
        Opt::Flag(Flag::Partial) => name_of(text) == "--partial-dir",
        // Deletes wait for the end, and are of what is excluded as well.
        Opt::Delete(DeleteMode::Excluded) => ["--delete-delay", "--delete-excluded"].contains(&text),
        other => name_of(&other.word()) == name_of(text),
    })
}

/// `--timeout`, of `--timeout=60`.
fn name_of(text: &str) -> &str {
    text.split('=').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bandwidth_limit_is_the_projects_the_fleets_for_the_agent_or_of_the_agents_own_file() {
        let case = |cap: Option<u64>| Case {
            agent: AgentUid(1),
            name: "agents/ftp1".to_owned(),
            role: Role::Origin,
            session: None,
            explained: None,
            from: String::new(),
            cap,
        };
        let own_file = (Origin::Agent, "bandwidth_limit_kib".to_owned());
        let cap = (Origin::Fleet, "agents/ftp1 bandwidth_limit_kib".to_owned());
        let project = (Origin::Project, "rsync.bandwidth_limit_kib".to_owned());
        for (text, own_kib, most, wanted) in [
            ("--bwlimit=500", 500, None, &project),
            ("--bwlimit=500", 500, Some(900), &project),
            ("--bwlimit=500", 900, Some(500), &cap),
            ("--bwlimit=500", 0, Some(500), &cap),
            ("--bwlimit=500", 900, Some(700), &own_file),
            ("--bwlimit=500", 0, None, &own_file),
        ] {
            assert_eq!(limited(text, own_kib, &case(most)), *wanted, "{text}, {own_kib}, {most:?}");
        }
    }

    #[test]
    fn each_word_is_known_by_what_rsync_gets_for_it() {
        for (word, arguments) in [
            ("--archive", &["--recursive", "--links", "--perms", "--times", "--owner", "--group"][..]),
            ("--hard-links", &["--hard-links"]),
            ("--partial", &["--partial-dir=.rsync-partial"]),
            ("--exclude=/iso/", &["--filter=- /iso/"]),
            ("--delete-excluded", &["--delete-delay", "--delete-excluded"]),
            ("--delete-after", &["--delete-after"]),
            ("--chmod=F+r", &["--chmod=F+r,ugo-s"]),
            ("--timeout=30", &["--timeout=30"]),
            ("--max-delete=9", &["--max-delete=9"]),
        ] {
            for argument in arguments {
                assert!(makes(word, argument), "{word} makes {argument}");
            }
            for other in ["--safe-links", "--filter=- /other/", "--delete-during", "--sparse", ""] {
                assert!(!makes(word, other), "{word} does not make {other}");
            }
        }
    }
}
