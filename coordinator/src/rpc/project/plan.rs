//! Plans: what is declared against what there is. Every project is read and decided on a copy of the fleet, one after the
//! other, by the same code that decides it for good; so destinations that two of them want, names that one frees for
//! another, and agents that are unknown are found here. Nothing of it is stored.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use ::fleet::{
    Engine,
    agent::UserRole,
    engine::at_its_phase,
    id::{Name, ProjectUid},
    input::Decision,
    plan::{Act, Asker, Pausing, PlanStep},
    project::{Pick, ProjectSpec},
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
use tokio::{sync::OwnedSemaphorePermit, task::JoinError, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::{
    Projects,
    order::ordered,
    standing::{Row, Standing},
};
use crate::{
    audit::changes,
    rpc::{By, Caller, RETRY_UNAVAILABLE, broken, caller, refused},
    store::VALUE_BYTES_MAX,
};

/// Plans that are made at once to be looked at; further ones are told to come again.
pub const PLANS_AT_ONCE: usize = 2;
/// Plans that are made at once to be applied: places that nobody takes who may only look.
pub const APPLIES_AT_ONCE: usize = 1;
/// How long an apply waits for its place.
const APPLY_WAIT_MAX: Duration = Duration::from_secs(20);
/// Most faults that are told.
const FAULTS_MAX: usize = 1_000;
/// More fires in a day than public upstreams like.
const FIRES_A_DAY_LIKED: usize = 4;
/// Fires of a day that are counted.
const FIRES_COUNTED_MAX: usize = 100;
/// Why a project is paused that nobody gave a reason for.
const CREATED_PAUSED: &str = "created paused";

/// What a person declares.
#[derive(Debug)]
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
        let place = Arc::clone(&self.services.plans).try_acquire_owned().map_err(|_| too_many_plans())?;
        let wanted = Arc::new(Wanted { projects, prune, paused, compares });
        let planned = self.planned(&by, &wanted, place).await?;
        if planned.faults.is_empty() {
            let Planned { changes, unchanged, etag, .. } = planned;
            return Ok(v1::PlanProjectsResponse { changes, unchanged, etag, faults: Vec::new() });
        }
        let told = planned.faults.into_iter().take(FAULTS_MAX);
        let faults = told.map(|fault| v1::PlanFault { field: fault.field, description: fault.description });
        Ok(v1::PlanProjectsResponse { faults: faults.collect(), ..v1::PlanProjectsResponse::default() })
    }

    /// A place for a plan that is to be applied.
    pub(super) async fn place_to_apply(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = timeout(APPLY_WAIT_MAX, Arc::clone(&self.services.applies).acquire_owned()).await;
        place.ok().and_then(Result::ok).ok_or_else(too_many_plans)
    }

    /// Makes a plan on the present state, apart from what answers others. It ends early when nobody waits for it any more.
    pub(super) async fn planned(
        &self,
        by: &By,
        wanted: &Arc<Wanted>,
        place: OwnedSemaphorePermit,
    ) -> Result<Planned, Status> {
        let gone = CancellationToken::new();
        let _asked = gone.clone().drop_guard();
        let (this, by, wanted) = (self.clone(), by.to_string(), Arc::clone(wanted));
        let made = in_place(place, move || {
            let fleet = this.services.driver.view().clone();
            let now = this.services.driver.now();
            let before = fleet
                .projects_by_name()
                .map(|one| (one.record.name.clone(), (one.record.uid, one.record.revision)))
                .collect();
            let first_uid = fleet.uid_after(0);
            Planner {
                projects: &this,
                now,
                by: &by,
                before,
                first_uid,
                fleet,
                wanted: &wanted,
                gone,
                done: Planned::default(),
            }
            .plan()
        });
        made.await.map_err(|error| broken("making the plan", &error))?
    }
}

/// Does what blocks in a place that is free again when it is done, whether or not anybody still waits for it: a call that
/// is cancelled does not end it.
async fn in_place<T: Send + 'static>(
    place: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    })
    .await
}

