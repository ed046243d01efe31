//! Projects: a declaration is read whole, with rsync's grammar for URIs and options and the model's for all else;
//! what is shown never holds a password. Does not know whether agents and trees allow what is declared.

use std::{collections::BTreeMap, time::Duration};

use fleet::{
    defaults::{LABEL_CHARS_MAX, MAX_DELETE_MAX, REASON_CHARS_MAX},
    id::{AgentUid, Name, ProjectUid},
    project::{
        AFTER_MAX, Archive, Destination, GuardSettings, Pause, Pick, PlacementSettings, ProjectRecord,
        ProjectSpec, Replicas, RetrySettings, RsyncSettings, Target, Upstream,
    },
    refusal::Violation,
};
use rsync::{Password, RsyncUri, UriError, options, uri};

use super::{
    OrNote as _, check_text, fault, labels_from_wire,
    marker::{marker_from_wire, marker_to_wire},
    names::{
        Names, agent_name_of, etag_of, parse_agent, parse_project, parse_user, project_name, project_name_of,
        user_name,
    },
    parts::{Parts, delete_to_wire, read_parts},
    quoted,
    schedule::{schedule_from_wire, schedule_to_wire},
    time::{Seconds, duration_to_wire, wall_to_wire},
};
use crate::{redact::without_user_info, v1};

const CONNECT_TIMEOUT: Seconds = Seconds { min: 1, max: 600 };
const IO_TIMEOUT: Seconds = Seconds { min: 10, max: 86_400 };
const STALL_TIMEOUT: Seconds = Seconds { min: 10, max: 86_400 };
const RUN_TIMEOUT: Seconds = Seconds { min: 60, max: 30 * 86_400 };
const INITIAL_BACKOFF: Seconds = Seconds { min: 1, max: 3_600 };
/// Most tries in one run.
const RETRY_ATTEMPTS_MAX: u32 = 20;
const PROPAGATION_TIMEOUT: Seconds = Seconds { min: 60, max: 30 * 86_400 };
const DRAIN_TIMEOUT: Seconds = Seconds { min: 0, max: 86_400 };
pub use fleet::project::{ORIGINS_MAX, REPLICA_TARGETS_MAX, UPSTREAMS_MAX};
/// Most replicas that pull at once, where a project has its own limit.
pub const MAX_PARALLEL_MAX: u32 = 1_000;
/// Most paths that must exist at an upstream.
pub const SENTINELS_MAX: usize = 16;
/// Longest of them, in bytes.
pub const SENTINEL_BYTES_MAX: usize = 512;

/// What a declaration is read against.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The agent with this name.
    pub agent: &'a dyn Fn(&Name) -> Option<AgentUid>,
    /// The project with this name.
    pub project: &'a dyn Fn(&Name) -> Option<ProjectUid>,
    /// Seals a password.
    pub seal: &'a dyn Fn(&str) -> Vec<u8>,
    /// What is declared now, on an update. Passwords that are absent, and what the wire does not speak of, are
    /// taken from it.
    pub current: Option<&'a ProjectSpec>,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("current", &self.current).finish_non_exhaustive()
    }
}

/// A declaration that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// What was declared.
    pub spec: ProjectSpec,
    /// What was understood in a way worth saying; for the echo of the schedule.
    pub notes: Vec<String>,
}

/// Reads a new project: its name and all else.
///
/// # Errors
/// Every fault of every field, named as in the API: `upstreams[0].uri`, `schedule.cron.minute`.
pub fn project_from_wire(
    wire: &v1::Project,
    context: Context<'_>,
) -> Result<(Name, Declaration), Vec<Violation>> {
    let mut faults = Vec::new();
    let name = parse_project("name", &wire.name).or_note(&mut faults);
    let declaration = spec_from_wire(wire, context).or_note(&mut faults);
    name.zip(declaration).ok_or(faults)
}

