//! The audit log: who changed what, from where, old → new, and what was refused. Never a secret.
//!
//! ```text
//!  rpc::layer ── Origin (task-local) ──▶ driver: decide ─▶ changes::of(before, decision) ─┐ one unit:
//!      │                                                                                  ├─▶ the change and
//!      └── refused, failed ─▶ Notes (bounded, equal ones counted) ─▶ driver's next commit ┘   its event
//! ```
//!
//! | file | what it knows |
//! |---|---|
//! | `origin` | who asks, from where: made once for each request, found by whoever works for it |
//! | `changes`, `fields` | what a decision changes, field by field, in the words of the contract |
//! | `plans` | whose a step of a plan is that nobody waits for |
//! | `notes` | what is recorded without a change: refusals and happenings, bounded |
//!
//! The log is no state of the engine: it is written with the engine's records and never read back into it. How it is
//! stored and paged is `store/audit.rs`'s; who may read it is the policy's.

pub mod changes;
mod fields;
pub mod notes;
pub mod origin;
pub mod plans;

use std::borrow::Cow;

use fleet::time::Now;
use mirror_certs::Identity;
use mirror_proto::{
    status::Fault,
    v1::{AuditChange, AuditEvent, AuditOutcome},
};
use prost::Message as _;
use tonic::{Code, Status};

use self::{changes::Rows, origin::Origin};
use crate::{
    driver::add_event,
    rpc::policy::{self, Rule},
    store::{Store, StoreError, Unit},
};

/// Largest event as it is stored, in bytes: below the store's largest value, envelope included.
pub const EVENT_BYTES_MAX: usize = 6 * 1_024;
/// Longest text of an event, in bytes; a longer one is cut.
pub const TEXT_BYTES_MAX: usize = 256;
/// What stands in the place of what may be a secret.
const HIDDEN: &str = "(hidden)";
/// What a cut text ends with.
const CUT: &str = "…";
/// Least characters after a token's prefix; shorter ones are words of people.
const TOKEN_CHARS_MIN: usize = 16;

/// Who acts when nobody asked.
pub const COORDINATOR: &str = "coordinator";
/// A new fleet was made.
pub const INITIALISED: &str = "Coordinator.Init";
/// A certificate was made on the coordinator's host, past all services.
pub const BROKE_GLASS: &str = "Coordinator.UserCertificate";
/// A coordinator started.
pub const STARTED: &str = "Coordinator.Start";
/// The store holds an older state than agents may have seen.
pub const RESTORED: &str = "Coordinator.Restore";
/// The store takes writes again after a commit that failed.
pub const REOPENED: &str = "Coordinator.Reopen";
/// Two programs with one agent's identity.
pub const DUPLICATE_IDENTITY: &str = "Session.DuplicateIdentity";
/// What became of a tree that was wanted in the trash.
pub const TREE_TO_TRASH: &str = "Session.TreeToTrash";
/// Events that were not recorded, by number.
pub const DROPPED: &str = "Audit.Dropped";

/// Whether calls of this method are audited: done when they change something, and refused. All of ours that are open to
/// everybody give or take an identity.
#[must_use]
pub fn covers(method: &str) -> bool {
    policy::changes_something(method)
        || (policy::rule(method) == Some(Rule::Open) && method.starts_with("/mirror.v1."))
}

/// The name of whom a certificate is of, as resources are named.
#[must_use]
pub fn name_of(identity: &Identity) -> String {
    match identity {
        Identity::Agent(name) => format!("agents/{name}"),
        Identity::User(name) => format!("users/{name}"),
        Identity::Server => COORDINATOR.to_owned(),
    }
}

/// What was done for a request.
#[must_use]
pub fn done(origin: &Origin, rows: Rows) -> AuditEvent {
    let (changes, changes_left_out) = rows.into_parts();
    let resource = origin.resource();
    let first = || changes.first().map_or_else(|| changes::FLEET.to_owned(), |row| row.resource.clone());
    let resource = resource.unwrap_or_else(first);
    let outcome = AuditOutcome::Done.into();
    AuditEvent { resource, outcome, changes, changes_left_out, ..asked(origin) }
}

