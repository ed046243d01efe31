//! A machine: its agent as a pure state machine that keeps the agent's contract, its pulls, and its trees.
//!
//! The contract: the journal is synced before anything is said; one attempt at a time on a destination; what
//! was accepted is held, through restarts, until its outcome is acknowledged; a hello names all that is held;
//! terms lower than the highest seen are refused; a `Cancel` of what is not held is answered with an end.

mod alone;
mod pulls;
mod serving;
mod trash;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fleet::{
    agent::{AgentFacts, Root},
    id::{AgentUid, AttemptId, Epoch, Name, ProjectUid, RunId},
    input::{AgentInput, Held, Message, NotTaken, Offer},
    marker::MarkerCheck,
    outcome::{ExitClass, Outcome},
    project::Destination,
    standing::{AutonomousFire, StandingOrder},
    time::Wall,
};

use self::serving::Daemon;
use crate::{
    net::{Packet, StreamId},
    planted::Planted,
    world::{Event, World},
};

/// One attempt under one epoch.
pub(crate) type Work = (AttemptId, Epoch);

/// What an agent says of a `Cancel` for something it does not hold.
pub(crate) const NOT_HELD: &str = "not held";
/// Reports that may be said once more.
const SAID_MAX: usize = 24;

/// What is really in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Content {
    /// Nothing whole.
    #[default]
    Nothing,
    /// This version.
    Tree(RunId),
    /// Pulled while its source changed, or not to its end.
    Mixed,
    /// Pulled from an agent that changed its tree alone: nobody could know yet. What that agent then tells is pulled.
    Alone,
}

/// A directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    pub(crate) content: Content,
    /// Grows whenever a pull into it begins or ends.
    stamp: u64,
    /// The stamp when its agent last wrote it alone.
    alone: u64,
    /// It was pulled from an agent that changed its tree alone.
    unknown: bool,
    /// Its marker, ms since 1970; `None`: there is none.
    marker: Option<i64>,
    writers: u32,
}

impl Tree {
    pub(crate) fn is_written(&self) -> bool {
        self.writers > 0
    }
}

/// A pull that goes on, whether or not the agent program does.
#[derive(Debug, Clone)]
struct Pull {
    id: u64,
    work: Work,
    /// It copies from another agent, not from an upstream.
    copies: bool,
    /// It moves a tree: from where, and what was there at the start.
    moves: Option<(Destination, Tree)>,
    /// What it has made is not what it was made from.
    damaged: bool,
    tree: RunId,
    destination: Destination,
    /// Of a replica: where from, and what was there at the start.
    source: Option<(usize, Destination, Tree)>,
    class: ExitClass,
    /// Its upstream host cannot be reached.
    unreached: bool,
    killed: bool,
    stages_left: u32,
    dry_run: bool,
    passes_partial: bool,
    /// What is to be done about the marker, and what was seen of it at the upstream.
    marker: Option<(MarkerCheck, Option<i64>)>,
    upstream: String,
    /// The disk was replaced under it.
    lost: bool,
    /// It waits for the agent to give it its secrets again.
    parked: bool,
}

/// What the journal knows of an attempt.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its place in the order in which the machine took what it holds.
    taken: u64,
    offer: Box<Offer>,
    spec_hash: String,
    accepted_synced: bool,
    ended: Option<Outcome>,
    ended_synced: bool,
    has_secrets: bool,
    cancelled: bool,
    /// The fire, where the agent began it by itself.
    alone: Option<AutonomousFire>,
}

/// A machine and the agent on it.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: Name,
    pub(crate) uid: Option<AgentUid>,
    pub(crate) retired: bool,
    pub(crate) up: bool,
    boot: u64,
    pub(crate) state_id: String,
    highest_term: u64,
    journal: BTreeMap<Work, Entry>,
    /// Outcomes that the supervisor left in the run directory.
    exits: BTreeMap<Work, Outcome>,
    pulls: Vec<Pull>,
    pub(crate) trees: BTreeMap<Destination, Tree>,
    pub(crate) daemon: Daemon,
    /// Trees of deleted projects, by the orders that they are there by.
    trash: BTreeSet<(ProjectUid, Wall)>,
    /// The exports that are in place, by their message.
    serial: u64,
    /// A daemon of the administrator's own serves the second root.
    pub(crate) external: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) stream: Option<StreamId>,
    pub(crate) welcomed: bool,
    pub(crate) blocked: [bool; 2],
    pub(crate) clock_shift: i64,
    pub(crate) roots: Vec<&'static str>,
    /// Volumes that are full down to their reserve.
    pub(crate) full: BTreeSet<&'static str>,
    pub(crate) slots: u32,
    pub(crate) serves: bool,
    said: VecDeque<AgentInput>,
    /// What it does by itself.
    orders: BTreeMap<ProjectUid, StandingOrder>,
    /// When a coordinator last stood by them.
    pub(crate) confirmed: u64,
    /// Counts the times it was left alone.
    gone: u64,
}

