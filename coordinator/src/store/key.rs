//! The keys: one tree, `[table][ids, big-endian]`, so that byte order is the order of pages. Run ids are
//! inverted: the newest run of a project comes first in a forward page. Knows no values.
//!
//! | table | ids |
//! |---|---|
//! | `m` meta | a name |
//! | `f` fleet | - |
//! | `p` project, `s` its state | project |
//! | `l` placement | project, agent |
//! | `g` agent | agent |
//! | `j` join token, `u` user, `k` user token, `q` request, `h` upstream host | text |
//! | `r` live run, `R` run in history | project, !run |
//! | `x` tree that is wanted in the trash | agent, project |
//! | `d` step of a plan that is being carried out, or was left out of the newest | its place |
//! | `a` live attempt, `A` attempt in history | project, !run, number |
//! | `e` audit event (`audit`) | milliseconds, number |

use fleet::{
    id::{AttemptId, ProjectUid, RunId},
    record::Key,
};
use mirror_proto::stored::Table;

/// Longest key in bytes: the longest text of a request (user, method, request id) fits with room to spare.
pub const KEY_BYTES_MAX: usize = 1_024;

/// The revision of the newest commit, rewritten by each one.
pub(crate) const REVISION: &[u8] = b"mrevision";
/// Written and removed again as the store opens, to see whether what is written stays.
pub(crate) const PROBE: &[u8] = b"mprobe";
/// The table of what is known of the store itself.
pub(crate) const META_TABLE: u8 = b'm';
/// Below all keys.
pub(crate) const FIRST: &[u8] = &[];
/// Above all keys: no table has this letter.
pub(crate) const LAST: &[u8] = &[0xff];
/// The tables whose every record the engine needs.
pub(crate) const LIVE_TABLES: [u8; 15] = *b"fpslgjuktqrahdx";
/// The tables that are read in pages only.
pub(crate) const HISTORY_TABLES: [u8; 2] = *b"RA";

const LIVE_RUN: u8 = b'r';
const LIVE_ATTEMPT: u8 = b'a';
const PAST_RUN: u8 = b'R';
const PAST_ATTEMPT: u8 = b'A';

/// Whether a run or attempt is still needed by the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    Live,
    Past,
}

/// The key of a record; runs and attempts have one in each of two tables.
pub(crate) fn of(key: &Key, age: Age) -> Vec<u8> {
    match key {
        Key::Fleet => vec![b'f'],
        Key::Project(uid) => ids(b'p', &[uid.0]),
        Key::ProjectState(uid) => ids(b's', &[uid.0]),
        Key::Placement(project, agent) => ids(b'l', &[project.0, agent.0]),
        Key::Agent(uid) => ids(b'g', &[uid.0]),
        Key::JoinToken(id) => text(b'j', id),
        Key::User(name) => text(b'u', name),
        Key::UserToken(id) => text(b'k', id),
        Key::PushToken(id) => text(b't', id),
        Key::Request(key) => text(b'q', key),
        Key::Run(project, run) => of_run(*project, *run, age),
        Key::Attempt(project, attempt) => of_attempt(*project, *attempt, age),
        Key::Upstream(host) => text(b'h', host),
        Key::PlanStep(number) => ids(b'd', &[u64::from(*number)]),
        Key::Trash(agent, project) => ids(b'x', &[agent.0, project.0]),
    }
}

/// What the value under a key holds; `None`: no record.
pub(crate) fn table(key: &[u8]) -> Option<Table> {
    match *key.first()? {
        b'f' => Some(Table::Fleet),
        b'p' => Some(Table::Project),
        b's' => Some(Table::ProjectState),
        b'l' => Some(Table::Placement),
        b'g' => Some(Table::Agent),
        b'j' => Some(Table::JoinToken),
        b'u' => Some(Table::User),
        b'k' => Some(Table::UserToken),
        b't' => Some(Table::PushToken),
        b'q' => Some(Table::Request),
        b'h' => Some(Table::Upstream),
        b'd' => Some(Table::PlanStep),
        b'x' => Some(Table::Trash),
        LIVE_RUN | PAST_RUN => Some(Table::Run),
        LIVE_ATTEMPT | PAST_ATTEMPT => Some(Table::Attempt),
        _ => None,
    }
}

