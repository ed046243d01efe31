//! The fuzz targets' properties in every `make test`: with the committed seeds, with seeds that were damaged a
//! little, and with random bytes. `make fuzz` goes further with the same functions.

#[path = "../../fuzz/src/properties.rs"]
#[allow(missing_docs, unreachable_pub, reason = "it is the library of the fuzz workspace")]
mod properties;

use std::{fs, path::PathBuf};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

/// Random inputs of each target.
const CASES: u32 = 100;
/// Most bytes of one.
const BYTES_MAX: usize = 600;

fn folder(name: &str) -> PathBuf {
    crate::tidy::root().join("fuzz").join(name)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(folder("seeds").join(target)).into_iter().flatten().flatten();
    files.map(|file| fs::read(file.path()).expect("a seed can be read")).collect()
}

#[test]
fn every_target_has_its_program_and_small_seeds() {
    let manifest = fs::read_to_string(folder("Cargo.toml")).expect("the manifest of the fuzz workspace");
    for (target, _) in properties::TARGETS {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
        assert!(folder("fuzz_targets").join(format!("{target}.rs")).is_file(), "{target}");
        let seeds = seeds(target);
        assert!(seeds.len() >= 2, "{target} has {} seeds", seeds.len());
        assert!(seeds.iter().all(|seed| seed.len() <= 16 << 10), "a seed of {target} is large");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), properties::TARGETS.len());
}

#[test]
fn properties_hold_for_seeds_and_for_damaged_seeds() {
    for (target, property) in properties::TARGETS {
        let seeds = seeds(target);
        seeds.iter().for_each(|seed| property(seed));
        let damage = (
            prop::sample::select(seeds),
            prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            any::<prop::sample::Index>(),
        );
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(CASES) });
        let held = runner.run(&damage, |(mut seed, changes, cut)| {
            if !seed.is_empty() {
                for (at, byte) in changes {
                    let at = at.index(seed.len());
                    seed[at] = byte;
                }
            }
            seed.truncate(seed.len() - cut.index(seed.len() + 1) / 4);
            property(&seed);
            Ok(())
        });
        assert!(held.is_ok(), "{target}: {}", held.err().map(|bad| bad.to_string()).unwrap_or_default());
    }
}

#[test]
fn properties_hold_for_random_bytes() {
    for (target, property) in properties::TARGETS {
        let text = prop::collection::vec(
            prop_oneof![4 => 0x20_u8..0x7f, 1 => any::<u8>(), 1 => Just(b'\n')],
            0..BYTES_MAX,
        );
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(CASES) });
        let held = runner.run(&text, |bytes| {
            property(&bytes);
            Ok(())
        });
        assert!(held.is_ok(), "{target}: {}", held.err().map(|bad| bad.to_string()).unwrap_or_default());
    }
}
