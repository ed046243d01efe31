//! Records ⇄ bytes of the store. What is written is read back the same; what cannot be read is a fault that names
//! record and field, never a guess: a missing value is no zero. Does not know keys, envelopes, checksums or
//! files.

mod plan;
mod project;
mod records;
mod run;
mod schedule;
mod trash;

use std::{sync::Arc, time::Duration};

use fleet::{
    id::{AgentUid, AttemptId, Epoch, Name, ProjectUid, RunId},
    project::Destination,
    record::{Key, Record},
    time::Wall,
};
use prost::Message as _;

use crate::store;

/// The version of what is written: it grows when older programs would read it wrongly.
pub const SCHEMA: u16 = 1;

/// What kind of record it is: one table of the store each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each variant holds the records it is named after")]
pub enum Table {
    Fleet,
    Project,
    ProjectState,
    Placement,
    Agent,
    JoinToken,
    User,
    UserToken,
    PushToken,
    Request,
    Run,
    Attempt,
    Upstream,
    PlanStep,
    Trash,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Fleet,
        Self::Project,
        Self::ProjectState,
        Self::Placement,
        Self::Agent,
        Self::JoinToken,
        Self::User,
        Self::UserToken,
        Self::PushToken,
        Self::Request,
        Self::Run,
        Self::Attempt,
        Self::Upstream,
        Self::PlanStep,
        Self::Trash,
    ];

    /// The table of a record.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        match record {
            Record::Fleet(_) => Self::Fleet,
            Record::Project(_) => Self::Project,
            Record::ProjectState(_) => Self::ProjectState,
            Record::Placement(_) => Self::Placement,
            Record::Agent(_) => Self::Agent,
            Record::JoinToken(_) => Self::JoinToken,
            Record::User(_) => Self::User,
            Record::UserToken(_) => Self::UserToken,
            Record::PushToken(_) => Self::PushToken,
            Record::Request(_) => Self::Request,
            Record::Run(_) => Self::Run,
            Record::Attempt(_) => Self::Attempt,
            Record::Upstream(_) => Self::Upstream,
            Record::PlanStep(_) | Record::LeftOut(_) => Self::PlanStep,
            Record::Trash(_) => Self::Trash,
        }
    }

    /// The table that a key belongs to.
    #[must_use]
    pub fn of_key(key: &Key) -> Self {
        match key {
            Key::Fleet => Self::Fleet,
            Key::Project(_) => Self::Project,
            Key::ProjectState(_) => Self::ProjectState,
            Key::Placement(..) => Self::Placement,
            Key::Agent(_) => Self::Agent,
            Key::JoinToken(_) => Self::JoinToken,
            Key::User(_) => Self::User,
            Key::UserToken(_) => Self::UserToken,
            Key::PushToken(_) => Self::PushToken,
            Key::Request(_) => Self::Request,
            Key::Run(..) => Self::Run,
            Key::Attempt(..) => Self::Attempt,
            Key::Upstream(_) => Self::Upstream,
            Key::PlanStep(_) => Self::PlanStep,
            Key::Trash(..) => Self::Trash,
        }
    }

    /// In words, for messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Project => "project",
            Self::ProjectState => "project state",
            Self::Placement => "placement",
            Self::Agent => "agent",
            Self::JoinToken => "join token",
            Self::User => "user",
            Self::UserToken => "user token",
            Self::PushToken => "push token",
            Self::Request => "request",
            Self::Run => "run",
            Self::Attempt => "attempt",
            Self::Upstream => "upstream",
            Self::PlanStep => "plan step",
            Self::Trash => "trash",
        }
    }
}

