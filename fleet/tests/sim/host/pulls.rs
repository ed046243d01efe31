//! Pulls, and the agent program and its machine as they end and begin again.

use fleet::{
    attempt::Role,
    id::{AgentUid, ProjectUid, RunId},
    input::Offer,
    marker::MarkerSeen,
    outcome::{Evidence, ExitClass, GuardKind, Outcome, Stats},
    project::Destination,
    time::Wall,
};

use super::{Content, Pull, Work};
use crate::{
    cover::Fault,
    newness::Met,
    people::wishes::passes_partial,
    planted::Planted,
    world::{Event, World},
};

/// The guards that agents have of their own.
const GUARDS: [GuardKind; 4] =
    [GuardKind::EmptyUpstream, GuardKind::SentinelMissing, GuardKind::Adoption, GuardKind::Quota];
/// Copies of trees that move which are damaged, in a thousand.
const DAMAGED: u64 = 350;
/// Most files of a simulated tree.
const FILES_MAX: u64 = 50_000;

/// Whether what was pulled is a whole tree to this project.
fn passes(pull: &Pull, class: ExitClass) -> bool {
    class == ExitClass::Ok || (class == ExitClass::Partial && pull.passes_partial)
}

/// Whether a pull that ended so has left what was there as it was.
fn left_alone(outcome: &Outcome, unreached: bool) -> bool {
    use ExitClass as C;
    let kind = outcome.evidence.as_ref().map(|evidence| evidence.kind);
    match outcome.class {
        C::Busy | C::Auth | C::NotFound | C::Refused | C::Config | C::UpstreamBehind => true,
        C::Guard => kind != Some(GuardKind::Quota),
        C::Network => unreached,
        _ => false,
    }
}

/// The host in an offer's source.
fn upstream_of(offer: &Offer) -> Option<&str> {
    offer.source_uri.strip_prefix("rsync://").and_then(|rest| rest.split('/').next())
}

/// What rsync exits with when it cannot connect.
const EXIT_SOCKET: i32 = 10;
/// Any other exit: which one is of no interest here.
const EXIT_OTHER: i32 = 12;

/// The agent program and its machine, as they end and begin again; and pulls.
impl World {
    pub(super) fn begin_pull(&mut self, host: usize, work: Work) {
        let Some(entry) = self.hosts[host].journal.get(&work) else { return };
        let (offer, cancelled) = (entry.offer.clone(), entry.cancelled);
        self.check_one_writer(host, work, &offer.destination);
        let drawn = self.draw_class(&offer);
        let unreached = self.is_down(&offer);
        let class = match (cancelled, unreached) {
            (true, _) => ExitClass::Cancelled,
            (false, true) => ExitClass::Network,
            (false, false) => drawn,
        };
        let moves = offer.move_from.as_ref().map(|from| {
            let there = self.hosts[host].trees.get(from).cloned().unwrap_or_default();
            (from.clone(), there)
        });
        let copies = moves.is_none() && (offer.role == Role::Replica || offer.keep_extra);
        let source = if copies { self.find_source(&offer) } else { None };
        let unreachable = copies && source.is_none();
        let fetched = matches!(class, ExitClass::Ok | ExitClass::Partial);
        let class = if unreachable && fetched { ExitClass::Network } else { class };
        let damaged = moves.is_some() && class == ExitClass::Ok && self.rng.chance(DAMAGED);
        // The comparison finds it.
        let proven = self.planted != Some(Planted::MoveUnproven);
        let class = if damaged && proven { ExitClass::LocalIo } else { class };
        if damaged {
            self.cover.fault(Fault::MoveDamaged);
        }
        let seen = if cancelled || unreached { None } else { self.look_at_marker(host, &offer) };
        let (class, marker) = match seen {
            Some((behind, seen)) => (if behind { ExitClass::UpstreamBehind } else { class }, Some(seen)),
            None => (class, None),
        };
        let id = self.next_id();
        let pull = Pull {
            id,
            upstream: upstream_of(&offer).unwrap_or_default().to_owned(),
            marker: offer.marker.clone().zip(marker),
            work,
            copies,
            moves,
            damaged,
            tree: offer.tree,
            destination: offer.destination.clone(),
            source,
            class,
            unreached,
            killed: cancelled,
            stages_left: u32::from(!unreached && self.rng.chance(300)),
            parked: false,
            lost: false,
            dry_run: offer.dry_run,
            passes_partial: offer.move_from.is_none() && passes_partial(&offer.project_name),
        };
        if !pull.dry_run {
            let tree = self.hosts[host].trees.entry(offer.destination.clone()).or_default();
            tree.stamp += 1;
            tree.alone = if work.1.is_autonomous() { tree.stamp } else { tree.alone };
            tree.writers += 1;
        }
        self.hosts[host].pulls.push(pull);
        let span = if cancelled { 0 } else { self.rng.span(self.config.pull) };
        self.after(span, Event::Pulled(host, id));
    }

