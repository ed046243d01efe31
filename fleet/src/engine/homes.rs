//! Where trees should live, against where they do: what declarations name and select is followed one placement
//! at a time, by ticks, from an index of what differs. So a host that joins, or labels that change, cost as much
//! as they move, and no commit unit is large.
//!
//! ```text
//!   home_of(spec, agent)   what the declaration wants of one agent
//!   standing(..)           that against the placement that there is: fits, due, or blocked
//!   rehome(..)             brings the placement, and the attempts that wait on it, in line
//! ```
//!
//! Does not know why a placement is wanted, and moves no files.

use std::{collections::BTreeSet, fmt};

use super::{effects::Effects, state::Engine, state::Project};
use crate::{
    agent::AgentRecord,
    attempt::{AttemptRecord, Role},
    id::{AgentUid, ProjectUid},
    input::Decision,
    placement::PlacementRecord,
    project::{Destination, Pick, ProjectRecord, ProjectSpec, Replicas},
    record::{Change, Key, Record, Volatile},
    refusal::{Refusal, Violation},
};

/// Most replicas of one project, those that stand by included: a run's record names each that missed it, and
/// must stay within a store record of 7 KiB.
pub const REPLICAS_MAX: usize = 200;

/// Most placements that are made or moved in the commit unit of a declaration; ticks make the others.
const PLACED_AT_ONCE: usize = 32;

/// What a declaration wants of one agent.
pub(super) struct Home<'a> {
    pub(super) role: Role,
    pub(super) standby: bool,
    pub(super) destination: &'a Destination,
    /// By labels, not by name.
    selected: bool,
    entry: Entry,
}

impl Home<'_> {
    /// Whether labels select the agent for the same place in both.
    fn selects_the_same(&self, other: &Self) -> bool {
        self.selected && other.selected && self.destination == other.destination
    }
}

/// The entry of a declaration that asks for an agent, as the API names it.
enum Entry {
    Origin(usize),
    Replicas(usize),
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Origin(index) => write!(f, "placement.origins[{index}]"),
            Self::Replicas(index) => write!(f, "placement.replicas[{index}]"),
        }
    }
}

/// A placement against what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is as it should be, or neither is nor should be.
    Fits,
    /// It can be brought in line now.
    Due,
    /// It cannot.
    Blocked(Obstacle),
}

/// What keeps a placement from being brought in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// An attempt may be on the agent.
    Busy,
    /// The destination, or the public link, lies inside, around or at this project's on the agent.
    Overlap(ProjectUid),
    /// The project has [`REPLICAS_MAX`] replicas.
    TooMany,
}

impl AgentRecord {
    /// Whether it has all of these labels.
    fn has_labels<'a>(&self, mut labels: impl Iterator<Item = (&'a String, &'a String)>) -> bool {
        labels.all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

impl ProjectSpec {
    /// Whether an agent is named as origin or replica.
    pub(super) fn names_agent(&self, agent: AgentUid) -> bool {
        self.placement.origins.iter().any(|target| target.agent == agent)
            || self.placement.replicas.iter().any(|replicas| replicas.pick == Pick::Agent(agent))
    }