impl Host {
    pub(crate) fn new(name: Name, state_id: String) -> Self {
        Self {
            name,
            uid: None,
            retired: false,
            up: true,
            boot: 1,
            state_id,
            highest_term: 0,
            journal: BTreeMap::new(),
            exits: BTreeMap::new(),
            pulls: Vec::new(),
            trees: BTreeMap::new(),
            daemon: Daemon::default(),
            trash: BTreeSet::new(),
            serial: 0,
            external: false,
            labels: BTreeMap::new(),
            stream: None,
            welcomed: false,
            blocked: [false; 2],
            clock_shift: 0,
            roots: vec!["a1", "a2"],
            full: BTreeSet::new(),
            slots: 0,
            serves: true,
            said: VecDeque::new(),
            orders: BTreeMap::new(),
            confirmed: 0,
            gone: 0,
        }
    }

    /// Whether the agent holds this, going or ended.
    pub(crate) fn holds(&self, work: Work) -> bool {
        self.journal.contains_key(&work)
    }

    fn roots(&self) -> Vec<Root> {
        let root = |name: &&str| Root {
            name: (*name).to_owned(),
            path: format!("/data/{name}"),
            total_bytes: 1 << 40,
            free_bytes: if self.full.contains(name) { 1 << 30 } else { 1 << 39 },
            total_inodes: 0,
            free_inodes: 0,
        };
        self.roots.iter().map(root).collect()
    }

    fn busy(&self, offer: &Offer) -> Option<Work> {
        let held = self.journal.iter().filter(|(_, entry)| entry.ended.is_none());
        let held = held.flat_map(|(work, entry)| places(&entry.offer).map(|place| (*work, place)));
        let pulled = self.pulls.iter().flat_map(|pull| {
            let from = pull.moves.iter().map(|(from, _)| from);
            from.chain([&pull.destination]).map(|place| (pull.work, place))
        });
        let wanted = |other: &Destination| places(offer).any(|place| other.overlaps(place));
        held.chain(pulled).find(|(_, other)| wanted(other)).map(|(work, _)| work)
    }
}

/// Where an attempt writes, and what it needs to stay as it is.
fn places(offer: &Offer) -> impl Iterator<Item = &Destination> {
    offer.move_from.iter().chain([&offer.destination])
}

/// As a hello describes it.
fn held(work: Work, entry: &Entry) -> Held {
    Held {
        attempt: work.0,
        epoch: work.1,
        project: entry.offer.project,
        role: entry.offer.role,
        destination: entry.offer.destination.clone(),
        spec_hash: entry.spec_hash.clone(),
        ended: entry.ended.is_some(),
        needs_secrets: entry.ended.is_none(),
        dry_run: entry.offer.dry_run,
        keep_extra: entry.offer.keep_extra,
        recorded: false,
        autonomous: entry.alone,
    }
}

impl World {
    pub(crate) fn dial_soon(&mut self, host: usize) {
        let longest = *self.rng.pick(&[20, 300, 5_000]).expect("not empty");
        let delay = self.rng.between(0, longest);
        let boot = self.hosts[host].boot;
        self.after(delay, Event::Dial(host, boot));
    }

    pub(crate) fn dial(&mut self, host: usize, boot: u64) {
        let one = &self.hosts[host];
        if !one.up || one.boot != boot || one.stream.is_some() || one.retired {
            return;
        }
        let Some(agent) = one.uid else { return };
        // An agent dials until it gets through; only the dial that does is simulated.
        let Some(stream) = self.connect(host) else { return };
        self.flush_journal(host);
        let one = &mut self.hosts[host];
        one.stream = Some(stream);
        one.welcomed = false;
        let held = one.journal.iter().map(|(work, entry)| held(*work, entry));
        let serve_uri = if one.serves { format!("rsync://h{host}") } else { String::new() };
        one.serial = 0;
        let external = one.external.then(|| ("a2".to_owned(), format!("rsync://h{host}/ext")));
        let external_roots = external.into_iter().collect();
        let hello = AgentInput::Hello {
            agent,
            state_id: one.state_id.clone(),
            highest_term: one.highest_term,
            // Numbered by the coordinator as it accepts the connection.
            connection: 0,
            facts: AgentFacts {
                instance_id: format!("i{host}-{}", one.boot),
                slots: one.slots,
                roots: one.roots(),
                serve_uri,
                external_roots,
                trash: Some(one.trash_report()),
                ..AgentFacts::default()
            },
            attempts: held.collect(),
        };
        self.transmit(stream, Packet::Up(hello));
    }

