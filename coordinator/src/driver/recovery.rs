//! How the fleet comes out of the store: as it was remembered, under a new term that is on disk before anything is said with
//! it. What makes it necessary, the writer says.

use fleet::{Engine, defaults::Limits, input::Input, time::Now};
use mirror_proto::{convert, v1::AuditEvent};

use crate::{
    audit::{self, changes},
    store::{AuditId, Store, StoreError, Unit},
};

/// Why the fleet is recovered from the store. What begins a term is recorded in the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// A coordinator starts on the newest state that there was.
    Started,
    /// A coordinator starts on an older state than agents may have seen: its term is at least the seconds since 1970,
    /// above any that can have been lost.
    Rewound,
    /// A commit failed, and the store was opened again.
    Reopened {
        /// Least term, above that of whatever the failed commit was to say.
        term_at_least: u64,
    },
}

impl Begin {
    fn term_at_least(self, now: Now) -> u64 {
        match self {
            Self::Started => 0,
            Self::Rewound => u64::try_from(now.wall.0 / 1_000).unwrap_or(0),
            Self::Reopened { term_at_least } => term_at_least,
        }
    }
}

/// The engine as the store remembers it, under a new term that is stored before anything is said with it.
pub(super) fn recover(
    store: &Store,
    limits: Limits,
    now: Now,
    begin: Begin,
) -> Result<(Engine, AuditId), StoreError> {
    let mut engine = Engine::recover(limits, now, store.live()?);
    let decision = engine.decide(now, Input::Start { at_least: begin.term_at_least(now) });
    let mut unit = Unit::of(&decision.changes)?;
    let mut audited = store.newest_audit_id()?;
    let mut add = |event: AuditEvent| {
        audited = audited.next(now.wall);
        add_event(&mut unit, audited, now, event)
    };
    let rows = changes::of(&engine, &decision.changes);
    if begin == Begin::Rewound {
        let text = "the store holds an older state than agents may have seen: a backup, or a log that had lost its end";
        add(audit::happened(audit::RESTORED, audit::COORDINATOR, "", changes::FLEET, text.to_owned()))?;
    }
    if let Some(event) = audit::plans::dropped(&decision.changes) {
        tracing::warn!("{}", event.message);
        add(event)?;
    }
    add(match begin {
        Begin::Started | Begin::Rewound => audit::started(rows),
        Begin::Reopened { .. } => audit::reopened(rows),
    })?;
    store.commit(&[unit])?;
    engine.apply(now, &decision.changes);
    tracing::info!(
        term = engine.fleet().term,
        projects = engine.projects_by_name().count(),
        waiting = engine.waiting(),
        out = engine.out(),
        "the fleet is recovered from the store"
    );
    Ok((engine, audited))
}

/// Puts an event in a unit, within its bounds.
pub(crate) fn add_event(
    unit: &mut Unit,
    id: AuditId,
    now: Now,
    mut event: AuditEvent,
) -> Result<(), StoreError> {
    event.time = Some(convert::wall_to_wire(now.wall));
    audit::bound(&mut event);
    unit.audit(id, &event)
}
