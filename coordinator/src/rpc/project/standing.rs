//! What a manifest says of whether a project is worked on: its schedule is stopped, its tree is archived. What is not
//! said stays as it is. Decides nothing.

use ::fleet::{
    defaults::REASON_CHARS_MAX,
    id::ProjectUid,
    plan::{Act, Pausing},
    project::{Pause, ProjectRecord},
    refusal::Violation,
    time::Wall,
};
use chrono::SecondsFormat;
use mirror_proto::{convert, v1};

/// What is wished.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wish<T> {
    AsItIs,
    No,
    Yes(T),
}

impl<T> Wish<T> {
    fn new(wanted: Option<bool>, how: T) -> Self {
        match wanted {
            None => Self::AsItIs,
            Some(false) => Self::No,
            Some(true) => Self::Yes(how),
        }
    }
}

/// Whether a project is to be worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pause: Wish<Pausing>,
    /// Why.
    archive: Wish<String>,
}

/// One row of a plan: the field, what it is, what it becomes.
pub(super) type Row = (&'static str, String, String);

impl Standing {
    /// Reads what is declared.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub(super) fn read(declared: &v1::DeclaredProject, now: Wall) -> Result<Self, Vec<Violation>> {
        let v1::DeclaredProject { project: _, paused, pause_reason, pause_until, archived, archive_reason } =
            declared;
        let mut faults = Vec::new();
        faults.extend(reason_fault("pause_reason", pause_reason));
        faults.extend(reason_fault("archive_reason", archive_reason));
        let only_with = |field: &str, other: &str| {
            Violation::new(field, format!("is given, and {other} is not true; give both or neither"))
        };
        if pause_until.is_some() && *paused != Some(true) {
            faults.push(only_with("pause_until", "paused"));
        }
        if !archive_reason.is_empty() && *archived != Some(true) {
            faults.push(only_with("archive_reason", "archived"));
        }
        let until = pause_until.as_ref().map(|until| convert::wall_from_wire("pause_until", until));
        let until = until.transpose().unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
        if !faults.is_empty() {
            return Err(faults);
        }
        let over = until.is_some_and(|until| until <= now);
        let pausing = Pausing { reason: pause_reason.clone(), until };
        let pause = Wish::new(paused.filter(|_| !over), pausing);
        Ok(Self { pause, archive: Wish::new(*archived, archive_reason.clone()) })
    }

    /// How a new project begins: paused, archived.
    pub(super) fn of_new(self) -> (Option<Pausing>, Option<String>) {
        let paused = if let Wish::Yes(pausing) = self.pause { Some(pausing) } else { None };
        let archived = if let Wish::Yes(reason) = self.archive { Some(reason) } else { None };
        (paused, archived)
    }

    /// What is to be done about the pause of a project, as it is at this revision.
    pub(super) fn pause(&self, record: &ProjectRecord) -> Option<(Act, Vec<Row>)> {
        let (project, revision) = (record.uid, record.revision);
        let old = record.paused.as_ref();
        let (act, new) = match (&self.pause, old) {
            (Wish::Yes(wanted), _) => {
                let pausing = Pausing {
                    reason: match old {
                        Some(pause) if wanted.reason.is_empty() => pause.reason.clone(),
                        _ => wanted.reason.clone(),
                    },
                    until: wanted.until.or_else(|| old.and_then(|pause| pause.until)),
                };
                if old.is_some_and(|old| old.reason == pausing.reason && old.until == pausing.until) {
                    return None;
                }
                (Act::Pause { project, revision, pausing: pausing.clone() }, Some(pausing))
            }
            (Wish::No, Some(_)) => (Act::Resume { project, revision }, None),
            (Wish::No | Wish::AsItIs, _) => return None,
        };
        let old = old.map(|Pause { reason, until, .. }| Pausing { reason: reason.clone(), until: *until });
        let time = |pausing: Option<&Pausing>| {
            let until = pausing.and_then(|pausing| pausing.until);
            until.map(|until| until.to_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true)).unwrap_or_default()
        };
        let reason = |pausing: Option<&Pausing>| told(pausing.map(|pausing| pausing.reason.as_str()));
        let rows = vec![
            ("paused", reason(old.as_ref()), reason(new.as_ref())),
            ("paused.until", time(old.as_ref()), time(new.as_ref())),
        ];
        Some((act, rows.into_iter().filter(|(_, old, new)| old != new).collect()))
    }

    /// What is to be done about its being archived, likewise. What is archived keeps its reason.
    pub(super) fn archive(&self, record: &ProjectRecord) -> Option<(Act, Vec<Row>)> {
        let (project, revision): (ProjectUid, u64) = (record.uid, record.revision);
        let old = record.archived.as_ref().map(|archive| archive.reason.as_str());
        let (act, new) = match (&self.archive, old) {
            (Wish::Yes(reason), None) => {
                (Act::Archive { project, revision, reason: reason.clone() }, Some(reason.as_str()))
            }
            (Wish::No, Some(_)) => (Act::Unarchive { project, revision }, None),
            (Wish::Yes(_) | Wish::No | Wish::AsItIs, _) => return None,
        };
        Some((act, vec![("archived", told(old), told(new))]))
    }
}

/// Whether it is so, or why.
fn told(reason: Option<&str>) -> String {
    match reason {
        None => "false".to_owned(),
        Some("") => "true".to_owned(),
        Some(reason) => reason.to_owned(),
    }
}

fn reason_fault(field: &str, reason: &str) -> Option<Violation> {
    let bad = reason.chars().count() > REASON_CHARS_MAX || reason.chars().any(char::is_control);
    bad.then(|| Violation::new(field, format!("at most {REASON_CHARS_MAX} characters, none of them control")))
}