/// Reads all of a project but its name.
///
/// # Errors
/// As [`project_from_wire`].
pub fn spec_from_wire(wire: &v1::Project, context: Context<'_>) -> Result<Declaration, Vec<Violation>> {
    let mut faults = Vec::new();
    check_text("display_name", &wire.display_name, LABEL_CHARS_MAX, &mut faults);
    let owner = read_owner(&wire.owner).or_note(&mut faults).flatten();
    let labels = labels_from_wire("labels", &wire.labels).or_note(&mut faults);
    let upstreams = read_upstreams(&wire.upstreams, context).or_note(&mut faults);
    let destination = read_destination("destination", &wire.destination).or_note(&mut faults);
    let schedule = schedule_from_wire(wire.schedule.as_ref()).or_note(&mut faults);
    let rsync = read_rsync(wire.rsync.as_ref()).or_note(&mut faults);
    let placement = read_placement(wire.placement.as_ref(), context).or_note(&mut faults);
    let guard = read_guard(wire.guard.as_ref()).or_note(&mut faults);
    let marker =
        wire.marker.as_ref().and_then(|marker| marker_from_wire("marker", marker).or_note(&mut faults));
    let retry = read_retry(wire.retry.as_ref()).or_note(&mut faults);
    let partial_is_success =
        wire.retry.as_ref().map_or_else(String::new, |retry| retry.treat_partial_as_success.clone());
    let link = read_link(wire.publish.as_ref()).or_note(&mut faults).flatten();
    let after = read_after(&wire.after, context).or_note(&mut faults).unwrap_or_default();
    check_text("retry.treat_partial_as_success", &partial_is_success, REASON_CHARS_MAX, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    let parts = upstreams.zip(destination).zip(schedule).zip(rsync).zip(placement);
    let Some(((((upstreams, destination), schedule), rsync), placement)) = parts else { return Err(faults) };
    let spec = ProjectSpec {
        display_name: wire.display_name.clone(),
        owner,
        labels: labels.unwrap_or_default(),
        upstreams,
        destination,
        schedule: schedule.schedule,
        rsync,
        placement,
        guard: guard.unwrap_or_default(),
        marker,
        retry: retry.unwrap_or_default(),
        partial_is_success,
        link,
        after,
    };
    Ok(Declaration { spec, notes: schedule.notes })
}

/// Reads `users/{user}`; empty: nobody.
fn read_owner(wire: &str) -> Result<Option<Name>, Violation> {
    if wire.is_empty() { Ok(None) } else { parse_user("owner", wire).map(Some) }
}

/// Reads the projects after which one runs. Whether that is a circle is the engine's to say.
fn read_after(wire: &[String], context: Context<'_>) -> Result<Vec<ProjectUid>, Vec<Violation>> {
    if wire.len() > AFTER_MAX {
        let text = format!("{} given; at most {AFTER_MAX}", wire.len());
        return Err(vec![Violation::new("after", text)]);
    }
    let mut faults = Vec::new();
    let mut after: Vec<ProjectUid> = Vec::with_capacity(wire.len());
    for (index, text) in wire.iter().enumerate() {
        let field = format!("after[{index}]");
        let Some(name) = parse_project(&field, text).or_note(&mut faults) else { continue };
        match (context.project)(&name) {
            None => faults.push(fault(field, name.as_str(), "no such project")),
            Some(uid) if after.contains(&uid) => faults.push(fault(field, name.as_str(), "is given twice")),
            Some(uid) => after.push(uid),
        }
    }
    if faults.is_empty() { Ok(after) } else { Err(faults) }
}

fn read_upstreams(wire: &[v1::Upstream], context: Context<'_>) -> Result<Vec<Upstream>, Vec<Violation>> {
    if wire.len() > UPSTREAMS_MAX {
        let text = format!("{} given; at most {UPSTREAMS_MAX}", wire.len());
        return Err(vec![Violation::new("upstreams", text)]);
    }
    let current = context.current.map_or(&[][..], |spec| &spec.upstreams);
    let mut faults = Vec::new();
    let mut upstreams: Vec<Upstream> = Vec::with_capacity(wire.len());
    for (index, upstream) in wire.iter().enumerate() {
        let at = format!("upstreams[{index}]");
        let stored = stored_before(current, index, wire);
        let read = read_upstream(&at, upstream, stored, context.seal);
        let Some(read) = read.or_note(&mut faults) else { continue };
        if upstreams.iter().any(|other| other.uri == read.uri) {
            faults.push(fault(format!("{at}.uri"), &read.uri, "is given twice"));
        }
        upstreams.push(read);
    }
    if faults.is_empty() { Ok(upstreams) } else { Err(faults) }
}

/// What an upstream was before: the stored one with its URI, wherever it stood; else the one at its place, when that
/// stands nowhere else now.
fn stored_before<'a>(current: &'a [Upstream], index: usize, wire: &[v1::Upstream]) -> Option<&'a Upstream> {
    let uri_of = |upstream: &v1::Upstream| RsyncUri::parse(&upstream.uri).ok().map(|uri| without_user(&uri));
    let uri = wire.get(index).and_then(uri_of)?;
    let same = current.iter().find(|known| known.uri == uri);
    same.or_else(|| {
        let replaced = current.get(index)?;
        let moved = wire.iter().any(|other| uri_of(other).as_ref() == Some(&replaced.uri));
        (!moved).then_some(replaced)
    })
}