    fn draw_class(&mut self, offer: &Offer) -> ExitClass {
        if self.calm || self.rng.chance(self.config.pulls_ok) {
            return ExitClass::Ok;
        }
        use ExitClass as C;
        if offer.move_from.is_some() {
            return *self.rng.pick(&[C::LocalIo, C::DiskFull, C::Stalled, C::Internal]).expect("not empty");
        }
        let classes = [
            C::Network,
            C::Network,
            C::Network,
            C::Timeout,
            C::Stalled,
            C::Partial,
            C::Partial,
            C::MaxDelete,
            C::MaxDelete,
            C::MaxDelete,
            C::MaxDelete,
            C::MaxDelete,
            C::MaxDelete,
            C::MaxDelete,
            C::MaxDelete,
            C::MaxDelete,
            C::MaxDelete,
            C::MaxDelete,
            C::Guard,
            C::Guard,
            C::Guard,
            C::Guard,
            C::Guard,
            C::Guard,
            C::Busy,
            C::Busy,
            C::Auth,
            C::NotFound,
            C::Refused,
            C::DiskFull,
            C::LocalIo,
            C::Internal,
            C::WallClock,
            C::Protocol,
            C::Config,
        ];
        let class = *self.rng.pick(&classes).expect("not empty");
        // A guard of the agent that a person told it to pass over finds nothing.
        if class == C::Guard && GUARDS.iter().any(|kind| offer.waived.contains(kind)) { C::Ok } else { class }
    }

    /// The marker at the upstream of an origin's pull, and whether nothing is pulled for it. `None`: there is none to
    /// look at.
    fn look_at_marker(&mut self, host: usize, offer: &Offer) -> Option<(bool, Option<i64>)> {
        let check = offer.marker.as_ref()?;
        if check.required {
            self.cover.marker(Met::FellBack);
        }
        let wall = self.wall_ms();
        let seen = self.newness.look(upstream_of(offer)?, wall);
        let own = self.hosts[host].trees.get(&offer.destination).and_then(|tree| tree.marker);
        let floor = own.max(check.not_before.map(|time| time.0));
        let waived = offer.waived.contains(&GuardKind::UpstreamBehind);
        let behind = match seen {
            None => check.required,
            Some(_) if self.planted == Some(Planted::OlderTaken) => false,
            Some(seen) => !waived && floor.is_some_and(|floor| seen < floor),
        };
        if seen.is_none() {
            self.cover.marker(Met::Gone);
        } else if behind {
            self.cover.marker(Met::Behind);
        }
        Some((behind, seen))
    }

    /// The true time.
    fn wall_ms(&self) -> i64 {
        self.config.wall_start + i64::try_from(self.time).expect("a simulation is short")
    }