fn too_many_plans() -> Status {
    let text = "as many plans are being made as this coordinator makes at once; try again in a moment";
    mirror_proto::status::exhausted("TOO_MANY_PLANS", text, RETRY_UNAVAILABLE)
}

struct Planner<'a> {
    projects: &'a Projects,
    now: Now,
    by: &'a str,
    /// The projects that there are, at their revisions.
    before: BTreeMap<Name, (ProjectUid, u64)>,
    /// What the first new one gets.
    first_uid: ProjectUid,
    /// The fleet as it would be after what was planned so far.
    fleet: Engine,
    wanted: &'a Wanted,
    /// Whoever asked for it is gone.
    gone: CancellationToken,
    done: Planned,
}

/// Why one project cannot be planned; the fields are those of its declaration.
enum No {
    Faults(Vec<Violation>),
    Status(Status),
}

/// What is still to be planned.
#[derive(Debug, Clone)]
enum Left {
    /// What is declared at this place.
    Declared(usize, Name),
    /// A project that is not among what is declared.
    Gone(ProjectUid, u64, Name),
}

impl Left {
    /// Where its faults are told: those of what is declared in its order, then the others.
    const fn place(&self) -> usize {
        match self {
            Self::Declared(index, _) => *index,
            Self::Gone(..) => usize::MAX,
        }
    }
}

/// Faults with the places of what they are told of.
type Placed = Vec<(usize, Violation)>;

