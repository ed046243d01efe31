//! What coordinator and agent say to each other. Agents are programs of ours, but one may be broken or taken
//! over: everything is bounded, and the first fault ends the reading. Does not know which session speaks.

use std::collections::BTreeMap;

use fleet::{
    agent::{AgentFacts, Root},
    engine::HELLO_ATTEMPTS_MAX,
    id::{AttemptId, Epoch, Name, ProjectUid, RunId},
    input::{Export, Held, NotTaken, Offer, Pair},
    project::Destination,
    refusal::Violation,
    standing::{AutonomousFire, StandingOrder},
    time::Wall,
};
use prost::Message as _;
use rsync::{RsyncUri, text::printable};

use super::{
    cut,
    enums::wire,
    fault,
    marker::marker_to_wire,
    names::parse_uuid,
    run::{epoch_to_wire, role_from_wire},
    schedule::schedule_to_wire,
    time::{duration_to_wire, required_wall, wall_from_wire, wall_to_wire},
    trash::trash_report_from_wire,
};
use crate::v1;

/// Most roots of one agent.
pub const ROOTS_MAX: usize = 64;
/// Most gaps of a jail that are told.
pub const JAIL_GAPS_MAX: usize = 32;
/// Longest version, gap or hash, in bytes.
const WORD_BYTES_MAX: usize = 200;
/// Longest path of a root, in bytes: Linux's own limit.
const PATH_BYTES_MAX: usize = 4_096;
/// Longest detail of a refusal, in bytes.
pub const DETAIL_BYTES_MAX: usize = 1 << 10;

/// Most bytes of exports in one message, but for one export that is larger.
pub const EXPORTS_BYTES_MAX: usize = 256 << 10;

/// A hello that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadHello {
    /// Which state directory.
    pub state_id: String,
    /// The highest term it has seen.
    pub highest_term: u64,
    /// What it says of itself.
    pub facts: AgentFacts,
    /// What it holds; `recorded` is false in each: the store's owner knows that.
    pub attempts: Vec<Held>,
}

/// An assignment that an agent did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRefused {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Under which token.
    pub epoch: Epoch,
    /// Why.
    pub why: NotTaken,
    /// In words, printable and cut.
    pub detail: String,
}

/// Reads a hello.
///
/// # Errors
/// The first fault: a bound that is passed, a missing or malformed part.
pub fn hello_from_wire(wire: &v1::Hello) -> Result<ReadHello, Violation> {
    parse_uuid("hello.instance_id", &wire.instance_id)?;
    parse_uuid("hello.state_id", &wire.state_id)?;
    bound("hello.attempts", wire.attempts.len(), HELLO_ATTEMPTS_MAX)?;
    bound("hello.jail_gaps", wire.jail_gaps.len(), JAIL_GAPS_MAX)?;
    let inventory = wire.inventory.as_ref();
    let roots = inventory.map_or(Ok(Vec::new()), roots_from_wire)?;
    let expires = inventory.and_then(|inventory| inventory.certificate_expire_time.as_ref());
    let gaps = wire.jail_gaps.iter().map(|gap| word("hello.jail_gaps", gap));
    let facts = AgentFacts {
        instance_id: wire.instance_id.clone(),
        version: word("hello.version", &wire.version)?,
        rsync_version: word("hello.rsync_version", &wire.rsync_version)?,
        slots: wire.slots,
        roots,
        jail_gaps: gaps.collect::<Result<_, _>>()?,
        serve_uri: serve_uri("hello.serve_uri", &wire.serve_uri)?,
        external_roots: external_roots(&wire.external_roots)?,
        certificate_expires: expires
            .map(|time| wall_from_wire("inventory.certificate_expire_time", time))
            .transpose()?,
        trash: wire.trash.as_ref().map(trash_report_from_wire).transpose()?,
    };
    Ok(ReadHello {
        state_id: wire.state_id.clone(),
        highest_term: wire.highest_term,
        facts,
        attempts: wire.attempts.iter().map(held_from_wire).collect::<Result<_, _>>()?,
    })
}

/// Reads the roots of an inventory.
///
/// # Errors
/// Too many, a name twice, or a malformed one.
pub fn roots_from_wire(wire: &v1::Inventory) -> Result<Vec<Root>, Violation> {
    bound("inventory.roots", wire.roots.len(), ROOTS_MAX)?;
    let roots: Vec<Root> = wire.roots.iter().map(root_from_wire).collect::<Result<_, _>>()?;
    for (index, root) in roots.iter().enumerate() {
        if roots[..index].iter().any(|other| other.name == root.name) {
            return Err(fault("inventory.roots", &root.name, "is named twice"));
        }
    }
    Ok(roots)
}