    /// Whether agents are selected by labels.
    pub(super) fn selects(&self) -> bool {
        self.placement.replicas.iter().any(|replicas| matches!(replicas.pick, Pick::Labels(_)))
    }
}

impl PlacementRecord {
    /// Whether both say the same of who holds what where; they may have other trees.
    pub(super) fn same_home(&self, other: &Self) -> bool {
        (self.role, self.standby, &self.destination) == (other.role, other.standby, &other.destination)
    }
}

impl Engine {
    /// What a declaration wants of one agent.
    pub(super) fn home_of<'a>(&self, spec: &'a ProjectSpec, agent: AgentUid) -> Option<Home<'a>> {
        home_as(spec, self.agents.get(&agent)?)
    }

    /// Where a declaration would have its trees now, in the order of the agents' uids.
    pub fn homes<'a>(
        &self,
        spec: &'a ProjectSpec,
    ) -> impl Iterator<Item = (AgentUid, Role, &'a Destination)> {
        let wanted = self.wanted_agents(spec).into_iter();
        let home = |agent| self.home_of(spec, agent).map(|home| (agent, home.role, home.destination));
        wanted.filter_map(home)
    }

    /// The agents that a declaration names or selects now.
    fn wanted_agents(&self, spec: &ProjectSpec) -> BTreeSet<AgentUid> {
        let origins = spec.placement.origins.iter().map(|target| target.agent);
        let mut wanted: BTreeSet<AgentUid> = origins.collect();
        for replicas in &spec.placement.replicas {
            match &replicas.pick {
                Pick::Agent(agent) => {
                    wanted.insert(*agent);
                }
                Pick::Labels(labels) => {
                    let with =
                        |label: (&String, &String)| self.labelled.get(&(label.0.clone(), label.1.clone()));
                    // From the rarest label: what it selects bounds the work.
                    let sets: Option<Vec<_>> = labels.iter().map(with).collect();
                    let rarest = sets.and_then(|sets| sets.into_iter().min_by_key(|set| set.len()));
                    let fits = |agent: &&AgentUid| {
                        self.agents.get(*agent).is_some_and(|agent| agent.has_labels(labels.iter()))
                    };
                    wanted.extend(rarest.into_iter().flatten().filter(fits));
                }
            }
        }
        wanted
    }

    /// What speaks against the homes that a declaration asks for. An agent that labels select stays unplaced where something
    /// is in its way, and that is no fault of who changes something else: only what the change asks of it is one.
    pub(super) fn home_faults(&self, own: Option<ProjectUid>, spec: &ProjectSpec) -> Vec<Violation> {
        let old = own.and_then(|own| self.projects.get(&own)).map(|project| &project.record.spec);
        let same_link = old.is_some_and(|old| old.link == spec.link);
        let mut faults = Vec::new();
        let mut replicas = 0;
        let mut newcomer = None;
        let mut link_fault = None;
        for agent in self.wanted_agents(spec) {
            let Some(home) = self.home_of(spec, agent) else { continue };
            let before = old.and_then(|old| self.home_of(old, agent));
            replicas += usize::from(home.role == Role::Replica);
            if before.is_none() && home.role == Role::Replica {
                newcomer = Some(home.entry.to_string());
            }
            let selected_before = before.is_some_and(|before| before.selects_the_same(&home));
            if link_fault.is_none()
                && let Some(link) = spec.link.as_ref().filter(|_| !(same_link && selected_before))
            {
                link_fault = self.link_fault(own, agent, link, home.destination);
            }
            if selected_before {
                continue;
            }
            let Some(other) = self.overlapping(own, agent, home.destination) else { continue };
            let field = match home.entry {
                Entry::Origin(0) => "destination".to_owned(),
                Entry::Origin(_) | Entry::Replicas(_) => home.entry.to_string(),
            };
            faults.push(Violation::new(field, self.overlap_text(agent, home.destination, other)));
        }
        let text =
            || format!("{replicas} replicas in all; at most {REPLICAS_MAX} of one project are possible");
        let too_many = newcomer.filter(|_| replicas > REPLICAS_MAX);
        faults.extend(too_many.map(|field| Violation::new(field, text())));
        faults.extend(link_fault);
        faults
    }

    /// What speaks against a public link on an agent: a pull would delete one that lies in a tree.
    pub(super) fn link_fault(
        &self,
        own: Option<ProjectUid>,
        agent: AgentUid,
        link: &Destination,
        tree: &Destination,
    ) -> Option<Violation> {
        let text = if link.overlaps(tree) {
            format!("\"{link}\": it lies inside, around or at the tree's own place {tree}")
        } else {
            self.overlap_text(agent, link, self.overlapping(own, agent, link)?)
        };
        Some(Violation::new("publish.link", text))
    }

    pub(super) fn overlap_text(&self, agent: AgentUid, wanted: &Destination, other: ProjectUid) -> String {
        let agent_name = self.agents.get(&agent).map_or("?", |agent| agent.name.as_str());
        if let Some(going) = self.trash_record(agent, other).filter(|_| !self.projects.contains_key(&other)) {
            return format!(
                "\"{wanted}\": on agent \"{agent_name}\" the tree of the deleted project \"{}\" at {} is on its way into the \
                 trash; try again in a moment",
                going.name, going.destination
            );
        }
        let moves = self.attempts_on(other, agent).find_map(|attempt| self.way_of(attempt));
        let other = self.projects.get(&other);
        let tree = other.and_then(|project| project.placements.get(&agent)).map(|one| &one.destination);
        let link = other.and_then(|project| project.record.spec.link.as_ref());
        let places = [tree, moves.map(|way| &way.to), link].into_iter().flatten();
        let at = { places }.find(|place| place.overlaps(wanted)).or(tree);
        let at = at.map(ToString::to_string).unwrap_or_default();
        let other = other.map_or("?", |project| project.record.name.as_str());
        format!(
            "\"{wanted}\": on agent \"{agent_name}\" it lies inside, around or at {at} of project \"{other}\""
        )
    }

    /// The project whose tree on the agent is this destination, around it, or in it. Two trees may not lie inside
    /// each other: the outer one's deletes would empty the inner one.
    pub(super) fn overlapping(
        &self,
        own: Option<ProjectUid>,
        agent: AgentUid,
        wanted: &Destination,
    ) -> Option<ProjectUid> {
        let at = |path: String, project: u64| (agent, wanted.root().to_owned(), path, ProjectUid(project));
        let path = wanted.path();
        // What a tree is being moved to is taken already, and what is being moved to the trash still.
        for places in [&self.trees, &self.moving, self.trash.places()] {
            let around = path.match_indices('/').map(|(end, _)| &path[..end]);
            let around = around
                .chain(std::iter::once(path))
                .flat_map(|path| places.range(at(path.to_owned(), 0)..=at(path.to_owned(), u64::MAX)));
            // All that begins with "path/": '0' is the byte after '/'.
            let inside = places.range(at(format!("{path}/"), 0)..at(format!("{path}0"), 0));
            let mut found = around.chain(inside).map(|(.., project)| *project);
            if let Some(other) = found.find(|project| Some(*project) != own) {
                return Some(other);
            }
        }
        self.linking(own, agent, wanted)
    }

    /// The project whose public link on the agent is at this place, around it, or in it: a tree there would take it away.
    fn linking(&self, own: Option<ProjectUid>, agent: AgentUid, wanted: &Destination) -> Option<ProjectUid> {
        let at = |path: String, project: u64| (wanted.root().to_owned(), path, ProjectUid(project));
        let path = wanted.path();
        let around = path.match_indices('/').map(|(end, _)| &path[..end]);
        let around = around
            .chain(std::iter::once(path))
            .flat_map(|path| self.links.range(at(path.to_owned(), 0)..=at(path.to_owned(), u64::MAX)));
        let inside = self.links.range(at(format!("{path}/"), 0)..at(format!("{path}0"), 0));
        let here = |project: &ProjectUid| self.placed.contains(&(agent, *project));
        around
            .chain(inside)
            .map(|(.., project)| *project)
            .find(|project| Some(*project) != own && here(project))
    }

    /// Whether a place on the agent belongs to this or another project: its tree, where one is being moved to, or its
    /// public link.
    pub(super) fn taken_by(&self, agent: AgentUid, wanted: &Destination, own: ProjectUid) -> Option<String> {
        self.overlapping(Some(own), agent, wanted).map(|other| self.overlap_text(agent, wanted, other))
    }

    /// The declaration with this destination for one of its agents: an entry that names the agent says it.
    pub(super) fn spec_with_home(
        &self,
        spec: &ProjectSpec,
        agent: AgentUid,
        destination: &Destination,
    ) -> Option<ProjectSpec> {
        let entry = self.home_of(spec, agent)?.entry;
        let mut spec = spec.clone();
        let own = Some(destination.clone()).filter(|own| *own != spec.destination);
        match entry {
            Entry::Origin(index) => spec.placement.origins[index].destination = own,
            Entry::Replicas(index) if spec.placement.replicas[index].pick == Pick::Agent(agent) => {
                spec.placement.replicas[index].destination = own;
            }
            Entry::Replicas(_) => {
                spec.placement.replicas.push(Replicas { pick: Pick::Agent(agent), destination: own });
            }
        }
        Some(spec)
    }

    fn standing(&self, uid: ProjectUid, agent: AgentUid) -> Standing {
        let project = self.projects.get(&uid);
        project.map_or(Standing::Fits, |project| self.standing_in(&project.record.spec, project, agent))
    }

    /// As [`Engine::standing`], by this declaration of the project.
    fn standing_in(&self, spec: &ProjectSpec, project: &Project, agent: AgentUid) -> Standing {
        let uid = project.record.uid;
        let busy = || self.is_worked_on(uid, agent);
        let overlap = |home: &Home<'_>| self.overlapping(Some(uid), agent, home.destination);
        match (self.home_of(spec, agent), project.placements.get(&agent)) {
            (None, None) => Standing::Fits,
            (None, Some(_)) if busy() => Standing::Blocked(Obstacle::Busy),
            (None, Some(_)) => Standing::Due,
            (Some(home), Some(placement)) => {
                let moves = placement.destination != *home.destination;
                if !moves && placement.role == home.role {
                    return if placement.standby == home.standby { Standing::Fits } else { Standing::Due };
                }
                if busy() {
                    return Standing::Blocked(Obstacle::Busy);
                }
                match overlap(&home).filter(|_| moves) {
                    Some(other) => Standing::Blocked(Obstacle::Overlap(other)),
                    None => Standing::Due,
                }
            }
            (Some(home), None) => {
                let replicas = project.placements.values().filter(|one| one.role == Role::Replica).count();
                // What the project's public link would lie in would take it away.
                let link = || self.overlapping(Some(uid), agent, spec.link.as_ref()?);
                if let Some(other) = overlap(&home).or_else(link) {
                    Standing::Blocked(Obstacle::Overlap(other))
                } else if home.role == Role::Replica && replicas >= REPLICAS_MAX {
                    Standing::Blocked(Obstacle::TooMany)
                } else {
                    Standing::Due
                }
            }
        }
    }

    /// Agents that a project should be on and is not, with the reason in words; in order of their uids.
    #[must_use]
    pub fn unplaced(&self, uid: ProjectUid) -> Vec<(AgentUid, String)> {
        let Some(project) = self.projects.get(&uid) else { return Vec::new() };
        let pairs = self.homes_blocked.range((uid, AgentUid(0))..=(uid, AgentUid(u64::MAX)));
        let lacking = pairs.filter(|(_, agent)| !project.placements.contains_key(agent));
        let told = |(_, agent): &(ProjectUid, AgentUid)| {
            let home = self.home_of(&project.record.spec, *agent)?;
            let text = match self.standing(uid, *agent) {
                Standing::Blocked(Obstacle::Overlap(other)) => {
                    let link = project.record.spec.link.as_ref();
                    let of_tree = self.overlapping(Some(uid), *agent, home.destination).is_some();
                    self.overlap_text(*agent, link.filter(|_| !of_tree).unwrap_or(home.destination), other)
                }
                Standing::Blocked(Obstacle::TooMany) => {
                    format!("the project has {REPLICAS_MAX} replicas, the most that are possible")
                }
                Standing::Blocked(Obstacle::Busy) | Standing::Due | Standing::Fits => return None,
            };
            Some((*agent, text))
        };
        lacking.filter_map(told).collect()
    }

    /// Brings one placement in line, if it can be.
    pub(super) fn place(&self, uid: ProjectUid, agent: AgentUid) -> Decision {
        let mut effects = Effects::of(self);
        if let (Standing::Due, Some(project)) = (self.standing(uid, agent), self.projects.get(&uid)) {
            self.rehome(project, &project.record, agent, &mut effects);
        }
        effects.change(Change::Volatile(Volatile::HomeChecked(uid, agent)));
        effects.decision()
    }

    /// Brings one placement, and the replica's attempt that waits on it, in line with `record`. False: it was.
    pub(super) fn rehome(
        &self,
        project: &Project,
        record: &ProjectRecord,
        agent: AgentUid,
        effects: &mut Effects<'_>,
    ) -> bool {
        let old = project.placements.get(&agent);
        let new = self.home_of(&record.spec, agent).map(|home| placement(record.uid, agent, &home, old));
        if old.map(|old| new.as_ref().is_some_and(|new| old.same_home(new))) == Some(true) {
            return false;
        }
        if old.is_some_and(|old| new.as_ref().is_none_or(|new| new.destination != old.destination)) {
            // The same name leads elsewhere: who was sent there before finds another tree.
            self.mix_replicas(project, agent, effects);
        }
        match (&new, old) {
            (None, None) => return false,
            (None, Some(_)) => effects.delete(Key::Placement(record.uid, agent)),
            (Some(new), _) => effects.put(Record::Placement(new.clone())),
        }
        let waiting = self.attempts_on(record.uid, agent);
        let follows =
            |one: &&AttemptRecord| one.role == Role::Replica && one.state.is_pending() && !self.is_move(one);
        for attempt in waiting.filter(follows) {
            match new.as_ref().filter(|new| new.role == Role::Replica) {
                Some(new) => effects.put(Record::Attempt(AttemptRecord {
                    destination: new.destination.clone(),
                    first_sync: new.have_tree.is_none(),
                    ..attempt.clone()
                })),
                None => effects.delete(Key::Attempt(attempt.project, attempt.id)),
            }
        }
        true
    }

    /// The first placements of a new declaration; ticks make the others.
    pub(super) fn first_placements(&self, record: &ProjectRecord) -> Vec<PlacementRecord> {
        let origin = record.spec.placement.origins.first().map(|target| target.agent);
        let wanted = self.wanted_agents(&record.spec).into_iter().filter(|agent| Some(*agent) != origin);
        let homes = origin.into_iter().chain(wanted).take(PLACED_AT_ONCE);
        let made = homes.filter_map(|agent| {
            Some(placement(record.uid, agent, &self.home_of(&record.spec, agent)?, None))
        });
        made.collect()
    }

    /// Brings placements, and the attempts that wait, in line with a changed declaration: the change of the
    /// origin at once and whole, of the others as many as fit into one commit unit. Whom something is in the way of stays
    /// where he is, as with ticks.
    pub(super) fn move_placements(
        &self,
        project: &Project,
        record: &ProjectRecord,
        effects: &mut Effects<'_>,
    ) -> Result<(), Refusal> {
        for old in project.placements.values() {
            let home = self.home_of(&record.spec, old.agent);
            let same = home.is_some_and(|new| *new.destination == old.destination && new.role == old.role);
            if !same && self.is_worked_on(old.project, old.agent) {
                return Err(Refusal::precondition(
                    "ATTEMPT_RUNNING",
                    format!(
                        "project \"{}\" not changed: its placement {} is being worked on; cancel the run or wait",
                        record.name, old.destination
                    ),
                ));
            }
        }
        let origin = record.spec.placement.origins.first().map(|target| target.agent);
        let mut first: BTreeSet<AgentUid> = project.origin().map(|old| old.agent).into_iter().collect();
        first.extend(origin);
        let mut others = self.wanted_agents(&record.spec);
        others.extend(project.placements.keys());
        others.retain(|agent| !first.contains(agent));
        others.retain(|agent| self.standing_in(&record.spec, project, *agent) == Standing::Due);
        let mut moved = 0;
        for agent in first.into_iter().chain(others) {
            if moved == PLACED_AT_ONCE {
                break;
            }
            moved += usize::from(self.rehome(project, record, agent, effects));
        }
        if let Some((agent, home)) =
            origin.and_then(|agent| Some((agent, self.home_of(&record.spec, agent)?)))
        {
            let placed = placement(record.uid, agent, &home, project.placements.get(&agent));
            self.readdress(project, record, &placed, effects);
        }
        Ok(())
    }

    /// What waits to pull from the upstream does so on the placement that is the origin's from now on.
    pub(super) fn readdress(
        &self,
        project: &Project,
        record: &ProjectRecord,
        origin: &PlacementRecord,
        effects: &mut Effects<'_>,
    ) {
        let waiting = self.attempts_of_project(record.uid);
        for attempt in waiting.filter(|one| self.asks_upstream(one)).filter(|one| one.state.is_pending()) {
            let moved = AttemptRecord {
                agent: origin.agent,
                destination: origin.destination.clone(),
                first_sync: origin.have_tree.is_none(),
                ..attempt.clone()
            };
            effects.put(Record::Attempt(project.asking(&record.spec, moved)));
        }
    }
}