    pub(crate) fn report(&mut self, host: usize, input: AgentInput) {
        let one = &mut self.hosts[host];
        let Some(stream) = one.stream.filter(|_| one.welcomed) else { return };
        one.said.push_back(input.clone());
        if one.said.len() > SAID_MAX {
            one.said.pop_front();
        }
        self.transmit(stream, Packet::Up(input));
    }

    /// Says an old report once more, as an agent does that does not know whether it arrived.
    pub(crate) fn replay(&mut self, host: usize) -> bool {
        let one = &self.hosts[host];
        let Some(stream) = one.stream.filter(|_| one.welcomed) else { return false };
        if one.said.is_empty() {
            return false;
        }
        let input = one.said[self.rng.index(self.hosts[host].said.len())].clone();
        self.transmit(stream, Packet::Up(input));
        true
    }

    pub(crate) fn inventory(&mut self, host: usize) {
        self.serve_again(host);
        let one = &self.hosts[host];
        let session = one.stream.and_then(|id| self.streams.get(&id)).and_then(|stream| stream.session);
        if let (Some(agent), Some(session)) = (one.uid, session) {
            let roots = one.roots();
            self.report(host, AgentInput::Inventory { agent, session, roots });
        }
    }

    pub(crate) fn hear(&mut self, host: usize, stream: StreamId, message: Message) {
        if !self.hosts[host].up || self.hosts[host].stream != Some(stream) {
            return;
        }
        match message {
            Message::Welcome { term, .. } => {
                let one = &mut self.hosts[host];
                if term < one.highest_term {
                    return self
                        .fail(format!("host {host} was welcomed under term {term}, below one it knows"));
                }
                one.highest_term = term;
                one.welcomed = true;
                let ended = one.journal.iter().filter(|(_, entry)| entry.ended_synced);
                let mut ended: Vec<(u64, Work)> = ended.map(|(work, entry)| (entry.taken, *work)).collect();
                // What is written to one tree is told in the order in which it was written.
                ended.sort_unstable();
                for (_, work) in ended {
                    self.say_ended(host, work);
                }
            }
            Message::Offer(offer) => self.hear_offer(host, offer),
            Message::Continue { attempt, epoch, .. } => self.hear_continue(host, (attempt, epoch)),
            Message::Cancel { attempt, epoch, .. } => self.hear_cancel(host, (attempt, epoch)),
            Message::Acknowledge { attempt, epoch, .. } => {
                let journal = &mut self.hosts[host].journal;
                if journal.get(&(attempt, epoch)).is_some_and(|entry| entry.ended.is_some()) {
                    journal.remove(&(attempt, epoch));
                }
            }
            Message::Exports { serial, complete, exports, withdrawn } => {
                self.hear_exports(host, stream, serial, complete, (exports, withdrawn));
            }
            Message::Autonomy { complete, orders, withdrawn, .. } => {
                self.hear_autonomy(host, complete, orders, &withdrawn);
            }
            Message::Trash(order) => self.hear_trash(host, stream, order),
            Message::Close(_) => self.agent_closes(stream),
        }
    }

    fn hear_offer(&mut self, host: usize, offer: Box<Offer>) {
        let work = (offer.attempt, offer.epoch);
        self.check_offer_heard(work);
        let Some(agent) = self.hosts[host].uid else { return };
        let refused = |why| AgentInput::Refused {
            agent,
            attempt: work.0,
            epoch: work.1,
            why,
            detail: "refused".to_owned(),
        };
        if work.1.term < self.hosts[host].highest_term {
            return self.fail(format!("an offer under the old term {} reached host {host}", work.1));
        }
        if let Some(other) = self.hosts[host].busy(&offer) {
            self.check_double(host, work, other);
            return self.report(host, refused(NotTaken::Busy));
        }
        if !self.calm && self.rng.chance(self.config.refusals) {
            let ways = [NotTaken::Forbidden, NotTaken::Busy, NotTaken::Stopping];
            let why = ways[self.rng.index(ways.len())];
            let (delay, boot) = (self.rng.between(0, self.config.fsync), self.hosts[host].boot);
            self.cancel_meanwhile(offer.project, work.0.run, delay, true);
            return self.after(delay, Event::Refuses(host, boot, refused(why)));
        }
        let taken = self.next_id();
        let entry = Entry {
            taken,
            spec_hash: offer.spec_hash(),
            offer,
            accepted_synced: false,
            ended: None,
            ended_synced: false,
            has_secrets: true,
            cancelled: false,
            alone: None,
        };
        self.hosts[host].journal.insert(work, entry);
        let delay = self.rng.between(0, self.config.fsync);
        let boot = self.hosts[host].boot;
        self.after(delay, Event::Synced(host, boot, work));
    }