fn read_upstream(
    at: &str,
    wire: &v1::Upstream,
    current: Option<&Upstream>,
    seal: &dyn Fn(&str) -> Vec<u8>,
) -> Result<Upstream, Vec<Violation>> {
    let mut faults = Vec::new();
    let uri = read_uri(&format!("{at}.uri"), &wire.uri).or_note(&mut faults);
    let user = read_user(&format!("{at}.user"), &wire.user, uri.as_ref()).or_note(&mut faults);
    let field = format!("{at}.password");
    let new = wire.password.as_deref().filter(|password| !password.is_empty());
    if new.is_some_and(|password| Password::new(password.as_bytes().to_vec()).is_err()) {
        // The value is a secret and is not shown.
        faults.push(Violation::new(field.as_str(), UriError::Password.to_string()));
    }
    let (Some(uri), Some(user), true) = (uri, user, faults.is_empty()) else { return Err(faults) };
    let stored = current.filter(|current| !current.sealed_password.is_empty());
    let sealed_password = match (&wire.password, new, stored) {
        (Some(_), Some(password), _) => seal(password),
        (Some(_), None, _) | (None, _, None) => Vec::new(),
        (None, _, Some(current)) => keep_password(&field, current, &uri)?,
    };
    if user.is_empty() && !sealed_password.is_empty() {
        let text = "needs a user; to remove a stored password, send an empty one";
        return Err(vec![Violation::new(field, text)]);
    }
    Ok(Upstream { uri: without_user(&uri), host: uri.host().to_string(), user, sealed_password })
}

/// A stored password goes to the host and port for which it was given and to no other: otherwise a change of
/// the URI would hand it to whoever owns the new one.
fn keep_password(field: &str, current: &Upstream, uri: &RsyncUri) -> Result<Vec<u8>, Vec<Violation>> {
    let same =
        RsyncUri::parse(&current.uri).is_ok_and(|old| old.host() == uri.host() && old.port() == uri.port());
    if same {
        return Ok(current.sealed_password.clone());
    }
    let text = "the upstream's host changes, so the stored password is not taken along; give it again, or \
                an empty one to remove it";
    Err(vec![Violation::new(field, text)])
}

fn read_uri(field: &str, text: &str) -> Result<RsyncUri, Violation> {
    let shown = without_user_info(text);
    let parsed = RsyncUri::parse(text).map_err(|bad| fault(field, &shown, bad))?;
    if parsed.password().is_some() {
        return Err(fault(field, &shown, "holds a password; give it in the field password"));
    }
    parsed.check_source().map_err(|bad| fault(field, &shown, bad))?;
    Ok(parsed)
}

/// The canonical text of an upstream's URI, without its user.
///
/// # Errors
/// No URI that an upstream may have.
pub fn parse_upstream_uri(field: &str, text: &str) -> Result<String, Violation> {
    read_uri(field, text).map(|uri| without_user(&uri))
}

/// The user may stand in its own field, in the URI, or in both when they agree.
fn read_user(field: &str, user: &str, uri: Option<&RsyncUri>) -> Result<String, Violation> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if user.len() > uri::USER_BYTES_MAX || user.starts_with('-') || !user.bytes().all(plain) {
        return Err(fault(field, user, UriError::User));
    }
    let named = uri.and_then(RsyncUri::user).map(|named| String::from_utf8_lossy(named).into_owned());
    match named {
        Some(named) if !user.is_empty() && named != user => {
            Err(fault(field, user, format!("the URI names another user, {}", quoted(&named))))
        }
        Some(named) => Ok(named),
        None => Ok(user.to_owned()),
    }
}

