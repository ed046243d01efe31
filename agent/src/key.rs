//! Which attempt, under which epoch: the name of everything the agent holds. Knows the wire's form of it and
//! the form for file names, nothing else.

use std::fmt;

use fleet::id::{AttemptId, Epoch};
use mirror_proto::convert::{attempt_key_from_wire, attempt_key_to_wire};
use mirror_proto::v1;

/// An attempt and the epoch under which it was offered. The same attempt under a later epoch is other work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The attempt.
    pub id: AttemptId,
    /// The fencing token of the offer.
    pub epoch: Epoch,
}

/// The wire's key is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the coordinator sent no usable attempt key (run UUID, number from 1, epoch); fault: the coordinator's"
)]
pub struct BadKey;

impl Key {
    /// Reads the wire's form.
    ///
    /// # Errors
    /// [`BadKey`] when a part is missing or no UUID, or the number is 0.
    pub fn from_wire(key: Option<&v1::AttemptKey>) -> Result<Self, BadKey> {
        let (id, epoch) = attempt_key_from_wire(key).map_err(|_| BadKey)?;
        Ok(Self { id, epoch })
    }

    /// The wire's form.
    #[must_use]
    pub fn to_wire(self) -> v1::AttemptKey {
        attempt_key_to_wire(self.id, self.epoch)
    }

    /// The form for file names: `RUN-NUMBER-TERM.COUNTER`, letters, digits, `-` and `.` only.
    #[must_use]
    pub fn slug(self) -> String {
        format!("{}-{}-{}", self.id.run, self.id.number, self.epoch)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} under epoch {}", self.id, self.epoch)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use fleet::id::RunId;

    /// A key for tests: run `run`, attempt 1.
    pub(crate) fn key(run: u128, term: u64, counter: u64) -> Key {
        let run = RunId(uuid::Uuid::from_u128(run));
        Key { id: AttemptId { run, number: 1 }, epoch: Epoch { term, counter } }
    }

    #[test]
    fn the_wire_form_round_trips_and_bad_ones_are_refused() {
        let good = key(7, 3, 9);
        let wire = good.to_wire();
        assert_eq!(Key::from_wire(Some(&wire)), Ok(good));
        assert_eq!(good.slug(), "00000000-0000-0000-0000-000000000007-1-3.9");
        for bad in [
            None,
            Some(v1::AttemptKey { run: "../x".into(), ..wire.clone() }),
            Some(v1::AttemptKey { attempt: 0, ..wire.clone() }),
            Some(v1::AttemptKey { epoch: None, ..wire }),
        ] {
            assert_eq!(Key::from_wire(bad.as_ref()), Err(BadKey), "{bad:?}");
        }
    }
}