/// Whether records of this kind move to the history when they are no longer live.
pub(crate) fn has_history(key: &Key) -> bool {
    matches!(key, Key::Run(..) | Key::Attempt(..))
}

pub(crate) fn of_run(project: ProjectUid, run: RunId, age: Age) -> Vec<u8> {
    let mut key = runs_of(project, age);
    key.extend((!run.0.as_u128()).to_be_bytes());
    key
}

pub(crate) fn of_attempt(project: ProjectUid, attempt: AttemptId, age: Age) -> Vec<u8> {
    let mut key = attempts_of(project, attempt.run, age);
    key.extend(attempt.number.to_be_bytes());
    key
}

/// What the keys of a project's runs begin with.
pub(crate) fn runs_of(project: ProjectUid, age: Age) -> Vec<u8> {
    ids(if age == Age::Live { LIVE_RUN } else { PAST_RUN }, &[project.0])
}

/// What the keys of a run's attempts begin with.
pub(crate) fn attempts_of(project: ProjectUid, run: RunId, age: Age) -> Vec<u8> {
    let mut key = ids(if age == Age::Live { LIVE_ATTEMPT } else { PAST_ATTEMPT }, &[project.0]);
    key.extend((!run.0.as_u128()).to_be_bytes());
    key
}

/// The project of a key of a run, live or past; `None`: it is no such key.
pub(crate) fn project_of_run(key: &[u8]) -> Option<ProjectUid> {
    let ids = key.strip_prefix(&[LIVE_RUN]).or_else(|| key.strip_prefix(&[PAST_RUN]))?;
    ids.first_chunk().map(|uid| ProjectUid(u64::from_be_bytes(*uid)))
}

/// The first key after all that begin with `prefix`.
pub(crate) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    LAST.to_vec()
}

/// The first key after this one.
pub(crate) fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

/// The key in words, for messages.
pub(crate) fn describe(key: &[u8]) -> String {
    let Some((&table, rest)) = key.split_first() else { return "empty key".to_owned() };
    let kind = match table {
        b'm' => "meta record",
        b'f' => "fleet record",
        b'p' => "project",
        b's' => "project state",
        b'l' => "placement",
        b'g' => "agent",
        b'j' => "join token",
        b'u' => "user",
        b'k' => "user token",
        b't' => "push token",
        b'q' => "request",
        b'h' => "upstream host",
        b'd' => "plan step",
        b'x' => "trash of agent",
        LIVE_RUN => "live run",
        PAST_RUN => "past run",
        LIVE_ATTEMPT => "live attempt",
        PAST_ATTEMPT => "past attempt",
        super::audit::TABLE => "audit event",
        _ => "record of an unknown table",
    };
    let number = |at: usize| rest.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
    let run = || rest.get(8..24)?.try_into().ok().map(|id| uuid::Uuid::from_u128(!u128::from_be_bytes(id)));
    let ids = match table {
        b'p' | b's' | b'g' | b'd' => number(0).map(|uid| uid.to_string()),
        b'l' => number(0).zip(number(8)).map(|(project, agent)| format!("{project} on agent {agent}")),
        b'x' => number(0).zip(number(8)).map(|(agent, project)| format!("{agent}: project {project}")),
        LIVE_RUN | PAST_RUN => number(0).zip(run()).map(|(uid, run)| format!("{run} of project {uid}")),
        LIVE_ATTEMPT | PAST_ATTEMPT => {
            let count = rest.get(24..28).and_then(|n| n.try_into().ok()).map(u32::from_be_bytes);
            let ids = number(0).zip(run()).zip(count);
            ids.map(|((uid, run), count)| format!("{run}/{count} of project {uid}"))
        }
        b'f' => Some(String::new()),
        b'm' | b'j' | b'u' | b'k' | b't' | b'q' | b'h' => {
            Some(format!("{:?}", String::from_utf8_lossy(rest)))
        }
        _ => None,
    };
    let ids = ids.unwrap_or_else(|| format!("with the key {}", hex::encode(key)));
    format!("{kind} {ids}").trim_end().to_owned()
}