/// The canonical text of a URI without its user. In that text a literal `@` stands behind the user only.
fn without_user(uri: &RsyncUri) -> String {
    let text = uri.to_string();
    match (uri.user(), text.split_once('@')) {
        (Some(_), Some((_, rest))) => format!("rsync://{rest}"),
        (_, _) => text,
    }
}

/// Reads "ROOT:PATH".
///
/// # Errors
/// What is wrong with it.
pub fn read_destination(field: &str, text: &str) -> Result<Destination, Violation> {
    text.parse().map_err(|bad| fault(field, text, bad))
}

fn read_rsync(wire: Option<&v1::RsyncSettings>) -> Result<RsyncSettings, Vec<Violation>> {
    let Some(wire) = wire else { return Ok(RsyncSettings::default()) };
    let mut faults = Vec::new();
    let parts = read_parts(wire).or_note(&mut faults);
    let mut span = |field: &str, bounds: Seconds, value: &Option<prost_types::Duration>| {
        let read = bounds.read(&format!("rsync.{field}"), value.as_ref());
        read.or_note(&mut faults).flatten().map(Duration::from_secs)
    };
    let connect_timeout = span("connect_timeout", CONNECT_TIMEOUT, &wire.connect_timeout);
    let io_timeout = span("io_timeout", IO_TIMEOUT, &wire.io_timeout);
    let stall_timeout = span("stall_timeout", STALL_TIMEOUT, &wire.stall_timeout);
    let run_timeout = span("run_timeout", RUN_TIMEOUT, &wire.run_timeout);
    if wire.bandwidth_limit_kib > u64::from(options::BWLIMIT_KIB_MAX) {
        let rule = format!("must be at most {} (KiB/s), or 0 for no limit", options::BWLIMIT_KIB_MAX);
        faults.push(fault("rsync.bandwidth_limit_kib", &wire.bandwidth_limit_kib.to_string(), rule));
    }
    let settings =
        parts.filter(|_| faults.is_empty()).map(|Parts { options, defaults, delete }| RsyncSettings {
            options,
            defaults,
            delete,
            no_defaults: wire.no_defaults,
            connect_timeout,
            io_timeout,
            stall_timeout,
            run_timeout,
            bandwidth_limit_kib: wire.bandwidth_limit_kib,
        });
    settings.ok_or(faults)
}

fn read_placement(
    wire: Option<&v1::PlacementSettings>,
    context: Context<'_>,
) -> Result<PlacementSettings, Vec<Violation>> {
    let empty = v1::PlacementSettings::default();
    let wire = wire.unwrap_or(&empty);
    let mut faults = Vec::new();
    if wire.origins.is_empty() {
        faults.push(Violation::new("placement.origins", "at least one origin is needed"));
    }
    for (field, count, max) in [
        ("placement.origins", wire.origins.len(), ORIGINS_MAX),
        ("placement.replicas", wire.replicas.len(), REPLICA_TARGETS_MAX),
    ] {
        if count > max {
            faults.push(Violation::new(field, format!("{count} given; at most {max} are accepted")));
        }
    }
    let origin = |(index, target): (usize, &v1::PlacementTarget)| {
        let at = format!("placement.origins[{index}]");
        read_target(&at, target, context.agent).or_note(&mut faults)
    };
    let origins: Vec<Target> = wire.origins.iter().take(ORIGINS_MAX).enumerate().filter_map(origin).collect();
    let replicas = |(index, target): (usize, &v1::PlacementTarget)| {
        let at = format!("placement.replicas[{index}]");
        read_replicas(&at, target, context.agent).or_note(&mut faults)
    };
    let replicas: Vec<Replicas> =
        wire.replicas.iter().take(REPLICA_TARGETS_MAX).enumerate().filter_map(replicas).collect();
    if wire.max_parallel > MAX_PARALLEL_MAX {
        let rule = format!("must be 1 to {MAX_PARALLEL_MAX}, or 0 for no limit of its own");
        faults.push(fault("placement.max_parallel", &wire.max_parallel.to_string(), rule));
    }
    let mut span = |field: &str, bounds: Seconds, value: &Option<prost_types::Duration>| {
        let read = bounds.read(&format!("placement.{field}"), value.as_ref());
        read.or_note(&mut faults).flatten().map(Duration::from_secs)
    };
    let propagation_timeout = span("propagation_timeout", PROPAGATION_TIMEOUT, &wire.propagation_timeout);
    let drain_timeout = span("drain_timeout", DRAIN_TIMEOUT, &wire.drain_timeout);
    let max_parallel = wire.max_parallel;
    let settings = PlacementSettings { origins, replicas, max_parallel, propagation_timeout, drain_timeout };
    if faults.is_empty() { Ok(settings) } else { Err(faults) }
}

