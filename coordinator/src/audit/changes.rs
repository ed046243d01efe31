//! What a decision changes, field by field, in the words of the contract: before as the engine has it, after as the
//! decision's records have it. Pure. What the fleet does with what people asked for (attempts, the schedule's next fire,
//! what a placement holds) is history and not told here.

use std::collections::BTreeMap;

use chrono::SecondsFormat;
use fleet::{
    Engine,
    agent::{AgentRecord, JoinToken, PushToken, UserRecord, UserToken},
    placement::PlacementRecord,
    project::{ProjectRecord, ProjectState},
    record::{Change, FleetRecord, Freeze, Key, Record},
    run::RunRecord,
    trash::TrashRecord,
    upstream::UpstreamRecord,
};
use mirror_proto::{
    convert::{self, AgentView},
    v1::AuditChange,
};

use super::fields::{self, Shown};
use crate::rpc::policy;

/// The resource of what is the whole fleet's.
pub const FLEET: &str = "fleet";
/// Most rows of one event; the others are counted.
pub const ROWS_MAX: usize = 64;
/// What is shown of a secret that is there.
const SET: &str = "(set)";
/// What is shown of a secret that became another one.
const CHANGED: &str = "(changed)";
/// Of a run, what follows by itself from its being there.
const OF_RUNS_LEFT_OUT: [&str; 6] =
    ["start_time", "end_time", "generation", "attempt_count", "traceparent", "trigger.time"];

/// Changed fields, as many as are told.
#[derive(Debug, Default)]
pub struct Rows {
    rows: Vec<AuditChange>,
    left_out: u32,
    /// What is not set is shown as nothing, not as the zero that it is on the wire.
    unset_is_empty: bool,
}

impl Rows {
    /// The rows, and how many more there are.
    #[must_use]
    pub fn into_parts(self) -> (Vec<AuditChange>, u32) {
        (self.rows, self.left_out)
    }

