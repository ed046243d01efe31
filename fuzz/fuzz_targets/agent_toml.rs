#![no_main]
//! See [`fleet_fuzz::agent_toml`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::agent_toml(data));