/// An origin is always one agent: which host pulls from the upstream is nothing that labels should decide.
fn read_target(
    at: &str,
    wire: &v1::PlacementTarget,
    agent_named: &dyn Fn(&Name) -> Option<AgentUid>,
) -> Result<Target, Vec<Violation>> {
    let mut faults = Vec::new();
    if !wire.selector.is_empty() {
        let rule = "an origin is named, not selected; give its agent";
        faults.push(fault(format!("{at}.selector"), &wire.selector, rule));
    }
    let agent = read_agent(&format!("{at}.agent"), &wire.agent, agent_named).or_note(&mut faults);
    let destination = read_own_destination(at, wire).or_note(&mut faults);
    let target = agent.zip(destination).map(|(agent, destination)| Target { agent, destination });
    target.filter(|_| faults.is_empty()).ok_or(faults)
}

fn read_replicas(
    at: &str,
    wire: &v1::PlacementTarget,
    agent_named: &dyn Fn(&Name) -> Option<AgentUid>,
) -> Result<Replicas, Vec<Violation>> {
    let mut faults = Vec::new();
    let pick = match (wire.agent.as_str(), wire.selector.as_str()) {
        ("", "") => {
            faults.push(Violation::new(at, "needs an agent or a selector such as role=edge"));
            None
        }
        (agent, "") => {
            read_agent(&format!("{at}.agent"), agent, agent_named).or_note(&mut faults).map(Pick::Agent)
        }
        ("", selector) => {
            read_selector(&format!("{at}.selector"), selector).or_note(&mut faults).map(Pick::Labels)
        }
        (_, _) => {
            faults.push(Violation::new(at, "has an agent and a selector; give one of them"));
            None
        }
    };
    let destination = read_own_destination(at, wire).or_note(&mut faults);
    let replicas = pick.zip(destination).map(|(pick, destination)| Replicas { pick, destination });
    replicas.ok_or(faults)
}

fn read_agent(
    field: &str,
    text: &str,
    agent_named: &dyn Fn(&Name) -> Option<AgentUid>,
) -> Result<AgentUid, Violation> {
    let name = parse_agent(field, text)?;
    agent_named(&name).ok_or_else(|| fault(field, name.as_str(), "there is no such agent"))
}

fn read_own_destination(at: &str, wire: &v1::PlacementTarget) -> Result<Option<Destination>, Violation> {
    match wire.destination.as_str() {
        "" => Ok(None),
        text => read_destination(&format!("{at}.destination"), text).map(Some),
    }
}

/// Reads a selector: `key=value` pairs that must all hold, separated by commas.
///
/// # Errors
/// A part that is no pair, a key twice, or what no label can be.
pub fn read_selector(field: &str, text: &str) -> Result<BTreeMap<String, String>, Vec<Violation>> {
    let mut labels = BTreeMap::new();
    for part in text.split(',').map(str::trim) {
        // A forgotten value would select nobody, and take the tree's replicas away.
        let Some((key, value)) = part.split_once('=').filter(|(_, value)| !value.trim().is_empty()) else {
            return Err(vec![fault(field, text, "must be key=value pairs separated by commas")]);
        };
        if labels.insert(key.trim().to_owned(), value.trim().to_owned()).is_some() {
            return Err(vec![fault(field, text, format!("names {} twice", quoted(key)))]);
        }
    }
    labels_from_wire(field, &labels)
}

/// The public link has the form of a destination: a named root of the agent, and a path below it.
fn read_link(wire: Option<&v1::PublishSettings>) -> Result<Option<Destination>, Violation> {
    match wire.map_or("", |publish| publish.link.as_str()) {
        "" => Ok(None),
        text => read_destination("publish.link", text).map(Some),
    }
}

