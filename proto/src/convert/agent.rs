//! Agents, join tokens and the freeze, as people see them. Does not know whether a token is good.

use std::{collections::BTreeMap, net::IpAddr};

use fleet::{
    agent::{AgentCaps, AgentRecord, JoinToken, LastKnown, Root, Session, TokenNames},
    defaults,
    id::{NAME_BYTES_MAX, Name},
    input::{Refill, Replaced, ReplacedPlacement},
    record::Freeze,
    refusal::Violation,
};
use ipnet::IpNet;

use super::{
    fault, labels_from_wire,
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
    /// Attempts on it at once that are let through now.
    pub max_running: u32,
    /// Replicas that may pull from it at once.
    pub max_serving: u32,
    /// What it said before, for when it has no session; `None`: that is not shown.
    pub last_known: Option<&'a LastKnown>,
}

/// The wire's form of an agent. What only a session tells is what was last known without one.
#[must_use]
pub fn agent_to_wire(record: &AgentRecord, view: AgentView<'_>) -> v1::Agent {
    let facts = view.session.map(|session| &session.facts);
    let (version, rsync_version, roots) = match (facts, view.last_known) {
        (Some(facts), _) => (facts.version.as_str(), facts.rsync_version.as_str(), facts.roots.as_slice()),
        (None, Some(known)) => (known.version.as_str(), known.rsync_version.as_str(), known.roots.as_slice()),
        (None, None) => ("", "", &[][..]),
    };
    let seen = view.session.map(|session| session.since).or(record.last_seen);
    let expires = facts.and_then(|facts| facts.certificate_expires).unwrap_or(record.certificate_expires);
    v1::Agent {
        name: agent_name(&record.name),
        labels: record.labels.clone(),
        connected: view.session.is_some(),
        seen_time: seen.map(wall_to_wire),
        draining: record.draining,
        revoked: record.revoked.is_some(),
        version: version.to_owned(),
        rsync_version: rsync_version.to_owned(),
        running: view.running,
        slots: facts.map_or(0, |facts| facts.slots),
        placements: view.placements,
        roots: roots.iter().map(root_to_wire).collect(),
        certificate_expire_time: (!record.is_declared_only()).then(|| wall_to_wire(expires)),
        etag: etag_of(record.revision),
        create_time: Some(wall_to_wire(record.create_time)),
        jail_gaps: facts.map(|facts| facts.jail_gaps.clone()).unwrap_or_default(),
        // Of connections the model knows nothing.
        address: String::new(),
        duplicate: None,
        declared_only: record.is_declared_only(),
        max_running: record.caps.max_running.unwrap_or(0),
        max_running_in_force: view.max_running,
        max_serving: record.caps.max_serving.unwrap_or(0),
        max_serving_in_force: view.max_serving,
        bandwidth_limit_kib: record.caps.bandwidth_limit_kib.unwrap_or(0),
        // Nor of what other records say of it.
        trash: Vec::new(),
    }
}

/// What people set of an agent: all its labels and all its caps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentSettings {
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The caps; their bounds are the engine's to check.
    pub caps: AgentCaps,
}

impl AgentSettings {
    /// What a record has.
    #[must_use]
    pub fn of(record: &AgentRecord) -> Self {
        Self { labels: record.labels.clone(), caps: record.caps }
    }
}

/// Reads what a declared agent is to have.
///
/// # Errors
/// Labels that are none.
pub fn agent_settings_from_wire(wire: &v1::Agent) -> Result<AgentSettings, Vec<Violation>> {
    let labels = labels_from_wire("agent.labels", &wire.labels)?;
    let caps = AgentCaps {
        max_running: given(wire.max_running),
        max_serving: given(wire.max_serving),
        bandwidth_limit_kib: given(wire.bandwidth_limit_kib),
    };
    Ok(AgentSettings { labels, caps })
}

/// What is set of an agent, with the masked fields of `update`.
///
/// # Errors
/// An empty mask, paths that name nothing that can be set, labels that are none.
pub fn agent_update_from_wire(
    current: &AgentSettings,
    update: &v1::Agent,
    paths: &[String],
) -> Result<AgentSettings, Vec<Violation>> {
    const PATHS: &str = "labels, labels.KEY, max_running, max_serving and bandwidth_limit_kib can be set";
    let mut faults = Vec::new();
    if paths.is_empty() {
        faults.push(Violation::new("update_mask", format!("is required: {PATHS}")));
    }
    let AgentSettings { mut labels, mut caps } = current.clone();
    for path in paths {
        match (path.as_str(), path.strip_prefix("labels.").filter(|key| !key.is_empty())) {
            ("labels", _) => labels.clone_from(&update.labels),
            (_, Some(key)) => match update.labels.get(key) {
                Some(value) => drop(labels.insert(key.to_owned(), value.clone())),
                None => drop(labels.remove(key)),
            },
            ("max_running", _) => caps.max_running = given(update.max_running),
            ("max_serving", _) => caps.max_serving = given(update.max_serving),
            ("bandwidth_limit_kib", _) => caps.bandwidth_limit_kib = given(update.bandwidth_limit_kib),
            (other, _) => faults.push(fault("update_mask", other, format!("only {PATHS}"))),
        }
    }
    match labels_from_wire("agent.labels", &labels) {
        Ok(labels) if faults.is_empty() => Ok(AgentSettings { labels, caps }),
        Ok(_) => Err(faults),
        Err(found) => Err(faults.into_iter().chain(found).collect()),
    }
}