    /// A refusal takes its time too; it is nowhere written down.
    pub(crate) fn refuses(&mut self, host: usize, boot: u64, input: AgentInput) {
        if self.hosts[host].up && self.hosts[host].boot == boot {
            self.report(host, input);
        }
    }

    fn hear_continue(&mut self, host: usize, work: Work) {
        let one = &mut self.hosts[host];
        if let Some(entry) = one.journal.get_mut(&work) {
            entry.has_secrets = true;
        }
        if let Some(pull) = one.pulls.iter_mut().find(|pull| pull.work == work && pull.parked) {
            pull.parked = false;
            let id = pull.id;
            let span = self.rng.span(self.config.pull);
            self.after(span, Event::Pulled(host, id));
        }
    }

    fn hear_cancel(&mut self, host: usize, work: Work) {
        let delay = self.rng.between(0, self.config.kill);
        let too_late = self.rng.chance(500);
        let one = &mut self.hosts[host];
        match one.journal.get_mut(&work) {
            Some(entry) => entry.cancelled = true,
            None => {
                let Some(agent) = one.uid else { return };
                let outcome =
                    Outcome { cause: NOT_HELD.to_owned(), ..Outcome::of_class(ExitClass::Cancelled) };
                let ended = AgentInput::Ended { agent, attempt: work.0, epoch: work.1, outcome };
                return self.report(host, ended);
            }
        }
        if let Some(pull) = one.pulls.iter_mut().find(|pull| pull.work == work && !pull.killed) {
            pull.killed = pull.parked || !too_late;
            let id = pull.id;
            self.after(delay, Event::Pulled(host, id));
        }
    }

    /// A write to the journal is on disk.
    pub(crate) fn synced(&mut self, host: usize, boot: u64, work: Work) {
        if self.hosts[host].boot != boot || !self.hosts[host].up {
            return;
        }
        let Some(entry) = self.hosts[host].journal.get_mut(&work) else { return };
        if !entry.accepted_synced {
            entry.accepted_synced = true;
            self.begin_pull(host, work);
            self.meddle_soon(host, work);
            let alone = work.1.is_autonomous();
            if let Some(agent) = self.hosts[host].uid.filter(|_| !alone) {
                self.report(host, AgentInput::Accepted { agent, attempt: work.0, epoch: work.1 });
            }
        } else if entry.ended.is_some() && !entry.ended_synced {
            entry.ended_synced = true;
            self.check_outcome_kept(host, work);
            self.say_ended(host, work);
            if self.planted == Some(Planted::AgentForgetsUnacknowledged) {
                self.hosts[host].journal.remove(&work);
            }
        }
    }

    fn meddle_soon(&mut self, host: usize, work: Work) {
        let project = self.offer_of(host, work).map(|offer| offer.project);
        let agent = self.hosts[host].uid;
        if let (Some(project), Some(agent), true) =
            (project, agent, self.rng.chance(self.config.meddling / 3))
        {
            let delay = self.rng.span(self.config.pull / 2);
            self.after(delay, Event::Meddles(project, agent));
        }
    }

    /// Before a hello everything that waits for the disk is synced: the hello must be complete.
    fn flush_journal(&mut self, host: usize) {
        let boot = self.hosts[host].boot;
        let unsynced: Vec<Work> = self.hosts[host]
            .journal
            .iter()
            .filter(|(_, entry)| !entry.accepted_synced || (entry.ended.is_some() && !entry.ended_synced))
            .map(|(work, _)| *work)
            .collect();
        for work in unsynced {
            self.synced(host, boot, work);
        }
    }

    fn say_ended(&mut self, host: usize, work: Work) {
        let one = &self.hosts[host];
        let entry = one.journal.get(&work);
        let outcome = entry.and_then(|entry| entry.ended.clone());
        if let (Some(agent), Some(entry), Some(outcome)) = (one.uid, entry, outcome) {
            let report = if entry.alone.is_some() {
                AgentInput::EndedAlone { agent, held: Box::new(held(work, entry)), outcome }
            } else {
                AgentInput::Ended { agent, attempt: work.0, epoch: work.1, outcome }
            };
            self.report(host, report);
        }
    }

    pub(crate) fn offer_of(&self, host: usize, work: Work) -> Option<&Offer> {
        self.hosts[host].journal.get(&work).map(|entry| &*entry.offer)
    }

    /// Whether this is being ended on its host.
    pub(crate) fn is_cancelled(&self, host: usize, work: Work) -> bool {
        self.hosts[host].journal.get(&work).is_some_and(|entry| entry.cancelled)
    }

    pub(crate) fn outcome_of(&self, host: usize, work: Work) -> Option<&Outcome> {
        self.hosts[host].journal.get(&work).and_then(|entry| entry.ended.as_ref())
    }
}
