//! The values: an envelope around the record's own encoding, which crate `mirror-proto` alone knows.
//!
//! `[format u8][schema u16][revision u64][crc32c u32][record]`, big-endian. The CRC covers the key and all of the
//! value but itself, so a value under another key's name is found out too. These fifteen bytes never change:
//! a CRC that does not fit is damage, whichever version wrote it.

use fleet::record::Record;
/// The newest schema of `mirror.store.v1` that this program reads; it writes this one.
pub use mirror_proto::stored::SCHEMA;

use super::{error::StoreError, key};

/// Largest value in bytes, envelope included. A full leaf of larger ones would go to a blob file, which sled
/// never syncs (measured: none at 8 KiB, 66 at 16 KiB).
pub const VALUE_BYTES_MAX: usize = 7 * 1_024;
/// How the record is encoded: 1 is protobuf.
pub const FORMAT: u8 = 1;

const HEADER_BYTES: usize = 15;
const CRC_AT: usize = 11;

/// What an envelope holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened<'a> {
    /// The commit that wrote it.
    pub(crate) revision: u64,
    /// The record's encoding.
    pub(crate) payload: &'a [u8],
}

/// Encodes a record, without its envelope: the revision is known only at the commit.
///
/// # Errors
/// When it is larger than the store takes.
pub(crate) fn encode(record: &Record, key: &[u8]) -> Result<Vec<u8>, StoreError> {
    let payload = mirror_proto::stored::encode(record);
    check_size(key, payload.len())?;
    Ok(payload)
}

/// Whether the store takes a payload of this size under this key.
///
/// # Errors
/// When one of the two is larger.
pub(crate) fn check_size(key: &[u8], payload: usize) -> Result<(), StoreError> {
    let too_large = |bytes, limit| StoreError::TooLarge { record: key::describe(key), bytes, limit };
    if key.len() > key::KEY_BYTES_MAX {
        return Err(too_large(key.len(), key::KEY_BYTES_MAX));
    }
    let bytes = payload + HEADER_BYTES;
    if bytes > VALUE_BYTES_MAX {
        return Err(too_large(bytes, VALUE_BYTES_MAX));
    }
    Ok(())
}

/// Puts the envelope around a payload.
pub(crate) fn seal(key: &[u8], revision: u64, payload: &[u8]) -> Vec<u8> {
    seal_as(key, SCHEMA, revision, payload)
}

fn seal_as(key: &[u8], schema: u16, revision: u64, payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER_BYTES + payload.len());
    value.push(FORMAT);
    value.extend(schema.to_be_bytes());
    value.extend(revision.to_be_bytes());
    let crc = checksum(key, &value, payload);
    value.extend(crc.to_be_bytes());
    value.extend(payload);
    value
}

/// Takes the envelope off a value, checking all of it.
///
/// # Errors
/// When it is damaged, or of a newer coordinator.
pub(crate) fn open<'a>(key: &[u8], value: &'a [u8]) -> Result<Opened<'a>, StoreError> {
    let damaged = |why: &str| StoreError::Damaged { record: key::describe(key), why: why.to_owned() };
    let (header, payload) = value.split_at_checked(HEADER_BYTES).ok_or_else(|| damaged("it is cut short"))?;
    let (covered, crc) = header.split_at(CRC_AT);
    if checksum(key, covered, payload).to_be_bytes() != *crc {
        return Err(damaged("its checksum does not fit"));
    }
    let [format, s0, s1, revision @ ..] = covered else { return Err(damaged("it is cut short")) };
    let schema = u16::from_be_bytes([*s0, *s1]);
    if *format != FORMAT || schema > SCHEMA {
        return Err(StoreError::Newer { record: key::describe(key), found: schema, known: SCHEMA });
    }
    let revision = <[u8; 8]>::try_from(revision).map_err(|_| damaged("it is cut short"))?;
    Ok(Opened { revision: u64::from_be_bytes(revision), payload })
}

/// Takes the record out of a value, checking all of it.
///
/// # Errors
/// When it is damaged, of a newer coordinator, or sound and yet no record.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<Record, StoreError> {
    let opened = open(key, value)?;
    let table = key::table(key).ok_or_else(|| StoreError::Damaged {
        record: key::describe(key),
        why: "no table has such a key".to_owned(),
    })?;
    mirror_proto::stored::decode(table, opened.payload)
        .map_err(|source| StoreError::Unreadable { record: key::describe(key), source })
}

fn checksum(key: &[u8], header: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(key), header), payload)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_sealed_opens_as_it_was(key: Vec<u8>, revision: u64, payload: Vec<u8>) {
            let value = seal(&key, revision, &payload);
            prop_assert_eq!(open(&key, &value).unwrap(), Opened { revision, payload: &payload });
        }

        #[test]
        fn a_flipped_bit_a_cut_or_another_key_is_damage(
            key in prop::collection::vec(any::<u8>(), 1..40),
            payload in prop::collection::vec(any::<u8>(), 0..200),
            at: prop::sample::Index, bit in 0..8u8,
        ) {
            let value = seal(&key, 7, &payload);
            let mut flipped = value.clone();
            flipped[at.index(value.len())] ^= 1 << bit;
            let mut other = key.clone();
            other[at.index(key.len())] ^= 1 << bit;
            for (key, value) in [(&key, &flipped[..]), (&key, &value[..at.index(value.len())]), (&other, &value[..])] {
                let refused = matches!(open(key, value), Err(StoreError::Damaged { .. }));
                prop_assert!(refused);
            }
        }
    }

    #[test]
    fn a_newer_schema_is_refused_and_is_no_damage() {
        let value = seal_as(b"f", SCHEMA + 1, 3, b"x");
        let error = open(b"f", &value).unwrap_err();
        assert!(!error.is_damage());
        let told =
            format!("fleet record has schema {}, this program knows schemas up to {SCHEMA}", SCHEMA + 1);
        assert!(error.to_string().contains(&told), "{error}");
    }
}