/// What a declaration wants of an agent, were this its record. What it is named as goes before what it is selected as;
/// revoked agents are not selected.
pub(super) fn home_as<'a>(spec: &'a ProjectSpec, record: &AgentRecord) -> Option<Home<'a>> {
    let origins = &spec.placement.origins;
    if let Some(index) = origins.iter().position(|target| target.agent == record.uid) {
        let role = if index == 0 { Role::Origin } else { Role::Replica };
        let destination = spec.destination_on(&origins[index]);
        return Some(Home {
            role,
            standby: index > 0,
            destination,
            selected: false,
            entry: Entry::Origin(index),
        });
    }
    let replicas = &spec.placement.replicas;
    let named = replicas.iter().position(|replicas| replicas.pick == Pick::Agent(record.uid));
    let fits = |pick: &Pick| match pick {
        Pick::Agent(_) => false,
        Pick::Labels(labels) => record.revoked.is_none() && record.has_labels(labels.iter()),
    };
    let index = named.or_else(|| replicas.iter().position(|replicas| fits(&replicas.pick)))?;
    let destination = replicas[index].destination.as_ref().unwrap_or(&spec.destination);
    let selected = named.is_none();
    Some(Home { role: Role::Replica, standby: false, destination, selected, entry: Entry::Replicas(index) })
}

