//! What the store writes it reads back the same, and what it cannot read it refuses by name.

mod strategies;

use std::sync::Arc;

use fleet::record::Record;
use mirror_proto::stored::{StoredFault, Table, decode, encode};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_record_is_read_back_as_it_was(record in strategies::record()) {
        let bytes = encode(&record);
        let back = decode(Table::of(&record), &bytes).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        prop_assert_eq!(Table::of_key(&record.key()), Table::of(&record));
        prop_assert_eq!(&encode(&back), &bytes);
        // Names are equal without case, so what is printed is compared too.
        prop_assert_eq!(format!("{back:?}"), format!("{record:?}"));
        prop_assert_eq!(back, record);
    }

    #[test]
    fn bytes_of_any_kind_never_do_worse_than_a_fault(
        table in prop::sample::select(&Table::ALL[..]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(record) = decode(table, &bytes) {
            prop_assert_eq!(Table::of(&record), table);
        }
    }

    #[test]
    fn a_record_cut_short_is_never_another_record(record in strategies::record(), part in 0.0..1.0_f64) {
        let bytes = encode(&record);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length")]
        let cut = (bytes.len() as f64 * part) as usize;
        if let Ok(back) = decode(Table::of(&record), &bytes[..cut]) {
            // Only what may be absent was cut off.
            prop_assert_eq!(&encode(&back), &bytes[..cut]);
        }
    }
}

#[test]
fn nothing_is_a_fault_in_every_table() {
    for table in Table::ALL {
        let fault = decode(table, &[]).expect_err("an empty record");
        assert_eq!(fault.table, table);
        assert_eq!(fault.problem, "is missing");
    }
}

/// A project record as another program might have written it.
fn doctored(change: impl FnOnce(&mut Vec<u8>)) -> StoredFault {
    let mut bytes = encode(&project());
    change(&mut bytes);
    decode(Table::Project, &bytes).expect_err("a doctored record")
}

fn project() -> Record {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let tree = strategies::project().new_tree(&mut runner).expect("a project");
    Record::Project(Arc::new(tree.current()))
}

/// The last value of a singular field wins (protobuf's own rule), so appending replaces.
fn append(bytes: &mut Vec<u8>, field: u8, text: &str) {
    bytes.push(field << 3 | 2);
    bytes.push(u8::try_from(text.len()).expect("a short text"));
    bytes.extend_from_slice(text.as_bytes());
}

#[test]
fn a_fault_names_record_field_and_problem() {
    let fault = doctored(|bytes| append(bytes, 2, "no name"));
    assert_eq!(
        fault.to_string(),
        "stored project record: name: \"no name\": only letters, digits and . _ + - (at most 63), \
         the first one a letter or digit"
    );
    // ProjectSpec { destination: "debian" }: the parts of a message are merged.
    let fault = doctored(|bytes| append(bytes, 3, "\u{22}\u{6}debian"));
    assert_eq!(fault.field, "spec.destination");
    // Schedule { cron { minute: "99" } } within ProjectSpec.
    let fault = doctored(|bytes| append(bytes, 3, "\u{2a}\u{6}\u{a}\u{4}\u{3a}\u{2}99"));
    assert_eq!(fault.field, "spec.schedule.cadence.cron");
    assert!(fault.problem.contains("minute \"99\": must be 0 to 59"), "{fault}");
    // Schedule { overlap_policy: 9 }.
    let fault = doctored(|bytes| append(bytes, 3, "\u{2a}\u{2}\u{48}\u{9}"));
    assert_eq!(
        fault.to_string(),
        "stored project record: spec.schedule.overlap_policy: 9: there is no such value"
    );
    let fault = doctored(|bytes| bytes.push(0xff));
    assert_eq!(fault.field, "(whole)");
}