fn ids(table: u8, ids: &[u64]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + 8 * ids.len() + 20);
    key.push(table);
    for id in ids {
        key.extend(id.to_be_bytes());
    }
    key
}

fn text(table: u8, text: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + text.len());
    key.push(table);
    key.extend(text.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use fleet::id::AgentUid;
    use uuid::Uuid;

    use super::*;

    const P: ProjectUid = ProjectUid(7);

    fn run(n: u128) -> RunId {
        RunId(Uuid::from_u128(n))
    }

    #[test]
    fn the_newest_run_of_a_project_comes_first_and_projects_never_mix() {
        let ordered = [
            of_run(ProjectUid(6), run(1), Age::Past),
            of_run(P, run(u128::MAX), Age::Past),
            of_run(P, run(300), Age::Past),
            of_run(P, run(256), Age::Past),
            of_run(P, run(255), Age::Past),
            of_run(P, run(0), Age::Past),
            of_run(ProjectUid(256), run(9), Age::Past),
        ];
        assert!(ordered.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn attempts_of_a_run_count_up_and_runs_never_mix() {
        let of = |r, number| of_attempt(P, AttemptId { run: run(r), number }, Age::Live);
        let ordered = [of(9, 1), of(9, 2), of(9, 256), of(9, u32::MAX), of(8, 1), of(8, 2)];
        assert!(ordered.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_range_holds_all_that_begins_with_its_prefix_and_nothing_else() {
        let prefix = runs_of(P, Age::Past);
        let end = end_of(&prefix);
        let inside = |key: &[u8]| prefix.as_slice() <= key && key < end.as_slice();
        assert!(inside(&of_run(P, run(0), Age::Past)) && inside(&of_run(P, run(u128::MAX), Age::Past)));
        assert!(!inside(&of_run(ProjectUid(8), run(u128::MAX), Age::Past)));
        assert!(!inside(&of_run(P, run(1), Age::Live)));
        assert_eq!(project_of_run(&prefix), Some(P));
        assert_eq!(project_of_run(&of_attempt(P, AttemptId { run: run(1), number: 1 }, Age::Past)), None);
        assert_eq!(end_of(&[1, 0xff, 0xff]), [2]);
        assert_eq!(end_of(&[0xff, 0xff]), LAST);
    }

    #[test]
    fn every_key_has_a_table_of_its_own_below_the_end_and_prints() {
        let keys = [
            Key::Fleet,
            Key::Project(P),
            Key::ProjectState(P),
            Key::Placement(P, AgentUid(3)),
            Key::Agent(AgentUid(3)),
            Key::JoinToken("t".to_owned()),
            Key::User("u".to_owned()),
            Key::UserToken("k".to_owned()),
            Key::PushToken("t".to_owned()),
            Key::Request("q".to_owned()),
            Key::Run(P, run(1)),
            Key::Attempt(P, AttemptId { run: run(1), number: 2 }),
            Key::Upstream("h".to_owned()),
            Key::PlanStep(7),
            Key::Trash(AgentUid(3), P),
        ];
        let tables: Vec<u8> = keys.iter().map(|key| of(key, Age::Live)[0]).collect();
        assert_eq!(tables, LIVE_TABLES);
        for key in &keys {
            let bytes = of(key, Age::Past);
            assert_eq!(table(&bytes), Some(Table::of_key(key)));
            assert!(FIRST < bytes.as_slice() && bytes.as_slice() < LAST);
            assert!(!describe(&bytes).contains("unknown"), "{}", describe(&bytes));
            assert_eq!(HISTORY_TABLES.contains(&bytes[0]), has_history(key));
        }
        assert_eq!(describe(&of(&keys[11], Age::Past)), format!("past attempt {}/2 of project 7", run(1)));
    }
}
