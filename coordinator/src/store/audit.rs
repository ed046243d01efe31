//! The audit log's part of the store: its keys grow with time, so that pages go both ways, and its records ride in the
//! unit of what they tell of. Knows neither who is audited nor for how long.

use std::{fmt, str::FromStr};

use fleet::time::Wall;
use mirror_proto::v1::AuditEvent;
use prost::Message as _;

use super::{
    PAGE_MAX, PRUNE_DELETES_MAX, Store, codec,
    engine::Pair,
    error::StoreError,
    key,
    unit::{Op, Unit},
};

/// The table of the log's keys.
pub(super) const TABLE: u8 = b'e';

/// An event's place in the log. Each is greater than all before it, also when the clock was set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct AuditId {
    /// Milliseconds since 1970, as the clock said; or as of the event before, where that is later.
    pub ms: u64,
    /// Counts the events of one millisecond.
    pub number: u32,
}

impl AuditId {
    /// The next one at this time.
    #[must_use]
    pub fn next(self, now: Wall) -> Self {
        let ms = u64::try_from(now.0).unwrap_or(0);
        if ms > self.ms { Self { ms, number: 0 } } else { self.after() }
    }

    /// The greatest id below this one.
    #[must_use]
    pub fn before(self) -> Self {
        match self.number.checked_sub(1) {
            Some(number) => Self { number, ..self },
            None if self.ms == 0 => self,
            None => Self { ms: self.ms - 1, number: u32::MAX },
        }
    }

    /// The least id above this one.
    #[must_use]
    pub fn after(self) -> Self {
        match self.number.checked_add(1) {
            Some(number) => Self { number, ..self },
            None => Self { ms: self.ms + 1, number: 0 },
        }
    }

    fn key(self) -> Vec<u8> {
        let mut key = vec![TABLE];
        key.extend(self.ms.to_be_bytes());
        key.extend(self.number.to_be_bytes());
        key
    }

    fn of_key(key: &[u8]) -> Option<Self> {
        let (ms, number) = key.strip_prefix(&[TABLE])?.split_first_chunk()?;
        let (ms, number) = (u64::from_be_bytes(*ms), u32::from_be_bytes(number.try_into().ok()?));
        Some(Self { ms, number })
    }
}

impl fmt::Display for AuditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}{:08x}", self.ms, self.number)
    }
}

/// A text that is no id of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no id of an event: 20 hexadecimal digits, as the list shows them")]
pub struct NoAuditId;

impl FromStr for AuditId {
    type Err = NoAuditId;

    fn from_str(text: &str) -> Result<Self, NoAuditId> {
        let (ms, number) = text.split_at_checked(12).ok_or(NoAuditId)?;
        if number.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoAuditId);
        }
        let ms = u64::from_str_radix(ms, 16).map_err(|_| NoAuditId)?;
        Ok(Self { ms, number: u32::from_str_radix(number, 16).map_err(|_| NoAuditId)? })
    }
}

/// Which way a page goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Events after that one, oldest first; `None`: from the first.
    After(Option<AuditId>),
    /// Events before that one, newest first; `None`: from the last.
    Before(Option<AuditId>),
}

impl Unit {
    /// Adds an event: it becomes durable with all else of the unit, or not at all. The event's own id is not stored: it
    /// is the key.
    ///
    /// # Errors
    /// When it is larger than [`codec::VALUE_BYTES_MAX`].
    pub fn audit(&mut self, id: AuditId, event: &AuditEvent) -> Result<(), StoreError> {
        let (key, payload) = (id.key(), event.encode_to_vec());
        codec::check_size(&key, payload.len())?;
        self.push(Op::Put { key, payload });
        Ok(())
    }
}

impl Store {
    /// At most `limit` (and at most [`PAGE_MAX`]) events. One that is damaged is there as an event that says so: it hides
    /// none of the others.
    ///
    /// # Errors
    /// When the store cannot be read at all.
    pub fn audit_events(&self, direction: Direction, limit: usize) -> Result<Vec<AuditEvent>, StoreError> {
        let (first, end) = (vec![TABLE], key::end_of(&[TABLE]));
        let limit = limit.min(PAGE_MAX);
        let page = match direction {
            Direction::After(id) => self.page(&id.map_or(first, |id| key::after(&id.key())), &end, limit)?,
            Direction::Before(id) => self.page_back(&first, &id.map_or(end, AuditId::key), limit)?,
        };
        Ok(page.iter().map(read).collect())
    }

    /// The newest event's id; the least id of all when there is none.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn newest_audit_id(&self) -> Result<AuditId, StoreError> {
        let page = self.page_back(&[TABLE], &key::end_of(&[TABLE]), 1)?;
        Ok(page.first().and_then(|(key, _)| AuditId::of_key(key)).unwrap_or_default())
    }

    /// Removes events from before this time, at most [`PRUNE_DELETES_MAX`] in one commit; how many they were. When that
    /// is the most, there may be more.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn prune_audit(&self, before: Wall) -> Result<usize, StoreError> {
        let end = AuditId { ms: u64::try_from(before.0).unwrap_or(0), number: 0 };
        let page = self.page(&[TABLE], &end.key(), PRUNE_DELETES_MAX)?;
        let count = page.len();
        self.commit(&[Unit::removing(page.into_iter().map(|(key, _)| key))])?;
        Ok(count)
    }
}

fn read((key, value): &Pair) -> AuditEvent {
    let id = AuditId::of_key(key).unwrap_or_default();
    let opened = codec::open(key, value).map_err(|error| error.to_string());
    let event =
        opened.and_then(|opened| AuditEvent::decode(opened.payload).map_err(|error| error.to_string()));
    let event = event.unwrap_or_else(|error| {
        let time = Wall(i64::try_from(id.ms).unwrap_or(i64::MAX));
        AuditEvent {
            time: Some(mirror_proto::convert::wall_to_wire(time)),
            who: "coordinator".to_owned(),
            action: "Audit.Damaged".to_owned(),
            message: format!("the event that was recorded here cannot be read: {error}"),
            count: 1,
            ..AuditEvent::default()
        }
    });
    AuditEvent { id: id.to_string(), ..event }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_only_grow_and_are_read_back() {
        let mut id = AuditId::default();
        for (ms, wanted) in [(5_i64, (5, 0)), (5, (5, 1)), (3, (5, 2)), (6, (6, 0)), (-1, (6, 1))] {
            let next = id.next(Wall(ms));
            assert!(next > id);
            assert_eq!((next.ms, next.number), wanted);
            assert_eq!(next.to_string().parse(), Ok(next));
            assert_eq!(AuditId::of_key(&next.key()), Some(next));
            assert!(next.key() > id.key());
            id = next;
        }
        let last = AuditId { ms: 5, number: u32::MAX };
        assert_eq!((last.after(), last.after().before()), (AuditId { ms: 6, number: 0 }, last));
        assert_eq!(AuditId::default().before(), AuditId::default());
        for bad in ["", "0", "00000000000000000000 ", "+0000000000000000000", "g0000000000000000000", "ä"] {
            assert_eq!(bad.parse::<AuditId>(), Err(NoAuditId), "{bad}");
        }
    }
}
