//! What must hold for any bytes, one function for each fuzz target: more than the absence of panics. `fuzz_targets`
//! puts what libFuzzer makes to them, `tests/it/fuzz.rs` the seeds and random bytes in every `make test`.

mod properties;

pub use properties::*;