fn read_guard(wire: Option<&v1::GuardSettings>) -> Result<GuardSettings, Vec<Violation>> {
    let Some(wire) = wire else { return Ok(GuardSettings::default()) };
    let mut faults = Vec::new();
    if let Some(limit) = wire.max_delete.filter(|limit| *limit > MAX_DELETE_MAX) {
        let rule = format!("must be 0 to {MAX_DELETE_MAX}");
        faults.push(fault("guard.max_delete", &limit.to_string(), rule));
    }
    if let Some(percent) = wire.shrink_percent.filter(|percent| !(1..=100).contains(percent)) {
        faults.push(fault("guard.shrink_percent", &percent.to_string(), "must be 1 to 100"));
    }
    if wire.sentinels.len() > SENTINELS_MAX {
        let text = format!("{} given; at most {SENTINELS_MAX} are accepted", wire.sentinels.len());
        faults.push(Violation::new("guard.sentinels", text));
    }
    for (index, path) in wire.sentinels.iter().take(SENTINELS_MAX).enumerate() {
        if !is_sentinel(path) {
            let rule = format!(
                "must be a relative path of at most {SENTINEL_BYTES_MAX} bytes, without empty parts, . and .., \
                 wildcards and control characters"
            );
            faults.push(fault(format!("guard.sentinels[{index}]"), path, rule));
        }
    }
    let settings = GuardSettings {
        max_delete: wire.max_delete,
        shrink_percent: wire.shrink_percent,
        sentinels: wire.sentinels.clone(),
        quota_bytes: wire.quota_bytes,
    };
    if faults.is_empty() { Ok(settings) } else { Err(faults) }
}

/// Whether a path can be a sentinel: relative, at most [`SENTINEL_BYTES_MAX`] bytes, and one name. Daemons glob what
/// they are asked for, so what could be a pattern is no path here.
#[must_use]
pub fn is_sentinel(path: &str) -> bool {
    let part_ok = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.len() <= SENTINEL_BYTES_MAX
        && !path.starts_with('-')
        && path.split('/').all(part_ok)
        && !path.chars().any(|c| c.is_control() || matches!(c, '*' | '?' | '[' | '\\'))
}

fn read_retry(wire: Option<&v1::RetrySettings>) -> Result<RetrySettings, Vec<Violation>> {
    let Some(wire) = wire else { return Ok(RetrySettings::default()) };
    let mut faults = Vec::new();
    if wire.attempts > RETRY_ATTEMPTS_MAX {
        let rule = format!("must be 1 to {RETRY_ATTEMPTS_MAX}, or 0 for the default");
        faults.push(fault("retry.attempts", &wire.attempts.to_string(), rule));
    }
    let backoff = INITIAL_BACKOFF.read("retry.initial_backoff", wire.initial_backoff.as_ref());
    let initial_backoff = backoff.or_note(&mut faults).flatten().map(Duration::from_secs);
    let attempts = (wire.attempts > 0).then_some(wire.attempts);
    if faults.is_empty() { Ok(RetrySettings { attempts, initial_backoff }) } else { Err(faults) }
}

/// The wire's form of a project, without its status: that is more than the record knows. `notes` are those of
/// the declaration that has just been read, else none.
#[must_use]
pub fn project_to_wire(record: &ProjectRecord, names: &dyn Names, notes: Vec<String>) -> v1::Project {
    let ProjectRecord { uid: _, name, spec, paused, archived, revision, create_time, update_time } = record;
    let ProjectSpec {
        display_name,
        owner,
        labels,
        upstreams,
        destination,
        schedule,
        rsync,
        placement,
        guard,
        marker,
        retry,
        partial_is_success,
        link,
        after,
    } = spec;
    v1::Project {
        name: project_name(name),
        display_name: display_name.clone(),
        owner: owner.as_ref().map(|owner| user_name(owner.as_str())).unwrap_or_default(),
        labels: BTreeMap::clone(labels),
        upstreams: upstreams.iter().map(upstream_to_wire).collect(),
        destination: destination.to_string(),
        schedule: Some(schedule_to_wire(schedule, notes)),
        rsync: (*rsync != RsyncSettings::default()).then(|| rsync_to_wire(rsync)),
        placement: Some(placement_settings_to_wire(placement, names)),
        guard: (*guard != GuardSettings::default()).then(|| guard_to_wire(guard)),
        marker: marker.as_ref().map(marker_to_wire),
        retry: (*retry != RetrySettings::default() || !partial_is_success.is_empty()).then(|| {
            v1::RetrySettings {
                attempts: retry.attempts.unwrap_or(0),
                initial_backoff: retry.initial_backoff.map(duration_to_wire),
                treat_partial_as_success: partial_is_success.clone(),
            }
        }),
        publish: link.as_ref().map(|link| v1::PublishSettings { link: link.to_string() }),
        after: after.iter().map(|uid| project_name_of(names, *uid)).collect(),
        paused: paused.as_ref().map(pause_to_wire),
        archived: archived.as_ref().map(archive_to_wire),
        status: None,
        etag: etag_of(*revision),
        create_time: Some(wall_to_wire(*create_time)),
        update_time: Some(wall_to_wire(*update_time)),
    }
}

