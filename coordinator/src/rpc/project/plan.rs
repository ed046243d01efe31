//! Plans: what is declared against what there is. Every project is read and decided on a copy of the fleet, one after the
//! other, by the same code that decides it for good; so destinations that two of them want, names that one frees for
//! another, and agents that are unknown are found here. Nothing of it is stored.

use std::collections::{BTreeMap, BTreeSet};

use ::fleet::{
    Engine,
    agent::UserRole,
    defaults::REASON_CHARS_MAX,
    engine::at_its_phase,
    id::{Name, ProjectUid},
    input::Decision,
    plan::{Act, Asker, PlanStep},
    project::{Pause, Pick, ProjectSpec},
    record::{Change, Record},
    refusal::{Refusal, RefusalCode, Violation},
    time::Now,
};
use aws_lc_rs::digest::{SHA256, digest};
use chrono::TimeDelta;
use mirror_proto::{
    convert,
    v1::{self, project_change::Action},
};
use tonic::{Request, Status};

use super::Projects;
use crate::{
    audit::changes,
    rpc::{By, Caller, RETRY_UNAVAILABLE, broken, caller, refused},
    store::VALUE_BYTES_MAX,
};

/// Plans that are made at once; further ones are told to come again.
pub const PLANS_AT_ONCE: usize = 2;
/// How often what did not fit is tried again after others have made room for it.
const ROUNDS_MAX: usize = 16;
/// Most faults that are told.
const FAULTS_MAX: usize = 1_000;
/// More fires in a day than public upstreams like.
const FIRES_A_DAY_LIKED: usize = 4;
/// Fires of a day that are counted.
const FIRES_COUNTED_MAX: usize = 100;
/// Why a project is paused that nobody gave a reason for.
const CREATED_PAUSED: &str = "created paused";

/// What a person declares.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) projects: Vec<v1::DeclaredProject>,
    pub(super) prune: bool,
    pub(super) paused: bool,
    /// Whether it may be told that a password that is given is the stored one.
    pub(super) compares: bool,
}

/// What follows from it.
#[derive(Debug, Default)]
pub(super) struct Planned {
    pub(super) acts: Vec<Act>,
    pub(super) changes: Vec<v1::ProjectChange>,
    pub(super) unchanged: u32,
    pub(super) etag: String,
    pub(super) faults: Vec<Violation>,
}

/// Whether the caller may be told that a password is the stored one: who may only look could guess it otherwise.
pub(super) fn may_compare_passwords<T>(request: &Request<T>) -> bool {
    match caller(request) {
        Ok(Caller::User { role, .. }) => matches!(role, UserRole::Operator | UserRole::Admin),
        Ok(Caller::LocalRoot) => true,
        Ok(Caller::Agent(..) | Caller::PushToken { .. }) | Err(_) => false,
    }
}

impl Projects {
    pub(super) async fn show_plan(
        &self,
        by: By,
        compares: bool,
        request: v1::PlanProjectsRequest,
    ) -> Result<v1::PlanProjectsResponse, Status> {
        let v1::PlanProjectsRequest { projects, prune, paused } = request;
        let planned = self.planned(&by, Wanted { projects, prune, paused, compares }).await?;
        if planned.faults.is_empty() {
            let Planned { changes, unchanged, etag, .. } = planned;
            return Ok(v1::PlanProjectsResponse { changes, unchanged, etag, faults: Vec::new() });
        }
        let told = planned.faults.into_iter().take(FAULTS_MAX);
        let faults = told.map(|fault| v1::PlanFault { field: fault.field, description: fault.description });
        Ok(v1::PlanProjectsResponse { faults: faults.collect(), ..v1::PlanProjectsResponse::default() })
    }

    /// Makes a plan on the present state, apart from what answers others.
    pub(super) async fn planned(&self, by: &By, wanted: Wanted) -> Result<Planned, Status> {
        let Ok(_place) = std::sync::Arc::clone(&self.plans).try_acquire_owned() else {
            let text =
                "as many plans are being made as this coordinator makes at once; try again in a moment";
            return Err(mirror_proto::status::exhausted("TOO_MANY_PLANS", text, RETRY_UNAVAILABLE));
        };
        let (this, by) = (self.clone(), by.to_string());
        let made = tokio::task::spawn_blocking(move || {
            let fleet = this.services.driver.view().clone();
            let now = this.services.driver.now();
            Planner {
                projects: &this,
                now,
                by: &by,
                base: fleet.clone(),
                fleet,
                wanted: &wanted,
                done: Planned::default(),
            }
            .plan()
        });
        made.await.map_err(|error| broken("making the plan", &error))?
    }
}

struct Planner<'a> {
    projects: &'a Projects,
    now: Now,
    by: &'a str,
    /// As it is.
    base: Engine,
    /// As it would be after what was planned so far.
    fleet: Engine,
    wanted: &'a Wanted,
    done: Planned,
}