/// What was done for a request that changes no record of the fleet's.
#[must_use]
pub fn noted(origin: &Origin, message: String) -> AuditEvent {
    AuditEvent { message, ..done(origin, Rows::default()) }
}

/// What was not done for a request.
#[must_use]
pub fn not_done(origin: &Origin, status: &Status) -> AuditEvent {
    let fault = Fault::from(status);
    let outcome = match fault.code {
        Code::Unavailable | Code::Internal | Code::DeadlineExceeded | Code::Unknown | Code::DataLoss => {
            AuditOutcome::Failed
        }
        _ => AuditOutcome::Refused,
    };
    // A fault's description shows what was typed, which may be a password in the wrong place: the fields are enough.
    let fields: Vec<&str> = fault.violations.iter().map(|violation| violation.field.as_str()).collect();
    let message = origin.why().unwrap_or_else(|| match fields.as_slice() {
        [] => fault.message.clone(),
        fields => format!("{}: {}", fault.message, fields.join(", ")),
    });
    let reason = if fault.reason.is_empty() { format!("{:?}", fault.code) } else { fault.reason };
    let resource = origin.resource().unwrap_or_default();
    AuditEvent { resource, outcome: outcome.into(), reason, message, ..asked(origin) }
}

/// Something that nobody asked for, and that people should find in the log.
#[must_use]
pub fn happened(action: &str, who: &str, from: &str, resource: &str, message: String) -> AuditEvent {
    AuditEvent {
        who: who.to_owned(),
        from: from.to_owned(),
        action: action.to_owned(),
        resource: resource.to_owned(),
        outcome: AuditOutcome::Done.into(),
        message,
        count: 1,
        ..AuditEvent::default()
    }
}

/// Records something while no coordinator runs.
///
/// # Errors
/// When the store cannot be read or written.
pub fn record_offline(store: &Store, now: Now, event: AuditEvent) -> Result<(), StoreError> {
    let mut unit = Unit::default();
    let id = store.newest_audit_id()?.next(now.wall);
    add_event(&mut unit, id, now, event)?;
    store.commit(&[unit]).map(drop)
}

/// A coordinator started, and began a term.
pub(crate) fn started(rows: Rows) -> AuditEvent {
    began(STARTED, format!("version {}", env!("CARGO_PKG_VERSION")), rows)
}

/// The coordinator that runs began a term, as its store had failed.
pub(crate) fn reopened(rows: Rows) -> AuditEvent {
    let text = "the store takes writes again; what was refused meanwhile was not done";
    began(REOPENED, text.to_owned(), rows)
}

fn began(action: &str, message: String, rows: Rows) -> AuditEvent {
    let (changes, changes_left_out) = rows.into_parts();
    let event = happened(action, COORDINATOR, "", changes::FLEET, message);
    AuditEvent { changes, changes_left_out, ..event }
}

fn asked(origin: &Origin) -> AuditEvent {
    AuditEvent {
        who: origin.who().to_owned(),
        from: origin.from().to_owned(),
        action: origin.action().to_owned(),
        request_id: origin.request_id(),
        trace_id: origin.trace_id().to_owned(),
        count: 1,
        ..AuditEvent::default()
    }
}

/// Brings an event within its bounds, and cuts out what may be a secret: every event passes here on its way to the disk.
pub(crate) fn bound(event: &mut AuditEvent) {
    let AuditEvent { who, from, action, resource, reason, message, request_id, trace_id, .. } = event;
    for text in [who, from, action, resource, reason, message, request_id, trace_id] {
        shorten(text);
    }
    for AuditChange { resource, field, old, new } in &mut event.changes {
        for text in [resource, field, old, new] {
            shorten(text);
        }
    }
    while event.encoded_len() > EVENT_BYTES_MAX && event.changes.pop().is_some() {
        event.changes_left_out += 1;
    }
}

fn shorten(text: &mut String) {
    if let Cow::Owned(clean) = without_secrets(text) {
        *text = clean;
    }
    if text.len() > TEXT_BYTES_MAX {
        let room = TEXT_BYTES_MAX - CUT.len();
        let end = (0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(CUT);
    }
}

/// The text without passwords in URIs and without tokens of ours, whoever put them there.
fn without_secrets(text: &str) -> Cow<'_, str> {
    let suspicious = |word: &str| hide_user_info(word).is_some() || hides_token(word);
    if !text.split_whitespace().any(suspicious) {
        return Cow::Borrowed(text);
    }
    let clean = text.split(' ').map(|word| match hide_user_info(word) {
        Some(uri) => uri,
        None if hides_token(word) => HIDDEN.to_owned(),
        None => word.to_owned(),
    });
    Cow::Owned(clean.collect::<Vec<_>>().join(" "))
}