/// The placement that a home asks for. A tree that is where it should be stays what it is, whatever its agent
/// does for it from now on, unless it has shrunk; a guard's stop is of the role that it was made in.
pub(super) fn placement(
    project: ProjectUid,
    agent: AgentUid,
    home: &Home<'_>,
    old: Option<&PlacementRecord>,
) -> PlacementRecord {
    let fresh = PlacementRecord {
        project,
        agent,
        role: home.role,
        standby: home.standby,
        destination: home.destination.clone(),
        have_tree: None,
        have_time: None,
        gave_up_on: None,
        files: 0,
        size_bytes: 0,
        half_changed: false,
        half_moved: None,
        hold: None,
        marker: None,
        behind: None,
    };
    let Some(old) = old.filter(|old| old.destination == fresh.destination) else { return fresh };
    let hold = old.hold.clone().filter(|_| old.role == home.role);
    // Without the hold that says so, what has shrunk would pass for the version before.
    let have_tree = old.have_tree.filter(|_| hold.is_some() || !old.has_shrunk());
    let behind = old.behind.filter(|_| old.role == home.role);
    PlacementRecord { role: home.role, standby: home.standby, have_tree, hold, behind, ..old.clone() }
}

/// The index of what differs, kept as things change.
impl Engine {
    /// Looks at one placement anew.
    pub(super) fn reindex_home(&mut self, project: ProjectUid, agent: AgentUid) {
        self.forget_home(project, agent);
        match self.standing(project, agent) {
            Standing::Fits => {}
            Standing::Due => {
                self.homes_due.insert((project, agent));
            }
            Standing::Blocked(_) => {
                self.homes_blocked.insert((project, agent));
                self.homes_blocked_on.insert((agent, project));
            }
        }
    }