/// Why one project cannot be planned; the fields are those of its declaration.
enum No {
    Faults(Vec<Violation>),
    Status(Status),
}

impl Planner<'_> {
    fn plan(mut self) -> Result<Planned, Status> {
        let wanted = self.wanted;
        let names = self.names();
        if self.done.faults.is_empty() {
            self.others(&names);
            let mut left: Vec<(usize, Name)> =
                names.iter().map(|(name, index)| (*index, name.clone())).collect();
            left.sort_by_key(|(index, _)| *index);
            for _ in 0..ROUNDS_MAX {
                let before = left.len();
                left = self.round(left, wanted)?;
                if left.is_empty() || left.len() == before {
                    break;
                }
            }
            self.done.etag = etag(&self.base, names.keys(), &self.done.acts);
        }
        self.done.changes.sort_by_cached_key(|one| one.project.to_lowercase());
        Ok(self.done)
    }

    /// The declared names and their places; what is wrong with them is noted.
    fn names(&mut self) -> BTreeMap<Name, usize> {
        let mut names = BTreeMap::new();
        if self.wanted.projects.is_empty() {
            // With prune it would say that there is to be no project at all.
            self.done.faults.push(Violation::new("projects", "is required: name at least one"));
        }
        for (index, declared) in self.wanted.projects.iter().enumerate() {
            let field = format!("projects[{index}].project.name");
            let name = declared.project.as_ref().map_or("", |project| project.name.as_str());
            match convert::parse_project(&field, name) {
                Ok(name) => {
                    if let Some(first) = names.insert(name, index) {
                        let text = format!("is declared twice, first as projects[{first}]");
                        self.done.faults.push(Violation::new(field, text));
                    }
                }
                Err(fault) => self.done.faults.push(fault),
            }
        }
        names
    }

    /// Projects that are not declared.
    fn others(&mut self, names: &BTreeMap<Name, usize>) {
        let others: Vec<(ProjectUid, u64, Name)> = self
            .base
            .projects_by_name()
            .filter(|project| !names.contains_key(&project.record.name))
            .map(|project| (project.record.uid, project.record.revision, project.record.name.clone()))
            .collect();
        for (project, revision, name) in others {
            let mut action = Action::Keep;
            if self.wanted.prune {
                action = Action::Delete;
                if let Err(refusal) = self.act(Act::Delete { project, revision }) {
                    self.done.faults.push(Violation::new(convert::project_name(&name), refusal.to_string()));
                    continue;
                }
            }
            let change =
                v1::ProjectChange { project: convert::project_name(&name), ..v1::ProjectChange::default() };
            self.done.changes.push(v1::ProjectChange { action: action.into(), ..change });
        }
    }

    /// Plans what fits now; what does not may fit when others have made room. Its faults are those of the last round.
    fn round(&mut self, left: Vec<(usize, Name)>, wanted: &Wanted) -> Result<Vec<(usize, Name)>, Status> {
        self.done.faults.retain(|fault| !fault.field.starts_with("projects["));
        let mut again = Vec::new();
        for (index, name) in left {
            match self.one(&name, &wanted.projects[index]) {
                Ok(()) => {}
                Err(No::Status(status)) => return Err(status),
                Err(No::Faults(faults)) => {
                    let placed = |fault: Violation| {
                        let dot = if fault.field.is_empty() { "" } else { "." };
                        Violation::new(format!("projects[{index}]{dot}{}", fault.field), fault.description)
                    };
                    self.done.faults.extend(faults.into_iter().map(placed));
                    again.push((index, name));
                }
            }
        }
        Ok(again)
    }

    fn one(&mut self, name: &Name, declared: &v1::DeclaredProject) -> Result<(), No> {
        if declared.pause_reason.chars().count() > REASON_CHARS_MAX
            || declared.pause_reason.chars().any(char::is_control)
        {
            let text = format!("at most {REASON_CHARS_MAX} characters, none of them control");
            return Err(No::Faults(vec![Violation::new("pause_reason", text)]));
        }
        let wire = declared.project.clone().unwrap_or_default();
        match self.fleet.project_named(name).map(|project| project.record.uid) {
            Some(uid) => self.existing(uid, &wire, declared),
            None => self.new_one(name, &wire, declared),
        }
    }

    fn new_one(&mut self, name: &Name, wire: &v1::Project, declared: &v1::DeclaredProject) -> Result<(), No> {
        let spec = self.read(wire, None)?;
        let created = self.done.acts.iter().filter(|act| matches!(act, Act::Create { .. })).count();
        let paused = declared.paused == Some(true) || self.wanted.paused;
        let reason = match declared.pause_reason.as_str() {
            "" if declared.paused.is_none() => CREATED_PAUSED,
            reason => reason,
        };
        let warnings = warnings(self.now, &spec);
        let act = Act::Create {
            uid: self.base.uid_after(created as u64),
            name: name.clone(),
            spec: Box::new(spec),
            paused: paused.then(|| reason.to_owned()),
        };
        self.act(act).map_err(of_project)?;
        self.done.changes.push(v1::ProjectChange {
            project: convert::project_name(name),
            action: Action::Create.into(),
            warnings,
            ..v1::ProjectChange::default()
        });
        Ok(())
    }

    fn existing(
        &mut self,
        uid: ProjectUid,
        wire: &v1::Project,
        declared: &v1::DeclaredProject,
    ) -> Result<(), No> {
        let Some(project) = self.fleet.project(uid) else { return Ok(()) };
        let record = std::sync::Arc::clone(&project.record);
        let spec = at_its_phase(self.read(wire, Some(&record.spec))?, uid, Some(&record.spec.schedule));
        let mut fields = Vec::new();
        let mut left_out = 0;
        let mut warned = Vec::new();
        let mut revision = record.revision;
        if spec != record.spec {
            if spec.schedule != record.spec.schedule {
                warned = warnings(self.now, &spec);
            }
            let rows =
                self.act(Act::Change { project: uid, revision, spec: Box::new(spec) }).map_err(of_project)?;
            (fields, left_out) = rows;
            revision += 1;
        }
        let told = |pause: Option<&Pause>| match pause {
            None => "false".to_owned(),
            Some(pause) if pause.reason.is_empty() => "true".to_owned(),
            Some(pause) => pause.reason.clone(),
        };
        let pausing = match (declared.paused, &record.paused) {
            (Some(true), Some(pause))
                if declared.pause_reason.is_empty() || pause.reason == declared.pause_reason =>
            {
                None
            }
            (Some(true), _) => {
                let reason = declared.pause_reason.clone();
                let new = if reason.is_empty() { "true".to_owned() } else { reason.clone() };
                Some((Act::Pause { project: uid, revision, reason }, new))
            }
            (Some(false), Some(_)) => Some((Act::Resume { project: uid, revision }, told(None))),
            (Some(false) | None, _) => None,
        };
        if let Some((act, new)) = pausing {
            self.act(act).map_err(of_project)?;
            fields.push(v1::FieldChange {
                field: "paused".to_owned(),
                old: told(record.paused.as_ref()),
                new,
            });
        }
        if fields.is_empty() && left_out == 0 && revision == record.revision {
            self.done.unchanged += 1;
            return Ok(());
        }
        self.done.changes.push(v1::ProjectChange {
            project: convert::project_name(&record.name),
            action: Action::Change.into(),
            fields,
            fields_left_out: left_out,
            warnings: warned,
        });
        Ok(())
    }

    fn read(&self, wire: &v1::Project, current: Option<&ProjectSpec>) -> Result<ProjectSpec, No> {
        let read = self.projects.read(&self.fleet, current, |context| convert::spec_from_wire(wire, context));
        let in_project =
            |fault: Violation| Violation::new(format!("project.{}", fault.field), fault.description);
        let mut spec = match read {
            Ok(Ok(declaration)) => declaration.spec,
            Ok(Err(faults)) => return Err(No::Faults(faults.into_iter().map(in_project).collect())),
            Err(status) => return Err(No::Status(status)),
        };
        if let Some(current) = current.filter(|_| self.wanted.compares) {
            self.keep_same_passwords(&mut spec, current);
        }
        let faults = self.selector_faults(&spec, current);
        if faults.is_empty() {
            Ok(spec)
        } else {
            Err(No::Faults(faults.into_iter().map(in_project).collect()))
        }
    }

    /// A password that is given again is no change, although it was sealed anew.
    fn keep_same_passwords(&self, spec: &mut ProjectSpec, current: &ProjectSpec) {
        let sealer = &self.projects.services.sealer;
        for upstream in spec.upstreams.iter_mut().filter(|one| !one.sealed_password.is_empty()) {
            let stored = current.upstreams.iter().find(|stored| stored.uri == upstream.uri);
            let Some(stored) = stored.filter(|stored| stored.sealed_password != upstream.sealed_password)
            else {
                continue;
            };
            let same = sealer
                .unseal(&stored.sealed_password)
                .ok()
                .zip(sealer.unseal(&upstream.sealed_password).ok());
            if same.is_some_and(|(old, new)| old == new) {
                upstream.sealed_password.clone_from(&stored.sealed_password);
            }
        }
    }

    /// A selector that is new and finds nobody is a slip of the finger more often than it waits for somebody.
    fn selector_faults(&self, spec: &ProjectSpec, current: Option<&ProjectSpec>) -> Vec<Violation> {
        let known: Vec<&Pick> =
            current.into_iter().flat_map(|spec| &spec.placement.replicas).map(|one| &one.pick).collect();
        let mut faults = Vec::new();
        for (index, replicas) in spec.placement.replicas.iter().enumerate() {
            let Pick::Labels(labels) = &replicas.pick else { continue };
            let has = |(key, value): (&String, &String), agent: &BTreeMap<String, String>| {
                agent.get(key) == Some(value)
            };
            let mut agents = self.fleet.agents_by_name().filter(|agent| agent.revoked.is_none());
            let found = agents.any(|agent| labels.iter().all(|label| has(label, &agent.labels)));
            if !found && !known.contains(&&replicas.pick) {
                let text: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let text = format!("\"{}\": matches no agent", text.join(","));
                faults.push(Violation::new(format!("placement.replicas[{index}].selector"), text));
            }
        }
        faults
    }

    /// Does one act on the copy, and tells what changes.
    fn act(&mut self, act: Act) -> Result<(Vec<v1::FieldChange>, u32), Refusal> {
        let decision = self.fleet.act(self.now, self.by, &act)?;
        fits(&act, &decision)?;
        let (rows, left_out) = changes::of_declarations(&self.fleet, &decision.changes).into_parts();
        self.fleet.apply(self.now, &decision.changes);
        self.done.acts.push(act);
        // A pause has a line of its own, without who and when.
        let fields = rows.into_iter().filter(|row| !row.field.starts_with("paused."));
        let fields = fields.map(|row| v1::FieldChange { field: row.field, old: row.old, new: row.new });
        Ok((fields.collect(), left_out))
    }
}