fn root_from_wire(wire: &v1::Root) -> Result<Root, Violation> {
    let v1::Root { name, path, total_bytes, free_bytes, total_inodes, free_inodes } = wire;
    name.parse::<Name>().map_err(|bad| fault("inventory.roots.name", name, bad))?;
    if !path.starts_with('/') || path.len() > PATH_BYTES_MAX || path.chars().any(char::is_control) {
        let rule = format!("must be an absolute path of at most {PATH_BYTES_MAX} bytes");
        return Err(fault("inventory.roots.path", path, rule));
    }
    Ok(Root {
        name: name.clone(),
        path: path.clone(),
        total_bytes: *total_bytes,
        free_bytes: *free_bytes,
        total_inodes: *total_inodes,
        free_inodes: *free_inodes,
    })
}

fn held_from_wire(wire: &v1::AttemptDescriptor) -> Result<Held, Violation> {
    let (attempt, epoch) = attempt_key_from_wire(wire.key.as_ref())?;
    let role = role_from_wire("hello.attempts.role", wire.role)?;
    let destination: Destination = wire
        .destination
        .parse()
        .map_err(|bad| fault("hello.attempts.destination", &wire.destination, bad))?;
    Ok(Held {
        attempt,
        epoch,
        project: ProjectUid(wire.project_uid),
        role,
        destination,
        spec_hash: word("hello.attempts.spec_hash", &wire.spec_hash)?,
        ended: wire.ended,
        needs_secrets: wire.needs_secrets,
        dry_run: wire.dry_run,
        keep_extra: wire.keep_extra,
        recorded: false,
        autonomous: wire.autonomous.as_ref().map(autonomous_fire_from_wire).transpose()?,
    })
}

/// The daemon that replicas pull from: a URI of host and port alone.
fn serve_uri(field: &str, text: &str) -> Result<String, Violation> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let uri =
        RsyncUri::parse(text).map_err(|bad| fault(field, &crate::redact::without_user_info(text), bad))?;
    if uri.user().is_some() || !uri.module().is_empty() {
        let rule = "must be rsync://host:port and nothing else";
        return Err(fault(field, &crate::redact::without_user_info(text), rule));
    }
    Ok(uri.to_string().trim_end_matches('/').to_owned())
}

/// Roots that a daemon of the administrator's own serves.
fn external_roots(wire: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Violation> {
    let field = "hello.external_roots";
    bound(field, wire.len(), ROOTS_MAX)?;
    let read = |(root, text): (&String, &String)| {
        root.parse::<Name>().map_err(|bad| fault(field, root, bad))?;
        let shown = crate::redact::without_user_info(text);
        let uri = RsyncUri::parse(text).map_err(|bad| fault(field, &shown, bad))?;
        if uri.user().is_some() || uri.module().is_empty() {
            return Err(fault(field, &shown, "must be rsync://host[:port]/module[/path], without a user"));
        }
        Ok((root.clone(), uri.to_string().trim_end_matches('/').to_owned()))
    };
    wire.iter().map(read).collect()
}

/// What an agent's daemon serves, as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadExporting {
    /// The exports that are in place.
    pub serial: u64,
    /// Where it serves; empty: nowhere.
    pub serve_uri: String,
    /// Why it cannot serve, printable and cut; empty: it can.
    pub fault: String,
    /// What it should serve, and does not.
    pub not_served: Vec<ProjectUid>,
}

/// Reads what an agent's daemon serves now.
///
/// # Errors
/// A malformed address.
pub fn exporting_from_wire(wire: &v1::Exporting) -> Result<ReadExporting, Violation> {
    let fault = printable(wire.fault.as_bytes(), DETAIL_BYTES_MAX);
    Ok(ReadExporting {
        serial: wire.serial,
        serve_uri: serve_uri("exporting.serve_uri", &wire.serve_uri)?,
        fault: cut(&fault, DETAIL_BYTES_MAX).to_owned(),
        not_served: wire.not_served.iter().copied().map(ProjectUid).collect(),
    })
}

/// The wire's form of an attempt and its token.
#[must_use]
pub fn attempt_key_to_wire(attempt: AttemptId, epoch: Epoch) -> v1::AttemptKey {
    v1::AttemptKey {
        run: attempt.run.to_string(),
        attempt: attempt.number,
        epoch: Some(epoch_to_wire(epoch)),
    }
}

