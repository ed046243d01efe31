//! `CheckProject`: what a project needs is looked at by its agents, the origin first, as it says how large the tree is.
//! Nothing is decided and nothing changes; what cannot be asked is a finding too.

use ::fleet::{
    Engine,
    attempt::Role,
    id::{AgentUid, Epoch, Name, ProjectUid},
    input::{Ask, Reply},
    project::{Destination, ProjectSpec, Upstream},
    refusal::Violation,
    time::Wall,
};
use mirror_proto::{
    convert, status,
    v1::{
        self,
        finding::{Kind, Severity},
    },
};
use tokio::time::Instant;
use tonic::Status;

use super::{Projects, ask, find, invalid, missing, unexpected};
use crate::{
    probes::{LOOK_TIME_MAX, SIZE_TIME_MAX, Ticket, Unanswered},
    rpc::{By, RETRY_UNAVAILABLE},
};

/// Checks at once; further ones are told to come again.
pub const CHECKS_MAX: usize = 16;

/// A project that is looked at.
struct Case {
    uid: ProjectUid,
    name: Name,
    spec: ProjectSpec,
    /// The preferred one.
    upstream: Option<Upstream>,
    /// The marker of what is served.
    served: Option<Wall>,
    /// The origin first.
    places: Vec<Place>,
    size: bool,
}

/// Where a tree is, or would be.
struct Place {
    agent: AgentUid,
    /// agents/{agent}.
    name: String,
    role: Role,
    destination: Destination,
    /// Bytes of the tree that are there already; 0: not known.
    held_bytes: u64,
    draining: bool,
    session: Option<Epoch>,
}

impl Place {
    fn new(view: &Engine, agent: AgentUid, role: Role, destination: &Destination, held_bytes: u64) -> Self {
        Self {
            agent,
            name: convert::agent_name_of(view, agent),
            role,
            destination: destination.clone(),
            held_bytes,
            draining: view.agent(agent).is_some_and(|record| record.draining),
            session: view.session(agent).map(|session| session.epoch),
        }
    }

    fn short(&self) -> &str {
        self.name.strip_prefix("agents/").unwrap_or(&self.name)
    }

    fn finding(&self, kind: Kind, severity: Severity, text: &str) -> v1::Finding {
        convert::finding_to_wire(self.name.clone(), kind, severity, format!("{} {text}", self.short()))
    }
}

/// A look that was asked for, or why it was not; and what the coordinator itself has to say.
struct Asked<'a> {
    place: &'a Place,
    ticket: Result<Ticket, v1::Finding>,
    notes: Vec<v1::Finding>,
}

impl Projects {
    /// Looks at everything that a run needs.
    pub(super) async fn look(
        &self,
        by: &By,
        request: v1::CheckProjectRequest,
    ) -> Result<v1::CheckProjectResponse, Status> {
        let Ok(_permit) = self.services.checks.try_acquire() else {
            let text = format!("{CHECKS_MAX} checks go on already; try again in a moment");
            return Err(status::exhausted("CHECKS_BUSY", &text, RETRY_UNAVAILABLE));
        };
        let case = self.case(by, request).await?;
        let until = Instant::now() + if case.size { SIZE_TIME_MAX } else { LOOK_TIME_MAX };
        let mut findings = Vec::new();
        let (origins, replicas): (Vec<&Place>, Vec<&Place>) =
            case.places.iter().partition(|place| place.role == Role::Origin);
        for origin in &origins {
            findings.extend(self.ask_place(&case, origin, 0).answered(until).await);
        }
        let counted = findings.iter().find(|one| one.kind() == Kind::Size).and_then(|one| one.size_bytes);
        let tree = counted.or_else(|| origins.first().map(|origin| origin.held_bytes)).unwrap_or(0);
        // All are asked before the first answer is waited for.
        let asked: Vec<Asked<'_>> = replicas
            .into_iter()
            .map(|place| self.ask_place(&case, place, tree.saturating_sub(place.held_bytes)))
            .collect();
        let until = Instant::now() + LOOK_TIME_MAX;
        for one in asked {
            findings.extend(one.answered(until).await);
        }
        let count = |severity| {
            let found = findings.iter().filter(|finding| finding.severity() == severity).count();
            u32::try_from(found).unwrap_or(u32::MAX)
        };
        let (faults, warnings) = (count(Severity::Fault), count(Severity::Warning));
        Ok(v1::CheckProjectResponse { findings, faults, warnings })
    }