    /// The marker of what was pulled, and what the agent tells of it. What an upstream serves may have changed since the
    /// look.
    fn pulled_marker(
        &mut self,
        pull: &Pull,
        class: ExitClass,
        own: Option<i64>,
    ) -> (Option<i64>, Option<MarkerSeen>) {
        let moved = pull.moves.as_ref().map(|(_, before)| before);
        let source = pull.source.as_ref().map(|(.., before)| before).or(moved);
        let Some((check, upstream)) = &pull.marker else {
            return (source.and_then(|before| before.marker), None);
        };
        let whole = passes(pull, class) && !pull.dry_run;
        let wall = self.wall_ms();
        let tree = if whole { self.newness.look(&pull.upstream, wall) } else { None };
        let floor = own.max(check.not_before.map(|time| time.0));
        if tree.is_some() && tree < floor {
            self.cover.marker(Met::Rotated);
        }
        let lies = self.planted == Some(Planted::OlderTaken);
        let told = |real: Option<i64>| if lies { real.max(floor) } else { real }.map(Wall);
        let (marker, note) = (check.marker.clone(), String::new());
        let seen = MarkerSeen { marker, upstream: told(*upstream), tree: told(tree), note };
        (tree, Some(seen))
    }

    /// Whether the upstream host of an origin's pull cannot be reached now.
    fn is_down(&self, offer: &Offer) -> bool {
        let host = upstream_of(offer);
        offer.role == Role::Origin && !offer.keep_extra && host.is_some_and(|host| self.down.contains(host))
    }

    /// People put a tree on their origin, and the run's version is what is there.
    pub(crate) fn upload(&mut self, agent: AgentUid, destination: &Destination, tree: RunId) {
        let Some(host) = self.host_of(agent) else { return };
        let directory = self.hosts[host].trees.entry(destination.clone()).or_default();
        directory.stamp += 1;
        directory.content = Content::Tree(tree);
        directory.marker = None;
    }

    /// The disk under a tree is another one.
    pub(crate) fn wipe(&mut self, agent: AgentUid, destination: &Destination) {
        let Some(host) = self.host_of(agent) else { return };
        let directory = self.hosts[host].trees.entry(destination.clone()).or_default();
        directory.stamp += 1;
        directory.content = Content::Nothing;
        directory.marker = None;
        let one = &mut self.hosts[host];
        one.pulls
            .iter_mut()
            .filter(|pull| pull.destination == *destination)
            .for_each(|pull| pull.lost = true);
        // What its agent has not told yet is not there any more either.
        for (work, _) in one.journal.iter().filter(|(_, entry)| entry.offer.destination == *destination) {
            if let Some((_, really)) = self.checks.pulled.get_mut(work) {
                *really = Content::Mixed;
            }
        }
    }

    /// A stage of a pull has come to its end, or its kill has worked.
    pub(crate) fn pulled(&mut self, host: usize, id: u64) {
        let one = &mut self.hosts[host];
        let Some(index) = one.pulls.iter().position(|pull| pull.id == id) else { return };
        let entry = one.journal.get(&one.pulls[index].work);
        let has_secrets = entry.is_some_and(|entry| entry.has_secrets);
        let reseeds = entry.is_some_and(|entry| entry.offer.keep_extra);
        let goes_on = entry.is_some_and(|entry| !entry.cancelled);
        let pull = &mut one.pulls[index];
        if pull.parked && !pull.killed {
            return;
        }
        if pull.stages_left > 0 && !pull.killed && goes_on {
            pull.stages_left -= 1;
            if one.up && has_secrets {
                let span = self.rng.span(self.config.pull);
                self.after(span, Event::Pulled(host, id));
            } else {
                pull.parked = true;
            }
            return;
        }
        let pull = one.pulls.remove(index);
        let known = one.journal.get(&pull.work).map_or(0, |entry| entry.offer.known_files);
        let class = if pull.killed { ExitClass::Cancelled } else { pull.class };
        let content = self.pulled_content(&pull, class);
        self.check_moved(host, &pull, class);
        let unreached = pull.unreached && class == ExitClass::Network;
        if unreached {
            self.checks.unreached.insert(pull.work);
        }
        let unknown = pull.source.as_ref().is_some_and(|(source, module, before)| {
            let now = self.hosts[*source].trees.get(module);
            // A lost tree is copied from whoever has it, be it that nobody knows what that one has.
            let unknown = reseeds && before.unknown;
            unknown || now.is_some_and(|now| now.alone > 0 && now.alone >= before.stamp)
        });
        let code = if unreached { EXIT_SOCKET } else { EXIT_OTHER };
        let own = self.hosts[host].trees.get(&pull.destination).and_then(|tree| tree.marker);
        let (marker, seen) = self.pulled_marker(&pull, class, own);
        if seen.is_some() && passes(&pull, class) {
            self.checks.markers.insert(pull.tree, marker);
        }
        let outcome =
            Outcome { exit_code: Some(code), marker: seen.map(Box::new), ..self.outcome(host, class, known) };
        let really = if unknown { Content::Alone } else { content };
        if !pull.dry_run {
            let tree = self.hosts[host].trees.entry(pull.destination.clone()).or_default();
            tree.stamp += 1;
            tree.alone = if pull.work.1.is_autonomous() { tree.stamp } else { tree.alone };
            tree.writers -= 1;
            if passes(&pull, class) {
                tree.content = content;
                tree.unknown = unknown;
                tree.marker = marker;
            } else if !left_alone(&outcome, unreached) {
                tree.content = Content::Mixed;
            }
        }
        self.checks.pulled.insert(pull.work, (class, really));
        self.hosts[host].exits.insert(pull.work, outcome);
        if self.hosts[host].up {
            self.collect_exit(host, pull.work);
        }
    }