/// A refusal of the engine's as faults of the project.
fn of_project(refusal: Refusal) -> No {
    if refusal.violations.is_empty() {
        return No::Faults(vec![Violation::new("", refusal.message)]);
    }
    let inner = |fault: Violation| Violation::new(format!("project.{}", fault.field), fault.description);
    No::Faults(refusal.violations.into_iter().map(inner).collect())
}

/// A step that the store would not take is told with its project, before anything is stored.
fn fits(act: &Act, decision: &Decision) -> Result<(), Refusal> {
    let step = PlanStep {
        plan: u64::MAX,
        number: u32::MAX,
        by: String::new(),
        asker: Asker::default(),
        act: act.clone(),
    };
    let size = |record: &Record| mirror_proto::stored::encode(record).len();
    let becomes = decision.changes.iter().filter_map(|change| match change {
        Change::Put(record @ Record::Project(_)) => Some(size(record)),
        _ => None,
    });
    let bytes = becomes.max().unwrap_or(0).max(size(&Record::PlanStep(Box::new(step))) + ASKER_BYTES_MAX);
    if bytes <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let text = format!(
        "the declaration has {bytes} bytes as it is stored, at most {VALUE_BYTES_MAX}; make it smaller"
    );
    Err(Refusal::new(RefusalCode::InvalidArgument, "RECORD_TOO_LARGE", text))
}

