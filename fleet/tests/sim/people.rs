//! What people and hosts ask of the coordinator, and what they were promised: an answer that was given is
//! remembered here, and must still be true after any crash.

mod operator;
mod plans;
mod pushes;
pub(crate) mod wishes;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleet::{
    agent::TokenNames,
    engine::PUSHED_TOO_OFTEN,
    id::{AgentUid, Name, ProjectUid, RunId},
    input::{AgentInput, Ask, Decision, Input, Person, Push, Reply, RequestKey},
    plan::Act,
    record::{Change, Key, Record},
    refusal::{RefusalCode, Violation},
};

use crate::{
    cover::Fault,
    shell::Tag,
    store::Store,
    world::{Event, World},
};

/// For so long, in ms, a request id is surely remembered: a little less than for what the engine promises.
const FRESH_MS: u64 = 20 * 3_600_000;
/// Request ids that may be used again.
const REQUESTS_MAX: usize = 16;

/// What an answer promised: marks that only grow, and what is gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Promise {
    marks: Vec<(Key, u64)>,
    frozen: Option<bool>,
}

impl Promise {
    pub(crate) fn of(decision: &Decision) -> Self {
        let mut promise = Self::default();
        for change in &decision.changes {
            if let Change::Put(record) = change {
                promise.marks.extend(mark(record).map(|mark| (record.key(), mark)));
            }
        }
        if let Reply::Frozen(freeze) = &decision.reply {
            promise.frozen = Some(freeze.is_some());
        }
        promise
    }
}

/// A number that only grows while the record lives; `None`: such records may go at any time.
fn mark(record: &Record) -> Option<u64> {
    match record {
        Record::Project(project) => Some(project.revision),
        Record::ProjectState(state) => Some(state.wanted),
        Record::Agent(agent) => Some(agent.revision),
        Record::Run(run) => Some(run.coalesced),
        Record::PushToken(_) => Some(0),
        Record::Fleet(_)
        | Record::Attempt(_)
        | Record::Placement(_)
        | Record::JoinToken(_)
        | Record::User(_)
        | Record::UserToken(_)
        | Record::Request(_)
        | Record::Upstream(_)
        | Record::PlanStep(_)
        | Record::LeftOut(_)
        | Record::Trash(_) => None,
    }
}

/// A request id that was used, and what was answered.
#[derive(Debug, Clone)]
struct Used {
    ask: Ask,
    answer: Option<Reply>,
    at: u64,
}

/// A push token that somebody wanted.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) project: ProjectUid,
    /// It may go at any time: its deletion was asked for, or it expires.
    pub(crate) doomed: bool,
}

/// Something asked and not answered yet.
#[derive(Debug, Clone)]
struct Deed {
    ask: Ask,
    request: Option<String>,
}

/// The people's memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct People {
    deeds: BTreeMap<u64, Deed>,
    used: BTreeMap<String, Used>,
    promised: BTreeMap<Key, u64>,
    /// Projects whose deletion was asked for: whether they are still there is not known.
    doomed: BTreeSet<ProjectUid>,
    /// The same of agents whose hosts never came.
    doomed_agents: BTreeSet<AgentUid>,
    /// Every push token that was ever wanted.
    pub(crate) push_tokens: BTreeMap<String, Token>,
    /// Plans that somebody was told of.
    pub(crate) plans: BTreeSet<u64>,
    frozen: Option<bool>,
    next: u64,
    /// The calm end: a last run of each project was asked for.
    last_runs: BTreeMap<ProjectUid, RunId>,
    last_asked: bool,
    /// Everything has come to rest.
    pub(crate) settled: bool,
}