    async fn case(&self, by: &By, request: v1::CheckProjectRequest) -> Result<Case, Status> {
        const WHAT: &str = "project not checked";
        let v1::CheckProjectRequest { name, project, size } = request;
        let Some(wire) = project else {
            if name.is_empty() {
                return Err(invalid(WHAT, vec![missing("name")]));
            }
            let view = self.services.driver.view();
            return Ok(Case::stored(&view, find(&view, WHAT, "name", &name)?, size));
        };
        if !name.is_empty() {
            let fault = Violation::new("name", "must be empty when a project is given");
            return Err(invalid(WHAT, vec![fault]));
        }
        let (name, declared) = {
            let view = self.services.driver.view();
            self.read(&view, None, |context| convert::project_from_wire(&wire, context))?
                .map_err(|faults| invalid(WHAT, faults))?
        };
        let create = Ask::CreateProject {
            name: name.clone(),
            spec: Box::new(declared.spec.clone()),
            paused: false,
            request: None,
            validate_only: true,
        };
        match ask(&self.services, by, create).await? {
            Reply::Done => Ok(Case::imagined(&self.services.driver.view(), name, declared.spec, size)),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks one agent, if it can be asked.
    fn ask_place<'a>(&self, case: &Case, place: &'a Place, growth_bytes: u64) -> Asked<'a> {
        let mut notes = Vec::new();
        if place.draining {
            let text = "is draining and takes no new attempts";
            notes.push(place.finding(Kind::Agent, Severity::Warning, text));
        }
        let Some(session) = place.session else {
            // A replica catches up by itself; without its origin nothing runs.
            let (severity, text) = match place.role {
                Role::Origin => (Severity::Fault, "is not connected, so nothing there was looked at"),
                Role::Replica => (
                    Severity::Warning,
                    "is not connected, so nothing there was looked at; it catches up later",
                ),
            };
            return Asked { place, ticket: Err(place.finding(Kind::Agent, severity, text)), notes };
        };
        let pulls = case.upstream.as_ref().filter(|_| place.role == Role::Origin);
        let (offline, note) = self.way(case, place, pulls);
        notes.extend(note);
        let host = pulls.filter(|_| !offline).map(|upstream| upstream.host.clone());
        let mut probe = case.probe(place, pulls);
        probe.growth_bytes = growth_bytes;
        probe.offline = offline;
        probe.reserve = Some(self.reserve());
        if let Some(upstream) = pulls.filter(|upstream| !upstream.sealed_password.is_empty()) {
            match self.services.sealer.unseal(&upstream.sealed_password) {
                Ok(password) => probe.secrets = convert::secrets_to_wire(Some(password.to_string())),
                Err(error) => {
                    let text = format!("cannot be given the upstream's password: {error}; set it again");
                    notes.push(place.finding(Kind::Reachability, Severity::Fault, &text));
                    probe.offline = true;
                }
            }
        }
        if pulls.is_some() && case.spec.marker.is_some() {
            let others =
                case.spec.upstreams.iter().filter(|one| pulls.is_none_or(|first| first.uri != one.uri));
            probe.others = others.filter_map(|other| self.other(case, place, other, &mut notes)).collect();
        }
        let ticket = self.services.probes.begin(place.agent, session, host).and_then(|ticket| {
            probe.id = ticket.id();
            let sent = self.services.outbox.probe(place.agent, session, probe);
            if sent { Ok(ticket) } else { Err(Unanswered::Gone) }
        });
        Asked { place, ticket: ticket.map_err(|why| unanswered(place, why)), notes }
    }

    /// Another upstream, at which the marker alone is read.
    fn other(
        &self,
        case: &Case,
        place: &Place,
        upstream: &Upstream,
        notes: &mut Vec<v1::Finding>,
    ) -> Option<v1::ProbedUpstream> {
        let (offline, note) = self.way(case, place, Some(upstream));
        notes.extend(note);
        let password = if upstream.sealed_password.is_empty() {
            None
        } else {
            match self.services.sealer.unseal(&upstream.sealed_password) {
                Ok(password) => Some(password.to_string()),
                Err(error) => {
                    let text =
                        format!("cannot be given the password of {}: {error}; set it again", upstream.host);
                    notes.push(place.finding(Kind::Marker, Severity::Fault, &text));
                    return None;
                }
            }
        };
        Some(v1::ProbedUpstream {
            source_uri: upstream.uri.clone(),
            user: upstream.user.clone(),
            secrets: convert::secrets_to_wire(password),
            offline,
        })
    }

    /// What admission keeps free on every volume.
    fn reserve(&self) -> v1::VolumeReserve {
        let view = self.services.driver.view();
        let limits = view.limits();
        v1::VolumeReserve { percent: limits.volume_reserve_percent, bytes: limits.volume_reserve_bytes }
    }