/// `rsync://me:secret@host/module` without what stands before the host; `None`: there is nothing of the kind.
fn hide_user_info(word: &str) -> Option<String> {
    let (scheme, rest) = word.split_once("://")?;
    let (_, host) = rest.rsplit_once('@')?;
    Some(format!("{scheme}://{HIDDEN}@{host}"))
}

/// Whether a token of the fleet's is in the word: three letters, m first and t last, `_`, and a long rest.
fn hides_token(word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    word.split(|c| !is_part(c)).any(|part| {
        let tail = |(head, rest): (&str, &str)| {
            let prefix = matches!(head.as_bytes(), [.., b'm', b'a'..=b'z', b't']);
            prefix && rest.len() >= TOKEN_CHARS_MIN
        };
        part.split_once('_').is_some_and(tail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_cut_out() {
        let clean = |text: &str| without_secrets(text).into_owned();
        assert_eq!(clean("rsync://me:hunter2@h/m is no host"), "rsync://(hidden)@h/m is no host");
        assert_eq!(clean("no token \"mjt_abcdefghijklmnopqrst\""), "no token (hidden)");
        assert_eq!(clean("joinTokens/mjt_abcdefghijklmnopqrst"), "(hidden)");
        for same in ["maria@example.org asks", "rsync://h/m", "mjt_x", "sha256:00ff", "must_not_be_touched"] {
            assert_eq!(clean(same), same);
        }
    }

    #[test]
    fn an_event_is_bounded_and_says_what_was_left_out() {
        let row = |n: usize| AuditChange {
            resource: "projects/debian".to_owned(),
            field: format!("field{n}"),
            old: "ä".repeat(2_000),
            new: "x".repeat(2_000),
        };
        let mut event = AuditEvent {
            message: "m".repeat(9_999),
            changes: (0..100).map(row).collect(),
            ..AuditEvent::default()
        };
        bound(&mut event);
        assert!(event.encoded_len() <= EVENT_BYTES_MAX);
        assert_eq!(event.changes.len() + event.changes_left_out as usize, 100);
        assert!(event.changes.len() > 5 && event.changes_left_out > 5);
        assert!(event.message.len() <= TEXT_BYTES_MAX && event.message.ends_with(CUT));
        assert!(event.changes[0].old.ends_with("ä…"));
    }

    #[test]
    fn an_event_names_the_fields_of_a_fault_and_not_what_was_typed() {
        use fleet::refusal::{Refusal, Violation};
        let faults = vec![Violation::new("upstreams[0].user", "\"hunter2\": is no user")];
        let status =
            mirror_proto::status::refusal_to_status(&Refusal::invalid("project not created", faults));
        let origin = Origin::new("users/maria", "192.0.2.1:5", "ProjectService.CreateProject");
        origin.set_resource("projects/debian".to_owned());
        let event = not_done(&origin, &status);
        assert_eq!(event.message, "project not created: 1 fault: upstreams[0].user");
        assert_eq!((event.reason.as_str(), event.resource.as_str()), ("INVALID_FIELDS", "projects/debian"));
        assert_eq!(event.outcome(), AuditOutcome::Refused);
        let broken = not_done(&origin, &mirror_proto::status::internal("INTERNAL", "x"));
        assert_eq!(broken.outcome(), AuditOutcome::Failed);
    }

    #[test]
    fn changes_and_what_gives_identities_are_covered_and_reads_are_not() {
        for method in ["ProjectService/RunProject", "EnrollmentService/Enroll", "EnrollmentService/Renew"] {
            assert!(covers(&format!("/mirror.v1.{method}")), "{method}");
        }
        for method in ["/mirror.v1.ProjectService/GetProject", "/grpc.health.v1.Health/Check", "/x"] {
            assert!(!covers(method), "{method}");
        }
    }
}