/// Reads which attempt is meant, under which token.
///
/// # Errors
/// A missing part, a run that is no UUID, attempt 0.
pub fn attempt_key_from_wire(wire: Option<&v1::AttemptKey>) -> Result<(AttemptId, Epoch), Violation> {
    let wire = wire.ok_or_else(|| Violation::new("key", "is required"))?;
    let epoch = wire.epoch.as_ref().ok_or_else(|| Violation::new("key.epoch", "is required"))?;
    let run = RunId(parse_uuid("key.run", &wire.run)?);
    if wire.attempt == 0 {
        return Err(Violation::new("key.attempt", "an attempt's number counts from 1"));
    }
    let attempt = AttemptId { run, number: wire.attempt };
    Ok((attempt, Epoch { term: epoch.term, counter: epoch.counter }))
}

/// Reads a refusal of an assignment.
///
/// # Errors
/// A bad key, or a reason that is missing or not known.
pub fn refused_from_wire(wire: &v1::Refused) -> Result<ReadRefused, Violation> {
    use v1::refused::Reason;
    let (attempt, epoch) = attempt_key_from_wire(wire.key.as_ref())?;
    let why = match Reason::try_from(wire.reason) {
        Ok(Reason::NotAllowed) => NotTaken::Forbidden,
        Ok(Reason::Busy | Reason::JournalFull | Reason::Stale) => NotTaken::Busy,
        Ok(Reason::Stopping) => NotTaken::Stopping,
        Ok(Reason::Unspecified) | Err(_) => {
            return Err(Violation::new(
                "refused.reason",
                format!("{}: there is no such reason", wire.reason),
            ));
        }
    };
    let detail = printable(wire.detail.as_bytes(), DETAIL_BYTES_MAX);
    Ok(ReadRefused { attempt, epoch, why, detail: cut(&detail, DETAIL_BYTES_MAX).to_owned() })
}

/// Work as an agent gets it. `password` is the unsealed one of the source; empty and `None` mean none.
#[must_use]
pub fn assignment_to_wire(offer: &Offer, password: Option<String>) -> v1::Assignment {
    v1::Assignment {
        key: Some(attempt_key_to_wire(offer.attempt, offer.epoch)),
        project_uid: offer.project.0,
        project: offer.project_name.to_string(),
        role: wire::role::number(offer.role),
        source_uri: offer.source_uri.clone(),
        user: offer.pair.map_or_else(|| offer.user.clone(), pair_user),
        secrets: secrets_to_wire(password),
        destination: offer.destination.to_string(),
        options: offer.options.clone(),
        no_defaults: offer.no_defaults,
        max_delete: offer.max_delete,
        connect_timeout: Some(duration_to_wire(offer.connect_timeout)),
        io_timeout: Some(duration_to_wire(offer.io_timeout)),
        stall_timeout: Some(duration_to_wire(offer.stall_timeout)),
        run_timeout: offer.run_timeout.map(duration_to_wire),
        bandwidth_limit_kib: offer.bandwidth_limit_kib,
        tree_version: offer.tree.to_string(),
        spec_hash: offer.spec_hash(),
        traceparent: offer.traceparent.clone(),
        dry_run: offer.dry_run,
        reclaim: offer.reclaim,
        sentinels: offer.sentinels.clone(),
        first_sync: offer.first_sync,
        waived: offer.waived.iter().map(|kind| wire::guard_kind::number(*kind)).collect(),
        quota_bytes: offer.quota_bytes,
        known_files: offer.known_files,
        known_bytes: offer.known_bytes,
        keep_extra: offer.keep_extra,
        move_from: offer.move_from.as_ref().map(ToString::to_string).unwrap_or_default(),
        link: offer.link.as_ref().map(ToString::to_string).unwrap_or_default(),
        marker: offer.marker.as_ref().map(|check| marker_to_wire(&check.marker)),
        marker_not_before: offer.marker.as_ref().and_then(|check| check.not_before).map(wall_to_wire),
        marker_required: offer.marker.as_ref().is_some_and(|check| check.required),
        autonomous: None,
    }
}

/// The user name by which a replica pulls from another agent's daemon: its uid and the day of its secret.
#[must_use]
pub fn pair_user(pair: Pair) -> String {
    format!("a{}-{}", pair.replica.0, pair.day)
}