    /// Whether the agent must not connect to the upstream now, and what there is to say of the way to it.
    fn way(&self, case: &Case, place: &Place, pulls: Option<&Upstream>) -> (bool, Option<v1::Finding>) {
        let Some(upstream) = pulls else {
            let origin = case.places.iter().find(|other| other.role == Role::Origin);
            let text = match (place.role, origin) {
                (Role::Replica, Some(origin)) => {
                    format!("is served by the origin {}; that way is not tested here", origin.short())
                }
                (Role::Replica, None) => "is served by the origin; that way is not tested here".to_owned(),
                (Role::Origin, _) => "has no upstream: people push to it".to_owned(),
            };
            return (false, Some(place.finding(Kind::Reachability, Severity::Ok, &text)));
        };
        let view = self.services.driver.view();
        let out = view.attempts().filter(|attempt| {
            attempt.role == Role::Origin && attempt.upstream_host == upstream.host && attempt.state.is_out()
        });
        let users: Vec<_> = out.collect();
        let limit = usize::try_from(view.upstream_slots(&upstream.host)).unwrap_or(usize::MAX);
        if users.len() + self.services.probes.connected_to(&upstream.host) < limit {
            return (false, None);
        }
        let by = users.first().and_then(|attempt| view.project(attempt.project));
        let by =
            by.map_or_else(|| "by checks".to_owned(), |project| format!("{} is one", project.record.name));
        let slots =
            if limit == 1 { "its 1 slot is".to_owned() } else { format!("all its {limit} slots are") };
        let text = format!("did not connect to {}: {slots} taken ({by}); check again later", upstream.host);
        (true, Some(place.finding(Kind::Reachability, Severity::Warning, &text)))
    }
}

/// The origin first, the others by name.
fn in_order(places: impl Iterator<Item = Place>) -> Vec<Place> {
    let mut places: Vec<Place> = places.collect();
    places.sort_by(|a, b| (a.role != Role::Origin, &a.name).cmp(&(b.role != Role::Origin, &b.name)));
    places
}

impl Case {
    fn stored(view: &Engine, project: &::fleet::engine::Project, size: bool) -> Self {
        let places = project.placements.values();
        let places =
            places.map(|one| Place::new(view, one.agent, one.role, &one.destination, one.size_bytes));
        let record = &project.record;
        let (name, spec) = (record.name.clone(), record.spec.clone());
        let (uid, upstream, served) = (record.uid, project.upstream().cloned(), project.state.marker);
        Self { uid, name, spec, upstream, served, places: in_order(places), size }
    }

    /// Where a declaration that is not stored would have its trees.
    fn imagined(view: &Engine, name: Name, spec: ProjectSpec, size: bool) -> Self {
        let places = view.homes(&spec);
        let places = places.map(|(agent, role, destination)| Place::new(view, agent, role, destination, 0));
        let (places, upstream) = (in_order(places), spec.upstreams.first().cloned());
        Self { uid: ProjectUid(0), name, spec, upstream, served: None, places, size }
    }

    /// What an agent is to look at.
    fn probe(&self, place: &Place, pulls: Option<&Upstream>) -> v1::Probe {
        let rsync = &self.spec.rsync;
        v1::Probe {
            project_uid: self.uid.0,
            project: self.name.to_string(),
            role: convert::role_to_wire(place.role).into(),
            source_uri: pulls.map_or_else(String::new, |upstream| upstream.uri.clone()),
            user: pulls.map_or_else(String::new, |upstream| upstream.user.clone()),
            destination: place.destination.to_string(),
            options: rsync.words(),
            no_defaults: rsync.replaces_defaults(),
            connect_timeout: rsync.connect_timeout.map(convert::duration_to_wire),
            sentinels: if pulls.is_some() { self.spec.guard.sentinels.clone() } else { Vec::new() },
            size: self.size && pulls.is_some(),
            marker: self.spec.marker.as_ref().filter(|_| pulls.is_some()).map(convert::marker_to_wire),
            marker_not_before: self.served.map(convert::wall_to_wire),
            link: self.spec.link.as_ref().map(ToString::to_string).unwrap_or_default(),
            ..v1::Probe::default()
        }
    }
}

impl Asked<'_> {
    async fn answered(self, until: Instant) -> Vec<v1::Finding> {
        let Self { place, ticket, mut notes } = self;
        match ticket {
            Err(why) => notes.push(why),
            Ok(ticket) => match ticket.findings(until).await {
                Ok(findings) => {
                    // The path comes first, as people read it.
                    let own = std::mem::replace(&mut notes, findings);
                    notes.extend(own);
                }
                Err(why) => notes.push(unanswered(place, why)),
            },
        }
        notes
    }
}

fn unanswered(place: &Place, why: Unanswered) -> v1::Finding {
    let severity = if why == Unanswered::Late { Severity::Fault } else { Severity::Warning };
    place.finding(Kind::Agent, severity, &format!("was not looked at: {why}"))
}