    fn pulled_content(&self, pull: &Pull, class: ExitClass) -> Content {
        if let Some((_, before)) = &pull.moves {
            let damaged = class != ExitClass::Ok || pull.damaged;
            return if damaged { Content::Mixed } else { before.content };
        }
        match (&pull.source, pull.copies) {
            _ if !passes(pull, class) => Content::Nothing,
            _ if pull.lost => Content::Mixed,
            (_, false) => Content::Tree(pull.tree),
            (Some((host, module, before)), true) => {
                let now = self.hosts[*host].trees.get(module);
                let same = now.is_some_and(|now| now.stamp == before.stamp) && before.writers == 0;
                if same { before.content } else { Content::Mixed }
            }
            (None, true) => Content::Nothing,
        }
    }

    /// A tree that moves does not change meanwhile, and a damaged copy is remembered as such.
    fn check_moved(&mut self, host: usize, pull: &Pull, class: ExitClass) {
        let Some((from, before)) = &pull.moves else { return };
        if pull.damaged {
            self.checks.damaged.insert(pull.work);
        }
        let now = self.hosts[host].trees.get(from).map_or(0, |tree| tree.stamp);
        // Where the project is gone the move is to end, and the place is free for others.
        let store = &self.coordinator.store;
        let wanted = store
            .live_attempts(self.offer_of(host, pull.work).map_or(ProjectUid(0), |offer| offer.project))
            .any(|one| one.id == pull.work.0 && one.state.epoch() == Some(pull.work.1));
        if wanted && class == ExitClass::Ok && (now != before.stamp || before.writers > 0) {
            self.fail(format!("the tree at {from} on host {host} changed while it moved: {:?}", pull.work.0));
        }
    }

    /// What the agent says; `known` is how many files the tree had after its last success.
    fn outcome(&mut self, host: usize, class: ExitClass, known: u64) -> Outcome {
        let wall = self.config.wall_start + i64::try_from(self.time).expect("a simulation is short");
        let files = match known {
            0 => self.rng.between(1, FILES_MAX),
            // Trees change a little each time, and sometimes half of one is gone.
            _ if !self.calm && self.rng.chance(350) => known / 2,
            _ => known + self.rng.below(known / 20 + 2),
        };
        let evidence = match class {
            ExitClass::Guard => {
                let kind = *self.rng.pick(&GUARDS).expect("not empty");
                let names = vec!["dists/stable/Release".to_owned()];
                let wanted = self.rng.between(1, 3);
                Some(Evidence { kind, wanted, allowed: 0, names, sentence: String::new() })
            }
            _ => None,
        };
        if evidence.is_some() {
            self.cover.fault(Fault::GuardStop);
        }
        let behind = class == ExitClass::UpstreamBehind;
        let evidence = evidence.or_else(|| {
            let (kind, names, sentence) = (GuardKind::UpstreamBehind, Vec::new(), "older".to_owned());
            behind.then_some(Evidence { kind, wanted: 1, allowed: 0, names, sentence })
        });
        Outcome {
            time: Wall(wall + self.hosts[host].clock_shift),
            stats: (!behind).then(|| Stats { files, total_bytes: files * 1_000, ..Stats::default() }),
            deletes_skipped: (class == ExitClass::MaxDelete).then(|| self.rng.below(3_000)),
            evidence,
            ..Outcome::of_class(class)
        }
    }

