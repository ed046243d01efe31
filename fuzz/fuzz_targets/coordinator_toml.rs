#![no_main]
//! See [`fleet_fuzz::coordinator_toml`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::coordinator_toml(data));
