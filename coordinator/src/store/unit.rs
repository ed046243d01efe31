//! A unit: what one decision stores, all of it or none. Knows the tables, not the engine below.

use fleet::record::{Change, Key, Record};

use super::{
    codec,
    error::StoreError,
    key::{self, Age},
};

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// Store this payload under this key; the envelope is put around it at the commit.
    Put { key: Vec<u8>, payload: Vec<u8> },
    /// Remove what is under this key, if anything.
    Delete { key: Vec<u8> },
}

impl Op {
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// What one decision stores: all of it becomes durable, or none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unit(Vec<Op>);

impl Unit {
    /// The unit of these changes, of which volatile ones are no part. A run or attempt that is no longer live
    /// moves to the history in it.
    ///
    /// # Errors
    /// When a record is larger than [`codec::VALUE_BYTES_MAX`]; the error names it and its size.
    pub fn of(changes: &[Change]) -> Result<Self, StoreError> {
        let mut ops = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                Change::Put(record) => put(&mut ops, record)?,
                Change::Delete(key) => delete(&mut ops, key),
                Change::Volatile(_) => {}
            }
        }
        Ok(Self(ops))
    }

    /// A unit that only removes.
    pub(crate) fn removing(keys: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self(keys.into_iter().map(|key| Op::Delete { key }).collect())
    }

    pub(crate) fn push(&mut self, op: Op) {
        self.0.push(op);
    }

    pub(crate) fn ops(&self) -> &[Op] {
        &self.0
    }
}

fn put(ops: &mut Vec<Op>, record: &Record) -> Result<(), StoreError> {
    let model_key = record.key();
    let age = if record.is_live() { Age::Live } else { Age::Past };
    let key = key::of(&model_key, age);
    let payload = codec::encode(record, &key)?;
    if age == Age::Past {
        ops.push(Op::Delete { key: key::of(&model_key, Age::Live) });
    }
    ops.push(Op::Put { key, payload });
    Ok(())
}

fn delete(ops: &mut Vec<Op>, model_key: &Key) {
    ops.push(Op::Delete { key: key::of(model_key, Age::Live) });
    if key::has_history(model_key) {
        ops.push(Op::Delete { key: key::of(model_key, Age::Past) });
    }
}