impl Planner<'_> {
    fn plan(mut self) -> Result<Planned, Status> {
        let (names, mut faults, ill_named) = self.names();
        // Who is wrongly named could be one of those that seem not to be declared.
        let mut left = self.others(&names, self.wanted.prune && faults.is_empty());
        left.extend(self.declared(&names));
        let refused = loop {
            let count = left.len();
            let refused;
            (left, refused) = self.round(left)?;
            if left.is_empty() || left.len() == count {
                break refused;
            }
        };
        faults.extend(refused);
        for index in ill_named {
            if let Err(no) = self.read_declared(index, None) {
                faults.extend(placed(index, no)?);
            }
        }
        faults.sort_by_key(|(place, _)| *place);
        self.done.faults = faults.into_iter().map(|(_, fault)| fault).collect();
        self.done.etag = etag(&self.before, names.keys(), &self.done.acts);
        self.done.changes.sort_by_cached_key(|one| one.project.to_lowercase());
        Ok(self.done)
    }

    /// The declared names and their places; what is wrong with them, and the places of those that have no good one.
    fn names(&self) -> (BTreeMap<Name, usize>, Placed, Vec<usize>) {
        let (mut names, mut faults, mut ill_named) = (BTreeMap::new(), Vec::new(), Vec::new());
        if self.wanted.projects.is_empty() {
            // With prune it would say that there is to be no project at all.
            faults.push((0, Violation::new("projects", "is required: name at least one")));
        }
        for (index, declared) in self.wanted.projects.iter().enumerate() {
            let field = format!("projects[{index}].project.name");
            let name = declared.project.as_ref().map_or("", |project| project.name.as_str());
            let fault = match convert::parse_project(&field, name) {
                Ok(name) => match names.entry(name) {
                    Entry::Vacant(entry) => {
                        entry.insert(index);
                        continue;
                    }
                    Entry::Occupied(entry) => Violation::new(
                        field,
                        format!("is declared twice, first as projects[{}]", entry.get()),
                    ),
                },
                Err(fault) => fault,
            };
            faults.push((index, fault));
            ill_named.push(index);
        }
        (names, faults, ill_named)
    }

    /// Projects that are not declared: what is to go, those first that run after others. What is kept is noted.
    fn others(&mut self, names: &BTreeMap<Name, usize>, prune: bool) -> Vec<Left> {
        let others: Vec<(&Name, ProjectUid, u64)> = self
            .before
            .iter()
            .filter(|(name, _)| !names.contains_key(*name))
            .map(|(name, (uid, revision))| (name, *uid, *revision))
            .collect();
        if !prune {
            let kept = others.iter().map(|(name, ..)| change_of(name, Action::Keep));
            self.done.changes.extend(kept);
            return Vec::new();
        }
        let place: BTreeMap<ProjectUid, usize> =
            others.iter().enumerate().map(|(index, (_, uid, _))| (*uid, index)).collect();
        let mut followers = vec![Vec::new(); others.len()];
        for (index, (_, uid, _)) in others.iter().enumerate() {
            let after = self.fleet.project(*uid).map(|project| project.record.spec.after.as_slice());
            for before in after.unwrap_or_default().iter().filter_map(|before| place.get(before)) {
                followers[*before].push(index);
            }
        }
        let gone = |index: usize| {
            let (name, uid, revision) = others[index];
            Left::Gone(uid, revision, name.clone())
        };
        ordered(&followers).into_iter().map(gone).collect()
    }

    /// What is declared: those last that are to run after others.
    fn declared(&self, names: &BTreeMap<Name, usize>) -> Vec<Left> {
        let mut declared: Vec<(usize, &Name)> = names.iter().map(|(name, index)| (*index, name)).collect();
        declared.sort_unstable();
        let place: BTreeMap<&Name, usize> =
            declared.iter().enumerate().map(|(place, (_, name))| (*name, place)).collect();
        let after = |index: usize| {
            let project = self.wanted.projects[index].project.as_ref();
            let after = project.map(|project| project.after.as_slice()).unwrap_or_default();
            let names = after.iter().filter_map(|name| convert::parse_project("after", name).ok());
            names.filter_map(|name| place.get(&name).copied()).collect::<Vec<_>>()
        };
        let waits: Vec<Vec<usize>> = declared.iter().map(|(index, _)| after(*index)).collect();
        let left = |place: usize| {
            let (index, name) = declared[place];
            Left::Declared(index, name.clone())
        };
        ordered(&waits).into_iter().map(left).collect()
    }

    /// Plans what fits now; what does not may fit when others have made room or let go of it, and is told with its faults.
    fn round(&mut self, left: Vec<Left>) -> Result<(Vec<Left>, Placed), Status> {
        let (mut again, mut faults) = (Vec::new(), Vec::new());
        for one in left {
            if self.gone.is_cancelled() {
                return Err(Status::cancelled("nobody waits for this plan any more"));
            }
            match &one {
                Left::Declared(index, name) => match self.one(*index, name) {
                    Ok(()) => continue,
                    Err(no) => faults.extend(placed(*index, no)?),
                },
                Left::Gone(project, revision, name) => {
                    match self.act(Act::Delete { project: *project, revision: *revision }) {
                        Ok(_) => {
                            self.done.changes.push(change_of(name, Action::Delete));
                            continue;
                        }
                        Err(refusal) => {
                            let fault = Violation::new(convert::project_name(name), refusal.to_string());
                            faults.push((one.place(), fault));
                        }
                    }
                }
            }
            again.push(one);
        }
        Ok((again, faults))
    }

    fn one(&mut self, index: usize, name: &Name) -> Result<(), No> {
        match self.fleet.project_named(name).map(|project| project.record.uid) {
            Some(uid) => self.existing(uid, index),
            None => self.new_one(name, index),
        }
    }

    /// Reads all of what is declared at this place.
    fn read_declared(
        &self,
        index: usize,
        current: Option<&ProjectSpec>,
    ) -> Result<(ProjectSpec, Standing), No> {
        let declared = &self.wanted.projects[index];
        let unset = v1::Project::default();
        let spec = self.read(declared.project.as_deref().unwrap_or(&unset), current);
        match (spec, Standing::read(declared, self.now.wall)) {
            (Ok(spec), Ok(standing)) => Ok((spec, standing)),
            (Err(No::Status(status)), _) => Err(No::Status(status)),
            (Err(No::Faults(faults)), Err(others)) => {
                Err(No::Faults(faults.into_iter().chain(others).collect()))
            }
            (Err(No::Faults(faults)), Ok(_)) | (Ok(_), Err(faults)) => Err(No::Faults(faults)),
        }
    }

    fn new_one(&mut self, name: &Name, index: usize) -> Result<(), No> {
        let (spec, standing) = self.read_declared(index, None)?;
        let created = self.done.acts.iter().filter(|act| matches!(act, Act::Create { .. })).count();
        let (mut paused, archived) = standing.of_new();
        if paused.is_none() && self.wanted.paused {
            paused = Some(Pausing { reason: CREATED_PAUSED.to_owned(), until: None });
        }
        let warnings = if archived.is_some() { Vec::new() } else { warnings(self.now, &spec) };
        let uid = ProjectUid(self.first_uid.0 + created as u64);
        let act = Act::Create { uid, name: name.clone(), spec: Box::new(spec), paused, archived };
        self.act(act).map_err(of_project)?;
        self.done.changes.push(v1::ProjectChange { warnings, ..change_of(name, Action::Create) });
        Ok(())
    }

    fn existing(&mut self, uid: ProjectUid, index: usize) -> Result<(), No> {
        let Some(project) = self.fleet.project(uid) else { return Ok(()) };
        let record = Arc::clone(&project.record);
        let (spec, standing) = self.read_declared(index, Some(&record.spec))?;
        let spec = at_its_phase(spec, uid, Some(&record.spec.schedule));
        let mut change = change_of(&record.name, Action::Change);
        let mut acts = 0;
        if spec != record.spec {
            if spec.schedule != record.spec.schedule && record.archived.is_none() {
                change.warnings = warnings(self.now, &spec);
            }
            let revision = record.revision;
            let act = Act::Change { project: uid, revision, spec: Box::new(spec) };
            (change.fields, change.fields_left_out) = self.act(act).map_err(of_project)?;
            acts += 1;
        }
        // Each is made from the revision that the one before it leaves.
        for of in [Standing::pause, Standing::archive] {
            let record = self.fleet.project(uid).map(|project| Arc::clone(&project.record));
            let Some((act, rows)) = record.and_then(|record| of(&standing, &record)) else { continue };
            self.act(act).map_err(of_project)?;
            acts += 1;
            let row = |(field, old, new): Row| v1::FieldChange { field: field.to_owned(), old, new };
            change.fields.extend(rows.into_iter().map(row));
        }
        if acts == 0 {
            self.done.unchanged += 1;
        } else {
            self.done.changes.push(change);
        }
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
        // These have lines of their own, without who and when.
        let own = |field: &str| field.starts_with("paused.") || field.starts_with("archived.");
        let fields = rows.into_iter().filter(|row| !own(&row.field));
        let fields = fields.map(|row| v1::FieldChange { field: row.field, old: row.old, new: row.new });
        Ok((fields.collect(), left_out))
    }
}