/// A number that is given; 0: it is not.
fn given<T: Default + PartialEq>(number: T) -> Option<T> {
    Some(number).filter(|number| *number != T::default())
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
    let JoinToken { id, hash: _, names, networks, uses_left, expires, by } = token;
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
        cidrs: networks.iter().map(ToString::to_string).collect(),
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

/// Reads the networks that a new join token is good from. An address alone is a network of one.
///
/// # Errors
/// Every text that is no network, one with bits set beyond its prefix, too many.
pub fn networks_from_wire(field: &str, cidrs: &[String]) -> Result<Vec<IpNet>, Vec<Violation>> {
    const RULE: &str = "wanted is a network such as 192.0.2.0/24 or 2001:db8::/32, or one address";
    if cidrs.len() > defaults::JOIN_TOKEN_NETWORKS_MAX {
        let rule = format!("{} networks; at most {}", cidrs.len(), defaults::JOIN_TOKEN_NETWORKS_MAX);
        return Err(vec![Violation::new(field, rule)]);
    }
    let mut faults = Vec::new();
    let mut networks = Vec::with_capacity(cidrs.len());
    for text in cidrs {
        let address = |text: &str| text.parse::<IpAddr>().ok().map(IpNet::from);
        match text.parse::<IpNet>().ok().or_else(|| address(text)) {
            // Callers' addresses are compared in their IPv4 form: nobody could ever enrol by it.
            Some(IpNet::V6(six)) if six.addr().to_ipv4_mapped().is_some() => {
                faults.push(fault(field, text, "write an IPv4 network in its IPv4 form, as in 192.0.2.0/24"));
            }
            Some(network) if network.trunc() != network => {
                let rule = format!("bits are set beyond its prefix; the network is {}", network.trunc());
                faults.push(fault(field, text, rule));
            }
            Some(network) => networks.push(network),
            None => faults.push(fault(field, text, RULE)),
        }
    }
    if faults.is_empty() { Ok(networks) } else { Err(faults) }
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
    let caps = replaced.caps;
    v1::ReplaceAgentResponse {
        placements,
        labels: replaced.labels.clone(),
        max_running: caps.max_running.unwrap_or_default(),
        max_serving: caps.max_serving.unwrap_or_default(),
        bandwidth_limit_kib: caps.bandwidth_limit_kib.unwrap_or_default(),
    }
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

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn networks_are_read_strictly_and_all_faults_told() {
        let good =
            networks_from_wire("cidrs", &strings(&["192.0.2.0/24", "203.0.113.7", "2001:db8::/32", "::/0"]));
        let shown: Vec<String> = good.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.0/24", "203.0.113.7/32", "2001:db8::/32", "::/0"]);
        let bad = ["192.0.2.1/24", "192.0.2.0/33", "edge1", "", "::ffff:192.0.2.0/120", "10.0.0.0/8 "];
        let faults = networks_from_wire("cidrs", &strings(&bad)).unwrap_err();
        assert_eq!(faults.len(), bad.len());
        assert!(faults[0].description.ends_with("the network is 192.0.2.0/24"), "{faults:?}");
        assert_eq!(networks_from_wire("cidrs", &vec!["::/0".to_owned(); 33]).unwrap_err().len(), 1);
    }

    #[test]
    fn a_mask_sets_single_labels_and_caps_and_leaves_the_rest() {
        let current = AgentSettings {
            labels: [("role", "edge"), ("site", "north")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            caps: AgentCaps { max_running: Some(3), max_serving: Some(2), bandwidth_limit_kib: None },
        };
        let update = v1::Agent {
            labels: [("tier".to_owned(), "1".to_owned())].into(),
            bandwidth_limit_kib: 500,
            max_serving: 9,
            ..v1::Agent::default()
        };
        let paths = strings(&["labels.tier", "labels.site", "max_running", "bandwidth_limit_kib"]);
        let merged = agent_update_from_wire(&current, &update, &paths).unwrap();
        assert_eq!(merged.labels.keys().collect::<Vec<_>>(), ["role", "tier"]);
        let caps = AgentCaps { max_running: None, max_serving: Some(2), bandwidth_limit_kib: Some(500) };
        assert_eq!(merged.caps, caps);
        let all = agent_update_from_wire(&current, &update, &strings(&["labels"])).unwrap();
        assert_eq!(all.labels, update.labels);
        let bad = v1::Agent { labels: [("a b".to_owned(), "1".to_owned())].into(), ..v1::Agent::default() };
        let faults =
            agent_update_from_wire(&current, &bad, &strings(&["labels", "name", "labels."])).unwrap_err();
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields[..2], ["update_mask", "update_mask"]);
        assert!(fields.len() == 3 && fields[2].starts_with("agent.labels"), "{fields:?}");
        assert_eq!(agent_update_from_wire(&current, &update, &[]).unwrap_err().len(), 1);
    }

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