    /// A place on the agent is free again: what it was in the way of may have room now.
    pub(super) fn reindex_blocked_on(&mut self, agent: AgentUid) {
        let blocked = self.homes_blocked_on.range((agent, ProjectUid(0))..=(agent, ProjectUid(u64::MAX)));
        let projects: Vec<ProjectUid> = blocked.map(|(_, project)| *project).collect();
        for project in projects {
            self.reindex_home(project, agent);
        }
    }

    fn forget_home(&mut self, project: ProjectUid, agent: AgentUid) {
        self.homes_due.remove(&(project, agent));
        if self.homes_blocked.remove(&(project, agent)) {
            self.homes_blocked_on.remove(&(agent, project));
        }
    }

    /// The declaration is another one, or gone.
    pub(super) fn reindex_homes(&mut self, uid: ProjectUid) {
        let all = (uid, AgentUid(0))..=(uid, AgentUid(u64::MAX));
        let known = self.homes_due.range(all.clone()).chain(self.homes_blocked.range(all));
        let mut agents: BTreeSet<AgentUid> = known.map(|(_, agent)| *agent).collect();
        match self.projects.get(&uid) {
            Some(project) => {
                agents.extend(self.wanted_agents(&project.record.spec));
                agents.extend(project.placements.keys());
                if project.record.spec.selects() {
                    self.selecting.insert(uid);
                } else {
                    self.selecting.remove(&uid);
                }
            }
            None => {
                self.selecting.remove(&uid);
            }
        }
        for agent in agents {
            self.reindex_home(uid, agent);
        }
    }