    /// Takes an outcome from the run directory into the journal.
    fn collect_exit(&mut self, host: usize, work: Work) {
        let boot = self.hosts[host].boot;
        let Some(outcome) = self.hosts[host].exits.remove(&work) else { return };
        if let Some(entry) = self.hosts[host].journal.get_mut(&work) {
            let held = matches!(outcome.class, ExitClass::MaxDelete | ExitClass::Guard);
            entry.ended = Some(outcome);
            let project = entry.offer.project;
            let delay = self.rng.between(0, self.config.fsync);
            self.cancel_meanwhile(project, work.0.run, delay, held);
            self.after(delay, Event::Synced(host, boot, work));
        }
    }

    pub(crate) fn agent_crashes(&mut self, host: usize, machine: bool, state_lost: bool) {
        let one = &mut self.hosts[host];
        if !one.up {
            return;
        }
        one.up = false;
        one.boot += 1;
        one.welcomed = false;
        one.daemon = super::Daemon::default();
        // What was not synced is not there any more.
        one.journal.retain(|_, entry| entry.accepted_synced);
        for (work, entry) in &mut one.journal {
            entry.has_secrets = false;
            if entry.ended.is_some() && !entry.ended_synced {
                one.exits.insert(*work, entry.ended.take().expect("just seen"));
            }
        }
        if machine {
            for pull in std::mem::take(&mut one.pulls).into_iter().filter(|pull| !pull.dry_run) {
                let tree = one.trees.entry(pull.destination).or_default();
                tree.stamp += 1;
                tree.alone = if pull.work.1.is_autonomous() { tree.stamp } else { tree.alone };
                tree.writers -= 1;
                tree.content = Content::Mixed;
            }
        }
        if state_lost {
            let alone = one.journal.values().filter(|entry| entry.alone.is_some());
            self.checks.unheard.extend(alone.map(|entry| entry.offer.tree));
            // Nor does it know by itself which fires it has run.
            self.checks.forget_begun_alone(host);
            one.journal.clear();
            one.exits.clear();
            one.said.clear();
            one.orders.clear();
            one.highest_term = 0;
            one.state_id = format!("s{host}-{}", one.boot);
            self.checks.kept.retain(|_, kept| kept.host != host);
        }
        if let Some(stream) = self.hosts[host].stream.take() {
            self.cut(stream, machine);
        }
        let pause = if self.rng.chance(250) {
            self.rng.between(1, 60) * 60_000
        } else {
            self.rng.between(200, 60_000)
        };
        self.after(pause, Event::AgentStarts(host));
    }

    pub(crate) fn agent_starts(&mut self, host: usize) {
        if self.hosts[host].up {
            return;
        }
        self.hosts[host].up = true;
        let works: Vec<Work> = self.hosts[host].journal.keys().copied().collect();
        for work in works {
            let one = &mut self.hosts[host];
            let entry = &one.journal[&work];
            if entry.ended.is_some() {
                continue;
            }
            let going = one.pulls.iter().any(|pull| pull.work == work);
            if !going && !one.exits.contains_key(&work) {
                let outcome = self.outcome(host, ExitClass::Interrupted, 0);
                self.checks.pulled.insert(work, (ExitClass::Interrupted, Content::Nothing));
                self.hosts[host].exits.insert(work, outcome);
            }
            self.collect_exit(host, work);
        }
        self.alone_soon(host);
        self.dial_soon(host);
    }
}