impl People {
    /// What was promised must be on disk, whatever happened.
    pub(crate) fn check_promises(&self, store: &Store) -> Result<(), String> {
        for (key, promised) in &self.promised {
            let doomed = match key {
                Key::Project(uid) | Key::ProjectState(uid) => self.doomed.contains(uid),
                Key::Agent(uid) => self.doomed_agents.contains(uid),
                Key::PushToken(id) => self
                    .push_tokens
                    .get(id)
                    .is_some_and(|token| token.doomed || self.doomed.contains(&token.project)),
                _ => false,
            };
            let found = store.live.get(key).or_else(|| store.history.get(key)).and_then(mark);
            if found.is_none_or(|found| found < *promised) && !doomed {
                return Err(format!("{key:?} was promised at {promised}, and the disk has {found:?}"));
            }
        }
        let frozen = store
            .live
            .get(&Key::Fleet)
            .is_some_and(|record| matches!(record, Record::Fleet(fleet) if fleet.frozen.is_some()));
        match self.frozen {
            Some(promised) if promised != frozen => {
                Err(format!("frozen was promised to be {promised} and is {frozen}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn promise(&mut self, promise: Promise) {
        for (key, mark) in promise.marks {
            let known = self.promised.entry(key).or_default();
            *known = mark.max(*known);
        }
        if promise.frozen.is_some() {
            self.frozen = promise.frozen;
        }
    }

    pub(crate) fn forget_requests(&mut self) {
        self.used.clear();
    }

    /// An older backup is put back: promises made since are void.
    pub(crate) fn put_back(&mut self, old: &Self) {
        self.promised.clone_from(&old.promised);
        self.plans.clone_from(&old.plans);
        self.used.clear();
        self.frozen = None;
        self.last_runs.clear();
    }
}

impl World {
    fn ask(&mut self, mut ask: Ask) {
        let id = self.next_id();
        let mut used = None;
        if let Ask::CreateProject { request, validate_only: false, .. }
        | Ask::CreateAgent { request, validate_only: false, .. }
        | Ask::Run { request, .. }
        | Ask::Push(Push { request, .. }) = &mut ask
            && !self.calm
            && self.rng.chance(600)
        {
            used = Some(request_id(id, request));
        }
        if let Ask::Apply(plan) = &mut ask
            && !self.calm
            && self.rng.chance(600)
        {
            used = Some(request_id(id, &mut plan.request));
        }
        match &ask {
            Ask::CreatePushToken(new) => {
                let token = Token { project: new.project, doomed: new.ttl.is_some() };
                self.people.push_tokens.insert(new.id.clone(), token);
            }
            Ask::DeletePushToken { id } => {
                if let Some(token) = self.people.push_tokens.get_mut(id) {
                    token.doomed = true;
                }
            }
            Ask::DeleteProject { project, .. } => {
                self.people.doomed.insert(*project);
            }
            Ask::DeleteAgent { agent } => {
                self.people.doomed_agents.insert(*agent);
            }
            Ask::Apply(plan) => {
                let gone = plan.acts.iter().filter(|act| matches!(act, Act::Delete { .. }));
                self.people.doomed.extend(gone.map(Act::project));
            }
            Ask::Freeze { .. } | Ask::Thaw => self.people.frozen = None,
            _ => {}
        }
        if let Some(key) = &used {
            if self.people.used.len() >= REQUESTS_MAX {
                self.people.used.pop_first();
            }
            let at = self.time;
            self.people.used.insert(key.clone(), Used { ask: ask.clone(), answer: None, at });
        }
        self.people.deeds.insert(id, Deed { ask: ask.clone(), request: used });
        let person = Person { by: "ada".to_owned(), ask };
        self.submit(Input::Person(person), Tag::Deed(id));
    }

    /// The same request id once more, as after an answer that got lost.
    fn repeat(&mut self) {
        let keys: Vec<String> = self.people.used.keys().cloned().collect();
        let Some(key) = self.rng.pick(&keys).cloned() else { return };
        let used = &self.people.used[&key];
        let ask = used.ask.clone();
        self.cover.fault(Fault::RequestRepeat);
        let id = self.next_id();
        self.people.deeds.insert(id, Deed { ask: ask.clone(), request: Some(key) });
        self.submit(Input::Person(Person { by: "ada".to_owned(), ask }), Tag::Deed(id));
    }

    pub(crate) fn answered(&mut self, tag: Tag, reply: Reply, promise: Promise) {
        self.people.promise(promise);
        match tag {
            Tag::Nothing => {}
            Tag::Hello(stream) => match reply {
                Reply::Session(session) => self.session_began(stream, session),
                Reply::Refused(refusal) => self.hello_refused(stream, refusal.reason),
                other => self.fail(format!("a hello was answered with {other:?}")),
            },
            Tag::Deed(id) => self.deed_answered(id, reply),
            Tag::Token(host, secret) => self.enroll(host, secret),
            Tag::Enroll(host, secret) => match reply {
                Reply::Agent(uid) => {
                    self.hosts[host].uid = Some(uid);
                    self.dial_soon(host);
                    let name = "somebody-else".parse().expect("a good name");
                    let input = self.enrolment(name, BTreeMap::new(), secret);
                    self.submit(input, Tag::SpentToken);
                }
                _ => self.after(20_000, Event::Joins(host)),
            },
            Tag::SpentToken => {
                if !matches!(reply, Reply::Refused(_)) {
                    self.fail("a spent join token was good once more".to_owned());
                }
            }
        }
    }

    fn hello_refused(&mut self, stream: u64, reason: &str) {
        let Some(host) = self.streams.get(&stream).map(|stream| stream.host) else { return };
        let left = self.hosts[host].stream != Some(stream);
        if reason == "SUPERSEDED" || (reason == "UNKNOWN_AGENT" && left) {
            // Of a connection that the host has left long ago.
            return self.coordinator_closes(stream);
        }
        let revoked = reason == "AGENT_REVOKED";
        self.agent_closes(stream);
        if revoked && !self.hosts[host].retired {
            self.retire(host);
        } else if !revoked && reason != "UNKNOWN_AGENT" {
            self.fail(format!("the hello of host {host} was refused: {reason}"));
        } else if !revoked {
            // The store was put back to before this agent joined.
            self.hosts[host].uid = None;
            self.after(1_000, Event::Joins(host));
        }
    }

    /// A revoked machine goes, and another one comes.
    fn retire(&mut self, host: usize) {
        self.hosts[host].retired = true;
        self.checks.kept.retain(|_, kept| kept.host != host);
        self.new_host();
    }

    fn deed_answered(&mut self, id: u64, reply: Reply) {
        let Some(deed) = self.people.deeds.remove(&id) else { return };
        if let Some(used) = deed.request.as_ref().and_then(|key| self.people.used.get_mut(key)) {
            let fresh = self.time - used.at < FRESH_MS;
            match (&used.answer, &reply) {
                (Some(old), new) if fresh && !same_answer(old, new) && !is_lost_token(&deed.ask, new) => {
                    let text = format!("request {:?} was answered {old:?} and then {new:?}", deed.request);
                    self.fail(text);
                }
                // What came too fast is not remembered.
                (None, Reply::Run { .. }) if is_over_limit(&deed.ask) => {}
                (None, Reply::Project(_) | Reply::Agent(_) | Reply::Run { .. } | Reply::Planned { .. }) => {
                    used.answer = Some(reply.clone())
                }
                (Some(_) | None, _) => {}
            }
        }
        self.count_answer(&deed.ask, &reply);
        match (&deed.ask, &reply) {
            (Ask::Apply(plan), Reply::Planned { plan: id, .. }) if !plan.acts.is_empty() => {
                self.people.plans.insert(*id);
            }
            (Ask::RevokeAgent { agent, .. }, Reply::Agent(_)) => {
                if let Some(host) = self.host_of(*agent).filter(|host| !self.hosts[*host].retired) {
                    self.retire(host);
                }
            }
            (Ask::ReplaceAgent { replacement, .. }, Reply::Replaced(_)) if !replacement.validate_only => {
                self.cover.fault(Fault::Replaced);
                let host = self.host_of(replacement.old).filter(|host| !self.hosts[*host].retired);
                if let Some(host) = host.filter(|_| replacement.revoke.is_some()) {
                    self.retire(host);
                }
            }
            (Ask::Run { project, .. }, Reply::Run { run, .. }) if self.people.last_asked => {
                self.people.last_runs.insert(*project, *run);
            }
            (Ask::CancelRun { project, run }, Reply::Run { .. }) => self.checks.cancelled(*project, *run),
            (ask, Reply::Refused(refusal)) if refusal.code == RefusalCode::InvalidArgument => {
                // Only what changed meanwhile may make a good request bad: a revoked agent, a taken path, another list of
                // upstreams.
                let about_agents = |text: &str| {
                    text.contains("agent")
                        || text.contains("lies in")
                        || text.contains("none of the project's upstreams")
                };
                // Or a circle of projects, or one that is gone.
                let good =
                    |fault: &Violation| about_agents(&fault.description) || fault.field.starts_with("after");
                if !refusal.violations.iter().all(good) && !self.calm {
                    let wall_went = refusal.violations.iter().all(|fault| fault.field == "until");
                    if !wall_went {
                        self.fail(format!("{ask:?} was refused: {refusal}"));
                    }
                }
            }
            _ => {}
        }
    }

    /// What was answered, where that is to be met.
    fn count_answer(&mut self, ask: &Ask, reply: &Reply) {
        let fault = match (ask, reply) {
            (Ask::Rename { .. }, Reply::Project(_)) => Fault::Renamed,
            (Ask::Archive { .. }, Reply::Project(_)) => Fault::Archived,
            (Ask::Approve { .. }, Reply::Refused(refusal)) if refusal.reason == "NOT_NEWEST_HOLD" => {
                Fault::StaleApproval
            }
            (Ask::Apply(plan), Reply::Planned { .. }) if plan.acts.len() > 1 => Fault::Planned,
            (Ask::UpdateAgent { .. }, Reply::Agent(_)) => Fault::AgentSet,
            (Ask::CreateAgent { .. }, Reply::Agent(_)) => Fault::Declared,
            (Ask::Push(push), Reply::Run { .. }) if push.over_limit => Fault::PushedTooFast,
            (Ask::Push(_), Reply::Run { .. }) => Fault::Pushed,
            (Ask::Push(_), Reply::Refused(refusal)) if refusal.reason == PUSHED_TOO_OFTEN => {
                Fault::PushedTooFast
            }
            (Ask::Push(_), Reply::Refused(refusal)) if refusal.code == RefusalCode::Unauthenticated => {
                Fault::TokenNotGood
            }
            _ => return,
        };
        self.cover.fault(fault);
    }

    pub(crate) fn unanswered(&mut self, tag: Tag) {
        match tag {
            Tag::Nothing | Tag::SpentToken => {}
            Tag::Hello(stream) => self.agent_closes(stream),
            Tag::Deed(id) => {
                self.people.deeds.remove(&id);
            }
            Tag::Token(host, _) | Tag::Enroll(host, _) => self.after(20_000, Event::Joins(host)),
        }
    }

    pub(crate) fn joins(&mut self, host: usize) {
        if self.hosts[host].uid.is_none() {
            self.join(host);
        }
    }

    /// The host of a known agent joins once more, to say other labels.
    pub(crate) fn rejoins(&mut self, host: usize) -> bool {
        let can = self.hosts[host].uid.is_some() && !self.hosts[host].retired;
        if can {
            self.join(host);
        }
        can
    }

    fn join(&mut self, host: usize) {
        let id = format!("t{}", self.next_id());
        let secret = format!("hash of {id}");
        let names = TokenNames::One(self.hosts[host].name.clone());
        let ttl = Duration::from_secs(600);
        let ask =
            Ask::CreateJoinToken { id, hash: secret.clone(), names, uses: 1, ttl, networks: Vec::new() };
        self.submit(Input::Person(Person { by: "ada".to_owned(), ask }), Tag::Token(host, secret));
    }

    fn enroll(&mut self, host: usize, secret: String) {
        let one = &self.hosts[host];
        let input = self.enrolment(one.name.clone(), one.labels.clone(), secret.clone());
        self.submit(input, Tag::Enroll(host, secret));
    }

    fn enrolment(&self, name: Name, labels: BTreeMap<String, String>, token_hash: String) -> Input {
        Input::Agent(AgentInput::Enroll {
            token_hash,
            name,
            labels,
            key_hash: "key".to_owned(),
            serial: "01".to_owned(),
            expires: self.still().wall.plus(Duration::from_secs(86_400 * 30)),
            from: None,
        })
    }
}

/// A name of its own for a request.
fn request_id(id: u64, request: &mut Option<RequestKey>) -> String {
    let key = format!("request {id}");
    *request = Some(RequestKey { key: key.clone(), payload: key.clone() });
    key
}

fn is_over_limit(ask: &Ask) -> bool {
    matches!(ask, Ask::Push(push) if push.over_limit)
}

/// Whoever pushes by a token is asked for it each time.
fn is_lost_token(ask: &Ask, reply: &Reply) -> bool {
    let by_token = matches!(ask, Ask::Push(push) if push.token.is_some());
    by_token && matches!(reply, Reply::Refused(refusal) if refusal.code == RefusalCode::Unauthenticated)
}

/// A repeated run request may only differ in its notes.
fn same_answer(old: &Reply, new: &Reply) -> bool {
    match (old, new) {
        (
            Reply::Run { project, run, coalesced, .. },
            Reply::Run { project: other_project, run: other_run, coalesced: other_coalesced, .. },
        ) => (project, run, coalesced) == (other_project, other_run, other_coalesced),
        (old, new) => old == new,
    }
}