    /// The agent's labels, or whether it is of the fleet, may be others than before.
    pub(super) fn relabel(&mut self, old: Option<&AgentRecord>, uid: AgentUid) {
        let new = self.agents.get(&uid).filter(|agent| agent.revoked.is_none());
        let new = new.map(|agent| agent.labels.clone()).unwrap_or_default();
        let was_here = old.filter(|agent| agent.revoked.is_none());
        if was_here.is_some_and(|old| old.labels == new) && self.agents.contains_key(&uid) {
            return;
        }
        for (key, value) in was_here.map(|agent| agent.labels.clone()).unwrap_or_default() {
            let label = (key, value);
            if let Some(agents) = self.labelled.get_mut(&label) {
                agents.remove(&uid);
                if agents.is_empty() {
                    self.labelled.remove(&label);
                }
            }
        }
        for label in new {
            self.labelled.entry(label).or_default().insert(uid);
        }
        let blocked = self.homes_blocked_on.range((uid, ProjectUid(0))..=(uid, ProjectUid(u64::MAX)));
        let mut projects: BTreeSet<ProjectUid> = blocked.map(|(_, project)| *project).collect();
        projects.extend(self.placements_on(uid));
        projects.extend(&self.selecting);
        for project in projects {
            self.reindex_home(project, uid);
        }
    }

    /// A placement was made, moved or removed: `old` is what it was, `new` what it is.
    pub(super) fn placement_moved(
        &mut self,
        uid: ProjectUid,
        agent: AgentUid,
        old: Option<&PlacementRecord>,
        new: Option<&PlacementRecord>,
    ) {
        let key = |one: &PlacementRecord| {
            (agent, one.destination.root().to_owned(), one.destination.path().to_owned(), uid)
        };
        if let Some(old) = old {
            self.trees.remove(&key(old));
        }
        if let Some(new) = new {
            self.trees.insert(key(new));
            self.trash.touch(agent);
        }
        self.reindex_home(uid, agent);
        if old.is_some() {
            // What it was in the way of may have room now.
            let on_agent =
                self.homes_blocked_on.range((agent, ProjectUid(0))..=(agent, ProjectUid(u64::MAX)));
            let of_project = self.homes_blocked.range((uid, AgentUid(0))..=(uid, AgentUid(u64::MAX)));
            let pairs: Vec<(ProjectUid, AgentUid)> =
                on_agent.map(|(agent, project)| (*project, *agent)).chain(of_project.copied()).collect();
            for (project, agent) in pairs {
                self.reindex_home(project, agent);
            }
        }
    }
}