/// A stored record that cannot be read: it was damaged, or written by another version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stored {} record: {field}: {problem}", table.name())]
pub struct StoredFault {
    /// What kind of record.
    pub table: Table,
    /// The field, from the record on: `spec.schedule.cron`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The bytes of a record.
#[must_use]
pub fn encode(record: &Record) -> Vec<u8> {
    match record {
        Record::Fleet(record) => records::fleet(record).encode_to_vec(),
        Record::Project(record) => project::record(record).encode_to_vec(),
        Record::ProjectState(record) => project::state(record).encode_to_vec(),
        Record::Placement(record) => records::placement(record).encode_to_vec(),
        Record::Agent(record) => records::agent(record).encode_to_vec(),
        Record::JoinToken(record) => records::join_token(record).encode_to_vec(),
        Record::User(record) => records::user(record).encode_to_vec(),
        Record::UserToken(record) => records::user_token(record).encode_to_vec(),
        Record::PushToken(record) => records::push_token(record).encode_to_vec(),
        Record::Request(record) => records::request(record).encode_to_vec(),
        Record::Run(record) => run::record(record).encode_to_vec(),
        Record::Attempt(record) => run::attempt(record).encode_to_vec(),
        Record::Upstream(record) => records::upstream(record).encode_to_vec(),
        Record::PlanStep(step) => plan::step(step).encode_to_vec(),
        Record::LeftOut(left_out) => plan::left_out(left_out).encode_to_vec(),
        Record::Trash(record) => trash::record(record).encode_to_vec(),
    }
}

/// The record in these bytes, which were found in `table`.
///
/// # Errors
/// [`StoredFault`]: not of this shape, a value missing, unknown or malformed.
pub fn decode(table: Table, bytes: &[u8]) -> Result<Record, StoredFault> {
    let record = match table {
        Table::Fleet => message(bytes).and_then(records::read_fleet).map(Record::Fleet),
        Table::Project => {
            message(bytes).and_then(project::read_record).map(|record| Record::Project(Arc::new(record)))
        }
        Table::ProjectState => message(bytes).and_then(project::read_state).map(Record::ProjectState),
        Table::Placement => message(bytes).and_then(records::read_placement).map(Record::Placement),
        Table::Agent => message(bytes).and_then(records::read_agent).map(Record::Agent),
        Table::JoinToken => message(bytes).and_then(records::read_join_token).map(Record::JoinToken),
        Table::User => message(bytes).and_then(records::read_user).map(Record::User),
        Table::UserToken => message(bytes).and_then(records::read_user_token).map(Record::UserToken),
        Table::PushToken => message(bytes).and_then(records::read_push_token).map(Record::PushToken),
        Table::Request => message(bytes).and_then(records::read_request).map(Record::Request),
        Table::Run => message(bytes).and_then(run::read_record).map(Record::Run),
        Table::Attempt => message(bytes).and_then(run::read_attempt).map(Record::Attempt),
        Table::Upstream => message(bytes).and_then(records::read_upstream).map(Record::Upstream),
        Table::PlanStep => message(bytes).and_then(plan::read),
        Table::Trash => message(bytes).and_then(trash::read_record).map(Record::Trash),
    };
    record.map_err(|Bad { field, problem }| StoredFault { table, field, problem })
}

/// A fault on its way up to the record: the field grows in front.
struct Bad {
    field: String,
    problem: String,
}

type Read<T> = Result<T, Bad>;

impl Bad {
    fn new(field: &str, problem: impl ToString) -> Self {
        Self { field: field.to_owned(), problem: problem.to_string() }
    }
}

/// Names the field in which the parts of a value were read.
trait At<T> {
    fn at(self, field: &str) -> Read<T>;
}

impl<T> At<T> for Read<T> {
    fn at(self, field: &str) -> Self {
        self.map_err(|bad| Bad { field: format!("{field}.{}", bad.field), problem: bad.problem })
    }
}

/// A message that must have these bytes.
fn message<M: prost::Message + Default>(bytes: &[u8]) -> Read<M> {
    M::decode(bytes).map_err(|error| Bad::new("(whole)", error))
}

/// A value that must be there.
fn need<T>(field: &str, value: Option<T>) -> Read<T> {
    value.ok_or_else(|| Bad::new(field, "is missing"))
}

/// A part that must be there.
fn part<M, T>(field: &str, value: Option<M>, read: impl FnOnce(M) -> Read<T>) -> Read<T> {
    need(field, value).and_then(|value| read(value).at(field))
}

/// A part that may be absent.
fn maybe<M, T>(field: &str, value: Option<M>, read: impl FnOnce(M) -> Read<T>) -> Read<Option<T>> {
    value.map(|value| read(value).at(field)).transpose()
}

/// A list of parts.
fn list<M, T>(field: &str, values: Vec<M>, read: impl Fn(M) -> Read<T>) -> Read<Vec<T>> {
    let one = |(index, value)| read(value).at(&format!("{field}[{index}]"));
    values.into_iter().enumerate().map(one).collect()
}

/// A value of a closed set.
fn choice<T>(field: &str, number: Option<i32>, read: fn(i32) -> Option<T>) -> Read<T> {
    let number = need(field, number)?;
    read(number).ok_or_else(|| Bad::new(field, format!("{number}: there is no such value")))
}

fn wall(field: &str, ms: Option<i64>) -> Read<Wall> {
    need(field, ms).map(Wall)
}

/// Nanoseconds of a span. None of ours is near the 584 years at which this ends.
fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn span(ns: Option<u64>) -> Option<Duration> {
    ns.map(Duration::from_nanos)
}

fn project_uid(field: &str, uid: Option<u64>) -> Read<ProjectUid> {
    need(field, uid).map(ProjectUid)
}

fn agent_uid(field: &str, uid: Option<u64>) -> Read<AgentUid> {
    need(field, uid).map(AgentUid)
}

fn name(field: &str, text: Option<String>) -> Read<Name> {
    let text = need(field, text)?;
    text.parse().map_err(|bad| Bad::new(field, format!("{text:?}: {bad}")))
}

fn destination(field: &str, text: Option<String>) -> Read<Destination> {
    let text = need(field, text)?;
    text.parse().map_err(|bad| Bad::new(field, format!("{text:?}: {bad}")))
}

fn maybe_destination(field: &str, text: Option<String>) -> Read<Option<Destination>> {
    text.map(|text| destination(field, Some(text))).transpose()
}

fn run_bytes(run: RunId) -> Vec<u8> {
    run.0.as_bytes().to_vec()
}

fn run_id(field: &str, bytes: Option<Vec<u8>>) -> Read<RunId> {
    let bytes = need(field, bytes)?;
    uuid::Uuid::from_slice(&bytes).map(RunId).map_err(|bad| Bad::new(field, bad))
}

fn maybe_run_id(field: &str, bytes: Option<Vec<u8>>) -> Read<Option<RunId>> {
    bytes.map(|bytes| run_id(field, Some(bytes))).transpose()
}

fn attempt_id(id: AttemptId) -> store::AttemptId {
    store::AttemptId { run: Some(run_bytes(id.run)), number: Some(id.number) }
}

fn read_attempt_id(id: store::AttemptId) -> Read<AttemptId> {
    Ok(AttemptId { run: run_id("run", id.run)?, number: need("number", id.number)? })
}

fn epoch(epoch: Epoch) -> store::Epoch {
    store::Epoch { term: Some(epoch.term), counter: Some(epoch.counter) }
}

fn read_epoch(epoch: store::Epoch) -> Read<Epoch> {
    Ok(Epoch { term: need("term", epoch.term)?, counter: need("counter", epoch.counter)? })
}
