//! Agents, join tokens and the freeze, as people see them. Does not know whether a token is good.

use fleet::{
    agent::{AgentRecord, JoinToken, Root, Session, TokenNames},
    id::{NAME_BYTES_MAX, Name},
    input::{Refill, Replaced, ReplacedPlacement},
    record::Freeze,
    refusal::Violation,
};

use super::{
    fault,
    names::{
        Names, agent_name, agent_name_of, etag_of, join_token_name, parse_name, project_name_of, run_name,
        user_name,
    },
    run::role_to_wire,
    time::wall_to_wire,
};
use crate::v1;

/// What a record of an agent does not know.
#[derive(Debug, Clone, Copy, Default)]
pub struct AgentView<'a> {
    /// Its session, if it has one now.
    pub session: Option<&'a Session>,
    /// Attempts on it now.
    pub running: u32,
    /// Projects placed on it.
    pub placements: u32,
}

/// The wire's form of an agent. What only a session tells is empty without one.
#[must_use]
pub fn agent_to_wire(record: &AgentRecord, view: AgentView<'_>) -> v1::Agent {
    let facts = view.session.map(|session| &session.facts);
    let text = |pick: fn(&fleet::agent::AgentFacts) -> &String| facts.map(pick).cloned().unwrap_or_default();
    let seen = view.session.map(|session| session.since).or(record.last_seen);
    let expires = facts.and_then(|facts| facts.certificate_expires).unwrap_or(record.certificate_expires);
    v1::Agent {
        name: agent_name(&record.name),
        labels: record.labels.clone(),
        connected: view.session.is_some(),
        seen_time: seen.map(wall_to_wire),
        draining: record.draining,
        revoked: record.revoked.is_some(),
        version: text(|facts| &facts.version),
        rsync_version: text(|facts| &facts.rsync_version),
        running: view.running,
        slots: facts.map_or(0, |facts| facts.slots),
        placements: view.placements,
        roots: facts.map(|facts| facts.roots.iter().map(root_to_wire).collect()).unwrap_or_default(),
        certificate_expire_time: Some(wall_to_wire(expires)),
        etag: etag_of(record.revision),
        create_time: Some(wall_to_wire(record.create_time)),
        jail_gaps: facts.map(|facts| facts.jail_gaps.clone()).unwrap_or_default(),
        // Of connections the model knows nothing.
        address: String::new(),
        duplicate: None,
    }
}

/// The wire's form of a root.
#[must_use]
pub fn root_to_wire(root: &Root) -> v1::Root {
    let Root { name, path, total_bytes, free_bytes, total_inodes, free_inodes } = root;
    v1::Root {
        name: name.clone(),
        path: path.clone(),
        total_bytes: *total_bytes,
        free_bytes: *free_bytes,
        total_inodes: *total_inodes,
        free_inodes: *free_inodes,
    }
}

/// The wire's form of a join token, without the secret: nobody knows it any more.
#[must_use]
pub fn join_token_to_wire(token: &JoinToken, ca_hash: &str) -> v1::JoinToken {
    let JoinToken { id, hash: _, names, uses_left, expires, by } = token;
    let (agent, pattern) = match names {
        TokenNames::One(name) => (name.to_string(), String::new()),
        TokenNames::Pattern(pattern) => (String::new(), pattern.clone()),
    };
    v1::JoinToken {
        name: join_token_name(id),
        token: String::new(),
        agent,
        pattern,
        uses_left: *uses_left,
        expire_time: Some(wall_to_wire(*expires)),
        by: user_name(by),
        ca_hash: ca_hash.to_owned(),
    }
}

/// Reads what names a new join token is good for: exactly one of the two is given.
///
/// # Errors
/// Both or neither, no name, or a pattern that no name can fit.
pub fn token_names_from_wire(agent: &str, pattern: &str) -> Result<TokenNames, Violation> {
    let part_ok = |b: u8| b.is_ascii_alphanumeric() || b"._+-*".contains(&b);
    match (agent, pattern) {
        ("", "") => Err(Violation::new("agent", "is required, or a pattern such as edge*")),
        (agent, "") => parse_name("agent", agent).map(TokenNames::One),
        ("", pattern) if pattern.len() <= NAME_BYTES_MAX && pattern.bytes().all(part_ok) => {
            Ok(TokenNames::Pattern(pattern.to_owned()))
        }
        ("", pattern) => {
            let rule = format!("only letters, digits, . _ + - and * for any part (at most {NAME_BYTES_MAX})");
            Err(fault("pattern", pattern, rule))
        }
        (_, _) => Err(Violation::new("pattern", "give either an agent or a pattern")),
    }
}

/// The wire's form of what goes over when one agent takes another's place.
#[must_use]
pub fn replaced_to_wire(replaced: &Replaced, names: &dyn Names) -> v1::ReplaceAgentResponse {
    use v1::replaced_placement::Refill as Wire;
    let placement = |one: &ReplacedPlacement| {
        let (refill, from, run) = match one.refill {
            Refill::Copied { from, run } => (Wire::Copied, Some(from), run),
            Refill::FromOrigin => (Wire::FromOrigin, None, None),
            Refill::FromUpstream => (Wire::FromUpstream, None, None),
            Refill::ByPeople => (Wire::ByPeople, None, None),
        };
        let run = run.zip(names.project(one.project)).map(|(run, project)| run_name(&project, run));
        v1::ReplacedPlacement {
            project: project_name_of(names, one.project),
            role: role_to_wire(one.role).into(),
            standby: one.standby,
            destination: one.destination.to_string(),
            refill: refill.into(),
            copied_from: from.map(|agent| agent_name_of(names, agent)).unwrap_or_default(),
            run: run.unwrap_or_default(),
        }
    };
    let placements = replaced.placements.iter().map(placement).collect();
    v1::ReplaceAgentResponse { placements, labels: replaced.labels.clone() }
}

/// The wire's form of a freeze.
#[must_use]
pub fn freeze_to_wire(freeze: &Freeze) -> v1::Freeze {
    let Freeze { by, time, reason } = freeze;
    v1::Freeze { by: user_name(by), time: Some(wall_to_wire(*time)), reason: reason.clone() }
}

/// Reads the name an agent enrols by; empty: the one that its token is bound to.
///
/// # Errors
/// No name.
pub fn enrol_name_from_wire(agent: &str) -> Result<Option<Name>, Violation> {
    if agent.is_empty() { Ok(None) } else { parse_name("agent", agent).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_bound_in_exactly_one_way() {
        assert!(matches!(token_names_from_wire("edge1", ""), Ok(TokenNames::One(_))));
        assert_eq!(token_names_from_wire("", "edge*"), Ok(TokenNames::Pattern("edge*".to_owned())));
        for (agent, pattern, field) in
            [("", "", "agent"), ("a", "b", "pattern"), ("a b", "", "agent"), ("", "a/b", "pattern")]
        {
            assert_eq!(token_names_from_wire(agent, pattern).unwrap_err().field, field);
        }
    }
}