/// What an agent is told to serve, cut into messages of at most about [`EXPORTS_BYTES_MAX`]; at least one. `secret`
/// makes the secret of a pair.
#[must_use]
pub fn exports_to_wire(
    serial: u64,
    complete: bool,
    exports: &[Export],
    withdrawn: &[ProjectUid],
    secret: &dyn Fn(Pair) -> String,
) -> Vec<v1::Exports> {
    let withdrawn = withdrawn.iter().map(|project| project.0).collect();
    let mut parts = vec![v1::Exports { serial, complete, withdrawn, ..v1::Exports::default() }];
    let mut bytes = 0;
    for export in exports {
        let user = |pair: &Pair| v1::ExportUser { user: pair_user(*pair), secret: secret(*pair) };
        let export = v1::Export {
            project_uid: export.project.0,
            project: export.name.to_string(),
            destination: export.destination.to_string(),
            users: export.pairs.iter().map(user).collect(),
        };
        let size = export.encoded_len();
        if bytes > 0 && bytes + size > EXPORTS_BYTES_MAX {
            bytes = 0;
            parts.push(v1::Exports { serial, ..v1::Exports::default() });
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.exports.push(export);
        }
    }
    let last = parts.len() - 1;
    for part in &mut parts[..last] {
        part.more = true;
    }
    parts
}

/// A standing order as an agent gets it: its assignment has neither key nor secrets.
#[must_use]
pub fn standing_order_to_wire(order: &StandingOrder) -> v1::StandingOrder {
    let assignment = v1::Assignment {
        key: None,
        tree_version: String::new(),
        ..assignment_to_wire(&order.template, None)
    };
    v1::StandingOrder {
        assignment: Some(assignment),
        schedule: Some(schedule_to_wire(&order.schedule, Vec::new())),
        next_scheduled_time: order.next_fire.map(|fire| wall_to_wire(fire.scheduled)),
        next_fire_time: order.next_fire.map(|fire| wall_to_wire(fire.at)),
    }
}

/// Reads the fire that an agent ran by itself.
///
/// # Errors
/// A time that is missing or malformed.
pub fn autonomous_fire_from_wire(wire: &v1::AutonomousFire) -> Result<AutonomousFire, Violation> {
    Ok(AutonomousFire {
        scheduled: required_wall("autonomous.scheduled_time", wire.scheduled_time.as_ref())?,
        started: required_wall("autonomous.start_time", wire.start_time.as_ref())?,
        max_delete: wire.max_delete,
    })
}

/// The wire's form of a fire that an agent ran by itself.
#[must_use]
pub fn autonomous_fire_to_wire(fire: &AutonomousFire) -> v1::AutonomousFire {
    v1::AutonomousFire {
        scheduled_time: Some(wall_to_wire(fire.scheduled)),
        start_time: Some(wall_to_wire(fire.started)),
        max_delete: fire.max_delete,
    }
}

/// Reads which attempt an agent began by itself, from the report of its end; `None`: a coordinator assigned it.
///
/// # Errors
/// A malformed part, or another attempt than the one that is reported.
pub fn ended_alone_from_wire(wire: &v1::Ended) -> Result<Option<Held>, Violation> {
    let Some(described) = &wire.autonomous else { return Ok(None) };
    let held = held_from_wire(described)?;
    if described.key != wire.key || held.autonomous.is_none() {
        let text = "must describe the attempt that has ended, with the fire that it ran";
        return Err(Violation::new("ended.autonomous", text));
    }
    Ok(Some(Held { ended: true, ..held }))
}

/// Secrets for an assignment or a go-on; none when there is no password.
#[must_use]
pub fn secrets_to_wire(password: Option<String>) -> Option<v1::Secrets> {
    password.filter(|password| !password.is_empty()).map(|password| v1::Secrets { password })
}

/// Reads the end of an attempt: which, under which token, and how. The log's tail is not looked at.
///
/// # Errors
/// A bad key, or an outcome that is missing or malformed.
pub fn ended_from_wire(wire: &v1::Ended) -> Result<(AttemptId, Epoch, fleet::outcome::Outcome), Violation> {
    let (attempt, epoch) = attempt_key_from_wire(wire.key.as_ref())?;
    let outcome = wire.outcome.as_ref().ok_or_else(|| Violation::new("ended.outcome", "is required"))?;
    Ok((attempt, epoch, super::outcome::outcome_from_wire(outcome)?))
}

/// Reads when an agent's certificate expires.
///
/// # Errors
/// Missing or malformed.
pub fn certificate_expiry_from_wire(wire: &v1::Inventory) -> Result<Wall, Violation> {
    required_wall("inventory.certificate_expire_time", wire.certificate_expire_time.as_ref())
}

fn bound(field: &str, count: usize, max: usize) -> Result<(), Violation> {
    if count <= max {
        return Ok(());
    }
    Err(Violation::new(field, format!("{count} given; at most {max} are accepted")))
}

/// A short text without control characters.
fn word(field: &str, text: &str) -> Result<String, Violation> {
    if text.len() > WORD_BYTES_MAX || text.chars().any(char::is_control) {
        let rule = format!("must be at most {WORD_BYTES_MAX} bytes without control characters");
        return Err(fault(field, text, rule));
    }
    Ok(text.to_owned())
}