fn upstream_to_wire(upstream: &Upstream) -> v1::Upstream {
    let Upstream { uri, host: _, user, sealed_password } = upstream;
    v1::Upstream {
        uri: uri.clone(),
        user: user.clone(),
        password: None,
        has_password: !sealed_password.is_empty(),
    }
}

fn rsync_to_wire(settings: &RsyncSettings) -> v1::RsyncSettings {
    let RsyncSettings {
        options,
        no_defaults,
        connect_timeout,
        io_timeout,
        stall_timeout,
        run_timeout,
        bandwidth_limit_kib,
        defaults,
        delete,
    } = settings;
    v1::RsyncSettings {
        options: options.clone(),
        no_defaults: *no_defaults,
        connect_timeout: connect_timeout.map(duration_to_wire),
        io_timeout: io_timeout.map(duration_to_wire),
        stall_timeout: stall_timeout.map(duration_to_wire),
        run_timeout: run_timeout.map(duration_to_wire),
        bandwidth_limit_kib: *bandwidth_limit_kib,
        defaults: defaults.clone().map(|words| v1::OptionWords { words }),
        delete: delete_to_wire(delete.as_deref()).into(),
    }
}

fn guard_to_wire(guard: &GuardSettings) -> v1::GuardSettings {
    let GuardSettings { max_delete, shrink_percent, sentinels, quota_bytes } = guard;
    v1::GuardSettings {
        max_delete: *max_delete,
        shrink_percent: *shrink_percent,
        sentinels: sentinels.clone(),
        quota_bytes: *quota_bytes,
    }
}

fn placement_settings_to_wire(settings: &PlacementSettings, names: &dyn Names) -> v1::PlacementSettings {
    let PlacementSettings { origins, replicas, max_parallel, propagation_timeout, drain_timeout } = settings;
    let own =
        |destination: &Option<Destination>| destination.as_ref().map(ToString::to_string).unwrap_or_default();
    let origin = |target: &Target| v1::PlacementTarget {
        agent: agent_name_of(names, target.agent),
        destination: own(&target.destination),
        selector: String::new(),
    };
    let replica = |replicas: &Replicas| {
        let (agent, selector) = match &replicas.pick {
            Pick::Agent(agent) => (agent_name_of(names, *agent), String::new()),
            Pick::Labels(labels) => (String::new(), selector_text(labels)),
        };
        v1::PlacementTarget { agent, destination: own(&replicas.destination), selector }
    };
    v1::PlacementSettings {
        origins: origins.iter().map(origin).collect(),
        replicas: replicas.iter().map(replica).collect(),
        max_parallel: *max_parallel,
        propagation_timeout: propagation_timeout.map(duration_to_wire),
        drain_timeout: drain_timeout.map(duration_to_wire),
    }
}

fn selector_text(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

fn pause_to_wire(pause: &Pause) -> v1::Pause {
    let Pause { by, time, reason, until } = pause;
    v1::Pause {
        by: user_name(by),
        time: Some(wall_to_wire(*time)),
        reason: reason.clone(),
        until: until.map(wall_to_wire),
    }
}

fn archive_to_wire(archive: &Archive) -> v1::Archive {
    let Archive { by, time, reason } = archive;
    v1::Archive { by: user_name(by), time: Some(wall_to_wire(*time)), reason: reason.clone() }
}