/// What a step holds of who asked for it, at most, in bytes: two names, an address, a request id.
const ASKER_BYTES_MAX: usize = 512;

/// What is allowed and probably not meant.
fn warnings(now: Now, spec: &ProjectSpec) -> Vec<String> {
    let today = now.wall.to_utc();
    let tomorrow = today + TimeDelta::days(1);
    let fires =
        spec.schedule.fires(today).take(FIRES_COUNTED_MAX).take_while(|fire| *fire < tomorrow).count();
    if spec.upstreams.is_empty() || fires <= FIRES_A_DAY_LIKED {
        return Vec::new();
    }
    let more = if fires == FIRES_COUNTED_MAX { " or more" } else { "" };
    vec![format!("{fires}{more} fires a day; public upstreams rarely like more than {FIRES_A_DAY_LIKED}")]
}

/// What the plan was made on: the declared projects' revisions, and those of what is removed.
fn etag<'a>(base: &Engine, names: impl Iterator<Item = &'a Name>, acts: &[Act]) -> String {
    let mut text = String::new();
    for name in names {
        let revision = base.project_named(name).map_or(0, |project| project.record.revision);
        let uid = base.project_named(name).map_or(0, |project| project.record.uid.0);
        text.push_str(&format!("{} {uid} {revision}\n", name.as_str().to_ascii_lowercase()));
    }
    let deleted: BTreeSet<(u64, u64)> = acts
        .iter()
        .filter_map(|act| match act {
            Act::Delete { project, revision } => Some((project.0, *revision)),
            _ => None,
        })
        .collect();
    for (project, revision) in deleted {
        text.push_str(&format!("- {project} {revision}\n"));
    }
    hex::encode(digest(&SHA256, text.as_bytes()))
}

/// A plan that is refused for its faults.
pub(super) fn not_applied(faults: Vec<Violation>) -> Status {
    refused(&Refusal::invalid("nothing applied", faults))
}