    fn put(&mut self, resource: &str, field: &str, old: impl Into<String>, new: impl Into<String>) {
        let (old, new) = (old.into(), new.into());
        if old == new {
            return;
        }
        if self.rows.len() == ROWS_MAX {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        self.rows.push(AuditChange { resource: resource.to_owned(), field: field.to_owned(), old, new });
    }

    /// Compares two forms of one thing; `None`: it was not, or is no more.
    fn compare(&mut self, resource: &str, before: Option<&Fields>, after: Option<&Fields>) {
        let none = BTreeMap::new();
        let both = before.is_some() && after.is_some();
        let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
        let unset_is_empty = self.unset_is_empty;
        let text = |here: Option<&Shown>, there: Option<&Shown>| match (here, there) {
            (Some(shown), _) => shown.text.clone(),
            (None, Some(other)) if both && !unset_is_empty => other.unset.to_owned(),
            (None, _) => String::new(),
        };
        let paths = before.keys().chain(after.keys().filter(|path| !before.contains_key(*path)));
        for path in paths {
            let (old, new) = (before.get(path), after.get(path));
            self.put(resource, path, text(old, new), text(new, old));
        }
    }
}

type Fields = BTreeMap<String, Shown>;

/// What these changes make other than `engine` has it.
#[must_use]
pub fn of(engine: &Engine, changes: &[Change]) -> Rows {
    let mut rows = Rows::default();
    for change in changes {
        match change {
            Change::Put(record) => put(engine, record, &mut rows),
            Change::Delete(key) => delete(engine, key, &mut rows),
            Change::Volatile(_) => {}
        }
    }
    rows
}

/// What these changes make of the declarations of projects other than `engine` has it: for plans.
#[must_use]
pub fn of_declarations(engine: &Engine, changes: &[Change]) -> Rows {
    let mut rows = Rows { unset_is_empty: true, ..Rows::default() };
    for change in changes {
        if let Change::Put(record @ Record::Project(_)) = change {
            put(engine, record, &mut rows);
        }
    }
    rows.rows.sort_by(|a, b| a.field.cmp(&b.field));
    rows
}

fn put(engine: &Engine, record: &Record, rows: &mut Rows) {
    match record {
        Record::Fleet(new) => fleet(engine.fleet(), new, rows),
        Record::Project(new) => {
            let old = engine.project(new.uid).map(|project| &*project.record);
            project(engine, old, Some(new), rows);
        }
        Record::ProjectState(new) => preferred_upstream(engine, new, rows),
        Record::Placement(new) => placement(engine, new, rows),
        Record::Agent(new) => agent(engine.agent(new.uid), Some(new), rows),
        Record::JoinToken(new) => {
            let old = engine.join_tokens().find(|token| token.id == new.id);
            join_token(old, Some(new), rows);
        }
        Record::User(new) => user(engine.user(&new.name), Some(new), rows),
        Record::UserToken(new) => user_token(engine.user_token(&new.id), Some(new), rows),
        Record::PushToken(new) => push_token(engine, engine.push_token(&new.id), Some(new), rows),
        Record::Run(new) => run(engine, new, rows),
        Record::Upstream(new) => upstream(engine.upstream(&new.host), Some(new), rows),
        Record::Request(_) | Record::Attempt(_) => {}
        Record::Trash(new) => trash(engine, new, rows),
        // Told by its own event when it is done or left out.
        Record::PlanStep(_) | Record::LeftOut(_) => {}
    }
}

fn delete(engine: &Engine, key: &Key, rows: &mut Rows) {
    match key {
        Key::Project(uid) => {
            project(engine, engine.project(*uid).map(|project| &*project.record), None, rows);
        }
        Key::Agent(uid) => agent(engine.agent(*uid), None, rows),
        Key::JoinToken(id) => {
            join_token(engine.join_tokens().find(|token| token.id == *id), None, rows);
        }
        Key::User(name) => user(name.parse().ok().and_then(|name| engine.user(&name)), None, rows),
        Key::UserToken(id) => user_token(engine.user_token(id), None, rows),
        Key::PushToken(id) => push_token(engine, engine.push_token(id), None, rows),
        Key::Upstream(host) => upstream(engine.upstream(host), None, rows),
        Key::Fleet
        | Key::ProjectState(_)
        | Key::Placement(..)
        | Key::Request(_)
        | Key::PlanStep(_)
        | Key::Trash(..)
        | Key::Run(..)
        | Key::Attempt(..) => {}
    }
}

fn fleet(old: &FleetRecord, new: &FleetRecord, rows: &mut Rows) {
    let frozen = |freeze: Option<&Freeze>| match freeze {
        Some(freeze) if freeze.reason.is_empty() => "yes".to_owned(),
        Some(freeze) => freeze.reason.clone(),
        None => String::new(),
    };
    rows.put(FLEET, "frozen", frozen(old.frozen.as_ref()), frozen(new.frozen.as_ref()));
    rows.put(FLEET, "term", old.term.to_string(), new.term.to_string());
}

fn project(engine: &Engine, old: Option<&ProjectRecord>, new: Option<&ProjectRecord>, rows: &mut Rows) {
    let Some(either) = new.or(old) else { return };
    let resource = convert::project_name(&either.name);
    let form =
        |record: &ProjectRecord| fields::of(&convert::project_to_wire(record, engine, Vec::new()), "Project");
    if let (Some(old), Some(new)) = (old, new) {
        rows.put(&resource, "name", convert::project_name(&old.name), convert::project_name(&new.name));
    }
    rows.compare(&resource, old.map(form).as_ref(), new.map(form).as_ref());
    let sealed = |record: Option<&ProjectRecord>, index: usize| {
        let upstream = record.and_then(|record| record.spec.upstreams.get(index));
        upstream.map(|upstream| upstream.sealed_password.clone()).unwrap_or_default()
    };
    let count = [old, new].into_iter().flatten().map(|record| record.spec.upstreams.len()).max();
    for index in 0..count.unwrap_or(0) {
        let (old, new) = (sealed(old, index), sealed(new, index));
        let (before, after) = match (old.is_empty(), new.is_empty()) {
            (true, true) => continue,
            (true, false) => ("", SET),
            (false, true) => (SET, ""),
            (false, false) if old == new => continue,
            (false, false) => (SET, CHANGED),
        };
        rows.put(&resource, &format!("upstreams[{index}].password"), before, after);
    }
}

fn preferred_upstream(engine: &Engine, new: &ProjectState, rows: &mut Rows) {
    let Some(project) = engine.project(new.uid) else { return };
    let uri = |place: u32| {
        let at = usize::try_from(place).unwrap_or(usize::MAX);
        project
            .record
            .spec
            .upstreams
            .get(at)
            .map_or_else(|| place.to_string(), |upstream| upstream.uri.clone())
    };
    let resource = convert::project_name(&project.record.name);
    rows.put(&resource, "status.upstream", uri(project.state.upstream), uri(new.upstream));
}

/// What is wanted; what becomes of it is an event of its own.
fn trash(engine: &Engine, new: &TrashRecord, rows: &mut Rows) {
    if new.is_waiting() && engine.project(new.project).is_some() {
        let field = format!("{}.tree", convert::agent_name_of(engine, new.agent));
        rows.put(&convert::project_name(&new.name), &field, new.destination.to_string(), "to the trash");
    }
}

/// What people steer of it; where it goes at first, and when it goes, follows from the project.
fn placement(engine: &Engine, new: &PlacementRecord, rows: &mut Rows) {
    let Some(project) = engine.project(new.project) else { return };
    let Some(old) = project.placements.get(&new.agent) else { return };
    let resource = convert::project_name(&project.record.name);
    let agent = convert::agent_name_of(engine, new.agent);
    let field = |name: &str| format!("{agent}.{name}");
    let role = |one: &PlacementRecord| format!("{:?}", one.role).to_ascii_lowercase();
    rows.put(&resource, &field("role"), role(old), role(new));
    rows.put(&resource, &field("standby"), old.standby.to_string(), new.standby.to_string());
    rows.put(&resource, &field("destination"), old.destination.to_string(), new.destination.to_string());
    let approved = |one: &PlacementRecord| {
        let until = one.hold.as_ref().and_then(|hold| hold.approved_until);
        until.map(|until| until.to_utc().to_rfc3339()).unwrap_or_default()
    };
    rows.put(&resource, &field("approved_until"), approved(old), approved(new));
}

fn agent(old: Option<&AgentRecord>, new: Option<&AgentRecord>, rows: &mut Rows) {
    let Some(either) = new.or(old) else { return };
    let resource = convert::agent_name(&either.name);
    let form =
        |record: &AgentRecord| fields::of(&convert::agent_to_wire(record, AgentView::default()), "Agent");
    rows.compare(&resource, old.map(form).as_ref(), new.map(form).as_ref());
    let mut text = |field: &str, pick: fn(&AgentRecord) -> String| {
        rows.put(&resource, field, old.map(pick).unwrap_or_default(), new.map(pick).unwrap_or_default());
    };
    text("revoke_reason", |one| one.revoked.clone().unwrap_or_default());
    text("certificate_serial", |one| one.certificate_serial.clone());
    text("key_hash", |one| one.key_hash.clone());
}

fn join_token(old: Option<&JoinToken>, new: Option<&JoinToken>, rows: &mut Rows) {
    let Some(either) = new.or(old) else { return };
    let form = |token: &JoinToken| fields::of(&convert::join_token_to_wire(token, ""), "JoinToken");
    rows.compare(&convert::join_token_name(&either.id), old.map(form).as_ref(), new.map(form).as_ref());
}

fn user(old: Option<&UserRecord>, new: Option<&UserRecord>, rows: &mut Rows) {
    let Some(either) = new.or(old) else { return };
    let resource = convert::user_name(either.name.as_str());
    let role = |user: Option<&UserRecord>| user.map_or("", |user| policy::role_name(user.role));
    rows.put(&resource, "role", role(old), role(new));
    let disabled =
        |user: Option<&UserRecord>| user.map_or("false", |user| if user.disabled { "true" } else { "false" });
    rows.put(&resource, "disabled", disabled(old), disabled(new));
    let password = |user: Option<&UserRecord>| user.and_then(|user| user.password.clone());
    let (before, after) = (password(old), password(new));
    match (&before, &after) {
        (None, Some(_)) => rows.put(&resource, "password", "", SET),
        (Some(_), None) => rows.put(&resource, "password", SET, ""),
        (Some(before), Some(after)) if before != after => rows.put(&resource, "password", SET, CHANGED),
        _ => {}
    }
    let since =
        |user: &UserRecord| user.certificates_since.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true);
    if let (Some(old), Some(new)) = (old, new) {
        rows.put(&resource, "certificates_since", since(old), since(new));
    }
}