fn change_of(name: &Name, action: Action) -> v1::ProjectChange {
    let project = convert::project_name(name);
    v1::ProjectChange { project, action: action.into(), ..v1::ProjectChange::default() }
}

/// The faults of what is declared at this place, as fields of the request.
fn placed(index: usize, no: No) -> Result<Placed, Status> {
    let placed = |fault: Violation| {
        let dot = if fault.field.is_empty() { "" } else { "." };
        (index, Violation::new(format!("projects[{index}]{dot}{}", fault.field), fault.description))
    };
    match no {
        No::Faults(faults) => Ok(faults.into_iter().map(placed).collect()),
        No::Status(status) => Err(status),
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
fn etag<'a>(
    before: &BTreeMap<Name, (ProjectUid, u64)>,
    names: impl Iterator<Item = &'a Name>,
    acts: &[Act],
) -> String {
    let mut text = String::new();
    for name in names {
        let (uid, revision) = before.get(name).map_or((0, 0), |(uid, revision)| (uid.0, *revision));
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_place_is_taken_until_the_work_ends_though_nobody_waits_for_it() {
        let places = Arc::new(Semaphore::new(1));
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (end, ends) = mpsc::channel::<()>();
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        let call = tokio::spawn(in_place(place, move || {
            begun.send(()).unwrap();
            ends.recv().unwrap();
        }));
        begins.await.unwrap();
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        assert_eq!(places.available_permits(), 0, "the work goes on");
        end.send(()).unwrap();
        drop(places.acquire().await.unwrap());
    }
}