/// Who is logged in, without the token itself.
fn user_token(old: Option<&UserToken>, new: Option<&UserToken>, rows: &mut Rows) {
    let Some(either) = new.or(old) else { return };
    let expires = |token: Option<&UserToken>| {
        token
            .map(|token| token.expires.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true))
            .unwrap_or_default()
    };
    rows.put(&convert::user_token_name(&either.user, &either.id), "expires", expires(old), expires(new));
}

/// Who pushes, without the token itself. That it was used, the run tells.
fn push_token(engine: &Engine, old: Option<&PushToken>, new: Option<&PushToken>, rows: &mut Rows) {
    let Some(either) = new.or(old) else { return };
    let form = |token: &PushToken| {
        let mut fields = fields::of(&convert::push_token_to_wire(token, engine), "PushToken");
        fields.remove("last_use_time");
        fields
    };
    rows.compare(&convert::push_token_name(&either.id), old.map(form).as_ref(), new.map(form).as_ref());
}

fn upstream(old: Option<&UpstreamRecord>, new: Option<&UpstreamRecord>, rows: &mut Rows) {
    let Some(either) = new.or(old) else { return };
    let resource = convert::upstream_name(&either.host);
    let mut text = |field: &str, pick: fn(&UpstreamRecord) -> Option<String>| {
        let shown = |one: Option<&UpstreamRecord>| one.and_then(pick).unwrap_or_default();
        rows.put(&resource, field, shown(old), shown(new));
    };
    text("slots", |one| one.slots.map(|slots| slots.to_string()));
    text("spacing", |one| one.spacing.map(|span| humantime::format_duration(span).to_string()));
}

fn run(engine: &Engine, new: &RunRecord, rows: &mut Rows) {
    let Some(project) = engine.project(new.project) else { return };
    let form = |run: &RunRecord| {
        let wire = convert::run_to_wire(run, &project.record.name, None, engine);
        let mut fields = fields::of(&wire, "Run");
        fields.retain(|path, _| !OF_RUNS_LEFT_OUT.contains(&path.as_str()));
        fields
    };
    let resource = convert::run_name(&project.record.name, new.id);
    rows.compare(&resource, engine.run(new.id).map(form).as_ref(), Some(&form(new)));
}
